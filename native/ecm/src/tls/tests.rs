//! Sessions against rustls' own client, without sockets.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use megaphone_core::limits;
use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::session::{Scratch, Session};
use super::{Certificates, Pair as Files, Tls};

/// A socket that takes so many bytes and then no more.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend_from_slice(&bytes[..count]);
        self.room -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pair {
    client: ClientConnection,
    session: Session,
    scratch: Scratch,
    sink: Sink,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        Self::cut_into(version, None)
    }

    /// The client's messages come in records of at most so many bytes.
    fn cut_into(version: &'static SupportedProtocolVersion, fragment: Option<usize>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.max_fragment_size = fragment;
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::new(super::compact::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            client: ClientConnection::new(Arc::new(client), "a.example".try_into().unwrap()).unwrap(),
            session: Session::new(&Arc::new(server)).unwrap(),
            scratch: Scratch::default(),
            sink: Sink { room: usize::MAX, ..Sink::default() },
        }
    }

    fn greeted(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        pair.greet(usize::MAX);
        pair
    }

    fn greet(&mut self, cut: usize) {
        while self.client.is_handshaking() || self.session.is_handshaking() {
            self.up(cut);
            self.down();
        }
        self.up(cut);
        assert_eq!(self.session.heap(), 0);
    }

    /// What the client has to send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        records
    }

    /// What the client has to send goes to the session, cut into pieces.
    fn up(&mut self, cut: usize) {
        let mut records = self.records();
        for piece in records.chunks_mut(cut) {
            self.session.receive(piece, &mut self.sink, &mut self.scratch).unwrap();
        }
    }

    /// What the session has sent goes to the client; answers the text in it.
    fn down(&mut self) -> Vec<u8> {
        let records = std::mem::take(&mut self.sink.bytes);
        let mut rest = &records[..];
        let mut text = Vec::new();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets().unwrap();
            let mut part = [0; 4_096];
            while let Ok(count @ 1..) = self.client.reader().read(&mut part) {
                text.extend_from_slice(&part[..count]);
            }
        }
        text
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.session.write(bytes, &mut self.sink, &mut self.scratch).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However the records are cut and however little the socket takes at a time, the text is the same on the other end,
    /// and no buffer is left behind.
    #[test]
    fn text_passes_both_ways(
        is_new: bool,
        fragment in prop::option::of(32_usize..300),
        cut in 1_usize..600,
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40_000), 1..4),
        room in 1_usize..9_000,
    ) {
        let mut pair = Pair::cut_into(if is_new { &TLS13 } else { &TLS12 }, fragment);
        pair.greet(cut);
        for part in &parts {
            pair.client.writer().write_all(part).unwrap();
            pair.up(cut);
        }
        prop_assert!(pair.scratch.plain == parts.concat());
        pair.scratch.plain.clear();
        pair.sink.room = 0;
        let mut got = Vec::new();
        for part in &parts {
            let mut sent = 0;
            while sent < part.len() {
                pair.sink.room = room;
                let before = pair.session.pending();
                let taken = pair.write(&part[sent..]);
                prop_assert!(taken <= limits::DATA_CHUNK);
                prop_assert!(taken == 0 || before <= room, "taken while a record waits");
                prop_assert!(pair.session.pending() <= limits::TLS_RECORD);
                sent += taken;
                got.extend(pair.down());
            }
        }
        pair.sink.room = usize::MAX;
        prop_assert!(pair.session.close(&mut pair.sink, &mut pair.scratch).is_ok());
        prop_assert!(pair.session.flush(&mut pair.sink).unwrap());
        got.extend(pair.down());
        prop_assert!(got == parts.concat());
        prop_assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        prop_assert_eq!(pair.session.heap(), 0);
    }
}

/// A record may come in two pieces, cut anywhere; until it is whole nothing of it is given out, and its beginning is held.
#[test]
fn a_record_may_be_cut_anywhere() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::greeted(version);
        let mut length = 2;
        let mut at = 1;
        while at < length {
            pair.client.writer().write_all(b"hello").unwrap();
            let mut records = Vec::new();
            pair.client.write_tls(&mut records).unwrap();
            length = records.len();
            let (one, other) = records.split_at_mut(at);
            pair.session.receive(one, &mut pair.sink, &mut pair.scratch).unwrap();
            assert!(pair.scratch.plain.is_empty() && pair.session.unfinished() == at);
            // An answer may be sent meanwhile.
            assert_eq!(pair.write(b"meanwhile"), 9);
            assert_eq!(pair.down(), b"meanwhile");
            pair.session.receive(other, &mut pair.sink, &mut pair.scratch).unwrap();
            assert_eq!(pair.scratch.plain, b"hello");
            assert_eq!(pair.session.heap(), 0);
            pair.scratch.plain.clear();
            at += 1;
        }
    }
}

