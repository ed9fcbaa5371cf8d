//! What one client address and one client connection may do, each at one less than the limit, at it, and beyond.

#![allow(clippy::unwrap_used)]

mod common;
use std::time::{Duration, Instant};

use common::*;
use megaphone_ecm::Config;
use megaphone_ecm::guard::Settings;

/// A manager to which clients of 127.0.0.0/8 are any clients.
fn strict(change: impl FnOnce(&mut Settings)) -> Ecm {
    Ecm::with(|config: &mut Config| {
        config.guard.exempt_loopback = false;
        change(&mut config.guard);
    })
}

/// One request and its answer.
fn ask(node: &mut Node, client: &mut Client, known: Option<u64>) -> u64 {
    client.send(GET);
    let id = known.unwrap_or_else(|| node.open());
    node.request(id, GET);
    node.answer(id, "x");
    client.expect(&response("x"));
    id
}

/// Connections n-1 and n of an address are served, n+1 gets 429, which a browser may read, and no other address notices.
/// One that leaves makes room.
#[test]
fn an_address_has_so_many_connections() {
    let ecm = strict(|guard| {
        guard.addresses.clients = 3;
        guard.addresses.new_per_second = 1_000_000;
    });
    let mut node = ecm.accept();
    let mut clients: Vec<Client> = (0..3).map(|_| ecm.client_from([127, 0, 0, 2])).collect();
    let ids: Vec<u64> = clients.iter_mut().map(|client| ask(&mut node, client, None)).collect();
    let mut fourth = ecm.client_from([127, 0, 0, 2]);
    let answer = fourth.refused(429);
    assert!(answer.contains("Access-Control-Expose-Headers: Retry-After\r\n"), "{answer}");
    node.nothing();
    let mut other = ecm.client_from([127, 0, 0, 3]);
    ask(&mut node, &mut other, None);
    // What was there goes on.
    for (client, id) in clients.iter_mut().zip(&ids) {
        ask(&mut node, client, Some(*id));
    }
    drop(clients.pop());
    assert_eq!(closed(&mut node), ids[2]);
    ask(&mut node, &mut ecm.client_from([127, 0, 0, 2]), None);
}

