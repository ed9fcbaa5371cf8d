//! Frames: what is encoded is decoded, however it is cut; what is no frame is refused, whatever it is.

use std::net::SocketAddr;

use megaphone_core::limits::{MAX_AUTH_PAYLOAD, MAX_PAYLOAD, MIN_WINDOW};
use megaphone_core::link::{
    CloseReason, Decoder, ErrorCode, Frame, FrameError, Hello, Kind, Open, ReadyMode, Role,
};
use proptest::prelude::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

/// A frame that owns its bytes, since those of the protocol borrow.
#[derive(Debug, Clone)]
enum Sample {
    Hello(u32, u32, String),
    Open(u64, SocketAddr, SocketAddr, bool),
    Data(u64, Vec<u8>),
    Close(u64, u8),
    Error(u64, u8, String),
    Window(u64, u32),
    Ping([u8; 8]),
    Ready(u64, bool),
    Drain,
}

impl Sample {
    fn encode(&self, out: &mut Vec<u8>) {
        let frame = match self {
            Self::Hello(features, window, name) => {
                Frame::Hello(Hello { role: Role::Ecm, features: *features, window: *window, name })
            }
            Self::Open(id, client, local, tls) => Frame::Open {
                id: *id,
                open: Open { kind: Kind::Http, tls: *tls, client: *client, local: *local },
            },
            Self::Data(id, payload) => Frame::Data { id: *id, payload },
            Self::Close(id, code) => Frame::Close { id: *id, reason: CloseReason::from_code(*code) },
            Self::Error(id, code, text) => Frame::Error { id: *id, code: ErrorCode::from_code(*code), text },
            Self::Window(id, increment) => Frame::Window { id: *id, increment: *increment },
            Self::Ping(bytes) => Frame::Ping(*bytes),
            Self::Ready(id, tunnel) => {
                let mode = if *tunnel { ReadyMode::Tunnel } else { ReadyMode::Request };
                Frame::Ready { id: *id, mode }
            }
            Self::Drain => Frame::Drain,
        };
        frame.encode(out);
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let id = || 1..=u64::MAX;
    prop_oneof![
        (id(), address(), address(), any::<bool>()).prop_map(|(id, a, b, tls)| Sample::Open(id, a, b, tls)),
        (id(), prop::collection::vec(any::<u8>(), 1..200)).prop_map(|(id, bytes)| Sample::Data(id, bytes)),
        (id(), 0..8_u8).prop_map(|(id, code)| Sample::Close(id, code)),
        (any::<u64>(), 0..8_u8, ".{0,64}").prop_map(|(id, code, text)| Sample::Error(id, code, text)),
        (id(), any::<u32>()).prop_map(|(id, increment)| Sample::Window(id, increment)),
        any::<[u8; 8]>().prop_map(Sample::Ping),
        (id(), any::<bool>()).prop_map(|(id, tunnel)| Sample::Ready(id, tunnel)),
        Just(Sample::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A stream of frames cut into any pieces gives the frames back, byte for byte.
    #[test]
    fn streams_survive_any_cut(
        features in any::<u32>(),
        window in MIN_WINDOW..,
        name in "[ -~]{0,64}",
        samples in prop::collection::vec(sample(), 0..12),
        sizes in prop::collection::vec(1..64_usize, 1..8),
    ) {
        let mut stream = Vec::new();
        Sample::Hello(features, window, name).encode(&mut stream);
        samples.iter().for_each(|sample| sample.encode(&mut stream));
        let (mut decoder, mut again, mut rest) = (Decoder::new(), Vec::new(), &stream[..]);
        for size in sizes.iter().cycle() {
            let (part, after) = rest.split_at((*size).min(rest.len()));
            decoder.push(part);
            while let Some(frame) = decoder.next().map_err(|e| TestCaseError::fail(e.to_string()))? {
                frame.encode(&mut again);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(again, stream);
        prop_assert_eq!(decoder.pending(), 0);
    }

    /// Bytes that are anything never panic, and a refused stream stays refused.
    #[test]
    fn anything_else_is_refused_for_good(bytes in prop::collection::vec(any::<u8>(), 0..400), greet in any::<bool>()) {
        let mut decoder = Decoder::new();
        if greet {
            let mut hello = Vec::new();
            Sample::Hello(1, MIN_WINDOW, String::new()).encode(&mut hello);
            decoder.push(&hello);
        }
        decoder.push(&bytes);
        loop {
            match decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    decoder.push(&[0; 64]);
                    prop_assert_eq!(decoder.next(), Err(error));
                    break;
                }
            }
        }
    }
}

/// The limits of a frame hold at n - 1, n and n + 1.
#[test]
fn payloads_are_limited_to_the_byte() {
    let mut hello = Vec::new();
    Sample::Hello(0, MIN_WINDOW, String::new()).encode(&mut hello);
    for (size, fits) in
        [(0, false), (1, true), (MAX_PAYLOAD - 1, true), (MAX_PAYLOAD, true), (MAX_PAYLOAD + 1, false)]
    {
        let mut decoder = Decoder::new();
        decoder.push(&hello);
        decoder.push(&((size + 9) as u32).to_be_bytes());
        decoder.push(&[4, 0, 0, 0, 0, 0, 0, 0, 1]);
        decoder.push(&vec![0; size]);
        assert!(matches!(decoder.next(), Ok(Some(Frame::Hello(_)))));
        assert_eq!(matches!(decoder.next(), Ok(Some(Frame::Data { .. }))), fits, "{size} bytes");
    }
    let mut small = Vec::new();
    Sample::Hello(0, MIN_WINDOW - 1, String::new()).encode(&mut small);
    assert_eq!(Frame::parse(&small[4..]), Err(FrameError::Window(MIN_WINDOW - 1)));
}

/// Before authentication is done nothing but auth frames of a bounded size is waited for, and afterwards none is taken.
#[test]
fn strangers_may_only_authenticate() {
    let mut hello = Vec::new();
    Sample::Hello(0, MIN_WINDOW, String::new()).encode(&mut hello);
    let after = |frame: &Frame<'_>| {
        let mut decoder = Decoder::authenticating();
        decoder.push(&hello);
        assert!(matches!(decoder.next(), Ok(Some(Frame::Hello(_)))));
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        decoder.push(&bytes);
        decoder
    };
    let most = vec![0; MAX_AUTH_PAYLOAD];
    for size in [0, 1, MAX_AUTH_PAYLOAD - 1, MAX_AUTH_PAYLOAD] {
        let mut decoder = after(&Frame::Auth(&most[..size]));
        assert!(matches!(decoder.next(), Ok(Some(Frame::Auth(payload))) if payload.len() == size));
        // Another one may follow until it is over.
        let mut bytes = Vec::new();
        Frame::Auth(b"x").encode(&mut bytes);
        decoder.push(&bytes);
        decoder.admit();
        assert_eq!(decoder.next(), Err(FrameError::HelloOrder("auth")));
    }
    // Judged by its length and type alone.
    let mut decoder = after(&Frame::Auth(&[]));
    assert!(decoder.next().is_ok());
    decoder.push(&(MAX_AUTH_PAYLOAD as u32 + 10).to_be_bytes());
    assert_eq!(decoder.next(), Err(FrameError::Unauthenticated));
    let reason = Frame::Error { id: 0, code: ErrorCode::Auth, text: "no" };
    assert_eq!(after(&reason).next(), Ok(Some(reason)));
    for frame in [
        Frame::Ping([0; 8]),
        Frame::Drain,
        Frame::Data { id: 1, payload: b"x" },
        Frame::Window { id: 1, increment: 1 },
    ] {
        assert_eq!(after(&frame).next(), Err(FrameError::Unauthenticated), "{}", frame.name());
    }
    assert_eq!(after(&Frame::Auth(&[])).next(), Ok(Some(Frame::Auth(&[]))));
}
