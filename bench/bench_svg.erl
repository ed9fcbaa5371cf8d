%% Bar charts and curves as SVG, several to a picture.
-module(bench_svg).

-export([write/2]).
-export_type([chart/0, curve/0]).

-type chart() :: #{
    title := iodata(),
    unit := iodata(),
    scale := linear | log,
    groups := [iodata()],
    series := [{Name :: iodata(), [number()]}]
}.
%% One bar of each series in each group. A logarithmic scale starts at the power of ten below the least value.

-type curve() :: #{title := iodata(), unit := iodata(), lines := [{Name :: iodata(), [{X :: number(), Y :: number()}]}]}.
%% Both axes begin at 0.

-define(WIDTH, 620).
-define(HEIGHT, 330).
-define(LEFT, 70).
-define(TOP, 50).
-define(PLOT_WIDTH, 530).
-define(PLOT_HEIGHT, 190).
-define(COLOURS, {"#1b6ca8", "#d1495b", "#edae49", "#66a182", "#7b5ea7", "#8d8d8d"}).

%% @doc The charts under a title, two to a row.
-spec write(iodata(), [chart() | curve()]) -> iolist().
write(Title, Charts) ->
    Rows = (length(Charts) + 1) div 2,
    Columns = min(2, length(Charts)),
    {Width, Height} = {Columns * ?WIDTH, 40 + Rows * ?HEIGHT},
    [
        io_lib:format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"~b\" height=\"~b\" viewBox=\"0 0 ~b ~b\" "
            "font-family=\"sans-serif\" font-size=\"12\">~n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>~n",
            [Width, Height, Width, Height]
        ),
        text(20, 26, "start", 17, Title),
        [
            [
                io_lib:format("<g transform=\"translate(~b,~b)\">~n", [At rem 2 * ?WIDTH, 40 + At div 2 * ?HEIGHT]),
                chart(Chart),
                "</g>\n"
            ]
         || {At, Chart} <- lists:zip(lists:seq(0, length(Charts) - 1), Charts)
        ],
        "</svg>\n"
    ].

