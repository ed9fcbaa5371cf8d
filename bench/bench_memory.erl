%% What an idle virtual connection costs: one with an IPv6 peer, an owner, and nothing queued.
-module(bench_memory).

-export([run/1]).
-export([measure/2, measure_owners/1]).

-record(step, {
    connections :: non_neg_integer(),
    rss :: integer(),
    total :: integer(),
    system :: integer()
}).

-define(GOAL, 128).

%% Connections with an owner each. What a monitor costs does not depend on how many there are.
-define(OWNERS, 100000).

%% Seconds in which memory of closed connections may go back to the system.
-define(SETTLE, 60).

%% @doc With so many connections, one size after the other in the same node.
-spec run([pos_integer()]) -> bench_report:report().
run(Sizes) ->
    Results = [{Packet, in_fresh_node(Packet, Sizes)} || Packet <- [raw, http_bin]],
    Owners = lists:min([?OWNERS | Sizes]),
    {Alone, Owning} = owners_in_fresh_node(Owners),
    #{
        name => <<"memory">>,
        sizes => #{connections => Sizes},
        results =>
            [json(Packet, Step, Base) || {Packet, {Base, Steps, After}} <- Results, Step <- Steps ++ [After]] ++
                [(json(raw, Owning, Alone))#{owners => Owners}],
        goals => [
            bench_report:goal(
                ["memory of an idle connection, ", packet(Packet), ", the worst count"],
                "bytes",
                lists:max([each(Step, Base) || Step <- Steps]),
                at_most,
                ?GOAL
            )
         || {Packet, {Base, Steps, _}} <- Results
        ],
        tables => [table(Result) || Result <- Results] ++ [owners_table(Alone, Owning)],
        charts => [
            #{
                title => "Memory of an idle connection",
                unit => "bytes (RSS)",
                scale => linear,
                groups => [bench_report:thousands(Connections) || Connections <- Sizes],
                series => [{packet(Packet), [each(Step, Base) || Step <- Steps]} || {Packet, {Base, Steps, _}} <- Results]
            }
        ]
    }.

-spec packet(raw | http_bin) -> string().
packet(raw) -> "read as bytes";
packet(http_bin) -> "read as packets".

