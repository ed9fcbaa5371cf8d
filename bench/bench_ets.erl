%% ETS, as one would use it for this: a table of the connections, which a put must look at because data for an unknown
%% one has to be refused, and a table of what waits on them. Both are public and take writers side by side. A bag keeps
%% the order in which objects of one key came, so any process may put, and one `take' gets all that is there: the whole
%% request in one step, which is the fastest way.
-module(bench_ets).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-define(CONNECTIONS, bench_ets_connections).
-define(QUEUE, bench_ets_queue).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    Concurrent = [named_table, public, {write_concurrency, true}, {decentralized_counters, true}],
    _ = ets:new(?CONNECTIONS, [set, {read_concurrency, true} | Concurrent]),
    _ = ets:new(?QUEUE, [duplicate_bag | Concurrent]),
    Peer = {{16#2001, 16#db8, 0, 0, 0, 0, 0, 1}, 40000},
    Keys = lists:seq(0, Connections - 1),
    _ = [ets:insert(?CONNECTIONS, {Key, Peer, self()}) || Key <- Keys],
    _ = Fill =:= none orelse [?MODULE:put(Key, Fill(Key)) || Key <- Keys],
    Keys.

-spec put(bench_store:key(), binary()) -> true.
put(Key, Request) ->
    true = ets:member(?CONNECTIONS, Key),
    ets:insert(?QUEUE, {Key, bench_requests:decode(binary:copy(Request))}).

-spec ask(bench_store:key(), bench_store:variant()) -> ok.
ask(_Key, _Variant) ->
    ok.

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(Key, Expected) ->
    ets:take(?QUEUE, Key) =:= [{Key, Expected}].
