//! The NIF that takes a request head apart. Documented for users in `megaphone_nif.erl`.

use megaphone_core::limits::MAX_HEAD;
use megaphone_core::packet::{self, HttpPacket, Slots};
use rustler::{Binary, Encoder, Env, Term};

use crate::terms::{self, atoms};

/// The strings are parts of the input binary, as those of `erlang:decode_packet/3` are: nothing is copied.
///
/// Bound: heads up to `MAX_HEAD` bytes and `MAX_HEADERS` fields; others are left to the caller.
#[rustler::nif]
fn parse_head<'a>(env: Env<'a>, data: Binary<'a>) -> Term<'a> {
    let bytes = data.as_slice();
    let mut slots = Slots::new();
    let Some(head) = packet::whole_head(&bytes[..bytes.len().min(MAX_HEAD)], &mut slots) else {
        return atoms::slow().encode(env);
    };
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
    let mut list = Term::list_new_empty(env).list_prepend(atoms::http_eoh());
    for field in head.fields.iter().rev() {
        let field = HttpPacket::Field { name: field.name.as_bytes(), value: field.value };
        list = list.list_prepend(terms::http_packet(env, field, &text));
    }
    list = list.list_prepend(terms::http_packet(env, head.request, &text));
    (atoms::ok(), list, head.len).encode(env)
}
