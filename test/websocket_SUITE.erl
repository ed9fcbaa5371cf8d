%% WebSockets of real clients end in a real connection manager, and their sessions are client sessions of a real ejabberd
%% and nothing else: what people use of a chat server, by @xmpp/client; Strophe.js is in ejabberd_SUITE. And a stanza is what
%% it is by ejabberd's own WebSocket.
-module(websocket_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).
-import(megaphone_test_program, [client/3, await_exit/1]).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [scram, plain, by_tls, ejabberds_own, through_to_ejabberds_own, stanzas_are_those_of_ejabberds_own].

-define(STANZAS, 200).

init_per_suite(Config) ->
    Listeners = [
        listener(megaphone, 1, [handlers()]),
        listener(megaphone, 2, [handlers(), "websocket: ejabberd_http_ws"]),
        listener(ejabberd_http, 3, [handlers()])
    ],
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    ok = megaphone_test_node:write_config(Dir, Listeners),
    File = filename:join(Dir, "ejabberd.yml"),
    {ok, Yaml} = file:read_file(File),
    More = "mod_bosh: {}\n  mod_carboncopy: {}\n  mod_muc: {}\n  mod_mam:\n    db_type: mnesia\n    default: always",
    ok = file:write_file(File, string:replace(Yaml, "mod_bosh: {}", More)),
    Node = megaphone_test_node:start_in(Dir),
    {Ecm, Port} = megaphone_test_program:ecm(server(Node, 1)),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    megaphone_test_node:stop_without_errors(node_of(Config)).

init_per_testcase(_Case, Config) -> Config.

%% Clients have gone in good order: only the link is left.
end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_only_links(node_of(Config), 1) end).

node_of(Config) -> proplists:get_value(node, Config).

server(Node, Number) ->
    megaphone_test_program:server(address(Node, {megaphone, Number})).

url(Scheme, Ip, Port) ->
    lists:flatten(io_lib:format("~s://~s:~b/ws", [Scheme, Ip, Port])).

users(Config) ->
    Name = "w" ++ integer_to_list(erlang:unique_integer([positive])),
    [
        begin
            ok = megaphone_test_node:register_user(node_of(Config), list_to_binary(User), <<"pass-of-the-tests">>),
            User
        end
     || User <- [Name ++ "a", Name ++ "b"]
    ].

