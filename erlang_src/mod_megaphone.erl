%% @doc The operator's view inside ejabberd: commands, a page in the web admin, and metrics.
%%
%% ```
%% modules:
%%   mod_megaphone: {}
%% '''
%%
%% A host enables it; all that it shows is of the whole node, so it is there once however many hosts do. Clients are served without it
%% as well. As a handler of ejabberd_http (`/metrics: mod_megaphone') it answers with metrics.
-module(mod_megaphone).
%% It is a gen_mod. That is not declared, because the compiler would have to find ejabberd.

-include_lib("kernel/include/logger.hrl").
-include("megaphone_request.hrl").

-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_opt_type/1, mod_doc/0]).
%% Handler of ejabberd_http.
-export([process/2]).

%% Where its hooks stand among others.
-define(SEQUENCE, 50).

%% Different versions of ejabberd give webadmin_page_node different arguments; there is a function for each.
-define(HOOKS, [{webadmin_menu_node, menu}, {webadmin_page_node, page}]).

%% @private
-spec start(binary(), #{atom() => term()}) -> ok.
start(_Host, _Opts) ->
    case application:ensure_all_started(megaphone) of
        {ok, _Started} ->
            ok = megaphone_commands:register(),
            lists:foreach(fun({Hook, Function}) -> ejabberd_hooks:add(Hook, global, megaphone_webadmin, Function, ?SEQUENCE) end, ?HOOKS);
        {error, Reason} ->
            %% As the listener does: ejabberd is of use without.
            ?LOG_CRITICAL("mod_megaphone: megaphone cannot be started, there are no commands and no metrics: ~p", [Reason])
    end.

%% @private
%% @doc With the last host that has it all goes.
-spec stop(binary()) -> ok.
stop(Host) ->
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true ->
            ok;
        false ->
            ok = megaphone_commands:unregister(),
            lists:foreach(fun({Hook, Function}) -> ejabberd_hooks:delete(Hook, global, megaphone_webadmin, Function, ?SEQUENCE) end, ?HOOKS)
    end.

%% @private
%% @doc Options are looked up when they are needed.
-spec reload(binary(), #{atom() => term()}, #{atom() => term()}) -> ok.
reload(_Host, _New, _Old) ->
    ok.

%% @private
-spec depends(binary(), #{atom() => term()}) -> [].
depends(_Host, _Opts) ->
    [].

%% @private
-spec mod_options(binary()) -> [{atom(), term()}].
mod_options(_Host) ->
    [{metrics_allow, [{{127, 0, 0, 0}, 8}, {{0, 0, 0, 0, 0, 0, 0, 1}, 128}]}].

%% @private
-spec mod_opt_type(metrics_allow) -> megaphone_http:validator().
mod_opt_type(metrics_allow) ->
    econf:list(econf:ip_mask()).

%% @private
-spec mod_doc() -> map().
mod_doc() ->
    #{
        desc => [
            <<"The operator's view of Megaphone: API commands whose names begin with 'megaphone_', a page of each node in the WebAdmin, and metrics for "
              "Prometheus where a listener of ejabberd_http has the module as a request handler.">>,
            <<"All of it is of the whole node, however many hosts enable the module.">>
        ],
        opts => [
            {metrics_allow, #{
                value => <<"[Network]">>,
                desc =>
                    <<"Networks from which metrics may be fetched. An address is allowed in when any host that enables the module allows it. "
                      "The default value is '[127.0.0.0/8, ::1]': the machine itself.">>
            }}
        ],
        example => [
            "listen:", "  -", "    port: 5281", "    ip: \"127.0.0.1\"", "    module: ejabberd_http", "    request_handlers:", "      /metrics: mod_megaphone",
            "      /admin: ejabberd_web_admin", "", "modules:", "  mod_megaphone:", "    metrics_allow:", "      - 127.0.0.0/8", "      - 192.0.2.0/24"
        ]
    }.

%% @private
%% @doc Metrics, for those who may have them.
-spec process([binary()], #request{}) -> {100..599, [{binary(), binary()}], iodata()}.
process([], #request{method = 'GET', ip = {Ip, _Port}}) ->
    case {networks(), megaphone_report:is_running()} of
        {none, _} ->
            refused(404, "no host of this server enables mod_megaphone");
        {_, false} ->
            refused(503, "Megaphone does not run on this node");
        {Networks, true} ->
            case lists:any(fun({Network, Mask}) -> misc:match_ip_mask(Ip, Network, Mask) end, Networks) of
                true -> {200, [{<<"Content-Type">>, megaphone_metrics:content_type()}], megaphone_metrics:text()};
                false -> refused(403, "metrics are not for this address: option metrics_allow of mod_megaphone")
            end
    end;
process([], _Request) ->
    refused(405, "metrics are fetched by GET");
process(_Path, _Request) ->
    refused(404, "there is nothing below this path").

-spec refused(400..599, string()) -> {400..599, [{binary(), binary()}], iodata()}.
refused(Status, Why) ->
    {Status, [{<<"Content-Type">>, <<"text/plain; charset=utf-8">>}], [Why, "\n"]}.

%% What all hosts together allow.
-spec networks() -> [{inet:ip_address(), 0..128}] | none.
networks() ->
    case [Host || Host <- ejabberd_option:hosts(), gen_mod:is_loaded(Host, ?MODULE)] of
        [] -> none;
        Hosts -> lists:usort(lists:append([gen_mod:get_module_opt(Host, ?MODULE, metrics_allow) || Host <- Hosts]))
    end.
