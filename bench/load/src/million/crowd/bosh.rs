//! The part of a crowd that is about BOSH: requests and their answers.

use megaphone_core::bosh::EMPTY;
use megaphone_core::link::{CloseReason, Frame, ReadyMode};

use super::{Crowd, Event, stanza};
use crate::million::user::{Phase, SLOTS, Slot};
use crate::{bosh, http};

impl Crowd {
    pub(super) fn request(&mut self, user: u32, slot: usize, body: &str, out: &mut Vec<u8>) {
        if self.users[user as usize].slots[slot] == Slot::Closed {
            self.open(user, slot, out);
        }
        let at = &mut self.users[user as usize];
        if !at.is_busy() {
            at.older = slot as u8;
        }
        at.slots[slot] = Slot::Busy;
        self.requests += 1;
        let request = http::post(&self.settings.path, &self.settings.domain, body, false);
        Frame::Data { id: self.id(user, slot), payload: &request }.encode(out);
    }

    /// Sends what is to be sent, or an empty request if none is under way, as far as there is a connection for it.
    pub(super) fn step(&mut self, user: u32, out: &mut Vec<u8>) -> Result<(), String> {
        let at = &mut self.users[user as usize];
        let Some(slot) = at.slot() else { return Ok(()) };
        let idle = !at.is_busy();
        let body = match at.phase {
            Phase::Login => {
                let login = self.logins.get_mut(&user).ok_or("a login that has ended")?;
                login.body(&self.settings.domain, idle)
            }
            Phase::Online => {
                let stanzas = self.waiting.remove(&user);
                let wanted = idle || stanzas.is_some();
                wanted.then(|| at.body(self.node, "", &stanzas.unwrap_or_default()))
            }
            Phase::Leaving | Phase::Gone => None,
        };
        if let Some(body) = body {
            self.request(user, slot, &body, out);
        }
        Ok(())
    }

    pub(super) fn ready(
        &mut self,
        user: u32,
        slot: usize,
        mode: ReadyMode,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let at = self.users.get_mut(user as usize).ok_or("there is no such user")?;
        match at.slots[slot] {
            Slot::Answered if mode == ReadyMode::Request => at.slots[slot] = Slot::Free,
            Slot::Closing => return Ok(()),
            other => return Err(format!("permission for another request, {other:?}: {mode:?}")),
        }
        self.step(user, out)
    }

