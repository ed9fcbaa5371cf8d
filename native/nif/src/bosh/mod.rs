//! NIFs of BOSH sessions. Documented for users in `megaphone_nif.erl`. Here is what client sessions and timers do; requests are
//! in `requests`, answers in `waiter`, elements in `events`.
//!
//! A session's lock is taken before those of the connection table, never after: what the table has to tell sessions waits
//! until its locks are released ([`Beam`]'s end).

mod events;
mod requests;
mod waiter;

use std::sync::{Arc, LazyLock};

use megaphone_core::bosh::{
    Activated, Effects, Ended, Entry, Item, Request, Session, Sessions, Settings, Sid, SocketId,
};
use megaphone_core::limits::BOSH_TIMERS_PER_CALL;
use megaphone_core::table::{Handle, Host};
use megaphone_core::xml::XmlLimits;
use parking_lot::RwLock;
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Term};

use crate::host::Beam;
use crate::pid::Pid;
use crate::terms::{self, atoms, binary, closed};
use crate::{now, time, walk};
use requests::own;
use waiter::{Waiter, perform, send};

/// The sessions of this node. Its tag is random, so that another node, or this one after a restart, has another.
static SESSIONS: LazyLock<Sessions<Waiter, Pid>> =
    LazyLock::new(|| Sessions::new(getrandom::u32().unwrap_or_else(|_| now())));

/// The connection of a request that a session was to answer, or whose answer has not arrived, was closed. Called without locks.
pub(crate) fn gone(session: SocketId, handle: &Handle, beam: &mut Beam<'_>) {
    work_with(session, beam, |entry, effects| entry.session.gone(&Waiter::at(handle), time(), effects));
}

/// A request waits behind one that a session holds. Called without locks.
pub(crate) fn hurry(session: SocketId, handle: &Handle, beam: &mut Beam<'_>) {
    work_with(session, beam, |entry, effects| entry.session.hurry(&Waiter::at(handle), time(), effects));
}

/// Works with a session, does what it then wants done, and hands on what is left of one that has ended by that. `None`: there is
/// none.
fn work_with<R>(
    id: SocketId,
    beam: &mut Beam<'_>,
    work: impl FnOnce(&mut Entry<Waiter, Pid>, &mut Effects<Waiter>) -> R,
) -> Option<R> {
    let (result, ended) = SESSIONS.with_id(id, |entry| {
        let mut effects = Effects::new();
        let result = work(entry, &mut effects);
        perform(effects, beam);
        result
    })?;
    finish(beam.env, ended);
    Some(result)
}

/// A client session that was killed has not said that it ends.
fn close_if_orphaned(entry: &mut Entry<Waiter, Pid>, effects: &mut Effects<Waiter>, beam: &mut Beam<'_>) {
    if entry.owner.is_some_and(|owner| !beam.is_alive(owner)) {
        entry.session.close(time(), effects);
    }
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
        work_with(id, &mut beam, |entry, effects| entry.session.gone(&waiter, time(), effects));
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
    let done = work_with(id, &mut Beam::new(env), |entry, effects| {
        let activated = match unbounded {
            // It has been asked for.
            true => entry.session.take_batch(true, time(), effects),
            false => entry.session.activate(false, time(), effects),
        };
        match activated {
            Activated::Shaped(bytes) => Err(bytes),
            activated => Ok(events::Delivery::new(entry, activated)),
        }
    });
    Ok(match done {
        None => closed(env),
        Some(Err(bytes)) => (atoms::shaped(), bytes).encode(env),
        Some(Ok(delivery)) => if delivery.deliver(env) { atoms::large() } else { atoms::ok() }.encode(env),
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
    let sent = work_with(id, &mut beam, |entry, effects| entry.session.send(item, time(), effects));
    stir(id, &mut beam);
    if sent == Some(true) { atoms::ok().encode(env) } else { closed(env) }
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
    work_with(id_from(socket)?, &mut Beam::new(env), |entry, effects| entry.session.close(time(), effects));
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
    let (mut ended, mut deliveries) = (Vec::new(), Vec::new());
    let more = SESSIONS.tick(time(), BOSH_TIMERS_PER_CALL, &mut ended, |entry| {
        let mut effects = Effects::new();
        close_if_orphaned(entry, &mut effects, &mut beam);
        entry.session.tick(time(), &mut effects);
        let activated = entry.session.take_batch(false, time(), &mut effects);
        perform(effects, &mut beam);
        if activated != Activated::Waits {
            deliveries.push(events::Delivery::new(entry, activated));
        }
    });
    for delivery in deliveries {
        // What takes long is announced when the request comes that brings it, and waits for that call.
        delivery.deliver(env);
    }
    for ended in ended {
        finish(env, Some(ended));
    }
    (if more { atoms::more() } else { atoms::done() }, SESSIONS.len()).encode(env)
}

/// The process that was to be given the answer to a request has no use for it any more.
#[rustler::nif]
fn bosh_forget<'a>(env: Env<'a>, waiter: Term<'a>, body: Binary<'a>) -> NifResult<Atom> {
    let waiter = Waiter::from(waiter)?;
    if let Ok(Request { sid: Some(Some(sid)), .. }) = Request::parse(&body, &XmlLimits::default())
        && let Some((id, _)) = SESSIONS.with_sid(&sid, |entry| entry.id())
    {
        let forget = |entry: &mut Entry<Waiter, Pid>, effects: &mut Effects<Waiter>| {
            entry.session.gone(&waiter, time(), effects);
        };
        work_with(id, &mut Beam::new(env), forget);
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

/// Bound: `WALK_PER_CALL` places.
#[rustler::nif]
fn bosh_walk(env: Env<'_>, cursor: u64, most: usize) -> Term<'_> {
    let mut found = Vec::new();
    let next = SESSIONS.walk(cursor, most, &mut found);
    let found: Vec<(LocalPid, u32)> =
        found.into_iter().filter_map(|(owner, link)| Some((owner.local(env)?, link))).collect();
    walk::walked(&Beam::new(env), next, found)
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

/// Something has happened that the client session is busy with.
fn stir(id: SocketId, beam: &mut Beam<'_>) {
    if SESSIONS.stir(id, crate::millis()) {
        beam.busy();
    }
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
