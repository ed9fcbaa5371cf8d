//! The program itself: arguments, messages, signals.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use common::tls::Authority;
use common::*;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_megaphone-ecm"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn fails(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = program(arguments).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

/// A started program, and what it writes to its log.
struct Running(Child, BufReader<std::process::ChildStderr>);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self(child, log)
    }

    /// Reads the log up to a line with this text; answers what follows the text.
    fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.1.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("the program ended without saying {text:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn help_explains() {
    let Output { status, stdout, .. } = program(&["--help"]).output().unwrap();
    assert!(status.success());
    let text = String::from_utf8(stdout).unwrap();
    for word in [
        "--listen",
        "--server",
        "--config",
        "unix:/PATH",
        "idle_timeout",
        "SIGTERM",
        "--tls-listen",
        "SIGHUP",
        "tls.certificate",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
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

#[test]
fn serves_and_stops_by_signal() {
    for stop in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = node.local_addr().unwrap().to_string();
        let mut running = Running::start(&["--listen", "127.0.0.1:0", "--server", &server]);
        let address = running.wait_for("listening on ");
        let mut node = Node::new(node.accept().unwrap().0);
        node.send(&hello(limits::WINDOW));
        assert!(matches!(node.next(), Event::Hello(_)));
        running.wait_for(&format!("link to {server} up"));
        let mut client = Client::new(std::net::TcpStream::connect(&address).unwrap());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Secret: geheim\r\nContent-Length: 6\r\n\r\ngeheim");
        let id =
            node.first("POST / HTTP/1.1\r\nHost: a\r\nX-Secret: geheim\r\nContent-Length: 6\r\n\r\ngeheim");
        signal(&running.0, stop);
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
