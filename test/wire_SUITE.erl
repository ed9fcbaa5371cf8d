%% What the native table makes of a link's bytes, without ejabberd and without a socket: this suite is the receiver,
%% the sender and the consumers of a link.
-module(wire_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [held/2, run/1, read_now/1, wait_until/1]).
-import(megaphone_test_link, [encode/1, hello/0, hello/1, open/1, get_request/1, request/4]).

%% What an ECM may add to a head that is as large as the limits allow.
-define(REWRITE_BYTES, 256).
-define(REWRITE_FIELDS, 4).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        every_cut_gives_the_same,
        start_comes_once_for_a_request,
        body_that_travels_with_its_head,
        longest_head,
        most_fields,
        many_frames_come_in_slices,
        output_is_told_once,
        output_comes_in_turn,
        consumer_that_dies,
        consumer_that_comes_late,
        input_of_the_next_request_waits,
        link_goes_down,
        sweep_of_many_connections,
        most_connections_of_a_link,
        most_local_connections,
        random_frames_leave_nothing,
        counters_of_a_link,
        wrong_arguments
    ].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).

init_per_testcase(_Case, Config0) ->
    Config = megaphone_test:begin_case(Config0),
    [{link, link_up()} | Config].

end_per_testcase(_Case, Config) ->
    _ = link_end(proplists:get_value(link, Config)),
    megaphone_test:end_case(Config).

%% ---- a link ----------------------------------------------------------------------------------------------------

%% A link whose hello has been sent and taken.
link_up() ->
    {ok, Link} = megaphone_nif:link_open(<<"test">>, none, http),
    {ok, [open]} = input(Link, hello()),
    [{hello, 2, 1, _, _, _}] = output(Link),
    Link.

link_end(Link) ->
    ok = megaphone_nif:link_down(Link),
    sweep(Link, 0, 0).

%% Answers the number of slices.
sweep(Link, Cursor, Slices) ->
    case megaphone_nif:link_sweep(Link, Cursor) of
        {more, Next} -> sweep(Link, Next, Slices + 1);
        done -> Slices + 1
    end.

input(Link, Frames) ->
    input_bytes(Link, encode(Frames)).

input_bytes(Link, Bytes) ->
    case megaphone_nif:link_input(Link, Bytes) of
        {more, Actions} ->
            {Kind, More} = input_bytes(Link, <<>>),
            {Kind, Actions ++ More};
        Answer ->
            Answer
    end.

%% All frames that are there now.
output(Link) ->
    {Frames, <<>>} = megaphone_test_link:decode(iolist_to_binary(output_bytes(Link))),
    Frames.

output_bytes(Link) ->
    case megaphone_nif:link_output(Link) of
        {ok, Bytes} -> [Bytes | output_bytes(Link)];
        empty -> []
    end.

%% The handle of a connection with a request that this process has read and answers.
started(Link, Id, Request) ->
    {ok, [{start, Handle}]} = input(Link, [open(Id), {data, Id, Request}]),
    ok = megaphone_nif:set_consumer(Handle, self()),
    {ok, Request} = megaphone:recv(Handle, 0),
    Handle.

%% ---- input -----------------------------------------------------------------------------------------------------

every_cut_gives_the_same(_Config) ->
    %% A link's input has the same effects in one piece, cut in two at any byte, and byte by byte.
    Large = <<"PUT /b HTTP/1.1\r\nHost: b\r\nContent-Length: 70000\r\n\r\nstart of the body">>,
    Input = encode([
        hello(), {ping, <<"12345678">>}, open(1), open(2), {data, 1, <<"GET /a HTTP/1.1\r\nHo">>}, {data, 2, Large},
        {data, 9, <<"nobody">>}, {data, 1, <<"st: a\r\n\r\n">>}, drain, {window, 1, 5}, open(3),
        {data, 3, request("POST", "/c", [], "body")}, {close, 2, 1}, open(2), {data, 2, <<"GET /">>}, {ping, <<"87654321">>}
    ]),
    Size = byte_size(Input),
    Cuts = [[Size], lists:duplicate(Size, 1) | [[At, Size - At] || At <- lists:seq(1, Size - 1)]],
    [Once | Others] = [{Cut, effects(cut(Input, Cut))} || Cut <- Cuts],
    ?assertMatch({_, {[{1, <<"GET /a", _/binary>>}, {2, closed}, {3, <<"POST /c", _/binary>>}], [_, _, _, _, _]}}, Once),
    [?assertEqual({Cut, element(2, Once)}, {Cut, Effects}) || {Cut, Effects} <- Others].

