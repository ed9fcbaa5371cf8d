%% A real ejabberd in a node of its own, plain, as Debian starts it: its configuration, and what is asked of it from
%% within.
-module(bench_users_node).

-export([start/3, stop/1]).
%% In the node.
-export([boot/1, shut/0, populate/1, sizes/0, sweeper/0, snapshot/0, parts/0, allocators/0, left/0, longest_queues/0, complaints/1]).
-export_type([settings/0, ejabberd/0, snapshot/0, parts/0]).

-type settings() :: #{
    profile := bare | typical,
    idle_memory := none | string(),
    idle_after := none | string(),
    sweep_all := boolean(),
    fullsweep := boolean(),
    vm := [string()],
    dir := file:filename(),
    %% The listener option of that name; native unless told otherwise.
    bosh => native | mod_bosh,
    %% Whether Megaphone listens; true unless told otherwise.
    megaphone => boolean(),
    %% Most processes; enough for all users unless told otherwise.
    processes => pos_integer(),
    %% Further modules, and a directory whose files are served below /files.
    modules => [string()],
    files => file:filename()
}.

-type ejabberd() :: #{node := bench_vm:node_ref(), os_pid := pos_integer(), dir := file:filename(), listeners := [{module(), string()}]}.

-type snapshot() :: #{
    rss := non_neg_integer(),
    memory := #{atom() => non_neg_integer()},
    processes := non_neg_integer(),
    ports := non_neg_integer(),
    kinds := #{atom() => {Count :: pos_integer(), Bytes :: non_neg_integer()}},
    %% Of each allocator, bytes that it holds, and that are in use.
    allocators := #{atom() => {Carriers :: non_neg_integer(), Blocks :: non_neg_integer()}},
    table := #{atom() => term()}
}.

%% Bytes of RSS and of `erlang:memory()', by its parts, and the number of processes.
-type parts() :: #{atom() => non_neg_integer()}.

-define(HOST, <<"localhost">>).

%% Users who have each other in their rosters; so many contacts less one are online, and as many are not.
-define(CIRCLE, 11).

%% So many half seconds without a change of memory: the node is settled.
-define(SETTLED_FOR, 5).

%% More of them wait for a process that cannot follow.
-define(MANY_MESSAGES, 100).

%% What ejabberdctl of Debian sets.
-define(PROCESSES, 250000).
-define(PORTS, "32000").

%% @doc Starts one that can hold so many users; `Number' keeps the files of several apart.
-spec start(pos_integer(), pos_integer(), settings()) -> ejabberd().
start(Number, Users, #{dir := Base, fullsweep := Fullsweep, vm := Vm} = Settings) ->
    Dir = filename:join(Base, "users" ++ integer_to_list(Number)),
    ok = filelib:ensure_dir(filename:join([Dir, "log", "any"])),
    ok = filelib:ensure_dir(filename:join([Dir, "mnesia", "any"])),
    ok = file:write_file(filename:join(Dir, "ejabberd.yml"), configuration(Settings)),
    Processes = integer_to_list(maps:get(processes, Settings, max(?PROCESSES, Users * 5))),
    Sweep = [{"ERL_FULLSWEEP_AFTER", "0"} || Fullsweep],
    Node = bench_vm:start(["+K", "true", "+P", Processes | Vm], #{
        env => [{"ERL_LIBS", os:getenv("BENCH_EJABBERD_LIBS", "")}, {"ERL_MAX_PORTS", ?PORTS}, {"ERL_CRASH_DUMP_BYTES", "0"} | Sweep]
    }),
    Listeners = bench_vm:call(Node, ?MODULE, boot, [Dir]),
    #{node => Node, os_pid => list_to_integer(bench_vm:call(Node, os, getpid, [])), dir => Dir, listeners => Listeners}.

