//! The frames of the link and their checked parsing.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::hello::{Hello, VERSION};
use super::{HEADER, LENGTH_OVERHEAD};
use crate::limits::{MAX_ERROR_TEXT, MAX_PAYLOAD};

/// One frame. Data borrows from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First frame in each direction.
    Hello(Hello<'a>),
    /// A step of authentication, see [`auth`](super::auth).
    Auth(&'a [u8]),
    /// A new virtual connection.
    Open {
        /// Chosen by the connection manager, unique among the link's open connections.
        id: u64,
        /// Who the client is.
        open: Open,
    },
    /// Bytes of a connection.
    Data {
        /// The connection.
        id: u64,
        /// 1 to [`MAX_PAYLOAD`] bytes.
        payload: &'a [u8],
    },
    /// The sender is done with the connection.
    Close {
        /// The connection.
        id: u64,
        /// Why.
        reason: CloseReason,
    },
    /// Something could not be done; for id 0 the sender closes the link right after.
    Error {
        /// The connection, 0 for the link itself.
        id: u64,
        /// For programs.
        code: ErrorCode,
        /// For people, at most [`MAX_ERROR_TEXT`] bytes.
        text: &'a str,
    },
    /// Grants credit.
    Window {
        /// The connection.
        id: u64,
        /// Bytes that the receiver of this frame may send on top.
        increment: u32,
    },
    /// Asks for a pong with the same bytes.
    Ping([u8; 8]),
    /// Answers a ping.
    Pong([u8; 8]),
    /// Reserved: the sender is about to stop. Accepted and ignored by version 1 ends.
    Drain,
    /// The current request is answered.
    Ready {
        /// The connection.
        id: u64,
        /// What may be sent next.
        mode: ReadyMode,
    },
}

/// Whom a virtual connection stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// What travels on the connection.
    pub kind: Kind,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port of the connection manager that the client connected to.
    pub local: SocketAddr,
}

/// What travels on a virtual connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 requests, one at a time.
    Http,
    /// XMPP text messages, see [`messages`](super::messages); only to an end that announces [`Hello::XMPP`].
    Xmpp,
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)* } else $other:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// From the number on the wire; one that this version does not know is read as the general one.
            #[must_use]
            pub const fn from_code(code: u8) -> Self {
                match code { $($code => Self::$variant,)* _ => Self::$other }
            }
        }
    };
}

codes! {
    /// Why a connection was closed.
    CloseReason {
        /// All was said.
        Normal = 0,
        /// The client's TCP connection, or the process in ejabberd, is gone.
        PeerGone = 1,
        /// A time limit.
        Timeout = 2,
        /// A size or number limit.
        Limit = 3,
        /// The other end broke the rules of the connection.
        Protocol = 4,
        /// The sender is stopping.
        Shutdown = 5,
        /// An internal error of the sender.
        Internal = 6,
        /// The client's TCP connection is gone, and the client has not got all of the answer to its request.
        Unanswered = 7,
    } else Internal
}

codes! {
    /// What an error frame is about.
    ErrorCode {
        /// Not one of the others.
        Other = 0,
        /// Data for a connection that does not exist.
        UnknownConnection = 1,
        /// Unknown protocol version.
        Version = 2,
        /// A frame that breaks the protocol.
        Protocol = 3,
        /// A limit: connections, links.
        Limit = 4,
        /// The sender is stopping.
        Shutdown = 5,
        /// Authentication: no secret where one is demanded, or another one.
        Auth = 6,
    } else Other
}

/// What may follow on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyMode {
    /// The answer is complete: the next request.
    Request,
    /// The connection is a tunnel from now on: any bytes.
    Tunnel,
}

