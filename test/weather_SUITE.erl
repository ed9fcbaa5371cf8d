%% Bad weather between the connection manager and ejabberd: links that break again and again, packets that get lost, networks
%% that are cut and come back. Real clients talk meanwhile: every message arrives, once, in one session.
%%
%% In which order is not asked. A client has two connections, and when the answers on both are late, or lost and asked for
%% again, both are there at once: it takes them as they come. So it is with two connections to ejabberd itself.
-module(weather_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4]).
-import(megaphone_test_program, [await_line/3, await_exit/1, tell/2, text/2]).

%% Messages in each direction; MEGAPHONE_PORTIONS for more.
-define(PORTION, 10).
-define(PORTIONS, 5).
-define(ATTEMPTS, 3).
%% A lost packet is sent again by TCP after 200 ms, then 400 ms and so on.
-define(WITHIN, 60000).

suite() -> [{timetrap, {seconds, 300}}].

%% With a fifth of the packets lost a link may break so often that the client gives up: in the deep check, not every day.
all() ->
    Lossy = [packets_get_lost, packets_of_two_links_get_lost],
    [links_break_again_and_again, a_network_is_cut_and_comes_back, a_dead_network_is_noticed] ++
        [Case || os:getenv("MEGAPHONE_PORTIONS") =/= false, Case <- Lossy].

