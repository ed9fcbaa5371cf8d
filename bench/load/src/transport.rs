//! What carries a session: BOSH over one or two connections, a WebSocket, a plain TCP connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mio::{Registry, Token};

use crate::bosh::Bosh;
use crate::connection::Connection;
use crate::http;
use crate::tls::Tls;
use crate::websocket::{self, Kind as Frame};
use crate::xml::{self, Element, Error};

/// Connections that a user may have at a time.
pub const SLOTS: usize = 2;

/// Seconds that an answer to a held request may come late.
const GRACE: u64 = 30;

/// How users connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// BOSH over one connection; a second one only while something is sent and the first one holds the poll
    Bosh,
    /// BOSH over two connections that stay, as browsers have
    Bosh2,
    /// WebSocket
    Ws,
    /// XMPP over plain TCP
    Tcp,
}

/// Where all users connect to, and how.
#[derive(Debug, Clone)]
pub struct Place {
    /// The kind of connection.
    pub kind: Kind,
    /// The server.
    pub target: SocketAddr,
    /// Of the URL.
    pub path: String,
    /// The XMPP domain.
    pub domain: String,
    /// Seconds that a poll is held.
    pub wait: u32,
    /// Whether a BOSH user who is online and has nothing to send has a poll held. Otherwise it never has more than one
    /// request under way, so that none overtakes another one, and each of an online user carries what was sent at once.
    pub polls: bool,
    /// For connections with TLS.
    pub tls: Option<Tls>,
    /// Whether requests have all the headers of a browser.
    pub browser: bool,
}

/// What a transport needs to act.
#[derive(Debug)]
pub struct Net<'a> {
    /// Where connections are watched.
    pub registry: &'a Registry,
    /// Where to.
    pub place: &'a Place,
    /// From which address.
    pub source: Option<SocketAddr>,
    /// Tokens of this user's connections begin here.
    pub token: usize,
    /// A number that nobody guesses and that is new each time a transport is made.
    pub random: u64,
}

impl Net<'_> {
    fn open(&self, slot: usize) -> Result<Connection, String> {
        let (place, token) = (self.place, Token(self.token + slot));
        Connection::open(place.target, self.source, place.tls.as_ref(), self.registry, token)
            .map_err(|error| format!("cannot connect to {}: {error}", self.place.target))
    }
}

/// One of them.
#[derive(Debug)]
pub enum Transport {
    /// BOSH.
    Bosh(Box<Polls>),
    /// WebSocket or TCP.
    Stream(Box<Stream>),
}

impl Transport {
    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(net: &Net<'_>) -> Result<Self, String> {
        Ok(match net.place.kind {
            Kind::Bosh | Kind::Bosh2 => Self::Bosh(Box::new(Polls::open(net)?)),
            Kind::Ws | Kind::Tcp => Self::Stream(Box::new(Stream::open(net)?)),
        })
    }

    /// Something happened at a connection: adds the elements that came.
    ///
    /// # Errors
    ///
    /// When the session is lost with it.
    pub fn ready(&mut self, slot: usize, net: &Net<'_>, elements: &mut Vec<Element>) -> Result<(), String> {
        match self {
            Self::Bosh(polls) => polls.ready(slot, elements),
            Self::Stream(stream) => stream.ready(net, elements),
        }
    }

    /// Sends stanzas, with the next [`Transport::flush`] at the latest.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn send(&mut self, stanzas: &str) -> Result<(), String> {
        match self {
            Self::Bosh(polls) => polls.queue.push_back(stanzas.to_owned()),
            Self::Stream(stream) => return stream.send(stanzas),
        }
        Ok(())
    }

    /// Opens the stream anew.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn restart(&mut self, net: &Net<'_>) -> Result<(), String> {
        match self {
            Self::Bosh(polls) => polls.restart = true,
            Self::Stream(stream) => return stream.begin(net),
        }
        Ok(())
    }

    /// Nothing more comes for now: requests go out as far as they may, and one is always held.
    ///
    /// # Errors
    ///
    /// When a connection cannot be had.
    pub fn flush(&mut self, net: &Net<'_>, online: bool) -> Result<(), String> {
        match self {
            Self::Bosh(polls) => polls.flush(net, online),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Whether the server owes an answer for too long.
    #[must_use]
    pub fn is_overdue(&self, now: Instant, wait: u32) -> bool {
        let within = Duration::from_secs(u64::from(wait) + GRACE);
        match self {
            Self::Bosh(polls) => {
                polls.slots.iter().filter_map(|slot| slot.since).any(|since| now > since + within)
            }
            Self::Stream(_) => false,
        }
    }

    /// HTTP requests sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        if let Self::Bosh(polls) = self { polls.sent } else { 0 }
    }
}

