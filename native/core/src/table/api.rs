//! What readers, senders and owners call.

use std::hash::Hash;
use std::net::SocketAddr;

use super::connection::Next;
use super::input::Chunk;
use super::shard::Shard;
use super::slot::{Active, Bits, Framing, Waiter, Wire};
use super::walk::Carries;
use super::{Closed, Data, End, Handle, Host, Link, Message, Packet, RecvError, Refused, SHARDS, Table};
use crate::limits::MAX_RECV;
use crate::link::{CloseReason, ReadyMode, messages};
use crate::packet::{Fields, Whole};
use crate::sync::Ordering;

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All of it is queued.
    All,
    /// So many bytes are queued; [`Message::Room`] with the token comes when there is room for the rest.
    Wait {
        /// Bytes queued.
        accepted: usize,
        /// Names the wait.
        token: u64,
    },
    /// Nothing is queued: too many senders wait.
    Refused,
}

/// Live objects of a table, counted when asked: for operators, and for tests that nothing leaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links that are up.
    pub links: usize,
    /// Connections, closing ones included.
    pub connections: usize,
    /// Of them, opened from Erlang.
    pub local: usize,
    /// Of them, with messages of XMPP.
    pub xmpp: usize,
    /// Connections with something queued, or a mode set.
    pub busy: usize,
    /// Waiting readers and senders.
    pub waiters: usize,
    /// Processes that are watched.
    pub watched: usize,
    /// Bytes of input that nobody has read yet.
    pub input_bytes: usize,
    /// Bytes of output that are not on the wire yet.
    pub output_bytes: usize,
    /// Bytes of memory of the table: connections, indexes, queues and what is in them. What waiters, the list of watched
    /// processes and the VM's monitors take is not in it.
    pub memory: usize,
}

