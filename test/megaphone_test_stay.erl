%% Users that stay: each a real client (test/clients/stay.mjs, or another one that is driven so) that talks by BOSH or WebSocket, told what to do by a test.
-module(megaphone_test_stay).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test_program, [await_line/2, await_line/3, await_exit/1, tell/2, text/2]).

-export([register/2, start/3, start/4, start_program/5, connected/2, assert_talk/3, leave/1]).
-export_type([user/0]).

-type user() :: {megaphone_test_program:program(), Jid :: binary()}.

-define(PASSWORD, "pass-of-a-test").

%% Makes an account, unless it is there.
-spec register(megaphone_test_node:node_info(), string()) -> ok.
register(Node, User) ->
    case megaphone_test_node:register_user(Node, list_to_binary(User), <<?PASSWORD>>) of
        ok -> ok;
        {error, exists} -> ok
    end.

%% A user with an account, logged in; `Options' are those of stay.mjs.
-spec start(Url :: string(), User :: string(), Options :: [string()]) -> user().
start(Url, User, Options) ->
    start(Url, User, Options, ?DEADLINE).

%% The same, within so many milliseconds.
-spec start(string(), string(), [string()], timeout()) -> user().
start(Url, User, Options, Within) ->
    start_program("stay.mjs", Url, User, Options, Within).

%% The same with another program of test/clients.
-spec start_program(string(), string(), string(), [string()], timeout()) -> user().
start_program(Name, Url, User, Options, Within) ->
    Account = ["--url", Url, "--domain", "localhost", "--user", User, "--passwords", ?PASSWORD],
    connected(megaphone_test_program:client(Name, Account ++ Options), Within).

%% The user behind a client when it has logged in, for the first time or anew.
-spec connected(megaphone_test_program:program(), timeout()) -> user().
connected(Program, Within) ->
    {Program, text("jid", await_line(Program, "\"connected\"", Within))}.

%% What one says the other hears.
-spec assert_talk(user(), user(), binary()) -> ok.
assert_talk({From, _}, {To, Jid}, Text) ->
    ok = tell(From, ["send ", Jid, " ", Text]),
    ?assertEqual(Text, text("body", await_line(To, "\"message\""))).

%% All log out, in good order.
-spec leave([user()]) -> ok.
leave(Users) ->
    [ok = tell(Program, "quit") || {Program, _} <- Users],
    [?assertMatch({0, _}, await_exit(Program)) || {Program, _} <- Users],
    ok.
