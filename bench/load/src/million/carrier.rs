//! The other end of links where users are to have real clients: plays ejabberd towards the generator, and for each virtual
//! connection makes a real one, a WebSocket of its own, to a connection manager. What users say and when is not decided here.
//! One thread drives them all, and keeps some 80 bytes of each.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};

use megaphone_core::link::messages::{Head, MESSAGE_HEADER, header};
use megaphone_core::link::{CloseReason, ErrorCode, Frame, Kind as Carried};
use mio::net::UnixListener;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::io::Errno;
use serde_json::json;

use crate::connection::Connection;
use crate::control::{Line, tell};
use crate::engine::source;
use crate::million::chat::Random;
use crate::million::link::Link;
use crate::million::user::SLOTS;
use crate::websocket::{self, Kind};

/// Tokens that are no client's.
const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
const LINK: Token = Token(usize::MAX - 2);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The connection manager.
    pub target: SocketAddr,
    /// Of the URL.
    pub path: String,
    /// The server's name in requests.
    pub host: String,
    /// The number of the first client; it decides which addresses of this machine they come from.
    pub from: usize,
    /// Where the generator connects to.
    pub listen: PathBuf,
}

/// What can be asked for while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The end.
    Stop,
}

impl Command {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// When there is no such command.
    pub fn read(line: &str) -> Result<Self, String> {
        match Line::read(line)?.word {
            "stop" => Ok(Self::Stop),
            word => Err(format!("`{word}` is no command: stop")),
        }
    }
}

/// The link, and all clients.
#[derive(Debug)]
pub struct Carrier {
    poll: Poll,
    listener: UnixListener,
    link: Option<Link>,
    clients: Clients,
}

