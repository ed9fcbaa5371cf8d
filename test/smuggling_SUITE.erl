%% Request smuggling: requests of which a connection manager and a server might see different ends (RFC 9112, 11.2, and
%% what has been published since). Each goes through the real connection manager to the real ejabberd, where a handler
%% records every request that arrives. A request is refused and the connection closed, with nothing of it in ejabberd; or
%% exactly the requests arrive that the connection manager itself has understood, with the bodies that it has understood.
-module(smuggling_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).

%% What is to be smuggled: a whole request that stands where others see a body, or the other way round.
-define(HIDDEN, <<"GET /test/record/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n">>).
-define(FENCE, <<"GET /test/record/fence HTTP/1.1\r\nHost: localhost\r\n\r\n">>).

-define(VICTIM, <<"/test/record/victim">>).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        length_and_coding, obfuscated_codings, ambiguous_lengths, bodies_where_none_is_expected, chunk_sizes, chunk_ends,
        trailers_and_extensions, field_names, line_ends, hosts, old_versions, upgrades, expectations, pipelined,
        hop_by_hop
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?MODULE),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    Node = megaphone_test_node:start(Dir, [listener(megaphone, 1, [handlers()])]),
    {Ecm, Port} = megaphone_test_program:ecm(megaphone_test_program:server(address(Node, megaphone))),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    Node = proplists:get_value(node, Config),
    ok = megaphone_test_node:assert_quiet(Node),
    ok = megaphone_test_node:stop_without_errors(Node).

init_per_testcase(_Case, Config) ->
    %% A case before may have failed.
    _ = call(proplists:get_value(node, Config), megaphone_test_handler, recorded, []),
    Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_only_links(proplists:get_value(node, Config), 1) end).

%% ---- probes ----------------------------------------------------------------------------------------------------

%% Sends the bytes. `{refused, Status}': nothing of it reaches ejabberd. `{[Request], open | closed | {refused, Status}}':
%% these requests, no others, and then the connection goes on or ends so.
probe(Config, Bytes, {refused, Status}) ->
    Opened = opened(Config),
    probe(Config, Bytes, {[], {refused, Status}}),
    ?assertEqual(Opened, opened(Config), {reached_ejabberd, Bytes});
probe(Config, Bytes, {Requests, End}) ->
    Node = proplists:get_value(node, Config),
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, Bytes),
    Answers = [answer(Socket, Method) || {Method, _, _} <- Requests],
    ?assertEqual([answered(Request) || Request <- Requests], Answers, Bytes),
    Fence = ended(Socket, End, Bytes),
    ok = gen_tcp:close(Socket),
    Seen = [{Method, Path, Body} || {Method, Path, _Host, Body} <- call(Node, megaphone_test_handler, recorded, [])],
    ?assertEqual(Requests ++ Fence, Seen, Bytes).

opened(Config) ->
    #{opened := Opened} = hd(call(proplists:get_value(node, Config), megaphone, links, [])),
    Opened.

answered({'HEAD', _, _}) -> {200, <<>>};
answered({_, Path, _}) -> {200, Path}.

answer(Socket, 'HEAD') ->
    {Status, _} = megaphone_test_ecm:head(Socket),
    {Status, <<>>};
answer(Socket, _) ->
    megaphone_test_http:read(Socket).

%% A request that is still to come would be answered before this one.
ended(Socket, open, Bytes) ->
    ok = gen_tcp:send(Socket, ?FENCE),
    ?assertEqual({200, <<"/test/record/fence">>}, megaphone_test_http:read(Socket), Bytes),
    [{'GET', <<"/test/record/fence">>, <<>>}];
ended(Socket, closed, Bytes) ->
    ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?DEADLINE), Bytes),
    [];
ended(Socket, {refused, Status}, Bytes) ->
    ?assertMatch({Status, _}, megaphone_test_http:read(Socket), Bytes),
    ended(Socket, closed, Bytes).

%% ---- requests --------------------------------------------------------------------------------------------------

head(Method, Fields) ->
    iolist_to_binary([Method, " ", ?VICTIM, " HTTP/1.1\r\nHost: localhost\r\n", Fields, "\r\n"]).

post(Fields, Body) ->
    iolist_to_binary([head("POST", Fields), Body]).

