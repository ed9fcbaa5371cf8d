-module(sample_app_tests).

-include_lib("eunit/include/eunit.hrl").

-define(REQUEST, <<"POST /bosh?x=1 HTTP/1.1\r\nHost: example.org\r\nX-Sample: one two\r\n\r\n">>).

sample_test_() ->
    {setup,
        fun() -> {ok, Started} = application:ensure_all_started(sample_app), Started end,
        fun(Started) -> [ok = application:stop(App) || App <- lists:reverse(Started)] end,
        [
            {"a request in one piece", fun() -> check([?REQUEST]) end},
            {"a request byte by byte", fun() -> check([<<Byte>> || <<Byte>> <= ?REQUEST]) end},
            {"an unknown connection is closed at once", fun unknown/0},
            {"the README's example", fun readme/0}
        ]}.

check(Pieces) ->
    Answer = <<"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok">>,
    {ok, Request, Sent} = sample_app:request(Pieces, Answer),
    ?assertMatch(
        #{
            method := 'POST',
            path := <<"/bosh?x=1">>,
            headers := #{'Host' := <<"example.org">>, <<"X-Sample">> := <<"one two">>}
        },
        Request
    ),
    ?assertEqual(Answer, Sent).

unknown() ->
    {ok, Handle} = megaphone:open(),
    ok = megaphone:close(Handle),
    ?assertEqual({error, closed}, megaphone:recv(Handle)),
    ?assertEqual({error, closed}, megaphone:put_data(Handle, <<"late">>)),
    ?assertEqual({error, closed}, megaphone:peername(Handle)).

%% Each Erlang example of the README runs, matches included. scripts/test-sample says where the README is.
readme() ->
    {ok, Text} = file:read_file(os:getenv("README")),
    [_ | Parts] = string:split(Text, <<"```erlang\n">>, all),
    Examples = [hd(string:split(Part, <<"```">>)) || Part <- Parts],
    ?assertNotEqual([], Examples),
    lists:foreach(
        fun(Example) ->
            {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Example)),
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            erl_eval:exprs(Expressions, [])
        end,
        Examples
    ).
