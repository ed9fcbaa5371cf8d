%% What must be true of a soak, judged from what its clients have told. A message is named by the two sessions (full JIDs, new
%% for each login) and its number between them.
%%
%% Promised (docs/protocol.md, "what is promised when things break") is each message
%%
%%   - that the server has confirmed to its sender: by stream management (WebSocket), or by the answer to a ping which was sent
%%     behind it in the same session (BOSH);
%%   - and both of whose sessions lived on: each has sent, ?GRACE ms or more after that confirmation, another message which was
%%     confirmed as well. So neither of their nodes was killed while it was under way from node to node.
%%
%% It must arrive once, and must not bounce. Links, connection managers and connections of clients may break meanwhile, clients may
%% stand still, other nodes and clients may die: all of that excuses nothing.
%%
%% Of every message, promised or not: it arrives at most once, unharmed, in the session that it is for, and behind all those before
%% it between the same two sessions. Two answers of BOSH that come at once are taken in the order of their requests, as
%% XEP-0124 has it; which of them the library looked at first does not count.
%%
%% Of every session: it ends by its own will, by the end of its program, or because the node that had it was killed. A BOSH client
%% that gave up after five errors in a row without a word from the server is excused if something was broken in the last
%% ?OUTAGE ms, and so is a WebSocket client whose session was not resumed because it came back later than the server waits
%% for it (?RESUMPTION; what breaks, and a client that stands still, may add up to that); nobody else is. A session that is there at the end has all its messages confirmed.
-module(megaphone_test_soak_oracle).

-export([judge/1, resumption/0]).
-export_type([event/0, jid/0, verdict/0]).

-type jid() :: binary().
-type time() :: integer().
%% Milliseconds of the machine's clock. `Request' is the number of the BOSH request whose answer brought it, or 0.
-type event() ::
    {online, time(), jid(), bosh | ws}
    | {home, time(), jid(), pos_integer()}
    | {sent, time(), jid(), jid(), pos_integer()}
    | {confirmed, time(), jid(), jid(), pos_integer()}
    | {got, time(), Where :: jid(), From :: jid(), jid(), pos_integer(), Request :: non_neg_integer(), Unharmed :: boolean()}
    | {bounced, time(), jid(), jid(), pos_integer()}
    | {resuming | resumed, time(), jid()}
    | {offline, time(), jid(), left | refused | {gave_up, non_neg_integer()} | {ended, binary()} | vanished}
    | {node_killed, time(), pos_integer()}
    %% Something else that was broken until then.
    | {broken, time(), Until :: time()}.

%% Of what came: by its request, then by when it came.
-type order() :: {Request :: non_neg_integer(), Event :: pos_integer()}.
-type message() :: #{
    from := jid(), to := jid(), number := pos_integer(), sent := time(), confirmed => time(), bounced => time(),
    got := [{Where :: jid(), time(), order(), Unharmed :: boolean()}]
}.
-type session() :: #{
    kind := bosh | ws, online := time(), home => pos_integer(), proof := time(), away := [{time(), time()}], ended => {time(), term()}
}.
-type verdict() :: #{wrong := [tuple()], counts := #{atom() => non_neg_integer()}}.

%% What a message takes between two nodes, at most.
-define(GRACE, 4000).
-define(OUTAGE, 45000).
%% That a session is kept for a client that is away.
-define(RESUMPTION, 25000).
%% Between the note of a kill and the kill.
-define(KILLING, 1000).

%% See ?RESUMPTION.
-spec resumption() -> pos_integer().
resumption() -> ?RESUMPTION.

