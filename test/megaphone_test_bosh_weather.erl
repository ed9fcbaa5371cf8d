%% A BOSH client in bad weather: requests and answers get lost, requests overtake each other and come twice. It and another
%% user, who has no such trouble, send each other numbered messages. The same seed makes the same choices.
%%
%% With several `ports' each of its requests goes by one of them. A copy that is late for more than two requests would end the
%% session (XEP-0124, 14.3): none is on its way when a new request is sent. `halfway' is done when half of its
%% messages are sent and a request is on its way; it tells which ports are left.
-module(megaphone_test_bosh_weather).

-include("megaphone_test.hrl").

-import(megaphone_test_bosh, [attribute/2, attributes/2, content/2, elements/1, post/5, text/2]).

-export([run/3]).
-export_type([trouble/0]).

%% An answer is lost: the connection is cut when the request is there. A request is lost: it is never sent, until it is
%% repeated; so the next one comes first. Twice: it is repeated while the first one is on its way.
-type trouble() :: answer_lost | request_lost | twice.

-record(state, {
    where :: megaphone_test_bosh_node:where(),
    session :: megaphone_test_bosh:session(),
    troubles :: [trouble()],
    %% The other user, and what it will still say.
    other :: megaphone_test_bosh_user:user(),
    says :: [binary()],
    %% What the client will still say, and the number of its next request.
    own :: [binary()],
    next :: pos_integer(),
    %% Not yet answered, the oldest first: what they carry and by which connections they may be answered.
    open = [] :: [{pos_integer(), iodata(), [gen_tcp:socket()]}],
    answers = #{} :: #{pos_integer() => megaphone_test_bosh:element()}
}).

-define(COUNT, 30).
%% Milliseconds for an answer, before something else happens.
-define(PATIENCE, 20).
-define(STEPS, 5000).

-spec run(megaphone_test_bosh_node:where(), integer(), [trouble()]) -> ok | {atom(), term()}.
run(Where, Seed, Troubles) ->
    _ = rand:seed(exsss, Seed),
    Client = megaphone_test_bosh_user:idle(megaphone_test_bosh_user:login(Where, anonymous, [{<<"wait">>, 1}])),
    Other = megaphone_test_bosh_user:online(Where),
    {Next, []} = megaphone_test_bosh_user:numbers(Client),
    Texts = [integer_to_binary(N) || N <- lists:seq(1, ?COUNT)],
    State = #state{
        where = Where, session = megaphone_test_bosh_user:session(Client), troubles = Troubles, other = Other,
        says = [[text_to(Client, Text)] || Text <- Texts], own = [text_to(Other, Text) || Text <- Texts], next = Next
    },
    ok = megaphone_test_bosh_user:abandon(Client),
    case steps(State, ?STEPS) of
        #state{} = Last -> verdict(Last, Texts);
        Failure -> Failure
    end.

-spec text_to(megaphone_test_bosh_user:user(), binary()) -> iodata().
text_to(User, Text) ->
    megaphone_test_bosh_user:message(megaphone_test_bosh_user:jid(User), Text).

