%% The link protocol as an ECM speaks it, written from docs/protocol.md alone: frames, requests, and a client over TCP.
-module(megaphone_test_link).

-include("megaphone_test.hrl").

-export([encode/1, frame/3, hello/0, hello/1, open/1, open/3, decode/1]).
-export([get_request/1, request/4, answer/2, ask/3, close/2]).
-export([greet/1, authenticate/3, proof/4, connect/1, connect_raw/1, send/2, send_bytes/2, next/1, next/2, await_close/1, disconnect/1]).
-export_type([frame/0, connection/0]).

-type frame() ::
    {hello, Role :: byte(), Version :: byte(), Window :: non_neg_integer(), Features :: non_neg_integer(), Name :: binary()}
    | {auth, binary()}
    | {open, id(), Kind :: byte(), Flags :: byte(), address(), address()}
    | {data, id(), binary()}
    | {close, id(), Reason :: byte()}
    | {error, id(), Code :: byte(), Text :: binary()}
    | {window, id(), non_neg_integer()}
    | {ping, binary()}
    | {pong, binary()}
    | drain
    | {ready, id(), Mode :: byte()}.
-type id() :: non_neg_integer().
-type address() :: {inet:ip_address(), inet:port_number()}.
-type connection() :: inet:socket().

%% ---- frames ----------------------------------------------------------------------------------------------------

-spec encode(frame() | [frame()]) -> binary().
encode(Frames) when is_list(Frames) -> iolist_to_binary([encode(Frame) || Frame <- Frames]);
encode({hello, Role, Version, Window, Features, Name}) ->
    frame(1, 0, <<"MGPH", Version, Role, Features:32, Window:32, (byte_size(Name)), Name/binary>>);
encode({auth, Bytes}) -> frame(2, 0, Bytes);
encode({open, Id, Kind, Flags, Client, Local}) -> frame(3, Id, [Kind, Flags, address(Client), address(Local)]);
encode({data, Id, Data}) -> frame(4, Id, Data);
encode({close, Id, Reason}) -> frame(5, Id, [Reason]);
encode({error, Id, Code, Text}) -> frame(6, Id, [Code, Text]);
encode({window, Id, Increment}) -> frame(7, Id, <<Increment:32>>);
encode({ping, Bytes}) -> frame(8, 0, Bytes);
encode({pong, Bytes}) -> frame(9, 0, Bytes);
encode(drain) -> frame(10, 0, <<>>);
encode({ready, Id, Mode}) -> frame(11, Id, [Mode]).

%% Any frame, good or bad.
-spec frame(byte(), id(), iodata()) -> binary().
frame(Type, Id, Payload) ->
    Bytes = iolist_to_binary(Payload),
    <<(9 + byte_size(Bytes)):32, Type, Id:64, Bytes/binary>>.

-spec address(address()) -> binary().
address({{A, B, C, D}, Port}) -> <<4, A, B, C, D, Port:16>>;
address({Ip, Port}) -> <<6, << <<Part:16>> || Part <- tuple_to_list(Ip)>>/binary, Port:16>>.

%% What an ECM says first.
-spec hello() -> frame().
hello() -> hello(131072).

-spec hello(Window :: non_neg_integer()) -> frame().
hello(Window) -> {hello, 1, 1, Window, 1, <<"test ECM">>}.

-spec open(id()) -> frame().
open(Id) -> open(Id, {{192, 0, 2, 10}, 51000}, {{198, 51, 100, 1}, 443}).

-spec open(id(), address(), address()) -> frame().
open(Id, Client, Local) -> {open, Id, 1, 0, Client, Local}.

%% All complete frames at the start, and the rest.
-spec decode(binary()) -> {[frame()], binary()}.
decode(<<Length:32, Body:Length/binary, Rest/binary>>) ->
    <<Type, Id:64, Payload/binary>> = Body,
    {Frames, Last} = decode(Rest),
    {[parse(Type, Id, Payload) | Frames], Last};
decode(Rest) ->
    {[], Rest}.

-spec parse(byte(), id(), binary()) -> frame().
parse(1, 0, <<"MGPH", Version, Role, Features:32, Window:32, Size, Name:Size/binary>>) ->
    {hello, Role, Version, Window, Features, Name};
parse(2, 0, Bytes) -> {auth, Bytes};
parse(4, Id, Data) when Id > 0, Data =/= <<>> -> {data, Id, Data};
parse(5, Id, <<Reason>>) when Id > 0 -> {close, Id, Reason};
parse(6, Id, <<Code, Text/binary>>) -> {error, Id, Code, Text};
parse(7, Id, <<Increment:32>>) when Id > 0 -> {window, Id, Increment};
parse(8, 0, <<Bytes:8/binary>>) -> {ping, Bytes};
parse(9, 0, <<Bytes:8/binary>>) -> {pong, Bytes};
parse(10, 0, <<>>) -> drain;
parse(11, Id, <<Mode>>) when Id > 0 -> {ready, Id, Mode}.

%% ---- requests --------------------------------------------------------------------------------------------------

-spec get_request(iodata()) -> binary().
get_request(Path) ->
    request("GET", Path, [], "").

