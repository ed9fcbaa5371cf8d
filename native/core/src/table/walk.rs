//! All connections, a bounded number of places at a time: for operators.

use std::hash::Hash;
use std::net::SocketAddr;

use super::input::Chunk;
use super::slot::{Bits, Slot};
use super::{Handle, SHARDS, Table};
use crate::cursor;
use crate::limits::WALK_PER_CALL;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Requests.
    Requests,
    /// Bytes as they are, since a request asked for it.
    Tunnel,
    /// Messages of XMPP.
    Messages,
    /// What Erlang code puts in: it was opened without a link.
    Local,
}

/// Which connections a walk is after. It goes by the others fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    Any,
    /// Those of a link.
    Of(u32),
    /// Those that carry messages.
    Messages,
}

/// What is known of a connection that a walk came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed<P> {
    /// Its name.
    pub handle: Handle,
    /// What it carries.
    pub carries: Carries,
    /// The client's address.
    pub client: SocketAddr,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// Second of the last data.
    pub last_activity: u32,
    /// Bytes of input queued.
    pub input: usize,
    /// Bytes of output queued.
    pub output: usize,
    /// The owner.
    pub owner: Option<P>,
}

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// Goes by [`WALK_PER_CALL`] places from `cursor` on (0: the first), until `most` connections that are wanted were `found`.
    /// Answers where to go on; `None`: there is nothing behind. A connection that is there during the whole walk is found once;
    /// one that comes or goes meanwhile may be.
    pub fn walk(&self, cursor: u64, wanted: Wanted, most: usize, found: &mut Vec<Passed<P>>) -> Option<u64> {
        let (number, from) = cursor::parts(cursor);
        if number >= SHARDS {
            return None;
        }
        let shard = self.shard(number);
        let end = shard.slots.bound().min(from.saturating_add(WALK_PER_CALL));
        for at in from..end {
            if found.len() >= most {
                return Some(cursor::at(number, at));
            }
            let Some(slot) = shard.slots.get(at) else { continue };
            if slot.flags.released || !slot.is_wanted(wanted) {
                continue;
            }
            found.extend(shard.handle(at as u32).map(|handle| slot.passed(handle)));
        }
        cursor::next(number, end, shard.slots.bound(), SHARDS)
    }

    /// The cursor of [`Table::walk`] behind a connection, whether that one is still there or not.
    #[must_use]
    pub const fn behind(handle: &Handle) -> u64 {
        cursor::at(handle.slot as usize % SHARDS, handle.slot as usize / SHARDS + 1)
    }
}

impl<P: Copy, C: Chunk> Slot<P, C> {
    pub(super) const fn carries(&self) -> Carries {
        match () {
            () if self.link == 0 => Carries::Local,
            () if self.bits.has(Bits::MESSAGES) => Carries::Messages,
            () if self.flags.http => Carries::Requests,
            () => Carries::Tunnel,
        }
    }

    const fn is_wanted(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Any => true,
            Wanted::Of(link) => self.link == link,
            Wanted::Messages => self.bits.has(Bits::MESSAGES),
        }
    }

    fn passed(&self, handle: Handle) -> Passed<P> {
        Passed {
            handle,
            carries: self.carries(),
            client: self.client(),
            tls: self.bits.has(Bits::TLS),
            last_activity: self.last_activity,
            input: self.queues.as_ref().map_or(0, |queues| queues.input.len()),
            output: self.queues.as_ref().map_or(0, |queues| queues.output.len()),
            owner: self.owner,
        }
    }
}
