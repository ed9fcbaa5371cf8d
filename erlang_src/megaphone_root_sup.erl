%% @private
%% @doc The root supervisor. (`megaphone_sup' is the name that ejabberd gives to its supervisor of our links.)
%%
%% `megaphone_link_sup' comes last, so at shutdown the links end before the process that tidies up after them.
-module(megaphone_root_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    %% The table of links belongs to this process, so a restarted megaphone_links finds every link again.
    ok = megaphone_links:new_table(),
    Flags = #{strategy => one_for_one, intensity => 10, period => 10},
    Children = [
        #{id => megaphone_links, start => {megaphone_links, start_link, []}},
        #{id => megaphone_gate, start => {megaphone_gate, start_link, []}},
        megaphone_bosh_carry:child_spec(),
        #{id => megaphone_bosh_clock, start => {megaphone_bosh_clock, start_link, []}},
        #{id => megaphone_sweeper, start => {megaphone_sweeper, start_link, []}},
        #{id => megaphone, start => {megaphone, start_link, []}}
    ],
    Links = #{
        id => megaphone_link_sup,
        start => {megaphone_link_sup, start_link, []},
        type => supervisor,
        shutdown => infinity
    },
    {ok, {Flags, Children ++ megaphone_owner:child_specs() ++ [Links]}}.
