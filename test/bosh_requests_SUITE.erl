%% The hard part of BOSH, at a real ejabberd behind a real connection manager: requests that are late, early or repeated, and
%% what was acknowledged. Groups and differences are as in bosh_SUITE.
-module(bosh_requests_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [answer/1, ask/3, ask/5, attribute/2, attributes/2, connect/1, content/1, created/1, created/2, elements/1, is_silent/1, left/1, poll/2, poll/3, post/3, post/5, text/2, timed/1]).
-import(megaphone_test_bosh_expect, [expect/2]).
-import(megaphone_test_bosh_node, [arrived/3, hasty/1, kind/1, where/1]).
-import(megaphone_test_bosh_user, [abandon/1, finish/1, jid/1, login/1, message/2, messages/2, numbers/1, online/1, ping/1, send/2, session/1, settle/1, sockets/1]).

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
        unknown_session, rid_beyond_the_window, rid_too_old, overtaking_requests, overtaking_an_empty_request,
        pipelined_request, more_requests_than_are_held, held_request_repeated, early_request_repeated, answered_request_repeated,
        repeated_request_is_served_once, repeated_request_is_not_echoed, requests_are_acknowledged, missing_answer_is_reported,
        bad_weather
    ].

-spec init_per_group(megaphone_test_bosh_node:kind(), config()) -> config().
init_per_group(Kind, Config) -> megaphone_test_bosh_node:start(Kind, Config).

-spec end_per_group(megaphone_test_bosh_node:kind(), config()) -> ok.
end_per_group(_Kind, Config) -> megaphone_test_bosh_node:stop(Config).

%% ---- numbers ---------------------------------------------------------------------------------------------------

%% @doc A session that is not there, or not any more, is not found.
-spec unknown_session(config()) -> term().
unknown_session(Config) ->
    {Socket, Session} = created(where(Config)),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session#{sid := <<"none">>}, 1))),
    ?assertEqual(<<"terminate">>, attribute(<<"type">>, ask(Socket, Session, 1, [{<<"type">>, "terminate"}], []))),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, 2))).

%% @doc A number that is further ahead than there may be requests on their way ends the session.
-spec rid_beyond_the_window(config()) -> term().
rid_beyond_the_window(Config) ->
    {Socket, Session} = created(where(Config)),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, 3))),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, 1))).

%% @doc The repeat of a request whose answer is not kept any more ends the session.
-spec rid_too_old(config()) -> term().
rid_too_old(Config) ->
    {Socket, Session} = created(where(Config)),
    [?assertMatch(?FAILURE, ask(Socket, Session, N, [], ?WRONG)) || N <- [1, 2, 3, 4, 5]],
    Old = poll(Session, 1),
    case expect(rid_too_old, kind(Config)) of
        is_refused ->
            ?assertEqual(?NOT_FOUND, attributes(?END, content(answer(Old)))),
            ?assertMatch(?FAILURE, ask(Socket, Session, 6, [], ?WRONG));
        waits_for_its_end ->
            ?assertMatch(?FAILURE, ask(Socket, Session, 6, [], ?WRONG)),
            ?assert(is_silent(Old)),
            _ = ask(Socket, Session, 7, [{<<"type">>, "terminate"}], []),
            ?assertEqual(<<"terminate">>, attribute(<<"type">>, content(answer(Old))))
    end.

%% @doc A request that comes before its predecessor waits for it; then both are served in their order, at once.
-spec overtaking_requests(config()) -> term().
overtaking_requests(Config) ->
    User = online(where(Config)),
    {N, []} = numbers(User),
    Session = session(User),
    Second = poll(Session, N + 1, ping("second")),
    ok = arrived(where(Config), Session, N + 1),
    First = poll(Session, N, ping("first")),
    ?assertEqual([<<"first">>, <<"second">>], results([First, Second], Session, N + 2)),
    abandon(User).

%% The two results that come by these connections, and by further requests if need be.
-spec results([gen_tcp:socket()], megaphone_test_bosh:session(), integer()) -> [binary() | undefined].
results([], Session, N) ->
    results([poll(Session, N)], Session, N + 1);
results([Socket | Sockets], Session, N) ->
    Found = [attribute(<<"id">>, El) || El <- elements(content(answer(Socket)))],
    case Found of
        [] -> results(Sockets, Session, N);
        [Id] when Id =:= <<"first">> -> Found ++ results(Sockets, Session, N);
        _ -> Found
    end.

%% @doc A request that comes before its predecessor is served as soon as that is there, though that one could be held.
-spec overtaking_an_empty_request(config()) -> term().
overtaking_an_empty_request(Config) ->
    {Wait, Expected} = expect(overtaking_an_empty_request, kind(Config)),
    {Socket, Session} = created(hasty(Config), [{<<"wait">>, Wait}]),
    Second = poll(Session, 2, ?WRONG),
    ok = arrived(where(Config), Session, 2),
    ?assertMatch(?EMPTY, ask(Socket, Session, 1)),
    case Expected of
        served ->
            ?assertMatch(?FAILURE, content(answer(Second)));
        never ->
            ?assert(is_silent(Second)),
            %% The session ends as if its client did nothing.
            ?assertEqual(<<"terminate">>, attribute(<<"type">>, content(answer(Second))))
    end.

