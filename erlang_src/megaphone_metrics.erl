%% @private
%% @doc Metrics of the node in the text format of Prometheus: what {@link megaphone_report} and {@link megaphone_memory} tell.
%%
%% Names begin with `megaphone_ejabberd_', so that they are not those of the connection manager. There is no address of a client, no
%% name of a user, and a label has only values that are known in advance, but for the numbers of links.
-module(megaphone_metrics).

-export([content_type/0, text/0]).

%% Client sessions of each kind that are asked for their memory at each scrape: some milliseconds.
-define(ASKED, 1000).

-type labels() :: [{atom(), iodata() | atom() | integer()}].
-type sample() :: {labels(), number()}.
-type metric() :: {Name :: string(), gauge | counter, Help :: string(), [sample()]}.

%% @doc The type of the text.
-spec content_type() -> binary().
content_type() ->
    <<"text/plain; version=0.0.4; charset=utf-8">>.

%% @doc All metrics as they are now. Cost: that of {@link megaphone_memory:report/1} with 1,000 users of each kind.
-spec text() -> iodata().
text() ->
    [metric(Metric) || Metric <- figures() ++ links() ++ memory()].

-spec metric(metric()) -> iodata().
metric({Name, Type, Help, Samples}) ->
    ["# HELP ", Name, " ", Help, "\n# TYPE ", Name, " ", atom_to_list(Type), "\n", [[Name, labels(Labels), " ", number(Value), "\n"] || {Labels, Value} <- Samples]].

-spec labels(labels()) -> iodata().
labels([]) ->
    "";
labels(Labels) ->
    ["{", lists:join(",", [[atom_to_list(Name), "=\"", escaped(Value), "\""] || {Name, Value} <- Labels]), "}"].

-spec escaped(iodata() | atom() | integer()) -> iodata().
escaped(Value) when is_atom(Value) -> atom_to_list(Value);
escaped(Value) when is_integer(Value) -> integer_to_list(Value);
escaped(Value) -> [case Char of $\\ -> "\\\\"; $" -> "\\\""; $\n -> "\\n"; _ -> Char end || <<Char>> <= iolist_to_binary(Value)].

-spec number(number()) -> iodata().
number(Value) when is_integer(Value) -> integer_to_list(Value);
number(Value) -> float_to_list(Value, [{decimals, 1}]).

%% ---- the node --------------------------------------------------------------------------------------------------

-spec figures() -> [metric()].
figures() ->
    Figures = maps:from_list(megaphone_report:figures()),
    Get = fun(Name) -> maps:get(Name, Figures) end,
    #{connections := All, websocket_connections := Xmpp, local_connections := Local} = Figures,
    [
        {"megaphone_ejabberd_build_info", gauge, "Always 1.", [{[{version, megaphone_report:version()}, {otp, erlang:system_info(otp_release)}], 1}]},
        {"megaphone_ejabberd_links", gauge, "Links from connection managers.", [{[], Get(links)}]},
        {"megaphone_ejabberd_connections", gauge, "Virtual connections by what they carry.", [
            {[{kind, http}], max(0, All - Xmpp - Local)}, {[{kind, websocket}], Xmpp}, {[{kind, local}], Local}
        ]},
        {"megaphone_ejabberd_busy_connections", gauge, "Connections with something queued, or a mode set.", [{[], Get(busy_connections)}]},
        {"megaphone_ejabberd_bosh_sessions", gauge, "BOSH sessions that Megaphone keeps.", [{[], Get(bosh_sessions)}]},
        {"megaphone_ejabberd_waiters", gauge, "Processes that wait to read from, or write to, a connection.", [{[], Get(waiters)}]},
        {"megaphone_ejabberd_queued_bytes", gauge, "Bytes that wait in connections, from clients (in) and for them (out).", [
            {[{direction, in}], Get(input_bytes)}, {[{direction, out}], Get(output_bytes)}
        ]},
        {"megaphone_ejabberd_polls_abandoned_total", counter, "Polls whose clients went before the answer.", [{[], Get(polls_abandoned)}]},
        {"megaphone_ejabberd_sweeper_noted", gauge, "Polls and sessions that the sweeper is to look at.", [{[], Get(sweeper_noted)}]},
        {"megaphone_ejabberd_sweeper_collections_total", counter, "Garbage collections of idle processes.", [{[], Get(sweeper_collections)}]},
        {"megaphone_ejabberd_sweeper_put_to_sleep_total", counter, "Idle processes that were put to sleep.", [
            {[{kind, bosh}], Get(sweeper_bosh_put_to_sleep)}, {[{kind, c2s}], Get(sweeper_c2s_put_to_sleep)}
        ]},
        {"megaphone_ejabberd_sweeper_left_alone_total", counter, "Processes that turned out not to be idle.", [{[], Get(sweeper_left_alone)}]},
        {"megaphone_ejabberd_sweeper_users_total", counter, "Times that a user with a native session was tidied up.", [{[], Get(sweeper_users)}]},
        {"megaphone_ejabberd_sweeper_freed_bytes", gauge, "What such a user gives back, by the mean of some that were looked at.", [{[], Get(sweeper_freed_by_one)}]}
    ].

%% ---- links -----------------------------------------------------------------------------------------------------

-spec links() -> [metric()].
links() ->
    Links = megaphone_report:links(),
    Each = fun(Key) -> [{[{link, Number}], maps:get(Key, Link)} || #{link := Number} = Link <- Links] end,
    [
        {"megaphone_ejabberd_link_connections", gauge, "Open connections of a link.", Each(connections)},
        {"megaphone_ejabberd_link_draining", gauge, "1 when the link takes no further connections.", [
            {[{link, Number}], case Draining of true -> 1; false -> 0 end}
         || #{link := Number, draining := Draining} <- Links
        ]},
        {"megaphone_ejabberd_link_age_seconds", gauge, "How long the link has been there.", Each(age)},
        {"megaphone_ejabberd_link_opened_total", counter, "Connections opened on a link.", Each(opened)},
        {"megaphone_ejabberd_link_bytes_total", counter, "Bytes that came by a link (in) and went by it (out).", lists:append([
            [{[{link, Number}, {direction, in}], In}, {[{link, Number}, {direction, out}], Out}]
         || #{link := Number, bytes_in := In, bytes_out := Out} <- Links
        ])},
        {"megaphone_ejabberd_link_undelivered_total", counter, "Data of a link that found no connection.", Each(undelivered)}
    ].

%% ---- memory ----------------------------------------------------------------------------------------------------

-spec memory() -> [metric()].
memory() ->
    #{total := Total, rss := Rss, parts := Parts, beyond := Beyond, users := Users, others := Others} = megaphone_memory:report(?ASKED),
    Kinds = [websocket, bosh],
    [
        {"megaphone_ejabberd_users", gauge, "Sessions by how they are connected; other: without Megaphone.",
            [{[{kind, Kind}], maps:get(users, maps:get(Kind, Users))} || Kind <- Kinds] ++ [{[{kind, other}], Others}]},
        {"megaphone_ejabberd_memory_bytes", gauge, "erlang:memory(total) by parts.", [{[{part, Part}], Bytes} || {Part, Bytes} <- Parts]},
        {"megaphone_ejabberd_memory_total_bytes", gauge, "erlang:memory(total).", [{[], Total}]},
        {"megaphone_ejabberd_memory_beyond_bytes", gauge, "Resident memory beyond that, by parts; unaccounted may be below zero.", [{[{part, Part}], Bytes} || {Part, Bytes} <- Beyond]},
        {"megaphone_ejabberd_user_memory_bytes", gauge, "Memory of a user by parts: process a mean of at most 1000, the others shares.", [
            {[{kind, Kind}, {part, Part}], maps:get(Part, maps:get(Kind, Users))}
         || Kind <- Kinds, Part <- [process, native, session, rest]
        ]}
    ] ++ [{"process_resident_memory_bytes", gauge, "Resident memory.", [{[], Rss}]} || Rss =/= undefined].
