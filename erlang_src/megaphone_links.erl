%% @private
%% @doc Knows the live links, and tidies up after each.
%%
%% A link's connections do not end by themselves when its receiver dies. This process monitors the receivers, and
%% closes what a dead one leaves behind in bounded slices, so that neither this process nor a scheduler is busy for
%% long when 100,000 clients go at once. It also ends all links when ejabberd stops.
%%
%% The table belongs to `megaphone_root_sup': after a crash here nothing is lost, the next incarnation monitors the
%% same receivers and goes on with the sweeps.
-module(megaphone_links).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, new_table/0, add/1, list/0, count/0, drain/1, new_options/2, set_idle/2, idle/1, idle_after/0, send_timeout/1, default_send_timeout/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2, terminate/2]).
-export_type([entry/0, listener/0]).

-define(TABLE, ?MODULE).
%% ejabberd's own default for this listener option.
-define(SEND_TIMEOUT, 15000).

-type listener() :: term().
%% Names a listener, the same after its options were changed.

-type entry() :: #{
    link := megaphone_nif:link(),
    number := megaphone_nif:link_number(),
    peer := binary(),
    receiver := pid(),
    listener := listener(),
    send_timeout := timeout(),
    idle := megaphone_sweeper:idle()
}.

-record(row, {
    number :: megaphone_nif:link_number() | '_',
    link :: megaphone_nif:link() | '_',
    peer :: binary() | '_',
    receiver :: pid() | '$1' | '_',
    listener :: listener(),
    send_timeout :: timeout() | '_',
    idle :: megaphone_sweeper:idle() | '$1' | '_',
    since :: integer() | '_'
}).

-record(state, {
    %% Monitors of the receivers.
    receivers = #{} :: #{reference() => megaphone_nif:link_number()},
    %% ejabberd_sup, as long as it lives and a link came since it was started.
    host :: reference() | undefined
}).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Makes the table of links. The caller owns it.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #row.number}, {read_concurrency, true}]),
    ok.

%% @doc Enters a link. It is taken out when its receiver is dead and its connections are closed.
-spec add(entry()) -> ok.
add(Entry) ->
    gen_server:call(?MODULE, {add, Entry}, infinity).

%% @doc Gives a listener's new options to the links that it has accepted. Links live for months; with the options that
%% they started with, a change of `request_handlers' would reach nobody.
-spec new_options(listener(), [{atom(), term()}]) -> ok.
new_options(Listener, Opts) ->
    gen_server:cast(?MODULE, {new_options, Listener, Opts}).

