%% Sending on a virtual connection: bounded, in order, whole, and nobody waits for ever.
-module(sender_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, held/2, run/1, reader/2, take_output/1, wait_until/1]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        output_queue_is_bounded,
        long_send_arrives_whole,
        senders_do_not_mix,
        long_senders_do_not_mix,
        send_that_times_out_closes,
        half_closes,
        shutdown_for_reading_keeps_senders,
        files
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- sending ---------------------------------------------------------------------------------------------------

output_queue_is_bounded(_Config) ->
    %% Output fills its queue to the last byte; a byte more waits until half of the queue was taken.
    #{output_queue := Limit} = megaphone_nif:limits(),
    Handle = open(),
    ok = megaphone:send(Handle, bytes(Limit - 1), 0),
    ok = megaphone:send(Handle, <<"x">>, 0),
    Sender = run(fun() -> megaphone:send(Handle, <<"y">>, infinity) end),
    ok = wait_until(fun() -> held(senders, Handle) =:= 1 end),
    ?assertEqual(Limit, held(output_bytes, Handle)),
    {ok, First} = megaphone:output(Handle),
    ?assertReceive({Sender, ok}),
    ?assertEqual({ok, <<"y">>}, megaphone:output(Handle)),
    ?assertEqual(Limit, byte_size(First)),
    ?assertEqual({wait, Limit, 0}, setelement(3, megaphone_nif:send(Handle, bytes(Limit + 1)), 0)),
    take_output(Handle),
    ?assertReceive({megaphone, _, ok}),
    ok = megaphone:close(Handle).

long_send_arrives_whole(_Config) ->
    %% A send of many times the queue goes on as its output is taken, and loses nothing.
    Data = bytes(5000000),
    Handle = open(),
    Sender = run(fun() -> gen_tcp:send(megaphone:socket(Handle), Data) end),
    Output = take_until(Handle, byte_size(Data)),
    ?assertReceive({Sender, ok}),
    ?assert(Output =:= Data),
    ok = megaphone:close(Handle).

%% Takes so many bytes, waiting for them as the opener of a connection does.
take_until(Handle, Size) ->
    iolist_to_binary(take_pieces(Handle, Size)).

take_pieces(_Handle, 0) ->
    [];
take_pieces(Handle, Size) ->
    case megaphone:output(Handle) of
        {ok, Data} ->
            [Data | take_pieces(Handle, Size - byte_size(Data))];
        empty ->
            ?assertReceive({megaphone_output, Handle}),
            take_pieces(Handle, Size)
    end.

senders_do_not_mix(_Config) ->
    %% Several processes that send at once are all served, and what one send has sent stays together.
    [check_senders(8, 50000) || _ <- lists:seq(1, 20)].

long_senders_do_not_mix(_Config) ->
    %% The same for sends that are longer than the queue.
    [check_senders(4, 150000) || _ <- lists:seq(1, 10)].

check_senders(Count, Size) ->
    Handle = open(),
    Senders = [
        run(fun() -> megaphone:send(Handle, binary:copy(<<Byte>>, Size), infinity) end)
     || Byte <- lists:seq($a, $a + Count - 1)
    ],
    %% All that can be sent is, and at least all but two wait.
    ok = wait_until(fun() -> held(senders, Handle) >= Count - 2 end),
    Output = take_until(Handle, Count * Size),
    [?assertReceive({Sender, ok}) || Sender <- Senders],
    Runs = runs(binary_to_list(Output)),
    ?assertEqual(lists:sort([{Byte, Size} || Byte <- lists:seq($a, $a + Count - 1)]), lists:sort(Runs)),
    ok = megaphone:close(Handle).

%% The runs of equal bytes, with their lengths.
runs([]) ->
    [];
runs([Byte | _] = Bytes) ->
    {Same, Rest} = lists:splitwith(fun(Other) -> Other =:= Byte end, Bytes),
    [{Byte, length(Same)} | runs(Rest)].

