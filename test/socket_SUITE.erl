%% A virtual connection as a socket of gen_tcp and inet. Where both can be asked the same, a real TCP socket is the
%% model: the same steps are done on both, and the answers and messages must be the same. Sending is in sender_SUITE.
-module(socket_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, open/1, run/1, wait_until/1]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        active_modes_as_a_tcp_socket_has_them,
        active_counts_out_of_range,
        active_mode_takes_what_is_queued,
        active_socket_is_not_read,
        closed_is_told_to_an_active_owner_once,
        closed_is_told_to_an_owner_that_becomes_active,
        packet_modes_as_a_tcp_socket_has_them,
        packet_mode_changes,
        lengths_of_reads,
        long_read_that_times_out_loses_nothing,
        options_that_exist,
        options_that_do_not_exist,
        owner_hands_over,
        what_no_virtual_socket_has
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- active mode -----------------------------------------------------------------------------------------------

active_modes_as_a_tcp_socket_has_them(_Config) ->
    %% Whatever the order of input and changes between true, false, once and N, the owner of a virtual socket gets the
    %% messages that the owner of a TCP socket gets.
    lists:foreach(fun active_script/1, lists:seq(1, 150)).

active_script(Seed) ->
    {Steps, _} = lists:mapfoldl(fun active_step/2, rand:seed_s(exsss, Seed), lists:seq(1, 12)),
    {Peer, Tcp} = tcp_pair([{packet, http_bin}]),
    Virtual = megaphone:socket(open(http_bin)),
    lists:foldl(
        fun(Step, Done) ->
            Trace = {Seed, lists:reverse([Step | Done])},
            Answer = do_virtual(Step, Virtual),
            ?assertEqual({Trace, Answer}, {Trace, do_tcp(Step, Peer, Tcp)}),
            Messages = virtual_messages(Virtual),
            ?assertEqual({Trace, Messages}, {Trace, [tcp_message(Tcp, Trace) || _ <- Messages]}),
            ?assertEqual({Trace, inet:getopts(Virtual, [active])}, {Trace, inet:getopts(Tcp, [active])}),
            [Step | Done]
        end,
        [],
        Steps
    ),
    %% Whatever else the TCP socket had to say would come before this.
    ok = inet:setopts(Tcp, [{active, true}]),
    ok = inet:setopts(Virtual, [{active, true}]),
    do_virtual({input, last}, Virtual),
    do_tcp({input, last}, Peer, Tcp),
    Messages = virtual_messages(Virtual),
    ?assertEqual({Seed, Messages}, {Seed, [tcp_message(Tcp, Seed) || _ <- Messages]}),
    [ok = gen_tcp:close(Socket) || Socket <- [Peer, Tcp, Virtual]].

active_step(Number, Rand0) ->
    {Kind, Rand1} = rand:uniform_s(5, Rand0),
    {Count, Rand2} = rand:uniform_s(9, Rand1),
    Step =
        case Kind of
            1 -> {active, once};
            2 when Count > 5 -> {active, true};
            2 -> {active, false};
            3 -> {active, Count - 4};
            _ -> {input, Number}
        end,
    {Step, Rand2}.

do_virtual({active, _} = Option, Socket) -> inet:setopts(Socket, [Option]);
do_virtual({input, Number}, {_, _, Handle}) -> megaphone:put_data(Handle, request(Number)).

do_tcp({active, _} = Option, _Peer, Socket) -> inet:setopts(Socket, [Option]);
do_tcp({input, Number}, Peer, _Socket) -> gen_tcp:send(Peer, request(Number)).

%% Two messages in the packet mode http_bin: each ends with its line.
request(Number) ->
    iolist_to_binary(io_lib:format("GET /~p HTTP/1.1\r\n\r\n", [Number])).

%% What a call has sent to this very process is there when it returns.
virtual_messages(Socket) ->
    receive
        {Tag, Socket, Data} -> [{Tag, Data} | virtual_messages(Socket)];
        {Tag, Socket} -> [Tag | virtual_messages(Socket)]
    after 0 -> []
    end.

tcp_message(Socket, Trace) ->
    receive
        {Tag, Socket, Data} -> {Tag, Data};
        {Tag, Socket} -> Tag
    after ?DEADLINE -> error({no_message_from_tcp, Trace})
    end.

