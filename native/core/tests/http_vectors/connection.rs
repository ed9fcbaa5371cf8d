//! Points of llhttp's `connection`: whether another request may follow, and upgrades.

use megaphone_core::http::Body::{Chunked, Length, None};
use megaphone_core::http::HeadError as E;

use crate::vector::Then::{Ends, Open, Refused, Tunnel, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const PERSISTENCE: &[Vector] = &[
    vector("keep-alive", b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", &[Taken("PUT /a", None, "")], Open),
    vector(
        "keep-alive twice",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\nPUT /b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
        &[Taken("PUT /a", None, ""), Taken("PUT /b", None, "")],
        Open,
    ),
    vector(
        "HTTP/1.0 ends the connection",
        b"PUT /a HTTP/1.0\r\n\r\nPUT /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("PUT /a", None, "")],
        Ends,
    )
    .differs("llhttp calls what follows an error, or the next request if it is set to; here it is dropped"),
    vector(
        "HTTP/1.0 with a length ends the connection, and chunks that follow are not read",
        b"PUT /a HTTP/1.0\r\nContent-Length: 1\r\n\r\nAPUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        &[Taken("PUT /a", Length(1), "A")],
        Ends,
    )
    .differs("llhttp takes the second request if it is set to allow requests after the last"),
    vector(
        "HTTP/1.0 with keep-alive ends the connection",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Ends,
    )
    .differs("llhttp goes on; RFC 9112, 9.3 does not ask for that, and with a proxy of HTTP/1.0 between it goes wrong"),
    vector(
        "an empty line after a body, and the next request is not complete",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na=b\r\nGET / HTTP/1.1\r\n",
        &[Taken("POST /", Length(3), "a=b")],
        Waits,
    ),
    refused(
        "CR in place of the dash of keep-alive",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: keep\ralive\r\n\r\n",
        E::FieldValue,
    ),
    vector("close", b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", &[Taken("PUT /a", None, "")], Ends),
    vector(
        "close and a tab",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: close\t\r\n\r\n",
        &[Taken("PUT /a", None, "")],
        Ends,
    ),
    vector(
        "close, a body, an empty line and another request",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\na=b\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /", Length(3), "a=b")],
        Ends,
    )
    .differs("llhttp calls what follows an error, or the next request if it is set to; here it is dropped"),
    vector(
        "close and a tab, a chunked body, and another request",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\t\r\n\r\n\
          1\r\nA\r\n0\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /", Chunked, "A")],
        Ends,
    )
    .differs("llhttp calls what follows an error; here it is dropped"),
    vector(
        "close among other tokens, one of them keep-alive",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE ,upgrade, keep-alive\r\n\r\n",
        &[Taken("PUT /a", None, "")],
        Ends,
    ),
    vector(
        "close in the second of two fields",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Ends,
    ),
    vector(
        "a token that only begins with close",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: closed, enclose\r\n\r\n",
        &[Taken("GET /a", None, "")],
        Open,
    ),
];

const UPGRADES: &[Vector] = &[
    refused(
        "upgrade in a folded line",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: x,\r\n upgrade, ,keep-alive\r\nUpgrade: websocket\r\n\r\nraw",
        E::FieldName,
    )
    .differs("llhttp takes it if it is set to allow such fields"),
    refused(
        "upgrade in a folded line after a comma and a space",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, \r\n upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        E::FieldName,
    )
    .differs("llhttp takes it if it is set to allow such fields"),
    vector(
        "keep-alive and upgrade",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n\r\nraw bytes",
        &[Taken("GET /w", None, "")],
        Tunnel("raw bytes"),
    ),
    vector(
        "empty members of the list",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: , ,upgrade,\r\nUpgrade: websocket\r\n\r\nraw",
        &[Taken("GET /w", None, "")],
        Tunnel("raw"),
    ),
    refused(
        "a space before the colon of Connection",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection : upgrade\r\nContent-Length: 3\r\nUpgrade: x\r\n\r\nabcdef",
        E::FieldName,
    )
    .differs("llhttp takes it if it is set to allow such fields"),
    vector(
        "an upgrade to something that is not spoken here",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("PUT /a", None, ""), Taken("GET /b", None, "")],
        Open,
    )
    .differs("llhttp stops after any upgrade; here it is ignored (RFC 9110, 7.8 allows that), and requests go on"),
    vector(
        "an upgrade with a body, and more bytes",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nContent-Length: 3\r\nUpgrade: websocket\r\n\r\nabc,ef",
        &[Taken("PUT /a", Length(3), "abc")],
        Refused(E::RequestLine),
    )
    .differs("llhttp stops after the body; a WebSocket begins with GET and no body, so this is an ordinary request"),
    vector(
        "a WebSocket of an old draft, bytes right behind it",
        b"GET /demo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nSec-WebSocket-Key2: 1 9 Y 3\r\nUpgrade: WebSocket\r\n\
          Sec-WebSocket-Key1: 4 @1 4\r\nOrigin: http://h\r\n\r\n8 bytes.",
        &[Taken("GET /demo", None, "")],
        Tunnel("8 bytes."),
    ),
    vector(
        "POST to another version, with a body",
        b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: HTTP/2.0\r\nContent-Length: 4\r\n\r\nbodyGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[Taken("POST /a", Length(4), "body"), Taken("GET /b", None, "")],
        Open,
    )
    .differs("llhttp stops after the body; here the upgrade is ignored"),
    vector(
        "a request behind an upgrade is the tunnel's",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\n",
        &[Taken("GET /w", None, "")],
        Tunnel("GET /b HTTP/1.1\r\n"),
    ),
    vector(
        "an upgrade in HTTP/1.0 is none",
        b"GET /w HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        &[Taken("GET /w", None, "")],
        Ends,
    )
    .differs("llhttp stops for it; RFC 9110, 7.8 has it ignored in HTTP/1.0"),
];

/// Another request follows unless the version or `close` says that none does.
#[test]
fn persistence() {
    check(PERSISTENCE);
}

/// Only GET without a body, in HTTP/1.1 and to a WebSocket, makes a tunnel; any other upgrade is an ordinary request.
#[test]
fn upgrades() {
    check(UPGRADES);
}
