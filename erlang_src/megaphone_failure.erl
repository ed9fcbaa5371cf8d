%% @private
%% @doc What may be told of an error that was caught. Reasons and the arguments in a stack trace may hold what users wrote, so
%% of a reason only its kind is told, and of a call only which function it was.
-module(megaphone_failure).

-export([kind/1, text/3]).

%% Calls of the stack that are told.
-define(CALLS, 5).

%% @doc The atom that a reason is, or begins with: `function_clause', `{badmatch, _}' as `badmatch', ... else `other'.
-spec kind(term()) -> atom().
kind(Reason) when is_atom(Reason) -> Reason;
kind(Reason) when is_tuple(Reason), tuple_size(Reason) > 0 -> kind(element(1, Reason));
kind(_) -> other.

%% @doc For a line of the log.
-spec text(error | exit | throw, term(), list()) -> iolist().
text(Class, Reason, Stack) ->
    Calls = [{Module, Function, arity(Args)} || {Module, Function, Args, _} <- lists:sublist(Stack, ?CALLS)],
    io_lib:format("~p:~p at ~0p", [Class, kind(Reason), Calls]).

-spec arity(arity() | [term()]) -> arity().
arity(Args) when is_list(Args) -> length(Args);
arity(Arity) -> Arity.
