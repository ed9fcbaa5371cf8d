//! One client connection of the connection manager, as a state machine: bytes, frames and timeouts in; bytes, frames
//! and wishes out. The owner does the I/O behind [`Io`].
//!
//! ```text
//!          head complete                    all of the body handed on        ready(0)
//!   Head ───────────────▶ Collect ──┬──────────────────────────▶ Answer ───────────────▶ Head
//!    │  (small or chunked body)     │                              ▲ │ ready(1)
//!    ├──────────────────▶ Stream ───┴──────────────────────────────┘ └──────▶ Tunnel
//!    │  (long body, under credit)
//!    └─ a WebSocket that ends here ─▶ Socket (see `websocket`)
//!   Head ──head of another client behind the same proxy──▶ Turn ──answers taken──▶ Head
//!   any ──refused, closed, timeout──▶ Flush ──all written──▶ Linger ──client's end, or timeout──▶ Closed
//! ```
//!
//! A connection that waits (for a request, for an answer, or as a tunnel) owns no heap memory.
//!
//! | module | what it is |
//! | --- | --- |
//! | `request` | from the client to the node |
//! | `answer` | from the node to the client, and every end |
//! | `websocket` | a client whose WebSocket ends here |
//! | `refusal` | why a client is refused |

mod answer;
mod refusal;
mod request;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod websocket;

use std::net::SocketAddr;

pub use refusal::Refusal;

use crate::http::{Head, HeadLimits, chunked};
use crate::limits;
use crate::link::{Frame, messages};

/// What a client connection needs of the world around it. One implementation does I/O, another one is a test.
pub trait Io {
    /// The id of the virtual connection, unique among those open on the link; used until this client is closed.
    fn id(&self) -> u64;
    /// While the link is up: the credit that its other end gives to a new connection.
    fn window(&self) -> Option<u32>;
    /// The client's address and the one that it connected to; `None` if the client is gone.
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)>;
    /// Whether the client may only ask by TLS and did not come by it.
    fn lacks_tls(&self) -> bool {
        false
    }
    /// Sends a frame on the link. Only called while the link is up.
    fn frame(&mut self, frame: &Frame<'_>);
    /// Writes to the client as much as it takes now: 0 if nothing, also when the client is gone.
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// Ends the stream to the client, after everything was written.
    fn shutdown_write(&mut self);
    /// Whether all clients together hold so much memory that no more may be taken for unfinished requests.
    fn crowded(&self) -> bool;
    /// The connection manager refuses the client, with this status: to be counted and logged.
    fn refused(&mut self, refusal: Refusal, status: u16);
    /// What a client may do.
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }
    /// Whom the request with this head (in `bytes`) comes from. From [`Origin::Changed`] on, [`Io::addresses`] has the
    /// new address, and the same head gives [`Origin::Same`].
    fn origin(&mut self, bytes: &[u8], head: &Head) -> Origin {
        let _ = (bytes, head);
        Origin::Same
    }
    /// The virtual connection was closed and another is to follow: [`Io::id`] is a new one from now on.
    fn renew(&mut self) {}
    /// Whether the client speaks TLS, to this end or to a proxy that is trusted.
    fn is_tls(&self) -> bool {
        false
    }
    /// Whether the connection manager is about to end: each answer then tells the client to close.
    fn draining(&self) -> bool {
        false
    }
    /// Whether WebSockets for this path (without a query) end here.
    fn ends_websocket(&self, path: &[u8]) -> bool {
        let _ = path;
        false
    }
    /// Whether the node takes virtual connections of kind XMPP.
    fn serves_xmpp(&self) -> bool {
        false
    }
    /// Whether pages of this origin may use WebSockets that end here.
    fn allows_origin(&self, origin: &[u8]) -> bool {
        let _ = origin;
        true
    }
    /// A whole message of a WebSocket is with the node.
    fn message(&mut self) {}
    /// A whole request is with the node.
    fn requested(&mut self) {}
    /// Whether the node takes it to be told of requests that wait behind others.
    fn pipelines(&self) -> bool {
        false
    }
    /// The first bytes of the node's answer have come.
    fn answered(&mut self) {}
}

/// Whom a request comes from, compared with what the connection was known to come from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the same client.
    Same,
    /// From another client: a proxy uses one connection for several.
    Changed,
    /// From a client that may not have another connection.
    Refused(Refusal),
}

