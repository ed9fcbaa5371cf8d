//! Connections opened from Erlang: reading, waiting, closing, limits.

use super::*;
use crate::limits::TableLimits;

const OWNER: u32 = 1;

fn open(table: &TestTable, world: &mut World) -> Handle {
    table.open(client(), Packet::Raw, OWNER, 0, world).expect("room")
}

fn wait(table: &TestTable, world: &mut World, handle: &Handle, pid: u32) -> u64 {
    match table.recv(handle, 0, pid, 0, world) {
        Ok(Err(token)) => token,
        other => panic!("does not wait: {other:?}"),
    }
}

fn read(table: &TestTable, world: &mut World, handle: &Handle, length: usize) -> Result<Vec<u8>, RecvError> {
    match table.recv(handle, length, 9, 0, world)? {
        Ok(data) => Ok(bytes(data)),
        Err(token) => panic!("waits with {token}"),
    }
}

/// A handle that never was, or whose connection is gone, answers closed and reaches nothing.
#[test]
fn a_forged_or_stale_handle_answers_closed() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    let forged = [
        Handle { generation: handle.generation + 1, ..handle },
        Handle { id: handle.id + 1, ..handle },
        Handle { link: 7, ..handle },
        Handle { slot: u32::MAX, ..handle },
    ];
    for wrong in forged {
        assert!(matches!(table.recv(&wrong, 0, 9, 0, &mut world), Err(RecvError::Closed)));
        assert_eq!(table.put_data(&wrong, b"x", 0, &mut world), Err(Refused::Closed));
        assert_eq!(table.send(&wrong, b"x", 9, 0, &mut world), Err(Closed));
        assert_eq!(table.peername(&wrong), Err(Closed));
        table.close(&wrong, OWNER, 0, &mut world);
    }
    assert_eq!(table.peername(&handle), Ok(client()));
    table.close(&handle, OWNER, 0, &mut world);
    let next = open(&table, &mut world);
    assert_ne!(next, handle);
    assert!(matches!(table.recv(&handle, 0, 9, 0, &mut world), Err(RecvError::Closed)));
    table.close(&next, OWNER, 0, &mut world);
    assert_empty(&table);
}

/// Readers are served first come, first served, and a dead one is passed over without loss.
#[test]
fn readers_are_served_in_order_and_dead_ones_take_nothing() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    let tokens: Vec<u64> = [11, 12, 13].iter().map(|pid| wait(&table, &mut world, &handle, *pid)).collect();
    world.dead.insert(11); // its end has not been reported yet
    table.put_data(&handle, b"first", 0, &mut world).expect("fits");
    table.put_data(&handle, b"second", 0, &mut world).expect("fits");
    assert_eq!(world.answer(), Some((12, tokens[1], Ok(b"first".to_vec()))));
    assert_eq!(world.answer(), Some((13, tokens[2], Ok(b"second".to_vec()))));
    table.put_data(&handle, b"third", 0, &mut world).expect("fits");
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"third".to_vec()));
    table.close(&handle, OWNER, 0, &mut world);
    assert_empty(&table);
}

/// A cancelled wait takes nothing; a cancel that comes too late says so, and the answer is there.
#[test]
fn a_cancel_loses_nothing() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    let first = wait(&table, &mut world, &handle, 11);
    assert!(table.cancel(&handle, first, &mut world));
    assert!(!table.cancel(&handle, first, &mut world));
    table.put_data(&handle, b"kept", 0, &mut world).expect("fits");
    assert_eq!(world.answer(), None);
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"kept".to_vec()));
    let second = wait(&table, &mut world, &handle, 11);
    table.put_data(&handle, b"crossed", 0, &mut world).expect("fits");
    assert!(!table.cancel(&handle, second, &mut world));
    assert_eq!(world.answer(), Some((11, second, Ok(b"crossed".to_vec()))));
    table.close(&handle, OWNER, 0, &mut world);
    assert_empty(&table);
}

