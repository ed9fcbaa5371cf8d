%% A process for each connection: its mailbox is the queue. It takes its requests apart itself, so that what is sent
%% to it is a reference and no packet is copied; it checks what it got and tells the one who asked.
-module(bench_mailbox).
-behaviour(bench_store).

-export([open/2, put/2, ask/2, check/2]).

-spec open(pos_integer(), bench_store:fill()) -> [bench_store:key()].
open(Connections, Fill) ->
    {_, Expected} = bench_requests:all_variants(),
    persistent_term:put(?MODULE, Expected),
    [open_one(Place, Fill) || Place <- lists:seq(0, Connections - 1)].

-spec open_one(non_neg_integer(), bench_store:fill()) -> bench_store:key().
open_one(Place, Fill) ->
    Pid = spawn_link(fun loop/0),
    _ = Fill =:= none orelse ?MODULE:put(Pid, Fill(Place)),
    Pid.

-spec loop() -> no_return().
loop() ->
    receive
        {get, From, Variant} ->
            receive
                {put, Request} ->
                    Right = bench_requests:decode(Request) =:= element(Variant, persistent_term:get(?MODULE)),
                    From ! {self(), Right}
            end
    end,
    loop().

-spec put(bench_store:key(), binary()) -> term().
put(Pid, Request) ->
    Pid ! {put, binary:copy(Request)}.

-spec ask(bench_store:key(), bench_store:variant()) -> term().
ask(Pid, Variant) ->
    Pid ! {get, self(), Variant}.

-spec check(bench_store:key(), bench_requests:packets()) -> boolean().
check(Pid, _Expected) ->
    receive
        {Pid, Right} -> Right
    end.
