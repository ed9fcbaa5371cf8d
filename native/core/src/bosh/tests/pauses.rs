//! Pauses: XEP-0124, 10.

use super::*;

#[test]
fn a_pause_has_all_requests_answered_10() {
    let mut talk = Talk::held("");
    assert_eq!(talk.request(12, "pause='60'", ""), done(&[(11, NOTHING), (12, NOTHING)]));
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "pause='60'", ""), done(&[(11, NOTHING)]));
}

#[test]
fn a_session_that_pauses_lasts_as_long_as_it_asked_for_10() {
    for (pause, end) in [(1, 1_000), (60, 60_000), (120, 120_000)] {
        let mut talk = Talk::held("");
        talk.request(12, &format!("pause='{pause}'"), "");
        assert_eq!(talk.session.deadline(), Some(end));
        talk.tick(end - 1);
        assert!(!talk.has_ended());
        talk.tick(end);
        assert!(talk.has_ended());
    }
}

#[test]
fn a_pause_that_is_too_long_ends_the_session_10() {
    for pause in ["121", "4294967295", "4294967296"] {
        let mut talk = Talk::held("");
        let answers = talk.request(12, &format!("pause='{pause}'"), "");
        assert_eq!(answers, done(&[(12, VIOLATION), (11, OTHER)]));
        assert!(talk.has_ended());
    }
}

#[test]
fn the_next_request_ends_a_pause_10() {
    let mut talk = Talk::held("");
    talk.request(12, "pause='120'", "");
    talk.now = 100_000;
    assert_eq!(talk.empty(13), []);
    talk.element("<a/>");
    assert_eq!(talk.session.deadline(), Some(130_000));
}

#[test]
fn a_pause_that_is_repeated_goes_on() {
    let mut talk = Talk::held("");
    talk.request(12, "pause='120'", "");
    talk.now = 1_000;
    assert_eq!(talk.request_as(1, 12, "pause='120'", ""), done(&[(1, NOTHING)]));
    assert_eq!(talk.session.deadline(), Some(121_000));
}

#[test]
fn the_answer_to_a_pause_has_no_elements_10() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    assert_eq!(talk.request(11, "pause='60'", ""), done(&[(11, NOTHING)]));
    assert_eq!(talk.element("<b/>"), []);
    assert_eq!(talk.empty(12), done(&[(12, "<a/><b/>")]));
}

#[test]
fn what_there_is_to_say_goes_to_requests_before_the_pause_10() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    assert_eq!(talk.request(12, "pause='60'", ""), []);
    assert_eq!(talk.empty(11), done(&[(11, "<a/>"), (12, NOTHING)]));
    // Not to those whose connections were closed.
    let mut talk = Talk::held("");
    talk.gone(11);
    talk.element("<a/>");
    assert_eq!(talk.request(12, "pause='60'", ""), done(&[(12, NOTHING)]));
    assert_eq!(talk.empty(13), done(&[(13, "<a/>")]));
}

#[test]
fn the_answer_to_a_pause_has_no_elements_even_if_it_came_behind_the_next_request() {
    let mut talk = Talk::open("");
    talk.element("<a/>");
    assert_eq!(talk.empty(12), []);
    assert_eq!(talk.request(11, "pause='60'", ""), done(&[(11, NOTHING), (12, "<a/>")]));
}

#[test]
fn the_end_of_the_stream_is_told_after_a_pause() {
    let mut talk = Talk::open("");
    talk.close();
    assert_eq!(talk.request(11, "pause='60'", ""), done(&[(11, NOTHING)]));
    assert_eq!(talk.empty(12), done(&[(12, STREAM_ENDED)]));
}

#[test]
fn elements_of_a_request_that_asks_for_a_pause_are_taken() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "pause='60'", "<a/>"), done(&[(11, NOTHING)]));
    assert_eq!(elements(&talk.batch()), ["<a/>"]);
}

#[test]
fn a_pause_waits_for_its_turn_as_other_requests_do() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(12, "pause='60'", ""), []);
    assert_eq!(talk.empty(11), done(&[(11, NOTHING), (12, NOTHING)]));
    assert_eq!(talk.session.deadline(), Some(60_000));
}

#[test]
fn a_request_that_came_before_the_pause_did_ends_it() {
    let mut talk = Talk::held("");
    assert_eq!(talk.empty(13), []);
    assert_eq!(talk.request(12, "pause='60'", ""), done(&[(11, NOTHING), (12, NOTHING)]));
    assert_eq!(talk.session.deadline(), Some(300_000));
    assert_eq!(talk.element("<a/>"), done(&[(13, "<a/>")]));
    assert_eq!(talk.session.deadline(), Some(30_000));
}
