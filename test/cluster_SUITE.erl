%% Two nodes of a real ejabberd cluster behind one connection manager, with real clients: requests of one session come over
%% both, and what a node takes along when it dies comes back through the other.
-module(cluster_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [call/4]).

-define(SECRET, "a secret of the cluster").
%% Milliseconds until clients are back: the poll, the link's and the clients' own pauses.
-define(BACK_WITHIN, 40000).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [{group, native}, {group, mod_bosh}].

groups() -> [{Group, [], [a_session_over_two_nodes, a_node_dies]} || Group <- [native, mod_bosh]].

init_per_suite(Config) -> Config.

end_per_suite(_Config) -> ok.

%% Who keeps the BOSH sessions.
init_per_group(Group, Config) ->
    Dir = filename:join([proplists:get_value(priv_dir, Config), atom_to_list(?MODULE), atom_to_list(Group)]),
    Own = [filename:join(Dir, Name) || Name <- ["first", "second"]],
    Sockets = [megaphone_test_node:socket_file(Each) || Each <- Own],
    %% Every session is put to sleep soon, those whose requests come to the other node as well.
    Options = ["secret: \"" ?SECRET "\"", "idle_memory: hibernate", "idle_after: 20", ["bosh: ", atom_to_list(Group)]],
    [
        ok = megaphone_test_node:write_config(Each, [megaphone_test_node:unix_listener(Socket, Options)])
     || {Each, Socket} <- lists:zip(Own, Sockets)
    ],
    Secret = filename:join(Dir, "secret"),
    ok = file:write_file(Secret, [?SECRET, "\n"]),
    ok = file:change_mode(Secret, 8#600),
    [{group, Group}, {own, Own}, {sockets, Sockets}, {secret, Secret} | Config].

end_per_group(_Group, Config) ->
    [ok = megaphone_test_node:delete_socket(Socket) || Socket <- proplists:get_value(sockets, Config)],
    ok.

init_per_testcase(_Case, Config) ->
    Names = megaphone_test_node:cluster_names(2),
    Nodes = [
        begin
            _ = file:del_dir_r(filename:join([Own, "short", "mnesia"])),
            megaphone_test_node:start_in(Own, Name)
        end
     || {Own, Name} <- lists:zip(proplists:get_value(own, Config), Names)
    ],
    [First, Second] = Nodes,
    ok = call(Second, ejabberd_cluster, join, [call(First, erlang, node, [])]),
    ok = wait_until(fun() -> [length(call(Node, ejabberd_cluster, get_nodes, [])) || Node <- Nodes] =:= [2, 2] end),
    ok = wait_until(fun() -> is_pid(call(Second, erlang, whereis, [megaphone])) end),
    Servers = lists:append([["--server", "unix:" ++ Socket] || Socket <- proplists:get_value(sockets, Config)]),
    Args = Servers ++ ["--link-secret-file", proplists:get_value(secret, Config)],
    {Ecm, Port} = megaphone_test_program:ecm_with(Args, 2, #{}),
    [{nodes, Nodes}, {ecm, Ecm}, {port, Port} | Config].

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        ?assertMatch({0, _}, megaphone_test_program:stop(proplists:get_value(ecm, Config))),
        %% One may be gone.
        [catch megaphone_test_node:stop(Node) || Node <- proplists:get_value(nodes, Config)]
    end).

%% ---- clients ---------------------------------------------------------------------------------------------------

stay(Config, User) ->
    [Node | _] = proplists:get_value(nodes, Config),
    ok = megaphone_test_stay:register(Node, User),
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/bosh", [proplists:get_value(port, Config)])),
    megaphone_test_stay:start(Url, User, ["--wait", "2", "--relogin", "200", "--deadline", "5000"]).

%% BOSH sessions of a node.
sessions(native, Node) -> maps:get(sessions, call(Node, megaphone_nif, bosh_info, []));
sessions(mod_bosh, Node) -> length([Row || Row <- call(Node, ets, tab2list, [bosh]), node(element(4, Row)) =:= call(Node, erlang, node, [])]).

slept(Config, Node) ->
    Asleep = case proplists:get_value(group, Config) of native -> c2s_asleep; mod_bosh -> bosh_asleep end,
    maps:get(Asleep, call(Node, megaphone_sweeper, info, [])).

%% How many connections each node has been given.
opened(Config) ->
    [
        lists:sum([maps:get(opened, Link) || Link <- call(Node, megaphone, links, [])])
     || Node <- proplists:get_value(nodes, Config)
    ].

%% Clients with two connections each.
users(Config) ->
    [stay(Config, User) || User <- ["alice", "bob", "carol"]].

a_session_over_two_nodes(Config) ->
    %% Each client's connections are on both nodes, its session is on one: all that it says and hears comes through, also
    %% when the session sleeps.
    Nodes = proplists:get_value(nodes, Config),
    Users = users(Config),
    ?assertEqual(3, lists:sum([sessions(proplists:get_value(group, Config), Node) || Node <- Nodes])),
    lists:foreach(
        fun(Round) ->
            Text = iolist_to_binary(["round-", integer_to_binary(Round)]),
            [megaphone_test_stay:assert_talk(A, B, Text) || A <- Users, B <- Users, A =/= B]
        end,
        lists:seq(1, 5)
    ),
    ?assert(lists:all(fun(Count) -> Count >= 2 end, opened(Config))),
    ?assert(lists:sum([slept(Config, Node) || Node <- Nodes]) > 0),
    megaphone_test_stay:leave(Users),
    %% Nothing went wrong in either node.
    [
        ?assertEqual({ok, <<>>}, file:read_file(filename:join([Own, "log", "error.log"])))
     || Own <- proplists:get_value(own, Config)
    ].

a_node_dies(Config) ->
    %% A node is killed: whoever had a session there logs in through the other; whoever had not goes on, with the same one.
    [First, #{peer := Peer}] = proplists:get_value(nodes, Config),
    Users = users_of_both(Config, ["alice", "bob", "carol", "dora", "emil", "fred", "gina", "hugo"], []),
    Lost = [User || User <- Users, not is_at(First, User)],
    unlink(Peer),
    exit(Peer, kill),
    Back = [megaphone_test_stay:connected(Program, ?BACK_WITHIN) || {Program, _} <- Lost],
    Now = Back ++ (Users -- Lost),
    [megaphone_test_stay:assert_talk(A, B, <<"still-here">>) || A <- Now, B <- Now, A =/= B],
    megaphone_test_stay:leave(Now).

%% Users until each node has the session of one.
users_of_both(Config, [Name | Names], Users) ->
    [First | _] = proplists:get_value(nodes, Config),
    All = [stay(Config, Name) | Users],
    case lists:usort([is_at(First, User) || User <- All]) of
        [false, true] -> All;
        _ -> users_of_both(Config, Names, All)
    end.

is_at(Node, {_Program, Jid}) ->
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    node(call(Node, ejabberd_sm, get_session_pid, [User, Host, Resource])) =:= call(Node, erlang, node, []).
