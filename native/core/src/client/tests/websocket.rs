//! WebSockets that end here.

use super::*;
use crate::link::Kind;
use crate::link::messages::Fault;

const KEY: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn handshake(more: &str) -> Vec<u8> {
    let head = "GET /ws?a=b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    format!("{head}{KEY}Sec-WebSocket-Protocol: xmpp\r\n{more}\r\n").into_bytes()
}

/// A client's frame with a short payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(b"mask");
    bytes.extend(payload.iter().zip(b"mask".iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A message as it is on the link.
fn message(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text].concat()
}

/// A client whose handshake was accepted.
fn socket() -> (Client, World) {
    let (mut client, mut world) = (Client::new(), World { ends_websocket: true, ..World::new() });
    client.input(&handshake(""), &mut world);
    assert!(client.is_socket() && world.taken.starts_with(b"HTTP/1.1 101 "));
    assert_eq!((client.heap(), client.timer(), world.sent()), (0, Timer::Ping, (vec![], vec![])));
    world.taken.clear();
    (client, world)
}

/// One with an open stream.
fn open() -> (Client, World) {
    let (mut client, mut world) = socket();
    client.input(&text("<open/>"), &mut world);
    assert_eq!(world.sent(), (vec!["open".into()], message(b"<open/>")));
    assert_eq!(world.opened, [Kind::Xmpp]);
    (client, world)
}

/// The codes of the close frames that the client took.
fn closed_with(world: &World) -> Option<u16> {
    let [.., 0x88, 2, high, low] = world.taken[..] else { return None };
    Some(u16::from_be_bytes([high, low]))
}

/// A message costs the node one virtual connection, and an idle client nothing but itself.
#[test]
fn messages_go_both_ways() {
    let (mut client, mut world) = open();
    assert_eq!(client.heap(), 0);
    client.input(&[text("a"), text("b")].concat(), &mut world);
    assert_eq!(world.sent(), (vec![], [message(b"a"), message(b"b")].concat()));
    client.data(&[message(b"<c/>"), message(b"d")].concat(), &mut world);
    assert_eq!(world.taken, [&b"\x81\x04<c/>"[..], b"\x81\x01d"].concat());
    assert_eq!((client.heap(), client.timer()), (0, Timer::Ping));
}

/// Wherever the link cuts them, and the client's bytes.
#[test]
fn messages_may_be_cut_anywhere() {
    let (mut client, mut world) = open();
    let parts = [frame(0x01, "<é".as_bytes()), frame(0x89, b"?"), frame(0x80, "ü/>".as_bytes())].concat();
    for byte in &parts {
        client.input(&[*byte], &mut world);
    }
    assert_eq!(world.sent().1, message("<éü/>".as_bytes()));
    assert_eq!(world.taken, b"\x8a\x01?");
    world.taken.clear();
    for byte in message(&[b'x'; 200]) {
        client.data(&[byte], &mut world);
    }
    assert_eq!(world.taken, [&[0x81, 126, 0, 200][..], &[b'x'; 200]].concat());
    assert_eq!(client.heap(), 0);
}

/// A ping in the midst of a message to the client is answered behind it, and only the last one.
#[test]
fn pongs_do_not_cut_messages() {
    let (mut client, mut world) = open();
    client.data(&message(b"abcd")[..6], &mut world);
    client.input(&[frame(0x89, b"1"), frame(0x89, b"2")].concat(), &mut world);
    client.data(b"cd", &mut world);
    assert_eq!(world.taken, b"\x81\x04abcd\x8a\x012");
    assert_eq!(client.heap(), 0);
}

#[test]
fn handshakes_are_refused_with_their_status() {
    let refused = |request: &[u8], world: World| {
        let (mut client, mut world) = (Client::new(), World { ends_websocket: true, ..world });
        client.input(request, &mut world);
        assert!(!client.is_socket() && world.opened.is_empty());
        let answer = String::from_utf8_lossy(&world.taken).into_owned();
        assert!(answer.contains("Access-Control-Allow-Origin: *\r\n"), "{answer}");
        (world.refused.clone(), answer)
    };
    let without = |part: &str| String::from_utf8(handshake("")).unwrap().replace(part, "").into_bytes();
    assert_eq!(refused(&without("Sec-WebSocket-Protocol: xmpp\r\n"), World::new()).0, [400]);
    let (status, answer) = refused(&without("Sec-WebSocket-Version: 13\r\n"), World::new());
    assert!(status == [426] && answer.contains("Sec-WebSocket-Version: 13\r\n"), "{answer}");
    let origin = handshake("Origin: https://evil.example\r\n");
    assert_eq!(refused(&origin, World { refuses_origins: true, ..World::new() }).0, [403]);
}

/// A node that does not serve it gets the request as before.
#[test]
fn other_websockets_are_carried_through() {
    let (mut client, mut world) = (Client::new(), World::new());
    client.input(&handshake(""), &mut world);
    assert_eq!(world.opened, [Kind::Http]);
    client.ready(ReadyMode::Tunnel, &mut world);
    assert!(client.is_tunnel() && !client.is_socket());
}

/// A connection that carried requests before gets another virtual connection for its messages.
#[test]
fn requests_may_come_before() {
    let (mut client, mut world) = (Client::new(), World { ends_websocket: true, ..World::new() });
    client.input(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut world);
    client.data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut world);
    client.ready(ReadyMode::Request, &mut world);
    assert_eq!(world.sent().0, ["open"]);
    client.input(&[handshake(""), text("a")].concat(), &mut world);
    assert_eq!(world.sent(), (vec!["close Normal".into(), "open".into()], message(b"a")));
    assert_eq!(world.opened, [Kind::Http, Kind::Xmpp]);
}

