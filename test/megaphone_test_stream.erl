%% An XMPP client over plain TCP, for what clients with a library hide: stream management and stopping in the middle.
-module(megaphone_test_stream).

-include("megaphone_test.hrl").

-export([login/1, login/2, send/2, until/2, enable/1, resume/3]).
-export_type([stream/0, account/0]).

-type stream() :: gen_tcp:socket().
-type account() :: anonymous | {User :: binary(), Password :: binary()}.

-define(SASL, "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'").
-define(SM, "xmlns='urn:xmpp:sm:3'").

%% Logs in anonymously, and has its presence sent: the stream and its full JID.
-spec login({inet:ip_address(), inet:port_number()}) -> {stream(), Jid :: binary()}.
login(Address) ->
    login(Address, anonymous).

%% The same with an account.
-spec login({inet:ip_address(), inet:port_number()}, account()) -> {stream(), Jid :: binary()}.
login(Address, Account) ->
    Stream = authenticated(Address, Account),
    ok = send(Stream, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"),
    [Jid] = until(Stream, "<jid>([^<]+)</jid>"),
    ok = send(Stream, "<presence/>"),
    [] = until(Stream, "<presence [^>]*from="),
    {Stream, Jid}.

-spec authenticated({inet:ip_address(), inet:port_number()}, account()) -> stream().
authenticated({Ip, Port}, Account) ->
    {ok, Stream} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    ok = open(Stream),
    ok = send(Stream, credentials(Account)),
    [] = until(Stream, "<success"),
    ok = open(Stream),
    Stream.

-spec credentials(account()) -> iodata().
credentials(anonymous) ->
    ["<auth ", ?SASL, " mechanism='ANONYMOUS'/>"];
credentials({User, Password}) ->
    ["<auth ", ?SASL, " mechanism='PLAIN'>", base64:encode(<<0, User/binary, 0, Password/binary>>), "</auth>"].

-spec open(stream()) -> ok.
open(Stream) ->
    ok = send(Stream, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"),
    [] = until(Stream, "</stream:features>"),
    ok.

-spec send(stream(), iodata()) -> ok.
send(Stream, Text) ->
    gen_tcp:send(Stream, Text).

%% Reads until the pattern is in what came; what its groups matched.
-spec until(stream(), string()) -> [binary()].
until(Stream, Pattern) ->
    until(Stream, Pattern, <<>>).

-spec until(stream(), string(), binary()) -> [binary()].
until(Stream, Pattern, Before) ->
    case re:run(Before, Pattern, [{capture, all_but_first, binary}]) of
        {match, Groups} ->
            Groups;
        match ->
            [];
        nomatch ->
            case gen_tcp:recv(Stream, 0, ?DEADLINE) of
                {ok, Data} -> until(Stream, Pattern, <<Before/binary, Data/binary>>);
                {error, Reason} -> error({not_received, Pattern, Reason, Before})
            end
    end.

%% Enables stream management with resumption; the name of the session.
-spec enable(stream()) -> Id :: binary().
enable(Stream) ->
    ok = send(Stream, ["<enable ", ?SM, " resume='true'/>"]),
    [Enabled] = until(Stream, "(<enabled [^>]*>)"),
    {match, [Id]} = re:run(Enabled, " id=['\"]([^'\"]+)['\"]", [{capture, all_but_first, binary}]),
    Id.

%% Takes a session of the account up again on a new stream, of which the client has seen nothing yet.
-spec resume({inet:ip_address(), inet:port_number()}, account(), Id :: binary()) -> stream().
resume(Address, Account, Id) ->
    Stream = authenticated(Address, Account),
    ok = send(Stream, ["<resume ", ?SM, " previd='", Id, "' h='0'/>"]),
    [] = until(Stream, "<resumed "),
    Stream.
