//! A token bucket in eight bytes.

/// Tokens that come back with time, up to a number. Time is in milliseconds from any start, and may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Thousandths of a token.
    milli: u32,
    at: u32,
}

/// How a [`Bucket`] fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: u32,
    /// Most tokens in it; 4,294,967 are the most that count.
    pub burst: u32,
}

impl Rate {
    fn most(self) -> u32 {
        self.burst.saturating_mul(1_000)
    }
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(rate: Rate, now: u32) -> Self {
        Self { milli: rate.most(), at: now }
    }

    /// Takes a token, if one is there.
    pub fn take(&mut self, rate: Rate, now: u32) -> bool {
        self.refill(rate, now);
        let left = self.milli.checked_sub(1_000);
        self.milli = left.unwrap_or(self.milli);
        left.is_some()
    }

    /// Whether no token is missing.
    pub fn is_full(&mut self, rate: Rate, now: u32) -> bool {
        self.refill(rate, now);
        self.milli >= rate.most()
    }

    /// Milliseconds until a token is there; 0 if one is.
    pub fn wait(&mut self, rate: Rate, now: u32) -> u32 {
        self.refill(rate, now);
        1_000_u32.saturating_sub(self.milli).div_ceil(rate.per_second.max(1))
    }

    fn refill(&mut self, rate: Rate, now: u32) {
        // One token a second is one thousandth a millisecond. A clock that has wrapped gives too few: no harm.
        let elapsed = now.wrapping_sub(self.at);
        self.at = now;
        self.milli = self.milli.saturating_add(elapsed.saturating_mul(rate.per_second)).min(rate.most());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::full(RATE, u32::MAX - 50);
        let now = u32::MAX - 50;
        assert_eq!([0; 4].map(|_| bucket.take(RATE, now)), [true, true, true, false]);
        assert_eq!(bucket.wait(RATE, now), 100);
        assert!(!bucket.take(RATE, now.wrapping_add(99)) && bucket.take(RATE, now.wrapping_add(100)));
        assert!(!bucket.is_full(RATE, now.wrapping_add(399)) && bucket.is_full(RATE, now.wrapping_add(400)));
    }

    proptest! {
        /// However the calls are spread, never more than the burst and what has come back since.
        #[test]
        fn never_gives_more_than_came(pauses in proptest::collection::vec(0_u32..500, 1..100)) {
            let (mut bucket, mut now, mut taken) = (Bucket::full(RATE, 0), 0, 0);
            for pause in pauses {
                now += pause;
                while bucket.take(RATE, now) {
                    taken += 1;
                }
                prop_assert!(taken <= 3 + now * 10 / 1_000);
            }
        }
    }
}
