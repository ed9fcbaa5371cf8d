%% How long single calls hold the scheduler, in a node with one scheduler (+S 1).
%%
%% {@link cpu/1}: the processor time that Linux counts for the scheduler's thread while one call runs. What others do on
%% the machine does not count. The kernel brings the count up to date when the thread sleeps, so it is let sleep before
%% and after; the time that this itself takes is measured first and taken off.
%%
%% {@link held/1}: for what happens by itself, as when a process dies: the longest time for which a process that only
%% yields did not get its turn. That is wall clock, so repeat it and take the least.
-module(bench_thread).

-export([prepare/0, cpu/1, held/1, walls/0]).

%% Words.
-define(ROOM, 4194304).

-define(BASE, {?MODULE, base}).
-define(STATISTICS, {?MODULE, file}).
-define(WALLS, {?MODULE, walls}).

%% @doc To be called first, in the process that measures.
-spec prepare() -> ok.
prepare() ->
    1 = erlang:system_info(schedulers_online),
    [Thread] = [Thread || Thread <- filelib:wildcard("/proc/self/task/*"), is_scheduler(Thread)],
    put(?STATISTICS, filename:join(Thread, "schedstat")),
    put(?BASE, 0),
    put(?WALLS, []),
    put(?BASE, bench_vm:median([cpu_of(fun() -> ok end) || _ <- lists:seq(1, 51)])),
    put(?WALLS, []),
    ok.

%% @doc Nanoseconds of wall clock of each call that was measured: what others do on the machine counts.
-spec walls() -> [non_neg_integer()].
walls() ->
    get(?WALLS).

-spec is_scheduler(file:filename()) -> boolean().
is_scheduler(Thread) ->
    %% "1_scheduler", or "erts_sched_1" since OTP 25.
    {ok, Name} = file:read_file(filename:join(Thread, "comm")),
    lists:member(string:trim(Name), [<<"1_scheduler">>, <<"erts_sched_1">>]).

%% @doc Nanoseconds of processor time, and the result, which is copied: it should be small. The function runs in a
%% process that has room enough not to be collected meanwhile.
-spec cpu(fun(() -> T)) -> {non_neg_integer(), T}.
cpu(Fun) ->
    Self = self(),
    Room = [link, {min_heap_size, ?ROOM}],
    Pid = spawn_opt(
        fun() ->
            receive go -> ok end,
            Start = erlang:monotonic_time(nanosecond),
            Value = Fun(),
            Self ! {self(), Value, erlang:monotonic_time(nanosecond) - Start},
            receive stop -> ok end
        end,
        Room
    ),
    Before = run_time(),
    Pid ! go,
    {Result, Wall} = receive {Pid, Of, Took} -> {Of, Took} end,
    %% What the thread does beside the call counts in it, such as giving back the memory of a process that has ended: a
    %% call takes no more than it took by the clock on the wall.
    Time = min(Wall, max(0, run_time() - Before - get(?BASE))),
    Pid ! stop,
    noted(Wall),
    {Time, Result}.

-spec noted(non_neg_integer()) -> ok.
noted(Wall) ->
    put(?WALLS, [Wall | get(?WALLS)]),
    ok.

-spec cpu_of(fun(() -> term())) -> non_neg_integer().
cpu_of(Fun) ->
    {Time, _} = cpu(Fun),
    Time.

-spec run_time() -> non_neg_integer().
run_time() ->
    receive after 2 -> ok end,
    {ok, Text} = file:read_file(get(?STATISTICS)),
    [Time | _] = binary:split(Text, <<" ">>),
    binary_to_integer(Time).

%% @doc Runs a function that starts something and waits for its end; the longest time that the scheduler was held.
-spec held(fun(() -> term())) -> non_neg_integer().
held(Fun) ->
    Self = self(),
    Ticker = spawn_link(fun() ->
        Self ! {self(), started},
        tick(erlang:monotonic_time(nanosecond), 0)
    end),
    receive {Ticker, started} -> ok end,
    _ = Fun(),
    Ticker ! {stop, Self},
    receive
        {Ticker, Longest} ->
            noted(Longest),
            Longest
    end.

-spec tick(integer(), non_neg_integer()) -> term().
tick(Last, Longest) ->
    erlang:yield(),
    Now = erlang:monotonic_time(nanosecond),
    receive
        {stop, From} -> From ! {self(), max(Longest, Now - Last)}
    after 0 -> tick(Now, max(Longest, Now - Last))
    end.
