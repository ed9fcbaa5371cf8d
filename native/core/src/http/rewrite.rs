//! A checked request head, written anew for the node: nothing that concerns only the client's own connection gets
//! through, and nothing by which a client could pose as a proxy.

use super::head::{Body, Head, absolute_form, tokens, trim};

/// Fields that concern one connection only (RFC 9110, 7.6.1), or that are written anew here.
const HOP_BY_HOP: [&[u8]; 11] = [
    b"connection",
    b"content-length",
    b"expect",
    b"keep-alive",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
];

/// Fields by which proxies tell whom they speak for. The address of a client is the one of its TCP connection.
const FORWARDING: [&[u8]; 4] = [b"forwarded", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip"];

/// Appends the head anew to `out`, except for its end: [`finish`] must follow, when the body's length is known.
///
/// `buf` is what [`super::parse`] was given and `head` what it answered. The request target is written in origin
/// form and the version as HTTP/1.1. Cost: linear in the head; nothing is allocated but what `out` grows by.
pub fn start(buf: &[u8], head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(&buf[head.method.clone()]);
    out.push(b' ');
    let authority = write_target(&buf[head.target.clone()], out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_host(buf, head, authority, out);
    let named = Named::collect(buf, head);
    for (name, value) in fields(buf, head) {
        if !is_host(name) && !is_dropped(name) && !named.contains(name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    if head.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if !head.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
}

/// Most bytes that [`finish`] appends.
pub const FINISH_BYTES: usize = b"Content-Length: 18446744073709551615\r\n\r\n".len();

/// Ends a head begun by [`start`], with the one `Content-Length` that the request has, if it has one.
pub fn finish(length: Option<u64>, out: &mut Vec<u8>) {
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        write_decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The length to give to [`finish`] for a request whose length its head tells; `None` for a request without body.
/// A method that has a body gets a length of 0 if the client gave none.
#[must_use]
pub fn length(head: &Head) -> Option<u64> {
    match head.body {
        Body::Length(length) => Some(length),
        Body::None | Body::Chunked => head.body_expected.then_some(0),
    }
}

/// Writes the target in origin form; answers the host that a target in absolute form named.
fn write_target<'a>(target: &'a [u8], out: &mut Vec<u8>) -> Option<&'a str> {
    let Some((authority, path)) = std::str::from_utf8(target).ok().and_then(absolute_form) else {
        out.extend_from_slice(target);
        return None;
    };
    if !path.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
    Some(authority)
}

/// The host in the target wins over the field (RFC 9112, 3.2.2). HTTP/1.0 may have neither: then the field is empty,
/// since HTTP/1.1 must have one.
fn write_host(buf: &[u8], head: &Head, authority: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Host: ");
    if let Some(authority) = authority {
        out.extend_from_slice(authority.as_bytes());
    } else if let Some((_, host)) = fields(buf, head).find(|(name, _)| is_host(name)) {
        out.extend_from_slice(host);
    }
    out.extend_from_slice(b"\r\n");
}

fn is_host(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"host")
}

fn write_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        // A remainder of 10 fits any integer type.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The fields of a checked head: names as they came, values without the space around them.
pub fn fields<'a>(buf: &'a [u8], head: &Head) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    // The head was checked: each line ends with CR LF, each field line has a colon, the last line is empty.
    buf[head.target.end..head.len].split(|&b| b == b'\n').skip(1).filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|&b| b == b':')?;
        Some((&line[..colon], trim(&line[colon + 1..])))
    })
}

/// What the `Connection` fields name: to be dropped too. Empty (and free) for nearly every request.
struct Named<'a>(Vec<&'a [u8]>);

