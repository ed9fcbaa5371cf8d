//! Operations of a link, and what its other end sees.

use std::sync::Arc;

use megaphone_core::limits::{MIN_WINDOW, WINDOW};
use megaphone_core::link::{CloseReason, Decoder, ErrorCode, Frame, Hello, Kind, Open, ReadyMode, Role};
use megaphone_core::packet::Fields;
use megaphone_core::table::{Action, Closed, Handle, InputEnd, Link, Served};

use super::conn::{Conn, Remote};
use super::{MOST, Scene, client};
use crate::Script;

/// The process that sends a link's output.
const SENDER: u32 = 2_000_000;

/// Ids that are used on a link: more than may be open.
const IDS: usize = 3;

/// A link and its other end.
pub(super) struct Peer {
    link: Arc<Link<u32>>,
    /// The peer's window.
    window: u32,
    decoder: Decoder,
    /// The connection that last had each id.
    ids: [Option<usize>; IDS],
    /// The sender has found nothing, and was not told since.
    sleeps: bool,
    greeted: bool,
    pongs: usize,
    /// An open was refused: the next frame closes that id.
    refused: Option<u64>,
}

impl Peer {
    pub(super) fn told_of_output(&mut self, to: u32) {
        assert_eq!(to, SENDER);
        assert!(self.sleeps, "told twice");
        self.sleeps = false;
    }
}

impl Scene {
    pub(super) fn link(&mut self, script: &mut Script<'_>) {
        if self.peer.is_none() {
            return self.open_link(script);
        }
        let place = script.below(IDS);
        match script.byte() % 32 {
            0..=3 => self.open_frame(place),
            4..=9 => self.request(place, script),
            10..=19 => self.data(place, script),
            20..=22 => self.window(place, script),
            23 | 24 => self.close_frame(place),
            25 => {
                self.feed(&[Frame::Ping([7; 8]), Frame::Pong([0; 8]), Frame::Drain], script);
                self.peer().pongs += 1;
            }
            26 => self.fault(place, script),
            27 => {
                // For an id that nobody has, and from an end that must not.
                self.feed(&[Frame::Close { id: 9, reason: CloseReason::Normal }], script);
                self.feed(&[Frame::Window { id: 9, increment: 1 }], script);
            }
            28 => self.breach(script),
            29 => self.end_link(),
            _ => self.drain_link(),
        }
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("a link")
    }

    fn open_link(&mut self, script: &mut Script<'_>) {
        let window = if script.byte() % 2 == 0 { MIN_WINDOW } else { WINDOW };
        let link = self.table.link_open("test".into(), "test", Served::Http, None).expect("the only one");
        assert!(self.table.link_open("test".into(), "test", Served::Http, None).is_err());
        self.peer = Some(Peer {
            link,
            window,
            decoder: Decoder::new(),
            ids: [None; IDS],
            sleeps: false,
            greeted: false,
            pongs: 0,
            refused: None,
        });
        let hello = Hello { role: Role::Ecm, features: Hello::CREDIT, window, name: "fuzz" };
        self.feed(&[Frame::Hello(hello)], script);
    }

    /// Feeds frames, which are fine, in two pieces.
    fn feed(&mut self, frames: &[Frame<'_>], script: &mut Script<'_>) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let (first, second) = bytes.split_at(script.below(bytes.len().min(200)));
        for piece in [first, second] {
            let (starts, end) = self.feed_bytes(piece);
            assert_eq!(end, InputEnd::Done);
            starts.iter().for_each(|handle| self.started(handle, script));
        }
        let forgotten = self.conns.iter().position(Conn::wants_consumer);
        assert_eq!(forgotten, None, "no consumer is started");
    }

    fn feed_bytes(&mut self, bytes: &[u8]) -> (Vec<Handle>, InputEnd) {
        let (link, mut actions) = (Arc::clone(&self.peer().link), Vec::new());
        let end = self.table.link_input(&link, bytes, 0, &mut actions, &mut self.world);
        let starts = actions.into_iter().filter_map(|action| match action {
            Action::Start(handle) => Some(handle),
            _ => None,
        });
        (starts.collect(), end)
    }

