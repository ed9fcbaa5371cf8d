//! Who was busy a while ago and is not any more, found without a look at all who are idle.

use std::collections::VecDeque;

use crate::sync::{AtomicBool, Ordering};

/// Things that are noted as busy, in the order in which they became it.
#[derive(Debug, Default)]
pub(crate) struct Stirred(VecDeque<Noted>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    since: u32,
    place: u32,
    generation: u64,
}

/// What has become of a thing that was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// It is there no more.
    Gone,
    /// Something has happened since.
    Busy,
    /// Nothing has happened since.
    Idle,
}

impl Stirred {
    /// Notes a thing that is not noted.
    pub(crate) fn note(&mut self, since: u32, place: u32, generation: u64) {
        self.0.push_back(Noted { since, place, generation });
    }

    /// Looks at those who were noted `after` milliseconds ago or earlier, until `look` has found `most` idle ones.
    pub(crate) fn take(
        &mut self,
        now: u32,
        after: u32,
        mut most: usize,
        mut look: impl FnMut(u32, u64) -> Noticed,
    ) {
        for _ in 0..self.0.len() {
            let Some(noted) = self.0.front().copied() else { break };
            if most == 0 || now.wrapping_sub(noted.since) < after {
                break;
            }
            self.0.pop_front();
            match look(noted.place, noted.generation) {
                Noticed::Gone => {}
                Noticed::Busy => self.0.push_back(Noted { since: now, ..noted }),
                Noticed::Idle => most -= 1,
            }
        }
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.0.capacity() * size_of::<Noted>()
    }
}

/// Whether anybody has to be told when something becomes busy.
#[derive(Debug)]
pub(crate) struct Quiet(AtomicBool);

impl Quiet {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// True for the first one that asks since nothing was found.
    pub(crate) fn ends(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::SeqCst)
    }

    /// To be set before it is looked, so that what comes meanwhile is either seen or told, and taken back when something
    /// is noted.
    pub(crate) fn set(&self, quiet: bool) {
        self.0.store(quiet, Ordering::SeqCst);
    }
}
