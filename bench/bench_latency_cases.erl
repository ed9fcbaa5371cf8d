%% The calls of the NIF that take longest, as far as somebody could think of them: in a node with one scheduler.
-module(bench_latency_cases).

-export([names/0, run/2]).

-type times() :: [Nanoseconds :: non_neg_integer(), ...].

%% Bytes of the longest line that is read.
-define(LONGEST_LINE, 65536).

%% Connections that are opened between rests, so that an urgent process is not stopped, and milliseconds of a rest.
-define(BURST, 50000).
-define(REST, 100).

%% Repetitions of what is a single call.
-define(TIMES, 20).

%% @doc All cases: how each is measured, and what it is.
-spec names() -> [{atom(), cpu | wall, string()}].
names() ->
    [
        {smallest_frames, cpu, "link_input: 64 kB of the smallest frames"},
        {pings, cpu, "link_input: 64 kB of pings, which are answered"},
        {opens, cpu, "link_input: 64 kB of open frames"},
        {closes, cpu, "link_input: 64 kB of close frames"},
        {longest_heads, cpu, "link_input: 64 kB of the longest heads"},
        {pieces_of_a_head, cpu, "link_input: a long head byte by byte"},
        {pieces_of_a_body, cpu, "link_input: a body of 64 kB byte by byte"},
        {recv_pieces, cpu, "recv: 128 kB that came byte by byte"},
        {active_pieces, cpu, "set_active(true): 128 kB that came byte by byte"},
        {close_pieces, cpu, "close: 128 kB that came byte by byte, unread"},
        {sweep_pieces, cpu, "link_sweep: connections with 128 kB that came byte by byte"},
        {sweep_idle, cpu, "link_sweep: idle connections"},
        {sweep_waiting, cpu, "link_sweep: a reader on each connection"},
        {sweep_crowds, cpu, "link_sweep: as many readers on a connection as there may be"},
        {output, cpu, "link_output: all connections are ready"},
        {biggest_put, cpu, "put_data: 1 MB"},
        {biggest_recv, cpu, "recv: 1 MB"},
        {local_pieces, cpu, "recv: 1 MB that came byte by byte"},
        {put_without_line_end, cpu, "put_data: byte by byte to a long line, for whose end a reader waits"},
        {longest_line, cpu, "recv: the longest header field, as a binary"},
        {longest_list, cpu, "recv: the longest header field, as a list"},
        {biggest_packet, cpu, "recv_packet: a head and the biggest body"},
        {elements_in_batches, cpu, "link_input: 64 kB of messages, as many elements as there may be"},
        {elements_for_an_owner, cpu, "activate: 12 kB of messages, as many elements as there may be"},
        {bosh_bodies, cpu, "bosh_body: 8 kB, as many elements as there may be"},
        {bosh_asked, cpu, "bosh_activate: 12 kB of bodies, as many elements as there may be"},
        {bosh_sends, cpu, "bosh_send: the longest answer"},
        {bosh_timers, cpu, "bosh_tick: sessions that end"},
        {opening, wall, "open: one owner of all"},
        {largest_message, wall, "deliver_large: 256 kB, 65,000 elements"},
        {owner_dies, wall, "death of the owner of all"},
        {reader_dies, wall, "death of a process that reads from all"}
    ].

%% @private
%% @doc Times of the calls of a case, with so many connections where it needs many: by the case's clock, and by wall clock.
-spec run(atom(), pos_integer()) -> {times(), Walls :: times()}.
run(Case, Connections) ->
    {ok, _} = application:ensure_all_started(megaphone),
    %% The case's own process takes along what it has left.
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        ok = bench_thread:prepare(),
        Times = times(Case, Connections),
        %% Where a case reads wall clock by itself, that is all there is.
        Walls = case bench_thread:walls() of [] -> Times; Noted -> Noted end,
        Self ! {self(), {Times, Walls}}
    end),
    receive
        {Pid, Times} ->
            receive {'DOWN', Monitor, process, Pid, normal} -> Times end;
        {'DOWN', Monitor, process, Pid, Reason} ->
            error({Case, Reason})
    end.

