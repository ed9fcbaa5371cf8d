%% @private
%% @doc The socket of a link: plain TCP (or a unix-domain socket), or TLS over it.
-module(megaphone_transport).

-export([plain/1, tls/3, send/2, setopts/2, shutdown/1, close/1, received/2, error_name/1, format_error/1]).
-export_type([transport/0]).

-opaque transport() :: {gen_tcp, inet:socket()} | {ssl, ssl:sslsocket()}.

-type tls_error() :: no_certificate | timeout | closed | {tls, atom()}.

-spec plain(inet:socket()) -> transport().
plain(Socket) ->
    {gen_tcp, Socket}.

%% @doc Makes TLS of an accepted socket, whose owner is the caller; waits for no longer than `Timeout'. `certfile' among
%% the options names a PEM file with certificates and key; without it ejabberd's own certificate is used.
-spec tls(inet:socket(), [{atom(), term()}], timeout()) -> {ok, transport()} | {error, tls_error()}.
tls(Socket, Opts, Timeout) ->
    case certificate(proplists:get_value(certfile, Opts)) of
        {ok, File} ->
            %% Failed handshakes are logged by who called this, at a bounded rate; ssl would log each.
            TlsOpts = [{certfile, File}, {versions, ['tlsv1.2', 'tlsv1.3']}, {log_level, none}],
            %% By apply, because OTP 25 has log_level in its documentation and not in its types.
            Args = [Socket, TlsOpts, Timeout],
            handshake(apply(ssl, handshake, Args));
        error ->
            {error, no_certificate}
    end.

-spec certificate(binary() | undefined) -> {ok, file:filename()} | error.
certificate(undefined) ->
    case ejabberd_pkix:get_certfile() of
        {ok, File} -> certificate(File);
        error -> error
    end;
certificate(File) ->
    {ok, unicode:characters_to_list(File)}.

%% What an alert says in words is the peer's.
-spec handshake({ok, ssl:sslsocket()} | {error, term()}) -> {ok, transport()} | {error, tls_error()}.
handshake({ok, Socket}) -> {ok, {ssl, Socket}};
handshake({error, timeout}) -> {error, timeout};
handshake({error, closed}) -> {error, closed};
handshake({error, {tls_alert, {Alert, _Text}}}) -> {error, {tls, Alert}};
handshake({error, _}) -> {error, {tls, handshake_failed}}.

-spec send(transport(), iodata()) -> ok | {error, term()}.
send({Module, Socket}, Data) ->
    try
        Module:send(Socket, Data)
    catch
        %% The process of a TLS connection is killed. The reason has its last call in it, with the data.
        exit:_ -> {error, closed}
    end.

-spec setopts(transport(), [term()]) -> ok | {error, term()}.
setopts({gen_tcp, Socket}, Opts) -> inet:setopts(Socket, Opts);
setopts({ssl, Socket}, Opts) -> ssl:setopts(Socket, Opts).

%% @doc Closes it for writing.
-spec shutdown(transport()) -> ok | {error, term()}.
shutdown({Module, Socket}) ->
    Module:shutdown(Socket, write).

-spec close(transport()) -> ok.
close({Module, Socket}) ->
    _ = Module:close(Socket),
    ok.

%% @doc What a message to the owner says of the socket; `no': nothing.
-spec received(transport(), term()) -> {data, binary()} | passive | closed | {error, term()} | no.
received({gen_tcp, Socket}, {tcp, Socket, Data}) -> {data, Data};
received({gen_tcp, Socket}, {tcp_passive, Socket}) -> passive;
received({gen_tcp, Socket}, {tcp_closed, Socket}) -> closed;
received({gen_tcp, Socket}, {tcp_error, Socket, Reason}) -> {error, Reason};
received({ssl, Socket}, {ssl, Socket, Data}) -> {data, Data};
received({ssl, Socket}, {ssl_passive, Socket}) -> passive;
received({ssl, Socket}, {ssl_closed, Socket}) -> closed;
received({ssl, Socket}, {ssl_error, Socket, Reason}) -> {error, Reason};
received(_, _) -> no.

%% @doc An error of sending or receiving as a name for logs. A timeout comes with the data that was not sent, and an alert of
%% TLS with text of the peer: neither belongs there.
-spec error_name(term()) -> atom().
error_name({timeout, _Rest}) -> timeout;
error_name(Reason) when is_atom(Reason) -> Reason;
error_name(_TlsAlert) -> closed.

-spec format_error(tls_error()) -> iodata().
format_error(no_certificate) -> "there is no certificate: set the listener option `certfile', or ejabberd's `certfiles'";
format_error(timeout) -> "the TLS handshake took too long; does the peer speak TLS?";
format_error(closed) -> "the peer closed the connection within the TLS handshake";
format_error({tls, Alert}) -> ["the TLS handshake failed: ", atom_to_list(Alert)].
