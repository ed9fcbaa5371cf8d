//! NIFs about links. Documented for users in `megaphone_nif.erl`.

use std::sync::Arc;

use megaphone_core::link::{Credentials, Secret};
use megaphone_core::table::{Action, InputEnd, Link, Refused, Served};
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Resource, ResourceArc, Term};

use crate::connections::swept;
use crate::host::{Beam, Bin};
use crate::messages;
use crate::pid::Pid;
use crate::terms::{self, atoms, binary, closed};
use crate::{TABLE, now};

/// A link, as Erlang holds it. When the last reference goes, only memory goes: the end of a link is told by
/// `link_down`, which `megaphone_links` calls whatever happens.
pub(crate) struct LinkRef(Arc<Link<Pid>>);

impl Resource for LinkRef {}

/// How this end names itself in hello.
const SOFTWARE: &str = concat!("megaphone/", env!("CARGO_PKG_VERSION"));

/// `auth`: `none`, or the secret and a nonce. `served`: `http`, or `http_and_xmpp`.
#[rustler::nif]
fn link_open<'a>(env: Env<'a>, peer: Binary<'a>, auth: Term<'a>, served: Atom) -> NifResult<Term<'a>> {
    let served = match served {
        served if served == atoms::http() => Served::Http,
        served if served == atoms::http_and_xmpp() => Served::HttpAndXmpp,
        _ => return Err(Error::BadArg),
    };
    let peer = String::from_utf8_lossy(&peer[..peer.len().min(256)]).into_owned();
    let credentials = if auth == atoms::none().to_term(env) { None } else { Some(credentials(auth)?) };
    Ok(match TABLE.link_open(peer, SOFTWARE, served, credentials) {
        Ok(link) => (atoms::ok(), ResourceArc::new(LinkRef(link))).encode(env),
        Err(refused) => connections_error(env, refused),
    })
}

fn credentials(auth: Term<'_>) -> NifResult<Credentials> {
    let (secret, nonce): (Binary<'_>, Binary<'_>) = auth.decode()?;
    let secret = Secret::new(&secret).map_err(|_| Error::BadArg)?;
    let nonce = (*nonce).try_into().map_err(|_| Error::BadArg)?;
    Ok(Credentials { secret, nonce })
}

/// `why`: text, or `links`.
#[rustler::nif]
fn link_refusal<'a>(env: Env<'a>, why: Term<'a>) -> NifResult<Term<'a>> {
    let text = if why == atoms::links().to_term(env) { None } else { Some(text(why)?) };
    Ok(binary(env, &TABLE.link_refusal(SOFTWARE, text.as_deref())))
}

#[rustler::nif]
fn link_refuse<'a>(env: Env<'a>, link: ResourceArc<LinkRef>, why: Term<'a>) -> NifResult<Atom> {
    TABLE.link_refuse(&link.0, &text(why)?, &mut Beam::new(env));
    Ok(atoms::ok())
}

fn text(term: Term<'_>) -> NifResult<String> {
    let bytes: Binary<'_> = term.decode()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Bound: `FRAMES_PER_CALL` frames, `ACTIONS_PER_CALL` batches of messages, and the copy of one chunk (callers read at most 64 kB at once).
#[rustler::nif]
fn link_input<'a>(env: Env<'a>, link: ResourceArc<LinkRef>, chunk: Binary<'a>) -> Term<'a> {
    let mut actions = Vec::new();
    let end = TABLE.link_input(&link.0, &chunk, now(), &mut actions, &mut Beam::new(env));
    let actions: Vec<Term<'a>> = actions.iter().filter_map(|action| act(env, action)).collect();
    match end {
        InputEnd::Done => (atoms::ok(), actions).encode(env),
        InputEnd::More => (atoms::more(), actions).encode(env),
        InputEnd::Stop(reason) => (atoms::stop(), binary(env, reason.as_bytes()), actions).encode(env),
        InputEnd::Refused(reason) => (atoms::refused(), binary(env, reason.as_bytes()), actions).encode(env),
        InputEnd::Closed => (atoms::error(), atoms::closed()).encode(env),
    }
}

/// Does what can be done here; the rest is for the caller.
fn act<'a>(env: Env<'a>, action: &Action<Pid, Bin>) -> Option<Term<'a>> {
    Some(match action {
        Action::Start(handle) => (atoms::start(), terms::handle(env, handle)).encode(env),
        Action::Attach(handle) => (atoms::attach(), terms::handle(env, handle)).encode(env),
        Action::Large(handle) => (atoms::large(), terms::handle(env, handle)).encode(env),
        Action::Open => atoms::open().encode(env),
        Action::Deliver(batch) => {
            messages::deliver(env, batch);
            return None;
        }
    })
}

/// Bound: `OUTPUT_BATCH` bytes and `VISITS_PER_CALL` connections.
#[rustler::nif]
fn link_output(env: Env<'_>, link: ResourceArc<LinkRef>) -> NifResult<Term<'_>> {
    if link.0.is_down() {
        return Ok((atoms::error(), atoms::closed()).encode(env));
    }
    let mut beam = Beam::new(env);
    let output = TABLE.link_output(&link.0, beam.caller()?, &mut beam);
    Ok(if output.is_empty() {
        atoms::empty().encode(env)
    } else {
        (atoms::ok(), vec![binary(env, &output)]).encode(env)
    })
}

#[rustler::nif]
fn link_ping(env: Env<'_>, link: ResourceArc<LinkRef>) -> Atom {
    TABLE.link_ping(&link.0, &mut Beam::new(env));
    atoms::ok()
}

#[rustler::nif]
fn link_drain(env: Env<'_>, link: ResourceArc<LinkRef>) -> Term<'_> {
    if TABLE.link_drain(&link.0, &mut Beam::new(env)) { atoms::ok().encode(env) } else { closed(env) }
}

#[rustler::nif]
fn link_down(link: ResourceArc<LinkRef>) -> Atom {
    TABLE.link_down(&link.0);
    atoms::ok()
}

/// Bound: `SWEEP_PER_CALL` places.
#[rustler::nif]
fn link_sweep<'a>(env: Env<'a>, link: ResourceArc<LinkRef>, cursor: u64) -> Term<'a> {
    let mut beam = Beam::new(env);
    let next = TABLE.link_sweep(&link.0, cursor, &mut beam);
    swept(&beam, next)
}

#[rustler::nif]
fn link_info(env: Env<'_>, link: ResourceArc<LinkRef>) -> Term<'_> {
    let info = TABLE.link_info(&link.0);
    terms::map(
        env,
        &[
            ("link", info.incarnation.encode(env)),
            ("peer", binary(env, info.peer.as_bytes())),
            ("connections", info.connections.encode(env)),
            ("opened", info.opened.encode(env)),
            ("bytes_in", info.bytes_in.encode(env)),
            ("bytes_out", info.bytes_out.encode(env)),
            ("undelivered", info.undelivered.encode(env)),
            ("draining", info.draining.encode(env)),
        ],
    )
}

pub(crate) fn connections_error(env: Env<'_>, refused: Refused) -> Term<'_> {
    let limit = |name: Atom| (atoms::error(), (atoms::limit(), name)).encode(env);
    match refused {
        Refused::Closed => (atoms::error(), atoms::closed()).encode(env),
        Refused::QueueBytes => limit(atoms::queue_bytes()),
        Refused::Connections => limit(atoms::connections()),
        Refused::Links => limit(atoms::links()),
    }
}
