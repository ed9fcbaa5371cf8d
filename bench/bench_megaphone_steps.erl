%% Megaphone's table with a reader that gets one result at a time, as ejabberd_http does.
-module(bench_megaphone_steps).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    bench_megaphone:open(Connections, Fill).

-spec put(bench_store:key(), binary()) -> ok.
put(Handle, Request) ->
    bench_megaphone:put(Handle, Request).

-spec ask(bench_store:key(), bench_store:variant()) -> ok.
ask(Handle, Variant) ->
    bench_megaphone:ask(Handle, Variant).

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(_Handle, []) ->
    true;
check(Handle, [Packet | Packets]) ->
    case megaphone:recv(Handle) of
        {ok, Packet} -> check(Handle, Packets);
        _ -> false
    end.
