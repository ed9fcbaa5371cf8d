//! HTTP packets as `erlang:decode_packet/3` has them: one line in, one packet out.
//!
//! The line comes complete with its line end (and its continuation lines). What is returned borrows from it.
//! `erlang:decode_packet/3` is the oracle: equal results for the types `http_bin` and `httph_bin`, property-tested
//! through the NIF. [`Whole`] is a whole strictly valid packet at once. `erlang:decode_packet/3` is lenient where RFC 9112
//! is strict; the strict parser is [`http::head`](crate::http::head).

mod names;
mod whole;

pub use names::{FIELDS, METHODS, OTHER_FIELDS, USUAL_FIELDS, field_index, method_index};
pub use whole::{Field, Fields, Known, Span, Target, Whole};

/// A decoded packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpPacket<'a> {
    /// `{http_request, Method, Uri, Version}`
    Request {
        /// One of [`METHODS`] is given to Erlang as an atom, others as strings.
        method: &'a [u8],
        /// The request target.
        uri: Uri<'a>,
        /// Major and minor version; 0.9 when the line has none.
        version: (u32, u32),
    },
    /// `{http_response, Version, Status, Phrase}`
    Response {
        /// Major and minor version.
        version: (u32, u32),
        /// Status code.
        status: u32,
        /// Reason phrase, perhaps empty.
        phrase: &'a [u8],
    },
    /// `{http_header, Index, Name, Original, Value}`
    Field {
        /// The name as received.
        name: &'a [u8],
        /// The value, blanks before it removed.
        value: &'a [u8],
    },
    /// `http_eoh`
    EndOfHead,
    /// `{http_error, Line}`: the line is none of these.
    Error(&'a [u8]),
}

/// A request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uri<'a> {
    /// `'*'`
    Star,
    /// `{abs_path, Path}`
    Path(&'a [u8]),
    /// `{absoluteURI, http | https, Host, Port | undefined, Path}`
    Absolute {
        /// https rather than http.
        https: bool,
        /// The host.
        host: &'a [u8],
        /// The port, if there is one other than 0.
        port: Option<u32>,
        /// The path, `/` when there is none.
        path: &'a [u8],
    },
    /// `{scheme, Scheme, Rest}`: split at the first colon.
    Scheme(&'a [u8], &'a [u8]),
    /// Something else.
    Other(&'a [u8]),
}

/// Longest field name that is written in `Title-Case` for Erlang; longer ones stay as they came.
pub const MAX_TITLE_CASE: usize = 50;

/// Writes a field name of at most [`MAX_TITLE_CASE`] bytes as Erlang has it: each word's first letter upper case, the
/// others lower case. What is longer is cut.
pub fn title_case<'a>(name: &[u8], out: &'a mut [u8; MAX_TITLE_CASE]) -> &'a [u8] {
    let mut upper = true;
    for (to, byte) in out.iter_mut().zip(name) {
        *to = if upper { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        // Only a dash inside a word's lower-case part starts a new word; a leading one does not.
        upper = !upper && *byte == b'-';
    }
    &out[..name.len().min(MAX_TITLE_CASE)]
}

/// Decodes a start line (request or status line).
#[must_use]
pub fn start_line(line: &[u8]) -> HttpPacket<'_> {
    let content = without_end(line);
    let packet = if content.starts_with(b"HTTP/") { status_line(content) } else { request_line(content) };
    packet.unwrap_or(HttpPacket::Error(line))
}

/// Decodes a field line or the empty line that ends the head.
#[must_use]
pub fn field_line(line: &[u8]) -> HttpPacket<'_> {
    let content = without_end(line);
    if content.is_empty() {
        return HttpPacket::EndOfHead;
    }
    let end = content.iter().position(|byte| is_separator(*byte));
    match end {
        Some(end) if content[end] == b':' => {
            HttpPacket::Field { name: &content[..end], value: skip_blanks(&content[end + 1..]) }
        }
        _ => HttpPacket::Error(line),
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    match line {
        [content @ .., b'\r', _] | [content @ .., b'\n'] => content,
        _ => line,
    }
}

fn status_line(content: &[u8]) -> Option<HttpPacket<'_>> {
    let (major, rest) = number(&content[5..])?;
    let (minor, rest) = number(rest.strip_prefix(b".")?)?;
    let status = skip_blanks(rest);
    if status.len() == rest.len() {
        return None;
    }
    let (status, rest) = number(status).unwrap_or((0, status));
    let phrase = skip_blanks(rest);
    if phrase.len() == rest.len() && !rest.is_empty() {
        return None;
    }
    Some(HttpPacket::Response { version: (major, minor), status, phrase })
}

