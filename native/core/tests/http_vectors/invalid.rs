//! Points of llhttp's `invalid`: requests that nobody should take.

use megaphone_core::http::Body::{self, Length};
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Refused, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const LINES: &[Vector] = &[
    refused(
        "another protocol of the same shape",
        b"GET /radio ICE/1.0\r\nHost: h\r\n\r\n",
        E::RequestLine,
    ),
    refused(
        "a protocol whose name ends as ours",
        b"GET /radio XHTTP/1.0\r\nHost: h\r\n\r\n",
        E::RequestLine,
    ),
    refused("RTSP", b"PUT /radio RTSP/1.0\r\nHost: h\r\n\r\n", E::RequestLine),
    vector(
        "a method of RTSP in HTTP",
        b"ANNOUNCE /radio HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("ANNOUNCE /radio", Body::None, "")],
        crate::vector::Then::Open,
    )
    .differs("llhttp has a list of methods; here any token is one (RFC 9110, 9.1), and ejabberd answers what it thinks of it"),
    vector(
        "a method that begins as a known one",
        b"GETX / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GETX /", Body::None, "")],
        crate::vector::Then::Open,
    )
    .differs("llhttp has a list of methods"),
    refused("a version with other numbers", b"GET / HTTP/7.3\r\nHost: h\r\n\r\n", E::Version),
    vector("a version whose line does not end", b"GET / HTTP/7.3", &[], Waits)
        .differs("llhttp refuses it without the end of its line; here a head is judged by lines"),
    refused("a version without its second number", b"GET / HTTP/1\r\nHost: h\r\n\r\n", E::RequestLine),
    refused("a version with three digits", b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", E::LineEnd),
    refused("the protocol in small letters", b"GET / http/1.1\r\nHost: h\r\n\r\n", E::RequestLine),
    refused(
        "a space before the first field, which has the length",
        b"POST / HTTP/1.1\r\n Content-Length: 3\r\nHost: h\r\n\r\nabc",
        E::FieldName,
    ),
    refused(
        "lone LF from the first line on",
        b"POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1\nA\n0\n\n",
        E::LineEnd,
    )
    .differs("llhttp takes it if it is set to its most lenient; RFC 9112, 2.2 allows it, but then not all read the same"),
];

const ENDS: &[Vector] = &[
    refused(
        "CR alone between two fields",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\rB: 2\r\n\r\n",
        E::FieldValue,
    ),
    refused(
        "LF alone between two fields, the second frames",
        b"POST / HTTP/1.1\r\nHost: h\r\nA: 1\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::LineEnd,
    ),
    refused(
        "CR and another byte in place of the empty line",
        b"GET / HTTP/1.1\r\nConnection: close\r\nHost: h\r\n\rXGET /b: HTTP/1.1\r\nHost: h\r\n\r\n",
        E::LineEnd,
    )
    .differs("llhttp takes CR alone as the line's end if it is set to, and then refuses what follows `close`"),
    refused(
        "a value of CR alone before a field that frames",
        b"POST / HTTP/1.1\r\nConnection: close\r\nHost: h\r\nA:\rTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::FieldValue,
    ),
    refused(
        "a value of LF alone before a field that frames",
        b"POST / HTTP/1.1\r\nHost: h\r\nA:\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::LineEnd,
    ),
    refused(
        "LF alone before a length, and a request in what would be the body",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: x\nContent-Length: 28\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        E::LineEnd,
    ),
    refused(
        "a name that is folded before its colon",
        b"GET / HTTP/1.1\r\nHost: h\r\nname\r\n : value\r\n\r\n",
        E::FieldName,
    ),
    refused(
        "a name that CR cuts off",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection\r\x1b5eep-Alive\r\nA: b\r\n\r\n",
        E::FieldName,
    ),
    refused(
        "a name of no meaning that CR cuts off",
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Any\r\x1b5eep-Alive\r\nA: b\r\n\r\n",
        E::FieldName,
    ),
    refused(
        "a length in a folded line",
        b"POST /a HTTP/1.1\r\nHost: h\r\nA: b\r\n Content-Length: 28\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        E::FieldName,
    )
    .differs("llhttp takes it as part of the value if it is set to; RFC 9112, 5.2 lets a server refuse it"),
];

const NAMES: &[Vector] = &[
    refused("a byte that no name has", b"GET / HTTP/1.1\r\nHost: h\r\nA@b: c\r\n\r\n", E::FieldName),
    refused("control characters in a name", b"GET / HTTP/1.1\r\nHost: h\r\nA\x01\tb: c\r\n\r\n", E::FieldName),
    refused("an empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: c\r\n\r\n", E::FieldName),
    refused("a name with a byte beyond ASCII", b"GET / HTTP/1.1\r\nHost: h\r\nA\xe4: c\r\n\r\n", E::FieldName),
    refused("a line without a colon", b"GET / HTTP/1.1\r\nHost: h\r\nabc\r\n\r\n", E::FieldName),
    vector(
        "a refusal after a request that was taken",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nAGET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n",
        &[Taken("PUT /a", Length(1), "A")],
        Refused(E::FieldName),
    ),
];

/// A request line is `METHOD target HTTP/1.0` or `HTTP/1.1`, ended by CR LF.
#[test]
fn request_lines() {
    check(LINES);
}

/// Nothing but CR LF ends a line of a head, and no line goes on in the next one.
#[test]
fn line_ends() {
    check(ENDS);
}

/// The name of a field is a token with its colon right behind it.
#[test]
fn field_names() {
    check(NAMES);
}
