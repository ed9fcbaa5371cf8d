%% What stands between clients and ejabberd: the connection manager, nginx or HAProxy, each as one process, with and
%% without TLS, and with time limits that no idle client meets.
-module(bench_front).

-export([kinds/0, available/0, start/4, start_ecm/4, certificate/1, stop/1, rss/1, os_pid/1]).
-export_type([front/0]).

-include_lib("public_key/include/public_key.hrl").

-type front() :: #{
    kind := string(),
    program := bench_program:program(),
    %% Where clients connect to.
    target := string(),
    %% The PEM file with what it shows them.
    certificate := none | file:filename()
}.

%% Most clients: what is left of the descriptors is for connections to ejabberd.
-define(CLIENTS, "19500").
-define(IDLE, 86400).

%% nginx closes idle clients when less than a sixteenth of its places is free.
-define(PLACES, "24000").

%% How long it may take to listen.
-define(UP_WITHIN, 10000).

-spec kinds() -> [string()].
kinds() ->
    ["plain", "tls", "nginx", "nginx-tls", "haproxy", "haproxy-tls"].

%% @doc Those that can be had here: not every connection manager has TLS, and bench/run may not have found the others.
-spec available() -> [string()].
available() ->
    [Kind || Kind <- kinds(), is_available(Kind)].

-spec is_available(string()) -> boolean().
is_available("plain") -> true;
is_available("tls") -> has_tls();
is_available("nginx" ++ _) -> other("nginx") =/= none;
is_available("haproxy" ++ _) -> other("haproxy") =/= none.

-spec has_tls() -> boolean().
has_tls() ->
    string:find(os:cmd(bench_program:built("megaphone-ecm") ++ " --help 2>&1"), "--tls-listen") =/= nomatch.

