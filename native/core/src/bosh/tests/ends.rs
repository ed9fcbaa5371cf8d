//! Sessions end: XEP-0124, 13 and 17; XEP-0206, 7 and 8.

use super::*;

/// An element of so many bytes.
fn element(length: usize) -> String {
    format!("<a>{}</a>", "x".repeat(length - 7))
}

#[test]
fn a_client_that_ends_its_session_is_told_so_by_its_oldest_request_13() {
    let mut talk = Talk::held("");
    let answers = talk.request(12, "type='terminate'", "");
    assert_eq!(answers, done(&[(11, TERMINATED), (12, TERMINATED)]));
    assert!(talk.has_ended());
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "type='terminate'", ""), done(&[(11, TERMINATED)]));
    assert!(talk.has_ended());
    let mut talk = Talk::held("");
    talk.gone(11);
    assert_eq!(talk.request(12, "type='terminate'", ""), done(&[(12, TERMINATED)]));
}

#[test]
fn a_request_that_ends_the_session_acknowledges_as_others_do() {
    let mut talk = Talk::held("ack='1'");
    let answers = talk.request(12, "type='terminate'", "");
    assert_eq!(answers, done(&[(11, "ack='12' type='terminate'"), (12, TERMINATED)]));
}

#[test]
fn elements_of_the_request_that_ends_the_session_are_delivered_before_the_end_13() {
    let mut talk = Talk::open("");
    talk.request(11, "", "<a/>");
    talk.request(12, "type='terminate'", "<presence type='unavailable'/>");
    let batch = talk.batch();
    assert_eq!(elements(&batch), ["<a/>", "<presence type='unavailable'/>"]);
    let Activated::Batch(batch) = batch else { panic!() };
    assert_eq!((batch[0].end, batch[1].end), (false, true));
    assert!(!talk.session.is_over());
    assert_eq!(talk.activate(), Activated::Closed);
    assert!(talk.session.is_over());
}

#[test]
fn the_end_without_elements_is_delivered_too_13() {
    let mut talk = Talk::open("");
    talk.request(11, "type='terminate'", "");
    let end = Inbound { begin: None, text: Box::default(), end: true };
    assert_eq!(talk.batch(), Activated::Batch(vec![end]));
    assert_eq!(talk.activate(), Activated::Closed);
}

#[test]
fn a_request_that_ends_the_session_waits_for_its_turn_13() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(12, "type='terminate'", "<b/>"), []);
    let answers = talk.request(11, "", "<a/>");
    assert_eq!(answers, done(&[(11, TERMINATED), (12, TERMINATED)]));
    assert_eq!(elements(&talk.batch()), ["<a/>", "<b/>"]);
}

#[test]
fn the_answer_that_ends_the_session_has_no_elements_and_they_are_left_13() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    talk.element("<b/>");
    assert_eq!(talk.request(11, "type='terminate'", ""), done(&[(11, TERMINATED)]));
    assert_eq!(talk.unsent(), ["<a/>", "<b/>"]);
    assert!(talk.has_ended());
}

#[test]
fn other_types_do_not_end_the_session() {
    let mut talk = Talk::held("");
    assert_eq!(talk.request(12, "type='error'", ""), done(&[(11, NOTHING)]));
    assert_eq!(talk.request(13, "type=''", ""), done(&[(12, NOTHING)]));
}

#[test]
fn a_client_session_that_ends_has_the_held_request_answered_17_2() {
    let mut talk = Talk::held("");
    assert_eq!(talk.close(), done(&[(11, STREAM_ENDED)]));
    assert!(talk.session.is_over());
    assert_eq!(talk.session.deadline(), None);
    assert_eq!(talk.empty(12), done(&[(12, NOT_FOUND)]));
}

#[test]
fn the_end_of_the_stream_waits_for_the_next_request_17_2() {
    let mut talk = Talk::open("");
    assert_eq!(talk.close(), []);
    assert!(!talk.session.is_over());
    assert!(talk.is_refused(Item::Element(b"<a/>")));
    assert_eq!(talk.session.deadline(), Some(30_000));
    assert_eq!(talk.empty(11), done(&[(11, STREAM_ENDED)]));
    assert!(talk.session.is_over());
}

#[test]
fn the_end_of_the_stream_that_nobody_asks_for_is_forgotten_with_the_session() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    talk.close();
    assert_eq!(talk.tick(30_000), []);
    assert!(talk.session.is_over());
    assert_eq!(talk.unsent(), ["<a/>"]);
}

#[test]
fn an_error_of_the_stream_is_told_with_its_reason_0206_7() {
    let mut talk = Talk::held("");
    let expected = format!("{STREAM_ENDED} xmlns:stream='http://etherx.jabber.org/streams' <stream:error/>");
    assert_eq!(talk.send(Item::Error(b"<stream:error/>")), done(&[(11, &expected)]));
    assert!(talk.is_refused(Item::Element(b"<a/>")));
    assert_eq!(talk.batch(), Activated::Closed);
    assert!(talk.session.is_over());
}

