//! The answers that the connection manager gives itself. Each ends the connection.

use super::head::HeadError;

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The field that [`close_at`] finds a place for.
pub const CLOSE: &[u8] = b"Connection: close\r\n";

/// Where [`CLOSE`] can be put into a node's answer that starts with `bytes`: behind the status line. `None` for an
/// interim answer or one that switches protocols (1xx), and if the status line is not whole. An answer that says so
/// already may say it twice: the values of a field are a list (RFC 9110, 5.3). Cost: linear in the status line.
#[must_use]
pub fn close_at(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (_, status) = bytes[..end].strip_prefix(b"HTTP/1.")?.split_first()?;
    (status.len() >= 4 && status[0] == b' ' && matches!(status[1], b'2'..=b'5')).then_some(end + 2)
}

/// Seconds after which a client may try again, in answers that say "not now". Long enough for a restart of the node,
/// short enough that a user waits.
pub const RETRY_AFTER: u16 = 5;

/// Appends a complete answer: status line, fields, and `reason` as plain text (left out for HEAD).
///
/// The answer closes the connection, and any origin may read it: without the CORS fields a browser hides the status, and
/// when to try again, from the chat client in the page. 429 and 503 say when that is. `reason` is text of ours, never the peer's.
pub fn write(status: u16, reason: &str, is_head: bool, out: &mut Vec<u8>) {
    let more = match status {
        429 | 503 => format!("Retry-After: {RETRY_AFTER}\r\n"),
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned(),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: Content-Type\r\n\
         Access-Control-Expose-Headers: Retry-After\r\nCache-Control: no-store\r\n{more}Connection: close\r\n\r\n",
        phrase(status),
        reason.len() + 1,
    );
    out.extend_from_slice(head.as_bytes());
    if !is_head {
        out.extend_from_slice(reason.as_bytes());
        out.push(b'\n');
    }
}

/// Appends the answer to a refused head.
pub fn refuse(error: HeadError, out: &mut Vec<u8>) {
    write(error.status(), &error.to_string(), false, out);
}

/// The reason phrase of a status; a general one for a status that is never written here.
#[must_use]
pub fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(status: u16, is_head: bool) -> String {
        let mut out = Vec::new();
        write(status, "why", is_head, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_are_complete() {
        let answer = text(503, false);
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        for field in [
            "Content-Length: 4\r\n",
            "Access-Control-Allow-Origin: *\r\n",
            "Access-Control-Allow-Headers: Content-Type\r\n",
            "Access-Control-Expose-Headers: Retry-After\r\n",
            "Connection: close\r\n",
            "Retry-After: 5\r\n",
        ] {
            assert!(answer.contains(field), "{field}");
        }
        assert!(answer.ends_with("\r\n\r\nwhy\n"));
        assert!(text(429, false).contains("Retry-After: 5\r\n"));
        assert!(!text(400, false).contains("Retry-After: "));
    }

    /// `Connection: close` goes behind the status line of a final answer, and nowhere else.
    #[test]
    fn close_has_its_place() {
        let at = |text: &str| close_at(text.as_bytes());
        assert_eq!(at("HTTP/1.1 200 OK\r\nA: b\r\n\r\n"), Some(17));
        assert_eq!(at("HTTP/1.1 404 \r\n"), Some(15));
        for other in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r",
            "HTTP/1.1 101 Switching Protocols\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.\r\n",
            "HTTP/1.1 \r\n",
            "body\r\n",
        ] {
            assert_eq!(at(other), None, "{other:?}");
        }
    }

    #[test]
    fn head_requests_get_no_body() {
        let (whole, head) = (text(503, false), text(503, true));
        assert_eq!(whole.strip_suffix("why\n"), Some(head.as_str()));
    }

    #[test]
    fn every_refusal_has_a_phrase() {
        for error in [
            HeadError::RequestLine,
            HeadError::BodyTooLarge,
            HeadError::TargetTooLong,
            HeadError::Expectation,
            HeadError::TooLarge,
            HeadError::UnknownCoding,
            HeadError::Version,
        ] {
            let mut out = Vec::new();
            refuse(error, &mut out);
            let answer = String::from_utf8(out).unwrap();
            assert!(answer.contains(&error.to_string()), "{answer}");
            assert_ne!(phrase(error.status()), "Error");
        }
    }
}
