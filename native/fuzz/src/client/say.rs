//! What the client of a script says: words of requests, whole requests, and any bytes.

use megaphone_core::limits::{DATA_CHUNK, MAX_CHUNKED_BODY, MAX_HEAD, SMALL_BODY};

use crate::Script;

const WORDS: [&str; 24] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /bosh HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
    "67890",
    "POST /b HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "de\r\n0\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    "PATCH / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET http://b:1?q HTTP/1.0\r\nX-Forwarded-For: c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Own\r\nX-Own: 1\r\nCookie: \t2 \r\n\r\n",
    "POST /none HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    "PUT /long HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n",
    "PUT /endless HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 104857600\r\n\r\n",
    "DELETE / HTTP/1.1\r\n",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "GET",
    " /x HTTP/1.1\r\n",
    "BAD\n",
    "1;x=y\r\nz\r\n0\r\nTrailer: t\r\n\r\n",
];

pub(super) fn words(script: &mut Script<'_>) -> Vec<u8> {
    let which = script.below(32);
    if let Some(words) = WORDS.get(which) {
        return words.as_bytes().to_vec();
    }
    match which {
        24 => {
            let length = body_length(script);
            let head = format!("POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            [head.into_bytes(), filler(length)].concat()
        }
        25 => {
            let length = body_length(script);
            format!("POST /head HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes()
        }
        26 => {
            let length = script.size(&[DATA_CHUNK, 100_000, MAX_CHUNKED_BODY]);
            let data = filler(length);
            [format!("{length:x}\r\n").as_bytes(), &data, if length > 0 { b"\r\n" } else { b"" }].concat()
        }
        27 => filler(script.size(&[300, DATA_CHUNK, 70_000])),
        28 => {
            // A head around its limit.
            let length = script.size(&[MAX_HEAD, MAX_HEAD - 8]);
            let start = b"GET /big HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
            let rest = vec![b'x'; length.saturating_sub(start.len() + 4)];
            [start, rest, b"\r\n\r\n".to_vec()].concat()
        }
        _ => {
            let count = script.below(64);
            (0..count).map(|_| script.byte()).collect()
        }
    }
}

fn body_length(script: &mut Script<'_>) -> usize {
    script.size(&[MAX_HEAD, SMALL_BODY as usize, 100_000])
}

/// Bytes each of which differs from the next.
fn filler(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
}
