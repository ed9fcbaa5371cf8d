//! The nodes' side of the event loop: the links' life, and their frames.

use megaphone_core::client::Client;
use megaphone_core::link::{CloseReason, ErrorCode, Frame};
use mio::Token;
use tracing::{debug, info, warn};

use super::{LINK_READS, LINKS, Server};
use crate::links::LinkIndex;

impl Server {
    /// Connects, pings and writes the links, as time and sockets ask for it.
    pub(super) fn links_step(&mut self) {
        for place in self.links.indexes() {
            let Some(link) = self.links.get(place) else { return };
            let token = Token(LINKS - usize::from(place));
            let result = link.tick(self.now, self.poll.registry(), token).and_then(|()| link.flush(self.now));
            if let Err(why) = result {
                self.lose_link(place, &why);
            }
            if let Some(link) = self.links.get(place) {
                self.queue.append(&mut link.decongest());
            }
        }
    }

    pub(super) fn lose_link(&mut self, place: LinkIndex, why: &str) {
        let Some(link) = self.links.get(place) else { return };
        let was_up = link.lose(why, self.now);
        // Another address of the server may be tried at once.
        if link.deadline().is_some_and(|at| at > self.now) {
            self.life.link_tried(self.now);
        }
        if !was_up {
            return;
        }
        self.traffic.links_lost += 1;
        for index in 0..self.slab.capacity() {
            // Indexes are below 2^32.
            let index = index as u32;
            if self.slab.at(index).is_some_and(|slot| slot.client.is_open() && slot.link == place) {
                self.with(index, false, Client::link_lost);
            }
        }
        match self.links.up().count() {
            0 if self.life.is_ending() => warn!("no link is up: clients get 503"),
            // A link that comes and goes at once does not prolong it.
            0 if self.link_by.is_some() => {}
            0 => {
                self.link_by = Some(self.now + self.config.link_wait);
                let seconds = self.config.link_wait.as_secs();
                warn!("no link is up: requests wait for one for {seconds} s, then clients get 503");
            }
            count => info!("{count} other links are up: clients go on there"),
        }
    }

    /// Who waited for a link goes on when one is up, and learns that there is none when it took too long, or the manager ends.
    pub(super) fn end_wait(&mut self) {
        let Some(by) = self.link_by else { return };
        if self.now < by && self.links.up().next().is_none() && !self.life.is_ending() {
            return;
        }
        self.link_by = None;
        // They have been here longer than those who came in this turn.
        let mut queue = std::mem::take(&mut self.waiting);
        queue.append(&mut self.queue);
        self.queue = queue;
    }

    pub(super) fn read_links(&mut self) {
        for place in self.links.indexes() {
            self.read_link(place);
        }
    }

    fn read_link(&mut self, place: LinkIndex) {
        for _ in 0..LINK_READS {
            let Some(link) = self.links.get(place).filter(|link| link.readable) else { return };
            let read = link.read(&mut self.scratch, self.now);
            link.readable = matches!(read, Ok(true));
            if let Err(why) = read.and_then(|_| self.frames(place)) {
                return self.lose_link(place, &why);
            }
        }
    }

    fn frames(&mut self, place: LinkIndex) -> Result<(), String> {
        let Some(link) = self.links.get(place) else { return Ok(()) };
        // Out of self while its frames, which borrow from it, are handled.
        let mut decoder = std::mem::take(&mut link.decoder);
        let result = loop {
            match decoder.next() {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => match self.frame(place, frame) {
                    Ok(false) => {}
                    Ok(true) => decoder.admit(),
                    Err(why) => break Err(why),
                },
                Err(error) => break Err(self.tell(place, error.code(), error.to_string())),
            }
        };
        if let Some(link) = self.links.get(place) {
            link.decoder = decoder;
        }
        result
    }

