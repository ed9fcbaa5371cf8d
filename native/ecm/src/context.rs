//! What a client's state machine sees of the event loop.

use std::collections::HashSet;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};

use megaphone_core::client::Io;
use megaphone_core::link::Frame;
use mio::net::TcpStream;

use crate::link::Link;
use crate::tls::Secure;

/// What happened since the start, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    opened: u64,
    /// Requests answered here with 4xx, save 408.
    malformed: u64,
    /// Requests answered here with 408.
    timed_out: u64,
    /// Requests answered here with 403: without TLS, which is required.
    insecure: u64,
    pub(crate) handshakes_failed: u64,
    /// Requests answered here with 5xx: no link, no answer, no memory, not supported.
    unserved: u64,
}

impl Counters {
    pub(crate) fn refused(&self) -> u64 {
        self.malformed + self.timed_out + self.unserved + self.insecure + self.handshakes_failed
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in all {} clients, {} virtual connections; answered here: {} malformed requests, {} timeouts, {} unserved, \
             {} without the TLS that is required; {} TLS handshakes failed",
            self.accepted,
            self.opened,
            self.malformed,
            self.timed_out,
            self.unserved,
            self.insecure,
            self.handshakes_failed
        )
    }
}

/// The world of one client, for the length of one call.
pub(crate) struct Context<'a> {
    pub(crate) id: u64,
    pub(crate) stream: &'a TcpStream,
    /// For a client that came by TLS.
    pub(crate) secure: Option<Secure<'a>>,
    pub(crate) require_tls: bool,
    pub(crate) link: &'a mut Link,
    /// Ids whose close we sent and whose close from the node is awaited.
    pub(crate) closing: &'a mut HashSet<u64>,
    pub(crate) counters: &'a mut Counters,
    /// The node's close is being handled: ours answers it.
    pub(crate) answers_close: bool,
    pub(crate) crowded: bool,
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

    fn is_tls(&self) -> bool {
        self.secure.is_some()
    }

    fn lacks_tls(&self) -> bool {
        // A proxy on this machine may have ended TLS.
        let is_local = || self.stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        self.require_tls && self.secure.is_none() && !is_local()
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
        let mut stream = self.stream;
        loop {
            let result = match &mut self.secure {
                Some(secure) => secure.session.write(bytes, &mut stream, secure.scratch),
                None => stream.write(bytes),
            };
            match result {
                Ok(count) => return count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
                Err(_) => {
                    self.failed = true;
                    return 0;
                }
            }
        }
    }

    fn shutdown_write(&mut self) {
        let written = match &mut self.secure {
            Some(secure) => secure.session.close(&mut self.stream, secure.scratch),
            None => Ok(true),
        };
        let result = written.and_then(|all| if all { self.stream.shutdown(Shutdown::Write) } else { Ok(()) });
        if result.is_err() {
            self.failed = true;
        }
    }

    fn crowded(&self) -> bool {
        self.crowded
    }

    fn refused(&mut self, status: u16) {
        match status {
            403 => self.counters.insecure += 1,
            408 => self.counters.timed_out += 1,
            502 | 503 => self.counters.unserved += 1,
            // 501 and 505 are the client's doing as well: what it asks for is not spoken here.
            _ => self.counters.malformed += 1,
        }
    }
}
