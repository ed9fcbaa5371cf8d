//! What requests bring, as events for client sessions.

use std::sync::Arc;

use megaphone_core::bosh::{Activated, Begin, Entry, Inbound, SocketId};
use megaphone_core::xml::XmlLimits;
use rustler::{Encoder, Env, Term};

use super::waiter::{Waiter, send};
use super::{socket, tell_closed};
use crate::messages::{error_event, message_limits, too_big};
use crate::pid::Pid;
use crate::terms::{atoms, binary};
use crate::xml;

/// What a client session is to be given when the lock of its session has been released: to take it apart takes time.
pub(super) struct Delivery {
    id: SocketId,
    owner: Option<Pid>,
    host: Arc<str>,
    authenticated: bool,
    what: Activated,
}

impl Delivery {
    pub(super) fn new(entry: &Entry<Waiter, Pid>, what: Activated) -> Self {
        let (owner, authenticated) = (entry.owner, entry.session.is_authenticated());
        let host = Arc::clone(&entry.host);
        Self { id: entry.id(), owner, host, authenticated, what }
    }

    /// True: it takes longer than a call may.
    pub(super) fn deliver(self, env: Env<'_>) -> bool {
        let Some(owner) = self.owner else { return false };
        match self.what {
            Activated::Large => return true,
            Activated::Closed => tell_closed(env, owner, self.id),
            Activated::Batch(batch) => {
                let events = events(env, &batch, &self.host, self.authenticated);
                send(env, owner, (atoms::tcp(), socket(env, self.id), events).encode(env));
            }
            Activated::Waits | Activated::Shaped(_) => {}
        }
        false
    }
}

/// As an `xmpp_socket` in element mode has them. Nothing comes after what is not as it has to be.
fn events<'a>(env: Env<'a>, batch: &[Inbound], host: &str, authenticated: bool) -> Vec<Term<'a>> {
    let (bytes, elements) = message_limits(authenticated);
    let mut events = Vec::with_capacity(batch.len() + 1);
    for inbound in batch {
        if let Some(begin) = &inbound.begin {
            events.push(begin_event(env, begin, host));
        }
        if inbound.text.len() > bytes {
            events.push(too_big(env));
            break;
        }
        if !inbound.text.is_empty() {
            // The body itself is one, and one level.
            let default = XmlLimits::default();
            let limits = XmlLimits { elements: elements + 1, depth: default.depth + 1, ..default };
            match xml::element(env, &inbound.text, &limits) {
                Ok(body) => children(env, body, &mut events),
                Err(error) => {
                    events.push(error_event(env, error.class(), error.text()));
                    break;
                }
            }
        }
        if inbound.end {
            events.push((atoms::xmlstreamend(), binary(env, b"stream:stream")).encode(env));
        }
    }
    events
}

/// The elements in a body.
fn children<'a>(env: Env<'a>, body: Term<'a>, events: &mut Vec<Term<'a>>) {
    let Ok((_, _, _, children)) = body.decode::<(Term<'a>, Term<'a>, Term<'a>, Vec<Term<'a>>)>() else {
        return;
    };
    let xmlel = atoms::xmlel().encode(env);
    events.extend(children.into_iter().filter(|child| {
        child.decode::<(Term<'a>, Term<'a>, Term<'a>, Term<'a>)>().is_ok_and(|(tag, ..)| tag == xmlel)
    }));
}

/// The head of a stream as a TCP client would have sent it.
fn begin_event<'a>(env: Env<'a>, begin: &Begin, host: &str) -> Term<'a> {
    let pair =
        |name: &str, value: &str| (binary(env, name.as_bytes()), binary(env, value.as_bytes())).encode(env);
    let mut attributes = vec![
        pair("to", begin.to.as_deref().unwrap_or(host)),
        pair("xmlns", "jabber:client"),
        pair("xmlns:xmpp", "urn:xmpp:xbosh"),
        pair("xmlns:stream", "http://etherx.jabber.org/streams"),
    ];
    let named = [("version", &begin.version), ("xml:lang", &begin.lang)];
    attributes.extend(
        named.into_iter().filter_map(|(name, value)| value.as_deref().map(|value| pair(name, value))),
    );
    (atoms::xmlstreamstart(), binary(env, b"stream:stream"), attributes).encode(env)
}
