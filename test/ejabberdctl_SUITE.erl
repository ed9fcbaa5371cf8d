%% The commands of mod_megaphone as an operator types them: the real program ejabberdctl, what it prints and its exit code, against a
%% real ejabberd, with real clients behind the real connection manager. What the commands do is looked at in operator_SUITE.
-module(ejabberdctl_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4]).

%% Each of them with its arguments, as the help shows them.
-define(COMMANDS, [
    "megaphone_status", "megaphone_links", "megaphone_connections link behind limit", "megaphone_connection id", "megaphone_close id",
    "megaphone_drain link", "megaphone_sweep", "megaphone_memory"
]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        figures_are_printed, from_a_link_to_a_closed_connection, pages_are_turned, a_link_is_drained, a_sweep_begins,
        wrong_values_are_explained, wrong_numbers_of_arguments_are_explained, there_is_help,
        other_nodes_are_not_reached
    ].

%% Of the rights of commands the stock configuration's.
init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, [megaphone_test_node:listener(megaphone, 1, [megaphone_test_node:handlers(), "idle_memory: keep"])]),
    ok = megaphone_test_node:change_config(Dir, "  all:\n    who: all\n", "  \"console commands\":\n    from:\n      - ejabberd_ctl\n    who: all\n"),
    ok = megaphone_test_node:change_config(Dir, "modules:\n", "modules:\n  mod_megaphone: {}\n"),
    Node = megaphone_test_node:start_in(Dir, megaphone_test_ctl:names()),
    [{node, Node}, {ctl, megaphone_test_ctl:prepare(Node)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(node_of(Config)).

init_per_testcase(_Case, Config) ->
    [{ecm, megaphone_test_ecm:start(address(node_of(Config), megaphone))} | Config].

end_per_testcase(_Case, Config) ->
    ok = megaphone_test_ecm:stop(proplists:get_value(ecm, Config)),
    megaphone_test:finish_case(Config, fun() ->
        ok = wait_until(fun() -> call(node_of(Config), ets, info, [session, size]) =:= 0 end),
        megaphone_test_node:assert_quiet(node_of(Config))
    end).

%% ---- what is right ---------------------------------------------------------------------------------------------

figures_are_printed(Config) ->
    %% Status and memory are lines of a name and a number, among them those of the users who are there.
    _Users = [websocket(Config), websocket(Config)],
    [Status, Memory] = [numbers(rows([Name], Config)) || Name <- ["megaphone_status", "megaphone_memory"]],
    ?assertMatch(#{"links" := 1, "connections" := 2, "websocket_connections" := 2, "bosh_sessions" := 0}, Status),
    ?assertMatch(#{"websocket_users" := 2, "bosh_users" := 0}, Memory),
    #{"total" := Total, "websocket_processes" := Processes, "websocket_user_process" := Process} = Memory,
    ?assert(Process > 1000 andalso Processes >= Process andalso Total > Processes).

from_a_link_to_a_closed_connection(Config) ->
    %% What one command prints is what the next one takes: from the link to its connection, what is known about it, and its end, of
    %% which its client is told. Then it is unknown, by an exit code of its own.
    Socket = websocket(Config),
    {ok, {_, Port}} = inet:sockname(Socket),
    Client = "127.0.0.1:" ++ integer_to_list(Port),
    [[Link, "127.0.0.1:" ++ _, "open", _Age, "1", "1", _In, _Out, "0"]] = rows(["megaphone_links"], Config),
    [[Place, Id, "xmpp", Client, "false", _Idle, "0", "0", "<" ++ _ = Owner]] = rows(["megaphone_connections", Link, "0", "10"], Config),
    ?assert(list_to_integer(Place) > 0),
    Known = rows(["megaphone_connection", Id], Config),
    ?assertEqual([], [{"id", Id}, {"kind", "xmpp"}, {"client", Client}, {"link", Link}, {"owner", Owner}] -- [{Name, Value} || [Name, Value] <- Known]),
    ?assertEqual({0, "connection " ++ Id ++ " is closed"}, ctl(["megaphone_close", Id], Config)),
    ok = megaphone_test_http:closed(Socket),
    Unknown = {10, "Error: not_exists: there is no connection " ++ Id ++ " (any more)"},
    ?assertEqual([Unknown, Unknown], all([["megaphone_close", Id], ["megaphone_connection", Id]], Config)),
    ?assertEqual({0, ""}, ctl(["megaphone_connections", Link, "0", "10"], Config)).

pages_are_turned(Config) ->
    %% With `place' of the last row of a page the next one begins; a page with fewer rows than asked for is the last.
    _Users = [websocket(Config) || _ <- lists:seq(1, 5)],
    Whole = rows(["megaphone_connections", "0", "0", "6"], Config),
    First = rows(["megaphone_connections", "0", "0", "3"], Config),
    Second = rows(["megaphone_connections", "0", hd(lists:last(First)), "3"], Config),
    ?assertEqual({5, 3, 2}, {length(Whole), length(First), length(Second)}),
    ?assertEqual(ids(Whole), ids(First) ++ ids(Second)).

ids(Rows) -> [Id || [_Place, Id | _] <- Rows].

a_link_is_drained(Config) ->
    %% A link that drains is listed as such, and the connection manager's log says so.
    [[Link | _]] = rows(["megaphone_links"], Config),
    ?assertEqual({0, "the connection manager of link " ++ Link ++ " was asked to open no further connections there"}, ctl(["megaphone_drain", Link], Config)),
    ?assertMatch([[Link, _, "draining" | _]], rows(["megaphone_links"], Config)),
    Ecm = proplists:get_value(ecm, Config),
    ok = wait_until(fun() -> [Line || Line <- megaphone_test_ecm:log(Ecm), binary:match(Line, <<"drains">>) =/= nomatch] =/= [] end).

a_sweep_begins(Config) ->
    %% At a listener that keeps the memory of idle users a sweep is begun, and counted.
    _User = websocket(Config),
    #{"sweeper_collections" := Before} = numbers(rows(["megaphone_status"], Config)),
    ?assertEqual({0, "a walk through all users of Megaphone has begun: those who are idle give their memory back"}, ctl(["megaphone_sweep"], Config)),
    ok = wait_until(fun() -> maps:get(collected, call(node_of(Config), megaphone_sweeper, info, [])) > Before end).

%% ---- what is wrong ---------------------------------------------------------------------------------------------

wrong_values_are_explained(Config) ->
    %% Each wrong value, however a shell may quote it, has its text and its exit code; no client notices any of them.
    Socket = websocket(Config),
    Id = fun(Shown) -> {1, "{error,\"'" ++ Shown ++ "' is no id of a connection: those of megaphone_connections look like 1.4294967296.17.3\"}"} end,
    Limit = {1, "{error,\"limit has to be from 1 to 1000; for further connections give `place' of the last one as `behind'\"}"},
    Cases = [
        {["megaphone_connection", "nonsense"], Id("nonsense")},
        {["megaphone_close", ""], Id("")},
        {["megaphone_close", "it's $HOME; `exit 7` *"], Id("it's $HOME; `exit 7` *")},
        {["megaphone_close", [$1, $., 16#fc, 16#20ac]], Id("1.")},
        {["megaphone_close", "4000000000.7.1.1"], {10, "Error: not_exists: there is no connection 4000000000.7.1.1 (any more)"}},
        {["megaphone_drain", "999"], {11, "Error: not_exists: there is no link 999: see megaphone_links"}},
        {["megaphone_connections", "999", "0", "10"], {11, "Error: not_exists: there is no link 999: see megaphone_links"}},
        {["megaphone_connections", "0", "0", "0"], Limit},
        {["megaphone_connections", "0", "0", "1001"], Limit},
        {["megaphone_connections", "0", "-1", "10"], {1, "{error,\"behind has to be 0, or `place' of a connection in an answer before\"}"}}
    ],
    {Calls, Expected} = lists:unzip(Cases),
    ?assertEqual(Expected, all(Calls, Config)),
    %% That a number is none ejabberd finds itself.
    {1, _} = ctl(["megaphone_drain", "all"], Config),
    ?assertMatch([[_, _, "open", _, "1" | _]], rows(["megaphone_links"], Config)),
    ok = megaphone_test_http:text(Socket, "<iq xmlns='jabber:client' type='get' id='asked' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"),
    _ = megaphone_test_http:until(Socket, "asked").

wrong_numbers_of_arguments_are_explained(Config) ->
    %% Too few and too many arguments are refused with how many are wrong, and the help of the command.
    Cases = [
        {["megaphone_close"], "'megaphone_close' requires 1 "}, {["megaphone_connections", "0"], "'megaphone_connections' requires 2 "},
        {["megaphone_sweep", "now"], "'megaphone_sweep' requires 1 "}
    ],
    lists:foreach(
        fun({{[Command | _] = Call, Expected}, {Code, Text}}) ->
            ?assertEqual(usage_code(), Code, Call),
            _ = [?assertNotEqual(nomatch, string:find(plain(Text), Part), {Call, Text}) || Part <- ["Command Name: " ++ Command, Expected]]
        end,
        lists:zip(Cases, all([Call || {Call, _} <- Cases], Config))
    ).

%% 26.07 has a code of its own for it.
usage_code() ->
    case megaphone_test_node:version() > [24, 12] of
        true -> 2;
        false -> 1
    end.

there_is_help(Config) ->
    %% The help lists all commands with their arguments, and has that of each one.
    {0, List} = ctl(["help", "megaphone*"], Config),
    Lines = string:lexemes(plain(List), "\n"),
    ?assertEqual(lists:sort(?COMMANDS), lists:sort([string:trim(Line) || "  megaphone" ++ _ = Line <- Lines])),
    Names = [hd(string:lexemes(Command, " ")) || Command <- ?COMMANDS],
    Helps = all([["help", Name] || Name <- Names], Config),
    ?assertEqual([0], lists:usort([Code || {Code, _} <- Helps])),
    _ = [?assertNotEqual(nomatch, string:find(plain(Text), "Command Name: " ++ Name)) || {Name, {_, Text}} <- lists:zip(Names, Helps)].

other_nodes_are_not_reached(Config) ->
    %% A node that is not there is an exit code of its own, and so is a command whose module no host has.
    {3, Text} = ctl(["--node", "nobody@127.0.0.1", "megaphone_status"], Config),
    ?assertNotEqual(nomatch, string:find(Text, "Failed RPC connection to the node 'nobody@127.0.0.1': nodedown")),
    ok = call(node_of(Config), gen_mod, stop_module, [<<"localhost">>, mod_megaphone]),
    {1, Unknown} = ctl(["megaphone_status"], Config),
    ok = call(node_of(Config), gen_mod, start_module, [<<"localhost">>, mod_megaphone]),
    ?assertNotEqual(nomatch, string:find(Unknown, "unknown command 'megaphone_status'")),
    ?assertMatch(#{"links" := 1}, numbers(rows(["megaphone_status"], Config))).

%% ---- helpers ---------------------------------------------------------------------------------------------------

node_of(Config) -> proplists:get_value(node, Config).

ctl(Arguments, Config) -> megaphone_test_ctl:run(proplists:get_value(ctl, Config), Arguments).

all(Calls, Config) -> megaphone_test_ctl:run_all(proplists:get_value(ctl, Config), Calls).

rows(Arguments, Config) -> megaphone_test_ctl:rows(proplists:get_value(ctl, Config), Arguments).

numbers(Rows) -> maps:from_list([{Name, list_to_integer(Number)} || [Name, Number] <- Rows]).

%% Without what makes a terminal show it in colours.
plain(Text) -> lists:flatten(re:replace(Text, "\e\\[[0-9;]*m", "", [global, unicode, {return, list}])).

%% A user who is logged in.
websocket(Config) ->
    {_, Port} = megaphone_test_ecm:address(proplists:get_value(ecm, Config)),
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    _Jid = megaphone_test_http:websocket_login(Socket),
    Socket.
