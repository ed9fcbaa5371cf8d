//! Points of llhttp's `content-length`.

use megaphone_core::http::Body::{Chunked, Length};
use megaphone_core::http::HeadError as E;
use megaphone_core::http::chunked::ChunkError::Malformed;

use crate::vector::Then::{BadChunk, Ends, Open, Tunnel, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

const VECTORS: &[Vector] = &[
    vector(
        "zeros before the number",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0004\r\n\r\nfour",
        &[Taken("PUT /a", Length(4), "four")],
        Open,
    ),
    vector(
        "more zeros than a number of 64 bits has digits",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 00000000000000000000000000000002\r\n\r\nab",
        &[Taken("PUT /a", Length(2), "ab")],
        Open,
    ),
    vector(
        "another field after the length",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nX-After: 5\r\n\r\nfour",
        &[Taken("PUT /a", Length(4), "four")],
        Open,
    ),
    refused(
        "a length of more than 64 bits",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        E::BodyTooLarge,
    ),
    refused(
        "two lengths that differ",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        E::ContentLength,
    ),
    refused(
        "two lengths that are the same",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        E::ContentLength,
    ),
    refused(
        "two lengths in one field",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc",
        E::ContentLength,
    ),
    refused(
        "a length and identity",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: identity\r\n\r\nabc",
        E::UnknownCoding,
    )
    .differs("llhttp refuses the two fields together, or ignores the length if it is set to; here it is the coding"),
    refused(
        "a length and chunked",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        E::LengthAndCoding,
    )
    .differs("llhttp refuses it too, but can be set to let the coding win"),
    refused(
        "a space before the colon of the length",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nContent-Length : 3\r\nUpgrade: x\r\n\r\nabcdef",
        E::FieldName,
    )
    .differs("llhttp takes it if it is set to allow such fields; RFC 9112, 5.1 wants 400"),
    vector(
        "a length in HTTP/1.0, its name in odd letters",
        b"GET /a HTTP/1.0\r\ncontent-LENGTH: 5\r\n\r\nhello",
        &[Taken("GET /a", Length(5), "hello")],
        Ends,
    ),
    vector(
        "spaces around the number",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:   3  \r\n\r\nabc",
        &[Taken("POST /", Length(3), "abc")],
        Open,
    ),
    vector(
        "tabs around the number",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\t3\t \r\n\r\nabc",
        &[Taken("POST /", Length(3), "abc")],
        Open,
    ),
    refused(
        "a space between two digits",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 2\r\n\r\n",
        E::ContentLength,
    ),
    refused(
        "a space between two numbers",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10 20\r\n\r\n",
        E::ContentLength,
    ),
    refused("no number", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", E::ContentLength),
    refused("a sign", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", E::ContentLength),
    refused(
        "a number of base 16",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc",
        E::ContentLength,
    ),
    refused(
        "a fraction",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3.0\r\n\r\nabc",
        E::ContentLength,
    ),
    refused(
        "CR in place of the dash in the name",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent\rLength: 3\r\n\r\nabc",
        E::FieldName,
    ),
    vector(
        "a body that does not come, and a request in its place",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[],
        Waits,
    )
    .differs("llhttp can be told by its user to skip the body; here the bytes are the body, whatever they look like"),
    vector(
        "CR alone in place of the empty line, and no line after it",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\rabc",
        &[],
        Waits,
    )
    .differs("llhttp refuses it at the byte after CR; here a line is judged when it ends, or its time has passed"),
    refused(
        "CR alone in place of the empty line",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\rabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        E::LineEnd,
    )
    .differs("llhttp takes it if it is set to read CR without LF as a line's end"),
    vector(
        "a length of 0",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 000\r\n\r\n",
        &[Taken("POST /a", Length(0), ""), Taken("POST /b", Length(0), "")],
        Open,
    ),
    vector(
        "a length of 0 with an upgrade",
        b"GET /w HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\nraw",
        &[Taken("GET /w", Length(0), "")],
        Tunnel("raw"),
    ),
    vector(
        "chunks after a body with a length are judged as chunks",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nA\
          POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nB\r\nx\r\n",
        &[Taken("POST /a", Length(1), "A")],
        BadChunk(Malformed),
    ),
    vector(
        "a length after a chunked body",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\n\
          POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nB",
        &[Taken("POST /a", Chunked, "A"), Taken("POST /b", Length(1), "B")],
        Open,
    ),
];

/// A length is one field with one decimal number; the body is exactly so long, whatever is in it.
#[test]
fn lengths() {
    check(VECTORS);
}