%% As an ECM writes it.
-spec request(iodata(), iodata(), [{iodata(), iodata()}], iodata()) -> binary().
request(Method, Path, Fields, Body) ->
    Length = [["Content-Length: ", integer_to_list(iolist_size(Body)), "\r\n"] || iolist_size(Body) > 0],
    Head = [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n", [[N, ": ", V, "\r\n"] || {N, V} <- Fields], Length, "\r\n"],
    iolist_to_binary([Head, Body]).

%% Opens a connection and asks: status and body of the answer, and the frame that ends it. The id is in use then,
%% unless that is a close.
-spec ask(connection(), id(), iodata()) -> {Status :: integer(), Body :: binary(), frame() | closed}.
ask(Link, Id, Path) ->
    ok = send(Link, [open(Id), {data, Id, get_request(Path)}]),
    answer(Link, Id).

-spec answer(connection(), id()) -> {Status :: integer(), Body :: binary(), frame() | closed}.
answer(Link, Id) ->
    answer(Link, Id, <<>>).

-spec answer(connection(), id(), binary()) -> {Status :: integer(), Body :: binary(), frame() | closed}.
answer(Link, Id, Got) ->
    case next(Link) of
        {data, Id, Data} ->
            answer(Link, Id, <<Got/binary, Data/binary>>);
        {window, Id, _Increment} ->
            answer(Link, Id, Got);
        End when Got =:= <<>> ->
            error({no_answer, End});
        End ->
            <<"HTTP/1.1 ", Status:3/binary, _/binary>> = Got,
            [_Head, Body] = binary:split(Got, <<"\r\n\r\n">>),
            {binary_to_integer(Status), Body, End}
    end.

%% The close handshake, begun by this end, on a connection that has nothing more to say.
-spec close(connection(), id()) -> ok.
close(Link, Id) ->
    ok = send(Link, {close, Id, 0}),
    {close, Id, 0} = next(Link),
    ok.

%% ---- a client --------------------------------------------------------------------------------------------------

%% Connects to a listener and exchanges hellos.
-spec connect(address()) -> connection().
connect(Address) ->
    Link = connect_raw(Address),
    ok = send(Link, hello()),
    {hello, 2, 1, _Window, _Features, _Name} = next(Link),
    Link.

%% Connects to a listener with a secret and opens the link, as docs/protocol.md says; the frame that comes instead if it is refused.
-spec authenticate(address(), Ours :: binary(), [frame()]) -> {ok, connection()} | {refused, connection(), frame() | closed}.
authenticate(Address, Secret, More) ->
    Link = connect_raw(Address),
    {Hellos, Nonces} = greet(Link),
    ok = send(Link, [{auth, <<2, (proof(Secret, 1, Hellos, Nonces))/binary>>} | More]),
    Theirs = proof(Secret, 2, Hellos, Nonces),
    case next(Link) of
        {auth, <<2, Theirs/binary>>} -> {ok, Link};
        Other -> {refused, Link, Other}
    end.

%% Hellos with the feature, and challenges, in both directions.
-spec greet(connection()) -> {Hellos :: {binary(), binary()}, Nonces :: {binary(), binary()}}.
greet(Link) ->
    Nonce = crypto:strong_rand_bytes(32),
    Own = {hello, 1, 1, 131072, 3, <<"test ECM">>},
    ok = send(Link, [Own, {auth, <<1, Nonce/binary>>}]),
    {hello, 2, 1, _, Features, _} = Theirs = next(Link),
    3 = Features band 3,
    {auth, <<1, TheirNonce:32/binary>>} = next(Link),
    {{payload(Own), payload(Theirs)}, {Nonce, TheirNonce}}.

-spec payload(frame()) -> binary().
payload(Frame) ->
    <<_Length:32, _Type, 0:64, Payload/binary>> = encode(Frame),
    Payload.

-spec proof(Secret :: binary(), Role :: 1 | 2, {binary(), binary()}, {binary(), binary()}) -> binary().
proof(Secret, Role, {EcmHello, NodeHello}, {EcmNonce, NodeNonce}) ->
    Label = element(Role, {<<"Megaphone link 1 key of the ECM">>, <<"Megaphone link 1 key of ejabberd">>}),
    Key = crypto:mac(hmac, sha256, Label, Secret),
    crypto:mac(hmac, sha256, Key, [
        <<"Megaphone link 1 proof">>, Role,
        byte_size(EcmHello), EcmHello, EcmNonce,
        byte_size(NodeHello), NodeHello, NodeNonce
    ]).

-spec connect_raw(address()) -> connection().
connect_raw({Ip, Port}) ->
    %% One message a frame: the length field is what {packet, 4} expects.
    {ok, Link} = gen_tcp:connect(Ip, Port, [binary, {packet, 4}, {active, false}, {nodelay, true}]),
    Link.

-spec send(connection(), frame() | [frame()]) -> ok | {error, term()}.
send(Link, Frames) ->
    send_bytes(Link, encode(Frames)).

%% Past {packet, 4}, which would put a length before it.
-spec send_bytes(connection(), binary()) -> ok | {error, term()}.
send_bytes(Link, Bytes) ->
    ok = inet:setopts(Link, [{packet, raw}]),
    Answer = gen_tcp:send(Link, Bytes),
    ok = inet:setopts(Link, [{packet, 4}]),
    Answer.

%% The next frame, or `closed' when the other end has closed the link.
-spec next(connection()) -> frame() | closed.
next(Link) ->
    next(Link, ?DEADLINE).

-spec next(connection(), timeout()) -> frame() | closed | timeout.
next(Link, Timeout) ->
    case gen_tcp:recv(Link, 0, Timeout) of
        {ok, <<Type, Id:64, Payload/binary>>} -> parse(Type, Id, Payload);
        {error, timeout} -> timeout;
        {error, _} -> closed
    end.

%% All frames until the other end closes.
-spec await_close(connection()) -> [frame()].
await_close(Link) ->
    case next(Link) of
        closed -> [];
        timeout -> error(link_not_closed);
        Frame -> [Frame | await_close(Link)]
    end.

-spec disconnect(connection()) -> ok.
disconnect(Link) ->
    gen_tcp:close(Link).
