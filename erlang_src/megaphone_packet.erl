%% @private
%% @doc Takes a complete HTTP packet apart, into what {@link erlang:decode_packet/3} gives for its pieces.
%%
%% Request heads of the strict common form are taken apart natively in one step; all others by decode_packet itself.
-module(megaphone_packet).

-export([parse/1, recv/2, take_request/1, templates/0]).
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

%% @doc Of each field that decode_packet knows, and of some others that are frequent, its index, its name, and the name as it
%% is mostly written; then the versions; then whole fields that are sent often. They are literals: no request has to make them
%% anew. See {@link megaphone_nif:parse_packet/2}.
-spec templates() -> megaphone_nif:templates().
templates() -> {
    1, 'Cache-Control', <<"Cache-Control">>,
    2, 'Connection', <<"Connection">>,
    3, 'Date', <<"Date">>,
    4, 'Pragma', <<"Pragma">>,
    5, 'Transfer-Encoding', <<"Transfer-Encoding">>,
    6, 'Upgrade', <<"Upgrade">>,
    7, 'Via', <<"Via">>,
    8, 'Accept', <<"Accept">>,
    9, 'Accept-Charset', <<"Accept-Charset">>,
    10, 'Accept-Encoding', <<"Accept-Encoding">>,
    11, 'Accept-Language', <<"Accept-Language">>,
    12, 'Authorization', <<"Authorization">>,
    13, 'From', <<"From">>,
    14, 'Host', <<"Host">>,
    15, 'If-Modified-Since', <<"If-Modified-Since">>,
    16, 'If-Match', <<"If-Match">>,
    17, 'If-None-Match', <<"If-None-Match">>,
    18, 'If-Range', <<"If-Range">>,
    19, 'If-Unmodified-Since', <<"If-Unmodified-Since">>,
    20, 'Max-Forwards', <<"Max-Forwards">>,
    21, 'Proxy-Authorization', <<"Proxy-Authorization">>,
    22, 'Range', <<"Range">>,
    23, 'Referer', <<"Referer">>,
    24, 'User-Agent', <<"User-Agent">>,
    25, 'Age', <<"Age">>,
    26, 'Location', <<"Location">>,
    27, 'Proxy-Authenticate', <<"Proxy-Authenticate">>,
    28, 'Public', <<"Public">>,
    29, 'Retry-After', <<"Retry-After">>,
    30, 'Server', <<"Server">>,
    31, 'Vary', <<"Vary">>,
    32, 'Warning', <<"Warning">>,
    33, 'Www-Authenticate', <<"Www-Authenticate">>,
    34, 'Allow', <<"Allow">>,
    35, 'Content-Base', <<"Content-Base">>,
    36, 'Content-Encoding', <<"Content-Encoding">>,
    37, 'Content-Language', <<"Content-Language">>,
    38, 'Content-Length', <<"Content-Length">>,
    39, 'Content-Location', <<"Content-Location">>,
    40, 'Content-Md5', <<"Content-Md5">>,
    41, 'Content-Range', <<"Content-Range">>,
    42, 'Content-Type', <<"Content-Type">>,
    43, 'Etag', <<"Etag">>,
    44, 'Expires', <<"Expires">>,
    45, 'Last-Modified', <<"Last-Modified">>,
    46, 'Accept-Ranges', <<"Accept-Ranges">>,
    47, 'Set-Cookie', <<"Set-Cookie">>,
    48, 'Set-Cookie2', <<"Set-Cookie2">>,
    49, 'X-Forwarded-For', <<"X-Forwarded-For">>,
    50, 'Cookie', <<"Cookie">>,
    51, 'Keep-Alive', <<"Keep-Alive">>,
    52, 'Proxy-Connection', <<"Proxy-Connection">>,
    0, <<"Origin">>, <<"Origin">>,
    0, <<"Dnt">>, <<"DNT">>,
    0, <<"Priority">>, <<"Priority">>,
    0, <<"Upgrade-Insecure-Requests">>, <<"Upgrade-Insecure-Requests">>,
    0, <<"Sec-Fetch-Dest">>, <<"Sec-Fetch-Dest">>,
    0, <<"Sec-Fetch-Mode">>, <<"Sec-Fetch-Mode">>,
    0, <<"Sec-Fetch-Site">>, <<"Sec-Fetch-Site">>,
    0, <<"Sec-Fetch-User">>, <<"Sec-Fetch-User">>,
    0, <<"Sec-Websocket-Key">>, <<"Sec-WebSocket-Key">>,
    0, <<"Sec-Websocket-Version">>, <<"Sec-WebSocket-Version">>,
    0, <<"Sec-Websocket-Extensions">>, <<"Sec-WebSocket-Extensions">>,
    0, <<"Sec-Websocket-Protocol">>, <<"Sec-WebSocket-Protocol">>,
    0, <<"Sec-Ch-Ua">>, <<"sec-ch-ua">>,
    0, <<"Sec-Ch-Ua-Mobile">>, <<"sec-ch-ua-mobile">>,
    0, <<"Sec-Ch-Ua-Platform">>, <<"sec-ch-ua-platform">>,
    0, <<"Sec-Gpc">>, <<"Sec-GPC">>,
    0, <<"X-Requested-With">>, <<"X-Requested-With">>,
    0, <<"X-Forwarded-Proto">>, <<"X-Forwarded-Proto">>,
    0, <<"X-Real-Ip">>, <<"X-Real-IP">>,
    0, <<"Forwarded">>, <<"Forwarded">>,
    {1, 0}, {1, 1},
    {http_header, 1, 'Cache-Control', <<"Cache-Control">>, <<"no-cache">>},
    {http_header, 1, 'Cache-Control', <<"Cache-Control">>, <<"max-age=0">>},
    {http_header, 2, 'Connection', <<"Connection">>, <<"keep-alive">>},
    {http_header, 2, 'Connection', <<"Connection">>, <<"Keep-Alive">>},
    {http_header, 2, 'Connection', <<"Connection">>, <<"close">>},
    {http_header, 2, 'Connection', <<"Connection">>, <<"Upgrade">>},
    {http_header, 2, 'Connection', <<"Connection">>, <<"keep-alive, Upgrade">>},
    {http_header, 4, 'Pragma', <<"Pragma">>, <<"no-cache">>},
    {http_header, 6, 'Upgrade', <<"Upgrade">>, <<"websocket">>},
    {http_header, 8, 'Accept', <<"Accept">>, <<"*/*">>},
    {http_header, 10, 'Accept-Encoding', <<"Accept-Encoding">>, <<"gzip, deflate, br">>},
    {http_header, 10, 'Accept-Encoding', <<"Accept-Encoding">>, <<"gzip, deflate, br, zstd">>},
    {http_header, 10, 'Accept-Encoding', <<"Accept-Encoding">>, <<"gzip, deflate">>},
    {http_header, 10, 'Accept-Encoding', <<"Accept-Encoding">>, <<"gzip">>},
    {http_header, 11, 'Accept-Language', <<"Accept-Language">>, <<"en-US,en;q=0.9">>},
    {http_header, 11, 'Accept-Language', <<"Accept-Language">>, <<"en-US,en;q=0.5">>},
    {http_header, 38, 'Content-Length', <<"Content-Length">>, <<"0">>},
    {http_header, 42, 'Content-Type', <<"Content-Type">>, <<"text/xml; charset=utf-8">>},
    {http_header, 42, 'Content-Type', <<"Content-Type">>, <<"text/plain;charset=UTF-8">>},
    {http_header, 42, 'Content-Type', <<"Content-Type">>, <<"application/json">>},
    {http_header, 0, <<"Dnt">>, <<"DNT">>, <<"1">>},
    {http_header, 0, <<"Priority">>, <<"Priority">>, <<"u=0, i">>},
    {http_header, 0, <<"Priority">>, <<"Priority">>, <<"u=1, i">>},
    {http_header, 0, <<"Upgrade-Insecure-Requests">>, <<"Upgrade-Insecure-Requests">>, <<"1">>},
    {http_header, 0, <<"Sec-Fetch-Dest">>, <<"Sec-Fetch-Dest">>, <<"empty">>},
    {http_header, 0, <<"Sec-Fetch-Dest">>, <<"Sec-Fetch-Dest">>, <<"document">>},
    {http_header, 0, <<"Sec-Fetch-Dest">>, <<"Sec-Fetch-Dest">>, <<"websocket">>},
    {http_header, 0, <<"Sec-Fetch-Mode">>, <<"Sec-Fetch-Mode">>, <<"cors">>},
    {http_header, 0, <<"Sec-Fetch-Mode">>, <<"Sec-Fetch-Mode">>, <<"navigate">>},
    {http_header, 0, <<"Sec-Fetch-Mode">>, <<"Sec-Fetch-Mode">>, <<"websocket">>},
    {http_header, 0, <<"Sec-Fetch-Site">>, <<"Sec-Fetch-Site">>, <<"same-origin">>},
    {http_header, 0, <<"Sec-Fetch-Site">>, <<"Sec-Fetch-Site">>, <<"same-site">>},
    {http_header, 0, <<"Sec-Fetch-Site">>, <<"Sec-Fetch-Site">>, <<"cross-site">>},
    {http_header, 0, <<"Sec-Fetch-Site">>, <<"Sec-Fetch-Site">>, <<"none">>},
    {http_header, 0, <<"Sec-Fetch-User">>, <<"Sec-Fetch-User">>, <<"?1">>},
    {http_header, 0, <<"Sec-Websocket-Version">>, <<"Sec-WebSocket-Version">>, <<"13">>},
    {http_header, 0, <<"Sec-Websocket-Extensions">>, <<"Sec-WebSocket-Extensions">>, <<"permessage-deflate; client_max_window_bits">>},
    {http_header, 0, <<"Sec-Websocket-Extensions">>, <<"Sec-WebSocket-Extensions">>, <<"permessage-deflate">>},
    {http_header, 0, <<"Sec-Websocket-Protocol">>, <<"Sec-WebSocket-Protocol">>, <<"xmpp">>},
    {http_header, 0, <<"Sec-Ch-Ua-Mobile">>, <<"sec-ch-ua-mobile">>, <<"?0">>},
    {http_header, 0, <<"Sec-Ch-Ua-Mobile">>, <<"sec-ch-ua-mobile">>, <<"?1">>},
    {http_header, 0, <<"Sec-Gpc">>, <<"Sec-GPC">>, <<"1">>},
    {http_header, 0, <<"X-Forwarded-Proto">>, <<"X-Forwarded-Proto">>, <<"https">>},
    {http_header, 0, <<"X-Forwarded-Proto">>, <<"X-Forwarded-Proto">>, <<"http">>}
}.

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
start(Data, Before) ->
    case megaphone_nif:parse_packet(Data, templates()) of
        {ok, Results} -> {ok, lists:reverse(Before, Results)};
        {more, Results, Rest} -> start(Rest, lists:reverse(Results, Before));
        slow -> first_line(Data, Before)
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

%% @doc See {@link megaphone:recv_packet/2}.
-spec recv(megaphone:handle(), timeout()) ->
    {ok, [result(), ...]} | {error, megaphone:recv_error() | {incomplete, megaphone:recv_error(), [result(), ...]}}.
recv(Handle, Timeout) ->
    case megaphone_nif:recv_packet(Handle, templates()) of
        slow -> step_by_step(Handle, Timeout);
        Answer -> Answer
    end.

%% @doc See {@link megaphone_nif:take_request/2}.
-spec take_request(megaphone:handle()) -> {ok, [result(), ...]} | slow | {error, closed}.
take_request(Handle) ->
    megaphone_nif:take_request(Handle, templates()).

-spec step_by_step(megaphone:handle(), timeout()) ->
    {ok, [result(), ...]} | {error, megaphone:recv_error() | {incomplete, megaphone:recv_error(), [result(), ...]}}.
step_by_step(Handle, Timeout) ->
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
