//! NIFs about connections. Documented for users in `megaphone_nif.erl`.

use megaphone_core::limits;
use megaphone_core::table::{Closed, RecvError, Sent};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, NifResult, Term};

use crate::host::{Beam, data_term};
use crate::links::connections_error;
use crate::terms::{self, atoms, closed, handle_from};
use crate::{TABLE, now};

fn ok_or_closed(env: Env<'_>, result: Result<(), Closed>) -> Term<'_> {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(Closed) => closed(env),
    }
}

#[rustler::nif]
fn open<'a>(env: Env<'a>, peer: Term<'a>, packet: Atom) -> NifResult<Term<'a>> {
    let peer = terms::address_from(peer)?;
    let packet = terms::packet_type_from(packet)?;
    let mut beam = Beam::new(env);
    Ok(match TABLE.open(peer, packet, beam.caller()?, now(), &mut beam) {
        Ok(handle) => (atoms::ok(), terms::handle(env, &handle)).encode(env),
        Err(refused) => connections_error(env, refused),
    })
}

#[rustler::nif]
fn set_owner<'a>(env: Env<'a>, handle: Term<'a>, pid: LocalPid) -> NifResult<Term<'a>> {
    let mut beam = Beam::new(env);
    let pid = beam.process(&pid)?;
    Ok(ok_or_closed(env, TABLE.set_owner(&handle_from(handle)?, pid, now(), &mut beam)))
}

#[rustler::nif]
fn set_consumer<'a>(env: Env<'a>, handle: Term<'a>, pid: LocalPid) -> NifResult<Term<'a>> {
    let mut beam = Beam::new(env);
    let pid = beam.process(&pid)?;
    Ok(ok_or_closed(env, TABLE.set_owner(&handle_from(handle)?, pid, now(), &mut beam)))
}

/// Bound: a copy of at most `LOCAL_QUEUE` bytes, some 100 us; what is larger is refused before it is copied.
#[rustler::nif]
fn put_data<'a>(env: Env<'a>, handle: Term<'a>, data: Binary<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.put_data(&handle_from(handle)?, &data, now(), &mut Beam::new(env)) {
        Ok(()) => atoms::ok().encode(env),
        Err(refused) => connections_error(env, refused),
    })
}

/// Bound: what the queue holds is moved, not copied, beyond 128 kB.
#[rustler::nif]
fn recv<'a>(env: Env<'a>, handle: Term<'a>, length: usize) -> NifResult<Term<'a>> {
    let mut beam = Beam::new(env);
    Ok(match TABLE.recv(&handle_from(handle)?, length, beam.caller()?, now(), &mut beam) {
        Ok(Ok(data)) => (atoms::ok(), data_term(env, data)).encode(env),
        Ok(Err(token)) => (atoms::wait(), token).encode(env),
        Err(error) => recv_error(env, error),
    })
}

fn recv_error(env: Env<'_>, error: RecvError) -> Term<'_> {
    match error {
        RecvError::Closed => closed(env),
        RecvError::Invalid => (atoms::error(), atoms::einval()).encode(env),
        RecvError::Waiters => (atoms::error(), (atoms::limit(), atoms::waiters())).encode(env),
    }
}

/// Bound: `DEATHS_PER_CALL` connections and waits.
#[rustler::nif]
fn process_down(env: Env<'_>, pid: LocalPid) -> NifResult<Atom> {
    let mut beam = Beam::new(env);
    let pid = beam.process(&pid)?;
    Ok(if TABLE.process_down(pid, now(), &mut beam) {
        beam.end_slice();
        atoms::more()
    } else {
        atoms::done()
    })
}

/// Bound: `SWEEP_PER_CALL` places.
#[rustler::nif]
fn local_sweep(env: Env<'_>, cursor: u64) -> Term<'_> {
    let mut beam = Beam::new(env);
    let next = TABLE.local_sweep(cursor, &mut beam);
    swept(&beam, next)
}

/// What a sweep answers when it has come to `next`.
pub(crate) fn swept<'a>(beam: &Beam<'a>, next: Option<u64>) -> Term<'a> {
    match next {
        Some(next) => {
            beam.end_slice();
            (atoms::more(), next).encode(beam.env)
        }
        None => atoms::done().encode(beam.env),
    }
}

