//! Who waits for the answer to a BOSH request, and how it is given.

use std::sync::Arc;

use megaphone_core::bosh::{Condition, EMPTY, Effect, Effects, terminated};
use megaphone_core::table::Handle;
use parking_lot::RwLock;
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Term};

use crate::host::Beam;
use crate::pid::Pid;
use crate::terms::{self, atoms, binary, handle_from};
use crate::{TABLE, now};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waiter {
    /// A connection of whose request nobody else knows.
    Connection {
        handle: Handle,
        profile: u32,
        /// The minor version of HTTP.
        minor: u8,
        keep_alive: bool,
    },
    /// A process, which is sent the answer.
    Process { pid: Pid, number: u64 },
}

/// The same connection, or process, and nothing else counts: each waits for one answer at a time.
impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connection { handle, .. }, Self::Connection { handle: other, .. }) => handle == other,
            (Self::Process { pid, number }, Self::Process { pid: pid_of_other, number: other }) => {
                (pid, number) == (pid_of_other, other)
            }
            _ => false,
        }
    }
}

impl Waiter {
    /// Whoever waits at a connection: enough to find him.
    pub(super) const fn at(handle: &Handle) -> Self {
        Self::Connection { handle: *handle, profile: 0, minor: 1, keep_alive: true }
    }

    pub(crate) fn term<'a>(&self, env: Env<'a>) -> Term<'a> {
        match self {
            Self::Connection { handle, profile, minor, keep_alive } => {
                (terms::handle(env, handle), *profile, *minor, *keep_alive).encode(env)
            }
            Self::Process { pid, number } => (pid.local(env), *number).encode(env),
        }
    }

    pub(crate) fn from(term: Term<'_>) -> NifResult<Self> {
        if let Ok((handle, profile, minor, keep_alive)) = term.decode::<(Term<'_>, u32, u8, bool)>() {
            return Ok(Self::Connection { handle: handle_from(handle)?, profile, minor, keep_alive });
        }
        let (pid, number): (LocalPid, u64) = term.decode()?;
        Ok(Self::Process { pid: Pid::new(term.get_env(), &pid).ok_or(Error::BadArg)?, number })
    }

    /// Gives the answer, which is empty unless the status is 200.
    pub(crate) fn answer(self, status: u16, text: &[u8], beam: &mut Beam<'_>) {
        match self {
            Self::Connection { handle, profile, minor, keep_alive } => {
                let head = head(status, text.len(), profile, minor, keep_alive);
                // One that was closed meanwhile has nobody to be told anything.
                if let Ok(true) = TABLE.answer(&handle, &[&head, text], !keep_alive, now(), beam) {
                    next(beam, &handle);
                }
            }
            Self::Process { pid, number } => {
                let env = beam.env;
                let message = (atoms::megaphone_bosh(), number, status, binary(env, text)).encode(env);
                send(env, pid, message);
            }
        }
    }

    /// The same request has come by another way.
    fn drop(self, beam: &mut Beam<'_>) {
        match self {
            Self::Connection { handle, .. } => {
                let nobody = beam.env.pid();
                if let Ok(by) = beam.process(&nobody) {
                    TABLE.close(&handle, by, now(), beam);
                }
            }
            Self::Process { pid, number } => {
                let env = beam.env;
                send(env, pid, (atoms::megaphone_bosh(), number, atoms::closed()).encode(env));
            }
        }
    }
}

/// A process that has ended meanwhile reads no messages.
pub(crate) fn send(env: Env<'_>, to: Pid, message: Term<'_>) {
    if let Some(to) = to.local(env) {
        let _ = env.send(&to, message);
    }
}

/// The next request of the connection waits already: its link's receiver is to look at it.
fn next(beam: &Beam<'_>, handle: &Handle) {
    if let Some(links) = beam.env.whereis_pid(atoms::megaphone_links()) {
        let message = (atoms::megaphone_next(), terms::handle(beam.env, handle));
        let _ = beam.env.send(&links, message);
    }
}

/// Does what a session wants done.
pub(crate) fn perform(effects: Effects<Waiter>, beam: &mut Beam<'_>) {
    for effect in effects {
        match effect {
            Effect::Answer(waiter, text) => waiter.answer(200, text.as_deref().unwrap_or(EMPTY), beam),
            Effect::Drop(waiter) => waiter.drop(beam),
        }
    }
}

fn head(status: u16, length: usize, profile: u32, minor: u8, keep_alive: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(if minor == 0 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    head.extend_from_slice(match status {
        200 => b"200 OK\r\n".as_slice(),
        403 => b"403 Request Too Large\r\n",
        _ => b"400 Bad Request\r\n",
    });
    match (minor, keep_alive) {
        (0, true) => head.extend_from_slice(b"Connection: keep-alive\r\n"),
        (_, true) => {}
        (_, false) => head.extend_from_slice(b"Connection: close\r\n"),
    }
    head.extend_from_slice(b"Content-Length: ");
    head.extend_from_slice(length.to_string().as_bytes());
    head.extend_from_slice(b"\r\n");
    if let Some(fields) = PROFILES.read().get(profile as usize) {
        head.extend_from_slice(fields);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Header fields of listeners, each with its line's end. They are never forgotten: there are as many as an operator has written.
static PROFILES: RwLock<Vec<Arc<[u8]>>> = RwLock::new(Vec::new());

/// The number of these header fields.
#[rustler::nif]
fn bosh_profile(fields: Binary<'_>) -> u32 {
    let mut profiles = PROFILES.write();
    let known = profiles.iter().position(|known| **known == *fields.as_slice());
    let at = known.unwrap_or_else(|| {
        profiles.push(fields.as_slice().into());
        profiles.len() - 1
    });
    at as u32 // far below 2^32
}

/// Answers a request that is no session's: with a condition that ends what was to be one, or with a status.
#[rustler::nif]
fn bosh_refuse<'a>(env: Env<'a>, waiter: Term<'a>, why: Term<'a>) -> NifResult<Atom> {
    let waiter = Waiter::from(waiter)?;
    let mut beam = Beam::new(env);
    match why.decode::<u16>() {
        Ok(status) => waiter.answer(status, b"", &mut beam),
        Err(_) => waiter.answer(200, &terminated(Some(condition(why.decode()?)?)), &mut beam),
    }
    Ok(atoms::ok())
}

/// Bound: a copy of an answer.
#[rustler::nif]
fn bosh_answer<'a>(env: Env<'a>, waiter: Term<'a>, status: u16, text: Binary<'a>) -> NifResult<Atom> {
    Waiter::from(waiter)?.answer(status, &text, &mut Beam::new(env));
    Ok(atoms::ok())
}

fn condition(atom: Atom) -> NifResult<Condition> {
    [
        (atoms::host_unknown(), Condition::HostUnknown),
        (atoms::improper_addressing(), Condition::ImproperAddressing),
        (atoms::internal_server_error(), Condition::InternalServerError),
        (atoms::item_not_found(), Condition::ItemNotFound),
        (atoms::policy_violation(), Condition::PolicyViolation),
    ]
    .into_iter()
    .find_map(|(name, condition)| (name == atom).then_some(condition))
    .ok_or(Error::BadArg)
}
