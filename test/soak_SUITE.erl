%% Users of BOSH (Strophe.js) and of WebSocket (xmpp.js) write to each other while everything breaks that can, two nodes of an
%% ejabberd cluster and two connection managers included: what is promised arrives, and when all have left nothing is left of them.
%% What is promised stands in megaphone_test_soak_oracle.
%%
%% A warm-up comes first, with the same users and the same faults, but no node is killed: what is there afterwards, with nobody
%% logged in, is what must be there at the end again. In the second half of the run the first node is spared, so that it has a
%% long life to show.
%%
%% The short form, of every day, makes each fault once, and asks for all but for what memory does in the long run.
%%
%% MEGAPHONE_SOAK_SECONDS is for how long, and asks for it at all (`make soak': an hour), MEGAPHONE_SOAK_SEED repeats the faults of a run,
%% MEGAPHONE_SOAK_RECORD names a directory for the report.
-module(soak_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-define(PROGRAMS, [{Kind, Number} || Number <- [1, 2], Kind <- [bosh, ws]]).
%% Of each program, and milliseconds between two messages of each.
-define(USERS, 6).
-define(PAUSE, 1000).
%% Between two rude clients.
-define(RUDE_PAUSE, 500).
-define(PASSWORD, "pass-of-a-test").
%% Milliseconds for all users to be there, and for the last messages.
-define(COMING, 60000).
-define(ARRIVING, 30000).
%% Milliseconds for memory to be given back.
-define(SETTLING, 60000).
%% What may be there more than after the warm-up.
-define(MORE, 1.05).
%% Bytes of a native table that have nothing in them: each of its 64 parts keeps a block of some 2 kB once it was used, and which
%% ones were is a matter of chance.
-define(ROOM, 131072).
%% Bytes of RSS that an allocator keeps or gives back as it likes: of a manager that has 6 MB they are more than a twentieth.
-define(RSS_ROOM, 1048576).
%% Of all messages so many must have been promised, and of each kind this many of all.
-define(SHARE, 0.4).
-define(SHARE_OF_KIND, 0.05).
-define(PROMISED, [promised_from_bosh, promised_from_ws, promised_to_bosh, promised_to_ws, promised_between_nodes, promised_while_broken]).
%% Of each kind, and of sessions that end with their node, in the short form.
-define(FEWEST, 3).
%% Of all sessions no more may have ended because their clients gave up, or came back too late.
-define(SHARE_GIVEN_UP, 0.1).
%% Seconds between two lines, and between two points of the curve.
-define(LINES, 15).
-define(POINTS, 3).

suite() -> [{timetrap, {hours, 26}}].

%% The long form where it is asked for.
all() ->
    Soak = case os:getenv("MEGAPHONE_SOAK_SECONDS") of false -> each_fault_once; _ -> soak end,
    [the_oracle_finds_what_is_wrong, Soak].

init_per_suite(Config) -> Config.

end_per_suite(_Config) -> ok.

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> ok end).

%% ---- the oracle ------------------------------------------------------------------------------------------------

the_oracle_finds_what_is_wrong(_Config) ->
    %% A history in which all is well is taken; each fault that is put into it is found, and what is no promise is none.
    Good = history(),
    #{wrong := [], counts := #{promised := 2, sent := 5}} = megaphone_test_soak_oracle:judge(Good),
    Without = fun(Event) -> true = lists:member(Event, Good), Good -- [Event] end,
    Got = {got, 1200, <<"b">>, <<"a">>, <<"b">>, 1, 7, true},
    %% The answers to two requests, taken in the wrong order: they are not wrong, the other way round they are.
    Second = {got, 1300, <<"b">>, <<"a">>, <<"b">>, 2, 9, true},
    Found = [
        {lost, Without(Got)},
        {doubled, Good ++ [Got]},
        {damaged, swap(Got, setelement(8, Got, false), Good)},
        {in_another_session, swap(Got, setelement(3, Got, <<"a">>), Good)},
        {disordered, swap(Second, setelement(7, Second, 5), Good)},
        {bounced_though_both_lived, Good ++ [{bounced, 1500, <<"a">>, <<"b">>, 1}]},
        {never_sent, Good ++ [{got, 1500, <<"b">>, <<"a">>, <<"b">>, 99, 8, true}]},
        {unconfirmed, Without({confirmed, 1700, <<"a">>, <<"b">>, 3})},
        {session_ended, swap({offline, 20000, <<"a">>, left}, {offline, 20000, <<"a">>, refused}, Good)},
        {session_ended, swap({offline, 20000, <<"b">>, left}, {offline, 20000, <<"b">>, {ended, <<"404">>}}, Good)},
        {session_ended, swap({offline, 20000, <<"b">>, left}, {offline, 20000, <<"b">>, {gave_up, 0}}, Good)},
        {session_ended, Without({offline, 20000, <<"b">>, left})}
    ],
    [
        ?assertMatch({What, [{What, _}]}, {What, [{element(1, Each), Each} || Each <- maps:get(wrong, megaphone_test_soak_oracle:judge(Events))]})
     || {What, Events} <- Found
    ],
    Excused = [
        %% Its node was killed, or another one.
        {[], [{node_killed, 15000, 1}], {offline, 20000, <<"b">>, refused}},
        {[session_ended], [{node_killed, 15000, 2}], {offline, 20000, <<"b">>, refused}},
        {[session_ended], [{node_killed, 2000, 1}], {offline, 20000, <<"b">>, refused}},
        {[], [{broken, 15000, 16000}], {offline, 20000, <<"b">>, {gave_up, 503}}},
        %% It came back after 24.999 s, and after 25.
        {[session_ended], [{resuming, 15001, <<"b">>}, {broken, 15000, 16000}], {offline, 40000, <<"b">>, refused}},
        {[], [{resuming, 15000, <<"b">>}, {broken, 15000, 16000}], {offline, 40000, <<"b">>, refused}},
        {[session_ended], [{resuming, 15000, <<"b">>}], {offline, 40000, <<"b">>, refused}},
        {[session_ended], [{broken, 15000, 16000}], {offline, 20000, <<"b">>, {ended, <<"404">>}}}
    ],
    [
        ?assertEqual({Events, Wrong}, {Events, [element(1, Each) || Each <- maps:get(wrong, megaphone_test_soak_oracle:judge(swap({offline, 20000, <<"b">>, left}, End, Good ++ Events)))]})
     || {Wrong, Events, End} <- Excused
    ].

swap(Event, Other, Events) ->
    true = lists:member(Event, Events),
    [case Each of Event -> Other; _ -> Each end || Each <- Events].

%% Two sessions; the messages of a that are followed by signs of life of both are promised, its third one came too late for that.
history() ->
    Message = fun(From, To, N, Sent) -> [{sent, Sent, From, To, N}, {confirmed, Sent + 100, From, To, N}] end,
    [{online, 0, <<"a">>, ws}, {online, 0, <<"b">>, bosh}, {home, 0, <<"a">>, 1}, {home, 0, <<"b">>, 1}] ++
        Message(<<"a">>, <<"b">>, 1, 1000) ++
        Message(<<"a">>, <<"b">>, 2, 1100) ++
        [{got, 1300, <<"b">>, <<"a">>, <<"b">>, 2, 9, true}, {got, 1200, <<"b">>, <<"a">>, <<"b">>, 1, 7, true}] ++
        Message(<<"a">>, <<"b">>, 3, 1600) ++
        Message(<<"a">>, <<"a">>, 1, 5400) ++
        Message(<<"b">>, <<"b">>, 1, 5400) ++
        [{offline, 20000, <<"a">>, left}, {offline, 20000, <<"b">>, left}].

%% ---- the soak --------------------------------------------------------------------------------------------------

each_fault_once(Config) ->
    %% Everything breaks once while all users write: what is promised arrives once and in order, nobody loses a session without a
    %% reason, and nobody is left.
    Seed = seed(),
    say("each fault once, seed ~b", [Seed]),
    ok = world(Config),
    Run = #{counts := Counts} = phases(Seed, fun megaphone_test_soak_faults:each_once/2, none),
    ok = megaphone_test_soak_world:quiet(),
    Wrong = maps:get(wrong, Run) ++ [{logged, Line} || Line <- megaphone_test_soak_world:complaints()],
    _ = [ct:log("~p", [Each]) || Each <- Wrong],
    ct:log("~p", [maps:with([faults, counts, rude], Run)]),
    ?assertEqual([], kinds(Wrong)),
    ?assertEqual([], [Kind || Kind <- [ended_with_node | ?PROMISED], maps:get(Kind, Counts) < ?FEWEST]),
    ok = megaphone_test_soak_world:stop().

soak(Config) ->
    %% What is promised arrives once and in order, nobody loses a session without a reason, and nothing stays behind.
    Seconds = list_to_integer(os:getenv("MEGAPHONE_SOAK_SECONDS")),
    Seed = seed(),
    say("~b s, seed ~b", [Seconds, Seed]),
    ok = world(Config),
    ok = megaphone_test_soak_world:renew_nodes(),
    Warm = phases(Seed, timed([{warm_up, min(60, max(20, Seconds div 10))}]), none),
    Before = await_rest(fun(_) -> true end),
    say("warm: ~s", [sizes(Before)]),
    Sampler = sampler(),
    Run = phases(Seed + 1, timed([{both_nodes, Seconds div 2}, {second_node, Seconds - Seconds div 2}]), Sampler),
    Later = await_rest(fun(Now) -> grown(Before, Now) =:= [] end),
    Samples = samples(Sampler),
    say("then: ~s", [sizes(Later)]),
    Wrong = [{warm_up, Each} || Each <- maps:get(wrong, Warm)] ++ maps:get(wrong, Run) ++ grown(Before, Later) ++ few(Run) ++
        [{logged, Line} || Line <- megaphone_test_soak_world:complaints()],
    Shown = [lists:flatten(io_lib:format("~p", [Each])) || Each <- Wrong],
    Outcome = (maps:with([faults, counts, rude], Run))#{
        seed => Seed, seconds => Seconds, users => length(?PROGRAMS) * ?USERS, samples => Samples, before => Before, later => Later, wrong => Shown
    },
    Name = filename:join(os:getenv("MEGAPHONE_SOAK_RECORD", proplists:get_value(priv_dir, Config)), "soak-" ++ date_text()),
    ok = megaphone_test_soak_report:write(Name, Outcome),
    say("the report is ~s.txt", [Name]),
    _ = [ct:log("~s", [Each]) || Each <- Shown],
    ?assertEqual([], kinds(Wrong)),
    ok = megaphone_test_soak_world:stop().

seed() -> list_to_integer(os:getenv("MEGAPHONE_SOAK_SEED", integer_to_list(rand:uniform(1000000)))).

world(Config) ->
    Users = [megaphone_test_soak_crowd:name(Program, User) || Program <- ?PROGRAMS, User <- lists:seq(1, ?USERS)],
    megaphone_test_soak_world:start(filename:join(proplists:get_value(priv_dir, Config), "soak"), Users).

%% Faults of each of these phases for so many seconds.
timed(Phases) ->
    fun(New, Tell) ->
        lists:foldl(fun({Phase, Time}, {Faults, _}) -> megaphone_test_soak_faults:run(Faults, Phase, Time * 1000, Tell) end, {New, #{}}, Phases)
    end.

%% How often what was wrong.
kinds(Wrong) ->
    maps:to_list(lists:foldl(fun(Each, Kinds) -> maps:update_with(element(1, Each), fun(Count) -> Count + 1 end, 1, Kinds) end, #{}, Wrong)).

date_text() ->
    {{Year, Month, Day}, _} = calendar:universal_time(),
    lists:flatten(io_lib:format("~4..0b-~2..0b-~2..0b", [Year, Month, Day])).

%% Users come, write while all goes wrong, and leave; what the oracle says of it.
phases(Seed, Trouble, Sampler) ->
    Crowd = megaphone_test_soak_crowd:start(#{
        programs => ?PROGRAMS, users => ?USERS, ports => megaphone_test_soak_world:ports(), pause => ?PAUSE, seed => Seed, password => ?PASSWORD,
        home => fun megaphone_test_soak_world:home/1
    }),
    ok = megaphone_test_soak_crowd:enter(Crowd),
    All = length(?PROGRAMS) * ?USERS,
    ok = megaphone_test:wait_until(fun() -> maps:get(there, megaphone_test_soak_crowd:counts(Crowd)) =:= All end, ?COMING),
    Rude = megaphone_test_soak_rude:start(megaphone_test_soak_world:ports(), ?RUDE_PAUSE, Seed),
    Watcher = watcher(Crowd, Sampler),
    {_, Faults} = Trouble(megaphone_test_soak_faults:new(Crowd, Seed), fun(Kind) -> Watcher ! {fault, Kind} end),
    ok = megaphone_test_soak_rude:stop(Rude),
    _ = catch megaphone_test:wait_until(fun() -> megaphone_test_soak_crowd:missing(Crowd) =:= [] end, ?COMING),
    Missing = megaphone_test_soak_crowd:missing(Crowd),
    ok = megaphone_test_soak_crowd:rest(Crowd),
    %% All that was promised is given its time to arrive.
    _ = catch megaphone_test:wait_until(fun() -> [] =:= [Each || {lost, _} = Each <- maps:get(wrong, judged(Crowd))] end, ?ARRIVING),
    ok = megaphone_test_soak_crowd:leave(Crowd),
    Watcher ! stop,
    #{wrong := Wrong} = Judged = judged(Crowd),
    {_, Complaints} = megaphone_test_soak_crowd:events(Crowd),
    ok = megaphone_test_soak_crowd:stop(Crowd),
    Judged#{faults => Faults, rude => megaphone_test_soak_rude:count(Rude), wrong := Wrong ++ Missing ++ [{client_said, Line} || Line <- Complaints]}.

judged(Crowd) ->
    {Events, _} = megaphone_test_soak_crowd:events(Crowd),
    megaphone_test_soak_oracle:judge(Events).

%% The promise must have been given often enough: in all, and for each kind of message.
few(#{counts := #{sent := Sent, sessions := Sessions, gave_up := GaveUp, came_late := Late} = Counts}) ->
    [{too_many_gave_up, GaveUp, Late, Sessions} || GaveUp + Late > ?SHARE_GIVEN_UP * Sessions] ++
        [{too_few, Kind, Count, Sent} || {Kind, Share} <- [{promised, ?SHARE} | [{Each, ?SHARE_OF_KIND} || Each <- ?PROMISED]], Count <- [maps:get(Kind, Counts)], Count < Share * Sent].

%% ---- what stays behind -----------------------------------------------------------------------------------------

%% When nothing of clients is there: all that can be counted, as soon as it is what it should be, or in the end.
await_rest(IsRight) ->
    ok = megaphone_test_soak_world:quiet(),
    Rest = fun() -> IsRight(megaphone_test_soak_world:resting()) end,
    _ = catch megaphone_test:wait_until(fun() -> Rest() orelse begin receive after 1000 -> false end end end, ?SETTLING),
    megaphone_test_soak_world:resting().

%% What has grown. Sizes may by a twentieth, numbers may not.
grown(Before, Later) ->
    [
        {grown, Place, Key, Then, Now}
     || {Place, Sizes} <- maps:to_list(Before),
        {Key, Then} <- maps:to_list(Sizes),
        Now <- [maps:get(Key, maps:get(Place, Later))],
        Now > most(Key, Then)
    ].

most(rss, Then) -> max(Then * ?MORE, Then + ?RSS_ROOM);
most(total, Then) -> Then * ?MORE;
most(Key, Then) when Key =:= table; Key =:= bosh -> max(Then * ?MORE, Then + ?ROOM);
most(_, Then) -> Then.

sizes(Sizes) ->
    lists:join("; ", [
        io_lib:format("~s ~b: ~s", [What, N, lists:join(", ", [io_lib:format("~s ~b", [Key, Value]) || {Key, Value} <- lists:sort(maps:to_list(Each))])])
     || {{What, N}, Each} <- lists:sort(maps:to_list(Sizes))
    ]).

%% ---- progress --------------------------------------------------------------------------------------------------

say(Format, Arguments) ->
    io:format(user, "soak: " ++ Format ++ "~n", Arguments),
    ct:log(Format, Arguments).

%% Prints a line now and then, and has samples taken.
watcher(Crowd, Sampler) ->
    Began = erlang:monotonic_time(second),
    spawn_link(fun() -> watch(Crowd, Sampler, Began, 1, 0) end).

watch(Crowd, Sampler, Began, Round, Faults) ->
    receive
        stop -> ok;
        {fault, Kind} ->
            _ = [say("~s", [Kind]) || os:getenv("MEGAPHONE_SOAK_TALKS") =/= false],
            watch(Crowd, Sampler, Began, Round, Faults + 1)
    after max(0, (Began + Round * ?POINTS) * 1000 - erlang:monotonic_time(millisecond)) ->
        Counts = #{there := There, sent := Sent, got := Got} = megaphone_test_soak_crowd:counts(Crowd),
        Sizes = megaphone_test_soak_world:sample(),
        Time = erlang:monotonic_time(second) - Began,
        _ = [Sampler ! {sample, {Time, Sizes, Counts, Faults}} || is_pid(Sampler)],
        _ = [
            say("~b s, ~b users, ~b messages sent, ~b arrived, ~b faults; MB of nodes: ~w", [
                Time, There, Sent, Got, Faults, [round(Rss / 1.0e6) || {{node, _}, #{rss := Rss}} <- lists:sort(maps:to_list(Sizes))]
            ])
         || Round * ?POINTS rem ?LINES =:= 0
        ],
        watch(Crowd, Sampler, Began, Round + 1, Faults)
    end.

sampler() -> spawn_link(fun() -> collect([]) end).

collect(Samples) ->
    receive
        {sample, Sample} -> collect([Sample | Samples]);
        {all, From} -> From ! {self(), lists:reverse(Samples)}
    end.

samples(Sampler) ->
    Sampler ! {all, self()},
    element(2, ?assertReceive({Sampler, _})).
