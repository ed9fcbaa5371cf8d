%% The life of the native library: it is loaded once, keeps nothing of what has ended, and outlives the application.
-module(reload_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).

%% The full form is for `make check-deep'.
-define(CYCLES, list_to_integer(os:getenv("MEGAPHONE_CYCLES", "100000"))).
-define(WAITERS, 10000).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        loading_again_is_refused_and_harms_nothing,
        loading_after_a_purge_is_refused,
        other_modules_can_be_loaded_again,
        no_file_is_needed_later,
        modules_load_in_later_releases,
        application_stops_and_starts,
        cycles_leave_nothing,
        dead_waiters_leave_nothing
    ].

%% In a node of its own: a library cannot be taken out of a node again.
init_per_testcase(_Case, Config) ->
    Paths = lists:append([["-pa", filename:dirname(code:which(Module))] || Module <- [megaphone, ?MODULE]]),
    {ok, Peer, _Node} = peer:start_link(#{connection => standard_io, args => Paths}),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [megaphone]),
    [{peer, Peer} | Config].

end_per_testcase(_Case, Config) ->
    peer:stop(proplists:get_value(peer, Config)).

on_peer(Config, Function) ->
    peer:call(proplists:get_value(peer, Config), ?MODULE, Function, [], 600_000).

loading_again_is_refused_and_harms_nothing(Config) ->
    %% Loading the NIF module again in a running node is refused, and the table goes on as if nothing had been tried.
    ?assertEqual({{error, on_load_failure}, {ok, <<"kept">>}}, on_peer(Config, load_again)).

load_again() ->
    quiet(),
    {ok, Handle} = megaphone:open(#{packet => raw}),
    ok = megaphone:put_data(Handle, <<"kept">>),
    {code:load_file(megaphone_nif), megaphone:recv(Handle, 0)}.

loading_after_a_purge_is_refused(Config) ->
    %% When the module was deleted and purged, loading it again is refused with a reason that says what to do.
    {Answer, Log} = on_peer(Config, load_after_purge),
    ?assertEqual({error, on_load_failure}, Answer),
    ?assertNotEqual(nomatch, string:find(Log, "Restart the node")).

load_after_purge() ->
    quiet(),
    ok = logger:add_handler(told, megaphone_test, #{config => #{to => self()}}),
    {ok, _} = megaphone:open(),
    true = code:delete(megaphone_nif),
    _ = code:purge(megaphone_nif),
    Answer = code:load_file(megaphone_nif),
    {Answer, logged("already_loaded")}.

%% The first text that is logged with these words.
logged(Words) ->
    receive
        {log, Text} ->
            case string:find(Text, Words) of
                nomatch -> logged(Words);
                _ -> Text
            end
    after ?DEADLINE -> error({not_logged, Words})
    end.

other_modules_can_be_loaded_again(Config) ->
    %% All other modules can be exchanged while connections are open.
    ?assertEqual({ok, <<"kept">>}, on_peer(Config, load_others)).

load_others() ->
    quiet(),
    {ok, Handle} = megaphone:open(#{packet => raw}),
    ok = megaphone:put_data(Handle, <<"kept">>),
    {ok, Modules} = application:get_key(megaphone, modules),
    lists:foreach(
        fun(Module) ->
            _ = code:purge(Module),
            {module, Module} = code:load_file(Module)
        end,
        Modules -- [megaphone_nif]
    ),
    megaphone:recv(Handle, 0).

no_file_is_needed_later(Config) ->
    %% Once the application has started all its modules are loaded: an upgrade may take their files away.
    ?assertEqual([], on_peer(Config, not_loaded)).

not_loaded() ->
    {ok, [_ | _] = Modules} = application:get_key(megaphone, modules),
    [Module || Module <- Modules, code:is_loaded(Module) =:= false].

modules_load_in_later_releases(_Config) ->
    %% No module has the one instruction of OTP 25's compiler that OTP 29 does not load: what is built here serves both.
    _ = application:load(megaphone),
    {ok, Modules} = application:get_key(megaphone, modules),
    ?assert(length(Modules) > 20),
    ?assertEqual([], [{Module, Name, Arity} || Module <- Modules, {function, Name, Arity, _, Code} <- functions(Module), has(bs_test_unit, Code)]).

functions(Module) ->
    {beam_file, Module, _, _, _, Functions} = beam_disasm:file(code:which(Module)),
    Functions.

has(Test, Code) ->
    lists:any(fun(Step) -> is_tuple(Step) andalso tuple_size(Step) > 1 andalso element(2, Step) =:= Test end, Code).

application_stops_and_starts(Config) ->
    %% Stopping the application tells plain readers of local connections; a new start finds an empty table.
    ?assertEqual({{shutdown}, 0}, on_peer(Config, stop_and_start)).

stop_and_start() ->
    quiet(),
    {ok, Handle} = megaphone:open(#{packet => raw}),
    ok = megaphone:get_data(Handle, self()),
    ok = application:stop(megaphone),
    Answer =
        receive
            Message -> Message
        after ?DEADLINE -> nothing
        end,
    ok = application:start(megaphone),
    #{connections := Left} = megaphone_nif:stats(),
    {Answer, Left}.

cycles_leave_nothing(Config) ->
    %% Open, put, get and close, again and again, leave no live object and no memory behind.
    {Stats, Grown} = on_peer(Config, cycles),
    ?assertEqual([], megaphone_test:leftovers(Stats)),
    ?assert(maps:get(memory, Stats) < 500_000),
    ?assert(Grown < 2_000_000, {grown, Grown}).

cycles() ->
    in_process(fun() -> cycle(1000) end),
    Before = erlang:memory(system) + erlang:memory(binary),
    in_process(fun() -> cycle(?CYCLES) end),
    {settled(), erlang:memory(system) + erlang:memory(binary) - Before}.

cycle(0) ->
    ok;
cycle(Left) ->
    {ok, Handle} = megaphone:open(#{packet => http_bin}),
    ok = megaphone:put_data(Handle, <<"GET / HTTP/1.1\r\nHost: a\r\n\r\n">>),
    {ok, {http_request, 'GET', {abs_path, <<"/">>}, {1, 1}}} = megaphone:recv(Handle, 0),
    ok = megaphone:close(Handle),
    {ok, {http_header, _, 'Host', _, <<"a">>}} = megaphone:recv(Handle, 0),
    {ok, http_eoh} = megaphone:recv(Handle, 0),
    {error, closed} = megaphone:recv(Handle, 0),
    cycle(Left - 1).

dead_waiters_leave_nothing(Config) ->
    %% Processes that die while they wait leave no live object and no memory behind.
    {Stats, Grown} = on_peer(Config, dead_waiters),
    ?assertEqual([], megaphone_test:leftovers(Stats)),
    ?assert(maps:get(memory, Stats) < 500_000),
    ?assert(Grown < 2_000_000, {grown, Grown}).

dead_waiters() ->
    in_process(fun() -> wait_and_die(100) end),
    Before = erlang:memory(system) + erlang:memory(binary),
    in_process(fun() -> wait_and_die(?WAITERS) end),
    {settled(), erlang:memory(system) + erlang:memory(binary) - Before}.

%% Each of the waiters has a connection with itself as the only one that waits.
wait_and_die(Count) ->
    Waiters = [spawn_monitor(fun wait/0) || _ <- lists:seq(1, Count)],
    ok = wait_until(fun() -> maps:get(waiters, megaphone_nif:stats()) =:= Count end),
    lists:foreach(fun({Pid, _}) -> exit(Pid, kill) end, Waiters),
    lists:foreach(fun({Pid, MRef}) -> receive {'DOWN', MRef, process, Pid, _} -> ok end end, Waiters).

wait() ->
    {ok, Handle} = megaphone:open(#{packet => raw}),
    megaphone:recv(Handle).

settled() ->
    ok = wait_until(fun() -> megaphone_test:leftovers(megaphone_nif:stats()) =:= [] end),
    lists:foreach(fun erlang:garbage_collect/1, processes()),
    megaphone_nif:stats().

in_process(Fun) ->
    {Pid, MRef} = spawn_monitor(Fun),
    receive
        {'DOWN', MRef, process, Pid, Reason} -> normal = Reason
    end.

%% What these cases provoke is logged by the code server; it shall not be mixed into the peer's standard output.
quiet() ->
    logger:remove_handler(default).
