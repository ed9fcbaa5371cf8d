//! Requests are kept waiting: XEP-0124, 8, 11 and 12.

use super::*;

#[test]
fn a_request_is_held_until_there_is_something_to_say_8() {
    let mut talk = Talk::held("");
    assert_eq!(talk.session.deadline(), Some(300_000));
    talk.now = 5;
    assert_eq!(talk.element("<iq/>"), done(&[(11, "<iq/>")]));
    assert_eq!(talk.session.deadline(), Some(30_005));
}

#[test]
fn a_request_is_answered_at_once_if_there_is_something_to_say_8() {
    let mut talk = Talk::open("");
    assert_eq!(talk.element("<a/>"), []);
    assert_eq!(talk.element("<b/>"), []);
    assert_eq!(talk.empty(11), done(&[(11, "<a/><b/>")]));
    assert_eq!(talk.empty(12), []);
}

#[test]
fn no_more_requests_are_held_than_the_client_allows_8() {
    let mut talk = Talk::held("hold='1'");
    for rid in 12..20 {
        assert_eq!(talk.request(rid, "", "<a/>"), done(&[(rid as u32 - 1, NOTHING)]));
        talk.activate_and(false);
    }
}

#[test]
fn a_request_is_held_no_longer_than_the_client_allows_8() {
    for (wait, milliseconds) in [(1, 1_000), (60, 60_000), (300, 300_000)] {
        let mut talk = Talk::open(&format!("wait='{wait}'"));
        talk.now = 100;
        talk.empty(11);
        assert_eq!(talk.session.deadline(), Some(100 + milliseconds));
        assert_eq!(talk.tick(100 + milliseconds - 1), []);
        assert_eq!(talk.tick(100 + milliseconds), done(&[(11, NOTHING)]));
    }
}

#[test]
fn a_repeated_request_is_held_no_longer_than_the_first() {
    let mut talk = Talk::held("wait='60'");
    talk.now = 50_000;
    talk.request_as(1, 11, "", "");
    assert_eq!(talk.tick(59_999), []);
    assert_eq!(talk.tick(60_000), done(&[(1, NOTHING)]));
}

#[test]
fn a_client_that_repeats_because_the_answer_is_late_gets_it_at_once() {
    let mut talk = Talk::held("wait='2'");
    talk.now = 2_010;
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(11, DROPPED), (1, NOTHING)]));
}

#[test]
fn a_client_that_wants_no_request_held_is_answered_at_once_12() {
    for attributes in ["hold='0'", "wait='0'", "hold='0' wait='0'"] {
        let mut talk = Talk::open(attributes);
        assert_eq!(talk.request(11, "", "<a/>"), done(&[(11, NOTHING)]), "{attributes}");
        talk.element("<b/>");
        assert_eq!(talk.request(12, "", "<a/>"), done(&[(12, "<b/>")]));
    }
}

#[test]
fn a_client_that_polls_too_often_is_sent_away_12() {
    for attributes in ["hold='0'", "wait='0'"] {
        for (milliseconds, is_too_often) in [(0, true), (1_999, true), (2_000, false), (2_001, false)] {
            let mut talk = Talk::open(attributes);
            assert_eq!(talk.empty(11), done(&[(11, NOTHING)]));
            talk.now = milliseconds;
            let expected = if is_too_often { VIOLATION } else { NOTHING };
            assert_eq!(talk.empty(12), done(&[(12, expected)]), "{attributes} {milliseconds}");
            assert_eq!(talk.has_ended(), is_too_often);
        }
    }
}

#[test]
fn a_polling_client_may_ask_again_when_it_got_something_12() {
    let mut talk = Talk::open("hold='0'");
    talk.element("<a/>");
    assert_eq!(talk.empty(11), done(&[(11, "<a/>")]));
    assert_eq!(talk.empty(12), done(&[(12, NOTHING)]));
    assert_eq!(talk.empty(13), done(&[(13, VIOLATION)]));
}