fn request_line(content: &[u8]) -> Option<HttpPacket<'_>> {
    let end = content.iter().position(|byte| is_separator(*byte))?;
    let (method, rest) = content.split_at(end);
    if method.is_empty() || !is_blank(rest[0]) {
        return None;
    }
    let rest = skip_blanks(rest);
    let end = rest.iter().position(|byte| is_blank(*byte)).unwrap_or(rest.len());
    let (target, rest) = rest.split_at(end);
    if target.is_empty() {
        return None;
    }
    let rest = skip_blanks(rest);
    let version = if rest.is_empty() {
        (0, 9)
    } else if rest.len() < 8 {
        return None;
    } else {
        let (major, rest) = number(rest.strip_prefix(b"HTTP/")?)?;
        (major, number(rest.strip_prefix(b".")?)?.0)
    };
    Some(HttpPacket::Request { method, uri: uri(target), version })
}

fn uri(target: &[u8]) -> Uri<'_> {
    let scheme = |name: &str| {
        target.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    if target == b"*" {
        Uri::Star
    } else if target.len() <= 1 || target[0] == b'/' {
        Uri::Path(target)
    } else if scheme("http://") {
        absolute(false, &target[7..])
    } else if scheme("https://") {
        absolute(true, &target[8..])
    } else if let Some(colon) = target.iter().position(|byte| *byte == b':') {
        Uri::Scheme(&target[..colon], &target[colon + 1..])
    } else {
        Uri::Other(target)
    }
}

fn absolute(https: bool, rest: &[u8]) -> Uri<'_> {
    let slash = rest.iter().position(|byte| *byte == b'/');
    let (authority, path) = slash.map_or((rest, b"/".as_slice()), |at| rest.split_at(at));
    let colon = authority.iter().position(|byte| *byte == b':');
    let (host, port) =
        colon.map_or((authority, b"".as_slice()), |at| (&authority[..at], &authority[at + 1..]));
    let port = match number(port) {
        Some((port, b"")) if port != 0 => Some(port),
        _ => None,
    };
    Uri::Absolute { https, host, port, path }
}

/// A decimal number at the start, and the rest. Numbers that do not fit stay at the largest: no request has them.
fn number(input: &[u8]) -> Option<(u32, &[u8])> {
    let end = input.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(input.len());
    let (digits, rest) = input.split_at(end);
    let value = digits
        .iter()
        .fold(0_u32, |value, digit| value.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    (!digits.is_empty()).then_some((value, rest))
}

fn skip_blanks(input: &[u8]) -> &[u8] {
    &input[input.iter().position(|byte| !is_blank(*byte)).unwrap_or(input.len())..]
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a byte cannot stand in a method or field name.
const fn is_separator(byte: u8) -> bool {
    byte <= b' '
        || byte >= 128
        || matches!(
            byte,
            b'(' | b')'
                | b'<'
                | b'>'
                | b'@'
                | b','
                | b';'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'='
                | b'{'
                | b'}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_gives_method_target_and_version() {
        let packet = start_line(b"POST /bosh HTTP/1.1\r\n");
        assert_eq!(
            packet,
            HttpPacket::Request { method: b"POST", uri: Uri::Path(b"/bosh"), version: (1, 1) }
        );
        assert_eq!(
            start_line(b"GET http://h:81/p HTTP/1.0\n"),
            HttpPacket::Request {
                method: b"GET",
                uri: Uri::Absolute { https: false, host: b"h", port: Some(81), path: b"/p" },
                version: (1, 0)
            }
        );
        assert_eq!(start_line(b"nonsense\r\n"), HttpPacket::Error(b"nonsense\r\n"));
        assert_eq!(start_line(b"\r\n"), HttpPacket::Error(b"\r\n"));
    }

    #[test]
    fn a_field_line_gives_name_and_value() {
        assert_eq!(field_line(b"host:  a b \r\n"), HttpPacket::Field { name: b"host", value: b"a b " });
        assert_eq!(field_line(b"\r\n"), HttpPacket::EndOfHead);
        assert_eq!(field_line(b"bad name: x\r\n"), HttpPacket::Error(b"bad name: x\r\n"));
        assert_eq!(title_case(b"sEC-websocket-KEY", &mut [0; MAX_TITLE_CASE]), b"Sec-Websocket-Key");
        assert_eq!(field_index(b"content-LENGTH"), Some(37));
    }
}
