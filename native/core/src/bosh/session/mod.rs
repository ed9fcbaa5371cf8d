//! One session.
//!
//! * here: what it is, and what can be done with it
//! * `order`: in which order requests are taken and answered

mod order;

use std::sync::Arc;

use smallvec::SmallVec;

use super::answer::{Attributes, Condition};
use super::outbox::{Item, Lengths, Outbox};
use super::{BOSH_VERSION, Request, Sid};
use order::refusal;

use crate::limits::{
    BOSH_HOLD, BOSH_OUTBOX, BOSH_POLLING, BOSH_WAIT, MAX_BATCH, MAX_BATCH_BYTES, SMALL_MESSAGE,
};

/// What the operator has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Seconds without a request after which a session ends.
    pub inactivity: u32,
    /// Longest pause that a client may ask for, in seconds.
    pub max_pause: u32,
    /// Most elements in an answer; 0: no limit.
    pub max_concat: u32,
}

/// What is to be done with those who wait for answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<T> {
    /// The answer, with status 200; `None` is the one that says nothing, [`EMPTY`](super::EMPTY).
    Answer(T, Option<Arc<[u8]>>),
    /// The same request was sent once more: this one's connection is closed without an answer.
    Drop(T),
}

/// See [`Effect`]. In the order in which they are to be done.
pub type Effects<T> = SmallVec<[Effect<T>; 2]>;

/// A stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its server; `None` for the one of the stream before.
    pub to: Option<String>,
    /// The version of XMPP.
    pub version: Option<String>,
    /// The language.
    pub lang: Option<String>,
}

/// What a request brings the client session, in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Inbound {
    /// A stream begins.
    pub begin: Option<Box<Begin>>,
    /// The text of a `<body/>` whose children are elements; empty when there are none.
    pub text: Box<[u8]>,
    /// The stream ends.
    pub end: bool,
}

/// What there is for a client session.
#[derive(Debug, PartialEq, Eq)]
pub enum Activated {
    /// Nothing, or it has not asked.
    Waits,
    /// This; it has to ask again for more.
    Batch(Vec<Inbound>),
    /// Something that takes long to take apart: to be asked for by one who has time.
    Large,
    /// Nothing yet: the client is slowed down, and what came before had so many bytes. When they are paid for it is to be
    /// asked for again.
    Shaped(u32),
    /// Nothing, and nothing will come.
    Closed,
}

/// A request that is not answered.
#[derive(Debug)]
struct Held<T> {
    rid: u64,
    /// When it is answered at the latest.
    deadline: u64,
    /// Who waits. Nobody, when the connection was closed: the client may send the request once more.
    ticket: Option<T>,
    /// It asks for a pause: it is answered, with all before it, and without elements.
    pause: bool,
}

/// A request whose turn has not come: one before it is missing, or the client session is behind.
#[derive(Debug)]
struct Parked<T> {
    ticket: Option<T>,
    request: Request,
    text: Box<[u8]>,
}

/// An answer that was given.
#[derive(Debug)]
struct Answered<T> {
    at: u64,
    text: Option<Arc<[u8]>>,
    carried: Option<Box<Carried<T>>>,
}

/// The elements of an answer, as long as it may turn out that it has not reached its client.
#[derive(Debug)]
struct Carried<T> {
    ticket: T,
    /// Bytes of each.
    lengths: Lengths,
    /// It has not reached him; one that was given later may have.
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client session has gone. What it sent last is still to be fetched.
    Closed,
    Over,
}

/// See the module. `T` names one who waits for an answer.
///
/// Requests are taken in the order of their numbers, those of a window of `hold` + 1; each is answered when there is something
/// to say, when more wait than are to be held, or when its time is over.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct Session<T> {
    /// The number whose turn it is.
    next: u64,
    /// Requests that were taken, the last ones before `next`.
    held: SmallVec<[Held<T>; 1]>,
    /// Ordered by their numbers.
    parked: Vec<Parked<T>>,
    /// The last answers, of the numbers before those of `held`.
    answered: SmallVec<[Answered<T>; 2]>,
    inbox: Vec<Inbound>,
    outbox: Option<Box<Outbox>>,
    /// Attributes of the answer to the request that made the session.
    creation: Option<Box<Attributes>>,
    key: Option<Box<[u8]>>,
    /// To be told with the next answer: the number of an answer that has not arrived, and when it was given.
    report: Option<Box<(u64, u64)>>,
    /// Since when nothing is held; the session ends `limit` seconds later.
    idle_since: Option<u64>,
    limit: u32,
    settings: Settings,
    /// When an empty request of a polling session was answered with nothing.
    polled: Option<u64>,
    /// Bytes of the last batch, of a client that is slowed down.
    unpaid: u32,
    wait: u16,
    hold: u8,
    phase: Phase,
    /// The client named a version of XMPP, and so means each stream to have one.
    versioned: bool,
    acks: bool,
    asked: bool,
    told: bool,
    authenticated: bool,
    shaped: bool,
}

