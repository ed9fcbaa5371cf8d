%% Texts that must show nowhere: they are noted as they are made, and a client of BOSH and WebSocket that logs in with PLAIN or
%% SCRAM notes all that it writes or is told.
-module(megaphone_test_secrets).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-export([table/0, secret/2, user/0, connect/3, authenticate/3, login/3, chat/2, close/1]).
-export_type([client/0]).

-type kind() :: bosh | websocket.
-type client() :: #{socket := gen_tcp:socket(), fields := iodata(), table := ets:tid(), kind => kind(), _ => _}.

-define(USER, <<"carol">>).
-define(SASL, "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'").
-define(SM, "xmlns='urn:xmpp:sm:3'").
-define(BIND, "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").

%% Outlives the process that makes it, as a suite needs it: {Text, Name}.
-spec table() -> ets:tid().
table() ->
    Self = self(),
    Owner = spawn(fun() ->
        Self ! {self(), ets:new(secrets, [public])},
        receive after infinity -> ok end
    end),
    element(2, ?assertReceive({Owner, _})).

%% A text that nobody else writes, to be looked for at the end.
-spec secret(atom(), ets:tid()) -> binary().
secret(Name, Table) ->
    note(Name, iolist_to_binary([atom_to_list(Name), $-, binary:encode_hex(crypto:strong_rand_bytes(12))]), Table).

-spec note(atom(), binary(), ets:tid()) -> binary().
note(Name, Text, Table) when byte_size(Text) >= 8 ->
    true = ets:insert(Table, {Text, Name}),
    Text.

%% ---- clients ---------------------------------------------------------------------------------------------------

