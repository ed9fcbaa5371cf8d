%% Commands of the documents: each is known to one rule, by its first word, and the rule looks at what the command names, or
%% runs it where that harms nothing. A command that no rule knows is an error.
-module(megaphone_test_docs_commands).

-export([check/2, is_command/1, split/1, is_read/1]).

-type word() :: string().
-type context() :: #{
    %% A directory of its own, in which commands that write are run.
    dir := file:filename(),
    %% Options that `megaphone-ecm --help' tells, and what `bench/run --help' prints.
    manager := [word()],
    bench := binary(),
    %% Commands that ejabberd has.
    ejabberdctl := [word()]
}.

%% All rules: a first word, and what is asked of the others. Of `bench/' and `scripts/' the word is the beginning.
-spec rules() -> [{word(), fun(([word()], context()) -> ok)}].
rules() ->
    [
        {"make", fun make/2},
        {"bench/run", fun bench/2},
        {"scripts/", fun script/2},
        {"megaphone-ecm", fun manager/2},
        {"ejabberdctl", fun ejabberdctl/2},
        {"systemctl", fun systemctl/2},
        {"apt", fun apt/2},
        {"cargo", fun cargo/2},
        {"target/tools/bin/cargo-fuzz", fun cargo_fuzz/2},
        {"rebar3", fun rebar3/2},
        {"sysctl", fun sysctl/2},
        {"openssl", fun harmless/2},
        {"cat", fun harmless/2},
        {"curl", fun curl/2},
        {"ERL_OPTIONS=", fun erl_options/2}
    ].

%% Whether code within a sentence is meant as a command.
-spec is_command(binary()) -> boolean().
is_command(Code) ->
    case string:lexemes(binary_to_list(Code), " ") of
        %% A path alone is a name.
        [Word] -> lists:prefix("scripts/", Word) andalso not lists:member($*, Word);
        [Word | _] -> lists:any(fun({Name, _}) -> Name =/= "ERL_OPTIONS=" andalso starts(Name, Word) end, rules());
        [] -> false
    end.

%% The commands of a block: lines, but for comments; a line may go on behind a backslash.
-spec split(binary()) -> [string()].
split(Text) ->
    Joined = re:replace(Text, "\\\\\n", " ", [global, {return, list}]),
    [Line || Line <- string:lexemes(Joined, "\n"), words(Line) =/= []].

%% Every part of a command, or an error that names it.
-spec check(string(), context()) -> ok.
check(Command, Context) ->
    lists:foreach(
        fun(Part) ->
            try
                part(Part, Context)
            catch
                error:Reason:Stack -> error({Command, Reason, Stack})
            end
        end,
        parts(words(Command))
    ).

-spec parts([word()]) -> [[word()]].
parts(Words) ->
    case lists:splitwith(fun(Word) -> Word =/= "&&" end, Words) of
        {Part, []} -> [Part];
        {Part, ["&&" | Rest]} -> [Part | parts(Rest)]
    end.

-spec part([word()], context()) -> ok.
part(["sudo" | Words], Context) ->
    part(Words, Context);
part([Word | Words], Context) ->
    case {[Rule || {Name, Rule} <- rules(), starts(Name, Word)], is_variable(Word)} of
        {[Rule], _} ->
            Rule([Word | Words], Context);
        {[], true} ->
            variable(Word),
            part(Words, Context);
        {[], false} ->
            error({no_rule_knows, Word})
    end.

-spec starts(word(), word()) -> boolean().
starts(Name, Word) ->
    lists:prefix(Name, Word) andalso (lists:member(lists:last(Name), "/=") orelse Name =:= Word).

%% ---- rules -----------------------------------------------------------------------------------------------------

%% A target, and variables that its script reads.
-spec make([word()], context()) -> ok.
make(["make", Target | Variables], _Context) ->
    {0, _} = run("make", ["-n", Target], root()),
    lists:foreach(fun(Word) -> reads(filename:join("scripts", Target), name(Word)) end, Variables).

%% What is measured, and options that the help has.
-spec bench([word()], context()) -> ok.
bench(["bench/run", "--help"], _Context) ->
    ok;
