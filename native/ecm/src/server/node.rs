//! The node's side of the event loop: the link's life, and its frames.

use std::collections::HashSet;

use megaphone_core::client::Client;
use megaphone_core::limits;
use megaphone_core::link::{ErrorCode, Frame, Role};
use tracing::debug;

use super::{LINK, LINK_READS, Server};

impl Server {
    /// Connects, pings and writes the link, as time and sockets ask for it.
    pub(super) fn link_step(&mut self) {
        let result =
            self.link.tick(self.now, self.poll.registry(), LINK).and_then(|()| self.link.flush(self.now));
        if let Err(why) = result {
            self.lose_link(&why);
        }
        if self.congested && self.link.pending() <= limits::LINK_LOW {
            self.congested = false;
        }
    }

    pub(super) fn lose_link(&mut self, why: &str) {
        self.link_readable = false;
        let was_up = self.link.lose(why, self.now);
        // Another address of the server may be tried at once.
        if self.link.deadline().is_some_and(|at| at > self.now) {
            self.life.link_tried(self.now);
        }
        if !was_up {
            return;
        }
        self.traffic.links_lost += 1;
        self.closing = HashSet::new();
        for index in 0..self.slab.capacity() {
            // Indexes are below 2^32.
            self.with(index as u32, false, Client::link_lost);
        }
    }

    pub(super) fn read_link(&mut self) {
        for _ in 0..LINK_READS {
            if !self.link_readable {
                return;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let result = self.link.read(&mut scratch, self.now);
            self.scratch = scratch;
            let result = result.and_then(|more| {
                self.link_readable = more;
                self.frames()
            });
            if let Err(why) = result {
                return self.lose_link(&why);
            }
        }
    }

    pub(super) fn frames(&mut self) -> Result<(), String> {
        // Out of self while its frames, which borrow from it, are handled.
        let mut decoder = std::mem::take(&mut self.link.decoder);
        let result = loop {
            match decoder.next() {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    if let Err(why) = self.frame(frame) {
                        break Err(why);
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    self.link.send(&Frame::Error { id: 0, code: error.code(), text: &text });
                    break Err(text);
                }
            }
        };
        self.link.decoder = decoder;
        result
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>) -> Result<(), String> {
        match frame {
            Frame::Hello(hello) if hello.role == Role::Ejabberd => self.link.greeted(&hello),
            Frame::Hello(_) => return Err(self.breach("the other end is a connection manager too")),
            Frame::Open { .. } => return Err(self.breach("open frame from the node")),
            Frame::Data { id, payload } => match self.open_client(id) {
                Some(index) => self.with(index, false, |client, io| client.data(payload, io)),
                None if self.closing.contains(&id) => {}
                None => self.link.send(&Frame::Error {
                    id,
                    code: ErrorCode::UnknownConnection,
                    text: "unknown connection",
                }),
            },
            Frame::Close { id, reason } => {
                if !self.closing.remove(&id)
                    && let Some(index) = self.open_client(id)
                {
                    self.call(index, false, true, |client, io| client.closed(reason, io));
                }
            }
            Frame::Window { id, increment } => {
                if let Some(index) = self.open_client(id) {
                    self.with(index, false, |client, io| client.grant_credit(increment, io));
                }
            }
            Frame::Ready { id, mode } => {
                if let Some(index) = self.open_client(id) {
                    self.with(index, false, |client, io| client.ready(mode, io));
                }
            }
            Frame::Error { id: 0, code, text } => {
                return Err(format!("it says: {} ({code:?})", text.escape_debug()));
            }
            Frame::Error { id, code, text } => self.connection_error(id, code, text),
            Frame::Ping(bytes) => self.link.send(&Frame::Pong(bytes)),
            Frame::Pong(_) | Frame::Drain | Frame::Auth(_) => {}
        }
        Ok(())
    }

    pub(super) fn connection_error(&mut self, id: u64, code: ErrorCode, text: &str) {
        debug!("connection {id:x}: the node says: {} ({code:?})", text.escape_debug());
        if code != ErrorCode::UnknownConnection || self.closing.remove(&id) {
            return;
        }
        if let Some(index) = self.open_client(id) {
            self.with(index, false, Client::unknown);
        }
    }

    /// The other end broke the protocol: it is told, and the link closed.
    pub(super) fn breach(&mut self, text: &str) -> String {
        self.link.send(&Frame::Error { id: 0, code: ErrorCode::Protocol, text });
        text.to_owned()
    }

    pub(super) fn open_client(&mut self, id: u64) -> Option<u32> {
        let index = self.slab.find(id)?;
        self.slab.at(index)?.client.is_open().then_some(index)
    }
}
