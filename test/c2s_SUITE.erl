%% Connections of kind XMPP end in client sessions of a real ejabberd, one process each. The other end of the link is this
%% test's, so that it can send what no connection manager would.
-module(c2s_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).
-import(megaphone_test_xmpp, [connect/1, login/1, login/2, open/1, text/2, texts/2, bytes/2, next/1, await/2, ended/1, jid/1]).

-define(PING, <<"<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>">>).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        a_user_is_one_process,
        the_session_has_the_clients_address,
        messages_go_both_ways,
        many_messages_at_once_stay_in_order,
        a_large_stanza_arrives,
        a_stanza_of_many_elements_arrives,
        a_client_that_leaves_ends_its_session,
        a_client_that_closes_its_stream_is_answered,
        a_session_that_dies_ends_its_connection,
        the_death_of_an_owner_ends_a_part_of_the_sessions,
        what_is_no_xml_ends_the_stream,
        what_is_restricted_ends_the_stream,
        what_is_too_much_ends_the_stream,
        faults_end_the_stream,
        what_comes_before_the_stream_is_not_logged,
        messages_before_login_are_short,
        limits_are_those_of_the_configuration,
        a_shaper_slows_the_client_down,
        a_reader_that_never_reads_harms_nobody,
        idle_sessions_sleep_and_wake,
        links_that_leave_websockets_to_ejabberd
    ].

init_per_suite(Config) ->
    Listeners = [
        listener(megaphone, 1, [handlers(), "idle_memory: hibernate", "idle_after: 50 milliseconds"]),
        listener(megaphone, 2, [handlers(), "websocket: ejabberd_http_ws"]),
        listener(megaphone, 3, [handlers(), "idle_memory: keep", "send_timeout: 1"])
    ],
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, Listeners),
    Node = megaphone_test_node:start_in(Dir),
    [{node, Node}, {dir, Dir} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop(node_of(Config)).

init_per_testcase(_Case, Config) -> Config.

%% All links of a case end with its process; nothing of them is left.
end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        _ = [gen_tcp:close(Link) || {megaphone_test_xmpp, Link} <- get_keys()],
        ok = megaphone_test_node:assert_quiet(node_of(Config))
    end).

node_of(Config) -> proplists:get_value(node, Config).

first(Config) -> address(node_of(Config), {megaphone, 1}).

plain(Config) -> address(node_of(Config), {megaphone, 3}).

%% The process of a user's session.
session(Client, Config) ->
    [User, Rest] = binary:split(jid(Client), <<"@">>),
    [Host, Resource] = binary:split(Rest, <<"/">>),
    call(node_of(Config), ejabberd_sm, get_session_pid, [User, Host, Resource]).

ping(Client) ->
    ok = text(Client, ?PING),
    {xmlel, <<"iq">>, Attrs, _} = await(Client, <<"iq">>),
    ?assertEqual({<<"type">>, <<"result">>}, lists:keyfind(<<"type">>, 1, Attrs)).

%% The condition of the stream error that comes at last, and that nothing follows but the end.
error_of(Client) ->
    Els = ended(Client),
    {xmlel, <<"close">>, _, []} = lists:last(Els),
    [{xmlel, <<"stream:error">>, Attrs, [{xmlel, Condition, [{<<"xmlns">>, <<"urn:ietf:params:xml:ns:xmpp-streams">>}], []} | _]}] =
        [El || {xmlel, <<"stream:error">>, _, _} = El <- Els],
    ?assertEqual({<<"xmlns:stream">>, <<"http://etherx.jabber.org/streams">>}, lists:keyfind(<<"xmlns:stream">>, 1, Attrs)),
    Condition.

%% ---- users -----------------------------------------------------------------------------------------------------

