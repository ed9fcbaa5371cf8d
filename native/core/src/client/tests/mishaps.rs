//! What scripts of the fuzz target `client` have found.

use super::*;

const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Everything of an answer that the client took after `before`, which must be a whole one.
fn answer_after(world: &World, before: usize) -> String {
    let text = String::from_utf8(world.taken[before..].to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    text
}

#[test]
fn no_answer_of_ours_comes_within_another_one() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    client.data(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", &mut world);
    let before = world.taken.len();
    world.crowded = true;
    client.input(b"GET", &mut world);
    assert_eq!((world.taken.len(), world.refused.len()), (before, 0));
    assert!(world.ended);
    assert_eq!(world.sent().0, ["close Limit"]);
}

#[test]
fn a_request_without_an_answer_gets_one_when_memory_is_short() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    world.crowded = true;
    client.input(b"GET", &mut world);
    assert_eq!(world.refused, [503]);
    answer_after(&world, 0);
}

#[test]
fn what_came_before_an_unfinished_head_does_not_shorten_its_answer() {
    for crowded in [false, true] {
        let mut world = World::new();
        let mut client = Client::new();
        client.input(HEAD, &mut world);
        client.data(b"answer", &mut world);
        client.ready(ReadyMode::Request, &mut world);
        world.crowded = crowded;
        client.input(b"GET", &mut world);
        client.timeout(&mut world);
        let text = answer_after(&world, 6);
        assert!(text.starts_with(if crowded { "HTTP/1.1 503 " } else { "HTTP/1.1 408 " }), "{text}");
    }
}

/// A client with one request answered and half of a second one there.
fn half_of_the_second(world: &mut World, second: &[u8]) -> Client {
    let mut client = asked(world);
    client.data(b"answer", world);
    client.ready(ReadyMode::Request, world);
    client.input(second, world);
    client
}

#[test]
fn credit_does_not_hand_on_half_a_request() {
    for (half, rest, whole) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
            "67890",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234567890",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
            "0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
        ),
    ] {
        let mut world = World::new();
        let mut client = half_of_the_second(&mut world, half.as_bytes());
        client.grant_credit(1, &mut world);
        assert_eq!(world.sent(), (vec![], vec![]));
        // The rest alone would be taken for the start of a request.
        world.window = None;
        client.link_lost(&mut world);
        world.window = Some(limits::WINDOW);
        client.input(rest.as_bytes(), &mut world);
        assert_eq!(world.sent(), (vec!["open".to_owned()], whole.as_bytes().to_vec()));
    }
}

#[test]
fn a_new_link_does_not_add_a_window_to_what_was_not_taken() {
    let mut world = World::new();
    let mut client = asked(&mut world);
    world.takes = 0;
    client.data(b"answer", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    world.window = None;
    client.link_lost(&mut world);
    assert!(client.is_ending() && world.refused.is_empty());
    world.takes = usize::MAX;
    client.writable(&mut world);
    assert!(world.ended && world.taken == b"answer");
}

#[test]
fn the_node_is_told_whether_a_client_that_has_gone_got_its_answer() {
    type Do = fn(&mut Client, &mut World);
    let nothing: Do = |_, _| {};
    let begins: Do = |client, world| {
        world.takes = 0;
        client.data(b"answer", world);
    };
    let all: Do = |client, world| client.data(b"answer", world);
    let ready: Do = |client, world| {
        client.data(b"answer", world);
        client.ready(ReadyMode::Request, world);
    };
    let slow: Do = |client, world| {
        world.takes = 3;
        client.data(b"answer", world);
        client.ready(ReadyMode::Request, world);
    };
    let next: Do = |client, world| {
        client.data(b"answer", world);
        client.ready(ReadyMode::Request, world);
        client.input(&GET[..5], world);
    };
    let cases = [
        (nothing, "close Unanswered"),
        (begins, "close Unanswered"),
        // There may be more of it.
        (all, "close PeerGone"),
        (ready, "close Normal"),
        (slow, "close Unanswered"),
        (next, "close PeerGone"),
    ];
    for (number, (run, expected)) in cases.into_iter().enumerate() {
        let mut world = World::new();
        let mut client = asked(&mut world);
        run(&mut client, &mut world);
        world.sent();
        client.eof(&mut world);
        assert_eq!(world.sent().0, [expected], "{number}");
    }
    // The node has got nothing of the next request.
    let mut world = World::new();
    let mut client = asked(&mut world);
    ready(&mut client, &mut world);
    client.credit = 0;
    client.input(GET, &mut world);
    assert_eq!(world.sent(), (vec![], vec![]));
    client.eof(&mut world);
    assert_eq!(world.sent().0, ["close PeerGone"]);
}
