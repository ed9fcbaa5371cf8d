%% The users of a soak: programs of real clients (test/clients/soak.mjs), each with some users, and what they have told.
%%
%% A process holds the programs and notes their events; it tells all users who is there. Its functions may be called by anybody.
-module(megaphone_test_soak_crowd).

-include("megaphone_test.hrl").

-export([start/1, stop/1, enter/1, programs/1, vanish/2, stand_still/3, cut/2, note/2, counts/1, rest/1, leave/1, events/1, missing/1, name/2]).
-export_type([crowd/0, program/0]).

-type crowd() :: pid().
%% Which users a program has: its kind and a number.
-type program() :: {bosh | ws, pos_integer()}.
-type settings() :: #{
    programs := [program()], users := pos_integer(), ports := [inet:port_number()], pause := pos_integer(), seed := non_neg_integer(),
    password := string(),
    %% Called in a process of its own for each new session: where it is.
    home := fun((megaphone_test_soak_oracle:jid()) -> pos_integer() | unknown)
}.

-record(state, {
    settings :: settings(),
    generation = 0 :: non_neg_integer(),
    running = #{} :: #{program() => {port(), OsPid :: pos_integer()}},
    %% Of programs that were killed: what they said before may still come.
    dying = #{} :: #{port() => program()},
    there = #{} :: #{megaphone_test_soak_oracle:jid() => program()},
    %% The last one first.
    events = [] :: [megaphone_test_soak_oracle:event()],
    counts = #{sent => 0, got => 0, failed => 0} :: #{atom() => non_neg_integer()},
    %% What programs have said of themselves, and lines of theirs that are no events.
    said = [] :: [{program(), binary()}],
    complaints = [] :: [binary()],
    %% Logins that failed, the last first.
    failures = [] :: [binary()],
    enters = true :: boolean()
}).

%% Milliseconds for what all users do at the end.
-define(LAST, 90000).
%% More than ?GRACE of the oracle.
-define(PROBE_AFTER, 5000).
%% Failed logins that are kept.
-define(FAILURES, 10).

%% ---- for the suite ---------------------------------------------------------------------------------------------

