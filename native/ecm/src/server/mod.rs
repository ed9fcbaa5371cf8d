//! The event loop: one thread, edge-triggered readiness, nothing that blocks.
//!
//! Each turn: wait; accept; work off the links' frames; read each client that has something once, in turn, as long as
//! its link takes it; look for passed time limits in a part of the slots; write the links.

mod admit;
mod clients;
mod drain;
pub(crate) mod figures;
mod node;
mod secure;

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaphone_core::client::Timer;
use megaphone_core::limits;
use mio::event::Event;
use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{info, warn};

use crate::Listeners;
use crate::complaint::Complaint;
use crate::config::Config;
use crate::context::Counters;
use crate::guard::Guard;
use crate::link::Link;
use crate::links::Links;
use crate::listen::{Listener, Origin};
use crate::metrics::{Shared, Traffic};
use crate::refusals::RefusalLog;
use crate::slab::Slab;
use crate::tls::Tls;
use drain::Life;

// Client tokens are ids: a generation that high would take 2^32 uses of the slot with the highest index.
const PLAIN: Token = Token(usize::MAX);
const SECURE: Token = Token(usize::MAX - 1);
const SHUTDOWN: Token = Token(usize::MAX - 2);
const WAKER: Token = Token(usize::MAX - 3);
/// The first link; the others follow below.
const LINKS: usize = usize::MAX - 4;

/// Unit of deadlines, and the pace of the sweep that looks for passed ones.
const TICK: Duration = Duration::from_millis(100);

/// Sweeps until all slots were visited: time limits are kept to a second. A timer wheel would hold 8 to 16 bytes a
/// client; visiting 15,000 idle clients every second took less than 10 ms of processor time in 10 s.
const SWEEPS: usize = 10;

/// Most reads of the link in one turn, so that clients get theirs: 1 MiB.
const LINK_READS: usize = 16;

/// Most clients accepted in one turn.
const ACCEPTS: usize = 256;

/// Least time between two reports of refused requests, and between two complaints of one kind.
const REPORT: Duration = Duration::from_secs(60);

/// Where clients come in.
struct Door {
    token: Token,
    listener: TcpListener,
    origin: Origin,
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
    /// None when the manager takes no clients any more.
    doors: Vec<Door>,
    tls: Tls,
    shutdown: UnixStream,
    config: Config,
    slab: Slab,
    links: Links,
    /// Clients with something to read, in turn.
    queue: VecDeque<u64>,
    /// Those who wait for a link, in turn, while there is none and `link_by` has not passed.
    waiting: VecDeque<u64>,
    link_by: Option<Instant>,
    accept_after: Option<Instant>,
    accept_complaint: Complaint,
    full_complaint: Complaint,
    pace_complaint: Complaint,
    /// Bytes held by all clients.
    held: usize,
    scratch: Vec<u8>,
    started: Instant,
    now: Instant,
    swept: Instant,
    sweep_at: usize,
    life: Life,
    counters: Counters,
    guard: Guard,
    refusal_log: RefusalLog,
    traffic: Traffic,
    shared: Arc<Shared>,
    reported: (Instant, Counters),
}

impl Server {
    pub(crate) fn new(
        listeners: Listeners,
        config: Config,
        shutdown: StdUnixStream,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        shutdown.set_nonblocking(true)?;
        let mut shutdown = UnixStream::from_std(shutdown);
        let (secure, certificates) = listeners.tls.unzip();
        let mut doors = Vec::new();
        for (token, listener) in [(PLAIN, listeners.plain), (SECURE, secure)] {
            let Some(Listener { socket, origin }) = listener else { continue };
            socket.set_nonblocking(true)?;
            let mut listener = TcpListener::from_std(socket);
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            doors.push(Door { token, listener, origin, is_tls: token == SECURE, acceptable: false });
        }
        poll.registry().register(&mut shutdown, SHUTDOWN, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let now = Instant::now();
        Ok(Self {
            poll,
            doors,
            tls: Tls::new(certificates, now),
            shutdown,
            slab: Slab::default(),
            links: Links::new(&config, &waker, now),
            guard: Guard::new(config.guard.clone()),
            refusal_log: RefusalLog::default(),
            config,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            link_by: None,
            accept_after: None,
            accept_complaint: Complaint::default(),
            full_complaint: Complaint::default(),
            pace_complaint: Complaint::default(),
            held: 0,
            scratch: vec![0; 65_536],
            started: now,
            now,
            swept: now,
            sweep_at: 0,
            life: Life::new(now),
            counters: Counters::default(),
            traffic: Traffic::default(),
            shared,
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
            self.publish();
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
            self.end_wait();
            self.continue_handshakes();
            self.read_clients();
            self.sweep();
            self.live();
            self.report();
        }
        self.links.close();
        info!("stopped; {}", self.counters);
        Ok(())
    }

    /// Tells of certificates that expire, and of what was refused, once a minute at most: a line for each would let a client
    /// fill the disk.
    fn report(&mut self) {
        self.tls.look(self.now);
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
        let may_accept = self.accept_after.is_none()
            && self.has_room()
            && self.doors.iter().any(|door| door.may_accept(&self.tls, &self.config, self.now));
        let runnable = !self.queue.is_empty() || !self.tls.queue.is_empty();
        if runnable || self.links.iter().any(|link| link.readable) || may_accept {
            return Some(Duration::ZERO);
        }
        let sweep = (self.slab.len() > 0).then(|| self.swept + TICK);
        let links = self.links.iter().filter_map(Link::deadline);
        [sweep, self.accept_after, self.link_by, self.life.deadline(), self.tls.next_look()]
            .into_iter()
            .flatten()
            .chain(links)
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
            SHUTDOWN => self.control(),
            WAKER => {}
            Token(token) if token > LINKS - limits::MAX_MANAGER_LINKS => {
                if let Some(link) = self.links.get((LINKS - token) as u8) {
                    link.event(event);
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
}

impl Config {
    /// How many handshakes may be incomplete at a time.
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
            Timer::Ping => self.websocket.ping,
            Timer::Pong => self.websocket.pong,
            Timer::Message => self.body_timeout,
        };
        ticks(limit).max(1)
    }
}

/// 2^32 ticks are 13 years; later all limits are held to be passed.
fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
