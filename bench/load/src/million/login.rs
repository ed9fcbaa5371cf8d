//! What is kept of a user who logs in.

use std::time::Instant;

use megaphone_core::bosh::Sid;

use crate::bosh::Bosh;
use crate::session::{Action, Login as Kind, Session};
use crate::xml::{self, Element};

/// The resource that [`Session`] asks for.
const RESOURCE: &str = "load";

/// A login under way.
#[derive(Debug)]
pub struct Login {
    session: Session,
    started: Instant,
    /// `None` for WebSocket.
    bosh: Option<Bosh>,
    /// What its next request has to carry.
    stanzas: String,
    restart: bool,
}

/// What a WebSocket user says next, or that it is online.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A message.
    Text(String),
    /// It has all it wants.
    Online,
}

/// What is left of a login.
#[derive(Debug)]
pub struct Done<'a> {
    /// The local part of the user's address.
    pub name: &'a str,
    /// The number of the next request, and the session's name.
    pub bosh: Option<(u32, Sid)>,
}

impl Login {
    /// By WebSocket.
    #[must_use]
    pub fn websocket(now: Instant) -> Self {
        Self::new(None, now)
    }

    /// By BOSH; requests are numbered from `rid` on, and held for `wait` seconds.
    #[must_use]
    pub fn bosh(rid: u32, wait: u32, now: Instant) -> Self {
        Self::new(Some(Bosh::new(rid.into(), wait)), now)
    }

    fn new(bosh: Option<Bosh>, started: Instant) -> Self {
        let session = Session::new(Kind::Bare, String::new());
        Self { session, started, bosh, stanzas: String::new(), restart: false }
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it waits for, for people.
    #[must_use]
    pub fn waits_for(&self) -> String {
        self.session.waits_for()
    }

    /// The next body to send by BOSH. `idle`: nothing is under way, so that it may be an empty one.
    pub fn body(&mut self, domain: &str, idle: bool) -> Option<String> {
        let bosh = self.bosh.as_mut()?;
        if !bosh.is_open() {
            return idle.then(|| bosh.open(domain));
        }
        if std::mem::take(&mut self.restart) {
            return Some(bosh.restart(domain));
        }
        let wanted = idle || !self.stanzas.is_empty();
        wanted.then(|| bosh.carry(&std::mem::take(&mut self.stanzas)))
    }

    /// Takes an answer by BOSH: whether the user is online then.
    ///
    /// # Errors
    ///
    /// When the session ends or does what it should not.
    pub fn answer(&mut self, answer: &[u8]) -> Result<bool, String> {
        let bosh = self.bosh.as_mut().ok_or("an answer without BOSH")?;
        let mut actions = Vec::new();
        for element in bosh.answer(answer)? {
            self.session.receive(&element, &mut actions)?;
        }
        let mut online = false;
        for action in actions {
            match action {
                Action::Send(stanzas) => self.stanzas.push_str(&stanzas),
                Action::Restart => self.restart = true,
                Action::Online => online = true,
                other => return Err(format!("too early: {other:?}")),
            }
        }
        Ok(online)
    }

    /// Takes an element by WebSocket.
    ///
    /// # Errors
    ///
    /// When the session ends or does what it should not.
    pub fn element(&mut self, element: &Element, domain: &str) -> Result<Vec<Said>, String> {
        let (mut actions, mut said) = (Vec::new(), Vec::new());
        self.session.receive(element, &mut actions)?;
        for action in actions {
            match action {
                Action::Send(stanzas) => split(&stanzas, &mut said)?,
                Action::Restart => said.push(Said::Text(open(domain))),
                Action::Online => said.push(Said::Online),
                other => return Err(format!("too early: {other:?}")),
            }
        }
        Ok(said)
    }

    /// What is to be kept of it.
    ///
    /// # Errors
    ///
    /// When names are not what this program can keep.
    pub fn done(&self, domain: &str) -> Result<Done<'_>, String> {
        let jid = self.session.jid();
        let name = jid.strip_suffix(RESOURCE).and_then(|rest| rest.strip_suffix('/'));
        let name = name.and_then(|rest| rest.strip_suffix(domain)).and_then(|rest| rest.strip_suffix('@'));
        let name = name.ok_or_else(|| format!("another address than was asked for: {jid}"))?;
        let bosh = match &self.bosh {
            None => None,
            Some(bosh) => {
                let sid = Sid::parse(bosh.sid().as_bytes()).ok_or("a sid of another form: not native")?;
                Some((u32::try_from(bosh.rid()).map_err(|_| "too many requests")?, sid))
            }
        };
        Ok(Done { name, bosh })
    }
}

/// What opens a stream by WebSocket.
#[must_use]
pub fn open(domain: &str) -> String {
    format!("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{domain}' version='1.0'/>")
}

/// The full address of a user with this name.
#[must_use]
pub fn jid(name: &str, domain: &str) -> String {
    format!("{name}@{domain}/{RESOURCE}")
}

/// A message holds one element (RFC 7395, 3.3).
fn split(stanzas: &str, said: &mut Vec<Said>) -> Result<(), String> {
    let mut rest = stanzas;
    while !rest.is_empty() {
        let (_, length) = xml::element(rest.as_bytes()).map_err(|error| format!("own stanza: {error:?}"))?;
        let (stanza, others) = rest.split_at(length);
        said.push(Said::Text(stanza.to_owned()));
        rest = others;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: &[&str] = &[
        "<stream:features><mechanisms><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>",
        "<success/>",
        "<stream:features><bind/><session/></stream:features>",
        "<iq type='result' id='bind'><bind><jid>77@localhost/load</jid></bind></iq>",
        "<iq type='result' id='session'/>",
        "<presence from='77@localhost/load'/>",
    ];

    #[test]
    fn logs_in_by_websocket() {
        let mut login = Login::websocket(Instant::now());
        let mut said = Vec::new();
        for text in FEATURES {
            let (element, _) = xml::element(text.as_bytes()).expect("XML");
            said.extend(login.element(&element, "localhost").expect("as it should be"));
        }
        assert_eq!(said.len(), 6);
        assert!(matches!(&said[1], Said::Text(text) if text.starts_with("<open ")));
        assert_eq!(said[5], Said::Online);
        assert_eq!(login.done("localhost").expect("ours").name, "77");
        assert!(login.done("example").is_err());
    }

    #[test]
    fn logs_in_by_bosh() {
        let mut login = Login::bosh(7, 60, Instant::now());
        let sid =
            String::from_utf8(Sid { node: 1, place: 2, secret: [3; 16] }.text().to_vec()).expect("text");
        let mut bodies = Vec::new();
        for (at, text) in FEATURES.iter().enumerate() {
            bodies.push(login.body("localhost", true).expect("a body"));
            let more = if at == 0 { format!(" sid='{sid}'") } else { String::new() };
            let online = login.answer(format!("<body{more}>{text}</body>").as_bytes()).expect("a body");
            assert_eq!(online, at == 5);
        }
        assert!(bodies[2].contains("restart") && bodies[5].ends_with("httpbind'/>"));
        let (rid, kept) = login.done("localhost").expect("ours").bosh.expect("BOSH");
        assert_eq!((rid, kept.place, kept.secret), (13, 2, [3; 16]));
        assert_eq!(login.body("localhost", false), None);
    }
}