/// What one client may do; the defaults are those of [`limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes and fields of a request head.
    pub head: HeadLimits,
    /// Most bytes of a request body; a chunked one has [`limits::MAX_CHUNKED_BODY`] as well.
    pub body: u64,
    /// Most requests of one connection, at least 1.
    pub requests: u16,
    /// Most bytes of a message of a WebSocket that ends here.
    pub message: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            body: limits::MAX_BODY,
            requests: limits::MAX_REQUESTS_PER_CLIENT,
            message: limits::MAX_STANZA,
        }
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Between requests, or within a request head.
    Head,
    /// A head of another client is there; it waits until the answers to the one before are taken, so that no more than
    /// one window is ever held.
    Turn,
    /// Within a body that is handed on only when it is complete.
    Collect,
    /// Within a body that is handed on as it comes.
    Stream,
    /// The request was handed on; the answer is awaited or coming.
    Answer,
    /// Bytes pass both ways.
    Tunnel,
    /// A WebSocket that ends here.
    Socket,
    /// The same, and the client was asked whether it is there.
    Pinged,
    /// The same, of which nothing more is read, because of what the client sent.
    Deaf,
    /// Nothing more is accepted; the rest of the output is written.
    Flush,
    /// Everything was written and our end of the stream closed; what comes is dropped. Closing at once would make the
    /// kernel send a reset if input is unread, and the client might lose the answer by it.
    Linger,
    /// To be dropped.
    Closed,
}

/// Which time limit applies to a connection now. The owner measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// None: a request is being answered, a tunnel is open, or the node holds back.
    None,
    /// [`limits::IDLE_TIMEOUT`], for a connection between requests.
    Idle,
    /// [`limits::HEAD_TIMEOUT`], from the first byte of a head; never restarted.
    Head,
    /// [`limits::BODY_TIMEOUT`], restarted whenever bytes come.
    Body,
    /// [`limits::SEND_TIMEOUT`], restarted whenever the client takes bytes.
    Send,
    /// [`limits::LINGER_TIMEOUT`]; never restarted.
    Linger,
    /// [`limits::WEBSOCKET_PING`], restarted whenever bytes come: then a WebSocket is pinged.
    Ping,
    /// [`limits::WEBSOCKET_PONG`]; never restarted.
    Pong,
    /// [`limits::BODY_TIMEOUT`], from the first byte of a message; never restarted.
    Message,
}

impl Timer {
    /// Whether progress starts this limit anew.
    #[must_use]
    pub fn restarts(self) -> bool {
        matches!(self, Self::Body | Self::Send | Self::Ping)
    }
}

/// What was agreed on with the current request, and whether the virtual connection exists.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// The node knows the virtual connection: open was sent, close was not.
    open: bool,
    /// No further request may follow the current one.
    last: bool,
    /// The current request asks to become a WebSocket.
    upgrade: bool,
    /// The current request's method is HEAD.
    is_head: bool,
    /// Some of the answer to the current request has come.
    answered: bool,
}

/// What only a busy connection has.
#[derive(Debug, Default)]
struct Work {
    /// Bytes of the client that were not understood or not handed on yet.
    input: Vec<u8>,
    /// How far `input` was searched for the end of a head.
    scanned: usize,
    /// The request as it goes to the node: head, and a collected body.
    up: Vec<u8>,
    /// The node was told that a request waits behind the one that it has.
    told: bool,
    /// Bytes of `up` that were sent.
    up_sent: usize,
    /// Bytes of the body that the client has yet to send.
    remaining: u64,
    /// Decoder and decoded body of a chunked request.
    chunked: Option<(chunked::Decoder, Vec<u8>)>,
    /// Bytes for the client that it has not taken.
    output: Vec<u8>,
    /// Bytes of `output` that were written.
    written: usize,
    /// A message of a WebSocket, as far as it came.
    incoming: websocket::Incoming,
    /// Where the node's messages stand.
    reader: messages::Reader,
    /// Payload of the last ping that is not answered yet.
    pong: Option<Vec<u8>>,
}

impl Work {
    fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.up.is_empty()
            && self.remaining == 0
            && self.chunked.is_none()
            && self.output.is_empty()
            && self.incoming.is_idle()
            && self.reader.is_between()
            && self.pong.is_none()
    }
}

