//! One chat user: a session and what carries it.

use std::time::{Duration, Instant};

use crate::session::{Action, Login, Session, Step};
use crate::transport::{Net, Transport};
use crate::xml::Element;

/// What happened to a user.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It is online.
    Online,
    /// It got a message with this text.
    Message(String),
    /// The question with this id was answered.
    Answer(String),
}

/// A user that logs in, or is online.
#[derive(Debug)]
pub struct User {
    session: Session,
    transport: Transport,
    started: Instant,
}

impl User {
    /// Begins to log in.
    ///
    /// # Errors
    ///
    /// When the system refuses a connection.
    pub fn start(login: Login, net: &Net<'_>) -> Result<Self, String> {
        let session = Session::new(login, format!("{:016x}", net.random));
        Ok(Self { session, transport: Transport::open(net)?, started: Instant::now() })
    }

    /// Its address.
    #[must_use]
    pub fn jid(&self) -> &str {
        self.session.jid()
    }

    /// Whether it is online.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.session.step() == Step::Online
    }

    /// What it waits for, for people.
    #[must_use]
    pub fn waits_for(&self) -> String {
        self.session.waits_for()
    }

    /// How long ago it began.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// HTTP requests that it has sent.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.transport.requests()
    }

    /// Whether the server owes it an answer for too long.
    #[must_use]
    pub fn is_overdue(&self, now: Instant, wait: u32) -> bool {
        self.transport.is_overdue(now, wait)
    }

    /// Sends stanzas.
    ///
    /// # Errors
    ///
    /// When its connection is gone.
    pub fn send(&mut self, stanzas: &str, net: &Net<'_>) -> Result<(), String> {
        self.transport.send(stanzas)?;
        self.transport.flush(net, self.is_online())
    }

    /// Something happened at one of its connections.
    ///
    /// # Errors
    ///
    /// When its session is over.
    pub fn ready(&mut self, slot: usize, net: &Net<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let mut elements = Vec::new();
        let result = self.transport.ready(slot, net, &mut elements);
        // What came before the end tells more than the end itself.
        self.take(&elements, net, events)?;
        result?;
        self.transport.flush(net, self.is_online())
    }

    fn take(&mut self, elements: &[Element], net: &Net<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let mut actions = Vec::new();
        for element in elements {
            self.session.receive(element, &mut actions)?;
        }
        for action in actions {
            match action {
                Action::Send(stanzas) => self.transport.send(&stanzas)?,
                Action::Restart => self.transport.restart(net)?,
                Action::Online => events.push(Event::Online),
                Action::Message(text) => events.push(Event::Message(text)),
                Action::Answer(id) => events.push(Event::Answer(id)),
            }
        }
        Ok(())
    }
}