send_that_times_out_closes(_Config) ->
    %% A send without room gives up after its timeout and closes the connection, because a part of it is out.
    #{output_queue := Limit} = megaphone_nif:limits(),
    lists:foreach(
        fun(Send) ->
            Handle = open(),
            ?assertEqual({error, timeout}, Send(megaphone:socket(Handle), bytes(Limit + 1))),
            ?assertEqual({error, closed}, megaphone:put_data(Handle, <<"x">>)),
            ?assertEqual({ok, bytes_head(Limit)}, megaphone:output(Handle)),
            ?assertEqual({error, closed}, megaphone:output(Handle))
        end,
        [
            fun({_, _, Handle}, Data) -> megaphone:send(Handle, Data, 20) end,
            fun(Socket, Data) ->
                ok = inet:setopts(Socket, [{send_timeout, 20}]),
                gen_tcp:send(Socket, Data)
            end
        ]
    ).

bytes_head(Limit) ->
    binary:part(bytes(Limit + 1), 0, Limit).

%% ---- closing one direction -------------------------------------------------------------------------------------

half_closes(_Config) ->
    %% After shutdown for writing nothing can be sent and all can be read; after shutdown for reading the other way.
    [Reads, Writes] = [open(), open()],
    ok = megaphone:send(Reads, <<"before">>),
    ok = gen_tcp:shutdown(megaphone:socket(Reads), write),
    ?assertEqual({error, closed}, megaphone:send(Reads, <<"after">>)),
    ?assertEqual({ok, <<"before">>}, megaphone:output(Reads)),
    ok = megaphone:put_data(Reads, <<"input">>),
    ?assertEqual({ok, <<"input">>}, megaphone:recv(Reads)),
    Reader = reader(Writes, 0),
    ok = gen_tcp:shutdown(megaphone:socket(Writes), read),
    ?assertReceive({Reader, {error, closed}}),
    ?assertEqual({error, closed}, megaphone:put_data(Writes, <<"input">>)),
    ?assertEqual({error, closed}, megaphone:recv(Writes)),
    ok = megaphone:send(Writes, <<"output">>),
    ?assertEqual({ok, <<"output">>}, megaphone:output(Writes)),
    [ok = megaphone:close(Handle) || Handle <- [Reads, Writes]].

shutdown_for_reading_keeps_senders(_Config) ->
    %% A sender that waits for room is not concerned by the end of the other direction.
    Handle = open(),
    Data = bytes(100000),
    Sender = run(fun() -> megaphone:send(Handle, Data, infinity) end),
    ok = wait_until(fun() -> held(senders, Handle) =:= 1 end),
    ok = gen_tcp:shutdown(megaphone:socket(Handle), read),
    ?assert(take_until(Handle, byte_size(Data)) =:= Data),
    ?assertReceive({Sender, ok}),
    ok = megaphone:close(Handle).

%% ---- files -----------------------------------------------------------------------------------------------------

files(Config) ->
    %% file:sendfile/2 and /5 send a file over a virtual socket, whole or in part.
    Name = filename:join(proplists:get_value(priv_dir, Config), "file"),
    Data = bytes(200000),
    ok = file:write_file(Name, Data),
    Handle = open(),
    Socket = megaphone:socket(Handle),
    Sender = run(fun() -> file:sendfile(Name, Socket) end),
    ?assert(take_until(Handle, byte_size(Data)) =:= Data),
    ?assertReceive({Sender, {ok, 200000}}),
    {ok, File} = file:open(Name, [read, raw, binary]),
    ?assertEqual({ok, 5000}, file:sendfile(File, Socket, 1000, 5000, [])),
    ok = file:close(File),
    ?assert(take_until(Handle, 5000) =:= binary:part(Data, 1000, 5000)),
    ok = megaphone:close(Handle).

bytes(Size) ->
    element(1, rand:bytes_s(Size, rand:seed_s(exsss, Size))).
