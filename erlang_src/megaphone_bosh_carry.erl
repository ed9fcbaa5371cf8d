%% @private
%% @doc Carries BOSH requests to the node of a cluster that has their session.
%%
%% A sid begins with its node's tag, a random number. Each node joins the group of its tag; so a request with a foreign tag is
%% brought by a process of its own to a process of that node, which waits for the answer there. If the client goes, both end.
-module(megaphone_bosh_carry).

-export([child_spec/0, join/0, start/4, ask/2, serve/3]).

-define(NOT_FOUND, {200, <<"<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='item-not-found'/>">>}).

%% @doc Who is in which group, for a supervisor.
-spec child_spec() -> supervisor:child_spec().
child_spec() ->
    #{id => ?MODULE, start => {pg, start_link, [?MODULE]}}.

%% @doc Makes the calling process the one by which other nodes find this one.
-spec join() -> ok.
join() ->
    #{node := Tag} = megaphone_nif:bosh_info(),
    pg:join(?MODULE, Tag, self()).

%% @doc Starts the process that answers a request on a connection; it is ended when the client goes.
-spec start(megaphone_nif:handle(), megaphone_nif:bosh_waiter(), non_neg_integer(), binary()) -> ok.
start(Handle, Waiter, Tag, Body) ->
    case node_of(Tag) of
        {ok, Node} ->
            Pid = spawn(fun() -> carry(Handle, Waiter, Node, Body) end),
            _ = megaphone_nif:set_consumer(Handle, Pid),
            ok;
        error ->
            megaphone_nif:bosh_refuse(Waiter, 'item-not-found')
    end.

-spec carry(megaphone_nif:handle(), megaphone_nif:bosh_waiter(), node(), binary()) -> ok.
carry(Handle, Waiter, Node, Body) ->
    case call(Node, Body) of
        {Status, Text} -> megaphone_nif:bosh_answer(Waiter, Status, Text);
        closed -> megaphone_nif:close(Handle)
    end.

%% @doc The answer of the node with this tag.
-spec ask(non_neg_integer(), binary()) -> megaphone_bosh:answer().
ask(Tag, Body) ->
    case node_of(Tag) of
        {ok, Node} -> call(Node, Body);
        error -> ?NOT_FOUND
    end.

%% A tag that came from a client is only compared.
-spec node_of(non_neg_integer()) -> {ok, node()} | error.
node_of(Tag) ->
    case pg:get_members(?MODULE, Tag) of
        [Pid | _] when node(Pid) =/= node() -> {ok, node(Pid)};
        _ -> error
    end.

-spec call(node(), binary()) -> megaphone_bosh:answer().
call(Node, Body) ->
    Ref = make_ref(),
    {Pid, MRef} = spawn_monitor(Node, ?MODULE, serve, [self(), Ref, Body]),
    receive
        {Ref, Answer} ->
            true = demonitor(MRef, [flush]),
            Answer;
        {'DOWN', MRef, process, Pid, _Reason} ->
            %% The node has gone, and its sessions with it.
            ?NOT_FOUND
    end.

%% @doc On the node that has the session: waits for the answer, no longer than the one who asks lives.
-spec serve(pid(), reference(), binary()) -> ok.
serve(Asker, Ref, Body) ->
    MRef = monitor(process, Asker),
    Number = erlang:unique_integer([positive]),
    ok = megaphone_bosh:request(Number, Body),
    receive
        {megaphone_bosh, Number, Status, Text} ->
            Asker ! {Ref, {Status, Text}},
            ok;
        {megaphone_bosh, Number, closed} ->
            Asker ! {Ref, closed},
            ok;
        {'DOWN', MRef, process, Asker, _Reason} ->
            megaphone_nif:bosh_forget({self(), Number}, Body)
    end.
