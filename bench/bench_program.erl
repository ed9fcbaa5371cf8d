%% Programs of the operating system that take part in a benchmark: the load generator, the connection manager. Each is
%% a port of the process that starts it, talks in lines, and ends with that process, however it ends.
-module(bench_program).

-export([start/2, start_server/2, tell/2, await/3, watch/2, stop/1, ticks/1, rss/1, descriptors/1, peak/1, forget_peak/1, built/1, text/2, number/2]).
-export_type([program/0]).

-type program() :: #{port := port(), os_pid := pos_integer(), name := string()}.

%% Milliseconds in which a program that was asked to end does so.
-define(END_WITHIN, 15000).

%% A server does not watch its input: this shell does so for it. The number comes before all that the server says.
-define(SHELL, "sh -c 'echo \"pid $$\"; exec \"$@\"' sh \"$@\" & pid=$!; cat >/dev/null; kill -INT \"$pid\"; wait").

%% @doc Starts a program that ends with its standard input.
-spec start(file:filename(), [string()]) -> program().
start(File, Arguments) ->
    Port = open(File, Arguments),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    #{port => Port, os_pid => OsPid, name => filename:basename(File)}.

%% @doc Starts one that ends with a signal; its lines of errors count as output.
-spec start_server(file:filename(), [string()]) -> program().
start_server(File, Arguments) ->
    Port = open("/bin/sh", ["-c", ?SHELL, "sh", File | Arguments]),
    Program = #{port => Port, os_pid => 1, name => filename:basename(File)},
    <<"pid ", OsPid/binary>> = await(Program, "^pid ", 5000),
    Program#{os_pid := binary_to_integer(OsPid)}.

-spec open(file:filename(), [string()]) -> port().
open(File, Arguments) ->
    open_port({spawn_executable, File}, [
        {args, Arguments}, {line, 65536}, binary, exit_status, use_stdio, stderr_to_stdout
    ]).

%% @doc Writes a line to its standard input.
-spec tell(program(), iodata()) -> ok.
tell(#{port := Port}, Line) ->
    true = port_command(Port, [Line, $\n]),
    ok.

%% @doc The next line that the pattern is found in; lines before it are dropped. Fails if the program ends, or none comes
%% within so many milliseconds.
-spec await(program(), string(), timeout()) -> binary().
await(#{name := Name} = Program, Pattern, Timeout) ->
    case find(Program, Pattern, deadline(Timeout), []) of
        {line, Line} -> Line;
        {timeout, Lines} -> error({program_did_not_say, Name, Pattern, Lines})
    end.

%% @doc Passes so many milliseconds, in which none of the programs may end.
-spec watch([program()], non_neg_integer()) -> ok.
watch(Programs, Time) ->
    Deadline = deadline(Time),
    lists:foreach(fun(Program) -> {timeout, _} = find(Program, "\"event\":\"error\"", Deadline, []) end, Programs).

-spec find(program(), string(), integer(), [binary()]) -> {line, binary()} | {timeout, [binary()]}.
find(#{port := Port, name := Name} = Program, Pattern, Deadline, Lines) ->
    receive
        {Port, {data, {_, Line}}} ->
            case re:run(Line, Pattern) of
                {match, _} -> {line, Line};
                nomatch -> find(Program, Pattern, Deadline, lists:sublist([Line | Lines], 20))
            end;
        {Port, {exit_status, Status}} ->
            error({program_ended, Name, Status, Lines})
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        {timeout, Lines}
    end.

-spec deadline(non_neg_integer()) -> integer().
deadline(Timeout) ->
    erlang:monotonic_time(millisecond) + Timeout.

%% @doc Ends it, and waits for that.
-spec stop(program()) -> ok.
stop(#{port := Port, os_pid := OsPid}) ->
    _ = catch port_close(Port),
    gone(OsPid, deadline(?END_WITHIN)).

-spec gone(pos_integer(), integer()) -> ok.
gone(OsPid, Deadline) ->
    Proc = "/proc/" ++ integer_to_list(OsPid),
    IsOver = erlang:monotonic_time(millisecond) > Deadline,
    case filelib:is_dir(Proc) of
        false ->
            ok;
        true when IsOver ->
            _ = os:cmd("kill -KILL " ++ integer_to_list(OsPid)),
            ok;
        true ->
            receive
            after 20 -> gone(OsPid, Deadline)
            end
    end.

%% @doc Hundredths of a second that a process of the system has run.
-spec ticks(pos_integer()) -> non_neg_integer().
ticks(OsPid) ->
    {ok, Stat} = file:read_file(["/proc/", integer_to_list(OsPid), "/stat"]),
    %% The name of the program, in parentheses, may hold anything.
    [_, AfterName] = binary:split(Stat, <<") ">>),
    Fields = binary:split(AfterName, <<" ">>, [global]),
    binary_to_integer(lists:nth(12, Fields)) + binary_to_integer(lists:nth(13, Fields)).

%% @doc Bytes of memory that a process of the system really has.
-spec rss(pos_integer()) -> non_neg_integer().
rss(OsPid) ->
    {ok, Text} = file:read_file(["/proc/", integer_to_list(OsPid), "/smaps_rollup"]),
    {match, [Kilobytes]} = re:run(Text, "Rss:\\s+(\\d+)", [{capture, all_but_first, list}]),
    list_to_integer(Kilobytes) * 1024.

%% @doc How many descriptors it has open.
-spec descriptors(pos_integer()) -> non_neg_integer().
descriptors(OsPid) ->
    {ok, Names} = file:list_dir(["/proc/", integer_to_list(OsPid), "/fd"]),
    length(Names).

%% @doc The most that it has had since the system was told to forget it.
-spec peak(pos_integer()) -> non_neg_integer().
peak(OsPid) ->
    {ok, Text} = file:read_file(["/proc/", integer_to_list(OsPid), "/status"]),
    {match, [Kilobytes]} = re:run(Text, "VmHWM:\\s+(\\d+)", [{capture, all_but_first, list}]),
    list_to_integer(Kilobytes) * 1024.

-spec forget_peak(pos_integer()) -> ok.
forget_peak(OsPid) ->
    ok = file:write_file(["/proc/", integer_to_list(OsPid), "/clear_refs"], "5").

%% @doc A program that bench/run has built.
-spec built(string()) -> file:filename().
built(Name) ->
    File = filename:join(os:getenv("BENCH_PROGRAMS", "."), Name),
    filelib:is_regular(File) orelse error({"not built", File}),
    File.

%% @doc The string in a member of an object, of one line of JSON.
-spec text(string(), binary()) -> binary().
text(Name, Json) ->
    {match, [Value]} = re:run(Json, ["\"", Name, "\":\"([^\"]*)\""], [{capture, all_but_first, binary}]),
    Value.

%% @doc The same for a number.
-spec number(string(), binary()) -> number().
number(Name, Json) ->
    {match, [Digits]} = re:run(Json, ["\"", Name, "\":([0-9.]+)"], [{capture, all_but_first, list}]),
    case string:to_float(Digits) of
        {error, no_float} -> list_to_integer(Digits);
        {Number, _} -> Number
    end.