/// A BOSH session and its connections.
#[derive(Debug)]
pub struct Polls {
    bosh: Bosh,
    slots: [Slot; SLOTS],
    queue: VecDeque<String>,
    restart: bool,
    sent: u64,
}

/// A connection for requests, one at a time.
#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    /// Since when a request is under way.
    since: Option<Instant>,
    /// The number of the last request.
    last: u64,
}

impl Polls {
    fn open(net: &Net<'_>) -> Result<Self, String> {
        // Below 2^52, so that it can grow.
        let bosh = Bosh::new(1 + (net.random >> 13), net.place.wait);
        let mut polls =
            Self { bosh, slots: Default::default(), queue: VecDeque::new(), restart: false, sent: 0 };
        let body = polls.bosh.open(&net.place.domain);
        polls.request(0, &body, net)?;
        if net.place.kind == Kind::Bosh2 {
            polls.slots[1].connection = Some(net.open(1)?);
        }
        Ok(polls)
    }

    fn request(&mut self, slot: usize, body: &str, net: &Net<'_>) -> Result<(), String> {
        let at = &mut self.slots[slot];
        if at.connection.is_none() {
            at.connection = Some(net.open(slot)?);
        }
        self.sent += 1;
        at.last = self.sent;
        at.since = Some(Instant::now());
        let request = http::post(&net.place.path, &net.place.domain, body, net.place.browser);
        let connection = at.connection.as_mut().ok_or("no connection")?;
        connection.send(&request).map_err(|error| format!("sending a request: {error}"))
    }

    fn ready(&mut self, slot: usize, elements: &mut Vec<Element>) -> Result<(), String> {
        let at = &mut self.slots[slot];
        // Closed meanwhile.
        let Some(connection) = at.connection.as_mut() else { return Ok(()) };
        if let Err(error) = connection.ready() {
            at.connection = None;
            return if at.since.is_some() { Err(format!("the connection broke: {error}")) } else { Ok(()) };
        }
        let mut close = connection.is_closed();
        if let Some(head) = http::head(connection.input())?
            && connection.input().len() >= head.length + head.body
        {
            if head.status != 200 {
                return Err(format!("the server answered {}", head.status));
            }
            if at.since.take().is_none() {
                return Err("an answer without a request".to_owned());
            }
            let end = head.length + head.body;
            elements.extend(self.bosh.answer(&connection.input()[head.length..end])?);
            connection.used(end);
            close |= head.close;
        }
        if close {
            at.connection = None;
            if at.since.is_some() {
                return Err("the server closed a connection without an answer".to_owned());
            }
        }
        Ok(())
    }

    fn flush(&mut self, net: &Net<'_>, online: bool) -> Result<(), String> {
        loop {
            let under_way = self.slots.iter().filter(|slot| slot.since.is_some()).count();
            let polls = under_way == 0 && (net.place.polls || !online);
            let wanted = self.restart || !self.queue.is_empty() || polls;
            let most = if net.place.polls { self.bosh.requests() } else { 1 };
            if !self.bosh.is_open() || !wanted || under_way >= most {
                break;
            }
            let Some(slot) = self.free_slot(net.place.kind, online) else { break };
            let body = if std::mem::take(&mut self.restart) {
                self.bosh.restart(&net.place.domain)
            } else {
                // One question a request, where its answer is to be the request's.
                let count = if net.place.polls || !online { self.queue.len() } else { 1 };
                let stanzas: String = self.queue.drain(..count.min(self.queue.len())).collect();
                self.bosh.carry(&stanzas)
            };
            self.request(slot, &body, net)?;
        }
        // The second connection was for sending only.
        if net.place.kind == Kind::Bosh {
            let busy = self.slots.iter().any(|slot| slot.since.is_some());
            let open = self.slots.iter().filter(|slot| slot.connection.is_some()).count();
            if busy && open == SLOTS {
                for slot in self.slots.iter_mut().filter(|slot| slot.since.is_none()) {
                    slot.connection = None;
                }
            }
        }
        Ok(())
    }

    /// Browsers take the connection that was used last, so that others can end. Until a user is online both are used
    /// in turn: a real login has requests at the same time.
    fn free_slot(&self, kind: Kind, online: bool) -> Option<usize> {
        let free = (0..SLOTS).filter(|&slot| self.slots[slot].since.is_none());
        let last = |slot: &usize| self.slots[*slot].last;
        match (kind, online) {
            (Kind::Bosh2, false) => free.min_by_key(last),
            _ => free.max_by_key(|slot| (self.slots[*slot].connection.is_some(), last(slot))),
        }
    }
}

