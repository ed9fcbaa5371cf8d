//! TLS for clients: versions, certificates, records, ends and time limits.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use common::tls::{Authority, TlsClient, connect, start};
use common::*;
use megaphone_ecm::tls::Certificates;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

/// With every version and cipher a request reaches the node, marked as one that came by TLS, and its answer the client.
#[test]
fn every_version_and_cipher_is_served() {
    let (authority, ecm, mut node, address) = start(|_| {});
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        let mut config = authority.client_config_of(&[suite.version()], &[*suite]);
        let is_rsa = format!("{:?}", suite.suite()).contains("_RSA_");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = TlsClient::new(connect(address), Arc::new(config), "a.example");
        if is_rsa {
            // The certificate has an ECDSA key: nothing in common, and an alert says so.
            assert!(client.greet().unwrap_err().to_string().contains("HandshakeFailure"));
            continue;
        }
        client.send(GET);
        let Event::Open(id, open) = node.next() else { panic!("no open") };
        assert!(open.tls);
        assert_eq!(open.client, client.tls.sock.local_addr().unwrap());
        assert_eq!(open.local, address);
        node.request(id, GET);
        node.answer(id, "one");
        client.expect(&response("one"));
        assert_eq!(client.tls.conn.negotiated_cipher_suite(), Some(*suite));
        assert_eq!(client.tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.send(GET);
        node.request(id, GET);
        node.answer(id, "two");
        client.expect(&response("two"));
        client.tls.conn.send_close_notify();
        client.tls.flush().unwrap();
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
        node.close(id);
        assert!(client.is_over());
    }
    // The plain port is there as well.
    let mut client = ecm.client();
    client.send(GET);
    let Event::Open(_, open) = node.next() else { panic!("no open") };
    assert!(!open.tls);
}

/// A client that comes again resumes its session, without a certificate, even after the certificate was renewed.
#[test]
fn sessions_are_resumed() {
    let mut authority = Authority::new();
    let pair = authority.pair("a", &["a.example"]);
    let mut ecm = Ecm::launch(|_| {}, Some(Certificates::load(vec![pair]).unwrap()));
    let mut node = ecm.accept();
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(authority.client_config(&[version]));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut client = TlsClient::new(connect(ecm.secure.unwrap()), Arc::clone(&config), "a.example");
            client.send(GET);
            let id = node.first(GET);
            node.answer(id, "x");
            client.expect(&response("x"));
            assert_eq!(client.tls.conn.handshake_kind(), Some(kind));
            drop(client);
            assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
            node.close(id);
            authority.pair("a", &["a.example"]);
            ecm.reload();
        }
    }
}

/// After a reload new clients see the new certificate and old ones go on; a reload that fails changes nothing.
#[test]
fn certificates_are_read_again() {
    let mut authority = Authority::new();
    let pair = authority.pair("a", &["a.example"]);
    let mut ecm = Ecm::launch(|_| {}, Some(Certificates::load(vec![pair.clone()]).unwrap()));
    let address = ecm.secure.unwrap();
    let mut node = ecm.accept();
    let mut old = authority.client(address, "a.example");
    old.send(GET);
    let id = node.first(GET);
    node.answer(id, "1");
    old.expect(&response("1"));
    let before = Authority::certificate(&pair);
    assert_eq!(old.certificate(), before);

    authority.pair("a", &["a.example"]);
    let renewed = Authority::certificate(&pair);
    ecm.reload();
    until(|| {
        let mut client = authority.client(address, "a.example");
        client.greet().unwrap();
        client.certificate() == renewed
    });
    old.send(GET);
    node.request(id, GET);
    node.answer(id, "2");
    old.expect(&response("2"));

    // The key of another certificate: half of the files were replaced.
    let other = authority.pair("other", &["a.example"]);
    std::fs::copy(other.key, &pair.key).unwrap();
    ecm.reload();
    // Signals are handled in order: a second one, which is good, shows that the first was handled.
    let mut client = authority.client(address, "a.example");
    client.greet().unwrap();
    assert_eq!(client.certificate(), renewed);
    drop(client);
    std::fs::copy(other.certificate, &pair.certificate).unwrap();
    let third = Authority::certificate(&pair);
    ecm.reload();
    until(|| {
        let mut client = authority.client(address, "a.example");
        client.greet().unwrap();
        let seen = client.certificate();
        assert!(seen == renewed || seen == third);
        seen == third
    });
}

/// Tries again until it is true.
fn until(mut is_true: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !is_true() {
        assert!(std::time::Instant::now() < end, "it never became true");
        std::thread::yield_now();
    }
}

/// A socket whose bytes go out one at a time.
struct Bytewise(TcpStream);

impl Read for Bytewise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(7);
        self.0.read(&mut buffer[..most])
    }
}

impl Write for Bytewise {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handshake and a request that come byte by byte are taken, and small reads get the whole answer.
#[test]
fn bytes_may_come_one_by_one() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(authority.client_config(&[version]));
        let mut client = TlsClient::new(Bytewise(connect(address)), config, "a.example");
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{}", "y".repeat(500));
        client.send(&request);
        let id = node.first(&request);
        let body = "x".repeat(20_000);
        node.answer(id, &body);
        client.expect(&response(&body));
        drop(client);
        while !matches!(node.next(), Event::Close(..)) {}
        node.close(id);
    }
}

