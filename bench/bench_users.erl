%% What an idle user costs a real ejabberd: users log in by the load generator, directly or through the connection
%% manager and Megaphone, and do nothing.
-module(bench_users).

-export([run/1]).
%% For other benchmarks with users.
-export([plan/1, kinds/1, in_fresh_node/4, log_in/4, cpu/1]).
-export_type([plan/0, online/0]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-record(plan, {
    kinds :: [string()],
    sizes :: [pos_integer(), ...],
    profile :: bare | typical,
    pace :: pos_integer(),
    idle :: non_neg_integer(),
    retries :: non_neg_integer(),
    browser :: boolean(),
    wait :: pos_integer(),
    node :: bench_users_node:settings()
}).

-opaque plan() :: #plan{}.

-type online() :: #{
    generators := [bench_program:program()],
    %% Process numbers of ejabberd and of the connection managers.
    servers := [pos_integer()],
    %% What the generators said when all were online.
    ready := [binary()],
    seconds := float()
}.

%% Descriptors that a process can have here, less some for itself.
-define(DESCRIPTORS, 19500).

%% Login, chat and so on must end within seconds; the rest is for a machine that is slower than the pace.
-define(LOGIN_WITHIN, 120000).

%% @doc One report for all kinds that were asked for.
-spec run(options()) -> bench_report:report().
run(Options) ->
    Plan = plan(Options),
    Results = [{Kind, measure(Kind, Plan)} || Kind <- Plan#plan.kinds],
    Node = Plan#plan.node,
    bench_users_report:report(Results, #{
        users => Plan#plan.sizes,
        profile => Plan#plan.profile,
        logins_per_second => Plan#plan.pace,
        idle_seconds => Plan#plan.idle,
        browser_headers => Plan#plan.browser,
        wait => Plan#plan.wait,
        sweep_all => maps:get(sweep_all, Node),
        idle_memory => mode(maps:get(idle_memory, Node)),
        fullsweep_after_0 => maps:get(fullsweep, Node),
        vm_options => list_to_binary(lists:join(" ", maps:get(vm, Node)))
    }).

%% @doc What was asked for.
-spec plan(options()) -> plan().
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Default) -> maps:get(Name, Settings, Default) end,
    Sizes =
        case Quick of
            true -> "100,200,300";
            false -> "1000,2000,4000"
        end,
    Kinds = string:lexemes(Get("kind", "stock-bosh2,bosh2"), ","),
    Known = ["stock-bosh", "stock-bosh2", "stock-ws", "stock-tcp", "bosh", "bosh2", "bosh-native", "ws"],
    Kinds -- Known =:= [] orelse error({no_such_kind, Kinds -- Known, Known}),
    Memory = Get("idle-memory", "none"),
    lists:member(Memory, ["none", "keep", "collect", "hibernate_bosh", "hibernate"]) orelse error({no_such_idle_memory, Memory}),
    Profile =
        case Get("profile", "bare") of
            "bare" -> bare;
            "typical" -> typical
        end,
    #plan{
        kinds = Kinds,
        sizes = lists:usort([list_to_integer(Size) || Size <- string:lexemes(Get("users", Sizes), ",")]),
        profile = Profile,
        pace = list_to_integer(Get("pace", "200")),
        idle = list_to_integer(Get("idle-seconds", "15")),
        retries = list_to_integer(Get("retries", "0")),
        browser = maps:is_key("browser-headers", Settings),
        wait = list_to_integer(Get("wait", "60")),
        node = #{
            profile => Profile,
            idle_memory => text(Memory),
            idle_after => text(Get("idle-after", "none")),
            sweep_all => maps:is_key("sweep-all", Settings),
            fullsweep => maps:is_key("fullsweep", Settings),
            vm => bench_vm:options(Get("vm", "")),
            dir => os:getenv("BENCH_DIR", ".")
        }
    }.

-spec text(string()) -> none | string().
text("none") -> none;
text(Text) -> Text.

-spec mode(none | string()) -> atom().
mode(none) -> none;
mode(Text) -> list_to_atom(Text).