/// The death of a reader is cleaned up when it is reported.
#[test]
fn a_dead_reader_leaves_no_wait() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    wait(&table, &mut world, &handle, 11);
    wait(&table, &mut world, &handle, 11);
    assert_eq!(table.stats().waiters, 2);
    world.kill(&table, 11);
    assert_eq!(table.stats().waiters, 0);
    table.put_data(&handle, b"x", 0, &mut world).expect("fits");
    assert!(world.mail.is_empty());
    world.kill(&table, OWNER);
    assert_empty(&table);
    assert_eq!(table.stats().watched, 0);
}

/// A reader that was dead before the table could watch it is cleaned up at once.
#[test]
fn a_process_that_is_dead_already_is_not_kept() {
    let (table, mut world) = (TestTable::new(), World::default());
    world.dead.insert(OWNER);
    let handle = open(&table, &mut world);
    assert_eq!(table.peername(&handle), Err(Closed));
    assert_empty(&table);
    assert_eq!(table.stats().watched, 0);
}

/// A put that does not fit is refused whole, and what fits exactly is taken.
#[test]
fn the_queue_is_limited_to_the_byte() {
    let limits = TableLimits { local_queue: 10, ..TableLimits::default() };
    let (table, mut world) = (TestTable::with_limits(limits), World::default());
    let handle = open(&table, &mut world);
    table.put_data(&handle, &[1; 9], 0, &mut world).expect("n - 1");
    assert_eq!(table.put_data(&handle, &[2; 2], 0, &mut world), Err(Refused::QueueBytes));
    table.put_data(&handle, &[3], 0, &mut world).expect("n");
    assert_eq!(table.put_data(&handle, &[4], 0, &mut world), Err(Refused::QueueBytes));
    assert_eq!(read(&table, &mut world, &handle, 0), Ok([&[1; 9][..], &[3]].concat()));
    table.put_data(&handle, &[5; 10], 0, &mut world).expect("empty again");
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// The number of connections and of waiters is limited to the one.
#[test]
fn connections_and_waiters_are_limited() {
    let limits = TableLimits { local_connections: 2, waiters: 2, ..TableLimits::default() };
    let (table, mut world) = (TestTable::with_limits(limits), World::default());
    let first = open(&table, &mut world);
    let second = open(&table, &mut world);
    assert_eq!(table.open(client(), Packet::Raw, OWNER, 0, &mut world), Err(Refused::Connections));
    table.close(&second, OWNER, 0, &mut world);
    let third = open(&table, &mut world);
    wait(&table, &mut world, &first, 11);
    wait(&table, &mut world, &first, 12);
    assert!(matches!(table.recv(&first, 0, 13, 0, &mut world), Err(RecvError::Waiters)));
    wait(&table, &mut world, &third, 13);
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// A close wakes every reader; what was queued before it can still be read, then comes the end.
#[test]
fn a_close_wakes_all_and_loses_nothing() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    let tokens: Vec<u64> = [11, 12].iter().map(|pid| wait(&table, &mut world, &handle, *pid)).collect();
    table.close(&handle, OWNER, 0, &mut world);
    assert_eq!(world.answer(), Some((11, tokens[0], Err(End::Closed))));
    assert_eq!(world.answer(), Some((12, tokens[1], Err(End::Closed))));
    let handle = open(&table, &mut world);
    table.put_data(&handle, b"queued", 0, &mut world).expect("fits");
    table.close(&handle, OWNER, 0, &mut world);
    table.close(&handle, OWNER, 0, &mut world);
    assert_eq!(table.put_data(&handle, b"late", 0, &mut world), Err(Refused::Closed));
    assert_eq!(read(&table, &mut world, &handle, 3), Ok(b"que".to_vec()));
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"ued".to_vec()));
    assert_eq!(read(&table, &mut world, &handle, 0), Err(RecvError::Closed));
    assert_empty(&table);
}

