//! What a link does meets what its connections' users do.

use megaphone_core::limits::{DATA_CHUNK, MIN_WINDOW, TableLimits, WINDOW};
use megaphone_core::link::{CloseReason, Decoder, Frame};
use megaphone_core::table::{Closed, Handle, InputEnd, Refused, Sent};

use crate::world::{LinkRef, Mail, Outcome, Read, Vm, check, hello, join, open};

/// Some 26 s for all of these scenes; the longest runs in 132,000 orders, which takes 16 s.
const PREEMPTIONS: usize = 5;

const CONSUMER: u32 = 1;
const NEXT: u32 = 2;
const SENDER: u32 = 9;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const UPLOAD: &[u8] = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";

/// What the sender process of a link has seen so far.
struct Output {
    link: LinkRef,
    decoder: Decoder,
    frames: Vec<String>,
    /// How often it found nothing, and so was put to sleep.
    slept: usize,
    /// Messages that it has had when it last found nothing: later ones tell of something new.
    known: usize,
}

impl Output {
    fn new(link: &LinkRef) -> Self {
        Self { link: LinkRef::clone(link), decoder: Decoder::new(), frames: Vec::new(), slept: 0, known: 0 }
    }

    /// Asks once for output; false if there is none now.
    fn take(&mut self, vm: &Vm) -> bool {
        let told = vm.mail(SENDER).len();
        let bytes = vm.table.link_output(&self.link, SENDER, &mut vm.clone());
        if bytes.is_empty() {
            self.slept += 1;
            self.known = told;
            return false;
        }
        self.decoder.push(&bytes);
        while let Some(frame) = self.decoder.next().expect("our own frames are right") {
            self.frames.push(match frame {
                Frame::Data { payload, .. } if payload.len() > 8 => format!("data {}", payload.len()),
                Frame::Data { payload, .. } => format!("data {}", String::from_utf8_lossy(payload)),
                other => other.name().into(),
            });
        }
        true
    }

    /// When all others have ended: if there is more, a message has told of it; and there was one message at most for
    /// each time that it slept (it may be late, and tell of what was found without it).
    fn finish(mut self, vm: &Vm) -> Vec<String> {
        let mail = vm.mail(SENDER);
        assert!(mail.len() <= self.slept, "told {} times, slept {} times", mail.len(), self.slept);
        assert!(mail.iter().all(|mail| *mail == Mail::LinkOutput), "{mail:?}");
        if self.take(vm) {
            assert!(mail.len() > self.known, "nobody is told of the last of {:?}", self.frames);
            while self.take(vm) {}
        }
        assert_eq!(self.frames.first().map(String::as_str), Some("hello"));
        self.frames.split_off(1)
    }
}

/// A link on which a consumer has read the given request on each of some connections. The sender has found nothing
/// more, and sleeps.
fn asked(vm: &Vm, window: u32, request: &[u8], count: u64) -> (LinkRef, Output, Vec<Handle>) {
    let link = vm.link_open().expect("room");
    vm.input(&link, &[hello(window)]);
    let mut handles = Vec::new();
    for id in 1..=count {
        let starts = vm.input(&link, &[open(id), Frame::Data { id, payload: request }]);
        let [handle] = starts[..] else { panic!("{starts:?}") };
        vm.set_owner(&handle, CONSUMER).expect("open");
        assert_eq!(vm.recv(&handle, 0, CONSUMER), Read::Data(request.to_vec()));
        handles.push(handle);
    }
    let mut output = Output::new(&link);
    while output.take(vm) {}
    (link, output, handles)
}

/// Two connections send while the link's sender looks and falls asleep: all of it went out, or the sender is told.
#[test]
fn sends_meet_a_sender_that_falls_asleep() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (_link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 2);
        let threads = [(handles[0], b"a"), (handles[1], b"b")]
            .map(|(handle, part)| vm.spawn(move |vm| vm.send(&handle, part, CONSUMER)));
        let _ = output.take(&vm) && output.take(&vm);
        for thread in threads {
            assert_eq!(join(thread), Ok(Sent::All));
        }
        let mut frames = output.finish(&vm);
        frames.sort_unstable();
        assert_eq!(frames, ["data a", "data b"]);
    });
}

