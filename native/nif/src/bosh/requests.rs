//! Requests on their way to their sessions.

use megaphone_core::bosh::{Condition, Effects, Entry, Request, SocketId, terminated};
use megaphone_core::limits::SMALL_MESSAGE;
use megaphone_core::packet::{Fields, Target};
use megaphone_core::table::Closed;
use megaphone_core::xml::XmlLimits;
use rustler::{Binary, Encoder, Env, NifResult, Term};

use super::waiter::{Waiter, perform};
use super::{SESSIONS, close_if_orphaned, events, finish, socket, stir};
use crate::host::Beam;
use crate::messages::message_limits;
use crate::pid::Pid;
use crate::terms::{atoms, binary, handle_from};
use crate::{TABLE, now, time};

/// Owns a connection between the moment at which its request is taken and the one at which it is known whose it is.
const NOBODY: SocketId = SocketId { place: u32::MAX, generation: 0 };

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
        close_if_orphaned(entry, &mut effects, beam);
        if is_long && !entry.session.is_authenticated() {
            entry.session.refuse(waiter, Condition::PolicyViolation, &mut effects);
        } else {
            entry.session.request(request, body, waiter, time(), &mut effects);
        }
        if !here {
            entry.session.gone(&waiter, time(), &mut effects);
        }
        let batch = entry.session.take_batch(unbounded, time(), &mut effects);
        perform(effects, beam);
        (entry.id(), events::Delivery::new(entry, batch), stirs)
    });
    match done {
        Some(((id, delivery, stirs), ended)) => {
            finish(env, ended);
            if stirs {
                stir(id, beam);
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
pub(super) fn own(waiter: &Waiter, entry: &mut Entry<Waiter, Pid>, beam: &mut Beam<'_>) -> bool {
    let Waiter::Connection { handle, .. } = waiter else { return true };
    entry.link = handle.link;
    TABLE.set_owner(handle, Pid::of_session(entry.id()), now(), beam).is_ok()
}
