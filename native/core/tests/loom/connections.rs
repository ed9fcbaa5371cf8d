//! Readers, writers and what cancels or closes meet on one connection.

use megaphone_core::limits::TableLimits;
use megaphone_core::table::{Active, Closed, Refused, Sent};

use crate::world::{ALL, Mail, Outcome, Read, Vm, check, join};

const OWNER: u32 = 1;
const READER: u32 = 2;
const OTHER: u32 = 3;

/// Two puts meet two reads: each byte comes out once, in order for each reader, and nobody waits while data is there.
#[test]
fn put_meets_get() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let putter = vm.spawn(move |vm| {
            vm.put(&handle, b"a").expect("open");
            vm.put(&handle, b"b").expect("open");
        });
        let reader = vm.spawn(move |vm| vm.recv(&handle, 1, READER));
        let read = vm.recv(&handle, 0, OTHER);
        join(putter);
        let outcomes = [vm.outcome(READER, &join(reader)), vm.outcome(OTHER, &read)];
        let left = vm.unread(&handle);
        let mut got: Vec<u8> = outcomes.iter().flat_map(|outcome| outcome.data().to_vec()).collect();
        got.sort_unstable();
        assert_eq!(got.len() + left, 2, "{outcomes:?}");
        assert!(b"ab".starts_with(&got), "{outcomes:?}");
        assert!(left == 0 || !outcomes.contains(&Outcome::Waits), "{outcomes:?}, {left} left");
        vm.finish(&[OWNER, READER, OTHER]);
    });
}

/// A put meets a close, and a reader waits: what was accepted is read, then comes the end; it comes once.
#[test]
fn put_meets_close() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let first = vm.recv(&handle, 0, READER);
        assert!(matches!(first, Read::Wait(_)));
        let putter = vm.spawn(move |vm| vm.put(&handle, b"a"));
        let closer = vm.spawn(move |vm| vm.close(&handle, OWNER));
        let second = vm.recv(&handle, 0, OTHER);
        let put = join(putter);
        join(closer);
        let (first, second) = (vm.outcome(READER, &first), vm.outcome(OTHER, &second));
        match put {
            Ok(()) => assert_eq!((first, second), (Outcome::Data(b"a".into()), Outcome::Closed)),
            Err(refused) => {
                assert_eq!(refused, Refused::Closed);
                assert_eq!((first, second), (Outcome::Closed, Outcome::Closed));
            }
        }
        vm.finish(&[OWNER, READER, OTHER]);
    });
}

/// An answer meets the cancel of its wait: a wait that was cancelled gets none and takes nothing, one that was not gets
/// it. The reader behind gets what the first did not take.
#[test]
fn an_answer_meets_its_cancel() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let first = vm.recv(&handle, 0, READER);
        let Read::Wait(token) = first else { panic!("{first:?}") };
        let second = vm.recv(&handle, 0, OTHER);
        let putter = vm.spawn(move |vm| vm.put(&handle, b"a").expect("open"));
        let canceller = vm.spawn(move |vm| vm.cancel(&handle, token));
        join(putter);
        let cancelled = join(canceller);
        let expected = if cancelled {
            [Outcome::Waits, Outcome::Data(b"a".into())]
        } else {
            [Outcome::Data(b"a".into()), Outcome::Waits]
        };
        assert_eq!([vm.outcome(READER, &first), vm.outcome(OTHER, &second)], expected);
        vm.finish(&[OWNER, READER, OTHER]);
    });
}

/// The death of a waiting reader meets a put: it took the data before it died, or the reader behind it has it.
#[test]
fn a_reader_dies_while_data_comes() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let first = vm.recv(&handle, 0, READER);
        let second = vm.recv(&handle, 0, OTHER);
        let putter = vm.spawn(move |vm| vm.put(&handle, b"a").expect("open"));
        let killer = vm.spawn(move |vm| vm.kill(READER));
        join(putter);
        join(killer);
        let outcomes = [vm.outcome(READER, &first), vm.outcome(OTHER, &second)];
        let taken = outcomes.iter().filter(|outcome| outcome.data() == b"a").count();
        assert_eq!((taken, vm.unread(&handle)), (1, 0), "{outcomes:?}");
        assert_eq!(vm.table.stats().waiters, usize::from(outcomes[1] == Outcome::Waits));
        vm.finish(&[OWNER, OTHER]);
    });
}

