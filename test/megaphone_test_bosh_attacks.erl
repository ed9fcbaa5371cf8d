%% BOSH clients that mean harm: each kind of attack with what the server has to say to it. What is random in an attack comes
%% from the seed of the process.
-module(megaphone_test_bosh_attacks).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [answer/1, ask/3, ask/5, attribute/2, attributes/2, body/2, connect/1, content/1, created/1, created/2, elements/1, http/4, left/1, poll/3, text/2]).
-import(megaphone_test_bosh_user, [abandon/1, finish/1, idle/1, jid/1, login/1, message/2, numbers/1, session/1, sockets/1]).

%% In the test.
-export([kinds/0, attack/2]).
%% In the node.
-export([measure/0]).
-export_type([target/0]).

%% Where, from which address, and the session of somebody else.
-type target() :: #{port := inet:port_number(), from := inet:ip_address(), victim := megaphone_test_bosh:session(), _ => _}.

-define(END, [<<"type">>, <<"condition">>]).
-define(NOT_FOUND, [<<"terminate">>, <<"item-not-found">>]).
-define(POLICY, [<<"terminate">>, <<"policy-violation">>]).
%% Is answered at once, by a client that has not logged in: there is no such mechanism.
-define(WRONG, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONE'/>").
-define(FAILURE, {xmlel, <<"body">>, _, [{xmlel, <<"failure">>, _, _}]}).
%% See megaphone_test_node:write_config/2, and limits.rs.
-define(MAX_STANZA, 524288).
-define(MAX_STANZA_BEFORE_LOGIN, 8192).
-define(ELEMENTS_BEFORE_LOGIN, 32).
-define(DEPTH, 128).
-define(ATTRIBUTES, 128).
-define(WINDOW, 2).
-define(MAX_RID, (1 bsl 53 - 1)).

-spec kinds() -> [atom()].
kinds() ->
    [
        rid_jump, rid_too_old, rid_hammered, sid_unknown, sid_in_capitals, sid_of_another, key_wrong, key_too_long, size_at_limit,
        size_beyond_limit, empty_body, malformed, too_deep, too_many_attributes, no_numbers, largest_numbers, pause_too_long,
        polls_too_hasty, large_before_login, many_elements_before_login, deep_before_login, stanza_before_login, large_and_early, large_creation, nowhere, half_request, cut,
        many_stanzas
    ].

%% What is in the node: bytes that Erlang has, those of the table of sessions aside; processes; and bytes of that table. It keeps
%% the timers of sessions that have ended until their time has come, and is larger for that long.
-spec measure() -> {pos_integer(), pos_integer(), non_neg_integer()}.
measure() ->
    _ = [garbage_collect(Pid) || Pid <- processes()],
    #{memory := Table} = megaphone_nif:bosh_info(),
    {erlang:memory(total) - Table, erlang:system_info(process_count), Table}.

%% ---- helpers ---------------------------------------------------------------------------------------------------

-spec any([Each, ...]) -> Each.
any(List) -> lists:nth(rand:uniform(length(List)), List).

%% One request on a connection of its own.
-spec once(target(), iodata()) -> megaphone_test_bosh:answer().
once(Target, Data) ->
    Socket = connect(Target),
    ok = http(Socket, "POST", [], Data),
    Answer = answer(Socket),
    ok = gen_tcp:close(Socket),
    Answer.

-spec refused(integer(), target(), iodata()) -> ok.
refused(Status, Target, Data) ->
    ?assertMatch({_, #{status := Status, text := <<>>}}, {iolist_size(Data), once(Target, Data)}),
    ok.

%% The session goes on, or it does not.
-spec unharmed(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer()) -> ok.
unharmed(Socket, Session, N) ->
    ?assertMatch(?FAILURE, ask(Socket, Session, N, [], ?WRONG)),
    over(Socket, Session, N + 1).

-spec over(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer()) -> ok.
over(Socket, Session, N) ->
    [<<"terminate">>, _] = attributes(?END, ask(Socket, Session, N, [{<<"type">>, "terminate"}], [])),
    gone(Socket, Session, N + 1).

-spec gone(gen_tcp:socket(), megaphone_test_bosh:session(), pos_integer()) -> ok.
gone(Socket, Session, N) ->
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, N))),
    gen_tcp:close(Socket).

