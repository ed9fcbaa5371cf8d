//! NIFs of BOSH sessions. Documented for users in `megaphone_nif.erl`.
//!
//! A session's lock is taken before those of the connection table, never after: what the table has to tell sessions waits
//! until its locks are released ([`Beam`]'s end).

mod events;
mod waiter;

use std::sync::{Arc, LazyLock};

use megaphone_core::bosh::{
    Activated, Condition, Effects, Ended, Entry, Item, Request, Session, Sessions, Settings, Sid, SocketId,
    terminated,
};
use megaphone_core::limits::{BOSH_TIMERS_PER_CALL, SMALL_MESSAGE};
use megaphone_core::packet::{Fields, Target};
use megaphone_core::table::{Closed, Handle};
use megaphone_core::xml::XmlLimits;
use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Term};

use crate::host::Beam;
use crate::messages::message_limits;
use crate::pid::Pid;
use crate::terms::{self, atoms, binary, handle_from};
use crate::{TABLE, now};
use waiter::{Waiter, perform, send};

/// The sessions of this node. Its tag is random, so that another node, or this one after a restart, has another.
static SESSIONS: LazyLock<Sessions<Waiter, Pid>> =
    LazyLock::new(|| Sessions::new(getrandom::u32().unwrap_or_else(|_| now())));

/// Owns a connection between the moment at which its request is taken and the one at which it is known whose it is.
const NOBODY: SocketId = SocketId { place: u32::MAX, generation: 0 };

/// Milliseconds since the machine was started.
fn time() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    (time.tv_sec * 1_000 + time.tv_nsec / 1_000_000).cast_unsigned()
}

/// The connection of a request that a session was to answer was closed. Called without locks.
pub(crate) fn gone(session: SocketId, handle: &Handle) {
    let waiter = Waiter::Connection { handle: *handle, profile: 0, minor: 1, keep_alive: true };
    let _ = SESSIONS.with_id(session, |entry| entry.session.gone(&waiter, time()));
}

/// What the session of a request, or nobody's, has made of it.
enum Taken {
    Done,
    /// Something is too long to be taken apart by this call.
    Large(SocketId),
    /// A session is asked for: by this name of a server, with this in `X-Forwarded-For`.
    Create(Option<String>),
    /// It is a session of another node.
    Carry(u32),
}

/// Bound: as `take_request`, for at most `SMALL_MESSAGE` bytes of body: and three looks at each byte of it.
#[rustler::nif]
fn bosh_request<'a>(env: Env<'a>, handle: Term<'a>, profile: u32) -> NifResult<Term<'a>> {
    let handle = handle_from(handle)?;
    let mut beam = Beam::new(env);
    let mut fields = Fields::new();
    let nobody = Pid::of_session(NOBODY);
    let most = SMALL_MESSAGE; // head and all
    let (bytes, whole) = match TABLE.take_request(&handle, &mut fields, most, nobody, now(), &mut beam) {
        Err(Closed) => return Ok(atoms::ok().encode(env)),
        Ok(None) => return Ok(atoms::slow().encode(env)),
        Ok(Some(taken)) => taken,
    };
    let data = bytes.as_ref();
    let (mut keep_alive, mut forwarded) = (whole.minor == 1, None);
    for field in &fields {
        let (name, value) = (field.name.of(data), field.value.of(data));
        if name.eq_ignore_ascii_case(b"connection") {
            match () {
                () if value.eq_ignore_ascii_case(b"close") => keep_alive = false,
                () if value.eq_ignore_ascii_case(b"keep-alive") => keep_alive = true,
                () => {}
            }
        } else if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            forwarded = forwarded.or(Some(value));
        }
    }
    debug_assert!(matches!(whole.target, Target::Path(_)), "polls are for paths");
    let waiter = Waiter::Connection { handle, profile, minor: whole.minor, keep_alive };
    let body = &data[whole.head_len..];
    let taken = take(waiter, body, false, &mut beam);
    Ok(taken_term(env, taken, &waiter, forwarded, body))
}

/// A request that a process has read. Bound: `SMALL_MESSAGE` bytes, `slow` for more.
#[rustler::nif]
fn bosh_body<'a>(env: Env<'a>, waiter: Term<'a>, body: Binary<'a>) -> NifResult<Term<'a>> {
    if body.len() > SMALL_MESSAGE {
        return Ok(atoms::slow().encode(env));
    }
    let waiter = Waiter::from(waiter)?;
    let taken = take(waiter, &body, false, &mut Beam::new(env));
    Ok(taken_term(env, taken, &waiter, None, &body))
}

