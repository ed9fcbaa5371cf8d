%% The longest calls about BOSH sessions: elements of four bytes each, as many as there may be; and timers.
-module(bench_latency_bosh).

-export([bodies/1, asked/1, sends/1, timers/1]).

%% Milliseconds for what is delivered at once.
-define(PATIENCE, 5000).

-type times() :: [Nanoseconds :: non_neg_integer(), ...].

%% @doc The longest body that is taken apart at once, for a client session that has asked.
-spec bodies(pos_integer()) -> times().
bodies(Times) ->
    Session = session(),
    [
        begin
            ok = megaphone_nif:bosh_activate(socket(Session)),
            Body = body(Session, N, small()),
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:bosh_body({self(), N}, Body) end),
            delivered(Session, 1900),
            Time
        end
     || N <- lists:seq(1, Times)
    ].

%% @doc What a client session gets when it asks: two such bodies.
-spec asked(pos_integer()) -> times().
asked(Times) ->
    Session = session(),
    %% Both together are as much as is given at once.
    Half = maps:get(max_batch_bytes, megaphone_nif:limits()) div 2,
    [
        begin
            [ok = megaphone_nif:bosh_body({self(), At}, body(Session, At, Half - 8)) || At <- [2 * N - 1, 2 * N]],
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:bosh_activate(socket(Session)) end),
            delivered(Session, 2800),
            Time
        end
     || N <- lists:seq(1, Times)
    ].

%% @doc An element that makes the longest answer.
-spec sends(pos_integer()) -> times().
sends(Times) ->
    Session = session(),
    Element = <<"<a>", (binary:copy(<<"x">>, maps:get(output_queue, megaphone_nif:limits()) - 7))/binary, "</a>">>,
    [
        begin
            ok = megaphone_nif:bosh_body({self(), N}, body(Session, N, 0)),
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:bosh_send(socket(Session), element, Element) end),
            receive {megaphone_bosh, N, 200, Text} -> true = byte_size(Text) > byte_size(Element) end,
            Time
        end
     || N <- lists:seq(1, Times)
    ].

%% @doc As many timers as one call looks at: sessions that end because their clients do nothing.
-spec timers(pos_integer()) -> times().
timers(Times) ->
    %% Nobody else may look.
    ok = sys:suspend(megaphone_bosh_clock),
    Sessions = [session() || _ <- lists:seq(1, 128 * Times)],
    [ok = megaphone_nif:bosh_activate(socket(Session)) || Session <- Sessions],
    %% A second after which they end, and a step.
    timer:sleep(1300),
    Slices = slices(),
    [receive {tcp_closed, Socket} -> ok end || {Socket, _} <- Sessions],
    ok = sys:resume(megaphone_bosh_clock),
    Slices.

-spec slices() -> times().
slices() ->
    case bench_thread:cpu(fun() -> megaphone_nif:bosh_tick() end) of
        {Time, {more, _}} -> [Time | slices()];
        {Time, {done, 0}} -> [Time]
    end.

-spec small() -> pos_integer().
small() -> maps:get(small_message, megaphone_nif:limits()).

%% A session that has logged in, whose client session is this process, and its sid.
-spec session() -> {megaphone_nif:bosh_socket(), binary()}.
session() ->
    Body = <<"<body rid='1' to='a' wait='60' hold='1'/>">>,
    {create, Waiter, <<"a">>, undefined, Body} = megaphone_nif:bosh_body({self(), 0}, Body),
    {ok, Socket} = megaphone_nif:bosh_create(Waiter, <<"a">>, {{127, 0, 0, 1}, 1}, {1, 120, 0}, Body),
    ok = megaphone_nif:bosh_set_owner(Socket, self()),
    ok = megaphone_nif:bosh_note(Socket, authenticated),
    ok = megaphone_nif:bosh_activate(Socket),
    receive {tcp, Socket, [{xmlstreamstart, _, _}]} -> ok end,
    ok = megaphone_nif:bosh_send(Socket, features, <<"<stream:features/>">>),
    receive
        {megaphone_bosh, 0, 200, Text} ->
            {match, [Sid]} = re:run(Text, "sid='([0-9a-f]+)'", [{capture, all_but_first, binary}]),
            {Socket, Sid}
    end.

-spec socket({megaphone_nif:bosh_socket(), binary()}) -> megaphone_nif:bosh_socket().
socket({Socket, _Sid}) -> Socket.

%% The Nth request of a session, with so many bytes, or without elements.
-spec body({megaphone_nif:bosh_socket(), binary()}, pos_integer(), non_neg_integer()) -> binary().
body({_Socket, Sid}, N, 0) ->
    <<"<body rid='", (integer_to_binary(N + 1))/binary, "' sid='", Sid/binary, "'/>">>;
body(Session, N, Size) ->
    Empty = body(Session, N, 0),
    Head = binary:part(Empty, 0, byte_size(Empty) - 2),
    Rest = Size - byte_size(Head) - byte_size(<<"></body>">>),
    <<Head/binary, ">", (binary:copy(<<"<b/>">>, Rest div 4))/binary, (binary:copy(<<" ">>, Rest rem 4))/binary, "</body>">>.

%% The client session has its elements, and whoever waited for an answer because of them is answered.
-spec delivered({megaphone_nif:bosh_socket(), binary()}, pos_integer()) -> ok.
delivered({Socket, _Sid}, Elements) ->
    receive
        {tcp, Socket, Events} -> true = length(Events) > Elements
    after ?PATIENCE -> error(not_delivered)
    end,
    answered().

-spec answered() -> ok.
answered() ->
    receive
        {megaphone_bosh, _, 200, _} -> answered()
    after 0 -> ok
    end.
