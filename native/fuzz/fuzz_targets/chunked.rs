//! The chunked decoder against one that is as simple as can be: the same body or the same refusal however the input is
//! cut, and never a byte above the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::http::chunked::{ChunkError, Decoder};
use megaphone_fuzz::{Script, pieces, plain};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let (seed, limit) = (script.byte(), script.size(&[1_000, 100_000]));
    let input = script.rest();
    let whole = decode(std::iter::once(input), limit);
    assert_eq!(decode(pieces(input, seed), limit), whole, "cuts");
    assert_eq!(plain::chunked(input, limit), whole.map(|(body, used, done)| done.then_some((body, used))));
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
