//! Drives all users from one thread: logs them in at a pace, keeps them, lets them talk, and tells about it in lines of
//! JSON.

mod ask;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use crate::control::{Line, tell};
use crate::order::Latencies;
use crate::ping::Pings;
use crate::session::Login;
use crate::talk::Talk;
use crate::transport::{Net, Place, SLOTS};
use crate::user::{Event, User};

/// The token of [`Engine::waker`].
const WAKER: Token = Token(usize::MAX);

/// More logins at a time would only wait in the server.
const MAX_LOGGING_IN: usize = 200;

/// Users that share an address of this machine, which has some 28,000 ports for connections to the same place.
const USERS_PER_SOURCE: usize = 5000;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long to wait for messages after the last one was sent, and after the polls that were held then have ended: stock
/// ejabberd answers a request that overtook another one only then, which makes its messages late but not lost.
const GRACE: Duration = Duration::from_secs(30);

/// How long to wait for answers of the server after the last question.
const PING_GRACE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to and how.
    pub place: Place,
    /// The number of the first user.
    pub from: usize,
    /// Logins a second.
    pub pace: f64,
    /// How long a login may take.
    pub login_timeout: Duration,
    /// How often a failed login is tried again.
    pub retries: u32,
    /// Registered users are called by this and their number; `None`: anonymous ones.
    pub registered: Option<(String, String)>,
}

/// What can be asked for while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// So many more users log in.
    Add(usize),
    /// Messages between all users.
    Chat {
        /// Of all users together.
        per_second: f64,
        /// For so long.
        duration: Duration,
    },
    /// Questions to the server (XEP-0199), by all users in turn.
    Ping {
        /// Of all users together.
        per_second: f64,
        /// For so long.
        duration: Duration,
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
            "add" => Ok(Self::Add(number("users")? as usize)),
            "chat" => Ok(Self::Chat {
                per_second: number("messages_per_second")?,
                duration: Duration::from_secs_f64(number("duration")?),
            }),
            "ping" => Ok(Self::Ping {
                per_second: number("per_second")?,
                duration: Duration::from_secs_f64(number("duration")?),
            }),
            "stop" => Ok(Self::Stop),
            word => Err(format!("`{word}` is no command: add, chat, ping, stop")),
        }
    }
}

/// All users.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    poll: Poll,
    users: Vec<User>,
    retried: Vec<u32>,
    wanted: usize,
    online: usize,
    /// When, and with how many, the present logins began.
    pace_from: (Instant, usize),
    logins: Latencies,
    talk: Option<Talk>,
    pings: Option<Pings>,
    /// To be begun when all are online, and to be followed by the end.
    planned: Option<(f64, Duration)>,
    ends: bool,
    seed: RandomState,
    drawn: u64,
}

impl Engine {
    /// Without users.
    ///
    /// # Errors
    ///
    /// When the system has no event queue.
    pub fn new(settings: Settings) -> io::Result<Self> {
        Ok(Self {
            settings,
            poll: Poll::new()?,
            users: Vec::new(),
            retried: Vec::new(),
            wanted: 0,
            online: 0,
            pace_from: (Instant::now(), 0),
            logins: Latencies::default(),
            talk: None,
            pings: None,
            planned: None,
            ends: false,
            seed: RandomState::new(),
            drawn: 0,
        })
    }

    /// When all are online, they talk, and then it ends.
    pub fn then_chat(&mut self, per_second: f64, duration: Duration) {
        self.planned = Some((per_second, duration));
        self.ends = true;
    }

