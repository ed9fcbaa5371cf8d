%% How time passes in BOSH, at a real ejabberd behind a real connection manager: requests that are held, clients that are
%% silent, connections that are cut, pauses, polling. Groups and differences are as in bosh_SUITE.
-module(bosh_time_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [answer/1, ask/3, ask/5, attribute/2, attributes/2, connect/1, content/1, created/1, created/2, elements/1, is_silent/1, poll/2, post/5, text/2, timed/1]).
-import(megaphone_test_bosh_expect, [expect/2]).
-import(megaphone_test_bosh_node, [arrived/3, caught_up/2, hasty/1, kind/1, where/1]).
-import(megaphone_test_bosh_user, [abandon/1, finish/1, gone/2, idle/1, jid/1, login/1, login/3, message/2, messages/2, numbers/1, online/1, online/2, ping/1, send/2, send/3, session/1, settle/1, sockets/1, watched/2]).

-type config() :: megaphone_test_bosh_node:config().

%% Is answered at once, by a client that has not logged in: there is no such mechanism.
-define(WRONG, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONE'/>").
-define(FAILURE, {xmlel, <<"body">>, _, [{xmlel, <<"failure">>, _, _}]}).
-define(EMPTY, {xmlel, <<"body">>, [{<<"xmlns">>, _}], []}).
-define(END, [<<"type">>, <<"condition">>]).
-define(NOT_FOUND, [<<"terminate">>, <<"item-not-found">>]).

-spec suite() -> [tuple()].
suite() -> [{timetrap, {seconds, 60}}].

-spec all() -> [{group, megaphone_test_bosh_node:kind()}].
all() -> megaphone_test_bosh_node:all().

-spec groups() -> [tuple()].
groups() -> megaphone_test_bosh_node:groups(cases()).

-spec cases() -> [atom()].
cases() ->
    [
        answer_in_time, repeated_poll_waits_no_longer, held_request_is_activity, hold_of_zero, inactive_client_is_ended,
        interrupted_connection_is_noticed, interrupted_poll_repeated, interrupted_poll_repeated_late, stanza_left_behind_goes_offline,
        pause_is_answered_at_once, pause_too_long, pause_keeps_what_waits, pause_postpones_the_end, pause_ends_with_a_request,
        polls_too_often, polls_with_stanzas, patient_polls
    ].

-spec init_per_group(megaphone_test_bosh_node:kind(), config()) -> config().
init_per_group(Kind, Config) -> megaphone_test_bosh_node:start(Kind, Config).

-spec end_per_group(megaphone_test_bosh_node:kind(), config()) -> ok.
end_per_group(_Kind, Config) -> megaphone_test_bosh_node:stop(Config).

%% ---- time ------------------------------------------------------------------------------------------------------

%% @doc A request for which there is nothing is answered when the time is over that its client is willing to wait.
-spec answer_in_time(config()) -> term().
answer_in_time(Config) ->
    {Socket, Session} = created(where(Config), [{<<"wait">>, 1}]),
    {Answer, After} = timed(fun() -> ask(Socket, Session, 1) end),
    ?assertMatch(?EMPTY, Answer),
    ?assert(After >= 900 andalso After < 5000, After).

%% @doc A request that is repeated while it is held is answered when the time of the first one is over, not that of the repeat.
-spec repeated_poll_waits_no_longer(config()) -> term().
repeated_poll_waits_no_longer(Config) ->
    {AtLeast, LessThan} = expect(repeated_poll_waits_no_longer, kind(Config)),
    {_, Session} = created(where(Config), [{<<"wait">>, 4}]),
    {Socket, Other} = created(where(Config), [{<<"wait">>, 2}]),
    {Answer, After} = timed(fun() ->
        _ = poll(Session, 1),
        ok = arrived(where(Config), Session, 1),
        %% Takes half of that time.
        ?assertMatch(?EMPTY, ask(Socket, Other, 1)),
        content(answer(poll(Session, 1)))
    end),
    ?assertEqual([], elements(Answer)),
    ?assert(After >= AtLeast andalso After < LessThan, After).

%% @doc A client that wants nothing to be held is answered at once.
-spec hold_of_zero(config()) -> term().
hold_of_zero(Config) ->
    {Wait, AtLeast} = expect(hold_of_zero, kind(Config)),
    {Socket, Session} = created(where(Config), [{<<"hold">>, 0}, {<<"wait">>, Wait}]),
    {Answer, After} = timed(fun() -> ask(Socket, Session, 1) end),
    ?assertMatch(?EMPTY, Answer),
    ?assert(After >= AtLeast, After).

%% @doc A session whose request is held does not end, however long that takes.
-spec held_request_is_activity(config()) -> term().
held_request_is_activity(Config) ->
    {Socket, Session} = created(hasty(Config), [{<<"wait">>, 2}]),
    ?assertMatch(?EMPTY, ask(Socket, Session, 1)),
    ?assertMatch(?FAILURE, ask(Socket, Session, 2, [], ?WRONG)).

%% @doc A session whose client sends nothing, with nothing held, ends after the time for it, and others see its user go.
-spec inactive_client_is_ended(config()) -> term().
inactive_client_is_ended(Config) ->
    {A, B} = watched(login(hasty(Config)), online(where(Config))),
    {{A1, B1}, After} = timed(fun() -> {idle(A), gone(B, jid(A))} end),
    ?assert(After >= 900, After),
    {N, []} = numbers(A1),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(hd(sockets(A1)), session(A1), N))),
    finish(B1).

