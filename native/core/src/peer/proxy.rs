//! The PROXY protocol, versions 1 and 2: the header by which a proxy tells for whom it connects.
//!
//! Sections named are those of its specification (proxy-protocol.txt of HAProxy).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits;

/// What every header of version 2 begins with (2.2). None of its bytes but the first two begins version 1.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

/// Two addresses of IPv6 and two ports; those of unix sockets are skipped.
const V2_ADDRESSES: usize = 36;

/// For whom a proxy connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// For this client; `is_tls`: who speaks TLS with the proxy, as only version 2 can say (`PP2_TYPE_SSL`).
    Client {
        /// Its address.
        address: SocketAddr,
        /// Whether it came to the proxy by TLS.
        is_tls: bool,
    },
    /// For itself (`LOCAL`: a health check), or for one that has no address of IP: the connection's own peer counts.
    Peer,
}

/// Why a header is refused: the connection is to be closed, with nothing said (2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// Neither version's beginning.
    Signature,
    /// Version 1: not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT` nor `PROXY UNKNOWN` (2.1).
    Line,
    /// Version 1: no end within [`limits::PROXY_V1_LINE`] bytes.
    LineTooLong,
    /// A version other than 1 and 2.
    Version,
    /// Version 2: a command other than `LOCAL` and `PROXY`.
    Command,
    /// Version 2: a family or a transport that does not exist, or datagrams.
    Family,
    /// Version 2: fewer bytes than its addresses take.
    TooShort,
    /// Version 2: more than [`limits::PROXY_V2_LENGTH`] bytes.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "no PROXY header",
            Self::Line => "malformed PROXY line",
            Self::LineTooLong => "PROXY line too long",
            Self::Version => "version of the PROXY protocol not supported",
            Self::Command => "unknown command in a PROXY header",
            Self::Family => "unknown address family or transport in a PROXY header",
            Self::TooShort => "PROXY header shorter than its addresses",
            Self::TooLong => "PROXY header too long",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Takes one header apart, in whatever pieces it comes. It holds no more than the addresses.
#[derive(Clone, Debug)]
pub struct Decoder {
    held: [u8; limits::PROXY_V1_LINE],
    length: u8,
    /// Bytes of a version 2 header that are left to be skipped.
    skip: u16,
    extra: Extra,
    source: Option<Source>,
}

/// What a header of version 2 says behind its addresses, one entry after the other: type, length and value (2.2.1).
#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    kind: u8,
    length: u16,
    /// Bytes of the entry that were seen, at most [`limits::PROXY_V2_LENGTH`].
    seen: u16,
    is_tls: bool,
}

impl Extra {
    fn see(&mut self, byte: u8) {
        match self.seen {
            0 => self.kind = byte,
            1 => self.length = u16::from(byte) << 8,
            2 => self.length |= u16::from(byte),
            // The flags of PP2_TYPE_SSL, of which the lowest is PP2_CLIENT_SSL (2.2.6).
            3 if self.kind == 0x20 => self.is_tls = byte & 1 != 0,
            _ => {}
        }
        self.seen += 1;
        if self.seen >= 3 && self.seen - 3 == self.length {
            *self = Self { is_tls: self.is_tls, ..Self::default() };
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { held: [0; limits::PROXY_V1_LINE], length: 0, skip: 0, extra: Extra::default(), source: None }
    }

    /// Takes bytes; answers how many belong to the header, and for whom the proxy connects if the header has ended. All
    /// bytes are used unless it has. To be called no more after its end, or after an error. Cost: linear in the bytes.
    ///
    /// # Errors
    /// [`ProxyError`], as early as it can be seen.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(usize, Option<Source>), ProxyError> {
        let mut used = 0;
        while used < bytes.len() && self.source.is_none() {
            self.held[usize::from(self.length)] = bytes[used];
            self.length += 1; // at most PROXY_V1_LINE, where a header ends or is refused
            used += 1;
            self.step()?;
        }
        let skipped = usize::from(self.skip).min(bytes.len() - used);
        self.skip -= skipped as u16; // skipped <= skip
        if let Some(Source::Client { is_tls, .. }) = &mut self.source {
            bytes[used..used + skipped].iter().for_each(|byte| self.extra.see(*byte));
            *is_tls = self.extra.is_tls;
        }
        used += skipped;
        Ok((used, if self.skip == 0 { self.source } else { None }))
    }

