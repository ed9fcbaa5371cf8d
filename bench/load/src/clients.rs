//! HTTP connections that stay, most of them idle: each makes a request when it is new, and more when it is told to. One
//! thread drives them all.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::json;

use crate::connection::Connection;
use crate::control::{Line, tell};
use crate::engine::source;
use crate::http;
use crate::order::Latencies;
use crate::tls::Tls;

/// The token of [`Clients::waker`].
const WAKER: Token = Token(usize::MAX);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to.
    pub target: SocketAddr,
    /// The server's name in requests.
    pub host: String,
    /// What each connection asks for when it is new.
    pub path: String,
    /// Where the files are whose content their names tell: see [`byte`].
    pub files: String,
    /// How many of each length.
    pub file_count: u32,
    /// The number of the first connection.
    pub from: usize,
    /// New connections a second.
    pub pace: f64,
    /// Requests of new connections at a time.
    pub at_once: usize,
    /// For connections with TLS.
    pub tls: Option<Tls>,
}

/// What the file `NUMBER-LENGTH` has at a place.
#[must_use]
pub fn byte(number: u32, place: usize) -> u8 {
    ((number as usize + place) % 251) as u8
}

/// What can be asked for while it runs, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// More connections until there are so many, each with a request.
    UpTo(usize),
    /// Each connection gets a file.
    Fetch {
        /// Its length.
        bytes: usize,
        /// Requests at a time.
        at_once: usize,
    },
    /// Connections at random get files at random.
    Ask {
        /// Requests of all together.
        per_second: f64,
        /// For so long.
        duration: Duration,
        /// The files' length.
        bytes: usize,
    },
    /// The end.
    Stop,
}

impl Command {
    /// Reads a line: a word, and perhaps an object.
    ///
    /// # Errors
    ///
    /// When there is no such command.
    pub fn read(line: &str) -> Result<Self, String> {
        let line = Line::read(line)?;
        let number = |name: &str| line.number(name);
        match line.word {
            "upto" => Ok(Self::UpTo(number("connections")? as usize)),
            "fetch" => {
                Ok(Self::Fetch { bytes: number("bytes")? as usize, at_once: number("at_once")? as usize })
            }
            "ask" => Ok(Self::Ask {
                per_second: number("per_second")?,
                duration: Duration::from_secs_f64(number("duration")?),
                bytes: number("bytes")? as usize,
            }),
            "stop" => Ok(Self::Stop),
            word => Err(format!("`{word}` is no command: upto, fetch, ask, stop")),
        }
    }
}

/// Requests that belong together.
#[derive(Debug)]
struct Round {
    what: Command,
    began: Instant,
    /// How many connections there were before.
    before: usize,
    sent: usize,
    answered: usize,
    latencies: Latencies,
}

impl Round {
    /// How many requests it is of; `connections` are those that there are.
    fn total(&self, connections: usize) -> usize {
        match &self.what {
            Command::UpTo(count) => count.saturating_sub(self.before),
            Command::Fetch { .. } => connections,
            Command::Ask { per_second, duration, .. } => (per_second * duration.as_secs_f64()) as usize,
            Command::Stop => 0,
        }
    }

    /// When the next request is due, as far as the pace goes.
    fn due(&self, pace: f64) -> Instant {
        let per_second = match &self.what {
            Command::Ask { per_second, .. } => *per_second,
            Command::UpTo(_) => pace,
            _ => return self.began,
        };
        self.began + Duration::from_secs_f64(self.sent as f64 / per_second)
    }

    /// New connections, so many at a time, and large files wait for their turn; requests at a pace wait for nobody.
    fn may(&self, opening: usize) -> bool {
        let under_way = self.sent - self.answered;
        match self.what {
            Command::Fetch { at_once, .. } => under_way < at_once,
            Command::UpTo(_) => under_way < opening,
            Command::Ask { .. } | Command::Stop => true,
        }
    }
}

#[derive(Debug)]
struct Client {
    connection: Connection,
    request: Option<Request>,
}

#[derive(Debug)]
struct Request {
    due: Instant,
    /// The number and length of the file; `None`: any body will do.
    file: Option<(u32, usize)>,
}

/// All connections.
#[derive(Debug)]
pub struct Clients {
    settings: Settings,
    poll: Poll,
    clients: Vec<Client>,
    round: Option<Round>,
    seed: RandomState,
    drawn: u64,
}

