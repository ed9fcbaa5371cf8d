//! Sessions are made: XEP-0124, 7, and XEP-0206, 3 and 4.

use super::*;

/// The answer to the request that makes a session.
fn created(attributes: &str) -> String {
    let mut talk = Talk::create(attributes, SETTINGS);
    talk.send(Item::Start { id: b"x", version: b"1.0" });
    let done = talk.send(Item::Features(b"<stream:features/>"));
    let [(10, text)] = &done[..] else { panic!("{done:?}") };
    text.clone()
}

/// The value of an attribute of an answer.
fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = format!(" {text}").find(&format!(" {name}='")).map(|at| text.split_at(at))?;
    let (_, rest) = rest.split_once('\'')?;
    rest.split_once('\'').map(|(value, _)| value)
}

#[test]
fn the_first_answer_tells_all_that_the_client_has_to_know_7_2() {
    let text = created("wait='60' hold='1'");
    let sid = String::from_utf8(SID.text().to_vec()).unwrap();
    let expected = [
        ("sid", sid.as_str()),
        ("wait", "60"),
        ("hold", "1"),
        ("requests", "2"),
        ("ver", "1.11"),
        ("polling", "2"),
        ("inactivity", "30"),
        ("maxpause", "120"),
        ("from", "a"),
        ("xmlns:xmpp", "urn:xmpp:xbosh"),
        ("xmlns:stream", "http://etherx.jabber.org/streams"),
        ("xmpp:restartlogic", "true"),
        ("xmpp:version", "1.0"),
        ("authid", "x"),
    ];
    for (name, value) in expected {
        assert_eq!(attribute(&text, name), Some(value), "{name} in {text}");
    }
    assert_eq!(attribute(&text, "ack"), None);
    assert!(text.ends_with(" <stream:features/>"));
}

#[test]
fn the_version_is_the_lower_one_of_what_both_know_7_2() {
    let versions = [
        ("1.10", "1.10"),
        ("1.6", "1.6"),
        ("1.11", "1.11"),
        ("1.12", "1.11"),
        ("2.0", "1.11"),
        ("0.99", "0.99"),
        ("4294967296.1", "1.11"),
        ("1", "1.11"),
        ("", "1.11"),
        ("x.y", "1.11"),
    ];
    for (asked, got) in versions {
        let text = created(&format!("ver='{asked}'"));
        assert_eq!(attribute(&text, "ver"), Some(got), "{asked}");
    }
}

#[test]
fn the_settings_of_the_operator_are_told() {
    let mut talk = Talk::create("", Settings { inactivity: 7, max_pause: 8, max_concat: 9 });
    let done = talk.send(Item::Features(b"<stream:features/>"));
    assert_eq!(attribute(&done[0].1, "inactivity"), Some("7"));
    assert_eq!(attribute(&done[0].1, "maxpause"), Some("8"));
}

#[test]
fn wait_and_hold_are_what_was_asked_for_but_no_more_than_there_is_7_1() {
    for (asked, got) in
        [("0", "0"), ("1", "1"), ("299", "299"), ("300", "300"), ("301", "300"), ("65536", "300")]
    {
        assert_eq!(attribute(&created(&format!("wait='{asked}'")), "wait"), Some(got));
    }
    for (asked, hold, requests) in [("0", "0", "1"), ("1", "1", "2"), ("2", "1", "2"), ("256", "1", "2")] {
        let text = created(&format!("hold='{asked}'"));
        assert_eq!(attribute(&text, "hold"), Some(hold));
        assert_eq!(attribute(&text, "requests"), Some(requests));
    }
    let text = created("");
    assert_eq!((attribute(&text, "wait"), attribute(&text, "hold")), (Some("300"), Some("1")));
}

#[test]
fn acknowledgements_are_agreed_upon_if_the_client_asks_for_them_7_2() {
    assert_eq!(attribute(&created("ack='1'"), "ack"), Some("10"));
    for ack in ["0", "2", "10"] {
        assert_eq!(attribute(&created(&format!("ack='{ack}'")), "ack"), None);
    }
}

#[test]
fn a_client_is_told_whether_its_connection_is_secure() {
    for (secure, text) in [(true, "true"), (false, "false")] {
        let request = parse("<body rid='1' to='a'/>");
        let mut session = Session::new(request, b"", 1, &SID, secure, SETTINGS, 0);
        let mut effects = Effects::new();
        assert!(session.send(Item::Features(b"<stream:features/>"), 0, &mut effects));
        let Some(Effect::Answer(1, Some(answer))) = effects.first() else { panic!("{effects:?}") };
        assert_eq!(attribute(&short(Some(answer)), "secure"), Some(text));
    }
}

