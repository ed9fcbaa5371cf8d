%% A p1_fsm that is no BOSH session, to be compiled where p1_utils is: what the sweeper does not recognise.
-module(megaphone_test_fsm).

-export([start/0, poll/1]).
-export([init/1, handle_sync_event/4, handle_event/3, handle_info/3, terminate/3, code_change/4]).

-spec start() -> pid().
start() ->
    {ok, Pid} = p1_fsm:start(?MODULE, [], []),
    Pid.

%% A process that waits for an answer of it, as that of a poll does.
-spec poll(pid()) -> pid().
poll(Fsm) ->
    spawn(fun() -> p1_fsm:sync_send_all_state_event(Fsm, never, infinity) end).

init([]) -> {ok, somewhere, []}.
handle_sync_event(never, _From, StateName, State) -> {next_state, StateName, State}.
handle_event(_Event, StateName, State) -> {next_state, StateName, State}.
handle_info(_Info, StateName, State) -> {next_state, StateName, State}.
terminate(_Reason, _StateName, _State) -> ok.
code_change(_Old, StateName, State, _Extra) -> {ok, StateName, State}.
