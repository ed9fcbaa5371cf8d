//! What only a whole exchange shows: interim answers, the order of answers, tunnels, long bodies, the answer to HEAD.

use megaphone_core::client::{Client, Timer};
use megaphone_core::limits;
use megaphone_core::link::ReadyMode;

use crate::world::{ANSWER, CONTINUE, Exchange, World, contains};

/// A client after these bytes, with a node that does not answer.
fn unanswered(bytes: &[u8]) -> (Client, World) {
    let (mut client, mut world) = (Client::new(), World::default());
    client.input(bytes, &mut world);
    (client, world)
}

/// `100 Continue` is sent when a client that asked for it waits with its body, and only then: not if the body came
/// along, not without a body, not in HTTP/1.0, not if it was not asked for (RFC 9110, 10.1.1).
#[test]
fn continue_is_sent_to_those_who_wait() {
    const LENGTH: &str = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    const CHUNKED: &str =
        "PUT / HTTP/1.1\r\nHost: h\r\nexpect:100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    const OLD: &str = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    const PLAIN: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
    for (head, body, interim) in [
        (LENGTH, "abc", true),
        (CHUNKED, "3\r\nabc\r\n0\r\n\r\n", true),
        (OLD, "abc", false),
        (PLAIN, "abc", false),
    ] {
        let mut exchange = Exchange::default();
        exchange.input(head.as_bytes());
        assert_eq!(exchange.world.written, if interim { CONTINUE } else { b"" }, "{head}");
        assert!(exchange.requests.is_empty(), "nothing is handed on before the body is there");
        exchange.input(body.as_bytes());
        assert_eq!(exchange.answers(), ANSWER, "{head}");
        assert!(exchange.requests[0].ends_with(b"\r\n\r\nabc"), "{head}");
        assert!(!contains(&exchange.requests[0].to_ascii_lowercase(), b"expect"), "the node need not know");

        let mut at_once = Exchange::default();
        at_once.input(format!("{head}{body}").as_bytes());
        assert_eq!(at_once.world.written, ANSWER, "{head}: who sends the body does not wait");
        assert_eq!(at_once.requests, exchange.requests);
    }
    let mut exchange = Exchange::default();
    exchange.input(b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(exchange.world.written, ANSWER);
}

/// An expectation that nobody can meet is refused with 417, and so is a list that holds more than the one there is.
#[test]
fn other_expectations_are_refused() {
    for value in ["200-ok", "100-continue, 100-continue", "100-continue;q=1", ""] {
        let mut exchange = Exchange::default();
        exchange.input(format!("POST / HTTP/1.1\r\nHost: h\r\nExpect: {value}\r\n\r\n").as_bytes());
        assert_eq!(exchange.world.refused, [417], "{value}");
        assert!(exchange.world.ended && exchange.requests.is_empty(), "{value}");
    }
}

/// While a request waits for its answer the next ones are held, none is handed on before its turn, and each answer is
/// written before the next request goes.
#[test]
fn pipelined_requests_take_turns() {
    let (mut client, mut world) = unanswered(
        b"PUT /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na\
          DELETE /2 HTTP/1.1\r\nHost: h\r\n\r\n\
          OPTIONS /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n\
          HEAD /4 HTTP/1.1\r\nHost: h\r\n\r\n\
          BAD /5 HTTP/1.1\r\nHost : h\r\n\r\n",
    );
    let mut expected = Vec::new();
    for (request, answer) in [
        ("PUT /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 201 One\r\n\r\n"),
        ("DELETE /2 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 202 Two\r\n\r\n"),
        ("OPTIONS /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nc", "HTTP/1.1 203 Three\r\n\r\n"),
        ("HEAD /4 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 Four\r\nContent-Length: 9\r\n\r\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&std::mem::take(&mut world.data)), request);
        assert!(client.waits_for_answer() && world.written == expected, "{request}");
        client.data(answer.as_bytes(), &mut world);
        expected.extend_from_slice(answer.as_bytes());
        assert!(world.data.is_empty(), "{request}: the next one waits until the node is ready for it");
        client.ready(ReadyMode::Request, &mut world);
    }
    assert!(world.written.starts_with(&expected) && world.data.is_empty());
    assert_eq!((world.refused, world.ended), (vec![400], true));
}

/// A refusal while the body of HEAD is read has no body itself; one of a head has a body, since what the method was is
/// not known for sure.
#[test]
fn head_is_refused_without_a_body() {
    let ends = |bytes: &[u8]| {
        let (_, world) = unanswered(bytes);
        assert_eq!(world.refused, [400]);
        world.written.ends_with(b"\r\n\r\n")
    };
    assert!(ends(b"HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx"));
    assert!(!ends(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx"));
    assert!(!ends(b"HEAD / HTTP/1.1\r\nHost : h\r\n\r\n"));
}

/// A body too long to be collected is streamed under the same framing: it ends where its length says, and the request
/// behind it is the next one.
#[test]
fn a_long_body_ends_where_its_length_says() {
    let length = usize::try_from(limits::SMALL_BODY).expect("a small number") + 1;
    let head = format!("PUT /long HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let next = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    let wire =
        [head.as_bytes(), "GET / HTTP/1.1\r\n".repeat(length).as_bytes()[..length].as_ref(), next.as_bytes()]
            .concat();
    let around = [1, head.len() - 1, head.len(), head.len() + 1, length, wire.len() - next.len()];
    for cut in around.into_iter().flat_map(|cut| [cut - 1, cut, cut + 1]) {
        let mut exchange = Exchange::default();
        exchange.input(&wire[..cut]);
        exchange.input(&wire[cut..]);
        let expected = [&wire[..wire.len() - next.len()], next.as_bytes()];
        assert!(exchange.requests == expected, "cut at {cut}");
        assert_eq!(exchange.client.timer(), Timer::Idle);
    }
}

/// What comes behind an upgrade is held until the node says what the connection has become: bytes of a tunnel, or the
/// next request, which is then judged as one.
#[test]
fn the_node_decides_what_follows_an_upgrade() {
    const UPGRADE: &[u8] = b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (mode, next, handed_on, refused) in [
        (ReadyMode::Tunnel, &b"\x81\x00"[..], &b"\x81\x00"[..], &[][..]),
        (ReadyMode::Request, b"\x81\x00", b"", &[400]),
        (ReadyMode::Request, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[]),
    ] {
        let (mut client, mut world) = unanswered(&[UPGRADE, next].concat());
        assert!(
            std::mem::take(&mut world.data).ends_with(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        );
        client.data(b"HTTP/1.1 101 Yes\r\n\r\n", &mut world);
        client.ready(mode, &mut world);
        assert_eq!((&world.data[..], &world.refused[..]), (handed_on, refused));
    }
}

/// After the last request of a connection nothing more is read from the client, so nothing more is held.
#[test]
fn nothing_is_read_after_the_last_request() {
    for head in [
        &b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let (mut client, mut world) = unanswered(head);
        assert_eq!(client.room(), 0);
        assert!(contains(&world.data, b"\r\nConnection: close\r\n"), "the node knows that it is the last");
        client.data(ANSWER, &mut world);
        client.ready(ReadyMode::Request, &mut world);
        assert_eq!((&world.written[..], world.ended), (ANSWER, true));
    }
}

/// A head of exactly so many bytes, with the most fields and none of them with a space after its colon.
fn head_of(length: usize, start: &str) -> Vec<u8> {
    let mut head = start.to_owned();
    let fields = limits::MAX_HEADERS - start.matches("\r\n").count() + 1;
    head.extend((1..fields).map(|_| "A:b\r\n"));
    head.push_str("B:");
    head.extend(std::iter::repeat_n('c', length - head.len() - 4));
    head.push_str("\r\n\r\n");
    head.into_bytes()
}

/// The longest head that is taken is handed on, although it is longer when it is written anew; one byte more is 431.
#[test]
fn the_longest_head_is_handed_on() {
    for start in ["POST http://name.example HTTP/1.0\r\n", "GET / HTTP/1.1\r\nHost:h\r\n"] {
        let mut exchange = Exchange::default();
        exchange.input(&head_of(limits::MAX_HEAD, start));
        assert!(exchange.world.refused.is_empty(), "{start}");
        assert!(exchange.requests[0].len() > limits::MAX_HEAD, "{start}");
        let mut exchange = Exchange::default();
        exchange.input(&head_of(limits::MAX_HEAD + 1, start));
        assert_eq!(exchange.world.refused, [431], "{start}");
    }
}

/// A node that grants the least window gets a head whole or not at all: it reads none of a head that it has in part, so
/// it would never grant the rest. The length that takes the place of chunks counts, and so does that the node may owe
/// credit for up to half of its window from the request before.
#[test]
fn a_head_fits_into_the_credit_or_is_refused() {
    let half = limits::MIN_WINDOW as usize / 2;
    let mut ends = [0, 0];
    for length in half - 200..half {
        for start in ["POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n", "POST / HTTP/1.0\r\n"] {
            let mut world = World { window: Some(limits::MIN_WINDOW), ..World::default() };
            let mut client = Client::new();
            let before = format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", half - 60);
            client.input(before.as_bytes(), &mut world);
            client.input(&vec![b'x'; half - 60], &mut world);
            let spent = std::mem::take(&mut world.data).len();
            assert!(spent > half - 20 && spent < half, "{spent}: the node does not grant so little yet");
            client.data(ANSWER, &mut world);
            client.ready(ReadyMode::Request, &mut world);

            client.input(&head_of(length, start), &mut world);
            client.input(b"1\r\nA\r\n0\r\n\r\n", &mut world);
            let is_there = contains(&world.data, b"\r\n\r\n");
            assert!(is_there || world.refused == [431], "{start}{length} bytes: it waits forever");
            ends[usize::from(is_there)] += 1;
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}: both ends are seen");
}
