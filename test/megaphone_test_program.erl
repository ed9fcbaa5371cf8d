%% Programs of the operating system that take part in a test: the connection manager, clients. A process holds each of
%% them and keeps what it prints; the program ends when that process or the whole test does.
-module(megaphone_test_program).

-include("megaphone_test.hrl").

-export([start/3, await_line/2, await_line/3, tell/2, output/1, signal/2, os_pid/1, await_exit/1, stop/1, run/3, is_running/1, kill_started/0]).
-export([server/1, ecm/1, ecm/2, ecm_with/3, ecm_at/3, ecm_ready/3, secure_ecm/2, certificate/1, client/2, client/3, root/0, text/2]).
-export_type([program/0]).

-opaque program() :: pid().
-type options() :: #{env => [{string(), string()}], cd => file:filename()}.

%% How long a whole program may take.
-define(PROGRAM_TIMEOUT, 120000).

%% ---- any program -----------------------------------------------------------------------------------------------

%% Output and error output are kept together.
-spec start(file:filename(), [string()], options()) -> program().
start(File, Args, Options) ->
    Self = self(),
    Pid = spawn(fun() -> hold(Self, File, Args, Options) end),
    ?assertReceive({Pid, started}),
    _ = put(?MODULE, [Pid | started()]),
    Pid.

-spec started() -> [program()].
started() ->
    case get(?MODULE) of
        undefined -> [];
        Programs -> Programs
    end.

%% Kills what this process has started and what still runs: a case that failed must not leave programs to the next.
-spec kill_started() -> ok.
kill_started() ->
    lists:foreach(fun(Program) -> is_running(Program) andalso signal(Program, "KILL") end, started()),
    _ = erase(?MODULE),
    ok.

%% Waits for the next line with this text. Lines before it are passed over for good, the found one too.
-spec await_line(program(), iodata()) -> binary().
await_line(Program, Text) ->
    await_line(Program, Text, ?DEADLINE).

-spec await_line(program(), iodata(), timeout()) -> binary().
await_line(Program, Text, Timeout) ->
    Program ! {line, self(), iolist_to_binary(Text)},
    receive
        {Program, {line, Line}} -> Line;
        {Program, {no_line, Output}} -> error({program_ended_without, Text, Output})
    after Timeout -> error({program_did_not_print, Text, output(Program)})
    end.

%% Writes a line to its standard input.
-spec tell(program(), iodata()) -> ok.
tell(Program, Line) ->
    Program ! {tell, Line},
    ok.

-spec output(program()) -> binary().
output(Program) ->
    ask(Program, output).

-spec is_running(program()) -> boolean().
is_running(Program) ->
    ask(Program, status) =:= running.

-spec signal(program(), string()) -> ok.
signal(Program, Name) ->
    [] = os:cmd(lists:flatten(io_lib:format("kill -~s ~b", [Name, os_pid(Program)]))),
    ok.

-spec os_pid(program()) -> non_neg_integer().
os_pid(Program) ->
    ask(Program, os_pid).

%% Its exit status (128 + the signal that ended it), and all that it has printed.
-spec await_exit(program()) -> {non_neg_integer(), binary()}.
await_exit(Program) ->
    Program ! {await_exit, self()},
    receive
        {Program, {exit, Status, Output}} -> {Status, Output}
    after ?PROGRAM_TIMEOUT -> error({program_does_not_end, output(Program)})
    end.

%% Asks it to end at once, as an operator does, and waits for it.
-spec stop(program()) -> {non_neg_integer(), binary()}.
stop(Program) ->
    is_running(Program) andalso signal(Program, "INT"),
    await_exit(Program).

-spec run(file:filename(), [string()], options()) -> {non_neg_integer(), binary()}.
run(File, Args, Options) ->
    await_exit(start(File, Args, Options)).

-spec ask(program(), atom()) -> term().
ask(Program, What) ->
    Program ! {ask, self(), What},
    {Program, {What, Answer}} = ?assertReceive({Program, {What, _}}),
    Answer.

%% ---- the process that holds it ---------------------------------------------------------------------------------

-type state() :: #{
    port := port(),
    os_pid := non_neg_integer(),
    status := running | non_neg_integer(),
    lines := [binary()],
    unseen := [binary()],
    waiting := [{pid(), {line, binary()} | exit}]
}.

