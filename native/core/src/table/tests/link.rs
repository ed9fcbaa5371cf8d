//! Connections of links: frames in, frames out, requests one at a time, closing, ids.

use super::*;
use crate::limits::{DATA_CHUNK, SWEEP_PER_CALL, TableLimits, WINDOW};
use crate::link::{CloseReason, Decoder, ErrorCode, Frame, Hello, Kind, Open, Role};

const SENDER: u32 = 100;
pub(super) const CONSUMER: u32 = 200;
pub(super) const REQUEST: &[u8] = b"POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

pub(super) struct Peer {
    pub(super) table: TestTable,
    pub(super) world: World,
    link: Arc<Link<u32>>,
    decoder: Decoder,
}

pub(super) fn encoded(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

fn hello() -> Frame<'static> {
    Frame::Hello(Hello { role: Role::Ecm, features: Hello::CREDIT, window: WINDOW, name: "test" })
}

pub(super) fn open(id: u64) -> Frame<'static> {
    let local = "127.0.0.1:5280".parse().expect("an address");
    Frame::Open { id, open: Open { kind: Kind::Http, tls: false, client: client(), local } }
}

pub(super) const fn data(id: u64, payload: &[u8]) -> Frame<'_> {
    Frame::Data { id, payload }
}

pub(super) const fn close(id: u64) -> Frame<'static> {
    Frame::Close { id, reason: CloseReason::Normal }
}

impl Peer {
    pub(super) fn new() -> Self {
        Self::with(TestTable::new())
    }

    pub(super) fn with(table: TestTable) -> Self {
        Self::serving(table, Served::Http)
    }

    pub(super) fn serving(table: TestTable, served: Served) -> Self {
        let link = table.link_open("test".into(), "test", served, None).expect("room");
        let mut peer = Self { table, world: World::default(), link, decoder: Decoder::new() };
        assert_eq!(peer.input(&[hello()]), []);
        assert_eq!(peer.output(), ["hello"]);
        peer
    }

    pub(super) fn feed(&mut self, input: &[u8]) -> (Vec<Handle>, InputEnd) {
        let (actions, end) = self.act(input);
        let starts = actions.into_iter().filter_map(|action| match action {
            Action::Start(handle) => Some(handle),
            _ => None,
        });
        (starts.collect(), end)
    }

    fn act(&mut self, input: &[u8]) -> (Vec<Action<u32, Vec<u8>>>, InputEnd) {
        let mut actions = Vec::new();
        let end = self.table.link_input(&self.link, input, 0, &mut actions, &mut self.world);
        (actions, end)
    }

