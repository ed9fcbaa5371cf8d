%% Very many users of one ejabberd: they log in over links by a generator that plays the connection manager and keeps some 60
%% bytes of each, or gives each a real client and lets these come through real connection managers; they are idle, write to each
%% other, and leave. Fails when one cannot log in or is lost, when a message is lost, doubled or reordered, and when anything of a
%% user is left at the end. When the machine can hold no more users it says so, and goes on with those that there are.
-module(bench_million).

-export([run/1]).
-export_type([outcome/0, point/0]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-record(plan, {
    kinds :: [string()],
    users :: pos_integer(),
    links :: pos_integer(),
    pace :: pos_integer(),
    at_once :: pos_integer(),
    wait :: pos_integer(),
    idle :: non_neg_integer(),
    seconds :: pos_integer(),
    messages :: pos_integer(),
    %% Whether each user has a real client; after so many idle seconds that is pinged.
    sockets :: boolean(),
    ping :: pos_integer(),
    %% Bytes of the machine's memory that stay free.
    reserve :: non_neg_integer(),
    node :: bench_users_node:settings()
}).

%% Who takes part; `sockets': what real clients come through.
-record(world, {
    ejabberd :: bench_users_node:ejabberd(),
    sockets :: none | bench_million_sockets:world()
}).

%% Bytes of ejabberd by parts, with real clients also those of the rest of the machine, how many users there were, and how their logins went since the point before.
-type point() :: #{atom() => number()}.

-type outcome() :: #{
    users := pos_integer(),
    wanted := pos_integer(),
    %% Why no more came, if fewer are there than were wanted.
    stopped := null | binary(),
    curve := [point()],
    empty := parts(),
    idle := parts(),
    talked := parts(),
    gone := parts(),
    %% Connection managers; 0 without real clients.
    managers := non_neg_integer(),
    %% Of the kernel, with real clients.
    caches := [bench_million_sockets:cache()],
    tables := #{atom() => non_neg_integer()},
    allocators := #{atom() => {Held :: non_neg_integer(), Used :: non_neg_integer()}},
    sweeper := #{atom() => term()},
    generator_rss := non_neg_integer(),
    login := #{atom() => number()},
    chat := #{atom() => number()},
    leave := #{atom() => number()},
    complaints := [binary()]
}.

%% With real clients also {@link bench_million_sockets:figures()}, and `server': all that the server's side takes.
-type parts() :: #{atom() => non_neg_integer()}.

%% The sweeper is quiet when it has done nothing in so many half seconds.
-define(QUIET_FOR, 6).
-define(QUIET_WITHIN, 300000).

%% Milliseconds in which nothing may be left of users who have gone, and processes that may have come meanwhile which are not
%% of users (mnesia, logger and the like start some when they are busy).
-define(RELEASED_WITHIN, 60000).
-define(OTHER_PROCESSES, 10).

%% Slab caches are told of from so many bytes a user on.
-define(CACHE, 10).

%% The generator tells how far it is every two seconds; ejabberd may make it wait.
-define(SILENCE, 120000).

%% @doc One report for all kinds that were asked for.
-spec run(options()) -> bench_report:report().
run(Options) ->
    Plan = plan(Options),
    #plan{node = #{idle_memory := Memory, vm := Vm}} = Plan,
    Results = [{Kind, measure(Kind, Plan)} || Kind <- Plan#plan.kinds],
    bench_million_report:report(Results, #{
        users => Plan#plan.users,
        links => Plan#plan.links,
        logins_per_second => Plan#plan.pace,
        at_once => Plan#plan.at_once,
        wait => Plan#plan.wait,
        idle_seconds => Plan#plan.idle,
        chat_seconds => Plan#plan.seconds,
        messages_per_second => Plan#plan.messages,
        sockets => Plan#plan.sockets,
        ping => Plan#plan.ping,
        reserve => Plan#plan.reserve,
        idle_memory => list_to_binary(Memory),
        vm_options => list_to_binary(lists:join(" ", Vm))
    }).

-spec plan(options()) -> #plan{}.
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Normal, Small) -> maps:get(Name, Settings, case Quick of true -> Small; false -> Normal end) end,
    Number = fun(Name, Normal, Small) -> list_to_integer(Get(Name, Normal, Small)) end,
    Sockets = maps:is_key("sockets", Settings),
    {Short, Known} = case Sockets of true -> {"ws", ["ws"]}; false -> {"ws,bosh", ["ws", "bosh"]} end,
    Kinds = string:lexemes(Get("kind", "ws", Short), ","),
    Kinds -- Known =:= [] orelse error({no_such_kind, Kinds, Known}),
    Memory = Get("idle-memory", "hibernate", "hibernate"),
    lists:member(Memory, ["keep", "collect", "hibernate"]) orelse error({no_such_idle_memory, Memory}),
    Users = Number("users", "1000000", "1000"),
    #plan{
        kinds = Kinds,
        users = Users,
        links = Number("links", "4", "2"),
        pace = Number("pace", "1500", "500"),
        at_once = Number("at-once", "200", "100"),
        wait = Number("wait", "300", "2"),
        idle = Number("idle-seconds", "15", "2"),
        seconds = Number("chat-seconds", "30", "3"),
        messages = Number("messages", "1000", "200"),
        sockets = Sockets,
        ping = Number("ping", "300", "2"),
        reserve = Number("reserve", "1000", "200") * 1000000,
        node = #{
            profile => bare, idle_memory => Memory, idle_after => maps:get("idle-after", Settings, none),
            sweep_all => false, fullsweep => false, bosh => native,
            %% One process of each user, and those of ejabberd.
            processes => Users + Users div 20 + 20000,
            vm => ["+Q", "4096" | bench_vm:options(maps:get("vm", Settings, "recommended"))],
            dir => os:getenv("BENCH_DIR", ".")
        }
    }.

