%% @private
%% @doc The connection table, natively: stubs and loader, nothing else.
%%
%% Use {@link megaphone} or {@link megaphone_socket}. This module must stay small and stable, because a NIF module
%% cannot be loaded a second time in a node.
%%
%% Every function is bounded: none works longer than about a millisecond, none blocks. Only {@link stats/0} runs on a
%% dirty scheduler. A handle that is malformed raises `badarg'; one that is stale (its connection has ended) answers
%% `{error, closed}' and can never reach a newer connection.
-module(megaphone_nif).

-export([
    link_open/3, link_input/2, link_output/1, link_ping/1, link_drain/1, link_down/1, link_sweep/2, link_info/1, link_refusal/1,
    link_refuse/2, local_sweep/1, process_down/1,
    open/2, set_owner/2, set_consumer/2, put_data/2, recv/2, get_data/2, cancel/2, send/2,
    set_active/2, set_packet/2, peername/1, sockname/1, close/1, shutdown/2, output/1,
    info/1, stats/0, limits/0, counters/0, parse_packet/2, recv_packet/2, is_poll/3, take_request/2, end_request/1,
    activate/1, deliver_large/1, send_message/2, set_authenticated/1, set_shaped/2, take_idle/2, set_message_limits/2,
    parse_element/1, parse_large_element/1,
    bosh_profile/1, bosh_request/2, bosh_body/2, bosh_large_body/2, bosh_create/5, bosh_refuse/2, bosh_answer/3, bosh_forget/2,
    bosh_set_owner/2, bosh_activate/1, bosh_deliver/1, bosh_send/3, bosh_send_start/3, bosh_note/2, bosh_close/1,
    bosh_peername/1, bosh_tick/0, bosh_info/0, bosh_walk/2, walk/3
]).
-export_type([kind/0, passed/0]).
-export_type([bosh_socket/0, bosh_waiter/0, bosh_profile/0, bosh_taken/0]).
-export_type([handle/0, link/0, link_number/0, served/0, packet/0, active/0, address/0, action/0, result/0, token/0, templates/0]).

-on_load(load/0).
-nifs([
    link_open/3, link_input/2, link_output/1, link_ping/1, link_drain/1, link_down/1, link_sweep/2, link_info/1, link_refusal/1,
    link_refuse/2, local_sweep/1, process_down/1,
    open/2, set_owner/2, set_consumer/2, put_data/2, recv/2, get_data/2, cancel/2, send/2,
    set_active/2, set_packet/2, peername/1, sockname/1, close/1, shutdown/2, output/1,
    info/1, stats/0, limits/0, counters/0, parse_packet/2, recv_packet/2, is_poll/3, take_request/2, end_request/1,
    activate/1, deliver_large/1, send_message/2, set_authenticated/1, set_shaped/2, take_idle/2, set_message_limits/2,
    parse_element/1, parse_large_element/1,
    bosh_profile/1, bosh_request/2, bosh_body/2, bosh_large_body/2, bosh_create/5, bosh_refuse/2, bosh_answer/3, bosh_forget/2,
    bosh_set_owner/2, bosh_activate/1, bosh_deliver/1, bosh_send/3, bosh_send_start/3, bosh_note/2, bosh_close/1,
    bosh_peername/1, bosh_tick/0, bosh_info/0, bosh_walk/2, walk/3
]).

-type link_number() :: non_neg_integer().
%% Counts the links since the node was started; 0 stands for connections that Erlang code opened itself.

-type handle() :: {
    Link :: link_number(),
    Id :: 0..16#ffffffffffffffff,
    Slot :: non_neg_integer(),
    Generation :: non_neg_integer()
}.
%% Names one virtual connection, and is never used for another one while the node lives. Treat it as opaque.

-type link() :: reference().
%% One connection from an ECM.

-type bosh_socket() :: {Place :: non_neg_integer(), Generation :: non_neg_integer()}.
%% Names one BOSH session of this node. Not a secret, and not its sid.

-type bosh_profile() :: non_neg_integer().
-type bosh_waiter() :: {handle(), bosh_profile(), Minor :: 0..1, KeepAlive :: boolean()} | {pid(), non_neg_integer()}.
%% Who waits for an answer.

-type bosh_taken() ::
    ok
    | {large, bosh_socket()}
    | {create, bosh_waiter(), To :: binary() | undefined, Forwarded :: binary() | undefined, Body :: binary()}
    | {carry, bosh_waiter(), Node :: non_neg_integer(), Body :: binary()}.

