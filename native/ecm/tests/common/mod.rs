//! A connection manager on a free port, a scripted node at the other end of its link, and plain clients.
#![allow(dead_code, unused_imports, unreachable_pub)] // each test binary uses its own part

pub mod link_tls;
pub mod program;
pub mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

pub use megaphone_core::limits;
pub use megaphone_core::link::{CloseReason, Decoder, ErrorCode, Frame, Hello, Open, ReadyMode, Role};
pub use megaphone_ecm::signals::Command;
use megaphone_ecm::tls::Certificates;
use megaphone_ecm::{Config, Listeners, Server};

/// Nothing that a test waits for takes that long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running connection manager; stopped, and its result checked, when dropped.
pub struct Ecm {
    pub address: SocketAddr,
    /// For clients with TLS, if there are certificates.
    pub secure: Option<SocketAddr>,
    pub node: TcpListener,
    shutdown: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Ecm {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(change, None)
    }

    pub fn launch(change: impl FnOnce(&mut Config), certificates: Option<Certificates>) -> Self {
        Self::launch_at("127.0.0.1".parse().unwrap(), change, certificates)
    }

    pub fn launch_at(
        ip: IpAddr,
        change: impl FnOnce(&mut Config),
        certificates: Option<Certificates>,
    ) -> Self {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config::new(Server::Tcp(node.local_addr().unwrap().to_string()));
        change(&mut config);
        let (shutdown, reader) = UnixStream::pair().unwrap();
        let tls = certificates.map(|certificates| (TcpListener::bind((ip, 0)).unwrap(), certificates));
        let secure = tls.as_ref().map(|(listener, _)| listener.local_addr().unwrap());
        let tls = tls.map(|(listener, certificates)| (listener.into(), certificates));
        let listeners = Listeners { plain: Some(listener.into()), tls };
        let thread = std::thread::spawn(move || megaphone_ecm::run(listeners, config, reader));
        Self { address, secure, node, shutdown: Some(shutdown), thread: Some(thread) }
    }

    /// Asks for the certificates to be read again.
    pub fn reload(&mut self) {
        self.command(Command::Reload);
    }

    /// The manager and its link, greeted.
    pub fn linked() -> (Self, Node) {
        let ecm = Self::start();
        let node = ecm.accept();
        (ecm, node)
    }

    /// Accepts the link and exchanges hellos.
    pub fn accept(&self) -> Node {
        self.accept_with(limits::WINDOW)
    }

    pub fn accept_with(&self, window: u32) -> Node {
        let mut node = self.accept_raw();
        node.greet(window);
        node
    }

    pub fn accept_raw(&self) -> Node {
        let (stream, _) = self.node.accept().unwrap();
        Node::new(stream)
    }

    /// A client that connects from this address of the machine: any of 127.0.0.0/8.
    pub fn client_from(&self, ip: [u8; 4]) -> Client {
        Client::new(connect_from(ip, self.address))
    }

    pub fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// Asks the manager to stop; [`Ecm::join`] waits for it.
    pub fn stop(&mut self) {
        self.shutdown = None;
    }

    /// Says something to the manager, as signals do.
    pub fn command(&mut self, command: Command) {
        self.shutdown.as_mut().unwrap().write_all(&[command.byte()]).unwrap();
    }

    /// Waits until the manager has ended by itself.
    pub fn ended(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    pub fn join(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Ecm {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.join();
        }
    }
}

/// As `TcpStream::connect`, from a given address.
pub fn connect_from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((ip, 0))).unwrap();
    connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

pub fn hello(window: u32) -> Frame<'static> {
    Frame::Hello(Hello { role: Role::Ejabberd, features: Hello::CREDIT, window, name: "test" })
}

/// A frame that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Hello(String),
    Open(u64, Open),
    Data(u64, Vec<u8>),
    Close(u64, CloseReason),
    Error(u64, ErrorCode, String),
    Window(u64, u32),
    Ping,
    Pong([u8; 8]),
    Ended,
}

/// The node's end of the link.
pub struct Node<S = TcpStream> {
    pub stream: S,
    decoder: Decoder,
}

impl Node {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, decoder: Decoder::new() }
    }

    /// One that wants authentication first; [`Node::admit`] ends it.
    pub fn authenticating(stream: TcpStream) -> Self {
        Self { decoder: Decoder::authenticating(), ..Self::new(stream) }
    }
}

impl<S: Read + Write> Node<S> {
    /// One that speaks over something else.
    pub fn over(stream: S, decoder: Decoder) -> Self {
        Self { stream, decoder }
    }

    pub fn admit(&mut self) {
        self.decoder.admit();
    }