/// The same for one connection that sends twice: in order.
#[test]
fn one_connection_meets_a_sender_that_falls_asleep() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (_link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let thread = vm.spawn(move |vm| {
            assert_eq!(vm.send(&handle, b"a", CONSUMER), Ok(Sent::All));
            assert_eq!(vm.send(&handle, b"b", CONSUMER), Ok(Sent::All));
        });
        let _ = output.take(&vm) && output.take(&vm);
        join(thread);
        let frames = output.finish(&vm);
        assert!(frames == ["data ab"] || frames == ["data a", "data b"], "{frames:?}");
    });
}

/// An answer of more than one frame and another connection's meet the sender: the rest of the first comes, too.
#[test]
fn a_long_answer_meets_a_sender_that_falls_asleep() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (_link, mut output, handles) = asked(&vm, WINDOW, REQUEST, 2);
        let (first, second) = (handles[0], handles[1]);
        let long = vm.spawn(move |vm| vm.send(&first, &[b'x'; DATA_CHUNK + 1], CONSUMER));
        let short = vm.spawn(move |vm| vm.send(&second, b"b", CONSUMER));
        let _ = output.take(&vm) && output.take(&vm);
        assert_eq!((join(long), join(short)), (Ok(Sent::All), Ok(Sent::All)));
        let mut frames = output.finish(&vm);
        frames.sort_unstable();
        assert_eq!(frames, ["data 16384", "data b", "data x"]);
    });
}

/// A frame about the link itself and a connection's output meet the sender.
#[test]
fn a_pong_meets_a_sender_that_falls_asleep() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let reader = vm.spawn(move |vm| vm.input(&link, &[Frame::Ping([0; 8])]));
        let writer = vm.spawn(move |vm| vm.send(&handle, b"a", CONSUMER));
        let _ = output.take(&vm) && output.take(&vm);
        join(reader);
        assert_eq!(join(writer), Ok(Sent::All));
        let mut frames = output.finish(&vm);
        frames.sort_unstable();
        assert_eq!(frames, ["data a", "pong"]);
    });
}

/// Credit comes while output without credit is looked at and more is sent: what credit allows goes out.
#[test]
fn credit_meets_the_drain() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let all = vec![b'x'; MIN_WINDOW as usize + 1];
        assert_eq!(vm.send(&handle, &all, CONSUMER), Ok(Sent::All));
        while output.take(&vm) {}
        let reader = vm.spawn(move |vm| vm.input(&link, &[Frame::Window { id: 1, increment: 2 }]));
        let writer = vm.spawn(move |vm| vm.send(&handle, b"y", CONSUMER));
        let _ = output.take(&vm) && output.take(&vm);
        join(reader);
        assert_eq!(join(writer), Ok(Sent::All));
        let frames = output.finish(&vm);
        let sent: String = frames[1..].iter().filter_map(|text| text.strip_prefix("data ")).collect();
        assert_eq!((frames[0].as_str(), sent.as_str()), ("data 16384", "xy"));
    });
}

