//! Points of llhttp's `sample`, and of its `finish` and `pausing`. The last stops at every event there is; here a request
//! is whole before anything is made of it, so the cuts at every byte are what it shows.

use megaphone_core::http::Body::{Chunked, Length, None};
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Ends, Open, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const TAKEN: &[Vector] = &[
    vector(
        "a tab and spaces before a value",
        b"OPTIONS /a HTTP/1.1\r\nHost: h\r\nOne: 1\r\nTwo:\t  2\r\n\r\n",
        &[Taken("OPTIONS /a", None, "")],
        Open,
    ),
    vector("HEAD, which starts as an answer does", b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("HEAD /a", None, "")], Open),
    vector(
        "as a command line client asks, the host with an equals sign",
        b"GET /t HTTP/1.1\r\nUser-Agent: tool/1.2 (x86_64) lib/3.4\r\nHost: 127.0.0.1=80\r\nAccept: */*\r\n\r\n",
        &[Taken("GET /t", None, "")],
        Open,
    ),
    vector(
        "as a browser asks",
        b"GET /i.ico HTTP/1.1\r\nHost: h:80\r\nUser-Agent: Browser/5.0 (X11; en-US; rv:1.9) Engine/1\r\n\
          Accept: text/html,*/*;q=0.8\r\nAccept-Language: en,de;q=0.5\r\nAccept-Encoding: gzip\r\n\
          Keep-Alive: 300\r\nConnection: keep-alive\r\n\r\n",
        &[Taken("GET /i.ico", None, "")],
        Open,
    ),
    vector(
        "no space after a colon, and a value of signs",
        b"GET /a HTTP/1.1\r\nhost:h\r\naaaa:----\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
    vector(
        "HTTP/1.0 does not wait for an end to know that there is no body",
        b"GET /a HTTP/1.0\r\nHost: h:80\r\nAccept: */*\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Ends,
    ),
    vector("an empty line first", b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", &[Taken("GET /a", None, "")], Open),
    vector(
        "an empty line first, and fields",
        b"\r\nGET /a HTTP/1.1\r\nOne: 1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
    vector(
        "letters beyond ASCII in a value",
        "GET / HTTP/1.1\r\nHost: h\r\nTown: Zürich\r\n\r\n".as_bytes(),
        &[Taken("GET /", None, "")],
        Open,
    ),
    vector(
        "the highest byte in a value",
        b"OPTIONS /a HTTP/1.1\r\nHost: h\r\nOne: \xff1\xfe\r\n\r\n",
        &[Taken("OPTIONS /a", None, "")],
        Open,
    ),
    vector(
        "each event of a request with a length can be the end of what has come",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        &[Taken("POST /", Length(3), "abc")],
        Open,
    ),
    vector(
        "each event of a chunked request can be the end of what has come",
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na;k=v;l\r\n0123456789\r\n0;m=\"n\"\r\n\r\n",
        &[Taken("PUT /", Chunked, "0123456789")],
        Open,
    ),
    vector(
        "after a complete request the connection may end",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /", None, "")],
        Open,
    ),
    vector(
        "within a body it may not",
        b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n",
        &[],
        Waits,
    ),
    vector("within a field it may not", b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Len", &[], Waits),
];

const REFUSED: &[Vector] = &[
    refused("no field at all", b"GET /a HTTP/1.1\r\n\r\n", E::Host)
        .differs("llhttp does not look for Host; HTTP/1.1 must have it (RFC 9112, 3.2)"),
    refused("a field, but not Host", b"GET /a HTTP/1.1\r\nAccept: */*\r\n\r\n", E::Host)
        .differs("llhttp does not look for Host; HTTP/1.1 must have it"),
    refused("no version", b"GET /\r\n\r\n", E::RequestLine)
        .differs("llhttp takes it for HTTP/0.9, which has no framing at all"),
    refused(
        "folded values",
        b"GET / HTTP/1.1\r\nHost: h\r\nA:  one\r\n\ttwo\r\n three\r\nConnection:\r\n close\r\n\r\n",
        E::FieldName,
    )
    .differs("llhttp takes them if it is set to allow such fields; RFC 9112, 5.2 lets a server refuse them"),
    refused("folded values with lone LF", b"GET / HTTP/1.1\r\nHost: h\r\nA: one\n\ttwo\n\n", E::LineEnd),
    refused(
        "a folded value of many lines",
        b"GET / HTTP/1.1\r\nHost: h\r\nCert: -----BEGIN-----\r\n\tMIIFb\r\n\tEwJV+/\r\n\tRA==\r\n\t-----END-----\r\n\r\n",
        E::FieldName,
    )
    .differs("llhttp takes it if it is set to allow such fields"),
    refused("CR alone after the version", b"GET / HTTP/1.1\rHost: h\r\n\r\n", E::LineEnd)
        .differs("llhttp takes it if it is set to read CR without LF as a line's end"),
];

/// Ordinary requests of all kinds of clients are taken, whatever is the last byte that has come.
#[test]
fn ordinary_requests() {
    check(TAKEN);
}

/// What used to be common and is ambiguous is refused.
#[test]
fn old_habits() {
    check(REFUSED);
}
