%% Where a soak takes place: two nodes of an ejabberd cluster, two connection managers with a link to each, and a proxy in each
%% link. Any of them can be broken, killed and put back.
%%
%% What there is now is in a table that all processes of the soak read.
-module(megaphone_test_soak_world).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1, wait_until/2]).
-import(megaphone_test_node, [call/4]).

%% In the test.
-export([start/2, stop/0, ports/0, home/1, kill_node/1, revive_node/1, renew_nodes/0, kill_ecm/1, revive_ecm/1, pause_ecm/2, renew_ecm/1, reload_node/1, link/3, sample/0, quiet/0, resting/0, complaints/0]).
%% In the node.
-export([measure/0, light/0]).
-export_type([place/0, sizes/0]).

%% Of a node or a connection manager.
-type place() :: {node | ecm, pos_integer()}.
-type sizes() :: #{place() => #{atom() => number()}}.

-define(COUNT, 2).
-define(NUMBERS, [1, 2]).
%% Milliseconds until a node that was killed is there again, and knows the other one.
-define(BACK, 60000).
%% For what ends by itself: sessions of clients who have vanished, requests of rude ones.
-define(QUIET, 90000).
%% Seconds. Longer than what keeps a client away, and short enough to wait for at the end.
-define(INACTIVITY, integer_to_list(megaphone_test_soak_oracle:resumption() div 1000)).
-define(AFTER, ["idle_after: 20", "idle_after: 50"]).

-spec start(file:filename(), [string()]) -> ok.
start(Dir, Users) ->
    ?MODULE = ets:new(?MODULE, [named_table, public]),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    {Certificate, Key} = megaphone_test_program:certificate(Dir),
    Names = megaphone_test_node:cluster_names(?COUNT),
    _ = [
        begin
            Own = filename:join(Dir, "node" ++ integer_to_list(N)),
            ok = configure(Own, N),
            put_in({own, N}, {Own, Name}),
            put_in({node, N}, megaphone_test_node:start_in(Own, Name))
        end
     || {N, Name} <- lists:zip(?NUMBERS, Names)
    ],
    ok = call(node_at(2), ejabberd_cluster, join, [call(node_at(1), erlang, node, [])]),
    ok = await_cluster(),
    _ = [ok = megaphone_test_stay:register(node_at(1), User) || User <- Users],
    _ = [put_in({proxy, E, N}, megaphone_test_soak_proxy:start(megaphone_test_node:address(node_at(N), megaphone))) || E <- ?NUMBERS, N <- ?NUMBERS],
    File = filename:join(Dir, "ecm.toml"),
    ok = file:write_file(File, ["[tls]\nlisten = \"127.0.0.1:0\"\n\n[[tls.certificate]]\ncertificate = \"", Certificate, "\"\nkey = \"", Key, "\"\n"]),
    put_in(ecm_file, File),
    %% Whoever joins a cluster listens on another port than before.
    _ = [ok = aim(N) || N <- ?NUMBERS],
    _ = [put_in({ecm, E}, ecm(E, 0)) || E <- ?NUMBERS],
    await_links().

%% Everything ends in good order.
-spec stop() -> ok.
stop() ->
    _ = [{0, _} = megaphone_test_program:stop(Ecm) || E <- ?NUMBERS, {Ecm, _} <- [get_at({ecm, E})]],
    _ = [ok = megaphone_test_soak_proxy:stop(get_at({proxy, E, N})) || E <- ?NUMBERS, N <- ?NUMBERS],
    _ = [ok = megaphone_test_node:assert_quiet(node_at(N)) || N <- ?NUMBERS],
    _ = [ok = megaphone_test_node:stop(node_at(N)) || N <- ?NUMBERS],
    true = ets:delete(?MODULE),
    ok.

put_in(Key, Value) -> ets:insert(?MODULE, {Key, Value}).

get_at(Key) -> ets:lookup_element(?MODULE, Key, 2).

node_at(N) -> get_at({node, N}).

%% ---- nodes -----------------------------------------------------------------------------------------------------

%% The sweeper does as much as it can; clients that are gone are forgotten soon.
-spec configure(file:filename(), pos_integer()) -> ok.
configure(Own, N) ->
    Options = [megaphone_test_node:handlers(), "idle_memory: hibernate", "sweep: all", "max_inactivity: " ++ ?INACTIVITY, hd(?AFTER)],
    ok = megaphone_test_node:write_config(Own, [megaphone_test_node:listener(megaphone, N, Options)]),
    megaphone_test_node:change_config(Own, "mod_stream_mgmt: {}", "mod_stream_mgmt:\n    resume_timeout: " ++ ?INACTIVITY).

-spec await_cluster() -> ok.
await_cluster() ->
    wait_until(
        fun() ->
            lists:all(
                fun(N) ->
                    length(call(node_at(N), ejabberd_cluster, get_nodes, [])) =:= ?COUNT andalso is_pid(call(node_at(N), erlang, whereis, [megaphone]))
                end,
                ?NUMBERS
            )
        end,
        ?BACK
    ).

