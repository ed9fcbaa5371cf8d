%% Whole packets at once: the same results as step by step, whatever the packet and however it came.
-module(request_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

suite() -> [{timetrap, {seconds, 30}}].

all() ->
    [whole_and_step_by_step_are_equal, packets_cut_anywhere, packets_follow_each_other, an_end_in_the_middle_is_told].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% Packets of the common form and others, all complete.
packets() ->
    [
        <<"GET / HTTP/1.1\r\nHost: a\r\n\r\n">>,
        <<"POST /bosh HTTP/1.1\r\nhost: example.org\r\nContent-Length: 5\r\nX-Some-Thing: y\r\n\r\nhello">>,
        <<"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n">>,
        <<"PUT /f HTTP/1.0\nContent-Length: 3\n\nabc">>,
        <<"POST / HTTP/1.1\r\nContent-Length:  3 \r\nX:\r\n\r\nabc">>,
        <<"GET http://a:81/ HTTP/1.1\r\nFolded: a\r\n b\r\n\r\n">>,
        <<"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok">>,
        iolist_to_binary(["POST / HTTP/1.1\r\nContent-Length: 700000\r\n\r\n", binary:copy(<<"x">>, 700000)])
    ].

whole_and_step_by_step_are_equal(_Config) ->
    %% A packet taken at once gives what reading it step by step gives; a long body may come in fewer pieces.
    in_process(fun() ->
        lists:foreach(
            fun(Packet) ->
                {ok, Whole} = megaphone:recv_packet(filled([Packet]), ?DEADLINE),
                ?assertEqual(joined(steps(filled([Packet]))), joined(Whole))
            end,
            packets()
        )
    end).

packets_cut_anywhere(_Config) ->
    %% A packet that comes in two parts, cut at any byte, is given whole.
    in_process(fun() ->
        Packet = lists:nth(2, packets()),
        {ok, Whole} = megaphone:recv_packet(filled([Packet]), ?DEADLINE),
        lists:foreach(
            fun(Cut) ->
                <<Before:Cut/binary, After/binary>> = Packet,
                Handle = filled([Before]),
                Reader = megaphone_test:run(fun() -> megaphone:recv_packet(Handle, ?DEADLINE) end),
                ok = megaphone:put_data(Handle, After),
                receive
                    {Reader, Answer} -> ?assertEqual({ok, Whole}, Answer, {cut, Cut})
                end
            end,
            lists:seq(1, byte_size(Packet) - 1)
        )
    end).

packets_follow_each_other(_Config) ->
    %% Packets that wait behind each other are given one by one.
    in_process(fun() ->
        Packets = lists:sublist(packets(), 7),
        Handle = filled(Packets),
        lists:foreach(
            fun(Packet) ->
                {ok, Whole} = megaphone:recv_packet(Handle, ?DEADLINE),
                ?assertEqual(joined(steps(filled([Packet]))), joined(Whole))
            end,
            Packets
        ),
        ?assertEqual({error, timeout}, megaphone:recv_packet(Handle, 0))
    end).

an_end_in_the_middle_is_told(_Config) ->
    %% What was read of a packet that never became complete is not lost.
    in_process(fun() ->
        Handle = filled([<<"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe">>]),
        Request = {http_request, 'POST', {abs_path, <<"/">>}, {1, 1}},
        ?assertMatch({error, {incomplete, timeout, [Request, {http_header, _, _, _, _}, http_eoh]}}, megaphone:recv_packet(Handle, 0)),
        ok = megaphone:close(Handle),
        ?assertMatch({error, _}, megaphone:recv_packet(Handle, 0)),
        ?assertEqual({error, closed}, megaphone:recv_packet({0, 1, 2, 3}, 0))
    end).

%% The connections close with the process that opened them.
in_process(Fun) ->
    {Pid, MRef} = spawn_monitor(Fun),
    receive
        {'DOWN', MRef, process, Pid, Reason} -> ?assertEqual(normal, Reason)
    end.

filled(Parts) ->
    Handle = megaphone_test:open(http_bin),
    lists:foreach(fun(Part) -> ok = megaphone:put_data(Handle, Part) end, Parts),
    Handle.

%% All that one packet gives step by step.
steps(Handle) ->
    case megaphone:recv(Handle, 0) of
        {ok, Result} -> [Result | steps(Handle)];
        {error, timeout} -> []
    end.

%% Pieces of a body as one.
joined(Results) ->
    {Bodies, Head} = lists:partition(fun is_binary/1, Results),
    {Head, iolist_to_binary(Bodies)}.
