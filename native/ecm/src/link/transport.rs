//! The bytes of a link: a socket, and TLS over it where the server asks for that.
//!
//! One link is one connection, so rustls may keep buffers of its own here. What it has decrypted goes to the decoder at
//! once, so nothing that could be read is ever left in it.

use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use megaphone_core::link::Decoder;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;

/// How a server begins that was not spoken to by TLS, and wants it: an alert (RFC 8446, 5.1). No frame is that long.
const ALERT: [u8; 2] = [21, 3];

/// Why nothing goes over it any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// The other end closed it.
    Closed,
    /// The other end is gone without the close that TLS demands: something was cut off, or its program ended.
    Truncated,
    /// The other end takes nothing.
    Full,
    /// The socket's error.
    Io(io::Error),
    /// What the other end sent is not what TLS wants, or its certificate is not.
    Tls(rustls::Error),
    /// The other end wants TLS, and this one does not speak it.
    Plain,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection"),
            Self::Truncated => f.write_str("it ended the connection without closing TLS"),
            Self::Full => f.write_str("it takes no more bytes"),
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Plain => f.write_str("its listener has `tls: true`: write `server` as tls://HOST:PORT"),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    /// Several records at once.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(bufs),
            Self::Unix(stream) => stream.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection to a server.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    /// Nothing was read yet.
    is_fresh: bool,
    /// The other end has closed TLS: nothing that comes counts.
    is_over: bool,
}

impl Transport {
    /// Begins to connect to a unix-domain socket.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(|stream| Self {
            socket: Socket::Unix(stream),
            tls: None,
            is_fresh: true,
            is_over: false,
        })
    }

    /// Begins to connect to an address, to speak TLS there if there is something to speak it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn tcp(address: SocketAddr, tls: Option<ClientConnection>) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        // Small frames must not wait for others; without it they are late, not lost.
        let _ = stream.set_nodelay(true);
        Ok(Self { socket: Socket::Tcp(stream), tls: tls.map(Box::new), is_fresh: true, is_over: false })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut self.socket {
            Socket::Tcp(stream) => registry.register(stream, token, interest),
            Socket::Unix(stream) => registry.register(stream, token, interest),
        }
    }

    /// Why a connection attempt failed; `Ok(false)`: not decided yet.
    pub(super) fn connected(&self) -> Result<bool, Lost> {
        let (error, peer) = match &self.socket {
            Socket::Tcp(stream) => (stream.take_error(), stream.peer_addr().map(drop)),
            Socket::Unix(stream) => (stream.take_error(), stream.peer_addr().map(drop)),
        };
        match (error.map_err(Lost::Io)?, peer) {
            (Some(error), _) => Err(Lost::Io(error)),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(Lost::Io(error)),
        }
    }

    /// Whether the TLS handshake has yet to be completed.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether records wait for the socket.
    pub(super) fn holds_records(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Whether the other end has said that nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Writes as far as the socket takes it; answers how much of `output` was taken. Before the TLS handshake is over that
    /// is nothing.
    pub(super) fn write(&mut self, output: &[u8]) -> Result<usize, Lost> {
        let mut taken = 0;
        loop {
            let rest = &output[taken..];
            // Records first: rustls encrypts some 64 kB ahead at most.
            let result = match &mut self.tls {
                Some(tls) if tls.wants_write() => {
                    tls.write_tls(&mut self.socket).map(|count| (count > 0).then_some(0))
                }
                Some(tls) if tls.is_handshaking() => return Ok(taken),
                _ if rest.is_empty() => return Ok(taken),
                Some(tls) => tls.writer().write(rest).map(|count| (count > 0).then_some(count)),
                None => self.socket.write(rest).map(|count| (count > 0).then_some(count)),
            };
            match result {
                Ok(Some(count)) => taken += count,
                Ok(None) => return Err(Lost::Full),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::Io(error)),
            }
        }
    }

    /// Reads once, into the decoder; answers how many bytes the socket gave, 0 for none at this time. Fewer than
    /// `scratch` holds are all that there were.
    pub(super) fn read(&mut self, scratch: &mut [u8], decoder: &mut Decoder) -> Result<usize, Lost> {
        if self.is_over {
            return Err(Lost::Closed);
        }
        let count = loop {
            match self.socket.read(scratch) {
                Ok(0) if self.tls.is_some() && !self.is_handshaking() => return Err(Lost::Truncated),
                Ok(0) => return Err(Lost::Closed),
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::Io(error)),
            }
        };
        let is_first = std::mem::replace(&mut self.is_fresh, false);
        match &mut self.tls {
            None if is_first && scratch[..count].starts_with(&ALERT) => return Err(Lost::Plain),
            Some(tls) => self.is_over = decrypt(tls, &scratch[..count], decoder)?,
            None => decoder.push(&scratch[..count]),
        }
        Ok(count)
    }

    /// Tells the other end that nothing more comes, if TLS is spoken. What the socket does not take at once is lost.
    pub(super) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = self.write(&[]);
        }
    }
}

