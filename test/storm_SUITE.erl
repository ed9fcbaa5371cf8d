%% Many requests on many connections of several links at once, with a real ejabberd behind them: every answer is the
%% one to its own request, whatever else happens, and links may end at any moment.
-module(storm_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [run/1]).
-import(megaphone_test_link, [open/1, get_request/1, request/4, connect/1, send/2, next/2, disconnect/1]).

-define(LINKS, 6).
-define(IDS, 40).

suite() -> [{timetrap, {seconds, 120}}].

all() -> [every_answer_belongs_to_its_request, links_end_at_any_moment].

init_per_suite(Config) ->
    Listener = megaphone_test_node:listener(megaphone, 1, [megaphone_test_node:handlers()]),
    Node = megaphone_test_node:start(proplists:get_value(priv_dir, Config), [Listener]),
    [{node, Node}, {address, megaphone_test_node:address(Node, megaphone)} | Config].

end_per_suite(Config) ->
    megaphone_test_node:stop_without_errors(proplists:get_value(node, Config)).

init_per_testcase(_Case, Config) -> Config.

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() -> megaphone_test_node:assert_quiet(proplists:get_value(node, Config)) end).

every_answer_belongs_to_its_request(Config) ->
    %% Six links with 40 connections each, which ask, give up and ask again: every answer that comes is the right one,
    %% complete and in order, and in the end every connection is closed by both ends.
    Clients = [run(fun() -> client(Config, Seed, 1500, stay) end) || Seed <- lists:seq(1, ?LINKS)],
    Answered = [awaited(Client) || Client <- Clients],
    %% How many come before a client gives up depends on the machine and its load.
    ?assert(lists:all(fun(Count) -> Count > 0 end, Answered), Answered).

links_end_at_any_moment(Config) ->
    %% The same, and each link ends after a random time: by a close, by a reset, or with garbage.
    Clients = [
        run(fun() -> [client(Config, 100 * Seed + Round, 20 + 37 * Seed * Round rem 200, leave) || Round <- lists:seq(1, 12)], done end)
     || Seed <- lists:seq(1, ?LINKS)
    ],
    [?assertEqual(done, awaited(Client)) || Client <- Clients].

%% What a client says at its end. It has deadlines of its own.
awaited(Client) ->
    Monitor = monitor(process, Client),
    receive
        {Client, Result} ->
            demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Client, Reason} ->
            error(Reason)
    end.

%% ---- a client --------------------------------------------------------------------------------------------------

%% Each id is `closed', `idle', `closing', or has a request: what is expected, and what has come so far.
client(Config, Seed, Steps, How) ->
    Link = connect(proplists:get_value(address, Config)),
    State = steps(Link, Steps, #{}, rand:seed_s(exsss, Seed)),
    case {How, Seed rem 3} of
        {stay, _} ->
            finish(Link, State);
        {leave, 0} ->
            disconnect(Link);
        {leave, 1} ->
            ok = inet:setopts(Link, [{linger, {true, 0}}]),
            disconnect(Link);
        {leave, 2} ->
            _ = megaphone_test_link:send_bytes(Link, <<"garbage, not a frame">>),
            disconnect(Link)
    end,
    maps:get(answered, State, 0).

steps(_Link, 0, State, _Rand) ->
    State;
steps(Link, Steps, State0, Rand0) ->
    {Id, Rand1} = rand:uniform_s(?IDS, Rand0),
    {Kind, Rand} = rand:uniform_s(10, Rand1),
    State = act(Link, Id, Kind, maps:get(Id, State0, closed), State0, Steps),
    steps(Link, Steps - 1, receive_frames(Link, State, Steps rem 2), Rand).

act(Link, Id, Kind, closed, State, Unique) ->
    {Request, Expected} = request_of(Kind, Id, Unique),
    ok = send(Link, [open(Id), {data, Id, Request}]),
    State#{Id => {Expected, <<>>}};
act(Link, Id, Kind, idle, State, Unique) when Kind > 2 ->
    {Request, Expected} = request_of(Kind, Id, Unique),
    {First, Second} = split_binary(Request, byte_size(Request) div 2),
    ok = send(Link, {data, Id, First}),
    ok = send(Link, {data, Id, Second}),
    State#{Id => {Expected, <<>>}};
act(Link, Id, 1, Current, State, _Unique) when Current =/= closing ->
    ok = send(Link, {close, Id, 1}),
    State#{Id => closing};
act(_Link, _Id, _Kind, _Current, State, _Unique) ->
    State.

%% A request, and the body of its answer.
request_of(Kind, Id, Unique) when Kind < 5 ->
    Path = iolist_to_binary(io_lib:format("/test/echo?~b-~b", [Id, Unique])),
    {get_request(Path), megaphone_test_handler:echo('GET', Path, <<>>, {{192, 0, 2, 10}, 51000})};
request_of(Kind, Id, Unique) when Kind < 8 ->
    Path = iolist_to_binary(io_lib:format("/test/echo?~b-~b", [Id, Unique])),
    Body = binary:copy(<<Unique:32>>, 500 * Kind),
    {request("POST", Path, [], Body), megaphone_test_handler:echo('POST', Path, Body, {{192, 0, 2, 10}, 51000})};
request_of(Kind, _Id, Unique) ->
    Size = Kind * 100 * (1 + Unique rem 400),
    {get_request(["/test/bytes/", integer_to_list(Size)]), megaphone_test_handler:bytes(Size)}.

receive_frames(Link, State, Timeout) ->
    case next(Link, Timeout) of
        timeout -> State;
        Frame -> receive_frames(Link, frame(Link, Frame, State), 0)
    end.

frame(Link, {data, Id, Data}, State) ->
    ok = send(Link, {window, Id, byte_size(Data)}),
    case State of
        #{Id := {Expected, Got}} -> State#{Id := {Expected, <<Got/binary, Data/binary>>}};
        %% It was under way when we closed.
        #{Id := closing} -> State
    end;
frame(_Link, {ready, Id, 0}, State) ->
    case State of
        #{Id := {Expected, Got}} ->
            check(Id, Expected, Got),
            State#{Id := idle, answered => 1 + maps:get(answered, State, 0)};
        #{Id := closing} ->
            State
    end;
frame(_Link, {window, _Id, _Increment}, State) ->
    State;
frame(_Link, {close, Id, 0}, State) ->
    #{Id := closing} = State,
    State#{Id := closed}.

check(Id, Expected, Got) ->
    [Head, Body] = binary:split(Got, <<"\r\n\r\n">>),
    ?assertMatch(<<"HTTP/1.1 200 OK\r\n", _/binary>>, Head),
    Body =:= Expected orelse ?assertEqual({Id, byte_size(Expected), erlang:md5(Expected)}, {Id, byte_size(Body), erlang:md5(Body)}).

%% Waits for all answers, then closes all.
finish(Link, State) ->
    Idle = until(Link, State, fun(Current) -> not is_tuple(Current) end),
    Ids = [Id || {Id, idle} <- maps:to_list(Idle)],
    ok = send(Link, [{close, Id, 0} || Id <- Ids]),
    Closing = maps:merge(Idle, maps:from_list([{Id, closing} || Id <- Ids])),
    _ = until(Link, Closing, fun(Current) -> Current =:= closed end),
    disconnect(Link).

until(Link, State, Done) ->
    case lists:all(Done, maps:values(maps:remove(answered, State))) of
        true -> State;
        false -> until(Link, frame(Link, next(Link, ?DEADLINE), State), Done)
    end.
