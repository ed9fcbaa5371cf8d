%% A BOSH client on plain sockets that decides everything itself: which request goes by which connection, its number, what
%% is repeated and what is cut off. Answers are read when a case asks for them.
-module(megaphone_test_bosh).

-include("megaphone_test.hrl").

-export([connect/1, close/1, http/4, http/5, answer/1, answer/2, is_silent/1, left/1, content/1, content/2]).
-export([create/2, create/3, created/1, created/2, request/3, post/3, post/5, ask/3, ask/5, poll/2, poll/3]).
-export([attribute/2, attributes/2, field/2, elements/1, text/2, body/2, escape/1, timed/1]).
-export_type([answer/0, session/0, attributes/0, element/0]).

-type answer() :: #{status := integer(), fields := [{binary(), binary()}], text := binary()}.
-type attributes() :: [{binary(), iodata() | integer()}].
%% As fxml has it, without its header.
-type element() :: {xmlel, binary(), [{binary(), binary()}], [element() | {xmlcdata, binary()}]}.
%% What the client must know of its session. `rid' is the number of the creation: others count from it.
-type session() :: #{port := inet:port_number(), from => inet:ip_address(), host := binary(), sid := binary(), rid := pos_integer()}.

-define(HTTPBIND, <<"http://jabber.org/protocol/httpbind">>).
-define(PATH, "/bosh").

%% ---- HTTP ------------------------------------------------------------------------------------------------------

%% From an address of this machine, if one is named.
-spec connect(#{port := inet:port_number(), from => inet:ip_address(), _ => _}) -> gen_tcp:socket().
connect(#{port := Port} = Where) ->
    Own = [{ip, From} || #{from := From} <- [Where]],
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true} | Own]),
    Socket.

-spec close(gen_tcp:socket()) -> ok.
close(Socket) ->
    gen_tcp:close(Socket).

%% A request, without its answer.
-spec http(gen_tcp:socket(), iodata(), [iodata()], iodata()) -> ok.
http(Socket, Method, Fields, Data) ->
    http(Socket, Method, ?PATH, Fields, Data).

-spec http(gen_tcp:socket(), iodata(), iodata(), [iodata()], iodata()) -> ok.
http(Socket, Method, Path, Fields, Data) ->
    gen_tcp:send(Socket, request(Method, Path, ["Content-Length: " ++ integer_to_list(iolist_size(Data)) | Fields], Data)).

-spec request(iodata(), iodata(), [iodata()], iodata()) -> iodata().
request(Method, Path, Fields, Data) ->
    [Method, " ", Path, " HTTP/1.1\r\nHost: localhost\r\n", [[Field, "\r\n"] || Field <- Fields], "\r\n", Data].

%% The bytes of a request of a session.
-spec request(session(), pos_integer(), iodata()) -> iodata().
request(Session, Rid, Elements) ->
    Data = body([{<<"rid">>, Rid}, {<<"sid">>, maps:get(sid, Session)}], Elements),
    request("POST", ?PATH, ["Content-Length: " ++ integer_to_list(iolist_size(Data))], Data).

-spec answer(gen_tcp:socket()) -> answer().
answer(Socket) ->
    case answer(Socket, ?DEADLINE) of
        #{} = Answer -> Answer;
        Other -> error({no_answer, Other})
    end.

%% The answer, if it begins in time.
-spec answer(gen_tcp:socket(), timeout()) -> answer() | timeout | closed.
answer(Socket, Timeout) ->
    ok = inet:setopts(Socket, [{packet, http_bin}]),
    Began = gen_tcp:recv(Socket, 0, Timeout),
    case Began of
        {ok, {http_response, _, Status, _}} ->
            Fields = fields(Socket),
            ok = inet:setopts(Socket, [{packet, raw}]),
            #{status => Status, fields => Fields, text => bytes(Socket, field(<<"content-length">>, #{fields => Fields}))};
        {error, timeout} ->
            ok = inet:setopts(Socket, [{packet, raw}]),
            timeout;
        {error, _} ->
            closed
    end.

-spec fields(gen_tcp:socket()) -> [{binary(), binary()}].
fields(Socket) ->
    case gen_tcp:recv(Socket, 0, ?DEADLINE) of
        {ok, {http_header, _, Name, _, Value}} when is_atom(Name) -> [{lower(atom_to_binary(Name)), Value} | fields(Socket)];
        {ok, {http_header, _, Name, _, Value}} -> [{lower(Name), Value} | fields(Socket)];
        {ok, http_eoh} -> []
    end.

-spec lower(binary()) -> binary().
lower(Name) -> string:lowercase(Name).

-spec bytes(gen_tcp:socket(), binary() | undefined) -> binary().
bytes(_Socket, Length) when Length =:= undefined; Length =:= <<"0">> ->
    <<>>;
bytes(Socket, Length) ->
    {ok, Data} = gen_tcp:recv(Socket, binary_to_integer(Length), ?DEADLINE),
    Data.

%% Nothing has come, and the connection is open. It tells of now alone: ask when what could have come would be there.
-spec is_silent(gen_tcp:socket()) -> boolean().
is_silent(Socket) ->
    answer(Socket, 0) =:= timeout.

%% Of connections that all have the same request the one that is left when the server has cut the others.
-spec left([gen_tcp:socket(), ...]) -> gen_tcp:socket().
left(Sockets) ->
    left(Sockets, erlang:monotonic_time(millisecond) + ?DEADLINE).

-spec left([gen_tcp:socket(), ...], integer()) -> gen_tcp:socket().
left([Socket], _Deadline) ->
    Socket;
left([Socket | Others], Deadline) ->
    erlang:monotonic_time(millisecond) < Deadline orelse error({not_cut, [Socket | Others]}),
    case content(Socket, 10) of
        closed -> left(Others, Deadline);
        timeout -> left(Others ++ [Socket], Deadline)
    end.

-spec field(binary(), #{fields := [{binary(), binary()}], _ => _}) -> binary() | undefined.
field(Name, #{fields := Fields}) ->
    proplists:get_value(Name, Fields).

%% ---- bodies ----------------------------------------------------------------------------------------------------

-spec body(attributes(), iodata()) -> iodata().
body(Attributes, Elements) ->
    ["<body xmlns='", ?HTTPBIND, "'", [[" ", Name, "='", escape(Value), "'"] || {Name, Value} <- Attributes], ">", Elements, "</body>"].

-spec escape(iodata() | integer()) -> iodata().
escape(Value) when is_integer(Value) -> integer_to_binary(Value);
escape(Value) -> fxml:crypt(iolist_to_binary(Value)).

%% The element of an answer, which must be a body of BOSH.
-spec content(answer()) -> element().
content(#{status := 200, text := Text} = Answer) ->
    case fxml_stream:parse_element(Text) of
        {xmlel, <<"body">>, _, _} = Body ->
            {?HTTPBIND, Body} = {attribute(<<"xmlns">>, Body), Body},
            Body;
        _ ->
            error({no_body, Answer})
    end.

%% The same of the next answer by this connection. Where ejabberd closes a connection without an answer, the connection manager
%% says so with a 502 before it does the same.
-spec content(gen_tcp:socket(), timeout()) -> element() | timeout | closed.
content(Socket, Timeout) ->
    case answer(Socket, Timeout) of
        #{status := 502} -> closed;
        #{} = Answer -> content(Answer);
        Other -> Other
    end.

-spec attribute(binary(), element()) -> binary() | undefined.
attribute(Name, {xmlel, _, Attributes, _}) ->
    proplists:get_value(Name, Attributes).

-spec attributes([binary()], element()) -> [binary() | undefined].
attributes(Names, Element) ->
    [attribute(Name, Element) || Name <- Names].

-spec elements(element()) -> [element()].
elements({xmlel, _, _, Children}) ->
    [Child || {xmlel, _, _, _} = Child <- Children].

%% The text of the first child with this name.
-spec text(binary(), element()) -> binary() | undefined.
text(Name, Element) ->
    case [iolist_to_binary([Text || {xmlcdata, Text} <- Children]) || {xmlel, Own, _, Children} <- elements(Element), Own =:= Name] of
        [Text | _] -> Text;
        [] -> undefined
    end.

%% ---- sessions --------------------------------------------------------------------------------------------------

%% A new session with these attributes in place of the usual ones (`undefined' leaves one out), and the answer.
-spec create(gen_tcp:socket(), map()) -> {session(), element()}.
create(Socket, Where) ->
    create(Socket, Where, []).