%% What people use: see test/clients/xmppjs.mjs.
use(Url, Mechanism, Env, Config) ->
    {Status, Output} = await_exit(client("xmppjs.mjs", [
        "--url", Url, "--domain", "localhost", "--users", lists:join(",", users(Config)),
        "--passwords", "pass-of-the-tests", "--mechanism", Mechanism
    ], #{env => Env})),
    ?assertEqual({0, Output}, {Status, Output}).

scram(Config) ->
    %% Login, roster, presence, chat, a room, carbons, the archive, and resumption after cuts, with SCRAM.
    use(url("ws", "127.0.0.1", proplists:get_value(port, Config)), "SCRAM-SHA-1", [], Config),
    %% They were native ones: no process of ejabberd_http was ever asked.
    #{connections := 0} = call(node_of(Config), megaphone_nif, stats, []).

plain(Config) ->
    %% The same with PLAIN.
    use(url("ws", "127.0.0.1", proplists:get_value(port, Config)), "PLAIN", [], Config).

by_tls(Config) ->
    %% The same with TLS to the connection manager.
    {Secure, Port, Certificate} = megaphone_test_program:secure_ecm(server(node_of(Config), 1), proplists:get_value(priv_dir, Config)),
    use(url("wss", "127.0.0.1", Port), "SCRAM-SHA-1", [{"NODE_EXTRA_CA_CERTS", Certificate}], Config),
    {0, _} = megaphone_test_program:stop(Secure),
    ok = wait_until(fun() -> length(call(node_of(Config), megaphone, links, [])) =:= 1 end).

ejabberds_own(Config) ->
    %% The same client finds the same at ejabberd's own listener: what passes above is not weaker than it.
    {Ip, Port} = address(node_of(Config), ejabberd_http),
    use(url("ws", inet:ntoa(Ip), Port), "SCRAM-SHA-1", [], Config).

through_to_ejabberds_own(Config) ->
    %% A listener with `websocket: ejabberd_http_ws' carries WebSockets through, as before.
    {Ecm, Port} = megaphone_test_program:ecm(server(node_of(Config), 2)),
    use(url("ws", "127.0.0.1", Port), "SCRAM-SHA-1", [], Config),
    {0, _} = megaphone_test_program:stop(Ecm),
    ok = wait_until(fun() -> length(call(node_of(Config), megaphone, links, [])) =:= 1 end).

%% ---- stanzas ---------------------------------------------------------------------------------------------------

stanzas_are_those_of_ejabberds_own(Config) ->
    %% Random stanzas arrive as they arrive when both users come by ejabberd's own WebSocket.
    Native = pair(proplists:get_value(port, Config), {127, 0, 0, 1}),
    {Ip, Port} = address(node_of(Config), ejabberd_http),
    Own = pair(Port, Ip),
    Seed = erlang:unique_integer(),
    _ = rand:seed(exsss, Seed),
    _ = [
        begin
            Stanza = stanza(),
            Expected = pass(Stanza, Own),
            ?assertEqual({Seed, Number, Stanza, Expected}, {Seed, Number, Stanza, pass(Stanza, Native)})
        end
     || Number <- lists:seq(1, ?STANZAS)
    ],
    [ok = gen_tcp:close(Socket) || {Socket, _} <- tuple_to_list(Native) ++ tuple_to_list(Own)].

pair(Port, Ip) ->
    [One, Other] = [
        begin
            {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}, {nodelay, true}]),
            {Socket, megaphone_test_http:websocket_login(Socket)}
        end
     || _ <- [1, 2]
    ],
    {One, Other}.

%% What the one user gets of a stanza of the other, with names instead of JIDs.
pass(Stanza, {{Socket, From}, {Receiver, To}}) ->
    ok = megaphone_test_http:text(Socket, string:replace(Stanza, "RECEIVER", To)),
    Text = megaphone_test_http:until(Receiver, "<message"),
    Named = lists:foldl(
        fun({Jid, Name}, Before) -> binary:replace(Before, Jid, Name, [global]) end,
        Text,
        [{From, <<"sender">>}, {To, <<"receiver">>}]
    ),
    El = fxml_stream:parse_element(Named),
    ?assertEqual(xmlel, element(1, El)),
    sorted(El).

%% The order of attributes has no meaning; the numbers of the archive are new each time.
sorted({xmlel, Name, Attrs, Els}) -> {xmlel, Name, lists:sort(Attrs), [sorted(El) || El <- Els, not is_number_of_archive(El)]};
sorted(Text) -> Text.

is_number_of_archive({xmlel, Name, _, _}) -> lists:member(Name, [<<"archived">>, <<"stanza-id">>]);
is_number_of_archive(_Text) -> false.

stanza() ->
    unicode:characters_to_binary([
        "<message xmlns='jabber:client' type='chat' to='RECEIVER' id='", one_of(["1", "&lt;&quot;&amp;", "a&#x20AC;"]), "'><body>", text(), "</body>",
        [element(3) || _ <- lists:seq(1, rand:uniform(4))], "</message>"
    ]).

element(Depth) ->
    {Name, Namespaces} = one_of([
        {"x", " xmlns='urn:example:a'"}, {"y", ""}, {"p:z", " xmlns:p='urn:example:p'"}, {"stream:q", " xmlns:stream='urn:example:s'"},
        {[16#e9, $l], " xmlns=\"urn:example:&amp;b\""}
    ]),
    Attributes = [[" ", AttributeName, "=", Quote, Value, Quote] ||
        {AttributeName, Quote, Value} <- [
            {"a", "'", one_of(["", "v", "&apos;&#10;\"", "\t x"])}, {"xml:lang", "\"", one_of(["en", "'&lt;'"])}, {"b-1", "'", [16#1F600]}
        ],
        rand:uniform(2) =:= 1
    ],
    case rand:uniform(3) of
        1 -> ["<", Name, Namespaces, Attributes, "/>"];
        _ -> ["<", Name, Namespaces, Attributes, ">", content(Depth), "</", Name, one_of(["", " ", "\n"]), ">"]
    end.

content(0) -> text();
content(Depth) -> [one_of([text(), element(Depth - 1)]) || _ <- lists:seq(1, rand:uniform(3))].

text() ->
    one_of([
        "", " ", "words", "\r\n\t", "&lt;b&gt;&amp;amp;&quot;&apos;", "<![CDATA[<&>]]>", "a<![CDATA[]]>b<![CDATA[]]]>c", "&#x1F600;&#9;&#13;",
        [16#20AC, 16#10FFFD, 16#D7FF, 16#E000], lists:duplicate(rand:uniform(3000), $x), "]]&gt;"
    ]).

one_of(Choices) -> lists:nth(rand:uniform(length(Choices)), Choices).
