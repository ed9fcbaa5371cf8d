%% @private
%% @doc Which of gen_tcp's options a virtual connection has, which mean nothing to it, and which it refuses.
-module(megaphone_socket_options).

-export([check/1]).
-export_type([option/0]).

-type option() ::
    {active, megaphone_nif:active()}
    | {packet, megaphone_nif:packet()}
    | {send_timeout, timeout()}.

-define(MIN_ACTIVE, -32768).
-define(MAX_ACTIVE, 32767).

%% @doc The options that have to be set, in the order given. All or nothing.
-spec check([term()]) -> {ok, [option()]} | {error, einval}.
check(Opts) ->
    Checked = [option(Opt) || Opt <- Opts],
    case lists:member(invalid, Checked) of
        true -> {error, einval};
        false -> {ok, [Option || Option <- Checked, Option =/= ignored]}
    end.

-spec option(term()) -> option() | ignored | invalid.
option({active, Active} = Option) when is_boolean(Active); Active =:= once ->
    Option;
option({active, Count} = Option) when is_integer(Count), Count >= ?MIN_ACTIVE, Count =< ?MAX_ACTIVE ->
    Option;
option({packet, Packet}) when Packet =:= 0; Packet =:= raw ->
    {packet, raw};
option({packet, Packet} = Option) when
    Packet =:= http; Packet =:= http_bin; Packet =:= httph; Packet =:= httph_bin
->
    Option;
option({send_timeout, Time} = Option) when Time =:= infinity; is_integer(Time), Time >= 0 ->
    Option;
option(binary) ->
    ignored;
option({mode, binary}) ->
    ignored;
option({deliver, term}) ->
    ignored;
option({header, 0}) ->
    ignored;
option({raw, _Protocol, _Number, _Value}) ->
    ignored;
option({Name, _Value}) when is_atom(Name) ->
    case is_transport_option(Name) of
        true -> ignored;
        false -> invalid
    end;
option(_Other) ->
    invalid.

%% Options of gen_tcp that say how bytes travel. There is no transport here that they could tune.
-spec is_transport_option(atom()) -> boolean().
is_transport_option(Name) ->
    lists:member(Name, [
        nodelay, keepalive, buffer, recbuf, sndbuf, linger, reuseaddr, priority, tos, tclass, ttl, recvtos, recvtclass,
        recvttl, delay_send, high_watermark, low_watermark, high_msgq_watermark, low_msgq_watermark, packet_size,
        line_delimiter, exit_on_close, show_econnreset, send_timeout_close, ipv6_v6only, bind_to_device
    ]).
