%% What very many users cost, as tables, a curve and goals.
-module(bench_million_report).

-export([report/2]).

%% Gigabytes of RSS that a million users may take, and how many these are.
-define(GOALS, #{"ws" => 6.4, "bosh" => 6.9}).
-define(MILLION, 1000000).

-define(PARTS, [
    {"RSS", rss}, {"total", total}, {"processes", processes}, {"system", system}, {"binary", binary}, {"ETS", ets}
]).

%% Points of a curve that are kept: as many as can be seen.
-define(POINTS, 200).

%% @doc All kinds beside each other.
-spec report([{string(), bench_million:outcome()}], #{atom() => bench_json:json()}) -> bench_report:report().
report(Results, Sizes) ->
    #{
        name => <<"million">>,
        sizes => Sizes,
        results => maps:from_list([{list_to_binary(Kind), json(Outcome)} || {Kind, Outcome} <- Results]),
        goals => lists:append([goals(Kind, Outcome, Sizes) ++ bench_million_sockets_report:goals(Outcome) || {Kind, Outcome} <- Results]),
        tables => lists:append([of_kind(Kind, Outcome, Sizes) || {Kind, Outcome} <- Results]) ++ [work(Results), messages(Results, Sizes), complaints(Results)],
        charts => lists:append([charts(Kind, Outcome) || {Kind, Outcome} <- Results])
    }.

-spec of_kind(string(), bench_million:outcome(), #{atom() => bench_json:json()}) -> [bench_report:table()].
of_kind(Kind, Outcome, Sizes) ->
    bench_million_sockets_report:tables(Kind, Outcome) ++ memory(Kind, Outcome, Sizes) ++ [allocators(Kind, Outcome)].

-spec json(bench_million:outcome()) -> bench_json:json().
json(#{users := Users, empty := Empty, idle := Idle, curve := Curve, sweeper := Sweeper, allocators := Allocators, complaints := Complaints} = Outcome) ->
    Outcome#{
        per_user => maps:map(fun(Key, Bytes) -> (Bytes - maps:get(Key, Empty)) / Users end, Idle),
        curve := thinned(Curve),
        allocators := maps:map(fun(_, {Held, Used}) -> #{held => Held, used => Used} end, Allocators),
        sweeper := maps:filter(fun(_, Value) -> is_integer(Value) end, Sweeper),
        complaints := length(Complaints)
    }.

%% With fewer users there is nothing to be reached: the table has the share of the goal.
-spec goals(string(), bench_million:outcome(), #{atom() => bench_json:json()}) -> [bench_report:goal()].
goals(Kind, #{users := ?MILLION, idle := #{rss := Rss}}, #{idle_memory := <<"hibernate">>}) ->
    [bench_report:goal(["RSS with a million users, ", Kind], "GB", Rss / 1.0e9, at_most, maps:get(Kind, ?GOALS))];
goals(_Kind, _Outcome, _Sizes) ->
    [].

-spec memory(string(), bench_million:outcome(), #{atom() => bench_json:json()}) -> [bench_report:table()].
memory(Kind, #{users := Users, empty := Empty, idle := Idle, talked := Talked, gone := Gone, tables := Tables, generator_rss := Own}, Sizes) ->
    Row = fun(Name, Parts) -> [Name | [megabytes(maps:get(Key, Parts)) || {_, Key} <- ?PARTS]] ++ [bench_report:thousands(maps:get(process_count, Parts))] end,
    Each = [kilobytes((maps:get(Key, Idle) - maps:get(Key, Empty)) / Users) || {_, Key} <- ?PARTS],
    #{table_memory := Table, bosh_memory := Bosh} = Tables,
    [
        {
            [bench_report:thousands(Users), " users, ", Kind, ": memory of ejabberd in MB; ", label(Sizes)],
            ["" | [Name || {Name, _} <- ?PARTS]] ++ ["number"],
            [
                Row("nobody", Empty), Row("all idle", Idle), Row("after messages", Talked), Row("all gone", Gone),
                ["a user, kB" | Each] ++ [float_to_list((maps:get(process_count, Idle) - maps:get(process_count, Empty)) / Users, [{decimals, 2}])]
            ]
        },
        {
            [Kind, ": beside that"],
            ["", "MB", "bytes a user"],
            [
                [Name, megabytes(Bytes), bench_report:thousands(round(Bytes / Users))]
             || {Name, Bytes} <- [{"connection table (in system)", Table}, {"BOSH sessions (in system)", Bosh}, {"the generator itself", Own}]
            ] ++ [["share of the goal for a million", megabytes(maps:get(Kind, ?GOALS) * 1.0e9 * Users / ?MILLION), bench_report:thousands(round(maps:get(Kind, ?GOALS) * 1000))]]
        }
    ].

%% Those that hold something to speak of.
-spec allocators(string(), bench_million:outcome()) -> bench_report:table().
allocators(Kind, #{users := Users, allocators := Allocators}) ->
    {
        [Kind, ": what allocators hold while all are idle, kB of each user"],
        ["allocator", "in use", "not in use"],
        [
            [atom_to_list(Name), kilobytes(Used / Users), kilobytes((Held - Used) / Users)]
         || {Name, {Held, Used}} <- lists:sort(maps:to_list(Allocators)), Held > 100 * Users
        ]
    }.

-spec label(#{atom() => bench_json:json()}) -> iodata().
label(#{idle_memory := Memory, vm_options := Vm, idle_seconds := Idle} = Sizes) ->
    How =
        case Sizes of
            #{sockets := true, ping := Ping} -> io_lib:format("pinged after ~b s", [Ping]);
            #{links := Links, wait := Wait} -> io_lib:format("~b links, polls held for ~b s", [Links, Wait])
        end,
    io_lib:format("idle for ~b s, idle_memory ~s, ~s, ~s", [Idle, Memory, How, Vm]).

-spec work([{string(), bench_million:outcome()}]) -> bench_report:table().
work(Results) ->
    {
        "Logins, and leaving; CPU of the servers, and in brackets of what plays users",
        ["", "seconds", "logins/s", "p50 ms*", "p99 ms*", "max ms", "CPU ms/login", "left/s", "CPU ms each"],
        [
            [Kind, bench_report:rounded(Seconds), bench_report:rounded(Pace)] ++
                [bench_report:rounded(Us / 1000) || Us <- [worst(p50_us, Curve), worst(p99_us, Curve), Max]] ++
                [
                    [bench_report:rounded(Cpu), " (", bench_report:rounded(Own), ")"],
                    bench_report:rounded(maps:get(per_second, Leave)), bench_report:rounded(maps:get(cpu_ms, Leave))
                ]
         || {Kind, #{curve := Curve, leave := Leave, login := #{seconds := Seconds, per_second := Pace, max_us := Max, cpu_ms := Cpu, own_cpu_ms := Own}}} <- Results
        ] ++ [["* of the worst two seconds" | lists:duplicate(8, "")]]
    }.

-spec worst(atom(), [bench_million:point()]) -> number().
worst(Key, Curve) ->
    lists:max([0 | [maps:get(Key, Point) || Point <- Curve]]).

-spec messages([{string(), bench_million:outcome()}], #{atom() => bench_json:json()}) -> bench_report:table().
messages(Results, #{messages_per_second := Rate, chat_seconds := Seconds}) ->
    {
        io_lib:format("~b messages a second for ~b s; all arrived once and in order", [Rate, Seconds]),
        ["", "messages", "pairs", "median ms", "p99 ms", "max ms", "CPU ms/message"],
        [
            [Kind, bench_report:thousands(Sent), bench_report:thousands(Pairs)] ++ [bench_report:rounded(Us / 1000) || Us <- [P50, P99, Max]] ++ [bench_report:rounded(Cpu)]
         || {Kind, #{chat := #{sent := Sent, pairs := Pairs, p50_us := P50, p99_us := P99, max_us := Max, cpu_ms := Cpu}}} <- Results
        ]
    }.

-spec complaints([{string(), bench_million:outcome()}]) -> bench_report:table().
complaints(Results) ->
    {
        "All have left, and nothing of them is there. Warnings and errors in ejabberd's log, by their beginnings",
        ["", "lines"],
        lists:append([
            [[Kind, integer_to_list(length(Lines))] | [["  " ++ Text, integer_to_list(Count)] || {Text, Count} <- lists:sort(maps:to_list(beginnings(Lines)))]]
         || {Kind, #{complaints := Lines}} <- Results
        ])
    }.

%% What is left of each line without its time and process, cut where it begins to differ from others.
-spec beginnings([binary()]) -> #{string() => pos_integer()}.
beginnings(Lines) ->
    Begin = fun(Line) ->
        Text = re:replace(Line, "^\\S+ \\S+ |<[0-9.]+>@?\\S* ?", "", [global, {return, list}]),
        string:slice(re:replace(Text, "[0-9]+", "N", [global, {return, list}]), 0, 60)
    end,
    lists:foldl(fun(Line, Counts) -> maps:update_with(Begin(Line), fun(Count) -> Count + 1 end, 1, Counts) end, #{}, Lines).

-spec charts(string(), bench_million:outcome()) -> [bench_svg:curve(), ...].
charts(Kind, #{users := Users, curve := Curve, idle := Idle} = Outcome) ->
    Points = thinned(Curve) ++ [Idle#{users => Users}],
    [
        #{
            title => ["ejabberd while ", bench_report:thousands(Users), " users log in, ", Kind],
            unit => "MB, by users who are online; at the end they are idle",
            lines => [{Name, [{maps:get(users, Point), maps:get(Key, Point) / 1000000} || Point <- Points]} || {Name, Key} <- ?PARTS]
        }
        | bench_million_sockets_report:charts(Outcome, Points)
    ].

%% Some of them, at equal distances, and the last one.
-spec thinned([bench_million:point()]) -> [bench_million:point()].
thinned(Points) ->
    Step = max(1, ceil(length(Points) / ?POINTS)),
    [Point || {Number, Point} <- lists:zip(lists:seq(1, length(Points)), Points), Number rem Step =:= 0 orelse Number =:= length(Points)].

-spec megabytes(number()) -> string().
megabytes(Bytes) ->
    bench_report:thousands(round(Bytes / 1000000)).

-spec kilobytes(number()) -> string().
kilobytes(Bytes) ->
    float_to_list(Bytes / 1000, [{decimals, 2}]).
