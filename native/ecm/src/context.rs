//! What a client's state machine sees of the event loop.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};

use megaphone_core::client::Io;
use megaphone_core::link::Frame;
use mio::net::TcpStream;

use crate::link::Link;
use crate::metrics::Traffic;
use crate::server::figures::Told;

/// What happened since the start, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) opened: u64,
    /// Requests answered here with 4xx, save 408.
    malformed: u64,
    /// Requests answered here with 408.
    timed_out: u64,
    /// Requests answered here with 5xx: no link, no answer, no memory, not supported.
    unserved: u64,
}

impl Counters {
    /// The reasons that [`Counters::by_reason`] counts by, in its order.
    pub(crate) const REASONS: [&'static str; 3] = ["malformed", "timeout", "unserved"];

    /// How many were refused, for each reason.
    pub(crate) fn by_reason(&self) -> [u64; Self::REASONS.len()] {
        [self.malformed, self.timed_out, self.unserved]
    }

    pub(crate) fn refused(&self) -> u64 {
        self.malformed + self.timed_out + self.unserved
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in all {} clients, {} virtual connections; answered here: {} malformed requests, {} timeouts, {} unserved",
            self.accepted, self.opened, self.malformed, self.timed_out, self.unserved
        )
    }
}

/// The world of one client, for the length of one call.
pub(crate) struct Context<'a> {
    pub(crate) id: u64,
    pub(crate) stream: &'a TcpStream,
    pub(crate) link: &'a mut Link,
    /// Ids whose close we sent and whose close from the node is awaited.
    pub(crate) closing: &'a mut HashSet<u64>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) traffic: &'a mut Traffic,
    pub(crate) told: Told,
    /// The node's close is being handled: ours answers it.
    pub(crate) answers_close: bool,
    pub(crate) crowded: bool,
    pub(crate) draining: bool,
    /// The client's socket failed.
    pub(crate) failed: bool,
}

impl Io for Context<'_> {
    fn id(&self) -> u64 {
        self.id
    }

    fn window(&self) -> Option<u32> {
        self.link.window()
    }

    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        // Asked for at the first request, so that idle connections need not store them.
        Some((self.stream.peer_addr().ok()?, self.stream.local_addr().ok()?))
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Close { id, .. } if !self.answers_close => {
                self.closing.insert(*id);
            }
            Frame::Open { .. } => self.counters.opened += 1,
            _ => {}
        }
        self.link.send(frame);
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        if self.failed {
            return 0;
        }
        loop {
            match (&mut &*self.stream).write(bytes) {
                Ok(count) => {
                    self.traffic.bytes_out += count as u64;
                    return count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                Err(_) => {
                    self.failed = true;
                    return 0;
                }
            }
        }
    }

    fn shutdown_write(&mut self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            self.failed = true;
        }
    }

    fn crowded(&self) -> bool {
        self.crowded
    }

    fn requested(&mut self) {
        self.traffic.requests += 1;
        self.told.requested = true;
    }

    fn answered(&mut self) {
        self.told.answered = true;
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn refused(&mut self, status: u16) {
        match status {
            408 => self.counters.timed_out += 1,
            502 | 503 => self.counters.unserved += 1,
            // 501 and 505 are the client's doing as well: what it asks for is not spoken here.
            _ => self.counters.malformed += 1,
        }
    }
}
