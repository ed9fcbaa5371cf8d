%% @private
%% @doc Answers one BOSH request: a short-lived process with a small heap that calls mod_bosh itself.
%%
%% An ejabberd_http process costs 4 to 26 kB for as long as a poll is held, and goes on living between two polls. This
%% one takes its request from the table in one native call, waits in `mod_bosh:process/2' holding nothing but what the
%% answer needs, writes the answer as ejabberd_http would, and ends. It is ended at once when its client goes.
%%
%% What is not common stays with ejabberd_http, see {@link megaphone_http}.
-module(megaphone_poll).

-include_lib("kernel/include/logger.hrl").
-include("megaphone_request.hrl").

-export([start/1, init/1]).
-export_type([settings/0]).

-type settings() :: #{
    %% Whom to ask for another consumer: {@link megaphone_receiver:consume/3}.
    receiver := pid(),
    custom_headers := [{binary(), binary()}],
    idle := megaphone_sweeper:idle()
}.

%% What the answer needs of the request.
-record(asked, {version = {1, 1} :: {0..1, 0..1}, keep_alive = true :: boolean()}).

%% @doc Starts the process for the request that waits on a connection.
-spec start({megaphone_nif:handle(), settings()}) -> pid().
start({_Handle, _Settings} = Args) ->
    %% With the default of 65535 nothing that was once in a grown heap would leave it.
    spawn_opt(?MODULE, init, [Args], [{fullsweep_after, 0}]).

%% @private
-spec init({megaphone_nif:handle(), settings()}) -> ok.
init({Handle, #{receiver := Receiver} = Settings}) ->
    case megaphone_packet:take_request(Handle) of
        {ok, Packets} ->
            serve(Handle, Packets, Settings);
        slow ->
            megaphone_receiver:consume(Receiver, Handle, stepwise);
        {error, closed} ->
            ok
    end.

-spec serve(megaphone_nif:handle(), [megaphone_nif:result()], settings()) -> ok.
serve(Handle, Packets, #{receiver := Receiver, custom_headers := Custom, idle := Idle}) ->
    try
        ok = megaphone_sweeper:polled(Idle),
        answer(Handle, Packets, Custom)
    of
        more -> megaphone_receiver:consume(Receiver, Handle, any);
        ended -> ok
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR(
                "megaphone: mod_bosh failed to answer a request, its connection is closed: ~s",
                [megaphone_failure:text(Class, Reason, Stack)]
            ),
            megaphone_nif:close(Handle)
    end.

%% Answers the request `Packets', in the form of {@link megaphone_nif:take_request/2}, on a connection. `more': the next
%% request waits already.
-spec answer(megaphone_nif:handle(), [megaphone_nif:result(), ...], [{binary(), binary()}]) -> more | ended.
answer(Handle, [{http_request, Method, {abs_path, Path}, Version} | Packets], Custom) ->
    {Headers, Data} = headers(Packets, []),
    Asked = #asked{version = Version, keep_alive = keep_alive(Version, Headers)},
    case {host(Headers), megaphone_http:client_of(Handle, proplists:get_value('X-Forwarded-For', Headers))} of
        {{ok, Host, Port}, {ok, Client}} ->
            Request = #request{
                method = Method,
                raw_path = Path,
                data = Data,
                length = byte_size(Data),
                ip = Client,
                host = Host,
                port = Port,
                headers = Headers,
                socket = {'$inet', megaphone_socket, Handle}
            },
            finish(Handle, mod_bosh:process([], megaphone_https:request(Request)), Asked, Custom);
        {{error, Text}, _} ->
            _ = send(Handle, {400, <<>>, Custom, Text}, Asked),
            close(Handle);
        {_, {error, _}} ->
            close(Handle)
    end.

