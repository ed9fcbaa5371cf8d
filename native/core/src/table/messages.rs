//! Connections of kind XMPP: whole messages for the process that owns the connection, a batch for each activation.
//!
//! ```text
//! first message there ──Action::Attach──▶ owner named ──activate──▶ Batch ──▶ activate ──▶ ...
//! ```
//!
//! The owner asks for each batch ([`Table::activate`]). When a message is there it gets the batch at once, else with the
//! message that comes. Nothing else is told to it meanwhile, not even that the connection was closed: so what comes before
//! a close is dealt with before it, although a batch is taken apart (which takes time) when the lock has been released.
//!
//! A message that takes longer to be taken apart than a call may is not handed out but announced, and taken by
//! [`Table::take_large`].

use std::hash::Hash;

use smallvec::SmallVec;

use super::input::Chunk;
use super::shard::Shard;
use super::slot::{Bits, Queues, Slot};
use super::{Closed, Handle, Host, Message, Table};
use crate::limits::{MAX_BATCH, MAX_BATCH_BYTES, SMALL_MESSAGE};
use crate::link::messages::{FAULT_LEN, Fault, Head, MESSAGE_HEADER};
use crate::stirred::{Noticed, Quiet};
use crate::sync::{AtomicU32, Ordering};

/// Messages for the owner of a connection.
#[derive(Debug)]
pub struct Batch<P, C> {
    /// The connection.
    pub handle: Handle,
    /// Who is to get them.
    pub owner: P,
    /// Messages with their headers, in order.
    messages: SmallVec<[C; 1]>,
    /// After them nothing more comes, for this reason.
    pub fault: Option<Fault>,
    /// The first of them is the first of the connection.
    pub first: bool,
    /// The client has logged in: limits are wider.
    pub authenticated: bool,
}

impl<P, C: Chunk> Batch<P, C> {
    /// The texts, in order.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.messages.iter().map(|message| &message.as_ref()[MESSAGE_HEADER..])
    }
}

/// What an activation gives.
#[derive(Debug)]
pub enum Activated<P, C> {
    /// Nothing now: it comes by [`Action::Deliver`](super::Action::Deliver) or [`Action::Large`](super::Action::Large).
    Waits,
    /// This.
    Batch(Batch<P, C>),
    /// A large message: to be fetched with [`Table::take_large`].
    Large,
    /// Nothing yet: the client is slowed down ([`Table::set_shaped`]), and the batch before had so many bytes. When they
    /// are paid for, the caller is to ask again.
    Shaped(u32),
}

/// Longest messages, which the host may change while the table lives.
#[derive(Debug)]
pub(super) struct MessageLimits {
    authenticated: AtomicU32,
    unauthenticated: AtomicU32,
}

impl MessageLimits {
    pub(super) fn new() -> Self {
        Self {
            authenticated: AtomicU32::new(crate::limits::MAX_STANZA),
            unauthenticated: AtomicU32::new(crate::limits::MAX_STANZA_BEFORE_LOGIN),
        }
    }

    fn get(&self, bits: Bits) -> u32 {
        let limit = if bits.has(Bits::AUTHENTICATED) { &self.authenticated } else { &self.unauthenticated };
        limit.load(Ordering::Relaxed)
    }
}

