%% Complete HTTP requests taken apart into Erlang terms: megaphone:parse_packet/1 against the loop over
%% erlang:decode_packet/3.
-module(bench_parse).

-export([run/1]).
-export([measure/2]).

-define(GOAL, 2).

%% Milliseconds of one round.
-define(ROUND, 200).

%% @doc Fails if a result is not what decode_packet gives.
-spec run(#{quick := boolean()}) -> bench_report:report().
run(#{quick := Quick}) ->
    Rounds =
        case Quick of
            true -> 1;
            false -> 25
        end,
    bench_vm:say("parse: ~b rounds", [Rounds]),
    Node = bench_vm:start([]),
    Results = [
        {Name, byte_size(Request), length(bench_requests:decode(Request)),
            bench_vm:call(Node, ?MODULE, measure, [Request, Rounds])}
     || {Name, Request} <- bench_requests:captures()
    ],
    ok = bench_vm:stop(Node),
    #{
        name => <<"parse">>,
        sizes => #{rounds => Rounds, request_bytes => maps:from_list([{Name, Size} || {Name, Size, _, _} <- Results])},
        results => [
            #{request => Name, bytes => Size, packets => Packets, ns => Ours, decode_packet_ns => Theirs, times => Times}
         || {Name, Size, Packets, {Ours, Theirs, Times}} <- Results
        ],
        goals => [
            bench_report:goal(["parse of ", Name, " against decode_packet's loop"], "times", Times, at_least, ?GOAL)
         || {Name, _, _, {_, _, Times}} <- Results
        ],
        tables => [
            {
                "Parsing to Erlang terms (ns a request)",
                ["request", "bytes", "packets", "parse_packet", "decode_packet", "times as fast"],
                [
                    [Name, bench_report:thousands(Size), integer_to_list(Packets)] ++
                        [bench_report:thousands(round(Ours)), bench_report:thousands(round(Theirs)), bench_report:rounded(Times)]
                 || {Name, Size, Packets, {Ours, Theirs, Times}} <- Results
                ]
            }
        ],
        charts => [
            #{
                title => "Parsing a request to Erlang terms",
                unit => "ns",
                scale => linear,
                groups => [Name || {Name, _, _, _} <- Results],
                series => [
                    {"parse_packet", [Ours || {_, _, _, {Ours, _, _}} <- Results]},
                    {"decode_packet", [Theirs || {_, _, _, {_, Theirs, _}} <- Results]}
                ]
            }
        ]
    }.

%% @private
%% @doc Nanoseconds of either, and how many times as fast ours is: the median of the ratios of rounds that follow each
%% other, which meet the same machine.
-spec measure(binary(), pos_integer()) -> {Ours :: float(), Theirs :: float(), Times :: float()}.
measure(Request, Rounds) ->
    Packets = bench_requests:decode(Request),
    {ok, Packets} = megaphone:parse_packet(Request),
    Count = max(1, round(?ROUND * 1000000 / time(fun ours/2, Request, 2000))),
    Pairs = [
        {time(fun ours/2, Request, Count), time(fun theirs/2, Request, Count)}
     || _ <- lists:seq(1, Rounds)
    ],
    {Ours, Theirs} = lists:unzip(Pairs),
    {bench_vm:median(Ours), bench_vm:median(Theirs), bench_vm:median([T / O || {O, T} <- Pairs])}.

%% In a process of its own, so that each meets an empty heap.
-spec time(fun((binary(), non_neg_integer()) -> ok), binary(), pos_integer()) -> float().
time(Loop, Request, Count) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        Before = erlang:monotonic_time(nanosecond),
        ok = Loop(Request, Count),
        Self ! {self(), (erlang:monotonic_time(nanosecond) - Before) / Count}
    end),
    receive
        {Pid, Time} -> Time
    end.

-spec ours(binary(), non_neg_integer()) -> ok.
ours(_Request, 0) ->
    ok;
ours(Request, Count) ->
    {ok, _} = megaphone:parse_packet(Request),
    ours(Request, Count - 1).

-spec theirs(binary(), non_neg_integer()) -> ok.
theirs(_Request, 0) ->
    ok;
theirs(Request, Count) ->
    [_ | _] = bench_requests:decode(Request),
    theirs(Request, Count - 1).
