%% @private
%% @doc BOSH sessions (XEP-0124, XEP-0206) without processes: the transport of an `ejabberd_c2s' (behaviour `xmpp_socket',
%% element mode) whose requests, timers and answers are kept natively, so that a BOSH user is one process.
%%
%% Most requests never come here: the receiver of a link hands them to the native side (`megaphone_nif:bosh_request/2'), which
%% holds and answers them. Here is what is left: a session is made, the client session sends, and a request that ejabberd_http has
%% read step by step is served ({@link process/2}, a handler as mod_bosh is). Requests for other nodes: {@link megaphone_bosh_carry}.
-module(megaphone_bosh).
%% Without `-behaviour(xmpp_socket)': that module is there only where ejabberd is.

-include_lib("kernel/include/logger.hrl").
-include("megaphone_xml.hrl").
-include("megaphone_request.hrl").

-export([settings/1, taken/3, request/2, process/2, bounce/2]).
-export([
    setopts/2, send_xml/2, reset_stream/1, change_shaper/2, get_owner/1, get_transport/1, controlling_process/2, close/1,
    peername/1, sockname/1
]).
-export_type([settings/0, answer/0]).

-define(NS_CLIENT, <<"jabber:client">>).
-define(CONTENT_TYPE, {<<"Content-Type">>, <<"text/xml; charset=utf-8">>}).
-define(ALLOW_ORIGIN, {<<"Access-Control-Allow-Origin">>, <<"*">>}).
-define(ALLOW_HEADERS, {<<"Access-Control-Allow-Headers">>, <<"Content-Type">>}).

-record(settings, {
    profile :: megaphone_nif:bosh_profile(),
    %% See megaphone_nif:bosh_create/5.
    numbers :: {pos_integer(), non_neg_integer(), non_neg_integer()}
}).
-opaque settings() :: #settings{}.

-type answer() :: {Status :: 200 | 400..499, binary()} | closed.

%% @doc What a listener's options say of its sessions.
-spec settings([{atom(), term()}]) -> settings().
settings(Opts) ->
    Custom = option(custom_headers, Opts),
    %% Those of the operator take the place of others, as in ejabberd_http.
    Fields = maps:to_list(maps:merge(maps:from_list([?CONTENT_TYPE, ?ALLOW_ORIGIN, ?ALLOW_HEADERS]), maps:from_list(Custom))),
    #settings{
        profile = megaphone_nif:bosh_profile(iolist_to_binary([[Name, ": ", Value, "\r\n"] || {Name, Value} <- Fields])),
        numbers = {option(max_inactivity, Opts) div 1000, option(max_pause, Opts) div 1000, concat(option(max_concat, Opts))}
    }.

%% The listener's, or its default.
-spec option(atom(), [{atom(), term()}]) -> term().
option(Name, Opts) ->
    proplists:get_value(Name, Opts ++ megaphone:listen_options()).

-spec concat(unlimited | pos_integer()) -> non_neg_integer().
concat(unlimited) -> 0;
concat(Most) -> Most.

