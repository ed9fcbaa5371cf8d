//! The door: how fast clients are accepted, who is let in, and the PROXY header that some bring.

use std::net::SocketAddr;
use std::time::Duration;

use megaphone_core::client::{Client, Refusal};
use megaphone_core::limits;
use megaphone_core::peer::proxy::{ProxyError, Source};
use tracing::{debug, warn};

use super::{REPORT, Server, figures};
use crate::slab::Bits;

impl Server {
    /// Whether the next client may be accepted; if not, no client is for a while: they wait in the kernel.
    pub(super) fn may_accept(&mut self) -> bool {
        let wait = self.guard.wait(self.millis());
        // Who waits when the listening socket is about to be closed would be refused.
        if wait == 0 || self.life.is_ending() {
            return true;
        }
        self.accept_after = Some(self.now + Duration::from_millis(u64::from(wait)));
        if self.pace_complaint.say(self.now, REPORT).is_some() {
            let most = self.guard.settings.new_per_second;
            warn!("{most} new clients in a second (max_new_clients_per_second): further ones wait");
        }
        false
    }

    /// Judges a client that was just put into a slot.
    pub(super) fn admit(&mut self, index: u32, peer: SocketAddr) {
        let (ip, now) = (peer.ip().to_canonical(), self.millis());
        let is_trusted = self.guard.trusts(ip);
        let expects = self.guard.settings.proxy_protocol;
        if expects && !is_trusted {
            return self.shut_out(index, Refusal::ProxyUntrusted, peer);
        }
        if let Some(slot) = self.slab.at(index) {
            slot.bits.set(Bits::TRUSTED, is_trusted);
            slot.bits.set(Bits::PREFACE, expects);
        }
        if !expects && let Err(refusal) = self.guard.enter(index, ip, true, now) {
            return self.turn_away(index, refusal, peer);
        }
        if !expects && self.is_secure(index) {
            return self.begin_handshake(index);
        }
        self.with(index, false, |_, _| {});
    }

    fn is_secure(&mut self, index: u32) -> bool {
        self.slab.at(index).is_some_and(|slot| slot.bits.has(Bits::TLS))
    }

    /// Takes what a proxy sent before the first request.
    pub(super) fn preface(&mut self, index: u32, bytes: &[u8]) {
        match self.guard.header(index, bytes) {
            Ok((_, None)) => self.schedule(index),
            Ok((used, Some(source))) => {
                if !self.introduce(index, source) {
                    return;
                }
                if self.is_secure(index) {
                    self.begin_handshake(index);
                    self.handshake(index, &mut bytes[used..].to_vec());
                } else {
                    self.with(index, true, |client, io| client.input(&bytes[used..], io));
                }
            }
            Err(error) => self.bad_preface(index, error),
        }
    }

    /// A proxy has said for whom it connects; answers whether that client is let in.
    fn introduce(&mut self, index: u32, source: Source) -> bool {
        let now = self.millis();
        let Some(slot) = self.slab.at(index) else { return false };
        slot.bits.set(Bits::PREFACE, false);
        let Source::Client { address: client, is_tls } = source else { return true };
        slot.bits.set(Bits::TRUSTED, self.guard.trusts(client.ip()));
        self.guard.introduce(index, client, is_tls);
        if let Err(refusal) = self.guard.enter(index, client.ip(), true, now) {
            self.turn_away(index, refusal, client);
            return false;
        }
        true
    }

    fn bad_preface(&mut self, index: u32, error: ProxyError) {
        if let Some(peer) = self.peer(index) {
            debug!("{peer}: {error}");
            self.shut_out(index, Refusal::ProxyMalformed, peer);
        } else {
            self.with(index, false, Client::gone);
        }
    }

    /// The PROXY header is not complete in time.
    pub(super) fn late_preface(&mut self, index: u32) {
        match self.peer(index) {
            Some(peer) => self.shut_out(index, Refusal::ProxyTimeout, peer),
            None => self.with(index, false, Client::gone),
        }
    }

    fn peer(&mut self, index: u32) -> Option<SocketAddr> {
        self.slab.at(index)?.stream.as_ref()?.peer_addr().ok()
    }

    /// Closes without an answer: what is at the other end may not speak HTTP.
    fn shut_out(&mut self, index: u32, refusal: Refusal, peer: SocketAddr) {
        self.counters.refusals.count(refusal);
        self.refusal_log.refused(refusal, None, self.now, || Some(peer));
        self.free(index);
    }

    /// Answers 429, as long as not too many of those that were refused wait for their answer to be read.
    fn turn_away(&mut self, index: u32, refusal: Refusal, peer: SocketAddr) {
        // Before the handshake nothing can be said to a client that speaks TLS.
        if self.guard.turned_away >= limits::MAX_TURNED_AWAY || self.is_secure(index) {
            return self.shut_out(index, refusal, peer);
        }
        self.guard.turned_away += 1;
        if let Some(slot) = self.slab.at(index) {
            slot.bits.set(Bits::TURNED, true);
        }
        self.with(index, false, |client, io| client.turn_away(refusal, io));
    }

    /// Takes a client out of its slot, with all that is known of it.
    pub(super) fn free(&mut self, index: u32) {
        if self.slab.at(index).is_some_and(|slot| slot.bits.has(Bits::TURNED)) {
            self.guard.turned_away -= 1; // it was counted when the bit was set
        }
        self.end_session(index);
        self.guard.leave(index, self.millis());
        // One that its state machine has closed is counted as gone already.
        if let Some(state) = self.slab.at(index).and_then(|slot| figures::state(slot)) {
            self.traffic.moved(state, None);
        }
        self.slab.remove(index);
    }
}
