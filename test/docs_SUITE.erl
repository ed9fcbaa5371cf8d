%% The documents are true: what they show is run, or compared with what it is about. Blocks of README.md and docs/*.md, by
%% their language; tables of options, keys, limits and modules, in both directions; messages, against the sources; links;
%% and names that are written as code. Examples in protocol.md and http.md have tests of their own.
-module(docs_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(megaphone_test_docs, [files/0, read/1, blocks/1, inline/1, table/2, substituted/2]).
-import(megaphone_test_node, [call/4, listener/3, handlers/0]).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        blocks_are_of_known_languages,
        yaml_starts_an_ejabberd,
        toml_is_taken_by_the_manager,
        every_key_of_the_example_is_taken,
        erlang_is_evaluated,
        commands_are_known,
        frames_are_tried_by_the_core,
        settings_of_the_virtual_machine,
        options_of_the_listener,
        arguments_of_the_manager,
        keys_of_the_manager,
        limits_in_the_readme,
        messages_are_those_of_the_sources,
        warnings_are_explained,
        links_lead_somewhere,
        modules_are_all_named,
        names_exist
    ].

%% Certificates are made as operations.md says.
init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?MODULE),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    ok = file:write_file(filename:join(Dir, "secret"), base64:encode(crypto:strong_rand_bytes(33))),
    Node = megaphone_test_node:start(Dir, [listener(megaphone, 1, [handlers()])]),
    {Ecm, _} = megaphone_test_program:ecm(megaphone_test_program:server(megaphone_test_node:address(Node, megaphone))),
    {0, Help} = manager(["--help"]),
    {0, Bench} = megaphone_test_program:run(filename:join(root(), "bench/run"), ["--help"], #{cd => root()}),
    Context = #{dir => Dir, manager => options_in(Help), bench => Bench, ejabberdctl => commands_of(Node)},
    Makes = fun(Command) -> lists:prefix("openssl req", Command) orelse lists:prefix("cat ", Command) end,
    [ok = megaphone_test_docs_commands:check(Command, Context) || {_, Command} <- commands("docs/operations.md"), Makes(Command)],
    [{node, Node}, {ecm, Ecm}, {dir, Dir}, {help, Help}, {context, Context} | Config].

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    ok = megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

init_per_testcase(_Case, Config) -> Config.
end_per_testcase(_Case, _Config) -> megaphone_test_program:kill_started().

root() -> megaphone_test_program:root().

%% ---- blocks ----------------------------------------------------------------------------------------------------

all_blocks(Language) ->
    Found = [Block || File <- files(), #{language := Name} = Block <- blocks(File), hd(binary:split(Name, <<" ">>)) =:= Language],
    ?assertNotEqual([], Found, Language),
    Found.

blocks_are_of_known_languages(_Config) ->
    %% Each block has a language that a case below knows what to do with, or is a drawing or formula (text).
    Known = [<<"yaml">>, <<"toml">>, <<"erlang">>, <<"sh">>, <<"log">>, <<"text">>, <<"frame">>],
    Blocks = [Block || File <- files(), Block <- blocks(File)],
    ?assertEqual([], [{File, Line} || #{file := File, line := Line, language := Name} <- Blocks, not lists:member(hd(binary:split(Name, <<" ">>)), Known)]).

yaml_starts_an_ejabberd(Config) ->
    %% Each piece of ejabberd.yml is one: an ejabberd with it and nothing but what it leaves out starts, takes links where it has
    %% a listener for them, and logs no error.
    [yaml(Block, proplists:get_value(dir, Config)) || Block <- all_blocks(<<"yaml">>)].

yaml(#{file := File, line := Line, text := Text}, Dir) ->
    Own = filename:join(Dir, lists:flatten(io_lib:format("~s-~b", [filename:basename(File), Line]))),
    Socket = megaphone_test_node:socket_file(Own),
    %% A list alone is one of listeners.
    Whole = [["listen:\n" || string:prefix(string:trim(Text, leading), "-") =/= nomatch], Text],
    Replaced = with_ports(substituted(iolist_to_binary(Whole), [
        {"certfile: \\S+", ["certfile: \"", filename:join(Dir, "link.pem"), "\""]},
        {"\"unix:/[^\"]*\"", ["\"unix:", Socket, "\""]}
    ])),
    Needed = [
        {"hosts", "[localhost]"}, {"loglevel", "info"}, {"certfiles", "[]"}, {"auth_method", "[anonymous]"},
        {"anonymous_protocol", "sasl_anon"}, {"modules", "{}"}
    ],
    Rest = [[Key, ": ", Value, "\n"] || {Key, Value} <- Needed, re:run(Text, ["(?m)^", Key, ":"], [{capture, none}]) =:= nomatch],
    [ok = filelib:ensure_dir(filename:join([Own, Name, "any"])) || Name <- ["log", "mnesia"]],
    Node = megaphone_test_ecm:boot(Own, [Rest, Replaced]),
    IsOpen = re:run(Text, "(?m)^ *(secret|tls):", [{capture, none}]) =:= nomatch,
    [ok = megaphone_test_link:disconnect(megaphone_test_link:connect(At)) || {megaphone, At} <- maps:get(listeners, Node), IsOpen],
    ok = megaphone_test_node:stop_without_errors(Node),
    ok = megaphone_test_node:delete_socket(Socket).

%% Every port is a free one.
with_ports(Text) ->
    case re:split(Text, "\\bport: *[0-9]+", [{parts, 2}]) of
        [Before, After] -> [Before, "port: ", integer_to_list(free_port()) | with_ports(After)];
        [Rest] -> [Rest]
    end.

free_port() ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port.

toml_is_taken_by_the_manager(Config) ->
    %% Each piece of the connection manager's configuration, and the example file, is one that it would start with.
    Blocks = [Text || #{text := Text} <- all_blocks(<<"toml">>)],
    [?assertMatch({Text, 0, _}, checked(Text, Config)) || Text <- [read("docs/megaphone-ecm.toml") | Blocks]].

every_key_of_the_example_is_taken(Config) ->
    %% So is each key of the example file, alone; those about TLS of links, with a server that has it.
    Lines = [Line || <<"# ", Line/binary>> <- binary:split(read("docs/megaphone-ecm.toml"), <<"\n">>, [global]), is_key(Line)],
    ?assert(length(Lines) > 30, Lines),
    lists:foreach(
        fun(Line) ->
            More =
                case Line of
                    <<"link_ca", _/binary>> -> "server = \"tls://ejabberd.example:1\"\n";
                    <<"link_name", _/binary>> -> "server = \"tls://ejabberd.example:1\"\nlink_ca = \"/ca.pem\"\n";
                    _ -> ""
                end,
            ?assertMatch({Line, 0, _}, begin {_, Status, Output} = checked([More, Line], Config), {Line, Status, Output} end)
        end,
        Lines
    ).

is_key(Line) ->
    re:run(Line, "^[a-z_0-9]+ = ", [{capture, none}]) =:= match.

%% What `megaphone-ecm check' says: with files that there are in the place of those that are named.
checked(Text, Config) ->
    Dir = proplists:get_value(dir, Config),
    At = fun(Name) -> ["\\1 = \"", filename:join(Dir, Name), "\""] end,
    Own = substituted(Text, [
        {"\\b(certificate|link_ca) = \"/[^\"]*\"", At("link.crt")},
        {"\\b(key) = \"/[^\"]*\"", At("link.key")},
        {"\\b(link_secret_file) = \"/[^\"]*\"", At("secret")}
    ]),
    File = filename:join(Dir, "checked.toml"),
    ok = file:write_file(File, Own),
    {Status, Output} = manager(["check", File]),
    {Text, Status, Output}.

manager(Args) ->
    megaphone_test_program:run(megaphone_test_ecm:binary(), Args, #{}).

erlang_is_evaluated(Config) ->
    %% Erlang code runs as it stands in a node with Megaphone and a link: what it matches is matched, nothing else is an error.
    Node = proplists:get_value(node, Config),
    [?assertEqual({Text, ok}, {Text, call(Node, ?MODULE, evaluate, [Text])}) || #{text := Text} <- all_blocks(<<"erlang">>)].

%% In the node.
evaluate(Text) ->
    evaluate(unicode:characters_to_list(Text), 1, erl_eval:new_bindings()).

evaluate(Text, Line, Bindings) ->
    case erl_scan:tokens([], Text ++ "\n", Line) of
        {done, {ok, Tokens, Next}, Rest} ->
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            {value, Value, More} = erl_eval:exprs(Expressions, Bindings),
            true = error =/= Value andalso not (is_tuple(Value) andalso element(1, Value) =:= error),
            evaluate(Rest, Next, More);
        {more, _} ->
            %% Nothing but comments and space may be left.
            {ok, [], _} = erl_scan:string(Text),
            ok
    end.

commands_are_known(Config) ->
    %% Each command, in a block or within a sentence, is run or looked at by the rule for it.
    Context = proplists:get_value(context, Config),
    All = lists:append([commands(File) || File <- files()]),
    ?assert(length(All) > 60, length(All)),
    [?assertEqual({Where, Command, ok}, {Where, Command, megaphone_test_docs_commands:check(Command, Context)}) || {Where, Command} <- All].

commands(File) ->
    [{{File, Line}, Command} || #{language := <<"sh">>, line := Line, text := Text} <- blocks(File), Command <- megaphone_test_docs_commands:split(Text)] ++
        [{File, binary_to_list(Code)} || Code <- inline(File), megaphone_test_docs_commands:is_command(Code)].

commands_of(Node) ->
    %% The script has some of its own.
    ["debug", "start", "stop", "foreground", "live"] ++
        [atom_to_list(element(1, Command)) || Command <- call(Node, ejabberd_commands, list_commands, [])].

frames_are_tried_by_the_core(_Config) ->
    %% Examples of frames are in the one document that a test of the core decodes.
    ?assertEqual(["docs/protocol.md"], lists:usort([File || #{file := File} <- all_blocks(<<"frame">>)])),
    Test = read("native/core/tests/protocol_document.rs"),
    [?assertNotEqual(nomatch, binary:match(Test, Text), Text) || Text <- [<<"/../../docs/protocol.md">>, <<"```frame ">>]].

settings_of_the_virtual_machine(_Config) ->
    %% The piece for ejabberdctl.cfg is a shell's, and a virtual machine starts with its settings, the ones in comments, too.
    File = filename:join(root(), "docs/ejabberdctl.cfg"),
    Print = "echo \"+P $ERL_PROCESSES $ERL_OPTIONS\"",
    {0, Line} = megaphone_test_program:run("/bin/sh", ["-euc", ". \"$0\"; " ++ Print, File], #{}),
    {match, [[Commented]]} = re:run(read("docs/ejabberdctl.cfg"), "# [^\n]*\"(\\+sbwt [^\"]*)\"", [global, {capture, all_but_first, list}]),
    Tell =
        "[Heaps, Drivers] = [element(2, lists:keyfind(options, 1, element(3, hd(erlang:system_info({allocator, Name}))))) "
        "|| Name <- [eheap_alloc, driver_alloc]], "
        "io:format(\"~p~n\", [{erlang:system_info(process_limit), element(2, erlang:system_info(min_heap_size)), Heaps, Drivers}]), halt().",
    Args = string:lexemes(binary_to_list(Line), " ") ++ string:lexemes(Commented, " "),
    {0, Told} = megaphone_test_program:run(os:find_executable("erl"), Args ++ ["-noshell", "-eval", Tell], #{}),
    {ok, Tokens, _} = erl_scan:string(binary_to_list(Told) ++ "."),
    {ok, {Processes, Heap, Heaps, Drivers}} = erl_parse:parse_term(Tokens),
    ?assert(Processes >= 5000000, Processes),
    ?assert(Heap < 100, Heap),
    [?assertEqual([ageffcaobf, 512 * 1024], [proplists:get_value(Key, Of) || Key <- [as, lmbcs]]) || Of <- [Heaps, Drivers]],
    %% What is measured with "recommended" is what is recommended.
    {match, [Measured]} = re:run(read("bench/bench_vm.erl"), "define\\(RECOMMENDED, \"([^\"]*) \"", [{capture, all_but_first, list}]),
    {match, [Recommended]} = re:run(read("docs/ejabberdctl.cfg"), "\nERL_OPTIONS=\"([^\"]*)\"", [{capture, all_but_first, list}]),
    ?assertEqual(Recommended, Measured).

%% ---- options ---------------------------------------------------------------------------------------------------

%% The rows of the first table of operations.md that tells of options, arguments or keys.
choices(Kind) ->
    hd([Rows || [[Name, <<"default">>, <<"meaning">>] | Rows] <- megaphone_test_docs:tables(read("docs/operations.md")), Name =:= Kind]).

options_of_the_listener(_Config) ->
    %% The table has the listener's options and those two that ejabberd has for it, and their defaults.
    Rows = choices(<<"option">>),
    Known = [{port, required}, {send_timeout, megaphone_links:default_send_timeout()} | megaphone:listen_options()],
    Told = [{Name, plain(Default)} || [Names, Default, _] <- Rows, Name <- megaphone_test_docs:codes(Names)],
    ?assertEqual(lists:sort([atom_to_binary(Name) || {Name, _} <- Known]), lists:sort([Name || {Name, _} <- Told])),
    Expected = [{atom_to_binary(Name), default(Name, Value)} || {Name, Value} <- Known],
    ?assertEqual([], lists:sort(Told) -- Expected).

default(certfile, undefined) -> <<"ejabberd's certificate">>;
default(ip, Ip) -> list_to_binary(inet:ntoa(Ip));
default(_, Milliseconds) when is_integer(Milliseconds) -> iolist_to_binary([integer_to_list(Milliseconds div 1000), " s"]);
default(_, Nothing) when Nothing =:= undefined; Nothing =:= [] -> <<"none">>;
default(_, <<>>) -> <<"empty">>;
default(_, Atom) -> atom_to_binary(Atom).

plain(Cell) ->
    binary:replace(Cell, <<"`">>, <<>>, [global]).

arguments_of_the_manager(Config) ->
    %% The table has the arguments that the help has, and their defaults.
    Help = proplists:get_value(help, Config),
    Told = [{hd(binary:split(Code, <<" ">>)), first(Default)} || [Names, Default, _] <- choices(<<"argument">>), Code <- megaphone_test_docs:codes(Names)],
    Known = [list_to_binary(Option) || Option <- options_in(Help), Option =/= "--help", Option =/= "--version"],
    ?assertEqual(lists:sort(Known), lists:sort([Name || {Name, _} <- Told])),
    [?assertEqual({Name, first(said(Name, Help))}, {Name, Default}) || {Name, Default} <- Told].

options_in(Help) ->
    {match, Found} = re:run(Help, "(?m)^ +(?:-\\w, )?(--[a-z-]+)", [global, {capture, all_but_first, list}]),
    [Option || [Option] <- Found].

said(Name, Help) ->
    case re:run(Help, ["(?m)^ .*", Name, " .*\\[default: ([^\\]]*)\\]"], [{capture, all_but_first, binary}]) of
        {match, [<<"nowhere">>]} -> <<"none">>;
        {match, [Default]} -> Default;
        nomatch -> <<"none">>
    end.

%% A default up to what is said about it.
first(Cell) ->
    case hd(re:split(plain(Cell), "[;,]")) of
        <<"off">> -> <<"none">>;
        Default -> Default
    end.

keys_of_the_manager(Config) ->
    %% The tables have the keys that `megaphone-ecm check' tells, and their defaults.
    Told = lists:append([told(megaphone_test_docs:codes(Names), Default) || [Names, Default, _] <- choices(<<"key">>)]),
    {0, Output} = manager(["check", "/dev/null"]),
    Known = [known(Line) || Line <- string:lexemes(binary_to_list(Output), "\n")],
    ?assertEqual(lists:sort([Name || {Name, _} <- Known]), lists:sort([Name || {Name, _} <- Told])),
    Machines = [<<"max_clients">>],
    [?assertEqual({Name, proplists:get_value(Name, Known)}, {Name, Default}) || {Name, Default} <- Told, not lists:member(Name, Machines)],
    [Tls | _] = [Text || #{text := Text} <- all_blocks(<<"toml">>), binary:match(Text, <<"[tls]">>) =/= nomatch],
    {_, 0, Effective} = checked(Tls, Config),
    Keys = choices(<<"key in `[tls]`">>),
    ?assertMatch([[<<"`listen`">>, <<"required">>, _], [<<"`handshake_timeout`">>, _, _], [<<"`max_handshakes`">>, _, _]], Keys),
    [?assertMatch({match, _}, re:run(Effective, [plain(Key), " = ", Default, "\\b"]), {Key, Effective}) || [Key, Default, _] <- tl(Keys)].

told([<<"[tls]">>], Default) ->
    [{<<"tls">>, Default}];
told([Name], Default) ->
    [{Name, first_of_key(Default)}];
told(Names, Default) ->
    case binary:split(plain(Default), <<", ">>, [global]) of
        [Same] -> [{Name, Same} || Name <- Names];
        Each -> lists:zip(Names, Each)
    end.

%% A list has commas of its own.
first_of_key(Default) ->
    case plain(Default) of
        <<"[", _/binary>> = List -> List;
        Plain -> hd(re:split(Plain, "[;:] "))
    end.

known("# " ++ Line) ->
    [Name | _] = string:lexemes(Line, " "),
    {list_to_binary(Name), <<"none">>};
known(Line) ->
    [Name, Value] = string:split(Line, " = "),
    {list_to_binary(Name), list_to_binary(string:trim(Value, both, "\""))}.

%% ---- limits ----------------------------------------------------------------------------------------------------

limits_in_the_readme(_Config) ->
    %% The README's limits are those of the code; of those that can be configured, the connection manager's default as well.
    Rows = table(<<"\n## Limits\n">>, read("README.md")),
    Source = read("native/core/src/limits.rs"),
    {0, Output} = manager(["check", "/dev/null"]),
    Effective = [known(Line) || Line <- string:lexemes(binary_to_list(Output), "\n")],
    ?assert(length(Rows) > 15),
    lists:foreach(
        fun([Cell, Value, Unit, _]) ->
            Name = plain(Cell),
            {match, [Code]} = re:run(Source, ["pub const ", Name, ": \\w+ = ([0-9_* ]+);"], [{capture, all_but_first, list}]),
            Number = number(binary_to_list(Value)),
            ?assertEqual({Name, number(Code)}, {Name, Number}),
            Key = string:lowercase(Name),
            Expected = case Unit of <<"ms">> -> Number div 1000; _ -> Number end,
            [?assertEqual({Key, Expected}, {Key, binary_to_integer(Default)}) || {Known, Default} <- Effective, Known =:= Key]
        end,
        Rows
    ).

%% With commas or underscores; in the code it may be a product.
number(Text) ->
    lists:foldl(
        fun(Factor, Product) -> Product * list_to_integer([Digit || Digit <- Factor, Digit >= $0, Digit =< $9]) end,
        1,
        string:lexemes(Text, "*")
    ).

%% ---- messages --------------------------------------------------------------------------------------------------

messages_are_those_of_the_sources(_Config) ->
    %% Each line of a log that is shown, and each message that is explained, is one that the code can write.
    Literals = megaphone_test_docs_messages:literals(),
    Shown = [Line || #{text := Text} <- all_blocks(<<"log">>), Line <- binary:split(Text, <<"\n">>, [global, trim])],
    Messages = [without_level(Message) || Message <- Shown ++ explained()],
    ?assert(length(Messages) > 20, length(Messages)),
    ?assertEqual([], [Message || Message <- Messages, megaphone_test_docs_messages:matching(Message, Literals) =:= []]).

warnings_are_explained(_Config) ->
    %% Each warning and each error that Megaphone logs is in troubleshooting.md.
    Logged = [Literal || #{logged := true} = Literal <- megaphone_test_docs_messages:literals()],
    ?assert(length(Logged) > 20, length(Logged)),
    Explained = lists:append([megaphone_test_docs_messages:matching(without_level(Message), Logged) || Message <- explained()]),
    ?assertEqual([], [Text || #{literal := Text} = Literal <- Logged, not lists:member(Literal, Explained)]).

%% The first column of the tables whose first column is called so.
explained() ->
    [Code || [[<<"message">> | _] | Rows] <- megaphone_test_docs:tables(read("docs/troubleshooting.md")), [Cell | _] <- Rows, Code <- megaphone_test_docs:codes(Cell)].

without_level(Message) ->
    re:replace(Message, "^(WARN|INFO|ERROR) ", "", [{return, binary}]).

%% ---- names -----------------------------------------------------------------------------------------------------

links_lead_somewhere(_Config) ->
    %% Links to files and headings of this tree have something at their end.
    Links = [{File, Link} || File <- files(), Link <- megaphone_test_docs:links(File), not lists:prefix("https://", Link)],
    ?assert(length(Links) > 30, length(Links)),
    ?assertEqual([], [Link || Link <- Links, not leads(Link)]).

leads({File, Link}) ->
    {Target, Anchor} =
        case string:split(Link, "#") of
            ["", Own] -> {File, Own};
            [Other, Its] -> {beside(File, Other), Its};
            [Other] -> {beside(File, Other), none}
        end,
    filelib:is_file(filename:join(root(), Target)) andalso
        (Anchor =:= none orelse lists:member(Anchor, megaphone_test_docs:anchors(Target))).

beside("README.md", Other) -> Other;
beside("docs/" ++ _, "../" ++ Other) -> Other;
beside("docs/" ++ _, Other) -> filename:join("docs", Other).

modules_are_all_named(_Config) ->
    %% The map has the modules that there are, each once, and directories that there are.
    [_, Map] = binary:split(read("docs/architecture.md"), <<"\n## Module map\n">>),
    Named = lists:append([megaphone_test_docs:codes(Names) || [Names, _] <- table(<<"Erlang, `erlang_src/`:">>, Map)]),
    Modules = [list_to_binary(filename:rootname(File)) || File <- filelib:wildcard("*.erl", filename:join(root(), "erlang_src"))],
    ?assertEqual(lists:sort(Modules), lists:sort(Named)),
    Rust = [Path || [Names, _] <- table(<<"Rust, `native/`:">>, Map), Path <- megaphone_test_docs:codes(Names)],
    ?assertEqual([], [Path || Path <- Rust, not filelib:is_file(filename:join([root(), "native", Path]))]).

names_exist(_Config) ->
    %% Files, suites and their cases, tests in Rust, functions, metrics, limits and variables that are named as code.
    Names = lists:usort([{File, Code} || File <- files(), Code <- inline(File)]),
    Judged = [{Name, megaphone_test_docs_names:exists(Code)} || {_, Code} = Name <- Names],
    ?assertEqual([], [Name || {Name, false} <- Judged]),
    ?assert(length([ok || {_, true} <- Judged]) > 100, length(Judged)).
