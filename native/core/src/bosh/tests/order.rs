//! Numbers of requests, and requests that are repeated: XEP-0124, 14.

use super::*;

#[test]
fn requests_are_taken_in_the_order_of_their_numbers_14_2() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "", "<a/>"), []);
    assert_eq!(elements(&talk.batch()), ["<a/>"]);
    assert_eq!(talk.request(12, "", "<b/>"), done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.activate()), ["<b/>"]);
}

#[test]
fn a_request_that_comes_too_early_waits_for_the_one_before_14_2() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(12, "", "<b/>"), []);
    assert_eq!(talk.batch(), Activated::Waits);
    assert_eq!(talk.request(11, "", "<a/>"), done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.batch()), ["<a/>", "<b/>"]);
    assert_eq!(talk.element("<c/>"), done(&[(12, "<c/>")]));
}

#[test]
fn what_there_is_to_say_goes_to_the_lowest_number_whatever_came_first_14_2() {
    let mut talk = Talk::open("");
    talk.element("<c/>");
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.empty(11), done(&[(11, "<c/>")]));
    assert_eq!(talk.element("<d/>"), done(&[(12, "<d/>")]));
}

#[test]
fn the_window_is_as_wide_as_the_requests_that_a_client_may_have_14_2() {
    for (attributes, inside, outside) in [("hold='1'", 12, 13), ("hold='0'", 11, 12)] {
        let mut talk = Talk::open(attributes);
        let done = talk.empty(inside);
        assert_eq!(done.len(), usize::from(inside == 11));
        let mut talk = Talk::open(attributes);
        assert_eq!(talk.empty(outside), super::done(&[(outside as u32, NOT_FOUND)]));
        assert!(talk.has_ended());
    }
}

#[test]
fn the_window_moves_with_the_requests_that_are_taken_not_with_those_that_wait() {
    let mut talk = Talk::held("");
    talk.empty(13);
    assert_eq!(talk.empty(14), done(&[(14, NOT_FOUND), (11, OTHER), (13, OTHER)]));
    assert!(talk.has_ended());
    let mut talk = Talk::held("");
    talk.empty(12);
    talk.empty(14);
    assert_eq!(talk.empty(13), done(&[(12, NOTHING), (13, NOTHING)]));
}

#[test]
fn a_number_below_the_first_one_is_not_found_14_3() {
    let mut talk = Talk::open("");
    assert_eq!(talk.empty(9), done(&[(9, NOT_FOUND)]));
    assert!(!talk.has_ended());
}

#[test]
fn the_highest_number_is_taken() {
    let text = format!("<body rid='{}' to='a'/>", (1_u64 << 53) - 1);
    let mut session = Session::new(parse(&text), b"", 1, &SID, true, SETTINGS, 0);
    let mut effects = Effects::new();
    session.request(parse(&text), text.as_bytes(), 2, 0, &mut effects);
    assert_eq!(effects[..], [Effect::Drop(1)]);
}

#[test]
fn a_request_that_is_repeated_while_it_is_held_is_held_by_its_new_connection_14_3() {
    let mut talk = Talk::held("");
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(11, DROPPED)]));
    assert_eq!(talk.request_as(2, 11, "", ""), done(&[(1, DROPPED)]));
    assert_eq!(talk.element("<a/>"), done(&[(2, "<a/>")]));
}

#[test]
fn a_request_that_is_repeated_is_not_taken_twice_14_3() {
    let mut talk = Talk::open("");
    talk.request(11, "", "<a/>");
    talk.request_as(1, 11, "", "<a/>");
    assert_eq!(elements(&talk.batch()), ["<a/>"]);
    assert_eq!(talk.request_as(2, 11, "", "<a/>"), done(&[(1, DROPPED)]));
    assert_eq!(talk.activate(), Activated::Waits);
    talk.element("<b/>");
    assert_eq!(talk.request_as(3, 11, "", "<a/>"), done(&[(3, "<b/>")]));
    assert_eq!(talk.batch(), Activated::Waits);
}

#[test]
fn a_request_that_is_repeated_while_it_waits_for_its_turn_waits_there_once_14_3() {
    let mut talk = Talk::open("");
    talk.request(12, "", "<b/>");
    assert_eq!(talk.request_as(1, 12, "", "<b/>"), done(&[(12, DROPPED)]));
    assert_eq!(talk.request(11, "", "<a/>"), done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.batch()), ["<a/>", "<b/>"]);
    assert_eq!(talk.element("<c/>"), done(&[(1, "<c/>")]));
}

#[test]
fn an_answer_that_is_asked_for_again_is_the_same_each_time_14_3() {
    let mut talk = Talk::held("");
    assert_eq!(talk.element("<a/>"), done(&[(11, "<a/>")]));
    talk.element("<b/>");
    for ticket in 1..3 {
        assert_eq!(talk.request_as(ticket, 11, "", ""), done(&[(ticket, "<a/>")]));
    }
    assert_eq!(talk.empty(12), done(&[(12, "<b/>")]));
    assert_eq!(talk.request_as(3, 12, "", ""), done(&[(3, "<b/>")]));
    assert_eq!(talk.request_as(4, 11, "", ""), done(&[(4, "<a/>")]));
}

#[test]
fn an_answer_that_said_nothing_says_nothing_again_14_3() {
    let mut talk = Talk::held("");
    assert_eq!(talk.empty(12), done(&[(11, NOTHING)]));
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]));
}

#[test]
fn as_many_answers_are_kept_as_a_client_may_have_requests_14_3() {
    for (attributes, kept) in [("hold='1'", 2), ("hold='0'", 1)] {
        let sent = |talk: &mut Talk| {
            for rid in 11..15 {
                let text = format!("<a n='{rid}'/>");
                talk.element(&text);
                assert_eq!(talk.empty(rid), done(&[(rid as u32, &text)]));
            }
        };
        for back in 0..4 {
            let (mut talk, rid) = (Talk::open(attributes), 14 - back);
            sent(&mut talk);
            let again = talk.request_as(1, rid, "", "");
            if back < kept {
                assert_eq!(again, done(&[(1, &format!("<a n='{rid}'/>"))]));
            } else {
                assert_eq!(again, done(&[(1, NOT_FOUND)]));
            }
            assert!(!talk.has_ended());
        }
    }
}

#[test]
fn a_repeated_request_that_cannot_be_answered_disturbs_nobody_14_3() {
    let mut talk = Talk::held("");
    talk.empty(12);
    talk.empty(13);
    talk.empty(15);
    assert_eq!(talk.request_as(1, 10, "", ""), done(&[(1, NOT_FOUND)]));
    assert!(!talk.has_ended());
    talk.empty(14);
    assert_eq!(talk.element("<a/>"), done(&[(15, "<a/>")]));
}

#[test]
fn a_session_that_has_ended_is_not_there_for_any_request() {
    let mut talk = Talk::held("");
    talk.request(12, "type='terminate'", "");
    for (ticket, rid) in [(1, 10), (2, 11), (3, 12), (4, 13), (5, 1_000)] {
        assert_eq!(talk.request_as(ticket, rid, "", "<a/>"), done(&[(ticket, NOT_FOUND)]));
    }
    assert!(talk.is_refused(Item::Element(b"<a/>")));
    assert!(talk.has_ended());
}
