%% A request handler for ejabberd_http: it answers what a test can check, and can be held while it answers.
-module(megaphone_test_handler).

-include("megaphone_test.hrl").

-export([start/0, process/2, held/1, do/2, answer/2, bytes/1, echo/4, request_debug/1, seen/0, recorded/0]).
-export_type([record/0]).

%% Places in ejabberd's #request{} record, the same in all versions since 21.01. Its header file is not included, so
%% that the tests compile without ejabberd.
-define(METHOD, 2).
-define(RAW_PATH, 4).
-define(DATA, 9).
-define(IP, 10).
-define(HOST, 11).
-define(PORT, 12).
-define(OPTS, 13).
-define(SCHEME, 14).
-define(LENGTH, 16).
-define(SOCKET, 18).

-define(TABLE, ?MODULE).

-type record() :: {Method :: atom(), Path :: binary(), Host :: binary(), Body :: binary()}.
-define(BLOCK, 1000).

%% In the node, before ejabberd: a table of the requests that are held.
-spec start() -> ok.
start() ->
    Self = self(),
    Owner = spawn(fun() ->
        ?TABLE = ets:new(?TABLE, [named_table, public]),
        Self ! {self(), ready},
        receive after infinity -> ok end
    end),
    ?assertReceive({Owner, ready}),
    ok.

%% `echo': what came. `bytes/N': N bytes. `hold/KEY': as the test says. `close': the last answer of the connection.
%% `url': that of the server, as the request tells it, and whether the listener's options have TLS.
%% `record/WHATEVER': what came is kept for recorded/0, and its path is the answer.
%% `die' and `crash': none.
-spec process([binary()], tuple()) -> term().
process([<<"echo">>], Request) ->
    Data = element(?DATA, Request),
    {200, [], echo(element(?METHOD, Request), element(?RAW_PATH, Request), Data, element(?IP, Request))};
process([<<"bytes">>, Count], _Request) ->
    {200, [{<<"Content-Type">>, <<"application/octet-stream">>}], bytes(binary_to_integer(Count))};
process([<<"hold">>, Key], Request) ->
    true = ets:insert(?TABLE, {Key, self(), element(?SOCKET, Request)}),
    hold(Request);
process([<<"url">>], Request) ->
    [Scheme, Host, Port, Opts] = [element(Place, Request) || Place <- [?SCHEME, ?HOST, ?PORT, ?OPTS]],
    {200, [], io_lib:format("~s://~s:~b ~p", [Scheme, Host, Port, proplists:get_bool(tls, Opts)])};
process([<<"record">> | _], Request) ->
    [Method, Path, Host, Data] = [element(Place, Request) || Place <- [?METHOD, ?RAW_PATH, ?HOST, ?DATA]],
    true = ets:insert(?TABLE, {{recorded, erlang:unique_integer([monotonic])}, {Method, Path, Host, Data}}),
    {200, [], Path};
process([<<"die">>], _Request) ->
    exit(self(), kill);
process([<<"crash">>], _Request) ->
    error(crash_of_a_test);
process(_, _Request) ->
    {404, [], <<"not here">>}.

%% For the hook http_request_debug: counts.
-spec request_debug({[binary()], tuple()}) -> ok.
request_debug({_LocalPath, Request}) when element(1, Request) =:= request ->
    _ = ets:update_counter(?TABLE, seen, 1, {seen, 0}),
    ok.

%% In the node: how many requests the hook has seen.
-spec seen() -> non_neg_integer().
seen() ->
    lists:sum([Count || {seen, Count} <- ets:lookup(?TABLE, seen)]).

%% In the node: the requests that were recorded since the last call, in their order.
-spec recorded() -> [record()].
recorded() ->
    Records = lists:sort(ets:match_object(?TABLE, {{recorded, '_'}, '_'})),
    true = ets:match_delete(?TABLE, {{recorded, '_'}, '_'}),
    [Record || {_, Record} <- Records].

%% The body that `echo' answers.
-spec echo(atom(), binary(), binary(), {inet:ip_address(), inet:port_number()}) -> binary().
echo(Method, Path, Data, {Ip, Port}) ->
    Hash = binary:encode_hex(erlang:md5(Data)),
    iolist_to_binary(io_lib:format("~s ~s ~b ~s ~s ~b", [Method, Path, byte_size(Data), Hash, inet:ntoa(Ip), Port])).

%% Always the same so many bytes: the beginning of one endless row, in which no two blocks are equal.
-spec bytes(non_neg_integer()) -> binary().
bytes(Count) ->
    {Noise, _} = rand:bytes_s(?BLOCK - 4, rand:seed_s(exsss, 1)),
    binary:part(<< <<Number:32, Noise/binary>> || Number <- lists:seq(0, Count div ?BLOCK) >>, 0, Count).

-spec hold(tuple()) -> term().
hold(Request) ->
    receive
        {answer, Answer} ->
            Answer;
        {do, From, Fun} ->
            From ! {self(), Fun(element(?SOCKET, Request), element(?DATA, Request))},
            hold(Request)
    end.

%% In the node: the process that holds the request, and its socket.
-spec held(binary()) -> {pid(), term()}.
held(Key) ->
    ok = megaphone_test:wait_until(fun() -> ets:member(?TABLE, Key) end),
    [{Key, Pid, Socket}] = ets:lookup(?TABLE, Key),
    {Pid, Socket}.

%% In the node: has the process that holds a request do something with its socket and what came of the body so far.
-spec do(binary(), fun((term(), binary()) -> Result)) -> Result.
do(Key, Fun) ->
    {Pid, _Socket} = held(Key),
    Pid ! {do, self(), Fun},
    element(2, ?assertReceive({Pid, _})).

%% In the node: lets the process answer.
-spec answer(binary(), term()) -> ok.
answer(Key, Answer) ->
    {Pid, _Socket} = held(Key),
    true = ets:delete(?TABLE, Key),
    Pid ! {answer, Answer},
    ok.
