//! Points of picohttpparser's tests of requests and of fields. It has no framing, so nothing here has a body.

use megaphone_core::http::Body::None;
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Ends, Open, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const TAKEN: &[Vector] = &[
    vector("the shortest request", b"GET / HTTP/1.0\r\n\r\n", &[Taken("GET /", None, "")], Ends),
    vector("all but the last byte", b"GET / HTTP/1.0\r\n\r", &[], Waits),
    vector(
        "two fields, the second without a value",
        b"GET /a HTTP/1.1\r\nHost: name.example\r\nEmpty: \r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
    vector(
        "a value that ends within a character of several bytes",
        b"GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: \xe3\x81\x82\xe3/2\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
    vector(
        "a bar and a tilde as a name",
        b"GET / HTTP/1.0\r\n|~: 1\r\n\r\n",
        &[Taken("GET /", None, "")],
        Ends,
    ),
    vector(
        "spaces and tabs around a value",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: \t b\t \t\r\n\r\n",
        &[Taken("GET /", None, "")],
        Open,
    ),
    vector(
        "a byte beyond ASCII in a value",
        b"GET / HTTP/1.0\r\na: b\xa2c\r\n\r\n",
        &[Taken("GET /", None, "")],
        Ends,
    ),
    vector("the method without its end", b"GET", &[], Waits),
    vector("the method and a space", b"GET ", &[], Waits),
    vector("the target without its end", b"GET /", &[], Waits),
    vector("the target and a space", b"GET / ", &[], Waits),
    vector("the first letter of the protocol", b"GET / H", &[], Waits),
    vector("the version without its second number", b"GET / HTTP/1.", &[], Waits),
    vector("the version without the line's end", b"GET / HTTP/1.0", &[], Waits),
    vector("half of the line's end", b"GET / HTTP/1.0\r", &[], Waits),
    vector("fields without the empty line", b"GET / HTTP/1.1\r\nHost: h\r\nEmpty: \r\n\r", &[], Waits),
];

const REFUSED: &[Vector] = &[
    refused(
        "a folded value",
        b"GET / HTTP/1.0\r\na: \r\na: b\r\n \tc\r\n\r\n",
        E::FieldName,
    )
    .differs("picohttpparser hands the folded line out as a field without a name; RFC 9112, 5.2 lets a server refuse it"),
    refused("a space behind a name", b"GET / HTTP/1.0\r\na : b\r\n\r\n", E::FieldName),
    refused("an empty method", b" /a HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("an empty target", b"GET  HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("an empty name", b"GET / HTTP/1.0\r\n:b\r\n\r\n", E::FieldName),
    refused("a space as a name", b"GET / HTTP/1.0\r\n :b\r\n\r\n", E::FieldName),
    refused("NUL in the method", b"P\0T / HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("a tab in the method", b"P\tT / HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("a method that begins with a colon", b":GET / HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("DEL in the target", b"GET /\x7fa HTTP/1.0\r\n\r\n", E::RequestLine),
    refused("NUL in a name", b"GET / HTTP/1.0\r\na\0: b\r\n\r\n", E::FieldName),
    refused("NUL in a value", b"GET / HTTP/1.0\r\na: b\0c\r\n\r\n", E::FieldValue),
    refused("ESC in a name", b"GET / HTTP/1.0\r\na\x1b: b\r\n\r\n", E::FieldName),
    refused("ESC in a value", b"GET / HTTP/1.0\r\na: b\x1b\r\n\r\n", E::FieldValue),
    refused("DEL in a value", b"GET / HTTP/1.1\r\nHost: h\r\na: b\x7fc\r\n\r\n", E::FieldValue),
    refused("a slash as a name", b"GET / HTTP/1.0\r\n/: b\r\n\r\n", E::FieldName),
    refused("a brace as a name", b"GET / HTTP/1.0\r\n{: b\r\n\r\n", E::FieldName),
    refused("a byte beyond ASCII in the target", b"GET /\xa0 HTTP/1.0\r\na: b\r\n\r\n", E::RequestLine)
        .differs("picohttpparser takes it; RFC 3986 has no such byte in a target, and servers decode it differently"),
    refused("several spaces in the request line", b"GET  /   HTTP/1.0\r\n\r\n", E::RequestLine)
        .differs("picohttpparser takes them; RFC 9112, 3 has one space between two parts"),
    refused("lone LF at the ends of lines", b"GET / HTTP/1.0\na: b\n\n", E::LineEnd)
        .differs("picohttpparser takes them; RFC 9112, 2.2 allows that, but then not all read the same"),
];

/// What picohttpparser takes is taken, and what it waits for is waited for.
#[test]
fn taken() {
    check(TAKEN);
}

/// What picohttpparser refuses is refused, and some of what it takes.
#[test]
fn refusals() {
    check(REFUSED);
}
