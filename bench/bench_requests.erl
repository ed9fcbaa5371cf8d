%% Requests as clients send them, and what erlang:decode_packet/3 makes of them, which is what every reader must get.
-module(bench_requests).

-export([bosh/1, bosh_size/0, variants/0, all_variants/0, captures/0, decode/1]).
-export_type([packets/0]).

-type packets() :: [term()].
%% Request line, header fields, http_eoh and the body, which is left out when empty.

%% Requests that differ: data that went to a wrong connection would not be noticed otherwise. A prime number, so that
%% it does not go in step with anything; few, so that looking them up does not cost more than what is measured.
-define(VARIANTS, 101).

%% @doc A poll of a browser's BOSH client, 368 bytes. The number makes the request id, so each is another request.
-spec bosh(0..999999) -> binary().
bosh(Number) ->
    Body = <<
        "<body rid='", (integer_to_binary(827000000 + Number))/binary,
        "' xmlns='http://jabber.org/protocol/httpbind' sid='5fd3ed2b1c774b0a'/>"
    >>,
    <<
        "POST /bosh HTTP/1.1\r\n"
        "Host: chat.example.org\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: gzip, deflate, br\r\n"
        "Content-Type: text/xml; charset=utf-8\r\n"
        "Content-Length: ", (integer_to_binary(byte_size(Body)))/binary, "\r\n"
        "Origin: https://example.org\r\n"
        "Connection: keep-alive\r\n"
        "\r\n",
        Body/binary
    >>.

%% @doc Their size, which the design quotes; a request of another size is a mistake here.
-spec bosh_size() -> 368.
bosh_size() ->
    368 = byte_size(bosh(0)).

-spec variants() -> pos_integer().
variants() ->
    ?VARIANTS.

%% @doc The different requests, as parts of one binary, and what must come out: two tuples of variants() elements.
-spec all_variants() -> {Requests :: tuple(), Expected :: tuple()}.
all_variants() ->
    _ = bosh_size(),
    Input = << <<(bosh(Number))/binary>> || Number <- lists:seq(1, ?VARIANTS) >>,
    Requests = [binary:part(Input, 368 * At, 368) || At <- lists:seq(0, ?VARIANTS - 1)],
    {list_to_tuple(Requests), list_to_tuple([decode(binary:copy(Request)) || Request <- Requests])}.

%% @doc Named requests of several kinds.
-spec captures() -> [{Name :: binary(), Request :: binary()}].
captures() ->
    [
        {<<"BOSH POST">>, bosh(1)},
        {<<"browser GET">>, <<
            "GET /chat/index.html?room=lobby&lang=en HTTP/1.1\r\n"
            "Host: chat.example.org\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
            "Accept-Language: en-US,en;q=0.5\r\n"
            "Accept-Encoding: gzip, deflate, br, zstd\r\n"
            "Referer: https://www.example.org/community\r\n"
            "DNT: 1\r\n"
            "Connection: keep-alive\r\n"
            "Cookie: session=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08; theme=dark; "
            "consent=necessary%2Cstatistics; _ga=GA1.2.1188273645.1719931200; lastroom=lobby\r\n"
            "Upgrade-Insecure-Requests: 1\r\n"
            "Sec-Fetch-Dest: document\r\n"
            "Sec-Fetch-Mode: navigate\r\n"
            "Sec-Fetch-Site: same-site\r\n"
            "Sec-Fetch-User: ?1\r\n"
            "Priority: u=0, i\r\n"
            "\r\n"
        >>},
        {<<"WebSocket upgrade">>, <<
            "GET /ws HTTP/1.1\r\n"
            "Host: chat.example.org\r\n"
            "Connection: Upgrade\r\n"
            "Pragma: no-cache\r\n"
            "Cache-Control: no-cache\r\n"
            "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/126.0.0.0 Safari/537.36\r\n"
            "Upgrade: websocket\r\n"
            "Origin: https://example.org\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Accept-Encoding: gzip, deflate, br, zstd\r\n"
            "Accept-Language: en-US,en;q=0.9\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            "Sec-WebSocket-Protocol: xmpp\r\n"
            "\r\n"
        >>},
        {<<"PUT head">>, <<
            "PUT /upload/2c26b46b68ffc68f/holiday.jpg HTTP/1.1\r\n"
            "Host: upload.example.org:5443\r\n"
            "User-Agent: Conversations/2.16.4\r\n"
            "Accept-Encoding: gzip\r\n"
            "Content-Type: image/jpeg\r\n"
            "Content-Length: 0\r\n"
            "Authorization: Bearer 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\r\n"
            "Connection: Keep-Alive\r\n"
            "\r\n"
        >>}
    ].

%% @doc The packets of one complete request, by the loop over erlang:decode_packet/3 that everybody writes.
-spec decode(binary()) -> packets().
decode(Request) ->
    {ok, First, Rest} = erlang:decode_packet(http_bin, Request, []),
    [First | fields(Rest)].

-spec fields(binary()) -> packets().
fields(Data) ->
    case erlang:decode_packet(httph_bin, Data, []) of
        {ok, http_eoh, <<>>} -> [http_eoh];
        {ok, http_eoh, Body} -> [http_eoh, Body];
        {ok, Field, Rest} -> [Field | fields(Rest)]
    end.
