//! Scripts of operations on the connection table, against a model of what each connection has sent and been given.
//! See `megaphone_fuzz::table` for what is asserted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_fuzz::{Script, table};

fuzz_target!(|input: &[u8]| table::run(&mut Script::new(input)));