impl Clients {
    /// Without connections.
    ///
    /// # Errors
    ///
    /// When the system has no event queue.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let (clients, seed) = (Vec::new(), RandomState::new());
        Ok(Self { settings, poll: Poll::new()?, clients, round: None, seed, drawn: 0 })
    }

    /// What another thread wakes this one with, after it has sent a command.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), WAKER)
    }

    /// Obeys commands, each when the one before is done, until the last one; no more commands are the end, too.
    ///
    /// # Errors
    ///
    /// When a connection was lost or an answer was not what it should be.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let mut checked = Instant::now();
        loop {
            if self.round.is_none() {
                match commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                        tell(&json!({"event": "stopped"}));
                        return Ok(());
                    }
                    Ok(what) => self.begin(what),
                    Err(TryRecvError::Empty) => {}
                }
            }
            self.send_due()?;
            let timeout = self.due().saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                let at = event.token().0;
                self.ready(at).map_err(|reason| self.failed(at, &reason))?;
            }
            self.end_round();
            if checked.elapsed() >= TICK {
                checked = Instant::now();
                self.check(checked)?;
            }
        }
    }

    fn begin(&mut self, what: Command) {
        let before = self.clients.len();
        let latencies = Latencies::default();
        self.round = Some(Round { what, began: Instant::now(), before, sent: 0, answered: 0, latencies });
    }

    /// When there is something to do though nothing comes.
    fn due(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let Some(round) = &self.round else { return tick };
        let may = round.may(self.settings.at_once) && round.sent < round.total(self.clients.len());
        if may { round.due(self.settings.pace).min(tick) } else { tick }
    }

    fn send_due(&mut self) -> Result<(), String> {
        while let Some(round) = &self.round {
            let due = round.due(self.settings.pace);
            let (what, next) = (round.what.clone(), round.sent);
            let is_over = next >= round.total(self.clients.len());
            if is_over || !round.may(self.settings.at_once) || due > Instant::now() {
                return Ok(());
            }
            self.drawn += 1;
            let random = self.seed.hash_one(self.drawn);
            let file = (random >> 32) as u32 % self.settings.file_count;
            let (at, file) = match what {
                Command::UpTo(_) => (self.open()?, None),
                Command::Fetch { bytes, .. } => (next, Some((file, bytes))),
                Command::Ask { bytes, .. } => (self.idle(random as usize)?, Some((file, bytes))),
                Command::Stop => return Ok(()),
            };
            // Only what is sent at a pace is late when it is sent late.
            let due = if matches!(what, Command::Ask { .. }) { due } else { Instant::now() };
            self.send(at, Request { due, file }).map_err(|reason| self.failed(at, &reason))?;
            if let Some(round) = &mut self.round {
                round.sent += 1;
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<usize, String> {
        let at = self.clients.len();
        let Settings { target, from, tls, .. } = &self.settings;
        let from = source(*target, from + at);
        let opened = Connection::open(*target, from, tls.as_ref(), self.poll.registry(), Token(at));
        let connection = opened.map_err(|error| self.failed(at, &format!("connecting: {error}")))?;
        self.clients.push(Client { connection, request: None });
        Ok(at)
    }

    /// One without a request under way, the first from a place on.
    fn idle(&self, place: usize) -> Result<usize, String> {
        let count = self.clients.len();
        (0..count)
            .map(|step| (place % count + step) % count)
            .find(|&at| self.clients[at].request.is_none())
            .ok_or_else(|| "no connection is idle".to_owned())
    }

    fn send(&mut self, at: usize, request: Request) -> Result<(), String> {
        let Settings { host, path, files, .. } = &self.settings;
        let bytes = match request.file {
            None => http::get(path, host),
            Some((number, length)) => http::get(&format!("{files}/{number}-{length}"), host),
        };
        let client = &mut self.clients[at];
        if client.request.replace(request).is_some() {
            return Err("a request is under way".to_owned());
        }
        client.connection.send(&bytes).map_err(|error| format!("sending a request: {error}"))
    }

    fn ready(&mut self, at: usize) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(at) else { return Ok(()) };
        client.connection.ready().map_err(|error| format!("the connection broke: {error}"))?;
        if let Some((time, close)) = answer(client)? {
            if close {
                return Err("the server wants to close the connection".to_owned());
            }
            let round = self.round.as_mut().ok_or("an answer to nothing")?;
            round.answered += 1;
            round.latencies.add(time);
        }
        if self.clients[at].connection.is_closed() {
            return Err("the server closed the connection".to_owned());
        }
        Ok(())
    }

    fn end_round(&mut self) {
        let total = self.round.as_ref().map(|round| round.total(self.clients.len()));
        let Some(round) = self.round.take_if(|round| Some(round.answered) == total) else { return };
        let Round { what, began, before, answered, mut latencies, .. } = round;
        let event = match what {
            Command::UpTo(_) => "opened",
            Command::Fetch { .. } => "fetched",
            Command::Ask { .. } => "asked",
            Command::Stop => return,
        };
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| latencies.percentile(percent));
        let seconds = began.elapsed().as_secs_f64();
        tell(&json!({
            "event": event, "connections": self.clients.len(), "before": before, "answered": answered,
            "seconds": seconds, "latency_us": {"p50": p50, "p99": p99, "max": max},
            "histogram": text(&latencies.histogram()),
        }));
    }

    fn check(&self, now: Instant) -> Result<(), String> {
        let late = |client: &Client| {
            client.request.as_ref().is_some_and(|request| now > request.due + ANSWER_WITHIN)
        };
        match self.clients.iter().position(late) {
            Some(at) => Err(self.failed(at, "no answer in time")),
            None => Ok(()),
        }
    }

    fn failed(&self, at: usize, reason: &str) -> String {
        let connection = self.settings.from + at;
        tell(&json!({"event": "error", "connection": connection, "reason": reason}));
        format!("connection {connection}: {reason}")
    }
}

