//! Drives all users from one thread, and tells about it in lines of JSON.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use megaphone_core::link::{Frame, Hello};
use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use crate::control::{Line, tell};
use crate::million::chat::{Chat, Random};
use crate::million::crowd::{self, Crowd, Event};
use crate::million::link::{Link, Target};
use crate::million::pace::Pace;
use crate::order::Latencies;

/// The token of [`Engine::waker`].
const WAKER: Token = Token(usize::MAX);

/// How often it is told how far users are.
const PROGRESS: Duration = Duration::from_secs(2);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Half of all logins under way are to take no longer than this. On an idle machine they take 2 ms; who waits holds memory, and
/// leaves holes in it.
const LOGIN_WITHIN: Duration = Duration::from_millis(100);

/// The same for those who leave: ejabberd keeps the process of each for 100 ms, for stanzas that come late.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// How long to wait for messages after the last one was sent.
const GRACE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where ejabberd is, or what plays it: links go there by turns.
    pub targets: Vec<Target>,
    /// What users do.
    pub crowd: crowd::Settings,
    /// Users who come in a second.
    pub pace: f64,
    /// Users who log in, or leave, at a time, at most.
    pub at_once: usize,
    /// How long a login, or to leave, may take.
    pub within: Duration,
}

/// What can be asked for while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Messages between all users.
    Chat {
        /// Of all users together.
        per_second: f64,
        /// For so long.
        duration: Duration,
    },
    /// No more users log in than have begun to.
    Enough,
    /// All users leave.
    Leave {
        /// So many a second.
        per_second: f64,
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
        match line.word {
            "chat" => Ok(Self::Chat {
                per_second: line.number("messages_per_second")?,
                duration: Duration::from_secs_f64(line.number("duration")?),
            }),
            "enough" => Ok(Self::Enough),
            "leave" => Ok(Self::Leave { per_second: line.number("per_second")? }),
            "stop" => Ok(Self::Stop),
            word => Err(format!("`{word}` is no command: enough, chat, leave, stop")),
        }
    }
}

/// What all users do.
#[derive(Debug)]
enum Phase {
    Login,
    Idle,
    Chat(Box<Chat>),
    Leave,
}

/// All users, and the links that they are on.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    poll: Poll,
    links: Vec<Link>,
    /// Links whose other end has said hello.
    greeted: usize,
    crowd: Crowd,
    phase: Phase,
    pace: Pace,
    began: Instant,
    random: Random,
    /// How many users there are to be.
    wanted: usize,
    /// Whether it was told that there is no room for more.
    full: bool,
    online: usize,
    /// Users who have begun to leave, and who have left.
    leaving: u32,
    gone: usize,
    /// Since the last time that it was told how far users are: when that was, how many were done, and what that took them.
    told: (Instant, usize),
    took: Latencies,
    /// Microseconds that the slowest one took.
    slowest: u32,
}

