%% The documents of the project as suites read them: fenced blocks, tables, headings, links, and what is written as code
%% within a sentence.
-module(megaphone_test_docs).

-export([files/0, read/1, blocks/1, inline/1, tables/1, table/2, links/1, anchors/1, codes/1, substituted/2]).
-export_type([block/0]).

-type block() :: #{file := string(), line := pos_integer(), language := binary(), text := binary()}.

%% README.md and all of docs, relative to the root.
-spec files() -> [string()].
files() ->
    ["README.md" | lists:sort(filelib:wildcard("docs/*.md", megaphone_test_program:root()))].

-spec read(string()) -> binary().
read(File) ->
    {ok, Text} = file:read_file(filename:join(megaphone_test_program:root(), File)),
    Text.

%% What stands between ``` and ```; the language is all that is behind the first one.
-spec blocks(string()) -> [block()].
blocks(File) ->
    {Blocks, _Prose} = parts(File),
    Blocks.

%% What is between two backticks outside of blocks, in one line each, in the order of the document.
-spec inline(string()) -> [binary()].
inline(File) ->
    codes(prose(File)).

%% The same of a piece of text.
-spec codes(binary()) -> [binary()].
codes(Text) ->
    [re:replace(Code, "\\s+", " ", [global, {return, binary}]) || [Code] <- found("`([^`]+)`", Text)].

%% The first table below a heading: its rows, without the names of the columns. `Document' is a text, `Heading' part of it.
-spec table(binary(), binary()) -> [[binary()]].
table(Heading, Document) ->
    [_, Section] = binary:split(Document, Heading),
    %% Not by one pattern: the compiler of OTP 25.2 takes the wrong list for `[[_ | Rows] | _]'.
    tl(hd(tables(Section))).

%% All tables, each with the row of names first.
-spec tables(binary()) -> [[[binary()]]].
tables(Text) ->
    tables_of(lines(Text)).

-spec tables_of([binary()]) -> [[[binary()]]].
tables_of(Lines) ->
    case lists:splitwith(fun is_row/1, lists:dropwhile(fun(Line) -> not is_row(Line) end, Lines)) of
        {[], []} -> [];
        {[Names, _Line | Rows], Rest} -> [[cells(Row) || Row <- [Names | Rows]] | tables_of(Rest)]
    end.

-spec is_row(binary()) -> boolean().
is_row(Line) ->
    binary:match(Line, <<"| ">>) =:= {0, 2}.

%% A cell may hold anything but a bar between two spaces.
-spec cells(binary()) -> [binary()].
cells(<<"| ", Row/binary>>) ->
    [string:trim(Cell) || Cell <- binary:split(binary:part(Row, 0, byte_size(Row) - 2), <<" | ">>, [global])].

%% Where its links lead to, as they are written; pictures, too.
-spec links(string()) -> [string()].
links(File) ->
    Prose = re:replace(prose(File), "`[^`]*`", "", [global, {return, binary}]),
    [binary_to_list(Link) || [Link] <- found("\\]\\(([^)\\s]+)\\)", Prose)].

%% Names under which its headings can be linked to.
-spec anchors(string()) -> [string()].
anchors(File) ->
    [anchor(Heading) || [Heading] <- found("(?m)^#+ +(.*?) *$", prose(File))].

%% Small letters, spaces as hyphens, and nothing but letters, digits, hyphens and underscores.
-spec anchor(binary()) -> string().
anchor(Heading) ->
    Words = re:replace(string:lowercase(Heading), "[^\\w\\- ]", "", [global, unicode, ucp, {return, list}]),
    [case Char of $\s -> $-; _ -> Char end || Char <- Words].

%% The text with each pattern replaced wherever it is found, one pattern after the other.
-spec substituted(iodata(), [{string(), iodata()}]) -> binary().
substituted(Text, Changes) ->
    lists:foldl(fun({Pattern, With}, Before) -> re:replace(Before, Pattern, With, [global, {return, binary}]) end, iolist_to_binary(Text), Changes).

%% ---- text ------------------------------------------------------------------------------------------------------

-spec prose(string()) -> binary().
prose(File) ->
    {_Blocks, Prose} = parts(File),
    Prose.

-spec parts(string()) -> {[block()], binary()}.
parts(File) ->
    parts(lists:enumerate(lines(read(File))), File, [], []).

-spec parts([{pos_integer(), binary()}], string(), [block()], [iodata()]) -> {[block()], binary()}.
parts([], _File, Blocks, Prose) ->
    {lists:reverse(Blocks), iolist_to_binary(lists:reverse(Prose))};
parts([{Number, <<"```", Language/binary>>} | Rest], File, Blocks, Prose) ->
    {Inside, Behind} = lists:splitwith(fun({_, Line}) -> Line =/= <<"```">> end, Rest),
    Behind =/= [] orelse error({block_without_end, File, Number}),
    Text = iolist_to_binary([[Line, $\n] || {_, Line} <- Inside]),
    Block = #{file => File, line => Number, language => Language, text => Text},
    parts(tl(Behind), File, [Block | Blocks], Prose);
parts([{_, Line} | Rest], File, Blocks, Prose) ->
    parts(Rest, File, Blocks, [[Line, $\n] | Prose]).

-spec lines(binary()) -> [binary()].
lines(Text) ->
    binary:split(Text, <<"\n">>, [global]).

-spec found(string(), binary()) -> [[binary()]].
found(Pattern, Text) ->
    case re:run(Text, Pattern, [global, {capture, all_but_first, binary}]) of
        {match, All} -> All;
        nomatch -> []
    end.
