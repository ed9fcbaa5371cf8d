//! What happens in one connection: handing out input, waking waiters, closing.

use std::hash::Hash;

use super::input::Chunk;
use super::lines;
use super::shard::{Effect, Shard, Waiting};
use super::slot::{Active, Bits, Framing, Queues, Size, Slot, Waiter, Wire};
use super::{Closed, Data, End, Handle, Host, Message, Packet};
use crate::http::head::{self, Body};
use crate::limits::{
    LOCAL_QUEUE, MAX_EMPTY_LINES, MAX_HEAD, MAX_LINE, MAX_RECV, REWRITE_BYTES, SMALL_BODY, WINDOW,
};
use crate::link::{CloseReason, ReadyMode};
use crate::packet::{self, Fields, HttpPacket, Whole};

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Next<C> {
    /// This.
    Data(Data<C>),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    Closed,
    /// The request is answered and there is no next one: the reader has done its work.
    Detach,
    /// The reader asks for what cannot be.
    Invalid,
}

/// What stands at the start of the input of a connection between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing, or the start of a head, or a head whose small body is not all there.
    Partial,
    /// A request of so many bytes, which can be worked on now.
    Complete(Size),
    /// Something that is not a request. The connection manager checks before; this one did not.
    Bad(&'static str),
}

impl<P: Copy + Eq, C: Chunk> Slot<P, C> {
    pub(super) fn queues(&mut self) -> &mut Queues<P, C> {
        let (framing, packet) = (self.flags.at_rest(), self.packet);
        self.queues.get_or_insert_with(|| Box::new(Queues::new(framing, packet)))
    }

    /// The next thing for a reader that wants `length` bytes (0: all there is), or one packet.
    pub(super) fn next(&mut self, length: usize) -> Next<C> {
        let closed = self.flags.input_closed;
        let queues = self.queues();
        match queues.framing {
            Framing::Stream if queues.packet == Packet::Raw => queues.next_bytes(length, closed),
            Framing::Stream if length > 0 => Next::Invalid, // a packet has the length it has
            Framing::Stream => queues.next_packet(closed),
            Framing::Request { left, answered, .. } => self.next_of_request(length, left, answered),
            Framing::Boundary { .. } | Framing::Pending(_) => self.next_request(length),
            Framing::Skip { .. } => Next::Detach,
        }
    }

    fn next_of_request(&mut self, length: usize, left: u64, answered: bool) -> Next<C> {
        if left == 0 {
            self.finish_request();
            return self.next_request(length);
        }
        if length == 0 && answered {
            // The consumer answered without reading the body and asks for the next request: the rest is dropped.
            self.queues().framing = Framing::Skip { left };
            self.skip_rest();
            return Next::Detach;
        }
        if length as u64 > left {
            return Next::Invalid;
        }
        let closed = self.flags.input_closed;
        let queues = self.queues();
        let Framing::Request { head, .. } = queues.framing else { return Next::Detach };
        let there = (queues.input.len() as u64).min(left) as usize;
        if there == 0 || there < length {
            return if closed { Next::Closed } else { Next::Wait };
        }
        // The head comes alone. What ejabberd_http had read beyond it and then did not want (it answers some requests
        // without their bodies), it would take for the next request; what is still here is dropped then.
        let most = if head > 0 { there.min(head as usize) } else { there };
        let count = if length == 0 { most } else { length };
        let head = head.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        queues.framing = Framing::Request { head, left: left - count as u64, answered };
        Next::Data(Data::Bytes(queues.input.take(count)))
    }

    /// The answer is complete: the other end may send the next request.
    pub(super) fn finish_request(&mut self) {
        self.flags.polled = false;
        let queues = self.queues();
        queues.framing = Framing::Boundary { scanned: 0 };
        queues.ready = Some(ReadyMode::Request);
    }

    fn next_request(&mut self, length: usize) -> Next<C> {
        match self.request() {
            Request::Complete(size) if length == 0 => {
                self.queues().framing = Framing::unread(size);
                self.next_of_request(0, size.total, false)
            }
            _ => Next::Detach,
        }
    }