    fn started(&mut self, handle: &Handle, script: &mut Script<'_>) {
        let at = self.peer().ids[handle.id as usize - 1].expect("a connection with this id");
        let (pid, whole) = (self.pid(script), script.byte() % 4 == 0);
        let conn = &mut self.conns[at];
        assert!(conn.wants_consumer() && conn.owner.is_none(), "a consumer too many");
        assert_eq!(*conn.handle.get_or_insert(*handle), *handle);
        let Some(remote) = &mut conn.remote else { return };
        (remote.requested, remote.started, remote.answered) = (true, true, false);
        if whole && self.take(at, handle, pid) {
            return;
        }
        if script.byte() % 8 > 0 {
            assert!(self.table.set_owner(handle, pid, 0, &mut self.world).is_ok());
            self.conns[at].owner = Some(pid);
        }
    }

    /// Takes the request whole, if it is all there.
    fn take(&mut self, at: usize, handle: &Handle, pid: u32) -> bool {
        let taken =
            self.table.take_request(handle, &mut Fields::new(), usize::MAX, pid, 0, &mut self.world).expect("open");
        let conn = &mut self.conns[at];
        let Some(remote) = &mut conn.remote else { return false };
        let (request, _) = remote.request.clone().expect("there is one");
        assert_eq!(taken.is_some(), conn.sent >= request.end);
        let Some((bytes, _)) = taken else { return false };
        assert!(bytes == conn.stream[request.clone()], "another request");
        conn.pos = request.end;
        remote.polled = true;
        conn.owner = Some(pid);
        true
    }

    /// The process of a poll says that it is done.
    pub(super) fn end_poll(&mut self, script: &mut Script<'_>) {
        let Some((at, handle)) = self.any(script) else { return };
        let gone = self.is_gone(at);
        let ended = self.table.end_request(&handle, &mut self.world);
        let conn = &mut self.conns[at];
        let polled = conn.remote.as_ref().is_some_and(|remote| remote.polled);
        // A reader may have ended it, where nobody knows how far requests have come.
        let polled = polled && (!conn.deaf || ended.is_ok());
        assert_eq!(ended, if polled && !gone { Ok(false) } else { Err(Closed) });
        if let (Ok(_), Some(remote)) = (ended, &mut conn.remote) {
            (remote.polled, remote.started) = (false, false);
            conn.owner = None;
        }
    }

    /// The connection that has an id on the wire.
    fn on_wire(&mut self, place: usize) -> Option<usize> {
        let at = self.peer().ids[place]?;
        self.conns[at].remote.as_ref().is_some_and(|remote| !remote.they_closed).then_some(at)
    }

    fn open_frame(&mut self, place: usize) {
        let last = self.peer.as_ref().and_then(|peer| self.conns[peer.ids[place]?].remote.as_ref());
        // An id may be used again when both ends have closed.
        if self.conns.len() >= MOST || last.is_some_and(|remote| remote.they_closed && !remote.we_closed) {
            return;
        }
        let id = place as u64 + 1;
        let open = Open { kind: Kind::Http, tls: false, client: client(), local: client() };
        let mut bytes = Vec::new();
        Frame::Open { id, open }.encode(&mut bytes);
        let taken = self.on_wire(place).is_some();
        let count = (0..IDS).filter(|place| self.on_wire(*place).is_some()).count();
        let (starts, end) = self.feed_bytes(&bytes);
        assert!(starts.is_empty());
        if taken {
            assert!(matches!(end, InputEnd::Stop(_)), "{end:?}");
            return self.end_link();
        }
        assert_eq!(end, InputEnd::Done);
        if count >= self.limits.link_connections {
            return; // refused: seen in the output
        }
        let mut conn = Conn::new(self.next_asker(), None);
        conn.remote = Some(Remote {
            request: None,
            requested: false,
            started: false,
            answered: false,
            tunnel: false,
            tunnel_ready: false,
            allowed: WINDOW.into(),
            credit: self.peer().window.into(),
            we_closed: false,
            they_closed: false,
            faulty: false,
            polled: false,
        });
        self.peer().ids[place] = Some(self.conns.len());
        self.conns.push(conn);
    }

