%% Texts of the sources, against those that documents say are written.
-module(megaphone_test_docs_messages).

-export([literals/0, matching/2]).
-export_type([literal/0]).

%% A text as it stands in the source, the pattern of what comes out, and whether it is logged as a warning or an error.
-type literal() :: #{literal := binary(), pattern := pattern(), logged := boolean()}.

-type pattern() :: {re_pattern, term(), term(), term(), term()}.

%% The texts that a message may be: as it comes out with whatever is filled in; or the documents leave something out where they
%% say `...'.
-spec matching(binary(), [literal()]) -> [literal()].
matching(Message, Literals) ->
    Shown = pattern("\\.\\.\\.", Message),
    [Literal || #{literal := Text, pattern := Pattern} = Literal <- Literals, is_like(Message, Pattern) orelse is_like(Text, Shown)].

-spec is_like(binary(), pattern()) -> boolean().
is_like(Text, Pattern) ->
    re:run(Text, Pattern, [{capture, none}]) =:= match.

%% All texts of the sources, with the pattern of what comes out, and whether each is logged as a warning or an error.
-spec literals() -> [literal()].
literals() ->
    lists:append([literals(File) || Wild <- ["erlang_src/*.erl", "native/{core,nif,ecm}/src/**/*.rs"], File <- filelib:wildcard(Wild, megaphone_test_program:root()), is_shipped(File)]).

-spec is_shipped(string()) -> boolean().
is_shipped(File) ->
    re:run(File, "/tests?\\b|_tests\\.rs", [{capture, none}]) =:= nomatch.

-spec literals(string()) -> [literal()].
literals(File) ->
    Joined = megaphone_test_docs:substituted(megaphone_test_docs:read(File), [{"\\\\\n\\s*", ""}, {"\"\\s*\n\\s*\"", ""}]),
    %% What lies between two texts looks like one as well: a line's end tells most of it.
    Text = "\"((?:[^\"\\\\\n]|\\\\.)*)\"",
    All = [Literal || [Literal] <- all_matches(["(?=", Text, ")"], Joined), byte_size(Literal) < 400],
    Logged = [Literal || [Literal] <- all_matches(["(?:\\b(?:warn|error)!|LOG_(?:WARNING|ERROR|CRITICAL))\\(\\s*", Text], Joined)],
    Place = case filename:extension(File) of ".erl" -> "~[0-9.]*t?[a-z]"; ".rs" -> "\\{[^{}]*\\}" end,
    [
        #{literal => Plain, pattern => pattern(Place, Plain), logged => lists:member(Literal, Logged)}
     || Literal <- All, is_text(megaphone_test_docs:substituted(Literal, [{Place, ""}])), Plain <- [binary:replace(Literal, <<"\\\"">>, <<"\"">>, [global])]
    ].

-spec all_matches(iodata(), binary()) -> [[binary()]].
all_matches(Pattern, Text) ->
    case re:run(Text, Pattern, [global, {capture, all_but_first, binary}, dotall]) of
        {match, Found} -> Found;
        nomatch -> []
    end.

%% Without what is filled in there has to be enough left to know it by.
-spec is_text(binary()) -> boolean().
is_text(Bare) ->
    byte_size(Bare) >= 10 andalso re:run(Bare, "[a-z]{4}", [{capture, none}]) =:= match.

%% What is filled in may be anything.
-spec pattern(string(), binary()) -> pattern().
pattern(Place, Text) ->
    Pieces = re:split(Text, Place),
    Quoted = [re:replace(Piece, "[][\\\\^$.|?*+(){}]", "\\\\&", [global]) || Piece <- Pieces],
    {ok, Pattern} = re:compile(["^", lists:join(".*", Quoted), "$"], [dotall]),
    Pattern.
