//! The clients' side of the event loop: accepting, reading in turn, calling the state machines, time limits.

use std::io::{self, Read};
use std::time::Duration;

use megaphone_core::client::{Client, Io, Timer};
use megaphone_core::limits;
use mio::event::Event;
use mio::{Interest, Token};
use tracing::warn;

use super::figures::{self, Told};
use super::{ACCEPTS, Door, REPORT, SWEEPS, Server, TICK};
use crate::context::Context;
use crate::link::Link;
use crate::metrics::State;
use crate::slab::{self, Bits};
use crate::tls::Secure;

impl Server {
    pub(super) fn client_event(&mut self, id: u64, event: &Event) {
        let Some(index) = self.slab.find(id) else { return };
        let Some(slot) = self.slab.at(index) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            slot.bits.set(Bits::READABLE, true);
        }
        if event.is_read_closed() || event.is_error() {
            slot.bits.set(Bits::ENDED, true);
        }
        if slot.bits.has(Bits::TLS) && event.is_writable() {
            self.flush_session(index);
        }
        let Some(slot) = self.slab.at(index) else { return };
        let (pending, dead) = (slot.client.pending(), event.is_error() || event.is_write_closed());
        let left =
            slot.bits.has(Bits::ENDED) && slot.bits.has(Bits::QUEUED) && !slot.bits.has(Bits::HANDSHAKE);
        if dead || left && self.waits_for_link(index) {
            self.with(index, false, Client::gone);
        } else if pending > 0 && event.is_writable() {
            self.with(index, true, Client::writable);
        } else {
            self.schedule(index);
        }
    }

    /// Puts a client into the queue if there is something to read and room for it.
    pub(super) fn schedule(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index) else { return };
        if !slot.bits.has(Bits::READABLE | Bits::HELD) || slot.bits.has(Bits::QUEUED) {
            return;
        }
        if slot.bits.has(Bits::HANDSHAKE) {
            slot.bits.set(Bits::QUEUED, true);
            let id = slot.id(index);
            return self.tls.queue.push_back(id);
        }
        let blocked = slot.client.room() == 0 || slot.bits.has(Bits::FULL);
        // One that may not be read but has left: whatever it still sent before is of no use to an answer. A tunnel
        // and a body are read to their end first, as credit allows.
        if blocked && slot.bits.has(Bits::ENDED) && slot.client.waits_for_answer() {
            return self.with(index, false, Client::eof);
        }
        if !blocked {
            slot.bits.set(Bits::QUEUED, true);
            let id = slot.id(index);
            self.queue.push_back(id);
        }
    }

    /// Calls a client's state machine and does what follows from it. `progress`: a running time limit starts anew.
    pub(super) fn with(&mut self, index: u32, progress: bool, call: impl FnOnce(&mut Client, &mut dyn Io)) {
        self.call(index, progress, false, call);
    }

    pub(super) fn call(
        &mut self,
        index: u32,
        progress: bool,
        answers_close: bool,
        call: impl FnOnce(&mut Client, &mut dyn Io),
    ) {
        let crowded = self.held >= self.config.max_held;
        let (tick, millis, stamp) = (self.tick(), self.millis(), self.stamp());
        let Some(slot) = self.slab.at(index) else { return };
        let id = slot.id(index);
        let Some(stream) = &slot.stream else { return };
        let secure = if slot.bits.has(Bits::TLS) { self.tls.secure(index) } else { None };
        let before = slot.client.heap() + secure.as_ref().map_or(0, |secure| secure.session.heap());
        let was_open = slot.client.is_open();
        let place = if was_open { Some(slot.link) } else { self.links.best() };
        let state = figures::state(slot);
        let mut context = Context {
            id,
            index,
            stream,
            secure,
            require_tls: self.config.require_tls,
            websocket: &self.config.websocket,
            link: place.and_then(|place| self.links.get(place)),
            counters: &mut self.counters,
            guard: &mut self.guard,
            refusal_log: &mut self.refusal_log,
            now: self.now,
            millis,
            is_trusted: slot.bits.has(Bits::TRUSTED),
            traffic: &mut self.traffic,
            told: Told::default(),
            answers_close,
            crowded,
            draining: self.life.is_ending(),
            failed: false,
        };
        call(&mut slot.client, &mut context);
        if context.failed {
            slot.client.gone(&mut context);
        }
        if let (Some(link), true) = (&mut context.link, slot.client.is_open() != was_open) {
            link.connections =
                if was_open { link.connections.saturating_sub(1) } else { link.connections + 1 };
        }
        slot.link = place.unwrap_or(slot.link);
        let new_id = context.id;
        let told = context.told;
        let (mut heap, mut records) = (slot.client.heap(), 0);
        if let Some(Secure { session, .. }) = context.secure {
            slot.bits.note(session);
            heap += session.heap();
            records = session.pending();
        }
        self.held = self.held.saturating_sub(before) + heap;
        if let Some(state) = state {
            self.traffic.moved(state, figures::state(slot));
        }
        if let Some(span) = figures::waited(slot, told, stamp) {
            self.traffic.latency.observe(span);
        }
        if slot.client.is_closed() {
            return self.free(index);
        }
        let mut timer = if slot.bits.has(Bits::PREFACE) { Timer::Head } else { slot.client.timer() };
        if records > 0 {
            // The state machine has written all of it, but the client has not taken it.
            timer = Timer::Send;
        }
        if timer == Timer::None {
            slot.deadline = figures::waiting_since(slot, told, stamp);
            slot.timer = timer;
        } else if timer != slot.timer || (progress && timer.restarts()) {
            slot.timer = timer;
            slot.deadline = tick.saturating_add(self.config.ticks(timer));
        }
        if new_id != id {
            self.rename(index, new_id);
        }
        self.schedule(index);
    }

    /// The client is known by another id from now on. What the kernel has told under the old one and was not looked at
    /// yet it tells again, since the descriptor is registered anew.
    fn rename(&mut self, index: u32, id: u64) {
        let Some(slot) = self.slab.at(index) else { return };
        slot.rename(id);
        // The queue has it under the old id.
        slot.bits.set(Bits::QUEUED, false);
        let Some(stream) = &mut slot.stream else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().reregister(stream, Token(id as usize), interest).is_err() {
            self.with(index, false, Client::gone);
        }
    }

    pub(super) fn accept(&mut self) {
        if self.accept_after.is_some_and(|after| self.now >= after) {
            self.accept_after = None;
        }
        for index in 0..self.doors.len() {
            self.accept_at(index);
        }
    }

    fn accept_at(&mut self, index: usize) {
        for _ in 0..ACCEPTS {
            if self.accept_after.is_some() || !self.has_room() {
                return;
            }
            let may_accept = |door: &&mut Door| door.may_accept(&self.tls, &self.config, self.now);
            if self.doors.get_mut(index).filter(may_accept).is_none() || !self.may_accept() {
                return;
            }
            let Some(door) = self.doors.get_mut(index) else { return };
            match door.listener.accept() {
                Ok((stream, peer)) => {
                    let is_tls = door.is_tls;
                    self.guard.accepted(self.millis());
                    self.welcome(stream, peer, is_tls);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.acceptable = false,
                // The client left before it was accepted.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => self.pause_accept(&error),
            }
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.doors.is_empty() && !self.life.is_starting() && self.slab.len() < self.config.max_clients
    }

    /// Out of descriptors or memory: trying again at once would only burn the processor.
    pub(super) fn pause_accept(&mut self, error: &io::Error) {
        self.accept_after = Some(self.now + Duration::from_millis(u64::from(limits::ACCEPT_PAUSE)));
        self.traffic.accept_pauses += 1;
        if let Some(before) = self.accept_complaint.say(self.now, REPORT) {
            let clients = self.slab.len();
            warn!(
                "cannot accept clients: {error}; trying on ({clients} clients now; {before} times more before)"
            );
        }
    }

    pub(super) fn welcome(&mut self, stream: mio::net::TcpStream, peer: std::net::SocketAddr, is_tls: bool) {
        // Answers must not wait for more to send; without it they are late, not lost.
        let _ = stream.set_nodelay(true);
        self.counters.accepted += 1;
        self.traffic.came();
        let mut id = self.slab.insert(stream);
        let Some(index) = self.slab.find(id) else { return };
        let Some(slot) = self.slab.at(index) else { return };
        while self.links.iter().any(|link| link.closing.contains(&id)) {
            // The generation has gone round, and a node has not answered the close of 2^32 uses ago.
            id = slab::next(id);
        }
        slot.rename(id);
        slot.bits.set(Bits::TLS, is_tls);
        let Some(stream) = &mut slot.stream else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(stream, Token(id as usize), interest) {
            self.slab.remove(index);
            self.traffic.moved(State::Idle, None);
            return self.pause_accept(&error);
        }
        self.admit(index, peer);
        if self.slab.len() == self.config.max_clients && self.full_complaint.say(self.now, REPORT).is_some() {
            warn!("{} clients, the most allowed: further ones wait", self.slab.len());
        }
    }

    /// One read of each client that has something, in turn, as long as its link takes it, or there is none to wait for.
    pub(super) fn read_clients(&mut self) {
        let waits = self.link_by.is_some();
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(index) = self.slab.find(id) else { continue };
            match self.link_of(index) {
                Some(link) if link.congested || link.pending() >= limits::LINK_HIGH => {
                    link.congested = true;
                    link.stalled.push_back(id);
                }
                None if waits => self.wait_for_link(index, id),
                _ => self.read_client(index),
            }
        }
    }

    fn wait_for_link(&mut self, index: u32, id: u64) {
        if self.slab.at(index).is_some_and(|slot| slot.bits.has(Bits::ENDED)) {
            // It has asked again elsewhere: what it wrote here would only come late.
            return self.with(index, false, Client::gone);
        }
        self.waiting.push_back(id);
    }

    /// Whether a client has to wait, unread, for a link to come.
    pub(super) fn waits_for_link(&mut self, index: u32) -> bool {
        self.link_by.is_some() && self.link_of(index).is_none()
    }

    /// The link of a client, or the one that it would get.
    fn link_of(&mut self, index: u32) -> Option<&mut Link> {
        let slot = self.slab.at(index)?;
        let place = if slot.client.is_open() { slot.link } else { self.links.best()? };
        self.links.get(place)
    }

    pub(super) fn read_client(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index) else { return };
        slot.bits.set(Bits::QUEUED, false);
        let room = slot.client.room().min(self.scratch.len());
        if room == 0 {
            return self.schedule(index);
        }
        if slot.bits.has(Bits::TLS) && !slot.bits.has(Bits::PREFACE) {
            return self.read_secure(index);
        }
        let Some(stream) = &mut slot.stream else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        match stream.read(&mut scratch[..room]) {
            Ok(0) => self.with(index, false, Client::eof),
            Ok(count) => {
                self.traffic.bytes_in += count as u64;
                // A short read has emptied the socket; what comes later is told by another event.
                let more = count == room || slot.bits.has(Bits::ENDED);
                slot.bits.set(Bits::READABLE, more);
                if slot.bits.has(Bits::PREFACE) {
                    self.preface(index, &scratch[..count]);
                } else {
                    self.with(index, true, |client, io| client.input(&scratch[..count], io));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.bits.set(Bits::READABLE, false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.schedule(index),
            Err(_) => self.with(index, false, Client::gone),
        }
        self.scratch = scratch;
    }

    /// Looks for passed time limits in a part of the slots.
    pub(super) fn sweep(&mut self) {
        if self.now < self.swept + TICK {
            return;
        }
        self.swept = self.now;
        self.expire_handshakes();
        let tick = self.tick();
        self.guard.sweep(SWEEPS, self.millis());
        let waits = self.link_by.is_some();
        let slots = self.slab.capacity();
        for _ in 0..slots.div_ceil(SWEEPS) {
            self.sweep_at = if self.sweep_at + 1 < slots { self.sweep_at + 1 } else { 0 };
            // Indexes are below 2^32.
            let index = self.sweep_at as u32;
            let Some(slot) = self.slab.at(index) else { continue };
            if slot.timer == Timer::None || slot.deadline > tick {
                continue;
            }
            // Of the others only those who have sent something: an idle client may be told to go.
            let sent = slot.bits.has(Bits::QUEUED)
                && matches!(slot.timer, Timer::Idle | Timer::Message | Timer::Pong);
            let unread = (sent || matches!(slot.timer, Timer::Head | Timer::Body))
                && self.link_of(index).map_or(waits, |link| link.congested);
            match self.slab.at(index) {
                // Nobody reads the client: it is not to blame.
                Some(slot) if unread => slot.deadline = tick.saturating_add(self.config.ticks(slot.timer)),
                Some(slot) if slot.bits.has(Bits::PREFACE) => self.late_preface(index),
                // What the client does not take waits in its TLS session.
                Some(slot) if slot.timer == Timer::Send && slot.client.pending() == 0 => {
                    self.with(index, false, Client::gone);
                }
                _ => self.with(index, false, Client::timeout),
            }
        }
    }
}