/// One client connection.
#[derive(Debug)]
pub struct Client {
    /// Dropped whenever there is nothing in it.
    work: Option<Box<Work>>,
    /// Bytes that the node still accepts.
    credit: u32,
    /// Bytes that the node may still send.
    allowed: u32,
    /// Requests so far.
    requests: u16,
    stage: Stage,
    flags: Flags,
}

// What a million idle connections pay for.
const _: () = assert!(size_of::<Client>() <= 24);

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A connection that has sent nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { work: None, credit: 0, allowed: 0, requests: 0, stage: Stage::Head, flags: Flags::default() }
    }

    /// Most bytes to read from the client now; 0: read nothing until this changes. [`Client::input`] takes no more.
    #[must_use]
    pub fn room(&self) -> usize {
        let credit = self.credit as usize;
        let held = self.held_input();
        let room = match self.stage {
            Stage::Head | Stage::Collect | Stage::Linger | Stage::Deaf => limits::DATA_CHUNK,
            Stage::Socket | Stage::Pinged if self.unsent() > 0 || self.pending() > limits::DATA_CHUNK => 0,
            Stage::Socket | Stage::Pinged => limits::DATA_CHUNK,
            Stage::Answer if self.flags.last => 0,
            Stage::Answer => limits::PIPELINE.saturating_sub(held),
            Stage::Stream if held == 0 && self.unsent() == 0 => {
                let remaining = self.work.as_ref().map_or(0, |work| work.remaining);
                usize::try_from(remaining).unwrap_or(usize::MAX).min(credit)
            }
            Stage::Tunnel if held == 0 => credit,
            Stage::Turn | Stage::Stream | Stage::Tunnel | Stage::Flush | Stage::Closed => 0,
        };
        room.min(limits::DATA_CHUNK)
    }

    /// Whether the connection is over: to be dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the node knows this connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.flags.open
    }

    /// Whether a request or a tunnel is with the node.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        matches!(self.stage, Stage::Stream | Stage::Answer | Stage::Tunnel) || self.is_socket()
    }

    /// Whether the request was handed on and nothing of the client is wanted but that it stays.
    #[must_use]
    pub fn waits_for_answer(&self) -> bool {
        self.stage == Stage::Answer
    }

    /// Whether it is a tunnel: a WebSocket.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.stage == Stage::Tunnel || self.is_socket()
    }

    /// Whether the connection ends when its output is written.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Flush | Stage::Linger | Stage::Closed)
    }

    /// The time limit that applies now.
    #[must_use]
    pub fn timer(&self) -> Timer {
        match self.stage {
            Stage::Linger | Stage::Deaf => Timer::Linger,
            Stage::Closed => Timer::None,
            _ if self.pending() > 0 => Timer::Send,
            Stage::Flush => Timer::Send,
            Stage::Head if self.held_input() == 0 => Timer::Idle,
            Stage::Head => Timer::Head,
            // Without credit it is the node that is slow, not the client.
            Stage::Socket | Stage::Pinged if self.unsent() > 0 => Timer::None,
            Stage::Socket | Stage::Pinged if self.is_within_message() => Timer::Message,
            Stage::Socket => Timer::Ping,
            Stage::Pinged => Timer::Pong,
            Stage::Collect => Timer::Body,
            Stage::Stream if self.room() > 0 => Timer::Body,
            Stage::Turn | Stage::Stream | Stage::Answer | Stage::Tunnel => Timer::None,
        }
    }

    /// Bytes of heap memory that this connection owns.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.work.as_ref().map_or(0, |work| {
            let body = work.chunked.as_ref().map_or(0, |(_, body)| body.capacity());
            let vectors = [&work.input, &work.up, &work.output].map(Vec::capacity);
            size_of::<Work>() + vectors.iter().sum::<usize>() + work.incoming.heap() + body
        })
    }

    /// Bytes for the client that it has not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.output.len() - work.written)
    }

    fn held_input(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.input.len())
    }

    /// Bytes of the request that are ready and wait for credit.
    fn unsent(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.up.len() - work.up_sent)
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_with(Box::default)
    }

    /// Gives the memory back when nothing is in it.
    fn settle(&mut self) {
        if self.work.as_ref().is_some_and(|work| work.is_idle()) {
            self.work = None;
        }
    }
}
