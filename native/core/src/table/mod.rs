//! The connection table: the virtual connections of all links, and those opened from Erlang.
//!
//! # Contract
//!
//! * A connection is named by a [`Handle`] that is never used again while the table lives. Every operation checks all
//!   of it; one that names a connection that is gone answers [`Closed`] and touches nothing.
//! * Input is handed out in the order in which it was put, each byte once. Any number of readers may wait; they are
//!   served first come, first served. A reader that died or cancelled never takes data: what was sent to it before a
//!   cancel is still delivered ([`Table::cancel`] then answers false).
//! * Data queued before a close is still read; then readers get closed. A close wakes every reader and sender.
//! * A put that does not fit is refused whole, says which limit, and changes nothing. The limit is one of bytes: small
//!   pieces are joined as they come, so what a queue costs follows its bytes, and a limit on pieces would only refuse a
//!   peer that writes small ones.
//! * The death of an owner closes its connection. The death of a reader or sender removes its wait.
//! * Messages leave under the lock of the connection's shard, so two of them cannot overtake each other. Sending one
//!   is bounded and takes no lock of this table.
//!
//! # Parts
//!
//! * [`Table`] with what readers, senders and owners call (`api`), what processes of polls call (`poll`), and what a link
//!   calls (`wire`)
//! * [`Link`]: what the table knows of a link, and the queue of its connections that have output
//! * `messages`: what owners of connections of kind XMPP call
//! * `shard`, `slot`, `input`: where connections live
//! * `connection`: what happens in one connection
//! * `watch`: which processes are watched
//! * `walk`: all connections in turn, for operators
//!
//! A connection with nothing queued costs one slot (see `slot`) and its places in the indexes, and no heap block.

mod api;
mod connection;
mod input;
mod lines;
mod link;
mod messages;
mod poll;
mod shard;
mod slot;
#[cfg(test)]
mod tests;
mod walk;
mod watch;
mod wire;

use std::hash::{BuildHasher, Hash};
use std::net::SocketAddr;

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;

pub use api::{LinkInfo, Sent, Stats};
pub use input::{Chunk, concat};
pub use link::{Link, Served};
pub use messages::{Activated, Batch};
pub use slot::Active;
pub use walk::{Carries, Passed, Wanted};
pub use wire::{Action, InputEnd};

use crate::limits::{DEATHS_PER_CALL, TableLimits};
use crate::stirred::Quiet;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, RandomState};
use link::Links;
use messages::MessageLimits;
use shard::{Effect, Shard};
use watch::Watched;

/// Shards of the table. A power of two; more than the schedulers of a large machine, so that two of them seldom meet.
pub const SHARDS: usize = if cfg!(loom) { 2 } else { 64 };

/// Names a connection: opaque to users, checked in full by every operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Incarnation of the link, 0 for a connection opened from Erlang.
    pub link: u32,
    /// The id on the wire.
    pub id: u64,
    /// Shard and place in it.
    pub slot: u32,
    /// Never repeated within a shard.
    pub generation: u64,
}

/// The connection is closed, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// Why a put or open was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// See [`Closed`].
    Closed,
    /// More than [`LOCAL_QUEUE`](crate::limits::LOCAL_QUEUE) bytes would wait.
    QueueBytes,
    /// [`MAX_LOCAL_CONNECTIONS`](crate::limits::MAX_LOCAL_CONNECTIONS) are open.
    Connections,
    /// [`MAX_LINKS`](crate::limits::MAX_LINKS) are open.
    Links,
}

/// Why a read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// See [`Closed`].
    Closed,
    /// The connection is active, or the length is beyond [`MAX_RECV`](crate::limits::MAX_RECV) or the request.
    Invalid,
    /// [`MAX_WAITERS`](crate::limits::MAX_WAITERS) wait already.
    Waiters,
}

/// How input is cut for readers, as gen_tcp's option `packet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// Bytes.
    Raw,
    /// Request line, header fields, end of head; strings as lists.
    Http,
    /// The same, strings as binaries.
    HttpBin,
    /// Header fields and end of head; strings as lists.
    Httph,
    /// The same, strings as binaries.
    HttphBin,
}

/// Chunks in order; mostly there is one.
pub type Chunks<C> = SmallVec<[C; 1]>;

/// Input that is handed out.
#[derive(Debug)]
pub enum Data<C> {
    /// Bytes.
    Bytes(Chunks<C>),
    /// One complete line (or folded field) for the decoder of HTTP packets.
    Line {
        /// How strings are to be given.
        packet: Packet,
        /// False for a request line, true for a field or the end of the head.
        field: bool,
        /// The line with its end.
        bytes: Chunks<C>,
    },
}

/// Why a reader gets no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection was closed.
    Closed,
    /// The link, or the server, went down.
    Shutdown,
}

/// What processes are told.
#[derive(Debug)]
pub enum Message<C> {
    /// Answers a wait.
    Answer {
        /// As given to the waiter.
        token: u64,
        /// Data or the end.
        result: Result<Data<C>, End>,
    },
    /// Answers a reader in the original's plain form.
    Plain(Result<Data<C>, End>),
    /// There is room for a blocked sender, or never will be.
    Room {
        /// As given to the sender.
        token: u64,
        /// `Err` when the connection was closed.
        result: Result<(), Closed>,
    },
    /// Data for the owner of an active connection.
    Active(Handle, Data<C>),
    /// An active connection was closed.
    ActiveClosed(Handle),
    /// An active connection became passive because its count is used up.
    Passive(Handle),
    /// For a link's sender process: there is output.
    LinkOutput,
    /// For the opener of a connection without a link: there is output.
    Output(Handle),
}

