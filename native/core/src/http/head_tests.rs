use proptest::prelude::*;

use super::*;

fn head(request: &str) -> Result<Option<Head>, HeadError> {
    parse(request.as_bytes(), &mut 0)
}

/// A request with `Host` and the given further lines.
fn with(lines: &str) -> Result<Option<Head>, HeadError> {
    head(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

fn ok(request: &str) -> Head {
    head(request).unwrap().unwrap()
}

#[test]
fn describes_a_request() {
    let text = "\r\nPOST /bosh HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
    let got = ok(&format!("{text}hello"));
    assert_eq!(got.len, text.len());
    assert_eq!(got.body, Body::Length(5));
    assert!(got.keep_alive && got.expect_continue && got.body_expected && !got.upgrade && !got.is_head);
    assert_eq!(&text[got.method], "POST");
    assert_eq!(&text[got.target], "/bosh");
}

#[test]
fn tells_how_the_connection_goes_on() {
    for (request, keep_alive) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x ,Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        assert_eq!(ok(request).keep_alive, keep_alive, "{request}");
    }
}

#[test]
fn knows_a_websocket_upgrade() {
    const LINES: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let request = |start: &str, lines: &str| ok(&format!("{start}\r\nHost: a\r\n{lines}\r\n")).upgrade;
    assert!(request("GET /ws HTTP/1.1", LINES));
    assert!(!request("POST /ws HTTP/1.1", LINES));
    assert!(!request("GET /ws HTTP/1.0", LINES));
    assert!(!request("GET /ws HTTP/1.1", "Upgrade: websocket\r\n"));
    assert!(!request("GET /ws HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n"));
    assert!(!request("GET /ws HTTP/1.1", &format!("{LINES}Content-Length: 1\r\n")));
}

#[test]
fn refuses_malformed_requests() {
    use HeadError as E;
    for (request, error) in [
        ("\x16\x03\x01", E::RequestLine),
        ("(GET / HTTP/1.1\r\n", E::RequestLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", E::LineEnd),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
        ("GET /\r\nHost: a\r\n\r\n", E::RequestLine),
        ("GET / FTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", E::Version),
        ("PRI * HTTP/2.0\r\n\r\n", E::Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", E::Version),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET http://u@h/x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("GET ftp://h/x HTTP/1.1\r\nHost: a\r\n\r\n", E::Target),
        ("CONNECT h:80 HTTP/1.1\r\nHost: a\r\n\r\n", E::Connect),
        ("GET / HTTP/1.1\r\n\r\n", E::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", E::Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", E::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", E::Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", E::Host),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", E::TransferEncoding),
        ("GET / HTTP/1.1\n", E::LineEnd),
        ("\n", E::LineEnd),
        ("\rX", E::LineEnd),
        ("\r\n\r\n\r\n\r\n\r\n", E::EmptyLines),
    ] {
        assert_eq!(head(request), Err(error), "{request:?}");
    }
    assert!(matches!(
        parse(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", &mut 0),
        Err(E::Target | E::RequestLine)
    ));
}

#[test]
fn refuses_malformed_fields() {
    use HeadError as E;
    for (lines, error) in [
        ("Content-Length: +5\r\n", E::ContentLength),
        ("Content-Length: -5\r\n", E::ContentLength),
        ("Content-Length: 5, 5\r\n", E::ContentLength),
        ("Content-Length:\r\n", E::ContentLength),
        ("Content-Length: 0x5\r\n", E::ContentLength),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", E::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", E::BodyTooLarge),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", E::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", E::LengthAndCoding),
        ("Transfer-Encoding: gzip, chunked\r\n", E::UnknownCoding),
        ("Transfer-Encoding: identity\r\n", E::UnknownCoding),
        ("Transfer-Encoding: xchunked\r\n", E::UnknownCoding),
        ("Transfer-Encoding:\r\n", E::UnknownCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", E::TransferEncoding),
        ("Transfer-Encoding: chun\x0bked\r\n", E::FieldValue),
        ("Content-Length : 5\r\n", E::FieldName),
        ("Content Length: 5\r\n", E::FieldName),
        (" X: y\r\n", E::FieldName),
        ("X: y\r\n z\r\n", E::FieldName),
        ("X: y\r\n\tz\r\n", E::FieldName),
        (": y\r\n", E::FieldName),
        ("novalue\r\n", E::FieldName),
        ("X: a\x00b\r\n", E::FieldValue),
        ("X: a\x7fb\r\n", E::FieldValue),
        ("X: a\nY: b\r\n", E::LineEnd),
        ("Expect: tea\r\n", E::Expectation),
    ] {
        assert_eq!(with(lines), Err(error), "{lines:?}");
    }
    // A lone CR inside a line, as a whole or at its end.
    for lines in ["X: a\rb\r\n", "X: a\r\r\n", "X\r: a\r\n"] {
        assert_eq!(with(lines).unwrap_err().status(), 400, "{lines:?}");
    }
}

#[test]
fn holds_the_limits() {
    let sized = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        let fill = "x".repeat(length - start.len() - 4);
        head(&format!("{start}{fill}\r\n\r\n"))
    };
    assert!(sized(limits::MAX_HEAD - 1).unwrap().is_some());
    assert!(sized(limits::MAX_HEAD).unwrap().is_some());
    assert_eq!(sized(limits::MAX_HEAD + 1), Err(HeadError::TooLarge));

    let many = |count: usize| with(&"X: y\r\n".repeat(count - 1));
    assert!(many(limits::MAX_HEADERS - 1).is_ok());
    assert!(many(limits::MAX_HEADERS).is_ok());
    assert_eq!(many(limits::MAX_HEADERS + 1), Err(HeadError::TooManyFields));

    let target =
        |length: usize| head(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1)));
    assert!(target(limits::MAX_TARGET).is_ok());
    assert_eq!(target(limits::MAX_TARGET + 1), Err(HeadError::TargetTooLong));
    assert_eq!(head(&"x".repeat(limits::MAX_HEAD)), Err(HeadError::TargetTooLong));
    assert_eq!(head(&"x".repeat(limits::MAX_HEAD - 1)), Ok(None));

    let empty = |count: usize| head(&format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(count)));
    assert!(empty(limits::MAX_EMPTY_LINES).is_ok());
    assert_eq!(empty(limits::MAX_EMPTY_LINES + 1), Err(HeadError::EmptyLines));
}

