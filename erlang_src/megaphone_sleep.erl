%% @private
%% @doc Gives back the memory of one idle process of ejabberd: by garbage collection from outside, or by putting it to
%% sleep (hibernation), which ejabberd never does itself.
%%
%% A process is asked to sleep by a system message ({@link sys}), whose function runs in that process. There all is looked
%% at once more: between the decision and the message anything may have come. What is not as expected is left as it was.
%%
%% From OTP 28 on the function calls `erlang:hibernate/0', which keeps the whole stack: nothing of ejabberd's loops has to
%% be known. Before that
%% <ul>
%% <li>a BOSH session (`ejabberd_bosh', a `p1_fsm'; `ejabberd_http_ws' is another) is given the timeout `hibernate' in the place of `infinity': its loop
%%     does the rest;</li>
%% <li>a client session (`ejabberd_c2s', an `xmpp_stream_in' in a `p1_server') offers no such place. The function
%%     hibernates into `p1_server:wake_hib/6' with the arguments that its loop would give: so it has to know the process's
%%     parent, that no debug function is set ({@link sys:get_status/1}, asked first), and its queue limit.</li>
%% </ul>
-module(megaphone_sleep).

-export([kind/1, is_clean/1, collect/2, collect_again/1, bosh/2, ask_status/3, stream/4, limits/1, context/0, counts/1]).
-export_type([kind/0, context/0, status/0]).

-type kind() :: bosh | stream | asleep | other.
%% Of what a process's current function tells: a `p1_fsm' or `p1_server' that waits for messages, one that sleeps already.

-record(context, {
    %% Nobody reads what the system messages answer, which is a copy of the process's state.
    nobody :: reference(),
    counters :: counters:counters_ref(),
    sweeper :: pid()
}).
-opaque context() :: #context{}.

-type status() :: {status, pid(), {module, module()}, [term()]}.
%% As sys:get_status/1 has it.

-define(COLLECTED, 1).
-define(BOSH, 2).
-define(STREAMS, 3).
-define(LEFT, 4).

%% @doc For the process that calls the functions below; it gets `{unrecognised, Kind, Pid}' from a process that is not as
%% expected, and `{garbage_collect, _, _}'.
-spec context() -> context().
context() ->
    Nobody = alias(),
    true = unalias(Nobody),
    #context{nobody = Nobody, counters = counters:new(?LEFT, []), sweeper = self()}.

