//! Connections of kind XMPP: batches of messages for an owner that asks for them.

use super::link::{CONSUMER, Peer, close, data};
use super::*;
use crate::limits::{MAX_BATCH, MAX_BATCH_BYTES, MAX_STANZA, MAX_STANZA_BEFORE_LOGIN, SMALL_MESSAGE, WINDOW};
use crate::link::messages::{Fault, header};
use crate::link::{Frame, Kind, Open};

fn open(id: u64) -> Frame<'static> {
    let local = "127.0.0.1:5280".parse().expect("an address");
    Frame::Open { id, open: Open { kind: Kind::Xmpp, tls: true, client: client(), local } }
}

fn message(text: &[u8]) -> Vec<u8> {
    [&header(text.len() as u32), text].concat()
}

fn texts(batch: &Batch<u32, Vec<u8>>) -> Vec<String> {
    batch.texts().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// What was to be done, as short texts.
fn told(actions: Vec<Action<u32, Vec<u8>>>) -> Vec<String> {
    let tell = |action| match action {
        Action::Start(_) => "start".into(),
        Action::Attach(_) => "attach".into(),
        Action::Large(_) => "large".into(),
        Action::Open => "open".into(),
        Action::Deliver(batch) => {
            assert_eq!(batch.owner, CONSUMER);
            let fault = batch.fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
            format!("{}{fault}", texts(&batch).join(","))
        }
    };
    actions.into_iter().map(tell).collect()
}

struct Session {
    peer: Peer,
    handle: Handle,
}

impl Session {
    /// A connection whose first message is `<open/>`, with its owner named.
    fn new() -> Self {
        let mut peer = Peer::serving(TestTable::new(), Served::HttpAndXmpp);
        let actions = peer.actions(&[open(1), data(1, &message(b"<open/>"))]);
        let [Action::Attach(handle)] = actions[..] else { panic!("{actions:?}") };
        peer.table.set_owner(&handle, CONSUMER, 0, &mut peer.world).expect("open");
        Self { peer, handle }
    }

    /// One that has asked for and got its first message, has logged in, and asks for more.
    fn logged_in() -> Self {
        let mut session = Self::new();
        assert_eq!(session.activate(), "<open/>");
        session.peer.table.set_authenticated(&session.handle);
        assert_eq!(session.activate(), "waits");
        session
    }

    fn activate(&mut self) -> String {
        match self.peer.table.activate(&self.handle, &mut self.peer.world) {
            Ok(Activated::Waits) => "waits".into(),
            Ok(Activated::Large) => "large".into(),
            Ok(Activated::Shaped(bytes)) => format!("{bytes} bytes"),
            Ok(Activated::Batch(batch)) => told(vec![Action::Deliver(batch)]).remove(0),
            Err(Closed) => "closed".into(),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Vec<String> {
        told(self.peer.actions(&[data(1, bytes)]))
    }

    fn large(&mut self) -> Option<usize> {
        let batch = self.peer.table.take_large(&self.handle, &mut self.peer.world).expect("open")?;
        batch.texts().map(<[u8]>::len).next()
    }

    fn is_told_the_end(&mut self) -> bool {
        matches!(self.mail().pop(), Some(Message::ActiveClosed(_)))
    }

    /// What the owner was told.
    fn mail(&mut self) -> Vec<Message<Vec<u8>>> {
        let mail = self.peer.world.mail.drain(..);
        mail.filter(|(to, _)| *to == CONSUMER).map(|(_, message)| message).collect()
    }
}

/// The first message has an owner started; what it asks for it gets at once or with what comes, and nothing in between; idle
/// it costs its slot alone.
#[test]
fn messages_go_to_the_owner_when_it_asks() {
    let mut session = Session::new();
    let actions = session.peer.actions(&[data(1, &message(b"<auth/>"))]);
    assert_eq!(told(actions), [""; 0], "nobody has asked");
    let Ok(Activated::Batch(first)) = session.peer.table.activate(&session.handle, &mut session.peer.world)
    else {
        panic!("the first message waits")
    };
    assert!(first.first && !first.authenticated && first.fault.is_none());
    assert_eq!(texts(&first), ["<open/>"], "one at a time before login");
    assert_eq!(session.activate(), "<auth/>");
    assert_eq!(session.data(&message(b"a")), [""; 0]);
    session.peer.table.set_authenticated(&session.handle);
    assert_eq!(session.data(&message(b"b")), [""; 0]);
    assert_eq!(session.activate(), "a,b");
    assert_eq!(session.activate(), "waits");
    assert_eq!(session.peer.table.stats().busy, 0, "idle and asked for: no queues");
    assert_eq!(session.data(&[message(b"c"), message(b"d")].concat()), ["c,d"]);
    assert_eq!(session.data(&message(b"e")), [""; 0]);
    let info = session.peer.table.info(&session.handle).expect("open");
    assert!(info.tls && info.input > 0 && info.owner == Some(CONSUMER));
}

/// A message is handed on when its last byte has come, wherever frames cut it.
#[test]
fn messages_may_come_byte_by_byte() {
    let mut session = Session::logged_in();
    let all = [message(b"<presence/>"), message(b"<iq/>")].concat();
    let mut got = Vec::new();
    for byte in all {
        for text in session.data(&[byte]) {
            got.push(text);
            assert_eq!(session.activate(), "waits");
        }
    }
    assert_eq!(got, ["<presence/>", "<iq/>"]);
}

/// A link that did not announce it serves no such connection.
#[test]
fn connections_of_messages_are_refused_where_they_are_not_served() {
    let mut peer = Peer::new();
    assert_eq!(told(peer.actions(&[open(1)])), [""; 0]);
    assert_eq!(peer.output(), ["error 1 Other", "close 1 Limit"]);
}

/// What was sent before the end is dealt with before it, and the owner learns of the end when it asks for more.
#[test]
fn the_end_comes_after_the_messages() {
    let mut session = Session::logged_in();
    assert_eq!(session.data(&message(b"a")), ["a"]);
    assert_eq!(session.data(&message(b"b")), [""; 0]);
    session.peer.actions(&[close(1)]);
    assert!(session.mail().is_empty(), "it is busy with the first one");
    assert_eq!(session.activate(), "b");
    assert!(session.mail().is_empty());
    assert_eq!(session.activate(), "waits");
    assert!(session.is_told_the_end());
    assert_eq!(session.activate(), "closed");
    assert_empty(&session.peer.table);
}

/// An owner that waits is told of the end at once; a message that has begun is none.
#[test]
fn a_waiting_owner_is_told_of_the_end() {
    let mut session = Session::logged_in();
    assert_eq!(session.data(&message(b"abc")[..6]), [""; 0]);
    session.peer.actions(&[close(1)]);
    assert!(session.is_told_the_end());
    assert_empty(&session.peer.table);
}

/// A fault comes after the messages before it, and nothing after it.
#[test]
fn a_fault_ends_the_messages() {
    let mut session = Session::logged_in();
    let all = [message(b"a"), Fault::Binary.encode().to_vec(), message(b"b")].concat();
    assert_eq!(session.data(&all), ["a Binary"]);
    assert_eq!(session.activate(), "waits");
    assert_eq!(session.data(&message(b"c")), [""; 0]);
    assert_eq!(session.peer.table.stats().input_bytes, 0);
}

/// A connection whose client sends nothing else than a fault gets an owner as well, which says so to the client.
#[test]
fn a_fault_alone_has_an_owner_started() {
    let mut peer = Peer::serving(TestTable::new(), Served::HttpAndXmpp);
    let actions = peer.actions(&[open(1), data(1, &Fault::TooBig.encode())]);
    let [Action::Attach(handle)] = actions[..] else { panic!("{actions:?}") };
    peer.table.set_owner(&handle, CONSUMER, 0, &mut peer.world).expect("open");
    assert_eq!(Session { peer, handle }.activate(), " TooBig");
}

/// The longest message before and after login: one byte less, the limit, and one more, which is told as soon as its length is
/// known and before any of it is kept.
#[test]
fn limits_of_messages() {
    for (before, limit) in [(true, MAX_STANZA_BEFORE_LOGIN), (false, MAX_STANZA)] {
        for length in [limit - 1, limit, limit + 1] {
            let mut session = if before { Session::new() } else { Session::logged_in() };
            if before {
                assert_eq!(session.activate(), "<open/>");
                assert_eq!(session.activate(), "waits");
            }
            let head = session.data(&header(length));
            if length > limit {
                assert_eq!(head, [" TooBig"]);
                continue;
            }
            let mut last = Vec::new();
            let text = vec![b'x'; length as usize];
            for piece in text.chunks(16_000) {
                assert!(last.is_empty());
                last = session.data(piece);
            }
            if before {
                assert_eq!(last, [String::from_utf8_lossy(&text)]);
            } else {
                assert_eq!(last, ["large"]);
                assert_eq!(session.large(), Some(length as usize));
                assert_eq!(session.large(), None);
            }
        }
    }
}

/// Credit is granted for a message that is longer than the window before it is complete, and only for what is read else.
#[test]
fn a_message_longer_than_the_window_gets_its_credit() {
    let mut session = Session::logged_in();
    session.peer.output();
    let length = MAX_STANZA as usize;
    session.data(&header(MAX_STANZA));
    let (mut sent, mut credit) = (0, WINDOW as usize - 4 - message(b"<open/>").len());
    while sent < length {
        let count = credit.min(length - sent).min(16_384);
        assert!(count > 0, "stuck at {sent} bytes");
        session.data(&vec![b'x'; count]);
        (sent, credit) = (sent + count, credit - count);
        for text in session.peer.output() {
            let increment = text.strip_prefix("window 1 ").expect("nothing else");
            credit += increment.parse::<usize>().expect("a number");
        }
    }
    assert_eq!(session.large(), Some(length));
}

/// How much goes into a batch: messages, and bytes.
#[test]
fn limits_of_batches() {
    for count in [MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1] {
        let mut session = Session::logged_in();
        let all = message(b"x").repeat(count);
        let [batch] = &session.data(&all)[..] else { panic!("one batch") };
        assert_eq!(batch.split(',').count(), count.min(MAX_BATCH));
    }
    let half = MAX_BATCH_BYTES / 2;
    for (second, together) in [(half - 1, true), (half, true), (half + 1, false)] {
        let mut session = Session::new();
        session.peer.actions(&[data(1, &message(&vec![b'x'; half])), data(1, &message(&vec![b'y'; second]))]);
        assert_eq!(session.activate(), "<open/>");
        session.peer.table.set_authenticated(&session.handle);
        let batch = session.activate();
        // What is longer than a small message comes alone, by another way.
        let expected =
            if half > SMALL_MESSAGE { 0 } else { 1 + usize::from(together && second <= SMALL_MESSAGE) };
        assert_eq!(batch.split(',').count(), expected, "{second}");
    }
}

/// A message is small up to the limit, and large from then on.
#[test]
fn limit_of_small_messages() {
    for length in [SMALL_MESSAGE - 1, SMALL_MESSAGE, SMALL_MESSAGE + 1] {
        let mut session = Session::logged_in();
        let told = session.data(&message(&vec![b'x'; length]));
        assert_eq!(told == ["large"], length > SMALL_MESSAGE);
    }
}

/// A message to the client has its header, and one that does not fit goes on where it was cut.
#[test]
fn messages_to_the_client_have_headers() {
    let mut session = Session::logged_in();
    let (table, world) = (&session.peer.table, &mut session.peer.world);
    assert_eq!(table.send_message(&session.handle, b"abc", CONSUMER, 0, world), Ok(Sent::All));
    assert_eq!(table.send_message(&session.handle, b"", CONSUMER, 0, world), Ok(Sent::All));
    session.peer.output();
    let (table, world) = (&session.peer.table, &mut session.peer.world);
    let long = vec![b'x'; crate::limits::OUTPUT_QUEUE];
    let sent = table.send_message(&session.handle, &long, CONSUMER, 0, world);
    let Ok(Sent::Wait { accepted, .. }) = sent else { panic!("{sent:?}") };
    assert_eq!(accepted, crate::limits::OUTPUT_QUEUE);
}

/// A client that is slowed down is given nothing more before its owner has asked twice: then it has waited as long as the
/// bytes of the batch before cost.
#[test]
fn bytes_of_a_batch_are_told_when_it_is_to_be_paid() {
    let mut session = Session::logged_in();
    session.peer.table.set_shaped(&session.handle, true);
    assert_eq!(session.data(&[message(b"a"), message(b"bc")].concat()), ["a,bc"]);
    assert_eq!(session.data(&message(b"d")), [""; 0]);
    assert_eq!(session.activate(), "3 bytes");
    assert_eq!(session.data(&message(b"e")), [""; 0]);
    assert_eq!(session.activate(), "d,e");
    session.peer.table.set_shaped(&session.handle, false);
    assert_eq!(session.activate(), "2 bytes", "it was lent before");
    assert_eq!(session.activate(), "waits");
    assert_eq!(session.data(&message(b"f")), ["f"]);
    assert_eq!(session.activate(), "waits");
    assert_eq!(session.peer.table.stats().busy, 0);
}

/// Each owner is named once when nothing has happened for a while, and the host is told when there is something to look for.
#[test]
fn idle_owners_are_named_once() {
    let mut session = Session::logged_in();
    let idle = |session: &mut Session, now| {
        let mut idle = Vec::new();
        session.peer.world.millis = now;
        let noted = session.peer.table.take_idle(now, 100, 10, &mut idle);
        (idle.len(), noted)
    };
    assert_eq!(session.peer.world.busy, 0, "it had no owner when it came");
    session.data(&message(b"a"));
    assert_eq!(session.peer.world.busy, 1);
    assert_eq!(idle(&mut session, 99), (0, true));
    session.activate();
    session.data(&message(b"b"));
    assert_eq!(idle(&mut session, 100), (0, true), "something has happened since");
    assert_eq!(idle(&mut session, 199), (0, true));
    assert_eq!(session.peer.world.busy, 1);
    assert_eq!(idle(&mut session, 200), (1, false));
    assert_eq!(idle(&mut session, 300), (0, false));
    let (table, world) = (&session.peer.table, &mut session.peer.world);
    assert_eq!(table.send_message(&session.handle, b"c", CONSUMER, 0, world), Ok(Sent::All));
    assert_eq!(session.peer.world.busy, 2);
    // It was called back soon.
    assert_eq!(idle(&mut session, 499), (0, true));
    assert_eq!(idle(&mut session, 500), (1, false));
    let (table, world) = (&session.peer.table, &mut session.peer.world);
    assert_eq!(table.send_message(&session.handle, b"d", CONSUMER, 0, world), Ok(Sent::All));
    session.peer.world.kill(&session.peer.table, CONSUMER);
    session.peer.actions(&[close(1)]);
    assert_eq!(idle(&mut session, 900), (0, false), "it is gone");
    assert_empty(&session.peer.table);
}
