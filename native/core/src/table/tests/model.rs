//! Random sequences of operations against a model that is a plain queue of bytes.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put(usize),
    Recv(u32, usize),
    Cancel(usize),
    Kill(u32),
    Active(Active),
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..20_usize).prop_map(Op::Put),
        4 => (2..8_u32, 0..12_usize).prop_map(|(pid, length)| Op::Recv(pid, length)),
        1 => (0..8_usize).prop_map(Op::Cancel),
        1 => (2..8_u32).prop_map(Op::Kill),
        1 => prop_oneof![
            Just(Active::Passive), Just(Active::Once), Just(Active::Always), (1..3_i16).prop_map(Active::Count)
        ].prop_map(Op::Active),
        1 => Just(Op::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every byte put before the close comes out exactly once, in order, to a reader that was alive and asked; every
    /// wait ends exactly once; nothing is left behind.
    #[test]
    fn bytes_come_out_once_and_in_order(ops in prop::collection::vec(op(), 1..60)) {
        let (table, mut world) = (TestTable::new(), World::default());
        let handle = table.open(client(), Packet::Raw, 1, 0, &mut world).expect("room");
        let (mut put, mut got) = (Vec::<u8>::new(), Vec::<u8>::new());
        let mut waits: Vec<(u64, u32, usize)> = Vec::new();
        let mut closed = false;
        for op in ops {
            match op {
                Op::Put(count) => {
                    let part: Vec<u8> = (0..count).map(|n| (put.len() + n) as u8).collect();
                    match table.put_data(&handle, &part, 0, &mut world) {
                        Ok(()) => put.extend(part),
                        Err(refused) => prop_assert!(closed && refused == Refused::Closed),
                    }
                }
                Op::Recv(pid, _) if world.dead.contains(&pid) => {}
                Op::Recv(pid, length) => match table.recv(&handle, length, pid, 0, &mut world) {
                    Ok(Ok(data)) => {
                        let data = bytes(data);
                        prop_assert!(length == 0 || data.len() == length);
                        got.extend(data);
                    }
                    Ok(Err(token)) => {
                        prop_assert!(!closed);
                        waits.push((token, pid, length));
                    }
                    Err(error) => prop_assert!(closed || error == RecvError::Invalid),
                },
                Op::Cancel(at) => {
                    if let Some(at) = (!waits.is_empty()).then(|| at % waits.len()) {
                        prop_assert!(table.cancel(&handle, waits[at].0, &mut world));
                        waits.remove(at);
                    }
                }
                Op::Kill(pid) => {
                    world.kill(&table, pid);
                    waits.retain(|wait| wait.1 != pid);
                }
                Op::Active(active) => {
                    let _ = table.set_active(&handle, active, &mut world);
                }
                Op::Close => {
                    table.close(&handle, 1, 0, &mut world);
                    closed = true;
                }
            }
            while let Some((to, message)) = world.mail.pop_front() {
                match message {
                    Message::Answer { token, result } => {
                        let at = waits.iter().position(|wait| wait.0 == token);
                        prop_assert!(at.is_some(), "an answer that nobody waits for");
                        let (_, pid, length) = waits.remove(at.unwrap_or_default());
                        prop_assert_eq!(pid, to);
                        match result {
                            Ok(data) => {
                                let data = bytes(data);
                                prop_assert!(length == 0 || data.len() == length);
                                got.extend(data);
                            }
                            Err(_) => prop_assert!(closed),
                        }
                    }
                    Message::Active(_, data) => {
                        prop_assert_eq!(to, 1);
                        got.extend(bytes(data));
                    }
                    Message::ActiveClosed(_) => prop_assert!(closed),
                    Message::Passive(_) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert!(put.starts_with(&got), "out of order: {put:?} {got:?}");
        }
        prop_assert!(!closed || waits.is_empty());
        if let Ok(info) = table.info(&handle) {
            prop_assert_eq!(info.input + got.len(), put.len());
        } else {
            prop_assert_eq!(got.len(), put.len());
        }
        world.kill(&table, 1);
        for pid in 2..8 {
            world.kill(&table, pid);
        }
        let stats = table.stats();
        prop_assert_eq!((stats.connections, stats.waiters, stats.watched), (0, 0, 0));
    }
}
