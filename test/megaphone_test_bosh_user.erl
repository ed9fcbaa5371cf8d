%% A BOSH user who is logged in and keeps to the rules: two connections, requests in order, answers taken in the order of
%% their requests. For cases that are about what is sent and not about how.
-module(megaphone_test_bosh_user).

-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [attribute/2, content/1, elements/1, text/2]).

-export([new/1, new/2, login/1, login/2, login/3, authenticate/2, bind/1, online/1, online/2, jid/1, session/1, numbers/1, sockets/1]).
-export([send/2, send/3, next/1, await/2, settle/1, idle/1, watched/2, gone/2, finish/1, finish/2, abandon/1]).
-export([message/2, messages/2, ping/1, account/1]).
-export_type([user/0]).

-record(user, {
    where :: megaphone_test_bosh_node:where(),
    session :: megaphone_test_bosh:session(),
    %% The number of the next request, as megaphone_test_bosh counts.
    next = 1 :: pos_integer(),
    free = [] :: [gen_tcp:socket()],
    %% Not yet answered, the oldest first.
    held = [] :: [{pos_integer(), gen_tcp:socket()}],
    %% What has come; a body is there if it ends the session.
    inbox = [] :: [megaphone_test_bosh:element()],
    jid = <<>> :: binary()
}).
-opaque user() :: #user{}.
-type account() :: {Name :: binary(), Password :: binary()}.

-define(SASL, "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'").
-define(BIND, "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").

%% ---- coming ----------------------------------------------------------------------------------------------------

%% Not logged in.
-spec new(megaphone_test_bosh_node:where()) -> user().
new(Where) ->
    new(Where, []).

%% With attributes of the creation.
-spec new(megaphone_test_bosh_node:where(), [{binary(), iodata() | integer() | undefined}]) -> user().
new(Where, Attributes) ->
    Sockets = [Socket, _] = [megaphone_test_bosh:connect(Where) || _ <- [1, 2]],
    {Session, Created} = megaphone_test_bosh:create(Socket, Where, Attributes),
    #user{where = Where, session = Session, free = Sockets, inbox = elements(Created)}.

%% Anonymous.
-spec login(megaphone_test_bosh_node:where()) -> user().
login(Where) ->
    login(Where, anonymous).

-spec login(megaphone_test_bosh_node:where(), anonymous | account()) -> user().
login(Where, Account) ->
    login(Where, Account, []).

%% With attributes of the creation.
-spec login(megaphone_test_bosh_node:where(), anonymous | account(), [{binary(), iodata() | integer()}]) -> user().
login(Where, Account, Attributes) ->
    bind(authenticate(new(Where, Attributes), Account)).

-spec authenticate(user(), anonymous | account()) -> user().
authenticate(User, Account) ->
    Auth =
        case Account of
            anonymous -> ["<auth ", ?SASL, " mechanism='ANONYMOUS'/>"];
            {Name, Password} -> ["<auth ", ?SASL, " mechanism='PLAIN'>", base64:encode(<<0, Name/binary, 0, Password/binary>>), "</auth>"]
        end,
    {_, Greeted} = await(User, <<"stream:features">>),
    {_, Known} = await(send(Greeted, Auth), <<"success">>),
    Known.