cut(<<>>, []) -> [];
cut(Data, [Size | Sizes]) -> [binary:part(Data, 0, Size) | cut(binary:part(Data, Size, byte_size(Data) - Size), Sizes)].

%% What was started, with its input, and what went out.
effects(Pieces) ->
    {ok, Link} = megaphone_nif:link_open(<<"test">>, none, http),
    Started = lists:append([element(2, {ok, _} = input_bytes(Link, Piece)) || Piece <- Pieces]),
    Read = [
        {Id, case megaphone_nif:recv(Handle, 0) of {ok, Data} -> Data; {error, closed} -> closed end}
     || {start, {_, Id, _, _} = Handle} <- Started
    ],
    Output = output(Link),
    _ = link_end(Link),
    {lists:sort(Read), Output}.

start_comes_once_for_a_request(Config) ->
    %% A consumer is asked for when a request is complete, once, and for the next one only when the first is done.
    Link = proplists:get_value(link, Config),
    Request = get_request("/"),
    {First, Last} = split_binary(Request, byte_size(Request) - 1),
    ?assertEqual({ok, []}, input(Link, [open(1), {data, 1, First}])),
    {ok, [{start, Handle}]} = input(Link, {data, 1, Last}),
    ?assertEqual({ok, []}, input(Link, {data, 1, <<First/binary, Last/binary, First/binary>>})),
    ok = megaphone_nif:set_consumer(Handle, self()),
    Answer = fun() -> ok = megaphone:send(Handle, <<"answer">>) end,
    ?assertEqual({ok, Request}, megaphone:recv(Handle, 0)),
    Answer(),
    ?assertEqual({ok, Request}, megaphone:recv(Handle, 0)),
    Answer(),
    ?assertEqual({error, closed}, megaphone:recv(Handle, 0)),
    ?assertEqual([{data, 1, <<"answeranswer">>}, {ready, 1, 0}], output(Link)),
    ?assertEqual({ok, [{start, Handle}]}, input(Link, {data, 1, Last})).

body_that_travels_with_its_head(Config) ->
    %% Up to the limit a request starts when its body is complete; with a byte more it starts with its head.
    #{small_body := Small} = megaphone_nif:limits(),
    Link = proplists:get_value(link, Config),
    lists:foreach(
        fun({Id, Size, StartsWithHead}) ->
            [Head, Body] = binary:split(request("POST", "/", [], binary:copy(<<"x">>, Size)), <<"\r\n\r\n">>),
            {ok, Early} = input(Link, [open(Id), {data, Id, <<Head/binary, "\r\n\r\n">>}]),
            ?assertEqual({Size, StartsWithHead}, {Size, Early =/= []}),
            {Most, Last} = split_binary(Body, Size - 1),
            {ok, Middle} = input(Link, {data, Id, Most}),
            {ok, Late} = input(Link, {data, Id, Last}),
            ?assertMatch({Size, [], [{start, _}]}, {Size, Middle, Early ++ Late})
        end,
        [{1, Small - 1, false}, {2, Small, false}, {3, Small + 1, true}]
    ).

longest_head(Config) ->
    %% A head of exactly the limit is taken; one byte more is refused, also when its end never comes.
    #{max_head := Received} = megaphone_nif:limits(),
    Most = Received + ?REWRITE_BYTES,
    Link = proplists:get_value(link, Config),
    Empty = byte_size(request("GET", "/", [{"X", ""}], "")),
    lists:foreach(
        fun({Id, More}) ->
            Request = request("GET", "/", [{"X", binary:copy(<<"x">>, Most - Empty + More)}], ""),
            ?assertEqual(Most + More, byte_size(Request)),
            {ok, Actions} = input(Link, [open(Id), {data, Id, Request}]),
            ?assertEqual({More, More =< 0}, {More, Actions =/= []})
        end,
        [{1, -1}, {2, 0}, {3, 1}]
    ),
    ?assertMatch([{close, 3, 4}, {error, 3, 3, _}], lists:sort(output(Link))),
    Endless = <<"GET / HTTP/1.1\r\nX: ", (binary:copy(<<"x">>, Most))/binary>>,
    ?assertEqual({ok, []}, input(Link, [open(4), {data, 4, Endless}])),
    ?assertMatch([{close, 4, 4}, {error, 4, 3, _}], lists:sort(output(Link))).

