//! Messages between users, two and two, at a pace: who sends next, and what became of all of them.

use std::time::{Duration, Instant};

use crate::order::{Arrival, Latencies, Order};

/// Messages under way.
#[derive(Debug)]
pub struct Talk {
    started: Instant,
    interval: Duration,
    duration: Duration,
    sent: Vec<u64>,
    orders: Vec<Order>,
    total: u64,
    received: u64,
    doubled: u64,
    reordered: u64,
    latencies: Latencies,
}

/// What became of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were sent.
    pub sent: u64,
    /// Those that arrived, each counted as often as it did.
    pub received: u64,
    /// Those that never arrived.
    pub lost: u64,
    /// Arrivals of one that had arrived.
    pub doubled: u64,
    /// Those that arrived after a later one.
    pub reordered: u64,
    /// Microseconds: half of them, 99 of 100, and all took at most so long.
    pub latency: [u32; 3],
}

impl Outcome {
    /// Each arrived exactly once and in order.
    #[must_use]
    pub fn is_right(&self) -> bool {
        (self.lost, self.doubled, self.reordered) == (0, 0, 0)
    }
}

impl Talk {
    /// Between so many users.
    #[must_use]
    pub fn new(users: usize, per_second: f64, duration: Duration) -> Self {
        Self {
            started: Instant::now(),
            interval: Duration::from_secs_f64(1.0 / per_second),
            duration,
            sent: vec![0; users],
            orders: (0..users).map(|_| Order::default()).collect(),
            total: 0,
            received: 0,
            doubled: 0,
            reordered: 0,
            latencies: Latencies::default(),
        }
    }

    /// Whom a user talks to.
    #[must_use]
    pub fn partner(user: usize) -> usize {
        user ^ 1
    }

    /// When the next message is due; `None` when all were sent.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let after = self.interval.mul_f64(self.total as f64);
        (after < self.duration).then(|| self.started + after)
    }

    /// Who sends the next message, and its text.
    pub fn take_next(&mut self) -> (usize, String) {
        // The last one of an odd count has no partner.
        let from = self.total as usize % (self.sent.len() & !1);
        let text = format!("{} {}", self.sent[from], self.started.elapsed().as_micros());
        self.sent[from] += 1;
        self.total += 1;
        (from, text)
    }

    /// A user got a text.
    ///
    /// # Errors
    ///
    /// When it is none of ours.
    pub fn arrived(&mut self, user: usize, text: &str) -> Result<(), String> {
        let numbers =
            text.split_once(' ').and_then(|(number, sent)| Some((number.parse().ok()?, sent.parse().ok()?)));
        let (number, sent) = numbers.ok_or_else(|| format!("a message that nobody sent: {text}"))?;
        self.received += 1;
        match self.orders.get_mut(user).ok_or("a message to nobody")?.arrived(number) {
            Arrival::InOrder | Arrival::Early => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Again => {
                self.doubled += 1;
                return Ok(());
            }
        }
        self.latencies.add(self.started.elapsed().saturating_sub(Duration::from_micros(sent)));
        Ok(())
    }

    /// Whether all were sent, and as many have arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.due().is_none() && self.received >= self.total
    }

    /// When to wait no longer for what is missing.
    #[must_use]
    pub fn deadline(&self, grace: Duration) -> Instant {
        self.started + self.duration + grace
    }

    /// What became of all of them.
    pub fn outcome(&mut self) -> Outcome {
        let lost = (0..self.sent.len() & !1)
            .map(|user| self.orders[user].lost(self.sent[Self::partner(user)]))
            .sum();
        Outcome {
            sent: self.total,
            received: self.received,
            lost,
            doubled: self.doubled,
            reordered: self.reordered,
            latency: [50.0, 99.0, 100.0].map(|percent| self.latencies.percentile(percent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(count: usize) -> (Talk, Vec<(usize, String)>) {
        let mut talk = Talk::new(5, 1_000_000.0, Duration::from_micros(count as u64));
        let texts = std::iter::from_fn(|| talk.due().map(|_| talk.take_next())).collect();
        (talk, texts)
    }

    #[test]
    fn counts_what_arrived() {
        let (mut talk, texts) = sent(10);
        assert_eq!(texts.iter().map(|(from, _)| *from).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
        for (from, text) in &texts {
            assert!(!talk.is_complete());
            talk.arrived(Talk::partner(*from), text).expect("ours");
        }
        assert!(talk.is_complete());
        let outcome = talk.outcome();
        assert!(outcome.is_right());
        assert_eq!((outcome.sent, outcome.received), (10, 10));
    }

    #[test]
    fn sees_what_went_wrong() {
        let (mut talk, texts) = sent(8);
        for at in [0, 5, 1, 1, 2] {
            talk.arrived(Talk::partner(texts[at].0), &texts[at].1).expect("ours");
        }
        let outcome = talk.outcome();
        assert!(!outcome.is_right());
        assert_eq!((outcome.lost, outcome.doubled, outcome.reordered), (4, 1, 1));
        assert!(talk.arrived(0, "hello").is_err());
    }
}