    /// Handles a frame of a link; true: the link is open from now on.
    fn frame(&mut self, place: LinkIndex, frame: Frame<'_>) -> Result<bool, String> {
        let Some(link) = self.links.get(place) else { return Ok(false) };
        match frame {
            Frame::Error { id: 0, code, text } => {
                return Err(format!("it says: {} ({code:?})", text.escape_debug()));
            }
            frame if link.is_opening() => {
                let result = link.opening(&frame);
                return result.map_err(|error| self.tell(place, error.code(), error.to_string()));
            }
            Frame::Ping(bytes) => link.send(&Frame::Pong(bytes)),
            Frame::Pong(_) => {}
            Frame::Drain => self.drained(place),
            // The decoder lets no second hello and no auth through.
            Frame::Open { .. } | Frame::Hello(_) | Frame::Auth(_) => {
                let text = format!("{} frame from the node", frame.name());
                return Err(self.tell(place, ErrorCode::Protocol, text));
            }
            Frame::Data { id, payload } => match self.open_client(place, id) {
                Some(index) => self.with(index, false, |client, io| client.data(payload, io)),
                None => self.undelivered(place, id),
            },
            Frame::Close { id, reason } => self.closed(place, id, reason),
            Frame::Window { id, increment } => {
                if let Some(index) = self.open_client(place, id) {
                    self.with(index, false, |client, io| client.grant_credit(increment, io));
                }
            }
            Frame::Ready { id, mode } => {
                if let Some(index) = self.open_client(place, id) {
                    self.with(index, false, |client, io| client.ready(mode, io));
                }
            }
            Frame::Error { id, code, text } => self.connection_error(place, id, code, text),
        }
        Ok(false)
    }

    /// The node wants no further connections on this link. Clients that have one there keep it.
    fn drained(&mut self, place: LinkIndex) {
        let Some(link) = self.links.get(place).filter(|link| !link.draining) else { return };
        link.draining = true;
        let (name, count) = (link.server_name(), link.connections);
        match self.links.open().count() {
            0 => warn!("link to {name} drains, {count} clients: no other takes clients, new ones get 503"),
            others => info!("link to {name} drains, {count} clients: new ones go to {others} other links"),
        }
    }

    /// Data for nobody; that is said, unless it crossed our close.
    fn undelivered(&mut self, place: LinkIndex, id: u64) {
        if let Some(link) = self.links.get(place)
            && !link.closing.contains(&id)
        {
            let text = "unknown connection";
            link.send(&Frame::Error { id, code: ErrorCode::UnknownConnection, text });
        }
    }

    fn closed(&mut self, place: LinkIndex, id: u64, reason: CloseReason) {
        let answered = self.links.get(place).is_some_and(|link| link.closing.remove(&id));
        if !answered && let Some(index) = self.open_client(place, id) {
            self.call(index, false, true, |client, io| client.closed(reason, io));
        }
    }

    fn connection_error(&mut self, place: LinkIndex, id: u64, code: ErrorCode, text: &str) {
        debug!("connection {id:x}: the node says: {} ({code:?})", text.escape_debug());
        let Some(link) = self.links.get(place) else { return };
        if code != ErrorCode::UnknownConnection || link.closing.remove(&id) {
            return;
        }
        if let Some(index) = self.open_client(place, id) {
            self.with(index, false, Client::unknown);
        }
    }

    /// The other end broke the protocol, or does not know the secret: it is told, and the link closed.
    fn tell(&mut self, place: LinkIndex, code: ErrorCode, text: String) -> String {
        if let Some(link) = self.links.get(place) {
            link.send(&Frame::Error { id: 0, code, text: &text });
        }
        text
    }

    /// The client of a virtual connection that is open on this link.
    fn open_client(&mut self, place: LinkIndex, id: u64) -> Option<u32> {
        let index = self.slab.find(id)?;
        let slot = self.slab.at(index)?;
        (slot.client.is_open() && slot.link == place).then_some(index)
    }
}