most_fields(Config) ->
    %% As many fields as the limit says are taken, one more is not. Host is one of them.
    #{max_headers := Received} = megaphone_nif:limits(),
    Most = Received + ?REWRITE_FIELDS,
    Link = proplists:get_value(link, Config),
    lists:foreach(
        fun({Id, Count}) ->
            Request = request("GET", "/", lists:duplicate(Count - 1, {"X", "x"}), ""),
            {ok, Actions} = input(Link, [open(Id), {data, Id, Request}]),
            ?assertEqual({Count, Count =< Most}, {Count, Actions =/= []})
        end,
        [{1, Most - 1}, {2, Most}, {3, Most + 1}]
    ),
    ?assertMatch([{close, 3, 4}, {error, 3, 3, _}], lists:sort(output(Link))).

many_frames_come_in_slices(Config) ->
    %% One call handles a bounded number of frames, then asks to be called again; none is lost.
    #{frames_per_call := Slice} = megaphone_nif:limits(),
    Link = proplists:get_value(link, Config),
    Pings = [{ping, <<Number:64>>} || Number <- lists:seq(1, 3 * Slice)],
    ?assertEqual({ok, []}, megaphone_nif:link_input(Link, encode(lists:sublist(Pings, Slice - 1)))),
    ?assertEqual({more, []}, megaphone_nif:link_input(Link, encode(lists:nthtail(Slice - 1, Pings)))),
    ?assertEqual({more, []}, megaphone_nif:link_input(Link, <<>>)),
    ?assertEqual({ok, []}, megaphone_nif:link_input(Link, <<>>)),
    ?assertEqual([{pong, Bytes} || {ping, Bytes} <- Pings], output(Link)).

%% ---- output ----------------------------------------------------------------------------------------------------

output_is_told_once(Config) ->
    %% The sender is woken once after it found nothing, however much comes, and not before it found nothing.
    Link = proplists:get_value(link, Config),
    ?assertSilence(),
    Handles = [started(Link, Id, get_request("/")) || Id <- lists:seq(1, 5)],
    [ok = megaphone:send(Handle, <<"x">>) || Handle <- Handles],
    ?assertReceive(megaphone_output),
    {ok, []} = input(Link, {ping, <<"12345678">>}),
    ?assertSilence(),
    ?assertEqual(6, length(output(Link))),
    {ok, []} = input(Link, {ping, <<"12345678">>}),
    ?assertReceive(megaphone_output),
    ?assertSilence().

output_comes_in_turn(Config) ->
    %% Connections with much output take turns, a frame of at most 16 kB each; frames about the link come first.
    Link = proplists:get_value(link, Config),
    #{data_chunk := Chunk, output_queue := Room} = megaphone_nif:limits(),
    Handles = [started(Link, Id, get_request("/")) || Id <- [1, 2, 3]],
    [ok = megaphone:send(Handle, binary:copy(<<"x">>, Room)) || Handle <- Handles],
    {ok, []} = input(Link, {ping, <<"12345678">>}),
    [Pong | Frames] = output(Link),
    ?assertEqual({pong, <<"12345678">>}, Pong),
    Turns = [{Id, byte_size(Data)} || {data, Id, Data} <- Frames],
    ?assertEqual(lists:append(lists:duplicate(Room div Chunk, [{Id, Chunk} || Id <- [1, 2, 3]])), Turns),
    ?assertReceive(megaphone_output).

%% ---- consumers -------------------------------------------------------------------------------------------------

consumer_that_dies(Config) ->
    %% When a consumer dies what it has sent still goes out, then a close; the id is free after the ECM's close.
    Link = proplists:get_value(link, Config),
    {ok, [{start, Handle}]} = input(Link, [open(1), {data, 1, get_request("/")}]),
    Consumer = spawn(fun() -> receive go -> ok = megaphone:send(Handle, <<"half an answer">>) end end),
    ok = megaphone_nif:set_consumer(Handle, Consumer),
    Monitor = monitor(process, Consumer),
    Consumer ! go,
    ?assertReceive({'DOWN', Monitor, process, Consumer, normal}),
    ok = wait_until(fun() -> megaphone:info(Handle) =:= {error, closed} end),
    ?assertMatch([{data, 1, <<"half an answer">>}, {close, 1, _}], output(Link)),
    ?assertMatch({stop, _, []}, input(Link, open(1))).

