%% Requests that Megaphone hands to mod_bosh itself: whatever a peer of a link writes, the answer is the one that
%% ejabberd's own listener gives to the same bytes, and the process is gone with its request or its client.
-module(poll_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_link, [open/1, request/4]).
-import(megaphone_test_node, [address/2, call/4, handlers/0, listener/3]).

-define(CREATE, "<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' rid='1' to='localhost' wait='60' hold='1' ver='1.6' xmpp:version='1.0'/>").
-define(UNKNOWN, "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='none'/>").

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        raw_requests_are_answered_alike,
        a_held_poll_is_a_small_process,
        a_killed_poll_closes_its_connection,
        a_poll_ends_with_its_link,
        the_next_request_waits_its_turn,
        proxies_are_trusted_as_configured,
        the_request_is_as_ejabberd_has_it
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, [
        listener(megaphone, 1, [handlers(), "idle_memory: keep", "bosh: mod_bosh"]), listener(ejabberd_http, 2, [handlers()])
    ]),
    File = filename:join(Dir, "ejabberd.yml"),
    {ok, Yaml} = file:read_file(File),
    ok = file:write_file(File, ["trusted_proxies:\n  - 10.0.0.0/8\n", Yaml]),
    [{node, megaphone_test_node:start_in(Dir)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(node_of(Config)).

init_per_testcase(_Case, Config) ->
    [{link, megaphone_test_link:connect(address(node_of(Config), megaphone))} | Config].

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        ok = megaphone_test_link:disconnect(proplists:get_value(link, Config)),
        ok = megaphone_test_node:assert_quiet(node_of(Config))
    end).

node_of(Config) -> proplists:get_value(node, Config).

raw_requests_are_answered_alike(Config) ->
    %% Versions, wishes for the connection, hosts and fields of all kinds: the same bytes, the same answer, the same end.
    Post = fun(Version, Fields) ->
        ["POST /bosh ", Version, "\r\n", [[Field, "\r\n"] || Field <- Fields], "Content-Length: ", integer_to_list(length(?UNKNOWN)), "\r\n\r\n", ?UNKNOWN]
    end,
    Eleven = fun(Fields) -> Post("HTTP/1.1", ["Host: localhost" | Fields]) end,
    Requests = [
        Eleven([]), Eleven(["Connection: close"]), Eleven(["Connection: CLOSE"]), Eleven(["Connection: keep-alive"]),
        Eleven(["Connection: foo"]), Eleven(["Connection: close", "Connection: keep-alive"]),
        Eleven(["Connection: keep-alive", "Connection: close"]), Eleven(["Content-Type: text/xml"]),
        Eleven(["X-Unknown: 1", "x-other: 2", "Origin: http://example.com"]), Eleven(["Accept-Language: de, en"]),
        Eleven(["X-Forwarded-For: 1.2.3.4"]), Eleven(["Authorization: Basic eDp5"]),
        Post("HTTP/1.0", ["Host: localhost"]), Post("HTTP/1.0", ["Host: localhost", "Connection: keep-alive"]),
        Post("HTTP/1.1", ["Host: "]), Post("HTTP/1.1", ["Host: [::1]:5280"]), Post("HTTP/1.1", ["Host: [::1"]),
        Post("HTTP/1.1", ["Host: EXAMPLE.com:80"]), Post("HTTP/1.1", ["Host: localhost:99999999"]), Post("HTTP/1.1", ["Host: a_b"])
    ],
    lists:foldl(
        fun(Request, Id) ->
            ?assertEqual({Request, direct(Config, Request)}, {Request, linked(Config, Id, Request)}),
            Id + 1
        end,
        1,
        Requests
    ).

%% What comes back by a TCP connection of its own: bytes, and whether it goes on.
direct(Config, Request) ->
    {Ip, Port} = address(node_of(Config), ejabberd_http),
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, Request),
    Answer = whole(Socket, <<>>),
    %% Another request is answered on a connection that goes on.
    _ = gen_tcp:send(Socket, request("POST", "/bosh", [], ?UNKNOWN)),
    GoesOn =
        case gen_tcp:recv(Socket, 0, ?DEADLINE) of
            {ok, _} -> goes_on;
            {error, closed} -> closes
        end,
    ok = gen_tcp:close(Socket),
    {Answer, GoesOn}.

