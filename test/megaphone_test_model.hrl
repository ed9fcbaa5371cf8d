%% The state of the model of one connection, for megaphone_test_model and for megaphone_test_order, which asks it.

-record(c, {
    %% `gone': nobody can reach it any more.
    life = open :: open | closed | gone,
    packet :: raw | http_bin | httph_bin,
    input = <<>> :: binary(),
    input_ended = false :: boolean(),
    output = <<>> :: binary(),
    output_ended = false :: boolean(),
    readers = [] :: [{pid(), Wait :: plain | megaphone_nif:token() | {inner, term()}, Length :: non_neg_integer()}],
    senders = [] :: [{pid(), megaphone_nif:token(), Turn :: boolean()}],
    active = false :: megaphone_nif:active(),
    owner :: pid() | none,
    %% Somebody has learned of the end.
    told = false :: boolean(),
    %% The opener knows of output.
    announced = false :: boolean(),
    %% In the packet modes: fields follow; what Content-Length said; so much of a body follows.
    head = false :: boolean(),
    length = none :: none | non_neg_integer(),
    body = none :: none | pos_integer(),
    dead = [] :: [pid()],
    cleaned = [] :: [pid()],
    %% Where operations of several steps stand, and what their inner waits were answered.
    steps = #{} :: #{term() => term()},
    inner = #{} :: #{term() => term()},
    mail :: megaphone_test_model:mail(),
    %% The end of the operation that takes place, and which piece an active owner that is lost gets.
    now = 0 :: megaphone_test_model:stamp(),
    cut = all :: all | first,
    lost :: #{pid() => megaphone_test_model:stamp()},
    limits :: #{atom() => pos_integer()}
}).
