//! The session machine, by the sections of XEP-0124 and XEP-0206, and the table of sessions.

mod acks;
mod creation;
mod elements;
mod ends;
mod inbox;
mod keys;
mod lost;
mod model;
mod order;
mod pauses;
mod request;
mod sessions;
mod timers;
mod waiting;

use std::collections::BTreeSet;

use super::*;
use crate::xml::{Sink, XmlLimits};

const SETTINGS: Settings = Settings { inactivity: 30, max_pause: 120, max_concat: 0 };
const SID: Sid = Sid { node: 1, place: 2, secret: [3; 16] };

/// Answers as [`short`] writes them.
const NOTHING: &str = "-";
const DROPPED: &str = "dropped";
const NOT_FOUND: &str = "type='terminate' condition='item-not-found'";
const OTHER: &str = "type='terminate' condition='other-request'";
const VIOLATION: &str = "type='terminate' condition='policy-violation'";
const TERMINATED: &str = "type='terminate'";
const STREAM_ENDED: &str = "type='terminate' condition='remote-stream-error'";

fn parse(text: &str) -> Request {
    Request::parse(text.as_bytes(), &XmlLimits::default()).unwrap()
}

/// Requires that a text is XML with declared prefixes, and nothing but one element.
fn well_formed(text: &[u8]) {
    struct Nothing;
    impl Sink for Nothing {
        fn start(&mut self, _: &[u8]) {}
        fn attribute(&mut self, _: &[u8], _: &[u8]) {}
        fn attributes_end(&mut self) {}
        fn text(&mut self, _: &[u8]) {}
        fn end(&mut self) {}
    }
    let limits = XmlLimits { elements: 1_000_000, ..XmlLimits::default() };
    let result = crate::xml::parse(text, &limits, &mut Nothing);
    assert_eq!(result, Ok(()), "{}", String::from_utf8_lossy(text));
}

/// What an answer has beside the `<body/>` that all have: attributes, then elements.
fn short(text: Option<&[u8]>) -> String {
    let text = text.unwrap_or(EMPTY);
    well_formed(text);
    if text == EMPTY {
        return NOTHING.into();
    }
    let text = core::str::from_utf8(text).unwrap();
    let rest = text.strip_prefix("<body xmlns='http://jabber.org/protocol/httpbind'").unwrap();
    let rest = rest.trim_start();
    match rest.strip_suffix("</body>") {
        Some(rest) => {
            let (attributes, payload) = rest.split_once('>').unwrap();
            format!("{attributes}{}{payload}", if attributes.is_empty() { "" } else { " " })
        }
        None => rest.strip_suffix("/>").unwrap().into(),
    }
}

/// What was done: who was answered, and what.
type Done = Vec<(u32, String)>;

/// What is expected to have been done.
fn done(expected: &[(u32, &str)]) -> Done {
    expected.iter().map(|(ticket, text)| (*ticket, (*text).into())).collect()
}

/// A session, its client and its client session. Each ticket is answered once at most, and each answer is XML.
struct Talk {
    session: Session<u32>,
    now: u64,
    waiting: BTreeSet<u32>,
}

impl Talk {
    /// A session that was asked for at 0 ms, by request 10, with ticket 10.
    fn create(attributes: &str, settings: Settings) -> Self {
        let text = format!(
            "<body rid='10' to='a' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' \
             xmlns='{NAMESPACE}' {attributes}/>"
        );
        let session = Session::new(parse(&text), text.as_bytes(), 10, &SID, true, settings, 0);
        Self { session, now: 0, waiting: BTreeSet::from([10]) }
    }

    /// One whose creation was answered at 0 ms, with the features; its user has logged in, its client session waits.
    fn with(attributes: &str, settings: Settings) -> Self {
        let mut talk = Self::create(attributes, settings);
        assert!(matches!(talk.activate(), Activated::Batch(batch) if batch.len() == 1));
        assert_eq!(talk.send(Item::Start { id: b"x", version: b"1.0" }), []);
        assert_eq!(talk.send(Item::Features(b"<stream:features/>")).len(), 1);
        assert_eq!(talk.activate(), Activated::Waits);
        talk.session.set_authenticated();
        talk
    }

    fn open(attributes: &str) -> Self {
        Self::with(attributes, SETTINGS)
    }

    /// One that is kept waiting (`hold='1'`), with request 11.
    fn held(attributes: &str) -> Self {
        let mut talk = Self::open(attributes);
        assert_eq!(talk.empty(11), []);
        talk
    }

