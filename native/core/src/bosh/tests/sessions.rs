//! The table of sessions.

use std::net::SocketAddr;

use super::*;
use crate::limits::{BOSH_TICK, BOSH_TIMERS_PER_CALL};

type TestSessions = Sessions<u32, u32>;

/// The node of these tests.
const NODE: u32 = 9;

fn client() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5_222))
}

/// Puts a session in whose creation is answered, at this time, so that it waits for requests; its name.
fn create(sessions: &TestSessions, secret: u8, now: u64) -> (SocketId, Sid) {
    let mut named = None;
    let id = sessions.create([secret; 16], "a".into(), client(), 1, |sid| {
        named = Some(*sid);
        let request = parse("<body rid='10' to='a' wait='60'/>");
        let mut session = Session::new(request, b"", 0, sid, true, SETTINGS, now);
        let mut effects = Effects::new();
        assert!(session.send(Item::Features(b"<stream:features/>"), now, &mut effects));
        assert_eq!(effects.len(), 1);
        session
    });
    (id.unwrap(), named.unwrap())
}

fn request(entry: &mut Entry<u32, u32>, rid: u64, now: u64) {
    let text = format!("<body rid='{rid}'/>");
    entry.session.request(parse(&text), text.as_bytes(), rid as u32, now, &mut Effects::new());
}

fn send(entry: &mut Entry<u32, u32>, text: &[u8], now: u64) {
    assert!(entry.session.send(Item::Element(text), now, &mut Effects::new()));
}

/// Ends a session as its client session does, with nobody to tell.
fn end(entry: &mut Entry<u32, u32>, now: u64) {
    let mut effects = Effects::new();
    let text = "<body rid='11' type='terminate'/>";
    entry.session.request(parse(text), text.as_bytes(), 11, now, &mut effects);
    entry.session.close(now, &mut effects);
    assert!(entry.session.is_over());
}

/// Lets the time of a table be `now`: who was worked with, what has ended, and whether there is more.
fn tick(sessions: &TestSessions, now: u64, most: usize) -> (Vec<SocketId>, usize, bool) {
    let (mut worked, mut ended) = (Vec::new(), Vec::new());
    let more = sessions.tick(now, most, &mut ended, |entry| {
        worked.push(entry.id());
        entry.session.tick(now, &mut Effects::new());
        if entry.session.deadline().is_none() {
            entry.session.close(now, &mut Effects::new());
        }
    });
    (worked, ended.len(), more)
}

#[test]
fn a_session_is_found_by_its_name_and_by_no_other() {
    let sessions = TestSessions::new(NODE);
    assert_eq!((sessions.node(), sessions.len(), sessions.is_empty()), (NODE, 0, true));
    let (id, sid) = create(&sessions, 7, 0);
    let (other, _) = create(&sessions, 8, 0);
    assert_eq!((sessions.len(), sessions.is_empty()), (2, false));
    assert_eq!((sid.node, sid.place, sid.secret), (NODE, id.place, [7; 16]));
    assert_ne!(id, other);
    let found = |sid: Sid| sessions.with_sid(&sid, |entry| entry.id()).map(|(id, _)| id);
    assert_eq!(found(sid), Some(id));
    assert_eq!(found(Sid::parse(&sid.text()).unwrap()), Some(id));
    assert_eq!(found(Sid { secret: [8; 16], ..sid }), None);
    assert_eq!(found(Sid { node: NODE + 1, ..sid }), None);
    for place in [other.place, sid.place + 1, u32::MAX] {
        assert_eq!(found(Sid { place, ..sid }), None);
    }
    let found =
        |id| sessions.with_id(id, |entry| (entry.client, entry.host.to_string())).map(|(found, _)| found);
    assert_eq!(found(id), Some((client(), "a".into())));
    assert_eq!(found(SocketId { generation: id.generation + 1, ..id }), None);
    assert_eq!(found(SocketId { place: u32::MAX, ..id }), None);
}

#[test]
fn who_had_the_place_before_does_not_have_the_session() {
    let sessions = TestSessions::new(NODE);
    let (id, sid) = create(&sessions, 7, 0);
    let ended = sessions.with_id(id, |entry| end(entry, 0)).and_then(|(_, ended)| ended);
    assert!(ended.is_some());
    assert!(sessions.with_id(id, |_| ()).is_none());
    assert!(sessions.with_sid(&sid, |_| ()).is_none());
    let reused = (0..1_000).map(|_| create(&sessions, 7, 0).0).find(|other| other.place == id.place).unwrap();
    assert_ne!(reused.generation, id.generation);
    assert!(sessions.with_id(id, |_| ()).is_none());
    assert!(!sessions.stir(id, 0));
    assert!(sessions.with_id(reused, |_| ()).is_some());
}

