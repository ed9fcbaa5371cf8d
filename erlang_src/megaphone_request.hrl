%% A request as handlers of ejabberd_http get it.
%% As in ejabberd_http.hrl, unchanged from ejabberd 21.01 to 26.07; see poll_SUITE. The header is not included, so that
%% this builds without ejabberd.
-record(request, {
    method :: atom(),
    path = [] :: [binary()],
    raw_path :: binary(),
    q = [] :: [{binary() | nokey, binary()}],
    us = {<<>>, <<>>} :: {binary(), binary()},
    auth :: undefined,
    lang = <<>> :: binary(),
    data = <<>> :: binary(),
    ip :: megaphone_nif:address(),
    host = <<>> :: binary(),
    port = 80 :: inet:port_number(),
    opts = [] :: list(),
    tp = http :: http | https,
    headers = [] :: [{atom() | binary(), binary()}],
    length = 0 :: non_neg_integer(),
    sockmod = gen_tcp :: gen_tcp,
    socket :: term()
}).
