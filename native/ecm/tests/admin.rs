//! The admin address of the real program: what it tells, and that nobody who asks there can do harm.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use common::program::*;
use common::tls::Authority;
use common::*;
use megaphone_ecm::tls::unix_time;
use rustix::process::Signal;

/// The program with an admin address at a free port, its addresses, and what listens for its links.
struct Program {
    running: Running,
    admin: String,
    address: String,
    nodes: TcpListener,
}

impl Program {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let nodes = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = nodes.local_addr().unwrap().to_string();
        let arguments = ["--listen", "127.0.0.1:0", "--server", &server, "--admin", "0", "--log", "info"];
        let mut running = Running::start(&[&arguments, more].concat());
        let address = running.wait_for("listening on ");
        let admin = running.wait_for("admin address: http://");
        assert!(admin.starts_with("127.0.0.1:"), "{admin}");
        Self { running, admin, address, nodes }
    }

    fn link(&mut self) -> Node {
        let mut node = Node::new(self.nodes.accept().unwrap().0);
        node.exchange_hellos(limits::WINDOW);
        self.running.wait_for("takes clients");
        node
    }

    fn client(&self) -> Client {
        Client::new(TcpStream::connect(&self.address).unwrap())
    }

    /// Everything that is answered to these bytes.
    fn ask(&self, request: &str) -> String {
        let mut client = Client::new(TcpStream::connect(&self.admin).unwrap());
        client.send(request);
        client.rest()
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }

    /// Waits until `/health` answers so.
    fn health(&self, status: u16, text: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            let answer = self.get("/health");
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "{answer}");
        }
    }

    /// Waits until `/metrics` has all these lines.
    fn metrics(&self, lines: &[&str]) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            let text = self.get("/metrics");
            let missing: Vec<_> =
                lines.iter().filter(|line| !text.contains(&format!("\n{line}\n"))).collect();
            if missing.is_empty() {
                return text;
            }
            assert!(Instant::now() < until, "{missing:?}: {text}");
        }
    }
}

