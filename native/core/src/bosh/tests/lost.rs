//! Answers that did not arrive, whose clients may have forgotten that they asked.

use super::*;

/// One whose answers to 11, with an element, and 12, with another, are both lost, which is told in this order.
fn both_lost(order: [u32; 2]) -> Talk {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    talk.empty(12);
    talk.element("<b/>");
    for ticket in order {
        assert_eq!(talk.lost(ticket), []);
    }
    talk
}

#[test]
fn elements_that_did_not_arrive_come_with_the_answer_to_another_request() {
    let mut talk = Talk::held("");
    assert_eq!(talk.element("<a/>"), done(&[(11, "<a/>")]));
    assert_eq!(talk.lost(11), []);
    assert_eq!(talk.empty(12), done(&[(12, "<a/>")]));
    // The other one is not answered with them once more.
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]));
}

#[test]
fn they_come_with_the_answer_to_the_same_request_when_that_is_the_next_one() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    assert_eq!(talk.lost(11), []);
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, "<a/>")]));
    // As often as it is lost, and it is the answer to this one from then on.
    assert_eq!(talk.lost(1), []);
    assert_eq!(talk.request_as(2, 11, "", ""), done(&[(2, "<a/>")]));
    assert_eq!(talk.request_as(3, 11, "", ""), done(&[(3, "<a/>")]));
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.element("<b/>"), done(&[(12, "<b/>")]));
}

#[test]
fn of_two_that_are_lost_the_repeat_of_the_last_one_gets_the_elements() {
    for order in [[11, 12], [12, 11]] {
        let mut talk = both_lost(order);
        assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, NOTHING)]), "{order:?}");
        assert_eq!(talk.request_as(2, 12, "", ""), done(&[(2, "<a/><b/>")]), "{order:?}");
    }
}

#[test]
fn an_answer_without_a_request_is_none_that_is_waited_for() {
    for attributes in ["hold='1'", "hold='0'"] {
        let mut talk = Talk::open(attributes);
        talk.element("<a/>");
        assert_eq!(talk.empty(11), done(&[(11, "<a/>")]), "{attributes}");
        assert_eq!(talk.lost(11), [], "{attributes}");
        assert_eq!(talk.session.deadline(), Some(u64::from(SETTINGS.inactivity) * 1_000), "{attributes}");
        assert_eq!(talk.empty(12), done(&[(12, "<a/>")]), "{attributes}");
    }
}

#[test]
fn they_go_at_once_to_another_request_that_waits_and_before_later_ones() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.lost(11), done(&[(12, "<a/>")]));
    talk.element("<b/>");
    assert_eq!(talk.lost(12), []);
    assert_eq!(talk.empty(13), done(&[(13, "<a/><b/>")]));
}

#[test]
fn answers_that_are_lost_together_come_back_in_order_whichever_is_known_first() {
    for order in [[11, 12], [12, 11]] {
        let mut talk = both_lost(order);
        assert_eq!(talk.empty(13), done(&[(13, "<a/><b/>")]), "{order:?}");
    }
}

#[test]
fn elements_do_not_come_after_later_ones_that_may_have_arrived() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    talk.empty(12);
    talk.element("<b/>");
    assert_eq!(talk.lost(11), []);
    assert_eq!(talk.empty(13), []);
    // A client that repeats its request gets them.
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, "<a/>")]));
}

#[test]
fn an_answer_that_was_given_once_more_is_not_taken_back() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, "<a/>")]));
    assert_eq!((talk.lost(11), talk.lost(1)), (vec![], vec![]));
    assert_eq!(talk.empty(12), []);
}

#[test]
fn whoever_asks_again_has_got_the_answer_before() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    talk.request_as(11, 12, "", "");
    talk.element("<b/>");
    assert_eq!(talk.lost(11), []);
    // Only of the last one.
    assert_eq!(talk.empty(13), done(&[(13, "<b/>")]));
}

#[test]
fn each_element_stays_one() {
    let mut talk = Talk::with("", Settings { max_concat: 1, ..SETTINGS });
    talk.element("<a/>");
    talk.element("<b/>");
    assert_eq!(talk.empty(11), done(&[(11, "<a/>")]));
    assert_eq!(talk.lost(11), []);
    assert_eq!(talk.empty(12), done(&[(12, "<a/>")]));
    assert_eq!(talk.empty(13), done(&[(13, "<b/>")]));
    assert_eq!((talk.lost(12), talk.lost(13)), (vec![], vec![]));
    let left: Vec<&[u8]> = talk.session.unsent().collect();
    assert_eq!(left, [b"<a/>", b"<b/>"]);
}

#[test]
fn an_answer_that_says_more_than_its_elements_is_not_taken_back() {
    let mut talk = Talk::held("");
    talk.send(Item::Start { id: b"y", version: b"1.0" });
    assert_eq!(talk.send(Item::Features(b"<stream:features/>")).len(), 1);
    assert_eq!(talk.lost(11), []);
    assert_eq!(talk.empty(12), []);
}