    /// What another thread wakes this one with, after it has sent a command.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), WAKER)
    }

    /// Obeys commands until the last one; no more commands are the end, too.
    ///
    /// # Errors
    ///
    /// When a user could not log in or was lost, or a message was.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let mut checked = Instant::now();
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::Add(users)) => self.add(users),
                    Ok(Command::Chat { per_second, duration }) => self.chat(per_second, duration)?,
                    Ok(Command::Ping { per_second, duration }) => self.ping(per_second, duration)?,
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                        tell(&json!({"event": "stopped"}));
                        return Ok(());
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            let timeout = self.due().saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.ready(event.token().0)?;
            }
            self.start_due()?;
            self.talk_due()?;
            self.ping_due()?;
            if self.ends && self.planned.is_none() && self.talk.is_none() {
                tell(&json!({"event": "stopped"}));
                return Ok(());
            }
            if checked.elapsed() >= TICK {
                checked = Instant::now();
                self.check(checked)?;
            }
        }
    }

    /// When there is something to do though nothing comes.
    fn due(&self) -> Instant {
        let login = self.login_due();
        let message = self.talk.as_ref().and_then(Talk::due);
        let ping = self.pings.as_ref().and_then(Pings::due);
        [login, message, ping].into_iter().flatten().fold(Instant::now() + TICK, Instant::min)
    }

    fn login_due(&self) -> Option<Instant> {
        let (start, before) = self.pace_from;
        let wait = Duration::from_secs_f64((self.users.len() - before) as f64 / self.settings.pace);
        let may = self.users.len() < self.wanted && self.users.len() - self.online < MAX_LOGGING_IN;
        may.then(|| start + wait)
    }

    fn add(&mut self, users: usize) {
        self.wanted += users;
        self.pace_from = (Instant::now(), self.users.len());
        self.logins = Latencies::default();
        tell(&json!({
            "event": "start", "kind": format!("{:?}", self.settings.place.kind).to_lowercase(),
            "from": self.settings.from + self.users.len(), "users": users, "pace": self.settings.pace,
        }));
    }

    fn start_due(&mut self) -> Result<(), String> {
        while self.login_due().is_some_and(|due| due <= Instant::now()) {
            let at = self.users.len();
            let user = self.login(at).map_err(|reason| self.failed(at, "connect", &reason))?;
            self.users.push(user);
            self.retried.push(0);
        }
        Ok(())
    }

    fn login(&mut self, at: usize) -> Result<User, String> {
        let number = self.settings.from + at;
        let login = match &self.settings.registered {
            None => Login::Bare,
            Some((prefix, password)) => {
                Login::Typical { name: format!("{prefix}{number}"), password: password.clone() }
            }
        };
        self.drawn += 1;
        let random = self.seed.hash_one(self.drawn);
        User::start(login, &net(&self.poll, &self.settings, at, random))
    }

    fn ready(&mut self, token: usize) -> Result<(), String> {
        let (at, slot) = (token / SLOTS, token % SLOTS);
        let Some(user) = self.users.get_mut(at) else { return Ok(()) };
        let was_online = user.is_online();
        let mut events = Vec::new();
        let result = user.ready(slot, &net(&self.poll, &self.settings, at, 0), &mut events);
        for event in events {
            match event {
                Event::Online => self.came_online(at),
                Event::Message(text) => self.arrived(at, &text)?,
                Event::Answer(id) => self.answered(at, &id)?,
            }
        }
        match result {
            Ok(()) => Ok(()),
            Err(reason) if was_online || self.users[at].is_online() => {
                Err(self.failed(at, "online", &reason))
            }
            Err(reason) => self.again(at, &reason),
        }
    }

    fn came_online(&mut self, at: usize) {
        self.online += 1;
        self.logins.add(self.users[at].age());
        if self.online < self.wanted {
            return;
        }
        let (start, before) = self.pace_from;
        let seconds = start.elapsed().as_secs_f64();
        let login = [50.0, 99.0, 100.0].map(|percent| self.logins.percentile(percent));
        tell(&json!({
            "event": "ready", "users": self.online, "seconds": seconds,
            "logins_per_second": (self.online - before) as f64 / seconds, "login_us": percentiles(login),
            "retried": self.retried.iter().sum::<u32>(),
            "requests": self.users.iter().map(User::requests).sum::<u64>(),
        }));
    }

    /// A login failed.
    fn again(&mut self, at: usize, reason: &str) -> Result<(), String> {
        let step = self.users[at].waits_for();
        if self.retried[at] >= self.settings.retries {
            return Err(self.failed(at, &step, reason));
        }
        self.retried[at] += 1;
        tell(&json!({"event": "retry", "user": self.settings.from + at, "step": step, "reason": reason}));
        self.users[at] = self.login(at).map_err(|reason| self.failed(at, "connect", &reason))?;
        Ok(())
    }

    fn failed(&self, at: usize, step: &str, reason: &str) -> String {
        let user = self.settings.from + at;
        tell(&json!({"event": "error", "user": user, "step": step, "reason": reason}));
        format!("user {user}, {step}: {reason}")
    }

    fn check(&mut self, now: Instant) -> Result<(), String> {
        for at in 0..self.users.len() {
            let user = &self.users[at];
            if user.is_online() && user.is_overdue(now, self.settings.place.wait) {
                return Err(self.failed(at, "online", "no answer to a poll"));
            }
            if !user.is_online() && user.age() > self.settings.login_timeout {
                self.again(at, "no answer in time")?;
            }
        }
        Ok(())
    }

    fn chat(&mut self, per_second: f64, duration: Duration) -> Result<(), String> {
        let is_busy = self.talk.is_some() || self.pings.is_some();
        if is_busy || self.online < self.wanted || self.online < 2 {
            return Err("chat needs two users, all of them online and not yet talking".to_owned());
        }
        self.talk = Some(Talk::new(self.online, per_second, duration));
        Ok(())
    }

    fn talk_due(&mut self) -> Result<(), String> {
        if self.online == self.wanted
            && let Some((per_second, duration)) = self.planned.take()
        {
            self.chat(per_second, duration)?;
        }
        let grace = GRACE + Duration::from_secs(u64::from(self.settings.place.wait));
        let Some(talk) = &mut self.talk else { return Ok(()) };
        while talk.due().is_some_and(|due| due <= Instant::now()) {
            let (from, text) = talk.take_next();
            let to = self.users[Talk::partner(from)].jid();
            let message =
                format!("<message xmlns='jabber:client' type='chat' to='{to}'><body>{text}</body></message>");
            if let Err(reason) = self.users[from].send(&message, &net(&self.poll, &self.settings, from, 0)) {
                return Err(self.failed(from, "chat", &reason));
            }
        }
        if !talk.is_complete() && Instant::now() < talk.deadline(grace) {
            return Ok(());
        }
        let outcome = talk.outcome();
        self.talk = None;
        tell(&json!({
            "event": "chat", "sent": outcome.sent, "received": outcome.received, "lost": outcome.lost,
            "doubled": outcome.doubled, "reordered": outcome.reordered, "latency_us": percentiles(outcome.latency),
        }));
        if outcome.is_right() { Ok(()) } else { Err(format!("messages went wrong: {outcome:?}")) }
    }

    fn arrived(&mut self, at: usize, text: &str) -> Result<(), String> {
        let result = match &mut self.talk {
            Some(talk) => talk.arrived(at, text),
            None => Err(format!("a message that nobody sent: {text}")),
        };
        result.map_err(|reason| self.failed(at, "chat", &reason))
    }
}

