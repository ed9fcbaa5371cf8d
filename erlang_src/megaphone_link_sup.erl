%% @private
%% @doc Supervises the links that were accepted with the listener option `supervisor: false'. A link that fails is
%% not started again: the ECM connects anew.
-module(megaphone_link_sup).
-behaviour(supervisor).

-export([start_link/0, start_child/2, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts the receiver of a link. The caller keeps the socket until it hands it over.
%% `not_started': the application does not run.
-spec start_child(inet:socket(), [{atom(), term()}]) -> {ok, pid()} | {error, not_started | term()}.
start_child(Socket, Opts) ->
    try supervisor:start_child(?MODULE, [Socket, Opts]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, _} = Error -> Error
    catch
        exit:{noproc, _} -> {error, not_started}
    end.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Flags = #{strategy => simple_one_for_one, intensity => 1, period => 1},
    Child = #{
        id => megaphone_receiver,
        start => {megaphone_receiver, start_link, []},
        restart => temporary,
        shutdown => 5000
    },
    {ok, {Flags, [Child]}}.
