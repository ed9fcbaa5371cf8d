//! Who owns a connection, in one word with a niche: a connection keeps its owner in 8 bytes.

use std::num::NonZeroUsize;

use megaphone_core::bosh::SocketId;
use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, LocalPid, Term};

/// A process of this node, or a BOSH session, which answers requests without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pid(NonZeroUsize);

impl Pid {
    /// `None` never happens with the VM as it is: a term is not zero, and the caller of a NIF is alive.
    pub(crate) fn new(env: Env<'_>, pid: &LocalPid) -> Option<Self> {
        // SAFETY: a term is one machine word (`ErlNifTerm` is a transparent wrapper of one).
        let word = unsafe { std::mem::transmute::<ErlNifTerm, usize>(pid.encode(env).as_c_arg()) };
        NonZeroUsize::new(word).map(Self)
    }

    /// A session.
    pub(crate) fn of_session(id: SocketId) -> Self {
        let word = (u64::from(id.generation) << 36 | u64::from(id.place) << 4 | u64::from(SESSION)) as usize;
        Self(NonZeroUsize::MIN | word)
    }

    /// If it is a session: which one.
    pub(crate) const fn session(self) -> Option<SocketId> {
        let word = self.0.get() as u64;
        if word & 15 != SESSION as u64 {
            return None;
        }
        Some(SocketId { place: (word >> 4) as u32, generation: (word >> 36) as u32 })
    }

    /// The process, if it is one.
    pub(crate) fn local(self, env: Env<'_>) -> Option<LocalPid> {
        if self.session().is_some() {
            return None;
        }
        // SAFETY: the word is no session's, so it was made by `new` from the term of a local pid. Such a term is an immediate value: it holds
        // no pointer, belongs to no environment, and stays valid when the process has ended.
        let term = unsafe { Term::new(env, std::mem::transmute::<usize, ErlNifTerm>(self.0.get())) };
        term.decode().ok()
    }
}

/// The last four bits of the word of a session. Those of the term of a process of this node are 0011.
const SESSION: u8 = 0b0001;

const _: () = assert!(usize::BITS == 64, "a session has to fit into a word");
