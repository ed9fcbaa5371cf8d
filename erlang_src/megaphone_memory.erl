%% @private
%% @doc Where the memory of the node is, by parts and by user.
%%
%% The parts of a report add up to `erlang:memory(total)' and, with what the allocators hold beyond that and what the program
%% itself takes, to the resident memory that the kernel tells. What each is:
%% <ul>
%% <li>measured: client sessions, by asking the processes, of each kind as many as the caller says; when there are more, their number
%%     times the mean of those. Tables, ETS, binaries, code: the VM's own counters, and those of the NIF.</li>
%% <li>differences: `other_processes' and `other_system' are what the VM counts beyond the parts that have a name (its table of
%%     processes is in the first: 12 bytes for each that option `+P' allows);
%%     `allocator_slack' is resident memory that the VM does not use, as far as its allocators hold so much; `unaccounted' is the rest,
%%     such as the memory of C libraries and the stacks of threads.</li>
%% <li>shares: per user, the connection table by the connections of a kind, the table of sessions by their number, and all the rest,
%%     divided by all users.</li>
%% </ul>
-module(megaphone_memory).

-export([report/1]).
-export_type([report/0, part/0, user/0]).

-type part() :: {atom(), integer()}.
%% Bytes.

-type user() :: #{
    %% Users of this kind, and how many of their client sessions were asked.
    users := non_neg_integer(), asked := non_neg_integer(),
    %% Bytes of one: its client session, its part of the native tables, of the table of sessions, and of all the rest.
    process := number(), native := number(), session := number(), rest := number()
}.

-type report() :: #{
    total := non_neg_integer(),
    rss := non_neg_integer() | undefined,
    %% They add up to `total' ...
    parts := [part()],
    %% ... and these, together with `total', to `rss'. Empty where the kernel does not tell it.
    beyond := [part()],
    users := #{megaphone_walk:kind() := user()},
    %% Sessions of users who are connected without Megaphone.
    others := non_neg_integer()
}.

%% What is counted of client sessions.
-record(sum, {asked = 0 :: non_neg_integer(), bytes = 0 :: non_neg_integer()}).
-type sums() :: #{megaphone_walk:kind() := #sum{}}.

%% Users that are looked at between two native calls.
-define(SLICE, 256).

%% @doc Asks at most so many client sessions of each kind. Cost: some microseconds for each of them, in the caller, and 50 ms on a
%% dirty scheduler for a million connections.
-spec report(Most :: pos_integer()) -> report().
report(Most) ->
    Stats = megaphone_nif:stats(),
    #{sessions := Bosh, memory := BoshTable} = megaphone_nif:bosh_info(),
    Sums = measured(megaphone_walk:start(), Most, #{websocket => #sum{}, bosh => #sum{}}),
    Memory = maps:from_list(erlang:memory()),
    Users = #{websocket => counted(maps:get(xmpp, Stats), maps:get(websocket, Sums), Most), bosh => counted(Bosh, maps:get(bosh, Sums), Most)},
    Parts = parts(Memory, Stats, BoshTable, Sums, Users),
    Total = maps:get(total, Memory),
    Status = status(),
    #{
        total => Total,
        rss => case Status of undefined -> undefined; _ -> kilobytes("VmRSS", Status) end,
        parts => Parts,
        beyond => beyond(Status, Total),
        users => users(Users, Sums, Parts, Stats),
        others => max(0, sessions() - lists:sum(maps:values(Users)))
    }.

%% ---- parts -----------------------------------------------------------------------------------------------------

