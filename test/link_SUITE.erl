%% Links from ECMs to the listener of a real ejabberd, spoken to frame by frame: hello, what breaks the protocol, and
%% how links end. What happens in the connections of a link is in connection_SUITE.
-module(link_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_link, [
    encode/1, frame/3, hello/0, hello/1, open/1, get_request/1, ask/3, answer/2,
    connect/1, connect_raw/1, send/2, send_bytes/2, next/1, await_close/1, disconnect/1
]).
-import(megaphone_test_node, [address/2, call/4]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        both_say_hello_at_once,
        what_is_no_hello_is_refused,
        frames_that_break_the_protocol,
        largest_of_everything_is_taken,
        input_in_single_bytes,
        pings_are_answered,
        who_reads_slowly_is_given_no_more_than_asked_for,
        a_silent_peer_is_given_up,
        peer_that_does_not_read_is_cut_off,
        frames_that_mean_nothing_are_ignored,
        killed_receiver_leaves_nothing,
        killed_sender_leaves_nothing,
        lost_link_leaves_nothing,
        both_kinds_of_supervisor,
        most_links,
        application_ends_with_its_links
    ].

init_per_suite(Config) ->
    Handlers = megaphone_test_node:handlers(),
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [
        megaphone_test_node:listener(megaphone, 1, [Handlers]),
        megaphone_test_node:listener(megaphone, 2, [Handlers, "supervisor: true"])
    ]),
    [{node, Node}, {address, address(Node, megaphone)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop(proplists:get_value(node, Config)).

init_per_testcase(_Case, Config) ->
    Onlooker = connect(proplists:get_value(address, Config)),
    %% It is open, and has started its clocks, before the case changes anything.
    ok = send(Onlooker, {ping, <<"onlooker">>}),
    {pong, <<"onlooker">>} = next(Onlooker),
    [{onlooker, Onlooker} | Config].

%% Each case leaves an uninvolved link as it was, and nothing behind.
end_per_testcase(Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        Onlooker = proplists:get_value(onlooker, Config),
        %% Only this case ends it.
        Case =:= application_ends_with_its_links orelse assert_alive(Onlooker),
        ok = disconnect(Onlooker),
        assert_quiet(Config)
    end).

assert_alive(Link) ->
    ok = send(Link, {ping, <<"onlooker">>}),
    ?assertEqual({pong, <<"onlooker">>}, next(Link)),
    ?assertMatch({200, <<"GET /test/echo 0 ", _/binary>>, {ready, 77, 0}}, ask(Link, 77, "/test/echo")),
    ok = send(Link, {close, 77, 0}),
    ?assertEqual({close, 77, 0}, next(Link)).

assert_quiet(Config) ->
    megaphone_test_node:assert_quiet(proplists:get_value(node, Config)).

%% ---- hello and broken frames -----------------------------------------------------------------------------------

both_say_hello_at_once(Config) ->
    %% ejabberd's end says hello without being asked, names itself, and takes the hello of the other end.
    Link = connect_raw(proplists:get_value(address, Config)),
    {hello, Role, Version, Window, Features, Name} = next(Link),
    ?assertEqual({2, 1, 1}, {Role, Version, Features band 1}),
    ?assert(Window >= 16384),
    ?assertMatch(<<"megaphone", _/binary>>, Name),
    ok = send(Link, {hello, 1, 1, 131072, 16#fffffffd, <<"an ECM with features of the future">>}),
    assert_alive(Link),
    ok = disconnect(Link).

what_is_no_hello_is_refused(Config) ->
    %% What does not begin with a right hello gets an error frame that says why, and the link is closed.
    Long = binary:copy(<<"x">>, 65),
    check_refused(Config, [
        {3, "not a Megaphone hello", <<"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n">>},
        {3, "not a Megaphone hello", <<"<?xml version='1.0'?><stream:stream>">>},
        {3, "not a Megaphone hello", <<16#16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3>>},
        {3, "not a Megaphone hello", encode(open(1))},
        {3, "not a Megaphone hello", encode({data, 1, <<"x">>})},
        {3, "not a Megaphone hello", encode({ping, <<"12345678">>})},
        {2, "version 9", encode({hello, 1, 9, 131072, 1, <<"x">>})},
        {2, "version 1", encode({hello, 1, 0, 131072, 1, <<"x">>})},
        {3, "hello", frame(1, 0, <<"HGPM", 1, 1, 1:32, 131072:32, 0>>)},
        {3, "hello", frame(1, 0, <<"MGPH", 1, 1, 1:32>>)},
        {3, "hello", frame(1, 0, <<"MGPH", 1, 1, 1:32, 131072:32, 5, "name">>)},
        {3, "hello", frame(1, 0, <<"MGPH", 1, 1, 1:32, 131072:32, 2, "name">>)},
        {3, "hello", frame(1, 0, <<"MGPH", 1, 3, 1:32, 131072:32, 0>>)},
        {3, "hello", frame(1, 1, <<"MGPH", 1, 1, 1:32, 131072:32, 0>>)},
        {3, "hello", encode({hello, 1, 1, 131072, 1, Long})},
        {3, "hello", encode({hello, 1, 1, 131072, 1, <<255, 254>>})},
        {3, "ejabberd", encode({hello, 2, 1, 131072, 1, <<"x">>})},
        {3, "16383", encode(hello(16383))},
        {3, "not a Megaphone hello", <<8:32, 1, 0:56>>},
        {3, "not a Megaphone hello", <<16#ffffffff:32>>}
    ]).

frames_that_break_the_protocol(Config) ->
    %% A frame that breaks the protocol ends its link, with an error frame that says why, and no other link.
    Bad = [
        {"hello", encode(hello())},
        {"auth", encode({auth, <<"secret">>})},
        {"0x00", frame(0, 0, <<>>)},
        {"0x0c", frame(16#0c, 1, <<>>)},
        {"0xff", frame(255, 16#ffffffffffffffff, <<>>)},
        {"length 0 ", <<0:32>>},
        {"length 8 ", <<8:32, 4, 1:56>>},
        {"length 65546 ", <<65546:32, 4>>},
        {"length 4294967295 ", <<16#ffffffff:32>>},
        {"open", frame(3, 0, payload(open(1)))},
        {"open", frame(3, 5, <<3, (skip(1, payload(open(1))))/binary>>)},
        {"open", frame(3, 5, <<1, 0, 5, (skip(3, payload(open(1))))/binary>>)},
        {"open", frame(3, 5, <<(payload(open(1)))/binary, 0>>)},
        {"open", frame(3, 5, binary:part(payload(open(1)), 0, 15))},
        {"open", frame(3, 5, <<>>)},
        {"data", frame(4, 0, <<"x">>)},
        {"data", frame(4, 5, <<>>)},
        {"close", frame(5, 0, <<0>>)},
        {"close", frame(5, 5, <<>>)},
        {"close", frame(5, 5, <<0, 0>>)},
        {"error", frame(6, 5, <<>>)},
        {"error", frame(6, 5, [1, binary:copy(<<"x">>, 257)])},
        {"error", frame(6, 5, [1, 255])},
        {"window", frame(7, 0, <<1:32>>)},
        {"window", frame(7, 5, <<1:24>>)},
        {"ping", frame(8, 0, <<"1234567">>)},
        {"ping", frame(8, 5, <<"12345678">>)},
        {"pong", frame(9, 0, <<"123456789">>)},
        {"drain", frame(10, 0, <<0>>)},
        {"drain", frame(10, 5, <<>>)},
        {"ready", frame(11, 5, <<1>>)},
        {"ready", frame(11, 5, <<2>>)},
        {"the other end", encode({error, 0, 0, <<"the ECM has had enough">>})}
    ],
    Hello = encode(hello()),
    check_refused(Config, [{3, Text, <<Hello/binary, Bytes/binary>>} || {Text, Bytes} <- Bad]).

payload(Frame) ->
    <<_Length:32, _Type, _Id:64, Payload/binary>> = encode(Frame),
    Payload.

skip(Count, Bytes) ->
    binary:part(Bytes, Count, byte_size(Bytes) - Count).

check_refused(Config, Cases) ->
    lists:foreach(
        fun({Code, Text, Bytes}) ->
            Link = connect_raw(proplists:get_value(address, Config)),
            ok = send_bytes(Link, Bytes),
            Frames = await_close(Link),
            ok = disconnect(Link),
            ?assertMatch({_, [{hello, 2, 1, _, _, _}, {error, 0, Code, _}]}, {Bytes, Frames}),
            {error, 0, Code, Said} = lists:last(Frames),
            ?assertNotEqual({Bytes, Text, Said, nomatch}, {Bytes, Text, Said, string:find(Said, Text)}),
            ?assert(byte_size(Said) =< 256)
        end,
        Cases
    ),
    assert_alive(proplists:get_value(onlooker, Config)).

largest_of_everything_is_taken(Config) ->
    %% What is exactly at a limit of the frame format is taken; what is beyond it is in the cases before.
    Link = connect_raw(proplists:get_value(address, Config)),
    Head = <<"POST /test/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n">>,
    Size = 65536 - byte_size(Head),
    ok = send(Link, [
        {hello, 1, 1, 16384, 0, binary:copy(<<"x">>, 64)},
        open(16#ffffffffffffffff, {{65535, 0, 0, 0, 0, 0, 0, 1}, 65535}, {{1, 2, 3, 4, 5, 6, 7, 8}, 0}),
        {error, 9, 255, binary:copy(<<"x">>, 256)},
        {data, 16#ffffffffffffffff, <<Head/binary, (binary:copy(<<"x">>, Size))/binary>>},
        {data, 16#ffffffffffffffff, binary:copy(<<"x">>, 65536 - Size)}
    ]),
    {hello, 2, 1, _, _, _} = next(Link),
    {200, Body, {ready, 16#ffffffffffffffff, 0}} = answer(Link, 16#ffffffffffffffff),
    ?assertEqual(
        megaphone_test_handler:echo('POST', <<"/test/echo">>, binary:copy(<<"x">>, 65536), {{65535, 0, 0, 0, 0, 0, 0, 1}, 65535}), Body
    ),
    ok = disconnect(Link).

open(Id, Client, Local) ->
    megaphone_test_link:open(Id, Client, Local).

input_in_single_bytes(Config) ->
    %% A link that brings its frames byte by byte is served as any other.
    Link = connect_raw(proplists:get_value(address, Config)),
    Frames = [hello(), {ping, <<"12345678">>}, open(1), {data, 1, get_request("/test/echo")}],
    [ok = send_bytes(Link, <<Byte>>) || <<Byte>> <= encode(Frames)],
    ?assertMatch({hello, 2, 1, _, _, _}, next(Link)),
    ?assertEqual({pong, <<"12345678">>}, next(Link)),
    ?assertMatch({200, <<"GET /test/echo 0 ", _/binary>>, {ready, 1, 0}}, answer(Link, 1)),
    ok = disconnect(Link).

%% ---- frames about the link -------------------------------------------------------------------------------------

pings_are_answered(Config) ->
    %% Each ping is answered with its own bytes, in order, however many come at once.
    Link = connect(proplists:get_value(address, Config)),
    Pings = [{ping, <<Number:64>>} || Number <- lists:seq(1, 5000)],
    ok = send(Link, Pings),
    ?assertEqual([{pong, Bytes} || {ping, Bytes} <- Pings], [next(Link) || _ <- Pings]),
    ok = disconnect(Link).

who_reads_slowly_is_given_no_more_than_asked_for(Config) ->
    %% While the process that reads a link stands still, its socket gives it 32 messages at most, and keeps the rest; nothing is lost
    %% by that, however often it happens.
    Node = proplists:get_value(node, Config),
    Link = connect(proplists:get_value(address, Config)),
    ok = send(Link, {ping, <<0:64>>}),
    {pong, <<0:64>>} = next(Link),
    Receiver = receiver(Config, Link),
    lists:foreach(
        fun(Round) ->
            ok = call(Node, sys, suspend, [Receiver]),
            Sent = until_it_stops(Node, Receiver, Link, Round, 1),
            ?assert(length(waiting(Node, Receiver, tcp)) =< 32),
            More = lists:seq(Sent + 1, Sent + 10),
            [ok = send(Link, {ping, <<Round:32, N:32>>}) || N <- More],
            ok = call(Node, sys, resume, [Receiver]),
            [?assertEqual({pong, <<Round:32, N:32>>}, next(Link)) || N <- lists:seq(1, Sent) ++ More]
        end,
        lists:seq(1, 5)
    ),
    ok = disconnect(Link).

%% Sends one message after the other, until the socket has stopped: how many they were.
until_it_stops(Node, Receiver, Link, Round, N) ->
    ok = send(Link, {ping, <<Round:32, N:32>>}),
    HasStopped = fun() -> waiting(Node, Receiver, tcp_passive) =/= [] end,
    wait_until(fun() -> length(waiting(Node, Receiver, tcp)) =:= N orelse HasStopped() end),
    case HasStopped() of
        true -> N;
        false -> until_it_stops(Node, Receiver, Link, Round, N + 1)
    end.

waiting(Node, Receiver, Tag) ->
    {messages, Messages} = call(Node, erlang, process_info, [Receiver, messages]),
    [Tag || Message <- Messages, element(1, Message) =:= Tag].

a_silent_peer_is_given_up(Config) ->
    %% A peer that answers pings may say nothing else; one that does not even answer is given up, with all its clients.
    Node = proplists:get_value(node, Config),
    ok = call(Node, application, set_env, [megaphone, link_ping, 50]),
    try
        Link = megaphone_test_link:connect(proplists:get_value(address, Config)),
        ok = megaphone_test_link:send(Link, megaphone_test_link:open(1)),
        lists:foreach(
            fun(_) ->
                {ping, Bytes} = megaphone_test_link:next(Link),
                ok = megaphone_test_link:send(Link, {pong, Bytes})
            end,
            lists:seq(1, 10)
        ),
        ?assertMatch([{ping, _}, {ping, _}], megaphone_test_link:await_close(Link)),
        ok = wait_until(fun() -> binary:match(megaphone_test_node:log(Node), <<"has answered no ping">>) =/= nomatch end)
    after
        ok = call(Node, application, unset_env, [megaphone, link_ping])
    end.

peer_that_does_not_read_is_cut_off(Config) ->
    %% A peer that has answers made and reads none cannot fill the memory: its link is closed.
    Link = connect_raw(proplists:get_value(address, Config)),
    ok = inet:setopts(Link, [{recbuf, 4096}, {send_timeout, 100}]),
    ok = send(Link, hello()),
    Pings = encode([{ping, <<Number:64>>} || Number <- lists:seq(1, 50000)]),
    ok = wait_until(fun() -> send_bytes(Link, Pings) =/= ok end),
    ok = disconnect(Link),
    Node = proplists:get_value(node, Config),
    ok = wait_until(fun() -> binary:match(megaphone_test_node:log(Node), <<"does not read">>) =/= nomatch end).

frames_that_mean_nothing_are_ignored(Config) ->
    %% A pong that nobody asked for, a drain, and errors, windows and closes of unknown connections change nothing.
    Link = connect(proplists:get_value(address, Config)),
    ok = send(Link, [{pong, <<"12345678">>}, drain, {error, 5, 1, <<"unknown">>}, {window, 5, 1}, {close, 5, 0}, {close, 5, 255}]),
    assert_alive(Link),
    ok = disconnect(Link).

%% ---- ends of links ---------------------------------------------------------------------------------------------

%% A link with a thousand connections: most are idle, some are held by requests.
busy_link(Config, Key) ->
    Link = connect(proplists:get_value(address, Config)),
    ok = send(Link, [open(Id) || Id <- lists:seq(1, 1000)]),
    Keys = [<<Key/binary, (integer_to_binary(Id))/binary>> || Id <- lists:seq(1, 10)],
    ok = send(Link, [{data, Id, get_request(["/test/hold/", lists:nth(Id, Keys)])} || Id <- lists:seq(1, 10)]),
    Node = proplists:get_value(node, Config),
    Held = [{Key1, call(Node, megaphone_test_handler, held, [Key1])} || Key1 <- Keys],
    #{connections := 1000} = maps:with([connections], megaphone_test_node:stats(Node)),
    {Link, Held}.

%% Whoever waits in a dead connection is told, and every consumer ends as soon as it answers.
release(Config, Held) ->
    Node = proplists:get_value(node, Config),
    lists:foreach(
        fun({Key, {_Pid, Socket}}) ->
            ?assertEqual({error, closed}, call(Node, gen_tcp, recv, [Socket, 0])),
            ?assertEqual({error, closed}, call(Node, inet, peername, [Socket])),
            ok = call(Node, megaphone_test_handler, answer, [Key, {200, [], <<"too late">>}])
        end,
        Held
    ).

receiver(Config, Link) ->
    Node = proplists:get_value(node, Config),
    {ok, {Ip, Port}} = inet:sockname(Link),
    Peer = iolist_to_binary([inet:ntoa(Ip), ":", integer_to_list(Port)]),
    [Pid] = [Pid || #{peer := From, receiver := Pid} <- call(Node, megaphone, links, []), From =:= Peer],
    Pid.

killed_receiver_leaves_nothing(Config) ->
    %% When the process that reads a link is killed its connections are closed and its socket is.
    {Link, Held} = busy_link(Config, <<"killed-receiver">>),
    true = call(proplists:get_value(node, Config), erlang, exit, [receiver(Config, Link), kill]),
    ?assertEqual([], await_close(Link)),
    only_the_onlooker_is_left(Config),
    release(Config, Held).

killed_sender_leaves_nothing(Config) ->
    %% The same for the process that writes it.
    {Link, Held} = busy_link(Config, <<"killed-sender">>),
    Node = proplists:get_value(node, Config),
    {links, Linked} = call(Node, erlang, process_info, [receiver(Config, Link), links]),
    [Sender] = [
        Pid
     || Pid <- Linked,
        is_pid(Pid),
        {_, {megaphone_sender, init, 1}} <- [proplists:lookup('$initial_call', element(2, call(Node, erlang, process_info, [Pid, dictionary])))]
    ],
    true = call(Node, erlang, exit, [Sender, kill]),
    ?assertEqual([], await_close(Link)),
    only_the_onlooker_is_left(Config),
    release(Config, Held).

lost_link_leaves_nothing(Config) ->
    %% The same when the ECM is gone, by a close of its socket or by a reset.
    lists:foreach(
        fun(Linger) ->
            {Link, Held} = busy_link(Config, <<"lost-link">>),
            ok = inet:setopts(Link, [{linger, Linger}]),
            ok = disconnect(Link),
            only_the_onlooker_is_left(Config),
            release(Config, Held)
        end,
        [{false, 0}, {true, 0}]
    ).

only_the_onlooker_is_left(Config) ->
    Node = proplists:get_value(node, Config),
    ok = wait_until(fun() ->
        maps:with([links, connections, waiters], megaphone_test_node:stats(Node)) =:= #{links => 1, connections => 0, waiters => 0}
    end),
    ok = wait_until(fun() -> length(call(Node, megaphone, links, [])) =:= 1 end).

both_kinds_of_supervisor(Config) ->
    %% With supervisor: false a link belongs to Megaphone's supervisor, with true to ejabberd's of the listener.
    Node = proplists:get_value(node, Config),
    lists:foreach(
        fun({N, Supervisor}) ->
            Link = connect(address(Node, {megaphone, N})),
            Pids = [Pid || {_, Pid, _, _} <- call(Node, supervisor, which_children, [Supervisor])],
            ?assert(lists:member(receiver(Config, Link), Pids)),
            assert_alive(Link),
            ok = disconnect(Link)
        end,
        [{1, megaphone_link_sup}, {2, megaphone_sup}]
    ).

most_links(Config) ->
    %% As many links as the limit says; the next one is refused and told why, and its place is free again later.
    Node = proplists:get_value(node, Config),
    #{max_links := Most} = call(Node, megaphone_nif, limits, []),
    Address = proplists:get_value(address, Config),
    Links = [connect(Address) || _ <- lists:seq(1, Most - 1)],
    Refused = connect_raw(Address),
    ?assertMatch([{error, 0, 4, _}], [Frame || Frame <- await_close(Refused), element(1, Frame) =/= hello]),
    assert_alive(hd(Links)),
    ok = disconnect(hd(Links)),
    ok = wait_until(fun() -> maps:get(links, megaphone_test_node:stats(Node)) =:= Most - 1 end),
    Again = connect(Address),
    assert_alive(Again),
    [ok = disconnect(Link) || Link <- [Again, Refused | tl(Links)]],
    only_the_onlooker_is_left(Config).

application_ends_with_its_links(Config) ->
    %% When the application stops its links are closed; when it is started again new ones are served.
    Node = proplists:get_value(node, Config),
    {Link, Held} = busy_link(Config, <<"stopped">>),
    Supervised = connect(address(Node, {megaphone, 2})),
    Onlooker = proplists:get_value(onlooker, Config),
    ok = call(Node, application, stop, [megaphone]),
    ?assertEqual([[], [], []], [await_close(Each) || Each <- [Link, Supervised, Onlooker]]),
    ?assertEqual(0, maps:get(connections, megaphone_test_node:stats(Node))),
    release(Config, Held),
    ok = call(Node, application, start, [megaphone]),
    New = connect(proplists:get_value(address, Config)),
    assert_alive(New),
    ok = disconnect(New).
