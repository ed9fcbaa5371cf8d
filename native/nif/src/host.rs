//! What the core's table needs of the BEAM.

use std::sync::LazyLock;

use megaphone_core::bosh::SocketId;
use megaphone_core::table::{Chunk, Data, End, Handle, Host, Message, concat};
use rustler::schedule::consume_timeslice;
use rustler::{Encoder, Env, Error, LocalPid, Monitor, NifResult, Resource, ResourceArc, Term};

use crate::TABLE;
use crate::pid::Pid;
use crate::terms::{self, atoms};

/// Bytes that are kept: a binary of the VM, so that handing it to a process copies nothing.
pub(crate) struct Bin(rustler::OwnedBinary);

impl AsRef<[u8]> for Bin {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl Chunk for Bin {
    fn copy_from(bytes: &[u8]) -> Self {
        Self(rustler::OwnedBinary::from_slice(bytes))
    }
}

impl Bin {
    pub(crate) fn into_term(self, env: Env<'_>) -> Term<'_> {
        // Small binaries live on the process's heap: a reference-counted one costs more than it holds.
        if self.0.len() <= 64 {
            let mut small = rustler::NewBinary::new(env, self.0.len());
            small.as_mut_slice().copy_from_slice(self.0.as_slice());
            small.into()
        } else {
            self.0.release(env).to_term(env)
        }
    }
}

/// The resource on which all monitors are placed. Its `down` callback runs in the dying process, outside of any call
/// of this library, and so under none of the table's locks.
pub(crate) struct Watcher;

impl Resource for Watcher {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        let Some(dead) = Pid::new(env, &pid) else { return };
        if !TABLE.process_down(dead, crate::now(), &mut Beam::new(env)) {
            return;
        }
        // It had very much: a process goes on in slices, so that no scheduler is held up.
        match env.whereis_pid(atoms::megaphone_links()) {
            Some(links) if env.send(&links, (atoms::megaphone_down(), pid)).is_ok() => {}
            _ => while TABLE.process_down(dead, crate::now(), &mut Beam::new(env)) {},
        }
    }
}

/// Watchers: several, so that monitors of different processes seldom meet at one lock of the VM. Made at first use,
/// because the VM completes a resource type only when `load` has returned: what is made inside has no `down`.
static WATCHERS: LazyLock<Vec<ResourceArc<Watcher>>> =
    LazyLock::new(|| (0..WATCHER_COUNT).map(|_| ResourceArc::new(Watcher)).collect());

const WATCHER_COUNT: usize = 64;

/// The VM, as seen from one call.
pub(crate) struct Beam<'a> {
    pub(crate) env: Env<'a>,
    /// Connections of requests that BOSH sessions were to answer, or have answered in vain, and that were closed.
    gone: Vec<(SocketId, Handle)>,
    /// Connections of such requests behind which others wait.
    hurried: Vec<(SocketId, Handle)>,
}

/// The table was told under its lock, a session has one of its own, and that comes first.
impl Drop for Beam<'_> {
    fn drop(&mut self) {
        while let Some((session, handle)) = self.gone.pop() {
            crate::bosh::gone(session, &handle, self);
        }
        for (session, handle) in std::mem::take(&mut self.hurried) {
            crate::bosh::hurry(session, &handle, self);
        }
    }
}

impl<'a> Beam<'a> {
    pub(crate) const fn new(env: Env<'a>) -> Self {
        Self { env, gone: Vec::new(), hurried: Vec::new() }
    }

    /// The process that made the call.
    pub(crate) fn caller(&self) -> NifResult<Pid> {
        Pid::new(self.env, &self.env.pid()).ok_or(Error::BadArg)
    }

    /// Tells the scheduler that the call was a whole turn: otherwise native calls count for nearly nothing, and a process
    /// that makes them one after the other keeps all others waiting.
    pub(crate) fn end_slice(&self) {
        consume_timeslice(self.env, 100);
    }

    /// A process that was given as an argument.
    pub(crate) fn process(&self, pid: &LocalPid) -> NifResult<Pid> {
        Pid::new(self.env, pid).ok_or(Error::BadArg)
    }
}