    /// Takes an answer, if it is complete: how many bytes it has.
    pub(super) fn answer(
        &mut self,
        user: u32,
        slot: usize,
        input: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<usize, String> {
        let Some(head) = http::head(input)? else { return Ok(0) };
        let Some(body) = input.get(head.length..head.length + head.body) else { return Ok(0) };
        if head.status != 200 {
            return Err(format!("the server answered {}", head.status));
        }
        let at = &mut self.users[user as usize];
        if std::mem::replace(&mut at.slots[slot], Slot::Answered) != Slot::Busy {
            return Err("an answer without a request".to_owned());
        }
        if at.is_busy() && usize::from(at.older) != slot {
            self.early.insert(user, body.to_vec());
            return Ok(input.len());
        }
        at.older = (SLOTS - 1 - slot) as u8;
        self.body(user, body, events)?;
        if let Some(body) = self.early.remove(&user) {
            self.body(user, &body, events)?;
        }
        let at = &mut self.users[user as usize];
        if at.phase == Phase::Leaving && !at.is_busy() {
            self.close(user, out);
        }
        Ok(input.len())
    }

    fn body(&mut self, user: u32, body: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        if self.users[user as usize].phase == Phase::Login {
            let login = self.logins.get_mut(&user).ok_or("a login that has ended")?;
            return if login.answer(body)? { self.online(user, events) } else { Ok(()) };
        }
        if body == EMPTY {
            return Ok(());
        }
        let body = bosh::read(body)?;
        match (bosh::end(&body), self.users[user as usize].phase) {
            (_, Phase::Leaving) => Ok(()),
            (Some(reason), _) => Err(format!("the server ended the session: {reason}")),
            (None, _) => body.children.iter().try_for_each(|child| stanza(user, child, events)),
        }
    }

    pub(super) fn close(&mut self, user: u32, out: &mut Vec<u8>) {
        for slot in 0..SLOTS {
            let at = &mut self.users[user as usize].slots[slot];
            if !matches!(at, Slot::Closed | Slot::Closing) {
                *at = Slot::Closing;
                Frame::Close { id: self.id(user, slot), reason: CloseReason::PeerGone }.encode(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use megaphone_core::bosh::Sid;
    use megaphone_core::link::{Decoder, Hello, Role};

    use super::*;
    use crate::million::crowd::Settings;

    const STEPS: &[&str] = &[
        "<stream:features><mechanisms><mechanism>ANONYMOUS</mechanism></mechanisms></stream:features>",
        "<success/>",
        "<stream:features><bind/></stream:features>",
        "<iq type='result' id='bind'><bind><jid>7@localhost/load</jid></bind></iq>",
        "<presence from='7@localhost/load'/>",
    ];

    fn settings() -> Settings {
        Settings {
            bosh: true,
            domain: "localhost".to_owned(),
            path: "/bosh".to_owned(),
            wait: 60,
            users: 1,
            links: 1,
        }
    }

    /// An answer on a connection, and after it the permission for another request: what is said to it.
    fn answer(crowd: &mut Crowd, id: u64, body: &str) -> Result<(String, Vec<Event>), (u32, String)> {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (mut out, mut events) = (Vec::new(), Vec::new());
        // In two pieces.
        let (first, second) = text.as_bytes().split_at(text.len() - 3);
        for payload in [first, second] {
            crowd.take(0, Frame::Data { id, payload }, &mut out, &mut events)?;
        }
        crowd.take(0, Frame::Ready { id, mode: ReadyMode::Request }, &mut out, &mut events)?;
        Ok((said(&out), events))
    }

    /// The ids of frames and what they are, and the bodies of requests.
    fn said(out: &[u8]) -> String {
        let mut bytes = Vec::new();
        let hello = Hello { role: Role::Ecm, features: 0, window: 65_536, name: "" };
        Frame::Hello(hello).encode(&mut bytes);
        bytes.extend_from_slice(out);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let mut said = String::new();
        while let Some(frame) = decoder.next().expect("frames") {
            match frame {
                Frame::Hello(_) => {}
                Frame::Data { id, payload } => {
                    let text = String::from_utf8_lossy(payload);
                    let (_, body) = text.split_once("\r\n\r\n").expect("a request");
                    said.push_str(&format!("data {id} {body} "));
                }
                Frame::Open { id, .. } => said.push_str(&format!("open {id} ")),
                Frame::Close { id, .. } => said.push_str(&format!("close {id} ")),
                other => panic!("{}", other.name()),
            }
        }
        said
    }

    fn online() -> Crowd {
        let mut crowd = Crowd::new(settings());
        let user = crowd.add();
        let mut out = Vec::new();
        crowd.begin(user, 100, &mut out).expect("it can");
        assert!(said(&out).starts_with("open 1 data 1 <body rid='100' "));
        let sid =
            String::from_utf8(Sid { node: 1, place: 2, secret: [3; 16] }.text().to_vec()).expect("text");
        for (at, step) in STEPS.iter().enumerate() {
            let (said, events) =
                answer(&mut crowd, 1, &format!("<body sid='{sid}'>{step}</body>")).expect("taken");
            assert!(said.starts_with(&format!("data 1 <body rid='{}' sid='{sid}' ", 101 + at)), "{said}");
            assert_eq!(events.len(), usize::from(at + 1 == STEPS.len()));
        }
        assert_eq!(crowd.under_way(), 0);
        crowd
    }

    fn message(text: &str) -> String {
        format!("<body><message><body>{text}</body></message></body>")
    }

    #[test]
    fn polls_again() {
        let mut crowd = online();
        let (said, events) = answer(&mut crowd, 1, &message("0 0")).expect("taken");
        assert!(said.starts_with("data 1 <body rid='106' ") && said.ends_with("/> "), "{said}");
        assert_eq!(events, [Event::Message(0, "0 0".to_owned())]);
        assert!(answer(&mut crowd, 1, "<body type='terminate' condition='item-not-found'/>").is_err());
        assert!(answer(&mut crowd, 1, "<body/>").is_err());
    }

    #[test]
    fn takes_answers_in_order() {
        let mut crowd = online();
        let mut out = Vec::new();
        crowd.write(0, 0, "text", &mut out).expect("it can");
        let text = said(&out);
        assert!(text.starts_with("open 2 data 2 <body rid='106' ") && text.contains("to='7@localhost/load'"));
        // Both connections are in use until one is answered.
        out.clear();
        crowd.write(0, 0, "later", &mut out).expect("it can");
        assert!(out.is_empty());
        let (said, events) = answer(&mut crowd, 2, &message("1 0")).expect("taken");
        assert!(said.contains("later") && events.is_empty());
        let (_, events) = answer(&mut crowd, 1, &message("0 0")).expect("taken");
        assert_eq!(events, ["0 0", "1 0"].map(|text| Event::Message(0, text.to_owned())));
    }

    #[test]
    fn leaves() {
        let mut crowd = online();
        let (mut out, mut events) = (Vec::new(), Vec::new());
        crowd.leave(0, &mut out).expect("it can");
        assert!(said(&out).contains(" type='terminate'/>"));
        let (text, _) = answer(&mut crowd, 1, "<body/>").expect("taken");
        assert_eq!(text, "");
        let (text, _) = answer(&mut crowd, 2, "<body type='terminate'/>").expect("taken");
        assert_eq!(text, "close 1 close 2 ");
        assert!(
            crowd
                .overdue(std::time::Instant::now() + Duration::from_secs(9), Duration::from_secs(1))
                .is_some()
        );
        out.clear();
        for id in [2, 1] {
            let frame = Frame::Close { id, reason: CloseReason::Normal };
            crowd.take(0, frame, &mut out, &mut events).expect("taken");
        }
        assert!(out.is_empty() && matches!(events[..], [Event::Gone(_)]));
        assert_eq!(crowd.under_way(), 0);
    }

    #[test]
    fn a_connection_may_go_when_it_is_free() {
        let mut crowd = online();
        let mut out = Vec::new();
        crowd.write(0, 0, "text", &mut out).expect("it can");
        answer(&mut crowd, 1, "<body/>").expect("taken");
        out.clear();
        let close = |id| Frame::Close { id, reason: CloseReason::Timeout };
        crowd.take(0, close(1), &mut out, &mut Vec::new()).expect("taken");
        assert_eq!(said(&out), "close 1 ");
        let (user, reason) = crowd.take(0, close(2), &mut out, &mut Vec::new()).expect_err("lost");
        assert_eq!(user, 0);
        assert!(reason.contains("Busy"), "{reason}");
    }
}
