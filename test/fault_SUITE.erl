%% What is taken away is cleaned up, and what comes back is used again: clients, connection managers and ejabberd
%% itself end in the middle of everything. The link is a unix-domain socket here, whose name outlives a restart (but for 24.12).
-module(fault_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [call/4, held/2, release/3]).
-import(megaphone_test_program, [client/2, await_line/2, await_line/3, await_exit/1, tell/2, text/2]).

%% Seconds that a poll is held: a consumer whose client has died ends when its poll does.
-define(WAIT, "2").
%% Milliseconds until clients are back: the poll, the link's and the clients' own pauses.
-define(BACK_WITHIN, 40000).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        client_dies_in_a_poll,
        client_dies_in_a_websocket,
        client_dies_in_an_upload,
        client_dies_in_an_answer,
        connection_manager_stops,
        connection_manager_is_killed,
        connection_manager_is_upgraded,
        ejabberd_is_restarted_in_its_node,
        ejabberd_is_killed_and_comes_back
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    {Listener, Link} = link(megaphone_test_node:version(), Dir, ["max_inactivity: 4"]),
    ok = megaphone_test_node:write_config(Dir, [Listener]),
    [{dir, Dir} | Link] ++ Config.

%% The listener, and where the connection manager finds it. With 24.12 that is a port: its listener at a socket is away for five
%% seconds after each link, and clients would be told 503, or their sessions end, before a second one is up.
link([24, 12], _Dir, Options) ->
    Address = megaphone_test_node:own_address(),
    {megaphone_test_node:listener(megaphone, Address, [megaphone_test_node:handlers() | Options]), [{server, megaphone_test_program:server(Address)}]};
link(_Version, Dir, Options) ->
    Socket = megaphone_test_node:socket_file(Dir),
    {megaphone_test_node:unix_listener(Socket, Options), [{server, "unix:" ++ Socket}, {socket, Socket}]}.

end_per_suite(Config) ->
    [ok = megaphone_test_node:delete_socket(Socket) || {socket, Socket} <- Config],
    ok.

%% A node and a connection manager for each case: some of them do not survive it.
init_per_testcase(_Case, Config) ->
    Dir = proplists:get_value(dir, Config),
    Node = megaphone_test_node:start_in(Dir),
    {Ecm, Port} = megaphone_test_program:ecm(server(Config)),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

server(Config) -> proplists:get_value(server, Config).

end_per_testcase(_Case, Config) ->
    Answer = megaphone_test:finish_case(Config, fun() ->
        {Status, Output} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
        ?assert(lists:member(Status, [0, 128 + 9])),
        ?assertEqual(nomatch, binary:match(Output, <<"panicked">>))
    end),
    %% In one case it is gone already.
    catch megaphone_test_node:stop(proplists:get_value(node, Config)),
    Answer.

%% ---- clients ---------------------------------------------------------------------------------------------------

url(Config, http) -> lists:flatten(io_lib:format("http://127.0.0.1:~b/bosh", [proplists:get_value(port, Config)]));
url(Config, ws) -> lists:flatten(io_lib:format("ws://127.0.0.1:~b/ws", [proplists:get_value(port, Config)])).

%% A user that stays, and comes back by itself.
stay(Config, Scheme, User) ->
    ok = megaphone_test_stay:register(proplists:get_value(node, Config), User),
    megaphone_test_stay:start(url(Config, Scheme), User, ["--wait", ?WAIT, "--relogin", "200", "--deadline", "5000"]).

%% They still talk to each other.
assert_talk(A, B) ->
    megaphone_test_stay:assert_talk(A, B, <<"hello">>).

%% Both log in anew, with another session.
come_back(Clients) ->
    [megaphone_test_stay:connected(Program, ?BACK_WITHIN) || {Program, _} <- Clients].

leftovers(Config) ->
    call(proplists:get_value(node, Config), megaphone_test_node, leftovers, []).

assert_only_links(Config, Count) ->
    megaphone_test_node:assert_only_links(proplists:get_value(node, Config), Count).

consumers(Config) ->
    [Pid || {consumer, Pid, _} <- leftovers(Config)].

client_dies_in_a_poll(Config) ->
    %% A BOSH client that dies while its poll is held leaves no connection, and its session ends when max_inactivity is over.
    {Client, Jid} = stay(Config, http, "alice"),
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    Session = fun() -> call(proplists:get_value(node, Config), ejabberd_sm, get_user_info, [User, Host, Resource]) end,
    ?assert(is_list(Session())),
    ok = tell(Client, "kill"),
    {Status, _} = await_exit(Client),
    ?assertEqual(128 + 9, Status),
    ok = assert_only_links(Config, 1),
    ok = wait_until(fun() -> Session() =:= offline end),
    ok = wait_until(fun() -> maps:get(sessions, call(proplists:get_value(node, Config), megaphone_nif, bosh_info, [])) =:= 0 end).

