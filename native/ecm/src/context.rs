//! What a client's state machine sees of the event loop.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use megaphone_core::client::{Bounds, Io, Origin, Refusal};
use megaphone_core::http::Head;
use megaphone_core::link::Frame;
use mio::net::TcpStream;

use crate::guard::Guard;
use crate::link::Link;
use crate::metrics::Traffic;
use crate::refusals::{RefusalLog, Refusals};
use crate::server::figures::Told;
use crate::slab;
use crate::tls::Secure;
use crate::websocket::WebSockets;

/// What happened since the start, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    pub(crate) opened: u64,
    pub(crate) refusals: Refusals,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in all {} clients, {} virtual connections; refused: {}",
            self.accepted, self.opened, self.refusals
        )
    }
}

/// The world of one client, for the length of one call.
pub(crate) struct Context<'a> {
    pub(crate) id: u64,
    pub(crate) index: u32,
    pub(crate) stream: &'a TcpStream,
    /// For a client that came by TLS.
    pub(crate) secure: Option<Secure<'a>>,
    pub(crate) require_tls: bool,
    pub(crate) websocket: &'a WebSockets,
    /// The link of its virtual connection, or the one that a new one would go to; `None`: no link is up.
    pub(crate) link: Option<&'a mut Link>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) guard: &'a mut Guard,
    pub(crate) refusal_log: &'a mut RefusalLog,
    pub(crate) now: Instant,
    /// As `now`, in milliseconds.
    pub(crate) millis: u32,
    /// What the client says of others is believed.
    pub(crate) is_trusted: bool,
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
        self.link.as_ref()?.window()
    }

    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        // Asked for at the first request, so that idle connections need not store them.
        let client = match self.guard.client(self.index) {
            Some(client) => client,
            None => canonical(self.stream.peer_addr().ok()?),
        };
        Some((client, canonical(self.stream.local_addr().ok()?)))
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        let Some(link) = &mut self.link else { return };
        match frame {
            Frame::Close { id, .. } if !self.answers_close => {
                link.closing.insert(*id);
            }
            Frame::Open { .. } => self.counters.opened += 1,
            _ => {}
        }
        link.send(frame);
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
                Ok(count) => {
                    self.traffic.bytes_out += count as u64;
                    return count;
                }
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

    fn refused(&mut self, refusal: Refusal, status: u16) {
        self.counters.refusals.count(refusal);
        let (guard, stream, index) = (&*self.guard, self.stream, self.index);
        self.refusal_log.refused(refusal, Some(status), self.now, || {
            guard.client(index).or_else(|| stream.peer_addr().ok().map(canonical))
        });
    }

    fn bounds(&self) -> Bounds {
        self.guard.settings.bounds
    }

    fn origin(&mut self, bytes: &[u8], head: &Head) -> Origin {
        if !self.is_trusted {
            return Origin::Same;
        }
        self.guard.origin(self.index, bytes, head, self.millis)
    }

    fn renew(&mut self) {
        self.id = slab::next(self.id);
        // One that the node has not answered the close of yet stays taken.
        while self.link.as_ref().is_some_and(|link| link.closing.contains(&self.id)) {
            self.id = slab::next(self.id);
        }
    }

    fn ends_websocket(&self, path: &[u8]) -> bool {
        self.serves_xmpp() && self.websocket.has_path(path)
    }

    fn serves_xmpp(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.serves_xmpp())
    }

    fn pipelines(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.pipelines())
    }

    fn allows_origin(&self, origin: &[u8]) -> bool {
        self.websocket.allows(origin)
    }

    fn message(&mut self) {
        self.traffic.messages += 1;
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

    fn is_tls(&self) -> bool {
        self.secure.is_some() || self.guard.is_tls(self.index)
    }

    fn lacks_tls(&self) -> bool {
        // A proxy on this machine may have ended TLS.
        let is_local = || self.stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        self.require_tls && !self.is_tls() && !is_local()
    }
}

/// An address of IPv6 that carries one of IPv4 is that one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
