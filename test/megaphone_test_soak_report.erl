%% What a soak was like, as text, and its course as a picture.
-module(megaphone_test_soak_report).

-export([write/2]).
-export_type([sample/0]).

%% At a second of the run: what there was, how many messages and how many faults so far.
-type sample() :: {number(), megaphone_test_soak_world:sizes(), #{atom() => number()}, Faults :: non_neg_integer()}.
-type outcome() :: #{
    seed := integer(), seconds := pos_integer(), users := pos_integer(), samples := [sample()], faults := #{atom() => pos_integer()},
    counts := #{atom() => non_neg_integer()}, rude := non_neg_integer(), before := megaphone_test_soak_world:sizes(),
    later := megaphone_test_soak_world:sizes(), wrong := [string()]
}.

%% Of what was wrong; all of it is in the log of the suite.
-define(SHOWN, 20).
%% Points of a curve that are kept.
-define(POINTS, 300).

%% `NAME.txt' and `NAME.svg'.
-spec write(file:filename(), outcome()) -> ok.
write(Name, Outcome) ->
    ok = load(),
    ok = filelib:ensure_dir(Name),
    ok = file:write_file(Name ++ ".txt", text(Outcome)),
    file:write_file(Name ++ ".svg", unicode:characters_to_binary(picture(Outcome))).

%% The benchmarks have the code that writes and draws; it is no part of what suites are built with.
-spec load() -> ok.
load() ->
    lists:foreach(
        fun(Module) ->
            File = filename:join([megaphone_test_program:root(), "bench", atom_to_list(Module)]),
            {ok, Module, Code} = compile:file(File, [binary]),
            {module, Module} = code:load_binary(Module, File, Code)
        end,
        [bench_report, bench_svg]
    ).

-spec text(outcome()) -> iodata().
text(#{seed := Seed, seconds := Seconds, users := Users, faults := Faults, counts := Counts, rude := Rude, before := Before, later := Later, wrong := Wrong}) ->
    Table = fun(Title, Head, Rows) -> {Title, Head, [[Name | [bench_report:thousands(N) || N <- Numbers]] || [Name | Numbers] <- Rows]} end,
    Sorted = fun(Map) -> [[words(Key), Count] || {Key, Count} <- lists:sort(maps:to_list(Map))] end,
    [
        bench_report:machine_text(bench_report:machine()),
        io_lib:format("~nA soak of ~b s with ~b users, seed ~b: ~s~n", [Seconds, Users, Seed, case Wrong of [] -> "nothing was wrong"; _ -> "FAILED" end]),
        [[Each, "\n"] || Each <- lists:sublist(Wrong, ?SHOWN)],
        "\n",
        bench_report:text(#{tables => [
            Table("What was done", ["", "times"], Sorted(Faults#{rude_clients => Rude})),
            Table("Messages and sessions", ["", "number"], Sorted(Counts)),
            Table("When nobody was there", ["", "after the warm-up", "at the end"], [
                [[words(What), " ", integer_to_list(N), ", ", words(Key)], Value, maps:get(Key, maps:get(Place, Later))]
             || {{What, N} = Place, Sizes} <- lists:sort(maps:to_list(Before)), {Key, Value} <- lists:sort(maps:to_list(Sizes))
            ])
        ]})
    ].

-spec words(atom()) -> string().
words(Key) ->
    lists:flatten(string:replace(atom_to_list(Key), "_", " ", all)).

-spec picture(outcome()) -> iodata().
picture(#{seed := Seed, samples := Samples, seconds := Seconds}) ->
    Points = thinned(Samples),
    Curve = fun(Key, Scale, Kind) ->
        [
            {[atom_to_list(What), " ", integer_to_list(N)], [{Time / 60, maps:get(Key, Each) / Scale} || {Time, #{{What, N} := #{Key := _} = Each}, _, _} <- Points]}
         || {What, N} <- [{Kind, 1}, {Kind, 2}]
        ]
    end,
    Count = fun(Name, Key) -> {Name, [{Time / 60, maps:get(Key, Counts)} || {Time, _, Counts, _} <- Points]} end,
    Charts = [
        #{title => "RSS of ejabberd", unit => "MB, by minutes; a gap is a node that was killed", lines => Curve(rss, 1.0e6, node)},
        #{title => "erlang:memory(total)", unit => "MB, by minutes", lines => Curve(total, 1.0e6, node)},
        #{title => "RSS of connection managers", unit => "MB, by minutes", lines => Curve(rss, 1.0e6, ecm)},
        #{title => "Messages", unit => "by minutes", lines => [Count("sent", sent), Count("arrived", got)]},
        #{title => "Faults", unit => "by minutes", lines => [{"faults", [{Time / 60, Faults} || {Time, _, _, Faults} <- Points]}]},
        #{title => "Sessions", unit => "by minutes", lines => [Count("sessions that clients have", there)]}
    ],
    bench_svg:write(io_lib:format("A soak of ~b s, seed ~b", [Seconds, Seed]), [Each || #{lines := [{_, [_ | _]} | _]} = Each <- Charts]).

-spec thinned([sample()]) -> [sample()].
thinned(Samples) ->
    Step = max(1, ceil(length(Samples) / ?POINTS)),
    [Sample || {Number, Sample} <- lists:enumerate(Samples), Number rem Step =:= 0].