/// Bytes of a handshake message in several records are held up to the length of the longest record, not beyond.
#[test]
fn a_message_has_a_longest_length() {
    for (extra, fits) in [(-1, true), (0, true), (1, false)] {
        let mut pair = Pair::new(&TLS13);
        // A client hello of 65,535 bytes, of which more and more comes.
        let mut bytes = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
        bytes.resize(5 + 0x4000, 0);
        let rest = (limits::TLS_RECORD + 5).checked_add_signed(extra).unwrap() - bytes.len() - 5;
        bytes.extend([0x16, 3, 1, (rest >> 8) as u8, rest as u8]);
        bytes.resize(bytes.len() + rest - 5, 0);
        bytes.truncate(limits::TLS_RECORD.checked_add_signed(extra).unwrap());
        let result = pair.session.receive(&mut bytes, &mut pair.sink, &mut pair.scratch);
        assert_eq!(result.is_ok(), fits, "{extra}: {result:?}");
    }
}

/// Whatever comes instead of a handshake is no panic; what is refused once stays so.
#[test]
fn noise_is_refused() {
    proptest!(ProptestConfig { cases: 300, ..ProptestConfig::default() }, |(
        mut noise in prop::collection::vec(any::<u8>(), 1..400),
        is_record: bool,
    )| {
        let mut pair = Pair::new(&TLS13);
        if is_record {
            noise.splice(0..0, [0x16, 3, 1, 0, noise.len().min(255) as u8]);
        }
        let first = pair.session.receive(&mut noise, &mut pair.sink, &mut pair.scratch);
        let second = pair.session.receive(&mut noise, &mut pair.sink, &mut pair.scratch);
        prop_assert!(first.is_ok() || second.is_err());
        prop_assert!(pair.session.is_handshaking() && pair.scratch.plain.is_empty());
    });
}

/// A client that asks for new keys again and again and takes no answer is refused before many bytes wait.
#[test]
fn key_updates_do_not_pile_up() {
    let mut pair = Pair::greeted(&TLS13);
    pair.sink.room = 0;
    for round in 0.. {
        pair.client.refresh_traffic_keys().unwrap();
        let mut records = pair.records();
        if pair.session.receive(&mut records, &mut pair.sink, &mut pair.scratch).is_err() {
            break;
        }
        assert!(round < 1_000);
        assert!(pair.session.pending() <= limits::TLS_OUTPUT);
    }
    // Nothing is possible then, and nothing panics.
    assert!(pair.session.write(b"x", &mut pair.sink, &mut pair.scratch).map_or(true, |count| count == 0));
    assert!(pair.session.close(&mut pair.sink, &mut pair.scratch).is_ok());
}

/// While n-1 handshakes wait for the processor a client may be accepted; at n and n+1 none is, however few there are in all.
#[test]
fn a_backlog_holds_the_door() {
    let now = Instant::now();
    let mut tls = Tls::new(None, now);
    tls.queue.extend(1..limits::HANDSHAKE_BACKLOG as u64);
    assert!(tls.has_room(1, now));
    for _ in 0..2 {
        tls.queue.push_back(0);
        assert!(!tls.has_room(usize::MAX, now));
    }
    tls.queue.drain(..2);
    assert!(tls.has_room(1, now));
}

fn certificates() -> Certificates {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let dir = std::env::temp_dir().join(format!("megaphone-ecm-look-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let files = Files { certificate: dir.join("a.pem"), key: dir.join("a.key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let certificates = Certificates::load(vec![files]).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    certificates
}

/// Certificates are looked at once a day: not a moment before, and once then. Without any there is nothing to look at.
#[test]
fn expiry_is_looked_at_daily() {
    let now = Instant::now();
    assert_eq!(Tls::new(None, now).next_look(), None);
    let mut tls = Tls { look_at: Some(now), ..Tls::new(Some(certificates()), now) };
    let day = Duration::from_secs(limits::CERTIFICATE_LOOK);
    for (at, next) in
        [(now, now + day), (now + day - Duration::from_millis(1), now + day), (now + day, now + day * 2)]
    {
        tls.look(at);
        assert_eq!(tls.next_look(), Some(next));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A handshake or a conversation in which one byte was changed, or after which noise comes, ends without a panic and
    /// without text that was not sent.
    #[test]
    fn damage_is_refused(
        is_new: bool,
        fragment in prop::option::of(32_usize..300),
        greeted: bool,
        at: prop::sample::Index,
        change in 1_u8..,
        noise in prop::collection::vec(any::<u8>(), 0..40),
        cut in 1_usize..700,
    ) {
        let mut pair = Pair::cut_into(if is_new { &TLS13 } else { &TLS12 }, fragment);
        if greeted {
            pair.greet(usize::MAX);
            pair.client.writer().write_all(b"hello").unwrap();
        }
        let mut records = pair.records();
        let at = at.index(records.len());
        records[at] ^= change;
        records.extend(noise);
        let mut failed = false;
        for piece in records.chunks_mut(cut) {
            let result = pair.session.receive(piece, &mut pair.sink, &mut pair.scratch);
            prop_assert!(!failed || result.is_err());
            failed = result.is_err();
            if let Ok(count) = pair.session.write(b"answer", &mut pair.sink, &mut pair.scratch) {
                prop_assert!(count == 0 || !failed && greeted);
            }
        }
        prop_assert!(b"hello".starts_with(&pair.scratch.plain));
        let _ = pair.session.close(&mut pair.sink, &mut pair.scratch);
    }
}
