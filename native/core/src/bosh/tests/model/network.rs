//! What happens at random, and the properties.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// The client gets an element to send, of so many bytes.
    ClientSends(usize),
    /// It does what it can: repeats, sends, asks.
    ClientActs,
    /// It asks though it has asked.
    ClientAsks,
    /// It asks for a pause.
    ClientPauses,
    /// The client session sends an element of so many bytes.
    SessionSends(usize),
    /// The client session asks.
    SessionAsks,
    /// One of the requests that are under way arrives, arrives twice, or is lost.
    Request(usize),
    RequestTwice(usize),
    RequestLost(usize),
    /// One of the answers that are under way arrives, or is lost.
    Answer(usize),
    AnswerLost(usize),
    /// One of the connections that wait breaks: the client knows, the server will.
    Breaks(usize),
    /// The server is told of one.
    Gone(usize),
    /// Another page goes on with the session: it knows the next number, and nothing of what was asked.
    Reload,
    /// Time passes.
    Passes(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let length = || prop_oneof![19 => Just(0_usize), 1 => 0..20_000_usize];
    let any = || 0..8_usize;
    prop_oneof![
        5 => length().prop_map(Op::ClientSends),
        8 => Just(Op::ClientActs),
        1 => Just(Op::ClientAsks),
        1 => Just(Op::ClientPauses),
        5 => length().prop_map(Op::SessionSends),
        4 => Just(Op::SessionAsks),
        8 => any().prop_map(Op::Request),
        1 => any().prop_map(Op::RequestTwice),
        2 => any().prop_map(Op::RequestLost),
        6 => any().prop_map(Op::Answer),
        2 => any().prop_map(Op::AnswerLost),
        2 => any().prop_map(Op::Breaks),
        2 => any().prop_map(Op::Gone),
        1 => Just(Op::Reload),
        2 => (0..4_000_u64).prop_map(Op::Passes),
    ]
}

fn agreed() -> impl Strategy<Value = Agreed> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0..8_u64, prop_oneof![1 => Just(0), 5 => 1..60_u64], flags, 0..4_u32).prop_map(
        |(hold, wait, (acks, shaped, authenticated), max_concat)| Agreed {
            hold: hold.min(1),
            wait,
            acks,
            shaped,
            authenticated,
            max_concat,
        },
    )
}

impl World {
    fn run(&mut self, op: Op) {
        fn pick<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
            (!list.is_empty()).then(|| list.remove(at % list.len()))
        }
        match op {
            Op::ClientSends(length) => {
                self.queue.push(element(self.client_sent, length));
                self.client_sent += 1;
            }
            Op::ClientActs => self.client_acts(),
            Op::ClientAsks => self.client_asks(),
            Op::ClientPauses if self.may_ask() => self.sends("pause='100000'", ""),
            Op::ClientPauses => {}
            Op::SessionSends(length) => self.session_sends(length),
            Op::SessionAsks => {
                self.session_asks();
            }
            Op::Request(at) => {
                if let Some((ticket, text)) = pick(&mut self.requests, at) {
                    self.arrives(ticket, &text);
                }
            }
            Op::RequestTwice(at) => {
                if let Some((ticket, text)) = pick(&mut self.requests, at) {
                    self.requests.push((self.tickets, text.clone()));
                    self.tickets += 1;
                    self.arrives(ticket, &text);
                }
            }
            Op::RequestLost(at) => {
                if let Some((ticket, _)) = pick(&mut self.requests, at) {
                    self.client_gets(ticket, None);
                }
            }
            Op::Answer(at) => {
                if let Some((ticket, text)) = pick(&mut self.answers, at) {
                    self.client_gets(ticket, text);
                }
            }
            Op::AnswerLost(at) => {
                if let Some((ticket, _)) = pick(&mut self.answers, at) {
                    self.client_gets(ticket, None);
                    self.gone.push(ticket);
                }
            }
            Op::Breaks(at) => {
                let mut waiting: Vec<u32> =
                    self.fates.iter().filter(|(_, fate)| **fate == Fate::Waits).map(|(at, _)| *at).collect();
                if let Some(ticket) = pick(&mut waiting, at) {
                    self.client_gets(ticket, None);
                    self.gone.push(ticket);
                }
            }
            Op::Gone(at) => {
                if let Some(ticket) = pick(&mut self.gone, at) {
                    self.is_gone(ticket);
                }
            }
            Op::Reload => self.reload(),
            Op::Passes(time) => self.passes(time),
        }
    }

    /// The network is good from now on: all arrives, and the session can be ended.
    fn finish(mut self) {
        for _ in 0..1_000 {
            if self.client_got == self.session_sent
                && self.session_got == self.client_sent
                && self.requests.is_empty()
            {
                return self.end();
            }
            self.client_acts();
            for (ticket, text) in std::mem::take(&mut self.requests) {
                self.arrives(ticket, &text);
            }
            while self.session_asks() {}
            for ticket in std::mem::take(&mut self.gone) {
                self.is_gone(ticket);
            }
            for (ticket, text) in std::mem::take(&mut self.answers) {
                self.client_gets(ticket, text);
            }
            self.passes(1_000);
        }
        panic!(
            "{} of {} elements arrived at the client, {} of {} at the session",
            self.client_got, self.session_sent, self.session_got, self.client_sent
        );
    }

    fn end(mut self) {
        assert_eq!(self.session.unsent().count(), 0);
        let rid = 1 << 52;
        let text = format!("<body rid='{rid}'/>");
        let ticket = self.tickets;
        self.fates.insert(ticket, Fate::Waits);
        self.rids.insert(ticket, rid);
        self.given.clear();
        // Beyond the window: the session ends.
        let mut effects = Effects::new();
        self.session.request(parse(&text), text.as_bytes(), ticket, self.now, &mut effects);
        for effect in effects {
            let Effect::Answer(ticket, Some(text)) = effect else { panic!("{effect:?}") };
            assert!(short(Some(&text)).starts_with(TERMINATED));
            assert_eq!(self.fates.insert(ticket, Fate::Answered), Some(Fate::Waits));
        }
        assert!(!self.fates.values().any(|fate| *fate == Fate::Waits), "{:?}", self.fates);
        assert_eq!(self.session.deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the network does, nothing is lost, doubled or exchanged, nobody waits for ever, and the session goes on.
    #[test]
    fn elements_arrive_once_and_in_order(
        agreed in agreed(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut world = World::new(&agreed);
        for op in ops {
            world.run(op);
        }
        world.finish();
    }
}
