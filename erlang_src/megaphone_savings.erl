%% @private
%% @doc How much memory idle users give back: one of them at a time is looked at before it is tidied up, and again when that is done.
%% So it costs two questions in some seconds, and what all gave back is an estimate: the mean of the samples times the number of users.
-module(megaphone_savings).

-export([new/0, before/2, later/1, info/1]).
-export_type([savings/0]).

%% Milliseconds after which a user is looked at again: collected twice, or put to sleep, by then.
-define(AFTER, 500).

-record(savings, {
    looked = none :: none | {pid(), Bytes :: non_neg_integer(), Due :: integer()},
    %% All that were tidied up.
    users = 0 :: non_neg_integer(),
    samples = 0 :: non_neg_integer(),
    %% Bytes of the samples.
    freed = 0 :: non_neg_integer()
}).
-opaque savings() :: #savings{}.

-spec new() -> savings().
new() ->
    #savings{}.

%% @doc These users are to be tidied up now.
-spec before([pid()], savings()) -> savings().
before([First | _] = Users, #savings{looked = none, users = All} = Savings) ->
    case process_info(First, memory) of
        {memory, Bytes} -> Savings#savings{users = All + length(Users), looked = {First, Bytes, erlang:monotonic_time(millisecond) + ?AFTER}};
        undefined -> Savings#savings{users = All + length(Users)}
    end;
before(Users, #savings{users = All} = Savings) ->
    Savings#savings{users = All + length(Users)}.

%% @doc To be called now and then: looks at the one that was looked at, when it is time.
-spec later(savings()) -> savings().
later(#savings{looked = {Pid, Bytes, Due}, samples = Samples, freed = Freed} = Savings) ->
    case erlang:monotonic_time(millisecond) >= Due andalso process_info(Pid, memory) of
        false -> Savings;
        undefined -> Savings#savings{looked = none};
        %% One that has become busy takes more than before: it gave back nothing.
        {memory, Now} -> Savings#savings{looked = none, samples = Samples + 1, freed = Freed + max(0, Bytes - Now)}
    end;
later(Savings) ->
    Savings.

%% @doc Users that were tidied up, of how many it is known what they gave back, and how much one gave back on the average: bytes.
-spec info(savings()) -> #{users := N, samples := N, freed_by_one := N} when N :: non_neg_integer().
info(#savings{users = Users, samples = Samples, freed = Freed}) ->
    #{users => Users, samples => Samples, freed_by_one => round(Freed / max(1, Samples))}.