#[rustler::nif]
fn get_data<'a>(env: Env<'a>, handle: Term<'a>, from: LocalPid) -> NifResult<Atom> {
    let mut beam = Beam::new(env);
    let from = beam.process(&from)?;
    TABLE.get_data(&handle_from(handle)?, from, now(), &mut beam);
    Ok(atoms::ok())
}

#[rustler::nif]
fn cancel(env: Env<'_>, handle: Term<'_>, token: u64) -> NifResult<Atom> {
    Ok(if TABLE.cancel(&handle_from(handle)?, token, &mut Beam::new(env)) {
        atoms::ok()
    } else {
        atoms::gone()
    })
}

/// Bound: a copy of at most `OUTPUT_QUEUE` bytes.
#[rustler::nif]
fn send<'a>(env: Env<'a>, handle: Term<'a>, data: Binary<'a>) -> NifResult<Term<'a>> {
    let mut beam = Beam::new(env);
    Ok(match TABLE.send(&handle_from(handle)?, &data, beam.caller()?, now(), &mut beam) {
        Ok(Sent::All) => atoms::ok().encode(env),
        Ok(Sent::Refused) => (atoms::error(), (atoms::limit(), atoms::waiters())).encode(env),
        Ok(Sent::Wait { accepted, token }) => (atoms::wait(), accepted, token).encode(env),
        Err(Closed) => closed(env),
    })
}

#[rustler::nif]
fn set_active<'a>(env: Env<'a>, handle: Term<'a>, active: Term<'a>) -> NifResult<Term<'a>> {
    let Ok(active) = terms::active_from(active) else {
        return Ok((atoms::error(), atoms::einval()).encode(env));
    };
    Ok(match TABLE.set_active(&handle_from(handle)?, active, &mut Beam::new(env)) {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => recv_error(env, error),
    })
}

#[rustler::nif]
fn set_packet<'a>(env: Env<'a>, handle: Term<'a>, packet: Atom) -> NifResult<Term<'a>> {
    let packet = terms::packet_type_from(packet)?;
    Ok(ok_or_closed(env, TABLE.set_packet(&handle_from(handle)?, packet, &mut Beam::new(env))))
}

#[rustler::nif]
fn peername<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.peername(&handle_from(handle)?) {
        Ok(address) => (atoms::ok(), terms::address(env, &address)).encode(env),
        Err(Closed) => closed(env),
    })
}

#[rustler::nif]
fn sockname<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.sockname(&handle_from(handle)?) {
        Ok(address) => (atoms::ok(), terms::address(env, &address)).encode(env),
        Err(Closed) => closed(env),
    })
}

#[rustler::nif]
fn close<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Atom> {
    let mut beam = Beam::new(env);
    TABLE.close(&handle_from(handle)?, beam.caller()?, now(), &mut beam);
    Ok(atoms::ok())
}

#[rustler::nif]
fn shutdown<'a>(env: Env<'a>, handle: Term<'a>, how: Atom) -> NifResult<Term<'a>> {
    let (read, write) = match how {
        how if how == atoms::read() => (true, false),
        how if how == atoms::write() => (false, true),
        how if how == atoms::read_write() => (true, true),
        _ => return Err(rustler::Error::BadArg),
    };
    Ok(ok_or_closed(env, TABLE.shutdown(&handle_from(handle)?, read, write, now(), &mut Beam::new(env))))
}

#[rustler::nif]
fn output<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.output(&handle_from(handle)?, &mut Beam::new(env)) {
        Ok(Some(bytes)) => (atoms::ok(), bytes.into_term(env)).encode(env),
        Ok(None) => atoms::empty().encode(env),
        Err(Closed) => closed(env),
    })
}

