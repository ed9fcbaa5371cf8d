//! All sessions of a node, and their timers.
//!
//! A session is found by its place; there is no index. Timers are kept by steps of [`BOSH_TICK`]: one that has moved to a
//! later time stays where it is and is put there when its step comes, so that a request that is answered moves none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::pending::Pending;
use super::{Session, Sid};
use crate::cursor;
use crate::limits::{BOSH_TICK, WALK_PER_CALL};
use crate::slab::Slab;
use crate::stirred::{Activity, Noticed, Quiet, Stirred};
use crate::sync::{AtomicUsize, Mutex, Ordering};

const SHARDS: usize = if cfg!(loom) { 2 } else { 64 };

/// Names a session to those who may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Where it is.
    pub place: u32,
    /// Which one of those that are there one after the other.
    pub generation: u32,
}

/// Generations have so many bits.
const GENERATION_BITS: u32 = 28;

/// A session and what belongs to it. `P` is a process.
#[derive(Debug)]
pub struct Entry<T, P> {
    /// The machine.
    pub session: Session<T>,
    /// The process of the client session.
    pub owner: Option<P>,
    /// The server that it was made for.
    pub host: Arc<str>,
    /// Where the client is.
    pub client: SocketAddr,
    /// The link by which the session was asked for, 0 for none.
    pub link: u32,
    /// When the session is over, what was sent and not delivered is somebody else's to care for.
    pub resumable: bool,
    id: SocketId,
    secret: [u8; 16],
    armed: u64,
    /// It is counted as one that has not logged in.
    pending: bool,
    activity: Activity,
}

impl<T, P> Entry<T, P> {
    /// Its name.
    pub const fn id(&self) -> SocketId {
        self.id
    }
}

/// What is left of a session that has ended.
#[derive(Debug)]
pub struct Ended<P> {
    /// Its client session.
    pub owner: Option<P>,
    /// Elements that were not delivered, as texts.
    pub unsent: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct Shard<T, P> {
    slots: Slab<Entry<T, P>>,
    /// Places by the step at which they are to be looked at.
    timers: BTreeMap<u64, Vec<u32>>,
    stirred: Stirred,
    generation: u32,
}

/// See the module.
#[derive(Debug)]
#[allow(clippy::type_complexity)]
pub struct Sessions<T, P> {
    shards: Box<[CachePadded<Mutex<Shard<T, P>>>]>,
    next_shard: AtomicUsize,
    count: AtomicUsize,
    pending: Pending,
    quiet: Quiet,
    node: u32,
}

impl<T: PartialEq + Copy, P: Copy> Sessions<T, P> {
    /// Of a node with this tag.
    #[must_use]
    pub fn new(node: u32) -> Self {
        let shard = |_| {
            let (slots, timers) = (Slab::default(), BTreeMap::new());
            CachePadded::new(Mutex::new(Shard { slots, timers, stirred: Stirred::default(), generation: 0 }))
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            next_shard: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            pending: Pending::new(),
            quiet: Quiet::new(),
            node,
        }
    }

    /// The tag that is in the names of this node's sessions.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// Sessions that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory of the table; what is queued in sessions is not in it.
    #[must_use]
    pub fn memory(&self) -> usize {
        let of = |shard: &CachePadded<Mutex<Shard<T, P>>>| {
            let shard = shard.lock();
            let timers: usize = shard.timers.values().map(|places| places.capacity() * 4 + 48).sum();
            shard.slots.memory() + shard.stirred.memory() + timers
        };
        self.shards.iter().map(of).sum()
    }

    /// Puts a session in that `make` makes, for its name. `None`: too many have not logged in.
    pub fn create(
        &self,
        secret: [u8; 16],
        host: Arc<str>,
        client: SocketAddr,
        link: u32,
        make: impl FnOnce(&Sid) -> Session<T>,
    ) -> Option<SocketId> {
        if !self.pending.add(client.ip()) {
            return None;
        }
        let number = self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.shards[number].lock();
        shard.generation = (shard.generation + 1) % (1 << GENERATION_BITS);
        let generation = shard.generation;
        let node = self.node;
        let place = shard.slots.insert_with(|at| {
            let place = (at * SHARDS + number) as u32;
            Entry {
                session: make(&Sid { node, place, secret }),
                owner: None,
                host,
                client,
                link,
                resumable: false,
                id: SocketId { place, generation },
                secret,
                armed: u64::MAX,
                pending: true,
                activity: Activity::default(),
            }
        });
        shard.arm(place);
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(SocketId { place: (place * SHARDS + number) as u32, generation })
    }

    /// Works with the session of a name; `None`: there is none. What is left of it, if it ended by that, is given to `ended`.
    pub fn with_sid<R>(
        &self,
        sid: &Sid,
        work: impl FnOnce(&mut Entry<T, P>) -> R,
    ) -> Option<(R, Option<Ended<P>>)> {
        self.with(sid.place, |entry| sid.node == self.node && sid.has_secret(&entry.secret), work)
    }

    /// As [`Sessions::with_sid`].
    pub fn with_id<R>(
        &self,
        id: SocketId,
        work: impl FnOnce(&mut Entry<T, P>) -> R,
    ) -> Option<(R, Option<Ended<P>>)> {
        self.with(id.place, |entry| entry.id == id, work)
    }

