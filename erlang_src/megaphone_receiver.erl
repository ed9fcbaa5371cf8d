%% @private
%% @doc Reads a link: one process per connection from an ECM, and the owner of its socket.
%%
%% It never blocks. Bytes come by `{active, N}', at most a buffer at a time, go to the native table in slices, and
%% whatever the table wants done (start a process for a request) is done here. Writing is the sender's work.
%%
%% ```
%%   handover ──accept──▶ opening ──hello, secret──▶ open ──stop/protocol error──▶ flushing ──sender done──▶ lingering ──▶ end
%%      │                  │  └── wrong secret ──▶ refusing ──after a while────────▲ └── socket closed, sender failed ──────▲
%%      └──────────────────┴── not accepted, not open in time ────────────────────────────────────────────────────────────┘
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
%% How long the writing process may take to say that a send has timed out, when the socket is closed.
-define(SENDER_SAYS, 50).
%% The most bytes that one message brings.
-define(READ_BUFFER, 65536).
%% So many of them may come, and the socket is asked for more when half of them have: to ask takes longer than to handle a stanza,
%% and while it never has to stop schedulers wait for it themselves, without a thread that wakes them. Before a link is open, and
%% when it ends, each message is asked for.
-define(READS, 32).

-type phase() :: handover | opening | refusing | open | flushing | lingering.
-type stop_reason() ::
    peer_closed
    | not_accepted
    | shutdown
    | ejabberd_stopped
    | {refused, links | late | megaphone_gate:refusal() | {secret, binary()}}
    | {tls, term()}
    | {protocol, binary()}
    | {socket, atom()}
    | {send, atom()}
    | silent
    | {internal, atom() | {sender, atom()}}.

