//! What has to come of a client's bytes and of what the node says, read from all bytes at once.

use megaphone_core::client::Timer;
use megaphone_core::http::{parse, response};
use megaphone_core::limits::{MAX_BODY, MAX_CHUNKED_BODY, MAX_HEAD, SMALL_BODY};
use megaphone_core::link::{CloseReason, ReadyMode};

use super::world::World;
use crate::plain::{Framing, Request, check_answer, chunked};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or within a head.
    Between,
    /// Within a body that is handed on when it is all there.
    Collect,
    /// Within a body that is handed on as it comes: so much is missing.
    Stream(u64),
    /// All of the request is there.
    Asked,
    Tunnel,
    /// Only the rest of the output is to be written.
    Ending,
    /// Over at once.
    Closed,
}

/// An answer of the connection manager's own: its status, and whether it is one to HEAD, if that is certain.
type Own = (u16, Option<bool>);

#[derive(Debug)]
pub(super) struct Model {
    pub(super) phase: Phase,
    /// All that was read from the client, and where the first byte is that nothing came of yet.
    pub(super) read: Vec<u8>,
    at: usize,
    request: Request,
    /// Where the body of a request starts that began since the last check.
    begun: Option<usize>,
    answered: bool,
    /// What the node has to get on the current virtual connection, and how much of it was compared.
    due: Vec<u8>,
    compared: usize,
    pub(super) open: bool,
    opened: usize,
    closes: Vec<CloseReason>,
    /// What the client has to hear, but for the own answer at its end; how much was compared, and how long the rest is.
    hears: Vec<u8>,
    heard: usize,
    rest: Option<usize>,
    pub(super) own: Option<Own>,
    pub(super) interims: usize,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Between,
            read: Vec::new(),
            at: 0,
            request: Request::default(),
            begun: None,
            answered: false,
            due: Vec::new(),
            compared: 0,
            open: false,
            opened: 0,
            closes: Vec::new(),
            hears: Vec::new(),
            heard: 0,
            rest: None,
            own: None,
            interims: 0,
        }
    }

    /// Bytes of the client that wait for their turn.
    pub(super) fn held(&self) -> usize {
        self.read.len() - self.at
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Closed)
    }

    /// The whole of what is due was given to the node.
    pub(super) fn is_sent(&self, world: &World) -> bool {
        world.node.last().is_none_or(|node| node.len() == self.due.len())
    }

    /// Whether a complete request may be followed by another.
    pub(super) fn is_last(&self) -> bool {
        self.request.last
    }

    /// Works off what the client has sent.
    pub(super) fn advance(&mut self, world: &World) {
        while match self.phase {
            Phase::Between => self.begin(world),
            Phase::Collect => self.collect(world),
            Phase::Stream(left) => {
                let take = left.min(self.held() as u64);
                self.pass(take as usize);
                self.phase = if take == left { Phase::Asked } else { Phase::Stream(left - take) };
                false
            }
            Phase::Tunnel => {
                self.pass(self.held());
                false
            }
            Phase::Asked | Phase::Ending | Phase::Closed => false,
        } {}
    }

    fn pass(&mut self, count: usize) {
        self.due.extend_from_slice(&self.read[self.at..self.at + count]);
        self.at += count;
    }

    fn begin(&mut self, world: &World) -> bool {
        let rest = &self.read[self.at..];
        let head = match parse(rest, &mut 0) {
            Ok(None) => return false,
            Ok(Some(head)) => &rest[..head.len],
            Err(error) => return self.refuse(error.status(), Some(false), CloseReason::Protocol),
        };
        self.request = Request::read(head);
        self.answered = false;
        let is_head = Some(self.request.is_head);
        let Some(window) = world.window else {
            return self.refuse(503, is_head, CloseReason::Shutdown);
        };
        if world.crowded {
            return self.refuse(503, is_head, CloseReason::Limit);
        } else if matches!(self.request.framing, Framing::Length(length) if length > MAX_BODY) {
            return self.refuse(413, is_head, CloseReason::Protocol);
        } else if self.request.most() > window as usize / 2 {
            return self.refuse(431, is_head, CloseReason::Protocol);
        }
        self.at += head.len();
        self.begun = Some(self.at);
        match self.request.framing {
            Framing::Length(length) if length > SMALL_BODY => {
                self.hand_over(&[], Phase::Stream(length), world);
            }
            _ => self.phase = Phase::Collect,
        }
        true
    }

    fn collect(&mut self, world: &World) -> bool {
        let rest = &self.read[self.at..];
        let (body, used) = match self.request.framing {
            Framing::None => (Vec::new(), 0),
            Framing::Length(length) if rest.len() as u64 >= length => {
                (rest[..length as usize].to_vec(), length as usize)
            }
            Framing::Length(_) => return false,
            Framing::Chunked => match chunked(rest, MAX_CHUNKED_BODY) {
                Ok(None) => return false,
                Ok(Some(whole)) => whole,
                Err(error) => {
                    let is_head = Some(self.request.is_head);
                    return self.refuse(error.status(), is_head, CloseReason::Protocol);
                }
            },
        };
        self.at += used;
        self.hand_over(&body, Phase::Asked, world);
        false
    }

    fn hand_over(&mut self, body: &[u8], next: Phase, world: &World) {
        if world.window.is_none() {
            self.refuse(503, Some(self.request.is_head), CloseReason::Shutdown);
            return;
        }
        if !self.open {
            if !world.present {
                return self.abort(CloseReason::PeerGone);
            }
            self.open = true;
            self.opened += 1;
            self.due.clear();
            self.compared = 0;
        }
        self.due.extend_from_slice(&self.request.head(body.len()));
        self.due.extend_from_slice(body);
        self.phase = next;
    }

    /// While memory was short something was read, when `held` bytes were waiting already: what is not complete was
    /// refused, sooner or later as it was cut.
    pub(super) fn advance_crowded(&mut self, held: usize, world: &World) {
        let refused = world.refused.last() == Some(&503);
        let opened =
            world.node.len() > self.opened || world.node.last().is_some_and(|n| n.len() > self.due.len());
        match self.phase {
            Phase::Between if held == 0 => {
                let is_head = match parse(&self.read[self.at..], &mut 0) {
                    Ok(Some(_)) => None,
                    _ => Some(false),
                };
                if !refused {
                    self.advance(world);
                } else {
                    self.refuse(503, is_head, CloseReason::Limit);
                }
                assert!(self.is_over(), "an unfinished head was kept");
            }
            Phase::Collect if refused && !opened => {
                self.refuse(503, Some(self.request.is_head), CloseReason::Limit);
            }
            Phase::Collect => {
                self.advance(world);
                assert!(self.phase != Phase::Collect, "more of a body was kept");
                if self.phase == Phase::Asked && (refused || self.held() > 0) {
                    self.crowd_out();
                }
            }
            Phase::Asked if held == 0 => self.crowd_out(),
            _ => {
                let streams = self.is_streaming();
                self.advance(world);
                // What follows the body at once.
                if streams && self.phase == Phase::Asked && self.held() > 0 {
                    self.crowd_out();
                }
            }
        }
    }

    /// There is no memory for what follows a request: that one is answered, unless its answer has begun.
    fn crowd_out(&mut self) {
        if self.answered {
            self.end(CloseReason::Limit);
        } else {
            self.refuse(503, Some(self.request.is_head), CloseReason::Limit);
        }
    }

    pub(super) fn data(&mut self, payload: &[u8], allowed: u64, pending: usize, crowded: bool) {
        if !self.open {
            return;
        }
        if payload.len() as u64 > allowed {
            self.abort(CloseReason::Protocol);
        } else if pending > 0 && crowded {
            self.abort(CloseReason::Limit);
        } else if matches!(self.phase, Phase::Asked | Phase::Stream(_) | Phase::Tunnel) {
            self.answered = true;
            self.hears.extend_from_slice(payload);
        } else {
            self.abort(CloseReason::Protocol);
        }
    }

    /// `sent`: whether the node had all that is due.
    pub(super) fn ready(&mut self, mode: ReadyMode, sent: bool, world: &World) {
        match (self.phase, mode) {
            (Phase::Asked, ReadyMode::Request) if sent && !self.request.last => self.phase = Phase::Between,
            (Phase::Asked | Phase::Stream(_), ReadyMode::Request) => self.end(CloseReason::Normal),
            (Phase::Asked, ReadyMode::Tunnel) if self.request.upgrade => self.phase = Phase::Tunnel,
            (Phase::Asked | Phase::Stream(_), ReadyMode::Tunnel) => self.abort(CloseReason::Protocol),
            _ => {}
        }
        self.advance(world);
    }

    /// The virtual connection is gone.
    pub(super) fn lose_node(&mut self, status: u16) {
        let waits = matches!(self.phase, Phase::Asked | Phase::Stream(_)) && !self.answered;
        if (waits || self.phase == Phase::Collect) && self.own.is_none() {
            self.own = Some((status, Some(self.request.is_head)));
        }
        self.end(CloseReason::Normal);
    }

    /// The connection manager stops.
    pub(super) fn stop(&mut self, pending: usize) {
        self.say_close(CloseReason::Shutdown);
        match self.phase {
            Phase::Between if self.held() == 0 && pending == 0 => self.phase = Phase::Closed,
            Phase::Ending | Phase::Closed => {}
            _ => self.lose_node(503),
        }
    }

    /// `sent`: as for [`Model::ready`].
    pub(super) fn gone(&mut self, pending: usize, sent: bool) {
        let reason = match self.phase {
            Phase::Asked if sent && !self.answered => CloseReason::Unanswered,
            Phase::Asked if sent && pending > 0 => CloseReason::Unanswered,
            Phase::Between | Phase::Collect if pending > 0 => CloseReason::Unanswered,
            Phase::Between if self.held() == 0 => CloseReason::Normal,
            _ => CloseReason::PeerGone,
        };
        self.abort(reason);
    }

    pub(super) fn timer(&self, pending: usize, world: &World) -> Timer {
        match self.phase {
            Phase::Closed => Timer::None,
            Phase::Ending if world.ended => Timer::Linger,
            Phase::Ending => Timer::Send,
            _ if pending > 0 => Timer::Send,
            Phase::Between if self.held() == 0 => Timer::Idle,
            Phase::Between => Timer::Head,
            Phase::Collect => Timer::Body,
            Phase::Stream(_) if world.credit > 0 => Timer::Body,
            Phase::Stream(_) | Phase::Asked | Phase::Tunnel => Timer::None,
        }
    }

    pub(super) fn timeout(&mut self, timer: Timer) {
        match timer {
            Timer::None => {}
            Timer::Ping | Timer::Pong | Timer::Message => unreachable!("no WebSocket ends here"),
            Timer::Idle | Timer::Send | Timer::Linger => self.abort(CloseReason::Timeout),
            Timer::Body if self.answered => self.abort(CloseReason::Timeout),
            // What is there of a head does not count as one.
            Timer::Head => _ = self.refuse(408, Some(false), CloseReason::Timeout),
            Timer::Body => _ = self.refuse(408, Some(self.request.is_head), CloseReason::Timeout),
        }
    }

    fn refuse(&mut self, status: u16, is_head: Option<bool>, reason: CloseReason) -> bool {
        assert_eq!(self.own, None, "a second answer");
        self.own = Some((status, is_head));
        self.end(reason);
        true
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        self.say_close(reason);
        if self.phase != Phase::Closed {
            self.phase = Phase::Ending;
        }
    }

    pub(super) fn abort(&mut self, reason: CloseReason) {
        self.say_close(reason);
        self.phase = Phase::Closed;
    }

    pub(super) fn say_close(&mut self, reason: CloseReason) {
        if self.open {
            self.open = false;
            self.closes.push(reason);
        }
    }

    /// Compares with what was seen. `pending`: bytes for the client that it has not taken.
    pub(super) fn check(&mut self, pending: usize, world: &World) {
        assert_eq!(world.refused, self.own.map(|own| own.0).into_iter().collect::<Vec<_>>());
        assert_eq!(world.open, self.open);
        assert_eq!(world.closes, self.closes);
        assert_eq!(world.node.len(), self.opened);
        if let Some(node) = world.node.last() {
            assert!(node.len() <= self.due.len(), "the node got more than there is");
            assert!(node[self.compared..] == self.due[self.compared..node.len()], "what the node gets");
            self.compared = node.len();
            assert!(self.is_over() || self.is_sent(world) || world.credit == 0, "credit is not used");
        }
        if self.phase != Phase::Closed {
            self.check_output(world.heard.len() + pending);
        }
        let upto = world.heard.len().min(self.hears.len());
        assert!(world.heard[self.heard..upto] == self.hears[self.heard..upto], "what the client hears");
        self.heard = upto;
        if world.ended {
            self.check_end(&world.heard[upto..]);
        }
        self.begun = None;
    }

    /// `output`: bytes written to the client and waiting for it, since the beginning.
    fn check_output(&mut self, output: usize) {
        let more = output.checked_sub(self.hears.len()).expect("an answer is cut off");
        let (body, bare) = self.begun.map_or((false, false), |at| (true, at == self.read.len()));
        let empty = matches!(self.request.framing, Framing::None | Framing::Length(0));
        let expects = body && self.request.expects && !empty;
        if self.own.is_some() {
            assert!(more > response::CONTINUE.len(), "no answer");
            assert_eq!(*self.rest.get_or_insert(more), more, "output after an answer of our own");
        } else if more > 0 {
            assert!(expects && more == response::CONTINUE.len(), "{more} bytes that nobody sent");
            self.hears.extend_from_slice(response::CONTINUE);
            self.interims += 1;
        } else {
            assert!(!(expects && bare) || self.is_over(), "no leave to go on");
        }
    }

    /// Everything was written: what the client heard after the node's answers is one answer, or nothing.
    fn check_end(&self, rest: &[u8]) {
        match self.own {
            None => assert!(rest.is_empty()),
            Some((status, is_head)) => {
                check_answer(rest.strip_prefix(response::CONTINUE).unwrap_or(rest), status, is_head);
            }
        }
    }

    /// Most heap memory that may be owned now.
    pub(super) fn most_heap(&self, pending: usize, world: &World) -> usize {
        let unsent = if self.is_over() || self.is_sent(world) { 0 } else { self.due.len() };
        let collected = if self.phase == Phase::Collect { self.held() + MAX_HEAD } else { 0 };
        let held = if self.is_over() { 0 } else { self.held() };
        if held + unsent + collected + pending == 0 {
            return if self.is_streaming() { 1_000 } else { 0 };
        }
        let body = (MAX_CHUNKED_BODY + MAX_HEAD).min(collected.max(unsent));
        // What grows by doubling may own twice what is in it.
        1_000 + 2 * (super::MOST_HELD + body + super::MOST_OUTPUT)
    }

    /// A body of which some is missing is remembered.
    fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Stream(_))
    }
}