%% @doc A client is gone when its held connection was cut and it does not come back.
-spec interrupted_connection_is_noticed(config()) -> term().
interrupted_connection_is_noticed(Config) ->
    {Wait, AtLeast} = expect(interrupted_connection_is_noticed, kind(Config)),
    {A, B} = watched(login(hasty(Config), anonymous, [{<<"wait">>, Wait}]), online(where(Config))),
    A1 = idle(A),
    {B1, After} = timed(fun() ->
        ok = abandon(settle(A1)),
        gone(B, jid(A))
    end),
    ?assert(After >= AtLeast, After),
    finish(B1).

%% @doc What came for a client while its connection was cut is in the answer to the repeated request.
-spec interrupted_poll_repeated(config()) -> term().
interrupted_poll_repeated(Config) ->
    {A, B} = interrupted(Config),
    {_, [N]} = numbers(A),
    Content = ask(connect(session(A)), session(A), N),
    ?assertEqual([<<"while you were away">>], [text(<<"body">>, El) || El <- elements(Content)]),
    finish(B).

%% @doc It is not lost either when the client goes on first and repeats the request later: it comes once, and in order.
-spec interrupted_poll_repeated_late(config()) -> term().
interrupted_poll_repeated_late(Config) ->
    {A, B} = interrupted(Config),
    {Next, [N]} = numbers(A),
    Later = poll(session(A), Next),
    ok = arrived(where(Config), session(A), Next),
    Repeated = ask(connect(session(A)), session(A), N),
    B1 = idle(send(B, message(jid(A), "now that you are back"))),
    Heard = [text(<<"body">>, El) || Content <- [Repeated, content(answer(Later))], El <- elements(Content)],
    ?assertMatch([<<"while you were away">> | _], Heard),
    ?assertEqual([], Heard -- [<<"while you were away">>, <<"now that you are back">>]),
    finish(B1).

%% A user whose held request was cut off, and another one who has said something since.
-spec interrupted(config()) -> {User, User} when User :: megaphone_test_bosh_user:user().
interrupted(Config) ->
    [A, B] = [online(where(Config)) || _ <- [1, 2]],
    A1 = settle(A),
    ok = abandon(A1),
    B1 = idle(send(B, message(jid(A), "while you were away"))),
    ok = caught_up(where(Config), jid(A)),
    {A1, B1}.

%% @doc What waits for a client when its session ends is kept for its user, who gets it at the next login.
-spec stanza_left_behind_goes_offline(config()) -> term().
stanza_left_behind_goes_offline(Config) ->
    {Name, _} = Account = megaphone_test_bosh_user:account(hasty(Config)),
    {A, B} = watched(online(hasty(Config), Account), online(where(Config))),
    A1 = idle(A),
    B1 = gone(send(B, message(jid(A), "left behind")), jid(A)),
    B2 = send(B1, message([Name, "@hasty"], "too late")),
    %% Messages are stored a little later than others see a user go.
    #{node := Node} = where(Config),
    Kept = fun(Count) -> megaphone_test_node:call(Node, mod_offline, count_offline_messages, [Name, <<"hasty">>]) >= Count end,
    Count = expect(stanza_left_behind_goes_offline, kind(Config)),
    ok = megaphone_test:wait_until(fun() -> Kept(Count) end),
    {Texts, A2} = messages(online(hasty(Config), Account), Count),
    ?assertEqual([], Texts -- [<<"left behind">>, <<"too late">>]),
    ok = abandon(A1),
    finish(A2),
    finish(B2).

%% ---- pauses ----------------------------------------------------------------------------------------------------

%% @doc A pause answers what is held, and is answered itself.
-spec pause_is_answered_at_once(config()) -> term().
pause_is_answered_at_once(Config) ->
    {_, Session} = created(where(Config)),
    Held = poll(Session, 1),
    ok = arrived(where(Config), Session, 1),
    Pause = paused(Session, 2, 5),
    ?assertMatch(?EMPTY, content(answer(Held))),
    case expect(pause_is_answered_at_once, kind(Config)) of
        answered -> ?assertMatch(?EMPTY, content(answer(Pause)));
        at_the_end -> at_the_end(Session, 3, Pause)
    end.

%% A request by a connection of its own that asks for a pause.
-spec paused(megaphone_test_bosh:session(), integer(), pos_integer()) -> gen_tcp:socket().
paused(Session, N, Seconds) ->
    Socket = connect(Session),
    ok = post(Socket, Session, N, [{<<"pause">>, Seconds}], []),
    Socket.

