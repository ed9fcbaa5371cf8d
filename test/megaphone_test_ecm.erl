%% The real connection manager in front of a node of megaphone_test_node, and curl as its client.
-module(megaphone_test_ecm).

-include("megaphone_test.hrl").

-export([start/1, address/1, stop/1, kill/1, log/1, binary/0]).
-export([boot/2, curl/3, both/4]).
-export_type([ecm/0, answer/0]).

-type ecm() :: #{keeper := pid(), pid := string(), address := address()}.
-type address() :: {inet:ip_address(), inet:port_number()}.
-type answer() :: #{status := string(), head := [string()], body := binary(), connects := string()}.

%% Seconds.
-define(CURL_TIMEOUT, "60").

%% Lives as long as its standard input: the shell that started it ends it then, however its owner died.
-define(SHELL, "\"$@\" & pid=$!; echo \"pid $pid\"; cat >/dev/null; kill -9 \"$pid\"; wait").

%% ---- connection managers ---------------------------------------------------------------------------------------

%% Starts one at a free port of 127.0.0.1, and waits until it is linked to the listener at `Server'.
-spec start(address()) -> ecm().
start({Ip, Port}) ->
    Arguments = [binary(), "--listen", "127.0.0.1:0", "--server", inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port)],
    Self = self(),
    Keeper = spawn(fun() ->
        Shell = open_port({spawn_executable, "/bin/sh"}, [
            {args, ["-c", ?SHELL, "sh" | Arguments]}, {line, 4096}, stderr_to_stdout, binary, exit_status
        ]),
        keep(Shell, Self, [])
    end),
    {ecm_log, Keeper, <<"pid ", Pid/binary>>} = expect(Keeper, "^pid "),
    {ecm_log, Keeper, <<"listening on 127.0.0.1:", Own/binary>>} = expect(Keeper, "^listening on "),
    _ = expect(Keeper, "link to .* up"),
    Keeper ! {tell, undefined},
    #{keeper => Keeper, pid => binary_to_list(Pid), address => {{127, 0, 0, 1}, binary_to_integer(Own)}}.

%% The line of its log that the pattern is found in.
-spec expect(pid(), string()) -> {ecm_log, pid(), binary()}.
expect(Keeper, Pattern) ->
    {ecm_log, Keeper, Line} = Received = ?assertReceive({ecm_log, Keeper, _}),
    case re:run(Line, Pattern) of
        {match, _} -> Received;
        nomatch -> expect(Keeper, Pattern)
    end.

-spec keep(port(), pid() | undefined, [binary()]) -> ok.
keep(Shell, Listener, Log) ->
    receive
        {Shell, {data, {_, Line}}} ->
            _ = [Listener ! {ecm_log, self(), Line} || Listener =/= undefined],
            keep(Shell, Listener, [Line | Log]);
        {Shell, {exit_status, Status}} ->
            error({ecm_shell_ended, Status, Log});
        {tell, NewListener} ->
            keep(Shell, NewListener, Log);
        {log, From} ->
            From ! {self(), lists:reverse(Log)},
            keep(Shell, Listener, Log);
        stop ->
            true = port_close(Shell),
            ok
    end.

-spec address(ecm()) -> address().
address(#{address := Address}) -> Address.

%% What it has logged, in lines.
-spec log(ecm()) -> [binary()].
log(#{keeper := Keeper}) ->
    Keeper ! {log, self()},
    element(2, ?assertReceive({Keeper, _})).

%% Ends it at once; its shell stays: stop/1 is needed all the same.
-spec kill(ecm()) -> ok.
kill(#{pid := Pid} = Ecm) ->
    _ = os:cmd("kill -9 " ++ Pid),
    await_end(Ecm).

-spec stop(ecm()) -> ok.
stop(#{keeper := Keeper} = Ecm) ->
    Keeper ! stop,
    await_end(Ecm).

-spec await_end(ecm()) -> ok.
await_end(#{pid := Pid}) ->
    megaphone_test:wait_until(fun() -> os:cmd("kill -0 " ++ Pid ++ " 2>/dev/null && echo alive") =:= "" end).

%% The connection manager that `make build' has built: where cargo puts things, which CARGO_TARGET_DIR moves. The
%% root of the project is the first directory above this module that has a Cargo.toml.
-spec binary() -> file:filename().
binary() ->
    Moved = [filename:absname(Dir) || Dir <- [os:getenv("CARGO_TARGET_DIR")], is_list(Dir)],
    Roots = [filename:join(Root, "target") || Root <- parents(filename:dirname(code:which(?MODULE))), filelib:is_regular(filename:join(Root, "Cargo.toml"))],
    Places = [filename:join([Target, "release", "megaphone-ecm"]) || Target <- Moved ++ Roots],
    case [Place || Place <- Places, filelib:is_regular(Place)] of
        [Place | _] -> Place;
        [] -> error({"the connection manager was not found; `make build' builds it", Places})
    end.