-spec hold(pid(), file:filename(), [string()], options()) -> no_return().
hold(Owner, File, Args, Options) ->
    Env = [{env, maps:get(env, Options, [])}],
    Cd = [{cd, Dir} || Dir <- [maps:get(cd, Options, undefined)], Dir =/= undefined],
    Port = open_port({spawn_executable, File}, [
        {args, Args}, {line, 1048576}, binary, exit_status, stderr_to_stdout, use_stdio | Env ++ Cd
    ]),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    Owner ! {self(), started},
    loop(#{port => Port, os_pid => OsPid, status => running, lines => [], unseen => [], waiting => []}).

-spec loop(state()) -> no_return().
loop(#{port := Port, lines := Lines, unseen := Unseen, waiting := Waiting} = State) ->
    receive
        {Port, {data, {_, Line}}} ->
            loop(serve(State#{lines := [Line | Lines], unseen := Unseen ++ [Line]}));
        {Port, {exit_status, Status}} ->
            loop(serve(State#{status := Status}));
        {line, From, Text} ->
            loop(serve(State#{waiting := Waiting ++ [{From, {line, Text}}]}));
        {await_exit, From} ->
            loop(serve(State#{waiting := Waiting ++ [{From, exit}]}));
        {tell, Line} ->
            _ = catch port_command(Port, [Line, $\n]),
            loop(State);
        {ask, From, output} ->
            From ! {self(), {output, printed(State)}},
            loop(State);
        {ask, From, What} ->
            From ! {self(), {What, maps:get(What, State)}},
            loop(State)
    end.

-spec printed(state()) -> binary().
printed(#{lines := Lines}) ->
    iolist_to_binary(lists:join($\n, lists:reverse(Lines))).

-spec serve(state()) -> state().
serve(#{waiting := []} = State) ->
    State;
serve(#{waiting := [{From, exit} | Rest], status := Status} = State) when Status =/= running ->
    From ! {self(), {exit, Status, printed(State)}},
    serve(State#{waiting := Rest});
serve(#{waiting := [{_From, exit} | _]} = State) ->
    State;
serve(#{waiting := [{From, {line, Text}} | Rest], unseen := Unseen, status := Status} = State) ->
    case lists:dropwhile(fun(Line) -> binary:match(Line, Text) =:= nomatch end, Unseen) of
        [Line | Later] ->
            From ! {self(), {line, Line}},
            serve(State#{waiting := Rest, unseen := Later});
        [] when Status =/= running ->
            From ! {self(), {no_line, printed(State)}},
            serve(State#{waiting := Rest, unseen := []});
        [] ->
            State#{unseen := []}
    end.

%% ---- the connection manager ------------------------------------------------------------------------------------

%% The address of a listener, as a manager is told it.
-spec server(megaphone_test_node:address()) -> string().
server({Ip, Port}) ->
    inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port).

%% Starts one on a free port and waits until its link to a node is up.
-spec ecm(string()) -> {program(), inet:port_number()}.
ecm(Server) ->
    ecm(Server, #{}).

-spec ecm(string(), options()) -> {program(), inet:port_number()}.
ecm(Server, Options) ->
    ecm_with(["--server", Server], 1, Options).

%% One with these arguments, when so many links are up.
-spec ecm_with([string()], pos_integer(), options()) -> {program(), inet:port_number()}.
ecm_with(Args, Links, Options) ->
    launch(["--listen", "127.0.0.1:0" | Args], "listening on ", [" up (" || _ <- lists:seq(1, Links)], Options).

%% The same in the place of one that has ended.
-spec ecm_at(string(), string(), options()) -> program().
ecm_at(Listen, Server, Options) ->
    {Program, _Port} = launch(["--listen", Listen, "--server", Server], "listening on ", [" up ("], Options),
    Program.

%% One with further arguments, when it takes clients, and its port.
-spec ecm_ready(string(), string(), [string()]) -> {program(), inet:port_number()}.
ecm_ready(Listen, Server, Args) ->
    launch(["--listen", Listen, "--server", Server | Args], "listening on ", ["takes clients"], #{}).

%% One that clients reach by TLS alone. The certificate, by which it may be trusted, is made in the directory.
-spec secure_ecm(string(), file:filename()) -> {program(), inet:port_number(), Certificate :: file:filename()}.
secure_ecm(Server, Dir) ->
    {Certificate, Key} = certificate(Dir),
    Tls = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", Certificate, "--tls-key", Key],
    {Program, Port} = launch(["--server", Server | Tls], "listening with TLS on ", [" up ("], #{}),
    {Program, Port, Certificate}.

%% A certificate for localhost and its key, two files in this directory.
-spec certificate(file:filename()) -> {Certificate :: file:filename(), Key :: file:filename()}.
certificate(Dir) ->
    [Certificate, Key] = [filename:join(Dir, Name) || Name <- ["ecm-certificate.pem", "ecm-key.pem"]],
    {0, _} = run(os:find_executable("openssl"), [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", Key, "-out", Certificate
    ], #{}),
    {Certificate, Key}.

%% Starts one, reads its port behind `Listening', and waits for these texts in its log, one after the other.
-spec launch([string()], string(), [string()], options()) -> {program(), inet:port_number()}.
launch(Args, Listening, Texts, Options) ->
    Program = start_bound(ecm_file(), Args, Options),
    {match, [Port]} = re:run(await_line(Program, Listening), "127\\.0\\.0\\.1:([0-9]+)", [{capture, all_but_first, binary}]),
    [_ = await_line(Program, Text) || Text <- Texts],
    {Program, binary_to_integer(Port)}.

%% It must not outlive the test, however that ends; it is a server and does not watch its input.
-spec start_bound(file:filename(), [string()], options()) -> program().
start_bound(File, Args, Options) ->
    case os:find_executable("setpriv") of
        false -> start(File, Args, Options);
        Setpriv -> start(Setpriv, ["--pdeathsig", "KILL", "--", File | Args], Options)
    end.

-spec ecm_file() -> file:filename().
ecm_file() ->
    Targets = [Dir || Dir <- [os:getenv("CARGO_TARGET_DIR")], is_list(Dir)] ++ [filename:join(root(), "target")],
    Files = [filename:absname(filename:join([Dir, "release", "megaphone-ecm"]), root()) || Dir <- Targets],
    case lists:filter(fun filelib:is_regular/1, Files) of
        [File | _] -> File;
        [] -> error({"the connection manager is not built: run `make build' (or cargo build --release -p megaphone-ecm)", Files})
    end.

%% ---- clients ---------------------------------------------------------------------------------------------------

%% One of test/clients.
-spec client(string(), [string()]) -> program().
client(Name, Args) ->
    client(Name, Args, #{}).

-spec client(string(), [string()], options()) -> program().
client(Name, Args, Options) ->
    Dir = filename:join([root(), "test", "clients"]),
    filelib:is_dir(filename:join(Dir, "node_modules")) orelse error("the packages of the test clients are missing: run `make setup'"),
    case os:find_executable("node") of
        false -> error("node was not found: run `make setup'");
        Node -> start(Node, [filename:join(Dir, Name) | Args], Options)
    end.

%% The string in a member of an object, of one line of JSON.
-spec text(string(), binary()) -> binary().
text(Name, Json) ->
    {match, [Value]} = re:run(Json, ["\"", Name, "\":\"([^\"]*)\""], [{capture, all_but_first, binary}]),
    Value.

%% The root of the checkout. The build directory holds links to its parts; where the application is installed apart from it
%% (`make test-matrix') the suites are below one.
-spec root() -> file:filename().
root() ->
    [Ebin, Here] = [filename:dirname(filename:absname(code:which(Module))) || Module <- [megaphone, ?MODULE]],
    Linked = [
        filename:absname(Target, filename:dirname(Link))
     || Link <- [filename:join(filename:dirname(Ebin), "erlang_src")], {ok, Target} <- [file:read_link(Link)]
    ],
    case [Root || Root <- lists:append([above(Dir) || Dir <- [Ebin, Here | Linked]]), is_root(Root)] of
        [Root | _] -> Root;
        [] -> error({no_checkout_above, [Ebin, Here | Linked]})
    end.

-spec above(file:filename()) -> [file:filename()].
above(Dir) ->
    case filename:dirname(Dir) of
        Dir -> [Dir];
        Parent -> [Dir | above(Parent)]
    end.

-spec is_root(file:filename()) -> boolean().
is_root(Dir) ->
    lists:all(fun(Name) -> filelib:is_regular(filename:join(Dir, Name)) end, ["Cargo.toml", "rebar.config"]).
