%% @private
%% @doc Reads a link: one process per connection from an ECM, and the owner of its socket.
%%
%% It never blocks. Bytes come by `{active, once}', at most a buffer at a time, go to the native table in slices, and
%% whatever the table wants done (start a process for a request) is done here. Writing is the sender's work.
%%
%% ```
%%   handover ──accept──▶ open ──stop/protocol error──▶ flushing ──sender done──▶ lingering ──▶ end
%%      │                  └──────────── socket closed, sender failed ───────────────────────────▲
%%      └── not accepted in time ────────────────────────────────────────────────────────────────┘
%% '''
%%
%% Lingering: after the last frame was written (it says why the link ends) the socket is closed for writing only, and
%% input is thrown away for a moment. Closing it with input unread would reset the connection, and the peer would
%% lose that frame.
%%
%% What the peer sent is never part of an exit reason, a log line or a status report.
-module(megaphone_receiver).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/2, accept/1, stop/2, new_options/2, consume/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2, terminate/2, format_status/1]).

%% The listener hands the socket over at once; a process that never gets one must not stay.
-define(HANDOVER_TIMEOUT, 30000).
%% How long the end of a link may take: for writing what is queued, and for the peer to close.
-define(CLOSING_TIMEOUT, 2000).
%% The most bytes that one message brings. Also what one link can make wait in this process.
-define(READ_BUFFER, 65536).

-type phase() :: handover | open | flushing | lingering.
-type stop_reason() ::
    peer_closed
    | not_accepted
    | shutdown
    | ejabberd_stopped
    | {refused, links}
    | {protocol, binary()}
    | {socket, atom()}
    | {send, atom()}
    | silent
    | {internal, term()}.

-record(state, {
    socket :: inet:socket(),
    opts :: [{atom(), term()}],
    %% Undefined before the link is open.
    service :: megaphone_http:service() | undefined,
    phase = handover :: phase(),
    link :: megaphone_nif:link() | undefined,
    number = 0 :: megaphone_nif:link_number(),
    peer = <<"unknown">> :: binary(),
    sender :: pid() | undefined,
    reason :: stop_reason() | undefined,
    complained = false :: boolean(),
    %% Looks at the link since something last came from it.
    silence = 0 :: non_neg_integer()
}).

-type step() ::
    {noreply, #state{}}
    | {noreply, #state{}, {continue, input}}
    | {stop, {shutdown, stop_reason()}, #state{}}.

%% @doc Starts the receiver for an accepted socket. It does nothing before {@link accept/1}. `Opts' are the listener's
%% options.
-spec start_link(inet:socket(), [{atom(), term()}]) -> gen_server:start_ret().
start_link(Socket, Opts) ->
    gen_server:start_link(?MODULE, {Socket, Opts}, []).

%% @doc Tells the receiver that it owns the socket now.
-spec accept(pid()) -> ok.
accept(Receiver) ->
    gen_server:cast(Receiver, accept).

%% @doc Asks it to end the link: what is queued is written first, as long as that takes no more than 2 s.
-spec stop(pid(), shutdown | ejabberd_stopped) -> ok.
stop(Receiver, Reason) ->
    gen_server:cast(Receiver, {stop, Reason}).

%% @doc Replaces the listener's options: what is started from now on sees the new ones.
-spec new_options(pid(), [{atom(), term()}]) -> ok.
new_options(Receiver, Opts) ->
    gen_server:cast(Receiver, {new_options, Opts}).

%% @doc Asks for a consumer of the request that waits on a connection: of any kind, or one that reads step by step.
-spec consume(pid(), megaphone_nif:handle(), any | stepwise) -> ok.
consume(Receiver, Handle, Kind) ->
    gen_server:cast(Receiver, {consume, Handle, Kind}).

-spec init({inet:socket(), [{atom(), term()}]}) -> {ok, #state{}, timeout()}.
init({Socket, Opts}) ->
    process_flag(trap_exit, true),
    {ok, #state{socket = Socket, opts = Opts}, ?HANDOVER_TIMEOUT}.

-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, {error, unknown_call}, #state{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(Cast, #state{}) -> step() when
    Cast ::
        accept
        | {stop, stop_reason()}
        | {new_options, [{atom(), term()}]}
        | {consume, megaphone_nif:handle(), any | stepwise}.
handle_cast(accept, #state{phase = handover} = State) ->
    open(State);
handle_cast({stop, Reason}, #state{phase = open} = State) ->
    flush(Reason, State);
handle_cast({stop, Reason}, #state{phase = handover} = State) ->
    finish(Reason, State);
handle_cast({new_options, Opts}, #state{phase = open} = State) ->
    {noreply, State#state{service = megaphone_http:service(Opts)}};
handle_cast({consume, Handle, any}, #state{phase = open, service = Service} = State) ->
    {noreply, started(megaphone_http:start_consumer(Handle, Service), State)};
handle_cast({consume, Handle, stepwise}, #state{phase = open, service = Service} = State) ->
    {noreply, started(megaphone_http:start_stepwise(Handle, Service), State)};
handle_cast(_Other, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> step().
handle_info({tcp, Socket, Data}, #state{socket = Socket, phase = open} = State) ->
    input(Data, State#state{silence = 0});
handle_info(listen, #state{phase = open} = State) ->
    silence(State);
handle_info({tcp, Socket, _Data}, #state{socket = Socket} = State) ->
    read_on(State);
handle_info({tcp_closed, Socket}, #state{socket = Socket} = State) ->
    finish(peer_closed, State);
handle_info({tcp_error, Socket, Reason}, #state{socket = Socket} = State) ->
    finish({socket, Reason}, State);
handle_info({'EXIT', Sender, Reason}, #state{sender = Sender} = State) ->
    sender_ended(Reason, State#state{sender = undefined});
handle_info(closing_timeout, State) ->
    finish(shutdown, State);
handle_info(timeout, #state{phase = handover} = State) ->
    finish(not_accepted, State);
handle_info(_Other, State) ->
    {noreply, State}.

-spec handle_continue(input, #state{}) -> step().
handle_continue(input, State) ->
    input(<<>>, State).

-spec terminate(term(), #state{}) -> ok.
terminate(Reason, #state{socket = Socket, link = Link} = State) ->
    log_end(Reason, State),
    _ = [megaphone_nif:link_down(Link) || Link =/= undefined],
    gen_tcp:close(Socket).

%% The socket's last bytes may sit in the last message, and in the state of nothing else.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (message, {tcp, Socket, Data}) when is_binary(Data) -> {tcp, Socket, {bytes, byte_size(Data)}};
            (log, _Events) -> [];
            (_Key, Value) -> Value
        end,
        Status
    ).

%% ---- opening -------------------------------------------------------------------------------------------------

-spec open(#state{}) -> step().
open(#state{socket = Socket, opts = Opts} = State0) ->
    State = State0#state{peer = peer_name(Socket, Opts)},
    case megaphone_nif:link_open(State#state.peer) of
        {ok, Link} -> start_sender(State#state{link = Link, service = megaphone_http:service(Opts)}, Opts);
        {error, {limit, links}} -> refuse({refused, links}, megaphone_nif:link_refusal(), State)
    end.

%% Says why, and lets the peer read it: a socket that is closed with unread input takes back what was written.
-spec refuse(stop_reason(), binary(), #state{}) -> step().
refuse(Reason, Frames, #state{socket = Socket} = State) ->
    _ = erlang:send_after(?CLOSING_TIMEOUT, self(), closing_timeout),
    case gen_tcp:send(Socket, Frames) =:= ok andalso gen_tcp:shutdown(Socket, write) of
        ok -> read_on(State#state{phase = lingering, reason = Reason});
        _ -> finish(Reason, State)
    end.

-spec start_sender(#state{}, [{atom(), term()}]) -> step().
start_sender(#state{socket = Socket, link = Link, peer = Peer} = State, Opts) ->
    Number = maps:get(link, megaphone_nif:link_info(Link), 0),
    SendTimeout = send_timeout(Socket, Opts),
    ok = megaphone_links:add(#{
        link => Link,
        number => Number,
        peer => Peer,
        receiver => self(),
        listener => proplists:get_value(megaphone_listener, Opts),
        send_timeout => SendTimeout
    }),
    SocketOpts = [
        binary,
        {packet, raw},
        {buffer, ?READ_BUFFER},
        {send_timeout, SendTimeout},
        {send_timeout_close, true}
    ],
    case inet:setopts(Socket, SocketOpts) of
        ok ->
            {ok, Sender} = megaphone_sender:start_link(Link, Socket),
            ?LOG_INFO("megaphone: link ~b from ~ts opened", [Number, Peer]),
            _ = erlang:send_after(ping_after(), self(), listen),
            read_on(State#state{phase = open, number = Number, sender = Sender});
        {error, Reason} ->
            finish({socket, Reason}, State#state{number = Number})
    end.

%% Newer ejabberd puts the option on the socket instead of into the options.
-spec send_timeout(inet:socket(), [{atom(), term()}]) -> timeout().
send_timeout(Socket, Opts) ->
    case {proplists:get_value(send_timeout, Opts), inet:getopts(Socket, [send_timeout])} of
        {undefined, {ok, [{send_timeout, Time}]}} when is_integer(Time) -> Time;
        {undefined, _} -> megaphone_links:default_send_timeout();
        {Time, _} -> Time
    end.

-spec peer_name(inet:socket(), [{atom(), term()}]) -> binary().
peer_name(Socket, Opts) ->
    %% Set by the listener option use_proxy_protocol: {Local, Peer}.
    case proplists:get_value(sock_peer_name, Opts) of
        {_Local, Peer} -> format_address({ok, Peer});
        _ -> format_address(inet:peername(Socket))
    end.

-spec format_address({ok, term()} | {error, term()}) -> binary().
format_address({ok, {Ip, Port}}) when is_tuple(Ip), tuple_size(Ip) =:= 8, is_integer(Port) ->
    iolist_to_binary(["[", inet:ntoa(Ip), "]:", integer_to_list(Port)]);
format_address({ok, {Ip, Port}}) when is_tuple(Ip), is_integer(Port) ->
    iolist_to_binary([inet:ntoa(Ip), ":", integer_to_list(Port)]);
format_address({ok, {local, _Path}}) ->
    <<"a unix socket">>;
format_address(_) ->
    <<"unknown">>.

%% ---- reading -------------------------------------------------------------------------------------------------

-spec read_on(#state{}) -> step().
read_on(#state{socket = Socket} = State) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok -> {noreply, State};
        {error, _} -> finish(peer_closed, State)
    end.

-spec input(binary(), #state{}) -> step().
input(Chunk, #state{link = Link} = State) ->
    try megaphone_nif:link_input(Link, Chunk) of
        {ok, Actions} ->
            read_on(perform(Actions, State));
        {more, Actions} ->
            {noreply, perform(Actions, State), {continue, input}};
        {stop, Reason, Actions} ->
            flush({protocol, Reason}, perform(Actions, State));
        {error, closed} ->
            finish(shutdown, State)
    catch
        %% Without the stack trace: its arguments are what users wrote.
        error:Reason -> finish({internal, Reason}, State)
    end.

-spec perform([megaphone_nif:action()], #state{}) -> #state{}.
perform([], State) ->
    State;
perform(Actions, #state{service = Service} = State) ->
    Renewed = megaphone_http:renewed(Service),
    Start = fun({start, Handle}, Before) -> started(megaphone_http:start_consumer(Handle, Renewed), Before) end,
    lists:foldl(Start, State#state{service = Renewed}, Actions).

-spec started(ok | {error, megaphone_http:error()}, #state{}) -> #state{}.
started(ok, State) ->
    State;
started({error, _Reason}, #state{complained = true} = State) ->
    State;
started({error, Reason}, State) ->
    ?LOG_ERROR(
        "megaphone: requests of link ~b from ~ts cannot be served, their connections are closed: ~p",
        [State#state.number, State#state.peer, Reason]
    ),
    State#state{complained = true}.

%% A peer whose machine or network went away sends neither data nor an end. One that says nothing is asked, and after
%% some questions given up.
-spec silence(#state{}) -> step().
silence(#state{silence = Looks, link = Link} = State) ->
    #{link_ping := Ping, link_silence := Silence} = megaphone_nif:limits(),
    case Looks * Ping >= Silence of
        true ->
            finish(silent, State);
        false ->
            ok = ask(Looks, Link),
            _ = erlang:send_after(ping_after(), self(), listen),
            {noreply, State#state{silence = Looks + 1}}
    end.

-spec ask(non_neg_integer(), megaphone_nif:link()) -> ok.
ask(0, _Link) -> ok;
ask(_Looks, Link) -> megaphone_nif:link_ping(Link).

%% Milliseconds between two looks. The application's setting is for tests.
-spec ping_after() -> pos_integer().
ping_after() ->
    application:get_env(megaphone, link_ping, maps:get(link_ping, megaphone_nif:limits())).

%% ---- ending --------------------------------------------------------------------------------------------------

%% Lets the sender write what is queued: the error frame, or the last answers.
-spec flush(stop_reason(), #state{}) -> step().
flush(Reason, #state{sender = Sender} = State) when is_pid(Sender) ->
    _ = erlang:send_after(?CLOSING_TIMEOUT, self(), closing_timeout),
    ok = megaphone_sender:finish(Sender),
    read_on(State#state{phase = flushing, reason = Reason});
flush(Reason, State) ->
    finish(Reason, State).

-spec sender_ended(term(), #state{}) -> step().
sender_ended({shutdown, finished}, #state{socket = Socket, phase = flushing} = State) ->
    case gen_tcp:shutdown(Socket, write) of
        ok -> {noreply, State#state{phase = lingering}};
        {error, _} -> finish(peer_closed, State)
    end;
sender_ended({shutdown, {send, _} = Reason}, State) ->
    finish(Reason, State);
sender_ended({shutdown, _}, State) ->
    finish(shutdown, State);
sender_ended(Reason, State) ->
    finish({internal, {sender, Reason}}, State).

%% The first reason is the one that counts: a peer that closes after our error frame did not close of itself.
-spec finish(stop_reason(), #state{}) -> step().
finish(Reason, #state{reason = undefined} = State) ->
    {stop, {shutdown, Reason}, State#state{reason = Reason}};
finish(_Reason, #state{reason = First} = State) ->
    {stop, {shutdown, First}, State}.

-spec log_end(term(), #state{}) -> ok.
log_end({shutdown, Reason}, #state{number = Number, peer = Peer}) when
    Reason =:= peer_closed; Reason =:= shutdown; Reason =:= ejabberd_stopped
->
    ?LOG_INFO("megaphone: link ~b from ~ts closed: ~ts", [Number, Peer, describe(Reason)]);
log_end({shutdown, Reason}, #state{number = Number, peer = Peer}) ->
    ?LOG_WARNING("megaphone: link ~b from ~ts closed: ~ts", [Number, Peer, describe(Reason)]);
log_end(_Reason, #state{number = Number, peer = Peer}) ->
    ?LOG_INFO("megaphone: link ~b from ~ts closed: ~ts", [Number, Peer, describe(shutdown)]).

-spec describe(stop_reason()) -> iodata().
describe(peer_closed) -> "the peer closed it";
describe(shutdown) -> "shut down";
describe(ejabberd_stopped) -> "ejabberd stopped";
describe(not_accepted) -> "the listener never handed its socket over";
describe({refused, links}) -> "refused, there are as many links as the limit `links' allows";
describe({protocol, Text}) -> ["protocol error: ", Text];
describe({socket, Reason}) -> ["socket error: ", inet:format_error(Reason)];
describe(silent) -> "the peer has said nothing for too long, and has answered no ping";
describe({send, timeout}) -> "the peer took no data for the time of the option send_timeout";
describe({send, Reason}) -> ["writing failed: ", inet:format_error(Reason)];
describe({internal, Reason}) -> io_lib:format("internal error: ~0p", [Reason]).
