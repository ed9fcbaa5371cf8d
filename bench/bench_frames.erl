%% The connection manager's end of a link, as far as measurements need it: frames, and a link that is fed by hand.
-module(bench_frames).

-export([frame/3, open/1, data/2, link/0, input/2, feed/2, output/1]).

-define(HELLO, 1).
-define(OPEN, 3).
-define(DATA, 4).

%% Bytes read from a link at once.
-define(CHUNK, 65536).

-spec frame(byte(), non_neg_integer(), binary()) -> binary().
frame(Type, Id, Payload) ->
    <<(9 + byte_size(Payload)):32, Type, Id:64, Payload/binary>>.

%% @doc A client with an IPv6 address opens a connection.
-spec open(non_neg_integer()) -> binary().
open(Id) ->
    Client = <<6, 16#20010db8:32, 0:32, Id:64, 40000:16>>,
    Local = <<6, 16#20010db8:32, 1:96, 443:16>>,
    frame(?OPEN, Id, <<1, 1, Client/binary, Local/binary>>).

-spec data(non_neg_integer(), binary()) -> binary().
data(Id, Bytes) ->
    frame(?DATA, Id, Bytes).

%% @doc A link whose other end has said hello and takes whatever it is sent.
-spec link() -> megaphone_nif:link().
link() ->
    {ok, Link} = megaphone_nif:link_open(<<"bench">>, none, http),
    Window = 16#7fffffff,
    [] = input(Link, frame(?HELLO, 0, <<"MGPH", 1, 1, 1:32, Window:32, 5, "bench">>)),
    ok = output(Link),
    Link.

%% @doc Feeds bytes as they would be read from a socket. The connections that have a request for a new consumer.
-spec input(megaphone_nif:link(), iodata()) -> [megaphone_nif:handle()].
input(Link, Bytes) ->
    input(Link, iolist_to_binary(Bytes), []).

input(_Link, <<>>, Started) ->
    lists:append(lists:reverse(Started));
input(Link, Bytes, Started) ->
    Size = min(?CHUNK, byte_size(Bytes)),
    <<Chunk:Size/binary, Rest/binary>> = Bytes,
    input(Link, Rest, [feed(Link, Chunk) | Started]).

%% @doc Feeds one chunk and goes on until all of it is worked on.
-spec feed(megaphone_nif:link(), binary()) -> [megaphone_nif:handle()].
feed(Link, Chunk) ->
    case megaphone_nif:link_input(Link, Chunk) of
        {ok, Actions} -> [Handle || {start, Handle} <- Actions];
        {more, Actions} -> [Handle || {start, Handle} <- Actions] ++ feed(Link, <<>>)
    end.

%% @doc Takes all output and throws it away.
-spec output(megaphone_nif:link()) -> ok.
output(Link) ->
    case megaphone_nif:link_output(Link) of
        {ok, _} -> output(Link);
        empty -> ok
    end.
