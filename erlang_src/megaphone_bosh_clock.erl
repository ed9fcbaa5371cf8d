%% @private
%% @doc Tells the native side when the time of BOSH sessions has come, and sees to what they leave behind.
-module(megaphone_bosh_clock).
-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).

%% Milliseconds between two looks while there are sessions, and while there are none.
-define(BUSY, 100).
-define(QUIET, 1_000).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec init([]) -> {ok, no_state}.
init([]) ->
    ok = megaphone_bosh_carry:join(),
    self() ! tick,
    {ok, no_state}.

-spec handle_call(term(), gen_server:from(), no_state) -> {reply, {error, unknown_call}, no_state}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(term(), no_state) -> {noreply, no_state}.
handle_cast(_Message, State) ->
    {noreply, State}.

-spec handle_info(tick | {undelivered, pid() | undefined, [binary()]} | term(), no_state) -> {noreply, no_state}.
handle_info(tick, State) ->
    _ = next(megaphone_nif:bosh_tick()),
    {noreply, State};
handle_info({undelivered, Session, Texts}, State) ->
    _ = spawn(megaphone_bosh, bounce, [Session, Texts]),
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.

%% A slice for each message, so that what is undelivered does not wait.
-spec next({more | done, non_neg_integer()}) -> tick | reference().
next({more, _Sessions}) -> self() ! tick;
next({done, 0}) -> erlang:send_after(?QUIET, self(), tick);
next({done, _Sessions}) -> erlang:send_after(?BUSY, self(), tick).

%% What users wrote may be in the last message.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (message, {undelivered, Session, _Texts}) -> {undelivered, Session, hidden};
            (log, _Events) -> [];
            (_Key, Value) -> Value
        end,
        Status
    ).
