%% Very many users of one ejabberd: they log in over links by a generator that plays the connection manager and keeps some 60
%% bytes of each; they are idle, write to each other, and leave. Fails when one cannot log in or is lost, when a message is
%% lost, doubled or reordered, and when anything of a user is left at the end.
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
    node :: bench_users_node:settings()
}).

%% Bytes of ejabberd by parts, how many users there were, and how their logins went since the point before.
-type point() :: #{atom() => number()}.

-type outcome() :: #{
    users := pos_integer(),
    curve := [point()],
    empty := bench_users_node:parts(),
    idle := bench_users_node:parts(),
    talked := bench_users_node:parts(),
    gone := bench_users_node:parts(),
    tables := #{atom() => non_neg_integer()},
    allocators := #{atom() => {Held :: non_neg_integer(), Used :: non_neg_integer()}},
    sweeper := #{atom() => term()},
    generator_rss := non_neg_integer(),
    login := #{atom() => number()},
    chat := #{atom() => number()},
    leave := #{atom() => number()},
    complaints := [binary()]
}.

%% Settings of the virtual machine that docs/ejabberdctl.cfg recommends.
-define(VM, "+hms 16 +sbwt none +sbwtdcpu none +sbwtdio none").

%% The sweeper is quiet when it has done nothing in so many half seconds.
-define(QUIET_FOR, 6).
-define(QUIET_WITHIN, 300000).

%% Milliseconds in which nothing may be left of users who have gone, and processes that may have come meanwhile which are not
%% of users (mnesia, logger and the like start some when they are busy).
-define(RELEASED_WITHIN, 60000).
-define(OTHER_PROCESSES, 10).

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
        idle_memory => list_to_binary(Memory),
        vm_options => list_to_binary(lists:join(" ", Vm))
    }).

-spec plan(options()) -> #plan{}.
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Normal, Short) -> maps:get(Name, Settings, case Quick of true -> Short; false -> Normal end) end,
    Number = fun(Name, Normal, Short) -> list_to_integer(Get(Name, Normal, Short)) end,
    Kinds = string:lexemes(Get("kind", "ws", "ws,bosh"), ","),
    Kinds -- ["ws", "bosh"] =:= [] orelse error({no_such_kind, Kinds, ["ws", "bosh"]}),
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
        idle = Number("idle-seconds", "15", "3"),
        seconds = Number("chat-seconds", "30", "5"),
        messages = Number("messages", "1000", "200"),
        node = #{
            profile => bare, idle_memory => Memory, idle_after => maps:get("idle-after", Settings, none),
            sweep_all => false, fullsweep => false, bosh => native,
            %% One process of each user, and those of ejabberd.
            processes => Users + Users div 20 + 20000,
            vm => ["+Q", "4096" | string:lexemes(maps:get("vm", Settings, ?VM), " ")],
            dir => os:getenv("BENCH_DIR", ".")
        }
    }.

