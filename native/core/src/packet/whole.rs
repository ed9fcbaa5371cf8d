//! A whole request at once, for those that are strictly valid and of the common form: the fast way.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::names::{known_field, usual_field};
use super::{Uri, uri};
use crate::limits::{MAX_HEAD, MAX_HEADERS};

/// Where a part lies in a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u16,
    len: u16,
}

const _: () = assert!(MAX_HEAD <= u16::MAX as usize, "a place in a head must fit into a span");

impl Span {
    /// Of a part that lies in `head`, at most [`MAX_HEAD`] bytes.
    #[inline]
    fn new(head: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        debug_assert!(start + part.len() <= head.len());
        Self { start: start as u16, len: part.len() as u16 }
    }

    /// First byte and length.
    #[must_use]
    #[inline]
    pub const fn place(self) -> (usize, usize) {
        (self.start as usize, self.len as usize)
    }

    /// The part itself.
    ///
    /// # Panics
    /// If `head` is shorter than the one it was made of.
    #[must_use]
    pub fn of(self, head: &[u8]) -> &[u8] {
        let (start, len) = self.place();
        &head[start..][..len]
    }
}

/// A request target of the common form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `'*'`
    Star,
    /// `{abs_path, Path}`
    Path(Span),
}

/// A header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name as received.
    pub name: Span,
    /// The value, without blanks around it.
    pub value: Span,
    /// What is known of it.
    pub known: Known,
}

/// What is known of a field. There are less than 256 names and usual fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    No,
    /// The place of the name, which is written otherwise, in [`FIELDS`](super::FIELDS).
    Name(u8),
    /// The place of the name in [`FIELDS`](super::FIELDS) followed by [`OTHER_FIELDS`](super::OTHER_FIELDS).
    ExactName(u8),
    /// The place of the field in [`USUAL_FIELDS`](super::USUAL_FIELDS).
    Field(u8),
}

/// Where the parts of a request lie, but for its fields. It borrows nothing: the bytes may move meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The method.
    pub method: Span,
    /// The target.
    pub target: Target,
    /// The minor version; the major one is 1.
    pub minor: u8,
    /// Bytes of the head, the empty line included.
    pub head_len: usize,
    /// Bytes of the body, as Content-Length says; they need not be there.
    pub body_len: u64,
}

impl Whole {
    /// Parses the request at the start of `buf`, which need not hold its body. `each` is given the fields, in order, at
    /// most [`MAX_HEADERS`].
    ///
    /// `None` when the head is incomplete, longer than [`MAX_HEAD`], or anything but a strictly valid head in the common
    /// form with a body of one plain length: it then has to be decoded line by line, and what `each` was given is
    /// worthless. Else this is what decoding it line by line would give. Linear; nothing is allocated.
    pub fn parse(buf: &[u8], mut each: impl FnMut(Field)) -> Option<Self> {
        let buf = &buf[..buf.len().min(MAX_HEAD)];
        // The parser would skip empty lines here, which are errors line by line.
        if !buf.first()?.is_ascii_alphabetic() {
            return None;
        }
        // Not initialised: filling it would cost as much as parsing.
        let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let Ok(httparse::Status::Complete(head_len)) = request.parse_with_uninit_headers(buf, &mut slots)
        else {
            return None;
        };
        let target = match uri(request.path?.as_bytes()) {
            Uri::Path(path) => Target::Path(Span::new(buf, path)),
            Uri::Star => Target::Star,
            _ => return None,
        };
        let mut length = None;
        for header in request.headers.iter() {
            each(field(buf, header, &mut length)?);
        }
        Some(Self {
            method: Span::new(buf, request.method?.as_bytes()),
            target,
            minor: request.version?,
            head_len,
            body_len: length.unwrap_or(0),
        })
    }

    /// Bytes of head and body; `None` when the machine cannot hold as many.
    #[must_use]
    pub fn total_len(&self) -> Option<usize> {
        self.head_len.checked_add(usize::try_from(self.body_len).ok()?)
    }
}

/// The fields of a head: inline as many as browsers send.
pub type Fields = SmallVec<[Field; 24]>;