/// As `bosh_body`; works as long as the largest message takes.
#[rustler::nif(schedule = "DirtyCpu")]
fn bosh_large_body<'a>(env: Env<'a>, waiter: Term<'a>, body: Binary<'a>) -> NifResult<Term<'a>> {
    let waiter = Waiter::from(waiter)?;
    let taken = take(waiter, &body, true, &mut Beam::new(env));
    Ok(taken_term(env, taken, &waiter, None, &body))
}

fn taken_term<'a>(
    env: Env<'a>,
    taken: Taken,
    waiter: &Waiter,
    forwarded: Option<&[u8]>,
    body: &[u8],
) -> Term<'a> {
    match taken {
        Taken::Done => atoms::ok().encode(env),
        Taken::Large(id) => (atoms::large(), socket(env, id)).encode(env),
        Taken::Carry(node) => (atoms::carry(), waiter.term(env), node, binary(env, body)).encode(env),
        Taken::Create(to) => {
            let text = |text: Option<&[u8]>| match text {
                Some(text) => binary(env, text),
                None => atoms::undefined().encode(env),
            };
            let to = text(to.as_deref().map(str::as_bytes));
            (atoms::create(), waiter.term(env), to, text(forwarded), binary(env, body)).encode(env)
        }
    }
}

fn take(waiter: Waiter, body: &[u8], unbounded: bool, beam: &mut Beam<'_>) -> Taken {
    let env = beam.env;
    if body.len() > message_limits(true).0 {
        return refused(waiter, 403, b"", beam);
    }
    let Ok(request) = Request::parse(body, &XmlLimits::default()) else {
        return refused(waiter, 400, b"", beam);
    };
    // Before logging in it may not even be kept until its turn comes: the client session would refuse it.
    let is_long = body.len() > message_limits(false).0;
    let sid = match request.sid {
        None if is_long => {
            return refused(waiter, 200, &terminated(Some(Condition::PolicyViolation)), beam);
        }
        None => return Taken::Create(request.to),
        Some(None) => return not_found(waiter, beam),
        Some(Some(sid)) => sid,
    };
    let done = SESSIONS.with_sid(&sid, |entry| {
        let mut effects = Effects::new();
        let here = own(&waiter, entry, beam);
        let stirs = !request.is_empty();
        if let Some(owner) = entry.owner
            && !owner.local(env).is_some_and(|owner| owner.is_alive(env))
        {
            entry.session.close(time(), &mut effects);
        }
        if is_long && !entry.session.is_authenticated() {
            entry.session.refuse(waiter, Condition::PolicyViolation, &mut effects);
        } else {
            entry.session.request(request, body, waiter, time(), &mut effects);
        }
        if !here {
            entry.session.gone(&waiter, time());
        }
        let batch = entry.session.take_batch(unbounded, time(), &mut effects);
        perform(effects, beam);
        (entry.id(), events::Delivery::new(entry, batch), stirs)
    });
    match done {
        Some(((id, delivery, stirs), ended)) => {
            finish(env, ended);
            if stirs && SESSIONS.stir(id, crate::millis()) {
                megaphone_core::table::Host::busy(beam);
            }
            if delivery.deliver(env) { Taken::Large(id) } else { Taken::Done }
        }
        None if sid.node != SESSIONS.node() => Taken::Carry(sid.node),
        None => not_found(waiter, beam),
    }
}

fn not_found(waiter: Waiter, beam: &mut Beam<'_>) -> Taken {
    refused(waiter, 200, &terminated(Some(Condition::ItemNotFound)), beam)
}

fn refused(waiter: Waiter, status: u16, text: &[u8], beam: &mut Beam<'_>) -> Taken {
    waiter.answer(status, text, beam);
    Taken::Done
}

/// The connection of a request is the session's until it is answered. False: it was closed.
fn own(waiter: &Waiter, entry: &mut Entry<Waiter, Pid>, beam: &mut Beam<'_>) -> bool {
    let Waiter::Connection { handle, .. } = waiter else { return true };
    entry.link = handle.link;
    TABLE.set_owner(handle, Pid::of_session(entry.id()), now(), beam).is_ok()
}

