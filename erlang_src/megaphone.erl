%% @doc Virtual connections for ejabberd: the public interface.
%%
%% <b>As an ejabberd listener</b>, `module: megaphone' accepts links from ECMs (`megaphone-ecm'), each of which carries
%% many clients. See {@link listen_options/0} for its options.
%%
%% <b>From Erlang</b>, {@link open/1} makes a virtual connection without a link. What a peer would send goes in by
%% {@link put_data/2}, and what is sent to it comes out by {@link output/1}. The other side reads by {@link recv/1} or
%% {@link get_data/1} and writes by {@link send/2}; or it takes {@link socket/1} and uses `gen_tcp' and `inet'.
%%
%% <b>By messages</b> to the registered process `megaphone', as the original did:
%% <ul>
%% <li>`{put_data, Handle, Data}': {@link put_data/2}. Data that is refused cannot be answered here, and a hole in the
%%     data could not be noticed; so the connection is closed and the loss logged.</li>
%% <li>`{get_data, From, Handle}': {@link get_data/2}. `From' is sent `{ok, Result}', `{error, Reason}' or
%%     `{shutdown}'.</li>
%% <li>`{send_data, Handle, Data}': {@link send/2}, without an answer and without blocking anybody. What finds no room
%%     waits here, up to 256 kB a connection and 16 MB in all; beyond that the connection is closed and the loss
%%     logged.</li>
%% </ul>
%% The functions are faster: they go to the table directly, this process holds no data and is on no hot path.
%%
%% A handle is the original's ConnectionID. It is opaque, and never used again while the node lives.
-module(megaphone).
-behaviour(gen_server).
%% It also is an ejabberd_listener. That is not declared, because the compiler would have to find ejabberd.

-include_lib("kernel/include/logger.hrl").

%% Connections.
-export([
    open/0, open/1,
    put_data/2, receive_packet/2,
    get_data/1, get_data/2,
    recv/1, recv/2,
    recv_packet/2,
    send/2, send/3,
    output/1,
    peername/1, sockname/1,
    close/1,
    socket/1,
    parse_packet/1
]).
%% What is going on.
-export([info/0, info/1, links/0]).
%% Listener of ejabberd.
-export([start/3, start_link/3, accept/1, listen_options/0, listen_opt_type/1, tcp_init/2]).
%% Process.
-export([start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).
-export_type([handle/0, open_options/0, recv_error/0, send_error/0, put_error/0]).

-type handle() :: megaphone_nif:handle().
-type open_options() :: #{peer => megaphone_nif:address(), packet => megaphone_nif:packet()}.
-type open_error() :: {limit, connections} | {bad_option, term()}.
-type put_error() :: closed | {limit, queue_bytes}.
-type recv_error() :: closed | timeout | einval | {limit, waiters}.
-type send_error() :: closed | timeout | einval | {limit, waiters}.

%% ---- connections ---------------------------------------------------------------------------------------------

%% @equiv open(#{})
-spec open() -> {ok, handle()} | {error, open_error()}.
open() ->
    open(#{}).

%% @doc Opens a virtual connection without a link. The caller owns it: it closes when the caller dies.
%%
%% Options: `peer', the address that {@link peername/1} answers (default `{{127,0,0,1}, 0}'); `packet', the form in
%% which input is read (default `http_bin': the results of `erlang:decode_packet/3', as the original gave them; `raw'
%% gives bytes). An address alone is taken for `peer'.
%%
%% Errors: `{limit, connections}' when the table is full; `{bad_option, Name}'.
-spec open(open_options() | megaphone_nif:address()) -> {ok, handle()} | {error, open_error()}.
open({_Ip, _Port} = Peer) ->
    open(#{peer => Peer});
open(Options) when is_map(Options) ->
    Peer = maps:get(peer, Options, {{127, 0, 0, 1}, 0}),
    Packet = maps:get(packet, Options, http_bin),
    case {maps:keys(maps:without([peer, packet], Options)), is_address(Peer), is_packet(Packet)} of
        {[], true, true} -> megaphone_nif:open(Peer, Packet);
        {[], false, _} -> {error, {bad_option, peer}};
        {[], true, false} -> {error, {bad_option, packet}};
        {[Unknown | _], _, _} -> {error, {bad_option, Unknown}}
    end.

-spec is_address(term()) -> boolean().
is_address({Ip, Port}) ->
    inet:is_ip_address(Ip) andalso is_integer(Port) andalso Port >= 0 andalso Port =< 65535;
is_address(_) ->
    false.

-spec is_packet(term()) -> boolean().
is_packet(Packet) ->
    lists:member(Packet, [raw, http, http_bin, httph, httph_bin]).

%% @doc Puts input into a connection, as if its peer had sent it. A waiting reader is served at once.
%%
%% All or nothing. Errors: `closed'; `{limit, queue_bytes}' when the data does not fit into the connection's queue:
%% nothing was queued then, try again when some was read. Cost: one native call, a copy of the data.
-spec put_data(handle(), binary()) -> ok | {error, put_error()}.
put_data(Handle, Data) when is_binary(Data) ->
    megaphone_nif:put_data(Handle, Data).

%% @doc The original's name for {@link put_data/2}.
-spec receive_packet(handle(), binary()) -> ok | {error, put_error()}.
receive_packet(Handle, Data) ->
    put_data(Handle, Data).

%% @equiv get_data(Handle, self())
-spec get_data(handle()) -> ok.
get_data(Handle) ->
    get_data(Handle, self()).

%% @doc Asks for input without waiting: `From' gets exactly one message, `{ok, Result}', `{error, Reason}' (`closed'
%% for a connection that has ended or never was) or `{shutdown}'. Any number of readers may ask; they are served first
%% come, first served, and one that dies takes no data along.
-spec get_data(handle(), pid()) -> ok.
get_data(Handle, From) when is_pid(From) ->
    megaphone_nif:get_data(Handle, From).

%% @equiv recv(Handle, infinity)
-spec recv(handle()) -> {ok, megaphone_nif:result()} | {error, recv_error()}.
recv(Handle) ->
    recv(Handle, infinity).

%% @doc Waits for input. What was queued before a close is still read. Errors: `closed', `timeout', `einval' (the
%% connection is in active mode).
-spec recv(handle(), timeout()) -> {ok, megaphone_nif:result()} | {error, recv_error()}.
recv(Handle, Timeout) ->
    megaphone_socket:recv(socket(Handle), 0, Timeout).

%% @doc Waits for a whole packet of a connection in packet mode `http_bin' (the default of {@link open/1}) and takes all
%% of it: the results that as many calls of {@link recv/2} would give, up to `http_eoh' or the body. A packet that is
%% there costs one native call, which is several times faster. A line that is none is the last result, as `http_error'.
%%
%% `{incomplete, Reason, Results}': the connection was closed, or `Timeout' is over, in the middle of a packet; what was
%% read of it is in `Results'. Other errors are those of {@link recv/2}. One process should read at a time.
-spec recv_packet(handle(), timeout()) ->
    {ok, [megaphone_nif:result(), ...]}
    | {error, recv_error() | {incomplete, recv_error(), [megaphone_nif:result(), ...]}}.
recv_packet(Handle, Timeout) ->
    megaphone_packet:recv(Handle, Timeout).

%% @doc Sends to the peer. Waits while there is no room, see {@link megaphone_socket:send/2}.
-spec send(handle(), iodata()) -> ok | {error, send_error()}.
send(Handle, Data) ->
    megaphone_socket:send(socket(Handle), Data).

%% @doc As {@link send/2}, waiting for no longer than `Timeout'. A send that times out closes the connection.
-spec send(handle(), iodata(), timeout()) -> ok | {error, send_error()}.
send(Handle, Data, Timeout) ->
    megaphone_socket:send(socket(Handle), Data, Timeout).

%% @doc Takes what was sent on a connection made by {@link open/1}. Its opener gets the message
%% `{megaphone_output, Handle}' when there is something: once at first, and once after each `empty'.
-spec output(handle()) -> {ok, binary()} | empty | {error, closed}.
output(Handle) ->
    megaphone_nif:output(Handle).

%% @doc The address of the client.
-spec peername(handle()) -> {ok, megaphone_nif:address()} | {error, closed}.
peername(Handle) ->
    megaphone_nif:peername(Handle).

%% @doc The address at which the client was accepted.
-spec sockname(handle()) -> {ok, megaphone_nif:address()} | {error, closed}.
sockname(Handle) ->
    megaphone_nif:sockname(Handle).

%% @doc Closes a connection. Waiting readers are woken; what was queued before can still be read, what was sent
%% before still goes out.
-spec close(handle()) -> ok.
close(Handle) ->
    megaphone_nif:close(Handle).

%% @doc The connection as a socket for `gen_tcp' and `inet', see {@link megaphone_socket}.
-spec socket(handle()) -> megaphone_socket:socket().
socket(Handle) ->
    {'$inet', megaphone_socket, Handle}.

%% @doc Takes complete HTTP packets apart: request line, each header, `http_eoh' and the body (left out when empty),
%% in the form of `erlang:decode_packet/3'.
%%
%% Errors: `incomplete', `bad_request', `bad_header', `bad_content_length', `{unsupported, transfer_encoding}'.
%% Linear in the size of the packet.
-spec parse_packet(binary()) -> {ok, [megaphone_packet:result()]} | {error, megaphone_packet:error()}.
parse_packet(Packet) ->
    megaphone_packet:parse(Packet).

%% ---- what is going on ----------------------------------------------------------------------------------------

%% @doc What lives in the table (`stats'), its limits, and the number of links. It visits every connection, on a dirty
%% scheduler: some 50 ms for a million. For operators and tests.
%%
%% `memory' in `stats' is what the table takes, in bytes, queued data included. The VM counts it, too: in
%% `erlang:memory(system)', queued input of at least 64 bytes in `erlang:memory(binary)'.
%%
%% `counters': what was counted since the start of the node; `abandoned' are polls whose clients went before the answer.
-spec info() -> #{stats := map(), counters := map(), limits := map(), links := non_neg_integer()}.
info() ->
    #{
        stats => megaphone_nif:stats(),
        counters => megaphone_nif:counters(),
        limits => megaphone_nif:limits(),
        links => megaphone_links:count()
    }.

%% @doc What is known about a connection. It holds nothing of what users wrote.
-spec info(handle()) -> {ok, #{atom() => term()}} | {error, closed}.
info(Handle) ->
    megaphone_nif:info(Handle).

%% @doc The live links: number (`link'), `peer', `receiver', `age' in seconds and what the table counts for each.
-spec links() -> [#{atom() => term()}].
links() ->
    megaphone_links:list().

%% ---- listener of ejabberd ------------------------------------------------------------------------------------

%% @private
%% @doc Called with `supervisor: false', the default: the link belongs to Megaphone's supervisor.
-spec start(module(), inet:socket(), [{atom(), term()}]) -> {ok, pid()} | {error, term()}.
start(gen_tcp, Socket, Opts) ->
    megaphone_link_sup:start_child(Socket, Opts).

%% @private
%% @doc Called with `supervisor: true': the link belongs to ejabberd's supervisor of this listener.
-spec start_link(module(), inet:socket(), [{atom(), term()}]) -> gen_server:start_ret().
start_link(gen_tcp, Socket, Opts) ->
    megaphone_receiver:start_link(Socket, Opts).

%% @private
-spec accept(pid()) -> ok.
accept(Receiver) ->
    megaphone_receiver:accept(Receiver).

%% @doc The options of the listener, with their defaults.
%% <ul>
%% <li>`request_handlers' and `custom_headers': as of ejabberd_http. They hold for all clients of the links. A change
%%     (`reload_config') reaches live links as well: it holds for requests that come then.</li>
%% <li>`tag': as of ejabberd_http.</li>
%% <li>`idle_memory': what is done with the memory of users who are idle, by `megaphone_sweeper': `keep' (nothing), `collect'
%%     (the default), `hibernate_bosh' (BOSH sessions are put to sleep, client sessions collected) or `hibernate' (both are
%%     put to sleep).</li>
%% <li>`idle_after': after how long, in milliseconds or with a unit. Default 1 s.</li>
%% <li>`sweep': `megaphone' (the default) or `all': users who are connected without Megaphone are served as well.</li>
%% <li>`websocket': `native' (the default): WebSockets of XMPP clients (RFC 7395) end in the connection manager, and a client is
%%     one process here. `ejabberd_http_ws': they are carried through to ejabberd's own handler, if `request_handlers'
%%     names it. A change holds for links that open then.</li>
%% <li>`bosh': `native' (the default): BOSH sessions at the paths that `request_handlers' gives to mod_bosh are kept by Megaphone,
%%     and a user is one process. `mod_bosh': by that module. A change holds for requests that come then; sessions that are
%%     there end.</li>
%% <li>`max_inactivity' (30 s), `max_pause' (120 s), `max_concat' (`unlimited'): as of mod_bosh, for native sessions. `prebind' can
%%     only be false there.</li>
%% <li>`allow_unencrypted_sasl2': true to offer SASL2 to native WebSocket clients, as with ejabberd's own WebSocket: ejabberd
%%     does not see their TLS. For versions that have it.</li>
%% <li>`ip': 127.0.0.1. On any other address links need a `secret', and those from other machines `tls', too.</li>
%% <li>`secret': what a connection manager has to know (its option `link_secret'), 16 to 1024 bytes.</li>
%% <li>`tls': true for links with TLS, with the certificate and key of `certfile' or the one that ejabberd has.</li>
%% <li>`allow_plain_link': true to take links from other machines without TLS: who can read the network between reads
%%     and changes all that users write, passwords included.</li>
%% <li>`supervisor': false. Either value works, a listener has only a few links.</li>
%% <li>`send_timeout' (ejabberd's own, 15 s): how long a link, or a process that writes to one client, may wait for
%%     the other end before it is closed.</li>
%% </ul>
-spec listen_options() -> [{atom(), term()}].
listen_options() ->
    [
        {ip, {127, 0, 0, 1}},
        {supervisor, false},
        {request_handlers, []},
        {custom_headers, []},
        {tag, <<>>},
        {idle_memory, megaphone_sweeper:default(idle_memory)},
        {idle_after, megaphone_sweeper:default(idle_after)},
        {sweep, megaphone},
        {websocket, native},
        {bosh, native},
        {max_inactivity, timer:seconds(30)},
        {max_pause, timer:seconds(120)},
        {max_concat, unlimited},
        {prebind, false},
        {allow_unencrypted_sasl2, false},
        {secret, undefined},
        {tls, false},
        {certfile, undefined},
        {allow_plain_link, false}
    ].

%% @private
%% @doc Validators of the options. Of an option that is not listed here, ejabberd asks ejabberd_listener.
-spec listen_opt_type(megaphone_http:option()) -> megaphone_http:validator().
listen_opt_type(Option) ->
    megaphone_http:option_type(Option).

%% @private
%% @doc Called once a listener, when ejabberd is up and before the first link is accepted.
-spec tcp_init(inet:socket(), [{atom(), term()}]) -> [{atom(), term()}].
tcp_init(ListenSocket, Opts) ->
    case application:ensure_all_started(megaphone) of
        {ok, _Started} ->
            %% A changed listener is started anew at the same address. Links that it accepted before live on.
            Listener = inet:sockname(ListenSocket),
            ok = megaphone_links:new_options(Listener, Opts),
            ok = megaphone_sweeper:sweep_all(Listener, sweep(Opts)),
            ok = megaphone_c2s:set_limits(),
            ok = ejabberd_hooks:add(config_reloaded, megaphone_c2s, set_limits, 50),
            ok = megaphone_https:hook(),
            %% It must stay a proplist: ejabberd adds to it and searches in it.
            [{megaphone_listener, Listener} | Opts];
        {error, Reason} ->
            ?LOG_CRITICAL("megaphone cannot be started, its listener is closed: ~p", [Reason]),
            %% Not a crash: ejabberd would try ten times in a second and then stop all its listeners.
            exit(normal)
    end.

-spec sweep([{atom(), term()}]) -> megaphone_sweeper:idle().
sweep(Opts) ->
    case proplists:get_value(sweep, Opts, megaphone) of
        all -> megaphone_sweeper:idle(Opts);
        megaphone -> keep
    end.

%% ---- process -------------------------------------------------------------------------------------------------

%% @private
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @private
-spec init([]) -> {ok, megaphone_backlog:backlog()}.
init([]) ->
    {ok, megaphone_backlog:new()}.

%% @private
-spec handle_call(term(), gen_server:from(), Backlog) -> {reply, {error, unknown_call}, Backlog}.
handle_call(_Request, _From, Backlog) ->
    {reply, {error, unknown_call}, Backlog}.

%% @private
-spec handle_cast(term(), Backlog) -> {noreply, Backlog}.
handle_cast(_Message, Backlog) ->
    {noreply, Backlog}.

%% @private
%% @doc A message may hold anything: what is no handle is a connection that does not exist.
-spec handle_info(term(), megaphone_backlog:backlog()) -> {noreply, megaphone_backlog:backlog()}.
handle_info({put_data, Handle, Data}, Backlog) ->
    message_put(Handle, Data),
    {noreply, Backlog};
handle_info({get_data, From, Handle}, Backlog) when is_pid(From) ->
    message_get(From, Handle),
    {noreply, Backlog};
handle_info({send_data, Handle, Data}, Backlog) ->
    {noreply, message_send(Handle, Data, Backlog)};
handle_info({megaphone, Token, Answer}, Backlog) ->
    {noreply, given_up(megaphone_backlog:answer(Token, Answer, Backlog))};
handle_info(_Other, Backlog) ->
    {noreply, Backlog}.

%% @private
%% @doc Keeps what users wrote out of status and crash reports.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (state, Backlog) -> megaphone_backlog:info(Backlog);
            (message, {Tag, Handle, _Data}) when Tag =:= put_data; Tag =:= send_data -> {Tag, Handle, hidden};
            (log, _Events) -> [];
            (_Key, Value) -> Value
        end,
        Status
    ).

-spec message_put(term(), term()) -> ok.
message_put(Handle, Data) ->
    try put_data(Handle, iolist_to_binary(Data)) of
        ok -> ok;
        {error, closed} -> ok;
        {error, {limit, Limit}} -> give_up(Handle, put_data, Limit)
    catch
        error:_ -> malformed(put_data)
    end.

-spec message_get(pid(), term()) -> ok.
message_get(From, Handle) ->
    try
        get_data(Handle, From)
    catch
        error:_ ->
            From ! {error, closed},
            ok
    end.

-spec message_send(term(), term(), megaphone_backlog:backlog()) -> megaphone_backlog:backlog().
message_send(Handle, Data, Backlog) ->
    try
        given_up(megaphone_backlog:send(Handle, iolist_to_binary(Data), Backlog))
    catch
        error:badarg ->
            malformed(send_data),
            Backlog
    end.

-spec given_up({ok | {limit, handle(), atom()}, megaphone_backlog:backlog()}) -> megaphone_backlog:backlog().
given_up({ok, Backlog}) ->
    Backlog;
given_up({{limit, Handle, Limit}, Backlog}) ->
    give_up(Handle, send_data, Limit),
    Backlog.

-spec give_up(handle(), put_data | send_data, atom()) -> ok.
give_up(Handle, What, Limit) ->
    ?LOG_WARNING(
        "megaphone: ~s over the limit `~s', connection ~ts closed",
        [What, Limit, megaphone_socket:socket_to_list(socket(Handle))]
    ),
    close(Handle).

-spec malformed(put_data | send_data) -> ok.
malformed(What) ->
    ?LOG_WARNING("megaphone: a ~s message with something else than a handle and data was ignored", [What]).
