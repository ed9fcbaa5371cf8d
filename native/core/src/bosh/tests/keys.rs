//! Keys: XEP-0124, 15.

use sha1::{Digest, Sha1};

use super::*;

/// A sequence of keys, in the order in which they are used; the first is a `newkey`.
fn keys(seed: &str, count: usize) -> Vec<String> {
    let mut keys = vec![seed.to_owned()];
    for _ in 0..count {
        let sum: [u8; 20] = Sha1::digest(keys.last().unwrap().as_bytes()).into();
        keys.push(sum.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    keys.reverse();
    keys
}

fn open(keys: &[String]) -> Talk {
    Talk::open(&format!("newkey='{}'", keys[0]))
}

fn key(key: &str) -> String {
    format!("key='{key}'")
}

#[test]
fn each_request_needs_the_next_key_15_4() {
    let keys = keys("seed", 5);
    let mut talk = open(&keys);
    assert_eq!(talk.request(11, &key(&keys[1]), ""), []);
    for (rid, next) in (12..).zip(&keys[2..]) {
        assert_eq!(talk.request(rid, &key(next), ""), done(&[(rid as u32 - 1, NOTHING)]));
    }
    assert!(!talk.has_ended());
}

#[test]
fn a_wrong_key_or_none_ends_the_session_and_nothing_is_taken_15_4() {
    let keys = keys("seed", 5);
    let wrong = [
        key(&keys[0]),
        key(&keys[2]),
        key(&keys[3]),
        key(""),
        String::new(),
        format!("newkey='{}'", keys[1]),
    ];
    for attributes in wrong {
        let mut talk = open(&keys);
        assert_eq!(talk.request(11, &attributes, "<a/>"), done(&[(11, NOT_FOUND)]));
        assert_eq!(talk.batch(), Activated::Closed);
        assert!(talk.session.is_over());
    }
}

#[test]
fn the_key_of_a_request_is_looked_at_when_it_has_its_turn_15_4() {
    let keys = keys("seed", 5);
    let mut talk = open(&keys);
    assert_eq!(talk.request(12, &key(&keys[2]), ""), []);
    assert_eq!(talk.request(11, &key(&keys[1]), ""), done(&[(11, NOTHING)]));
    assert_eq!(talk.request(14, &key("wrong"), ""), []);
    assert_eq!(talk.request(13, &key(&keys[3]), ""), done(&[(14, NOT_FOUND), (12, OTHER), (13, OTHER)]));
}

#[test]
fn a_client_may_go_on_with_another_sequence_15_5() {
    let (first, second) = (keys("seed", 2), keys("another", 3));
    let mut talk = open(&first);
    talk.request(11, &key(&first[1]), "");
    let both = format!("key='{}' newkey='{}'", first[2], second[0]);
    assert_eq!(talk.request(12, &both, ""), done(&[(11, NOTHING)]));
    assert_eq!(talk.request(13, &key(&second[1]), ""), done(&[(12, NOTHING)]));
    assert_eq!(talk.request(14, &key(&second[2]), ""), done(&[(13, NOTHING)]));
    // The old one is of no use.
    let mut talk = open(&first);
    let both = format!("key='{}' newkey='{}'", first[1], second[0]);
    talk.request(11, &both, "");
    assert_eq!(talk.request(12, &key(&first[2]), ""), done(&[(12, NOT_FOUND), (11, OTHER)]));
}

#[test]
fn another_sequence_needs_the_key_of_the_one_before_15_5() {
    let (first, second) = (keys("seed", 2), keys("another", 3));
    let mut talk = open(&first);
    let both = format!("key='{}' newkey='{}'", second[1], second[0]);
    assert_eq!(talk.request(11, &both, ""), done(&[(11, NOT_FOUND)]));
}

#[test]
fn keys_are_compared_whatever_the_case_of_their_digits_15_4() {
    let keys = keys("seed", 3);
    let mut talk = Talk::open(&format!("newkey='{}'", keys[0].to_ascii_uppercase()));
    assert_eq!(talk.request(11, &key(&keys[1]), ""), []);
    // But a sum is that of the key as it was written.
    let mut talk = open(&keys);
    let upper = keys[1].to_ascii_uppercase();
    assert_eq!(talk.request(11, &key(&upper), ""), done(&[(11, NOT_FOUND)]));
}

#[test]
fn a_first_key_that_is_no_sum_has_no_successor() {
    let keys = keys("seed", 1);
    for newkey in ["", "a", &keys[0][1..], &format!("{}0", keys[0])] {
        let mut talk = Talk::open(&format!("newkey='{newkey}'"));
        assert_eq!(talk.request(11, &key("seed"), ""), done(&[(11, NOT_FOUND)]), "{newkey}");
    }
}

#[test]
fn without_a_first_key_no_key_is_looked_at_15_4() {
    let mut talk = Talk::open("");
    assert_eq!(talk.request(11, "key='a' newkey='b'", ""), []);
    assert_eq!(talk.empty(12), done(&[(11, NOTHING)]));
}

#[test]
fn a_request_that_is_repeated_uses_no_key_up_15_4() {
    let keys = keys("seed", 5);
    let mut talk = open(&keys);
    talk.request(11, &key(&keys[1]), "");
    assert_eq!(talk.request_as(1, 11, &key(&keys[1]), ""), done(&[(11, DROPPED)]));
    assert_eq!(talk.request(12, &key(&keys[2]), ""), done(&[(1, NOTHING)]));
    assert_eq!(talk.request_as(2, 11, &key(&keys[1]), ""), done(&[(2, NOTHING)]));
    assert_eq!(talk.request(13, &key(&keys[3]), ""), done(&[(12, NOTHING)]));
}
