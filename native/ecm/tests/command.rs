//! The program itself: arguments, messages, signals.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{BufRead, Read};
use std::net::TcpListener;
use std::process::Output;

use common::program::*;
use common::tls::Authority;
use common::*;

#[test]
fn help_explains() {
    let Output { status, stdout, .. } = program(&["--help"]).output().unwrap();
    assert!(status.success());
    let text = String::from_utf8(stdout).unwrap();
    for word in [
        "--listen",
        "--server",
        "--config",
        "check",
        "--admin",
        "--log-format",
        "unix:/PATH",
        "megaphone-ecm check",
        "SIGTERM",
        "--tls-listen",
        "SIGHUP",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// The man page has exactly the options of `--help`, with their values and texts.
#[test]
fn the_man_page_has_every_option() {
    let Output { stdout, .. } = program(&["--help"]).output().unwrap();
    let help = String::from_utf8(stdout).unwrap();
    let told: Vec<_> = help
        .lines()
        .filter_map(|line| line.trim_start().split_once("  ").filter(|(option, _)| option.starts_with('-')))
        .map(|(option, text)| (option.replace(['<', '>'], ""), text.trim().to_owned()))
        .collect();
    let page = include_str!("../../../docs/megaphone-ecm.8");
    let (_, page) = page.split_once(".Sh OPTIONS\n").unwrap();
    let (page, _) = page.split_once(".El\n").unwrap();
    let (_, items) = page.split_once(".It ").unwrap();
    let written: Vec<_> = items
        .split(".It ")
        .map(|item| {
            let (option, text) = item.split_once('\n').unwrap();
            let option =
                option.replace("Fl Fl ", "--").replace("Fl ", "-").replace(" Ar", "").replace(" ,", ",");
            (option, text.replace("\\-", "-").split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert!(told.len() > 10, "{help}");
    assert_eq!(written, told);
}

#[test]
fn mistakes_are_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = fails(&["--listen", &address]);
    assert!(text.contains(&address) && text.contains("in use") && text.contains("--listen"), "{text}");
    assert!(fails(&["--listen", "nonsense"]).contains("nonsense"));
    assert!(fails(&["--server", "nonsense"]).contains("HOST:PORT"));
    assert!(fails(&["--config", "/no/such/file"]).contains("/no/such/file"));
    let file = std::env::temp_dir().join(format!("megaphone-ecm-test-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = '127.0.0.1:0'\nserve = 'x:1'\n").unwrap();
    let name = file.to_str().unwrap().to_owned();
    let text = fails(&["--config", &name]);
    std::fs::remove_file(&file).unwrap();
    assert!(text.contains(&name) && text.contains("line 2") && text.contains("serve"), "{text}");
}

/// `check` says what is in force, or which key of which line is wrong, by exit status 0 and 1.
#[test]
fn a_file_can_be_checked() {
    let file = std::env::temp_dir().join(format!("megaphone-ecm-check-{}.toml", std::process::id()));
    let name = file.to_str().unwrap();
    std::fs::write(&file, "server = 'unix:/s'\nadmin = 9280\nmax_clients = 900000000\n").unwrap();
    let Output { status, stdout, stderr } = program(&["check", name]).output().unwrap();
    assert_eq!(status.code(), Some(0));
    let text = String::from_utf8(stdout).unwrap();
    for line in [
        "server = \"unix:/s\"",
        "admin = \"127.0.0.1:9280\"",
        "listen = \"127.0.0.1:5280\"",
        "idle_timeout = 75",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let warning = String::from_utf8(stderr).unwrap();
    assert!(warning.contains("max_clients = 900000000") && warning.contains("LimitNOFILE="), "{warning}");
    // What was printed is a file as well.
    std::fs::write(&file, &text).unwrap();
    let Output { stdout, .. } = program(&["check", name]).output().unwrap();
    assert_eq!(String::from_utf8(stdout).unwrap(), text);
    std::fs::write(&file, "\nlisten = 'nowhere'\n").unwrap();
    let Output { status, stdout, stderr } = program(&["check", name]).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0));
    for part in [name, "line 2", "listen", "nowhere"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// What is given as an argument wins over the file.
#[test]
fn arguments_win_over_the_file() {
    let file = std::env::temp_dir().join(format!("megaphone-ecm-wins-{}.toml", std::process::id()));
    std::fs::write(&file, "listen = '192.0.2.1:1'\nserver = 'x:1'\nlog = 'error'\nlog_format = 'json'\n")
        .unwrap();
    let mut running = Running::start(&[
        "--config",
        file.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--server",
        "127.0.0.1:1",
        "--log",
        "info",
        "--log-format",
        "text",
    ]);
    assert!(running.wait_for("INFO ").contains("descriptors"));
    assert!(running.wait_for("listening on ").starts_with("127.0.0.1:"));
    assert!(running.wait_for("link to 127.0.0.1:1 ").contains("down"));
    std::fs::remove_file(&file).unwrap();
}

/// A service manager that asks for it (`Type=notify`) is told when clients are taken, and when no more are.
#[test]
fn the_service_manager_is_told() {
    let path = std::env::temp_dir().join(format!("megaphone-ecm-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = node.local_addr().unwrap().to_string();
    let mut running = Running::spawn(
        program(&["--listen", "127.0.0.1:0", "--server", &server]).env("NOTIFY_SOCKET", &path),
    );
    let address = running.wait_for("listening on ");
    let mut node = Node::new(node.accept().unwrap().0);
    node.exchange_hellos(limits::WINDOW);
    let ready = told();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    let mut client = Client::new(std::net::TcpStream::connect(&address).unwrap());
    client.send(GET);
    let id = node.first(GET);
    signal(&running.0, rustix::process::Signal::TERM);
    let stopping = told();
    assert!(stopping.lines().any(|line| line == "STOPPING=1"), "{stopping}");
    node.answer(id, "x");
    client.rest();
    drop(client);
    assert!(running.0.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();
}

/// A program with a link to a node, where clients reach it, the node's end, and how it calls the node.
fn linked() -> (Running, String, Node, String) {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = node.local_addr().unwrap().to_string();
    let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    let address = running.wait_for("listening on ");
    let mut node = Node::new(node.accept().unwrap().0);
    node.exchange_hellos(limits::WINDOW);
    (running, address, node, server)
}

/// SIGHUP does no harm.
#[test]
fn a_reload_goes_on_serving() {
    let (mut running, address, mut node, _) = linked();
    signal(&running.0, rustix::process::Signal::HUP);
    running.wait_for("no certificates are configured");
    let mut client = Client::new(std::net::TcpStream::connect(&address).unwrap());
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}

/// In JSON each line is an object with time, level and message; text of peers stays escaped within it.
#[test]
fn logs_can_be_json() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = node.local_addr().unwrap().to_string();
    let mut running =
        Running::start(&["--listen", "127.0.0.1:0", "--server", &server, "--log-format", "json"]);
    let mut node = Node::new(node.accept().unwrap().0);
    let name = "a\"b\n\u{1b}[1m";
    node.send(&Frame::Hello(Hello {
        role: Role::Ejabberd,
        features: Hello::CREDIT,
        window: limits::WINDOW,
        name,
    }));
    let mut lines = String::new();
    while !lines.contains("takes clients") {
        assert!(running.1.read_line(&mut lines).unwrap() > 0, "{lines}");
    }
    signal(&running.0, rustix::process::Signal::INT);
    running.1.read_to_string(&mut lines).unwrap();
    for line in lines.lines() {
        assert!(line.starts_with("{\"timestamp\":\"") && line.ends_with('}'), "{line}");
        assert!(line.contains("\"level\":\"INFO\"") && line.contains("\"message\":\""), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
    assert!(lines.contains("listening on") && lines.contains("stopped"), "{lines}");
}

/// SIGINT, or SIGTERM for the second time, ends it at once: who waits for an answer gets 503.
#[test]
fn serves_and_stops_by_signal() {
    use rustix::process::Signal;
    for stop in [&[Signal::TERM, Signal::TERM][..], &[Signal::INT]] {
        let (mut running, address, mut node, server) = linked();
        running.wait_for(&format!("link to {server} up"));
        let mut client = Client::new(std::net::TcpStream::connect(&address).unwrap());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Secret: geheim\r\nContent-Length: 6\r\n\r\ngeheim");
        let id =
            node.first("POST / HTTP/1.1\r\nHost: a\r\nX-Secret: geheim\r\nContent-Length: 6\r\n\r\ngeheim");
        for (at, stop) in stop.iter().enumerate() {
            if at > 0 {
                running.wait_for("draining: 1 clients");
            }
            signal(&running.0, *stop);
        }
        assert_eq!(node.next(), Event::Close(id, CloseReason::Shutdown));
        assert_eq!(node.next(), Event::Ended);
        client.refused(503);
        assert!(running.0.wait().unwrap().success());
        let mut log = String::new();
        running.1.read_to_string(&mut log).unwrap();
        assert!(!log.contains("geheim"), "{log}");
    }
}

/// With certificates alone there is no plain port; SIGHUP reads them again, a failure is said with the file's name and
/// changes nothing, and the process goes on.
#[test]
fn certificates_are_read_again_by_signal() {
    let mut authority = Authority::new();
    let pair = authority.pair("a", &["a.example"]);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let tls = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", key];
    let mut running = Running::start(&tls);
    // The file was made for everybody to read.
    assert!(running.wait_for("WARN the key ").starts_with(key));
    let address = running.wait_for("listening with TLS on ").parse().unwrap();
    let before = Authority::certificate(&pair);
    std::fs::remove_file(&pair.key).unwrap();
    signal(&running.0, rustix::process::Signal::HUP);
    assert!(running.wait_for("the old ones stay: ").contains(key));
    let mut client = authority.client(address, "a.example");
    client.greet().unwrap();
    assert_eq!(client.certificate(), before);
    authority.pair("a", &["a.example"]);
    signal(&running.0, rustix::process::Signal::HUP);
    assert_eq!(running.wait_for("certificates were read again: "), "1");
    let mut client = authority.client(address, "a.example");
    client.greet().unwrap();
    assert_eq!(client.certificate(), Authority::certificate(&pair));
    signal(&running.0, rustix::process::Signal::TERM);
    let mut log = String::new();
    running.1.read_to_string(&mut log).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(!log.contains("listening on"), "{log}");
}

/// SIGHUP without certificates is no end.
#[test]
fn a_signal_without_certificates_changes_nothing() {
    let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", "127.0.0.1:1"]);
    running.wait_for("listening on ");
    signal(&running.0, rustix::process::Signal::HUP);
    running.wait_for("no certificates are configured");
}

/// The section [tls] of a file is taken, with several certificates, and both ports; mistakes in it are explained.
#[test]
fn certificates_may_stand_in_the_file() {
    let mut authority = Authority::new();
    let [one, other] = ["a", "b"].map(|name| authority.pair(name, &[&format!("{name}.example")]));
    let section = |key: &std::path::Path| {
        format!(
            "listen = '127.0.0.1:0'\nrequire_tls = true\n[tls]\nlisten = '127.0.0.1:0'\n[[tls.certificate]]\n\
             certificate = '{}'\nkey = '{}'\n[[tls.certificate]]\ncertificate = '{}'\nkey = '{}'\n",
            one.certificate.display(),
            one.key.display(),
            other.certificate.display(),
            key.display()
        )
    };
    let file = authority.dir.join("ecm.toml");
    let name = file.to_str().unwrap().to_owned();
    std::fs::write(&file, section(&other.key)).unwrap();
    let mut running = Running::start(&["--config", &name]);
    let address = running.wait_for("listening with TLS on ").parse().unwrap();
    running.wait_for("listening on ");
    for (name, pair) in [("a.example", &one), ("b.example", &other)] {
        let mut client = authority.client(address, name);
        client.greet().unwrap();
        assert_eq!(client.certificate(), Authority::certificate(pair));
    }
    std::fs::write(&file, section(&one.key)).unwrap();
    let text = fails(&["--config", &name]);
    assert!(text.contains("does not belong") && text.contains(other.certificate.to_str().unwrap()), "{text}");
    std::fs::write(&file, "[tls]\nlisten = '127.0.0.1:0'\n").unwrap();
    assert!(fails(&["--config", &name]).contains("[[tls.certificate]]"));
    std::fs::write(&file, section(&other.key).replace("[tls]\nlisten = '127.0.0.1:0'\n", "")).unwrap();
    assert!(fails(&["--config", &name]).contains("--tls-listen"));
    assert!(fails(&["--tls-certificate", "x"]).contains("--tls-key"));
    assert!(fails(&["--tls-listen", "nonsense"]).contains("nonsense"));
}

#[test]
fn a_node_of_another_version_is_named() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = node.local_addr().unwrap().to_string();
    let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    let (mut stream, _) = node.accept().unwrap();
    let mut greeting = Vec::new();
    hello(limits::WINDOW).encode(&mut greeting);
    greeting[17] = 9;
    std::io::Write::write_all(&mut stream, &greeting).unwrap();
    let text = running.wait_for("down: ");
    assert!(text.contains("version 9") && text.contains("version 1"), "{text}");
}

#[test]
fn the_link_may_be_a_unix_socket_under_a_name() {
    let path = std::env::temp_dir().join(format!("megaphone-ecm-test-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let node = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = format!("unix:{}", path.display());
    let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    let (mut stream, _) = node.accept().unwrap();
    let mut greeting = Vec::new();
    hello(limits::WINDOW).encode(&mut greeting);
    std::io::Write::write_all(&mut stream, &greeting).unwrap();
    running.wait_for(&format!("link to {server} up"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_server_may_be_a_name() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("localhost:{}", node.local_addr().unwrap().port());
    let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
    let mut node = Node::new(node.accept().unwrap().0);
    node.send(&hello(limits::WINDOW));
    running.wait_for(&format!("link to {server} up"));
}
