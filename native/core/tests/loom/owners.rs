//! The deaths of processes meet what gives them something: whatever the order, nothing is left behind.

use megaphone_core::table::{Closed, Handle, SHARDS};

use crate::world::{ALL, Outcome, Vm, check, join};

const OWNER: u32 = 1;
const NEXT: u32 = 2;

/// The owner dies while it opens.
#[test]
fn an_owner_dies_while_it_opens() {
    check(ALL, || {
        let vm = Vm::new();
        let opener = vm.spawn(|vm| vm.open(OWNER).expect("room"));
        let second = vm.spawn(|vm| vm.open(OWNER).expect("room"));
        vm.kill(OWNER);
        let handles = [join(opener), join(second)];
        assert!(handles.iter().all(|handle| vm.table.info(handle).is_err()));
        vm.finish(&[]);
    });
}

/// A connection is handed over while its old owner dies, and while the new one does: it ends with its owner.
#[test]
fn owners_die_while_a_connection_is_handed_over() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let giver = vm.spawn(move |vm| vm.set_owner(&handle, NEXT));
        let killer = vm.spawn(|vm| vm.kill(OWNER));
        vm.kill(NEXT);
        let given = join(giver);
        join(killer);
        assert!(given == Ok(()) || given == Err(Closed));
        vm.finish(&[]);
    });
}

/// A connection whose new owner lives is still there if it was handed over before the old one died.
#[test]
fn a_connection_survives_its_old_owner() {
    check(ALL, || {
        let vm = Vm::new();
        let handle = vm.open(OWNER).expect("room");
        let giver = vm.spawn(move |vm| vm.set_owner(&handle, NEXT));
        vm.kill(OWNER);
        match join(giver) {
            Ok(()) => assert_eq!(vm.table.info(&handle).map(|info| info.owner), Ok(Some(NEXT))),
            Err(Closed) => assert!(vm.table.info(&handle).is_err()),
        }
        vm.finish(&[NEXT]);
    });
}

/// One process begins to wait in two shards at once and dies: both waits are forgotten, and what comes later is kept.
#[test]
fn a_reader_in_two_shards_dies() {
    check(ALL, || {
        let vm = Vm::new();
        let [first, second] = two_shards(&vm);
        let one = vm.spawn(move |vm| vm.recv(&first, 0, NEXT));
        let two = vm.spawn(move |vm| vm.recv(&second, 0, NEXT));
        vm.kill(NEXT);
        let reads = [join(one), join(two)];
        assert_eq!(vm.table.stats().waiters, 0);
        assert_eq!(vm.table.stats().watched, 1);
        for (handle, read) in [first, second].iter().zip(&reads) {
            vm.put(handle, b"a").expect("open");
            assert_eq!((vm.outcome(NEXT, read), vm.unread(handle)), (Outcome::Waits, 1));
        }
        vm.finish(&[OWNER]);
    });
}

/// Two connections in different shards.
fn two_shards(vm: &Vm) -> [Handle; 2] {
    let first = vm.open(OWNER).expect("room");
    loop {
        let second = vm.open(OWNER).expect("room");
        if second.slot as usize % SHARDS != first.slot as usize % SHARDS {
            return [first, second];
        }
    }
}

/// A process is given something again while news of its death is being worked off.
#[test]
fn a_dead_process_is_given_something() {
    check(ALL, || {
        let vm = Vm::new();
        let [first, second] = two_shards(&vm);
        vm.set_owner(&first, NEXT).expect("open");
        let giver = vm.spawn(move |vm| vm.set_owner(&second, NEXT));
        let reader = vm.spawn(move |vm| vm.recv(&first, 0, NEXT));
        vm.kill(NEXT);
        join(giver).expect("open");
        join(reader);
        assert!(vm.table.info(&first).is_err() && vm.table.info(&second).is_err());
        assert_eq!(vm.table.stats().waiters, 0);
        vm.finish(&[OWNER]);
    });
}
