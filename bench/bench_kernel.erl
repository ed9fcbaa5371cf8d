%% What the kernel holds for sockets. It keeps no count for one process: these are those of all, of both ends.
-module(bench_kernel).

-export([sockets/0, snapshot/0, forget_files/0, memory/0, caches/0, page_tables/1, port_bytes/0, room/0, most/0]).
-export_type([snapshot/0, memory/0, caches/0]).

-type snapshot() :: #{
    %% Bytes of what a connection takes in the slabs; 0 where that may not be read.
    sockets := non_neg_integer(),
    %% Bytes of all slabs.
    slab := non_neg_integer(),
    %% TCP sockets in use, and bytes of what lies in them.
    tcp := non_neg_integer(),
    tcp_buffers := non_neg_integer()
}.

-type memory() :: #{
    %% Bytes of memory that is neither free, nor a process', nor a copy of what is in files.
    all := non_neg_integer(),
    %% Of it, bytes of all slabs, and of what lies in TCP sockets.
    slab := non_neg_integer(),
    tcp_buffers := non_neg_integer(),
    %% TCP sockets in use.
    tcp := non_neg_integer(),
    %% Bytes that could still be had.
    available := non_neg_integer()
}.

%% Of each slab cache, its objects and the bytes that it holds for them. Caches of one kind may be one, under one of their names.
-type caches() :: #{binary() => {Objects :: non_neg_integer(), Bytes :: non_neg_integer()}}.

-define(SLABS, [<<"TCP">>, <<"sock_inode_cache">>, <<"filp">>, <<"eventpoll_epi">>, <<"eventpoll_pwq">>, <<"ep_head">>]).
-define(PAGE, 4096).

%% @doc Bytes in the slabs that connections are made of; 0 where that may not be read.
-spec sockets() -> non_neg_integer().
sockets() ->
    lists:sum([
        binary_to_integer(Active) * binary_to_integer(Size)
     || [Name, Active, _All, Size | _] <- slabs(), lists:member(Name, ?SLABS)
    ]).

%% @doc What is there at rest; takes a moment, and has the kernel forget files first (forget_files/0).
-spec snapshot() -> snapshot().
snapshot() ->
    ok = forget_files(),
    (counters())#{sockets => sockets()}.

%% @doc Lets the kernel forget the names and inodes of files that nobody uses, if this may be done here. It would give them back when
%% it needs room; whoever looks at what descriptors a process has makes some for each connection, which are none of its cost.
-spec forget_files() -> ok.
forget_files() ->
    _ = file:write_file("/proc/sys/vm/drop_caches", "2"),
    ok.

%% @doc All of the kernel's memory: what is left of the machine's when what is free, of processes, and of files is taken away. So
%% nothing can hide in it that no counter tells of.
-spec memory() -> memory().
memory() ->
    (counters())#{
        all => meminfo("MemTotal") - lists:sum([meminfo(Name) || Name <- ["MemFree", "Buffers", "Cached", "AnonPages"]]),
        available => meminfo("MemAvailable")
    }.

%% @doc Its slab caches; none where they may not be read.
-spec caches() -> caches().
caches() ->
    maps:from_list([
        {Name, {binary_to_integer(Active), binary_to_integer(All) div binary_to_integer(PerSlab) * binary_to_integer(Pages) * ?PAGE}}
     || [Name, Active, All, _Size, PerSlab, Pages, <<":">> | _] <- slabs()
    ]).

%% The words of each line about slabs; none where they may not be read.
-spec slabs() -> [[binary()]].
slabs() ->
    case file:read_file("/proc/slabinfo") of
        {ok, Text} -> [binary:split(Line, <<" ">>, [global, trim_all]) || Line <- binary:split(Text, <<"\n">>, [global])];
        {error, _} -> []
    end.

-spec counters() -> #{slab := non_neg_integer(), tcp := non_neg_integer(), tcp_buffers := non_neg_integer()}.
counters() ->
    #{
        slab => meminfo("Slab"),
        tcp => number("/proc/net/sockstat", "^TCP: inuse (\\d+)"),
        tcp_buffers => number("/proc/net/sockstat", "^TCP: .* mem (\\d+)") * ?PAGE
    }.

%% Bytes.
-spec meminfo(string()) -> non_neg_integer().
meminfo(Name) ->
    number("/proc/meminfo", ["^", Name, ":\\s+(\\d+)"]) * 1024.

%% @doc Bytes of the tables that map the memory of a process.
-spec page_tables(pos_integer()) -> non_neg_integer().
page_tables(OsPid) ->
    number(["/proc/", integer_to_list(OsPid), "/status"], "^VmPTE:\\s+(\\d+)") * 1024.

%% @doc Bytes that an address and port take which one socket has for itself; 0 where that may not be read.
-spec port_bytes() -> non_neg_integer().
port_bytes() ->
    case file:read_file("/sys/kernel/slab/tcp_bind2_bucket/object_size") of
        {ok, Text} -> binary_to_integer(string:trim(Text));
        {error, _} -> 0
    end.

%% @doc How many connections with both ends on this machine it has descriptors and memory for, and why not more.
-spec room() -> {pos_integer(), string()}.
room() ->
    %% 10 kB of the kernel, a few hundred bytes of the programs; the rest is for ejabberd.
    Memory = round(max(0, bench_vm:gigabytes() - 2) * 1.0e9 / 11000),
    min(most(), {Memory, "memory"}).

%% @doc The same without a look at memory: descriptors of the system, and places in event queues, one for each end.
-spec most() -> {pos_integer(), string()}.
most() ->
    min(
        {number("/proc/sys/fs/file-max", "(\\d+)") div 2, "descriptors of the system (fs.file-max)"},
        {number("/proc/sys/fs/epoll/max_user_watches", "(\\d+)") div 2, "watches of event queues (fs.epoll.max_user_watches)"}
    ).

-spec number(iodata(), iodata()) -> non_neg_integer().
number(File, Pattern) ->
    {ok, Text} = file:read_file(File),
    {match, [Digits]} = re:run(Text, Pattern, [multiline, {capture, all_but_first, list}]),
    list_to_integer(Digits).
