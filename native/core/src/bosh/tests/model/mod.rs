//! A client, a client session and a bad network, at random: what either sends arrives at the other, once and in order.
//!
//! * here: the two, around the machine
//! * `network`: what happens between them

mod network;

use std::collections::BTreeMap;

use super::*;
use crate::limits::BOSH_POLLING;

/// What was agreed upon.
#[derive(Debug, Clone)]
struct Agreed {
    hold: u64,
    wait: u64,
    acks: bool,
    shaped: bool,
    authenticated: bool,
    max_concat: u32,
}

/// A request of the client that is not answered.
#[derive(Debug)]
struct Asked {
    text: String,
    /// Who waits for the answer at the client; nobody when the connection broke.
    ticket: Option<u32>,
    pauses: bool,
}

/// What has become of one who waits, at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Answered,
    Dropped,
    Gone,
}

struct World {
    agreed: Agreed,
    session: Session<u32>,
    now: u64,
    tickets: u32,
    fates: BTreeMap<u32, Fate>,
    /// Requests whose elements came back because their answers were lost.
    taken_back: BTreeSet<u64>,
    /// Requests that have come more than once.
    repeated: BTreeSet<u64>,
    /// The number of a ticket's request.
    rids: BTreeMap<u32, u64>,
    /// The last answer to each request.
    given: BTreeMap<u64, Vec<u8>>,
    // The network.
    requests: Vec<(u32, String)>,
    answers: Vec<(u32, Option<Vec<u8>>)>,
    gone: Vec<u32>,
    // The client.
    rid: u64,
    lowest: u64,
    acked: u64,
    asked: BTreeMap<u64, Asked>,
    arrived: BTreeMap<u64, Vec<u8>>,
    queue: Vec<String>,
    polled: u64,
    client_sent: u32,
    client_got: u32,
    // The client session.
    session_sent: u32,
    session_got: u32,
}

/// Numbers of elements, which are to be the next ones.
fn count(text: &[u8], got: &mut u32) {
    let text = core::str::from_utf8(text).unwrap();
    for part in text.split("<e n='").skip(1) {
        let number = part.split('\'').next().unwrap();
        assert_eq!(number.parse(), Ok(*got), "the next element");
        *got += 1;
    }
}

fn has(text: &[u8], part: &str) -> bool {
    core::str::from_utf8(text).unwrap().contains(part)
}

fn element(number: u32, length: usize) -> String {
    format!("<e n='{number}'>{}</e>", "x".repeat(length))
}

impl World {
    fn new(agreed: &Agreed) -> Self {
        let ack = if agreed.acks { "ack='1'" } else { "" };
        let text = format!("<body rid='10' to='a' wait='{}' hold='{}' {ack}/>", agreed.wait, agreed.hold);
        let day = 100_000;
        let settings = Settings { inactivity: day, max_pause: day, max_concat: agreed.max_concat };
        let mut session = Session::new(parse(&text), text.as_bytes(), 0, &SID, true, settings, 0);
        let mut effects = Effects::new();
        assert!(session.send(Item::Features(b"<stream:features/>"), 0, &mut effects));
        assert_eq!(effects.len(), 1);
        session.set_shaped(agreed.shaped);
        if agreed.authenticated {
            session.set_authenticated();
        }
        Self {
            agreed: agreed.clone(),
            session,
            now: 0,
            tickets: 1,
            fates: BTreeMap::new(),
            taken_back: BTreeSet::new(),
            repeated: BTreeSet::new(),
            rids: BTreeMap::new(),
            given: BTreeMap::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            gone: Vec::new(),
            rid: 11,
            lowest: 11,
            acked: 0,
            asked: BTreeMap::new(),
            arrived: BTreeMap::new(),
            queue: Vec::new(),
            polled: 0,
            client_sent: 0,
            client_got: 0,
            session_sent: 0,
            session_got: 0,
        }
    }

    // The server.

    fn effects(&mut self, effects: Effects<u32>) {
        for effect in effects {
            let (ticket, fate, text) = match effect {
                Effect::Answer(ticket, text) => {
                    (ticket, Fate::Answered, Some(text.map_or_else(|| EMPTY.to_vec(), |text| text.to_vec())))
                }
                Effect::Drop(ticket) => (ticket, Fate::Dropped, None),
            };
            let before = self.fates.insert(ticket, fate);
            assert_eq!(before, Some(Fate::Waits), "{ticket} is answered once");
            if let Some(text) = &text {
                well_formed(text);
                let rid = self.rids[&ticket];
                let before = self.given.insert(rid, text.clone());
                let is_another = self.taken_back.contains(&rid);
                assert!(
                    is_another || before.is_none_or(|before| before == *text),
                    "the answer that was given before"
                );
            }
            self.answers.push((ticket, text));
        }
        self.deliver_to_session();
    }

    /// A request arrives, as from one who waits as `ticket`.
    fn arrives(&mut self, ticket: u32, text: &str) {
        let request = parse(text);
        let (rid, requests) = (request.rid, self.agreed.hold + 1);
        let is_current = self.asked.get(&rid).is_some_and(|asked| asked.ticket == Some(ticket));
        // What the client has done with is not sent by anybody for ever.
        if !is_current && (rid + requests < self.rid || rid <= self.acked) {
            return;
        }
        if self.rids.values().any(|other| *other == rid) {
            self.repeated.insert(rid);
        }
        self.rids.insert(ticket, rid);
        assert_eq!(self.fates.insert(ticket, Fate::Waits), None);
        if !is_current {
            self.gone.push(ticket);
        }
        let mut effects = Effects::new();
        self.session.request(request, text.as_bytes(), ticket, self.now, &mut effects);
        self.effects(effects);
    }

