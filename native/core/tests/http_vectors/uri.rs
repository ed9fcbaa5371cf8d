//! Points of llhttp's `uri`: what a request target may be.

use megaphone_core::http::Body::None;
use megaphone_core::http::HeadError as E;

use crate::vector::Then::Open;
use crate::vector::{Taken, Vector, check, refused, vector};

const VECTORS: &[Vector] = &[
    vector(
        "quotes in path and query",
        b"GET /a_\"b\"_c?d=\"e\" HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a_\"b\"_c?d=\"e\"", None, "")],
        Open,
    ),
    vector(
        "a question mark in the query",
        b"GET /a?b=c?d HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a?b=c?d", None, "")],
        Open,
    ),
    vector(
        "an absolute target whose host ends at the query",
        b"GET http://name.example?x=y HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /?x=y", None, "")],
        Open,
    ),
    vector(
        "an absolute target whose port ends at the query",
        b"GET http://name.example:8080?x=y HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /?x=y", None, "")],
        Open,
    ),
    vector(
        "a vertical bar in the query",
        b"GET /a?b=|c| HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a?b=|c|", None, "")],
        Open,
    ),
    vector(
        "an absolute target without a path",
        b"GET HTTP://name.example:8080 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /", None, "")],
        Open,
    ),
    vector(
        "an underscore in the host",
        b"GET http://name_1.example/a HTTP/1.1\r\nHost: name_1.example\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
    refused("letters beyond ASCII in the path", "GET /ä/ö HTTP/1.1\r\nHost: h\r\n\r\n".as_bytes(), E::Target),
    refused("a byte that is no text in the path", b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
    refused("a fragment", b"GET /a?b=c#d HTTP/1.1\r\nHost: h\r\n\r\n", E::Target).differs(
        "llhttp takes it; a fragment is never sent (RFC 9112, 3.2), and servers treat it differently",
    ),
    refused(
        "a user and a password before the host",
        b"GET http://u%20:p!$&@name.example:80/a HTTP/1.1\r\nHost: h\r\n\r\n",
        E::Target,
    )
    .differs("llhttp takes it; RFC 9110, 4.2.4 has it treated as an error, since it disguises the host"),
    refused("a space in the path", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
    refused("a tab in the path", b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
    refused("a path without its slash", b"GET a/b HTTP/1.1\r\nHost: h\r\n\r\n", E::Target),
    refused("a scheme that is not ours", b"GET ws://name.example/ HTTP/1.1\r\nHost: h\r\n\r\n", E::Target)
        .differs("llhttp takes any scheme of letters; what another one asks for is not served here"),
    refused("an absolute target without a host", b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", E::Target),
];

/// A target is a path with a query, or an absolute one of http or https, in visible ASCII and without a fragment; the
/// node is given it as a path.
#[test]
fn targets() {
    check(VECTORS);
}