fn net<'a>(poll: &'a Poll, settings: &'a Settings, at: usize, random: u64) -> Net<'a> {
    Net {
        registry: poll.registry(),
        place: &settings.place,
        source: source(settings.place.target, settings.from + at),
        token: at * SLOTS,
        random,
    }
}

/// The address that a user comes from: many need more than one, and on loopback all of 127.0.0.0/8 is ours.
pub(crate) fn source(target: SocketAddr, number: usize) -> Option<SocketAddr> {
    let group = number / USERS_PER_SOURCE;
    if group == 0 || !target.is_ipv4() || !target.ip().is_loopback() {
        return None;
    }
    let [high, low] = [group / 250 % 250 + 1, group % 250 + 1].map(|part| part as u8);
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, high, low)), 0))
}

fn percentiles([p50, p99, max]: [u32; 3]) -> Value {
    json!({"p50": p50, "p99": p99, "max": max})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commands() {
        let chat = Command::Chat { per_second: 5.0, duration: Duration::from_secs(2) };
        assert_eq!(Command::read(r#"chat {"messages_per_second": 5, "duration": 2}"#), Ok(chat));
        let ping = Command::Ping { per_second: 9.0, duration: Duration::from_secs(3) };
        assert_eq!(Command::read(r#"ping {"per_second": 9, "duration": 3}"#), Ok(ping));
        assert_eq!(Command::read("add {\"users\":7}\n"), Ok(Command::Add(7)));
        assert_eq!(Command::read(" stop "), Ok(Command::Stop));
        for wrong in ["", "chat", "add {\"users\":0}", "add {", "go"] {
            assert!(Command::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spreads_users_over_addresses() {
        let loopback: SocketAddr = "127.0.0.1:5280".parse().expect("an address");
        assert_eq!(source(loopback, USERS_PER_SOURCE - 1), None);
        assert_eq!(source(loopback, USERS_PER_SOURCE), "127.1.1.2:0".parse().ok());
        assert_eq!(source(loopback, 999_999), "127.1.1.200:0".parse().ok());
        assert_eq!(source("192.0.2.1:1".parse().expect("an address"), 999_999), None);
    }
}
