%% A piece of network between a connection manager and a node: a port that passes bytes on to an address which may change, and
%% that can break all its connections, hold everything back for a while, or refuse new connections.
-module(megaphone_test_soak_proxy).

-export([start/1, port/1, aim/2, cut/1, stall/2, refuse/2, stop/1]).
-export_type([proxy/0]).

-opaque proxy() :: {pid(), inet:port_number()}.
-type target() :: {inet:ip_address(), inet:port_number()}.

-record(state, {
    listener :: gen_tcp:socket() | undefined,
    port :: inet:port_number(),
    target :: target(),
    %% Both ways of each connection.
    peers = #{} :: #{gen_tcp:socket() => gen_tcp:socket()},
    %% What came while everything was held back, the last first; `flowing' otherwise.
    held = flowing :: flowing | [{gen_tcp:socket(), binary() | closed}]
}).

%% Bound to the process that starts it.
-spec start(target()) -> proxy().
start(Target) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        {ok, Listener} = listen(0),
        {ok, Port} = inet:port(Listener),
        Self ! {self(), Port},
        loop(#state{listener = Listener, port = Port, target = Target})
    end),
    receive
        {Pid, Port} -> {Pid, Port}
    end.

-spec port(proxy()) -> inet:port_number().
port({_, Port}) -> Port.

%% New connections go there.
-spec aim(proxy(), target()) -> ok.
aim({Pid, _}, Target) -> tell(Pid, {aim, Target}).

%% All connections break.
-spec cut(proxy()) -> ok.
cut({Pid, _}) -> tell(Pid, cut).

%% No byte passes for so many milliseconds; then all that was held back does.
-spec stall(proxy(), non_neg_integer()) -> ok.
stall({Pid, _}, Time) -> tell(Pid, {stall, Time}).

%% All connections break, and no new one is taken for so many milliseconds.
-spec refuse(proxy(), non_neg_integer()) -> ok.
refuse({Pid, _}, Time) -> tell(Pid, {refuse, Time}).

-spec stop(proxy()) -> ok.
stop({Pid, _}) ->
    MRef = monitor(process, Pid),
    ok = tell(Pid, stop),
    receive
        {'DOWN', MRef, _, _, _} -> ok
    end.

-spec tell(pid(), term()) -> ok.
tell(Pid, Message) ->
    Pid ! Message,
    ok.

-spec listen(inet:port_number()) -> {ok, gen_tcp:socket()} | {error, term()}.
listen(Port) ->
    Listening = gen_tcp:listen(Port, [binary, {ip, {127, 0, 0, 1}}, {reuseaddr, true}, {active, false}, {nodelay, true}, {backlog, 64}]),
    case Listening of
        {ok, Listener} -> accept(Listener);
        {error, _} -> ok
    end,
    Listening.

%% A connection belongs to the proxy's own process from its first byte on.
-spec accept(gen_tcp:socket()) -> pid().
accept(Listener) ->
    Proxy = self(),
    spawn_link(fun() ->
        case gen_tcp:accept(Listener) of
            {ok, Socket} ->
                ok = gen_tcp:controlling_process(Socket, Proxy),
                Proxy ! {accepted, Listener, Socket};
            {error, _} ->
                ok
        end
    end).

-spec loop(#state{}) -> ok.
loop(#state{held = Held} = State) ->
    receive
        {accepted, Listener, Socket} ->
            _ = accept(Listener),
            loop(connect(Socket, State));
        {tcp, Socket, Data} when Held =:= flowing ->
            loop(pass(Socket, Data, State));
        {tcp, Socket, Data} ->
            loop(State#state{held = [{Socket, Data} | Held]});
        {tcp_closed, Socket} when Held =:= flowing ->
            loop(pass(Socket, closed, State));
        {tcp_closed, Socket} ->
            loop(State#state{held = [{Socket, closed} | Held]});
        {tcp_error, _Socket, _Reason} ->
            loop(State);
        {aim, Target} ->
            loop(State#state{target = Target});
        cut ->
            loop(break(State));
        {stall, Time} when Held =:= flowing ->
            _ = erlang:send_after(Time, self(), flow),
            loop(State#state{held = []});
        {stall, _Time} ->
            loop(State);
        flow ->
            loop(lists:foldr(fun({Socket, What}, Now) -> pass(Socket, What, Now) end, State#state{held = flowing}, held(Held)));
        {refuse, Time} ->
            _ = [gen_tcp:close(Listener) || Listener <- [State#state.listener], Listener =/= undefined],
            _ = erlang:send_after(Time, self(), listen),
            loop(break(State#state{listener = undefined}));
        listen when State#state.listener =:= undefined ->
            {ok, Listener} = listen(State#state.port),
            loop(State#state{listener = Listener});
        listen ->
            loop(State);
        stop ->
            _ = break(State),
            ok
    end.

-spec held(flowing | [T]) -> [T].
held(flowing) -> [];
held(Held) -> Held.

-spec connect(gen_tcp:socket(), #state{}) -> #state{}.
connect(Socket, #state{target = {Ip, Port}, peers = Peers, listener = Listener} = State) ->
    case Listener =/= undefined andalso gen_tcp:connect(Ip, Port, [binary, {active, false}, {nodelay, true}], 1000) of
        {ok, Other} ->
            _ = [inet:setopts(Each, [{active, once}]) || Each <- [Socket, Other]],
            State#state{peers = Peers#{Socket => Other, Other => Socket}};
        _ ->
            _ = gen_tcp:close(Socket),
            State
    end.

-spec pass(gen_tcp:socket(), binary() | closed, #state{}) -> #state{}.
pass(Socket, What, #state{peers = Peers} = State) ->
    case Peers of
        #{Socket := Other} when What =:= closed ->
            _ = [gen_tcp:close(Each) || Each <- [Socket, Other]],
            State#state{peers = maps:without([Socket, Other], Peers)};
        #{Socket := Other} ->
            _ = gen_tcp:send(Other, What),
            _ = inet:setopts(Socket, [{active, once}]),
            State;
        #{} ->
            State
    end.

-spec break(#state{}) -> #state{}.
break(#state{peers = Peers} = State) ->
    _ = [gen_tcp:close(Socket) || Socket <- maps:keys(Peers)],
    State#state{peers = #{}, held = case State#state.held of flowing -> flowing; _ -> [] end}.
