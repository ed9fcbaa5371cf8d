//! What the event loop tells of itself: latencies, states of clients, and what it publishes.

use megaphone_core::client::Timer;

use super::Server;
use crate::metrics::{Gauges, STAMP, State};
use crate::slab::Slot;

/// What a call of a client's state machine told of its requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// A whole request went to the node.
    pub(crate) requested: bool,
    /// The first bytes of an answer came.
    pub(crate) answered: bool,
}

impl Server {
    /// The time in units of [`STAMP`], which goes round; never 0, which stands for none.
    pub(super) fn stamp(&self) -> u32 {
        (((self.now - self.started).as_micros() / STAMP.as_micros()) as u32).max(1)
    }

    /// Publishes the figures for the admin address.
    pub(super) fn publish(&self) {
        self.shared.publish(
            &self.counters,
            &self.traffic,
            &Gauges {
                links: self.links.iter().count() as u64,
                links_up: self.links.up().count() as u64,
                links_draining: self.links.up().filter(|link| link.draining).count() as u64,
                link_queue: self.links.iter().map(|link| link.pending() as u64).sum(),
                held: self.held as u64,
                certificate_expiry: self.tls.expiry().unwrap_or(0),
                is_starting: self.life.is_starting(),
                is_draining: self.life.is_ending(),
            },
        );
    }
}

/// A waiting client has no time limit, so its `deadline` holds the stamp of its request instead: each request is
/// measured, and none takes memory for it. Answers how long a request that was answered now had waited. What cannot be
/// measured (an answer while an older one is still being written) is left out.
pub(super) fn waited(slot: &mut Slot, told: Told, now: u32) -> Option<u32> {
    let since = if slot.timer == Timer::None { slot.deadline } else { 0 };
    (told.answered && since != 0).then(|| {
        slot.deadline = 0;
        now.wrapping_sub(since)
    })
}

/// The `deadline` of a client that waits from now on, or goes on waiting.
pub(super) fn waiting_since(slot: &Slot, told: Told, now: u32) -> u32 {
    match (told.requested, slot.timer) {
        (true, _) => now,
        (false, Timer::None) => slot.deadline,
        (false, _) => 0,
    }
}

/// A client's state before a call and after it; `None`: it is closed.
pub(super) fn state(slot: &Slot) -> Option<State> {
    (!slot.client.is_closed()).then(|| State::of(&slot.client))
}
