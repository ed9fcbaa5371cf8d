%% Put and get of whole requests, in Megaphone's table and in what could take its place.
-module(bench_put_get).

-export([run/2]).

%% Milliseconds of a round that needs no longer one.
-define(ROUND, 200).

-record(store, {
    module :: module(),
    name :: string(),
    role :: ours | original | other | steps,
    %% Milliseconds of one round.
    round = ?ROUND :: pos_integer(),
    %% Rounds, if not as many as asked for, however disturbed.
    rounds = asked :: asked | pos_integer(),
    arguments = [] :: [string()]
}).

-record(result, {
    load :: bench_store:load(),
    connections :: pos_integer(),
    processes :: pos_integer(),
    store :: #store{},
    ns :: float(),
    others :: float(),
    bytes :: float()
}).

-define(PROCESSES, [1, 2, 8]).

%% Share of the processors that others may take in a round that counts, and how many times as many rounds there may be
%% until enough of them count. If they never do, those count that were disturbed least; the share is shown.
-define(QUIET, 0.05).
-define(PATIENCE, 5).

%% @doc The results with so many connections each, and so many rounds. Fails if a reader gets what it should not.
-spec run([pos_integer()], pos_integer()) -> bench_report:report().
run(Sizes, Rounds) ->
    Results = lists:append([
        run(Load, Connections, Rounds)
     || Connections <- Sizes, Load <- [idle, full]
    ]),
    #{
        name => <<"put_get">>,
        sizes => #{connections => Sizes, processes => ?PROCESSES, rounds => Rounds, request_bytes => bench_requests:bosh_size()},
        results => [json(Result) || Result <- Results],
        goals => lists:append([goals(Group) || Group <- groups(Results)]),
        tables => [table(Case) || Case <- cases(Results)],
        charts => [chart(Case) || Case <- cases(Results)]
    }.

-spec stores(bench_store:load()) -> [#store{}].
stores(Load) ->
    [
        #store{module = bench_megaphone, name = "Megaphone", role = ours},
        #store{
            module = bench_original,
            name = "the original's way",
            role = original,
            %% Its large heap is collected seldom and long: a round has to hold that.
            round = 4000,
            rounds = 2
        },
        #store{module = bench_ets, name = "ETS", role = other},
        #store{module = bench_mailbox, name = "process per connection", role = other, arguments = ["+P", "2000000"]}
    ] ++ [Store || Load =:= idle, Store <- steps()].

