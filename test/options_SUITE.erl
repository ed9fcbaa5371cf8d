%% The options of the listener: wrong ones stop ejabberd's start with ejabberd's usual message for that option, right
%% ones do what they say.
-module(options_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_link, [connect/1, connect_raw/1, send/2, next/1, ask/3, answer/2, hello/0, open/1, get_request/1, disconnect/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        wrong_options_stop_the_start,
        defaults,
        custom_headers_are_sent,
        address_of_a_proxy,
        send_timeout_ends_a_link,
        unix_domain_socket,
        changed_by_a_reload
    ].

init_per_suite(Config) -> Config.
end_per_suite(_Config) -> ok.

init_per_testcase(wrong_options_stop_the_start, Config) ->
    Config;
init_per_testcase(Case, Config) ->
    Dir = filename:join([proplists:get_value(priv_dir, Config), ?MODULE, Case]),
    Socket = megaphone_test_node:socket_file(Dir),
    ok = megaphone_test_node:write_config(Dir, [
        listener(megaphone, 1, [handlers(), "custom_headers: {X-Custom: yes it is}", "tag: a tag"]),
        listener(megaphone, 2, [handlers(), "use_proxy_protocol: true"]),
        listener(megaphone, 3, [handlers(), "send_timeout: 1"]),
        megaphone_test_node:unix_listener(Socket),
        %% The last, because ejabberd takes every address after a listener without one for the same address.
        "- port: 0\n  module: megaphone\n"
    ]),
    Node = megaphone_test_node:start_in(Dir),
    [{node, Node}, {socket, Socket} | Config].

end_per_testcase(wrong_options_stop_the_start, _Config) ->
    ok;
end_per_testcase(_Case, Config) ->
    Node = proplists:get_value(node, Config),
    Answer = megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_quiet(Node) end),
    ok = megaphone_test_node:stop(Node),
    ok = megaphone_test_node:delete_socket(proplists:get_value(socket, Config)),
    Answer.

%% ---- wrong options ---------------------------------------------------------------------------------------------

wrong_options_stop_the_start(Config) ->
    %% Each option, given a wrong value, and an option that does not exist, stop the start: ejabberd names the listener's
    %% option and what is wrong with it, and its program ends. With right values it starts.
    Dir = proplists:get_value(priv_dir, Config),
    Right = "request_handlers: {/bosh: mod_bosh}",
    Cases = [
        {listener(megaphone, 1, ["colour: red"]), ["colour"]},
        {listener(megaphone, 1, ["request_handlers: [mod_bosh]"]), ["request_handlers"]},
        {listener(megaphone, 1, ["request_handlers: {/bosh: no_such_module}"]), ["request_handlers", "no_such_module"]},
        {listener(megaphone, 1, ["request_handlers: {/bosh: lists}"]), ["request_handlers", "lists"]},
        {listener(megaphone, 1, [Right, "custom_headers: [1]"]), ["custom_headers"]},
        {listener(megaphone, 1, [Right, "tag: [1]"]), ["tag"]},
        {listener(megaphone, 1, [Right, "supervisor: perhaps"]), ["supervisor"]},
        {listener(megaphone, 1, [Right, "send_timeout: never ever"]), ["send_timeout"]},
        {listener(megaphone, 1, [Right, "backlog: -1"]), ["backlog"]},
        {listener(megaphone, 1, [Right, "accept_interval: x"]), ["accept_interval"]},
        {listener(megaphone, 1, [Right, "use_proxy_protocol: x"]), ["use_proxy_protocol"]},
        {listener(megaphone, 1, [Right, "bosh: perhaps"]), ["bosh"]},
        {listener(megaphone, 1, [Right, "max_inactivity: never ever"]), ["max_inactivity"]},
        {listener(megaphone, 1, [Right, "max_pause: never ever"]), ["max_pause"]},
        {listener(megaphone, 1, [Right, "max_concat: 0"]), ["max_concat"]},
        {listener(megaphone, 1, [Right, "prebind: true"]), ["prebind", "mod_bosh"]},
        {"- port: 0\n  ip: \"nowhere\"\n  module: megaphone\n", ["ip"]},
        {"- port: 65536\n  module: megaphone\n", ["port"]},
        {"- module: megaphone\n", ["port"]},
        {"- port: 0\n  module: megaphon\n", ["megaphon"]},
        {listener(megaphone, 1, [Right, "custom_headers: {A: b}", "tag: t", "supervisor: true", "send_timeout: infinity", "backlog: 5", "bosh: native", "max_inactivity: 10", "max_pause: 1 minute", "max_concat: 7", "prebind: false"]), started}
    ],
    %% In two lines, because each start takes a second of one processor.
    Self = self(),
    Lines = [
        spawn_link(fun() -> Self ! {self(), [{Case, start(Dir, Yaml, 2 * N + Line)} || {N, {Yaml, _} = Case} <- lists:enumerate(half(Line, Cases))]} end)
     || Line <- [0, 1]
    ],
    Results = lists:append([element(2, receive {Pid, _} = Result -> Result end) || Pid <- Lines]),
    lists:foreach(
        fun
            ({{_, started}, {Status, _, _}}) ->
                ?assertEqual(42, Status);
            ({{Yaml, Texts}, {Status, Output, Log}}) ->
                Said = <<Output/binary, Log/binary>>,
                ?assertEqual({Yaml, 1}, {Yaml, Status}),
                ?assertEqual({Yaml, Said, []}, {Yaml, Said, [Text || Text <- Texts, string:find(Said, Text) =:= nomatch]}),
                ?assertNotEqual({Yaml, nomatch}, {Yaml, re:run(Said, "critical|error", [caseless])})
        end,
        Results
    ).

