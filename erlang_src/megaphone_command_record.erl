%% @private
%% @doc ejabberd's record of a command, made at run time.
%%
%% Megaphone is built without ejabberd's headers, for all its versions at once, and the record is not the same in all of them. So its
%% fields are asked of the table in which ejabberd keeps such records, and what is not said of a command is as in one of ejabberd's own
%% that says little (`gen_html_doc_for_commands', there since 16.01). A version in which that cannot be done gets no commands.
-module(megaphone_command_record).

-export([make/1, make/3]).
-export_type([command/0]).

-type command() :: #{
    name := atom(), tags := [atom()], desc := string(), longdesc := string(), module := module(), function := atom(),
    args := [{atom(), atom()}], args_desc := [string()], args_example := [term()],
    result := term(), result_desc := string(), result_example := term()
}.

%% What a command is not one without. The others are for its documentation.
-define(REQUIRED, [name, desc, module, function, args, result]).

-define(TEMPLATE, gen_html_doc_for_commands).

%% @doc The records of these commands for this ejabberd, or why there are none.
-spec make([command()]) -> {ok, [tuple()]} | {error, string()}.
make(Commands) ->
    try {mnesia:table_info(ejabberd_commands, attributes), ejabberd_commands:get_command_definition(?TEMPLATE)} of
        {Fields, Template} -> make(Commands, Fields, Template)
    catch
        Class:Reason -> {error, lists:flatten(io_lib:format("its table of commands cannot be read (~p: ~0p)", [Class, Reason]))}
    end.

%% @doc With the names of the fields, in their order, and a record that has all of them.
-spec make([command()], [atom()], term()) -> {ok, [tuple()]} | {error, string()}.
make(Commands, Fields, Template) ->
    case check(Fields, Template) of
        ok -> {ok, [record(Command, Fields, Template) || Command <- Commands]};
        {error, _} = Error -> Error
    end.

-spec check(term(), term()) -> ok | {error, string()}.
check(Fields, Template) when is_list(Fields), is_tuple(Template), tuple_size(Template) =:= length(Fields) + 1 ->
    case ?REQUIRED -- Fields of
        [] -> named(proplists:get_value(name, lists:zip(Fields, tl(tuple_to_list(Template)))));
        Missing -> {error, lists:flatten(io_lib:format("its record has no field ~p", [hd(Missing)]))}
    end;
check(_Fields, _Template) ->
    {error, "its record has another number of fields than its table"}.

-spec named(term()) -> ok | {error, string()}.
named(?TEMPLATE) -> ok;
named(_) -> {error, "the fields of its record are not in the order of its table"}.

-spec record(command(), [atom()], tuple()) -> tuple().
record(Command, Fields, Template) ->
    [Tag | Defaults] = tuple_to_list(Template),
    list_to_tuple([Tag | [maps:get(Field, Command, Default) || {Field, Default} <- lists:zip(Fields, Defaults)]]).