bench(["bench/run" | Words], #{bench := Help}) ->
    lists:foreach(fun(Word) -> named(["(?m)^  ", Word, " "], Help) end, [Word || Word <- names(Words)]),
    lists:foreach(fun(Option) -> named(["(?m)^  ", Option, "( |$)"], Help) end, options(Words)).

-spec script([word()], context()) -> ok.
script([Script | _], _Context) ->
    true = filelib:is_regular(filename:join(root(), Script)),
    ok.

-spec manager([word()], context()) -> ok.
manager(["megaphone-ecm", "check" | _File], _Context) ->
    ok;
manager(["megaphone-ecm" | Words], #{manager := Known}) ->
    [] = [Option || Option <- options(Words), Option =/= "--help", not lists:member(Option, Known)],
    [] = names(Words),
    ok.

-spec ejabberdctl([word()], context()) -> ok.
ejabberdctl(["ejabberdctl", Command | _], #{ejabberdctl := Known}) ->
    lists:member(Command, Known) orelse error({no_command_of_ejabberd, Command}),
    ok.

%% Units are ours, or ejabberd's.
-spec systemctl([word()], context()) -> ok.
systemctl(["systemctl", Verb | Units], _Context) ->
    lists:member(Verb, ["start", "stop", "restart", "reload"]) orelse error({no_verb, Verb}),
    Files = filelib:wildcard("docs/systemd/*", root()),
    Ours = [filename:basename(filename:rootname(File)) || File <- Files],
    lists:foreach(
        fun(Unit) ->
            Template = re:replace(Unit, "@.+", "@", [{return, list}]),
            lists:member(Template, ["ejabberd" | Ours]) orelse error({no_unit, Unit})
        end,
        Units
    ).

%% The test programs that are named are there.
-spec cargo([word()], context()) -> ok.
cargo(["cargo", "test"], _Context) ->
    ok;
cargo(["cargo", "test" | Words], _Context) ->
    Package = value("-p", Words),
    Test = value("--test", Words),
    Dir = filename:join([root(), "native", lists:last(string:lexemes(Package, "-")), "tests", Test]),
    true = filelib:is_regular(Dir ++ ".rs") orelse filelib:is_regular(filename:join(Dir, "main.rs")),
    ok;
cargo(["cargo", "doc" | _], _Context) ->
    ok;
cargo(["cargo", "install", "cargo-fuzz", "--root", "target/tools"], _Context) ->
    ok.

-spec cargo_fuzz([word()], context()) -> ok.
cargo_fuzz([_, "run", "--fuzz-dir", Dir, Target | _], _Context) ->
    Manifest = filename:join([root(), Dir, "Cargo.toml"]),
    {ok, Text} = file:read_file(Manifest),
    named(["name = \"", Target, "\""], Text).

-spec rebar3([word()], context()) -> ok.
rebar3(["rebar3", "ct", "--suite", Suite | Words], _Context) ->
    true = filelib:is_regular(filename:join(root(), filename:rootname(Suite, ".erl") ++ ".erl")),
    case Words of
        [] -> ok;
        ["--case", Case] -> reads(filename:rootname(Suite, ".erl") ++ ".erl", Case)
    end;
rebar3(["rebar3", Command], _Context) ->
    true = lists:member(Command, ["ct", "xref", "dialyzer", "edoc", "compile"]),
    ok.

%% The kernel has that setting. A container may not be shown all of them: those are only looked at for their form.
-spec sysctl([word()], context()) -> ok.
sysctl(["sysctl" | Words], _Context) ->
    Keys = [lists:takewhile(fun(Char) -> Char =/= $= end, Word) || Word <- Words, Word =/= "-w"],
    Files = [{Key, filename:join(["/proc/sys" | string:lexemes(Key, ".")])} || Key <- Keys],
    [] = [Key || {Key, File} <- Files, filelib:is_dir(filename:dirname(File)), not filelib:is_file(File)],
    ok.

%% Run as it stands, by the shell, in a directory of its own.
%% Installs or purges what `make deb' makes; that it does is test-install's to show.
-spec apt([word()], context()) -> ok.
apt(["apt", "install", "./target/deb/*.deb"], _Context) ->
    ok;
apt(["apt", "purge" | Packages], _Context) ->
    {ok, Control} = file:read_file(filename:join(root(), "debian/control")),
    [match = re:run(Control, ["(?m)^Package: ", Package, "$"], [{capture, none}]) || Package <- Packages],
    ok.

-spec harmless([word()], context()) -> ok.
harmless(Words, #{dir := Dir}) ->
    Quoted = [case Word of ">" -> ">"; _ -> "'" ++ Word ++ "'" end || Word <- Words],
    {0, _} = run("sh", ["-c", lists:flatten(lists:join(" ", Quoted))], Dir),
    ok.

%% Of the admin address, which tells health and metrics.
-spec curl([word()], context()) -> ok.
curl(["curl" | Words], _Context) ->
    [Url] = [Word || "http://" ++ _ = Word <- Words],
    true = lists:member(filename:basename(Url), ["health", "metrics"]),
    ok.

%% Where `make install' puts the application without a PREFIX.
-spec erl_options([word()], context()) -> ok.
erl_options(["ERL_OPTIONS=" ++ Options], _Context) ->
    {ok, Manifest} = file:read_file(filename:join(root(), "Cargo.toml")),
    {match, [Version]} = re:run(Manifest, "(?m)^version *= *\"(.*)\"", [{capture, all_but_first, list}]),
    "-pa /usr/local/lib/erlang/lib/megaphone-" ++ Rest = Options,
    true = Rest =:= Version ++ "/ebin",
    ok.

%% A variable before a command.
-spec variable(word()) -> ok.
variable(Word) ->
    is_read(name(Word)) orelse error({nobody_reads, Word}),
    ok.

%% Whether something of this tree has a variable, or a constant, of this name, or it is one of the tools' own.
-spec is_read(word()) -> boolean().
is_read(Name) ->
    Foreign = ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC_BOOTSTRAP", "LOOM_MAX_PREEMPTIONS", "LOOM_LOG", "CARGO_TARGET_DIR", "ERL_MAX_PORTS"],
    lists:member(Name, Foreign) orelse ordsets:is_element(list_to_binary(Name), names_in_sources()).

%% All that look like constants, variables or names of ours, found once for a node.
-spec names_in_sources() -> ordsets:ordset(binary()).
names_in_sources() ->
    case persistent_term:get(?MODULE, none) of
        none ->
            Places = ["erlang_src", "native/core", "native/ecm", "native/fuzz", "test", "scripts", "bench", "docs/ejabberdctl.cfg", "docs/systemd"],
            Pattern = "\\b([A-Z][A-Z0-9]*_[A-Z0-9_]+|(megaphone|process)_[a-z_]+)\\b",
            {0, Found} = run("grep", ["-rhoIE", "--exclude-dir=node_modules", "--", Pattern | Places], root()),
            Names = ordsets:from_list(binary:split(Found, <<"\n">>, [global])),
            ok = persistent_term:put(?MODULE, Names),
            Names;
        Names ->
            Names
    end.

%% ---- words -----------------------------------------------------------------------------------------------------

%% As a shell takes them apart: quotes hold words together, # begins a comment.
-spec words(string()) -> [word()].
words(Line) ->
    words(Line, none, [], []).

-spec words(string(), none | $" | $' | open, string(), [word()]) -> [word()].
words([], none, [], Words) -> lists:reverse(Words);
words([], open, Word, Words) -> lists:reverse([lists:reverse(Word) | Words]);
words([], Quote, _Word, Words) -> error({quote_without_end, Quote, lists:reverse(Words)});
words([$# | _], none, [], Words) -> lists:reverse(Words);
words([Char | Rest], none, [], Words) when Char =:= $\s; Char =:= $\t -> words(Rest, none, [], Words);
words([Char | Rest], open, Word, Words) when Char =:= $\s; Char =:= $\t -> words(Rest, none, [], [lists:reverse(Word) | Words]);
words([Quote | Rest], State, Word, Words) when (Quote =:= $" orelse Quote =:= $') andalso (State =:= none orelse State =:= open) ->
    words(Rest, Quote, Word, Words);
words([Quote | Rest], Quote, Word, Words) -> words(Rest, open, Word, Words);
words([Char | Rest], none, Word, Words) -> words(Rest, open, [Char | Word], Words);
words([Char | Rest], State, Word, Words) -> words(Rest, State, [Char | Word], Words).

-spec is_variable(word()) -> boolean().
is_variable(Word) ->
    re:run(Word, "^[A-Z][A-Z0-9_]*=", [{capture, none}]) =:= match.

-spec name(word()) -> word().
name(Word) ->
    true = is_variable(Word),
    lists:takewhile(fun(Char) -> Char =/= $= end, Word).

-spec options([word()]) -> [word()].
options(Words) ->
    [Word || "--" ++ _ = Word <- Words].

%% Words before the first option.
-spec names([word()]) -> [word()].
names(Words) ->
    lists:takewhile(fun(Word) -> hd(Word) =/= $- end, Words).

-spec value(word(), [word()]) -> word().
value(Option, Words) ->
    [Option, Value | _] = lists:dropwhile(fun(Word) -> Word =/= Option end, Words),
    Value.

-spec named(iodata(), binary()) -> ok.
named(Pattern, Text) ->
    case re:run(Text, Pattern, [{capture, none}]) of
        match -> ok;
        nomatch -> error({not_found, iolist_to_binary(Pattern)})
    end.

-spec reads(file:filename(), word()) -> ok.
reads(File, Word) ->
    {ok, Text} = file:read_file(filename:join(root(), File)),
    named(["\\b", Word, "\\b"], Text).

-spec run(string(), [string()], file:filename()) -> {non_neg_integer(), binary()}.
run(Program, Args, Dir) ->
    megaphone_test_program:run(os:find_executable(Program), Args, #{cd => Dir}).

-spec root() -> file:filename().
root() ->
    megaphone_test_program:root().