/// A blocked sender meets the drain and another sender: it is told once, goes first, and what it sends stays together.
#[test]
fn a_blocked_sender_meets_the_drain() {
    check(PREEMPTIONS, || {
        let vm = Vm::with(TableLimits { output_queue: 2, ..TableLimits::default() });
        let (_link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let first = vm.spawn(move |vm| vm.send(&handle, b"abc", CONSUMER));
        let second = vm.spawn(move |vm| vm.send(&handle, b"xyz", NEXT));
        while output.take(&vm) {}
        let mut senders = [(CONSUMER, &b"abc"[..], join(first)), (NEXT, &b"xyz"[..], join(second))]
            .map(|(pid, data, sent)| (pid, data, sent.expect("open")));
        // As the processes go on when they are told.
        while senders.iter().any(|(_, _, sent)| *sent != Sent::All) {
            let mut moved = output.take(&vm);
            for (pid, data, sent) in &mut senders {
                if let Sent::Wait { accepted, token } = *sent
                    && vm.mail(*pid).contains(&Mail::Room(token, true))
                {
                    *data = &data[accepted..];
                    *sent = vm.send(&handle, data, *pid).expect("open");
                    moved = true;
                }
            }
            assert!(moved, "nobody goes on: {senders:?}");
        }
        let all = output.finish(&vm).concat().replace("data ", "");
        assert!(all == "abcxyz" || all == "xyzabc", "{all}");
    });
}

/// Both ends close at once, with output on its way: one close frame leaves, after the output if that leaves at all.
#[test]
fn both_ends_close() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let closer = vm.spawn(move |vm| {
            let sent = vm.send(&handle, b"bye", CONSUMER);
            vm.close(&handle, CONSUMER);
            sent
        });
        let reader = {
            let link = LinkRef::clone(&link);
            vm.spawn(move |vm| vm.input(&link, &[Frame::Close { id: 1, reason: CloseReason::Normal }]))
        };
        let _ = output.take(&vm) && output.take(&vm);
        let sent = join(closer);
        join(reader);
        assert!(matches!(sent, Ok(Sent::All) | Err(Closed)));
        let frames = output.finish(&vm);
        assert!(frames == ["close"] || (sent.is_ok() && frames == ["data bye", "close"]), "{frames:?}");
        assert_eq!(vm.table.link_info(&link).connections, 0);
        vm.kill(CONSUMER);
        vm.end_link(&link);
        vm.finish(&[]);
    });
}

/// The consumer looks for a next request while it comes, and then ends: it gets the request itself, or another
/// consumer is started, and the end of the first is nothing to that one.
#[test]
fn a_consumer_goes_while_the_next_request_comes() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let (link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        assert_eq!(vm.send(&handle, b"ok", CONSUMER), Ok(Sent::All));
        let consumer = vm.spawn(move |vm| {
            let read = vm.recv(&handle, 0, CONSUMER);
            vm.kill(CONSUMER);
            read
        });
        let reader = {
            let link = LinkRef::clone(&link);
            vm.spawn(move |vm| {
                let starts = vm.input(&link, &[Frame::Data { id: 1, payload: REQUEST }]);
                let named = starts.first().map(|handle| vm.set_owner(handle, NEXT));
                (starts, named)
            })
        };
        let _ = output.take(&vm);
        let read = vm.outcome(CONSUMER, &join(consumer));
        let (starts, named) = join(reader);
        output.finish(&vm);
        if starts.is_empty() {
            // It died with the request in its hands.
            assert_eq!(read, Outcome::Data(REQUEST.to_vec()));
            assert!(vm.table.info(&handle).is_err());
        } else {
            assert_eq!((read, &starts[..], named), (Outcome::Closed, &[handle][..], Some(Ok(()))));
            assert_eq!(vm.table.info(&handle).map(|info| info.owner), Ok(Some(NEXT)));
        }
        vm.end_link(&link);
        vm.finish(&[NEXT]);
    });
}

/// A consumer does all of its work and ends while it is being named: its connection goes on without a process.
#[test]
fn a_consumer_ends_while_it_is_named() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let link = vm.link_open().expect("room");
        let starts = vm.input(&link, &[hello(MIN_WINDOW), open(1), Frame::Data { id: 1, payload: REQUEST }]);
        let handle = starts[0];
        let namer = vm.spawn(move |vm| vm.set_owner(&handle, CONSUMER));
        assert_eq!(vm.recv(&handle, 0, CONSUMER), Read::Data(REQUEST.to_vec()));
        assert_eq!(vm.send(&handle, b"ok", CONSUMER), Ok(Sent::All));
        assert_eq!(vm.outcome(CONSUMER, &vm.recv(&handle, 0, CONSUMER)), Outcome::Closed);
        vm.kill(CONSUMER);
        let named = join(namer);
        assert!(named == Ok(()) || named == Err(Closed));
        assert_eq!(vm.table.info(&handle).map(|info| info.owner), Ok(None));
        let mut output = Output::new(&link);
        while output.take(&vm) {}
        assert_eq!(output.frames, ["hello", "data ok", "ready"]);
        vm.end_link(&link);
        vm.finish(&[]);
    });
}

