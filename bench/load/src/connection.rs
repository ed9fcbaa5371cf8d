//! One TCP connection that never blocks.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// A connection with the bytes that came and were not yet used, and those that still have to go.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    closed: bool,
}

impl Connection {
    /// Begins to connect, from this address of the machine.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(
        target: SocketAddr,
        source: Option<SocketAddr>,
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
        Ok(Self { stream, input: Vec::new(), output: Vec::new(), closed: false })
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
        self.output.extend_from_slice(bytes);
        self.flush()
    }

    /// Takes what has come, and sends what can go.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn ready(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16_384];
        while !self.closed {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if is_temporary(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) if length == self.output.len() => self.output = Vec::new(),
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if is_temporary(&error) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The system will tell when it goes on. Not connected: not yet.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