    fn with<R>(
        &self,
        place: u32,
        is_it: impl FnOnce(&Entry<T, P>) -> bool,
        work: impl FnOnce(&mut Entry<T, P>) -> R,
    ) -> Option<(R, Option<Ended<P>>)> {
        let mut shard = self.shards[place as usize % SHARDS].lock();
        let at = place as usize / SHARDS;
        let entry = shard.slots.get_mut(at).filter(|entry| is_it(entry))?;
        let result = work(entry);
        Some((result, self.settle(&mut shard, at)))
    }

    /// Removes a session that is over, and has others looked at when it is time.
    fn settle(&self, shard: &mut Shard<T, P>, at: usize) -> Option<Ended<P>> {
        let entry = shard.slots.get_mut(at)?;
        let over = entry.session.is_over();
        if entry.pending && (over || entry.session.is_authenticated()) {
            entry.pending = false;
            self.pending.remove(entry.client.ip());
        }
        if !over {
            shard.arm(at);
            return None;
        }
        let entry = shard.slots.remove(at)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        let unsent =
            if entry.resumable { Vec::new() } else { entry.session.unsent().map(Into::into).collect() };
        Some(Ended { owner: entry.owner, unsent })
    }

    /// Works with sessions whose time has come, at most `most`; true: there are more of them.
    pub fn tick(
        &self,
        now: u64,
        mut most: usize,
        ended: &mut Vec<Ended<P>>,
        mut work: impl FnMut(&mut Entry<T, P>),
    ) -> bool {
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some(mut first) =
                shard.timers.first_entry().filter(|first| first.key() * BOSH_TICK <= now)
            {
                if most == 0 {
                    return true;
                }
                most -= 1;
                let step = *first.key();
                let Some(at) = first.get_mut().pop() else {
                    first.remove();
                    continue;
                };
                let Some(entry) = shard.slots.get_mut(at as usize).filter(|entry| entry.armed == step) else {
                    continue;
                };
                entry.armed = u64::MAX;
                if entry.session.deadline().is_none_or(|deadline| deadline <= now) {
                    work(entry);
                }
                ended.extend(self.settle(&mut shard, at as usize));
            }
        }
        false
    }

    /// Notes that the client session of a session has something to do. True: somebody who looks for idle ones has to be
    /// told that there will be some. `now` is in milliseconds and may wrap.
    pub fn stir(&self, id: SocketId, now: u32) -> bool {
        let mut shard = self.shards[id.place as usize % SHARDS].lock();
        let at = id.place as usize / SHARDS;
        let Some(entry) = shard.slots.get_mut(at).filter(|entry| entry.id == id) else { return false };
        if !entry.activity.happens(now) {
            return false;
        }
        shard.stirred.note(now, at as u32, u64::from(id.generation));
        self.quiet.ends()
    }

    /// Goes by [`WALK_PER_CALL`] places from `cursor` on (0: the first), until `most` client sessions were `found`, each with the
    /// link by which it came. Answers where to go on; `None`: there is nothing behind.
    pub fn walk(&self, cursor: u64, most: usize, found: &mut Vec<(P, u32)>) -> Option<u64> {
        let (number, from) = cursor::parts(cursor);
        let shard = self.shards.get(number)?.lock();
        let end = shard.slots.bound().min(from.saturating_add(WALK_PER_CALL));
        for at in from..end {
            if found.len() >= most {
                return Some(cursor::at(number, at));
            }
            found.extend(shard.slots.get(at).and_then(|entry| Some((entry.owner?, entry.link))));
        }
        cursor::next(number, end, shard.slots.bound(), SHARDS)
    }

    /// As [`Table::take_idle`](crate::table::Table::take_idle).
    pub fn take_idle(&self, now: u32, after: u32, most: usize, idle: &mut Vec<(P, u32)>) -> bool {
        self.quiet.set(true);
        let mut noted = false;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { slots, stirred, .. } = &mut *shard;
            stirred.take(now, after, most.saturating_sub(idle.len()), |at, generation, look| {
                match slots.get_mut(at as usize) {
                    Some(entry) if u64::from(entry.id.generation) == generation => {
                        let noticed = entry.activity.look(look);
                        if noticed == Noticed::Idle {
                            idle.extend(entry.owner.map(|owner| (owner, entry.link)));
                        }
                        noticed
                    }
                    _ => Noticed::Gone,
                }
            });
            noted |= !stirred.is_empty();
        }
        if noted {
            self.quiet.set(false);
        }
        noted
    }
}

impl<T: PartialEq + Copy, P> Shard<T, P> {
    /// Puts a session where it is looked at in time.
    fn arm(&mut self, at: usize) {
        let Some(entry) = self.slots.get_mut(at) else { return };
        let Some(deadline) = entry.session.deadline() else { return };
        let step = deadline.div_ceil(BOSH_TICK);
        if step < entry.armed {
            entry.armed = step;
            self.timers.entry(step).or_default().push(at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        // A ticket of the NIF, and a process.
        let size = size_of::<Option<Entry<[u64; 5], core::num::NonZeroUsize>>>();
        assert!(size <= 488, "an entry takes {size} bytes");
    }
}
