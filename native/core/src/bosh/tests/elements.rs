//! What the client session sends: XEP-0124, 8, and XEP-0206, 2 and 6.

use super::*;
use crate::limits::{BOSH_ANSWER, BOSH_OUTBOX};

const STREAM: &str = "xmlns:stream='http://etherx.jabber.org/streams'";

/// An element of so many bytes.
fn element(length: usize) -> String {
    format!("<a>{}</a>", "x".repeat(length - 7))
}

#[test]
fn an_answer_has_at_most_as_many_elements_as_the_operator_allows() {
    for (most, expected) in
        [(0, vec!["<a/><b/><c/>"]), (1, vec!["<a/>", "<b/>", "<c/>"]), (2, vec!["<a/><b/>", "<c/>"])]
    {
        let mut talk = Talk::with("", Settings { max_concat: most, ..SETTINGS });
        for text in ["<a/>", "<b/>", "<c/>"] {
            talk.element(text);
        }
        for (rid, text) in (11..).zip(expected) {
            assert_eq!(talk.empty(rid), done(&[(rid as u32, text)]));
        }
        assert_eq!(talk.unsent(), [""; 0]);
    }
}

#[test]
fn an_answer_has_as_many_bytes_as_fit() {
    for (first, together) in [(BOSH_ANSWER - 4, true), (BOSH_ANSWER - 3, false), (BOSH_ANSWER + 1_000, false)]
    {
        let mut talk = Talk::open("");
        let first = element(first);
        talk.element(&first);
        talk.element("<b/>");
        let expected = if together { format!("{first}<b/>") } else { first };
        assert_eq!(talk.empty(11), done(&[(11, &expected)]));
        let rest: &[_] = if together { &[] } else { &[(12, "<b/>")] };
        assert_eq!(talk.empty(12), done(rest));
    }
}

#[test]
fn each_request_that_waits_takes_what_fits() {
    let mut talk = Talk::with("", Settings { max_concat: 1, ..SETTINGS });
    talk.element("<a/>");
    talk.element("<b/>");
    talk.empty(12);
    assert_eq!(talk.empty(11), done(&[(11, "<a/>"), (12, "<b/>")]));
}

#[test]
fn a_client_session_that_sends_more_than_can_wait_is_told_so() {
    for (second, refused) in [(BOSH_OUTBOX - 10, false), (BOSH_OUTBOX - 9, true)] {
        let mut talk = Talk::open("");
        talk.element(&element(10));
        assert_eq!(talk.is_refused(Item::Element(element(second).as_bytes())), refused);
        assert!(talk.is_refused(Item::Element(element(10).as_bytes())) || refused);
    }
}

#[test]
fn one_element_may_be_longer_than_what_can_wait() {
    let mut talk = Talk::open("");
    let long = element(BOSH_OUTBOX + 1);
    talk.element(&long);
    assert!(talk.is_refused(Item::Element(b"<b/>")));
    assert_eq!(talk.empty(11), done(&[(11, &long)]));
    talk.element("<b/>");
}

#[test]
fn there_is_room_again_when_the_client_has_fetched_something() {
    let mut talk = Talk::open("");
    let part = element(BOSH_ANSWER);
    let count = BOSH_OUTBOX / BOSH_ANSWER;
    for _ in 0..count {
        talk.element(&part);
    }
    for rid in 11..20 {
        assert!(talk.is_refused(Item::Element(part.as_bytes())));
        assert_eq!(talk.empty(rid), done(&[(rid as u32, &part)]));
        talk.element(&part);
    }
    assert_eq!(talk.unsent().len(), count);
}

#[test]
fn an_error_of_the_stream_can_always_be_sent() {
    let mut talk = Talk::open("");
    talk.element(&element(BOSH_OUTBOX));
    talk.send(Item::Error(b"<stream:error/>"));
    assert_eq!(talk.unsent().last().map(String::as_str), Some("<stream:error/>"));
}

#[test]
fn a_stream_that_is_begun_anew_has_features_again_0206_6() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "to='b' xml:lang='fr' xmpp:restart='true'", ""), []);
    let begin = Begin { to: Some("b".into()), version: Some("1.0".into()), lang: Some("fr".into()) };
    let inbound = Inbound { begin: Some(Box::new(begin)), text: Box::default(), end: false };
    assert_eq!(talk.batch(), Activated::Batch(vec![inbound]));
    assert_eq!(talk.send(Item::Start { id: b"y", version: b"1.0" }), []);
    let answers = talk.send(Item::Features(b"<stream:features/>"));
    let expected =
        format!("{STREAM} xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0' authid='y' <stream:features/>");
    assert_eq!(answers, done(&[(11, &expected)]));
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.element("<a/>"), done(&[(12, "<a/>")]));
}

#[test]
fn a_stream_that_is_begun_anew_has_a_version_if_the_first_one_had_0206_6() {
    let version = |first: &str, again: &str| {
        let text = format!("<body rid='10' to='a' xmlns:xmpp='urn:xmpp:xbosh' {first}/>");
        let mut session = Session::new(parse(&text), b"", 10, &SID, true, SETTINGS, 0);
        let mut effects = Effects::new();
        session.activate(false, 0, &mut effects);
        let text = format!("<body rid='11' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh' {again}/>");
        session.request(parse(&text), text.as_bytes(), 11, 0, &mut effects);
        match session.activate(false, 0, &mut effects) {
            Activated::Batch(batch) => batch.into_iter().find_map(|inbound| inbound.begin).unwrap().version,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(version("xmpp:version='1.0'", ""), Some("1.0".into()));
    assert_eq!(version("xmpp:version='1.0'", "xmpp:version='1.1'"), Some("1.1".into()));
    assert_eq!(version("", "xmpp:version='1.1'"), Some("1.1".into()));
    assert_eq!(version("", ""), None);
}

#[test]
fn elements_of_a_request_that_begins_a_stream_are_ignored_0206_6() {
    let mut talk = Talk::open("");
    talk.request(11, "xmpp:restart='true'", "<a/>");
    let Activated::Batch(batch) = talk.batch() else { panic!() };
    assert!(batch[0].begin.is_some() && batch[0].text.is_empty());
}

#[test]
fn a_stream_without_a_version_has_none_in_the_answer() {
    let mut talk = Talk::held("");
    talk.send(Item::Start { id: b"y", version: b"" });
    let answers = talk.send(Item::Features(b"<stream:features/>"));
    assert_eq!(answers, done(&[(11, &format!("{STREAM} authid='y' <stream:features/>"))]));
}

#[test]
fn the_prefix_of_streams_is_declared_where_it_is_used_0206_2() {
    let mut talk = Talk::open("");
    talk.send(Item::Features(b"<stream:features/>"));
    talk.element("<a/>");
    assert_eq!(talk.empty(11), done(&[(11, &format!("{STREAM} <stream:features/><a/>"))]));
    talk.element("<b/>");
    assert_eq!(talk.empty(12), done(&[(12, "<b/>")]));
}