-spec parents(file:filename()) -> [file:filename()].
parents(Dir) ->
    case filename:dirname(Dir) of
        Dir -> [Dir];
        Above -> [Dir | parents(Above)]
    end.

%% ---- nodes -----------------------------------------------------------------------------------------------------

%% As megaphone_test_node:start/2, with a configuration (YAML) that is the caller's alone.
-spec boot(file:filename(), iodata()) -> megaphone_test_node:node_info().
boot(Dir, Config) ->
    File = filename:join(Dir, "ejabberd.yml"),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, Config),
    {ok, Peer, _Node} = peer:start(#{
        connection => standard_io,
        args => megaphone_test_node:arguments(),
        env => [{"ERL_LIBS", megaphone_test_node:ejabberd_libs()}, {"ERL_CRASH_DUMP", filename:join(Dir, "erl_crash.dump")}],
        wait_boot => 60000
    }),
    Listening = peer:call(Peer, megaphone_test_node, boot, [Dir], 60000),
    #{peer => Peer, dir => Dir, listeners => Listening}.

%% ---- curl ------------------------------------------------------------------------------------------------------

%% Runs curl with its files in `Dir', which must be no other's. Whatever host the URLs name, it goes to `Address'. One
%% answer for each URL (`--next' is not for here); `connects' is how many connections were made for it.
-spec curl(file:filename(), address(), [string()]) -> [answer()].
curl(Dir, {Ip, Port}, Arguments) ->
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    Id = integer_to_list(erlang:unique_integer([positive])),
    Urls = length([Url || "http://" ++ _ = Url <- Arguments]),
    Bodies = [filename:join(Dir, "body" ++ Id ++ "." ++ integer_to_list(N)) || N <- lists:seq(1, Urls)],
    Heads = filename:join(Dir, "heads" ++ Id),
    Fixed = ["-q", "-sS", "--noproxy", "*", "--max-time", ?CURL_TIMEOUT, "--connect-to", "::" ++ inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port), "-D", Heads, "-w", "%{num_connects}\\n"],
    {0, Connects} = run("curl", Fixed ++ lists:append([["-o", Body] || Body <- Bodies]) ++ Arguments),
    {ok, Text} = file:read_file(Heads),
    Counts = string:lexemes(binary_to_list(Connects), "\n"),
    Answers = [answer(Head, Body, Count) || {Head, Body, Count} <- lists:zip3(final(Text), Bodies, Counts)],
    _ = [file:delete(File) || File <- [Heads | Bodies]],
    Answers.

%% Heads of the answers, without those that only announce one (100 Continue).
-spec final(binary()) -> [[string()]].
final(Text) ->
    Heads = binary:split(Text, <<"\r\n\r\n">>, [global, trim_all]),
    [string:split(binary_to_list(Head), "\r\n", all) || Head <- Heads, binary:match(Head, <<"HTTP/1.1 1">>) =/= {0, 10}].

-spec answer([string()], file:filename(), string()) -> answer().
answer([Status | Fields], BodyFile, Connects) ->
    Body =
        case file:read_file(BodyFile) of
            {ok, Bytes} -> Bytes;
            {error, enoent} -> <<>>
        end,
    #{status => Status, head => [Field || Field <- Fields, not lists:prefix("date:", string:lowercase(Field))], body => Body, connects => Connects}.

-spec run(string(), [string()]) -> {non_neg_integer(), binary()}.
run(Program, Arguments) ->
    Path = os:find_executable(Program),
    is_list(Path) orelse error({"not found; `make setup' installs it", Program}),
    Port = open_port({spawn_executable, Path}, [{args, Arguments}, stderr_to_stdout, binary, exit_status]),
    case finish(Port, []) of
        {0, _} = Result -> Result;
        {Status, Output} -> error({Program, Status, Output, Arguments})
    end.

-spec finish(port(), iodata()) -> {non_neg_integer(), binary()}.
finish(Port, Output) ->
    receive
        {Port, {data, Data}} -> finish(Port, [Output, Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    end.

%% The same by two ways: the answers must be the same, but for the date. The bodies are too long to be shown.
-spec both(file:filename(), address(), address(), [string()]) -> [answer()].
both(Dir, One, Other, Arguments) ->
    Answers = curl(Dir, One, Arguments),
    Others = curl(Dir, Other, Arguments),
    Shown = [brief(Answer) || Answer <- Answers],
    Expected = [brief(Answer) || Answer <- Others],
    Shown =:= Expected orelse error({answers_differ, Arguments, Shown, Expected}),
    Answers.

-spec brief(answer()) -> #{atom() => term()}.
brief(#{body := Body} = Answer) when byte_size(Body) < 1000 -> maps:remove(connects, Answer);
brief(#{body := Body} = Answer) -> brief(Answer#{body := crypto:hash(sha256, Body)}).
