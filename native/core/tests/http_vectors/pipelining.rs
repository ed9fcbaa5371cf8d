//! Points of llhttp's `pipelining`: requests behind each other.

use megaphone_core::http::Body::{Chunked, Length, None};
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Ends, Open, Refused, Waits};
use crate::vector::{Taken, Vector, check, vector};

const VECTORS: &[Vector] = &[
    vector(
        "three methods with bodies of three lengths",
        b"PUT /one HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1\
          POST /two HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n22\
          PATCH /three HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n333",
        &[
            Taken("PUT /one", Length(1), "1"),
            Taken("POST /two", Length(2), "22"),
            Taken("PATCH /three", Length(3), "333"),
        ],
        Open,
    ),
    vector(
        "every framing in a row",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\
          POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;e\r\nB\r\n0\r\nT: t\r\n\r\n\
          DELETE /c HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nC\
          HEAD /d HTTP/1.1\r\nHost: h\r\n\r\n\
          OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        &[
            Taken("GET /a", None, ""),
            Taken("POST /b", Chunked, "B"),
            Taken("DELETE /c", Length(1), "C"),
            Taken("HEAD /d", None, ""),
            Taken("OPTIONS *", None, ""),
        ],
        Open,
    ),
    vector(
        "a request in the body of another is its body",
        b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n\
          GET /c HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a", Length(28), "GET /b HTTP/1.1\r\nHost: h\r\n\r\n"), Taken("GET /c", None, "")],
        Open,
    ),
    vector(
        "one byte more than the body says",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc?GET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /a", Length(3), "abc")],
        Refused(E::RequestLine),
    ),
    vector(
        "one byte less makes the next method one longer",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /a", Length(2), "ab"), Taken("cGET /b", None, "")],
        Open,
    )
    .differs("llhttp has no such method; what it is, is for ejabberd to say"),
    vector(
        "the last request is not complete",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n",
        &[Taken("GET /a", None, "")],
        Waits,
    ),
    vector(
        "the last body is not complete",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nPUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc",
        &[Taken("GET /a", None, "")],
        Waits,
    ),
    vector(
        "a broken request after two good ones",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost : h\r\n\r\n",
        &[Taken("GET /a", None, ""), Taken("GET /b", None, "")],
        Refused(E::FieldName),
    ),
    vector(
        "what follows a last request is dropped, even if it is broken",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n\x16\x03\x01",
        &[Taken("GET /a", None, "")],
        Ends,
    ),
    vector(
        "empty lines between requests, as many as are allowed",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a", None, ""), Taken("GET /b", None, "")],
        Open,
    ),
    vector(
        "one empty line more",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Refused(E::EmptyLines),
    )
    .differs("llhttp skips any number of them; four are enough for old clients (RFC 9112, 2.2 asks for one at least)"),
];

/// Requests behind each other are handed on one at a time, each with its own body, up to the first that is broken.
#[test]
fn requests_in_a_row() {
    check(VECTORS);
}
