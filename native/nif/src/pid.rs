//! A process identifier in one word, with a niche: a connection keeps its owner in 8 bytes.

use std::num::NonZeroUsize;

use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, LocalPid, Term};

/// A process of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pid(NonZeroUsize);

impl Pid {
    /// `None` never happens with the VM as it is: a term is not zero, and the caller of a NIF is alive.
    pub(crate) fn new(env: Env<'_>, pid: &LocalPid) -> Option<Self> {
        // SAFETY: a term is one machine word (`ErlNifTerm` is a transparent wrapper of one).
        let word = unsafe { std::mem::transmute::<ErlNifTerm, usize>(pid.encode(env).as_c_arg()) };
        NonZeroUsize::new(word).map(Self)
    }

    pub(crate) fn local(self, env: Env<'_>) -> Option<LocalPid> {
        // SAFETY: the word was made by `new` from the term of a local pid. Such a term is an immediate value: it holds
        // no pointer, belongs to no environment, and stays valid when the process has ended.
        let term = unsafe { Term::new(env, std::mem::transmute::<usize, ErlNifTerm>(self.0.get())) };
        term.decode().ok()
    }
}
