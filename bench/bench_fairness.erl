%% What a large download does to a chat beside it: the same users write to each other at the same pace, alone and while 100 MB
%% are fetched without pause. Through the connection manager both go over one link; to ejabberd's own listener each has a
%% connection of its own, so that what is added there is what the machine has no time for.
-module(bench_fairness).

-export([run/1]).

-type options() :: #{quick := boolean(), settings := #{string() => string()}, _ => _}.

-record(plan, {
    kinds :: [string()],
    users :: pos_integer(),
    rate :: pos_integer(),
    seconds :: pos_integer(),
    dir :: file:filename(),
    vm :: [string()],
    %% Of what is downloaded.
    size :: pos_integer(),
    crc :: non_neg_integer()
}).

-type chat() :: #{messages := pos_integer(), p50_us := number(), p99_us := number(), max_us := number()}.
-type outcome() :: #{alone := chat(), beside := chat(), downloads := pos_integer(), mb_per_second := float()}.

-define(MB, 1048576).

%% Milliseconds that a download may add to what 99 of a hundred messages take at most. On one machine it takes processor time
%% from all.
-define(ADDED, 20).

%% Seconds before it is looked at.
-define(WARM_UP, 2).

-define(WITHIN, 10000).
%% That a file is asked for.
-define(TRIES, 20).

%% @doc One report.
-spec run(options()) -> bench_report:report().
run(Options) ->
    Plan = plan(Options),
    Results = [{Kind, measure(Kind, Plan)} || Kind <- Plan#plan.kinds],
    #{
        name => <<"fairness">>,
        sizes => #{
            users => Plan#plan.users, messages_per_second => Plan#plan.rate, seconds => Plan#plan.seconds,
            download_bytes => Plan#plan.size, vm_options => list_to_binary(lists:join(" ", Plan#plan.vm))
        },
        results => maps:from_list([{list_to_binary(Kind), Outcome} || {Kind, Outcome} <- Results]),
        goals => [
            bench_report:goal(["p99 of a message that a download adds, ", Kind], "ms", added(Outcome) / 1000, at_most, ?ADDED)
         || {Kind, Outcome} <- Results, not is_stock(Kind)
        ],
        tables => [table(Results, Plan)],
        charts => [chart(Results)]
    }.

-spec plan(options()) -> #plan{}.
plan(#{quick := Quick, settings := Settings}) ->
    Get = fun(Name, Normal, Short) ->
        list_to_integer(maps:get(Name, Settings, case Quick of true -> Short; false -> Normal end))
    end,
    Dir = os:getenv("BENCH_DIR", "."),
    Size = 100 * ?MB,
    #plan{
        kinds = string:lexemes(maps:get("kind", Settings, "stock-ws,ws"), ","),
        users = Get("users", "100", "20"),
        rate = Get("messages", "200", "50"),
        seconds = Get("chat-seconds", "20", "3"),
        dir = Dir,
        vm = bench_vm:options(maps:get("vm", Settings, "quiet")),
        size = Size,
        crc = file(filename:join([Dir, "files", "large"]), Size div ?MB)
    }.

%% Writes so many MB of which no two are alike; their checksum.
-spec file(file:filename(), pos_integer()) -> non_neg_integer().
file(Name, Count) ->
    ok = filelib:ensure_dir(Name),
    {Noise, _} = rand:bytes_s(?MB - 4, rand:seed_s(exsss, 1)),
    {ok, File} = file:open(Name, [write, raw]),
    Crc = lists:foldl(
        fun(Number, Before) ->
            Block = <<Number:32, Noise/binary>>,
            ok = file:write(File, Block),
            erlang:crc32(Before, Block)
        end,
        erlang:crc32(<<>>),
        lists:seq(1, Count)
    ),
    ok = file:close(File),
    Crc.

-spec is_stock(string()) -> boolean().
is_stock("stock-" ++ _) -> true;
is_stock(_) -> false.

