%% @private
%% @doc Gives idle memory back: works on the processes of users who have done nothing for a moment.
%%
%% Heaps that grew at login stay grown, because nobody makes a process collect that does nothing. Late is too late: then
%% the allocator's carriers have grown as well, and are kept half empty. So each poll is noted as it comes
%% ({@link polled/1}), and when it is still held after `idle_after', its process, the BOSH session and the client session
%% behind it are tidied up: collected or put to sleep ({@link megaphone_sleep}), as the mode says.
%%
%% Client sessions of native WebSocket connections are told by the connection table, which knows on which of them nothing
%% has happened for a while (`megaphone_nif:take_idle/2'); how is said by the listener of their link.
%%
%% With {@link sweep_all/2} it also walks through the sessions of users who are connected without Megaphone, and tidies
%% up those whose client session has not run between two looks.
%%
%% Nothing that it does changes what a process does later, so its death loses nothing but the notes of the last moment.
-module(megaphone_sweeper).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, idle/1, default/1, polled/1, sweep_all/2, sweep/0, info/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).
-export_type([mode/0, idle/0]).

-type mode() :: keep | collect | hibernate_bosh | hibernate.
-type idle() :: keep | {mode(), After :: pos_integer()}.
%% What is done with the memory of idle users, and after how many milliseconds.

%% A second after the last sign of life logins are complete, and answers that follow each other at once have passed.
-define(IDLE_AFTER, 1000).
%% Work is done in turns of so many users ...
-define(USERS_PER_TURN, 100).
%% ... and so many milliseconds between two: at most 25,000 users a second, about one processor's worth of hibernations.
-define(TURN, 4).
%% A user takes as much of a turn as so many polls that were answered meanwhile.
-define(USER, 16).
%% Milliseconds after which it looks at the latest, when something is noted: listeners may have different `idle_after'.
-define(LONGEST_TURN, 100).
%% Milliseconds between two questions to the table. A question costs some microseconds.
-define(STREAMS_TURN, 10).
%% Sessions that are looked at in a turn of a walk: a million in less than three minutes.
-define(SESSIONS_PER_TURN, 25).
%% A client session that has run for less than this between two looks has done nothing: a stanza takes more, and each look
%% takes a little.
-define(STILL, 200).
%% Milliseconds between the starts of two walks through all sessions.
-define(WALK_EVERY, 10000).

-record(entry, {
    due :: integer(),
    pid :: pid(),
    mode :: mode(),
    %% Of a client session that was found on a walk: what it had run when it was noted.
    reductions :: poll | non_neg_integer()
}).

-record(state, {
    context :: megaphone_sleep:context(),
    %% By `idle_after': what was noted is due in that order.
    noted = #{} :: #{pos_integer() => queue:queue(#entry{})},
    turn :: reference() | undefined,
    %% Kinds that were not recognised, and are only collected from then on.
    collected_only = [] :: [bosh | stream | tcp],
    all = keep :: idle(),
    %% Those who want that, each with its monitor.
    wanting = #{} :: #{megaphone_links:listener() => {reference(), idle()}},
    %% When the next walk starts.
    walker :: reference() | undefined,
    %% Whether the table has noted connections, which have to be asked for.
    busy = true :: boolean(),
    %% Else where it stands: at a continuation of ets, or at a port.
    walk = ended :: ended | start | {ports, [port()]} | term(),
    %% Where a walk stands that was asked for ({@link sweep/0}).
    native = ended :: megaphone_walk:place() | ended,
    savings = megaphone_savings:new() :: megaphone_savings:savings()
}).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], [{spawn_opt, [{fullsweep_after, 10}]}]).

%% @doc What the options of a listener, or else the application's settings of the same names, say.
-spec idle([{atom(), term()}]) -> idle().
idle(Opts) ->
    %% ejabberd passes on only what differs from the defaults.
    case proplists:get_value(idle_memory, Opts, default(idle_memory)) of
        keep -> keep;
        Mode -> {Mode, proplists:get_value(idle_after, Opts, default(idle_after))}
    end.