/// Refused connections n-1 and n are answered while none of them goes, n+1 is closed without an answer; one that goes makes
/// room.
#[test]
fn so_many_refused_clients_are_answered() {
    // Two for each client, as both ends are here.
    megaphone_ecm::config::raise_descriptor_limit().unwrap();
    let ecm = Ecm::with(|config| {
        config.guard.exempt_loopback = false;
        config.guard.addresses.clients = 1;
        config.guard.addresses.new_per_second = 1_000_000;
        config.guard.new_per_second = 1_000_000;
        config.linger_timeout = 2 * DEADLINE;
    });
    let mut node = ecm.accept();
    let mut only = ecm.client_from([127, 0, 0, 2]);
    ask(&mut node, &mut only, None);
    let mut refused: Vec<Client> = (0..limits::MAX_TURNED_AWAY)
        .map(|_| {
            let mut client = ecm.client_from([127, 0, 0, 2]);
            client.refused(429);
            client
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(ecm.client_from([127, 0, 0, 2]).rest(), "");
    }
    drop(refused.pop());
    // The manager may notice that later than the next one comes.
    let start = Instant::now();
    while ecm.client_from([127, 0, 0, 2]).rest().is_empty() {
        assert!(start.elapsed() < DEADLINE);
    }
}

/// The next close, of a client that matters: others may come before it.
fn closed(node: &mut Node) -> u64 {
    match node.next() {
        Event::Close(id, _) => {
            node.close(id);
            id
        }
        other => panic!("{other:?}"),
    }
}

/// An address that makes connections too fast gets 429, though it keeps none of them; after a second it may again.
#[test]
fn an_address_comes_so_often() {
    let ecm = strict(|guard| {
        guard.addresses.clients = 3;
        guard.addresses.new_per_second = 2;
    });
    let mut node = ecm.accept();
    let start = Instant::now();
    for _ in 0..3 {
        let mut client = ecm.client_from([127, 0, 0, 2]);
        let id = ask(&mut node, &mut client, None);
        drop(client);
        assert_eq!(closed(&mut node), id);
    }
    let mut refused = 0;
    loop {
        let mut client = ecm.client_from([127, 0, 0, 2]);
        client.send(GET);
        // Refused or served: whichever, the answer comes first.
        let mut first = [0; 12];
        client.stream.peek(&mut first).map_or_else(|error| panic!("{error}"), drop);
        if first.starts_with(b"HTTP/1.1 429") {
            refused += 1;
            client.refused(429);
            if refused == 1 {
                break;
            }
        }
    }
    assert!(start.elapsed() < DEADLINE);
    ask(&mut node, &mut ecm.client_from([127, 0, 0, 3]), None);
}

/// Addresses of the machine itself are not counted, unless that is asked for: a proxy there would be one client.
#[test]
fn loopback_is_exempt() {
    let ecm = Ecm::with(|config| config.guard.addresses.clients = 1);
    let mut node = ecm.accept();
    let mut clients = [ecm.client(), ecm.client(), ecm.client()];
    for client in &mut clients {
        ask(&mut node, client, None);
    }
}

/// Beyond the pace of all, new clients wait in the kernel: none is refused, and the last is late as the pace says.
#[test]
fn new_clients_wait_for_the_pace() {
    let ecm = Ecm::with(|config| config.guard.new_per_second = 20);
    let mut node = ecm.accept();
    let start = Instant::now();
    let mut clients: Vec<Client> = (0..30).map(|_| ecm.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for _ in 0..30 {
        let id = node.first(GET);
        node.answer(id, "x");
    }
    for client in &mut clients {
        client.expect(&response("x"));
    }
    // 20 at once, and 10 at 20 a second.
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

/// The last request of a connection is handed on as one that asks to close; the one before it is not.
#[test]
fn a_connection_has_so_many_requests() {
    let ecm = Ecm::with(|config| config.guard.bounds.requests = 3);
    let mut node = ecm.accept();
    let mut client = ecm.client();
    let id = ask(&mut node, &mut client, None);
    ask(&mut node, &mut client, Some(id));
    client.send(GET);
    node.request(id, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    node.data(id, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz");
    node.close(id);
    assert!(client.rest().ends_with("\r\n\r\nz"));
}

/// A body of n-1 and n bytes is taken, however it is framed; one of n+1 gets 413 and none of it reaches the node.
#[test]
fn a_body_has_so_many_bytes() {
    const MOST: usize = 70_000;
    let ecm = Ecm::with(|config| config.guard.bounds.body = MOST as u64);
    let mut node = ecm.accept();
    for length in [MOST - 1, MOST, MOST + 1] {
        for chunked in [false, true] {
            let mut client = ecm.client();
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {length}")
            };
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            if chunked {
                client.send(format!("{length:x}\r\n"));
            }
            if length > MOST {
                client.refused(413);
                node.nothing();
                continue;
            }
            client.send(vec![b'x'; length]);
            if chunked {
                client.send("\r\n0\r\n\r\n");
            }
            let id = node.open();
            node.take(
                id,
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").len() + length,
            );
            node.answer(id, "ok");
            client.expect(&response("ok"));
            drop(client);
            assert_eq!(closed(&mut node), id);
        }
    }
}

/// A head of n-1 and n bytes and fields is taken, one of n+1 gets 431.
#[test]
fn a_head_has_so_many_bytes_and_fields() {
    let ecm = Ecm::with(|config| {
        config.guard.bounds.head.bytes = 512;
        config.guard.bounds.head.fields = 4;
    });
    let mut node = ecm.accept();
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let sized = |length: usize| format!("{start}X: {}\r\n\r\n", "y".repeat(length - start.len() - 7));
    let counted = |fields: usize| format!("{start}{}\r\n", "X: y\r\n".repeat(fields - 1));
    let mut clients = Vec::new();
    for (request, fits) in [
        (sized(511), true),
        (sized(512), true),
        (sized(513), false),
        (counted(3), true),
        (counted(4), true),
        (counted(5), false),
    ] {
        let mut client = ecm.client();
        client.send(&request);
        if fits {
            node.first(&request);
            clients.push(client);
        } else {
            client.refused(431);
            node.nothing();
        }
    }
}
