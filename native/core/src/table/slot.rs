//! What the table keeps of one connection: a small slot always, a box of queues only while there is something in them.

use core::num::NonZeroU64;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::input::{Chunk, Input};
use super::{Handle, Packet};
use crate::link::{CloseReason, ReadyMode};
use crate::stirred::Activity;

/// How far the two ends have come with closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// Neither has closed.
    Open,
    /// This end closes as soon as its output is out.
    Closing(CloseReason),
    /// This end has closed and waits for the other.
    CloseSent,
    /// Both have closed (or the link is gone): the id is free, only readers of queued data are left.
    Done,
}

/// Where the input of a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Plain bytes.
    Stream,
    /// Between two requests; so many bytes of the next head were searched for its end.
    Boundary { scanned: usize },
    /// Between two requests; the head of the next one is there, its body, with the head so many bytes, is not yet.
    Pending(Size),
    /// In a request of which so many bytes were not read yet, with so many of its head among them.
    Request { head: u32, left: u64, answered: bool },
    /// Dropping the rest of a request that was answered without being read.
    Skip { left: u64 },
}

/// Bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Of its head.
    pub(super) head: u32,
    /// Of head and body.
    pub(super) total: u64,
}

impl Framing {
    /// At the start of a request.
    pub(super) const fn unread(size: Size) -> Self {
        Self::Request { head: size.head, left: size.total, answered: false }
    }
}

impl Flags {
    /// The framing of a connection of which nothing is queued.
    pub(super) const fn at_rest(self) -> Framing {
        match (self.http, self.polled) {
            (true, true) => Framing::Request { head: 0, left: 0, answered: false },
            (true, false) => Framing::Boundary { scanned: 0 },
            (false, _) => Framing::Stream,
        }
    }
}

/// No place.
pub(super) const NOWHERE: u32 = u32::MAX;

/// One connection. At most 88 bytes; see `slot_is_small`.
#[derive(Debug)]
pub(super) struct Slot<P, C> {
    pub(super) generation: NonZeroU64,
    pub(super) id: u64,
    pub(super) queues: Option<Box<Queues<P, C>>>,
    pub(super) owner: Option<P>,
    /// Neighbours in the list of the owner's connections in this shard.
    pub(super) owned_before: u32,
    pub(super) owned_after: u32,
    ip: [u8; 16],
    pub(super) link: u32,
    /// Bytes that may be sent to the peer.
    pub(super) send_credit: u32,
    /// Bytes received for which no new credit was granted yet.
    pub(super) received: u32,
    /// Second (on the caller's clock) of the last data in either direction.
    pub(super) last_activity: u32,
    port: u16,
    pub(super) local: u8,
    /// Kept here too, so that a connection in a packet mode needs no queues while it is idle.
    pub(super) packet: Packet,
    pub(super) flags: Flags,
    pub(super) bits: Bits,
    /// Of connections of kind XMPP: whether its owner is idle.
    pub(super) activity: Activity,
    pub(super) wire: Wire,
}

/// The truth values of a slot.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Flags {
    /// Requests are framed (connections of kind http on a link).
    pub(super) http: bool,
    /// A start was asked of the host and its consumer has not finished.
    pub(super) started: bool,
    /// The API may not use the connection any more; it only lives on for the wire.
    pub(super) released: bool,
    /// Nothing more comes from the peer.
    pub(super) input_closed: bool,
    /// Nothing more may be sent.
    pub(super) output_closed: bool,
    /// The request was taken whole, by a process that ends with its client, and is not answered yet.
    pub(super) polled: bool,
}

/// Further truth values of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits(u16);

impl Bits {
    /// It is of kind XMPP.
    pub(super) const MESSAGES: Self = Self(1);
    /// Its first message was handed out.
    pub(super) const BEGUN: Self = Self(2);
    /// The client has logged in.
    pub(super) const AUTHENTICATED: Self = Self(4);
    /// The client is slowed down.
    pub(super) const SHAPED: Self = Self(8);
    /// A large message was announced and not taken yet.
    pub(super) const LARGE: Self = Self(16);
    /// What comes is dropped.
    pub(super) const DEAF: Self = Self(32);
    /// The client's address is one of IPv4.
    pub(super) const IPV4: Self = Self(64);
    /// Somebody who uses the connection has been told that it is closed.
    pub(super) const TOLD: Self = Self(128);
    /// Its owner has asked for a batch.
    pub(super) const ASKED: Self = Self(256);
    /// The client's next request waits for the answer to this one.
    pub(super) const NEXT_WAITS: Self = Self(1024);
    /// Its owner has nothing to do with it any more, and is there only to be told if its answer is lost.
    pub(super) const ANSWERED: Self = Self(2048);
    /// The client came by TLS.
    pub(super) const TLS: Self = Self(512);

    pub(super) const fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    pub(super) fn set(&mut self, bit: Self, value: bool) {
        self.0 = if value { self.0 | bit.0 } else { self.0 & !bit.0 };
    }
}