/// Why input is not a frame of this protocol. The link is closed with [`FrameError::code`] and this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The length field is smaller than type and id.
    TooShort(u32),
    /// The length field is larger than the largest frame.
    TooLong(u32),
    /// No such frame type.
    Type(u8),
    /// A frame that must not carry, or must carry, a connection id.
    Id(&'static str),
    /// The payload of the named frame does not have its shape.
    Malformed(&'static str),
    /// The first bytes are not those of a hello.
    NotMegaphone,
    /// The peer speaks another version.
    Version(u8),
    /// The peer's window is too small to carry a request head.
    Window(u32),
    /// Another frame came before hello, a second hello, or an auth frame when nobody asked for one.
    HelloOrder(&'static str),
    /// Something else than authentication came before it was done.
    Unauthenticated,
}

impl FrameError {
    /// The code for the error frame.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Version(_) => ErrorCode::Version,
            Self::Unauthenticated => ErrorCode::Auth,
            _ => ErrorCode::Protocol,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort(n) => write!(f, "frame length {n} is below the least, {LENGTH_OVERHEAD}"),
            Self::TooLong(n) => {
                write!(f, "frame length {n} is above the most, {}", MAX_PAYLOAD + LENGTH_OVERHEAD)
            }
            Self::Type(t) => write!(f, "unknown frame type 0x{t:02x}"),
            Self::Id(name) => write!(f, "{name} frame with a wrong connection id"),
            Self::Malformed(name) => write!(f, "malformed {name} frame"),
            Self::NotMegaphone => f.write_str("the first frame is not a Megaphone hello"),
            Self::Version(v) => write!(f, "unknown protocol version {v}; this end speaks version {VERSION}"),
            Self::Window(w) => {
                write!(f, "window of {w} bytes in hello is below the least, {}", crate::limits::MIN_WINDOW)
            }
            Self::HelloOrder(name) => write!(f, "{name} frame where the protocol does not allow it"),
            Self::Unauthenticated => {
                f.write_str("this end demands authentication by a secret before anything else")
            }
        }
    }
}

impl core::error::Error for FrameError {}

pub(super) mod frame_type {
    pub(in crate::link) const HELLO: u8 = 0x01;
    pub(in crate::link) const AUTH: u8 = 0x02;
    pub(in crate::link) const OPEN: u8 = 0x03;
    pub(in crate::link) const DATA: u8 = 0x04;
    pub(in crate::link) const CLOSE: u8 = 0x05;
    pub(in crate::link) const ERROR: u8 = 0x06;
    pub(in crate::link) const WINDOW: u8 = 0x07;
    pub(in crate::link) const PING: u8 = 0x08;
    pub(in crate::link) const PONG: u8 = 0x09;
    pub(in crate::link) const DRAIN: u8 = 0x0a;
    pub(in crate::link) const READY: u8 = 0x0b;
}
use frame_type::*;

