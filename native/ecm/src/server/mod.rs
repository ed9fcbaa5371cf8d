//! The event loop: one thread, edge-triggered readiness, nothing that blocks.
//!
//! Each turn: wait; accept; work off the links' frames; read each client that has something once, in turn, as long as
//! its link takes it; look for passed time limits in a part of the slots; write the links.

mod admit;
mod clients;
mod node;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaphone_core::client::{Client, Timer};
use megaphone_core::limits;
use mio::event::Event;
use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{info, warn};

use crate::config::Config;
use crate::context::Counters;
use crate::guard::Guard;
use crate::link::Link;
use crate::links::Links;
use crate::refusals::RefusalLog;
use crate::slab::Slab;

// Client tokens are ids: a generation that high would take 2^32 uses of the slot with the highest index.
const LISTENER: Token = Token(usize::MAX);
const SHUTDOWN: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
/// The first link; the others follow below.
const LINKS: usize = usize::MAX - 3;

/// Unit of deadlines, and the pace of the sweep that looks for passed ones.
const TICK: Duration = Duration::from_millis(100);

/// Sweeps until all slots were visited: time limits are kept to a second. A timer wheel would hold 8 to 16 bytes a
/// client; visiting 15,000 idle clients every second took less than 10 ms of processor time in 10 s.
const SWEEPS: usize = 10;

/// Most reads of the link in one turn, so that clients get theirs: 1 MiB.
const LINK_READS: usize = 16;

/// Most clients accepted in one turn.
const ACCEPTS: usize = 256;

/// Least time between two reports of refused requests.
const REPORT: Duration = Duration::from_secs(60);

/// The event loop and everything in it.
pub(crate) struct Server {
    poll: Poll,
    listener: Option<TcpListener>,
    shutdown: UnixStream,
    config: Config,
    slab: Slab,
    links: Links,
    /// Clients with something to read, in turn.
    queue: VecDeque<u64>,
    /// The listener may have someone waiting.
    acceptable: bool,
    accept_after: Option<Instant>,
    accept_complained: bool,
    /// Bytes held by all clients.
    held: usize,
    scratch: Vec<u8>,
    started: Instant,
    now: Instant,
    swept: Instant,
    sweep_at: usize,
    stop_by: Option<Instant>,
    counters: Counters,
    guard: Guard,
    refusal_log: RefusalLog,
    /// When it was said last that new clients wait.
    pace_said: Option<Instant>,
    reported: (Instant, Counters),
}

impl Server {
    pub(crate) fn new(
        listener: std::net::TcpListener,
        config: Config,
        shutdown: StdUnixStream,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        listener.set_nonblocking(true)?;
        shutdown.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let mut shutdown = UnixStream::from_std(shutdown);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut shutdown, SHUTDOWN, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let now = Instant::now();
        Ok(Self {
            poll,
            listener: Some(listener),
            shutdown,
            slab: Slab::default(),
            links: Links::new(&config, &waker, now),
            guard: Guard::new(config.guard.clone()),
            refusal_log: RefusalLog::default(),
            pace_said: None,
            config,
            queue: VecDeque::new(),
            acceptable: false,
            accept_after: None,
            accept_complained: false,
            held: 0,
            scratch: vec![0; 65_536],
            started: now,
            now,
            swept: now,
            sweep_at: 0,
            stop_by: None,
            counters: Counters::default(),
            reported: (now, Counters::default()),
        })
    }

    /// Serves until the shutdown stream says something or ends.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            self.links_step();
            if self.is_finished() {
                break;
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.now = Instant::now();
            for event in &events {
                self.event(event);
            }
            // Before the links are read: one may have been connected just now.
            self.links_step();
            self.accept();
            self.read_links();
            self.read_clients();
            self.sweep();
            self.report();
        }
        info!("stopped; {}", self.counters);
        Ok(())
    }

    /// Tells what was refused, once a minute at most: a line for each would let a client fill the disk.
    fn report(&mut self) {
        let (at, before) = self.reported;
        if self.now < at + REPORT {
            return;
        }
        if self.counters.refusals.all() != before.refusals.all() {
            warn!("clients were refused; {}", self.counters);
        }
        self.reported = (self.now, self.counters);
    }

    fn timeout(&self) -> Option<Duration> {
        let may_accept = self.acceptable && self.accept_after.is_none() && self.has_room();
        if !self.queue.is_empty() || self.links.iter().any(|link| link.readable) || may_accept {
            return Some(Duration::ZERO);
        }
        let sweep = (self.slab.len() > 0).then(|| self.swept + TICK);
        let links = self.links.iter().filter_map(Link::deadline);
        [sweep, self.accept_after, self.stop_by]
            .into_iter()
            .flatten()
            .chain(links)
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn event(&mut self, event: &Event) {
        match event.token() {
            LISTENER => self.acceptable = true,
            SHUTDOWN => self.stop(),
            WAKER => {}
            Token(token) if token > LINKS - limits::MAX_MANAGER_LINKS => {
                if let Some(link) = self.links.get((LINKS - token) as u8) {
                    link.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                }
            }
            Token(id) => self.client_event(id as u64, event),
        }
    }

    fn tick(&self) -> u32 {
        ticks(self.now - self.started)
    }

    /// Milliseconds since the start, for buckets: they wrap.
    fn millis(&self) -> u32 {
        (self.now - self.started).as_millis() as u32
    }

    fn stop(&mut self) {
        // Edge-triggered: read or not, it is told once; a second signal changes nothing.
        let _ = self.shutdown.read(&mut [0; 16]);
        if self.stop_by.is_some() {
            return;
        }
        info!("stopping: {} clients", self.slab.len());
        self.stop_by = Some(self.now + self.config.stop_timeout);
        self.listener = None;
        for index in 0..self.slab.capacity() {
            // Indexes are below 2^32.
            self.with(index as u32, false, Client::stop);
        }
    }

    /// Whether a stopping manager has nothing left to write.
    fn is_finished(&mut self) -> bool {
        let Some(by) = self.stop_by else { return false };
        if Instant::now() >= by {
            warn!("stopping took too long: {} clients are cut off", self.slab.len());
            return true;
        }
        if self.links.iter().any(|link| link.window().is_some() && link.pending() > 0) {
            return false;
        }
        (0..self.slab.capacity())
            .all(|index| self.slab.at(index as u32).is_none_or(|slot| slot.client.pending() == 0))
    }
}

impl Config {
    /// A time limit in ticks, at least one.
    fn ticks(&self, timer: Timer) -> u32 {
        let limit = match timer {
            Timer::None => Duration::MAX,
            Timer::Idle => self.idle_timeout,
            Timer::Head => self.head_timeout,
            Timer::Body => self.body_timeout,
            Timer::Send => self.send_timeout,
            Timer::Linger => self.linger_timeout,
        };
        ticks(limit).max(1)
    }
}

/// 2^32 ticks are 13 years; later all limits are held to be passed.
fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
