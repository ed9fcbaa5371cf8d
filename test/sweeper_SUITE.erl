%% Idle users' memory is given back, and nobody notices: sessions are collected or put to sleep in a real ejabberd, and
%% whatever comes into that moment is handled as ever.
-module(sweeper_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_http, [bosh/4]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).

%% Milliseconds: short, so that users are idle at once.
-define(IDLE_AFTER, "50 milliseconds").
%% What one process that is asleep, or collected, may take: a client session with all that it has.
-define(ASLEEP, 6000).
-define(COLLECTED, 14000).

-define(MODES, [keep, collect, hibernate_bosh, hibernate]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        kept, collected, bosh_sleeps, both_sleep,
        a_sleeper_wakes_for_every_stanza,
        a_poll_times_out_in_time,
        inactivity_ends_a_sleeper,
        a_pause_is_kept,
        a_stanza_comes_into_the_request, a_timer_comes_into_the_request, a_kill_comes_into_the_request,
        a_stream_is_resumed_in_the_request,
        who_is_debugged_is_left_alone,
        who_has_messages_is_left_alone,
        what_is_not_recognised_is_collected,
        the_sweeper_may_die,
        other_users_are_swept_too,
        switched_off_and_on_it_walks_once
    ].

%% A listener and a connection manager for each mode; one listener of ejabberd's own for each protocol.
init_per_suite(Config) ->
    Modes = lists:zip(?MODES, lists:seq(1, length(?MODES))),
    Listeners =
        [listener(megaphone, Number, [handlers(), "bosh: mod_bosh", ["idle_memory: ", atom_to_list(Mode)], "idle_after: " ?IDLE_AFTER]) || {Mode, Number} <- Modes] ++
            [listener(ejabberd_c2s, 11, []), listener(ejabberd_http, 12, [handlers()])],
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, Listeners),
    %% Sessions whose client has gone shall not live for long.
    ok = megaphone_test_node:change_config(Dir, "mod_bosh: {}", "mod_bosh: {max_inactivity: 3}"),
    Node = megaphone_test_node:start_in(Dir),
    ok = megaphone_test_node:register_user(Node, <<"alice">>, <<"secret">>),
    Ecms = [{Mode, megaphone_test_ecm:start(address(Node, {megaphone, Number}))} || {Mode, Number} <- Modes],
    [{node, Node}, {ecms, Ecms} | Config].

end_per_suite(Config) ->
    _ = [megaphone_test_ecm:stop(Ecm) || {_, Ecm} <- proplists:get_value(ecms, Config)],
    megaphone_test_node:stop(node_of(Config)).

init_per_testcase(_Case, Config) -> Config.

%% The users go, and nothing of them is left.
end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        _ = [gen_tcp:close(Socket) || {socket, Socket} <- get_keys(open)],
        ok = call(node_of(Config), ?MODULE, stop_sessions, []),
        ok = wait_until(fun() -> sessions(Config) =:= [] end),
        ok = megaphone_test_node:assert_only_links(node_of(Config), length(?MODES))
    end).

%% ---- modes -----------------------------------------------------------------------------------------------------

kept(Config) ->
    %% With `keep' nothing is done.
    User = user(keep, Config),
    Before = counts(Config),
    _ = poll(User),
    ok = wait_until(fun() -> length(processes_of(User, Config)) =:= 3 end),
    %% Others are swept meanwhile: what was due before them would have been done.
    Other = user(collect, Config),
    _ = poll(Other),
    ok = wait_until(fun() -> lists:all(fun(Pid) -> is_clean(Pid, Config) end, processes_of(Other, Config)) end),
    #{collected := Collected} = Done = differences(Before, counts(Config)),
    ?assertMatch(#{bosh_asleep := 0, c2s_asleep := 0}, Done),
    %% The other's three.
    ?assert(Collected =< 3).

collected(Config) ->
    %% With `collect' the heaps of the poll, the BOSH session and the client session shrink to what is in use.
    User = user(collect, Config),
    _ = poll(User),
    ok = wait_until(fun() -> three(User, Config, fun(Pid) -> is_clean(Pid, Config) end) end),
    _ = [?assert(memory(Pid, Config) =< ?COLLECTED) || Pid <- processes_of(User, Config)],
    ?assertEqual([], [Pid || Pid <- processes_of(User, Config), is_asleep(Pid, Config)]).