tcp_pair(Options) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}} | Options]),
    {ok, Port} = inet:port(Listener),
    {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    {ok, Socket} = gen_tcp:accept(Listener, ?DEADLINE),
    ok = gen_tcp:close(Listener),
    {Peer, Socket}.

active_counts_out_of_range(_Config) ->
    %% Counts beyond 16 bits, alone or in sum, are refused as a TCP socket refuses them, and change nothing.
    {Peer, Tcp} = tcp_pair([]),
    Virtual = megaphone:socket(open()),
    Steps = [32768, -32769, 32767, 1, 32767, -32768, -1, 32767, false, -1, 0],
    Do = fun(Socket) -> [{inet:setopts(Socket, [{active, Step}]), inet:getopts(Socket, [active])} || Step <- Steps] end,
    ?assertEqual(Do(Tcp), Do(Virtual)),
    Messages = virtual_messages(Virtual),
    ?assertEqual(virtual_messages(Tcp), Messages),
    [ok = gen_tcp:close(Socket) || Socket <- [Peer, Tcp, Virtual]].

active_mode_takes_what_is_queued(_Config) ->
    %% What waits already comes at once when the socket becomes active, in order, and the rest as it is put.
    Handle = open(),
    Socket = megaphone:socket(Handle),
    [ok = megaphone:put_data(Handle, <<Byte>>) || Byte <- "abc"],
    ok = inet:setopts(Socket, [{active, true}]),
    ok = megaphone:put_data(Handle, <<"de">>),
    ?assertEqual(<<"abcde">>, iolist_to_binary([Data || {tcp, Data} <- virtual_messages(Socket)])),
    ok = megaphone:close(Handle).

active_socket_is_not_read(_Config) ->
    %% A read of an active socket is refused as by a TCP socket; asked by message it is {error, closed}.
    {Peer, Tcp} = tcp_pair([]),
    Handle = open(),
    Virtual = megaphone:socket(Handle),
    lists:foreach(
        fun(Active) ->
            Answers = [
                {inet:setopts(Socket, [{active, Active}]), gen_tcp:recv(Socket, 0, 0), gen_tcp:recv(Socket, 1, 0)}
             || Socket <- [Tcp, Virtual]
            ],
            ?assertMatch([Answer, Answer], Answers)
        end,
        [once, true, false, 5, false]
    ),
    ok = inet:setopts(Virtual, [{active, once}]),
    ok = megaphone:get_data(Handle),
    ?assertReceive({error, closed}),
    [ok = gen_tcp:close(Socket) || Socket <- [Peer, Tcp, Virtual]].

closed_is_told_to_an_active_owner_once(_Config) ->
    %% When somebody else closes an active socket its owner gets the data before and one tcp_closed.
    lists:foreach(
        fun(Active) ->
            Handle = open(),
            Socket = megaphone:socket(Handle),
            ok = inet:setopts(Socket, [{active, Active}]),
            Closer = run(fun() -> megaphone:close(Handle) end),
            ?assertReceive({Closer, ok}),
            ?assertReceive({tcp_closed, Socket}),
            ?assertEqual(ok, megaphone:close(Handle)),
            ?assertSilence()
        end,
        [once, true, 3]
    ).

closed_is_told_to_an_owner_that_becomes_active(_Config) ->
    %% An owner that was passive when the socket was closed is told when it becomes active, as with a TCP socket:
    %% servers that use {active, once} learn of the end in no other way.
    {Peer, Tcp} = tcp_pair([]),
    ok = gen_tcp:close(Peer),
    ok = inet:setopts(Tcp, [{active, once}]),
    ?assertReceive({tcp_closed, Tcp}),
    Virtual = {_, _, Handle} = megaphone:socket(open()),
    Closer = run(fun() -> megaphone:close(Handle) end),
    ?assertReceive({Closer, ok}),
    ?assertEqual(ok, inet:setopts(Virtual, [{active, once}])),
    ?assertReceive({tcp_closed, Virtual}),
    ?assertSilence().

%% ---- reading ---------------------------------------------------------------------------------------------------

packet_modes_as_a_tcp_socket_has_them(_Config) ->
    %% In the packet modes http, http_bin, httph and httph_bin heads are read as from a TCP socket, in both forms of
    %% strings; a wrong line does not change what is expected next.
    Input = [
        "GET /a HTTP/1.1\r\nHost: a\r\nX-Long: 1\r\n  2\r\n\r\n", "HTTP/1.1 200 All right\r\nServer: x\r\n\r\n",
        "\r\n", "no request line\r\n", "POST * HTTP/1.0\r\n", "no field\r\nAge: 1\r\n\r\n",
        "PATCH http://h:1/p HTTP/1.1\n\n"
    ],
    lists:foreach(
        fun(Packet) ->
            {Peer, Tcp} = tcp_pair([{packet, Packet}]),
            Virtual = {_, _, Handle} = megaphone:socket(open(Packet)),
            ok = gen_tcp:send(Peer, Input),
            ok = megaphone:put_data(Handle, iolist_to_binary(Input)),
            ok = gen_tcp:shutdown(Peer, write),
            ok = megaphone:close(Handle),
            ?assertEqual({Packet, read_all(Tcp)}, {Packet, read_all(Virtual)}),
            [ok = gen_tcp:close(Socket) || Socket <- [Peer, Tcp]]
        end,
        [http, http_bin, httph, httph_bin]
    ).

read_all(Socket) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, Data} -> [Data | read_all(Socket)];
        {error, Reason} -> [Reason]
    end.