#[test]
fn what_was_not_delivered_is_given_to_the_one_who_ends_the_session_unless_it_is_resumed() {
    for resumable in [false, true] {
        let sessions = TestSessions::new(NODE);
        let (id, _) = create(&sessions, 7, 0);
        let (_, ended) = sessions
            .with_id(id, |entry| {
                (entry.owner, entry.resumable) = (Some(5), resumable);
                send(entry, b"<a/>", 0);
                send(entry, b"<b/>", 0);
                entry.session.close(0, &mut Effects::new());
            })
            .unwrap();
        assert!(ended.is_none(), "it waits for a request");
        let mut ended = Vec::new();
        sessions.tick(30_000, 10, &mut ended, |entry| entry.session.tick(30_000, &mut Effects::new()));
        let [Ended { owner: Some(5), unsent }] = &ended[..] else { panic!("{ended:?}") };
        let expected: &[&[u8]] = if resumable { &[] } else { &[b"<a/>", b"<b/>"] };
        assert!(unsent.iter().map(|text| &text[..]).eq(expected.iter().copied()));
        assert!(sessions.is_empty());
    }
}

#[test]
fn a_session_that_is_over_stays_until_its_client_session_knows() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    let mut ended = Vec::new();
    sessions.tick(30_000, 10, &mut ended, |entry| entry.session.tick(30_000, &mut Effects::new()));
    assert_eq!((ended.len(), sessions.len()), (0, 1));
    let activate = |entry: &mut Entry<u32, u32>| entry.session.activate(false, 30_000, &mut Effects::new());
    assert!(matches!(sessions.with_id(id, activate), Some((Activated::Batch(_), None))));
    assert!(matches!(sessions.with_id(id, activate), Some((Activated::Closed, Some(_)))));
    assert!(sessions.with_id(id, activate).is_none());
    assert!(sessions.is_empty());
}

#[test]
fn a_timer_is_never_early_and_late_by_a_step_at_most() {
    for start in [0, 1, 50, 99, 100, 101, 12_345] {
        let sessions = TestSessions::new(NODE);
        let (id, _) = create(&sessions, 7, start);
        let deadline = start + 30_000;
        let first = (0..).find(|now| {
            let (worked, _, more) = tick(&sessions, *now, 10);
            assert!(!more, "it is not looked at again and again");
            !worked.is_empty()
        });
        let first = first.unwrap();
        assert!((deadline..deadline + BOSH_TICK).contains(&first), "{start} {first}");
        assert!(sessions.with_id(id, |_| ()).is_none());
    }
}

#[test]
fn a_timer_that_has_moved_to_a_later_time_is_looked_at_there() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    sessions.with_id(id, |entry| request(entry, 11, 20_000));
    assert_eq!(tick(&sessions, 79_999, 10), (vec![], 0, false));
    assert_eq!(tick(&sessions, 80_000, 10), (vec![id], 0, false));
    // Answered at 80 s, so it ends at 110 s.
    assert_eq!(tick(&sessions, 109_999, 10), (vec![], 0, false));
    assert_eq!(tick(&sessions, 110_000, 10), (vec![id], 1, false));
}

#[test]
fn a_timer_that_has_moved_to_an_earlier_time_is_looked_at_there() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    sessions.with_id(id, |entry| request(entry, 11, 1_000));
    tick(&sessions, 30_000, 10);
    // It waits for 61 s now. Answered at 30 s, it ends at 60 s.
    sessions.with_id(id, |entry| send(entry, b"<a/>", 30_000));
    assert_eq!(tick(&sessions, 59_999, 10), (vec![], 0, false));
    assert_eq!(tick(&sessions, 60_000, 10), (vec![id], 1, false));
    assert_eq!(tick(&sessions, 1_000_000, 10), (vec![], 0, false));
}

#[test]
fn a_session_that_goes_on_for_long_has_few_timers() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    let mut most = 0;
    for rid in 11..1_000 {
        let now = (rid - 10) * 7_000;
        sessions.with_id(id, |entry| request(entry, rid, now));
        tick(&sessions, now, 100);
        // Its time was 60 s from now on; it is 30 s.
        sessions.with_id(id, |entry| send(entry, b"<a/>", now + 10));
        tick(&sessions, now + 10, 100);
        let memory = sessions.memory();
        if rid < 100 {
            most = memory.max(most);
        }
        assert!(memory <= most, "{memory} bytes, {most} before");
    }
    assert_eq!(sessions.len(), 1);
}

