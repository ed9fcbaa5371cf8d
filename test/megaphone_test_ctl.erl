%% The program `ejabberdctl' of the ejabberd that is installed, as an operator calls it, for a node of megaphone_test_node: a
%% process of its own that finds the node by Erlang distribution, with configuration and cookie in that node's directory.
%%
%% As packages install it, it is for root and for ejabberd's own user, whose home and name it takes. A test is not that user and
%% has directories that this user may not see. So `id', which the script asks who calls it, is one here that says it is this user.
%% Nothing else is another one than an operator has.
-module(megaphone_test_ctl).

-export([names/0, prepare/1, run/2, run_all/2, rows/2]).
-export_type([ctl/0, outcome/0]).

-opaque ctl() :: #{file := file:filename(), arguments := [string()], env := [{string(), string()}]}.

%% Exit code, and all that was printed.
-type outcome() :: {non_neg_integer(), string()}.

%% Arguments for a node that ejabberdctl can reach: see megaphone_test_node:start_in/2.
-spec names() -> [string()].
names() ->
    [Names] = megaphone_test_node:cluster_names(1),
    Names.

%% Writes what ejabberdctl needs into the node's directory.
-spec prepare(megaphone_test_node:node_info()) -> ctl().
prepare(#{dir := Dir} = Node) ->
    Own = filename:join(Dir, "operator"),
    Cookie = filename:join(Own, ".erlang.cookie"),
    File = script(),
    ok = filelib:ensure_dir(filename:join([Own, "bin", "any"])),
    ok = file:write_file(filename:join(Dir, "ejabberdctl.cfg"), configuration(Node)),
    ok = file:write_file(filename:join(Dir, "inetrc"), "{lookup, [file, native]}.\n"),
    ok = file:write_file(Cookie, atom_to_list(megaphone_test_node:call(Node, erlang, get_cookie, []))),
    ok = file:change_mode(Cookie, 8#400),
    Id = filename:join([Own, "bin", "id"]),
    ok = file:write_file(Id, ["#!/bin/sh\necho '", user(File), "'\n"]),
    ok = file:change_mode(Id, 8#700),
    #{
        file => File,
        arguments => ["--config-dir", Dir, "--logs", filename:join(Dir, "log"), "--spool", Own],
        env => [{"HOME", Own}, {"PATH", filename:dirname(Id) ++ ":" ++ os:getenv("PATH", "/usr/bin:/bin")}]
    }.

%% As docs of ejabberd have it for a node without the daemon that knows names.
-spec configuration(megaphone_test_node:node_info()) -> iodata().
configuration(Node) ->
    {ok, [[Port]]} = megaphone_test_node:call(Node, init, get_argument, [erl_epmd_port]),
    ["ERLANG_NODE=", atom_to_list(megaphone_test_node:call(Node, erlang, node, [])), "\nERL_DIST_PORT=", Port, "\n"].

%% On the path, or where packages put it, which is not on everybody's.
-spec script() -> file:filename().
script() ->
    Path = os:getenv("PATH", "") ++ ":/usr/sbin:/usr/local/sbin",
    case os:find_executable("ejabberdctl", Path) of
        false -> error("ejabberdctl was not found; `make setup' installs ejabberd, or PATH names the directory that holds it");
        File -> File
    end.

%% The user that the script is for.
-spec user(file:filename()) -> string().
user(File) ->
    {ok, Text} = file:read_file(File),
    {match, [User]} = re:run(Text, "^INSTALLUSER=\"?([a-z_-]*)\"?$", [multiline, {capture, all_but_first, list}]),
    User.

%% Calls it with these arguments, and waits for its end.
-spec run(ctl(), [string()]) -> outcome().
run(Ctl, Arguments) ->
    hd(run_all(Ctl, [Arguments])).

%% The same several times at once: the outcomes, in their order.
-spec run_all(ctl(), [[string()]]) -> [outcome()].
run_all(#{file := File, arguments := Own, env := Env}, Calls) ->
    Programs = [megaphone_test_program:start(File, Own ++ Arguments, #{env => Env}) || Arguments <- Calls],
    [{Code, unicode:characters_to_list(Text)} || Program <- Programs, {Code, Text} <- [megaphone_test_program:await_exit(Program)]].

%% What it prints when all is well: lines of columns.
-spec rows(ctl(), [string()]) -> [[string()]].
rows(Ctl, Arguments) ->
    case run(Ctl, Arguments) of
        {0, Text} -> [string:split(Line, "\t", all) || Line <- string:lexemes(Text, "\n")];
        Other -> error({ejabberdctl, Arguments, Other})
    end.
