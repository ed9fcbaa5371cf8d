//! HTTP packets as `erlang:decode_packet/3` has them: a packet written out again is the same packet, and a head that is
//! taken apart at once gives what its lines give one by one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use megaphone_core::packet::{
    FIELDS, HttpPacket, Known, MAX_TITLE_CASE, OTHER_FIELDS, Target, USUAL_FIELDS, Uri, Whole, field_index,
    field_line, start_line, title_case,
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
    let mut fields = Vec::new();
    let Some(whole) = Whole::parse(input, |field| fields.push(field)) else { return };
    let mut lines = input[..whole.head_len].split_inclusive(|byte| *byte == b'\n');
    let uri = match whole.target {
        Target::Star => Uri::Star,
        Target::Path(path) => Uri::Path(path.of(input)),
    };
    let version = (1, u32::from(whole.minor));
    let request = HttpPacket::Request { method: whole.method.of(input), uri, version };
    assert_eq!(lines.next().map(start_line), Some(request));
    let mut body_len = 0;
    for field in &fields {
        let name = field.name.of(input);
        let value = field.value.of(input);
        assert_eq!(lines.next().map(field_line), Some(HttpPacket::Field { name, value }));
        let exact = FIELDS.iter().chain(&OTHER_FIELDS).position(|known| known.as_bytes() == name);
        let usual = USUAL_FIELDS.iter().position(|(n, v)| n.as_bytes() == name && v.as_bytes() == value);
        let known = match (usual, exact, field_index(name)) {
            (Some(at), _, _) => Known::Field(at as u8),
            (_, Some(at), _) => Known::ExactName(at as u8),
            (_, _, Some(at)) => Known::Name(at as u8),
            _ => Known::No,
        };
        assert_eq!(field.known, known);
        assert!(!name.eq_ignore_ascii_case(b"transfer-encoding"));
        if name.eq_ignore_ascii_case(b"content-length") {
            body_len = std::str::from_utf8(value).unwrap().parse().unwrap();
        }
    }
    assert_eq!(whole.body_len, body_len);
    assert_eq!(lines.next().map(field_line), Some(HttpPacket::EndOfHead));
    assert_eq!(lines.next(), None);
}
