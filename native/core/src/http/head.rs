//! One request head: found, checked, described. Nothing is copied and nothing is allocated.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::limits;

/// How the body that follows a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Neither `Content-Length` nor `Transfer-Encoding`: there is no body.
    None,
    /// `Content-Length`, in bytes; 0 is possible.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A complete, valid request head, described by what the connection needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, with the empty lines before it and the empty line that ends it.
    pub len: usize,
    /// How the body is delimited.
    pub body: Body,
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    pub version_minor: u8,
    /// Whether another request may follow on this connection. Never after HTTP/1.0: its `keep-alive` was never
    /// standardised, and with an intermediary in the way each side may believe something else.
    pub keep_alive: bool,
    /// A valid request to become a WebSocket: GET, HTTP/1.1, no body, `Connection: upgrade`, `Upgrade: websocket`.
    pub upgrade: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The method is HEAD.
    pub is_head: bool,
    /// The method is POST, PUT or PATCH: one that has a body, even if it is empty.
    pub body_expected: bool,
    /// Where the method is in the buffer.
    pub method: Range<usize>,
    /// Where the request target is in the buffer.
    pub target: Range<usize>,
}

/// Why a head is refused. [`HeadError::status`] is the answer to give; the connection ends after it, since nobody
/// can say where the next request would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The request line is not `METHOD target HTTP/1.x`.
    RequestLine,
    /// The request target has a form or a byte that has no place here.
    Target,
    /// The request target is longer than [`limits::MAX_TARGET`].
    TargetTooLong,
    /// CONNECT: this is no forward proxy.
    Connect,
    /// An HTTP version other than 1.0 and 1.1.
    Version,
    /// A field name that is no token, has a space before the colon, or is a folded line.
    FieldName,
    /// A control character in a field's value.
    FieldValue,
    /// CR without LF, or LF without CR.
    LineEnd,
    /// The head is longer than [`limits::MAX_HEAD`].
    TooLarge,
    /// More fields than [`limits::MAX_HEADERS`].
    TooManyFields,
    /// More empty lines before the request line than [`limits::MAX_EMPTY_LINES`].
    EmptyLines,
    /// HTTP/1.1 without `Host`, several of it, or an impossible one.
    Host,
    /// `Content-Length` that is repeated or is not a plain decimal number.
    ContentLength,
    /// `Content-Length` beyond 64 bits.
    BodyTooLarge,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` repeated, or in HTTP/1.0.
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// An expectation other than `100-continue`.
    Expectation,
}

impl HeadError {
    /// The HTTP status that answers this error.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::FieldName
            | Self::FieldValue
            | Self::LineEnd
            | Self::EmptyLines
            | Self::Host
            | Self::ContentLength
            | Self::LengthAndCoding
            | Self::TransferEncoding => 400,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::TooLarge | Self::TooManyFields => 431,
            Self::Connect | Self::UnknownCoding => 501,
            Self::Version => 505,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => "malformed request line",
            Self::Target => "malformed request target",
            Self::TargetTooLong => "request target too long",
            Self::Connect => "CONNECT is not supported",
            Self::Version => "HTTP version not supported",
            Self::FieldName => "malformed header field name",
            Self::FieldValue => "malformed header field value",
            Self::LineEnd => "lines must end with CR LF",
            Self::TooLarge => "request head too large",
            Self::TooManyFields => "too many header fields",
            Self::EmptyLines => "too many empty lines before the request",
            Self::Host => "missing, repeated or malformed Host",
            Self::ContentLength => "malformed or repeated Content-Length",
            Self::BodyTooLarge => "request body too large",
            Self::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            Self::TransferEncoding => "Transfer-Encoding repeated or in HTTP/1.0",
            Self::UnknownCoding => "transfer coding not supported",
            Self::Expectation => "expectation not supported",
        })
    }
}

impl std::error::Error for HeadError {}

/// Looks for one request head at the start of `buf`.
///
/// `Ok(None)` means that the head is not complete: call again with more bytes after the same ones, and with the same
/// `scanned` (0 at first), which remembers how far the search has come, so that input that comes byte by byte costs
/// no more than input that comes at once. Empty lines before the request line are skipped and counted in `len`.
/// Nothing is allocated; the cost is linear in the bytes not scanned before, and one parse of the complete head.
///
/// # Errors
/// [`HeadError`] if the head is refused; it may be seen before the head is complete.
pub fn parse(buf: &[u8], scanned: &mut usize) -> Result<Option<Head>, HeadError> {
    parse_within(buf, scanned, HeadLimits::default())
}

/// As [`parse`], for a head that [`rewrite`](super::rewrite) wrote: it may be longer than the client's by
/// [`limits::REWRITE_BYTES`] and [`limits::REWRITE_FIELDS`].
///
/// # Errors
/// As [`parse`].
pub fn parse_rewritten(buf: &[u8], scanned: &mut usize) -> Result<Option<Head>, HeadError> {
    let bytes = limits::MAX_HEAD + limits::REWRITE_BYTES;
    parse_within(buf, scanned, HeadLimits { bytes, fields: MOST_FIELDS })
}

const MOST_FIELDS: usize = limits::MAX_HEADERS + limits::REWRITE_FIELDS;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most bytes; [`limits::MAX_HEAD`] unless an operator wants fewer.
    pub bytes: usize,
    /// Most fields; [`limits::MAX_HEADERS`] unless an operator wants fewer. More than those are never taken.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: limits::MAX_HEAD, fields: limits::MAX_HEADERS }
    }
}

/// As [`parse`], for a head of a given size at most.
///
/// # Errors
/// As [`parse`].
pub fn parse_within(buf: &[u8], scanned: &mut usize, most: HeadLimits) -> Result<Option<Head>, HeadError> {
    let mut start = 0;
    while buf[start..].starts_with(b"\r\n") {
        start += 2;
        if start > 2 * limits::MAX_EMPTY_LINES {
            return Err(HeadError::EmptyLines);
        }
    }
    match buf.get(start) {
        None => return Ok(None),
        Some(b'\r') if buf.len() == start + 1 => return Ok(None),
        Some(b'\r' | b'\n') => return Err(HeadError::LineEnd),
        // Refused at the first byte: TLS on the plain port and other protocols never send the end of a head.
        Some(&byte) if !is_tchar(byte) => return Err(HeadError::RequestLine),
        Some(_) => {}
    }
    let Some(end) = find_end(buf, start, scanned, most.bytes)? else {
        return Ok(None);
    };
    describe(buf, start, end, most.fields).map(Some)
}

/// The position after the empty line that ends the head, if it is there.
fn find_end(buf: &[u8], start: usize, scanned: &mut usize, most: usize) -> Result<Option<usize>, HeadError> {
    let mut from = (*scanned).max(start);
    while let Some(at) = buf[from..].iter().position(|&b| b == b'\n') {
        let lf = from + at;
        if lf - start >= most {
            break;
        }
        if buf[lf - 1] != b'\r' {
            return Err(HeadError::LineEnd);
        }
        if lf >= start + 3 && buf[lf - 2] == b'\n' {
            *scanned = lf;
            return Ok(Some(lf + 1));
        }
        from = lf + 1;
    }
    *scanned = buf.len();
    if buf.len() - start < most {
        return Ok(None);
    }
    let line = &buf[start..start + most];
    Err(if line.contains(&b'\n') { HeadError::TooLarge } else { HeadError::TargetTooLong })
}

/// What the fields together say.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    codings: usize,
    close: bool,
    connection_upgrade: bool,
    websocket: bool,
    expect_continue: bool,
}

fn describe(buf: &[u8], start: usize, end: usize, most: usize) -> Result<Head, HeadError> {
    let text = &buf[start..end];
    let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(text, &mut slots[..most.min(MOST_FIELDS)]) {
        Ok(httparse::Status::Complete(len)) if len == text.len() => {}
        // The end was found by the same rule, so anything else means that the two disagree about the lines.
        Ok(_) => return Err(HeadError::LineEnd),
        Err(error) => return Err(refuse(error, text)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::RequestLine);
    };
    check_target(method, target)?;
    let mut fields = Fields::default();
    for field in request.headers.iter() {
        fields.add(field, minor)?;
    }
    if fields.hosts > 1 || (minor == 1 && fields.hosts == 0) {
        return Err(HeadError::Host);
    }
    let body = fields.body()?;
    let plain = matches!(body, Body::None | Body::Length(0));
    let method_end = start + method.len();
    Ok(Head {
        len: end,
        body,
        version_minor: minor,
        keep_alive: minor == 1 && !fields.close,
        upgrade: minor == 1 && method == "GET" && plain && fields.connection_upgrade && fields.websocket,
        expect_continue: minor == 1 && fields.expect_continue,
        is_head: method == "HEAD",
        body_expected: matches!(method, "POST" | "PUT" | "PATCH"),
        method: start..method_end,
        // The parser takes exactly one space between the two.
        target: method_end + 1..method_end + 1 + target.len(),
    })
}

fn refuse(error: httparse::Error, text: &[u8]) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::NewLine => HeadError::LineEnd,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => version_error(text),
        _ => HeadError::RequestLine,
    }
}

/// A version of the right shape is one that we do not speak; anything else is a malformed line.
fn version_error(text: &[u8]) -> HeadError {
    let line = text.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        _ => HeadError::RequestLine,
    }
}

fn check_target(method: &str, target: &str) -> Result<(), HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Connect);
    }
    if target.len() > limits::MAX_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    if !target.bytes().all(|b| b.is_ascii_graphic()) || target.contains('#') {
        return Err(HeadError::Target);
    }
    let known =
        target.starts_with('/') || absolute_form(target).is_some() || (target == "*" && method == "OPTIONS");
    if known { Ok(()) } else { Err(HeadError::Target) }
}

/// The authority, and the path with its query, of a target in absolute form (`http://host/path`); `None` for any other
/// form. An empty path comes back empty.
pub(crate) fn absolute_form(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // So there is no user part, which only ever serves to disguise the host.
    (!authority.is_empty() && authority.bytes().all(is_host_char)).then_some((authority, path))
}

