//! Request heads: nothing is accepted that a naive strict check refuses, a head that comes in pieces is judged as one
//! that comes at once, and what is written anew for the node is a head again, of the same request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::http::head::parse_rewritten;
use megaphone_core::http::{Body, Head, HeadError, parse, rewrite};
use megaphone_core::limits::{MAX_EMPTY_LINES, MAX_HEAD, MAX_HEADERS, MAX_TARGET};
use megaphone_fuzz::{Script, pieces};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let seed = script.byte();
    let input = script.rest();
    let whole = parse(input, &mut 0);
    assert_eq!(in_pieces(input, seed), whole, "cuts");
    match whole {
        Ok(Some(head)) => {
            assert_eq!(parse(&input[..head.len], &mut 0), Ok(Some(head.clone())), "what follows matters");
            assert_eq!(parse(&input[..head.len - 1], &mut 0), Ok(None), "complete before its end");
            check(&input[..head.len], &head);
            written_anew(input, &head);
        }
        Ok(None) => assert!(input.len() < MAX_HEAD + 2 * MAX_EMPTY_LINES),
        Err(error) => {
            assert!((400..600).contains(&error.status()) && !error.to_string().is_empty());
            let longer = [input, b"\r\n\r\n"].concat();
            assert!(parse(&longer, &mut 0).is_err(), "accepted after it was refused");
        }
    }
});

/// Parses as a connection does: again with each piece that comes.
fn in_pieces(input: &[u8], seed: u8) -> Result<Option<Head>, HeadError> {
    let (mut there, mut scanned) = (0, 0);
    for piece in pieces(input, seed) {
        there += piece.len();
        match parse(&input[..there], &mut scanned) {
            Ok(None) => assert!(scanned <= there),
            end => return end,
        }
    }
    Ok(None)
}

/// RFC 9112, line by line, and this project's own refusals.
fn check(text: &[u8], head: &Head) {
    let text = str::from_utf8(text).map_or_else(|_| latin1(text), str::to_owned);
    let start = text.trim_start_matches("\r\n");
    assert!(text.len() - start.len() <= 2 * MAX_EMPTY_LINES && start.len() <= MAX_HEAD);
    let lines: Vec<&str> = start.split("\r\n").collect();
    let [request, fields @ .., "", ""] = &lines[..] else { panic!("does not end with an empty line") };
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "stray line ends");
    let words: Vec<&str> = request.split(' ').collect();
    let [method, target, version] = words[..] else { panic!("{request}") };
    assert!(is_token(method) && method != "CONNECT", "{method}");
    assert!(!target.is_empty() && target.len() <= MAX_TARGET && target.bytes().all(|b| b.is_ascii_graphic()));
    assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "{version}");
    let minor = version.ends_with('1');
    assert_eq!(head.version_minor == 1, minor);
    assert!(fields.len() <= MAX_HEADERS);
    let fields: Vec<(String, &str)> = fields
        .iter()
        .map(|field| {
            let (name, value) = field.split_once(':').expect("a field without a colon");
            assert!(is_token(name), "{name}");
            assert!(value.chars().all(|c| c == '\t' || !c.is_ascii_control()), "{value}");
            (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']))
        })
        .collect();
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|field| field.0 == name).map(|field| field.1).collect()
    };
    let one = |name: &str| {
        assert!(all(name).len() <= 1, "more than one {name}");
        all(name).first().copied()
    };
    let has = |name: &str, token: &str| {
        let all = all(name).join(",");
        all.split(',').any(|have| have.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    };
    let host = one("host");
    assert!(host.is_some() || !minor, "no host");
    assert!(!host.unwrap_or_default().contains([' ', '\t', '/', '?', '#', '@']), "{host:?}");
    let body = match (one("content-length"), one("transfer-encoding")) {
        (None, None) => Body::None,
        (Some(length), None) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{length}");
            Body::Length(length.parse().expect("a length"))
        }
        (None, Some(coding)) => {
            assert!(minor && coding.eq_ignore_ascii_case("chunked"), "{coding}");
            Body::Chunked
        }
        both => panic!("{both:?}"),
    };
    assert_eq!(head.body, body);
    assert_eq!(head.keep_alive, minor && !has("connection", "close"));
    let upgrade = minor
        && method == "GET"
        && matches!(body, Body::None | Body::Length(0))
        && has("connection", "upgrade")
        && has("upgrade", "websocket");
    assert_eq!(head.upgrade, upgrade);
    assert!(all("expect").iter().all(|value| value.eq_ignore_ascii_case("100-continue")));
    assert_eq!(head.expect_continue, minor && !all("expect").is_empty());
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The head as the node gets it is taken by the node, means the same request, and has nothing in it that is the
/// client's own.
fn written_anew(input: &[u8], head: &Head) {
    let length = if head.body == Body::Chunked { Some(7) } else { rewrite::length(head) };
    let anew = rewritten(input, head, length);
    let again = parse_rewritten(&anew, &mut 0).expect("refused").expect("incomplete");
    assert_eq!(again.len, anew.len());
    check_limits_aside(&anew);
    assert_eq!(again.version_minor, 1);
    assert_eq!(anew[again.method.clone()], input[head.method.clone()]);
    assert_eq!((again.upgrade, again.expect_continue), (head.upgrade, false));
    assert_eq!(again.keep_alive, head.keep_alive || head.upgrade);
    let expected = match (head.body, length) {
        (Body::None, None) => Body::None,
        (Body::None, Some(0)) if head.body_expected => Body::Length(0),
        (Body::Length(length), _) => Body::Length(length),
        (Body::Chunked, _) => Body::Length(7),
        other => panic!("{other:?}"),
    };
    assert_eq!(again.body, expected);
    let text = latin1(&anew).to_ascii_lowercase();
    for name in [
        "transfer-encoding",
        "expect",
        "te",
        "trailer",
        "forwarded",
        "x-forwarded-for",
        "x-real-ip",
        "keep-alive",
    ] {
        assert!(!text.contains(&format!("\r\n{name}:")), "{name}");
    }
    assert!(text.matches("\r\ncontent-length:").count() <= 1);
    assert_eq!(text.matches("\r\nhost:").count(), 1);
    // Once more changes nothing.
    assert_eq!(latin1(&rewritten(&anew, &again, rewrite::length(&again))), latin1(&anew));
}

fn rewritten(input: &[u8], head: &Head, length: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    rewrite::start(input, head, &mut out);
    rewrite::finish(length, &mut out);
    out
}

/// Every line of what we write ends as it must, and has a colon.
fn check_limits_aside(anew: &[u8]) {
    let text = latin1(anew);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let [_, fields @ .., "", ""] = &lines[..] else { panic!("does not end with an empty line") };
    assert!(fields.iter().all(|field| field.contains(": ") && !field.contains(['\r', '\n'])), "{text}");
}
