//! WebSockets that end in the connection manager, with tungstenite's client at the one end and a scripted node at the other.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use megaphone_core::link::Kind;
use megaphone_ecm::websocket::WebSockets;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

type Socket = WebSocket<TcpStream>;

/// The link of a node that takes connections of kind XMPP.
fn accept(ecm: &Ecm) -> Node {
    let mut node = ecm.accept_raw();
    let features = Hello::CREDIT | Hello::XMPP;
    node.send(&Frame::Hello(Hello { role: Role::Ejabberd, features, window: limits::WINDOW, name: "test" }));
    assert!(matches!(node.next(), Event::Hello(_)));
    node.send(&Frame::Ping([7; 8]));
    assert_eq!(node.next(), Event::Pong([7; 8]));
    node
}

fn connect(ecm: &Ecm) -> Socket {
    offer(ecm, "xmpp", None).unwrap()
}

fn offer(ecm: &Ecm, protocol: &str, origin: Option<&str>) -> Result<Socket, u16> {
    let mut request = format!("ws://{}/ws", ecm.address).into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("Origin", origin.parse().unwrap());
    }
    let stream = ecm.client().stream;
    match tungstenite::client(request, stream) {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "xmpp");
            assert!(!answer.headers().contains_key("Sec-WebSocket-Extensions"));
            Ok(socket)
        }
        Err(error) => match error {
            tungstenite::HandshakeError::Failure(Error::Http(answer)) => Err(answer.status().as_u16()),
            other => panic!("{other}"),
        },
    }
}

fn message(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// A client with an open stream.
fn open(ecm: &Ecm, node: &mut Node) -> (Socket, u64) {
    let mut socket = connect(ecm);
    socket.send("<open/>".into()).unwrap();
    let Event::Open(id, open) = node.next() else { panic!("no open") };
    assert_eq!(open.kind, Kind::Xmpp);
    assert_eq!(node.take(id, 11), message("<open/>"));
    (socket, id)
}

/// The code with which the connection ends, and that its end is a clean one.
fn code(socket: &mut Socket) -> u16 {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(CloseFrame { code, .. }))) => {
                assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
                return code.into();
            }
            Ok(Message::Close(None)) => panic!("no code"),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Messages of all lengths go both ways as they are, over frames of the link that are cut as it likes.
#[test]
fn messages_go_both_ways() {
    let ecm = Ecm::start();
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    for length in [1, 125, 126, 65_535, 65_536, 200_000] {
        let text = "x".repeat(length);
        socket.send(text.as_str().into()).unwrap();
        assert!(node.take(id, length + 4) == message(&text));
        for piece in message(&text).chunks(10_007) {
            node.data(id, piece);
        }
        assert!(socket.read().unwrap() == Message::text(text));
    }
    node.close(id);
    assert_eq!(code(&mut socket), 1000);
}

/// Pings are answered, and parts joined, whatever comes between.
#[test]
fn control_frames_are_answered() {
    let ecm = Ecm::start();
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    socket
        .close(Some(CloseFrame { code: CloseCode::Library(4_321), reason: Utf8Bytes::from_static("bye") }))
        .unwrap();
    assert_eq!(node.next(), Event::Close(id, CloseReason::Normal));
    node.close(id);
    assert_eq!(code(&mut socket), 4_321);
}

/// Wrong offers get their status; a request for another path, or to a node that does not serve it so, is carried through.
#[test]
fn offers_are_checked() {
    let origins = |config: &mut megaphone_ecm::Config| {
        config.websocket.origins = Some(vec!["https://chat.example".to_owned()]);
    };
    let ecm = Ecm::with(origins);
    let _node = accept(&ecm);
    assert_eq!(offer(&ecm, "soap", None).err(), Some(400));
    assert_eq!(offer(&ecm, "xmpp", Some("https://evil.example")).err(), Some(403));
    assert!(offer(&ecm, "xmpp", Some("https://chat.example")).is_ok());
    assert!(offer(&ecm, "xmpp", None).is_ok(), "no browser");
    for (paths, features) in [(vec!["/other".to_owned()], Hello::XMPP), (WebSockets::default().paths, 0)] {
        let ecm = Ecm::with(|config| config.websocket.paths = paths);
        let mut node = ecm.accept_raw();
        let features = Hello::CREDIT | features;
        node.send(&Frame::Hello(Hello { role: Role::Ejabberd, features, window: limits::WINDOW, name: "" }));
        assert!(matches!(node.next(), Event::Hello(_)));
        node.send(&Frame::Ping([7; 8]));
        assert_eq!(node.next(), Event::Pong([7; 8]));
        let mut client = ecm.client();
        client
            .stream
            .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
        let Event::Open(_, open) = node.next() else { panic!("no open") };
        assert_eq!(open.kind, Kind::Http);
    }
}

