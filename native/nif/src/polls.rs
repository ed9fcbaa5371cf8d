//! NIFs for processes of polls. Documented for users in `megaphone_nif.erl`.

use megaphone_core::packet::Fields;
use megaphone_core::table::Closed;
use rustler::{Binary, Encoder, Env, NifResult, Term};

use crate::host::Beam;
use crate::parse;
use crate::terms::{self, atoms, handle_from};
use crate::{TABLE, now};

/// Bound: as many comparisons as there are targets, which are the listener's.
#[rustler::nif]
fn is_poll<'a>(handle: Term<'a>, targets: Vec<Binary<'a>>, bare: bool) -> NifResult<bool> {
    let targets: Vec<&[u8]> = targets.iter().map(Binary::as_slice).collect();
    Ok(TABLE.is_poll(&handle_from(handle)?, &targets, bare))
}

/// Bound: as `parse_packet`, and a request that is moved or, when it came in pieces, copied: `WINDOW` bytes at most.
#[rustler::nif]
fn take_request<'a>(env: Env<'a>, handle: Term<'a>, templates: Term<'a>) -> NifResult<Term<'a>> {
    let mut fields = Fields::new();
    let mut beam = Beam::new(env);
    let caller = beam.caller()?;
    let taken = TABLE.take_request(&handle_from(handle)?, &mut fields, usize::MAX, caller, now(), &mut beam);
    parse::answer(env, taken, &fields, templates)
}

#[rustler::nif]
fn end_request<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    Ok(match TABLE.end_request(&handle_from(handle)?, &mut Beam::new(env)) {
        Ok(true) => atoms::more().encode(env),
        Ok(false) => atoms::done().encode(env),
        Err(Closed) => terms::closed(env),
    })
}

/// Locks one shard after the other for a moment.
#[rustler::nif]
fn counters(env: Env<'_>) -> Term<'_> {
    terms::map(env, &[("abandoned", TABLE.abandoned().encode(env))])
}