%% @doc Starts one in front of an ejabberd, with its files in a directory of its own. Returns when clients may come.
-spec start(string(), inet:ip_address(), bench_users_node:ejabberd(), file:filename()) -> front().
start(Kind, Address, #{listeners := Listeners}, Base) ->
    Dir = own_directory(Kind, Base),
    {Name, Certificate} =
        case string:split(Kind, "tls") of
            [Before, ""] -> {string:trim(Before, trailing, "-"), certificate(Dir)};
            [_] -> {Kind, none}
        end,
    Module =
        case lists:member(Kind, ["plain", "tls"]) of
            true -> megaphone;
            false -> ejabberd_http
        end,
    {Module, Server} = lists:keyfind(Module, 1, Listeners),
    {Program, Target} = start(Name, inet:ntoa(Address), Server, Certificate, Dir),
    #{kind => Kind, program => Program, target => Target, certificate => Certificate}.

-spec start(string(), string(), string(), none | file:filename(), file:filename()) -> {bench_program:program(), string()}.
start(Name, Address, Server, Certificate, Dir) when Name =:= "plain"; Name =:= "" ->
    ecm(Address, Server, Certificate, Dir, "");
start("nginx", Address, Server, Certificate, Dir) ->
    {Port, Target} = free(Address),
    File = write(Dir, "nginx.conf", nginx(Address, Port, Server, Certificate)),
    up(other("nginx", ["-p", Dir, "-e", "stderr", "-c", File]), Target);
start("haproxy", Address, Server, Certificate, Dir) ->
    {Port, Target} = free(Address),
    File = write(Dir, "haproxy.cfg", haproxy(Address, Port, Server, Certificate)),
    up(other("haproxy", ["-db", "-f", File]), Target).

-spec ecm(string(), string(), none | file:filename(), file:filename(), iodata()) -> {bench_program:program(), string()}.
ecm(Address, Server, Certificate, Dir, Keys) ->
    File = write(Dir, "ecm.toml", [io_lib:format("idle_timeout = ~b~nsend_timeout = 600~n", [?IDLE]), Keys]),
    {Listen, Says} =
        case Certificate of
            none -> {["--listen", Address ++ ":0"], "^listening on "};
            _ -> {tls_arguments(Address, Certificate), "^listening with TLS on "}
        end,
    Program = bench_program:start_server(bench_program:built("megaphone-ecm"), ["--config", File, "--server", Server | Listen]),
    Line = bench_program:await(Program, Says, ?UP_WITHIN),
    _ = bench_program:await(Program, "link to .* up", ?UP_WITHIN),
    {match, [Port]} = re:run(Line, ":(\\d+)$", [{capture, all_but_first, list}]),
    {Program, host(Address) ++ ":" ++ Port}.

%% @doc Starts a connection manager without TLS, with these lines more in its configuration.
-spec start_ecm(inet:ip_address(), bench_users_node:ejabberd(), file:filename(), iodata()) -> front().
start_ecm(Address, #{listeners := Listeners}, Base, Keys) ->
    {megaphone, Server} = lists:keyfind(megaphone, 1, Listeners),
    Dir = own_directory("plain", Base),
    {Program, Target} = ecm(inet:ntoa(Address), Server, none, Dir, Keys),
    #{kind => "plain", program => Program, target => Target, certificate => none}.

-spec own_directory(string(), file:filename()) -> file:filename().
own_directory(Kind, Base) ->
    Dir = filename:join(Base, Kind ++ integer_to_list(erlang:unique_integer([positive]))),
    ok = filelib:ensure_dir(filename:join(Dir, "any")),
    Dir.

%% The file has both.
-spec tls_arguments(string(), file:filename()) -> [string()].
tls_arguments(Address, Certificate) ->
    ["--tls-listen", Address ++ ":0", "--tls-certificate", Certificate, "--tls-key", Certificate].

-spec nginx(string(), string(), string(), none | file:filename()) -> iodata().
nginx(Address, Port, Server, Certificate) ->
    [
        "daemon off;\nmaster_process off;\nworker_rlimit_nofile 20000;\npid nginx.pid;\nerror_log stderr warn;\n",
        "events { worker_connections ", ?PLACES, "; }\n",
        "http {\n  access_log off;\n  tcp_nodelay on;\n  client_max_body_size 0;\n",
        [["  ", Path, "_temp_path ", Path, ";\n"] || Path <- ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]],
        io_lib:format("  keepalive_timeout ~b;\n  keepalive_requests 1000000000;\n  client_header_timeout ~b;\n", [?IDLE, ?IDLE]),
        "  upstream ejabberd { server ", Server, "; keepalive 256; keepalive_requests 1000000000; }\n",
        "  server {\n    listen ", Address, ":", Port, [" ssl" || Certificate =/= none], " backlog=4096;\n",
        [["    ssl_certificate ", Certificate, ";\n    ssl_certificate_key ", Certificate, ";\n"] || Certificate =/= none],
        ["    ssl_protocols TLSv1.2 TLSv1.3;\n" || Certificate =/= none],
        "    location / {\n      proxy_pass http://ejabberd;\n      proxy_http_version 1.1;\n      proxy_read_timeout 600;\n",
        "      proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n    }\n  }\n}\n"
    ].

%% It asks for two descriptors a client, and does without where that is not enforced.
-spec haproxy(string(), string(), string(), none | file:filename()) -> iodata().
haproxy(Address, Port, Server, Certificate) ->
    [
        "global\n  nbthread 1\n  maxconn ", ?CLIENTS, "\n  no strict-limits\n",
        "defaults\n  mode http\n  timeout connect 10s\n  timeout server 600s\n  http-reuse always\n",
        [io_lib:format("  timeout ~s ~bs\n", [Name, ?IDLE]) || Name <- ["client", "http-keep-alive", "http-request"]],
        "frontend clients\n  bind ", Address, ":", Port, " backlog 4096", [[" ssl crt ", Certificate] || Certificate =/= none], "\n",
        "  default_backend ejabberd\nbackend ejabberd\n  server ejabberd ", Server, " maxconn 256 pool-max-conn 256\n"
    ].

%% @doc Writes a new key on the curve P-256 and its certificate, for localhost, to one file.
-spec certificate(file:filename()) -> file:filename().
certificate(Dir) ->
    Ec = [{key, {namedCurve, secp256r1}}, {digest, sha256}],
    Name = #'Extension'{extnID = ?'id-ce-subjectAltName', extnValue = [{dNSName, "localhost"}], critical = false},
    Of = #{root => Ec, peer => [{extensions, [Name]} | Ec]},
    Chain = Of#{intermediates => []},
    #{server_config := Config} = public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    {_, Certificate} = lists:keyfind(cert, 1, Config),
    {_, {Type, Key}} = lists:keyfind(key, 1, Config),
    Entries = [{'Certificate', Certificate, not_encrypted}, {Type, Key, not_encrypted}],
    write(Dir, "server.pem", public_key:pem_encode(Entries)).

-spec write(file:filename(), string(), iodata()) -> file:filename().
write(Dir, Name, Text) ->
    File = filename:join(Dir, Name),
    ok = file:write_file(File, Text),
    File.

%% Of those that do not tell which port they have.
-spec free(string()) -> {Port :: string(), Target :: string()}.
free(Address) ->
    {ok, Parsed} = inet:parse_address(Address),
    {ok, Socket} = gen_tcp:listen(0, [{ip, Parsed}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    {integer_to_list(Port), host(Address) ++ ":" ++ integer_to_list(Port)}.

-spec host(string()) -> string().
host("0.0.0.0") -> "127.0.0.1";
host(Address) -> Address.

%% A connection is taken only by who listens.
-spec up(bench_program:program(), string()) -> {bench_program:program(), string()}.
up(Program, Target) ->
    [Address, Port] = string:split(Target, ":"),
    ok = connected(Program, Address, list_to_integer(Port), erlang:monotonic_time(millisecond) + ?UP_WITHIN),
    {Program, Target}.

-spec connected(bench_program:program(), string(), inet:port_number(), integer()) -> ok.
connected(Program, Address, Port, Deadline) ->
    case gen_tcp:connect(Address, Port, []) of
        {ok, Socket} ->
            gen_tcp:close(Socket);
        {error, Reason} ->
            erlang:monotonic_time(millisecond) < Deadline orelse error({does_not_listen, Program, Reason}),
            ok = bench_program:watch([Program], 50),
            connected(Program, Address, Port, Deadline)
    end.

%% bench/run tells where they are, and which libraries belong to them.
-spec other(string()) -> none | file:filename().
other(Name) ->
    case os:getenv("BENCH_" ++ string:uppercase(Name)) of
        false -> none;
        "" -> none;
        File -> File
    end.

-spec other(string(), [string()]) -> bench_program:program().
other(Name, Arguments) ->
    Libraries = os:getenv("BENCH_PROXY_LIBS", ""),
    Env = ["LD_LIBRARY_PATH=" ++ Libraries || Libraries =/= ""],
    bench_program:start_server("/usr/bin/env", Env ++ [other(Name) | Arguments]).

-spec stop(front()) -> ok.
stop(#{program := Program}) ->
    bench_program:stop(Program).

%% @doc Bytes that it really has.
-spec rss(front()) -> non_neg_integer().
rss(Front) ->
    bench_program:rss(os_pid(Front)).

-spec os_pid(front()) -> pos_integer().
os_pid(#{program := #{os_pid := OsPid}}) ->
    OsPid.