/// The longest message: one byte less, the limit, one more, whole or in parts. Of one that is too long nothing is kept.
#[test]
fn limit_of_messages() {
    let most = limits::MAX_STANZA as usize;
    for length in [most - 1, most, most + 1] {
        for parts in [1, 2] {
            let (mut client, mut world) = open();
            world.window = Some(u32::MAX);
            client.grant_credit(1 << 20, &mut world);
            let payload = vec![b'x'; length];
            let (first, second) = payload.split_at(if parts == 1 { 0 } else { 7 });
            let bytes = match parts {
                1 => frame(0x81, second),
                _ => [frame(0x01, first), frame(0x80, second)].concat(),
            };
            for piece in bytes.chunks(16_384) {
                client.input(piece, &mut world);
            }
            let (_, data) = world.sent();
            if length > most {
                assert_eq!(data, Fault::TooBig.encode());
            } else {
                assert!(data == message(&payload));
            }
            assert_eq!(client.heap(), 0);
        }
    }
}

/// What breaks the rules is told to the node, nothing more is read, and when the node closes the client gets the code.
#[test]
fn faults_are_told_before_the_end() {
    let cases = [
        (frame(0x82, b"x"), Fault::Binary, 1003),
        (frame(0x81, b"\xff"), Fault::Encoding, 1007),
        (frame(0x81, b"\xc3"), Fault::Encoding, 1007),
        (frame(0x80, b"x"), Fault::Protocol, 1002),
        (frame(0xc1, b"x"), Fault::Protocol, 1002),
        (frame(0x88, b"x"), Fault::Protocol, 1002),
        (b"\x81\x01x".to_vec(), Fault::Protocol, 1002),
        ([frame(0x01, b"x"), text("y")].concat(), Fault::Protocol, 1002),
    ];
    for (bytes, fault, code) in cases {
        let (mut client, mut world) = open();
        client.input(&[text("last"), bytes.clone(), text("never")].concat(), &mut world);
        assert_eq!(world.sent().1, [message(b"last"), fault.encode().to_vec()].concat());
        assert_eq!((client.timer(), client.heap()), (Timer::Linger, 0));
        client.data(&message(b"<stream:error/>"), &mut world);
        assert_eq!(closed_with(&world), None);
        client.closed(CloseReason::Normal, &mut world);
        assert_eq!((closed_with(&world), world.ended), (Some(code), true), "{fault:?}");
        // One that the node does not know is closed at once, and one that the node does not close in the end.
        let (mut client, mut world) = socket();
        client.input(&bytes, &mut world);
        assert_eq!((closed_with(&world), world.opened.len(), world.ended), (Some(code), 0, true));
        let (mut client, mut world) = open();
        client.input(&bytes, &mut world);
        client.timeout(&mut world);
        assert_eq!((closed_with(&world), world.ended), (Some(code), true));
        assert_eq!(world.sent().0, ["close Protocol"]);
    }
}

/// A message that goes on for ever ends the stream; the time is not prolonged by a byte now and then.
#[test]
fn a_message_has_its_time() {
    let (mut client, mut world) = open();
    client.input(&frame(0x01, b"abc")[..8], &mut world);
    assert_eq!(client.timer(), Timer::Message);
    assert!(!Timer::Message.restarts());
    client.timeout(&mut world);
    assert_eq!(world.sent().1, Fault::Timeout.encode());
    // So does half a header.
    let (mut client, mut world) = open();
    client.input(b"\x81", &mut world);
    assert_eq!(client.timer(), Timer::Message);
    client.timeout(&mut world);
    assert_eq!(world.sent().1, Fault::Timeout.encode());
}