#[test]
fn an_error_of_the_stream_is_told_behind_what_was_sent_before_0206_7() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    talk.send(Item::Error(b"<stream:error/>"));
    talk.close();
    assert!(talk.is_refused(Item::Element(b"<b/>")));
    let declared = "xmlns:stream='http://etherx.jabber.org/streams'";
    assert_eq!(talk.empty(11), done(&[(11, &format!("{declared} <a/>"))]));
    let expected = format!("{STREAM_ENDED} {declared} <stream:error/>");
    assert_eq!(talk.empty(12), done(&[(12, &expected)]));
    assert!(talk.session.is_over());
}

#[test]
fn the_end_is_told_by_an_answer_of_its_own_behind_all_elements() {
    let mut talk = Talk::with("", Settings { max_concat: 1, ..SETTINGS });
    talk.element("<a/>");
    talk.element("<b/>");
    talk.close();
    assert_eq!(talk.empty(11), done(&[(11, "<a/>")]));
    assert!(!talk.session.is_over());
    assert_eq!(talk.empty(12), done(&[(12, "<b/>")]));
    assert!(!talk.session.is_over());
    assert_eq!(talk.empty(13), done(&[(13, STREAM_ENDED)]));
    assert!(talk.session.is_over());
}

#[test]
fn elements_that_come_after_the_client_session_has_gone_are_of_no_use() {
    let mut talk = Talk::open("");
    talk.request(11, "", "<a/>");
    assert_eq!(talk.close(), done(&[(11, STREAM_ENDED)]));
    assert_eq!(talk.batch(), Activated::Closed);
    let mut talk = Talk::open("");
    talk.close();
    talk.request(12, "", "<b/>");
    talk.request(11, "", "<a/>");
    assert_eq!(talk.activate(), Activated::Closed);
}

#[test]
fn requests_that_wait_for_a_client_session_which_ends_are_told_of_it() {
    let mut talk = Talk::open("");
    talk.request(11, "", &element(16_000));
    talk.request(12, "", &element(16_000));
    assert_eq!(talk.close(), done(&[(11, STREAM_ENDED), (12, NOTHING)]));
}

#[test]
fn a_client_may_end_a_session_whose_stream_has_ended() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    talk.close();
    assert_eq!(talk.request(11, "type='terminate'", ""), done(&[(11, TERMINATED)]));
    assert_eq!(talk.unsent(), ["<a/>"]);
    assert!(talk.session.is_over());
}

#[test]
fn a_client_session_that_gives_up_a_session_which_has_ended_changes_nothing() {
    let mut talk = Talk::held("");
    talk.request(12, "type='terminate'", "");
    assert!(!talk.session.is_over());
    assert_eq!(talk.close(), []);
    assert!(talk.session.is_over());
    assert_eq!(talk.close(), []);
}

#[test]
fn what_no_answer_has_carried_is_left_when_the_session_ends() {
    let mut talk = Talk::with("", Settings { max_concat: 1, ..SETTINGS });
    for text in ["<a/>", "<b1/>", "<c/>"] {
        talk.element(text);
    }
    assert_eq!(talk.empty(11), done(&[(11, "<a/>")]));
    assert_eq!(talk.tick(30_000), []);
    assert_eq!(talk.unsent(), ["<b1/>", "<c/>"]);
}

#[test]
fn every_condition_has_an_answer() {
    let all = [
        (Condition::HostUnknown, "host-unknown"),
        (Condition::ImproperAddressing, "improper-addressing"),
        (Condition::InternalServerError, "internal-server-error"),
        (Condition::ItemNotFound, "item-not-found"),
        (Condition::OtherRequest, "other-request"),
        (Condition::PolicyViolation, "policy-violation"),
        (Condition::RemoteStreamError, "remote-stream-error"),
    ];
    for (condition, name) in all {
        let text = short(Some(&terminated(Some(condition))));
        assert_eq!(text, format!("type='terminate' condition='{name}'"));
    }
    assert_eq!(short(Some(&terminated(None))), TERMINATED);
}

#[test]
fn a_client_that_sends_what_it_may_not_is_told_so_and_others_that_the_session_has_ended() {
    let mut talk = Talk::held("");
    talk.request(13, "", "<a/>");
    assert!(talk.waiting.insert(14));
    let mut effects = Effects::new();
    talk.session.refuse(14, Condition::PolicyViolation, &mut effects);
    assert_eq!(talk.done(effects), done(&[(14, VIOLATION), (11, OTHER), (13, OTHER)]));
    assert!(talk.has_ended());
}