-spec create(gen_tcp:socket(), map(), [{binary(), iodata() | integer() | undefined}]) -> {session(), element()}.
create(Socket, #{port := Port} = Where, Own) ->
    Host = maps:get(host, Where, <<"localhost">>),
    Rid = 1000000 + rand:uniform(1 bsl 40),
    Usual = [
        {<<"rid">>, Rid}, {<<"to">>, Host}, {<<"wait">>, 60}, {<<"hold">>, 1}, {<<"ver">>, "1.6"}, {<<"xml:lang">>, "en"},
        {<<"xmlns:xmpp">>, "urn:xmpp:xbosh"}, {<<"xmpp:version">>, "1.0"}
    ],
    Attributes = Own ++ [Each || {Name, _} = Each <- Usual, not lists:keymember(Name, 1, Own)],
    ok = http(Socket, "POST", [], body([Each || {_, Value} = Each <- Attributes, Value =/= undefined], [])),
    Content = content(answer(Socket)),
    Session = #{port => Port, host => Host, sid => attribute(<<"sid">>, Content), rid => proplists:get_value(<<"rid">>, Attributes)},
    {maps:merge(maps:with([from], Where), Session), Content}.

%% A new session that is not logged in, and a connection.
-spec created(map()) -> {gen_tcp:socket(), session()}.
created(Where) ->
    created(Where, []).

-spec created(map(), [{binary(), iodata() | integer() | undefined}]) -> {gen_tcp:socket(), session()}.
created(Where, Attributes) ->
    Socket = connect(Where),
    {Session, _} = create(Socket, Where, Attributes),
    {Socket, Session}.

%% A request whose number counts from the creation, without its answer.
-spec post(gen_tcp:socket(), session(), integer()) -> ok.
post(Socket, Session, N) ->
    post(Socket, Session, N, [], []).

-spec post(gen_tcp:socket(), session(), integer(), attributes(), iodata()) -> ok.
post(Socket, #{sid := Sid, rid := Rid}, N, Attributes, Elements) ->
    http(Socket, "POST", [], body([{<<"rid">>, Rid + N}, {<<"sid">>, Sid} | Attributes], Elements)).

%% The same with its answer.
-spec ask(gen_tcp:socket(), session(), integer()) -> element().
ask(Socket, Session, N) ->
    ask(Socket, Session, N, [], []).

-spec ask(gen_tcp:socket(), session(), integer(), attributes(), iodata()) -> element().
ask(Socket, Session, N, Attributes, Elements) ->
    ok = post(Socket, Session, N, Attributes, Elements),
    content(answer(Socket)).

%% A request by a connection of its own.
-spec poll(session(), integer()) -> gen_tcp:socket().
poll(Session, N) ->
    poll(Session, N, []).

-spec poll(session(), integer(), iodata()) -> gen_tcp:socket().
poll(Session, N, Elements) ->
    Socket = connect(Session),
    ok = post(Socket, Session, N, [], Elements),
    Socket.

%% What the function answers, and after how many milliseconds.
-spec timed(fun(() -> Result)) -> {Result, integer()}.
timed(Fun) ->
    Began = erlang:monotonic_time(millisecond),
    Result = Fun(),
    {Result, erlang:monotonic_time(millisecond) - Began}.