/// The numbers of the metrics are those of what happened, and nothing of what clients and ejabberd said is among them.
#[test]
fn metrics_tell_what_happened() {
    let mut program = Program::start();
    program.metrics(&["megaphone_links 1", "megaphone_links_up 0", "megaphone_clients_accepted_total 0"]);
    let mut node = program.link();
    let (mut idle, mut waits, mut tunnel, mut bad) =
        (program.client(), program.client(), program.client(), program.client());
    let post = "POST /geheim HTTP/1.1\r\nHost: geheim\r\nCookie: geheim\r\nContent-Length: 6\r\n\r\ngeheim";
    idle.send(post);
    let id = node.first(post);
    node.answer(id, "geheim");
    idle.expect(&response("geheim"));
    waits.send(GET);
    let held = node.first(GET);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tunnel.send(upgrade);
    let id = node.first(upgrade);
    node.tunnel(id);
    bad.send("geheim\r\n\r\n");
    let refusal = bad.refused(400);
    drop(bad);
    let bytes_in = post.len() + GET.len() + upgrade.len() + "geheim\r\n\r\n".len();
    let bytes_out = response("geheim").len() + refusal.len();
    let text = program.metrics(&[
        "megaphone_links_up 1",
        "megaphone_clients{state=\"idle\"} 1",
        "megaphone_clients{state=\"request\"} 1",
        "megaphone_clients{state=\"websocket\"} 1",
        "megaphone_clients{state=\"closing\"} 0",
        "megaphone_clients_accepted_total 4",
        "megaphone_virtual_connections_total 3",
        "megaphone_websockets_total 1",
        "megaphone_requests_total 3",
        "megaphone_refused_total{reason=\"malformed\"} 1",
        "megaphone_request_seconds_count 1",
        "megaphone_request_seconds_bucket{le=\"+Inf\"} 1",
        &format!("megaphone_client_bytes_total{{direction=\"in\"}} {bytes_in}"),
        &format!("megaphone_client_bytes_total{{direction=\"out\"}} {bytes_out}"),
        "megaphone_draining 0",
    ]);
    assert!(text.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    node.answer(held, "x");
    waits.expect(&response("x"));
    program.metrics(&["megaphone_request_seconds_count 2", "megaphone_clients{state=\"request\"} 0"]);
    drop((idle, waits, tunnel));
    drop(node);
    program.metrics(&["megaphone_links_up 0", "megaphone_links_lost_total 1"]);
}

/// A request that waits for long is measured as long, however short the ones before and after it are.
#[test]
fn latencies_are_those_of_the_requests() {
    let mut program = Program::start();
    let mut node = program.link();
    let mut client = program.client();
    let asked = Instant::now();
    client.send(GET);
    let id = node.first(GET);
    // No sleep: scrapes pass the time.
    while asked.elapsed().as_millis() < 300 {
        program.get("/health");
    }
    node.answer(id, "x");
    client.expect(&response("x"));
    let most = asked.elapsed().as_secs_f64();
    let text = program.metrics(&["megaphone_request_seconds_count 1"]);
    let sum = text.lines().find_map(|line| line.strip_prefix("megaphone_request_seconds_sum ")).unwrap();
    let sum: f64 = sum.parse().unwrap();
    assert!((0.25..=most).contains(&sum), "{sum} of {most}");
    assert!(text.contains("megaphone_request_seconds_bucket{le=\"0.25\"} 0\n"), "{text}");
}

/// Each metric is in the table of the manual, and the table has no other ones.
#[test]
fn metrics_are_documented() {
    let mut authority = Authority::new();
    let pair = authority.pair("a", &["a.example"]);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let mut program =
        Program::with(&["--tls-listen", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", key]);
    let _node = program.link();
    let text = program.get("/metrics");
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let section = manual.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let documented: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(['`', '{']).next())
        .collect();
    assert_eq!(told, documented);
}

/// When the first certificate expires is told in seconds since 1970, anew after a reload; nothing without certificates.
#[test]
fn the_expiry_of_certificates_is_told() {
    let mut authority = Authority::new();
    let now = unix_time();
    let pair = authority.pair_for("a", &["a.example"], 0..=now + 1_000_000);
    let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
    let mut program =
        Program::with(&["--tls-listen", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", key]);
    let _node = program.link();
    program.metrics(&[&format!("megaphone_certificate_expiry_timestamp_seconds {}", now + 1_000_000)]);
    authority.pair_for("a", &["a.example"], 0..=now + 9_000_000);
    signal(&program.running.0, Signal::HUP);
    program.metrics(&[&format!("megaphone_certificate_expiry_timestamp_seconds {}", now + 9_000_000)]);
    let mut program = Program::start();
    let _node = program.link();
    assert!(!program.metrics(&["megaphone_links_up 1"]).contains("certificate"));
}

/// Healthy is one that has a link and is not draining; otherwise the reason is told.
#[test]
fn health_follows_link_and_draining() {
    let mut program = Program::start();
    program.health(503, "no link");
    let mut node = program.link();
    program.health(200, "ok");
    let mut client = program.client();
    client.send(GET);
    let id = node.first(GET);
    signal(&program.running.0, Signal::TERM);
    program.health(503, "draining");
    node.answer(id, "x");
    client.rest();
    drop(client);
    assert!(program.running.0.wait().unwrap().success());
}

/// Requests that are not served there are answered for what they are, HEAD without a body.
#[test]
fn other_requests_are_refused() {
    let program = Program::start();
    let status = |request: &str| {
        let answer = program.ask(request);
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_eq!(status("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    assert_eq!(status("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"), 405);
    assert_eq!(status("nonsense\r\n\r\n"), 400);
    let long = |length: usize| {
        let start = "GET /metrics HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    assert_eq!(status(&long(limits::ADMIN_HEAD - 1)), 200);
    assert_eq!(status(&long(limits::ADMIN_HEAD)), 200);
    assert_eq!(status(&long(limits::ADMIN_HEAD + 1)), 431);
    assert_eq!(status(&format!("GET /{}", "x".repeat(limits::ADMIN_HEAD))), 431);
    assert_eq!(status("GET /metrics?name=x HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    let head = program.ask("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

/// Admin clients that say nothing, that trickle and that do not read hold up neither chat clients nor other admin
/// clients, and are cut off in time.
#[test]
fn admin_clients_do_no_harm() {
    let mut program = Program::start();
    let mut node = program.link();
    let since = Instant::now();
    let mut idle: Vec<Client> = (0..4 * limits::ADMIN_CONNECTIONS)
        .map(|_| Client::new(TcpStream::connect(&program.admin).unwrap()))
        .collect();
    for client in &mut idle {
        // Those that had to make room are gone already.
        let _ = client.stream.write_all(b"GET /metrics HTTP/1.1\r\n");
    }
    program.health(200, "ok");
    let mut client = program.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
    // The one that asked for health took another one's place.
    let limit = std::time::Duration::from_millis(limits::ADMIN_TIMEOUT.into());
    let mut kept = 0;
    for client in &mut idle {
        let mut rest = Vec::new();
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
        kept += usize::from(since.elapsed() >= limit);
    }
    assert!((1..=limits::ADMIN_CONNECTIONS).contains(&kept), "{kept}");
}

/// An admin address that another process still has is taken when it is free, as after an upgrade.
#[test]
fn a_taken_admin_address_is_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let mut running =
        Running::start(&["--listen", "127.0.0.1:0", "--server", "127.0.0.1:1", "--admin", &admin]);
    running.wait_for("is in use");
    running.wait_for("takes clients");
    drop(taken);
    assert_eq!(running.wait_for("admin address: http://"), admin);
    assert!(fails(&["--admin", "nonsense"]).contains("127.0.0.1:9280"));
    assert!(fails(&["--listen", "127.0.0.1:0", "--admin", "192.0.2.1:1"]).contains("192.0.2.1:1"));
}
