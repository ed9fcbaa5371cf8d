%% What client connections cost that are idle, through the connection manager, nginx and HAProxy to the same ejabberd:
%% memory of one process by their number, what is left of a burst, and very many of them through several processes.
-module(bench_sockets).

-export([run/1]).
-export_type([step/0, burst/0, many/0]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-record(plan, {
    kinds :: [string()],
    sizes :: [pos_integer(), ...],
    parts :: [string()],
    %% Of all connection managers together.
    connections :: pos_integer(),
    rate :: pos_integer(),
    seconds :: pos_integer(),
    idle :: pos_integer(),
    pace :: pos_integer(),
    dir :: file:filename()
}).

%% One process with so many connections, all of them idle.
-type step() :: #{connections := pos_integer(), rss := non_neg_integer(), kernel := bench_kernel:snapshot()}.

%% Bytes of RSS before, at most, and after each connection has fetched a file and was idle again.
-type burst() :: #{
    before := pos_integer(),
    most := pos_integer(),
    later := pos_integer(),
    seconds := number(),
    %% Processor time of each answer.
    cpu_ms := float(),
    ejabberd_cpu_ms := float()
}.

-type many() :: #{
    connections := pos_integer(),
    processes := pos_integer(),
    open_seconds := number(),
    %% Bytes of all connection managers: without clients, with all of them idle, and after their requests.
    ecm_empty := pos_integer(),
    ecm_idle := pos_integer(),
    ecm_later := pos_integer(),
    %% ejabberd's, and of it the connection table.
    ejabberd := [#{rss := non_neg_integer(), total := non_neg_integer(), table := non_neg_integer()}],
    kernel_empty := bench_kernel:snapshot(),
    kernel_idle := bench_kernel:snapshot(),
    answered := pos_integer(),
    p50_us := number(),
    p99_us := number(),
    p999_us := number(),
    max_us := number(),
    cpu_ms_per_request := float()
}.

%% Files that clients ask for: so many of each length.
-define(FILES, 64).
-define(SMALL, 64).
-define(LARGE, 100000).

%% Clients of one process of the load generator and of one connection manager, by their descriptors.
-define(SHARE, 19000).

%% Large answers under way at a time: nginx takes a descriptor more for each.
-define(BURST_AT_ONCE, 1000).

%% RSS is settled when it has changed by less than a hundredth in so many half seconds.
-define(SETTLED_FOR, 4).
-define(SETTLED_WITHIN, 20000).

%% Milliseconds between a burst and the look at what is left of it.
-define(AFTER_BURST, 12000).

%% @doc One report.
-spec run(options()) -> bench_report:report().
run(Options) ->
    #plan{parts = Parts} = Plan = plan(Options),
    ok = files(Plan),
    Steps = [{Kind, Found} || lists:member("memory", Parts), {Kind, Found} <- memory(Plan)],
    Many = [many(Plan) || lists:member("many", Parts)],
    bench_sockets_report:report(Steps, Many, #{
        kinds => [list_to_binary(Kind) || Kind <- Plan#plan.kinds],
        sizes => Plan#plan.sizes,
        burst_bytes => ?LARGE,
        connections => Plan#plan.connections,
        requests_per_second => Plan#plan.rate,
        seconds => Plan#plan.seconds,
        idle_seconds => Plan#plan.idle
    }).

-spec plan(options()) -> #plan{}.
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Normal, Short) ->
        maps:get(Name, Settings, case Quick of true -> Short; false -> Normal end)
    end,
    Number = fun(Name, Normal, Short) -> list_to_integer(Get(Name, Normal, Short)) end,
    Available = bench_front:available(),
    All = lists:flatten(lists:join(",", Available)),
    Kinds = string:lexemes(Get("kind", All, All), ","),
    Kinds -- Available =:= [] orelse error({cannot_be_measured_here, Kinds -- Available, only, Available}),
    Parts = string:lexemes(Get("part", "memory,many", "memory,many"), ","),
    Parts -- ["memory", "many"] =:= [] orelse error({no_such_part, Parts}),
    Steps = string:lexemes(Get("sizes", "3000,8000,13000,18000", "300,600,900,1200"), ","),
    Sizes = lists:usort([list_to_integer(Step) || Step <- Steps]),
    length(Sizes) > 1 andalso lists:last(Sizes) =< ?SHARE orelse error({sizes_must_be_several_of_at_most, ?SHARE, Sizes}),
    Connections = Number("connections", "200000", "2000"),
    {Most, Of} = bench_kernel:room(),
    Connections =< Most orelse error({too_many_connections_for_this_machine, Connections, Most, Of}),
    #plan{
        kinds = Kinds,
        sizes = Sizes,
        parts = Parts,
        connections = Connections,
        rate = Number("rate", "1000", "200"),
        seconds = Number("seconds", "30", "3"),
        idle = Number("idle-seconds", "30", "2"),
        pace = Number("pace", "3000", "1000"),
        dir = os:getenv("BENCH_DIR", ".")
    }.

