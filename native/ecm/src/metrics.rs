//! What is counted and measured. The event loop counts in plain numbers and publishes them, once a turn, into atomic ones
//! that the admin thread reads: neither ever waits for the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use megaphone_core::client::{Client, Refusal};

use crate::context::Counters;

/// Upper bounds of the latency histogram, in units of [`STAMP`]: 1 ms to 120 s. Those above 1 s are for polls, which
/// are held on purpose.
pub(crate) const BUCKETS: [u32; 17] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 300_000, 600_000,
    900_000, 1_200_000,
];

/// Unit of latencies. A stamp of 32 bits goes round after 4.9 days, far above what a poll is held.
pub(crate) const STAMP: Duration = Duration::from_micros(100);

/// What a client connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Between requests, or within one.
    Idle,
    /// ejabberd has a request of it.
    Request,
    /// A WebSocket.
    WebSocket,
    /// It was told its last.
    Closing,
}

impl State {
    /// In the order of their numbers.
    pub(crate) const NAMES: [&'static str; 4] = ["idle", "request", "websocket", "closing"];

    pub(crate) fn of(client: &Client) -> Self {
        match () {
            () if client.is_ending() => Self::Closing,
            () if client.is_tunnel() => Self::WebSocket,
            () if client.in_flight() => Self::Request,
            () => Self::Idle,
        }
    }
}

/// What passed through, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Client connections now, by state.
    pub(crate) clients: [u64; State::NAMES.len()],
    /// Connections that became WebSockets.
    pub(crate) websockets: u64,
    /// Whole requests that ejabberd got.
    pub(crate) requests: u64,
    /// Whole messages of WebSockets that ejabberd got.
    pub(crate) messages: u64,
    /// Bytes from clients and to clients.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Times that the link was lost, after it had been up.
    pub(crate) links_lost: u64,
    /// Times that accepting paused, for lack of descriptors or memory.
    pub(crate) accept_pauses: u64,
    pub(crate) latency: Latency,
}

impl Traffic {
    /// A client has come, in the state idle.
    pub(crate) fn came(&mut self) {
        self.clients[State::Idle as usize] += 1;
    }

    /// A client goes from one state to another one; `None`: it is gone.
    pub(crate) fn moved(&mut self, from: State, to: Option<State>) {
        if Some(from) == to {
            return;
        }
        self.clients[from as usize] = self.clients[from as usize].saturating_sub(1);
        if let Some(to) = to {
            self.clients[to as usize] += 1;
            self.websockets += u64::from(to == State::WebSocket);
        }
    }
}

/// How long requests waited for the first byte of their answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    /// By the first of [`BUCKETS`] that holds them; the last are above all.
    counts: [u64; BUCKETS.len() + 1],
    sum: u64,
}

impl Latency {
    /// Takes one in: `span` in units of [`STAMP`].
    pub(crate) fn observe(&mut self, span: u32) {
        let bucket = BUCKETS.partition_point(|bound| *bound < span);
        self.counts[bucket] += 1;
        self.sum += u64::from(span);
    }
}

/// What does not add up over time, at the moment of publishing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) links: u64,
    pub(crate) links_up: u64,
    pub(crate) links_draining: u64,
    pub(crate) link_queue: u64,
    pub(crate) held: u64,
    /// In seconds since 1970; 0 without certificates.
    pub(crate) certificate_expiry: u64,
    pub(crate) is_starting: bool,
    pub(crate) is_draining: bool,
}

/// What the admin thread sees. A scrape may see one number of this turn and another one of the turn before.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Whether anybody reads it: the loop need not publish otherwise.
    is_read: AtomicBool,
    pub(crate) clients: [AtomicU64; State::NAMES.len()],
    pub(crate) accepted: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) websockets: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) links: AtomicU64,
    pub(crate) links_up: AtomicU64,
    pub(crate) links_draining: AtomicU64,
    pub(crate) links_lost: AtomicU64,
    pub(crate) link_queue: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) certificate_expiry: AtomicU64,
    pub(crate) accept_pauses: AtomicU64,
    pub(crate) refused: [AtomicU64; Refusal::COUNT],
    pub(crate) latency: [AtomicU64; BUCKETS.len() + 1],
    pub(crate) latency_sum: AtomicU64,
    pub(crate) is_starting: AtomicBool,
    pub(crate) is_draining: AtomicBool,
    pub(crate) max_clients: u64,
    pub(crate) max_held: u64,
}

