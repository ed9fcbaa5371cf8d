%% @private
%% @doc A walk through the client sessions of all users who come through Megaphone, some at a time. It holds nothing of those that it
%% has come by, so a million of them are no burden.
-module(megaphone_walk).

-export([start/0, step/2, kind/1, next_kind/1]).
-export_type([place/0, user/0, kind/0]).

-type kind() :: websocket | bosh.
-opaque place() :: {kind(), Cursor :: non_neg_integer()}.
-type user() :: {kind(), pid(), megaphone_nif:link_number()}.

%% @doc Where a walk begins.
-spec start() -> place().
start() ->
    {websocket, 0}.

%% @doc The next users, at most so many, and perhaps none although there are others. One native call, which ends the caller's
%% time slice. Who is there during the whole walk is found once; who comes or goes meanwhile may be.
-spec step(place(), pos_integer()) -> {[user()], place() | ended}.
step({websocket, Cursor}, Most) ->
    {Next, Passed} = megaphone_nif:walk(Cursor, xmpp, Most),
    Users = [{websocket, Pid, Link} || {{{Link, _, _, _}, _}, xmpp, _, _, _, _, Pid} <- Passed, is_pid(Pid)],
    case Next of
        done -> {Users, {bosh, 0}};
        _ -> {Users, {websocket, Next}}
    end;
step({bosh, Cursor}, Most) ->
    {Next, Found} = megaphone_nif:bosh_walk(Cursor, Most),
    Users = [{bosh, Pid, Link} || {Pid, Link} <- Found],
    case Next of
        done -> {Users, ended};
        _ -> {Users, {bosh, Next}}
    end.

%% @doc Whose users come next.
-spec kind(place()) -> kind().
kind({Kind, _Cursor}) -> Kind.

%% @doc Passes over the rest of a kind.
-spec next_kind(place()) -> place() | ended.
next_kind({websocket, _Cursor}) -> {bosh, 0};
next_kind({bosh, _Cursor}) -> ended.
