//! Frames, RFC 6455, 5.

use std::fmt;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest payload of a control frame, in bytes (RFC 6455, 5.5).
pub const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A further part of a message.
    Continue,
    /// A message of text, or its first part.
    Text,
    /// A message of bytes, or its first part.
    Binary,
    /// The end.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping, or nothing.
    Pong,
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// The last part of its message.
    pub is_final: bool,
    /// Bytes of its payload, as the client says.
    pub length: u64,
    /// What its payload is masked with.
    pub mask: [u8; 4],
}

/// What breaks the protocol: the connection fails with 1002, but for [`Violation::CloseText`] with 1007.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit, with no extension agreed on.
    Reserved,
    /// An opcode that is not defined.
    Opcode,
    /// A client's frame without a mask.
    Unmasked,
    /// A length that is not written as short as it can be, or has its highest bit set.
    Length,
    /// A control frame that is cut in parts, or too long.
    Control,
    /// A part without a first one, or a new message within another one.
    Order,
    /// A close frame with an impossible code, or half of one.
    Close,
    /// A close frame whose text is not UTF-8.
    CloseText,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reserved => "reserved bits are set",
            Self::Opcode => "unknown opcode",
            Self::Unmasked => "frames of clients must be masked",
            Self::Length => "malformed length",
            Self::Control => "malformed control frame",
            Self::Order => "a part of no message, or a message within another",
            Self::Close => "malformed close frame",
            Self::CloseText => "the text of a close frame is not UTF-8",
        })
    }
}

impl Frame {
    /// Reads the header of a client's frame, and answers how many bytes it has. `None`: not all of it is there.
    ///
    /// # Errors
    /// [`Violation`], as soon as the bytes that are there tell.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let kind = kind(OpCode::from(first & 0x0f)).ok_or(Violation::Opcode)?;
        let is_control = matches!(kind, FrameKind::Close | FrameKind::Ping | FrameKind::Pong);
        if is_control && (first & 0x80 == 0 || usize::from(second & 0x7f) > MAX_CONTROL) {
            return Err(Violation::Control);
        }
        let mut cursor = Cursor::new(&bytes[..bytes.len().min(14)]);
        let Ok(parsed) = FrameHeader::parse(&mut cursor) else { return Err(Violation::Opcode) };
        let Some((header, length)) = parsed else { return Ok(None) };
        let size = header.len(length);
        // It would have been shorter.
        if cursor.position() != size as u64 || length > i64::MAX as u64 {
            return Err(Violation::Length);
        }
        let mask = header.mask.ok_or(Violation::Unmasked)?;
        Ok(Some((Self { kind, is_final: header.is_final, length, mask }, size)))
    }

    /// Unmasks payload, of which `offset` bytes came before.
    pub fn unmask(&self, offset: u64, payload: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left((offset % 4) as usize);
        let word =
            u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
        let (words, rest) = payload.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
    }
}

fn kind(code: OpCode) -> Option<FrameKind> {
    Some(match code {
        OpCode::Data(Data::Continue) => FrameKind::Continue,
        OpCode::Data(Data::Text) => FrameKind::Text,
        OpCode::Data(Data::Binary) => FrameKind::Binary,
        OpCode::Control(Control::Close) => FrameKind::Close,
        OpCode::Control(Control::Ping) => FrameKind::Ping,
        OpCode::Control(Control::Pong) => FrameKind::Pong,
        _ => return None,
    })
}

/// Appends the header of a frame of ours that is a whole message of text, with so many bytes.
pub fn text_header(length: u32, out: &mut Vec<u8>) {
    header(OpCode::Data(Data::Text), u64::from(length), out);
}

/// Appends a ping without payload.
pub fn ping(out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Ping), 0, out);
}

/// Appends the pong to a ping with this payload, of which at most [`MAX_CONTROL`] bytes are used.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    header(OpCode::Control(Control::Pong), payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Appends a close frame with this code (RFC 6455, 7.4.1).
pub fn close(code: u16, out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Close), 2, out);
    out.extend_from_slice(&code.to_be_bytes());
}

fn header(opcode: OpCode, length: u64, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing into a vector does not fail.
    let _ = header.format(length, out);
}

