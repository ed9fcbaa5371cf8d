%% Real clients for very many users: connection managers, as many as their descriptors ask for, and beside each a process that
%% holds its clients' ends. And what all of that takes of the machine, the server's side apart from the clients'.
-module(bench_million_sockets).

-export([start/4, targets/1, figures/2, caches/2, released/2, stop/1]).
-export_type([world/0, figures/0, cache/0]).

-type world() :: #{
    fronts := [bench_front:front()],
    carriers := [bench_program:program()],
    targets := [string()],
    %% As it was when nobody had come.
    kernel := bench_kernel:memory(),
    caches := bench_kernel:caches(),
    tables := {Servers :: non_neg_integer(), Clients :: non_neg_integer()},
    descriptors := [non_neg_integer()]
}.

%% Bytes: of the connection managers and of the processes with the clients' ends; what the kernel holds more than when nobody had
%% come, and what of that is the servers' and the clients'; and of it slabs and what lies in sockets. Sockets in use; and bytes
%% that the machine could still give.
-type figures() :: #{atom() => non_neg_integer()}.

%% What a slab cache has more than when nobody had come.
-type cache() :: #{name := binary(), objects := integer(), bytes := integer()}.

%% Descriptors of a process that are not clients': a connection manager keeps 64 free of them.
-define(OTHER_DESCRIPTORS, 300).

%% Clients of one connection manager come from addresses that no other's come from: so many numbers apart, that being a multiple
%% of the clients of an address.
-define(NUMBERS, 20000).

-define(UP_WITHIN, 10000).

%% Milliseconds between two looks at what is to be released.
-define(LOOK_EVERY, 500).

%% Bytes that an idle connection manager may have more than when nobody had come: the places of so many clients (44 bytes each), and
%% pages that its allocator keeps.
-define(KEPT_EACH, 100).
-define(KEPT, 4000000).

%% @doc Starts all for so many users. Idle clients are pinged after so many seconds.
-spec start(pos_integer(), pos_integer(), bench_users_node:ejabberd(), file:filename()) -> world().
start(Users, Ping, #{os_pid := OsPid} = Ejabberd, Dir) ->
    %% At least two: users of one write to those of another.
    Count = max(2, ceil(Users / (descriptors() - ?OTHER_DESCRIPTORS))),
    bench_vm:say("~b connection managers of at most ~b clients", [Count, ceil(Users / Count)]),
    Keys = io_lib:format("websocket_ping = ~b~n", [Ping]),
    Fronts = [bench_front:start_ecm({127, 0, 0, 1}, Ejabberd, Dir, Keys) || _ <- lists:seq(1, Count)],
    {Carriers, Targets} = lists:unzip([carrier(Number, Front, Dir) || {Number, Front} <- lists:zip(lists:seq(1, Count), Fronts)]),
    World = #{fronts => Fronts, carriers => Carriers, targets => Targets},
    ok = bench_kernel:forget_files(),
    World#{
        kernel => bench_kernel:memory(), caches => bench_kernel:caches(), tables => page_tables(World, OsPid),
        descriptors => [bench_program:descriptors(bench_front:os_pid(Front)) || Front <- Fronts]
    }.

%% Descriptors that a process may have here.
-spec descriptors() -> pos_integer().
descriptors() ->
    {ok, Text} = file:read_file("/proc/self/limits"),
    {match, [Hard]} = re:run(Text, "^Max open files\\s+\\d+\\s+(\\d+)", [multiline, {capture, all_but_first, list}]),
    list_to_integer(Hard).

