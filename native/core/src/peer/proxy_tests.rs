//! The PROXY parser: each form, each refusal, at every byte border.

use proptest::prelude::*;

use super::*;

type Decoded = Result<(usize, Option<Source>), ProxyError>;

fn whole(bytes: &[u8]) -> Decoded {
    Decoder::new().decode(bytes)
}

/// The same in two pieces at every border, and byte by byte.
#[track_caller]
fn same_in_pieces(bytes: &[u8]) -> Decoded {
    let expected = whole(bytes);
    for cut in 0..=bytes.len() {
        assert_eq!(in_pieces([&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}");
    }
    assert_eq!(in_pieces(bytes.chunks(1)), expected, "byte by byte");
    expected
}

fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let (mut decoder, mut all) = (Decoder::new(), 0);
    for piece in pieces {
        let (used, source) = decoder.decode(piece)?;
        all += used;
        if source.is_some() {
            return Ok((all, source));
        }
        assert_eq!(used, piece.len());
    }
    Ok((all, None))
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
}

fn client(text: &str) -> Option<Source> {
    Some(Source::Client { address: text.parse().unwrap(), is_tls: false })
}

const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

#[test]
fn takes_every_form_of_version_1() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 10.0.0.1 4711 80", client("192.0.2.1:4711")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", client("255.255.255.255:65535")),
        ("PROXY TCP4 192.0.2.1 10.0.0.1 0 0", client("192.0.2.1:0")),
        ("PROXY TCP6 2001:db8::1 ::1 4711 80", client("[2001:db8::1]:4711")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80", client("192.0.2.1:4711")),
        ("PROXY UNKNOWN", Some(Source::Peer)),
        ("PROXY UNKNOWN ffff::1 anything at all", Some(Source::Peer)),
    ] {
        let bytes = format!("{line}\r\n");
        let request = format!("{bytes}GET / HTTP/1.1\r\n\r\n");
        assert_eq!(same_in_pieces(request.as_bytes()), Ok((bytes.len(), source)), "{line}");
        assert_eq!(whole(&bytes.as_bytes()[..bytes.len() - 1]), Ok((bytes.len() - 1, None)), "{line}");
    }
}

#[test]
fn refuses_lines_that_are_not_the_grammar() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY tcp4 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.01 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rx\n",
        "PROXY TCP4 192.0.2.1\r 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 1 \u{e9}\r\n",
    ] {
        assert_eq!(same_in_pieces(line.as_bytes()), Err(ProxyError::Line), "{line}");
    }
}

#[test]
fn refuses_what_is_no_header_at_once() {
    for bytes in
        ["GET / HTTP/1.1\r\n", "P ", "PROXX", "proxy UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\r", "\r\nGET", " "]
    {
        assert_eq!(same_in_pieces(bytes.as_bytes()), Err(ProxyError::Signature), "{bytes}");
    }
    assert_eq!(whole(b""), Ok((0, None)));
    assert_eq!(whole(b"PROX"), Ok((4, None)));
}

/// The longest line, one byte less, and one more.
#[test]
fn lines_have_a_limit() {
    for (length, result) in [
        (limits::PROXY_V1_LINE - 1, Ok(Some(Source::Peer))),
        (limits::PROXY_V1_LINE, Ok(Some(Source::Peer))),
        (limits::PROXY_V1_LINE + 1, Err(ProxyError::LineTooLong)),
    ] {
        let start = "PROXY UNKNOWN ";
        let line = format!("{start}{}\r\n", "x".repeat(length - start.len() - 2));
        assert_eq!(same_in_pieces(line.as_bytes()), result.map(|source| (length, source)), "{length}");
    }
}

#[test]
fn takes_every_form_of_version_2() {
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    v6[32..34].copy_from_slice(&4711_u16.to_be_bytes());
    let mut mapped = v6;
    mapped[..16].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
    let extra = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    for (command, family, rest, source) in [
        (1, 0x11, &V4[..], client("192.0.2.1:4711")),
        (1, 0x11, &extra, client("192.0.2.1:4711")),
        (1, 0x21, &v6, client("[2001:db8::1]:4711")),
        (1, 0x21, &mapped, client("192.0.2.1:4711")),
        (1, 0x31, &[b'/'; 216], Some(Source::Peer)),
        (1, 0x00, &[], Some(Source::Peer)),
        (1, 0x00, &[1, 2, 3], Some(Source::Peer)),
        (0, 0x00, &[], Some(Source::Peer)),
        (0, 0x11, &V4, Some(Source::Peer)),
        (0, 0xff, &[1], Some(Source::Peer)),
    ] {
        let header = v2(command, family, rest);
        let request = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(same_in_pieces(&request), Ok((header.len(), source)), "{command} {family:x}");
        assert_eq!(whole(&header[..header.len() - 1]), Ok((header.len() - 1, None)));
    }
}

