//! What a vector is, and how it is checked.

use std::collections::BTreeSet;

use megaphone_core::client::Timer;
use megaphone_core::http::chunked::{ChunkError, Decoder};
use megaphone_core::http::{Body, HeadError, parse};
use megaphone_core::limits;

use crate::world::{ANSWER, Exchange, contains};

/// Bytes of a client, and what becomes of them.
pub(crate) struct Vector {
    /// What it shows.
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    /// The requests that are handed on.
    pub(crate) taken: &'static [Taken],
    /// How the connection stands after them.
    pub(crate) then: Then,
    /// How and why the other parser judges differently; empty if it does not.
    pub(crate) differs: &'static str,
}

/// A request that is handed on: method and target as the node gets them, how the client delimited the body, the body.
pub(crate) struct Taken(pub(crate) &'static str, pub(crate) Body, pub(crate) &'static str);

/// How a connection stands after the requests of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request may come.
    Open,
    /// In the middle of a request, or of empty lines before one.
    Waits,
    /// The last request was the last one of this connection: it ends, and what follows is dropped.
    Ends,
    /// A head is refused.
    Refused(HeadError),
    /// A chunked body is refused.
    BadChunk(ChunkError),
    /// It has become a tunnel, and so much has gone through.
    Tunnel(&'static str),
}

pub(crate) const fn vector(
    name: &'static str,
    bytes: &'static [u8],
    taken: &'static [Taken],
    then: Then,
) -> Vector {
    Vector { name, bytes, taken, then, differs: "" }
}

/// A head that is refused at once.
pub(crate) const fn refused(name: &'static str, bytes: &'static [u8], error: HeadError) -> Vector {
    vector(name, bytes, &[], Then::Refused(error))
}

impl Vector {
    pub(crate) const fn differs(mut self, how: &'static str) -> Self {
        self.differs = how;
        self
    }
}

/// What the head parser and the decoder make of bytes: how each body is delimited, and what follows.
fn framed(bytes: &[u8]) -> (Vec<Body>, Option<Then>) {
    let (mut at, mut bodies) = (0, Vec::new());
    while at < bytes.len() {
        let head = match parse(&bytes[at..], &mut 0) {
            Ok(Some(head)) => head,
            Ok(None) => return (bodies, Some(Then::Waits)),
            Err(error) => return (bodies, Some(Then::Refused(error))),
        };
        at += head.len;
        let rest = &bytes[at..];
        let used = match head.body {
            Body::None => Some(0),
            Body::Length(length) => usize::try_from(length).ok().filter(|length| *length <= rest.len()),
            Body::Chunked => {
                let mut decoder = Decoder::new();
                match decoder.decode(rest, &mut Vec::new(), limits::MAX_CHUNKED_BODY) {
                    Ok(used) => decoder.is_done().then_some(used),
                    Err(error) => return (bodies, Some(Then::BadChunk(error))),
                }
            }
        };
        let Some(used) = used else { return (bodies, Some(Then::Waits)) };
        at += used;
        bodies.push(head.body);
        if head.upgrade {
            return (bodies, None);
        }
        if !head.keep_alive {
            return (bodies, Some(Then::Ends));
        }
    }
    (bodies, Some(Then::Open))
}

/// All that can be seen of an exchange from outside, with the bytes given in these pieces.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Vec<u8>>,
    answers: Vec<u8>,
    refused: Vec<u16>,
    closes: usize,
    opened: usize,
    timer: Timer,
    ended: bool,
    tunneled: Option<Vec<u8>>,
}

fn exchanged(pieces: &[&[u8]]) -> (Exchange, Outcome) {
    let mut exchange = Exchange::default();
    for piece in pieces {
        exchange.input(piece);
    }
    let outcome = Outcome {
        requests: exchange.requests.clone(),
        answers: exchange.answers(),
        refused: exchange.world.refused.clone(),
        closes: exchange.world.closed.len(),
        opened: exchange.world.opened,
        timer: exchange.client.timer(),
        ended: exchange.world.ended,
        tunneled: exchange.tunneled().map(<[u8]>::to_vec),
    };
    (exchange, outcome)
}

/// Checks every vector of a table.
pub(crate) fn check(table: &[Vector]) {
    let names: BTreeSet<_> = table.iter().map(|vector| vector.name).collect();
    assert!(!table.is_empty() && names.len() == table.len(), "two vectors of one name");
    for vector in table {
        let named = ["llhttp", "picohttpparser"].iter().any(|parser| vector.differs.starts_with(parser));
        assert!(vector.differs.is_empty() || named, "{}: who judges differently?", vector.name);
        check_framing(vector);
        let (exchange, whole) = exchanged(&[vector.bytes]);
        check_outcome(vector, &whole);
        check_end(vector, exchange);
        for cut in 1..vector.bytes.len() {
            let (first, second) = vector.bytes.split_at(cut);
            assert_eq!(exchanged(&[first, second]).1, whole, "{}: cut at {cut}", vector.name);
        }
        let single: Vec<&[u8]> = vector.bytes.chunks(1).collect();
        assert_eq!(exchanged(&single).1, whole, "{}: byte by byte", vector.name);
    }
}