-spec carrier(pos_integer(), bench_front:front(), file:filename()) -> {bench_program:program(), string()}.
carrier(Number, #{target := Target}, Dir) ->
    Path = filename:join(Dir, io_lib:format("carrier~b-~b", [Number, erlang:unique_integer([positive])])),
    Carrier = bench_program:start(bench_program:built("megaphone-carrier"), [
        "--listen", Path, "--target", Target, "--from", integer_to_list(Number * ?NUMBERS)
    ]),
    _ = bench_program:await(Carrier, "\"event\":\"listening\"", ?UP_WITHIN),
    {Carrier, "unix:" ++ Path}.

%% @doc Where the generator connects to, a link for each.
-spec targets(world()) -> [string(), ...].
targets(#{targets := Targets}) ->
    Targets.

%% @doc What all takes now; `OsPid' is ejabberd's.
%%
%% The kernel keeps no count for one process. What it holds is what is left of the machine's memory when all else is taken away, or
%% what its own counters say, if that is more: on a machine that does other things as well the one may be too little. Both ends of a connection are here, and both are a socket with its file, its name
%% and its place in an event queue, so what has grown is halved, less what is known to be one side's: tables that map the memory of
%% processes; and the address and port that each client's end has for itself, which the server's ends share.
-spec figures(world(), pos_integer()) -> figures().
figures(#{fronts := Fronts, carriers := Carriers, kernel := Before, tables := {ServersBefore, ClientsBefore}} = World, OsPid) ->
    #{tcp := Sockets} = Now = bench_kernel:memory(),
    Grown = maps:map(fun(Key, Value) -> max(0, Value - maps:get(Key, Before)) end, maps:without([available], Now)),
    {ServersNow, ClientsNow} = page_tables(World, OsPid),
    {Servers, Clients} = {max(0, ServersNow - ServersBefore), max(0, ClientsNow - ClientsBefore)},
    Ports = maps:get(tcp, Grown) div 2 * bench_kernel:port_bytes(),
    Kernel = max(maps:get(all, Grown), maps:get(slab, Grown) + maps:get(tcp_buffers, Grown) + Servers + Clients),
    Halved = max(0, Kernel - Servers - Clients - Ports) div 2,
    #{
        ecm_rss => lists:sum([bench_front:rss(Front) || Front <- Fronts]),
        carriers_rss => lists:sum([bench_program:rss(Pid) || #{os_pid := Pid} <- Carriers]),
        kernel => Kernel, kernel_server => Halved + Servers, kernel_clients => Halved + Clients + Ports,
        slab => maps:get(slab, Grown), tcp_buffers => maps:get(tcp_buffers, Grown),
        tcp_sockets => Sockets, available => maps:get(available, Now)
    }.

-spec page_tables(#{fronts := [bench_front:front()], carriers := [bench_program:program()], _ => _}, pos_integer()) ->
    {Servers :: non_neg_integer(), Clients :: non_neg_integer()}.
page_tables(#{fronts := Fronts, carriers := Carriers}, OsPid) ->
    Sum = fun(OsPids) -> lists:sum([bench_kernel:page_tables(Pid) || Pid <- OsPids]) end,
    {Sum([OsPid | [bench_front:os_pid(Front) || Front <- Fronts]]), Sum([Pid || #{os_pid := Pid} <- Carriers])}.

%% @doc The slab caches of which each user takes at least so many bytes, the largest first: what was halved, object by object.
-spec caches(world(), number()) -> [cache()].
caches(#{caches := Before}, Least) ->
    Grown = [
        #{name => Name, objects => Objects - ObjectsBefore, bytes => Bytes - BytesBefore}
     || {Name, {Objects, Bytes}} <- maps:to_list(bench_kernel:caches()),
        {ObjectsBefore, BytesBefore} <- [maps:get(Name, Before, {0, 0})],
        Bytes - BytesBefore >= Least
    ],
    lists:sort(fun(#{bytes := One}, #{bytes := Other}) -> One >= Other end, Grown).

%% @doc Waits until the connection managers have given back what so many users took: descriptors all, memory but for little. Fails
%% when they have not within so many milliseconds.
-spec released(world(), #{users := non_neg_integer(), ecm_rss := non_neg_integer(), within := pos_integer()}) -> ok.
released(#{fronts := Fronts, descriptors := Before} = World, #{users := Users, ecm_rss := RssBefore, within := Within} = Limits) ->
    Open = [max(0, bench_program:descriptors(bench_front:os_pid(Front)) - Was) || {Front, Was} <- lists:zip(Fronts, Before)],
    Rss = lists:sum([bench_front:rss(Front) || Front <- Fronts]),
    Most = RssBefore + Users * ?KEPT_EACH + length(Fronts) * ?KEPT,
    case lists:sum(Open) of
        0 when Rss =< Most ->
            ok;
        Descriptors when Within =< 0 ->
            error({left_in_connection_managers_of_clients_who_have_gone, {descriptors, Descriptors}, {rss, Rss, at_most, Most}});
        _ ->
            receive
            after ?LOOK_EVERY -> released(World, Limits#{within := Within - ?LOOK_EVERY})
            end
    end.

%% @doc Ends all processes.
-spec stop(world()) -> ok.
stop(#{fronts := Fronts, carriers := Carriers}) ->
    lists:foreach(fun bench_program:stop/1, Carriers),
    lists:foreach(fun bench_front:stop/1, Fronts).
