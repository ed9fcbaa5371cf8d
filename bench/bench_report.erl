%% What a benchmark has found: as a table for people, as JSON, and what it has to be at least or at most.
-module(bench_report).

-export([goal/5, text/1, goals_text/1, machine_text/1, json/1, machine/0, thousands/1, rounded/1]).
-export_type([report/0, goal/0, table/0, machine/0]).

-type goal() :: #{name := binary(), unit := binary(), measured := number(), goal := number(), met := boolean()}.

-type table() :: {Title :: iodata(), Head :: [iodata()], Rows :: [[iodata()]]}.

-type report() :: #{
    name := binary(),
    sizes := bench_json:json(),
    results := bench_json:json(),
    goals := [goal()],
    tables := [table()],
    charts := [bench_svg:chart() | bench_svg:curve()]
}.

-type machine() :: #{atom() => binary() | number()}.

%% @doc A figure that was asked for.
-spec goal(iodata(), iodata(), number(), at_least | at_most, number()) -> goal().
goal(Name, Unit, Measured, Which, Goal) ->
    Met =
        case Which of
            at_least -> Measured >= Goal;
            at_most -> Measured =< Goal
        end,
    Bound = string:replace(atom_to_list(Which), "_", " "),
    #{
        name => iolist_to_binary([Name, " (", Bound, ")"]),
        unit => iolist_to_binary(Unit),
        measured => Measured,
        goal => Goal,
        met => Met
    }.

%% @doc All the tables of a report.
-spec text(report()) -> iolist().
text(#{tables := Tables}) ->
    [[table(Table), $\n] || Table <- Tables].

%% @doc What was asked for, and whether it was reached.
-spec goals_text([goal()]) -> iolist().
goals_text([]) ->
    [];
goals_text(Goals) ->
    Rows = [
        [Name, [rounded(Measured), " ", Unit], [rounded(Goal), " ", Unit], verdict(Met)]
     || #{name := Name, unit := Unit, measured := Measured, goal := Goal, met := Met} <- Goals
    ],
    table({"Goals", ["", "measured", "goal", ""], Rows}).

-spec verdict(boolean()) -> string().
verdict(true) -> "met";
verdict(false) -> "MISSED".

%% The first column is text, the others are numbers.
-spec table(table()) -> iolist().
table({Title, Head, Rows}) ->
    Cells = [[iolist_to_binary(Cell) || Cell <- Row] || Row <- [Head | Rows]],
    Widths = [lists:max([string:length(lists:nth(Column, Row)) || Row <- Cells]) || Column <- lists:seq(1, length(Head))],
    [Title, $\n, [[row(Row, Widths), $\n] || Row <- Cells]].

-spec row([binary()], [non_neg_integer()]) -> iolist().
row([First | Others], [Width | Widths]) ->
    ["  ", string:pad(First, Width, trailing) | [["   ", string:pad(Cell, W, leading)] || {Cell, W} <- lists:zip(Others, Widths)]].

%% @doc 1234567 as "1,234,567".
-spec thousands(integer()) -> string().
thousands(Number) when Number < 1000 ->
    integer_to_list(Number);
thousands(Number) ->
    thousands(Number div 1000) ++ io_lib:format(",~3..0b", [Number rem 1000]).

%% @doc A number with as many digits as mean something.
-spec rounded(number()) -> string().
rounded(Number) when is_integer(Number); abs(Number) >= 100 -> thousands(round(Number));
rounded(Number) when abs(Number) >= 10 -> float_to_list(float(Number), [{decimals, 1}]);
rounded(Number) -> float_to_list(float(Number), [{decimals, 2}]).

%% @doc All that was found, as one object: results and sizes by the name of the benchmark, one list of goals.
-spec json([report()]) -> iolist().
json(Reports) ->
    Of = fun(Key) -> maps:from_list([{Name, maps:get(Key, Report)} || #{name := Name} = Report <- Reports]) end,
    bench_json:encode(#{
        machine => machine(),
        sizes => Of(sizes),
        results => Of(results),
        goals => lists:append([Goals || #{goals := Goals} <- Reports])
    }).

%% @doc The machine that this runs on; what the shell knew better comes from the environment.
-spec machine() -> machine().
machine() ->
    {ok, CpuInfo} = file:read_file("/proc/cpuinfo"),
    {match, [Model]} = re:run(CpuInfo, "model name\\s*:\\s*(.*)", [{capture, all_but_first, binary}]),
    {ok, MemInfo} = file:read_file("/proc/meminfo"),
    {match, [Total]} = re:run(MemInfo, "MemTotal:\\s+(\\d+)", [{capture, all_but_first, list}]),
    {ok, Kernel} = file:read_file("/proc/sys/kernel/osrelease"),
    #{
        processor => Model,
        processors => erlang:system_info(logical_processors_available),
        memory_gb => round(list_to_integer(Total) / 1048576 * 10) / 10,
        kernel => string:trim(Kernel),
        otp => list_to_binary(erlang:system_info(otp_release)),
        erts => list_to_binary(erlang:system_info(version)),
        emulator => erlang:system_info(emu_flavor),
        rust => environment("BENCH_RUST"),
        commit => environment("BENCH_COMMIT"),
        nif_sha256 => environment("BENCH_NIF"),
        date => environment("BENCH_DATE")
    }.

-spec environment(string()) -> binary().
environment(Name) ->
    unicode:characters_to_binary(os:getenv(Name, "unknown")).

-spec machine_text(machine()) -> iolist().
machine_text(#{processor := Processor, processors := Count, memory_gb := Memory} = Machine) ->
    #{otp := Otp, erts := Erts, kernel := Kernel, rust := Rust, commit := Commit, date := Date} = Machine,
    io_lib:format("~s, commit ~s~n~s, ~b processors, ~.1f GB; Linux ~s, OTP ~s (erts ~s), ~s~n", [
        Date, Commit, Processor, Count, Memory, Kernel, Otp, Erts, Rust
    ]).
