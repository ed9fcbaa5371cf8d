%% Converse.js in a real browser: a headless Chromium with two pages, one by BOSH and one by WebSocket, that come from a real
%% ejabberd through a real connection manager, as their requests do. A test clicks and types, and looks at what a page shows.
-module(browser_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("megaphone_test.hrl").

-import(megaphone_test, [wait_until/1]).
-import(megaphone_test_node, [address/2, call/4, listener/3]).
-import(megaphone_test_program, [await_line/3, await_exit/1, root/0, tell/2, text/2]).

-define(PASSWORD, "pass-of-a-test").
%% Milliseconds for a step of a page: the program gives up after 20 seconds, and says why.
-define(STEP, 30000).
%% Milliseconds for all that `make run' does first.
-define(START, 120000).
%% The size of a page.
-define(WIDTH, 900).
-define(HEIGHT, 560).

suite() -> [{timetrap, {seconds, 240}}].

all() ->
    [
        chat,
        pages_are_loaded_again,
        log_out_and_in,
        make_run,
        browser_ends_with_its_program
    ].

init_per_suite(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(?MODULE)),
    Handlers = "request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, /converse: mod_http_fileserver}",
    ok = megaphone_test_node:write_config(Dir, [listener(megaphone, 1, [Handlers])]),
    ok = serve_clients(Dir),
    Node = megaphone_test_node:start_in(Dir),
    ok = call(Node, ejabberd_hooks, add, [user_receive_packet, <<"localhost">>, ?MODULE, note_received, 90]),
    {Ecm, Port} = megaphone_test_program:ecm(megaphone_test_program:server(address(Node, megaphone))),
    ok = meet(Node, Port),
    [{node, Node}, {ecm, Ecm}, {port, Port} | Config].

%% The file server gives the clients' directory, and there are the modules that Converse.js asks for.
serve_clients(Dir) ->
    Clients = [filename:join([root(), "test", "clients"]), "\"\n    directory_indices: [converse.html]"],
    ok = megaphone_test_node:change_config(Dir, [filename:join(Dir, "files"), "\""], Clients),
    More = "mod_bosh: {}\n  mod_caps: {}\n  mod_carboncopy: {}\n  mod_pubsub: {plugins: [flat, pep]}\n  mod_vcard: {}",
    megaphone_test_node:change_config(Dir, "mod_bosh: {}", More).

%% Makes alice and bob contacts.
meet(Node, Port) ->
    [ok = megaphone_test_node:register_user(Node, User, <<?PASSWORD>>) || User <- [<<"alice">>, <<"bob">>]],
    Url = "ws://127.0.0.1:" ++ integer_to_list(Port) ++ "/ws",
    Meeting = megaphone_test_program:client("chat.mjs", [
        "--url", Url, "--domain", "localhost", "--users", "alice,bob", "--passwords", ?PASSWORD
    ]),
    {Status, Output} = await_exit(Meeting),
    ?assertEqual({0, Output}, {Status, Output}),
    ok.

end_per_suite(Config) ->
    {0, _} = megaphone_test_program:stop(proplists:get_value(ecm, Config)),
    megaphone_test_node:stop_without_errors(node_of(Config)).

%% The browser has a directory to itself, with a short name: it makes a socket there.
init_per_testcase(_Case, Config) ->
    Dir = filename:join(os:getenv("TMPDIR", "/tmp"), "megaphone-" ++ integer_to_list(rand:uniform(1 bsl 48), 36)),
    ok = file:make_dir(Dir),
    [{dir, Dir} | Config].

%% Users have logged out, so nothing of them is left; and however the case has ended, nothing of the browser is, nor of users
%% for the next case.
end_per_testcase(_Case, Config) ->
    Node = node_of(Config),
    Users = megaphone_test:finish_case(Config, fun() -> assert_left(Node) end),
    _ = [call(Node, ejabberd_sm, kick_user, [User, <<"localhost">>]) || User <- [<<"alice">>, <<"bob">>]],
    Dir = dir_of(Config),
    Browser = megaphone_test:finish_case([{tc_status, ok}], fun() -> wait_until(fun() -> processes_in(Dir) =:= [] end) end),
    ok = file:del_dir_r(Dir),
    case Users of
        ok -> Browser;
        _ -> Users
    end.

assert_left(Node) ->
    ok = megaphone_test_node:assert_only_links(Node, 1),
    ok = wait_until(fun() -> maps:get(sessions, call(Node, megaphone_nif, bosh_info, [])) =:= 0 end),
    ok = wait_until(fun() -> call(Node, ejabberd_sm, connected_users_number, []) =:= 0 end).

node_of(Config) -> proplists:get_value(node, Config).

dir_of(Config) -> proplists:get_value(dir, Config).

%% What works in a directory: the browser and all its processes do, in theirs.
processes_in(Dir) ->
    [Link || Link <- filelib:wildcard("/proc/[0-9]*/cwd"), file:read_link(Link) =:= {ok, Dir}].

%% ---- pages -----------------------------------------------------------------------------------------------------

%% The program that plays the users of a browser, without pages yet. See test/clients/pages.mjs.
browser(Config) ->
    Dir = dir_of(Config),
    Chromium = os:find_executable("chromium"),
    is_list(Chromium) orelse error("chromium was not found: run `make setup'"),
    Env = [{Name, Dir} || Name <- ["HOME", "TMPDIR"]],
    megaphone_test_program:client("pages.mjs", ["--browser", Chromium], #{cd => Dir, env => Env}).

%% A browser in which both users are logged in, and each has a chat with the other before it.
both(Config) ->
    Base = lists:flatten(io_lib:format("http://localhost:~b/converse/", [proplists:get_value(port, Config)])),
    both(Config, Base ++ "?over=bosh#alice:" ++ ?PASSWORD, Base ++ "?over=websocket#bob:" ++ ?PASSWORD).

both(Config, Alice, Bob) ->
    Browser = browser(Config),
    ?assertEqual(<<"alice@localhost">>, text("user", do(Browser, ["open alice ", Alice], "online"))),
    ?assertEqual(<<"bob@localhost">>, text("user", do(Browser, ["open bob ", Bob], "online"))),
    [
        begin
            _ = do(Browser, ["sees ", One, " ", Other, "@localhost"], "sees"),
            _ = do(Browser, ["chat ", One, " ", Other, "@localhost"], "chatting")
        end
     || {One, Other} <- [{"alice", "bob"}, {"bob", "alice"}]
    ],
    Browser.

%% Obeys a command, which ends with this event. Gives its line. Addresses hold passwords, and are not in the error.
do(Browser, Command, Event) ->
    ok = tell(Browser, Command),
    Line = await_line(Browser, "{\"event\":", ?STEP),
    text("event", Line) =:= list_to_binary(Event) orelse error({hd(string:lexemes(Command, " ")), Line}),
    Line.

%% A page shows these messages and no others, in this order.
assert_shown(Browser, Page, Messages) ->
    Line = do(Browser, ["messages ", Page, " ", integer_to_list(length(Messages))], "messages"),
    Shown = iolist_to_binary(lists:join(",", [["\"", Message, "\""] || Message <- Messages])),
    [_, Found] = binary:split(Line, <<"\"messages\":">>),
    ?assertEqual(<<"[", Shown/binary, "]}">>, Found).

%% The users say this, each when both have seen what was said before it.
talk(Browser, Before, New) ->
    lists:foldl(
        fun(Message, Said) ->
            ok = say(Browser, Message),
            ok = assert_both_show(Browser, Said ++ [Message]),
            Said ++ [Message]
        end,
        Before,
        New
    ).

say(Browser, {From, Text}) ->
    _ = do(Browser, ["say ", atom_to_list(From), " ", Text], "said"),
    ok.

%% The same messages, as both see them.
assert_both_show(Browser, Messages) ->
    As = fun(Me) -> [[case From of Me -> "me"; _ -> "them" end, ": ", Text] || {From, Text} <- Messages] end,
    lists:foreach(fun(Page) -> assert_shown(Browser, atom_to_list(Page), As(Page)) end, [alice, bob]).

%% Both log out and the browser ends. All that it has found wrong is among these.
leave(Browser, Explained) ->
    _ = [do(Browser, ["logout ", Page], "loggedout") || Page <- ["alice", "bob"]],
    [_, Found] = binary:split(do(Browser, "complaints", "complaints"), <<"\"complaints\":">>),
    Complaints = case re:run(Found, "\"((?:[^\"\\\\]|\\\\.)*)\"", [global, {capture, all_but_first, binary}]) of
        {match, Matches} -> lists:append(Matches);
        nomatch -> []
    end,
    ?assertEqual([], [Complaint || Complaint <- Complaints, not lists:member(Complaint, Explained)]),
    _ = do(Browser, "quit", "bye"),
    ?assertMatch({0, _}, await_exit(Browser)).

%% In the node, a hook: a client session has taken a message for its client.
note_received({Packet, _State} = Accumulated) ->
    _ = persistent_term:put({?MODULE, fxml:get_path_s(xmpp:encode(Packet), [{elem, <<"body">>}, cdata])}, true),
    Accumulated.

await_received(Config, Text) ->
    wait_until(fun() -> call(node_of(Config), persistent_term, get, [{?MODULE, Text}, false]) end).

%% ---- chat ------------------------------------------------------------------------------------------------------

chat(Config) ->
    %% Two users log in, one by BOSH and one by WebSocket, see each other online and chat both ways; the picture of a page is
    %% one of a page with something on it, and not a large file.
    Browser = both(Config),
    Messages = [
        {alice, "Hello Bob! My page came through Megaphone, and talks by BOSH."},
        {bob, "Mine, too. I am here by WebSocket."},
        {alice, unicode:characters_to_binary(["<i>Gr", 16#FC, 16#DF, "e</i> &amp; 1 < 2 ", 16#20AC])},
        {bob, "Shown as you wrote it."},
        {alice, "Then I load my page again, and we go on."}
    ],
    _ = talk(Browser, [], Messages),
    ok = assert_picture(Browser, "alice", filename:join(proplists:get_value(priv_dir, Config), "converse.png")),
    leave(Browser, []).

assert_picture(Browser, Page, File) ->
    Line = do(Browser, ["picture ", Page, " ", File], "picture"),
    {ok, Png} = file:read_file(File),
    ?assertMatch(<<137, "PNG\r\n", 26, "\n", _:8/binary, ?WIDTH:32, ?HEIGHT:32, _/binary>>, Png),
    Found = maps:from_list([{Name, number(Name, Line)} || Name <- ["width", "height", "colours", "most"]]),
    ?assertMatch(#{"width" := ?WIDTH, "height" := ?HEIGHT}, Found),
    %% Text is many colours at its edges. A blank page has one, and a login form that is just being faded in is some 94 % white.
    ?assert(maps:get("colours", Found) > 500, Found),
    ?assert(maps:get("most", Found) < 92, Found),
    ?assert(byte_size(Png) < 150_000).

number(Name, Line) ->
    {match, [Number]} = re:run(Line, ["\"", Name, "\":([0-9]+)"], [{capture, all_but_first, list}]),
    list_to_integer(Number).

%% ---- pages that are loaded again -------------------------------------------------------------------------------

pages_are_loaded_again(Config) ->
    %% A page that is loaded again goes on, in its BOSH session or in its stream over WebSocket: what was said in between, when
    %% there was no page, is shown once, and so is all that was said before and afterwards.
    Browser = both(Config),
    %% East Asian characters and one that is two units in UTF-16.
    Before = talk(Browser, [], [{alice, "before"}, {bob, unicode:characters_to_binary([16#6771, 16#4EAC, " ", 16#1F680])}]),
    _ = lists:foldl(fun({Who, Other}, Said) -> load_again(Config, Browser, Who, Other, Said) end, Before, [{alice, bob}, {bob, alice}]),
    %% The browser complains of the poll of the page that goes.
    Poll = io_lib:format("alice: request: http://localhost:~b/bosh net::ERR_ABORTED", [proplists:get_value(port, Config)]),
    leave(Browser, [iolist_to_binary(Poll)]).

load_again(Config, Browser, Who, Other, Before) ->
    Page = atom_to_list(Who),
    _ = do(Browser, ["reload ", Page], "away"),
    Meanwhile = {Other, "while " ++ Page ++ " has no page"},
    ok = say(Browser, Meanwhile),
    ok = await_received(Config, list_to_binary(element(2, Meanwhile))),
    _ = do(Browser, ["go-on ", Page], "online"),
    %% The chat is open again by itself.
    ok = assert_both_show(Browser, Before ++ [Meanwhile]),
    talk(Browser, Before ++ [Meanwhile], [{Who, "again here"}, {Other, "welcome"}]).

log_out_and_in(Config) ->
    %% Who has logged out logs in again by the form, which has name and password in it, and can be talked to.
    Browser = both(Config),
    [
        begin
            Left = do(Browser, ["logout ", Page], "loggedout"),
            ?assertMatch({0, _}, binary:match(text("jid", Left), list_to_binary(Page ++ "@localhost/"))),
            _ = do(Browser, ["login ", Page], "online"),
            _ = do(Browser, ["sees ", Other, " ", Page, "@localhost"], "sees"),
            _ = do(Browser, ["chat ", Page, " ", Other, "@localhost"], "chatting")
        end
     || {Page, Other} <- [{"alice", "bob"}, {"bob", "alice"}]
    ],
    Messages = [{alice, "in again"}, {bob, "me, too"}],
    _ = talk(Browser, [], Messages),
    leave(Browser, []).

%% ---- programs --------------------------------------------------------------------------------------------------

make_run(Config) ->
    %% The addresses that `make run' prints are pages whose users are logged in and chat.
    Env = [{"PORT", "0"}, {"ONCE", ""}, {"TMPDIR", dir_of(Config)}],
    Run = megaphone_test_program:start(filename:join([root(), "scripts", "run"]), [], #{env => Env}),
    [Alice, Bob] = [
        binary_to_list(lists:last(string:lexemes(await_line(Run, ["#", User, ":"], ?START), " ")))
     || User <- ["alice", "bob"]
    ],
    Browser = both(Config, Alice, Bob),
    Messages = [{alice, "from a tab"}, {bob, "from another"}],
    _ = talk(Browser, [], Messages),
    leave(Browser, []),
    ok = megaphone_test_program:signal(Run, "TERM"),
    ?assertMatch({0, _}, await_exit(Run)).

browser_ends_with_its_program(Config) ->
    %% When the program that drives it is killed, all processes of the browser end: a test that fails leaves none.
    Browser = browser(Config),
    _ = do(Browser, "complaints", "complaints"),
    %% The program, the browser, and what draws for it.
    ?assert(length(processes_in(dir_of(Config))) > 2),
    ok = megaphone_test_program:signal(Browser, "KILL"),
    {137, _} = await_exit(Browser),
    wait_until(fun() -> processes_in(dir_of(Config)) =:= [] end).