impl Shared {
    pub(crate) fn new(max_clients: usize, max_held: usize) -> Self {
        let zero = AtomicU64::default;
        let zeros = |_| zero();
        Self {
            is_read: AtomicBool::new(false),
            clients: std::array::from_fn(zeros),
            accepted: zero(),
            opened: zero(),
            websockets: zero(),
            requests: zero(),
            messages: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
            links: zero(),
            links_up: zero(),
            links_draining: zero(),
            links_lost: zero(),
            link_queue: zero(),
            held: zero(),
            certificate_expiry: zero(),
            accept_pauses: zero(),
            refused: std::array::from_fn(zeros),
            latency: std::array::from_fn(zeros),
            latency_sum: zero(),
            is_starting: AtomicBool::new(true),
            is_draining: AtomicBool::new(false),
            max_clients: max_clients as u64,
            max_held: max_held as u64,
        }
    }

    pub(crate) fn will_be_read(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// Some sixty plain stores, once a turn of the loop, and only if there is an admin address.
    pub(crate) fn publish(&self, counters: &Counters, traffic: &Traffic, gauges: &Gauges) {
        if !self.is_read.load(Ordering::Relaxed) {
            return;
        }
        let set = |to: &AtomicU64, from: u64| to.store(from, Ordering::Relaxed);
        let set_all =
            |to: &[AtomicU64], from: &[u64]| to.iter().zip(from).for_each(|(to, from)| set(to, *from));
        set_all(&self.clients, &traffic.clients);
        set(&self.accepted, counters.accepted);
        set(&self.opened, counters.opened);
        set(&self.websockets, traffic.websockets);
        set(&self.requests, traffic.requests);
        set(&self.messages, traffic.messages);
        set(&self.bytes_in, traffic.bytes_in);
        set(&self.bytes_out, traffic.bytes_out);
        set(&self.links, gauges.links);
        set(&self.links_up, gauges.links_up);
        set(&self.links_draining, gauges.links_draining);
        set(&self.links_lost, traffic.links_lost);
        set(&self.link_queue, gauges.link_queue);
        set(&self.held, gauges.held);
        set(&self.certificate_expiry, gauges.certificate_expiry);
        set(&self.accept_pauses, traffic.accept_pauses);
        self.refused.iter().zip(counters.refusals.iter()).for_each(|(to, (_, from))| set(to, from));
        set_all(&self.latency, &traffic.latency.counts);
        set(&self.latency_sum, traffic.latency.sum);
        self.is_starting.store(gauges.is_starting, Ordering::Relaxed);
        self.is_draining.store(gauges.is_draining, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A latency at a bucket's bound is in it, one above it in the next one; above all there is one more.
    #[test]
    fn bounds_belong_to_their_bucket() {
        for (at, bound) in BUCKETS.into_iter().enumerate() {
            for (span, bucket) in [(bound - 1, at), (bound, at), (bound + 1, at + 1)] {
                let mut latency = Latency::default();
                latency.observe(span);
                assert_eq!(latency.counts[bucket], 1, "{span}");
                assert_eq!(latency.sum, u64::from(span));
            }
        }
        let mut latency = Latency::default();
        latency.observe(u32::MAX);
        assert_eq!(latency.counts[BUCKETS.len()], 1);
    }

    /// Clients are in one state each; becoming a WebSocket is counted, staying one is not.
    #[test]
    fn states_add_up() {
        let mut traffic = Traffic::default();
        traffic.came();
        traffic.came();
        traffic.moved(State::Idle, Some(State::Request));
        traffic.moved(State::Request, Some(State::WebSocket));
        traffic.moved(State::WebSocket, Some(State::WebSocket));
        assert_eq!((traffic.clients, traffic.websockets), ([1, 0, 1, 0], 1));
        traffic.moved(State::WebSocket, None);
        traffic.moved(State::Idle, None);
        assert_eq!((traffic.clients, traffic.websockets), ([0; 4], 1));
    }
}