%% @doc The live links, with what the table knows about each. Costs a native call a link.
-spec list() -> [#{atom() => term()}].
list() ->
    Now = erlang:monotonic_time(second),
    [describe(Row, Now) || Row <- ets:tab2list(?TABLE)].

%% @doc Asks the connection manager at the other end of a link to open no further connections on it. Holds until the link ends.
%% `closed': the link is not open (any more).
-spec drain(megaphone_nif:link_number()) -> ok | {error, not_found | closed}.
drain(Number) ->
    case ets:lookup(?TABLE, Number) of
        [#row{link = Link, peer = Peer}] ->
            Result = megaphone_nif:link_drain(Link),
            _ = [?LOG_NOTICE("megaphone: link ~b from ~ts takes no further connections", [Number, Peer]) || Result =:= ok],
            Result;
        [] ->
            {error, not_found}
    end.

%% @doc How many links there are, those that are being closed included.
-spec count() -> non_neg_integer().
count() ->
    ets:info(?TABLE, size).

%% @doc How long a send on the connection may wait: the listener option `send_timeout'. One ETS lookup.
-spec send_timeout(megaphone_nif:handle()) -> timeout().
send_timeout({Number, _Id, _Slot, _Generation}) ->
    %% There is no table when the application is not started, and no row for a connection that Erlang code opened.
    try
        ets:lookup_element(?TABLE, Number, #row.send_timeout)
    catch
        error:badarg -> ?SEND_TIMEOUT
    end.

%% @doc Changes what is done with the memory of idle users of a link.
-spec set_idle(megaphone_nif:link_number(), megaphone_sweeper:idle()) -> ok.
set_idle(Number, Idle) ->
    _ = ets:update_element(?TABLE, Number, {#row.idle, Idle}),
    ok.

%% @doc The shortest `idle_after' of all links, in milliseconds: when to look for idle users.
-spec idle_after() -> pos_integer().
idle_after() ->
    After = [After || {_Mode, After} <- ets:select(?TABLE, [{#row{idle = '$1', _ = '_'}, [], ['$1']}])],
    case After of
        [] -> megaphone_sweeper:default(idle_after);
        _ -> lists:min(After)
    end.

%% @doc What is done with the memory of idle users of a link. One ETS lookup.
-spec idle(megaphone_nif:link_number()) -> megaphone_sweeper:idle().
idle(Number) ->
    try
        ets:lookup_element(?TABLE, Number, #row.idle)
    catch
        error:badarg -> keep
    end.

%% @doc The send timeout where no listener says another.
-spec default_send_timeout() -> timeout().
default_send_timeout() ->
    ?SEND_TIMEOUT.

-spec describe(#row{}, integer()) -> #{atom() => term()}.
describe(#row{link = Link, number = Number, peer = Peer, receiver = Receiver, since = Since}, Now) ->
    Known = megaphone_nif:link_info(Link),
    Known#{link => Number, peer => Peer, receiver => Receiver, age => Now - Since}.

-spec init([]) -> {ok, #state{}, {continue, adopt}}.
init([]) ->
    %% For terminate/2, which ends the links with the application.
    process_flag(trap_exit, true),
    {ok, #state{}, {continue, adopt}}.

%% Of a receiver that died meanwhile, the monitor tells at once.
-spec handle_continue(adopt, #state{}) -> {noreply, #state{}}.
handle_continue(adopt, State) ->
    {noreply, lists:foldl(fun watch/2, State, ets:tab2list(?TABLE))}.

-spec handle_call({add, entry()} | term(), gen_server:from(), #state{}) ->
    {reply, ok | {error, unknown_call}, #state{}}.
handle_call({add, Entry}, _From, State) ->
    #{link := Link, number := Number, peer := Peer, receiver := Receiver, listener := Listener} = Entry,
    Row = #row{
        number = Number,
        link = Link,
        peer = Peer,
        receiver = Receiver,
        listener = Listener,
        send_timeout = maps:get(send_timeout, Entry),
        idle = maps:get(idle, Entry),
        since = erlang:monotonic_time(second)
    },
    true = ets:insert(?TABLE, Row),
    {reply, ok, watch(Row, State)};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast({new_options, listener(), [{atom(), term()}]}, #state{}) -> {noreply, #state{}}.
handle_cast({new_options, Listener, Opts}, State) ->
    Of = {#row{receiver = '$1', listener = '$2', _ = '_'}, [{'=:=', '$2', {const, Listener}}], ['$1']},
    lists:foreach(fun(Receiver) -> megaphone_receiver:new_options(Receiver, Opts) end, ets:select(?TABLE, [Of])),
    {noreply, State}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', MRef, process, _Pid, _Reason}, #state{host = MRef} = State) ->
    stop_receivers(ejabberd_stopped),
    {noreply, State#state{host = undefined}};
handle_info({'DOWN', MRef, process, _Pid, _Reason}, #state{receivers = Receivers} = State) ->
    case maps:take(MRef, Receivers) of
        {Number, Rest} ->
            start_sweep(Number),
            {noreply, State#state{receivers = Rest}};
        error ->
            {noreply, State}
    end;
handle_info({sweep, Number, Cursor}, State) ->
    sweep(Number, Cursor),
    {noreply, State};
handle_info({megaphone_down, Pid} = Message, State) ->
    %% One slice for each message, so that those who call are not kept waiting.
    _ = [self() ! Message || megaphone_nif:process_down(Pid) =:= more],
    {noreply, State};
handle_info({megaphone_next, {Number, _Id, _Slot, _Generation} = Handle}, State) ->
    %% A request came before the one before it was answered.
    _ = [megaphone_receiver:consume(Receiver, Handle, any) || #row{receiver = Receiver} <- ets:lookup(?TABLE, Number)],
    {noreply, State};
handle_info({megaphone_gone, Pid}, State) ->
    %% It answers a poll whose client has gone, and waits for something else.
    exit(Pid, client_gone),
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.

%% The links of our own supervisor are down already. Those that ejabberd supervises are told to end, and none of them
%% leaves a connection behind.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, _State) ->
    stop_receivers(shutdown),
    lists:foreach(fun(#row{link = Link}) -> sweep_all(Link) end, ets:tab2list(?TABLE)).

-spec watch(#row{}, #state{}) -> #state{}.
watch(#row{number = Number, receiver = Receiver}, #state{receivers = Receivers} = State) ->
    MRef = monitor(process, Receiver),
    watch_host(State#state{receivers = Receivers#{MRef => Number}}).

%% The links are of no use without ejabberd, which may be started anew in this node at any time.
-spec watch_host(#state{}) -> #state{}.
watch_host(#state{host = undefined} = State) ->
    case whereis(ejabberd_sup) of
        undefined -> State;
        Pid -> State#state{host = monitor(process, Pid)}
    end;
watch_host(State) ->
    State.

-spec stop_receivers(shutdown | ejabberd_stopped) -> ok.
stop_receivers(Reason) ->
    Receivers = ets:select(?TABLE, [{#row{receiver = '$1', _ = '_'}, [], ['$1']}]),
    lists:foreach(fun(Receiver) -> megaphone_receiver:stop(Receiver, Reason) end, Receivers).

-spec start_sweep(megaphone_nif:link_number()) -> ok.
start_sweep(Number) ->
    case ets:lookup(?TABLE, Number) of
        [#row{link = Link}] ->
            %% Again, for a receiver that was killed.
            ok = megaphone_nif:link_down(Link),
            sweep(Number, 0);
        [] ->
            ok
    end.

-spec sweep(megaphone_nif:link_number(), non_neg_integer()) -> ok.
sweep(Number, Cursor) ->
    case ets:lookup(?TABLE, Number) of
        [#row{link = Link}] ->
            case megaphone_nif:link_sweep(Link, Cursor) of
                {more, Next} ->
                    %% By a message: new links are served between the slices.
                    self() ! {sweep, Number, Next},
                    ok;
                done ->
                    true = ets:delete(?TABLE, Number),
                    ok
            end;
        [] ->
            ok
    end.

-spec sweep_all(megaphone_nif:link()) -> ok.
sweep_all(Link) ->
    ok = megaphone_nif:link_down(Link),
    sweep_rest(Link, 0).

-spec sweep_rest(megaphone_nif:link(), non_neg_integer()) -> ok.
sweep_rest(Link, Cursor) ->
    case megaphone_nif:link_sweep(Link, Cursor) of
        {more, Next} -> sweep_rest(Link, Next);
        done -> ok
    end.
