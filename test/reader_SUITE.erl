%% Who reads from a connection of the table, and gets what: first come, first served; who is gone takes nothing; limits
%% are refusals.
-module(reader_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, held/2, run/1, reader/2, read_now/1, wait_until/1]).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [
        several_readers_are_served_in_order,
        later_reader_does_not_overtake,
        dead_reader_takes_nothing,
        dead_asker_takes_nothing,
        timed_out_reader_takes_nothing,
        cancelled_reader_takes_nothing,
        cancel_only_ends_its_own_wait,
        oversized_put_is_refused,
        oversized_put_leaves_readers_waiting,
        most_readers
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- readers ---------------------------------------------------------------------------------------------------

several_readers_are_served_in_order(_Config) ->
    %% Any number of readers may wait on one connection; the first to come is the first to be served.
    Handle = open(),
    Readers = [reader(Handle, 1) || _ <- lists:seq(1, 50)],
    ?assertEqual(50, held(readers, Handle)),
    Bytes = list_to_binary(lists:seq(1, 50)),
    ok = megaphone:put_data(Handle, binary:part(Bytes, 0, 20)),
    ?assertEqual(30, held(readers, Handle)),
    ok = megaphone:put_data(Handle, binary:part(Bytes, 20, 30)),
    Expected = lists:zip(Readers, [{ok, <<Byte>>} || <<Byte>> <= Bytes]),
    ?assertEqual(Expected, [?assertReceive({Reader, _}) || Reader <- Readers]),
    ok = megaphone:close(Handle).

later_reader_does_not_overtake(_Config) ->
    %% A reader that could be served waits behind one that came before it and cannot be served yet.
    Handle = open(),
    First = reader(Handle, 10),
    ok = megaphone:put_data(Handle, <<"12345">>),
    Second = reader(Handle, 1),
    ?assertEqual(2, held(readers, Handle)),
    ok = megaphone:put_data(Handle, <<"67890ab">>),
    ?assertReceive({First, {ok, <<"1234567890">>}}),
    ?assertReceive({Second, {ok, <<"a">>}}),
    ?assertEqual({ok, <<"b">>}, megaphone:recv(Handle)),
    ok = megaphone:close(Handle).

dead_reader_takes_nothing(_Config) ->
    %% A reader that died while it waited is passed over: the next one gets the data.
    Handle = open(),
    [First, Second] = [reader(Handle, 0), reader(Handle, 0)],
    kill(First),
    ok = megaphone:put_data(Handle, <<"data">>),
    ?assertReceive({Second, {ok, <<"data">>}}),
    kill(reader(Handle, 0)),
    ok = megaphone:put_data(Handle, <<"more">>),
    ?assertEqual({ok, <<"more">>}, megaphone:recv(Handle)),
    ok = megaphone:close(Handle).

kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    ?assertReceive({'DOWN', Monitor, process, Pid, _}).

dead_asker_takes_nothing(_Config) ->
    %% Data that is there is not handed to a process that has died already.
    Handle = open(),
    Dead = spawn(fun() -> ok end),
    ok = wait_until(fun() -> not is_process_alive(Dead) end),
    ok = megaphone:put_data(Handle, <<"data">>),
    ok = megaphone:get_data(Handle, Dead),
    ?assertEqual({ok, <<"data">>}, megaphone:recv(Handle, 0)),
    ok = megaphone:close(Handle).

timed_out_reader_takes_nothing(_Config) ->
    %% A reader that gave up takes no data along, at whatever moment the data comes.
    Handle = open(),
    ?assertEqual({error, timeout}, megaphone:recv(Handle, 0)),
    ?assertEqual({error, timeout}, megaphone:recv(Handle, 10)),
    ?assertEqual(0, held(readers, Handle)),
    lists:foreach(
        fun(Round) ->
            Reader = run(fun() -> megaphone:recv(Handle, Round rem 2) end),
            ok = megaphone:put_data(Handle, <<Round:32>>),
            case ?assertReceive({Reader, _}) of
                {Reader, {ok, Data}} -> ?assertEqual(<<Round:32>>, Data);
                {Reader, {error, timeout}} -> ?assertEqual({ok, <<Round:32>>}, megaphone:recv(Handle, 0))
            end
        end,
        lists:seq(1, 500)
    ),
    ?assertEqual(0, held(input_bytes, Handle)),
    ok = megaphone:close(Handle).

cancelled_reader_takes_nothing(_Config) ->
    %% A cancelled wait gets no message; one that was answered before the cancel keeps its answer.
    Handle = open(),
    {wait, First} = megaphone_nif:recv(Handle, 0),
    ok = megaphone_nif:cancel(Handle, First),
    ok = megaphone:put_data(Handle, <<"one">>),
    ?assertSilence(),
    {ok, <<"one">>} = megaphone_nif:recv(Handle, 0),
    {wait, Second} = megaphone_nif:recv(Handle, 0),
    ok = megaphone:put_data(Handle, <<"two">>),
    gone = megaphone_nif:cancel(Handle, Second),
    {megaphone, Second, {ok, <<"two">>}} = ?assertReceive({megaphone, Second, _}),
    gone = megaphone_nif:cancel(Handle, First),
    ?assertSilence(),
    ok = megaphone:close(Handle).

cancel_only_ends_its_own_wait(_Config) ->
    %% The token of a wait on one connection cancels nothing on another one.
    [One, Other] = [open(), open()],
    {wait, Token} = megaphone_nif:recv(One, 0),
    ?assertEqual(gone, megaphone_nif:cancel(Other, Token)),
    ?assertEqual(gone, megaphone_nif:cancel(One, Token + 64)),
    ok = megaphone:put_data(One, <<"data">>),
    ?assertReceive({megaphone, Token, {ok, <<"data">>}}),
    [ok = megaphone:close(Handle) || Handle <- [One, Other]].

%% ---- limits ----------------------------------------------------------------------------------------------------

oversized_put_is_refused(_Config) ->
    %% Input fills its queue to the last byte; what is more is refused whole, and what is queued stays as it is.
    #{local_queue := Limit} = megaphone_nif:limits(),
    Refused = {error, {limit, queue_bytes}},
    Handle = open(),
    Data = bytes(Limit - 1),
    ?assertEqual(ok, megaphone:put_data(Handle, Data)),
    ?assertEqual(Refused, megaphone:put_data(Handle, <<"xx">>)),
    ?assertEqual(ok, megaphone:put_data(Handle, <<"l">>)),
    ?assertEqual(Refused, megaphone:put_data(Handle, <<"x">>)),
    ?assertEqual(Limit, held(input_bytes, Handle)),
    {ok, <<First>>} = gen_tcp:recv(megaphone:socket(Handle), 1),
    ?assertEqual(ok, megaphone:put_data(Handle, <<"m">>)),
    Rest = read_now(Handle),
    ?assert(<<First, Rest/binary>> =:= <<Data/binary, "lm">>),
    ?assertEqual(Refused, megaphone:put_data(Handle, binary:copy(<<"x">>, Limit + 1))),
    ?assertEqual(ok, megaphone:put_data(Handle, binary:copy(<<"x">>, Limit))),
    ?assertEqual(Limit, byte_size(read_now(Handle))),
    ok = megaphone:close(Handle).

oversized_put_leaves_readers_waiting(_Config) ->
    %% A put that is refused gives nothing to the reader that waits; the next put serves it.
    #{local_queue := Limit} = megaphone_nif:limits(),
    Handle = open(),
    Reader = reader(Handle, 0),
    ?assertEqual({error, {limit, queue_bytes}}, megaphone:put_data(Handle, <<0:(Limit + 1)/unit:8>>)),
    ?assertEqual(1, held(readers, Handle)),
    ok = megaphone:put_data(Handle, <<"fits">>),
    ?assertReceive({Reader, {ok, <<"fits">>}}),
    ok = megaphone:close(Handle).

most_readers(_Config) ->
    %% As many readers as the limit says may wait; a further one is told at once, and changes nothing.
    #{max_waiters := Most} = megaphone_nif:limits(),
    Handle = open(),
    Tokens = [element(2, {wait, _} = megaphone_nif:recv(Handle, 1)) || _ <- lists:seq(1, Most - 1)],
    {wait, Last} = megaphone_nif:recv(Handle, 1),
    ?assertEqual({error, {limit, waiters}}, megaphone_nif:recv(Handle, 1)),
    ok = megaphone:get_data(Handle),
    ?assertReceive({error, closed}),
    ?assertEqual(Most, held(readers, Handle)),
    ok = megaphone_nif:cancel(Handle, Last),
    {wait, Again} = megaphone_nif:recv(Handle, 1),
    ok = megaphone:close(Handle),
    [?assertReceive({megaphone, Token, {error, closed}}) || Token <- Tokens ++ [Again]],
    ?assertSilence().

bytes(Size) ->
    {Bytes, _} = rand:bytes_s(Size, rand:seed_s(exsss, Size)),
    Bytes.