/// What the table needs of the world around it.
pub trait Host {
    /// A process.
    type Pid: Copy + Eq + Hash;
    /// Bytes that are kept.
    type Chunk: Chunk;

    /// Sends a message. Called under the lock of a shard: must be bounded and must not call the table.
    fn deliver(&mut self, to: Self::Pid, message: Message<Self::Chunk>);

    /// Whether a process still runs. Asked before data is taken for it.
    fn is_alive(&mut self, pid: Self::Pid) -> bool;

    /// The client of a request that was taken whole is gone. A process that was to answer it is to be ended. Called under the
    /// lock of a shard, as [`Host::deliver`] is.
    fn abandon(&mut self, pid: Self::Pid, handle: Handle);

    /// The client of a request that was taken whole has gone, and has not got all of the answer, which was given. Called under
    /// the lock of a shard, as [`Host::deliver`] is.
    fn lost(&mut self, _pid: Self::Pid, _handle: Handle) {}

    /// The client of a request that was taken whole has sent another one, which waits for the answer to this one. Called under
    /// the lock of a shard, as [`Host::deliver`] is.
    fn hurry(&mut self, _pid: Self::Pid, _handle: Handle) {}

    /// False for what owns connections without being a process: it does not die, and is sent nothing.
    fn is_process(&mut self, _pid: Self::Pid) -> bool {
        true
    }

    /// Arranges for [`Table::process_down`] when the process ends; false when it has ended. Called without locks.
    fn monitor(&mut self, pid: Self::Pid) -> bool;

    /// Milliseconds on a clock that may wrap.
    fn millis(&mut self) -> u32 {
        0
    }

    /// Something has happened on a connection with messages, for the first time since [`Table::take_idle`] found nothing.
    /// Called under the lock of a shard, as [`Host::deliver`] is.
    fn busy(&mut self) {}
}

/// The table. All operations may be called from any thread at once; `now` is a second on a clock of the caller's.
#[derive(Debug)]
#[allow(clippy::type_complexity)]
pub struct Table<P, C> {
    shards: Box<[CachePadded<Mutex<Shard<P, C>>>]>, // padded: neighbours shall not share a cache line
    hasher: RandomState,
    watched: Watched<P>,
    links: Links<P>,
    next_local: AtomicU64,
    locals: Arc<AtomicUsize>,
    limits: TableLimits,
    message_limits: MessageLimits,
    quiet: Quiet,
}

impl<P: Copy + Eq + Hash, C: Chunk> Default for Table<P, C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Copy + Eq + Hash, C: Chunk> Table<P, C> {
    /// An empty table with a random hash key of its own: a peer cannot choose ids that meet in one shard.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(TableLimits::default())
    }

    /// An empty table with other limits.
    #[must_use]
    pub fn with_limits(limits: TableLimits) -> Self {
        let locals = Arc::new(AtomicUsize::new(0));
        let shard = |number| CachePadded::new(Mutex::new(Shard::new(number, Arc::clone(&locals))));
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            hasher: RandomState::new(),
            watched: Watched::new(),
            links: Links::new(limits.links),
            next_local: AtomicU64::new(1),
            locals,
            limits,
            message_limits: MessageLimits::new(),
            quiet: Quiet::new(),
        }
    }

    fn key_hash(&self, link: u32, id: u64) -> u64 {
        self.hasher.hash_one((link, id))
    }

    /// The shard of a key: bits that the shard's own index does not use first.
    const fn shard_of(hash: u64) -> usize {
        (hash >> 48) as usize % SHARDS
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard<P, C>> {
        self.shards[number].lock()
    }

    fn shard_for(&self, handle: &Handle) -> MutexGuard<'_, Shard<P, C>> {
        self.shard(handle.slot as usize % SHARDS)
    }

    /// Does what has to be done outside the shard's lock.
    fn apply<H: Host<Pid = P, Chunk = C>>(&self, effect: Effect, link: Option<&Link<P>>, host: &mut H) {
        let Effect { ready, handle, .. } = effect;
        if !ready || handle.link == 0 {
            return;
        }
        match link {
            Some(link) => link.push_ready(handle.slot, handle.generation, host),
            None => {
                if let Some(link) = self.links.get(handle.link) {
                    link.push_ready(handle.slot, handle.generation, host);
                }
            }
        }
    }

    /// Has a process watched that owns or waits for something in a shard; cleans up at once if it is dead.
    fn watch<H: Host<Pid = P, Chunk = C>>(&self, pid: P, shard: usize, now: u32, host: &mut H) {
        if host.is_process(pid) && self.watched.add(pid, shard) && !host.monitor(pid) {
            // A process that was dead before it was watched; it had little time to get much.
            while self.process_down(pid, now, host) {}
        }
    }

    /// To be called when a watched process has ended: its connections close, its waits are forgotten.
    ///
    /// At most [`DEATHS_PER_CALL`] of its things are cleaned up; true when there are more, and it has to be called again.
    #[must_use]
    pub fn process_down<H: Host<Pid = P, Chunk = C>>(&self, pid: P, now: u32, host: &mut H) -> bool {
        let mut set = self.watched.remove(pid);
        let mut budget = DEATHS_PER_CALL;
        while set != 0 {
            let number = set.trailing_zeros() as usize;
            let effects =
                self.shard(number).process_down(pid, now, self.limits.output_queue, &mut budget, host);
            for effect in effects {
                self.apply(effect, None, host);
            }
            if budget == 0 {
                self.watched.put_back(pid, set);
                return true;
            }
            set &= set - 1;
        }
        false
    }

    /// The links that are up.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Link<P>>> {
        self.links.all()
    }
}

/// The address of nobody, for connections whose peer has none.
pub(crate) const NO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