%% What is wrong, each with the messages or sessions that it is about; and how many there were of what.
-spec judge([event()]) -> verdict().
judge(Events) ->
    {Sessions, Messages, Strangers} = gather(Events),
    Killed = [{Time, Node} || {node_killed, Time, Node} <- Events],
    Broken = [{Time, Until} || {broken, Time, Until} <- Events] ++ [{Time, Time} || {Time, _} <- Killed],
    All = maps:values(Messages),
    {Promised, Others} = lists:partition(fun(Message) -> is_promised(Message, Sessions) end, All),
    Wrong =
        [{lost, Message} || #{got := []} = Message <- Promised] ++
        [{bounced_though_both_lived, Message} || #{bounced := _} = Message <- Promised] ++
        [{Complaint, Message} || Message <- All, Complaint <- complaints(Message)] ++
        [{never_sent, Stranger} || Stranger <- Strangers] ++
        disordered(All) ++
        [{unconfirmed, Message} || #{from := From} = Message <- All, not is_map_key(confirmed, Message), has_left(From, Sessions)] ++
        [{session_ended, Jid, Session, Killed} || {Jid, Session} <- maps:to_list(Sessions), not is_excused(Session, Killed, Broken)],
    #{wrong => Wrong, counts => counts(Sessions, Promised, Others, Broken)}.

%% ---- what has happened -----------------------------------------------------------------------------------------

-spec gather([event()]) -> {#{jid() => session()}, #{tuple() => message()}, [event()]}.
gather(Events) ->
    %% What two programs tell comes in any order: what was sent is known first.
    Sessions = lists:foldl(fun session/2, #{}, Events),
    Sent = maps:from_list([
        {{From, To, N}, #{from => From, to => To, number => N, sent => Time, got => []}}
     || {sent, Time, From, To, N} <- Events
    ]),
    {Messages, Strangers} = lists:foldl(fun message/2, {Sent, []}, lists:enumerate(Events)),
    Proven = maps:fold(
        fun
            (_, #{from := From, sent := Time, confirmed := _}, Now) ->
                maps:update_with(From, fun(#{proof := Proof} = Session) -> Session#{proof := max(Proof, Time)} end, Now);
            (_, _, Now) ->
                Now
        end,
        Sessions,
        Messages
    ),
    {Proven, Messages, Strangers}.

-spec session(event(), #{jid() => session()}) -> #{jid() => session()}.
session({online, Time, Jid, Kind}, Sessions) ->
    Sessions#{Jid => #{kind => Kind, online => Time, proof => Time, away => []}};
session({home, _, Jid, Node}, Sessions) ->
    maps:update_with(Jid, fun(Session) -> Session#{home => Node} end, Sessions);
session({resuming, Time, Jid}, Sessions) ->
    maps:update_with(Jid, fun(#{away := Away} = Session) -> Session#{away := [{Time, infinity} | Away]} end, Sessions);
session({resumed, Time, Jid}, Sessions) ->
    maps:update_with(Jid, fun(#{away := [{From, _} | Away]} = Session) -> (maps:remove(home, Session))#{away := [{From, Time} | Away]} end, Sessions);
session({offline, Time, Jid, Why}, Sessions) ->
    maps:update_with(Jid, fun(Session) -> Session#{ended => {Time, Why}} end, Sessions);
session(_, Sessions) ->
    Sessions.

-spec message({pos_integer(), event()}, {#{tuple() => message()}, [event()]}) -> {#{tuple() => message()}, [event()]}.
message({Order, {got, Time, Where, From, To, N, Request, Unharmed} = Event}, {Messages, Strangers}) ->
    change({From, To, N}, fun(#{got := Got} = Message) -> Message#{got := [{Where, Time, {Request, Order}, Unharmed} | Got]} end, Event, Messages, Strangers);
message({_, {confirmed, Time, From, To, N} = Event}, {Messages, Strangers}) ->
    change({From, To, N}, fun(Message) -> Message#{confirmed => Time} end, Event, Messages, Strangers);
message({_, {bounced, Time, From, To, N} = Event}, {Messages, Strangers}) ->
    change({From, To, N}, fun(Message) -> Message#{bounced => Time} end, Event, Messages, Strangers);
message(_, Known) ->
    Known.

change(Key, Change, Event, Messages, Strangers) ->
    case Messages of
        #{Key := Message} -> {Messages#{Key := Change(Message)}, Strangers};
        #{} -> {Messages, [Event | Strangers]}
    end.

%% ---- messages --------------------------------------------------------------------------------------------------

-spec is_promised(message(), #{jid() => session()}) -> boolean().
is_promised(#{from := From, to := To, confirmed := Confirmed}, Sessions) ->
    lists:all(fun(Jid) -> maps:get(proof, maps:get(Jid, Sessions)) >= Confirmed + ?GRACE end, [From, To]);
is_promised(_Message, _Sessions) ->
    false.

-spec complaints(message()) -> [atom()].
complaints(#{got := Got, to := To}) ->
    [doubled || length(Got) > 1] ++
        [in_another_session || {Where, _, _, _} <- Got, Where =/= To] ++
        [damaged || {_, _, _, false} <- Got].

%% Those that came behind a later one of the same two sessions.
-spec disordered([message()]) -> [tuple()].
disordered(Messages) ->
    Came = [{{From, To}, {Order, N}} || #{from := From, to := To, number := N, got := Got} <- Messages, {_, _, Order, _} <- Got],
    Streams = maps:map(fun(_, Each) -> lists:sort(Each) end, maps:groups_from_list(fun({Pair, _}) -> Pair end, fun({_, Each}) -> Each end, Came)),
    [
        {disordered, Pair, [N || {_, N} <- Each]}
     || {Pair, Each} <- maps:to_list(Streams), not is_rising([N || {_, N} <- Each])
    ].

-spec is_rising([integer()]) -> boolean().
is_rising([A | [B | _] = Later]) -> A =< B andalso is_rising(Later);
is_rising(_) -> true.

%% ---- sessions --------------------------------------------------------------------------------------------------

-spec has_left(jid(), #{jid() => session()}) -> boolean().
has_left(Jid, Sessions) ->
    case Sessions of
        #{Jid := #{ended := {_, left}}} -> true;
        #{} -> false
    end.

-spec is_excused(session(), [{time(), pos_integer()}], [{time(), time()}]) -> boolean().
is_excused(#{ended := {_, Why}}, _Killed, _Broken) when Why =:= left; Why =:= vanished ->
    true;
is_excused(#{ended := {Time, {gave_up, Status}}} = Session, Killed, Broken) when Status =:= 0; Status >= 500 ->
    was_killed(Session, Time, Killed) orelse was_broken(Time, Broken);
is_excused(#{ended := {Time, refused}} = Session, Killed, Broken) ->
    was_killed(Session, Time, Killed) orelse (came_late(Session) andalso was_broken(Time, Broken));
is_excused(#{ended := {Time, _}} = Session, Killed, _Broken) ->
    was_killed(Session, Time, Killed);
is_excused(_Session, _Killed, _Broken) ->
    false.

-spec was_broken(time(), [{time(), time()}]) -> boolean().
was_broken(Time, Broken) ->
    lists:any(fun({From, Until}) -> From =< Time andalso Until >= Time - ?OUTAGE end, Broken).

%% Its client was away for longer than it is waited for.
-spec came_late(session()) -> boolean().
came_late(#{ended := {Time, refused}, away := [{From, infinity} | _]}) -> Time - From >= ?RESUMPTION;
came_late(_Session) -> false.

%% Its node was killed after its last sign of life. Nobody may have had the time to ask where it was.
-spec was_killed(session(), time(), [{time(), pos_integer()}]) -> boolean().
was_killed(#{proof := Proof} = Session, End, Killed) ->
    lists:any(fun({Time, Node}) -> Time >= Proof - ?KILLING andalso Time =< End andalso Node =:= maps:get(home, Session, Node) end, Killed).

%% ---- counts ----------------------------------------------------------------------------------------------------

counts(Sessions, Promised, Others, Broken) ->
    Kind = fun(Jid) -> maps:get(kind, maps:get(Jid, Sessions)) end,
    Home = fun(Jid) -> maps:get(home, maps:get(Jid, Sessions), unknown) end,
    Ends = [Why || #{ended := {_, Why}} <- maps:values(Sessions)],
    Count = fun length/1,
    #{
        sent => length(Promised) + length(Others),
        arrived => Count([Message || #{got := [_ | _]} = Message <- Promised ++ Others]),
        bounced => Count([Message || #{bounced := _} = Message <- Others]),
        promised => length(Promised),
        promised_from_bosh => Count([M || #{from := From} = M <- Promised, Kind(From) =:= bosh]),
        promised_from_ws => Count([M || #{from := From} = M <- Promised, Kind(From) =:= ws]),
        promised_to_bosh => Count([M || #{to := To} = M <- Promised, Kind(To) =:= bosh]),
        promised_to_ws => Count([M || #{to := To} = M <- Promised, Kind(To) =:= ws]),
        promised_between_nodes => Count([M || #{from := From, to := To} = M <- Promised, is_between(Home(From), Home(To))]),
        promised_while_broken => Count([M || M <- Promised, was_under_way(M, Broken)]),
        sessions => map_size(Sessions),
        resumed => lists:sum([length([Until || {_, Until} <- Away, is_integer(Until)]) || #{away := Away} <- maps:values(Sessions)]),
        ended_with_node => Count([Why || Why <- Ends, Why =:= refused orelse is_tuple(Why) andalso element(1, Why) =:= ended]),
        gave_up => Count([Why || {gave_up, _} = Why <- Ends]),
        came_late => Count([Session || Session <- maps:values(Sessions), came_late(Session)]),
        vanished => Count([Why || vanished = Why <- Ends])
    }.

is_between(One, Other) -> is_integer(One) andalso is_integer(Other) andalso One =/= Other.

%% Something broke, or was broken, between its sending and its arrival.
was_under_way(#{sent := Sent, got := [{_, Got, _, _} | _]}, Broken) ->
    lists:any(fun({From, Until}) -> From =< Got andalso Until >= Sent end, Broken);
was_under_way(_Message, _Broken) ->
    false.
