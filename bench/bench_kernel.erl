%% What the kernel holds for sockets. It keeps no count for one process: these are those of all, of both ends.
-module(bench_kernel).

-export([sockets/0, snapshot/0, room/0]).
-export_type([snapshot/0]).

-type snapshot() :: #{
    %% Bytes of what a connection takes in the slabs; 0 where that may not be read.
    sockets := non_neg_integer(),
    %% Bytes of all slabs.
    slab := non_neg_integer(),
    %% TCP sockets in use, and bytes of what lies in them.
    tcp := non_neg_integer(),
    tcp_buffers := non_neg_integer()
}.

-define(SLABS, [<<"TCP">>, <<"sock_inode_cache">>, <<"filp">>, <<"eventpoll_epi">>, <<"eventpoll_pwq">>, <<"ep_head">>]).
-define(PAGE, 4096).

%% @doc Bytes in the slabs that connections are made of; 0 where that may not be read.
-spec sockets() -> non_neg_integer().
sockets() ->
    case file:read_file("/proc/slabinfo") of
        {ok, Text} ->
            Lines = [binary:split(Line, <<" ">>, [global, trim_all]) || Line <- binary:split(Text, <<"\n">>, [global])],
            lists:sum([
                binary_to_integer(Active) * binary_to_integer(Size)
             || [Name, Active, _All, Size | _] <- Lines, lists:member(Name, ?SLABS)
            ]);
        {error, _} ->
            0
    end.

-spec snapshot() -> snapshot().
snapshot() ->
    #{
        sockets => sockets(),
        slab => number("/proc/meminfo", "^Slab:\\s+(\\d+)") * 1024,
        tcp => number("/proc/net/sockstat", "^TCP: inuse (\\d+)"),
        tcp_buffers => number("/proc/net/sockstat", "^TCP: .* mem (\\d+)") * ?PAGE
    }.

%% @doc How many connections with both ends on this machine it has descriptors and memory for, and why not more.
-spec room() -> {pos_integer(), string()}.
room() ->
    Descriptors = number("/proc/sys/fs/file-max", "(\\d+)") div 2,
    %% 10 kB of the kernel, a few hundred bytes of the programs; the rest is for ejabberd.
    Memory = round(max(0, bench_vm:gigabytes() - 2) * 1.0e9 / 11000),
    min({Descriptors, "descriptors of the system"}, {Memory, "memory"}).

-spec number(file:filename(), string()) -> non_neg_integer().
number(File, Pattern) ->
    {ok, Text} = file:read_file(File),
    {match, [Digits]} = re:run(Text, Pattern, [multiline, {capture, all_but_first, list}]),
    list_to_integer(Digits).