impl<P: Copy, C> Slot<P, C> {
    pub(super) fn new(generation: NonZeroU64, link: u32, id: u64, client: SocketAddr, now: u32) -> Self {
        let mut bits = Bits::default();
        let ip = match client.ip() {
            IpAddr::V4(ip) => {
                bits.set(Bits::IPV4, true);
                ip.to_ipv6_mapped().octets()
            }
            IpAddr::V6(ip) => ip.octets(),
        };
        Self {
            generation,
            id,
            queues: None,
            owner: None,
            owned_before: NOWHERE,
            owned_after: NOWHERE,
            ip,
            link,
            send_credit: 0,
            received: 0,
            last_activity: now,
            port: client.port(),
            local: u8::MAX,
            packet: Packet::Raw,
            flags: Flags::default(),
            bits,
            activity: Activity::default(),
            wire: Wire::Open,
        }
    }

    pub(super) fn client(&self) -> SocketAddr {
        let ip = Ipv6Addr::from(self.ip);
        let ip = match ip.to_ipv4_mapped() {
            Some(v4) if self.bits.has(Bits::IPV4) => IpAddr::V4(v4),
            _ => IpAddr::V6(ip),
        };
        SocketAddr::new(ip, self.port)
    }

    pub(super) fn is(&self, handle: &Handle) -> bool {
        self.generation.get() == handle.generation && self.id == handle.id && self.link == handle.link
    }
}

/// A waiting reader or sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter<P> {
    pub(super) pid: P,
    /// Identifies the wait; `None` for a reader that is answered in the original's plain form.
    pub(super) token: Option<u64>,
    /// For a reader in raw mode: so many bytes, 0 for all there is.
    pub(super) length: usize,
    /// A sender that was told of room and may now send before all others.
    pub(super) turn: bool,
}

/// When data is sent to the owner by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// Never: it is asked for.
    Passive,
    /// One message, then passive.
    Once,
    /// Always.
    Always,
    /// So many messages, then passive with a notice.
    Count(i16),
}

/// What a connection has only while something is going on.
#[derive(Debug)]
pub(super) struct Queues<P, C> {
    pub(super) input: Input<C>,
    pub(super) readers: VecDeque<Waiter<P>>,
    pub(super) senders: VecDeque<Waiter<P>>,
    pub(super) output: Output,
    pub(super) active: Active,
    pub(super) packet: Packet,
    pub(super) framing: Framing,
    /// In the packet modes: the request line was handed out, fields follow.
    pub(super) in_head: bool,
    /// In the packet modes: so many bytes of the next line or field were searched for its end.
    pub(super) scanned: usize,
    /// In the packet modes of a connection opened from Erlang: the body that follows the head.
    pub(super) body: Option<u64>,
    pub(super) body_length: Option<u64>,
    pub(super) grant: u32,
    pub(super) ready: Option<ReadyMode>,
    /// Bytes of the last batch of messages, of a client that is slowed down.
    pub(super) unpaid: u32,
    /// The connection waits in its link's queue of ready connections (or its opener was told of output).
    pub(super) queued: bool,
}

impl<P, C> Queues<P, C> {
    pub(super) fn new(framing: Framing, packet: Packet) -> Self {
        Self {
            input: Input::default(),
            readers: VecDeque::new(),
            senders: VecDeque::new(),
            output: Output::default(),
            active: Active::Passive,
            packet,
            framing,
            in_head: false,
            scanned: 0,
            body: None,
            body_length: None,
            grant: 0,
            ready: None,
            unpaid: 0,
            queued: false,
        }
    }
}

impl<P, C: Chunk> Queues<P, C> {
    /// Whether there is nothing in them that their connection would miss.
    pub(super) fn is_idle(&self, at_rest: Framing) -> bool {
        self.framing == at_rest
            && self.active == Active::Passive
            && !self.in_head
            && self.body.is_none()
            && self.body_length.is_none()
            && self.input.len() == 0
            && self.output.len() == 0
            && self.readers.is_empty()
            && self.senders.is_empty()
            && self.grant == 0
            && self.ready.is_none()
            && self.unpaid == 0
            && !self.queued
    }

    /// Makes idle ones as good as new for another connection.
    pub(super) fn renew(&mut self, framing: Framing, packet: Packet) {
        self.framing = framing;
        self.packet = packet;
        self.scanned = 0;
    }

    /// Idle ones that hold no memory but their own.
    pub(super) fn is_bare(&self) -> bool {
        self.readers.capacity() == 0 && self.senders.capacity() == 0
    }
}

/// Bytes on their way out. Owns no heap memory when empty.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    offset: usize,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.offset
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.offset > 0 {
            self.bytes.drain(..self.offset);
            self.offset = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn first(&self, count: usize) -> &[u8] {
        &self.bytes[self.offset..self.offset + count]
    }

    pub(super) fn skip(&mut self, count: usize) {
        self.offset += count;
        if self.offset == self.bytes.len() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_small() {
        let size = size_of::<Option<Slot<NonZeroU64, Vec<u8>>>>();
        assert!(size <= 88, "a slot takes {size} bytes");
    }
}