/// Data comes after a reader died and before the table knows: the reader behind it has the data.
#[test]
fn a_dead_reader_takes_nothing() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let first = vm.recv(&handle, 0, READER);
        let second = vm.recv(&handle, 0, OTHER);
        vm.die(READER);
        let news = vm.spawn(move |vm| vm.bury(READER));
        vm.put(&handle, b"a").expect("open");
        join(news);
        let outcomes = [vm.outcome(READER, &first), vm.outcome(OTHER, &second)];
        assert_eq!(outcomes, [Outcome::Waits, Outcome::Data(b"a".into())]);
        vm.finish(&[OWNER, OTHER]);
    });
}

/// A reader that waits for more than there is dies, or gives up: the one behind it is served with what is there.
#[test]
fn a_reader_behind_one_that_goes_is_served() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let first = vm.recv(&handle, 9, READER);
        let Read::Wait(token) = first else { panic!("{first:?}") };
        let second = vm.recv(&handle, 0, OTHER);
        let putter = vm.spawn(move |vm| vm.put(&handle, b"a").expect("open"));
        let killer = vm.spawn(move |vm| vm.kill(READER));
        vm.cancel(&handle, token);
        join(putter);
        join(killer);
        assert_eq!(vm.outcome(OTHER, &second), Outcome::Data(b"a".into()));
        vm.finish(&[OWNER, OTHER]);
    });
}

/// The original's asker dies while its question and the data come: nothing is swallowed.
#[test]
fn an_asker_dies_while_data_comes() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let asker = vm.spawn(move |vm| vm.table.get_data(&handle, READER, 0, &mut vm.clone()));
        let putter = vm.spawn(move |vm| vm.put(&handle, b"a").expect("open"));
        vm.kill(READER);
        join(asker);
        join(putter);
        match &vm.mail(READER)[..] {
            [] => assert_eq!(vm.unread(&handle), 1),
            [Mail::Plain(Some(data))] => assert_eq!((&data[..], vm.unread(&handle)), (&b"a"[..], 0)),
            other => panic!("{other:?}"),
        }
        assert_eq!(vm.table.stats().waiters, 0);
        vm.finish(&[OWNER]);
    });
}

/// Becoming active meets puts: the owner gets everything it is active for, in order, and stays active for nothing that
/// is there already.
#[test]
fn becoming_active_meets_puts() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let putter = vm.spawn(move |vm| {
            vm.put(&handle, b"a").expect("open");
            vm.put(&handle, b"b").expect("open");
        });
        let once = vm.spawn(move |vm| vm.set_active(&handle, Active::Once).expect("open"));
        join(once);
        vm.set_active(&handle, Active::Once).expect("open");
        join(putter);
        let got: Vec<u8> = vm
            .mail(OWNER)
            .iter()
            .flat_map(|mail| match mail {
                Mail::Active(data) => data.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let info = vm.table.info(&handle).expect("open");
        assert!(b"ab".starts_with(&got), "{got:?}");
        assert_eq!(got.len() + info.input, 2);
        // Pieces that waited are handed out joined: then the second time is still to come.
        assert!(
            info.active
                == if got.len() == 2 && vm.mail(OWNER).len() == 1 { Active::Once } else { Active::Passive }
        );
        vm.finish(&[OWNER]);
    });
}

/// Output meets its taker: all of it comes, in order, and after "nothing now" a message tells of more.
#[test]
fn output_meets_its_taker() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let sender = vm.spawn(move |vm| {
            assert_eq!(vm.send(&handle, b"a", READER), Ok(Sent::All));
            assert_eq!(vm.send(&handle, b"b", READER), Ok(Sent::All));
        });
        let (mut taken, mut known) = (Vec::new(), 0);
        for _ in 0..2 {
            let told = vm.mail(OWNER).len();
            match vm.output(&handle).expect("open") {
                Some(part) => taken.extend(part),
                None => known = told, // what is told from here on is of something new
            }
        }
        join(sender);
        let left = vm.table.info(&handle).expect("open").output;
        assert_eq!(taken.len() + left, 2);
        let told = vm.mail(OWNER).len() - known;
        assert!(told <= 1 && (left == 0 || told == 1), "told {told} times of {left} bytes");
        taken.extend(vm.output(&handle).expect("open").unwrap_or_default());
        assert_eq!(taken, b"ab");
        vm.finish(&[OWNER, READER]);
    });
}

