//! The connection to the node: connected without blocking, greeted, watched, and tried again when it is lost.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use megaphone_core::limits;
use megaphone_core::link::auth::NONCE;
use megaphone_core::link::{AuthError, Credentials, Decoder, Frame, Handshake, Hello, Role, Secret};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token, Waker};
use tracing::{debug, info, warn};

use crate::config::{Config, Server};

/// The name that this software gives itself in hello.
const NAME: &str = concat!("megaphone-ecm ", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    /// Why a connection attempt failed; `Ok(false)`: not decided yet.
    fn connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }
}

/// How far the link has come.
#[derive(Debug)]
enum Phase {
    /// To be tried at the given time.
    Waiting(Instant),
    /// The server's name is looked up, by a thread, since that may take long.
    Resolving(Receiver<io::Result<Vec<SocketAddr>>>),
    /// Begun at the given time.
    Connecting(Instant),
    /// Connected; the other end has yet to say hello, and to prove that it knows the secret.
    Greeting(Instant),
    Up,
}

/// One link, over all its incarnations.
#[derive(Debug)]
pub(crate) struct Link {
    server: Server,
    phase: Phase,
    stream: Option<Stream>,
    /// Addresses of the server that were not tried in this round.
    addresses: Vec<SocketAddr>,
    /// What both ends know, if they do.
    secret: Option<Secret>,
    /// Until the link is up.
    handshake: Option<Handshake>,
    /// Splits the input; taken out while its frames are handled.
    pub(crate) decoder: Decoder,
    /// There may be something to read.
    pub(crate) readable: bool,
    /// Its clients may not be read: the output is above its mark.
    pub(crate) congested: bool,
    /// Clients with something to read that wait for the output to fall below its mark.
    pub(crate) stalled: VecDeque<u64>,
    /// Ids whose close we sent and whose close from the node is awaited.
    pub(crate) closing: HashSet<u64>,
    /// Virtual connections that are open on it.
    pub(crate) connections: usize,
    output: Vec<u8>,
    written: usize,
    /// What the other end accepts for a new connection, while the link is up.
    window: Option<u32>,
    /// When something was last heard, and when it was last asked for.
    heard: Instant,
    pinged: Instant,
    ping: Duration,
    silence: Duration,
    greeting: Duration,
    /// How the other end calls itself.
    name: String,
    failures: u32,
    random: u64,
    /// The last complaint that was logged loudly: the same one is not repeated each time.
    complaint: String,
    waker: Arc<Waker>,
}