    /// The client has another request, or more to say in its tunnel.
    fn request(&mut self, place: usize, script: &mut Script<'_>) {
        let Some(at) = self.on_wire(place) else { return };
        let body = script.size(&[16_384, 65_536, 100_000, 200_000]);
        let conn = &mut self.conns[at];
        let Some(remote) = &mut conn.remote else { return };
        let start = conn.stream.len();
        if remote.tunnel_ready {
            conn.stream.extend((0..body).map(|n| (start + n) as u8));
        } else if remote.request.is_none() {
            let head = format!("POST /{start} HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
            conn.stream.extend_from_slice(head.as_bytes());
            conn.stream.extend((0..body).map(|n| (start + n) as u8));
            remote.request = Some((start..conn.stream.len(), start + head.len()));
            remote.requested = false;
        }
        self.data(place, script);
    }

    /// Sends some of what there is to send.
    fn data(&mut self, place: usize, script: &mut Script<'_>) {
        let Some(at) = self.on_wire(place) else { return };
        let most = script.size(&[16_384, 65_536]).min(65_536);
        let most = if most == 0 { 65_536 } else { most };
        let conn = &mut self.conns[at];
        let Some(remote) = &mut conn.remote else { return };
        let count = most.min(conn.stream.len() - conn.sent).min(remote.allowed as usize);
        if count == 0 {
            return;
        }
        remote.allowed -= count as u64;
        let payload = conn.stream[conn.sent..conn.sent + count].to_vec();
        let dropped = conn.closing || conn.input_closed;
        if dropped {
            // Nobody will ever see it. What is there of the request may still be read.
            conn.stream.truncate(conn.sent);
        } else {
            conn.sent += count;
        }
        self.feed(&[Frame::Data { id: place as u64 + 1, payload: &payload }], script);
    }

    fn window(&mut self, place: usize, script: &mut Script<'_>) {
        let Some(at) = self.on_wire(place) else { return };
        let increment = script.size(&[65_536, 131_072]) as u32;
        self.feed(&[Frame::Window { id: place as u64 + 1, increment }], script);
        if let Some(remote) = &mut self.conns[at].remote {
            remote.credit += u64::from(increment);
        }
    }

    fn close_frame(&mut self, place: usize) {
        let Some(at) = self.on_wire(place) else { return };
        let abandoned = self.conns[at].abandons();
        self.conns[at].end();
        if let Some(remote) = &mut self.conns[at].remote {
            remote.they_closed = true;
        }
        let mut bytes = Vec::new();
        Frame::Close { id: place as u64 + 1, reason: CloseReason::PeerGone }.encode(&mut bytes);
        let (starts, end) = self.feed_bytes(&bytes);
        assert!(starts.is_empty() && end == InputEnd::Done);
        assert_eq!(std::mem::take(&mut self.world.abandoned), Vec::from_iter(abandoned));
    }

    /// The peer sends more than it may, or what is no request: that connection is closed, and no other.
    fn fault(&mut self, place: usize, script: &mut Script<'_>) {
        self.drain_link(); // or credit may be on its way
        let Some(at) = self.on_wire(place) else { return };
        let conn = &mut self.conns[at];
        let unread = conn.unread();
        let Some(remote) = &mut conn.remote else { return };
        let fresh = remote.request.is_none() && !remote.tunnel && unread == 0;
        let count = if fresh { 1 } else { remote.allowed as usize + 1 };
        if count > 65_536 || conn.closing || conn.input_closed || (fresh && remote.allowed == 0) {
            return;
        }
        remote.faulty = true;
        remote.request = None;
        conn.close();
        self.feed(&[Frame::Data { id: place as u64 + 1, payload: &vec![0; count] }], script);
    }

    /// The peer breaks the protocol: the link ends.
    fn breach(&mut self, script: &mut Script<'_>) {
        let mut bytes = Vec::new();
        match script.byte() % 5 {
            0 => bytes.extend_from_slice(&[0; 4]),
            1 => Frame::Ready { id: 1, mode: ReadyMode::Tunnel }.encode(&mut bytes),
            2 => Frame::Error { id: 0, code: ErrorCode::Other, text: "\n" }.encode(&mut bytes),
            3 => Frame::Hello(Hello { role: Role::Ecm, features: 0, window: WINDOW, name: "" })
                .encode(&mut bytes),
            _ => Frame::Auth(b"secret").encode(&mut bytes),
        }
        let (starts, end) = self.feed_bytes(&bytes);
        assert!(starts.is_empty() && matches!(end, InputEnd::Stop(_)), "{end:?}");
        self.end_link();
    }

    /// The link's process is gone.
    pub(super) fn end_link(&mut self) {
        self.read_mail();
        let Some(peer) = self.peer.take() else { return };
        let mut abandoned = Vec::new();
        for at in peer.ids.into_iter().flatten() {
            let conn = &mut self.conns[at];
            abandoned.extend(conn.abandons());
            if let Some(remote) = &mut conn.remote
                && !remote.they_closed
            {
                remote.they_closed = true;
                conn.end();
            }
        }
        self.table.link_down(&peer.link);
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.table.link_sweep(&peer.link, at, &mut self.world);
        }
        let mut told = std::mem::take(&mut self.world.abandoned);
        told.sort_unstable();
        abandoned.sort_unstable();
        assert_eq!(told, abandoned);
    }