consumer_that_comes_late(Config) ->
    %% A consumer that died before it was named, or whose connection has been closed meanwhile, changes nothing.
    Link = proplists:get_value(link, Config),
    {ok, [{start, One}, {start, Two}]} = input(Link, [
        open(1), {data, 1, get_request("/")}, open(2), {data, 2, get_request("/")}
    ]),
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    ?assertReceive({'DOWN', Monitor, process, Dead, _}),
    _ = megaphone_nif:set_consumer(One, Dead),
    ?assertEqual({error, closed}, megaphone:recv(One, 0)),
    {ok, []} = input(Link, {close, 2, 1}),
    ?assertEqual({error, closed}, megaphone_nif:set_consumer(Two, self())),
    ?assertMatch([{close, 1, _}, {close, 2, _}], lists:sort(output(Link))).

input_of_the_next_request_waits(Config) ->
    %% A consumer is never given bytes beyond its request, whatever it asks for; a body is given with its exact length.
    Link = proplists:get_value(link, Config),
    Head = <<"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n">>,
    Requests = <<Head/binary, "0123456789GET /next HTTP/1.1\r\nHost: a\r\n\r\n">>,
    {ok, [{start, Handle}]} = input(Link, [open(1), {data, 1, Requests}]),
    ok = megaphone_nif:set_consumer(Handle, self()),
    Size = byte_size(Head),
    {ok, Head} = gen_tcp:recv(megaphone:socket(Handle), Size),
    ?assertEqual({error, einval}, gen_tcp:recv(megaphone:socket(Handle), 11, 0)),
    ?assertEqual({ok, <<"0123">>}, gen_tcp:recv(megaphone:socket(Handle), 4, 0)),
    ?assertEqual({ok, <<"456789">>}, gen_tcp:recv(megaphone:socket(Handle), 6, 0)),
    ok = megaphone:send(Handle, <<"answer">>),
    ?assertMatch({ok, <<"GET /next", _/binary>>}, megaphone:recv(Handle, 0)).

%% ---- ends ------------------------------------------------------------------------------------------------------

