//! NIFs about connections of kind XMPP: messages become elements for the process of a client. Documented for users in
//! `megaphone_nif.erl`.

use std::sync::atomic::{AtomicUsize, Ordering};

use megaphone_core::limits;
use megaphone_core::link::messages::Fault;
use megaphone_core::table::{Activated, Batch, Closed, Sent};
use megaphone_core::xml::{Class, XmlLimits};
use rustler::{Atom, Binary, Encoder, Env, NifResult, Term};

use crate::host::{Beam, Bin};
use crate::pid::Pid;
use crate::terms::{self, atoms, binary, closed, handle_from};
use crate::{TABLE, now, xml};

/// Most elements in a message, after login and before.
static ELEMENTS: [AtomicUsize; 2] =
    [AtomicUsize::new(limits::XML_ELEMENTS), AtomicUsize::new(limits::XML_ELEMENTS_BEFORE_LOGIN)];

/// Longest message, likewise; the table of connections has them, too.
static BYTES: [AtomicUsize; 2] = [
    AtomicUsize::new(limits::MAX_STANZA as usize),
    AtomicUsize::new(limits::MAX_STANZA_BEFORE_LOGIN as usize),
];

/// Bytes and elements that a message may have.
pub(crate) fn message_limits(authenticated: bool) -> (usize, usize) {
    let at = usize::from(!authenticated);
    (BYTES[at].load(Ordering::Relaxed), ELEMENTS[at].load(Ordering::Relaxed))
}

#[rustler::nif]
fn set_message_limits(after: (u32, usize), before: (u32, usize)) -> Atom {
    TABLE.set_message_limits(after.0, before.0);
    BYTES[0].store(after.0 as usize, Ordering::Relaxed);
    BYTES[1].store(before.0.min(after.0) as usize, Ordering::Relaxed);
    ELEMENTS[0].store(after.1, Ordering::Relaxed);
    ELEMENTS[1].store(before.1, Ordering::Relaxed);
    atoms::ok()
}

/// Bound: a batch of `MAX_BATCH_BYTES`.
#[rustler::nif]
fn activate<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.activate(&handle_from(handle)?, &mut Beam::new(env)) {
        Ok(Activated::Waits) => atoms::ok().encode(env),
        Ok(Activated::Batch(batch)) => {
            deliver(env, &batch);
            atoms::ok().encode(env)
        }
        Ok(Activated::Large) => atoms::large().encode(env),
        Ok(Activated::Shaped(bytes)) => (atoms::shaped(), bytes).encode(env),
        Err(Closed) => closed(env),
    })
}

/// Works as long as the largest message takes.
#[rustler::nif(schedule = "DirtyCpu")]
fn deliver_large<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.take_large(&handle_from(handle)?, &mut Beam::new(env)) {
        Ok(batch) => {
            if let Some(batch) = batch {
                deliver(env, &batch);
            }
            atoms::ok().encode(env)
        }
        Err(Closed) => closed(env),
    })
}

/// Bound: a copy of at most `OUTPUT_QUEUE` bytes.
#[rustler::nif]
fn send_message<'a>(env: Env<'a>, handle: Term<'a>, text: Binary<'a>) -> NifResult<Term<'a>> {
    let mut beam = Beam::new(env);
    Ok(match TABLE.send_message(&handle_from(handle)?, &text, beam.caller()?, now(), &mut beam) {
        Ok(Sent::All) => atoms::ok().encode(env),
        Ok(Sent::Refused) => (atoms::error(), (atoms::limit(), atoms::waiters())).encode(env),
        Ok(Sent::Wait { accepted, token }) => (atoms::wait(), accepted, token).encode(env),
        Err(Closed) => closed(env),
    })
}

#[rustler::nif]
fn set_authenticated(handle: Term<'_>) -> NifResult<Atom> {
    TABLE.set_authenticated(&handle_from(handle)?);
    Ok(atoms::ok())
}

#[rustler::nif]
fn set_shaped(handle: Term<'_>, shaped: bool) -> NifResult<Atom> {
    TABLE.set_shaped(&handle_from(handle)?, shaped);
    Ok(atoms::ok())
}

/// Bound: `most` owners, and a look at each shard.
#[rustler::nif]
fn take_idle<'a>(env: Env<'a>, after: u32, most: usize) -> Term<'a> {
    let mut idle = Vec::new();
    let mut noted = TABLE.take_idle(crate::millis(), after, most, &mut idle);
    noted |= crate::bosh::take_idle(crate::millis(), after, most, &mut idle);
    let idle: Vec<Term<'a>> =
        idle.into_iter().filter_map(|(owner, link)| Some((owner.local(env)?, link).encode(env))).collect();
    (if noted { atoms::more() } else { atoms::done() }, idle).encode(env)
}