%% Queued input of some size is in binaries of the VM, which count it, too.
-spec parts(#{atom() => non_neg_integer()}, #{atom() => non_neg_integer()}, non_neg_integer(), sums(), #{megaphone_walk:kind() := non_neg_integer()}) -> [part()].
parts(Memory, #{memory := Table, input_bytes := Input}, BoshTable, Sums, Users) ->
    Of = fun(Key) -> maps:get(Key, Memory) end,
    [Websocket, Bosh] = [round(maps:get(Kind, Users) * mean(maps:get(Kind, Sums))) || Kind <- [websocket, bosh]],
    Connections = max(0, Table - Input),
    Sessions = session_table(),
    Named = [Of(binary), Of(ets), Of(atom), Of(code), Connections, BoshTable],
    [
        {websocket_processes, Websocket},
        {bosh_processes, Bosh},
        {other_processes, Of(processes) - Websocket - Bosh},
        {connection_table, Connections},
        {bosh_table, BoshTable},
        {session_table, Sessions},
        {other_ets, Of(ets) - Sessions},
        {binaries, Of(binary)},
        {code, Of(code)},
        {atoms, Of(atom)},
        {other_system, Of(system) - lists:sum(Named)}
    ].

%% What the kernel counts beyond what the VM has in use. Native code is there twice where the JIT may not write what it runs: both
%% mappings count, and the VM's own counter has one. Of what allocators hold some pages may not be resident, so what they hold is
%% no more than the most that may be theirs.
-spec beyond(binary() | undefined, non_neg_integer()) -> [part()].
beyond(undefined, _Total) ->
    [];
beyond(Status, Total) ->
    Files = kilobytes("RssFile", Status),
    Twice = kilobytes("RssShmem", Status) div 2,
    Left = kilobytes("VmRSS", Status) - Total - Files - Twice,
    Slack = max(0, min(Left, slack() + segment_cache())),
    [{allocator_slack, Slack}, {program_files, Files}, {code_mapped_twice, Twice}, {unaccounted, Left - Slack}].

%% Bytes that allocators hold and that are not in use.
-spec slack() -> non_neg_integer().
slack() ->
    lists:sum([slack(Name) || Name <- erlang:system_info(alloc_util_allocators)]).

-spec slack(atom()) -> non_neg_integer().
slack(Name) ->
    case erlang:system_info({allocator_sizes, Name}) of
        false -> 0;
        Instances -> lists:sum([free(Sizes) || {instance, _, Kinds} <- Instances, {Kind, Sizes} <- Kinds, lists:member(Kind, [mbcs, mbcs_pool, sbcs])])
    end.

%% Bytes that were taken of the system for allocators, given back by them, and kept for the next time.
-spec segment_cache() -> non_neg_integer().
segment_cache() ->
    Mapped = [
        Bytes
     || {default_mmap, Of} <- memory_of(erts_mmap), {os, System} <- Of, {sizes, Sizes} <- System, {used, Bytes} <- Sizes
    ],
    Used = [
        element(2, Size)
     || {instance, _, Of} <- memory_of(mseg_alloc), {memkind, Kind} <- Of, {status, Status} <- Kind, Size <- Status,
        element(1, Size) =:= segments_size
    ],
    max(0, lists:sum(Mapped) - lists:sum(Used)).

-spec memory_of(atom()) -> [tuple()].
memory_of(Name) ->
    case erlang:system_info({allocator, Name}) of
        Known when is_list(Known) -> Known;
        _ -> []
    end.

-spec free([tuple()]) -> integer().
free(Sizes) ->
    Used = [element(2, lists:keyfind(size, 1, Block)) || {blocks, Blocks} <- Sizes, {_Type, Block} <- Blocks],
    element(2, lists:keyfind(carriers_size, 1, Sizes)) - lists:sum(Used).

%% What Linux tells of this process.
-spec status() -> binary() | undefined.
status() ->
    case file:read_file("/proc/self/status") of
        {ok, Text} -> Text;
        {error, _} -> undefined
    end.

-spec kilobytes(string(), binary()) -> non_neg_integer().
kilobytes(Name, Text) ->
    case re:run(Text, [$^, Name, ":\\s+([0-9]+) kB"], [multiline, {capture, all_but_first, binary}]) of
        {match, [Number]} -> 1024 * binary_to_integer(Number);
        nomatch -> 0
    end.

%% ---- users -----------------------------------------------------------------------------------------------------

-spec measured(megaphone_walk:place() | ended, pos_integer(), sums()) -> sums().
measured(ended, _Most, Sums) ->
    Sums;
measured(Place, Most, Sums) ->
    {Users, Next} = megaphone_walk:step(Place, ?SLICE),
    Counted = lists:foldl(fun(User, Before) -> add(User, Most, Before) end, Sums, Users),
    measured(further(Next, Most, Counted), Most, Counted).

%% Those of a kind of which enough were asked are passed over.
-spec further(megaphone_walk:place() | ended, pos_integer(), sums()) -> megaphone_walk:place() | ended.
further(ended, _Most, _Sums) ->
    ended;
further(Place, Most, Sums) ->
    Kind = megaphone_walk:kind(Place),
    case Sums of
        #{Kind := #sum{asked = Asked}} when Asked >= Most -> megaphone_walk:next_kind(Place);
        _ -> Place
    end.

-spec add(megaphone_walk:user(), pos_integer(), sums()) -> sums().
add({Kind, Pid, _Link}, Most, Sums) ->
    case Sums of
        #{Kind := #sum{asked = Asked, bytes = Bytes}} when Asked < Most ->
            case process_info(Pid, memory) of
                {memory, Memory} -> Sums#{Kind := #sum{asked = Asked + 1, bytes = Bytes + Memory}};
                undefined -> Sums
            end;
        _ ->
            Sums
    end.

%% How many users of a kind there are. Some connections may have no session yet, or none any more: when all were asked it is these.
-spec counted(non_neg_integer(), #sum{}, pos_integer()) -> non_neg_integer().
counted(_Connections, #sum{asked = Asked}, Most) when Asked < Most -> Asked;
counted(Connections, #sum{asked = Asked}, _Most) -> max(Connections, Asked).

-spec mean(#sum{}) -> number().
mean(#sum{asked = 0}) -> 0;
mean(#sum{asked = Asked, bytes = Bytes}) -> Bytes / Asked.

-spec users(#{megaphone_walk:kind() := non_neg_integer()}, sums(), [part()], #{atom() => non_neg_integer()}) -> #{megaphone_walk:kind() := user()}.
users(Users, Sums, Parts, #{connections := Connections, xmpp := Xmpp, local := Local}) ->
    Part = fun(Name) -> proplists:get_value(Name, Parts) end,
    Share = fun(Name, Count) -> Part(Name) / max(1, Count) end,
    Session = Share(session_table, sessions()),
    Rest = lists:sum([Bytes || {Name, Bytes} <- Parts, not lists:member(Name, [websocket_processes, bosh_processes, connection_table, bosh_table, session_table])]),
    All = max(1, sessions()),
    #{bosh := Bosh} = Users,
    Requests = max(0, Connections - Xmpp - Local),
    Slot = Share(connection_table, Connections),
    Native = #{websocket => Slot, bosh => Share(bosh_table, Bosh) + Slot * Requests / max(1, Bosh)},
    maps:map(
        fun(Kind, Count) ->
            #sum{asked = Asked} = Sum = maps:get(Kind, Sums),
            #{users => Count, asked => Asked, process => mean(Sum), native => when_any(Count, maps:get(Kind, Native)), session => Session, rest => Rest / All}
        end,
        Users
    ).

-spec when_any(non_neg_integer(), number()) -> number().
when_any(0, _Bytes) -> 0;
when_any(_Count, Bytes) -> Bytes.

%% ejabberd's table of sessions in memory, where it keeps one.
-spec sessions() -> non_neg_integer().
sessions() ->
    case ets:info(session, size) of
        undefined -> 0;
        Size -> Size
    end.

-spec session_table() -> non_neg_integer().
session_table() ->
    case ets:info(session, memory) of
        undefined -> 0;
        Words -> Words * erlang:system_info(wordsize)
    end.