content_length(Body) ->
    ["Content-Length: ", integer_to_list(iolist_size(Body)), "\r\n"].

chunked(Body) ->
    post("Transfer-Encoding: chunked\r\n", Body).

victim(Body) -> {'POST', ?VICTIM, iolist_to_binary(Body)}.

hidden() -> {'GET', <<"/test/record/hidden">>, <<>>}.

%% ---- cases -----------------------------------------------------------------------------------------------------

length_and_coding(Config) ->
    %% CL.TE and TE.CL: both a length and chunks, whichever comes first and whichever would hide the request.
    Coding = "Transfer-Encoding: chunked\r\n",
    Chunks = ["0\r\n\r\n", ?HIDDEN],
    Inside = [integer_to_list(byte_size(?HIDDEN), 16), "\r\n", ?HIDDEN, "\r\n0\r\n\r\n"],
    [
        probe(Config, post(Fields, Body), {refused, 400})
     || {Length, Body} <- [{content_length(Chunks), Chunks}, {"Content-Length: 4\r\n", Inside}, {"Content-Length: 0\r\n", Inside}],
        Fields <- [[Length, Coding], [Coding, Length], [Length, "X: y\r\n", Coding]]
    ].

obfuscated_codings(Config) ->
    %% TE.TE: a coding that some take for chunked and some do not, with a length for those who do not.
    Body = ["0\r\n\r\n", ?HIDDEN],
    Length = content_length(Body),
    Tries = [
        {"Transfer-Encoding: xchunked", 501}, {"Transfer-Encoding: chunkedx", 501}, {"Transfer-Encoding: \"chunked\"", 501},
        {"Transfer-Encoding: 'chunked'", 501}, {"Transfer-Encoding: chunked, identity", 501}, {"Transfer-Encoding: identity, chunked", 501},
        {"Transfer-Encoding: chunked, chunked", 501}, {"Transfer-Encoding: chunked;q=1", 501}, {"Transfer-Encoding: ,chunked", 501},
        {"Transfer-Encoding: chunked,", 501}, {"Transfer-Encoding: gzip, chunked", 501}, {"Transfer-Encoding: cow", 501},
        {"Transfer-Encoding:", 501}, {"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", 501},
        {"Transfer-Encoding: chun\x{80}ked", 501}, {"Transfer-Encoding: \xc2\xa0chunked", 501}, {"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400},
        {"Transfer-Encoding: chunked\r\nTransfer-encoding: chunked", 400}, {"Transfer-Encoding : chunked", 400}, {"Transfer-Encoding\t: chunked", 400},
        {" Transfer-Encoding: chunked", 400}, {"\tTransfer-Encoding: chunked", 400}, {"X: y\nTransfer-Encoding: chunked", 400},
        {"X: y\rTransfer-Encoding: chunked", 400}, {"Transfer-Encoding\r\n : chunked", 400}, {"Transfer-Encoding:\r\n chunked", 400},
        {"Transfer-Encoding: \x0bchunked", 400}, {"Transfer-Encoding: \x0cchunked", 400}, {"Transfer-Encoding: chunked\x00", 400},
        {"Transfer-Encoding: \x00chunked", 400}, {"Transfer-Encoding\x00: chunked", 400}, {"Transfer-Encoding: chunked\r", 400},
        {"Transfer-\xc4\x97ncoding: chunked", 400}, {"Transfer-Encoding chunked", 400}, {"\x00Transfer-Encoding: chunked", 400}
    ],
    [probe(Config, post([Length, Try, "\r\n"], Body), {refused, 400}) || {Try, 400} <- Tries],
    [probe(Config, post([Try, "\r\n"], Body), {refused, Status}) || {Try, Status} <- Tries],
    %% Legal forms of the same, with chunks: one request, then the other.
    [
        probe(Config, post([Try, "\r\n"], ["2\r\nhi\r\n", Body]), {[victim("hi"), hidden()], open})
     || Try <- ["Transfer-Encoding:chunked", "Transfer-Encoding:\tchunked \t", "tRANSFER-eNCODING: cHUNKED"]
    ],
    %% Not that field at all: only the length counts.
    [
        probe(Config, post([Length, Try, "\r\n"], Body), {[victim(Body)], open})
     || Try <- ["Transfer_Encoding: chunked", "TransferEncoding: chunked", "X-Transfer-Encoding: chunked", "Content-Encoding: chunked", "TE: chunked"]
    ].

ambiguous_lengths(Config) ->
    %% Lengths of which one reads the first, another the last, and a third none.
    Size = integer_to_list(byte_size(?HIDDEN)),
    [
        probe(Config, post([Fields, "\r\n"], ?HIDDEN), {refused, 400})
     || Fields <- [
            ["Content-Length: 0\r\nContent-Length: ", Size], ["Content-Length: ", Size, "\r\nContent-Length: 0"],
            ["Content-Length: ", Size, "\r\ncontent-length: ", Size], ["Content-Length: ", Size, ", ", Size],
            ["Content-Length: 0, ", Size], ["Content-Length: +", Size], ["Content-Length: -", Size], ["Content-Length: 0x", Size],
            ["Content-Length: ", Size, " 0"], ["Content-Length: ", Size, ";"], ["Content-Length: ", Size, ","], "Content-Length:",
            "Content-Length: 1e1", ["Content-Length: ", Size, ".0"], ["Content-Length: \"", Size, "\""], ["Content-Length: ", Size, "\x00"],
            ["Content-Length: \x0b", Size], ["Content-Length : ", Size], ["Content-Length\t: ", Size], [" Content-Length: ", Size],
            ["X: y\nContent-Length: ", Size], ["X: y\rContent-Length: ", Size], ["Content-Length:\r\n ", Size], "Content-Length: \xd9\xa5"
        ]
    ],
    [
        probe(Config, post(["Content-Length: ", Length, "\r\n"], ?HIDDEN), {refused, 413})
     || Length <- ["18446744073709551616", "18446744073709551615", "99999999999999999999999999", "104857601"]
    ],
    [
        probe(Config, post(["Content-Length:", Length, "\r\n"], ?HIDDEN), {[victim(?HIDDEN)], open})
     || Length <- [Size, ["\t ", Size, " \t"], ["000", Size]]
    ],
    %% Not that field at all: there is no body, and what follows is the next request.
    [
        probe(Config, iolist_to_binary([head("GET", [Field, ": ", Size, "\r\n"]), ?HIDDEN]), {[{'GET', ?VICTIM, <<>>}, hidden()], open})
     || Field <- ["Content_Length", "Content-Lengths", "X-Content-Length"]
    ].

bodies_where_none_is_expected(Config) ->
    %% CL.0: a server that does not read the body of some method, or of some path, takes it for the next request.
    Length = content_length(?HIDDEN),
    Chunks = [integer_to_list(byte_size(?HIDDEN), 16), "\r\n", ?HIDDEN, "\r\n0\r\n\r\n"],
    Methods = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "TRACE", "PROPFIND", "get", "X"],
    Paths = ["/test/record/victim", "/test/echo", "/bosh", "/ws", "/files/none", "/upload/a/b/c", "/api/status", "/none", "/test/%zz", "/test/%", "/test/%ff%00", "/test/record/victim?%zz&=&a", "/../x", "//", "/"],
    Fields = ["", "Authorization: Basic !!!\r\n", "Authorization: x\r\n", "Range: bytes=x\r\n", "Accept-Language: ;;\r\n", "Content-Type: x\r\n"],
    Hosts = ["localhost", "unknown.example", "", "[", ":", "localhost:x", "localhost:99999"],
    [
        arrives_once(Config, iolist_to_binary([Method, " ", Path, " HTTP/1.1\r\nHost: ", Host, "\r\n", More, Framing, "\r\n", Body]))
     || {Framing, Body} <- [{Length, ?HIDDEN}, {"Transfer-Encoding: chunked\r\n", Chunks}],
        Method <- Methods,
        {Path, Host, More} <-
            [{Path, "localhost", ""} || Path <- Paths] ++ [{"/test/record/victim", Host, ""} || Host <- Hosts] ++
                [{"/test/record/victim", "localhost", Field} || Field <- Fields]
    ].

