//! The texts of answers: a `<body/>` each.

use super::NAMESPACE;

/// The answer that says nothing.
pub const EMPTY: &[u8] = b"<body xmlns='http://jabber.org/protocol/httpbind'/>";

/// Why a session, or an attempt to make one, has ended (XEP-0124, 17.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is no such server here.
    HostUnknown,
    /// `to` is missing.
    ImproperAddressing,
    /// The server has a fault, or is stopping.
    InternalServerError,
    /// There is no such session, the request's number is out of its window, or its key is wrong.
    ItemNotFound,
    /// Another request has ended the session.
    OtherRequest,
    /// The client does what it was told not to do, or does too much.
    PolicyViolation,
    /// The stream was ended by the server, with an error or without one.
    RemoteStreamError,
}

impl Condition {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostUnknown => "host-unknown",
            Self::ImproperAddressing => "improper-addressing",
            Self::InternalServerError => "internal-server-error",
            Self::ItemNotFound => "item-not-found",
            Self::OtherRequest => "other-request",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteStreamError => "remote-stream-error",
        }
    }
}

/// The answer that ends a session, `None` when the client asked for that.
#[must_use]
pub fn terminated(condition: Option<Condition>) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.terminate(condition);
    attributes.body(&[])
}

/// The elements in an answer, which have these lengths.
pub(super) fn payload_of<'a>(text: &'a [u8], lengths: &[u32]) -> &'a [u8] {
    let length: usize = lengths.iter().map(|length| *length as usize).sum();
    let end = text.len() - END.len();
    &text[end - length..end]
}

const END: &[u8] = b"</body>";

/// Attributes of an answer, written as they are added.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes {
    written: Vec<u8>,
    stream: bool,
    xmpp: bool,
}

impl Attributes {
    /// For elements of streams.
    pub(super) fn declare_stream(&mut self) {
        if !std::mem::replace(&mut self.stream, true) {
            self.text("xmlns:stream", b"http://etherx.jabber.org/streams");
        }
    }

    /// For the attributes of XEP-0206.
    pub(super) fn declare_xmpp(&mut self) {
        if !std::mem::replace(&mut self.xmpp, true) {
            self.text("xmlns:xmpp", b"urn:xmpp:xbosh");
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &[u8]) {
        let written = &mut self.written;
        written.push(b' ');
        written.extend_from_slice(name.as_bytes());
        written.extend_from_slice(b"='");
        for byte in value {
            match byte {
                b'&' => written.extend_from_slice(b"&amp;"),
                b'<' => written.extend_from_slice(b"&lt;"),
                b'>' => written.extend_from_slice(b"&gt;"),
                b'\'' => written.extend_from_slice(b"&apos;"),
                b'"' => written.extend_from_slice(b"&quot;"),
                _ => written.push(*byte),
            }
        }
        written.push(b'\'');
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.text(name, value.to_string().as_bytes());
    }

    pub(super) fn terminate(&mut self, condition: Option<Condition>) {
        self.text("type", b"terminate");
        if let Some(condition) = condition {
            self.text("condition", condition.name().as_bytes());
        }
    }

    /// The whole answer.
    pub(super) fn body(self, payload: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(EMPTY.len() + self.written.len() + payload.len() + END.len());
        text.extend_from_slice(b"<body xmlns='");
        text.extend_from_slice(NAMESPACE.as_bytes());
        text.push(b'\'');
        text.extend_from_slice(&self.written);
        if payload.is_empty() {
            text.extend_from_slice(b"/>");
        } else {
            text.push(b'>');
            text.extend_from_slice(payload);
            text.extend_from_slice(END);
        }
        text
    }
}