-spec times(atom(), pos_integer()) -> times().
times(smallest_frames, _) -> fed(frames(10, <<>>));
times(pings, _) -> fed(frames(8, <<1:64>>));
times(opens, _) -> fed(fun(_) -> many(fun bench_frames:open/1) end);
times(closes, _) ->
    fed(fun(Link) ->
        [] = bench_frames:input(Link, many(fun bench_frames:open/1)),
        many(fun(Id) -> bench_frames:frame(5, Id, <<0>>) end)
    end);
times(longest_heads, _) -> fed(fun longest_heads/1);
times(pieces_of_a_head, _) ->
    fed(fun(Link) ->
        [] = bench_frames:input(Link, [bench_frames:open(1), bench_frames:data(1, binary:part(head(), 0, limit(max_head) - 600))]),
        pieces(1, 500)
    end);
times(pieces_of_a_body, _) ->
    fed(fun(Link) ->
        Start = <<"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n", (letters(60000))/binary>>,
        [] = bench_frames:input(Link, [bench_frames:open(1) | slices(Start)]),
        pieces(1, 4000)
    end);
times(recv_pieces, _) -> [recv_time(tunnel_with_pieces()) || _ <- lists:seq(1, ?TIMES)];
times(active_pieces, _) ->
    [
        begin
            Handle = tunnel_with_pieces(),
            ok = megaphone_nif:set_owner(Handle, self()),
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:set_active(Handle, true) end),
            flush(),
            Time
        end
     || _ <- lists:seq(1, 3)
    ];
times(close_pieces, _) ->
    [
        begin
            Handle = tunnel_with_pieces(),
            element(1, bench_thread:cpu(fun() -> megaphone_nif:close(Handle) end))
        end
     || _ <- lists:seq(1, ?TIMES)
    ];
times(sweep_pieces, _) ->
    Link = bench_frames:link(),
    _ = [pieces_for(Link, Id) || {Id, _} <- tunnels(Link, 32)],
    swept(Link);
times(sweep_idle, Connections) ->
    Link = bench_frames:link(),
    opened(Link, Connections),
    swept(Link);
times(sweep_waiting, Connections) ->
    Link = bench_frames:link(),
    Handles = [Handle || {_, Handle} <- tunnels(Link, Connections)],
    reading(Handles),
    swept(Link);
times(sweep_crowds, Connections) ->
    Link = bench_frames:link(),
    Most = limit(max_waiters),
    Handles = [Handle || {_, Handle} <- tunnels(Link, max(1, Connections div Most))],
    _ = [reading(Handles) || _ <- lists:seq(1, Most)],
    swept(Link);
times(output, Connections) ->
    Link = bench_frames:link(),
    Answer = letters(1000),
    _ = [ok = megaphone_nif:send(Handle, Answer) || {_, Handle} <- tunnels(Link, Connections)],
    output(Link);
times(biggest_put, _) ->
    Data = letters(limit(local_queue)),
    [
        begin
            Handle = local(raw),
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:put_data(Handle, Data) end),
            ok = megaphone_nif:close(Handle),
            Time
        end
     || _ <- lists:seq(1, ?TIMES)
    ];
times(biggest_recv, _) ->
    Data = letters(limit(local_queue)),
    [
        begin
            Handle = local(raw),
            ok = megaphone_nif:put_data(Handle, Data),
            recv_time(Handle)
        end
     || _ <- lists:seq(1, ?TIMES)
    ];
times(local_pieces, _) ->
    [
        begin
            Handle = local(raw),
            _ = [ok = megaphone_nif:put_data(Handle, <<"x">>) || _ <- lists:seq(1, limit(local_queue))],
            recv_time(Handle)
        end
     || _ <- lists:seq(1, 3)
    ];
