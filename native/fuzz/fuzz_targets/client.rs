//! Scripts of what the client, the node and the clock do to a client connection of the connection manager, against a
//! model. See `megaphone_fuzz::client` for what is asserted.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| megaphone_fuzz::client::run(input));
