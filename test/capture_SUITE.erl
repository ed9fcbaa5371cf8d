%% Requests as real clients sent them (capture_SUITE_data: the client's name is the file's), whole, cut and damaged: what
%% is made of them natively is what erlang:decode_packet/3 makes of them.
-module(capture_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-import(megaphone_test, [open/1]).

%% Share of the captures that are taken apart natively in one step.
-define(FAST, 0.9).

%% Damaged requests, for each capture.
-define(DAMAGED, list_to_integer(os:getenv("MEGAPHONE_DAMAGED", "300"))).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [captures_are_fast_and_right, captures_follow_each_other, captures_cut_anywhere, captures_damaged, every_known_name].

init_per_suite(Config) -> megaphone_test:start(Config).
end_per_suite(Config) -> megaphone_test:stop(Config).
init_per_testcase(_Case, Config) -> megaphone_test:begin_case(Config).
end_per_testcase(_Case, Config) -> megaphone_test:end_case(Config).

captures_are_fast_and_right(Config) ->
    %% Nearly all requests of real clients are taken apart in one native step, and all of them rightly.
    Captures = captures(Config),
    [?assertEqual({Name, {ok, decoded(Request)}}, {Name, megaphone:parse_packet(Request)}) || {Name, Request} <- Captures],
    Slow = [Name || {Name, Request} <- Captures, natively(Request) =:= slow],
    ?assert(length(Captures) >= 20),
    ?assert(1 - length(Slow) / length(Captures) >= ?FAST, Slow).

captures_follow_each_other(Config) ->
    %% Requests that stand in one packet one after the other are given one after the other.
    Requests = [Request || {_, Request} <- captures(Config)],
    ?assertEqual({ok, lists:append([decoded(Request) || Request <- Requests])}, megaphone:parse_packet(iolist_to_binary(Requests))).

captures_cut_anywhere(Config) ->
    %% A request in two pieces, cut at any byte, or byte by byte, is read as a whole one, at once or step by step.
    lists:foreach(
        fun({Name, Request}) ->
            Expected = decoded(Request),
            Cuts = [[binary:part(Request, 0, At), binary:part(Request, At, byte_size(Request) - At)] || At <- lists:seq(0, byte_size(Request))],
            [
                begin
                    ?assertEqual({Name, {ok, Expected}}, {Name, with(Pieces, fun(Handle) -> megaphone:recv_packet(Handle, 1000) end)}),
                    ?assertEqual({Name, Expected}, {Name, with(Pieces, fun(Handle) -> steps(Handle, length(Expected)) end)})
                end
             || Pieces <- [[<<Byte>> || <<Byte>> <= Request] | Cuts]
            ]
        end,
        captures(Config)
    ).

captures_damaged(Config) ->
    %% Whatever bytes are changed, put in or left out: what the native step takes is what decode_packet makes of it.
    Seed = erlang:unique_integer(),
    ct:log("seed ~b", [Seed]),
    lists:foldl(
        fun({Name, Request}, Rand) -> damaged(Name, Request, ?DAMAGED, Rand) end, rand:seed_s(exsss, Seed), captures(Config)
    ).

every_known_name(_Config) ->
    %% Each name and field of which terms are ready is given as decode_packet gives it, in any case of its letters.
    Templates = tuple_to_list(megaphone_packet:templates()),
    Names = [Text || Text <- Templates, is_binary(Text)],
    Fields = [[Name, ": ", Value] || {http_header, _, _, Name, Value} <- Templates],
    ?assert(length(Names) > 60 andalso length(Fields) > 30),
    Lines =
        [[Change(Name), ": some value"] || Name <- Names, Change <- [fun(N) -> N end, fun string:lowercase/1, fun string:uppercase/1]] ++
            [Line || Field <- Fields, Line <- [Field, [Field, "x"], [Field, " "], string:lowercase(Field)]],
    lists:foreach(
        fun(Line) ->
            %% Two names say something of a body; what that means is tried elsewhere.
            Request = iolist_to_binary(["GET / HTTP/1.", integer_to_list(rand:uniform(2) - 1), "\r\n", Line, "\r\n\r\n"]),
            case natively(Request) of
                slow -> ok;
                Parsed -> ?assertEqual({ok, decoded(Request)}, Parsed)
            end
        end,
        Lines
    ).

%% ---- helpers ---------------------------------------------------------------------------------------------------

-spec captures(ct_suite:ct_config()) -> [{file:filename(), binary()}].
captures(Config) ->
    Files = lists:sort(filelib:wildcard(filename:join(?config(data_dir, Config), "*.http"))),
    [{filename:basename(File), element(2, {ok, _} = file:read_file(File))} || File <- Files].

natively(Data) ->
    megaphone_nif:parse_packet(Data, megaphone_packet:templates()).

%% Without the native step: start line, fields, the body as long as Content-Length says.
decoded(Request) ->
    {ok, First, Rest} = erlang:decode_packet(http_bin, Request, []),
    [First | fields(Rest, 0)].

fields(Data, Length) ->
    case erlang:decode_packet(httph_bin, Data, []) of
        {ok, http_eoh, Rest} when Length =:= 0 -> [http_eoh | rest(Rest)];
        {ok, http_eoh, Rest} ->
            <<Body:Length/binary, Others/binary>> = Rest,
            [http_eoh, Body | rest(Others)];
        {ok, {http_header, _, 'Content-Length', _, Value} = Field, Rest} -> [Field | fields(Rest, binary_to_integer(Value))];
        {ok, Field, Rest} -> [Field | fields(Rest, Length)]
    end.

%% What follows is another packet's matter.
rest(<<>>) -> [];
rest(Rest) -> [{rest, Rest}].

with(Pieces, Use) ->
    Handle = open(http_bin),
    [ok = megaphone:put_data(Handle, Piece) || Piece <- Pieces],
    Result = Use(Handle),
    ok = megaphone:close(Handle),
    Result.

steps(Handle, Count) ->
    [element(2, {ok, _} = megaphone:recv(Handle, 1000)) || _ <- lists:seq(1, Count)].

damaged(_Name, _Request, 0, Rand) ->
    Rand;
damaged(Name, Request, Count, Rand0) ->
    {Changes, Rand1} = rand:uniform_s(3, Rand0),
    {Data, Rand} = damage(Request, Changes, Rand1),
    case natively(Data) of
        slow -> ok;
        {ok, Results} -> ?assertEqual({Name, Data, decoded(Data)}, {Name, Data, Results});
        {more, Results, Rest} -> ?assertEqual({Name, Data, decoded(Data)}, {Name, Data, Results ++ [{rest, Rest}]})
    end,
    damaged(Name, Request, Count - 1, Rand).

damage(Data, 0, Rand) ->
    {Data, Rand};
damage(Data, Changes, Rand0) ->
    {At, Rand1} = rand:uniform_s(byte_size(Data), Rand0),
    {Kind, Rand2} = rand:uniform_s(3, Rand1),
    {Byte, Rand} = byte(Rand2),
    <<Before:(At - 1)/binary, Old, After/binary>> = Data,
    Changed =
        case Kind of
            1 -> <<Before/binary, Byte, After/binary>>;
            2 -> <<Before/binary, Byte, Old, After/binary>>;
            3 -> <<Before/binary, After/binary>>
        end,
    damage(Changed, Changes - 1, Rand).

%% Those that mean something come more often than others.
byte(Rand0) ->
    Marks = "\r\n :\t,;/?*%-0129aZ\0\x7f\xff",
    case rand:uniform_s(3, Rand0) of
        {1, Rand} ->
            {Byte, Next} = rand:uniform_s(256, Rand),
            {Byte - 1, Next};
        {_, Rand} ->
            {At, Next} = rand:uniform_s(length(Marks), Rand),
            {lists:nth(At, Marks), Next}
    end.