times(put_without_line_end, _) ->
    Handle = local(http_bin),
    {wait, _} = megaphone_nif:recv(Handle, 0),
    [put_time(Handle, letters(?LONGEST_LINE - ?TIMES - 1))] ++
        [put_time(Handle, <<"x">>) || _ <- lists:seq(1, ?TIMES)] ++ [put_time(Handle, <<"\n">>)];
times(longest_line, _) -> [recv_time(with_line(http_bin)) || _ <- lists:seq(1, ?TIMES)];
times(longest_list, _) -> [recv_time(with_line(http)) || _ <- lists:seq(1, ?TIMES)];
times(biggest_packet, _) ->
    Length = limit(local_queue) div 2,
    Head = <<"POST / HTTP/1.1\r\nContent-Length: ", (integer_to_binary(Length))/binary, "\r\n\r\n">>,
    Pieces = [letters(1024) || _ <- lists:seq(1, Length div 1024)],
    [
        begin
            Handle = local(http_bin),
            _ = [ok = megaphone_nif:put_data(Handle, Piece) || Piece <- [Head | Pieces]],
            {Time, ok} = bench_thread:cpu(fun() -> element(1, megaphone:recv_packet(Handle, 0)) end),
            ok = megaphone_nif:close(Handle),
            Time
        end
     || _ <- lists:seq(1, ?TIMES)
    ];
times(opening, Connections) ->
    %% The index grows in large steps, which only many connections reach.
    Owner = owner(10 * Connections),
    [receive {Owner, Longest} -> Longest end];
times(elements_in_batches, _) -> bench_latency_messages:batches(?TIMES);
times(bosh_bodies, _) -> bench_latency_bosh:bodies(?TIMES);
times(bosh_asked, _) -> bench_latency_bosh:asked(?TIMES);
times(bosh_sends, _) -> bench_latency_bosh:sends(?TIMES);
times(bosh_timers, _) -> bench_latency_bosh:timers(7);
times(elements_for_an_owner, _) -> bench_latency_messages:activate(?TIMES);
times(largest_message, _) ->
    rested(),
    bench_latency_messages:large(?TIMES);
times(owner_dies, Connections) ->
    Owner = owner(Connections),
    receive {Owner, _} -> ok end,
    rested(),
    [bench_thread:held(fun() -> gone(Owner) end)];
times(reader_dies, Connections) ->
    Handles = [local(raw) || _ <- lists:seq(1, Connections)],
    Reader = reading(Handles),
    rested(),
    [bench_thread:held(fun() -> gone(Reader) end)].

%% ---- links -----------------------------------------------------------------------------------------------------

%% Times of the calls that take what the function makes for a link.
-spec fed(fun((megaphone_nif:link()) -> iodata())) -> times().
fed(Make) ->
    lists:append([
        begin
            Link = bench_frames:link(),
            <<Chunk:65536/binary, _/binary>> = padded(iolist_to_binary(Make(Link))),
            Times = feed(Link, Chunk),
            %% What this takes is not asked for: measuring it is slow.
            _ = swept(Link, fun(Call) -> {0, Call()} end),
            Times
        end
     || _ <- lists:seq(1, ?TIMES)
    ]).

%% What is shorter than a chunk is followed by frames that mean nothing.
-spec padded(binary()) -> binary().
padded(Input) when byte_size(Input) >= 65536 -> Input;
padded(Input) -> padded(<<Input/binary, (bench_frames:frame(10, 0, <<>>))/binary>>).

-spec feed(megaphone_nif:link(), binary()) -> times().
feed(Link, Chunk) ->
    case bench_thread:cpu(fun() -> megaphone_nif:link_input(Link, Chunk) end) of
        {Time, {ok, _}} -> [Time];
        {Time, {more, _}} -> [Time | feed(Link, <<>>)]
    end.

