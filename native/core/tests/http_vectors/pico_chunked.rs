//! Points of picohttpparser's tests of its chunked decoder, on ours: the same bodies, in one piece, cut in two at every
//! byte, and byte by byte.

use megaphone_core::http::chunked::ChunkError::{self, Malformed, Overhead, TooLarge};
use megaphone_core::http::chunked::Decoder;
use megaphone_core::limits;

/// What becomes of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is complete; so many bytes after it are not its own.
    Done(usize),
    /// It goes on.
    More,
    Refused(ChunkError),
}

struct Body {
    name: &'static str,
    wire: &'static [u8],
    /// What was decoded before the end.
    body: &'static [u8],
    end: End,
    /// How and why picohttpparser judges differently; empty if it does not.
    differs: &'static str,
}

const fn body(name: &'static str, wire: &'static [u8], body: &'static [u8], end: End) -> Body {
    Body { name, wire, body, end, differs: "" }
}

impl Body {
    const fn differs(mut self, how: &'static str) -> Self {
        self.differs = how;
        self
    }
}

const BODIES: &[Body] = &[
    body("one chunk", b"9\r\nmegaphone\r\n0\r\n\r\n", b"megaphone", End::Done(0)),
    body("two chunks", b"4\r\nmega\r\n5\r\nphone\r\n0\r\n\r\n", b"megaphone", End::Done(0)),
    body("an extension", b"4;note=x\r\nmega\r\n5\r\nphone\r\n0\r\n\r\n", b"megaphone", End::Done(0)),
    body("an extension behind a space", b"4 ; note\r\nmega\r\n0\r\n\r\n", b"", End::Refused(Malformed))
        .differs("picohttpparser skips the space; RFC 9112, 7.1.1 has it only for the sake of old senders"),
    body("trailer fields", b"4\r\nmega\r\n0\r\na: b\r\nc: d\r\n\r\n", b"mega", End::Done(0)),
    body("the last chunk without the empty line", b"4\r\nmega\r\n0\r\n", b"mega", End::More)
        .differs("picohttpparser can leave the trailer to its user, and is done here; the same if it reads the trailer"),
    body("an extension, and no empty line", b"4;note=x\r\nmega\r\n0\r\n", b"mega", End::More),
    body("trailer fields without the empty line", b"4\r\nmega\r\n0\r\na: b\r\n", b"mega", End::More),
    body("a request behind the body", b"2\r\nab\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"ab", End::Done(16)),
    body("a size that is none", b"y\r\nabc", b"", End::Refused(Malformed)),
    body("a size with a letter too much", b"1g\r\na\r\n0\r\n", b"", End::Refused(Malformed)),
    body("the largest size of 64 bits", b"1\r\na\r\nffffffffffffffff\r\nabc", b"a", End::Refused(TooLarge))
        .differs("picohttpparser has no limit and waits for the rest; here the body is collected, and has one"),
    body("a size of more than 64 bits", b"1\r\na\r\n10000000000000000\r\nabc", b"a", End::Refused(Malformed)),
    body("lone LF after a size", b"4\nmega\r\n0\r\n\r\n", b"", End::Refused(Malformed)),
    body("lone LF after data", b"4\r\nmega\n0\r\n\r\n", b"mega", End::Refused(Malformed)),
    body("lone LF after the last data", b"1\r\na\r\n4\r\nmega\n0\r\n\r\n", b"amega", End::Refused(Malformed)),
    body("lone LF after the last size", b"4\r\nmega\r\n0\n\r\n", b"mega", End::Refused(Malformed)),
    body("CR and another byte after a size", b"4\rX\nmega\r\n0\r\n\r\n", b"", End::Refused(Malformed)),
    body("lone LF as the empty line", b"4\r\nmega\r\n0\r\n\n", b"mega", End::Refused(Malformed))
        .differs("picohttpparser takes it, as it does in heads; here lone LF ends no line anywhere"),
    body("lone LF after trailer fields", b"4\r\nmega\r\n0\r\na: b\nc: d\n\n", b"mega", End::Refused(Malformed))
        .differs("picohttpparser takes it, as it does in heads"),
];

/// Decodes the pieces one after the other, as far as there is anything to decode.
fn decode(pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let (mut decoder, mut out, mut left) = (Decoder::new(), Vec::new(), 0);
    for piece in pieces {
        match decoder.decode(piece, &mut out, limits::MAX_CHUNKED_BODY) {
            Ok(used) => left += piece.len() - used,
            Err(error) => return (out, End::Refused(error)),
        }
    }
    (out, if decoder.is_done() { End::Done(left) } else { End::More })
}

/// Each body is decoded to the same bytes and the same end, however it comes.
#[test]
fn bodies() {
    for Body { name, wire, body, end, .. } in BODIES {
        let expected = (body.to_vec(), *end);
        assert_eq!(decode(&[wire]), expected, "{name}");
        for cut in 1..wire.len() {
            let (first, second) = wire.split_at(cut);
            assert_eq!(decode(&[first, second]), expected, "{name}: cut at {cut}");
        }
        assert_eq!(decode(&wire.chunks(1).collect::<Vec<_>>()), expected, "{name}: byte by byte");
    }
}

/// Every difference that the table names is one, so the table holds some of both kinds, and no name twice.
#[test]
fn the_table_names_differences() {
    let names: std::collections::BTreeSet<_> = BODIES.iter().map(|body| body.name).collect();
    assert_eq!(names.len(), BODIES.len());
    let different = BODIES.iter().filter(|body| !body.differs.is_empty()).count();
    assert!(different > 0 && different < BODIES.len());
}

/// The end of a body of so many chunks of a length, with an extension on each.
fn many(length: usize, count: usize, extension: &str) -> End {
    let chunk = format!("{length:x}{extension}\r\n{}\r\n", "A".repeat(length));
    decode(&[chunk.repeat(count).as_bytes(), b"0\r\n\r\n"]).1
}

/// Extensions are limited by their bytes in a whole body, not by their share of it, and chunks of one byte are taken:
/// picohttpparser refuses both by the share, which needs no limit of the body; here the body has a limit.
#[test]
fn overhead() {
    assert_eq!(many(100, 10_000, ""), End::Done(0));
    assert_eq!(many(1, 100_000, ""), End::Done(0));
    let most = limits::MAX_CHUNK_OVERHEAD;
    assert_eq!(many(10, most, ";x"), End::Done(0));
    assert_eq!(many(10, most + 1, ";x"), End::Refused(Overhead));
    assert_eq!(many(1, limits::MAX_CHUNKED_BODY, ""), End::Done(0));
    assert_eq!(many(1, limits::MAX_CHUNKED_BODY + 1, ""), End::Refused(TooLarge));
}
