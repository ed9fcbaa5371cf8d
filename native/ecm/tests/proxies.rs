//! Clients behind proxies: the PROXY protocol, `X-Forwarded-For`, and those who only pretend.

#![allow(clippy::unwrap_used)]

mod common;
use std::net::{IpAddr, SocketAddr};

use common::*;
use megaphone_ecm::guard::Settings;

/// A manager that believes 127.0.0.1, 10.0.0.0/8, and nobody else.
fn believing(change: impl FnOnce(&mut Settings)) -> Ecm {
    Ecm::with(|config| {
        config.guard.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        change(&mut config.guard);
    })
}

fn proxied() -> Ecm {
    believing(|guard| guard.proxy_protocol = true)
}

/// The next virtual connection and its client's address.
fn opened(node: &mut Node) -> (u64, SocketAddr, bool) {
    match node.next() {
        Event::Open(id, open) => (id, open.client, open.tls),
        other => panic!("{other:?} instead of open"),
    }
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// The node takes a request, without any field of proxies, and answers.
fn serve(node: &mut Node, client: &mut Client, id: u64) {
    node.request(id, GET);
    node.answer(id, "x");
    client.expect(&response("x"));
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x07\x0a\0\0\x01\x12\x67\0\x50\x04\0\0";

/// The address that a PROXY header of a trusted peer names reaches the node, in either version, wherever it is cut.
#[test]
fn proxy_headers_name_the_client() {
    let ecm = proxied();
    let mut node = ecm.accept();
    let v1 = b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".as_slice();
    for (header, address) in [(v1, "[2001:db8::7]:4711"), (V2, "192.0.2.7:4711")] {
        let all = [header, GET.as_bytes()].concat();
        for cut in [0, 1, 5, 12, 15, 16, header.len() - 1, header.len(), header.len() + 3] {
            let mut client = ecm.client();
            client.send(&all[..cut]);
            client.send(&all[cut..]);
            let (id, from, tls) = opened(&mut node);
            assert_eq!((from, tls), (address.parse().unwrap(), false));
            serve(&mut node, &mut client, id);
            // The header is there once, not before each request.
            client.send(GET);
            serve(&mut node, &mut client, id);
            node.close(id);
            assert_eq!(client.rest(), "");
            assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
        }
    }
}

/// The node hears of TLS that ended in a trusted proxy, and of none that another one says of its client.
#[test]
fn proxy_headers_tell_of_tls() {
    let ecm = proxied();
    let mut node = ecm.accept();
    let header = |address: &[u8], flags: u8| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14".to_vec();
        header.extend_from_slice(address);
        header.extend_from_slice(b"\x0a\0\0\x01\x12\x67\0\x50\x20\0\x05");
        header.extend_from_slice(&[flags, 0, 0, 0, 0]);
        header
    };
    // The second client is itself a proxy that is trusted: what it forwards says nothing against TLS between the two.
    for (address, flags, fields, expected) in [
        ([192, 0, 2, 7], 1, "", true),
        ([192, 0, 2, 7], 0, "", false),
        ([192, 0, 2, 7], 0, "X-Forwarded-Proto: https\r\n", false),
        ([10, 0, 0, 7], 1, "X-Forwarded-Proto: http\r\n", true),
        ([10, 0, 0, 7], 0, "X-Forwarded-Proto: https\r\n", true),
    ] {
        let mut client = ecm.client();
        client.send([&header(&address, flags)[..], get(fields).as_bytes()].concat());
        let (id, from, tls) = opened(&mut node);
        assert_eq!((from.ip(), tls), (IpAddr::from(address), expected), "{fields}");
        serve(&mut node, &mut client, id);
        node.close(id);
        assert_eq!(client.rest(), "");
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    }
}

/// A health check of the proxy, or a client without an address, is the proxy itself.
#[test]
fn a_proxy_may_speak_for_itself() {
    let ecm = proxied();
    let mut node = ecm.accept();
    for header in [b"PROXY UNKNOWN\r\n".as_slice(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = ecm.client();
        client.send([header, GET.as_bytes()].concat());
        let (id, from, _) = opened(&mut node);
        assert_eq!(from, client.stream.local_addr().unwrap());
        serve(&mut node, &mut client, id);
        node.close(id);
        assert_eq!(client.rest(), "");
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    }
}

/// Forgery: whoever is no trusted proxy is closed without a word, whatever header it brings; so is a proxy that brings
/// none or a malformed one. The node hears of none of them, and others are served.
#[test]
fn forged_and_missing_headers_are_closed() {
    let ecm = proxied();
    let mut node = ecm.accept();
    for (from, bytes) in [
        ([127, 0, 0, 2], b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".as_slice()),
        ([127, 0, 0, 2], V2),
        ([127, 0, 0, 2], GET.as_bytes()),
        ([127, 0, 0, 1], GET.as_bytes()),
        ([127, 0, 0, 1], b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"),
        ([127, 0, 0, 1], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
    ] {
        let mut client = ecm.client_from(from);
        // It may be closed already.
        let _ = std::io::Write::write_all(&mut client.stream, bytes);
        assert_eq!(client.rest(), "");
    }
    node.nothing();
    let mut client = ecm.client();
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n");
    client.send(GET);
    let (id, ..) = opened(&mut node);
    serve(&mut node, &mut client, id);
}

/// A header of which the end never comes is given up when the time for a head is over.
#[test]
fn a_slow_header_is_closed() {
    let ecm = Ecm::with(|config| {
        config.guard.proxy_protocol = true;
        config.guard.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.head_timeout = std::time::Duration::from_millis(200);
    });
    let mut node = ecm.accept();
    let (mut silent, mut slow) = (ecm.client(), ecm.client());
    slow.send("PROXY TCP4 1");
    assert_eq!((silent.rest(), slow.rest()), (String::new(), String::new()));
    node.nothing();
}

/// What the proxies of a chain append is read from its end; what the client wrote before it changes nothing.
#[test]
fn forwarded_addresses_of_trusted_peers_count() {
    let ecm = believing(|_| {});
    let mut node = ecm.accept();
    for (fields, address, tls) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7", false),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.3\r\nX-Forwarded-Proto: https\r\n", "192.0.2.7", true),
        ("X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7", false),
        ("X-Forwarded-For: [2001:db8::7]:99\r\n", "2001:db8::7", false),
        ("X-Forwarded-For: 192.0.2.7, garbage, 10.0.0.3\r\n", "10.0.0.3", false),
    ] {
        let mut client = ecm.client();
        client.send(get(fields));
        let (id, from, said_tls) = opened(&mut node);
        assert_eq!((from, said_tls), (SocketAddr::new(address.parse().unwrap(), 0), tls), "{fields}");
        serve(&mut node, &mut client, id);
        node.close(id);
        assert_eq!(client.rest(), "");
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    }
}

/// Spoofing: of anybody else these fields change nothing and reach nobody, nor do other fields of proxies of anybody,
/// nor fields that a client hides in a value.
#[test]
fn forwarded_addresses_of_others_do_not_count() {
    let ecm = believing(|_| {});
    let mut node = ecm.accept();
    for (from, fields) in [
        ([127, 0, 0, 2], "X-Forwarded-For: 192.0.2.7\r\n"),
        ([127, 0, 0, 2], "X-Forwarded-For: 127.0.0.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"),
        ([127, 0, 0, 2], "Forwarded: for=192.0.2.7;proto=https\r\nX-Real-IP: 192.0.2.7\r\n"),
        ([127, 0, 0, 1], "Forwarded: for=192.0.2.7;proto=https\r\nX-Real-IP: 192.0.2.7\r\n"),
        ([127, 0, 0, 1], "X-Client-IP: 192.0.2.7\r\nX-Cluster-Client-IP: 192.0.2.7\r\nX-Forwarded: 1\r\n"),
        ([127, 0, 0, 1], "X-Forwarded-For: 192.0.2.7%0d%0aX-Admin: 1\r\n"),
        ([127, 0, 0, 1], "Connection: X-Forwarded-For\r\nX-Forwarded-For: unknown\r\n"),
    ] {
        let mut client = ecm.client_from(from);
        client.send(get(fields));
        let (id, address, tls) = opened(&mut node);
        assert_eq!((address, tls), (client.stream.local_addr().unwrap(), false), "{fields}");
        let expected =
            if fields.contains("X-Forwarded: ") { get("X-Forwarded: 1\r\n") } else { GET.to_owned() };
        node.request(id, &expected);
        node.answer(id, "x");
        client.expect(&response("x"));
        node.close(id);
        assert_eq!(client.rest(), "");
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    }
    // Line ends in a value are refused, not taken apart.
    for value in ["192.0.2.7\rX-Admin: 1", "192.0.2.7\nX-Admin: 1", "192.0.2.7\r\n X-Admin: 1", "192.0.2.7\0"]
    {
        let mut client = ecm.client();
        client.send(get(&format!("X-Forwarded-For: {value}\r\n")));
        client.refused(400);
    }
    node.nothing();
}

/// A client that a PROXY header named is believed no more than one that connects itself.
#[test]
fn a_proxied_client_cannot_forward() {
    let ecm = proxied();
    let mut node = ecm.accept();
    let mut client = ecm.client();
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n");
    client.send(get("X-Forwarded-For: 6.6.6.6\r\n"));
    let (id, from, _) = opened(&mut node);
    assert_eq!(from, "192.0.2.7:4711".parse().unwrap());
    serve(&mut node, &mut client, id);
}

/// A proxy uses one connection for several clients, pipelined or not: for each another virtual connection is opened with
/// the new address, the one before is closed, and every request gets its answer, in order.
#[test]
fn the_client_may_change_between_requests() {
    let ecm = believing(|_| {});
    let mut node = ecm.accept();
    let mut proxy = ecm.client();
    let hosts = [1, 1, 2, 3, 3, 1, 2];
    let ask = |host: u8| get(&format!("X-Forwarded-For: 192.0.2.{host}\r\n"));
    for pipelined in [false, true] {
        if pipelined {
            proxy.send(hosts.map(ask).concat());
        }
        let mut current: Option<(u64, u8)> = None;
        for (number, host) in hosts.into_iter().enumerate() {
            if !pipelined {
                proxy.send(ask(host));
            }
            let id = match current {
                Some((id, before)) if before == host => id,
                before => {
                    if let Some((old, _)) = before {
                        assert_eq!(node.next(), Event::Close(old, CloseReason::Normal));
                        node.close(old);
                    }
                    let (id, from, _) = opened(&mut node);
                    assert_eq!(from.ip(), IpAddr::from([192, 0, 2, host]));
                    assert_ne!(before.map(|(old, _)| old), Some(id));
                    id
                }
            };
            current = Some((id, host));
            node.request(id, GET);
            node.answer(id, &number.to_string());
            if !pipelined {
                proxy.expect(&response(&number.to_string()));
            }
        }
        if pipelined {
            proxy.expect(&(0..hosts.len()).map(|number| response(&number.to_string())).collect::<String>());
        }
        // The proxy itself asks: its own address.
        proxy.send(GET);
        let (old, _) = current.unwrap();
        assert_eq!(node.next(), Event::Close(old, CloseReason::Normal));
        let (id, from, _) = opened(&mut node);
        assert_eq!(from, proxy.stream.local_addr().unwrap());
        serve(&mut node, &mut proxy, id);
        node.close(old);
        node.close(id);
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
        assert_eq!(proxy.rest(), "");
        proxy = ecm.client();
    }
}

/// The next client's request waits until the answer to the one before is taken: the proxy holds up itself, no more than
/// a window is held for it, and nothing is lost.
#[test]
fn a_change_waits_for_the_answer_before() {
    let ecm = believing(|_| {});
    let mut node = ecm.accept();
    let mut proxy = ecm.client();
    let ask = |host: u8| get(&format!("X-Forwarded-For: 192.0.2.{host}\r\n"));
    proxy.send(ask(1));
    let (id, ..) = opened(&mut node);
    node.request(id, GET);
    // More than the kernel takes, as far as credit goes; then a ready, and the other client's request behind it.
    let chunk = vec![b'x'; limits::DATA_CHUNK];
    let (mut credit, mut sent) = (limits::WINDOW as usize, 0);
    loop {
        while credit >= chunk.len() {
            node.send(&Frame::Data { id, payload: &chunk });
            (credit, sent) = (credit - chunk.len(), sent + chunk.len());
        }
        node.send(&Frame::Ping([5; 8]));
        match node.next() {
            Event::Window(_, increment) => credit += increment as usize,
            Event::Pong(_) => {
                if credit < chunk.len() {
                    break;
                }
                continue;
            }
            other => panic!("{other:?}"),
        }
        while node.next() != Event::Pong([5; 8]) {}
    }
    proxy.send(ask(2));
    node.ready(id);
    assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    node.nothing();
    let mut got = vec![0; sent];
    std::io::Read::read_exact(&mut proxy.stream, &mut got).unwrap();
    let (second, from, _) = opened(&mut node);
    assert_eq!(from.ip(), IpAddr::from([192, 0, 2, 2]));
    serve(&mut node, &mut proxy, second);
}

/// The limits of an address hold for the client that a proxy names, not for the proxy: connections n-1 and n are served,
/// n+1 gets 429, others behind the same proxy go on. By a PROXY header and by a field.
#[test]
fn limits_count_for_the_real_address() {
    for by_header in [true, false] {
        let ecm = believing(|guard| {
            guard.proxy_protocol = by_header;
            guard.addresses.clients = 2;
        });
        let mut node = ecm.accept();
        let connect = |host: u8| {
            let mut client = ecm.client();
            if by_header {
                client.send(format!("PROXY TCP4 192.0.2.{host} 10.0.0.1 4711 80\r\n{GET}"));
            } else {
                client.send(get(&format!("X-Forwarded-For: 192.0.2.{host}\r\n")));
            }
            client
        };
        let mut clients = Vec::new();
        for host in [1, 1, 2] {
            let mut client = connect(host);
            let (id, from, _) = opened(&mut node);
            assert_eq!(from.ip(), IpAddr::from([192, 0, 2, host]));
            serve(&mut node, &mut client, id);
            clients.push(client);
        }
        connect(1).refused(429);
        node.nothing();
        let mut other = connect(2);
        let (id, ..) = opened(&mut node);
        serve(&mut node, &mut other, id);
    }
}
