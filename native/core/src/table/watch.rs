//! Which processes are watched, and in which shards they have something.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crossbeam_utils::CachePadded;

use super::SHARDS;
use crate::sync::{Mutex, RandomState};

/// Bit set of shards.
pub(super) type ShardSet = u64;

const _: () = assert!(SHARDS <= ShardSet::BITS as usize);

type Part<P> = CachePadded<Mutex<HashMap<P, ShardSet>>>;

/// The watched processes. One monitor a process, placed when it first gets something in the table and kept until it
/// dies: so nothing has to be found and taken back when a wait ends, and a monitor costs a process at most once.
#[derive(Debug)]
pub(super) struct Watched<P> {
    parts: Box<[Part<P>]>,
    hasher: RandomState,
}

impl<P: Copy + Eq + Hash> Watched<P> {
    pub(super) fn new() -> Self {
        let parts = (0..SHARDS).map(|_| CachePadded::new(Mutex::new(HashMap::new()))).collect();
        Self { parts, hasher: RandomState::new() }
    }

    fn part(&self, pid: P) -> &Mutex<HashMap<P, ShardSet>> {
        &self.parts[self.hasher.hash_one(pid) as usize % SHARDS]
    }

    /// Notes that `pid` has something in `shard`; true when it was not watched before and a monitor has to be placed.
    pub(super) fn add(&self, pid: P, shard: usize) -> bool {
        let mut part = self.part(pid).lock();
        let known = part.len();
        *part.entry(pid).or_insert(0) |= 1 << shard;
        part.len() > known
    }

    /// Forgets a dead process; the shards to look into.
    pub(super) fn remove(&self, pid: P) -> ShardSet {
        let mut part = self.part(pid).lock();
        let set = part.remove(&pid).unwrap_or(0);
        if part.is_empty() {
            *part = HashMap::new();
        }
        set
    }

    /// Remembers a dead process of which not all was cleaned up.
    pub(super) fn put_back(&self, pid: P, set: ShardSet) {
        *self.part(pid).lock().entry(pid).or_insert(0) |= set;
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}
