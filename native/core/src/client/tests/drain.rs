//! What a draining manager makes of the node's answers, and what is counted of requests.

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";

fn text(world: &World) -> String {
    String::from_utf8(world.taken.clone()).unwrap()
}

/// A request that the node held before the draining began is answered with `Connection: close`, and then both ends close.
#[test]
fn a_held_request_is_told_to_close() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    world.draining = true;
    client.data(ANSWER, &mut world);
    assert_eq!(text(&world), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.room(), 0);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.sent().0, ["close Normal"]);
    assert!(world.ended);
    assert_eq!(client.timer(), Timer::Linger);
}

/// An answer that comes in several frames is told once, in the first of them.
#[test]
fn only_the_first_frame_of_an_answer_is_changed() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    world.draining = true;
    client.data(&ANSWER[..20], &mut world);
    client.data(ANSWER, &mut world);
    assert_eq!(text(&world).matches("Connection: close\r\n").count(), 1);
}

/// An answer that had begun before stays as it was, and the connection stays for a next request, which is told.
#[test]
fn an_answer_that_has_begun_is_left_alone() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    client.data(&ANSWER[..20], &mut world);
    world.draining = true;
    client.data(&ANSWER[20..], &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.taken, ANSWER);
    assert!(!world.ended && client.timer() == Timer::Idle);
    world.taken.clear();
    client.input(GET, &mut world);
    client.data(ANSWER, &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert!(text(&world).contains("Connection: close\r\n") && world.ended);
}

/// A client that had asked for the end gets the node's own word for it, no second one.
#[test]
fn a_client_that_closes_itself_is_not_told_twice() {
    let mut world = World::new();
    let mut client = Client::new();
    client.input(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &mut world);
    world.draining = true;
    client.data(ANSWER, &mut world);
    assert_eq!(world.taken, ANSWER);
}

/// A WebSocket becomes one although the manager is draining: its answer is no place for the field.
#[test]
fn an_upgrade_is_left_alone() {
    let mut world = World::new();
    let mut client = Client::new();
    world.draining = true;
    client
        .input(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", &mut world);
    client.data(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &mut world);
    client.ready(ReadyMode::Tunnel, &mut world);
    assert!(client.is_tunnel());
    assert!(!text(&world).contains("close"));
}

/// Each request is counted once when it is whole with the node, and each answer once when it begins.
#[test]
fn requests_and_answers_are_counted_once() {
    let mut world = World::new();
    let mut client = Client::new();
    let mut expected = 0;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
        format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n{}", "x".repeat(65_537)),
    ] {
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            assert_eq!(world.counted, (expected, expected));
            let used = rest.len().min(client.room());
            client.input(&rest[..used], &mut world);
            rest = &rest[used..];
        }
        expected += 1;
        assert_eq!(world.counted, (expected, expected - 1));
        client.grant_credit(limits::WINDOW / 2, &mut world);
        client.data(ANSWER, &mut world);
        client.data(b"y", &mut world);
        assert_eq!(world.counted, (expected, expected));
        client.ready(ReadyMode::Request, &mut world);
    }
}