#[test]
fn a_polling_client_may_send_and_repeat_as_often_as_it_likes_12() {
    let mut talk = Talk::open("hold='0'");
    talk.empty(11);
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]));
    assert_eq!(talk.request(12, "", "<a/>"), done(&[(12, NOTHING)]));
    assert_eq!(talk.empty(13), done(&[(13, NOTHING)]));
    assert_eq!(talk.request(14, "pause='60'", ""), done(&[(14, NOTHING)]));
    assert_eq!(talk.empty(15), done(&[(15, NOTHING)]));
    assert_eq!(talk.request(16, "xmpp:restart='true'", ""), done(&[(16, NOTHING)]));
    assert_eq!(talk.request(17, "type='terminate'", ""), done(&[(17, TERMINATED)]));
}

#[test]
fn a_client_whose_requests_are_held_may_ask_as_often_as_it_likes() {
    let mut talk = Talk::open("");
    talk.empty(11);
    for rid in 12..40 {
        assert_eq!(talk.empty(rid), done(&[(rid as u32 - 1, NOTHING)]));
    }
}

#[test]
fn nobody_is_answered_whose_connection_was_closed_14_3() {
    let mut talk = Talk::held("");
    talk.gone(11);
    assert_eq!(talk.element("<a/>"), []);
    assert_eq!(talk.tick(10_000), []);
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, "<a/>")]));
}

#[test]
fn a_request_whose_connection_was_closed_can_be_held_by_another_14_3() {
    let mut talk = Talk::held("wait='20'");
    talk.gone(11);
    assert_eq!(talk.session.deadline(), Some(30_000), "only for want of requests");
    talk.now = 15_000;
    assert_eq!(talk.request_as(1, 11, "", ""), []);
    assert_eq!(talk.session.deadline(), Some(20_000), "as it was");
    assert_eq!(talk.element("<a/>"), done(&[(1, "<a/>")]));
}

#[test]
fn a_request_whose_connection_was_closed_is_passed_over_for_one_that_waits() {
    let mut talk = Talk::held("");
    talk.gone(11);
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.element("<a/>"), done(&[(12, "<a/>")]));
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]));
    assert_eq!(talk.request_as(2, 12, "", ""), done(&[(2, "<a/>")]));
}

#[test]
fn a_request_whose_connection_was_closed_takes_nothing_from_the_next_one() {
    let mut talk = Talk::held("");
    talk.gone(11);
    talk.element("<a/>");
    assert_eq!(talk.empty(12), done(&[(12, "<a/>")]));
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]));
}

#[test]
fn a_request_whose_connection_was_closed_before_its_turn_has_to_be_sent_again() {
    let mut talk = Talk::open("");
    talk.request(12, "", "<b/>");
    talk.gone(12);
    assert_eq!(talk.request(11, "", "<a/>"), []);
    assert_eq!(elements(&talk.batch()), ["<a/>"]);
    assert_eq!(talk.request_as(1, 12, "", "<b/>"), done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.activate()), ["<b/>"]);
}

#[test]
fn a_connection_that_is_closed_after_its_request_has_moved_on_changes_nothing() {
    let mut talk = Talk::held("");
    talk.request_as(1, 11, "", "");
    talk.gone(11);
    talk.gone(77);
    assert_eq!(talk.element("<a/>"), done(&[(1, "<a/>")]));
    talk.gone(11);
    assert_eq!(talk.request_as(2, 11, "", ""), done(&[(2, "<a/>")]));
}

#[test]
fn a_request_behind_which_another_one_waits_is_not_held_18() {
    let mut talk = Talk::held("");
    assert_eq!(talk.hurry(10), [], "nobody waits any more by that name");
    assert_eq!(talk.hurry(11), done(&[(11, NOTHING)]));
    // One whose turn has not come is held back for another reason.
    assert_eq!(talk.empty(13), []);
    assert_eq!(talk.hurry(13), []);
    assert_eq!(talk.empty(12), done(&[(12, NOTHING)]));
}

#[test]
fn the_first_answer_waits_for_the_features_though_another_request_waits() {
    let mut talk = Talk::create("", SETTINGS);
    assert_eq!(talk.hurry(10), []);
    assert_eq!(talk.send(Item::Features(b"<stream:features/>")).len(), 1);
}
