%% Who gets a link: secrets, addresses, unix sockets, TLS, and what strangers can do before they are told to go.
-module(auth_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_link, [
    encode/1, hello/0, open/1, ask/3, greet/1, authenticate/3, proof/4,
    connect/1, connect_raw/1, send/2, send_bytes/2, next/1, await_close/1, disconnect/1
]).
-import(megaphone_test_node, [address/2, call/4]).

-define(SECRET, <<"a secret of the test">>).
-define(WRONG, <<"another secret, of nobody">>).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        who_knows_the_secret_is_served,
        who_does_not_know_it_is_told_so_late,
        without_secret_at_either_end,
        a_proof_is_good_for_one_link,
        strangers_may_only_authenticate,
        strangers_have_little_time,
        strangers_take_no_places,
        refusals_are_logged_once,
        the_secret_shows_nowhere,
        wrong_secrets_in_the_configuration,
        other_addresses_need_a_secret,
        other_machines_need_tls,
        unix_sockets_serve_their_own_user,
        links_over_tls,
        the_manager_speaks_tls,
        the_manager_refuses_other_servers
    ].

init_per_suite(Config) ->
    Handlers = megaphone_test_node:handlers(),
    Dir = proplists:get_value(priv_dir, Config),
    {Certificate, Root} = certificate(Dir, "right"),
    Secret = ["secret: \"", ?SECRET, "\""],
    Socket = megaphone_test_node:socket_file(Dir),
    Node = megaphone_test_node:start(Dir, [
        megaphone_test_node:listener(megaphone, 1, [Handlers, Secret]),
        megaphone_test_node:listener(megaphone, 2, [Handlers]),
        megaphone_test_node:listener(megaphone, 3, [Handlers, Secret, "tls: true", ["certfile: \"", Certificate, "\""]]),
        megaphone_test_node:listener(megaphone, {0, 0, 0, 0}, [Handlers]),
        megaphone_test_node:unix_listener(Socket)
    ]),
    SecretFile = filename:join(Dir, "secret"),
    ok = file:write_file(SecretFile, ?SECRET),
    ok = file:change_mode(SecretFile, 8#600),
    [{node, Node}, {root, Root}, {secret_file, SecretFile}, {socket, Socket}, {address, address(Node, {megaphone, 1})}, {open_address, address(Node, {megaphone, 2})} | Config].

end_per_suite(Config) ->
    %% Cases kill processes, which is logged.
    megaphone_test_node:stop(proplists:get_value(node, Config)),
    megaphone_test_node:delete_socket(proplists:get_value(socket, Config)).

end_per_testcase(_Case, Config) ->
    megaphone_test:finish_case(Config, fun() ->
        megaphone_test_node:assert_quiet(proplists:get_value(node, Config)),
        ok = set(Config, auth_timeout, undefined)
    end).

set(Config, Name, undefined) ->
    call(proplists:get_value(node, Config), application, unset_env, [megaphone, Name]);
set(Config, Name, Value) ->
    call(proplists:get_value(node, Config), application, set_env, [megaphone, Name, Value]).

%% ---- secrets ---------------------------------------------------------------------------------------------------

who_knows_the_secret_is_served(Config) ->
    %% Both ends prove that they know the secret; then the link serves requests, also those that were sent at once.
    Early = [open(7), {data, 7, megaphone_test_link:get_request("/test/echo")}],
    {ok, Link} = authenticate(proplists:get_value(address, Config), ?SECRET, Early),
    ?assertMatch({200, <<"GET /test/echo 0 ", _/binary>>, {ready, 7, 0}}, megaphone_test_link:answer(Link, 7)),
    ?assertMatch({200, _, {ready, 8, 0}}, ask(Link, 8, "/test/echo")),
    ok = disconnect(Link).

who_does_not_know_it_is_told_so_late(Config) ->
    %% Another secret is refused with code 6, after a pause, and no proof of ejabberd's is given to work on.
    #{auth_delay := Delay} = call(proplists:get_value(node, Config), megaphone_nif, limits, []),
    Start = erlang:monotonic_time(millisecond),
    {refused, Link, Refusal} = authenticate(proplists:get_value(address, Config), ?WRONG, [open(7)]),
    ?assertMatch({error, 0, 6, <<"the other end of the link has another secret", _/binary>>}, Refusal),
    ?assert(erlang:monotonic_time(millisecond) - Start >= Delay),
    ?assertEqual([], await_close(Link)).

without_secret_at_either_end(Config) ->
    %% An end that has a secret and one that has none refuse each other, and each says what is missing.
    Without = connect_raw(proplists:get_value(address, Config)),
    ok = send(Without, [hello(), open(7)]),
    ?assertMatch(
        [{hello, 2, 1, _, 15, _}, {auth, _}, {error, 0, 6, <<"ejabberd demands a secret", _/binary>>}],
        await_close(Without)
    ),
    With = connect_raw(proplists:get_value(open_address, Config)),
    ok = send(With, [{hello, 1, 1, 131072, 3, <<"x">>}, {auth, <<1, 0:256>>}]),
    ?assertMatch([{hello, 2, 1, _, 13, _}, {error, 0, 6, <<"the other end demands a secret", _/binary>>}], await_close(With)).

a_proof_is_good_for_one_link(Config) ->
    %% A proof that was seen on one link opens no other.
    First = connect_raw(proplists:get_value(address, Config)),
    {Hellos, Nonces} = greet(First),
    Proof = proof(?SECRET, 1, Hellos, Nonces),
    ok = send(First, {auth, <<2, Proof/binary>>}),
    ?assertMatch({auth, <<2, _:32/binary>>}, next(First)),
    Second = connect_raw(proplists:get_value(address, Config)),
    _ = greet(Second),
    ok = send(Second, {auth, <<2, Proof/binary>>}),
    ?assertMatch([{error, 0, 6, _}], await_close(Second)),
    ok = disconnect(First).

%% ---- strangers -------------------------------------------------------------------------------------------------

strangers_may_only_authenticate(Config) ->
    %% Before the proof no other frame is looked at, and none above 4 kB is waited for.
    Address = proplists:get_value(address, Config),
    lists:foreach(
        fun({Code, Bytes}) ->
            Link = connect_raw(Address),
            _ = greet(Link),
            ok = send_bytes(Link, Bytes),
            ?assertMatch({Bytes, [{error, 0, Code, _}]}, {Bytes, await_close(Link)})
        end,
        [
            {6, encode(open(1))},
            {6, encode({ping, <<"12345678">>})},
            {6, encode(drain)},
            {6, <<(4096 + 9 + 1):32, 2>>},
            {6, <<0:32>>},
            {3, encode({auth, <<>>})},
            {3, encode({auth, <<0:4096/unit:8>>})},
            {3, encode({auth, <<1, 0:256>>})},
            {3, encode(hello())}
        ]
    ),
    ?assertEqual(0, maps:get(connections, megaphone_test_node:stats(proplists:get_value(node, Config)))).

strangers_have_little_time(Config) ->
    %% Who says nothing, or stops in the middle, is told and closed after the time for it.
    ok = set(Config, auth_timeout, 100),
    Silent = connect_raw(proplists:get_value(address, Config)),
    ?assertMatch([{hello, _, _, _, _, _}, {auth, _}, {error, 0, 6, _}], await_close(Silent)),
    Slow = connect_raw(proplists:get_value(address, Config)),
    _ = greet(Slow),
    ok = send_bytes(Slow, <<0, 0, 0, 42, 2>>),
    ?assertMatch([{error, 0, 6, _}], await_close(Slow)),
    Plain = connect_raw(proplists:get_value(open_address, Config)),
    ?assertMatch([{hello, _, _, _, _, _}, {error, 0, 6, _}], await_close(Plain)).

strangers_take_no_places(Config) ->
    %% Links that are not open yet are limited by address; at the limit a further one is refused at once.
    Node = proplists:get_value(node, Config),
    Address = proplists:get_value(address, Config),
    #{max_pending_links_per_address := Most} = call(Node, megaphone_nif, limits, []),
    %% None of them goes of itself, however slow the machine.
    ok = set(Config, auth_timeout, 60000),
    {ok, Open} = authenticate(Address, ?SECRET, []),
    Pending = [connect_raw(Address) || _ <- lists:seq(1, Most)],
    [{hello, 2, _, _, _, _} = next(Link) || Link <- Pending],
    ?assertMatch([{hello, _, _, _, _, _}, {error, 0, 6, <<"too many links", _/binary>>}], await_close(connect_raw(Address))),
    ?assertMatch({200, _, _}, ask(Open, 1, "/test/echo")),
    %% One goes, one comes.
    ok = disconnect(hd(Pending)),
    ok = wait_until(fun() -> length(call(Node, megaphone, links, [])) =:= Most end),
    {ok, Next} = authenticate(Address, ?SECRET, []),
    [ok = disconnect(Link) || Link <- [Open, Next | tl(Pending)]].

refusals_are_logged_once(Config) ->
    %% However often an address is refused, the log has one line a minute of it, which names it.
    Node = proplists:get_value(node, Config),
    ok = forget_refusals(Node),
    Before = refusals(Config),
    [{refused, _, _} = authenticate(proplists:get_value(address, Config), ?WRONG, []) || _ <- [1, 2]],
    ok = wait_until(fun() -> call(Node, megaphone, links, []) =:= [] end),
    ?assertEqual(Before + 1, refusals(Config)).

forget_refusals(Node) ->
    ok = call(Node, gen_server, stop, [megaphone_gate]),
    wait_until(fun() -> is_pid(call(Node, erlang, whereis, [megaphone_gate])) end).

refusals(Config) ->
    length(binary:matches(log(Config), <<" refused: the other end of the link has another secret">>)).

log(Config) ->
    #{dir := Dir} = Node = proplists:get_value(node, Config),
    _ = call(Node, logger_std_h, filesync, [default]),
    {ok, Log} = file:read_file(filename:join([Dir, "log", "ejabberd.log"])),
    Log.

the_secret_shows_nowhere(Config) ->
    %% Neither the log nor what a receiver, the table of listeners or a crash shows of itself has the secret in it.
    Node = proplists:get_value(node, Config),
    {ok, Link} = authenticate(proplists:get_value(address, Config), ?SECRET, []),
    [#{receiver := Receiver}] = call(Node, megaphone, links, []),
    Seen = [
        call(Node, sys, get_status, [Receiver]),
        call(Node, ets, tab2list, [ejabberd_listener]),
        call(Node, ejabberd_option, listen, []),
        call(Node, supervisor, which_children, [megaphone_link_sup])
    ],
    Texts = [io_lib:format("~p ~0tp", [Term, Term]) || Term <- Seen],
    true = call(Node, erlang, exit, [Receiver, kill]),
    ?assertEqual([], await_close(Link)),
    Bytes = iolist_to_binary([Texts, log(Config)]),
    ?assertEqual(nomatch, binary:match(Bytes, ?SECRET)),
    %% As a list of numbers.
    ?assertEqual(nomatch, binary:match(Bytes, iolist_to_binary(io_lib:format("~w", [?SECRET])))).

wrong_secrets_in_the_configuration(Config) ->
    %% A secret of another length is refused when the configuration is read, without showing it.
    Node = proplists:get_value(node, Config),
    #{min_secret := Min, max_secret := Max} = call(Node, megaphone_nif, limits, []),
    lists:foreach(
        fun(Size) ->
            Validate = fun() -> econf:validate(megaphone_gate:secret_type(), binary:copy(<<"q">>, Size)) end,
            case call(Node, erlang, apply, [Validate, []]) of
                {ok, Secret} when Size >= Min, Size =< Max ->
                    ?assert(is_function(Secret, 0));
                {error, Reason, Context} when Size < Min; Size > Max ->
                    Text = lists:flatten(call(Node, econf, format_error, [Reason, Context])),
                    ?assertEqual(nomatch, string:find(Text, "qqq")),
                    ?assertNotEqual(nomatch, string:find(Text, integer_to_list(Size)))
            end
        end,
        [0, Min - 1, Min, Max, Max + 1]
    ).

%% ---- addresses and TLS -----------------------------------------------------------------------------------------

other_addresses_need_a_secret(Config) ->
    %% A listener at more than a loopback address that has no secret refuses every link, also those of this machine.
    {_Any, Port} = address(proplists:get_value(node, Config), {megaphone, 4}),
    Refused = connect_raw({{127, 0, 0, 1}, Port}),
    ?assertMatch([{hello, _, _, _, _, _}, {error, 0, 6, <<"this listener is bound to more", _/binary>>}], await_close(Refused)).

other_machines_need_tls(Config) ->
    %% A link from an address that is not this machine's loopback one is refused without TLS, unless that is allowed.
    case own_addresses() of
        [] -> {skip, "this machine has no address but loopback ones"};
        [Ip] -> check_plain_links(Ip, Config)
    end.

check_plain_links(Ip, Config) ->
    Options = [megaphone_test_node:handlers(), ["secret: \"", ?SECRET, "\""]],
    [Strict, Allowing] = [
        megaphone_test_node:start(proplists:get_value(priv_dir, Config), [
            megaphone_test_node:listener(megaphone, {0, 0, 0, 0}, Options ++ More)
        ])
     || More <- [[], ["allow_plain_link: true"]]
    ],
    {_, Port} = address(Strict, megaphone),
    ?assertMatch(
        [{hello, _, _, _, _, _}, {error, 0, 6, <<"links from other machines need TLS", _/binary>>}],
        await_close(connect_raw({Ip, Port}))
    ),
    {ok, Near} = authenticate({{127, 0, 0, 1}, Port}, ?SECRET, []),
    {_, OtherPort} = address(Allowing, megaphone),
    {ok, Far} = authenticate({Ip, OtherPort}, ?SECRET, []),
    ?assertMatch({200, _, _}, ask(Far, 1, "/test/echo")),
    [ok = disconnect(Link) || Link <- [Near, Far]],
    [ok = megaphone_test_node:stop(Node) || Node <- [Strict, Allowing]].

%% One that is no loopback address, if there is one.
own_addresses() ->
    {ok, Interfaces} = inet:getifaddrs(),
    Up = [Opts || {_, Opts} <- Interfaces, lists:member(running, proplists:get_value(flags, Opts, []))],
    lists:sublist([Ip || Opts <- Up, {addr, {A, _, _, _} = Ip} <- Opts, A =/= 127], 1).

unix_sockets_serve_their_own_user(Config) ->
    %% Without a secret a unix socket serves ejabberd's own user, and nobody else, whatever the mode of its file.
    Socket = proplists:get_value(socket, Config),
    Own = connect_raw({{local, Socket}, 0}),
    ok = send(Own, hello()),
    ?assertMatch({hello, 2, 1, _, 13, _}, next(Own)),
    ?assertMatch({200, _, _}, ask(Own, 1, "/test/echo")),
    ok = disconnect(Own),
    case {os:find_executable("setpriv"), string:trim(os:cmd("id -u"))} of
        {SetPriv, "0"} when is_list(SetPriv) -> other_user(SetPriv, Socket);
        _ -> {comment, "another user can be tried by root only, with setpriv"}
    end.

%% A process of the user nobody, who may open the file.
other_user(SetPriv, Socket) ->
    ok = file:change_mode(Socket, 8#666),
    Dir = filename:dirname(Socket),
    ok = file:change_mode(Dir, 8#777),
    Answer = filename:join(Dir, "answer"),
    Curl = ["curl", "--silent", "--http0.9", "--output", Answer, "--max-time", "20", "--unix-socket", Socket, "http://x/"],
    {0, _} = megaphone_test_program:run(SetPriv, ["--reuid=65534", "--clear-groups" | Curl], #{}),
    {ok, Said} = file:read_file(Answer),
    ?assertNotEqual(nomatch, string:find(Said, "serves only processes of ejabberd's own user")).

links_over_tls(Config) ->
    %% A listener with tls: true takes links over TLS 1.2 and 1.3, and nothing that is not TLS.
    {Ip, Port} = address(proplists:get_value(node, Config), {megaphone, 3}),
    lists:foreach(
        fun(Version) ->
            {ok, Socket} = ssl:connect(Ip, Port, [binary, {active, false}, {verify, verify_none}, {versions, [Version]}], ?DEADLINE),
            {ok, <<Length:32>>} = ssl:recv(Socket, 4, ?DEADLINE),
            {ok, <<1, 0:64, "MGPH", _/binary>>} = ssl:recv(Socket, Length, ?DEADLINE),
            ok = ssl:close(Socket)
        end,
        ['tlsv1.2', 'tlsv1.3']
    ),
    Plain = connect_raw({Ip, Port}),
    ok = send(Plain, hello()),
    closed = next_raw(Plain).

next_raw(Link) ->
    ok = inet:setopts(Link, [{packet, raw}]),
    case gen_tcp:recv(Link, 0, ?DEADLINE) of
        {ok, _Alert} -> next_raw(Link);
        {error, _} -> closed
    end.

the_manager_speaks_tls(Config) ->
    %% The connection manager makes its link by TLS, proves the secret inside of it, and a chat and a large request go over it.
    {Ecm, Port} = megaphone_test_program:ecm_with(tls_link(Config, proplists:get_value(root, Config)), 1, #{}),
    Socket = megaphone_test_ecm:connect({{127, 0, 0, 1}, Port}),
    {User, Next} = megaphone_test_ecm:login(Socket),
    Message = ["<message xmlns='jabber:client' to='", User, "@localhost/client'><body>by TLS</body></message>"],
    _ = megaphone_test_ecm:found("(<body>by TLS</body>)", Next("", Message)),
    ok = megaphone_test_ecm:ask(Socket, "POST", "/test/echo", binary:copy(<<"x">>, 1000000)),
    ?assertMatch({200, <<"POST /test/echo 1000000 ", _/binary>>}, megaphone_test_ecm:answer(Socket)),
    ok = gen_tcp:close(Socket),
    ?assertMatch({0, _}, megaphone_test_program:stop(Ecm)),
    ok = wait_until(fun() -> call(proplists:get_value(node, Config), megaphone, links, []) =:= [] end).

the_manager_refuses_other_servers(Config) ->
    %% A server whose certificate is from another authority, one that does not speak TLS, and one that wants it when this end
    %% does not speak it, get no link; the log says why, and clients get 503.
    ok = forget_refusals(proplists:get_value(node, Config)),
    {_, Root} = certificate(proplists:get_value(priv_dir, Config), "wrong"),
    Output = refused(tls_link(Config, Root)),
    ?assertNotEqual(nomatch, binary:match(Output, iolist_to_binary([" down: its certificate is not from link_ca ", Root]))),
    ok = wait_until(fun() -> binary:match(log(Config), <<"the TLS handshake failed: unknown_ca">>) =/= nomatch end),
    Plain = refused(tls_link(Config, proplists:get_value(root, Config), proplists:get_value(address, Config))),
    ?assertNotEqual(nomatch, binary:match(Plain, <<" down: it does not speak TLS as it should">>)),
    ["--server", "tls://" ++ Server | _] = tls_link(Config, Root),
    Without = refused(["--server", Server, "--link-secret-file", proplists:get_value(secret_file, Config)]),
    ?assertNotEqual(nomatch, binary:match(Without, <<" down: its listener has `tls: true`">>)).

tls_link(Config, Root) ->
    tls_link(Config, Root, address(proplists:get_value(node, Config), {megaphone, 3})).

tls_link(Config, Root, {Ip, Port}) ->
    Server = "tls://" ++ inet:ntoa(Ip) ++ ":" ++ integer_to_list(Port),
    Secret = ["--link-secret-file", proplists:get_value(secret_file, Config)],
    ["--server", Server, "--link-ca", Root, "--link-name", "link.example" | Secret].

%% What a manager logs whose link does not come about.
refused(["--server", Server | Args]) ->
    {Ecm, Port} = megaphone_test_program:ecm_ready("127.0.0.1:0", Server, Args),
    Socket = megaphone_test_ecm:connect({{127, 0, 0, 1}, Port}),
    ok = megaphone_test_ecm:ask(Socket, "GET", "/test/echo", <<>>),
    ?assertMatch({503, _}, megaphone_test_ecm:answer(Socket)),
    ok = gen_tcp:close(Socket),
    {0, Output} = megaphone_test_program:stop(Ecm),
    Output.

%% PEM files: a certificate for link.example with its key, and that of its authority. OTP's own (public_key:pkix_test_data/1)
%% name the algorithm of their signatures in a way that rustls does not take.
certificate(Dir, Name) ->
    File = fun(Kind) -> filename:join(Dir, Name ++ Kind) end,
    [Root, RootKey, Request, Key, Names, Certificate, Whole] =
        [File(Kind) || Kind <- ["-root.pem", "-root.key", ".csr", ".key", ".names", ".crt", ".pem"]],
    New = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" ++ Name],
    ok = openssl(["req", "-x509", "-days", "2", "-keyout", RootKey, "-out", Root | New]),
    ok = openssl(["req", "-keyout", Key, "-out", Request | New]),
    ok = file:write_file(Names, "subjectAltName=DNS:link.example\n"),
    ok = openssl([
        "x509", "-req", "-days", "2", "-in", Request, "-extfile", Names, "-CA", Root, "-CAkey", RootKey, "-CAcreateserial", "-out", Certificate
    ]),
    ok = file:write_file(Whole, [element(2, {ok, _} = file:read_file(Each)) || Each <- [Certificate, Key]]),
    {Whole, Root}.

openssl(Args) ->
    {0, _} = megaphone_test_program:run(os:find_executable("openssl"), Args, #{}),
    ok.