bosh_sleeps(Config) ->
    %% With `hibernate_bosh' the BOSH session sleeps, the other two are collected.
    User = user(hibernate_bosh, Config),
    _ = poll(User),
    Fsm = fsm(User, Config),
    ok = wait_until(fun() -> is_asleep(Fsm, Config) end),
    ok = wait_until(fun() -> three(User, Config, fun(Pid) -> Pid =:= Fsm orelse is_clean(Pid, Config) end) end),
    ?assertEqual([Fsm], [Pid || Pid <- processes_of(User, Config), is_asleep(Pid, Config)]),
    ?assert(memory(Fsm, Config) =< ?ASLEEP).

both_sleep(Config) ->
    %% With `hibernate' the client session sleeps as well.
    User = user(hibernate, Config),
    _ = poll(User),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    _ = [?assert(memory(Pid, Config) =< ?ASLEEP) || Pid <- processes_of(User, Config)],
    #{bosh_asleep := Bosh, c2s_asleep := C2s} = counts(Config),
    ?assert(Bosh > 0 andalso C2s > 0).

%% ---- awake again -----------------------------------------------------------------------------------------------

a_sleeper_wakes_for_every_stanza(Config) ->
    %% Two sleepers talk: each message arrives once and in order, and after each they sleep again.
    [A, B] = [user(hibernate, Config) || _ <- [a, b]],
    lists:foldl(
        fun(Number, {{UserA, SocketA, NextA}, {UserB, SocketB, NextB}}) ->
            ok = wait_until(fun() -> sleeps(UserA, Config) andalso sleeps(UserB, Config) end),
            Text = integer_to_binary(Number),
            Say = connect(UserA),
            ok = bosh_send(Say, UserA, NextA, message(UserB, Text)),
            {200, Heard} = megaphone_test_http:read(SocketB),
            ?assertEqual([Text], bodies(Heard)),
            %% The poll that was held before is answered: its place is taken by the request that brought the message.
            {200, _} = megaphone_test_http:read(SocketA),
            ok = gen_tcp:close(SocketA),
            {{UserA, Say, NextA + 1}, poll(UserB, SocketB, NextB)}
        end,
        {poll(A), poll(B)},
        lists:seq(1, 5)
    ).