whole(Socket, Before) ->
    {ok, Data} = gen_tcp:recv(Socket, 0, ?DEADLINE),
    All = <<Before/binary, Data/binary>>,
    {match, [Length]} = re:run(All, "Content-Length: ([0-9]+)\r\n", [{capture, all_but_first, binary}]),
    [_Head, Body] = binary:split(All, <<"\r\n\r\n">>),
    case byte_size(Body) =:= binary_to_integer(Length) of
        true -> All;
        false -> whole(Socket, All)
    end.

%% The same by the link.
linked(Config, Id, Request) ->
    Link = proplists:get_value(link, Config),
    ok = megaphone_test_link:send(Link, [open(Id), {data, Id, iolist_to_binary(Request)}]),
    linked_answer(Link, Id, <<>>).

linked_answer(Link, Id, Got) ->
    case megaphone_test_link:next(Link) of
        {data, Id, Data} ->
            linked_answer(Link, Id, <<Got/binary, Data/binary>>);
        {window, Id, _} ->
            linked_answer(Link, Id, Got);
        {ready, Id, 0} ->
            ok = megaphone_test_link:close(Link, Id),
            {Got, goes_on};
        {close, Id, _} ->
            ok = megaphone_test_link:send(Link, {close, Id, 0}),
            {Got, closes}
    end.