impl<T: PartialEq + Copy> Session<T> {
    /// The session that `request` asks for, which waits for its answer, as `ticket`: that comes with the features of the
    /// stream (XEP-0206, 2).
    pub fn new(
        request: Request,
        text: &[u8],
        ticket: T,
        sid: &Sid,
        secure: bool,
        settings: Settings,
        now: u64,
    ) -> Self {
        let wait = request.wait.unwrap_or(BOSH_WAIT);
        let hold = request.hold.unwrap_or(BOSH_HOLD);
        let acks = request.ack == Some(1);
        let versioned = request.version.is_some();
        let mut attributes = Attributes::default();
        attributes.text("sid", &sid.text());
        attributes.number("wait", wait.into());
        attributes.number("hold", hold.into());
        attributes.number("requests", u64::from(hold) + 1);
        attributes.text("ver", request.ver.unwrap_or(BOSH_VERSION).min(BOSH_VERSION).text().as_bytes());
        attributes.number("polling", BOSH_POLLING.into());
        attributes.number("inactivity", settings.inactivity.into());
        attributes.number("maxpause", settings.max_pause.into());
        attributes.text("from", request.to.as_deref().unwrap_or_default().as_bytes());
        attributes.text("secure", if secure { b"true" } else { b"false" });
        if acks {
            attributes.number("ack", request.rid);
        }
        attributes.declare_xmpp();
        attributes.declare_stream();
        attributes.text("xmpp:restartlogic", b"true");
        let begin =
            Begin { to: request.to.clone(), version: request.version.clone(), lang: request.lang.clone() };
        let text = if request.payload { text.into() } else { Box::default() };
        // A client that wants no request held still gets the stream's features, which take no time.
        let deadline = now + u64::from(wait.max(1)) * 1_000;
        let mut session = Self {
            next: request.rid + 1,
            held: SmallVec::new(),
            parked: Vec::new(),
            answered: SmallVec::new(),
            inbox: vec![Inbound { begin: Some(Box::new(begin)), text, end: request.terminate }],
            outbox: None,
            creation: Some(Box::new(attributes)),
            key: request.newkey,
            report: None,
            idle_since: None,
            limit: settings.inactivity,
            settings,
            polled: None,
            unpaid: 0,
            wait,
            hold,
            phase: Phase::Open,
            versioned,
            acks,
            asked: false,
            told: false,
            authenticated: false,
            shaped: false,
        };
        session.held.push(Held { rid: request.rid, deadline, ticket: Some(ticket), pause: false });
        session
    }

    /// A request of the session has come; `text` is all of its body.
    pub fn request(&mut self, request: Request, text: &[u8], ticket: T, now: u64, effects: &mut Effects<T>) {
        let rid = request.rid;
        if self.phase == Phase::Over || rid >= self.next + self.requests() {
            return self.refuse(ticket, Condition::ItemNotFound, effects);
        }
        self.active(now);
        self.arrived(&ticket);
        if rid < self.next {
            return self.repeated(rid, ticket, now, effects);
        }
        let text = if request.payload { text.into() } else { Box::default() };
        let parked = Parked { ticket: Some(ticket), request, text };
        if rid == self.next && self.parked.is_empty() && self.has_room(parked.text.len()) {
            self.take(parked, now, effects);
        } else {
            self.park(parked, effects);
        }
        self.go_on(now, effects);
    }

    /// The client has sent what it may not send, whatever its number is: it is told so, and the session ends.
    pub fn refuse(&mut self, ticket: T, condition: Condition, effects: &mut Effects<T>) {
        effects.push(refusal(ticket, condition));
        self.end(effects);
    }

    /// The client session asks for the next elements. `unbounded`: the caller has time for [`Activated::Large`] ones.
    pub fn activate(&mut self, unbounded: bool, now: u64, effects: &mut Effects<T>) -> Activated {
        if self.unpaid > 0 {
            return Activated::Shaped(std::mem::take(&mut self.unpaid));
        }
        self.asked = true;
        self.take_batch(unbounded, now, effects)
    }

