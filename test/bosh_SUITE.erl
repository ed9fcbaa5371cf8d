%% What a BOSH client sees of a real ejabberd through a real connection manager: HTTP, sessions and conversations. Each
%% group serves BOSH in another way and has the same cases; where they differ is in megaphone_test_bosh_expect.
%% Requests that are late, early or repeated are in bosh_requests_SUITE, time in bosh_time_SUITE.
-module(bosh_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [answer/1, ask/3, ask/5, attribute/2, attributes/2, body/2, connect/1, content/1, create/2, create/3, elements/1, field/2, http/4, text/2]).
-import(megaphone_test_bosh_expect, [expect/2]).
-import(megaphone_test_bosh_node, [kind/1, where/1]).
-import(megaphone_test_node, [call/4]).
-import(megaphone_test_bosh_user, [abandon/1, await/2, finish/1, finish/2, gone/2, idle/1, jid/1, login/1, message/2, messages/2, next/1, numbers/1, online/1, ping/1, send/2, session/1, settle/1, sockets/1, watched/2]).

-type config() :: megaphone_test_bosh_node:config().

-define(JABBER, "xmlns='jabber:client'").
%% Is answered at once, by a client that has not logged in: there is no such mechanism.
-define(WRONG, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONE'/>").

-spec suite() -> [tuple()].
suite() -> [{timetrap, {seconds, 60}}].

-spec all() -> [{group, megaphone_test_bosh_node:kind()}].
all() -> megaphone_test_bosh_node:all().

-spec groups() -> [tuple()].
groups() -> megaphone_test_bosh_node:groups(cases()).

-spec cases() -> [atom()].
cases() ->
    [
        get_shows_a_page, options_let_other_origins_in, empty_post_is_refused, put_is_refused, malformed_xml_is_refused,
        other_xml_is_refused, huge_body_is_refused, every_answer_is_for_all_origins,
        creation_tells_the_terms, creation_is_acknowledged, unknown_domain, missing_domain, hold_is_capped, wait_is_capped,
        login_with_plain, chat_both_ways, text_is_escaped, harmless_xml_is_taken, attributes_are_escaped, large_message_passes,
        several_stanzas_in_one_body, stanzas_have_their_namespace, stream_error_ends_the_session, the_end_comes_behind_what_waits,
        termination_is_answered, termination_carries_stanzas, two_sessions_are_independent,
        keys_in_order, wrong_key, payloads_pipelined_on_one_connection
    ].

-spec init_per_group(megaphone_test_bosh_node:kind(), config()) -> config().
init_per_group(Kind, Config) -> megaphone_test_bosh_node:start(Kind, Config).

-spec end_per_group(megaphone_test_bosh_node:kind(), config()) -> ok.
end_per_group(_Kind, Config) -> megaphone_test_bosh_node:stop(Config).

%% ---- HTTP ------------------------------------------------------------------------------------------------------

%% One request on a connection of its own.
-spec once(config(), iodata(), iodata()) -> megaphone_test_bosh:answer().
once(Config, Method, Data) ->
    Socket = connect(where(Config)),
    ok = http(Socket, Method, [], Data),
    Answer = answer(Socket),
    ok = gen_tcp:close(Socket),
    Answer.

%% @doc A browser that is pointed at the address gets a page for people.
-spec get_shows_a_page(config()) -> term().
get_shows_a_page(Config) ->
    #{status := 200, text := Page} = once(Config, "GET", []),
    ?assertMatch({match, _}, re:run(Page, "<html.*BOSH.*</html>", [dotall])).

%% @doc A browser that asks whether a script of another origin may post here is told that it may.
-spec options_let_other_origins_in(config()) -> term().
options_let_other_origins_in(Config) ->
    #{status := 200, text := <<>>} = Answer = once(Config, "OPTIONS", []),
    ?assertEqual(
        [<<"*">>, <<"GET, POST, OPTIONS">>, <<"Content-Type">>, <<"86400">>],
        [field(<<"access-control-", Name/binary>>, Answer) || Name <- [<<"allow-origin">>, <<"allow-methods">>, <<"allow-headers">>, <<"max-age">>]]
    ).

%% @doc A POST without a body is a bad request.
-spec empty_post_is_refused(config()) -> term().
empty_post_is_refused(Config) ->
    ?assertMatch(#{status := 400}, once(Config, "POST", [])).

%% @doc Other methods are bad requests.
-spec put_is_refused(config()) -> term().
put_is_refused(Config) ->
    ?assertMatch(#{status := 400}, once(Config, "PUT", body([{<<"rid">>, 1}], []))).

%% @doc A body that is no XML is answered by HTTP's 400, with nothing in the answer.
-spec malformed_xml_is_refused(config()) -> term().
malformed_xml_is_refused(Config) ->
    [
        ?assertMatch({_, #{status := 400, text := <<>>}}, {Text, once(Config, "POST", Text)})
     || Text <- ["<body", "nonsense", "<body></bod>", "<body rid='1'><a></body>", "<body rid='1'/><body/>", "<body rid='1'>&x;</body>", [255, 254]]
    ].

%% @doc XML that is no request of BOSH is answered by HTTP's 400 as well: another element, another namespace, no number.
-spec other_xml_is_refused(config()) -> term().
other_xml_is_refused(Config) ->
    Own = "xmlns='http://jabber.org/protocol/httpbind' to='localhost'",
    [
        ?assertMatch({_, #{status := 400, text := <<>>}}, {Text, once(Config, "POST", Text)})
     || Text <- [
            ["<stanza ", Own, " rid='1'/>"], ["<body ", Own, "/>"], ["<body ", Own, " rid='x'/>"], ["<body ", Own, " rid='-1'/>"],
            "<body xmlns='jabber:client' to='localhost' rid='1'/>", ["<body ", Own, " rid='1' wait='x'/>"]
        ]
    ].

%% @doc A body that is longer than the longest stanza (524,288 bytes) is answered by HTTP's 403.
-spec huge_body_is_refused(config()) -> term().
huge_body_is_refused(Config) ->
    Empty = iolist_size(body([{<<"rid">>, 1}, {<<"sid">>, "none"}], [])),
    Sized = fun(Size) -> once(Config, "POST", body([{<<"rid">>, 1}, {<<"sid">>, "none"}], binary:copy(<<" ">>, Size - Empty))) end,
    ?assertMatch(#{status := 403, text := <<>>}, Sized(524289)),
    ?assertEqual(<<"item-not-found">>, attribute(<<"condition">>, content(Sized(524288)))).

%% @doc Whatever the answer is, scripts of all origins may read it, and answers of BOSH say that they are XML.
-spec every_answer_is_for_all_origins(config()) -> term().
every_answer_is_for_all_origins(Config) ->
    Creation = [{<<"rid">>, 1}, {<<"to">>, "localhost"}, {<<"hold">>, 1}, {<<"wait">>, 60}, {<<"xmpp:version">>, "1.0"}, {<<"xmlns:xmpp">>, "urn:xmpp:xbosh"}],
    Asked = fun(Method, Data) ->
        #{status := Status} = Answer = once(Config, Method, Data),
        {Status, field(<<"access-control-allow-origin">>, Answer), field(<<"content-type">>, Answer)}
    end,
    Bodies = [body(Creation, []), body([{<<"rid">>, 1}], []), body([{<<"rid">>, 1}, {<<"sid">>, "none"}], [])],
    ?assertEqual([{200, <<"*">>, <<"text/xml; charset=utf-8">>} || _ <- Bodies], [Asked("POST", Body) || Body <- Bodies]),
    Others = [{400, "POST", "nonsense"}, {400, "PUT", hd(Bodies)}, {403, "POST", binary:copy(<<" ">>, 524289)}, {200, "GET", []}, {200, "OPTIONS", []}],
    ?assertEqual([{Status, <<"*">>} || {Status, _, _} <- Others], [erlang:delete_element(3, Asked(Method, Data)) || {_, Method, Data} <- Others]),
    %% ejabberd refuses what has no body before mod_bosh sees it.
    Refused = [{"POST", []}, {"PUT", []}],
    ?assertEqual(
        [{400, expect(every_answer_is_for_all_origins, kind(Config))} || _ <- Refused],
        [erlang:delete_element(3, Asked(Method, Data)) || {Method, Data} <- Refused]
    ).

%% ---- creation --------------------------------------------------------------------------------------------------

%% @doc The answer to the first request comes at once, names the terms of the session and brings the stream's features.
-spec creation_tells_the_terms(config()) -> term().
creation_tells_the_terms(Config) ->
    {#{sid := Sid}, Created} = create(connect(where(Config)), where(Config), [{<<"wait">>, 50}]),
    ?assert(byte_size(Sid) >= 20),
    ?assertEqual(
        [<<"50">>, expect(creation_tells_the_terms, kind(Config)), <<"2">>, <<"30">>, <<"1">>, <<"2">>, <<"120">>, <<"localhost">>, <<"true">>, <<"1.0">>],
        attributes(
            [<<"wait">>, <<"ver">>, <<"polling">>, <<"inactivity">>, <<"hold">>, <<"requests">>, <<"maxpause">>, <<"from">>, <<"xmpp:restartlogic">>, <<"xmpp:version">>],
            Created
        )
    ),
    ?assertEqual([<<"urn:xmpp:xbosh">>, <<"http://etherx.jabber.org/streams">>], attributes([<<"xmlns:xmpp">>, <<"xmlns:stream">>], Created)),
    [{xmlel, <<"stream:features">>, _, Features}] = elements(Created),
    ?assert(lists:keymember(<<"mechanisms">>, 2, Features)).

%% @doc A client that wants acknowledgements has its first request acknowledged.
-spec creation_is_acknowledged(config()) -> term().
creation_is_acknowledged(Config) ->
    {#{rid := Rid}, Created} = create(connect(where(Config)), where(Config), [{<<"ack">>, 1}]),
    Ack = attribute(<<"ack">>, Created),
    ?assertEqual(expect(creation_is_acknowledged, kind(Config)), {rid, Ack} =:= {rid, integer_to_binary(Rid)}),
    {_, Other} = create(connect(where(Config)), where(Config)),
    ?assertEqual(undefined, attribute(<<"ack">>, Other)).

%% @doc A session with a host that is not served here ends as it begins.
-spec unknown_domain(config()) -> term().
unknown_domain(Config) ->
    {_, Ended} = create(connect(where(Config)), where(Config), [{<<"to">>, "nowhere.example"}]),
    ?assertEqual([<<"terminate">>, expect(unknown_domain, kind(Config))], attributes([<<"type">>, <<"condition">>], Ended)).

%% @doc The first request has to name a host.
-spec missing_domain(config()) -> term().
missing_domain(Config) ->
    {_, Ended} = create(connect(where(Config)), where(Config), [{<<"to">>, undefined}]),
    ?assertEqual([<<"terminate">>, <<"improper-addressing">>, undefined], attributes([<<"type">>, <<"condition">>, <<"sid">>], Ended)).

%% @doc One request is held at most, whatever the client would like, and one more than that may be on its way.
-spec hold_is_capped(config()) -> term().
hold_is_capped(Config) ->
    Held = fun(Hold) ->
        {_, Created} = create(connect(where(Config)), where(Config), [{<<"hold">>, Hold}]),
        [binary_to_integer(Value) || Value <- attributes([<<"hold">>, <<"requests">>], Created)]
    end,
    ?assertEqual([[0, 1], [1, 2], [1, 2], [1, 2]], [Held(Hold) || Hold <- [0, 1, 2, undefined]]).

%% @doc A request is held for five minutes at most.
-spec wait_is_capped(config()) -> term().
wait_is_capped(Config) ->
    Wait = fun(Asked) ->
        {_, Created} = create(connect(where(Config)), where(Config), [{<<"wait">>, Asked}]),
        attribute(<<"wait">>, Created)
    end,
    ?assertEqual([<<"7">>, <<"300">>, <<"300">>], [Wait(Asked) || Asked <- [7, 100000, undefined]]).

%% ---- conversations ---------------------------------------------------------------------------------------------

%% @doc An account's user logs in with a password, restarts the stream, gets other features and binds a resource.
-spec login_with_plain(config()) -> term().
login_with_plain(Config) ->
    {Name, _} = Account = megaphone_test_bosh_user:account(where(Config)),
    User = megaphone_test_bosh_user:login(where(Config), Account),
    ?assertMatch([<<Name:(byte_size(Name))/binary, "@localhost">>, <<_, _/binary>>], binary:split(jid(User), <<"/">>)),
    finish(User).

%% @doc Two users talk, and what one says is with the other at once, since requests are held for it.
-spec chat_both_ways(config()) -> term().
chat_both_ways(Config) ->
    [A, B] = [settle(online(where(Config))) || _ <- [1, 2]],
    {A1, B1} = tell(A, B, "hello"),
    {B2, A2} = tell(settle(B1), settle(A1), "and to you"),
    {A3, B3} = tell(A2, B2, "again"),
    finish(A3),
    finish(B3).

%% One says something and the other hears it.
-spec tell(User, User, iodata()) -> {User, User} when User :: megaphone_test_bosh_user:user().
tell(From, To, Text) ->
    Said = send(From, message(jid(To), Text)),
    {Heard, Listener} = messages(To, 1),
    ?assertEqual([iolist_to_binary(Text)], Heard),
    {Said, Listener}.

%% @doc Text arrives as it was meant, however it was escaped: markup, quotes, CDATA sections, references, all of Unicode.
-spec text_is_escaped(config()) -> term().
text_is_escaped(Config) ->
    [A, B] = [online(where(Config)) || _ <- [1, 2]],
    {A1, B1} = tell(A, B, <<"<&>\"' ]]> &amp; <a b='c'/>\n\t ", "äß€ 日本 😀"/utf8>>),
    Raw = fun(Xml) -> ["<message ", ?JABBER, " type='chat' to='", jid(B), "'><body>", Xml, "</body></message>"] end,
    A2 = send(A1, [Raw("<![CDATA[<&amp;>]]>"), Raw("&#60;&#x26;&gt;&#x1F600;"), Raw("a<![CDATA[b]]>c")]),
    {Texts, B2} = messages(B1, 3),
    ?assertEqual([<<"<&amp;>">>, <<"<&>😀"/utf8>>, <<"abc">>], Texts),
    finish(A2),
    finish(B2).

%% @doc What clients may write around and in a body does no harm: a declaration, spaces, attributes that nobody knows.
-spec harmless_xml_is_taken(config()) -> term().
harmless_xml_is_taken(Config) ->
    User = online(where(Config)),
    [Socket, _] = sockets(User),
    {N, []} = numbers(User),
    #{rid := Rid, sid := Sid} = session(User),
    ok = http(Socket, "POST", ["Content-Type: text/xml; charset=utf-8", "Accept-Encoding: identity"], [
        "<?xml version='1.0' encoding='UTF-8'?>\n<body  unknown = 'x'\n rid=\"", integer_to_list(Rid + N), "\" sid=\"", Sid,
        "\" xmlns=\"http://jabber.org/protocol/httpbind\" >\n \t", ping("ping"), "\r\n</body >\n"
    ]),
    ?assertMatch([{xmlel, <<"iq">>, _, _}], elements(content(answer(Socket)))),
    ok = abandon(User).

%% @doc Attributes arrive with the values that they had.
-spec attributes_are_escaped(config()) -> term().
attributes_are_escaped(Config) ->
    [A, B] = [online(where(Config)) || _ <- [1, 2]],
    Id = <<"<&>\"' &amp; ", "é😀"/utf8>>,
    A1 = send(A, ["<message ", ?JABBER, " to='", jid(B), "' id='", megaphone_test_bosh:escape(Id), "'><x xmlns='urn:x' y=\"it's\"/></message>"]),
    {Message, B1} = await(B, <<"message">>),
    ?assertEqual(Id, attribute(<<"id">>, Message)),
    [X] = [El || {xmlel, <<"x">>, _, _} = El <- elements(Message)],
    ?assertEqual(<<"it's">>, attribute(<<"y">>, X)),
    finish(A1),
    finish(B1).

%% @doc A message of 400,000 bytes is no problem, in one request and in one answer.
-spec large_message_passes(config()) -> term().
large_message_passes(Config) ->
    [A, B] = [online(where(Config)) || _ <- [1, 2]],
    {A1, B1} = tell(A, settle(B), binary:copy(<<"0123456789">>, 40000)),
    finish(A1),
    finish(B1).

%% @doc Stanzas of one request arrive one by one and in order, and so do those of one answer.
-spec several_stanzas_in_one_body(config()) -> term().
several_stanzas_in_one_body(Config) ->
    [A, B] = [online(where(Config)) || _ <- [1, 2]],
    Texts = [integer_to_binary(N) || N <- lists:seq(1, 30)],
    A1 = send(A, [message(jid(B), Text) || Text <- Texts]),
    {Heard, B1} = messages(B, 30),
    ?assertEqual(Texts, Heard),
    %% All results are there before the next request asks for them: they come together.
    Pings = [ping(Text) || Text <- Texts],
    ?assertEqual(Texts, results(send(B1, Pings), 30)),
    finish(A1).

-spec results(megaphone_test_bosh_user:user(), non_neg_integer()) -> [binary() | undefined].
results(User, 0) ->
    _ = finish(User),
    [];
results(User, Count) ->
    {Iq, Later} = await(User, <<"iq">>),
    [attribute(<<"id">>, Iq) | results(Later, Count - 1)].

%% @doc Stanzas that are delivered are in the namespace jabber:client and not in that of the body around them.
-spec stanzas_have_their_namespace(config()) -> term().
stanzas_have_their_namespace(Config) ->
    User = send(login(where(Config)), [
        "<presence ", ?JABBER, "/>", ping("p")
    ]),
    {Presence, U1} = await(User, <<"presence">>),
    {Iq, U2} = await(U1, <<"iq">>),
    {Message, U3} = await(send(U2, message(jid(U2), "to myself")), <<"message">>),
    ?assertEqual([<<"jabber:client">> || _ <- [1, 2, 3]], [attribute(<<"xmlns">>, El) || El <- [Presence, Iq, Message]]),
    finish(U3).

%% @doc What ends the stream ends the session, and the client is told by the body and by the stream's error in it.
-spec stream_error_ends_the_session(config()) -> term().
stream_error_ends_the_session(Config) ->
    User = send(login(where(Config)), ["<message ", ?JABBER, " from='somebody@else.example' to='localhost'/>"]),
    {Error, Later} = until(User, <<"stream:error">>),
    ?assertMatch([{xmlel, <<"invalid-from">>, [{<<"xmlns">>, <<"urn:ietf:params:xml:ns:xmpp-streams">>}], _} | _], elements(Error)),
    {Ended, Last} = until(Later, <<"body">>),
    ?assertEqual([<<"terminate">>, <<"remote-stream-error">>, <<"http://etherx.jabber.org/streams">>], attributes([<<"type">>, <<"condition">>, <<"xmlns:stream">>], Ended)),
    abandon(Last).

%% @doc When the server ends a session in which a stanza waits, the client gets that stanza, and then is told of the end.
-spec the_end_comes_behind_what_waits(config()) -> term().
the_end_comes_behind_what_waits(Config) ->
    #{node := Node} = where(Config),
    A = idle(online(where(Config))),
    {_, B} = await(send(online(where(Config)), [message(jid(A), "last"), ping("sent")]), <<"iq">>),
    [User, Server, Resource] = binary:split(jid(A), [<<"@">>, <<"/">>], [global]),
    ok = call(Node, ejabberd_c2s, close, [call(Node, ejabberd_sm, get_session_pid, [User, Server, Resource])]),
    case expect(the_end_comes_behind_what_waits, kind(Config)) of
        comes ->
            {Message, A1} = until(A, <<"message">>),
            ?assertEqual(<<"last">>, text(<<"body">>, Message)),
            {Ended, A2} = until(A1, <<"body">>),
            ?assertEqual([<<"terminate">>, <<"remote-stream-error">>], attributes([<<"type">>, <<"condition">>], Ended)),
            ?assertEqual([], [El || {xmlel, <<"message">>, _, _} = El <- elements(Ended)]),
            abandon(A2);
        is_lost ->
            {Next, []} = numbers(A),
            [Socket, _] = sockets(A),
            ok = megaphone_test_bosh:post(Socket, session(A), Next, [], []),
            Elements = [elements(Body) || {xmlel, _, _, _} = Body <- [megaphone_test_bosh:content(Socket, ?DEADLINE)]],
            ?assertEqual([], [El || {xmlel, <<"message">>, _, _} = El <- lists:append(Elements)]),
            abandon(A)
    end,
    finish(B).

-spec until(User, binary()) -> {megaphone_test_bosh:element(), User} when User :: megaphone_test_bosh_user:user().
until(User, Name) ->
    case next(User) of
        {{xmlel, Name, _, _}, _} = Found -> Found;
        {_, Later} -> until(Later, Name)
    end.

%% @doc A client that ends its session is told so, by the held request as well, and others see it go.
-spec termination_is_answered(config()) -> term().
termination_is_answered(Config) ->
    B = online(where(Config)),
    {A, B1} = watched(login(where(Config)), B),
    [Poll, Other] = sockets(A1 = settle(A)),
    {N, [_]} = numbers(A1),
    Ended = ask(Other, session(A1), N, [{<<"type">>, "terminate"}], []),
    Answers = [attributes([<<"type">>, <<"condition">>], Content) || Content <- [content(answer(Poll)), Ended]],
    ?assertEqual(expect(termination_is_answered, kind(Config)), Answers),
    B2 = gone(B1, jid(A)),
    ?assertEqual(<<"item-not-found">>, attribute(<<"condition">>, ask(Other, session(A1), N + 1))),
    finish(B2).

%% @doc What a client sends as it goes still arrives.
-spec termination_carries_stanzas(config()) -> term().
termination_carries_stanzas(Config) ->
    B = online(where(Config)),
    {A, B1} = watched(login(where(Config)), B),
    ok = finish(A, [message(jid(B), "my last words"), "<presence ", ?JABBER, " type='unavailable'/>"]),
    {[<<"my last words">>], B2} = messages(B1, 1),
    finish(gone(B2, jid(A))).

%% @doc Sessions know nothing of each other: one ends and the other goes on; the number of one is nothing to the other.
-spec two_sessions_are_independent(config()) -> term().
two_sessions_are_independent(Config) ->
    Where = where(Config),
    [Socket, Second] = [connect(Where) || _ <- [1, 2]],
    [{A, _}, {B, _}] = [create(Socket, Where, [{<<"rid">>, Rid}]) || Rid <- [3000000, 2000000]],
    ?assertNotEqual(maps:get(sid, A), maps:get(sid, B)),
    ?assertEqual(<<"terminate">>, attribute(<<"type">>, ask(Socket, A, 1, [{<<"type">>, "terminate"}], []))),
    ?assertMatch({xmlel, _, _, [{xmlel, <<"failure">>, _, _}]}, ask(Second, B, 1, [], ?WRONG)),
    ?assertEqual(<<"item-not-found">>, attribute(<<"condition">>, ask(Second, B#{rid := maps:get(rid, A)}, 2))).

%% ---- keys ------------------------------------------------------------------------------------------------------

%% A sequence of keys, that which is sent first being the hash of the one that is sent next.
-spec keys(pos_integer()) -> [binary()].
keys(Count) ->
    Seed = string:lowercase(binary:encode_hex(crypto:strong_rand_bytes(20))),
    tl(lists:reverse(lists:foldl(fun(_, [Key | _] = Keys) -> [next_key(Key) | Keys] end, [Seed], lists:seq(1, Count)))).

-spec next_key(binary()) -> binary().
next_key(Key) -> string:lowercase(binary:encode_hex(crypto:hash(sha, Key))).

%% @doc A session with keys takes each request with the right one, and a new sequence where one ends.
-spec keys_in_order(config()) -> term().
keys_in_order(Config) ->
    Where = where(Config),
    Socket = connect(Where),
    [K1, K2, K3] = lists:reverse(keys(3)),
    [N1, N2] = lists:reverse(keys(2)),
    {Session, _} = create(Socket, Where, [{<<"newkey">>, K1}]),
    Answers = [
        ask(Socket, Session, N, Attributes, ?WRONG)
     || {N, Attributes} <- [{1, [{<<"key">>, K2}]}, {2, [{<<"key">>, K3}, {<<"newkey">>, N1}]}, {3, [{<<"key">>, N2}]}]
    ],
    ?assertMatch([[{xmlel, <<"failure">>, _, _}], [{xmlel, <<"failure">>, _, _}], [{xmlel, <<"failure">>, _, _}]], [elements(Answer) || Answer <- Answers]).

%% @doc A wrong key, or none, ends the session: somebody else has learned its id.
-spec wrong_key(config()) -> term().
wrong_key(Config) ->
    Where = where(Config),
    Ended = fun(Attributes) ->
        Socket = connect(Where),
        {Session, _} = create(Socket, Where, [{<<"newkey">>, hd(keys(1))}]),
        Answer = ask(Socket, Session, 1, Attributes, ?WRONG),
        ?assertEqual(<<"item-not-found">>, attribute(<<"condition">>, ask(Socket, Session, 2))),
        attributes([<<"type">>, <<"condition">>], Answer)
    end,
    ?assertEqual(
        [[<<"terminate">>, <<"item-not-found">>], [<<"terminate">>, <<"item-not-found">>]],
        [Ended(Attributes) || Attributes <- [[{<<"key">>, "0123456789abcdef0123456789abcdef01234567"}], []]]
    ).

%% @doc Requests that are sent behind each other on one connection are answered in their order, each with what it asked for.
-spec payloads_pipelined_on_one_connection(config()) -> term().
payloads_pipelined_on_one_connection(Config) ->
    User = online(where(Config)),
    [Socket, _] = sockets(User),
    {N, []} = numbers(User),
    #{rid := Rid} = Session = session(User),
    Ids = ["a", "b", "c", "d", "e"],
    ok = gen_tcp:send(Socket, [
        megaphone_test_bosh:request(Session, Rid + At, ping(Id))
     || {At, Id} <- lists:zip(lists:seq(N, N + 4), Ids)
    ]),
    %% Which answer has which result depends on how fast they are made; their order does not.
    First = lists:append([ids(content(answer(Socket))) || _ <- Ids]),
    ?assertEqual([list_to_binary(Id) || Id <- Ids], results(Socket, Session, N + length(Ids), length(Ids), First)),
    ok = abandon(User).

-spec ids(megaphone_test_bosh:element()) -> [binary() | undefined].
ids(Content) ->
    [attribute(<<"id">>, El) || El <- elements(Content)].

%% Those that are here, and what further requests bring until there are enough.
-spec results(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer(), pos_integer(), [binary() | undefined]) -> [binary() | undefined].
results(Socket, Session, N, Count, Ids) when length(Ids) < Count ->
    results(Socket, Session, N + 1, Count, Ids ++ ids(ask(Socket, Session, N)));
results(_Socket, _Session, _N, _Count, Ids) ->
    Ids.
