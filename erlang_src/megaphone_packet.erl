%% @private
%% @doc Takes a complete HTTP packet apart, into what {@link erlang:decode_packet/3} gives for its pieces.
%%
%% Request heads of the strict common form are taken apart natively in one step; all others by decode_packet itself.
-module(megaphone_packet).

-export([parse/1, recv/2]).
-export_type([result/0, error/0]).

-type result() ::
    {http_request, Method :: atom() | binary(), Uri :: term(), Version :: {non_neg_integer(), non_neg_integer()}}
    | {http_response, Version :: {non_neg_integer(), non_neg_integer()}, Status :: integer(), Reason :: binary()}
    | {http_header, integer(), Field :: atom() | binary(), Unmodified :: binary(), Value :: binary()}
    | http_eoh
    | (Body :: binary()).

-type error() ::
    incomplete
    | bad_request
    | bad_header
    | bad_content_length
    | {unsupported, transfer_encoding}.

%% 2^53 has 16 digits. More would only make a huge integer of the peer's text.
-define(LENGTH_DIGITS, 16).

%% @doc Parses one or several complete requests or responses that follow each other.
%%
%% A body is as long as Content-Length says; without that field there is none. An empty body is left out.
%% Chunked bodies are refused: the ECM sends none. Linear in the size of the packet.
-spec parse(binary()) -> {ok, [result()]} | {error, error()}.
parse(Packet) when is_binary(Packet) ->
    start(Packet, []).

-spec start(binary(), [result()]) -> {ok, [result()]} | {error, error()}.
start(<<>>, [_ | _] = Results) ->
    {ok, lists:reverse(Results)};
start(Data, Results) ->
    case megaphone_nif:parse_head(Data) of
        {ok, Head, Length} ->
            <<_:Length/binary, Rest/binary>> = Data,
            case body_length(Head, undefined) of
                {ok, BodyLength} -> body(Rest, BodyLength, lists:reverse(Head, Results));
                {error, _} = Error -> Error
            end;
        slow ->
            first_line(Data, Results)
    end.

-spec body_length([result()], undefined | non_neg_integer()) ->
    {ok, undefined | non_neg_integer()} | {error, error()}.
body_length([{http_header, _, 'Content-Length', _, Value} | Rest], Length) ->
    case content_length(Value) of
        {ok, Other} when Length =/= undefined, Other =/= Length -> {error, bad_content_length};
        {ok, New} -> body_length(Rest, New);
        error -> {error, bad_content_length}
    end;
body_length([{http_header, _, 'Transfer-Encoding', _, _} | _], _Length) ->
    {error, {unsupported, transfer_encoding}};
body_length([_ | Rest], Length) ->
    body_length(Rest, Length);
body_length([], Length) ->
    {ok, Length}.

-spec first_line(binary(), [result()]) -> {ok, [result()]} | {error, error()}.
first_line(Data, Results) ->
    case erlang:decode_packet(http_bin, Data, []) of
        {ok, {http_error, _Line}, _Rest} -> {error, bad_request};
        {ok, First, Rest} -> headers(Rest, undefined, [First | Results]);
        {more, _} -> {error, incomplete};
        {error, _} -> {error, bad_request}
    end.

-spec headers(binary(), undefined | non_neg_integer(), [result()]) -> {ok, [result()]} | {error, error()}.
headers(Data, Length, Results) ->
    case erlang:decode_packet(httph_bin, Data, []) of
        {ok, http_eoh, Rest} ->
            body(Rest, Length, [http_eoh | Results]);
        {ok, {http_header, _, Name, _, _} = Header, Rest} when Name =:= 'Content-Length'; Name =:= 'Transfer-Encoding' ->
            case body_length([Header], Length) of
                {ok, New} -> headers(Rest, New, [Header | Results]);
                {error, _} = Error -> Error
            end;
        {ok, {http_header, _, _, _, _} = Header, Rest} ->
            headers(Rest, Length, [Header | Results]);
        {more, _} ->
            {error, incomplete};
        _ ->
            {error, bad_header}
    end.

-spec body(binary(), undefined | non_neg_integer(), [result()]) -> {ok, [result()]} | {error, error()}.
body(Data, Length, Results) when Length =:= undefined; Length =:= 0 ->
    start(Data, Results);
body(Data, Length, Results) ->
    case Data of
        <<Body:Length/binary, Rest/binary>> -> start(Rest, [Body | Results]);
        _ -> {error, incomplete}
    end.

%% Digits only: binary_to_integer/1 would take a sign.
-spec content_length(binary()) -> {ok, non_neg_integer()} | error.
content_length(Value) when byte_size(Value) > 0, byte_size(Value) =< ?LENGTH_DIGITS ->
    case [Digit || <<Digit>> <= Value, Digit < $0 orelse Digit > $9] of
        [] -> {ok, binary_to_integer(Value)};
        _ -> error
    end;
content_length(_Value) ->
    error.

%% @doc Reads a packet from a connection step by step. See {@link megaphone:recv_packet/2}.
-spec recv(megaphone:handle(), timeout()) ->
    {ok, [result(), ...]} | {error, megaphone:recv_error() | {incomplete, megaphone:recv_error(), [result(), ...]}}.
recv(Handle, Timeout) ->
    Until =
        case Timeout of
            infinity -> infinity;
            _ -> erlang:monotonic_time(millisecond) + Timeout
        end,
    case megaphone:recv(Handle, Timeout) of
        {ok, First} -> recv(First, Handle, Until, none, []);
        {error, _} = Error -> Error
    end.

%% `Length' is that of the body that is still to come.
-spec recv(result() | {http_error, binary()}, megaphone:handle(), integer() | infinity, Length, [result()]) ->
    {ok, [result(), ...]} | {error, {incomplete, megaphone:recv_error(), [result(), ...]}}
when
    Length :: none | non_neg_integer().
recv({http_error, _} = Error, _Handle, _Until, _Length, Results) ->
    {ok, lists:reverse(Results, [Error])};
recv(http_eoh, _Handle, _Until, Length, Results) when Length =:= none; Length =:= 0 ->
    {ok, lists:reverse(Results, [http_eoh])};
recv(Body, _Handle, _Until, Length, Results) when is_binary(Body), byte_size(Body) >= Length ->
    {ok, lists:reverse(Results, [Body])};
recv(Result, Handle, Until, Length0, Results0) ->
    Results = [Result | Results0],
    Length = left(Result, Length0),
    case megaphone:recv(Handle, time_left(Until)) of
        {ok, Next} -> recv(Next, Handle, Until, Length, Results);
        {error, Reason} -> {error, {incomplete, Reason, lists:reverse(Results)}}
    end.

-spec left(result(), none | non_neg_integer()) -> none | non_neg_integer().
left({http_header, _, 'Content-Length', _, Value}, Length) ->
    case content_length(string:trim(Value)) of
        {ok, New} -> New;
        error -> Length
    end;
left(Body, Length) when is_binary(Body) ->
    %% A body too long to be handed out whole comes in pieces.
    Length - byte_size(Body);
left(_Other, Length) ->
    Length.

-spec time_left(integer() | infinity) -> timeout().
time_left(infinity) -> infinity;
time_left(Until) -> max(0, Until - erlang:monotonic_time(millisecond)).