%% @doc Counted so far: collections asked for, processes put to sleep, and those that turned out not to be idle.
-spec counts(context()) -> #{collected := N, bosh_asleep := N, c2s_asleep := N, left := N} when N :: non_neg_integer().
counts(#context{counters = Counters}) ->
    Names = [{collected, ?COLLECTED}, {bosh_asleep, ?BOSH}, {c2s_asleep, ?STREAMS}, {left, ?LEFT}],
    maps:from_list([{Name, counters:get(Counters, Index)} || {Name, Index} <- Names]).

%% @doc What kind of process has this current function.
-spec kind(mfa()) -> kind().
kind({p1_fsm, collect_messages, 3}) -> bosh;
kind({p1_server, collect_messages, 3}) -> stream;
kind({erlang, hibernate, _}) -> asleep;
kind(_) -> other.

%% @doc Whether a process has made nothing since its last full collection: another one would free nothing. Takes what
%% `process_info/2' gives for `garbage_collection_info'.
-spec is_clean([{atom(), term()}]) -> boolean().
is_clean(Info) ->
    [Heap, Recent, Old, Fragments] =
        [proplists:get_value(Item, Info) || Item <- [heap_size, recent_size, old_heap_size, mbuf_size]],
    Heap =:= Recent andalso Old =:= 0 andalso Fragments =:= 0.

%% @doc Asks for a full collection. It happens when the process is next scheduled, and wakes nothing up; then the caller is sent
%% `{garbage_collect, {collected, Pid}, _}', and is to call {@link collect_again/1}.
-spec collect(pid(), context()) -> ok.
collect(Pid, #context{counters = Counters}) ->
    _ = erlang:garbage_collect(Pid, [{async, {collected, Pid}}]),
    counters:add(Counters, ?COLLECTED, 1).

%% @doc Asks a process that was just collected for another collection: the heap that it got was made for all that it had before,
%% with what was dropped, and is up to four times as large as what is left. Asked for at the same time the VM would make one of both.
-spec collect_again(pid()) -> ok.
collect_again(Pid) ->
    _ = erlang:garbage_collect(Pid, [{async, again}]),
    ok.

%% @doc Asks a BOSH session to sleep.
-spec bosh(pid(), context()) -> ok.
bosh(Pid, Context) ->
    request(Pid, fun(State) -> sleep_bosh(State, Context) end, Context).

%% @doc Asks a client session for its status, which {@link stream/4} needs: the caller is sent `{Tag, Status}'.
-spec ask_status(pid(), Tag :: term(), context()) -> ok.
ask_status(Pid, Tag, #context{sweeper = Sweeper}) ->
    Pid ! {system, {Sweeper, Tag}, get_status},
    ok.

%% @doc Asks a client session with this status to sleep; one that is being debugged, or stopped, is left alone.
-spec stream(pid(), status(), limits(), context()) -> ok.
stream(Pid, {status, Pid, {module, p1_server}, [_Dictionary, running, Parent, [] | _]}, Limits, Context) when is_pid(Parent) ->
    request(Pid, fun(State) -> sleep_stream(State, Parent, Limits, Context) end, Context);
stream(_Pid, _Status, _Limits, #context{counters = Counters}) ->
    counters:add(Counters, ?LEFT, 1).

%% An alias in the tag of a request is the tail of an improper list, see gen:reply/2.
-dialyzer({no_improper_lists, request/3}).
-spec request(pid(), fun((term()) -> term()), context()) -> ok.
request(Pid, Fun, #context{nobody = Nobody, sweeper = Sweeper}) ->
    Pid ! {system, {Sweeper, [alias | Nobody]}, {replace_state, Fun}},
    ok.

-type limits() :: {limits, pos_integer() | undefined}.
%% The queue limit of a p1_server, as its loop has it.

%% @doc The queue limit that client sessions were started with: of sessions that came by BOSH or WebSocket, or by TCP.
%% `unknown': several listeners have different ones.
-spec limits(http | tcp) -> limits() | unknown.
limits(http) ->
    limit(ejabberd_config:fsm_limit_opts([]));
limits(tcp) ->
    Of = fun(Opts) -> limit(ejabberd_config:fsm_limit_opts([{max_fsm_queue, Max} || {max_fsm_queue, Max} <- maps:to_list(Opts)])) end,
    case lists:usort([Of(Opts) || {_Port, ejabberd_c2s, Opts} <- ejabberd_option:listen()]) of
        [Limits] -> Limits;
        _ -> unknown
    end.

-spec limit([{max_queue, pos_integer()}]) -> limits().
limit([{max_queue, Max}]) -> {limits, Max};
limit([]) -> {limits, undefined}.

%% ---- in the process that is to sleep -------------------------------------------------------------------------

%% What p1_fsm's loop goes on with. A timeout other than `infinity' is a pending one.
-spec sleep_bosh(term(), context()) -> term().
sleep_bosh([Name, StateName, Data, Module, infinity, Limits, Queue, 0] = State, Context) when
    {Module, StateName} =:= {ejabberd_bosh, active} orelse {Module, StateName} =:= {ejabberd_http_ws, loop},
    is_tuple(Data),
    element(1, Data) =:= state,
    is_tuple(Limits),
    element(1, Limits) =:= limits
->
    case is_idle() of
        true ->
            count(?BOSH, Context),
            case keeps_stack() of
                true ->
                    hibernate(),
                    State;
                false ->
                    [Name, StateName, Data, Module, hibernate, Limits, Queue, 0]
            end;
        false ->
            left(State, Context)
    end;
sleep_bosh([_Name, StateName, _Data, Module, _Time, _Limits, _Queue, Length] = State, Context) when
    Module =:= ejabberd_bosh orelse Module =:= ejabberd_http_ws, is_atom(StateName), is_integer(Length)
->
    left(State, Context);
sleep_bosh(State, Context) ->
    unrecognised(bosh, State, Context).

-spec sleep_stream(term(), pid(), limits(), context()) -> term().
sleep_stream(#{mod := ejabberd_c2s, owner := Owner, stream_state := Phase, stream_timeout := Timeout} = State, Parent, Limits, Context) when
    Owner =:= self()
->
    case Phase =:= established andalso Timeout =:= infinity andalso is_idle() of
        true -> sleep_idle_stream(State, Parent, Limits, Context);
        false -> left(State, Context)
    end;
sleep_stream(State, _Parent, _Limits, Context) ->
    unrecognised(stream, State, Context).

-spec sleep_idle_stream(map(), pid(), limits(), context()) -> term().
sleep_idle_stream(State, Parent, Limits, Context) ->
    case {keeps_stack(), erlang:function_exported(p1_server, wake_hib, 6)} of
        {true, _} ->
            count(?STREAMS, Context),
            hibernate(),
            State;
        {false, true} ->
            count(?STREAMS, Context),
            %% The name of a process that was started without one is its pid.
            proc_lib:hibernate(p1_server, wake_hib, [Parent, self(), State, xmpp_stream_in, [], Limits]);
        {false, false} ->
            unrecognised(stream, State, Context)
    end.

%% Nothing waits: neither in the mailbox nor in the queue to which these loops move it.
-spec is_idle() -> boolean().
is_idle() ->
    get('$internal_queue_len') =:= 0 andalso process_info(self(), message_queue_len) =:= {message_queue_len, 0}.

-spec left(State, context()) -> State.
left(State, Context) ->
    count(?LEFT, Context),
    State.

-spec unrecognised(bosh | stream, State, context()) -> State.
unrecognised(Kind, State, #context{sweeper = Sweeper}) ->
    Sweeper ! {unrecognised, Kind, self()},
    State.

-spec count(pos_integer(), context()) -> ok.
count(Index, #context{counters = Counters}) ->
    counters:add(Counters, Index, 1).

%% OTP 28 and later.
-spec keeps_stack() -> boolean().
keeps_stack() ->
    erlang:function_exported(erlang, hibernate, 0).

-spec hibernate() -> ok.
hibernate() ->
    %% Not called by name: older compilers, dialyzer and xref do not know it.
    Module = binary_to_existing_atom(<<"erlang">>),
    Module:hibernate().
