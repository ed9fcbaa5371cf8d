%% What is large holds up nothing that is small: one link carries a download of 100 MB, without pause, and a chat.
-module(fairness_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_node, [address/2, listener/3, handlers/0]).

-define(SIZE, 104857600).
-define(PINGS, 200).
%% Milliseconds that a download may add to the 95th percentile of pings. On one machine it takes processor time from all.
-define(MORE, 20).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [a_download_leaves_a_chat_its_latency].

init_per_suite(Config) ->
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [listener(megaphone, 1, [handlers()])]),
    {ok, File} = file:open(filename:join([maps:get(dir, Node), "files", "large"]), [write, raw]),
    {ok, ?SIZE} = file:position(File, ?SIZE),
    ok = file:truncate(File),
    ok = file:close(File),
    {Ecm, Port} = megaphone_test_program:ecm(megaphone_test_program:server(address(Node, megaphone))),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_only_links(proplists:get_value(node, Config), 1) end).

a_download_leaves_a_chat_its_latency(Config) ->
    Port = proplists:get_value(port, Config),
    {Socket, _} = megaphone_test_http:connect(Port, {127, 0, 0, 1}),
    {Sid, _Jid, First} = megaphone_test_http:bosh_login(Socket),
    {Alone, Second} = pings(Socket, Sid, First),
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/files/large", [Port])),
    Script = "while curl -s -H 'Host: localhost' -o " ++ filename:join(maps:get(dir, proplists:get_value(node, Config)), "got") ++ " -w '%{size_download}\\n' " ++ Url ++ "; do :; done",
    Downloads = megaphone_test_program:start("/bin/sh", ["-c", Script], #{}),
    %% One is through, the next one runs.
    Done = megaphone_test_program:await_line(Downloads, integer_to_list(?SIZE), 30000),
    ?assertEqual(integer_to_binary(?SIZE), Done),
    {Beside, Third} = pings(Socket, Sid, Second),
    ok = megaphone_test_program:signal(Downloads, "KILL"),
    _ = os:cmd("pkill -KILL -f " ++ Url),
    ok = megaphone_test_http:bosh_end(Socket, Sid, Third),
    ok = gen_tcp:close(Socket),
    io:format("pings, median and 95th percentile in ms: alone ~p, beside downloads ~p~n", [Alone, Beside]),
    {_, AloneP95} = Alone,
    {_, BesideP95} = Beside,
    ?assert(BesideP95 =< AloneP95 + ?MORE, {Alone, Beside}).

%% Median and 95th percentile of the time of pings, one after the other, in milliseconds.
pings(Socket, Sid, Rid) ->
    Times = lists:sort([ping(Socket, Sid, Rid + N) || N <- lists:seq(0, ?PINGS - 1)]),
    {{lists:nth(?PINGS div 2, Times), lists:nth(?PINGS * 95 div 100, Times)}, Rid + ?PINGS}.

ping(Socket, Sid, Rid) ->
    Began = erlang:monotonic_time(microsecond),
    Answer = megaphone_test_http:bosh(Socket, Sid, Rid, "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"),
    {match, _} = re:run(Answer, "type='result'"),
    (erlang:monotonic_time(microsecond) - Began) / 1000.