%% Refused, or seen at most once, with the request that follows it; nothing that is hidden in its body is ever seen.
arrives_once(Config, Bytes) ->
    Node = proplists:get_value(node, Config),
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, [Bytes, ?FENCE]),
    Answers = until_fence(Socket, <<>>),
    ok = gen_tcp:close(Socket),
    Seen = [Path || {_, Path, _, _} <- call(Node, megaphone_test_handler, recorded, [])],
    ?assertEqual([], [Path || Path <- Seen, binary:match(Path, <<"hidden">>) =/= nomatch], {Bytes, Answers}).

until_fence(Socket, Read) ->
    case binary:match(Read, <<"/test/record/fence">>) =/= nomatch orelse gen_tcp:recv(Socket, 0, ?DEADLINE) of
        true -> Read;
        {ok, More} -> until_fence(Socket, <<Read/binary, More/binary>>);
        {error, closed} -> Read
    end.

chunk_sizes(Config) ->
    %% Sizes that are no plain number in base 16, or more than any body may have.
    Size = integer_to_list(byte_size(?HIDDEN), 16),
    [
        probe(Config, chunked([Line, ?HIDDEN, "\r\n0\r\n\r\n"]), {refused, 400})
     || Line <- [
            [Size, "\n"], [Size, "\r"], [Size, "\r\r\n"], [" ", Size, "\r\n"], [Size, " \r\n"], ["\t", Size, "\r\n"], ["0x", Size, "\r\n"],
            ["+", Size, "\r\n"], ["-", Size, "\r\n"], [Size, "h\r\n"], [Size, "_0\r\n"], [Size, ",\r\n"], "\r\n", ";x\r\n", "\n", [Size, "\x00\r\n"],
            ["\"", Size, "\"\r\n"], ["00000000000000000", Size, "\r\n"], "10000000000000000\r\n", "fffffffffffffffff\r\n", ["\x0b", Size, "\r\n"]
        ]
    ],
    [probe(Config, chunked([Line, ?HIDDEN]), {refused, 413}) || Line <- ["ffffffffffffffff\r\n", "8000000000000000\r\n", "100000000\r\n", "100001\r\n"]],
    [probe(Config, chunked([Line, ?HIDDEN, "\r\n0\r\n\r\n"]), {[victim(?HIDDEN)], open}) || Line <- [[Size, "\r\n"], ["000", Size, "\r\n"]]].