impl Host for Beam<'_> {
    type Pid = Pid;
    type Chunk = Bin;

    fn deliver(&mut self, to: Pid, message: Message<Bin>) {
        let term = encode(self.env, message);
        if let Some(to) = to.local(self.env) {
            // A process that has ended meanwhile reads no messages.
            let _ = self.env.send(&to, term);
        }
    }

    fn abandon(&mut self, pid: Pid, handle: Handle) {
        if let Some(session) = pid.session() {
            return self.gone.push((session, handle));
        }
        if let (Some(links), Some(pid)) =
            (self.env.whereis_pid(atoms::megaphone_links()), pid.local(self.env))
        {
            // Without that process the application is stopping.
            let _ = self.env.send(&links, (atoms::megaphone_gone(), pid));
        }
    }

    fn lost(&mut self, pid: Pid, handle: Handle) {
        if let Some(session) = pid.session() {
            self.gone.push((session, handle));
        }
    }

    fn is_alive(&mut self, pid: Pid) -> bool {
        pid.local(self.env).is_some_and(|pid| pid.is_alive(self.env))
    }

    fn monitor(&mut self, pid: Pid) -> bool {
        let Some(pid) = pid.local(self.env) else { return false };
        let at = pid.encode(self.env).hash_internal(0) as usize % WATCHER_COUNT;
        self.env.monitor(&WATCHERS[at], &pid).is_some()
    }

    fn hurry(&mut self, pid: Pid, handle: Handle) {
        if let Some(session) = pid.session() {
            self.hurried.push((session, handle));
        }
    }

    fn is_process(&mut self, pid: Pid) -> bool {
        pid.session().is_none()
    }

    fn millis(&mut self) -> u32 {
        crate::millis()
    }

    fn busy(&mut self) {
        if let Some(sweeper) = self.env.whereis_pid(atoms::megaphone_sweeper()) {
            // Without that process nobody looks for who is idle; it asks when it starts.
            let _ = self.env.send(&sweeper, atoms::busy());
        }
    }
}

fn encode<'a>(env: Env<'a>, message: Message<Bin>) -> Term<'a> {
    match message {
        Message::Answer { token, result } => {
            let result = match result {
                Ok(data) => (atoms::ok(), data_term(env, data)).encode(env),
                Err(_) => (atoms::error(), atoms::closed()).encode(env),
            };
            (atoms::megaphone(), token, result).encode(env)
        }
        Message::Plain(Ok(data)) => (atoms::ok(), data_term(env, data)).encode(env),
        Message::Plain(Err(End::Closed)) => (atoms::error(), atoms::closed()).encode(env),
        Message::Plain(Err(End::Shutdown)) => (atoms::shutdown(),).encode(env),
        Message::Room { token, result } => {
            let result = match result {
                Ok(()) => atoms::ok().encode(env),
                Err(_) => (atoms::error(), atoms::closed()).encode(env),
            };
            (atoms::megaphone(), token, result).encode(env)
        }
        Message::Active(handle, data) => {
            let tag = match data {
                Data::Bytes(_) => atoms::tcp(),
                Data::Line { .. } => atoms::http(),
            };
            (tag, terms::socket(env, &handle), data_term(env, data)).encode(env)
        }
        Message::ActiveClosed(handle) => (atoms::tcp_closed(), terms::socket(env, &handle)).encode(env),
        Message::Passive(handle) => (atoms::tcp_passive(), terms::socket(env, &handle)).encode(env),
        Message::LinkOutput => atoms::megaphone_output().encode(env),
        Message::Output(handle) => (atoms::megaphone_output(), terms::handle(env, &handle)).encode(env),
    }
}

/// Data for a reader. Bytes that came in several pieces are given as a list of them (an iolist): joining megabytes
/// would take longer than a call may.
pub(crate) fn data_term<'a>(env: Env<'a>, data: Data<Bin>) -> Term<'a> {
    match data {
        Data::Bytes(mut chunks) if chunks.len() == 1 => {
            chunks.pop().map_or_else(|| env.error_tuple(atoms::closed()), |chunk| chunk.into_term(env))
        }
        Data::Bytes(chunks) if chunks.iter().map(|chunk| chunk.as_ref().len()).sum::<usize>() <= JOIN => {
            join(env, &chunks).into()
        }
        Data::Bytes(chunks) => {
            chunks.into_iter().map(|chunk| chunk.into_term(env)).collect::<Vec<_>>().encode(env)
        }
        Data::Line { packet, field, bytes } => terms::packet(env, packet, field, &concat(&bytes)),
    }
}

/// Bytes that are joined here at most: the longest body that is handed out whole. Copying them takes some 50 us.
const JOIN: usize = megaphone_core::limits::LOCAL_QUEUE / 2;

fn join<'a>(env: Env<'a>, chunks: &[Bin]) -> rustler::NewBinary<'a> {
    let mut joined = rustler::NewBinary::new(env, chunks.iter().map(|chunk| chunk.as_ref().len()).sum());
    let mut rest = joined.as_mut_slice();
    for chunk in chunks {
        let (here, after) = rest.split_at_mut(chunk.as_ref().len());
        here.copy_from_slice(chunk.as_ref());
        rest = after;
    }
    joined
}
