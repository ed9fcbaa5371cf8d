%% A client of BOSH and WebSocket on a plain socket, for what Strophe.js hides: its own address, its session id, and
%% stopping in the middle. It logs in anonymously.
-module(megaphone_test_http).

-include("megaphone_test.hrl").

-export([closed/1, connect/2, post/3, send/3, read/1, bosh_login/1, bosh_login/2, bosh/4, bosh_send/5, bosh_end/3, websocket_login/1, text/2, until/2]).

-define(STREAM, "xmlns:xmpp='urn:xmpp:xbosh'").
-define(HTTPBIND, "xmlns='http://jabber.org/protocol/httpbind'").
-define(SASL, "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'").
-define(BIND, "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").
-define(OPEN, "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>").
-define(FIRST_RID, 1000).

%% Connects from an address of this machine; answers also the address and port.
-spec connect(inet:port_number(), inet:ip_address()) -> {gen_tcp:socket(), {inet:ip_address(), inet:port_number()}}.
connect(Port, From) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}, {ip, From}]),
    {ok, Own} = inet:sockname(Socket),
    {Socket, Own}.

%% A request, and the body of its answer.
-spec post(gen_tcp:socket(), iodata(), iodata()) -> {Status :: integer(), Body :: binary()}.
post(Socket, Path, Body) ->
    ok = send(Socket, Path, Body),
    read(Socket).

%% A request, without its answer.
-spec send(gen_tcp:socket(), iodata(), iodata()) -> ok.
send(Socket, Path, Body) ->
    gen_tcp:send(Socket, [
        "POST ", Path, " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: ",
        integer_to_list(iolist_size(Body)), "\r\n\r\n", Body
    ]).

-spec read(gen_tcp:socket()) -> {Status :: integer(), Body :: binary()}.
read(Socket) ->
    ok = inet:setopts(Socket, [{packet, http_bin}]),
    {ok, {http_response, _, Status, _}} = gen_tcp:recv(Socket, 0, ?DEADLINE),
    Length = fields(Socket, 0),
    ok = inet:setopts(Socket, [{packet, raw}]),
    {ok, Body} = if Length > 0 -> gen_tcp:recv(Socket, Length, ?DEADLINE); true -> {ok, <<>>} end,
    {Status, Body}.

-spec fields(gen_tcp:socket(), non_neg_integer()) -> Length :: non_neg_integer().
fields(Socket, Length) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, {http_header, _, 'Content-Length', _, Value}} -> fields(Socket, binary_to_integer(Value));
        {ok, {http_header, _, _, _, _}} -> fields(Socket, Length);
        {ok, http_eoh} -> Length
    end.

%% ---- BOSH ------------------------------------------------------------------------------------------------------

%% The session id, the full JID and the number of the next request.
-spec bosh_login(gen_tcp:socket()) -> {Sid :: binary(), Jid :: binary(), Rid :: pos_integer()}.
bosh_login(Socket) ->
    bosh_login(Socket, 60).

%% The same with a time in seconds for which polls are held.
-spec bosh_login(gen_tcp:socket(), pos_integer()) -> {Sid :: binary(), Jid :: binary(), Rid :: pos_integer()}.
bosh_login(Socket, Wait) ->
    First = [
        "<body ", ?HTTPBIND, " ", ?STREAM, " rid='", integer_to_list(?FIRST_RID),
        "' to='localhost' xml:lang='en' wait='", integer_to_list(Wait), "' hold='1' content='text/xml; charset=utf-8' ver='1.6' xmpp:version='1.0'/>"
    ],
    {200, Created} = post(Socket, "/bosh", First),
    Sid = attribute("sid", Created),
    Success = bosh(Socket, Sid, ?FIRST_RID + 1, ["<auth ", ?SASL, " mechanism='ANONYMOUS'/>"]),
    {match, _} = re:run(Success, "<success"),
    Restart = ["<body ", ?HTTPBIND, " ", ?STREAM, " rid='", integer_to_list(?FIRST_RID + 2), "' sid='", Sid, "' xmpp:restart='true' to='localhost'/>"],
    {200, _} = post(Socket, "/bosh", Restart),
    {Sid, jid(bosh(Socket, Sid, ?FIRST_RID + 3, ?BIND)), ?FIRST_RID + 4}.

