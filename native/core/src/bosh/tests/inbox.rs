//! What the client sends reaches its client session: in order, and no faster than that asks.

use super::*;
use crate::limits::{MAX_BATCH, MAX_BATCH_BYTES, SMALL_MESSAGE};

/// An element that makes a request of so many bytes.
fn filling(rid: u64, length: usize) -> String {
    let empty = format!("<body rid='{rid}' xmlns='{NAMESPACE}' xmlns:xmpp='urn:xmpp:xbosh' ><a></a></body>");
    format!("<a>{}</a>", "x".repeat(length - empty.len()))
}

fn count(activated: &Activated) -> usize {
    match activated {
        Activated::Batch(batch) => batch.len(),
        _ => 0,
    }
}

#[test]
fn nothing_is_delivered_unless_it_is_asked_for() {
    let mut talk = Talk::open("");
    talk.request(11, "", "<a/>");
    assert_eq!(count(&talk.batch()), 1);
    talk.request(12, "", "<b/>");
    assert_eq!(talk.batch(), Activated::Waits);
    assert_eq!(elements(&talk.activate()), ["<b/>"]);
}

#[test]
fn requests_without_elements_are_not_delivered() {
    let mut talk = Talk::held("");
    talk.request(12, "", "text is no element");
    assert_eq!(talk.batch(), Activated::Waits);
}

#[test]
fn the_elements_of_a_request_are_delivered_together_with_what_is_around_them() {
    let mut talk = Talk::open("");
    let text = "<body rid='11' xmlns:x='y'><x:a/> <x:b/></body>";
    let mut effects = Effects::new();
    talk.session.request(parse(text), text.as_bytes(), 11, 0, &mut effects);
    let Activated::Batch(batch) = talk.batch() else { panic!() };
    assert_eq!(&batch[0].text[..], text.as_bytes());
}

#[test]
fn until_the_user_has_logged_in_requests_are_delivered_one_by_one() {
    for authenticated in [false, true] {
        let mut talk = Talk::create("", SETTINGS);
        talk.send(Item::Features(b"<stream:features/>"));
        assert_eq!(count(&talk.activate()), 1, "the begin of the stream");
        if authenticated {
            talk.session.set_authenticated();
        }
        assert_eq!(talk.session.is_authenticated(), authenticated);
        assert_eq!(talk.activate(), Activated::Waits);
        for rid in 11..14 {
            talk.request(rid, "", "<a/>");
        }
        assert_eq!(count(&talk.batch()), if authenticated { 3 } else { 1 });
        assert_eq!(count(&talk.activate()), usize::from(!authenticated));
    }
}

#[test]
fn no_more_requests_are_delivered_at_once_than_one_call_has_time_for() {
    let mut talk = Talk::open("");
    for rid in 11..=11 + MAX_BATCH as u64 {
        talk.request(rid, "", "<a/>");
    }
    assert_eq!(count(&talk.batch()), MAX_BATCH);
    assert_eq!(count(&talk.activate()), 1);
}

#[test]
fn no_more_bytes_are_delivered_at_once_than_one_call_has_time_for() {
    let half = MAX_BATCH_BYTES / 2;
    // One byte of each request that waits stands for what it costs beside its text.
    for (second, count_at_once) in [(half - 1, 2), (half, 1)] {
        let mut talk = Talk::open("");
        talk.request(11, "", &filling(11, half));
        talk.request(12, "", &filling(12, second));
        assert_eq!(count(&talk.batch()), count_at_once);
        assert_eq!(count(&talk.activate_and(false).0), 2 - count_at_once);
    }
}

#[test]
fn a_request_waits_for_a_client_session_that_has_not_asked_for_those_before() {
    let mut talk = Talk::open("");
    let long = |rid| filling(rid, MAX_BATCH_BYTES - 200);
    assert_eq!(talk.request(11, "", &long(11)), []);
    assert_eq!(talk.request(12, "", &long(12)), []);
    assert_eq!(talk.request(13, "", "<b/>"), []);
    // 11 may be answered: it was taken. The others were not, so their client sends no more.
    assert_eq!(talk.element("<c/>"), done(&[(11, "<c/>")]));
    assert_eq!(talk.element("<d/>"), []);
    assert_eq!(talk.batch(), Activated::Large);
    let (batch, answers) = talk.activate_and(true);
    assert_eq!((elements(&batch), answers), (vec![long(11)], done(&[(12, "<d/>")])));
    let (batch, answers) = talk.activate_and(true);
    assert_eq!((elements(&batch), answers), (vec![long(12), "<b/>".into()], vec![]));
    assert_eq!(talk.activate(), Activated::Waits);
    assert_eq!(talk.element("<e/>"), done(&[(13, "<e/>")]));
}

