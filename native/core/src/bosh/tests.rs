//! The session machine, by the sections of XEP-0124 and XEP-0206.

use super::*;
use crate::xml::XmlLimits;

const SETTINGS: Settings = Settings { inactivity: 30, max_pause: 120, max_concat: 0 };
const SID: Sid = Sid { node: 1, place: 2, secret: [3; 16] };

fn parse(text: &str) -> Request {
    Request::parse(text.as_bytes(), &XmlLimits::default()).unwrap()
}

/// A session whose creation was answered at 0 ms, and whose client session has asked.
fn open(attributes: &str) -> Session<u32> {
    let request = parse(&format!(
        "<body rid='10' to='a' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' {attributes}/>"
    ));
    let mut session = Session::new(request, b"", 0, &SID, true, SETTINGS, 0);
    let mut effects = Effects::new();
    assert!(matches!(session.activate(false, 0, &mut effects), Activated::Batch(batch) if batch.len() == 1));
    assert!(session.send(Item::Start { id: b"x", version: b"1.0" }, 0, &mut effects));
    assert!(effects.is_empty(), "the begin of a stream is worth no answer");
    assert!(session.send(Item::Features(b"<stream:features/>"), 0, &mut effects));
    let text = answer(&effects, 0);
    for part in [
        "sid='",
        "wait='",
        "requests='2'",
        "ver='1.11'",
        "inactivity='30'",
        "from='a'",
        "xmpp:version='1.0'",
        "authid='x'",
        "><stream:features/></body>",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(session.activate(false, 0, &mut effects), Activated::Waits);
    session.set_authenticated();
    session
}

/// The answer to a ticket.
fn answer(effects: &Effects<u32>, ticket: u32) -> String {
    let text = effects.iter().find_map(|effect| match effect {
        Effect::Answer(to, text) if *to == ticket => Some(text.as_deref().unwrap_or(EMPTY)),
        _ => None,
    });
    String::from_utf8(text.unwrap().to_vec()).unwrap()
}

fn send(session: &mut Session<u32>, text: &str, ticket: u32, now: u64) -> Effects<u32> {
    let mut effects = Effects::new();
    session.request(parse(text), text.as_bytes(), ticket, now, &mut effects);
    effects
}

#[test]
fn a_request_is_held_until_there_is_something_to_say() {
    let mut session = open("");
    assert!(send(&mut session, "<body rid='11'/>", 1, 0).is_empty());
    assert_eq!(session.deadline(), Some(300_000));
    let mut effects = Effects::new();
    assert!(session.send(Item::Element(b"<iq/>"), 5, &mut effects));
    assert_eq!(answer(&effects, 1), "<body xmlns='http://jabber.org/protocol/httpbind'><iq/></body>");
    assert_eq!(session.deadline(), Some(30_005));
}

#[test]
fn a_session_is_small() {
    let size = size_of::<Session<[u64; 4]>>();
    assert!(size <= 400, "a session takes {size} bytes");
}