half(Line, Cases) ->
    [Case || {N, Case} <- lists:enumerate(Cases), N rem 2 =:= Line].

%% A program of its own: exit status, output and log.
start(Dir, Yaml, Number) ->
    Own = filename:join([Dir, ?MODULE, integer_to_list(Number)]),
    ok = megaphone_test_node:write_config(Own, [Yaml]),
    {Status, Output} = megaphone_test_program:run(
        os:find_executable("erl"),
        megaphone_test_node:arguments() ++ ["-noshell", "-noinput", "-run", "megaphone_test_node", "halted", Own],
        #{env => [{"ERL_LIBS", megaphone_test_node:ejabberd_libs()}, {"ERL_CRASH_DUMP", filename:join(Own, "erl_crash.dump")}], cd => Own}
    ),
    {Status, Output, megaphone_test_node:log(#{dir => Own})}.

%% ---- right options ---------------------------------------------------------------------------------------------

defaults(Config) ->
    %% Without options a listener takes links on 127.0.0.1 only, and answers 404 to every request.
    Node = proplists:get_value(node, Config),
    Address = {Ip, _} = address(Node, {megaphone, 4}),
    ?assertEqual({127, 0, 0, 1}, Ip),
    Link = connect(Address),
    ?assertMatch({404, _, {ready, 1, 0}}, ask(Link, 1, "/test/echo")),
    ok = disconnect(Link).

custom_headers_are_sent(Config) ->
    %% custom_headers are in the answers of this listener and of no other.
    Node = proplists:get_value(node, Config),
    Heads = [
        begin
            Link = connect(address(Node, {megaphone, N})),
            ok = send(Link, [open(1), {data, 1, get_request("/nowhere")}]),
            {data, 1, Head} = next(Link),
            ok = disconnect(Link),
            binary:match(Head, <<"\r\nX-Custom: yes it is\r\n">>) =/= nomatch
        end
     || N <- [1, 3]
    ],
    ?assertEqual([true, false], Heads).

address_of_a_proxy(Config) ->
    %% With use_proxy_protocol the link has the address that a proxy says; clients keep theirs.
    Node = proplists:get_value(node, Config),
    {Ip, Port} = address(Node, {megaphone, 2}),
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {packet, 4}, {active, false}]),
    ok = megaphone_test_link:send_bytes(Socket, <<"PROXY TCP4 192.0.2.99 127.0.0.1 4711 6280\r\n">>),
    ok = send(Socket, hello()),
    {hello, 2, 1, _, _, _} = next(Socket),
    ?assertMatch([#{peer := <<"192.0.2.99:4711">>}], call(Node, megaphone, links, [])),
    {200, Body, {ready, 1, 0}} = ask(Socket, 1, "/test/echo"),
    ?assertEqual(megaphone_test_handler:echo('GET', <<"/test/echo">>, <<>>, {{192, 0, 2, 10}, 51000}), Body),
    ok = disconnect(Socket).

send_timeout_ends_a_link(Config) ->
    %% An ECM that takes nothing for the send timeout loses its link, and what waited to be sent is gone.
    Node = proplists:get_value(node, Config),
    Link = connect_raw(address(Node, {megaphone, 3})),
    ok = inet:setopts(Link, [{recbuf, 4096}]),
    ok = send(Link, [hello() | [open(Id) || Id <- lists:seq(1, 100)]]),
    ok = send(Link, [[{window, Id, 100000000}, {data, Id, get_request("/test/bytes/5000000")}] || Id <- lists:seq(1, 3)]),
    ok = megaphone_test:wait_until(fun() -> maps:get(links, megaphone_test_node:stats(Node)) =:= 0 end, 20000),
    ok = megaphone_test:wait_until(fun() -> binary:match(megaphone_test_node:log(Node), <<"took no data">>) =/= nomatch end),
    ok = disconnect(Link).

unix_domain_socket(Config) ->
    %% A link over a unix-domain socket is as good as one over TCP.
    Node = proplists:get_value(node, Config),
    {ok, Link} = gen_tcp:connect({local, proplists:get_value(socket, Config)}, 0, [binary, {packet, 4}, {active, false}]),
    ok = send(Link, hello()),
    {hello, 2, 1, _, _, _} = next(Link),
    ?assertMatch([#{peer := <<"a unix socket">>}], call(Node, megaphone, links, [])),
    {200, _, {ready, 1, 0}} = ask(Link, 1, "/test/echo"),
    ok = disconnect(Link).

changed_by_a_reload(Config) ->
    %% When the configuration is loaded again with other options, new links have them; existing ones go on as they are.
    Node = #{dir := Dir} = proplists:get_value(node, Config),
    Old = connect(address(Node, {megaphone, 3})),
    {200, _, {ready, 1, 0}} = ask(Old, 1, "/test/echo"),
    ok = megaphone_test_node:write_config(Dir, [listener(megaphone, 3, [])]),
    ok = call(Node, ejabberd_admin, reload_config, []),
    [{megaphone, Address}] = [Listener || {megaphone, _} = Listener <- call(Node, megaphone_test_node, listeners, [])],
    New = connect(Address),
    ?assertMatch({404, _, {ready, 1, 0}}, ask(New, 1, "/test/echo")),
    ok = send(Old, {data, 1, get_request("/test/echo")}),
    ?assertMatch({200, _, {ready, 1, 0}}, answer(Old, 1)),
    [ok = disconnect(Link) || Link <- [Old, New]].