    /// Feeds frames, which must be fine: what is to be done.
    pub(super) fn actions(&mut self, frames: &[Frame<'_>]) -> Vec<Action<u32, Vec<u8>>> {
        let (actions, end) = self.act(&encoded(frames));
        assert_eq!(end, InputEnd::Done);
        actions
    }

    /// Feeds frames, which must be fine; the consumers to start.
    pub(super) fn input(&mut self, frames: &[Frame<'_>]) -> Vec<Handle> {
        let (starts, end) = self.feed(&encoded(frames));
        assert_eq!(end, InputEnd::Done);
        starts
    }

    /// The frames that this end sends, as short texts.
    pub(super) fn output(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let output = self.table.link_output(&self.link, SENDER, &mut self.world);
            if output.is_empty() {
                return texts;
            }
            self.decoder.push(&output);
            while let Some(frame) = self.decoder.next().expect("our own frames are right") {
                texts.push(match frame {
                    Frame::Data { id, payload } if payload.len() > 8 => {
                        format!("data {id} {}", payload.len())
                    }
                    Frame::Data { id, payload } => format!("data {id} {}", String::from_utf8_lossy(payload)),
                    Frame::Close { id, reason } => format!("close {id} {reason:?}"),
                    Frame::Error { id, code, .. } => format!("error {id} {code:?}"),
                    Frame::Ready { id, mode } => format!("ready {id} {mode:?}"),
                    Frame::Window { id, increment } => format!("window {id} {increment}"),
                    other => other.name().into(),
                });
            }
        }
    }

    pub(super) fn start(&mut self, id: u64, request: &[u8]) -> Handle {
        let starts = self.input(&[open(id), data(id, request)]);
        let [handle] = starts[..] else { panic!("{starts:?}") };
        self.table.set_owner(&handle, CONSUMER, 0, &mut self.world).expect("open");
        handle
    }

    pub(super) fn recv(&mut self, handle: &Handle, length: usize) -> Result<Result<Vec<u8>, u64>, RecvError> {
        let result = self.table.recv(handle, length, CONSUMER, 0, &mut self.world)?;
        Ok(result.map(bytes))
    }

    /// Reads [`REQUEST`] as a consumer does: its head comes alone.
    pub(super) fn read_request(&mut self, handle: &Handle) {
        let (head, body) = REQUEST.split_at(REQUEST.len() - 4);
        assert_eq!(self.recv(handle, 0), Ok(Ok(head.to_vec())));
        assert_eq!(self.recv(handle, 0), Ok(Ok(body.to_vec())));
    }

    pub(super) fn send(&mut self, handle: &Handle, payload: &[u8]) -> Result<Sent, Closed> {
        self.table.send(handle, payload, CONSUMER, 0, &mut self.world)
    }
}

/// A request starts one consumer when it is complete, is read, answered, and the connection goes on without a process.
#[test]
fn a_request_is_served_by_a_process_that_then_detaches() {
    let mut peer = Peer::new();
    let (head, body) = REQUEST.split_at(REQUEST.len() - 4);
    assert_eq!(peer.input(&[open(7), data(7, head)]), []);
    let starts = peer.input(&[data(7, body)]);
    let [handle] = starts[..] else { panic!("{starts:?}") };
    peer.table.set_owner(&handle, CONSUMER, 0, &mut peer.world).expect("open");
    assert_eq!(peer.table.peername(&handle), Ok(client()));
    assert_eq!(peer.table.sockname(&handle).map(|a| a.to_string()), Ok("127.0.0.1:5280".into()));
    peer.read_request(&handle);
    assert_eq!(peer.send(&handle, b"answer"), Ok(Sent::All));
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    assert_eq!(peer.output(), ["data 7 answer", "ready 7 Request"]);
    // The end of the consumer is nothing to the connection any more.
    peer.world.kill(&peer.table, CONSUMER);
    assert_eq!(peer.table.stats().busy, 0);
    assert_eq!(peer.input(&[data(7, REQUEST)]), [handle]);
    assert_eq!(peer.table.stats().connections, 1);
}

/// A consumer that has done its work before it could be named does not lose the connection.
#[test]
fn a_consumer_may_finish_before_it_is_named() {
    let mut peer = Peer::new();
    let starts = peer.input(&[open(7), data(7, REQUEST)]);
    peer.read_request(&starts[0]);
    assert_eq!(peer.recv(&starts[0], 0), Err(RecvError::Closed));
    peer.world.dead.insert(CONSUMER);
    assert_eq!(peer.table.set_owner(&starts[0], CONSUMER, 0, &mut peer.world), Err(Closed));
    assert_eq!(peer.output(), ["ready 7 Request"]);
    assert_eq!(peer.table.stats().connections, 1);
}

/// Requests that were sent ahead are handed over one at a time.
#[test]
fn pipelined_requests_are_handed_over_one_at_a_time() {
    let mut peer = Peer::new();
    let handle = peer.start(7, &[REQUEST, REQUEST].concat());
    peer.read_request(&handle);
    peer.send(&handle, b"one").expect("open");
    peer.read_request(&handle);
    peer.send(&handle, b"two").expect("open");
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    assert_eq!(peer.output(), ["data 7 onetwo", "ready 7 Request"]);
}

/// The same for one that was all there with its head: the consumer, given both at once, would keep what it does not want
/// and take it for the next request.
#[test]
fn an_unread_small_body_is_no_request() {
    let mut peer = Peer::new();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = format!("PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", hidden.len());
    let handle = peer.start(7, [&head, hidden].concat().as_bytes());
    assert_eq!(peer.recv(&handle, 0), Ok(Ok(head.into_bytes())));
    peer.send(&handle, b"400").expect("open");
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    assert_eq!(peer.output(), ["data 7 400", "ready 7 Request"]);
    assert_eq!(peer.input(&[data(7, REQUEST)]), [handle]);
}

/// A body that the consumer does not read is dropped when it asks for the next request after its answer.
#[test]
fn an_unread_body_is_dropped_after_the_answer() {
    let mut peer = Peer::new();
    let head = b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let handle = peer.start(7, head);
    assert_eq!(peer.recv(&handle, 0), Ok(Ok(head.to_vec())));
    peer.send(&handle, b"413").expect("open");
    assert_eq!(peer.input(&[data(7, &[1; 40_000])]), []);
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    assert_eq!(peer.output(), ["data 7 413"]);
    assert_eq!(peer.input(&[data(7, &[1; 60_000])]), []);
    assert_eq!(peer.output(), [format!("window 7 {}", head.len() + 100_000).as_str(), "ready 7 Request"]);
    assert_eq!(peer.input(&[data(7, REQUEST)]), [handle]);
}

/// A body that has used up the window and is never read gets new credit when it is dropped, so that all of it comes.
#[test]
fn an_unread_body_beyond_the_window_is_dropped_to_its_end() {
    let mut peer = Peer::new();
    let head = b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let handle = peer.start(7, head);
    let (mut left, mut credit) = (1_000_000, WINDOW as usize - head.len());
    peer.input(&[data(7, &vec![1; 65_536]), data(7, &vec![1; credit - 65_536])]);
    left -= std::mem::take(&mut credit);
    assert_eq!(peer.recv(&handle, head.len()), Ok(Ok(head.to_vec())));
    peer.send(&handle, b"413").expect("open");
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    while left > 0 {
        for text in peer.output() {
            credit += text.strip_prefix("window 7 ").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        }
        let count = left.min(credit).min(50_000);
        assert!(count > 0, "no credit with {left} bytes to go");
        peer.input(&[data(7, &vec![1; count])]);
        credit -= count;
        left -= count;
    }
    assert_eq!(peer.output().last().map(String::as_str), Some("ready 7 Request"));
}

/// A long body is streamed: its consumer starts with the head, and credit comes as it reads, also for one long read.
#[test]
fn a_long_body_flows_under_credit() {
    let mut peer = Peer::new();
    let head = b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let handle = peer.start(7, head);
    assert_eq!(peer.recv(&handle, 0), Ok(Ok(head.to_vec())));
    let Ok(Err(token)) = peer.recv(&handle, 1_000_000) else { panic!("does not wait") };
    let (mut credit, mut left) = (WINDOW as usize - head.len(), 1_000_000);
    while left > 0 {
        let count = left.min(credit).min(50_000);
        assert!(count > 0, "no credit with {left} bytes to go");
        credit -= count;
        left -= count;
        assert_eq!(peer.input(&[data(7, &vec![b'x'; count])]), []);
        for text in peer.output() {
            credit += text.strip_prefix("window 7 ").and_then(|n| n.parse::<usize>().ok()).expect("a window");
        }
    }
    let (to, of, result) = peer.world.mail.iter().position(|(to, _)| *to == CONSUMER).map_or_else(
        || panic!("no answer"),
        |at| match peer.world.mail.remove(at) {
            Some((to, Message::Answer { token, result })) => (to, token, result.map(bytes)),
            other => panic!("{other:?}"),
        },
    );
    assert_eq!((to, of, result.map(|all| all.len())), (CONSUMER, token, Ok(1_000_000)));
}

/// Data beyond the granted credit closes that connection and no other.
#[test]
fn an_overrun_closes_only_its_connection() {
    let mut peer = Peer::new();
    let half = vec![b'x'; WINDOW as usize / 2];
    let head = b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n";
    let handle = peer.start(7, head);
    peer.input(&[open(8), data(7, &half), data(7, &half[head.len()..])]);
    assert_eq!(peer.output(), [""; 0]);
    peer.input(&[data(7, b"x")]);
    assert_eq!(peer.output(), ["error 7 Protocol", "close 7 Protocol"]);
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    peer.input(&[data(7, b"crossed the close"), close(7)]);
    assert_eq!(peer.input(&[data(8, REQUEST)]).len(), 1);
    assert_eq!(peer.output(), [""; 0]);
}

/// Output waits for credit, leaves in frames of limited size, and fills the queue no further than its limit.
#[test]
fn output_waits_for_credit() {
    let mut peer = Peer::new();
    let handle = peer.start(7, REQUEST);
    let mut sent = 0;
    let mut blocked = false;
    for _ in 0..4 {
        match peer.send(&handle, &[b'x'; 65_536]).expect("open") {
            Sent::All => sent += 65_536,
            Sent::Wait { accepted, .. } => {
                sent += accepted;
                blocked = true;
                break;
            }
            Sent::Refused => panic!("nobody waits"),
        }
        let frames = peer.output();
        assert!(frames.iter().all(|text| text == &format!("data 7 {DATA_CHUNK}")), "{frames:?}");
    }
    assert!(blocked);
    assert_eq!(sent, WINDOW as usize + 65_536);
    peer.world.mail.clear();
    assert_eq!(peer.input(&[Frame::Window { id: 7, increment: 40_000 }]), []);
    assert_eq!(peer.output(), ["data 7 16384", "data 7 16384", "data 7 7232"]);
    assert!(
        peer.world
            .mail
            .iter()
            .any(|(to, m)| *to == CONSUMER && matches!(m, Message::Room { result: Ok(()), .. }))
    );
}

/// Connections with output take turns, a frame each; the sender is told once and not again before it has slept.
#[test]
fn ready_connections_take_turns_and_wake_the_sender_once() {
    let mut peer = Peer::new();
    let first = peer.start(1, REQUEST);
    let second = peer.start(2, REQUEST);
    assert_eq!(peer.output(), [""; 0]);
    peer.world.mail.clear();
    peer.send(&first, &[b'a'; 40_000]).expect("open");
    peer.send(&second, b"small").expect("open");
    peer.send(&second, b"er").expect("open");
    let told =
        peer.world.mail.iter().filter(|(to, m)| *to == SENDER && matches!(m, Message::LinkOutput)).count();
    assert_eq!(told, 1);
    assert_eq!(peer.output(), ["data 1 16384", "data 2 smaller", "data 1 16384", "data 1 7232"]);
}

/// Closing from this end: what was sent goes out first, then close; the id is taken until the other end closes too.
#[test]
fn our_close_follows_our_output_and_frees_the_id_when_answered() {
    let mut peer = Peer::new();
    let handle = peer.start(7, REQUEST);
    peer.send(&handle, b"bye").expect("open");
    peer.world.kill(&peer.table, CONSUMER);
    assert_eq!(peer.output(), ["data 7 bye", "close 7 Normal"]);
    assert_eq!(peer.send(&handle, b"late"), Err(Closed));
    assert_eq!(peer.table.stats().connections, 1);
    peer.input(&[data(7, b"crossed"), close(7)]);
    assert_empty(&peer.table);
    peer.world.dead.clear();
    let next = peer.start(7, REQUEST);
    assert_ne!(next, handle);
    assert_eq!(peer.recv(&handle, 0), Err(RecvError::Closed));
    peer.read_request(&next);
}

/// Closing from the other end: it is answered at once, waiting readers wake, and the id is free.
#[test]
fn their_close_is_answered_and_wakes_the_consumer() {
    let mut peer = Peer::new();
    let head = b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let handle = peer.start(7, head);
    assert!(peer.recv(&handle, 0).is_ok());
    let Ok(Err(token)) = peer.recv(&handle, 0) else { panic!("does not wait") };
    peer.world.mail.clear();
    peer.send(&handle, b"never read").expect("open");
    peer.input(&[close(7), close(7), open(7)]);
    let answers: Vec<_> = peer.world.mail.drain(..).filter(|(to, _)| *to == CONSUMER).collect();
    assert!(
        matches!(&answers[..], [(_, Message::Answer { token: of, result: Err(End::Closed) })] if *of == token),
        "{answers:?}"
    );
    assert_eq!(peer.output(), ["close 7 Normal"]);
    assert_eq!(peer.send(&handle, b"late"), Err(Closed));
    assert_eq!(peer.input(&[data(7, REQUEST)]).len(), 1);
}

/// An id in use cannot be opened again; data for an unknown one is reported and harms nobody.
#[test]
fn ids_in_use_and_unknown_ids_have_their_answers() {
    let mut peer = Peer::new();
    peer.input(&[data(9, b"x"), close(9), Frame::Window { id: 9, increment: 1 }, open(7)]);
    assert_eq!(peer.output(), ["error 9 UnknownConnection"]);
    let (_, end) = peer.feed(&encoded(&[open(7)]));
    assert!(matches!(end, InputEnd::Stop(text) if text.contains("connection 7")));
    assert_eq!(peer.output(), ["error 0 Protocol"]);
}

/// The error frame that ends a link is the last one, whatever else was ready to go.
#[test]
fn nothing_follows_the_error_that_ends_a_link() {
    let mut peer = Peer::new();
    let handle = peer.start(7, REQUEST);
    peer.send(&handle, b"answer").expect("open");
    let (_, end) = peer.feed(&encoded(&[Frame::Ping([1; 8]), open(7)]));
    assert!(matches!(end, InputEnd::Stop(_)));
    assert_eq!(peer.feed(&encoded(&[Frame::Ping([2; 8])])).1, InputEnd::Closed);
    assert_eq!(peer.output(), ["pong", "error 0 Protocol"]);
}

/// Two links may use equal ids; a consumer of a link that is gone reaches nothing of a link that came later.
#[test]
fn links_do_not_mix() {
    let mut old = Peer::new();
    let handle = old.start(7, REQUEST);
    old.table.link_down(&old.link);
    assert_eq!(old.feed(b"x").1, InputEnd::Closed);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = old.table.link_sweep(&old.link, at, &mut old.world);
    }
    // What came before the end can still be read; then nothing is left.
    old.read_request(&handle);
    assert_empty(&old.table);
    let mut new = Peer::with(old.table);
    let next = new.start(7, REQUEST);
    assert_eq!(new.send(&handle, b"stale"), Err(Closed));
    assert_eq!(new.recv(&handle, 0), Err(RecvError::Closed));
    assert_eq!(new.output(), [""; 0]);
    new.read_request(&next);
}