/// A blocked sender meets the taker of its output, and another sender: each is told once when it may go on, the first
/// one first, and what one sends stays together.
#[test]
fn a_blocked_sender_meets_the_taker() {
    check(ALL, || {
        let vm = Vm::with(TableLimits { output_queue: 2, ..TableLimits::default() });
        let handle = vm.open(OWNER).expect("room");
        let Ok(Sent::Wait { accepted: 2, token }) = vm.send(&handle, b"abc", READER) else {
            panic!("does not wait")
        };
        let taker = vm.spawn(move |vm| vm.output(&handle).expect("open").expect("there is output"));
        let other = vm.spawn(move |vm| vm.send(&handle, b"x", OTHER));
        let mut taken = join(taker);
        let Ok(Sent::Wait { accepted: 0, token: second }) = join(other) else {
            panic!("went before the first")
        };
        assert_eq!(vm.mail(READER), [Mail::Room(token, true)]);
        assert_eq!(vm.mail(OTHER), []);
        assert_eq!(vm.send(&handle, b"c", READER), Ok(Sent::All));
        assert_eq!(vm.mail(OTHER), [Mail::Room(second, true)]);
        assert_eq!(vm.send(&handle, b"x", OTHER), Ok(Sent::All));
        taken.extend(vm.output(&handle).expect("open").unwrap_or_default());
        assert_eq!(taken, b"abcx");
        vm.finish(&[OWNER, READER, OTHER]);
    });
}

/// A blocked sender dies while its output is taken and another one waits: the turn is not lost with it.
#[test]
fn a_blocked_sender_dies_with_its_turn() {
    check(ALL, || {
        let vm = Vm::with(TableLimits { output_queue: 2, ..TableLimits::default() });
        let handle = vm.open(OWNER).expect("room");
        assert!(matches!(vm.send(&handle, b"abc", READER), Ok(Sent::Wait { accepted: 2, .. })));
        let Ok(Sent::Wait { accepted: 0, token }) = vm.send(&handle, b"x", OTHER) else {
            panic!("does not wait")
        };
        let taker = vm.spawn(move |vm| vm.output(&handle).expect("open").expect("there is output"));
        let killer = vm.spawn(move |vm| vm.kill(READER));
        join(taker);
        join(killer);
        assert_eq!(vm.mail(OTHER), [Mail::Room(token, true)]);
        assert_eq!(vm.send(&handle, b"x", OTHER), Ok(Sent::All));
        vm.finish(&[OWNER, OTHER]);
    });
}

/// A blocked sender meets the close: it is told once, of room or of the end.
#[test]
fn a_blocked_sender_meets_the_close() {
    check(ALL, || {
        let vm = Vm::with(TableLimits { output_queue: 1, ..TableLimits::default() });
        let handle = vm.open(OWNER).expect("room");
        let Ok(Sent::Wait { accepted: 1, token }) = vm.send(&handle, b"ab", READER) else {
            panic!("does not wait")
        };
        let closer = vm.spawn(move |vm| vm.close(&handle, OWNER));
        let canceller = vm.spawn(move |vm| vm.cancel(&handle, token));
        let taken = vm.output(&handle);
        join(closer);
        let cancelled = join(canceller);
        assert!(matches!(taken, Ok(Some(_))), "{taken:?}");
        match &vm.mail(READER)[..] {
            [] => assert!(cancelled),
            [Mail::Room(of, _)] => assert!(*of == token && !cancelled),
            other => panic!("{other:?}"),
        }
        assert_eq!(vm.send(&handle, b"late", READER), Err(Closed));
        vm.finish(&[OWNER, READER]);
    });
}
