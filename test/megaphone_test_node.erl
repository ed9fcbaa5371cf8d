%% A real ejabberd in a node of its own. The node is a peer on standard input and output: undistributed, and it ends
%% with the process that started it.
%%
%% Every TCP listener takes a free port. ejabberd knows listeners by port and address, so each needs an address of its own:
%% 127.0.0.1, 127.0.0.2 and so on.
-module(megaphone_test_node).

-include("megaphone_test.hrl").

%% In the test.
-export([start/2, start_in/1, start_in/2, cluster_names/1, stop/1, stop_without_errors/1, call/4, assert_quiet/1, assert_only_links/2, held/2, do/3, release/3, address/2, stats/1, is_asleep/2, register_user/3, log/1, ejabberd_libs/0, version/0, arguments/0]).
-export([listener/3, own_address/0, unix_listener/1, unix_listener/2, handlers/0, write_config/2, change_config/3, socket_file/1, delete_socket/1]).
%% In the node.
-export([boot/1, listeners/0, leftovers/0, halted/1]).
-export_type([node_info/0]).

-type node_info() :: #{peer := pid(), dir := file:filename(), listeners := [listener()]}.

-type address() :: {inet:ip_address(), inet:port_number()}.
-type listener() :: {Module :: atom(), address()}.

-define(HOST, <<"localhost">>).
-define(BOOT_TIMEOUT, 60000).