%% @doc Serves the request that waits on a connection. `slow': it has to be read step by step.
-spec taken(megaphone_nif:handle(), settings(), fun((binary() | undefined) -> {ok, megaphone_nif:address()} | {error, term()})) ->
    ok | slow | {error, megaphone_http:error()}.
taken(Handle, #settings{profile = Profile} = Settings, Client) ->
    case megaphone_nif:bosh_request(Handle, Profile) of
        {create, Waiter, To, Forwarded, Body} ->
            case Client(Forwarded) of
                {ok, Address} -> create(Waiter, To, Address, Settings, Body);
                {error, _} -> megaphone_nif:close(Handle)
            end;
        {carry, Waiter, Node, Body} ->
            megaphone_bosh_carry:start(Handle, Waiter, Node, Body);
        {large, Socket} ->
            _ = spawn(fun() -> megaphone_nif:bosh_deliver(Socket) end),
            ok;
        Done ->
            Done
    end.

-spec create(megaphone_nif:bosh_waiter(), binary() | undefined, megaphone_nif:address(), settings(), binary()) ->
    ok | {error, megaphone_http:error()}.
create(Waiter, To, Client, #settings{numbers = Numbers}, Body) ->
    case host(To) of
        {ok, Host} ->
            case megaphone_nif:bosh_create(Waiter, Host, Client, Numbers, Body) of
                {ok, Socket} ->
                    start_session(Socket);
                {error, limit} ->
                    ok = too_many(Client),
                    megaphone_nif:bosh_refuse(Waiter, 'policy-violation')
            end;
        {error, Condition} ->
            megaphone_nif:bosh_refuse(Waiter, Condition)
    end.

-spec host(binary() | undefined) -> {ok, binary()} | {error, 'host-unknown' | 'improper-addressing'}.
host(undefined) ->
    {error, 'improper-addressing'};
host(To) ->
    case jid:nameprep(To) of
        Host when is_binary(Host), Host =/= <<>> ->
            case ejabberd_router:is_my_host(Host) of
                true -> {ok, Host};
                false -> {error, 'host-unknown'}
            end;
        _ ->
            {error, 'improper-addressing'}
    end.

-spec too_many(megaphone_nif:address()) -> ok.
too_many({Ip, _Port}) ->
    #{bosh_pending := All, bosh_pending_per_address := OfOne} = megaphone_nif:limits(),
    megaphone_gate:may_complain(Ip) andalso
        ?LOG_WARNING(
            "megaphone: BOSH session for ~s refused: it has ~b that have not logged in, or all clients together have ~b",
            [inet:ntoa(Ip), OfOne, All]
        ),
    ok.

-spec start_session(megaphone_nif:bosh_socket()) -> ok | {error, megaphone_http:error()}.
start_session(Socket) ->
    case megaphone_c2s:start_session(?MODULE, Socket, []) of
        {ok, Session} ->
            ok = megaphone_nif:bosh_set_owner(Socket, Session),
            ejabberd_c2s:accept(Session);
        {error, _} = Error ->
            ok = megaphone_nif:bosh_close(Socket),
            Error
    end.

%% ---- requests that a process has read ------------------------------------------------------------------------

%% @doc A handler for ejabberd_http, in the place of mod_bosh: that one still answers what is no request of a session, as its
%% page for people.
-spec process([binary()], #request{}) -> term().
process([], #request{method = 'POST', data = Data, ip = Client, opts = Opts}) when Data =/= <<>> ->
    case ask(Data, Client, settings(Opts)) of
        {Status, Text} -> {Status, <<>>, [?CONTENT_TYPE, ?ALLOW_ORIGIN, ?ALLOW_HEADERS], Text};
        closed -> exit(normal)
    end;
process(Path, Request) ->
    mod_bosh:process(Path, Request).

%% @doc The answer to the request with this body. Waits for it: as long as the session holds it.
-spec ask(binary(), megaphone_nif:address(), settings()) -> answer().
ask(Body, Client, Settings) ->
    Number = erlang:unique_integer([positive]),
    case body({self(), Number}, Body) of
        {create, Waiter, To, _Forwarded, _Body} ->
            _ = create(Waiter, To, Client, Settings, Body),
            answer(Number);
        {carry, _Waiter, Node, _Body} ->
            megaphone_bosh_carry:ask(Node, Body);
        ok ->
            answer(Number)
    end.

-spec answer(non_neg_integer()) -> answer().
answer(Number) ->
    receive
        {megaphone_bosh, Number, Status, Text} -> {Status, Text};
        {megaphone_bosh, Number, closed} -> closed
    end.

%% @doc Gives a request that was carried here to its session. The calling process is sent the answer, with this number:
%% `{megaphone_bosh, Number, Status, Text}' or `{megaphone_bosh, Number, closed}'.
-spec request(non_neg_integer(), binary()) -> ok.
request(Number, Body) ->
    Waiter = {self(), Number},
    case body(Waiter, Body) of
        ok -> ok;
        _OfNobodyHere -> megaphone_nif:bosh_refuse(Waiter, 'item-not-found')
    end.

-spec body({pid(), non_neg_integer()}, binary()) -> megaphone_nif:bosh_taken().
body(Waiter, Body) ->
    case megaphone_nif:bosh_body(Waiter, Body) of
        slow -> delivered(megaphone_nif:bosh_large_body(Waiter, Body));
        Taken -> delivered(Taken)
    end.

-spec delivered(megaphone_nif:bosh_taken()) -> ok | megaphone_nif:bosh_taken().
delivered({large, Socket}) ->
    _ = megaphone_nif:bosh_deliver(Socket),
    ok;
delivered(Taken) ->
    Taken.

%% ---- the behaviour xmpp_socket -------------------------------------------------------------------------------

%% @doc Asks for the next elements. They come as a message, at once if there are some.
-spec setopts(megaphone_nif:bosh_socket(), [{active, once}]) -> ok | {error, closed}.
setopts(Socket, _Opts) ->
    megaphone_owner:activate(Socket).