/// The parser alone says what the vector says, however a head is cut.
fn check_framing(vector: &Vector) {
    let (bodies, then) = framed(vector.bytes);
    let expected: Vec<Body> = vector.taken.iter().map(|taken| taken.1).collect();
    assert_eq!(bodies, expected, "{}: framing", vector.name);
    if let Some(then) = then {
        assert_eq!(then, vector.then, "{}", vector.name);
    }
    let whole = parse(vector.bytes, &mut 0);
    let mut slowly = 0;
    for cut in 0..=vector.bytes.len() {
        let part = &vector.bytes[..cut];
        let mut scanned = 0;
        match parse(part, &mut scanned) {
            Ok(None) => assert_eq!(parse(vector.bytes, &mut scanned), whole, "{}: cut at {cut}", vector.name),
            early => assert_eq!(early, whole, "{}: judged at {cut}", vector.name),
        }
        match parse(part, &mut slowly) {
            Ok(None) => {}
            end => {
                assert_eq!(end, whole, "{}: byte by byte", vector.name);
                break;
            }
        }
    }
}

fn check_outcome(vector: &Vector, whole: &Outcome) {
    let name = vector.name;
    let got: Vec<(String, String)> = whole.requests.iter().map(|request| split(request)).collect();
    let expected: Vec<(String, String)> =
        vector.taken.iter().map(|taken| (taken.0.to_owned(), taken.2.to_owned())).collect();
    assert_eq!(got, expected, "{name}: requests");
    assert_eq!(whole.opened, usize::from(!got.is_empty()), "{name}: one virtual connection, if any");
    let answers = ANSWER.repeat(got.len());
    assert!(whole.answers.starts_with(&answers), "{name}: each request is answered, in order");
    let own = &whole.answers[answers.len()..];
    let status = match vector.then {
        Then::Refused(error) => Some(error.status()),
        Then::BadChunk(error) => Some(error.status()),
        _ => None,
    };
    if let Some(status) = status {
        assert!(own.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{name}: status {status}");
        assert!(contains(own, b"\r\nConnection: close\r\n"), "{name}: the answer says that it is the last");
        assert_eq!(whole.refused, [status], "{name}: refusals");
    } else {
        assert!(own.is_empty() && whole.refused.is_empty(), "{name}: nothing is refused");
    }
}

/// Method and target of a request as the node gets it, and its body, which is as long as its only length says.
fn split(request: &[u8]) -> (String, String) {
    let head = parse(request, &mut 0).expect("the node takes it").expect("the node gets all of it");
    let body = &request[head.len..];
    let length = match head.body {
        Body::None => 0,
        Body::Length(length) => length,
        Body::Chunked => panic!("the node is never sent chunks"),
    };
    assert_eq!(body.len() as u64, length, "the node and the connection manager agree on the length");
    let line = String::from_utf8_lossy(&request[..head.target.end]).into_owned();
    (line, String::from_utf8_lossy(body).into_owned())
}

/// The connection stands as the vector says; if that is at its end, nothing that still comes has any effect.
fn check_end(vector: &Vector, mut exchange: Exchange) {
    let name = vector.name;
    let timer = exchange.client.timer();
    match vector.then {
        Then::Open => assert_eq!(timer, Timer::Idle, "{name}: open"),
        Then::Waits => assert!(matches!(timer, Timer::Head | Timer::Body), "{name}: {timer:?}"),
        Then::Tunnel(bytes) => assert_eq!(exchange.tunneled(), Some(bytes.as_bytes()), "{name}: tunnel"),
        Then::Ends | Then::Refused(_) | Then::BadChunk(_) => {
            assert!(exchange.world.ended && exchange.client.is_ending(), "{name}: ended");
            assert_eq!(exchange.world.closed.len(), exchange.world.opened, "{name}: the node is told");
            let before = (exchange.requests.len(), exchange.world.written.len());
            exchange.input(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
            let after = (exchange.requests.len(), exchange.world.written.len());
            assert_eq!(before, after, "{name}: what follows is dropped");
            assert!(exchange.world.data.is_empty() && exchange.client.heap() == 0, "{name}: nothing is kept");
        }
    }
    let ends = matches!(vector.then, Then::Ends | Then::Refused(_) | Then::BadChunk(_));
    assert_eq!(exchange.world.ended, ends, "{name}: end of the stream");
}
