%% Real clients talk through a real connection manager to a real ejabberd: Strophe.js by BOSH and by WebSocket, on one
%% port. What goes wrong is in fault_SUITE, HTTP alone in http_SUITE.
-module(ejabberd_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).
-import(megaphone_test_program, [client/2, client/3, await_line/2, await_exit/1, tell/2, text/2]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        bosh_with_scram,
        bosh_with_plain,
        websocket_with_scram,
        websocket_with_plain,
        crowd_by_bosh,
        crowd_by_websocket,
        bosh_session_has_the_clients_address,
        websocket_session_has_the_clients_address,
        two_connection_managers,
        https_and_wss,
        nothing_private_in_the_logs
    ].

init_per_suite(Config) ->
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [listener(megaphone, 1, [handlers()])]),
    {Ecm, Port} = megaphone_test_program:ecm(server(Node)),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

server(Node) ->
    megaphone_test_program:server(address(Node, megaphone)).

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    Node = proplists:get_value(node, Config),
    only(Node, []),
    megaphone_test_node:stop_without_errors(Node).

init_per_testcase(_Case, Config) -> Config.

%% The clients have gone in good order, so all that they have caused is gone at once: only the link is left.
end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        only(proplists:get_value(node, Config), [{links, 1}])
    end).

only(Node, Expected) ->
    Left = fun() -> [Each || Each <- call(Node, megaphone_test_node, leftovers, []), not is_parked(Each)] end,
    ok = wait_until(fun() -> Left() =:= Expected end).

%% mod_bosh may park a request whose successor has overtaken it, and forgets it until its session ends, as it does
%% behind ejabberd's own listener. The process that serves it waits as long; its virtual connection is gone.
is_parked({consumer, _Pid, {current_stacktrace, Stack}}) -> lists:keymember(ejabberd_bosh, 1, Stack);
is_parked(_Other) -> false.

url(Config, Scheme) ->
    Path = case Scheme of "http" -> "/bosh"; "ws" -> "/ws" end,
    lists:flatten(io_lib:format("~s://127.0.0.1:~b~s", [Scheme, proplists:get_value(port, Config), Path])).

%% Users that no other case has.
users(Config, Count) ->
    Name = "u" ++ integer_to_list(erlang:unique_integer([positive])) ++ "x",
    [user(Config, Name ++ integer_to_list(N)) || N <- lists:seq(1, Count)].

user(Config, Name) ->
    ok = megaphone_test_node:register_user(proplists:get_value(node, Config), list_to_binary(Name), list_to_binary(password(Name))),
    Name.

password(_Name) -> "pass-of-the-tests".

%% ---- conversations ---------------------------------------------------------------------------------------------

bosh_with_scram(Config) ->
    %% Two registered users log in by BOSH with SCRAM, see each other, talk both ways (ASCII, emoji, 100 kB) and leave.
    chat(Config, "http", "scram").

bosh_with_plain(Config) ->
    %% The same with PLAIN.
    chat(Config, "http", "plain").

websocket_with_scram(Config) ->
    %% The same by WebSocket over the same port, with SCRAM.
    chat(Config, "ws", "scram").

websocket_with_plain(Config) ->
    %% The same with PLAIN.
    chat(Config, "ws", "plain").

chat(Config, Scheme, Mechanism) ->
    [One, Other] = users(Config, 2),
    {Status, Output} = await_exit(client("chat.mjs", [
        "--url", url(Config, Scheme), "--domain", "localhost", "--users", One ++ "," ++ Other,
        "--passwords", password(One), "--mechanism", Mechanism, "--json"
    ])),
    ?assertEqual({0, Output}, {Status, Output}),
    ?assertMatch({match, _}, re:run(Output, "\"ok\":true.*\"messages\":6,\"largest\":100000")),
    %% Each has the other in the roster as ejabberd keeps it.
    Node = proplists:get_value(node, Config),
    Roster = call(Node, mod_roster, get_roster, [list_to_binary(One), <<"localhost">>]),
    ?assertMatch([_], Roster).

crowd_by_bosh(Config) ->
    %% 50 clients at once: all log in, each tells its partner something and hears from it, all leave.
    crowd(Config, "http").

crowd_by_websocket(Config) ->
    %% The same by WebSocket.
    crowd(Config, "ws").

crowd(Config, Scheme) ->
    {Status, Output} = await_exit(client("crowd.mjs", [
        "--url", url(Config, Scheme), "--domain", "localhost", "--anonymous", "--count", "50", "--together", "50"
    ])),
    ?assertEqual({0, Output}, {Status, Output}),
    ?assertMatch({match, _}, re:run(Output, "\"ok\":true.*\"loggedIn\":50,\"sent\":150,\"received\":150,\"disconnected\":50")).

%% ---- addresses -------------------------------------------------------------------------------------------------

bosh_session_has_the_clients_address(Config) ->
    %% ejabberd has the client's own address and port for a session, not those of the connection manager.
    Client = {127, 0, 0, 77},
    {Socket, Own} = megaphone_test_http:connect(proplists:get_value(port, Config), Client),
    {Sid, Jid, Rid} = megaphone_test_http:bosh_login(Socket),
    check_session(Config, Jid, Own, http_bind),
    ok = megaphone_test_http:bosh_end(Socket, Sid, Rid),
    ok = gen_tcp:close(Socket).

