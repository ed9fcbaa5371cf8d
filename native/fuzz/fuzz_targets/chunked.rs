//! The chunked decoder against one that is as simple as can be: the same body or the same refusal however the input is
//! cut, and never a byte above the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::http::chunked::{ChunkError, Decoder};
use megaphone_core::limits::MAX_CHUNK_OVERHEAD;
use megaphone_fuzz::{Script, pieces};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let (seed, limit) = (script.byte(), script.size(&[1_000, 100_000]));
    let input = script.rest();
    let whole = decode(std::iter::once(input), limit);
    assert_eq!(decode(pieces(input, seed), limit), whole, "cuts");
    assert_eq!(simple(input, limit), whole.map(|(body, used, done)| done.then_some((body, used))));
});

type Decoded = Result<(Vec<u8>, usize, bool), ChunkError>;

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>, limit: usize) -> Decoded {
    let (mut decoder, mut body, mut used) = (Decoder::new(), Vec::new(), 0);
    for piece in pieces {
        let was_done = decoder.is_done();
        let taken = decoder.decode(piece, &mut body, limit)?;
        assert!(taken == piece.len() || decoder.is_done(), "input is left before the end");
        assert!(taken == 0 || !was_done, "input is taken after the end");
        assert!(body.len() <= limit);
        used += taken;
    }
    Ok((body, used, decoder.is_done()))
}

/// The body and where it ends; `None` if it is not all there.
fn simple(input: &[u8], limit: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    let (mut body, mut at, mut overhead) = (Vec::new(), 0, 0);
    loop {
        let digits = input[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 16 {
            return Err(ChunkError::Malformed);
        }
        match input.get(at + digits) {
            None => return Ok(None),
            Some(b'\r' | b';') if digits > 0 => {}
            Some(_) => return Err(ChunkError::Malformed),
        }
        let text = str::from_utf8(&input[at..at + digits]).expect("digits");
        let size = u64::from_str_radix(text, 16).expect("at most 16 digits");
        let extension = usize::from(input[at + digits] == b';');
        let Some(next) = line(input, at + digits + extension, &mut overhead)? else { return Ok(None) };
        at = next;
        if size == 0 {
            break;
        }
        if size > (limit - body.len()) as u64 {
            return Err(ChunkError::TooLarge);
        }
        let data = &input[at..];
        let data = &data[..data.len().min(size as usize)];
        body.extend_from_slice(data);
        at += data.len();
        match &input[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(ChunkError::Malformed),
        }
    }
    loop {
        let Some(next) = line(input, at, &mut overhead)? else { return Ok(None) };
        if next == at + 2 {
            return Ok(Some((body, next)));
        }
        at = next;
    }
}

/// Where the line from `at` on ends, its end included: text without control characters, of which nothing is kept.
fn line(input: &[u8], at: usize, overhead: &mut usize) -> Result<Option<usize>, ChunkError> {
    for (place, byte) in input.iter().enumerate().skip(at) {
        if *byte == b'\r' {
            return match input.get(place + 1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(place + 2)),
                Some(_) => Err(ChunkError::Malformed),
            };
        }
        if byte.is_ascii_control() && *byte != b'\t' {
            return Err(ChunkError::Malformed);
        }
        *overhead += 1;
        if *overhead > MAX_CHUNK_OVERHEAD {
            return Err(ChunkError::Overhead);
        }
    }
    Ok(None)
}
