//! The PROXY parser against one that is as simple as can be and sees all at once: the same client, the same end, the same
//! refusal at the latest by then, however the input is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::limits::{PROXY_V1_LINE, PROXY_V2_LENGTH};
use megaphone_core::peer::proxy::{Decoder, ProxyError, Source};
use megaphone_fuzz::{Script, pieces, plain};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let seed = script.byte();
    let input = script.rest();
    let whole = decode(std::iter::once(input));
    assert_eq!(decode(pieces(input, seed)), whole, "cuts");
    match whole {
        Ok((used, Some(source))) => {
            assert!(used <= PROXY_V1_LINE.max(16 + PROXY_V2_LENGTH));
            assert_eq!(plain::proxy(input), Some((used, source)));
            assert_eq!(decode(std::iter::once(&input[..used])), whole, "what follows matters");
            let short = decode(std::iter::once(&input[..used - 1]));
            assert_eq!(short, Ok((used - 1, None)), "complete before its end");
        }
        Ok((used, None)) => {
            assert!(used == input.len() && used < 16 + PROXY_V2_LENGTH);
            assert_eq!(plain::proxy(input), None);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(plain::proxy(input), None, "{error}");
        }
    }
});

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(usize, Option<Source>), ProxyError> {
    let (mut decoder, mut all) = (Decoder::new(), 0);
    for piece in pieces {
        let (used, source) = decoder.decode(piece)?;
        all += used;
        if source.is_some() {
            return Ok((all, source));
        }
        assert_eq!(used, piece.len(), "input is left before the end");
    }
    Ok((all, None))
}