/// Sends a batch to the process that has asked for it, as an `xmpp_socket` in element mode does. What comes after a text
/// that is not as it has to be is dropped.
pub(crate) fn deliver(env: Env<'_>, batch: &Batch<Pid, Bin>) {
    let elements = XmlLimits {
        elements: ELEMENTS[usize::from(!batch.authenticated)].load(Ordering::Relaxed),
        ..XmlLimits::default()
    };
    let mut events = Vec::with_capacity(batch.texts().len() + 1);
    let mut understood = true;
    for (at, text) in batch.texts().enumerate() {
        match event(env, text, batch.first && at == 0, &elements) {
            Ok(event) => events.push(event),
            Err(event) => {
                events.push(event);
                understood = false;
                break;
            }
        }
    }
    if !understood {
        TABLE.deafen(&batch.handle);
    } else if let Some(fault) = batch.fault {
        events.push(fault_event(env, fault));
    }
    let Some(owner) = batch.owner.local(env) else { return };
    let message = (atoms::tcp(), terms::handle(env, &batch.handle), events).encode(env);
    // A process that has ended meanwhile reads no messages.
    let _ = env.send(&owner, message);
}

/// What a text means for the stream; `Err`: its end.
fn event<'a>(env: Env<'a>, text: &[u8], first: bool, limits: &XmlLimits) -> Result<Term<'a>, Term<'a>> {
    let element =
        xml::element(env, text, limits).map_err(|error| error_event(env, error.class(), error.text()))?;
    match framing(env, element) {
        Some(event) => Ok(event),
        // Before the stream is open ejabberd would write the element into its log.
        None if first => Err((atoms::xmlstreamelement(), xml::empty(env, b"not-open")).encode(env)),
        None => Ok(element),
    }
}

/// `<open/>` and `<close/>` of RFC 7395, 3.3, as the start and the end of a stream.
fn framing<'a>(env: Env<'a>, element: Term<'a>) -> Option<Term<'a>> {
    let (_, name, attributes, _): (Atom, Binary<'a>, Term<'a>, Term<'a>) = element.decode().ok()?;
    let is_open = match name.as_slice() {
        b"open" => true,
        b"close" => false,
        _ => return None,
    };
    let attributes: Vec<(Binary<'a>, Term<'a>)> = attributes.decode().ok()?;
    let namespace = attributes.iter().find(|(name, _)| name.as_slice() == b"xmlns");
    let namespace: Binary<'a> = namespace?.1.decode().ok()?;
    if namespace.as_slice() != FRAMING {
        return None;
    }
    let stream = binary(env, b"stream:stream");
    if !is_open {
        return Some((atoms::xmlstreamend(), stream).encode(env));
    }
    let mut all = vec![
        (binary(env, b"xmlns:stream"), binary(env, b"http://etherx.jabber.org/streams")).encode(env),
        (binary(env, b"xmlns"), binary(env, b"jabber:client")).encode(env),
    ];
    let others =
        attributes.into_iter().filter(|(name, _)| !matches!(name.as_slice(), b"xmlns" | b"xmlns:stream"));
    all.extend(others.map(|attribute| attribute.encode(env)));
    Some((atoms::xmlstreamstart(), stream, all).encode(env))
}

const FRAMING: &[u8] = b"urn:ietf:params:xml:ns:xmpp-framing";

/// What an `xmpp_stream_in` makes a stream error of: it knows two kinds. The text before the colon tells
/// `megaphone_c2s` which one was meant.
pub(crate) fn error_event<'a>(env: Env<'a>, class: Class, text: &str) -> Term<'a> {
    match class {
        Class::TooBig => too_big(env),
        Class::NotWellFormed => stream_error(env, text),
        Class::Restricted => stream_error(env, &format!("restricted-xml: {text}")),
    }
}

fn fault_event(env: Env<'_>, fault: Fault) -> Term<'_> {
    match fault {
        Fault::TooBig => too_big(env),
        Fault::Binary => stream_error(env, "bad-format: messages have to be text"),
        Fault::Encoding => stream_error(env, "unsupported-encoding: text has to be UTF-8"),
        Fault::Timeout => stream_error(env, "connection-timeout: a message was not completed in time"),
        Fault::Protocol => stream_error(env, "bad-format: not the WebSocket protocol"),
    }
}

pub(crate) fn too_big(env: Env<'_>) -> Term<'_> {
    (atoms::xmlstreamerror(), binary(env, b"XML stanza is too big")).encode(env)
}

fn stream_error<'a>(env: Env<'a>, text: &str) -> Term<'a> {
    (atoms::xmlstreamerror(), (0, binary(env, text.as_bytes()))).encode(env)
}