    /// Looks at the start of the input of a connection between two requests. A head is parsed once.
    pub(super) fn request(&mut self) -> Request {
        let queues = self.queues();
        let all = queues.input.len() as u64;
        match queues.framing {
            Framing::Pending(size) if all >= size.total => Request::Complete(size),
            Framing::Boundary { scanned } if all > 0 => self.parse_request(scanned),
            _ => Request::Partial,
        }
    }

    fn parse_request(&mut self, mut scanned: usize) -> Request {
        let queues = self.queues();
        let all = queues.input.len();
        // One byte beyond the largest head, and the empty lines before it, are enough to see that it is too large.
        let most = MAX_HEAD + REWRITE_BYTES + 2 * MAX_EMPTY_LINES + 1;
        let head = match head::parse_rewritten(queues.input.contiguous(most), &mut scanned) {
            Ok(Some(head)) => head,
            Ok(None) => {
                queues.framing = Framing::Boundary { scanned };
                return Request::Partial;
            }
            Err(_) => return Request::Bad("malformed request head"),
        };
        let body = match head.body {
            Body::None => 0,
            Body::Length(length) => length,
            Body::Chunked => return Request::Bad("chunked request"),
        };
        let Some(total) = body.checked_add(head.len as u64) else {
            return Request::Bad("request length out of range");
        };
        let size = Size { head: head.len as u32, total }; // a head is below 2^32
        if body <= SMALL_BODY && (all as u64) < total {
            queues.framing = Framing::Pending(size);
            return Request::Partial;
        }
        Request::Complete(size)
    }

    /// Drops what is there of the rest of a request that nobody reads.
    pub(super) fn skip_rest(&mut self) {
        let queues = self.queues();
        let Framing::Skip { left } = queues.framing else { return };
        let count = (queues.input.len() as u64).min(left) as usize;
        queues.input.skip(count);
        let left = left - count as u64;
        queues.framing = Framing::Skip { left };
        if left == 0 {
            self.finish_request();
        }
    }

    /// The unread bytes are below half the window: the peer gets new credit. A reader that waits for more than the
    /// window holds gets it in advance.
    pub(super) fn grant(&mut self) -> bool {
        if self.wire != Wire::Open || self.link == 0 {
            return false;
        }
        let received = self.received;
        let Some(queues) = self.queues.as_mut() else { return false };
        let there = queues.input.len();
        let greedy = if self.bits.has(Bits::MESSAGES) {
            queues.wanted() > there
        } else {
            queues.readers.front().is_some_and(|waiter| waiter.length > there)
        };
        let amount = if greedy { received } else { received.saturating_sub(there as u32) };
        if amount < WINDOW / 2 {
            return false;
        }
        queues.grant += amount;
        self.received -= amount;
        true
    }
}

impl<P: Copy + Eq, C: Chunk> Queues<P, C> {
    fn next_bytes(&mut self, length: usize, closed: bool) -> Next<C> {
        let there = self.input.len();
        if length > MAX_RECV {
            return Next::Invalid;
        }
        if there == 0 || there < length {
            return if closed { Next::Closed } else { Next::Wait };
        }
        // "All there is" ends where joining it would take a reader's scheduler too long.
        let count = if length == 0 { there.min(WINDOW as usize) } else { length };
        Next::Data(Data::Bytes(self.input.take(count)))
    }

    /// One chunk, for an active connection: what gen_tcp would have read at once.
    fn next_chunk(&mut self) -> Option<Data<C>> {
        let count = self.input.first_len();
        (count > 0).then(|| Data::Bytes(self.input.take(count)))
    }

