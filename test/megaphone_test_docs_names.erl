%% What documents name as code: files, suites and their cases, tests in Rust, functions, metrics, limits and variables.
-module(megaphone_test_docs_names).

-export([exists/1]).

%% Whether it does, by the first rule whose pattern fits; what fits none is no name of that kind.
-spec exists(binary()) -> boolean() | none.
exists(Code) ->
    Rules = [
        {"^(\\w+_SUITE):(\\w+)$", fun([Suite, Case]) -> has_case(Suite, Case) end},
        {"^(\\w+_SUITE)$", fun([Suite]) -> is_there("test/" ++ Suite ++ ".erl") end},
        {"^([\\w/]+\\.rs):(\\w+)$", fun([File, Test]) -> is_there(File) andalso mentions(File, ["fn ", Test, "\\("]) end},
        {"^((?:erlang_src|native|test|scripts|docs|bench)/[^ ]*)$", fun([Path]) -> is_there(Path) end},
        {"^(megaphone\\w*):(\\w+)(?:[/(].*)?$", fun([Module, Function]) -> is_exported(Module, Function) end},
        %% ejabberd's own.
        {"^(megaphone_sup)$", fun([_]) -> true end},
        {"^((?:megaphone|process)_[a-z_]+)(?:\\{.*\\})?$", fun([Name]) -> is_metric(Name) orelse megaphone_test_docs_commands:is_read(Name) end},
        {"^([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=.*)?$", fun([Name]) -> megaphone_test_docs_commands:is_read(Name) end}
    ],
    Fits = [Rule(Groups) || {Pattern, Rule} <- Rules, {match, Groups} <- [re:run(Code, Pattern, [{capture, all_but_first, list}])]],
    case Fits of
        [] -> none;
        [Answer | _] -> Answer
    end.

%% Defined, and listed to be run: in the suite's own lists, or in the groups of BOSH.
-spec has_case(string(), string()) -> boolean().
has_case(Suite, Case) ->
    File = "test/" ++ Suite ++ ".erl",
    is_there(File) andalso mentions(File, ["(?m)^", Case, "\\("]) andalso
        (mentions(File, ["[\\[,\\s]", Case, "\\s*[,\\]]"])).

-spec is_there(string()) -> boolean().
is_there(Path) ->
    filelib:wildcard(lists:flatten(string:replace(Path, "DATE", "*")), megaphone_test_program:root()) =/= [].

-spec mentions(string(), iodata()) -> boolean().
mentions(File, Pattern) ->
    re:run(megaphone_test_docs:read(File), Pattern, [{capture, none}]) =:= match.

-spec is_exported(string(), string()) -> boolean().
is_exported(Module, Function) ->
    Name = list_to_atom(Module),
    is_module(Module) andalso lists:keymember(list_to_atom(Function), 1, Name:module_info(exports)).

-spec is_module(string()) -> boolean().
is_module(Name) ->
    is_there("erlang_src/" ++ Name ++ ".erl") orelse is_there("test/" ++ Name ++ ".erl").

%% A test of the connection manager compares that table with what it tells.
-spec is_metric(string()) -> boolean().
is_metric(Name) ->
    Rows = megaphone_test_docs:table(<<"\n## Metrics\n">>, megaphone_test_docs:read("docs/operations.md")),
    lists:member(list_to_binary(Name), [hd(re:split(binary:replace(Cell, <<"`">>, <<>>, [global]), "{")) || [Cell | _] <- Rows]).
