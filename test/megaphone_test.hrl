%% What every suite uses.

%% Milliseconds after which something that should happen will not happen any more. Nothing waits that long unless a
%% test fails.
-define(DEADLINE, 10000).

%% The message that matches, with a deadline. Variables that are bound must be equal, as in any receive.
-define(assertReceive(Pattern),
    (fun() ->
        receive
            Pattern = Received__ -> Received__
        after ?DEADLINE -> error({not_received, ??Pattern, process_info(self(), messages)})
        end
    end)()
).

%% Nothing is in the mailbox. For messages that would have been sent by the call before, in this very process.
-define(assertSilence(), ([] = element(2, process_info(self(), messages)))).
