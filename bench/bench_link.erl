%% Requests that come over a link: how long a chunk of them, as it is read from the socket, takes into the table.
-module(bench_link).

-export([run/2]).
-export([measure/2]).

-define(REQUESTS, 150).

%% @doc With so many connections on one link, and so many chunks.
-spec run([pos_integer()], pos_integer()) -> bench_report:report().
run(Sizes, Chunks) ->
    Results = [{Connections, in_fresh_node(Connections, Chunks)} || Connections <- Sizes],
    Size = ?REQUESTS * (bench_requests:bosh_size() + 13),
    #{
        name => <<"link">>,
        sizes => #{connections => Sizes, requests_per_chunk => ?REQUESTS, chunk_bytes => Size, chunks => Chunks},
        results => [
            #{connections => Connections, ns_per_request => Median, ns_per_request_p99 => P99}
         || {Connections, {Median, P99}} <- Results
        ],
        goals => [
            bench_report:goal(
                [
                    io_lib:format("chunk of ~b requests from a link of ", [?REQUESTS]),
                    bench_report:thousands(Connections),
                    " connections, a request"
                ],
                "us",
                Median / 1000,
                at_most,
                1
            )
         || {Connections, {Median, _}} <- Results
        ],
        tables => [
            {
                io_lib:format("Chunk of ~s bytes with ~b requests from a link into the table (ns a request)", [
                    bench_report:thousands(Size), ?REQUESTS
                ]),
                ["connections", "median", "99th percentile"],
                [
                    [bench_report:thousands(Connections), bench_report:thousands(round(Median)), bench_report:thousands(round(P99))]
                 || {Connections, {Median, P99}} <- Results
                ]
            }
        ],
        charts => [
            #{
                title => "A request from the link into the table",
                unit => "ns",
                scale => linear,
                groups => [[bench_report:thousands(Connections), " connections"] || {Connections, _} <- Results],
                series => [
                    {"median", [Median || {_, {Median, _}} <- Results]},
                    {"99th percentile", [P99 || {_, {_, P99}} <- Results]}
                ]
            }
        ]
    }.

-spec in_fresh_node(pos_integer(), pos_integer()) -> {float(), float()}.
in_fresh_node(Connections, Chunks) ->
    bench_vm:say("chunks from a link of ~s connections", [bench_report:thousands(Connections)]),
    Node = bench_vm:start([]),
    Result = bench_vm:call(Node, ?MODULE, measure, [Connections, Chunks]),
    bench_vm:say("  ~b ns a request", [round(element(1, Result))]),
    ok = bench_vm:stop(Node),
    Result.

%% @private
%% @doc Nanoseconds for a request: median and 99th percentile of all chunks.
-spec measure(pos_integer(), pos_integer()) -> {float(), float()}.
measure(Connections, Chunks) ->
    {ok, _} = application:ensure_all_started(megaphone),
    Link = bench_frames:link(),
    open(Link, 0, Connections),
    {Requests, _} = bench_requests:all_variants(),
    %% The first ones warm up.
    Times = [chunk(Link, Number, Connections, Requests) || Number <- lists:seq(1, Chunks + Chunks div 10)],
    Each = [Time / ?REQUESTS || Time <- lists:nthtail(Chunks div 10, Times)],
    {bench_vm:median(Each), bench_vm:percentile(99, Each)}.

-spec open(megaphone_nif:link(), non_neg_integer(), pos_integer()) -> ok.
open(_Link, Connections, Connections) ->
    ok;
open(Link, From, Connections) ->
    To = min(From + 1000, Connections),
    [] = bench_frames:input(Link, [bench_frames:open(Id) || Id <- lists:seq(From + 1, To)]),
    open(Link, To, Connections).

%% Feeds one chunk of requests for different connections. Then answers them, so that the connections are idle again.
-spec chunk(megaphone_nif:link(), pos_integer(), pos_integer(), tuple()) -> pos_integer().
chunk(Link, Number, Connections, Requests) ->
    Work = [
        begin
            Id = (Number * ?REQUESTS + At) * 7919 rem Connections + 1,
            {Id, element(Id rem tuple_size(Requests) + 1, Requests)}
        end
     || At <- lists:seq(0, ?REQUESTS - 1)
    ],
    Chunk = iolist_to_binary([bench_frames:data(Id, Request) || {Id, Request} <- Work]),
    Before = erlang:monotonic_time(nanosecond),
    Handles = bench_frames:feed(Link, Chunk),
    Time = erlang:monotonic_time(nanosecond) - Before,
    %% The second element of a handle is the id on the wire.
    Work = [{Id, serve(Handle)} || {_, Id, _, _} = Handle <- Handles],
    ok = bench_frames:output(Link),
    Time.

-spec serve(megaphone_nif:handle()) -> Request :: binary().
serve(Handle) ->
    %% Of its own accord a read ends with the head.
    {ok, Request} = megaphone_nif:recv(Handle, bench_requests:bosh_size()),
    ok = megaphone_nif:send(Handle, <<"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n">>),
    %% It asks for a next request, so the answer is complete.
    {error, closed} = megaphone_nif:recv(Handle, 0),
    Request.