#[test]
fn a_client_that_sends_on_though_nothing_is_taken_is_out_of_its_window() {
    let mut talk = Talk::open("");
    let long = |rid| filling(rid, MAX_BATCH_BYTES - 10);
    talk.request(11, "", &long(11));
    for rid in 12..14 {
        assert_eq!(talk.request(rid, "", &long(rid)), []);
    }
    assert_eq!(talk.empty(14)[0], (14, NOT_FOUND.into()));
}

#[test]
fn a_request_that_waits_for_the_client_session_can_be_repeated() {
    let mut talk = Talk::open("");
    let long = |rid| filling(rid, MAX_BATCH_BYTES - 10);
    talk.request(11, "", &long(11));
    talk.request(12, "", &long(12));
    assert_eq!(talk.request_as(1, 12, "", &long(12)), done(&[(12, DROPPED)]));
    assert_eq!(talk.activate_and(true).1, done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.activate_and(true).0), [long(12)]);
    assert_eq!(talk.activate(), Activated::Waits);
    assert_eq!(talk.element("<a/>"), done(&[(1, "<a/>")]));
}

#[test]
fn a_request_that_waits_for_the_client_session_is_forgotten_with_its_connection() {
    let mut talk = Talk::open("");
    let long = |rid| filling(rid, MAX_BATCH_BYTES - 10);
    talk.request(11, "", &long(11));
    talk.request(12, "", &long(12));
    talk.gone(11);
    assert_eq!(talk.session.deadline(), None, "12 waits");
    talk.gone(12);
    assert_eq!(talk.session.deadline(), Some(30_000));
    assert_eq!(elements(&talk.activate_and(true).0), [long(11)]);
    assert_eq!(talk.activate(), Activated::Waits);
    talk.request_as(1, 12, "", &long(12));
    talk.batch();
    assert_eq!(elements(&talk.activate_and(true).0), [long(12)]);
}

#[test]
fn what_takes_long_is_left_to_those_who_have_time() {
    for (length, is_large) in [(SMALL_MESSAGE, false), (SMALL_MESSAGE + 1, true)] {
        let mut talk = Talk::open("");
        let text = filling(11, length);
        talk.request(11, "", &text);
        talk.request(12, "", "<b/>");
        let activated = talk.batch();
        if is_large {
            assert_eq!(activated, Activated::Large);
            assert_eq!(talk.batch(), Activated::Large, "nothing is taken by that");
            assert_eq!(elements(&talk.activate_and(true).0), [text, "<b/>".into()]);
        } else {
            assert_eq!(elements(&activated), [text, "<b/>".into()]);
        }
        assert_eq!(talk.activate(), Activated::Waits);
    }
}

#[test]
fn a_client_that_is_slowed_down_pays_for_each_batch_before_the_next() {
    let mut talk = Talk::open("");
    talk.session.set_shaped(true);
    talk.request(11, "", &filling(11, 500));
    assert_eq!(count(&talk.batch()), 1);
    talk.request(12, "", &filling(12, 600));
    assert_eq!(talk.activate(), Activated::Shaped(500));
    assert_eq!(talk.batch(), Activated::Waits, "it has not asked again");
    assert_eq!(count(&talk.activate()), 1);
    talk.session.set_shaped(false);
    assert_eq!(talk.activate(), Activated::Shaped(600), "what was taken is paid for");
    assert_eq!(talk.activate(), Activated::Waits);
    talk.request(13, "", "<a/>");
    assert_eq!(count(&talk.batch()), 1);
    assert_eq!(talk.activate(), Activated::Waits);
}

#[test]
fn all_that_came_before_the_end_is_delivered_before_the_end() {
    let mut talk = Talk::open("");
    talk.session.set_shaped(true);
    talk.request(11, "", &filling(11, 500));
    talk.request(12, "", &filling(12, SMALL_MESSAGE + 1));
    talk.request(13, "type='terminate'", "<b/>");
    assert_eq!(count(&talk.batch()), 3);
    let bytes = 500 + SMALL_MESSAGE + 1;
    assert!(matches!(talk.activate(), Activated::Shaped(paid) if paid as usize > bytes));
    assert_eq!(talk.activate(), Activated::Closed);
    assert!(talk.session.is_over());
    let mut talk = Talk::open("");
    talk.request(11, "", &filling(11, SMALL_MESSAGE + 1));
    talk.request(14, "", "");
    assert_eq!(talk.batch(), Activated::Large);
    assert_eq!(count(&talk.activate_and(true).0), 1);
    assert_eq!(talk.activate(), Activated::Closed);
    assert!(talk.session.is_over());
}

#[test]
fn what_came_before_the_time_was_over_is_delivered() {
    let mut talk = Talk::create("hold='0' wait='0'", SETTINGS);
    talk.send(Item::Features(b"<stream:features/>"));
    talk.request(11, "", "<a/>");
    talk.tick(30_000);
    assert_eq!(count(&talk.activate()), 1, "the begin of the stream");
    assert_eq!(elements(&talk.activate()), ["<a/>"]);
    assert_eq!(talk.activate(), Activated::Closed);
}