/// Long bodies pass both ways whole, while the other end takes little at a time, and credit holds them back.
#[test]
fn long_bodies_pass() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    const LENGTH: usize = 3_000_000;
    for version in [&TLS12, &TLS13] {
        let body: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        let stream = connect(address);
        let config = Arc::new(authority.client_config(&[version]));
        let mut client = TlsClient::new(stream, config, "a.example");
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
        let (sent, expected) = (body.clone(), body.clone());
        let (request, reply) = (head.clone(), format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
        let answer = reply.clone();
        let thread = std::thread::spawn(move || {
            client.send(request);
            for part in sent.chunks(40_000) {
                client.send(part);
            }
            let mut got = Vec::new();
            let mut part = [0; 3_001];
            while got.len() < answer.len() + LENGTH {
                let count = client.tls.read(&mut part).unwrap();
                assert_ne!(count, 0);
                got.extend_from_slice(&part[..count]);
            }
            assert!(got.starts_with(answer.as_bytes()));
            assert!(got[answer.len()..] == expected);
        });
        let id = node.open();
        let got = node.take(id, head.len() + LENGTH);
        assert!(got[head.len()..] == body);
        let mut credit = limits::WINDOW as usize;
        for part in [reply.as_bytes(), &body].concat().chunks(limits::DATA_CHUNK) {
            while credit < part.len() {
                let Event::Window(_, more) = node.next() else { panic!("no credit") };
                credit += more as usize;
            }
            node.send(&Frame::Data { id, payload: part });
            credit -= part.len();
        }
        node.ready(id);
        thread.join().unwrap();
        // What is left is credit, and the client's end.
        while !matches!(node.next(), Event::Close(..)) {}
        node.close(id);
    }
}

/// The last answer comes whole, with close_notify behind it, though the client reads it long after the node's close.
#[test]
fn the_end_comes_after_all_that_was_sent() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    let mut client = authority.client(address, "a.example");
    client.send("GET / HTTP/1.0\r\n\r\n");
    let id = node.first("GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n");
    let body = vec![b'x'; limits::WINDOW as usize];
    node.data(id, &body);
    node.close(id);
    loop {
        match node.next() {
            Event::Close(closed, CloseReason::Normal) if closed == id => break,
            Event::Window(..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(client.rest() == body);
}

/// A client that goes without close_notify has gone all the same.
#[test]
fn an_end_without_close_notify_is_an_end() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    let mut client = authority.client(address, "a.example");
    client.send(GET);
    let id = node.first(GET);
    client.tls.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(node.next(), Event::Close(id, CloseReason::Unanswered));
    node.close(id);
    // So has one whose records are damaged.
    let mut client = authority.client(address, "a.example");
    client.send(GET);
    let id = node.first(GET);
    client
        .tls
        .sock
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .unwrap();
    assert_eq!(node.next(), Event::Close(id, CloseReason::Unanswered));
    node.close(id);
    assert!(client.is_over());
}

/// A tunnel passes bytes both ways, and what was sent before the end arrives before the end.
#[test]
fn a_tunnel_passes() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    let mut client = authority.client(address, "a.example");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(upgrade);
    let id = node.first(upgrade);
    node.data(id, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    node.tunnel(id);
    client.expect("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    for text in ["one", "\0\0", GET] {
        client.send(text);
        node.request(id, text);
        node.data(id, text.as_bytes());
        client.expect(text);
    }
    // More than the credit: what was decrypted waits.
    let much = vec![b'z'; limits::WINDOW as usize * 3];
    let expected = much.len();
    let thread = std::thread::spawn(move || {
        client.send(&much);
        client.tls.conn.send_close_notify();
        client.tls.flush().unwrap();
        client
    });
    assert_eq!(node.take(id, expected).len(), expected);
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
    drop(thread.join().unwrap());
}

/// When many clients come at once, more than may be in a handshake, those that have begun are not dropped for the others:
/// curl gets an answer by both versions, and finds nothing wrong with the certificate.
#[test]
fn curl_is_served() {
    let (authority, _ecm, mut node, address) = start(|_| {});
    for version in ["1.2", "1.3"] {
        let mut curl = std::process::Command::new("curl");
        let port = address.port();
        curl.args(["-q", "-sS", "--noproxy", "*", "--max-time", "20", "--tls-max", version]);
        curl.args(["--resolve", &format!("a.example:{port}:127.0.0.1"), "--cacert"]);
        curl.arg(authority.dir.join("a.pem")).arg(format!("https://a.example:{port}/x"));
        let child = curl.stdout(std::process::Stdio::piped()).spawn();
        let Ok(child) = child else { return eprintln!("no curl here: not tested") };
        let Event::Open(id, open) = node.next() else { panic!("no open") };
        assert!(open.tls);
        assert!(matches!(node.next(), Event::Data(..)));
        node.answer(id, "from the node");
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"from the node");
        // It may go before the manager has heard that the answer is complete.
        let gone = [CloseReason::Normal, CloseReason::PeerGone].map(|reason| Event::Close(id, reason));
        assert!(gone.contains(&node.next()));
        node.close(id);
    }
}

/// A stopping manager answers requests without an answer by 503 and close_notify.
#[test]
fn stopping_is_told() {
    let (authority, mut ecm, mut node, address) = start(|_| {});
    let mut client = authority.client(address, "a.example");
    let mut idle = authority.client(address, "a.example");
    idle.greet().unwrap();
    client.send(GET);
    let id = node.first(GET);
    ecm.stop();
    assert_eq!(node.next(), Event::Close(id, CloseReason::Shutdown));
    assert!(client.rest().starts_with(b"HTTP/1.1 503 "));
    drop((client, idle));
    ecm.join();
}
