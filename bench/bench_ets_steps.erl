%% ETS with a reader that gets one packet at a time, as readers of the original and of a socket do: the row of a
%% connection counts what was put and what was taken, and each packet is a row of its own.
-module(bench_ets_steps).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-define(CONNECTIONS, bench_ets_connections).
-define(QUEUE, bench_ets_queue).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    Concurrent = [named_table, public, set, {write_concurrency, true}, {decentralized_counters, true}],
    _ = ets:new(?CONNECTIONS, Concurrent),
    _ = ets:new(?QUEUE, Concurrent),
    Peer = {{16#2001, 16#db8, 0, 0, 0, 0, 0, 1}, 40000},
    Keys = lists:seq(0, Connections - 1),
    _ = [ets:insert(?CONNECTIONS, {Key, 0, 0, Peer, self()}) || Key <- Keys],
    _ = Fill =:= none orelse [?MODULE:put(Key, Fill(Key)) || Key <- Keys],
    Keys.

-spec put(bench_store:key(), binary()) -> true.
put(Key, Request) ->
    Packets = bench_requests:decode(binary:copy(Request)),
    Count = length(Packets),
    Last = ets:update_counter(?CONNECTIONS, Key, {2, Count}),
    ets:insert(?QUEUE, rows(Key, Last - Count + 1, Packets)).

-spec rows(bench_store:key(), pos_integer(), bench_requests:packets()) -> [tuple()].
rows(_Key, _Number, []) -> [];
rows(Key, Number, [Packet | Packets]) -> [{{Key, Number}, Packet} | rows(Key, Number + 1, Packets)].

-spec ask(bench_store:key(), bench_store:variant()) -> ok.
ask(_Key, _Variant) ->
    ok.

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(_Key, []) ->
    true;
check(Key, [Packet | Packets]) ->
    Number = ets:update_counter(?CONNECTIONS, Key, {3, 1}),
    case ets:take(?QUEUE, {Key, Number}) of
        [{_, Packet}] -> check(Key, Packets);
        _ -> false
    end.
