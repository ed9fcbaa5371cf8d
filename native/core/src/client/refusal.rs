//! Why a client is refused: one closed list, for answers, counters and the log.

use std::fmt;

use crate::http::HeadError;
use crate::http::chunked::ChunkError;
use crate::link::CloseReason;

/// Why the connection manager refused a request, or a whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// A malformed or ambiguous request: 400.
    Malformed,
    /// A version, method, coding or expectation that is not served: 417, 501, 505.
    Unsupported,
    /// A target, a head, its fields or a chunked body's extensions over their limit: 414, 431.
    HeadTooLarge,
    /// A body over its limit: 413.
    BodyTooLarge,
    /// A head that was not complete in time: 408.
    HeadTimeout,
    /// A body that did not come in time: 408.
    BodyTimeout,
    /// More connections of an address than it may have: 429.
    AddressClients,
    /// Connections of an address faster than it may make them: 429.
    AddressRate,
    /// A connection without a PROXY header's trust: the peer is none of the trusted proxies. Closed.
    ProxyUntrusted,
    /// A trusted proxy that sent no PROXY header, or a malformed one. Closed.
    ProxyMalformed,
    /// A trusted proxy whose PROXY header was not complete in time. Closed.
    ProxyTimeout,
    /// A request without TLS where it is required: 403.
    TlsRequired,
    /// A TLS handshake that failed, or was not complete in time. Closed.
    TlsHandshake,
    /// The clients hold as much memory as they may: 503, or closed within an answer.
    Memory,
    /// There is no link to the node: 503.
    NoLink,
    /// The node is full or stops: 503.
    NodeBusy,
    /// The node closed the connection without an answer, or forgot it: 502.
    NodeLost,
    /// The connection manager stops: 503.
    Stopping,
    /// A malformed WebSocket handshake: 400, 426; or what a client sent over a WebSocket: closed with its code.
    WebSocket,
    /// A page of an origin that may not use WebSockets here: 403.
    Origin,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Malformed,
        Self::Unsupported,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::AddressClients,
        Self::AddressRate,
        Self::ProxyUntrusted,
        Self::ProxyMalformed,
        Self::ProxyTimeout,
        Self::TlsRequired,
        Self::TlsHandshake,
        Self::Memory,
        Self::NoLink,
        Self::NodeBusy,
        Self::NodeLost,
        Self::Stopping,
        Self::WebSocket,
        Self::Origin,
    ];

    /// A short name of lower-case letters and `_`, for a metric's label. It never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::AddressClients => "address_clients",
            Self::AddressRate => "address_rate",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyMalformed => "proxy_malformed",
            Self::ProxyTimeout => "proxy_timeout",
            Self::TlsRequired => "tls_required",
            Self::TlsHandshake => "tls_handshake",
            Self::Memory => "memory",
            Self::NoLink => "no_link",
            Self::NodeBusy => "node_busy",
            Self::NodeLost => "node_lost",
            Self::Stopping => "stopping",
            Self::WebSocket => "websocket",
            Self::Origin => "origin",
        }
    }

    /// What the node is told if it knows the connection.
    pub(super) fn close_reason(self) -> CloseReason {
        match self {
            Self::Malformed
            | Self::Unsupported
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::ProxyUntrusted
            | Self::ProxyMalformed
            | Self::TlsRequired
            | Self::TlsHandshake
            | Self::WebSocket
            | Self::Origin => CloseReason::Protocol,
            Self::HeadTimeout | Self::BodyTimeout | Self::ProxyTimeout => CloseReason::Timeout,
            Self::AddressClients | Self::AddressRate | Self::Memory => CloseReason::Limit,
            Self::NoLink | Self::Stopping => CloseReason::Shutdown,
            Self::NodeBusy | Self::NodeLost => CloseReason::Normal,
        }
    }
}

impl fmt::Display for Refusal {
    /// For the operator: what it was, and the option that sets the limit, if one does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed request",
            Self::Unsupported => "request for something that is not served",
            Self::HeadTooLarge => "request head too large (max_head, max_headers)",
            Self::BodyTooLarge => "request body too large (max_body)",
            Self::HeadTimeout => "request head too slow (head_timeout)",
            Self::BodyTimeout => "request body too slow (body_timeout)",
            Self::AddressClients => "too many connections of its address (max_clients_per_address)",
            Self::AddressRate => "too many new connections of its address (max_new_clients_per_address)",
            Self::ProxyUntrusted => "not one of trusted_proxies, and proxy_protocol is on",
            Self::ProxyMalformed => "no PROXY header, or a malformed one (proxy_protocol)",
            Self::ProxyTimeout => "PROXY header too slow (head_timeout)",
            Self::TlsRequired => "request without TLS (require_tls)",
            Self::TlsHandshake => "TLS handshake failed or too slow (handshake_timeout, max_handshakes)",
            Self::Memory => "the clients hold too much memory (max_held)",
            Self::NoLink => "no link to ejabberd",
            Self::NodeBusy => "ejabberd is full or stopping",
            Self::NodeLost => "ejabberd closed the connection without an answer",
            Self::Stopping => "the connection manager stops",
            Self::WebSocket => "WebSocket that breaks its rules or limits (websocket_max_message)",
            Self::Origin => "WebSocket of a page that may not connect (websocket_origins)",
        })
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        match error.status() {
            413 => Self::BodyTooLarge,
            414 | 431 => Self::HeadTooLarge,
            417 | 501 | 505 => Self::Unsupported,
            _ => Self::Malformed,
        }
    }
}

impl From<ChunkError> for Refusal {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Malformed => Self::Malformed,
            ChunkError::TooLarge => Self::BodyTooLarge,
            ChunkError::Overhead => Self::HeadTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters are found by number: the list must have each reason at its own number, and each name once.
    #[test]
    fn the_list_is_whole() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
            let name = refusal.name();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(Refusal::ALL.iter().filter(|other| other.name() == name).count(), 1, "{name}");
            assert!(!refusal.to_string().is_empty());
        }
        assert_eq!(Refusal::Origin as usize + 1, Refusal::COUNT);
    }
}
