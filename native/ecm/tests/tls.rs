//! TLS for clients: versions, certificates, records, ends and time limits.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::tls::{Authority, TlsClient, connect};
use common::*;
use megaphone_ecm::Config;
use megaphone_ecm::tls::{Certificates, Pair};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind};

/// A manager with a certificate for `a.example`, its link, and the authority.
fn start(change: impl FnOnce(&mut Config)) -> (Authority, Ecm, Node, SocketAddr) {
    let mut authority = Authority::new();
    let certificates = authority.load("a", &["a.example"]);
    let ecm = Ecm::launch(change, Some(certificates));
    let node = ecm.accept();
    let address = ecm.secure.unwrap();
    (authority, ecm, node, address)
}

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

/// A client that speaks HTTP/2 alone is refused by the alert of RFC 7301.
#[test]
fn other_protocols_are_refused() {
    let (authority, _ecm, _node, address) = start(|_| {});
    let mut config = authority.client_config(&[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = TlsClient::new(connect(address), Arc::new(config), "a.example");
    let error = client.greet().unwrap_err();
    let alert = error.get_ref().unwrap().downcast_ref::<rustls::Error>();
    assert_eq!(alert, Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
}

/// The certificate follows from the name that the client asks for: the same, one with a star, or the first.
#[test]
fn the_name_chooses_the_certificate() {
    let mut authority = Authority::new();
    let pairs: Vec<Pair> = [("a", "a.example"), ("b", "b.example"), ("star", "*.Star.example")]
        .iter()
        .map(|(file, name)| authority.pair(file, &[name]))
        .collect();
    let ecm = Ecm::launch(|_| {}, Some(Certificates::load(pairs.clone()).unwrap()));
    let _node = ecm.accept();
    for (name, pair) in
        [("a.example", 0), ("B.EXAMPLE", 1), ("c.star.example", 2), ("d.c.star.example", 0), ("else", 0)]
    {
        let mut client = authority.client(ecm.secure.unwrap(), name);
        // A wrong name is refused by the client, when it has the certificate.
        let trusted = client.greet().is_ok();
        assert_eq!(trusted, !matches!(name, "d.c.star.example" | "else"), "{name}");
        if trusted {
            assert_eq!(client.certificate(), Authority::certificate(&pairs[pair]), "{name}");
        }
    }
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

/// What is wrong with the files is said, by their names.
#[test]
fn wrong_files_are_named() {
    let mut authority = Authority::new();
    let good = authority.pair("good", &["a.example"]);
    let other = authority.pair("other", &["a.example"]);
    let junk = authority.dir.join("junk");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    let wrong = authority.dir.join("wrong");
    std::fs::write(&wrong, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let missing = authority.dir.join("missing");
    let table = [
        (&missing, &good.key, "missing"),
        (&good.certificate, &missing, "missing"),
        (&good.key, &good.key, "BEGIN CERTIFICATE"),
        (&good.certificate, &good.certificate, "BEGIN PRIVATE KEY"),
        (&junk, &good.key, "junk"),
        (&wrong, &good.key, "wrong"),
        (&good.certificate, &other.key, "does not belong"),
    ];
    for (certificate, key, part) in table {
        let Err(text) = Certificates::load(vec![Pair { certificate: certificate.clone(), key: key.clone() }])
        else {
            panic!("{part}: loaded");
        };
        assert!(text.contains(part) && text.contains(authority.dir.to_str().unwrap()), "{part}: {text}");
    }
    assert!(Certificates::load(Vec::new()).is_err_and(|text| text.contains("[[tls.certificate]]")));
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
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
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
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
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

/// Plain HTTP on the port for TLS is told so, in plain HTTP; other noise gets an alert; neither reaches the node.
#[test]
fn what_is_not_tls_is_refused() {
    let (_authority, ecm, mut node, address) = start(|_| {});
    let mut client = Client::new(connect(address));
    client.send(GET);
    assert!(client.refused(400).contains("https"));
    for noise in [&b"\x80\x00\x00"[..], b"ssh-2.0-xyz\r\n", &[0x16, 3, 1, 0xff, 0xff, 1], &[0; 100]] {
        let mut client = connect(address);
        client.write_all(noise).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got.first().is_none_or(|byte| *byte == 21), "{got:?} is no alert");
    }
    node.nothing();
    // And TLS on the plain port is malformed HTTP.
    let mut client = ecm.client();
    client.send([0x16, 3, 1, 2, 0, 1]);
    client.refused(400);
}

/// A handshake that is not complete in time is ended, whatever trickles in; a complete one has no such limit.
#[test]
fn handshakes_have_a_time_limit() {
    let (authority, _ecm, mut node, address) =
        start(|config| config.handshake_timeout = Duration::from_millis(300));
    let mut good = authority.client(address, "a.example");
    good.greet().unwrap();
    let mut silent = connect(address);
    let mut half = connect(address);
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    for stream in [&mut silent, &mut half] {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        assert!(got.is_empty());
    }
    good.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    good.expect(&response("x"));
}

/// Half-open handshakes beyond the limit push out the oldest of them; clients that have one go on, and new ones come in.
#[test]
fn a_flood_of_half_open_handshakes_harms_nobody() {
    const MOST: usize = 5;
    let (authority, ecm, mut node, address) = start(|config| config.max_handshakes = MOST);
    let mut good = authority.client(address, "a.example");
    let ask = |client: &mut TlsClient, node: &mut Node| {
        client.send(GET);
        let id = match node.next() {
            Event::Open(id, _) => id,
            Event::Data(id, payload) => {
                assert_eq!(payload, GET.as_bytes());
                return node.answer(id, "x");
            }
            other => panic!("{other:?}"),
        };
        node.request(id, GET);
        node.answer(id, "x");
    };
    ask(&mut good, &mut node);
    good.expect(&response("x"));
    let mut flood: Vec<TcpStream> = (0..MOST).map(|_| connect(address)).collect();
    for (at, stream) in flood.iter_mut().enumerate() {
        stream.write_all(&[0x16, 3, 1, 2, 0, at as u8]).unwrap();
    }
    // One more than may be: the first of the flood goes, no other.
    let mut new = authority.client(address, "a.example");
    let _ = flood[0].read_to_end(&mut Vec::new());
    ask(&mut new, &mut node);
    new.expect(&response("x"));
    for stream in &mut flood[1..] {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(stream.read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
    flood.extend((0..20 * MOST).map(|_| connect(address)));
    for client in [&mut good, &mut new] {
        ask(client, &mut node);
        client.expect(&response("x"));
    }
    let mut plain = ecm.client();
    plain.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    plain.expect(&response("x"));
}

/// Half-open handshakes take a quarter of all places at most.
#[test]
fn handshakes_leave_places() {
    let (_authority, ecm, mut node, address) = start(|config| config.max_clients = 8);
    let flood: Vec<TcpStream> = (0..40).map(|_| connect(address)).collect();
    let mut clients: Vec<Client> = (0..5).map(|_| ecm.client()).collect();
    for client in &mut clients {
        client.send(GET);
        let id = node.first(GET);
        node.answer(id, "x");
        client.expect(&response("x"));
    }
    drop(flood);
}

/// Where TLS is required, a client on this machine may still come without it, as a proxy does.
#[test]
fn this_machine_needs_no_tls() {
    let (authority, ecm, mut node, address) = start(|config| config.require_tls = true);
    let mut plain = ecm.client();
    plain.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    plain.expect(&response("x"));
    let mut client = authority.client(address, "a.example");
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}

/// Where TLS is required, a client from elsewhere gets 403 without it, before its password is here, and by it an answer.
#[test]
fn others_need_tls_where_it_is_required() {
    // An address of this machine that is not loopback; nothing is sent. Without one there is nothing to be tested.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let Some(ip) = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).ok().map(|own| own.ip())
    else {
        return eprintln!("no network but loopback: not tested");
    };
    let mut authority = Authority::new();
    let certificates = authority.load("a", &["a.example"]);
    let ecm = Ecm::launch_at(ip, |config| config.require_tls = true, Some(certificates));
    let mut node = ecm.accept();
    let mut plain = ecm.client();
    plain.send("POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    assert!(plain.refused(403).contains("https"));
    node.nothing();
    let mut client = authority.client(ecm.secure.unwrap(), "a.example");
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}

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
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
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
