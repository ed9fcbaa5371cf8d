%% What handlers of requests see of a client's TLS, which ends in the connection manager or in a proxy before it: what they
%% see behind ejabberd's own listener with TLS.
-module(https_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, handlers/0, listener/3]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        handlers_see_it,
        trusted_proxies_tell_of_it,
        handlers_of_other_modules_see_it,
        polls_of_mod_bosh_see_it,
        websockets_pass
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, [
        listener(megaphone, 1, [handlers()]),
        listener(megaphone, 2, [handlers(), "bosh: mod_bosh", "websocket: ejabberd_http_ws"]),
        listener(ejabberd_http, 3, [handlers()]), listener(ejabberd_http, 4, [handlers(), "tls: true"])
    ]),
    ok = megaphone_test_node:change_config(Dir, "certfiles: []", ["certfiles:\n  - \"", own_certificate(Dir), "\""]),
    {ok, _} = application:ensure_all_started(ssl),
    [{node, megaphone_test_node:start_in(Dir)} | Config].

%% With its key, as ejabberd wants it.
own_certificate(Dir) ->
    Files = megaphone_test_program:certificate(Dir),
    Both = filename:join(Dir, "both.pem"),
    ok = file:write_file(Both, [element(2, file:read_file(File)) || File <- tuple_to_list(Files)]),
    Both.

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(node_of(Config)).

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_quiet(node_of(Config)) end).

node_of(Config) -> proplists:get_value(node, Config).