/// What is known of one connection or link, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Where the link comes from.
    pub peer: String,
    /// Its number.
    pub incarnation: u32,
    /// Open connections.
    pub connections: usize,
    /// Connections opened since the link came up.
    pub opened: u64,
    /// Bytes read and written.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub bytes_out: u64,
    /// Data frames that found no connection.
    pub undelivered: u64,
    /// The other end was asked to open no further connections.
    pub draining: bool,
}

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// Opens a connection without a link. The owner puts input and takes output; its death closes the connection.
    ///
    /// # Errors
    /// [`Refused::Connections`] at [`MAX_LOCAL_CONNECTIONS`](crate::limits::MAX_LOCAL_CONNECTIONS).
    pub fn open<H: Host<Pid = P, Chunk = C>>(
        &self,
        client: SocketAddr,
        packet: Packet,
        owner: P,
        now: u32,
        host: &mut H,
    ) -> Result<Handle, Refused> {
        if self.locals.fetch_add(1, Ordering::Relaxed) >= self.limits.local_connections {
            self.locals.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Connections);
        }
        let id = self.next_local.fetch_add(1, Ordering::Relaxed);
        let number = Self::shard_of(self.key_hash(0, id));
        let handle = {
            let mut shard = self.shard(number);
            let place = shard.insert(0, id, client, now, None);
            shard.set_owner(place, Some(owner));
            if let Some(slot) = shard.slots.get_mut(place as usize) {
                slot.packet = packet;
            }
            shard.handle(place).ok_or(Refused::Connections)?
        };
        self.watch(owner, number, now, host);
        Ok(handle)
    }

    /// Appends input to a connection opened from Erlang and serves those who wait for it.
    ///
    /// # Errors
    /// [`Refused::Closed`]; [`Refused::QueueBytes`] when the bytes do not fit, with nothing changed.
    pub fn put_data<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        data: &[u8],
        now: u32,
        host: &mut H,
    ) -> Result<(), Refused> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Refused::Closed)?;
        let slot = shard.slots.get(place as usize).ok_or(Refused::Closed)?;
        if slot.flags.input_closed || slot.link != 0 {
            return Err(Refused::Closed);
        }
        if data.is_empty() {
            return Ok(());
        }
        let waits = slot.queues.as_ref().map_or(0, |queues| queues.input.len());
        if waits + data.len() > self.limits.local_queue {
            return Err(Refused::QueueBytes);
        }
        shard.equip(place);
        let slot = shard.slots.get_mut(place as usize).ok_or(Refused::Closed)?;
        slot.queues().input.push(data);
        slot.last_activity = now;
        shard.advance(place, host);
        shard.settle(place);
        Ok(())
    }

    /// Reads: `length` bytes, or all there is (0), or the next packet in the packet modes.
    ///
    /// `Ok(Err(token))` means that the reader waits: exactly one [`Message::Answer`] with the token comes, unless the
    /// wait is cancelled before.
    ///
    /// # Errors
    /// [`RecvError`]. At the end of an answered request with no further one there, [`RecvError::Closed`] tells the
    /// consumer to end while the connection goes on.
    pub fn recv<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        length: usize,
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<Result<Data<C>, u64>, RecvError> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(RecvError::Closed)?;
        let token = shard.next_token();
        let waiter = Waiter { pid, token: Some(token), length, turn: false };
        let result = read(&mut shard, place, waiter, self.limits.waiters);
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        if matches!(result, Ok(None)) {
            self.watch(pid, handle.slot as usize % SHARDS, now, host);
        }
        result.map(|data| data.ok_or(token))
    }

    /// Takes a whole packet, head and body, at once, if it is there, in mode [`Packet::HttpBin`], strictly valid and at
    /// its start: its bytes, and where its parts lie in them. `None`: it has to be read step by step.
    ///
    /// `fields` is to be empty; when there is a packet its fields are in it.
    ///
    /// # Errors
    /// [`Closed`], when nothing is left either.
    pub fn take_packet(&self, handle: &Handle, fields: &mut Fields) -> Result<Option<(C, Whole)>, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        let taken = slot.queues.as_mut().and_then(|queues| queues.take_packet(fields));
        shard.settle(place);
        Ok(taken)
    }

    /// Reads for `from`, which is answered by a plain message, at once or later, as the original did.
    pub fn get_data<H: Host<Pid = P, Chunk = C>>(&self, handle: &Handle, from: P, now: u32, host: &mut H) {
        if !host.is_alive(from) {
            return; // nothing may be taken for it
        }
        let mut shard = self.shard_for(handle);
        let waiter = Waiter { pid: from, token: None, length: 0, turn: false };
        let Some(place) = shard.find(handle) else {
            host.deliver(from, Message::Plain(Err(End::Closed)));
            return;
        };
        let waits = match read(&mut shard, place, waiter, self.limits.waiters) {
            Ok(None) => true,
            Ok(Some(data)) => {
                host.deliver(from, Message::Plain(Ok(data)));
                false
            }
            Err(_) => {
                host.deliver(from, Message::Plain(Err(End::Closed)));
                false
            }
        };
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        if waits {
            self.watch(from, handle.slot as usize % SHARDS, now, host);
        }
    }

    /// Takes a wait back. False: it is over already, and its message has been sent. A sender that was told of room and
    /// cancels gives up its turn.
    pub fn cancel<H: Host<Pid = P, Chunk = C>>(&self, handle: &Handle, token: u64, host: &mut H) -> bool {
        let mut shard = self.shard_for(handle);
        let Some(place) = shard.find(handle) else { return false };
        let Some(queues) = shard.slots.get_mut(place as usize).and_then(|slot| slot.queues.as_mut()) else {
            return false;
        };
        let mut found = None;
        for waiters in [&mut queues.readers, &mut queues.senders] {
            if let Some(at) = waiters.iter().position(|waiter| waiter.token == Some(token)) {
                found = waiters.remove(at);
            }
        }
        let Some(waiter) = found else { return false };
        shard.waiting.remove(waiter.pid, place);
        shard.wake_senders(place, self.limits.output_queue, host);
        shard.advance(place, host); // those behind it may want less
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        !waiter.turn
    }

    /// Queues output, as much as fits into [`OUTPUT_QUEUE`](crate::limits::OUTPUT_QUEUE) bytes; senders that have to wait are served in order.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn send<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        data: &[u8],
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<Sent, Closed> {
        self.send_parts(handle, &[], data, pid, now, host)
    }

    /// Queues a message of an XMPP connection, as [`Table::send`] does with its four bytes of header and its text: what is
    /// said of bytes counts both.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn send_message<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        text: &[u8],
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<Sent, Closed> {
        let Ok(length @ 1..) = u32::try_from(text.len()) else { return Ok(Sent::All) };
        self.send_parts(handle, &messages::header(length), text, pid, now, host)
    }

    fn send_parts<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        header: &[u8],
        data: &[u8],
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<Sent, Closed> {
        let length = header.len() + data.len();
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let token = shard.next_token();
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if slot.flags.output_closed {
            return Err(Closed);
        }
        slot.last_activity = now;
        let owner = slot.owner;
        let local = slot.link == 0;
        let queues = slot.queues();
        let turn = queues.senders.front().is_some_and(|first| first.turn && first.pid == pid);
        if turn {
            queues.senders.pop_front();
        }
        let free = self.limits.output_queue.saturating_sub(queues.output.len());
        let room = if turn || queues.senders.is_empty() { free } else { 0 };
        let accepted = room.min(length);
        queues.output.push(&header[..accepted.min(header.len())]);
        queues.output.push(&data[..accepted.saturating_sub(header.len())]);
        if let Framing::Request { answered, .. } = &mut queues.framing {
            *answered = true;
        }
        let tell = local && accepted > 0 && !queues.queued;
        queues.queued |= tell;
        let sent = if accepted == length {
            Sent::All
        } else if queues.senders.len() >= self.limits.waiters {
            Sent::Refused
        } else {
            let waiter = Waiter { pid, token: Some(token), length: 0, turn: false };
            if turn {
                queues.senders.push_front(waiter)
            } else {
                queues.senders.push_back(waiter)
            }
            Sent::Wait { accepted, token }
        };
        match (turn, sent) {
            (false, Sent::Wait { .. }) => shard.waiting.add(pid, place),
            (true, Sent::All | Sent::Refused) => {
                shard.waiting.remove(pid, place);
                shard.wake_senders(place, self.limits.output_queue, host);
            }
            _ => {}
        }
        if let (true, Some(owner)) = (tell, owner) {
            host.deliver(owner, Message::Output(*handle));
        }
        shard.stir(place, &self.quiet, host);
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        if matches!(sent, Sent::Wait { .. }) {
            self.watch(pid, handle.slot as usize % SHARDS, now, host);
        }
        Ok(sent)
    }

    /// Takes the output of a connection opened from Erlang. `None`: nothing now; [`Message::Output`] comes when there is.
    ///
    /// # Errors
    /// [`Closed`], when the connection is closed and all its output was taken.
    pub fn output<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        host: &mut H,
    ) -> Result<Option<C>, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if slot.link != 0 {
            return Err(Closed);
        }
        let done = slot.wire == Wire::Done;
        let queues = slot.queues();
        let count = queues.output.len();
        if count == 0 {
            queues.queued = false;
            shard.settle(place);
            return if done { Err(Closed) } else { Ok(None) };
        }
        let taken = C::copy_from(queues.output.first(count));
        queues.output.clear();
        shard.wake_senders(place, self.limits.output_queue, host);
        shard.settle(place);
        Ok(Some(taken))
    }

    /// Makes a connection active or passive. Becoming active ends the framing of requests: a tunnel from now on.
    ///
    /// # Errors
    /// [`RecvError::Closed`]; [`RecvError::Invalid`] for a count that does not fit when it is added to what is left.
    pub fn set_active<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        active: Active,
        host: &mut H,
    ) -> Result<(), RecvError> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(RecvError::Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(RecvError::Closed)?;
        let active = match (slot.queues().active, active) {
            // As inet has it: counts add up, and a sum that is not positive makes the connection passive.
            (Active::Count(left), Active::Count(more)) => {
                Active::Count(left.checked_add(more).ok_or(RecvError::Invalid)?)
            }
            (_, active) => active,
        };
        if active != Active::Passive && slot.flags.http {
            let queues = slot.queues();
            queues.framing = Framing::Stream;
            queues.ready = Some(ReadyMode::Tunnel);
            slot.flags.http = false;
            slot.flags.polled = false;
        }
        let queues = slot.queues();
        queues.active = active;
        if let Active::Count(..=0) = queues.active {
            queues.active = Active::Passive;
            if let Some(owner) = slot.owner {
                host.deliver(owner, Message::Passive(*handle));
            }
        }
        shard.advance(place, host);
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(())
    }

    /// Changes how input is cut for readers.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn set_packet<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        packet: Packet,
        host: &mut H,
    ) -> Result<(), Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        slot.packet = packet;
        let queues = slot.queues();
        queues.packet = packet;
        // The body belongs to whoever changes the mode at its start, as with gen_tcp.
        queues.body = None;
        queues.scanned = 0;
        if packet == Packet::Raw {
            // The head is given up, and with it what it said of its body.
            queues.in_head = false;
            queues.body_length = None;
        }
        shard.advance(place, host);
        shard.settle(place);
        Ok(())
    }

    /// Gives a connection to a process, which is watched from now on.
    ///
    /// # Errors
    /// [`Closed`], also when the consumer that was started for a request has done its work already.
    pub fn set_owner<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<(), Closed> {
        {
            let mut shard = self.shard_for(handle);
            let place = shard.find(handle).ok_or(Closed)?;
            let flags = shard.slots.get(place as usize).ok_or(Closed)?.flags;
            if flags.http && !flags.started {
                return Err(Closed);
            }
            shard.set_owner(place, Some(pid));
            shard.tell_of_next(place, host);
            // It may have become active before it was named: what came since is for it.
            shard.advance(place, host);
            let effect = shard.finish(place);
            drop(shard);
            if let Some(effect) = effect {
                self.apply(effect, None, host);
            }
        }
        self.watch(pid, handle.slot as usize % SHARDS, now, host);
        Ok(())
    }

    /// The client's address.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn peername(&self, handle: &Handle) -> Result<SocketAddr, Closed> {
        let shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        shard.slots.get(place as usize).map(super::slot::Slot::client).ok_or(Closed)
    }

    /// The address that the client connected to.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn sockname(&self, handle: &Handle) -> Result<SocketAddr, Closed> {
        let local = {
            let shard = self.shard_for(handle);
            let place = shard.find(handle).ok_or(Closed)?;
            shard.slots.get(place as usize).ok_or(Closed)?.local
        };
        Ok(self.links.get(handle.link).map_or(super::NO_ADDRESS, |link| link.local(local)))
    }

    /// Closes for good. What was sent goes out first. A connection of a link is gone for the API at once; of one opened
    /// from Erlang, what is queued in either direction can still be taken, and its owner, unless it is the one that closes
    /// (`by`), still learns of the end.
    pub fn close<H: Host<Pid = P, Chunk = C>>(&self, handle: &Handle, by: P, now: u32, host: &mut H) {
        let mut shard = self.shard_for(handle);
        let Some(place) = shard.find(handle) else { return };
        if let Some(slot) = shard.slots.get_mut(place as usize) {
            let told = slot.bits.has(Bits::TOLD) || slot.owner == Some(by);
            slot.bits.set(Bits::TOLD, told);
        }
        let effect = shard.close(place, CloseReason::Normal, now, host);
        if handle.link != 0
            && let Some(slot) = shard.slots.get_mut(place as usize)
        {
            slot.flags.released = true;
            if let Some(queues) = slot.queues.as_mut() {
                queues.input.clear();
            }
            shard.set_owner(place, None);
        }
        shard.settle(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
    }

    /// Ends one direction or both, and keeps the handle: `read` drops input from now on, `write` sends the close once
    /// the output is out.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn shutdown<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        read: bool,
        write: bool,
        now: u32,
        host: &mut H,
    ) -> Result<(), Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if read {
            slot.flags.input_closed = true;
            if let Some(queues) = slot.queues.as_mut() {
                queues.input.clear();
            }
            shard.end_input(place, End::Closed, host);
        }
        if write && let Some(slot) = shard.slots.get_mut(place as usize) {
            slot.flags.output_closed = true;
            slot.last_activity = now;
            if slot.wire == Wire::Open && slot.link != 0 {
                slot.queues(); // the close frame is due: the connection must be able to stand in the queue
                slot.wire = Wire::Closing(CloseReason::Normal);
            }
            shard.end_senders(place, host);
        }
        // What was dropped may have been the last that a closed connection was kept for.
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(())
    }

    /// How a connection is set: active mode, packet mode, whether it has a waiting reader, bytes queued in and out,
    /// owner, second of its last data.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn info(&self, handle: &Handle) -> Result<Info<P>, Closed> {
        let shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get(place as usize).ok_or(Closed)?;
        let queues = slot.queues.as_ref();
        Ok(Info {
            active: queues.map_or(Active::Passive, |queues| queues.active),
            packet: slot.packet,
            readers: queues.map_or(0, |queues| queues.readers.len()),
            senders: queues.map_or(0, |queues| queues.senders.len()),
            input: queues.map_or(0, |queues| queues.input.len()),
            output: queues.map_or(0, |queues| queues.output.len()),
            owner: slot.owner,
            tls: slot.bits.has(Bits::TLS),
            carries: slot.carries(),
            last_activity: slot.last_activity,
        })
    }

    /// Counts what lives. Visits every connection, under the lock of one shard after the other.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { links: self.links.len(), watched: self.watched.len(), ..Stats::default() };
        for number in 0..SHARDS {
            let shard = self.shard(number);
            stats.connections += shard.slots.len();
            stats.waiters += shard.waiting.len();
            stats.memory += shard.memory();
            for slot in (0..shard.slots.bound()).filter_map(|place| shard.slots.get(place)) {
                stats.local += usize::from(slot.link == 0);
                stats.xmpp += usize::from(slot.bits.has(Bits::MESSAGES));
                if let Some(queues) = slot.queues.as_ref() {
                    stats.busy += 1;
                    stats.memory += size_of_val(queues.as_ref()) + queues.input.len() + queues.output.len();
                    stats.input_bytes += queues.input.len();
                    stats.output_bytes += queues.output.len();
                }
            }
        }
        stats
    }

    /// What is known of a link.
    #[must_use]
    pub fn link_info(&self, link: &Link<P>) -> LinkInfo {
        LinkInfo {
            peer: link.peer.clone(),
            incarnation: link.incarnation,
            connections: link.connections.load(Ordering::Relaxed),
            opened: link.opened.load(Ordering::Relaxed),
            bytes_in: link.bytes_in.load(Ordering::Relaxed),
            bytes_out: link.bytes_out.load(Ordering::Relaxed),
            undelivered: link.undelivered.load(Ordering::Relaxed),
            draining: link.is_draining(),
        }
    }
}