    /// What was done by the last call.
    fn done(&mut self, effects: Effects<u32>) -> Done {
        let one = |effect| match effect {
            Effect::Answer(ticket, text) => (ticket, short(text.as_deref())),
            Effect::Drop(ticket) => (ticket, DROPPED.into()),
        };
        let done: Done = effects.into_iter().map(one).collect();
        for (ticket, text) in &done {
            assert!(self.waiting.remove(ticket), "{ticket} does not wait, but is answered: {text}");
        }
        done
    }

    /// A request with these attributes and elements, from one who waits as `ticket`.
    fn request_as(&mut self, ticket: u32, rid: u64, attributes: &str, payload: &str) -> Done {
        assert!(self.waiting.insert(ticket));
        let text = format!(
            "<body rid='{rid}' xmlns='{NAMESPACE}' xmlns:xmpp='urn:xmpp:xbosh' {attributes}>{payload}</body>"
        );
        let mut effects = Effects::new();
        self.session.request(parse(&text), text.as_bytes(), ticket, self.now, &mut effects);
        self.done(effects)
    }

    /// One whose ticket is its number.
    fn request(&mut self, rid: u64, attributes: &str, payload: &str) -> Done {
        self.request_as(rid as u32, rid, attributes, payload)
    }

    fn empty(&mut self, rid: u64) -> Done {
        self.request(rid, "", "")
    }

    /// The client session sends something, which it can.
    fn send(&mut self, item: Item<'_>) -> Done {
        let mut effects = Effects::new();
        assert!(self.session.send(item, self.now, &mut effects));
        self.done(effects)
    }

    fn element(&mut self, text: &str) -> Done {
        self.send(Item::Element(text.as_bytes()))
    }

    /// Whether it is told that it cannot send.
    fn is_refused(&mut self, item: Item<'_>) -> bool {
        let mut effects = Effects::new();
        let refused = !self.session.send(item, self.now, &mut effects);
        assert!(effects.is_empty());
        refused
    }

    /// The client session asks; nobody is answered by that.
    fn activate(&mut self) -> Activated {
        let (activated, done) = self.activate_and(false);
        assert_eq!(done, []);
        activated
    }

    fn activate_and(&mut self, unbounded: bool) -> (Activated, Done) {
        let mut effects = Effects::new();
        let activated = self.session.activate(unbounded, self.now, &mut effects);
        (activated, self.done(effects))
    }

    /// What there is for a client session that has asked before, whoever is answered by that.
    fn batch(&mut self) -> Activated {
        let mut effects = Effects::new();
        let activated = self.session.take_batch(false, self.now, &mut effects);
        self.done(effects);
        activated
    }

    fn close(&mut self) -> Done {
        let mut effects = Effects::new();
        self.session.close(self.now, &mut effects);
        self.done(effects)
    }

    /// The connection of one who waits was closed; nobody is answered by that.
    fn gone(&mut self, ticket: u32) {
        self.waiting.remove(&ticket);
        assert_eq!(self.lost(ticket), []);
    }

    /// The answer to one has not arrived.
    fn lost(&mut self, ticket: u32) -> Done {
        let mut effects = Effects::new();
        self.session.gone(&ticket, self.now, &mut effects);
        self.done(effects)
    }

    fn hurry(&mut self, ticket: u32) -> Done {
        let mut effects = Effects::new();
        self.session.hurry(&ticket, self.now, &mut effects);
        self.done(effects)
    }

    fn tick(&mut self, now: u64) -> Done {
        self.now = now;
        let mut effects = Effects::new();
        self.session.tick(now, &mut effects);
        self.done(effects)
    }

    /// Whether it has ended; its client session is told.
    fn has_ended(&mut self) -> bool {
        if self.session.is_over() {
            return true;
        }
        let ended = loop {
            match self.activate_and(true).0 {
                Activated::Batch(_) | Activated::Shaped(_) => {}
                Activated::Closed => break true,
                _ => break false,
            }
        };
        ended && self.session.is_over()
    }

    fn unsent(&self) -> Vec<String> {
        self.session.unsent().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }
}

/// The elements of requests, without the `<body/>`s around them.
fn elements(activated: &Activated) -> Vec<String> {
    let Activated::Batch(batch) = activated else { panic!("{activated:?}") };
    let one = |inbound: &Inbound| {
        let text = core::str::from_utf8(&inbound.text).unwrap();
        let (_, text) = text.split_once('>').unwrap_or(("", "</body>"));
        text.strip_suffix("</body>").unwrap().into()
    };
    batch.iter().map(one).collect()
}

#[test]
fn a_session_is_small() {
    let size = size_of::<Session<[u64; 4]>>();
    assert!(size <= 400, "a session takes {size} bytes");
}
