//! The link: handshake, loss, flow control, protocol breaches, stopping.

#![allow(clippy::unwrap_used)]

mod common;
use std::io::{Read, Write};
use std::time::Duration;

use common::*;

#[test]
fn without_link_clients_get_503() {
    let ecm = Ecm::start();
    let mut client = ecm.client();
    client.send(GET);
    assert!(client.refused(503).contains("not connected"));
    // HEAD gets the same without a body.
    let mut client = ecm.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.refused(503).ends_with("\r\n\r\n"));
    // A connection made while the link was down serves once it is up.
    let mut client = ecm.client();
    client.send("GET / HT");
    let mut node = ecm.accept();
    client.send("TP/1.1\r\nHost: a\r\n\r\n");
    let id = node.first(GET);
    node.answer(id, "up");
    client.expect(&response("up"));
}

#[test]
fn a_lost_link_is_told_apart_by_what_was_answered() {
    let (ecm, mut node) = Ecm::linked();
    let (mut idle, mut waiting, mut half, mut collecting) =
        (ecm.client(), ecm.client(), ecm.client(), ecm.client());
    idle.send(GET);
    let id = node.first(GET);
    node.answer(id, "x");
    idle.expect(&response("x"));
    half.send(GET);
    let id = node.first(GET);
    node.data(id, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    half.expect("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    waiting.send(GET);
    node.first(GET);
    collecting.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    collecting.expect("HTTP/1.1 100 Continue\r\n\r\n");
    collecting.send("a");
    drop(node);
    assert!(waiting.refused(503).contains("lost"));
    assert_eq!(half.rest(), "");
    // The others go on over the next link, with new virtual connections.
    let mut node = ecm.accept();
    idle.send(GET);
    let first = node.first(GET);
    collecting.send("b");
    let second = node.first("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    assert_ne!(first, second);
    node.answer(first, "1");
    node.answer(second, "2");
    idle.expect(&response("1"));
    collecting.expect(&response("2"));
}

#[test]
fn frames_may_be_cut_anywhere() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    let text = response("cut");
    let mut out = Vec::new();
    Frame::Data { id, payload: text.as_bytes() }.encode(&mut out);
    Frame::Ready { id, mode: ReadyMode::Request }.encode(&mut out);
    Frame::Ping([3; 8]).encode(&mut out);
    for cut in 0..out.len() {
        node.stream.write_all(&out[..cut]).unwrap();
        // The manager has read the first piece, if it is long enough to matter, before the second one comes.
        if cut > 13 + text.len() {
            client.expect(&text);
        }
        node.stream.write_all(&out[cut..]).unwrap();
        if cut <= 13 + text.len() {
            client.expect(&text);
        }
        assert_eq!(node.next(), Event::Pong([3; 8]));
        client.send(GET);
        node.request(id, GET);
    }
    for byte in &out {
        node.stream.write_all(&[*byte]).unwrap();
    }
    client.expect(&text);
}

#[test]
fn breaches_end_the_link_and_nothing_else() {
    let ecm = Ecm::start();
    let frame = |frame: Frame<'_>| {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    };
    let greeting = frame(hello(limits::WINDOW));
    let mut future = greeting.clone();
    future[17] = 2;
    let mut role = greeting.clone();
    role[18] = 1;
    let after = |rest: &[u8]| [&greeting, rest].concat();
    let table: [(Vec<u8>, &str); 9] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not a Megaphone hello"),
        (future, "version 2; this end speaks version 1"),
        (role, "both ends of the link are connection managers"),
        (frame(Frame::Ping([0; 8])), "not a Megaphone hello"),
        (frame(hello(limits::MIN_WINDOW - 1)), "below the least"),
        (after(&greeting), "hello frame"),
        (after(&[0, 0, 0, 8]), "below the least"),
        (after(&[0, 0, 0, 9, 99, 0, 0, 0, 0, 0, 0, 0, 1]), "unknown frame type 0x63"),
        (after(&[0, 0, 0, 9, 4, 0, 0, 0, 0, 0, 0, 0, 1]), "malformed data"),
    ];
    for (bytes, text) in table {
        let mut node = ecm.accept_raw();
        node.stream.write_all(&bytes).unwrap();
        assert!(matches!(node.next(), Event::Hello(_)));
        match node.next() {
            Event::Error(0, _, got) => assert!(got.contains(text), "{got}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(node.next(), Event::Ended);
    }
    let mut node = ecm.accept();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.answer(id, "still here");
    client.expect(&response("still here"));
}

#[test]
fn a_silent_link_is_given_up() {
    let mut ecm = Ecm::with(|config| {
        config.link_ping = Duration::from_millis(100);
        config.link_silence = Duration::from_millis(400);
        config.link_greeting = Duration::from_millis(300);
    });
    // One that never says hello.
    let mut mute = ecm.accept_raw();
    assert!(matches!(mute.next(), Event::Hello(_)));
    assert_eq!(mute.next(), Event::Ended);
    // One that answers no ping.
    let mut node = ecm.accept();
    assert_eq!(node.next(), Event::Ping);
    while node.next() == Event::Ping {}
    // The next one is tried all the same.
    ecm.accept();
    ecm.join();
}

#[test]
fn uploads_follow_the_credit() {
    let (ecm, mut node) = Ecm::linked();
    let length = 30 * 1_048_576;
    let mut client = ecm.client();
    let head = format!("PUT /file HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.send(&head);
    let mut writer = client.stream.try_clone().unwrap();
    let body: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
    let sent = body.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let id = node.open();
    // Not a byte beyond the credit comes, though the client has much more.
    let mut got = Vec::new();
    while got.len() < limits::WINDOW as usize {
        let Event::Data(_, bytes) = node.next() else { panic!() };
        assert!(bytes.len() <= limits::DATA_CHUNK);
        got.extend_from_slice(&bytes);
    }
    assert_eq!(got.len(), limits::WINDOW as usize);
    node.nothing();
    // Another client is served meanwhile.
    let mut other = ecm.client();
    other.send(GET);
    let second = node.first(GET);
    node.answer(second, "x");
    other.expect(&response("x"));
    node.send(&Frame::Window { id, increment: limits::WINDOW });
    let rest = head.len() + length - got.len();
    got.extend_from_slice(&node.take(id, rest));
    assert!(got.starts_with(head.as_bytes()));
    assert!(got[head.len()..] == body[..]);
    thread.join().unwrap();
    node.answer(id, "stored");
    client.expect(&response("stored"));
}

#[test]
fn downloads_follow_the_client() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    let body: Vec<u8> = (0..20 * 1_048_576).map(|n| (n / 5) as u8).collect();
    let expected = body.clone();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        // Reads nothing until the node has run out of credit.
        wait.recv().unwrap();
        let mut got = vec![0; expected.len()];
        client.stream.read_exact(&mut got).unwrap();
        assert!(got == expected);
        client
    });
    let (mut credit, mut sent, mut go) = (limits::WINDOW as usize, 0, Some(go));
    while sent < body.len() {
        let size = limits::DATA_CHUNK.min(body.len() - sent);
        if credit >= size {
            node.send(&Frame::Data { id, payload: &body[sent..sent + size] });
            credit -= size;
            sent += size;
            continue;
        }
        if let Some(go) = go.take_if(|_| sent > 4 * 1_048_576 || is_stuck(&mut node, &mut credit)) {
            go.send(()).unwrap();
        }
        if credit < size {
            let Event::Window(_, increment) = node.next() else { panic!() };
            credit += increment as usize;
        }
        assert!(credit <= limits::WINDOW as usize);
    }
    drop(go);
    let _client = reader.join().unwrap();
}

/// Whether no credit has come up to now.
fn is_stuck(node: &mut Node, credit: &mut usize) -> bool {
    node.send(&Frame::Ping([5; 8]));
    let mut stuck = true;
    loop {
        match node.next() {
            Event::Pong(_) => return stuck,
            Event::Window(_, increment) => {
                *credit += increment as usize;
                stuck = false;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn overrunning_the_credit_closes_the_connection() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    // The client reads nothing, so credit ends sooner or later, whatever its kernel holds.
    let chunk = vec![b'x'; limits::DATA_CHUNK];
    let reason = std::thread::scope(|scope| {
        let mut writer = node.stream.try_clone().unwrap();
        scope.spawn(move || {
            let mut out = Vec::new();
            Frame::Data { id, payload: &chunk }.encode(&mut out);
            // Far more than a socket takes, at most 16 MB by the usual settings.
            for _ in 0..4_096 {
                writer.write_all(&out).unwrap();
            }
        });
        loop {
            match node.next() {
                Event::Window(..) => {}
                Event::Close(_, reason) => return reason,
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(reason, CloseReason::Protocol);
    node.close(id);
    node.nothing();
}

#[test]
fn a_full_link_stops_the_reading_of_clients() {
    let ecm = Ecm::start();
    // Credit without end: only the link itself holds back.
    let mut node = ecm.accept_with(u32::MAX);
    let length = 64 * 1_048_576;
    let mut client = ecm.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    let mut writer = client.stream.try_clone().unwrap();
    let (sent, progress) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let chunk = vec![b'x'; 65_536];
        for _ in 0..length / chunk.len() {
            writer.write_all(&chunk).unwrap();
            sent.send(()).unwrap();
        }
    });
    // The client gets stuck before it has sent everything, since nobody reads the link.
    let mut chunks = 0;
    while progress.recv_timeout(Duration::from_millis(500)).is_ok() {
        chunks += 1;
    }
    assert!(chunks < length / 65_536, "everything went into memory");
    let id = node.open();
    let mut left = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").len() + length;
    while left > 0 {
        let Event::Data(_, bytes) = node.next() else { panic!() };
        left -= bytes.len();
    }
    thread.join().unwrap();
    node.answer(id, "x");
    client.expect(&response("x"));
}

#[test]
fn stopping_is_clean() {
    let (mut ecm, mut node) = Ecm::linked();
    let (mut idle, mut waiting) = (ecm.client(), ecm.client());
    idle.send(GET);
    let first = node.first(GET);
    node.answer(first, "x");
    idle.expect(&response("x"));
    waiting.send(GET);
    let second = node.first(GET);
    ecm.stop();
    let mut closed = [node.next(), node.next()];
    closed.sort_by_key(|event| if let Event::Close(id, _) = event { *id } else { 0 });
    assert_eq!(
        closed,
        [Event::Close(first, CloseReason::Shutdown), Event::Close(second, CloseReason::Shutdown)]
    );
    assert_eq!(node.next(), Event::Ended);
    assert!(waiting.refused(503).contains("stops"));
    assert_eq!(idle.rest(), "");
    ecm.join();
    assert!(std::net::TcpStream::connect(ecm.address).is_err());
}