/// A silent client is asked; any byte is an answer; without one it is gone, and the node learns it.
#[test]
fn a_silent_client_is_pinged() {
    let (mut client, mut world) = open();
    assert!(Timer::Ping.restarts() && !Timer::Pong.restarts());
    client.timeout(&mut world);
    assert_eq!((&world.taken[..], client.timer(), client.heap()), (&b"\x89\0"[..], Timer::Pong, 0));
    client.input(&frame(0x8a, b""), &mut world);
    assert_eq!(client.timer(), Timer::Ping);
    client.timeout(&mut world);
    client.timeout(&mut world);
    assert!(client.is_closed());
    assert_eq!(world.sent().0, ["close PeerGone"]);
}

/// Each end has its code, on the link and for the client.
#[test]
fn ends_have_their_codes() {
    type End = dyn Fn(&mut Client, &mut World);
    let ends: [(&End, u16, &[&str]); 8] = [
        (&|client, world| client.input(&frame(0x88, b"\x0f\xa0bye"), world), 4000, &["close Normal"]),
        (&|client, world| client.input(&frame(0x88, b""), world), 1000, &["close Normal"]),
        (&|client, world| client.closed(CloseReason::Normal, world), 1000, &["close Normal"]),
        (&|client, world| client.closed(CloseReason::Shutdown, world), 1001, &["close Normal"]),
        (&|client, world| client.closed(CloseReason::Limit, world), 1013, &["close Normal"]),
        (&|client, world| client.unknown(world), 1011, &[]),
        (&|client, world| client.link_lost(world), 1012, &[]),
        (&|client, world| client.stop(world), 1001, &["close Shutdown"]),
    ];
    for (end, code, frames) in ends {
        let (mut client, mut world) = open();
        end(&mut client, &mut world);
        assert_eq!((closed_with(&world), world.ended), (Some(code), true));
        assert_eq!(world.sent().0, frames);
        // In the midst of a message to the client nothing else can be said.
        let (mut client, mut world) = open();
        client.data(&message(b"abc")[..5], &mut world);
        end(&mut client, &mut world);
        assert_eq!((&world.taken[..], world.ended), (&b"\x81\x03a"[..], true));
    }
    let (mut client, mut world) = open();
    world.draining = true;
    client.timeout(&mut world);
    assert_eq!((closed_with(&world), world.sent().0), (Some(1001), vec!["close Shutdown".to_owned()]));
}

/// A client that has said nothing yet does not notice that a link is lost; its first message goes over another one.
#[test]
fn a_lost_link_is_nothing_to_one_that_is_not_open() {
    let (mut client, mut world) = socket();
    client.link_lost(&mut world);
    client.input(&text("a"), &mut world);
    assert_eq!(world.sent(), (vec!["open".into()], message(b"a")));
    let (mut client, mut world) = socket();
    world.window = None;
    client.input(&text("a"), &mut world);
    assert_eq!((closed_with(&world), world.refused), (Some(1013), vec![1013]));
}

/// What a message has no credit for waits, and the client is not read meanwhile.
#[test]
fn credit_holds_messages_back() {
    let (mut client, mut world) = socket();
    world.window = Some(10);
    client.input(&[text("abcdefgh"), text("i")].concat(), &mut world);
    assert_eq!(
        (world.sent().1, client.room(), client.timer()),
        (message(b"abcdefgh")[..10].to_vec(), 0, Timer::None)
    );
    client.grant_credit(3, &mut world);
    assert_eq!(world.sent().1, b"gh\0");
    client.grant_credit(100, &mut world);
    assert_eq!(world.sent().1, b"\0\0\x01i");
    assert_eq!((client.room(), client.heap()), (limits::DATA_CHUNK, 0));
}

/// A client that takes nothing is not read either, and is held to a window of what waits for it.
#[test]
fn a_client_that_does_not_take_is_not_read() {
    let (mut client, mut world) = open();
    world.takes = 0;
    client.data(&message(&[b'x'; 16_384]), &mut world);
    assert_eq!((client.room(), client.timer()), (0, Timer::Send));
    world.takes = usize::MAX;
    client.writable(&mut world);
    assert!(client.room() > 0 && client.heap() == 0);
}
