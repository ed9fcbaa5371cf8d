//! What is remembered of attempts that failed: how long to wait for the next one, and what was complained of.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use megaphone_core::limits;

/// Complaints that are remembered: more than a server has addresses.
const COMPLAINTS: usize = 8;

/// The attempts since the link was up.
#[derive(Debug)]
pub(super) struct Attempts {
    failures: u32,
    random: u64,
    /// A server with several addresses may fail at each of them in another way.
    complaints: VecDeque<String>,
}

impl Default for Attempts {
    fn default() -> Self {
        // Seeded by the system; any number but 0 will do.
        Self { failures: 0, random: RandomState::new().hash_one(0) | 1, complaints: VecDeque::new() }
    }
}

impl Attempts {
    /// The link is up.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.complaints.clear();
    }

    /// Whether this reason has to be told: it was not since the link was up.
    pub(super) fn is_new(&mut self, why: &str) -> bool {
        if self.complaints.iter().any(|complaint| complaint == why) {
            return false;
        }
        if self.complaints.len() == COMPLAINTS {
            self.complaints.pop_front();
        }
        self.complaints.push_back(why.to_owned());
        true
    }

    /// How long to wait for the next one: doubles with each failure; the upper half is random, so that many managers do not
    /// come back at once.
    pub(super) fn pause(&mut self) -> Duration {
        let most = u64::from(limits::RETRY_LEAST)
            .saturating_mul(1 << self.failures.min(16))
            .min(u64::from(limits::RETRY_MOST));
        self.failures = self.failures.saturating_add(1);
        // xorshift64: no secret depends on it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(most / 2 + self.random % (most / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// n-1 and n reasons are told once each, with n+1 the oldest is told again; after success all are.
    #[test]
    fn reasons_are_told_once() {
        let mut attempts = Attempts::default();
        let reasons: Vec<String> = (0..=COMPLAINTS).map(|number| number.to_string()).collect();
        for count in [COMPLAINTS - 1, COMPLAINTS] {
            attempts.succeeded();
            assert!(reasons[..count].iter().all(|why| attempts.is_new(why)));
            assert!(!reasons[..count].iter().any(|why| attempts.is_new(why)));
        }
        assert!(attempts.is_new(&reasons[COMPLAINTS]));
        assert!(!attempts.is_new(&reasons[1]));
        assert!(attempts.is_new(&reasons[0]));
    }

    /// Pauses double from the least to the most, each with its upper half at random, and begin anew after success.
    #[test]
    fn pauses_double() {
        let mut attempts = Attempts::default();
        for _ in 0..2 {
            let mut most = limits::RETRY_LEAST;
            for _ in 0..20 {
                let pause = attempts.pause().as_millis();
                assert!((u128::from(most / 2)..=u128::from(most)).contains(&pause), "{pause} {most}");
                most = (most * 2).min(limits::RETRY_MOST);
            }
            attempts.succeeded();
        }
    }
}
