%% Megaphone's table, by its public functions: a reader takes a whole packet at once.
-module(bench_megaphone).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    {ok, _} = application:ensure_all_started(megaphone),
    [open_one(Place, Fill) || Place <- lists:seq(0, Connections - 1)].

-spec open_one(non_neg_integer(), bench_store:fill()) -> bench_store:key().
open_one(Place, Fill) ->
    Peer = {{16#2001, 16#db8, 0, 0, 0, 0, Place bsr 16, Place band 16#ffff}, 40000},
    {ok, Handle} = megaphone:open(#{peer => Peer}),
    _ = Fill =:= none orelse ?MODULE:put(Handle, Fill(Place)),
    Handle.

-spec put(bench_store:key(), binary()) -> ok.
put(Handle, Request) ->
    ok = megaphone:put_data(Handle, Request).

-spec ask(bench_store:key(), bench_store:variant()) -> ok.
ask(_Handle, _Variant) ->
    ok.

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(Handle, Expected) ->
    megaphone:recv_packet(Handle, infinity) =:= {ok, Expected}.
