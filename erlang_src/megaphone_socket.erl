%% @doc A virtual connection as a socket of OTP.
%%
%% `gen_tcp', `inet' and `file:sendfile/5' hand every call for a socket `{'$inet', megaphone_socket, Handle}' to this
%% module. That is how ejabberd's own code, unmodified, reads from and writes to a connection that has no port. Use
%% those modules rather than this one, with the socket that {@link megaphone:socket/1} gives.
%%
%% It behaves as a `gen_tcp' socket in binary mode does, apart from this:
%% <ul>
%% <li>Any process that has the socket may read, write and close. Only the owner gets the messages of active mode, and
%%     the connection closes when the owner dies.</li>
%% <li>A `send' that waits longer than the send timeout closes the connection, as the option `send_timeout_close' does:
%%     a part of the data is out already. The timeout is the one of the listener (15 s if it has none), or what this
%%     process set with `{send_timeout, Time}'.</li>
%% <li>Options of the transport (`nodelay', `buffer', `linger' ...) are accepted and mean nothing. The packet modes are
%%     `raw' (or 0), `http', `http_bin', `httph' and `httph_bin'; list mode does not exist.</li>
%% <li>An ended connection answers `{error, closed}' to everything, `close/1' excepted.</li>
%% <li>`unrecv/2' and `sendfile/4' answer `{error, enotsup}' (OTP then sends files itself), and sockets cannot be
%%     monitored.</li>
%% </ul>
%%
%% Cost: data is copied once in each direction, at most 64 kB in one native call, so that none takes long.
-module(megaphone_socket).

-export([
    recv/2, recv/3,
    send/2, send/3, send_message/2,
    setopts/2, getopts/2,
    peername/1, sockname/1, socknames/1,
    controlling_process/2,
    shutdown/2, close/1,
    accept/1, accept/2,
    sendfile/4, unrecv/2,
    monitor/1, cancel_monitor/1,
    info/1, getstat/2, which_packet_type/1, socket_to_list/1
]).
-export_type([socket/0, send_error/0]).

-type socket() :: {'$inet', ?MODULE, megaphone_nif:handle()}.
-type deadline() :: integer() | infinity.
-type recv_error() :: closed | timeout | einval | enomem | {limit, waiters}.
-type send_error() :: closed | timeout | einval | {limit, waiters}.
-type option_error() :: closed | einval.

%% The most bytes that one native call is asked for: copying them takes some 10 microseconds.
-define(SLICE, 65536).
-define(MAX_LENGTH, 67108864).

%% @equiv recv(Socket, Length, infinity)
-spec recv(socket(), Length :: non_neg_integer()) ->
    {ok, megaphone_nif:result()} | {error, recv_error()}.
recv(Socket, Length) ->
    recv(Socket, Length, infinity).