%% Readers that get one result at a time are slower. For ETS with a full table that is hopeless, and takes long.
-spec steps() -> [#store{}].
steps() ->
    [
        #store{module = bench_megaphone_steps, name = "Megaphone, step by step", role = steps},
        #store{module = bench_ets_steps, name = "ETS, step by step", role = steps}
    ].

%% All stores are there at the same time, and their rounds alternate: so they meet the same machine.
-spec run(bench_store:load(), pos_integer(), pos_integer()) -> [#result{}].
run(Load, Connections, Rounds) ->
    bench_vm:say("put and get: ~s connections, ~s", [bench_report:thousands(Connections), load(Load)]),
    Nodes = [
        begin
            Node = bench_vm:start(Arguments),
            Bytes = bench_vm:call(Node, bench_store, open, [Module, Load, Connections]),
            bench_vm:say("  ~s: opened, ~b bytes a connection", [Name, round(Bytes)]),
            {Store, Node, Bytes}
        end
     || #store{module = Module, name = Name, arguments = Arguments} = Store <- stores(Load)
    ],
    Results = [measure(Load, Connections, Processes, Rounds, Nodes) || Processes <- ?PROCESSES],
    _ = [ok = bench_vm:stop(Node) || {_, Node, _} <- Nodes],
    lists:append(Results).

-spec measure(bench_store:load(), pos_integer(), pos_integer(), pos_integer(), [{#store{}, pid(), float()}]) ->
    [#result{}].
measure(Load, Connections, Processes, Rounds, Nodes) ->
    Prepared = [
        begin
            #store{module = Module, round = Time} = Store,
            %% A single round is for a look.
            Of = case Rounds of 1 -> ?ROUND; _ -> Time end,
            Operations = bench_vm:call(Node, bench_store, calibrate, [Module, Load, Processes, Of]),
            {Store, Node, Bytes, [Module, Load, Processes, Operations], []}
        end
     || {Store, Node, Bytes} <- Nodes
    ],
    [
        begin
            {Ns, Others} = lists:unzip(lists:sublist(lists:keysort(2, Samples), Rounds)),
            bench_vm:say("  ~s, ~s: ~b ns", [processes(Processes), Store#store.name, round(bench_vm:median(Ns))]),
            #result{
                load = Load,
                connections = Connections,
                processes = Processes,
                store = Store,
                ns = bench_vm:median(Ns),
                others = lists:max(Others),
                bytes = Bytes
            }
        end
     || {Store, _, Bytes, _, Samples} <- rounds(Rounds, Rounds * ?PATIENCE, Prepared)
    ].

%% Rounds of all in turn until each has enough that nobody disturbed, or patience ends.
rounds(_Wanted, 0, Nodes) ->
    Nodes;
rounds(Wanted, Left, Nodes) ->
    Enough = fun
        ({#store{rounds = asked}, _, _, _, Samples}) ->
            length([quiet || {_, Others} <- Samples, Others =< ?QUIET]) >= Wanted;
        ({#store{rounds = Own}, _, _, _, Samples}) ->
            length(Samples) >= min(Own, Wanted)
    end,
    case lists:all(Enough, Nodes) of
        true ->
            Nodes;
        false ->
            rounds(Wanted, Left - 1, [
                case Enough(Case) of
                    true -> Case;
                    false -> {Store, Node, Bytes, Arguments, [sample(Node, Arguments) | Samples]}
                end
             || {Store, Node, Bytes, Arguments, Samples} = Case <- Nodes
            ])
    end.

-spec sample(pid(), [term()]) -> {Ns :: float(), Others :: float()}.
sample(Node, Arguments) ->
    bench_vm:call(Node, bench_store, measure_undisturbed, Arguments).

%% ---- what is shown ---------------------------------------------------------------------------------------------

-spec load(bench_store:load()) -> string().
load(idle) -> "nothing waits on the others";
load(full) -> "a request waits on each".

-spec processes(pos_integer()) -> iodata().
processes(1) -> "1 process";
processes(Count) -> [integer_to_list(Count), " processes"].

-spec json(#result{}) -> bench_json:json().
json(#result{load = Load, connections = Connections, processes = Processes, store = Store} = Result) ->
    #result{ns = Ns, others = Others, bytes = Bytes} = Result,
    #{
        load => Load,
        connections => Connections,
        processes => Processes,
        store => list_to_binary(Store#store.name),
        ns_per_request => Ns,
        requests_per_second => round(1.0e9 / Ns),
        bytes_per_connection => round(Bytes),
        processors_taken_by_others => Others
    }.

%% Results of one load and size, for a table; of one load, size and number of processes, for goals.
-spec cases([#result{}]) -> [[#result{}]].
cases(Results) ->
    grouped(fun(#result{load = Load, connections = Connections}) -> {Connections, Load} end, Results).

-spec groups([#result{}]) -> [[#result{}]].
groups(Results) ->
    Key = fun(#result{load = Load, connections = Connections, processes = Processes}) -> {Connections, Load, Processes} end,
    grouped(Key, Results).

-spec grouped(fun((#result{}) -> term()), [#result{}]) -> [[#result{}]].
grouped(Key, Results) ->
    [[Result || Result <- Results, Key(Result) =:= Value] || Value <- lists:uniq([Key(Result) || Result <- Results])].

-spec goals([#result{}]) -> [bench_report:goal()].
goals([#result{load = Load, connections = Connections, processes = Processes} | _] = Group) ->
    Name = io_lib:format("put and get, ~s connections, ~s, ~s: ", [
        bench_report:thousands(Connections), load(Load), processes(Processes)
    ]),
    Ours = best(ours, Group),
    [
        bench_report:goal([Name, "against the original's way"], "times", best(original, Group) / Ours, at_least, 100),
        bench_report:goal([Name, "against the best of the others"], "times", best(other, Group) / Ours, at_least, 2)
    ].

-spec best(ours | original | other, [#result{}]) -> float().
best(Role, Group) ->
    lists:min([Ns || #result{ns = Ns, store = #store{role = Of}} <- Group, Of =:= Role]).

-spec table([#result{}]) -> bench_report:table().
table([#result{load = Load, connections = Connections} | _] = Case) ->
    {
        io_lib:format("Put and get of a request of ~b bytes, ~s connections, ~s (ns a request)", [
            bench_requests:bosh_size(), bench_report:thousands(Connections), load(Load)
        ]),
        ["" | [io_lib:format("~b proc.", [Processes]) || Processes <- ?PROCESSES]] ++ ["bytes/connection", "others' CPU"],
        [
            [Name | [bench_report:thousands(round(Ns)) || #result{ns = Ns} <- Row]] ++
                [bench_report:thousands(round((hd(Row))#result.bytes)), percent([Others || #result{others = Others} <- Row])]
         || {Name, Row} <- by_store(Case)
        ]
    }.

-spec percent([float()]) -> iodata().
percent(Shares) ->
    io_lib:format("~b %", [round(100 * lists:max(Shares))]).

-spec by_store([#result{}]) -> [{string(), [#result{}]}].
by_store(Case) ->
    [
        {Name, [Result || #result{store = #store{name = Of}} = Result <- Case, Of =:= Name]}
     || Name <- lists:uniq([Name || #result{store = #store{name = Name}} <- Case])
    ].

-spec chart([#result{}]) -> bench_svg:chart().
chart([#result{load = Load, connections = Connections} | _] = Case) ->
    #{
        title => io_lib:format("Put + get, ~s connections, ~s", [bench_report:thousands(Connections), load(Load)]),
        unit => "thousand requests a second",
        scale => log,
        groups => [processes(Processes) || Processes <- ?PROCESSES],
        series => [{Name, [1.0e6 / Ns || #result{ns = Ns} <- Row]} || {Name, Row} <- by_store(Case)]
    }.