-spec measure(string(), #plan{}) -> outcome().
measure(Kind, #plan{users = Wanted, node = Settings} = Plan) ->
    bench_vm:say("~b users, ~s", [Wanted, Kind]),
    Ejabberd = bench_users_node:start(erlang:unique_integer([positive]), Wanted, Settings),
    {Most, Limit} = most(Plan),
    World = #world{ejabberd = Ejabberd, sockets = sockets(Ejabberd, Plan#plan{users = Most})},
    Empty = parts(World),
    #{os_pid := OwnPid} = Generator = generator(Kind, World, Plan#plan{users = Most}),
    {#{users := Users} = Login, Stopped, Curve} = log_in(Generator, World, Limit, Plan),
    ok = quiet(World),
    ok = bench_program:watch([Generator], Plan#plan.idle * 1000),
    Idle = parts_at_rest(World),
    Tables = all_there(Users, World),
    Allocators = bench_vm:call(node_of(World), bench_users_node, allocators, []),
    Caches = caches(World, Users),
    bench_vm:say("idle: ~ts", [in_words(Idle)]),
    OwnRss = bench_program:rss(OwnPid),
    Chat = chat(Generator, World, Plan),
    ok = quiet(World),
    Talked = parts_at_rest(World),
    Leave = leave(Generator, World, Users, Plan),
    ok = released(World, Users, Empty),
    Gone = parts_at_rest(World),
    ok = bench_program:stop(Generator),
    Outcome = #{
        users => Users, wanted => Wanted, stopped => Stopped, curve => Curve, empty => Empty, idle => Idle, talked => Talked,
        gone => Gone, managers => length(servers(World)) - 1, caches => Caches, tables => Tables, allocators => Allocators,
        sweeper => bench_vm:call(node_of(World), bench_users_node, sweeper, []), generator_rss => OwnRss, login => Login,
        chat => Chat, leave => Leave, complaints => bench_users_node:complaints(Ejabberd)
    },
    _ = [ok = bench_million_sockets:stop(Sockets) || #world{sockets = Sockets} <- [World], Sockets =/= none],
    ok = bench_users_node:stop(Ejabberd),
    Outcome.

%% How many can come, and why not all: what can be told before.
-spec most(#plan{}) -> {pos_integer(), null | binary()}.
most(#plan{users = Wanted, sockets = false}) ->
    {Wanted, null};
most(#plan{users = Wanted}) ->
    case bench_kernel:most() of
        {Most, What} when Most < Wanted -> {Most, stopped(["out of ", What])};
        _ -> {Wanted, null}
    end.

-spec sockets(bench_users_node:ejabberd(), #plan{}) -> none | bench_million_sockets:world().
sockets(_Ejabberd, #plan{sockets = false}) ->
    none;
sockets(Ejabberd, #plan{users = Users, ping = Ping, node = #{dir := Dir}}) ->
    bench_million_sockets:start(Users, Ping, Ejabberd, Dir).

-spec node_of(#world{}) -> bench_vm:node_ref().
node_of(#world{ejabberd = #{node := Node}}) ->
    Node.

%% Process numbers of ejabberd and of what else serves users.
-spec servers(#world{}) -> [pos_integer(), ...].
servers(#world{ejabberd = #{os_pid := OsPid}, sockets = none}) -> [OsPid];
servers(#world{ejabberd = #{os_pid := OsPid}, sockets = #{fronts := Fronts}}) -> [OsPid | [bench_front:os_pid(Front) || Front <- Fronts]].

%% The same of what plays users.
-spec players(bench_program:program(), #world{}) -> [pos_integer(), ...].
players(#{os_pid := OsPid}, #world{sockets = none}) -> [OsPid];
players(#{os_pid := OsPid}, #world{sockets = #{carriers := Carriers}}) -> [OsPid | [Pid || #{os_pid := Pid} <- Carriers]].

-spec parts(#world{}) -> parts().
parts(#world{sockets = none} = World) ->
    bench_vm:call(node_of(World), bench_users_node, parts, []);
parts(#world{ejabberd = #{os_pid := OsPid}, sockets = Sockets} = World) ->
    #{rss := Rss} = Parts = parts(World#world{sockets = none}),
    #{ecm_rss := EcmRss, kernel_server := Kernel} = Figures = bench_million_sockets:figures(Sockets, OsPid),
    maps:merge(Parts#{server => Rss + EcmRss + Kernel}, Figures).

%% The same when nothing happens, without what the kernel would give back.
-spec parts_at_rest(#world{}) -> parts().
parts_at_rest(#world{sockets = none} = World) ->
    parts(World);
parts_at_rest(World) ->
    ok = bench_kernel:forget_files(),
    parts(World).

-spec caches(#world{}, pos_integer()) -> [bench_million_sockets:cache()].
caches(#world{sockets = none}, _Users) -> [];
caches(#world{sockets = Sockets}, Users) -> bench_million_sockets:caches(Sockets, ?CACHE * Users).

-spec generator(string(), #world{}, #plan{}) -> bench_program:program().
generator(Kind, #world{ejabberd = #{listeners := Listeners}, sockets = Sockets}, Plan) ->
    #plan{users = Users, pace = Pace, at_once = AtOnce, wait = Wait} = Plan,
    {Targets, Links} =
        case Sockets of
            none -> {[element(2, lists:keyfind(megaphone, 1, Listeners))], Plan#plan.links};
            _ -> {bench_million_sockets:targets(Sockets), length(bench_million_sockets:targets(Sockets))}
        end,
    Numbers = [{"--users", Users}, {"--links", Links}, {"--pace", Pace}, {"--at-once", AtOnce}, {"--wait", Wait}],
    bench_program:start(bench_program:built("megaphone-million"), [
        "--kind", Kind
        | lists:append([["--target", Target] || Target <- Targets] ++ [[Name, integer_to_list(Number)] || {Name, Number} <- Numbers])
    ]).

%% ---- logins -----------------------------------------------------------------------------------------------------

%% The second argument is why fewer come than were wanted, if that is so already.
-spec log_in(bench_program:program(), #world{}, null | binary(), #plan{}) -> {#{atom() => number()}, null | binary(), [point()]}.
log_in(Generator, World, Limit, #plan{reserve = Reserve} = Plan) ->
    {Servers, Players} = {servers(World), players(Generator, World)},
    {Cpu, OwnCpu} = {bench_users:cpu(Servers), bench_users:cpu(Players)},
    {Line, Stopped, Curve} = progress("ready", Generator, World, Reserve, Limit),
    Users = bench_program:number("users", Line),
    Users > 1 orelse error({no_room_for_two_users, Stopped}),
    Login = #{
        users => Users,
        seconds => bench_program:number("seconds", Line), per_second => bench_program:number("logins_per_second", Line),
        max_us => bench_program:number("login_us_max", Line),
        cpu_ms => (bench_users:cpu(Servers) - Cpu) / Users, own_cpu_ms => (bench_users:cpu(Players) - OwnCpu) / Users
    },
    bench_vm:say("~s of ~s are online after ~b s", [
        bench_report:thousands(Users), bench_report:thousands(Plan#plan.users), round(maps:get(seconds, Login))
    ]),
    {Login, Stopped, Curve}.

%% Follows users as they come or go, to the line of this event; no more come when the machine has less memory than this, or the
%% generator has no room: then there is a reason.
-spec progress(string(), bench_program:program(), #world{}, non_neg_integer(), null | binary()) ->
    {binary(), null | binary(), [point()]}.
progress(Event, Generator, World, Reserve, Stopped) ->
    progress(Event, Generator, World, {erlang:monotonic_time(millisecond), Reserve}, Stopped, []).

-spec progress(string(), bench_program:program(), #world{}, {integer(), non_neg_integer()}, null | binary(), [point()]) ->
    {binary(), null | binary(), [point()]}.
progress(Event, Generator, World, {Began, Reserve} = Limits, Stopped, Points) ->
    Line = told(Generator, "progress|full|" ++ Event, ?SILENCE),
    case event(Line) of
        <<"progress">> ->
            Point = (parts(World))#{
                seconds => (erlang:monotonic_time(millisecond) - Began) / 1000, users => bench_program:number("users", Line),
                per_second => bench_program:number("per_second", Line), under_way => bench_program:number("under_way", Line),
                p50_us => bench_program:number("p50", Line), p99_us => bench_program:number("p99", Line), max_us => bench_program:number("max", Line)
            },
            bench_vm:say("~ts", [in_words(Point)]),
            progress(Event, Generator, World, Limits, enough(Generator, Reserve, Stopped), [Point | Points]);
        <<"full">> ->
            progress(Event, Generator, World, Limits, stopped(bench_program:text("reason", Line)), Points);
        _ ->
            {Line, Stopped, lists:reverse(Points)}
    end.

-spec event(binary()) -> binary().
event(Line) ->
    bench_program:text("event", Line).

%% Has no more users come when the machine has too little memory left.
-spec enough(bench_program:program(), non_neg_integer(), null | binary()) -> null | binary().
enough(Generator, Reserve, null) ->
    #{available := Available} = bench_kernel:memory(),
    case Available < Reserve of
        false ->
            null;
        true ->
            ok = bench_program:tell(Generator, "enough"),
            stopped(io_lib:format("out of memory: ~s MB available, ~s MB are the reserve", [megabytes(Available), megabytes(Reserve)]))
    end;
enough(_Generator, _Reserve, Stopped) ->
    Stopped.

-spec stopped(iodata()) -> binary().
stopped(Reason) ->
    bench_vm:say("no more users come: ~ts", [Reason]),
    iolist_to_binary(Reason).

%% A line about how things are.
-spec in_words(point() | parts()) -> iodata().
in_words(#{rss := Rss, process_count := Count} = Point) ->
    Of = fun(Keys) -> [[", ", atom_to_list(Key), " ", megabytes(maps:get(Key, Point))] || Key <- Keys] end,
    Logins =
        case Point of
            #{users := Users, per_second := Pace, under_way := UnderWay, p50_us := P50, max_us := Max} ->
                io_lib:format("~s users, ~b/s, ~b under way, ~.1f ms (max ~.1f); ", [
                    bench_report:thousands(Users), round(Pace), UnderWay, P50 / 1000, Max / 1000
                ]);
            _ ->
                []
        end,
    Rest =
        case Point of
            #{server := Server} -> ["; server ", megabytes(Server), Of([ecm_rss, kernel_server, kernel_clients, carriers_rss, available]), " MB"];
            _ -> []
        end,
    [Logins, "RSS ", megabytes(Rss), Of([total, processes, ets, binary, system]), " MB, ", bench_report:thousands(Count), " processes", Rest].

-spec megabytes(number()) -> iodata().
megabytes(Bytes) ->
    bench_report:thousands(round(Bytes / 1000000)).

%% The line of such an event; fails at once when the generator has failed.
-spec told(bench_program:program(), string(), pos_integer()) -> binary().
told(Generator, Event, Within) ->
    Line = bench_program:await(Generator, "\"event\":\"(" ++ Event ++ "|error)\"", Within),
    string:find(Line, "\"event\":\"error\"") =:= nomatch orelse error({users_failed, Line}),
    Line.

%% ---- idle -------------------------------------------------------------------------------------------------------

%% Until idle memory was seen to.
-spec quiet(#world{}) -> ok.
quiet(World) ->
    quiet(node_of(World), #{}, ?QUIET_FOR, erlang:monotonic_time(millisecond) + ?QUIET_WITHIN).

-spec quiet(bench_vm:node_ref(), map(), non_neg_integer(), integer()) -> ok.
quiet(_Node, _Before, 0, _Deadline) ->
    ok;
quiet(Node, Before, Left, Deadline) ->
    receive
    after 500 -> ok
    end,
    Now = bench_vm:call(Node, bench_users_node, sweeper, []),
    erlang:monotonic_time(millisecond) < Deadline orelse error({idle_memory_is_worked_on_without_end, Now}),
    case Now of
        Before -> quiet(Node, Now, Left - 1, Deadline);
        _ -> quiet(Node, Now, ?QUIET_FOR, Deadline)
    end.

%% ejabberd counts them, too.
-spec all_there(pos_integer(), #world{}) -> #{atom() => non_neg_integer()}.
all_there(Users, World) ->
    #{sessions := Sessions, connections := Connections} = Left = bench_vm:call(node_of(World), bench_users_node, left, []),
    {Sessions, Connections} =:= {Users, Users} orelse error({not_all_are_there, Users, Left}),
    Left.

%% ---- messages ---------------------------------------------------------------------------------------------------

-spec chat(bench_program:program(), #world{}, #plan{}) -> #{atom() => number()}.
chat(Generator, World, #plan{messages = Rate, seconds = Seconds}) ->
    bench_vm:say("~b messages a second for ~b s", [Rate, Seconds]),
    Cpu = bench_users:cpu(servers(World)),
    ok = bench_program:tell(Generator, io_lib:format("chat {\"messages_per_second\":~b,\"duration\":~b}", [Rate, Seconds])),
    Line = told(Generator, "chat", (Seconds + 60) * 1000),
    Spent = bench_users:cpu(servers(World)) - Cpu,
    [Sent, Received, Pairs, P50, P99, Max] = [bench_program:number(Name, Line) || Name <- ["sent", "received", "pairs", "p50", "p99", "max"]],
    Sent =:= Received andalso Sent > 0 orelse error({messages_went_wrong, Line}),
    #{sent => Sent, pairs => Pairs, p50_us => P50, p99_us => P99, max_us => Max, cpu_ms => Spent / Sent}.

%% ---- the end ----------------------------------------------------------------------------------------------------

-spec leave(bench_program:program(), #world{}, pos_integer(), #plan{}) -> #{atom() => number()}.
leave(Generator, World, Users, #plan{pace = Pace}) ->
    bench_vm:say("all leave", []),
    Cpu = bench_users:cpu(servers(World)),
    ok = bench_program:tell(Generator, io_lib:format("leave {\"per_second\":~b}", [Pace])),
    {Line, null, _} = progress("left", Generator, World, 0, null),
    Users = bench_program:number("users", Line),
    Seconds = bench_program:number("seconds", Line),
    #{seconds => Seconds, per_second => Users / Seconds, cpu_ms => (bench_users:cpu(servers(World)) - Cpu) / Users}.

%% Nothing of any user may be left, neither in ejabberd nor in connection managers.
-spec released(#world{}, pos_integer(), parts()) -> ok.
released(#world{sockets = Sockets} = World, Users, Empty) ->
    ok = users_gone(Empty, node_of(World), erlang:monotonic_time(millisecond) + ?RELEASED_WITHIN),
    case Sockets of
        none -> ok;
        _ -> bench_million_sockets:released(Sockets, #{users => Users, ecm_rss => maps:get(ecm_rss, Empty), within => ?RELEASED_WITHIN})
    end.

-spec users_gone(parts(), bench_vm:node_ref(), integer()) -> ok.
users_gone(#{process_count := Before} = Empty, Node, Deadline) ->
    Left = bench_vm:call(Node, bench_users_node, left, []),
    #{process_count := Processes} = bench_vm:call(Node, bench_users_node, parts, []),
    IsOver = erlang:monotonic_time(millisecond) > Deadline,
    case {maps:with([sessions, connections, bosh_sessions], Left), Processes - Before} of
        {#{sessions := 0, connections := 0, bosh_sessions := 0}, More} when More =< ?OTHER_PROCESSES ->
            ok;
        {Users, More} when IsOver ->
            error({left_of_users_who_have_gone, Users, {more_processes, More}, {queues, bench_vm:call(Node, bench_users_node, longest_queues, [])}});
        _ ->
            receive
            after 200 -> users_gone(Empty, Node, Deadline)
            end
    end.