    /// Takes all output; then nothing may be missing.
    pub(super) fn drain_link(&mut self) {
        while self.peer.is_some() && self.link_output() {}
        let Some(peer) = &self.peer else { return };
        assert!(peer.sleeps && peer.greeted && peer.pongs == 0 && peer.refused.is_none());
        for at in peer.ids.iter().flatten() {
            self.conns[*at].is_served();
        }
    }

    /// Takes output once; false if there was none.
    pub(super) fn link_output(&mut self) -> bool {
        let Some(peer) = &mut self.peer else { return false };
        let bytes = self.table.link_output(&peer.link, SENDER, &mut self.world);
        if bytes.is_empty() {
            peer.sleeps = true;
            return false;
        }
        let mut decoder = std::mem::take(&mut peer.decoder);
        decoder.push(&bytes);
        while let Some(frame) = decoder.next().expect("our own frames are right") {
            self.see(&frame);
        }
        assert_eq!(decoder.pending(), 0);
        self.peer().decoder = decoder;
        true
    }

    fn see(&mut self, frame: &Frame<'_>) {
        let peer = self.peer();
        if let Some(id) = peer.refused.take() {
            return assert!(matches!(frame, Frame::Close { id: of, .. } if *of == id));
        }
        let (Frame::Data { id, .. }
        | Frame::Close { id, .. }
        | Frame::Window { id, .. }
        | Frame::Ready { id, .. }
        | Frame::Error { id, .. }) = *frame
        else {
            return match frame {
                Frame::Hello(hello) => {
                    assert!(!peer.greeted && hello.window == WINDOW);
                    peer.greeted = true;
                }
                Frame::Pong(_) => peer.pongs -= 1,
                other => panic!("{other:?}"),
            };
        };
        if let Frame::Error { code: ErrorCode::Limit, .. } = frame {
            peer.refused = Some(id);
            return;
        }
        let at = peer.ids[id as usize - 1].expect("an id that was opened");
        self.conns[at].see(frame);
    }
}

impl Conn {
    fn see(&mut self, frame: &Frame<'_>) {
        let Some(remote) = &mut self.remote else { return };
        if let Frame::Error { code, .. } = frame {
            return assert!(*code == ErrorCode::Protocol && remote.faulty);
        }
        assert!(!remote.we_closed, "{} after close", frame.name());
        match *frame {
            Frame::Data { payload, .. } => {
                let expected: Vec<u8> = (self.taken..self.taken + payload.len()).map(|n| n as u8).collect();
                assert_eq!(payload, expected);
                self.taken += payload.len();
                assert!(self.taken <= self.accepted);
                remote.credit = remote.credit.checked_sub(payload.len() as u64).expect("beyond credit");
            }
            Frame::Window { increment, .. } => {
                assert!(increment > 0);
                remote.allowed += u64::from(increment);
            }
            Frame::Ready { mode: ReadyMode::Request, .. } => {
                let (request, _) = remote.request.take().expect("a request");
                assert!(self.sent >= request.end && self.taken == self.accepted, "ready too soon");
            }
            Frame::Ready { mode: ReadyMode::Tunnel, .. } => {
                assert!(remote.tunnel);
                remote.tunnel_ready = true;
            }
            Frame::Close { .. } => {
                assert!(self.closing, "closed for no reason");
                assert!(self.taken == self.accepted || remote.they_closed, "closed before the output is out");
                remote.we_closed = true;
            }
            _ => panic!("{frame:?}"),
        }
    }

    /// After all output was taken: nothing hangs.
    fn is_served(&self) {
        let Some(remote) = &self.remote else { return };
        if remote.they_closed || self.closing {
            return assert!(remote.we_closed || self.untaken() > 0 && remote.credit == 0, "no close");
        }
        assert!(self.untaken() == 0 || remote.credit == 0, "output with credit is left");
        if self.input_closed {
            return; // what comes is dropped, and not asked for
        }
        assert!(remote.allowed + self.unread() as u64 > u64::from(WINDOW / 2), "the peer has no credit");
        if let Some((request, _)) = &remote.request
            && self.sent >= request.end
            && remote.requested
        {
            assert!(
                remote.started || remote.tunnel || self.untaken() > 0,
                "the next request is not asked for"
            );
        }
    }
}
