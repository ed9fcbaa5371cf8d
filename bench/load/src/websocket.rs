//! As much of WebSocket (RFC 6455) as XMPP (RFC 7395) needs on the client's side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::http;
use crate::scram::sha1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A part of a text that goes on in the next frame.
    More,
    /// A text, or its end.
    Text,
    /// The other side goes.
    Close,
    /// The other side wants a pong.
    Ping,
    /// An answer to a ping.
    Pong,
}

/// The request that begins it.
#[must_use]
pub fn handshake(path: &str, host: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    )
    .into_bytes()
}

/// A key for a handshake.
#[must_use]
pub fn key(random: u64) -> String {
    BASE64.encode([random.to_be_bytes(), random.rotate_left(17).to_le_bytes()].concat())
}

/// What the server must answer to a key.
#[must_use]
pub fn accept(key: &str) -> String {
    BASE64.encode(sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// Takes the server's answer to a handshake with this key: its length, when all of it is there.
///
/// # Errors
///
/// When the server does not make this a WebSocket.
pub fn answer(input: &[u8], key: &str) -> Result<Option<usize>, String> {
    let Some(head) = http::head(input)? else { return Ok(None) };
    if head.status != 101 || head.accept.as_deref() != Some(&*accept(key)) {
        return Err(format!("no WebSocket: the server answered {}", head.status));
    }
    Ok(Some(head.length))
}

/// A frame as a client sends it, masked.
#[must_use]
pub fn frame(kind: Kind, payload: &[u8], mask: u32) -> Vec<u8> {
    let opcode = match kind {
        Kind::More | Kind::Text => 1,
        Kind::Close => 8,
        Kind::Ping => 9,
        Kind::Pong => 10,
    };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Reads a frame of a server: what it is, where its payload begins and ends.
///
/// # Errors
///
/// When a server must not send such a frame.
pub fn read(input: &[u8]) -> Result<Option<(Kind, usize, usize)>, String> {
    let &[first, second, ref rest @ ..] = input else { return Ok(None) };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        return Err("a frame that is masked or has reserved bits".to_owned());
    }
    let kind = match (first & 0x0f, first & 0x80 != 0) {
        (0..=2, true) => Kind::Text,
        (0..=2, false) => Kind::More,
        (8, true) => Kind::Close,
        (9, true) => Kind::Ping,
        (10, true) => Kind::Pong,
        (opcode, _) => return Err(format!("a frame with opcode {opcode}")),
    };
    let (start, length): (usize, usize) = match (second, rest) {
        (126, &[a, b, ..]) => (4, usize::from(u16::from_be_bytes([a, b]))),
        (127, &[a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
        (126.., _) => return Ok(None),
        (short, _) => (2, usize::from(short)),
    };
    Ok((input.len() >= start.saturating_add(length)).then_some((kind, start, start + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_the_rfc_does() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn takes_the_right_answer_only() {
        let right =
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(answer(right.as_bytes(), key), Ok(Some(right.len())));
        assert_eq!(answer(&right.as_bytes()[..40], key), Ok(None));
        assert!(answer(right.as_bytes(), "another").is_err());
        assert!(answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", key).is_err());
    }

    #[test]
    fn reads_what_is_complete() {
        let hello = [0x81, 5, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(read(&hello), Ok(Some((Kind::Text, 2, 7))));
        assert_eq!(read(&hello[..6]), Ok(None));
        let long = [&[0x81, 126, 1, 0][..], &[b'x'; 256]].concat();
        assert_eq!(read(&long), Ok(Some((Kind::Text, 4, 260))));
        assert_eq!(read(&long[..3]), Ok(None));
        assert!(read(&[0x81, 0x85]).is_err());
    }

    #[test]
    fn masks_what_it_sends() {
        assert_eq!(
            frame(Kind::Text, b"Hello", 0x37fa_213d),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(frame(Kind::Text, &[0; 70_000], 0).len(), 70_014);
        assert_eq!(frame(Kind::Text, &[0; 126], 0).len(), 134);
    }
}
