%% The interface of the original Megaphone: the registered process `megaphone' and its messages.
-module(messages_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [open/0, open/1, held/2, run/1, read_now/1, take_output/1, wait_until/1]).

%% Of megaphone_backlog: what may wait for room, for one connection and for all.
-define(BACKLOG, 262144).
-define(ALL_BACKLOGS, 16777216).

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [
        put_then_get,
        get_then_put,
        get_for_somebody_else,
        get_from_an_unknown_connection,
        second_reader_does_not_push_out_the_first,
        answers_when_the_link_goes_down,
        send_comes_out,
        put_over_the_limit_closes,
        sends_without_room_wait_in_order,
        sends_over_the_limit_close,
        limit_of_all_that_wait,
        closed_connection_frees_what_waits,
        nonsense_harms_nobody,
        status_shows_no_data
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).

init_per_testcase(_Case, Config) ->
    ok = logger:add_handler(?MODULE, megaphone_test, #{level => warning, config => #{to => self()}}),
    [{server, whereis(megaphone)} | megaphone_test:begin_case(Config)].

%% No case may cost the process its life.
end_per_testcase(_Case, Config) ->
    ok = logger:remove_handler(?MODULE),
    case {proplists:get_value(server, Config), whereis(megaphone)} of
        {Pid, Pid} -> megaphone_test:end_case(Config);
        Pids -> {fail, {megaphone_restarted, Pids}}
    end.

%% All messages sent to megaphone by this process before have been handled.
sync() ->
    {error, unknown_call} = gen_server:call(megaphone, sync).

%% What was logged. The log comes first, then what it is about.
logged() ->
    {log, Text} = ?assertReceive({log, _}),
    sync(),
    Text.

%% ---- put and get -----------------------------------------------------------------------------------------------

put_then_get(_Config) ->
    %% Data put by a message is parsed and comes to readers one result for each get_data, in order.
    Handle = open(http_bin),
    megaphone ! {put_data, Handle, <<"GET /a HTTP/1.1\r\nHost: a\r\n\r\n">>},
    [megaphone ! {get_data, self(), Handle} || _ <- lists:seq(1, 3)],
    ?assertReceive({ok, {http_request, 'GET', {abs_path, <<"/a">>}, {1, 1}}}),
    ?assertReceive({ok, {http_header, 14, 'Host', _, <<"a">>}}),
    ?assertReceive({ok, http_eoh}),
    sync(),
    ?assertSilence(),
    ok = megaphone:close(Handle).

get_then_put(_Config) ->
    %% A reader that came before the data is served when the data comes.
    Handle = open(),
    megaphone ! {get_data, self(), Handle},
    sync(),
    ?assertSilence(),
    megaphone ! {put_data, Handle, [<<"da">>, "ta"]},
    ?assertReceive({ok, <<"data">>}),
    ok = megaphone:close(Handle).

get_for_somebody_else(_Config) ->
    %% The answer goes to the process that the message names.
    Handle = open(),
    Reader = run(fun() -> receive Answer -> Answer end end),
    megaphone ! {get_data, Reader, Handle},
    megaphone ! {put_data, Handle, <<"data">>},
    ?assertReceive({Reader, {ok, <<"data">>}}),
    ?assertSilence(),
    ok = megaphone:close(Handle).

get_from_an_unknown_connection(_Config) ->
    %% A reader of a connection that is not there, or of something that is no connection, does not wait for ever.
    Stale = open(),
    ok = megaphone:close(Stale),
    lists:foreach(
        fun(Id) ->
            megaphone ! {get_data, self(), Id},
            ?assertReceive({error, closed})
        end,
        [Stale, {0, 1, 2, 3}, 42, undefined, <<"0000000042">>]
    ),
    ?assertSilence().

second_reader_does_not_push_out_the_first(_Config) ->
    %% Readers that ask by message are all remembered, and served in the order of their messages.
    Handle = open(),
    Readers = [run(fun() -> receive Answer -> Answer end end) || _ <- lists:seq(1, 20)],
    [megaphone ! {get_data, Reader, Handle} || Reader <- Readers],
    lists:foreach(
        fun({Number, Reader}) ->
            megaphone ! {put_data, Handle, <<Number>>},
            ?assertReceive({Reader, {ok, <<Number>>}})
        end,
        lists:zip(lists:seq(1, 20), Readers)
    ),
    ok = megaphone:close(Handle).

answers_when_the_link_goes_down(_Config) ->
    %% A reader that asked by message gets {shutdown} when the link of its connection goes down, one in recv closed.
    {ok, Link} = megaphone_nif:link_open(<<"test">>, none, http),
    Head = <<"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n">>,
    Input = [megaphone_test_link:hello(), megaphone_test_link:open(1), {data, 1, Head}],
    {ok, [open, {start, Handle}]} = megaphone_nif:link_input(Link, megaphone_test_link:encode(Input)),
    ok = megaphone_nif:set_consumer(Handle, self()),
    {ok, Head} = megaphone:recv(Handle),
    Reader = run(fun() -> megaphone:recv(Handle) end),
    ok = wait_until(fun() -> held(readers, Handle) =:= 1 end),
    megaphone ! {get_data, self(), Handle},
    sync(),
    ?assertSilence(),
    ok = megaphone_nif:link_down(Link),
    sweep(Link, 0),
    ?assertReceive({Reader, {error, closed}}),
    ?assertReceive({shutdown}).

sweep(Link, Cursor) ->
    case megaphone_nif:link_sweep(Link, Cursor) of
        {more, Next} -> sweep(Link, Next);
        done -> ok
    end.

put_over_the_limit_closes(_Config) ->
    %% A put that does not fit cannot be answered here: the connection is closed, and the log says why and not what.
    #{local_queue := Limit} = megaphone_nif:limits(),
    Handle = open(),
    Secret = <<"secret of a user">>,
    megaphone ! {put_data, Handle, binary:copy(<<"x">>, Limit)},
    megaphone ! {put_data, Handle, Secret},
    Text = logged(),
    ?assertNotEqual(nomatch, string:find(Text, "queue_bytes")),
    ?assertEqual(nomatch, string:find(Text, Secret)),
    ?assertEqual(Limit, byte_size(read_now(Handle))),
    ?assertEqual({error, closed}, megaphone:recv(Handle)).

%% ---- send ------------------------------------------------------------------------------------------------------

send_comes_out(_Config) ->
    %% What is sent by messages comes out in their order; to a closed connection nothing is said, as ever.
    Handle = open(),
    [megaphone ! {send_data, Handle, Data} || Data <- [<<"a">>, "b", [<<"c">>, $d], <<>>]],
    sync(),
    ?assertReceive({megaphone_output, Handle}),
    ?assertEqual(<<"abcd">>, take_output(Handle)),
    ok = megaphone:close(Handle),
    megaphone ! {send_data, Handle, <<"late">>},
    sync(),
    ?assertSilence().

sends_without_room_wait_in_order(_Config) ->
    %% Messages for which there is no room wait and go out in order, and hold up no other connection.
    #{output_queue := Room} = megaphone_nif:limits(),
    [Full, Other] = [open(), open()],
    Pieces = [<<Number:32, 0:996/unit:8>> || Number <- lists:seq(1, (Room + ?BACKLOG) div 1000)],
    [megaphone ! {send_data, Full, Piece} || Piece <- Pieces],
    megaphone ! {send_data, Other, <<"other">>},
    sync(),
    ?assertEqual(<<"other">>, take_output(Other)),
    ?assert(take_until_quiet(Full) =:= iolist_to_binary(Pieces)),
    megaphone ! {send_data, Full, <<"next">>},
    sync(),
    ?assertEqual(<<"next">>, take_output(Full)),
    [ok = megaphone:close(Handle) || Handle <- [Full, Other]].

%% Takes output until the server has nothing left for it.
take_until_quiet(Handle) ->
    case take_output(Handle) of
        <<>> ->
            <<>>;
        Data ->
            sync(),
            Rest = take_until_quiet(Handle),
            <<Data/binary, Rest/binary>>
    end.

sends_over_the_limit_close(_Config) ->
    %% For one connection exactly 256 kB wait; with a byte more it is closed, what fitted goes out, and it is logged.
    #{output_queue := Room} = megaphone_nif:limits(),
    Fits = open(),
    megaphone ! {send_data, Fits, binary:copy(<<"x">>, Room)},
    megaphone ! {send_data, Fits, binary:copy(<<"y">>, ?BACKLOG - 1)},
    megaphone ! {send_data, Fits, <<"z">>},
    sync(),
    ?assertEqual(Room + ?BACKLOG, byte_size(take_until_quiet(Fits))),
    ok = megaphone:close(Fits),
    Over = open(),
    megaphone ! {send_data, Over, binary:copy(<<"x">>, Room + ?BACKLOG)},
    megaphone ! {send_data, Over, <<"z">>},
    Text = logged(),
    ?assertNotEqual(nomatch, string:find(Text, "pending_bytes")),
    ?assertEqual({error, closed}, megaphone:put_data(Over, <<"x">>)),
    ?assertEqual(Room, byte_size(take_until_quiet(Over))),
    ok = megaphone:close(Over).

limit_of_all_that_wait(_Config) ->
    %% All connections together may have 16 MB waiting; the one that wants more is closed, the others are not.
    #{output_queue := Room} = megaphone_nif:limits(),
    Full = [open() || _ <- lists:seq(1, ?ALL_BACKLOGS div ?BACKLOG)],
    Data = binary:copy(<<"x">>, Room + ?BACKLOG),
    [megaphone ! {send_data, Handle, Data} || Handle <- Full],
    OneMore = open(),
    megaphone ! {send_data, OneMore, binary:copy(<<"y">>, Room)},
    sync(),
    ?assertMatch({ok, _}, megaphone:info(OneMore)),
    megaphone ! {send_data, OneMore, <<"z">>},
    logged(),
    ?assertEqual({error, closed}, megaphone:put_data(OneMore, <<"x">>)),
    take_output(OneMore),
    ok = megaphone:close(OneMore),
    [?assert(take_until_quiet(Handle) =:= Data) || Handle <- Full],
    [ok = megaphone:close(Handle) || Handle <- Full].

closed_connection_frees_what_waits(_Config) ->
    %% What waits for a connection is dropped when it closes, so the room is there for others.
    #{output_queue := Room} = megaphone_nif:limits(),
    Data = binary:copy(<<"x">>, Room + ?BACKLOG),
    lists:foreach(
        fun(_) ->
            Handle = open(),
            megaphone ! {send_data, Handle, Data},
            sync(),
            ok = megaphone:close(Handle),
            take_output(Handle)
        end,
        lists:seq(1, 2 * ?ALL_BACKLOGS div ?BACKLOG)
    ),
    sync(),
    receive
        {log, Text} -> error(Text)
    after 0 -> ok
    end.

%% ---- robustness ------------------------------------------------------------------------------------------------

nonsense_harms_nobody(_Config) ->
    %% Messages that mean nothing, and wrong handles and data in those that do, change nothing.
    Handle = open(),
    ok = megaphone:put_data(Handle, <<"data">>),
    Nonsense = [
        {put_data, Handle, not_data}, {put_data, Handle, [-1]}, {put_data, {1, 2, 3}, <<"x">>}, {put_data, x, y},
        {send_data, Handle, {}}, {send_data, x, <<"y">>}, {get_data, not_a_pid, Handle}, {put_data, Handle},
        {megaphone, 1, ok}, {megaphone, x, y}, {'DOWN', make_ref(), process, self(), x}, x, <<"x">>, []
    ],
    [megaphone ! Message || Message <- Nonsense],
    gen_server:cast(megaphone, nonsense),
    sync(),
    ?assertMatch(#{input_bytes := 4, output_bytes := 0}, element(2, megaphone:info(Handle))),
    ?assertEqual({ok, <<"data">>}, megaphone:recv(Handle)),
    ok = megaphone:close(Handle).

status_shows_no_data(_Config) ->
    %% Neither the state nor messages in a report of the process show what users write.
    #{output_queue := Room} = megaphone_nif:limits(),
    Secret = <<"secret of a user">>,
    Handle = open(),
    megaphone ! {send_data, Handle, binary:copy(<<"x">>, Room)},
    megaphone ! {send_data, Handle, Secret},
    sync(),
    Shown = lists:flatten(io_lib:format("~p", [sys:get_status(megaphone)])),
    ?assertEqual(nomatch, string:find(Shown, "secret")),
    Status = #{message => {put_data, Handle, Secret}, state => element(2, megaphone:init([])), log => [{in, Secret}], reason => x},
    Formatted = lists:flatten(io_lib:format("~p", [megaphone:format_status(Status)])),
    ?assertEqual(nomatch, string:find(Formatted, "secret")),
    take_until_quiet(Handle),
    ok = megaphone:close(Handle).