/// A reader of an exact length waits until all of it is there.
#[test]
fn an_exact_length_is_given_exactly() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.put_data(&handle, b"ab", 0, &mut world).expect("fits");
    let Ok(Err(token)) = table.recv(&handle, 5, 11, 0, &mut world) else { panic!("does not wait") };
    let second = wait(&table, &mut world, &handle, 12);
    table.put_data(&handle, b"cd", 0, &mut world).expect("fits");
    assert!(world.mail.is_empty());
    table.put_data(&handle, b"efg", 0, &mut world).expect("fits");
    assert_eq!(world.answer(), Some((11, token, Ok(b"abcde".to_vec()))));
    assert_eq!(world.answer(), Some((12, second, Ok(b"fg".to_vec()))));
    assert!(matches!(
        table.recv(&handle, crate::limits::MAX_RECV + 1, 9, 0, &mut world),
        Err(RecvError::Invalid)
    ));
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// Active modes: once, a count with its notice, always, and back to passive.
#[test]
fn active_modes_deliver_by_themselves() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    let next = |world: &mut World| match world.mail.pop_front() {
        Some((OWNER, Message::Active(_, data))) => bytes(data),
        Some((OWNER, Message::Passive(_))) => b"passive".to_vec(),
        Some((OWNER, Message::ActiveClosed(_))) => b"closed".to_vec(),
        other => panic!("{other:?}"),
    };
    let put = |world: &mut World, part: &[u8]| table.put_data(&handle, part, 0, world).expect("fits");
    put(&mut world, b"1");
    table.set_active(&handle, Active::Once, &mut world).expect("open");
    assert_eq!(next(&mut world), b"1");
    put(&mut world, b"2");
    assert!(world.mail.is_empty());
    table.set_active(&handle, Active::Count(2), &mut world).expect("open");
    put(&mut world, b"3");
    assert_eq!([next(&mut world), next(&mut world), next(&mut world)].concat(), b"23passive");
    // What came while nobody was told is told at once.
    put(&mut world, b"4");
    put(&mut world, b"5");
    assert!(world.mail.is_empty());
    table.set_active(&handle, Active::Always, &mut world).expect("open");
    assert!(matches!(table.recv(&handle, 0, 9, 0, &mut world), Err(RecvError::Invalid)));
    assert_eq!(next(&mut world), b"45");
    table.set_active(&handle, Active::Passive, &mut world).expect("open");
    table.put_data(&handle, b"6", 0, &mut world).expect("fits");
    assert!(world.mail.is_empty());
    table.set_active(&handle, Active::Always, &mut world).expect("open");
    table.close(&handle, OWNER, 0, &mut world);
    assert_eq!([next(&mut world), next(&mut world)].concat(), b"6closed");
    assert_empty(&table);
}

