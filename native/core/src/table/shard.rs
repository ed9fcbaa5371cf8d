//! One shard of the table: its connections and the indexes over them.

use core::num::NonZeroU64;
use std::hash::{BuildHasher, Hash};
use std::net::SocketAddr;

use hashbrown::HashTable;

use super::input::Chunk;
use super::slab::Slab;
use super::slot::{Slot, Wire};
use super::{End, Handle, Host, SHARDS};
use crate::link::CloseReason;
use crate::sync::{Arc, AtomicUsize, Ordering, RandomState};

/// What is left to do when the shard's lock is released.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effect {
    pub(super) handle: Handle,
    /// The connection has to be queued at its link for output.
    pub(super) ready: bool,
    /// A consumer has to be started.
    pub(super) start: bool,
}

/// Which connections a process waits on. A connection may be noted more than once for one process.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    entries: HashTable<(P, u32)>,
    hasher: RandomState,
}

impl<P: Copy + Eq + Hash> Waiting<P> {
    pub(super) fn add(&mut self, pid: P, place: u32) {
        let hasher = &self.hasher;
        self.entries.insert_unique(hasher.hash_one(pid), (pid, place), |entry| hasher.hash_one(entry.0));
    }

    pub(super) fn remove(&mut self, pid: P, place: u32) {
        let hash = self.hasher.hash_one(pid);
        if let Ok(entry) = self.entries.find_entry(hash, |entry| *entry == (pid, place)) {
            entry.remove();
        }
        if self.entries.is_empty() {
            self.entries = HashTable::new();
        }
    }

    fn all(&self, pid: P) -> Vec<u32> {
        let hash = self.hasher.hash_one(pid);
        self.entries.iter_hash(hash).filter(|entry| entry.0 == pid).map(|entry| entry.1).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shard<P, C> {
    number: usize,
    hasher: RandomState,
    /// Connections by link and id, as long as their id is taken on the wire.
    index: HashTable<u32>,
    /// Connections by owner.
    owners: HashTable<u32>,
    pub(super) waiting: Waiting<P>,
    pub(super) slots: Slab<Slot<P, C>>,
    generation: u64,
    token: u64,
    /// Connections opened from Erlang, in all shards.
    locals: Arc<AtomicUsize>,
}

impl<P: Copy + Eq + Hash, C: Chunk> Shard<P, C> {
    pub(super) fn new(number: usize, locals: Arc<AtomicUsize>) -> Self {
        let hasher = RandomState::new();
        Self {
            number,
            waiting: Waiting { entries: HashTable::new(), hasher: hasher.clone() },
            hasher,
            index: HashTable::new(),
            owners: HashTable::new(),
            slots: Slab::default(),
            generation: 0,
            token: 0,
            locals,
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
        if old == owner {
            return;
        }
        if let Some(old) = old {
            let hash = self.hasher.hash_one(old);
            if let Ok(entry) = self.owners.find_entry(hash, |other| *other == place) {
                entry.remove();
            }
        }
        if let Some(owner) = owner {
            let (slots, hasher) = (&self.slots, &self.hasher);
            let rehash = |place: &u32| {
                let owner = slots.get(*place as usize).and_then(|slot| slot.owner);
                owner.map_or(0, |owner| hasher.hash_one(owner))
            };
            self.owners.insert_unique(hasher.hash_one(owner), place, rehash);
        } else if self.owners.is_empty() {
            self.owners = HashTable::new();
        }
    }

    fn owned_by(&self, pid: P) -> Vec<u32> {
        let slots = &self.slots;
        let owned = |place: &&u32| slots.get(**place as usize).is_some_and(|slot| slot.owner == Some(pid));
        self.owners.iter_hash(self.hasher.hash_one(pid)).filter(owned).copied().collect()
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

    /// A process has ended: see [`Table::process_down`](super::Table::process_down).
    pub(super) fn process_down<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        pid: P,
        now: u32,
        queue: usize,
        host: &mut H,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for place in self.waiting.all(pid) {
            self.waiting.remove(pid, place);
            if let Some(queues) = self.slots.get_mut(place as usize).and_then(|slot| slot.queues.as_mut()) {
                queues.readers.retain(|waiter| waiter.pid != pid);
                queues.senders.retain(|waiter| waiter.pid != pid);
                // Those behind it may want less, and the turn to send may have been the dead one's.
                self.wake_senders(place, queue, host);
                self.advance(place, host);
            }
            effects.extend(self.finish(place, false));
        }
        for place in self.owned_by(pid) {
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

    /// The link of a connection is gone: nothing more can come or go.
    pub(super) fn link_gone<H: Host<Pid = P, Chunk = C>>(
        &mut self,
        place: u32,
        keys: &RandomState,
        host: &mut H,
    ) {
        let Some(slot) = self.slots.get(place as usize) else { return };
        if slot.wire != Wire::Done {
            let hash = keys.hash_one((slot.link, slot.id));
            self.forget_id(hash, place);
        }
        self.end_wire(place, End::Shutdown, host);
        self.settle(place);
    }
}
