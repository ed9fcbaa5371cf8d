//! The surroundings of a client: what it sends to the node and writes to its peer is kept.

use std::net::{Ipv4Addr, SocketAddr};

use megaphone_core::client::{Client, Io, Refusal};
use megaphone_core::limits;
use megaphone_core::link::{CloseReason, Frame, ReadyMode};

/// What the node answers to every request.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The interim answer.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Records what a client does. The link is up, and the peer takes everything at once.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Data frames since the last request was taken out.
    pub(crate) data: Vec<u8>,
    /// Open frames.
    pub(crate) opened: usize,
    /// Close frames.
    pub(crate) closed: Vec<CloseReason>,
    /// What the peer was sent.
    pub(crate) written: Vec<u8>,
    /// Whether the stream to the peer was ended.
    pub(crate) ended: bool,
    /// Statuses of the connection manager's own answers.
    pub(crate) refused: Vec<u16>,
    /// The window of the node, if it is not the usual one.
    pub(crate) window: Option<u32>,
}

impl Io for World {
    fn id(&self) -> u64 {
        1
    }
    fn window(&self) -> Option<u32> {
        Some(self.window.unwrap_or(limits::WINDOW))
    }
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Some((address, address))
    }
    fn frame(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Open { .. } => self.opened += 1,
            Frame::Data { payload, .. } => self.data.extend_from_slice(payload),
            Frame::Close { reason, .. } => self.closed.push(*reason),
            Frame::Window { .. } => {}
            other => panic!("a client sent {}", other.name()),
        }
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        assert!(!self.ended, "written after the end");
        self.written.extend_from_slice(bytes);
        bytes.len()
    }
    fn shutdown_write(&mut self) {
        assert!(!self.ended, "ended twice");
        self.ended = true;
    }
    fn crowded(&self) -> bool {
        false
    }
    fn refused(&mut self, _refusal: Refusal, status: u16) {
        self.refused.push(status);
    }
}

/// A client, its world, and the node behind it: a node that answers each request as soon as it has all of it, gives
/// back the credit, and agrees to every WebSocket.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) client: Client,
    pub(crate) world: World,
    /// The requests that the node got, as it got them.
    pub(crate) requests: Vec<Vec<u8>>,
    tunnel: bool,
}

impl Exchange {
    /// Gives the client bytes of its peer, as many as it takes, and lets the node answer what comes of them.
    pub(crate) fn input(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.client.room().min(bytes.len());
            if room == 0 {
                break;
            }
            self.client.input(&bytes[..room], &mut self.world);
            bytes = &bytes[room..];
            self.serve();
        }
    }

    fn serve(&mut self) {
        while self.client.waits_for_answer() {
            let request = std::mem::take(&mut self.world.data);
            let credit = u32::try_from(request.len()).expect("a short request");
            self.client.grant_credit(credit, &mut self.world);
            self.client.data(ANSWER, &mut self.world);
            self.tunnel = contains(&request, b"\r\nUpgrade: websocket\r\n");
            self.requests.push(request);
            let mode = if self.tunnel { ReadyMode::Tunnel } else { ReadyMode::Request };
            self.client.ready(mode, &mut self.world);
        }
    }

    /// What went through the tunnel, if the connection has become one.
    pub(crate) fn tunneled(&self) -> Option<&[u8]> {
        self.tunnel.then_some(&self.world.data[..])
    }

    /// What was written to the peer, without interim answers.
    pub(crate) fn answers(&self) -> Vec<u8> {
        let mut rest = &self.world.written[..];
        let mut answers = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(CONTINUE) {
                rest = after;
            } else {
                answers.push(rest[0]);
                rest = &rest[1..];
            }
        }
        answers
    }
}

pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