#[rustler::nif]
fn info<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    let handle = handle_from(handle)?;
    let Ok(info) = TABLE.info(&handle) else { return Ok(closed(env)) };
    let idle = now().saturating_sub(info.last_activity);
    let owner = info.owner.and_then(|owner| owner.local(env));
    let owner = owner.map_or_else(|| atoms::undefined().encode(env), |owner| owner.encode(env));
    let map = terms::map(
        env,
        &[
            ("link", handle.link.encode(env)),
            ("active", terms::active(env, info.active)),
            ("packet", terms::packet_type(info.packet).encode(env)),
            ("readers", info.readers.encode(env)),
            ("senders", info.senders.encode(env)),
            ("input_bytes", info.input.encode(env)),
            ("output_bytes", info.output.encode(env)),
            ("owner", owner),
            ("tls", info.tls.encode(env)),
            ("kind", terms::carries(info.carries).encode(env)),
            ("idle_seconds", idle.encode(env)),
        ],
    );
    Ok((atoms::ok(), map).encode(env))
}

/// Visits every connection, so it runs on a dirty scheduler; a shard is locked for some 50 us per 16,000 connections.
#[rustler::nif(schedule = "DirtyCpu")]
fn stats(env: Env<'_>) -> Term<'_> {
    let stats = TABLE.stats();
    terms::map(
        env,
        &[
            ("links", stats.links.encode(env)),
            ("connections", stats.connections.encode(env)),
            ("local", stats.local.encode(env)),
            ("xmpp", stats.xmpp.encode(env)),
            ("busy", stats.busy.encode(env)),
            ("waiters", stats.waiters.encode(env)),
            ("watched", stats.watched.encode(env)),
            ("input_bytes", stats.input_bytes.encode(env)),
            ("output_bytes", stats.output_bytes.encode(env)),
            ("memory", stats.memory.encode(env)),
        ],
    )
}

#[rustler::nif]
fn limits(env: Env<'_>) -> Term<'_> {
    terms::map(
        env,
        &[
            ("max_payload", limits::MAX_PAYLOAD.encode(env)),
            ("data_chunk", limits::DATA_CHUNK.encode(env)),
            ("window", limits::WINDOW.encode(env)),
            ("max_head", limits::MAX_HEAD.encode(env)),
            ("max_headers", limits::MAX_HEADERS.encode(env)),
            ("small_body", limits::SMALL_BODY.encode(env)),
            ("local_queue", limits::LOCAL_QUEUE.encode(env)),
            ("output_queue", limits::OUTPUT_QUEUE.encode(env)),
            ("max_waiters", limits::MAX_WAITERS.encode(env)),
            ("max_recv", limits::MAX_RECV.encode(env)),
            ("max_batch_bytes", limits::MAX_BATCH_BYTES.encode(env)),
            ("max_links", limits::MAX_LINKS.encode(env)),
            ("max_link_connections", limits::MAX_LINK_CONNECTIONS.encode(env)),
            ("max_local_connections", limits::MAX_LOCAL_CONNECTIONS.encode(env)),
            ("max_control", limits::MAX_CONTROL.encode(env)),
            ("frames_per_call", limits::FRAMES_PER_CALL.encode(env)),
            ("min_secret", limits::MIN_SECRET.encode(env)),
            ("max_secret", limits::MAX_SECRET.encode(env)),
            ("auth_timeout", limits::AUTH_TIMEOUT.encode(env)),
            ("auth_delay", limits::AUTH_DELAY.encode(env)),
            ("max_pending_links", limits::MAX_PENDING_LINKS.encode(env)),
            ("max_pending_links_per_address", limits::MAX_PENDING_LINKS_PER_ADDRESS.encode(env)),
            ("max_message", limits::MAX_STANZA.encode(env)),
            ("max_elements", limits::XML_ELEMENTS.encode(env)),
            ("max_message_before_login", limits::MAX_STANZA_BEFORE_LOGIN.encode(env)),
            ("max_elements_before_login", limits::XML_ELEMENTS_BEFORE_LOGIN.encode(env)),
            ("bosh_pending", limits::BOSH_PENDING.encode(env)),
            ("bosh_pending_per_address", limits::BOSH_PENDING_PER_ADDRESS.encode(env)),
            ("small_message", limits::SMALL_MESSAGE.encode(env)),
            ("walk_per_call", limits::WALK_PER_CALL.encode(env)),
            ("link_ping", limits::LINK_PING.encode(env)),
            ("link_silence", limits::LINK_SILENCE.encode(env)),
        ],
    )
}
