%% What one connection does, one operation after the other. megaphone_test_order looks for an order of recorded operations
%% in which this model gives the same answers and sends the same messages.
%%
%% It is written from the contract (the core's module `table', edoc of megaphone_nif) and not for speed: what is queued is
%% one binary, who waits is in a list. What the contract leaves open (how input is cut for an active owner) is taken from
%% what was recorded, if the contract allows it.
-module(megaphone_test_model).

-include("megaphone_test_model.hrl").

-export([new/1, call/4, read/4, reply/4, whole_packet/2, serve/1, settle/1, clean/2]).
-export_type([model/0, history/0, call/0, operation/0, message/0, mail/0, stamp/0]).

-type data() :: binary() | tuple() | http_eoh.
-type reason() :: closed | einval | timeout | {limit, atom()}.
-type token() :: megaphone_nif:token().
-type stamp() :: non_neg_integer() | infinity.
%% Stamps are taken from one counter: the one of an earlier moment is smaller.

-type call() ::
    {put_data, binary()}
    | {recv, non_neg_integer()}
    | {cancel, token()}
    | {get_data, pid()}
    %% Of several native calls: gen_tcp:recv/3 and megaphone:recv_packet/2, both with timeout 0.
    | {tcp_recv, non_neg_integer()}
    | recv_packet
    | {send, binary()}
    | output
    | {set_active, megaphone_nif:active()}
    | {set_packet, raw | http_bin | httph_bin}
    | {set_owner, pid()}
    | {shutdown, read | write | read_write}
    | close
    | info
    %% No calls: a process ends, and the table learns of it.
    | {death, pid()}
    | {down, pid()}.

-type operation() :: {Who :: term(), call(), Answer :: term(), Start :: stamp(), End :: stamp()}.

-type message() ::
    {answer, token(), ok | {ok, data()} | {error, reason()}}
    | {plain, {ok, data()} | {error, reason()}}
    | {tcp, binary()}
    | {http, data()}
    | tcp_closed
    | tcp_passive
    | megaphone_output.

-type mail() :: #{pid() => [{message(), NotThere :: stamp(), There :: stamp()}]}.
%% What a process was sent, in order, with a moment at which it had not come and one at which it had.

-type history() :: #{
    owner := pid(),
    packet := raw | http_bin,
    limits := #{atom() => pos_integer()},
    operations := [operation()],
    mail := mail(),
    %% Processes that have ended, and when they were last seen: what came later is not in their mail.
    lost := #{pid() => stamp()}
}.

-type model() :: #c{}.