-record(state, {
    socket :: inet:socket(),
    %% The same socket, plain or with TLS.
    transport :: megaphone_transport:transport(),
    opts :: [{atom(), term()}],
    %% Undefined before the link is open.
    service :: megaphone_http:service() | undefined,
    phase = handover :: phase(),
    link :: megaphone_nif:link() | undefined,
    number = 0 :: megaphone_nif:link_number(),
    peer = <<"unknown">> :: binary(),
    from = local :: megaphone_gate:peer(),
    sender :: pid() | undefined,
    reason :: stop_reason() | undefined,
    complained = false :: boolean(),
    %% Messages that may still come of an open link.
    reads = 0 :: non_neg_integer(),
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
    {ok, #state{socket = Socket, transport = megaphone_transport:plain(Socket), opts = Opts}, ?HANDOVER_TIMEOUT}.

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
handle_cast({stop, Reason}, #state{phase = Phase} = State) when Phase =:= opening; Phase =:= open ->
    flush(Reason, State);
handle_cast({stop, Reason}, #state{phase = Phase} = State) when Phase =:= handover; Phase =:= refusing ->
    finish(Reason, State);
handle_cast({new_options, Opts}, #state{phase = Phase} = State) when Phase =:= opening; Phase =:= open ->
    ok = megaphone_links:set_idle(State#state.number, megaphone_sweeper:idle(Opts)),
    {noreply, State#state{service = megaphone_http:service(Opts)}};
handle_cast({consume, Handle, any}, #state{phase = open, service = Service} = State) ->
    {noreply, started(megaphone_http:start_consumer(Handle, Service), State)};
handle_cast({consume, Handle, stepwise}, #state{phase = open, service = Service} = State) ->
    {noreply, started(megaphone_http:start_stepwise(Handle, Service), State)};
handle_cast(_Other, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> step().
handle_info(listen, #state{phase = open} = State) ->
    silence(State);
handle_info({'EXIT', Sender, Reason}, #state{sender = Sender} = State) ->
    sender_ended(Reason, State#state{sender = undefined});
handle_info(closing_timeout, State) ->
    finish(shutdown, State);
handle_info(not_open, #state{phase = opening} = State) ->
    told({refused, late}, <<"nothing that opens the link came in time">>, State);
handle_info({tell, Reason, Text}, #state{phase = refusing} = State) ->
    told(Reason, Text, State);
handle_info(timeout, #state{phase = handover} = State) ->
    finish(not_accepted, State);
handle_info(Message, #state{transport = Transport} = State) ->
    socket_says(megaphone_transport:received(Transport, Message), State).

-spec socket_says({data, binary()} | passive | closed | {error, term()} | no, #state{}) -> step().
socket_says({data, Data}, #state{phase = open, reads = Reads} = State) ->
    input(Data, State#state{silence = 0, reads = Reads - 1});
socket_says({data, Data}, #state{phase = opening} = State) ->
    input(Data, State);
socket_says({data, _Data}, State) ->
    read_on(State);
socket_says(passive, State) ->
    %% If it was asked for more since, there is nothing to do.
    read_on(State);
socket_says(closed, State) ->
    finish(why_closed(State), State);
socket_says({error, Reason}, State) ->
    finish({socket, megaphone_transport:error_name(Reason)}, State);
socket_says(no, State) ->
    {noreply, State}.

%% A send that times out closes the socket, and this process may hear of that (from OTP 29 on it does) before it hears why.
-spec why_closed(#state{}) -> stop_reason().
why_closed(#state{sender = undefined}) ->
    peer_closed;
why_closed(#state{sender = Sender}) ->
    receive
        {'EXIT', Sender, {shutdown, {send, timeout} = Reason}} -> Reason
    after ?SENDER_SAYS -> peer_closed
    end.

-spec handle_continue(input, #state{}) -> step().
handle_continue(input, State) ->
    input(<<>>, State).

-spec terminate(term(), #state{}) -> ok.
terminate(Reason, #state{transport = Transport, link = Link} = State) ->
    log_end(Reason, State),
    _ = [megaphone_nif:link_down(Link) || Link =/= undefined],
    megaphone_transport:close(Transport).

%% The socket's last bytes may sit in the last message, and in the state of nothing else.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (message, {Tag, Socket, Data}) when is_binary(Data) -> {Tag, Socket, {bytes, byte_size(Data)}};
            (log, _Events) -> [];
            (_Key, Value) -> Value
        end,
        Status
    ).

%% ---- opening -------------------------------------------------------------------------------------------------

-spec open(#state{}) -> step().
open(#state{socket = Socket, opts = Opts} = State0) ->
    State = State0#state{peer = peer_name(Socket, Opts), from = megaphone_gate:peer(Socket)},
    case megaphone_gate:admit(Socket, Opts) of
        ok -> enter(megaphone_gate:enter(self(), State#state.from), State);
        {error, Reason} -> refuse({refused, Reason}, State)
    end.

-spec enter(ok | {error, pending}, #state{}) -> step().
enter(ok, #state{socket = Socket, opts = Opts} = State) ->
    _ = erlang:send_after(millis(auth_timeout), self(), not_open),
    case proplists:get_bool(tls, Opts) of
        false -> start_link(State);
        true -> encrypted(megaphone_transport:tls(Socket, Opts, millis(auth_timeout)), State)
    end;
enter({error, pending}, State) ->
    refuse({refused, pending}, State).

-spec encrypted({ok, megaphone_transport:transport()} | {error, term()}, #state{}) -> step().
encrypted({ok, Transport}, State) -> start_link(State#state{transport = Transport});
encrypted({error, Reason}, State) -> finish({tls, Reason}, State).

-spec start_link(#state{}) -> step().
start_link(#state{peer = Peer, opts = Opts} = State) ->
    case megaphone_nif:link_open(Peer, megaphone_gate:auth(Opts), megaphone_http:served(Opts)) of
        {ok, Link} -> start_sender(State#state{link = Link, service = megaphone_http:service(Opts)});
        {error, {limit, links}} -> refuse({refused, links}, State)
    end.

%% Says why, and lets the peer read it: a socket that is closed with unread input takes back what was written. A peer
%% that expects TLS cannot read it; its own log says that it got something else.
-spec refuse(stop_reason(), #state{}) -> step().
refuse({refused, Why} = Reason, #state{transport = Transport} = State) ->
    _ = erlang:send_after(?CLOSING_TIMEOUT, self(), closing_timeout),
    Frames = megaphone_nif:link_refusal(refusal(Why)),
    case megaphone_transport:send(Transport, Frames) =:= ok andalso megaphone_transport:shutdown(Transport) of
        ok -> read_on(State#state{phase = lingering, reason = Reason});
        _ -> finish(Reason, State)
    end.

-spec refusal(links | megaphone_gate:refusal()) -> links | binary().
refusal(links) -> links;
refusal(Why) -> megaphone_gate:text(Why).

-spec start_sender(#state{}) -> step().
start_sender(#state{socket = Socket, transport = Transport, link = Link, peer = Peer, opts = Opts} = State) ->
    Number = maps:get(link, megaphone_nif:link_info(Link), 0),
    SendTimeout = send_timeout(Socket, Opts),
    ok = megaphone_links:add(#{
        link => Link,
        number => Number,
        peer => Peer,
        receiver => self(),
        listener => proplists:get_value(megaphone_listener, Opts),
        send_timeout => SendTimeout,
        idle => megaphone_sweeper:idle(Opts)
    }),
    SocketOpts = [{buffer, ?READ_BUFFER}, {send_timeout, SendTimeout}, {send_timeout_close, true}],
    %% The first options are of the connection below TLS, too.
    Set = inet:setopts(Socket, SocketOpts) =:= ok andalso megaphone_transport:setopts(Transport, [binary, {packet, raw}]),
    case Set of
        ok ->
            {ok, Sender} = megaphone_sender:start_link(Link, Transport),
            read_on(State#state{phase = opening, number = Number, sender = Sender});
        _ ->
            finish(peer_closed, State#state{number = Number})
    end.

%% The other end has said hello, and knows the secret if there is one.
-spec opened(#state{}) -> #state{}.
opened(#state{number = Number, peer = Peer} = State) ->
    ok = megaphone_gate:passed(self()),
    ?LOG_INFO("megaphone: link ~b from ~ts opened", [Number, Peer]),
    _ = erlang:send_after(millis(link_ping), self(), listen),
    State#state{phase = open}.

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
format_address({ok, {Ip, Port} = Address}) when is_tuple(Ip), is_integer(Port) ->
    megaphone_report:address(Address);
format_address({ok, {local, _Path}}) ->
    <<"a unix socket">>;
format_address(_) ->
    <<"unknown">>.

%% ---- reading -------------------------------------------------------------------------------------------------

-spec read_on(#state{}) -> step().
read_on(#state{phase = open, reads = Reads} = State) when Reads > ?READS div 2 ->
    {noreply, State};
read_on(#state{phase = open, reads = Reads} = State) ->
    activate(?READS - Reads, State#state{reads = ?READS});
read_on(State) ->
    activate(once, State).

-spec activate(once | pos_integer(), #state{}) -> step().
activate(Mode, #state{transport = Transport} = State) ->
    case megaphone_transport:setopts(Transport, [{active, Mode}]) of
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
        {refused, Reason, Actions} ->
            %% Nothing is read meanwhile: who guesses waits.
            _ = erlang:send_after(maps:get(auth_delay, megaphone_nif:limits()), self(), {tell, {refused, {secret, Reason}}, Reason}),
            {noreply, (perform(Actions, State))#state{phase = refusing}};
        {error, closed} ->
            finish(shutdown, State)
    catch
        error:Reason -> finish({internal, megaphone_failure:kind(Reason)}, State)
    end.

-spec perform([megaphone_nif:action()], #state{}) -> #state{}.
perform([], State) ->
    State;
perform(Actions, #state{service = Service} = State) ->
    Renewed = megaphone_http:renewed(Service),
    Perform = fun
        ({start, Handle}, Before) -> started(megaphone_http:start_consumer(Handle, Renewed), Before);
        ({attach, Handle}, Before) -> started(megaphone_http:start_session(Handle, Renewed), Before);
        ({large, Handle}, Before) -> large(Handle, Before);
        (open, Before) -> opened(Before)
    end,
    lists:foldl(Perform, State#state{service = Renewed}, Actions).

%% To take it apart takes longer than this process has.
-spec large(megaphone_nif:handle(), #state{}) -> #state{}.
large(Handle, State) ->
    _ = spawn(fun() -> megaphone_nif:deliver_large(Handle) end),
    State.

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
            _ = erlang:send_after(millis(link_ping), self(), listen),
            {noreply, State#state{silence = Looks + 1}}
    end.

-spec ask(non_neg_integer(), megaphone_nif:link()) -> ok.
ask(0, _Link) -> ok;
ask(_Looks, Link) -> megaphone_nif:link_ping(Link).

%% Milliseconds, for the limit of that name. The application's setting is for tests.
-spec millis(link_ping | auth_timeout) -> pos_integer().
millis(Limit) ->
    application:get_env(megaphone, Limit, maps:get(Limit, megaphone_nif:limits())).

%% ---- ending --------------------------------------------------------------------------------------------------

%% Lets the sender write what is queued: the error frame, or the last answers.
-spec flush(stop_reason(), #state{}) -> step().
flush(Reason, #state{sender = Sender} = State) when is_pid(Sender) ->
    _ = erlang:send_after(?CLOSING_TIMEOUT, self(), closing_timeout),
    ok = megaphone_sender:finish(Sender),
    read_on(State#state{phase = flushing, reason = Reason});
flush(Reason, State) ->
    finish(Reason, State).

%% Ends a link that is not open yet, with an error frame.
-spec told(stop_reason(), binary(), #state{}) -> step().
told(Reason, Text, #state{link = Link} = State) ->
    ok = megaphone_nif:link_refuse(Link, Text),
    flush(Reason, State).

-spec sender_ended(term(), #state{}) -> step().
sender_ended({shutdown, finished}, #state{transport = Transport, phase = flushing} = State) ->
    case megaphone_transport:shutdown(Transport) of
        ok -> {noreply, State#state{phase = lingering}};
        {error, _} -> finish(peer_closed, State)
    end;
sender_ended({shutdown, {send, _} = Reason}, State) ->
    finish(Reason, State);
sender_ended({shutdown, _}, State) ->
    finish(shutdown, State);
sender_ended(Reason, State) ->
    finish({internal, {sender, megaphone_failure:kind(Reason)}}, State).

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
log_end({shutdown, {Kind, _} = Reason}, #state{from = From, peer = Peer}) when Kind =:= refused; Kind =:= tls ->
    refused(From, Peer, Reason);
log_end({shutdown, Reason}, #state{number = Number, peer = Peer}) ->
    ?LOG_WARNING("megaphone: link ~b from ~ts closed: ~ts", [Number, Peer, describe(Reason)]);
log_end(_Reason, #state{number = Number, peer = Peer}) ->
    ?LOG_INFO("megaphone: link ~b from ~ts closed: ~ts", [Number, Peer, describe(shutdown)]).

%% Who tries again and again cannot fill the log.
-spec refused(megaphone_gate:peer(), binary(), stop_reason()) -> ok.
refused(From, Peer, Reason) ->
    case megaphone_gate:may_complain(From) of
        true -> ?LOG_WARNING("megaphone: link from ~ts refused: ~ts", [Peer, describe(Reason)]);
        false -> ?LOG_DEBUG("megaphone: link from ~ts refused: ~ts", [Peer, describe(Reason)])
    end.

-spec describe(stop_reason()) -> iodata().
describe(peer_closed) -> "the peer closed it";
describe(shutdown) -> "shut down";
describe(ejabberd_stopped) -> "ejabberd stopped";
describe(not_accepted) -> "the listener never handed its socket over";
describe({refused, links}) -> "there are as many links as the limit `links' allows";
describe({refused, late}) -> "it did not say hello, or did not authenticate, in time";
describe({refused, {secret, Text}}) -> Text;
describe({refused, Why}) -> megaphone_gate:text(Why);
describe({tls, Reason}) -> megaphone_transport:format_error(Reason);
describe({protocol, Text}) -> ["protocol error: ", Text];
describe({socket, Reason}) -> ["socket error: ", inet:format_error(Reason)];
describe(silent) -> "the peer has said nothing for too long, and has answered no ping";
describe({send, timeout}) -> "the peer took no data for the time of the option send_timeout";
describe({send, Reason}) -> ["writing failed: ", inet:format_error(Reason)];
describe({internal, Reason}) -> io_lib:format("internal error: ~0p", [Reason]).
