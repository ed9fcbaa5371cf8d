%% The original's way, written anew from its description: one process owns two dictionaries, of the results that wait
%% on each connection and of the readers that wait. A put takes the request apart and appends its results with `++'; a
%% get takes the first one. What kept the original from working is mended: a new connection harms nobody, what was put
%% is kept, and an unknown connection is answered.
-module(bench_original).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-record(state, {
    results :: dict:dict(bench_store:key(), bench_requests:packets()),
    waiters :: dict:dict(bench_store:key(), pid())
}).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    Self = self(),
    Server = spawn_link(fun() ->
        true = register(?MODULE, self()),
        Results = fill(0, Connections, Fill, dict:new()),
        Self ! {self(), ok},
        loop(#state{results = Results, waiters = dict:new()})
    end),
    receive
        {Server, ok} -> lists:seq(0, Connections - 1)
    end.

-spec fill(non_neg_integer(), pos_integer(), bench_store:fill(), Dict) -> Dict when Dict :: dict:dict().
fill(Connections, Connections, _Fill, Results) ->
    Results;
fill(Key, Connections, none, Results) ->
    fill(Key + 1, Connections, none, dict:store(Key, [], Results));
fill(Key, Connections, Fill, Results) ->
    Packets = bench_requests:decode(binary:copy(Fill(Key))),
    fill(Key + 1, Connections, Fill, dict:store(Key, Packets, Results)).

-spec put(bench_store:key(), binary()) -> term().
put(Key, Request) ->
    ?MODULE ! {put_data, Key, binary:copy(Request)}.

-spec ask(bench_store:key(), bench_store:variant()) -> ok.
ask(_Key, _Variant) ->
    ok.

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(_Key, []) ->
    true;
check(Key, [Packet | Packets]) ->
    case recv(Key) of
        {ok, Packet} -> check(Key, Packets);
        _ -> false
    end.

-spec recv(bench_store:key()) -> {ok, term()} | {error, term()}.
recv(Key) ->
    ?MODULE ! {get_data, self(), Key},
    receive
        {ok, Result} -> {ok, Result};
        {error, Reason} -> {error, Reason};
        {shutdown} -> {error, shutdown}
    end.

-spec loop(#state{}) -> no_return().
loop(State) ->
    receive
        {put_data, Key, Request} -> loop(put_data(Key, Request, State));
        {get_data, From, Key} -> loop(get_data(From, Key, State))
    end.

-spec put_data(bench_store:key(), binary(), #state{}) -> #state{}.
put_data(Key, Request, #state{results = Results} = State) ->
    New = bench_requests:decode(Request),
    Old =
        case dict:find(Key, Results) of
            {ok, There} -> There;
            error -> []
        end,
    serve(Key, State#state{results = dict:store(Key, Old ++ New, Results)}).

-spec serve(bench_store:key(), #state{}) -> #state{}.
serve(Key, #state{waiters = Waiters} = State) ->
    case dict:find(Key, Waiters) of
        {ok, Waiter} -> get_data(Waiter, Key, State#state{waiters = dict:erase(Key, Waiters)});
        error -> State
    end.

-spec get_data(pid(), bench_store:key(), #state{}) -> #state{}.
get_data(From, Key, #state{results = Results, waiters = Waiters} = State) ->
    case dict:find(Key, Results) of
        {ok, [First | Others]} ->
            From ! {ok, First},
            State#state{results = dict:store(Key, Others, Results)};
        {ok, []} ->
            State#state{waiters = dict:store(Key, From, Waiters)};
        error ->
            From ! {error, closed},
            State
    end.
