//! As much of HTTP/1.1 as a client needs that knows its server.

/// Request headers that a browser would add, some 500 bytes.
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
    Accept: */*\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Origin: http://localhost\r\nReferer: http://localhost/chat/index.html\r\nSec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n";

/// A POST of a body.
#[must_use]
pub fn post(path: &str, host: &str, body: &str, browser: bool) -> Vec<u8> {
    let more = if browser { BROWSER } else { "" };
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml; charset=utf-8\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A GET.
#[must_use]
pub fn get(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: megaphone-clients\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// 200, for one.
    pub status: u16,
    /// Its own length in bytes.
    pub length: usize,
    /// The body's.
    pub body: usize,
    /// Whether the connection ends with it.
    pub close: bool,
    /// The value of Sec-WebSocket-Accept.
    pub accept: Option<String>,
}

/// Reads the head of an answer, once it is complete.
///
/// # Errors
///
/// When it is no answer, or one without the length of its body.
pub fn head(input: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(input).map_err(|error| format!("no HTTP answer: {error}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or(0);
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let body = match value("content-length").map(str::parse) {
        Some(Ok(body)) => body,
        None if status == 101 => 0,
        _ => return Err(format!("an answer ({status}) without the length of its body")),
    };
    let close = value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
    let accept = value("sec-websocket-accept").map(str::to_owned);
    Ok(Some(Head { status, length, body, close, accept }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_head_when_it_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        for end in 0..text.len() - 5 {
            assert_eq!(head(&text[..end]), Ok(None));
        }
        let expected = Head { status: 200, length: text.len() - 5, body: 5, close: true, accept: None };
        assert_eq!(head(text), Ok(Some(expected)));
    }

    #[test]
    fn wants_a_length() {
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn says_how_long_the_body_is() {
        let request = String::from_utf8(post("/bosh", "localhost", "<body/>", false)).expect("text");
        assert!(request.starts_with("POST /bosh HTTP/1.1\r\n"));
        assert!(request.ends_with("Content-Length: 7\r\n\r\n<body/>"));
    }
}
