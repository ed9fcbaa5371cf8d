%% What idle connections cost: figures for each out of several sizes, by least squares, and those of very many at once.
-module(bench_sockets_report).

-export([report/3]).

-type memory() :: {Kind :: string(), {[bench_sockets:step(), ...], bench_sockets:burst()}}.

%% Bytes of RSS for each connection.
-define(GOALS, #{"plain" => 128, "tls" => 2600}).

%% What may be left of a burst, as a share of what was there before.
-define(LEFT, 1.1).

%% Connections through several processes at once.
-define(MANY, 200000).

%% @doc One report; `Many' is empty if that part was not asked for.
-spec report([memory()], [bench_sockets:many()], #{atom() => bench_json:json()}) -> bench_report:report().
report(Memory, Many, Sizes) ->
    #{
        name => <<"sockets">>,
        sizes => Sizes,
        results => #{
            memory => maps:from_list([{list_to_binary(Kind), json(Of)} || {Kind, Of} <- Memory]),
            many => Many
        },
        goals => lists:append([goals(Of) || Of <- Memory]) ++ lists:append([many_goals(Of) || Of <- Many]),
        tables => [slopes(Memory) || Memory =/= []] ++ [bursts(Memory) || Memory =/= []] ++ [many(Of) || Of <- Many],
        charts => charts(Memory) ++ [many_chart(Of) || Of <- Many]
    }.

-spec goals(memory()) -> [bench_report:goal()].
goals({Kind, {Steps, Burst}}) ->
    case ?GOALS of
        #{Kind := Goal} ->
            [
                bench_report:goal(["RSS of an idle connection, ", Kind], "bytes", slope(rss, Steps), at_most, Goal),
                bench_report:goal(["RSS after a burst against before, ", Kind], "times", left(Burst), at_most, ?LEFT)
            ];
        _ ->
            []
    end.

-spec many_goals(bench_sockets:many()) -> [bench_report:goal()].
many_goals(#{connections := Connections}) ->
    [bench_report:goal("connections at once through several processes", "", Connections, at_least, ?MANY)].

-spec left(bench_sockets:burst()) -> float().
left(#{before := Before, later := Later}) ->
    Later / Before.

%% The empty process is not among the points: what is taken once for all belongs to no connection.
-spec slope(rss | sockets | slab, [bench_sockets:step(), ...]) -> float().
slope(Key, [_Empty | Steps]) ->
    bench_users_report:slope([{Connections, figure(Key, Step)} || #{connections := Connections} = Step <- Steps]).

-spec figure(rss | sockets | slab, bench_sockets:step()) -> non_neg_integer().
figure(rss, #{rss := Rss}) -> Rss;
figure(Key, #{kernel := Kernel}) -> maps:get(Key, Kernel).

-spec json({[bench_sockets:step(), ...], bench_sockets:burst()}) -> bench_json:json().
json({Steps, Burst}) ->
    #{
        per_connection => maps:from_list([{Key, slope(Key, Steps)} || Key <- [rss, sockets, slab]]),
        steps => Steps,
        burst => Burst
    }.

-spec slopes([memory(), ...]) -> bench_report:table().
slopes([{_, {[_ | Sizes], _}} | _] = Memory) ->
    {
        "Bytes of an idle connection through one process (slope over the sizes), and RSS in kB (1000 bytes) by their number",
        ["", "RSS", "sockets*", "all slabs*", "none"] ++ [bench_report:thousands(Count) || #{connections := Count} <- Sizes],
        [
            [Kind | [bench_report:thousands(round(max(0, slope(Key, Steps)))) || Key <- [rss, sockets, slab]]] ++
                [kilobytes(Rss) || #{rss := Rss} <- Steps]
         || {Kind, {Steps, _}} <- Memory
        ] ++ [["* of the kernel, for both ends, the clients' own included" | lists:duplicate(length(Sizes) + 4, "")]]
    }.

-spec bursts([memory(), ...]) -> bench_report:table().
bursts(Memory) ->
    {
        "RSS in kB, all connections idle, before and after each has fetched 100 kB",
        ["", "before", "at most", "after", "after/before", "took s", "CPU ms each", "of ejabberd"],
        [
            [Kind | [kilobytes(maps:get(Key, Burst)) || Key <- [before, most, later]]] ++
                [bench_report:rounded(Value) || Value <- [left(Burst), Seconds, Cpu + EjabberdCpu, EjabberdCpu]]
         || {Kind, {_, #{seconds := Seconds, cpu_ms := Cpu, ejabberd_cpu_ms := EjabberdCpu} = Burst}} <- Memory
        ]
    }.

-spec many(bench_sockets:many()) -> bench_report:table().
many(#{connections := Connections, processes := Processes} = Many) ->
    #{ecm_empty := Empty, ecm_idle := Idle, ecm_later := Later, ejabberd := [Before, After], answered := Answered} = Many,
    #{kernel_empty := KernelEmpty, kernel_idle := KernelIdle, open_seconds := Seconds} = Many,
    Each = fun(Bytes) -> [kilobytes(Bytes), bench_report:rounded(Bytes / Connections)] end,
    Grown = fun(Key, From, To) -> Each(maps:get(Key, To) - maps:get(Key, From)) end,
    Times = [
        {"  half of them within", p50_us},
        {"  99 of 100 within", p99_us},
        {"  999 of 1,000 within", p999_us},
        {"  all within", max_us}
    ],
    {
        io_lib:format("~s connections through ~b connection managers to one ejabberd, opened within ~b s", [
            bench_report:thousands(Connections), Processes, round(Seconds)
        ]),
        ["what they add", "kB", "bytes each"],
        [
            ["RSS of the connection managers, idle" | Each(Idle - Empty)],
            ["the same after requests" | Each(Later - Empty)],
            ["ejabberd: connection table" | Grown(table, Before, After)],
            ["ejabberd: erlang:memory(total)" | Grown(total, Before, After)],
            ["ejabberd: RSS" | Grown(rss, Before, After)],
            ["kernel: sockets of both ends" | Grown(sockets, KernelEmpty, KernelIdle)],
            ["kernel: all slabs" | Grown(slab, KernelEmpty, KernelIdle)],
            ["kernel: bytes in sockets" | Grown(tcp_buffers, KernelEmpty, KernelIdle)],
            ["requests among them, all answered rightly", bench_report:thousands(Answered), ""]
        ] ++
            [[Name, [bench_report:rounded(maps:get(Key, Many) / 1000), " ms"], ""] || {Name, Key} <- Times] ++
            [["  processor time of all servers, each", [bench_report:rounded(maps:get(cpu_ms_per_request, Many)), " ms"], ""]]
    }.

-spec charts([memory()]) -> [bench_svg:chart()].
charts([]) ->
    [];
charts(Memory) ->
    Groups = [Kind || {Kind, _} <- Memory],
    [
        #{
            title => "An idle connection",
            unit => "bytes of RSS of the server",
            scale => log,
            groups => Groups,
            series => [{"RSS", [max(1.0, slope(rss, Steps)) || {_, {Steps, _}} <- Memory]}]
        },
        #{
            title => "All connections idle, before and after each has fetched 100 kB",
            unit => "MB of RSS",
            scale => linear,
            groups => Groups,
            series => [
                {Name, [maps:get(Key, Burst) / 1000000 || {_, {_, Burst}} <- Memory]}
             || {Name, Key} <- [{"before", before}, {"at most", most}, {"after", later}]
            ]
        }
    ].

-spec many_chart(bench_sockets:many()) -> bench_svg:chart().
many_chart(#{connections := Connections, ecm_empty := Empty, ecm_idle := Idle, ejabberd := [Before, After]} = Many) ->
    #{kernel_empty := KernelEmpty, kernel_idle := KernelIdle} = Many,
    Grown = [
        Idle - Empty,
        maps:get(table, After) - maps:get(table, Before),
        maps:get(total, After) - maps:get(total, Before),
        maps:get(sockets, KernelIdle) - maps:get(sockets, KernelEmpty)
    ],
    #{
        title => ["One of ", bench_report:thousands(Connections), " idle connections"],
        unit => "bytes",
        scale => log,
        groups => ["connection managers", "ejabberd's table", "ejabberd's total", "kernel, both ends"],
        series => [{"what it adds", [max(1.0, Bytes / Connections) || Bytes <- Grown]}]
    }.

-spec kilobytes(number()) -> string().
kilobytes(Bytes) ->
    sign(round(Bytes / 1000)).

-spec sign(integer()) -> string().
sign(Number) when Number < 0 -> [$- | bench_report:thousands(-Number)];
sign(Number) -> bench_report:thousands(Number).