%% The node that has this session.
-spec home(megaphone_test_soak_oracle:jid()) -> pos_integer() | unknown.
home(Jid) ->
    [User, Host, Resource] = binary:split(Jid, [<<"@">>, <<"/">>], [global]),
    Owners = [
        N
     || N <- ?NUMBERS,
        Pid <- [catch call(node_at(N), ejabberd_sm, get_session_pid, [User, Host, Resource])],
        is_pid(Pid),
        node(Pid) =:= (catch call(node_at(N), erlang, node, []))
    ],
    case Owners of
        [N] -> N;
        [] -> unknown
    end.

-spec kill_node(pos_integer()) -> ok.
kill_node(N) ->
    Pid = call(node_at(N), os, getpid, []),
    [] = os:cmd("kill -9 " ++ Pid),
    ok.

%% A new one in the place of one that was killed, with its files, when it is part of the cluster again.
-spec revive_node(pos_integer()) -> ok.
revive_node(N) ->
    {Own, Name} = get_at({own, N}),
    put_in({node, N}, megaphone_test_node:start_in(Own, Name)),
    ok = aim(N),
    await_cluster().

%% Each once: nodes that have come back are not quite like those that have made the cluster.
-spec renew_nodes() -> ok.
renew_nodes() ->
    _ = [ok = revive_node(N) || N <- ?NUMBERS, kill_node(N) =:= ok],
    await_links().

%% Users who come then come to both nodes.
-spec await_links() -> ok.
await_links() -> lists:foreach(fun(N) -> megaphone_test_node:assert_only_links(node_at(N), ?COUNT) end, ?NUMBERS).

%% Links find the node's listener where it is now.
-spec aim(pos_integer()) -> ok.
aim(N) ->
    Addresses = fun() -> [Address || {megaphone, Address} <- call(node_at(N), megaphone_test_node, listeners, [])] end,
    ok = wait_until(fun() -> Addresses() =/= [] end),
    [Address | _] = Addresses(),
    _ = [ok = megaphone_test_soak_proxy:aim(get_at({proxy, E, N}), Address) || E <- ?NUMBERS],
    ok.

%% The configuration is read again, with another value for the listener of links.
-spec reload_node(pos_integer()) -> ok.
reload_node(N) ->
    {Own, _} = get_at({own, N}),
    {ok, Yaml} = file:read_file(filename:join(Own, "ejabberd.yml")),
    [Now] = [Each || Each <- ?AFTER, string:find(Yaml, Each) =/= nomatch],
    [Other] = ?AFTER -- [Now],
    ok = megaphone_test_node:change_config(Own, Now, Other),
    ok = call(node_at(N), ejabberd_config, reload, []),
    %% The listener has another port now.
    aim(N).

%% ---- connection managers ---------------------------------------------------------------------------------------

-spec ports() -> [inet:port_number()].
ports() -> [Port || E <- ?NUMBERS, {_, Port} <- [get_at({ecm, E})]].

-spec ecm(pos_integer(), inet:port_number()) -> {megaphone_test_program:program(), inet:port_number()}.
ecm(E, Port) ->
    [First | Others] = ["127.0.0.1:" ++ integer_to_list(megaphone_test_soak_proxy:port(get_at({proxy, E, N}))) || N <- ?NUMBERS],
    More = lists:append([["--server", Server] || Server <- Others]) ++ ["--config", get_at(ecm_file)],
    megaphone_test_program:ecm_ready("127.0.0.1:" ++ integer_to_list(Port), First, More).

-spec kill_ecm(pos_integer()) -> ok.
kill_ecm(E) ->
    {Ecm, _} = get_at({ecm, E}),
    ok = megaphone_test_program:signal(Ecm, "KILL"),
    {137, Output} = megaphone_test_program:await_exit(Ecm),
    note_panics(Output).

-spec revive_ecm(pos_integer()) -> ok.
revive_ecm(E) ->
    {_, Port} = get_at({ecm, E}),
    put_in({ecm, E}, ecm(E, Port)),
    ok.

%% It stands still for so many milliseconds.
-spec pause_ecm(pos_integer(), pos_integer()) -> ok.
pause_ecm(E, Time) ->
    {Ecm, _} = get_at({ecm, E}),
    ok = megaphone_test_program:signal(Ecm, "STOP"),
    receive after Time -> ok end,
    megaphone_test_program:signal(Ecm, "CONT").

%% It reads its certificates again.
-spec renew_ecm(pos_integer()) -> ok.
renew_ecm(E) ->
    {Ecm, _} = get_at({ecm, E}),
    ok = megaphone_test_program:signal(Ecm, "HUP"),
    _ = megaphone_test_program:await_line(Ecm, "certificates were read again"),
    ok.

