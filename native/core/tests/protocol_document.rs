//! The examples in `docs/protocol.md` are frames of the protocol: each is decoded and encoded again.

use std::collections::BTreeSet;

use megaphone_core::link::Frame;

const NAMES: [&str; 11] =
    ["hello", "auth", "open", "data", "close", "error", "window", "ping", "pong", "drain", "ready"];

/// Name and bytes of each fenced block that begins with "frame NAME".
fn examples(document: &str) -> Vec<(String, Vec<u8>)> {
    let mut examples = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```frame ") else { continue };
        let hex = lines
            .by_ref()
            .take_while(|line| !line.starts_with("```"))
            .flat_map(|line| line.split(';').next().unwrap_or("").split_whitespace());
        let bytes = hex.map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits")).collect();
        examples.push((name.trim().to_owned(), bytes));
    }
    examples
}

/// Every type of frame has an example, and every example is a frame of its type, to the byte.
#[test]
fn every_example_in_the_document_is_such_a_frame() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    let document = std::fs::read_to_string(path).expect("docs/protocol.md");
    let mut seen = BTreeSet::new();
    for (name, bytes) in examples(&document) {
        let (length, body) = bytes.split_first_chunk::<4>().expect("a length");
        assert_eq!(u32::from_be_bytes(*length) as usize, body.len(), "length of the {name} example");
        let frame = Frame::parse(body).unwrap_or_else(|error| panic!("{name} example: {error}"));
        assert_eq!(frame.name(), name);
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{name} example encoded again");
        seen.insert(name);
    }
    assert_eq!(seen, NAMES.map(str::to_owned).into());
}