/// The answer that has come: how long it took, and whether the connection ends with it.
fn answer(client: &mut Client) -> Result<Option<(Duration, bool)>, String> {
    let input = client.connection.input();
    let Some(head) = http::head(input)? else { return Ok(None) };
    let end = head.length + head.body;
    if input.len() < end {
        return Ok(None);
    }
    let body = &input[head.length..end];
    let request = client.request.take().ok_or("an answer without a request")?;
    if head.status != 200 {
        return Err(format!("the server answered {}", head.status));
    }
    let is_right = match request.file {
        None => !body.is_empty(),
        Some((number, length)) => {
            let bytes = body.iter().enumerate();
            body.len() == length && bytes.into_iter().all(|(place, &got)| got == byte(number, place))
        }
    };
    if !is_right {
        return Err(format!("a wrong answer of {} bytes to {:?}", body.len(), request.file));
    }
    if input.len() > end {
        return Err("bytes after the answer".to_owned());
    }
    client.connection.used(end);
    Ok(Some((request.due.elapsed(), head.close)))
}

/// `TIME:COUNT TIME:COUNT ...`.
fn text(histogram: &BTreeMap<u32, u32>) -> String {
    let parts: Vec<_> = histogram.iter().map(|(time, count)| format!("{time}:{count}")).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn reads_commands() {
        let ask = Command::Ask { per_second: 5.0, duration: Duration::from_secs(2), bytes: 64 };
        assert_eq!(Command::read(r#"ask {"per_second": 5, "duration": 2, "bytes": 64}"#), Ok(ask));
        assert_eq!(Command::read("upto {\"connections\":7}\n"), Ok(Command::UpTo(7)));
        let fetch = Command::Fetch { bytes: 100_000, at_once: 9 };
        assert_eq!(Command::read("fetch {\"bytes\":100000,\"at_once\":9}"), Ok(fetch));
        assert_eq!(Command::read(" stop "), Ok(Command::Stop));
        for wrong in ["", "upto", "upto {\"connections\":0}", "ask {", "go"] {
            assert!(Command::read(wrong).is_err(), "{wrong}");
        }
    }

    /// Answers requests on one connection, files as they should be or with one wrong byte.
    fn serve(mut stream: TcpStream, wrong: bool) {
        let mut input = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..length]);
            if !input.ends_with(b"\r\n\r\n") {
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut input)).expect("a head");
            let path = text.split(' ').nth(1).expect("a path");
            let body = match path.strip_prefix("/files/").and_then(|name| name.split_once('-')) {
                None => b"hello".to_vec(),
                Some((number, length)) => {
                    let number = number.parse().expect("a number");
                    let length = length.parse().expect("a length");
                    (0..length).map(|place| byte(number, place) ^ u8::from(wrong && place == 9)).collect()
                }
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).expect("written");
        }
    }

    fn run(wrong: bool) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream, wrong));
            }
        });
        let settings = Settings {
            target,
            host: "localhost".to_owned(),
            path: "/".to_owned(),
            files: "/files".to_owned(),
            file_count: 9,
            from: 0,
            pace: 1000.0,
            at_once: 3,
            tls: None,
        };
        let mut clients = Clients::new(settings).expect("a poll");
        let (commands, received) = channel();
        let ask = Command::Ask { per_second: 500.0, duration: Duration::from_millis(100), bytes: 50 };
        let fetch = Command::Fetch { bytes: 1000, at_once: 2 };
        for command in [Command::UpTo(5), Command::UpTo(9), fetch, ask] {
            commands.send(command).expect("sent");
        }
        drop(commands);
        let result = clients.run(&received);
        assert_eq!(clients.clients.len(), 9);
        result
    }

    #[test]
    fn each_request_gets_its_answer() {
        assert_eq!(run(false), Ok(()));
    }

    #[test]
    fn one_wrong_byte_is_seen() {
        assert!(run(true).expect_err("wrong").contains("a wrong answer of 1000 bytes"));
    }
}
