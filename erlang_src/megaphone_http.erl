%% @private
%% @doc Hands requests on virtual connections to ejabberd: to mod_bosh by a process of our own, all others to
%% ejabberd's HTTP server.
%%
%% Only what is plain and common takes the short way ({@link megaphone_poll}): a POST with a body that is there to its
%% last byte, for a path whose first handler is mod_bosh, written as it is in the configuration, while no hook wants to
%% see requests. Nothing else is decided here about what a request means.
-module(megaphone_http).

-export([service/1, served/1, renewed/1, start_consumer/2, start_stepwise/2, start_session/2, client/2, client_of/2, option_type/1]).
-export_type([service/0, error/0, option/0, validator/0]).

-type error() :: ejabberd_not_running | {cannot_start, ejabberd_http | ejabberd_c2s | megaphone_poll, atom()}.
-type option() :: bosh | max_inactivity | max_pause | max_concat | prebind | request_handlers | custom_headers | tag | idle_memory | idle_after | sweep | secret | allow_plain_link | websocket | allow_unencrypted_sasl2.
-type validator() :: fun((term()) -> term()).
%% As econf:validator(), which is known where ejabberd is.

-type hooks() :: [tuple()].

%% How BOSH is served where a listener does not say it.
-define(BOSH, native).

-record(service, {
    %% For ejabberd_http.
    opts :: [{atom(), term()}],
    %% Paths of mod_bosh.
    targets = [] :: [binary()],
    %% The hooks that this was made with.
    hooks = [] :: hooks(),
    poll :: megaphone_poll:settings(),
    %% For native BOSH sessions, if they are.
    bosh :: [megaphone_bosh:settings()],
    %% For client sessions.
    session :: [{atom(), term()}]
}).
-opaque service() :: #service{}.

%% Options of the listener that speak of the link and must not be taken for the client's connection. Above all
%% `sock_peer_name' (from use_proxy_protocol): it would give every client the address of the ECM.
-define(LINK_OPTIONS, [
    megaphone_listener, sock_peer_name, tls, starttls, ciphers, dhfile, cafile, certfile, protocol_options,
    tls_compression, send_timeout, supervisor, backlog, use_proxy_protocol, accept_interval, ip, port, transport,
    module, unix_socket, idle_memory, idle_after, sweep, secret, allow_plain_link, websocket, allow_unencrypted_sasl2, bosh
]).

%% @doc How requests of a listener are served; the calling process is the one that starts their consumers. To be made
%% once a link, and again when the options change.
-spec service([{atom(), term()}]) -> service().
service(Opts) ->
    Bosh = proplists:get_value(bosh, Opts, ?BOSH),
    Service = #service{
        session = [Opt || {allow_unencrypted_sasl2, _} = Opt <- Opts],
        opts = handled(Bosh, [Opt || {Name, _} = Opt <- Opts, not lists:member(Name, ?LINK_OPTIONS)]),
        poll = #{
            receiver => self(),
            custom_headers => proplists:get_value(custom_headers, Opts, []),
            idle => megaphone_sweeper:idle(Opts)
        },
        bosh = [megaphone_bosh:settings(Opts) || Bosh =:= native]
    },
    with_hooks(hooks(), Service).

%% Requests that do not take the short way come to our own handler in the place of mod_bosh, too.
-spec handled(native | mod_bosh, [{atom(), term()}]) -> [{atom(), term()}].
handled(mod_bosh, Opts) ->
    Opts;
handled(native, Opts) ->
    Ours = fun
        ({Path, mod_bosh}) -> {Path, megaphone_bosh};
        (Other) -> Other
    end,
    [case Opt of {request_handlers, All} -> {request_handlers, lists:map(Ours, All)}; _ -> Opt end || Opt <- Opts].

%% @doc What a link of a listener serves: WebSockets of XMPP clients end in the connection manager unless the option `websocket'
%% leaves them to ejabberd.
-spec served([{atom(), term()}]) -> megaphone_nif:served().
served(Opts) ->
    case proplists:get_value(websocket, Opts, native) of
        native -> http_and_xmpp;
        ejabberd_http_ws -> http
    end.