impl Carrier {
    /// Waits for the generator, without clients.
    ///
    /// # Errors
    ///
    /// When the path cannot be had.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = UnixListener::bind(&settings.listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let random = Random(settings.from as u64);
        Ok(Self { poll, listener, link: None, clients: Clients { settings, clients: Vec::new(), random } })
    }

    /// What another thread wakes this one with, after it has sent a command.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), WAKER)
    }

    /// Carries what comes until it is told to stop; no more commands are the end, too.
    ///
    /// # Errors
    ///
    /// When the link breaks. What happens to a client is told on the link.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        tell(&json!({"event": "listening"}));
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    tell(&json!({"event": "stopped"}));
                    return Ok(());
                }
                Err(TryRecvError::Empty) => {}
            }
            let more = self.link.as_ref().is_some_and(|link| link.readable);
            match self.poll.poll(&mut events, more.then_some(std::time::Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            for event in &events {
                match (event.token(), &mut self.link) {
                    (WAKER, _) => {}
                    (LISTENER, _) => self.accept().map_err(|error| format!("a link: {error}"))?,
                    (LINK, Some(link)) => link.readable |= !event.is_writable() || event.is_readable(),
                    (Token(at), Some(link)) => self.clients.ready(at, link.output()),
                    (_, None) => {}
                }
            }
            if let Some(link) = &mut self.link {
                link.read(|frame, out| self.clients.take(frame, self.poll.registry(), out))?;
                link.flush()?;
            }
        }
    }

    /// There is one generator.
    fn accept(&mut self) -> io::Result<()> {
        if self.link.is_none() {
            let (stream, _) = self.listener.accept()?;
            self.link = Some(Link::accepted(stream, self.poll.registry(), LINK)?);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Client {
    connection: Connection,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Handshake(Box<Waiting>),
    Open,
    /// The other end has ended the WebSocket, and closes.
    Closing,
}

/// What is needed until it is a WebSocket.
#[derive(Debug)]
struct Waiting {
    key: String,
    /// Frames that go then.
    frames: Vec<u8>,
}

#[derive(Debug)]
struct Clients {
    settings: Settings,
    /// By the number of their virtual connections, which are not used again.
    clients: Vec<Option<Client>>,
    random: Random,
}

/// The place of a client whose virtual connection has this id; a WebSocket user has one of [`SLOTS`].
const fn place(id: u64) -> usize {
    ((id - 1) / SLOTS as u64) as usize
}

const fn id(at: usize) -> u64 {
    (at * SLOTS + 1) as u64
}

impl Clients {
    /// A frame of the generator.
    fn take(&mut self, frame: Frame<'_>, registry: &Registry, out: &mut Vec<u8>) -> Result<(), String> {
        match frame {
            Frame::Open { open, .. } if open.kind != Carried::Xmpp => {
                Err("only WebSockets can be carried".to_owned())
            }
            Frame::Open { id, .. } => {
                self.open(place(id), registry, out);
                Ok(())
            }
            Frame::Data { id, payload } => self.send(place(id), payload, out),
            Frame::Close { id, .. } => {
                // What the generator answers with when a client is gone finds none.
                if let Some(client) = self.clients.get_mut(place(id)) {
                    *client = None;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: usize, registry: &Registry, out: &mut Vec<u8>) {
        let Settings { target, path, host, from, .. } = &self.settings;
        let key = websocket::key(self.random.draw());
        let opened = Connection::open(*target, source(*target, from + at), None, registry, Token(at));
        let opened = opened.and_then(|mut connection| {
            connection.send(&websocket::handshake(path, host, &key))?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => {
                let waiting = Waiting { key, frames: Vec::new() };
                if self.clients.len() <= at {
                    self.clients.resize_with(at + 1, || None);
                }
                self.clients[at] = Some(Client { connection, phase: Phase::Handshake(Box::new(waiting)) });
            }
            Err(error) => {
                let (code, text) = match lacking(&error) {
                    Some(what) => (ErrorCode::Limit, format!("out of {what}: {error}")),
                    None => (ErrorCode::Other, format!("connecting: {error}")),
                };
                Frame::Error { id: id(at), code, text: &text }.encode(out);
            }
        }
    }

    /// Texts of the generator, which come whole.
    fn send(&mut self, at: usize, mut payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let Some(Some(client)) = self.clients.get_mut(at) else { return Ok(()) };
        let mut frames = Vec::new();
        while !payload.is_empty() {
            let Some(Head::Message(length)) = Head::parse(payload) else {
                return Err("no message".to_owned());
            };
            let end = MESSAGE_HEADER + length as usize;
            let text = payload.get(MESSAGE_HEADER..end).ok_or("a message in pieces")?;
            frames.extend(websocket::frame(Kind::Text, text, self.random.draw() as u32));
            payload = &payload[end..];
        }
        let sent = match &mut client.phase {
            Phase::Handshake(waiting) => {
                waiting.frames.extend(frames);
                Ok(())
            }
            Phase::Open => client.connection.send(&frames),
            Phase::Closing => Ok(()),
        };
        if let Err(error) = sent {
            self.clients[at] = None;
            lost(at, &format!("sending: {error}"), out);
        }
        Ok(())
    }

    /// Something happened at a client's connection.
    fn ready(&mut self, at: usize, out: &mut Vec<u8>) {
        let Some(Some(client)) = self.clients.get_mut(at) else { return };
        let result = client.ready(at, &mut self.random, out);
        let closing = matches!(client.phase, Phase::Closing);
        match result {
            Ok(()) if !client.connection.is_closed() => return,
            // How the other end closes after it has ended the WebSocket is up to it.
            _ if closing => Frame::Close { id: id(at), reason: CloseReason::Normal }.encode(out),
            Ok(()) => lost(at, "the server closed the connection", out),
            Err(reason) => lost(at, &reason, out),
        }
        self.clients[at] = None;
    }
}

impl Client {
    fn ready(&mut self, at: usize, random: &mut Random, out: &mut Vec<u8>) -> Result<(), String> {
        let sending = |error: io::Error| format!("sending: {error}");
        self.connection.ready().map_err(|error| format!("the connection broke: {error}"))?;
        if let Phase::Handshake(waiting) = &self.phase {
            let Some(length) = websocket::answer(self.connection.input(), &waiting.key)? else {
                return Ok(());
            };
            self.connection.used(length);
            self.connection.send(&waiting.frames).map_err(sending)?;
            self.phase = Phase::Open;
        }
        while let Some((kind, start, end)) = websocket::read(self.connection.input())? {
            let payload = &self.connection.input()[start..end];
            let answer = match kind {
                Kind::Text => {
                    let payload = [&header(payload.len() as u32)[..], payload].concat();
                    Frame::Data { id: id(at), payload: &payload }.encode(out);
                    None
                }
                Kind::Ping => Some(websocket::frame(Kind::Pong, payload, random.draw() as u32)),
                Kind::Pong => None,
                Kind::Close => {
                    self.phase = Phase::Closing;
                    Some(websocket::frame(Kind::Close, payload, random.draw() as u32))
                }
                Kind::More => return Err("a message in pieces, which megaphone-ecm does not send".to_owned()),
            };
            self.connection.used(end);
            if let Some(frame) = answer {
                self.connection.send(&frame).map_err(sending)?;
            }
        }
        Ok(())
    }
}

/// The generator is told that a client is lost.
fn lost(at: usize, reason: &str, out: &mut Vec<u8>) {
    Frame::Error { id: id(at), code: ErrorCode::Other, text: reason }.encode(out);
}

/// What this machine has no more of when a connection cannot be made for that.
fn lacking(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE => "descriptors of a process",
        Errno::NFILE => "descriptors of the system",
        Errno::NOMEM | Errno::NOBUFS => "memory of the kernel",
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => "ports of an address",
        Errno::NOSPC => "watches of event queues",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;
    use std::thread;

    use megaphone_core::link::{Decoder, Hello, Open, Role};
    use rustix::process::getpid;

    use super::*;

    /// Answers the handshake, sends each text back after a ping, and after a pong says goodbye to the text "bye".
    fn serve(mut stream: TcpStream) {
        let mut input = Vec::new();
        while !input.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a handshake");
            input.extend(byte);
        }
        let text = String::from_utf8(input).expect("text");
        let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = websocket::accept(key);
        let head = format!("HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("written");
        let mut head = [0; 6];
        let mut ponged = false;
        while stream.read_exact(&mut head).is_ok() {
            let mut payload = vec![0; usize::from(head[1] & 0x7f)];
            stream.read_exact(&mut payload).expect("a payload");
            payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            match (head[0], &payload[..]) {
                (0x8a, b"hi") => ponged = true,
                (0x88, _) => return,
                (0x81, b"bye") if ponged => stream.write_all(&[0x88, 0]).expect("written"),
                (0x81, text) => {
                    let head = [0x89, 2, b'h', b'i', 0x81, text.len() as u8];
                    stream.write_all(&[&head, text].concat()).expect("written");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What the carrier says after its hello, until there are so many frames.
    fn frames(link: &mut UnixStream, decoder: &mut Decoder, count: usize) -> Vec<String> {
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while said.len() < count {
            while let Some(frame) = decoder.next().expect("frames") {
                match frame {
                    Frame::Hello(hello) => assert!(hello.features & Hello::XMPP != 0),
                    Frame::Data { id, payload } => {
                        said.push(format!("{id} {}", String::from_utf8_lossy(&payload[MESSAGE_HEADER..])));
                    }
                    Frame::Close { id, reason } => said.push(format!("{id} {reason:?}")),
                    Frame::Error { id, code, text } => said.push(format!("{id} {code:?} {text}")),
                    other => panic!("{}", other.name()),
                }
            }
            if said.len() < count {
                let length = link.read(&mut buffer).expect("a link");
                assert!(length > 0, "the link was closed after {said:?}");
                decoder.push(&buffer[..length]);
            }
        }
        said
    }

    /// Runs a carrier to this target: the generator's end of its link, greeted, and what ends it.
    fn carrier(target: SocketAddr, name: &str) -> (UnixStream, std::sync::mpsc::Sender<Command>) {
        let listen = std::env::temp_dir().join(format!("{name}-{}", getpid().as_raw_nonzero()));
        let settings = Settings {
            target,
            path: "/ws".to_owned(),
            host: "localhost".to_owned(),
            from: 0,
            listen: listen.clone(),
        };
        let mut carrier = Carrier::new(settings).expect("a carrier");
        let (commands, received) = channel();
        thread::spawn(move || carrier.run(&received));
        let mut link = UnixStream::connect(&listen).expect("a link");
        std::fs::remove_file(listen).expect("removed");
        let mut hello = Vec::new();
        let own = Hello { role: Role::Ecm, features: Hello::CREDIT, window: 65_536, name: "" };
        Frame::Hello(own).encode(&mut hello);
        link.write_all(&hello).expect("written");
        (link, commands)
    }

    fn open(id: u64) -> Vec<u8> {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let open = Open { kind: Carried::Xmpp, tls: false, client: address, local: address };
        let mut frame = Vec::new();
        Frame::Open { id, open }.encode(&mut frame);
        frame
    }

    fn text(id: u64, text: &str) -> Vec<u8> {
        let payload = [&header(text.len() as u32)[..], text.as_bytes()].concat();
        let mut frame = Vec::new();
        Frame::Data { id, payload: &payload }.encode(&mut frame);
        frame
    }

    #[test]
    fn carries_texts_both_ways_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream));
            }
        });
        let (mut link, _commands) = carrier(target, "megaphone-carrier-texts");
        let mut decoder = Decoder::new();
        for (id, first) in [(1, "one"), (3, "two")] {
            link.write_all(&[open(id), text(id, first)].concat()).expect("written");
            assert_eq!(frames(&mut link, &mut decoder, 1), [format!("{id} {first}")]);
        }
        link.write_all(&[text(1, "bye"), text(3, "more")].concat()).expect("written");
        let mut said = frames(&mut link, &mut decoder, 2);
        said.sort();
        assert_eq!(said, ["1 Normal", "3 more"]);
    }

    #[test]
    fn tells_who_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        let (mut link, _commands) = carrier(target, "megaphone-carrier-lost");
        let mut decoder = Decoder::new();
        link.write_all(&open(5)).expect("written");
        drop(listener.accept().expect("a client"));
        assert!(frames(&mut link, &mut decoder, 1)[0].starts_with("5 Other "));
        drop(listener);
        link.write_all(&open(7)).expect("written");
        assert!(frames(&mut link, &mut decoder, 1)[0].starts_with("7 Other "));
    }

    #[test]
    fn knows_what_a_machine_runs_out_of() {
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::NOSPC] {
            assert!(lacking(&error.into()).is_some());
        }
        assert_eq!(lacking(&Errno::CONNREFUSED.into()), None);
    }
}
