//! The TLS clients' side of the event loop: handshakes, a few in each turn, and records before and behind the state
//! machines.

use std::io::{self, Read};
use std::net::Shutdown;

use megaphone_core::client::{Client, Refusal, Timer};
use megaphone_core::http::response;
use megaphone_core::limits;
use tracing::debug;

use super::Server;
use crate::slab::{Bits, Slot};

/// What nginx says as well.
const NOT_TLS: &str = "plain HTTP was sent to a port for https";

impl Server {
    /// Begins the handshake of a client that was accepted just now. The oldest one of too many makes room for it, which
    /// has had its time.
    pub(super) fn begin_handshake(&mut self, index: u32) {
        while self.tls.handshakes() >= self.config.handshakes() {
            let Some(oldest) = self.tls.oldest().and_then(|id| self.slab.find(id)) else { break };
            self.fail_handshake(oldest, "dropped as the oldest of too many");
        }
        let Some(slot) = self.slab.at(index) else { return };
        let started = self.tls.start(index, slot.id(index), &self.config, self.now);
        slot.bits.set(Bits::HANDSHAKE, true);
        if let Err(error) = started {
            self.fail_handshake(index, &error.to_string());
        }
    }

    /// Goes on with some handshakes for which bytes have come, one read each.
    pub(super) fn continue_handshakes(&mut self) {
        for _ in 0..limits::HANDSHAKES_PER_TURN {
            let Some(id) = self.tls.queue.pop_front() else { return };
            if let Some(index) = self.slab.find(id) {
                self.continue_handshake(index);
            }
        }
    }

    /// Drops the clients whose handshake takes too long.
    pub(super) fn expire_handshakes(&mut self) {
        while let Some(index) = self.tls.expired(self.now).and_then(|id| self.slab.find(id)) {
            self.fail_handshake(index, "timeout");
        }
    }

