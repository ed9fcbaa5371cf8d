//! One shard of the table: its connections and the indexes over them.

use core::num::NonZeroU64;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::net::SocketAddr;

use hashbrown::HashTable;

use super::input::Chunk;
use super::slot::{Bits, NOWHERE, Queues, Slot, Wire};
use super::{End, Handle, Host, SHARDS};
use crate::limits::SPARE_QUEUES;
use crate::link::CloseReason;
use crate::slab::Slab;
use crate::stirred::Stirred;
use crate::sync::{Arc, AtomicUsize, Ordering, RandomState};

/// What is left to do when the shard's lock is released.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effect {
    pub(super) handle: Handle,
    /// The connection has to be queued at its link for output.
    pub(super) ready: bool,
}

/// Which connections each process waits on, and how often.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    places: HashMap<P, BTreeMap<u32, u32>>,
    length: usize,
}

impl<P: Copy + Eq + Hash> Waiting<P> {
    pub(super) fn add(&mut self, pid: P, place: u32) {
        let places = self.places.entry(pid).or_default();
        *places.entry(place).or_insert(0) += 1;
        self.length += 1;
    }

    pub(super) fn remove(&mut self, pid: P, place: u32) {
        let Some(places) = self.places.get_mut(&pid) else { return };
        let Some(count) = places.get_mut(&place) else { return };
        *count -= 1;
        self.length -= 1;
        if *count > 0 {
            return;
        }
        places.remove(&place);
        if places.is_empty() {
            self.places.remove(&pid);
        }
        if self.places.is_empty() {
            self.places = HashMap::new();
        }
    }

    /// Forgets the waits of a process on one connection: which one it was.
    fn take_one(&mut self, pid: P) -> Option<u32> {
        let (place, count) = self.places.get_mut(&pid)?.pop_first()?;
        self.length -= count as usize;
        if self.places.get(&pid).is_some_and(BTreeMap::is_empty) {
            self.places.remove(&pid);
        }
        Some(place)
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shard<P, C> {
    number: usize,
    hasher: RandomState,
    /// Connections by link and id, as long as their id is taken on the wire.
    index: HashTable<u32>,
    /// The first connection of each owner; the others follow in a list through the slots.
    owners: HashTable<u32>,
    pub(super) waiting: Waiting<P>,
    pub(super) slots: Slab<Slot<P, C>>,
    /// Queues that nobody uses now: to make them and to give them back takes longer than what is done with them.
    spare: Vec<Box<Queues<P, C>>>,
    generation: u64,
    token: u64,
    /// Polls whose clients went before they were answered.
    pub(super) abandoned: u64,
    /// Connections with messages on which something happened.
    pub(super) stirred: Stirred,
    /// Connections opened from Erlang, in all shards.
    locals: Arc<AtomicUsize>,
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    pub(super) fn new(number: usize, locals: Arc<AtomicUsize>) -> Self {
        let hasher = RandomState::new();
        Self {
            number,
            waiting: Waiting { places: HashMap::new(), length: 0 },
            hasher,
            index: HashTable::new(),
            owners: HashTable::new(),
            slots: Slab::default(),
            spare: Vec::new(),
            generation: 0,
            token: 0,
            abandoned: 0,
            stirred: Stirred::default(),
            locals,
        }
    }

    /// Bytes of memory, but for what is queued, waits or is watched.
    pub(super) fn memory(&self) -> usize {
        self.slots.memory()
            + self.index.allocation_size()
            + self.owners.allocation_size()
            + self.spare.len() * size_of::<Queues<P, C>>()
            + self.stirred.memory()
    }

    /// Before input comes: gives a connection that has no queues some that are left over, if there are any.
    pub(super) fn equip(&mut self, place: u32) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        if slot.queues.is_none()
            && let Some(mut queues) = self.spare.pop()
        {
            queues.renew(slot.flags.at_rest(), slot.packet);
            slot.queues = Some(queues);
        }
    }

    /// Keeps a few idle queues for the next connection that needs some.
    pub(super) fn spare(&mut self, queues: Box<Queues<P, C>>) {
        if self.spare.len() < SPARE_QUEUES && queues.is_bare() {
            self.spare.push(queues);
        }
    }

    /// A number for a wait that no other wait in the table has.
    pub(super) const fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token * SHARDS as u64 + self.number as u64
    }