/// The sweep of a link that is gone works in slices, wakes every waiter and leaves nothing.
#[test]
fn a_sweep_is_sliced_and_complete() {
    let mut peer = Peer::new();
    let count = SWEEP_PER_CALL as u64 * 3;
    for id in 1..=count {
        peer.input(&[open(id)]);
    }
    let handle = peer.start(count + 1, REQUEST);
    peer.read_request(&handle);
    peer.table.link_down(&peer.link);
    let (mut cursor, mut calls) = (Some(0), 0);
    while let Some(at) = cursor {
        cursor = peer.table.link_sweep(&peer.link, at, &mut peer.world);
        calls += 1;
    }
    assert!(calls >= SHARDS);
    assert_empty(&peer.table);
}

/// A WebSocket: becoming active makes the connection a tunnel, both ways, until one closes.
#[test]
fn becoming_active_makes_a_tunnel() {
    let mut peer = Peer::new();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let handle = peer.start(7, head);
    assert!(peer.recv(&handle, 0).is_ok());
    peer.send(&handle, b"101").expect("open");
    peer.table.set_active(&handle, Active::Always, &mut peer.world).expect("open");
    assert_eq!(peer.output(), ["data 7 101", "ready 7 Tunnel"]);
    peer.world.mail.clear();
    peer.input(&[data(7, b"GET / HTTP/1.1\r\n\r\n"), close(7)]);
    let mail: Vec<_> = peer.world.mail.drain(..).filter(|(to, _)| *to == CONSUMER).collect();
    assert!(matches!(&mail[..], [(_, Message::Active(..)), (_, Message::ActiveClosed(_))]), "{mail:?}");
    assert_eq!(peer.send(&handle, b"late"), Err(Closed));
    assert_empty(&peer.table);
}

