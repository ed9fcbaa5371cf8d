%% What an operator sees of Megaphone inside a real ejabberd: commands, the page in the web admin, metrics, with real clients behind
%% the real connection manager.
-module(operator_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3]).

-define(COMMANDS, [
    megaphone_status, megaphone_links, megaphone_connections, megaphone_connection, megaphone_close, megaphone_drain, megaphone_sweep,
    megaphone_memory
]).
-define(HOSTS, [<<"localhost">>, <<"second">>]).
-define(ADMIN, "Authorization: Basic " ++ base64:encode_to_string("admin@localhost:secret")).

%% Users of each kind whose memory is looked at.
-define(USERS, 150).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        commands_are_there_once, commands_go_with_the_last_host, shapes_of_commands,
        status_tells_what_is_there, links_are_listed, connections_come_in_pages, a_connection_is_told_of, a_connection_is_closed,
        a_drained_link_takes_no_further_clients, a_sweep_gives_memory_back,
        wrong_arguments_are_explained, commands_by_http,
        the_page_is_shown, the_page_is_for_administrators, the_page_goes_on,
        metrics_can_be_read, metrics_are_for_some_addresses, the_dashboard_names_metrics_that_are_there,
        memory_adds_up
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = filelib:ensure_dir(filename:join([Dir, "log", "any"])),
    ok = filelib:ensure_dir(filename:join([Dir, "mnesia", "any"])),
    ok = file:write_file(filename:join(Dir, "ejabberd.yml"), configuration()),
    Node = megaphone_test_node:start_in(Dir),
    _ = [ok = megaphone_test_node:register_user(Node, User, <<"secret">>) || User <- [<<"admin">>, <<"somebody">>]],
    [{node, Node} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(node_of(Config)).

%% Two hosts have the module; a link's users keep their memory, unless they are swept.
configuration() ->
    Handlers = "request_handlers: {/bosh: mod_bosh, /admin: ejabberd_web_admin, /api: mod_http_api, /metrics: mod_megaphone}",
    [
        "hosts: [localhost, second]\nloglevel: info\ncertfiles: []\nauth_method: [internal, anonymous]\n",
        "anonymous_protocol: sasl_anon\nallow_multiple_connections: true\n",
        "acl:\n  admin:\n    user: admin@localhost\n",
        "access_rules:\n  configure:\n    allow: admin\n",
        "api_permissions:\n  \"console commands\":\n    from: ejabberd_ctl\n    who: all\n    what: \"*\"\n",
        "  \"by account\":\n    who:\n      user: admin@localhost\n    what: \"*\"\n",
        "listen:\n",
        [["  ", Line, "\n"] || Listener <- [listener(megaphone, 1, [Handlers, "idle_memory: keep"]), listener(ejabberd_http, 2, [Handlers])], Line <- string:split(iolist_to_binary(Listener), "\n", all), Line =/= <<>>],
        "modules:\n  mod_bosh: {}\n  mod_roster: {}\n  mod_disco: {}\n  mod_http_api: {}\n  mod_megaphone: {}\n"
    ].

init_per_testcase(_Case, Config) ->
    Ecm = megaphone_test_ecm:start(address(node_of(Config), megaphone)),
    [{ecm, Ecm} | Config].

%% BOSH sessions would outlive their clients for a while: those end themselves. The manager ends whatever became of them.
end_per_testcase(_Case, Config) ->
    try
        _ = [megaphone_test_http:bosh_end(Socket, Sid, Rid) || {{bosh, Socket}, {Sid, Rid}} <- get()]
    after
        ok = megaphone_test_ecm:stop(proplists:get_value(ecm, Config))
    end,
    megaphone_test:finish_case(Config, fun() ->
        ok = wait_until(fun() -> sessions(Config) =:= 0 andalso call(node_of(Config), ?MODULE, owners, []) =:= [] end),
        megaphone_test_node:assert_quiet(node_of(Config))
    end).

%% ---- being there -----------------------------------------------------------------------------------------------

commands_are_there_once(Config) ->
    %% Each command is registered once, although two hosts have the module.
    ?assertEqual([{Name, 1} || Name <- ?COMMANDS], [{Name, definitions(Name, Config)} || Name <- ?COMMANDS]),
    ?assertEqual(1, hooks(Config)).

commands_go_with_the_last_host(Config) ->
    %% One host gives the module up, and the commands stay; with the other they go, and come again once.
    [First, Second] = ?HOSTS,
    Node = node_of(Config),
    ok = call(Node, gen_mod, stop_module, [First, mod_megaphone]),
    ?assertEqual([1], lists:usort([definitions(Name, Config) || Name <- ?COMMANDS])),
    ?assertEqual(1, hooks(Config)),
    ok = call(Node, gen_mod, stop_module, [Second, mod_megaphone]),
    ?assertEqual([0], lists:usort([definitions(Name, Config) || Name <- ?COMMANDS])),
    ?assertEqual(0, hooks(Config)),
    ?assertMatch({404, _}, get("/metrics", [], Config)),
    _ = [ok = call(Node, gen_mod, start_module, [Host, mod_megaphone]) || Host <- ?HOSTS, _ <- [once, again]],
    ?assertEqual([1], lists:usort([definitions(Name, Config) || Name <- ?COMMANDS])),
    ?assertEqual(1, hooks(Config)).

shapes_of_commands(_Config) ->
    %% A record with further fields gets what ejabberd's own has there; one that is not as its table says gets no commands.
    [Command | _] = megaphone_commands:commands(),
    #{name := Name, desc := Desc} = Command,
    Own = {ejabberd_commands, gen_html_doc_for_commands, extra, "desc", ejabberd, f, [], r},
    Fields = [name, further, desc, module, function, args, result],
    ?assertMatch(
        {ok, [{ejabberd_commands, Name, extra, Desc, megaphone_commands, status, [], _}]},
        megaphone_command_record:make([Command], Fields, Own)
    ),
    ?assertMatch({error, _}, megaphone_command_record:make([Command], Fields -- [result], Own)),
    ?assertMatch({error, _}, megaphone_command_record:make([Command], [further, name | tl(tl(Fields))], Own)),
    ?assertMatch({error, "its record has no field result"}, megaphone_command_record:make([Command], (Fields -- [result]) ++ [other], Own)),
    ?assertMatch({error, _}, megaphone_command_record:make([Command], nothing, Own)).

%% ---- commands --------------------------------------------------------------------------------------------------

status_tells_what_is_there(Config) ->
    %% The figures are those of the users who are there.
    _Users = [websocket(Config), websocket(Config), bosh(Config)],
    ok = wait_until(fun() -> figure("bosh_sessions", status(Config)) =:= 1 end),
    Status = status(Config),
    ?assertEqual({1, 2, 3}, {figure("links", Status), figure("websocket_connections", Status), figure("connections", Status)}).

links_are_listed(Config) ->
    %% A link is there with its number, its peer, and what came by it.
    _User = websocket(Config),
    [[Link, Peer, State, _Age, Connections, Opened, In, Out, Undelivered]] = rows(["megaphone_links"], Config),
    ?assertMatch("127.0.0.1:" ++ _, Peer),
    ?assertEqual({"open", "1", "1", "0"}, {State, Connections, Opened, Undelivered}),
    _ = [?assert(list_to_integer(Number) > 0) || Number <- [Link, In, Out]].

connections_come_in_pages(Config) ->
    %% Pages of three hold each of ten connections once, in any order of users; those of a link, and of all links, are the same.
    Users = [websocket(Config) || _ <- lists:seq(1, 7)] ++ [bosh(Config) || _ <- lists:seq(1, 3)],
    Link = number(Config),
    [One, Other] = [pages(Number, 3, Config) || Number <- ["0", Link]],
    ?assertEqual(length(Users), length(One)),
    ?assertEqual(lists:usort(One), lists:sort(Other)),
    Kinds = [lists:nth(3, Row) || Row <- rows(["megaphone_connections", "0", "0", "1000"], Config)],
    ?assertEqual({7, 3}, {length([Kind || "xmpp" = Kind <- Kinds]), length([Kind || "http" = Kind <- Kinds])}).

a_connection_is_told_of(Config) ->
    %% What is known about the connection of a WebSocket: its client's address and its process, and nothing of what it said.
    {Socket, _Jid} = websocket(Config),
    {ok, {_, Port}} = inet:sockname(Socket),
    [[_, Id | _]] = rows(["megaphone_connections", "0", "0", "10"], Config),
    Known = rows(["megaphone_connection", Id], Config),
    Get = fun(Name) -> [Value] = [Value || [Key, Value] <- Known, Key =:= Name], Value end,
    ?assertEqual({Id, "xmpp", "false", "127.0.0.1:" ++ integer_to_list(Port)}, {Get("id"), Get("kind"), Get("tls"), Get("client")}),
    ?assertEqual(number(Config), Get("link")),
    ?assertMatch("<" ++ _, Get("owner")),
    ?assert(list_to_integer(Get("owner_memory")) > 1000).

a_connection_is_closed(Config) ->
    %% Closing the connection of a WebSocket ends its session and tells its client; of a second one nothing is changed. Then it is unknown.
    {Socket, _} = websocket(Config),
    [[_, Id | _]] = rows(["megaphone_connections", "0", "0", "10"], Config),
    {Other, Jid} = websocket(Config),
    {Said, 0} = ctl(["megaphone_close", Id], Config),
    ?assertEqual("connection " ++ Id ++ " is closed", Said),
    ok = megaphone_test_http:closed(Socket),
    ok = wait_until(fun() -> sessions(Config) =:= 1 end),
    ok = ask(Other, Jid),
    ?assertMatch({"Error: not_exists: there is no connection " ++ _, 10}, ctl(["megaphone_close", Id], Config)),
    ?assertMatch({"Error: not_exists: there is no connection " ++ _, 10}, ctl(["megaphone_connection", Id], Config)).

a_drained_link_takes_no_further_clients(Config) ->
    %% Of a link that drains who is there goes on, and new clients are turned away by a manager that has no other link.
    {Socket, Jid} = websocket(Config),
    {_, 0} = ctl(["megaphone_drain", number(Config)], Config),
    ?assertMatch([[_, _, "draining" | _]], rows(["megaphone_links"], Config)),
    Ecm = proplists:get_value(ecm, Config),
    ok = wait_until(fun() -> [Line || Line <- megaphone_test_ecm:log(Ecm), binary:match(Line, <<"drains">>) =/= nomatch] =/= [] end),
    {_, Port} = megaphone_test_ecm:address(Ecm),
    {New, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    ?assertMatch({503, _}, megaphone_test_http:post(New, "/bosh", "<body/>")),
    ok = ask(Socket, Jid),
    ?assertMatch({"Error: not_exists: there is no link 999: see megaphone_links", 11}, ctl(["megaphone_drain", "999"], Config)).

a_sweep_gives_memory_back(Config) ->
    %% At a listener with `keep' nothing is collected until somebody asks: then each user's session shrinks.
    Node = node_of(Config),
    [{Socket, Jid} | _] = [websocket(Config), bosh(Config)],
    %% Shortly after its start the node collects once by itself.
    ok = ask(Socket, Jid),
    Owners = call(Node, ?MODULE, owners, []),
    ?assertEqual(2, length(Owners)),
    Clean = fun(Pid) -> {_, Info} = call(Node, erlang, process_info, [Pid, garbage_collection_info]), megaphone_sleep:is_clean(Info) end,
    Before = figure("sweeper_collections", status(Config)),
    {_, 0} = ctl(["megaphone_sweep"], Config),
    ok = wait_until(fun() -> lists:all(Clean, Owners) end),
    ?assert(figure("sweeper_collections", status(Config)) > Before),
    %% What one gave back is known a moment later.
    ok = wait_until(fun() -> figure("sweeper_samples", status(Config)) > 0 end),
    ?assert(figure("sweeper_freed_by_one", status(Config)) > 0),
    ?assert(figure("sweeper_users", status(Config)) >= 2).

wrong_arguments_are_explained(Config) ->
    %% Each wrong argument gets a text that says what is right, and an exit code that is not 0.
    Cases = [
        {["megaphone_connection", "nonsense"], "is no id of a connection"}, {["megaphone_close", "1.2.3"], "is no id of a connection"},
        {["megaphone_close", "1.2.3.-4"], "is no id of a connection"}, {["megaphone_close", "1.2.3.99999999999999999999999"], "is no id of a connection"},
        {["megaphone_connections", "0", "0", "0"], "limit has to be from 1 to 1000"}, {["megaphone_connections", "0", "0", "1001"], "limit has to be from 1 to 1000"},
        {["megaphone_connections", "0", "-1", "10"], "behind has to be 0"}, {["megaphone_connections", "777", "0", "10"], "there is no link 777"},
        {["megaphone_close", "4000000000.7.1.1"], "there is no connection"}
    ],
    lists:foreach(
        fun({Arguments, Expected}) ->
            {Text, Code} = ctl(Arguments, Config),
            ?assertNotEqual(nomatch, string:find(Text, Expected), {Arguments, Text}),
            ?assert(Code > 0)
        end,
        Cases
    ),
    ?assertEqual([], pages("0", 5, Config)).

commands_by_http(Config) ->
    %% The same commands by mod_http_api: figures are numbers, errors have a status, and an account without the right gets nothing.
    _User = websocket(Config),
    {200, Status} = post("/api/megaphone_status", "{}", Config),
    ?assertMatch(#{<<"links">> := 1, <<"websocket_connections">> := 1}, json(Status, Config)),
    {200, Connections} = post("/api/megaphone_connections", "{\"link\": 0, \"behind\": 0, \"limit\": 10}", Config),
    [#{<<"id">> := Id, <<"kind">> := <<"xmpp">>}] = json(Connections, Config),
    {200, _} = post("/api/megaphone_connection", ["{\"id\": \"", Id, "\"}"], Config),
    {200, Memory} = post("/api/megaphone_memory", "{}", Config),
    ?assertMatch(#{<<"websocket_users">> := 1}, json(Memory, Config)),
    lists:foreach(
        fun(Given) ->
            {400, Wrong} = post("/api/megaphone_connection", ["{\"id\": \"", Given, "\"}"], Config),
            ?assertNotEqual(nomatch, binary:match(Wrong, <<"is no id of a connection">>))
        end,
        ["nonsense", "", <<"\x{20ac}\x{fc}"/utf8>>, lists:duplicate(100000, $1)]
    ),
    ?assertMatch({404, _}, post("/api/megaphone_drain", "{\"link\": 999}", Config)),
    ?assertMatch({200, _}, post("/api/megaphone_close", ["{\"id\": \"", Id, "\"}"], Config)),
    Somebody = "Authorization: Basic " ++ base64:encode_to_string("somebody@localhost:secret"),
    ?assertMatch({403, _}, request("POST", "/api/megaphone_status", [Somebody], "{}", Config)).

%% ---- the page --------------------------------------------------------------------------------------------------

the_page_is_shown(Config) ->
    %% The menu of the node leads to the page; on it are the link, the connection and the memory, and what is not known in advance is escaped.
    {Socket, _} = websocket(Config),
    {ok, {_, Port}} = inet:sockname(Socket),
    {200, Menu} = get(node_path(Config), [?ADMIN], Config),
    ?assertMatch({match, _}, re:run(Menu, "<a href='[^']*megaphone/'")),
    {200, Page} = get([node_path(Config), "megaphone/"], [?ADMIN], Config),
    Shown = ["<h1>Megaphone ", "127.0.0.1:" ++ integer_to_list(Port), "WebSocket users", "websocket processes", "xmpp", "mgp-bar"],
    _ = [?assertNotEqual(nomatch, string:find(Page, Text), Text) || Text <- Shown],
    %% The process of the connection is written with brackets.
    ?assertMatch({match, _}, re:run(Page, "<td>&lt;[0-9.]+&gt;</td>")),
    ?assertEqual(nomatch, re:run(Page, "(src|href)=['\"]?https?://[^'\"]*megaphone")).

the_page_is_for_administrators(Config) ->
    %% Without a login, or with that of somebody else, there is no page.
    Somebody = "Authorization: Basic " ++ base64:encode_to_string("somebody@localhost:secret"),
    _ = [?assertMatch({401, _}, get([node_path(Config), "megaphone/"], Login, Config)) || Login <- [[], [Somebody]]].

the_page_goes_on(Config) ->
    %% More connections than a page has are on the next ones, and a wrong place is the first.
    Link = megaphone_test_xmpp:new_link(address(node_of(Config), megaphone)),
    Open = fun(Id) -> ok = megaphone_test_link:send(Link, {open, Id, 2, 0, {{192, 0, 2, 1}, 1000 + Id}, {{198, 51, 100, 1}, 443}}) end,
    lists:foreach(Open, lists:seq(1, 70)),
    ok = wait_until(fun() -> figure("connections", status(Config)) =:= 70 end),
    {200, First} = get([node_path(Config), "megaphone/"], [?ADMIN], Config),
    {match, [Next]} = re:run(First, "href='(\\?behind=[0-9]+/)'>next page", [{capture, all_but_first, list}]),
    {200, Second} = get([node_path(Config), "megaphone/", Next], [?ADMIN], Config),
    ?assertEqual(70, length(lists:usort(clients(First) ++ clients(Second)))),
    ?assertEqual({50, 20}, {length(clients(First)), length(clients(Second))}),
    {200, Wrong} = get([node_path(Config), "megaphone/?behind=wrong/"], [?ADMIN], Config),
    ?assertEqual(clients(First), clients(Wrong)),
    ok = megaphone_test_link:disconnect(Link).

clients(Page) ->
    case re:run(Page, "192\\.0\\.2\\.1:[0-9]+", [global, {capture, first, list}]) of
        {match, Found} -> [Client || [Client] <- Found];
        nomatch -> []
    end.

%% ---- metrics ---------------------------------------------------------------------------------------------------

metrics_can_be_read(Config) ->
    %% Each sample has the name of a metric with a type and a help, and a number; users are counted by their kind.
    _Users = [websocket(Config), bosh(Config)],
    {Types, Samples} = metrics(Config),
    _ = [?assert(is_map_key(Name, Types), Name) || {Name, _, _} <- Samples],
    ?assertEqual([], [Name || {Name, counter} <- maps:to_list(Types), not lists:suffix("_total", Name)]),
    Value = fun(Name, Labels) -> [Number] = [Number || {N, L, Number} <- Samples, N =:= Name, L =:= Labels], Number end,
    ?assertEqual(1.0, Value("megaphone_ejabberd_users", "{kind=\"websocket\"}")),
    ?assertEqual(1.0, Value("megaphone_ejabberd_users", "{kind=\"bosh\"}")),
    ?assertEqual(1.0, Value("megaphone_ejabberd_links", "")),
    ?assert(Value("process_resident_memory_bytes", "") > 1.0e7),
    Parts = lists:sum([Number || {"megaphone_ejabberd_memory_bytes", _, Number} <- Samples]),
    ?assertEqual(Value("megaphone_ejabberd_memory_total_bytes", ""), Parts).

metrics_are_for_some_addresses(Config) ->
    %% Who comes from elsewhere is refused, also through a link, and let in when any host allows that network.
    Node = node_of(Config),
    Get = fun() -> through_link({192, 0, 2, 44}, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", Config) end,
    ?assertMatch(<<"HTTP/1.1 403 ", _/binary>>, Get()),
    ok = call(Node, ?MODULE, allow, [<<"second">>, [{{192, 0, 2, 0}, 24}]]),
    ?assertMatch(<<"HTTP/1.1 200 ", _/binary>>, Get()),
    ok = call(Node, ?MODULE, allow, [<<"second">>, [{{127, 0, 0, 0}, 8}]]),
    ?assertMatch(<<"HTTP/1.1 403 ", _/binary>>, Get()),
    ?assertMatch({405, _}, post("/metrics", "x", Config)),
    ?assertMatch({404, _}, get("/metrics/other", [], Config)).

the_dashboard_names_metrics_that_are_there(Config) ->
    %% Every metric in the dashboard for Grafana is one that is exposed, and the file is JSON.
    {Types, _} = metrics(Config),
    {ok, Text} = file:read_file(filename:join([root(), "docs", "grafana-megaphone.json"])),
    #{<<"panels">> := Panels} = json(Text, Config),
    {match, Found} = re:run(Text, "(?:megaphone_ejabberd|process)_[a-z_]+", [global, {capture, first, list}]),
    Names = lists:usort([Name || [Name] <- Found]),
    ?assert(length(Panels) > 5 andalso length(Names) > 10),
    ?assertEqual([], [Name || Name <- Names, not is_map_key(Name, Types)]).

%% ---- memory ----------------------------------------------------------------------------------------------------

memory_adds_up(Config) ->
    %% With some hundred users the parts are within 5 % of erlang:memory(total) and of the resident memory; what is told of client
    %% sessions and other processes is what the processes say themselves.
    _Users = [Login(Config) || Login <- [fun websocket/1, fun bosh/1], _ <- lists:seq(1, ?USERS)],
    Node = node_of(Config),
    #{rss := Rss, total := Total, parts := Parts, beyond := Beyond, users := Users, checked := Checked} = call(Node, ?MODULE, memory, []),
    ?assertMatch(#{websocket := #{users := ?USERS, asked := ?USERS}, bosh := #{users := ?USERS, asked := ?USERS}}, Users),
    ok = near(Total, lists:sum([Bytes || {_, Bytes} <- Parts])),
    ok = near(Total, maps:get(vm_total, Checked)),
    ok = near(Rss, maps:get(statm, Checked)),
    %% Nothing much is left unexplained in either.
    Explained = lists:keydelete(unaccounted, 1, Beyond),
    ct:log("~p ~p ~p~n~p~n~p", [Total, Rss, Checked, Parts, Beyond]),
    ok = near(Rss, Total + lists:sum([Bytes || {_, Bytes} <- Explained])),
    ?assertEqual(Rss, Total + lists:sum([Bytes || {_, Bytes} <- Beyond])),
    Part = fun(Name) -> proplists:get_value(Name, Parts) end,
    ok = near(maps:get(sessions, Checked), Part(websocket_processes) + Part(bosh_processes)),
    %% The VM counts its table of processes there, too: 12 bytes for each that there may be.
    Table = 12 * call(Node, erlang, system_info, [process_limit]),
    ?assert(abs(maps:get(other_processes, Checked) + Table - Part(other_processes)) < Total / 20),
    ?assert(Part(other_system) >= 0).

near(Expected, Value) ->
    ?assert(abs(Expected - Value) =< Expected * 0.05, {Expected, Value}),
    ok.

%% In the node: the report, and the same by other ways.
memory() ->
    _ = [garbage_collect(Pid) || Pid <- processes()],
    Report = megaphone_memory:report(100000),
    Owners = owners(),
    Of = fun(Pids) -> lists:sum([Bytes || Pid <- Pids, {memory, Bytes} <- [process_info(Pid, memory)]]) end,
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Statm, <<" ">>, [global]),
    Report#{
        checked => #{
            vm_total => erlang:memory(total), statm => binary_to_integer(Pages) * 4096, sessions => Of(Owners),
            other_processes => Of(processes() -- Owners)
        }
    }.

%% ---- helpers ---------------------------------------------------------------------------------------------------

node_of(Config) -> proplists:get_value(node, Config).

%% In the node: the client sessions of all users.
owners() ->
    owners(megaphone_walk:start()).

owners(ended) ->
    [];
owners(Place) ->
    {Users, Next} = megaphone_walk:step(Place, 100),
    [Pid || {_, Pid, _} <- Users] ++ owners(Next).

%% In the node: changes the option of a host, as a new configuration would.
allow(Host, Networks) ->
    ok = gen_mod:update_module(Host, mod_megaphone, #{metrics_allow => Networks}).

definitions(Name, Config) ->
    length(call(node_of(Config), mnesia, dirty_read, [ejabberd_commands, Name])).

%% How often the menu of a node has the page.
hooks(Config) ->
    Items = call(node_of(Config), ejabberd_hooks, run_fold, [webadmin_menu_node, [], [node(), <<"en">>]]),
    length([Name || {<<"megaphone">>, Name} <- Items]).

sessions(Config) ->
    call(node_of(Config), ets, info, [session, size]).

%% A command as ejabberdctl gives it: what it prints, and its exit code.
ctl(Arguments, Config) ->
    {Text, Code} = call(node_of(Config), ejabberd_ctl, process2, [Arguments, []]),
    {lists:flatten(Text), Code}.

rows(Arguments, Config) ->
    {Text, 0} = ctl(Arguments, Config),
    [string:split(Line, "\t", all) || Line <- string:lexemes(Text, "\n")].

status(Config) -> rows(["megaphone_status"], Config).

figure(Name, Rows) ->
    [Number] = [Number || [Key, Number] <- Rows, Key =:= Name],
    list_to_integer(Number).

number(Config) ->
    [[Link | _]] = rows(["megaphone_links"], Config),
    Link.

%% The ids of all connections, so many at a time.
pages(Link, Limit, Config) -> pages(Link, "0", Limit, Config).

pages(Link, Behind, Limit, Config) ->
    case rows(["megaphone_connections", Link, Behind, integer_to_list(Limit)], Config) of
        Rows when length(Rows) < Limit -> [Id || [_, Id | _] <- Rows];
        Rows -> [Id || [_, Id | _] <- Rows] ++ pages(Link, hd(lists:last(Rows)), Limit, Config)
    end.

%% Users who are logged in.
websocket(Config) ->
    {_, Port} = megaphone_test_ecm:address(proplists:get_value(ecm, Config)),
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    {Socket, megaphone_test_http:websocket_login(Socket)}.

bosh(Config) ->
    {_, Port} = megaphone_test_ecm:address(proplists:get_value(ecm, Config)),
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    {Sid, Jid, Rid} = megaphone_test_http:bosh_login(Socket),
    _ = put({bosh, Socket}, {Sid, Rid}),
    {Socket, Jid}.

%% A question to the server, and its answer.
ask(Socket, Jid) ->
    ok = megaphone_test_http:text(Socket, [
        "<iq xmlns='jabber:client' type='get' id='asked' to='localhost' from='", Jid, "'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
    ]),
    _ = megaphone_test_http:until(Socket, "asked"),
    ok.


get(Path, Fields, Config) -> request("GET", Path, Fields, "", Config).

post(Path, Body, Config) -> request("POST", Path, [?ADMIN], Body, Config).

%% At ejabberd's own HTTP listener.
request(Method, Path, Fields, Body, Config) ->
    {Ip, Port} = address(node_of(Config), ejabberd_http),
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, [
        Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ", integer_to_list(iolist_size(Body)), "\r\n",
        [[Field, "\r\n"] || Field <- Fields], "\r\n", Body
    ]),
    Answer = megaphone_test_http:read(Socket),
    ok = gen_tcp:close(Socket),
    Answer.

%% A request of a client with this address, as a connection manager would bring it: its answer.
through_link(Ip, Request, Config) ->
    Link = megaphone_test_link:connect(address(node_of(Config), megaphone)),
    ok = megaphone_test_link:send(Link, [megaphone_test_link:open(1, {Ip, 50000}, {{198, 51, 100, 1}, 443}), {data, 1, Request}]),
    {data, 1, Answer} = megaphone_test_link:next(Link),
    ok = megaphone_test_link:disconnect(Link),
    Answer.

node_path(Config) ->
    "/admin/node/" ++ atom_to_list(call(node_of(Config), erlang, node, [])) ++ "/".

%% Types by name, and samples.
metrics(Config) ->
    {200, Text} = get("/metrics", [], Config),
    Lines = string:lexemes(binary_to_list(Text), "\n"),
    Types = maps:from_list([{Name, list_to_atom(Type)} || "# TYPE " ++ Rest <- Lines, [Name, Type] <- [string:lexemes(Rest, " ")]]),
    Helps = [hd(string:lexemes(Rest, " ")) || "# HELP " ++ Rest <- Lines],
    ?assertEqual(lists:sort(maps:keys(Types)), lists:sort(Helps)),
    Samples = [
        begin
            {match, [Name, Labels, Number]} = re:run(Line, "^([a-z_]+)(\\{[^}]*\\})? (-?[0-9.]+)$", [{capture, all_but_first, list}]),
            {Name, Labels, float(element(1, case string:to_float(Number) of {error, _} -> string:to_integer(Number); Float -> Float end))}
        end
     || [First | _] = Line <- Lines, First =/= $#
    ],
    {Types, Samples}.

%% As a map, by the library that this ejabberd has.
json(Text, Config) ->
    case call(node_of(Config), code, which, [jiffy]) of
        non_existing -> call(node_of(Config), misc, json_decode, [Text]);
        _ -> call(node_of(Config), jiffy, decode, [Text, [return_maps]])
    end.

%% The root of the project, or of what a leg of the matrix has of it.
root() ->
    Parents = fun Up(Dir) -> case filename:dirname(Dir) of Dir -> [Dir]; Above -> [Dir | Up(Above)] end end,
    hd([Dir || Dir <- Parents(filename:dirname(filename:absname(code:which(?MODULE)))), filelib:is_regular(filename:join([Dir, "docs", "grafana-megaphone.json"]))]).
