//! Requests are taken in the order of their numbers, and answered in that order.

use std::sync::Arc;

use super::super::answer::{Attributes, Condition, EMPTY, payload_of, terminated};
use super::super::outbox::{Lengths, Taken};
use super::{Answered, Begin, Carried, Effect, Effects, Held, Inbound, Parked, Phase, Session};
use crate::bosh::Request;
use crate::limits::{BOSH_POLLING, BOSH_REPORT, MAX_BATCH_BYTES};

impl<T: PartialEq + Copy> Session<T> {
    /// A request whose number was used before (XEP-0124, 14.3).
    pub(super) fn repeated(&mut self, rid: u64, ticket: T, now: u64, effects: &mut Effects<T>) {
        if let Some(held) = self.held.iter_mut().find(|held| held.rid == rid) {
            // It keeps its deadline: a client that repeats because the answer is a little late would have to wait as long again, and
            // gives up after some such waits.
            effects.extend(held.ticket.replace(ticket).map(Effect::Drop));
            return self.go_on(now, effects);
        }
        let back = (self.first_held() - rid) as usize;
        match self.answered.len().checked_sub(back).filter(|at| *at < self.answered.len()) {
            Some(at) => {
                // If it is lost by one way, it may arrive by the other.
                self.is_certain(at);
                let answered = &self.answered[at];
                effects.push(Effect::Answer(ticket, answered.text.clone()));
            }
            // An error that ends the session for whoever reads it. A request that was late, or came by a stuck connection, when
            // its repeat was answered long ago has nobody who does, and takes no session from its client.
            None => effects.push(refusal(ticket, Condition::ItemNotFound)),
        }
    }

    /// The number of the first request that is held, or would be.
    fn first_held(&self) -> u64 {
        self.next - self.held.len() as u64
    }

    /// Requests that a client may have sent without an answer.
    pub(super) fn requests(&self) -> u64 {
        u64::from(self.hold) + 1
    }

    /// Does all that can be done now.
    pub(super) fn go_on(&mut self, now: u64, effects: &mut Effects<T>) {
        while self.phase != Phase::Over && self.is_next_here() {
            let parked = self.parked.remove(0);
            if self.parked.is_empty() {
                self.parked = Vec::new(); // millions of sessions keep none
            }
            self.take(parked, now, effects);
        }
        if self.phase != Phase::Over {
            self.answer_what_is_due(now, effects);
            self.rest(now);
        }
    }

    /// Keeps a request until its turn comes.
    pub(super) fn park(&mut self, parked: Parked<T>, effects: &mut Effects<T>) {
        let rid = parked.request.rid;
        let at = self.parked.iter().position(|other| other.request.rid >= rid).unwrap_or(self.parked.len());
        match self.parked.get_mut(at).filter(|other| other.request.rid == rid) {
            Some(same) => effects.extend(std::mem::replace(same, parked).ticket.map(Effect::Drop)),
            None => self.parked.insert(at, parked),
        }
    }

    fn is_next_here(&self) -> bool {
        self.parked
            .first()
            .is_some_and(|first| first.request.rid == self.next && self.has_room(first.text.len()))
    }

    /// Whether a request with so many bytes of elements can be taken: the client session is not behind.
    pub(super) fn has_room(&self, length: usize) -> bool {
        let waits: usize = self.inbox.iter().map(|inbound| inbound.text.len() + 1).sum();
        waits == 0 || waits + length <= MAX_BATCH_BYTES
    }

    /// Takes the request whose turn it is.
    pub(super) fn take(&mut self, parked: Parked<T>, now: u64, effects: &mut Effects<T>) {
        let Parked { ticket, mut request, text } = parked;
        let refused = match () {
            () if !self.is_key_right(&mut request) => Some(Condition::ItemNotFound),
            () if self.is_overactive(&request, now) => Some(Condition::PolicyViolation),
            () if request.pause.is_some_and(|pause| pause > self.settings.max_pause) => {
                Some(Condition::PolicyViolation)
            }
            () => None,
        };
        if let Some(condition) = refused {
            effects.extend(ticket.map(|ticket| refusal(ticket, condition)));
            return self.end(effects);
        }
        self.next += 1;
        self.idle_since = None;
        self.acknowledged(&request, now);
        if self.phase == Phase::Open && (request.payload || request.restart || request.terminate) {
            let Request { to, version, lang, restart, payload, terminate, .. } = request;
            let version = version.or_else(|| self.versioned.then(|| "1.0".into()));
            let begin = restart.then(|| Box::new(Begin { to, version, lang }));
            // A request that begins a stream has no other purpose (XEP-0206, 5).
            let text = if payload && !restart { text } else { Box::default() };
            self.inbox.push(Inbound { begin, text, end: terminate });
        }
        let wait = u64::from(if self.hold == 0 { 0 } else { self.wait }) * 1_000;
        self.held.push(Held {
            rid: request.rid,
            deadline: now + wait,
            ticket,
            pause: request.pause.is_some(),
        });
        self.limit = request.pause.unwrap_or(self.settings.inactivity);
        if request.terminate {
            self.terminate(now, effects);
        }
    }

