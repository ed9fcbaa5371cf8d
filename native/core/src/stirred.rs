//! Who was busy a while ago and is not any more, found without a look at all who are idle.
//!
//! To give back the memory of somebody idle takes processor time, and when he is called he needs it again. So one who is called
//! back soon has to be quiet for longer the next time before he counts as idle: twice as long each time, until a pause was a long
//! one. Who talks keeps his memory, who has left gives it back at once.

use std::collections::VecDeque;

use crate::limits::{IDLE_DOUBLINGS, IDLE_WORTH};
use crate::sync::{AtomicBool, Ordering};

/// Things that are noted as busy: by how often the time was doubled for which they have to be quiet, each list in the order in which
/// they became it.
#[derive(Debug, Default)]
pub(crate) struct Stirred([VecDeque<Noted>; IDLE_DOUBLINGS + 1]);

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
    /// Nothing has happened since, but for the time that was doubled so often something may.
    Patient(usize),
    /// Nothing has happened for so long that nothing will.
    Idle,
}

/// One look at a thing. Times are in milliseconds, on a clock that may wrap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    now: u32,
    after: u32,
    doublings: usize,
}

impl Stirred {
    /// Notes a thing that is not noted.
    pub(crate) fn note(&mut self, since: u32, place: u32, generation: u64) {
        self.0[0].push_back(Noted { since, place, generation });
    }

