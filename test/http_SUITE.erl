%% HTTP through the connection manager, against the same requests to a stock ejabberd_http listener of the same node:
%% the answers must be the same bytes. The client is curl.
-module(http_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).

-define(FILE_SIZE, 20000000).
-define(UPLOAD_SIZE, 30000000).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        large_file,
        small_requests,
        old_http,
        several_requests_on_a_connection,
        upload,
        upload_after_continue,
        upload_without_a_slot,
        commands,
        body_of_unknown_length,
        slow_reader_gets_everything,
        half_a_request_reaches_nobody
    ].

init_per_suite(Config) ->
    Curl = os:find_executable("curl"),
    Curl =:= false andalso error("curl was not found"),
    %% The directory that Common Test gives is the same for all suites of a run.
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?MODULE),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    Node = megaphone_test_node:start(Dir, [
        listener(megaphone, 1, [handlers(), "bosh: mod_bosh", "custom_headers: {X-Custom: yes it is}"]),
        listener(ejabberd_http, 2, [handlers(), "custom_headers: {X-Custom: yes it is}"])
    ]),
    {Ecm, Port} = megaphone_test_program:ecm(megaphone_test_program:server(address(Node, megaphone))),
    Files = filename:join(maps:get(dir, Node), "files"),
    ok = file:write_file(filename:join(Files, "large.bin"), megaphone_test_handler:bytes(?FILE_SIZE)),
    ok = file:write_file(filename:join(Files, "small.html"), <<"<html>small</html>">>),
    ok = file:write_file(filename:join(Dir, "upload.bin"), megaphone_test_handler:bytes(?UPLOAD_SIZE)),
    [{node, Node}, {ecm, Ecm}, {port, Port}, {curl, Curl}, {dir, Dir} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    Node = proplists:get_value(node, Config),
    ok = megaphone_test_node:assert_quiet(Node),
    ok = megaphone_test_node:stop_without_errors(Node),
    Large = filelib:wildcard(filename:join(proplists:get_value(dir, Config), "**/*.bin")) ++ filelib:wildcard(filename:join(proplists:get_value(dir, Config), "answer*")),
    lists:foreach(fun file:delete/1, Large).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_only_links(proplists:get_value(node, Config), 1) end).

%% ---- the two ways ----------------------------------------------------------------------------------------------

%% The same arguments for curl, and the answer of both: all of it with its head, but without the date.
both(Config, Paths, Args) ->
    {Stock, StockPort} = address(proplists:get_value(node, Config), ejabberd_http),
    [
        curl(Config, Name, [base(Address) ++ Path || Path <- Paths], Args)
     || {Name, Address} <- [{"stock", {Stock, StockPort}}, {"ours", {{127, 0, 0, 1}, proplists:get_value(port, Config)}}]
    ].

base({Ip, Port}) ->
    lists:flatten(io_lib:format("http://~s:~b", [inet:ntoa(Ip), Port])).

%% ejabberd's own listener lets a request be served before the process that serves it owns the socket. A file cannot be
%% sent then: its head comes, and the end (18). It is asked again.
curl(Config, Name, Urls, Args) ->
    Stock = base(address(proplists:get_value(node, Config), ejabberd_http)),
    case curl_once(Config, Name, Urls, Args) of
        {18, _, _} = Cut ->
            case lists:prefix(Stock, hd(Urls)) of
                true -> curl(Config, Name, Urls, Args);
                false -> Cut
            end;
        Answer ->
            Answer
    end.

