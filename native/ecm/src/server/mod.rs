//! The event loop: one thread, edge-triggered readiness, nothing that blocks.
//!
//! Each turn: wait; accept; work off the link's frames; read each client that has something once, in turn, as long as
//! the link takes it; look for passed time limits in a part of the slots; write the link.

mod clients;
mod node;
mod secure;

use std::collections::{HashSet, VecDeque};
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

use crate::Listeners;
use crate::config::Config;
use crate::context::Counters;
use crate::link::Link;
use crate::slab::{Bits, Slab};
use crate::tls::Tls;

// Client tokens are ids: a generation that high would take 2^32 uses of the slot with the highest index.
const PLAIN: Token = Token(usize::MAX);
const LINK: Token = Token(usize::MAX - 1);
const SHUTDOWN: Token = Token(usize::MAX - 2);
const WAKER: Token = Token(usize::MAX - 3);
const SECURE: Token = Token(usize::MAX - 4);
const RELOAD: Token = Token(usize::MAX - 5);

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

/// Where clients come in.
pub(crate) struct Door {
    token: Token,
    listener: TcpListener,
    is_tls: bool,
    /// Someone may be waiting.
    acceptable: bool,
}

impl Door {
    fn may_accept(&self, tls: &Tls, config: &Config, now: Instant) -> bool {
        self.acceptable && (!self.is_tls || tls.has_room(config.handshakes(), now))
    }
}

/// The event loop and everything in it.
pub(crate) struct Server {
    poll: Poll,
    /// None when the manager stops.
    doors: Vec<Door>,
    shutdown: UnixStream,
    /// Says when certificates are to be read again.
    reload: Option<UnixStream>,
    tls: Tls,
    config: Config,
    slab: Slab,
    link: Link,
    closing: HashSet<u64>,
    /// Clients with something to read, in turn.
    queue: VecDeque<u64>,
    /// Clients may not be read: the link's output is above its mark.
    congested: bool,
    link_readable: bool,
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
    reported: (Instant, Counters),
}

impl Server {
    pub(crate) fn new(listeners: Listeners, config: Config, shutdown: StdUnixStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        shutdown.set_nonblocking(true)?;
        let mut shutdown = UnixStream::from_std(shutdown);
        let (secure, certificates) = listeners.tls.unzip();
        let mut doors = Vec::new();
        for (token, listener) in [(PLAIN, listeners.plain), (SECURE, secure)] {
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            doors.push(Door { token, listener, is_tls: token == SECURE, acceptable: false });
        }
        let mut reload = None;
        if let Some(stream) = listeners.reload {
            stream.set_nonblocking(true)?;
            let stream = reload.insert(UnixStream::from_std(stream));
            poll.registry().register(stream, RELOAD, Interest::READABLE)?;
        }
        poll.registry().register(&mut shutdown, SHUTDOWN, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let now = Instant::now();
        Ok(Self {
            poll,
            doors,
            shutdown,
            reload,
            tls: Tls::new(certificates),
            slab: Slab::default(),
            link: Link::new(&config, waker, now),
            config,
            closing: HashSet::new(),
            queue: VecDeque::new(),
            congested: false,
            link_readable: false,
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
            self.link_step();
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
            // Before the link is read: it may have been connected just now.
            self.link_step();
            self.accept();
            self.read_link();
            self.continue_handshakes();
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
        if self.counters.refused() != before.refused() {
            warn!("requests were refused or timed out; {}", self.counters);
        }
        self.reported = (self.now, self.counters);
    }

    fn timeout(&self) -> Option<Duration> {
        let runnable = !self.queue.is_empty() && !self.congested;
        let may_accept = self.doors.iter().any(|door| door.may_accept(&self.tls, &self.config, self.now))
            && self.accept_after.is_none()
            && self.has_room();
        let runnable = runnable || !self.tls.queue.is_empty();
        if runnable || self.link_readable || may_accept {
            return Some(Duration::ZERO);
        }
        let sweep = (self.slab.len() > 0).then(|| self.swept + TICK);
        [sweep, self.link.deadline(), self.accept_after, self.stop_by]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn event(&mut self, event: &Event) {
        match event.token() {
            token @ (PLAIN | SECURE) => {
                self.doors
                    .iter_mut()
                    .filter(|door| door.token == token)
                    .for_each(|door| door.acceptable = true);
            }
            RELOAD => self.reload(),
            LINK => self.link_readable |= event.is_readable() || event.is_read_closed() || event.is_error(),
            SHUTDOWN => self.stop(),
            WAKER => {}
            Token(id) => self.client_event(id as u64, event),
        }
    }

    fn tick(&self) -> u32 {
        ticks(self.now - self.started)
    }

    fn reload(&mut self) {
        let Some(stream) = &mut self.reload else { return };
        // Several signals are one.
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        self.tls.reload();
    }

    fn stop(&mut self) {
        // Edge-triggered: read or not, it is told once; a second signal changes nothing.
        let _ = self.shutdown.read(&mut [0; 16]);
        if self.stop_by.is_some() {
            return;
        }
        info!("stopping: {} clients", self.slab.len());
        self.stop_by = Some(self.now + self.config.stop_timeout);
        self.doors.clear();
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
        if self.link.window().is_some() && self.link.pending() > 0 {
            return false;
        }
        (0..self.slab.capacity() as u32).all(|index| {
            self.slab.at(index).is_none_or(|slot| {
                let records =
                    slot.bits.has(Bits::TLS).then(|| self.tls.get(index).map_or(0, |tls| tls.pending()));
                slot.client.pending() + records.unwrap_or(0) == 0
            })
        })
    }
}

impl Config {
    /// Most handshakes at a time that are not complete.
    fn handshakes(&self) -> usize {
        self.max_handshakes.min(self.max_clients / limits::HANDSHAKE_SHARE).max(1)
    }

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
