%% BOSH sessions that are kept natively, with real clients of two makes: Strophe.js (also as a web page that is loaded again
%% and again in one session) and StanzaJS, through a real connection manager, which is killed at last, to a real ejabberd.
-module(bosh_clients_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).
-import(megaphone_test_program, [await_line/2, await_line/3, output/1, tell/2, text/2]).
-import(megaphone_test_stay, [assert_talk/3, leave/1]).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [
        strophe,
        pages_in_one_session,
        page_is_loaded_again_in_traffic,
        page_cuts_its_connections_in_traffic,
        request_with_the_end_behind_it,
        stanza_with_scram,
        stanza_with_plain,
        connection_manager_is_killed
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, [listener(megaphone, 1, [handlers(), "bosh: native"])]),
    ok = megaphone_test_node:change_config(Dir, "mod_bosh: {}", "mod_bosh: {}\n  mod_muc: {}"),
    Node = megaphone_test_node:start_in(Dir),
    {Ecm, Port} = megaphone_test_program:ecm(server(Node)),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

end_per_suite(Config) ->
    %% The last case has put another one in its place, which ends with that case.
    _ = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    megaphone_test_node:stop_without_errors(node_of(Config)).

init_per_testcase(_Case, Config) -> Config.

%% Clients have gone in good order, and so have their sessions: only the link is left, and not that of one who was killed.
end_per_testcase(connection_manager_is_killed, Config) ->
    megaphone_test:finish_case(Config, fun() -> assert_left(Config, 0) end);
end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> assert_left(Config, 1) end).

assert_left(Config, Links) ->
    ok = megaphone_test_node:assert_only_links(node_of(Config), Links),
    ok = wait_until(fun() -> sessions(Config) =:= 0 end).

sessions(Config) -> maps:get(sessions, call(node_of(Config), megaphone_nif, bosh_info, [])).

node_of(Config) -> proplists:get_value(node, Config).

server(Node) ->
    megaphone_test_program:server(address(Node, megaphone)).

url(Config, Scheme) ->
    Path = case Scheme of "http" -> "bosh"; "ws" -> "ws" end,
    lists:flatten(io_lib:format("~s://127.0.0.1:~b/~s", [Scheme, proplists:get_value(port, Config), Path])).

%% A user that no other case has, logged in.
user(Config) -> user(Config, "stay.mjs", []).

user(Config, Program, Options) -> user(Config, Program, url(Config, "http"), Options).

user(Config, Program, Url, Options) ->
    Name = "b" ++ integer_to_list(erlang:unique_integer([positive])),
    ok = megaphone_test_stay:register(node_of(Config), Name),
    megaphone_test_stay:start_program(Program, Url, Name, Options, ?DEADLINE).

%% All that a client has asked for is done: it hears so.
settle({Program, _}) ->
    ok = tell(Program, "ping"),
    _ = await_line(Program, "\"pong\""),
    ok.

%% ---- chat and rooms --------------------------------------------------------------------------------------------

strophe(Config) ->
    %% Two users of Strophe.js log in, chat both ways and in a room, and leave, by sessions that are native ones.
    [One, Other] = Users = [user(Config), user(Config)],
    ?assertEqual(2, sessions(Config)),
    chat(One, Other),
    room(One, Other),
    leave(Users).

