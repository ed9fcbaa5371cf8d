//! Points of llhttp's `lenient-headers`, `lenient-header-value-relaxed` and `lenient-version`: what it can be set to
//! take. Nothing of that can be set here.

use megaphone_core::http::Body::None;
use megaphone_core::http::HeadError as E;

use crate::vector::Then::Refused;
use crate::vector::{Taken, Vector, check, refused, vector};

const VECTORS: &[Vector] = &[
    refused("a form feed as a value", b"GET /a HTTP/1.1\r\nHost: h\r\nOne: \x0c\r\n\r\n", E::FieldValue)
        .differs("llhttp refuses it, but can be set not to look at values; RFC 9110, 5.5 forbids control characters"),
    refused("a form feed in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nOne: a\x0cb\r\n\r\n", E::FieldValue)
        .differs("llhttp refuses it, but can be set to take control characters"),
    vector(
        "a form feed in the second request",
        b"GET /a HTTP/1.1\r\nHost: h\r\nOne: ok\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nOne: \x0c\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Refused(E::FieldValue),
    )
    .differs("llhttp refuses it, but can be set not to look at values"),
    refused("NUL in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nOne: a\x00b\r\n\r\n", E::FieldValue),
    refused("DEL in a value", b"GET /a HTTP/1.1\r\nHost: h\r\nOne: a\x7fb\r\n\r\n", E::FieldValue),
    refused(
        "CR alone as a value, before a field that frames",
        b"POST / HTTP/1.1\r\nHost: h\r\nOne:\rTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::FieldValue,
    )
    .differs("llhttp refuses it, but reads two fields if it is set not to look at values"),
    refused(
        "LF alone as a value, before a field that frames",
        b"POST / HTTP/1.1\r\nHost: h\r\nOne:\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::LineEnd,
    ),
    refused("a space before the first field", b"GET /a HTTP/1.1\r\n One: 1\r\nHost: h\r\n\r\n", E::FieldName)
        .differs("llhttp refuses it, but can be set to take it (RFC 9112, 2.2 allows both refusing and skipping)"),
    refused(
        "a folded value that hides a length",
        b"POST /a HTTP/1.1\r\nHost: h\r\nOne: 1\r\n\tContent-Length: 4\r\n\r\nabcd",
        E::FieldName,
    )
    .differs("llhttp refuses it, but can be set to take it as part of the value"),
    refused("a version with unknown numbers", b"GET / HTTP/4.2\r\nHost: h\r\n\r\n", E::Version)
        .differs("llhttp refuses it, but can be set to take any version"),
];

/// No leniency can make a value of control characters, a folded line or an unknown version pass.
#[test]
fn nothing_lenient() {
    check(VECTORS);
}