impl<'a> Frame<'a> {
    /// The frame's name as the protocol document has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Auth(_) => "auth",
            Self::Open { .. } => "open",
            Self::Data { .. } => "data",
            Self::Close { .. } => "close",
            Self::Error { .. } => "error",
            Self::Window { .. } => "window",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Drain => "drain",
            Self::Ready { .. } => "ready",
        }
    }

    /// Appends the whole frame, length field included.
    ///
    /// # Panics
    /// In debug builds, when a payload is above [`MAX_PAYLOAD`]: senders cut data before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        let (kind, id) = self.encode_payload(out);
        let payload = out.len() - start - HEADER;
        debug_assert!(payload <= MAX_PAYLOAD, "payload of {payload} bytes");
        let length = (payload + LENGTH_OVERHEAD) as u32; // payload <= MAX_PAYLOAD
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4] = kind;
        out[start + 5..start + HEADER].copy_from_slice(&id.to_be_bytes());
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> (u8, u64) {
        match *self {
            Self::Hello(ref hello) => {
                hello.encode(out);
                (HELLO, 0)
            }
            Self::Auth(bytes) => {
                out.extend_from_slice(bytes);
                (AUTH, 0)
            }
            Self::Open { id, ref open } => {
                open.encode(out);
                (OPEN, id)
            }
            Self::Data { id, payload } => {
                out.extend_from_slice(payload);
                (DATA, id)
            }
            Self::Close { id, reason } => {
                out.push(reason.code());
                (CLOSE, id)
            }
            Self::Error { id, code, text } => {
                out.push(code.code());
                out.extend_from_slice(cut(text, MAX_ERROR_TEXT).as_bytes());
                (ERROR, id)
            }
            Self::Window { id, increment } => {
                out.extend_from_slice(&increment.to_be_bytes());
                (WINDOW, id)
            }
            Self::Ping(bytes) => {
                out.extend_from_slice(&bytes);
                (PING, 0)
            }
            Self::Pong(bytes) => {
                out.extend_from_slice(&bytes);
                (PONG, 0)
            }
            Self::Drain => (DRAIN, 0),
            Self::Ready { id, mode } => {
                out.push(match mode {
                    ReadyMode::Request => 0,
                    ReadyMode::Tunnel => 1,
                });
                (READY, id)
            }
        }
    }

    /// Reads one frame from what follows its length field: type, id and payload.
    ///
    /// # Errors
    /// [`FrameError`]; nothing is allocated, and no number in the input is trusted.
    pub fn parse(body: &'a [u8]) -> Result<Self, FrameError> {
        let Some((head, payload)) = body.split_at_checked(LENGTH_OVERHEAD) else {
            return Err(FrameError::TooShort(body.len() as u32));
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLong(u32::try_from(body.len()).unwrap_or(u32::MAX)));
        }
        let id = u64::from_be_bytes([head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8]]);
        let frame = Self::parse_payload(head[0], id, payload)?;
        frame.check_id(id)?;
        Ok(frame)
    }

    fn parse_payload(kind: u8, id: u64, payload: &'a [u8]) -> Result<Self, FrameError> {
        Ok(match kind {
            HELLO => Self::Hello(Hello::parse(payload)?),
            AUTH => Self::Auth(payload),
            OPEN => Self::Open { id, open: Open::parse(payload).ok_or(FrameError::Malformed("open"))? },
            DATA if payload.is_empty() => return Err(FrameError::Malformed("data")),
            DATA => Self::Data { id, payload },
            CLOSE => {
                let [reason] = fixed("close", payload)?;
                Self::Close { id, reason: CloseReason::from_code(reason) }
            }
            ERROR => {
                let malformed = FrameError::Malformed("error");
                let (code, text) = payload.split_first().ok_or(malformed)?;
                if text.len() > MAX_ERROR_TEXT {
                    return Err(malformed);
                }
                let text = core::str::from_utf8(text).map_err(|_| malformed)?;
                Self::Error { id, code: ErrorCode::from_code(*code), text }
            }
            WINDOW => Self::Window { id, increment: u32::from_be_bytes(fixed("window", payload)?) },
            PING => Self::Ping(fixed("ping", payload)?),
            PONG => Self::Pong(fixed("pong", payload)?),
            DRAIN => {
                let [] = fixed("drain", payload)?;
                Self::Drain
            }
            READY => match fixed("ready", payload)? {
                [0] => Self::Ready { id, mode: ReadyMode::Request },
                [1] => Self::Ready { id, mode: ReadyMode::Tunnel },
                _ => return Err(FrameError::Malformed("ready")),
            },
            other => return Err(FrameError::Type(other)),
        })
    }

    /// Frames about the link carry id 0, frames about a connection another one; an error frame may carry either.
    const fn check_id(&self, id: u64) -> Result<(), FrameError> {
        let about_link =
            matches!(self, Self::Hello(_) | Self::Auth(_) | Self::Ping(_) | Self::Pong(_) | Self::Drain);
        match self {
            Self::Error { .. } => Ok(()),
            _ if about_link == (id == 0) => Ok(()),
            _ => Err(FrameError::Id(self.name())),
        }
    }
}

impl Open {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.kind {
            Kind::Http => 1,
            Kind::Xmpp => 2,
        });
        out.push(u8::from(self.tls));
        encode_address(&self.client, out);
        encode_address(&self.local, out);
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let (&[kind, flags], rest) = payload.split_first_chunk()?;
        let kind = match kind {
            1 => Kind::Http,
            2 => Kind::Xmpp,
            _ => return None,
        };
        let (client, rest) = parse_address(rest)?;
        let (local, rest) = parse_address(rest)?;
        // Unknown flag bits are refused: a later version that needs them announces a feature first.
        (rest.is_empty() && flags <= 1).then_some(Self { kind, tls: flags == 1, client, local })
    }
}

fn encode_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn parse_address(input: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&family, rest) = input.split_first()?;
    let (ip, rest) = match family {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

fn fixed<const N: usize>(name: &'static str, payload: &[u8]) -> Result<[u8; N], FrameError> {
    payload.try_into().map_err(|_| FrameError::Malformed(name))
}

/// The longest prefix of `text` that has at most `most` bytes and ends at a character border.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