client_dies_in_a_websocket(Config) ->
    %% A WebSocket client that dies leaves nothing, and its session has ended.
    {Client, Jid} = stay(Config, ws, "alice"),
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    Session = fun() -> call(proplists:get_value(node, Config), ejabberd_sm, get_user_info, [User, Host, Resource]) end,
    ?assert(is_list(Session())),
    ok = tell(Client, "kill"),
    _ = await_exit(Client),
    ok = assert_only_links(Config, 1),
    ok = wait_until(fun() -> Session() =:= offline end).

client_dies_in_an_upload(Config) ->
    %% A client that dies with half of its body sent, by a close or a reset, leaves nothing: its handler is told.
    Node = proplists:get_value(node, Config),
    lists:foreach(
        fun(Linger) ->
            {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
            ok = inet:setopts(Socket, [{linger, Linger}]),
            Head = <<"PUT /test/hold/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n">>,
            ok = gen_tcp:send(Socket, [Head, megaphone_test_handler:bytes(500000)]),
            {Pid, Virtual} = held(Node, <<"upload">>),
            ok = gen_tcp:close(Socket),
            ok = wait_until(fun() -> call(Node, megaphone_nif, info, [element(3, Virtual)]) =:= {error, closed} orelse drained(Node) end),
            ok = release(Node, <<"upload">>, <<"too late">>),
            ok = wait_until(fun() -> not call(Node, erlang, is_process_alive, [Pid]) end),
            ok = assert_only_links(Config, 1)
        end,
        [{false, 0}, {true, 0}]
    ).

%% The handler reads what came and then finds the end.
drained(Node) ->
    {error, closed} =:= megaphone_test_node:do(Node, <<"upload">>, fun(Socket, _) ->
        case gen_tcp:recv(Socket, 65536, 100) of
            {ok, _} -> more;
            Other -> Other
        end
    end).

client_dies_in_an_answer(Config) ->
    %% A client that dies before it has read a large answer leaves nothing; its consumer does not wait for it.
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, <<"GET /test/bytes/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
    {ok, <<"HTTP/1.1 200 OK">>} = gen_tcp:recv(Socket, 15),
    Node = proplists:get_value(node, Config),
    ok = wait_until(fun() -> maps:get(waiters, megaphone_test_node:stats(Node)) =:= 1 end),
    ok = gen_tcp:close(Socket),
    ok = assert_only_links(Config, 1).

%% ---- connection managers ---------------------------------------------------------------------------------------

connection_manager_stops(Config) ->
    %% SIGINT ends a connection manager within its time, with status 0, and nothing is left of its clients.
    Clients = [stay(Config, http, "alice"), stay(Config, ws, "bob")],
    ?assertMatch({0, _}, megaphone_test_program:stop(proplists:get_value(ecm, Config))),
    ok = assert_only_links(Config, 0),
    give_up(Clients).

%% They would try for ever.
give_up(Clients) ->
    [ok = tell(Program, "kill") || {Program, _} <- Clients],
    [await_exit(Program) || {Program, _} <- Clients].

connection_manager_is_killed(Config) ->
    %% When a connection manager is killed all its connections, waiters and consumers end, and with a new one in its
    %% place the clients go on.
    Node = proplists:get_value(node, Config),
    Clients = [stay(Config, http, "alice"), stay(Config, ws, "bob")],
    Port = proplists:get_value(port, Config),
    Others = [element(1, megaphone_test_http:connect(Port, {127, 0, 0, 1})) || _ <- lists:seq(1, 3)],
    Requests = [
        <<"GET /test/bytes/50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n">>,
        <<"GET /test/hold/killed HTTP/1.1\r\nHost: localhost\r\n\r\n">>,
        <<"PUT /upload/x/y/z HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf">>
    ],
    [ok = gen_tcp:send(Socket, Request) || {Socket, Request} <- lists:zip(Others, Requests)],
    {Held, _} = held(Node, <<"killed">>),
    ok = wait_until(fun() -> maps:get(waiters, megaphone_test_node:stats(Node)) >= 1 end),
    ok = megaphone_test_program:signal(proplists:get_value(ecm, Config), "KILL"),
    ok = wait_until(fun() -> maps:with([links, connections, waiters], megaphone_test_node:stats(Node)) =:= #{links => 0, connections => 0, waiters => 0} end),
    ok = wait_until(fun() -> consumers(Config) -- [Held] =:= [] end),
    ok = release(Node, <<"killed">>, <<"too late">>),
    ok = assert_only_links(Config, 0),
    Listen = "127.0.0.1:" ++ integer_to_list(Port),
    New = megaphone_test_program:ecm_at(Listen, server(Config), #{}),
    %% ejabberd has kept the BOSH session meanwhile, which goes on; the WebSocket's is over.
    [A | Sockets] = Clients,
    [B] = come_back(Sockets),
    assert_talk(B, A),
    assert_talk(A, B),
    megaphone_test_stay:leave([A, B]),
    ok = assert_only_links(Config, 1),
    ?assertMatch({0, _}, megaphone_test_program:stop(New)),
    [gen_tcp:close(Socket) || Socket <- Others].

connection_manager_is_upgraded(Config) ->
    %% A new connection manager takes the port over while users talk: nobody is disconnected, and no message is lost.
    File = filename:join(proplists:get_value(priv_dir, Config), "shared.toml"),
    ok = file:write_file(File, "reuse_port = true\n"),
    Start = fun(Listen) -> megaphone_test_program:ecm_ready(Listen, server(Config), ["--config", File]) end,
    {Old, Port} = Start("127.0.0.1:0"),
    Shared = lists:keystore(port, 1, Config, {port, Port}),
    [A, B] = Clients = [stay(Shared, http, "alice"), stay(Shared, http, "bob")],
    {New, Port} = Start("127.0.0.1:" ++ integer_to_list(Port)),
    ok = megaphone_test_program:signal(Old, "TERM"),
    ok = talk_on(Old, A, B, 1),
    {0, Log} = await_exit(Old),
    ?assertMatch({match, _}, re:run(Log, "draining: [1-9]")),
    ?assertEqual(nomatch, binary:match(Log, <<"cut off">>)),
    assert_talk(B, A),
    assert_talk(A, B),
    [?assertEqual(nomatch, re:run(megaphone_test_program:output(Program), "disconnected|failed")) || {Program, _} <- Clients],
    megaphone_test_stay:leave(Clients),
    ok = assert_only_links(Config, 2),
    ?assertMatch({0, _}, megaphone_test_program:stop(New)).

%% Messages to and fro, each of which has to come before the next is sent, until the program has ended.
talk_on(Program, {A, JidA}, {B, JidB}, Count) ->
    Text = "text-" ++ integer_to_list(Count),
    ok = tell(A, ["send ", JidB, " ", Text]),
    ?assertEqual(list_to_binary(Text), text("body", await_line(B, "\"message\""))),
    case megaphone_test_program:is_running(Program) of
        true -> talk_on(Program, {B, JidB}, {A, JidA}, Count + 1);
        false -> ok
    end.

%% ---- ejabberd --------------------------------------------------------------------------------------------------

ejabberd_is_restarted_in_its_node(Config) ->
    %% When ejabberd stops its links end, nothing is left and clients are told 503; when it is started again in the same
    %% node the connection manager is back by itself, and the clients log in again.
    Node = proplists:get_value(node, Config),
    Clients = [stay(Config, http, "alice"), stay(Config, ws, "bob")],
    ok = call(Node, application, stop, [ejabberd]),
    ok = assert_only_links(Config, 0),
    unavailable(Config),
    {ok, _} = call(Node, application, ensure_all_started, [ejabberd]),
    [A, B] = Back = come_back(Clients),
    assert_talk(A, B),
    assert_talk(B, A),
    megaphone_test_stay:leave(Back),
    ok = assert_only_links(Config, 1).

unavailable(Config) ->
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, <<"GET /bosh HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
    ?assertMatch({503, _}, megaphone_test_http:read(Socket)),
    ok = gen_tcp:close(Socket).

ejabberd_is_killed_and_comes_back(Config) ->
    %% The same when its whole node is killed and a new one is started.
    Node = proplists:get_value(node, Config),
    Clients = [stay(Config, http, "alice"), stay(Config, ws, "bob")],
    _ = os:cmd("kill -KILL " ++ call(Node, os, getpid, [])),
    _ = await_line(proplists:get_value(ecm, Config), " down: "),
    unavailable(Config),
    New = megaphone_test_node:start_in(proplists:get_value(dir, Config)),
    [A, B] = Back = come_back(Clients),
    assert_talk(A, B),
    assert_talk(B, A),
    megaphone_test_stay:leave(Back),
    ok = assert_only_links([{node, New}], 1),
    ?assertMatch({0, _}, megaphone_test_program:stop(proplists:get_value(ecm, Config))),
    ok = megaphone_test_node:assert_quiet(New),
    megaphone_test_node:stop(New).
