//! WebSockets by case: those that the Autobahn suite has (its sections 1 to 7 and 10, written anew), each against a second
//! implementation: tungstenite's server, which gets the same bytes. Both echo; what the client hears must be the same.
//!
//! The suite itself needs Python 2.7, and is run by `scripts/autobahn`. Its messages of bytes are refused here (RFC 7395, 3.2), so
//! these are compared with their code 1003 only. Its sections 12 and 13 are about compression, which is not offered.

#![allow(clippy::unwrap_used)]

use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use megaphone_core::client::{Client, Io, Refusal};
use megaphone_core::link::messages::{Part, Reader, header};
use megaphone_core::link::{CloseReason, Frame};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";

/// What a client hears, as short texts: echoes, pongs, and the code of the end.
type Heard = Vec<String>;

/// A node that echoes, and ends what has a fault.
#[derive(Default)]
struct World {
    reader: Reader,
    echo: Vec<u8>,
    fault: bool,
    window: u32,
    heard: Vec<u8>,
    ended: bool,
}

impl Io for World {
    fn id(&self) -> u64 {
        7
    }
    fn window(&self) -> Option<u32> {
        Some(1 << 20)
    }
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), SocketAddr::from((Ipv4Addr::LOCALHOST, 2))))
    }
    fn frame(&mut self, frame: &Frame<'_>) {
        if let Frame::Data { mut payload, .. } = *frame {
            self.window += payload.len() as u32;
            while let Some(part) = self.reader.next(&mut payload) {
                match part {
                    Part::Begin(length) => self.echo.extend(header(length)),
                    Part::Text { bytes, .. } => self.echo.extend(bytes),
                    Part::Fault(_) => self.fault = true,
                }
            }
        }
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.heard.extend_from_slice(bytes);
        bytes.len()
    }
    fn shutdown_write(&mut self) {
        self.ended = true;
    }
    fn crowded(&self) -> bool {
        false
    }
    fn refused(&mut self, _: Refusal, _: u16) {}
    fn ends_websocket(&self, _: &[u8]) -> bool {
        true
    }
    fn serves_xmpp(&self) -> bool {
        true
    }
}

/// What our end answers to bytes that come in pieces of this size.
fn ours(bytes: &[u8], piece: usize) -> Heard {
    let (mut client, mut world) = (Client::new(), World::default());
    client.input(HANDSHAKE, &mut world);
    world.heard.clear();
    for mut bytes in bytes.chunks(piece) {
        while !bytes.is_empty() && !client.is_ending() {
            let (now, later) = bytes.split_at(bytes.len().min(client.room()));
            assert!(!now.is_empty(), "it is not read any more");
            client.input(now, &mut world);
            bytes = later;
            // Whole messages only, as a node has it.
            if world.reader.is_between() {
                let echo = std::mem::take(&mut world.echo);
                echo.chunks(16_384).for_each(|echo| client.data(echo, &mut world));
            }
            let window = std::mem::take(&mut world.window);
            client.grant_credit(window, &mut world);
            if world.fault {
                client.closed(CloseReason::Normal, &mut world);
            }
        }
    }
    heard(&world.heard)
}

/// A stream that has said all, and keeps what is written.
struct Stream(Cursor<Vec<u8>>, Vec<u8>);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What tungstenite answers; an error of the protocol is answered by its code, as its users have to do it.
fn theirs(bytes: &[u8]) -> Heard {
    let stream = Stream(Cursor::new(bytes.to_vec()), Vec::new());
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(WebSocketConfig::default()));
    let end = loop {
        match socket.read() {
            Ok(message @ Message::Text(_)) => socket.send(message).unwrap(),
            Ok(Message::Binary(_)) => break Some("close 1003"),
            Ok(_) => drop(socket.flush()),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break None,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => break None,
            Err(Error::Utf8(_)) => break Some("close 1007"),
            Err(Error::Protocol(_)) => break Some("close 1002"),
            Err(other) => panic!("{other}"),
        }
    };
    let _ = socket.flush();
    let mut heard = heard(&socket.get_ref().1);
    // After its own close frame there is no other.
    if !heard.iter().any(|text| text.starts_with("close")) {
        heard.extend(end.map(str::to_owned));
    }
    heard
}