/// Senders that find the queue full wait, and go on when the opener has taken output.
#[test]
fn a_full_output_queue_blocks_senders_until_it_is_taken() {
    let limits = TableLimits { output_queue: 4, ..TableLimits::default() };
    let (table, mut world) = (TestTable::with_limits(limits), World::default());
    let handle = open(&table, &mut world);
    assert_eq!(table.send(&handle, b"abc", 11, 0, &mut world), Ok(Sent::All));
    assert!(matches!(world.mail.pop_front(), Some((OWNER, Message::Output(_)))));
    let Ok(Sent::Wait { accepted: 1, token }) = table.send(&handle, b"def", 11, 0, &mut world) else {
        panic!()
    };
    let Ok(Sent::Wait { accepted: 0, token: second }) = table.send(&handle, b"x", 12, 0, &mut world) else {
        panic!("overtook")
    };
    assert!(world.mail.is_empty());
    assert_eq!(table.output(&handle, &mut world), Ok(Some(b"abcd".to_vec())));
    assert!(
        matches!(world.mail.pop_front(), Some((11, Message::Room { token: t, result: Ok(()) })) if t == token)
    );
    assert_eq!(table.output(&handle, &mut world), Ok(None));
    // The others wait until the first has sent the rest.
    assert!(matches!(table.send(&handle, b"y", 13, 0, &mut world), Ok(Sent::Wait { accepted: 0, .. })));
    assert!(world.mail.is_empty());
    assert_eq!(table.send(&handle, b"ef", 11, 0, &mut world), Ok(Sent::All));
    assert!(
        matches!(world.mail.pop_front(), Some((12, Message::Room { token: t, result: Ok(()) })) if t == second)
    );
    assert!(matches!(world.mail.pop_front(), Some((OWNER, Message::Output(_)))));
    assert!(!table.cancel(&handle, second, &mut world), "the message was sent");
    world.kill(&table, 13);
    world.mail.clear();
    let Ok(Sent::Wait { token, .. }) = table.send(&handle, b"xyz", 12, 0, &mut world) else { panic!() };
    table.close(&handle, OWNER, 0, &mut world);
    assert!(
        matches!(world.mail.pop_front(), Some((12, Message::Room { token: t, result: Err(Closed) })) if t == token)
    );
    assert_eq!(table.output(&handle, &mut world), Ok(Some(b"efxy".to_vec())));
    assert_eq!(table.output(&handle, &mut world), Err(Closed));
    assert_empty(&table);
}

/// A packet is handed out as request line, fields, end of head and body, however it was cut, and the next one follows.
#[test]
fn packets_come_out_line_by_line_with_their_body() {
    let packet =
        b"POST /b HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\nContent-Length: 3\r\n\r\nxyzGET / HTTP/1.1\r\n\r\n";
    let expected: [&[u8]; 8] = [
        b"POST /b HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"X: 1\r\n 2\r\n",
        b"Content-Length: 3\r\n",
        b"\r\n",
        b"xyz",
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
    ];
    for cut in 1..packet.len() {
        let (table, mut world) = (TestTable::new(), World::default());
        let handle = table.open(client(), Packet::HttpBin, OWNER, 0, &mut world).expect("room");
        let mut got = Vec::new();
        for part in packet.chunks(cut) {
            table.put_data(&handle, part, 0, &mut world).expect("fits");
            loop {
                match table.recv(&handle, 0, 9, 0, &mut world).expect("open") {
                    Ok(data) => got.push(bytes(data)),
                    Err(token) => {
                        assert!(table.cancel(&handle, token, &mut world));
                        break;
                    }
                }
            }
        }
        assert_eq!(got, expected, "cut every {cut} bytes");
        world.kill(&table, OWNER);
        assert_empty(&table);
    }
}

/// The original's plain readers get plain answers, at once and later, and the end.
#[test]
fn plain_readers_are_answered_in_any_case() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.get_data(&handle, 11, 0, &mut world);
    table.put_data(&handle, b"x", 0, &mut world).expect("fits");
    assert!(matches!(world.mail.pop_front(), Some((11, Message::Plain(Ok(_))))));
    table.get_data(&handle, 12, 0, &mut world);
    table.close(&handle, OWNER, 0, &mut world);
    assert!(matches!(world.mail.pop_front(), Some((12, Message::Plain(Err(End::Closed))))));
    table.get_data(&handle, 13, 0, &mut world);
    assert!(matches!(world.mail.pop_front(), Some((13, Message::Plain(Err(End::Closed))))));
    assert_empty(&table);
}