%% Their names tell what is in them: the load generator knows how.
-spec files(#plan{}) -> ok.
files(#plan{dir = Dir}) ->
    ok = filelib:ensure_dir(filename:join([Dir, "files", "any"])),
    lists:foreach(
        fun({Number, Length}) ->
            Name = io_lib:format("~b-~b", [Number, Length]),
            Bytes = <<<<((Number + Place) rem 251)>> || Place <- lists:seq(0, Length - 1)>>,
            ok = file:write_file(filename:join([Dir, "files", Name]), Bytes)
        end,
        [{Number, Length} || Number <- lists:seq(0, ?FILES - 1), Length <- [?SMALL, ?LARGE]]
    ).

-spec ejabberd(#plan{}) -> bench_users_node:ejabberd().
ejabberd(#plan{dir = Dir}) ->
    bench_users_node:start(erlang:unique_integer([positive]), 1, #{
        profile => bare, idle_memory => none, idle_after => none, sweep_all => false, fullsweep => false,
        vm => bench_vm:options("quiet"),
        dir => Dir, files => filename:join(Dir, "files")
    }).

%% ---- one process ------------------------------------------------------------------------------------------------

-spec memory(#plan{}) -> [{string(), {[step()], burst()}}].
memory(#plan{kinds = Kinds} = Plan) ->
    Ejabberd = ejabberd(Plan),
    %% Each comes from addresses of its own: ports of connections that were closed cannot be had for a minute.
    Found = [
        {Kind, memory(Kind, Number * 2 * ?SHARE, Ejabberd, Plan)}
     || {Number, Kind} <- lists:zip(lists:seq(0, length(Kinds) - 1), Kinds)
    ],
    ok = bench_users_node:stop(Ejabberd),
    Found.

-spec memory(string(), non_neg_integer(), bench_users_node:ejabberd(), #plan{}) -> {[step()], burst()}.
memory(Kind, From, Ejabberd, #plan{sizes = Sizes, pace = Pace, dir = Dir}) ->
    Kernel = bench_kernel:snapshot(),
    Front = bench_front:start(Kind, {127, 0, 0, 1}, Ejabberd, Dir),
    Clients = clients(Front, From, Pace),
    Empty = #{connections => 0, rss => settled([Front]), kernel => Kernel},
    Steps = [step(Kind, Connections, Front, Clients) || Connections <- Sizes],
    Burst = burst(lists:last(Steps), Front, Clients, Ejabberd),
    bench_program:stop(Clients),
    ok = bench_front:stop(Front),
    {[Empty | Steps], Burst}.

-spec step(string(), pos_integer(), bench_front:front(), bench_program:program()) -> step().
step(Kind, Connections, Front, Clients) ->
    bench_vm:say("~s: ~b connections", [Kind, Connections]),
    {Connections, _} = open(Connections, [{Front, Clients}]),
    Rss = settled([Front]),
    ok = bench_program:watch([Clients], 0),
    #{connections => Connections, rss => Rss, kernel => bench_kernel:snapshot()}.

-spec burst(step(), bench_front:front(), bench_program:program(), bench_users_node:ejabberd()) -> burst().
burst(#{connections := Connections, rss := Before}, Front, Clients, #{os_pid := OsPid}) ->
    bench_vm:say("~b connections fetch ~b bytes each", [Connections, ?LARGE]),
    Own = bench_front:os_pid(Front),
    ok = bench_program:forget_peak(Own),
    [Cpu, EjabberdCpu] = [bench_users:cpu([Pid]) || Pid <- [Own, OsPid]],
    ok = bench_program:tell(Clients, io_lib:format("fetch {\"bytes\":~b,\"at_once\":~b}", [?LARGE, ?BURST_AT_ONCE])),
    Line = told(Clients, "fetched", 30000 + Connections * 20),
    Connections = bench_program:number("answered", Line),
    Most = bench_program:peak(Own),
    [Spent, EjabberdSpent] = [bench_users:cpu([Pid]) - Was || {Pid, Was} <- [{Own, Cpu}, {OsPid, EjabberdCpu}]],
    ok = bench_program:watch([Clients], ?AFTER_BURST),
    #{
        before => Before, most => Most, later => bench_front:rss(Front), seconds => bench_program:number("seconds", Line),
        cpu_ms => Spent / Connections, ejabberd_cpu_ms => EjabberdSpent / Connections
    }.

%% ---- several processes ------------------------------------------------------------------------------------------

-spec many(#plan{}) -> many().
many(#plan{connections = Connections, dir = Dir, pace = Pace, idle = Idle} = Plan) ->
    #{node := Node} = Ejabberd = ejabberd(Plan),
    %% At least two: that is what is looked at.
    Count = max(2, ceil(Connections / ?SHARE)),
    bench_vm:say("~b connections through ~b connection managers", [Connections, Count]),
    KernelEmpty = bench_kernel:snapshot(),
    Fronts = [bench_front:start("plain", {0, 0, 0, 0}, Ejabberd, Dir) || _ <- lists:seq(1, Count)],
    %% Far from those of the other part.
    Clients = [
        clients(Front, (Number + 20) * 2 * ?SHARE, max(1, Pace div Count))
     || {Number, Front} <- lists:zip(lists:seq(0, Count - 1), Fronts)
    ],
    Pairs = lists:zip(Fronts, Clients),
    {Empty, EjabberdEmpty} = {settled(Fronts), of_ejabberd(Node)},
    {Connections, OpenSeconds} = open(Connections, Pairs),
    bench_vm:say("all are open; idle for ~b s", [Idle]),
    ok = bench_program:watch(Clients, Idle * 1000),
    {IdleRss, EjabberdIdle, KernelIdle} = {settled(Fronts), of_ejabberd(Node), bench_kernel:snapshot()},
    Asked = ask(Pairs, Ejabberd, Plan),
    Later = settled(Fronts),
    lists:foreach(fun bench_program:stop/1, Clients),
    lists:foreach(fun bench_front:stop/1, Fronts),
    ok = bench_users_node:stop(Ejabberd),
    Asked#{
        connections => Connections, processes => Count, open_seconds => OpenSeconds,
        ecm_empty => Empty, ecm_idle => IdleRss, ecm_later => Later,
        ejabberd => [EjabberdEmpty, EjabberdIdle], kernel_empty => KernelEmpty, kernel_idle => KernelIdle
    }.

%% Each has its share of the requests; what they took is put together.
-spec ask([{bench_front:front(), bench_program:program()}], bench_users_node:ejabberd(), #plan{}) -> map().
ask(Pairs, #{os_pid := OsPid}, #plan{rate = Rate, seconds = Seconds}) ->
    bench_vm:say("~b requests a second among them for ~b s", [Rate, Seconds]),
    Servers = [OsPid | [bench_front:os_pid(Front) || {Front, _} <- Pairs]],
    Cpu = bench_users:cpu(Servers),
    Share = Rate / length(Pairs),
    Order = io_lib:format("ask {\"per_second\":~.3f,\"duration\":~b,\"bytes\":~b}", [Share, Seconds, ?SMALL]),
    lists:foreach(fun({_, Clients}) -> ok = bench_program:tell(Clients, Order) end, Pairs),
    Lines = [told(Clients, "asked", (Seconds + 90) * 1000) || {_, Clients} <- Pairs],
    Answered = lists:sum([bench_program:number("answered", Line) || Line <- Lines]),
    Histogram = histogram(Lines),
    #{
        answered => Answered,
        p50_us => percentile(50, Histogram),
        p99_us => percentile(99, Histogram),
        p999_us => percentile(99.9, Histogram),
        max_us => lists:max([bench_program:number("max", Line) || Line <- Lines]),
        cpu_ms_per_request => (bench_users:cpu(Servers) - Cpu) / Answered
    }.

-spec histogram([binary()]) -> [{non_neg_integer(), pos_integer()}].
histogram(Lines) ->
    Parts = [string:split(Part, ":") || Line <- Lines, Part <- string:lexemes(bench_program:text("histogram", Line), " ")],
    lists:sort([{binary_to_integer(Time), binary_to_integer(Count)} || [Time, Count] <- Parts]).

-spec percentile(number(), [{non_neg_integer(), pos_integer()}]) -> non_neg_integer().
percentile(Percent, Histogram) ->
    at(Percent / 100 * lists:sum([Count || {_, Count} <- Histogram]), Histogram).

-spec at(number(), [{non_neg_integer(), pos_integer()}]) -> non_neg_integer().
at(Rank, [{Time, Count} | Others]) when Rank =< Count; Others =:= [] -> Time;
at(Rank, [{_, Count} | Others]) -> at(Rank - Count, Others).

-spec of_ejabberd(bench_vm:node_ref()) -> #{atom() => non_neg_integer()}.
of_ejabberd(Node) ->
    #{rss := Rss, memory := #{total := Total}, table := Table} = bench_vm:call(Node, bench_users_node, snapshot, []),
    #{rss => Rss, total => Total, table => case Table of #{memory := Bytes} -> Bytes; _ -> 0 end}.

%% ---- for both ---------------------------------------------------------------------------------------------------

-spec clients(bench_front:front(), non_neg_integer(), pos_integer()) -> bench_program:program().
clients(#{target := Target, certificate := Certificate}, From, Pace) ->
    bench_program:start(bench_program:built("megaphone-clients"), [
        "--target", Target, "--from", integer_to_list(From), "--pace", integer_to_list(Pace),
        "--file-count", integer_to_list(?FILES)
        | lists:append([["--tls-certificate", Certificate] || Certificate =/= none])
    ]).

%% As many as there are to be, each process its share: how many there are, and how long it took.
-spec open(pos_integer(), [{bench_front:front(), bench_program:program()}]) -> {non_neg_integer(), float()}.
open(Connections, Pairs) ->
    Began = erlang:monotonic_time(millisecond),
    Share = Connections div length(Pairs),
    Counts = [Share + 1 || _ <- lists:seq(1, Connections rem length(Pairs))] ++ lists:duplicate(length(Pairs), Share),
    Tell = fun(Count, {_, Clients}) ->
        ok = bench_program:tell(Clients, io_lib:format("upto {\"connections\":~b}", [Count])),
        Clients
    end,
    All = lists:zipwith(Tell, lists:sublist(Counts, length(Pairs)), Pairs),
    Lines = [told(Clients, "opened", 60000 + Connections * 10) || Clients <- All],
    Open = lists:sum([bench_program:number("connections", Line) || Line <- Lines]),
    {Open, (erlang:monotonic_time(millisecond) - Began) / 1000}.

%% The line of such an event.
-spec told(bench_program:program(), string(), pos_integer()) -> binary().
told(Clients, Event, Within) ->
    Line = bench_program:await(Clients, "\"event\":\"(" ++ Event ++ "|error)\"", Within),
    string:find(Line, "\"event\":\"error\"") =:= nomatch orelse error({clients_failed, Line}),
    Line.

%% Bytes of RSS when they have stopped changing.
-spec settled([bench_front:front()]) -> non_neg_integer().
settled(Fronts) ->
    settled(Fronts, -1, ?SETTLED_FOR, erlang:monotonic_time(millisecond) + ?SETTLED_WITHIN).

-spec settled([bench_front:front()], integer(), non_neg_integer(), integer()) -> non_neg_integer().
settled(Fronts, Before, Left, Deadline) ->
    Now = lists:sum([bench_front:rss(Front) || Front <- Fronts]),
    IsOver = erlang:monotonic_time(millisecond) > Deadline,
    receive
    after 500 -> ok
    end,
    if
        IsOver; Left =:= 0 -> Now;
        abs(Now - Before) * 100 < Now -> settled(Fronts, Now, Left - 1, Deadline);
        true -> settled(Fronts, Now, ?SETTLED_FOR, Deadline)
    end.