/// The code of a client's close frame, `None` if it has none.
///
/// # Errors
/// [`Violation::Close`]: a payload of one byte, or a code that must not be sent; [`Violation::CloseText`].
pub fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let is_allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !is_allowed {
                return Err(Violation::Close);
            }
            std::str::from_utf8(text).map(|_| Some(code)).map_err(|_| Violation::CloseText)
        }
        [_] => Err(Violation::Close),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(first: u8, length: u64, form: u8, mask: [u8; 4]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | form];
        match form {
            126 => out.extend_from_slice(&(length as u16).to_be_bytes()),
            127 => out.extend_from_slice(&length.to_be_bytes()),
            _ => {}
        }
        out.extend_from_slice(&mask);
        out
    }

    /// Each form of a length at its borders; a header is read when its last byte is there, and not before.
    #[test]
    fn headers_are_read_at_every_border() {
        for (length, form) in
            [(0, 0), (1, 1), (125, 125), (126, 126), (65_535, 126), (65_536, 127), (1 << 40, 127)]
        {
            let bytes = written(0x81, length, form, *b"mask");
            for end in 0..bytes.len() {
                assert_eq!(Frame::parse(&bytes[..end]), Ok(None), "{length} {end}");
            }
            let frame = Frame { kind: FrameKind::Text, is_final: true, length, mask: *b"mask" };
            assert_eq!(Frame::parse(&bytes), Ok(Some((frame, bytes.len()))));
            assert_eq!(Frame::parse(&[bytes.clone(), vec![1; 20]].concat()), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn lengths_are_written_as_short_as_they_can_be() {
        for (length, form) in [(0, 126), (125, 126), (125, 127), (126, 127), (65_535, 127), (1 << 63, 127)] {
            assert_eq!(
                Frame::parse(&written(0x81, length, form, [0; 4])),
                Err(Violation::Length),
                "{length}"
            );
        }
    }

    #[test]
    fn every_first_byte_is_known_or_refused() {
        for first in 0..=255_u8 {
            let parsed = Frame::parse(&written(first, 2, 2, [0; 4]));
            let (reserved, opcode, is_final) = (first & 0x70 != 0, first & 0x0f, first & 0x80 != 0);
            match (reserved, opcode) {
                (true, _) => assert_eq!(parsed, Err(Violation::Reserved)),
                (false, 3..=7 | 11..=15) => assert_eq!(parsed, Err(Violation::Opcode)),
                (false, 8..=10) if !is_final => assert_eq!(parsed, Err(Violation::Control)),
                _ => assert_eq!(parsed.unwrap().unwrap().0.is_final, is_final),
            }
        }
        for form in [125, 126, 127] {
            let parsed = Frame::parse(&written(0x89, 65_536, form, [0; 4]));
            assert_eq!(parsed.is_err(), form != 125, "{form}");
        }
        assert_eq!(Frame::parse(&[0x81, 0x02]), Err(Violation::Unmasked));
    }

    /// Wherever a payload is cut, each byte meets its part of the mask.
    #[test]
    fn payloads_are_unmasked_in_pieces() {
        let frame = Frame { kind: FrameKind::Text, is_final: true, length: 40, mask: [1, 2, 4, 8] };
        let masked: Vec<u8> = (0..40_u8).map(|at| at ^ frame.mask[usize::from(at) % 4]).collect();
        for cut in 0..=40 {
            let mut payload = masked.clone();
            let (first, second) = payload.split_at_mut(cut);
            frame.unmask(0, first);
            frame.unmask(cut as u64, second);
            assert_eq!(payload, (0..40).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn our_frames_are_as_short_as_they_can_be() {
        let bytes = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        assert_eq!(bytes(&|out| text_header(125, out)), [0x81, 125]);
        assert_eq!(bytes(&|out| text_header(126, out)), [0x81, 126, 0, 126]);
        assert_eq!(bytes(&|out| text_header(65_535, out)), [0x81, 126, 255, 255]);
        assert_eq!(bytes(&|out| text_header(65_536, out)), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(bytes(&ping), [0x89, 0]);
        assert_eq!(bytes(&|out| pong(b"ab", out)), [0x8a, 2, b'a', b'b']);
        assert_eq!(bytes(&|out| close(1_000, out)), [0x88, 2, 3, 232]);
    }

    #[test]
    fn codes_of_close_frames() {
        let code = |code: u16, text: &[u8]| close_code(&[&code.to_be_bytes(), text].concat());
        assert_eq!(close_code(b""), Ok(None));
        assert_eq!(close_code(b"x"), Err(Violation::Close));
        for good in
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        {
            assert_eq!(code(good, "grün".as_bytes()), Ok(Some(good)));
        }
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(code(bad, b""), Err(Violation::Close), "{bad}");
        }
        assert_eq!(code(1000, b"\xff"), Err(Violation::CloseText));
    }
}