chunk_ends(Config) ->
    %% What ends a chunk, or a body, in the eyes of some.
    [
        probe(Config, chunked([Body, ?HIDDEN]), {refused, 400})
     || Body <- [
            "5\r\nhello0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello\n\r0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n",
            "6\r\nhello\r\n0\r\n\r\n", "0\n\n", "0\r\r\n", "0\r\n\n", "0\n\r\n", "0\r\n\r\r\n", "5\r\nhello\r\n\r\n0\r\n\r\n"
        ]
    ],
    probe(Config, chunked(["5\r\nhello\r\n0\r\n\r\n", ?HIDDEN]), {[victim("hello"), hidden()], open}).

trailers_and_extensions(Config) ->
    %% Extensions end with their line, whatever is in them (TERM.EXT and EXT.TERM); trailer fields are no fields.
    Size = integer_to_list(byte_size(?HIDDEN), 16),
    [
        probe(Config, chunked([Body, ?HIDDEN]), {refused, 400})
     || Body <- [
            "5;a\nhello\r\n0\r\n\r\n", "5;a\rb\r\nhello\r\n0\r\n\r\n", "5;\nx\r\nhello\r\n0\r\n\r\n", "0;a\n\r\n\r\n", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
            "0\r\nX: y\n\r\n", "0\r\nX: y\rZ\r\n\r\n", "0\r\nX: \x00\r\n\r\n", "5;\x00\r\nhello\r\n0\r\n\r\n"
        ]
    ],
    [
        probe(Config, chunked([Body, ?HIDDEN]), {[victim("hello"), hidden()], open})
     || Body <- [
            "5;\r\nhello\r\n0\r\n\r\n", "5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n",
            "5\r\nhello\r\n0\r\nContent-Length: 1000\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n"
        ]
    ],
    %% For those who look for the closing quote the first chunk would begin later.
    Quoted = ["5;a=\"\r\nhello\r\n", Size, ";\"\r\n", ?HIDDEN, "\r\n0\r\n\r\n"],
    probe(Config, chunked(Quoted), {[victim(["hello", ?HIDDEN])], open}).

