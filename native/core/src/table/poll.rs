//! Requests that are taken whole by a process of their own, which ends with its client: polls.
//!
//! A consumer that reads step by step finds out by its reads that its client is gone. The process of a poll waits for
//! something else, so its [`Host`] is told to end it.

use std::hash::Hash;

use super::connection::Request;
use super::input::Chunk;
use super::shard::Shard;
use super::slot::{Bits, Framing, Slot, Wire};
use super::{Closed, Handle, Host, SHARDS, Table};
use crate::limits::MAX_HEAD;
use crate::link::CloseReason;
use crate::packet::{Fields, Whole};

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// Whether the request that waits for a consumer is a POST with a body, for one of `targets` (its path, with or without
    /// a query), that is there to its last byte: then [`Table::take_request`] most likely takes it. With `bare`, a POST or PUT
    /// without a body is one, too.
    pub fn is_poll(&self, handle: &Handle, targets: &[&[u8]], bare: bool) -> bool {
        let mut shard = self.shard_for(handle);
        let Some(place) = shard.find(handle) else { return false };
        shard.slots.get_mut(place as usize).is_some_and(|slot| slot.is_poll(targets, bare))
    }

    /// Takes the request that waits for a consumer, head and body, if it is there to its last byte and its head is strictly
    /// valid: its bytes, and where its parts lie in them. `None`: it has to be read step by step.
    ///
    /// One of more than `most` bytes is left to be read step by step, too. `pid` is its consumer from now on, and until [`Table::end_request`] it is ended ([`Host::abandon`]) when the client
    /// goes. `fields` is to be empty; when there is a request its fields are in it.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn take_request<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        fields: &mut Fields,
        most: usize,
        pid: P,
        now: u32,
        host: &mut H,
    ) -> Result<Option<(C, Whole)>, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if slot.wire != Wire::Open {
            return Err(Closed);
        }
        let taken = slot.take_request(fields, most);
        slot.grant();
        if taken.is_some() {
            shard.set_owner(place, Some(pid));
        }
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        if taken.is_some() {
            self.watch(pid, handle.slot as usize % SHARDS, now, host);
        }
        Ok(taken)
    }

    /// The answer to a request that was taken whole is sent; the connection goes on without a process. True: the next
    /// request waits already, start a consumer for it and name it with [`Table::set_owner`].
    ///
    /// # Errors
    /// [`Closed`], also when no request was taken.
    pub fn end_request<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        host: &mut H,
    ) -> Result<bool, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if !slot.flags.polled {
            return Err(Closed);
        }
        let more = shard.next_request(place, false);
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(more)
    }

    /// Sends the whole answer to a request that was taken whole, and ends it as [`Table::end_request`] does; `last`: the
    /// connection ends with it. An owner that is no process stays until the next request, to be told if the answer is lost
    /// ([`Host::lost`]). It is queued whatever its length: who gives it has limited that.
    ///
    /// # Errors
    /// [`Closed`], also when no request was taken.
    pub fn answer<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        parts: &[&[u8]],
        last: bool,
        now: u32,
        host: &mut H,
    ) -> Result<bool, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if !slot.flags.polled || slot.flags.output_closed {
            return Err(Closed);
        }
        slot.last_activity = now;
        for part in parts {
            slot.queues().output.push(part);
        }
        let mut more = false;
        let effect = if last {
            slot.flags.polled = false;
            shard.detach(place);
            shard.close(place, CloseReason::Normal, now, host)
        } else {
            let stays = slot.owner.is_some_and(|owner| !host.is_process(owner));
            more = shard.next_request(place, stays);
            shard.finish(place)
        };
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(more)
    }

    /// Polls whose clients went before they were answered, since the table was made.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        (0..SHARDS).map(|number| self.shard(number).abandoned).sum()
    }
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    /// The client has gone before it had all of an answer. If that was given already, whoever gave it is told.
    pub(super) fn unanswered<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, host: &mut H) {
        let Some(handle) = self.handle(place) else { return };
        let Some(slot) = self.slots.get(place as usize) else { return };
        // It is about the last request of which anything has come.
        let is_of_next = slot.queues.as_ref().is_some_and(|queues| queues.input.len() > 0);
        if let Some(owner) = slot.owner.filter(|_| slot.bits.has(Bits::ANSWERED) && !is_of_next) {
            host.lost(owner, handle);
        }
    }

    /// Tells the owner of a poll of the request that waits for its answer.
    pub(super) fn tell_of_next<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, host: &mut H) {
        let Some(handle) = self.handle(place) else { return };
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        if let Some(owner) = slot.owner.filter(|_| slot.flags.polled && slot.bits.has(Bits::NEXT_WAITS)) {
            host.hurry(owner, handle);
        }
    }

    /// The request that was taken is answered. True: the next one is there. `stays`: its owner stays as long as there is none.
    fn next_request(&mut self, place: u32, stays: bool) -> bool {
        let Some(slot) = self.slots.get_mut(place as usize) else { return false };
        slot.finish_request();
        slot.bits.set(Bits::NEXT_WAITS, false);
        if let Request::Complete(size) = slot.request() {
            slot.queues().framing = Framing::unread(size);
            self.set_owner(place, None);
            return true;
        }
        if stays {
            slot.flags.started = false;
            slot.bits.set(Bits::ANSWERED, true);
        } else {
            self.detach(place);
        }
        false
    }
}

impl<P: Copy, C: Chunk> Slot<P, C> {
    /// Bytes of the request that waits for a consumer, when all of it is there.
    fn whole_request(&self) -> Option<usize> {
        let queues = self.queues.as_ref()?;
        match queues.framing {
            Framing::Request { left, answered: false, .. }
                if left > 0 && left <= queues.input.len() as u64 =>
            {
                Some(left as usize) // no more than the queue holds
            }
            _ => None,
        }
    }

    fn is_poll(&mut self, targets: &[&[u8]], bare: bool) -> bool {
        let (Some(total), Some(queues)) = (self.whole_request(), self.queues.as_mut()) else { return false };
        let request = &queues.input.contiguous(total)[..total];
        // ejabberd_http answers one without a body without a look at its path.
        let is_bare = request.ends_with(b"\r\n\r\n");
        let target = match request.strip_prefix(b"POST ") {
            Some(target) if bare || !is_bare => target,
            None if bare && is_bare => request.strip_prefix(b"PUT ").unwrap_or_default(),
            _ => return false,
        };
        targets
            .iter()
            .filter_map(|path| target.strip_prefix(*path))
            .any(|rest| matches!(rest.first(), Some(b' ' | b'?')))
    }

    fn take_request(&mut self, fields: &mut Fields, most: usize) -> Option<(C, Whole)> {
        let total = self.whole_request().filter(|total| *total <= most)?;
        let queues = self.queues.as_mut().filter(|queues| queues.readers.is_empty())?;
        let whole = Whole::parse(queues.input.contiguous(MAX_HEAD), |field| fields.push(field))?;
        if whole.total_len() != Some(total) {
            return None;
        }
        let request = queues.input.take_joined(total);
        queues.framing = Framing::Request { head: 0, left: 0, answered: false };
        self.flags.polled = true;
        Some((request, whole))
    }
}
