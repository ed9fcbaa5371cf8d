//! The connection to the node: connected without blocking, greeted, watched, and tried again when it is lost.

mod attempts;
mod transport;
mod trust;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use attempts::Attempts;
use megaphone_core::limits;
use megaphone_core::link::auth::NONCE;
use megaphone_core::link::{AuthError, Credentials, Decoder, Frame, Handshake, Hello, Role, Secret};
use mio::event::Event;
use mio::{Registry, Token, Waker};
use tracing::{debug, info, warn};
use transport::{Lost, Transport};
pub use trust::Trust;

use crate::config::{Config, Server};

/// The name that this software gives itself in hello.
const NAME: &str = concat!("megaphone-ecm ", env!("CARGO_PKG_VERSION"));

/// How far the link has come.
#[derive(Debug)]
enum Phase {
    /// To be tried at the given time.
    Waiting(Instant),
    /// The server's name is looked up, by a thread, since that may take long.
    Resolving(Receiver<io::Result<Vec<SocketAddr>>>),
    /// Begun at the given time.
    Connecting(Instant),
    /// Connected; the other end has yet to complete the TLS handshake, to say hello, and to prove that it knows the
    /// secret.
    Greeting(Instant),
    Up,
}

/// One link, over all its incarnations.
#[derive(Debug)]
pub(crate) struct Link {
    server: Server,
    phase: Phase,
    transport: Option<Transport>,
    /// Addresses of the server that were not tried in this round.
    addresses: Vec<SocketAddr>,
    /// What both ends know, if they do.
    secret: Option<Secret>,
    /// Whose certificate is good enough for TLS.
    trust: Option<Trust>,
    /// Users may be carried through the network between machines as they are.
    allow_plain: bool,
    /// Until the link is up.
    handshake: Option<Handshake>,
    /// Splits the input; taken out while its frames are handled.
    pub(crate) decoder: Decoder,
    /// There may be something to read.
    pub(crate) readable: bool,
    /// The other end has closed it, or it has failed: what is left is to be read to its end.
    ended: bool,
    /// Its clients may not be read: the output is above its mark.
    pub(crate) congested: bool,
    /// Clients with something to read that wait for the output to fall below its mark.
    pub(crate) stalled: VecDeque<u64>,
    /// Ids whose close we sent and whose close from the node is awaited.
    pub(crate) closing: HashSet<u64>,
    /// Virtual connections that are open on it.
    pub(crate) connections: usize,
    /// The other end wants no further ones.
    pub(crate) draining: bool,
    output: Vec<u8>,
    written: usize,
    /// What the other end accepts for a new connection, while the link is up.
    window: Option<u32>,
    /// The other end takes connections of kind XMPP.
    serves_xmpp: bool,
    /// The other end wants to know of requests that wait behind others.
    pipelines: bool,
    /// When something was last heard, and when it was last asked for.
    heard: Instant,
    pinged: Instant,
    ping: Duration,
    silence: Duration,
    greeting: Duration,
    /// How the other end calls itself.
    name: String,
    attempts: Attempts,
    waker: Arc<Waker>,
}

impl Link {
    pub(crate) fn new(server: &Server, config: &Config, waker: Arc<Waker>, now: Instant) -> Self {
        Self {
            server: server.clone(),
            phase: Phase::Waiting(now),
            transport: None,
            addresses: Vec::new(),
            secret: config.link_secret.clone(),
            trust: config.link_trust.clone(),
            allow_plain: config.allow_plain_link,
            handshake: None,
            decoder: Decoder::new(),
            readable: false,
            ended: false,
            congested: false,
            stalled: VecDeque::new(),
            closing: HashSet::new(),
            connections: 0,
            draining: false,
            output: Vec::new(),
            written: 0,
            window: None,
            serves_xmpp: false,
            pipelines: false,
            heard: now,
            pinged: now,
            ping: config.link_ping,
            silence: config.link_silence,
            greeting: config.link_greeting,
            name: String::new(),
            attempts: Attempts::default(),
            waker,
        }
    }

    /// While the link is up: the credit for a new connection.
    pub(crate) fn window(&self) -> Option<u32> {
        self.window
    }

