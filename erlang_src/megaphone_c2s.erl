%% @private
%% @doc Client sessions on virtual connections of kind XMPP: the transport of an `ejabberd_c2s' (behaviour `xmpp_socket',
%% element mode), and nothing else, so that a WebSocket user is one process.
%%
%% The connection manager has ended the WebSocket (RFC 6455), the native side takes the messages (RFC 7395) apart. The
%% client session asks for what comes ({@link setopts/2}) and is sent `{tcp, Socket, Elements}', a batch for each time it asks:
%% a client that sends faster than its session works waits in its own TCP connection.
%%
%% All functions but {@link start/2} and {@link set_limits/0} are called in the process of the client session.
-module(megaphone_c2s).
%% Without `-behaviour(xmpp_socket)': that module is there only where ejabberd is.

-export([start/2, start_session/3, set_limits/0, condition/1]).
-export([
    setopts/2, send_xml/2, reset_stream/1, change_shaper/2, get_owner/1, get_transport/1, controlling_process/2, close/1,
    peername/1, sockname/1
]).
-export_type([socket/0, event/0]).

-include("megaphone_xml.hrl").

-define(NS_FRAMING, <<"urn:ietf:params:xml:ns:xmpp-framing">>).
-define(NS_STREAM, <<"http://etherx.jabber.org/streams">>).
-define(NS_CLIENT, <<"jabber:client">>).
-define(NS_STREAM_ERRORS, <<"urn:ietf:params:xml:ns:xmpp-streams">>).

-type socket() :: megaphone_nif:handle().

-type event() ::
    {xmlstreamstart, binary(), [{binary(), binary()}]}
    | {xmlstreamelement, xmlel()}
    | {xmlstreamend, binary()}
    | {xmlstreamraw, iodata()}.
%% What a client session sends.

%% @doc Starts the client session of a connection whose first message waits. Its limits are those of the first listener
%% of `ejabberd_c2s', as with ejabberd's own WebSocket; `Opts' are further options of sessions. If it cannot be started the
%% connection is closed.
-spec start(socket(), [{atom(), term()}]) -> ok | {error, megaphone_http:error()}.
start(Socket, Opts) ->
    case start_session(?MODULE, Socket, Opts) of
        {ok, Session} ->
            %% Closed meanwhile: then the session finds out when it asks for the client's address.
            _ = megaphone_nif:set_consumer(Socket, Session),
            ejabberd_c2s:accept(Session);
        {error, _} = Error ->
            ok = megaphone_nif:close(Socket),
            Error
    end.

%% @doc Starts a client session over a transport of ours.
-spec start_session(module(), socket() | megaphone_nif:bosh_socket(), [{atom(), term()}]) ->
    {ok, pid()} | {error, megaphone_http:error()}.
start_session(Module, Socket, Opts) ->
    case whereis(ejabberd_sup) of
        undefined ->
            {error, ejabberd_not_running};
        _ ->
            try ejabberd_c2s:start(Module, Socket, Opts ++ ejabberd_c2s_config:get_c2s_limits()) of
                {ok, Session} -> {ok, Session};
                Other -> {error, {cannot_start, ejabberd_c2s, megaphone_failure:kind(Other)}}
            catch
                error:Reason -> {error, {cannot_start, ejabberd_c2s, megaphone_failure:kind(Reason)}}
            end
    end.

%% @doc Tells the native side how long messages of clients may be, and of how many elements: as the first listener of
%% `ejabberd_c2s' says, or as ejabberd 26.07 has it, but never without a limit. For the hook `config_reloaded', too.
-spec set_limits() -> ok.
set_limits() ->
    Opts = ejabberd_c2s_config:get_c2s_limits(),
    #{max_message := Size, max_elements := Elements} = Default = megaphone_nif:limits(),
    #{max_message_before_login := SizeBefore, max_elements_before_login := ElementsBefore} = Default,
    megaphone_nif:set_message_limits(
        {limit(max_stanza_size, Opts, Size), limit(max_stanza_elements, Opts, Elements)},
        {limit(pre_auth_max_stanza_size, Opts, SizeBefore), limit(pre_auth_max_stanza_elements, Opts, ElementsBefore)}
    ).

