//! NIFs that go by all connections, or sessions, for operators. Documented for users in `megaphone_nif.erl`.

use megaphone_core::table::{Passed, Table, Wanted};
use rustler::{Encoder, Env, NifResult, Term};

use crate::host::{Beam, Bin};
use crate::pid::Pid;
use crate::terms::{self, atoms};
use crate::{TABLE, now};

/// `wanted`: the number of a link, `xmpp`, or `any`. Bound: `WALK_PER_CALL` places.
#[rustler::nif]
fn walk<'a>(env: Env<'a>, cursor: u64, wanted: Term<'a>, most: usize) -> NifResult<Term<'a>> {
    let wanted = match () {
        () if wanted == atoms::any().to_term(env) => Wanted::Any,
        () if wanted == atoms::xmpp().to_term(env) => Wanted::Messages,
        () => Wanted::Of(wanted.decode()?),
    };
    let mut found = Vec::new();
    let next = TABLE.walk(cursor, wanted, most, &mut found);
    let found: Vec<Term<'a>> = found.iter().map(|passed| term(env, passed)).collect();
    Ok(walked(&Beam::new(env), next, found))
}

/// What a walk answers when it has come to `next`.
pub(crate) fn walked<'a>(beam: &Beam<'a>, next: Option<u64>, found: impl Encoder) -> Term<'a> {
    beam.end_slice();
    match next {
        Some(next) => (next, found).encode(beam.env),
        None => (atoms::done(), found).encode(beam.env),
    }
}

fn term<'a>(env: Env<'a>, passed: &Passed<Pid>) -> Term<'a> {
    let owner = match passed.owner {
        None => atoms::undefined().encode(env),
        Some(owner) => owner.local(env).map_or_else(|| atoms::session().encode(env), |pid| pid.encode(env)),
    };
    (
        (terms::handle(env, &passed.handle), Table::<Pid, Bin>::behind(&passed.handle)),
        terms::carries(passed.carries),
        terms::address(env, &passed.client),
        passed.tls,
        now().saturating_sub(passed.last_activity),
        (passed.input, passed.output),
        owner,
    )
        .encode(env)
}
