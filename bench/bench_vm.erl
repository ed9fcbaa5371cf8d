%% Fresh Erlang nodes to measure in, and what the operating system tells about them and about the machine.
-module(bench_vm).

-export([options/1, start/1, start/2, start_urgent/1, is_urgent/0, stop/1, call/4]).
-export([rss/0, undisturbed/1, median/1, percentile/2, say/2, gigabytes/0]).
-export_type([node_ref/0]).

-type node_ref() :: pid().

%% Schedulers do not wait actively: that takes processor time for nothing, most where there is least to do.
-define(QUIET, "+sbwt none +sbwtdcpu none +sbwtdio none").

%% What docs/ejabberdctl.cfg recommends; a test compares.
-define(RECOMMENDED, "+hms 16 +MHas ageffcaobf +MHlmbcs 512 +MRas ageffcaobf +MRlmbcs 512 " ?QUIET).

%% @doc The words of options for a virtual machine. `recommended' and `quiet' stand for what they name.
-spec options(string()) -> [string()].
options(Text) ->
    lists:append([named(Word) || Word <- string:lexemes(Text, " ")]).

-spec named(string()) -> [string()].
named("quiet") -> string:lexemes(?QUIET, " ");
named("recommended") -> string:lexemes(?RECOMMENDED, " ");
named(Word) -> [Word].

%% @doc Starts a node of its own for a measurement. No network, no name: it is talked to by its standard input.
-spec start([string()]) -> node_ref().
start(Arguments) ->
    start(Arguments, #{}).

%% @doc A node that goes before all others on the machine, where that is allowed: what it does is not interrupted, so
%% that wall clock is its own. For short work only: after 0.95 s in a second Linux lets the others in.
-spec start_urgent([string()]) -> node_ref().
start_urgent(Arguments) ->
    case is_urgent() of
        true -> start(Arguments, #{exec => {os:find_executable("chrt"), ["-f", "1", os:find_executable("erl")]}});
        false -> start(Arguments)
    end.

%% @doc Whether that is allowed.
-spec is_urgent() -> boolean().
is_urgent() ->
    os:cmd("chrt -f 1 echo yes 2>&1") =:= "yes\n".

%% @doc The same with further options of peer:start_link/1.
-spec start([string()], map()) -> node_ref().
start(Arguments, Options) ->
    Paths = lists:usort([filename:dirname(code:which(Module)) || Module <- [?MODULE, megaphone_nif]]),
    {ok, Peer, _Node} = peer:start_link(Options#{
        connection => standard_io,
        args => lists:append([["-pa", Path] || Path <- Paths]) ++ Arguments,
        wait_boot => 60000
    }),
    Peer.

-spec stop(node_ref()) -> ok.
stop(Peer) ->
    peer:stop(Peer).

%% @doc Calls a function there. What it fails with, this fails with.
-spec call(node_ref(), module(), atom(), [term()]) -> term().
call(Peer, Module, Function, Arguments) ->
    peer:call(Peer, Module, Function, Arguments, infinity).

%% @doc Bytes of memory that this node really has.
-spec rss() -> pos_integer().
rss() ->
    number(<<"Rss:">>, "/proc/self/smaps_rollup") * 1024.

%% @doc Gigabytes of memory that the machine can give.
-spec gigabytes() -> float().
gigabytes() ->
    number(<<"MemAvailable:">>, "/proc/meminfo") / 1048576.

%% The number of a line "Name:   123 kB".
-spec number(binary(), file:filename()) -> integer().
number(Name, File) ->
    {ok, Text} = file:read_file(File),
    {match, [Digits]} = re:run(Text, <<"^", Name/binary, "\\s+(\\d+)">>, [multiline, {capture, all_but_first, list}]),
    list_to_integer(Digits).

%% @doc Runs a function, and tells what share of the machine's processors others took meanwhile: they make a
%% measurement worthless that needs all processors.
-spec undisturbed(fun(() -> T)) -> {T, Others :: float()}.
undisturbed(Fun) ->
    {AllBefore, OwnBefore} = ticks(),
    Before = erlang:monotonic_time(millisecond),
    Result = Fun(),
    Time = max(1, erlang:monotonic_time(millisecond) - Before),
    {AllAfter, OwnAfter} = ticks(),
    Others = (AllAfter - AllBefore) - (OwnAfter - OwnBefore),
    %% A tick is 10 ms.
    {Result, max(0.0, Others * 10 / (Time * erlang:system_info(logical_processors_available)))}.

%% Ticks that all processes, and this one, have run.
-spec ticks() -> {integer(), integer()}.
ticks() ->
    {ok, Stat} = file:read_file("/proc/stat"),
    [Line | _] = binary:split(Stat, <<"\n">>),
    [<<"cpu">>, User, Nice, System, _Idle, _Wait, Irq, SoftIrq, Steal | _] =
        binary:split(Line, <<" ">>, [global, trim_all]),
    {ok, Own} = file:read_file("/proc/self/stat"),
    %% The name of the program, in parentheses, may hold anything.
    [_, AfterName] = binary:split(Own, <<") ">>),
    Fields = binary:split(AfterName, <<" ">>, [global]),
    {
        lists:sum([binary_to_integer(Ticks) || Ticks <- [User, Nice, System, Irq, SoftIrq, Steal]]),
        binary_to_integer(lists:nth(12, Fields)) + binary_to_integer(lists:nth(13, Fields))
    }.

-spec median([number(), ...]) -> number().
median(Values) ->
    percentile(50, Values).

-spec percentile(number(), [number(), ...]) -> number().
percentile(Percent, Values) ->
    Sorted = lists:sort(Values),
    lists:nth(max(1, ceil(Percent / 100 * length(Sorted))), Sorted).

%% @doc Progress, for who waits, with the time of day.
-spec say(io:format(), [term()]) -> ok.
say(Format, Arguments) ->
    {Hour, Minute, Second} = time(),
    io:format(standard_error, "bench ~2..0b:~2..0b:~2..0b: " ++ Format ++ "~n", [Hour, Minute, Second | Arguments]).