%% @doc What holds where a listener does not say: the application's setting, or ours.
-spec default(idle_memory) -> mode(); (idle_after) -> pos_integer().
default(idle_memory) -> application:get_env(megaphone, idle_memory, collect);
default(idle_after) -> application:get_env(megaphone, idle_after, ?IDLE_AFTER).

%% @doc Called in the process of a poll: notes that its user shows a sign of life now.
-spec polled(idle()) -> ok.
polled(keep) -> ok;
polled({Mode, After}) -> gen_server:cast(?MODULE, {polled, self(), Mode, After}).

%% @doc Works on all sessions of the node from now on, because a listener wants it, or (`keep') no longer does. The calling
%% process is the listener's: when it has ended, its wish has as well. Of several listeners that want it, one says how.
-spec sweep_all(megaphone_links:listener(), idle()) -> ok.
sweep_all(Listener, Idle) ->
    gen_server:call(?MODULE, {sweep_all, Listener, Idle}).

%% @doc Tidies up all users who come through Megaphone and are idle, once, wherever their idleness was overlooked or `keep' left it.
%% As their link says, by `collect' where that is `keep'.
-spec sweep() -> started | running.
sweep() ->
    gen_server:call(?MODULE, sweep).

%% @doc What was done so far, how many users are noted, and (`all') what is done with those who are connected without Megaphone.
-spec info() -> #{all := idle(), noted := non_neg_integer(), collected_only := [atom()], _ => _}.
info() ->
    gen_server:call(?MODULE, info).

-spec init([]) -> {ok, #state{}}.
init([]) ->
    %% Of an incarnation before this one.
    Wishes = application:get_env(megaphone, sweep_all, #{}),
    {ok, maps:fold(fun wants/3, #state{context = megaphone_sleep:context()}, Wishes)}.

-spec handle_call(info | sweep | {sweep_all, megaphone_links:listener(), idle()} | term(), gen_server:from(), #state{}) ->
    {reply, map() | ok | started | running | {error, unknown_call}, #state{}}.
handle_call(info, _From, #state{context = Context, noted = Noted, collected_only = Only, all = All, savings = Before} = State) ->
    Waiting = lists:sum([queue:len(Queue) || Queue <- maps:values(Noted)]),
    Savings = megaphone_savings:later(Before),
    Own = #{noted => Waiting, collected_only => Only, all => All, savings => megaphone_savings:info(Savings)},
    {reply, maps:merge(megaphone_sleep:counts(Context), Own), State#state{savings = Savings}};
handle_call(sweep, _From, #state{native = ended, turn = Turn} = State) ->
    %% There is a timer for the next turn, or none while it sleeps.
    Next = case Turn of undefined -> erlang:start_timer(0, self(), turn); _ -> Turn end,
    {reply, started, State#state{native = megaphone_walk:start(), turn = Next}};
handle_call(sweep, _From, State) ->
    {reply, running, State};
handle_call({sweep_all, Listener, Idle}, {Process, _}, State) ->
    ok = wishes(fun(Wishes) -> Wishes#{Listener => {Process, Idle}} end),
    {reply, ok, wants(Listener, {Process, Idle}, State)};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast({polled, pid(), mode(), pos_integer()} | term(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, hibernate}.
handle_cast({polled, Pid, Mode, After}, State) ->
    noreply(note(Pid, poll, Mode, After, State));
handle_cast(_Other, State) ->
    {noreply, State}.

%% For the incarnation after this one.
-spec wishes(fun((Wishes) -> Wishes)) -> ok when Wishes :: #{megaphone_links:listener() => {pid(), idle()}}.
wishes(Change) ->
    application:set_env(megaphone, sweep_all, Change(application:get_env(megaphone, sweep_all, #{}))).

-spec wants(megaphone_links:listener(), {pid(), idle()}, #state{}) -> #state{}.
wants(Listener, {Process, Idle}, #state{wanting = Wanting} = State) ->
    _ = [erlang:demonitor(Before, [flush]) || #{Listener := {Before, _}} <- [Wanting]],
    wanted(State#state{wanting = Wanting#{Listener => {erlang:monitor(process, Process), Idle}}}).

-spec wanted(#state{}) -> #state{}.
wanted(#state{wanting = Wanting, walker = Walker} = State) ->
    case {[Idle || {_, Idle} <- maps:values(Wanting), Idle =/= keep], Walker} of
        {[], undefined} ->
            State#state{all = keep};
        {[], _} ->
            _ = erlang:cancel_timer(Walker),
            State#state{all = keep, walker = undefined};
        {[Idle | _], undefined} ->
            State#state{all = Idle, walker = erlang:start_timer(0, self(), walk)};
        {[Idle | _], _} ->
            State#state{all = Idle}
    end.

-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, hibernate}.
handle_info({timeout, Turn, turn}, #state{turn = Turn} = State) ->
    noreply(walk(native(idle_streams(due(State#state{turn = undefined})))));
handle_info(busy, State) ->
    noreply(State#state{busy = true});
handle_info({timeout, Walker, walk}, #state{walker = Walker, walk = Walk} = State) ->
    Next = State#state{walker = erlang:start_timer(?WALK_EVERY, self(), walk)},
    case Walk of
        ended -> noreply(Next#state{walk = start});
        _ -> noreply(Next)
    end;
handle_info({'DOWN', Monitor, process, Process, _Reason}, #state{wanting = Wanting} = State) ->
    ok = wishes(fun(Wishes) -> maps:filter(fun(_, {Own, _}) -> Own =/= Process end, Wishes) end),
    noreply(wanted(State#state{wanting = maps:filter(fun(_, {Own, _}) -> Own =/= Monitor end, Wanting)}));
handle_info({{status, Pid, Transport}, Status}, #state{context = Context} = State) ->
    case megaphone_sleep:limits(Transport) of
        unknown ->
            noreply(unrecognised(tcp, Pid, State));
        Limits ->
            ok = megaphone_sleep:stream(Pid, Status, Limits, Context),
            noreply(State)
    end;
handle_info({unrecognised, Kind, Pid}, State) ->
    noreply(unrecognised(Kind, Pid, State));
handle_info({garbage_collect, {collected, Pid}, true}, State) ->
    ok = megaphone_sleep:collect_again(Pid),
    noreply(State);
handle_info(_CollectedAgain, State) ->
    noreply(State).

%% What processes say of their status holds what users wrote.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (message, {{status, Pid, Transport}, _}) -> {status, Pid, Transport};
            (log, _Events) -> [];
            (_Key, Value) -> Value
        end,
        Status
    ).

-spec unrecognised(bosh | stream | tcp, pid(), #state{}) -> #state{}.
unrecognised(Kind, Pid, #state{context = Context, collected_only = Only} = State) ->
    ok = megaphone_sleep:collect(Pid, Context),
    case lists:member(Kind, Only) of
        true ->
            State;
        false ->
            ?LOG_WARNING(
                "megaphone: ~ts; their memory is collected instead (option idle_memory)",
                [describe(Kind)]
            ),
            State#state{collected_only = [Kind | Only]}
    end.

-spec describe(bosh | stream | tcp) -> string().
describe(bosh) -> "BOSH sessions of this version of ejabberd are not known well enough to be put to sleep";
describe(stream) -> "client sessions of this version of ejabberd are not known well enough to be put to sleep";
describe(tcp) -> "client sessions of listeners with different `max_fsm_queue' cannot be put to sleep".

%% ---- what is noted -------------------------------------------------------------------------------------------

-spec note(pid(), poll | non_neg_integer(), mode(), pos_integer(), #state{}) -> #state{}.
note(Pid, Reductions, Mode, After, #state{noted = Noted} = State) ->
    Entry = #entry{due = erlang:monotonic_time(millisecond) + After, pid = Pid, mode = Mode, reductions = Reductions},
    State#state{noted = Noted#{After => queue:in(Entry, maps:get(After, Noted, queue:new()))}}.

%% Sees to the next turn when there is something to do, and sleeps when there is not: what sessions say of their status is
%% large.
-spec noreply(#state{}) -> {noreply, #state{}} | {noreply, #state{}, hibernate}.
noreply(#state{turn = undefined, noted = Noted, walk = Walk} = State) ->
    Dues = [(queue:get(Queue))#entry.due || Queue <- maps:values(Noted), not queue:is_empty(Queue)],
    case {Dues, Walk} of
        _ when State#state.native =/= ended ->
            {noreply, State#state{turn = erlang:start_timer(?TURN, self(), turn)}};
        {[], ended} when not State#state.busy ->
            {noreply, State, hibernate};
        {[], ended} ->
            {noreply, State#state{turn = erlang:start_timer(?STREAMS_TURN, self(), turn)}};
        {_, ended} ->
            Left = lists:min(Dues) - erlang:monotonic_time(millisecond),
            {noreply, State#state{turn = erlang:start_timer(max(?TURN, min(Left, ?LONGEST_TURN)), self(), turn)}};
        {_, _} ->
            {noreply, State#state{turn = erlang:start_timer(?TURN, self(), turn)}}
    end;
noreply(State) ->
    {noreply, State}.

-spec due(#state{}) -> #state{}.
due(#state{noted = Noted} = State) ->
    Now = erlang:monotonic_time(millisecond),
    {Rest, _} = lists:foldl(
        fun({After, Queue}, {Queues, Budget}) ->
            {Left, Over} = due(Queue, Now, Budget, State),
            {[{After, Left} || not queue:is_empty(Left)] ++ Queues, Over}
        end,
        {[], ?USERS_PER_TURN * ?USER},
        maps:to_list(Noted)
    ),
    State#state{noted = maps:from_list(Rest)}.

-spec due(Queue, integer(), integer(), #state{}) -> {Queue, integer()} when Queue :: queue:queue(#entry{}).
due(Queue, Now, Budget, State) when Budget > 0 ->
    case queue:out(Queue) of
        {{value, #entry{due = Due} = Entry}, Rest} when Due =< Now ->
            due(Rest, Now, Budget - guarded(Entry, State), State);
        _ ->
            {Queue, Budget}
    end;
due(Queue, _Now, Budget, _State) ->
    {Queue, Budget}.

%% ---- a user --------------------------------------------------------------------------------------------------

-define(WANTED, [current_function, message_queue_len, garbage_collection_info]).

%% Whatever is odd about one user must not end the work on all others, or in the end, by this process's restarts, the links.
-spec guarded(#entry{}, #state{}) -> 1 | ?USER.
guarded(Entry, State) ->
    try
        user(Entry, State)
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR("megaphone: idle memory of a user could not be seen to: ~s", [megaphone_failure:text(Class, Reason, Stack)]),
            ?USER
    end.

%% Answers what it cost.
-spec user(#entry{}, #state{}) -> 1 | ?USER.
user(#entry{pid = Poll, mode = Mode, reductions = poll}, State) ->
    case process_info(Poll, [monitors | ?WANTED]) of
        %% In a cluster the session may be on another node, whose business it is then.
        [{monitors, [{process, Session} | _]} | Info] when is_pid(Session), node(Session) =:= node() ->
            tidy(Poll, Info, Mode, http, State),
            bosh_session(Session, Mode, State),
            ?USER;
        [{monitors, _} | Info] ->
            tidy(Poll, Info, Mode, http, State),
            ?USER;
        undefined ->
            1
    end;
user(#entry{pid = C2s, mode = Mode, reductions = Reductions}, State) ->
    case process_info(C2s, [reductions, monitors | ?WANTED]) of
        [{reductions, Now}, {monitors, Monitors} | Info] when Now - Reductions < ?STILL ->
            case [Pid || {process, Pid} <- Monitors, is_pid(Pid), node(Pid) =:= node()] of
                [Session | _] ->
                    tidy(C2s, Info, Mode, http, State),
                    %% An owner is watched by very many sessions, and none of them is its own.
                    _ = [bosh_session(Session, Mode, State) || not megaphone_owner:is_owner(Session)],
                    ok;
                [] ->
                    tidy(C2s, Info, Mode, tcp, State)
            end,
            ?USER;
        _ ->
            1
    end.

%% The process to which a client session talks, and those that are connected with it: the client session itself, and
%% what waits for answers.
-spec bosh_session(pid(), mode(), #state{}) -> ok.
bosh_session(Session, Mode, State) ->
    case process_info(Session, [monitored_by | ?WANTED]) of
        [{monitored_by, Watching}, {current_function, Function} | _] = [_ | Info] ->
            %% A poll that has not come to its session yet waits for the supervisor of all of them.
            case megaphone_sleep:kind(Function) of
                Kind when Kind =:= bosh; Kind =:= asleep ->
                    tidy(Session, Info, Mode, http, State),
                    Local = [Pid || Pid <- Watching, is_pid(Pid), node(Pid) =:= node()],
                    lists:foreach(fun(Pid) -> tidy(Pid, Mode, State) end, Local);
                _ ->
                    ok
            end;
        undefined ->
            ok
    end.

-spec tidy(pid(), mode(), #state{}) -> ok.
tidy(Pid, Mode, State) ->
    case process_info(Pid, ?WANTED) of
        undefined -> ok;
        Info -> tidy(Pid, Info, Mode, http, State)
    end.

-spec tidy(pid(), [{atom(), term()}], mode(), http | tcp, #state{}) -> ok.
tidy(_Pid, [_, {message_queue_len, Length}, _], _Mode, _Transport, _State) when Length > 0 ->
    ok;
tidy(Pid, [{current_function, Function}, _, {_, Collection}], Mode, Transport, #state{context = Context} = State) ->
    case megaphone_sleep:kind(Function) of
        asleep -> ok;
        Kind -> free(how(Kind, Mode, Transport, State), Pid, Transport, megaphone_sleep:is_clean(Collection), Context)
    end.

-spec free(collect | bosh | stream, pid(), http | tcp, boolean(), megaphone_sleep:context()) -> ok.
free(collect, _Pid, _Transport, true, _Context) -> ok;
free(collect, Pid, _Transport, false, Context) -> megaphone_sleep:collect(Pid, Context);
free(bosh, Pid, _Transport, _Clean, Context) -> megaphone_sleep:bosh(Pid, Context);
free(stream, Pid, Transport, _Clean, Context) -> megaphone_sleep:ask_status(Pid, {status, Pid, Transport}, Context).

-spec how(bosh | stream | other, mode(), http | tcp, #state{}) -> collect | bosh | stream.
how(bosh, Mode, _Transport, State) when Mode =:= hibernate_bosh; Mode =:= hibernate ->
    unless(bosh, bosh, State);
how(stream, hibernate, tcp, State) ->
    unless(tcp, unless(stream, stream, State), State);
how(stream, hibernate, http, State) ->
    unless(stream, stream, State);
how(_Kind, _Mode, _Transport, _State) ->
    collect.

-spec unless(bosh | stream | tcp, How, #state{}) -> How | collect.
unless(Kind, How, #state{collected_only = Only}) ->
    case lists:member(Kind, Only) of
        true -> collect;
        false -> How
    end.

%% ---- native WebSocket sessions --------------------------------------------------------------------------------

-spec idle_streams(#state{}) -> #state{}.
idle_streams(#state{busy = false} = State) ->
    State;
idle_streams(State) ->
    {More, Idle} = megaphone_nif:take_idle(megaphone_links:idle_after(), ?USERS_PER_TURN),
    streams([{C2s, megaphone_links:idle(Link)} || {C2s, Link} <- Idle], State#state{busy = More =:= more}).

-spec streams([{pid(), idle()}], #state{}) -> #state{}.
streams(Users, #state{savings = Savings} = State) ->
    Before = megaphone_savings:before([C2s || {C2s, Idle} <- Users, Idle =/= keep], megaphone_savings:later(Savings)),
    lists:foreach(fun({C2s, Idle}) -> stream(C2s, Idle, State) end, Users),
    State#state{savings = Before}.

-spec stream(pid(), idle(), #state{}) -> ok.
stream(_C2s, keep, _State) -> ok;
stream(C2s, {Mode, _After}, State) -> tidy(C2s, Mode, State).

%% One slice of a walk that was asked for.
-spec native(#state{}) -> #state{}.
native(#state{native = ended} = State) ->
    State;
native(#state{native = Place} = State) ->
    {Users, Next} = megaphone_walk:step(Place, ?USERS_PER_TURN),
    streams([{C2s, asked_for(megaphone_links:idle(Link))} || {_Kind, C2s, Link} <- Users], State#state{native = Next}).

-spec asked_for(idle()) -> idle().
asked_for(keep) -> {collect, default(idle_after)};
asked_for(Idle) -> Idle.

%% ---- all sessions --------------------------------------------------------------------------------------------

%% One slice of a walk: through the table of sessions, and then through the processes that read from sockets, of which a
%% client with several connections has some that no session leads to.
-spec walk(#state{}) -> #state{}.
walk(#state{walk = Walk, all = Idle} = State) when Walk =:= ended; Idle =:= keep ->
    State#state{walk = ended};
walk(#state{walk = {ports, []}} = State) ->
    State#state{walk = ended};
walk(#state{walk = {ports, Ports}} = State) ->
    Slice = lists:sublist(Ports, ?SESSIONS_PER_TURN),
    Readers = [Pid || Port <- Slice, {connected, Pid} <- [erlang:port_info(Port, connected)], reads(Pid)],
    look(Readers, State#state{walk = {ports, lists:nthtail(length(Slice), Ports)}});
walk(#state{walk = Where} = State) ->
    case sessions(Where) of
        {Pids, Continuation} -> look(Pids, State#state{walk = Continuation});
        '$end_of_table' -> State#state{walk = {ports, erlang:ports()}}
    end.

%% A slice of the client sessions. Without such a table ejabberd is not running, or keeps its sessions elsewhere.
-spec sessions(start | term()) -> {[pid()], Continuation :: term()} | '$end_of_table'.
sessions(Where) ->
    try
        case Where of
            start -> ets:select(session, [{{session, {'_', '$1'}, '_', '_', '_', '_'}, [], ['$1']}], ?SESSIONS_PER_TURN);
            Continuation -> ets:select(Continuation)
        end
    catch
        error:badarg -> '$end_of_table'
    end.

%% Whether a process waits for input of a socket, as ejabberd_http does between two requests.
-spec reads(pid()) -> boolean().
reads(Pid) ->
    process_info(Pid, current_function) =:= {current_function, {prim_inet, recv0, 3}}.

%% Notes those of this node, to be looked at again.
-spec look([pid()], #state{}) -> #state{}.
look(Pids, #state{all = {Mode, After}} = State) ->
    lists:foldl(
        fun(Pid, Noted) ->
            case process_info(Pid, reductions) of
                {reductions, Reductions} -> note(Pid, Reductions, Mode, After, Noted);
                undefined -> Noted
            end
        end,
        State,
        [Pid || Pid <- Pids, node(Pid) =:= node()]
    ).