packet_mode_changes(_Config) ->
    %% A change of the packet mode holds from the next read on, also for bytes that are queued already.
    Handle = open(),
    Socket = megaphone:socket(Handle),
    ok = megaphone:put_data(Handle, <<"GET / HTTP/1.1\r\nHost: a\r\n\r\nraw">>),
    Read = fun(Packet) ->
        ok = inet:setopts(Socket, [{packet, Packet}]),
        ?assertEqual({ok, [{packet, Packet}]}, inet:getopts(Socket, [packet])),
        {ok, Data} = gen_tcp:recv(Socket, 0, 0),
        Data
    end,
    ?assertEqual({http_request, 'GET', {abs_path, <<"/">>}, {1, 1}}, Read(http_bin)),
    ?assertEqual({http_header, 14, 'Host', "Host", "a"}, Read(httph)),
    ?assertEqual(http_eoh, Read(httph_bin)),
    ?assertEqual(<<"raw">>, Read(raw)),
    ok = inet:setopts(Socket, [{packet, 0}]),
    ?assertEqual({ok, [{packet, raw}]}, inet:getopts(Socket, [packet])),
    ok = megaphone:close(Handle).

lengths_of_reads(_Config) ->
    %% A length in a packet mode, or beyond the largest, is refused as by a TCP socket; others give exactly so much.
    {Peer, Tcp} = tcp_pair([{packet, http_bin}]),
    Handle = open(http_bin),
    Virtual = megaphone:socket(Handle),
    ok = gen_tcp:send(Peer, request(1)),
    ok = megaphone:put_data(Handle, request(1)),
    Most = 67108864,
    ?assertEqual(gen_tcp:recv(Tcp, 3, 0), gen_tcp:recv(Virtual, 3, 0)),
    [ok = inet:setopts(Socket, [{packet, raw}]) || Socket <- [Tcp, Virtual]],
    ?assertEqual(gen_tcp:recv(Tcp, Most + 1, 0), gen_tcp:recv(Virtual, Most + 1, 0)),
    ?assertEqual(gen_tcp:recv(Tcp, Most, 0), gen_tcp:recv(Virtual, Most, 0)),
    ?assertEqual(gen_tcp:recv(Tcp, 3), gen_tcp:recv(Virtual, 3)),
    ?assertEqual(gen_tcp:recv(Tcp, 1), gen_tcp:recv(Virtual, 1)),
    ?assertEqual(gen_tcp:recv(Tcp, 0), gen_tcp:recv(Virtual, 0)),
    [ok = gen_tcp:close(Socket) || Socket <- [Peer, Tcp, Virtual]].

long_read_that_times_out_loses_nothing(_Config) ->
    %% Bytes that had come when a read of many timed out are what the next read gets.
    Handle = open(),
    Socket = megaphone:socket(Handle),
    Data = bytes(300000),
    ok = megaphone:put_data(Handle, Data),
    ?assertEqual({error, timeout}, gen_tcp:recv(Socket, 300001, 0)),
    {ok, First} = gen_tcp:recv(Socket, 100000, 0),
    ?assertEqual({error, timeout}, gen_tcp:recv(Socket, 200001, 10)),
    ok = megaphone:put_data(Handle, <<"x">>),
    {ok, Second} = gen_tcp:recv(Socket, 200001, ?DEADLINE),
    ?assert(<<First/binary, Second/binary>> =:= <<Data/binary, "x">>),
    ok = megaphone:put_data(Handle, Data),
    ?assertEqual({error, timeout}, gen_tcp:recv(Socket, 300001, 0)),
    ok = inet:setopts(Socket, [{active, true}]),
    ?assert(iolist_to_binary([Bytes || {tcp, Bytes} <- virtual_messages(Socket)]) =:= Data),
    ok = megaphone:close(Handle).