/// See [`Table::info`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info<P> {
    /// Active mode.
    pub active: Active,
    /// Packet mode.
    pub packet: Packet,
    /// Waiting readers.
    pub readers: usize,
    /// Blocked senders.
    pub senders: usize,
    /// Bytes of input queued.
    pub input: usize,
    /// Bytes of output queued.
    pub output: usize,
    /// The owner.
    pub owner: Option<P>,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// What it carries.
    pub carries: Carries,
    /// Second of the last data.
    pub last_activity: u32,
}

/// Reads, or queues the reader: `Ok(None)`.
fn read<P: Copy + Eq + Hash, C: Chunk>(
    shard: &mut Shard<P, C>,
    place: u32,
    waiter: Waiter<P>,
    most: usize,
) -> Result<Option<Data<C>>, RecvError> {
    let slot = shard.slots.get_mut(place as usize).ok_or(RecvError::Closed)?;
    let queues = slot.queues();
    if queues.active != Active::Passive || waiter.length > MAX_RECV {
        return Err(RecvError::Invalid);
    }
    // Behind others that wait, one waits as well: first come, first served.
    let next = if queues.readers.is_empty() { slot.next(waiter.length) } else { Next::Wait };
    match next {
        Next::Data(data) => {
            slot.grant();
            Ok(Some(data))
        }
        Next::Wait if slot.queues().readers.len() >= most => Err(RecvError::Waiters),
        Next::Wait => {
            slot.queues().readers.push_back(waiter);
            slot.grant();
            shard.waiting.add(waiter.pid, place);
            Ok(None)
        }
        Next::Closed => {
            slot.bits.set(Bits::TOLD, true);
            Err(RecvError::Closed)
        }
        Next::Invalid => Err(RecvError::Invalid),
        Next::Detach => {
            slot.grant(); // what is dropped unread counts as read, or the rest of it would never come
            shard.detach(place);
            Err(RecvError::Closed)
        }
    }
}
