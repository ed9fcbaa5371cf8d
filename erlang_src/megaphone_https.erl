%% @private
%% @doc Has handlers of HTTP requests see that a client came by TLS.
%%
%% ejabberd_http takes the scheme of a request from the module of its socket, which has to be gen_tcp for a virtual
%% connection: it knows no other but fast_tls, whose sockets end TLS themselves. So requests of clients who came by TLS are
%% given to their handlers through this module, which puts in what a listener of ejabberd_http with the option `tls' would
%% have there: the scheme `https', its port where `Host' names none, and that option. It gets between the two by the hook
%% `http_request_handlers', as the last one, so that handlers which others add by it count as well.
%%
%% The hooks `http_request_handlers' and `http_request_debug' themselves see `http'.
-module(megaphone_https).

-include("megaphone_request.hrl").

-export([hook/0, is_hook/1, handlers/3, socket_handoff/3, request/1]).

-define(SEQUENCE, 1000).

-type handler() :: {[binary()], module()} | {[binary()], module(), term()}.

%% @doc Puts this module between ejabberd_http and its handlers, if it is not there yet. To be called when ejabberd is up.
-spec hook() -> ok.
hook() ->
    ejabberd_hooks:add(http_request_handlers, ?MODULE, handlers, ?SEQUENCE).

%% @doc Whether a row of ejabberd's table of hooks is that one.
-spec is_hook(term()) -> boolean().
is_hook({?SEQUENCE, ?MODULE, handlers}) -> true;
is_hook(_) -> false.

%% @doc The hook: the handlers for a request. All requests of the node come here, those of other listeners at the cost of a
%% call; those on virtual connections at that of {@link megaphone_nif:info/1}.
-spec handlers([handler()], binary(), #request{}) -> [handler()].
handlers(Handlers, _Host, Request) ->
    case is_tls(Request) of
        true -> lists:map(fun between/1, Handlers);
        false -> Handlers
    end.

-spec between(handler()) -> handler().
between({Path, Module}) -> between({Path, Module, []});
between({Path, Module, Opts}) -> {Path, ?MODULE, {Module, Opts}}.

%% @doc A handler of ejabberd_http, in the place of another one that is named in the last argument. Called as it would be.
-spec socket_handoff([binary()], #request{}, {module(), term()}) -> term().
socket_handoff(LocalPath, Request, {Module, Opts}) ->
    case erlang:function_exported(Module, socket_handoff, 3) of
        true -> Module:socket_handoff(LocalPath, https(Request), Opts);
        false -> Module:process(LocalPath, https(Request))
    end.

%% @doc The request as its handler is to see it.
-spec request(#request{}) -> #request{}.
request(Request) ->
    case is_tls(Request) of
        true -> https(Request);
        false -> Request
    end.

-spec is_tls(#request{}) -> boolean().
is_tls(#request{socket = {'$inet', megaphone_socket, Handle}}) ->
    case megaphone_nif:info(Handle) of
        {ok, #{tls := IsTls}} -> IsTls;
        {error, closed} -> false
    end;
is_tls(_Request) ->
    false.

-spec https(#request{}) -> #request{}.
https(#request{opts = Opts, port = Port, headers = Headers} = Request) ->
    Request#request{tp = https, port = port(Port, proplists:get_value('Host', Headers, <<>>)), opts = [{tls, true} | Opts]}.

%% 80 may be what `Host' says, or what is taken where it says nothing.
-spec port(inet:port_number(), binary()) -> inet:port_number().
port(80, Host) ->
    case re:run(Host, ":[0-9]+ *$", [{capture, none}]) of
        match -> 80;
        nomatch -> 443
    end;
port(Port, _Host) ->
    Port.
