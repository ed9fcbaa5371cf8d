%% What idle users cost: figures for each user out of several sizes, by least squares.
-module(bench_users_report).

-export([report/2, slope/1]).
-export_type([step/0]).

-type step() :: #{
    users := pos_integer(),
    base := bench_users_node:snapshot(),
    at := bench_users_node:snapshot(),
    %% Bytes, in the second half of the idle time.
    rss_growth := integer(),
    total_growth := integer(),
    ecm_rss := integer(),
    kernel := integer(),
    cpu_ms_per_login := float(),
    cpu_ms_idle_per_user_minute := float(),
    logins_per_second := float(),
    login_us_p99 := number(),
    login_us_max := number(),
    retried := non_neg_integer(),
    requests_per_login := float()
}.

-type figures() :: #{atom() => number()}.

%% kB for each user, by how much idle memory is given back; RSS may be so many times as much.
-define(GOALS, #{
    "bosh2" => {#{hibernate_bosh => 17, hibernate => 12}, 1.2},
    "bosh-native" => {#{none => 10.8, collect => 10.8, hibernate => 6.2}, 1.12},
    "ws" => {#{none => 10.3, collect => 10.3, hibernate => 5.7}, 1.12}
}).

%% Kinds of processes that are shown: those that there are at least so many of for each user.
-define(SHOWN, 0.2).

%% @doc All kinds beside each other, and each of them by itself.
-spec report([{string(), [step()]}], #{atom() => bench_json:json()}) -> bench_report:report().
report(Results, Sizes) ->
    Slopes = [{Kind, figures(Steps)} || {Kind, Steps} <- Results],
    #{
        name => <<"users">>,
        sizes => Sizes,
        results => maps:from_list([{list_to_binary(Kind), json(Steps)} || {Kind, Steps} <- Results]),
        goals => lists:append([goals(Kind, Slope, Sizes) || {Kind, Slope} <- Slopes]),
        tables => [comparison(Slopes, Sizes), work(Results) | lists:append([tables(Kind, Steps) || {Kind, Steps} <- Results])],
        charts => [
            #{
                title => ["An idle user, ", label(Sizes)],
                unit => "kB",
                scale => linear,
                groups => [Kind || {Kind, _} <- Slopes],
                series => [
                    {Name, [max(0, maps:get(Key, Slope)) / 1000 || {_, Slope} <- Slopes]}
                 || {Name, Key} <- [{"RSS of ejabberd", rss}, {"erlang:memory(total)", total}, {"RSS of the ECM", ecm_rss}]
                ]
            }
        ]
    }.

-spec label(#{atom() => bench_json:json()}) -> iodata().
label(#{profile := Profile, idle_memory := Memory, idle_seconds := Idle, fullsweep_after_0 := Fullsweep, vm_options := Vm} = Sizes) ->
    [
        atom_to_list(Profile), ", idle for ", integer_to_list(Idle), " s",
        [[", idle_memory ", atom_to_list(Memory)] || Memory =/= none],
        [", sweep: all" || maps:get(sweep_all, Sizes)],
        [[", polls held for ", integer_to_list(Wait), " s"] || #{wait := Wait} <- [Sizes], Wait =/= 60],
        [", ERL_FULLSWEEP_AFTER=0" || Fullsweep],
        [[", ", Vm] || Vm =/= <<>>]
    ].

%% Only what comes through the connection manager has goals.
-spec goals(string(), figures(), #{atom() => bench_json:json()}) -> [bench_report:goal()].
goals("stock-" ++ _, _Slope, _Sizes) ->
    [];
goals(Kind, #{rss := Rss, total := Total, ports := Ports}, #{idle_memory := Memory}) ->
    {Goals, RssTimes} = maps:get(Kind, ?GOALS, maps:get("bosh2", ?GOALS)),
    [
        bench_report:goal([Name, " of a user, ", Kind, ", ", atom_to_list(Memory)], "kB", Bytes / 1000, at_most, Goal * Times)
     || {Name, Bytes, Times} <- [{"memory(total)", Total, 1}, {"RSS", Rss, RssTimes}],
        #{Memory := Goal} <- [Goals]
    ] ++ [bench_report:goal(["ports of a user, ", Kind], "", abs(round(Ports * 100) / 100), at_most, 0)].

%% Each figure for one user.
-spec figures([step()]) -> figures().
figures(Steps) ->
    Sizes = [Users || #{users := Users} <- Steps],
    Rows = [raw(Step) || Step <- Steps],
    Bases = [raw_base(Step) || Step <- Steps],
    maps:map(
        fun(Key, _) ->
            Points = lists:zip(Sizes, [maps:get(Key, Row) || Row <- Rows]),
            case Points of
                %% One size has no slope but against the empty node.
                [{Users, Value}] -> (Value - maps:get(Key, hd(Bases))) / Users;
                _ -> slope(Points)
            end
        end,
        hd(Rows)
    ).

-spec raw(step()) -> figures().
raw(#{at := At, ecm_rss := Ecm, kernel := Kernel}) ->
    (of_node(At))#{ecm_rss => Ecm, kernel => Kernel}.

-spec raw_base(step()) -> figures().
raw_base(#{base := Base}) ->
    (of_node(Base))#{ecm_rss => 0, kernel => 0}.

-spec of_node(bench_users_node:snapshot()) -> figures().
of_node(#{rss := Rss, memory := Memory, processes := Processes, ports := Ports, table := Table}) ->
    Parts = maps:with([total, processes, system, binary, ets], Memory),
    Own =
        case Table of
            #{memory := Bytes} when is_integer(Bytes) -> Bytes;
            _ -> 0
        end,
    Parts#{rss => Rss, process_count => Processes, ports => Ports, table => Own}.

%% @doc How much y grows with x, by least squares.
-spec slope([{number(), number()}, ...]) -> float().
slope(Points) ->
    Count = length(Points),
    {Xs, Ys} = lists:unzip(Points),
    {MeanX, MeanY} = {lists:sum(Xs) / Count, lists:sum(Ys) / Count},
    lists:sum([(X - MeanX) * (Y - MeanY) || {X, Y} <- Points]) / lists:sum([(X - MeanX) * (X - MeanX) || X <- Xs]).

-spec json([step()]) -> bench_json:json().
json(Steps) ->
    #{
        per_user => maps:map(fun(_, Value) -> float(Value) end, figures(Steps)),
        steps => [
            (maps:with(
                [users, rss_growth, total_growth, cpu_ms_per_login, cpu_ms_idle_per_user_minute, logins_per_second, login_us_p99, login_us_max, retried, requests_per_login],
                Step
            ))#{
                measured => raw(Step),
                empty => raw_base(Step),
                allocators => maps:from_list([{Name, #{held => Held, used => Used}} || {Name, {Held, Used}} <- allocators(Step)]),
                kinds => maps:map(fun(_, {Count, Bytes}) -> #{count => Count, bytes => Bytes} end, shown(Step)),
                table => maps:filter(fun(_, Value) -> is_integer(Value) end, maps:get(table, At))
            }
         || #{at := At} = Step <- Steps
        ]
    }.

-spec comparison([{string(), figures()}], #{atom() => bench_json:json()}) -> bench_report:table().
comparison(Slopes, Sizes) ->
    Columns = [rss, total, processes, system, binary, ets, table, ecm_rss, kernel],
    {
        ["Memory of an idle user in kB (1000 bytes), slope over the sizes; ", label(Sizes)],
        ["", "RSS", "total", "processes", "system", "binary", "ETS", "table", "ECM RSS", "kernel*", "processes", "ports"],
        [
            [Kind | [kilobytes(maps:get(Column, Slope)) || Column <- Columns]] ++
                [count(maps:get(Column, Slope)) || Column <- [process_count, ports]]
         || {Kind, Slope} <- Slopes
        ] ++ [["* of all sockets, the clients' own included" | lists:duplicate(11, "")]]
    }.

-spec work([{string(), [step()]}]) -> bench_report:table().
work(Results) ->
    {
        "Logins (the largest size); CPU of all servers",
        ["", "users", "logins/s", "CPU ms/login", "requests", "p99 ms", "max ms", "tried again", "idle CPU ms/user/min"],
        [
            [
                Kind, bench_report:thousands(Users), bench_report:rounded(Pace), bench_report:rounded(Cpu),
                bench_report:rounded(Requests), bench_report:rounded(P99 / 1000), bench_report:rounded(Max / 1000),
                integer_to_list(Retried), bench_report:rounded(Idle)
            ]
         || {Kind, Steps} <- Results,
            #{
                users := Users,
                logins_per_second := Pace,
                cpu_ms_per_login := Cpu,
                cpu_ms_idle_per_user_minute := Idle,
                requests_per_login := Requests,
                login_us_p99 := P99,
                login_us_max := Max,
                retried := Retried
            } <- [lists:last(Steps)]
        ]
    }.

-spec tables(string(), [step()]) -> [bench_report:table()].
tables(Kind, Steps) ->
    Columns = [rss, total, processes, system, binary, ets],
    Each = fun(#{users := Users} = Step) ->
        [
            kilobytes((maps:get(Column, raw(Step)) - maps:get(Column, raw_base(Step))) / Users)
         || Column <- Columns
        ]
    end,
    #{users := Users} = Last = lists:last(Steps),
    [
        {
            [Kind, ": above the empty node, kB each; growth in the second half of the idle time"],
            ["users", "RSS", "total", "processes", "system", "binary", "ETS", "RSS grew", "total grew"],
            [
                [bench_report:thousands(Count) | Each(Step)] ++ [kilobytes(Grown / Count) || Grown <- [Rss, Total]]
             || #{users := Count, rss_growth := Rss, total_growth := Total} = Step <- Steps
            ]
        },
        {
            [Kind, ": processes of ", bench_report:thousands(Users), " users"],
            ["started in", "of a user", "kB each"],
            [
                [atom_to_list(Name), count(Count / Users), kilobytes(Bytes / Count)]
             || {Name, {Count, Bytes}} <- lists:sort(maps:to_list(shown(Last)))
            ]
        },
        {
            [Kind, ": what allocators hold of ", bench_report:thousands(Users), " users, kB each"],
            ["allocator", "in use", "not in use"],
            [
                [atom_to_list(Name), kilobytes(Blocks / Users), kilobytes((Carriers - Blocks) / Users)]
             || {Name, {Carriers, Blocks}} <- allocators(Last)
            ]
        }
    ].

%% Those that hold something to speak of.
-spec allocators(step()) -> [{atom(), {Carriers :: non_neg_integer(), Blocks :: non_neg_integer()}}].
allocators(#{users := Users, at := #{allocators := Allocators}}) ->
    [Of || {_, {Carriers, _}} = Of <- lists:sort(maps:to_list(Allocators)), Carriers > 300 * Users].

-spec shown(step()) -> #{atom() => {pos_integer(), non_neg_integer()}}.
shown(#{users := Users, at := #{kinds := Kinds}}) ->
    maps:filter(fun(_, {Count, _}) -> Count >= ?SHOWN * Users end, Kinds).

-spec kilobytes(number()) -> string().
kilobytes(Bytes) ->
    float_to_list(Bytes / 1000, [{decimals, 2}]).

-spec count(number()) -> string().
count(Number) ->
    float_to_list(float(Number), [{decimals, 2}]).