websocket_session_has_the_clients_address(Config) ->
    %% The same for a WebSocket.
    Client = {127, 0, 0, 78},
    {Socket, Own} = megaphone_test_http:connect(proplists:get_value(port, Config), Client),
    Jid = megaphone_test_http:websocket_login(Socket),
    check_session(Config, Jid, Own, websocket),
    ok = gen_tcp:close(Socket).

check_session(Config, Jid, {Client, Port}, Transport) ->
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    Info = call(proplists:get_value(node, Config), ejabberd_sm, get_user_info, [User, Host, Resource]),
    ?assertEqual([{Client, Port}, Transport], [proplists:get_value(Key, Info) || Key <- [ip, conn]]).

%% ---- others ----------------------------------------------------------------------------------------------------

%% A client that stays, logged in.
stay(Url, User) ->
    Program = client("stay.mjs", ["--url", Url, "--domain", "localhost", "--user", User, "--passwords", password(User)]),
    Line = await_line(Program, "\"connected\""),
    {Program, text("jid", Line)}.

leave(Program) ->
    ok = tell(Program, "quit"),
    {0, _} = await_exit(Program).

two_connection_managers(Config) ->
    %% Users of two connection managers, which are two links, talk to each other; the end of one concerns only its own.
    Node = proplists:get_value(node, Config),
    {Second, Port} = megaphone_test_program:ecm(server(Node)),
    ok = wait_until(fun() -> length(call(Node, megaphone, links, [])) =:= 2 end),
    [UserA, UserB] = users(Config, 2),
    {A, JidA} = stay(url(Config, "http"), UserA),
    {B, JidB} = stay(url([{port, Port}], "http"), UserB),
    ok = tell(A, ["send ", JidB, " from the first"]),
    ?assertEqual(<<"from the first">>, text("body", await_line(B, "\"message\""))),
    ok = tell(B, ["send ", JidA, " from the second"]),
    ?assertEqual(<<"from the second">>, text("body", await_line(A, "\"message\""))),
    leave(B),
    {0, _} = megaphone_test_program:stop(Second),
    ok = wait_until(fun() -> length(call(Node, megaphone, links, [])) =:= 1 end),
    ok = tell(A, "ping"),
    _ = await_line(A, "\"pong\""),
    leave(A).

https_and_wss(Config) ->
    %% By TLS to the connection manager clients log in and talk as without it, by BOSH and by WebSocket.
    Node = proplists:get_value(node, Config),
    {Secure, Port, Certificate} = megaphone_test_program:secure_ecm(server(Node), proplists:get_value(priv_dir, Config)),
    lists:foreach(fun({Scheme, Path}) ->
        [One, Other] = users(Config, 2),
        Url = lists:flatten(io_lib:format("~s://127.0.0.1:~b~s", [Scheme, Port, Path])),
        {Status, Output} = await_exit(client("chat.mjs", [
            "--url", Url, "--domain", "localhost", "--users", One ++ "," ++ Other, "--passwords", password(One), "--json"
        ], #{env => [{"NODE_EXTRA_CA_CERTS", Certificate}]})),
        ?assertEqual({0, Output}, {Status, Output}),
        ?assertMatch({match, _}, re:run(Output, "\"ok\":true.*\"messages\":6,\"largest\":100000"))
    end, [{"https", "/bosh"}, {"wss", "/ws"}]),
    {0, _} = megaphone_test_program:stop(Secure),
    ok = wait_until(fun() -> length(call(Node, megaphone, links, [])) =:= 1 end).

nothing_private_in_the_logs(Config) ->
    %% At the usual log level neither ejabberd nor the connection manager logs a password, a session id or a message.
    Node = proplists:get_value(node, Config),
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    {Sid, _Jid, Rid} = megaphone_test_http:bosh_login(Socket),
    ok = megaphone_test_http:bosh_end(Socket, Sid, Rid),
    ok = gen_tcp:close(Socket),
    [User, Other] = users(Config, 2),
    {Client, Jid} = stay(url(Config, "ws"), User),
    Message = "words-that-are-nobodys-business",
    ok = tell(Client, ["send ", Jid, " ", Message]),
    ?assertEqual(list_to_binary(Message), text("body", await_line(Client, "\"message\""))),
    leave(Client),
    {0, _} = await_exit(client("chat.mjs", [
        "--url", url(Config, "http"), "--domain", "localhost", "--users", User ++ "," ++ Other, "--passwords", password(User),
        "--mechanism", "plain", "--json"
    ])),
    Plain = base64:encode(iolist_to_binary([0, User, 0, password(User)])),
    Logs = [megaphone_test_node:log(Node), megaphone_test_program:output(proplists:get_value(ecm, Config))],
    ?assertMatch([<<_, _/binary>>, <<_, _/binary>>], Logs),
    %% The user's name is logged by ejabberd, so the search does look into the right place.
    ?assertNotEqual(nomatch, binary:match(hd(Logs), list_to_binary(User))),
    Private = [iolist_to_binary(Text) || Text <- [password(User), Plain, Sid, Message, "can you hear me"]],
    ?assertEqual([], [Text || Text <- Private, Log <- Logs, binary:match(Log, Text) =/= nomatch]).