%% Starts a node with its files in a new directory below `Dir', with these listeners.
-spec start(file:filename(), [iodata()]) -> node_info().
start(Dir, Listeners) ->
    Own = filename:join(Dir, "node" ++ integer_to_list(erlang:unique_integer([positive]))),
    ok = write_config(Own, Listeners),
    start_in(Own).

%% Starts a node in a directory that has its configuration, and perhaps the data of an earlier one.
-spec start_in(file:filename()) -> node_info().
start_in(Own) ->
    start_in(Own, []).

%% The same with a name, so that it can be part of a cluster; see cluster_names/1.
-spec start_in(file:filename(), [string()]) -> node_info().
start_in(Own, More) ->
    {ok, Peer, _Node} = peer:start(#{
        connection => standard_io,
        args => arguments() ++ More,
        env => [{"ERL_LIBS", ejabberd_libs()}, {"ERL_CRASH_DUMP", filename:join(Own, "erl_crash.dump")}],
        wait_boot => ?BOOT_TIMEOUT
    }),
    Listening =
        try
            peer:call(Peer, ?MODULE, boot, [Own], ?BOOT_TIMEOUT)
        catch
            _:Reason -> error({ejabberd_did_not_start, Reason, log(#{dir => Own})})
        end,
    #{peer => Peer, dir => Own, listeners => Listening}.

%% Arguments for so many nodes that find each other without a daemon: they have addresses of their own and one port.
-spec cluster_names(pos_integer()) -> [[string()]].
cluster_names(Count) ->
    Port = integer_to_list(free_port({127, 0, 0, 1})),
    Cookie = integer_to_list(rand:uniform(1 bsl 62), 36),
    [
        [
            "-name", lists:flatten(io_lib:format("megaphone@127.0.0.~b", [N])),
            "-setcookie", Cookie, "-start_epmd", "false", "-erl_epmd_port", Port,
            "-kernel", "inet_dist_use_interface", lists:flatten(io_lib:format("{127,0,0,~b}", [N])),
            "inet_dist_listen_min", Port, "inet_dist_listen_max", Port
        ]
     || N <- lists:seq(1, Count)
    ].

%% A port that is free at this address now.
-spec free_port(inet:ip_address()) -> inet:port_number().
free_port(Ip) ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, Ip}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port.

-spec stop(node_info()) -> ok.
stop(#{peer := Peer} = Node) ->
    _ = [call(Node, application, stop, [App]) || App <- [ejabberd, mnesia]],
    peer:stop(Peer).

%% The same, and nothing went wrong meanwhile: ejabberd's log of errors is empty.
-spec stop_without_errors(node_info()) -> ok.
stop_without_errors(#{dir := Dir} = Node) ->
    ok = stop(Node),
    case file:read_file(filename:join([Dir, "log", "error.log"])) of
        {ok, <<>>} -> ok;
        {ok, Errors} -> error({errors_were_logged, Errors})
    end.

%% Calls a function in the node.
-spec call(node_info(), module(), atom(), [term()]) -> term().
call(#{peer := Peer}, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, ?BOOT_TIMEOUT).

%% Where the first listener of a module is, or the Nth.
-spec address(node_info(), atom() | {atom(), pos_integer()}) -> address().
address(#{listeners := Listeners}, {Module, N}) ->
    lists:nth(N, [Address || {Name, Address} <- Listeners, Name =:= Module]);
address(Node, Module) ->
    address(Node, {Module, 1}).

%% All that clients have caused is gone again, links included.
-spec assert_quiet(node_info()) -> ok.
assert_quiet(Node) ->
    assert_only_links(Node, 0).

%% The same but for so many links.
-spec assert_only_links(node_info(), non_neg_integer()) -> ok.
assert_only_links(Node, Count) ->
    Expected = [{links, Count} || Count > 0],
    try
        megaphone_test:wait_until(fun() -> call(Node, ?MODULE, leftovers, []) =:= Expected end)
    catch
        error:{deadline, _} -> error({left_behind, call(Node, ?MODULE, leftovers, [])})
    end.

-spec stats(node_info()) -> #{atom() => non_neg_integer()}.
stats(Node) ->
    call(Node, megaphone_nif, stats, []).

%% Whether a process of the node hibernates. From OTP 28 on the function has another arity.
-spec is_asleep(node_info(), pid()) -> boolean().
is_asleep(Node, Pid) ->
    case call(Node, erlang, process_info, [Pid, current_function]) of
        {current_function, {erlang, hibernate, _}} -> true;
        _ -> false
    end.

%% The process that holds a request of path /test/hold/KEY, and its socket. See megaphone_test_handler.
-spec held(node_info(), binary()) -> {pid(), term()}.
held(Node, Key) ->
    call(Node, megaphone_test_handler, held, [Key]).

%% Has that process do something with its socket and what came of the body with the head.
-spec do(node_info(), binary(), fun((term(), binary()) -> Result)) -> Result.
do(Node, Key, Fun) ->
    call(Node, megaphone_test_handler, do, [Key, Fun]).

%% Has it answer.
-spec release(node_info(), binary(), iodata()) -> ok.
release(Node, Key, Body) ->
    call(Node, megaphone_test_handler, answer, [Key, {200, [], Body}]).

-spec register_user(node_info(), binary(), binary()) -> ok.
register_user(Node, User, Password) ->
    call(Node, ejabberd_auth, try_register, [User, ?HOST, Password]).

%% What ejabberd has logged so far, all its log files.
-spec log(#{dir := file:filename(), _ => _}) -> binary().
log(#{dir := Dir}) ->
    iolist_to_binary([element(2, file:read_file(File)) || File <- filelib:wildcard(filename:join([Dir, "log", "*"]))]).

%% ---- configuration ---------------------------------------------------------------------------------------------

%% A listener as YAML: its number gives it its address. `More' are further options, a line each.
-spec listener(atom(), pos_integer() | inet:ip_address() | address(), [iodata()]) -> iodata().
listener(Module, Number, More) when is_integer(Number) ->
    listener(Module, {127, 0, 0, Number}, More);
listener(Module, {Ip, Port}, More) ->
    [
        io_lib:format("- port: ~b~n  ip: \"~s\"~n  module: ~s~n", [Port, inet:ntoa(Ip), Module]),
        [["  ", Option, "\n"] || Option <- More]
    ];
listener(Module, Ip, More) ->
    listener(Module, {Ip, 0}, More).

%% An address and a port for a listener that is the same one after a restart: nobody else here has that address, so the port stays free
%% meanwhile.
-spec own_address() -> address().
own_address() ->
    Ip = {127, rand:uniform(254), rand:uniform(254), rand:uniform(254)},
    {Ip, free_port(Ip)}.

%% A listener at a unix-domain socket.
-spec unix_listener(file:filename()) -> iodata().
unix_listener(File) ->
    unix_listener(File, []).

