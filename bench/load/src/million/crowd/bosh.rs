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
