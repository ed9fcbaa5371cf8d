//! One link, as a connection manager has it to ejabberd, or the other end of it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use megaphone_core::link::{Decoder, Frame, Handshake, Hello, Role};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// Bytes that the other end may send each user before it is granted more: so many that none has to be. How much it really
/// has waiting for a user is bounded by what it is asked.
const WINDOW: u32 = 1 << 30;

/// Reads at once; what is left is read after others had their turn.
const READS: usize = 16;

/// Where ejabberd listens for links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a unix-domain socket.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                text.parse().map(Self::Tcp).map_err(|_| format!("neither ADDR:PORT nor unix:/PATH: {text}"))
            }
        }
    }
}

trait Socket: Read + Write + Source + Send {}
impl<T: Read + Write + Source + Send> Socket for T {}

/// A link.
pub struct Link {
    socket: Box<dyn Socket>,
    handshake: Handshake,
    decoder: Decoder,
    buffer: Box<[u8]>,
    /// Frames that have to go, of which so many bytes have gone.
    output: Vec<u8>,
    gone: usize,
    /// There may be something to read.
    pub readable: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("output", &self.output.len()).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects, and greets.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn connect(target: &Target, registry: &Registry, token: Token) -> io::Result<Self> {
        let socket: Box<dyn Socket> = match target {
            Target::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Box::new(TcpStream::from_std(stream))
            }
            Target::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Box::new(UnixStream::from_std(stream))
            }
        };
        Self::new(socket, Role::Ecm, registry, token)
    }

    /// Is ejabberd's end for who has connected, and greets; it takes WebSockets.
    ///
    /// # Errors
    ///
    /// When the system refuses to watch it.
    pub fn accepted(stream: UnixStream, registry: &Registry, token: Token) -> io::Result<Self> {
        Self::new(Box::new(stream), Role::Ejabberd, registry, token)
    }

    fn new(mut socket: Box<dyn Socket>, role: Role, registry: &Registry, token: Token) -> io::Result<Self> {
        registry.register(&mut *socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let xmpp = if role == Role::Ejabberd { Hello::XMPP } else { 0 };
        let hello = Hello { role, features: Hello::CREDIT | xmpp, window: WINDOW, name: "megaphone-million" };
        let handshake = Handshake::new(hello, None);
        let decoder = handshake.decoder();
        let mut output = Vec::new();
        handshake.greet(&mut output);
        let buffer = vec![0; 65_536].into();
        Ok(Self { socket, handshake, decoder, buffer, output, gone: 0, readable: true })
    }

    /// Where frames are appended that have to go.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    ///
    /// When the link is broken.
    pub fn flush(&mut self) -> Result<(), String> {
        while self.gone < self.output.len() {
            match self.socket.write(&self.output[self.gone..]) {
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("writing to a link: {error}")),
            }
        }
        self.output.clear();
        self.gone = 0;
        Ok(())
    }

    /// Reads what is there, within limits, and gives each frame to `take`, which appends to the output. Frames about the
    /// link itself are seen to here; hello is given on.
    ///
    /// # Errors
    ///
    /// When the link is broken, or what `take` fails with.
    pub fn read(
        &mut self,
        mut take: impl FnMut(Frame<'_>, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..READS {
            let count = match self.socket.read(&mut self.buffer) {
                Ok(0) => return Err("the other end closed a link".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(error) => return Err(format!("reading from a link: {error}")),
            };
            self.decoder.push(&self.buffer[..count]);
            while let Some(frame) = self.decoder.next().map_err(|error| error.to_string())? {
                match frame {
                    Frame::Ping(bytes) => Frame::Pong(bytes).encode(&mut self.output),
                    Frame::Error { id: 0, text, .. } => {
                        return Err(format!("the other end ends a link: {text}"));
                    }
                    Frame::Hello(hello) => {
                        self.handshake.hello(&hello).map_err(|error| error.to_string())?;
                        take(frame, &mut self.output)?;
                    }
                    frame => take(frame, &mut self.output)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_to_connect() {
        assert_eq!("unix:/run/x".parse(), Ok(Target::Unix("/run/x".into())));
        let address = SocketAddr::from(([127, 0, 0, 1], 6280));
        assert_eq!("127.0.0.1:6280".parse(), Ok(Target::Tcp(address)));
        assert!("localhost".parse::<Target>().is_err());
    }
}