-spec unix_listener(file:filename(), [iodata()]) -> iodata().
unix_listener(File, More) ->
    ["- port: \"unix:", File, "\"\n  module: megaphone\n", [["  ", Option, "\n"] || Option <- [handlers() | More]]].

%% Writes something else into the configuration that was written to this directory, in the place of what must be there.
-spec change_config(file:filename(), unicode:chardata(), unicode:chardata()) -> ok.
change_config(Dir, From, To) ->
    File = filename:join(Dir, "ejabberd.yml"),
    {ok, Yaml} = file:read_file(File),
    nomatch =/= string:find(Yaml, From) orelse error({not_in_configuration, From}),
    file:write_file(File, string:replace(Yaml, From, To)).

%% A name for a unix-domain socket of the node whose directory this is. The directories that Common Test gives are too long
%% for an address, so it is in a short one. It is absolute, because a relative name means other places to newer versions of
%% ejabberd; and these make the socket below the database's directory first and then move it, so that is there, too.
-spec socket_file(file:filename()) -> file:filename().
socket_file(Dir) ->
    Short = filename:join(os:getenv("TMPDIR", "/tmp"), "megaphone-" ++ integer_to_list(rand:uniform(1 bsl 48), 36)),
    ok = file:make_dir(Short),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    ok = file:make_symlink(Short, filename:join(Dir, "short")),
    filename:join(Short, "link.sock").

%% With its directory.
-spec delete_socket(file:filename()) -> ok.
delete_socket(File) ->
    ok = file:del_dir_r(filename:dirname(File)).

%% Where the node has its database.
-spec database(file:filename()) -> file:filename().
database(Dir) ->
    case file:read_link(filename:join(Dir, "short")) of
        {ok, Short} -> filename:join(Short, "mnesia");
        {error, enoent} -> filename:join(Dir, "mnesia")
    end.

%% The option for all that serves requests here.
-spec handlers() -> iodata().
handlers() ->
    Handlers = [
        {"/bosh", mod_bosh}, {"/ws", ejabberd_http_ws}, {"/files", mod_http_fileserver}, {"/upload", mod_http_upload},
        {"/api", mod_http_api}, {"/test", megaphone_test_handler}
    ],
    ["request_handlers: {", lists:join(", ", [[Path, ": ", atom_to_list(Module)] || {Path, Module} <- Handlers]), "}"].

-spec write_config(file:filename(), [iodata()]) -> ok.
write_config(Dir, Listeners) ->
    [ok = filelib:ensure_dir(filename:join([Dir, Name, "any"])) || Name <- ["log", "mnesia", "files", "upload"]],
    Config = [
        "hosts: [", ?HOST, "]\nloglevel: info\ncertfiles: []\n",
        "auth_method: [internal, anonymous]\nanonymous_protocol: sasl_anon\nallow_multiple_connections: true\n",
        "auth_password_format: scram\n",
        "listen:\n",
        %% Nobody connects to it: mod_bosh takes its limits from the first listener for c2s.
        indent(listener(ejabberd_c2s, 250, ["max_stanza_size: 524288"])),
        indent(Listeners),
        "api_permissions:\n  all:\n    who: all\n    what: \"*\"\n",
        "modules:\n",
        indent([[Module, ": {}\n"] || Module <- ["mod_bosh", "mod_disco", "mod_ping", "mod_roster", "mod_stream_mgmt", "mod_http_api"]]),
        indent(["mod_http_fileserver:\n  docroot: \"", filename:join(Dir, "files"), "\"\n"]),
        indent(["mod_http_upload:\n  docroot: \"", filename:join(Dir, "upload"), "\"\n  put_url: \"http://@HOST@/upload\"\n  access: all\n"])
    ],
    file:write_file(filename:join(Dir, "ejabberd.yml"), Config).

-spec indent(iodata()) -> iodata().
indent(Text) ->
    [["  ", Line, "\n"] || Line <- string:split(iolist_to_binary(Text), "\n", all), Line =/= <<>>].

