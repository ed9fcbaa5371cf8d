//! A client's WebSocket, however its bytes are cut, against a reader that sees them all at once: the same messages go to
//! the node, and the same end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_fuzz::{Script, pieces, socket};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let seed = script.byte();
    let input = script.rest();
    socket::run(input, std::iter::once(input));
    socket::run(input, pieces(input, seed));
});
