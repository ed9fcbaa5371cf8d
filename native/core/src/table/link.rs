//! What the table knows of a link: its state, what it owes the peer, and the queue of its connections with output.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Host, Message, NO_ADDRESS, Refused};
use crate::limits::{MAX_CONTROL, MAX_LOCAL_ADDRESSES};
use crate::link::{CloseReason, Decoder, Frame, Handshake};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, RwLock, SegQueue};

/// What takes the input of a link apart.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) decoder: Decoder,
    /// Until the link is open.
    pub(super) handshake: Option<Box<Handshake>>,
    /// A connection that its client has closed right behind a request: the request is served before.
    pub(super) closing: Option<(u64, CloseReason)>,
}

impl Intake {
    fn new(handshake: Handshake) -> Self {
        Self { decoder: handshake.decoder(), handshake: Some(Box::new(handshake)), closing: None }
    }
}

/// What a link serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Served {
    /// Connections of kind HTTP.
    #[default]
    Http,
    /// Those, and such of kind XMPP.
    HttpAndXmpp,
}

/// A link that is up, or was.
#[derive(Debug)]
pub struct Link<P> {
    pub(super) incarnation: u32,
    /// Where the link comes from, for people.
    pub(super) peer: String,
    pub(super) served: Served,
    pub(super) intake: Mutex<Intake>,
    /// Window from the peer's hello; 0 before the link is open.
    pub(super) peer_window: AtomicU32,
    pub(super) connections: AtomicUsize,
    pub(super) opened: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) undelivered: AtomicU64,
    locals: Mutex<Vec<SocketAddr>>,
    ready: SegQueue<(u32, u64)>,
    /// Encoded frames about the link itself.
    control: Mutex<Vec<u8>>,
    /// The sender process, once it has asked for output.
    sender: Mutex<Option<P>>,
    /// The sender has been told that there is nothing, and waits for a message.
    asleep: AtomicBool,
    /// The peer broke the protocol: the error frame that says so is the last one.
    stopping: AtomicBool,
    /// The peer was asked to open no further connections.
    draining: AtomicBool,
    down: AtomicBool,
}

impl<P: Copy> Link<P> {
    /// Its first frames are queued before anybody can be asleep.
    fn new(incarnation: u32, peer: String, served: Served, handshake: Handshake) -> Self {
        let mut greeting = Vec::new();
        handshake.greet(&mut greeting);
        Self {
            incarnation,
            peer,
            served,
            intake: Mutex::new(Intake::new(handshake)),
            peer_window: AtomicU32::new(0),
            connections: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            locals: Mutex::new(Vec::new()),
            ready: SegQueue::new(),
            control: Mutex::new(greeting),
            sender: Mutex::new(None),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            down: AtomicBool::new(false),
        }
    }

