%% The connection manager is stricter than erlang:decode_packet/3, with which ejabberd reads requests. All that it refuses
%% and decode_packet takes is in a table of docs/http.md; the table is read from there and tried with both.
-module(strict_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_docs, [table/2]).
-import(megaphone_test_node, [address/2, call/4, listener/3, handlers/0]).

-define(DIFFERENCES, <<"## What decode_packet takes and the ECM refuses">>).
-define(REFUSALS, <<"## What is refused">>).

%% A request that both take, and bytes that parsers disagree about: each is put into it everywhere.
-define(PLAIN, <<"GET /a HTTP/1.1\r\nHost: ab\r\nX: yz\r\n\r\n">>).
-define(SPICES, <<0, $\t, $\n, $\r, $\s, $", $#, $*, $,, $/, $0, $9, $:, $;, $@, $A, 16#7f, 16#80, 16#ff>>).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [decode_packet_takes_every_example, the_connection_manager_refuses_every_example, every_reason_has_an_example, nothing_else_is_refused].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?MODULE),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    Node = megaphone_test_node:start(Dir, [listener(megaphone, 1, [handlers()])]),
    {Ecm, Port} = megaphone_test_program:ecm(megaphone_test_program:server(address(Node, megaphone))),
    {ok, Document} = file:read_file(filename:join([megaphone_test_program:root(), "docs", "http.md"])),
    Rows = [row(Cells) || Cells <- table(?DIFFERENCES, Document)],
    Reasons = [{binary_to_integer(Status), Reason} || [Status, Reason, _, _] <- table(?REFUSALS, Document)],
    [{node, Node}, {ecm, Ecm}, {port, Port}, {rows, Rows}, {reasons, Reasons} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    Node = proplists:get_value(node, Config),
    ok = megaphone_test_node:assert_quiet(Node),
    ok = megaphone_test_node:stop_without_errors(Node).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_only_links(proplists:get_value(node, Config), 1) end).

%% ---- the document ----------------------------------------------------------------------------------------------

%% An example may end in spaces and hold any number of them; it has no bar.
row([What, Code, Status, Reason, <<_, _/binary>> = _Why]) ->
    Size = byte_size(Code) - 2,
    <<"`", Text:Size/binary, "`">> = Code,
    #{what => What, example => iolist_to_binary(unescaped(Text)), status => binary_to_integer(Status), reason => Reason}.

unescaped(<<"\\r", Rest/binary>>) -> [$\r | unescaped(Rest)];
unescaped(<<"\\n", Rest/binary>>) -> [$\n | unescaped(Rest)];
unescaped(<<"\\t", Rest/binary>>) -> [$\t | unescaped(Rest)];
unescaped(<<"\\x", Digits:2/binary, Rest/binary>>) -> [binary_to_integer(Digits, 16) | unescaped(Rest)];
unescaped(<<"{", Rest/binary>>) ->
    [Repeated, After] = binary:split(Rest, <<"}">>),
    [Count, Text] = binary:split(Repeated, <<"*">>),
    [lists:duplicate(binary_to_integer(Count), unescaped(Text)) | unescaped(After)];
unescaped(<<Byte, Rest/binary>>) when Byte =/= $\\ -> [Byte | unescaped(Rest)];
unescaped(<<>>) -> [].

%% ---- the two parsers -------------------------------------------------------------------------------------------

%% Whether decode_packet takes all of these bytes as one request head.
is_taken(Bytes) ->
    case erlang:decode_packet(http_bin, Bytes, []) of
        {ok, {http_request, _, _, _}, Rest} -> are_fields(Rest);
        _ -> false
    end.

are_fields(Bytes) ->
    case erlang:decode_packet(httph_bin, Bytes, []) of
        {ok, {http_header, _, _, _, _}, Rest} -> are_fields(Rest);
        {ok, http_eoh, Rest} -> Rest =:= <<>>;
        _ -> false
    end.

%% The status and the reason of the connection manager, which then ends the connection; or `taken': the answer is
%% ejabberd's own, and the connection serves the next request, after HTTP/1.1.
judged(Config, Bytes) ->
    {Socket, _} = megaphone_test_http:connect(proplists:get_value(port, Config), {127, 0, 0, 1}),
    ok = gen_tcp:send(Socket, Bytes),
    {Status, Body} = megaphone_test_http:read(Socket),
    Answer = {Status, string:trim(Body)},
    IsRefused = lists:member(Answer, proplists:get_value(reasons, Config)),
    case IsRefused orelse is_old(Bytes) of
        true ->
            ?assertEqual({error, closed}, gen_tcp:recv(Socket, 0, ?DEADLINE), {Bytes, Answer});
        false ->
            ok = gen_tcp:send(Socket, <<"OPTIONS /bosh HTTP/1.1\r\nHost: localhost\r\n\r\n">>),
            ?assertMatch({200, _}, megaphone_test_http:read(Socket), {Bytes, Answer})
    end,
    ok = gen_tcp:close(Socket),
    case IsRefused of
        true -> Answer;
        false -> taken
    end.

is_old(Bytes) ->
    case erlang:decode_packet(http_bin, Bytes, []) of
        {ok, {http_request, _, _, Version}, _} -> Version =:= {1, 0};
        _ -> false
    end.

%% ---- cases -----------------------------------------------------------------------------------------------------

decode_packet_takes_every_example(Config) ->
    %% Each row of the table is a difference: decode_packet takes the whole example. No two rows are the same.
    Rows = proplists:get_value(rows, Config),
    ?assertNotEqual([], Rows),
    [?assert(is_taken(Example), What) || #{what := What, example := Example} <- Rows],
    ?assertEqual(length(Rows), length(lists:usort([What || #{what := What} <- Rows]))),
    ?assertEqual(length(Rows), length(lists:usort([Example || #{example := Example} <- Rows]))).

the_connection_manager_refuses_every_example(Config) ->
    %% Each is refused with the status and the reason of its row, the connection ends, and ejabberd sees nothing of it.
    Node = proplists:get_value(node, Config),
    #{opened := Before} = hd(call(Node, megaphone, links, [])),
    lists:foreach(
        fun(#{what := What, example := Example, status := Status, reason := Reason}) ->
            ?assertEqual({What, {Status, Reason}}, {What, judged(Config, Example)})
        end,
        proplists:get_value(rows, Config)
    ),
    ?assertMatch(#{opened := Before}, hd(call(Node, megaphone, links, []))).

every_reason_has_an_example(Config) ->
    %% Every reason for which a head is refused is in the table, except the one that decode_packet refuses, too. The last
    %% three are about bodies, of which decode_packet knows nothing.
    Reasons = proplists:get_value(reasons, Config),
    Heads = lists:sublist(Reasons, length(Reasons) - 3) -- [{400, <<"too many empty lines before the request">>}],
    Shown = [{Status, Reason} || #{status := Status, reason := Reason} <- proplists:get_value(rows, Config)],
    ?assertEqual(lists:usort(Heads), lists:usort(Shown)),
    ?assertNot(is_taken(<<"\r\n", ?PLAIN/binary>>)),
    ?assertEqual(taken, judged(Config, <<"\r\n", ?PLAIN/binary>>)).

nothing_else_is_refused(Config) ->
    %% Whatever byte is put into a request, or in place of one of its own: what decode_packet takes is taken, or it is
    %% refused as some row of the table says.
    Known = [{Status, Reason} || #{status := Status, reason := Reason} <- proplists:get_value(rows, Config)],
    Changed = lists:usort([Bytes || Bytes <- changed(?PLAIN), is_taken(Bytes)]),
    Verdicts = [{judged(Config, Bytes), Bytes} || Bytes <- Changed],
    ?assertEqual([], [Verdict || {Result, _} = Verdict <- Verdicts, not lists:member(Result, [taken | Known])]),
    %% The bytes are worth trying: many are taken by both, and many by one only.
    {Taken, Refused} = lists:partition(fun({Result, _}) -> Result =:= taken end, Verdicts),
    ?assert(length(Taken) > 100, length(Taken)),
    ?assert(length(Refused) > 100, length(Refused)).

changed(Bytes) ->
    lists:append([
        begin
            <<Before:At/binary, Own, After/binary>> = Bytes,
            [<<Before/binary, Spice, Own, After/binary>>, <<Before/binary, Spice, After/binary>>]
        end
     || At <- lists:seq(0, byte_size(Bytes) - 1), <<Spice>> <= ?SPICES
    ]).
