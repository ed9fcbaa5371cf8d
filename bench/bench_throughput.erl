%% Round trips of BOSH: users ask the server, each question a request of its own, and get its answer. To ejabberd's own
%% listener, by nginx to the same, and by the connection manager and Megaphone, with the same users at the same pace.
-module(bench_throughput).

-export([run/1]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-record(plan, {
    kinds :: [string()],
    users :: pos_integer(),
    rate :: pos_integer(),
    seconds :: pos_integer(),
    rounds :: pos_integer(),
    node :: bench_users_node:settings()
}).

-type outcome() :: #{
    answered := pos_integer(),
    per_cpu_second := float(),
    cpu_ms := float(),
    %% Of it, that of what stands before ejabberd.
    front_cpu_ms := float(),
    requests := float(),
    p50_us := number(),
    p99_us := number(),
    p999_us := number(),
    max_us := number()
}.

%% Ours is not to cost more than no front end at all, and less than the usual one.
-define(GOALS, [{"stock", 1.0}, {"nginx", 1.3}]).

%% Seconds before it is looked at: caches are filled, heaps have grown.
-define(WARM_UP, 2).

-define(LOGINS_PER_SECOND, "200").

%% @doc One report.
-spec run(options()) -> bench_report:report().
run(Options) ->
    Plan = plan(Options),
    %% By turns: whatever else goes on here meets all of them.
    Turns = [{Kind, Round} || Round <- lists:seq(1, Plan#plan.rounds), Kind <- Plan#plan.kinds],
    Runs = [{Kind, measure(Kind, Round, Plan)} || {Kind, Round} <- Turns],
    Results = [{Kind, [Outcome || {Of, Outcome} <- Runs, Of =:= Kind]} || Kind <- Plan#plan.kinds],
    #{
        name => <<"throughput">>,
        sizes => #{
            users => Plan#plan.users, round_trips_per_second => Plan#plan.rate, seconds => Plan#plan.seconds,
            rounds => Plan#plan.rounds,
            idle_memory => mode(maps:get(idle_memory, Plan#plan.node)),
            vm_options => list_to_binary(lists:join(" ", maps:get(vm, Plan#plan.node)))
        },
        results => maps:from_list([{list_to_binary(Kind), Outcomes} || {Kind, Outcomes} <- Results]),
        goals => goals(Results),
        tables => [table(Results, Plan)],
        charts => charts(Results)
    }.

-spec plan(options()) -> #plan{}.
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Normal, Short) ->
        list_to_integer(maps:get(Name, Settings, case Quick of true -> Short; false -> Normal end))
    end,
    Known = ["stock", "nginx", "ours"],
    Available = [Kind || Kind <- Known, Kind =/= "nginx" orelse lists:member("nginx", bench_front:available())],
    Kinds = string:lexemes(maps:get("kind", Settings, lists:flatten(lists:join(",", Available))), ","),
    Kinds -- Available =:= [] orelse error({cannot_be_measured_here, Kinds -- Available, only, Available}),
    #plan{
        kinds = Kinds,
        users = Get("users", "200", "50"),
        rate = Get("rate", "2000", "300"),
        seconds = Get("seconds", "15", "3"),
        rounds = Get("rounds", "5", "1"),
        node = #{
            profile => bare, idle_memory => maps:get("idle-memory", Settings, none), idle_after => none, sweep_all => false, fullsweep => false,
            vm => bench_vm:options(maps:get("vm", Settings, "quiet")),
            dir => os:getenv("BENCH_DIR", "."),
            modules => ["mod_ping"]
        }
    }.

-spec mode(none | string()) -> none | binary().
mode(none) -> none;
mode(Text) -> list_to_binary(Text).

%% Each with a fresh ejabberd, and its own processes alone.
-spec measure(string(), pos_integer(), #plan{}) -> outcome().
measure(Kind, Round, #plan{node = Settings, users = Users} = Plan) ->
    bench_vm:say("round ~b, ~s", [Round, Kind]),
    #{os_pid := OsPid} = Ejabberd = bench_users_node:start(
        erlang:unique_integer([positive]), Users, Settings#{megaphone => Kind =:= "ours"}
    ),
    Fronts = [bench_front:start(front(Kind), {127, 0, 0, 1}, Ejabberd, maps:get(dir, Settings)) || Kind =/= "stock"],
    Load = load(target(Ejabberd, Fronts), Plan),
    WarmUp = ping(Load, ?WARM_UP, Plan),
    FrontPids = [bench_front:os_pid(Front) || Front <- Fronts],
    [Cpu, FrontCpu] = [bench_users:cpu(Pids) || Pids <- [[OsPid | FrontPids], FrontPids]],
    Line = ping(Load, Plan#plan.seconds, Plan),
    [Spent, FrontSpent] = [
        bench_users:cpu(Pids) - Was
     || {Pids, Was} <- [{[OsPid | FrontPids], Cpu}, {FrontPids, FrontCpu}]
    ],
    bench_program:stop(Load),
    lists:foreach(fun bench_front:stop/1, Fronts),
    ok = bench_users_node:stop(Ejabberd),
    outcome(WarmUp, Line, Spent, FrontSpent).

-spec front(string()) -> string().
front("ours") -> "plain";
front(Kind) -> Kind.

-spec target(bench_users_node:ejabberd(), [bench_front:front()]) -> string().
target(#{listeners := Listeners}, []) -> element(2, lists:keyfind(ejabberd_http, 1, Listeners));
target(_Ejabberd, [#{target := Target}]) -> Target.

%% Users with one connection each and no polls: there is an answer to each request at once.
-spec load(string(), #plan{}) -> bench_program:program().
load(Target, #plan{users = Users}) ->
    Load = bench_program:start(bench_program:built("megaphone-load"), [
        "--kind", "bosh", "--no-polls", "--target", Target, "--users", integer_to_list(Users), "--pace", ?LOGINS_PER_SECOND
    ]),
    _ = bench_program:await(Load, "\"event\":\"ready\"", 60000 + Users * 20),
    Load.

%% The generator fails if a question has not exactly one answer, the right one.
-spec ping(bench_program:program(), pos_integer(), #plan{}) -> binary().
ping(Load, Seconds, #plan{rate = Rate}) ->
    ok = bench_program:tell(Load, io_lib:format("ping {\"per_second\":~b,\"duration\":~b}", [Rate, Seconds])),
    Line = bench_program:await(Load, "\"event\":\"ping\"", (Seconds + 30) * 1000),
    bench_program:number("sent", Line) =:= bench_program:number("answered", Line) orelse error({without_an_answer, Line}),
    Line.

-spec outcome(binary(), binary(), pos_integer(), non_neg_integer()) -> outcome().
outcome(WarmUp, Line, Spent, FrontSpent) ->
    Answered = bench_program:number("answered", Line),
    #{
        answered => Answered,
        per_cpu_second => Answered / Spent * 1000,
        cpu_ms => Spent / Answered,
        front_cpu_ms => FrontSpent / Answered,
        requests => (bench_program:number("requests", Line) - bench_program:number("requests", WarmUp)) / Answered,
        p50_us => bench_program:number("p50", Line),
        p99_us => bench_program:number("p99", Line),
        p999_us => bench_program:number("p999", Line),
        max_us => bench_program:number("max", Line)
    }.

-spec median(atom(), [outcome()]) -> number().
median(Key, Outcomes) ->
    bench_vm:median([maps:get(Key, Outcome) || Outcome <- Outcomes]).

-spec goals([{string(), [outcome()]}]) -> [bench_report:goal()].
goals(Results) ->
    [
        bench_report:goal(
            ["round trips per CPU second against ", Other], "times",
            median(per_cpu_second, Ours) / median(per_cpu_second, Others), at_least, Times
        )
     || {"ours", Ours} <- Results, {Other, Times} <- ?GOALS, {Of, Others} <- Results, Of =:= Other
    ].

-spec table([{string(), [outcome()]}], #plan{}) -> bench_report:table().
table(Results, #plan{users = Users, rate = Rate, seconds = Seconds, rounds = Rounds, node = #{vm := Vm}}) ->
    Milliseconds = [p50_us, p99_us, p999_us, max_us],
    {
        io_lib:format("~b users, ~s round trips a second for ~b s, all answered rightly; median of ~b rounds; ejabberd with ~s", [
            Users, bench_report:thousands(Rate), Seconds, Rounds, lists:join(" ", Vm)
        ]),
        ["", "per CPU s", "least", "most", "CPU ms each", "of the front end", "requests", "median ms", "p99 ms", "p99.9 ms", "max ms"],
        [
            [Kind, bench_report:thousands(round(median(per_cpu_second, Outcomes)))] ++
                [bench_report:thousands(round(lists:F([Each || #{per_cpu_second := Each} <- Outcomes]))) || F <- [min, max]] ++
                [decimals(median(Key, Outcomes)) || Key <- [cpu_ms, front_cpu_ms]] ++
                [bench_report:rounded(median(requests, Outcomes))] ++
                [bench_report:rounded(median(Key, Outcomes) / 1000) || Key <- Milliseconds]
         || {Kind, Outcomes} <- Results
        ]
    }.

-spec decimals(number()) -> string().
decimals(Number) ->
    float_to_list(float(Number), [{decimals, 3}]).

-spec charts([{string(), [outcome()]}]) -> [bench_svg:chart()].
charts(Results) ->
    Groups = [Kind || {Kind, _} <- Results],
    [
        #{
            title => "Round trips of BOSH for a second of processor time",
            unit => "of all servers; median of the rounds",
            scale => linear,
            groups => Groups,
            series => [{"round trips", [median(per_cpu_second, Outcomes) || {_, Outcomes} <- Results]}]
        },
        #{
            title => "Time of a round trip",
            unit => "ms",
            scale => linear,
            groups => Groups,
            series => [
                {Name, [median(Key, Outcomes) / 1000 || {_, Outcomes} <- Results]}
             || {Name, Key} <- [{"median", p50_us}, {"p99", p99_us}, {"p99.9", p999_us}]
            ]
        }
    ].
