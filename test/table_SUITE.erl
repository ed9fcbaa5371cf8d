%% The connection table through the real NIF: handles, order, and what closes. Among the cases are the defects of the
%% original Megaphone; those that concern readers are in reader_SUITE.
-module(table_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, open/1, held/2, run/1, reader/2, drain/1, take_output/1, wait_until/1]).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [
        unknown_handles_are_closed_at_once,
        malformed_handles_are_refused,
        handles_are_never_used_again,
        options_of_open,
        addresses,
        request_then_headers_then_body,
        long_body_comes_in_pieces,
        new_connection_harms_nobody,
        close_wakes_everybody,
        data_before_close_is_read,
        output_before_close_is_taken,
        death_of_the_owner_closes,
        death_of_a_waiter_frees_its_place,
        owner_can_change,
        output_is_told_once,
        put_of_nothing,
        numbers_for_operators,
        memory_is_given_back,
        packets_taken_apart
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- handles ---------------------------------------------------------------------------------------------------

unknown_handles_are_closed_at_once(_Config) ->
    %% An unknown, stale or forged handle is answered at once by every operation, and reaches no other connection.
    {Link, Id, Slot, Generation} = Live = open(),
    Stale = open(),
    ok = megaphone:close(Stale),
    Most = 16#ffffffffffffffff,
    Forged = [
        {Link + 1, Id, Slot, Generation},
        {Link, Id + 1, Slot, Generation},
        {Link, Id, Slot + 1, Generation},
        {Link, Id, Slot + 64, Generation},
        {Link, Id, Slot, Generation + 1},
        {0, 0, 0, 0},
        {16#ffffffff, Most, 16#ffffffff, Most}
    ],
    lists:foreach(fun everything_is_closed/1, [Stale | Forged]),
    {ok, Info} = megaphone:info(Live),
    ?assertMatch(#{readers := 0, input_bytes := 0, output_bytes := 0, active := false, packet := raw}, Info),
    ok = megaphone:close(Live).

everything_is_closed(Handle) ->
    Closed = {error, closed},
    Self = self(),
    Answers = [
        megaphone:put_data(Handle, <<"x">>),
        megaphone:receive_packet(Handle, <<"x">>),
        megaphone:recv(Handle),
        megaphone_nif:recv(Handle, 0),
        megaphone_nif:recv(Handle, 5),
        megaphone:send(Handle, <<"x">>),
        megaphone:send(Handle, <<"x">>, 1000),
        megaphone:output(Handle),
        megaphone:peername(Handle),
        megaphone:sockname(Handle),
        megaphone:info(Handle),
        megaphone_nif:set_owner(Handle, Self),
        megaphone_nif:set_consumer(Handle, Self),
        megaphone_nif:set_active(Handle, once),
        megaphone_nif:set_packet(Handle, http),
        megaphone_nif:shutdown(Handle, read_write)
    ],
    ?assertEqual([Closed || _ <- Answers], Answers),
    ?assertEqual(gone, megaphone_nif:cancel(Handle, 1)),
    ?assertEqual(ok, megaphone:close(Handle)),
    ok = megaphone:get_data(Handle),
    ?assertReceive(Closed).

malformed_handles_are_refused(_Config) ->
    %% What is no handle at all is a mistake of the caller, and raises badarg.
    Live = open(),
    Wrong = [x, 1, {}, {1, 2, 3}, {0, 1, 2, x}, {-1, 0, 0, 0}, {0, 16#10000000000000000, 0, 0}, erlang:append_element(Live, 0)],
    [?assertError(badarg, megaphone_nif:put_data(Handle, <<>>)) || Handle <- Wrong],
    [?assertError(badarg, megaphone_nif:recv(Handle, 0)) || Handle <- Wrong],
    [?assertError(badarg, megaphone_nif:close(Handle)) || Handle <- Wrong],
    ok = megaphone:close(Live).

handles_are_never_used_again(_Config) ->
    %% However often a place in the table is used, each connection has a handle of its own, and the old ones are stale.
    Handles = [
        begin
            Handle = open(),
            ok = megaphone:close(Handle),
            Handle
        end
     || _ <- lists:seq(1, 2000)
    ],
    Last = open(),
    ?assertEqual(2001, length(lists:usort([Last | Handles]))),
    ?assert(lists:all(fun(Handle) -> megaphone:put_data(Handle, <<"x">>) =:= {error, closed} end, Handles)),
    ?assertEqual(0, held(input_bytes, Last)),
    ok = megaphone:close(Last).

%% ---- opening ---------------------------------------------------------------------------------------------------

options_of_open(_Config) ->
    %% A wrong option of open/1 is refused by its name, and opens nothing.
    Refused = [
        {colour, #{colour => red}},
        {peer, #{peer => nowhere}},
        {peer, #{peer => {{127, 0, 0, 256}, 1}}},
        {peer, #{peer => {{127, 0, 0, 1}, 65536}}},
        {packet, #{packet => line}}
    ],
    [?assertEqual({error, {bad_option, Name}}, megaphone:open(Options)) || {Name, Options} <- Refused],
    ?assertEqual(0, maps:get(connections, megaphone_test:stats())).

addresses(_Config) ->
    %% A connection knows the address it was opened with; without one it is of 127.0.0.1.
    Addresses = [{{192, 0, 2, 7}, 51000}, {{8193, 3512, 0, 0, 0, 0, 0, 10}, 65535}, {{0, 0, 0, 0, 0, 65535, 258, 772}, 1}],
    lists:foreach(
        fun(Address) ->
            {ok, ByMap} = megaphone:open(#{peer => Address}),
            {ok, ByAddress} = megaphone:open(Address),
            ?assertEqual({ok, Address}, megaphone:peername(ByMap)),
            ?assertEqual({ok, Address}, inet:peername(megaphone:socket(ByAddress))),
            [ok = megaphone:close(Handle) || Handle <- [ByMap, ByAddress]]
        end,
        Addresses
    ),
    {ok, Default} = megaphone:open(),
    ?assertEqual({ok, {{127, 0, 0, 1}, 0}}, megaphone:peername(Default)),
    ?assertMatch({ok, {_, _}}, megaphone:sockname(Default)),
    ok = megaphone:close(Default).

%% ---- order -----------------------------------------------------------------------------------------------------

request_then_headers_then_body(_Config) ->
    %% Results come in the order request line, each header, end of headers, body; then the same for the next request.
    {ok, Handle} = megaphone:open(),
    Request = <<"POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello">>,
    ok = megaphone:put_data(Handle, <<Request/binary, Request/binary>>),
    ok = megaphone:close(Handle),
    Results = [
        {http_request, 'POST', {abs_path, <<"/bosh">>}, {1, 1}},
        {http_header, 14, 'Host', <<"host">>, <<"a">>},
        {http_header, 38, 'Content-Length', <<"content-length">>, <<"5">>},
        {http_header, 0, <<"X-One">>, <<"x-one">>, <<"1">>},
        http_eoh,
        <<"hello">>
    ],
    Same = fun
        ({http_header, N, Field, _Original, Value}) -> {http_header, N, Field, Value};
        (Other) -> Other
    end,
    ?assertEqual(lists:map(Same, Results ++ Results), lists:map(Same, drain(Handle))).

long_body_comes_in_pieces(_Config) ->
    %% A body that is longer than the queue comes in pieces, all of it and in order, and the next request after it.
    {ok, Handle} = megaphone:open(),
    Size = 3 * maps:get(local_queue, megaphone_nif:limits()) + 17,
    Body = bytes(Size),
    Head = ["PUT / HTTP/1.1\r\nContent-Length: ", integer_to_list(Size), "\r\n\r\n"],
    Reader = run(fun() -> drain(Handle) end),
    put_all(Handle, iolist_to_binary([Head, Body, "GET /next HTTP/1.1\r\n\r\n"])),
    ok = megaphone:close(Handle),
    {Reader, Results} = ?assertReceive({Reader, _}),
    {[{http_request, 'PUT', _, _}, {http_header, _, 'Content-Length', _, _}, http_eoh], Rest} = lists:split(3, Results),
    {Pieces, Next} = lists:splitwith(fun is_binary/1, Rest),
    ?assert(iolist_to_binary(Pieces) =:= Body),
    ?assertMatch([{http_request, 'GET', {abs_path, <<"/next">>}, {1, 1}}, http_eoh], Next).

%% Puts in pieces of which each fits, and waits for room where there is none.
put_all(_Handle, <<>>) ->
    ok;
put_all(Handle, Data) ->
    {Piece, Rest} = split_binary(Data, min(200000, byte_size(Data))),
    ok = wait_until(fun() -> megaphone:put_data(Handle, Piece) =:= ok end),
    put_all(Handle, Rest).

bytes(Size) ->
    {Bytes, _} = rand:bytes_s(Size, rand:seed_s(exsss, Size)),
    Bytes.

new_connection_harms_nobody(_Config) ->
    %% A put to a new connection, which once killed the one process for everybody, leaves every other as it was.
    Old = [open() || _ <- lists:seq(1, 10)],
    [ok = megaphone:put_data(Handle, <<"old">>) || Handle <- Old],
    Server = whereis(megaphone),
    New = open(),
    megaphone ! {put_data, New, <<"new">>},
    ok = wait_until(fun() -> held(input_bytes, New) =:= 3 end),
    ?assertEqual({ok, <<"new">>}, megaphone:recv(New)),
    ?assertEqual([{ok, <<"old">>} || _ <- Old], [megaphone:recv(Handle) || Handle <- Old]),
    ?assertEqual(Server, whereis(megaphone)),
    [ok = megaphone:close(Handle) || Handle <- [New | Old]].

%% ---- closing ---------------------------------------------------------------------------------------------------

close_wakes_everybody(_Config) ->
    %% A close wakes every process that waits: readers of both kinds and senders without room.
    Handle = open(),
    Readers = [reader(Handle, 0) || _ <- lists:seq(1, 5)],
    Askers = [run(fun() -> ask(Handle) end) || _ <- lists:seq(1, 5)],
    ok = wait_until(fun() -> held(readers, Handle) =:= 10 end),
    Senders = [run(fun() -> megaphone:send(Handle, <<0:100000/unit:8>>, infinity) end) || _ <- lists:seq(1, 3)],
    ok = wait_until(fun() -> held(senders, Handle) =:= 3 end),
    run(fun() -> megaphone:close(Handle) end),
    [?assertReceive({Pid, {error, closed}}) || Pid <- Readers ++ Askers ++ Senders],
    take_output(Handle).

ask(Handle) ->
    ok = megaphone:get_data(Handle),
    receive
        Answer -> Answer
    end.

data_before_close_is_read(_Config) ->
    %% What was put before a close is still read, in all modes; then there is {error, closed}, for puts at once.
    Raw = open(),
    ok = megaphone:put_data(Raw, <<"abc">>),
    ok = megaphone:close(Raw),
    ?assertEqual({error, closed}, megaphone:put_data(Raw, <<"d">>)),
    ?assertEqual({error, closed}, megaphone:send(Raw, <<"d">>)),
    ?assertEqual({ok, <<"a">>}, gen_tcp:recv(megaphone:socket(Raw), 1)),
    ?assertEqual({error, closed}, gen_tcp:recv(megaphone:socket(Raw), 3)),
    ?assertEqual({ok, <<"bc">>}, megaphone:recv(Raw)),
    ?assertEqual({error, closed}, megaphone:recv(Raw)),
    Http = open(http_bin),
    ok = megaphone:put_data(Http, <<"GET /a HTTP/1.1\r\n\r\nGET /b HT">>),
    ok = megaphone:close(Http),
    ?assertMatch([{http_request, 'GET', {abs_path, <<"/a">>}, {1, 1}}, http_eoh], drain(Http)),
    %% Half a line is no result. It goes with the owner, which is this process.
    {ok, Next} = megaphone:open(),
    ok = megaphone_nif:set_packet(Http, raw),
    ?assertEqual({ok, <<"GET /b HT">>}, megaphone:recv(Http)),
    ok = megaphone:close(Next).

output_before_close_is_taken(_Config) ->
    %% What was sent before a close can still be taken; then the opener is told that the connection is closed.
    Handle = open(),
    ok = megaphone:send(Handle, [<<"an">>, "swer"]),
    ok = megaphone:close(Handle),
    ?assertEqual({ok, <<"answer">>}, megaphone:output(Handle)),
    ?assertEqual({error, closed}, megaphone:output(Handle)),
    ?assertReceive({megaphone_output, Handle}).

death_of_the_owner_closes(_Config) ->
    %% A connection closes when its owner dies, with all that is queued, and who waits on it is told.
    Self = self(),
    Owner = spawn(fun() ->
        Self ! {opened, [open(), open()]},
        receive after infinity -> ok end
    end),
    {opened, [Waited, Queued]} = ?assertReceive({opened, _}),
    Reader = reader(Waited, 0),
    ok = megaphone:put_data(Queued, <<"data">>),
    ok = megaphone:send(Queued, <<"data">>),
    kill(Owner),
    ?assertReceive({Reader, {error, closed}}),
    [?assertEqual({error, closed}, megaphone:recv(Handle)) || Handle <- [Waited, Queued]],
    ?assertEqual(0, maps:get(connections, megaphone_test:stats())).

death_of_a_waiter_frees_its_place(_Config) ->
    %% The wait of a process that dies is forgotten, of readers and of senders, and the connection goes on.
    Handle = open(),
    Readers = [reader(Handle, 0) || _ <- lists:seq(1, 20)],
    Sender = spawn(fun() -> megaphone:send(Handle, <<0:100000/unit:8>>, infinity) end),
    ok = wait_until(fun() -> held(senders, Handle) =:= 1 end),
    [kill(Pid) || Pid <- [Sender | Readers]],
    ok = wait_until(fun() -> {held(readers, Handle), held(senders, Handle)} =:= {0, 0} end),
    ?assertEqual(0, maps:get(waiters, megaphone_test:stats())),
    ok = megaphone:put_data(Handle, <<"data">>),
    ?assertEqual({ok, <<"data">>}, megaphone:recv(Handle)),
    take_output(Handle),
    ok = megaphone:close(Handle).

owner_can_change(_Config) ->
    %% After a change the death of the old owner closes nothing, the death of the new one does; a dead one at once.
    Idle = fun() -> spawn(fun() -> receive after infinity -> ok end end) end,
    [Old, New] = [Idle(), Idle()],
    Handle = open(),
    ok = megaphone_nif:set_owner(Handle, Old),
    ok = megaphone_nif:set_owner(Handle, New),
    kill(Old),
    ?assertEqual(New, held(owner, Handle)),
    ok = megaphone:put_data(Handle, <<"data">>),
    kill(New),
    ?assertEqual({error, closed}, megaphone:recv(Handle)),
    Other = open(),
    _ = megaphone_nif:set_owner(Other, New),
    ?assertEqual({error, closed}, megaphone:recv(Other)).

output_is_told_once(_Config) ->
    %% The opener is told of output once at first and once after each time that there was none.
    Handle = open(),
    [ok = megaphone:send(Handle, <<"a">>) || _ <- lists:seq(1, 3)],
    ?assertReceive({megaphone_output, Handle}),
    ?assertEqual({ok, <<"aaa">>}, megaphone:output(Handle)),
    ok = megaphone:send(Handle, <<"b">>),
    ?assertEqual({ok, <<"b">>}, megaphone:output(Handle)),
    ?assertEqual(empty, megaphone:output(Handle)),
    ?assertSilence(),
    [ok = megaphone:send(Handle, <<"c">>) || _ <- lists:seq(1, 3)],
    ?assertReceive({megaphone_output, Handle}),
    ?assertSilence(),
    ?assertEqual({ok, <<"ccc">>}, megaphone:output(Handle)),
    ok = megaphone:close(Handle).

put_of_nothing(_Config) ->
    %% An empty put is accepted and wakes nobody, an empty send makes no output.
    Handle = open(),
    Reader = reader(Handle, 0),
    ok = megaphone:put_data(Handle, <<>>),
    ok = megaphone:send(Handle, <<>>),
    ?assertEqual(1, held(readers, Handle)),
    ?assertEqual(empty, megaphone:output(Handle)),
    ?assertSilence(),
    ok = megaphone:close(Handle),
    ?assertReceive({Reader, {error, closed}}).

%% ---- what is going on ------------------------------------------------------------------------------------------

numbers_for_operators(_Config) ->
    %% The counters are right, and hold nothing of what users wrote.
    Handle = open(),
    Secret = <<"secret of a user">>,
    ok = megaphone:put_data(Handle, Secret),
    ok = megaphone:send(Handle, <<"answer">>),
    #{stats := Stats, limits := Limits, links := 0} = Info = megaphone:info(),
    ?assertMatch(#{connections := 1, local := 1, input_bytes := 16, output_bytes := 6, waiters := 0}, Stats),
    ?assert(maps:get(memory, Stats) > 88 + 16 + 6),
    ?assert(lists:all(fun is_integer/1, maps:values(Limits))),
    {ok, About} = megaphone:info(Handle),
    ?assertMatch(#{input_bytes := 16, output_bytes := 6, readers := 0, senders := 0, tls := false}, About),
    Shown = iolist_to_binary(io_lib:format("~p ~p ~p", [Info, About, sys:get_status(megaphone)])),
    ?assertEqual(nomatch, binary:match(Shown, Secret)),
    {ok, Secret} = megaphone:recv(Handle),
    take_output(Handle),
    ok = megaphone:close(Handle).

memory_is_given_back(_Config) ->
    %% The memory of the table follows its connections: at most 128 bytes for each that is idle, and a small rest that is
    %% kept when all have closed, whatever was queued on them.
    Memory = fun() -> maps:get(memory, megaphone_test:stats()) end,
    Before = Memory(),
    Handles = [open() || _ <- lists:seq(1, 20000)],
    ?assert((Memory() - Before) / 20000 =< 128),
    [ok = megaphone:put_data(Handle, <<0:1000/unit:8>>) || Handle <- Handles],
    ?assert((Memory() - Before) / 20000 >= 1000),
    [ok = megaphone:close(Handle) || Handle <- Handles],
    [{ok, _} = megaphone:recv(Handle) || Handle <- Handles],
    [{error, closed} = megaphone:recv(Handle) || Handle <- Handles],
    ?assert(Memory() =< 500000).

packets_taken_apart(_Config) ->
    %% parse_packet/1 gives whole packets as their parts, and says what is wrong with others.
    Good = <<"POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nhiGET /b HTTP/1.0\n\n">>,
    {ok, Parts} = megaphone:parse_packet(Good),
    ?assertMatch(
        [
            {http_request, 'POST', {abs_path, <<"/a">>}, {1, 1}},
            {http_header, 38, 'Content-Length', _, <<"2">>},
            http_eoh,
            <<"hi">>,
            {http_request, 'GET', {abs_path, <<"/b">>}, {1, 0}},
            http_eoh
        ],
        Parts
    ),
    Wrong = [
        {incomplete, <<>>},
        {incomplete, <<"GET / HTTP/1.1\r\nHost: a\r\n">>},
        {incomplete, <<"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab">>},
        {bad_request, <<"nonsense\r\n\r\n">>},
        {bad_header, <<"GET / HTTP/1.1\r\nno field\r\n\r\n">>},
        {bad_content_length, <<"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na">>},
        {bad_content_length, <<"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab">>},
        {{unsupported, transfer_encoding}, <<"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n">>}
    ],
    [?assertEqual({error, Reason}, megaphone:parse_packet(Packet)) || {Reason, Packet} <- Wrong].

kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    ?assertReceive({'DOWN', Monitor, process, Pid, _}).