%% A request is answered by nothing but the end of its session, though those behind it are.
-spec at_the_end(megaphone_test_bosh:session(), integer(), gen_tcp:socket()) -> term().
at_the_end(Session, N, Socket) ->
    ?assertMatch(?FAILURE, ask(connect(Session), Session, N, [], ?WRONG)),
    ?assert(is_silent(Socket)),
    _ = ask(connect(Session), Session, N + 1, [{<<"type">>, "terminate"}], []),
    ?assertEqual(<<"terminate">>, attribute(<<"type">>, content(answer(Socket)))).

%% @doc A pause that is longer than the server allows ends the session.
-spec pause_too_long(config()) -> term().
pause_too_long(Config) ->
    {_, Session} = created(hasty(Config)),
    Pause = paused(Session, 1, 11),
    ok = arrived(hasty(Config), Session, 1),
    case expect(pause_too_long, kind(Config)) of
        at_the_end -> at_the_end(Session, 2, Pause);
        End -> ?assertEqual(End, attributes(?END, content(answer(Pause))))
    end.

%% @doc The answer to a pause brings nothing, and what waits for the client is not lost by it.
-spec pause_keeps_what_waits(config()) -> term().
pause_keeps_what_waits(Config) ->
    [A, B] = [idle(online(where(Config))) || _ <- [1, 2]],
    B1 = idle(send(B, message(jid(A), "before the pause"))),
    ok = caught_up(where(Config), jid(A)),
    {N, []} = numbers(A),
    Pause = paused(session(A), N, 5),
    ok = arrived(where(Config), session(A), N),
    Heard = fun(Content) -> [text(<<"body">>, El) || {xmlel, <<"message">>, _, _} = El <- elements(Content)] end,
    case expect(pause_keeps_what_waits, kind(Config)) of
        kept ->
            ?assertEqual([], Heard(content(answer(Pause)))),
            ?assertEqual([<<"before the pause">>], Heard(ask(connect(session(A)), session(A), N + 1)));
        lost ->
            Later = [ask(connect(session(A)), session(A), N + After, [], ping("ping")) || After <- [1, 2]],
            ?assertEqual([[], []], [Heard(Content) || Content <- Later])
    end,
    ok = abandon(A),
    finish(B1).

%% @doc A session that is paused ends later than others, when the pause is over.
-spec pause_postpones_the_end(config()) -> term().
pause_postpones_the_end(Config) ->
    {A, B} = watched(login(hasty(Config)), online(where(Config))),
    A1 = idle(A),
    {B1, After} = timed(fun() ->
        Paused = send(A1, [{<<"pause">>, 2}], []),
        gone(B, jid(Paused))
    end),
    ?assert(After >= 1900, After),
    finish(B1).

%% @doc The next request ends a pause; after it the session has no more time than others.
-spec pause_ends_with_a_request(config()) -> term().
pause_ends_with_a_request(Config) ->
    {A, B} = watched(login(hasty(Config)), online(where(Config))),
    A1 = idle(A),
    {N, []} = numbers(A1),
    _ = paused(session(A1), N, 10),
    ok = arrived(hasty(Config), session(A1), N),
    {B1, After} = timed(fun() ->
        ?assertMatch([{xmlel, <<"iq">>, _, _}], elements(ask(connect(session(A1)), session(A1), N + 1, [], ping("ping")))),
        gone(B, jid(A1))
    end),
    ?assert(After >= 900 andalso After < 8000, After),
    finish(B1).

%% ---- polling ---------------------------------------------------------------------------------------------------

%% @doc A client for which nothing is held, and which asks for nothing again and again, is ended.
-spec polls_too_often(config()) -> term().
polls_too_often(Config) ->
    {Socket, Session} = created(where(Config), [{<<"wait">>, 0}, {<<"hold">>, 0}]),
    {Count, End} = polls(Socket, Session, 1),
    ?assertEqual([<<"terminate">>, <<"policy-violation">>], End),
    ?assert(lists:member(Count, expect(polls_too_often, kind(Config))), Count).

%% The number of the request that ends the session.
-spec polls(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer()) -> {pos_integer(), [binary() | undefined]}.
polls(Socket, Session, N) ->
    case attributes(?END, ask(Socket, Session, N)) of
        [undefined, undefined] when N < 20 -> polls(Socket, Session, N + 1);
        End -> {N, End}
    end.

%% @doc Such a client may send stanzas whenever it wants to.
-spec polls_with_stanzas(config()) -> term().
polls_with_stanzas(Config) ->
    {Socket, Session} = created(where(Config), [{<<"wait">>, 0}, {<<"hold">>, 0}]),
    Answers = [attributes(?END, ask(Socket, Session, N, [], ?WRONG)) || N <- [1, 2, 3]],
    ?assertEqual(expect(polls_with_stanzas, kind(Config)), Answers).

%% @doc A client that polls as seldom as it was told to is answered at once, and its session goes on.
-spec patient_polls(config()) -> term().
patient_polls(Config) ->
    {Socket, Session} = created(where(Config), [{<<"wait">>, 0}, {<<"hold">>, 0}]),
    receive
    after 2050 -> ok
    end,
    ?assertEqual([undefined, undefined], attributes(?END, ask(Socket, Session, 1))).
