//! What the scenes share: processes that are numbers, mail that is kept, threads.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::current;

#[cfg(loom)]
use loom::{sync::Arc as TableArc, sync::Mutex, thread};
use megaphone_core::limits::TableLimits;
use megaphone_core::link::{Frame, Hello, Kind, Open, Role};
use megaphone_core::packet::Fields;
use megaphone_core::table::{
    Action, Active, Closed, Data, Handle, Host, InputEnd, Link, Message, Packet, RecvError, Refused, Sent,
    Served, Stats, Table,
};
#[cfg(not(loom))]
use std::{sync::Arc as TableArc, sync::Mutex, thread};

/// A link, in a pointer whose clones are no events for the checker.
pub(crate) type LinkRef = Arc<TableArc<Link<u32>>>;

/// More preemptions than any scene has room for, and as many as loom can count: every order is seen.
pub(crate) const ALL: usize = 255;

/// Runs a scene in every order of its threads with at most `preemptions`, or many times on real threads.
pub(crate) fn check(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    let start = std::time::Instant::now();
    let runs = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let counted = move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        scene();
    };
    #[cfg(loom)]
    {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
        builder.max_branches = 10_000;
        builder.check(counted);
    }
    #[cfg(not(loom))]
    {
        let _ = preemptions;
        let rounds = std::env::var("MODEL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_usize);
        (0..rounds).for_each(|_| counted());
    }
    let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
    println!("{}: {runs} runs in {:.1?}", thread_name(), start.elapsed());
}

/// The harness runs each test in a thread of its name.
fn thread_name() -> String {
    current().name().unwrap_or("scene").to_owned()
}

/// A message, without what the scenes do not ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mail {
    Answer(u64, Option<Vec<u8>>),
    Plain(Option<Vec<u8>>),
    Room(u64, bool),
    Active(Vec<u8>),
    ActiveClosed,
    Passive,
    LinkOutput,
    Output,
    /// No message: the process of a poll is to be ended.
    Abandoned,
}

/// How a read began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Data(Vec<u8>),
    Wait(u64),
    Refused(RecvError),
}

/// How a read ended, when all threads have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Data(Vec<u8>),
    Waits,
    Closed,
}

#[derive(Default)]
struct Processes {
    dead: HashSet<u32>,
    monitored: HashMap<u32, usize>,
}

pub(crate) struct World {
    pub(crate) table: Table<u32, Vec<u8>>,
    // Under locks that the checker sees: that a process dies, is found dead, or gets mail, is an event of its own.
    processes: Mutex<Processes>,
    mail: Mutex<Vec<(u32, Mail)>>,
}

/// The world, as each thread holds it.
#[derive(Clone)]
pub(crate) struct Vm(Arc<World>);

impl Deref for Vm {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl Host for Vm {
    type Pid = u32;
    type Chunk = Vec<u8>;

    fn deliver(&mut self, to: u32, message: Message<Vec<u8>>) {
        let mail = match message {
            Message::Answer { token, result } => Mail::Answer(token, result.ok().map(bytes)),
            Message::Plain(result) => Mail::Plain(result.ok().map(bytes)),
            Message::Room { token, result } => Mail::Room(token, result.is_ok()),
            Message::Active(_, data) => Mail::Active(bytes(data)),
            Message::ActiveClosed(_) => Mail::ActiveClosed,
            Message::Passive(_) => Mail::Passive,
            Message::LinkOutput => Mail::LinkOutput,
            Message::Output(_) => Mail::Output,
        };
        self.0.mail.lock().expect("mail").push((to, mail));
    }

    fn abandon(&mut self, pid: u32, _handle: Handle) {
        self.0.mail.lock().expect("mail").push((pid, Mail::Abandoned));
    }

    fn is_alive(&mut self, pid: u32) -> bool {
        !self.0.processes.lock().expect("processes").dead.contains(&pid)
    }

    fn monitor(&mut self, pid: u32) -> bool {
        let mut processes = self.0.processes.lock().expect("processes");
        let alive = !processes.dead.contains(&pid);
        if alive {
            *processes.monitored.entry(pid).or_default() += 1;
        }
        alive
    }
}

impl Vm {
    pub(crate) fn new() -> Self {
        Self::with(TableLimits::default())
    }

    pub(crate) fn with(limits: TableLimits) -> Self {
        Self(Arc::new(World {
            table: Table::with_limits(limits),
            processes: Mutex::new(Processes::default()),
            mail: Mutex::new(Vec::new()),
        }))
    }

    /// A thread of the scene.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce(Self) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let vm = self.clone();
        thread::spawn(move || body(vm))
    }

    /// A process ends, and those that monitor it are told.
    pub(crate) fn kill(&self, pid: u32) {
        self.die(pid);
        self.bury(pid);
    }

    /// A process ends.
    pub(crate) fn die(&self, pid: u32) {
        self.processes.lock().expect("processes").dead.insert(pid);
    }

    /// Who monitors a dead process is told, once for each monitor.
    pub(crate) fn bury(&self, pid: u32) {
        let monitors = self.processes.lock().expect("processes").monitored.remove(&pid).unwrap_or(0);
        for _ in 0..monitors {
            while self.table.process_down(pid, 0, &mut self.clone()) {}
        }
    }

    /// All that was sent to a process so far.
    pub(crate) fn mail(&self, pid: u32) -> Vec<Mail> {
        let mail = self.mail.lock().expect("mail");
        mail.iter().filter(|(to, _)| *to == pid).map(|(_, mail)| mail.clone()).collect()
    }

