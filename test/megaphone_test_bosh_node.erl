%% What the suites about BOSH share: an ejabberd with a connection manager in front of it for each group, and what was
%% found there of the session behind a request.
%%
%% A group is a way to serve BOSH: `mod_bosh', ejabberd's own, or `native', Megaphone's.
-module(megaphone_test_bosh_node).

-include("megaphone_test.hrl").

-import(megaphone_test_node, [address/2, call/4, handlers/0, listener/3]).

%% In the test.
-export([all/0, groups/1, start/2, stop/1, where/1, hasty/1, kind/1, arrived/3, caught_up/2]).
%% In the node.
-export([knows/2, caught_up/1]).
-export_type([where/0, kind/0, config/0]).

-type kind() :: mod_bosh | native.
-type config() :: [{atom(), term()}].
-type where() :: #{
    port := inet:port_number(), node := megaphone_test_node:node_info(), kind := kind(), host => binary(), from => inet:ip_address(),
    %% See megaphone_test_bosh_weather.
    ports => [inet:port_number()], halfway => fun(() -> [inet:port_number(), ...])
}.

%% Of what is hasty, in seconds.
-define(INACTIVITY, "1").
-define(PAUSE, "10").

%% What the suites run.
-spec all() -> [{group, kind()}].
all() ->
    [{group, mod_bosh}, {group, native}].

-spec groups([atom()]) -> [{kind(), [parallel], [atom()]}].
groups(Cases) ->
    [{Kind, [parallel], Cases} || Kind <- [mod_bosh, native]].

%% ---- an ejabberd and a connection manager ----------------------------------------------------------------------

-spec start(kind(), config()) -> config().
start(Kind, Config) ->
    Dir = filename:join([proplists:get_value(priv_dir, Config), "bosh", atom_to_list(Kind)]),
    Option = "bosh: " ++ atom_to_list(Kind),
    ok = megaphone_test_node:write_config(Dir, [
        listener(megaphone, 1, [handlers(), Option]),
        %% Of the options for native sessions, as those of mod_bosh at the second host.
        listener(megaphone, 2, [handlers(), Option, "max_inactivity: " ?INACTIVITY, "max_pause: " ?PAUSE])
    ]),
    ok = add_host(filename:join(Dir, "ejabberd.yml")),
    Node = megaphone_test_node:start_in(Dir),
    [{Ecm, Port}, {HastyEcm, HastyPort}] = [ecm(address(Node, {megaphone, N})) || N <- [1, 2]],
    [{kind, Kind}, {node, Node}, {ecms, [Ecm, HastyEcm]}, {port, Port}, {hasty_port, HastyPort} | Config].

-spec ecm({inet:ip_address(), inet:port_number()}) -> {megaphone_test_program:program(), inet:port_number()}.
ecm(Address) ->
    megaphone_test_program:ecm(megaphone_test_program:server(Address)).

%% A second host, where sessions end after a second in which their clients do nothing; and mod_offline for both.
-spec add_host(file:filename()) -> ok.
add_host(File) ->
    {ok, Yaml} = file:read_file(File),
    Hosts = string:replace(Yaml, "hosts: [localhost]", "hosts: [localhost, hasty]"),
    file:write_file(File, [
        Hosts, "  mod_offline: {}\n",
        "host_config:\n  hasty:\n    modules:\n",
        [["      ", Module, ": {}\n"] || Module <- ["mod_disco", "mod_ping", "mod_roster", "mod_offline"]],
        "      mod_bosh:\n        max_inactivity: ", ?INACTIVITY, "\n        max_pause: ", ?PAUSE, "\n"
    ]).

%% Nothing is left of all that the cases did, and nothing was logged as an error but what is said here.
-spec stop(config()) -> ok.
stop(Config) ->
    Node = proplists:get_value(node, Config),
    [{0, _} = megaphone_test_program:stop(Ecm) || Ecm <- proplists:get_value(ecms, Config)],
    ok = megaphone_test_node:assert_quiet(Node),
    ok = megaphone_test_node:stop(Node),
    {ok, Log} = file:read_file(filename:join([maps:get(dir, Node), "log", "error.log"])),
    Errors = [Line || <<"20", _/binary>> = Line <- binary:split(Log, <<"\n">>, [global])],
    [] = lists:foldl(fun forgive/2, Errors, megaphone_test_bosh_expect:errors(proplists:get_value(kind, Config))),
    ok.

%% The lines without so many that have this text.
-spec forgive({binary(), pos_integer()}, [binary()]) -> [binary()].
forgive({Text, Count}, Lines) ->
    Lines -- lists:sublist([Line || Line <- Lines, binary:match(Line, Text) =/= nomatch], Count).

%% For users of the host `localhost'.
-spec where(config()) -> where().
where(Config) ->
    maps:from_list([{Key, proplists:get_value(Key, Config)} || Key <- [port, node, kind]]).

%% For users of the host, and of the listener, that ends sessions soon.
-spec hasty(config()) -> where().
hasty(Config) ->
    (where(Config))#{host => <<"hasty">>, port => proplists:get_value(hasty_port, Config)}.

-spec kind(config()) -> kind().
kind(Config) ->
    proplists:get_value(kind, Config).

%% ---- requests that have arrived --------------------------------------------------------------------------------

%% Waits until the server has a request. mod_bosh does not do well with requests that overtake each other, and two that
%% come by two connections may; the cases that want it let them.
-spec arrived(where(), megaphone_test_bosh:session(), integer()) -> ok.
arrived(#{kind := mod_bosh, node := Node}, #{sid := Sid, rid := Rid}, N) ->
    megaphone_test:wait_until(fun() -> call(Node, ?MODULE, knows, [Sid, Rid + N]) end);
arrived(#{kind := native}, _Session, _N) ->
    ok.

%% The process of mod_bosh for a session has served this request or holds it somewhere; or it is gone. Numbers of requests
%% are larger than all others in its state.
-spec knows(binary(), integer()) -> boolean().
knows(Sid, Rid) ->
    try
        {ok, Pid} = mod_bosh:find_session(Sid),
        State = sys:get_state(Pid),
        Numbers = numbers(State),
        lists:member(Rid, Numbers) orelse lists:max(Numbers) > Rid
    catch
        error:{badmatch, error} -> true;
        exit:_ -> true
    end.

-spec numbers(term()) -> [integer()].
numbers(Number) when is_integer(Number) -> [Number];
numbers(Tuple) when is_tuple(Tuple) -> lists:flatmap(fun numbers/1, tuple_to_list(Tuple));
numbers([Head | Tail]) -> numbers(Head) ++ numbers(Tail);
numbers(_) -> [].

%% ---- stanzas that have arrived ---------------------------------------------------------------------------------

%% Waits until the client session of this address has dealt with all that was routed to it: what it sends is there for its
%% client. It serves what comes in order, so it is asked something.
-spec caught_up(where(), binary()) -> ok.
caught_up(#{node := Node}, Jid) ->
    call(Node, ?MODULE, caught_up, [Jid]).

-spec caught_up(binary()) -> ok.
caught_up(Jid) ->
    {User, Host, Resource} = jid:tolower(jid:decode(Jid)),
    _ = sys:get_status(ejabberd_sm:get_session_pid(User, Host, Resource)),
    ok.