    /// See [`Table::take_packet`](super::Table::take_packet).
    pub(super) fn take_packet(&mut self, fields: &mut Fields) -> Option<(C, Whole)> {
        let at_start = !self.in_head && self.body.is_none() && self.framing == Framing::Stream;
        if self.packet != Packet::HttpBin
            || !at_start
            || self.active != Active::Passive
            || !self.readers.is_empty()
        {
            return None;
        }
        let whole = Whole::parse(self.input.contiguous(MAX_HEAD), |field| fields.push(field))?;
        let total = whole.total_len()?;
        if whole.body_len > LOCAL_QUEUE as u64 / 2 || total > self.input.len() {
            return None;
        }
        self.scanned = 0;
        Some((self.input.take_joined(total), whole))
    }

    fn next_packet(&mut self, closed: bool) -> Next<C> {
        let more = if closed { Next::Closed } else { Next::Wait };
        if let Some(left) = self.body {
            let there = self.input.len();
            // A body is handed out whole unless it is so long that the queue might never hold it.
            let wanted = if left <= LOCAL_QUEUE as u64 / 2 { left as usize } else { 1 };
            if there < wanted {
                return more;
            }
            let count = (there as u64).min(left) as usize;
            self.body = Some(left - count as u64).filter(|left| *left > 0);
            return Next::Data(Data::Bytes(self.input.take(count)));
        }
        let field = self.in_head || matches!(self.packet, Packet::Httph | Packet::HttphBin);
        let all = self.input.len();
        // One byte beyond the longest line tells whether it goes on.
        let start = self.input.contiguous(MAX_LINE + 1);
        let start = &start[..start.len().min(MAX_LINE + 1)];
        let length = match lines::packet_len(start, field, &mut self.scanned) {
            Some(length) if length <= MAX_LINE => length,
            None if all <= MAX_LINE => return more,
            _ => return Next::Invalid,
        };
        self.scanned = 0;
        let line = &self.input.contiguous(length)[..length];
        let end = lines::is_end_of_head(line);
        if field && end {
            self.body = self.body_length.take().filter(|length| *length > 0);
        } else if field {
            self.body_length = lines::content_length(line).or(self.body_length);
        }
        // After a line that is no start line the decoder expects one again.
        self.in_head = if field {
            self.in_head && !end
        } else {
            !matches!(packet::start_line(line), HttpPacket::Error(_))
        };
        Next::Data(Data::Line { packet: self.packet, field, bytes: self.input.take(length) })
    }
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    /// Serves waiting readers, then an active owner, as far as the input goes. True: there is output to queue.
    pub(super) fn advance<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, host: &mut H) -> bool {
        let Some(handle) = self.handle(place) else { return false };
        let (slots, waiting) = (&mut self.slots, &mut self.waiting);
        let Some(slot) = slots.get_mut(place as usize) else { return false };
        let detach = serve_readers(slot, waiting, place, host);
        serve_active(slot, handle, host);
        let granted = slot.grant();
        let ready = slot.queues.as_ref().is_some_and(|queues| queues.ready.is_some());
        if detach {
            self.detach(place);
        }
        granted || ready
    }

    /// The consumer of a request has done its work; the connection goes on without a process.
    pub(super) fn detach(&mut self, place: u32) {
        self.set_owner(place, None);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.flags.started = false;
        }
    }

    /// Marks a connection as queued for its link; false when it was, or has nothing to say.
    pub(super) fn queue(&mut self, place: u32) -> bool {
        let Some(slot) = self.slots.get_mut(place as usize) else { return false };
        let closing = matches!(slot.wire, Wire::Closing(_));
        let on_wire = slot.wire == Wire::Open || closing;
        let (credit, link) = (slot.send_credit, slot.link);
        let Some(queues) = slot.queues.as_mut() else { return false };
        let output = queues.output.len();
        let something = (output > 0 && credit > 0)
            || queues.grant > 0
            || (output == 0 && (queues.ready.is_some() || closing));
        if link == 0 || !on_wire || queues.queued || !something {
            return false;
        }
        queues.queued = true;
        true
    }

    /// After an operation: what is left to do outside the lock, and what is no longer needed goes.
    pub(super) fn finish(&mut self, place: u32) -> Option<Effect> {
        let handle = self.handle(place)?;
        let ready = self.queue(place);
        self.settle(place);
        ready.then_some(Effect { handle, ready })
    }

    /// Frees a connection that nobody needs any more, and the queues of one that has nothing in them.
    pub(super) fn settle(&mut self, place: u32) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        if slot.wire == Wire::Done {
            let (unread, untaken) = slot
                .queues
                .as_ref()
                .map_or((false, false), |queues| (queues.input.len() > 0, queues.output.len() > 0));
            // What is queued can still be read by the owner, and the opener of a local connection may take its output.
            // A stream's owner learns of the end even if it looks later, or is named later. The consumer of a request
            // does not look, and one that has not begun need not begin.
            let stream = !slot.flags.http;
            let awaited =
                (slot.owner.is_some() && !slot.bits.has(Bits::ANSWERED)) || (stream && slot.flags.started);
            let untold = stream && !slot.bits.has(Bits::TOLD);
            let needed = awaited && (unread || untold || (slot.link == 0 && untaken));
            if slot.flags.released || !needed {
                self.remove(place);
            }
            return;
        }
        let at_rest = slot.flags.at_rest();
        if let Some(queues) = slot.queues.take_if(|queues| queues.is_idle(at_rest)) {
            self.spare(queues);
        }
    }

    /// This end closes: nothing more is accepted; output that was accepted still goes out, then the close frame.
    pub(super) fn close<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        reason: CloseReason,
        now: u32,
        host: &mut H,
    ) -> Option<Effect> {
        let handle = self.handle(place)?;
        let slot = self.slots.get_mut(place as usize)?;
        slot.last_activity = now;
        slot.flags.input_closed = true;
        slot.flags.output_closed = true;
        if slot.link == 0 {
            self.end_wire(place, End::Closed, host);
            return None;
        }
        slot.queues(); // the close frame is due: the connection must be able to stand in the queue
        if slot.wire == Wire::Open {
            slot.wire = Wire::Closing(reason);
        }
        self.wake_all(place, End::Closed, host);
        let ready = self.queue(place);
        Some(Effect { handle, ready })
    }

    /// Nothing goes over the wire any more: output is dropped, readers get what is queued, then the end.
    pub(super) fn end_wire<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, end: End, host: &mut H) {
        let Some(handle) = self.handle(place) else { return };
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        slot.wire = Wire::Done;
        slot.flags.input_closed = true;
        slot.flags.output_closed = true;
        if slot.link != 0
            && let Some(queues) = slot.queues.as_mut()
        {
            queues.output.clear();
        }
        if std::mem::take(&mut slot.flags.polled)
            && let Some(owner) = slot.owner
        {
            self.abandoned += 1;
            host.abandon(owner, handle);
        }
        self.wake_all(place, end, host);
    }

    /// The connection is over: waiting readers are served with what there is or told the end, senders are told the end.
    pub(super) fn wake_all<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, end: End, host: &mut H) {
        self.end_input(place, end, host);
        self.end_senders(place, host);
    }

    /// Nothing more may be sent: those who wait to send are told; one that was told of room finds out by itself.
    pub(super) fn end_senders<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, host: &mut H) {
        let (slots, waiting) = (&mut self.slots, &mut self.waiting);
        let Some(queues) = slots.get_mut(place as usize).and_then(|slot| slot.queues.as_mut()) else {
            return;
        };
        for waiter in std::mem::take(&mut queues.senders) {
            waiting.remove(waiter.pid, place);
            let token = waiter.token.unwrap_or_default(); // senders always have one
            if !waiter.turn {
                host.deliver(waiter.pid, Message::Room { token, result: Err(Closed) });
            }
        }
    }

    /// No more input comes: waiting readers are served with what there is or told the end.
    pub(super) fn end_input<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, end: End, host: &mut H) {
        let Some(handle) = self.handle(place) else { return };
        let (slots, waiting) = (&mut self.slots, &mut self.waiting);
        let Some(slot) = slots.get_mut(place as usize) else { return };
        if slot.queues.is_some() {
            serve_readers_until(slot, waiting, place, end, host);
        }
        if slot.queues.is_some() || slot.bits.has(Bits::ASKED) {
            serve_active(slot, handle, host);
        }
    }

    /// Lets the first blocked sender go on when at least half of the output queue is free. It keeps its place until it
    /// has sent, given up or died, so that what a process sends at once stays together.
    pub(super) fn wake_senders<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        queue: usize,
        host: &mut H,
    ) {
        let (slots, waiting) = (&mut self.slots, &mut self.waiting);
        let Some(queues) = slots.get_mut(place as usize).and_then(|slot| slot.queues.as_mut()) else {
            return;
        };
        if queues.output.len() > queue / 2 {
            return;
        }
        while let Some(waiter) = queues.senders.front_mut() {
            if waiter.turn {
                return;
            }
            if host.is_alive(waiter.pid) {
                waiter.turn = true;
                let token = waiter.token.unwrap_or_default(); // senders always have one
                host.deliver(waiter.pid, Message::Room { token, result: Ok(()) });
                return;
            }
            waiting.remove(waiter.pid, place);
            queues.senders.pop_front();
        }
    }
}