%% @doc A request that is pipelined behind one that is held comes to the session at once: that one is answered for it.
-spec pipelined_request(config()) -> term().
pipelined_request(Config) ->
    {Wait, Expected} = expect(pipelined_request, kind(Config)),
    {Socket, Session} = created(where(Config), [{<<"wait">>, Wait}]),
    ok = post(Socket, Session, 1),
    ok = post(Socket, Session, 2, [], ?WRONG),
    {Answers, Time} = timed(fun() -> [content(answer(Socket)) || _ <- [1, 2]] end),
    ?assertMatch([?EMPTY, ?FAILURE], Answers),
    ?assertEqual({Time, Expected}, {Time, if Time < 900 * Wait -> at_once; true -> late end}).

%% @doc Of empty requests as many are held as was agreed, and the oldest is answered at once when there is another one.
-spec more_requests_than_are_held(config()) -> term().
more_requests_than_are_held(Config) ->
    {_, Session} = created(where(Config)),
    Last = lists:foldl(
        fun(N, Held) ->
            ok = arrived(where(Config), Session, N - 1),
            Next = poll(Session, N),
            ?assertMatch({N, ?EMPTY}, {N, content(answer(Held))}),
            Next
        end,
        poll(Session, 1),
        lists:seq(2, 20)
    ),
    ?assert(is_silent(Last)).

%% @doc A repeat of a request that is held takes its place: the answer comes by the new connection.
-spec held_request_repeated(config()) -> term().
held_request_repeated(Config) ->
    B = online(where(Config)),
    A = settle(online(where(Config))),
    [Old, Spare] = sockets(A),
    {_, [N]} = numbers(A),
    ok = post(Spare, session(A), N, [], []),
    Left = replaced(Config, Old, Spare),
    ?assert(is_silent(Left)),
    B1 = send(B, message(jid(A), "for the one that is left")),
    Content = content(answer(Left)),
    ?assertEqual([<<"for the one that is left">>], [text(<<"body">>, El) || El <- elements(Content)]),
    ?assertEqual(expect(repeats_are_echoed, kind(Config)), attribute(<<"rid">>, Content) =/= undefined),
    ok = abandon(A),
    finish(B1).

%% The connection that is left of two with the same request. Where requests may overtake each other it can be any of them.
-spec replaced(config(), gen_tcp:socket(), gen_tcp:socket()) -> gen_tcp:socket().
replaced(Config, Old, New) ->
    case expect(held_request_repeated, kind(Config)) of
        one_is_cut ->
            left([Old, New]);
        old_is_answered ->
            ?assertMatch(?EMPTY, content(answer(Old))),
            New
    end.

%% @doc What a repeated request carries does not come back to its sender.
-spec repeated_request_is_not_echoed(config()) -> term().
repeated_request_is_not_echoed(Config) ->
    [User, Other] = [online(where(Config)) || _ <- [1, 2]],
    {N, []} = numbers(User),
    #{sid := Sid} = Session = session(User),
    Old = poll(Session, N, message(jid(Other), "hello")),
    ok = arrived(where(Config), Session, N),
    Left = replaced(Config, Old, poll(Session, N, message(jid(Other), "hello"))),
    _ = poll(Session, N + 1),
    Content = content(answer(Left)),
    Echo = {attribute(<<"sid">>, Content) =:= Sid, length(elements(Content)) > 0},
    ?assertEqual({expect(repeats_are_echoed, kind(Config)), expect(repeats_are_echoed, kind(Config))}, Echo),
    abandon(User).

%% @doc A repeat of a request that waits for its predecessor takes its place.
-spec early_request_repeated(config()) -> term().
early_request_repeated(Config) ->
    {Socket, Session} = created(where(Config)),
    Early = poll(Session, 2, ?WRONG),
    ok = arrived(where(Config), Session, 2),
    Again = poll(Session, 2, ?WRONG),
    case expect(early_request_repeated, kind(Config)) of
        one_is_cut ->
            Left = left([Early, Again]),
            _ = ask(Socket, Session, 1, [], ?WRONG),
            ?assertMatch(?FAILURE, content(answer(Left)));
        {they_are, Ends} ->
            ?assertEqual([[<<"terminate">>, End] || End <- Ends], [attributes(?END, content(answer(Each))) || Each <- [Early, Again]])
    end.

