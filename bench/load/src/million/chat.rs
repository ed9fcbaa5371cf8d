//! Messages between users at random: each arrives exactly once, and those to one receiver in the order they were sent in.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::order::{Arrival, Latencies, Order};
use crate::talk::Outcome;

/// How often another receiver is drawn, before a pair talks that there is.
const DRAWS: usize = 16;

/// Two users: one writes, the other one reads. Nobody reads from two, since nothing orders what two write.
#[derive(Debug)]
struct Pair {
    from: u32,
    to: u32,
    sent: u64,
    order: Order,
}

/// Messages under way.
#[derive(Debug)]
pub struct Chat {
    users: u32,
    /// Numbers below that of users whom there is not.
    absent: HashSet<u32>,
    started: Instant,
    interval: Duration,
    duration: Duration,
    pairs: Vec<Pair>,
    of_sender: HashMap<u32, usize>,
    of_receiver: HashMap<u32, usize>,
    random: Random,
    outcome: Outcome,
    latencies: Latencies,
}

impl Chat {
    /// Between so many users, at least two of them not absent.
    #[must_use]
    pub fn new(users: usize, absent: HashSet<u32>, per_second: f64, duration: Duration, seed: u64) -> Self {
        Self {
            users: users as u32,
            absent,
            started: Instant::now(),
            interval: Duration::from_secs_f64(1.0 / per_second),
            duration,
            pairs: Vec::new(),
            of_sender: HashMap::new(),
            of_receiver: HashMap::new(),
            random: Random(seed),
            outcome: Outcome { sent: 0, received: 0, lost: 0, doubled: 0, reordered: 0, latency: [0; 3] },
            latencies: Latencies::default(),
        }
    }

    /// When the next message is due; `None` when all were sent.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let after = self.interval.mul_f64(self.outcome.sent as f64);
        (after < self.duration).then(|| self.started + after)
    }

    /// Who sends the next message, to whom, and its text.
    pub fn take_next(&mut self) -> (u32, u32, String) {
        let at = self.draw();
        let pair = &mut self.pairs[at];
        let text = format!("{} {}", pair.sent, self.started.elapsed().as_micros());
        pair.sent += 1;
        self.outcome.sent += 1;
        (pair.from, pair.to, text)
    }

    /// Half of all messages are those of a user drawn from all, who writes to one drawn from all; half are further ones
    /// of such pairs.
    fn draw(&mut self) -> usize {
        let again = !self.pairs.is_empty() && self.random.below(2) == 0;
        if !again {
            for _ in 0..DRAWS {
                let (from, to) = (self.random.below(self.users), self.random.below(self.users));
                if let Some(&at) = self.of_sender.get(&from) {
                    return at;
                }
                let is_there = |user| !self.absent.contains(&user);
                if from != to && is_there(from) && is_there(to) && !self.of_receiver.contains_key(&to) {
                    return self.pair(from, to);
                }
            }
            if self.pairs.is_empty() {
                let mut there = (0..self.users).filter(|user| !self.absent.contains(user));
                if let (Some(from), Some(to)) = (there.next(), there.next()) {
                    return self.pair(from, to);
                }
            }
        }
        self.random.below(self.pairs.len() as u32) as usize
    }

    fn pair(&mut self, from: u32, to: u32) -> usize {
        let at = self.pairs.len();
        self.of_sender.insert(from, at);
        self.of_receiver.insert(to, at);
        self.pairs.push(Pair { from, to, sent: 0, order: Order::default() });
        at
    }

    /// A user got a text.
    ///
    /// # Errors
    ///
    /// When it is none of ours.
    pub fn arrived(&mut self, user: u32, text: &str) -> Result<(), String> {
        let stray = || format!("a message that nobody sent: {text}");
        let numbers = text.split_once(' ');
        let numbers = numbers.and_then(|(number, sent)| Some((number.parse().ok()?, sent.parse().ok()?)));
        let (number, sent): (u64, u64) = numbers.ok_or_else(stray)?;
        let at = *self.of_receiver.get(&user).ok_or_else(stray)?;
        if number >= self.pairs[at].sent {
            return Err(stray());
        }
        self.outcome.received += 1;
        match self.pairs[at].order.arrived(number) {
            Arrival::InOrder | Arrival::Early => {}
            Arrival::Late => self.outcome.reordered += 1,
            Arrival::Again => {
                self.outcome.doubled += 1;
                return Ok(());
            }
        }
        self.latencies.add(self.started.elapsed().saturating_sub(Duration::from_micros(sent)));
        Ok(())
    }

    /// How many pairs there are.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Whether all were sent, and as many have arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.due().is_none() && self.outcome.received >= self.outcome.sent
    }

    /// When to wait no longer for what is missing.
    #[must_use]
    pub fn deadline(&self, grace: Duration) -> Instant {
        self.started + self.duration + grace
    }

    /// What became of all of them.
    #[must_use]
    pub fn outcome(mut self) -> Outcome {
        self.outcome.lost = self.pairs.iter().map(|pair| pair.order.lost(pair.sent)).sum();
        self.outcome.latency = [50.0, 99.0, 100.0].map(|percent| self.latencies.percentile(percent));
        self.outcome
    }
}

/// Numbers that look random (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next one below this, which is not 0.
    pub fn below(&mut self, most: u32) -> u32 {
        (self.draw() % u64::from(most)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(users: usize, count: u64) -> (Chat, Vec<(u32, u32, String)>) {
        let mut chat = Chat::new(users, HashSet::new(), 1_000_000.0, Duration::from_micros(count), 5);
        let texts = std::iter::from_fn(|| chat.due().map(|_| chat.take_next())).collect();
        (chat, texts)
    }

    #[test]
    fn nobody_reads_from_two() {
        for users in [2, 3, 10, 1000] {
            let (chat, texts) = sent(users, 500);
            assert_eq!(texts.len(), 500);
            let mut of = HashMap::new();
            for (from, to, _) in &texts {
                assert_ne!(from, to);
                assert_eq!(of.entry(*to).or_insert(*from), from);
            }
            assert!(chat.pairs() == of.len() && chat.pairs() >= users.min(100) / 2);
        }
    }

    #[test]
    fn nobody_talks_to_who_is_absent() {
        for present in [[0, 1], [3, 8]] {
            let absent: HashSet<u32> = (0..9).filter(|user| !present.contains(user)).collect();
            let mut chat = Chat::new(9, absent, 1_000_000.0, Duration::from_micros(50), 5);
            for _ in 0..50 {
                let (from, to, _) = chat.take_next();
                assert!(from != to && present.contains(&from) && present.contains(&to));
            }
        }
    }

    #[test]
    fn counts_what_arrived() {
        let (mut chat, texts) = sent(100, 300);
        for (_, to, text) in &texts {
            assert!(!chat.is_complete());
            chat.arrived(*to, text).expect("ours");
        }
        assert!(chat.is_complete());
        let outcome = chat.outcome();
        assert!(outcome.is_right());
        assert_eq!((outcome.sent, outcome.received), (300, 300));
    }

    #[test]
    fn sees_what_went_wrong() {
        let (mut chat, texts) = sent(2, 4);
        let to = texts[0].1;
        for at in [1, 0, 0] {
            chat.arrived(to, &texts[at].2).expect("ours");
        }
        for (user, text) in [(to ^ 1, "0 0"), (to, "4 0"), (to, "hello")] {
            assert!(chat.arrived(user, text).is_err(), "{text}");
        }
        let outcome = chat.outcome();
        assert_eq!((outcome.lost, outcome.doubled, outcome.reordered), (2, 1, 1));
    }
}
