%% Clients that do not behave, beside the users of a soak: half requests, garbage, no reading, sessions that are made and
%% forgotten, and all the attacks of megaphone_test_bosh_attacks. What they are answered does not matter here, and may be
%% nothing, since everything breaks: what matters is that nobody suffers and nothing stays behind.
-module(megaphone_test_soak_rude).

-include("megaphone_test.hrl").

-export([start/3, stop/1, count/1]).
-export_type([rude/0]).

-opaque rude() :: {pid(), counters:counters_ref()}.

%% Milliseconds that a client holds on to what it has begun.
-define(HELD, 4000).
%% Addresses of their own: what is limited for each is not limited for the users.
-define(ADDRESSES, 50).

%% One after the other until stopped, `Pause' milliseconds apart, each in a process of its own.
-spec start([inet:port_number()], pos_integer(), non_neg_integer()) -> rude().
start(Ports, Pause, Seed) ->
    Counter = counters:new(1, []),
    {spawn_link(fun() -> loop(Ports, Pause, rand:seed_s(exsss, Seed), Counter, []) end), Counter}.

%% Waits for those that are still at it.
-spec stop(rude()) -> ok.
stop({Pid, _}) ->
    MRef = monitor(process, Pid),
    Pid ! stop,
    receive
        {'DOWN', MRef, _, _, normal} -> ok
    end.

%% How many there have been.
-spec count(rude()) -> non_neg_integer().
count({_, Counter}) -> counters:get(Counter, 1).

loop(Ports, Pause, Rand0, Counter, Running) ->
    receive
        stop ->
            lists:foreach(
                fun(MRef) ->
                    receive {'DOWN', MRef, _, _, _} -> ok end
                end,
                Running
            );
        {'DOWN', MRef, _, _, _} ->
            loop(Ports, Pause, Rand0, Counter, lists:delete(MRef, Running))
    after Pause ->
        {Seed, Rand1} = rand:uniform_s(1 bsl 32, Rand0),
        {Which, Rand} = rand:uniform_s(length(Ports), Rand1),
        ok = counters:add(Counter, 1, 1),
        {_, MRef} = spawn_monitor(fun() -> be(Seed, lists:nth(Which, Ports)) end),
        loop(Ports, Pause, Rand, Counter, [MRef | Running])
    end.

-spec be(pos_integer(), inet:port_number()) -> term().
be(Seed, Port) ->
    _ = rand:seed(exsss, Seed),
    From = {127, 0, 1, rand:uniform(?ADDRESSES)},
    Where = #{port => Port, from => From, host => <<"localhost">>, kind => native},
    Kinds = megaphone_test_bosh_attacks:kinds() -- [sid_of_another],
    Own = [half_head, half_body, garbage, websocket_half, websocket_garbage, silent_websocket, reads_nothing, forgotten, leaves_without_a_word],
    %% What everybody hears of it, an exit or an answer that is missing, is of no interest.
    catch case rand:uniform(2) of
        1 -> megaphone_test_bosh_attacks:attack(one_of(Kinds), Where);
        2 -> do(one_of(Own), Where)
    end.

one_of(List) -> lists:nth(rand:uniform(length(List)), List).

hold() ->
    receive after rand:uniform(?HELD) -> ok end.

do(half_head, Where) ->
    sent(Where, "POST /bosh HTTP/1.1\r\nHost: local");
do(half_body, Where) ->
    sent(Where, "POST /bosh HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n<body rid='1' ");
do(garbage, Where) ->
    sent(Where, rand:bytes(rand:uniform(5000)));
do(websocket_half, Where) ->
    sent(Where, [handshake(), <<16#81, 16#FE, 1000:16, 0:32, "<open ">>]);
do(websocket_garbage, Where) ->
    sent(Where, [handshake(), rand:bytes(rand:uniform(5000))]);
do(silent_websocket, Where) ->
    sent(Where, handshake());
do(reads_nothing, Where) ->
    %% He is sent more than he takes.
    User = megaphone_test_bosh_user:login(Where#{node => none}),
    Text = binary:copy(<<"x">>, 100_000),
    _ = lists:foldl(
        fun(_, Each) -> megaphone_test_bosh_user:send(Each, megaphone_test_bosh_user:message(megaphone_test_bosh_user:jid(Each), Text)) end,
        User,
        lists:seq(1, 2)
    ),
    hold();
do(forgotten, Where) ->
    {_Socket, _Session} = megaphone_test_bosh:created(Where),
    hold();
do(leaves_without_a_word, Where) ->
    _ = megaphone_test_bosh_user:online(Where#{node => none}),
    hold().

handshake() ->
    "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n".

%% Nothing is read of what it is answered, and the end is a close or a reset.
sent(Where, Bytes) ->
    Socket = megaphone_test_bosh:connect(Where),
    ok = inet:setopts(Socket, [{linger, {rand:uniform(2) =:= 1, 0}}]),
    ok = gen_tcp:send(Socket, Bytes),
    hold(),
    gen_tcp:close(Socket).