%% @doc Sends an element, or what begins or ends a stream, with the next answer. Never waits.
-spec send_xml(megaphone_nif:bosh_socket(), megaphone_c2s:event()) -> ok | {error, closed}.
send_xml(Socket, {xmlstreamelement, #xmlel{name = <<"stream:features">>} = El}) ->
    send(Socket, features, El);
send_xml(Socket, {xmlstreamelement, #xmlel{name = <<"stream:error">>, children = Children} = El}) ->
    send(Socket, error, El#xmlel{children = megaphone_c2s:condition(Children)});
send_xml(Socket, {xmlstreamelement, #xmlel{name = Name, attrs = Attrs} = El}) when
    Name =:= <<"message">>; Name =:= <<"presence">>; Name =:= <<"iq">>
->
    Text = fxml:element_to_binary(El#xmlel{attrs = lists:keystore(<<"xmlns">>, 1, Attrs, {<<"xmlns">>, ?NS_CLIENT})}),
    Sent = megaphone_nif:bosh_send(Socket, element, Text),
    Sent =:= ok orelse refused(Text),
    Sent;
send_xml(Socket, {xmlstreamelement, El}) ->
    ok = learn(Socket, El),
    send(Socket, element, El);
send_xml(Socket, {xmlstreamstart, _Name, Attrs}) ->
    megaphone_nif:bosh_send_start(Socket, attribute(<<"id">>, Attrs), attribute(<<"version">>, Attrs));
send_xml(Socket, {xmlstreamend, _Name}) ->
    megaphone_nif:bosh_send(Socket, 'end', <<>>);
send_xml(_Socket, {xmlstreamraw, <<"\r\n\r\n">>}) ->
    %% Keeps connections alive; there is none.
    ok;
send_xml(Socket, {xmlstreamraw, Data}) ->
    megaphone_nif:bosh_send(Socket, element, iolist_to_binary(Data)).

-spec send(megaphone_nif:bosh_socket(), element | features | error, xmlel()) -> ok | {error, closed}.
send(Socket, Kind, El) ->
    megaphone_nif:bosh_send(Socket, Kind, fxml:element_to_binary(El)).

%% The client session ends by that, and what it was about to send is in no other place.
-spec refused(binary()) -> term().
refused(Text) ->
    get(megaphone_bosh_resumable) =:= true orelse spawn(?MODULE, bounce, [self(), [Text]]).

-spec attribute(binary(), [{binary(), binary()}]) -> binary().
attribute(Name, Attrs) ->
    proplists:get_value(Name, Attrs, <<>>).

%% What passes tells what becomes of the client: it has logged in; or its stanzas are counted (XEP-0198), and the client session
%% itself takes care of those that do not arrive.
-spec learn(megaphone_nif:bosh_socket(), xmlel()) -> ok.
learn(Socket, #xmlel{name = <<"success">>}) -> megaphone_nif:bosh_note(Socket, authenticated);
learn(Socket, #xmlel{name = Name}) when Name =:= <<"enabled">>; Name =:= <<"resumed">> ->
    _ = put(megaphone_bosh_resumable, true),
    megaphone_nif:bosh_note(Socket, resumable);
learn(_Socket, _El) -> ok.

%% @doc The client has logged in by SASL and begins a new stream.
-spec reset_stream(Socket) -> Socket when Socket :: megaphone_nif:bosh_socket().
reset_stream(Socket) ->
    ok = megaphone_nif:bosh_note(Socket, authenticated),
    Socket.

%% @doc Slows the client down to the rate of the shaper, or no longer.
-spec change_shaper(megaphone_nif:bosh_socket(), none | p1_shaper:state()) -> ok.
change_shaper(Socket, Shaper) ->
    case megaphone_owner:set_shaper(Shaper) of
        true -> megaphone_nif:bosh_note(Socket, shaped);
        false -> megaphone_nif:bosh_note(Socket, unshaped)
    end.

%% @doc A process that is not the client session: that is how xmpp_socket knows that elements come, and not bytes.
-spec get_owner(megaphone_nif:bosh_socket()) -> pid().
get_owner(Socket) ->
    megaphone_owner:of_socket(Socket).

%% @doc What the session is shown as.
-spec get_transport(megaphone_nif:bosh_socket()) -> http_bind.
get_transport(_Socket) ->
    http_bind.

-spec controlling_process(megaphone_nif:bosh_socket(), pid()) -> ok.
controlling_process(_Socket, _Pid) ->
    ok.

%% @doc Ends the session. What was sent is still fetched by the client, within the time of `max_inactivity'.
-spec close(megaphone_nif:bosh_socket()) -> ok.
close(Socket) ->
    megaphone_nif:bosh_close(Socket).

%% @doc The address of the client that made the session.
-spec peername(megaphone_nif:bosh_socket()) -> {ok, megaphone_nif:address()} | {error, closed}.
peername(Socket) ->
    megaphone_nif:bosh_peername(Socket).

%% @doc As mod_bosh: a session has no address of this side.
-spec sockname(megaphone_nif:bosh_socket()) -> {ok, megaphone_nif:address()}.
sockname(_Socket) ->
    {ok, {{0, 0, 0, 0}, 0}}.

%% ---- what was not delivered ----------------------------------------------------------------------------------

%% @doc Routes elements once more that a client session sent and the client did not fetch, when that client session has ended:
%% so a message goes to the user's other clients, or is kept until he comes back.
-spec bounce(pid() | undefined, [binary()]) -> ok.
bounce(Session, Texts) ->
    MRef = monitor(process, Session),
    receive
        {'DOWN', MRef, process, _Pid, _Reason} -> ok
    after 60_000 -> ok
    end,
    lists:foreach(fun route/1, Texts).

-spec route(binary()) -> ok.
route(Text) ->
    try xmpp:decode(fxml_stream:parse_element(Text), ?NS_CLIENT, ejabberd_config:codec_options()) of
        Packet -> xmpp:is_stanza(Packet) andalso addressed(Packet) andalso ejabberd_router:route(Packet)
    catch
        %% What is no stanza is for nobody else.
        _:_ -> ok
    end,
    ok.

-spec addressed(term()) -> boolean().
addressed(Packet) ->
    xmpp:get_from(Packet) =/= undefined andalso xmpp:get_to(Packet) =/= undefined.