    /// Number of the link, never used again while the table lives.
    #[must_use]
    pub const fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Whether the link has ended: it takes no input and gives no output any more.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Whether the error frame that ends the link is queued.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Queues the error frame that ends the link; no frame follows it. Both are done under one lock: who takes the
    /// frame sees that the link is stopping.
    pub(super) fn stop<H: Host<Pid = P>>(&self, error: &Frame<'_>, host: &mut H) {
        {
            let mut control = self.control.lock();
            error.encode(&mut control);
            self.stopping.store(true, Ordering::Release);
        }
        self.wake(host);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Asks the peer to open no further connections; false when that frame finds no room.
    #[must_use]
    pub(super) fn drain<H: Host<Pid = P>>(&self, host: &mut H) -> bool {
        let queued = self.push_control(&Frame::Drain, host);
        if queued {
            self.draining.store(true, Ordering::Relaxed);
        }
        queued
    }

    pub(super) fn set_down(&self) {
        self.down.store(true, Ordering::Release);
    }

    /// Queues a connection that has output, and wakes the sender if it sleeps.
    pub(super) fn push_ready<H: Host<Pid = P>>(&self, slot: u32, generation: u64, host: &mut H) {
        self.ready.push((slot, generation));
        self.wake(host);
    }

    pub(super) fn pop_ready(&self) -> Option<(u32, u64)> {
        self.ready.pop()
    }

    /// Queues a frame about the link itself; false when [`MAX_CONTROL`] is reached and it was not queued.
    #[must_use]
    pub(super) fn push_control<H: Host<Pid = P>>(&self, frame: &Frame<'_>, host: &mut H) -> bool {
        self.control(|control| frame.encode(control), host)
    }

    /// As [`Link::push_control`], with frames that are encoded already.
    #[must_use]
    pub(super) fn push_encoded<H: Host<Pid = P>>(&self, frames: &[u8], host: &mut H) -> bool {
        self.control(|control| control.extend_from_slice(frames), host)
    }

    fn control<H: Host<Pid = P>>(&self, write: impl FnOnce(&mut Vec<u8>), host: &mut H) -> bool {
        {
            let mut control = self.control.lock();
            if control.len() >= MAX_CONTROL {
                return false;
            }
            write(&mut control);
        }
        self.wake(host);
        true
    }

    pub(super) fn take_control(&self) -> Vec<u8> {
        std::mem::take(&mut *self.control.lock())
    }

    /// Wakes the sender if it sleeps: exactly one of all that push wins the swap and sends the message.
    fn wake<H: Host<Pid = P>>(&self, host: &mut H) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let sender = *self.sender.lock();
            if let Some(sender) = sender {
                host.deliver(sender, Message::LinkOutput);
            }
        }
    }

    pub(super) fn set_sender(&self, pid: P) {
        *self.sender.lock() = Some(pid);
    }

    /// Puts the sender to sleep unless something came meanwhile. True: a message will come. False: go on draining.
    ///
    /// The flag is set before the queues are looked at again, and pushers look at the flag after they have pushed: so
    /// either this sees the push, or the pusher sees the flag.
    pub(super) fn fall_asleep(&self) -> bool {
        // A swap as well, though nobody asks what it was: the checker does not know that a swap that found the flag
        // down comes before this in the flag's own order.
        self.asleep.swap(true, Ordering::SeqCst);
        if self.ready.is_empty() && self.control.lock().is_empty() {
            return true;
        }
        // If a pusher has taken the flag already, its message is under way and the sender may wait for it.
        !self.asleep.swap(false, Ordering::SeqCst)
    }

    /// A small number for a local address, so that each connection need not hold all of it.
    pub(super) fn intern_local(&self, address: SocketAddr) -> u8 {
        let mut locals = self.locals.lock();
        let found = locals.iter().position(|known| *known == address).or_else(|| {
            (locals.len() < MAX_LOCAL_ADDRESSES).then(|| {
                locals.push(address);
                locals.len() - 1
            })
        });
        found.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
    }

    pub(super) fn local(&self, number: u8) -> SocketAddr {
        self.locals.lock().get(usize::from(number)).copied().unwrap_or(NO_ADDRESS)
    }
}

/// The links that are up.
#[derive(Debug)]
pub(super) struct Links<P> {
    live: RwLock<HashMap<u32, Arc<Link<P>>>>,
    next: AtomicU32,
    limit: usize,
}

impl<P: Copy> Links<P> {
    pub(super) fn new(limit: usize) -> Self {
        Self { live: RwLock::new(HashMap::new()), next: AtomicU32::new(1), limit }
    }

    pub(super) fn open(
        &self,
        peer: String,
        served: Served,
        handshake: Handshake,
    ) -> Result<Arc<Link<P>>, Refused> {
        let mut live = self.live.write();
        if live.len() >= self.limit {
            return Err(Refused::Links);
        }
        let incarnation = self.next.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(incarnation, peer, served, handshake));
        live.insert(incarnation, Arc::clone(&link));
        Ok(link)
    }

    pub(super) fn get(&self, incarnation: u32) -> Option<Arc<Link<P>>> {
        self.live.read().get(&incarnation).cloned()
    }

    pub(super) fn remove(&self, incarnation: u32) {
        self.live.write().remove(&incarnation);
    }

    pub(super) fn all(&self) -> Vec<Arc<Link<P>>> {
        self.live.read().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.live.read().len()
    }
}