fn serve_readers<H: Host>(
    slot: &mut Slot<H::Pid, H::Chunk>,
    waiting: &mut Waiting<H::Pid>,
    place: u32,
    host: &mut H,
) -> bool {
    serve_readers_until(slot, waiting, place, End::Closed, host)
}

/// Serves readers in order until one has to wait. True: one of them has finished a request.
fn serve_readers_until<H: Host>(
    slot: &mut Slot<H::Pid, H::Chunk>,
    waiting: &mut Waiting<H::Pid>,
    place: u32,
    end: End,
    host: &mut H,
) -> bool {
    let mut detach = false;
    while let Some(waiter) = slot.queues().readers.front().copied() {
        let result = if host.is_alive(waiter.pid) {
            match slot.next(waiter.length) {
                Next::Data(data) => Some(Ok(data)),
                Next::Wait => break,
                Next::Closed | Next::Invalid => {
                    slot.bits.set(Bits::TOLD, true);
                    Some(Err(end))
                }
                Next::Detach => {
                    detach = true;
                    Some(Err(End::Closed))
                }
            }
        } else {
            None
        };
        slot.queues().readers.pop_front();
        waiting.remove(waiter.pid, place);
        if let Some(result) = result {
            answer(waiter, result, host);
        }
    }
    detach
}

