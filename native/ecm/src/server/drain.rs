//! The manager's own life: it starts to take clients, drains, and stops.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use megaphone_core::client::{Client, Timer};
use megaphone_core::limits;
use tracing::{debug, info, warn};

use super::{Server, ticks};
use crate::listen::{self, Origin};
use crate::signals::Command;
use crate::systemd;

/// How far the manager's life has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// No clients are taken before this, nor before the link's first attempt has ended.
    start_by: Option<Instant>,
    /// The listening socket is emptied after this, and closed.
    close_after: Option<Instant>,
    /// Draining; those who are left then are cut off.
    drain_by: Option<Instant>,
    pub(super) stop_by: Option<Instant>,
}

impl Life {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start_by: Some(now + millis(limits::START_WAIT)),
            close_after: None,
            drain_by: None,
            stop_by: None,
        }
    }

    /// Whether clients are not taken yet.
    pub(super) fn is_starting(&self) -> bool {
        self.start_by.is_some()
    }

    /// Whether no further clients are taken.
    pub(super) fn is_ending(&self) -> bool {
        self.drain_by.is_some() || self.stop_by.is_some()
    }

    /// The link's first attempt has ended.
    pub(super) fn link_tried(&mut self, now: Instant) {
        if let Some(by) = &mut self.start_by {
            *by = now;
        }
    }

    /// When [`Server::live`] has to be called next, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.start_by, self.close_after, self.drain_by, self.stop_by].into_iter().flatten().min()
    }
}

impl Server {
    /// Does what the operator says.
    pub(super) fn control(&mut self) {
        loop {
            let mut bytes = [0; 16];
            match self.shutdown.read(&mut bytes) {
                Ok(count) if count > 0 => bytes[..count].iter().for_each(|&byte| self.command(byte.into())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return self.stop(),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Drain if !self.life.is_ending() => self.drain(),
            Command::Drain | Command::Stop => self.stop(),
            Command::Reload => self.reload(),
        }
    }

    /// Reads certificates again: the clients' ones, and those that links trust.
    fn reload(&mut self) {
        let Some(trust) = &mut self.config.link_trust else { return self.tls.reload(self.now) };
        match trust.reload() {
            Ok(()) => info!("link_ca was read again, for new links: {} certificates", trust.authorities()),
            Err(why) => warn!("link_ca was not read again, the old one stays: {why}"),
        }
        self.links.set_trust(trust);
        if self.tls.has_certificates() {
            self.tls.reload(self.now);
        }
    }

    /// Does what time asks for: starts to take clients, closes the listening socket, ends.
    pub(super) fn live(&mut self) {
        let passed = |at: Option<Instant>| at.is_some_and(|at| self.now >= at);
        let (start, close, end) =
            (passed(self.life.start_by), passed(self.life.close_after), passed(self.life.drain_by));
        if self.life.is_starting() && (start || self.links.best().is_some()) {
            self.life.start_by = None;
            info!("takes clients");
            systemd::ready();
        }
        if close {
            self.empty_listeners();
        }
        if self.life.drain_by.is_none() || self.life.stop_by.is_some() {
            return;
        }
        if end {
            warn!("drain_timeout has passed: {} clients are cut off", self.slab.len());
            self.stop();
        } else if self.doors.is_empty() && self.slab.len() == 0 {
            self.stop();
        }
    }

    /// Ends when the clients have gone: those that are idle are closed, the others are told so with their next answer.
    fn drain(&mut self) {
        systemd::draining();
        self.life.start_by = None;
        self.life.drain_by = Some(self.now + self.config.drain_timeout);
        // Who waits in a socket that others hold, too, is left to them.
        self.doors.retain(|door| door.origin != Origin::Inherited);
        for door in self.doors.iter().filter(|door| door.origin == Origin::Shared) {
            if let Err(error) = listen::turn_away(&door.listener) {
                debug!("new clients cannot be turned to other processes: {error}");
            }
            self.life.close_after = Some(self.now + millis(limits::DRAIN_ACCEPT));
        }
        if self.life.close_after.is_none() && !self.doors.is_empty() {
            self.life.close_after = Some(self.now);
        }
        info!(
            "draining: {} clients, {} s at most; SIGINT or a second SIGTERM stops at once",
            self.slab.len(),
            self.config.drain_timeout.as_secs()
        );
        let idle = millis(limits::DRAIN_IDLE).min(self.config.idle_timeout);
        self.config.idle_timeout = idle;
        let deadline = self.tick().saturating_add(ticks(idle).max(1));
        // WebSockets are closed one after the other, so that they do not all come back at once; one that is busy then, when it
        // is silent for a moment.
        self.config.websocket.ping = millis(limits::DRAIN_IDLE);
        let (tick, span) = (self.tick(), ticks(self.config.drain_timeout / 2).max(1) as usize);
        let slots = self.slab.capacity();
        for index in 0..slots {
            // Indexes are below 2^32.
            let Some(slot) = self.slab.at(index as u32) else { continue };
            match slot.timer {
                Timer::Idle => slot.deadline = slot.deadline.min(deadline),
                Timer::Ping | Timer::Pong => {
                    slot.deadline = tick.saturating_add((index * span / slots) as u32)
                }
                _ => {}
            }
        }
    }

    /// Takes who waits in the listening sockets, a turn's worth at a time, and closes them when nobody does.
    fn empty_listeners(&mut self) {
        self.doors.iter_mut().for_each(|door| door.acceptable = true);
        self.accept();
        let waits = self.doors.iter().any(|door| door.acceptable);
        if !waits || self.accept_after.is_some() || !self.has_room() {
            self.doors.clear();
            self.life.close_after = None;
        }
    }

    /// Ends at once: requests without an answer get 503, the rest is written.
    pub(super) fn stop(&mut self) {
        if self.life.stop_by.is_some() {
            return;
        }
        info!("stopping: {} clients", self.slab.len());
        systemd::draining();
        self.life.stop_by = Some(self.now + self.config.stop_timeout);
        self.life.start_by = None;
        self.life.close_after = None;
        self.doors.clear();
        // Whose request waits, unread, for a link looks idle: it learns that there is none.
        self.link_by = None;
        for id in std::mem::take(&mut self.waiting) {
            if let Some(index) = self.slab.find(id) {
                self.read_client(index);
            }
        }
        // Indexes are below 2^32.
        for index in 0..self.slab.capacity() as u32 {
            if !self.is_written_by_session(index) {
                self.with(index, false, Client::stop);
            }
        }
    }

    /// Whether a stopping manager has nothing left to write.
    pub(super) fn is_finished(&mut self) -> bool {
        let Some(by) = self.life.stop_by else { return false };
        if Instant::now() >= by {
            warn!("stopping took too long: {} clients are cut off", self.slab.len());
            return true;
        }
        if self.links.up().any(|link| link.pending() > 0) {
            return false;
        }
        (0..self.slab.capacity() as u32).all(|index| {
            self.slab.at(index).is_none_or(|slot| slot.client.pending() == 0) && self.records(index) == 0
        })
    }
}

fn millis(number: u32) -> Duration {
    Duration::from_millis(u64::from(number))
}