%% A request with attributes, without its answer.
-spec bosh_send(gen_tcp:socket(), binary(), pos_integer(), iodata(), iodata()) -> ok.
bosh_send(Socket, Sid, Rid, Attributes, Stanza) ->
    send(Socket, "/bosh", ["<body ", ?HTTPBIND, " rid='", integer_to_list(Rid), "' sid='", Sid, "' ", Attributes, ">", Stanza, "</body>"]).

-spec bosh(gen_tcp:socket(), binary(), pos_integer(), iodata()) -> binary().
bosh(Socket, Sid, Rid, Stanza) ->
    {200, Answer} = post(Socket, "/bosh", ["<body ", ?HTTPBIND, " rid='", integer_to_list(Rid), "' sid='", Sid, "'>", Stanza, "</body>"]),
    Answer.

-spec bosh_end(gen_tcp:socket(), binary(), pos_integer()) -> ok.
bosh_end(Socket, Sid, Rid) ->
    End = ["<body ", ?HTTPBIND, " rid='", integer_to_list(Rid), "' sid='", Sid, "' type='terminate'/>"],
    {200, _} = post(Socket, "/bosh", End),
    ok.

-spec attribute(string(), binary()) -> binary().
attribute(Name, Xml) ->
    {match, [Value]} = re:run(Xml, [" ", Name, "=['\"]([^'\"]+)['\"]"], [{capture, all_but_first, binary}]),
    Value.

-spec jid(binary()) -> binary().
jid(Xml) ->
    {match, [Jid]} = re:run(Xml, "<jid>([^<]+)</jid>", [{capture, all_but_first, binary}]),
    Jid.

%% ---- WebSocket -------------------------------------------------------------------------------------------------

-spec websocket_login(gen_tcp:socket()) -> Jid :: binary().
websocket_login(Socket) ->
    ok = gen_tcp:send(Socket, [
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    ]),
    {101, <<>>} = read(Socket),
    ok = text(Socket, ?OPEN),
    _ = until(Socket, "features"),
    ok = text(Socket, ["<auth ", ?SASL, " mechanism='ANONYMOUS'/>"]),
    _ = until(Socket, "<success"),
    ok = text(Socket, ?OPEN),
    _ = until(Socket, "features"),
    ok = text(Socket, ?BIND),
    jid(until(Socket, "</jid>")).

%% Clients mask what they send, here by nothing.
-spec text(gen_tcp:socket(), iodata()) -> ok.
text(Socket, Text) ->
    Length =
        case iolist_size(Text) of
            Size when Size < 126 -> <<Size:7>>;
            Size -> <<126:7, Size:16>>
        end,
    gen_tcp:send(Socket, [<<1:1, 0:3, 1:4, 1:1, Length/bitstring, 0:32>>, Text]).

%% The first message with this text.
-spec until(gen_tcp:socket(), string()) -> binary().
until(Socket, Wanted) ->
    {ok, <<1:1, 0:3, 1:4, 0:1, Short:7>>} = gen_tcp:recv(Socket, 2, ?DEADLINE),
    Message =
        case Short of
            126 ->
                {ok, <<Size:16>>} = gen_tcp:recv(Socket, 2, ?DEADLINE),
                gen_tcp:recv(Socket, Size, ?DEADLINE);
            Size ->
                gen_tcp:recv(Socket, Size, ?DEADLINE)
        end,
    {ok, Text} = Message,
    case binary:match(Text, list_to_binary(Wanted)) of
        nomatch -> until(Socket, Wanted);
        _ -> Text
    end.

%% Waits until the other end has closed; what comes before is read away.
-spec closed(gen_tcp:socket()) -> ok.
closed(Socket) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, _} -> closed(Socket);
        {error, closed} -> ok
    end.
