%% Linearizability of what was recorded of one connection: is there an order of the operations, in which one that ended
%% before another began comes first, and in which the model (megaphone_test_model) gives each of them its answer and sends
%% each process its messages in the order in which they came?
%%
%% The search goes on with an operation that can come first, and back when the model says no. States that led to nothing
%% are remembered, so that the many orders that differ in nothing are tried once.
-module(megaphone_test_order).

-include("megaphone_test_model.hrl").

-export([check/1]).

-import(megaphone_test_model, [call/4, read/4, reply/4, serve/1, settle/1, clean/2]).

-type model() :: megaphone_test_model:model().
-type operation() :: megaphone_test_model:operation().
-type queues() :: [[operation(), ...]].
%% What is left, in order, of each process.
-type tried() :: #{term() => []}.

%% If there is no order: the longest beginning of one, for people to read.
-spec check(megaphone_test_model:history()) -> ok | {no_order, [operation()]}.
check(#{operations := Operations} = History) ->
    ByProcess = maps:values(maps:groups_from_list(fun(Operation) -> element(1, Operation) end, Operations)),
    put(longest, {0, []}),
    Found = search([lists:keysort(4, Queue) || Queue <- ByProcess], megaphone_test_model:new(History), [], #{}),
    {_, Longest} = erase(longest),
    case Found of
        found -> ok;
        {none, _} -> {no_order, lists:reverse(Longest)}
    end.

-spec search(queues(), model(), [operation()], tried()) -> found | {none, tried()}.
search([], Model, Done, Tried) ->
    remember(Done),
    case is_all_told(Model) of
        true -> found;
        false -> {none, Tried}
    end;
search(Queues, Model, Done, Tried) ->
    %% What ends first of all that is left: whatever began after that cannot come first.
    First = lists:min([End || [{_, _, _, _, End} | _] <- Queues]),
    case [Queue || [{_, _, _, Start, _} | _] = Queue <- Queues, Start < First] of
        [_] = Ready ->
            try_each(Ready, Queues, Model, Done, Tried);
        Ready ->
            Left = lists:sort([{element(1, Next), length(Queue)} || [Next | _] = Queue <- Queues]),
            Key = {Left, key(Model)},
            case is_map_key(Key, Tried) orelse try_each(lists:sort(fun earlier/2, Ready), Queues, Model, Done, Tried) of
                true -> {none, Tried};
                found -> found;
                {none, Now} -> {none, Now#{Key => []}}
            end
    end.

%% In the order of their ends: mostly that is the right one.
-spec earlier([operation()], [operation()]) -> boolean().
earlier([{_, _, _, _, A} | _], [{_, _, _, _, B} | _]) -> A =< B.

-spec try_each(queues(), queues(), model(), [operation()], tried()) -> found | {none, tried()}.
try_each([], _Queues, _Model, Done, Tried) ->
    remember(Done),
    {none, Tried};
try_each([[Operation | Rest] = Queue | Others], Queues, Model, Done, Tried) ->
    Outcomes = outcomes(Operation, Model),
    case try_outcomes(Outcomes, Operation, Rest, lists:delete(Queue, Queues), Done, Tried) of
        found -> found;
        {none, Now} -> try_each(Others, Queues, Model, Done, Now)
    end.

-spec try_outcomes([{done | more, model()}], operation(), [operation()], queues(), [operation()], tried()) ->
    found | {none, tried()}.
try_outcomes([], _Operation, _Rest, _Queues, _Done, Tried) ->
    {none, Tried};
try_outcomes([{Progress, Next} | Others], Operation, Rest, Queues, Done, Tried) ->
    Found =
        case Progress of
            more -> search([[Operation | Rest] | Queues], Next, Done, Tried);
            done when Rest =:= [] -> search(Queues, Next, [Operation | Done], Tried);
            done -> search([Rest | Queues], Next, [Operation | Done], Tried)
        end,
    case Found of
        found -> found;
        {none, Now} -> try_outcomes(Others, Operation, Rest, Queues, Done, Now)
    end.

-spec remember([operation()]) -> term().
remember(Done) ->
    {Length, _} = get(longest),
    length(Done) >= Length andalso put(longest, {length(Done), Done}).

%% What tells two states apart; the rest is the same in one search.
-spec key(model()) -> term().
key(C) ->
    C#c{mail = maps:map(fun(_, Left) -> length(Left) end, C#c.mail), lost = #{}, limits = #{}, now = 0}.

%% Every message that came was sent by one of the operations.
-spec is_all_told(model()) -> boolean().
is_all_told(#c{mail = Mail}) ->
    lists:all(fun(Left) -> Left =:= [] end, maps:values(Mail)).

%% ---- one step of an operation --------------------------------------------------------------------------------------

%% What may come of one step of it, if the answer is the one that was recorded; nothing if it cannot take place now.
-spec outcomes(operation(), model()) -> [{done | more, model()}].
outcomes({Who, _, _, Start, End} = Operation, #c{steps = Steps, owner = Owner, input = Input, lost = Lost} = C) ->
    %% A message that was there when the operation began was sent by one before it.
    Timely = lists:all(fun([{_, _, There} | _]) -> There > Start; ([]) -> true end, maps:values(C#c.mail)),
    %% Pieces of more than 4 kB are not joined to others; how large they were is not known when their owner is lost.
    Cuts = [all | [first || byte_size(Input) > 4096, is_map_key(Owner, Lost)]],
    Begun = C#c{now = End, steps = maps:remove(Who, Steps)},
    lists:append([possible(maps:get(Who, Steps, start), Operation, Begun#c{cut = Cut}) || Timely, Cut <- Cuts]).

possible(State, Operation, C) ->
    try step(State, Operation, C) of
        Outcomes -> [{Progress, Next#c{cut = all}} || {Progress, Next} <- Outcomes]
    catch
        throw:impossible -> []
    end.

step(start, {_, {death, Pid}, _, _, _}, C) ->
    [{done, C#c{dead = [Pid | C#c.dead]}}];
step(start, {_, {down, Pid}, _, _, _}, C) ->
    [{done, clean(Pid, C#c{cleaned = [Pid | C#c.cleaned]})}];
step(start, {Who, {get_data, Pid}, ok, _, _} = Operation, C) ->
    %% Who is asked for may die after it was seen alive, and then it is found dead when it is to be watched.
    case {lists:member(Pid, C#c.dead), is_map_key(Pid, C#c.lost)} of
        {true, _} -> [{done, C}];
        {false, true} -> [{more, later(Who, alive, C)}];
        {false, false} -> step(alive, Operation, C)
    end;
step(alive, {Who, {get_data, Pid}, ok, _, _}, C) ->
    case read(Pid, plain, 0, C) of
        {wait, Next} -> watch(Who, Pid, Next);
        {{ok, _} = Data, Next} -> [{done, settle(reply(Pid, plain, Data, Next))}];
        {{error, _}, Next} -> [{done, settle(reply(Pid, plain, {error, closed}, Next))}]
    end;
step(start, {_, {set_owner, _}, Answer, _, _}, #c{life = gone} = C) ->
    [{done, C} || Answer =:= {error, closed}];
step(start, {Who, {set_owner, Pid}, ok, _, _}, C) ->
    watch(Who, Pid, settle(serve(C#c{owner = Pid})));
step(start, {_, {What, _}, _, _, _}, _C) when What =:= get_data; What =:= set_owner ->
    [];
step(watch, {_, {_, Pid}, _, _, _}, C) ->
    %% One that is dead already is cleaned up after by whoever finds it so, or by its own end.
    case {lists:member(Pid, C#c.dead), lists:member(Pid, C#c.cleaned)} of
        {false, _} -> [{done, C}];
        {true, false} -> [{done, clean(Pid, C)}, {done, C}];
        {true, true} -> [{done, clean(Pid, C)}]
    end;
step(start, {Who, {tcp_recv, Length}, Answer, _, _}, C) ->
    case Answer of
        {ok, Data} -> next_read(Who, Length, [Data], ok, C);
        {error, Reason} -> next_read(Who, Length, [], Reason, C)
    end;
step(start, {Who, recv_packet, Answer, _, _}, C) ->
    {Results, End} =
        case Answer of
            {ok, All} -> {All, ok};
            {error, {incomplete, Reason, Some}} -> {Some, Reason};
            {error, Reason} -> {[], Reason}
        end,
    Whole = [{done, settle(Next)} || {ok, Next} <- [megaphone_test_model:whole_packet(Results, C)], End =:= ok],
    Closed = [{done, C} || C#c.life =:= gone, Answer =:= {error, closed}],
    Whole ++ Closed ++ [{more, later(Who, {read, 0, Results, End}, C)}];
step({read, Length, Results, End}, {Who, _, _, _, _}, C) ->
    next_read(Who, Length, Results, End, C);
step({waiting, Length, Results, End}, {Who, _, _, _, _}, #c{inner = Inner} = C) ->
    case Inner of
        #{Who := Given} -> was_read(Who, Given, Length, Results, End, C#c{inner = maps:remove(Who, Inner)});
        _ -> [{done, element(2, call({cancel, {inner, Who}}, Who, none, C))} || Results =:= [], End =:= timeout]
    end;
step(start, {Who, Call, Answer, _, _}, C) ->
    Token = case Answer of {wait, Named} -> Named; {wait, _, Named} -> Named; _ -> none end,
    [{done, Next} || {Same, Next} <- [call(Call, Who, Token, C)], Same =:= Answer].

later(Who, State, C) -> C#c{steps = (C#c.steps)#{Who => State}}.

watch(Who, Pid, C) ->
    case is_map_key(Pid, C#c.lost) of
        true -> [{more, later(Who, watch, C)}];
        false -> [{done, C}]
    end.

%% A read that gives up at once when it would have to wait, as a part of a longer operation.
next_read(Who, Length, Results, End, C) ->
    case call({recv, Length}, Who, {inner, Who}, C) of
        {{wait, _}, Next} -> [{more, later(Who, {waiting, Length, Results, End}, Next)}];
        {Answer, Next} -> was_read(Who, Answer, Length, Results, End, Next)
    end.

was_read(_Who, {ok, Result}, _Length, [Result], ok, C) -> [{done, C}];
was_read(Who, {ok, Result}, Length, [Result | Rest], End, C) -> [{more, later(Who, {read, Length, Rest, End}, C)}];
was_read(_Who, {error, Reason}, _Length, [], Reason, C) -> [{done, C}];
was_read(_Who, _Given, _Length, _Results, _End, _C) -> [].
