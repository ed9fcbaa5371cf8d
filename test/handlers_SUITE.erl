%% ejabberd's own request handlers behind the real connection manager, compared with the same handlers behind
%% ejabberd's own HTTP listener: files, uploads, commands and chat sessions.
-module(handlers_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_ecm, [connect/1, connect/2, request/3, ask/4, answer/1, head/1, found/2]).
-import(megaphone_test_node, [address/2, call/4]).

-define(FILE_SIZE, (20 * 1024 * 1024)).
-define(UPLOAD_SIZE, (30 * 1024 * 1024)).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        file_download,
        upload,
        upload_without_a_slot,
        aborted_transfers,
        http_api,
        the_clients_address_decides,
        other_requests,
        bosh_requests,
        hooks_see_bosh_requests,
        handler_that_dies,
        keep_alive, answers_without_a_body, chunked_requests, expected_requests, pipelining,
        session_shows_the_clients_address,
        two_ecms,
        wrong_options_stop_the_start
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "node"),
    Files = filename:join(Dir, "files"),
    ok = filelib:ensure_dir(filename:join(Files, "any")),
    ok = file:write_file(filename:join(Files, "large.bin"), megaphone_test_handler:bytes(?FILE_SIZE)),
    ok = file:write_file(filename:join(Files, "page.html"), "<p>a page</p>\n"),
    ok = file:write_file(filename:join(Files, "empty.txt"), ""),
    Node = megaphone_test_ecm:boot(Dir, configuration(Dir)),
    _ = [ok = megaphone_test_node:register_user(Node, User, <<"secret">>) || User <- [<<"admin">>, <<"somebody">>]],
    [{node, Node}, {stock, address(Node, ejabberd_http)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop(get(node, Config)).

init_per_testcase(Case, Config) ->
    Own = filename:join(get(priv_dir, Config), atom_to_list(Case)),
    ok = filelib:ensure_dir(filename:join(Own, "any")),
    Ecm = megaphone_test_ecm:start(address(get(node, Config), megaphone)),
    [{ecm, Ecm}, {front, megaphone_test_ecm:address(Ecm)}, {own, Own} | Config].

%% No case leaves anything behind in the table: nothing of connections while the link is there, and nothing at all
%% when it is gone.
end_per_testcase(_Case, Config) ->
    Node = get(node, Config),
    Connections = megaphone_test:finish_case(Config, fun() -> wait_until(fun() -> megaphone_test_ecm:only_links(Node) end) end),
    ok = megaphone_test_ecm:stop(get(ecm, Config)),
    Rest = megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_quiet(Node) end),
    case Connections of
        ok -> Rest;
        _ -> {fail, {left_in_the_table, Connections}}
    end.

get(Key, Config) -> proplists:get_value(Key, Config).

%% Both listeners have the same handlers. /api is open to an address for one command, and to an account for all.
configuration(Dir) ->
    Handlers = [
        "    request_handlers:\n      /files: mod_http_fileserver\n      /upload: mod_http_upload\n      /api: mod_http_api\n",
        "      /bosh: mod_bosh\n      /test: megaphone_test_handler\n    custom_headers:\n      X-Listener: \"one of two\"\n"
    ],
    [
        "hosts:\n  - localhost\nloglevel: info\ncertfiles: []\nauth_method: [internal, anonymous]\n",
        "anonymous_protocol: sasl_anon\nallow_multiple_connections: true\n",
        "acl:\n  local:\n    user_regexp: \"\"\n  admin:\n    user: admin@localhost\n",
        %% Newer versions let an account give commands for a host only if it may configure that host.
        "access_rules:\n  local:\n    allow: local\n  configure:\n    allow: admin\n",
        "listen:\n  -\n    port: 0\n    ip: \"127.0.0.1\"\n    module: megaphone\n    bosh: mod_bosh\n", Handlers,
        "  -\n    port: 0\n    ip: \"127.0.0.2\"\n    module: ejabberd_http\n", Handlers,
        "api_permissions:\n",
        "  \"by address\":\n    who:\n      ip: 127.0.0.5\n    what: registered_users\n",
        "  \"by account\":\n    who:\n      user: admin@localhost\n    what: \"*\"\n",
        "modules:\n  mod_bosh: {}\n  mod_http_api: {}\n",
        "  mod_http_fileserver:\n    docroot: \"", filename:join(Dir, "files"), "\"\n",
        "    custom_headers:\n      X-Handler: files\n",
        "  mod_http_upload:\n    docroot: \"", filename:join(Dir, "uploads"), "\"\n    put_url: \"http://localhost/upload\"\n"
    ].

%% ---- files -----------------------------------------------------------------------------------------------------

file_download(Config) ->
    %% A file of 20 MB, and every other answer of the file server, is the same through the connection manager.
    [#{status := Found, head := Head, body := Body}] = both(Config, [url("/files/large.bin")]),
    ?assertEqual("HTTP/1.1 200 OK", Found),
    ?assert(Body =:= megaphone_test_handler:bytes(?FILE_SIZE)),
    ?assert(lists:member("X-Handler: files", Head)),
    Modified = last_modified(Config, Head),
    Same = [
        {200, [url("/files/page.html")]}, {200, [url("/files/empty.txt")]}, {200, ["--head", url("/files/large.bin")]},
        {304, ["-H", "If-Modified-Since: " ++ Modified, url("/files/large.bin")]},
        {404, [url("/files/no_such")]}, {404, ["--head", url("/files/no_such")]}, {404, [url("/nobody")]}
    ],
    check_same(Config, Same).

upload(Config) ->
    %% A file of 30 MB goes up into a slot that the service gave by XMPP, and is the same when it comes back.
    Bytes = megaphone_test_handler:bytes(?UPLOAD_SIZE),
    File = filename:join(get(own, Config), "upload.bin"),
    ok = file:write_file(File, Bytes),
    [Through, Direct] = [slot(Config, ?UPLOAD_SIZE) || _ <- [1, 2]],
    [Put] = curl(Config, front, ["-T", File, Through]),
    ?assertEqual(201, status(Put)),
    [Expected] = curl(Config, stock, ["-T", File, Direct]),
    ?assertEqual(maps:remove(connects, Expected), maps:remove(connects, Put)),
    [?assert(Bytes =:= maps:get(body, Answer)) || Url <- [Through, Direct], Answer <- both(Config, [Url])],
    ok = file:delete(File).

upload_without_a_slot(Config) ->
    %% A file for which there is no slot is refused in the same way, and the connection serves the next upload; so it
    %% does when the refused file is too large to be held anywhere.
    File = filename:join(get(own, Config), "small.bin"),
    ok = file:write_file(File, binary:copy(<<"x">>, 1000)),
    Refused = url("/upload/no/such/slot.bin"),
    [#{status := "HTTP/1.1 403 Forbidden"}] = both(Config, ["-T", File, Refused]),
    [?assertEqual(404, status(Answer)) || Answer <- both(Config, ["-T", File, url("/upload/short")])],
    Answers = curl(Config, front, ["-T", File, Refused, "-T", File, slot(Config, 1000), "-T", File, Refused]),
    ?assertEqual([{403, "1"}, {201, "0"}, {403, "0"}], connects(Answers)),
    ?assertMatch([#{status := "HTTP/1.1 413" ++ _}], both(Config, ["-T", File, slot(Config, 2000)])),
    Socket = connect(get(front, Config)),
    ok = ask(Socket, "PUT", "/upload/no/such/slot.bin", binary:copy(<<"x">>, 4000000)),
    ?assertMatch({403, _}, answer(Socket)),
    ok = ask(Socket, "GET", "/test/echo", <<>>),
    ?assertMatch({200, <<"GET /test/echo 0 ", _/binary>>}, answer(Socket)),
    ok = gen_tcp:close(Socket).

aborted_transfers(Config) ->
    %% A client that goes away in the midst of a download or an upload leaves no process behind, and no part of a file.
    Down = connect(get(front, Config)),
    ok = ask(Down, "GET", "/files/large.bin", <<>>),
    {ok, <<"HTTP/1.1 200 OK", _/binary>>} = gen_tcp:recv(Down, 100000, ?DEADLINE),
    ok = gen_tcp:close(Down),
    "http://localhost" ++ Path = slot(Config, 1000000),
    Up = connect(get(front, Config)),
    Request = iolist_to_binary(request("PUT", Path, binary:copy(<<"x">>, 1000000))),
    ok = gen_tcp:send(Up, binary:part(Request, 0, 400000)),
    "/upload/" ++ File = Path,
    Stored = filename:join([maps:get(dir, get(node, Config)), "uploads", File]),
    ok = wait_until(fun() -> filelib:file_size(Stored) > 0 end),
    ok = gen_tcp:close(Up),
    ok = wait_until(fun() -> not filelib:is_regular(Stored) end).

%% ---- commands --------------------------------------------------------------------------------------------------

http_api(Config) ->
    %% Commands over HTTP answer the same, with and without an account, for right and wrong requests.
    Admin = ["-u", "admin@localhost:secret"],
    Post = fun(Json) -> ["-H", "Content-Type: application/json", "-d", Json] end,
    Users = Post("{\"host\": \"localhost\"}"),
    [#{status := "HTTP/1.1 200 OK", body := Registered}] = both(Config, Admin ++ Users ++ [url("/api/registered_users")]),
    ?assertEqual(<<"[\"admin\",\"somebody\"]">>, Registered),
    [#{body := Status}] = both(Config, Admin ++ Post("{}") ++ [url("/api/status")]),
    ?assertMatch({match, _}, re:run(Status, "started")),
    Others = [
        {200, Admin ++ [url("/api/registered_users?host=localhost")]},
        {401, ["-u", "admin@localhost:wrong"] ++ Users ++ [url("/api/registered_users")]},
        {403, ["-u", "somebody@localhost:secret"] ++ Users ++ [url("/api/registered_users")]},
        {403, Users ++ [url("/api/registered_users")]},
        {404, Admin ++ Users ++ [url("/api/no_such_command")]},
        {400, Admin ++ Post("{no json") ++ [url("/api/status")]},
        {400, Admin ++ ["-X", "POST", url("/api/status")]},
        {200, ["-X", "OPTIONS", url("/api/status")]}
    ],
    check_same(Config, Others).

the_clients_address_decides(Config) ->
    %% What is permitted to an address is permitted to the client that has it, neither to the connection manager's
    %% other clients nor to one that claims it.
    Ask = ["-d", "{\"host\": \"localhost\"}", url("/api/registered_users")],
    [Permitted] = both(Config, ["--interface", "127.0.0.5"] ++ Ask),
    ?assertEqual({200, <<"[\"admin\",\"somebody\"]">>}, {status(Permitted), maps:get(body, Permitted)}),
    [Other] = both(Config, ["--interface", "127.0.0.6"] ++ Ask),
    ?assertEqual(403, status(Other)),
    Claim = ["-H", "X-Forwarded-For: 127.0.0.5", "-H", "Forwarded: for=127.0.0.5"],
    [Claimed] = both(Config, ["--interface", "127.0.0.6"] ++ Claim ++ Ask),
    ?assertEqual(403, status(Claimed)),
    [Command] = both(Config, ["--interface", "127.0.0.5", "-d", "{}", url("/api/status")]),
    ?assertEqual(403, status(Command)).

other_requests(Config) ->
    %% Methods, hosts, paths and fields of every kind are answered as ejabberd's own listener answers them.
    Page = url("/files/page.html"),
    Field = fun(Text) -> ["-H", Text, Page] end,
    Method = fun(Name) -> ["-X", Name, Page] end,
    AsIs = fun(Path) -> ["--path-as-is", url(Path)] end,
    Zero = AsIs("/files/%00"),
    {NotUtf8, ZeroSame} =
        case is_new(Config) of
            true -> {400, []};
            false -> {404, [{400, Zero}]}
        end,
    Large = filename:join(get(own, Config), "large.bin"),
    ok = file:write_file(Large, binary:copy(<<"x">>, ?FILE_SIZE)),
    Same = [
        %% ejabberd takes no larger body but for PUT.
        {400, ["--data-binary", "@" ++ Large, url("/test/no_such")]},
        {403, ["-T", Large, url("/upload/no/such/slot.bin")]},
        {400, ["-d", "x" | Method("PATCH")]}, {400, ["-d", "" | Method("POST")]}, {200, ["-d", "x" | Method("GET")]},
        {200, Method("OPTIONS")}, {400, Method("TRACE")}, {400, Method("UNHEARD")}, {404, ["-X", "DELETE", url("/test/x")]},
        {410, Field("Host: other.example")}, {200, Field("Host: LOCALHOST")}, {200, Field("Host: localhost:1234")},
        {200, Field("Range: bytes=0-3")}, {200, Field("X-Empty;")}, {200, Field("Cookie: " ++ lists:duplicate(7000, $c))},
        {200, ["-H", "Upgrade: h2c" | Field("Connection: Upgrade")]}, {200, Field("Connection: close")},
        {200, AsIs("//files//page.html")}, {200, AsIs("/files/./../files/page.html")}, {404, AsIs("/../../../files.yml")},
        {200, AsIs("/files/%70age%2ehtml")}, {200, AsIs("/files/page.html?a=%20b&c")}, {200, AsIs("/files%2Fpage.html")},
        {NotUtf8, AsIs("/files/%ff")}, {400, AsIs("/files/%zz")}, {404, AsIs("/files/")}, {404, AsIs("/")}
    ],
    check_same(Config, Same ++ ZeroSame),
    %% What serves it in ejabberd 26.07 dies of it, and its own listener then answers nothing at all.
    ZeroSame =:= [] andalso ?assertEqual([502], [status(Answer) || Answer <- curl(Config, front, Zero)]),
    file:delete(Large).

bosh_requests(Config) ->
    %% What goes to mod_bosh, most of it by a process of Megaphone's own, is answered as ejabberd's own listener answers.
    Body = fun(Attributes) -> "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' " ++ Attributes ++ "/>" end,
    Unknown = ["-d", Body("sid='none'")],
    Post = fun(Url) -> Unknown ++ [url(Url)] end,
    Field = fun(Text) -> ["-H", Text] ++ Post("/bosh") end,
    check_same(Config, [
        {200, Post("/bosh")}, {200, Post("/bosh/")}, {200, Post("/bosh?some=query")}, {400, Post("/bosh/more")}, {404, Post("/boshy")},
        {200, ["--path-as-is" | Post("//bosh")]}, {200, ["--path-as-is" | Post("/%62osh")]}, {200, ["--path-as-is" | Post("/x/../bosh")]},
        {400, ["-d", "no xml", url("/bosh")]}, {400, ["-d", "", url("/bosh")]}, {400, ["-d", "<other/>", url("/bosh")]},
        {200, ["-d", Body(""), url("/bosh")]}, {200, ["-d", Body("to='nowhere.example'"), url("/bosh")]},
        {200, [url("/bosh")]}, {200, ["-X", "OPTIONS", url("/bosh")]}, {400, ["--head", url("/bosh")]}, {400, ["-X", "PUT" | Post("/bosh")]},
        {200, Field("Content-Type: text/xml; charset=utf-8")}, {200, Field("Connection: close")}, {200, Field("X-Forwarded-For: 1.2.3.4")},
        {200, Field("Host: other.example")}, {200, Field("Host: LOCALHOST:5280")}, {200, Field("Host: [::1]:5280")}, {200, Field("Host: [::1]")},
        {200, Field("Authorization: Basic eDp5")}, {200, Field("Cookie: " ++ lists:duplicate(7000, $c))}
    ]),
    %% A body that is too long to be there at once, and one that came in chunks.
    File = filename:join(get(own, Config), "body.xml"),
    ok = file:write_file(File, [Body("sid='none' x='" ++ lists:duplicate(300000, $x) ++ "'")]),
    check_same(Config, [{200, ["--data-binary", "@" ++ File, url("/bosh")]}]),
    [Chunked] = curl(Config, front, ["-H", "Transfer-Encoding: chunked" | Post("/bosh")]),
    [Whole] = curl(Config, front, Post("/bosh")),
    ?assertEqual(maps:get(body, Whole), maps:get(body, Chunked)),
    %% One connection serves them all, one after the other, whoever answers.
    Mixed = Post("/bosh") ++ [url("/bosh/"), url("/bosh/more"), url("/bosh")],
    ?assertEqual([{200, "1"}, {200, "0"}, {400, "0"}, {200, "0"}], connects(curl(Config, front, Mixed))),
    Socket = connect(get(front, Config)),
    Request = request("POST", "/bosh", list_to_binary(Body("sid='none'"))),
    ok = gen_tcp:send(Socket, [Request, Request, request("POST", "/test/echo", <<"x">>), Request]),
    Answers = [answer(Socket) || _ <- lists:seq(1, 4)],
    Answer = lists:nth(1, Answers),
    ?assertMatch({200, _}, Answer),
    ?assertEqual([Answer, Answer], [lists:nth(N, Answers) || N <- [2, 4]]),
    ok = gen_tcp:close(Socket).

hooks_see_bosh_requests(Config) ->
    %% As long as a hook wants to see requests they all go through ejabberd_http, which runs it.
    Node = get(node, Config),
    Request = ["-d", "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>", url("/bosh")],
    Seen = fun() -> call(Node, megaphone_test_handler, seen, []) end,
    ?assertEqual(0, Seen()),
    [Before] = curl(Config, front, Request),
    ok = call(Node, ejabberd_hooks, add, [http_request_debug, megaphone_test_handler, request_debug, 50]),
    [During] = curl(Config, front, Request),
    ?assertEqual(1, Seen()),
    ok = call(Node, ejabberd_hooks, delete, [http_request_debug, megaphone_test_handler, request_debug, 50]),
    [After] = curl(Config, front, Request),
    ?assertEqual(1, Seen()),
    ?assertEqual([Before, Before], [During, After]).

handler_that_dies(Config) ->
    %% A handler that crashes or is killed costs its client that answer (502), and no other request anything.
    Answers = curl(Config, front, [url("/test/" ++ Path) || Path <- ["crash", "echo", "die", "echo"]]),
    ?assertEqual([502, 200, 502, 200], [status(Answer) || Answer <- Answers]).

check_same(Config, Same) ->
    [?assertMatch({Code, _}, {status(hd(both(Config, Arguments))), Arguments}) || {Code, Arguments} <- Same].

%% The one there is. ejabberd 26.07 says it twice.
last_modified(Config, Head) ->
    Times = [Time || "Last-Modified: " ++ Time <- Head],
    ?assertEqual(case is_new(Config) of true -> 2; false -> 1 end, length(Times)),
    [Modified] = lists:usort(Times),
    Modified.

%% Whether it is an ejabberd that answers some odd requests as 26.07 does.
is_new(Config) ->
    {ok, Version} = call(get(node, Config), application, get_key, [ejabberd, vsn]),
    [Year | _] = string:lexemes(Version, "."),
    list_to_integer(Year) >= 26.

%% ---- connections -----------------------------------------------------------------------------------------------

keep_alive(Config) ->
    %% All requests of a client go over its one connection, with one address and port; `close' ends it.
    Urls = [url(Path) || Path <- ["/test/echo", "/test/bytes/100000", "/files/page.html", "/nobody", "/test/echo"]],
    [First | _] = Answers = curl(Config, front, ["--interface", "127.0.0.5"] ++ Urls),
    ?assertEqual([{200, "1"}, {200, "0"}, {200, "0"}, {404, "0"}, {200, "0"}], connects(Answers)),
    ?assertMatch({match, _}, re:run(maps:get(body, First), "^GET /test/echo 0 [^ ]* 127\\.0\\.0\\.5 [0-9]+$")),
    ?assertEqual(maps:get(body, First), maps:get(body, lists:last(Answers))),
    Closed = curl(Config, front, ["-H", "Connection: close", url("/test/echo"), url("/test/echo")]),
    ?assertEqual([{200, "1"}, {200, "1"}], connects(Closed)),
    [Old] = curl(Config, front, ["--http1.0", url("/files/page.html")]),
    ?assertEqual({200, <<"<p>a page</p>\n">>}, {status(Old), maps:get(body, Old)}).

answers_without_a_body(Config) ->
    %% Answers that tell a length but have no body (to HEAD, and 304) are over with their head: the next answer on the
    %% same connection begins right after it.
    [#{head := Head}] = curl(Config, front, [url("/files/large.bin")]),
    Modified = last_modified(Config, Head),
    Socket = connect(get(front, Config)),
    ok = gen_tcp:send(Socket, [
        "HEAD /files/large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /files/large.bin HTTP/1.1\r\nHost: localhost\r\nIf-Modified-Since: ", Modified, "\r\n\r\n",
        request("GET", "/test/echo", <<>>)
    ]),
    ?assertEqual({200, ?FILE_SIZE}, head(Socket)),
    ?assertMatch({304, _}, head(Socket)),
    ok = assert_echo(Socket, "GET", "", <<>>),
    ok = gen_tcp:close(Socket).

chunked_requests(Config) ->
    %% A body that comes in chunks reaches the handler whole, though ejabberd's HTTP server knows no chunks.
    Bytes = megaphone_test_handler:bytes(200000),
    File = filename:join(get(own, Config), "body.bin"),
    ok = file:write_file(File, Bytes),
    Slot = slot(Config, 200000),
    [Put] = curl(Config, front, ["-H", "Transfer-Encoding: chunked", "-T", File, Slot]),
    ?assertEqual(201, status(Put)),
    ?assertMatch([#{body := Bytes}], both(Config, [Slot])),
    Chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", "@" ++ File],
    Answers = curl(Config, front, Chunked ++ [url("/test/echo"), url("/test/echo")]),
    Expected = iolist_to_binary(["POST /test/echo 200000 ", binary:encode_hex(erlang:md5(Bytes)), " "]),
    ?assertEqual([{200, "1"}, {200, "0"}], connects(Answers)),
    [?assertMatch({0, _}, binary:match(Body, Expected)) || #{body := Body} <- Answers].

expected_requests(Config) ->
    %% A client that waits for `100 Continue' before it sends its body gets it, once, and then the answer.
    Socket = connect(get(front, Config)),
    Bytes = megaphone_test_handler:bytes(100000),
    Head = "POST /test/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
    ok = gen_tcp:send(Socket, Head),
    ?assertEqual({ok, <<"HTTP/1.1 100 Continue\r\n\r\n">>}, gen_tcp:recv(Socket, 25, ?DEADLINE)),
    ok = gen_tcp:send(Socket, Bytes),
    ?assertMatch({200, <<"POST /test/echo 100000 ", _/binary>>}, answer(Socket)),
    ok = gen_tcp:close(Socket).

pipelining(Config) ->
    %% Requests that a client sends without waiting for answers are answered one by one in their order.
    Socket = connect(get(front, Config)),
    Chunked = "POST /test/echo?chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    Numbers = lists:seq(1, 20),
    Some = [request("POST", ["/test/echo?", integer_to_list(N)], integer_to_binary(N * N)) || N <- Numbers],
    ok = gen_tcp:send(Socket, [Some, Chunked, request("GET", "/test/bytes/300000", <<>>), Some]),
    Check = fun() -> [assert_echo(Socket, ["?", integer_to_list(N)], integer_to_binary(N * N)) || N <- Numbers] end,
    _ = Check(),
    ok = assert_echo(Socket, "?chunked", <<"hello">>),
    {200, Bytes} = answer(Socket),
    ?assert(Bytes =:= megaphone_test_handler:bytes(300000)),
    _ = Check(),
    ok = gen_tcp:close(Socket).

assert_echo(Socket, Query, Sent) ->
    assert_echo(Socket, "POST", Query, Sent).

assert_echo(Socket, Method, Query, Sent) ->
    {ok, Own} = inet:sockname(Socket),
    Path = iolist_to_binary(["/test/echo", Query]),
    ?assertEqual({200, megaphone_test_handler:echo(list_to_atom(Method), Path, Sent, Own)}, answer(Socket)).

session_shows_the_clients_address(Config) ->
    %% A chat session over BOSH has the address and port of its client.
    Socket = connect(get(front, Config), {127, 0, 0, 5}),
    {User, Next} = megaphone_test_ecm:login(Socket),
    {ok, {{127, 0, 0, 5}, _} = Own} = inet:sockname(Socket),
    Session = fun() -> call(get(node, Config), ejabberd_sm, get_user_info, [User, <<"localhost">>, <<"client">>]) end,
    Info = Session(),
    ?assertEqual({Own, http_bind}, {proplists:get_value(ip, Info), proplists:get_value(conn, Info)}),
    _ = found("(terminate)", Next("type='terminate'", "")),
    ok = gen_tcp:close(Socket),
    wait_until(fun() -> Session() =:= offline end).

two_ecms(Config) ->
    %% Two connection managers serve the same ejabberd; one is killed in the midst of requests, and not one request
    %% of the other is lost.
    Second = megaphone_test_ecm:start(address(get(node, Config), megaphone)),
    try
        one_of_two_is_killed(Config, Second)
    after
        megaphone_test_ecm:stop(Second)
    end.

one_of_two_is_killed(Config, Second) ->
    Node = get(node, Config),
    [Lost, Kept, Busy] = [connect(megaphone_test_ecm:address(Ecm)) || Ecm <- [Second, get(ecm, Config), get(ecm, Config)]],
    Held = [{<<"lost">>, Lost}, {<<"kept">>, Kept}],
    _ = [{ask(Socket, "GET", ["/test/hold/", Key], <<>>), megaphone_test_node:held(Node, Key)} || {Key, Socket} <- Held],
    ?assertMatch(#{links := 2}, megaphone_test_node:stats(Node)),
    Echo = fun() -> ok = ask(Busy, "POST", "/test/echo", <<"x">>), assert_echo(Busy, "", <<"x">>) end,
    _ = [Echo() || _ <- lists:seq(1, 50)],
    %% More than fits into all buffers on its way, so it is under way when the other one dies.
    ok = ask(Busy, "GET", "/files/large.bin", <<>>),
    ok = megaphone_test_ecm:kill(Second),
    {200, File} = answer(Busy),
    ?assert(File =:= megaphone_test_handler:bytes(?FILE_SIZE)),
    ?assertEqual({error, closed}, gen_tcp:recv(Lost, 0, ?DEADLINE)),
    ok = wait_until(fun() -> Echo(), maps:get(links, megaphone_test_node:stats(Node)) =:= 1 end),
    _ = [megaphone_test_node:release(Node, Key, <<"at last">>) || {Key, _} <- Held],
    ?assertEqual({200, <<"at last">>}, answer(Kept)),
    _ = [gen_tcp:close(Socket) || Socket <- [Lost, Kept, Busy]],
    ok.

%% ---- configuration ---------------------------------------------------------------------------------------------

wrong_options_stop_the_start(Config) ->
    %% A wrong option of the listener stops ejabberd's start, with the message that ejabberd's own listener causes.
    Right =
        "    custom_headers:\n      X-Listener: one\n    request_handlers:\n      /bosh: mod_bosh\n"
        "    send_timeout: 10\n    ip: \"127.0.0.9\"\n    tag: some\n",
    Wrong = [
        {"ip", "    ip: \"300.1.2.3\"\n"},
        {"send_timeout", "    send_timeout: -1\n"},
        {"custom_headers", "    custom_headers: 5\n"},
        {"request_handlers", "    request_handlers: /bosh\n"},
        {"no_such_module", "    request_handlers:\n      /bosh: no_such_module\n"},
        {"tag", "    tag: [1]\n"},
        {"no_such_option", "    no_such_option: 1\n"}
    ],
    {42, _Log} = megaphone_test_ecm:ended(start_with(Config, megaphone, Right)),
    _ = [
        begin
            Pair = [start_with(Config, Module, Yaml) || Module <- [megaphone, ejabberd_http]],
            [Ours, Theirs] = [refused(Name, megaphone_test_ecm:ended(Start)) || Start <- Pair],
            %% The names that could have been meant are others.
            Name =:= "no_such_option" orelse ?assertEqual(Theirs, Ours)
        end
     || {Name, Yaml} <- Wrong
    ],
    ok.

start_with(Config, Module, Yaml) ->
    Dir = filename:join(get(own, Config), integer_to_list(erlang:unique_integer([positive]))),
    megaphone_test_ecm:try_boot(Dir, ["  -\n    port: 0\n    module: ", atom_to_list(Module), "\n", Yaml]).

%% The line of the log that says why, without what is before it.
refused(Name, {Status, Log}) ->
    ?assertEqual({Name, 1}, {Name, Status}),
    ct:log("~ts", [Log]),
    Reason = found("Failed to start ejabberd application: ([^\n]*)", Log),
    ?assertMatch({match, _}, re:run(Reason, Name)),
    Reason.

%% ---- requests --------------------------------------------------------------------------------------------------

slot(Config, Size) -> megaphone_test_ecm:slot(get(node, Config), Size).

url(Path) -> "http://localhost" ++ Path.

curl(Config, Way, Arguments) ->
    megaphone_test_ecm:curl(get(own, Config), get(Way, Config), Arguments).

both(Config, Arguments) ->
    megaphone_test_ecm:both(get(own, Config), get(front, Config), get(stock, Config), Arguments).

%% The status of each, and how many connections were made for it.
connects(Answers) ->
    [{status(Answer), Connects} || #{connects := Connects} = Answer <- Answers].

status(#{status := "HTTP/1.1 " ++ Status}) -> list_to_integer(lists:sublist(Status, 3)).