%% The text of a request of a session with this rid, and as many bytes.
-spec sized(megaphone_test_bosh:session(), integer(), pos_integer(), fun((binary()) -> iodata())) -> {binary(), iodata()}.
sized(#{sid := Sid, rid := Rid}, N, Size, Elements) ->
    Whole = fun(Text) -> body([{<<"rid">>, Rid + N}, {<<"sid">>, Sid}], Elements(Text)) end,
    Text = binary:copy(<<"x">>, Size - iolist_size(Whole(<<>>))),
    {Text, Whole(Text)}.

%% A request that is longer than those who have not logged in may send.
-spec large(megaphone_test_bosh:session(), integer()) -> iodata().
large(Session, N) ->
    Size = any([?MAX_STANZA_BEFORE_LOGIN + 1, 60_000, 100_000, ?MAX_STANZA]),
    element(2, sized(Session, N, Size, fun(Text) -> ["<auth>", Text, "</auth>"] end)).

%% The stream is ended with this error.
-spec stream_error(binary(), megaphone_test_bosh:element()) -> ok.
stream_error(Name, Content) ->
    ?assertEqual([<<"terminate">>, <<"remote-stream-error">>], attributes(?END, Content)),
    [{xmlel, <<"stream:error">>, _, [{xmlel, Condition, _, _} | _]}] = elements(Content),
    ?assertEqual(Name, Condition),
    ok.

-spec sid(integer()) -> binary().
sid(Length) -> <<<<(any("0123456789abcdef"))>> || _ <- lists:seq(1, Length)>>.

%% ---- numbers, names and keys -----------------------------------------------------------------------------------

-spec attack(atom(), target()) -> ok.
attack(rid_jump, Target) ->
    {Socket, #{rid := Rid} = Session} = created(Target),
    Jump = any([?WINDOW + 1, ?WINDOW + rand:uniform(1000), ?MAX_RID - Rid]),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, Jump))),
    gone(Socket, Session, 1);
attack(rid_too_old, Target) ->
    {Socket, #{rid := Rid} = Session} = created(Target),
    [?assertMatch(?FAILURE, ask(Socket, Session, N, [], ?WRONG)) || N <- [1, 2, 3]],
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, any([1, 0, -1, -Rid]), [], ?WRONG))),
    unharmed(Socket, Session, 4);
attack(rid_hammered, Target) ->
    %% An early request and its repeats: one of them is answered, when its turn has come.
    {Socket, Session} = created(Target),
    Early = [poll(Session, 2, ?WRONG) || _ <- lists:seq(1, 5)],
    Left = left(Early),
    %% It makes room for the early one at once. Both stanzas are answered, and no repeat.
    ?assertMatch({xmlel, <<"body">>, [_], []}, ask(Socket, Session, 1, [], ?WRONG)),
    ?assertMatch(?FAILURE, content(answer(Left))),
    ?assertMatch(?FAILURE, ask(Socket, Session, 3)),
    lists:foreach(fun gen_tcp:close/1, Early),
    unharmed(Socket, Session, 4);
attack(sid_unknown, Target) ->
    {Socket, Session} = created(Target),
    Sid = any([sid(48), sid(48), sid(47), sid(49), sid(1), sid(10_000), <<>>, <<"__proto__">>]),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session#{sid := Sid}, 1))),
    unharmed(Socket, Session, 1);
