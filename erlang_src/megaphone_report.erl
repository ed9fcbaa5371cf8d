%% @private
%% @doc What operators ask about links and connections, as numbers and texts: commands, the page in the web admin and the metrics all
%% take it from here. Knows nothing of ejabberd. Nothing that users wrote is in it.
-module(megaphone_report).

-export([is_running/0, version/0, figures/0, links/0, connections/3, connection/1, close/1, drain/1]).
-export([id/1, handle/1, address/1]).
-export_type([figure/0, link_row/0, row/0, id/0]).

%% Bytes of an id.
-define(LONGEST_ID, 64).

-type figure() :: {atom(), non_neg_integer()}.

-type id() :: binary().
%% Names a connection for people: its handle, which is never used again while the node lives.

-type link_row() :: #{
    link := megaphone_nif:link_number(), peer := binary(), draining := boolean(), age := non_neg_integer(),
    connections := non_neg_integer(), opened := non_neg_integer(), bytes_in := non_neg_integer(), bytes_out := non_neg_integer(),
    undelivered := non_neg_integer(), _ => _
}.

-type row() :: #{
    behind := pos_integer(), id := id(), kind := megaphone_nif:kind(), client := binary(), tls := boolean(), idle := non_neg_integer(),
    input := non_neg_integer(), output := non_neg_integer(), owner := binary()
}.

%% @doc Whether the application runs, so that the functions below can be called.
-spec is_running() -> boolean().
is_running() ->
    whereis(megaphone_links) =/= undefined.

%% @doc The version of the application.
-spec version() -> binary().
version() ->
    {ok, Version} = application:get_key(megaphone, vsn),
    list_to_binary(Version).

%% @doc Figures of the whole node: gauges of what is there, and what was counted since the library was loaded. Looks at every connection, on
%% a dirty scheduler: some 50 ms for a million.
-spec figures() -> [figure()].
figures() ->
    Stats = megaphone_nif:stats(),
    #{abandoned := Abandoned} = megaphone_nif:counters(),
    #{sessions := Sessions, memory := Bosh} = megaphone_nif:bosh_info(),
    #{collected := Collected, bosh_asleep := Asleep, c2s_asleep := C2sAsleep, left := Left, noted := Noted, savings := Savings} = megaphone_sweeper:info(),
    #{users := Tidied, samples := Samples, freed_by_one := Freed} = Savings,
    Get = fun(Key) -> maps:get(Key, Stats) end,
    [
        {links, megaphone_links:count()},
        {connections, Get(connections)},
        {websocket_connections, Get(xmpp)},
        {local_connections, Get(local)},
        {busy_connections, Get(busy)},
        {bosh_sessions, Sessions},
        {waiters, Get(waiters)},
        {input_bytes, Get(input_bytes)},
        {output_bytes, Get(output_bytes)},
        {table_bytes, Get(memory)},
        {bosh_table_bytes, Bosh},
        {polls_abandoned, Abandoned},
        {sweeper_noted, Noted},
        {sweeper_collections, Collected},
        {sweeper_bosh_put_to_sleep, Asleep},
        {sweeper_c2s_put_to_sleep, C2sAsleep},
        {sweeper_left_alone, Left},
        {sweeper_users, Tidied},
        {sweeper_samples, Samples},
        {sweeper_freed_by_one, Freed}
    ].

%% @doc The live links by their numbers; `max_links' at most.
-spec links() -> [link_row()].
links() ->
    lists:sort(fun(#{link := One}, #{link := Other}) -> One =< Other end, megaphone_links:list()).

%% @doc A page of connections: at most so many, of one link or of `any', from a place on: 0, or the `behind' of the last row of the page
%% before. Costs a native call for each 256 places of the table that have to be gone by.
-spec connections(megaphone_nif:link_number() | any, non_neg_integer(), non_neg_integer()) -> [row()].
connections(_Link, _Place, 0) ->
    [];
connections(Link, Place, Most) ->
    {Next, Passed} = megaphone_nif:walk(Place, Link, Most),
    Rows = [row(Connection) || Connection <- Passed],
    case Next of
        done -> Rows;
        _ -> Rows ++ connections(Link, Next, Most - length(Rows))
    end.