fn heard(mut bytes: &[u8]) -> Heard {
    let mut all = Vec::new();
    while let [first, short, rest @ ..] = bytes {
        let (length, rest) = match short {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            _ => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        all.push(match first {
            0x81 => format!("text {} {:?}", length, String::from_utf8_lossy(&payload[..length.min(20)])),
            0x8a => format!("pong {payload:?}"),
            // Without a code it is a normal end.
            0x88 => format!(
                "close {}",
                payload.get(..2).map_or(1000, |code| u16::from_be_bytes([code[0], code[1]]))
            ),
            other => panic!("{other:x}"),
        });
        bytes = rest;
    }
    all
}

fn compare(case: &str, bytes: &[u8]) {
    let expected = theirs(bytes);
    let sizes: &[usize] = if bytes.len() > 5_000 { &[usize::MAX, 997] } else { &[usize::MAX, 1, 2, 7] };
    for size in sizes {
        assert_eq!(ours(bytes, *size), expected, "{case}, in pieces of {size}");
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(b"\x01\x02\x03\x04");
    bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Not the last part.
const fn part(first: u8) -> u8 {
    first & 0x7f
}

const REST: u8 = 0x00;
const LAST: u8 = 0x80;

/// Section 1: messages of text by length. (An empty one is echoed by nobody here: it is no element, and travels as a space.)
#[test]
fn section_1_messages() {
    for length in [1, 125, 126, 127, 128, 65_535, 65_536, 262_144] {
        compare("1.1", &frame(TEXT, &vec![b'*'; length]));
    }
    assert_eq!(ours(&frame(TEXT, b""), 1), ["text 1 \" \""]);
    for length in [0, 125, 126, 127, 128, 65_535, 65_536] {
        compare("1.2", &frame(BINARY, &vec![0xfe; length]));
    }
}

/// Section 2: pings and pongs.
#[test]
fn section_2_pings() {
    for payload in [&b""[..], b"Hello, world!", &[0, 255, 254, 253, 252, 251, 0, 255], &[254; 125]] {
        compare("2.1", &frame(PING, payload));
    }
    compare("2.5", &frame(PING, &[254; 126]));
    for payload in [&b""[..], b"unsolicited"] {
        compare("2.7", &frame(PONG, payload));
        compare("2.9", &[frame(PONG, payload), frame(PING, b"ping")].concat());
    }
    let ten: Vec<u8> = (0..10_u8).flat_map(|n| frame(PING, &[b'0' + n])).collect();
    compare("2.10", &ten);
}

/// Section 3: reserved bits, in each kind of frame, with good ones around.
#[test]
fn section_3_reserved_bits() {
    for bits in 1..8_u8 {
        for kind in [TEXT, BINARY, CLOSE, PING, PONG] {
            let odd = frame(kind | bits << 4, b"");
            compare("3.1", &odd);
            compare("3.2", &[frame(TEXT, b"a"), odd, frame(PING, b"")].concat());
        }
    }
}

/// Section 4: opcodes that are reserved.
#[test]
fn section_4_opcodes() {
    for opcode in (3..8).chain(11..16_u8) {
        compare("4.1", &frame(0x80 | opcode, b""));
        compare("4.2", &frame(0x80 | opcode, b"payload"));
        compare("4.3", &[frame(TEXT, b"a"), frame(0x80 | opcode, b"b"), frame(PING, b"")].concat());
    }
}

/// Section 5: parts.
#[test]
fn section_5_fragmentation() {
    compare("5.1", &[frame(part(PING), b"a"), frame(LAST, b"b")].concat());
    compare("5.2", &[frame(part(PONG), b"a"), frame(LAST, b"b")].concat());
    compare("5.3", &[frame(part(TEXT), b"a"), frame(LAST, b"b")].concat());
    compare("5.6", &[frame(part(TEXT), b"a"), frame(PING, b"p"), frame(LAST, b"b")].concat());
    compare("5.9", &[frame(LAST, b"a"), frame(TEXT, b"b")].concat());
    compare("5.12", &[frame(REST, b"a"), frame(TEXT, b"b")].concat());
    compare(
        "5.15",
        &[frame(part(TEXT), b"a"), frame(LAST, b"b"), frame(REST, b"c"), frame(TEXT, b"d")].concat(),
    );
    compare("5.18", &[frame(part(TEXT), b"a"), frame(TEXT, b"b")].concat());
    let many = [
        frame(part(TEXT), b"1"),
        frame(REST, b"2"),
        frame(PING, b"x"),
        frame(REST, b"3"),
        frame(REST, b""),
        frame(PING, b"y"),
        frame(LAST, b"5"),
        frame(TEXT, b"next"),
    ];
    compare("5.19", &many.concat());
}

/// Section 6: UTF-8, in one part and in parts of one byte.
#[test]
fn section_6_utf8() {
    let good: [&[u8]; 8] = [
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        "κόσμε".as_bytes(),
        b"\x7f\xdf\xbf",
        "\u{7ff}\u{ffff}\u{10ffff}".as_bytes(),
        "\u{80}\u{800}\u{10000}".as_bytes(),
        "\u{d7ff}\u{e000}\u{fffd}".as_bytes(),
        "\u{fffe}\u{ffff}".as_bytes(),
        "\u{1fffe}\u{10fffe}".as_bytes(),
    ];
    let bad: [&[u8]; 22] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80",
        b"\xc0 \xc1 ",
        b"\xe0 ",
        b"\xf0 ",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xad\xbf\xed\xb0\x80",
        b"\xce",
    ];
    for text in good.iter().chain(&bad) {
        compare("6, whole", &frame(TEXT, text));
        let mut parts = frame(part(TEXT), b"");
        text.iter().for_each(|byte| parts.extend(frame(REST, &[*byte])));
        parts.extend(frame(LAST, b""));
        compare("6, byte by byte", &parts);
    }
    // At once, before the rest of the message is there.
    assert_eq!(ours(&frame(part(TEXT), b"\xce\xba\xed\xa0\x80")[..11], 1), ["close 1007"]);
}

/// Section 7: ends.
#[test]
fn section_7_ends() {
    // Byte by byte: an echo that is still on its way when the client closes is not written any more.
    let bytes = [frame(TEXT, b"a"), frame(CLOSE, b"\x03\xe8")].concat();
    assert_eq!(ours(&bytes, 1), theirs(&bytes), "7.1.1");
    compare("7.1.2", &[frame(CLOSE, b""), frame(CLOSE, b"")].concat());
    compare("7.1.3", &[frame(CLOSE, b""), frame(PING, b"")].concat());
    compare("7.1.4", &[frame(CLOSE, b""), frame(TEXT, b"a")].concat());
    compare("7.1.5", &[frame(part(TEXT), b"a"), frame(CLOSE, b""), frame(LAST, b"b")].concat());
    for payload in [
        &b""[..],
        b"a",
        b"\x03\xe8",
        b"\x03\xe8reason",
        &[b"\x03\xe8".as_slice(), &[b'*'; 123]].concat(),
        b"\x03\xe8\xce\xba\xed\xa0\x80",
    ] {
        compare("7.3", &frame(CLOSE, payload));
    }
    compare("7.3.6", &frame(CLOSE, &[b"\x03\xe8".as_slice(), &[b'*'; 124]].concat()));
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        compare("7.7", &frame(CLOSE, &code.to_be_bytes()));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(ours(&frame(CLOSE, &code.to_be_bytes()), 1), ["close 1002"], "{code}");
    }
}

/// Section 10: a message that is sent in parts by itself.
#[test]
fn section_10_auto_fragmentation() {
    let mut parts = frame(part(TEXT), &[b'*'; 1_300]);
    (0..49).for_each(|_| parts.extend(frame(REST, &[b'*'; 1_300])));
    parts.extend(frame(LAST, &[b'*'; 536]));
    compare("10.1", &parts);
}
