//! Requests and answers: framing, pipelining, bodies, refusals.

#![allow(clippy::unwrap_used)]

mod common;
use common::*;

#[test]
fn a_request_and_its_answer() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client
        .send("POST /bosh HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nContent-Length: 5\r\n\r\nhello");
    let Event::Open(id, open) = node.next() else { panic!("no open") };
    assert_eq!(open.client, client.stream.local_addr().unwrap());
    assert_eq!(open.local, ecm.address);
    node.request(id, "POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    node.answer(id, "one");
    client.expect(&response("one"));
    // The virtual connection stays for the next request.
    client.send(GET);
    node.request(id, GET);
    node.answer(id, "two");
    client.expect(&response("two"));
}

#[test]
fn a_half_request_is_no_connection() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
    let mut other = ecm.client();
    other.send(GET);
    // The later but complete request comes first, and alone.
    let id = node.first(GET);
    node.nothing();
    client.send("o");
    node.first("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    node.answer(id, "x");
    other.expect(&response("x"));
}

#[test]
fn pipelined_requests_are_handed_over_one_at_a_time() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    let request = |n: usize| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    let all: String = (0..2_000).map(request).collect();
    let mut writer = client.stream.try_clone().unwrap();
    // More than is held: the rest waits in the kernel.
    let thread = std::thread::spawn(move || std::io::Write::write_all(&mut writer, all.as_bytes()).unwrap());
    let id = node.open();
    for n in 0..2_000 {
        node.request(id, &request(n));
        if n % 500 == 0 {
            node.nothing();
        }
        node.answer(id, &n.to_string());
        client.expect(&response(&n.to_string()));
    }
    thread.join().unwrap();
}

#[test]
fn chunked_bodies_get_a_length() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    for part in [
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nab",
        "c\r\n2;x=y\r\nde\r\n0\r\nT: z\r\n\r\n",
        GET,
    ] {
        client.send(part);
    }
    let id = node.first("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde");
    node.nothing();
    node.answer(id, "1");
    node.request(id, GET);
    node.answer(id, "2");
    client.expect(&(response("1") + &response("2")));
}

#[test]
fn chunked_bodies_have_a_limit() {
    let (ecm, mut node) = Ecm::linked();
    for (length, fits) in [(limits::MAX_CHUNKED_BODY, true), (limits::MAX_CHUNKED_BODY + 1, false)] {
        let mut client = ecm.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{length:x}\r\n"));
        if fits {
            client.send(vec![b'x'; length]);
            client.send("\r\n0\r\n\r\n");
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let id = node.open();
            let got = node.take(id, head.len() + length);
            assert!(got.starts_with(head.as_bytes()));
            node.answer(id, "ok");
            client.expect(&response("ok"));
        } else {
            client.refused(413);
        }
    }
}

#[test]
fn expect_is_answered_here() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    let id = node.first("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    node.answer(id, "ok");
    client.expect(&response("ok"));
    // Not when the body is there already.
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    node.request(id, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    node.answer(id, "ok");
    client.expect(&response("ok"));
}

#[test]
fn the_client_may_end_the_connection() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let id = node.first("GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n");
    node.data(id, b"HTTP/1.1 200 OK\r\n\r\nbye");
    node.close(id);
    assert_eq!(client.rest(), "HTTP/1.1 200 OK\r\n\r\nbye");
    assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly");
    let id = node.first("GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    node.nothing();
    node.data(id, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    node.tunnel(id);
    node.request(id, "early");
    client.expect("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    for text in ["\x01\x00", GET, "\r\n\r\n"] {
        client.send(text);
        node.request(id, text);
        node.data(id, text.as_bytes());
        client.expect(text);
    }
    // What was sent before the end arrives before the end.
    client.send("last");
    drop(client);
    node.request(id, "last");
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
    node.close(id);
    node.nothing();
}

#[test]
fn a_refused_upgrade_stays_http() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(upgrade);
    let id = node.first(upgrade);
    node.answer(id, "no");
    client.expect(&response("no"));
    client.send(GET);
    node.request(id, GET);
    // A tunnel that nobody asked for is a breach.
    node.tunnel(id);
    assert_eq!(node.next(), Event::Close(id, CloseReason::Protocol));
    assert_eq!(client.rest(), "");
}

#[test]
fn malformed_requests_never_reach_the_node() {
    let (ecm, mut node) = Ecm::linked();
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let table = [
        ("\x16\x03\x01\x02\x00".to_owned(), 400),
        ("GET / HTTP/1.1\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(limits::MAX_TARGET)), 414),
        (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(limits::MAX_HEAD)), 431),
        (post(&"X: y\r\n".repeat(limits::MAX_HEADERS)), 431),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (post("Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
        (post("Content-Length: 99999999999999999999\r\n"), 413),
        (post("Transfer-Encoding: gzip\r\n"), 501),
        (post("Transfer-Encoding : chunked\r\n"), 400),
        (post("X: y\r\n folded\r\n"), 400),
        (post("Expect: miracles\r\n"), 417),
        (post("Transfer-Encoding: chunked\r\n") + "x\r\n", 400),
        (post("Transfer-Encoding: chunked\r\n") + "1\r\nab\r\n", 400),
        (post("Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\n", 413),
    ];
    for (request, status) in table {
        let mut client = ecm.client();
        client.send(&request);
        client.refused(status);
    }
    node.nothing();
    // One that follows a good one on the same connection closes that too, after its answer.
    let mut client = ecm.client();
    client.send(format!("{GET}BAD\n\n"));
    let id = node.first(GET);
    node.answer(id, "good");
    assert_eq!(node.next(), Event::Close(id, CloseReason::Protocol));
    let got = client.rest();
    assert!(got.starts_with(&response("good")) && got.contains("HTTP/1.1 400 "), "{got}");
}

#[test]
fn a_client_that_leaves_is_reported() {
    let (ecm, mut node) = Ecm::linked();
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    drop(client);
    assert_eq!(node.next(), Event::Close(id, CloseReason::Unanswered));
    // What is still under way for it is ignored, until the handshake is complete.
    node.data(id, b"late");
    node.nothing();
    node.close(id);
    node.data(id, b"too late");
    assert_eq!(node.next(), Event::Error(id, ErrorCode::UnknownConnection, "unknown connection".to_owned()));

    // Between requests it is a normal end; the slot is used again, the id is not.
    let mut client = ecm.client();
    client.send(GET);
    let second = node.first(GET);
    assert_ne!(id, second);
    node.answer(second, "x");
    client.expect(&response("x"));
    drop(client);
    assert_eq!(node.next(), Event::Close(second, CloseReason::Normal));
}

#[test]
fn a_node_that_closes_without_answer_gives_502() {
    let (ecm, mut node) = Ecm::linked();
    for (reason, status) in
        [(CloseReason::PeerGone, 502), (CloseReason::Limit, 503), (CloseReason::Shutdown, 503)]
    {
        let mut client = ecm.client();
        client.send(GET);
        let id = node.first(GET);
        node.send(&Frame::Close { id, reason });
        assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
        client.refused(status);
    }
    let mut client = ecm.client();
    client.send(GET);
    let id = node.first(GET);
    node.send(&Frame::Error { id, code: ErrorCode::UnknownConnection, text: "?" });
    client.refused(502);
    node.nothing();
}
