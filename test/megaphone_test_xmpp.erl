%% A client of a connection of kind XMPP, as a connection manager carries it: for cases of the protocol, over a link of
%% its own (megaphone_test_link). What people use is in ejabberd_SUITE.
-module(megaphone_test_xmpp).

-include_lib("stdlib/include/assert.hrl").

-export([new_link/1, new_link/2, connect/1, connect/2, attach/2, login/1, login/2, login_on/1, open/1, text/2, texts/2, bytes/2, next/1, await/2, ended/1, close/1, jid/1, disconnect/1]).
-export_type([client/0]).

-record(client, {link, id, jid = <<>>}).
-opaque client() :: #client{}.

-define(OPEN, <<"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>">>).

%% A link to a listener that serves connections of kind XMPP.
new_link(Address) ->
    new_link(Address, 131072).

%% With so many bytes that may be on their way to each client.
new_link(Address, Credit) ->
    Link = megaphone_test_link:connect_raw(Address),
    ok = megaphone_test_link:send(Link, megaphone_test_link:hello(Credit)),
    {hello, 2, 1, _Window, Features, _Name} = megaphone_test_link:next(Link),
    ?assertEqual(4, Features band 4),
    Link.

%% A client with a link of its own, that has sent nothing yet.
connect(Address) ->
    connect(Address, {{192, 0, 2, 10}, 51000}).

connect(Address, Peer) ->
    attach(new_link(Address), Peer).

attach(Link, Peer) ->
    Client = #client{link = Link, id = 7},
    ok = megaphone_test_link:send(Link, {open, 7, 2, 1, Peer, {{198, 51, 100, 1}, 443}}),
    Client.

text(#client{} = Client, Text) ->
    texts(Client, [Text]).

%% In one frame, as far as it may be long.
texts(Client, Texts) ->
    bytes(Client, iolist_to_binary([[<<(iolist_size(Text)):32>>, Text] || Text <- Texts])).

%% In frames of 16 kB, as credit allows.
bytes(#client{link = Link, id = Id} = Client, <<Piece:16384/binary, Rest/binary>>) when Rest =/= <<>> ->
    ok = megaphone_test_link:send(Link, {data, Id, Piece}),
    bytes(Client, Rest);
bytes(#client{link = Link, id = Id}, Bytes) ->
    megaphone_test_link:send(Link, {data, Id, Bytes}).

%% The next element from the server, or what ends the connection.
next(#client{link = Link, id = Id} = Client) ->
    case get({?MODULE, Link}) of
        <<Length:32, Text:Length/binary, Rest/binary>> ->
            _ = put({?MODULE, Link}, Rest),
            El = fxml_stream:parse_element(Text),
            ?assertEqual(xmlel, element(1, El)),
            El;
        Kept ->
            case megaphone_test_link:next(Link) of
                {data, Id, Data} ->
                    _ = put({?MODULE, Link}, <<(case Kept of undefined -> <<>>; _ -> Kept end)/binary, Data/binary>>),
                    next(Client);
                {window, Id, _} ->
                    next(Client);
                End ->
                    End
            end
    end.

%% The next element with this name; others are skipped.
await(Client, Name) ->
    case next(Client) of
        {xmlel, Name, _, _} = El -> El;
        {xmlel, _, _, _} -> await(Client, Name);
        End -> error({no_element, Name, End})
    end.

%% All that comes until the server closes.
ended(#client{id = Id} = Client) ->
    case next(Client) of
        {xmlel, _, _, _} = El -> [El | ended(Client)];
        {close, Id, 0} -> []
    end.

open(Client) ->
    ok = text(Client, ?OPEN),
    {xmlel, <<"open">>, _, _} = next(Client),
    {xmlel, <<"stream:features">>, _, _} = next(Client).

login(Address) ->
    login(Address, {{192, 0, 2, 10}, 51000}).

%% An anonymous user, online.
login(Address, Peer) ->
    login_on(connect(Address, Peer)).

login_on(Client) ->
    _ = open(Client),
    ok = text(Client, <<"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>">>),
    {xmlel, <<"success">>, _, _} = next(Client),
    _ = open(Client),
    ok = text(Client, <<"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>">>),
    {xmlel, <<"iq">>, _, [{xmlel, <<"bind">>, _, [{xmlel, <<"jid">>, _, [{xmlcdata, Jid}]}]}]} = next(Client),
    ok = texts(Client, [
        <<"<iq xmlns='jabber:client' type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>">>,
        <<"<presence xmlns='jabber:client'/>">>
    ]),
    {xmlel, <<"presence">>, _, _} = await(Client, <<"presence">>),
    Client#client{jid = Jid}.

jid(#client{jid = Jid}) -> Jid.

close(#client{link = Link, id = Id}) ->
    megaphone_test_link:send(Link, {close, Id, 0}).

disconnect(#client{link = Link}) ->
    _ = erase({?MODULE, Link}),
    megaphone_test_link:disconnect(Link).
