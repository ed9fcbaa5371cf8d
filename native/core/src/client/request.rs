//! From the client to the node: heads are checked and written anew, bodies collected or streamed under credit.

use super::{Client, Io, Origin, Refusal, Stage};
use crate::http::{self, Body, Head, chunked, response, rewrite};
use crate::limits;
use crate::link::{CloseReason, Frame, Kind, Open, ReadyMode};

impl Client {
    /// Takes bytes of the client, at most [`Client::room`] of them. Cost: linear in them, and in what was held before
    /// when a request becomes complete.
    pub fn input(&mut self, bytes: &[u8], io: &mut dyn Io) {
        self.drive(bytes, io);
        self.settle();
    }

    /// Works off what was held and then `bytes`; keeps what has to wait.
    pub(super) fn drive(&mut self, bytes: &[u8], io: &mut dyn Io) {
        if self.held_input() == 0 {
            // The usual case: whole requests, taken where they lie.
            let used = self.consume(bytes, io);
            self.keep(&bytes[used..], io);
            return self.tell_of_next(io);
        }
        let mut held = std::mem::take(&mut self.work().input);
        held.extend_from_slice(bytes);
        let used = self.consume(&held, io);
        if used < held.len() && !self.is_ending() {
            held.drain(..used);
            self.work().input = held;
        }
        self.tell_of_next(io);
    }

    /// Tells the node of a request that waits for the answer to the one before: who holds a poll has no reason to any more.
    fn tell_of_next(&mut self, io: &mut dyn Io) {
        let waits = self.stage == Stage::Answer && !self.flags.answered && self.held_input() > 0;
        if waits && self.unsent() == 0 && io.pipelines() && !std::mem::replace(&mut self.work().told, true) {
            io.frame(&Frame::Ready { id: io.id(), mode: ReadyMode::Request });
        }
    }

    fn keep(&mut self, rest: &[u8], io: &mut dyn Io) {
        if rest.is_empty() || self.is_ending() {
            return;
        }
        if io.crowded() {
            // The client would read an answer of ours as part of the one that has begun.
            if self.stage == Stage::Answer && self.flags.answered {
                return self.end(CloseReason::Limit, io);
            }
            return self.refuse(Refusal::Memory, 503, "too busy for unfinished requests", io);
        }
        self.work().input.extend_from_slice(rest);
    }