impl Fields {
    fn add(&mut self, field: &httparse::Header<'_>, minor: u8) -> Result<(), HeadError> {
        let (name, value) = (field.name, trim(field.value));
        if name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
            if !value.iter().all(|&b| is_host_char(b)) {
                return Err(HeadError::Host);
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if self.length.is_some() {
                return Err(HeadError::ContentLength);
            }
            self.length = Some(parse_length(value)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.codings += 1;
            if minor == 0 || self.codings > 1 {
                return Err(HeadError::TransferEncoding);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::UnknownCoding);
            }
        } else if name.eq_ignore_ascii_case("connection") {
            self.close |= has_token(value, b"close");
            self.connection_upgrade |= has_token(value, b"upgrade");
        } else if name.eq_ignore_ascii_case("upgrade") {
            self.websocket |= has_token(value, b"websocket");
        } else if name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(HeadError::Expectation);
            }
            self.expect_continue = true;
        }
        Ok(())
    }

    fn body(&self) -> Result<Body, HeadError> {
        match (self.length, self.codings) {
            (Some(_), 1..) => Err(HeadError::LengthAndCoding),
            (None, 1..) => Ok(Body::Chunked),
            (Some(length), 0) => Ok(Body::Length(length)),
            (None, 0) => Ok(Body::None),
        }
    }
}

/// Only digits: `+5`, `5,5`, `0x5` and the empty value are refused.
fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    value
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(HeadError::BodyTooLarge)
}

/// Whether a comma-separated list has the token, in any case of letters.
pub(crate) fn has_token(list: &[u8], token: &[u8]) -> bool {
    tokens(list).any(|item| item.eq_ignore_ascii_case(token))
}

/// The members of a comma-separated list, without the space around them.
pub(crate) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(trim).filter(|item| !item.is_empty())
}

/// Without the spaces and tabs at both ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 3986: reg-name, IP literals and port.
fn is_host_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "head_tests.rs"]
mod tests;