-spec each(#step{}, #step{}) -> float().
each(#step{connections = Connections, rss = Rss}, #step{rss = Base}) ->
    (Rss - Base) / Connections.

-spec json(raw | http_bin, #step{}, #step{}) -> bench_json:json().
json(Packet, #step{connections = Connections} = Step, Base) ->
    #{
        packet => Packet,
        connections => Connections,
        rss_bytes => Step#step.rss - Base#step.rss,
        memory_total_bytes => Step#step.total - Base#step.total,
        memory_system_bytes => Step#step.system - Base#step.system
    }.

-spec table({raw | http_bin, {#step{}, [#step{}], #step{}}}) -> bench_report:table().
table({Packet, {Base, Steps, After}}) ->
    Each = fun(Of, Step) -> (element(Of, Step) - element(Of, Base)) / max(1, Step#step.connections) end,
    Megabytes = fun(Of, Step) -> bench_report:rounded((element(Of, Step) - element(Of, Base)) / 1.0e6) end,
    Columns = [#step.rss, #step.total, #step.system],
    {
        ["Memory of idle connections, ", packet(Packet), ", above that of a node without any"],
        ["connections", "RSS each", "total each", "system each", "RSS, MB", "total, MB", "system, MB"],
        [
            [bench_report:thousands(Step#step.connections) | [bench_report:rounded(Each(Of, Step)) || Of <- Columns]] ++
                [Megabytes(Of, Step) || Of <- Columns]
         || Step <- Steps
        ] ++ [["all closed", "", "", "" | [Megabytes(Of, After) || Of <- Columns]]]
    }.

%% Above the same processes without connections: the connection, the VM's monitor and our list of watched processes.
-spec owners_table(#step{}, #step{}) -> bench_report:table().
owners_table(Alone, #step{connections = Owners} = Owning) ->
    Each = fun(Of) -> bench_report:rounded((element(Of, Owning) - element(Of, Alone)) / Owners) end,
    {
        "An idle connection that has its owner for itself: with the monitor on that process",
        ["connections", "RSS each", "total each", "system each"],
        [[bench_report:thousands(Owners) | [Each(Of) || Of <- [#step.rss, #step.total, #step.system]]]]
    }.

-spec owners_in_fresh_node(pos_integer()) -> {#step{}, #step{}}.
owners_in_fresh_node(Owners) ->
    bench_vm:say("memory of idle connections with an owner each", []),
    Node = bench_vm:start(["+P", "1000000"]),
    Result = bench_vm:call(Node, ?MODULE, measure_owners, [Owners]),
    ok = bench_vm:stop(Node),
    Result.

%% @private
%% @doc The memory with so many processes, and when each of them has opened a connection.
-spec measure_owners(pos_integer()) -> {#step{}, #step{}}.
measure_owners(Owners) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Pids = [owner(raw) || _ <- lists:seq(1, Owners)],
    %% What a process takes that has worked once is not the connection's.
    _ = [ok = more(Pid, 0, 0) || Pid <- Pids],
    Alone = step(0),
    _ = [ok = more(Pid, Number, Number + 1) || {Number, Pid} <- lists:enumerate(Pids)],
    Owning = step(Owners),
    #{local := Owners, watched := Owners} = megaphone_nif:stats(),
    {Alone, Owning}.

-spec in_fresh_node(raw | http_bin, [pos_integer()]) -> {#step{}, [#step{}], #step{}}.
in_fresh_node(Packet, Sizes) ->
    bench_vm:say("memory of idle connections, ~s", [packet(Packet)]),
    Node = bench_vm:start([]),
    Result = bench_vm:call(Node, ?MODULE, measure, [Packet, Sizes]),
    ok = bench_vm:stop(Node),
    Result.

%% @private
%% @doc The memory without connections, with so many each, and after all were closed.
-spec measure(raw | http_bin, [pos_integer()]) -> {#step{}, [#step{}], #step{}}.
measure(Packet, Sizes) ->
    {ok, _} = application:ensure_all_started(megaphone),
    %% What is made at first use is no connection's.
    Warm = owner(Packet),
    ok = more(Warm, 0, 1000),
    ok = closed(Warm),
    Base = step(0),
    Owner = owner(Packet),
    {Steps, _} = lists:mapfoldl(
        fun(Connections, Before) ->
            ok = more(Owner, Before, Connections),
            #{local := Connections} = megaphone_nif:stats(),
            {step(Connections), Connections}
        end,
        0,
        Sizes
    ),
    ok = closed(Owner),
    {Base, Steps, settled(step(0), ?SETTLE)}.

%% The VM gives memory back to the system little by little: waits until a second brings nothing more.
-spec settled(#step{}, non_neg_integer()) -> #step{}.
settled(Step, 0) ->
    Step;
settled(Before, Seconds) ->
    receive
    after 1000 -> ok
    end,
    case step(0) of
        #step{rss = Rss} = Step when Rss < Before#step.rss -> settled(Step, Seconds - 1);
        Step -> Step
    end.

-spec step(non_neg_integer()) -> #step{}.
step(Connections) ->
    _ = [erlang:garbage_collect(Pid) || Pid <- processes()],
    #step{
        connections = Connections,
        rss = bench_vm:rss(),
        total = erlang:memory(total),
        system = erlang:memory(system)
    }.

%% A process that owns connections, and keeps nothing else of them.
-spec owner(raw | http_bin) -> pid().
owner(Packet) ->
    spawn_link(fun() -> own(Packet) end).

-spec own(raw | http_bin) -> ok.
own(Packet) ->
    receive
        {open, From, Number, To} ->
            ok = open(Packet, Number, To),
            From ! {self(), opened},
            own(Packet);
        close ->
            ok
    end.

-spec open(raw | http_bin, non_neg_integer(), pos_integer()) -> ok.
open(_Packet, To, To) ->
    ok;
open(Packet, Number, To) ->
    Peer = {{16#2001, 16#db8, 0, 0, 0, 0, Number bsr 16, Number band 16#ffff}, 40000},
    {ok, _} = megaphone_nif:open(Peer, Packet),
    open(Packet, Number + 1, To).

-spec more(pid(), non_neg_integer(), pos_integer()) -> ok.
more(Owner, From, To) ->
    Owner ! {open, self(), From, To},
    receive
        {Owner, opened} -> ok
    end.

%% The connections close with their owner, perhaps some time after it.
-spec closed(pid()) -> ok.
closed(Owner) ->
    Owner ! close,
    none_left().

-spec none_left() -> ok.
none_left() ->
    case megaphone_nif:stats() of
        #{connections := 0} ->
            ok;
        _ ->
            receive
            after 10 -> none_left()
            end
    end.