    /// To be called after [`Session::request`] and all else that may bring something: gives what there is to a client session
    /// that has asked.
    pub fn take_batch(&mut self, unbounded: bool, now: u64, effects: &mut Effects<T>) -> Activated {
        if !self.asked {
            return Activated::Waits;
        }
        let Some(first) = self.inbox.first() else {
            if self.phase == Phase::Open {
                return Activated::Waits;
            }
            self.asked = false;
            self.told = true;
            return Activated::Closed;
        };
        if first.text.len() > SMALL_MESSAGE && !unbounded {
            return Activated::Large;
        }
        self.asked = false;
        // Logging in changes what may come next: until then one at a time.
        let most = if self.authenticated { MAX_BATCH } else { 1 };
        let (mut count, mut bytes) = (0, 0);
        for inbound in &self.inbox {
            if count == most || (count > 0 && bytes + inbound.text.len() > MAX_BATCH_BYTES) {
                break;
            }
            count += 1;
            bytes += inbound.text.len();
        }
        let rest = self.inbox.split_off(count);
        let batch = std::mem::replace(&mut self.inbox, rest);
        if self.shaped {
            self.unpaid = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        // There is room for requests that wait for it.
        self.go_on(now, effects);
        Activated::Batch(batch)
    }

    /// The client session sends something. False: it is too late, or too much waits for the client.
    pub fn send(&mut self, item: Item<'_>, now: u64, effects: &mut Effects<T>) -> bool {
        let waits = self.outbox.as_ref().map_or(0, |outbox| outbox.len());
        let room = match item {
            Item::Element(text) => waits + text.len() <= BOSH_OUTBOX || waits == 0,
            _ => true,
        };
        let ended = self.outbox.as_ref().is_some_and(|outbox| outbox.is_ended());
        if self.phase != Phase::Open || ended || !room {
            return false;
        }
        self.outbox.get_or_insert_default().push(item);
        self.go_on(now, effects);
        true
    }

    /// The client session has ended, or gives the session up.
    pub fn close(&mut self, now: u64, effects: &mut Effects<T>) {
        self.told = true;
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Closed;
        self.inbox = Vec::new();
        self.outbox.get_or_insert_default().push(Item::End);
        self.go_on(now, effects);
    }

    /// The connection of one who waits was closed, or of one whose answer has surely not reached him. Its client may send the
    /// request once more; it may as well be another page that goes on with the session, and does not know of that request.
    /// So the elements of such an answer go with the next one, unless later ones may have arrived.
    pub fn gone(&mut self, ticket: &T, now: u64, effects: &mut Effects<T>) {
        for held in &mut self.held {
            held.ticket.take_if(|held| held == ticket);
        }
        self.parked.retain(|parked| parked.ticket.as_ref() != Some(ticket));
        if self.take_back(ticket) {
            self.go_on(now, effects);
        } else {
            self.rest(now);
        }
    }

    /// Who waits has sent another request by the same connection, which comes when this one is answered (XEP-0124, 18): it is
    /// as if that one had come, and this one is answered, if it is held, as are those before it.
    pub fn hurry(&mut self, ticket: &T, now: u64, effects: &mut Effects<T>) {
        let Some(at) = self.held.iter().position(|held| held.ticket.as_ref() == Some(ticket)) else { return };
        if self.creation.is_none() {
            for held in &mut self.held[..=at] {
                held.deadline = held.deadline.min(now);
            }
            self.go_on(now, effects);
        }
    }

    /// A time is over: see [`Session::deadline`].
    pub fn tick(&mut self, now: u64, effects: &mut Effects<T>) {
        if self.idle_since.is_some_and(|since| since + u64::from(self.limit) * 1_000 <= now) {
            return self.end(effects);
        }
        self.go_on(now, effects);
    }

    /// When [`Session::tick`] is to be called, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let idle = self.idle_since.map(|since| since + u64::from(self.limit) * 1_000);
        let held = self.held.iter().filter(|held| held.ticket.is_some()).map(|held| held.deadline).min();
        match (idle, held) {
            (Some(idle), Some(held)) => Some(idle.min(held)),
            (idle, held) => idle.or(held),
        }
    }

    /// The client has logged in: it may send more at once.
    pub const fn set_authenticated(&mut self) {
        self.authenticated = true;
    }

    /// Whether the client has logged in.
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether bytes are to be paid for ([`Activated::Shaped`]).
    pub const fn set_shaped(&mut self, shaped: bool) {
        self.shaped = shaped;
    }

    /// Nothing more can be done with it, and its client session knows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.told
    }

    /// Elements that no answer has carried, of a session that is over.
    pub fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.outbox.iter().flat_map(|outbox| outbox.elements())
    }
}
