//! One TCP connection, with or without TLS, that never blocks.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustls::ClientConnection;

use crate::tls::Tls;

/// A connection with the bytes that came and were not yet used, and those that still have to go.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    input: Vec<u8>,
    output: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// Begins to connect, from this address of the machine. With TLS the handshake begins when the connection is there.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(
        target: SocketAddr,
        source: Option<SocketAddr>,
        tls: Option<&Tls>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let Some(source) = source {
            bind(&socket, &source)?;
        }
        match connect(&socket, &target) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = tls.map(Tls::connection).transpose().map_err(io::Error::other)?;
        Ok(Self { stream, tls, input: Vec::new(), output: Vec::new(), closed: false })
    }

    /// What came and was not used.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// The other side has closed; what came before may still be there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// So many bytes of the input were used. Many connections are idle for long: they keep no buffer.
    pub fn used(&mut self, bytes: usize) {
        if bytes >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..bytes);
        }
    }

    /// Sends, now or when there is room.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.output.extend_from_slice(bytes),
        }
        self.flush()
    }

    /// Takes what has come, and sends what can go.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or what came is no TLS or from somebody else.
    pub fn ready(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16_384];
        while !self.closed {
            match self.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(_) => {}
                Err(error) if is_temporary(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    /// The bytes that were read from the system.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let length = self.stream.read(buffer)?;
            self.input.extend_from_slice(&buffer[..length]);
            return Ok(length);
        };
        let length = tls.read_tls(&mut self.stream)?;
        let plain = tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
        if plain > 0 {
            let start = self.input.len();
            self.input.resize(start + plain, 0);
            tls.reader().read_exact(&mut self.input[start..])?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            let result = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.stream).map(drop),
                None if !self.output.is_empty() => match self.stream.write(&self.output) {
                    Ok(length) if length == self.output.len() => {
                        self.output = Vec::new();
                        Ok(())
                    }
                    other => other.map(|length| drop(self.output.drain(..length))),
                },
                _ => return Ok(()),
            };
            match result {
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
        }
    }
}

/// The system will tell when it goes on. Not connected: not yet.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
