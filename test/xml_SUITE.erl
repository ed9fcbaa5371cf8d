%% Elements are taken apart natively as fast_xml does it, which is asked for each text: what it refuses is refused, what it
%% accepts gives an equal term, unless it is XML that XMPP does without.
-module(xml_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

%% Texts of the random cases; `make check-deep' has more.
-define(TEXTS, 50000).

suite() -> [{timetrap, {minutes, 30}}].

all() ->
    [
        known_texts, random_elements, mutations, characters, every_prefix_is_refused, what_xmpp_does_without,
        limits, large_texts_go_another_way, what_ejabberd_writes_is_read
    ].

init_per_suite(Config) -> Config.

end_per_suite(_Config) -> ok.

texts() ->
    case os:getenv("MEGAPHONE_XML_TEXTS") of
        false -> ?TEXTS;
        Number -> list_to_integer(Number)
    end.

parse(Text) ->
    case megaphone_nif:parse_element(Text) of
        slow -> megaphone_nif:parse_large_element(Text);
        Parsed -> Parsed
    end.

%% `ok' with an equal term, or refused by both.
compare(<<16#ef, 16#bb, 16#bf, _/binary>> = Text) ->
    %% A mark of the order of bytes, which fast_xml passes over.
    {error, {not_well_formed, _}} = parse(Text),
    refused;
compare(Text) ->
    case {parse(Text), fxml_stream:parse_element(Text)} of
        {{ok, El}, El} -> accepted;
        {{error, {not_well_formed, _}}, {error, _}} -> refused;
        {{error, {restricted, _}}, _} -> restricted(Text);
        {Ours, Theirs} -> {differ, Text, Ours, Theirs}
    end.

%% Something in the text must be what XMPP does without.
restricted(Text) ->
    case re:run(Text, "<!--|<!DOCTYPE|<\\?|&[^#;&<]", [{capture, none}]) of
        match -> restricted;
        nomatch -> {differ, Text, restricted}
    end.

known_texts(_Config) ->
    %% What parsers often get wrong: namespaces, line ends, references, CDATA, spaces, characters.
    Texts = [
        <<"<a/>">>, <<" <a/>\r\n">>, <<"<a></a>">>, <<"<a  b = 'c'  ></a  >">>, <<"<a b=\"'\" c='\"'/>">>, <<"<a b='>'/>">>, <<"<a b=']]>'/>">>,
        <<"<a xmlns='urn:b' c='d' xmlns:p='q' p:e='f' xmlns:z='y'><p:x xmlns=''/><p:x xmlns:p='r'/></a>">>,
        <<"<a:b:c xmlns:a='x'/>">>, <<"<:a/>">>, <<"<a:/>">>, <<"<a:1 xmlns:a='x'/>">>, <<"<a b:1='' xmlns:b='x'/>">>, <<"<a :b='c'/>">>, <<"<a b:='c'/>">>,
        <<"<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>">>, <<"<a xmlns:p='u' xmlns:q='v' p:x='1' q:x='2'/>">>, <<"<a xmlns:p='u' p:x='1' x='2'/>">>,
        <<"<a b='1' b='2'/>">>, <<"<a b='1' B='2'/>">>, <<"<a xmlns='u' xmlns='v'/>">>, <<"<a xmlns:p='u' xmlns:p='u'/>">>,
        <<"<p:a/>">>, <<"<a p:b=''/>">>, <<"<a xmlns:p='u'/>">>, <<"<a><b xmlns:p='u'/><p:c/></a>">>, <<"<p:a xmlns:p='u'><p:b/></p:a>">>, <<"<p:a xmlns:p='u' xmlns:q='u'></q:a>">>,
        <<"<xml:a/>">>, <<"<a xml:lang='en'/>">>, <<"<xmlns:a/>">>, <<"<a xmlns:xmlns='u'/>">>, <<"<a xmlns:xml='u'/>">>, <<"<a xmlns:p=''/>">>, <<"<a xmlns=''/>">>,
        <<"<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>">>, <<"<a xmlns='http://www.w3.org/XML/1998/namespace'/>">>,
        <<"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>">>, <<"<a xmlns:p='http://www.w3.org/2000/xmlns/'/>">>, <<"<a xmlns='http://www.w3.org/2000/xmlns/'/>">>,
        <<"<a xmlns:p='&#10;'/>">>, <<"<a xmlns='x&#10;y'/>">>, <<"<a xmlns='x\ny'/>">>, <<"<a xmlns='a&amp;b'/>">>, <<"<a xmlns:p='x&#65;' xmlns:q='xA' p:x='1' q:x='2'/>">>,
        <<"<a b='\r\n\t\r x&#13;&#10;&#9;'/>">>, <<"<a>\r\n\r&#13;x\r</a>">>, <<"<a><![CDATA[\r\n]]>x<![CDATA[]]></a>">>, <<"<a><![CDATA[]]></a>">>, <<"<a><![CDATA[<&]]]]><![CDATA[>]]></a>">>,
        <<"<a>]]></a>">>, <<"<a>]]&gt;</a>">>, <<"<a>]] ></a>">>, <<"<a>]</a>">>, <<"<a><![CDATA[a]]b]]></a>">>, <<"<a><![CDATA[a]]]></a>">>, <<"<a><![cdata[a]]></a>">>, <<"<![CDATA[a]]><a/>">>, <<"<a/><![CDATA[a]]>">>,
        <<"<a>&#x41;&#65;&#x0041;&#x10FFFF;</a>">>, <<"<a>&#X41;</a>">>, <<"<a>&#99999999999999999999;</a>">>, <<"<a>&#;</a>">>, <<"<a>&#x;</a>">>, <<"<a>&lt</a>">>, <<"<a>&</a>">>, <<"<a>& </a>">>, <<"<a>&#0;</a>">>, <<"<a>&#xD800;</a>">>,
        <<"<a>&lt;&gt;&amp;&apos;&quot;</a>">>, <<"<a b='&lt;&gt;&amp;&apos;&quot;'/>">>, <<"<a>x&lt;y&#32;z</a>">>, <<"<a b='<'/>">>, <<"<a b=''''/>">>, <<"<a b=c/>">>, <<"<a b/>">>, <<"<a b='c'd='e'/>">>, <<"<a/ >">>, <<"< a/>">>, <<"<a></ a>">>, <<"<a></a b='c'>">>, <<"</a>">>, <<"<>">>, <<"<a><b></a></b>">>,
        <<"<a/><b/>">>, <<"x<a/>">>, <<"<a/>x">>, <<"">>, <<" ">>, <<"<">>, <<"<a>", 1, "</a>">>, <<"<a>", 127, "</a>">>, <<"<a b='", 31, "'/>">>, <<"<a>", 16#c0, 16#80, "</a>">>, <<"<a>", 16#ed, 16#a0, 16#80, "</a>">>, <<"<a>", 16#f4, 16#90, 16#80, 16#80, "</a>">>,
        <<"<a>", 16#e2, 16#82, "</a>">>, <<"<a>", 16#ef, 16#bf, 16#be, "</a>">>, <<"<\303\251/>">>, <<"<a\303\227/>">>, <<"<?xml version='1.0'?><a/>">>, <<"<?xml version=\"1.0\" encoding='UTF-8' ?>\n<a/>">>, <<"<?xml version='1.0' standalone='no'?><a/>">>, <<"<?xml version='1.0' encoding='utf-8' standalone=\"yes\"?><a/>">>, <<"<?xml version='1.0' standalone='YES'?><a/>">>, <<" <?xml version='1.0'?><a/>">>, <<"<?xml?><a/>">>
    ],
    ?assertEqual([], [Difference || Text <- Texts, Difference <- [compare(Text)], is_tuple(Difference)]).

%% ---- random texts ----------------------------------------------------------------------------------------------

random_elements(_Config) ->
    %% Elements with all that they may have; nearly all of them are accepted.
    Seed = seed(),
    Results = [compare(element(4)) || _ <- lists:seq(1, texts() div 10)],
    ?assertEqual([], differences(Results), Seed),
    ?assert(length([accepted || accepted <- Results]) > length(Results) * 9 div 10, Seed).

mutations(_Config) ->
    %% Elements in which bytes were changed, taken out, put in or moved, most of all such that have a meaning.
    Seed = seed(),
    Results = [compare(mutated(rand:uniform(2), element(rand:uniform(3) - 1))) || _ <- lists:seq(1, texts())],
    ?assertEqual([], differences(Results), Seed),
    Counts = [length([Result || Result <- Results, Result =:= Kind]) || Kind <- [accepted, refused, restricted]],
    io:format("of ~b texts ~w were accepted, refused, restricted~n", [length(Results), Counts]),
    %% The test is one: all three happen often.
    ?assert(lists:all(fun(Count) -> Count > length(Results) div 100 end, Counts), Counts).

seed() ->
    Seed = erlang:unique_integer([positive]) + erlang:system_time(second),
    _ = rand:seed(exsss, Seed),
    {seed, Seed}.

differences(Results) ->
    lists:sublist([Result || Result <- Results, is_tuple(Result)], 3).

one_of(Choices) -> lists:nth(rand:uniform(length(Choices)), Choices).

element(Depth) ->
    unicode:characters_to_binary(el(Depth)).

el(Depth) ->
    {Name, Namespaces} = one_of([
        {"iq", ""}, {"message", " xmlns='jabber:client'"}, {"x", " xmlns='urn:example:a'"}, {"p:z", " xmlns:p='urn:example:p'"}, {"q:w", " xmlns:q=\"urn:example:p\""},
        {[16#e9, $l], " xmlns=\"urn:example:&amp;b\""}, {[16#4e00, "-1._"], ""}, {"xml:x", ""}, {"y", " xmlns:p='a' xmlns:q='a'"}, {"y", " xmlns=''"}
    ]),
    Attributes = [
        [one_of([" ", "  ", "\n"]), AttributeName, one_of(["=", " = "]), Quote, Value, Quote]
     || {AttributeName, Quote, Value} <- [
            {"a", "'", one_of(["", "v", "&apos;&#10;\"", "\t x\r\n", "&#x1F600;", "]]>"])}, {"xml:lang", "\"", one_of(["en", "'&lt;'"])},
            {"b-1", "'", [16#1F600]}, {[16#e9], "\"", ">"}
        ],
        rand:uniform(3) =:= 1
    ],
    case rand:uniform(3) of
        1 -> ["<", Name, Namespaces, Attributes, one_of(["", " "]), "/>"];
        _ -> ["<", Name, Namespaces, Attributes, ">", content(Depth), "</", Name, one_of(["", "", " ", "\n"]), ">"]
    end.

content(0) -> text();
content(Depth) -> [one_of([text(), el(Depth - 1)]) || _ <- lists:seq(1, rand:uniform(4))].

text() ->
    one_of([
        "", " ", "words", "\r\n\t\r", "&lt;b&gt;&amp;amp;&quot;&apos;", "<![CDATA[<&>]]>", "a<![CDATA[]]>b<![CDATA[]]]>c", "&#x1F600;&#9;&#13;",
        [16#20AC, 16#10FFFD, 16#D7FF, 16#E000, 16#80, 16#7f], "]]&gt;", "]]", "\"'"
    ]).

mutated(0, Text) ->
    Text;
mutated(Times, Text) ->
    mutated(Times - 1, mutate(rand:uniform(5), Text)).

mutate(_Kind, <<>>) ->
    one_of(tokens());
mutate(1, Text) ->
    {Before, <<_, After/binary>>} = split(Text),
    <<Before/binary, (rand:uniform(256) - 1), After/binary>>;
mutate(2, Text) ->
    {Before, After} = split(Text),
    Count = min(rand:uniform(4), byte_size(After)),
    <<Before/binary, (binary:part(After, Count, byte_size(After) - Count))/binary>>;
mutate(3, Text) ->
    {Before, After} = split(Text),
    {_, Piece} = split(Text),
    <<Before/binary, (binary:part(Piece, 0, min(byte_size(Piece), rand:uniform(12))))/binary, After/binary>>;
mutate(_, Text) ->
    {Before, After} = split(Text),
    <<Before/binary, (one_of(tokens()))/binary, After/binary>>.

%% At least a byte is behind the place.
split(Text) ->
    At = rand:uniform(byte_size(Text)) - 1,
    <<Before:At/binary, After/binary>> = Text,
    {Before, After}.

tokens() ->
    [
        <<"<">>, <<">">>, <<"/">>, <<"'">>, <<"\"">>, <<"&">>, <<";">>, <<"=">>, <<":">>, <<" ">>, <<"\r">>, <<"\n">>, <<"]]>">>, <<"<![CDATA[">>, <<"]">>, <<"&#">>, <<"&#x">>, <<"&#0;">>,
        <<"&#xFFFE;">>, <<"&#55296;">>, <<"&#1114112;">>, <<"&amp;">>, <<"&foo;">>, <<"<!--">>, <<"-->">>, <<"<!-- x -->">>, <<"<?">>, <<"?>">>, <<"<?x y?>">>, <<"<!DOCTYPE a>">>, <<"<!DOCTYPE a [<!ENTITY b 'c'>]>">>,
        <<" xmlns=''">>, <<" xmlns='u'">>, <<" xmlns:p=''">>, <<" xmlns:p='u'">>, <<" xmlns:xml='u'">>, <<" xmlns:xmlns='u'">>, <<" p:a='1'">>, <<" q:a='1'">>, <<" a='1'">>, <<"<p:b/>">>, <<"<b/>">>, <<"</b>">>, <<"<b>">>,
        <<"xmlns">>, <<"xml">>, <<0>>, <<1>>, <<16#80>>, <<16#c0, 16#80>>, <<16#ed, 16#a0, 16#80>>, <<16#ef, 16#bf, 16#bf>>, <<16#ef, 16#bb, 16#bf>>, <<16#f0, 16#90, 16#80, 16#80>>, <<16#f4, 16#90, 16#80, 16#80>>,
        <<16#c2, 16#b7>>, <<16#cc, 16#80>>, <<"1">>, <<"-">>, <<".">>, <<"_">>, <<"e">>, <<16#c3, 16#97>>
    ].

%% ---- characters ------------------------------------------------------------------------------------------------

characters(_Config) ->
    %% Each character as text, as a reference, in an attribute, as the first of a name, as a later one, and behind a colon: all
    %% of them with MEGAPHONE_XML_TEXTS, else those at the borders of what fast_xml has in one class.
    All = lists:seq(0, 16#ffff) ++ lists:seq(16#10000, 16#110010, 16#fff),
    Some = [C || C <- All, C < 16#3100 orelse C rem 97 =:= 0 orelse C band 16#ff < 2 orelse C band 16#ff > 16#fd],
    Characters = case os:getenv("MEGAPHONE_XML_TEXTS") of false -> Some; _ -> lists:seq(0, 16#110010) end,
    Differences = [
        Difference
     || C <- Characters,
        Text <- [
            <<"<a>", (utf8(C))/binary, "</a>">>, <<"<a>&#", (integer_to_binary(C))/binary, ";</a>">>, <<"<a b='", (utf8(C))/binary, "'/>">>,
            <<"<", (utf8(C))/binary, "/>">>, <<"<a", (utf8(C))/binary, "/>">>, <<"<a ", (utf8(C))/binary, "='b'/>">>,
            <<"<a:", (utf8(C))/binary, " xmlns:a='b'/>">>
        ],
        Difference <- [compare(Text)],
        is_tuple(Difference)
    ],
    ?assertEqual([], lists:sublist(Differences, 5)).

%% Also what is none.
utf8(C) when C < 16#80 -> <<C>>;
utf8(C) when C < 16#800 -> <<2#110:3, (C bsr 6):5, 2#10:2, C:6>>;
utf8(C) when C < 16#10000 -> <<2#1110:4, (C bsr 12):4, 2#10:2, (C bsr 6):6, 2#10:2, C:6>>;
utf8(C) -> <<2#11110:5, (C bsr 18):3, 2#10:2, (C bsr 12):6, 2#10:2, (C bsr 6):6, 2#10:2, C:6>>.

%% ---- single rules ----------------------------------------------------------------------------------------------

every_prefix_is_refused(_Config) ->
    %% A text that is cut anywhere is no element, and nothing is taken for another class of error.
    _ = seed(),
    _ = [
        begin
            Text = element(3),
            accepted = compare(Text),
            [?assertMatch({error, {not_well_formed, _}}, parse(binary:part(Text, 0, End)), {Text, End}) || End <- lists:seq(0, byte_size(Text) - 1)]
        end
     || _ <- lists:seq(1, 100)
    ],
    ok.

what_xmpp_does_without(_Config) ->
    Texts = [
        <<"<a><!-- b --></a>">>, <<"<a/><!-- b -->">>, <<"<!-- b --><a/>">>, <<"<a><?b c?></a>">>, <<"<?b c?><a/>">>, <<"<a/><?b c?>">>, <<"<a>&b;</a>">>, <<"<a b='&c;'/>">>,
        <<"<!DOCTYPE a><a/>">>, <<"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>">>, <<"<?xml version='1.1'?><a/>">>, <<"<?xml version='1.0' encoding='ISO-8859-1'?><a>\344</a>">>
    ],
    _ = [?assertMatch({error, {restricted, _}}, parse(Text), Text) || Text <- Texts],
    %% A mark of the order of bytes, which fast_xml passes over.
    ?assertMatch({error, {not_well_formed, _}}, parse(<<16#ef, 16#bb, 16#bf, "<a/>">>)).

limits(_Config) ->
    %% Elements within each other, in all, and attributes and namespaces: the limit, and one more.
    Deep = fun(Depth) -> iolist_to_binary([lists:duplicate(Depth, "<a>"), lists:duplicate(Depth, "</a>")]) end,
    Many = fun(Count) -> iolist_to_binary(["<a>", lists:duplicate(Count - 1, "<b/>"), "</a>"]) end,
    Named = fun(Count) -> iolist_to_binary(["<a", [[" b", integer_to_list(N), "=''"] || N <- lists:seq(1, Count)], "/>"]) end,
    Declared = fun(Count) ->
        Half = [[" xmlns:b", integer_to_list(N), "='u'"] || N <- lists:seq(1, Count - 1)],
        iolist_to_binary(["<a", Half, "><c xmlns:d='u'/></a>"])
    end,
    _ = [
        begin
            accepted = compare(Make(Limit - 1)),
            accepted = compare(Make(Limit)),
            ?assertMatch({error, {too_big, _}}, parse(Make(Limit + 1)))
        end
     || {Make, Limit} <- [{Deep, 128}, {Many, 65536}, {Named, 128}, {Declared, 128}]
    ],
    ?assertMatch({error, {too_big, _}}, parse(Deep(10000))),
    ?assertMatch({error, {too_big, _}}, parse(Named(100000))).

large_texts_go_another_way(_Config) ->
    %% What takes long is refused on a normal scheduler.
    #{small_message := Most} = megaphone_nif:limits(),
    Text = fun(Length) -> <<"<a>", (binary:copy(<<"x">>, Length - 7))/binary, "</a>">> end,
    _ = [?assertMatch({ok, _}, megaphone_nif:parse_element(Text(Length))) || Length <- [Most - 1, Most]],
    ?assertEqual(slow, megaphone_nif:parse_element(Text(Most + 1))),
    ?assertMatch({ok, _}, megaphone_nif:parse_large_element(Text(Most + 1))).

what_ejabberd_writes_is_read(_Config) ->
    %% Elements as ejabberd writes them.
    Seed = seed(),
    Results = [
        begin
            {ok, El} = parse(element(3)),
            compare(fxml:element_to_binary(El))
        end
     || _ <- lists:seq(1, 1000)
    ],
    ?assertEqual([accepted], lists:usort(Results), Seed).
