%% The real connection manager in front of a node of megaphone_test_node, and curl as its client.
-module(megaphone_test_ecm).

-include("megaphone_test.hrl").

-export([start/1, address/1, stop/1, kill/1, log/1, binary/0]).
-export([boot/2, only_links/1, try_boot/2, ended/1, slot/2, request_slot/1]).
-export([curl/3, both/4, connect/1, connect/2, request/3, ask/4, answer/1, head/1, login/1, found/2]).
-export_type([ecm/0, answer/0]).

-type ecm() :: #{keeper := pid(), pid := string(), address := address()}.
-type address() :: {inet:ip_address(), inet:port_number()}.
-type answer() :: #{status := string(), head := [string()], body := binary(), connects := string()}.

%% Seconds.
-define(CURL_TIMEOUT, "60").

%% Lives as long as its standard input: the shell that started it ends it then, however its owner died.
%% Its first line is the process id: nothing that the manager says comes before.
-define(SHELL, "sh -c 'echo \"pid $$\"; exec \"$@\"' sh \"$@\" & pid=$!; cat >/dev/null; kill -9 \"$pid\"; wait").

%% ---- connection managers ---------------------------------------------------------------------------------------

%% Starts one at a free port of 127.0.0.1, and waits until it is linked to the listener at `Server'. When that fails none is left.
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
    Started = #{keeper => Keeper, pid => binary_to_list(Pid)},
    try
        Started#{address => ready(Keeper)}
    catch
        %% Nobody else knows of it and could stop it: it would be in the way of all that comes later.
        Class:Reason:Stack ->
            ok = stop(Started),
            erlang:raise(Class, Reason, Stack)
    end.

%% When its link is up: where clients find it.
-spec ready(pid()) -> address().
ready(Keeper) ->
    {ecm_log, Keeper, <<"listening on 127.0.0.1:", Own/binary>>} = expect(Keeper, "^listening on "),
    _ = expect(Keeper, "link to .* up"),
    Keeper ! {tell, undefined},
    {{127, 0, 0, 1}, binary_to_integer(Own)}.

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

-spec stop(#{keeper := pid(), pid := string(), _ => _}) -> ok.
stop(#{keeper := Keeper} = Ecm) ->
    Keeper ! stop,
    await_end(Ecm).

-spec await_end(#{pid := string(), _ => _}) -> ok.
await_end(#{pid := Pid}) ->
    megaphone_test:wait_until(fun() -> os:cmd("kill -0 " ++ Pid ++ " 2>/dev/null && echo alive") =:= "" end).

%% The connection manager that `make build' has built: where cargo puts things, which CARGO_TARGET_DIR moves. The
%% root of the project is the first directory above this module that has a Cargo.toml.
-spec binary() -> file:filename().
binary() ->
    Moved = [filename:absname(Dir) || Dir <- [os:getenv("CARGO_TARGET_DIR")], is_list(Dir)],
    IsRoot = fun(Dir) -> filelib:is_regular(filename:join(Dir, "Cargo.toml")) end,
    Roots = [filename:join(Root, "target") || Root <- parents(filename:dirname(filename:absname(code:which(?MODULE)))), IsRoot(Root)],
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
        env => environment(Dir),
        wait_boot => 60000
    }),
    Listening = peer:call(Peer, megaphone_test_node, boot, [Dir], 60000),
    #{peer => Peer, dir => Dir, listeners => Listening}.

%% Nothing that belongs to clients is left in the node's table.
-spec only_links(megaphone_test_node:node_info()) -> boolean().
only_links(Node) ->
    Left = megaphone_test:leftovers(megaphone_test_node:stats(Node)),
    [] =:= [Counter || {Counter, _} <- Left, not lists:member(Counter, [links, watched])].

%% Starts ejabberd with a configuration that may be wrong. To be waited for by ended/1.
-spec try_boot(file:filename(), Listeners :: iodata()) -> {port(), file:filename()}.
try_boot(Dir, Listeners) ->
    File = filename:join(Dir, "ejabberd.yml"),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, ["hosts:\n  - localhost\nloglevel: info\ncertfiles: []\nlisten:\n", Listeners, "modules:\n  mod_bosh: {}\n"]),
    Arguments = ["-noinput" | megaphone_test_node:arguments()] ++ ["-run", "megaphone_test_node", "halted", Dir],
    Port = open_port({spawn_executable, os:find_executable("erl")}, [
        {args, Arguments}, {env, environment(Dir)}, exit_status, binary, stderr_to_stdout
    ]),
    {Port, Dir}.