%% ejabberd is found on the code path (ERL_LIBS), by EJABBERD_LIBS, or beside or below Erlang's own directory, where
%% packages put it.
-spec ejabberd_libs() -> file:filename().
ejabberd_libs() ->
    Named = [Libs || Libs <- [os:getenv("EJABBERD_LIBS")], is_list(Libs)],
    OnPath = [filename:dirname(filename:dirname(filename:dirname(Beam))) || Beam <- [code:where_is_file("ejabberd.app")], is_list(Beam)],
    Root = code:root_dir(),
    Packaged = filelib:wildcard(filename:join(filename:dirname(Root), "*")) ++ [filename:join(Root, "lib")],
    case [Libs || Libs <- Named ++ OnPath ++ Packaged, filelib:wildcard("ejabberd-*/ebin/ejabberd.app", Libs) =/= []] of
        [Libs | _] -> Libs;
        [] -> error("ejabberd was not found; `make setup' installs it, or EJABBERD_LIBS names the directory that holds ejabberd-VERSION")
    end.

%% Of that ejabberd, as upstream counts: [23, 1].
-spec version() -> [non_neg_integer()].
version() ->
    [File | _] = filelib:wildcard(filename:join(ejabberd_libs(), "ejabberd-*/ebin/ejabberd.app")),
    {ok, [{application, ejabberd, Keys}]} = file:consult(File),
    [Upstream | _] = string:split(proplists:get_value(vsn, Keys), "-"),
    [list_to_integer(Part) || Part <- string:lexemes(Upstream, ".")].

%% Of the emulator: Megaphone and these helpers on its path; no name is looked up anywhere but in files.
-spec arguments() -> [string()].
arguments() ->
    Paths = lists:usort([filename:dirname(code:which(Module)) || Module <- [megaphone, ?MODULE]]),
    lists:append([["-pa", Path] || Path <- Paths]) ++ ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"].

%% ---- in the node -----------------------------------------------------------------------------------------------

-spec boot(file:filename()) -> [listener()].
boot(Dir) ->
    ok = inet_db:set_lookup([file, native]),
    _ = [application:load(App) || App <- [sasl, mnesia, ejabberd]],
    ok = application:set_env(ejabberd, config, filename:join(Dir, "ejabberd.yml")),
    ok = application:set_env(ejabberd, log_path, filename:join([Dir, "log", "ejabberd.log"])),
    ok = application:set_env(ejabberd, quiet, true),
    ok = application:set_env(mnesia, dir, database(Dir)),
    ok = megaphone_test_handler:start(),
    {ok, _} = application:ensure_all_started(ejabberd),
    listeners().

%% A listener with port 0 has its number from the system: nothing but its socket knows it. In the order of the
%% configuration.
-spec listeners() -> [listener()].
listeners() ->
    Found = [
        {Socket, Module}
     || {EndPoint, Acceptor, _, _} <- supervisor:which_children(ejabberd_listener),
        is_pid(Acceptor),
        {_, Module, _} <- ets:lookup(ejabberd_listener, EndPoint),
        {links, Links} <- [erlang:process_info(Acceptor, links)],
        Socket <- Links,
        is_port(Socket)
    ],
    [{Module, Address} || {Socket, Module} <- lists:sort(Found), {ok, {Ip, _} = Address} <- [inet:sockname(Socket)], is_tuple(Ip)].

%% What is there of links, connections, waiters, consumers and polls: nothing, when all clients are gone.
-spec leftovers() -> [term()].
leftovers() ->
    %% Watched processes are left out: ejabberd's own live on.
    lists:keydelete(watched, 1, megaphone_test:leftovers(megaphone_nif:stats())) ++
        [
            {consumer, Pid, process_info(Pid, current_stacktrace)}
         || Pid <- processes(),
            {dictionary, Dictionary} <- [process_info(Pid, dictionary)],
            {'$initial_call', {ejabberd_http, _, _}} <- Dictionary
        ] ++
        [{poll, Pid} || Pid <- processes(), process_info(Pid, initial_call) =:= {initial_call, {megaphone_poll, init, 1}}].

%% For a node that should not come up: boots, and tells by its exit status if it does.
-spec halted([string()]) -> no_return().
halted([Dir]) ->
    _ = boot(Dir),
    halt(42).
