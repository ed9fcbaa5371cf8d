%% @private
%% @doc The page of a node in ejabberd's web admin: links and their rates, memory by parts and by user, the sweeper, connections.
%%
%% It only shows. The page is of elements, which ejabberd writes, so all text in it is escaped; it needs no file and no script beside
%% itself. Who may see it is said by ejabberd, as of the pages beside it.
-module(megaphone_webadmin).

-include("megaphone_request.hrl").
-include("megaphone_xml.hrl").

-export([menu/3, page/3, page/5]).
%% On the node that is looked at.
-export([view/1]).

-define(PATH, <<"megaphone">>).

%% Connections on a page, and client sessions of each kind that are asked for their memory.
-define(ROWS, 50).
-define(ASKED, 1000).

%% Milliseconds between the two looks that rates are made of.
-define(RATE_OVER, 500).

%% Milliseconds in which another node of a cluster has to answer.
-define(WITHIN, 5000).

%% What is shown. Figures of one node, which another one may draw.
-type view() :: #{
    version := binary(), figures := [megaphone_report:figure()], links := [{megaphone_report:link_row(), rates()}],
    memory := megaphone_memory:report(), rows := [megaphone_report:row()]
}.
-type rates() :: #{atom() => number()}.

%% @doc Hook webadmin_menu_node: the entry in the menu of a node.
-spec menu([{binary(), binary()}], node(), binary()) -> [{binary(), binary()}].
menu(Items, _Node, _Lang) ->
    Items ++ [{?PATH, <<"Megaphone">>}].

