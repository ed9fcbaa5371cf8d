%% What keeps requests for connections until they are read, in several ways that are to be compared; and the processes
%% that put requests into it and get them out, in a node of its own.
%%
%% A request is put as it came (one binary) and is got as its packets. Each process works on connections of its own,
%% so it gets exactly what was put for it, and checks it.
%%
%% Two loads: `idle', where nothing waits on the other connections, and a request is got right after it was put;
%% `full', where a request waits on every connection, and one is got, and put anew, on each that is worked on.
-module(bench_store).

-export([open/3, calibrate/4, measure/4, measure_undisturbed/4]).
-export_type([key/0, load/0, fill/0, variant/0]).

-type key() :: term().
%% A connection, as the store names it.

-type load() :: idle | full.
-type fill() :: none | fun((Place :: non_neg_integer()) -> Request :: binary()).
%% What waits on the connections, which are counted from 0.

-type variant() :: pos_integer().
%% Which of the different requests it is.

%% Opens so many connections, in the calling process, which lives as long as the node; and puts a request on each, if
%% there are some.
-callback open(Connections :: pos_integer(), fill()) -> [key()].
%% Puts a request. It is a part of a larger binary, as what is read from a link is: whoever keeps it has to copy it.
-callback put(key(), Request :: binary()) -> term().
%% Asks for the next request, if that can be done without waiting for it.
-callback ask(key(), variant()) -> term().
%% Gets all packets of the next request and compares them with what is expected.
-callback check(key(), Expected :: bench_requests:packets()) -> boolean().

%% Connections that are worked on at a time: what an ECM delivers at a time. It gives a store with processes of its own
%% the chance to handle several at a turn.
-define(BATCH, 16).

%% Operations of one round: on far more connections than the caches hold, few enough to be prepared quickly.
-define(MOST, 400000).

-define(SHARED, ?MODULE).

-record(shared, {
    keys :: tuple(),
    requests :: tuple(),
    expected :: tuple()
}).

-type operation() :: {key(), variant()}.