init_per_suite(Config) ->
    Dir = proplists:get_value(priv_dir, Config),
    Node = megaphone_test_node:start(Dir, [megaphone_test_node:listener(megaphone, 1, [megaphone_test_node:handlers()])]),
    [ok = megaphone_test_stay:register(Node, User) || User <- ["alice", "bob"]],
    [{node, Node} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop(proplists:get_value(node, Config)).

%% A manager that notices after 6 s that nothing comes any more, and two users.
init_per_testcase(Case, Config) ->
    Links = case Case of packets_of_two_links_get_lost -> 2; _ -> 1 end,
    Node = proplists:get_value(node, Config),
    {_, LinkPort} = address(Node, megaphone),
    File = filename:join(proplists:get_value(priv_dir, Config), "ecm.toml"),
    ok = file:write_file(File, "link_silence = 6\n"),
    ok = call(Node, application, set_env, [megaphone, link_ping, 2000]),
    Args = ["--config", File, "--links", integer_to_list(Links), "--server", "127.0.0.1:" ++ integer_to_list(LinkPort)],
    {Ecm, Port} = megaphone_test_program:ecm_with(Args, Links, #{}),
    [{ecm, Ecm}, {port, Port}, {link_port, LinkPort} | Config].

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        ok = clear(proplists:get_value(link_port, Config)),
        {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
        megaphone_test_node:assert_quiet(proplists:get_value(node, Config))
    end).

stay(Port, User) ->
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/bosh", [Port])),
    megaphone_test_stay:start(Url, User, ["--wait", "2", "--deadline", "60000"], ?WITHIN).

%% ---- a stream of messages --------------------------------------------------------------------------------------

%% Both send, one message after the other, in portions; `Weather' is made when each is under way.
talk(Config, Weather) ->
    talk(Config, Weather, ?ATTEMPTS).

talk(Config, Weather, Attempts) ->
    Crashes = crashes(Config),
    Users = [stay(proplists:get_value(port, Config), User) || User <- ["alice", "bob"]],
    try
        stream(Users, Weather)
    catch
        Class:Reason:Stack ->
            [megaphone_test_program:signal(Program, "KILL") || {Program, _} <- Users, megaphone_test_program:is_running(Program)],
            ok = clear(proplists:get_value(link_port, Config)),
            case Attempts > 1 andalso crashes(Config) > Crashes of
                true -> talk(Config, Weather, Attempts - 1);
                false -> erlang:raise(Class, Reason, Stack)
            end
    end.

%% How often a session of mod_bosh has crashed by its own fault: a request that overtook the one before is kept aside, and its
%% repetition is inserted under the same key. That takes no bad weather, only two requests at once; it is tried again then.
crashes(Config) ->
    length(binary:matches(megaphone_test_node:log(proplists:get_value(node, Config)), <<"{{key_exists,">>)).

stream([{A, JidA}, {B, JidB}], Weather) ->
    Portions = portions(),
    Received = [portion(Portion, [{A, JidB}, {B, JidA}], Weather) || Portion <- lists:seq(1, Portions)],
    Count = Portions * ?PORTION,
    Expected = [integer_to_binary(N) || N <- lists:seq(1, Count)],
    lists:foreach(
        fun(Side) ->
            Got = lists:append([element(Side, Each) || Each <- Received]),
            %% What is missing, what came more than once.
            ?assertEqual({[], []}, {Expected -- Got, Got -- Expected})
        end,
        [1, 2]
    ),
    %% Nothing more comes, and nobody had to log in again.
    [ok = tell(Program, "quit") || Program <- [A, B]],
    lists:foreach(
        fun(Program) ->
            {0, Output} = await_exit(Program),
            Lines = binary:split(Output, <<"\n">>, [global]),
            Of = fun(Event) -> [Line || Line <- Lines, binary:match(Line, Event) =/= nomatch, not is_echo(Line)] end,
            ?assertEqual({Count, 1}, {length(Of(<<"\"event\":\"message\"">>)), length(Of(<<"\"event\":\"connected\"">>))})
        end,
        [A, B]
    ).

portion(Portion, [{A, JidB}, {B, JidA}], Weather) ->
    Numbers = lists:seq((Portion - 1) * ?PORTION + 1, Portion * ?PORTION),
    [ok = tell(From, ["send ", To, " ", integer_to_binary(N)]) || N <- Numbers, {From, To} <- [{A, JidB}, {B, JidA}]],
    Weather(Portion),
    Received = {received(A), received(B)},
    %% Both have turned to new requests: mod_bosh loses what it answers to one that is repeated for the second time.
    [ok = tell(Program, "ping") || Program <- [A, B]],
    [_ = await_line(Program, "\"pong\"", ?WITHIN) || Program <- [A, B]],
    Received.

%% The messages of a portion. mod_bosh has a fault: it answers a request that is repeated while it waits for its turn with the
%% client's own stanzas; they come back without a sender, and are passed over.
received(Program) ->
    [received_one(Program) || _ <- lists:seq(1, ?PORTION)].

received_one(Program) ->
    Line = await_line(Program, "\"message\"", ?WITHIN),
    case is_echo(Line) of
        true -> received_one(Program);
        false -> text("body", Line)
    end.

is_echo(Line) ->
    binary:match(Line, <<"\"from\":null">>) =/= nomatch.

portions() ->
    list_to_integer(os:getenv("MEGAPHONE_PORTIONS", integer_to_list(?PORTIONS))).

%% ---- weather ---------------------------------------------------------------------------------------------------

links_break_again_and_again(Config) ->
    %% Each link is killed within ejabberd, again and again: requests that were under way are repeated by the client, and
    %% ejabberd knows those that it had answered already.
    talk(Config, fun(_Portion) -> break(Config) end).

%% The link, as soon as it is up.
break(Config) ->
    Node = proplists:get_value(node, Config),
    ok = wait_until(fun() -> length(receivers(Node)) =:= 1 end),
    [call(Node, erlang, exit, [Receiver, kill]) || Receiver <- receivers(Node)].

receivers(Node) ->
    [Receiver || #{receiver := Receiver} <- call(Node, megaphone, links, [])].

packets_get_lost(Config) ->
    %% A fifth of all packets of the links is lost, in both directions.
    as_root(fun() -> lossy(Config) end).

packets_of_two_links_get_lost(Config) ->
    %% The same with two links: a client's two connections may be on both.
    as_root(fun() -> lossy(Config) end).

lossy(Config) ->
    Weather = fun
        (1) -> drop(Config, ["-m", "statistic", "--mode", "random", "--probability", "0.2"]);
        (_) -> ok
    end,
    talk(Config, Weather),
    ?assert(dropped(Config) >= portions()).

a_network_is_cut_and_comes_back(Config) ->
    %% No packet passes for a second, which is shorter than links wait for: they go on.
    as_root(fun() ->
        Before = receivers(proplists:get_value(node, Config)),
        Weather = fun
            (3) ->
                ok = drop(Config, []),
                receive after 1000 -> ok end,
                ok = clear(proplists:get_value(link_port, Config));
            (_) ->
                ok
        end,
        talk(Config, Weather),
        ?assertEqual(Before, receivers(proplists:get_value(node, Config)))
    end).

a_dead_network_is_noticed(Config) ->
    %% No packet passes until both ends have given their links up; new ones are made when the network is back.
    as_root(fun() ->
        Node = proplists:get_value(node, Config),
        Weather = fun
            (3) ->
                ok = drop(Config, []),
                ok = wait_until(fun() -> receivers(Node) =:= [] end),
                ok = clear(proplists:get_value(link_port, Config));
            (_) ->
                ok
        end,
        talk(Config, Weather)
    end).

as_root(Fun) ->
    case may_drop() andalso iptables(["-L", "INPUT"]) of
        {0, _} -> Fun();
        {_, Said} -> {skip, {"packets cannot be dropped here", Said}};
        false -> {skip, "packets can be dropped by root only, with iptables"}
    end.

may_drop() ->
    is_list(os:find_executable("iptables")) andalso string:trim(os:cmd("id -u")) =:= "0".

%% Packets of the links, in both directions.
drop(Config, Which) ->
    Port = integer_to_list(proplists:get_value(link_port, Config)),
    [{0, _} = iptables(["-I", "INPUT", "-i", "lo", "-p", "tcp", Side, Port] ++ Which ++ ["-j", "DROP"]) || Side <- ["--dport", "--sport"]],
    ok.

dropped(Config) ->
    lists:sum([binary_to_integer(Count) || [Count | _] <- rules(proplists:get_value(link_port, Config))]).

%% All rules for this port go.
clear(Port) ->
    case may_drop() of
        true -> clear_rules(Port);
        false -> ok
    end.

clear_rules(Port) ->
    {0, Listed} = iptables(["-S", "INPUT"]),
    Rules = [Rule || <<"-A ", Rule/binary>> <- binary:split(Listed, <<"\n">>, [global]), is_of(Port, Rule)],
    [{0, _} = iptables(["-D" | string:lexemes(binary_to_list(Rule), " ")]) || Rule <- Rules],
    ok.

rules(Port) ->
    {0, Listed} = iptables(["-L", "INPUT", "-v", "-n", "-x"]),
    [string:lexemes(Line, " ") || Line <- binary:split(Listed, <<"\n">>, [global]), is_of(Port, Line)].

is_of(Port, Line) ->
    Number = integer_to_binary(Port),
    re:run(Line, ["[ :]", Number, "( |$)"], [{capture, none}]) =:= match.

iptables(Args) ->
    megaphone_test_program:run(os:find_executable("iptables"), ["-w" | Args], #{}).
