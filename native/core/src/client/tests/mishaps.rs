//! What scripts of the fuzz target `client` have found.

use super::*;

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
