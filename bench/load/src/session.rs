//! A user's XMPP session (RFC 6120), whatever carries it: what to answer to what came, until the user is online.

use crate::scram::Scram;
use crate::xml::{Element, escape};

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
const SM: &str = "urn:xmpp:sm:3";

/// What a user does when it logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Anonymous, and presence.
    Bare,
    /// Registered under this name; stream management, carbons and the roster as well.
    Typical {
        /// The local part of its address.
        name: String,
        /// What it was registered with.
        password: String,
    },
}

/// How far a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The connection and the first stream.
    Open,
    /// Its name.
    Authenticate,
    /// The second stream.
    Restart,
    /// The resource.
    Bind,
    /// All that was asked for after that.
    Setup,
    /// Done.
    Online,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// These stanzas go to the server.
    Send(String),
    /// The stream begins anew.
    Restart,
    /// The user is online from now on.
    Online,
    /// A message came: its text.
    Message(String),
    /// A question that was asked since it is online was answered: its id.
    Answer(String),
}

/// A session from the first features on.
#[derive(Debug)]
pub struct Session {
    login: Login,
    nonce: String,
    step: Step,
    scram: Option<Box<Scram>>,
    jid: String,
    offers: (bool, bool),
    awaited: Vec<&'static str>,
    handled: Option<u32>,
}

impl Session {
    /// `nonce` must be no other session's.
    #[must_use]
    pub fn new(login: Login, nonce: String) -> Self {
        Self {
            login,
            nonce,
            step: Step::Open,
            scram: None,
            jid: String::new(),
            offers: (false, false),
            awaited: Vec::new(),
            handled: None,
        }
    }

    /// How far it is.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// What it waits for, for people.
    #[must_use]
    pub fn waits_for(&self) -> String {
        if self.step == Step::Setup {
            format!("Setup, without {}", self.awaited.join(", "))
        } else {
            format!("{:?}", self.step)
        }
    }

    /// Its full address; empty before it has one.
    #[must_use]
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// Takes an element that came.
    ///
    /// # Errors
    ///
    /// When it ends the session or does not belong here.
    pub fn receive(&mut self, element: &Element, actions: &mut Vec<Action>) -> Result<(), String> {
        let name = element.local_name();
        if let (Some(handled), "iq" | "message" | "presence") = (&mut self.handled, name) {
            *handled = handled.wrapping_add(1);
        }
        match name {
            "features" => self.features(element, actions),
            "challenge" => {
                let scram = self.scram.as_mut().ok_or("a challenge without being asked for")?;
                let response = scram.respond(&element.text)?;
                actions.push(Action::Send(format!("<response xmlns='{SASL}'>{response}</response>")));
                Ok(())
            }
            "success" => {
                if let Some(scram) = self.scram.take() {
                    scram.verify(&element.text)?;
                }
                self.step = Step::Restart;
                actions.push(Action::Restart);
                Ok(())
            }
            "failure" | "error" | "failed" => Err(format!("<{}>: {}", element.name, condition(element))),
            "iq" => self.iq(element, actions),
            "presence" => {
                if element.attribute("type").is_none() && element.attribute("from") == Some(self.jid.as_str())
                {
                    self.came("presence", actions);
                }
                Ok(())
            }
            "message" => {
                if let Some(body) = element.child("body") {
                    actions.push(Action::Message(body.text.clone()));
                }
                Ok(())
            }
            "enabled" => {
                self.handled = Some(0);
                self.came("enabled", actions);
                Ok(())
            }
            "r" => {
                let handled = self.handled.unwrap_or(0);
                actions.push(Action::Send(format!("<a xmlns='{SM}' h='{handled}'/>")));
                Ok(())
            }
            "a" => Ok(()),
            other => Err(format!("<{other}> was not expected")),
        }
    }

