//! TLS for clients: a layer between a client's socket and its state machine, which sees decrypted bytes and nothing of
//! TLS.
//!
//! rustls does the protocol, in its unbuffered form: it keeps no buffers of its own, so an idle session has none. A
//! session is found by the index of the client's slot; clients without TLS pay nothing for it.
//!
//! | module | what it is |
//! | --- | --- |
//! | `certificates` | certificates and keys, by name |
//! | `compact` | keys that take little memory |
//! | `output` | bytes on their way out |
//! | `session` | one connection's records |
//! | `settings` | what an operator may choose |
//! | `validity` | when certificates expire |
//!
//! How the event loop uses it: `server::secure`.

mod certificates;
mod compact;
mod output;
mod session;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod validity;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use megaphone_core::limits;
use rustls::Error;
use tracing::{info, warn};

use crate::config::Config;
pub use certificates::{Certificates, Pair};
pub(crate) use session::{Scratch, Session};
pub use settings::Section;

/// What the system's clock says, in seconds since 1970.
#[must_use]
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Sessions of one chunk of the table: 8 kB of pointers.
const CHUNK: usize = 1_024;

type Chunk = Box<[Option<Box<Session>>]>;

/// A session, and the buffers that all use in turn.
pub(crate) struct Secure<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) scratch: &'a mut Scratch,
}

/// One handshake that is not complete.
#[derive(Clone, Copy)]
struct Handshake {
    client: u64,
    /// Not to be dropped for another one before.
    grace: Instant,
    deadline: Instant,
}

/// All sessions, by the index of the client's slot.
#[derive(Default)]
pub(crate) struct Tls {
    certificates: Option<Certificates>,
    /// When it is looked again which of them expire.
    look_at: Option<Instant>,
    chunks: Vec<Option<Chunk>>,
    /// By the order in which they began, which is that of their deadlines.
    handshakes: BTreeMap<u64, Handshake>,
    turns: u64,
    /// Clients whose handshake has something to read, in turn.
    pub(crate) queue: VecDeque<u64>,
    pub(crate) scratch: Scratch,
}

impl Tls {
    pub(crate) fn new(certificates: Option<Certificates>, now: Instant) -> Self {
        let mut tls = Self { certificates, ..Self::default() };
        tls.look_again(now);
        tls
    }

    /// When [`Tls::look`] has something to do.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Warns of certificates that expire, when it is time to.
    pub(crate) fn look(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| now >= at) {
            self.look_again(now);
        }
    }

    fn look_again(&mut self, now: Instant) {
        let Some(certificates) = &self.certificates else { return };
        certificates.warn_of_expiry(unix_time());
        self.look_at = Some(now + Duration::from_secs(limits::CERTIFICATE_LOOK));
    }

    /// When the first certificate expires, in seconds since 1970.
    pub(crate) fn expiry(&self) -> Option<u64> {
        self.certificates.as_ref()?.expiry()
    }

    /// Whether there are certificates, so that clients may come.
    pub(crate) fn has_certificates(&self) -> bool {
        self.certificates.is_some()
    }

    /// Reads the certificates again; says how that went in the log.
    pub(crate) fn reload(&mut self, now: Instant) {
        let Some(certificates) = &mut self.certificates else {
            return info!("no certificates are configured that could be read again");
        };
        match certificates.reload() {
            Ok(()) => info!("certificates were read again: {}", certificates.len()),
            Err(why) => warn!("certificates were not read again, the old ones stay: {why}"),
        }
        self.look_again(now);
    }

    /// Begins the session of a new client.
    ///
    /// # Errors
    /// There are no certificates, or no random numbers.
    pub(crate) fn start(
        &mut self,
        index: u32,
        client: u64,
        config: &Config,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(certificates) = &self.certificates else { return Err(Error::NoCertificatesPresented) };
        let mut session = Box::new(Session::new(certificates.config())?);
        self.turns += 1;
        session.turn = self.turns;
        self.handshakes.insert(
            self.turns,
            Handshake {
                client,
                grace: now + config.handshake_grace,
                deadline: now + config.handshake_timeout,
            },
        );
        *self.place(index) = Some(session);
        Ok(())
    }

    /// The client of the handshake that began first.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.handshakes.values().next().map(|handshake| handshake.client)
    }

    /// The client of a handshake that has taken too long.
    pub(crate) fn expired(&self, now: Instant) -> Option<u64> {
        self.handshakes
            .values()
            .next()
            .filter(|handshake| handshake.deadline <= now)
            .map(|handshake| handshake.client)
    }

    /// How many handshakes are not complete.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Whether a client may be accepted: not while many wait for the processor, or while there are `most` of which none
    /// may be dropped yet.
    pub(crate) fn has_room(&self, most: usize, now: Instant) -> bool {
        self.queue.len() < limits::HANDSHAKE_BACKLOG
            && (self.handshakes.len() < most
                || self.handshakes.values().next().is_none_or(|oldest| oldest.grace <= now))
    }

    /// The handshake is over.
    pub(crate) fn established(&mut self, index: u32) {
        let turn = self.get(index).map_or(0, |session| std::mem::take(&mut session.turn));
        self.handshakes.remove(&turn);
    }

    /// Takes a session out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Box<Session>> {
        let session = self.place(index).take()?;
        self.handshakes.remove(&session.turn);
        Some(session)
    }

    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Session> {
        self.secure(index).map(|secure| secure.session)
    }

    pub(crate) fn secure(&mut self, index: u32) -> Option<Secure<'_>> {
        let chunk = self.chunks.get_mut(index as usize / CHUNK)?.as_mut()?;
        let session = chunk[index as usize % CHUNK].as_mut()?;
        Some(Secure { session, scratch: &mut self.scratch })
    }

    fn place(&mut self, index: u32) -> &mut Option<Box<Session>> {
        let chunk = index as usize / CHUNK;
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| (0..CHUNK).map(|_| None).collect());
        &mut chunk[index as usize % CHUNK]
    }
}