impl Engine {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let poll = Poll::new()?;
        let links: Result<_, _> = (0..settings.crowd.links)
            .zip(settings.targets.iter().cycle())
            .map(|(at, target)| Link::connect(target, poll.registry(), Token(at)))
            .collect();
        let now = Instant::now();
        Ok(Self {
            crowd: Crowd::new(settings.crowd.clone()),
            pace: Pace::new(settings.pace, settings.at_once, LOGIN_WITHIN, now),
            wanted: settings.crowd.users,
            full: false,
            settings,
            poll,
            links: links?,
            greeted: 0,
            phase: Phase::Login,
            began: now,
            random: Random(RandomState::new().hash_one(0)),
            online: 0,
            leaving: 0,
            gone: 0,
            told: (now, 0),
            took: Latencies::default(),
            slowest: 0,
        })
    }

    /// What another thread wakes this one with, after it has sent a command.
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), WAKER)
    }

    /// Logs all users in, and obeys commands until the last one; no more commands are the end, too.
    ///
    /// # Errors
    ///
    /// When a user could not log in or was lost, or a message was.
    pub fn run(&mut self, commands: &Receiver<Command>) -> Result<(), String> {
        let mut events = Events::with_capacity(64);
        let mut checked = Instant::now();
        loop {
            match commands.try_recv() {
                Ok(Command::Chat { per_second, duration }) => self.chat(per_second, duration)?,
                Ok(Command::Enough) => self.enough(),
                Ok(Command::Leave { per_second }) => self.leave(per_second)?,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    tell(&json!({"event": "stopped"}));
                    return Ok(());
                }
                Err(TryRecvError::Empty) => {}
            }
            let timeout = self.due().saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            for event in &events {
                if let Some(link) = self.links.get_mut(event.token().0) {
                    link.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                }
            }
            self.read()?;
            self.come_due()?;
            self.chat_due()?;
            self.leave_due()?;
            self.links.iter_mut().try_for_each(Link::flush)?;
            if checked.elapsed() >= TICK {
                checked = Instant::now();
                self.check(checked)?;
            }
        }
    }

    /// When there is something to do though nothing comes.
    fn due(&self) -> Instant {
        let now = Instant::now();
        if self.links.iter().any(|link| link.readable) {
            return now;
        }
        let due = match &self.phase {
            Phase::Login => self.come(),
            Phase::Idle => None,
            Phase::Chat(chat) => chat.due(),
            Phase::Leave => self.go(),
        };
        due.map_or(now + TICK, |due| due.min(now + TICK))
    }

    fn read(&mut self) -> Result<(), String> {
        let mut happened = Vec::new();
        for at in 0..self.links.len() {
            let Self { links, crowd, greeted, settings, .. } = self;
            let mut failed = None;
            let result = links[at].read(|frame, out| {
                if let Frame::Hello(hello) = frame {
                    *greeted += 1;
                    let serves = settings.crowd.bosh || hello.features & Hello::XMPP != 0;
                    return if serves {
                        Ok(())
                    } else {
                        Err("ejabberd takes no WebSockets on this link".to_owned())
                    };
                }
                crowd.take(at, frame, out, &mut happened).map_err(|(user, reason)| {
                    failed = Some(user);
                    reason
                })
            });
            result.map_err(|reason| failed_at(failed, &reason))?;
        }
        for event in happened {
            match event {
                Event::Online(time) => self.came_online(time),
                Event::Gone(time) => self.has_gone(time),
                Event::NoRoom(reason) => self.no_room(&reason),
                Event::Message(user, text) => match &mut self.phase {
                    Phase::Chat(chat) => {
                        chat.arrived(user, &text).map_err(|reason| failed_at(Some(user), &reason))?;
                    }
                    _ => return Err(failed_at(Some(user), &format!("a message that nobody sent: {text}"))),
                },
            }
        }
        Ok(())
    }

    // ---- logins -------------------------------------------------------------------------------------------------

    /// When the next user may come.
    fn come(&self) -> Option<Instant> {
        let may = self.greeted == self.links.len() && self.crowd.len() < self.wanted;
        if may { self.pace.due(self.crowd.under_way()) } else { None }
    }

    fn come_due(&mut self) -> Result<(), String> {
        while matches!(self.phase, Phase::Login) && self.come().is_some_and(|due| due <= Instant::now()) {
            self.pace.take(Instant::now());
            let rid = 1 + self.random.below(1 << 31);
            let user = self.crowd.add();
            let out = self.links[self.crowd.link(user)].output();
            self.crowd.begin(user, rid, out).map_err(|reason| failed_at(Some(user), &reason))?;
        }
        Ok(())
    }

    fn came_online(&mut self, time: Duration) {
        self.online += 1;
        self.done(time);
        self.all_are_online();
    }

    /// The other end takes no more: those who are there go on, and no more come.
    fn no_room(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.full, true) {
            tell(&json!({"event": "full", "users": self.online, "reason": reason}));
        }
        self.enough();
    }

    fn enough(&mut self) {
        self.wanted = self.wanted.min(self.crowd.len());
        self.all_are_online();
    }

    fn all_are_online(&mut self) {
        let expected = self.wanted - self.crowd.absent().len();
        if matches!(self.phase, Phase::Login) && self.online == expected {
            self.progress(Instant::now());
            let seconds = self.began.elapsed().as_secs_f64();
            tell(&json!({
                "event": "ready", "users": self.online, "seconds": seconds,
                "logins_per_second": self.online as f64 / seconds, "login_us_max": self.slowest,
                "requests": self.crowd.requests,
            }));
            self.phase = Phase::Idle;
        }
    }

    fn done(&mut self, time: Duration) {
        self.took.add(time);
        self.slowest = self.slowest.max(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    // ---- how far users are ----------------------------------------------------------------------------------------

    fn check(&mut self, now: Instant) -> Result<(), String> {
        if self.greeted < self.links.len() && self.began.elapsed() > self.settings.within {
            return Err("no hello from ejabberd".to_owned());
        }
        if let Some((user, waits)) = self.crowd.overdue(now, self.settings.within) {
            return Err(failed_at(Some(user), &format!("no answer in time, {waits}")));
        }
        if matches!(self.phase, Phase::Login | Phase::Leave) && now - self.told.0 >= PROGRESS {
            self.progress(now);
        }
        Ok(())
    }

    fn progress(&mut self, now: Instant) {
        let took = std::mem::take(&mut self.took);
        let (since, before) = self.told;
        let done = self.online + self.gone;
        self.told = (now, done);
        let latency = percentiles(took, |median| self.pace.adapt(median));
        tell(&json!({
            "event": "progress", "users": self.online - self.gone, "under_way": self.crowd.under_way(),
            "window": self.pace.window(), "requests": self.crowd.requests, "took_us": latency,
            "per_second": (done - before) as f64 / (now - since).as_secs_f64().max(0.001),
        }));
    }

    // ---- messages -------------------------------------------------------------------------------------------------

    fn chat(&mut self, per_second: f64, duration: Duration) -> Result<(), String> {
        if !matches!(self.phase, Phase::Idle) || self.gone > 0 || self.online < 2 {
            return Err("chat needs two users, all of them online and not yet talking".to_owned());
        }
        let absent = self.crowd.absent().clone();
        let chat = Chat::new(self.crowd.len(), absent, per_second, duration, self.random.draw());
        self.phase = Phase::Chat(Box::new(chat));
        Ok(())
    }

    fn chat_due(&mut self) -> Result<(), String> {
        let Phase::Chat(chat) = &mut self.phase else { return Ok(()) };
        while chat.due().is_some_and(|due| due <= Instant::now()) {
            let (from, to, text) = chat.take_next();
            let out = self.links[self.crowd.link(from)].output();
            self.crowd.write(from, to, &text, out).map_err(|reason| failed_at(Some(from), &reason))?;
        }
        if !chat.is_complete() && Instant::now() < chat.deadline(GRACE) {
            return Ok(());
        }
        let Phase::Chat(chat) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        let pairs = chat.pairs();
        let outcome = chat.outcome();
        let [p50, p99, max] = outcome.latency;
        tell(&json!({
            "event": "chat", "sent": outcome.sent, "received": outcome.received, "lost": outcome.lost,
            "doubled": outcome.doubled, "reordered": outcome.reordered, "pairs": pairs,
            "latency_us": {"p50": p50, "p99": p99, "max": max},
        }));
        if outcome.is_right() { Ok(()) } else { Err(format!("messages went wrong: {outcome:?}")) }
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    fn leave(&mut self, per_second: f64) -> Result<(), String> {
        if !matches!(self.phase, Phase::Idle) {
            return Err("users leave when they are idle".to_owned());
        }
        self.began = Instant::now();
        self.told = (self.began, self.online + self.gone);
        self.pace = Pace::new(per_second, self.settings.at_once, LEAVE_WITHIN, self.began);
        self.slowest = 0;
        self.phase = Phase::Leave;
        Ok(())
    }

    /// When the next user may go.
    fn go(&self) -> Option<Instant> {
        let may = (self.leaving as usize) < self.crowd.len();
        if may { self.pace.due(self.crowd.under_way()) } else { None }
    }

    fn leave_due(&mut self) -> Result<(), String> {
        while matches!(self.phase, Phase::Leave) && self.go().is_some_and(|due| due <= Instant::now()) {
            self.pace.take(Instant::now());
            let user = self.leaving;
            self.leaving += 1;
            if self.crowd.absent().contains(&user) {
                continue;
            }
            let out = self.links[self.crowd.link(user)].output();
            self.crowd.leave(user, out).map_err(|reason| failed_at(Some(user), &reason))?;
        }
        Ok(())
    }

    fn has_gone(&mut self, time: Duration) {
        self.gone += 1;
        self.done(time);
        if self.gone == self.online {
            self.progress(Instant::now());
            let seconds = self.began.elapsed().as_secs_f64();
            tell(
                &json!({"event": "left", "users": self.gone, "seconds": seconds, "took_us_max": self.slowest}),
            );
            self.phase = Phase::Idle;
        }
    }
}

/// What is said, on the way out, of a user.
fn failed_at(user: Option<u32>, reason: &str) -> String {
    tell(&json!({"event": "error", "user": user, "reason": reason}));
    user.map_or_else(|| reason.to_owned(), |user| format!("user {user}: {reason}"))
}

/// Tells the median on, if there is one.
fn percentiles(mut took: Latencies, median: impl FnOnce(Duration)) -> Value {
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| took.percentile(percent));
    if p50 > 0 {
        median(Duration::from_micros(p50.into()));
    }
    json!({"p50": p50, "p99": p99, "max": max})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_commands() {
        let chat = Command::Chat { per_second: 5.0, duration: Duration::from_secs(2) };
        assert_eq!(Command::read(r#"chat {"messages_per_second": 5, "duration": 2}"#), Ok(chat));
        assert_eq!(Command::read(r#"leave {"per_second": 500}"#), Ok(Command::Leave { per_second: 500.0 }));
        assert_eq!(Command::read("enough"), Ok(Command::Enough));
        assert_eq!(Command::read(" stop "), Ok(Command::Stop));
        for wrong in ["", "chat", "leave {\"per_second\":0}", "leave {", "go"] {
            assert!(Command::read(wrong).is_err(), "{wrong}");
        }
    }
}
