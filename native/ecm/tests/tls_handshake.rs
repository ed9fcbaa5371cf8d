//! TLS handshakes: names, certificates, refusals, limits; and who may come without TLS.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::tls::{Authority, TlsClient, connect, start};
use common::*;
use megaphone_ecm::tls::{Certificates, Pair};
use rustls::AlertDescription;
use rustls::version::TLS13;

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
    let (authority, ecm, mut node, address) = start(|config| {
        config.max_handshakes = MOST;
        config.handshake_grace = Duration::from_millis(100);
    });
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
    flood.extend((0..2 * MOST).map(|_| connect(address)));
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

/// all of them get through.
#[test]
fn a_crowd_of_honest_clients_gets_through() {
    let (authority, _ecm, _node, address) = start(|config| {
        config.max_handshakes = 10;
        config.handshake_grace = DEADLINE;
        config.handshake_timeout = DEADLINE;
    });
    let config = Arc::new(authority.client_config(&[&TLS13]));
    let mut clients: Vec<TlsClient> = (0..100)
        .map(|_| {
            let mut client = TlsClient::new(connect(address), Arc::clone(&config), "a.example");
            client.tls.conn.write_tls(&mut client.tls.sock).unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        client.greet().unwrap();
    }
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