/// A plain reader that is dead when it is asked for takes nothing.
#[test]
fn a_dead_plain_reader_takes_nothing() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.put_data(&handle, b"kept", 0, &mut world).expect("fits");
    world.dead.insert(11);
    table.get_data(&handle, 11, 0, &mut world);
    assert!(world.mail.is_empty());
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"kept".to_vec()));
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// The turn of a sender that was told of room ends with its death, and the next one gets it.
#[test]
fn a_turn_ends_with_its_sender() {
    let limits = TableLimits { output_queue: 4, ..TableLimits::default() };
    let (table, mut world) = (TestTable::with_limits(limits), World::default());
    let handle = open(&table, &mut world);
    for pid in [11, 12] {
        assert!(matches!(table.send(&handle, b"abcde", pid, 0, &mut world), Ok(Sent::Wait { .. })));
    }
    world.mail.clear();
    assert_eq!(table.output(&handle, &mut world), Ok(Some(b"abcd".to_vec())));
    assert!(matches!(world.mail.pop_front(), Some((11, Message::Room { result: Ok(()), .. }))));
    world.kill(&table, 11);
    assert!(matches!(world.mail.pop_front(), Some((12, Message::Room { result: Ok(()), .. }))));
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// An owner that becomes active after the end is still told of it.
#[test]
fn an_owner_that_looks_later_learns_of_the_end() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.close(&handle, 9, 0, &mut world);
    assert_eq!(table.set_active(&handle, Active::Once, &mut world), Ok(()));
    assert!(matches!(world.mail.pop_front(), Some((OWNER, Message::ActiveClosed(_)))));
    assert_empty(&table);
}

/// A count beyond 16 bits is refused and changes nothing; a length in a packet mode is refused.
#[test]
fn impossible_modes_are_refused() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.set_active(&handle, Active::Count(i16::MAX), &mut world).expect("open");
    assert_eq!(table.set_active(&handle, Active::Count(1), &mut world), Err(RecvError::Invalid));
    assert_eq!(table.info(&handle).map(|info| info.active), Ok(Active::Count(i16::MAX)));
    table.set_active(&handle, Active::Passive, &mut world).expect("open");
    table.set_packet(&handle, Packet::HttpBin, &mut world).expect("open");
    assert!(matches!(table.recv(&handle, 3, 9, 0, &mut world), Err(RecvError::Invalid)));
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// When the application stops, readers of connections opened from Erlang are told so.
#[test]
fn a_stop_shuts_local_connections_down() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.get_data(&handle, 11, 0, &mut world);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = table.local_sweep(at, &mut world);
    }
    assert!(matches!(world.mail.pop_front(), Some((11, Message::Plain(Err(End::Shutdown))))));
    assert_empty(&table);
}

/// A reader behind one that dies or cancels is served at once if what it wants is there.
#[test]
fn readers_behind_one_that_gives_up_are_served() {
    for dies in [true, false] {
        let (table, mut world) = (TestTable::new(), World::default());
        let handle = open(&table, &mut world);
        let Ok(Err(first)) = table.recv(&handle, 10, 11, 0, &mut world) else { panic!("does not wait") };
        let second = wait(&table, &mut world, &handle, 12);
        table.put_data(&handle, b"abc", 0, &mut world).expect("fits");
        assert!(world.mail.is_empty());
        if dies {
            world.kill(&table, 11);
        } else {
            assert!(table.cancel(&handle, first, &mut world));
        }
        assert_eq!(world.answer(), Some((12, second, Ok(b"abc".to_vec()))));
        world.kill(&table, OWNER);
        assert_empty(&table);
    }
}

/// The death of a process that owns, and waits on, very many connections is cleaned up in slices.
#[test]
fn a_death_is_cleaned_up_in_slices() {
    use crate::limits::DEATHS_PER_CALL;
    let (table, mut world) = (TestTable::new(), World::default());
    let handles: Vec<Handle> = (0..DEATHS_PER_CALL).map(|_| open(&table, &mut world)).collect();
    for handle in &handles {
        wait(&table, &mut world, handle, OWNER);
    }
    // The list of an owner survives that one in its middle goes.
    table.close(&handles[DEATHS_PER_CALL / 2], OWNER, 0, &mut world);
    world.dead.insert(OWNER);
    let mut calls = 1;
    while table.process_down(OWNER, 0, &mut world) {
        calls += 1;
    }
    assert_eq!(calls, 2);
    assert_empty(&table);
    assert_eq!(table.stats().watched, 0);
}