impl<'a> Named<'a> {
    fn collect(buf: &'a [u8], head: &Head) -> Self {
        let names = fields(buf, head)
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
            .flat_map(|(_, value)| tokens(value))
            // Without its host or its credentials a request would become another one: such a wish is ignored.
            .filter(|name| {
                ![b"close".as_slice(), b"keep-alive", b"upgrade", b"host", b"authorization"]
                    .iter()
                    .any(|kept| name.eq_ignore_ascii_case(kept))
            })
            .take(crate::limits::MAX_HEADERS)
            .collect();
        Self(names)
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

fn is_dropped(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    let prefix = name.len() >= PREFIX.len() && name[..PREFIX.len()].eq_ignore_ascii_case(PREFIX);
    prefix || HOP_BY_HOP.iter().chain(&FORWARDING).any(|dropped| name.eq_ignore_ascii_case(dropped))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::parse;

    fn rewritten(request: &str) -> String {
        let head = parse(request.as_bytes(), &mut 0).unwrap().unwrap();
        let mut out = Vec::new();
        start(request.as_bytes(), &head, &mut out);
        finish(length(&head), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The longest head with the most fields, none of them with a space after its colon, is still taken once rewritten.
    #[test]
    fn a_head_at_the_limits_is_taken_when_rewritten() {
        use crate::http::head::parse_rewritten;
        use crate::limits::{MAX_HEAD, MAX_HEADERS};
        let mut request = "POST http://example.org/ HTTP/1.0\r\n".to_owned();
        request.extend((1..MAX_HEADERS).map(|_| "A:b\r\n"));
        request.push_str("B:");
        request.extend(std::iter::repeat_n('c', MAX_HEAD - request.len() - 4));
        request.push_str("\r\n\r\n");
        assert_eq!(request.len(), MAX_HEAD);
        let again = rewritten(&request);
        assert!(again.len() > MAX_HEAD);
        let head = parse_rewritten(again.as_bytes(), &mut 0).unwrap().unwrap();
        assert_eq!(head.len, again.len());
    }

    #[test]
    fn passes_ordinary_fields() {
        assert_eq!(
            rewritten(
                "POST /bosh?x=1 HTTP/1.1\r\nHost:a\r\nAuthorization: B x \r\ncontent-length: 007\r\n\r\n"
            ),
            "POST /bosh?x=1 HTTP/1.1\r\nHost: a\r\nAuthorization: B x\r\nContent-Length: 7\r\n\r\n"
        );
    }

    #[test]
    fn drops_hop_by_hop_and_forwarding_fields() {
        let text = rewritten(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, X-Secret, host\r\nX-Secret: 1\r\nTE: trailers\r\n\
             Keep-Alive: 5\r\nProxy-Connection: x\r\nTrailer: y\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-Proto: https\r\n\
             X-Real-IP: 1.2.3.4\r\nForwarded: for=1\r\nUpgrade: h2c\r\nCookie: c\r\n\r\n",
        );
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\n\r\n");
    }

    #[test]
    fn says_close_when_the_client_ends() {
        for request in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n\r\n",
        ] {
            assert_eq!(rewritten(request), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        }
    }

    #[test]
    fn writes_upgrades_anew() {
        assert_eq!(
            rewritten(
                "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"
            ),
            "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
    }

    #[test]
    fn gives_a_length_to_methods_with_a_body() {
        assert!(rewritten("POST / HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("Content-Length: 0\r\n\r\n"));
        assert!(!rewritten("GET / HTTP/1.1\r\nHost: a\r\n\r\n").contains("Content-Length"));
    }

    #[test]
    fn makes_absolute_targets_relative() {
        for (target, path) in [("http://a/b?c", "/b?c"), ("HTTPS://a", "/"), ("http://a?q", "/?q")] {
            let text = rewritten(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert!(text.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{text}");
        }
    }

    #[test]
    fn writes_exactly_one_host() {
        for (request, host) in [
            ("GET / HTTP/1.0\r\n\r\n", ""),
            ("GET / HTTP/1.1\r\nX: y\r\nhOST: a:1\r\n\r\n", "a:1"),
            ("GET http://b:2/ HTTP/1.1\r\nHost: a\r\n\r\n", "b:2"),
        ] {
            let text = rewritten(request);
            assert!(text.starts_with(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n")), "{text}");
            assert_eq!(text.to_lowercase().matches("host:").count(), 1);
        }
    }

    #[test]
    fn the_longest_length_passes() {
        let text = rewritten("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n");
        assert!(text.ends_with("Content-Length: 18446744073709551615\r\n\r\n"));
    }
}
