%% Native BOSH sessions at a real ejabberd where much goes wrong at once: clients of several connection managers, of which one
%% dies, and very many who log in. MEGAPHONE_BOSH_LOGINS asks for more of them.
-module(bosh_storm_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4]).

-type config() :: megaphone_test_bosh_node:config().

%% Runs of the client in bad weather, besides the one with a new seed.
-define(SEEDS, [1, 2, 3, 4, 5]).
-define(LOGINS, "300").
%% Clients that log in at the same time.
-define(CROWD, 50).
%% Milliseconds for an answer to which a client has a right at once; `wait' is 60 s.
-define(PROMPT, 5000).

-spec suite() -> [tuple()].
suite() -> [{timetrap, {seconds, 900}}].

-spec all() -> [atom()].
all() -> [two_connection_managers, a_connection_manager_is_killed, logins_on_both_connections].

%% Sessions at the second listener end after some seconds in which their clients do nothing.
-spec init_per_suite(config()) -> config().
init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "storm"),
    Listener = fun(Number, More) -> megaphone_test_node:listener(megaphone, Number, [megaphone_test_node:handlers(), "bosh: native" | More]) end,
    ok = megaphone_test_node:write_config(Dir, [Listener(1, []), Listener(2, ["max_inactivity: 3", "max_pause: 10"])]),
    [{node, megaphone_test_node:start_in(Dir)} | Config].

-spec end_per_suite(config()) -> ok.
end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

%% Two connection managers of the first listener, and one of the second.
-spec init_per_testcase(atom(), config()) -> config().
init_per_testcase(_Case, Config) ->
    Node = proplists:get_value(node, Config),
    {Ecms, Ports} = lists:unzip([ecm(address(Node, {megaphone, N})) || N <- [1, 1, 2]]),
    [{ecms, Ecms}, {ports, Ports} | Config].

-spec ecm(megaphone_test_node:address()) -> {megaphone_test_program:program(), inet:port_number()}.
ecm({Ip, Port}) ->
    megaphone_test_program:ecm(lists:flatten(io_lib:format("~s:~b", [inet:ntoa(Ip), Port]))).

%% Nothing is left of what a case did.
-spec end_per_testcase(atom(), config()) -> ok | {fail, term()}.
end_per_testcase(_Case, Config) ->
    Node = proplists:get_value(node, Config),
    megaphone_test:finish_case(Config, fun() ->
        ok = wait_until(fun() -> sessions(Node) =:= 0 end),
        [{0, _} = megaphone_test_program:stop(Ecm) || Ecm <- proplists:get_value(ecms, Config), megaphone_test_program:is_running(Ecm)],
        megaphone_test_node:assert_quiet(Node)
    end).

-spec where(pos_integer(), config()) -> megaphone_test_bosh_node:where().
where(N, Config) ->
    #{port => lists:nth(N, proplists:get_value(ports, Config)), node => proplists:get_value(node, Config), kind => native}.

-spec sessions(megaphone_test_node:node_info()) -> non_neg_integer().
sessions(Node) ->
    #{sessions := Count} = call(Node, megaphone_nif, bosh_info, []),
    Count.

-spec number(string(), string()) -> pos_integer().
number(Name, Default) ->
    list_to_integer(os:getenv(Name, Default)).

%% ---- several connection managers -------------------------------------------------------------------------------

%% @doc Whichever of two connection managers a request goes by, each message arrives once and in order, in bad weather too.
-spec two_connection_managers(config()) -> term().
two_connection_managers(Config) ->
    in_bad_weather(fun() -> (where(1, Config))#{ports => lists:sublist(proplists:get_value(ports, Config), 2)} end).

%% @doc The same when one of them is killed while requests are on their way, and in the same session.
-spec a_connection_manager_is_killed(config()) -> term().
a_connection_manager_is_killed(Config) ->
    in_bad_weather(fun() ->
        {Ecm, Port} = ecm(address(proplists:get_value(node, Config), {megaphone, 1})),
        Kill = fun() ->
            ok = megaphone_test_program:signal(Ecm, "KILL"),
            {137, _} = megaphone_test_program:await_exit(Ecm)
        end,
        (where(1, Config))#{ports => [hd(proplists:get_value(ports, Config)), Port], halfway => Kill}
    end).

%% The client sends no request twice that was answered, so a session that was lost would be noticed: nobody makes another one.
-spec in_bad_weather(fun(() -> megaphone_test_bosh_node:where())) -> ok.
in_bad_weather(Where) ->
    New = erlang:system_time(millisecond),
    io:format("seeds ~w, ~b~n", [?SEEDS, New]),
    lists:foreach(
        fun(Seed) -> ?assertEqual({Seed, ok}, {Seed, megaphone_test_bosh_weather:run(Where(), Seed, [answer_lost, request_lost, twice])}) end,
        ?SEEDS ++ [New]
    ).

%% ---- very many who log in --------------------------------------------------------------------------------------

%% @doc While a request is held the next one brings its stanza by the other connection, sometimes before the one that is to be
%% held: each answer comes promptly, by far sooner than `wait' is over.
-spec logins_on_both_connections(config()) -> term().
logins_on_both_connections(Config) ->
    Count = number("MEGAPHONE_BOSH_LOGINS", ?LOGINS),
    Where = where(1, Config),
    {Times, Milliseconds} = megaphone_test_bosh:timed(fun() ->
        megaphone_test_bosh_crowd:each(?CROWD, Count, fun(N) -> megaphone_test_bosh_crowd:login(Where, N, ?PROMPT) end)
    end),
    Sorted = lists:sort(lists:append([Each || #{times := Each} <- Times])),
    Overtaken = lists:sum([Each || #{overtaken := Each} <- Times]),
    [Median, Late] = [lists:nth(max(1, length(Sorted) * Percent div 100), Sorted) || Percent <- [50, 99]],
    ct:pal("~b BOSH logins in ~b ms: ~b answers, ~b requests overtaken; median ~b ms, 99th percentile ~b ms, maximum ~b ms", [
        Count, Milliseconds, length(Sorted), Overtaken, Median, Late, lists:last(Sorted)
    ]),
    ?assertEqual(Count, length(Times)),
    ?assert(Overtaken >= Count div 2),
    ?assert(lists:last(Sorted) < ?PROMPT).