-spec row(megaphone_nif:passed()) -> row().
row({{Handle, Behind}, Kind, Client, Tls, Idle, {Input, Output}, Owner}) ->
    #{
        behind => Behind, id => id(Handle), kind => Kind, client => address(Client), tls => Tls, idle => Idle, input => Input,
        output => Output, owner => owner(Owner)
    }.

-spec owner(pid() | session | undefined) -> binary().
owner(undefined) -> <<"none">>;
owner(session) -> <<"BOSH session">>;
owner(Pid) -> list_to_binary(pid_to_list(Pid)).

%% @doc All that is known about one connection.
-spec connection(megaphone_nif:handle()) -> {ok, [{atom(), binary()}]} | {error, closed}.
connection(Handle) ->
    case {megaphone_nif:info(Handle), megaphone_nif:peername(Handle), megaphone_nif:sockname(Handle)} of
        {{ok, Info}, {ok, Client}, {ok, Local}} -> {ok, known(Handle, Info, Client, Local)};
        _ -> {error, closed}
    end.

-spec known(megaphone_nif:handle(), #{atom() => term()}, megaphone_nif:address(), megaphone_nif:address()) -> [{atom(), binary()}].
known(Handle, #{owner := Owner} = Info, Client, Local) ->
    Text = fun
        (true) -> <<"true">>;
        (Value) when is_integer(Value) -> integer_to_binary(Value);
        (Value) when is_atom(Value) -> atom_to_binary(Value)
    end,
    Names = [kind, link, tls, idle_seconds, active, packet, readers, senders, input_bytes, output_bytes],
    [{id, id(Handle)}, {client, address(Client)}, {local, address(Local)}] ++
        [{Name, Text(maps:get(Name, Info))} || Name <- Names] ++
        [{owner, owner(Owner)}] ++ process(Owner).

-spec process(pid() | undefined) -> [{atom(), binary()}].
process(undefined) ->
    [];
process(Owner) ->
    case process_info(Owner, [memory, message_queue_len]) of
        [{memory, Memory}, {_, Queue}] -> [{owner_memory, integer_to_binary(Memory)}, {owner_messages, integer_to_binary(Queue)}];
        undefined -> []
    end.

%% @doc Closes a connection as if its client had gone: a WebSocket's session ends, a request is given up, a BOSH session waits for the
%% client's next request.
-spec close(megaphone_nif:handle()) -> ok | {error, closed}.
close(Handle) ->
    case megaphone_nif:info(Handle) of
        {ok, _} -> megaphone_nif:close(Handle);
        {error, closed} = Closed -> Closed
    end.

%% @doc See {@link megaphone_links:drain/1}.
-spec drain(megaphone_nif:link_number()) -> ok | {error, not_found | closed}.
drain(Link) ->
    megaphone_links:drain(Link).

%% ---- texts -----------------------------------------------------------------------------------------------------

%% @doc A connection's name for people, as `LINK.ID.SLOT.GENERATION'.
-spec id(megaphone_nif:handle()) -> id().
id({Link, Id, Slot, Generation}) ->
    iolist_to_binary(lists:join($., [integer_to_list(Number) || Number <- [Link, Id, Slot, Generation]])).

%% @doc The handle of such a name. It may be one of a connection that has ended.
-spec handle(binary()) -> {ok, megaphone_nif:handle()} | {error, malformed}.
handle(Text) when byte_size(Text) > ?LONGEST_ID ->
    {error, malformed};
handle(Text) ->
    try [binary_to_integer(Part) || Part <- binary:split(Text, <<".">>, [global])] of
        [Link, Id, Slot, Generation] when
            Link >= 0, Link < 1 bsl 32, Id >= 0, Id < 1 bsl 64, Slot >= 0, Slot < 1 bsl 32, Generation >= 0, Generation < 1 bsl 64
        ->
            {ok, {Link, Id, Slot, Generation}};
        _ ->
            {error, malformed}
    catch
        error:badarg -> {error, malformed}
    end.

%% @doc An address for people.
-spec address(megaphone_nif:address()) -> binary().
address({Ip, Port}) when tuple_size(Ip) =:= 8 ->
    iolist_to_binary(["[", inet:ntoa(Ip), "]:", integer_to_list(Port)]);
address({Ip, Port}) ->
    iolist_to_binary([inet:ntoa(Ip), ":", integer_to_list(Port)]).
