//! From the node to the client, and every way in which a connection ends.

use super::{Client, Io, Refusal, Stage, Timer};
use crate::http::response;
use crate::limits;
use crate::link::{CloseReason, Frame, ReadyMode};

impl Client {
    /// Takes data of the node. What the client does not take now is held, at most [`limits::WINDOW`] bytes: credit is
    /// granted only for what the client took. Data beyond credit, or without a request, closes the connection.
    pub fn data(&mut self, payload: &[u8], io: &mut dyn Io) {
        if self.flags.open {
            let asked_for = self.in_flight();
            match u32::try_from(payload.len()).ok().and_then(|length| self.allowed.checked_sub(length)) {
                // Memory is short, and this one does not read: it goes first.
                Some(_) if self.pending() > 0 && io.crowded() => self.abort(CloseReason::Limit, io),
                Some(allowed) if self.is_socket() => {
                    self.allowed = allowed;
                    self.socket_data(payload, io);
                    self.grant(io);
                }
                Some(allowed) if asked_for => {
                    self.allowed = allowed;
                    let first = !std::mem::replace(&mut self.flags.answered, true);
                    if first {
                        io.answered();
                    }
                    match first.then(|| self.closing_at(payload, io)).flatten() {
                        Some(at) => self.emit_closing(payload, at, io),
                        None => self.emit(payload, io),
                    }
                    self.grant(io);
                }
                _ => self.abort(CloseReason::Protocol, io),
            }
        }
        self.settle();
    }

    /// Where `Connection: close` is put into an answer that starts with `payload`, while the manager is draining.
    fn closing_at(&self, payload: &[u8], io: &mut dyn Io) -> Option<usize> {
        // A client that wanted to close itself was announced to the node so, which says it in its answer.
        if self.flags.last || !io.draining() { None } else { response::close_at(payload) }
    }

    /// As [`Client::emit`], with `Connection: close` put in: no further request follows.
    fn emit_closing(&mut self, payload: &[u8], at: usize, io: &mut dyn Io) {
        self.flags.last = true;
        self.emit(&payload[..at], io);
        self.emit(response::CLOSE, io);
        self.emit(&payload[at..], io);
    }

    /// The node grants credit.
    pub fn grant_credit(&mut self, increment: u32, io: &mut dyn Io) {
        if self.flags.open {
            if let Some(credit) = self.credit.checked_add(increment) {
                self.credit = credit;
                // What is being collected goes when it is whole: it may be refused yet, or go over another link.
                if self.stage != Stage::Collect {
                    self.send_up(io);
                }
                self.drive(&[], io);
            } else {
                self.abort(CloseReason::Protocol, io);
            }
        }
        self.settle();
    }

    /// The node has answered the current request, or makes the connection a tunnel.
    pub fn ready(&mut self, mode: ReadyMode, io: &mut dyn Io) {
        match (self.stage, mode) {
            (Stage::Answer, ReadyMode::Request) if self.unsent() == 0 && !self.flags.last => {
                self.stage = Stage::Head;
                // Until the next head is complete nobody knows its method: an answer to it is whole.
                self.flags.is_head = false;
                self.drive(&[], io);
            }
            // Answered before all of the request was there: nobody knows whether the node wants the rest.
            (Stage::Answer | Stage::Stream, ReadyMode::Request) => {
                self.end(CloseReason::Normal, io);
            }
            (Stage::Answer, ReadyMode::Tunnel) if self.flags.upgrade => {
                self.stage = Stage::Tunnel;
                self.drive(&[], io);
            }
            // A tunnel that the client did not ask for would take its next request for raw bytes.
            (Stage::Answer | Stage::Stream, ReadyMode::Tunnel) => {
                self.abort(CloseReason::Protocol, io);
            }
            _ => {}
        }
        self.settle();
    }

    /// The node closes the connection: what it sent before still goes to the client.
    pub fn closed(&mut self, reason: CloseReason, io: &mut dyn Io) {
        self.say_close(CloseReason::Normal, io);
        match reason {
            _ if self.is_socket() => self.end_socket(Some(reason), io),
            CloseReason::Shutdown | CloseReason::Limit => {
                self.lose_node(Refusal::NodeBusy, 503, "the chat server does not take the request now", io);
            }
            _ => {
                let why = "the chat server closed the connection without an answer";
                self.lose_node(Refusal::NodeLost, 502, why, io);
            }
        }
        self.settle();
    }

