%% The longest calls for messages of XMPP clients: elements of four bytes each, as many as there may be.
-module(bench_latency_messages).

-export([batches/1, activate/1, large/1]).

%% Milliseconds for what is delivered at once.
-define(PATIENCE, 5000).

-type times() :: [Nanoseconds :: non_neg_integer(), ...].

%% @doc The input of a link with 64 kB of the longest messages that are taken apart at once, for as many owners who have asked.
-spec batches(pos_integer()) -> times().
batches(Times) ->
    Message = message(small()),
    {Link, Handles} = clients(65536 div byte_size(Message)),
    Chunk = iolist_to_binary([bench_frames:data(Id, Message) || {Id, _} <- Handles]),
    [
        begin
            asked(Handles),
            {Time, {more, []}} = bench_thread:cpu(fun() -> megaphone_nif:link_input(Link, Chunk) end),
            ok = rest(Link),
            delivered(length(Handles)),
            Time
        end
     || _ <- lists:seq(1, Times)
    ].

%% @doc What an owner gets when it asks: two such messages.
-spec activate(pos_integer()) -> times().
activate(Times) ->
    {Link, [{Id, Handle}] = Handles} = clients(1),
    %% Both together are as much as is given at once.
    Message = message(maps:get(max_batch_bytes, megaphone_nif:limits()) div 2 - 4),
    [
        begin
            [] = bench_frames:input(Link, [bench_frames:data(Id, Message), bench_frames:data(Id, Message)]),
            {Time, ok} = bench_thread:cpu(fun() -> megaphone_nif:activate(Handle) end),
            receive {tcp, Handle, [_, _]} -> ok after ?PATIENCE -> error(not_delivered) end,
            Time
        end
     || _ <- lists:seq(1, Times), Handles =/= []
    ].

%% @doc How long others wait while the largest message is taken apart, on a dirty scheduler: 256 kB, 65,000 elements.
-spec large(pos_integer()) -> times().
large(Times) ->
    {Link, [{Id, Handle}] = Handles} = clients(1),
    [
        begin
            asked(Handles),
            feed(Link, Id, message(maps:get(max_message, megaphone_nif:limits()))),
            Held = bench_thread:held(fun() -> ok = megaphone_nif:deliver_large(Handle) end),
            receive {tcp, Handle, [{xmlel, _, _, Els}]} -> true = length(Els) > 65000 after ?PATIENCE -> error(not_delivered) end,
            Held
        end
     || _ <- lists:seq(1, Times)
    ].

-spec small() -> pos_integer().
small() -> maps:get(small_message, megaphone_nif:limits()).

%% A message of so many bytes, as it is on a link.
-spec message(pos_integer()) -> binary().
message(Size) ->
    Elements = (Size - 7) div 4,
    Text = <<"<a>", (binary:copy(<<"<b/>">>, Elements))/binary, (binary:copy(<<" ">>, (Size - 7) rem 4))/binary, "</a>">>,
    <<Size:32, Text/binary>>.

%% Clients who have logged in, and whose owner is this process.
-spec clients(pos_integer()) -> {megaphone_nif:link(), [{pos_integer(), megaphone_nif:handle()}]}.
clients(Count) ->
    {ok, Link} = megaphone_nif:link_open(<<"bench">>, none, http_and_xmpp),
    Window = 16#7fffffff,
    {ok, [open]} = megaphone_nif:link_input(Link, bench_frames:frame(1, 0, <<"MGPH", 1, 1, 1:32, Window:32, 5, "bench">>)),
    Open = <<"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>">>,
    {Link, [
        begin
            Address = <<4, 192, 0, 2, 1, 40000:16>>,
            First = [bench_frames:frame(3, Id, <<2, 0, Address/binary, Address/binary>>), bench_frames:data(Id, <<(byte_size(Open)):32, Open/binary>>)],
            {ok, [{attach, Handle}]} = megaphone_nif:link_input(Link, iolist_to_binary(First)),
            ok = megaphone_nif:set_consumer(Handle, self()),
            ok = megaphone_nif:set_authenticated(Handle),
            ok = megaphone_nif:activate(Handle),
            receive {tcp, Handle, [{xmlstreamstart, _, _}]} -> ok end,
            {Id, Handle}
        end
     || Id <- lists:seq(1, Count)
    ]}.

-spec asked([{pos_integer(), megaphone_nif:handle()}]) -> ok.
asked(Handles) ->
    lists:foreach(fun({_, Handle}) -> ok = megaphone_nif:activate(Handle) end, Handles).

-spec delivered(non_neg_integer()) -> ok.
delivered(0) ->
    ok;
delivered(Count) ->
    receive
        {tcp, _, [{xmlel, _, _, _}]} -> delivered(Count - 1)
    after ?PATIENCE -> error({not_delivered, Count})
    end.

-spec feed(megaphone_nif:link(), pos_integer(), binary()) -> ok.
feed(Link, Id, <<Piece:16384/binary, Rest/binary>>) when Rest =/= <<>> ->
    {ok, []} = megaphone_nif:link_input(Link, bench_frames:data(Id, Piece)),
    feed(Link, Id, Rest);
feed(Link, Id, Piece) ->
    {ok, [{large, _}]} = megaphone_nif:link_input(Link, bench_frames:data(Id, Piece)),
    ok.

%% What one call has left to the next ones.
-spec rest(megaphone_nif:link()) -> ok.
rest(Link) ->
    case megaphone_nif:link_input(Link, <<>>) of
        {more, []} -> rest(Link);
        {ok, []} -> ok
    end.
