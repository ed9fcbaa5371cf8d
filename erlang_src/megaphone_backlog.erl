%% @private
%% @doc What `{send_data, Handle, Data}' messages could not send at once, because the connection had no room.
%%
%% The process that holds it must not wait, so it keeps the rest and goes on when the table says that there is room.
%% Order is kept for each connection. Beyond the limits the connection is given up, because a hole in the data could
%% not be noticed by anybody: the caller closes it.
-module(megaphone_backlog).

-export([new/0, send/3, answer/3, info/1]).
-export_type([backlog/0, outcome/0]).

%% For one connection: four times what its output queue holds.
-define(MAX_CONNECTION, 262144).
%% For all of them together.
-define(MAX_TOTAL, 16777216).

-record(rest, {
    token :: megaphone_nif:token(),
    data :: iodata(),
    size :: non_neg_integer()
}).

-record(backlog, {
    rests = #{} :: #{megaphone_nif:handle() => #rest{}},
    waiting = #{} :: #{megaphone_nif:token() => megaphone_nif:handle()},
    total = 0 :: non_neg_integer()
}).

-opaque backlog() :: #backlog{}.
-type outcome() :: ok | {limit, megaphone_nif:handle(), pending_bytes}.

%% @doc An empty backlog.
-spec new() -> backlog().
new() ->
    #backlog{}.

%% @doc Sends, behind what waits already. Nothing is said of a closed connection, as in the original.
-spec send(megaphone_nif:handle(), binary(), backlog()) -> {outcome(), backlog()}.
send(Handle, Data, #backlog{rests = Rests} = Backlog) ->
    case Rests of
        #{Handle := #rest{data = Before, size = Size} = Rest} ->
            More = Rest#rest{data = [Before, Data], size = Size + byte_size(Data)},
            keep(Handle, More, forget(Handle, Backlog));
        #{} ->
            send_now(Handle, Data, Backlog)
    end.

%% @doc Takes the table's answer to a wait. One that is not known belongs to a connection that was given up.
-spec answer(megaphone_nif:token(), ok | {error, closed}, backlog()) -> {outcome(), backlog()}.
answer(Token, Answer, #backlog{waiting = Waiting, rests = Rests} = Backlog) ->
    case {Waiting, Answer} of
        {#{Token := Handle}, ok} ->
            #{Handle := #rest{data = Data}} = Rests,
            send_now(Handle, iolist_to_binary(Data), forget(Handle, Backlog));
        {#{Token := Handle}, {error, closed}} ->
            {ok, forget(Handle, Backlog)};
        {#{}, _} ->
            {ok, Backlog}
    end.

%% @doc Sizes only.
-spec info(backlog()) -> #{connections := non_neg_integer(), bytes := non_neg_integer()}.
info(#backlog{rests = Rests, total = Total}) ->
    #{connections => map_size(Rests), bytes => Total}.

-spec send_now(megaphone_nif:handle(), binary(), backlog()) -> {outcome(), backlog()}.
send_now(Handle, Data, Backlog) ->
    case megaphone_nif:send(Handle, Data) of
        {wait, Accepted, Token} ->
            Rest = binary:part(Data, Accepted, byte_size(Data) - Accepted),
            keep(Handle, #rest{token = Token, data = Rest, size = byte_size(Rest)}, Backlog);
        ok ->
            {ok, Backlog};
        {error, closed} ->
            {ok, Backlog}
    end.

-spec keep(megaphone_nif:handle(), #rest{}, backlog()) -> {outcome(), backlog()}.
keep(Handle, #rest{size = Size}, #backlog{total = Total} = Backlog) when
    Size > ?MAX_CONNECTION; Total + Size > ?MAX_TOTAL
->
    {{limit, Handle, pending_bytes}, Backlog};
keep(Handle, #rest{token = Token, size = Size} = Rest, Backlog) ->
    #backlog{rests = Rests, waiting = Waiting, total = Total} = Backlog,
    New = Backlog#backlog{
        rests = Rests#{Handle => Rest},
        waiting = Waiting#{Token => Handle},
        total = Total + Size
    },
    {ok, New}.

-spec forget(megaphone_nif:handle(), backlog()) -> backlog().
forget(Handle, #backlog{rests = Rests, waiting = Waiting, total = Total} = Backlog) ->
    {#rest{token = Token, size = Size}, Others} = maps:take(Handle, Rests),
    Backlog#backlog{rests = Others, waiting = maps:remove(Token, Waiting), total = Total - Size}.
