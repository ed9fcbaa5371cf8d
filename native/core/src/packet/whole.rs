//! A whole request head at once, for those that are strictly valid: the fast way.

use std::mem::MaybeUninit;

use super::{HttpPacket, Uri, uri};
use crate::limits::MAX_HEADERS;

/// A request head.
#[derive(Debug)]
pub struct WholeHead<'b, 's> {
    /// The request line.
    pub request: HttpPacket<'b>,
    /// The fields, in order.
    pub fields: &'s [httparse::Header<'b>],
    /// Bytes of the head, the empty line included.
    pub len: usize,
}

/// Room for the fields of one head. Not initialised: filling it would cost as much as parsing.
#[derive(Debug)]
pub struct Slots<'b>([MaybeUninit<httparse::Header<'b>>; MAX_HEADERS]);

impl Slots<'_> {
    /// Room for [`MAX_HEADERS`] fields.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_HEADERS])
    }
}

impl Default for Slots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Parses the request head at the start of `buf`.
///
/// `None` when it is incomplete, or anything but a strictly valid head in the common form: it then has to be decoded
/// line by line. What is returned is what decoding it line by line would give. Linear; nothing is allocated.
#[must_use]
pub fn whole_head<'b, 's>(buf: &'b [u8], slots: &'s mut Slots<'b>) -> Option<WholeHead<'b, 's>> {
    // The parser would skip empty lines here, which are errors line by line.
    if !buf.first()?.is_ascii_alphabetic() {
        return None;
    }
    let mut request = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(buf, &mut slots.0) else {
        return None;
    };
    let target = uri(request.path?.as_bytes());
    if !matches!(target, Uri::Path(_) | Uri::Star) {
        return None;
    }
    let method = request.method?.as_bytes();
    let version = (1, u32::from(request.version?));
    let fields: &'s [httparse::Header<'b>] = request.headers;
    // The parser drops blanks after a value, line by line they belong to it; an empty value may point anywhere.
    let start = buf.as_ptr() as usize;
    let exact = |field: &httparse::Header<'b>| {
        let end = (field.value.as_ptr() as usize).wrapping_sub(start).wrapping_add(field.value.len());
        !field.value.is_empty() && matches!(buf.get(end), Some(b'\r' | b'\n'))
    };
    fields.iter().all(exact).then_some(WholeHead {
        request: HttpPacket::Request { method, uri: target, version },
        fields,
        len,
    })
}

/// Lengths of head and body of the request at the start of `buf`, which need not hold the body.
///
/// `None` when [`whole_head`] says so, or when the body is not of one plain length.
#[must_use]
pub fn whole_packet(buf: &[u8]) -> Option<(usize, u64)> {
    let mut slots = Slots::new();
    let head = whole_head(buf, &mut slots)?;
    let mut length = None;
    for field in head.fields {
        let name = field.name.as_bytes();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = field.value.iter().all(u8::is_ascii_digit);
            let value = core::str::from_utf8(field.value).ok()?.parse().ok().filter(|_| digits)?;
            if length.replace(value).is_some() {
                return None;
            }
        }
    }
    Some((head.len, length.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::{field_line, start_line};
    use super::*;

    /// The whole and the lines give the same, or the whole is left to the lines.
    #[test]
    fn whole_heads_equal_their_lines() {
        let heads: [(&[u8], bool); 8] = [
            (b"POST /bosh HTTP/1.1\r\nHost: a\r\ncontent-length:  4\r\n\r\nbody", true),
            (b"OPTIONS * HTTP/1.0\r\n\r\n", true),
            (b"GET / HTTP/1.1\nHost: a\n\n", true),
            (b"GET / HTTP/1.1\r\nHost: a \r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nX:\r\n\r\n", false),
            (b"GET http://a/ HTTP/1.1\r\n\r\n", false),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", false),
        ];
        for (head, fast) in heads {
            let mut slots = Slots::new();
            let Some(whole) = whole_head(head, &mut slots) else {
                assert!(!fast, "{}", head.escape_ascii());
                continue;
            };
            assert!(fast, "{}", head.escape_ascii());
            let mut lines = head[..whole.len].split_inclusive(|byte| *byte == b'\n');
            assert_eq!(lines.next().map(start_line), Some(whole.request));
            for field in whole.fields {
                let field = HttpPacket::Field { name: field.name.as_bytes(), value: field.value };
                assert_eq!(lines.next().map(field_line), Some(field));
            }
            assert_eq!(lines.next().map(field_line), Some(HttpPacket::EndOfHead));
            assert_eq!(lines.next(), None);
        }
    }
}
