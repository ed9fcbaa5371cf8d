//! Where a walk through the shards of a table stands, in one word that a caller keeps between two calls. It starts at 0.

/// At a place of a shard.
pub(crate) const fn at(shard: usize, place: usize) -> u64 {
    (shard as u64) << 32 | place as u64
}

/// The shard, and the place in it.
pub(crate) const fn parts(cursor: u64) -> (usize, usize) {
    ((cursor >> 32) as usize, (cursor & u32::MAX as u64) as usize)
}

/// Where to go on when the places before this one were gone by, of a shard that has `bound` of them; `None`: it was the last one
/// of the last of `shards`.
pub(crate) const fn next(shard: usize, place: usize, bound: usize, shards: usize) -> Option<u64> {
    if place < bound {
        Some(at(shard, place))
    } else if shard + 1 < shards {
        Some(at(shard + 1, 0))
    } else {
        None
    }
}
