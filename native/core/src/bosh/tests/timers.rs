//! Sessions without requests: XEP-0124, 10.

use super::*;

#[test]
fn a_session_without_requests_ends_when_its_time_is_over_and_not_before_10() {
    for (at, ended) in [(30_006, false), (30_007, true), (30_008, true)] {
        let mut talk = Talk::held("");
        talk.now = 7;
        talk.element("<a/>");
        assert_eq!(talk.session.deadline(), Some(30_007));
        assert_eq!(talk.tick(at), []);
        assert_eq!(talk.has_ended(), ended);
        if ended {
            assert_eq!(talk.empty(12), done(&[(12, NOT_FOUND)]));
        }
    }
}

#[test]
fn a_session_does_not_end_while_a_request_is_held_10() {
    let mut talk = Talk::held("wait='300'");
    assert_eq!(talk.tick(299_999), []);
    assert!(!talk.has_ended());
    assert_eq!(talk.tick(300_000), done(&[(11, NOTHING)]));
    assert_eq!(talk.session.deadline(), Some(330_000));
}

#[test]
fn the_time_of_a_session_begins_with_its_last_answer_10() {
    let mut talk = Talk::held("");
    talk.now = 20_000;
    talk.element("<a/>");
    talk.now = 49_999;
    assert_eq!(talk.empty(12), []);
    talk.now = 60_000;
    talk.element("<b/>");
    assert_eq!(talk.session.deadline(), Some(90_000));
}

#[test]
fn what_the_server_sends_meanwhile_makes_no_session_last_longer_10() {
    let mut talk = Talk::open("");
    talk.now = 29_999;
    talk.element("<a/>");
    assert_eq!(talk.activate(), Activated::Waits);
    assert_eq!(talk.session.deadline(), Some(30_000));
}

#[test]
fn the_time_of_a_session_begins_when_the_connection_of_its_request_is_closed_10() {
    let mut talk = Talk::held("");
    talk.now = 100_000;
    talk.gone(11);
    assert_eq!(talk.session.deadline(), Some(130_000));
    talk.tick(130_000);
    assert!(talk.has_ended());
}

#[test]
fn a_request_that_is_repeated_shows_that_the_client_is_there() {
    let mut talk = Talk::held("");
    talk.element("<a/>");
    talk.now = 29_000;
    talk.request_as(1, 11, "", "");
    assert_eq!(talk.session.deadline(), Some(59_000));
}

#[test]
fn a_session_whose_next_request_does_not_come_ends_and_tells_those_behind_it() {
    let mut talk = Talk::open("");
    talk.now = 10_000;
    talk.empty(12);
    assert_eq!(talk.session.deadline(), Some(40_000));
    assert_eq!(talk.tick(39_999), []);
    assert_eq!(talk.tick(40_000), done(&[(12, OTHER)]));
    assert!(talk.has_ended());
}

#[test]
fn a_polling_session_has_as_much_time_as_others() {
    let mut talk = Talk::open("hold='0'");
    talk.now = 5_000;
    talk.empty(11);
    assert_eq!(talk.session.deadline(), Some(35_000));
    talk.tick(34_999);
    assert!(!talk.has_ended());
    talk.tick(35_000);
    assert!(talk.has_ended());
}

#[test]
fn a_tick_that_comes_too_early_or_twice_does_nothing() {
    let mut talk = Talk::held("wait='60'");
    for at in [0, 1, 1, 59_999] {
        assert_eq!(talk.tick(at), []);
    }
    assert_eq!(talk.tick(60_000), done(&[(11, NOTHING)]));
    assert_eq!(talk.tick(60_000), []);
    assert_eq!(talk.tick(90_000), []);
    assert_eq!(talk.tick(90_000), []);
}

#[test]
fn a_session_that_has_ended_has_no_time_to_wait_for() {
    let mut talk = Talk::held("");
    talk.request(12, "type='terminate'", "");
    assert_eq!(talk.session.deadline(), None);
    talk.gone(11);
    talk.gone(12);
    assert_eq!(talk.session.deadline(), None);
}

#[test]
fn no_time_is_over_while_the_client_session_is_what_is_waited_for() {
    let mut talk = Talk::open("");
    let long = format!("<a>{}</a>", "x".repeat(9_000));
    talk.request(11, "", &long);
    assert_eq!(talk.request(12, "", &long), []);
    assert_eq!(talk.request(13, "", &long), []);
    talk.tick(300_000);
    assert!(talk.session.deadline().is_none_or(|deadline| deadline > 300_000));
    assert!(!talk.session.is_over());
}