bytes(Size) ->
    element(1, rand:bytes_s(Size, rand:seed_s(exsss, Size))).

%% ---- options ---------------------------------------------------------------------------------------------------

options_that_exist(_Config) ->
    %% Options of gen_tcp that mean nothing here are accepted, those that mean something can be read back.
    Handle = open(),
    Socket = megaphone:socket(Handle),
    Ignored = [
        binary, {mode, binary}, {nodelay, true}, {keepalive, true}, {buffer, 1000}, {linger, {true, 0}},
        {reuseaddr, true}, {high_watermark, 1}, {send_timeout_close, true}, {raw, 6, 8, <<30:32/native>>}
    ],
    ?assertEqual(ok, inet:setopts(Socket, Ignored)),
    ?assertEqual({ok, [{send_timeout, 15000}]}, inet:getopts(Socket, [send_timeout])),
    ?assertEqual(ok, inet:setopts(Socket, [{send_timeout, 70}, {packet, http}, {active, 3}])),
    ?assertEqual(
        {ok, [{active, 3}, {packet, http}, {send_timeout, 70}, {mode, binary}]},
        inet:getopts(Socket, [active, packet, send_timeout, mode, nodelay])
    ),
    ?assertMatch(#{type := stream}, inet:info(Socket)),
    ok = megaphone:close(Handle),
    ?assertEqual({error, closed}, inet:setopts(Socket, [{active, true}])),
    ?assertEqual({error, closed}, inet:getopts(Socket, [active])).

options_that_do_not_exist(_Config) ->
    %% A wrong option or value is refused, and none of the others in the list is set.
    Handle = open(),
    Socket = megaphone:socket(Handle),
    Wrong = [{packet, 4}, {packet, line}, {active, often}, list, {mode, list}, {colour, red}, red, {send_timeout, -1}, {header, 2}],
    [?assertEqual({error, einval}, inet:setopts(Socket, [{active, true}, {packet, http}, Option])) || Option <- Wrong],
    ?assertEqual({ok, [{active, false}, {packet, raw}]}, inet:getopts(Socket, [active, packet])),
    ok = megaphone:close(Handle).

owner_hands_over(_Config) ->
    %% controlling_process/2 moves unread messages along in their order; only the owner may do it.
    Self = self(),
    Handle = open(),
    Socket = megaphone:socket(Handle),
    ok = inet:setopts(Socket, [{active, true}]),
    [ok = megaphone:put_data(Handle, <<Byte>>) || Byte <- "abc"],
    New = run(fun() ->
        ?assertReceive(go),
        Result = [Data || {tcp, Data} <- virtual_messages(Socket)],
        ?assertReceive(close),
        Result
    end),
    Stranger = run(fun() -> gen_tcp:controlling_process(Socket, New) end),
    ?assertReceive({Stranger, {error, not_owner}}),
    ?assertEqual(ok, gen_tcp:controlling_process(Socket, Self)),
    ?assertEqual(ok, gen_tcp:controlling_process(Socket, New)),
    ?assertEqual({error, not_owner}, gen_tcp:controlling_process(Socket, Self)),
    ok = megaphone:put_data(Handle, <<"d">>),
    [New ! Message || Message <- [go, close]],
    ?assertReceive({New, [<<"a">>, <<"b">>, <<"c">>, <<"d">>]}),
    ok = wait_until(fun() -> megaphone:put_data(Handle, <<"e">>) =:= {error, closed} end),
    ?assertSilence().

%% ---- others ----------------------------------------------------------------------------------------------------

what_no_virtual_socket_has(_Config) ->
    %% What a virtual socket cannot do it says, and does not crash.
    Socket = megaphone:socket(open()),
    ?assertEqual({error, einval}, gen_tcp:accept(Socket, 0)),
    ?assertEqual({error, enotsup}, gen_tcp:unrecv(Socket, <<"x">>)),
    ?assertEqual({error, einval}, gen_tcp:send(Socket, [not_iodata])),
    ?assertError(_, inet:monitor(Socket)),
    ?assertEqual(ok, gen_tcp:close(Socket)),
    ?assertEqual(ok, gen_tcp:close(Socket)),
    ?assertMatch(#{states := [closed]}, inet:info(Socket)),
    ?assertEqual({error, closed}, inet:peername(Socket)).