-spec new(history()) -> model().
new(#{owner := Owner, packet := Packet, limits := Limits, mail := Mail, lost := Lost}) ->
    #c{packet = Packet, owner = Owner, mail = Mail, lost = Lost, limits = Limits}.

%% ---- the calls -------------------------------------------------------------------------------------------------------

%% The answer, and what becomes of the connection. `Token' names the wait, if it comes to one.
-spec call(call() | {cancel, term()}, Who :: term(), Token :: term(), model()) -> {Answer :: term(), model()}.
call(close, _Who, _Token, #c{life = gone} = C) ->
    {ok, C};
call({cancel, _}, _Who, _Token, #c{life = gone} = C) ->
    {gone, C};
call(_Call, _Who, _Token, #c{life = gone} = C) ->
    {{error, closed}, C};
call({put_data, _}, _Who, _Token, #c{input_ended = true} = C) ->
    {{error, closed}, C};
call({put_data, Data}, _Who, _Token, #c{input = Input} = C) ->
    case byte_size(Input) + byte_size(Data) =< maps:get(local_queue, C#c.limits) of
        true -> {ok, settle(serve(C#c{input = <<Input/binary, Data/binary>>}))};
        false when Data =:= <<>> -> {ok, C};
        false -> {{error, {limit, queue_bytes}}, C}
    end;
call({recv, Length}, Who, Token, C) ->
    case read(Who, Token, Length, C) of
        {wait, Next} -> {{wait, Token}, Next};
        {Answer, Next} -> {Answer, settle(Next)}
    end;
call({cancel, Token}, _Who, _Token, #c{readers = Readers, senders = Senders} = C) ->
    case {lists:keyfind(Token, 2, Readers), lists:keyfind(Token, 2, Senders)} of
        {false, false} ->
            {gone, C};
        {_, Sender} ->
            Left = C#c{readers = lists:keydelete(Token, 2, Readers), senders = lists:keydelete(Token, 2, Senders)},
            %% A sender that was told of room gives up its turn.
            Answer = case Sender of {_, _, true} -> gone; _ -> ok end,
            {Answer, settle(serve(wake_sender(Left)))}
    end;
call({send, _}, _Who, _Token, #c{output_ended = true} = C) ->
    {{error, closed}, C};
call({send, Data}, Who, Token, #c{output = Output, senders = Senders0} = C) ->
    {Turn, Senders} = case Senders0 of [{Who, _, true} | Behind] -> {true, Behind}; _ -> {false, Senders0} end,
    Free = max(0, maps:get(output_queue, C#c.limits) - byte_size(Output)),
    Accepted = if Turn orelse Senders =:= [] -> min(Free, byte_size(Data)); true -> 0 end,
    <<Now:Accepted/binary, Later/binary>> = Data,
    Sent = C#c{output = <<Output/binary, Now/binary>>, senders = Senders},
    Full = length(Senders) >= maps:get(max_waiters, C#c.limits),
    {Answer, Next} =
        if
            Later =:= <<>> -> {ok, Sent};
            Full -> {{error, {limit, waiters}}, Sent};
            Turn -> {{wait, Accepted, Token}, Sent#c{senders = [{Who, Token, false} | Senders]}};
            true -> {{wait, Accepted, Token}, Sent#c{senders = Senders ++ [{Who, Token, false}]}}
        end,
    Woken =
        case {Turn, Answer} of
            {true, {wait, _, _}} -> Next;
            {true, _} -> wake_sender(Next);
            {false, _} -> Next
        end,
    {Answer, settle(announce(Accepted, Woken))};
call(output, _Who, _Token, #c{output = <<>>} = C) ->
    {if C#c.life =:= closed -> {error, closed}; true -> empty end, settle(C#c{announced = false})};
call(output, _Who, _Token, #c{output = Output} = C) ->
    {{ok, Output}, settle(wake_sender(C#c{output = <<>>}))};
call({set_active, More}, _Who, _Token, #c{active = Left} = C) when is_integer(Left), is_integer(More) ->
    %% As inet has it: counts add up.
    case Left + More of
        Sum when Sum > 32767; Sum < -32768 -> {{error, einval}, C};
        Sum -> {ok, settle(serve(activate(Sum, C)))}
    end;
call({set_active, Active}, _Who, _Token, C) ->
    {ok, settle(serve(activate(Active, C)))};
call({set_packet, Packet}, _Who, _Token, #c{head = Head, length = Length} = C) ->
    %% The body belongs to whoever changes the mode at its start; with bytes the head is over.
    {NewHead, NewLength} = if Packet =:= raw -> {false, none}; true -> {Head, Length} end,
    {ok, settle(serve(C#c{packet = Packet, body = none, head = NewHead, length = NewLength}))};
call({shutdown, read}, _Who, _Token, C) ->
    {ok, settle(serve(C#c{input = <<>>, input_ended = true}))};
call({shutdown, write}, _Who, _Token, C) ->
    {ok, settle(end_senders(C#c{output_ended = true}))};
call({shutdown, read_write}, _Who, _Token, C) ->
    Read = serve(C#c{input = <<>>, input_ended = true}),
    {ok, settle(end_senders(Read#c{output_ended = true}))};
call(close, Who, _Token, #c{told = Told, owner = Owner} = C) ->
    {ok, settle(finish(C#c{told = Told orelse Who =:= Owner}))};
call(info, _Who, _Token, #c{readers = Readers, senders = Senders, input = Input, output = Output} = C) ->
    {{C#c.owner, C#c.packet, C#c.active, length(Readers), length(Senders), byte_size(Input), byte_size(Output)}, C}.

read(_Who, _Wait, _Length, #c{life = gone} = C) ->
    {{error, closed}, C};
read(_Who, _Wait, _Length, #c{active = Active} = C) when Active =/= false ->
    {{error, einval}, C};
read(Who, Wait, Length, #c{readers = Readers} = C) ->
    %% Behind others that wait, one waits as well: first come, first served.
    case if Readers =:= [] -> next(Length, C); true -> wait end of
        wait ->
            case length(Readers) < maps:get(max_waiters, C#c.limits) of
                true -> {wait, C#c{readers = Readers ++ [{Who, Wait, Length}]}};
                false -> {{error, {limit, waiters}}, C}
            end;
        closed ->
            {{error, closed}, C#c{told = true}};
        einval ->
            {{error, einval}, C};
        {Data, Next} ->
            {{ok, Data}, Next}
    end.

%% What a reader of so many bytes (0: all there is) or of one packet gets.
next(Length, #c{packet = raw, input = Input} = C) when Input =:= <<>>; byte_size(Input) < Length ->
    more(C);
next(Length, #c{packet = raw, input = Input} = C) ->
    Count = if Length =:= 0 -> min(byte_size(Input), maps:get(window, C#c.limits)); true -> Length end,
    <<Data:Count/binary, Rest/binary>> = Input,
    {Data, C#c{input = Rest}};
next(Length, _C) when Length > 0 ->
    einval;
next(0, #c{body = Length, input = Input} = C) when is_integer(Length) ->
    case Input of
        <<Body:Length/binary, Rest/binary>> -> {Body, C#c{body = none, input = Rest}};
        _ -> more(C)
    end;
next(0, #c{packet = Packet, head = Head, input = Input} = C) ->
    Field = Head orelse Packet =:= httph_bin,
    case erlang:decode_packet(if Field -> httph_bin; true -> http_bin end, Input, []) of
        {more, _} ->
            more(C);
        {ok, http_eoh, Rest} ->
            Body = case C#c.length of 0 -> none; Length -> Length end,
            {http_eoh, C#c{input = Rest, head = false, length = none, body = Body}};
        {ok, {http_header, _, 'Content-Length', _, Value} = Line, Rest} ->
            {Line, C#c{input = Rest, length = binary_to_integer(Value)}};
        {ok, {http_error, _} = Line, Rest} ->
            {Line, C#c{input = Rest}};
        {ok, Line, Rest} ->
            {Line, C#c{input = Rest, head = Head orelse not Field}}
    end.

more(#c{input_ended = true}) -> closed;
more(_) -> wait.

activate(Active, #c{owner = Owner} = C) when is_integer(Active), Active =< 0 ->
    tell(Owner, tcp_passive, C#c{active = false});
activate(Active, C) ->
    C#c{active = Active}.

announce(Accepted, #c{announced = false, owner = Owner} = C) when Accepted > 0 ->
    tell(Owner, megaphone_output, C#c{announced = true});
announce(_Accepted, C) ->
    C.

%% The results are those of a whole packet, which is there and can be taken at once.
whole_packet(Results, #c{packet = http_bin, head = false, body = none, active = false, readers = []} = C) ->
    packet(Results, C);
whole_packet(_Results, _C) ->
    none.

packet([], #c{head = false, body = none} = C) ->
    {ok, C};
packet([Result | Results], C) ->
    case next(0, C) of
        {Result, Next} -> packet(Results, Next);
        _ -> none
    end;
packet(_Results, _C) ->
    none.

%% ---- what follows from a change --------------------------------------------------------------------------------------

%% Waiting readers are served in order, then an active owner.
serve(#c{readers = [{Pid, Wait, Length} | Rest], dead = Dead} = C) ->
    case lists:member(Pid, Dead) orelse next(Length, C) of
        true -> serve(C#c{readers = Rest});
        wait -> serve_owner(C);
        {Data, Next} -> serve(reply(Pid, Wait, {ok, Data}, Next#c{readers = Rest}));
        _ -> serve(reply(Pid, Wait, {error, closed}, C#c{readers = Rest, told = true}))
    end;
serve(C) ->
    serve_owner(C).

serve_owner(#c{owner = Owner, active = Active} = C) when Owner =:= none; Active =:= false ->
    C;
serve_owner(#c{owner = Owner, input_ended = Ended} = C) ->
    case piece(C) of
        none when Ended -> tell(Owner, tcp_closed, C#c{active = false, told = true});
        none -> C;
        {Message, Next} -> serve_owner(count_down(tell(Owner, Message, Next)))
    end.

count_down(#c{active = once} = C) -> C#c{active = false};
count_down(#c{active = 1, owner = Owner} = C) -> tell(Owner, tcp_passive, C#c{active = false});
count_down(#c{active = Count} = C) when is_integer(Count) -> C#c{active = Count - 1};
count_down(C) -> C.

piece(#c{packet = raw, input = <<>>}) ->
    none;
piece(#c{packet = raw, input = Input, owner = Owner, mail = Mail, cut = Cut} = C) ->
    Count =
        case Mail of
            #{Owner := [{{tcp, Got}, _, _} | _]} when Got =/= <<>> -> byte_size(Got);
            _ when Cut =:= first -> first_piece(Input);
            _ -> byte_size(Input)
        end,
    byte_size(Input) >= Count orelse throw(impossible),
    <<Data:Count/binary, Rest/binary>> = Input,
    {{tcp, Data}, C#c{input = Rest}};
piece(C) ->
    case next(0, C) of
        {Body, Next} when is_binary(Body) -> {{tcp, Body}, Next};
        {Line, Next} -> {{http, Line}, Next};
        _ -> none
    end.

%% Large pieces are of zeros, small ones hold none.
first_piece(Input) ->
    Zeros = binary:longest_common_prefix([Input, binary:copy(<<0>>, byte_size(Input))]),
    case {Zeros, binary:match(Input, <<0>>)} of
        {0, {At, _}} -> At;
        {0, nomatch} -> byte_size(Input);
        _ -> Zeros
    end.

%% The first blocked sender may go on when at least half of the output queue is free.
wake_sender(#c{senders = [{Pid, Token, false} | Rest], output = Output, dead = Dead, limits = Limits} = C) ->
    Room = byte_size(Output) =< maps:get(output_queue, Limits) div 2,
    case lists:member(Pid, Dead) of
        _ when not Room -> C;
        true -> wake_sender(C#c{senders = Rest});
        false -> tell(Pid, {answer, Token, ok}, C#c{senders = [{Pid, Token, true} | Rest]})
    end;
wake_sender(C) ->
    C.

end_senders(#c{senders = Senders} = C) ->
    Blocked = [{Pid, Token} || {Pid, Token, false} <- Senders],
    lists:foldl(fun({Pid, Token}, Now) -> tell(Pid, {answer, Token, {error, closed}}, Now) end, C#c{senders = []}, Blocked).

%% Nothing more is accepted; who waits is served or told the end.
finish(C) ->
    end_senders(serve(C#c{life = closed, input_ended = true, output_ended = true})).

%% A process is known to be dead: its waits are forgotten, and its connection closes for good.
clean(_Pid, #c{life = gone} = C) ->
    C;
clean(Pid, #c{readers = Readers, senders = Senders} = C) ->
    Left = C#c{readers = [R || R <- Readers, element(1, R) =/= Pid], senders = [S || S <- Senders, element(1, S) =/= Pid]},
    Next =
        case Left of
            C -> C;
            %% It closes at once: nobody is told of room in it.
            #c{owner = Pid} -> Left;
            _ -> settle(serve(wake_sender(Left)))
        end,
    case Next of
        #c{owner = Pid} -> gone(finish(Next#c{owner = none}));
        _ -> Next
    end.

%% A closed connection lives on while its owner does not know the end, or something in it can still be taken.
settle(#c{life = closed, owner = Owner, told = Told, input = Input, output = Output} = C) ->
    case Owner =/= none andalso (not Told orelse Input =/= <<>> orelse Output =/= <<>>) of
        true -> C;
        false -> gone(C)
    end;
settle(C) ->
    C.

gone(#c{mail = Mail, lost = Lost, limits = Limits, dead = Dead, cleaned = Cleaned, steps = Steps, inner = Inner, now = Now}) ->
    #c{
        life = gone, packet = raw, owner = none, mail = Mail, lost = Lost, limits = Limits, dead = Dead, cleaned = Cleaned,
        steps = Steps, inner = Inner, now = Now
    }.

%% ---- messages --------------------------------------------------------------------------------------------------------

reply(Pid, plain, Answer, C) -> tell(Pid, {plain, Answer}, C);
reply(_Pid, {inner, Who}, Answer, C) -> C#c{inner = (C#c.inner)#{Who => Answer}};
reply(Pid, Token, Answer, C) -> tell(Pid, {answer, Token, Answer}, C).

%% The message must be the next one in the mail, and have come when it could; after a process was last seen anything may
%% have been sent to it.
tell(none, _Message, C) ->
    C;
tell(Pid, Message, #c{mail = Mail, now = Now, lost = Lost} = C) ->
    case {Mail, Lost} of
        {#{Pid := [{Message, NotThere, _} | Rest]}, _} when Now > NotThere -> C#c{mail = Mail#{Pid := Rest}};
        {#{Pid := [_ | _]}, _} -> throw(impossible);
        {_, #{Pid := Seen}} when Now > Seen -> C;
        _ -> throw(impossible)
    end.