-spec limit(atom(), [{atom(), term()}], pos_integer()) -> pos_integer().
limit(Option, Opts, Default) ->
    case proplists:get_value(Option, Opts, Default) of
        Limit when is_integer(Limit) -> min(Limit, 16#ffffffff);
        infinity -> Default
    end.

%% ---- the behaviour xmpp_socket -------------------------------------------------------------------------------

%% @doc Asks for the next elements. They come as a message, at once if there are some.
-spec setopts(socket(), [{active, once}]) -> ok | {error, closed}.
setopts(Socket, _Opts) ->
    megaphone_owner:activate(Socket).

%% @doc Sends an element, or what begins or ends a stream, as RFC 7395 has it. Waits as long as a client that reads too
%% slowly lets it, at most the listener's `send_timeout'.
-spec send_xml(socket(), event()) -> ok | {error, closed | timeout | {limit, waiters}}.
%% Bits, not bytes: for bytes the compiler of OTP 25 makes an instruction (bs_test_unit) that OTP 29 does not load.
send_xml(Socket, {xmlstreamelement, #xmlel{name = <<"stream:", _/bits>>} = El}) ->
    send(Socket, element_of_stream(El));
send_xml(Socket, {xmlstreamelement, #xmlel{name = <<"success">>} = El}) ->
    %% Of SASL, or of SASL2, which does not begin a new stream.
    ok = megaphone_nif:set_authenticated(Socket),
    send(Socket, with_namespace(El));
send_xml(Socket, {xmlstreamelement, El}) ->
    send(Socket, with_namespace(El));
send_xml(Socket, {xmlstreamstart, _Name, Attrs}) ->
    Others = [Attr || {Name, _} = Attr <- Attrs, Name =/= <<"xmlns">>, Name =/= <<"xmlns:stream">>],
    send(Socket, #xmlel{name = <<"open">>, attrs = [{<<"xmlns">>, ?NS_FRAMING} | Others]});
send_xml(Socket, {xmlstreamend, _Name}) ->
    send(Socket, #xmlel{name = <<"close">>, attrs = [{<<"xmlns">>, ?NS_FRAMING}]});
send_xml(_Socket, {xmlstreamraw, <<"\r\n\r\n">>}) ->
    %% Keeps connections alive; the connection manager does that by pings.
    ok;
send_xml(Socket, {xmlstreamraw, Data}) ->
    megaphone_socket:send_message(Socket, iolist_to_binary(Data)).

-spec send(socket(), xmlel()) -> ok | {error, closed | timeout | {limit, waiters}}.
send(Socket, El) ->
    megaphone_socket:send_message(Socket, fxml:element_to_binary(El)).

-spec with_namespace(xmlel()) -> xmlel().
with_namespace(#xmlel{attrs = Attrs} = El) ->
    case lists:keyfind(<<"xmlns">>, 1, Attrs) of
        {_, Namespace} when Namespace =/= <<>> -> El;
        _ -> El#xmlel{attrs = [{<<"xmlns">>, ?NS_CLIENT} | lists:keydelete(<<"xmlns">>, 1, Attrs)]}
    end.

-spec element_of_stream(xmlel()) -> xmlel().
element_of_stream(#xmlel{name = <<"stream:error">>, children = Children} = El) ->
    declared(El#xmlel{children = condition(Children)});
element_of_stream(El) ->
    declared(El).

-spec declared(xmlel()) -> xmlel().
declared(#xmlel{attrs = Attrs} = El) ->
    El#xmlel{attrs = [{<<"xmlns:stream">>, ?NS_STREAM} | lists:keydelete(<<"xmlns:stream">>, 1, Attrs)]}.

%% @doc A client session knows one stream error for all that cannot be read. The native side says in its text which one of
%% RFC 6120, 4.9.3, it is.
-spec condition([xmlel() | {xmlcdata, binary()}]) -> [xmlel() | {xmlcdata, binary()}].
condition([#xmlel{name = <<"not-well-formed">>} = Condition, #xmlel{name = <<"text">>, children = [{xmlcdata, Text}]} = Said | Rest] = All) ->
    case binary:split(Text, <<": ">>) of
        [Name, Why] when
            Name =:= <<"restricted-xml">>;
            Name =:= <<"bad-format">>;
            Name =:= <<"unsupported-encoding">>;
            Name =:= <<"connection-timeout">>
        ->
            [Condition#xmlel{name = Name}, Said#xmlel{children = [{xmlcdata, Why}]} | Rest];
        _ ->
            All
    end;
condition([#xmlel{name = <<"text">>} = Said, #xmlel{name = <<"not-well-formed">>} = Condition | Rest]) ->
    condition([Condition, Said | Rest]);
condition(All) ->
    All.

%% @doc The client has logged in by SASL and begins a new stream.
-spec reset_stream(socket()) -> socket().
reset_stream(Socket) ->
    ok = megaphone_nif:set_authenticated(Socket),
    Socket.

%% @doc Slows the client down to the rate of the shaper, or no longer.
-spec change_shaper(socket(), none | p1_shaper:state()) -> ok.
change_shaper(Socket, Shaper) ->
    megaphone_nif:set_shaped(Socket, megaphone_owner:set_shaper(Shaper)).

%% @doc A process that is not the client session: that is how xmpp_socket knows that elements come, and not bytes.
-spec get_owner(socket()) -> pid().
get_owner(Socket) ->
    megaphone_owner:of_socket(Socket).

%% @doc What the session is shown as.
-spec get_transport(socket()) -> websocket.
get_transport(_Socket) ->
    websocket.

-spec controlling_process(socket(), pid()) -> ok.
controlling_process(_Socket, _Pid) ->
    ok.

%% @doc Closes the connection when what was sent is out. The session may live on (stream management).
-spec close(socket()) -> ok.
close(Socket) ->
    megaphone_nif:close(Socket).

%% @doc The client's address, as the connection manager tells it.
-spec peername(socket()) -> {ok, megaphone_nif:address()} | {error, closed}.
peername(Socket) ->
    megaphone_nif:peername(Socket).

%% @doc The address that the client connected to.
-spec sockname(socket()) -> {ok, megaphone_nif:address()} | {error, closed}.
sockname(Socket) ->
    megaphone_nif:sockname(Socket).
