//! A client that speaks WebSocket, against a reader that sees all of its bytes at once.

use std::net::{Ipv4Addr, SocketAddr};

use megaphone_core::client::{Bounds, Client, Io, Refusal};
use megaphone_core::limits::{DATA_CHUNK, WINDOW};
use megaphone_core::link::messages::{Fault, Part, Reader};
use megaphone_core::link::{CloseReason, Frame, Kind};

/// Most bytes of a message here.
pub const MOST: u32 = 300;

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n";

/// How the client's part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It may go on.
    Open,
    /// With its close frame.
    Closed,
    /// With what it must not send.
    Fault(Fault),
}

/// What a client's bytes are: whole messages, and how it ends.
pub fn read(input: &[u8]) -> (Vec<Vec<u8>>, End) {
    let (mut messages, mut current, mut at): (Vec<Vec<u8>>, Option<Vec<u8>>, _) = (Vec::new(), None, 0);
    loop {
        let rest = &input[at..];
        let [first, second, ..] = *rest else { return (messages, End::Open) };
        let (opcode, is_final, short) = (first & 15, first & 128 != 0, usize::from(second & 127));
        let is_control = opcode > 7;
        let known = matches!(opcode, 0..=2 | 8..=10);
        if first & 112 != 0 || second & 128 == 0 || !known || (is_control && (!is_final || short > 125)) {
            return (messages, End::Fault(Fault::Protocol));
        }
        let extra = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < 6 + extra {
            return (messages, End::Open);
        }
        let length = match extra {
            0 => short as u64,
            _ => rest[2..2 + extra].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if (extra == 2 && length < 126) || (extra == 8 && !(65_536..1 << 63).contains(&length)) {
            return (messages, End::Fault(Fault::Protocol));
        }
        let mask = &rest[2 + extra..6 + extra];
        let there = &rest[6 + extra..];
        let there = &there[..there.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let payload: Vec<u8> =
            there.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let is_whole = payload.len() as u64 == length;
        at += 6 + extra + payload.len();
        if is_control {
            if !is_whole {
                return (messages, End::Open);
            }
            match (opcode, &payload[..]) {
                (8, []) => return (messages, End::Closed),
                (8, [high, low, text @ ..]) => {
                    let code = u16::from_be_bytes([*high, *low]);
                    let good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                    let end = match std::str::from_utf8(text) {
                        _ if !good => End::Fault(Fault::Protocol),
                        Ok(_) => End::Closed,
                        Err(_) => End::Fault(Fault::Encoding),
                    };
                    return (messages, end);
                }
                (8, _) => return (messages, End::Fault(Fault::Protocol)),
                _ => continue,
            }
        }
        if (opcode == 0) != current.is_some() {
            return (messages, End::Fault(Fault::Protocol));
        }
        if opcode == 2 {
            return (messages, End::Fault(Fault::Binary));
        }
        let text = current.get_or_insert_with(Vec::new);
        if text.len() as u64 + length > u64::from(MOST) {
            return (messages, End::Fault(Fault::TooBig));
        }
        text.extend_from_slice(&payload);
        let is_complete = is_whole && is_final;
        let wrong = match std::str::from_utf8(text) {
            Ok(_) => false,
            Err(error) => is_complete || error.error_len().is_some(),
        };
        if wrong {
            return (messages, End::Fault(Fault::Encoding));
        }
        if !is_whole {
            return (messages, End::Open);
        }
        if is_complete {
            messages.extend(current.take());
        }
    }
}

/// The world around a client: it takes everything at once, and the node grants credit as it is told to.
#[derive(Debug, Default)]
struct World {
    open: bool,
    credit: u64,
    reader: Reader,
    messages: Vec<Vec<u8>>,
    fault: Option<Fault>,
    close: Option<CloseReason>,
    heard: Vec<u8>,
    ended: bool,
}

impl Io for World {
    fn id(&self) -> u64 {
        7
    }

    fn window(&self) -> Option<u32> {
        Some(64)
    }

    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), SocketAddr::from((Ipv4Addr::LOCALHOST, 2))))
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        assert_eq!(self.open, !matches!(frame, Frame::Open { .. }), "{} frame", frame.name());
        match *frame {
            Frame::Open { open, .. } => {
                assert_eq!(open.kind, Kind::Xmpp);
                (self.open, self.credit) = (true, 64);
            }
            Frame::Data { mut payload, .. } => {
                assert!((1..=DATA_CHUNK).contains(&payload.len()) && self.fault.is_none());
                self.credit = self.credit.checked_sub(payload.len() as u64).expect("data beyond credit");
                while let Some(part) = self.reader.next(&mut payload) {
                    match part {
                        Part::Begin(_) => self.messages.push(Vec::new()),
                        Part::Text { bytes, .. } => self.messages.last_mut().expect("begun").extend(bytes),
                        Part::Fault(fault) => self.fault = Some(fault),
                    }
                }
            }
            Frame::Close { reason, .. } => (self.open, self.close) = (false, Some(reason)),
            Frame::Window { increment, .. } => assert!(increment >= WINDOW / 2),
            _ => panic!("{} frame", frame.name()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        assert!(!self.ended, "written after the end");
        self.heard.extend_from_slice(bytes);
        bytes.len()
    }

    fn shutdown_write(&mut self) {
        self.ended = true;
    }

    fn crowded(&self) -> bool {
        false
    }

    fn refused(&mut self, _refusal: Refusal, _status: u16) {}

    fn bounds(&self) -> Bounds {
        Bounds { message: MOST, ..Bounds::default() }
    }

    fn ends_websocket(&self, path: &[u8]) -> bool {
        path == b"/ws"
    }

    fn serves_xmpp(&self) -> bool {
        true
    }
}

