//! Requests that are taken whole by a process that ends with its client.

use super::link::{CONSUMER, Peer, REQUEST, close, data, encoded, open};
use super::*;
use crate::limits::SMALL_BODY;
use crate::link::{CloseReason, Frame, ReadyMode};
use crate::packet::Fields;

const TARGETS: [&[u8]; 2] = [b"/bosh", b"/bosh/"];
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

impl Peer {
    /// A request on a connection of its own: its consumer has to be started.
    fn request(&mut self, id: u64, request: &[u8]) -> Handle {
        let starts = self.input(&[open(id), data(id, request)]);
        let [handle] = starts[..] else { panic!("{starts:?}") };
        handle
    }

    fn take(&mut self, handle: &Handle) -> Result<Option<Vec<u8>>, Closed> {
        let taken =
            self.table.take_request(handle, &mut Fields::new(), usize::MAX, CONSUMER, 0, &mut self.world)?;
        Ok(taken.map(|(bytes, _)| bytes))
    }

    fn end(&mut self, handle: &Handle) -> Result<bool, Closed> {
        self.table.end_request(handle, &mut self.world)
    }
}

/// A poll is taken, answered and ended; while it is held its connection has nothing but its slot.
#[test]
fn a_poll_is_taken_held_answered_and_ended() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    assert!(peer.table.is_poll(&handle, &TARGETS, false));
    assert_eq!(peer.take(&handle), Ok(Some(REQUEST.to_vec())));
    assert_eq!(peer.table.stats().busy, 0);
    assert_eq!(peer.table.info(&handle).expect("open").owner, Some(CONSUMER));
    assert_eq!(peer.send(&handle, ANSWER), Ok(Sent::All));
    assert_eq!(peer.output(), ["data 1 38"]);
    assert_eq!(peer.end(&handle), Ok(false));
    assert_eq!(peer.output(), ["ready 1 Request"]);
    assert_eq!(peer.table.info(&handle).expect("open").owner, None);
    assert_eq!(peer.end(&handle), Err(Closed), "nothing is taken now");
    let starts = peer.input(&[data(1, REQUEST)]);
    assert_eq!(starts, [handle], "the next request starts a consumer");
    assert_eq!(peer.table.abandoned(), 0);
}

/// A client that closes right behind its request has said what it has said: the request is served, and then it is gone.
#[test]
fn a_request_with_the_end_right_behind_it_is_served() {
    let mut peer = Peer::new();
    let frames = [open(1), open(2), data(2, b"GET"), data(1, REQUEST), close(2), close(1), open(1)];
    let (starts, end) = peer.feed(&encoded(&frames));
    let [handle] = starts[..] else { panic!("{starts:?}") };
    assert_eq!((handle.id, end), (1, InputEnd::More));
    assert_eq!(peer.take(&handle), Ok(Some(REQUEST.to_vec())));
    assert_eq!(peer.world.abandoned, []);
    assert_eq!(peer.feed(&encoded(&[data(1, REQUEST)])).1, InputEnd::Done);
    assert_eq!(peer.world.abandoned, [CONSUMER]);
    assert_eq!(peer.send(&handle, ANSWER), Err(Closed));
    assert_eq!(peer.output(), ["close 2 Normal", "close 1 Normal"]);
    assert_eq!(peer.table.stats().connections, 1, "the next of that number");
}