chat(One, Other) ->
    assert_talk(One, Other, <<"hello">>),
    assert_talk(Other, One, <<"hello to you">>),
    assert_talk(One, Other, unicode:characters_to_binary([[$a, 16#20AC, 16#1F600, $b] || _ <- lists:seq(1, 100)])).

%% Both enter a room, each says something that both hear, and one sees the other go.
room({One, _}, {Other, _}) ->
    Room = ["r", integer_to_list(erlang:unique_integer([positive])), "@conference.localhost"],
    ok = tell(One, ["join ", Room, " one"]),
    _ = await_line(One, [Room, "/one\",\"type\":\"available\""]),
    ok = tell(Other, ["join ", Room, " other"]),
    _ = await_line(Other, [Room, "/other\",\"type\":\"available\""]),
    _ = await_line(One, [Room, "/other\",\"type\":\"available\""]),
    [
        begin
            ok = tell(Speaker, ["say ", Room, " words of ", Nick]),
            [_ = await_line(Each, [Room, "/", Nick, "\",\"body\":\"words of ", Nick]) || Each <- [One, Other]]
        end
     || {Speaker, Nick} <- [{One, "one"}, {Other, "other"}]
    ],
    ok = tell(Other, ["part ", Room, " other"]),
    _ = await_line(One, [Room, "/other\",\"type\":\"unavailable\""]),
    ok = tell(One, ["part ", Room, " one"]),
    _ = await_line(One, [Room, "/one\",\"type\":\"unavailable\""]).

%% ---- pages -----------------------------------------------------------------------------------------------------

pages_in_one_session(Config) ->
    %% What is sent to a page that has gone while its request was held is for the next page, which goes on in the same session:
    %% all of it, once and in order.
    {Page, Jid} = User = user(Config, "stay.mjs", ["--keepalive"]),
    {Sender, _} = Other = user(Config),
    lists:foreach(
        fun(Round) ->
            ok = tell(Page, "unload"),
            ?assertEqual([], bodies(await_line(Page, "\"unloaded\""))),
            Numbers = lists:seq(10 * Round + 1, 10 * Round + 10),
            [ok = tell(Sender, ["send ", Jid, " n", integer_to_list(N)]) || N <- Numbers],
            settle(Other),
            ok = tell(Page, "restore"),
            ?assertEqual(Jid, text("jid", await_line(Page, "\"restored\""))),
            [?assertEqual(number(N), text("body", await_line(Page, "\"message\""))) || N <- Numbers],
            assert_talk(User, Other, <<"answer ", (integer_to_binary(Round))/binary>>)
        end,
        lists:seq(0, 4)
    ),
    ?assertEqual(2, sessions(Config)),
    leave([User, Other]).

number(N) -> <<"n", (integer_to_binary(N))/binary>>.

page_is_loaded_again_in_traffic(Config) ->
    %% A page is loaded again and again while messages come: each reaches a page, the last ones before perhaps when it has just
    %% gone, once and in order.
    Pages = reload(Config, "reload"),
    ?assertEqual([], gaps(Pages)).

page_cuts_its_connections_in_traffic(Config) ->
    %% When each page closes its connections right behind a request, the next one still goes on in the session, and nothing
    %% comes twice or in another order; only an answer that was on its way to the page that went may be lost.
    Pages = reload(Config, "reload-cut"),
    ?assertEqual([], [Gap || {_, within_a_page} = Gap <- gaps(Pages)]).

-define(RELOADS, 12).

%% The numbers of the messages that came, for each page.
reload(Config, Command) ->
    {Page, Jid} = User = user(Config, "stay.mjs", ["--keepalive"]),
    {Sender, _} = Other = user(Config, "stay.mjs", url(Config, "ws"), []),
    Self = self(),
    Reloading = spawn_link(fun() ->
        [reloaded(Page, Command, Round) || Round <- lists:seq(1, ?RELOADS)],
        Self ! {self(), reloaded}
    end),
    Last = send_until(Reloading, Other, Jid, 0) + 1,
    settle(User),
    ok = tell(Sender, ["send ", Jid, " ", number(Last)]),
    _ = await_line(Page, ["\"body\":\"", number(Last), "\""]),
    ?assertEqual(1, sessions(Config)),
    leave([User, Other]),
    Pages = received(Page),
    Came = lists:append(Pages),
    ?assertEqual(lists:usort(Came), Came),
    ?assertEqual(Last, lists:last(Came)),
    ct:log("~b messages on ~b pages", [length(Came), length(Pages)]),
    Pages.

%% Some pages see messages, others have no time for that.
reloaded(Page, Command, Round) ->
    ok = tell(Page, Command),
    _ = await_line(Page, "\"unloaded\""),
    _ = [await_line(Page, "\"message\"") || Round rem 3 =/= 0],
    ok.

%% Numbers after which others are missing; and where.
gaps(Pages) ->
    lists:append([gaps_of(Page) || Page <- Pages]) ++ between([Page || Page <- Pages, Page =/= []]).

gaps_of(Page) -> [{N, within_a_page} || {N, Next} <- lists:zip(lists:droplast([0 | Page]), Page), N > 0, Next =/= N + 1].

between([Page | [[First | _] | _] = Later]) ->
    [{lists:last(Page), between_pages} || First =/= lists:last(Page) + 1] ++ between(Later);
between(_) ->
    [].

%% Numbered messages, ten for each round trip, until there is word of the process. Gives the last number.
send_until(Pid, {Sender, _} = User, Jid, Sent) ->
    Last = Sent + 10,
    [ok = tell(Sender, ["send ", Jid, " ", number(N)]) || N <- lists:seq(Sent + 1, Last)],
    settle(User),
    receive
        {Pid, reloaded} -> Last
    after 0 -> send_until(Pid, User, Jid, Last)
    end.

%% Those that came when a page had gone are the last ones of that page.
received(Program) ->
    Lines = binary:split(output(Program), <<"\n">>, [global]),
    Came = [{page(Line), 1, [text("body", Line)]} || Line <- Lines, binary:match(Line, <<"\"event\":\"message\"">>) =/= nomatch],
    Late = [{page(Line), 2, bodies(Line)} || Line <- Lines, binary:match(Line, <<"\"event\":\"unloaded\"">>) =/= nomatch],
    [
        [binary_to_integer(Number) || Kind <- [1, 2], {Of, K, Bodies} <- Came ++ Late, Of =:= Page, K =:= Kind, <<"n", Number/binary>> <- Bodies]
     || Page <- lists:seq(1, ?RELOADS + 1)
    ].

page(Line) ->
    {match, [Number]} = re:run(Line, "\"page\":([0-9]+)", [{capture, all_but_first, binary}]),
    binary_to_integer(Number).

bodies(Line) ->
    {match, [List]} = re:run(Line, "\"bodies\":\\[([^]]*)", [{capture, all_but_first, binary}]),
    [binary:part(Body, 1, byte_size(Body) - 2) || Body <- binary:split(List, <<",">>, [global]), Body =/= <<>>].

request_with_the_end_behind_it(Config) ->
    %% A request counts whose client closes the connection right behind it, as a page that says a last word and goes.
    {Program, Jid} = User = user(Config),
    lists:foreach(
        fun(N) ->
            {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
            {Sid, _, Rid} = megaphone_test_http:bosh_login(Socket),
            Message = ["<message xmlns='jabber:client' type='chat' to='", Jid, "'><body>", number(N), "</body></message>"],
            ok = megaphone_test_http:bosh_send(Socket, Sid, Rid, "type='terminate'", Message),
            ok = gen_tcp:close(Socket),
            ?assertEqual(number(N), text("body", await_line(Program, "\"message\"")))
        end,
        lists:seq(1, 10)
    ),
    ok = wait_until(fun() -> sessions(Config) =:= 1 end),
    leave([User]).

%% ---- another client --------------------------------------------------------------------------------------------

stanza_with_scram(Config) ->
    %% StanzaJS logs in by BOSH with SCRAM, chats with a user of Strophe.js both ways and in a room, leaves, and comes back.
    stanza(Config, "SCRAM-SHA-1").

stanza_with_plain(Config) ->
    %% The same with PLAIN.
    stanza(Config, "PLAIN").

stanza(Config, Mechanism) ->
    {Program, _} = One = user(Config, "stanza.mjs", ["--mechanism", Mechanism]),
    Other = user(Config),
    chat(One, Other),
    room(One, Other),
    ok = tell(Program, "disconnect"),
    _ = await_line(Program, "\"disconnected\""),
    ok = wait_until(fun() -> sessions(Config) =:= 1 end),
    ok = tell(Program, "login"),
    Again = megaphone_test_stay:connected(Program, ?DEADLINE),
    chat(Other, Again),
    room(Other, Again),
    leave([Again, Other]).

%% ---- the connection manager ------------------------------------------------------------------------------------

connection_manager_is_killed(Config) ->
    %% When the connection manager is killed and another one takes its place, users of Strophe.js go on in their sessions, an
    %% idle one and two that were talking: nothing is lost, nothing comes twice.
    [{Idle, IdleJid}, {One, OneJid}, {Other, OtherJid}] = Users = [user(Config) || _ <- lists:seq(1, 3)],
    Ecm = proplists:get_value(ecm, Config),
    Say = fun(N) ->
        ok = tell(One, ["send ", OtherJid, " ", number(N)]),
        ok = tell(Other, ["send ", OneJid, " ", number(N)])
    end,
    %% What is said is under way when it dies, and more is said until a new one is there.
    lists:foreach(Say, lists:seq(1, 100)),
    _ = await_line(One, ["\"body\":\"", number(10), "\""]),
    ok = megaphone_test_program:signal(Ecm, "KILL"),
    lists:foreach(Say, lists:seq(101, 200)),
    {137, _} = megaphone_test_program:await_exit(Ecm),
    Listen = "127.0.0.1:" ++ integer_to_list(proplists:get_value(port, Config)),
    New = megaphone_test_program:ecm_at(Listen, server(node_of(Config)), #{}),
    lists:foreach(Say, lists:seq(201, 300)),
    [_ = await_line(Each, ["\"body\":\"", number(300), "\""], 30_000) || Each <- [One, Other]],
    [?assertEqual(lists:seq(1, 300), lists:append(received(Each))) || Each <- [One, Other]],
    ?assertEqual(3, sessions(Config)),
    ok = tell(Idle, ["send ", OneJid, " from the idle one"]),
    ?assertEqual(<<"from the idle one">>, text("body", await_line(One, "\"message\"", 30_000))),
    ok = tell(One, ["send ", IdleJid, " to the idle one"]),
    ?assertEqual(<<"to the idle one">>, text("body", await_line(Idle, "\"message\""))),
    [?assertEqual(nomatch, binary:match(output(Each), <<"\"disconnected\"">>)) || {Each, _} <- Users],
    %% Strophe says no more than its window allows before its poll, which it sends again after eight seconds, is answered.
    ok = tell(Idle, "ping"),
    _ = await_line(Idle, "\"pong\"", 30_000),
    leave(Users),
    {0, _} = megaphone_test_program:stop(New).
