//! The first frame in each direction.

use super::frame::FrameError;
use crate::limits::{MAX_NAME, MIN_WINDOW};

/// The version of the link protocol that this crate speaks.
pub const VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"MGPH";
const FIXED: usize = 4 + 1 + 1 + 4 + 4 + 1;

/// Which end of the link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The connection manager, which holds the clients.
    Ecm,
    /// ejabberd with Megaphone's listener.
    Ejabberd,
}

impl Role {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ecm => 1,
            Self::Ejabberd => 2,
        }
    }
}

/// What an end says of itself when the link opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Which end speaks.
    pub role: Role,
    /// Feature bits ([`Hello::CREDIT`] ...). Unknown bits are ignored.
    pub features: u32,
    /// Bytes of data that the speaker accepts for one connection before it grants more.
    pub window: u32,
    /// Name and version of the speaker's software, for logs.
    pub name: &'a str,
}

impl<'a> Hello<'a> {
    /// Feature bit: flow control by credit per connection. Always set in version 1.
    pub const CREDIT: u32 = 1;

    /// Feature bit: the speaker has a secret, and opens the link only to an end that has it, too.
    pub const AUTH: u32 = 2;

    /// Feature bit of ejabberd's end: it serves connections of [`Kind::Xmpp`](super::Kind::Xmpp).
    pub const XMPP: u32 = 4;

    /// Feature bit of ejabberd's end: it takes [`Frame::Ready`](super::Frame::Ready) for a request that waits behind another one.
    pub const PIPELINE: u32 = 8;

    /// Writes the payload of the hello frame. A name over [`MAX_NAME`] bytes is cut at a character border.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let name = super::frame::cut(self.name, MAX_NAME);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(self.role.code());
        out.extend_from_slice(&self.features.to_be_bytes());
        out.extend_from_slice(&self.window.to_be_bytes());
        out.push(name.len() as u8); // at most MAX_NAME = 64
        out.extend_from_slice(name.as_bytes());
    }

    /// Reads the payload of a hello frame.
    ///
    /// # Errors
    /// Another magic, another version (checked before the rest, so that every future layout is refused with both
    /// versions named), an unknown role, a window below [`MIN_WINDOW`], a name that is too long or not UTF-8.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, FrameError> {
        if payload.len() < 5 || &payload[..4] != MAGIC {
            return Err(FrameError::NotMegaphone);
        }
        if payload[4] != VERSION {
            return Err(FrameError::Version(payload[4]));
        }
        let malformed = FrameError::Malformed("hello");
        if payload.len() < FIXED {
            return Err(malformed);
        }
        let role = match payload[5] {
            1 => Role::Ecm,
            2 => Role::Ejabberd,
            _ => return Err(malformed),
        };
        let be32 =
            |at: usize| u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        let (features, window) = (be32(6), be32(10));
        let name = &payload[FIXED..];
        if window < MIN_WINDOW {
            return Err(FrameError::Window(window));
        }
        if name.len() != usize::from(payload[14]) || name.len() > MAX_NAME {
            return Err(malformed);
        }
        let name = core::str::from_utf8(name).map_err(|_| malformed)?;
        Ok(Self { role, features, window, name })
    }
}