/// Makes the session that a request asks for. Its client session is to be named next.
#[rustler::nif]
fn bosh_create<'a>(
    env: Env<'a>,
    waiter: Term<'a>,
    to: Binary<'a>,
    client: Term<'a>,
    settings: (u32, u32, u32),
    body: Binary<'a>,
) -> NifResult<Term<'a>> {
    let waiter = Waiter::from(waiter)?;
    let mut beam = Beam::new(env);
    let mut request = Request::parse(&body, &XmlLimits::default()).map_err(|_| Error::BadArg)?;
    let host = host(str::from_utf8(&to).map_err(|_| Error::BadArg)?);
    request.to = Some(host.to_string());
    let (inactivity, max_pause, max_concat) = settings;
    let settings = Settings { inactivity, max_pause, max_concat };
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|_| Error::Term(Box::new("no random bits")))?;
    let link = if let Waiter::Connection { handle, .. } = &waiter { handle.link } else { 0 };
    let make = |sid: &Sid| Session::new(request, &body, waiter, sid, true, settings, time());
    let Some(id) = SESSIONS.create(secret, host, terms::address_from(client)?, link, make) else {
        return Ok((atoms::error(), atoms::limit()).encode(env));
    };
    let here = SESSIONS.with_id(id, |entry| own(&waiter, entry, &mut beam));
    if !matches!(here, Some((true, _))) {
        let _ = SESSIONS.with_id(id, |entry| entry.session.gone(&waiter, time()));
    }
    Ok((atoms::ok(), socket(env, id)).encode(env))
}

/// Names of servers, each kept once: there are as many as the operator has.
static HOSTS: RwLock<Vec<Arc<str>>> = RwLock::new(Vec::new());

fn host(name: &str) -> Arc<str> {
    if let Some(known) = HOSTS.read().iter().find(|known| &***known == name) {
        return Arc::clone(known);
    }
    let host: Arc<str> = name.into();
    HOSTS.write().push(Arc::clone(&host));
    host
}

#[rustler::nif]
fn bosh_set_owner<'a>(env: Env<'a>, socket: Term<'a>, pid: LocalPid) -> NifResult<Atom> {
    let owner = Beam::new(env).process(&pid)?;
    let _ = SESSIONS.with_id(id_from(socket)?, |entry| entry.owner = Some(owner));
    Ok(atoms::ok())
}

/// Bound: as `activate`.
#[rustler::nif]
fn bosh_activate<'a>(env: Env<'a>, socket: Term<'a>) -> NifResult<Term<'a>> {
    activate(env, id_from(socket)?, false)
}

/// Works as long as the largest message takes.
#[rustler::nif(schedule = "DirtyCpu")]
fn bosh_deliver<'a>(env: Env<'a>, socket: Term<'a>) -> NifResult<Term<'a>> {
    activate(env, id_from(socket)?, true)
}

fn activate(env: Env<'_>, id: SocketId, unbounded: bool) -> NifResult<Term<'_>> {
    let mut beam = Beam::new(env);
    let done = SESSIONS.with_id(id, |entry| {
        let mut effects = Effects::new();
        let activated = match unbounded {
            // It has been asked for.
            true => entry.session.take_batch(true, time(), &mut effects),
            false => entry.session.activate(false, time(), &mut effects),
        };
        perform(effects, &mut beam);
        if let Activated::Shaped(bytes) = activated {
            return Err(bytes);
        }
        Ok(events::Delivery::new(entry, activated))
    });
    Ok(match done {
        None => closed(env),
        Some((Err(bytes), _)) => (atoms::shaped(), bytes).encode(env),
        Some((Ok(delivery), ended)) => {
            finish(env, ended);
            if delivery.deliver(env) { atoms::large().encode(env) } else { atoms::ok().encode(env) }
        }
    })
}

/// Bound: a copy of an element, and one of an answer.
#[rustler::nif]
fn bosh_send<'a>(env: Env<'a>, socket: Term<'a>, kind: Atom, text: Binary<'a>) -> NifResult<Term<'a>> {
    let text = text.as_slice();
    let item = match () {
        () if kind == atoms::features() => Item::Features(text),
        () if kind == atoms::error() => Item::Error(text),
        () if kind == atoms::end() => Item::End,
        () => Item::Element(text),
    };
    Ok(send_item(env, id_from(socket)?, item))
}

#[rustler::nif]
fn bosh_send_start<'a>(
    env: Env<'a>,
    socket: Term<'a>,
    id: Binary<'a>,
    version: Binary<'a>,
) -> NifResult<Term<'a>> {
    Ok(send_item(env, id_from(socket)?, Item::Start { id: &id, version: &version }))
}

fn send_item<'a>(env: Env<'a>, id: SocketId, item: Item<'_>) -> Term<'a> {
    let mut beam = Beam::new(env);
    let done = SESSIONS.with_id(id, |entry| {
        let mut effects = Effects::new();
        let sent = entry.session.send(item, time(), &mut effects);
        perform(effects, &mut beam);
        sent
    });
    match done {
        Some((sent, ended)) => {
            finish(env, ended);
            if SESSIONS.stir(id, crate::millis()) {
                megaphone_core::table::Host::busy(&mut beam);
            }
            if sent { atoms::ok().encode(env) } else { closed(env) }
        }
        None => closed(env),
    }
}

