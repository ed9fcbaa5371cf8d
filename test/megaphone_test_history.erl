%% What a played script leaves: for each connection the operations on it and the messages that came from it, as the model
%% wants them; and what can be said of them without the model.
-module(megaphone_test_history).

-export([sort/1, plain/1, token/1, overlaps/1, lost_or_doubled/1, show/1]).
-export_type([sorted/0, mail/0]).

-type handle() :: megaphone:handle().
-type history() :: megaphone_test_model:history().
-type operation() :: megaphone_test_model:operation().
-type stamp() :: megaphone_test_model:stamp().

-type mail() :: [{Message :: term(), NotThere :: stamp(), There :: stamp()}].
%% What one process was sent, from all connections, as it came.

-type recorded() :: #{
    opened := [{handle(), Opener :: pid(), raw | http_bin}],
    log := [{handle(), operation()}],
    mail := [{pid(), mail()}],
    %% From which connection a process gets messages that name none.
    homes := #{pid() => handle()},
    deaths := [{pid(), Seen :: stamp(), Start :: stamp(), End :: stamp()}],
    %% When the table knew of all deaths.
    learned := stamp()
}.

-type sorted() :: #{
    histories := #{handle() => history()},
    %% Messages that belong to no operation.
    stray := [{pid(), term()}],
    deaths := non_neg_integer()
}.

-spec sort(recorded()) -> sorted().
sort(#{opened := Opened, log := Log, mail := Mail, homes := Homes, deaths := Deaths, learned := Learned}) ->
    %% An ear is asked for once.
    Asked = maps:from_list([{Pid, Handle} || {Handle, {Who, {get_data, Pid}, _, _, _}} <- Log, Who =/= Pid]),
    Tokens = maps:from_list([{Token, Handle} || {Handle, {_, _, Answer, _, _}} <- Log, Token <- token(Answer)]),
    Sorted = [
        {of_connection(Message, Pid, maps:merge(Homes, Asked), Tokens), Pid, {NotThere, There}}
     || {Pid, Came} <- Mail, {Message, NotThere, There} <- Came
    ],
    #{
        histories => maps:from_list([
            {Handle, history(Opener, Packet, [Operation || {At, Operation} <- Log, At =:= Handle], of_mail(Handle, Sorted), Deaths, Learned)}
         || {Handle, Opener, Packet} <- Opened
        ]),
        stray => [{Pid, Message} || {{stray, Message}, Pid, _} <- Sorted],
        deaths => length(Deaths)
    }.

-spec history(pid(), raw | http_bin, [operation()], megaphone_test_model:mail(), [tuple()], stamp()) -> history().
history(Opener, Packet, Operations, Mail, Deaths, Learned) ->
    Named = lists:append([[Who, Whom] || {Who, {_, Whom}, _, _, _} <- Operations]),
    Pids = [Opener | Named] ++ [Who || {Who, _, _, _, _} <- Operations],
    Relevant = [Death || {Pid, _, _, _} = Death <- Deaths, lists:member(Pid, Pids)],
    Ends = [
        [{{dead, Pid}, {death, Pid}, ok, Start, End}, {{dead, Pid}, {down, Pid}, ok, Start, Learned}]
     || {Pid, _, Start, End} <- Relevant
    ],
    #{
        owner => Opener,
        packet => Packet,
        limits => megaphone_nif:limits(),
        operations => lists:append([Operations | Ends]),
        mail => Mail,
        lost => maps:from_list([{Pid, Seen} || {Pid, Seen, _, _} <- Relevant])
    }.

-spec of_mail(handle(), [tuple()]) -> megaphone_test_model:mail().
of_mail(Handle, Sorted) ->
    maps:groups_from_list(
        fun({Pid, _}) -> Pid end,
        fun({_, Message}) -> Message end,
        [{Pid, {Message, NotThere, There}} || {{Of, Message}, Pid, {NotThere, There}} <- Sorted, Of =:= Handle]
    ).

