%% @private
%% @doc Decides who may open a link, and keeps strangers from taking all places or filling the log.
%%
%% <table>
%% <tr><td>the listener is bound to</td><td>a link is opened</td></tr>
%% <tr><td>a unix-domain socket</td><td>to who knows the secret; without one, to processes of ejabberd's own user and of root</td></tr>
%% <tr><td>a loopback address</td><td>to who knows the secret; without one, to everybody on the machine</td></tr>
%% <tr><td>any other address</td><td>to who knows the secret; without one, to nobody</td></tr>
%% </table>
%%
%% A peer on another machine needs TLS as well, or the option `allow_plain_link'. What is decided here needs no word from
%% the peer; the secret itself is the native side's work.
-module(megaphone_gate).
-behaviour(gen_server).

-include_lib("kernel/include/file.hrl").

-export([start_link/0, peer/1, admit/2, enter/2, passed/1, may_complain/1, auth/1, secret_type/0, text/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([refusal/0, secret/0, peer/0]).

-type refusal() :: no_secret | unix_peer | plain | pending.
-type secret() :: fun(() -> binary()).
%% A function, so that no report shows it.

-type peer() :: inet:ip_address() | local.

%% One line a minute for each address, and so many addresses are remembered.
-define(COMPLAINT_PAUSE, 60).
-define(MAX_COMPLAINTS, 256).

-record(state, {
    %% Receivers whose links are not open yet.
    pending = #{} :: #{pid() => {reference(), peer()}},
    complaints = #{} :: #{peer() => Second :: integer()}
}).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Whether an accepted socket may become a link at all, by the options of its listener.
-spec admit(inet:socket(), [{atom(), term()}]) -> ok | {error, refusal()}.
admit(Socket, Opts) ->
    HasSecret = proplists:get_value(secret, Opts) =/= undefined,
    Encrypted = proplists:get_bool(tls, Opts) orelse proplists:get_bool(allow_plain_link, Opts),
    case {place(proplists:get_value(megaphone_listener, Opts)), peer(Socket)} of
        {local, _} when HasSecret -> ok;
        {local, _} -> own_user(Socket);
        {remote, _} when not HasSecret -> {error, no_secret};
        {_, Peer} when Encrypted; Peer =:= local -> ok;
        {_, Peer} -> plain(is_loopback(Peer))
    end.

-spec plain(boolean()) -> ok | {error, plain}.
plain(true) -> ok;
plain(false) -> {error, plain}.

-spec place(term()) -> local | loopback | remote.
place({ok, {local, _Path}}) -> local;
place({ok, {Ip, _Port}}) -> place_of(is_loopback(Ip));
%% Not from a listener of ejabberd: nothing is known, so it is held to be anywhere.
place(_) -> remote.

-spec place_of(boolean()) -> loopback | remote.
place_of(true) -> loopback;
place_of(false) -> remote.

%% @doc Where a socket comes from: an address, or this machine.
-spec peer(inet:socket()) -> peer().
peer(Socket) ->
    case inet:peername(Socket) of
        {ok, {Ip, Port}} when is_tuple(Ip), is_integer(Port) -> Ip;
        {ok, _} -> local;
        %% It has gone; what it would have been does not matter.
        {error, _} -> {0, 0, 0, 0}
    end.

-spec is_loopback(inet:ip_address()) -> boolean().
is_loopback({127, _, _, _}) -> true;
is_loopback({0, 0, 0, 0, 0, 0, 0, 1}) -> true;
is_loopback({0, 0, 0, 0, 0, 16#ffff, High, _}) -> High bsr 8 =:= 127;
is_loopback(_) -> false.

%% The mode of the socket's file would not tell: it can be changed after somebody has connected.
-spec own_user(inet:socket()) -> ok | {error, unix_peer}.
own_user(Socket) ->
    case {peer_user(Socket), file:read_file_info("/proc/self")} of
        {{ok, 0}, _} -> ok;
        {{ok, User}, {ok, #file_info{uid = User}}} -> ok;
        _ -> {error, unix_peer}
    end.

%% SO_PEERCRED of Linux: process, user and group, in the byte order of the machine.
-spec peer_user(inet:socket()) -> {ok, non_neg_integer()} | error.
peer_user(Socket) ->
    case inet:getopts(Socket, [{raw, 1, 17, 12}]) of
        {ok, [{raw, 1, 17, <<_Process:32/native, User:32/native, _Group:32/native>>}]} -> {ok, User};
        _ -> error
    end.

%% @doc Takes a place among the links that are not open yet; it is given back by {@link passed/1}, or when the process ends.
-spec enter(pid(), peer()) -> ok | {error, pending}.
enter(Receiver, Peer) ->
    gen_server:call(?MODULE, {enter, Receiver, Peer}, infinity).

%% @doc The link of this receiver is open.
-spec passed(pid()) -> ok.
passed(Receiver) ->
    gen_server:cast(?MODULE, {passed, Receiver}).

%% @doc Whether a refusal of this peer shall be logged: once a minute for each address.
-spec may_complain(peer()) -> boolean().
may_complain(Peer) ->
    gen_server:call(?MODULE, {may_complain, Peer}, infinity).

%% @doc What the native side needs to authenticate a link, by the options of its listener.
-spec auth([{atom(), term()}]) -> none | {Secret :: binary(), Nonce :: binary()}.
auth(Opts) ->
    case proplists:get_value(secret, Opts) of
        undefined -> none;
        Secret -> {Secret(), crypto:strong_rand_bytes(32)}
    end.

%% @doc Validator of the listener option `secret'. A refused value is in no message.
-spec secret_type() -> fun((term()) -> undefined | secret()).
secret_type() ->
    fun
        (undefined) -> undefined;
        (Secret) when is_function(Secret, 0) -> Secret;
        (Value) -> checked((econf:binary())(Value))
    end.