#[test]
fn byte_by_byte_is_linear() {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(limits::MAX_HEAD - 100));
    let mut scanned = 0;
    for end in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..end], &mut scanned), Ok(None));
        // The next search starts where this one ended, except for the start of the request.
        assert!(scanned == end || end < 2);
    }
    assert!(parse(text.as_bytes(), &mut scanned).unwrap().is_some());
}

/// Requests, most of them valid, with a few of the spices that parsers disagree about.
fn requests() -> impl Strategy<Value = String> {
    let lines = prop::sample::select(vec![
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "X: y",
        "Host: b",
        "X : y",
        " fold",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "X: \u{e4}\t ",
        "",
    ]);
    let ends = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]);
    let line = (lines, ends).prop_map(|(line, end)| format!("{line}{end}"));
    let starts = prop::sample::select(vec!["", "\r\n", "\r\n\r\n"]);
    (starts, prop::collection::vec(line, 0..6))
        .prop_map(|(start, lines)| format!("{start}GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat()))
}

proptest! {
    /// However the bytes are cut, the outcome is that of the whole, and it never comes before its cause.
    #[test]
    fn cuts_change_nothing(text in requests()) {
        let bytes = text.as_bytes();
        let whole = parse(bytes, &mut 0);
        for cut in 0..=bytes.len() {
            let mut scanned = 0;
            match parse(&bytes[..cut], &mut scanned) {
                Ok(None) => prop_assert_eq!(&parse(bytes, &mut scanned), &whole),
                early => prop_assert_eq!(&early, &whole),
            }
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, &mut 0);
    }

    /// A head that is accepted is accepted again after it was rewritten, and then says the same.
    #[test]
    fn rewriting_keeps_the_meaning(text in requests()) {
        if let Ok(Some(first)) = parse(text.as_bytes(), &mut 0) {
            let mut out = Vec::new();
            crate::http::rewrite::start(text.as_bytes(), &first, &mut out);
            crate::http::rewrite::finish(crate::http::rewrite::length(&first), &mut out);
            let second = parse(&out, &mut 0).unwrap().unwrap();
            prop_assert_eq!(second.len, out.len());
            prop_assert_eq!(second.keep_alive, first.keep_alive);
            prop_assert_eq!(second.upgrade, first.upgrade);
            if first.body != Body::Chunked {
                prop_assert_eq!(second.body, first.body);
            }
        }
    }
}
