//! HTTP packets as `erlang:decode_packet/3` has them: a packet written out again is the same packet, and a head that is
//! taken apart at once gives what its lines give one by one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::packet::{
    FIELDS, HttpPacket, MAX_TITLE_CASE, Slots, Uri, field_index, field_line, start_line, title_case,
    whole_head,
};

fuzz_target!(|input: &[u8]| {
    let line = &input[..input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1)];
    start(line);
    start(input);
    field(line);
    field(input);
    names(line);
    head(input);
});

fn start(line: &[u8]) {
    let packet = start_line(line);
    let mut again = Vec::new();
    match packet {
        HttpPacket::Error(all) => return assert_eq!(all, line),
        HttpPacket::Request { method, uri, version } => {
            assert!(line.starts_with(method) && !method.is_empty());
            again.extend_from_slice(method);
            again.push(b' ');
            write_uri(uri, &mut again);
            if version != (0, 9) {
                again.extend_from_slice(format!(" HTTP/{}.{}", version.0, version.1).as_bytes());
            }
        }
        HttpPacket::Response { version, status, phrase } => {
            again.extend_from_slice(format!("HTTP/{}.{} {status} ", version.0, version.1).as_bytes());
            again.extend_from_slice(phrase);
        }
        other => panic!("{other:?}"),
    }
    again.extend_from_slice(b"\r\n");
    assert_eq!(start_line(&again), packet, "{}", again.escape_ascii());
}

fn write_uri(uri: Uri<'_>, out: &mut Vec<u8>) {
    match uri {
        Uri::Star => out.push(b'*'),
        Uri::Path(path) | Uri::Other(path) => out.extend_from_slice(path),
        Uri::Scheme(scheme, rest) => out.extend_from_slice(&[scheme, b":", rest].concat()),
        Uri::Absolute { https, host, port, path } => {
            out.extend_from_slice(if https { b"https://" } else { b"http://" });
            out.extend_from_slice(host);
            if let Some(port) = port {
                out.extend_from_slice(format!(":{port}").as_bytes());
            }
            out.extend_from_slice(path);
        }
    }
}

fn field(line: &[u8]) {
    let packet = field_line(line);
    let again = match packet {
        HttpPacket::Error(all) => return assert_eq!(all, line),
        HttpPacket::EndOfHead => return assert!(line.len() <= 2),
        HttpPacket::Field { name, value } => {
            assert!(line.starts_with(name));
            [name, b": ", value, b"\r\n"].concat()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(field_line(&again), packet, "{}", again.escape_ascii());
}

fn names(name: &[u8]) {
    if name.len() <= MAX_TITLE_CASE {
        let (mut once, mut twice) = ([0; MAX_TITLE_CASE], [0; MAX_TITLE_CASE]);
        let titled = title_case(name, &mut once);
        assert!(titled.eq_ignore_ascii_case(name));
        assert_eq!(title_case(titled, &mut twice), titled);
    }
    let known = FIELDS.iter().position(|field| field.as_bytes().eq_ignore_ascii_case(name));
    assert_eq!(field_index(name), known);
}

fn head(input: &[u8]) {
    let mut slots = Slots::new();
    let Some(whole) = whole_head(input, &mut slots) else { return };
    let mut lines = input[..whole.len].split_inclusive(|byte| *byte == b'\n');
    assert_eq!(lines.next().map(start_line), Some(whole.request));
    for field in whole.fields {
        let field = HttpPacket::Field { name: field.name.as_bytes(), value: field.value };
        assert_eq!(lines.next().map(field_line), Some(field));
    }
    assert_eq!(lines.next().map(field_line), Some(HttpPacket::EndOfHead));
    assert_eq!(lines.next(), None);
}
