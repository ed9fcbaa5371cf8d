//! Names of sessions (XEP-0124, 7.2 and 17.1). Who knows one has the session: it is never logged, and compared without
//! telling by its time how much of it was right.

use core::fmt;

/// `node` tells the servers of a cluster whose session it is, `place` where it is in that one's table; neither gives
/// access. `secret` does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid {
    /// The tag of the node.
    pub node: u32,
    /// The place in the table of sessions.
    pub place: u32,
    /// Random bits.
    pub secret: [u8; 16],
}

impl Sid {
    /// Bytes of its text.
    pub const LEN: usize = 48;

    /// Reads the text of a sid, as [`Sid::text`] writes it.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: &[u8; Self::LEN] = text.try_into().ok()?;
        let mut bytes = [0; Self::LEN / 2];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        let (node, rest) = bytes.split_first_chunk::<4>()?;
        let (place, secret) = rest.split_first_chunk::<4>()?;
        Some(Self {
            node: u32::from_be_bytes(*node),
            place: u32::from_be_bytes(*place),
            secret: secret.try_into().ok()?,
        })
    }

    /// Its text: lower case hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> [u8; Self::LEN] {
        let mut text = [0; Self::LEN];
        let bytes = self.node.to_be_bytes().into_iter().chain(self.place.to_be_bytes()).chain(self.secret);
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        text
    }

    /// Whether the secret is this one, in a time that does not depend on it.
    #[must_use]
    pub fn has_secret(&self, secret: &[u8; 16]) -> bool {
        let difference = self.secret.iter().zip(secret).fold(0, |all, (a, b)| all | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sid").field("place", &self.place).finish_non_exhaustive()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_read_as_it_was_written_and_nothing_else_is_one() {
        let sid = Sid { node: 0xdead_beef, place: 77, secret: *b"0123456789abcdef" };
        let text = sid.text();
        assert_eq!(Sid::parse(&text), Some(sid));
        assert_eq!(Sid::parse(&text[1..]), None);
        assert_eq!(Sid::parse(&text.to_ascii_uppercase()), None);
        for at in 0..text.len() {
            let mut other = text;
            other[at] = b'g';
            assert_eq!(Sid::parse(&other), None);
            other[at] = if text[at] == b'0' { b'1' } else { b'0' };
            assert!(Sid::parse(&other).is_some_and(|other| other != sid));
        }
    }

    #[test]
    fn a_sid_shows_nothing_of_its_secret() {
        let sid = Sid { node: 1, place: 2, secret: [0xab; 16] };
        assert_eq!(format!("{sid:?}"), "Sid { place: 2, .. }");
        assert!(sid.has_secret(&[0xab; 16]));
        for at in 0..16 {
            let mut other = sid.secret;
            other[at] ^= 1;
            assert!(!sid.has_secret(&other));
        }
    }
}