/// Two links end at once, and so does the process that waits on both: it is told at most once of each, and nothing is
/// left.
#[test]
fn two_links_end() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let ends = [(); 2].map(|()| {
            let (link, _, handles) = asked(&vm, MIN_WINDOW, UPLOAD, 1);
            let read = vm.recv(&handles[0], 0, CONSUMER);
            assert!(matches!(read, Read::Wait(_)));
            (link, read)
        });
        let threads = ends.each_ref().map(|(link, _)| {
            let link = LinkRef::clone(link);
            vm.spawn(move |vm| vm.end_link(&link))
        });
        vm.kill(CONSUMER);
        for thread in threads {
            join(thread);
        }
        for (_, read) in &ends {
            assert!(matches!(vm.outcome(CONSUMER, read), Outcome::Waits | Outcome::Closed));
        }
        vm.finish(&[]);
    });
}

/// A link ends while its input opens a connection and asks for something: nothing is left of it.
#[test]
fn a_link_ends_while_it_opens_connections() {
    check(PREEMPTIONS, || {
        let vm = Vm::new();
        let link = vm.link_open().expect("room");
        vm.input(&link, &[hello(MIN_WINDOW)]);
        let ender = {
            let link = LinkRef::clone(&link);
            vm.spawn(move |vm| vm.end_link(&link))
        };
        let (starts, end) = vm.feed(&link, &[open(1), open(2), Frame::Data { id: 2, payload: REQUEST }]);
        join(ender);
        assert!(matches!(end, InputEnd::Done | InputEnd::Closed), "{end:?}");
        for handle in starts {
            // As the receiver does; the consumer finds out and ends.
            let _ = vm.set_owner(&handle, CONSUMER);
        }
        vm.finish(&[CONSUMER]);
    });
}

/// A link ends while a consumer sends, has to wait, and closes: it is told once of room or of the end.
#[test]
fn a_link_ends_while_a_consumer_sends() {
    check(PREEMPTIONS, || {
        let vm = Vm::with(TableLimits { output_queue: 1, ..TableLimits::default() });
        let (link, mut output, handles) = asked(&vm, MIN_WINDOW, REQUEST, 1);
        let handle = handles[0];
        let ender = {
            let link = LinkRef::clone(&link);
            vm.spawn(move |vm| vm.end_link(&link))
        };
        let consumer = vm.spawn(move |vm| {
            let sent = vm.send(&handle, b"ab", CONSUMER);
            let closing = matches!(sent, Ok(Sent::Wait { .. })).then(|| vm.close(&handle, CONSUMER));
            (sent, closing)
        });
        output.take(&vm);
        join(ender);
        match join(consumer).0 {
            Ok(Sent::Wait { accepted: 1, token }) => match &vm.mail(CONSUMER)[..] {
                [Mail::Room(of, _)] => assert_eq!(*of, token),
                other => panic!("{other:?}"),
            },
            Err(Closed) => assert_eq!(vm.mail(CONSUMER), []),
            other => panic!("{other:?}"),
        }
        vm.finish(&[CONSUMER]);
    });
}

/// Limits hold when several open at once, and a place that was given back can be taken.
#[test]
fn opens_meet_their_limit() {
    check(PREEMPTIONS, || {
        let vm = Vm::with(TableLimits { links: 1, local_connections: 1, ..TableLimits::default() });
        let first = vm.open(CONSUMER).expect("room");
        let closer = vm.spawn(move |vm| {
            vm.close(&first, CONSUMER);
            vm.link_open().map(|_| ())
        });
        let opener = vm.spawn(|vm| (vm.open(NEXT).map(|_| ()), vm.link_open().map(|_| ())));
        let (one, (opened, two)) = (join(closer), join(opener));
        assert!(matches!(opened, Ok(()) | Err(Refused::Connections)));
        assert!(matches!((one, two), (Ok(()), Err(Refused::Links)) | (Err(Refused::Links), Ok(()))));
        assert_eq!(vm.table.stats().local, usize::from(opened.is_ok()));
        vm.kill(NEXT);
        assert!(vm.open(CONSUMER).is_ok());
    });
}