#[test]
fn a_timer_of_one_who_had_the_place_before_does_nothing() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    sessions.with_id(id, |entry| end(entry, 0));
    let later = (0..64).map(|_| create(&sessions, 7, 10_000).0).find(|other| other.place == id.place);
    assert!(later.is_some());
    assert_eq!(tick(&sessions, 39_999, 1_000), (vec![], 0, false));
    assert_eq!(tick(&sessions, 40_000, 1_000).1, 64);
    assert!(sessions.is_empty());
}

#[test]
fn one_call_looks_at_so_many_sessions_and_tells_that_there_are_more() {
    let sessions = TestSessions::new(NODE);
    let count = 3 * BOSH_TIMERS_PER_CALL;
    for _ in 0..count {
        create(&sessions, 7, 0);
    }
    let (mut ended, mut calls) = (0, 0_usize);
    loop {
        let (worked, now_ended, more) = tick(&sessions, 30_000, BOSH_TIMERS_PER_CALL);
        assert!(worked.len() <= BOSH_TIMERS_PER_CALL);
        (ended, calls) = (ended + now_ended, calls + 1);
        assert!(calls <= 5, "it does not come to an end");
        if !more {
            break;
        }
    }
    assert_eq!((ended, sessions.len()), (count, 0));
    assert!(calls >= 3, "{calls}");
    assert_eq!(tick(&sessions, 30_000, 0), (vec![], 0, false));
}

#[test]
fn nothing_is_left_of_sessions_that_have_ended() {
    let sessions = TestSessions::new(NODE);
    assert_eq!(sessions.memory(), 0);
    let ids: Vec<_> = (0..500).map(|_| create(&sessions, 7, 0).0).collect();
    assert!(sessions.memory() > 500 * size_of::<Entry<u32, u32>>());
    for id in ids {
        sessions.stir(id, 0);
        sessions.with_id(id, |entry| end(entry, 0));
    }
    assert!(sessions.is_empty());
    assert_eq!(tick(&sessions, 30_000, 10_000), (vec![], 0, false));
    assert!(!sessions.take_idle(60_000, 1, 10_000, &mut Vec::new()));
    let blocks = 64 * size_of::<usize>() * 4;
    assert!(sessions.memory() <= blocks, "{} bytes", sessions.memory());
}

#[test]
fn who_was_busy_a_while_ago_and_is_not_any_more_is_found_once() {
    let sessions = TestSessions::new(NODE);
    let (id, _) = create(&sessions, 7, 0);
    sessions.with_id(id, |entry| entry.owner = Some(5));
    let idle = |now, after| {
        let mut idle = Vec::new();
        let more = sessions.take_idle(now, after, 10, &mut idle);
        (idle, more)
    };
    assert_eq!(idle(1_000, 0), (vec![], false));
    assert!(sessions.stir(id, 1_000), "somebody has to look");
    assert!(!sessions.stir(id, 1_500));
    assert_eq!(idle(1_999, 1_000), (vec![], true));
    assert_eq!(idle(2_000, 1_000), (vec![], true), "it was busy since");
    assert_eq!(idle(2_999, 1_000), (vec![], true));
    assert_eq!(idle(3_000, 1_000), (vec![(5, 1)], false));
    assert_eq!(idle(9_000, 1_000), (vec![], false));
    assert!(sessions.stir(id, 9_000));
    assert_eq!(idle(10_999, 1_000), (vec![], true), "it was called back soon");
    assert_eq!(idle(11_000, 1_000), (vec![(5, 1)], false));
}

#[test]
fn sessions_that_have_logged_in_or_ended_make_room_for_others_of_their_address() {
    let sessions = TestSessions::new(1);
    let make = || {
        let make = |sid: &Sid| Session::new(parse("<body rid='1' to='a'/>"), b"", 0, sid, true, SETTINGS, 0);
        sessions.create([0; 16], "a".into(), client(), 1, make)
    };
    let mut all = Vec::new();
    while let Some(id) = make() {
        all.push(id);
    }
    assert_eq!(all.len(), crate::limits::BOSH_PENDING_PER_ADDRESS as usize);
    sessions.with_id(all[0], |entry| entry.session.set_authenticated()).unwrap();
    assert!(make().is_some());
    sessions.with_id(all[1], |entry| {
        entry.session.close(0, &mut Effects::new());
        // The request that made it takes what is left.
    });
    assert!(make().is_some());
    assert!(make().is_none());
}