%% A client, before its login. Its requests have fields that are nobody's business.
-spec connect(kind(), inet:port_number(), ets:tid()) -> client().
connect(Kind, Port, Table) ->
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    Basic = base64:encode(<<"x:", (secret(basic, Table))/binary>>),
    Fields = ["Cookie: session=", secret(cookie, Table), "\r\nAuthorization: Basic ", note(authorization, Basic, Table), "\r\n"],
    begin_stream(Kind, #{socket => Socket, fields => Fields, table => Table}).

-spec begin_stream(kind(), client()) -> client().
begin_stream(bosh, Client) ->
    Body = post(Client, ["rid='1' to='localhost' wait='2' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'"], ""),
    {match, [Sid]} = re:run(Body, " sid='([^']+)'", [{capture, all_but_first, binary}]),
    _ = note(sid, Sid, maps:get(table, Client)),
    Rids = counters:new(1, []),
    ok = counters:put(Rids, 1, 1),
    Client#{kind => bosh, sid => Sid, rids => Rids};
begin_stream(websocket, #{socket := Socket, fields := Fields, table := Table} = Client) ->
    ok = gen_tcp:send(Socket, [
        "GET /ws?token=", secret(query, Table), " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", Fields,
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    ]),
    {101, <<>>} = megaphone_test_http:read(Socket),
    open(Client#{kind => websocket}).

-spec open(client()) -> client().
open(#{socket := Socket} = Client) ->
    ok = megaphone_test_http:text(Socket, "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"),
    _ = megaphone_test_http:until(Socket, "features"),
    Client.

-spec post(client(), iodata(), iodata()) -> binary().
post(#{socket := Socket, fields := Fields}, Attributes, Elements) ->
    Body = ["<body xmlns='http://jabber.org/protocol/httpbind' ", Attributes, ">", Elements, "</body>"],
    Length = integer_to_list(iolist_size(Body)),
    ok = gen_tcp:send(Socket, ["POST /bosh HTTP/1.1\r\nHost: localhost\r\n", Fields, "Content-Length: ", Length, "\r\n\r\n", Body]),
    {200, Answer} = megaphone_test_http:read(Socket),
    Answer.

%% Sends elements; the answer that has this text.
-spec ask(client(), iodata(), string()) -> binary().
ask(Client, Elements, Wanted) ->
    ask(Client, "", Elements, Wanted).

-spec ask(client(), iodata(), iodata(), string()) -> binary().
ask(#{kind := bosh, sid := Sid, rids := Rids} = Client, Attributes, Elements, Wanted) ->
    ok = counters:add(Rids, 1, 1),
    Answer = post(Client, ["rid='", integer_to_list(counters:get(Rids, 1)), "' sid='", Sid, "'", Attributes], Elements),
    Has = fun(Text) -> binary:match(Answer, list_to_binary(Text)) =/= nomatch end,
    case Has(Wanted) orelse (Has("type='terminate'") andalso ended) of
        true -> Answer;
        ended -> error(session_ended);
        false -> ask(Client, "", "", Wanted)
    end;
ask(#{kind := websocket, socket := Socket}, _Attributes, Elements, Wanted) ->
    ok = megaphone_test_http:text(Socket, Elements),
    megaphone_test_http:until(Socket, Wanted).

-spec restart(client()) -> client().
restart(#{kind := bosh} = Client) ->
    _ = ask(Client, " xmpp:restart='true' to='localhost' xmlns:xmpp='urn:xmpp:xbosh'", "", "features"),
    Client;
restart(Client) ->
    open(Client).

-spec close(client()) -> ok.
close(#{socket := Socket}) ->
    ok = gen_tcp:close(Socket).

%% The user who logs in.
-spec user() -> binary().
user() -> ?USER.

%% ---- logins ----------------------------------------------------------------------------------------------------

%% What the server says to the last word of the client.
-spec authenticate(client(), plain | scram, binary()) -> binary().
authenticate(Client, plain, Password) ->
    Word = sasl(<<0, ?USER/binary, 0, Password/binary>>, Client),
    ask(Client, ["<auth ", ?SASL, " mechanism='PLAIN'>", Word, "</auth>"], "urn:ietf:params:xml:ns:xmpp-sasl");
authenticate(Client, scram, Password) ->
    First = <<"n=", ?USER/binary, ",r=", (binary:encode_hex(crypto:strong_rand_bytes(12)))/binary>>,
    Auth = ["<auth ", ?SASL, " mechanism='SCRAM-SHA-1'>", sasl(<<"n,,", First/binary>>, Client), "</auth>"],
    {match, [Challenge]} = re:run(ask(Client, Auth, "<challenge"), "<challenge[^>]*>([^<]*)<", [{capture, all_but_first, binary}]),
    Server = base64:decode(note(challenge, Challenge, maps:get(table, Client))),
    {match, [Nonce, Salt, Rounds]} = re:run(Server, "^r=([^,]*),s=([^,]*),i=([0-9]*)", [{capture, all_but_first, binary}]),
    Salted = crypto:pbkdf2_hmac(sha, Password, base64:decode(Salt), binary_to_integer(Rounds), 20),
    Key = crypto:mac(hmac, sha, Salted, <<"Client Key">>),
    Bare = <<"c=biws,r=", Nonce/binary>>,
    Signature = crypto:mac(hmac, sha, crypto:hash(sha, Key), <<First/binary, ",", Server/binary, ",", Bare/binary>>),
    Proof = base64:encode(crypto:exor(Key, Signature)),
    Last = sasl(<<Bare/binary, ",p=", (note(proof, Proof, maps:get(table, Client)))/binary>>, Client),
    ask(Client, ["<response ", ?SASL, ">", Last, "</response>"], "urn:ietf:params:xml:ns:xmpp-sasl").

-spec sasl(binary(), client()) -> binary().
sasl(Word, #{table := Table}) ->
    note(sasl, base64:encode(note(sasl, Word, Table)), Table).

%% With a resource, and a stream that may be resumed.
-spec login(client(), plain | scram, binary()) -> client().
login(Client, Mechanism, Password) ->
    Said = authenticate(Client, Mechanism, Password),
    ?assertMatch({match, _}, re:run(Said, "<success")),
    New = restart(Client),
    {match, [Jid]} = re:run(ask(New, ?BIND, "</jid>"), "<jid>([^<]*)</jid>", [{capture, all_but_first, binary}]),
    Enabled = ask(New, ["<enable ", ?SM, " resume='true'/>"], "<enabled"),
    _ = [
        note(resumption, Id, maps:get(table, Client))
     || {match, [Id]} <- [re:run(Enabled, " id=['\"]([^'\"]+)['\"]", [{capture, all_but_first, binary}])]
    ],
    New#{jid => Jid}.

%% A message to oneself.
-spec chat(client(), binary()) -> ok.
chat(#{jid := Jid} = Client, Text) ->
    Message = ["<message xmlns='jabber:client' type='chat' to='", Jid, "'><body>", Text, "</body></message>"],
    _ = ask(Client, Message, binary_to_list(Text)),
    ok.