    fn features(&mut self, features: &Element, actions: &mut Vec<Action>) -> Result<(), String> {
        if self.step == Step::Restart {
            features.child("bind").ok_or("no resource is offered")?;
            self.offers = (features.child("session").is_some(), features.child("sm").is_some());
            self.step = Step::Bind;
            actions.push(Action::Send(format!(
                "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='{BIND}'><resource>load</resource></bind></iq>"
            )));
            return Ok(());
        }
        if self.step != Step::Open {
            return Err("features in the middle of a stream".to_owned());
        }
        self.step = Step::Authenticate;
        let (mechanism, first) = match &self.login {
            Login::Bare => ("ANONYMOUS", String::new()),
            Login::Typical { name, password } => {
                let scram = self.scram.insert(Box::new(Scram::new(name, password, &self.nonce)));
                ("SCRAM-SHA-1", scram.first())
            }
        };
        let mechanisms = features.child("mechanisms").ok_or("no mechanisms are offered")?;
        if !mechanisms.children.iter().any(|offered| offered.text == mechanism) {
            return Err(format!("{mechanism} is not offered"));
        }
        actions.push(Action::Send(format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>")));
        Ok(())
    }

    fn iq(&mut self, iq: &Element, actions: &mut Vec<Action>) -> Result<(), String> {
        let id = iq.attribute("id").unwrap_or_default();
        match (iq.attribute("type"), id) {
            (Some("result"), "bind") if self.step == Step::Bind => {
                let jid =
                    iq.child("bind").and_then(|bind| bind.child("jid")).ok_or("no address was given")?;
                self.jid = jid.text.clone();
                self.setup(actions);
                Ok(())
            }
            (Some("result"), id) if self.step == Step::Online => {
                actions.push(Action::Answer(id.to_owned()));
                Ok(())
            }
            (Some("result"), id) => {
                self.came(id, actions);
                Ok(())
            }
            (Some("error"), id) => Err(format!("an error for `{id}`: {}", condition(iq))),
            _ => {
                actions.push(Action::Send(refusal(iq)));
                Ok(())
            }
        }
    }

    /// Everything between the address and the presence, in one go as clients do that know what they want.
    fn setup(&mut self, actions: &mut Vec<Action>) {
        let mut stanzas = String::new();
        let (session, sm) = self.offers;
        let typical = matches!(self.login, Login::Typical { .. });
        let asks = [
            (
                session,
                "session",
                format!(
                    "<iq xmlns='jabber:client' type='set' id='session'><session xmlns='{SESSION}'/></iq>"
                ),
            ),
            (typical && sm, "enabled", format!("<enable xmlns='{SM}' resume='true'/>")),
            (
                typical,
                "carbons",
                "<iq xmlns='jabber:client' type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>"
                    .to_owned(),
            ),
            (
                typical,
                "roster",
                "<iq xmlns='jabber:client' type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>"
                    .to_owned(),
            ),
            (true, "presence", "<presence xmlns='jabber:client'/>".to_owned()),
        ];
        for (_, answer, stanza) in asks.iter().filter(|(wanted, _, _)| *wanted) {
            self.awaited.push(answer);
            stanzas.push_str(stanza);
        }
        self.step = Step::Setup;
        actions.push(Action::Send(stanzas));
    }

    fn came(&mut self, answer: &str, actions: &mut Vec<Action>) {
        self.awaited.retain(|awaited| *awaited != answer);
        if self.step == Step::Setup && self.awaited.is_empty() {
            self.step = Step::Online;
            actions.push(Action::Online);
        }
    }
}

/// The name of the first thing in an error, or its text.
fn condition(element: &Element) -> String {
    let error = element.child("error").unwrap_or(element);
    error.children.first().map_or_else(|| error.text.clone(), |condition| condition.name.clone())
}

/// Whatever the server asks this client for, it cannot.
fn refusal(iq: &Element) -> String {
    let to = iq.attribute("from").map_or_else(String::new, |from| format!(" to='{}'", escape(from)));
    format!(
        "<iq xmlns='jabber:client' type='error' id='{}'{to}><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
        escape(iq.attribute("id").unwrap_or_default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn give(session: &mut Session, text: &str) -> Result<Vec<Action>, String> {
        let (element, _) = xml::element(text.as_bytes()).expect("XML");
        let mut actions = Vec::new();
        session.receive(&element, &mut actions).map(|()| actions)
    }

    #[test]
    fn logs_in() {
        let mut session = Session::new(Login::Bare, "n".to_owned());
        let offer =
            "<stream:features><mechanisms><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>";
        assert!(
            matches!(&give(&mut session, offer).expect("auth")[..], [Action::Send(auth)] if auth.contains("ANONYMOUS"))
        );
        assert_eq!(give(&mut session, "<success/>"), Ok(vec![Action::Restart]));
        let offer = "<stream:features><bind/><session/></stream:features>";
        assert!(
            matches!(&give(&mut session, offer).expect("bind")[..], [Action::Send(bind)] if bind.contains("resource"))
        );
        let bound = "<iq type='result' id='bind'><bind><jid>a@b/c</jid></bind></iq>";
        assert!(
            matches!(&give(&mut session, bound).expect("rest")[..], [Action::Send(rest)] if rest.contains("presence"))
        );
        assert_eq!(give(&mut session, "<iq type='result' id='session'/>"), Ok(vec![]));
        assert!(session.waits_for().contains("presence"));
        assert_eq!(give(&mut session, "<presence from='a@b/c'/>"), Ok(vec![Action::Online]));
        let message = "<message from='x'><body>1 &lt; 2</body></message>";
        assert_eq!(give(&mut session, message), Ok(vec![Action::Message("1 < 2".to_owned())]));
        let answer = "<iq type='result' id='7'/>";
        assert_eq!(give(&mut session, answer), Ok(vec![Action::Answer("7".to_owned())]));
        assert_eq!((session.step(), session.jid()), (Step::Online, "a@b/c"));
    }

    #[test]
    fn tells_what_was_refused() {
        let mut session = Session::new(Login::Bare, "n".to_owned());
        let offer =
            "<stream:features><mechanisms><mechanism>PLAIN</mechanism></mechanisms></stream:features>";
        assert!(give(&mut session, offer).expect_err("refused").contains("ANONYMOUS"));
        let refused = "<iq type='error' id='bind'><error><conflict/></error></iq>";
        assert!(give(&mut session, refused).expect_err("refused").contains("conflict"));
        assert!(give(&mut session, "<stream:error><policy-violation/></stream:error>").is_err());
    }

    #[test]
    fn counts_for_stream_management() {
        let mut session = Session::new(Login::Bare, "n".to_owned());
        give(&mut session, "<enabled/>").expect("enabled");
        give(&mut session, "<presence from='x'/>").expect("presence");
        assert!(
            matches!(&give(&mut session, "<r/>").expect("answer")[..], [Action::Send(a)] if a.contains("h='1'"))
        );
    }
}