/// A connection that carries one stream.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    /// The key of a WebSocket that is not yet one.
    key: Option<String>,
    is_websocket: bool,
    /// Whether the other side's stream is open.
    opened: bool,
    /// The parts of a text that has not ended.
    text: Vec<u8>,
    mask: u32,
}

impl Stream {
    fn open(net: &Net<'_>) -> Result<Self, String> {
        let is_websocket = net.place.kind == Kind::Ws;
        let key = is_websocket.then(|| websocket::key(net.random));
        let connection = net.open(0)?;
        let mut stream =
            Self { connection, key, is_websocket, opened: false, text: Vec::new(), mask: net.random as u32 };
        match &stream.key {
            Some(key) => {
                let request = websocket::handshake(&net.place.path, &net.place.domain, key);
                stream.connection.send(&request).map_err(|error| error.to_string())?;
            }
            None => stream.begin(net)?,
        }
        Ok(stream)
    }

    /// Opens our stream.
    fn begin(&mut self, net: &Net<'_>) -> Result<(), String> {
        self.opened = false;
        let domain = &net.place.domain;
        let open = if self.is_websocket {
            format!("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{domain}' version='1.0'/>")
        } else {
            format!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                 xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
            )
        };
        self.send_text(&open)
    }

    /// A frame holds one element (RFC 7395, 3.3).
    fn send(&mut self, stanzas: &str) -> Result<(), String> {
        if !self.is_websocket {
            return self.send_text(stanzas);
        }
        let mut rest = stanzas;
        while !rest.is_empty() {
            let (_, length) =
                xml::element(rest.as_bytes()).map_err(|error| format!("own stanza: {error:?}"))?;
            let (stanza, others) = rest.split_at(length);
            self.send_text(stanza)?;
            rest = others;
        }
        Ok(())
    }

    fn send_text(&mut self, text: &str) -> Result<(), String> {
        if self.is_websocket {
            self.send_frame(Frame::Text, text.as_bytes())
        } else {
            self.write(text.as_bytes())
        }
    }

    fn send_frame(&mut self, kind: Frame, payload: &[u8]) -> Result<(), String> {
        self.mask = self.mask.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let frame = websocket::frame(kind, payload, self.mask);
        self.write(&frame)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.connection.send(bytes).map_err(|error| format!("sending: {error}"))
    }

    fn ready(&mut self, net: &Net<'_>, elements: &mut Vec<Element>) -> Result<(), String> {
        self.connection.ready().map_err(|error| format!("the connection broke: {error}"))?;
        if self.is_websocket {
            self.frames(net, elements)?
        } else {
            self.elements(elements)?
        }
        if self.connection.is_closed() { Err("the server closed the connection".to_owned()) } else { Ok(()) }
    }

    fn elements(&mut self, elements: &mut Vec<Element>) -> Result<(), String> {
        let mut used = 0;
        loop {
            let rest = &self.connection.input()[used..];
            if rest.starts_with(b"</stream:stream") {
                return Err("the server ended the stream".to_owned());
            }
            let read = if self.opened { xml::element(rest) } else { xml::open_tag(rest) };
            match read {
                Ok((element, length)) => {
                    used += length;
                    if std::mem::replace(&mut self.opened, true) {
                        elements.push(element);
                    }
                }
                Err(Error::Incomplete) => break,
                Err(Error::Malformed(what)) => return Err(format!("no XML: {what}")),
            }
        }
        self.connection.used(used);
        Ok(())
    }

    fn frames(&mut self, net: &Net<'_>, elements: &mut Vec<Element>) -> Result<(), String> {
        if let Some(key) = &self.key {
            let Some(length) = websocket::answer(self.connection.input(), key)? else { return Ok(()) };
            self.connection.used(length);
            self.key = None;
            self.begin(net)?;
        }
        while let Some((kind, start, end)) = websocket::read(self.connection.input())? {
            let payload = self.connection.input()[start..end].to_vec();
            self.connection.used(end);
            match kind {
                Frame::Close => return Err("the server closed the WebSocket".to_owned()),
                Frame::Ping => self.send_frame(Frame::Pong, &payload)?,
                Frame::Pong => {}
                Frame::More => self.text.extend_from_slice(&payload),
                Frame::Text => {
                    let text = [std::mem::take(&mut self.text), payload].concat();
                    let (element, _) = xml::element(&text).map_err(|error| format!("a frame: {error:?}"))?;
                    match element.local_name() {
                        "open" => self.opened = true,
                        "close" => return Err("the server ended the stream".to_owned()),
                        _ => elements.push(element),
                    }
                }
            }
        }
        Ok(())
    }
}
