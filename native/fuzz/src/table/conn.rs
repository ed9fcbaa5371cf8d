//! The model of one connection.

use std::collections::VecDeque;
use std::ops::Range;

use megaphone_core::limits::{SMALL_BODY, TableLimits, WINDOW};
use megaphone_core::table::{Active, Data, Handle, Packet, Stats, Table};

use super::bytes;

/// A waiting reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    pub(super) pid: u32,
    pub(super) token: Option<u64>,
    pub(super) length: usize,
}

/// A blocked sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) pid: u32,
    pub(super) token: u64,
    /// It was told of room, and nobody sends before it.
    pub(super) told: bool,
}

/// What a connection has besides when it belongs to a link.
#[derive(Debug)]
pub(super) struct Remote {
    /// Places in the stream of the request that was sent, or is being sent, and is not answered: its start, the end of
    /// its head, its end.
    pub(super) request: Option<(Range<usize>, usize)>,
    /// Its consumer was asked for.
    pub(super) requested: bool,
    /// A consumer has been started and has not done its work.
    pub(super) started: bool,
    pub(super) answered: bool,
    pub(super) tunnel: bool,
    /// The peer was told that it is a tunnel.
    pub(super) tunnel_ready: bool,
    /// Bytes that the peer may still send, and that we may.
    pub(super) allowed: u64,
    pub(super) credit: u64,
    pub(super) we_closed: bool,
    pub(super) they_closed: bool,
    /// The peer broke a rule.
    pub(super) faulty: bool,
    /// The request was taken whole, and its process has not said that it is done.
    pub(super) polled: bool,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) handle: Option<Handle>,
    /// The process that asks for its data in the original's way.
    pub(super) asker: u32,
    pub(super) owner: Option<u32>,
    /// All input, of which `sent` bytes are with the table, which has handed out (or dropped) `pos`.
    pub(super) stream: Vec<u8>,
    pub(super) sent: usize,
    pub(super) pos: usize,
    pub(super) readers: VecDeque<Reader>,
    /// The longest read that ever waited: so much more than the window may be here.
    wanted: usize,
    pub(super) senders: VecDeque<Sender>,
    pub(super) active: Active,
    pub(super) packet: Packet,
    /// Bytes of output that the table accepted, and that were taken. Byte n is n.
    pub(super) accepted: usize,
    pub(super) taken: usize,
    /// The opener of a connection without a link was not told since it found nothing.
    pub(super) sleeps: bool,
    pub(super) input_closed: bool,
    pub(super) output_closed: bool,
    /// Nothing comes or goes any more, but what is queued.
    pub(super) over: bool,
    /// Nothing answers to the handle any more.
    pub(super) released: bool,
    /// What comes from the peer is dropped.
    pub(super) closing: bool,
    /// A request was cut by a shutdown for reading: nobody knows where it stands.
    pub(super) deaf: bool,
    pub(super) remote: Option<Remote>,
}

impl Conn {
    pub(super) fn new(asker: u32, owner: Option<u32>) -> Self {
        Self {
            handle: None,
            asker,
            owner,
            stream: Vec::new(),
            sent: 0,
            pos: 0,
            readers: VecDeque::new(),
            wanted: 0,
            senders: VecDeque::new(),
            active: Active::Passive,
            packet: Packet::Raw,
            accepted: 0,
            taken: 0,
            sleeps: true,
            input_closed: false,
            output_closed: false,
            over: false,
            released: false,
            closing: false,
            deaf: false,
            remote: None,
        }
    }

    /// What there is to know, for one who reads a script that failed.
    pub(super) fn summary(&self) -> String {
        let (id, input) = (self.handle.map(|handle| handle.id), (self.pos, self.sent, self.stream.len()));
        let flags = (self.input_closed, self.output_closed, self.over, self.released, self.closing);
        format!(
            "{id:?}: owner {:?}, input {input:?}, output {:?}, closed {flags:?}, {:?}, {:?}, {:?}",
            self.owner,
            (self.taken, self.accepted),
            self.readers,
            self.senders,
            self.remote
        )
    }

    pub(super) fn unread(&self) -> usize {
        self.sent.saturating_sub(self.pos)
    }

    pub(super) fn untaken(&self) -> usize {
        self.accepted - self.taken
    }

