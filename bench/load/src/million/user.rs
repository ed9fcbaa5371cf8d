//! What is kept of a user who is online.

use megaphone_core::bosh::Sid;

use crate::bosh;

/// Connections that a user has at most: WebSocket users have the first one.
pub const SLOTS: usize = 2;

/// A virtual connection of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Slot {
    /// There is none.
    #[default]
    Closed,
    /// It is open, and may carry a request.
    Free,
    /// A request is under way.
    Busy,
    /// The answer has come, the permission to send the next request has not.
    Answered,
    /// We have closed it, the other end has not.
    Closing,
}

/// How far a user is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Logs in.
    #[default]
    Login,
    /// Has all it wants.
    Online,
    /// Has said that it goes.
    Leaving,
    /// Nothing of it is left.
    Gone,
}

/// A user. There are very many: no byte more than needed.
#[derive(Debug, Default)]
pub struct User {
    /// Where its name is in [`Names`].
    pub name: u32,
    /// The number of its next BOSH request.
    pub rid: u32,
    /// Two parts of its sid; the third is that of the node, the same for all.
    place: u32,
    secret: [u8; 16],
    /// Its connections.
    pub slots: [Slot; SLOTS],
    /// How far it is.
    pub phase: Phase,
    /// Which slot has the older one of two requests.
    pub older: u8,
}

const _: () = assert!(size_of::<User>() == 32);

impl User {
    /// Keeps the name of its BOSH session; the answer is the tag of the node.
    pub fn set_sid(&mut self, sid: &Sid) -> u32 {
        self.place = sid.place;
        self.secret = sid.secret;
        sid.node
    }

    /// The next body of its BOSH session, with these attributes and stanzas.
    pub fn body(&mut self, node: u32, more: &str, stanzas: &str) -> String {
        let sid = Sid { node, place: self.place, secret: self.secret }.text();
        let rid = self.rid;
        self.rid += 1;
        bosh::body(rid.into(), std::str::from_utf8(&sid).ok(), more, stanzas)
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.slots.contains(&Slot::Busy)
    }

    /// A connection for a request: one that is open, else one that has to be opened.
    #[must_use]
    pub fn slot(&self) -> Option<usize> {
        let find = |wanted| self.slots.iter().position(|slot| *slot == wanted);
        find(Slot::Free).or_else(|| find(Slot::Closed))
    }
}

/// Names of users, one after the other: a byte for the length, and the name.
#[derive(Debug)]
pub struct Names {
    bytes: Vec<u8>,
}

impl Names {
    /// With room for so many users, which is not memory before it is used.
    #[must_use]
    pub fn new(users: usize) -> Self {
        Self { bytes: Vec::with_capacity(users * 48) }
    }

    /// Keeps a name: where it is.
    ///
    /// # Errors
    ///
    /// When it is too long.
    pub fn add(&mut self, name: &str) -> Result<u32, String> {
        let too_long = |_| format!("a name too long to be kept: {name}");
        let at = u32::try_from(self.bytes.len()).map_err(too_long)?;
        self.bytes.push(u8::try_from(name.len()).map_err(too_long)?);
        self.bytes.extend_from_slice(name.as_bytes());
        Ok(at)
    }

    /// The name at such a place.
    #[must_use]
    pub fn get(&self, at: u32) -> &str {
        let rest = &self.bytes[at as usize..];
        std::str::from_utf8(&rest[1..=usize::from(rest[0])]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_names() {
        let mut names = Names::new(2);
        let places = ["1234567890123", "", "x"].map(|name| names.add(name).expect("short"));
        assert_eq!(places.map(|at| names.get(at).to_owned()), ["1234567890123", "", "x"]);
        assert!(names.add(&"x".repeat(256)).is_err());
    }

    #[test]
    fn goes_on_with_a_session() {
        let sid = Sid { node: 7, place: 1, secret: [0xab; 16] };
        let mut user = User { rid: 41, ..User::default() };
        assert_eq!(user.set_sid(&sid), 7);
        let expected = format!(
            "<body rid='41' sid='0000000700000001{}' xmlns='http://jabber.org/protocol/httpbind'/>",
            "ab".repeat(16)
        );
        assert_eq!(user.body(7, "", ""), expected);
        assert!(user.body(7, " type='terminate'", "").starts_with("<body rid='42' "));
    }

    #[test]
    fn takes_an_open_connection_first() {
        let mut user = User { slots: [Slot::Busy, Slot::Closed], ..User::default() };
        assert_eq!((user.slot(), user.is_busy()), (Some(1), true));
        user.slots = [Slot::Closed, Slot::Free];
        assert_eq!((user.slot(), user.is_busy()), (Some(1), false));
        user.slots = [Slot::Answered, Slot::Busy];
        assert_eq!(user.slot(), None);
    }
}
