//! Points of llhttp's `transfer-encoding`: chunks, their extensions and trailers, and other codings.

use megaphone_core::http::Body::Chunked;
use megaphone_core::http::HeadError as E;
use megaphone_core::http::chunked::ChunkError::{Malformed, TooLarge};

use crate::vector::Then::{BadChunk, Ends, Open, Waits};
use crate::vector::{Taken, Vector, check, refused, vector};

/// Chunks that make up a body.
const GOOD: &[Vector] = &[
    vector(
        "the head alone announces a body",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        &[],
        Waits,
    ),
    vector(
        "a size in small letters",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nc\r\ntwelve bytes\r\n0\r\n\r\n",
        &[Taken("PUT /a", Chunked, "twelve bytes")],
        Open,
    ),
    vector(
        "a size in capital letters",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nC\r\nTWELVE BYTES\r\n0\r\n\r\n",
        &[Taken("PUT /a", Chunked, "TWELVE BYTES")],
        Open,
    ),
    vector(
        "a size of two digits, and the coding in capital letters",
        b"POST /a HTTP/1.1\r\nHost: h\r\ntransfer-encoding: CHUNKED\r\n\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "abcdefghijklmnopqrstuvwxyz")],
        Open,
    ),
    vector(
        "two chunks, and a last one of several zeros",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmega\r\n05\r\nphone\r\n0000\r\n\r\n",
        &[Taken("POST /a", Chunked, "megaphone")],
        Open,
    ),
    vector(
        "a body of no chunk but the last",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "")],
        Open,
    ),
    vector(
        "trailer fields are read over, even those that would frame",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nDigest: x\r\nContent-Length: 9\r\n\r\n",
        &[Taken("POST /a", Chunked, "abc")],
        Open,
    ),
    vector(
        "a chunk in the data is data",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "\r\n0\r\n\r\n\r\n")],
        Open,
    ),
    vector(
        "an extension with a value, without one, and several",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;k=v\r\nab\r\n1;x;y=z;w\r\nc\r\n0;end\r\n\r\n",
        &[Taken("POST /a", Chunked, "abc")],
        Open,
    ),
    vector(
        "a quoted value of an extension, with what separates elsewhere",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;k=\"a;b \\\"c\\\" \\\\\";l\r\nab\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "ab")],
        Open,
    ),
    vector(
        "a semicolon without an extension",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;\r\nab\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "ab")],
        Open,
    )
    .differs("llhttp refuses it; here extensions are dropped unread, and where the line ends is not in doubt"),
    vector(
        "a quote in an extension that is never closed",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;k=\"v\r\nab\r\n1;l=\"x\"y\r\nc\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "abc")],
        Open,
    )
    .differs("llhttp refuses it; a quoted string cannot hold CR or LF, so the line ends where it ends without quotes"),
    vector(
        "a trailer line that is no field",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nno colon\r\n folded\r\n\r\n",
        &[Taken("POST /a", Chunked, "a")],
        Open,
    )
    .differs("llhttp reads trailers as fields and refuses it; here they are dropped unread, up to the empty line"),
];

/// Chunks that do not.
const BAD: &[Vector] = &[
    vector(
        "an extension without its semicolon",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2 ext\r\nab\r\n0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "no last chunk before the empty line",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "spaces and a lone LF in the size line",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2 \n \r\nab\r\n0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "CR twice after the size, to hide what the next chunk is",
        b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
          2\r\r;ab\r\n1b\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[],
        BadChunk(Malformed),
    )
    .differs("llhttp takes it if it is set to read CR without LF as a line's end (RFC 9112, 2.2: it is not)"),
    vector(
        "data that is longer than its chunk",
        b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "data that goes over into the next size",
        b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    )
    .differs("llhttp takes it if it is set to need no line end after data; then two readers may count differently"),
    vector(
        "a space after the size",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    )
    .differs("llhttp takes it if it is set to allow spaces there; the grammar (RFC 9112, 7.1) has none"),
    vector(
        "a size with a prefix",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "a size beyond the limit of a body",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n",
        &[],
        BadChunk(TooLarge),
    )
    .differs("llhttp has no limit; here the body is collected, because ejabberd needs its length first"),
    vector(
        "lone LF after an extension",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\nab\r\n0\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
    vector(
        "lone LF in a trailer, to end it early",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &[],
        BadChunk(Malformed),
    ),
];

/// `Transfer-Encoding` that is not exactly `chunked`.
const CODINGS: &[Vector] = &[
    refused(
        "a coding that nobody knows",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: doves\r\n\r\n",
        E::UnknownCoding,
    ),
    refused(
        "identity and a length",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nBody",
        E::UnknownCoding,
    )
    .differs("llhttp refuses the two fields together, or reads to the end if it is set to; here it is the coding"),
    refused(
        "chunked and a length",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        E::LengthAndCoding,
    )
    .differs("llhttp can be set to let the coding win (RFC 9112, 6.3 allows it); here it never does"),
    refused(
        "a length and several empty codings",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nTransfer-Encoding:\r\nTransfer-Encoding:\r\n\r\n1\r\nA\r\n0\r\n\r\n",
        E::UnknownCoding,
    ),
    refused(
        "chunked is not the last coding",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\nBody",
        E::UnknownCoding,
    )
    .differs("llhttp refuses it too, but can be set to read to the end of the connection"),
    refused(
        "chunked, and another field with another coding",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\nBody",
        E::TransferEncoding,
    )
    .differs("llhttp refuses it too, but can be set to read to the end of the connection"),
    refused(
        "chunked as the last coding of two",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nBody\r\n0\r\n\r\n",
        E::UnknownCoding,
    )
    .differs("llhttp takes it; nobody here could undo the first coding, and RFC 9112, 6.1 has 501 for that"),
    refused(
        "chunked as the last coding of two, in two fields",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nBody\r\n0\r\n\r\n",
        E::UnknownCoding,
    )
    .differs("llhttp takes it; the first coding cannot be undone here"),
    refused(
        "chunked twice",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        E::TransferEncoding,
    )
    .differs("llhttp takes it; a body must not be chunked twice (RFC 9112, 6.1)"),
    refused(
        "a coding that begins and ends with chunked",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunkedchunked\r\n\r\n4\r\nBody\r\n0\r\n\r\n",
        E::UnknownCoding,
    ),
    refused(
        "a folded line after chunked",
        b"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n gzip\r\n\r\n4\r\nBody\r\n0\r\n\r\n",
        E::FieldName,
    ),
    refused(
        "chunked in HTTP/1.0",
        b"POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        E::TransferEncoding,
    )
    .differs("llhttp takes it; RFC 9112, 6.1 has it treated as faulty framing"),
    vector(
        "space around the coding",
        b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close \r\nTransfer-Encoding:\t chunked \r\n\r\n1\r\nA\r\n0\r\n\r\n",
        &[Taken("POST /a", Chunked, "A")],
        Ends,
    ),
];

/// A chunked body is taken as the grammar says, extensions and trailers are read over, and the next request starts
/// after its empty line.
#[test]
fn chunks() {
    check(GOOD);
}

/// A body that breaks the grammar of chunks gets its status and ends the connection, before any of it is handed on.
#[test]
fn broken_chunks() {
    check(BAD);
}

/// No coding but chunked, once and alone, is taken.
#[test]
fn codings() {
    check(CODINGS);
}