-spec frames(byte(), binary()) -> fun((megaphone_nif:link()) -> iodata()).
frames(Type, Payload) ->
    fun(_Link) -> many(fun(_) -> bench_frames:frame(Type, 0, Payload) end) end.

-spec many(fun((pos_integer()) -> binary())) -> iodata().
many(Frame) ->
    [Frame(Id) || Id <- lists:seq(1, 65536 div byte_size(Frame(1)) + 1)].

-spec longest_heads(megaphone_nif:link()) -> iodata().
longest_heads(Link) ->
    [] = bench_frames:input(Link, [bench_frames:open(Id) || Id <- lists:seq(1, 4)]),
    [bench_frames:data(Id, head()) || Id <- lists:seq(1, 4)].

%% As long, and with as many fields, as a head may be.
-spec head() -> binary().
head() ->
    Start = <<"GET / HTTP/1.1\r\nHost: a\r\n">>,
    Fields = << <<"X-Field-Number-", (integer_to_binary(Number))/binary, ": ", (letters(140))/binary, "\r\n">> || Number <- lists:seq(10, 107) >>,
    Rest = limit(max_head) - byte_size(Start) - byte_size(Fields) - byte_size(<<"X-Last: \r\n\r\n">>),
    <<Start/binary, Fields/binary, "X-Last: ", (letters(Rest))/binary, "\r\n\r\n">>.

-spec pieces(pos_integer(), pos_integer()) -> [binary()].
pieces(Id, Count) ->
    lists:duplicate(Count, bench_frames:data(Id, <<"x">>)).

%% Data frames as an ECM cuts them.
-spec slices(binary()) -> [binary()].
slices(<<Slice:16384/binary, Rest/binary>>) -> [bench_frames:data(1, Slice) | slices(Rest)];
slices(Rest) -> [bench_frames:data(1, Rest)].

-spec opened(megaphone_nif:link(), pos_integer()) -> ok.
opened(Link, Connections) ->
    [] = bench_frames:input(Link, [bench_frames:open(Id) || Id <- lists:seq(1, Connections)]),
    ok.

%% Connections that have become tunnels, as those of WebSocket clients.
-spec tunnels(megaphone_nif:link(), pos_integer()) -> [{Id :: pos_integer(), megaphone_nif:handle()}].
tunnels(Link, Connections) ->
    opened(Link, Connections),
    Request = <<"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n">>,
    Handles = bench_frames:input(Link, [bench_frames:data(Id, Request) || Id <- lists:seq(1, Connections)]),
    Connections = length(Handles),
    _ = [tunnel(Handle, Request) || Handle <- Handles],
    ok = bench_frames:output(Link),
    lists:zip(lists:seq(1, Connections), Handles).

-spec tunnel(megaphone_nif:handle(), binary()) -> ok.
tunnel(Handle, Request) ->
    {ok, Request} = megaphone_nif:recv(Handle, 0),
    ok = megaphone_nif:set_active(Handle, once),
    ok = megaphone_nif:set_active(Handle, false).

%% As much as a connection may hold, in pieces of one byte.
-spec tunnel_with_pieces() -> megaphone_nif:handle().
tunnel_with_pieces() ->
    Link = bench_frames:link(),
    [{Id, Handle}] = tunnels(Link, 1),
    pieces_for(Link, Id),
    Handle.

-spec pieces_for(megaphone_nif:link(), pos_integer()) -> ok.
pieces_for(Link, Id) ->
    %% The request that made the tunnel has used some of the window.
    [] = bench_frames:input(Link, pieces(Id, limit(window) - 100)),
    ok.

-spec swept(megaphone_nif:link()) -> times().
swept(Link) ->
    swept(Link, fun bench_thread:cpu/1).

%% Sweeps a link's connections; each call goes through this function, which tells how long it took.
-spec swept(megaphone_nif:link(), fun((fun(() -> T)) -> {non_neg_integer(), T})) -> times().
swept(Link, Measure) ->
    ok = megaphone_nif:link_down(Link),
    sweep(Link, 0, Measure).