curl_once(Config, Name, Urls, Args) ->
    File = filename:join(proplists:get_value(dir, Config), "answer-" ++ Name),
    All = ["-q", "-s", "-S", "--noproxy", "*", "-i", "--max-time", "60", "-H", "Host: localhost"] ++ Args ++ Urls,
    {Status, Output} = megaphone_test_program:run(proplists:get_value(curl, Config), ["-o", File] ++ All, #{}),
    %% Answers to several URLs come one after the other.
    {ok, Answer} = if length(Urls) =:= 1 -> file:read_file(File); true -> {ok, several(Config, All)} end,
    {Status, Output, without_date(Answer)}.

several(Config, Args) ->
    {0, Output} = megaphone_test_program:run(proplists:get_value(curl, Config), Args, #{}),
    Output.

without_date(Answer) ->
    case binary:split(Answer, <<"\r\n\r\n">>) of
        [Head, Body] -> [re:replace(Head, "\r\nDate: [^\r]*", "", [caseless, {return, binary}]), Body];
        _ -> [Answer]
    end.

same(Config, Paths, Args) ->
    [Stock, Ours] = both(Config, Paths, Args),
    {Status, _, Answer} = Stock,
    ?assertEqual({Paths, Args, 0}, {Paths, Args, Status}),
    %% A difference in a large body is not worth being printed.
    Stock =:= Ours orelse ?assertEqual(shortened(Stock), shortened(Ours)),
    ?assert(Stock =:= Ours),
    Answer.

shortened({Status, Output, Parts}) ->
    {Status, Output, [{byte_size(Part), erlang:md5(Part), binary:part(Part, 0, min(1000, byte_size(Part)))} || Part <- Parts]}.

%% ---- cases -----------------------------------------------------------------------------------------------------

large_file(Config) ->
    %% A file of 20 MB comes as from a stock listener, head and all.
    [Head, Body] = same(Config, ["/files/large.bin"], []),
    ?assertMatch(<<"HTTP/1.1 200 OK\r\n", _/binary>>, Head),
    ?assert(Body =:= megaphone_test_handler:bytes(?FILE_SIZE)).

small_requests(Config) ->
    %% Answers of all kinds are the same: found, not found, not allowed, without body, of wrong requests.
    Requests = [
        {"/files/small.html", []},
        {"/files/small.html", ["-I"]},
        {"/files/small.html?query=%20a%2Fb", []},
        {"/files/none", []},
        {"/files/../files/small.html", ["--path-as-is"]},
        {"/nowhere", []},
        {"/", []},
        {"/bosh", []},
        {"/bosh", ["-X", "OPTIONS"]},
        {"/bosh", ["--data-binary", "this is no body"]},
        {"/bosh", ["--data-binary", "<body rid='1' sid='unknown' xmlns='http://jabber.org/protocol/httpbind'/>"]},
        {"/ws", []},
        {"/upload/x", ["-X", "OPTIONS"]},
        {"/upload/none", []},
        {"/files/small.html", ["-X", "DELETE"]},
        {"/test/echo", ["-X", "PATCH", "--data-binary", "x"]},
        {"/test/bytes/0", []},
        {"/test/bytes/65536", ["-H", "Connection: close"]},
        {"/files/small.html", ["-H", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"]},
        {"/files/small.html", ["-H", "Accept-Encoding: gzip", "-H", "X-Forwarded-For: 1.2.3.4", "-H", "Cookie: a=b"]}
    ],
    Heads = [hd(same(Config, [Path], Args)) || {Path, Args} <- Requests],
    ?assert(length(lists:usort([binary:part(Head, 0, 12) || Head <- Heads])) >= 3),
    %% The option custom_headers of the listener holds for its clients.
    ?assert(lists:any(fun(Head) -> binary:match(Head, <<"\r\nX-Custom: yes it is">>) =/= nomatch end, Heads)).

old_http(Config) ->
    %% A client of HTTP/1.0 gets the same answer and the end of its connection. Only the version in the answer is 1.1.
    [{0, _, [Stock, Body]}, {0, _, [Ours, Body]}] = both(Config, ["/files/small.html"], ["--http1.0"]),
    <<"HTTP/1.0", Rest/binary>> = Stock,
    ?assertEqual(<<"HTTP/1.1", Rest/binary>>, Ours),
    ?assertMatch({match, _}, re:run(Ours, "\r\nConnection: close", [caseless])).

several_requests_on_a_connection(Config) ->
    %% Requests that share a connection are answered one after the other, each with its own answer.
    Paths = ["/test/bytes/1000", "/files/small.html", "/nowhere", "/test/bytes/100000", "/files/small.html"],
    _ = same(Config, Paths, []),
    Url = base({{127, 0, 0, 1}, proplists:get_value(port, Config)}) ++ "/files/small.html",
    {0, Reports} = megaphone_test_program:run(
        proplists:get_value(curl, Config), ["-q", "-s", "--noproxy", "*", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects}\n", Url, Url], #{}
    ),
    ?assertEqual(<<"1\n0">>, Reports).

%% ---- uploads ---------------------------------------------------------------------------------------------------

%% A slot for an upload, asked for by IQ as a client does; the path of its URL.
slot(Config, User, Size) ->
    Node = proplists:get_value(node, Config),
    Iq = {xmlel, <<"iq">>, [
        {<<"type">>, <<"get">>}, {<<"id">>, <<"slot">>}, {<<"from">>, <<User/binary, "@localhost/test">>}, {<<"to">>, <<"upload.localhost">>}
    ], [
        {xmlel, <<"request">>, [
            {<<"xmlns">>, <<"urn:xmpp:http:upload:0">>}, {<<"filename">>, <<"upload.bin">>}, {<<"size">>, integer_to_binary(Size)},
            {<<"content-type">>, <<"application/octet-stream">>}
        ], []}
    ]},
    Answer = call(Node, ?MODULE, route, [Iq]),
    {[<<"http://localhost", Path/binary>>], _} = {put_urls(Answer), Answer},
    binary_to_list(Path).

put_urls({xmlel, <<"put">>, Attributes, _}) -> [proplists:get_value(<<"url">>, Attributes)];
put_urls({xmlel, _, _, Children}) -> lists:flatmap(fun put_urls/1, Children);
put_urls(_) -> [].

%% In the node.
route(Iq) ->
    ok = ejabberd_router:route_iq(xmpp:decode(Iq), slot, self(), ?DEADLINE),
    {iq_reply, Reply, slot} = ?assertReceive({iq_reply, _, slot}),
    xmpp:encode(Reply).

upload(Config) ->
    %% A file of 30 MB goes up to a real slot of mod_http_upload and comes down again, as through a stock listener.
    check_upload(Config, ["-H", "Expect:"]).

upload_after_continue(Config) ->
    %% The same when the client waits for 100 Continue before it sends the file.
    check_upload(Config, ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]).

check_upload(Config, Args) ->
    File = filename:join(proplists:get_value(dir, Config), "upload.bin"),
    Addresses = [address(proplists:get_value(node, Config), ejabberd_http), {{127, 0, 0, 1}, proplists:get_value(port, Config)}],
    Answers = [
        begin
            Path = slot(Config, <<"uploader">>, ?UPLOAD_SIZE),
            {0, <<>>, Up} = curl(Config, "up", [base(Address) ++ Path], ["-T", File, "-H", "Content-Type: application/octet-stream" | Args]),
            {0, <<>>, [DownHead, DownBody]} = curl(Config, "down", [base(Address) ++ Path], []),
            ?assert(DownBody =:= megaphone_test_handler:bytes(?UPLOAD_SIZE)),
            %% Two files, of two moments. Newer ejabberd says so in an ETag, too.
            {Up, re:replace(DownHead, "\r\n(Last-Modified|ETag): [^\r]*", "", [caseless, global, {return, binary}])}
        end
     || Address <- Addresses
    ],
    ?assertMatch([Same, Same], Answers),
    ?assertNotEqual(nomatch, binary:match(iolist_to_binary(element(1, hd(Answers))), <<" 201 Created">>)).

upload_without_a_slot(Config) ->
    %% An upload that is refused before it was read is answered as by a stock listener, and the body goes nowhere.
    File = filename:join(proplists:get_value(dir, Config), "upload.bin"),
    [{_, _, [Stock | _]}, {_, _, [Ours | _]}] = both(Config, ["/upload/0000/none/upload.bin"], ["-T", File, "-H", "Expect:"]),
    ?assertMatch(<<"HTTP/1.1 403 ", _/binary>>, Stock),
    ?assertEqual(Stock, Ours).

%% ---- others ----------------------------------------------------------------------------------------------------

commands(Config) ->
    %% Commands of mod_http_api by POST give the same, right and wrong ones.
    ok = megaphone_test_node:register_user(proplists:get_value(node, Config), <<"somebody">>, <<"pass-of-somebody">>),
    Commands = [
        {"registered_users", "{\"host\": \"localhost\"}", 200},
        {"registered_vhosts", "{}", 200},
        {"connected_users_number", "{}", 200},
        {"no_such_command", "{}", 404},
        {"registered_users", "{}", 400},
        {"registered_users", "no json", 400}
    ],
    lists:foreach(
        fun({Command, Json, Expected}) ->
            [Head | _] = same(Config, ["/api/" ++ Command], ["-H", "Content-Type: application/json", "--data-binary", Json]),
            <<"HTTP/1.1 ", Status:3/binary, _/binary>> = Head,
            ?assertEqual({Command, Expected}, {Command, binary_to_integer(Status)})
        end,
        Commands
    ).

body_of_unknown_length(Config) ->
    %% A chunked body, which ejabberd_http does not understand, reaches the handler whole; up to its limit.
    Body = megaphone_test_handler:bytes(1000000),
    File = filename:join(proplists:get_value(dir, Config), "chunked.bin"),
    ok = file:write_file(File, Body),
    Url = base({{127, 0, 0, 1}, proplists:get_value(port, Config)}) ++ "/test/echo",
    Args = ["-X", "POST", "-T", File, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
    {0, <<>>, [<<"HTTP/1.1 200 ", _/binary>>, Answer]} = curl(Config, "chunked", [Url], Args),
    Expected = megaphone_test_handler:echo('POST', <<"/test/echo">>, Body, {{127, 0, 0, 1}, 1}),
    Size = byte_size(Expected) - 1,
    ?assertEqual(binary:part(Expected, 0, Size), binary:part(Answer, 0, Size)),
    ok = file:write_file(File, [Body, binary:copy(<<0>>, 100000)]),
    {_, _, [<<"HTTP/1.1 413 ", _/binary>> | _]} = curl(Config, "chunked", [Url], Args).

slow_reader_gets_everything(Config) ->
    %% A client that reads nothing for as long as the answer is being made holds up nobody, and gets all of it in the end.
    {Slow, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Slow, <<"GET /files/large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
    Node = proplists:get_value(node, Config),
    ok = wait_until(fun() -> maps:get(output_bytes, megaphone_test_node:stats(Node)) > 0 end),
    _ = same(Config, ["/files/small.html"], []),
    ?assert(maps:get(output_bytes, megaphone_test_node:stats(Node)) =< 65536),
    {200, Body} = megaphone_test_http:read(Slow),
    ?assert(Body =:= megaphone_test_handler:bytes(?FILE_SIZE)),
    ok = gen_tcp:close(Slow).

half_a_request_reaches_nobody(Config) ->
    %% A connection without a complete head, or with a wrong one, is the connection manager's alone.
    Node = proplists:get_value(node, Config),
    Port = proplists:get_value(port, Config),
    #{opened := Before} = hd(call(Node, megaphone, links, [])),
    Halves = [<<>>, <<"G">>, <<"GET / HTTP/1.1\r\n">>, <<"GET / HTTP/1.1\r\nHost: localhost\r\nX: ">>],
    Sockets = [
        begin
            {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
            ok = gen_tcp:send(Socket, Half),
            Socket
        end
     || Half <- lists:append(lists:duplicate(50, Halves))
    ],
    {Wrong, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    ok = gen_tcp:send(Wrong, <<"nonsense\r\n\r\n">>),
    ?assertMatch({400, _}, megaphone_test_http:read(Wrong)),
    ?assertEqual({error, closed}, gen_tcp:recv(Wrong, 0, ?DEADLINE)),
    ?assertMatch(#{opened := Before, connections := 0}, hd(call(Node, megaphone, links, []))),
    lists:foreach(fun gen_tcp:close/1, [Wrong | Sockets]).