    /// Works off the start of `bytes`; answers how many were used.
    fn consume(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let used = match self.stage {
                Stage::Head => self.head(rest, io),
                Stage::Collect => self.collect(rest, io),
                Stage::Stream => self.stream(rest, io),
                Stage::Tunnel => self.tunnel(rest, io),
                Stage::Socket | Stage::Pinged => self.socket(rest, io),
                Stage::Turn | Stage::Answer => 0,
                Stage::Deaf | Stage::Flush | Stage::Linger | Stage::Closed => rest.len(),
            };
            if used == 0 {
                break;
            }
            at += used;
            if let Some(work) = &mut self.work {
                work.scanned = 0;
            }
        }
        at
    }

    fn head(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        let mut scanned = self.work.as_ref().map_or(0, |work| work.scanned);
        match http::parse_within(bytes, &mut scanned, io.bounds().head) {
            Ok(None) => {
                self.work().scanned = scanned;
                0
            }
            Ok(Some(head)) => {
                let alone = bytes.len() == head.len;
                if !self.comes_from(bytes, &head, io) {
                    return if self.is_ending() { bytes.len() } else { 0 };
                }
                self.begin(bytes, head, alone, io)
            }
            Err(error) => {
                self.refuse(error.into(), error.status(), &error.to_string(), io);
                bytes.len()
            }
        }
    }

    /// Sees whom a request comes from; answers whether it may begin now. A proxy uses its connections for different
    /// clients; a virtual connection belongs to one, so for another one a new one is opened.
    fn comes_from(&mut self, bytes: &[u8], head: &Head, io: &mut dyn Io) -> bool {
        match io.origin(bytes, head) {
            Origin::Same => {}
            Origin::Changed => {
                if self.is_open() {
                    self.say_close(CloseReason::Normal, io);
                    io.renew();
                }
            }
            Origin::Refused(refusal) => {
                self.flags.is_head = head.is_head;
                self.refuse(refusal, 429, "too many connections from this address", io);
                return false;
            }
        }
        if self.pending() > 0 && !self.is_open() {
            self.stage = Stage::Turn;
            return false;
        }
        true
    }

    /// A request begins; `alone` if none of its body has come with its head. Answers how many bytes its head has.
    fn begin(&mut self, bytes: &[u8], mut head: Head, alone: bool, io: &mut dyn Io) -> usize {
        let bounds = io.bounds();
        self.requests = self.requests.saturating_add(1);
        // The node's answer says close then, as if the client had asked for it, so that no client loses a request.
        head.keep_alive &= self.requests < bounds.requests;
        self.start(bytes, &head, alone, bounds.body, io);
        head.len
    }

    fn start(&mut self, bytes: &[u8], head: &Head, alone: bool, most: u64, io: &mut dyn Io) {
        self.flags.last = !head.keep_alive;
        self.flags.upgrade = head.upgrade;
        self.flags.is_head = head.is_head;
        self.flags.answered = false;
        if io.lacks_tls() {
            // Terminal for a BOSH client (XEP-0124, 17.2), so that it does not send the password again and again.
            return self.refuse(Refusal::TlsRequired, 403, "only https is served here", io);
        }
        let Some(window) = io.window() else {
            return self.refuse(Refusal::NoLink, 503, "the chat server is not connected", io);
        };
        if io.crowded() {
            return self.refuse(Refusal::Memory, 503, "too busy", io);
        }
        if head.upgrade && io.ends_websocket(path(&bytes[head.target.clone()])) {
            return self.shake_hands(bytes, head, io);
        }
        if matches!(head.body, Body::Length(length) if length > most) {
            return self.refuse(Refusal::BodyTooLarge, 413, "request body too large", io);
        }
        let mut up = Vec::with_capacity(head.len + 64);
        rewrite::start(bytes, head, &mut up);
        let mut rest = 0;
        if head.body == Body::Chunked {
            rest = rewrite::FINISH_BYTES; // it ends when the length is known
        } else {
            rewrite::finish(rewrite::length(head), &mut up);
        }
        // The node reads none of a head that it has in part, so it would never grant credit for the rest; and it may owe
        // up to half of its window from the requests before.
        if up.len() + rest > window as usize / 2 {
            return self.refuse(Refusal::HeadTooLarge, 431, "request head too large", io);
        }
        let work = self.work();
        work.up = up;
        work.up_sent = 0;
        work.told = false;
        match head.body {
            Body::None | Body::Length(0) => return self.hand_over(Stage::Answer, io),
            Body::Length(length) => work.remaining = length,
            Body::Chunked => work.chunked = Some((chunked::Decoder::new(), Vec::new())),
        }
        if head.expect_continue && alone {
            self.emit(response::CONTINUE, io);
        }
        match head.body {
            Body::Length(length) if length > limits::SMALL_BODY => {
                self.hand_over(Stage::Stream, io);
            }
            _ => self.stage = Stage::Collect,
        }
    }

    fn collect(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        let work = self.work();
        let Some((decoder, body)) = &mut work.chunked else {
            let used = usize::try_from(work.remaining).unwrap_or(usize::MAX).min(bytes.len());
            work.up.extend_from_slice(&bytes[..used]);
            work.remaining -= used as u64;
            if work.remaining == 0 {
                self.hand_over(Stage::Answer, io);
            } else if io.crowded() {
                self.refuse(Refusal::Memory, 503, "too busy", io);
            }
            return used;
        };
        let most = usize::try_from(io.bounds().body).unwrap_or(usize::MAX).min(limits::MAX_CHUNKED_BODY);
        match decoder.decode(bytes, body, most) {
            Ok(used) if decoder.is_done() => {
                rewrite::finish(Some(body.len() as u64), &mut work.up);
                work.up.append(body);
                work.chunked = None;
                self.hand_over(Stage::Answer, io);
                used
            }
            Ok(used) => {
                if io.crowded() {
                    self.refuse(Refusal::Memory, 503, "too busy", io);
                }
                used
            }
            Err(error) => {
                self.refuse(error.into(), error.status(), &error.to_string(), io);
                bytes.len()
            }
        }
    }

    /// Gives the request to the node, as far as it is there; opens the virtual connection for the first one.
    fn hand_over(&mut self, next: Stage, io: &mut dyn Io) {
        if io.window().is_none() {
            // The link went away while the body was collected.
            return self.refuse(Refusal::NoLink, 503, "the chat server is not connected", io);
        }
        if !self.flags.open && !self.open(Kind::Http, io) {
            return self.gone(io);
        }
        self.stage = next;
        self.send_up(io);
        if next == Stage::Answer {
            io.requested();
        }
    }

    /// Opens the virtual connection; false: the link, or the client, is gone.
    pub(super) fn open(&mut self, kind: Kind, io: &mut dyn Io) -> bool {
        let (Some(window), Some((client, local))) = (io.window(), io.addresses()) else { return false };
        let open = Open { kind, tls: io.is_tls(), client, local };
        io.frame(&Frame::Open { id: io.id(), open });
        self.flags.open = true;
        self.credit = window;
        self.allowed = limits::WINDOW;
        true
    }

    /// Sends as much of the request, or of messages, as credit allows.
    pub(super) fn send_up(&mut self, io: &mut dyn Io) {
        let id = io.id();
        let Some(work) = &mut self.work else { return };
        while self.credit > 0 && work.up_sent < work.up.len() {
            let rest = &work.up[work.up_sent..];
            let take = rest.len().min(limits::DATA_CHUNK).min(self.credit as usize);
            io.frame(&Frame::Data { id, payload: &rest[..take] });
            work.up_sent += take;
            self.credit -= take as u32; // take <= credit
        }
        if work.up_sent == work.up.len() {
            work.up = Vec::new();
            work.up_sent = 0;
        }
    }

    fn stream(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        if self.unsent() > 0 {
            return 0;
        }
        let remaining = self.work().remaining;
        let most = usize::try_from(remaining).unwrap_or(usize::MAX);
        let used = self.pass(&bytes[..bytes.len().min(most)], io);
        let work = self.work();
        work.remaining -= used as u64; // used <= remaining
        if work.remaining == 0 {
            self.stage = Stage::Answer;
            io.requested();
        }
        used
    }

    fn tunnel(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        if self.unsent() > 0 {
            return 0;
        }
        self.pass(bytes, io)
    }

    /// Sends bytes straight on, one frame at most, as credit allows.
    fn pass(&mut self, bytes: &[u8], io: &mut dyn Io) -> usize {
        let take = bytes.len().min(limits::DATA_CHUNK).min(self.credit as usize);
        if take > 0 {
            io.frame(&Frame::Data { id: io.id(), payload: &bytes[..take] });
            self.credit -= take as u32; // take <= credit
        }
        take
    }
}

/// A request's target without its query.
fn path(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}