-spec sweep(megaphone_nif:link(), non_neg_integer(), fun((fun(() -> T)) -> {non_neg_integer(), T})) -> times().
sweep(Link, Cursor, Measure) ->
    case Measure(fun() -> megaphone_nif:link_sweep(Link, Cursor) end) of
        {Time, {more, Next}} -> [Time | sweep(Link, Next, Measure)];
        {Time, done} -> [Time]
    end.

-spec output(megaphone_nif:link()) -> times().
output(Link) ->
    Output = fun() ->
        case megaphone_nif:link_output(Link) of
            {ok, _} -> more;
            empty -> empty
        end
    end,
    case bench_thread:cpu(Output) of
        {Time, more} -> [Time | output(Link)];
        {Time, empty} -> [Time]
    end.

%% ---- connections -----------------------------------------------------------------------------------------------

-spec local(raw | http_bin) -> megaphone_nif:handle().
local(Packet) ->
    {ok, Handle} = megaphone_nif:open({{127, 0, 0, 1}, 1}, Packet),
    Handle.

-spec limit(atom()) -> pos_integer().
limit(Name) ->
    maps:get(Name, megaphone_nif:limits()).

-spec letters(non_neg_integer()) -> binary().
letters(Count) ->
    binary:copy(<<"x">>, Count).

-spec recv_time(megaphone_nif:handle()) -> non_neg_integer().
recv_time(Handle) ->
    {Time, ok} = bench_thread:cpu(fun() -> element(1, megaphone_nif:recv(Handle, 0)) end),
    ok = megaphone_nif:close(Handle),
    Time.

%% A put may be refused by a limit: that is quick, too.
-spec put_time(megaphone_nif:handle(), binary()) -> non_neg_integer().
put_time(Handle, Data) ->
    element(1, bench_thread:cpu(fun() -> megaphone_nif:put_data(Handle, Data) end)).

%% A connection of which the request line was read, and a very long header field was not.
-spec with_line(http_bin | http) -> megaphone_nif:handle().
with_line(Packet) ->
    Handle = local(Packet),
    ok = megaphone_nif:put_data(Handle, <<"GET / HTTP/1.1\r\n">>),
    {ok, {http_request, _, _, _}} = megaphone_nif:recv(Handle, 0),
    ok = megaphone_nif:put_data(Handle, <<"X: ", (letters(?LONGEST_LINE - 5))/binary, "\r\n\r\n">>),
    Handle.

%% A process that owns connections, and tells the longest time that it took to open one.
-spec owner(pos_integer()) -> pid().
owner(Connections) ->
    Self = self(),
    spawn_link(fun() ->
        Self ! {self(), open(Connections, 0)},
        receive stop -> ok end
    end).

-spec open(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
open(0, Longest) ->
    Longest;
open(Left, Longest) ->
    _ = Left rem ?BURST =:= 0 andalso receive after ?REST -> ok end,
    Before = erlang:monotonic_time(nanosecond),
    _ = local(raw),
    open(Left - 1, max(Longest, erlang:monotonic_time(nanosecond) - Before)).

%% A process that reads from all of these, and waits.
-spec reading([megaphone_nif:handle()]) -> pid().
reading(Handles) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        _ = [{wait, _} = megaphone_nif:recv(Handle, 0) || Handle <- Handles],
        Self ! {self(), reading},
        receive stop -> ok end
    end),
    receive {Pid, reading} -> Pid end.

-spec gone(pid()) -> ok.
gone(Pid) ->
    Monitor = erlang:monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end.

%% Linux counts how long an urgent process has run by the second.
-spec rested() -> ok.
rested() ->
    receive
    after 1100 -> ok
    end.

-spec flush() -> ok.
flush() ->
    receive
        _ -> flush()
    after 0 -> ok
    end.
