%% Users who talk to each other at random, while those who are idle for a moment are put to sleep: every message must
%% arrive exactly once and in order (the load generator fails otherwise), and neither late nor at a price.
-module(bench_chat).

-export([run/1]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-type outcome() :: #{
    users := pos_integer(),
    sent := pos_integer(),
    received := pos_integer(),
    p50_us := number(),
    p99_us := number(),
    max_us := number(),
    cpu_ms_per_message := float(),
    %% Of it, the connection manager's.
    ecm_ms_per_message := float(),
    sweeper := #{atom() => term()}
}.

%% Milliseconds of p99 that may be added to what ejabberd takes by itself, and the share of its processor time.
-define(LATER, 2).
-define(CPU, #{"ws" => 0.8}).
-define(CPU_OF_OTHERS, 1.1).

%% The shortest time after which a user counts as idle that is of use: most are asleep when a message comes.
-define(IDLE_AFTER, "20").

%% @doc One report for all kinds that were asked for.
-spec run(options()) -> bench_report:report().
run(#{quick := Quick, settings := Settings} = Options) ->
    Get = fun(Name, Normal, Short) ->
        list_to_integer(maps:get(Name, Settings, case Quick of true -> Short; false -> Normal end))
    end,
    Users = Get("users", "2000", "200"),
    Seconds = Get("chat-seconds", "600", "10"),
    Rate = Get("messages", "200", "50"),
    Aggressive = maps:merge(#{"idle-memory" => "hibernate", "idle-after" => ?IDLE_AFTER}, Settings),
    Plan = bench_users:plan(Options#{settings := maps:remove("users", Aggressive)}),
    Results = [{Kind, chat(Kind, Users, Seconds, Rate, Plan)} || Kind <- bench_users:kinds(Plan)],
    #{
        name => <<"chat">>,
        sizes => #{users => Users, seconds => Seconds, messages_per_second => Rate},
        results => maps:from_list([{list_to_binary(Kind), json(Outcome)} || {Kind, Outcome} <- Results]),
        goals => goals(Results),
        tables => [table(Results, Users, Seconds, Rate)],
        charts => [
            #{
                title => "Time until a message arrives",
                unit => "ms",
                scale => linear,
                groups => [Kind || {Kind, _} <- Results],
                series => [{Name, [maps:get(Key, Outcome) / 1000 || {_, Outcome} <- Results]} || {Name, Key} <- [{"median", p50_us}, {"p99", p99_us}]]
            }
        ]
    }.

-spec chat(string(), pos_integer(), pos_integer(), pos_integer(), bench_users:plan()) -> outcome().
chat(Kind, Users, Seconds, Rate, Plan) ->
    bench_users:in_fresh_node(Kind, Users, Plan, fun(#{node := Node} = Ejabberd, Ecms) ->
        #{generators := [Generator], servers := Servers} = bench_users:log_in(Kind, Users, {Ejabberd, Ecms}, Plan),
        [Cpu, EcmCpu] = [bench_users:cpu(Some) || Some <- [Servers, tl(Servers)]],
        ok = bench_program:tell(Generator, io_lib:format("chat {\"messages_per_second\":~b,\"duration\":~b}", [Rate, Seconds])),
        Line = bench_program:await(Generator, "\"event\":\"chat\"", (Seconds + 120) * 1000),
        [Sent, Received, P50, P99, Max] = [bench_program:number(Name, Line) || Name <- ["sent", "received", "p50", "p99", "max"]],
        Sent =:= Received andalso Sent > 0 orelse error({messages_went_wrong, Line}),
        [Spent, EcmSpent] = [bench_users:cpu(Some) - Before || {Some, Before} <- [{Servers, Cpu}, {tl(Servers), EcmCpu}]],
        Sweeper = bench_vm:call(Node, bench_users_node, sweeper, []),
        bench_program:stop(Generator),
        #{
            users => Users, sent => Sent, received => Received, p50_us => P50, p99_us => P99, max_us => Max,
            cpu_ms_per_message => Spent / Sent, ecm_ms_per_message => EcmSpent / Sent, sweeper => Sweeper
        }
    end).

-spec json(outcome()) -> bench_json:json().
json(#{sweeper := Sweeper} = Outcome) ->
    Outcome#{sweeper := maps:filter(fun(_, Value) -> is_integer(Value) end, Sweeper)}.

%% Against ejabberd's own listener with as many connections a user.
-spec goals([{string(), outcome()}]) -> [bench_report:goal()].
goals(Results) ->
    lists:append([
        [
            bench_report:goal(["p99 above that of ", Stock], "ms", (P99 - StockP99) / 1000, at_most, ?LATER),
            bench_report:goal(["CPU of a message against ", Stock], "times", Cpu / StockCpu, at_most, maps:get(Kind, ?CPU, ?CPU_OF_OTHERS))
        ]
     || {Kind, #{p99_us := P99, cpu_ms_per_message := Cpu}} <- Results,
        {"stock-" ++ Of = Stock, #{p99_us := StockP99, cpu_ms_per_message := StockCpu}} <- Results,
        Of =:= Kind
    ]).

-spec table([{string(), outcome()}], pos_integer(), pos_integer(), pos_integer()) -> bench_report:table().
table(Results, Users, Seconds, Rate) ->
    {
        io_lib:format("~b users write ~b messages a second for ~b s; all arrived once and in order", [Users, Rate, Seconds]),
        ["", "messages", "median ms", "p99 ms", "max ms", "CPU ms/message", "of the ECM", "BOSH put to sleep", "c2s put to sleep"],
        [
            [Kind, bench_report:thousands(Sent)] ++ [bench_report:rounded(Us / 1000) || Us <- [P50, P99, Max]] ++
                [bench_report:rounded(Cpu), bench_report:rounded(Ecm)] ++ [bench_report:thousands(maps:get(Name, Sweeper, 0)) || Name <- [bosh_asleep, c2s_asleep]]
         || {Kind, #{sent := Sent, p50_us := P50, p99_us := P99, max_us := Max, cpu_ms_per_message := Cpu, ecm_ms_per_message := Ecm, sweeper := Sweeper}} <- Results
        ]
    }.