a_poll_times_out_in_time(Config) ->
    %% The poll of a sleeper is answered when its `wait' is over, neither before nor much later.
    User = user(hibernate, Config, 2),
    {_, Socket, _} = poll(User),
    Began = erlang:monotonic_time(millisecond),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    {200, Empty} = megaphone_test_http:read(Socket),
    ?assertEqual([], bodies(Empty)),
    Took = erlang:monotonic_time(millisecond) - Began,
    ?assert(Took >= 1500 andalso Took < 4000, Took).

inactivity_ends_a_sleeper(Config) ->
    %% A sleeper whose client has gone ends when its inactivity is over.
    User = user(hibernate, Config, 1),
    {_, Socket, _} = poll(User),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    Fsm = fsm(User, Config),
    ok = gen_tcp:close(Socket),
    ok = wait_until(fun() -> not is_process(Fsm, Config) end).

a_pause_is_kept(Config) ->
    %% A sleeper may pause: its session outlives the inactivity, and goes on after it.
    User = user(hibernate, Config),
    {_, Socket, Next} = poll(User),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    Other = connect(User),
    ok = bosh_send(Other, User, Next, pause),
    {200, _} = megaphone_test_http:read(Socket),
    Fsm = fsm(User, Config),
    ?assertMatch(#{bosh_asleep := 1, left := 0}, call(node_of(Config), ?MODULE, ask, [bosh, Fsm])),
    ok = wait_until(fun() -> is_asleep(Fsm, Config) end),
    _ = poll(User, Socket, Next + 1),
    ok = gen_tcp:close(Other),
    ok = wait_until(fun() -> sleeps(User, Config) end).

%% ---- into the request --------------------------------------------------------------------------------------------

a_stanza_comes_into_the_request(Config) ->
    %% A stanza that arrives before, with or after the request to sleep is delivered.
    lists:foreach(
        fun(Order) ->
            User = user(hibernate, Config),
            {_, Socket, _} = poll(User),
            ok = wait_until(fun() -> sleeps(User, Config) end),
            [Fsm, C2s] = [fsm(User, Config), c2s(User, Config)],
            ok = call(node_of(Config), ?MODULE, in_order, [Order, Fsm, C2s, jid(User)]),
            {200, Heard} = megaphone_test_http:read(Socket),
            ?assertEqual([<<"into it">>], bodies(Heard)),
            _ = poll(User, Socket, next_rid(User)),
            ok = wait_until(fun() -> sleeps(User, Config) end)
        end,
        [[stanza, sleep], [sleep, stanza], [sleep, stanza, sleep], [stanza, sleep, sleep]]
    ).

a_timer_comes_into_the_request(Config) ->
    %% A timeout that is in the mailbox behind the request to sleep still has its effect.
    User = user(hibernate, Config, 1),
    {_, Socket, _} = poll(User),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    Fsm = fsm(User, Config),
    ok = call(node_of(Config), ?MODULE, sleep_beyond, [Fsm]),
    {200, Empty} = megaphone_test_http:read(Socket),
    ?assertEqual([], bodies(Empty)).

a_kill_comes_into_the_request(Config) ->
    %% A client session that is killed while it is asked ends; the BOSH session goes on without it, as ever.
    User = user(hibernate, Config, 1),
    {_, Socket, _} = poll(User),
    [Fsm, C2s] = [fsm(User, Config), c2s(User, Config)],
    ok = call(node_of(Config), ?MODULE, kill_asked, [C2s]),
    ok = wait_until(fun() -> not is_process(C2s, Config) end),
    {200, Empty} = megaphone_test_http:read(Socket),
    ?assertEqual([], bodies(Empty)),
    ok = wait_until(fun() -> not is_process(Fsm, Config) end).

a_stream_is_resumed_in_the_request(Config) ->
    %% A stream that waits to be resumed is no idle session: it is left alone, resumed, and then sleeps.
    Node = node_of(Config),
    Address = address(Node, {ejabberd_c2s, 2}),
    {First, Jid} = megaphone_test_stream:login(Address, {<<"alice">>, <<"secret">>}),
    Id = megaphone_test_stream:enable(First),
    C2s = c2s_of(Jid, Config),
    ok = gen_tcp:close(First),
    ok = wait_until(fun() -> call(Node, ?MODULE, phase, [C2s]) =/= established end),
    ?assertMatch(#{c2s_asleep := 0, left := 1}, call(Node, ?MODULE, ask, [stream, C2s])),
    ?assertNot(is_asleep(C2s, Config)),
    Second = megaphone_test_stream:resume(Address, {<<"alice">>, <<"secret">>}, Id),
    ok = wait_until(fun() -> call(Node, ?MODULE, phase, [c2s_of(Jid, Config)]) =:= established end),
    ?assertMatch(#{c2s_asleep := 1, left := 0}, call(Node, ?MODULE, ask, [stream, c2s_of(Jid, Config)])),
    ok = wait_until(fun() -> is_asleep(c2s_of(Jid, Config), Config) end),
    ok = megaphone_test_stream:send(Second, ["<message to='", Jid, "'><body>to myself</body></message>"]),
    _ = megaphone_test_stream:until(Second, "to myself"),
    ok = megaphone_test_stream:send(Second, "</stream:stream>"),
    ok = gen_tcp:close(Second).

who_is_debugged_is_left_alone(Config) ->
    %% A client session with a debug function stays awake.
    Node = node_of(Config),
    {Stream, Jid} = megaphone_test_stream:login(address(Node, {ejabberd_c2s, 2})),
    C2s = c2s_of(Jid, Config),
    ok = call(Node, sys, statistics, [C2s, true]),
    ?assertMatch(#{c2s_asleep := 0, left := 1}, call(Node, ?MODULE, ask, [stream, C2s])),
    ?assertNot(is_asleep(C2s, Config)),
    ?assertMatch({ok, [_ | _]}, call(Node, sys, statistics, [C2s, get])),
    ok = gen_tcp:close(Stream).

who_has_messages_is_left_alone(Config) ->
    %% A session with a message in its mailbox stays awake: nothing of its queues is lost.
    Node = node_of(Config),
    {Stream, Jid} = megaphone_test_stream:login(address(Node, {ejabberd_c2s, 2})),
    C2s = c2s_of(Jid, Config),
    ok = call(Node, ?MODULE, many_while_asked, [C2s, Jid, 20]),
    Bodies = [integer_to_list(Number) || Number <- lists:seq(1, 20)],
    _ = megaphone_test_stream:until(Stream, lists:flatten(lists:join(".*", ["<body>" ++ Body ++ "</body>" || Body <- Bodies]))),
    ok = gen_tcp:close(Stream).

what_is_not_recognised_is_collected(Config) ->
    %% Sessions of another shape are collected, and the log says so once.
    Node = node_of(Config),
    Fsms = [call(Node, megaphone_test_fsm, start, []) || _ <- [1, 2]],
    Before = counts(Config),
    Polls = [call(Node, ?MODULE, note_poll, [Fsm]) || Fsm <- Fsms],
    ok = wait_until(fun() -> lists:all(fun(Fsm) -> is_clean(Fsm, Config) end, Fsms) end),
    ?assertEqual([], [Fsm || Fsm <- Fsms, is_asleep(Fsm, Config)]),
    ?assertMatch(#{collected_only := [bosh]}, counts(Config)),
    ?assertMatch(#{bosh_asleep := 0}, differences(Before, counts(Config))),
    Complaints = fun() -> length(binary:matches(megaphone_test_node:log(Node), <<"are not known well enough to be put to sleep">>)) end,
    ok = wait_until(fun() -> Complaints() =:= 1 end),
    _ = [call(Node, erlang, exit, [Pid, kill]) || Pid <- Polls ++ Fsms],
    %% For the cases that follow.
    restart_sweeper(Config).

%% ---- the sweeper -----------------------------------------------------------------------------------------------

the_sweeper_may_die(Config) ->
    %% A sweeper that is killed comes back; nobody's session suffers, and the next poll is swept.
    User = user(hibernate, Config),
    {_, Socket, Next} = poll(User),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    ok = restart_sweeper(Config),
    Other = connect(User),
    _ = poll(User, Other, Next),
    {200, _} = megaphone_test_http:read(Socket),
    ok = wait_until(fun() -> sleeps(User, Config) end),
    ok = gen_tcp:close(Socket).

other_users_are_swept_too(Config) ->
    %% When a listener wants it (`sweep: all'), users who are connected without Megaphone sleep as well, and wake.
    Node = node_of(Config),
    {Stream, Jid} = megaphone_test_stream:login(address(Node, {ejabberd_c2s, 2})),
    {Ip, Port} = address(Node, ejabberd_http),
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    WebJid = megaphone_test_http:websocket_login(Socket),
    %% An answered connection that is kept: nothing leads from a session to the process that reads from it.
    {ok, Kept} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    {200, _} = megaphone_test_http:post(Kept, "/bosh", "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>"),
    {ok, {KeptIp, KeptPort}} = inet:sockname(Kept),
    Reader = fun() -> call(Node, ?MODULE, reader, [{KeptIp, KeptPort}]) end,
    ok = wait_until(fun() -> is_pid(Reader()) end),
    Listener = call(Node, ?MODULE, want_all, [{hibernate, 50}]),
    Sessions = [c2s_of(Jid, Config), c2s_of(WebJid, Config)],
    ok = wait_until(fun() -> lists:all(fun(Pid) -> is_asleep(Pid, Config) end, Sessions) end),
    ok = wait_until(fun() -> is_clean(Reader(), Config) end),
    [Loop] = call(Node, ?MODULE, owners, [c2s_of(WebJid, Config)]),
    ok = wait_until(fun() -> is_asleep(Loop, Config) end),
    ok = megaphone_test_stream:send(Stream, ["<message to='", WebJid, "'><body>hello</body></message>"]),
    _ = megaphone_test_http:until(Socket, "hello"),
    ok = wait_until(fun() -> lists:all(fun(Pid) -> is_asleep(Pid, Config) end, Sessions) end),
    %% Another incarnation knows of it, and it ends with its listener.
    ok = restart_sweeper(Config),
    #{all := {hibernate, 50}} = call(Node, megaphone_sweeper, info, []),
    true = call(Node, erlang, exit, [Listener, kill]),
    ok = wait_until(fun() -> maps:get(all, call(Node, megaphone_sweeper, info, [])) =:= keep end),
    ok = gen_tcp:close(Kept),
    ok = gen_tcp:close(Stream),
    ok = gen_tcp:close(Socket).

