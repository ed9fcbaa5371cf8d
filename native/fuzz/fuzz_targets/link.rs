//! The link decoder on any bytes: each frame means the bytes it came from, cuts change nothing, and a stream that was
//! refused stays refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::limits::{MAX_ERROR_TEXT, MAX_NAME, MAX_PAYLOAD, MIN_WINDOW, WINDOW};
use megaphone_core::link::{Decoder, Frame, FrameError, HEADER, Hello, LENGTH_OVERHEAD, Role};
use megaphone_fuzz::{Script, pieces};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let (seed, greeted) = (script.byte(), script.byte() % 4 > 0);
    let mut stream = Vec::new();
    if greeted {
        // So that most runs get beyond the first frame.
        let hello = Hello { role: Role::Ecm, features: Hello::CREDIT, window: WINDOW, name: "" };
        Frame::Hello(hello).encode(&mut stream);
    }
    stream.extend_from_slice(script.rest());
    let (frames, end) = decode(std::iter::once(&stream[..]));
    assert_eq!(decode(pieces(&stream, seed)), (frames.clone(), end), "cuts");
    against_the_stream(&stream, &frames, end);
});

/// The frames of a stream, each encoded anew, and why it ends if it does.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    let mut failed = None;
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    assert_eq!(failed, None, "a frame after an error");
                    frames.push(again(&frame));
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(*failed.get_or_insert(error), error, "another error");
                    assert!(!error.to_string().is_empty());
                    break;
                }
            }
        }
        assert!(
            failed.is_some() || decoder.pending() < HEADER + MAX_PAYLOAD,
            "more than a partial frame is held"
        );
    }
    (frames, failed)
}

/// Encodes a frame; parsing that must give the same frame.
fn again(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(Frame::parse(&bytes[4..]), Ok(*frame));
    match *frame {
        Frame::Hello(hello) => assert!(hello.window >= MIN_WINDOW && hello.name.len() <= MAX_NAME),
        Frame::Data { payload, .. } => assert!((1..=MAX_PAYLOAD).contains(&payload.len())),
        Frame::Error { text, .. } => assert!(text.len() <= MAX_ERROR_TEXT),
        _ => {}
    }
    bytes
}

/// Walks the stream by its length fields, as simply as can be: the frames stand there one after the other, with the
/// same length, type and id, and in the end is what cannot be a frame or not all of one.
fn against_the_stream(stream: &[u8], frames: &[Vec<u8>], end: Option<FrameError>) {
    let mut rest = stream;
    for frame in frames {
        assert_eq!(rest[..HEADER], frame[..HEADER]);
        let payload = &rest[HEADER..frame.len()];
        // Codes that this end does not know are taken for "other".
        let coded = matches!(frame[4], 0x05 | 0x06) as usize;
        assert_eq!(payload[coded.min(payload.len())..], frame[HEADER + coded..]);
        rest = &rest[frame.len()..];
    }
    let length = rest.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
    let whole = |length: usize| rest.len() >= 4 + length;
    match (length, end) {
        (None, end) => assert_eq!(end, None),
        // A first frame that cannot be a hello is refused at once.
        (Some(length), Some(FrameError::NotMegaphone)) => assert!(frames.is_empty() || whole(length)),
        (Some(length), Some(FrameError::TooShort(_))) => assert!(length < LENGTH_OVERHEAD),
        (Some(length), Some(FrameError::TooLong(_))) => assert!(length > LENGTH_OVERHEAD + MAX_PAYLOAD),
        (Some(length), end) => {
            assert!((LENGTH_OVERHEAD..=LENGTH_OVERHEAD + MAX_PAYLOAD).contains(&length));
            assert_eq!(end.is_some(), whole(length), "{end:?}");
        }
    }
}