-spec stop(ejabberd()) -> ok.
stop(#{node := Node}) ->
    ok = bench_vm:call(Node, ?MODULE, shut, []),
    bench_vm:stop(Node).

%% ejabberd knows listeners by port and address: with port 0 each needs an address of its own. The default backlog of 5
%% would make bursts of clients wait for a second.
-spec configuration(settings()) -> iodata().
configuration(#{profile := Profile} = Settings) ->
    Files = maps:get(files, Settings, none),
    Handlers = ["    request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws", [", /files: mod_http_fileserver" || Files =/= none], "}\n"],
    Own = ["mod_bosh", "mod_disco", "mod_roster", "mod_stream_mgmt" | ["mod_carboncopy" || Profile =:= typical]],
    Modules = Own ++ maps:get(modules, Settings, []),
    Megaphone = [listener(1, "megaphone"), Handlers | [["    ", Option, "\n"] || Option <- idle(Settings)]],
    [
        "hosts: [localhost]\nloglevel: warning\ncertfiles: []\n",
        "auth_method: [internal, anonymous]\nanonymous_protocol: sasl_anon\nallow_multiple_connections: true\n",
        "auth_password_format: scram\nlisten:\n",
        [Megaphone || maps:get(megaphone, Settings, true)],
        listener(2, "ejabberd_http"), Handlers, "    backlog: 1024\n",
        listener(3, "ejabberd_c2s"), "    backlog: 1024\n",
        "modules:\n",
        [["  ", Module, ": {}\n"] || Module <- Modules],
        ["  mod_mam:\n    db_type: mnesia\n" || Profile =:= typical],
        [["  mod_http_fileserver:\n    docroot: \"", Files, "\"\n"] || Files =/= none]
    ].

-spec listener(pos_integer(), string()) -> iodata().
listener(Number, Module) ->
    io_lib:format("  - port: 0~n    ip: \"127.0.0.~b\"~n    module: ~s~n", [Number, Module]).

-spec idle(settings()) -> [iodata()].
idle(#{idle_memory := Memory, idle_after := After, sweep_all := All} = Settings) ->
    [["bosh: ", atom_to_list(maps:get(bosh, Settings, native))]] ++ [["idle_memory: ", Memory] || Memory =/= none] ++ [["idle_after: ", After] || After =/= none] ++ ["sweep: all" || All].

%% ---- in the node -----------------------------------------------------------------------------------------------

%% @private
%% @doc Starts ejabberd with the files in a directory: its listeners, each with its address as text.
-spec boot(file:filename()) -> [{module(), string()}].
boot(Dir) ->
    %% Names are looked up in files only: nothing here may leave the machine.
    ok = inet_db:set_lookup([file, native]),
    _ = [application:load(App) || App <- [sasl, mnesia, ejabberd]],
    ok = application:set_env(ejabberd, config, filename:join(Dir, "ejabberd.yml")),
    ok = application:set_env(ejabberd, log_path, filename:join([Dir, "log", "ejabberd.log"])),
    ok = application:set_env(ejabberd, quiet, true),
    ok = application:set_env(mnesia, dir, filename:join(Dir, "mnesia")),
    {ok, _} = application:ensure_all_started(ejabberd),
    ok = settled(erlang:memory(processes), ?SETTLED_FOR),
    listeners().

%% Within a second after its start the node collects the garbage of all processes, once: users who logged in before would
%% seem to need little.
-spec settled(non_neg_integer(), non_neg_integer()) -> ok.
settled(_Before, 0) ->
    ok;
settled(Before, Left) ->
    receive
    after 500 -> ok
    end,
    case erlang:memory(processes) of
        Now when abs(Now - Before) * 20 > Before -> settled(Now, ?SETTLED_FOR);
        _ -> settled(Before, Left - 1)
    end.

%% A listener with port 0 has its number from the system: nothing but its socket knows it.
-spec listeners() -> [{module(), string()}].
listeners() ->
    [
        {Module, inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port)}
     || {EndPoint, Acceptor, _, _} <- supervisor:which_children(ejabberd_listener),
        is_pid(Acceptor),
        {_, Module, _} <- ets:lookup(ejabberd_listener, EndPoint),
        {links, Links} <- [erlang:process_info(Acceptor, links)],
        Socket <- Links,
        is_port(Socket),
        {ok, {Ip, Port}} <- [inet:sockname(Socket)],
        is_integer(Port)
    ].

%% @private
-spec shut() -> ok.
shut() ->
    _ = [application:stop(App) || App <- [ejabberd, mnesia, os_mon]],
    ok.

%% @private
%% @doc Registers so many users, with their contacts in their rosters.
-spec populate(pos_integer()) -> ok.
populate(Users) ->
    lists:foreach(
        fun(Number) ->
            ok = ejabberd_auth:try_register(name(Number), ?HOST, <<"secret">>),
            First = Number - Number rem ?CIRCLE,
            Circle = lists:seq(First, First + ?CIRCLE - 1) -- [Number],
            Online = [name(Other) || Other <- Circle],
            Offline = [<<"away", (integer_to_binary(Other))/binary>> || Other <- Circle],
            lists:foreach(fun(Contact) -> ok = befriend(name(Number), Contact) end, Online ++ Offline)
        end,
        lists:seq(0, Users - 1)
    ).

-spec name(non_neg_integer()) -> binary().
name(Number) ->
    <<"user", (integer_to_binary(Number))/binary>>.

%% As in mod_roster.hrl, which is not included so that this compiles without ejabberd.
-spec befriend(binary(), binary()) -> ok.
befriend(User, Contact) ->
    Jid = {Contact, ?HOST, <<>>},
    mnesia:dirty_write(roster, {roster, {User, ?HOST, Jid}, {User, ?HOST}, Jid, <<>>, both, none, [], <<>>, []}).

%% @private
%% @doc What can be looked at without a change: bytes of RSS, and of `erlang:memory(total)'.
-spec sizes() -> {Rss :: non_neg_integer(), Total :: non_neg_integer()}.
sizes() ->
    {bench_vm:rss(), erlang:memory(total)}.

%% @private
%% @doc The same by parts; costs little even with very many processes, of which none notices.
-spec parts() -> parts().
parts() ->
    Memory = maps:with([total, processes, system, ets, binary], maps:from_list(erlang:memory())),
    Memory#{rss => bench_vm:rss(), process_count => erlang:system_info(process_count)}.

%% @private
%% @doc What there is of users: their sessions, and what Megaphone's tables hold.
-spec left() -> #{atom() => non_neg_integer()}.
left() ->
    #{stats := #{connections := Connections, memory := Memory}} = megaphone:info(),
    #{sessions := BoshSessions, memory := BoshMemory} = megaphone_nif:bosh_info(),
    #{
        sessions => mnesia:table_info(session, size),
        connections => Connections, table_memory => Memory,
        bosh_sessions => BoshSessions, bosh_memory => BoshMemory
    }.

%% @doc The lines in the log of an ejabberd, but for what it says when it starts.
-spec complaints(ejabberd()) -> [binary()].
complaints(#{dir := Dir}) ->
    case file:read_file(filename:join([Dir, "log", "ejabberd.log"])) of
        {ok, Text} ->
            Lines = binary:split(Text, <<"\n">>, [global, trim_all]),
            [Line || Line <- Lines, re:run(Line, "\\[(info|notice)\\]") =:= nomatch];
        {error, enoent} ->
            []
    end.

%% @private
%% @doc What the sweeper has done, where there is one.
-spec sweeper() -> #{atom() => term()}.
sweeper() ->
    case whereis(megaphone_sweeper) of
        undefined -> #{};
        _ -> megaphone_sweeper:info()
    end.

%% @private
%% @doc The memory first: asking the processes changes it.
-spec snapshot() -> snapshot().
snapshot() ->
    Memory = maps:from_list(erlang:memory()),
    Rss = bench_vm:rss(),
    Allocators = allocators(),
    Pids = processes(),
    #{
        rss => Rss,
        allocators => Allocators,
        memory => Memory,
        processes => length(Pids),
        ports => length(erlang:ports()),
        kinds => lists:foldl(fun count/2, #{}, Pids),
        table => table()
    }.

%% @private
%% @doc The processes with the most messages that they have not taken: what an overload is about.
-spec longest_queues() -> [{Process :: term(), Messages :: non_neg_integer(), In :: mfa()}].
longest_queues() ->
    Queues = [{Length, Pid} || Pid <- processes(), {message_queue_len, Length} <- [process_info(Pid, message_queue_len)], Length > ?MANY_MESSAGES],
    [
        {Name, Length, Function}
     || {Length, Pid} <- lists:sublist(lists:reverse(lists:sort(Queues)), 5),
        [{registered_name, Name}, {current_function, Function}] <- [process_info(Pid, [registered_name, current_function])]
    ].

%% @private
%% @doc Of each allocator, bytes that it holds, and that are in use.
-spec allocators() -> #{atom() => {Carriers :: non_neg_integer(), Blocks :: non_neg_integer()}}.
allocators() ->
    maps:from_list([{Name, allocator(Name)} || Name <- erlang:system_info(alloc_util_allocators)]).

-spec allocator(atom()) -> {non_neg_integer(), non_neg_integer()}.
allocator(Name) ->
    Instances =
        case erlang:system_info({allocator_sizes, Name}) of
            false -> [];
            All -> All
        end,
    Carriers = [Sizes || {instance, _, Kinds} <- Instances, {Kind, Sizes} <- Kinds, lists:member(Kind, [mbcs, mbcs_pool, sbcs])],
    {
        lists:sum([element(2, lists:keyfind(carriers_size, 1, Sizes)) || Sizes <- Carriers]),
        lists:sum([
            element(2, lists:keyfind(size, 1, Block))
         || Sizes <- Carriers, {blocks, Blocks} <- Sizes, {_Type, Block} <- Blocks
        ])
    }.

-spec count(pid(), Kinds) -> Kinds when Kinds :: #{atom() => {pos_integer(), non_neg_integer()}}.
count(Pid, Kinds) ->
    case process_info(Pid, [memory, initial_call, dictionary]) of
        undefined ->
            Kinds;
        [{memory, Bytes}, {initial_call, {Raw, _, _}}, {dictionary, Dictionary}] ->
            Kind =
                case lists:keyfind('$initial_call', 1, Dictionary) of
                    {_, {Module, _, _}} -> Module;
                    _ -> Raw
                end,
            maps:update_with(Kind, fun({Count, Sum}) -> {Count + 1, Sum + Bytes} end, {1, Bytes}, Kinds)
    end.

%% What Megaphone's table says of itself, where it runs. Not every version counts its memory.
-spec table() -> #{atom() => term()}.
table() ->
    case lists:keymember(megaphone, 1, application:which_applications()) of
        true ->
            #{stats := Stats} = megaphone:info(),
            Stats;
        false ->
            #{}
    end.