%% @doc A repeat of an answered request gets the same answer, as often as it comes, and the session goes on.
-spec answered_request_repeated(config()) -> term().
answered_request_repeated(Config) ->
    {Socket, Session} = created(where(Config)),
    First = ask(Socket, Session, 1, [], ?WRONG),
    ?assertMatch(?FAILURE, First),
    ?assertEqual([First, First], [ask(connect(Session), Session, 1, [], ?WRONG) || _ <- [1, 2]]),
    Second = ask(Socket, Session, 2, [], ?WRONG),
    ?assertEqual([First, Second, Second, First], [ask(connect(Session), Session, N, [], ?WRONG) || N <- [1, 2, 2, 1]]),
    ?assertMatch(?FAILURE, ask(Socket, Session, 3, [], ?WRONG)).

%% @doc What a repeated request carries is not taken twice, whether the first one is held or answered.
-spec repeated_request_is_served_once(config()) -> term().
repeated_request_is_served_once(Config) ->
    Where = where(Config),
    [A, B] = [login(Where), online(Where)],
    {N, []} = numbers(A),
    Session = session(A),
    Socket = poll(Session, N, message(jid(B), "once")),
    ok = arrived(Where, Session, N),
    ok = post(connect(Session), Session, N, [], message(jid(B), "once")),
    _ = poll(Session, N + 1, message(jid(A), "to myself")),
    _ = answer(Socket),
    _ = ask(connect(Session), Session, N + 1, [], message(jid(A), "to myself")),
    ok = post(connect(Session), Session, N, [], message(jid(B), "once")),
    _ = ask(connect(Session), Session, N + 2, [{<<"type">>, "terminate"}], message(jid(B), "the end")),
    {Texts, B1} = messages(B, 2),
    ?assertEqual([<<"once">>, <<"the end">>], Texts),
    finish(B1).

%% ---- acknowledgements ------------------------------------------------------------------------------------------

%% @doc A client that wants to know is told that a later request has arrived than the one that is answered.
-spec requests_are_acknowledged(config()) -> term().
requests_are_acknowledged(Config) ->
    {Socket, #{rid := Rid} = Session} = created(where(Config), [{<<"ack">>, 1}]),
    First = poll(Session, 1),
    ok = arrived(where(Config), Session, 1),
    Acks = [attribute(<<"ack">>, Content) || Content <- [ask(Socket, Session, 2, [], ?WRONG), content(answer(First))]],
    ?assertEqual([undefined, expect(requests_are_acknowledged, kind(Config))], [Ack =:= integer_to_binary(Rid + 2) orelse Ack || Ack <- Acks]).

%% @doc A client that acknowledges less than it was answered is told since when an answer is missing, and gets it again.
-spec missing_answer_is_reported(config()) -> term().
missing_answer_is_reported(Config) ->
    {Socket, #{rid := Rid} = Session} = created(where(Config), [{<<"ack">>, 1}]),
    [_, Missing] = [ask(Socket, Session, N, [{<<"ack">>, Rid + N - 1}], ?WRONG) || N <- [1, 2]],
    %% It may only be late.
    receive
    after 1100 -> ok
    end,
    Next = ask(Socket, Session, 3, [{<<"ack">>, Rid + 1}], ?WRONG),
    Reported = [binary_to_integer(Value) || Value <- attributes([<<"report">>, <<"time">>], Next), Value =/= undefined],
    case {expect(missing_answer_is_reported, kind(Config)), Reported} of
        {true, [Report, Time]} -> ?assertEqual({Rid + 2, true}, {Report, Time >= 1000 andalso Time < ?DEADLINE});
        {Expected, _} -> ?assertEqual({Expected, []}, {false, Reported})
    end,
    ?assertEqual(Missing, ask(Socket, Session, 2, [{<<"ack">>, Rid + 1}], ?WRONG)).

%% ---- everything ------------------------------------------------------------------------------------------------

%% @doc Whatever is lost, repeated or late, each of many messages arrives once and in order, both ways. The last seed is
%% another one each time; MEGAPHONE_BOSH_SEED names it, MEGAPHONE_BOSH_SEEDS asks for more of them.
-spec bad_weather(config()) -> term().
bad_weather(Config) ->
    First = number("MEGAPHONE_BOSH_SEED", erlang:system_time(millisecond)),
    More = number("MEGAPHONE_BOSH_SEEDS", 1),
    io:format("MEGAPHONE_BOSH_SEED=~b~n", [First]),
    ct:timetrap({seconds, 60 + 10 * More}),
    Troubles = expect(bad_weather, kind(Config)),
    [
        ?assertEqual({Seed, ok}, {Seed, megaphone_test_bosh_weather:run(where(Config), Seed, Troubles)})
     || Seed <- [1, 2 | lists:seq(First, First + More - 1)]
    ].

-spec number(string(), integer()) -> integer().
number(Name, Default) ->
    case os:getenv(Name) of
        false -> Default;
        Text -> list_to_integer(Text)
    end.