-spec note_panics(binary()) -> ok.
note_panics(Output) ->
    Panics = [Line || Line <- binary:split(Output, <<"\n">>, [global]), binary:match(Line, <<"panicked">>) =/= nomatch],
    _ = [put_in({panic, make_ref()}, Line) || Line <- Panics],
    ok.

%% ---- links -----------------------------------------------------------------------------------------------------

-spec link(pos_integer(), pos_integer(), cut | {stall | refuse, pos_integer()}) -> ok.
link(E, N, cut) -> megaphone_test_soak_proxy:cut(get_at({proxy, E, N}));
link(E, N, {What, Time}) -> megaphone_test_soak_proxy:What(get_at({proxy, E, N}), Time).

%% ---- what is there ---------------------------------------------------------------------------------------------

%% What can be seen without disturbing anybody; nothing of what is dead just now.
-spec sample() -> sizes().
sample() ->
    Nodes = [{{node, N}, catch call(node_at(N), ?MODULE, light, [])} || N <- ?NUMBERS],
    Ecms = [{{ecm, E}, catch ecm_sizes(E)} || E <- ?NUMBERS],
    maps:from_list([{Place, Sizes} || {Place, #{} = Sizes} <- Nodes ++ Ecms]).

-spec ecm_sizes(pos_integer()) -> #{atom() => number()}.
ecm_sizes(E) ->
    {Ecm, _} = get_at({ecm, E}),
    Proc = "/proc/" ++ integer_to_list(megaphone_test_program:os_pid(Ecm)),
    {ok, Descriptors} = file:list_dir(Proc ++ "/fd"),
    #{rss => rss(Proc), descriptors => length(Descriptors)}.

-spec rss(file:filename()) -> pos_integer().
rss(Proc) ->
    {ok, Text} = file:read_file(Proc ++ "/smaps_rollup"),
    {match, [Digits]} = re:run(Text, "^Rss:\\s+(\\d+)", [multiline, {capture, all_but_first, list}]),
    list_to_integer(Digits) * 1024.

%% Waits until nothing of clients is left anywhere: only the links.
-spec quiet() -> ok.
quiet() ->
    lists:foreach(
        fun(N) ->
            Left = fun() ->
                [Each || Each <- call(node_at(N), megaphone_test_node, leftovers, []), Each =/= {links, ?COUNT}] ++
                    [{Name, Count} || {Name, Count} <- [{sessions, sessions(N)}, {bosh, bosh(N)}], Count =/= 0]
            end,
            try
                wait_until(fun() -> Left() =:= [] end, ?QUIET)
            catch
                error:{deadline, _} -> error({left_behind, {node, N}, Left()})
            end
        end,
        ?NUMBERS
    ).

sessions(N) -> call(node_at(N), mnesia, table_info, [session, size]).

bosh(N) -> maps:get(sessions, call(node_at(N), megaphone_nif, bosh_info, [])).

%% All that can be counted, when nobody is there: garbage is collected first.
-spec resting() -> sizes().
resting() ->
    maps:from_list([{{node, N}, call(node_at(N), ?MODULE, measure, [])} || N <- ?NUMBERS] ++ [{{ecm, E}, ecm_sizes(E)} || E <- ?NUMBERS]).

%% What nodes have logged as errors, but for calls to a node that was killed meanwhile (ejabberd's own: resumption of a stream asks
%% the node that has it); and panics of connection managers.
-spec complaints() -> [binary()].
complaints() ->
    _ = [note_panics(megaphone_test_program:output(Ecm)) || E <- ?NUMBERS, {Ecm, _} <- [get_at({ecm, E})]],
    [Entry || N <- ?NUMBERS, {Own, _} <- [get_at({own, N})], Entry <- entries(Own), binary:match(Entry, <<"{nodedown,">>) =:= nomatch] ++
        [Line || {{panic, _}, Line} <- ets:tab2list(?MODULE)].

%% An entry begins with its time and may have many lines.
-spec entries(file:filename()) -> [binary()].
entries(Own) ->
    {ok, Log} = file:read_file(filename:join([Own, "log", "error.log"])),
    re:split(Log, "^(?=20\\d\\d-)", [multiline, trim, {return, binary}]) -- [<<>>].

%% ---- in the node -----------------------------------------------------------------------------------------------

-spec light() -> #{atom() => number()}.
light() ->
    #{total => erlang:memory(total), rss => rss("/proc/self"), processes => erlang:system_info(process_count)}.

-spec measure() -> #{atom() => number()}.
measure() ->
    _ = [garbage_collect(Pid) || _ <- [1, 2], Pid <- processes()],
    {ok, Descriptors} = file:list_dir("/proc/self/fd"),
    #{memory := Table} = megaphone_nif:stats(),
    #{memory := Bosh} = megaphone_nif:bosh_info(),
    (light())#{ports => erlang:system_info(port_count), descriptors => length(Descriptors), table => Table, bosh => Bosh}.