%% From which connection a message came, and the message without that.
-spec of_connection(term(), pid(), #{pid() => handle()}, #{megaphone_nif:token() => handle()}) ->
    {handle(), megaphone_test_model:message()} | {stray, term()}.
of_connection({megaphone, Token, Answer}, _Pid, _Homes, Tokens) when is_map_key(Token, Tokens) ->
    {map_get(Token, Tokens), {answer, Token, plain(Answer)}};
of_connection({megaphone_output, Handle}, _Pid, _Homes, _Tokens) ->
    {Handle, megaphone_output};
of_connection({What, {'$inet', megaphone_socket, Handle}}, _Pid, _Homes, _Tokens) when What =:= tcp_closed; What =:= tcp_passive ->
    {Handle, What};
of_connection({tcp, {'$inet', megaphone_socket, Handle}, Data}, _Pid, _Homes, _Tokens) ->
    {Handle, {tcp, iolist_to_binary(Data)}};
of_connection({http, {'$inet', megaphone_socket, Handle}, Packet}, _Pid, _Homes, _Tokens) ->
    {Handle, {http, Packet}};
of_connection({What, _} = Message, Pid, Homes, _Tokens) when is_map_key(Pid, Homes), What =:= ok orelse What =:= error ->
    {map_get(Pid, Homes), {plain, plain(Message)}};
of_connection(Message, _Pid, _Homes, _Tokens) ->
    {stray, Message}.

%% An answer as the model gives it: bytes in one piece, and of the map of info/1 what it knows.
-spec plain(term()) -> term().
plain({ok, #{owner := Owner, packet := Packet, active := Active, readers := Readers, senders := Senders} = Info}) ->
    #{input_bytes := Input, output_bytes := Output} = Info,
    {if Owner =:= undefined -> none; true -> Owner end, Packet, Active, Readers, Senders, Input, Output};
plain({ok, [Piece | _] = Pieces}) when is_binary(Piece) ->
    {ok, iolist_to_binary(Pieces)};
plain(Answer) ->
    Answer.

%% The wait that an answer tells of, if it does.
-spec token(term()) -> [megaphone_nif:token()].
token({wait, Token}) -> [Token];
token({wait, _, Token}) -> [Token];
token(_) -> [].

%% Whether operations of two processes met. Those of one process follow each other.
-spec overlaps(history()) -> boolean().
overlaps(#{operations := Operations}) ->
    Calls = lists:keysort(4, [Operation || {Who, _, _, _, _} = Operation <- Operations, is_pid(Who)]),
    {_, Met} = lists:foldl(
        fun({_, _, _, Start, End}, {Latest, Met}) -> {max(Latest, End), Met orelse Start < Latest} end, {0, false}, Calls
    ),
    Met.

%% Without the model: no byte came out of a connection twice, none that was not put in, and none is missing unless it was
%% dropped by intent or a process has died; and each wait that began was answered once, or given up, or its process died.
-spec lost_or_doubled(history()) -> [term()].
lost_or_doubled(#{operations := Operations, mail := Mail, lost := Lost, packet := Packet}) ->
    Messages = [Message || Came <- maps:values(Mail), {Message, _, _} <- Came],
    In = bytes([Data || {_, {put_data, Data}, ok, _, _} <- Operations]),
    Out = bytes(
        [Data || {_, {What, _}, {ok, Data}, _, _} <- Operations, What =:= recv orelse What =:= tcp_recv] ++
            [Data || {answer, _, {ok, Data}} <- Messages] ++
            [Data || {plain, {ok, Data}} <- Messages] ++
            [Data || {tcp, Data} <- Messages]
    ),
    Dropped = Lost =/= #{} orelse [How || {_, {shutdown, How}, _, _, _} <- Operations, How =/= write] =/= [],
    Waits = lists:sort([Token || {Who, _, Answer, _, _} <- Operations, Token <- token(Answer), not is_map_key(Who, Lost)]),
    Answers = [Token || {answer, Token, _} <- Messages] ++ [Token || {_, {cancel, Token}, ok, _, _} <- Operations],
    Answered = lists:sort([Token || Token <- Answers, Lost =:= #{} orelse lists:member(Token, Waits)]),
    [{doubled, Out -- In} || Packet =:= raw, Out -- In =/= []] ++
        [{lost, In -- Out} || Packet =:= raw, not Dropped, In -- Out =/= []] ++
        [{waits, Waits, answered, Answered} || Waits =/= Answered].

%% Zeros are not told apart.
-spec bytes([term()]) -> [byte()].
bytes(Pieces) ->
    Data = << <<Piece/binary>> || Piece <- Pieces, is_binary(Piece)>>,
    [Byte || <<Byte>> <= binary:replace(Data, <<0>>, <<>>, [global])].

%% For people: a history and the longest beginning of an order.
-spec show({handle(), history(), [operation()]}) -> iolist().
show({Handle, #{operations := Operations} = History, Longest}) ->
    Parts = [lists:keysort(4, Operations), maps:with([owner, packet, mail, lost], History), Longest],
    io_lib:format("~p: operations~n~p~nand~n~p~nThe longest order:~n~p~n", [Handle | [short(Part) || Part <- Parts]]).

-spec short(term()) -> term().
short(Data) when is_binary(Data), byte_size(Data) > 200 -> {bytes, byte_size(Data)};
short([First | Rest]) -> [short(First) | short(Rest)];
short(Tuple) when is_tuple(Tuple) -> list_to_tuple(short(tuple_to_list(Tuple)));
short(Map) when is_map(Map) -> maps:map(fun(_, Value) -> short(Value) end, Map);
short(Other) -> Other.
