//! Checks that each message of a sender arrives exactly once and in order, and keeps how long they took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one receiver got from one sender, whose messages are numbered from 0.
#[derive(Debug, Default)]
pub struct Order {
    next: u64,
    missing: BTreeSet<u64>,
}

/// What a message turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// As it should be.
    InOrder,
    /// Some before it have not come yet.
    Early,
    /// One that should have come earlier.
    Late,
    /// It had come before.
    Again,
}

impl Order {
    /// Notes the arrival of a message.
    pub fn arrived(&mut self, number: u64) -> Arrival {
        if number < self.next {
            return if self.missing.remove(&number) { Arrival::Late } else { Arrival::Again };
        }
        let arrival = if number == self.next { Arrival::InOrder } else { Arrival::Early };
        self.missing.extend(self.next..number);
        self.next = number + 1;
        arrival
    }

    /// How many of the messages sent have not come.
    #[must_use]
    pub fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.next) + self.missing.len() as u64
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// Adds one, kept in microseconds.
    pub fn add(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// The microseconds that so many of a hundred did not exceed; 0 if there is none.
    pub fn percentile(&mut self, percent: f64) -> u32 {
        self.0.sort_unstable();
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// How many took how many microseconds, these rounded to three digits: so that those of several programs can be put
    /// together.
    #[must_use]
    pub fn histogram(&self) -> BTreeMap<u32, u32> {
        let mut counts = BTreeMap::new();
        for &micros in &self.0 {
            let unit = 10_u32.pow(micros.max(1).ilog10().saturating_sub(2));
            *counts.entry(micros / unit * unit).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_went_wrong() {
        let mut order = Order::default();
        let seen: Vec<_> = [0, 1, 4, 2, 4, 2, 5].map(|number| order.arrived(number)).into();
        use Arrival::{Again, Early, InOrder, Late};
        assert_eq!(seen, [InOrder, InOrder, Early, Late, Again, Again, InOrder]);
        assert_eq!((order.lost(6), order.lost(8)), (1, 3));
    }

    #[test]
    fn nothing_is_lost_of_nothing() {
        assert_eq!(Order::default().lost(0), 0);
        assert_eq!(Order::default().lost(3), 3);
    }

    #[test]
    fn rounds_times_to_three_digits() {
        let mut times = Latencies::default();
        for micros in [0, 7, 999, 1_234, 1_239, 123_456] {
            times.add(Duration::from_micros(micros));
        }
        let expected = BTreeMap::from([(0, 1), (7, 1), (999, 1), (1_230, 2), (123_000, 1)]);
        assert_eq!(times.histogram(), expected);
    }

    #[test]
    fn ranks_times() {
        let mut times = Latencies::default();
        assert_eq!(times.percentile(50.0), 0);
        for micros in (1..=100).rev() {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!([50.0, 99.0, 100.0].map(|percent| times.percentile(percent)), [50, 99, 100]);
    }
}