    pub(crate) fn open(&self, owner: u32) -> Result<Handle, Refused> {
        self.table.open(client(), Packet::Raw, owner, 0, &mut self.clone())
    }

    pub(crate) fn put(&self, handle: &Handle, data: &[u8]) -> Result<(), Refused> {
        self.table.put_data(handle, data, 0, &mut self.clone())
    }

    pub(crate) fn recv(&self, handle: &Handle, length: usize, pid: u32) -> Read {
        match self.table.recv(handle, length, pid, 0, &mut self.clone()) {
            Ok(Ok(data)) => Read::Data(bytes(data)),
            Ok(Err(token)) => Read::Wait(token),
            Err(error) => Read::Refused(error),
        }
    }

    pub(crate) fn cancel(&self, handle: &Handle, token: u64) -> bool {
        self.table.cancel(handle, token, &mut self.clone())
    }

    pub(crate) fn send(&self, handle: &Handle, data: &[u8], pid: u32) -> Result<Sent, Closed> {
        self.table.send(handle, data, pid, 0, &mut self.clone())
    }

    pub(crate) fn output(&self, handle: &Handle) -> Result<Option<Vec<u8>>, Closed> {
        self.table.output(handle, &mut self.clone())
    }

    pub(crate) fn set_owner(&self, handle: &Handle, pid: u32) -> Result<(), Closed> {
        self.table.set_owner(handle, pid, 0, &mut self.clone())
    }

    /// Takes a poll; whether there was one.
    pub(crate) fn take_request(&self, handle: &Handle, pid: u32) -> Result<bool, Closed> {
        let taken =
            self.table.take_request(handle, &mut Fields::new(), usize::MAX, pid, 0, &mut self.clone())?;
        Ok(taken.is_some())
    }

    pub(crate) fn end_request(&self, handle: &Handle) -> Result<bool, Closed> {
        self.table.end_request(handle, &mut self.clone())
    }

    pub(crate) fn set_active(&self, handle: &Handle, active: Active) -> Result<(), RecvError> {
        self.table.set_active(handle, active, &mut self.clone())
    }

    pub(crate) fn close(&self, handle: &Handle, by: u32) {
        self.table.close(handle, by, 0, &mut self.clone());
    }

    pub(crate) fn link_open(&self) -> Result<LinkRef, Refused> {
        self.table.link_open("test".into(), "test", Served::Http, None).map(Arc::new)
    }

    /// What a link reads, which must be fine; the consumers to start.
    pub(crate) fn input(&self, link: &LinkRef, frames: &[Frame<'_>]) -> Vec<Handle> {
        let (starts, end) = self.feed(link, frames);
        assert_eq!(end, InputEnd::Done);
        starts
    }

    pub(crate) fn feed(&self, link: &LinkRef, frames: &[Frame<'_>]) -> (Vec<Handle>, InputEnd) {
        let (mut bytes, mut actions) = (Vec::new(), Vec::new());
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let end = self.table.link_input(link, &bytes, 0, &mut actions, &mut self.clone());
        let starts = actions.into_iter().filter_map(|action| match action {
            Action::Start(handle) => Some(handle),
            _ => None,
        });
        (starts.collect(), end)
    }

    /// The end of a link: no more input, and all of its connections close.
    pub(crate) fn end_link(&self, link: &LinkRef) {
        self.table.link_down(link);
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = self.table.link_sweep(link, at, &mut self.clone());
        }
    }

    /// How a read has ended: its data, or its one message.
    pub(crate) fn outcome(&self, pid: u32, read: &Read) -> Outcome {
        let token = match read {
            Read::Data(data) => return Outcome::Data(data.clone()),
            Read::Refused(RecvError::Closed) => return Outcome::Closed,
            Read::Refused(error) => panic!("{error:?}"),
            Read::Wait(token) => *token,
        };
        let answers: Vec<_> = self
            .mail(pid)
            .into_iter()
            .filter_map(|mail| match mail {
                Mail::Answer(of, result) if of == token => Some(result),
                _ => None,
            })
            .collect();
        match &answers[..] {
            [] => Outcome::Waits,
            [Some(data)] => Outcome::Data(data.clone()),
            [None] => Outcome::Closed,
            more => panic!("answered more than once: {more:?}"),
        }
    }

    /// Bytes that wait to be read.
    pub(crate) fn unread(&self, handle: &Handle) -> usize {
        self.table.info(handle).map_or(0, |info| info.input)
    }

    /// Ends all processes and asserts that nothing is left of what a scene did.
    pub(crate) fn finish(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| self.kill(*pid));
        // What the table keeps for the next connection is no leftover.
        assert_eq!(Stats { memory: 0, ..self.table.stats() }, Stats::default());
    }
}

impl Outcome {
    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Self::Data(data) => data,
            _ => &[],
        }
    }
}

/// Ends a thread of the scene.
pub(crate) fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("the thread ends well")
}

pub(crate) fn client() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4711))
}

fn bytes(data: Data<Vec<u8>>) -> Vec<u8> {
    match data {
        Data::Bytes(chunks) | Data::Line { bytes: chunks, .. } => chunks.concat(),
    }
}

pub(crate) fn hello(window: u32) -> Frame<'static> {
    Frame::Hello(Hello { role: Role::Ecm, features: Hello::CREDIT, window, name: "test" })
}

pub(crate) fn open(id: u64) -> Frame<'static> {
    Frame::Open { id, open: Open { kind: Kind::Http, tls: false, client: client(), local: client() } }
}