%% Each with a fresh ejabberd.
-spec measure(string(), #plan{}) -> outcome().
measure(Kind, #plan{dir = Dir, users = Users, seconds = Seconds} = Plan) ->
    bench_vm:say("~s", [Kind]),
    Ejabberd = bench_users_node:start(erlang:unique_integer([positive]), Users, #{
        profile => bare, idle_memory => none, idle_after => none, sweep_all => false, fullsweep => false, vm => Plan#plan.vm,
        dir => Dir, files => filename:join(Dir, "files"), megaphone => not is_stock(Kind)
    }),
    Fronts = [bench_front:start("plain", {127, 0, 0, 1}, Ejabberd, Dir) || not is_stock(Kind)],
    Target = target(Ejabberd, Fronts),
    Load = load(lists:last(string:split(Kind, "stock-")), Target, Plan),
    _ = chat(Load, ?WARM_UP, Plan),
    Alone = chat(Load, Seconds, Plan),
    Download = start_download(Target, Plan),
    Beside = chat(Load, Seconds, Plan),
    {Count, Rate} = end_download(Download),
    bench_program:stop(Load),
    lists:foreach(fun bench_front:stop/1, Fronts),
    ok = bench_users_node:stop(Ejabberd),
    #{alone => Alone, beside => Beside, downloads => Count, mb_per_second => Rate}.

-spec target(bench_users_node:ejabberd(), [bench_front:front()]) -> string().
target(#{listeners := Listeners}, []) -> element(2, lists:keyfind(ejabberd_http, 1, Listeners));
target(_Ejabberd, [#{target := Target}]) -> Target.

-spec load(string(), string(), #plan{}) -> bench_program:program().
load(Kind, Target, #plan{users = Users}) ->
    Load = bench_program:start(bench_program:built("megaphone-load"), [
        "--kind", Kind, "--target", Target, "--users", integer_to_list(Users), "--pace", "100"
    ]),
    _ = bench_program:await(Load, "\"event\":\"ready\"", 60000 + Users * 20),
    Load.

%% The generator fails if a message is lost, doubled or out of order.
-spec chat(bench_program:program(), pos_integer(), #plan{}) -> chat().
chat(Load, Seconds, #plan{rate = Rate}) ->
    ok = bench_program:tell(Load, io_lib:format("chat {\"messages_per_second\":~b,\"duration\":~b}", [Rate, Seconds])),
    Line = bench_program:await(Load, "\"event\":\"chat\"", (Seconds + 60) * 1000),
    [Sent, Received, P50, P99, Max] = [bench_program:number(Name, Line) || Name <- ["sent", "received", "p50", "p99", "max"]],
    Sent =:= Received andalso Sent > 0 orelse error({messages_went_wrong, Line}),
    #{messages => Sent, p50_us => P50, p99_us => P99, max_us => Max}.

%% ---- the download ----------------------------------------------------------------------------------------------

%% Fetches the file again and again; returns when bytes come.
-spec start_download(string(), #plan{}) -> pid().
start_download(Target, Plan) ->
    [Host, Port] = string:split(Target, ":"),
    {ok, Address} = inet:parse_address(Host),
    Self = self(),
    Download = spawn_link(fun() -> download({Address, list_to_integer(Port)}, Plan, Self, []) end),
    receive {Download, runs} -> Download after ?WITHIN -> error(no_download) end.

%% When the one that runs is whole: how many there were, and MB in a second.
-spec end_download(pid()) -> {pos_integer(), float()}.
end_download(Download) ->
    Download ! {finish, self()},
    receive
        {Download, Times} -> {length(Times), length(Times) * 100 / (lists:sum(Times) / 1000000)}
    after 12 * ?WITHIN -> error(download_does_not_end)
    end.

-spec download({inet:ip_address(), inet:port_number()}, #plan{}, pid(), [pos_integer()]) -> ok.
download(Address, Plan, Starter, Times) ->
    Began = erlang:monotonic_time(microsecond),
    ok = fetch(Address, Plan, [Starter || Times =:= []], ?TRIES),
    All = [erlang:monotonic_time(microsecond) - Began | Times],
    receive
        {finish, Asker} ->
            Asker ! {self(), All},
            ok
    after 0 -> download(Address, Plan, Starter, All)
    end.

%% Every byte is the one that was written. Where ejabberd's own listener sends a file before it owns the socket (`not_owner'), it
%% closes the connection behind the head: then it is asked again.
-spec fetch({inet:ip_address(), inet:port_number()}, #plan{}, [pid()], pos_integer()) -> ok.
fetch({Ip, Port} = Address, #plan{size = Size, crc = Crc} = Plan, Tell, Tries) ->
    {ok, Socket} = gen_tcp:connect(Ip, Port, [binary, {active, false}, {packet, http_bin}, {buffer, 65536}]),
    ok = gen_tcp:send(Socket, "GET /files/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    {ok, {http_response, _, 200, _}} = gen_tcp:recv(Socket, 0, ?WITHIN),
    ok = skip_head(Socket),
    _ = [Pid ! {self(), runs} || Pid <- Tell],
    ok = inet:setopts(Socket, [{packet, raw}]),
    Sum = sum(Socket, 0, erlang:crc32(<<>>)),
    ok = gen_tcp:close(Socket),
    case Sum of
        {Size, Crc} -> ok;
        {0, _} when Tries > 1 -> fetch(Address, Plan, [], Tries - 1)
    end.

-spec skip_head(gen_tcp:socket()) -> ok.
skip_head(Socket) ->
    case gen_tcp:recv(Socket, 0, ?WITHIN) of
        {ok, http_eoh} -> ok;
        {ok, {http_header, _, _, _, _}} -> skip_head(Socket)
    end.

-spec sum(gen_tcp:socket(), non_neg_integer(), non_neg_integer()) -> {non_neg_integer(), non_neg_integer()}.
sum(Socket, Size, Crc) ->
    case gen_tcp:recv(Socket, 0, ?WITHIN) of
        {ok, Bytes} -> sum(Socket, Size + byte_size(Bytes), erlang:crc32(Crc, Bytes));
        {error, closed} -> {Size, Crc}
    end.

%% ---- the report ------------------------------------------------------------------------------------------------

-spec added(outcome()) -> number().
added(#{alone := #{p99_us := Alone}, beside := #{p99_us := Beside}}) ->
    Beside - Alone.

-spec table([{string(), outcome()}], #plan{}) -> bench_report:table().
table(Results, #plan{users = Users, rate = Rate, seconds = Seconds, vm = Vm}) ->
    {
        io_lib:format("~b users write ~b messages a second for ~b s, alone and beside downloads of 100 MB; ejabberd with ~s (ms)", [
            Users, Rate, Seconds, lists:join(" ", Vm)
        ]),
        ["", "alone: median", "p99", "max", "beside: median", "p99", "max", "downloads, each checked", "MB/s"],
        [
            [Kind] ++ times(Alone) ++ times(Beside) ++ [bench_report:thousands(Count), bench_report:rounded(Speed)]
         || {Kind, #{alone := Alone, beside := Beside, downloads := Count, mb_per_second := Speed}} <- Results
        ]
    }.

-spec times(chat()) -> [iodata()].
times(Chat) ->
    [bench_report:rounded(maps:get(Key, Chat) / 1000) || Key <- [p50_us, p99_us, max_us]].

-spec chart([{string(), outcome()}]) -> bench_svg:chart().
chart(Results) ->
    #{
        title => "Time until a message arrives, alone and beside a download",
        unit => "ms",
        scale => linear,
        groups => [Kind || {Kind, _} <- Results],
        series => [
            {Name, [maps:get(Key, maps:get(Which, Outcome)) / 1000 || {_, Outcome} <- Results]}
         || {Name, Which, Key} <- [
                {"alone, median", alone, p50_us}, {"beside, median", beside, p50_us}, {"alone, p99", alone, p99_us}, {"beside, p99", beside, p99_us}
            ]
        ]
    }.
