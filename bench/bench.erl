%% Runs benchmarks by name and shows what they found. Called by bench/run, which builds what is measured.
-module(bench).

-export([main/0]).

-type options() :: #{
    names := [string()],
    quick := boolean(),
    json := boolean(),
    record := none | file:filename(),
    settings := #{string() => string()}
}.

%% @doc Arguments of the node: names of benchmarks, `--quick', `--json', `--record=DIRECTORY'; further ones, as
%% `--NAME=VALUE', are settings of a benchmark. The node ends with 1 if a
%% benchmark failed, which it does when a result is wrong. A missed goal is no failure.
-spec main() -> no_return().
main() ->
    Options = options(init:get_plain_arguments(), #{names => [], quick => false, json => false, record => none, settings => #{}}),
    try run(Options) of
        ok ->
            %% bench/run looks for it: a virtual machine that is told to stop ends with 0 as well.
            ok = file:write_file(filename:join(os:getenv("BENCH_DIR", "."), "done"), <<>>),
            halt(0)
    catch
        Class:Reason:Stack ->
            bench_vm:say("failed: ~tp: ~tp~n~tp", [Class, Reason, Stack]),
            halt(1)
    end.

-spec options([string()], options()) -> options().
options([], Options) -> Options;
options(["--quick" | Others], Options) -> options(Others, Options#{quick := true});
options(["--json" | Others], Options) -> options(Others, Options#{json := true});
options(["--record=" ++ Directory | Others], Options) -> options(Others, Options#{record := Directory});
options(["--" ++ Setting | Others], #{settings := Settings} = Options) ->
    [Name | Value] = string:split(Setting, "="),
    options(Others, Options#{settings := Settings#{Name => lists:append(Value)}});
options([Name | Others], #{names := Names} = Options) -> options(Others, Options#{names := Names ++ [Name]}).

-spec run(options()) -> ok.
run(#{names := Names, json := Json, record := Record} = Options) ->
    Found = [{Name, reports(Name, Options)} || Name <- Names],
    Reports = lists:append([Of || {_, Of} <- Found]),
    io:put_chars(text(Reports)),
    _ = Record =:= none orelse [record(Record, title(Name, Options), Of) || {Name, Of} <- Found],
    _ = Json andalso io:put_chars([bench_report:json(Reports), $\n]),
    ok.

%% The names come from bench/run, which knows them.
-spec reports(string(), options()) -> [bench_report:report()].
reports("table", Options) -> bench_table:run(Options);
reports("parse", Options) -> [bench_parse:run(Options)];
reports("latency", Options) -> [bench_latency:run(Options)];
reports("memory", Options) -> [bench_users:run(Options)];
reports("chat", Options) -> [bench_chat:run(Options)];
reports("sockets", Options) -> [bench_sockets:run(Options)];
reports("throughput", Options) -> [bench_throughput:run(Options)];
reports("fairness", Options) -> [bench_fairness:run(Options)];
reports("million", Options) -> [bench_million:run(Options)].

%% What was asked for is part of the name, where that makes a difference.
-spec title(string(), options()) -> string().
title(Name, #{settings := Settings}) ->
    Told = ["kind", "profile", "idle-memory", "wait", "part"] ++ ["users" || Name =:= "million"] ++ ["messages" || Name =:= "chat"],
    Named = ["memory", "chat", "sockets", "throughput", "million"],
    Values = [maps:get(Setting, Settings) || lists:member(Name, Named), Setting <- Told, maps:is_key(Setting, Settings)],
    Flags = [Setting || Setting <- ["sockets", "sweep-all", "fullsweep"], maps:is_key(Setting, Settings)],
    lists:flatten(lists:join("-", [Name | [string:replace(Value, ",", "-", all) || Value <- Values ++ Flags]])).

-spec text([bench_report:report()]) -> unicode:chardata().
text(Reports) ->
    [
        bench_report:machine_text(bench_report:machine()),
        $\n,
        [bench_report:text(Report) || Report <- Reports],
        bench_report:goals_text(lists:append([Goals || #{goals := Goals} <- Reports])),
        $\n
    ].

%% Keeps what was found: DATE-NAME.txt, .json and .svg.
-spec record(file:filename(), string(), [bench_report:report()]) -> ok.
record(Directory, Name, Reports) ->
    #{date := Date} = bench_report:machine(),
    File = filename:join(Directory, [binary_to_list(Date), $-, Name]),
    Title = io_lib:format("Megaphone: ~s, ~s", [Name, Date]),
    Charts = lists:append([Charts || #{charts := Charts} <- Reports]),
    ok = filelib:ensure_dir(File),
    ok = write([File, ".txt"], text(Reports)),
    ok = write([File, ".json"], [bench_report:json(Reports), $\n]),
    ok = write([File, ".svg"], bench_svg:write(Title, Charts)),
    bench_vm:say("recorded as ~ts.txt, .json and .svg", [File]).

-spec write(iolist(), unicode:chardata()) -> ok.
write(File, Text) ->
    ok = file:write_file(File, unicode:characters_to_binary(Text)).
