%% Where the ways to serve BOSH differ, and what each of them is expected to do: mod_bosh what it was found to do, the
%% other one what XEP-0124 says. docs/bosh-cases.md has the reasons.
-module(megaphone_test_bosh_expect).

-export([expect/2, errors/1]).

-spec expect(atom(), megaphone_test_bosh_node:kind()) -> term().
expect(every_answer_is_for_all_origins, mod_bosh) -> undefined;
expect(every_answer_is_for_all_origins, native) -> <<"*">>;
expect(creation_is_acknowledged, mod_bosh) -> false;
expect(creation_is_acknowledged, native) -> true;
expect(unknown_domain, mod_bosh) -> <<"internal-server-error">>;
expect(unknown_domain, native) -> <<"host-unknown">>.

%% What a line of the log of errors may have in it.
-spec errors(megaphone_test_bosh_node:kind()) -> [binary()].
errors(mod_bosh) -> [<<"the module mod_bosh is not started in that host">>];
errors(native) -> [].
