%% Native BOSH sessions at a real ejabberd where much goes wrong at once: clients of several connection managers, of which one
%% dies; very many who log in; and those who mean harm. MEGAPHONE_BOSH_LOGINS and MEGAPHONE_BOSH_ATTACKS ask for more of them.
-module(bosh_storm_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4]).

-type config() :: megaphone_test_bosh_node:config().

%% Runs of the client in bad weather, besides the one with a new seed.
-define(SEEDS, [1, 2, 3]).
-define(LOGINS, "300").
%% Clients that log in at the same time.
-define(CROWD, 50).
%% Milliseconds for an answer to which a client has a right at once; `wait' is 60 s.
-define(PROMPT, 5000).
-define(ATTACKS, "2000").
%% Attackers at the same time, each with an address of its own.
-define(ATTACKERS, 12).
%% Milliseconds for a message of the user beside them.
-define(UNHARMED, 3000).
%% Bytes, and processes, that may be there afterwards which were not there before.
-define(MORE_MEMORY, 4_000_000).
-define(MORE_PROCESSES, 5).
%% Bytes of the table of sessions, for timers of five minutes in steps of 100 ms, in 64 parts.
-define(TABLE, 16_000_000).
%% Messages that are more than BOSH_OUTBOX together: so many, and bytes.
-define(LARGE_MESSAGES, 10).
-define(LARGE, 500_000).
%% Why a connection manager closes a connection (docs/protocol.md): all was said; the client is gone without all of its answer.
-define(SAID, 0).
-define(UNANSWERED, 7).
%% Who makes as many sessions as he may.
-define(FLOODER, {127, 0, 0, 99}).

-spec suite() -> [tuple()].
suite() -> [{timetrap, {seconds, 900}}].

-spec all() -> [atom()].
all() ->
    [
        two_connection_managers, a_connection_manager_is_killed, logins_on_both_connections, hostile_requests, a_flood_of_sessions, nothing_is_read,
        backwards_on_one_connection, an_answer_is_cut_off
    ].

%% Sessions at the second listener end after some seconds in which their clients do nothing.
-spec init_per_suite(config()) -> config().
init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "storm"),
    Listener = fun(Number, More) -> megaphone_test_node:listener(megaphone, Number, [megaphone_test_node:handlers(), "bosh: native" | More]) end,
    ok = megaphone_test_node:write_config(Dir, [Listener(1, []), Listener(2, ["max_inactivity: 3", "max_pause: 10"])]),
    [{node, megaphone_test_node:start_in(Dir)} | Config].

-spec end_per_suite(config()) -> ok.
end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

%% Two connection managers of the first listener, and one of the second.
-spec init_per_testcase(atom(), config()) -> config().
init_per_testcase(_Case, Config) ->
    Node = proplists:get_value(node, Config),
    {Ecms, Ports} = lists:unzip([ecm(address(Node, {megaphone, N})) || N <- [1, 1, 2]]),
    [{ecms, Ecms}, {ports, Ports} | Config].

-spec ecm(megaphone_test_node:address()) -> {megaphone_test_program:program(), inet:port_number()}.
ecm(Address) ->
    megaphone_test_program:ecm(megaphone_test_program:server(Address)).

%% Nothing is left of what a case did.
-spec end_per_testcase(atom(), config()) -> ok | {fail, term()}.
end_per_testcase(_Case, Config) ->
    Node = proplists:get_value(node, Config),
    megaphone_test:finish_case(Config, fun() ->
        ok = wait_until(fun() -> sessions(Node) =:= 0 end),
        [{0, _} = megaphone_test_program:stop(Ecm) || Ecm <- proplists:get_value(ecms, Config), megaphone_test_program:is_running(Ecm)],
        megaphone_test_node:assert_quiet(Node)
    end).

-spec where(pos_integer(), config()) -> megaphone_test_bosh_node:where().
where(N, Config) ->
    #{port => lists:nth(N, proplists:get_value(ports, Config)), node => proplists:get_value(node, Config), kind => native}.

-spec sessions(megaphone_test_node:node_info()) -> non_neg_integer().
sessions(Node) ->
    #{sessions := Count} = call(Node, megaphone_nif, bosh_info, []),
    Count.

-spec number(string(), string()) -> pos_integer().
number(Name, Default) ->
    list_to_integer(os:getenv(Name, Default)).

%% ---- several connection managers -------------------------------------------------------------------------------

%% @doc Whichever of two connection managers a request goes by, each message arrives once and in order, in bad weather too.
-spec two_connection_managers(config()) -> term().
two_connection_managers(Config) ->
    in_bad_weather(fun() -> (where(1, Config))#{ports => lists:sublist(proplists:get_value(ports, Config), 2)} end).

%% @doc The same when one of them is killed while requests are on their way, and in the same session.
-spec a_connection_manager_is_killed(config()) -> term().
a_connection_manager_is_killed(Config) ->
    #{node := Node, port := Other} = Where = where(1, Config),
    in_bad_weather(fun() ->
        {Ecm, Port} = ecm(address(Node, {megaphone, 1})),
        Kill = fun() ->
            ok = megaphone_test_program:signal(Ecm, "KILL"),
            {137, _} = megaphone_test_program:await_exit(Ecm),
            %% What it had sent has been read.
            ok = wait_until(fun() -> maps:get(links, megaphone_test_node:stats(Node)) =:= 3 end),
            [Other]
        end,
        Where#{ports => [Other, Port], halfway => Kill}
    end).

%% The client sends no request twice that was answered, so a session that was lost would be noticed: nobody makes another one.
-spec in_bad_weather(fun(() -> megaphone_test_bosh_node:where())) -> ok.
in_bad_weather(Where) ->
    New = erlang:system_time(millisecond),
    io:format("seeds ~w, ~b~n", [?SEEDS, New]),
    lists:foreach(
        fun(Seed) -> ?assertEqual({Seed, ok}, {Seed, megaphone_test_bosh_weather:run(Where(), Seed, [answer_lost, request_lost, twice])}) end,
        ?SEEDS ++ [New]
    ).

%% ---- very many who log in --------------------------------------------------------------------------------------

%% @doc While a request is held the next one brings its stanza by the other connection, sometimes before the one that is to be
%% held: each answer comes promptly, by far sooner than `wait' is over.
-spec logins_on_both_connections(config()) -> term().
logins_on_both_connections(Config) ->
    Count = number("MEGAPHONE_BOSH_LOGINS", ?LOGINS),
    Where = where(1, Config),
    {Times, Milliseconds} = megaphone_test_bosh:timed(fun() ->
        megaphone_test_bosh_crowd:each(?CROWD, Count, fun(N) -> megaphone_test_bosh_crowd:login(Where, N, ?PROMPT) end)
    end),
    Sorted = lists:sort(lists:append([Each || #{times := Each} <- Times])),
    Overtaken = lists:sum([Each || #{overtaken := Each} <- Times]),
    [Median, Late] = [lists:nth(max(1, length(Sorted) * Percent div 100), Sorted) || Percent <- [50, 99]],
    ct:pal("~b BOSH logins in ~b ms: ~b answers, ~b requests overtaken; median ~b ms, 99th percentile ~b ms, maximum ~b ms", [
        Count, Milliseconds, length(Sorted), Overtaken, Median, Late, lists:last(Sorted)
    ]),
    ?assertEqual(Count, length(Times)),
    ?assert(Overtaken >= Count div 2),
    ?assert(lists:last(Sorted) < ?PROMPT).

%% ---- those who mean harm ---------------------------------------------------------------------------------------

%% @doc Each kind of hostile request gets the answer that it must get; a user beside them is not held up, and afterwards nothing
%% is left of it all.
-spec hostile_requests(config()) -> term().
hostile_requests(Config) ->
    Count = number("MEGAPHONE_BOSH_ATTACKS", ?ATTACKS),
    Where = #{node := Node} = where(3, Config),
    Seed = erlang:system_time(millisecond),
    Kinds = megaphone_test_bosh_attacks:kinds(),
    %% All that is made once and kept is there then.
    _ = beside_a_user(Where, fun(Victim) -> attacks(Where, Victim, Seed, 2 * length(Kinds)) end),
    {Memory, Processes, _} = quiet(Node),
    {{Messages, Longest}, Milliseconds} = megaphone_test_bosh:timed(fun() ->
        beside_a_user(Where, fun(Victim) -> attacks(Where, Victim, Seed + Count, Count) end)
    end),
    {MemoryAfter, ProcessesAfter, Table} = quiet(Node),
    ct:pal(
        "~b hostile BOSH requests of ~b kinds in ~b ms (seed ~b); the user beside them: ~b messages, the slowest took ~b ms; "
        "memory ~b bytes before, ~b after, and ~b of the table; processes ~b, ~b",
        [Count, length(Kinds), Milliseconds, Seed, Messages, Longest, Memory, MemoryAfter, Table, Processes, ProcessesAfter]
    ),
    ?assert(Longest < ?UNHARMED),
    ?assert(MemoryAfter < Memory + ?MORE_MEMORY),
    ?assert(Table < ?TABLE),
    ?assert(ProcessesAfter =< Processes + ?MORE_PROCESSES).

%% All kinds in turn.
-spec attacks(megaphone_test_bosh_node:where(), megaphone_test_bosh:session(), integer(), pos_integer()) -> term().
attacks(Where, Victim, Seed, Count) ->
    Kinds = megaphone_test_bosh_attacks:kinds(),
    megaphone_test_bosh_crowd:each(?ATTACKERS, Count, fun(N) ->
        _ = rand:seed(exsss, Seed + N),
        Kind = lists:nth(N rem length(Kinds) + 1, Kinds),
        try
            ok = megaphone_test_bosh_attacks:attack(Kind, Where#{from => {127, 0, 0, 10 + N rem ?ATTACKERS}, victim => Victim})
        catch
            Class:Reason:Stack -> erlang:raise(Class, {Kind, Seed + N, Reason}, Stack)
        end
    end).

%% When no session is there: what the node has then.
-spec quiet(megaphone_test_node:node_info()) -> {pos_integer(), pos_integer(), non_neg_integer()}.
quiet(Node) ->
    ok = wait_until(fun() -> sessions(Node) =:= 0 end),
    ok = megaphone_test_node:assert_only_links(Node, 3),
    call(Node, megaphone_test_bosh_attacks, measure, []).

%% Does something while a user, in a process of his own, sends himself one message after the other and is brought each: how many,
%% and how many milliseconds the slowest took.
-spec beside_a_user(megaphone_test_bosh_node:where(), fun((megaphone_test_bosh:session()) -> term())) -> {pos_integer(), non_neg_integer()}.
beside_a_user(Where, Fun) ->
    Self = self(),
    {Pid, MRef} = spawn_monitor(fun() ->
        User = megaphone_test_bosh_user:online(Where),
        Self ! {self(), megaphone_test_bosh_user:session(User)},
        exit({chatted, chat(User, 0, 0)})
    end),
    {Pid, Session} = ?assertReceive({Pid, _}),
    _ = Fun(Session),
    Pid ! stop,
    {_, _, _, _, {chatted, Chatted}} = ?assertReceive({'DOWN', MRef, process, Pid, _}),
    Chatted.

-spec chat(megaphone_test_bosh_user:user(), non_neg_integer(), non_neg_integer()) -> {non_neg_integer(), non_neg_integer()}.
chat(User, Count, Longest) ->
    receive
        stop ->
            ok = megaphone_test_bosh_user:finish(User),
            {Count, Longest}
    after 5 ->
        Text = integer_to_binary(Count),
        Message = megaphone_test_bosh_user:message(megaphone_test_bosh_user:jid(User), Text),
        {{[Text], Later}, Time} = megaphone_test_bosh:timed(fun() ->
            megaphone_test_bosh_user:messages(megaphone_test_bosh_user:send(User, Message), 1)
        end),
        chat(Later, Count + 1, max(Longest, Time))
    end.

%% @doc Of sessions that have not logged in an address may have 1,000 and not one more, which harms neither those nor others,
%% and is over when they have ended.
-spec a_flood_of_sessions(config()) -> term().
a_flood_of_sessions(Config) ->
    Where = where(1, Config),
    Node = proplists:get_value(node, Config),
    #{bosh_pending_per_address := Most} = call(Node, megaphone_nif, limits, []),
    Flooder = Where#{from => ?FLOODER},
    Create = fun(Socket) ->
        {Session, Content} = megaphone_test_bosh:create(Socket, Flooder),
        {Session, megaphone_test_bosh:attributes([<<"type">>, <<"condition">>], Content)}
    end,
    Refused = [<<"terminate">>, <<"policy-violation">>],
    Socket = megaphone_test_bosh:connect(Flooder),
    Flood = fun() ->
        Made = [Create(Socket) || _ <- lists:seq(1, Most)],
        ?assertEqual([[undefined, undefined]], lists:usort([End || {_, End} <- Made])),
        ?assertMatch([{_, Refused}, {_, Refused}], [Create(Socket), Create(Socket)]),
        [Session || {Session, _} <- Made]
    end,
    Chatted = beside_a_user(Where, fun(_) ->
        Sessions = Flood(),
        ?assertEqual(Most + 1, sessions(Node)),
        %% Another one logs in, which this address may not.
        ok = megaphone_test_bosh_user:finish(megaphone_test_bosh_user:online(Where)),
        %% A session that is there can be logged in with, and then has left its place to another.
        [First | Others] = Sessions,
        Success = megaphone_test_bosh:ask(Socket, First, 1, [], "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"),
        ?assertMatch([{xmlel, <<"success">>, _, _}], megaphone_test_bosh:elements(Success)),
        {Late, [undefined, undefined]} = Create(Socket),
        ?assertMatch({_, Refused}, Create(Socket)),
        Ends = [
            megaphone_test_bosh:attribute(<<"type">>, megaphone_test_bosh:ask(Socket, Session, N, [{<<"type">>, "terminate"}], []))
         || {Session, N} <- [{First, 2}, {Late, 1} | [{Session, 1} || Session <- Others]]
        ],
        ?assertEqual([<<"terminate">>], lists:usort(Ends)),
        ok = wait_until(fun() -> sessions(Node) =:= 1 end),
        ok = megaphone_test_bosh_user:finish(megaphone_test_bosh_user:online(Flooder))
    end),
    ct:pal("the user beside ~b sessions: ~w (messages, ms of the slowest)", [Most, Chatted]),
    ?assert(element(2, Chatted) < ?UNHARMED).

%% @doc Who reads nothing is ended when some MB wait for him. What he has not fetched by then, in order, comes back to its sender:
%% no message is lost.
-spec nothing_is_read(config()) -> term().
nothing_is_read(Config) ->
    Where = where(1, Config),
    User = megaphone_test_bosh_user:idle(megaphone_test_bosh_user:login(Where)),
    {N, []} = megaphone_test_bosh_user:numbers(User),
    [Socket, _] = megaphone_test_bosh_user:sockets(User),
    Texts = [<<Number, (binary:copy(<<"x">>, ?LARGE))/binary>> || Number <- lists:seq($a, $a + ?LARGE_MESSAGES - 1)],
    Send = fun(Text, Sender) ->
        Message = megaphone_test_bosh_user:message(megaphone_test_bosh_user:jid(User), Text),
        Sent = megaphone_test_bosh_user:send(Sender, [Message, megaphone_test_bosh_user:ping("sent")]),
        element(2, megaphone_test_bosh_user:await(Sent, <<"iq">>))
    end,
    Sender = lists:foldl(Send, megaphone_test_bosh_user:login(Where), Texts),
    Fetched = fetched(Socket, megaphone_test_bosh_user:session(User), N),
    {Returned, Last} = megaphone_test_bosh_user:messages(Sender, ?LARGE_MESSAGES - length(Fetched)),
    ?assert(Texts =:= Fetched ++ lists:sort(Returned)),
    ?assert(Returned =/= []),
    ok = megaphone_test_bosh_user:abandon(User),
    ok = megaphone_test_bosh_user:finish(Last).

%% The texts of the messages that answers bring until the session ends.
-spec fetched(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer()) -> [binary() | undefined].
fetched(Socket, Session, N) ->
    Content = megaphone_test_bosh:ask(Socket, Session, N),
    Texts = [megaphone_test_bosh:text(<<"body">>, El) || {xmlel, <<"message">>, _, _} = El <- megaphone_test_bosh:elements(Content)],
    case megaphone_test_bosh:attributes([<<"type">>, <<"condition">>], Content) of
        [undefined, undefined] -> Texts ++ fetched(Socket, Session, N + 1);
        [<<"terminate">>, <<"remote-stream-error">>] -> Texts
    end.

%% @doc A request that is sent before its predecessor on the same connection is in the way of that one: the time of inactivity
%% ends the session, not `wait', and both are answered.
-spec backwards_on_one_connection(config()) -> term().
backwards_on_one_connection(Config) ->
    {Socket, #{rid := Rid} = Session} = megaphone_test_bosh:created(where(3, Config)),
    ok = gen_tcp:send(Socket, [megaphone_test_bosh:request(Session, Rid + N, []) || N <- [2, 1]]),
    Ends = [megaphone_test_bosh:attributes([<<"type">>, <<"condition">>], megaphone_test_bosh:content(megaphone_test_bosh:answer(Socket))) || _ <- [2, 1]],
    ?assertEqual([[<<"terminate">>, Condition] || Condition <- [<<"other-request">>, <<"item-not-found">>]], Ends),
    gen_tcp:close(Socket).

%% ---- pages that go on ------------------------------------------------------------------------------------------

%% @doc A connection is cut when an answer with a message is on its way, and another page goes on with the next number: it gets the
%% message when its connection manager says that the answer did not reach the client, and no second time when it did.
-spec an_answer_is_cut_off(config()) -> term().
an_answer_is_cut_off(Config) ->
    #{node := Node} = Where = where(1, Config),
    Client = megaphone_test_bosh_user:idle(megaphone_test_bosh_user:online(Where)),
    Other = megaphone_test_bosh_user:online(Where),
    {Next, []} = megaphone_test_bosh_user:numbers(Client),
    ok = megaphone_test_bosh_user:abandon(Client),
    Link = megaphone_test_link:connect(address(Node, {megaphone, 1})),
    Poll = fun(Id) ->
        Request = poll_as_ecm(megaphone_test_bosh_user:session(Client), Next + Id - 1),
        ok = megaphone_test_link:send(Link, [megaphone_test_link:open(Id), {data, Id, Request}])
    end,
    Texts = fun(Id) ->
        {200, Body, {ready, Id, 0}} = megaphone_test_link:answer(Link, Id),
        Elements = megaphone_test_bosh:elements(fxml_stream:parse_element(Body)),
        [megaphone_test_bosh:text(<<"body">>, El) || {xmlel, <<"message">>, _, _} = El <- Elements]
    end,
    Jid = megaphone_test_bosh_user:jid(Client),
    Say = fun(User, Text) -> megaphone_test_bosh_user:send(User, megaphone_test_bosh_user:message(Jid, Text)) end,
    Cut = fun(Id, Reason) ->
        ok = megaphone_test_link:send(Link, {close, Id, Reason}),
        {close, Id, 0} = megaphone_test_link:next(Link)
    end,
    Poll(1),
    Later = Say(Other, <<"cut off">>),
    ?assertEqual([<<"cut off">>], Texts(1)),
    Cut(1, ?UNANSWERED),
    Poll(2),
    ?assertEqual([<<"cut off">>], Texts(2)),
    Cut(2, ?SAID),
    Poll(3),
    Last = Say(Later, <<"another">>),
    ?assertEqual([<<"another">>], Texts(3)),
    %% A held one is answered at once.
    Poll(4),
    Cut(3, ?UNANSWERED),
    ?assertEqual([<<"another">>], Texts(4)),
    Cut(4, ?SAID),
    ok = megaphone_test_link:disconnect(Link),
    _ = megaphone_test_bosh_user:finish(Last),
    ended(Where, Client, Next + 4).

%% A poll of a session as a connection manager writes it; numbers count from that of its creation.
-spec poll_as_ecm(megaphone_test_bosh:session(), pos_integer()) -> binary().
poll_as_ecm(#{sid := Sid, rid := Rid}, N) ->
    megaphone_test_link:request("POST", "/bosh", [], megaphone_test_bosh:body([{<<"rid">>, Rid + N}, {<<"sid">>, Sid}], [])).

%% Ends a session by its next request.
-spec ended(megaphone_test_bosh_node:where(), megaphone_test_bosh_user:user(), pos_integer()) -> ok.
ended(Where, User, N) ->
    Socket = megaphone_test_bosh:connect(Where),
    ok = megaphone_test_bosh:post(Socket, megaphone_test_bosh_user:session(User), N, [{<<"type">>, "terminate"}], []),
    [<<"terminate">>, undefined] = megaphone_test_bosh:attributes([<<"type">>, <<"condition">>], megaphone_test_bosh:content(megaphone_test_bosh:answer(Socket))),
    megaphone_test_bosh:close(Socket).