a_held_poll_is_a_small_process(Config) ->
    %% A poll that is held is one process, which waits for its BOSH session and takes a few kB; its connection takes
    %% nothing but its place in the table.
    [Poll] = held(Config, 1),
    Info = fun(Item) -> element(2, call(node_of(Config), erlang, process_info, [Poll, Item])) end,
    ?assertMatch([{process, _}], Info(monitors)),
    true = call(node_of(Config), erlang, garbage_collect, [Poll]),
    ?assert(Info(memory) =< 3000),
    ?assertMatch(#{busy := 0, connections := 1}, megaphone_test_node:stats(node_of(Config))).

a_killed_poll_closes_its_connection(Config) ->
    %% The process of a poll is killed: the client's connection is closed, nothing hangs.
    [Poll] = held(Config, 1),
    true = call(node_of(Config), erlang, exit, [Poll, kill]),
    Link = proplists:get_value(link, Config),
    ?assertEqual({close, 1, 0}, megaphone_test_link:next(Link)),
    ok = megaphone_test_link:send(Link, {close, 1, 0}).

a_poll_ends_with_its_link(Config) ->
    %% The link goes: all the polls that came by it end at once, and are counted.
    Node = node_of(Config),
    Abandoned = fun() -> maps:get(abandoned, call(Node, megaphone_nif, counters, [])) end,
    Before = Abandoned(),
    Polls = lists:append([held(Config, Id) || Id <- lists:seq(1, 20)]),
    ok = megaphone_test_link:disconnect(proplists:get_value(link, Config)),
    ok = wait_until(fun() -> not lists:any(fun(Pid) -> call(Node, erlang, is_process_alive, [Pid]) end, Polls) end),
    ?assertEqual(Before + 20, Abandoned()).

%% A session is made, and a poll of it is held on this connection; its process.
held(Config, Id) ->
    Link = proplists:get_value(link, Config),
    Before = polls(Config),
    ok = megaphone_test_link:send(Link, [open(Id), {data, Id, request("POST", "/bosh", [], ?CREATE)}]),
    {200, Created, {ready, Id, 0}} = megaphone_test_link:answer(Link, Id),
    {match, [Sid]} = re:run(Created, " sid='([^']*)'", [{capture, all_but_first, binary}]),
    Poll = ["<body xmlns='http://jabber.org/protocol/httpbind' rid='2' sid='", Sid, "'/>"],
    ok = megaphone_test_link:send(Link, {data, Id, request("POST", "/bosh", [], Poll)}),
    ok = wait_until(fun() -> length(polls(Config) -- Before) =:= 1 end),
    polls(Config) -- Before.

polls(Config) ->
    [Pid || {poll, Pid} <- call(node_of(Config), megaphone_test_node, leftovers, [])].

the_next_request_waits_its_turn(Config) ->
    %% Requests that stand behind each other on one connection are answered one after the other, polls and others.
    Link = proplists:get_value(link, Config),
    Unknown = request("POST", "/bosh", [], ?UNKNOWN),
    Echo = request("POST", "/test/echo", [], "x"),
    ok = megaphone_test_link:send(Link, [open(1), {data, 1, iolist_to_binary([Unknown, Unknown, Echo, Unknown, Echo])}]),
    %% The answers to the polls are alike, and so are those to the others.
    Answers = answers(Link, 1, 5, <<>>),
    ?assertMatch([A, A, B, A, B] when A =/= B, Answers).

%% So many answers, and nothing more; `ready' may come between them or not.
answers(Link, Id, Count, Got) ->
    Found = [<<"HTTP/1.1 200", Rest/binary>> || Rest <- tl(binary:split(Got, <<"HTTP/1.1 200">>, [global]))],
    case megaphone_test_link:next(Link) of
        {data, Id, Data} ->
            answers(Link, Id, Count, <<Got/binary, Data/binary>>);
        {ready, Id, 0} when length(Found) =:= Count ->
            ok = megaphone_test_link:close(Link, Id),
            Found;
        {Other, Id, _} when Other =:= ready; Other =:= window ->
            answers(Link, Id, Count, Got)
    end.

proxies_are_trusted_as_configured(Config) ->
    %% Of X-Forwarded-For the first address counts when all behind it are trusted proxies, the peer included.
    Peer = {{10, 1, 1, 1}, 5},
    Client = fun(From, Field) -> call(node_of(Config), megaphone_http, client, [From, Field]) end,
    ?assertEqual({ok, Peer}, Client(Peer, undefined)),
    ?assertEqual({ok, Peer}, Client(Peer, <<>>)),
    ?assertEqual({ok, {{1, 2, 3, 4}, 5}}, Client(Peer, <<"1.2.3.4">>)),
    ?assertEqual({ok, {{1, 2, 3, 4}, 5}}, Client(Peer, <<"1.2.3.4, 10.3.3.3,10.2.2.2">>)),
    ?assertEqual({ok, Peer}, Client(Peer, <<"1.2.3.4, 11.3.3.3, 10.2.2.2">>)),
    ?assertEqual({ok, Peer}, Client(Peer, <<"1.2.3.4, nonsense">>)),
    ?assertEqual({error, einval}, Client(Peer, <<"nonsense">>)),
    ?assertEqual({ok, {{11, 1, 1, 1}, 5}}, Client({{11, 1, 1, 1}, 5}, <<"1.2.3.4">>)).

the_request_is_as_ejabberd_has_it(Config) ->
    %% The record that mod_bosh is given has the fields that the running ejabberd declares, in their order.
    Lib = call(node_of(Config), code, lib_dir, [ejabberd]),
    [Header | _] = filelib:wildcard(filename:join([filename:dirname(Lib), "ejabberd-*", "include", "ejabberd_http.hrl"])),
    {ok, Forms} = epp:parse_file(Header, []),
    {ok, {_, [{abstract_code, {_, Own}}]}} = beam_lib:chunks(code:which(megaphone_poll), [abstract_code]),
    ?assertEqual(fields(Forms), fields(Own)).

fields(Forms) ->
    [Fields] = [Fields || {attribute, _, record, {request, Fields}} <- Forms],
    [field(Field) || Field <- Fields].

field({typed_record_field, Field, _Type}) -> field(Field);
field({record_field, _, {atom, _, Name}}) -> Name;
field({record_field, _, {atom, _, Name}, _Default}) -> Name.
