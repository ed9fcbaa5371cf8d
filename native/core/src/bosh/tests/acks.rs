//! Acknowledgements: XEP-0124, 9.

use super::*;
use crate::limits::BOSH_REPORT;

#[test]
fn an_answer_tells_the_highest_request_that_has_come_9_1() {
    let mut talk = Talk::held("ack='1'");
    assert_eq!(talk.empty(12), done(&[(11, "ack='12'")]));
    assert_eq!(talk.request(13, "", "<a/>"), done(&[(12, "ack='13'")]));
}

#[test]
fn an_answer_does_not_tell_its_own_number_9_1() {
    let mut talk = Talk::held("ack='1'");
    assert_eq!(talk.element("<a/>"), done(&[(11, "<a/>")]));
    talk.empty(12);
    assert_eq!(talk.tick(300_000), done(&[(12, NOTHING)]));
}

#[test]
fn a_request_behind_one_that_is_missing_is_not_acknowledged_9_1() {
    let mut talk = Talk::held("ack='1'");
    talk.empty(13);
    assert_eq!(talk.element("<a/>"), done(&[(11, "<a/>")]));
}

#[test]
fn an_answer_that_is_asked_for_again_acknowledges_what_it_did() {
    let mut talk = Talk::held("ack='1'");
    talk.empty(12);
    talk.empty(13);
    assert_eq!(talk.request_as(1, 11, "", ""), done(&[(1, "ack='12'")]));
}

#[test]
fn nothing_is_acknowledged_unless_that_was_agreed_upon_9_1() {
    let mut talk = Talk::held("");
    assert_eq!(talk.request(12, "ack='11'", ""), done(&[(11, NOTHING)]));
    talk.now = BOSH_REPORT;
    assert_eq!(talk.request(13, "ack='10'", ""), done(&[(12, NOTHING)]));
    assert_eq!(talk.request_as(1, 12, "", ""), done(&[(1, NOTHING)]));
}

#[test]
fn an_answer_that_has_not_arrived_is_reported_when_it_is_old_9_2() {
    for (age, expected) in [(BOSH_REPORT - 1, "ack='13'"), (BOSH_REPORT, "ack='13' report='11' time='1000'")]
    {
        let mut talk = Talk::held("ack='1'");
        talk.element("<a/>");
        talk.empty(12);
        talk.now = age;
        assert_eq!(talk.request(13, "ack='10'", ""), done(&[(12, expected)]));
        // It is told once.
        assert_eq!(talk.request(14, "", ""), done(&[(13, "ack='14'")]));
    }
}

#[test]
fn the_time_of_a_report_is_that_until_the_answer_which_has_it_9_2() {
    let mut talk = Talk::held("ack='1'");
    talk.now = 5;
    talk.element("<a/>");
    talk.now = 2_005;
    talk.request(12, "ack='10'", "");
    talk.now = 7_005;
    assert_eq!(talk.element("<b/>"), done(&[(12, "report='11' time='7000' <b/>")]));
}

#[test]
fn an_answer_that_has_arrived_meanwhile_is_not_reported_9_2() {
    let mut talk = Talk::held("ack='1'");
    talk.element("<a/>");
    talk.now = 2_000;
    talk.request(12, "ack='10'", "");
    assert_eq!(talk.request(13, "ack='11'", ""), done(&[(12, "ack='13'")]));
}

#[test]
fn the_end_of_the_session_reports_too() {
    let mut talk = Talk::held("ack='1'");
    talk.element("<a/>");
    talk.now = 2_000;
    let answers = talk.request(12, "ack='10' type='terminate'", "");
    assert_eq!(answers, done(&[(12, "report='11' time='2000' type='terminate'")]));
}

#[test]
fn answers_that_have_arrived_are_not_kept_9_2() {
    for (ack, kept) in [(9, true), (10, true), (11, true), (12, false), (13, false), (u64::MAX, false)] {
        let mut talk = Talk::held("ack='1'");
        talk.element("<a/>");
        talk.empty(12);
        talk.element("<b/>");
        talk.request(13, &format!("ack='{ack}'"), "");
        let expected = if kept { vec![(1, "<b/>")] } else { vec![(1, NOT_FOUND)] };
        assert_eq!(talk.request_as(1, 12, "", ""), done(&expected), "ack {ack}");
    }
}

#[test]
fn the_first_answer_is_kept_until_it_is_acknowledged() {
    let mut talk = Talk::open("ack='1'");
    talk.empty(11);
    assert!(talk.request_as(1, 10, "", "")[0].1.starts_with("sid='"));
    talk.request(12, "ack='10'", "");
    assert_eq!(talk.request_as(2, 10, "", "")[0], (2, NOT_FOUND.into()));
}

#[test]
fn an_acknowledgement_that_tells_less_than_one_before_changes_nothing() {
    let mut talk = Talk::held("ack='1'");
    talk.element("<a/>");
    talk.request(12, "ack='11'", "");
    talk.now = 5_000;
    assert_eq!(talk.request(13, "ack='0'", ""), done(&[(12, "ack='13'")]));
    assert_eq!(talk.request(14, "ack='10'", ""), done(&[(13, "ack='14'")]));
}

#[test]
fn a_request_without_acknowledgement_tells_that_all_has_arrived_9_2() {
    let mut talk = Talk::held("ack='1'");
    talk.element("<a/>");
    talk.now = 2_000;
    talk.request(12, "ack='10'", "");
    assert_eq!(talk.request(13, "", ""), done(&[(12, "ack='13'")]));
}