%% @doc Opens the connections; they belong to a process that is left behind for that. The bytes of memory of each, as the
%% VM counts them, without those of the key that the user of a connection has.
-spec open(module(), load(), pos_integer()) -> BytesEach :: float().
open(Store, Load, Connections) ->
    Self = self(),
    {_, Monitor} = spawn_monitor(fun() ->
        {Requests, Expected} = bench_requests:all_variants(),
        Fill =
            case Load of
                idle -> none;
                full -> fun(Place) -> element(variant(Place), Requests) end
            end,
        Before = erlang:memory(total),
        Keys = list_to_tuple(Store:open(Connections, Fill)),
        persistent_term:put(?SHARED, #shared{keys = Keys, requests = Requests, expected = Expected}),
        Size = 8 * erts_debug:flat_size(Keys),
        true = erlang:garbage_collect(),
        Self ! {opened, (erlang:memory(total) - Before - Size) / Connections},
        hibernate()
    end),
    receive
        {opened, BytesEach} -> BytesEach;
        {'DOWN', Monitor, process, _, Reason} -> error(Reason)
    end.

%% Nothing of what was prepared may stay in the memory of the owner.
-spec hibernate() -> no_return().
hibernate() ->
    erlang:hibernate(timer, sleep, [infinity]).

%% Each connection always has the same request, but its neighbours have others.
-spec variant(non_neg_integer()) -> variant().
variant(Place) ->
    Place rem bench_requests:variants() + 1.

%% @doc How many operations take about so many milliseconds.
-spec calibrate(module(), load(), pos_integer(), pos_integer()) -> pos_integer().
calibrate(Store, Load, Processes, Milliseconds) ->
    calibrate(Store, Load, Processes, Milliseconds * 1000000, 4 * Processes * ?BATCH).

-spec calibrate(module(), load(), pos_integer(), pos_integer(), pos_integer()) -> pos_integer().
calibrate(Store, Load, Processes, Wanted, Operations) ->
    Took = Operations * measure(Store, Load, Processes, Operations),
    if
        Operations >= ?MOST -> ?MOST;
        Took >= Wanted / 4 -> max(Processes * ?BATCH, min(?MOST, round(Operations * Wanted / Took)));
        true -> calibrate(Store, Load, Processes, Wanted, min(?MOST, 4 * Operations))
    end.

%% @doc As measure/4, with the share of the processors that others took meanwhile.
-spec measure_undisturbed(module(), load(), pos_integer(), pos_integer()) -> {float(), Others :: float()}.
measure_undisturbed(Store, Load, Processes, Operations) ->
    bench_vm:undisturbed(fun() -> measure(Store, Load, Processes, Operations) end).

%% @doc Nanoseconds of wall clock for each put and get of a whole request, all processes together.
-spec measure(module(), load(), pos_integer(), pos_integer()) -> float().
measure(Store, Load, Processes, Operations) ->
    Each = Operations div Processes,
    Start = rand:uniform(1 bsl 40),
    Workers = [start(Store, Load, {Number, Processes}, Each, Start) || Number <- lists:seq(0, Processes - 1)],
    _ = [
        receive
            {Pid, ready} -> ok;
            {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
        end
     || {Pid, Monitor} <- Workers
    ],
    Before = erlang:monotonic_time(nanosecond),
    _ = [Pid ! go || {Pid, _} <- Workers],
    _ = [
        receive
            {'DOWN', Monitor, process, Pid, done} -> ok;
            {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
        end
     || {Pid, Monitor} <- Workers
    ],
    (erlang:monotonic_time(nanosecond) - Before) / (Each * Processes).

-spec start(module(), load(), {non_neg_integer(), pos_integer()}, pos_integer(), pos_integer()) ->
    {pid(), reference()}.
start(Store, Load, Share, Each, Start) ->
    Self = self(),
    spawn_monitor(fun() ->
        #shared{keys = Keys, requests = Requests, expected = Expected} = persistent_term:get(?SHARED),
        Batches = batches(operations(Share, Each, Start, Keys)),
        %% What was prepared moves out of the way of the collections that come while time is taken.
        true = erlang:garbage_collect(),
        Self ! {self(), ready},
        receive go -> ok end,
        run(Store, Load, Batches, Requests, Expected),
        exit(done)
    end).

-spec run(module(), load(), [[operation()]], tuple(), tuple()) -> ok.
run(_Store, _Load, [], _Requests, _Expected) ->
    ok;
run(Store, idle, [Batch | Batches], Requests, Expected) ->
    put_all(Store, Batch, Requests),
    ask_all(Store, Batch),
    check_all(Store, Batch, Expected),
    run(Store, idle, Batches, Requests, Expected);
run(Store, full, [Batch | Batches], Requests, Expected) ->
    ask_all(Store, Batch),
    check_all(Store, Batch, Expected),
    put_all(Store, Batch, Requests),
    run(Store, full, Batches, Requests, Expected).

-spec put_all(module(), [operation()], tuple()) -> ok.
put_all(_Store, [], _Requests) ->
    ok;
put_all(Store, [{Key, Variant} | Batch], Requests) ->
    _ = Store:put(Key, element(Variant, Requests)),
    put_all(Store, Batch, Requests).

-spec ask_all(module(), [operation()]) -> ok.
ask_all(_Store, []) ->
    ok;
ask_all(Store, [{Key, Variant} | Batch]) ->
    _ = Store:ask(Key, Variant),
    ask_all(Store, Batch).

-spec check_all(module(), [operation()], tuple()) -> ok.
check_all(_Store, [], _Expected) ->
    ok;
check_all(Store, [{Key, Variant} | Batch], Expected) ->
    case Store:check(Key, element(Variant, Expected)) of
        true -> check_all(Store, Batch, Expected);
        false -> exit({wrong_packets, Store, Key})
    end.

-spec batches([operation()]) -> [[operation()]].
batches([]) ->
    [];
batches(Operations) ->
    Batch = lists:sublist(Operations, ?BATCH),
    [Batch | batches(lists:nthtail(length(Batch), Operations))].

%% Different connections out of every so many-th, far apart from each other.
-spec operations({non_neg_integer(), pos_integer()}, pos_integer(), pos_integer(), tuple()) -> [operation()].
operations({Number, Processes}, Each, Start, Keys) ->
    Mine = tuple_size(Keys) div Processes,
    Stride = coprime(round(Mine * 0.618), Mine),
    [
        begin
            Place = Number + Processes * ((Start + At * Stride) rem Mine),
            {copy(element(Place + 1, Keys)), variant(Place)}
        end
     || At <- lists:seq(0, Each - 1)
    ].

%% A user of a connection has its key at hand, in its own memory.
-spec copy(key()) -> key().
copy({A, B, C, D}) -> {A, B, C, D};
copy(Key) -> Key.

-spec coprime(pos_integer(), pos_integer()) -> pos_integer().
coprime(Number, Of) ->
    case gcd(Number, Of) of
        1 -> Number;
        _ -> coprime(Number - 1, Of)
    end.

-spec gcd(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
gcd(A, 0) -> A;
gcd(A, B) -> gcd(B, A rem B).