/// Gives the text of records to the decoder; true: the other end has closed TLS.
fn decrypt(tls: &mut ClientConnection, mut records: &[u8], decoder: &mut Decoder) -> Result<bool, Lost> {
    while !records.is_empty() {
        // Some kilobytes at a time.
        if tls.read_tls(&mut records).map_err(Lost::Io)? == 0 {
            return Ok(true);
        }
        let state = tls.process_new_packets().map_err(Lost::Tls)?;
        let mut reader = tls.reader();
        // An error says that there is no more text now.
        while let Ok(text) = reader.fill_buf()
            && !text.is_empty()
        {
            decoder.push(text);
            let length = text.len();
            reader.consume(length);
        }
        if state.peer_has_closed() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use megaphone_core::link::{Frame, Hello, Role};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;

    struct Pair {
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    }

    impl Pair {
        fn new(version: &'static SupportedProtocolVersion) -> Self {
            let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let provider = Arc::new(default_provider());
            let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            Self { client: client.into(), server: server.into() }
        }

        /// Both ends, after the handshake.
        fn greeted(&self) -> (ClientConnection, ServerConnection) {
            let name = ServerName::try_from("a").unwrap();
            let mut client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
            let mut decoder = Decoder::new();
            while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
                let mut bytes = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut bytes).unwrap();
                }
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    server.read_tls(&mut rest).unwrap();
                    server.process_new_packets().unwrap();
                }
                assert!(!decrypt(&mut client, &records(&mut server), &mut decoder).unwrap());
            }
            (client, server)
        }
    }

    fn records(server: &mut ServerConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn frames() -> Vec<u8> {
        let hello = Hello { role: Role::Ejabberd, features: Hello::CREDIT, window: 131_072, name: "a" };
        let mut out = Vec::new();
        Frame::Hello(hello).encode(&mut out);
        Frame::Ping([1; 8]).encode(&mut out);
        Frame::Ping([2; 8]).encode(&mut out);
        out
    }

    /// As many pings as were sent come out.
    fn assert_whole(decoder: &mut Decoder) {
        assert!(matches!(decoder.next().unwrap(), Some(Frame::Hello(_))));
        for number in 1..=2 {
            assert_eq!(decoder.next().unwrap(), Some(Frame::Ping([number; 8])));
        }
        assert_eq!(decoder.next().unwrap(), None);
    }

    /// Records that are cut in two anywhere give the same frames, and the end is known with its last byte.
    #[test]
    fn records_may_be_cut_anywhere() {
        for version in [&TLS12, &TLS13] {
            let pair = Pair::new(version);
            for cut in 0.. {
                let (mut client, mut server) = pair.greeted();
                // Frames that go over the borders of records.
                for piece in frames().chunks(20) {
                    server.writer().write_all(piece).unwrap();
                }
                server.send_close_notify();
                let bytes = records(&mut server);
                if cut > bytes.len() {
                    break;
                }
                let mut decoder = Decoder::new();
                let (first, second) = bytes.split_at(cut);
                assert_eq!(decrypt(&mut client, first, &mut decoder).unwrap(), second.is_empty());
                if !second.is_empty() {
                    assert!(decrypt(&mut client, second, &mut decoder).unwrap());
                }
                assert_whole(&mut decoder);
            }
        }
    }

    /// What comes after the close is not looked at; a record that was damaged gives no text, and where the damage is not in
    /// its header an error.
    #[test]
    fn damage_is_an_error() {
        let pair = Pair::new(&TLS13);
        let (mut client, mut server) = pair.greeted();
        server.writer().write_all(&frames()).unwrap();
        server.send_close_notify();
        let mut bytes = records(&mut server);
        bytes.extend_from_slice(b"anything");
        let mut decoder = Decoder::new();
        assert!(decrypt(&mut client, &bytes, &mut decoder).unwrap());
        assert_whole(&mut decoder);
        for at in 0.. {
            let (mut client, mut server) = pair.greeted();
            server.writer().write_all(&frames()).unwrap();
            let mut bytes = records(&mut server);
            if at == bytes.len() {
                break;
            }
            bytes[at] ^= 1;
            let mut decoder = Decoder::new();
            let result = decrypt(&mut client, &bytes, &mut decoder);
            match result {
                Err(Lost::Tls(_)) => assert!(matches!(decoder.next(), Ok(None)), "{at}"),
                // Type and version of a record count for nothing: the true ones are inside.
                Ok(false) if at < 3 => assert_whole(&mut decoder),
                // With a greater length more of it is waited for.
                Ok(false) if (3..5).contains(&at) => assert!(matches!(decoder.next(), Ok(None))),
                other => panic!("{at}: {other:?}"),
            }
        }
    }

    /// Text of any amount passes, since what was decrypted is taken at once.
    #[test]
    fn much_text_passes() {
        let (mut client, mut server) = Pair::new(&TLS13).greeted();
        server.set_buffer_limit(None);
        let mut text = frames();
        for _ in 0..60_000 {
            Frame::Pong([3; 8]).encode(&mut text);
        }
        server.writer().write_all(&text).unwrap();
        let mut decoder = Decoder::new();
        assert!(!decrypt(&mut client, &records(&mut server), &mut decoder).unwrap());
        let mut count = 0;
        while decoder.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 60_003);
    }
}