-type token() :: non_neg_integer().
%% Names one wait, in the whole node.

-type address() :: {inet:ip_address(), inet:port_number()}.
-type packet() :: raw | http | http_bin | httph | httph_bin.
-type active() :: boolean() | once | -32768..32767.

-type kind() :: http | tunnel | xmpp | local.
%% What a connection carries: requests, bytes as they are, messages of XMPP, or what Erlang code puts in.

-type passed() :: {
    {handle(), Behind :: pos_integer()}, kind(), Client :: address(), Tls :: boolean(), IdleSeconds :: non_neg_integer(),
    {InputBytes :: non_neg_integer(), OutputBytes :: non_neg_integer()}, Owner :: pid() | session | undefined
}.
%% A connection that {@link walk/3} came by, with the cursor of the place behind it. `session': its request is held by a BOSH session.

-type served() :: http | http_and_xmpp.
%% Kinds of connections.

-type action() :: {start | attach | large, handle()} | open.
%% `start': a complete request waits on the connection, and no process serves it. `attach': the first message of a connection of
%% kind XMPP waits, start its owner. `large': a message waits that {@link deliver_large/1} is for. `open': the link is open, see {@link link_open/3}.

-type result() :: iodata() | term().
%% What a reader gets: bytes (a list of binaries when there are many, in many pieces), or in the packet modes `http*'
%% what {@link erlang:decode_packet/3} gives for a line.

-type templates() :: tuple().
%% Terms that are the same in every request, see {@link megaphone_packet}: for each field name of `FIELDS' and `OTHER_FIELDS'
%% of the core, in that order, its index, the name as {@link erlang:decode_packet/3} gives it, and the name as written there;
%% then the versions 1.0 and 1.1; then the packets of `USUAL_FIELDS'.

%% @doc Makes a link and queues our hello for output. `Peer' is text for logs and {@link link_info/1}. With a secret
%% (`min_secret' to `max_secret' bytes) and a nonce (32 random bytes, never used before) the link opens only to a peer that
%% knows the secret.
-spec link_open(Peer :: binary(), none | {Secret :: binary(), Nonce :: <<_:256>>}, served()) ->
    {ok, link()} | {error, {limit, links}}.
link_open(_Peer, _Auth, _Served) ->
    not_loaded().

%% @doc The frames to send to a peer that gets no link: our hello, and the reason, which is a text or that
%% {@link link_open/3} found no room.
-spec link_refusal(links | binary()) -> binary().
link_refusal(_Why) ->
    not_loaded().

%% @doc Queues the error frame that ends a link which is not open yet, with this text.
-spec link_refuse(link(), Why :: binary()) -> ok.
link_refuse(_Link, _Why) ->
    not_loaded().

%% @doc Takes bytes as they came from the link. `more': the slice is used up, call again with `<<>>'.
%% `stop': the peer broke the protocol for `Reason'; an error frame waits in the output. `refused': the peer does not know
%% the secret; {@link link_refuse/2} tells it so.
-spec link_input(link(), Chunk :: binary()) ->
    {ok, [action()]}
    | {more, [action()]}
    | {stop | refused, Reason :: binary(), [action()]}
    | {error, closed}.
link_input(_Link, _Chunk) ->
    not_loaded().

%% @doc Takes frames for the link, a bounded batch. After `empty' the caller is sent `megaphone_output' once, as
%% soon as there is something. One process per link may call this.
-spec link_output(link()) -> {ok, [binary()]} | empty | {error, closed}.
link_output(_Link) ->
    not_loaded().

%% @doc Queues a ping: a peer that is there answers it, and so {@link link_input/2} gets something.
-spec link_ping(link()) -> ok.
link_ping(_Link) ->
    not_loaded().

%% @doc Asks the other end to open no further connections on a link; those that are there go on. `closed': the link is not open, or takes
%% no more frames now.
-spec link_drain(link()) -> ok | {error, closed}.
link_drain(_Link) ->
    not_loaded().

%% @doc Ends input and output of a link. Its connections are closed by {@link link_sweep/2}.
-spec link_down(link()) -> ok.
link_down(_Link) ->
    not_loaded().

%% @doc Closes a bounded number of the link's connections. Start with cursor 0 and go on with the one returned.
-spec link_sweep(link(), Cursor :: non_neg_integer()) -> {more, Cursor :: non_neg_integer()} | done.
link_sweep(_Link, _Cursor) ->
    not_loaded().

%% @doc Closes a bounded number of the connections that were opened without a link, as {@link link_sweep/2} does;
%% readers that asked in the original's form are told `{shutdown}'.
-spec local_sweep(Cursor :: non_neg_integer()) -> {more, Cursor :: non_neg_integer()} | done.
local_sweep(_Cursor) ->
    not_loaded().

%% @doc Cleans up a bounded number of the connections and waits of a process that has ended. Called when the table has
%% sent `{megaphone_down, Pid}' to `megaphone_links': the process had more than one call may clean up.
-spec process_down(pid()) -> more | done.
process_down(_Pid) ->
    not_loaded().

%% @doc What is known about a link: among others `link' (its number) and `peer'.
-spec link_info(link()) -> #{atom() => term()}.
link_info(_Link) ->
    not_loaded().

%% @doc Opens a connection without a link. The caller owns it: it closes when the caller dies.
-spec open(Peer :: address(), packet()) -> {ok, handle()} | {error, {limit, connections}}.
open(_Peer, _Packet) ->
    not_loaded().

%% @doc Makes `Pid' the owner, which is monitored and gets the messages of active mode.
-spec set_owner(handle(), pid()) -> ok | {error, closed}.
set_owner(_Handle, _Pid) ->
    not_loaded().

%% @doc Makes `Pid' the process that serves the requests of a link's connection; its death closes the connection.
-spec set_consumer(handle(), pid()) -> ok | {error, closed}.
set_consumer(_Handle, _Pid) ->
    not_loaded().

%% @doc Appends to the input queue, and serves the readers that wait. All or nothing.
-spec put_data(handle(), binary()) -> ok | {error, closed | {limit, queue_bytes}}.
put_data(_Handle, _Data) ->
    not_loaded().

%% @doc Takes input: what is there (`Length' 0) or exactly `Length' bytes. After `{wait, Token}' the caller is sent
%% exactly one `{megaphone, Token, {ok, Data} | {error, closed}}', unless it cancels.
-spec recv(handle(), Length :: non_neg_integer()) ->
    {ok, result()} | {wait, token()} | {error, closed | einval | {limit, waiters}}.
recv(_Handle, _Length) ->
    not_loaded().

%% @doc As {@link recv/2} with length 0 for `From', which is answered by a plain message in any case:
%% `{ok, Result}', `{error, Reason}' or `{shutdown}'.
-spec get_data(handle(), From :: pid()) -> ok.
get_data(_Handle, _From) ->
    not_loaded().

%% @doc Gives up waiting. `gone': the message was sent before, receive it.
-spec cancel(handle(), token()) -> ok | gone.
cancel(_Handle, _Token) ->
    not_loaded().

%% @doc Queues output. `{wait, Accepted, Token}': only so many bytes found room; when there is more room the caller
%% is sent `{megaphone, Token, ok | {error, closed}}'.
-spec send(handle(), binary()) ->
    ok | {wait, Accepted :: non_neg_integer(), token()} | {error, closed | {limit, waiters}}.
send(_Handle, _Data) ->
    not_loaded().

%% @doc Sets how input reaches the owner, as `inet:setopts/2' with `active' does.
-spec set_active(handle(), active()) -> ok | {error, closed | einval}.
set_active(_Handle, _Active) ->
    not_loaded().

%% @doc Sets in what form input is delivered.
-spec set_packet(handle(), packet()) -> ok | {error, closed}.
set_packet(_Handle, _Packet) ->
    not_loaded().

%% @doc The client's address, as the ECM reported it.
-spec peername(handle()) -> {ok, address()} | {error, closed}.
peername(_Handle) ->
    not_loaded().

%% @doc The address at which the ECM accepted the client.
-spec sockname(handle()) -> {ok, address()} | {error, closed}.
sockname(_Handle) ->
    not_loaded().

%% @doc Closes. What was sent before still goes out, and every waiter is woken.
-spec close(handle()) -> ok.
close(_Handle) ->
    not_loaded().

%% @doc Closes one direction, or both.
-spec shutdown(handle(), read | write | read_write) -> ok | {error, closed}.
shutdown(_Handle, _How) ->
    not_loaded().

%% @doc Takes what was sent on a connection without a link. The opener gets `{megaphone_output, Handle}' once after
%% `empty', and once at first.
-spec output(handle()) -> {ok, binary()} | empty | {error, closed}.
output(_Handle) ->
    not_loaded().

%% @doc What is known about a connection.
-spec info(handle()) -> {ok, #{atom() => term()}} | {error, closed}.
info(_Handle) ->
    not_loaded().

%% @doc Gauges of the whole table: it visits every connection, so it is for operators and tests.
-spec stats() -> #{atom() => term()}.
stats() ->
    not_loaded().

%% @doc The limits in force, by name.
-spec limits() -> #{atom() => term()}.
limits() ->
    not_loaded().

%% @doc Takes the request at the start of `Data' apart: what {@link erlang:decode_packet/3} gives for the lines of its head
%% (types `http_bin' and `httph_bin'), `http_eoh' included, and its body unless that is empty. `more': other bytes follow it.
%% `slow': it is incomplete, its head is longer than 16 kB, or it is not of the strict common form; take it apart line by
%% line.
-spec parse_packet(Data :: binary(), templates()) ->
    {ok, [result(), ...]} | {more, [result(), ...], Rest :: binary()} | slow.
parse_packet(_Data, _Templates) ->
    not_loaded().

%% @doc Takes a whole packet in mode `http_bin' at once: request line, fields, `http_eoh' and, unless it is empty, the
%% body. `slow': there is none that is complete and of the strict common form; read step by step.
-spec recv_packet(handle(), templates()) -> {ok, [result(), ...]} | slow | {error, closed}.
recv_packet(_Handle, _Templates) ->
    not_loaded().

%% @doc Whether the request that waits for a consumer is a POST for one of `Targets' (paths as they stand in the request, each
%% with or without a query) that is there to its last byte: then {@link take_request/2} most likely takes it. With `Bare', a POST
%% or PUT without a body is one, too.
-spec is_poll(handle(), Targets :: [binary()], Bare :: boolean()) -> boolean().
is_poll(_Handle, _Targets, _Bare) ->
    not_loaded().

%% @doc Takes the request that waits for a consumer, in the form of {@link recv_packet/2}. The caller is its consumer from now
%% on; when the client goes before {@link end_request/1}, `megaphone_links' is sent `{megaphone_gone, Caller}'. `slow': it is
%% not all there, or not of the strict common form; start a consumer that reads step by step.
-spec take_request(handle(), templates()) -> {ok, [result(), ...]} | slow | {error, closed}.
take_request(_Handle, _Templates) ->
    not_loaded().

%% @doc The answer is sent. `done': the connection goes on without a process. `more': the next request is there already, and
%% somebody has to start a consumer for it. `closed': the connection is, or no request was taken.
-spec end_request(handle()) -> done | more | {error, closed}.
end_request(_Handle) ->
    not_loaded().

%% @doc What was counted since the library was loaded. `abandoned': polls whose clients went before the answer.
-spec counters() -> #{atom() => non_neg_integer()}.
counters() ->
    not_loaded().

%% @doc Goes by at most `walk_per_call' places, until `Most' were found: of one link, of kind XMPP, or any. It begins at a cursor (0: the first).
%% With the cursor to go on from. One that is there during the whole walk is found once.
-spec walk(Cursor :: non_neg_integer(), link_number() | xmpp | any, Most :: non_neg_integer()) -> {Next :: pos_integer() | done, [passed()]}.
walk(_Cursor, _Wanted, _Most) ->
    not_loaded().

%% ---- messages ------------------------------------------------------------------------------------------------

%% @doc How long a message of a client may be, in bytes, and of how many elements: when the client has logged in, and before.
-spec set_message_limits({Bytes, Elements}, {Bytes, Elements}) -> ok when Bytes :: pos_integer(), Elements :: pos_integer().
set_message_limits(_After, _Before) ->
    not_loaded().

%% @doc Asks for the next messages of a connection of kind XMPP: the owner is sent `{tcp, handle(), [Event]}' when there are
%% some, at once or later, or `{tcp_closed, _}'. An event is `#xmlel{}', `{xmlstreamstart, Name, Attrs}', `{xmlstreamend, Name}' or
%% `{xmlstreamerror, Reason}'. `large': call {@link deliver_large/1}. `{shaped, Bytes}': what the batch before took; ask again when
%% that is paid for ({@link set_shaped/2}).
-spec activate(handle()) -> ok | large | {shaped, pos_integer()} | {error, closed}.
activate(_Handle) ->
    not_loaded().

%% @doc Sends the owner the large message that waits. Runs on a dirty scheduler.
-spec deliver_large(handle()) -> ok | {error, closed}.
deliver_large(_Handle) ->
    not_loaded().

%% @doc As {@link send/2} with a message of a connection of kind XMPP: what is accepted counts the four bytes of its length, too.
-spec send_message(handle(), binary()) ->
    ok | {wait, Accepted :: non_neg_integer(), token()} | {error, closed | {limit, waiters}}.
send_message(_Handle, _Text) ->
    not_loaded().

%% @doc The client has logged in: the wider limits hold for its messages.
-spec set_authenticated(handle()) -> ok.
set_authenticated(_Handle) ->
    not_loaded().

%% @doc Whether {@link activate/1} tells what messages took before it gives more.
-spec set_shaped(handle(), boolean()) -> ok.
set_shaped(_Handle, _Shaped) ->
    not_loaded().

%% @doc Owners of connections of kind XMPP on which nothing has happened for so many milliseconds, at most so many, with the number
%% of their link; each once for each time of activity. One who is called back soon has to be quiet for longer, see
%% `native/core/src/stirred.rs'. `done': nobody else is noted, and the process `megaphone_sweeper' is sent
%% `busy' when somebody is.
-spec take_idle(After :: non_neg_integer(), Most :: non_neg_integer()) -> {more | done, [{pid(), link_number()}]}.
take_idle(_After, _Most) ->
    not_loaded().

%% @doc Takes an element apart, as `fxml_stream:parse_element/1' does, but for what XMPP has no use for. `slow': it is longer than
%% `small_message' bytes, call {@link parse_large_element/1}.
-spec parse_element(binary()) -> {ok, El :: tuple()} | slow | {error, {too_big | not_well_formed | restricted, binary()}}.
parse_element(_Text) ->
    not_loaded().

%% @doc The same for elements of any length, on a dirty scheduler.
-spec parse_large_element(binary()) -> {ok, El :: tuple()} | {error, {too_big | not_well_formed | restricted, binary()}}.
parse_large_element(_Text) ->
    not_loaded().

%% ---- BOSH ----------------------------------------------------------------------------------------------------

%% @doc The number of header fields (each with its line's end) that all answers of a listener have. They are kept for ever.
-spec bosh_profile(binary()) -> bosh_profile().
bosh_profile(_Fields) ->
    not_loaded().

%% @doc Takes the request that waits on a connection, see {@link is_poll/3}, and gives it to its session, which answers it
%% natively. `slow': it has to be read step by step. `{large, Socket}': it brings what {@link bosh_deliver/1} is for.
%% `{create, ...}': it asks for a session, see {@link bosh_create/5}. `{carry, ...}': its session is of the node with this tag.
-spec bosh_request(handle(), bosh_profile()) -> bosh_taken() | slow.
bosh_request(_Handle, _Profile) ->
    not_loaded().

%% @doc As {@link bosh_request/2} with the body of a request that a process has read. That process is sent
%% `{megaphone_bosh, Number, Status, Text}', or `{megaphone_bosh, Number, closed}' when the request has come by another way.
%% `slow': it is longer than `small_message' bytes, call {@link bosh_large_body/2}.
-spec bosh_body({pid(), non_neg_integer()}, binary()) -> bosh_taken() | slow.
bosh_body(_Waiter, _Body) ->
    not_loaded().

%% @doc The same for bodies of any length, on a dirty scheduler.
-spec bosh_large_body({pid(), non_neg_integer()}, binary()) -> bosh_taken().
bosh_large_body(_Waiter, _Body) ->
    not_loaded().

%% @doc Makes the session that a request asks for, of this server and this client: with the seconds after which it ends without
%% requests, the longest pause in seconds, and the most elements in an answer (0: any number). Name its client session with
%% {@link bosh_set_owner/2}. `{error, limit}': there are `bosh_pending' sessions that have not logged in, or `bosh_pending_per_address'
%% of this client's address.
-spec bosh_create(bosh_waiter(), Host :: binary(), address(), {pos_integer(), non_neg_integer(), non_neg_integer()}, Body :: binary()) ->
    {ok, bosh_socket()} | {error, limit}.
bosh_create(_Waiter, _Host, _Client, _Settings, _Body) ->
    not_loaded().

%% @doc Answers a request that is no session's: with an end for this reason, or with a status.
-spec bosh_refuse(bosh_waiter(), 'host-unknown' | 'improper-addressing' | 'internal-server-error' | 'item-not-found' | 'policy-violation' | 400..499) ->
    ok.
bosh_refuse(_Waiter, _Why) ->
    not_loaded().

%% @doc Gives an answer that another node has made.
-spec bosh_answer(bosh_waiter(), 200 | 400..499, binary()) -> ok.
bosh_answer(_Waiter, _Status, _Text) ->
    not_loaded().

%% @doc Nobody waits for the answer to this request any more.
-spec bosh_forget({pid(), non_neg_integer()}, Body :: binary()) -> ok.
bosh_forget(_Waiter, _Body) ->
    not_loaded().

-spec bosh_set_owner(bosh_socket(), pid()) -> ok.
bosh_set_owner(_Socket, _Pid) ->
    not_loaded().

%% @doc As {@link activate/1}, for the client session of a BOSH session.
-spec bosh_activate(bosh_socket()) -> ok | large | {shaped, pos_integer()} | {error, closed}.
bosh_activate(_Socket) ->
    not_loaded().

%% @doc As {@link deliver_large/1}.
-spec bosh_deliver(bosh_socket()) -> ok | {error, closed}.
bosh_deliver(_Socket) ->
    not_loaded().

%% @doc Sends an element to the client. `features' and `error' are those of streams; `'end'' has no text. It never waits:
%% `closed' is also the answer when the client has not fetched very much.
-spec bosh_send(bosh_socket(), element | features | error | 'end', binary()) -> ok | {error, closed}.
bosh_send(_Socket, _Kind, _Text) ->
    not_loaded().

%% @doc Begins a stream with this id and version.
-spec bosh_send_start(bosh_socket(), Id :: binary(), Version :: binary()) -> ok | {error, closed}.
bosh_send_start(_Socket, _Id, _Version) ->
    not_loaded().

%% @doc Notes that the client has logged in, is slowed down or not, or that somebody else has a copy of what is not delivered.
-spec bosh_note(bosh_socket(), authenticated | shaped | unshaped | resumable) -> ok.
bosh_note(_Socket, _What) ->
    not_loaded().

-spec bosh_close(bosh_socket()) -> ok.
bosh_close(_Socket) ->
    not_loaded().

-spec bosh_peername(bosh_socket()) -> {ok, address()} | {error, closed}.
bosh_peername(_Socket) ->
    not_loaded().

%% @doc Works on sessions whose time has come; `more': there are others. With the number of all sessions.
-spec bosh_tick() -> {more | done, non_neg_integer()}.
bosh_tick() ->
    not_loaded().

%% @doc `sessions', the bytes that their table takes (`memory'), and this node's tag (`node').
-spec bosh_info() -> #{atom() => non_neg_integer()}.
bosh_info() ->
    not_loaded().

%% @doc As {@link walk/3}, by the client sessions of BOSH sessions, each with the number of the link by which it came.
-spec bosh_walk(Cursor :: non_neg_integer(), Most :: non_neg_integer()) -> {Next :: pos_integer() | done, [{pid(), link_number()}]}.
bosh_walk(_Cursor, _Most) ->
    not_loaded().

%% `term()' because that is what dialyzer takes from nif_error/1: the library replaces the callers.
-spec not_loaded() -> term().
not_loaded() ->
    erlang:nif_error({nif_not_loaded, ?MODULE}).

-spec load() -> ok | {error, term()}.
load() ->
    Tried = candidates(),
    case [Path || Path <- Tried, filelib:is_regular(Path ++ ".so")] of
        [Path | _] ->
            case erlang:load_nif(Path, 0) of
                ok -> ok;
                {error, {Reason, _}} when Reason =:= upgrade; Reason =:= load -> {error, again()};
                {error, {Reason, Text}} -> {error, {Reason, Text, [{path, Path}]}}
            end;
        [] ->
            {error, {not_found, "megaphone_nif.so is in none of these places", Tried}}
    end.

%% The table lives in the library, with everything that is connected.
-spec again() -> {already_loaded, string()}.
again() ->
    {already_loaded, "megaphone_nif cannot be loaded a second time; its other modules can. Restart the node for a new one."}.

%% The application's priv directory; when the application is not known by name, the one beside our beam.
-spec candidates() -> [file:filename()].
candidates() ->
    Named =
        case code:priv_dir(megaphone) of
            {error, bad_name} -> [];
            Priv -> [filename:join(filename:absname(Priv), ?MODULE)]
        end,
    Beside =
        case code:which(?MODULE) of
            Beam when is_list(Beam), Beam =/= [] ->
                Lib = filename:dirname(filename:dirname(filename:absname(Beam))),
                [filename:join([Lib, "priv", ?MODULE])];
            _ ->
                []
        end,
    Named ++ (Beside -- Named).