    /// Looks at those who were noted `after` milliseconds ago or earlier, until `look` has found `most` idle ones.
    pub(crate) fn take(
        &mut self,
        now: u32,
        after: u32,
        mut most: usize,
        mut look: impl FnMut(u32, u64, Look) -> Noticed,
    ) {
        for doublings in 0..self.0.len() {
            let quiet = after.saturating_mul(1 << doublings);
            for _ in 0..self.0[doublings].len() {
                let Some(noted) = self.0[doublings].front().copied() else { break };
                if most == 0 || now.wrapping_sub(noted.since) < quiet {
                    break;
                }
                self.0[doublings].pop_front();
                match look(noted.place, noted.generation, Look { now, after, doublings }) {
                    Noticed::Gone => {}
                    Noticed::Busy => self.0[0].push_back(Noted { since: now, ..noted }),
                    Noticed::Patient(more) => self.0[more].push_back(noted),
                    Noticed::Idle => most -= 1,
                }
            }
            if self.0[doublings].is_empty() {
                self.0[doublings] = VecDeque::new();
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.0.iter().map(|list| list.capacity() * size_of::<Noted>()).sum()
    }
}

/// What is known of one thing: two bytes, because everybody who is connected has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity(u16);

const _: () = assert!(IDLE_DOUBLINGS <= (Activity::DOUBLINGS >> Activity::DOUBLINGS_AT) as usize);

impl Default for Activity {
    fn default() -> Self {
        Self(Self::NO_PAUSE << Self::PAUSE_AT)
    }
}

impl Activity {
    /// It is noted as busy.
    const NOTED: u16 = 1;
    /// Something has happened since.
    const TOUCHED: u16 = 2;
    /// How often the time is doubled for which it has to be quiet.
    const DOUBLINGS: u16 = 0b11100;
    const DOUBLINGS_AT: u32 = 2;
    /// While it is noted: the seconds of its last pause, until it was learned from. Else the second in which that began. Both
    /// modulo [`Activity::NO_PAUSE`], so that in rare cases a very long pause counts as a short one.
    const PAUSE_AT: u32 = 5;
    const NO_PAUSE: u16 = u16::MAX >> Self::PAUSE_AT;

    const fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    const fn doublings(self) -> usize {
        ((self.0 & Self::DOUBLINGS) >> Self::DOUBLINGS_AT) as usize
    }

    const fn pause(self) -> u16 {
        self.0 >> Self::PAUSE_AT
    }

    fn set_pause(&mut self, pause: u16) {
        self.0 = (self.0 & !(Self::NO_PAUSE << Self::PAUSE_AT)) | (pause << Self::PAUSE_AT);
    }

    /// Something happens. True: it is not noted yet, and has to be.
    pub(crate) fn happens(&mut self, now: u32) -> bool {
        if self.has(Self::NOTED) {
            self.0 |= Self::TOUCHED;
            return false;
        }
        self.0 |= Self::NOTED;
        if self.pause() != Self::NO_PAUSE {
            self.set_pause((second(now) + Self::NO_PAUSE - self.pause()) % Self::NO_PAUSE);
        }
        true
    }

    /// Looks whether anything has happened since it was noted.
    pub(crate) fn look(&mut self, look: Look) -> Noticed {
        if self.has(Self::TOUCHED) {
            self.0 &= !Self::TOUCHED;
            return Noticed::Busy;
        }
        self.learn(look.after);
        if self.doublings() > look.doublings {
            return Noticed::Patient(self.doublings());
        }
        self.0 &= !Self::NOTED;
        self.set_pause(second(look.now));
        Noticed::Idle
    }

    /// Makes it more patient after a short pause, and half as much after a long one.
    fn learn(&mut self, after: u32) {
        if self.pause() == Self::NO_PAUSE {
            return;
        }
        let was_short = u64::from(self.pause()) * 1_000 < u64::from(after) * u64::from(IDLE_WORTH);
        let doublings =
            if was_short { (self.doublings() + 1).min(IDLE_DOUBLINGS) } else { self.doublings() / 2 };
        self.0 = (self.0 & !Self::DOUBLINGS) | ((doublings as u16) << Self::DOUBLINGS_AT); // at most IDLE_DOUBLINGS
        self.set_pause(Self::NO_PAUSE);
    }
}

/// The second of this time, as far as it is kept.
const fn second(now: u32) -> u16 {
    (now / 1_000 % Activity::NO_PAUSE as u32) as u16 // less than NO_PAUSE
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

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: u32 = 1_000;
    const SHORT: u32 = AFTER * IDLE_WORTH;

    /// A thing, and the list that it is noted in.
    #[derive(Default)]
    struct Thing {
        activity: Activity,
        list: Stirred,
        now: u32,
    }

    impl Thing {
        fn happens(&mut self) {
            if self.activity.happens(self.now) {
                self.list.note(self.now, 7, 9);
            }
        }

        fn is_idle(&mut self) -> bool {
            let (mut idle, activity) = (false, &mut self.activity);
            self.list.take(self.now, AFTER, 1, |place, generation, look| {
                assert_eq!((place, generation), (7, 9));
                let noticed = activity.look(look);
                idle |= noticed == Noticed::Idle;
                noticed
            });
            idle
        }

        /// Something happens after this pause; then how many milliseconds pass until it counts as idle.
        fn quiet_after(&mut self, pause: u32) -> u32 {
            self.now = self.now.wrapping_add(pause);
            self.happens();
            for passed in 0..=AFTER << IDLE_DOUBLINGS {
                if self.is_idle() {
                    return passed;
                }
                self.now = self.now.wrapping_add(1);
            }
            panic!("never idle");
        }
    }

    #[test]
    fn who_is_called_back_soon_has_to_be_quiet_for_twice_as_long() {
        let mut thing = Thing::default();
        assert_eq!(thing.quiet_after(0), AFTER);
        let quiet: Vec<u32> = (0..8).map(|_| thing.quiet_after(5_000) / AFTER).collect();
        assert_eq!(quiet, [2, 4, 8, 16, 32, 64, 64, 64]);
        let quiet: Vec<u32> = (0..4).map(|_| thing.quiet_after(200_000) / AFTER).collect();
        assert_eq!(quiet, [8, 2, 1, 1]);
        assert_eq!(thing.list.memory(), 0);
    }

    #[test]
    fn a_pause_is_short_up_to_the_limit() {
        // It is kept in seconds.
        for (pause, quiet) in [(SHORT - 1_000, 2 * AFTER), (SHORT, AFTER), (SHORT + 1_000, AFTER)] {
            let mut thing = Thing::default();
            thing.quiet_after(0);
            assert_eq!(thing.quiet_after(pause), quiet, "{pause}");
        }
    }

    #[test]
    fn what_happens_meanwhile_begins_the_time_anew() {
        let mut thing = Thing::default();
        thing.quiet_after(0);
        thing.quiet_after(1_000);
        thing.now += 1_000;
        thing.happens();
        // Between the first look at one that has to be quiet for four seconds, and the second one.
        for _ in 0..3_500 {
            assert!(!thing.is_idle());
            thing.now += 1;
        }
        thing.happens();
        let mut passed = 0;
        while !thing.is_idle() {
            (thing.now, passed) = (thing.now + 1, passed + 1);
        }
        // It is noticed at the end of the time that ran, from which on another one does.
        assert_eq!(passed, 500 + 4_000);
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut thing = Thing { now: u32::MAX - 2_500, ..Thing::default() };
        assert_eq!(thing.quiet_after(0), AFTER);
        thing.quiet_after(1_000);
        assert!(thing.quiet_after(1_000) >= AFTER);
    }

    #[test]
    fn no_more_are_taken_than_were_asked_for() {
        let mut list = Stirred::default();
        for place in 0..3 {
            list.note(0, place, 0);
        }
        let mut taken = Vec::new();
        for most in [0, 1, 2, 1] {
            list.take(AFTER, AFTER, most, |place, _, _| {
                taken.push(place);
                Noticed::Idle
            });
            taken.push(100);
        }
        assert_eq!(taken, [100, 0, 100, 1, 2, 100, 100]);
        assert!(list.is_empty());
    }
}