/// Gives the pieces to a client, and compares what the node gets with what they are.
pub fn run<'a>(input: &[u8], pieces: impl Iterator<Item = &'a [u8]>) {
    let (mut client, mut world) = (Client::new(), World::default());
    client.input(HANDSHAKE, &mut world);
    assert!(client.is_socket() && client.heap() == 0, "idle from the beginning");
    assert!(world.heard.starts_with(b"HTTP/1.1 101 ") && world.heard.ends_with(b"\r\n\r\n"));
    world.heard.clear();
    for mut piece in pieces {
        while !piece.is_empty() && !client.is_ending() {
            let room = client.room();
            if room == 0 {
                world.credit += 40;
                client.grant_credit(40, &mut world);
                continue;
            }
            let (now, later) = piece.split_at(room.min(piece.len()));
            client.input(now, &mut world);
            piece = later;
        }
    }
    while world.open && client.is_socket() && (client.room() == 0 || !world.reader.is_between()) {
        world.credit += 40;
        client.grant_credit(40, &mut world);
    }
    let (mut messages, end) = read(input);
    messages.iter_mut().filter(|message| message.is_empty()).for_each(|message| message.push(b' '));
    assert_eq!(world.messages, messages);
    match end {
        End::Open => {
            assert!(client.is_socket() && !world.ended && world.fault.is_none());
            let idle = client.heap() == 0;
            assert!(idle || !input.is_empty());
        }
        End::Closed => assert!(world.ended && !world.open && world.fault.is_none()),
        // Nobody has to be told of one that the node does not know.
        End::Fault(_) if messages.is_empty() => assert!(world.ended && !world.open),
        End::Fault(fault) => {
            while world.fault.is_none() {
                world.credit += 40;
                client.grant_credit(40, &mut world);
            }
            assert_eq!(world.fault, Some(fault));
            assert!(!world.ended && client.room() > 0, "it waits for the node");
            client.closed(CloseReason::Normal, &mut world);
            assert!(world.ended && world.heard.ends_with(&close_code(fault).to_be_bytes()));
        }
    }
    answers(&world.heard);
}

fn close_code(fault: Fault) -> u16 {
    match fault {
        Fault::TooBig => 1009,
        Fault::Binary => 1003,
        Fault::Encoding => 1007,
        Fault::Timeout => 1008,
        Fault::Protocol => 1002,
    }
}

/// What the client hears are whole frames of ours, and a close frame is the last one.
fn answers(mut heard: &[u8]) {
    while let [first, second, rest @ ..] = heard {
        assert!(matches!(first, 0x88 | 0x8a) && *second <= 125, "{first:x} {second}");
        let (_, after) = rest.split_at(usize::from(*second));
        assert!(*first != 0x88 || after.is_empty(), "something after close");
        heard = after;
    }
    assert!(heard.is_empty());
}