field_names(Config) ->
    %% Names that some repair: spaces, control characters, folded lines.
    Length = content_length(?HIDDEN),
    [
        probe(Config, post([Line, Length], ?HIDDEN), {refused, 400})
     || Line <- [
            "X : y\r\n", "X\t: y\r\n", "X y: z\r\n", ": y\r\n", "X\x01: y\r\n", "X\x00: y\r\n", "X\x7f: y\r\n", "X(y): z\r\n", "X\xe9: y\r\n",
            "X: y\r\n z\r\n", "X: y\r\n\tz\r\n", " X: y\r\n", "X\r\n: y\r\n", "X\r\n", "X: y\x00z\r\n", "X: y\x08\r\n", "X: \x1b[0m\r\n"
        ]
    ],
    probe(Config, post(["X!#$%&'*+-.^_`|~: \xff\t\"\r\n", Length], ?HIDDEN), {[victim(?HIDDEN)], open}).

line_ends(Config) ->
    %% Line ends that some take for one, and some not.
    [
        probe(Config, Bytes, {refused, 400})
     || Bytes <- [
            <<"GET /test/record/victim HTTP/1.1\nHost: localhost\n\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\nHost: localhost\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\nHost: localhost\r\n\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\nHost: localhost\n\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\rHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\nHost: localhost\r\r\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\nHost: localhost\r\n\r\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim HTTP/1.1\r\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim\nX: HTTP/1.1\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"GET /test/record/victim%0d%0a HTTP/1.1 \r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"\nGET /test/record/victim HTTP/1.1\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>,
            <<"\rGET /test/record/victim HTTP/1.1\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>
        ]
    ],
    probe(Config, <<"\r\n", (head("GET", ""))/binary, "\r\n", ?HIDDEN/binary>>, {[{'GET', ?VICTIM, <<>>}, hidden()], open}).

hosts(Config) ->
    %% Which host a request is for: never two answers.
    [
        probe(Config, iolist_to_binary(["GET ", Target, " HTTP/1.1\r\n", Fields, "\r\n"]), {refused, 400})
     || {Target, Fields} <- [
            {?VICTIM, ""}, {?VICTIM, "Host: localhost\r\nHost: evil\r\n"}, {?VICTIM, "Host: localhost, evil\r\nHost: x\r\n"},
            {?VICTIM, "Host: localhost/evil\r\n"}, {?VICTIM, "Host: localhost evil\r\n"}, {?VICTIM, "Host: a@localhost\r\n"}, {?VICTIM, "Host : localhost\r\n"},
            {["http://a@localhost", ?VICTIM], "Host: localhost\r\n"}, {["http://", ?VICTIM], "Host: localhost\r\n"}, {["//", ?VICTIM, "#x"], "Host: localhost\r\n"},
            {["ftp://localhost", ?VICTIM], "Host: localhost\r\n"}
        ]
    ],
    %% The host of the target counts, the field of the client does not reach ejabberd (RFC 9112, 3.2.2).
    Node = proplists:get_value(node, Config),
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, <<"GET http://localhost/test/record/victim HTTP/1.1\r\nHost: evil\r\nX-Forwarded-Host: evil\r\n\r\n">>),
    ?assertEqual({200, ?VICTIM}, megaphone_test_http:read(Socket)),
    ?assertEqual([{'GET', ?VICTIM, <<"localhost">>, <<>>}], call(Node, megaphone_test_handler, recorded, [])),
    ok = gen_tcp:close(Socket).