    pub(super) fn handle(&self, place: u32) -> Option<Handle> {
        let slot = self.slots.get(place as usize)?;
        Some(Handle {
            link: slot.link,
            id: slot.id,
            slot: place * SHARDS as u32 + self.number as u32,
            generation: slot.generation.get(),
        })
    }

    /// The place of a connection that the API may still use.
    pub(super) fn find(&self, handle: &Handle) -> Option<u32> {
        let place = handle.slot / SHARDS as u32;
        let slot = self.slots.get(place as usize)?;
        (slot.is(handle) && !slot.flags.released).then_some(place)
    }

    /// The place of a connection, released or not, as the queue of ready connections names it.
    pub(super) fn find_ready(&self, slot: u32, generation: u64) -> Option<u32> {
        let place = slot / SHARDS as u32;
        (self.slots.get(place as usize)?.generation.get() == generation).then_some(place)
    }

    /// The place of the connection that has an id on the wire.
    pub(super) fn find_wire(&self, hash: u64, link: u32, id: u64) -> Option<u32> {
        let slots = &self.slots;
        let same =
            |place: &u32| slots.get(*place as usize).is_some_and(|slot| slot.id == id && slot.link == link);
        self.index.find(hash, same).copied()
    }

    /// Puts a new connection in; `hash` is given for one that is found by its id on the wire.
    pub(super) fn insert(
        &mut self,
        link: u32,
        id: u64,
        client: SocketAddr,
        now: u32,
        key: Option<(u64, &RandomState)>,
    ) -> u32 {
        self.generation += 1;
        let generation = NonZeroU64::MIN.saturating_add(self.generation - 1);
        let place = self.slots.insert(Slot::new(generation, link, id, client, now)) as u32;
        if let Some((hash, hasher)) = key {
            let slots = &self.slots;
            let rehash = |place: &u32| {
                slots.get(*place as usize).map_or(0, |slot| hasher.hash_one((slot.link, slot.id)))
            };
            self.index.insert_unique(hash, place, rehash);
        }
        place
    }

    /// The id of a connection is free on the wire from now on.
    pub(super) fn forget_id(&mut self, hash: u64, place: u32) {
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
    }