    /// The node does not know the connection (any more): as [`Client::closed`], but nobody waits for our close.
    pub fn unknown(&mut self, io: &mut dyn Io) {
        self.flags.open = false;
        match self.is_socket() {
            true => self.end_socket(Some(CloseReason::Internal), io),
            false => self.lose_node(Refusal::NodeLost, 502, "the chat server lost the connection", io),
        }
        self.settle();
    }

    /// The link is down. A client between requests does not notice; one that waits for an answer of which nothing has
    /// come is told to try again; others are closed. So is one that has not taken all that was sent to it: the next
    /// link's node gets credit for a whole window, and both together may not be held.
    pub fn link_lost(&mut self, io: &mut dyn Io) {
        let was_open = std::mem::take(&mut self.flags.open);
        if self.is_socket() {
            // One that has sent no message yet will open another one.
            if was_open {
                self.end_socket(None, io);
            }
        } else if self.in_flight() || self.pending() > 0 {
            self.lose_node(Refusal::NoLink, 503, "the chat server was lost", io);
        }
        self.settle();
    }

    /// The client can take bytes again.
    pub fn writable(&mut self, io: &mut dyn Io) {
        if let Some(work) = &mut self.work {
            while work.written < work.output.len() {
                let taken = io.write(&work.output[work.written..]);
                if taken == 0 {
                    break;
                }
                work.written += taken;
            }
            if work.written == work.output.len() {
                work.output = Vec::new();
                work.written = 0;
            }
        }
        self.grant(io);
        self.try_finish(io);
        if self.stage == Stage::Turn && self.pending() == 0 {
            self.stage = Stage::Head;
            self.drive(&[], io);
        }
        self.settle();
    }

    /// The client has ended its stream. It is taken for gone: a held poll of a client that left must end at once, and
    /// an HTTP client that only ends its half while it waits for an answer is not told apart from one that left.
    pub fn eof(&mut self, io: &mut dyn Io) {
        // An answer of ours may still be read by a client that said all it has to say.
        if self.stage != Stage::Flush {
            self.gone(io);
        }
    }

    /// The client is gone.
    pub fn gone(&mut self, io: &mut dyn Io) {
        // What an answer still lacks is not known here; all that has come of it may be all there is.
        let unanswered = match self.stage {
            // Of a request that waits for credit the node may know nothing: it would take this for one before.
            Stage::Answer => self.unsent() == 0 && (!self.flags.answered || self.pending() > 0),
            Stage::Head | Stage::Turn | Stage::Collect => self.pending() > 0,
            _ => false,
        };
        let idle = self.stage == Stage::Head && self.held_input() == 0;
        let reason = match () {
            () if unanswered => CloseReason::Unanswered,
            () if idle => CloseReason::Normal,
            () => CloseReason::PeerGone,
        };
        self.abort(reason, io);
    }

    /// The limit that [`Client::timer`] names has passed.
    pub fn timeout(&mut self, io: &mut dyn Io) {
        match self.timer() {
            Timer::None => {}
            Timer::Linger if self.stage == Stage::Deaf => self.late_node(io),
            Timer::Ping => self.silent(io),
            Timer::Pong => self.gone(io),
            Timer::Message => self.late_message(io),
            Timer::Idle | Timer::Send | Timer::Linger => self.abort(CloseReason::Timeout, io),
            Timer::Head => self.refuse(Refusal::HeadTimeout, 408, "the request head took too long", io),
            Timer::Body if self.flags.answered => self.abort(CloseReason::Timeout, io),
            Timer::Body => self.refuse(Refusal::BodyTimeout, 408, "the request body took too long", io),
        }
        self.settle();
    }