    /// Bytes that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        // What is encrypted already counts as one.
        let records = self.transport.as_ref().is_some_and(Transport::holds_records);
        self.output.len() - self.written + usize::from(records)
    }

    /// Certificates of the next connection are looked at with this.
    pub(crate) fn set_trust(&mut self, trust: &Trust) {
        self.trust = Some(trust.clone());
    }

    /// The socket says that there is something to do.
    pub(crate) fn event(&mut self, event: &Event) {
        self.ended |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.ended;
    }

    /// Whether the other end takes connections of kind XMPP.
    pub(crate) fn serves_xmpp(&self) -> bool {
        self.serves_xmpp
    }

    /// Whether the other end wants to know of requests that wait behind others.
    pub(crate) fn pipelines(&self) -> bool {
        self.pipelines
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
                self.serves_xmpp = hello.features & Hello::XMPP != 0;
                self.pipelines = hello.features & Hello::PIPELINE != 0;
                handshake.hello(hello)?
            }
            Frame::Auth(payload) => handshake.auth(payload, &mut self.output)?,
            _ => return Err(AuthError::Order),
        };
        if let Some(window) = window {
            self.handshake = None;
            self.phase = Phase::Up;
            self.window = Some(window);
            self.attempts.succeeded();
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
            Phase::Greeting(since) if now >= *since + self.greeting && self.is_handshaking() => {
                Err("it accepts connections but does not answer by TLS: has its listener `tls: true`?"
                    .to_owned())
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
                let transport = Transport::unix(path).map_err(|error| error.to_string())?;
                self.begin(transport, now, registry, token)
            }
            Server::Tcp(_) | Server::Tls(_) if !self.addresses.is_empty() => {
                self.connect_next(now, registry, token)
            }
            Server::Tcp(address) | Server::Tls(address) => {
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
        let tls = match (&self.server, &self.trust) {
            (Server::Tls(server), Some(trust)) => Some(trust.connect(server)?),
            (Server::Tls(_), None) => return Err("TLS needs `link_ca`".to_owned()),
            (server, _) if !self.allow_plain => {
                server.check_plain(address)?;
                None
            }
            _ => None,
        };
        let transport = Transport::tcp(address, tls).map_err(|error| error.to_string())?;
        self.begin(transport, now, registry, token)
    }

    fn begin(
        &mut self,
        mut transport: Transport,
        now: Instant,
        registry: &Registry,
        token: Token,
    ) -> Result<(), String> {
        transport.register(registry, token).map_err(|error| error.to_string())?;
        self.transport = Some(transport);
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
        let Some(transport) = &mut self.transport else { return Ok(()) };
        if let Phase::Connecting(_) = self.phase {
            if !transport.connected().map_err(|lost| lost.to_string())? {
                return Ok(());
            }
            debug!("link to {} connected", self.server);
            self.phase = Phase::Greeting(now);
        }
        match transport.write(&self.output[self.written..]) {
            Ok(count) => self.written += count,
            Err(lost) => return Err(self.explain(&lost)),
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
        let Some(transport) = &mut self.transport else { return Ok(false) };
        match transport.read(scratch, &mut self.decoder) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.heard = now;
                // A short read has emptied the socket, and what comes later is told by another event; an end that was told
                // already is not told again.
                Ok(count == scratch.len() || self.ended || transport.is_over())
            }
            Err(lost) => Err(self.explain(&lost)),
        }
    }

    fn is_handshaking(&self) -> bool {
        self.transport.as_ref().is_some_and(Transport::is_handshaking)
    }

    /// Why it was lost, for an operator.
    fn explain(&self, lost: &Lost) -> String {
        match (lost, &self.trust) {
            (Lost::Tls(error), Some(trust)) => trust.explain(error),
            (Lost::Closed, _) if self.is_handshaking() => {
                "it closed the connection within the TLS handshake".to_owned()
            }
            _ => lost.to_string(),
        }
    }

    /// The manager ends: so do links that speak TLS, with the close that it demands.
    pub(crate) fn close(&mut self) {
        if let Some(transport) = &mut self.transport
            && !matches!(self.phase, Phase::Connecting(_))
        {
            transport.close();
        }
    }

    /// The server, for logs.
    pub(crate) fn server_name(&self) -> String {
        self.server.to_string()
    }

    /// Whether it is up and its node takes new virtual connections.
    pub(crate) fn is_open(&self) -> bool {
        self.window.is_some() && !self.draining
    }

    /// The link is lost: logs why, unless it is the same as last time, and plans the next attempt. Answers whether it
    /// was up.
    pub(crate) fn lose(&mut self, why: &str, now: Instant) -> bool {
        let was_up = self.window.take().is_some();
        // What is still in the output may hold the reason, in an error frame: one try, the rest is lost anyway.
        if !matches!(self.phase, Phase::Connecting(_)) {
            let _ = self.flush(now);
        }
        self.close();
        self.transport = None;
        self.handshake = None;
        self.decoder = Decoder::new();
        self.readable = false;
        self.ended = false;
        self.closing = HashSet::new();
        self.draining = false;
        self.output = Vec::new();
        self.written = 0;
        let pause = if self.addresses.is_empty() { self.attempts.pause() } else { Duration::ZERO };
        self.phase = Phase::Waiting(now + pause);
        if self.attempts.is_new(why) {
            warn!("link to {} down: {why}", self.server);
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
}

/// A nonce for this link alone.
fn credentials(secret: Secret) -> Result<Credentials, String> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| format!("no random numbers from the system: {error}"))?;
    Ok(Credentials { secret, nonce })
}
