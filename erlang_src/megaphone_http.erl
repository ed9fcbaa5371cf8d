%% @private
%% @doc Hands requests on virtual connections to ejabberd's HTTP server. The only module that calls ejabberd.
-module(megaphone_http).

-export([options/1, start_consumer/2, option_type/1]).
-export_type([error/0, validator/0]).

-type error() :: ejabberd_not_running | {cannot_start, ejabberd_http, term()}.
-type validator() :: fun((term()) -> term()).
%% As econf:validator(), which is known where ejabberd is.

%% Options of the listener that speak of the link and must not be taken for the client's connection. Above all
%% `sock_peer_name' (from use_proxy_protocol): it would give every client the address of the ECM.
-define(LINK_OPTIONS, [
    megaphone_listener, sock_peer_name, tls, starttls, ciphers, dhfile, cafile, certfile, protocol_options,
    tls_compression, send_timeout, supervisor, backlog, use_proxy_protocol, accept_interval, ip, port, transport,
    module, unix_socket
]).

%% @doc Those of the listener's options that ejabberd_http shall see. To be computed once a link.
-spec options([{atom(), term()}]) -> [{atom(), term()}].
options(Opts) ->
    [Opt || {Name, _} = Opt <- Opts, not lists:member(Name, ?LINK_OPTIONS)].

%% @doc Starts the process that answers the request which waits on the connection, and the following ones as long as
%% there are any. The connection ends when that process dies. If it cannot be started the connection is closed.
%%
%% Cost: a process, about 2.6 kB before it does anything.
-spec start_consumer(megaphone_nif:handle(), [{atom(), term()}]) -> ok | {error, error()}.
start_consumer(Handle, Opts) ->
    case start_http(Handle, Opts) of
        {ok, Pid} ->
            %% Closed meanwhile: then the process finds that out by its first read.
            _ = megaphone_nif:set_consumer(Handle, Pid),
            ok;
        {error, _} = Error ->
            ok = megaphone_nif:close(Handle),
            Error
    end.

-spec start_http(megaphone_nif:handle(), [{atom(), term()}]) -> {ok, pid()} | {error, error()}.
start_http(Handle, Opts) ->
    %% Its code may be there without ejabberd running: then every request would only make a crash report.
    case whereis(ejabberd_sup) of
        undefined ->
            {error, ejabberd_not_running};
        _ ->
            try
                ejabberd_http:start(gen_tcp, {'$inet', megaphone_socket, Handle}, Opts)
            catch
                error:Reason -> {error, {cannot_start, ejabberd_http, Reason}}
            end
    end.

%% @doc The validator that ejabberd_http has for one of its listener options.
-spec option_type(request_handlers | custom_headers | tag) -> validator().
option_type(Option) ->
    ejabberd_http:listen_opt_type(Option).
