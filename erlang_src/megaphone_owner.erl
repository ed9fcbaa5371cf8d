%% @private
%% @doc A process that client sessions of XMPP connections name as the owner of their socket ({@link megaphone_c2s}), and
%% that asks on their behalf for elements when a shaper's pause is over.
%%
%% Each session monitors its owner and ends with it. There are several, so that the death of one ends a part of the
%% sessions, and not all at the same moment.
-module(megaphone_owner).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([child_specs/0, start_link/1, of_socket/1, is_owner/1, activate/1, set_shaper/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% With a million sessions, the death of one owner ends 62,500 of them.
-define(OWNERS, 16).

-type place() :: 0..15.
-type socket() :: megaphone_nif:handle() | megaphone_nif:bosh_socket().

%% @doc The owners, for a supervisor.
-spec child_specs() -> [supervisor:child_spec()].
child_specs() ->
    [#{id => {?MODULE, Number}, start => {?MODULE, start_link, [Number]}} || Number <- lists:seq(0, ?OWNERS - 1)].

-spec start_link(place()) -> gen_server:start_ret().
start_link(Number) ->
    gen_server:start_link(?MODULE, Number, []).

%% @doc The owner of a connection. No process and no lock is asked.
-spec of_socket(socket()) -> pid().
of_socket({_Link, _Id, Slot, _Generation}) -> persistent_term:get({?MODULE, Slot rem ?OWNERS});
of_socket({Place, _Generation}) -> persistent_term:get({?MODULE, Place rem ?OWNERS}).

%% @doc Whether a process is one of them.
-spec is_owner(pid()) -> boolean().
is_owner(Pid) ->
    lists:any(fun(Number) -> persistent_term:get({?MODULE, Number}, none) =:= Pid end, lists:seq(0, ?OWNERS - 1)).

%% @doc Notes the shaper by which the calling session is slowed down, or that it is not any more. True: it is.
-spec set_shaper(none | p1_shaper:state()) -> boolean().
set_shaper(none) ->
    _ = erase(?MODULE),
    false;
set_shaper(Shaper) ->
    _ = put(?MODULE, Shaper),
    true.

%% @doc Asks for the next elements of a connection. Called in the session's process. With a shaper ({@link set_shaper/1}) it gets
%% them when what came before is paid for.
-spec activate(socket()) -> ok | {error, closed}.
activate(Socket) ->
    %% The generator that made the stream's id and the resource: 45 words of some 390 that the session keeps for the rest of its
    %% life, to use them no more. If it does, another one is made.
    _ = erase(rand_seed),
    case ask(Socket) of
        ok -> ok;
        large -> deliver(Socket);
        {shaped, Bytes} -> pay(Socket, get(?MODULE), Bytes);
        {error, closed} = Error -> Error
    end.

-spec ask(socket()) -> ok | large | {shaped, pos_integer()} | {error, closed}.
ask({_Place, _Generation} = Socket) -> megaphone_nif:bosh_activate(Socket);
ask(Handle) -> megaphone_nif:activate(Handle).

-spec deliver(socket()) -> ok | {error, closed}.
deliver({_Place, _Generation} = Socket) -> megaphone_nif:bosh_deliver(Socket);
deliver(Handle) -> megaphone_nif:deliver_large(Handle).

-spec pay(socket(), undefined | p1_shaper:state(), pos_integer()) -> ok | {error, closed}.
pay(Socket, undefined, _Bytes) ->
    activate(Socket);
pay(Socket, Shaper, Bytes) ->
    {Next, Pause} = p1_shaper:update(Shaper, Bytes),
    _ = set_shaper(Next),
    case Pause > 0 of
        true ->
            _ = erlang:send_after(Pause, of_socket(Socket), {activate, Socket}),
            ok;
        false ->
            activate(Socket)
    end.

-spec init(place()) -> {ok, place(), hibernate}.
init(Number) ->
    ok = persistent_term:put({?MODULE, Number}, self()),
    {ok, Number, hibernate}.

-spec handle_call(term(), gen_server:from(), place()) -> {reply, {error, unknown_call}, place()}.
handle_call(_Request, _From, Number) ->
    {reply, {error, unknown_call}, Number}.

-spec handle_cast(term(), place()) -> {noreply, place()}.
handle_cast(_Message, Number) ->
    {noreply, Number}.

-spec handle_info({activate, socket()} | term(), place()) -> {noreply, place()}.
handle_info({activate, Socket}, Number) ->
    _ = [spawn(fun() -> deliver(Socket) end) || ask(Socket) =:= large],
    {noreply, Number};
handle_info(_Other, Number) ->
    {noreply, Number}.