    /// The connection manager stops: a request without an answer gets 503, the rest is written and closed.
    pub fn stop(&mut self, io: &mut dyn Io) {
        self.say_close(CloseReason::Shutdown, io);
        match self.stage {
            Stage::Head if self.held_input() == 0 && self.pending() == 0 => self.stage = Stage::Closed,
            Stage::Flush | Stage::Linger | Stage::Closed => {}
            Stage::Socket | Stage::Pinged | Stage::Deaf => self.stop_socket(io),
            _ => self.lose_node(Refusal::Stopping, 503, "the connection manager stops", io),
        }
        self.settle();
    }

    /// Refuses a connection that has just come, before any of its requests: answers 429 and ends it.
    pub fn turn_away(&mut self, refusal: Refusal, io: &mut dyn Io) {
        self.refuse(refusal, 429, "too many connections from this address", io);
        self.settle();
    }

    /// Answers the request ourselves; the connection ends with it.
    pub(super) fn refuse(&mut self, refusal: Refusal, status: u16, why: &str, io: &mut dyn Io) {
        io.refused(refusal, status);
        self.say_close(refusal.close_reason(), io);
        let mut answer = Vec::new();
        response::write(status, why, self.flags.is_head, &mut answer);
        self.emit(&answer, io);
        self.finish(io);
    }

    /// The virtual connection is gone: the client gets an answer if it waits for one and none of it has come, else
    /// what it has is completed and the connection ends.
    fn lose_node(&mut self, refusal: Refusal, status: u16, why: &str, io: &mut dyn Io) {
        let waits = matches!(self.stage, Stage::Stream | Stage::Answer) && !self.flags.answered;
        if matches!(self.stage, Stage::Turn | Stage::Collect) || waits {
            self.refuse(refusal, status, why, io);
        } else {
            self.finish(io);
        }
    }

    /// The conversation is over: the rest of the output is written, then both ends are closed.
    pub(super) fn end(&mut self, reason: CloseReason, io: &mut dyn Io) {
        self.say_close(reason, io);
        self.finish(io);
    }

    /// Closes at once, whatever is held.
    pub(super) fn abort(&mut self, reason: CloseReason, io: &mut dyn Io) {
        self.say_close(reason, io);
        self.stage = Stage::Closed;
        self.work = None;
    }

    /// Sends close for the virtual connection, once.
    pub(super) fn say_close(&mut self, reason: CloseReason, io: &mut dyn Io) {
        if self.flags.open {
            self.flags.open = false;
            io.frame(&Frame::Close { id: io.id(), reason });
        }
    }

    /// Nothing more is accepted: only the output is kept.
    pub(super) fn finish(&mut self, io: &mut dyn Io) {
        if matches!(self.stage, Stage::Linger | Stage::Closed) {
            return;
        }
        self.stage = Stage::Flush;
        if let Some(work) = &mut self.work {
            let (output, written) = (std::mem::take(&mut work.output), work.written);
            **work = super::Work { output, written, ..super::Work::default() };
        }
        self.try_finish(io);
    }

    fn try_finish(&mut self, io: &mut dyn Io) {
        if self.stage == Stage::Flush && self.pending() == 0 {
            io.shutdown_write();
            self.stage = Stage::Linger;
        }
    }

    /// Writes to the client, behind what it has not taken yet.
    pub(super) fn emit(&mut self, mut bytes: &[u8], io: &mut dyn Io) {
        if self.pending() == 0 {
            loop {
                let taken = io.write(bytes);
                bytes = &bytes[taken..];
                if bytes.is_empty() {
                    return;
                }
                if taken == 0 {
                    break;
                }
            }
        }
        let work = self.work();
        // What was written goes when it is the larger part, so that each byte is moved once at most.
        if work.written > work.output.len() / 2 {
            work.output.drain(..work.written);
            work.written = 0;
        }
        work.output.extend_from_slice(bytes);
    }

    /// Grants credit for what the client took, when it is worth a frame.
    fn grant(&mut self, io: &mut dyn Io) {
        if !self.flags.open {
            return;
        }
        let held = u32::try_from(self.pending()).unwrap_or(u32::MAX);
        let owed = limits::WINDOW.saturating_sub(self.allowed).saturating_sub(held);
        if owed >= limits::WINDOW / 2 {
            self.allowed += owed; // owed <= WINDOW - allowed
            io.frame(&Frame::Window { id: io.id(), increment: owed });
        }
    }
}