    /// Whether the table frames requests on it.
    fn is_http(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| !remote.tunnel)
    }

    /// The consumer of a request may make it a tunnel.
    pub(super) fn may_be_active(&self) -> bool {
        self.remote.as_ref().is_none_or(|remote| remote.tunnel || remote.started)
    }

    /// Whether the request that was sent is there as far as a consumer needs it, and none was started.
    pub(super) fn wants_consumer(&self) -> bool {
        let Some(remote) = &self.remote else { return false };
        let Some((request, head)) = &remote.request else { return false };
        let streamed = (request.end - head) as u64 > SMALL_BODY;
        let needed = if streamed { *head } else { request.end };
        let open = !self.closing && !self.input_closed && !self.released && !self.over;
        open && !remote.tunnel && !remote.requested && self.sent >= needed
    }

    pub(super) fn wait(&mut self, reader: Reader) {
        assert!(!self.input_closed, "waits on a closed connection");
        self.wanted = self.wanted.max(reader.length);
        self.readers.push_back(reader);
    }

    /// Input was handed to somebody who wanted `length` bytes.
    pub(super) fn got(&mut self, data: Data<Vec<u8>>, length: usize) {
        let data = bytes(data);
        assert!(
            !data.is_empty() && (length == 0 || data.len() == length),
            "{} bytes for {length}",
            data.len()
        );
        assert!(data.len() <= self.unread(), "more than there is");
        assert_eq!(data, self.stream[self.pos..self.pos + data.len()], "out of order");
        self.pos += data.len();
    }

    /// A reader that wanted `length` bytes was told that there are none.
    pub(super) fn end_of_input(&mut self, length: usize, gone: bool) {
        if gone || self.released {
            return;
        }
        if self.packet != Packet::Raw && length > 0 {
            return;
        }
        if self.is_http() && !self.deaf {
            // Whoever has read a request, or answered it, is told so when there is no next one, and has done its work.
            let pos = self.pos;
            let Some(remote) = &mut self.remote else { return };
            let (request, _) = remote.request.clone().unwrap_or((pos..pos, pos));
            if !remote.started || pos >= request.end || (remote.answered && length == 0) {
                if remote.started {
                    self.pos = pos.max(request.end);
                }
                remote.started = false;
                remote.polled = false;
                self.owner = None;
                return;
            }
            if length > request.end - pos {
                return; // more than there can be
            }
        }
        assert!(self.input_closed, "told of an end on an open connection");
        let short = self.unread() == 0 || self.unread() < length || self.packet != Packet::Raw;
        assert!(short || self.deaf, "{} bytes are left", self.unread());
    }

    pub(super) fn invalid(&self, length: usize) {
        let left = self
            .remote
            .as_ref()
            .and_then(|remote| remote.request.as_ref())
            .map(|(request, _)| request.end.saturating_sub(self.pos));
        let beyond = self.deaf || self.is_http() && left.is_none_or(|left| length > left);
        assert!(self.active != Active::Passive || (self.packet != Packet::Raw && length > 0) || beyond);
    }

    pub(super) fn active_data(&mut self, to: u32, data: Data<Vec<u8>>) {
        assert_eq!(self.owner, Some(to));
        self.got(data, 0);
        self.active = match self.active {
            Active::Always => Active::Always,
            Active::Once => Active::Passive,
            Active::Count(left @ 1..) => Active::Count(left - 1),
            other => panic!("data for an owner that is {other:?}"),
        };
    }

    pub(super) fn passive(&mut self, to: u32) {
        assert_eq!(self.owner, Some(to));
        assert!(matches!(self.active, Active::Count(..=0)), "{:?}", self.active);
        self.active = Active::Passive;
    }

    pub(super) fn active_closed(&mut self, to: u32) {
        assert_eq!(self.owner, Some(to));
        assert!(self.input_closed && self.active != Active::Passive);
        self.active = Active::Passive;
    }

    pub(super) fn told_of_output(&mut self, to: u32) {
        assert_eq!(self.owner, Some(to));
        assert!(self.sleeps, "told twice");
        self.sleeps = false;
    }

    /// Closed by a process of this end.
    pub(super) fn close(&mut self) {
        self.end();
        self.released |= self.remote.is_some();
    }

    /// Who has to be ended when the client goes now.
    pub(super) fn abandons(&self) -> Option<u32> {
        let polled = self.remote.as_ref().is_some_and(|remote| remote.polled && !remote.they_closed);
        self.owner.filter(|_| polled && !self.released)
    }

    /// Nothing more comes or goes.
    pub(super) fn end(&mut self) {
        (self.input_closed, self.output_closed) = (true, true);
        (self.over, self.closing) = (true, true);
        self.forget_told();
    }

    /// Who was told of room is not told of the end.
    pub(super) fn forget_told(&mut self) {
        self.senders.retain(|sender| !sender.told);
    }

    pub(super) fn shutdown(&mut self, read: bool, write: bool) {
        if read {
            self.input_closed = true;
            self.deaf |= self.is_http();
            self.pos = self.pos.max(self.sent);
        }
        if write {
            self.output_closed = true;
            self.closing |= self.remote.is_some();
            self.forget_told();
        }
    }

    pub(super) fn process_ended(&mut self, pid: u32) {
        self.readers.retain(|reader| reader.pid != pid);
        self.senders.retain(|sender| sender.pid != pid);
        if self.owner == Some(pid) {
            self.end();
            self.owner = None;
            self.released = true;
        }
    }

    /// Compares with what the table says, and adds up.
    pub(super) fn check(&mut self, table: &Table<u32, Vec<u8>>, limits: &TableLimits, sum: &mut Stats) {
        if self.output_closed {
            self.forget_told();
        }
        let waits = (self.readers.len(), self.senders.len());
        sum.waiters += waits.0 + waits.1;
        let on_wire = self.remote.as_ref().is_some_and(|remote| !remote.they_closed);
        let info = self.handle.map(|handle| table.info(&handle));
        let Some(Ok(info)) = info else {
            assert_eq!(waits, (0, 0), "waits on a connection that is gone");
            if info.is_some() {
                assert!(self.over, "gone without an end");
                let kept = self.owner.is_some() && !self.released;
                assert!(!kept || self.unread() == 0, "{} bytes were never read", self.unread());
                assert!(!kept || self.remote.is_some() || self.untaken() == 0, "output was never taken");
            } else if on_wire {
                // A connection that broke the protocol has lost its input at once.
                sum.input_bytes += if self.released { 0 } else { self.unread() };
            }
            sum.connections += usize::from(on_wire);
            let closing = self.remote.as_ref().is_some_and(|remote| !remote.we_closed && !remote.they_closed);
            sum.output_bytes += if closing { self.untaken() } else { 0 };
            return;
        };
        assert!(!self.released, "answers after its end");
        sum.connections += 1;
        sum.local += usize::from(self.remote.is_none());
        sum.input_bytes += info.input;
        sum.output_bytes += info.output;
        assert_eq!((info.readers, info.senders), waits);
        assert_eq!(info.input, self.unread());
        assert_eq!((info.active, info.packet), (self.active, self.packet));
        assert!(info.input <= limits.local_queue.max(WINDOW as usize) + self.wanted);
        assert!(info.output <= limits.output_queue);
        if self.deaf {
            self.owner = info.owner;
        }
        if !(self.deaf || self.over && self.remote.is_some()) {
            assert_eq!((info.output, info.owner), (self.untaken(), self.owner));
        }
        self.nobody_waits_in_vain(limits);
    }

    fn nobody_waits_in_vain(&self, limits: &TableLimits) {
        assert!(self.readers.is_empty() || !self.input_closed, "readers wait after the end");
        assert!(self.senders.is_empty() || !self.output_closed, "senders wait after the end");
        if self.packet == Packet::Raw {
            if let Some(first) = self.readers.front() {
                assert!(
                    self.unread() == 0 || first.length > self.unread(),
                    "{first:?} waits for what is there"
                );
            }
            assert!(
                self.active == Active::Passive || self.owner.is_none() || self.unread() == 0,
                "the owner waits"
            );
        }
        if let Some(first) = self.senders.front() {
            assert!(
                first.told || self.untaken() > limits.output_queue / 2,
                "{first:?} waits for room that is there"
            );
        }
        let told = self.remote.is_some() || self.owner.is_none() || !self.sleeps;
        assert!(told || self.untaken() == 0, "nobody is told of output");
    }
}
