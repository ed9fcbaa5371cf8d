//! The NIF library: terms in, one call of `megaphone-core`, terms out.
//!
//! * `host`: what the core's table needs of the BEAM: processes, binaries, messages, monitors
//! * `pid`: a process in one word
//! * `terms`: conversion of handles, addresses, packets
//! * `links`: NIFs about links
//! * `connections`: NIFs about connections
//! * `parse`: NIFs that take requests apart
//! * `bosh`: NIFs of BOSH sessions
//! * `messages`: NIFs for connections whose messages become elements
//! * `walk`: NIFs that go by all connections
//! * `polls`: NIFs for processes that take a request whole and end with their client
//!
//! Every NIF is bounded and runs on a normal scheduler; each one's bound is a limit of `megaphone_core::limits`.
//! Panics become Erlang exceptions (rustler unwinds); none can be caused by a peer.

mod bosh;
mod connections;
mod host;
mod links;
mod messages;
mod parse;
mod pid;
mod polls;
mod terms;
mod walk;
mod xml;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use megaphone_core::table::Table;
use rustix::time::{ClockId, clock_gettime};
use rustler::{Env, Term};

use host::Bin;
use pid::Pid;

/// The one table of the node. It lives as long as the library, which is never unloaded (see `load`).
static TABLE: LazyLock<Table<Pid, Bin>> = LazyLock::new(Table::new);

static START: LazyLock<u64> = LazyLock::new(seconds);

/// Seconds since the library was loaded: the clock of the table's activity times.
fn now() -> u32 {
    (seconds() - *START) as u32 // 136 years
}

/// Milliseconds since the machine was started.
fn time() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    (time.tv_sec * 1_000 + time.tv_nsec / 1_000_000).cast_unsigned()
}

/// The same of the last 49 days.
fn millis() -> u32 {
    time() as u32
}

/// The clock that the kernel keeps by itself. Reading the exact one takes as long as half of a short call.
fn seconds() -> u64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec.cast_unsigned() // since boot, so never negative
}

/// The library was set up before: its table, and the resource types that live objects belong to, cannot be made twice.
static LOADED: AtomicBool = AtomicBool::new(false);

/// Runs once in the life of a node. A second load, after the module was deleted and purged, is refused: links that
/// are still up would hold references that the new instance does not know.
fn load(env: Env<'_>, _info: Term<'_>) -> bool {
    if LOADED.swap(true, Ordering::SeqCst) {
        return false;
    }
    LazyLock::force(&START);
    LazyLock::force(&TABLE);
    env.register::<links::LinkRef>().is_ok() && env.register::<host::Watcher>().is_ok()
}

rustler::init!("megaphone_nif", load = load);
