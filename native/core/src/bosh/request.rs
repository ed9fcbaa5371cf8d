//! The attributes of a `<body/>` that a client sent.

use super::{NAMESPACE, Sid};
use crate::limits::{BOSH_HOLD, BOSH_KEY, BOSH_WAIT};
use crate::xml::{Sink, XmlError, XmlLimits, parse};

/// What a client's `<body/>` says (XEP-0124, 7.1, 8, 10, 12, 13, 15; XEP-0206, 2 and 5). What it holds is not in it.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Request {
    /// Its number: at most 2^53 - 1.
    pub rid: u64,
    /// The session. `Some(None)`: a name that no session of a server like this one has.
    pub sid: Option<Option<Sid>>,
    /// The server that a session is asked for, or a stream restarted to.
    pub to: Option<String>,
    /// Seconds that an answer may take; at most [`BOSH_WAIT`].
    pub wait: Option<u16>,
    /// Requests that may be kept waiting; at most [`BOSH_HOLD`].
    pub hold: Option<u8>,
    /// The highest answer that has arrived, with all before; at creation: 1 to ask for acknowledgements.
    pub ack: Option<u64>,
    /// Seconds without requests that it asks for.
    pub pause: Option<u32>,
    /// The key of this request.
    pub key: Option<Box<[u8]>>,
    /// The first key of a new sequence.
    pub newkey: Option<Box<[u8]>>,
    /// The highest version of BOSH that the client knows.
    pub ver: Option<Version>,
    /// The version of XMPP.
    pub version: Option<String>,
    /// The language of the stream.
    pub lang: Option<String>,
    /// The client asks for the session's end.
    pub terminate: bool,
    /// The client begins a new stream.
    pub restart: bool,
    /// There are elements in it.
    pub payload: bool,
}

/// A version of BOSH; of two, the major number counts first (XEP-0124, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The number before the dot.
    pub major: u32,
    /// The one behind it.
    pub minor: u32,
}

impl Version {
    fn parse(value: &[u8]) -> Option<Self> {
        let (major, minor) = str::from_utf8(value).ok()?.split_once('.')?;
        let number = |digits: &str| at_most(digits.as_bytes(), u32::MAX);
        Some(Self { major: number(major)?, minor: number(minor)? })
    }

    /// As it is written.
    #[must_use]
    pub fn text(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// Why a text is no request. The answer is status 400 (XEP-0124, 17.2... "bad-request").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// It is no XML, or not of the kind that XMPP allows.
    Xml(XmlError),
    /// It is no `<body/>` of BOSH.
    NotBody,
    /// It has no `rid`.
    NoRid,
    /// An attribute, which is named, has a value that it cannot have.
    Attribute(&'static str),
}

impl Request {
    /// Reads a text; all of it is checked to be what XMPP allows, with elements and depth as `limits` say, and the body itself
    /// one more of both.
    ///
    /// # Errors
    /// [`RequestError`]. Cost: linear; what is kept is copied.
    pub fn parse(text: &[u8], limits: &XmlLimits) -> Result<Self, RequestError> {
        let mut body = Body::default();
        let limits = XmlLimits { depth: limits.depth + 1, elements: limits.elements + 1, ..*limits };
        parse(text, &limits, &mut body).map_err(RequestError::Xml)?;
        if !body.is_body {
            return Err(RequestError::NotBody);
        }
        match body.error {
            Some(name) => Err(RequestError::Attribute(name)),
            None if !body.has_rid => Err(RequestError::NoRid),
            None => Ok(body.request),
        }
    }

    /// Whether it neither carries nor asks for anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.payload && !self.terminate && !self.restart && self.pause.is_none()
    }
}

#[derive(Default)]
struct Body {
    request: Request,
    is_body: bool,
    has_rid: bool,
    depth: usize,
    error: Option<&'static str>,
}

impl Sink for Body {
    fn start(&mut self, name: &[u8]) {
        match self.depth {
            0 => self.is_body = name == b"body",
            1 => self.request.payload = true,
            _ => {}
        }
        self.depth += 1;
    }

    fn attribute(&mut self, name: &[u8], value: &[u8]) {
        if self.depth == 1 && !self.request.payload {
            self.of_body(name, value).unwrap_or_else(|name| self.error = Some(name));
        }
    }

    fn attributes_end(&mut self) {}

    fn text(&mut self, _text: &[u8]) {}

    fn end(&mut self) {
        self.depth -= 1;
    }
}

impl Body {
    fn of_body(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let request = &mut self.request;
        match name {
            b"rid" => {
                request.rid = number(value).filter(|rid| *rid <= MAX_RID).ok_or("rid")?;
                self.has_rid = true;
            }
            b"sid" => request.sid = Some(Sid::parse(value)),
            b"to" => request.to = Some(text(value, "to")?),
            b"wait" => request.wait = Some(at_most(value, BOSH_WAIT).ok_or("wait")?),
            b"hold" => request.hold = Some(at_most(value, BOSH_HOLD).ok_or("hold")?),
            b"ack" => request.ack = Some(number(value).ok_or("ack")?),
            b"pause" => request.pause = Some(at_most(value, u32::MAX).ok_or("pause")?),
            b"ver" => request.ver = Version::parse(value),
            b"key" => request.key = Some(key(value).ok_or("key")?),
            b"newkey" => request.newkey = Some(key(value).ok_or("newkey")?),
            b"xmpp:version" => request.version = Some(text(value, "xmpp:version")?),
            b"xml:lang" => request.lang = Some(text(value, "xml:lang")?),
            b"type" => request.terminate = value == b"terminate",
            b"xmpp:restart" => {
                request.restart = match value {
                    b"true" | b"1" => true,
                    b"false" | b"0" => false,
                    _ => return Err("xmpp:restart"),
                }
            }
            b"xmlns" if value != NAMESPACE.as_bytes() => return Err("xmlns"),
            _ => {}
        }
        Ok(())
    }
}

/// A `rid` is exact as a floating point number (XEP-0124, 7.1).
const MAX_RID: u64 = (1 << 53) - 1;

/// Digits, and nothing else; more than fit into 64 bits are no number.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A number that is lowered to `most`.
fn at_most<N: TryFrom<u64> + Into<u64> + Copy>(value: &[u8], most: N) -> Option<N> {
    N::try_from(number(value)?.min(most.into())).ok()
}

fn key(value: &[u8]) -> Option<Box<[u8]>> {
    (value.len() <= BOSH_KEY).then(|| value.into())
}

/// Names of servers, versions and languages are short (RFC 6120, 4.7; RFC 7622, 3.2).
fn text(value: &[u8], name: &'static str) -> Result<String, &'static str> {
    if value.len() > 1_023 {
        return Err(name);
    }
    core::str::from_utf8(value).map(Into::into).map_err(|_| name)
}