old_versions(Config) ->
    %% HTTP/0.9 has no fields and no framing; after HTTP/1.0 nothing follows, whatever it says.
    [
        probe(Config, <<Line/binary, ?HIDDEN/binary>>, {refused, Status})
     || {Line, Status} <- [
            {<<"GET /test/record/victim\r\n\r\n">>, 400}, {<<"GET /test/record/victim \r\n\r\n">>, 400},
            {<<"GET /test/record/victim HTTP/0.9\r\nHost: localhost\r\n\r\n">>, 505}, {<<"GET /test/record/victim HTTP/1.2\r\nHost: localhost\r\n\r\n">>, 505},
            {<<"GET /test/record/victim HTTP/2.0\r\nHost: localhost\r\n\r\n">>, 505}, {<<"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n">>, 505},
            {<<"GET /test/record/victim HTTP/1.10\r\nHost: localhost\r\n\r\n">>, 400}, {<<"GET /test/record/victim HTTP/01.1\r\nHost: localhost\r\n\r\n">>, 400},
            {<<"GET /test/record/victim http/1.1\r\nHost: localhost\r\n\r\n">>, 400},
            {<<"POST /test/record/victim HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n">>, 400}
        ]
    ],
    [
        probe(Config, iolist_to_binary(["GET /test/record/victim HTTP/1.0\r\n", Fields, "\r\n", ?HIDDEN]), {[{'GET', ?VICTIM, <<>>}], closed})
     || Fields <- ["Host: localhost\r\n", "Host: localhost\r\nConnection: keep-alive\r\n", "Host: localhost\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n"]
    ].

upgrades(Config) ->
    %% An upgrade that ejabberd does not make leaves the connection at HTTP: what follows is the next request, for both.
    Key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n",
    [
        probe(Config, iolist_to_binary([head("GET", Fields), ?HIDDEN]), {[{'GET', ?VICTIM, <<>>}, hidden()], open})
     || Fields <- [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", ["Connection: Upgrade\r\nUpgrade: websocket\r\n", Key]
        ]
    ],
    %% So does one that a body would follow: it is none.
    probe(
        Config, post(["Connection: Upgrade\r\nUpgrade: websocket\r\n", Key, content_length(?HIDDEN)], ?HIDDEN), {[victim(?HIDDEN)], open}
    ),
    probe(Config, <<"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", ?HIDDEN/binary>>, {refused, 501}).

expectations(Config) ->
    %% An expectation changes nothing of where the body ends; only the one that is known is taken.
    Length = content_length(?HIDDEN),
    [probe(Config, post(["Expect: ", Value, "\r\n", Length], ?HIDDEN), {refused, 417}) || Value <- ["x", "100-continue, x", "100-continue100-continue", "", "y 100-continue"]],
    [probe(Config, post(["Expect:", Value, "\r\n", Length], ?HIDDEN), {[victim(?HIDDEN)], open}) || Value <- ["100-continue", " 100-Continue "]],
    probe(Config, iolist_to_binary([head("GET", "Expect: 100-continue\r\n"), ?HIDDEN]), {[{'GET', ?VICTIM, <<>>}, hidden()], open}),
    probe(Config, post(["Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", Length], ?HIDDEN), {refused, 400}).

pipelined(Config) ->
    %% Whole requests behind each other arrive one by one; behind a malformed one nothing does.
    Get = head("GET", ""),
    probe(Config, <<Get/binary, ?HIDDEN/binary>>, {[{'GET', ?VICTIM, <<>>}, hidden()], open}),
    probe(Config, <<Get/binary, "GARBAGE\r\n\r\n", ?HIDDEN/binary>>, {[{'GET', ?VICTIM, <<>>}], {refused, 400}}),
    probe(Config, <<"GARBAGE\r\n\r\n", Get/binary>>, {refused, 400}),
    probe(Config, iolist_to_binary([head("GET", "Connection: close\r\n"), ?HIDDEN]), {[{'GET', ?VICTIM, <<>>}], closed}),
    probe(Config, iolist_to_binary([post("Content-Length: 3\r\n", "abc"), "{}", ?HIDDEN]), {[victim("abc")], {refused, 400}}).

hop_by_hop(Config) ->
    %% Fields that Connection names are dropped on the way, but never those that say where a request ends or whose it is.
    Length = content_length(?HIDDEN),
    [
        probe(Config, post(["Connection: ", Named, "\r\n", Length], ?HIDDEN), {[victim(?HIDDEN)], open})
     || Named <- ["Content-Length", "content-length, host", "Transfer-Encoding", "keep-alive, Content-Length, X", "Host"]
    ],
    probe(Config, post(["Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n"], ["2\r\nhi\r\n0\r\n\r\n", ?HIDDEN]), {[victim("hi"), hidden()], open}),
    probe(Config, post(["Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", Length], ?HIDDEN), {refused, 400}).