%% Restarts the stream and binds a resource.
-spec bind(user()) -> user().
bind(#user{session = #{host := Host}} = User) ->
    Restart = [{<<"xmlns:xmpp">>, "urn:xmpp:xbosh"}, {<<"xmpp:restart">>, "true"}, {<<"to">>, Host}],
    {Features, Restarted} = await(send(User, Restart, []), <<"stream:features">>),
    {Features, true} = {Features, lists:keymember(<<"bind">>, 2, elements(Features))},
    {Iq, Bound} = await(send(Restarted, ?BIND), <<"iq">>),
    [Bind] = elements(Iq),
    Bound#user{jid = text(<<"jid">>, Bind)}.

%% An anonymous user who is available.
-spec online(megaphone_test_bosh_node:where()) -> user().
online(Where) ->
    online(Where, anonymous).

-spec online(megaphone_test_bosh_node:where(), anonymous | account()) -> user().
online(Where, Account) ->
    {_, User} = await(send(login(Where, Account), "<presence xmlns='jabber:client'/>"), <<"presence">>),
    User.

%% A new account.
-spec account(megaphone_test_bosh_node:where()) -> account().
account(#{node := Node} = Where) ->
    Name = <<"u", (integer_to_binary(erlang:unique_integer([positive])))/binary>>,
    ok = megaphone_test_node:call(Node, ejabberd_auth, try_register, [Name, maps:get(host, Where, <<"localhost">>), <<"secret">>]),
    {Name, <<"secret">>}.

-spec jid(user()) -> binary().
jid(#user{jid = Jid}) -> Jid.

-spec session(user()) -> megaphone_test_bosh:session().
session(#user{session = Session}) -> Session.

%% The number of the next request, and those of the requests that are not answered.
-spec numbers(user()) -> {pos_integer(), [pos_integer()]}.
numbers(#user{next = Next, held = Held}) -> {Next, [N || {N, _} <- Held]}.

%% Its connections, that of the oldest held request first.
-spec sockets(user()) -> [gen_tcp:socket()].
sockets(#user{held = Held, free = Free}) -> [Socket || {_, Socket} <- Held] ++ Free.

%% ---- talking ---------------------------------------------------------------------------------------------------

%% Sends a request with elements, or none.
-spec send(user(), iodata()) -> user().
send(User, Elements) ->
    send(User, [], Elements).

-spec send(user(), megaphone_test_bosh:attributes(), iodata()) -> user().
send(#user{free = []} = User, Attributes, Elements) ->
    send(take(User), Attributes, Elements);
send(#user{free = [Socket | Free], held = Held, next = N} = User, Attributes, Elements) ->
    ok = arrived(User),
    ok = megaphone_test_bosh:post(Socket, User#user.session, N, Attributes, Elements),
    User#user{free = Free, held = Held ++ [{N, Socket}], next = N + 1}.

%% The server knows of all requests: the next one cannot overtake them.
-spec arrived(user()) -> ok.
arrived(#user{held = []}) ->
    ok;
arrived(#user{held = Held, where = Where, session = Session}) ->
    {N, _} = lists:last(Held),
    megaphone_test_bosh_node:arrived(Where, Session, N).

%% With a request held, which the server knows of.
-spec settle(user()) -> user().
settle(#user{held = []} = User) ->
    settle(send(User, []));
settle(User) ->
    ok = arrived(User),
    User.

%% With no request held: it pings the server until the answer to a ping is all that is awaited.
-spec idle(user()) -> user().
idle(User) ->
    case await(send(User, ping("ping")), <<"iq">>) of
        {_, #user{held = []} = Idle} -> Idle;
        {_, Later} -> idle(Later)
    end.

-spec ping(iodata()) -> iodata().
ping(Id) ->
    ["<iq xmlns='jabber:client' type='get' id='", Id, "'><ping xmlns='urn:xmpp:ping'/></iq>"].

%% The answer to the oldest request.
-spec take(user()) -> user().
take(#user{held = [{_, Socket} | Held], free = Free, inbox = Inbox} = User) ->
    Content = content(megaphone_test_bosh:answer(Socket)),
    End = [Content || attribute(<<"type">>, Content) =:= <<"terminate">>],
    User#user{held = Held, free = Free ++ [Socket], inbox = Inbox ++ elements(Content) ++ End}.

%% What comes next: an element, or the body that ends the session.
-spec next(user()) -> {megaphone_test_bosh:element(), user()}.
next(#user{inbox = [El | Inbox]} = User) -> {El, User#user{inbox = Inbox}};
next(#user{held = []} = User) -> next(send(User, []));
next(User) -> next(take(User)).

%% The next one with this name. Those before it are left for later.
-spec await(user(), binary()) -> {megaphone_test_bosh:element(), user()}.
await(#user{inbox = Inbox} = User, Name) ->
    case {lists:keytake(Name, 2, Inbox), lists:keyfind(<<"body">>, 2, Inbox), User#user.held} of
        {{value, El, Others}, _, _} -> {El, User#user{inbox = Others}};
        {false, {xmlel, _, _, _} = End, _} -> error({ended, End});
        {false, false, []} -> await(send(User, []), Name);
        {false, false, _} -> await(take(User), Name)
    end.

-spec message(iodata(), iodata()) -> iodata().
message(To, Text) ->
    ["<message xmlns='jabber:client' type='chat' to='", To, "'><body>", megaphone_test_bosh:escape(Text), "</body></message>"].

%% The texts of so many messages.
-spec messages(user(), non_neg_integer()) -> {[binary() | undefined], user()}.
messages(User, 0) ->
    {[], User};
messages(User, Count) ->
    {Message, Later} = await(User, <<"message">>),
    {Texts, Last} = messages(Later, Count - 1),
    {[text(<<"body">>, Message) | Texts], Last}.

%% The second one sees the first one come, and will see it go.
-spec watched(user(), user()) -> {user(), user()}.
watched(User, Watcher) ->
    Seen = send(User, ["<presence xmlns='jabber:client' to='", jid(Watcher), "'/>"]),
    {Seen, presence(Watcher, jid(User), undefined)}.

%% Waits until the user of this address is seen to go.
-spec gone(user(), binary()) -> user().
gone(Watcher, Jid) -> presence(Watcher, Jid, <<"unavailable">>).

-spec presence(user(), binary(), binary() | undefined) -> user().
presence(Watcher, Jid, Type) ->
    {{xmlel, _, Attributes, _}, Later} = await(Watcher, <<"presence">>),
    case [proplists:get_value(Name, Attributes) || Name <- [<<"from">>, <<"type">>]] of
        [Jid, Type] -> Later;
        _ -> presence(Later, Jid, Type)
    end.

%% ---- going -----------------------------------------------------------------------------------------------------

-spec finish(user()) -> ok.
finish(User) ->
    finish(User, []).

%% Ends the session with a request that has these elements. The answer to that one, or to one that is held, tells that it has.
-spec finish(user(), iodata()) -> ok.
finish(User, Elements) ->
    Ending = send(User, [{<<"type">>, "terminate"}], Elements),
    Types = [attribute(<<"type">>, content(megaphone_test_bosh:answer(Socket))) || {_, Socket} <- Ending#user.held],
    {true, _} = {lists:member(<<"terminate">>, Types), Types},
    abandon(Ending).

%% Closes its connections. The session goes on.
-spec abandon(user()) -> ok.
abandon(User) ->
    lists:foreach(fun megaphone_test_bosh:close/1, sockets(User)).
