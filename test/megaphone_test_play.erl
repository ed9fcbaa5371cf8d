%% Plays scripts: two to four processes work at once on the same connections, and all that they do, are answered and are
%% sent is recorded, one history for each connection (see megaphone_test_model).
%%
%% Connections: `a' is read in bytes; `b' in the script's packet mode, and another one takes its place when a worker opens
%% one; `old' is a stale handle at first, whose place in the table has gone to `a', and later the `b' before.
%%
%% The process that opens `a' and `b', the host, only gets messages, as do the `ears' for which workers ask. So both can be
%% killed at a known moment; a worker may die when it has done its work.
-module(megaphone_test_play).

-include("megaphone_test.hrl").

-export([play/2, way/1]).
-export_type([script/0, step/0]).

-type slot() :: a | b | old.
-type step() ::
    {put | send | recv | tcp_recv, slot(), non_neg_integer()}
    | {get_data | ask | recv_packet | output | close | info, slot()}
    | {active, slot(), megaphone_nif:active()}
    | {packet, slot(), raw | http_bin | httph_bin}
    | {own, slot(), self | ear | host | new}
    | {shutdown, slot(), read | write | read_write}
    | {crowd, step(), pos_integer()}
    | {kill, ear | host}
    | cancel
    | open.
-type mode() :: raw | http | modes.
-type script() :: {Seed :: non_neg_integer(), mode(), Before :: [step()], Workers :: [{[step()], Dies :: boolean()}]}.

-type stamp() :: non_neg_integer().
-type death() :: {pid(), megaphone_test_history:mail(), Seen :: stamp(), Start :: stamp(), End :: stamp()}.

%% A process at work: where the common things are, and what it has seen so far, the latest first.
-record(w, {
    shared :: ets:tid(),
    counters :: atomics:atomics_ref(),
    mode :: mode(),
    way :: apart | by_turns,
    rand :: rand:state(),
    log = [] :: [{megaphone:handle(), megaphone_test_model:operation()}],
    mail = [] :: megaphone_test_history:mail(),
    looked = 0 :: stamp(),
    waits = [] :: [{megaphone:handle(), megaphone_nif:token()}],
    deaths = [] :: [death()]
}).

-define(CLOCK, 1).
-define(BYTE, 2).
%% From here on: how many have come to the start, and to each step.
-define(BARRIER, 3).
-define(COUNTERS, 40).
%% From this size on data is of zeros: more than the table joins to other pieces.
-define(LARGE, 5000).
%% Milliseconds in which the table has to learn of a death.
-define(PATIENCE, 1000).

%% ---- all together ----------------------------------------------------------------------------------------------------

