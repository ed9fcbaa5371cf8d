%% @private
%% @doc The commands of operators: `ejabberdctl megaphone_...', and the same by `mod_http_api' and all else that gives ejabberd's
%% commands. What they answer comes from {@link megaphone_report} and {@link megaphone_memory}.
%%
%% Who may call them is said by ejabberd's `api_permissions', as of all its commands.
-module(megaphone_commands).

-include_lib("kernel/include/logger.hrl").

-export([register/0, unregister/0, commands/0]).
%% The commands.
-export([status/0, links/0, connections/3, connection/1, close/1, drain/1, sweep/0, memory/0]).

%% Most connections in one answer: some 200 kB.
-define(PAGE, 1000).

%% Client sessions of each kind that are asked for their memory: less than half a second. When there are more their mean is taken for all.
-define(ASKED, 100000).

%% Whose commands ejabberd takes them for. Of this module it wants to know in its help (`ejabberdctl help NAME', and wherever the
%% number of arguments is wrong) whether it is a gen_mod; 23.01 fails there with one that declares no behaviour at all, as mod_megaphone.
-define(DEFINER, megaphone).

-type outcome() :: {ok, iodata()} | {error, not_exists, pos_integer(), string()}.

%% Codes of errors, which are exit codes of ejabberdctl as well.
-define(NO_SUCH_CONNECTION, 10).
-define(NO_SUCH_LINK, 11).
-define(LINK_NOT_OPEN, 12).

%% @doc Makes them known to ejabberd, once in a node. Where ejabberd's record of a command is not known they are not, and the log says so.
-spec register() -> ok.
register() ->
    case megaphone_command_record:make([Command || #{name := Name} = Command <- commands(), definition(Name) =:= none]) of
        {ok, []} ->
            ok;
        {ok, Records} ->
            ejabberd_commands:register_commands(?DEFINER, Records);
        {error, Why} ->
            ?LOG_ERROR("mod_megaphone: there are no commands, this version of ejabberd is not known well enough: ~ts", [Why])
    end.

%% @doc Takes them away again. The records are those that ejabberd has: some versions look for the very same ones.
-spec unregister() -> ok.
unregister() ->
    ejabberd_commands:unregister_commands([Record || #{name := Name} <- commands(), Record <- [definition(Name)], Record =/= none]).

-spec definition(atom()) -> tuple() | none.
definition(Name) ->
    try
        ejabberd_commands:get_command_definition(Name)
    catch
        throw:{error, unknown_command} -> none
    end.

%% ---- what they do ----------------------------------------------------------------------------------------------

-spec status() -> [megaphone_report:figure()].
status() ->
    running(),
    megaphone_report:figures().

-spec links() -> [tuple()].
links() ->
    running(),
    [link_row(Row) || Row <- megaphone_report:links()].

-spec link_row(megaphone_report:link_row()) -> tuple().
link_row(#{
    link := Link, peer := Peer, draining := Draining, age := Age, connections := Connections, opened := Opened, bytes_in := In, bytes_out := Out,
    undelivered := Undelivered
}) ->
    State = case Draining of true -> <<"draining">>; false -> <<"open">> end,
    {Link, Peer, State, Age, Connections, Opened, In, Out, Undelivered}.

-spec connections(integer(), integer(), integer()) -> [tuple()].
connections(_Link, _Behind, Limit) when Limit < 1; Limit > ?PAGE ->
    wrong("limit has to be from 1 to ~b; for further connections give `place' of the last one as `behind'", [?PAGE]);
connections(_Link, Behind, _Limit) when Behind < 0; Behind >= 1 bsl 64 ->
    wrong("behind has to be 0, or `place' of a connection in an answer before", []);
connections(Link, Behind, Limit) ->
    running(),
    case Link =:= 0 orelse [Row || #{link := Number} = Row <- megaphone_report:links(), Number =:= Link] of
        true -> page(any, Behind, Limit);
        [_] -> page(Link, Behind, Limit);
        [] -> no_link(Link)
    end.

-spec page(megaphone_nif:link_number() | any, non_neg_integer(), pos_integer()) -> [tuple()].
page(Link, Behind, Limit) ->
    [
        {Place, Id, Kind, Client, Tls, Idle, Input, Output, Owner}
     || #{behind := Place, id := Id, kind := Kind, client := Client, tls := Tls, idle := Idle, input := Input, output := Output, owner := Owner} <-
            megaphone_report:connections(Link, Behind, Limit)
    ].

-spec connection(binary()) -> [{atom(), binary()}] | outcome().
connection(Id) ->
    running(),
    case megaphone_report:connection(handle(Id)) of
        {ok, Known} -> Known;
        {error, closed} -> no_connection(Id)
    end.

-spec close(binary()) -> outcome().
close(Id) ->
    running(),
    case megaphone_report:close(handle(Id)) of
        ok ->
            ?LOG_NOTICE("megaphone: connection ~ts closed by a command", [Id]),
            {ok, ["connection ", Id, " is closed"]};
        {error, closed} ->
            no_connection(Id)
    end.

-spec drain(integer()) -> outcome().
drain(Link) ->
    running(),
    case megaphone_report:drain(Link) of
        ok -> {ok, io_lib:format("the connection manager of link ~b was asked to open no further connections there", [Link])};
        {error, not_found} -> no_link(Link);
        {error, closed} -> {error, not_exists, ?LINK_NOT_OPEN, lists:flatten(io_lib:format("link ~b is not open: try again, or see megaphone_links", [Link]))}
    end.

-spec sweep() -> outcome().
sweep() ->
    running(),
    case megaphone_sweeper:sweep() of
        started -> {ok, "a walk through all users of Megaphone has begun: those who are idle give their memory back"};
        running -> {ok, "such a walk is under way already"}
    end.

-spec memory() -> [{atom(), integer()}].
memory() ->
    running(),
    #{total := Total, rss := Rss, parts := Parts, beyond := Beyond, users := Users, others := Others} = megaphone_memory:report(?ASKED),
    Resident = [{resident, Rss} || Rss =/= undefined],
    [{total, Total}] ++ Resident ++ Parts ++ Beyond ++ lists:append([users(Kind, maps:get(Kind, Users)) || Kind <- [websocket, bosh]]) ++ [{other_users, Others}].

%% Names that are atoms, since JSON has them as keys then. All of them are here.
-spec users(megaphone_walk:kind(), megaphone_memory:user()) -> [{atom(), integer()}].
users(websocket, User) ->
    zip([websocket_users, websocket_users_asked, websocket_user_process, websocket_user_native, websocket_user_session, websocket_user_rest], User);
users(bosh, User) ->
    zip([bosh_users, bosh_users_asked, bosh_user_process, bosh_user_native, bosh_user_session, bosh_user_rest], User).

-spec zip([atom()], megaphone_memory:user()) -> [{atom(), integer()}].
zip(Names, User) ->
    lists:zip(Names, [round(maps:get(Key, User)) || Key <- [users, asked, process, native, session, rest]]).

%% ---- errors ----------------------------------------------------------------------------------------------------

-spec running() -> ok.
running() ->
    case megaphone_report:is_running() of
        true -> ok;
        false -> wrong("Megaphone does not run on this node: see ejabberd's log for why it was not started", [])
    end.

-spec handle(binary()) -> megaphone_nif:handle().
handle(Id) ->
    case megaphone_report:handle(Id) of
        {ok, Handle} -> Handle;
        {error, malformed} -> wrong("'~s' is no id of a connection: those of megaphone_connections look like 1.4294967296.17.3", [shown(Id)])
    end.

%% What somebody gave for an id may be anything.
-spec shown(binary()) -> string().
shown(Id) ->
    [Char || <<Char>> <= binary:part(Id, 0, min(60, byte_size(Id))), Char >= $\s, Char =< $~].

%% What is thrown like this is answered as it is, by ejabberdctl and mod_http_api (400).
-spec wrong(io:format(), [term()]) -> no_return().
wrong(Format, Values) ->
    throw({error, lists:flatten(io_lib:format(Format, Values))}).

-spec no_connection(binary()) -> outcome().
no_connection(Id) ->
    {error, not_exists, ?NO_SUCH_CONNECTION, "there is no connection " ++ binary_to_list(Id) ++ " (any more)"}.

-spec no_link(integer()) -> outcome().
no_link(Link) ->
    {error, not_exists, ?NO_SUCH_LINK, lists:flatten(io_lib:format("there is no link ~b: see megaphone_links", [Link]))}.

%% ---- what ejabberd is told of them -----------------------------------------------------------------------------

%% @doc All commands.
-spec commands() -> [megaphone_command_record:command()].
commands() ->
    [
        command(megaphone_status, status, [], pairs(figures, figure, value), #{
            desc => "Figures of Megaphone on this node",
            result_desc => "Links, connections, users, queues, and what the sweeper has done since the node was started",
            result_example => [{links, 1}, {connections, 2000}]
        }),
        command(megaphone_links, links, [], {links, {list, {link, {tuple, link_fields()}}}}, #{
            desc => "Links from connection managers",
            result_desc => "Number, where it comes from, state, age in seconds, open connections, connections and bytes since it came up, data that found no connection",
            result_example => [{1, <<"127.0.0.1:40000">>, <<"open">>, 3600, 2000, 2100, 1000000, 2000000, 0}]
        }),
        command(megaphone_connections, connections, [{link, integer}, {behind, integer}, {limit, integer}], {connections, {list, {connection, {tuple, connection_fields()}}}}, #{
            desc => "Virtual connections, some at a time",
            longdesc => "The list begins behind a place, 0 for the first; `place' of the last connection is where the next one begins. One with fewer than asked for is the last.",
            args_desc => ["Number of a link, 0 for all", "Place behind which it begins", "How many, 1 to 1000"],
            args_example => [0, 0, 100],
            result_desc => "Place, id, what it carries, client, whether it came by TLS, seconds without data, bytes queued in and out, process",
            result_example => [{4294967297, <<"1.4294967296.17.3">>, xmpp, <<"192.0.2.1:50000">>, true, 12, 0, 0, <<"<0.1000.0>">>}]
        }),
        command(megaphone_connection, connection, [{id, binary}], {known, {list, {figure, {tuple, [{name, atom}, {value, string}]}}}}, #{
            desc => "What is known about a virtual connection",
            args_desc => ["Id of the connection, as megaphone_connections has it"],
            args_example => [<<"1.4294967296.17.3">>],
            result_desc => "Names and values",
            result_example => [{kind, <<"xmpp">>}]
        }),
        command(megaphone_close, close, [{id, binary}], {res, restuple}, #{
            desc => "Close a virtual connection as if its client had gone",
            args_desc => ["Id of the connection, as megaphone_connections has it"],
            args_example => [<<"1.4294967296.17.3">>],
            result_desc => "Whether there was one",
            result_example => {ok, <<"connection 1.4294967296.17.3 is closed">>}
        }),
        command(megaphone_drain, drain, [{link, integer}], {res, restuple}, #{
            desc => "Ask the connection manager of a link to open no further connections on it",
            longdesc => "Those that are there go on. It holds until the link ends.",
            args_desc => ["Number of the link, as megaphone_links has it"],
            args_example => [1],
            result_desc => "Whether it was asked",
            result_example => {ok, <<"the connection manager of link 1 was asked to open no further connections there">>}
        }),
        command(megaphone_sweep, sweep, [], {res, restuple}, #{
            desc => "Give back the memory of all users of Megaphone who are idle, once",
            longdesc => "As the option idle_memory of their listener says; by `collect' where it says `keep'.",
            result_desc => "Whether a walk through all users has begun",
            result_example => {ok, <<"such a walk is under way already">>}
        }),
        command(megaphone_memory, memory, [], pairs(parts, part, bytes), #{
            desc => "Where the memory of this node is, by parts and by user",
            result_desc => "Bytes; numbers of users; bytes of one user of each kind. Those beyond 100000 of a kind count as the mean of these",
            result_example => [{total, 70000000}, {websocket_processes, 8000000}]
        })
    ].

-spec command(atom(), atom(), [{atom(), atom()}], term(), map()) -> megaphone_command_record:command().
command(Name, Function, Args, Result, More) ->
    Base = #{
        name => Name, tags => [megaphone], module => ?MODULE, function => Function, args => Args, result => Result,
        longdesc => "", args_desc => [], args_example => []
    },
    maps:merge(Base, More).

-spec pairs(atom(), atom(), atom()) -> term().
pairs(Name, Item, Value) ->
    {Name, {list, {Item, {tuple, [{name, atom}, {Value, integer}]}}}}.

-spec link_fields() -> [{atom(), atom()}].
link_fields() ->
    [
        {link, integer}, {peer, string}, {state, string}, {age, integer}, {connections, integer}, {opened, integer}, {bytes_in, integer},
        {bytes_out, integer}, {undelivered, integer}
    ].

-spec connection_fields() -> [{atom(), atom()}].
connection_fields() ->
    %% Some versions of ejabberd sort the list, so what it is in the order of comes first.
    [{place, integer}, {id, string}, {kind, atom}, {client, string}, {tls, atom}, {idle, integer}, {input, integer}, {output, integer}, {owner, string}].