-spec chart(chart() | curve()) -> iolist().
chart(#{title := Title, unit := Unit, lines := Lines}) ->
    {Xs, Ys} = lists:unzip(lists:append([Points || {_, Points} <- Lines])),
    [{_, Right} = RangeX, {_, _} = RangeY] = [range(linear, [1 | Values]) || Values <- [Xs, Ys]],
    [
        text(?LEFT, 22, "start", 14, Title),
        text(?LEFT, 39, "start", 11, Unit),
        axis(linear, RangeY),
        [text(x(RangeX, Mark), ?TOP + ?PLOT_HEIGHT + 17, "middle", 11, mark(Mark)) || Mark <- marks(Right)],
        [line(Number, RangeX, RangeY, Points) || {Number, {_, Points}} <- numbered(Lines)],
        legend(Lines)
    ];
chart(#{title := Title, unit := Unit, scale := Scale, groups := Groups, series := Series}) ->
    Range = range(Scale, lists:append([Values || {_, Values} <- Series])),
    [
        text(?LEFT, 22, "start", 14, Title),
        text(?LEFT, 39, "start", 11, Unit),
        axis(Scale, Range),
        bars(Scale, Range, Groups, Series),
        legend(Series)
    ].

-spec range(linear | log, [number()]) -> {number(), number()}.
range(linear, Values) ->
    {0, step(lists:max(Values)) * ceil(lists:max(Values) * 1.05 / step(lists:max(Values)))};
range(log, Values) ->
    {floor(math:log10(lists:min(Values))), ceil(math:log10(lists:max(Values) * 1.3))}.

%% A round step that gives some five lines.
-spec step(number()) -> number().
step(Most) ->
    Power = math:pow(10, floor(math:log10(max(Most, 1.0e-9)))),
    case Most / Power of
        Digit when Digit < 2 -> Power / 4;
        Digit when Digit < 5 -> Power / 2 * 1.0;
        _ -> Power
    end.

-spec axis(linear | log, {number(), number()}) -> iolist().
axis(Scale, {Low, High} = Range) ->
    Marks =
        case Scale of
            log -> [math:pow(10, Power) || Power <- lists:seq(Low, High)];
            linear -> marks(High)
        end,
    [
        begin
            Y = y(Scale, Range, Mark),
            [
                io_lib:format("<line x1=\"~b\" y1=\"~.1f\" x2=\"~b\" y2=\"~.1f\" stroke=\"#ddd\"/>~n", [
                    ?LEFT, Y, ?LEFT + ?PLOT_WIDTH, Y
                ]),
                text(?LEFT - 6, Y + 4, "end", 11, mark(Mark))
            ]
        end
     || Mark <- Marks
    ].

-spec marks(number()) -> [number()].
marks(High) ->
    [step(High) * Number || Number <- lists:seq(0, round(High / step(High)))].

-spec x({number(), number()}, number()) -> float().
x({Low, High}, Value) ->
    ?LEFT + ?PLOT_WIDTH * (Value - Low) / (High - Low).

-spec line(non_neg_integer(), {number(), number()}, {number(), number()}, [{number(), number()}]) -> iolist().
line(Number, RangeX, RangeY, Points) ->
    Places = [io_lib:format("~.1f,~.1f ", [x(RangeX, X), y(linear, RangeY, Y)]) || {X, Y} <- Points],
    io_lib:format("<polyline points=\"~s\" fill=\"none\" stroke=\"~s\" stroke-width=\"1.5\"/>~n", [Places, colour(Number)]).

-spec mark(number()) -> iodata().
mark(Mark) when Mark == round(Mark) -> bench_report:thousands(round(Mark));
mark(Mark) -> float_to_list(float(Mark), [{decimals, 2}, compact]).

-spec y(linear | log, {number(), number()}, number()) -> float().
y(Scale, {Low, High}, Value) ->
    Place =
        case Scale of
            linear -> Value;
            log -> math:log10(max(Value, 1.0e-9))
        end,
    ?TOP + ?PLOT_HEIGHT * (1 - (Place - Low) / (High - Low)).

-spec bars(linear | log, {number(), number()}, [iodata()], [{iodata(), [number()]}]) -> iolist().
bars(Scale, Range, Groups, Series) ->
    Group = ?PLOT_WIDTH / length(Groups),
    Bar = Group * 0.82 / length(Series),
    Bottom = float(?TOP + ?PLOT_HEIGHT),
    [
        [
            text(?LEFT + (At + 0.5) * Group, Bottom + 17, "middle", 12, Name),
            [
                begin
                    Value = lists:nth(At + 1, Values),
                    X = ?LEFT + At * Group + Group * 0.09 + Number * Bar,
                    Y = y(Scale, Range, Value),
                    [
                        io_lib:format(
                            "<rect x=\"~.1f\" y=\"~.1f\" width=\"~.1f\" height=\"~.1f\" fill=\"~s\"/>~n",
                            [X, Y, Bar * 0.92, max(0.5, Bottom - Y), colour(Number)]
                        ),
                        text(X + Bar * 0.46, Y - 3, "middle", 9, bench_report:rounded(Value))
                    ]
                end
             || {Number, {_, Values}} <- numbered(Series)
            ]
        ]
     || {At, Name} <- numbered(Groups)
    ].

-spec legend([{iodata(), list()}]) -> iolist().
legend(Series) ->
    [
        begin
            X = ?LEFT + Number rem 3 * 180,
            Y = ?TOP + ?PLOT_HEIGHT + 34 + Number div 3 * 18,
            [
                io_lib:format("<rect x=\"~b\" y=\"~b\" width=\"11\" height=\"11\" fill=\"~s\"/>~n", [X, Y, colour(Number)]),
                text(X + 16, Y + 10, "start", 12, Name)
            ]
        end
     || {Number, {Name, _}} <- numbered(Series)
    ].

-spec numbered([T]) -> [{non_neg_integer(), T}].
numbered(List) ->
    lists:zip(lists:seq(0, length(List) - 1), List).

-spec colour(non_neg_integer()) -> string().
colour(Number) ->
    element(Number rem tuple_size(?COLOURS) + 1, ?COLOURS).

-spec text(number(), number(), string(), pos_integer(), iodata()) -> iolist().
text(X, Y, Anchor, Size, Text) ->
    io_lib:format("<text x=\"~.1f\" y=\"~.1f\" text-anchor=\"~s\" font-size=\"~b\">~ts</text>~n", [
        float(X), float(Y), Anchor, Size, escaped(Text)
    ]).

-spec escaped(iodata()) -> iodata().
escaped(Text) ->
    [
        case Char of
            $& -> "&amp;";
            $< -> "&lt;";
            $> -> "&gt;";
            _ -> Char
        end
     || Char <- unicode:characters_to_list(Text)
    ].
