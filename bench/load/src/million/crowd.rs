//! What users do: by WebSocket each on one virtual connection of messages, by BOSH on one or two of requests.
//!
//! A BOSH user who is online has one request held, and sends with the other connection, which it then keeps: as browsers
//! do. Answers are taken in the order of their requests.

mod bosh;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use megaphone_core::link::messages::{Head, MESSAGE_HEADER, header};
use megaphone_core::link::{CloseReason, ErrorCode, Frame, Kind, Open};

use crate::million::login::{self, Login, Said};
use crate::million::user::{Names, Phase, SLOTS, Slot, User};
use crate::xml::{self, Element};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// BOSH, or else WebSocket.
    pub bosh: bool,
    /// The XMPP domain.
    pub domain: String,
    /// Of the URL of BOSH.
    pub path: String,
    /// Seconds that BOSH requests are held.
    pub wait: u32,
    /// How many users there will be at most, ...
    pub users: usize,
    /// ... and links; users are dealt out to them.
    pub links: usize,
}

/// What happened to a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It is online; that took so long.
    Online(Duration),
    /// It got a message with this text.
    Message(u32, String),
    /// Nothing of it is left.
    Gone(Duration),
    /// It did not get in: the other end has no room for more connections, and says why.
    NoRoom(String),
}

/// All users.
#[derive(Debug)]
pub struct Crowd {
    settings: Settings,
    users: Vec<User>,
    names: Names,
    /// The part of sids that is the same for all.
    node: u32,
    // What is so of few users at a time.
    logins: HashMap<u32, Login>,
    leaving: HashMap<u32, Instant>,
    /// By virtual connection: what came and is not complete.
    partial: HashMap<u64, Vec<u8>>,
    /// Answers that came before that to the request before.
    early: HashMap<u32, Vec<u8>>,
    /// Stanzas that wait for a connection.
    waiting: HashMap<u32, String>,
    /// Those for whom there was no room.
    absent: HashSet<u32>,
    /// Requests that were sent.
    pub requests: u64,
}

