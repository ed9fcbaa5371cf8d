%% Writes JSON on one line: what OTP 25 has no module for.
-module(bench_json).

-export([encode/1]).
-export_type([json/0]).

-type json() :: null | boolean() | number() | binary() | atom() | [json()] | #{atom() | binary() => json()}.
%% Maps are objects, lists arrays, atoms and binaries strings. Keys are written in order, so equal terms are equal text.

-spec encode(json()) -> iolist().
encode(null) -> "null";
encode(true) -> "true";
encode(false) -> "false";
encode(Value) when is_integer(Value) -> integer_to_list(Value);
encode(Value) when is_float(Value) -> float_to_list(Value, [{decimals, 3}, compact]);
encode(Value) when is_atom(Value) -> string(atom_to_binary(Value));
encode(Value) when is_binary(Value) -> string(Value);
encode(Value) when is_list(Value) -> [$[, lists:join($,, [encode(Element) || Element <- Value]), $]];
encode(Value) when is_map(Value) ->
    Members = [[encode(Key), $:, encode(Member)] || {Key, Member} <- lists:sort(maps:to_list(Value))],
    [${, lists:join($,, Members), $}].

-spec string(binary()) -> iolist().
string(Value) ->
    [$", [escape(Char) || Char <- unicode:characters_to_list(Value)], $"].

-spec escape(char()) -> iodata().
escape($") -> "\\\"";
escape($\\) -> "\\\\";
escape(Char) when Char < 32 -> io_lib:format("\\u~4.16.0b", [Char]);
escape(Char) -> unicode:characters_to_binary([Char]).
