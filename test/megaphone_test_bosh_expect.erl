%% Where the ways to serve BOSH differ, and what each of them is expected to do: mod_bosh what it was found to do, the
%% other one what XEP-0124 says. docs/bosh-cases.md has the reasons.
-module(megaphone_test_bosh_expect).

-export([expect/2, errors/1]).

-spec expect(atom(), megaphone_test_bosh_node:kind()) -> term().
expect(every_answer_is_for_all_origins, mod_bosh) -> undefined;
expect(every_answer_is_for_all_origins, native) -> <<"*">>;
expect(creation_tells_the_terms, mod_bosh) -> <<"1.11">>;
expect(creation_tells_the_terms, native) -> <<"1.6">>;
expect(creation_is_acknowledged, mod_bosh) -> false;
expect(creation_is_acknowledged, native) -> true;
expect(unknown_domain, mod_bosh) -> <<"internal-server-error">>;
expect(unknown_domain, native) -> <<"host-unknown">>;
%% The answers to the request that is held and to that which ends the session.
expect(termination_is_answered, mod_bosh) -> [[<<"terminate">>, <<"other-request">>], [<<"terminate">>, undefined]];
expect(termination_is_answered, native) -> [[<<"terminate">>, undefined], [<<"terminate">>, undefined]];
expect(the_end_comes_behind_what_waits, mod_bosh) -> is_lost;
expect(the_end_comes_behind_what_waits, native) -> comes;
expect(rid_too_old, mod_bosh) -> waits_for_its_end;
expect(rid_too_old, native) -> is_refused;
%% Where a case has to wait: the seconds that requests are held, and what comes of it.
expect(overtaking_an_empty_request, mod_bosh) -> {1, never};
expect(overtaking_an_empty_request, native) -> {60, served};
expect(pipelined_request, mod_bosh) -> {1, late};
expect(pipelined_request, native) -> {60, at_once};
expect(repeated_poll_waits_no_longer, mod_bosh) -> {5800, 15000};
expect(repeated_poll_waits_no_longer, native) -> {3900, 5500};
expect(hold_of_zero, mod_bosh) -> {1, 900};
expect(hold_of_zero, native) -> {60, 0};
expect(interrupted_connection_is_noticed, mod_bosh) -> {1, 1900};
expect(interrupted_connection_is_noticed, native) -> {60, 900};
expect(held_request_repeated, mod_bosh) -> old_is_answered;
expect(held_request_repeated, native) -> one_is_cut;
%% A repeat of a held request is answered with the request itself: its attributes, and its stanzas if there is nothing else.
expect(repeats_are_echoed, mod_bosh) -> true;
expect(repeats_are_echoed, native) -> false;
expect(early_request_repeated, mod_bosh) -> {they_are, [<<"other-request">>, <<"internal-server-error">>]};
expect(early_request_repeated, native) -> one_is_cut;
%% Of two messages, one of which waited in the session. mod_bosh mostly loses that one.
expect(stanza_left_behind_goes_offline, mod_bosh) -> 1;
expect(stanza_left_behind_goes_offline, native) -> 2;
expect(pause_is_answered_at_once, mod_bosh) -> at_the_end;
expect(pause_is_answered_at_once, native) -> answered;
expect(pause_keeps_what_waits, mod_bosh) -> lost;
expect(pause_keeps_what_waits, native) -> kept;
expect(pause_too_long, mod_bosh) -> at_the_end;
expect(pause_too_long, native) -> [<<"terminate">>, <<"policy-violation">>];
expect(requests_are_acknowledged, mod_bosh) -> undefined;
expect(requests_are_acknowledged, native) -> true;
expect(missing_answer_is_reported, mod_bosh) -> false;
expect(missing_answer_is_reported, native) -> true;
%% Which requests may be the one that ends the session.
expect(polls_too_often, mod_bosh) -> [1];
expect(polls_too_often, native) -> [2, 3];
expect(polls_with_stanzas, mod_bosh) ->
    [[<<"terminate">>, <<"policy-violation">>], [<<"terminate">>, <<"item-not-found">>], [<<"terminate">>, <<"item-not-found">>]];
expect(polls_with_stanzas, native) ->
    [[undefined, undefined] || _ <- [1, 2, 3]];
%% What may happen to a request.
expect(bad_weather, mod_bosh) -> [answer_lost];
expect(bad_weather, native) -> [answer_lost, request_lost, twice].

%% What a line of the log of errors may have in it, and how often.
-spec errors(megaphone_test_bosh_node:kind()) -> [{binary(), pos_integer()}].
errors(mod_bosh) ->
    [
        {<<"the module mod_bosh is not started in that host">>, 1},
        %% Of early_request_repeated.
        {<<"State machine">>, 1}, {<<"CRASH REPORT">>, 1}, {<<"SUPERVISOR REPORT">>, 1}
    ];
errors(native) ->
    [].