    /// XEP-0124, 15: the sum of each key is the one before.
    fn is_key_right(&mut self, request: &mut Request) -> bool {
        use sha1::{Digest, Sha1};
        let Some(expected) = &self.key else { return true };
        let Some(key) = request.key.take() else { return false };
        let sum: [u8; 20] = Sha1::digest(&key).into();
        let mut digits =
            sum.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| DIGITS[usize::from(half)]);
        let right = expected.len() == 40
            && expected.iter().all(|byte| digits.next() == Some(byte.to_ascii_lowercase()));
        self.key = Some(request.newkey.take().unwrap_or(key));
        right
    }

    /// XEP-0124, 11: two empty requests one right after the other, of a client whose requests are not held.
    fn is_overactive(&mut self, request: &Request, now: u64) -> bool {
        if self.wait > 0 && self.hold > 0 {
            return false;
        }
        let polled = self.polled.take();
        if !request.is_empty() {
            return false;
        }
        self.polled = Some(now);
        polled.is_some_and(|before| now < before + u64::from(BOSH_POLLING) * 1_000)
    }

    /// XEP-0124, 9.2 and 9.3.
    fn acknowledged(&mut self, request: &Request, now: u64) {
        self.report = None; // unless this one says so
        let Some(ack) = request.ack.filter(|_| self.acks) else { return };
        // This one is counted in `next`, and not held yet.
        let oldest = self.first_held() - 1 - self.answered.len() as u64;
        // It has them, so it will not ask for them.
        let known = ack.saturating_add(1).saturating_sub(oldest).min(self.answered.len() as u64) as usize;
        self.answered.drain(..known);
        let missing = self.answered.first().filter(|_| ack.saturating_add(1) == oldest + known as u64);
        self.report = missing
            .filter(|missing| now - missing.at >= BOSH_REPORT)
            .map(|missing| Box::new((ack + 1, missing.at)));
    }

    /// The client ends the session (XEP-0124, 13): all are told so. No element goes with it: clients do not look for one there,
    /// so what is left is for others, or for later.
    fn terminate(&mut self, now: u64, effects: &mut Effects<T>) {
        let oldest = self.held.first().map_or(self.next - 1, |held| held.rid);
        let mut attributes = self.attributes_for(oldest, now);
        attributes.terminate(None);
        let text = attributes.body(&[]);
        let mut tickets = self.held.drain(..).filter_map(|held| held.ticket);
        effects.extend(tickets.next().map(|ticket| Effect::Answer(ticket, Some(text.into()))));
        let told: Arc<[u8]> = terminated(None).into();
        effects.extend(tickets.map(|ticket| Effect::Answer(ticket, Some(Arc::clone(&told)))));
        self.end(effects);
    }

    /// It is over. Whoever still waits is told that it is not by his doing.
    pub(super) fn end(&mut self, effects: &mut Effects<T>) {
        self.phase = Phase::Over;
        self.idle_since = None;
        let held = self.held.drain(..).filter_map(|held| held.ticket);
        let parked = self.parked.drain(..).filter_map(|parked| parked.ticket);
        effects.extend(held.chain(parked).map(|ticket| refusal(ticket, Condition::OtherRequest)));
    }

    fn answer_what_is_due(&mut self, now: u64, effects: &mut Effects<T>) {
        while let Some(first) = self.held.first() {
            let ready =
                !first.pause && self.outbox.as_ref().is_some_and(|outbox| outbox.is_worth_an_answer());
            let many = self.held.len() > usize::from(self.hold);
            if first.ticket.is_none() {
                // Its client may send it once more. Another one is not kept waiting for that.
                let others = self.held.iter().any(|held| held.ticket.is_some());
                if (many && self.held.len() > 1) || (ready && others) {
                    self.answer(false, now, effects);
                    continue;
                }
                break;
            }
            // The first answer waits for the features of the stream, whatever `hold` is.
            let waits = self.creation.is_none() && (many || self.held.iter().any(|held| held.pause));
            if ready || waits || first.deadline <= now {
                self.answer(ready, now, effects);
            } else {
                break;
            }
            if self.phase == Phase::Over {
                return;
            }
        }
    }

    /// Answers the oldest request, with elements or without.
    fn answer(&mut self, with_payload: bool, now: u64, effects: &mut Effects<T>) {
        let held = self.held.remove(0);
        if self.held.len() == 1 {
            self.held.shrink_to_fit();
        }
        let plain = self.creation.is_none() && !self.acks && self.report.is_none() && !with_payload;
        let (mut lengths, creates) = (Lengths::new(), self.creation.is_some());
        let (text, ended) = if plain {
            (None, false)
        } else {
            let mut attributes = self.attributes_for(held.rid, now);
            let taken = match &mut self.outbox {
                Some(outbox) if with_payload => {
                    outbox.take(self.settings.max_concat as usize, &mut attributes)
                }
                _ => Taken::default(),
            };
            let text = attributes.body(&taken.payload);
            lengths = taken.lengths;
            ((text != EMPTY).then(|| text.into()), taken.ended)
        };
        self.outbox.take_if(|outbox| outbox.is_empty());
        if with_payload {
            self.polled = None;
        }
        let carried = held.ticket.filter(|_| !lengths.is_empty() && !creates);
        let carried = carried.map(|ticket| Box::new(Carried { ticket, lengths, lost: false }));
        if with_payload && carried.is_none() {
            // Nothing can be put before it.
            self.answered.iter_mut().for_each(|answered| answered.carried = None);
        }
        self.remember(Answered { at: now, text: text.clone(), carried });
        effects.extend(held.ticket.map(|ticket| Effect::Answer(ticket, text)));
        if ended {
            // The client knows that the session has ended; its other requests are answered with nothing.
            effects.extend(
                self.held.drain(..).filter_map(|held| held.ticket).map(|ticket| Effect::Answer(ticket, None)),
            );
            self.end(effects);
        }
    }

    fn attributes_for(&mut self, rid: u64, now: u64) -> Attributes {
        if let Some(creation) = self.creation.take() {
            return *creation;
        }
        let mut attributes = Attributes::default();
        let received = self.next - 1;
        if self.acks && received != rid {
            attributes.number("ack", received);
        }
        if let Some(report) = self.report.take() {
            attributes.number("report", report.0);
            attributes.number("time", now - report.1);
        }
        attributes
    }

    /// Whoever sends another request has got the answer to the one before, and will not be given it again.
    pub(super) fn arrived(&mut self, ticket: &T) {
        let of_his =
            |answered: &Answered<T>| answered.carried.as_ref().is_some_and(|at| at.ticket == *ticket);
        if let Some(at) = self.answered.iter().rposition(of_his) {
            self.is_certain(at);
        }
    }

    /// An answer is not taken back any more, so none before it is.
    fn is_certain(&mut self, at: usize) {
        self.answered[..=at].iter_mut().for_each(|answered| answered.carried = None);
    }

    /// Puts elements back that have not reached their client, those of the last answers that had any. False: nothing was.
    pub(super) fn take_back(&mut self, ticket: &T) -> bool {
        let mut carried = self.answered.iter_mut().filter_map(|answered| answered.carried.as_mut());
        let Some(lost) = carried.find(|carried| carried.ticket == *ticket) else { return false };
        lost.lost = true;
        let mut any = false;
        while let Some(at) = self.answered.iter().rposition(|answered| answered.carried.is_some())
            && let Some(carried) = self.answered[at].carried.take_if(|carried| carried.lost)
            && let Some(text) = self.answered[at].text.take()
        {
            let payload = payload_of(&text, &carried.lengths);
            self.outbox.get_or_insert_default().put_back(payload, &carried.lengths);
            if at + 1 == self.answered.len() {
                self.is_open_again();
            }
            any = true;
        }
        any
    }

    /// The last request that was answered is as one whose connection was closed before: no later one has been answered, so its
    /// repeat may still get what it asked for. It has waited long enough.
    fn is_open_again(&mut self) {
        let rid = self.first_held() - 1;
        self.answered.pop();
        self.held.insert(0, Held { rid, deadline: 0, ticket: None, pause: false });
    }

    fn remember(&mut self, answered: Answered<T>) {
        if self.answered.len() as u64 == self.requests() {
            self.answered.remove(0);
        }
        self.answered.push(answered);
    }

    /// A request has come.
    pub(super) const fn active(&mut self, now: u64) {
        if self.idle_since.is_some() {
            self.idle_since = Some(now);
        }
    }

    /// Notes whether a request is held.
    pub(super) fn rest(&mut self, now: u64) {
        let held = self.held.iter().any(|held| held.ticket.is_some()) || self.is_behind();
        if held || self.phase == Phase::Over {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
    }

    /// The request whose turn it is waits for the client session.
    fn is_behind(&self) -> bool {
        self.parked.first().is_some_and(|first| first.request.rid == self.next)
    }
}

pub(super) fn refusal<T>(ticket: T, condition: Condition) -> Effect<T> {
    Effect::Answer(ticket, Some(terminated(Some(condition)).into()))
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
