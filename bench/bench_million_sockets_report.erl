%% What very many users with real clients cost their machine, the server's side apart from the clients'.
-module(bench_million_sockets_report).

-export([goals/1, tables/2, charts/2]).

%% How many are to be reached, and gigabytes that the server's side of so many may take.
-define(MILLION, 1000000).
-define(SERVER, 11).

%% Columns of tables, and lines of the picture.
-define(PARTS, [
    {"server's side", server}, {"ejabberd RSS", rss}, {"managers RSS", ecm_rss}, {"kernel, server's", kernel_server},
    {"kernel, clients'", kernel_clients}, {"clients RSS", carriers_rss}
]).

%% @doc Goals of a run that was to reach the million; none without real clients.
-spec goals(bench_million:outcome()) -> [bench_report:goal()].
goals(#{wanted := ?MILLION, users := Users, idle := #{server := Server}}) ->
    Reached = bench_report:goal("users with real clients", "users", Users, at_least, ?MILLION),
    [Reached | [bench_report:goal("the server's side of a million real clients", "GB", Server / 1.0e9, at_most, ?SERVER) || Users =:= ?MILLION]];
goals(_Outcome) ->
    [].

%% @doc Tables of one kind of users; none without real clients.
-spec tables(string(), bench_million:outcome()) -> [bench_report:table()].
tables(Kind, #{idle := #{server := _}} = Outcome) ->
    [memory(Kind, Outcome), users(Kind, Outcome), caches(Kind, Outcome), reached(Kind, Outcome)];
tables(_Kind, _Outcome) ->
    [].

-spec memory(string(), bench_million:outcome()) -> bench_report:table().
memory(Kind, #{users := Users, managers := Managers, empty := Empty, idle := Idle, talked := Talked, gone := Gone}) ->
    Row = fun(Name, Parts) -> [Name | [megabytes(maps:get(Key, Parts)) || {_, Key} <- ?PARTS]] ++ [megabytes(maps:get(available, Parts))] end,
    {
        io_lib:format("~s users, ~s, each a real client through one of ~b connection managers: memory of the machine in MB", [
            bench_report:thousands(Users), Kind, Managers
        ]),
        ["" | [Name || {Name, _} <- ?PARTS]] ++ ["available"],
        [Row("nobody", Empty), Row("all idle", Idle), Row("after messages", Talked), Row("all gone", Gone)]
    }.

-spec users(string(), bench_million:outcome()) -> bench_report:table().
users(Kind, #{users := Users, empty := Empty, idle := Idle, generator_rss := Generator}) ->
    Each = fun(Key) -> (maps:get(Key, Idle) - maps:get(Key, Empty)) / Users end,
    Row = fun(Name, Bytes) -> [Name, bench_report:thousands(round(Bytes))] end,
    {
        [Kind, ": what a user adds while idle, in bytes"],
        ["", "bytes"],
        [
            Row("the server's side", Each(server)),
            Row("  ejabberd: RSS", Each(rss)),
            Row("  connection managers: RSS", max(0.0, Each(ecm_rss))),
            Row("  kernel: the servers' half *", Each(kernel_server)),
            Row("the clients' side", Each(kernel_clients) + Each(carriers_rss) + Generator / Users),
            Row("  kernel: the clients' half *", Each(kernel_clients)),
            Row("  what plays the clients: RSS", Each(carriers_rss) + Generator / Users),
            Row("of the kernel: all slabs", Each(slab)),
            Row("of the kernel: in sockets", Each(tcp_buffers)),
            ["sockets in use, each", float_to_list(Each(tcp_sockets), [{decimals, 3}])],
            ["* all that it holds more than before, without tables of processes' memory, and the ports of clients: halved", ""]
        ]
    }.

%% What is in the slabs, so that anybody can see that each end has one of each.
-spec caches(string(), bench_million:outcome()) -> bench_report:table().
caches(Kind, #{users := Users, caches := Caches}) ->
    {
        [Kind, ": the kernel's slabs, both ends, each user"],
        ["cache", "objects", "bytes"],
        [
            [Name, float_to_list(Objects / Users, [{decimals, 2}]), bench_report:thousands(round(Bytes / Users))]
         || #{name := Name, objects := Objects, bytes := Bytes} <- Caches
        ]
    }.

-spec reached(string(), bench_million:outcome()) -> bench_report:table().
reached(Kind, #{users := Users, wanted := Wanted, stopped := Stopped}) ->
    {
        [Kind, ": how far it went"],
        ["", "users"],
        [
            ["wanted", bench_report:thousands(Wanted)],
            ["reached", bench_report:thousands(Users)],
            [case Stopped of null -> "nothing ran out"; _ -> ["no more came, since the machine was ", Stopped] end, ""]
        ]
    }.

%% @doc The machine while users come, to the end of the curve, where they are idle; none without real clients.
-spec charts(bench_million:outcome(), [bench_million:point()]) -> [bench_svg:curve()].
charts(#{users := Users, idle := #{server := _}}, Points) ->
    [
        #{
            title => ["the machine while ", bench_report:thousands(Users), " real clients come"],
            unit => "MB, by users who are online; at the end they are idle",
            lines => [{Name, [{maps:get(users, Point), maps:get(Key, Point) / 1000000} || Point <- Points]} || {Name, Key} <- ?PARTS]
        }
    ];
charts(_Outcome, _Points) ->
    [].

-spec megabytes(number()) -> string().
megabytes(Bytes) ->
    bench_report:thousands(round(Bytes / 1000000)).