/// A message beyond the limit is told to the node before any more of it is read; others do not notice.
#[test]
fn a_long_message_ends_its_stream_alone() {
    let ecm = Ecm::with(|config| config.guard.bounds.message = 1_000);
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    let (mut other, other_id) = open(&ecm, &mut node);
    // 100 MB are announced, and as much is sent as the manager takes.
    let stream = socket.get_mut();
    stream.write_all(&[0x81, 0xff, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(node.take(id, 5), [0, 0, 0, 0, 1]);
    node.data(id, &message("<stream:error/>"));
    node.close(id);
    assert!(matches!(node.next(), Event::Close(..)));
    assert_eq!(socket.read().unwrap(), Message::text("<stream:error/>"));
    assert_eq!(code(&mut socket), 1009);
    other.send("still here".into()).unwrap();
    assert_eq!(node.take(other_id, 14), message("still here"));
}

/// A silent client gets pings, again and again, as long as it answers; one that does not is gone, and the node learns it.
#[test]
fn silent_clients_are_pinged() {
    let ecm = Ecm::with(|config| {
        config.websocket.ping = Duration::from_millis(200);
        config.websocket.pong = Duration::from_millis(600);
    });
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    for _ in 0..2 {
        // tungstenite answers it with the next read.
        assert_eq!(socket.read().unwrap(), Message::Ping(Vec::new().into()));
    }
    let began = Instant::now();
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
    // The second one was not answered.
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

/// A message that is not completed ends the stream in its time, however slowly it goes on.
#[test]
fn a_message_has_its_time() {
    let ecm = Ecm::with(|config| config.body_timeout = Duration::from_millis(300));
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    socket.get_mut().write_all(b"\x01\x85\0\0\0\0ab").unwrap();
    assert_eq!(node.take(id, 5), [0, 0, 0, 0, 4]);
    node.close(id);
    assert_eq!(code(&mut socket), 1008);
}

/// A lost link closes those whose streams were open; one that has only shaken hands goes on over the next link.
#[test]
fn a_lost_link_ends_open_streams() {
    let ecm = Ecm::start();
    let mut node = accept(&ecm);
    let (mut socket, _) = open(&ecm, &mut node);
    let mut fresh = connect(&ecm);
    drop(node);
    assert_eq!(code(&mut socket), 1012);
    let mut node = accept(&ecm);
    fresh.send("<open/>".into()).unwrap();
    let id = node.open();
    assert_eq!(node.take(id, 11), message("<open/>"));
}

/// A client that goes without a word is gone for the node as well; what it said before comes first.
#[test]
fn a_client_that_goes_is_told() {
    let ecm = Ecm::start();
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    socket.send("last".into()).unwrap();
    drop(socket);
    assert_eq!(node.take(id, 8), message("last"));
    assert_eq!(node.next(), Event::Close(id, CloseReason::PeerGone));
}

/// A draining manager sends WebSockets away over the time that it has, with the code for it, and ends.
#[test]
fn draining_closes_websockets() {
    let mut ecm = Ecm::with(|config| config.drain_timeout = Duration::from_secs(4));
    let mut node = accept(&ecm);
    let mut sockets: Vec<_> = (0..10).map(|_| open(&ecm, &mut node)).collect();
    ecm.command(Command::Drain);
    for (socket, _) in &mut sockets {
        assert_eq!(code(socket), 1001);
    }
    for _ in 0..10 {
        let Event::Close(id, CloseReason::Shutdown) = node.next() else { panic!("no close") };
        node.close(id);
    }
    drop(sockets);
    ecm.ended();
}

/// Without TLS where it is asked for there is no WebSocket, and so no password.
#[test]
fn tls_may_be_required() {
    let ecm = Ecm::launch_at("127.0.0.1".parse().unwrap(), |config| config.require_tls = true, None);
    let _node = accept(&ecm);
    // From the machine itself it is allowed, as for requests.
    assert!(offer(&ecm, "xmpp", None).is_ok());
}

/// What is no WebSocket any more is closed by its end.
#[test]
fn garbage_ends_a_websocket() {
    let ecm = Ecm::start();
    let mut node = accept(&ecm);
    let (mut socket, id) = open(&ecm, &mut node);
    let stream = socket.get_mut();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(node.take(id, 5), [0, 0, 0, 0, 5]);
    node.close(id);
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(rest.ends_with(&[0x88, 2, 3, 234]), "{rest:?}");
}