    /// Looks at what is held after each byte.
    fn step(&mut self) -> Result<(), ProxyError> {
        let length = usize::from(self.length);
        let held = &self.held[..length];
        if held[0] == SIGNATURE[0] {
            return self.step_v2();
        }
        const START: &[u8] = b"PROXY ";
        if !START.starts_with(&held[..length.min(START.len())]) {
            return Err(ProxyError::Signature);
        }
        if let Some(line) = held.strip_suffix(b"\r\n") {
            self.source = Some(line_source(line)?);
        } else if held[length - 1] == b'\n' || (length > 1 && held[length - 2] == b'\r') {
            return Err(ProxyError::Line);
        } else if length == limits::PROXY_V1_LINE {
            return Err(ProxyError::LineTooLong);
        }
        Ok(())
    }

    fn step_v2(&mut self) -> Result<(), ProxyError> {
        let length = usize::from(self.length);
        let held = &self.held[..length];
        let common = length.min(SIGNATURE.len());
        if held[..common] != SIGNATURE[..common] {
            return Err(ProxyError::Signature);
        }
        if length < V2_FIXED {
            return if length > 12 && held[12] >> 4 != 2 { Err(ProxyError::Version) } else { Ok(()) };
        }
        let rest = u16::from_be_bytes([held[14], held[15]]);
        let addresses = usize::from(check_v2(held[12] & 15, held[13], rest)?);
        debug_assert!(addresses <= V2_ADDRESSES);
        if length == V2_FIXED + addresses {
            self.source = Some(v2_source(held[13] >> 4, &held[V2_FIXED..]));
            self.skip = rest - addresses as u16; // checked: not more than the rest
        }
        Ok(())
    }
}

/// Version 2: how many bytes of addresses are to be read (2.2). Those of `LOCAL`, and of what is no IP, are skipped.
fn check_v2(command: u8, family: u8, rest: u16) -> Result<u8, ProxyError> {
    if command > 1 {
        return Err(ProxyError::Command);
    }
    if usize::from(rest) > limits::PROXY_V2_LENGTH {
        return Err(ProxyError::TooLong);
    }
    let (needs, reads) = match (command, family) {
        // The receiver takes no notice of what LOCAL says besides.
        (0, _) | (1, 0x00) => (0, 0),
        (1, 0x11) => (12, 12),
        (1, 0x21) => (36, 36),
        (1, 0x31) => (216, 0),
        _ => return Err(ProxyError::Family),
    };
    if rest < needs { Err(ProxyError::TooShort) } else { Ok(reads) }
}

fn v2_source(family: u8, addresses: &[u8]) -> Source {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match (family, addresses.len()) {
        (1, 12) => {
            let ip = Ipv4Addr::new(addresses[0], addresses[1], addresses[2], addresses[3]);
            client(ip.into(), port(8))
        }
        (2, V2_ADDRESSES) => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&addresses[..16]);
            client(IpAddr::from(ip), port(32))
        }
        _ => Source::Peer,
    }
}

/// Version 1, without its end (2.1): fields with one space between.
fn line_source(line: &[u8]) -> Result<Source, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let mut words = text.split(' ').skip(1);
    match words.next() {
        // What follows is to be taken no notice of.
        Some("UNKNOWN") => Ok(Source::Peer),
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        _ => Err(ProxyError::Line),
    }
}

fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<Source, ProxyError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let fields = [words.next(), words.next(), words.next(), words.next(), words.next()];
    let [Some(source), Some(destination), Some(source_port), Some(port), None] = fields else {
        return Err(ProxyError::Line);
    };
    let address = |word: &str| word.parse::<A>().map(Into::into).map_err(|_| ProxyError::Line);
    let (source, _) = (address(source)?, address(destination)?);
    let (source_port, _) = (parse_port(source_port)?, parse_port(port)?);
    Ok(client(source, source_port))
}

/// Of whom nothing is known yet but the address.
fn client(ip: IpAddr, port: u16) -> Source {
    Source::Client { address: SocketAddr::new(ip.to_canonical(), port), is_tls: false }
}

/// No sign, no leading zero.
fn parse_port(word: &str) -> Result<u16, ProxyError> {
    let plain = word == "0" || word.starts_with(|first: char| ('1'..='9').contains(&first));
    word.parse().ok().filter(|_| plain).ok_or(ProxyError::Line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "proxy_tests.rs"]
mod tests;