#[test]
fn what_the_client_says_is_escaped_where_it_is_repeated() {
    let text = "<body rid='1' to='&lt;&amp;&gt;&apos;&quot;'/>";
    let mut session = Session::new(parse(text), b"", 1, &SID, true, SETTINGS, 0);
    let mut effects = Effects::new();
    assert!(session.send(Item::Start { id: b"'<\"&>", version: b"'" }, 0, &mut effects));
    assert!(session.send(Item::Features(b"<stream:features/>"), 0, &mut effects));
    let Some(Effect::Answer(1, Some(answer))) = effects.first() else { panic!("{effects:?}") };
    let answer = short(Some(answer));
    assert_eq!(attribute(&answer, "from"), Some("&lt;&amp;&gt;&apos;&quot;"));
    assert_eq!(attribute(&answer, "authid"), Some("&apos;&lt;&quot;&amp;&gt;"));
    assert_eq!(attribute(&answer, "xmpp:version"), Some("&apos;"));
}

#[test]
fn the_first_answer_waits_for_the_features_of_the_stream_0206_4() {
    for hold in ["hold='1'", "hold='0'", "wait='0'"] {
        let mut talk = Talk::create(hold, SETTINGS);
        assert_eq!(talk.send(Item::Start { id: b"x", version: b"1.0" }), []);
        assert_eq!(talk.tick(999), []);
        assert_eq!(talk.send(Item::Features(b"<stream:features/>")).len(), 1);
    }
}

#[test]
fn the_first_answer_comes_without_features_when_its_time_is_over() {
    for (attributes, wait) in
        [("wait='60'", 60_000), ("wait='60' hold='0'", 60_000), ("wait='0'", 1_000), ("", 300_000)]
    {
        let mut talk = Talk::create(attributes, SETTINGS);
        talk.send(Item::Start { id: b"x", version: b"1.0" });
        assert_eq!(talk.session.deadline(), Some(wait));
        assert_eq!(talk.tick(wait - 1), []);
        let done = talk.tick(wait);
        assert!(done[0].1.starts_with("sid='") && !done[0].1.contains("features"), "{done:?}");
        // They come with the next one, with what belongs to them.
        assert_eq!(talk.send(Item::Features(b"<stream:features/>")), []);
        let expected = "xmlns:stream='http://etherx.jabber.org/streams' xmlns:xmpp='urn:xmpp:xbosh' \
                        xmpp:version='1.0' authid='x' <stream:features/>";
        assert_eq!(talk.empty(11), done_with(11, expected));
    }
}

fn done_with(ticket: u32, text: &str) -> Done {
    done(&[(ticket, text)])
}

#[test]
fn only_the_first_answer_tells_of_the_session_7_2() {
    let mut talk = Talk::open("ack='1'");
    talk.empty(11);
    assert_eq!(talk.element("<iq/>"), done_with(11, "<iq/>"));
}

#[test]
fn the_begin_of_the_stream_is_what_the_client_asked_for_0206_3() {
    let mut talk = Talk::create("xml:lang='de'", SETTINGS);
    let begin = Begin { to: Some("a".into()), version: Some("1.0".into()), lang: Some("de".into()) };
    let first = Inbound { begin: Some(Box::new(begin)), text: Box::default(), end: false };
    assert_eq!(talk.activate(), Activated::Batch(vec![first]));
    assert_eq!(talk.activate(), Activated::Waits);
}

#[test]
fn elements_of_the_first_request_come_behind_the_begin_of_the_stream() {
    let text = "<body rid='1' to='a'><iq/></body>";
    let mut session = Session::new(parse(text), text.as_bytes(), 1, &SID, true, SETTINGS, 0);
    let Activated::Batch(batch) = session.activate(false, 0, &mut Effects::new()) else { panic!() };
    assert_eq!(batch.len(), 1);
    assert!(batch[0].begin.is_some());
    assert_eq!(&batch[0].text[..], text.as_bytes());
}

#[test]
fn a_stream_that_fails_at_once_is_told_with_the_first_answer() {
    let mut talk = Talk::create("", SETTINGS);
    talk.send(Item::Start { id: b"x", version: b"1.0" });
    let done = talk.send(Item::Error(b"<stream:error/>"));
    assert!(done[0].1.starts_with("sid='"), "{done:?}");
    assert!(done[0].1.contains(STREAM_ENDED) && done[0].1.ends_with(" <stream:error/>"), "{done:?}");
    assert!(talk.has_ended());
}

#[test]
fn the_first_answer_can_be_asked_for_again() {
    let mut talk = Talk::create("", SETTINGS);
    let first = talk.send(Item::Features(b"<stream:features/>"));
    assert_eq!(talk.request_as(1, 10, "", ""), done_with(1, &first[0].1));
}

#[test]
fn a_session_whose_first_connection_was_closed_ends_by_itself() {
    let mut talk = Talk::create("", SETTINGS);
    talk.now = 5;
    talk.gone(10);
    assert_eq!(talk.send(Item::Features(b"<stream:features/>")), []);
    assert_eq!(talk.session.deadline(), Some(30_005));
    talk.tick(30_005);
    assert!(talk.has_ended());
}