-spec measure(string(), #plan{}) -> outcome().
measure(Kind, #plan{users = Users, node = Settings} = Plan) ->
    bench_vm:say("~b users, ~s", [Users, Kind]),
    #{node := Node, os_pid := OsPid} = Ejabberd = bench_users_node:start(erlang:unique_integer([positive]), Users, Settings),
    Empty = parts(Node),
    #{os_pid := OwnPid} = Generator = generator(Kind, Ejabberd, Plan),
    {Login, Curve} = log_in(Generator, Ejabberd, Plan),
    ok = quiet(Node),
    ok = bench_program:watch([Generator], Plan#plan.idle * 1000),
    Idle = parts(Node),
    Tables = all_there(Users, Node),
    Allocators = bench_vm:call(Node, bench_users_node, allocators, []),
    bench_vm:say("idle: ~ts", [in_words(Idle)]),
    OwnRss = bench_program:rss(OwnPid),
    Chat = chat(Generator, OsPid, Plan),
    ok = quiet(Node),
    Talked = parts(Node),
    {Leave, _} = leave(Generator, Ejabberd, Plan),
    ok = bench_program:stop(Generator),
    ok = released(Empty, Node),
    Outcome = #{
        users => Users, curve => Curve, empty => Empty, idle => Idle, talked => Talked, gone => parts(Node), tables => Tables, allocators => Allocators,
        sweeper => bench_vm:call(Node, bench_users_node, sweeper, []), generator_rss => OwnRss, login => Login, chat => Chat,
        leave => Leave, complaints => bench_users_node:complaints(Ejabberd)
    },
    ok = bench_users_node:stop(Ejabberd),
    Outcome.

-spec parts(bench_vm:node_ref()) -> bench_users_node:parts().
parts(Node) ->
    bench_vm:call(Node, bench_users_node, parts, []).

-spec generator(string(), bench_users_node:ejabberd(), #plan{}) -> bench_program:program().
generator(Kind, #{listeners := Listeners}, #plan{users = Users, links = Links, pace = Pace, at_once = AtOnce, wait = Wait}) ->
    {megaphone, Server} = lists:keyfind(megaphone, 1, Listeners),
    Numbers = [{"--users", Users}, {"--links", Links}, {"--pace", Pace}, {"--at-once", AtOnce}, {"--wait", Wait}],
    bench_program:start(bench_program:built("megaphone-million"), [
        "--kind", Kind, "--target", Server
        | lists:append([[Name, integer_to_list(Number)] || {Name, Number} <- Numbers])
    ]).

%% ---- logins -----------------------------------------------------------------------------------------------------

-spec log_in(bench_program:program(), bench_users_node:ejabberd(), #plan{}) -> {#{atom() => number()}, [point()]}.
log_in(#{os_pid := OwnPid} = Generator, #{os_pid := OsPid} = Ejabberd, #plan{users = Users}) ->
    Cpu = bench_users:cpu([OsPid]),
    {Line, Curve} = progress("ready", Generator, Ejabberd),
    {Spent, Own} = {bench_users:cpu([OsPid]) - Cpu, bench_users:cpu([OwnPid])},
    Login = #{
        seconds => bench_program:number("seconds", Line), per_second => bench_program:number("logins_per_second", Line),
        max_us => bench_program:number("login_us_max", Line), cpu_ms => Spent / Users, own_cpu_ms => Own / Users
    },
    bench_vm:say("all are online after ~b s", [round(maps:get(seconds, Login))]),
    {Login, Curve}.

%% Follows users as they come or go, to the line of this event.
-spec progress(string(), bench_program:program(), bench_users_node:ejabberd()) -> {binary(), [point()]}.
progress(Event, Generator, Ejabberd) ->
    progress(Event, Generator, Ejabberd, erlang:monotonic_time(millisecond), []).

-spec progress(string(), bench_program:program(), bench_users_node:ejabberd(), integer(), [point()]) -> {binary(), [point()]}.
progress(Event, Generator, #{node := Node} = Ejabberd, Began, Points) ->
    Line = told(Generator, "progress|" ++ Event, ?SILENCE),
    case string:find(Line, "\"event\":\"progress\"") of
        nomatch ->
            {Line, lists:reverse(Points)};
        _ ->
            Point = (parts(Node))#{
                seconds => (erlang:monotonic_time(millisecond) - Began) / 1000, users => bench_program:number("users", Line),
                per_second => bench_program:number("per_second", Line), under_way => bench_program:number("under_way", Line),
                p50_us => bench_program:number("p50", Line), p99_us => bench_program:number("p99", Line), max_us => bench_program:number("max", Line)
            },
            bench_vm:say("~ts", [in_words(Point)]),
            progress(Event, Generator, Ejabberd, Began, [Point | Points])
    end.

%% A line about how things are.
-spec in_words(point() | bench_users_node:parts()) -> iodata().
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
    [Logins, "RSS ", megabytes(Rss), Of([total, processes, ets, binary, system]), " MB, ", bench_report:thousands(Count), " processes"].

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
-spec quiet(bench_vm:node_ref()) -> ok.
quiet(Node) ->
    quiet(Node, #{}, ?QUIET_FOR, erlang:monotonic_time(millisecond) + ?QUIET_WITHIN).

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
-spec all_there(pos_integer(), bench_vm:node_ref()) -> #{atom() => non_neg_integer()}.
all_there(Users, Node) ->
    #{sessions := Sessions, connections := Connections} = Left = bench_vm:call(Node, bench_users_node, left, []),
    {Sessions, Connections} =:= {Users, Users} orelse error({not_all_are_there, Users, Left}),
    Left.

%% ---- messages ---------------------------------------------------------------------------------------------------

-spec chat(bench_program:program(), pos_integer(), #plan{}) -> #{atom() => number()}.
chat(Generator, OsPid, #plan{messages = Rate, seconds = Seconds}) ->
    bench_vm:say("~b messages a second for ~b s", [Rate, Seconds]),
    Cpu = bench_users:cpu([OsPid]),
    ok = bench_program:tell(Generator, io_lib:format("chat {\"messages_per_second\":~b,\"duration\":~b}", [Rate, Seconds])),
    Line = told(Generator, "chat", (Seconds + 60) * 1000),
    Spent = bench_users:cpu([OsPid]) - Cpu,
    [Sent, Received, Pairs, P50, P99, Max] = [bench_program:number(Name, Line) || Name <- ["sent", "received", "pairs", "p50", "p99", "max"]],
    Sent =:= Received andalso Sent > 0 orelse error({messages_went_wrong, Line}),
    #{sent => Sent, pairs => Pairs, p50_us => P50, p99_us => P99, max_us => Max, cpu_ms => Spent / Sent}.

%% ---- the end ----------------------------------------------------------------------------------------------------

-spec leave(bench_program:program(), bench_users_node:ejabberd(), #plan{}) -> {#{atom() => number()}, [point()]}.
leave(Generator, #{os_pid := OsPid} = Ejabberd, #plan{pace = Pace, users = Users}) ->
    Cpu = bench_users:cpu([OsPid]),
    ok = bench_program:tell(Generator, io_lib:format("leave {\"per_second\":~b}", [2 * Pace])),
    {Line, Curve} = progress("left", Generator, Ejabberd),
    Seconds = bench_program:number("seconds", Line),
    {#{seconds => Seconds, per_second => Users / Seconds, cpu_ms => (bench_users:cpu([OsPid]) - Cpu) / Users}, Curve}.

%% Nothing of any user may be left.
-spec released(bench_users_node:parts(), bench_vm:node_ref()) -> ok.
released(Empty, Node) ->
    released(Empty, Node, erlang:monotonic_time(millisecond) + ?RELEASED_WITHIN).

-spec released(bench_users_node:parts(), bench_vm:node_ref(), integer()) -> ok.
released(#{process_count := Before} = Empty, Node, Deadline) ->
    Left = bench_vm:call(Node, bench_users_node, left, []),
    #{process_count := Processes} = parts(Node),
    IsOver = erlang:monotonic_time(millisecond) > Deadline,
    case {maps:with([sessions, connections, bosh_sessions], Left), Processes - Before} of
        {#{sessions := 0, connections := 0, bosh_sessions := 0}, More} when More =< ?OTHER_PROCESSES ->
            ok;
        {Users, More} when IsOver ->
            error({left_of_users_who_have_gone, Users, {more_processes, More}});
        _ ->
            receive
            after 200 -> released(Empty, Node, Deadline)
            end
    end.