attack(sid_in_capitals, Target) ->
    {Socket, #{sid := Sid} = Session} = created(Target),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session#{sid := string:uppercase(Sid)}, 1))),
    unharmed(Socket, Session, 1);
attack(sid_of_another, #{victim := #{sid := <<Node:8/binary, Place:8/binary, Secret/binary>>} = Victim} = Target) ->
    Sid = any([<<Node/binary, Place/binary, (sid(32))/binary>>, <<(sid(8))/binary, Place/binary, Secret/binary>>]),
    Socket = connect(Target),
    Attributes = any([[], [{<<"type">>, "terminate"}], [{<<"pause">>, 1}]]),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Victim#{sid := Sid}, rand:uniform(1000), Attributes, ?WRONG))),
    gen_tcp:close(Socket);
attack(key_wrong, Target) ->
    {Socket, Session} = created(Target, [{<<"newkey">>, sid(any([40, 40, 64, 1]))}]),
    Attributes = any([[], [{<<"key">>, sid(40)}], [{<<"key">>, <<>>}], [{<<"newkey">>, sid(40)}]]),
    ?assertEqual(?NOT_FOUND, attributes(?END, ask(Socket, Session, 1, Attributes, ?WRONG))),
    gone(Socket, Session, 2);
attack(key_too_long, Target) ->
    {Socket, #{sid := Sid, rid := Rid} = Session} = created(Target),
    Key = {any([<<"key">>, <<"newkey">>]), sid(any([65, 10_000]))},
    ok = refused(400, Target, body([{<<"rid">>, Rid + 1}, {<<"sid">>, Sid}, Key], [])),
    unharmed(Socket, Session, 1);
%% ---- size and shape --------------------------------------------------------------------------------------------
attack(size_at_limit, Target) ->
    {Socket, User} = logged_in(Target),
    {N, []} = numbers(User),
    {Text, Data} = sized(session(User), N, any([?MAX_STANZA - 1, ?MAX_STANZA]), fun(Text) -> message(jid(User), Text) end),
    ok = http(Socket, "POST", [], Data),
    [Message] = elements(content(answer(Socket))),
    ?assert(Text =:= text(<<"body">>, Message)),
    [<<"terminate">>, undefined] = attributes(?END, ask(Socket, session(User), N + 1, [{<<"type">>, "terminate"}], [])),
    abandon(User);
attack(size_beyond_limit, Target) ->
    {Socket, Session} = created(Target),
    {_, Data} = sized(Session, 1, any([?MAX_STANZA + 1, ?MAX_STANZA + 100_000, 2 * ?MAX_STANZA]), fun(Text) -> Text end),
    ok = refused(403, Target, Data),
    unharmed(Socket, Session, 1);
attack(empty_body, Target) ->
    refused(400, Target, []);
attack(malformed, Target) ->
    {Socket, #{sid := Sid, rid := Rid} = Session} = created(Target),
    Whole = iolist_to_binary(body([{<<"rid">>, Rid + 1}, {<<"sid">>, Sid}], ?WRONG)),
    Broken = any([
        binary:part(Whole, 0, rand:uniform(byte_size(Whole) - 1)), [Whole, Whole], [Whole, "x"], ["x", Whole], [<<0>>, Whole],
        [<<"<!DOCTYPE body [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>">>, Whole], [<<"<!-- -->">>, Whole], rand:bytes(rand:uniform(500)),
        binary:replace(Whole, <<"<auth">>, any([<<"<auth a='1' a='2'">>, <<"<auth a='<'">>, <<255, "<auth">>, <<"&lol;<auth">>, <<"&#0;<auth">>, <<"<?x?><auth">>, <<"<a:b/><auth">>]))
    ]),
    ok = refused(400, Target, Broken),
    unharmed(Socket, Session, 1);
attack(too_deep, Target) ->
    {Socket, #{sid := Sid, rid := Rid} = Session} = created(Target),
    Depth = any([?DEPTH + 1, 1000, 50_000]),
    ok = refused(400, Target, body([{<<"rid">>, Rid + 1}, {<<"sid">>, Sid}], [binary:copy(<<"<a>">>, Depth), binary:copy(<<"</a>">>, Depth)])),
    unharmed(Socket, Session, 1);
attack(too_many_attributes, Target) ->
    {Socket, #{sid := Sid, rid := Rid} = Session} = created(Target),
    Many = [{integer_to_binary(N, 36), <<>>} || N <- lists:seq(1296 * 36, 1296 * 36 + any([?ATTRIBUTES + 1, 1000, 30_000]))],
    Own = [{<<"rid">>, Rid + 1}, {<<"sid">>, Sid}],
    Named = [{<<$a, Name/binary>>, Value} || {Name, Value} <- Many],
    Data = any([body(Own ++ Named, []), body(Own, ["<a", [[" ", Name, "=''"] || {Name, _} <- Named], "/>"]), body(Own, ["<a", [[" xmlns:", Name, "='a'"] || {Name, _} <- Named], "/>"])]),
    ok = refused(400, Target, Data),
    unharmed(Socket, Session, 1);
%% ---- numbers in attributes, and times --------------------------------------------------------------------------
attack(no_numbers, Target) ->
    {Socket, #{sid := Sid, rid := Rid} = Session} = created(Target),
    Number = any([binary:copy(<<"9">>, any([30, 400, 50_000])), <<"18446744073709551616">>, <<"-1">>, <<"+1">>, <<"1e3">>, <<"0x10">>, <<"1.0">>, <<" 1">>, <<"1 ">>, <<>>, <<"NaN">>, <<"１"/utf8>>]),
    Name = any([<<"wait">>, <<"hold">>, <<"pause">>, <<"ack">>, <<"rid">>]),
    Usual = [{<<"rid">>, Rid + 1}, {<<"sid">>, Sid}],
    ok = refused(400, Target, body(lists:keystore(Name, 1, Usual, {Name, Number}), [])),
    ok = refused(400, Target, body([{<<"rid">>, ?MAX_RID + rand:uniform(1000)}, {<<"sid">>, Sid}], [])),
    unharmed(Socket, Session, 1);
attack(largest_numbers, Target) ->
    %% The longest wait and the most that may be held, whatever is asked for; and numbers that end before the session does.
    Most = any([1 bsl 64 - 1, 1 bsl 63, 1 bsl 32, 1 bsl 16, 301]),
    Socket = connect(Target),
    {Session, Created} = megaphone_test_bosh:create(Socket, Target, [{<<"rid">>, ?MAX_RID - 1}, {<<"wait">>, Most}, {<<"hold">>, Most}, {<<"ack">>, 1}]),
    ?assertEqual([<<"300">>, <<"1">>, <<"2">>], attributes([<<"wait">>, <<"hold">>, <<"requests">>], Created)),
    ?assertMatch(?FAILURE, ask(Socket, Session, 1, [{<<"ack">>, 1 bsl 64 - 1}], ?WRONG)),
    ok = refused(400, Target, body([{<<"rid">>, ?MAX_RID + 1}, {<<"sid">>, maps:get(sid, Session)}], ?WRONG)),
    gen_tcp:close(Socket);
attack(pause_too_long, Target) ->
    {Socket, Session} = created(Target),
    ?assertEqual(?POLICY, attributes(?END, ask(Socket, Session, 1, [{<<"pause">>, any([11, 1 bsl 32, 1 bsl 64 - 1])}], []))),
    gone(Socket, Session, 2);
attack(polls_too_hasty, Target) ->
    {Socket, Session} = created(Target, [any([{<<"wait">>, 0}, {<<"hold">>, 0}])]),
    Answers = [attributes(?END, ask(Socket, Session, N)) || N <- [1, 2]],
    ?assertEqual([[undefined, undefined], ?POLICY], Answers),
    gone(Socket, Session, 3);
%% ---- before logging in -----------------------------------------------------------------------------------------
attack(large_before_login, Target) ->
    {Socket, Session} = created(Target),
    ok = http(Socket, "POST", [], large(Session, 1)),
    ?assertEqual(?POLICY, attributes(?END, content(answer(Socket)))),
    gone(Socket, Session, 2);
attack(large_and_early, Target) ->
    %% Nothing of this length is kept for a stranger, neither until its turn comes nor in the place of the next one.
    {Socket, Session} = created(Target),
    Held = poll(Session, 1, []),
    Early = connect(Target),
    ok = http(Early, "POST", [], large(Session, any([2, 3]))),
    ?assertEqual(?POLICY, attributes(?END, content(answer(Early)))),
    ?assertEqual([<<"terminate">>, <<"other-request">>], attributes(?END, content(answer(Held)))),
    lists:foreach(fun gen_tcp:close/1, [Held, Early]),
    gone(Socket, Session, 1);
attack(large_creation, Target) ->
    Usual = [{<<"rid">>, 1}, {<<"to">>, <<"localhost">>}, {<<"wait">>, 60}, {<<"hold">>, 1}],
    #{status := 200} = Answer = once(Target, body(Usual, ["<auth>", binary:copy(<<"x">>, any([?MAX_STANZA_BEFORE_LOGIN, 100_000])), "</auth>"])),
    ?assertEqual(?POLICY, attributes(?END, content(Answer))),
    ok;
attack(many_elements_before_login, Target) ->
    {Socket, Session} = created(Target),
    Many = binary:copy(<<"<a/>">>, any([?ELEMENTS_BEFORE_LOGIN, 1000])),
    ok = stream_error(<<"policy-violation">>, ask(Socket, Session, 1, [], ["<auth>", Many, "</auth>"])),
    gone(Socket, Session, 2);
attack(deep_before_login, Target) ->
    {Socket, Session} = created(Target),
    Depth = any([?ELEMENTS_BEFORE_LOGIN + 1, ?DEPTH]),
    ok = stream_error(<<"policy-violation">>, ask(Socket, Session, 1, [], [binary:copy(<<"<a>">>, Depth), binary:copy(<<"</a>">>, Depth)])),
    gone(Socket, Session, 2);
attack(stanza_before_login, Target) ->
    {Socket, Session} = created(Target),
    ok = stream_error(<<"not-authorized">>, ask(Socket, Session, 1, [], message(<<"localhost">>, <<"let me in">>))),
    gone(Socket, Session, 2);
attack(nowhere, Target) ->
    {Own, Condition} = any([
        {[{<<"to">>, undefined}], <<"improper-addressing">>}, {[{<<"to">>, <<>>}], <<"improper-addressing">>},
        {[{<<"to">>, <<"elsewhere.example">>}], <<"host-unknown">>}, {[{<<"to">>, <<"@/">>}], <<"host-unknown">>},
        {[{<<"to">>, binary:copy(<<"a">>, 1023)}], <<"host-unknown">>}
    ]),
    Socket = connect(Target),
    {_, Content} = megaphone_test_bosh:create(Socket, Target, Own),
    ?assertEqual([<<"terminate">>, Condition], attributes(?END, Content)),
    gen_tcp:close(Socket);
%% ---- connections -----------------------------------------------------------------------------------------------
attack(half_request, Target) ->
    %% It stops somewhere; the connection stays as long as its process.
    {_, Session} = created(Target),
    Whole = iolist_to_binary(megaphone_test_bosh:request(Session, maps:get(rid, Session) + 1, ?WRONG)),
    ok = gen_tcp:send(connect(Target), binary:part(Whole, 0, rand:uniform(byte_size(Whole) - 1)));
attack(cut, Target) ->
    {Socket, #{rid := Rid} = Session} = created(Target),
    Requests = [iolist_to_binary(megaphone_test_bosh:request(Session, Rid + N, any([[], ?WRONG]))) || N <- [1, 2]],
    lists:foreach(
        fun({Each, Request}) ->
            ok = gen_tcp:send(Each, binary:part(Request, 0, any([byte_size(Request), rand:uniform(byte_size(Request))]))),
            any([true, false]) andalso inet:setopts(Each, [{linger, {true, 0}}]),
            ok = gen_tcp:close(Each)
        end,
        lists:zip([Socket, connect(Target)], Requests)
    );
%% ---- after logging in ------------------------------------------------------------------------------------------
attack(many_stanzas, Target) ->
    %% As many pings as fit into a body; each is answered.
    {_, User} = logged_in(Target),
    Ping = iolist_to_binary(megaphone_test_bosh_user:ping("p")),
    Count = any([1000, (?MAX_STANZA - 1000) div byte_size(Ping)]),
    finish(pongs(megaphone_test_bosh_user:send(User, binary:copy(Ping, Count)), Count)).

-spec pongs(User, non_neg_integer()) -> User when User :: megaphone_test_bosh_user:user().
pongs(User, 0) -> User;
pongs(User, Count) -> pongs(element(2, megaphone_test_bosh_user:await(User, <<"iq">>)), Count - 1).

%% A user with no request held, and one of his connections.
-spec logged_in(target()) -> {gen_tcp:socket(), megaphone_test_bosh_user:user()}.
logged_in(Target) ->
    User = idle(login(Target)),
    {hd(sockets(User)), User}.