%% @doc Hook webadmin_page_node as ejabberd has it since 24.06.
-spec page(term(), node(), #request{}) -> term().
page(_Before, Node, #request{path = [?PATH], q = Query}) -> {stop, content(Node, Query)};
page(Before, _Node, _Request) -> Before.

%% @doc The same as older versions have it.
-spec page(term(), node(), [binary()], [{binary() | nokey, binary()}], binary()) -> term().
page(_Before, Node, [?PATH], Query, _Lang) -> {stop, content(Node, Query)};
page(Before, _Node, _Path, _Query, _Lang) -> Before.

-spec content(node(), [{binary() | nokey, binary()}]) -> [xmlel()].
content(Node, Query) ->
    Place = place(proplists:get_value(<<"behind">>, Query, <<"0">>)),
    try erpc:call(Node, ?MODULE, view, [Place], ?WITHIN) of
        not_running -> [tag(<<"h1">>, "Megaphone"), tag(<<"p">>, "Megaphone does not run on this node.")];
        View -> draw(View, Place)
    catch
        error:{erpc, Reason} -> [tag(<<"h1">>, "Megaphone"), tag(<<"p">>, ["This node does not answer: ", atom_to_list(Reason)])];
        error:{exception, undef, _} -> [tag(<<"h1">>, "Megaphone"), tag(<<"p">>, "This node has no Megaphone of this version.")]
    end.

%% Some versions of ejabberd want a slash at the end of all that is asked for, what is behind `?' included.
-spec place(binary()) -> non_neg_integer().
place(Text) ->
    case string:to_integer(Text) of
        {Place, _} when is_integer(Place), Place >= 0, Place < 1 bsl 64 -> Place;
        _ -> 0
    end.

%% ---- figures ---------------------------------------------------------------------------------------------------

%% @doc What there is on this node; takes half a second, in which rates are measured.
-spec view(non_neg_integer()) -> view() | not_running.
view(Place) ->
    case megaphone_report:is_running() of
        true -> #{
            version => megaphone_report:version(), figures => megaphone_report:figures(), links => rated(megaphone_report:links()),
            memory => megaphone_memory:report(?ASKED), rows => megaphone_report:connections(any, Place, ?ROWS)
        };
        false -> not_running
    end.

-spec rated([megaphone_report:link_row()]) -> [{megaphone_report:link_row(), rates()}].
rated([]) ->
    [];
rated(Links) ->
    Began = erlang:monotonic_time(millisecond),
    timer:sleep(?RATE_OVER),
    Later = megaphone_report:links(),
    Took = (erlang:monotonic_time(millisecond) - Began) / 1000,
    [{Now, rates(Before, Now, Took)} || #{link := Number} = Before <- Links, #{link := Same} = Now <- Later, Same =:= Number].

-spec rates(megaphone_report:link_row(), megaphone_report:link_row(), float()) -> rates().
rates(Before, Now, Took) ->
    maps:from_list([{Key, (maps:get(Key, Now) - maps:get(Key, Before)) / Took} || Key <- [opened, bytes_in, bytes_out]]).

%% ---- the page --------------------------------------------------------------------------------------------------

-spec draw(view(), non_neg_integer()) -> [xmlel()].
draw(#{version := Version, figures := Figures, links := Links, memory := Memory, rows := Rows}, Place) ->
    [
        tag(<<"style">>, style()),
        tag(<<"h1">>, ["Megaphone ", Version]),
        block(cards(maps:from_list(Figures), Memory)),
        heading("Links"), links(Links),
        heading("Memory"), parts(Memory),
        heading("Memory of a user"), users(Memory), note("session: the mean of the client sessions that were asked. Shares: native, of the native tables; table, of the table of sessions; rest, of all else in use."),
        heading("Sweeper"), sweeper(maps:from_list(Figures)),
        heading("Connections"), rows(Rows)
    ] ++ next(Rows) ++ [link("?behind=0/", "first page") || Place > 0].

-spec cards(#{atom() => non_neg_integer()}, megaphone_memory:report()) -> [xmlel()].
cards(#{links := Links, connections := Connections, input_bytes := In, output_bytes := Out}, #{users := #{websocket := Websocket, bosh := Bosh}, others := Others} = Memory) ->
    [
        card("links", count(Links)), card("connections", count(Connections)), card("WebSocket users", count(maps:get(users, Websocket))),
        card("BOSH users", count(maps:get(users, Bosh))), card("other users", count(Others)), card("queued", bytes(In + Out)),
        card("in use", bytes(maps:get(total, Memory)))
    ] ++ [card("resident", bytes(Rss)) || #{rss := Rss} <- [Memory], Rss =/= undefined].

-spec links([{megaphone_report:link_row(), rates()}]) -> xmlel().
links([]) ->
    note("There is no link. A connection manager makes one to a listener with module: megaphone.");
links(Links) ->
    table(["link", "from", "state", "age", "connections", "opened", "in", "out", "undelivered"], [
        [
            count(Number), Peer, case Draining of true -> "draining"; false -> "open" end, duration(Age), count(Connections),
            [count(Opened), " (", rate(maps:get(opened, Rates)), "/s)"], [bytes(In), " (", bytes(maps:get(bytes_in, Rates)), "/s)"],
            [bytes(Out), " (", bytes(maps:get(bytes_out, Rates)), "/s)"], count(Undelivered)
        ]
     || {#{link := Number, peer := Peer, draining := Draining, age := Age, connections := Connections, opened := Opened, bytes_in := In, bytes_out := Out, undelivered := Undelivered}, Rates} <- Links
    ]).

%% Bars beside each other: their length is their share of what is resident, or in use where that is not known.
-spec parts(megaphone_memory:report()) -> xmlel().
parts(#{total := Total, rss := Rss, parts := Parts, beyond := Beyond}) ->
    Whole = case Rss of undefined -> Total; _ -> max(Rss, Total) end,
    table(["part", "bytes", "share"], [[words(Name), bytes(Bytes), bar(Bytes / max(1, Whole))] || {Name, Bytes} <- Parts ++ Beyond]).

-spec users(megaphone_memory:report()) -> xmlel().
users(#{users := Users}) ->
    Keys = [process, native, session, rest],
    table(["kind", "users", "asked", "session", "native", "table", "rest", "together"], [
        [Name, count(Count), count(Asked)] ++ [bytes(maps:get(Key, User)) || Key <- Keys] ++ [bytes(lists:sum([maps:get(Key, User) || Key <- Keys]))]
     || {Kind, Name} <- [{websocket, "WebSocket"}, {bosh, "BOSH"}], #{users := Count, asked := Asked} = User <- [maps:get(Kind, Users)]
    ]).

-spec sweeper(#{atom() => non_neg_integer()}) -> xmlel().
sweeper(Figures) ->
    Named = [
        {"collections of idle processes", sweeper_collections}, {"BOSH sessions of mod_bosh put to sleep", sweeper_bosh_put_to_sleep},
        {"client sessions put to sleep", sweeper_c2s_put_to_sleep}, {"left alone, since not idle", sweeper_left_alone}, {"to be looked at", sweeper_noted}
    ],
    #{sweeper_users := Users, sweeper_samples := Samples, sweeper_freed_by_one := Freed} = Figures,
    Given = [
        ["users tidied up, each time counted", count(Users)],
        [["a user gives back, by ", count(Samples), " that were looked at"], bytes(Freed)],
        ["given back by all, an estimate", bytes(Users * Freed)]
    ],
    table(["since the node was started", ""], Given ++ [[Name, count(maps:get(Key, Figures))] || {Name, Key} <- Named]).

-spec rows([megaphone_report:row()]) -> xmlel().
rows([]) ->
    note("There are no connections from here on.");
rows(Rows) ->
    table(["id", "carries", "client", "TLS", "idle", "queued in", "queued out", "process"], [
        [Id, atom_to_list(Kind), Client, case Tls of true -> "yes"; false -> "no" end, duration(Idle), bytes(In), bytes(Out), Owner]
     || #{id := Id, kind := Kind, client := Client, tls := Tls, idle := Idle, input := In, output := Out, owner := Owner} <- Rows
    ]).

-spec next([megaphone_report:row()]) -> [xmlel()].
next(Rows) when length(Rows) < ?ROWS -> [];
next(Rows) -> [link(["?behind=", integer_to_list(maps:get(behind, lists:last(Rows))), "/"], "next page"), {xmlel, <<"span">>, [], [text(" ")]}].

%% ---- elements --------------------------------------------------------------------------------------------------

%% Without a character that would have to be escaped. Colours are those of the page around it.
-spec style() -> string().
style() ->
    ".mgp-cards{display:flex;flex-wrap:wrap;gap:.8em;margin:1em 0}"
    ".mgp-card{border:1px solid rgba(128,128,128,.4);border-radius:8px;padding:.6em 1em;min-width:7em}"
    ".mgp-card b{display:block;font-size:1.5em}"
    ".mgp table{border-collapse:collapse;margin:.5em 0}"
    ".mgp th{text-align:left;font-weight:600;opacity:.75}"
    ".mgp th,.mgp td{padding:.25em .8em;border-bottom:1px solid rgba(128,128,128,.25);white-space:nowrap}"
    ".mgp{overflow-x:auto}"
    ".mgp-bar{background:rgba(128,128,128,.2);border-radius:3px;width:16em;height:.8em}"
    ".mgp-bar div{background:rgb(42,120,142);border-radius:3px;height:100%}".

-spec block([xmlel()]) -> xmlel().
block(Cards) ->
    {xmlel, <<"div">>, [{<<"class">>, <<"mgp-cards">>}], Cards}.

-spec card(iodata(), iodata()) -> xmlel().
card(Name, Value) ->
    {xmlel, <<"div">>, [{<<"class">>, <<"mgp-card">>}], [tag(<<"b">>, Value), text(Name)]}.

-spec heading(iodata()) -> xmlel().
heading(Text) ->
    tag(<<"h3">>, Text).

-spec note(iodata()) -> xmlel().
note(Text) ->
    tag(<<"p">>, Text).

-spec table([iodata()], [[iodata() | xmlel()]]) -> xmlel().
table(Head, Rows) ->
    Cell = fun
        (#xmlel{} = Element) -> {xmlel, <<"td">>, [], [Element]};
        (Text) -> tag(<<"td">>, Text)
    end,
    Table = {xmlel, <<"table">>, [], [
        {xmlel, <<"thead">>, [], [{xmlel, <<"tr">>, [], [tag(<<"th">>, Name) || Name <- Head]}]},
        {xmlel, <<"tbody">>, [], [{xmlel, <<"tr">>, [], [Cell(Value) || Value <- Row]} || Row <- Rows]}
    ]},
    {xmlel, <<"div">>, [{<<"class">>, <<"mgp">>}], [Table]}.

-spec bar(number()) -> xmlel().
bar(Share) ->
    Width = iolist_to_binary(io_lib:format("width:~.1f%", [100.0 * min(1.0, max(0.0, float(Share)))])),
    {xmlel, <<"div">>, [{<<"class">>, <<"mgp-bar">>}], [{xmlel, <<"div">>, [{<<"style">>, Width}], []}]}.

-spec link(iodata(), iodata()) -> xmlel().
link(To, Text) ->
    {xmlel, <<"a">>, [{<<"href">>, iolist_to_binary(To)}], [text(Text)]}.

-spec tag(binary(), iodata()) -> xmlel().
tag(Name, Text) ->
    {xmlel, Name, [], [text(Text)]}.

-spec text(iodata()) -> {xmlcdata, binary()}.
text(Text) ->
    {xmlcdata, iolist_to_binary(Text)}.

%% ---- texts -----------------------------------------------------------------------------------------------------

-spec words(atom()) -> string().
words(Name) ->
    [case Char of $_ -> $\s; _ -> Char end || Char <- atom_to_list(Name)].

%% With a comma between thousands.
-spec count(integer()) -> string().
count(Number) when Number < 0 -> [$- | count(-Number)];
count(Number) when Number < 1000 -> integer_to_list(Number);
count(Number) -> count(Number div 1000) ++ [$, | string:right(integer_to_list(Number rem 1000), 3, $0)].

-spec rate(number()) -> iodata().
rate(Number) ->
    float_to_list(float(Number), [{decimals, 1}]).

-spec bytes(number()) -> iodata().
bytes(Bytes) when abs(Bytes) >= 1.0e9 -> [float_to_list(Bytes / 1.0e9, [{decimals, 2}]), " GB"];
bytes(Bytes) when abs(Bytes) >= 1.0e6 -> [float_to_list(Bytes / 1.0e6, [{decimals, 2}]), " MB"];
bytes(Bytes) when abs(Bytes) >= 1.0e3 -> [float_to_list(Bytes / 1.0e3, [{decimals, 2}]), " kB"];
bytes(Bytes) -> [integer_to_list(round(Bytes)), " B"].

-spec duration(non_neg_integer()) -> string().
duration(Seconds) when Seconds < 120 -> count(Seconds) ++ " s";
duration(Seconds) when Seconds < 7200 -> count(Seconds div 60) ++ " min";
duration(Seconds) when Seconds < 172800 -> count(Seconds div 3600) ++ " h";
duration(Seconds) -> count(Seconds div 86400) ++ " d".