fn answer<H: Host>(waiter: Waiter<H::Pid>, result: Result<Data<H::Chunk>, End>, host: &mut H) {
    let message = match waiter.token {
        Some(token) => Message::Answer { token, result },
        None => Message::Plain(result),
    };
    host.deliver(waiter.pid, message);
}

/// Sends what there is to an active owner, and the end of an active connection.
fn serve_active<H: Host>(slot: &mut Slot<H::Pid, H::Chunk>, handle: Handle, host: &mut H) {
    let Some(owner) = slot.owner else { return };
    let closed = slot.flags.input_closed;
    if slot.bits.has(Bits::ASKED) && closed {
        slot.end_messages();
        return host.deliver(owner, Message::ActiveClosed(handle));
    }
    let Some(queues) = slot.queues.as_mut() else { return };
    while queues.active != Active::Passive {
        let data = match queues.packet {
            Packet::Raw => queues.next_chunk(),
            _ => match queues.next_packet(closed) {
                Next::Data(data) => Some(data),
                _ => None,
            },
        };
        let Some(data) = data else { break };
        host.deliver(owner, Message::Active(handle, data));
        queues.active = match queues.active {
            Active::Once => Active::Passive,
            Active::Count(count) if count <= 1 => {
                host.deliver(owner, Message::Passive(handle));
                Active::Passive
            }
            Active::Count(count) => Active::Count(count - 1),
            other => other,
        };
    }
    if closed && queues.active != Active::Passive {
        queues.active = Active::Passive;
        slot.bits.set(Bits::TOLD, true);
        host.deliver(owner, Message::ActiveClosed(handle));
    }
}
