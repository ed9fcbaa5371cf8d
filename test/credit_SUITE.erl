%% Credit on the connections of links, and connections that become tunnels, through the listener of a real ejabberd.
-module(credit_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_link, [
    hello/1, open/1, get_request/1, request/4, ask/3, answer/2, close/2, connect/1, connect_raw/1, send/2, next/1, disconnect/1
]).
-import(megaphone_test_node, [address/2, held/2, do/3, release/3]).

-define(WINDOW, 131072).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [
        answer_within_the_window,
        answer_stops_at_the_window,
        window_out_of_range,
        body_under_credit,
        more_than_granted,
        large_answer_holds_up_nobody,
        answer_without_reading_the_body,
        tunnel,
        tunnel_ends_while_passive
    ].

init_per_suite(Config) ->
    Listener = megaphone_test_node:listener(megaphone, 1, [megaphone_test_node:handlers()]),
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [Listener]),
    [{node, Node}, {address, address(Node, megaphone)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

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

%% ---- credit ----------------------------------------------------------------------------------------------------

%% A link whose ECM accepts only so much for each connection.
narrow(Config, Window) ->
    Link = connect_raw(proplists:get_value(address, Config)),
    ok = send(Link, hello(Window)),
    {hello, 2, 1, ?WINDOW, _, _} = next(Link),
    Link.

answer_within_the_window(Config) ->
    %% An answer that just fits into the ECM's window comes without any grant; with one byte less of window it does not end.
    Key = <<"window">>,
    Whole = 16384,
    lists:foreach(
        fun(More) ->
            Link = narrow(Config, Whole),
            hold(Config, Link, 1, Key),
            ok = do(node_of(Config), Key, fun(Socket, _) -> gen_tcp:send(Socket, binary:copy(<<"x">>, Whole + More)) end),
            ?assertEqual({data, 1, binary:copy(<<"x">>, Whole)}, next(Link)),
            ok = send(Link, {ping, <<"12345678">>}),
            ?assertEqual({pong, <<"12345678">>}, next(Link)),
            ok = send(Link, {window, 1, 1}),
            More =:= 1 andalso ?assertEqual({data, 1, <<"x">>}, next(Link)),
            ok = disconnect(Link),
            release(node_of(Config), Key, <<>>)
        end,
        [0, 1]
    ).

answer_stops_at_the_window(Config) ->
    %% No more comes than the window and the grants allow, to the byte, and all of it in the end.
    Link = narrow(Config, 20000),
    ok = send(Link, [open(1), {data, 1, get_request("/test/bytes/300000")}]),
    First = exactly(Link, 1, 20000),
    Rest = [
        begin
            ok = send(Link, [{window, 1, Grant}, {ping, <<Grant:64>>}]),
            Data = exactly(Link, 1, Grant),
            ?assertEqual({pong, <<Grant:64>>}, last_pong(Link)),
            Data
        end
     || Grant <- [1, 2, 16383, 16384, 16385, 100000]
    ],
    ok = send(Link, {window, 1, 1000000}),
    {Last, {ready, 1, 0}} = until_end(Link, 1, <<>>),
    [_Head, Body] = binary:split(iolist_to_binary([First, Rest, Last]), <<"\r\n\r\n">>),
    ?assert(Body =:= megaphone_test_handler:bytes(300000)),
    close(Link, 1),
    ok = disconnect(Link).

%% So many bytes, in frames of at most 16 kB. A pong may come between them.
exactly(_Link, _Id, 0) ->
    <<>>;
exactly(Link, Id, Size) ->
    case next(Link) of
        {data, Id, Data} when byte_size(Data) =< Size, byte_size(Data) =< 16384 ->
            <<Data/binary, (exactly(Link, Id, Size - byte_size(Data)))/binary>>;
        {pong, _} = Pong ->
            put(pong, Pong),
            exactly(Link, Id, Size)
    end.

last_pong(Link) ->
    case erase(pong) of
        undefined -> next(Link);
        Pong -> Pong
    end.

until_end(Link, Id, Got) ->
    case next(Link) of
        {data, Id, Data} -> until_end(Link, Id, <<Got/binary, Data/binary>>);
        End -> {Got, End}
    end.

window_out_of_range(Config) ->
    %% Credit that sums up to more than 32 bits is a breach of the protocol; the largest sum is not.
    Link = narrow(Config, 16384),
    ok = send(Link, [open(1), {window, 1, 16#ffffffff - 16384}, {data, 1, get_request("/test/echo")}]),
    {200, _, {ready, 1, 0}} = answer(Link, 1),
    ok = send(Link, [open(2), {window, 2, 16#ffffffff - 16383}]),
    ?assertMatch([{error, 0, 3, _}], megaphone_test_link:await_close(Link)),
    ok = disconnect(Link).

body_under_credit(Config) ->
    %% A body of many windows comes through when the ECM sends no more than it was granted; what is not consumed is not granted.
    Link = link_of(Config),
    Size = 1000000,
    Body = megaphone_test_handler:bytes(Size),
    Head = <<"PUT /test/hold/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n">>,
    Sent = ?WINDOW - byte_size(Head),
    ok = send(Link, [open(1), {data, 1, Head} | chunks(1, binary:part(Body, 0, Sent))]),
    {_Pid, _Socket} = held(node_of(Config), <<"upload">>),
    ok = send(Link, {ping, <<"12345678">>}),
    ?assertEqual(ok, granted_before_the_pong(Link)),
    Self = self(),
    spawn_link(fun() ->
        Read = fun(Socket, First) ->
            {ok, Rest} = gen_tcp:recv(Socket, Size - byte_size(First)),
            erlang:md5([First, Rest])
        end,
        Self ! {hash, do(node_of(Config), <<"upload">>, Read)}
    end),
    upload(Link, 1, binary:part(Body, Sent, Size - Sent)),
    {hash, Hash} = ?assertReceive({hash, _}),
    ?assertEqual(erlang:md5(Body), Hash),
    release(node_of(Config), <<"upload">>, <<"thanks">>),
    {200, <<"thanks">>, {ready, 1, 0}} = answer(Link, 1),
    close(Link, 1).

%% The head was consumed, and perhaps what came with it; never more than one window in all.
granted_before_the_pong(Link) ->
    case next(Link) of
        {pong, _} -> ok;
        {window, 1, Increment} when Increment =< ?WINDOW ->
            put(credit, Increment),
            granted_before_the_pong(Link)
    end.

upload(_Link, _Id, <<>>) ->
    ok;
upload(Link, Id, Body) ->
    Credit =
        case erase(credit) of
            undefined ->
                {window, Id, Increment} = next(Link),
                ?assert(Increment >= ?WINDOW div 2),
                Increment;
            Early ->
                Early
        end,
    {Now, Later} = split_binary(Body, min(Credit, byte_size(Body))),
    ok = send(Link, chunks(Id, Now)),
    upload(Link, Id, Later).

chunks(_Id, <<>>) -> [];
chunks(Id, Data) when byte_size(Data) =< 16384 -> [{data, Id, Data}];
chunks(Id, <<Chunk:16384/binary, Rest/binary>>) -> [{data, Id, Chunk} | chunks(Id, Rest)].

more_than_granted(Config) ->
    %% One byte more than was granted closes that connection for protocol, and no other; one byte less does not.
    Link = link_of(Config),
    Key = <<"overrun">>,
    Head = <<"PUT /test/hold/overrun HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n">>,
    {200, _, {ready, 9, 0}} = ask(Link, 9, "/test/echo"),
    %% All at once: nothing is consumed before it has come.
    ok = send(Link, [open(1), {data, 1, binary:part(Head, 0, 20)}]),
    Rest = binary:part(Head, 20, byte_size(Head) - 20),
    Fill = binary:copy(<<"x">>, 65536),
    ok = send(Link, {data, 1, Rest}),
    {_, _} = held(node_of(Config), Key),
    %% The consumer has read the head and reads no more; less than half a window was consumed, so nothing is granted.
    Left = ?WINDOW - byte_size(Head),
    ok = send(Link, [{data, 1, Fill}, {data, 1, binary:part(Fill, 0, Left - 65536)}, {ping, <<"12345678">>}]),
    ?assertEqual({pong, <<"12345678">>}, next(Link)),
    ok = send(Link, {data, 1, <<"x">>}),
    ?assertMatch([{close, 1, 4}, {error, 1, 3, _}], lists:sort([next(Link), next(Link)])),
    ok = send(Link, [{close, 1, 0}, {data, 9, get_request("/test/echo")}]),
    {200, _, {ready, 9, 0}} = answer(Link, 9),
    close(Link, 9),
    release(node_of(Config), Key, <<>>).

large_answer_holds_up_nobody(Config) ->
    %% While a large answer is being sent other connections and pings are answered: it is cut into frames, in turn.
    Link = link_of(Config),
    Large = 20000000,
    %% The kernel may hold as much as all of it for a reader that is late: then it would have come before anybody asks for another.
    ok = inet:setopts(Link, [{recbuf, 65536}]),
    ok = send(Link, [open(1), {window, 1, 100000000}, {data, 1, get_request(["/test/bytes/", integer_to_list(Large)])}]),
    {data, 1, First} = next(Link),
    ok = send(Link, [open(2), {data, 2, get_request("/test/echo")}]),
    {Before, Other} = until_other(Link, byte_size(First)),
    ?assertMatch({data, 2, <<"HTTP/1.1 200 ", _/binary>>}, Other),
    ?assert(Before < Large),
    ok = send(Link, [{close, 1, 1}, {close, 2, 1}]),
    both_closed(Link, [1, 2]).

until_other(Link, Got) ->
    case next(Link) of
        {data, 1, Data} when byte_size(Data) =< 16384 -> until_other(Link, Got + byte_size(Data));
        Other -> {Got, Other}
    end.

both_closed(_Link, []) ->
    ok;
both_closed(Link, Ids) ->
    case next(Link) of
        {close, Id, 0} -> both_closed(Link, Ids -- [Id]);
        _ -> both_closed(Link, Ids)
    end.

answer_without_reading_the_body(Config) ->
    %% A handler that answers before it has read a large body ends that request: the rest of it is taken and dropped, and
    %% the next request is answered.
    Link = link_of(Config),
    Size = 300000,
    Head = <<"PUT /test/nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n">>,
    ok = send(Link, [open(1), {data, 1, Head}]),
    {data, 1, <<"HTTP/1.1 404 ", _/binary>>} = next(Link),
    upload_dropped(Link, Size, ?WINDOW - byte_size(Head)),
    ok = send(Link, {data, 1, get_request("/test/echo")}),
    {200, _, {ready, 1, 0}} = answer(Link, 1),
    close(Link, 1).

upload_dropped(Link, Size, Credit) ->
    ok = send(Link, chunks(1, binary:copy(<<"x">>, min(Size, Credit)))),
    case next(Link) of
        {window, 1, More} -> upload_dropped(Link, Size - min(Size, Credit), More);
        {data, 1, _RestOfTheAnswer} -> upload_dropped(Link, Size - min(Size, Credit), 0);
        {ready, 1, 0} -> ok
    end.

%% ---- tunnels ---------------------------------------------------------------------------------------------------

%% A WebSocket to ejabberd, and its answer to <open/>.
upgrade(Link, Id) ->
    Fields = [
        {"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"},
        {"Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="}, {"Sec-WebSocket-Protocol", "xmpp"}
    ],
    ok = send(Link, [open(Id), {data, Id, request("GET", "/ws", Fields, "")}]),
    {<<"HTTP/1.1 101 ", _/binary>>, {ready, Id, 1}} = until_end(Link, Id, <<>>),
    ok = send(Link, {data, Id, frame_of(<<"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>">>)}),
    {data, Id, <<1:1, 0:3, 1:4, _/binary>> = Answer} = next(Link),
    ?assertNotEqual(nomatch, binary:match(Answer, <<"xmpp-framing">>)).

%% A masked text frame.
frame_of(Text) ->
    <<1:1, 0:3, 1:4, 1:1, 126:7, (byte_size(Text)):16, 0:32, Text/binary>>.

tunnel(Config) ->
    %% A WebSocket makes its connection a tunnel: bytes pass both ways, one at a time as well; a close ends its processes.
    Link = link_of(Config),
    upgrade(Link, 1),
    drop_stanzas(Link, 1),
    Ping = <<1:1, 0:3, 9:4, 1:1, 4:7, 0:32, "ping">>,
    [ok = send(Link, {data, 1, <<Byte>>}) || <<Byte>> <= Ping],
    ?assertEqual({data, 1, <<1:1, 0:3, 10:4, 4, "ping">>}, next(Link)),
    ok = send(Link, {close, 1, 1}),
    ?assertEqual({close, 1, 0}, next(Link)).

%% ejabberd follows its <open/> with the features of the stream.
drop_stanzas(Link, Id) ->
    {data, Id, Features} = next(Link),
    ?assertNotEqual(nomatch, binary:match(Features, <<"features">>)).

tunnel_ends_while_passive(Config) ->
    %% A server that takes input message by message learns that the client is gone, though it was passive just then.
    Link = link_of(Config),
    Key = <<"passive">>,
    hold(Config, Link, 1, Key),
    Do = fun(Fun) -> do(node_of(Config), Key, Fun) end,
    ok = Do(fun(Socket, _) -> inet:setopts(Socket, [{packet, raw}, {active, once}]) end),
    ?assertEqual({ready, 1, 1}, next(Link)),
    ok = send(Link, [{data, 1, <<"input">>}, {close, 1, 1}]),
    ?assertEqual({close, 1, 0}, next(Link)),
    Result = Do(fun(Socket, _) ->
        First = receive {tcp, Socket, Data} -> Data end,
        {First, inet:setopts(Socket, [{active, once}]), receive {tcp_closed, Socket} -> closed after 1000 -> nothing end}
    end),
    ?assertEqual({<<"input">>, ok, closed}, Result),
    release(node_of(Config), Key, <<>>).
