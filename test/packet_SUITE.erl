%% HTTP packets from the native table against erlang:decode_packet/3, line by line: random heads, good and bad, in
%% random pieces. PropEr makes and shrinks them; it is called without its header, so that only running needs it.
-module(packet_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(megaphone_test, [open/1]).

-define(LET(X, Type, Value), proper_types:bind(Type, fun(X) -> Value end, false)).
-define(SUCHTHAT(X, Type, Condition), proper_types:add_constraint(Type, fun(X) -> Condition end, true)).

suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [
        every_cut_gives_the_same,
        known_lines,
        random_requests,
        random_fields,
        random_bytes,
        random_bodies
    ].

init_per_suite(Config) -> megaphone_test:start_with_proper(Config).

end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

%% ---- cases -----------------------------------------------------------------------------------------------------

every_cut_gives_the_same(_Config) ->
    %% A head that comes in two pieces, cut at any byte, or byte by byte, is read as in one piece.
    Input = <<
        "POST /bosh?a=b HTTP/1.1\r\nhost: a\r\nX-Folded: one\r\n\ttwo\r\n   three\nCookie:\r\n\r\n"
        "\r\nnonsense\r\nPROPFIND http://h:80/ HTTP/1.0\nbad line\r\n\n"
    >>,
    Cuts = [[byte_size(Input)], lists:duplicate(byte_size(Input), 1) | [[At] || At <- lists:seq(1, byte_size(Input) - 1)]],
    [?assertEqual({Mode, Cut, expected(Mode, Input)}, {Mode, Cut, results(Mode, cut(Input, Cut))}) || Mode <- modes(), Cut <- Cuts].

known_lines(_Config) ->
    %% Lines at the borders of the decoder's rules are read as decode_packet has them.
    Names = [lists:duplicate(Length, $a) || Length <- [1, 19, 20, 21, 49, 50, 51, 52, 70]],
    Fields = [[Name, ": v\r\n"] || Name <- Names ++ ["x-y-z", "-x", "x--y", "X-", "a_b", "a.b", "1-2", "ETAG", "www-authenticate"]],
    Values = [["A:", Value, "\r\n"] || Value <- ["", " ", "\t\t", "  x  ", "x\ty", [0], [255, 128], ":", "a:b", "x\r", "\rx", "\r"]],
    Wrong = ["a b: c\r\n", ": c\r\n", "a\r\n", " a: b\r\n", "a :b\r\n", "a\t: b\r\n", [200, ": x\r\n"], "\r\r\n", "\r"],
    Starts = [
        "GET\r\n", "GET \r\n", "GET /\r\n", "GET / \r\n", "GET / HTTP/1.1 \r\n", "GET / HTTP/1.\r\n", "GET / HTTP/.1\r\n",
        "GET / http/1.1\r\n", "GET / HTTP/11\r\n", "GET  \t /  \t HTTP/1.1\r\n", " GET / HTTP/1.1\r\n", "get / HTTP/1.1\r\n",
        "GET / HTTP/12.34\r\n", "GET / HTTP/1.1x\r\n", "GET /a b HTTP/1.1\r\n", "G=T / HTTP/1.1\r\n", "GET * HTTP/1.1\r\n",
        "GET ** HTTP/1.1\r\n", "GET x HTTP/1.1\r\n", "GET xy HTTP/1.1\r\n", "GET a:b HTTP/1.1\r\n", "GET :b HTTP/1.1\r\n",
        "GET http:// HTTP/1.1\r\n", "GET http:/ HTTP/1.1\r\n", "GET HTTP://H HTTP/1.1\r\n", "GET https://h:1/p HTTP/1.1\r\n",
        "GET http://h: HTTP/1.1\r\n", "GET http://h:0/ HTTP/1.1\r\n", "GET http://h:x/ HTTP/1.1\r\n",
        "GET http://:80/ HTTP/1.1\r\n", "GET http://h:80x/ HTTP/1.1\r\n", "GET http://u:p@h/ HTTP/1.1\r\n",
        "OPTIONS / HTTP/1.1\r\n", "CONNECT h:1 HTTP/1.1\r\n", "TRACE / HTTP/0.9\r\n", "DELETE / HTTP/2.0\r\n",
        "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200\r\n", "HTTP/1.1 200 \r\n", "HTTP/1.1  404  a b \r\n", "HTTP/1.1\r\n",
        "HTTP/1.1 \r\n", "HTTP/1 200 OK\r\n", "HTTP/1.1 x\r\n", "HTTP/1.1 2x\r\n", "HTTP/\r\n", "HTTP\r\n", "HTTP/1.1\t200\tOK\r\n",
        [200, " / HTTP/1.1\r\n"], "\n", "\r\n", "\r\r\n"
    ],
    Inputs = [["GET / HTTP/1.1\r\n", Field, "\r\n"] || Field <- Fields ++ Values ++ Wrong] ++ [[Start, "\r\n"] || Start <- Starts],
    Differ = [
        {Mode, Input, Expected, Results}
     || Mode <- modes(), Input <- Inputs, {Expected, Results} <- [compare({Mode, Input, []})], Expected =/= Results
    ],
    ?assertEqual([], Differ).

random_requests(_Config) ->
    %% Random heads, in random pieces, in all packet modes.
    property(400, {mode(), proper_types:list(head()), cuts()}, fun compare/1).

random_fields(_Config) ->
    %% Random fields alone, as httph and httph_bin read them.
    property(1000, {proper_types:oneof([httph, httph_bin]), proper_types:list(field()), cuts()}, fun compare/1).

random_bytes(_Config) ->
    %% Bytes of all kinds, with those that mean something more often than others.
    Byte = proper_types:frequency([
        {3, proper_types:elements("\r\n\n :/?-*\t")}, {2, proper_types:elements("GETHTTP/1.1hxX0")}, {1, proper_types:byte()}
    ]),
    property(1000, {mode(), proper_types:list(Byte), cuts()}, fun compare/1).

random_bodies(_Config) ->
    %% A body is given as it is, in as many bytes as Content-Length says, and the next request follows it.
    Request = {proper_types:list(plain_field()), proper_types:binary()},
    property(500, {proper_types:list(Request), cuts()}, fun({Requests, Cuts}) ->
        Input = iolist_to_binary([request(Fields, Body) || {Fields, Body} <- Requests]),
        {lists:append([with_body(Fields, Body) || {Fields, Body} <- Requests]), results(http_bin, cut(Input, Cuts))}
    end).

request(Fields, Body) ->
    ["PUT / HTTP/1.1\r\n", Fields, "CONTENT-LENGTH:  ", integer_to_list(byte_size(Body)), "\r\n\r\n", Body].

with_body(Fields, Body) ->
    Head = expected(http_bin, iolist_to_binary(request(Fields, <<>>))),
    Length = integer_to_binary(byte_size(Body)),
    [
        case Result of
            {http_header, N, 'Content-Length' = Name, Original, _} -> {http_header, N, Name, Original, Length};
            _ -> Result
        end
     || Result <- Head
    ] ++ [Body || Body =/= <<>>].

%% ---- checks ----------------------------------------------------------------------------------------------------

modes() -> [http, http_bin, httph, httph_bin].

%% The function gives what is expected and what came out. It is false and no exception when they differ: PropEr 1.2
%% cannot shrink after one.
property(Count, Type, Compare) ->
    Holds = fun(Instance) ->
        {Expected, Results} = Compare(Instance),
        Expected =:= Results
    end,
    case proper:quickcheck(proper:forall(Type, Holds), [{numtests, Count}, quiet, {max_size, 30}]) of
        true ->
            ok;
        false ->
            [Instance] = proper:counterexample(),
            {Expected, Results} = Compare(Instance),
            ct:fail("for ~p~nexpected ~p~n     got ~p", [Instance, Expected, Results])
    end.

compare({Mode, Parts, Cuts}) ->
    Input = iolist_to_binary(Parts),
    {expected(Mode, Input), results(Mode, cut(Input, Cuts))}.

cut(Data, [Size | Sizes]) when Size < byte_size(Data) ->
    {Piece, Rest} = split_binary(Data, Size),
    [Piece | cut(Rest, Sizes)];
cut(Data, _) ->
    [Data].

%% What decode_packet says, one line after the other: a start line, then fields up to the end of the head. After a
%% line that is no start line a start line is expected, as a TCP socket has it.
expected(Mode, Input) ->
    First = lists:member(Mode, [http, http_bin]),
    decode(Mode, if First -> Mode; true -> header(Mode) end, Input).

header(http) -> httph;
header(http_bin) -> httph_bin;
header(Mode) -> Mode.

decode(Mode, Type, Input) ->
    case erlang:decode_packet(Type, Input, []) of
        {ok, http_eoh, Rest} -> [http_eoh | decode(Mode, Mode, Rest)];
        {ok, {http_error, _} = Error, Rest} -> [Error | decode(Mode, Type, Rest)];
        {ok, Packet, Rest} -> [Packet | decode(Mode, header(Mode), Rest)];
        {more, _} -> [];
        {error, _} = Error -> [Error]
    end.

%% What comes out of the table. Sometimes it is read while the input still comes.
results(Mode, Pieces) ->
    Handle = open(Mode),
    Early = lists:append([
        begin
            ok = megaphone:put_data(Handle, Piece),
            [Result || Number rem 3 =:= 0, Result <- available(Handle)]
        end
     || {Number, Piece} <- lists:zip(lists:seq(1, length(Pieces)), Pieces)
    ]),
    Results = Early ++ available(Handle),
    %% What is left is no whole line. It would stay until its owner dies.
    ok = megaphone_nif:set_packet(Handle, raw),
    _ = megaphone:recv(Handle, 0),
    ok = megaphone:close(Handle),
    Results.

available(Handle) ->
    case megaphone:recv(Handle, 0) of
        {ok, Result} -> [Result | available(Handle)];
        {error, timeout} -> []
    end.

%% ---- generators ------------------------------------------------------------------------------------------------

mode() -> proper_types:oneof(modes()).
cuts() -> proper_types:list(proper_types:integer(1, 40)).

head() ->
    ?LET({Start, Fields}, {start_line(), proper_types:list(field())}, [Start, Fields, "\r\n"]).

start_line() ->
    proper_types:frequency([
        {8, ?LET(Parts, [method(), blanks(), target(), blanks(), version(), line_end()], Parts)},
        {2, ?LET({V, B, S, C, P, E}, {version(), blanks(), status(), blanks(), text(), line_end()}, [V, B, S, C, P, E])},
        {1, ?LET({Text, End}, {text(), line_end()}, [Text, End])}
    ]).

method() ->
    proper_types:frequency([
        {4, proper_types:oneof(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE"])},
        {2, proper_types:oneof(["PATCH", "CONNECT", "get", "PROPFIND", "X", "VERSION-CONTROL", lists:duplicate(60, $M)])},
        {1, proper_types:list(proper_types:oneof([proper_types:integer($!, $~), proper_types:elements("()<>@,;:\\\"/[]?={}")]))}
    ]).

target() ->
    proper_types:frequency([
        {4, ?LET(Path, path(), [$/ | Path])},
        {1, "*"},
        {3, ?LET({S, H, P, T}, {proper_types:oneof(["http://", "https://", "HTTP://"]), host(), port(), path()}, [S, H, P, T])},
        {1, ?LET({A, B}, {path(), path()}, [A, $:, B])},
        {1, path()}
    ]).

path() -> proper_types:list(proper_types:elements("abcXYZ019/?&=%.-_~+#;,@!")).

%% A host in brackets is left out: there decode_packet and this one differ, and ejabberd never sees one.
host() -> proper_types:list(proper_types:elements("abc.-01")).

port() ->
    proper_types:oneof(["", ":", "/", ?LET(Port, proper_types:integer(0, 70000), [$:, integer_to_list(Port), $/]), ":x/"]).

version() ->
    proper_types:frequency([
        {8, proper_types:oneof(["HTTP/1.1", "HTTP/1.0"])},
        {2, ?LET({A, B}, {proper_types:integer(0, 99), proper_types:integer(0, 99)}, ["HTTP/", integer_to_list(A), $., integer_to_list(B)])},
        {1, proper_types:oneof(["", "HTTP/1", "http/1.1", "HTTP/1.1x", "HTTP/x.y"])}
    ]).

status() ->
    proper_types:oneof([?LET(Status, proper_types:integer(0, 999), integer_to_list(Status)), "", "x"]).

field() ->
    proper_types:frequency([
        {6, ?LET({N, V, E}, {name(), value(), line_end()}, [N, $:, V, E])},
        {1, ?LET({N, B, V, E}, {name(), blanks(), value(), line_end()}, [N, B, $:, V, E])},
        {1, ?LET({Text, End}, {text(), line_end()}, [Text, End])}
    ]).

plain_field() ->
    ?LET({N, V}, {proper_types:oneof(["Host", "x-a", "COOKIE"]), path()}, [N, ": ", V, "\r\n"]).

%% With Content-Length a body would follow, which decode_packet knows nothing of.
name() ->
    ?SUCHTHAT(Name, any_name(), not string:equal(Name, "content-length", true)).

any_name() ->
    proper_types:frequency([
        {4, ?LET({Name, Case}, {proper_types:oneof(known_names()), proper_types:integer(0, 2)}, recase(Case, Name))},
        {3, proper_types:list(proper_types:elements("aAbB-_.019"))},
        {1, ?LET(Length, proper_types:integer(15, 80), lists:duplicate(Length, $n))},
        {1, proper_types:list(proper_types:integer($!, $~))}
    ]).

known_names() ->
    [
        "Cache-Control", "Connection", "Transfer-Encoding", "Accept", "Authorization", "Host", "If-None-Match", "Www-Authenticate",
        "Content-Type", "Content-Md5", "Etag", "Set-Cookie2", "X-Forwarded-For", "Keep-Alive", "Proxy-Connection", "Upgrade"
    ].

recase(0, Name) -> Name;
recase(1, Name) -> string:lowercase(Name);
recase(2, Name) -> string:uppercase(Name).

value() ->
    ?LET({Blanks, Text, Folds}, {blanks(), text(), proper_types:list(fold())}, [Blanks, Text, Folds]).

fold() ->
    proper_types:frequency([{1, ?LET({E, B, T}, {line_end(), proper_types:oneof([" ", "\t", "  "]), text()}, [E, B, T])}, {3, ""}]).

text() ->
    proper_types:list(proper_types:frequency([
        {8, proper_types:integer($\s, $~)}, {1, $\t}, {1, $\r}, {1, proper_types:integer(128, 255)}, {1, 0}
    ])).

blanks() -> proper_types:oneof([" ", "  ", "\t", " \t ", ""]).
line_end() -> proper_types:frequency([{5, "\r\n"}, {1, "\n"}]).