/// A proxy says behind the addresses whether the client came by TLS: only an entry of that type, whose value has the flag,
/// and whatever stands before and behind it, whole or cut off by the end of the header.
#[test]
fn version_2_tells_of_tls() {
    const ALPN: &[u8] = b"\x01\0\x02h2";
    const TLS: &[u8] = b"\x20\0\x05\x01\0\0\0\0";
    const NO_TLS: &[u8] = b"\x20\0\x05\x06\0\0\0\0";
    const EMPTY: &[u8] = b"\x04\0\0";
    for (entries, expected) in [
        (&[TLS][..], true),
        (&[NO_TLS], false),
        (&[ALPN, EMPTY, TLS, EMPTY], true),
        (&[b"\x20\0\x0d\x07\0\0\0\0\x21\0\x05TLSv1", ALPN], true),
        (&[TLS, NO_TLS], false),
        (&[b"\x20\x01\0\x01"], true),
        (&[b"\x20\0"], false),
        (&[b"\x20\0\0", b"\x01\0\x01\x01"], false),
        (&[b"\x04\0\x08", TLS], false),
        (&[], false),
    ] {
        let header = v2(1, 0x11, &[&V4[..], &entries.concat()].concat());
        let address = "192.0.2.1:4711".parse().unwrap();
        let expected = Some(Source::Client { address, is_tls: expected });
        assert_eq!(same_in_pieces(&header), Ok((header.len(), expected)), "{entries:?}");
    }
    // What speaks for the proxy itself, or for a unix socket, says nothing of a client.
    for (command, family, addresses) in [(0, 0x11, &V4[..]), (1, 0, &[]), (1, 0x31, &[0x20; 216])] {
        let header = v2(command, family, &[addresses, TLS].concat());
        assert_eq!(same_in_pieces(&header), Ok((header.len(), Some(Source::Peer))));
    }
}

#[test]
fn refuses_what_version_2_does_not_know() {
    let mut version = v2(1, 0x11, &V4);
    version[12] = 0x31;
    for (header, error) in [
        (version, ProxyError::Version),
        (v2(2, 0x11, &V4), ProxyError::Command),
        (v2(15, 0x11, &V4), ProxyError::Command),
        (v2(1, 0x12, &V4), ProxyError::Family),
        (v2(1, 0x22, &[0; 36]), ProxyError::Family),
        (v2(1, 0x41, &V4), ProxyError::Family),
        (v2(1, 0x10, &V4), ProxyError::Family),
        (v2(1, 0x11, &V4[..11]), ProxyError::TooShort),
        (v2(1, 0x21, &[0; 35]), ProxyError::TooShort),
        (v2(1, 0x31, &[0; 215]), ProxyError::TooShort),
    ] {
        assert_eq!(same_in_pieces(&header), Err(error));
        assert!(!error.to_string().is_empty());
    }
}

/// What proxies add is skipped up to the limit: one byte less, as much, one more. Nothing is allocated for it.
#[test]
fn additions_have_a_limit() {
    for (length, fits) in [
        (limits::PROXY_V2_LENGTH - 1, true),
        (limits::PROXY_V2_LENGTH, true),
        (limits::PROXY_V2_LENGTH + 1, false),
    ] {
        let mut rest = V4.to_vec();
        rest.resize(length, 7);
        let header = v2(1, 0x11, &rest);
        let expected =
            if fits { Ok((header.len(), client("192.0.2.1:4711"))) } else { Err(ProxyError::TooLong) };
        assert_eq!(same_in_pieces(&header), expected, "{length}");
    }
}

proptest! {
    /// Any bytes, cut anywhere: the same end, and no panic.
    #[test]
    fn cuts_change_nothing(start in 0_usize..4, rest in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..100) {
        let starts: [&[u8]; 4] = [b"", b"PROXY TCP4 ", &SIGNATURE[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"];
        let bytes = [starts[start], &rest].concat();
        let cut = cut.min(bytes.len());
        prop_assert_eq!(in_pieces([&bytes[..cut], &bytes[cut..]]), whole(&bytes));
    }
}
