%% @private
%% @doc Writes what a link has to send to the link's socket.
%%
%% One process per link, because writing may wait: for up to the socket's send timeout, after which the link ends.
%% Frames come from the native table in bounded batches, so a stalled ECM holds back one batch here, and the limits of
%% its connections hold back the rest. It ends with `{shutdown, Reason}' in every case.
-module(megaphone_sender).
-behaviour(gen_server).

-export([start_link/2, finish/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).

%% Batches that are written without a look at the mailbox. After most of them there is no other.
-define(BATCHES, 8).

-record(state, {
    link :: megaphone_nif:link(),
    socket :: megaphone_transport:transport(),
    finishing = false :: boolean()
}).

%% @doc Starts the sender of a link. The caller owns the socket.
-spec start_link(megaphone_nif:link(), megaphone_transport:transport()) -> gen_server:start_ret().
start_link(Link, Socket) ->
    gen_server:start_link(?MODULE, {Link, Socket}, []).

%% @doc Asks it to write what is there, and then to end with `{shutdown, finished}'.
-spec finish(pid()) -> ok.
finish(Sender) ->
    gen_server:cast(Sender, finish).

-spec init({megaphone_nif:link(), megaphone_transport:transport()}) -> {ok, #state{}}.
init({Link, Socket}) ->
    self() ! megaphone_output,
    {ok, #state{link = Link, socket = Socket}}.

-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, {error, unknown_call}, #state{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(finish, #state{}) -> {noreply, #state{}}.
handle_cast(finish, State) ->
    %% If a wake-up is on its way already, one of the two finds nothing: harmless.
    self() ! megaphone_output,
    {noreply, State#state{finishing = true}}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, {shutdown, term()}, #state{}}.
handle_info(megaphone_output, State) ->
    write(?BATCHES, State);
handle_info(_Other, State) ->
    {noreply, State}.

-spec write(non_neg_integer(), #state{}) -> {noreply, #state{}} | {stop, {shutdown, term()}, #state{}}.
write(0, State) ->
    %% By a message, so that others in the mailbox have their turn.
    self() ! megaphone_output,
    {noreply, State};
write(Batches, #state{link = Link, socket = Socket} = State) ->
    case megaphone_nif:link_output(Link) of
        {ok, Frames} ->
            case megaphone_transport:send(Socket, Frames) of
                ok ->
                    write(Batches - 1, State);
                {error, Reason} ->
                    {stop, {shutdown, {send, megaphone_transport:error_name(Reason)}}, State}
            end;
        empty when State#state.finishing ->
            {stop, {shutdown, finished}, State};
        empty ->
            {noreply, State};
        {error, closed} ->
            {stop, {shutdown, closed}, State}
    end.

%% Neither state nor messages show what users write, but a batch in flight would.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:without([log], Status).
