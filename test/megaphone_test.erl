%% Helpers of all suites: waiting with a deadline, and the check that nothing is left in the native table.
-module(megaphone_test).

-include("megaphone_test.hrl").

-export([start/1, start_with_proper/1, stop/1, begin_case/1, end_case/1, finish_case/2, log/2]).
-export([wait_until/1, wait_until/2, stats/0, leftovers/1]).
-export([open/0, open/1, held/2, run/1, reader/2, reader/3, drain/1, read_now/1, take_output/1]).

-type config() :: [{atom(), term()}].
-type handle() :: megaphone:handle().

%% ---- suites ----------------------------------------------------------------------------------------------------

%% For init_per_suite of suites without ejabberd.
-spec start(config()) -> config().
start(Config) ->
    {ok, Started} = application:ensure_all_started(megaphone),
    [{started, Started}, {before_suite, leftovers(stats())} | Config].

%% The same for a suite with properties. PropEr is called without its header, so that only running needs it.
-spec start_with_proper(config()) -> config().
start_with_proper(Config) ->
    case code:ensure_loaded(proper) of
        {module, _} -> start(Config);
        _ -> error("PropEr is not installed; `make setup' installs it")
    end.

%% For end_per_suite: all processes of the cases are dead, so nothing at all may be left, monitors included.
-spec stop(config()) -> ok.
stop(Config) ->
    _ = [ok = application:stop(App) || App <- lists:reverse(proplists:get_value(started, Config))],
    Before = proplists:get_value(before_suite, Config),
    wait_until(fun() -> leftovers(stats()) -- Before =:= [] end).

%% What a case before has left behind is not this one's fault. Its process may still be dying.
-spec begin_case(config()) -> config().
begin_case(Config) ->
    _ = catch wait_until(fun() -> leftovers(stats()) =:= [] end, 1000),
    [{before, lasting()} | Config].

%% What a case leaves behind makes it fail.
-spec end_case(config()) -> ok | {fail, term()}.
end_case(Config) ->
    Before = proplists:get_value(before, Config),
    finish_case(Config, fun() ->
        try
            wait_until(fun() -> lasting() =:= Before end)
        catch
            error:{deadline, _} -> error({left_in_the_table, [{before, Before}, {now, lasting()}]})
        end
    end).

%% For end_per_testcase: what the function raises makes the case fail. If it has failed already its own reason tells
%% more. The programs that the case has started end here.
-spec finish_case(config(), fun(() -> ok)) -> ok | {fail, term()}.
finish_case(Config, Check) ->
    try
        proplists:get_value(tc_status, Config) =/= ok orelse Check(),
        ok
    catch
        _:Reason -> {fail, Reason}
    after
        megaphone_test_program:kill_started()
    end.

%% The case's own process may still be watched: it lives, and processes are watched until they die.
-spec lasting() -> [{atom(), pos_integer()}].
lasting() ->
    lists:keydelete(watched, 1, leftovers(stats())).

%% As a handler of OTP's logger: sends {log, Text} to the process in its configuration.
-spec log(logger:log_event(), logger:handler_config()) -> ok.
log(Event, #{config := #{to := Pid}}) ->
    Pid ! {log, lists:flatten(logger_formatter:format(Event, #{single_line => true}))},
    ok.

-spec stats() -> #{atom() => non_neg_integer()}.
stats() ->
    megaphone_nif:stats().

%% The counters that are not zero. The table's memory is no such counter: a few empty queues, and room in its indexes, are
%% kept for what comes next. `table_SUITE' holds it to a bound.
-spec leftovers(#{atom() => non_neg_integer()}) -> [{atom(), pos_integer()}].
leftovers(Stats) ->
    [Counter || {_, Value} = Counter <- maps:to_list(maps:remove(memory, Stats)), Value =/= 0].

%% ---- waiting ---------------------------------------------------------------------------------------------------

%% Waits until the function answers true. For what no message tells.
-spec wait_until(fun(() -> boolean())) -> ok.
wait_until(Fun) ->
    wait_until(Fun, ?DEADLINE).

-spec wait_until(fun(() -> boolean()), timeout()) -> ok.
wait_until(Fun, Timeout) ->
    poll(Fun, erlang:monotonic_time(millisecond) + Timeout).

-spec poll(fun(() -> boolean()), integer()) -> ok.
poll(Fun, Deadline) ->
    case Fun() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error({deadline, erlang:fun_info(Fun, name)}),
            receive
            after 5 -> poll(Fun, Deadline)
            end
    end.

%% ---- connections -----------------------------------------------------------------------------------------------

%% A connection that is read in bytes.
-spec open() -> handle().
open() ->
    open(raw).

-spec open(megaphone_nif:packet()) -> handle().
open(Packet) ->
    {ok, Handle} = megaphone:open(#{packet => Packet}),
    Handle.

%% One number of what the table knows of a connection.
-spec held(atom(), handle()) -> term().
held(Key, Handle) ->
    {ok, #{Key := Value}} = megaphone:info(Handle),
    Value.

%% Runs a function in a process of its own; its result comes as {Pid, Result}.
-spec run(fun(() -> term())) -> pid().
run(Fun) ->
    Self = self(),
    spawn(fun() -> Self ! {self(), Fun()} end).

%% A process that reads once and tells {Pid, Result}. It waits already when this returns, unless there was input.
-spec reader(handle(), non_neg_integer()) -> pid().
reader(Handle, Length) ->
    reader(Handle, Length, infinity).

-spec reader(handle(), non_neg_integer(), timeout()) -> pid().
reader(Handle, Length, Timeout) ->
    Before = held(readers, Handle),
    Pid = run(fun() -> gen_tcp:recv(megaphone:socket(Handle), Length, Timeout) end),
    ok = wait_until(fun() -> held(readers, Handle) > Before orelse not is_process_alive(Pid) end),
    Pid.

%% All results until the connection is closed.
-spec drain(handle()) -> [term()].
drain(Handle) ->
    case megaphone:recv(Handle, ?DEADLINE) of
        {ok, Result} -> [Result | drain(Handle)];
        {error, closed} -> []
    end.

%% All bytes that are there now.
-spec read_now(handle()) -> binary().
read_now(Handle) ->
    case megaphone:recv(Handle, 0) of
        {ok, Data} -> <<Data/binary, (read_now(Handle))/binary>>;
        {error, _} -> <<>>
    end.

%% All output that is there now.
-spec take_output(handle()) -> binary().
take_output(Handle) ->
    case megaphone:output(Handle) of
        {ok, Data} -> <<Data/binary, (take_output(Handle))/binary>>;
        empty -> <<>>;
        {error, closed} -> <<>>
    end.
