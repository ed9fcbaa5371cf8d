%% What goes wrong in a soak, one thing after the other, drawn by a seed: the same seed makes the same faults with the same pauses
%% between them. (When they meet the messages is never the same twice.)
-module(megaphone_test_soak_faults).

-export([new/2, run/4, each_once/2]).
-export_type([faults/0, phase/0]).

-record(faults, {
    rand :: rand:state(),
    crowd :: megaphone_test_soak_crowd:crowd(),
    counts = #{} :: #{atom() => pos_integer()}
}).
-opaque faults() :: #faults{}.
%% Whether nodes are killed: none in the load that all is compared with; both; or the second one alone, so that the
%% first one has a long life to show at the end.
-type phase() :: warm_up | both_nodes | second_node.
-type tell() :: fun((atom()) -> term()).

%% Milliseconds between two faults, at most. A client that has to wait waits for 8 s.
-define(PAUSE, 5000).
%% The same where each comes once.
-define(SHORT_PAUSE, 1500).
%% So many come there before a node is killed: users of two nodes are to have written to each other.
-define(BEFORE_A_KILL, 6).
%% How often one is drawn.
-define(KINDS, [
    {link_cut, 5}, {link_stalls, 4}, {link_refused, 4}, {ecm_killed, 4}, {ecm_stands_still, 2}, {node_killed, 2}, {client_vanishes, 2},
    {client_stands_still, 4}, {connections_cut, 5}, {configuration_reloaded, 2}, {certificates_reloaded, 2}
]).

-spec new(megaphone_test_soak_crowd:crowd(), integer()) -> faults().
new(Crowd, Seed) ->
    #faults{rand = rand:seed_s(exsss, Seed), crowd = Crowd}.