/// One field; the first Content-Length sets `length`.
#[inline(always)] // returned in memory it costs more than it takes to make
fn field(buf: &[u8], header: &httparse::Header<'_>, length: &mut Option<u64>) -> Option<Field> {
    if header.value.is_empty() {
        return None; // an empty value may point anywhere
    }
    let name = header.name.as_bytes();
    let value = Span::new(buf, header.value);
    // The parser drops blanks after a value, line by line they belong to it.
    let (start, len) = value.place();
    if !matches!(buf.get(start + len), Some(b'\r' | b'\n')) {
        return None;
    }
    let known = known_field(name);
    match known {
        Some((TRANSFER_ENCODING, _)) => return None,
        Some((CONTENT_LENGTH, _)) if length.replace(decimal(header.value)?).is_some() => return None,
        _ => {}
    }
    let known = match known {
        None => Known::No,
        Some((place, false)) => Known::Name(place),
        Some((place, true)) => usual_field(place, header.value).map_or(Known::ExactName(place), Known::Field),
    };
    Some(Field { name: Span::new(buf, name), value, known })
}

const TRANSFER_ENCODING: u8 = 4;
const CONTENT_LENGTH: u8 = 37;

/// Digits, and nothing else. At most 16 of them, which is 2^53: `megaphone:parse_packet/1` refuses more.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.len() > 16 {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{FIELDS, HttpPacket, field_line, start_line};
    use super::*;

    #[test]
    fn the_fields_that_decide_on_the_body_are_where_they_are_looked_for() {
        assert_eq!(FIELDS[usize::from(TRANSFER_ENCODING)], "Transfer-Encoding");
        assert_eq!(FIELDS[usize::from(CONTENT_LENGTH)], "Content-Length");
    }

    /// The whole and the lines give the same, or the whole is left to the lines.
    #[test]
    fn whole_heads_equal_their_lines() {
        let heads: [(&[u8], bool); 12] = [
            (b"POST /bosh HTTP/1.1\r\nHost: a\r\ncontent-length:  4\r\n\r\nbody", true),
            (b"OPTIONS * HTTP/1.0\r\n\r\n", true),
            (b"GET / HTTP/1.1\nHost: a\n\n", true),
            (b"GET / HTTP/1.1\r\nHost: a \r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nX:\r\n\r\n", false),
            (b"GET http://a/ HTTP/1.1\r\n\r\n", false),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", false),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", false),
            (b"PUT / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", false),
            (b"PUT / HTTP/1.1\r\nContent-Length: +4\r\n\r\n", false),
            (b"PUT / HTTP/1.1\r\nContent-Length: 00000000000000004\r\n\r\n", false),
            (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ];
        for (head, fast) in heads {
            let mut fields = Fields::new();
            let whole = Whole::parse(head, |field| fields.push(field));
            assert_eq!(whole.is_some(), fast, "{}", head.escape_ascii());
            let Some(whole) = whole else { continue };
            let mut lines = head[..whole.head_len].split_inclusive(|byte| *byte == b'\n');
            let uri = match whole.target {
                Target::Star => Uri::Star,
                Target::Path(path) => Uri::Path(path.of(head)),
            };
            let version = (1, u32::from(whole.minor));
            let request = HttpPacket::Request { method: whole.method.of(head), uri, version };
            assert_eq!(lines.next().map(start_line), Some(request));
            for field in &fields {
                let line = HttpPacket::Field { name: field.name.of(head), value: field.value.of(head) };
                assert_eq!(lines.next().map(field_line), Some(line));
            }
            assert_eq!(lines.next().map(field_line), Some(HttpPacket::EndOfHead));
            assert_eq!(lines.next(), None);
        }
        assert_eq!(Whole::parse(heads[0].0, drop).map(|whole| whole.body_len), Some(4));
    }

    /// A head of 16 kB is taken, a byte more is left to the lines.
    #[test]
    fn heads_up_to_the_limit_are_taken() {
        for (size, fast) in [(MAX_HEAD - 1, true), (MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(size - 23));
            assert_eq!(head.len(), size);
            assert_eq!(Whole::parse(head.as_bytes(), drop).is_some(), fast, "{size}");
        }
    }
}