    fn continue_handshake(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index) else { return };
        slot.bits.set(Bits::QUEUED, false);
        let Some(count) = self.read_records(index) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        self.handshake(index, &mut scratch[..count]);
        self.scratch = scratch;
    }

    /// Goes on with a handshake by these bytes.
    pub(super) fn handshake(&mut self, index: u32, bytes: &mut [u8]) {
        let Some(session) = self.tls.get(index) else { return };
        match session.drops() {
            Some(false) => {}
            Some(true) => return self.schedule(index),
            None => return self.free(index),
        }
        if session.is_fresh() && bytes.first().is_some_and(u8::is_ascii_uppercase) {
            let mut answer = Vec::new();
            response::write(400, NOT_TLS, false, &mut answer);
            return self.refuse_handshake(index, NOT_TLS, &answer);
        }
        if let Err(why) = self.receive(index, bytes) {
            return self.refuse_handshake(index, &why, &[]);
        }
        if self.tls.get(index).is_some_and(|session| session.is_handshaking()) {
            return self.schedule(index);
        }
        self.tls.established(index);
        if let Some(slot) = self.slab.at(index) {
            slot.bits.set(Bits::HANDSHAKE, false);
            // The state machine's limits begin here.
            slot.timer = Timer::None;
        }
        if let Some(session) = self.tls.get(index) {
            debug!("TLS: {}", session.describe());
        }
        self.deliver(index);
    }

    /// Reads a client that has something, or hands on what was decrypted before. Its state machine has room.
    pub(super) fn read_secure(&mut self, index: u32) {
        let Some(session) = self.tls.get(index) else { return };
        if session.has_plain() {
            return self.deliver(index);
        }
        if session.is_closed_by_peer() {
            return self.with(index, false, Client::eof);
        }
        let Some(count) = self.read_records(index) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.receive(index, &mut scratch[..count]);
        self.scratch = scratch;
        match result {
            Ok(()) => self.deliver(index),
            Err(why) => {
                debug!("TLS: {}", why.escape_debug());
                self.with(index, false, Client::gone);
            }
        }
    }

    /// Reads at most a record from the socket; `None` if there is nothing to be worked off.
    fn read_records(&mut self, index: u32) -> Option<usize> {
        let slot = self.slab.at(index)?;
        let buffer = &mut self.scratch[..limits::TLS_RECORD];
        match slot.stream.as_mut()?.read(buffer) {
            // A client that leaves without close_notify is taken for gone all the same.
            Ok(0) => self.with(index, false, Client::eof),
            Ok(count) => {
                self.traffic.bytes_in += count as u64;
                // As in `read_client`.
                let more = count == buffer.len() || slot.bits.has(Bits::ENDED);
                slot.bits.set(Bits::READABLE, more);
                return Some(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.bits.set(Bits::READABLE, false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.schedule(index),
            Err(_) => self.with(index, false, Client::gone),
        }
        None
    }

    /// Gives bytes of the socket to the session.
    fn receive(&mut self, index: u32, bytes: &mut [u8]) -> Result<(), String> {
        let crowded = self.held >= self.config.max_held;
        let stream = self.slab.at(index).and_then(|slot| slot.stream.as_mut());
        let (Some(stream), Some(secure)) = (stream, self.tls.secure(index)) else { return Ok(()) };
        let before = secure.session.heap();
        let result = secure.session.receive(bytes, stream, secure.scratch);
        let unfinished = secure.session.unfinished();
        self.held = self.held.saturating_sub(before) + secure.session.heap();
        result.map_err(|error| error.to_string())?;
        if crowded && unfinished > 0 {
            return Err("no memory for an unfinished record".to_owned());
        }
        Ok(())
    }

    /// Hands decrypted bytes to the state machine, as many as it has room for; the session keeps the rest.
    fn deliver(&mut self, index: u32) {
        // Some come behind a handshake, which waits for nothing.
        let waits = self.waits_for_link(index);
        let Some(slot) = self.slab.at(index) else { return };
        let room = if waits { 0 } else { slot.client.room() };
        let Some(secure) = self.tls.secure(index) else { return };
        let mut plain = std::mem::take(&mut secure.scratch.plain);
        let before = secure.session.heap();
        if secure.session.has_plain() {
            secure.session.take_plain(room, &mut plain);
        } else {
            secure.session.keep_plain(&plain[room.min(plain.len())..]);
            plain.truncate(room);
        }
        if secure.session.is_closed_by_peer() {
            slot.bits.set(Bits::READABLE | Bits::ENDED, true);
        }
        self.held = self.held.saturating_sub(before) + secure.session.heap();
        slot.bits.note(secure.session);
        if plain.is_empty() {
            self.with(index, false, |_, _| {});
        } else {
            self.with(index, true, |client, io| client.input(&plain, io));
        }
        plain.clear();
        self.tls.scratch.plain = plain;
    }

    /// Writes records that wait.
    pub(super) fn flush_session(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index) else { return };
        let (Some(stream), Some(session)) = (slot.stream.as_mut(), self.tls.get(index)) else { return };
        let (pending, before) = (session.pending(), session.heap());
        if pending == 0 {
            return;
        }
        let result = session.flush(stream);
        if session.is_ending() && session.pending() == 0 {
            // A failure is told by an event.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let progress = session.pending() < pending;
        self.held = self.held.saturating_sub(before) + session.heap();
        slot.bits.note(session);
        match result {
            Err(_) => self.with(index, false, Client::gone),
            Ok(_) if progress => self.with(index, true, |_, _| {}),
            Ok(_) => {}
        }
    }

    /// Bytes of records that a client has not taken.
    pub(super) fn records(&mut self, index: u32) -> usize {
        let is_tls = self.slab.at(index).is_some_and(|slot| slot.bits.has(Bits::TLS));
        if is_tls { self.tls.get(index).map_or(0, |session| session.pending()) } else { 0 }
    }

    /// Whether the rest of an answer that the state machine is done with waits in the session: closing would lose it.
    pub(super) fn is_written_by_session(&mut self, index: u32) -> bool {
        let is_idle = |slot: &mut Slot| !slot.bits.has(Bits::HANDSHAKE) && slot.client.timer() == Timer::Idle;
        self.records(index) > 0 && self.slab.at(index).is_some_and(is_idle)
    }

    /// Tells the client that there will be no session, and waits for its end.
    fn refuse_handshake(&mut self, index: u32, why: &str, answer: &[u8]) {
        self.count_failure(index, why);
        let stream = self.slab.at(index).and_then(|slot| slot.stream.as_mut());
        let (Some(stream), Some(session)) = (stream, self.tls.get(index)) else { return };
        match session.refuse(answer, stream) {
            Ok(done) => {
                if done {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                self.schedule(index);
            }
            Err(_) => self.free(index),
        }
    }

    fn fail_handshake(&mut self, index: u32, why: &str) {
        self.count_failure(index, why);
        self.free(index);
    }

    fn count_failure(&mut self, index: u32, why: &str) {
        if self.tls.get(index).is_some_and(|session| session.is_refused()) {
            return; // counted before
        }
        let peer = self.slab.at(index).and_then(|slot| slot.stream.as_ref()?.peer_addr().ok());
        debug!("TLS handshake of {peer:?} failed: {}", why.escape_debug());
        self.counters.refusals.count(Refusal::TlsHandshake);
        self.refusal_log.refused(Refusal::TlsHandshake, None, self.now, || peer);
    }

    /// Takes the session of a client out that is about to be taken out.
    pub(super) fn end_session(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index).filter(|slot| slot.bits.has(Bits::TLS)) else { return };
        if let (Some(secure), Some(stream)) = (self.tls.secure(index), slot.stream.as_mut())
            && secure.session.pending() == 0
        {
            // As a courtesy; what the socket does not take is lost.
            let _ = secure.session.close(stream, secure.scratch);
        }
        let heap = self.tls.remove(index).map_or(0, |session| session.heap());
        self.held = self.held.saturating_sub(heap);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::Listeners;
    use crate::config::{Config, Server as Node};
    use crate::metrics::Shared;

    /// Of n-1 and n handshakes that can go on none is left to the next turn, of n+1 one is.
    #[test]
    fn a_turn_continues_so_many_handshakes() {
        let (_commands, reader) = UnixStream::pair().unwrap();
        let config = Config::new(Node::Tcp("127.0.0.1:1".to_owned()));
        let shared = Arc::new(Shared::new(1, 1));
        let mut server = Server::new(Listeners::default(), config, reader, shared).unwrap();
        let most = limits::HANDSHAKES_PER_TURN;
        for (waiting, left) in [(most - 1, 0), (most, 0), (most + 1, 1)] {
            // Of clients that have gone: each takes its place in the turn all the same.
            server.tls.queue.extend((0..waiting as u64).map(|id| u64::MAX - id));
            server.continue_handshakes();
            assert_eq!(server.tls.queue.len(), left, "{waiting}");
            server.tls.queue.clear();
        }
    }
}