%% Apart from `answer/3', so that nothing but the other three arguments is alive while mod_bosh waits.
-spec finish(megaphone_nif:handle(), term(), #asked{}, [{binary(), binary()}]) -> more | ended.
finish(Handle, {Status, Reason, Headers, Body}, Asked, Custom) when is_integer(Status), is_binary(Reason) ->
    Sent = send(Handle, {Status, Reason, ejabberd_http:apply_custom_headers(Headers, Custom), Body}, Asked),
    case Asked of
        #asked{keep_alive = true} when Sent =:= ok -> next(megaphone_nif:end_request(Handle));
        #asked{} -> close(Handle)
    end.

-spec next(done | more | {error, closed}) -> more | ended.
next(more) -> more;
next(_) -> ended.

-spec close(megaphone_nif:handle()) -> ended.
close(Handle) ->
    ok = megaphone_nif:close(Handle),
    ended.

%% ---- request -------------------------------------------------------------------------------------------------

%% The last one first, as ejabberd_http has them.
-spec headers([megaphone_nif:result()], [{atom() | binary(), binary()}]) -> {[{atom() | binary(), binary()}], binary()}.
headers([{http_header, _, Name, _, Value} | Packets], Headers) -> headers(Packets, [{Name, Value} | Headers]);
headers([http_eoh], Headers) -> {Headers, <<>>};
headers([http_eoh, Data], Headers) -> {Headers, Data}.

-spec keep_alive({0..1, 0..1}, [{atom() | binary(), binary()}]) -> boolean().
keep_alive(Version, Headers) ->
    Wishes = [string:lowercase(Value) || {'Connection', Value} <- Headers],
    case [Wish || Wish <- Wishes, Wish =:= <<"keep-alive">> orelse Wish =:= <<"close">>] of
        [Last | _] -> Last =:= <<"keep-alive">>;
        [] -> Version =:= {1, 1}
    end.

-spec host([{atom() | binary(), binary()}]) -> {ok, binary(), inet:port_number()} | {error, binary()}.
host(Headers) ->
    case proplists:get_value('Host', Headers) of
        undefined -> {error, <<"Missing Host header">>};
        Value -> prepared(split_host(Value))
    end.

-spec prepared({binary(), inet:port_number()}) -> {ok, binary(), inet:port_number()} | {error, binary()}.
prepared({Name, Port}) ->
    case jid:nameprep(Name) of
        error -> {error, <<"Malformed Host header">>};
        Host -> {ok, Host, Port}
    end.

%% Name, or address without its brackets, and port. What is no port belongs to the name, as it does for ejabberd_http.
-spec split_host(binary()) -> {binary(), inet:port_number()}.
split_host(Value) ->
    case string:split(Value, ":", trailing) of
        [Name, Port] when Port =/= <<>> ->
            try binary_to_integer(Port) of
                Number when Number >= 0, binary_part(Port, 0, 1) =/= <<"+">>, binary_part(Port, 0, 1) =/= <<"-">> ->
                    {unbracketed(Name), Number};
                _ ->
                    {unbracketed(Value), 80}
            catch
                error:badarg -> {unbracketed(Value), 80}
            end;
        _ ->
            {unbracketed(Value), 80}
    end.

-spec unbracketed(binary()) -> binary().
unbracketed(<<$[, Rest/binary>> = Name) ->
    case string:split(Rest, "]", trailing) of
        [Address, <<>>] -> Address;
        _ -> Name
    end;
unbracketed(Name) ->
    Name.

%% ---- answer --------------------------------------------------------------------------------------------------

-spec send(megaphone_nif:handle(), {non_neg_integer(), binary(), [{binary(), binary()}], iodata()}, #asked{}) ->
    ok | {error, megaphone_socket:send_error()}.
send(Handle, {Status, Reason, Headers, Body}, #asked{version = Version} = Asked) ->
    All = connection(Asked) ++ content_type(Headers) ++ [{<<"Content-Length">>, integer_to_binary(iolist_size(Body))} | Headers],
    megaphone_socket:send({'$inet', megaphone_socket, Handle}, [
        version(Version),
        integer_to_binary(Status),
        $\s,
        phrase(Status, Reason),
        <<"\r\n">>,
        [[Name, <<": ">>, Value, <<"\r\n">>] || {Name, Value} <- All],
        <<"\r\n">>,
        Body
    ]).

-spec version({0..1, 0..1}) -> binary().
version({1, 1}) -> <<"HTTP/1.1 ">>;
version(_) -> <<"HTTP/1.0 ">>.

-spec phrase(non_neg_integer(), binary()) -> binary().
phrase(200, <<>>) -> <<"OK">>;
phrase(400, <<>>) -> <<"Bad Request">>;
phrase(_, Reason) -> Reason.

-spec connection(#asked{}) -> [{binary(), binary()}].
connection(#asked{version = {1, 1}, keep_alive = true}) -> [];
connection(#asked{keep_alive = true}) -> [{<<"Connection">>, <<"keep-alive">>}];
connection(#asked{}) -> [{<<"Connection">>, <<"close">>}].

-spec content_type([{binary(), binary()}]) -> [{binary(), binary()}].
content_type(Headers) ->
    case lists:keymember(<<"Content-Type">>, 1, Headers) of
        true -> [];
        false -> [{<<"Content-Type">>, <<"text/html; charset=utf-8">>}]
    end.