%% Runs the function with the ports of connection managers that are linked to the Nth listener: one for TLS, one without.
behind(N, Config, Fun) ->
    Server = megaphone_test_program:server(address(node_of(Config), {megaphone, N})),
    {Secure, SecurePort, _} = megaphone_test_program:secure_ecm(Server, proplists:get_value(priv_dir, Config)),
    {Plain, PlainPort} = megaphone_test_program:ecm_with(["--server", Server, "--config", trusting(Config)], 1, #{}),
    Result = Fun({ssl, {{127, 0, 0, 1}, SecurePort}}, {gen_tcp, {{127, 0, 0, 1}, PlainPort}}),
    [{0, _} = megaphone_test_program:stop(Ecm) || Ecm <- [Secure, Plain]],
    Result.

%% A configuration in which 127.0.0.2 is a proxy that is believed.
trusting(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "ecm.toml"),
    ok = file:write_file(File, "trusted_proxies = [\"127.0.0.2\"]\n"),
    File.

%% ---- requests --------------------------------------------------------------------------------------------------

connect({Module, Address}) ->
    connect({Module, Address}, {127, 0, 0, 1}).

connect({Module, {Ip, Port}}, From) ->
    Tls = [Opt || Module =:= ssl, Opt <- [{verify, verify_none}, {log_level, error}]],
    {ok, Socket} = Module:connect(Ip, Port, [binary, {active, false}, {ip, From} | Tls], ?DEADLINE),
    {Module, Socket}.

%% Asks by a connection; the body of the answer.
get({Module, Socket}, Path, Fields) ->
    ok = Module:send(Socket, ["GET ", Path, " HTTP/1.1\r\n", [[Field, "\r\n"] || Field <- Fields], "\r\n"]),
    body({Module, Socket}, <<>>).

body({Module, Socket}, Got) ->
    case whole(binary:split(Got, <<"\r\n\r\n">>)) of
        {true, Body} ->
            Body;
        false ->
            {ok, More} = Module:recv(Socket, 0, ?DEADLINE),
            body({Module, Socket}, <<Got/binary, More/binary>>)
    end.

whole([<<"HTTP/1.1 200 ", _/binary>> = Head, Body]) ->
    {match, [Length]} = re:run(Head, "\r\nContent-Length: ([0-9]+)", [{capture, all_but_first, binary}]),
    byte_size(Body) =:= binary_to_integer(Length) andalso {true, Body};
whole([_Part]) ->
    false.

close({Module, Socket}) ->
    ok = Module:close(Socket).

%% What a handler says of a request of its own connection.
url(Server, Path, Fields) ->
    Connection = connect(Server),
    Url = get(Connection, Path, Fields),
    ok = close(Connection),
    Url.

handlers_see_it(Config) ->
    %% Scheme, port and option, with all kinds of `Host': by TLS and without it the same as ejabberd's own listeners show.
    [Stock, StockTls] = [{Module, address(node_of(Config), {ejabberd_http, N})} || {Module, N} <- [{gen_tcp, 1}, {ssl, 2}]],
    Hosts = ["localhost", "localhost:80", "localhost:443", "localhost:8443", "LocalHost", "[::1]", "[::1]:80", "127.0.0.1"],
    behind(1, Config, fun(Secure, Plain) ->
        [
            begin
                [Expected, ExpectedTls, Seen, SeenTls] =
                    [url(Server, "/test/url", ["Host: " ++ Host]) || Server <- [Stock, StockTls, Plain, Secure]],
                ?assertEqual({Host, Expected, ExpectedTls}, {Host, Seen, SeenTls})
            end
         || Host <- Hosts
        ],
        ?assertEqual(<<"https://localhost:443 true">>, url(Secure, "/test/url", ["Host: localhost"])),
        ?assertEqual(<<"http://localhost:80 false">>, url(Plain, "/test/url", ["Host: localhost"]))
    end).

trusted_proxies_tell_of_it(Config) ->
    %% A trusted proxy says of each request whether it came by TLS; of anybody else nothing is believed.
    behind(1, Config, fun(_Secure, Plain) ->
        Ask = fun(Connection, Said) ->
            get(Connection, "/test/url", ["Host: localhost" | ["X-Forwarded-Proto: " ++ Scheme || Scheme <- Said]])
        end,
        Proxy = connect(Plain, {127, 0, 0, 2}),
        [
            ?assertEqual({Said, Expected}, {Said, Ask(Proxy, Said)})
         || {Said, Expected} <- [
                {[], <<"http://localhost:80 false">>}, {["https"], <<"https://localhost:443 true">>},
                {["https"], <<"https://localhost:443 true">>}, {["http"], <<"http://localhost:80 false">>},
                {["https", "http"], <<"http://localhost:80 false">>}
            ]
        ],
        Other = connect(Plain),
        ?assertEqual(<<"http://localhost:80 false">>, Ask(Other, ["https"])),
        [ok = close(Connection) || Connection <- [Proxy, Other]]
    end).

handlers_of_other_modules_see_it(Config) ->
    %% A handler that another module adds by ejabberd's hook sees it as well, whenever that module came.
    ok = call(node_of(Config), ejabberd_hooks, add, [http_request_handlers, ?MODULE, more, 50]),
    behind(1, Config, fun(Secure, Plain) ->
        ?assertEqual(<<"https://localhost:443 true">>, url(Secure, "/more/url", ["Host: localhost"])),
        ?assertEqual(<<"http://localhost:80 false">>, url(Plain, "/more/url", ["Host: localhost"]))
    end),
    ok = call(node_of(Config), ejabberd_hooks, delete, [http_request_handlers, ?MODULE, more, 50]).

%% In the node: the hook.
more(Handlers, _Host, _Request) ->
    [{[<<"more">>], megaphone_test_handler} | Handlers].

polls_of_mod_bosh_see_it(Config) ->
    %% A request that Megaphone hands to mod_bosh itself.
    behind(2, Config, fun(Secure, Plain) ->
        ?assertEqual({https, 443}, polled(Secure, "localhost", Config)),
        ?assertEqual({https, 80}, polled(Secure, "localhost:80", Config)),
        ?assertEqual({http, 80}, polled(Plain, "localhost", Config))
    end).

%% The scheme and port of a request that mod_bosh was called with.
polled(Server, Host, Config) ->
    Tracer = call(node_of(Config), ?MODULE, trace, []),
    Body = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>",
    {Module, Socket} = Connection = connect(Server),
    ok = Module:send(Socket, [
        "POST /bosh HTTP/1.1\r\nHost: ", Host, "\r\nContent-Length: ", integer_to_list(length(Body)), "\r\n\r\n", Body
    ]),
    <<"<body", _/binary>> = body(Connection, <<>>),
    ok = close(Connection),
    call(node_of(Config), ?MODULE, traced, [Tracer]).

%% In the node: who learns of calls of mod_bosh by processes that start from now on.
trace() ->
    Caller = self(),
    Tracer = spawn(fun() ->
        _ = erlang:trace(new_processes, true, [call, {tracer, self()}]),
        1 = erlang:trace_pattern({mod_bosh, process, 2}, true, []),
        Caller ! {self(), ready},
        {trace, _, call, {mod_bosh, process, [[], Request]}} = ?assertReceive({trace, _, call, {mod_bosh, process, _}}),
        receive {ask, From} -> From ! {self(), {element(14, Request), element(12, Request)}} end
    end),
    ?assertReceive({Tracer, ready}),
    Tracer.

traced(Tracer) ->
    Tracer ! {ask, self()},
    element(2, ?assertReceive({Tracer, _})).

websockets_pass(Config) ->
    %% A WebSocket that ejabberd's handler ends is opened by TLS, and a stream in it.
    Open = <<"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>">>,
    behind(2, Config, fun(Secure, _Plain) ->
        {Module, Socket} = Connection = connect(Secure),
        ok = Module:send(Socket, [
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "Sec-WebSocket-Protocol: xmpp\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            <<16#81, (128 + byte_size(Open)), 0:32>>, Open
        ]),
        Came = until("stream:features", Connection, <<>>),
        ?assertMatch({match, _}, re:run(Came, "^HTTP/1.1 101 ")),
        ok = close(Connection)
    end).

until(Text, {Module, Socket} = Connection, Got) ->
    case binary:match(Got, list_to_binary(Text)) of
        nomatch ->
            {ok, More} = Module:recv(Socket, 0, ?DEADLINE),
            until(Text, Connection, <<Got/binary, More/binary>>);
        _ ->
            Got
    end.