%% One node for each size: users who came earlier would have been idle for longer.
-spec measure(string(), #plan{}) -> [bench_users_report:step()].
measure(Kind, #plan{sizes = Sizes} = Plan) ->
    [in_fresh_node(Kind, Users, Plan) || Users <- Sizes].

-spec in_fresh_node(string(), pos_integer(), #plan{}) -> bench_users_report:step().
in_fresh_node(Kind, Users, Plan) ->
    in_fresh_node(Kind, Users, Plan, fun(#{node := Node} = Ejabberd, Ecms) ->
        Base = bench_vm:call(Node, bench_users_node, snapshot, []),
        (with_users(Kind, Users, Ejabberd, Ecms, Plan))#{users => Users, base => Base}
    end).

%% @doc Calls a function with an ejabberd of its own, and its connection managers, and stops them.
-spec in_fresh_node(string(), pos_integer(), plan(), Fun) -> Result when
    Fun :: fun((bench_users_node:ejabberd(), [bench_program:program()]) -> Result).
in_fresh_node(Kind, Users, #plan{profile = Profile, node = Settings}, Fun) ->
    bench_vm:say("~b users, ~s, ~s", [Users, Kind, Profile]),
    check(Kind, Users),
    #{node := Node} = Ejabberd = bench_users_node:start(erlang:unique_integer([positive]), Users, Settings#{bosh => bosh(Kind)}),
    Profile =:= typical andalso (ok = bench_vm:call(Node, bench_users_node, populate, [Users])),
    Ecms = connection_managers(Kind, Users, Ejabberd),
    Result = Fun(Ejabberd, Ecms),
    lists:foreach(fun bench_program:stop/1, Ecms),
    ok = bench_users_node:stop(Ejabberd),
    Result.

%% @doc Kinds that were asked for.
-spec kinds(plan()) -> [string()].
kinds(#plan{kinds = Kinds}) -> Kinds.

%% Stock ejabberd takes a descriptor for each connection.
-spec check(string(), pos_integer()) -> ok.
check("stock-" ++ Kind, Users) ->
    Most = ?DESCRIPTORS div connections(Kind),
    Users =< Most orelse error({too_many_users_for_the_descriptors_of_one_ejabberd, Users, Most}),
    ok;
check(_Kind, _Users) ->
    ok.

%% Descriptors that a user may take; a BOSH user has a second connection for moments only.
-spec connections(string()) -> 1 | 2.
connections("bosh2") -> 2;
connections("bosh-native") -> 2;
connections(_) -> 1.

%% Who keeps BOSH sessions behind the connection manager.
-spec bosh(string()) -> native | mod_bosh.
bosh("bosh-native") -> native;
bosh(_) -> mod_bosh.

%% As many as their descriptors ask for.
-spec connection_managers(string(), pos_integer(), bench_users_node:ejabberd()) -> [bench_program:program()].
connection_managers("stock-" ++ _, _Users, _Ejabberd) ->
    [];
connection_managers(Kind, Users, #{listeners := Listeners}) ->
    {megaphone, Server} = lists:keyfind(megaphone, 1, Listeners),
    Count = ceil(Users * connections(Kind) / ?DESCRIPTORS),
    [
        bench_program:start_server(bench_program:built("megaphone-ecm"), ["--listen", "127.0.0.1:0", "--server", Server])
     || _ <- lists:seq(1, Count)
    ].

-spec with_users(string(), pos_integer(), bench_users_node:ejabberd(), [bench_program:program()], #plan{}) -> map().
with_users(Kind, Users, #{node := Node, os_pid := OsPid} = Ejabberd, Ecms, #plan{idle = Idle} = Plan) ->
    EcmBefore = rss(Ecms),
    Kernel = bench_kernel:sockets(),
    Cpu = cpu([OsPid | [EcmPid || #{os_pid := EcmPid} <- Ecms]]),
    #{generators := Generators, servers := Servers, ready := Ready, seconds := Took} =
        log_in(Kind, Users, {Ejabberd, Ecms}, Plan),
    LoginCpu = (cpu(Servers) - Cpu) / Users,
    ok = bench_program:watch(Generators, Idle * 500),
    {HalfRss, HalfTotal} = bench_vm:call(Node, bench_users_node, sizes, []),
    ok = bench_program:watch(Generators, Idle * 500),
    Step = bench_vm:call(Node, bench_users_node, snapshot, []),
    Found = #{
        at => Step,
        rss_growth => maps:get(rss, Step) - HalfRss,
        total_growth => maps:get(total, maps:get(memory, Step)) - HalfTotal,
        ecm_rss => rss(Ecms) - EcmBefore,
        kernel => bench_kernel:sockets() - Kernel,
        cpu_ms_per_login => LoginCpu,
        cpu_ms_idle_per_user_minute => (cpu(Servers) - Cpu - LoginCpu * Users) / Users * 60 / max(1, Idle),
        logins_per_second => Users / Took,
        login_us_p99 => lists:max([bench_program:number("p99", Line) || Line <- Ready]),
        login_us_max => lists:max([bench_program:number("max", Line) || Line <- Ready]),
        retried => lists:sum([bench_program:number("retried", Line) || Line <- Ready]),
        requests_per_login => lists:sum([bench_program:number("requests", Line) || Line <- Ready]) / Users
    },
    lists:foreach(fun bench_program:stop/1, Generators),
    Found.

%% @doc Has so many users log in.
-spec log_in(string(), pos_integer(), {bench_users_node:ejabberd(), [bench_program:program()]}, plan()) -> online().
log_in(Kind, Users, {#{os_pid := OsPid} = Ejabberd, Ecms}, Plan) ->
    Began = erlang:monotonic_time(millisecond),
    Generators = generators(Kind, Users, targets(Kind, Ejabberd, Ecms), Plan),
    Within = ?LOGIN_WITHIN + 3 * 1000 * Users div Plan#plan.pace,
    Ready = [bench_program:await(Generator, "\"event\":\"ready\"", Within) || Generator <- Generators],
    #{
        generators => Generators,
        servers => [OsPid | [EcmPid || #{os_pid := EcmPid} <- Ecms]],
        ready => Ready,
        seconds => (erlang:monotonic_time(millisecond) - Began) / 1000
    }.

%% Where the users connect to.
-spec targets(string(), bench_users_node:ejabberd(), [bench_program:program()]) -> [string()].
targets("stock-" ++ Kind, #{listeners := Listeners}, []) ->
    Module =
        case Kind of
            "tcp" -> ejabberd_c2s;
            _ -> ejabberd_http
        end,
    [element(2, lists:keyfind(Module, 1, Listeners))];
targets(_Kind, _Ejabberd, Ecms) ->
    [
        begin
            Line = bench_program:await(Ecm, "^listening on ", 10000),
            _ = bench_program:await(Ecm, "link to .* up", 10000),
            lists:last(string:lexemes(binary_to_list(Line), " "))
        end
     || Ecm <- Ecms
    ].

%% Each has its share of the users and of the pace.
-spec generators(string(), pos_integer(), [string()], #plan{}) -> [bench_program:program()].
generators("stock-" ++ Kind, Users, Targets, Plan) ->
    generators(Kind, Users, Targets, Plan);
generators("bosh-native", Users, Targets, Plan) ->
    generators("bosh2", Users, Targets, Plan);
generators(Kind, Users, Targets, #plan{profile = Profile, pace = Pace, retries = Retries, browser = Browser, wait = Wait}) ->
    %% At least one for each connection manager.
    Count = max(length(Targets), ceil(Users * connections(Kind) / ?DESCRIPTORS)),
    Share = ceil(Users / Count),
    [
        bench_program:start(bench_program:built("megaphone-load"), [
            "--kind", Kind, "--profile", atom_to_list(Profile),
            "--target", lists:nth(Number rem length(Targets) + 1, Targets),
            "--users", integer_to_list(min(Share, Users - Number * Share)),
            "--from", integer_to_list(Number * Share),
            "--pace", integer_to_list(max(1, Pace div Count)),
            "--retries", integer_to_list(Retries),
            "--wait", integer_to_list(Wait)
            | ["--browser-headers" || Browser]
        ])
     || Number <- lists:seq(0, Count - 1)
    ].

-spec rss([bench_program:program()]) -> non_neg_integer().
rss(Programs) ->
    lists:sum([bench_program:rss(OsPid) || #{os_pid := OsPid} <- Programs]).

%% @doc Milliseconds that these have run.
-spec cpu([pos_integer()]) -> non_neg_integer().
cpu(OsPids) ->
    10 * lists:sum([bench_program:ticks(OsPid) || OsPid <- OsPids]).