%% Its exit status (42: ejabberd was up) and what it logged.
-spec ended({port(), file:filename()}) -> {non_neg_integer(), Log :: binary()}.
ended({Port, Dir}) ->
    receive
        {Port, {exit_status, Status}} -> {Status, megaphone_test_node:log(#{peer => self(), dir => Dir, listeners => []})};
        {Port, {data, _}} -> ended({Port, Dir})
    end.

-spec environment(file:filename()) -> [{string(), string()}].
environment(Dir) ->
    [{"ERL_LIBS", megaphone_test_node:ejabberd_libs()}, {"ERL_CRASH_DUMP", filename:join(Dir, "erl_crash.dump")}].

%% A slot of mod_http_upload for so many bytes: the URL. Asked for as a client does, by an IQ.
-spec slot(megaphone_test_node:node_info(), non_neg_integer()) -> string().
slot(Node, Size) ->
    megaphone_test_node:call(Node, ?MODULE, request_slot, [integer_to_binary(Size)]).

%% In the node.
-spec request_slot(binary()) -> string().
request_slot(Size) ->
    Request = element(<<"request">>, [
        {<<"xmlns">>, <<"urn:xmpp:http:upload:0">>}, {<<"filename">>, <<"upload.bin">>}, {<<"size">>, Size},
        {<<"content-type">>, <<"application/octet-stream">>}
    ], []),
    Iq = element(<<"iq">>, [
        {<<"xmlns">>, <<"jabber:client">>}, {<<"type">>, <<"get">>}, {<<"id">>, <<"slot">>},
        {<<"from">>, <<"somebody@localhost/client">>}, {<<"to">>, <<"upload.localhost">>}
    ], [Request]),
    ok = ejabberd_router:route_iq(xmpp:decode(Iq), slot, self()),
    {iq_reply, Reply, slot} = ?assertReceive({iq_reply, _, slot}),
    binary_to_list(fxml:get_path_s(xmpp:encode(Reply), [{elem, <<"slot">>}, {elem, <<"put">>}, {attr, <<"url">>}])).

%% As in fxml.hrl, which is not included so that the tests compile without ejabberd.
-spec element(binary(), [{binary(), binary()}], [tuple()]) -> tuple().
element(Name, Attributes, Children) ->
    {xmlel, Name, Attributes, Children}.

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
    To = "::" ++ inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port),
    Tell = ["-D", Heads, "-w", "%{num_connects}\\n"],
    Fixed = ["-q", "-sS", "--noproxy", "*", "--max-time", ?CURL_TIMEOUT, "--connect-to", To | Tell],
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
    Head = [Field || Field <- Fields, not lists:prefix("date:", string:lowercase(Field))],
    #{status => Status, head => Head, body => Body, connects => Connects}.

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
    Others = stock(Dir, Other, Arguments, 3),
    Shown = [brief(Answer) || Answer <- Answers],
    Expected = [brief(Answer) || Answer <- Others],
    Shown =:= Expected orelse error({answers_differ, Arguments, Shown, Expected}),
    Answers.

%% ejabberd's own listener lets a request be served before the process that serves it owns the socket. A file cannot be
%% sent then: its head comes, and the end (curl: 18).
-spec stock(file:filename(), address(), [string()], pos_integer()) -> [answer()].
stock(Dir, Address, Arguments, Left) ->
    try
        curl(Dir, Address, Arguments)
    catch
        error:{"curl", 18, _Output, _Arguments} when Left > 1 -> stock(Dir, Address, Arguments, Left - 1)
    end.

-spec brief(answer()) -> #{atom() => term()}.
brief(#{body := Body} = Answer) when byte_size(Body) < 1000 -> maps:remove(connects, Answer);
brief(#{body := Body} = Answer) -> brief(Answer#{body := crypto:hash(sha256, Body)}).

%% ---- single requests -------------------------------------------------------------------------------------------

-spec connect(address()) -> inet:socket().
connect(Address) ->
    connect(Address, {127, 0, 0, 1}).

%% `From' is the client's own address.
-spec connect(address(), inet:ip_address()) -> inet:socket().
connect({Ip, Port}, From) ->
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}, {ip, From}], ?DEADLINE),
    Socket.

-spec request(string(), iodata(), binary()) -> iodata().
request(Method, Path, Body) ->
    Length = ["Content-Length: " ++ integer_to_list(byte_size(Body)) ++ "\r\n" || Method =/= "GET"],
    [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n", Length, "\r\n", Body].

-spec ask(inet:socket(), string(), iodata(), binary()) -> ok.
ask(Socket, Method, Path, Body) ->
    ok = gen_tcp:send(Socket, request(Method, Path, Body)).

%% Reads the next answer, which must be of HTTP/1.1 and have a body of a known length.
-spec answer(inet:socket()) -> {Status :: pos_integer(), Body :: binary()}.
answer(Socket) ->
    {Status, Length} = head(Socket),
    {Status, take(Socket, Length)}.

%% Reads the head of the next answer: the status, and what Content-Length says.
-spec head(inet:socket()) -> {Status :: pos_integer(), Length :: non_neg_integer()}.
head(Socket) ->
    ok = inet:setopts(Socket, [{packet, http_bin}]),
    {ok, {http_response, {1, 1}, Status, _}} = gen_tcp:recv(Socket, 0, ?DEADLINE),
    Length = content_length(Socket, 0),
    ok = inet:setopts(Socket, [{packet, raw}]),
    {Status, Length}.

-spec content_length(inet:socket(), non_neg_integer()) -> non_neg_integer().
content_length(Socket, Length) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, {http_header, _, 'Content-Length', _, Value}} -> content_length(Socket, binary_to_integer(Value));
        {ok, {http_header, _, _, _, _}} -> content_length(Socket, Length);
        {ok, http_eoh} -> Length
    end.

-spec take(inet:socket(), non_neg_integer()) -> binary().
take(_Socket, 0) ->
    <<>>;
take(Socket, Length) ->
    {ok, Bytes} = gen_tcp:recv(Socket, Length, ?DEADLINE),
    Bytes.

%% ---- chat ------------------------------------------------------------------------------------------------------

%% A guest's session over BOSH: the user's name (the resource is `client'), and how to send the next request of the
%% session: attributes and contents of its body; it gives the body of the answer.
-spec login(inet:socket()) -> {User :: binary(), fun((iodata(), iodata()) -> binary())}.
login(Socket) ->
    Xmpp = " xmlns:xmpp='urn:xmpp:xbosh'",
    First = ["rid='1' to='localhost' wait='1' hold='1' ver='1.6' xmpp:version='1.0'", Xmpp],
    Sid = found("sid='([^']*)'", bosh(Socket, First, "")),
    Next = fun(Rid, More, Content) ->
        bosh(Socket, ["rid='", integer_to_list(Rid), "' sid='", Sid, "' ", More], Content)
    end,
    _ = found("(<success)", Next(2, "", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")),
    _ = found("(bind)", Next(3, "xmpp:restart='true'" ++ Xmpp, "")),
    Bind =
        "<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
        "<resource>client</resource></bind></iq>",
    User = found("<jid>([^@]*)@localhost/client</jid>", Next(4, "", Bind)),
    Rids = counters:new(1, []),
    ok = counters:put(Rids, 1, 4),
    {User, fun(More, Content) ->
        ok = counters:add(Rids, 1, 1),
        Next(counters:get(Rids, 1), More, Content)
    end}.

-spec bosh(inet:socket(), iodata(), iodata()) -> binary().
bosh(Socket, Attributes, Content) ->
    Request = ["<body xmlns='http://jabber.org/protocol/httpbind' ", Attributes, ">", Content, "</body>"],
    ok = ask(Socket, "POST", "/bosh", iolist_to_binary(Request)),
    {200, Body} = answer(Socket),
    Body.

%% What the pattern's first group finds in the text.
-spec found(string(), binary()) -> binary().
found(Pattern, Text) ->
    case re:run(Text, Pattern, [{capture, all_but_first, binary}]) of
        {match, [Found]} -> Found;
        nomatch -> error({Pattern, not_in, Text})
    end.
