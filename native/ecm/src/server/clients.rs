//! The clients' side of the event loop: accepting, reading in turn, calling the state machines, time limits.

use std::io::{self, Read};
use std::time::Duration;

use megaphone_core::client::{Client, Io, Timer};
use megaphone_core::limits;
use mio::event::Event;
use mio::{Interest, Token};
use tracing::warn;

use super::{ACCEPTS, SWEEPS, Server, TICK};
use crate::context::Context;
use crate::slab::Bits;

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
        if dead {
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
        let tick = self.tick();
        let Some(slot) = self.slab.at(index) else { return };
        let id = slot.id(index);
        let Some(stream) = &slot.stream else { return };
        let secure = if slot.bits.has(Bits::TLS) { self.tls.secure(index) } else { None };
        let before = slot.client.heap() + secure.as_ref().map_or(0, |secure| secure.session.heap());
        let mut context = Context {
            id,
            stream,
            secure,
            require_tls: self.config.require_tls,
            link: &mut self.link,
            closing: &mut self.closing,
            counters: &mut self.counters,
            answers_close,
            crowded,
            failed: false,
        };
        call(&mut slot.client, &mut context);
        if context.failed {
            slot.client.gone(&mut context);
        }
        let session = context.secure.map(|secure| secure.session);
        let after = slot.client.heap() + session.as_ref().map_or(0, |session| session.heap());
        self.held = self.held.saturating_sub(before) + after;
        if slot.client.is_closed() {
            return self.remove(index);
        }
        let mut timer = slot.client.timer();
        if let Some(session) = session {
            slot.bits.note(session);
            if session.pending() > 0 {
                // The state machine has written all of it, but the client has not taken it.
                timer = Timer::Send;
            }
        }
        if timer != slot.timer || (progress && timer.restarts()) {
            slot.timer = timer;
            slot.deadline = tick.saturating_add(self.config.ticks(timer));
        }
        self.schedule(index);
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
            let Some(door) = self.doors.get_mut(index) else { return };
            if !door.may_accept(&self.tls, &self.config, self.now) {
                return;
            }
            match door.listener.accept() {
                Ok((stream, _)) => {
                    self.accept_complained = false;
                    let is_tls = door.is_tls;
                    self.welcome(stream, is_tls);
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
        !self.doors.is_empty() && self.slab.len() < self.config.max_clients
    }

    /// Out of descriptors or memory: trying again at once would only burn the processor.
    pub(super) fn pause_accept(&mut self, error: &io::Error) {
        self.accept_after = Some(self.now + Duration::from_millis(u64::from(limits::ACCEPT_PAUSE)));
        if !self.accept_complained {
            self.accept_complained = true;
            warn!("cannot accept clients: {error}; trying on ({} clients now)", self.slab.len());
        }
    }

    pub(super) fn welcome(&mut self, stream: mio::net::TcpStream, is_tls: bool) {
        // Answers must not wait for more to send; without it they are late, not lost.
        let _ = stream.set_nodelay(true);
        self.counters.accepted += 1;
        let mut id = self.slab.insert(stream);
        let Some(index) = self.slab.find(id) else { return };
        let Some(slot) = self.slab.at(index) else { return };
        if self.closing.contains(&id) {
            // The generation has gone round, and the node has not answered the close of 2^32 uses ago.
            slot.renew();
            id = slot.id(index);
        }
        let Some(stream) = &mut slot.stream else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(stream, Token(id as usize), interest) {
            self.slab.remove(index);
            return self.pause_accept(&error);
        }
        if is_tls {
            self.begin_handshake(index);
        } else {
            self.with(index, false, |_, _| {});
        }
        if self.slab.len() == self.config.max_clients {
            warn!("{} clients, the most allowed: further ones wait", self.slab.len());
        }
    }

    /// One read of each client that has something, in turn, as long as the link takes it.
    pub(super) fn read_clients(&mut self) {
        for _ in 0..self.queue.len() {
            if self.link.pending() >= limits::LINK_HIGH {
                self.congested = true;
            }
            if self.congested {
                return;
            }
            let Some(id) = self.queue.pop_front() else { return };
            if let Some(index) = self.slab.find(id) {
                self.read_client(index);
            }
        }
    }

    pub(super) fn read_client(&mut self, index: u32) {
        let Some(slot) = self.slab.at(index) else { return };
        slot.bits.set(Bits::QUEUED, false);
        let room = slot.client.room().min(self.scratch.len());
        if room == 0 {
            return self.schedule(index);
        }
        if slot.bits.has(Bits::TLS) {
            return self.read_secure(index);
        }
        let Some(stream) = &mut slot.stream else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        match stream.read(&mut scratch[..room]) {
            Ok(0) => self.with(index, false, Client::eof),
            Ok(count) => {
                // A short read has emptied the socket; what comes later is told by another event.
                let more = count == room || slot.bits.has(Bits::ENDED);
                slot.bits.set(Bits::READABLE, more);
                self.with(index, true, |client, io| client.input(&scratch[..count], io));
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
        let slots = self.slab.capacity();
        for _ in 0..slots.div_ceil(SWEEPS) {
            self.sweep_at = if self.sweep_at + 1 < slots { self.sweep_at + 1 } else { 0 };
            // Indexes are below 2^32.
            let index = self.sweep_at as u32;
            let Some(slot) = self.slab.at(index) else { continue };
            if slot.timer == Timer::None || slot.deadline > tick {
                continue;
            }
            if self.congested && matches!(slot.timer, Timer::Head | Timer::Body) {
                // Nobody reads the client: it is not to blame.
                slot.deadline = tick.saturating_add(self.config.ticks(slot.timer));
            } else if slot.timer == Timer::Send && slot.client.pending() == 0 {
                // What the client does not take waits in its TLS session.
                self.with(index, false, Client::gone);
            } else {
                self.with(index, false, Client::timeout);
            }
        }
    }
}