/// What is known of the client session: it has logged in, is slowed down or not, has others care for what is not delivered.
#[rustler::nif]
fn bosh_note<'a>(socket: Term<'a>, what: Atom) -> NifResult<Atom> {
    let _ = SESSIONS.with_id(id_from(socket)?, |entry| match () {
        () if what == atoms::authenticated() => entry.session.set_authenticated(),
        () if what == atoms::shaped() => entry.session.set_shaped(true),
        () if what == atoms::unshaped() => entry.session.set_shaped(false),
        () if what == atoms::resumable() => entry.resumable = true,
        () => {}
    });
    Ok(atoms::ok())
}

#[rustler::nif]
fn bosh_close<'a>(env: Env<'a>, socket: Term<'a>) -> NifResult<Atom> {
    let mut beam = Beam::new(env);
    let done = SESSIONS.with_id(id_from(socket)?, |entry| {
        let mut effects = Effects::new();
        entry.session.close(time(), &mut effects);
        perform(effects, &mut beam);
    });
    finish(env, done.and_then(|((), ended)| ended));
    Ok(atoms::ok())
}

#[rustler::nif]
fn bosh_peername<'a>(env: Env<'a>, socket: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match SESSIONS.with_id(id_from(socket)?, |entry| entry.client) {
        Some((client, _)) => (atoms::ok(), terms::address(env, &client)).encode(env),
        None => closed(env),
    })
}

/// Bound: `BOSH_TIMERS_PER_CALL` sessions, and a look at each shard.
#[rustler::nif]
fn bosh_tick(env: Env<'_>) -> Term<'_> {
    let mut beam = Beam::new(env);
    let mut ended = Vec::new();
    let more = SESSIONS.tick(time(), BOSH_TIMERS_PER_CALL, &mut ended, |entry| {
        let mut effects = Effects::new();
        if entry.owner.is_some_and(|owner| !owner.local(env).is_some_and(|owner| owner.is_alive(env))) {
            entry.session.close(time(), &mut effects);
        }
        entry.session.tick(time(), &mut effects);
        perform(effects, &mut beam);
        let activated = entry.session.take_batch(false, time(), &mut Effects::new());
        events::Delivery::new(entry, activated).deliver(env);
    });
    for ended in ended {
        finish(env, Some(ended));
    }
    (if more { atoms::more() } else { atoms::done() }, SESSIONS.len()).encode(env)
}

/// The process that was to be given the answer to a request has no use for it any more.
#[rustler::nif]
fn bosh_forget<'a>(waiter: Term<'a>, body: Binary<'a>) -> NifResult<Atom> {
    let waiter = Waiter::from(waiter)?;
    if let Ok(Request { sid: Some(Some(sid)), .. }) = Request::parse(&body, &XmlLimits::default()) {
        let _ = SESSIONS.with_sid(&sid, |entry| entry.session.gone(&waiter, time()));
    }
    Ok(atoms::ok())
}

#[rustler::nif]
fn bosh_info(env: Env<'_>) -> Term<'_> {
    let pairs = [
        ("node", SESSIONS.node().encode(env)),
        ("sessions", SESSIONS.len().encode(env)),
        ("memory", SESSIONS.memory().encode(env)),
    ];
    terms::map(env, &pairs)
}

/// Adds client sessions of BOSH on which nothing has happened, as `take_idle` does.
pub(crate) fn take_idle(now: u32, after: u32, most: usize, idle: &mut Vec<(Pid, u32)>) -> bool {
    SESSIONS.take_idle(now, after, most, idle)
}

/// Hands on what was not delivered.
fn finish(env: Env<'_>, ended: Option<Ended<Pid>>) {
    let Some(Ended { owner, unsent }) = ended.filter(|ended| !ended.unsent.is_empty()) else { return };
    let Some(clock) = env.whereis_pid(atoms::megaphone_bosh_clock()) else { return };
    let owner = owner.and_then(|owner| owner.local(env));
    let unsent: Vec<Term<'_>> = unsent.iter().map(|text| binary(env, text)).collect();
    let _ = env.send(&clock, (atoms::undelivered(), owner, unsent));
}

fn closed(env: Env<'_>) -> Term<'_> {
    (atoms::error(), atoms::closed()).encode(env)
}

fn socket(env: Env<'_>, id: SocketId) -> Term<'_> {
    (id.place, id.generation).encode(env)
}

fn id_from(term: Term<'_>) -> NifResult<SocketId> {
    let (place, generation) = term.decode()?;
    Ok(SocketId { place, generation })
}

/// Tells a client session that nothing more comes.
fn tell_closed(env: Env<'_>, owner: Pid, id: SocketId) {
    send(env, owner, (atoms::tcp_closed(), socket(env, id)).encode(env));
}
