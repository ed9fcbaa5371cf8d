//! Polls meet the end of their clients, of their links and of their own processes.

use megaphone_core::limits::WINDOW;
use megaphone_core::link::{CloseReason, Frame};
use megaphone_core::table::{Closed, Handle, Sent};

use crate::world::{ALL, LinkRef, Mail, Vm, check, hello, join, open};

const POLL: u32 = 1;
const REQUEST: &[u8] = b"POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb";

/// A link with a request that waits for its consumer.
fn asked(vm: &Vm) -> (LinkRef, Handle) {
    let link = vm.link_open().expect("room");
    vm.input(&link, &[hello(WINDOW)]);
    let starts = vm.input(&link, &[open(1), Frame::Data { id: 1, payload: REQUEST }]);
    let [handle] = starts[..] else { panic!("{starts:?}") };
    (link, handle)
}

/// All that a poll does; whether it got as far as its answer, and as its end.
fn serve(vm: &Vm, handle: &Handle) -> (Result<bool, Closed>, Result<Sent, Closed>, Result<bool, Closed>) {
    (vm.take_request(handle, POLL), vm.send(handle, b"answer", POLL), vm.end_request(handle))
}

/// The client goes at any moment: the process is told to end if and only if it has the request and was not done.
fn assert_told(vm: &Vm, taken: Result<bool, Closed>, ended: Result<bool, Closed>) {
    let told = vm.mail(POLL).iter().filter(|mail| **mail == Mail::Abandoned).count();
    assert_eq!(told, usize::from(taken == Ok(true) && ended == Err(Closed)), "{taken:?} {ended:?}");
    assert_eq!(vm.table.abandoned(), told as u64);
}

/// Something ends the connection while its poll is taken and answered.
fn ends_while_a_poll_is_served(end: impl Fn(&Vm, &LinkRef) + Send + Sync + 'static) {
    check(ALL, move || {
        let vm = Vm::new();
        let (link, handle) = asked(&vm);
        let poll = vm.spawn(move |vm| serve(&vm, &handle));
        end(&vm, &link);
        let (taken, _, ended) = join(poll);
        assert_told(&vm, taken, ended);
        vm.end_link(&link);
        vm.finish(&[POLL]);
    });
}

/// The client goes.
#[test]
fn a_client_goes_while_its_poll_is_served() {
    ends_while_a_poll_is_served(|vm, link| {
        vm.input(link, &[Frame::Close { id: 1, reason: CloseReason::Normal }]);
    });
}

/// The link goes.
#[test]
fn a_link_goes_while_a_poll_is_served() {
    ends_while_a_poll_is_served(Vm::end_link);
}

/// The process is killed while it takes its request: the connection closes, or the request still waits.
#[test]
fn a_process_dies_while_it_takes_its_poll() {
    check(ALL, || {
        let vm = Vm::new();
        let (link, handle) = asked(&vm);
        let poll = vm.spawn(move |vm| vm.take_request(&handle, POLL));
        vm.kill(POLL);
        assert_eq!(join(poll), Ok(true));
        assert_eq!(vm.table.info(&handle).err(), Some(Closed));
        assert_eq!(vm.table.abandoned(), 0);
        vm.end_link(&link);
        vm.finish(&[POLL]);
    });
}

/// The next request comes while a poll ends: one consumer is asked for, by the link or by the poll.
#[test]
fn the_next_request_comes_while_a_poll_ends() {
    check(ALL, || {
        let vm = Vm::new();
        let (link, handle) = asked(&vm);
        assert_eq!(vm.take_request(&handle, POLL), Ok(true));
        let poll = vm.spawn(move |vm| vm.end_request(&handle).expect("open"));
        let starts = vm.input(&link, &[Frame::Data { id: 1, payload: REQUEST }]);
        let asks = join(poll);
        assert_eq!(usize::from(asks) + starts.len(), 1);
        assert_eq!(vm.take_request(&handle, POLL), Ok(true));
        vm.end_link(&link);
        vm.finish(&[POLL]);
    });
}