%% @doc The service, made anew when ejabberd's hooks have changed. Three ETS lookups.
-spec renewed(service()) -> service().
renewed(#service{hooks = Hooks} = Service) ->
    case hooks() of
        Hooks -> Service;
        Changed -> with_hooks(Changed, Service)
    end.

%% What a hook does to a request is ejabberd_http's business; so are handlers that one adds, unless they are there from
%% the beginning.
-spec with_hooks(hooks(), service()) -> service().
with_hooks(Hooks, #service{opts = Opts} = Service) ->
    Configured = proplists:get_value(request_handlers, Opts, []),
    case [Hook || {Hook, [_ | _]} <- Hooks] of
        [] -> Service#service{hooks = Hooks, targets = targets(Configured)};
        [http_request_handlers_init] ->
            Handlers = ejabberd_hooks:run_fold(http_request_handlers_init, Configured, [Opts]),
            Service#service{hooks = Hooks, targets = targets(Handlers)};
        _ ->
            Service#service{hooks = Hooks, targets = []}
    end.

-spec hooks() -> hooks().
hooks() ->
    [{Hook, registered(Hook)} || Hook <- [http_request_handlers, http_request_debug, http_request_handlers_init]].

-spec registered(atom()) -> [term()].
registered(Hook) ->
    try ets:lookup(hooks, {Hook, global}) of
        %% Newer ejabberd has subscribers behind the functions.
        [Row] ->
            All = lists:append([Some || Some <- tl(tuple_to_list(Row)), is_list(Some)]),
            [One || One <- All, not megaphone_https:is_hook(One)];
        [] -> []
    catch
        error:badarg -> []
    end.

%% The first handler whose path is a prefix serves a request.
-spec targets([tuple()]) -> [binary()].
targets(Handlers) ->
    lists:append([
        spellings(Path)
     || {Path, Module} <- Handlers, Module =:= mod_bosh orelse Module =:= megaphone_bosh, first_handler(Path, Handlers) =:= Module
    ]).

-spec first_handler([binary()], [tuple()]) -> module().
first_handler(Path, [Handler | Handlers]) ->
    case lists:prefix(element(1, Handler), Path) of
        true -> element(2, Handler);
        false -> first_handler(Path, Handlers)
    end.

-spec spellings([binary()]) -> [binary()].
spellings([]) ->
    [<<"/">>];
spellings(Path) ->
    Target = iolist_to_binary([[$/, Segment] || Segment <- Path]),
    %% What has to be encoded in a target is not worth a way of its own.
    case re:run(Target, "^[A-Za-z0-9/._~-]+$", [{capture, none}]) of
        match -> [Target, <<Target/binary, $/>>];
        nomatch -> []
    end.

%% @doc Starts the process that answers the request which waits on the connection, and ejabberd_http the following ones as
%% long as there are any. The connection ends when that process dies. If it cannot be started the connection is closed.
%%
%% Cost: a process, about 2.6 kB before it does anything.
-spec start_consumer(megaphone_nif:handle(), service()) -> ok | {error, error()}.
start_consumer(Handle, #service{targets = []} = Service) ->
    start_stepwise(Handle, Service);
start_consumer(Handle, #service{targets = Targets, poll = Settings, bosh = Bosh} = Service) ->
    case megaphone_nif:is_poll(Handle, Targets, Bosh =/= []) of
        true when Bosh =/= [] -> native(Handle, hd(Bosh), Service);
        true -> started(Handle, start(megaphone_poll, fun() -> {polls, megaphone_poll:start({Handle, Settings})} end));
        false -> start_stepwise(Handle, Service)
    end.

-spec native(megaphone_nif:handle(), megaphone_bosh:settings(), service()) -> ok | {error, error()}.
native(Handle, Bosh, Service) ->
    case megaphone_bosh:taken(Handle, Bosh, fun(Forwarded) -> client_of(Handle, Forwarded) end) of
        slow -> start_stepwise(Handle, Service);
        Done -> Done
    end.

%% @doc As {@link start_consumer/2} with ejabberd_http in any case.
-spec start_stepwise(megaphone_nif:handle(), service()) -> ok | {error, error()}.
start_stepwise(Handle, #service{opts = Opts}) ->
    Socket = {'$inet', megaphone_socket, Handle},
    started(Handle, start(ejabberd_http, fun() -> ejabberd_http:start(gen_tcp, Socket, Opts) end)).

%% @doc Starts the client session of a connection of kind XMPP.
-spec start_session(megaphone_nif:handle(), service()) -> ok | {error, error()}.
start_session(Handle, #service{session = Opts}) ->
    megaphone_c2s:start(Handle, Opts).

-spec started(megaphone_nif:handle(), {ok | polls, pid()} | {error, error()}) -> ok | {error, error()}.
started(Handle, {ok, Pid}) ->
    %% Closed meanwhile: then the process finds that out by its first read.
    _ = megaphone_nif:set_consumer(Handle, Pid),
    ok;
started(_Handle, {polls, _Pid}) ->
    %% It names itself when it takes its request. Named from here it might have done its work already.
    ok;
started(Handle, {error, _} = Error) ->
    ok = megaphone_nif:close(Handle),
    Error.

-spec start(module(), fun(() -> {ok | polls, pid()})) -> {ok | polls, pid()} | {error, error()}.
start(Module, Start) ->
    %% Its code may be there without ejabberd running: then every request would only make a crash report.
    case whereis(ejabberd_sup) of
        undefined ->
            {error, ejabberd_not_running};
        _ ->
            try
                Start()
            catch
                error:Reason -> {error, {cannot_start, Module, megaphone_failure:kind(Reason)}}
            end
    end.

%% @doc The address of a client: the first in `X-Forwarded-For' when the peer and all that it names after it are within
%% ejabberd's option `trusted_proxies', else the peer's. `einval': it is to be that, and is no address. The connection manager drops that field; other nodes may not.
-spec client(megaphone_nif:address(), binary() | undefined) -> {ok, megaphone_nif:address()} | {error, einval}.
client(Peer, undefined) ->
    {ok, Peer};
client({Ip, Port} = Peer, Forwarded) ->
    case string:lexemes(Forwarded, ", ") of
        [First | Proxies] ->
            Trusted = ejabberd_option:trusted_proxies(),
            case Trusted =:= all orelse lists:all(fun(Proxy) -> is_trusted(Proxy, Trusted) end, [Ip | Proxies]) of
                true -> with_port(inet:parse_address(binary_to_list(First)), Port);
                false -> {ok, Peer}
            end;
        [] ->
            {ok, Peer}
    end.

%% @doc The same for the peer of a connection.
-spec client_of(megaphone_nif:handle(), binary() | undefined) -> {ok, megaphone_nif:address()} | {error, closed | einval}.
client_of(Handle, Forwarded) ->
    case megaphone_nif:peername(Handle) of
        {ok, Peer} -> client(Peer, Forwarded);
        {error, closed} = Error -> Error
    end.

-spec with_port({ok, inet:ip_address()} | {error, einval}, inet:port_number()) -> {ok, megaphone_nif:address()} | {error, einval}.
with_port({ok, Ip}, Port) -> {ok, {Ip, Port}};
with_port({error, einval} = Error, _Port) -> Error.

-spec is_trusted(binary() | inet:ip_address(), [{inet:ip_address(), byte()}]) -> boolean().
is_trusted(Proxy, Masks) when is_binary(Proxy) ->
    case inet:parse_address(binary_to_list(Proxy)) of
        {ok, Ip} -> is_trusted(Ip, Masks);
        {error, _} -> false
    end;
is_trusted(Ip, Masks) ->
    lists:any(fun({Mask, Length}) -> misc:match_ip_mask(Ip, Mask, Length) end, Masks).

%% @doc The validator of one of our listener's options: ejabberd_http's own for those that it has, too.
-spec option_type(option()) -> validator().
option_type(idle_memory) -> econf:enum([keep, collect, hibernate_bosh, hibernate]);
option_type(idle_after) -> econf:timeout(millisecond);
option_type(secret) -> megaphone_gate:secret_type();
option_type(allow_plain_link) -> econf:bool();
option_type(allow_unencrypted_sasl2) -> econf:bool();
option_type(websocket) -> econf:enum([native, ejabberd_http_ws]);
option_type(bosh) -> econf:enum([native, mod_bosh]);
option_type(max_inactivity) -> econf:timeout(second);
option_type(max_pause) -> econf:timeout(second);
option_type(max_concat) -> econf:pos_int(unlimited);
option_type(prebind) -> econf:and_then(econf:bool(), fun no_prebind/1);
option_type(sweep) -> econf:enum([megaphone, all]);
option_type(Option) -> ejabberd_http:listen_opt_type(Option).

-spec no_prebind(boolean()) -> false.
no_prebind(false) ->
    false;
no_prebind(true) ->
    econf:fail({prebind_is_for_mod_bosh_only, {set, [{bosh, mod_bosh}]}}).