%% Makes faults for so many milliseconds, and gives how many there were of each; `Tell' is called for each.
-spec run(faults(), phase(), pos_integer(), tell()) -> {faults(), #{atom() => pos_integer()}}.
run(Faults, Phase, Time, Tell) ->
    until(Faults, Phase, erlang:monotonic_time(millisecond) + Time, Tell).

%% Makes one fault of each kind, in an order that is drawn too; the rest as run/4.
-spec each_once(faults(), tell()) -> {faults(), #{atom() => pos_integer()}}.
each_once(Faults, Tell) -> in_some_order([Kind || {Kind, _} <- ?KINDS], Faults, Tell).

in_some_order([], #faults{counts = Counts} = Faults, _Tell) ->
    {Faults, Counts};
in_some_order(Kinds, Faults0, Tell) ->
    {Kind, Faults1} = one_of(candidates(Kinds), Faults0),
    {Pause, Faults} = uniform(?SHORT_PAUSE, Faults1),
    receive after Pause -> ok end,
    in_some_order(lists:delete(Kind, Kinds), made(Kind, both_nodes, Faults, Tell), Tell).

candidates(Kinds) when length(?KINDS) - length(Kinds) < ?BEFORE_A_KILL -> lists:delete(node_killed, Kinds);
candidates(Kinds) -> Kinds.

until(#faults{counts = Counts} = Faults0, Phase, End, Tell) ->
    {Pause, Faults1} = uniform(?PAUSE, Faults0),
    Left = End - erlang:monotonic_time(millisecond),
    case Pause < Left of
        true ->
            receive after Pause -> ok end,
            {Kind, Faults2} = kind(Phase, Faults1),
            until(made(Kind, Phase, Faults2, Tell), Phase, End, Tell);
        false ->
            receive after max(0, Left) -> ok end,
            {Faults1, Counts}
    end.

%% With this one made, counted and told.
made(Kind, Phase, Faults0, Tell) ->
    Faults = fault(Kind, Phase, Faults0),
    _ = Tell(Kind),
    Faults#faults{counts = maps:update_with(Kind, fun(Count) -> Count + 1 end, 1, Faults#faults.counts)}.

uniform(N, #faults{rand = Before} = Faults) ->
    {Drawn, Rand} = rand:uniform_s(N, Before),
    {Drawn, Faults#faults{rand = Rand}}.

one_of(List, Faults0) ->
    {N, Faults} = uniform(length(List), Faults0),
    {lists:nth(N, List), Faults}.

kind(Phase, Faults) ->
    one_of(lists:append([lists:duplicate(Weight, Kind) || {Kind, Weight} <- ?KINDS, Phase =/= warm_up orelse Kind =/= node_killed]), Faults).

program(#faults{crowd = Crowd} = Faults) ->
    one_of(lists:sort(megaphone_test_soak_crowd:programs(Crowd)), Faults).

%% Notes that something is broken for so many milliseconds from now.
broken(#faults{crowd = Crowd}, Time) ->
    Now = erlang:system_time(millisecond),
    megaphone_test_soak_crowd:note(Crowd, {broken, Now, Now + Time}).

-spec fault(atom(), phase(), #faults{}) -> #faults{}.
fault(link_cut, _, Faults0) ->
    {E, Faults1} = uniform(2, Faults0),
    {N, Faults} = uniform(2, Faults1),
    ok = broken(Faults, 0),
    ok = megaphone_test_soak_world:link(E, N, cut),
    Faults;
fault(Kind, _, Faults0) when Kind =:= link_stalls; Kind =:= link_refused ->
    {E, Faults1} = uniform(2, Faults0),
    {N, Faults2} = uniform(2, Faults1),
    {Time, Faults} = uniform(3000, Faults2),
    ok = broken(Faults, Time),
    ok = megaphone_test_soak_world:link(E, N, {case Kind of link_stalls -> stall; link_refused -> refuse end, Time}),
    Faults;
fault(ecm_killed, _, Faults0) ->
    {E, Faults1} = uniform(2, Faults0),
    {Time, Faults} = uniform(2000, Faults1),
    ok = broken(Faults, Time),
    ok = megaphone_test_soak_world:kill_ecm(E),
    receive after Time -> ok end,
    ok = megaphone_test_soak_world:revive_ecm(E),
    Faults;
fault(ecm_stands_still, _, Faults0) ->
    {E, Faults1} = uniform(2, Faults0),
    {Time, Faults} = uniform(2000, Faults1),
    ok = broken(Faults, Time),
    ok = megaphone_test_soak_world:pause_ecm(E, Time),
    Faults;
fault(node_killed, Phase, #faults{crowd = Crowd} = Faults0) ->
    {Drawn, Faults} = uniform(2, Faults0),
    N = case Phase of both_nodes -> Drawn; second_node -> 2 end,
    ok = megaphone_test_soak_crowd:note(Crowd, {node_killed, erlang:system_time(millisecond), N}),
    ok = megaphone_test_soak_world:kill_node(N),
    ok = megaphone_test_soak_world:revive_node(N),
    ok = broken(Faults, 0),
    Faults;
fault(client_vanishes, _, #faults{crowd = Crowd} = Faults0) ->
    {Program, Faults} = program(Faults0),
    ok = megaphone_test_soak_crowd:vanish(Crowd, Program),
    Faults;
fault(client_stands_still, _, #faults{crowd = Crowd} = Faults0) ->
    {Program, Faults1} = program(Faults0),
    {Time, Faults} = uniform(8000, Faults1),
    ok = broken(Faults, Time),
    ok = megaphone_test_soak_crowd:stand_still(Crowd, Program, Time),
    Faults;
fault(connections_cut, _, #faults{crowd = Crowd} = Faults0) ->
    {Program, Faults} = program(Faults0),
    ok = broken(Faults, 0),
    ok = megaphone_test_soak_crowd:cut(Crowd, Program),
    Faults;
fault(configuration_reloaded, _, Faults0) ->
    {N, Faults} = uniform(2, Faults0),
    ok = megaphone_test_soak_world:reload_node(N),
    Faults;
fault(certificates_reloaded, _, Faults0) ->
    {E, Faults} = uniform(2, Faults0),
    ok = megaphone_test_soak_world:renew_ecm(E),
    Faults.