a_user_is_one_process(Config) ->
    %% Ten users are ten processes and no port, and each has a session by WebSocket.
    Node = node_of(Config),
    _ = login(plain(Config)),
    Links = [megaphone_test_xmpp:new_link(plain(Config)) || _ <- lists:seq(1, 10)],
    Before = call(Node, erlang, processes, []),
    Ports = call(Node, erlang, ports, []),
    Clients = [begin
        Client = megaphone_test_xmpp:attach(Link, {{192, 0, 2, 10}, 51000}),
        _ = open(Client),
        Client
    end || Link <- Links],
    New = call(Node, erlang, processes, []) -- Before,
    %% One that made a call here is gone by now.
    Kinds = [
        proplists:get_value('$initial_call', Dictionary)
     || Pid <- New, {dictionary, Dictionary} <- [call(Node, erlang, process_info, [Pid, dictionary])]
    ],
    ?assertEqual(lists:duplicate(length(Clients), {xmpp_stream_in, init, 1}), Kinds),
    ?assertEqual([], call(Node, erlang, ports, []) -- Ports).

the_session_has_the_clients_address(Config) ->
    %% IPv4 and IPv6, and the transport, as ejabberd shows them.
    lists:foreach(
        fun(Peer) ->
            Client = login(plain(Config), Peer),
            [User, Rest] = binary:split(jid(Client), <<"@">>),
            [Host, Resource] = binary:split(Rest, <<"/">>),
            Info = call(node_of(Config), ejabberd_sm, get_user_info, [User, Host, Resource]),
            ?assertEqual({Peer, websocket}, {proplists:get_value(ip, Info), proplists:get_value(conn, Info)})
        end,
        [{{192, 0, 2, 77}, 5678}, {{16#2001, 16#db8, 0, 0, 0, 0, 0, 1}, 6789}]
    ).

messages_go_both_ways(Config) ->
    %% Text with all that has to be escaped arrives as it was.
    [One, Other] = [login(plain(Config)) || _ <- [1, 2]],
    Body = <<"<&>\"' and ]]&gt; ", 16#e2, 16#82, 16#ac, "\n">>,
    Escaped = <<"&lt;&amp;&gt;\"' and ]]&amp;gt; ", 16#e2, 16#82, 16#ac, "\n">>,
    Message = fun(To) -> ["<message xmlns='jabber:client' type='chat' to='", To, "'><body>", Escaped, "</body></message>"] end,
    ok = text(One, Message(jid(Other))),
    {xmlel, <<"message">>, Attrs, Children} = await(Other, <<"message">>),
    ?assertEqual({<<"from">>, jid(One)}, lists:keyfind(<<"from">>, 1, Attrs)),
    ?assertMatch([{xmlel, <<"body">>, _, [{xmlcdata, Body}]}], Children),
    ok = text(Other, Message(jid(One))),
    ?assertMatch({xmlel, _, _, [{xmlel, <<"body">>, _, [{xmlcdata, Body}]}]}, await(One, <<"message">>)).

many_messages_at_once_stay_in_order(Config) ->
    %% A thousand messages in one stream of bytes, cut at odd places: more than a batch, more than the window.
    [One, Other] = [login(plain(Config)) || _ <- [1, 2]],
    Send = fun(N) ->
        ["<message xmlns='jabber:client' type='chat' to='", jid(Other), "'><body>", integer_to_list(N), "</body></message>"]
    end,
    ok = texts(One, [Send(N) || N <- lists:seq(1, 500)]),
    lists:foreach(
        fun(N) ->
            Number = integer_to_binary(N),
            ?assertMatch({xmlel, _, _, [{xmlel, <<"body">>, _, [{xmlcdata, Number}]}]}, await(Other, <<"message">>))
        end,
        lists:seq(1, 500)
    ).

a_large_stanza_arrives(Config) ->
    %% 250 kB, more than the window and more than is taken apart on a normal scheduler, with others around it.
    [One, Other] = [login(plain(Config)) || _ <- [1, 2]],
    Large = binary:copy(<<"0123456789">>, 12500),
    Message = fun(Body) -> ["<message xmlns='jabber:client' type='chat' to='", jid(Other), "'><body>", Body, "</body></message>"] end,
    ok = texts(One, [Message(<<"before">>), Message(Large), Message(<<"after">>)]),
    Bodies = [begin {xmlel, _, _, [{xmlel, <<"body">>, _, [{xmlcdata, Body}]}]} = await(Other, <<"message">>), Body end || _ <- [1, 2, 3]],
    ?assertEqual([<<"before">>, Large, <<"after">>], Bodies).

a_stanza_of_many_elements_arrives(Config) ->
    Client = login(plain(Config)),
    Elements = binary:copy(<<"<x/>">>, 25000),
    ok = text(Client, ["<iq xmlns='jabber:client' type='get' id='many'><q xmlns='urn:example'>", Elements, "</q></iq>"]),
    {xmlel, <<"iq">>, Attrs, _} = await(Client, <<"iq">>),
    ?assertEqual({<<"id">>, <<"many">>}, lists:keyfind(<<"id">>, 1, Attrs)).

%% ---- ends ------------------------------------------------------------------------------------------------------

a_client_that_leaves_ends_its_session(Config) ->
    %% Its last message is delivered although it leaves at once.
    [One, Other] = [login(plain(Config)) || _ <- [1, 2]],
    Pid = session(One, Config),
    ok = text(One, ["<message xmlns='jabber:client' to='", jid(Other), "'><body>last</body></message>"]),
    ok = megaphone_test_xmpp:close(One),
    ?assertMatch({xmlel, _, _, [{xmlel, <<"body">>, _, [{xmlcdata, <<"last">>}]}]}, await(Other, <<"message">>)),
    ok = wait_until(fun() -> not call(node_of(Config), erlang, is_process_alive, [Pid]) end).

a_client_that_closes_its_stream_is_answered(Config) ->
    Client = login(plain(Config)),
    ok = text(Client, <<"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>">>),
    Last = lists:last(ended(Client)),
    ?assertEqual({xmlel, <<"close">>, [{<<"xmlns">>, <<"urn:ietf:params:xml:ns:xmpp-framing">>}], []}, Last).

a_session_that_dies_ends_its_connection(Config) ->
    Client = login(plain(Config)),
    true = call(node_of(Config), erlang, exit, [session(Client, Config), kill]),
    ?assertEqual([], ended(Client)).

the_death_of_an_owner_ends_a_part_of_the_sessions(Config) ->
    %% Those of other owners go on, and new ones come.
    Node = node_of(Config),
    Clients = [login(plain(Config)) || _ <- lists:seq(1, 20)],
    Owners = [{owner_of(session(Client, Config), Config), Client} || Client <- Clients],
    [{Owner, _} | _] = Owners,
    true = call(Node, erlang, exit, [Owner, kill]),
    {Its, Others} = lists:partition(fun({Of, _}) -> Of =:= Owner end, Owners),
    ?assertNotEqual([], Others),
    _ = [_ = ended(Client) || {_, Client} <- Its],
    _ = [ping(Client) || {_, Client} <- Others],
    ping(login(plain(Config))).

owner_of(Session, Config) ->
    {monitors, Monitors} = call(node_of(Config), erlang, process_info, [Session, monitors]),
    [Owner] = [Pid || {process, Pid} <- Monitors],
    Owner.

%% ---- what clients should not send ------------------------------------------------------------------------------

online(Config) ->
    login(plain(Config)).

what_is_no_xml_ends_the_stream(Config) ->
    Wrong = [
        <<"<presence">>, <<"<presence></iq>">>, <<"<presence/><presence/>">>, <<"presence">>, <<"<a b='1' b='2'/>">>, <<"<x:y/>">>,
        <<"<a>&unknown;</a>">>, <<"<a>&#0;</a>">>, <<"<a>", 16#ff, "</a>">>, <<"<a>]]></a>">>, <<" ">>
    ],
    _ = [
        begin
            Client = online(Config),
            ok = texts(Client, [Text, ?PING]),
            Error = error_of(Client),
            ?assert(lists:member(Error, [<<"not-well-formed">>, <<"restricted-xml">>]), {Text, Error})
        end
     || Text <- Wrong
    ],
    ok.

what_is_restricted_ends_the_stream(Config) ->
    Laughs = [
        "<!DOCTYPE l [<!ENTITY l0 'lol'>",
        [io_lib:format("<!ENTITY l~b '&l~b;&l~b;&l~b;&l~b;&l~b;&l~b;&l~b;&l~b;&l~b;&l~b;'>", [N | lists:duplicate(10, N - 1)]) || N <- lists:seq(1, 9)],
        "]><message xmlns='jabber:client'><body>&l9;</body></message>"
    ],
    _ = [
        begin
            Client = online(Config),
            ok = text(Client, Text),
            ?assertEqual(<<"restricted-xml">>, error_of(Client), Text)
        end
     || Text <- [Laughs, "<a><!-- no --></a>", "<a><?no no?></a>"]
    ],
    ok.

what_is_too_much_ends_the_stream(Config) ->
    %% Depth, and the length that the configuration allows.
    Deep = [binary:copy(<<"<a>">>, 10000), binary:copy(<<"</a>">>, 10000)],
    _ = [
        begin
            Client = online(Config),
            _ = text(Client, Text),
            ?assertEqual(<<"policy-violation">>, error_of(Client))
        end
     || Text <- [Deep, binary:copy(<<" ">>, 600000)]
    ],
    ok.

faults_end_the_stream(Config) ->
    %% What the connection manager has to say of a client, before and after its first message.
    Faults = [
        {1, <<"policy-violation">>}, {2, <<"bad-format">>}, {3, <<"unsupported-encoding">>}, {4, <<"connection-timeout">>},
        {5, <<"bad-format">>}, {99, <<"bad-format">>}
    ],
    _ = [
        begin
            ok = bytes(Client, <<0:32, Code>>),
            ?assertEqual(Condition, error_of(Client))
        end
     || {Code, Condition} <- Faults, Client <- [connect(plain(Config)), online(Config)]
    ],
    ok.

what_comes_before_the_stream_is_not_logged(Config) ->
    %% ejabberd would write it into its log, secrets and all.
    Client = connect(plain(Config)),
    ok = text(Client, <<"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>c2VjcmV0</auth>">>),
    ?assertEqual(<<"invalid-xml">>, error_of(Client)),
    ?assertEqual(nomatch, binary:match(megaphone_test_node:log(node_of(Config)), <<"c2VjcmV0">>)).

messages_before_login_are_short(Config) ->
    %% The limit and one more, which ends that stream and no other.
    #{max_message_before_login := Most} = call(node_of(Config), megaphone_nif, limits, []),
    Padded = fun(Length) ->
        Text = <<"<iq xmlns='jabber:client' type='get' id='x'><y xmlns='z'/></iq>">>,
        [Text, binary:copy(<<" ">>, Length - byte_size(Text))]
    end,
    Other = online(Config),
    Fits = connect(plain(Config)),
    _ = open(Fits),
    ok = text(Fits, Padded(Most)),
    ?assertEqual(<<"not-authorized">>, error_of(Fits)),
    Too = connect(plain(Config)),
    _ = open(Too),
    ok = text(Too, Padded(Most + 1)),
    ?assertEqual(<<"policy-violation">>, error_of(Too)),
    ping(Other).

limits_are_those_of_the_configuration(Config) ->
    %% The first listener of ejabberd_c2s says them, also after it was changed.
    File = filename:join(proplists:get_value(dir, Config), "ejabberd.yml"),
    {ok, Yaml} = file:read_file(File),
    Reload = fun(Text) ->
        ok = file:write_file(File, Text),
        ok = call(node_of(Config), ejabberd_config, reload, [])
    end,
    ok = Reload(string:replace(Yaml, "max_stanza_size: 524288", "max_stanza_size: 20000")),
    try
        Client = online(Config),
        ok = text(Client, [?PING, binary:copy(<<" ">>, 20000 - byte_size(?PING))]),
        _ = await(Client, <<"iq">>),
        ok = text(Client, [?PING, binary:copy(<<" ">>, 20001 - byte_size(?PING))]),
        ?assertEqual(<<"policy-violation">>, error_of(Client))
    after
        Reload(Yaml)
    end.

a_shaper_slows_the_client_down(Config) ->
    %% A session with a shaper of 2,000 bytes a second takes 6,000 bytes in two seconds at the earliest: what the first batch
    %% cost is waited for before the second.
    Client = online(Config),
    Node = node_of(Config),
    Pid = session(Client, Config),
    Shaper = call(Node, p1_shaper, new, [2000]),
    _ = call(Node, sys, replace_state, [Pid, fun(State) -> xmpp_stream_in:change_shaper(State, Shaper) end]),
    Began = erlang:monotonic_time(millisecond),
    Padded = [?PING, binary:copy(<<" ">>, 3000 - byte_size(?PING))],
    _ = [begin ok = text(Client, Padded), _ = await(Client, <<"iq">>) end || _ <- [1, 2, 3]],
    Took = erlang:monotonic_time(millisecond) - Began,
    %% The clocks of the two ends are not one.
    ?assert(Took >= 1900, Took),
    _ = call(Node, sys, replace_state, [Pid, fun(State) -> xmpp_stream_in:change_shaper(State, none) end]),
    ping(Client).

a_reader_that_never_reads_harms_nobody(Config) ->
    %% Its own session ends when the send timeout has passed; others go on.
    Link = megaphone_test_xmpp:new_link(plain(Config), 32768),
    Slow = megaphone_test_xmpp:login_on(megaphone_test_xmpp:attach(Link, {{192, 0, 2, 10}, 51000})),
    Other = online(Config),
    Pid = session(Slow, Config),
    Message = ["<message xmlns='jabber:client' type='chat' to='", jid(Slow), "'><body>", binary:copy(<<"x">>, 10000), "</body></message>"],
    _ = [ok = text(Other, Message) || _ <- lists:seq(1, 12)],
    ping(Other),
    ok = wait_until(fun() -> not call(node_of(Config), erlang, is_process_alive, [Pid]) end),
    ping(Other).

idle_sessions_sleep_and_wake(Config) ->
    %% Asleep soon after the last stanza, awake for the next one, and asleep again.
    Client = login(first(Config)),
    Pid = session(Client, Config),
    Asleep = fun() -> megaphone_test_node:is_asleep(node_of(Config), Pid) end,
    lists:foreach(
        fun(_) ->
            ok = wait_until(Asleep),
            {memory, Memory} = call(node_of(Config), erlang, process_info, [Pid, memory]),
            ?assert(Memory < 6000, Memory),
            ping(Client)
        end,
        [1, 2, 3]
    ).

links_that_leave_websockets_to_ejabberd(Config) ->
    %% The option `websocket': such a link does not announce connections of kind XMPP, and refuses them.
    Link = megaphone_test_link:connect_raw(address(node_of(Config), {megaphone, 2})),
    ok = megaphone_test_link:send(Link, megaphone_test_link:hello()),
    {hello, 2, 1, _, Features, _} = megaphone_test_link:next(Link),
    ?assertEqual(0, Features band 4),
    ok = megaphone_test_link:send(Link, {open, 7, 2, 0, {{192, 0, 2, 10}, 51000}, {{198, 51, 100, 1}, 443}}),
    ?assertMatch({error, 7, 0, _}, megaphone_test_link:next(Link)),
    ?assertMatch({close, 7, _}, megaphone_test_link:next(Link)),
    ok = megaphone_test_link:send(Link, {close, 7, 0}),
    {200, _, {ready, 7, 0}} = megaphone_test_link:ask(Link, 7, "/test/echo"),
    ok = megaphone_test_link:disconnect(Link).