    pub fn send(&mut self, frame: &Frame<'_>) {
        let mut out = Vec::new();
        frame.encode(&mut out);
        self.send_bytes(&out);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next frame as it is; `None` when the manager closed the link.
    pub fn take_frame(&mut self) -> Option<Frame<'_>> {
        // Exactly one frame is read, so that the decoder need not be asked twice.
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).unwrap();
        self.decoder.push(&length);
        self.decoder.push(&body);
        self.decoder.next().unwrap()
    }

    /// Exchanges hellos, and no more: what waits for the link may come at once.
    pub fn exchange_hellos(&mut self, window: u32) {
        self.send(&hello(window));
        assert!(matches!(self.next(), Event::Hello(_)));
    }

    /// Exchanges hellos; the manager has handled ours then.
    pub fn greet(&mut self, window: u32) {
        self.exchange_hellos(window);
        self.send(&Frame::Ping([7; 8]));
        assert_eq!(self.next(), Event::Pong([7; 8]));
    }

    pub fn data(&mut self, id: u64, payload: &[u8]) {
        for payload in payload.chunks(limits::DATA_CHUNK) {
            self.send(&Frame::Data { id, payload });
        }
    }

    pub fn ready(&mut self, id: u64) {
        self.send(&Frame::Ready { id, mode: ReadyMode::Request });
    }

    pub fn tunnel(&mut self, id: u64) {
        self.send(&Frame::Ready { id, mode: ReadyMode::Tunnel });
    }

    pub fn close(&mut self, id: u64) {
        self.send(&Frame::Close { id, reason: CloseReason::Normal });
    }

    /// The next frame; `Ended` when the manager closed the link.
    pub fn next(&mut self) -> Event {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.decoder.next().unwrap() {
                Some(Frame::Hello(hello)) => return Event::Hello(hello.name.to_owned()),
                Some(Frame::Open { id, open }) => return Event::Open(id, open),
                Some(Frame::Data { id, payload }) => return Event::Data(id, payload.to_vec()),
                Some(Frame::Close { id, reason }) => return Event::Close(id, reason),
                Some(Frame::Error { id, code, text }) => return Event::Error(id, code, text.to_owned()),
                Some(Frame::Window { id, increment }) => return Event::Window(id, increment),
                Some(Frame::Ping(_)) => return Event::Ping,
                Some(Frame::Pong(bytes)) => return Event::Pong(bytes),
                Some(frame) => panic!("unexpected {} frame", frame.name()),
                None => {}
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Event::Ended,
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Event::Ended,
                Err(error) => panic!("the manager sent nothing: {error}"),
            }
        }
    }

    /// An open frame must come.
    pub fn open(&mut self) -> u64 {
        match self.next() {
            Event::Open(id, _) => id,
            other => panic!("{other:?} instead of open"),
        }
    }

    /// Data of this connection until it has the given length; it is granted anew at once.
    pub fn take(&mut self, id: u64, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < length {
            match self.next() {
                Event::Data(from, bytes) if from == id => {
                    data.extend_from_slice(&bytes);
                    self.send(&Frame::Window { id, increment: bytes.len() as u32 });
                }
                Event::Window(from, _) if from == id => {}
                other => panic!("{other:?} instead of data of {id:x}, after {}", data.len()),
            }
        }
        assert_eq!(data.len(), length);
        data
    }

    /// A request whose text must be this one.
    pub fn request(&mut self, id: u64, expected: &str) {
        let got = self.take(id, expected.len());
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }

    /// A whole first request: open, then this text.
    pub fn first(&mut self, expected: &str) -> u64 {
        let id = self.open();
        self.request(id, expected);
        id
    }

    pub fn answer(&mut self, id: u64, body: &str) {
        self.data(id, response(body).as_bytes());
        self.ready(id);
    }

    /// Nothing else may have been sent up to now.
    pub fn nothing(&mut self) {
        self.send(&Frame::Ping([9; 8]));
        assert_eq!(self.next(), Event::Pong([9; 8]));
    }
}

pub fn response(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A client that speaks plain bytes.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// These very bytes must come.
    pub fn expect(&mut self, expected: &str) {
        let mut got = vec![0; expected.len()];
        if let Err(error) = self.stream.read_exact(&mut got) {
            panic!("{error} instead of {expected:?}");
        }
        assert_eq!(String::from_utf8_lossy(&got), expected);
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> String {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// An answer of the manager's own with this status, and then the end.
    pub fn refused(&mut self, status: u16) -> String {
        let got = self.rest();
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got:?}");
        assert!(got.contains("Access-Control-Allow-Origin: *\r\n"));
        assert!(got.contains("Connection: close\r\n"));
        assert_eq!(got.contains("Retry-After: "), matches!(status, 429 | 503));
        got
    }
}