/// A line that is too long is refused instead of searched for its end for ever.
#[test]
fn lines_are_limited_to_the_byte() {
    use crate::limits::MAX_LINE;
    for (length, fits) in [(MAX_LINE - 1, true), (MAX_LINE, true), (MAX_LINE + 1, false)] {
        let (table, mut world) = (TestTable::new(), World::default());
        let handle = table.open(client(), Packet::HttpBin, OWNER, 0, &mut world).expect("room");
        let line = [vec![b'x'; length - 1], vec![b'\n']].concat();
        table.put_data(&handle, &line, 0, &mut world).expect("fits");
        assert_eq!(read(&table, &mut world, &handle, 0).is_ok(), fits, "{length} bytes");
        world.kill(&table, OWNER);
        assert_empty(&table);
    }
}

/// An idle connection has no queues, in whatever packet mode, and keeps its mode.
#[test]
fn an_idle_connection_has_no_queues() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = table.open(client(), Packet::HttpBin, OWNER, 0, &mut world).expect("room");
    table.put_data(&handle, b"GET / HTTP/1.1\r\n\r\n", 0, &mut world).expect("fits");
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"GET / HTTP/1.1\r\n".to_vec()));
    assert_eq!(table.stats().busy, 1);
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"\r\n".to_vec()));
    assert_eq!(table.stats().busy, 0);
    assert_eq!(table.info(&handle).map(|info| info.packet), Ok(Packet::HttpBin));
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// A closed connection ends with what its reader drops: after a shutdown for reading there is nothing left in it.
#[test]
fn a_shutdown_for_reading_ends_a_closed_connection() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = open(&table, &mut world);
    table.put_data(&handle, b"unread", 0, &mut world).expect("fits");
    table.close(&handle, OWNER, 0, &mut world);
    assert_eq!(table.shutdown(&handle, true, false, 0, &mut world), Ok(()));
    assert_empty(&table);
    // One that is open keeps no queues for what it has dropped.
    let handle = open(&table, &mut world);
    table.put_data(&handle, b"unread", 0, &mut world).expect("fits");
    assert_eq!(table.shutdown(&handle, true, false, 0, &mut world), Ok(()));
    assert_eq!(table.stats().busy, 0);
    world.kill(&table, OWNER);
    assert_empty(&table);
}

/// Who goes on in bytes in the middle of a head gives it up: its length is not that of a later body.
#[test]
fn a_head_that_is_given_up_leaves_no_length() {
    let (table, mut world) = (TestTable::new(), World::default());
    let handle = table.open(client(), Packet::HttpBin, OWNER, 0, &mut world).expect("room");
    table.put_data(&handle, b"GET /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 0, &mut world).expect("fits");
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"GET /1 HTTP/1.1\r\n".to_vec()));
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"Content-Length: 3\r\n".to_vec()));
    assert_eq!(table.set_packet(&handle, Packet::Raw, &mut world), Ok(()));
    assert_eq!(read(&table, &mut world, &handle, 0), Ok(b"\r\nabc".to_vec()));
    assert_eq!(table.stats().busy, 0);
    assert_eq!(table.set_packet(&handle, Packet::HttpBin, &mut world), Ok(()));
    table.put_data(&handle, b"GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n", 0, &mut world).expect("fits");
    for line in ["GET /2 HTTP/1.1\r\n", "\r\n", "GET /3 HTTP/1.1\r\n", "\r\n"] {
        assert_eq!(read(&table, &mut world, &handle, 0), Ok(line.as_bytes().to_vec()));
    }
    world.kill(&table, OWNER);
    assert_empty(&table);
}
