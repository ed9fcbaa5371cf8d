%% Virtual connections of links, through the listener of a real ejabberd: requests and answers, ids, closes.
%% How links begin and end is in link_SUITE, credit and tunnels in credit_SUITE.
-module(connection_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_link, [
    open/1, open/3, get_request/1, request/4, ask/3, answer/2, close/2, connect/1, send/2, next/1, disconnect/1
]).
-import(megaphone_test_node, [address/2, call/4, held/2, release/3]).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [
        requests_follow_each_other,
        two_requests_at_once,
        connection_close_ends_it,
        client_addresses,
        handler_dies,
        malformed_request_ends_its_connection_only,
        links_with_equal_ids,
        id_again_after_a_close,
        id_again_after_ejabberd_closed,
        id_in_use,
        late_frames,
        close_during_a_request,
        stale_socket_reaches_nobody
    ].

init_per_suite(Config) ->
    Listener = megaphone_test_node:listener(megaphone, 1, [megaphone_test_node:handlers()]),
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [Listener]),
    [{node, Node}, {address, address(Node, megaphone)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop(proplists:get_value(node, Config)).

init_per_testcase(_Case, Config) ->
    [{link, connect(proplists:get_value(address, Config))} | Config].

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        Link = proplists:get_value(link, Config),
        %% Whatever the case did, the link goes on, and has nothing more to say.
        ok = send(Link, {ping, <<"the end.">>}),
        ?assertEqual({pong, <<"the end.">>}, next(Link)),
        ok = disconnect(Link),
        megaphone_test_node:assert_quiet(proplists:get_value(node, Config))
    end).

link_of(Config) -> proplists:get_value(link, Config).
node_of(Config) -> proplists:get_value(node, Config).

hold(Config, Link, Id, Key) ->
    ok = send(Link, [open(Id), {data, Id, get_request(["/test/hold/", Key])}]),
    held(node_of(Config), Key).

connections(Config) ->
    maps:get(connections, megaphone_test_node:stats(node_of(Config))).

%% ---- requests --------------------------------------------------------------------------------------------------

requests_follow_each_other(Config) ->
    %% Requests of one connection are answered one after the other, each followed by ready, by no process between them.
    Link = link_of(Config),
    {200, _, {ready, 1, 0}} = ask(Link, 1, "/test/echo"),
    lists:foreach(
        fun(Number) ->
            Body = binary:copy(<<Number>>, Number * 100),
            ok = send(Link, {data, 1, request("POST", "/test/echo?n", [], Body)}),
            Expected = megaphone_test_handler:echo('POST', <<"/test/echo?n">>, Body, {{192, 0, 2, 10}, 51000}),
            ?assertEqual({200, Expected, {ready, 1, 0}}, answer(Link, 1)),
            ok = wait_until(fun() -> [] =:= [x || {consumer, _, _} <- call(node_of(Config), megaphone_test_node, leftovers, [])] end)
        end,
        lists:seq(1, 20)
    ),
    close(Link, 1).

two_requests_at_once(Config) ->
    %% Requests that come without waiting for ready are still answered one by one, in order, wherever they are cut.
    Link = link_of(Config),
    Requests = iolist_to_binary([
        request("POST", "/test/echo?1", [], "first"), get_request("/test/echo?2"), request("POST", "/test/echo?3", [], "third")
    ]),
    lists:foreach(
        fun({Id, At}) ->
            {First, Second} = split_binary(Requests, At),
            ok = send(Link, [open(Id) | [{data, Id, Part} || Part <- [First, Second], Part =/= <<>>]]),
            Answers = until_ready_after(Link, Id, <<"/test/echo?3 5 ">>, <<>>),
            Bodies = [hd(binary:split(Answer, <<" ">>)) || Answer <- tl(binary:split(Answers, <<"/test/echo?">>, [global]))],
            ?assertEqual([<<"1">>, <<"2">>, <<"3">>], Bodies),
            close_after_ready(Link, Id)
        end,
        lists:enumerate(lists:seq(0, byte_size(Requests) - 1, 7))
    ).

%% The ready of an answer may come after the answer that follows it closely. Then the one that was seen was not the last.
close_after_ready(Link, Id) ->
    ok = send(Link, {close, Id, 0}),
    case next(Link) of
        {close, Id, 0} -> ok;
        {ready, Id, 0} -> ?assertEqual({close, Id, 0}, next(Link))
    end.

%% Between answers that follow each other closely there need not be a ready.
until_ready_after(Link, Id, Text, Got) ->
    case next(Link) of
        {data, Id, Data} ->
            until_ready_after(Link, Id, Text, <<Got/binary, Data/binary>>);
        {ready, Id, 0} ->
            case binary:match(Got, Text) of
                nomatch -> until_ready_after(Link, Id, Text, Got);
                _ -> Got
            end
    end.

connection_close_ends_it(Config) ->
    %% After the answer to a request with Connection: close the connection is closed by ejabberd, with all of the answer before.
    Link = link_of(Config),
    ok = send(Link, [open(1), {data, 1, request("GET", "/test/bytes/100000", [{"Connection", "close"}], "")}]),
    {200, Body, {close, 1, 0}} = answer(Link, 1),
    ?assert(Body =:= megaphone_test_handler:bytes(100000)),
    ok = send(Link, {close, 1, 0}).

client_addresses(Config) ->
    %% ejabberd sees the client's address of the open frame, of either family.
    Link = link_of(Config),
    Local = {{198, 51, 100, 1}, 443},
    Clients = [{{192, 0, 2, 10}, 1}, {{8193, 3512, 0, 0, 0, 0, 0, 10}, 65535}],
    lists:foreach(
        fun({Id, Client}) ->
            ok = send(Link, [open(Id, Client, Local), {data, Id, get_request("/test/echo")}]),
            Expected = megaphone_test_handler:echo('GET', <<"/test/echo">>, <<>>, Client),
            ?assertEqual({200, Expected, {ready, Id, 0}}, answer(Link, Id)),
            close(Link, Id),
            Key = <<"address", (integer_to_binary(Id))/binary>>,
            ok = send(Link, [open(Id, Client, Local), {data, Id, get_request(["/test/hold/", Key])}]),
            {_, Socket} = held(node_of(Config), Key),
            ?assertEqual({ok, Client}, call(node_of(Config), inet, peername, [Socket])),
            ?assertEqual({ok, Local}, call(node_of(Config), inet, sockname, [Socket])),
            release(node_of(Config), Key, <<>>),
            {200, <<>>, {ready, Id, 0}} = answer(Link, Id),
            close(Link, Id)
        end,
        lists:enumerate(Clients)
    ).

handler_dies(Config) ->
    %% When the process that answers is killed or crashes, the client is told by a close, and no other connection is hurt.
    Link = link_of(Config),
    {200, _, {ready, 9, 0}} = ask(Link, 9, "/test/echo"),
    lists:foreach(
        fun({Id, Path}) ->
            ok = send(Link, [open(Id), {data, Id, get_request(Path)}]),
            ?assertMatch({close, Id, _}, next(Link)),
            ok = send(Link, {close, Id, 0})
        end,
        [{1, "/test/die"}, {2, "/test/crash"}]
    ),
    ok = send(Link, {data, 9, get_request("/test/echo")}),
    {200, _, {ready, 9, 0}} = answer(Link, 9),
    close(Link, 9).

malformed_request_ends_its_connection_only(Config) ->
    %% What no ECM should let through is refused here again: an error for the connection and a close for protocol.
    Link = link_of(Config),
    Wrong = [
        <<"nonsense\r\n\r\n">>,
        <<"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n">>,
        <<"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n">>,
        <<"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab">>,
        <<"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n">>,
        <<"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n">>,
        [<<"GET / HTTP/1.1\r\nHost: a\r\n">>, lists:duplicate(2000, "X-Many: 1\r\n"), "\r\n"],
        [<<"GET /">>, lists:duplicate(20000, $a), " HTTP/1.1\r\nHost: a\r\n\r\n"]
    ],
    lists:foreach(
        fun({Id, Bytes}) ->
            ok = send(Link, [open(Id), {data, Id, iolist_to_binary(Bytes)}]),
            Answers = lists:sort([next(Link), next(Link)]),
            ?assertMatch({_, [{close, Id, 4}, {error, Id, 3, _}]}, {Bytes, Answers}),
            ok = send(Link, {close, Id, 0})
        end,
        lists:enumerate(Wrong)
    ),
    {200, _, {ready, 1, 0}} = ask(Link, 1, "/test/echo"),
    close(Link, 1).

%% ---- ids -------------------------------------------------------------------------------------------------------

links_with_equal_ids(Config) ->
    %% Connections with the same id on two links have nothing to do with each other.
    Links = [link_of(Config), connect(proplists:get_value(address, Config))],
    [One, Other] = Links,
    Keys = [<<"one">>, <<"other">>],
    [hold(Config, Link, 5, Key) || {Link, Key} <- lists:zip(Links, Keys)],
    release(node_of(Config), <<"other">>, <<"for the other">>),
    ?assertEqual({200, <<"for the other">>, {ready, 5, 0}}, answer(Other, 5)),
    close(Other, 5),
    ok = send(Other, {data, 5, <<"late">>}),
    ?assertMatch({error, 5, 1, _}, next(Other)),
    release(node_of(Config), <<"one">>, <<"for the one">>),
    ?assertEqual({200, <<"for the one">>, {ready, 5, 0}}, answer(One, 5)),
    close(One, 5),
    ok = disconnect(Other).

id_again_after_a_close(Config) ->
    %% An id is free as soon as the closes of both ends have passed, and the new connection is a new one.
    Link = link_of(Config),
    lists:foreach(
        fun(Number) ->
            Key = integer_to_binary(Number),
            {_, Socket} = hold(Config, Link, 7, Key),
            close(Link, 7),
            {200, _, {ready, 7, 0}} = ask(Link, 7, "/test/echo"),
            ?assertEqual({error, closed}, call(node_of(Config), gen_tcp, send, [Socket, <<"from the past">>])),
            release(node_of(Config), Key, <<"from the past">>),
            ok = send(Link, {data, 7, get_request("/test/echo")}),
            {200, _, {ready, 7, 0}} = answer(Link, 7),
            close(Link, 7)
        end,
        lists:seq(1, 20)
    ).

id_again_after_ejabberd_closed(Config) ->
    %% The same when ejabberd's end closes first. Until the ECM's close has come the id is not free.
    Link = link_of(Config),
    Close = request("GET", "/test/echo", [{"Connection", "close"}], ""),
    lists:foreach(
        fun(_) ->
            ok = send(Link, [open(7), {data, 7, Close}]),
            {200, _, {close, 7, 0}} = answer(Link, 7),
            ok = send(Link, [{close, 7, 0}, open(7), {data, 7, get_request("/test/echo")}]),
            {200, _, {ready, 7, 0}} = answer(Link, 7),
            close(Link, 7)
        end,
        lists:seq(1, 20)
    ),
    ?assertEqual(0, connections(Config)).

id_in_use(Config) ->
    %% An open for an id in use ends the link with an error frame, whether the connection is open or half closed.
    lists:foreach(
        fun(Prepare) ->
            Link = connect(proplists:get_value(address, Config)),
            Prepare(Link),
            ok = send(Link, open(7)),
            ?assertMatch([{error, 0, 3, _}], megaphone_test_link:await_close(Link)),
            ok = disconnect(Link)
        end,
        [
            fun(Link) -> ok = send(Link, open(7)) end,
            fun(Link) -> {200, _, {ready, 7, 0}} = ask(Link, 7, "/test/echo") end,
            fun(Link) ->
                ok = send(Link, [open(7), {data, 7, request("GET", "/test/echo", [{"Connection", "close"}], "")}]),
                {200, _, {close, 7, 0}} = answer(Link, 7)
            end
        ]
    ).

late_frames(Config) ->
    %% Data for an id that is closed or never was is answered by an error; window, close and errors are ignored. What
    %% crosses ejabberd's close is dropped.
    Link = link_of(Config),
    {200, _, {ready, 3, 0}} = ask(Link, 3, "/test/echo"),
    close(Link, 3),
    ok = send(Link, [{data, 3, <<"x">>}, {data, 4, <<"x">>}, {window, 3, 5}, {close, 3, 0}, {error, 3, 0, <<"x">>}]),
    ?assertMatch({error, 3, 1, _}, next(Link)),
    ?assertMatch({error, 4, 1, _}, next(Link)),
    ok = send(Link, [open(3), {data, 3, request("GET", "/test/echo", [{"Connection", "close"}], "")}]),
    {200, _, {close, 3, 0}} = answer(Link, 3),
    ok = send(Link, [{data, 3, <<"x">>}, {window, 3, 5}, {close, 3, 0}]),
    ok = send(Link, {data, 3, <<"x">>}),
    ?assertMatch({error, 3, 1, _}, next(Link)).

close_during_a_request(Config) ->
    %% A client that goes before it is answered leaves nothing, at whatever point of its request.
    Link = link_of(Config),
    Request = request("POST", "/test/echo", [], <<"body">>),
    Whole = byte_size(Request),
    lists:foreach(
        fun(At) ->
            ok = send(Link, [open(1), {data, 1, binary:part(Request, 0, At)}, {close, 1, 1}]),
            ok = wait_for_close(Link, 1)
        end,
        lists:seq(1, Whole, 5) ++ [Whole]
    ),
    ?assertEqual(0, connections(Config)),
    Large = <<"PUT /test/hold/gone HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nfirst bytes">>,
    ok = send(Link, [open(1), {data, 1, Large}]),
    {Pid, Socket} = held(node_of(Config), <<"gone">>),
    close(Link, 1),
    ?assertEqual({error, closed}, call(node_of(Config), gen_tcp, recv, [Socket, 100])),
    ?assert(call(node_of(Config), erlang, is_process_alive, [Pid])),
    release(node_of(Config), <<"gone">>, <<>>).

%% Some of the answer may have been under way.
wait_for_close(Link, Id) ->
    case next(Link) of
        {close, Id, 0} -> ok;
        {data, Id, _} -> wait_for_close(Link, Id);
        {ready, Id, 0} -> wait_for_close(Link, Id)
    end.

stale_socket_reaches_nobody(Config) ->
    %% The socket of a connection whose link is gone answers closed, and nothing of it comes to a new link with the same ids.
    Old = connect(proplists:get_value(address, Config)),
    Key = <<"stale">>,
    {_, Socket} = hold(Config, Old, 1, Key),
    ok = disconnect(Old),
    ok = wait_until(fun() -> connections(Config) =:= 0 end),
    Link = link_of(Config),
    {200, _, {ready, 1, 0}} = ask(Link, 1, "/test/echo"),
    Calls = [
        {gen_tcp, send, [Socket, <<"x">>]}, {gen_tcp, recv, [Socket, 0]}, {inet, setopts, [Socket, [{active, true}]]},
        {inet, peername, [Socket]}, {gen_tcp, shutdown, [Socket, read_write]}, {inet, getopts, [Socket, [active]]}
    ],
    [?assertEqual({error, closed}, call(node_of(Config), M, F, A)) || {M, F, A} <- Calls],
    ?assertEqual(ok, call(node_of(Config), gen_tcp, close, [Socket])),
    release(node_of(Config), Key, <<"stale">>),
    ok = send(Link, {data, 1, get_request("/test/echo")}),
    {200, <<"GET /test/echo", _/binary>>, {ready, 1, 0}} = answer(Link, 1),
    close(Link, 1).