impl Crowd {
    /// Nobody.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            users: Vec::with_capacity(settings.users),
            names: Names::new(settings.users),
            settings,
            node: 0,
            logins: HashMap::new(),
            leaving: HashMap::new(),
            partial: HashMap::new(),
            early: HashMap::new(),
            waiting: HashMap::new(),
            absent: HashSet::new(),
            requests: 0,
        }
    }

    /// How many there are, in whatever phase.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Those of them for whom there was no room.
    #[must_use]
    pub fn absent(&self) -> &HashSet<u32> {
        &self.absent
    }

    /// How many log in or leave at the moment.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.logins.len() + self.leaving.len()
    }

    /// The link of a user.
    #[must_use]
    pub fn link(&self, user: u32) -> usize {
        user as usize % self.settings.links
    }

    /// One more user begins to log in: its number; frames for its link are made by [`Crowd::begin`].
    pub fn add(&mut self) -> u32 {
        let user = self.users.len() as u32;
        self.users.push(User::default());
        user
    }

    /// A user that was added begins; `rid` is the number of its first request.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn begin(&mut self, user: u32, rid: u32, out: &mut Vec<u8>) -> Result<(), String> {
        let now = Instant::now();
        if self.settings.bosh {
            self.logins.insert(user, Login::bosh(rid, self.settings.wait, now));
            return self.step(user, out);
        }
        self.logins.insert(user, Login::websocket(now));
        self.open(user, 0, out);
        self.send_text(user, &login::open(&self.settings.domain), out);
        Ok(())
    }

    /// A user who is online sends a message to another one.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn write(&mut self, from: u32, to: u32, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let to = login::jid(self.names.get(self.users[to as usize].name), &self.settings.domain);
        let message =
            format!("<message xmlns='jabber:client' type='chat' to='{to}'><body>{text}</body></message>");
        if self.settings.bosh {
            self.waiting.entry(from).or_default().push_str(&message);
            self.step(from, out)
        } else {
            self.send_text(from, &message, out);
            Ok(())
        }
    }

    /// A user who is online ends its session.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn leave(&mut self, user: u32, out: &mut Vec<u8>) -> Result<(), String> {
        self.leaving.insert(user, Instant::now());
        self.users[user as usize].phase = Phase::Leaving;
        if self.settings.bosh {
            let slot = self.users[user as usize].slot().ok_or("both connections of a user are in use")?;
            let body = self.users[user as usize].body(self.node, " type='terminate'", "");
            self.request(user, slot, &body, out);
        } else {
            self.send_text(user, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", out);
        }
        Ok(())
    }

    /// One who has been logging in, or leaving, for too long, and what it waits for.
    #[must_use]
    pub fn overdue(&self, now: Instant, within: Duration) -> Option<(u32, String)> {
        let is_late = |since: Instant| now.saturating_duration_since(since) > within;
        let login = self.logins.iter().find(|(_, login)| is_late(login.started()));
        let leaving = self.leaving.iter().find(|(_, since)| is_late(**since));
        login.map(|(&user, login)| (user, format!("login: {}", login.waits_for()))).or_else(|| {
            leaving.map(|(&user, _)| (user, format!("leaving: {:?}", self.users[user as usize].slots)))
        })
    }

    /// A frame about a user came on a link.
    ///
    /// # Errors
    ///
    /// What ends the user who should not have ended, with its number.
    pub fn take(
        &mut self,
        link: usize,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), (u32, String)> {
        let place = |id: u64| {
            (
                ((id - 1) / SLOTS as u64) as u32 * self.settings.links as u32 + link as u32,
                ((id - 1) as usize) % SLOTS,
            )
        };
        match frame {
            Frame::Data { id, payload } => {
                let (user, slot) = place(id);
                self.data(user, slot, payload, out, events).map_err(|reason| (user, reason))
            }
            Frame::Ready { id, mode } => {
                let (user, slot) = place(id);
                self.ready(user, slot, mode, out).map_err(|reason| (user, reason))
            }
            Frame::Close { id, reason } => {
                let (user, slot) = place(id);
                self.closed(user, slot, reason, out, events).map_err(|reason| (user, reason))
            }
            Frame::Error { id, code, text } => {
                let user = place(id).0;
                if code != ErrorCode::Limit || self.logins.remove(&user).is_none() {
                    return Err((user, text.to_owned()));
                }
                let at = &mut self.users[user as usize];
                (at.phase, at.slots) = (Phase::Gone, [Slot::Closed; SLOTS]);
                self.absent.insert(user);
                events.push(Event::NoRoom(text.to_owned()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // ---- connections ----------------------------------------------------------------------------------------------

    fn id(&self, user: u32, slot: usize) -> u64 {
        u64::from(user) / self.settings.links as u64 * SLOTS as u64 + slot as u64 + 1
    }

    /// Each user has an address of its own.
    fn open(&mut self, user: u32, slot: usize, out: &mut Vec<u8>) {
        let kind = if self.settings.bosh { Kind::Http } else { Kind::Xmpp };
        let client = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + user), 40_000 + slot as u16));
        let open = Open { kind, tls: false, client, local: SocketAddr::from(([192, 0, 2, 1], 5280)) };
        Frame::Open { id: self.id(user, slot), open }.encode(out);
        self.users[user as usize].slots[slot] = Slot::Free;
    }

    fn closed(
        &mut self,
        user: u32,
        slot: usize,
        reason: CloseReason,
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let id = self.id(user, slot);
        let at = self.users.get_mut(user as usize).ok_or("there is no such user")?;
        let may = at.phase == Phase::Leaving || (self.settings.bosh && at.slots[slot] == Slot::Free);
        if !may {
            return Err(format!("its connection was closed, {:?}: {reason:?}", at.slots[slot]));
        }
        if std::mem::replace(&mut at.slots[slot], Slot::Closed) != Slot::Closing {
            Frame::Close { id, reason: CloseReason::Normal }.encode(out);
        }
        self.partial.remove(&self.key(user, slot));
        let at = &mut self.users[user as usize];
        if at.phase == Phase::Leaving && at.slots == [Slot::Closed; SLOTS] {
            at.phase = Phase::Gone;
            let since = self.leaving.remove(&user);
            events.push(Event::Gone(since.map_or(Duration::ZERO, |since| since.elapsed())));
        }
        Ok(())
    }

    fn key(&self, user: u32, slot: usize) -> u64 {
        u64::from(user) * SLOTS as u64 + slot as u64
    }

    fn data(
        &mut self,
        user: u32,
        slot: usize,
        payload: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let at = self.users.get(user as usize).ok_or("there is no such user")?;
        if matches!(at.slots[slot], Slot::Closed | Slot::Closing) {
            return Ok(());
        }
        let key = self.key(user, slot);
        let input = match self.partial.remove(&key) {
            None => Cow::Borrowed(payload),
            Some(mut before) => {
                before.extend_from_slice(payload);
                Cow::Owned(before)
            }
        };
        let taken = if self.settings.bosh {
            self.answer(user, slot, &input, out, events)?
        } else {
            self.texts(user, &input, out, events)?
        };
        if taken < input.len() {
            self.partial.insert(key, input[taken..].to_vec());
        }
        Ok(())
    }

    // ---- WebSocket ------------------------------------------------------------------------------------------------

    fn send_text(&mut self, user: u32, text: &str, out: &mut Vec<u8>) {
        let payload = [&header(text.len() as u32)[..], text.as_bytes()].concat();
        Frame::Data { id: self.id(user, 0), payload: &payload }.encode(out);
    }

    /// Takes all texts that are complete: how many bytes these are.
    fn texts(
        &mut self,
        user: u32,
        input: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<usize, String> {
        let mut taken = 0;
        while let Some(head) = Head::parse(&input[taken..]) {
            let Head::Message(length) = head else { return Err("a fault from ejabberd".to_owned()) };
            let start = taken + MESSAGE_HEADER;
            let Some(text) = input.get(start..start + length as usize) else { break };
            taken = start + text.len();
            let (element, _) = xml::element(text).map_err(|error| format!("no XML: {error:?}"))?;
            self.element(user, &element, out, events)?;
        }
        Ok(taken)
    }

    fn element(
        &mut self,
        user: u32,
        element: &Element,
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let phase = self.users[user as usize].phase;
        match element.local_name() {
            "open" => return Ok(()),
            "close" if phase != Phase::Leaving => return Err("the server ended the stream".to_owned()),
            _ => {}
        }
        match phase {
            Phase::Online => stanza(user, element, events),
            Phase::Leaving | Phase::Gone => Ok(()),
            Phase::Login => {
                let login = self.logins.get_mut(&user).ok_or("a login that has ended")?;
                for said in login.element(element, &self.settings.domain)? {
                    match said {
                        Said::Text(text) => self.send_text(user, &text, out),
                        Said::Online => self.online(user, events)?,
                    }
                }
                Ok(())
            }
        }
    }

    fn online(&mut self, user: u32, events: &mut Vec<Event>) -> Result<(), String> {
        let login = self.logins.remove(&user).ok_or("a login that has ended")?;
        let done = login.done(&self.settings.domain)?;
        let at = &mut self.users[user as usize];
        at.name = self.names.add(done.name)?;
        at.phase = Phase::Online;
        if let Some((rid, sid)) = done.bosh {
            at.rid = rid;
            self.node = at.set_sid(&sid);
        }
        events.push(Event::Online(login.started().elapsed()));
        Ok(())
    }
}

/// A stanza for a user who is online: messages, and nothing that has to be answered.
fn stanza(user: u32, element: &Element, events: &mut Vec<Event>) -> Result<(), String> {
    match element.local_name() {
        "message" => {
            let body = element.child("body").ok_or("a message without text")?;
            events.push(Event::Message(user, body.text.clone()));
            Ok(())
        }
        "presence" => Ok(()),
        other => Err(format!("<{other}> was not expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Crowd {
        let settings = Settings {
            bosh: false,
            domain: "localhost".to_owned(),
            path: String::new(),
            wait: 60,
            users: 2,
            links: 1,
        };
        let mut crowd = Crowd::new(settings);
        let user = crowd.add();
        crowd.begin(user, 1, &mut Vec::new()).expect("it can");
        crowd
    }

    #[test]
    fn who_finds_no_room_is_absent_and_not_lost() {
        let mut crowd = crowd();
        let mut events = Vec::new();
        let full = || Frame::Error { id: 1, code: ErrorCode::Limit, text: "out of descriptors" };
        crowd.take(0, full(), &mut Vec::new(), &mut events).expect("taken");
        assert_eq!(events, [Event::NoRoom("out of descriptors".to_owned())]);
        assert_eq!((crowd.len(), crowd.under_way()), (1, 0));
        assert!(crowd.absent().contains(&0));
        // The same once more, of one who is not logging in, is not a matter of room.
        assert!(crowd.take(0, full(), &mut Vec::new(), &mut events).is_err());
    }

    #[test]
    fn any_other_error_is_a_lost_user() {
        let frame = Frame::Error { id: 1, code: ErrorCode::Other, text: "the connection broke" };
        let lost = crowd().take(0, frame, &mut Vec::new(), &mut Vec::new());
        assert_eq!(lost, Err((0, "the connection broke".to_owned())));
    }
}
