//! The admin address: `/metrics` for Prometheus, `/health` for load balancers.
//!
//! A thread of its own with a poll of its own, which only reads what the event loop published: whatever its clients do,
//! the loop does not notice. A few connections at a time, each for one request and a few seconds.

mod connection;
mod exposition;
mod process;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use megaphone_core::limits;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{info, warn};

use crate::metrics::Shared;
use connection::Connection;
use exposition::Exposition;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    thread: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    waker: Waker,
}

impl Admin {
    /// Serves at `address`. If another process has it (an older one that is about to leave, after an upgrade), it is
    /// tried again until it is free.
    ///
    /// # Errors
    /// What the system answers, with the address.
    pub(crate) fn start(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let ends = Arc::new(AtomicBool::new(false));
        shared.will_be_read();
        let mut service = Service {
            poll,
            address,
            listener: None,
            connections: VecDeque::new(),
            next: 0,
            exposition: Exposition::new(Arc::clone(&shared)),
            shared,
            ends: Arc::clone(&ends),
        };
        match service.bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                warn!(
                    "the admin address {address} is in use, by an older megaphone-ecm perhaps: tried until it is free"
                );
            }
            Err(error) => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot listen on admin {address}: {error}"),
                ));
            }
            Ok(()) => {}
        }
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || service.run())?;
        Ok(Self { thread: Some(thread), ends, waker })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Service {
    poll: Poll,
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// In the order in which they came.
    connections: VecDeque<Connection>,
    /// The next connection's token.
    next: usize,
    exposition: Exposition,
    shared: Arc<Shared>,
    ends: Arc<AtomicBool>,
}

impl Service {
    fn bind(&mut self) -> io::Result<()> {
        let mut listener = TcpListener::bind(self.address)?;
        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        info!("admin address: http://{}", listener.local_addr()?);
        self.listener = Some(listener);
        Ok(())
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.ends.load(Ordering::Relaxed) {
            if let Err(error) = self.poll.poll(&mut events, self.timeout())
                && error.kind() != io::ErrorKind::Interrupted
            {
                return warn!("the admin address is given up: {error}");
            }
            if self.listener.is_none() {
                // Complained about when it was tried first.
                let _ = self.bind();
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    token => self.serve(token.0),
                }
            }
            let now = Instant::now();
            self.connections.retain(|connection| now < connection.until);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.listener.is_none() {
            return Some(Duration::from_millis(limits::ADMIN_RETRY.into()));
        }
        self.connections.front().map(|first| first.until.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener
            // Also when descriptors run out: the next connection tells of itself again.
            && let Ok((mut stream, _)) = listener.accept()
        {
            let token = self.next;
            self.next = if self.next < WAKER.0 - 1 { self.next + 1 } else { 0 };
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(token), interest).is_err() {
                continue;
            }
            if self.connections.len() == limits::ADMIN_CONNECTIONS {
                self.connections.pop_front();
            }
            self.connections.push_back(Connection::new(stream, token));
            self.serve(token);
        }
    }

    fn serve(&mut self, token: usize) {
        let Some(at) = self.connections.iter().position(|connection| connection.token == token) else {
            return;
        };
        let (exposition, shared) = (&self.exposition, &self.shared);
        if !self.connections[at].step(|path| answer(path, exposition, shared)) {
            self.connections.remove(at);
        }
    }
}

/// Status, type and text for a path.
fn answer(path: &str, exposition: &Exposition, shared: &Shared) -> (u16, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    match path {
        "/metrics" => (200, exposition::CONTENT_TYPE, exposition.text()),
        "/health" => {
            let (status, text) = health(shared);
            (status, TEXT, format!("{text}\n"))
        }
        _ => (404, TEXT, "there are /metrics and /health\n".to_owned()),
    }
}

fn health(shared: &Shared) -> (u16, &'static str) {
    let (up, draining) = (&shared.links_up, &shared.links_draining);
    match () {
        () if shared.is_draining.load(Ordering::Relaxed) => (503, "draining: no further clients are taken"),
        () if up.load(Ordering::Relaxed) == 0 => (503, "no link to ejabberd"),
        () if up.load(Ordering::Relaxed) <= draining.load(Ordering::Relaxed) => {
            (503, "no link that takes further clients: ejabberd drains them")
        }
        () => (200, "ok"),
    }
}