%% @doc Reads what is there (`Length' 0), or exactly `Length' bytes.
%%
%% Errors: `closed' once everything that came before the close has been read; `timeout'; `einval' for a socket in
%% active mode, or for a length in a packet mode other than raw; `enomem' for a length over 64 MiB, gen_tcp's limit.
%% As with gen_tcp, bytes that had come when a long read timed out are not lost: they stay with this process for its
%% next read. More than 64 kB are read in several steps, between which another reader of the same connection may come.
-spec recv(socket(), Length :: non_neg_integer(), timeout()) ->
    {ok, megaphone_nif:result()} | {error, recv_error()}.
recv({'$inet', ?MODULE, Handle}, Length, Timeout) when is_integer(Length), Length >= 0 ->
    case kept(Handle) of
        undefined when Length =< ?SLICE -> recv_slice(Handle, Length, Timeout);
        undefined when Length > ?MAX_LENGTH -> {error, enomem};
        undefined -> recv_long(Handle, Length, deadline(Timeout), <<>>);
        Kept when Length =:= 0 -> {ok, Kept};
        Kept -> recv_long(Handle, Length, deadline(Timeout), Kept)
    end.

-spec recv_long(megaphone_nif:handle(), pos_integer(), deadline(), binary()) ->
    {ok, megaphone_nif:result()} | {error, recv_error()}.
recv_long(Handle, Length, _Deadline, Got) when byte_size(Got) >= Length ->
    <<Data:Length/binary, Rest/binary>> = Got,
    keep(Handle, Rest),
    {ok, Data};
recv_long(Handle, Length, Deadline, Got) ->
    case recv_slice(Handle, min(?SLICE, Length - byte_size(Got)), time_left(Deadline)) of
        {ok, Data} ->
            %% The emulator appends in place, so this stays linear.
            recv_long(Handle, Length, Deadline, <<Got/binary, Data/binary>>);
        {error, timeout} = Error ->
            keep(Handle, Got),
            Error;
        {error, _} = Error ->
            Error
    end.

-spec recv_slice(megaphone_nif:handle(), non_neg_integer(), timeout()) ->
    {ok, megaphone_nif:result()} | {error, recv_error()}.
recv_slice(Handle, Length, Timeout) ->
    case megaphone_nif:recv(Handle, Length) of
        {wait, Token} -> join(await(Handle, Token, Timeout));
        Answer -> join(Answer)
    end.

%% Much data that came in many pieces is given as a list of them.
-spec join({ok, megaphone_nif:result()} | {error, recv_error()}) ->
    {ok, megaphone_nif:result()} | {error, recv_error()}.
join({ok, Pieces}) when is_list(Pieces) -> {ok, iolist_to_binary(Pieces)};
join(Answer) -> Answer.

-spec await(megaphone_nif:handle(), megaphone_nif:token(), timeout()) ->
    ok | {ok, megaphone_nif:result()} | {error, closed | timeout}.
await(Handle, Token, Timeout) ->
    receive
        {megaphone, Token, Answer} -> Answer
    after Timeout ->
        case megaphone_nif:cancel(Handle, Token) of
            ok ->
                {error, timeout};
            gone ->
                %% It was sent between our timeout and the cancel, so it does arrive.
                receive
                    {megaphone, Token, Answer} -> Answer
                end
        end
    end.

%% @doc Writes, waiting for room where there is none. `timeout': there was none for the time of the option
%% `send_timeout', and the connection is closed now. `einval': not iodata.
-spec send(socket(), iodata()) -> ok | {error, send_error()}.
send(Socket, Data) ->
    send(Socket, Data, default).

%% @doc As {@link send/2} with a timeout for this call.
-spec send(socket(), iodata(), timeout() | default) -> ok | {error, send_error()}.
send({'$inet', ?MODULE, Handle}, Data, Timeout) ->
    try iolist_to_binary(Data) of
        Binary -> send_first(Handle, Binary, Timeout)
    catch
        error:badarg -> {error, einval}
    end.

%% @doc Sends a message of a connection of kind XMPP, as {@link send/2} sends bytes.
-spec send_message(megaphone_nif:handle(), binary()) -> ok | {error, send_error()}.
send_message(Handle, Text) ->
    case megaphone_nif:send_message(Handle, Text) of
        {wait, Accepted, Token} ->
            Message = <<(byte_size(Text)):32, Text/binary>>,
            send_wait(Handle, drop(Accepted, Message), Token, send_deadline(Handle, default));
        Answer ->
            Answer
    end.

%% Nearly every send fits and needs neither clock nor timeout.
-spec send_first(megaphone_nif:handle(), binary(), timeout() | default) -> ok | {error, send_error()}.
send_first(Handle, Data, Timeout) ->
    case megaphone_nif:send(Handle, Data) of
        {wait, Accepted, Token} ->
            send_wait(Handle, drop(Accepted, Data), Token, send_deadline(Handle, Timeout));
        Answer ->
            Answer
    end.

%% All that is left is offered each time, not a slice of it: the table takes what there is room for, and as long as
%% some is left no other sender comes between.
-spec send_rest(megaphone_nif:handle(), binary(), deadline()) -> ok | {error, send_error()}.
send_rest(Handle, Data, Deadline) ->
    case megaphone_nif:send(Handle, Data) of
        {wait, Accepted, Token} -> send_wait(Handle, drop(Accepted, Data), Token, Deadline);
        Answer -> Answer
    end.

-spec send_wait(megaphone_nif:handle(), binary(), megaphone_nif:token(), deadline()) ->
    ok | {error, send_error()}.
send_wait(Handle, Data, Token, Deadline) ->
    case await(Handle, Token, time_left(Deadline)) of
        ok ->
            send_rest(Handle, Data, Deadline);
        {error, timeout} = Error ->
            %% A part of the data is out: nothing sent from now on could be understood.
            ok = megaphone_nif:close(Handle),
            Error;
        {error, closed} = Error ->
            Error
    end.

-spec drop(non_neg_integer(), binary()) -> binary().
drop(Count, Data) ->
    binary:part(Data, Count, byte_size(Data) - Count).

-spec send_deadline(megaphone_nif:handle(), timeout() | default) -> deadline().
send_deadline(Handle, default) ->
    case get(timeout_key(Handle)) of
        undefined -> deadline(megaphone_links:send_timeout(Handle));
        Timeout -> deadline(Timeout)
    end;
send_deadline(_Handle, Timeout) ->
    deadline(Timeout).

-spec deadline(timeout()) -> deadline().
deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

-spec time_left(deadline()) -> timeout().
time_left(infinity) -> infinity;
time_left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% What a timed-out read had taken, and a send timeout of its own, are kept in the process that called: both are rare,
%% and a process that reads a virtual connection serves that one and ends soon.
-spec keep(megaphone_nif:handle(), binary()) -> ok.
keep(_Handle, <<>>) ->
    ok;
keep(Handle, Data) ->
    %% Crash reports show the dictionary of a process, and of a function not what it holds.
    _ = put(kept_key(Handle), fun() -> Data end),
    ok.

%% It is not kept any more then.
-spec kept(megaphone_nif:handle()) -> binary() | undefined.
kept(Handle) ->
    case erase(kept_key(Handle)) of
        undefined -> undefined;
        Kept -> Kept()
    end.

-spec kept_key(megaphone_nif:handle()) -> {?MODULE, kept, megaphone_nif:handle()}.
kept_key(Handle) -> {?MODULE, kept, Handle}.

-spec timeout_key(megaphone_nif:handle()) -> {?MODULE, send_timeout, megaphone_nif:handle()}.
timeout_key(Handle) -> {?MODULE, send_timeout, Handle}.

%% @doc Sets options, in the order given. `einval': an option or value that is not known; nothing is set then.
-spec setopts(socket(), [gen_tcp:option() | {packet, megaphone_nif:packet()}]) -> ok | {error, option_error()}.
setopts({'$inet', ?MODULE, Handle} = Socket, Opts) when is_list(Opts) ->
    case megaphone_socket_options:check(Opts) of
        {ok, Checked} -> apply_options(Checked, Socket, Handle);
        {error, einval} = Error -> Error
    end.

-spec apply_options([megaphone_socket_options:option()], socket(), megaphone_nif:handle()) ->
    ok | {error, option_error()}.
apply_options([], _Socket, _Handle) ->
    ok;
apply_options([Option | Rest], Socket, Handle) ->
    case apply_option(Option, Socket, Handle) of
        ok -> apply_options(Rest, Socket, Handle);
        {error, _} = Error -> Error
    end.

-spec apply_option(megaphone_socket_options:option(), socket(), megaphone_nif:handle()) -> ok | {error, option_error()}.
apply_option({active, Active}, Socket, Handle) ->
    set_active(Active, Socket, Handle);
apply_option({packet, Packet}, _Socket, Handle) ->
    megaphone_nif:set_packet(Handle, Packet);
apply_option({send_timeout, Time}, _Socket, Handle) ->
    _ = put(timeout_key(Handle), Time),
    ok.

-spec set_active(megaphone_nif:active(), socket(), megaphone_nif:handle()) -> ok | {error, option_error()}.
set_active(false, _Socket, Handle) ->
    megaphone_nif:set_active(Handle, false);
set_active(Active, Socket, Handle) ->
    case kept(Handle) of
        undefined ->
            megaphone_nif:set_active(Handle, Active);
        Kept ->
            %% What an interrupted read had taken comes first.
            self() ! {tcp, Socket, Kept},
            case Active of
                once -> ok;
                _ -> megaphone_nif:set_active(Handle, Active)
            end
    end.

%% @doc Reads options: `active', `packet', `mode' and `send_timeout'. Others are left out of the answer, as gen_tcp
%% does with an option that the system does not have.
-spec getopts(socket(), [atom()]) -> {ok, [{atom(), term()}]} | {error, closed}.
getopts({'$inet', ?MODULE, Handle}, Names) when is_list(Names) ->
    case megaphone_nif:info(Handle) of
        {ok, Info} -> {ok, lists:filtermap(fun(Name) -> getopt(Name, Info, Handle) end, Names)};
        {error, closed} = Error -> Error
    end.

-spec getopt(atom(), #{atom() => term()}, megaphone_nif:handle()) -> {true, {atom(), term()}} | false.
getopt(Name, Info, _Handle) when Name =:= active; Name =:= packet ->
    case Info of
        #{Name := Value} -> {true, {Name, Value}};
        #{} -> false
    end;
getopt(mode, _Info, _Handle) ->
    {true, {mode, binary}};
getopt(send_timeout, _Info, Handle) ->
    case get(timeout_key(Handle)) of
        undefined -> {true, {send_timeout, megaphone_links:send_timeout(Handle)}};
        Time -> {true, {send_timeout, Time}}
    end;
getopt(_Name, _Info, _Handle) ->
    false.

%% @doc The client's address, as the ECM reported it.
-spec peername(socket()) -> {ok, megaphone_nif:address()} | {error, closed}.
peername({'$inet', ?MODULE, Handle}) ->
    megaphone_nif:peername(Handle).

%% @doc The address at which the ECM accepted the client.
-spec sockname(socket()) -> {ok, megaphone_nif:address()} | {error, closed}.
sockname({'$inet', ?MODULE, Handle}) ->
    megaphone_nif:sockname(Handle).

%% @doc As {@link sockname/1}, in a list.
-spec socknames(socket()) -> {ok, [megaphone_nif:address()]} | {error, closed}.
socknames(Socket) ->
    case sockname(Socket) of
        {ok, Address} -> {ok, [Address]};
        {error, closed} = Error -> Error
    end.

%% @doc Makes `NewOwner' the owner. Messages of the socket that the old owner has not read yet move along, in order.
%% `not_owner': only the owner may do this. `badarg': not a local process.
-spec controlling_process(socket(), pid()) -> ok | {error, closed | not_owner | badarg | einval}.
controlling_process({'$inet', ?MODULE, Handle} = Socket, NewOwner) when is_pid(NewOwner), node(NewOwner) =:= node() ->
    case megaphone_nif:info(Handle) of
        {ok, #{owner := NewOwner}} -> ok;
        {ok, #{owner := Owner}} when is_pid(Owner), Owner =/= self() -> {error, not_owner};
        {ok, Info} -> hand_over(Socket, Handle, maps:get(active, Info, false), NewOwner);
        {error, closed} = Error -> Error
    end;
controlling_process({'$inet', ?MODULE, _Handle}, _NewOwner) ->
    {error, badarg}.

%% Passive while the mailbox is emptied, so that no later message can overtake an earlier one.
-spec hand_over(socket(), megaphone_nif:handle(), megaphone_nif:active(), pid()) ->
    ok | {error, closed | einval}.
hand_over(Socket, Handle, false, NewOwner) ->
    forward_messages(Socket, NewOwner),
    megaphone_nif:set_owner(Handle, NewOwner);
hand_over(Socket, Handle, Active, NewOwner) ->
    case megaphone_nif:set_active(Handle, false) of
        ok ->
            forward_messages(Socket, NewOwner),
            case megaphone_nif:set_owner(Handle, NewOwner) of
                ok -> megaphone_nif:set_active(Handle, Active);
                {error, closed} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

-spec forward_messages(socket(), pid()) -> ok.
forward_messages(Socket, NewOwner) ->
    receive
        {Tag, Socket, _} = Message when Tag =:= tcp; Tag =:= http; Tag =:= tcp_error ->
            NewOwner ! Message,
            forward_messages(Socket, NewOwner);
        {Tag, Socket} = Message when Tag =:= tcp_closed; Tag =:= tcp_passive ->
            NewOwner ! Message,
            forward_messages(Socket, NewOwner)
    after 0 -> ok
    end.

%% @doc Closes one direction, or both. What was sent before still goes out.
-spec shutdown(socket(), read | write | read_write) -> ok | {error, closed}.
shutdown({'$inet', ?MODULE, Handle}, How) when How =:= read; How =:= write; How =:= read_write ->
    megaphone_nif:shutdown(Handle, How).

%% @doc Closes the connection. What was sent before still goes out; every process that waits on it is woken.
-spec close(socket()) -> ok.
close({'$inet', ?MODULE, Handle} = Socket) ->
    ok = megaphone_nif:close(Handle),
    _ = erase(kept_key(Handle)),
    _ = erase(timeout_key(Handle)),
    %% As inet does: the closer does not want to read any more that it is closed.
    receive
        {tcp_closed, Socket} -> ok
    after 0 -> ok
    end.

%% @doc A virtual connection is no listening socket.
-spec accept(socket()) -> {error, einval}.
accept(Socket) ->
    accept(Socket, infinity).

%% @equiv accept(Socket)
-spec accept(socket(), timeout()) -> {error, einval}.
accept({'$inet', ?MODULE, _Handle}, _Timeout) ->
    {error, einval}.

%% @doc Not supported: OTP reads the file and sends it then.
-spec sendfile(socket(), file:fd(), non_neg_integer(), non_neg_integer()) -> {error, enotsup}.
sendfile({'$inet', ?MODULE, _Handle}, _File, _Offset, _Bytes) ->
    {error, enotsup}.

%% @doc Not supported, as with OTP's own `socket' backend.
-spec unrecv(socket(), iodata()) -> {error, enotsup}.
unrecv({'$inet', ?MODULE, _Handle}, _Data) ->
    {error, enotsup}.

%% @doc Not supported: raises `{invalid, Socket}', as {@link inet:monitor/1} does for what it cannot monitor. The
%% owner learns of the end by `tcp_closed', a reader by `{error, closed}'.
-spec monitor(socket()) -> no_return().
monitor(Socket) ->
    erlang:error({invalid, Socket}).

%% @doc There is nothing to cancel.
-spec cancel_monitor(reference()) -> false.
cancel_monitor(MRef) when is_reference(MRef) ->
    false.

%% @doc What is known about the connection, in the manner of {@link inet:info/1}. It holds no data of the user.
-spec info(socket()) -> #{atom() => term()}.
info({'$inet', ?MODULE, Handle}) ->
    case megaphone_nif:info(Handle) of
        {ok, Info} -> Info#{type => stream};
        {error, closed} -> #{states => [closed]}
    end.

%% @doc The packet mode, for {@link inet:i/0}.
-spec which_packet_type(socket()) -> {ok, atom()} | error.
which_packet_type(Socket) ->
    case getopts(Socket, [packet]) of
        {ok, [{packet, Packet}]} -> {ok, Packet};
        _ -> error
    end.

%% @doc Counters of the connection, under the names that inet uses. Those that are not counted are left out.
-spec getstat(socket(), [inet:stat_option()]) -> {ok, [{inet:stat_option(), integer()}]} | {error, closed}.
getstat({'$inet', ?MODULE, Handle}, Names) when is_list(Names) ->
    case megaphone_nif:info(Handle) of
        {ok, Info} -> {ok, [{Name, maps:get(Name, Info)} || Name <- Names, is_map_key(Name, Info)]};
        {error, closed} = Error -> Error
    end.

%% @doc A short name for logs.
-spec socket_to_list(socket()) -> string().
socket_to_list({'$inet', ?MODULE, {Link, Id, _Slot, _Generation}}) ->
    lists:flatten(io_lib:format("#Megaphone<~b.~b>", [Link, Id])).
