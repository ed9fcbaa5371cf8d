//! The NIFs that take requests apart. Documented for users in `megaphone_nif.erl`.

use megaphone_core::limits::MAX_HEAD;
use megaphone_core::packet::{self, HttpPacket, Slots};
use megaphone_core::table::Closed;
use rustler::{Binary, Encoder, Env, Error, NifResult, Term};

use crate::TABLE;
use crate::terms::{self, atoms};

/// The strings are parts of the input binary, as those of `erlang:decode_packet/3` are: nothing is copied.
///
/// Bound: heads up to `MAX_HEAD` bytes and `MAX_HEADERS` fields; others are left to the caller.
#[rustler::nif]
fn parse_head<'a>(env: Env<'a>, data: Binary<'a>) -> Term<'a> {
    let end = Term::list_new_empty(env);
    match head_terms(env, &data, end) {
        Some((list, length)) => (atoms::ok(), list, length).encode(env),
        None => atoms::slow().encode(env),
    }
}

/// Bound: as `parse_head`, and a body that is moved or, when it came in pieces, copied: `LOCAL_QUEUE` / 2 at most.
#[rustler::nif]
fn recv_packet<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.take_packet(&terms::handle_from(handle)?) {
        Err(Closed) => (atoms::error(), atoms::closed()).encode(env),
        Ok(None) => atoms::slow().encode(env),
        Ok(Some((packet, head))) => {
            let data: Binary<'a> = packet.into_term(env).decode()?;
            let mut end = Term::list_new_empty(env);
            if data.len() > head {
                end = end.list_prepend(data.make_subbinary(head, data.len() - head)?);
            }
            let (list, _) = head_terms(env, &data, end).ok_or(Error::BadArg)?; // the table has checked the head
            (atoms::ok(), list).encode(env)
        }
    })
}

/// The packets of the head at the start of `data`, before what is in `list`, and the head's length.
fn head_terms<'a>(env: Env<'a>, data: &Binary<'a>, mut list: Term<'a>) -> Option<(Term<'a>, usize)> {
    let bytes = data.as_slice();
    let mut slots = Slots::new();
    let head = packet::whole_head(&bytes[..bytes.len().min(MAX_HEAD)], &mut slots)?;
    let start = bytes.as_ptr() as usize;
    let text = |part: &[u8]| {
        let offset = (part.as_ptr() as usize).wrapping_sub(start);
        // A part that is not of the input (a name in title case) has an offset out of range, and is copied.
        if offset < bytes.len()
            && let Ok(part) = data.make_subbinary(offset, part.len())
        {
            return part.into();
        }
        let mut copy = rustler::NewBinary::new(env, part.len());
        copy.as_mut_slice().copy_from_slice(part);
        copy.into()
    };
    // The list is built from its end.
    list = list.list_prepend(atoms::http_eoh());
    for field in head.fields.iter().rev() {
        let field = HttpPacket::Field { name: field.name.as_bytes(), value: field.value };
        list = list.list_prepend(terms::http_packet(env, field, &text));
    }
    Some((list.list_prepend(terms::http_packet(env, head.request, &text)), head.len))
}