/// Only a POST with a body, for one of the paths, that is there to its last byte is a poll.
#[test]
fn other_requests_are_no_polls() {
    let large = SMALL_BODY + 1;
    let cases = [
        (true, "POST /bosh?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned()),
        (true, "POST /bosh/ HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned()),
        (false, "POST /boshy HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned()),
        (false, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned()),
        (false, "PUT /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned()),
        (false, "GET /bosh HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (false, "POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned()),
        (false, format!("POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: {large}\r\n\r\nb")),
    ];
    for (expected, request) in &cases {
        let mut peer = Peer::new();
        let handle = peer.request(1, request.as_bytes());
        assert_eq!(peer.table.is_poll(&handle, &TARGETS, false), *expected, "{request}");
        assert!(!peer.table.is_poll(&handle, &[], true), "without a target there are none");
    }
}

/// Where they are asked for, requests without a body are polls, too: whoever answers polls then refuses them.
#[test]
fn requests_without_a_body_are_polls_when_they_are_asked_for() {
    let cases = [
        (true, "POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        (true, "POST /bosh HTTP/1.1\r\nHost: a\r\n\r\n"),
        (true, "PUT /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        (false, "PUT /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb"),
        (false, "GET /bosh HTTP/1.1\r\nHost: a\r\n\r\n"),
        (false, "POST /boshy HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (expected, request) in cases {
        let mut peer = Peer::new();
        let handle = peer.request(1, request.as_bytes());
        assert_eq!(peer.table.is_poll(&handle, &TARGETS, true), expected, "{request}");
    }
}

/// A request that is longer than the caller has time for is left.
#[test]
fn a_request_is_taken_up_to_its_limit() {
    for (most, taken) in [(REQUEST.len() - 1, false), (REQUEST.len(), true), (REQUEST.len() + 1, true)] {
        let mut peer = Peer::new();
        let handle = peer.request(1, REQUEST);
        let given = peer.table.take_request(&handle, &mut Fields::new(), most, CONSUMER, 0, &mut peer.world);
        assert_eq!(given.expect("open").is_some(), taken);
    }
}

/// Who has taken a poll is told when its client's next request waits, and nobody else is.
#[test]
fn the_owner_of_a_poll_is_told_of_the_next_request() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    let ready = Frame::Ready { id: 1, mode: ReadyMode::Request };
    peer.input(&[ready]);
    peer.input(&[Frame::Ready { id: 2, mode: ReadyMode::Request }]);
    assert_eq!(peer.world.hurried, [], "nothing is taken");
    // It was taken after the word came: who is named as its owner is told.
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(peer.table.set_owner(&handle, 78, 0, &mut peer.world), Ok(()));
    assert_eq!(std::mem::take(&mut peer.world.hurried), [(78, handle)]);
    assert_eq!(peer.end(&handle), Ok(false));
    peer.input(&[data(1, REQUEST)]);
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(peer.table.set_owner(&handle, 78, 0, &mut peer.world), Ok(()));
    assert_eq!(peer.world.hurried, [], "the word was about another one");
    peer.input(&[ready]);
    assert_eq!(peer.world.hurried, [(78, handle)]);
}

/// One call answers a poll and ends it; what is said of the next request is true.
#[test]
fn an_answer_ends_its_poll() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    let give = |peer: &mut Peer, last| peer.table.answer(&handle, &[ANSWER, b"!"], last, 0, &mut peer.world);
    assert_eq!(give(&mut peer, false), Err(Closed), "nothing is taken");
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(give(&mut peer, false), Ok(false));
    assert_eq!(peer.output(), ["data 1 39", "ready 1 Request"]);
    assert_eq!(give(&mut peer, false), Err(Closed), "it is answered");
    peer.input(&[data(1, &[REQUEST, REQUEST].concat())]);
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(give(&mut peer, false), Ok(true), "the next one waits");
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(give(&mut peer, true), Ok(false));
    assert!(peer.output().iter().any(|frame| frame.starts_with("close 1")), "it was the last");
    assert_eq!(peer.table.abandoned(), 0);
}

/// What is not all there, or was begun by a reader, is not taken, and is still read step by step.
#[test]
fn what_is_not_whole_is_left_to_readers() {
    let mut peer = Peer::new();
    let head = format!("POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", SMALL_BODY + 1);
    let handle = peer.request(1, head.as_bytes());
    assert_eq!(peer.take(&handle), Ok(None));
    assert_eq!(peer.recv(&handle, 0), Ok(Ok(head.into_bytes())));
    let handle = peer.request(2, REQUEST);
    assert_eq!(peer.recv(&handle, 4), Ok(Ok(b"POST".to_vec())));
    assert_eq!(peer.take(&handle), Ok(None));
    assert!(!peer.table.is_poll(&handle, &TARGETS, false));
}

/// The client of a held poll goes: the process is ended, which is counted, and nothing is left.
#[test]
fn a_poll_whose_client_goes_is_abandoned() {
    let mut peer = Peer::new();
    // Not one that was answered.
    let handle = peer.request(2, REQUEST);
    assert!(peer.take(&handle).is_ok());
    assert_eq!(peer.end(&handle), Ok(false));
    assert_eq!(peer.input(&[close(2)]), []);
    assert_eq!(peer.table.abandoned(), 0);
    let handle = peer.request(1, REQUEST);
    assert!(peer.take(&handle).is_ok());
    assert_eq!(peer.input(&[close(1)]), []);
    assert_eq!((peer.world.abandoned.as_slice(), peer.table.abandoned()), (&[CONSUMER][..], 1));
    assert_eq!(peer.send(&handle, ANSWER), Err(Closed));
    assert_eq!(peer.end(&handle), Err(Closed));
    peer.world.kill(&peer.table, CONSUMER);
    assert_empty(&peer.table);
}

/// A poll whose process is taken before its client goes finds that out when it takes the request.
#[test]
fn a_client_that_goes_first_leaves_nothing_to_take() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    assert_eq!(peer.input(&[close(1)]), []);
    assert_eq!(peer.take(&handle), Err(Closed));
    assert_empty(&peer.table);
}

/// A request that waits behind a poll asks for a consumer of its own; the process of the poll has nothing to do with it.
#[test]
fn the_next_request_gets_another_consumer() {
    let mut peer = Peer::new();
    let handle = peer.request(1, &[REQUEST, REQUEST].concat());
    assert!(peer.table.is_poll(&handle, &TARGETS, false));
    assert_eq!(peer.take(&handle), Ok(Some(REQUEST.to_vec())));
    assert_eq!(peer.send(&handle, ANSWER), Ok(Sent::All));
    assert_eq!(peer.end(&handle), Ok(true));
    peer.world.kill(&peer.table, CONSUMER);
    assert!(peer.table.is_poll(&handle, &TARGETS, false));
    assert_eq!(peer.take(&handle), Ok(Some(REQUEST.to_vec())));
}

/// The process of a poll dies: its connection closes.
#[test]
fn a_poll_that_dies_closes_its_connection() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    assert!(peer.take(&handle).is_ok());
    peer.world.kill(&peer.table, CONSUMER);
    assert_eq!(peer.output(), ["close 1 Normal"]);
    assert_eq!(peer.table.info(&handle), Err(Closed));
    assert_eq!(peer.world.abandoned, []);
}

/// Of an answer that did not reach its client the one who gave it is told, unless something of another request has come since.
#[test]
fn who_has_answered_is_told_if_the_answer_is_lost() {
    let cases = [
        (CloseReason::Unanswered, &b""[..], true),
        (CloseReason::Unanswered, &b"P"[..], false),
        (CloseReason::PeerGone, &b""[..], false),
        (CloseReason::Normal, &b""[..], false),
    ];
    for (reason, more, is_told) in cases {
        for is_written in [false, true] {
            let mut peer = Peer::new();
            let handle = peer.request(1, REQUEST);
            assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
            assert_eq!(peer.table.set_owner(&handle, SESSION, 0, &mut peer.world), Ok(()));
            assert_eq!(peer.table.answer(&handle, &[ANSWER], false, 0, &mut peer.world), Ok(false));
            if is_written {
                assert_eq!(peer.output(), ["data 1 38", "ready 1 Request"]);
            }
            if !more.is_empty() {
                peer.input(&[data(1, more)]);
            }
            peer.input(&[Frame::Close { id: 1, reason }]);
            let told = if is_told { vec![(SESSION, handle)] } else { vec![] };
            assert_eq!((&peer.world.lost, &peer.world.abandoned), (&told, &vec![]), "{reason:?} {more:?}");
            assert_eq!(peer.table.stats().connections, 0, "nothing is left of it");
        }
    }
}

/// Who has answered has nothing to do with the connection's next request.
#[test]
fn a_session_that_has_answered_does_not_own_the_next_request() {
    let mut peer = Peer::new();
    let handle = peer.request(1, REQUEST);
    assert!(peer.take(&handle).is_ok_and(|taken| taken.is_some()));
    assert_eq!(peer.table.set_owner(&handle, SESSION, 0, &mut peer.world), Ok(()));
    assert_eq!(peer.table.answer(&handle, &[ANSWER], false, 0, &mut peer.world), Ok(false));
    assert_eq!(peer.input(&[data(1, REQUEST)]), [handle], "a consumer is started");
    peer.input(&[Frame::Close { id: 1, reason: CloseReason::Unanswered }]);
    assert_eq!((&peer.world.lost, &peer.world.abandoned), (&vec![], &vec![]));
}