-spec start(settings()) -> crowd().
start(Settings) ->
    spawn_link(fun() ->
        process_flag(trap_exit, true),
        loop(#state{settings = Settings})
    end).

-spec stop(crowd()) -> ok.
stop(Crowd) ->
    unlink(Crowd),
    MRef = monitor(process, Crowd),
    exit(Crowd, kill),
    receive
        {'DOWN', MRef, _, _, _} -> ok
    end.

%% All programs start, and go on until `rest'.
-spec enter(crowd()) -> ok.
enter(Crowd) -> ask(Crowd, enter).

-spec programs(crowd()) -> [program()].
programs(Crowd) -> ask(Crowd, programs).

%% A program is killed; another one with its users starts at once.
-spec vanish(crowd(), program()) -> ok.
vanish(Crowd, Program) -> ask(Crowd, {vanish, Program}).

%% A program does nothing for so many milliseconds, and reads nothing.
-spec stand_still(crowd(), program(), pos_integer()) -> ok.
stand_still(Crowd, Program, Time) -> ask(Crowd, {stand_still, Program, Time}).

%% The connections of a program's users break.
-spec cut(crowd(), program()) -> ok.
cut(Crowd, Program) -> ask(Crowd, {cut, Program}).

%% Another event, of the suite's own.
-spec note(crowd(), megaphone_test_soak_oracle:event()) -> ok.
note(Crowd, Event) -> ask(Crowd, {note, Event}).

%% How many users are there, messages sent and come, logins that failed.
-spec counts(crowd()) -> #{atom() => non_neg_integer()}.
counts(Crowd) -> ask(Crowd, counts).

%% Nobody writes any more; when all is confirmed each session proves that it lives.
-spec rest(crowd()) -> ok.
rest(Crowd) ->
    ok = all_say(Crowd, "quiet\nsettle", <<"settled">>),
    receive after ?PROBE_AFTER -> ok end,
    ok = all_say(Crowd, "probe", <<"probed">>),
    ok = all_say(Crowd, "settle", <<"settled">>).

%% All users leave in good order, and the programs end.
-spec leave(crowd()) -> ok.
leave(Crowd) ->
    ok = all_say(Crowd, "quit", <<"bye">>),
    try
        megaphone_test:wait_until(fun() -> programs(Crowd) =:= [] end)
    catch
        error:{deadline, _} -> error({do_not_end, programs(Crowd), element(2, events(Crowd)), os:cmd("ps -eo pid,ppid,stat,wchan:20,args | grep soak.mjs")})
    end.

%% Who is not there, and the failures of logins before.
-spec missing(crowd()) -> [tuple()].
missing(Crowd) -> ask(Crowd, missing).

%% What has happened so far, and lines of clients that are no events.
-spec events(crowd()) -> {[megaphone_test_soak_oracle:event()], [binary()]}.
events(Crowd) -> ask(Crowd, events).

-spec all_say(crowd(), iodata(), binary()) -> ok.
all_say(Crowd, Command, Answer) ->
    Programs = ask(Crowd, {tell_all, Command}),
    try
        megaphone_test:wait_until(fun() -> Programs -- ask(Crowd, {said, Answer}) =:= [] end, ?LAST)
    catch
        error:{deadline, _} -> error({did_not_say, Answer, Programs -- ask(Crowd, {said, Answer}), element(2, events(Crowd))})
    end.

-spec ask(crowd(), term()) -> term().
ask(Crowd, Question) ->
    Ref = monitor(process, Crowd),
    Crowd ! {ask, self(), Ref, Question},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, _, _, Reason} ->
            error({crowd_ended, Reason})
    end.

%% ---- the process -----------------------------------------------------------------------------------------------

-spec loop(#state{}) -> no_return().
loop(State) ->
    receive
        {ask, From, Ref, Question} ->
            {Answer, Later} = answer(Question, State),
            From ! {Ref, Answer},
            loop(Later);
        {Port, {data, {_, Line}}} when is_port(Port) ->
            loop(line(program_of(Port, State), Line, State));
        {Port, {exit_status, Status}} ->
            loop(ended(Port, Status, State));
        {home, _, _, _} = Event ->
            loop(noted(Event, State));
        {'EXIT', Port, Reason} when is_port(Port), Reason =/= normal ->
            %% It was told something when it had gone; its status is lost.
            loop(ended(Port, Reason, State));
        {'EXIT', Port, normal} when is_port(Port) ->
            loop(State);
        {'EXIT', _Owner, Reason} ->
            _ = [os:cmd("kill -9 " ++ integer_to_list(Pid)) || {_, Pid} <- maps:values(State#state.running)],
            exit(Reason)
    end.

answer(enter, #state{settings = #{programs := Programs}} = State) ->
    {ok, lists:foldl(fun launch/2, State#state{enters = true}, Programs)};
answer(programs, #state{running = Running} = State) ->
    {maps:keys(Running), State};
answer({vanish, Program}, #state{running = Running, there = There} = State) ->
    #{Program := {Port, Pid}} = Running,
    [] = os:cmd("kill -9 " ++ integer_to_list(Pid)),
    Now = erlang:system_time(millisecond),
    Gone = [Jid || {Jid, Its} <- maps:to_list(There), Its =:= Program],
    Left = State#state{there = maps:without(Gone, There), dying = (State#state.dying)#{Port => Program}},
    {ok, launch(Program, lists:foldl(fun(Jid, Each) -> noted({offline, Now, Jid, vanished}, Each) end, Left, Gone))};
answer({stand_still, Program, Time}, #state{running = #{} = Running} = State) ->
    #{Program := {_, Pid}} = Running,
    [] = os:cmd("kill -STOP " ++ integer_to_list(Pid)),
    %% It may be killed meanwhile.
    _ = spawn(fun() ->
        receive after Time -> os:cmd("kill -CONT " ++ integer_to_list(Pid)) end
    end),
    {ok, State};
answer({cut, Program}, State) ->
    {tell(Program, "cut", State), State};
answer({note, Event}, State) ->
    {ok, noted(Event, State)};
answer(counts, #state{counts = Counts, there = There} = State) ->
    {Counts#{there => map_size(There)}, State};
answer(events, #state{events = Events, complaints = Complaints} = State) ->
    {{lists:reverse(Events), lists:reverse(Complaints)}, State};
answer(missing, #state{there = There, failures = Failures, settings = #{programs := Programs, users := Users}} = State) ->
    Here = [hd(binary:split(Jid, <<"@">>)) || Jid <- maps:keys(There)],
    All = [list_to_binary(name(Program, User)) || Program <- Programs, User <- lists:seq(1, Users)],
    {[{not_there, All -- Here, Failures} || All -- Here =/= []], State};
answer({tell_all, Command}, #state{running = Running} = State) ->
    _ = [tell(Program, Command, State) || Program <- maps:keys(Running)],
    {maps:keys(Running), State#state{said = [], enters = false}};
answer({said, Answer}, #state{said = Said} = State) ->
    {[Program || {Program, Text} <- Said, Text =:= Answer], State}.

-spec tell(program(), iodata(), #state{}) -> ok.
tell(Program, Command, #state{running = Running}) ->
    #{Program := {Port, _}} = Running,
    _ = catch port_command(Port, [Command, $\n]),
    ok.

-spec launch(program(), #state{}) -> #state{}.
launch({Kind, Number} = Program, #state{generation = Before, running = Running, settings = Settings} = State) ->
    #{users := Users, ports := Ports, seed := Seed, pause := Pause, password := Password} = Settings,
    Generation = Before + 1,
    Names = [name(Program, User) || User <- lists:seq(1, Users)],
    Args = [
        "--kind", atom_to_list(Kind), "--ports", lists:join(",", [integer_to_list(Port) || Port <- Ports]), "--domain", "localhost",
        "--users", lists:join(",", Names), "--passwords", Password, "--generation", integer_to_list(Generation),
        "--seed", integer_to_list(Seed + 1000 * Number + Generation), "--pause", integer_to_list(Pause)
    ],
    File = filename:join([megaphone_test_program:root(), "test", "clients", "soak.mjs"]),
    Port = open_port({spawn_executable, os:find_executable("node")}, [
        {args, [File | [lists:flatten(Arg) || Arg <- Args]]}, {line, 65536}, binary, exit_status, stderr_to_stdout
    ]),
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    peers(State#state{generation = Generation, running = Running#{Program => {Port, Pid}}}).

%% Of user N of a program.
-spec name(program(), pos_integer()) -> string().
name({Kind, Number}, User) ->
    lists:flatten(io_lib:format("~s~b-~b", [Kind, Number, User])).

-spec program_of(port(), #state{}) -> program() | {dying, program()} | none.
program_of(Port, #state{running = Running, dying = Dying}) ->
    case {Dying, [Program || {Program, {Its, _}} <- maps:to_list(Running), Its =:= Port]} of
        {#{Port := Program}, _} -> {dying, Program};
        {_, [Program]} -> Program;
        {_, []} -> none
    end.

-spec ended(port(), non_neg_integer() | atom(), #state{}) -> #state{}.
ended(Port, Status, #state{running = Running, complaints = Complaints, enters = Enters} = State) ->
    case program_of(Port, State) of
        none ->
            State;
        {dying, _} ->
            State#state{dying = maps:remove(Port, State#state.dying)};
        Program when Status =:= 0, not Enters ->
            State#state{running = maps:remove(Program, Running)};
        Program ->
            Text = iolist_to_binary(io_lib:format("~p ended with status ~p", [Program, Status])),
            State#state{running = maps:remove(Program, Running), complaints = [Text | Complaints]}
    end.

%% All are told who is there, as long as they write.
-spec peers(#state{}) -> #state{}.
peers(#state{enters = false} = State) ->
    State;
peers(#state{there = There, running = Running} = State) ->
    Line = lists:join(" ", ["peers" | maps:keys(There)]),
    _ = [tell(Program, Line, State) || Program <- maps:keys(Running)],
    State.

%% ---- lines -----------------------------------------------------------------------------------------------------

-spec line(program() | {dying, program()}, binary(), #state{}) -> #state{}.
line(From, Line, #state{complaints = Complaints} = State) ->
    try
        [Time | Words] = binary:split(Line, <<" ">>, [global, trim_all]),
        told(From, binary_to_integer(Time), Words, State)
    catch
        error:_ -> State#state{complaints = [Line | Complaints]}
    end.

-spec told(program() | {dying, program()}, integer(), [binary()], #state{}) -> #state{}.
told({dying, {Kind, _}}, Time, [<<"online">>, Jid], State) ->
    %% Nobody is told of it any more.
    Now = noted({online, Time, Jid, Kind}, State),
    noted({offline, Time, Jid, vanished}, Now);
told({Kind, _} = Program, Time, [<<"online">>, Jid], #state{there = There, settings = #{home := Home}} = State) ->
    ok = look_for(Jid, Time, Home),
    peers(noted({online, Time, Jid, Kind}, State#state{there = There#{Jid => Program}}));
told(_, Time, [<<"offline">>, Jid, Why], #state{there = There} = State) ->
    peers(noted({offline, Time, Jid, why(Why)}, State#state{there = maps:remove(Jid, There)}));
told(_, Time, [<<"sent">>, From, To, N], State) ->
    counted(sent, noted({sent, Time, From, To, binary_to_integer(N)}, State));
told(_, Time, [<<"confirmed">>, From, To, N], State) ->
    noted({confirmed, Time, From, To, binary_to_integer(N)}, State);
told(_, Time, [<<"got">>, Where, From, To, N, Request, Unharmed], State) ->
    counted(got, noted({got, Time, Where, From, To, binary_to_integer(N), binary_to_integer(Request), Unharmed =:= <<"1">>}, State));
told(_, Time, [<<"bounced">>, From, To, N], State) ->
    noted({bounced, Time, From, To, binary_to_integer(N)}, State);
told(_, Time, [<<"resuming">>, Jid], State) ->
    noted({resuming, Time, Jid}, State);
told(_, Time, [<<"resumed">>, Jid], #state{settings = #{home := Home}} = State) ->
    %% By another node, perhaps, to which it has moved.
    ok = look_for(Jid, Time, Home),
    noted({resumed, Time, Jid}, State);
told(_, _Time, [What | Words], #state{failures = Failures} = State) when What =:= <<"failed">>; What =:= <<"rejected">> ->
    %% Which it was last, of whom, is told if that user does not come.
    counted(failed, State#state{failures = lists:sublist([iolist_to_binary(lists:join(" ", [What | Words])) | Failures], ?FAILURES)});
told(Program, _Time, [Word], #state{said = Said} = State) when Word =:= <<"settled">>; Word =:= <<"probed">>; Word =:= <<"bye">> ->
    State#state{said = [{Program, Word} | Said]}.

%% Has it noted where a session is.
-spec look_for(megaphone_test_soak_oracle:jid(), integer(), fun((megaphone_test_soak_oracle:jid()) -> pos_integer() | unknown)) -> ok.
look_for(Jid, Time, Home) ->
    Self = self(),
    _ = spawn(fun() ->
        case Home(Jid) of
            unknown -> ok;
            Node -> Self ! {home, Time, Jid, Node}
        end
    end),
    ok.

-spec why(binary()) -> left | refused | {gave_up, non_neg_integer()} | {ended, binary()}.
why(<<"left">>) -> left;
why(<<"refused">>) -> refused;
why(<<"gave-up-", Status/binary>>) -> {gave_up, binary_to_integer(Status)};
why(<<"ended-", Condition/binary>>) -> {ended, Condition}.

-spec noted(megaphone_test_soak_oracle:event(), #state{}) -> #state{}.
noted(Event, #state{events = Events} = State) ->
    State#state{events = [Event | Events]}.

-spec counted(atom(), #state{}) -> #state{}.
counted(What, #state{counts = Counts} = State) ->
    State#state{counts = maps:update_with(What, fun(Count) -> Count + 1 end, Counts)}.