link_goes_down(Config) ->
    %% A link that is down takes no input and gives no output; its connections answer closed, those of others go on.
    [Link, Other] = [proplists:get_value(link, Config), link_up()],
    [Handle, Neighbour] = [started(Each, 1, get_request("/")) || Each <- [Link, Other]],
    ok = megaphone:send(Handle, <<"lost">>),
    ok = megaphone_nif:link_down(Link),
    ok = megaphone_nif:link_down(Link),
    ?assertEqual({error, closed}, megaphone_nif:link_input(Link, encode({ping, <<"12345678">>}))),
    ?assertEqual({error, closed}, megaphone_nif:link_output(Link)),
    ?assertMatch(#{link := _, peer := <<"test">>}, megaphone_nif:link_info(Link)),
    _ = sweep(Link, 0, 0),
    ?assertEqual({error, closed}, megaphone:send(Handle, <<"x">>)),
    ?assertEqual({error, closed}, megaphone:peername(Handle)),
    ok = megaphone:send(Neighbour, <<"x">>),
    ?assertEqual([{data, 1, <<"x">>}], output(Other)),
    _ = link_end(Other).

sweep_of_many_connections(Config) ->
    %% The connections of a dead link are closed in slices, and everybody who waits in them is told.
    Link = proplists:get_value(link, Config),
    Count = 100000,
    {ok, []} = input(Link, [open(Id) || Id <- lists:seq(101, Count)]),
    Large = <<"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n">>,
    Handles = [started(Link, Id, Large) || Id <- lists:seq(1, 100)],
    Readers = [megaphone_test:reader(Handle, 0) || Handle <- Handles],
    #{connections := Count} = megaphone_nif:link_info(Link),
    ?assert(link_end(Link) >= Count div 1024),
    [?assertReceive({Reader, {error, closed}}) || Reader <- Readers].

most_connections_of_a_link(Config) ->
    %% A link may have as many connections as the limit says; a further open is refused, and taken when one is closed.
    #{max_link_connections := Most} = megaphone_nif:limits(),
    Link = proplists:get_value(link, Config),
    open_many(Link, 1, Most),
    ?assertEqual([], output(Link)),
    ?assertMatch(#{connections := Most}, megaphone_nif:link_info(Link)),
    {ok, []} = input(Link, open(Most + 1)),
    ?assertMatch([{close, _, 3}, {error, _, 4, _}], lists:sort(output(Link))),
    {ok, []} = input(Link, [{close, Most + 1, 0}, {close, 1, 0}, open(1)]),
    ?assertEqual([{close, 1, 0}], output(Link)).

open_many(Link, From, To) when From > To ->
    _ = Link,
    ok;
open_many(Link, From, To) ->
    Next = min(From + 999, To),
    {ok, []} = input(Link, [open(Id) || Id <- lists:seq(From, Next)]),
    open_many(Link, Next + 1, To).

most_local_connections(_Config) ->
    %% As many connections as the limit says may be opened from Erlang; one more is refused, and there is room again
    %% when one is closed, or all by the death of their owner.
    #{max_local_connections := Most} = megaphone_nif:limits(),
    Owner = run(fun() ->
        Opened = [element(2, {ok, _} = megaphone:open()) || _ <- lists:seq(1, Most)],
        Refused = megaphone:open(),
        ok = megaphone:close(hd(Opened)),
        {ok, Again} = megaphone:open(),
        {Refused, megaphone:put_data(Again, <<"x">>), length(Opened)}
    end),
    {Owner, Result} = ?assertReceive({Owner, _}),
    ?assertEqual({{error, {limit, connections}}, ok, Most}, Result),
    ok = wait_until(fun() -> maps:get(local, megaphone_test:stats()) =:= 0 end).

%% ---- others ----------------------------------------------------------------------------------------------------

random_frames_leave_nothing(_Config) ->
    %% Links that bring random frames, good and bad, for a few connections, while their consumers do random things: each
    %% ends in good order or with a reason, and nothing is left of it.
    lists:foreach(
        fun(Seed) ->
            {ok, Link} = megaphone_nif:link_open(<<"test">>, none, http),
            Consumers = random_steps(Link, 300, [], rand:seed_s(exsss, Seed)),
            _ = link_end(Link),
            [exit(Pid, kill) || Pid <- Consumers]
        end,
        lists:seq(1, 150)
    ),
    ok = wait_until(fun() -> maps:get(connections, megaphone_test:stats()) =:= 0 end).

random_steps(_Link, 0, Consumers, _Rand) ->
    Consumers;
random_steps(Link, Steps, Consumers, Rand0) ->
    {Kind, Rand1} = rand:uniform_s(16, Rand0),
    {Number, Rand} = rand:uniform_s(1000, Rand1),
    Frame = if Steps =:= 300 -> encode(hello()); true -> random_frame(Kind, 1 + Number rem 5, Number) end,
    Steps rem 7 =:= 0 andalso output_bytes(Link),
    case input_bytes(Link, Frame) of
        {ok, Actions} ->
            New = [consumer(Handle, Number) || {start, Handle} <- Actions],
            random_steps(Link, Steps - 1, New ++ Consumers, Rand);
        {stop, Reason, Actions} ->
            ?assert(is_binary(Reason)),
            ?assertMatch([_], [Code || {error, 0, Code, Said} <- output(Link), Said =:= Reason]),
            [consumer(Handle, Number) || {start, Handle} <- Actions] ++ Consumers
    end.

random_frame(1, Id, _) -> encode(open(Id));
random_frame(2, Id, _) -> encode([{close, Id, 0}, open(Id)]);
random_frame(3, Id, _) -> encode({close, Id, 1});
random_frame(4, Id, Number) -> encode({window, Id, Number * 100});
random_frame(5, _, Number) -> encode({ping, <<Number:64>>});
random_frame(6, Id, Number) -> encode({data, Id, binary:copy(<<"x">>, Number)});
random_frame(7, Id, Number) -> encode({data, Id, request("POST", "/", [], binary:copy(<<"x">>, Number * 70))});
random_frame(8, Id, Number) -> encode({data, Id, binary:part(get_request("/"), 0, 1 + Number rem 30)});
random_frame(9, _, 1) -> encode({error, 0, 0, <<"x">>});
random_frame(9, Id, _) -> encode({error, Id, 0, <<"x">>});
random_frame(10, Id, Number) when Number < 10 -> megaphone_test_link:frame(Number, Id, <<"x">>);
random_frame(_, Id, _) -> encode({data, Id, get_request("/")}).

%% Does one of the things that consumers do, and some that none should.
consumer(Handle, Number) ->
    Socket = megaphone:socket(Handle),
    Do = fun
        (0) -> ok;
        (1) -> gen_tcp:recv(Socket, 0), gen_tcp:send(Socket, <<"answer">>), gen_tcp:recv(Socket, 0);
        (2) -> gen_tcp:recv(Socket, 0), gen_tcp:send(Socket, binary:copy(<<"x">>, 200000));
        (3) -> inet:setopts(Socket, [{active, true}]), receive {tcp_closed, Socket} -> ok end;
        (4) -> gen_tcp:send(Socket, <<"early answer">>), gen_tcp:recv(Socket, 0), gen_tcp:recv(Socket, 0);
        (5) -> gen_tcp:shutdown(Socket, write), gen_tcp:recv(Socket, 0);
        (6) -> gen_tcp:recv(Socket, 100000), gen_tcp:close(Socket);
        (7) -> inet:setopts(Socket, [{packet, http_bin}]), gen_tcp:recv(Socket, 0)
    end,
    Pid = spawn(fun() ->
        receive go -> ok end,
        Do(Number rem 8)
    end),
    _ = megaphone_nif:set_consumer(Handle, Pid),
    Pid ! go,
    Pid.

counters_of_a_link(Config) ->
    %% What is told of a link is right: bytes both ways, connections, and what found no connection.
    Link = proplists:get_value(link, Config),
    #{bytes_in := In, bytes_out := Out} = megaphone_nif:link_info(Link),
    Frames = encode([open(1), open(2), {close, 2, 0}, {data, 5, <<"x">>}, {error, 7, 1, <<"x">>}]),
    {ok, []} = input_bytes(Link, Frames),
    Sent = iolist_to_binary(output_bytes(Link)),
    ?assertEqual(
        #{connections => 1, opened => 2, undelivered => 2, bytes_in => In + byte_size(Frames), bytes_out => Out + byte_size(Sent)},
        maps:with([connections, opened, undelivered, bytes_in, bytes_out], megaphone_nif:link_info(Link))
    ).

wrong_arguments(Config) ->
    %% What is no link, no binary or no process raises badarg, and changes nothing.
    Link = proplists:get_value(link, Config),
    Handle = started(Link, 1, get_request("/")),
    Wrong = [
        {link_open, [not_text, none, http]}, {link_open, [<<"peer">>, secret, http]}, {link_open, [<<"peer">>, none, smtp]}, {link_open, [<<"peer">>, {<<"short">>, <<0:256>>}, http]},
        {link_open, [<<"peer">>, {<<"long enough a secret">>, <<0:248>>}, http]}, {link_refuse, [make_ref(), <<"why">>]},
        {link_refusal, [why]}, {link_input, [make_ref(), <<>>]}, {link_input, [Link, "list"]}, {link_output, [Link, 1]},
        {link_down, [self()]}, {link_sweep, [Link, -1]}, {link_info, [x]}, {set_owner, [Handle, x]}, {set_consumer, [Handle, x]},
        {put_data, [Handle, x]}, {recv, [Handle, -1]}, {recv, [Handle, x]}, {get_data, [Handle, x]}, {cancel, [Handle, x]},
        {send, [Handle, x]}, {set_packet, [Handle, x]}, {shutdown, [Handle, x]}, {open, [x, raw]}, {open, [{{1, 2, 3}, 1}, raw]}
    ],
    [?assertError(Reason when Reason =:= badarg orelse Reason =:= undef, apply(megaphone_nif, Name, Args)) || {Name, Args} <- Wrong],
    ?assertEqual(0, held(readers, Handle)),
    ?assertEqual([], output(Link)),
    ?assertEqual(<<>>, read_now(Handle)).