-spec checked(binary()) -> secret().
checked(Secret) ->
    #{min_secret := Min, max_secret := Max} = megaphone_nif:limits(),
    case byte_size(Secret) of
        Size when Size >= Min, Size =< Max -> fun() -> Secret end;
        Size -> econf:fail({secret_must_have_bytes, {from, Min}, {to, Max}, {but_has, Size}})
    end.

%% @doc What a refused peer, and the log, are told.
-spec text(refusal()) -> binary().
text(no_secret) ->
    <<"this listener is bound to more than a loopback address: set its option `secret', and the same secret in the connection manager">>;
text(unix_peer) ->
    <<"without the listener option `secret' a unix socket serves only processes of ejabberd's own user and of root">>;
text(plain) ->
    <<"links from other machines need TLS: set the listener option `tls', or `allow_plain_link' where the network is trusted">>;
text(pending) ->
    <<"too many links are being opened, try again">>.

-spec init([]) -> {ok, #state{}}.
init([]) ->
    {ok, #state{}}.

-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, ok | {error, pending | unknown_call} | boolean(), #state{}}.
handle_call({enter, Receiver, Peer}, _From, #state{pending = Pending} = State) ->
    #{max_pending_links := Most, max_pending_links_per_address := MostHere} = megaphone_nif:limits(),
    Here = length([Peer || {_, {_, Other}} <- maps:to_list(Pending), Other =:= Peer]),
    case map_size(Pending) < Most andalso Here < MostHere of
        true -> {reply, ok, State#state{pending = Pending#{Receiver => {monitor(process, Receiver), Peer}}}};
        false -> {reply, {error, pending}, State}
    end;
handle_call({may_complain, Peer}, _From, #state{complaints = Complaints} = State) ->
    Now = erlang:monotonic_time(second),
    Recent = maps:filter(fun(_Peer, At) -> At + ?COMPLAINT_PAUSE > Now end, Complaints),
    case is_map_key(Peer, Recent) orelse map_size(Recent) >= ?MAX_COMPLAINTS of
        true -> {reply, false, State#state{complaints = Recent}};
        false -> {reply, true, State#state{complaints = Recent#{Peer => Now}}}
    end;
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({passed, Receiver}, State) ->
    {noreply, left(Receiver, State)};
handle_cast(_Other, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', _MRef, process, Receiver, _Reason}, State) ->
    {noreply, left(Receiver, State)};
handle_info(_Other, State) ->
    {noreply, State}.

-spec left(pid(), #state{}) -> #state{}.
left(Receiver, #state{pending = Pending} = State) ->
    case maps:take(Receiver, Pending) of
        {{MRef, _Peer}, Rest} ->
            true = demonitor(MRef, [flush]),
            State#state{pending = Rest};
        error ->
            State
    end.