/// What the head of a connection's input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// Nothing that is complete.
    Partial,
    /// A message with so many bytes of text.
    Message(usize),
    /// Nothing that follows is of use.
    Fault(Fault),
}

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// Sets how long a message may be, in bytes, after the client has logged in and before.
    pub fn set_message_limits(&self, authenticated: u32, unauthenticated: u32) {
        self.message_limits.authenticated.store(authenticated, Ordering::Relaxed);
        self.message_limits.unauthenticated.store(unauthenticated.min(authenticated), Ordering::Relaxed);
    }

    /// Asks for the next batch of messages for the owner of a connection.
    ///
    /// # Errors
    /// [`Closed`], also when the connection has no messages. What was there before a close is given first.
    pub fn activate<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        host: &mut H,
    ) -> Result<Activated<P, C>, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if !slot.bits.has(Bits::MESSAGES) {
            return Err(Closed);
        }
        if let Some(bytes @ 1..) = slot.queues.as_mut().map(|queues| std::mem::take(&mut queues.unpaid)) {
            return Ok(Activated::Shaped(bytes));
        }
        slot.bits.set(Bits::ASKED, true);
        let activated = shard.next_batch(place, &self.message_limits, host);
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(activated)
    }

    /// Takes the large message that was announced; `None` when there is none.
    ///
    /// # Errors
    /// [`Closed`].
    pub fn take_large<H: Host<Pid = P, Chunk = C>>(
        &self,
        handle: &Handle,
        host: &mut H,
    ) -> Result<Option<Batch<P, C>>, Closed> {
        let mut shard = self.shard_for(handle);
        let place = shard.find(handle).ok_or(Closed)?;
        let slot = shard.slots.get_mut(place as usize).ok_or(Closed)?;
        if !slot.bits.has(Bits::LARGE) {
            return Ok(None);
        }
        slot.bits.set(Bits::LARGE, false);
        let limit = self.message_limits.get(slot.bits);
        let front = slot.front(limit);
        let batch = match (front, slot.owner) {
            (Front::Message(length), Some(owner)) => {
                let mut batch = slot.batch(*handle, owner);
                batch.messages.push(slot.queues().take_message(length));
                slot.charge(length);
                Some(batch)
            }
            _ => None,
        };
        slot.grant();
        let effect = shard.finish(place);
        drop(shard);
        if let Some(effect) = effect {
            self.apply(effect, None, host);
        }
        Ok(batch)
    }

    /// Nothing more is taken of the client: it has sent what is not to be understood.
    pub fn deafen(&self, handle: &Handle) {
        let mut shard = self.shard_for(handle);
        let Some(place) = shard.find(handle) else { return };
        if let Some(slot) = shard.slots.get_mut(place as usize) {
            slot.deafen();
        }
        shard.settle(place);
    }

    /// The client has logged in: the wider limits hold for it from now on.
    pub fn set_authenticated(&self, handle: &Handle) {
        self.set_bit(handle, Bits::AUTHENTICATED, true);
    }

    /// Whether the bytes of a batch are told when the next one is asked for, so that the caller can wait before it asks again.
    pub fn set_shaped(&self, handle: &Handle, shaped: bool) {
        self.set_bit(handle, Bits::SHAPED, shaped);
    }

    fn set_bit(&self, handle: &Handle, bit: Bits, value: bool) {
        let mut shard = self.shard_for(handle);
        if let Some(place) = shard.find(handle)
            && let Some(slot) = shard.slots.get_mut(place as usize)
        {
            slot.bits.set(bit, value);
        }
    }

    /// Owners of connections with messages on which nothing has happened for `after` milliseconds, at most `most` of
    /// them, with the links of their connections; each is named once for each time of activity, and one who is called back soon
    /// after a longer time ([`IDLE_DOUBLINGS`](crate::limits::IDLE_DOUBLINGS)). `now` is in milliseconds on a
    /// clock that may wrap. When nothing is noted any more, [`Host::busy`] is called the next time something happens.
    ///
    /// Cost: one look at the connections that were busy less than `after` ago, in the order in which they became it.
    pub fn take_idle(&self, now: u32, after: u32, most: usize, idle: &mut Vec<(P, u32)>) -> bool {
        // Before it is looked: what comes meanwhile is either seen or told.
        self.quiet.set(true);
        let mut noted = false;
        for number in 0..super::SHARDS {
            let mut shard = self.shard(number);
            shard.take_idle(now, after, most, idle);
            noted |= !shard.stirred.is_empty();
        }
        if noted {
            self.quiet.set(false);
        }
        noted
    }
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    /// Takes what there is for an owner that has asked. To be called when the lock is held and something has come.
    pub(super) fn next_batch<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        limits: &MessageLimits,
        host: &mut H,
    ) -> Activated<P, C> {
        let Some(handle) = self.handle(place) else { return Activated::Waits };
        let Some(slot) = self.slots.get_mut(place as usize) else { return Activated::Waits };
        let Some(owner) = slot.owner else { return Activated::Waits };
        let activated = slot.next_batch(handle, owner, limits);
        slot.grant();
        if slot.flags.input_closed && slot.bits.has(Bits::ASKED) {
            slot.end_messages();
            host.deliver(owner, Message::ActiveClosed(handle));
        }
        activated
    }

    /// Whether a connection without an owner has what an owner is needed for; notes that one is being started.
    pub(super) fn needs_owner(&mut self, place: u32, limits: &MessageLimits) -> bool {
        let Some(slot) = self.slots.get_mut(place as usize) else { return false };
        let limit = limits.get(slot.bits);
        let needs = !slot.flags.started && slot.front(limit) != Front::Partial;
        slot.flags.started |= needs;
        slot.grant();
        needs
    }

    /// Notes that something happens on a connection with messages.
    pub(super) fn stir<H: Host<Pid = P, Chunk = C>>(&mut self, place: u32, quiet: &Quiet, host: &mut H) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        if !slot.bits.has(Bits::MESSAGES) || slot.owner.is_none() {
            return;
        }
        let now = host.millis();
        if !slot.activity.happens(now) {
            return;
        }
        self.stirred.note(now, place, slot.generation.get());
        if quiet.ends() {
            host.busy();
        }
    }

    fn take_idle(&mut self, now: u32, after: u32, most: usize, idle: &mut Vec<(P, u32)>) {
        let slots = &mut self.slots;
        self.stirred.take(now, after, most.saturating_sub(idle.len()), |place, generation, look| {
            let Some(slot) = slots.get_mut(place as usize) else { return Noticed::Gone };
            if slot.generation.get() != generation {
                return Noticed::Gone;
            }
            let noticed = slot.activity.look(look);
            if noticed == Noticed::Idle {
                idle.extend(slot.owner.map(|owner| (owner, slot.link)));
            }
            noticed
        });
    }
}