/// What is not a request, or frames bodies as this end must not see them, closes the connection with a reason.
#[test]
fn a_bad_request_closes_its_connection() {
    for bad in [
        b"nonsense\r\n\r\n".as_slice(),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
    ] {
        let mut peer = Peer::new();
        assert_eq!(peer.input(&[open(7), data(7, bad)]), []);
        assert_eq!(peer.output(), ["error 7 Protocol", "close 7 Protocol"]);
        peer.input(&[close(7)]);
        assert_empty(&peer.table);
    }
}

/// Frames cut anywhere give the same events.
#[test]
fn frames_may_be_cut_anywhere() {
    let stream = encoded(&[
        hello(),
        open(7),
        data(7, REQUEST),
        open(8),
        data(8, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]);
    for cut in 1..stream.len() {
        let table = TestTable::new();
        let link = table.link_open("test".into(), "test", Served::Http, None).expect("room");
        let mut peer = Peer { table, world: World::default(), link, decoder: Decoder::new() };
        let mut starts = Vec::new();
        for part in [&stream[..cut], &stream[cut..]] {
            let (more, end) = peer.feed(part);
            assert_eq!(end, InputEnd::Done);
            starts.extend(more.iter().map(|handle| handle.id));
        }
        assert_eq!(starts, [7, 8], "cut at {cut}");
    }
}

/// A flood of small frames is handled in slices.
#[test]
fn many_frames_are_handled_in_slices() {
    let mut peer = Peer::new();
    let pings = encoded(&[Frame::Ping([7; 8]); crate::limits::FRAMES_PER_CALL + 1]);
    assert_eq!(peer.feed(&pings).1, InputEnd::More);
    assert_eq!(peer.feed(b"").1, InputEnd::Done);
    assert_eq!(peer.output().len(), crate::limits::FRAMES_PER_CALL + 1);
}

/// A peer that makes this end owe answers without reading them is cut off at the limit.
#[test]
fn a_peer_that_does_not_read_is_cut_off() {
    let mut peer = Peer::new();
    let pings = encoded(&[Frame::Ping([7; 8]); 256]);
    let mut calls = 0;
    loop {
        calls += 1;
        match peer.feed(&pings).1 {
            InputEnd::Done => assert!(calls < 100, "no limit"),
            InputEnd::Stop(text) => break assert!(text.contains("does not read"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Connections of a link and links are limited to the one.
#[test]
fn links_and_their_connections_are_limited() {
    let limits = TableLimits { links: 1, link_connections: 2, ..TableLimits::default() };
    let mut peer = Peer::with(TestTable::with_limits(limits));
    assert!(matches!(peer.table.link_open("second".into(), "test", Served::Http, None), Err(Refused::Links)));
    peer.input(&[open(1), open(2), open(3), close(3)]);
    assert_eq!(peer.output(), ["error 3 Limit", "close 3 Limit"]);
    peer.input(&[close(2), open(3)]);
    assert_eq!(peer.output(), ["close 2 Normal"]);
}

/// Whatever the first frame is but a hello of this version, the link ends with an error that says why.
#[test]
fn a_link_begins_with_hello() {
    let cases: [(&[u8], ErrorCode, &str); 5] = [
        (b"GET / HTTP/1.1\r\n", ErrorCode::Protocol, "not a Megaphone hello"),
        (&[&encoded(&[hello()])[..], &[0xff; 4]].concat(), ErrorCode::Protocol, "4294967295"),
        (&encoded(&[open(7)]), ErrorCode::Protocol, "not a Megaphone hello"),
        (
            &[0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'M', b'G', b'P', b'H', 9],
            ErrorCode::Version,
            "version 9",
        ),
        (&encoded(&[hello(), hello()]), ErrorCode::Protocol, "hello frame where"),
    ];
    for (input, code, text) in cases {
        let table = TestTable::new();
        let link = table.link_open("test".into(), "test", Served::Http, None).expect("room");
        let mut peer = Peer { table, world: World::default(), link, decoder: Decoder::new() };
        match peer.feed(input).1 {
            InputEnd::Stop(reason) => assert!(reason.contains(text), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(peer.output(), ["hello".to_string(), format!("error 0 {code:?}")]);
    }
}

/// A consumer that becomes active before it is named is given what came meanwhile, and the end.
#[test]
fn a_consumer_may_become_active_before_it_is_named() {
    let mut peer = Peer::new();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let starts = peer.input(&[open(7), data(7, head)]);
    let handle = starts[0];
    assert!(peer.recv(&handle, 0).is_ok());
    peer.table.set_active(&handle, Active::Count(0), &mut peer.world).expect("open");
    peer.table.set_active(&handle, Active::Always, &mut peer.world).expect("open");
    peer.input(&[data(7, b"early")]);
    peer.world.mail.clear();
    peer.table.set_owner(&handle, CONSUMER, 0, &mut peer.world).expect("open");
    match peer.world.mail.pop_front() {
        Some((CONSUMER, Message::Active(_, data))) => assert_eq!(bytes(data), b"early"),
        other => panic!("{other:?}"),
    }
    peer.input(&[close(7)]);
    assert!(peer.world.mail.iter().any(|(to, m)| *to == CONSUMER && matches!(m, Message::ActiveClosed(_))));
    assert_empty(&peer.table);
}

/// A consumer that becomes active before it is named learns of a close that came in between.
#[test]
fn a_close_before_the_consumer_is_named_is_told() {
    let mut peer = Peer::new();
    let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let starts = peer.input(&[open(7), data(7, head)]);
    assert!(peer.recv(&starts[0], 0).is_ok());
    peer.table.set_active(&starts[0], Active::Always, &mut peer.world).expect("open");
    peer.input(&[close(7)]);
    peer.world.mail.clear();
    peer.table.set_owner(&starts[0], CONSUMER, 0, &mut peer.world).expect("kept for it");
    assert!(matches!(peer.world.mail.pop_front(), Some((CONSUMER, Message::ActiveClosed(_)))));
    assert_empty(&peer.table);
}

/// What was started for a link that is gone, and never named, is not kept.
#[test]
fn a_link_that_goes_keeps_nothing_that_was_never_named() {
    let mut peer = Peer::new();
    let starts = peer.input(&[open(7), data(7, REQUEST), open(8), data(8, REQUEST)]);
    assert_eq!(starts.len(), 2);
    peer.input(&[close(7)]);
    peer.table.link_down(&peer.link);
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = peer.table.link_sweep(&peer.link, at, &mut peer.world);
    }
    assert_empty(&peer.table);
}

/// An owner that dies while it waits for room closes its connection, also when another process waits for the rest of the
/// request that it has begun to answer.
#[test]
fn an_owner_that_dies_while_it_sends_closes_its_connection() {
    const READER: u32 = 300;
    let mut peer =
        Peer::with(TestTable::with_limits(TableLimits { output_queue: 10, ..TableLimits::default() }));
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let handle = peer.start(1, head);
    assert_eq!(peer.recv(&handle, 0), Ok(Ok(head.to_vec())));
    let waits = peer.table.recv(&handle, 0, READER, 0, &mut peer.world);
    let Ok(Err(token)) = waits else { panic!("{waits:?}") };
    assert!(matches!(peer.send(&handle, &[b'a'; 11]), Ok(Sent::Wait { accepted: 10, .. })));
    peer.world.kill(&peer.table, CONSUMER);
    assert_eq!(peer.table.info(&handle), Err(Closed));
    let told = peer.world.mail.drain(..).find_map(|(to, message)| match message {
        Message::Answer { token: of, result } if to == READER => Some((of, result.map(bytes))),
        _ => None,
    });
    assert_eq!(told, Some((token, Err(End::Closed))));
}

/// A link that drains tells its peer once it is open, and says so of itself; what is open on it goes on.
#[test]
fn a_drain_is_a_frame_and_ends_nothing() {
    let mut peer = Peer::new();
    let handle = peer.start(1, REQUEST);
    assert!(!peer.table.link_info(&peer.link).draining);
    assert!(peer.table.link_drain(&peer.link, &mut peer.world));
    assert_eq!(peer.output(), ["drain"]);
    assert!(peer.table.link_info(&peer.link).draining);
    peer.read_request(&handle);
    assert_eq!(peer.send(&handle, b"answer"), Ok(Sent::All));
    assert_eq!(peer.output(), ["data 1 answer"]);
}

/// Before a link is open, and after its end, it is not drained.
#[test]
fn only_an_open_link_drains() {
    let (table, mut world) = (TestTable::new(), World::default());
    let link = table.link_open("test".into(), "test", Served::Http, None).expect("room");
    assert!(!table.link_drain(&link, &mut world));
    assert!(!table.link_info(&link).draining);
    let mut peer = Peer::new();
    peer.table.link_down(&peer.link);
    assert!(!peer.table.link_drain(&peer.link, &mut peer.world));
}

/// Walks all of a table in calls that find `most` at a time: the ids in the order in which they came.
fn walked(peer: &Peer, wanted: Wanted, most: usize) -> Vec<u64> {
    let (mut ids, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let mut found = Vec::new();
        cursor = peer.table.walk(at, wanted, most, &mut found);
        assert!(found.len() <= most);
        ids.extend(found.iter().map(|passed| passed.handle.id));
    }
    ids
}

/// Each connection is found once, however few are asked for at a time; those of one link alone when that is asked; and a walk goes on
/// behind any handle, also of a connection that has gone.
#[test]
fn a_walk_finds_each_connection_once() {
    let mut peer = Peer::new();
    let count = u64::from(SHARDS as u32) * 20;
    (1..=count).for_each(|id| drop(peer.input(&[open(id)])));
    let local = peer.table.open(client(), Packet::Raw, CONSUMER, 0, &mut peer.world).expect("room");
    let link = peer.link.incarnation();
    for most in [1, 7, 10_000] {
        let mut ids = walked(&peer, Wanted::Of(link), most);
        ids.sort_unstable();
        assert_eq!(ids, (1..=count).collect::<Vec<u64>>());
    }
    assert_eq!(walked(&peer, Wanted::Any, 10_000).len() as u64, count + 1);
    assert_eq!(walked(&peer, Wanted::Of(0), 10_000), [local.id]);
    assert_eq!(walked(&peer, Wanted::Messages, 10_000), []);
    let mut found = Vec::new();
    let order = walked(&peer, Wanted::Any, 10_000);
    peer.table.walk(0, Wanted::Any, 3, &mut found);
    let third = found[2].handle;
    peer.input(&[close(third.id)]);
    found.clear();
    peer.table.walk(TestTable::behind(&third), Wanted::Any, 1, &mut found);
    assert_eq!(found.iter().map(|passed| passed.handle.id).collect::<Vec<_>>(), order[3..4]);
}
