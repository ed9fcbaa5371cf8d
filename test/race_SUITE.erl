%% Many processes at once on the same connections: nothing is lost, doubled, mixed up or left behind.
-module(race_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, run/1, drain/1, take_output/1, wait_until/1]).

-define(PUTTERS, 4).
-define(READERS, 6).
-define(RECORDS, 2000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        putters_and_readers,
        readers_that_die,
        readers_that_ask_by_message,
        puts_against_a_close,
        deaths_of_owners,
        changes_of_active_mode,
        senders_against_a_taker,
        everything_at_once
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- records: who put it, and its number ---------------------------------------------------------------------------

put_records(Handle, Putter) ->
    [ok = put_patiently(Handle, <<Putter:16, Number:48>>) || Number <- lists:seq(1, ?RECORDS)],
    done.

put_patiently(Handle, Data) ->
    case megaphone:put_data(Handle, Data) of
        {error, {limit, queue_bytes}} ->
            erlang:yield(),
            put_patiently(Handle, Data);
        Answer ->
            Answer
    end.

all_records() ->
    [<<Putter:16, Number:48>> || Putter <- lists:seq(1, ?PUTTERS), Number <- lists:seq(1, ?RECORDS)].

%% Of each putter the numbers go up.
assert_order(Records) ->
    lists:foreach(
        fun(Putter) ->
            Numbers = [Number || <<From:16, Number:48>> <- Records, From =:= Putter],
            ?assertEqual(lists:usort(Numbers), Numbers)
        end,
        lists:seq(1, ?PUTTERS)
    ).

%% ---- cases -----------------------------------------------------------------------------------------------------

putters_and_readers(_Config) ->
    %% Several putters and several readers, which time out and cancel all the time: each record is read once.
    Handle = open(),
    Readers = [run(fun() -> read_records(Handle, rand:seed_s(exsss, N)) end) || N <- lists:seq(1, ?READERS)],
    Putters = [run(fun() -> put_records(Handle, Putter) end) || Putter <- lists:seq(1, ?PUTTERS)],
    [?assertReceive({Putter, done}) || Putter <- Putters],
    ok = megaphone:close(Handle),
    Read = [element(2, ?assertReceive({Reader, _})) || Reader <- Readers],
    lists:foreach(fun assert_order/1, Read),
    ?assert(lists:sort(lists:append(Read)) =:= all_records()).

read_records(Handle, Rand0) ->
    {Kind, Rand} = rand:uniform_s(4, Rand0),
    case read_one(Kind, Handle) of
        {ok, Record} -> [Record | read_records(Handle, Rand)];
        {error, timeout} -> read_records(Handle, Rand);
        {error, closed} -> []
    end.

read_one(1, Handle) -> gen_tcp:recv(megaphone:socket(Handle), 8);
read_one(2, Handle) -> gen_tcp:recv(megaphone:socket(Handle), 8, 1);
read_one(3, Handle) -> gen_tcp:recv(megaphone:socket(Handle), 8, 0);
read_one(4, Handle) ->
    case megaphone_nif:recv(Handle, 8) of
        {wait, Token} -> cancel_or_take(Token, megaphone_nif:cancel(Handle, Token));
        Answer -> Answer
    end.

cancel_or_take(_Token, ok) -> {error, timeout};
cancel_or_take(Token, gone) -> element(3, ?assertReceive({megaphone, Token, _})).

readers_that_die(_Config) ->
    %% Readers are killed at any moment. Each may take along the one record that was on its way to it, no more.
    Handle = open(),
    Self = self(),
    Killer = run(fun() -> keep_killing(Handle, Self, 0) end),
    Putters = [run(fun() -> put_records(Handle, Putter) end) || Putter <- lists:seq(1, ?PUTTERS)],
    [?assertReceive({Putter, done}) || Putter <- Putters],
    Killer ! stop,
    {Killer, Kills} = ?assertReceive({Killer, _}),
    ok = megaphone:close(Handle),
    Rest = iolist_to_binary(drain(Handle)),
    Read = reported(),
    Records = [Record || {_, Record} <- Read] ++ [Record || <<Record:8/binary>> <= Rest],
    ?assertEqual(length(Records), length(lists:usort(Records))),
    ?assertEqual([], Records -- all_records()),
    ?assert(length(all_records()) - length(Records) =< Kills),
    Dead = lists:usort([Reader || {Reader, _} <- Read]),
    [assert_order([Record || {Pid, Record} <- Read, Pid =:= Reader]) || Reader <- Dead].

keep_killing(Handle, To, Kills) ->
    Readers = [spawn_monitor(fun() -> report_records(Handle, To) end) || _ <- lists:seq(1, 3)],
    receive
    after 2 -> ok
    end,
    [exit(Reader, kill) || {Reader, _} <- Readers],
    [?assertReceive({'DOWN', Monitor, process, _, _}) || {_, Monitor} <- Readers],
    receive
        stop -> Kills + 3
    after 0 -> keep_killing(Handle, To, Kills + 3)
    end.

report_records(Handle, To) ->
    {ok, Record} = gen_tcp:recv(megaphone:socket(Handle), 8),
    To ! {record, self(), Record},
    report_records(Handle, To).

reported() ->
    receive
        {record, Reader, Record} -> [{Reader, Record} | reported()]
    after 0 -> []
    end.

readers_that_ask_by_message(_Config) ->
    %% By the original's messages too, each question is answered once, and each record is in one answer.
    Handle = open(),
    Putters = [
        run(fun() ->
            [megaphone ! {put_data, Handle, <<Putter:16, Number:48>>} || Number <- lists:seq(1, ?RECORDS)],
            done
        end)
     || Putter <- lists:seq(1, ?PUTTERS)
    ],
    Readers = [run(fun() -> ask(Handle, <<>>) end) || _ <- lists:seq(1, ?READERS)],
    [?assertReceive({Putter, done}) || Putter <- Putters],
    {error, unknown_call} = gen_server:call(megaphone, sync),
    ok = megaphone:close(Handle),
    Read = [element(2, ?assertReceive({Reader, _})) || Reader <- Readers],
    Records = [[Record || <<Record:8/binary>> <= Bytes] || Bytes <- Read],
    lists:foreach(fun assert_order/1, Records),
    ?assert(lists:sort(lists:append(Records)) =:= all_records()).

ask(Handle, Got) ->
    megaphone ! {get_data, self(), Handle},
    receive
        {ok, Bytes} -> ask(Handle, <<Got/binary, Bytes/binary>>);
        {error, closed} ->
            ?assertSilence(),
            Got
    end.

puts_against_a_close(_Config) ->
    %% Whatever put was answered ok is read after a close that came at the same time; no other is.
    lists:foreach(
        fun(Round) ->
            Handle = open(),
            Putter = run(fun() -> put_until_closed(Handle, 0) end),
            Closer = run(fun() ->
                [erlang:yield() || _ <- lists:seq(1, Round rem 20)],
                megaphone:close(Handle)
            end),
            ?assertReceive({Closer, ok}),
            {Putter, Count} = ?assertReceive({Putter, _}),
            Read = iolist_to_binary(drain(Handle)),
            ?assertEqual([<<Number:32>> || Number <- lists:seq(1, Count)], [<<Number:32>> || <<Number:32>> <= Read])
        end,
        lists:seq(1, 500)
    ).

put_until_closed(Handle, Count) ->
    case put_patiently(Handle, <<(Count + 1):32>>) of
        ok when Count < 5000 -> put_until_closed(Handle, Count + 1);
        ok -> Count + 1;
        {error, closed} -> Count
    end.

deaths_of_owners(_Config) ->
    %% An owner that dies while others put, read and send on its connection leaves none of them waiting.
    Self = self(),
    lists:foreach(
        fun(_) ->
            Owner = spawn(fun() ->
                Self ! {opened, open()},
                receive die -> ok end
            end),
            {opened, Handle} = ?assertReceive({opened, _}),
            Others = [
                run(fun() -> put_until_closed(Handle, 0) end),
                run(fun() -> drain(Handle) end),
                run(fun() -> read_records(Handle, rand:seed_s(exsss, 1)) end),
                run(fun() -> send_until_closed(Handle) end)
            ],
            Owner ! die,
            [?assertReceive({Other, _}) || Other <- Others]
        end,
        lists:seq(1, 200)
    ).

send_until_closed(Handle) ->
    case megaphone:send(Handle, <<0:5000/unit:8>>, infinity) of
        ok -> send_until_closed(Handle);
        {error, closed} -> closed
    end.

changes_of_active_mode(_Config) ->
    %% An owner that changes between all the active modes and reads while input comes gets all of it in order.
    Handle = open(),
    Putter = run(fun() -> put_records(Handle, 1) end),
    Size = 8 * ?RECORDS,
    Read = switch(megaphone:socket(Handle), Size, rand:seed_s(exsss, 7), []),
    ?assertReceive({Putter, done}),
    ?assert(iolist_to_binary(Read) =:= << <<1:16, Number:48>> || Number <- lists:seq(1, ?RECORDS)>>),
    ok = megaphone:close(Handle).

switch(_Socket, 0, _Rand, Got) ->
    lists:reverse(Got);
switch(Socket, Left, Rand0, Got) ->
    {Kind, Rand} = rand:uniform_s(5, Rand0),
    ok = inet:setopts(Socket, [{active, lists:nth(Kind, [once, true, 2, 3, false])}]),
    New = messages(Socket, Kind) ++ passive(Socket),
    switch(Socket, Left - iolist_size(New), Rand, lists:reverse(New, Got)).

messages(_Socket, 5) ->
    [];
messages(Socket, Kind) ->
    receive
        {tcp, Socket, Data} -> [Data | messages(Socket, Kind)];
        {tcp_passive, Socket} -> []
    after 0 -> []
    end.

%% What was sent before the socket became passive comes first.
passive(Socket) ->
    ok = inet:setopts(Socket, [{active, false}]),
    Before = messages(Socket, 1),
    case gen_tcp:recv(Socket, 0, 0) of
        {ok, Data} -> Before ++ messages(Socket, 1) ++ [Data];
        {error, timeout} -> Before ++ messages(Socket, 1)
    end.

senders_against_a_taker(_Config) ->
    %% Several senders, of which some time out or die, and one that takes the output: each send that was answered ok
    %% has come out in the order of its sender.
    Handle = open(),
    Self = self(),
    Senders = [
        run(fun() -> [ok = megaphone:send(Handle, <<Sender:16, Number:48, 0:1000/unit:8>>, infinity) || Number <- lists:seq(1, 500)] end)
     || Sender <- lists:seq(1, ?PUTTERS)
    ],
    Victims = [spawn(fun() -> Self ! {self(), megaphone:send(Handle, <<99:16, 0:48, 0:1000/unit:8>>, infinity)} end) || _ <- lists:seq(1, 20)],
    [exit(Victim, kill) || Victim <- Victims],
    Size = ?PUTTERS * 500 * 1008,
    Records = [<<Sender:16, Number:48>> || <<Sender:16, Number:48, 0:1000/unit:8>> <= taken(Handle, Size), Sender =/= 99],
    [?assertReceive({Sender, _}) || Sender <- Senders],
    assert_order(Records),
    ?assertEqual(?PUTTERS * 500, length(Records)),
    ok = megaphone:close(Handle),
    take_output(Handle).

%% Until there are so many bytes of the senders that live. What the others have sent may come anywhere between.
taken(Handle, Size) ->
    iolist_to_binary(taken(Handle, Size, 0)).

taken(_Handle, Size, Got) when Got >= Size ->
    [];
taken(Handle, Size, Got) ->
    case megaphone:output(Handle) of
        {ok, Data} ->
            Foreign = length(binary:matches(Data, <<99:16, 0:48, 0:1000/unit:8>>)),
            [Data | taken(Handle, Size, Got + byte_size(Data) - 1008 * Foreign)];
        empty ->
            ?assertReceive({megaphone_output, Handle}),
            taken(Handle, Size, Got)
    end.

everything_at_once(_Config) ->
    %% Processes that open, put, read, cancel, send, take, change modes, close and die, all on the same connections:
    %% no data comes out of another connection than it was put in, and in the end nothing is left.
    Shared = ets:new(shared, [public, {write_concurrency, true}]),
    Workers = [run(fun() -> work(Shared, Seed) end) || Seed <- lists:seq(1, 16)],
    [?assertReceive({Worker, done}) || Worker <- Workers],
    ok = wait_until(fun() -> maps:get(connections, megaphone_test:stats()) =:= 0 end).

%% Each worker lives in several processes, one after the other, whose connections close with them.
work(Shared, Seed) ->
    lists:foreach(
        fun(Life) ->
            {Pid, Monitor} = spawn_monitor(fun() -> live(Shared, 400, rand:seed_s(exsss, Seed * 100 + Life)) end),
            {'DOWN', Monitor, process, Pid, Reason} = ?assertReceive({'DOWN', Monitor, process, Pid, _}),
            ?assert(lists:member(Reason, [normal, killed]))
        end,
        lists:seq(1, 8)
    ),
    done.

live(_Shared, 0, _Rand) ->
    ok;
live(Shared, Steps, Rand0) ->
    {Slot, Rand1} = rand:uniform_s(12, Rand0),
    {Kind, Rand} = rand:uniform_s(14, Rand1),
    case ets:lookup(Shared, Slot) of
        [{Slot, Handle}] when Kind > 1 -> act(Kind, Handle);
        _ -> ets:insert(Shared, {Slot, open()})
    end,
    take_messages(),
    live(Shared, Steps - 1, Rand).

act(2, Handle) -> megaphone:close(Handle);
act(3, Handle) -> assert_own(Handle, gen_tcp:recv(megaphone:socket(Handle), 0, 1));
act(4, Handle) -> assert_own(Handle, gen_tcp:recv(megaphone:socket(Handle), 40, 0));
act(5, Handle) -> megaphone:get_data(Handle);
act(6, Handle) -> megaphone:send(Handle, mark(Handle), 1);
act(7, Handle) -> assert_own(Handle, megaphone:output(Handle));
act(8, Handle) -> megaphone_nif:set_active(Handle, once);
act(9, Handle) -> megaphone_nif:set_active(Handle, false);
act(10, Handle) -> megaphone_nif:set_owner(Handle, self());
act(11, Handle) -> megaphone_nif:shutdown(Handle, read);
act(12, Handle) -> assert_own(Handle, gen_tcp:recv(megaphone:socket(Handle), 100000, 1));
act(_, Handle) -> megaphone:put_data(Handle, mark(Handle)).

take_messages() ->
    receive
        {tcp, {_, _, Handle}, Data} ->
            assert_own(Handle, {ok, Data}),
            take_messages();
        _ ->
            take_messages()
    after 0 -> ok
    end.

%% What is put into and sent on a connection is its own name and nothing else: 40 bytes.
mark(Handle) ->
    Hash = erlang:md5(term_to_binary(Handle)),
    <<Hash/binary, Hash/binary, 0:64>>.

assert_own(Handle, {ok, Data}) ->
    Mark = mark(Handle),
    Same = [<<>> || <<Piece:40/binary>> <= iolist_to_binary(Data), Piece =/= Mark],
    ?assertEqual([], Same);
assert_own(_Handle, _Other) ->
    ok.