impl<P: Copy + Eq, C: Chunk> Slot<P, C> {
    fn batch(&mut self, handle: Handle, owner: P) -> Batch<P, C> {
        let first = !self.bits.has(Bits::BEGUN);
        self.bits.set(Bits::BEGUN, true);
        Batch {
            handle,
            owner,
            messages: SmallVec::new(),
            fault: None,
            first,
            authenticated: self.bits.has(Bits::AUTHENTICATED),
        }
    }

    fn next_batch(&mut self, handle: Handle, owner: P, limits: &MessageLimits) -> Activated<P, C> {
        let limit = limits.get(self.bits);
        // Logging in changes what may come next: until then one at a time.
        let most = if self.bits.has(Bits::AUTHENTICATED) { MAX_BATCH } else { 1 };
        if !self.bits.has(Bits::ASKED) {
            return Activated::Waits;
        }
        match self.front(limit) {
            Front::Partial => return Activated::Waits,
            Front::Message(length) if length > SMALL_MESSAGE => {
                self.bits.set(Bits::ASKED, false);
                self.bits.set(Bits::LARGE, true);
                return Activated::Large;
            }
            _ => self.bits.set(Bits::ASKED, false),
        }
        let (mut batch, mut bytes) = (self.batch(handle, owner), 0);
        while batch.messages.len() < most {
            match self.front(limit) {
                Front::Message(length) if length <= SMALL_MESSAGE && bytes + length <= MAX_BATCH_BYTES => {
                    bytes += length;
                    batch.messages.push(self.queues().take_message(length));
                }
                Front::Fault(fault) => {
                    batch.fault = Some(fault);
                    self.deafen();
                    break;
                }
                _ => break,
            }
        }
        self.charge(bytes);
        Activated::Batch(batch)
    }

    /// Remembers what a batch has to be paid for.
    fn charge(&mut self, bytes: usize) {
        if self.bits.has(Bits::SHAPED) {
            self.queues().unpaid = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
    }

    fn front(&mut self, limit: u32) -> Front {
        self.queues.as_mut().map_or(Front::Partial, |queues| queues.front(limit))
    }

    /// The owner is told of the end. What there is of a message is none.
    pub(super) fn end_messages(&mut self) {
        self.bits.set(Bits::ASKED, false);
        self.bits.set(Bits::TOLD, true);
        if let Some(queues) = self.queues.as_mut() {
            queues.input.clear();
        }
    }

    pub(super) fn deafen(&mut self) {
        self.bits.set(Bits::DEAF, true);
        if let Some(queues) = self.queues.as_mut() {
            queues.input.clear();
        }
    }
}

impl<P, C: Chunk> Queues<P, C> {
    fn front(&mut self, limit: u32) -> Front {
        let start = self.input.contiguous(FAULT_LEN);
        match Head::parse(&start[..start.len().min(FAULT_LEN)]) {
            Some(Head::Fault(fault)) => Front::Fault(fault),
            Some(Head::Message(length)) if length > limit => Front::Fault(Fault::TooBig),
            Some(Head::Message(length)) if self.input.len() >= MESSAGE_HEADER + length as usize => {
                Front::Message(length as usize)
            }
            _ => Front::Partial,
        }
    }

    /// Bytes that the message at the front takes with its header, when it has begun.
    pub(super) fn wanted(&mut self) -> usize {
        let start = self.input.contiguous(FAULT_LEN);
        match Head::parse(&start[..start.len().min(FAULT_LEN)]) {
            Some(Head::Message(length)) => MESSAGE_HEADER + length as usize,
            _ => 0,
        }
    }

    fn take_message(&mut self, length: usize) -> C {
        // With its header: mostly that is all of a piece, which then moves.
        self.input.take_joined(MESSAGE_HEADER + length)
    }
}
