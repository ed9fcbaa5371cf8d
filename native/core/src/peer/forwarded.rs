//! What trusted proxies say about a request: for whom it came, and whether over TLS.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::network::{Network, contains};
use crate::http::Head;
use crate::http::head::trim;
use crate::http::rewrite::fields;

/// What the fields of a request say of the client behind the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address, if it is another one than that of the peer.
    pub client: Option<IpAddr>,
    /// The last `X-Forwarded-Proto` says `https`.
    pub is_tls: bool,
}

/// Reads `X-Forwarded-For` and `X-Forwarded-Proto` of a request that came from a trusted proxy. `bytes` and `head` are
/// as for [`crate::http::rewrite::start`].
///
/// Each proxy appends the address that it was connected from, so the list is read from its end: the first address that
/// is not itself a trusted proxy is the client; what stands before it is whatever that client wrote. An entry that is no
/// address ends the walk: the client is the one found last, a trusted proxy then. Cost: linear in the head.
#[must_use]
pub fn forwarded(bytes: &[u8], head: &Head, trusted: &[Network]) -> Forwarded {
    let (mut client, mut walking, mut is_tls) = (None, true, None);
    let lines: smallvec::SmallVec<[(&[u8], &[u8]); 4]> = fields(bytes, head)
        .filter(|(name, _)| {
            name.eq_ignore_ascii_case(b"x-forwarded-for") || name.eq_ignore_ascii_case(b"x-forwarded-proto")
        })
        .collect();
    // Several fields are one list, in their order.
    for (name, value) in lines.into_iter().rev() {
        if name.eq_ignore_ascii_case(b"x-forwarded-proto") {
            let last = value.rsplit(|byte| *byte == b',').next().map(trim);
            is_tls.get_or_insert_with(|| last.is_some_and(|last| last.eq_ignore_ascii_case(b"https")));
            continue;
        }
        for entry in value.rsplit(|byte| *byte == b',') {
            if !walking {
                break;
            }
            match address(trim(entry)) {
                Some(address) => {
                    client = Some(address);
                    walking = contains(trusted, address);
                }
                None => walking = false,
            }
        }
    }
    Forwarded { client, is_tls: is_tls.unwrap_or(false) }
}

/// One entry: an address of IPv4 with or without a port, or one of IPv6, bare, in brackets, or in brackets with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text
        .parse()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::parse;

    fn read(lines: &str) -> Forwarded {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = parse(text.as_bytes(), &mut 0).unwrap().unwrap();
        forwarded(text.as_bytes(), &head, &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    #[track_caller]
    fn finds(lines: &str, client: &str) {
        let expected = (!client.is_empty()).then(|| client.parse().unwrap());
        assert_eq!(read(lines).client, expected, "{lines}");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        finds("", "");
        finds("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1");
        finds("x-forwarded-for: 198.51.100.9, 192.0.2.1\r\n", "192.0.2.1");
        finds("X-Forwarded-For: 198.51.100.9, 192.0.2.1, 10.0.0.1,10.0.0.2\r\n", "192.0.2.1");
        finds("X-Forwarded-For: 192.0.2.1\r\nX: y\r\nX-Forwarded-For: 10.0.0.2\r\n", "192.0.2.1");
        // All of them are proxies: the first one is what asked.
        finds("X-Forwarded-For: 10.0.0.1, fd00::1\r\n", "10.0.0.1");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk() {
        for wrong in [
            "",
            "unknown",
            "_hidden",
            "192.0.2.1:x",
            "192.0.2.300",
            "[::1",
            "::1]",
            "a, ",
            "\"192.0.2.1\"",
            "[192.0.2.1]",
        ] {
            finds(&format!("X-Forwarded-For: 192.0.2.1, {wrong}\r\n"), "");
            finds(&format!("X-Forwarded-For: 192.0.2.1, {wrong}, 10.0.0.7\r\n"), "10.0.0.7");
            finds(&format!("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: {wrong}\r\n"), "");
        }
    }

    #[test]
    fn addresses_have_several_forms() {
        for (entry, client) in [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ] {
            finds(&format!("X-Forwarded-For: {entry}\r\n"), client);
        }
        // A mapped address of a proxy is a proxy.
        finds("X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.1\r\n", "192.0.2.1");
    }

    #[test]
    fn the_last_word_on_tls_counts() {
        assert!(!read("").is_tls);
        assert!(read("X-Forwarded-Proto: HTTPS\r\n").is_tls);
        assert!(read("X-Forwarded-Proto: http, https\r\n").is_tls);
        assert!(!read("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n").is_tls);
    }

    proptest! {
        /// Whatever a client writes before what the proxies append changes nothing.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[ -~]{0,60}") {
            finds(&format!("X-Forwarded-For: {forged}\r\nX-Forwarded-For: {forged}, 192.0.2.1, 10.1.2.3\r\n"), "192.0.2.1");
        }
    }
}
