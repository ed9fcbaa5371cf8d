%% @private
%% @doc The application: starts the supervision tree.
-module(megaphone_app).
-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    %% Without its library nothing works. Say so here, where ejabberd's log shows it, not as `undef' later on.
    case code:ensure_loaded(megaphone_nif) of
        {module, _} -> load_all();
        {error, Reason} -> {error, {nif_not_loaded, megaphone_nif, Reason}}
    end.

%% An upgrade of the package takes the files of the version that runs away; a module that is called for the first time after
%% that would not be found.
-spec load_all() -> {ok, pid()} | {error, term()}.
load_all() ->
    {ok, Modules} = application:get_key(megaphone, modules),
    case code:ensure_modules_loaded(Modules) of
        ok -> root(megaphone_root_sup:start_link());
        {error, Reasons} -> {error, {not_loaded, Reasons}}
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    shut_down(0).

%% Those who read from connections that were opened in this node are told that it is over.
-spec shut_down(non_neg_integer()) -> ok.
shut_down(Cursor) ->
    case megaphone_nif:local_sweep(Cursor) of
        {more, Next} -> shut_down(Next);
        done -> ok
    end.

-spec root(supervisor:startlink_ret()) -> {ok, pid()} | {error, term()}.
root({ok, _Pid} = Ok) -> Ok;
root({error, _Reason} = Error) -> Error;
root(ignore) -> {error, ignore}.
