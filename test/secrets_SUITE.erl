%% What users write, how they prove who they are, and what opens their sessions shows nowhere: a whole run, with logins that
%% succeed and fail, chats, malformed input, lost links and processes that crash, leaves nothing of it in logs, crash reports,
%% metrics, or what processes tell of themselves. Megaphone logs as much as it can; ejabberd itself logs what it does by
%% default, since its own debug log has what users write.
-module(secrets_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, handlers/0, listener/3]).
-import(megaphone_test_secrets, [secret/2, authenticate/3, login/3, chat/2, close/1]).

suite() -> [{timetrap, {seconds, 120}}].

%% The last case looks at what the others have left.
all() ->
    [chats, wrong_passwords, malformed_input, crashes, lost_links, nothing_shows].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "node"),
    Secrets = megaphone_test_secrets:table(),
    Secret = secret(link_secret, Secrets),
    ok = megaphone_test_node:write_config(Dir, [
        listener(megaphone, 1, [handlers(), ["secret: \"", Secret, "\""]]),
        listener(megaphone, 2, [handlers(), "bosh: mod_bosh", "websocket: ejabberd_http_ws"])
    ]),
    Node = megaphone_test_node:start_in(Dir),
    Password = secret(password, Secrets),
    ok = megaphone_test_node:register_user(Node, megaphone_test_secrets:user(), Password),
    Log = filename:join(Dir, "all.log"),
    ok = call(Node, ?MODULE, log_everything, [Log]),
    SecretFile = filename:join(Dir, "secret"),
    ok = file:write_file(SecretFile, Secret),
    ok = file:change_mode(SecretFile, 8#600),
    Managers = [
        {Name, manager(Node, N, Format, SecretFile)}
     || {Name, N, Format} <- [{native, 1, "text"}, {carried, 2, "json"}]
    ],
    [{node, Node}, {secrets, Secrets}, {password, Password}, {log, Log}, {managers, Managers} | Config].

end_per_suite(Config) ->
    _ = [megaphone_test_program:stop(Ecm) || {_, #{ecm := Ecm}} <- get(managers, Config)],
    megaphone_test_node:stop(get(node, Config)).

get(Key, Config) -> proplists:get_value(Key, Config).

%% One that logs all it can, and tells of itself.
manager(Node, N, Format, SecretFile) ->
    {Ip, Port} = address(Node, {megaphone, N}),
    {Ecm, Clients} = megaphone_test_program:ecm_with(
        ["--server", inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port), "--log", "debug", "--log-format", Format] ++
            ["--admin", "127.0.0.1:0"] ++ lists:append([["--link-secret-file", SecretFile] || N =:= 1]),
        1,
        #{}
    ),
    #{ecm => Ecm, port => Clients}.

%% In the node: all that is logged, by Megaphone at its most verbose level, goes to a file as well, uncut.
log_everything(File) ->
    {ok, Modules} = application:get_key(megaphone, modules),
    ok = logger:set_module_level(Modules, all),
    logger:add_handler(?MODULE, logger_std_h, #{config => #{file => File}, level => all, formatter => {logger_formatter, #{}}}).

%% All ways there are: by which manager, how, and its port.
ways(Config) ->
    [
        {Manager, Kind, maps:get(port, Where)}
     || {Manager, Where} <- get(managers, Config), Kind <- [bosh, websocket]
    ].

%% A client, before its login.
connect({_Manager, Kind, Port}, Config) ->
    megaphone_test_secrets:connect(Kind, Port, get(secrets, Config)).

%% ---- cases -----------------------------------------------------------------------------------------------------

chats(Config) ->
    %% By BOSH and WebSocket, native and ejabberd's own, with PLAIN and SCRAM: login, stream management, messages, the end.
    [
        begin
            Client = login(connect(Way, Config), Mechanism, get(password, Config)),
            ok = chat(Client, secret(payload, get(secrets, Config))),
            ok = close(Client)
        end
     || Way <- ways(Config), Mechanism <- [plain, scram]
    ],
    ok.

wrong_passwords(Config) ->
    %% Logins with a wrong password fail.
    [
        begin
            Client = connect(Way, Config),
            Said = authenticate(Client, Mechanism, secret(wrong_password, get(secrets, Config))),
            ?assertMatch({match, _}, re:run(Said, "<failure")),
            ok = close(Client)
        end
     || Way <- ways(Config), Mechanism <- [plain, scram]
    ],
    ok.

malformed_input(Config) ->
    %% What is refused: heads, chunks, bodies, frames, XML, and things that are not Megaphone at a listener for links.
    Secret = fun() -> secret(malformed, get(secrets, Config)) end,
    Post = fun(Fields, Body) -> ["POST /bosh HTTP/1.1\r\nHost: localhost\r\n", Fields, "\r\n", Body] end,
    Requests = [
        ["GET /", Secret(), " x HTTP/1.1\r\n\r\n"], ["GET / HTTP/1.1\r\nHost: ", Secret(), " b\r\n\r\n"],
        ["GET / HTTP/1.1\r\nHost: a\r\n", Secret(), " : x\r\n\r\n"], [Secret(), "\r\n\r\n"], [0, 1, 2, Secret()],
        Post("Transfer-Encoding: chunked\r\n", ["5;", Secret(), "\r\nxxxxxxxx"]),
        Post(["Content-Length: ", Secret(), "\r\n"], ""), Post(["Expect: ", Secret(), "\r\nContent-Length: 1\r\n"], "x"),
        Post("Content-Length: 99999999999\r\n", Secret()), Post(["Transfer-Encoding: ", Secret(), "\r\n"], ""),
        ["GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ", Secret(), "\r\n\r\n"],
        ["PUT /upload/", Secret(), " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 8\r\n\r\nabcdefgh"],
        last_post(["<body ", Secret()]), last_post(["<body rid='1' sid='", Secret(), "' xmlns='http://jabber.org/protocol/httpbind'/>"])
    ],
    [refused({{127, 0, 0, 1}, Port}, Request) || {_, #{port := Port}} <- get(managers, Config), Request <- Requests],
    [
        begin
            Client = #{socket := Socket} = connect({Manager, websocket, Port}, Config),
            ok = gen_tcp:send(Socket, Bytes),
            ok = await_close(Socket),
            close(Client)
        end
     || {Manager, websocket, Port} <- ways(Config),
        Bytes <- [frame(1, ["<message><body>", Secret(), "</message>"]), frame(1, [Secret(), 255]), frame(2, Secret()), [255, 255, Secret()]]
    ],
    [refused(address(get(node, Config), {megaphone, N}), [Secret(), "\r\n\r\n"]) || N <- [1, 2]],
    ok.

last_post(Body) ->
    [
        "POST /bosh HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ", integer_to_list(iolist_size(Body)), "\r\n\r\n",
        Body
    ].

frame(Opcode, Data) ->
    <<1:1, 0:3, Opcode:4, 1:1, (iolist_size(Data)):7, 0:32, (iolist_to_binary(Data))/binary>>.

refused({Ip, Port}, Request) ->
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, Request),
    try
        ok = await_close(Socket)
    catch
        error:{case_clause, {error, timeout}} -> error({not_refused, Request})
    end,
    ok = gen_tcp:close(Socket).

await_close(Socket) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, _} -> await_close(Socket);
        {error, Gone} when Gone =:= closed; Gone =:= econnreset -> ok
    end.

crashes(Config) ->
    %% Processes that hold something of users crash, and their reports are there: a client session, a request that is handed to
    %% mod_bosh, one that a handler reads, a link's two processes.
    Node = get(node, Config),
    Table = get(secrets, Config),
    %% What a client session crashes with is what ejabberd shows then: that the log has it tells that reports are in it.
    [
        begin
            #{jid := Jid} = Client = login(connect(Way, Config), plain, get(password, Config)),
            ok = call(Node, ?MODULE, break_session, [Jid]),
            ?assertError(_, chat(Client, <<"shown-by-ejabberd">>)),
            ok = close(Client)
        end
     %% A session of mod_bosh does not notice that.
     || {Manager, Kind, _Port} = Way <- ways(Config), {Manager, Kind} =/= {carried, bosh}
    ],
    ok = shown("shown-by-ejabberd", Config),
    #{port := Carried} = proplists:get_value(carried, get(managers, Config)),
    ok = call(Node, ?MODULE, break_mod_bosh, []),
    ok = refused({{127, 0, 0, 1}, Carried}, last_post(["<body rid='1' xmlns='http://jabber.org/protocol/httpbind'>", secret(poll, Table), "</body>"])),
    ok = call(Node, ?MODULE, mend_mod_bosh, []),
    ok = shown("mod_bosh failed to answer a request", Config),
    handler(Carried, Node, Table),
    ok = shown("crash_of_a_test", Config),
    [ok = broken_link(Process, Config) || Process <- [receiver, sender]],
    ok = shown("internal error", Config).

%% A handler has taken a part of what it asked for when it fails.
handler(Port, Node, Table) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Head = "PUT /test/hold/secrets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n",
    ok = gen_tcp:send(Socket, [Head, binary:copy(secret(kept, Table), 5000)]),
    {error, timeout} = megaphone_test_node:do(Node, <<"secrets">>, fun(Http, _) -> wait_for_some(Http) end),
    {Pid, _} = megaphone_test_node:held(Node, <<"secrets">>),
    _ = call(Node, erlang, send, [Pid, {do, Pid, fun(_, _) -> error(crash_of_a_test) end}]),
    ok = await_close(Socket),
    ok = gen_tcp:close(Socket).

%% In the node: reads when something has come, and asks for more than there will be.
wait_for_some(Http) ->
    {ok, Some} = gen_tcp:recv(Http, 1, ?DEADLINE),
    1 = byte_size(Some),
    gen_tcp:recv(Http, 170000, 500).

%% In the node: the state of a client session becomes something that its next message finds no function for.
break_session(Jid) ->
    {jid, _, _, _, User, Server, Resource} = jid:decode(Jid),
    broken = sys:replace_state(ejabberd_sm:get_session_pid(User, Server, Resource), fun(_) -> broken end),
    ok.

%% In the node: a module in whose place each call fails, with all that it was given in the reason.
break_mod_bosh() ->
    {ok, Tokens, _} = erl_scan:string("process(Path, Request) -> erlang:error({failed, Request}, [Path, Request])."),
    {ok, Process} = erl_parse:parse_form(Tokens),
    {ok, mod_bosh, Code} = compile:forms([{attribute, 1, module, mod_bosh}, {attribute, 1, export, [{process, 2}]}, Process]),
    {module, mod_bosh} = code:load_binary(mod_bosh, "for a test", Code),
    ok.

mend_mod_bosh() ->
    _ = code:purge(mod_bosh),
    {module, mod_bosh} = code:load_file(mod_bosh),
    ok.

%% The reference of a link is replaced in the state of one of its processes, while a client writes; then there is a new link.
broken_link(Process, Config) ->
    Node = get(node, Config),
    #{port := Port} = proplists:get_value(native, get(managers, Config)),
    Client = login(connect({native, websocket, Port}, Config), plain, get(password, Config)),
    Broken = receivers(Config),
    [_ = call(Node, ?MODULE, break_link, [Process, Receiver]) || Receiver <- Broken],
    ?assertError(_, chat(Client, secret(payload, get(secrets, Config)))),
    ok = close(Client),
    %% Nobody writes on the other link: it would not notice.
    [true = exit_in(Node, Receiver) || Receiver <- Broken],
    linked_anew(Broken, Config).

receivers(Config) ->
    [Receiver || #{receiver := Receiver} <- call(get(node, Config), megaphone, links, [])].

%% In the node.

break_link(receiver, Receiver) ->
    sys:replace_state(Receiver, fun(State) -> setelement(7, State, make_ref()) end);
break_link(sender, Receiver) ->
    Sender = element(11, sys:get_state(Receiver)),
    sys:replace_state(Sender, fun(State) -> setelement(2, State, make_ref()) end).

linked_anew(Gone, Config) ->
    wait_until(fun() ->
        New = receivers(Config),
        length(New) =:= length(get(managers, Config)) andalso New -- Gone =:= New
    end),
    wait_until(fun() -> [] =:= [Name || {Name, Manager} <- get(managers, Config), not is_healthy(Manager)] end).

is_healthy(Manager) ->
    case admin(Manager, "/health") of
        <<"HTTP/1.1 200", _/binary>> -> true;
        _ -> false
    end.

lost_links(Config) ->
    %% Links are killed under clients who wait for answers, and client sessions under their clients.
    Node = get(node, Config),
    Clients = [login(connect(Way, Config), plain, get(password, Config)) || Way <- ways(Config)],
    [
        begin
            {jid, _, _, _, User, Server, Resource} = call(Node, jid, decode, [Jid]),
            true = exit_in(Node, call(Node, ejabberd_sm, get_session_pid, [User, Server, Resource]))
        end
     || #{jid := Jid} <- Clients
    ],
    More = [login(connect(Way, Config), plain, get(password, Config)) || Way <- ways(Config)],
    Receivers = receivers(Config),
    [true = exit_in(Node, Receiver) || Receiver <- Receivers],
    [_ = catch chat(Client, secret(payload, get(secrets, Config))) || Client <- More],
    [ok = close(Client) || Client <- Clients ++ More],
    linked_anew(Receivers, Config).

exit_in(Node, Pid) ->
    call(Node, erlang, exit, [Pid, kill]).

%% ---- what shows ------------------------------------------------------------------------------------------------

nothing_shows(Config) ->
    %% None of what the other cases have written is in anything that was put out, whichever way it is printed.
    Node = get(node, Config),
    Client = login(connect(hd(ways(Config)), Config), plain, get(password, Config)),
    ok = call(Node, logger, error, ["what-has-to-be-found"]),
    Outputs = outputs(Config),
    ok = close(Client),
    [?assertNotEqual({Name, nomatch}, {Name, binary:match(iolist_to_binary(Text), Found)}) || {Name, Found, Text} <- controls(Outputs)],
    Secrets = ets:tab2list(get(secrets, Config)),
    [?assert(lists:keymember(Name, 2, Secrets)) || Name <- [sid, resumption, payload, password, sasl, cookie, link_secret, kept, poll]],
    Patterns = lists:append([[{Name, Text}, {Name, numbers(Text)}] || {Text, Name} <- Secrets]),
    Shown = [
        {Name, Where, around(Text, Output)}
     || {Where, Output} <- Outputs, {Name, Text} <- Patterns, binary:match(Output, Text) =/= nomatch
    ],
    ?assertEqual([], Shown).

%% Outputs are what they should be, and something in them would be found.
controls(Outputs) ->
    Of = fun(Where) -> [Output || {Name, Output} <- Outputs, Name =:= Where] end,
    [
        {log, <<"what-has-to-be-found">>, Of(log)}, {crash, <<"crash_of_a_test">>, Of(log)}, {link, <<"megaphone: link">>, Of(log)},
        {text, <<"DEBUG">>, Of(native)}, {json, <<"{\"">>, Of(carried)}, {refused, <<"refused 127.0.0.1">>, Of(native)},
        {metrics, <<"megaphone_refused_total">>, Of(metrics)}, {status, <<"megaphone_receiver">>, Of(status)}
    ].

outputs(Config) ->
    Node = get(node, Config),
    Managers = get(managers, Config),
    {ok, Log} = logged(Config),
    Statuses = call(Node, ?MODULE, statuses, []),
    [{log, Log}, {ejabberds_log, megaphone_test_node:log(Node)}, {status, iolist_to_binary([io_lib:format("~p ~0tp", [Term, Term]) || Term <- Statuses])}] ++
        [{Name, megaphone_test_program:output(Ecm)} || {Name, #{ecm := Ecm}} <- Managers] ++
        [{metrics, admin(Manager, "/metrics")} || {_, Manager} <- Managers] ++
        [{health, admin(Manager, "/health")} || {_, Manager} <- Managers].

logged(Config) ->
    ok = call(get(node, Config), logger_std_h, filesync, [?MODULE]),
    file:read_file(get(log, Config)).

shown(Text, Config) ->
    wait_until(fun() ->
        {ok, Log} = logged(Config),
        binary:match(Log, list_to_binary(Text)) =/= nomatch
    end).

%% In the node: all that Megaphone's processes and functions tell of themselves.
statuses() ->
    Links = megaphone:links(),
    Receivers = [Receiver || #{receiver := Receiver} <- Links],
    Children = [Pid || {_, Pid, _, _} <- supervisor:which_children(megaphone_root_sup), is_pid(Pid), erlang:process_info(Pid, initial_call) =/= undefined],
    [
        Links, megaphone:info(), megaphone_sweeper:info(), megaphone_nif:bosh_info(), megaphone_nif:counters(),
        [sys:get_status(Pid) || Pid <- Receivers ++ [element(11, sys:get_state(Receiver)) || Receiver <- Receivers] ++ Children]
    ].

admin(#{ecm := Ecm}, Path) ->
    {match, [Port]} = re:run(megaphone_test_program:output(Ecm), "admin address: http://127.0.0.1:([0-9]+)", [{capture, all_but_first, list}]),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, list_to_integer(Port), [binary, {active, false}]),
    ok = gen_tcp:send(Socket, ["GET ", Path, " HTTP/1.1\r\nHost: a\r\n\r\n"]),
    all_of(Socket, <<>>).

all_of(Socket, Got) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, More} -> all_of(Socket, <<Got/binary, More/binary>>);
        {error, closed} -> Got
    end.

%% A text as Erlang prints it where it takes it for numbers.
numbers(Text) ->
    iolist_to_binary(lists:join($,, [integer_to_list(Byte) || <<Byte>> <= Text])).

around(Text, Output) ->
    {At, Length} = binary:match(Output, Text),
    From = max(0, At - 500),
    binary:part(Output, From, min(byte_size(Output), At + Length + 100) - From).
