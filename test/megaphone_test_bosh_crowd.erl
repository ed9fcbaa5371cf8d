%% Many at once: work that some processes share, and clients that log in by both of their connections.
-module(megaphone_test_bosh_crowd).

-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [attribute/2, content/2, elements/1, post/5]).

-export([each/3, login/3]).

-define(SASL, "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'").
-define(RESTART, [{<<"xmlns:xmpp">>, "urn:xmpp:xbosh"}, {<<"xmpp:restart">>, "true"}, {<<"to">>, "localhost"}]).
-define(BIND, "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").
-define(ROSTER, "<iq xmlns='jabber:client' type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>").

%% ---- work ------------------------------------------------------------------------------------------------------

%% What the function makes of each number up to `Count', `Workers' of them at a time. The first failure ends all.
-spec each(pos_integer(), pos_integer(), fun((pos_integer()) -> Result)) -> [Result].
each(Workers, Count, Fun) ->
    Pids = [
        spawn_monitor(fun() -> exit({done, [Fun(N) || N <- lists:seq(First, Count, Workers)]}) end)
     || First <- lists:seq(1, min(Workers, Count))
    ],
    lists:append([ended(Worker, Pids) || Worker <- Pids]).

-spec ended({pid(), reference()}, [{pid(), reference()}]) -> [term()].
ended({Pid, MRef}, Pids) ->
    receive
        {'DOWN', MRef, process, Pid, {done, Results}} ->
            Results;
        {'DOWN', MRef, process, Pid, Reason} ->
            _ = [exit(Each, kill) || {Each, _} <- Pids],
            error(Reason)
    end.

%% ---- a client --------------------------------------------------------------------------------------------------

-record(client, {
    session :: megaphone_test_bosh:session(),
    prompt :: pos_integer(),
    %% In two steps of three the request with the stanza is sent before the one that is to be held.
    overtakes :: non_neg_integer(),
    next = 1 :: pos_integer(),
    free :: [gen_tcp:socket()],
    held = [] :: [{pos_integer(), gen_tcp:socket()}],
    %% When the last request was sent.
    sent = 0 :: integer(),
    %% Milliseconds from that moment to the answers that were due.
    times = [] :: [non_neg_integer()],
    overtaken = 0 :: non_neg_integer()
}).

%% Logs in, asks for the roster, says that it is there, and goes. No answer may take longer than `Prompt' milliseconds from
%% the moment at which it is due: when the request after it was sent, or its own stanza.
-spec login(megaphone_test_bosh_node:where(), pos_integer(), pos_integer()) -> #{times := [non_neg_integer()], overtaken := non_neg_integer()}.
login(Where, Number, Prompt) ->
    Sockets = [Socket, _] = [megaphone_test_bosh:connect(Where) || _ <- [1, 2]],
    {{Session, _}, Time} = megaphone_test_bosh:timed(fun() -> megaphone_test_bosh:create(Socket, Where) end),
    New = #client{session = Session, prompt = Prompt, overtakes = Number, free = Sockets, times = [Time]},
    Steps = [
        {[], ["<auth ", ?SASL, " mechanism='ANONYMOUS'/>"], <<"success">>},
        {?RESTART, [], <<"stream:features">>},
        {[], ?BIND, <<"iq">>},
        {[], ?ROSTER, <<"iq">>},
        {[], "<presence xmlns='jabber:client'/>", <<"presence">>}
    ],
    Online = lists:foldl(fun step/2, New, Steps),
    #client{times = Times, overtaken = Overtaken} = finish(Online),
    #{times => Times, overtaken => Overtaken}.

%% A stanza, and what it is answered with.
-spec step({megaphone_test_bosh:attributes(), iodata(), binary()}, #client{}) -> #client{}.
step({Attributes, Elements, Expected}, Client) ->
    await(Expected, ask(Attributes, Elements, Client)).

%% Sends a stanza by one connection while a request is held on the other.
-spec ask(megaphone_test_bosh:attributes(), iodata(), #client{}) -> #client{}.
ask(Attributes, Elements, #client{held = [], next = N, free = [A, B], overtakes = Step} = Client) ->
    Later = Client#client{next = N + 2, free = [], held = [{N, A}, {N + 1, B}], overtakes = Step + 1},
    Requests = [{A, N, [], []}, {B, N + 1, Attributes, Elements}],
    case Step rem 3 of
        0 -> send(Requests, Later);
        _ -> send(lists:reverse(Requests), Later#client{overtaken = Client#client.overtaken + 1})
    end;
ask(Attributes, Elements, #client{held = Held, next = N, free = [Socket]} = Client) ->
    send([{Socket, N, Attributes, Elements}], Client#client{next = N + 1, free = [], held = Held ++ [{N, Socket}]}).

-spec send([{gen_tcp:socket(), pos_integer(), megaphone_test_bosh:attributes(), iodata()}], #client{}) -> #client{}.
send(Requests, #client{session = Session} = Client) ->
    [ok = post(Socket, Session, N, Attributes, Elements) || {Socket, N, Attributes, Elements} <- Requests],
    Client#client{sent = erlang:monotonic_time(millisecond)}.

%% Takes answers until this has come. A request stays held if it was not needed for that.
-spec await(binary(), #client{}) -> #client{}.
await(Expected, #client{held = [], next = N, free = [Socket, Other]} = Client) ->
    ok = post(Socket, Client#client.session, N, [], []),
    await(Expected, Client#client{next = N + 1, held = [{N, Socket}], free = [Other]});
await(Expected, Client) ->
    {Content, Later} = take(Client),
    case lists:keymember(Expected, 2, elements(Content)) of
        true -> Later;
        false -> await(Expected, Later)
    end.

-spec take(#client{}) -> {megaphone_test_bosh:element(), #client{}}.
take(#client{held = [{N, Socket} | Held], free = Free, sent = Sent, times = Times} = Client) ->
    case content(Socket, Client#client.prompt) of
        {xmlel, _, _, _} = Content ->
            Time = erlang:monotonic_time(millisecond) - Sent,
            {Content, Client#client{held = Held, free = Free ++ [Socket], times = [Time | Times]}};
        Other ->
            error({no_prompt_answer, N, Other, Client})
    end.

%% The session ends, also promptly.
-spec finish(#client{}) -> #client{}.
finish(Client) ->
    {First, Later} = take(ask([{<<"type">>, "terminate"}], [], Client)),
    {Second, Last} = take(Later),
    [<<"terminate">>] = lists:usort([Type || Content <- [First, Second], Type <- [attribute(<<"type">>, Content)], Type =/= undefined]),
    lists:foreach(fun megaphone_test_bosh:close/1, Last#client.free),
    Last.