%% Nothing more comes for either of them than each message once.
-spec verdict(#state{}, [binary()]) -> ok | {atom(), term()}.
verdict(#state{other = Other} = State, Texts) ->
    {Heard, Later} = megaphone_test_bosh_user:messages(Other, ?COUNT),
    _ = megaphone_test_bosh_user:finish(Later),
    case {Heard, heard(finish(State))} of
        {Texts, Texts} -> ok;
        {Texts, Wrong} -> {client_heard, Wrong};
        {Wrong, _} -> {other_heard, Wrong}
    end.

%% Natively the session ends here, not by its time of inactivity: so it is still the one that was made. The last request may not
%% come before two others.
-spec finish(#state{}) -> #state{}.
finish(#state{where = #{kind := mod_bosh}} = State) ->
    State;
finish(#state{open = [_, _ | _] = Open} = State) ->
    Sent = [{N, Elements, sent_once(State, N, Elements, Sockets)} || {N, Elements, Sockets} <- Open],
    finish(lists:foldl(fun read/2, State#state{open = []}, Sent));
finish(#state{open = Open, next = N} = State) ->
    Sockets = lists:append([sent_once(State, Each, Elements, Sockets) || {Each, Elements, Sockets} <- Open]),
    Last = Sockets ++ sent(State, N, [{<<"type">>, "terminate"}], []),
    Contents = [Content || Socket <- Last, {xmlel, _, _, _} = Content <- [content(Socket, ?DEADLINE)]],
    [[<<"terminate">>, undefined]] = lists:usort([End || Content <- Contents, [Type, _] = End <- [attributes([<<"type">>, <<"condition">>], Content)], Type =/= undefined]),
    lists:foreach(fun megaphone_test_bosh:close/1, Last),
    State#state{open = [], answers = maps:merge(State#state.answers, maps:from_list(lists:enumerate(N, Contents)))}.

-spec sent_once(#state{}, pos_integer(), iodata(), [gen_tcp:socket()]) -> [gen_tcp:socket()].
sent_once(State, N, Elements, []) -> sent(State, N, Elements);
sent_once(_State, _N, _Elements, Sockets) -> Sockets.

%% In the order of the requests. What has no sender is an echo of the client's own; see megaphone_test_bosh_expect.
-spec heard(#state{}) -> [binary() | undefined].
heard(#state{answers = Answers, where = #{kind := Kind}}) ->
    Messages = [El || {_, Content} <- lists:sort(maps:to_list(Answers)), {xmlel, <<"message">>, _, _} = El <- elements(Content)],
    Echoes = [El || megaphone_test_bosh_expect:expect(repeats_are_echoed, Kind), El <- Messages, attribute(<<"from">>, El) =:= undefined],
    [text(<<"body">>, El) || El <- Messages -- Echoes].

-spec steps(#state{}, non_neg_integer()) -> #state{} | {atom(), term()}.
steps(State, 0) ->
    {no_end, State};
steps(#state{says = [], own = [], open = Open} = State, Left) ->
    case length(heard(State)) >= ?COUNT andalso not lists:any(fun({_, Elements, _}) -> Elements =/= [] end, Open) of
        true -> State;
        false -> step(State, Left)
    end;
steps(State, Left) ->
    step(State, Left).

-spec step(#state{}, non_neg_integer()) -> #state{} | {atom(), term()}.
step(State, Left) ->
    Read = lists:foldl(fun read/2, State#state{open = []}, State#state.open),
    case [Content || Content <- maps:values(Read#state.answers), attribute(<<"type">>, Content) =:= <<"terminate">>] of
        [] -> steps(repeat(halfway(request(say(Read)))), Left - 1);
        [End | _] -> {ended, End}
    end.

-spec halfway(#state{}) -> #state{}.
halfway(#state{where = #{halfway := Fun} = Where, own = Own, open = Open} = State) when length(Own) =< ?COUNT div 2 ->
    case [Socket || {_, _, Sockets} <- Open, Socket <- Sockets] of
        [] ->
            State;
        _ ->
            State#state{where = maps:remove(halfway, Where#{ports := Fun()})}
    end;
halfway(State) ->
    State.

%% The other user says something, or not.
-spec say(#state{}) -> #state{}.
say(#state{says = [Text | Texts], other = Other} = State) ->
    case rand:uniform(3) of
        1 -> State#state{says = Texts, other = megaphone_test_bosh_user:send(Other, Text)};
        _ -> State
    end;
say(State) ->
    State.

%% A new request, if there may be one behind the oldest that is open: an empty one only if none is.
-spec request(#state{}) -> #state{}.
request(#state{open = [{Oldest, _, _} | _], next = N} = State) when N > Oldest + 1 ->
    State;
request(#state{open = Open, own = Own} = State) ->
    case min(rand:uniform(4) - 1, length(Own)) of
        0 when Open =/= [] ->
            State;
        Count ->
            {Texts, Later} = lists:split(Count, Own),
            N = State#state.next,
            ok = behind(State#state.where),
            State#state{own = Later, next = N + 1, open = Open ++ [{N, Texts, transmit(State, N, Texts)}]}
    end.

%% Sends a request, or has it lost; the connections by which its answer may come.
-spec transmit(#state{}, pos_integer(), iodata()) -> [gen_tcp:socket()].
transmit(#state{troubles = Troubles} = State, N, Elements) ->
    Known = length(Troubles),
    case rand:uniform(2 * Known) of
        Lucky when Lucky > Known -> sent(State, N, Elements);
        Trouble -> trouble(lists:nth(Trouble, Troubles), State, N, Elements)
    end.

-spec trouble(trouble(), #state{}, pos_integer(), iodata()) -> [gen_tcp:socket()].
trouble(request_lost, _State, _N, _Elements) ->
    [];
trouble(twice, State, N, Elements) ->
    sent(State, N, Elements) ++ sent(State, N, Elements);
trouble(answer_lost, State, N, Elements) ->
    lists:foreach(fun megaphone_test_bosh:close/1, sent(State, N, Elements)),
    [].

%% Where requests may not overtake each other, this one has arrived now.
-spec sent(#state{}, pos_integer(), iodata()) -> [gen_tcp:socket()].
sent(State, N, Elements) ->
    sent(State, N, [], Elements).

-spec sent(#state{}, pos_integer(), megaphone_test_bosh:attributes(), iodata()) -> [gen_tcp:socket()].
sent(#state{where = Where, session = Session}, N, Attributes, Elements) ->
    Socket = connect(Where),
    ok = post(Socket, Session, N, Attributes, Elements),
    ok = megaphone_test_bosh_node:arrived(Where, Session, N),
    [Socket].

%% All that was sent by one of the ports has arrived: what comes later by the same one has been answered.
-spec behind(megaphone_test_bosh_node:where()) -> ok.
behind(#{ports := Ports} = Where) ->
    lists:foreach(
        fun(Port) ->
            Socket = connect(Where#{ports := [Port]}),
            {xmlel, _, _, _} = megaphone_test_bosh:ask(Socket, #{port => Port, host => <<>>, sid => <<"none">>, rid => 1}, 1),
            megaphone_test_bosh:close(Socket)
        end,
        Ports
    );
behind(_Where) ->
    ok.

%% By one of the ports.
-spec connect(megaphone_test_bosh_node:where()) -> gen_tcp:socket().
connect(#{ports := Ports} = Where) ->
    megaphone_test_bosh:connect(Where#{port := lists:nth(rand:uniform(length(Ports)), Ports)});
connect(Where) ->
    megaphone_test_bosh:connect(Where).

%% Looks for an answer by each of the connections of a request. Those that were cut are forgotten.
-spec read({pos_integer(), iodata(), [gen_tcp:socket()]}, #state{}) -> #state{}.
read({N, Elements, Sockets}, #state{open = Open, answers = Answers} = State) ->
    Found = [{Socket, content(Socket, ?PATIENCE)} || Socket <- Sockets],
    case [Content || {_, {xmlel, _, _, _} = Content} <- Found] of
        [Content | _] ->
            lists:foreach(fun megaphone_test_bosh:close/1, Sockets),
            State#state{answers = Answers#{N => Content}};
        [] ->
            State#state{open = Open ++ [{N, Elements, [Socket || {Socket, timeout} <- Found]}]}
    end.

%% Requests that have no connection any more are sent again, sometimes. Where requests may not overtake each other the answer
%% then gets through: nobody can tell when a repeat has arrived.
-spec repeat(#state{}) -> #state{}.
repeat(#state{open = Open} = State) ->
    State#state{open = [{N, Elements, repeat(State, N, Elements, Sockets)} || {N, Elements, Sockets} <- Open]}.

-spec repeat(#state{}, pos_integer(), iodata(), [gen_tcp:socket()]) -> [gen_tcp:socket()].
repeat(State, N, Elements, []) ->
    case {rand:uniform(2), State#state.troubles} of
        {1, [answer_lost]} -> sent(State, N, Elements);
        {1, _} -> transmit(State, N, Elements);
        {2, _} -> []
    end;
repeat(_State, _N, _Elements, Sockets) ->
    Sockets.