    fn take(&mut self, activated: Activated) -> bool {
        match activated {
            Activated::Waits => false,
            Activated::Batch(batch) => {
                for inbound in batch {
                    assert!(!inbound.end);
                    count(&inbound.text, &mut self.session_got);
                }
                true
            }
            Activated::Large | Activated::Shaped(_) => true,
            Activated::Closed => panic!("the session has ended"),
        }
    }

    /// What the client session has asked for.
    fn deliver_to_session(&mut self) {
        let mut effects = Effects::new();
        let activated = self.session.take_batch(false, self.now, &mut effects);
        self.take(activated);
        if !effects.is_empty() {
            self.effects(effects);
        }
    }

    fn session_asks(&mut self) -> bool {
        let mut effects = Effects::new();
        let activated = self.session.activate(true, self.now, &mut effects);
        let more = self.take(activated);
        self.effects(effects);
        more
    }

    fn session_sends(&mut self, length: usize) {
        let text = element(self.session_sent, length);
        let mut effects = Effects::new();
        assert!(self.session.send(Item::Element(text.as_bytes()), self.now, &mut effects));
        self.session_sent += 1;
        self.effects(effects);
    }

    fn passes(&mut self, time: u64) {
        let end = self.now + time;
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            let mut effects = Effects::new();
            self.session.tick(self.now, &mut effects);
            self.effects(effects);
            assert!(self.session.deadline().is_none_or(|next| next > deadline), "it has another deadline");
        }
        self.now = end;
    }

    fn is_gone(&mut self, ticket: u32) {
        if let Some(fate) = self.fates.get_mut(&ticket) {
            match *fate {
                Fate::Waits => *fate = Fate::Gone,
                Fate::Answered => drop(self.taken_back.insert(self.rids[&ticket])),
                Fate::Dropped | Fate::Gone => {}
            }
        }
        let mut effects = Effects::new();
        self.session.gone(&ticket, self.now, &mut effects);
        self.effects(effects);
    }

    // The client.

    fn is_polling(&self) -> bool {
        self.agreed.hold == 0 || self.agreed.wait == 0
    }

    fn may_ask(&self) -> bool {
        self.rid < self.lowest + self.agreed.hold + 1
    }

    fn sends(&mut self, attributes: &str, payload: &str) {
        let rid = self.rid;
        let ack = if self.agreed.acks && !self.asked.is_empty() {
            self.acked = self.lowest - 1;
            format!("ack='{}'", self.acked)
        } else {
            String::new()
        };
        let text = format!("<body rid='{rid}' {ack} {attributes}>{payload}</body>");
        self.rid += 1;
        let pauses = attributes.starts_with("pause");
        self.asked.insert(rid, Asked { text: text.clone(), ticket: Some(self.tickets), pauses });
        self.requests.push((self.tickets, text));
        self.tickets += 1;
    }

    fn client_acts(&mut self) {
        for asked in self.asked.values_mut().filter(|asked| asked.ticket.is_none()) {
            asked.ticket = Some(self.tickets);
            self.requests.push((self.tickets, asked.text.clone()));
            self.tickets += 1;
        }
        if !self.may_ask() {
            return;
        }
        if !self.queue.is_empty() {
            let payload: String = self.queue.drain(..self.queue.len().min(2)).collect();
            self.sends("", &payload);
        } else if self.asked.is_empty() {
            self.client_asks();
        }
    }

    fn client_asks(&mut self) {
        let is_early = self.is_polling()
            && (!self.asked.is_empty() || self.now < self.polled + u64::from(BOSH_POLLING) * 1_000);
        if self.may_ask() && !is_early {
            self.sends("", "");
        }
    }

    /// All connections are cut, and the server knows. Of what the client has sent all must have arrived, once, and it has nothing
    /// that waits for an earlier answer: this is about answers alone.
    fn reload(&mut self) {
        while self.session_asks() {}
        let current: Vec<u32> = self.asked.values().filter_map(|asked| asked.ticket).collect();
        let have_come = current.len() == self.asked.len()
            && current.iter().all(|ticket| self.fates.contains_key(ticket))
            && self.asked.keys().all(|rid| !self.repeated.contains(rid));
        if !have_come || !self.requests.is_empty() || !self.arrived.is_empty() {
            return;
        }
        self.asked.clear();
        // A page that asks at intervals keeps to them.
        self.polled = self.now;
        self.lowest = self.rid;
        self.answers.retain(|(ticket, _)| !current.contains(ticket));
        for ticket in current {
            self.is_gone(ticket);
        }
    }

    /// An answer, or the end of a connection without one.
    fn client_gets(&mut self, ticket: u32, text: Option<Vec<u8>>) {
        let found = self.asked.iter_mut().find(|(_, asked)| asked.ticket == Some(ticket));
        let Some((&rid, asked)) = found else { return };
        asked.ticket = None;
        let Some(text) = text else { return };
        let pauses = asked.pauses;
        self.asked.remove(&rid);
        self.polled = self.now;
        assert!(!pauses || !has(&text, "<e "), "a pause has no elements");
        self.arrived.insert(rid, text);
        while let Some(text) = self.arrived.remove(&self.lowest) {
            assert!(!has(&text, "terminate"), "the session has ended");
            count(&text, &mut self.client_got);
            self.lowest += 1;
        }
    }
}