%% Runs in the node: as a listener with `sweep: all'.
want_all(Idle) ->
    Caller = self(),
    Listener = spawn(fun() ->
        Caller ! {self(), megaphone_sweeper:sweep_all(here, Idle)},
        receive
            stop -> ok
        end
    end),
    receive
        {Listener, ok} -> Listener
    end.

switched_off_and_on_it_walks_once(_Config) ->
    %% However often listeners change their mind, one walk through all sessions starts at a time.
    {ok, State} = megaphone_sweeper:init([]),
    From = {self(), make_ref()},
    _ = lists:foldl(
        fun(Idle, Before) ->
            {reply, ok, After} = megaphone_sweeper:handle_call({sweep_all, here, Idle}, From, Before),
            After
        end,
        State,
        [{collect, 50}, keep, {collect, 60}, keep, {collect, 70}]
    ),
    ok = application:unset_env(megaphone, sweep_all),
    receive
        {timeout, _, walk} -> ok
    end,
    receive
        Another -> ct:fail({another_walk, Another})
    after 100 -> ok
    end.

restart_sweeper(Config) ->
    Node = node_of(Config),
    Before = call(Node, erlang, whereis, [megaphone_sweeper]),
    true = call(Node, erlang, exit, [Before, kill]),
    wait_until(fun() -> not lists:member(call(Node, erlang, whereis, [megaphone_sweeper]), [Before, undefined]) end).

%% ---- users -----------------------------------------------------------------------------------------------------

user(Mode, Config) -> user(Mode, Config, 60).

%% Logs in by BOSH through the connection manager of this mode; `Wait': seconds that its polls are held.
user(Mode, Config, Wait) ->
    {_, Port} = megaphone_test_ecm:address(proplists:get_value(Mode, proplists:get_value(ecms, Config))),
    Socket = connect(#{port => Port}),
    {Sid, Jid, Rid} = megaphone_test_http:bosh_login(Socket, Wait),
    #{port => Port, sid => Sid, jid => Jid, rid => Rid, socket => Socket}.

jid(#{jid := Jid}) -> Jid.

next_rid(#{rid := Rid}) -> Rid + 1.

connect(#{port := Port}) ->
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    %% To be closed when the case is over, by this very process.
    _ = put({socket, Socket}, open),
    Socket.

%% Asks for what there is, and does not wait for it.
poll(#{socket := Socket, rid := Rid} = User) ->
    poll(User, Socket, Rid).

poll(User, Socket, Rid) ->
    ok = bosh_send(Socket, User, Rid, []),
    {User, Socket, Rid + 1}.

bosh_send(Socket, #{sid := Sid}, Rid, pause) ->
    megaphone_test_http:bosh_send(Socket, Sid, Rid, "pause='60'", []);
bosh_send(Socket, #{sid := Sid}, Rid, Stanza) ->
    megaphone_test_http:bosh_send(Socket, Sid, Rid, [], Stanza).

message(#{jid := Jid}, Text) ->
    ["<message xmlns='jabber:client' type='chat' to='", Jid, "'><body>", Text, "</body></message>"].

bodies(Answer) ->
    case re:run(Answer, "<body>([^<]*)</body>", [global, {capture, all_but_first, binary}]) of
        {match, Found} -> lists:append(Found);
        nomatch -> []
    end.

%% ---- processes -------------------------------------------------------------------------------------------------

node_of(Config) -> proplists:get_value(node, Config).

sessions(Config) -> call(node_of(Config), ejabberd_sm, connected_users, []).

counts(Config) -> call(node_of(Config), megaphone_sweeper, info, []).

differences(Before, After) ->
    maps:map(fun(Name, Count) -> if is_integer(Count) -> Count - maps:get(Name, Before); true -> Count end end, After).

fsm(#{sid := Sid}, Config) ->
    {ok, Pid} = call(node_of(Config), mod_bosh, find_session, [Sid]),
    Pid.

c2s(#{jid := Jid}, Config) -> c2s_of(Jid, Config).

c2s_of(Jid, Config) -> call(node_of(Config), ?MODULE, session_pid, [Jid]).

%% The BOSH session, the client session, and the poll.
processes_of(User, Config) ->
    Fsm = fsm(User, Config),
    [Fsm | call(node_of(Config), ?MODULE, watching, [Fsm])].

three(User, Config, Fun) ->
    Pids = processes_of(User, Config),
    length(Pids) =:= 3 andalso lists:all(Fun, Pids).

sleeps(User, Config) ->
    is_asleep(fsm(User, Config), Config) andalso is_asleep(c2s(User, Config), Config).

is_asleep(Pid, Config) -> megaphone_test_node:is_asleep(node_of(Config), Pid).

is_process(Pid, Config) -> call(node_of(Config), erlang, is_process_alive, [Pid]).

is_clean(Pid, Config) ->
    case call(node_of(Config), erlang, process_info, [Pid, garbage_collection_info]) of
        {_, Info} -> megaphone_sleep:is_clean(Info);
        undefined -> false
    end.

memory(Pid, Config) ->
    {memory, Bytes} = call(node_of(Config), erlang, process_info, [Pid, memory]),
    Bytes.

%% ---- in the node -----------------------------------------------------------------------------------------------

session_pid(Jid) ->
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    ejabberd_sm:get_session_pid(User, Host, Resource).

watching(Pid) ->
    {monitored_by, Watching} = process_info(Pid, monitored_by),
    [Other || Other <- Watching, is_pid(Other)].

owners(C2s) ->
    {monitors, Monitors} = process_info(C2s, monitors),
    [Pid || {process, Pid} <- Monitors].

%% The process that has the other end of a connection from this address.
reader(Client) ->
    Found = [Pid || Port <- erlang:ports(), inet:peername(Port) =:= {ok, Client}, {connected, Pid} <- [erlang:port_info(Port, connected)]],
    hd(Found ++ [undefined]).

phase(C2s) ->
    maps:get(stream_state, sys:get_state(C2s)).

stop_sessions() ->
    Sessions = supervisor:which_children(gen_mod:get_module_proc(<<"localhost">>, mod_bosh)),
    lists:foreach(fun({_, Pid, _, _}) -> exit(Pid, kill) end, Sessions).

%% Notes a poll as one of a user whose session this is: the sweeper has it asked soon.
note_poll(Session) ->
    Poll = megaphone_test_fsm:poll(Session),
    gen_server:cast(megaphone_sweeper, {polled, Poll, hibernate, 50}),
    Poll.

%% Asks a process to sleep, and waits for what comes of it.
ask(Kind, Pid) ->
    Context = megaphone_sleep:context(),
    Before = megaphone_sleep:counts(Context),
    ok = asking(Kind, Pid, Context),
    ok = megaphone_test:wait_until(fun() -> megaphone_sleep:counts(Context) =/= Before end),
    megaphone_sleep:counts(Context).

asking(bosh, Pid, Context) -> megaphone_sleep:bosh(Pid, Context);
asking(stream, Pid, Context) -> asking({stream, status(Pid, Context)}, Pid, Context);
asking({stream, Status}, Pid, Context) -> megaphone_sleep:stream(Pid, Status, megaphone_sleep:limits(http), Context).

status(Pid, Context) ->
    ok = megaphone_sleep:ask_status(Pid, status, Context),
    {status, Status} = ?assertReceive({status, _}),
    Status.

%% Puts messages into the mailboxes of a session in this order, and then lets it run.
in_order(Order, Fsm, C2s, Jid) ->
    Context = megaphone_sleep:context(),
    Status = status(C2s, Context),
    suspended([Fsm, C2s], fun() ->
        lists:foreach(
            fun
                (stanza) ->
                    route(Jid, <<"into it">>);
                (sleep) ->
                    ok = asking(bosh, Fsm, Context),
                    ok = asking({stream, Status}, C2s, Context)
            end,
            Order
        )
    end).

suspended(Pids, Fun) ->
    _ = [true = erlang:suspend_process(Pid) || Pid <- Pids],
    _ = Fun(),
    _ = [true = erlang:resume_process(Pid) || Pid <- Pids],
    ok.

route(Jid, Body) ->
    Element = {xmlel, <<"message">>, [{<<"xmlns">>, <<"jabber:client">>}, {<<"type">>, <<"chat">>}], [{xmlel, <<"body">>, [], [{xmlcdata, Body}]}]},
    ejabberd_router:route(xmpp:set_from_to(xmpp:decode(Element), jid:decode(<<"somebody@localhost/x">>), jid:decode(Jid))).

%% The request to sleep is in front of the timeout that comes meanwhile. OTP 29 keeps timeouts of who is suspended until he goes on: there
%% its time is to have passed.
sleep_beyond(Pid) ->
    IsKept = list_to_integer(erlang:system_info(otp_release)) >= 29,
    Passed = erlang:monotonic_time(millisecond) + 2000,
    Context = megaphone_sleep:context(),
    suspended([Pid], fun() ->
        ok = asking(bosh, Pid, Context),
        Queued = fun() -> element(2, process_info(Pid, message_queue_len)) end,
        Before = Queued(),
        ok = megaphone_test:wait_until(fun
            () when IsKept -> erlang:monotonic_time(millisecond) > Passed;
            () -> Queued() > Before
        end)
    end).

kill_asked(Pid) ->
    Context = megaphone_sleep:context(),
    Status = status(Pid, Context),
    suspended([Pid], fun() ->
        ok = asking({stream, Status}, Pid, Context),
        exit(Pid, kill)
    end).

many_while_asked(C2s, Jid, Count) ->
    Context = megaphone_sleep:context(),
    Status = status(C2s, Context),
    suspended([C2s], fun() ->
        [
            begin
                route(Jid, integer_to_binary(Number)),
                ok = asking({stream, Status}, C2s, Context)
            end
         || Number <- lists:seq(1, Count)
        ]
    end).
