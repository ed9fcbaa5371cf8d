//! The opening handshake, RFC 6455, 4.2.

use std::fmt;

use tungstenite::handshake::derive_accept_key;

use crate::http::Head;
use crate::http::rewrite;

/// The subprotocol of RFC 7395.
const XMPP: &[u8] = b"xmpp";

/// Bytes of a key: base64 of 16 bytes.
const KEY: usize = 24;

/// Why a request is no good handshake. [`OfferError::status`] is the answer to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// `Sec-WebSocket-Version` is not 13.
    Version,
    /// `Sec-WebSocket-Key` is missing, repeated or not the base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` does not offer `xmpp`.
    Protocol,
    /// `Origin` is repeated.
    Origin,
}

impl OfferError {
    /// The HTTP status that answers this error.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            _ => 400,
        }
    }
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "only version 13 of WebSocket is spoken here",
            Self::Key => "missing or malformed Sec-WebSocket-Key",
            Self::Protocol => "the subprotocol must be xmpp (RFC 7395)",
            Self::Origin => "repeated Origin",
        })
    }
}

impl std::error::Error for OfferError {}

/// A valid request to speak XMPP over a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    key: &'a [u8],
    /// The page that asks, when a browser does.
    pub origin: Option<&'a [u8]>,
}

impl<'a> Offer<'a> {
    /// Reads the offer of a request whose head says `upgrade`. Extensions that it offers are not taken.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn parse(buf: &'a [u8], head: &Head) -> Result<Self, OfferError> {
        let (mut version, mut keys, mut key, mut protocol) = (false, 0, None, false);
        let (mut origins, mut origin) = (0, None);
        for (name, value) in rewrite::fields(buf, head) {
            if name.eq_ignore_ascii_case(b"sec-websocket-version") {
                version |= value == b"13";
            } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
                keys += 1;
                key = Some(value).filter(|value| is_key(value));
            } else if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
                protocol |= value.split(|byte| *byte == b',').any(|name| name.trim_ascii() == XMPP);
            } else if name.eq_ignore_ascii_case(b"origin") {
                origins += 1;
                origin = Some(value);
            }
        }
        match key {
            _ if !version => Err(OfferError::Version),
            Some(key) if keys == 1 && origins <= 1 && protocol => Ok(Self { key, origin }),
            Some(_) if keys == 1 && origins <= 1 => Err(OfferError::Protocol),
            Some(_) if keys == 1 => Err(OfferError::Origin),
            _ => Err(OfferError::Key),
        }
    }

    /// The answer that accepts it.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n",
            derive_accept_key(self.key)
        )
        .into_bytes()
    }
}

/// Whether it is the base64 of 16 bytes: 22 digits, the last of which has 2 bits, and two signs to fill up.
fn is_key(value: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    value.len() == KEY
        && value[..22].iter().all(digit)
        && matches!(value[21], b'A' | b'Q' | b'g' | b'w')
        && value.ends_with(b"==")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, parse_within};

    fn parse(fields: &[&str]) -> Result<String, OfferError> {
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\r\n\r\n",
            fields.join("\r\n")
        );
        let parsed = parse_within(head.as_bytes(), &mut 0, HeadLimits::default()).unwrap().unwrap();
        assert!(parsed.upgrade);
        let offer = Offer::parse(head.as_bytes(), &parsed)?;
        let origin = String::from_utf8_lossy(offer.origin.unwrap_or(b"none")).into_owned();
        Ok(format!("{origin} {}", String::from_utf8(offer.answer()).unwrap()))
    }

    const VERSION: &str = "Sec-WebSocket-Version: 13";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const PROTOCOL: &str = "Sec-WebSocket-Protocol: soap, xmpp";

    /// The example of RFC 6455, 1.3, with the subprotocol that was offered among others.
    #[test]
    fn a_good_offer_is_accepted() {
        let answer = parse(&[VERSION, KEY, PROTOCOL, "Origin: https://a.example"]).unwrap();
        assert!(answer.starts_with("https://a.example HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Protocol: xmpp\r\n"), "{answer}");
        assert!(
            parse(&["sec-websocket-protocol: soap", VERSION, KEY, "Sec-Websocket-Protocol: xmpp"]).is_ok()
        );
    }

    #[test]
    fn others_are_refused_with_their_status() {
        let refused = |fields: &[&str]| parse(fields).unwrap_err();
        assert_eq!(refused(&[KEY, PROTOCOL]), OfferError::Version);
        assert_eq!(refused(&["Sec-WebSocket-Version: 8", KEY, PROTOCOL]).status(), 426);
        assert_eq!(refused(&[VERSION, PROTOCOL]), OfferError::Key);
        assert_eq!(refused(&[VERSION, KEY, KEY, PROTOCOL]).status(), 400);
        for key in [
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZQAA",
            "!GhlIHNhbXBsZSBub25jZQ==",
        ] {
            assert_eq!(
                refused(&[VERSION, &format!("Sec-WebSocket-Key: {key}"), PROTOCOL]),
                OfferError::Key,
                "{key}"
            );
        }
        assert_eq!(refused(&[VERSION, KEY]), OfferError::Protocol);
        assert_eq!(refused(&[VERSION, KEY, "Sec-WebSocket-Protocol: XMPP, xmppx"]), OfferError::Protocol);
        assert_eq!(refused(&[VERSION, KEY, PROTOCOL, "Origin: a", "Origin: b"]), OfferError::Origin);
    }
}
