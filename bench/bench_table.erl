%% The connection table: put and get of requests, requests from a link, memory of idle connections.
-module(bench_table).

-export([run/1]).

%% Gigabytes that the largest run needs: a million processes, a dictionary and an ETS table stand beside our table.
-define(NEEDED, 14).

-spec run(#{quick := boolean()}) -> [bench_report:report()].
run(#{quick := true}) ->
    [bench_put_get:run([20000], 1), bench_link:run([20000], 300), bench_memory:run([20000, 40000])];
run(#{quick := false}) ->
    bench_vm:gigabytes() >= ?NEEDED orelse error({needs_gigabytes_of_memory, ?NEEDED}),
    [
        bench_memory:run([250000, 500000, 750000, 1000000]),
        bench_link:run([200000, 1000000], 2000),
        bench_put_get:run([200000, 1000000], 7)
    ].