%% The function is asked about what was recorded before the connections are closed at last. When a process has died that
%% may be too early: nothing tells when the table has learned of a death. Then it is asked again, until it agrees or it
%% has had time enough.
-spec play(script(), fun((megaphone_test_history:sorted()) -> boolean())) -> megaphone_test_history:sorted().
play({Seed, Mode, Before, Scripts}, Holds) ->
    Shared = ets:new(shared, [public]),
    W = #w{shared = Shared, counters = atomics:new(?COUNTERS, []), mode = Mode, way = way(Seed), rand = rand:seed_s(exsss, Seed)},
    Main = self(),
    Host = start(fun() -> host(Main, Before, W) end, W),
    try
        HostDone = done(Host),
        ets:insert(Shared, [{host, Host}, {{last, host}, Host}]),
        Count = length(Scripts),
        Workers = [
            start(fun() -> worker(Main, Count, Number, Script, W#w{rand = rand:seed_s(exsss, Seed + Number)}) end, W)
         || {Number, Script} <- lists:zip(lists:seq(1, Count), Scripts)
        ],
        Done = [{Worker, done(Worker)} || Worker <- Workers],
        Ends = [own_death(Worker, WorkerDone) || {{Worker, WorkerDone}, {_, true}} <- lists:zip(Done, Scripts)],
        Deaths = Ends ++ [also(Death, Host, HostDone) || {_, #w{deaths = Killed}} <- [{Host, HostDone} | Done], Death <- Killed],
        finish(W, [{Host, HostDone} | Done], Deaths, Holds, erlang:monotonic_time(millisecond) + ?PATIENCE)
    after
        [kill(Pid) || {{made, Pid}} <- ets:tab2list(Shared)],
        ets:delete(Shared)
    end.

%% How operations come to overlap: on several schedulers really at once, if the machine is free for that; or by turns, on
%% one scheduler.
-spec way(non_neg_integer()) -> apart | by_turns.
way(Seed) ->
    case Seed rem 2 of
        0 -> apart;
        1 -> by_turns
    end.

start(Fun, #w{shared = Shared}) ->
    Pid = spawn(Fun),
    ets:insert(Shared, {{made, Pid}}),
    Pid.

done(Pid) ->
    receive {done, Pid, W} -> W after ?DEADLINE -> error({not_done, process_info(Pid, current_stacktrace)}) end.

%% A worker dies after it has looked for messages once more.
own_death(Pid, #w{mail = Mail, looked = Looked, counters = Counters}) ->
    ended(Pid, monitor(process, Pid)),
    {Pid, lists:reverse(Mail), Looked, Looked, stamp(Counters)}.

ended(Pid, Monitor) ->
    receive {'DOWN', Monitor, process, Pid, _} -> ok after ?DEADLINE -> error({lives, Pid}) end.

%% Who killed the host has not seen what came to it while it still worked.
also({Host, Mail, Seen, Start, End}, Host, #w{mail = Before}) -> {Host, lists:reverse(Before, Mail), Seen, Start, End};
also(Death, _Host, _HostDone) -> Death.

kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    ended(Pid, Monitor).

%% ---- processes -------------------------------------------------------------------------------------------------------

host(Main, Before, #w{shared = Shared, mode = Mode} = W0) ->
    {_, _, Slot, _} = Old = open(raw, W0),
    W = call(Old, close, W0),
    ets:insert(Shared, [{a, open_at(Slot, W)}, {b, open(packet(Mode), W)}, {old, Old}]),
    Main ! {done, self(), lists:foldl(fun step/2, W, Before)},
    be_silent().

packet(raw) -> raw;
packet(_) -> http_bin.

open(Packet, #w{shared = Shared}) ->
    {ok, Handle} = megaphone:open(#{packet => Packet}),
    ets:insert(Shared, {{opened, Handle}, self(), Packet}),
    Handle.

%% A connection at the place of one that is gone: all that is free of a shard is used again first.
open_at(Slot, #w{shared = Shared} = W) ->
    case megaphone:open(#{packet => raw}) of
        {ok, {_, _, Slot, _} = Handle} ->
            ets:insert(Shared, {{opened, Handle}, self(), raw}),
            Handle;
        {ok, Other} ->
            ok = megaphone:close(Other),
            open_at(Slot, W)
    end.

%% Left to itself the VM runs such short lives on one scheduler.
worker(Main, Count, Number, {Steps, Dies}, #w{way = Way, counters = Counters} = W0) ->
    process_flag(scheduler, 1 + case Way of apart -> Number rem erlang:system_info(schedulers_online); by_turns -> 0 end),
    erlang:yield(),
    meet(?BARRIER, Count, infinity, Counters),
    W = lists:foldl(fun({At, Step}, Now) -> step(Step, pause(At, Count, Now)) end, W0, lists:enumerate(Steps)),
    Main ! {done, self(), look(W)},
    Dies orelse be_silent().

%% Before a step: it waits for the others to come to theirs, or does not.
pause(At, Count, #w{rand = Rand0, counters = Counters} = W) ->
    {Kind, Rand} = rand:uniform_s(8, Rand0),
    Place = ?BARRIER + At,
    if
        Kind =< 5 -> meet(Place, Count, 20, Counters);
        Kind =:= 6 -> atomics:add(Counters, Place, 1), erlang:yield();
        true -> atomics:add(Counters, Place, 1)
    end,
    W#w{rand = Rand}.

%% Nobody sleeps, so that all go on in the same microsecond if there are schedulers for them. It has to end even if the
%% others do not come: some have fewer steps.
meet(Place, Count, Tries, Counters) ->
    meet(Place, Count, Tries, atomics:add_get(Counters, Place, 1), Counters).

meet(_Place, _Count, 0, _There, _Counters) ->
    ok;
meet(_Place, Count, _Tries, There, _Counters) when There >= Count ->
    ok;
meet(Place, Count, Tries, _There, Counters) when Tries =:= infinity; Tries rem 2 =:= 0 ->
    erlang:yield(),
    meet(Place, Count, fewer(Tries), atomics:get(Counters, Place), Counters);
meet(Place, Count, Tries, _There, Counters) ->
    meet(Place, Count, fewer(Tries), spin(Place, Count, 200, Counters), Counters).

fewer(infinity) -> infinity;
fewer(Tries) -> Tries - 1.

spin(Place, Count, Left, Counters) ->
    case atomics:get(Counters, Place) of
        There when There >= Count; Left =:= 0 -> There;
        _ -> spin(Place, Count, Left - 1, Counters)
    end.

%% Messages stay where they are, and are seen from outside.
be_silent() ->
    receive never -> ok end.

%% ---- steps -----------------------------------------------------------------------------------------------------------

step({crowd, Step, Count}, W) ->
    lists:foldl(fun(_, Now) -> step(Step, Now) end, W, lists:seq(1, Count));
step(open, #w{shared = Shared, mode = Mode} = W) ->
    [{b, Before}] = ets:lookup(Shared, b),
    ets:insert(Shared, [{old, Before}, {b, open(packet(Mode), W)}]),
    W;
step(cancel, #w{waits = []} = W) ->
    W;
step(cancel, #w{waits = Waits} = W) ->
    {Handle, Token} = lists:last(Waits),
    call(Handle, {cancel, Token}, W#w{waits = lists:droplast(Waits)});
step({kill, Whom}, #w{shared = Shared, counters = Counters, deaths = Deaths} = W) ->
    %% Only one gets it.
    case ets:take(Shared, Whom) of
        [{Whom, Pid}] ->
            Seen = stamp(Counters),
            {messages, Messages} = process_info(Pid, messages),
            Start = stamp(Counters),
            kill(Pid),
            W#w{deaths = [{Pid, [{Message, 0, Start} || Message <- Messages], Seen, Start, stamp(Counters)} | Deaths]};
        [] ->
            W
    end;
step({_, Slot} = Step, W) -> step_on(handle(Slot, W), Step, W);
step({_, Slot, _} = Step, W) -> step_on(handle(Slot, W), Step, W).

handle(Slot, #w{shared = Shared}) ->
    ets:lookup_element(Shared, Slot, 2).

step_on(Handle, {put, Slot, Size}, W) -> call(Handle, {put_data, data(Slot, Size, W)}, W);
step_on(Handle, {send, _, Size}, W) -> call(Handle, {send, bytes(Size, W)}, W);
step_on(Handle, {get_data, a}, W) -> call(Handle, {get_data, self()}, W);
step_on(Handle, {ask, _}, W) -> call(Handle, {get_data, new_ear(W)}, W);
step_on(Handle, {active, _, Active}, W) -> call(Handle, {set_active, Active}, W);
step_on(Handle, {packet, b, Packet}, #w{mode = modes} = W) -> call(Handle, {set_packet, Packet}, W);
step_on(Handle, {packet, _, _}, W) -> call(Handle, info, W);
step_on(Handle, {recv_packet, b}, #w{mode = http} = W) -> call(Handle, recv_packet, W);
step_on(Handle, {recv_packet, _}, W) -> call(Handle, {tcp_recv, 0}, W);
step_on(Handle, {own, _, self}, W) -> call(Handle, {set_owner, self()}, W);
step_on(Handle, {own, _, new}, W) -> call(Handle, {set_owner, new_ear(W)}, W);
step_on(Handle, {own, _, Whom}, #w{shared = Shared} = W) ->
    %% It may be dead by now.
    Pid = case ets:lookup(Shared, {last, Whom}) of [{_, Last}] -> Last; [] -> self() end,
    call(Handle, {set_owner, Pid}, W);
step_on(Handle, {What, _, How}, W) -> call(Handle, {What, How}, W);
step_on(Handle, {What, _}, W) -> call(Handle, What, W).

new_ear(#w{shared = Shared} = W) ->
    Ear = start(fun be_silent/0, W),
    ets:insert(Shared, [{ear, Ear}, {{last, ear}, Ear}]),
    Ear.

%% No byte is there twice, so that each tells where it comes from.
bytes(Size, _W) when Size >= ?LARGE ->
    binary:copy(<<0>>, Size);
bytes(Size, #w{counters = Counters}) ->
    << <<(1 + (atomics:add_get(Counters, ?BYTE, 1) - 1) rem 255)>> || _ <- lists:seq(1, Size)>>.

data(Slot, Size, #w{mode = Mode} = W) when Slot =:= a; Mode =:= raw ->
    bytes(Size, W);
data(_Slot, Which, #w{counters = Counters, mode = Mode}) ->
    Number = integer_to_binary(atomics:add_get(Counters, ?BYTE, 1)),
    Pieces = [
        <<>>,
        <<"GET /", Number/binary, " HTTP/1.1\r\nA: ", Number/binary, "\r\n\r\n">>,
        <<"GET /", Number/binary, " HTTP/1.1\r\n">>,
        <<"X-", Number/binary, ": x\r\n">>,
        <<"\r\n">>,
        <<"PUT /", Number/binary>>,
        <<" HTTP/1.1\r\n">>
        %% Who reads packets while others read as well cannot know whose a body is.
        | [<<"Content-Length: 3\r\n\r\nabc">> || Mode =:= modes]
    ],
    lists:nth(1 + Which rem length(Pieces), Pieces).

%% ---- operations ------------------------------------------------------------------------------------------------------

stamp(Counters) -> atomics:add_get(Counters, ?CLOCK, 1).

%% Does it and writes it down; then looks what has come.
call(Handle, Call, #w{counters = Counters} = W) ->
    Start = stamp(Counters),
    hesitate(Start, W),
    Answer0 = native(Call, Handle),
    hesitate(Start + 1, W),
    End = stamp(Counters),
    Answer = megaphone_test_history:plain(Answer0),
    Waits = [{Handle, Token} || Token <- megaphone_test_history:token(Answer)],
    look(W#w{log = [{Handle, {self(), Call, Answer, Start, End}} | W#w.log], waits = Waits ++ W#w.waits}).

%% By turns others run between the moments that are noted and the call itself.
hesitate(Stamp, #w{way = by_turns}) -> erlang:phash2(Stamp, 2) =:= 0 andalso erlang:yield();
hesitate(_Stamp, #w{way = apart}) -> ok.

native({put_data, Data}, Handle) -> megaphone:put_data(Handle, Data);
native({recv, Length}, Handle) -> megaphone_nif:recv(Handle, Length);
native({cancel, Token}, Handle) -> megaphone_nif:cancel(Handle, Token);
native({get_data, Pid}, Handle) -> megaphone:get_data(Handle, Pid);
native({tcp_recv, Length}, Handle) -> gen_tcp:recv(megaphone:socket(Handle), Length, 0);
native(recv_packet, Handle) -> megaphone:recv_packet(Handle, 0);
native({send, Data}, Handle) -> megaphone_nif:send(Handle, Data);
native(output, Handle) -> megaphone:output(Handle);
native({set_active, Active}, Handle) -> megaphone_nif:set_active(Handle, Active);
native({set_packet, Packet}, Handle) -> megaphone_nif:set_packet(Handle, Packet);
native({set_owner, Pid}, Handle) -> megaphone_nif:set_owner(Handle, Pid);
native({shutdown, How}, Handle) -> megaphone_nif:shutdown(Handle, How);
native(close, Handle) -> megaphone:close(Handle);
native(info, Handle) -> megaphone:info(Handle).

%% Takes the messages that are there. They had not come when it was looked for the time before.
look(#w{mail = Mail, looked = Before, counters = Counters} = W) ->
    Now = stamp(Counters),
    Messages = messages(),
    There = stamp(Counters),
    W#w{mail = lists:reverse([{Message, Before, There} || Message <- Messages], Mail), looked = Now}.

messages() ->
    receive
        Message -> [Message | messages()]
    after 0 -> []
    end.

%% ---- the end ---------------------------------------------------------------------------------------------------------

finish(#w{shared = Shared} = W0, All, Deaths, Holds, Deadline) ->
    Handles = [Handle || {{opened, Handle}, _, _} <- ets:tab2list(Shared)],
    Learned = stamp(W0#w.counters),
    W = lists:foldl(fun(Handle, Now) -> call(Handle, info, Now) end, W0, Handles),
    Agrees = Deaths =:= [] orelse Holds(record(W, All, Deaths, Learned)),
    case Agrees orelse erlang:monotonic_time(millisecond) > Deadline of
        true -> record(lists:foldl(fun close/2, W, Handles), All, Deaths, Learned);
        false -> finish(W0, All, Deaths, Holds, Deadline)
    end.

%% Whatever is left comes out.
close(Handle, W) ->
    Closed = call(Handle, close, W),
    call(Handle, info, take_all(output, Handle, take_all({recv, 0}, Handle, Closed))).

take_all(Call, Handle, W0) ->
    case call(Handle, Call, W0) of
        #w{log = [{_, {_, _, {ok, _}, _, _}} | _]} = W -> take_all(Call, Handle, W);
        W -> W
    end.

record(#w{shared = Shared} = Last, All, Deaths, Learned) ->
    [{a, A}] = ets:lookup(Shared, a),
    Dead = [{Pid, Mail} || {Pid, Mail, _, _, _} <- Deaths],
    Living = [Pid || {{made, Pid}} <- ets:tab2list(Shared), not lists:keymember(Pid, 1, Dead)],
    megaphone_test_history:sort(#{
        opened => [{Handle, Opener, Packet} || {{opened, Handle}, Opener, Packet} <- ets:tab2list(Shared)],
        log => lists:append([lists:reverse(Log) || #w{log = Log} <- [Last | [W || {_, W} <- All]]]),
        mail => Dead ++ [{Pid, mail_of(Pid, lists:keyfind(Pid, 1, All))} || Pid <- Living],
        %% Workers ask for plain messages from `a' only.
        homes => maps:from_list([{Pid, A} || {Pid, _} <- All]),
        deaths => [{Pid, Seen, Start, End} || {Pid, _, Seen, Start, End} <- Deaths],
        learned => Learned
    }).

%% Of a living process: what it has seen, and what waits for it.
mail_of(Pid, Worked) ->
    {messages, Messages} = process_info(Pid, messages),
    {Seen, Looked} =
        case Worked of
            {Pid, #w{mail = Mail, looked = Last}} -> {lists:reverse(Mail), Last};
            false -> {[], 0}
        end,
    Seen ++ [{Message, Looked, infinity} || Message <- Messages].
