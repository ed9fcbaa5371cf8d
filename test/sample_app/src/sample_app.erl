%% @doc The smallest use of Megaphone from Erlang: a virtual connection without a link, input put in as if a client
%% had sent it, read as parsed packets by another process, and an answer taken out.
-module(sample_app).

-export([request/2]).

-type request() :: #{method := atom() | binary(), path := binary(), headers := #{atom() | binary() => binary()}}.

%% @doc Puts `Input', cut into `Pieces', through a virtual connection of its own to a reader, which answers.
%% Returns the request as the reader saw it, and the bytes of the answer.
-spec request([binary()], binary()) -> {ok, request(), Answer :: binary()} | {error, term()}.
request(Pieces, Answer) ->
    {ok, Handle} = megaphone:open(#{peer => {{192, 0, 2, 7}, 51000}}),
    Self = self(),
    {Reader, Monitor} = spawn_monitor(fun() -> Self ! {self(), serve(Handle, Answer)} end),
    lists:foreach(fun(Piece) -> ok = megaphone:put_data(Handle, Piece) end, Pieces),
    receive
        {Reader, {ok, Request}} ->
            {ok, Request, output(Handle, <<>>)};
        {Reader, {error, _} = Error} ->
            Error;
        {'DOWN', Monitor, process, Reader, Reason} ->
            {error, Reason}
    after 5000 ->
        {error, timeout}
    end.

serve(Handle, Answer) ->
    case megaphone:recv(Handle) of
        {ok, {http_request, Method, {abs_path, Path}, _Version}} ->
            case headers(Handle, #{}) of
                {ok, Headers} ->
                    ok = megaphone:send(Handle, Answer),
                    ok = megaphone:close(Handle),
                    {ok, #{method => Method, path => Path, headers => Headers}};
                {error, _} = Error ->
                    Error
            end;
        {ok, {http_error, _} = Error} ->
            {error, Error};
        {error, _} = Error ->
            Error
    end.

headers(Handle, Headers) ->
    case megaphone:recv(Handle) of
        {ok, {http_header, _, Name, _, Value}} -> headers(Handle, Headers#{Name => Value});
        {ok, http_eoh} -> {ok, Headers};
        {ok, {http_error, _} = Error} -> {error, Error};
        {error, _} = Error -> Error
    end.

%% All that was sent, until the connection has ended.
output(Handle, Sofar) ->
    case megaphone:output(Handle) of
        {ok, Bytes} ->
            output(Handle, <<Sofar/binary, Bytes/binary>>);
        empty ->
            receive
                {megaphone_output, Handle} -> output(Handle, Sofar)
            end;
        {error, closed} ->
            Sofar
    end.