impl Link {
    pub(crate) fn new(server: &Server, config: &Config, waker: Arc<Waker>, now: Instant) -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            server: server.clone(),
            phase: Phase::Waiting(now),
            stream: None,
            addresses: Vec::new(),
            secret: config.link_secret.clone(),
            handshake: None,
            decoder: Decoder::new(),
            readable: false,
            congested: false,
            stalled: VecDeque::new(),
            closing: HashSet::new(),
            connections: 0,
            output: Vec::new(),
            written: 0,
            window: None,
            heard: now,
            pinged: now,
            ping: config.link_ping,
            silence: config.link_silence,
            greeting: config.link_greeting,
            name: String::new(),
            failures: 0,
            // Seeded by the system; any number but 0 will do.
            random: RandomState::new().hash_one(0) | 1,
            complaint: String::new(),
            waker,
        }
    }

    /// While the link is up: the credit for a new connection.
    pub(crate) fn window(&self) -> Option<u32> {
        self.window
    }

    /// Bytes that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    /// Puts a frame into the output.
    pub(crate) fn send(&mut self, frame: &Frame<'_>) {
        frame.encode(&mut self.output);
    }

    /// A frame of the other end while the link is not up: hello, or a step of authentication. True: it is up now.
    ///
    /// # Errors
    /// [`AuthError`]: the other end is to be told, and [`Link::lose`] must follow.
    pub(crate) fn opening(&mut self, frame: &Frame<'_>) -> Result<bool, AuthError> {
        let Some(handshake) = &mut self.handshake else { return Err(AuthError::Order) };
        let window = match frame {
            Frame::Hello(hello) => {
                self.name = hello.name.escape_debug().to_string();
                handshake.hello(hello)?
            }
            Frame::Auth(payload) => handshake.auth(payload, &mut self.output)?,
            _ => return Err(AuthError::Order),
        };
        if let Some(window) = window {
            self.handshake = None;
            self.phase = Phase::Up;
            self.window = Some(window);
            self.failures = 0;
            self.complaint.clear();
            info!("link to {} up ({})", self.server, self.name);
        }
        Ok(window.is_some())
    }

    /// Whether the link has yet to be opened.
    pub(crate) fn is_opening(&self) -> bool {
        self.handshake.is_some()
    }

    /// When [`Link::tick`] has to be called next, at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Resolving(_) => None,
            Phase::Connecting(since) | Phase::Greeting(since) => Some(since + self.greeting),
            Phase::Up => Some((self.heard.max(self.pinged) + self.ping).min(self.heard + self.silence)),
        }
    }

    /// Does what time asks for: connects, pings, gives up.
    ///
    /// # Errors
    /// A text that says why the link is lost: [`Link::lose`] must follow.
    pub(crate) fn tick(&mut self, now: Instant, registry: &Registry, token: Token) -> Result<(), String> {
        match &self.phase {
            Phase::Waiting(at) if now >= *at => self.connect(now, registry, token),
            Phase::Resolving(answer) => match answer.try_recv() {
                Err(TryRecvError::Empty) => Ok(()),
                Ok(Ok(addresses)) => {
                    self.addresses = addresses;
                    self.connect_next(now, registry, token)
                }
                Ok(Err(error)) => Err(format!("its name cannot be resolved: {error}")),
                Err(TryRecvError::Disconnected) => Err("its name cannot be resolved".to_owned()),
            },
            Phase::Connecting(since) if now >= *since + self.greeting => {
                Err("connecting took too long".to_owned())
            }
            Phase::Greeting(since) if now >= *since + self.greeting => {
                Err("it accepts connections but does not say hello: is it the listener of megaphone?"
                    .to_owned())
            }
            Phase::Up if now >= self.heard + self.silence => {
                Err("it has been silent for too long".to_owned())
            }
            Phase::Up if now >= self.heard.max(self.pinged) + self.ping => {
                self.pinged = now;
                self.send(&Frame::Ping(*b"megaphon"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connect(&mut self, now: Instant, registry: &Registry, token: Token) -> Result<(), String> {
        match &self.server {
            Server::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(|error| error.to_string())?;
                self.begin(Stream::Unix(stream), now, registry, token)
            }
            Server::Tcp(_) if !self.addresses.is_empty() => self.connect_next(now, registry, token),
            Server::Tcp(address) => {
                if let Ok(address) = address.parse() {
                    self.addresses = vec![address];
                    return self.connect_next(now, registry, token);
                }
                let (sender, receiver) = channel();
                let (address, waker) = (address.clone(), Arc::clone(&self.waker));
                std::thread::Builder::new()
                    .name("resolver".to_owned())
                    .spawn(move || {
                        // Nobody may listen any more, or the loop may have ended: neither matters here.
                        let _ = sender.send(address.to_socket_addrs().map(Iterator::collect));
                        let _ = waker.wake();
                    })
                    .map_err(|error| error.to_string())?;
                self.phase = Phase::Resolving(receiver);
                Ok(())
            }
        }
    }

    fn connect_next(&mut self, now: Instant, registry: &Registry, token: Token) -> Result<(), String> {
        if self.addresses.is_empty() {
            return Err("its name has no address".to_owned());
        }
        let address = self.addresses.remove(0);
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        // Small frames must not wait for others; without it they are late, not lost.
        let _ = stream.set_nodelay(true);
        self.begin(Stream::Tcp(stream), now, registry, token)
    }

    fn begin(
        &mut self,
        mut stream: Stream,
        now: Instant,
        registry: &Registry,
        token: Token,
    ) -> Result<(), String> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut stream {
            Stream::Tcp(stream) => registry.register(stream, token, interest),
            Stream::Unix(stream) => registry.register(stream, token, interest),
        }
        .map_err(|error| error.to_string())?;
        self.stream = Some(stream);
        self.phase = Phase::Connecting(now);
        let hello = Hello { role: Role::Ecm, features: Hello::CREDIT, window: limits::WINDOW, name: NAME };
        let handshake = Handshake::new(hello, self.secret.clone().map(credentials).transpose()?);
        handshake.greet(&mut self.output);
        self.decoder = handshake.decoder();
        self.handshake = Some(handshake);
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// As [`Link::tick`].
    pub(crate) fn flush(&mut self, now: Instant) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if let Phase::Connecting(_) = self.phase {
            if !stream.connected().map_err(|error| error.to_string())? {
                return Ok(());
            }
            debug!("link to {} connected", self.server);
            self.phase = Phase::Greeting(now);
        }
        while self.written < self.output.len() {
            match stream.write(&self.output[self.written..]) {
                Ok(0) => return Err("it takes no more bytes".to_owned()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            // A burst's buffer is given back, the usual one is kept.
            self.output.shrink_to(limits::LINK_LOW);
        } else if self.written > self.output.len() / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once, into the decoder; `Ok(false)`: nothing more is there now.
    ///
    /// # Errors
    /// As [`Link::tick`].
    pub(crate) fn read(&mut self, scratch: &mut [u8], now: Instant) -> Result<bool, String> {
        if matches!(self.phase, Phase::Connecting(_)) {
            return Ok(false);
        }
        let Some(stream) = &mut self.stream else { return Ok(false) };
        match stream.read(scratch) {
            Ok(0) => Err("it closed the connection".to_owned()),
            Ok(count) => {
                self.heard = now;
                self.decoder.push(&scratch[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The link is lost: logs why, unless it is the same as last time, and plans the next attempt. Answers whether it
    /// was up.
    pub(crate) fn lose(&mut self, why: &str, now: Instant) -> bool {
        let was_up = self.window.take().is_some();
        // What is still in the output may hold the reason, in an error frame: one try, the rest is lost anyway.
        if !matches!(self.phase, Phase::Connecting(_)) {
            let _ = self.flush(now);
        }
        self.stream = None;
        self.handshake = None;
        self.decoder = Decoder::new();
        self.readable = false;
        self.closing = HashSet::new();
        self.output = Vec::new();
        self.written = 0;
        let pause = if self.addresses.is_empty() { self.back_off() } else { Duration::ZERO };
        self.phase = Phase::Waiting(now + pause);
        if was_up || self.complaint != why {
            warn!("link to {} down: {why}", self.server);
            why.clone_into(&mut self.complaint);
        } else {
            debug!("link to {} still down: {why}", self.server);
        }
        was_up
    }

    /// After [`Link::send`] or [`Link::flush`]: whether its clients may be read is looked at again. Answers those that
    /// waited and need no longer.
    pub(crate) fn decongest(&mut self) -> VecDeque<u64> {
        if self.congested && self.pending() <= limits::LINK_LOW {
            self.congested = false;
        }
        if self.congested { VecDeque::new() } else { std::mem::take(&mut self.stalled) }
    }

    /// Doubles with each failure; the upper half is random, so that many managers do not come back at once.
    fn back_off(&mut self) -> Duration {
        let most = u64::from(limits::RETRY_LEAST)
            .saturating_mul(1 << self.failures.min(16))
            .min(u64::from(limits::RETRY_MOST));
        self.failures = self.failures.saturating_add(1);
        // xorshift64: no secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(most / 2 + self.random % (most / 2 + 1))
    }
}

/// A nonce for this link alone.
fn credentials(secret: Secret) -> Result<Credentials, String> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random numbers from the system: {error}"))?;
    Ok(Credentials { secret, nonce })
}