    pub(super) fn set_owner(&mut self, place: u32, owner: Option<P>) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let old = std::mem::replace(&mut slot.owner, owner);
        slot.bits.set(Bits::ANSWERED, false);
        if old == owner {
            return;
        }
        if let Some(old) = old {
            self.disown(place, old);
        }
        if let Some(owner) = owner {
            self.own(place, owner);
        } else if self.owners.is_empty() {
            self.owners = HashTable::new();
        }
    }

    /// Puts a connection at the head of its owner's list.
    fn own(&mut self, place: u32, owner: P) {
        let hash = self.hasher.hash_one(owner);
        let slots = &self.slots;
        let same = |first: &u32| {
            *first != place && slots.get(*first as usize).is_some_and(|slot| slot.owner == Some(owner))
        };
        let after = match self.owners.find_mut(hash, same) {
            Some(first) => std::mem::replace(first, place),
            None => {
                let hasher = &self.hasher;
                let rehash = |place: &u32| {
                    let owner = slots.get(*place as usize).and_then(|slot| slot.owner);
                    owner.map_or(0, |owner| hasher.hash_one(owner))
                };
                self.owners.insert_unique(hash, place, rehash);
                NOWHERE
            }
        };
        if let Some(slot) = self.slots.get_mut(place as usize) {
            (slot.owned_before, slot.owned_after) = (NOWHERE, after);
        }
        if let Some(next) = self.slots.get_mut(after as usize) {
            next.owned_before = place;
        }
    }

    /// Takes a connection out of the list of `owner`.
    fn disown(&mut self, place: u32, owner: P) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let (before, after) = (slot.owned_before, slot.owned_after);
        (slot.owned_before, slot.owned_after) = (NOWHERE, NOWHERE);
        if let Some(next) = self.slots.get_mut(after as usize) {
            next.owned_before = before;
        }
        if let Some(previous) = self.slots.get_mut(before as usize) {
            previous.owned_after = after;
            return;
        }
        if let Ok(mut entry) = self.owners.find_entry(self.hasher.hash_one(owner), |first| *first == place) {
            if after == NOWHERE {
                entry.remove();
            } else {
                *entry.get_mut() = after;
            }
        }
    }

    /// The first connection in the list of an owner.
    fn owned_by(&self, pid: P) -> Option<u32> {
        let slots = &self.slots;
        let owned = |place: &u32| slots.get(*place as usize).is_some_and(|slot| slot.owner == Some(pid));
        self.owners.find(self.hasher.hash_one(pid), owned).copied()
    }

    /// Removes a connection for good.
    pub(super) fn remove(&mut self, place: u32) {
        self.set_owner(place, None);
        let Some(slot) = self.slots.remove(place as usize) else { return };
        if slot.link == 0 {
            self.locals.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(queues) = slot.queues {
            for waiter in queues.readers.iter().chain(&queues.senders) {
                self.waiting.remove(waiter.pid, place);
            }
        }
    }

    /// A process has ended: see [`Table::process_down`](super::Table::process_down). Cleans up as many of its things as
    /// `budget` says, and takes them off it; what is left of it is 0 when there may be more.
    pub(super) fn process_down<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        pid: P,
        now: u32,
        queue: usize,
        budget: &mut usize,
        host: &mut H,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        while *budget > 0 {
            let Some(place) = self.waiting.take_one(pid) else { break };
            *budget -= 1;
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            let closes = slot.owner == Some(pid);
            if let Some(queues) = slot.queues.as_mut() {
                queues.readers.retain(|waiter| waiter.pid != pid);
                queues.senders.retain(|waiter| waiter.pid != pid);
            }
            // Its own connection closes below, whatever another reader would find there now.
            if !closes {
                // Those behind it may want less, and the turn to send may have been the dead one's.
                self.wake_senders(place, queue, host);
                self.advance(place, host);
            }
            effects.extend(self.finish(place));
        }
        while *budget > 0 {
            let Some(place) = self.owned_by(pid) else { break };
            *budget -= 1;
            effects.extend(self.owner_gone(place, now, host));
        }
        effects
    }

    fn owner_gone<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        now: u32,
        host: &mut H,
    ) -> Option<Effect> {
        self.set_owner(place, None);
        let effect = self.close(place, CloseReason::Normal, now, host);
        let slot = self.slots.get_mut(place as usize)?;
        slot.flags.released = true;
        if let Some(queues) = slot.queues.as_mut() {
            queues.input.clear();
        }
        if slot.link == 0 {
            slot.wire = Wire::Done;
        }
        self.settle(place);
        effect
    }

    /// The link of a connection is gone: nothing more can come or go. Answers how many waits that ended.
    pub(super) fn link_gone<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        keys: &RandomState,
        host: &mut H,
    ) -> usize {
        let Some(slot) = self.slots.get(place as usize) else { return 0 };
        let waits = slot.queues.as_ref().map_or(0, |queues| queues.readers.len() + queues.senders.len());
        if slot.wire != Wire::Done {
            let hash = keys.hash_one((slot.link, slot.id));
            self.forget_id(hash, place);
        }
        self.end_wire(place, End::Shutdown, host);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.flags.started = false; // whoever was to name a consumer has gone with the link
        }
        self.settle(place);
        waits
    }
}
