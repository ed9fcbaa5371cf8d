//! Round trips at a pace: each is a stanza that asks the server something, and its answer, which must come once, to the
//! user who asked, and in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::order::Latencies;

/// Round trips under way.
#[derive(Debug)]
pub struct Pings {
    started: Instant,
    interval: Duration,
    duration: Duration,
    /// What each user has asked and got no answer to: number and when it was due.
    waiting: Vec<VecDeque<(u64, Instant)>>,
    sent: u64,
    answered: u64,
    latencies: Latencies,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Questions.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Microseconds from when a question was due until its answer: what 50, 99, 99.9 and 100 of a hundred took at most.
    pub latency: [u32; 4],
}

impl Outcome {
    /// Each was answered.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.sent == self.answered
    }
}

impl Pings {
    /// By so many users, each in turn.
    #[must_use]
    pub fn new(users: usize, per_second: f64, duration: Duration) -> Self {
        Self {
            started: Instant::now(),
            interval: Duration::from_secs_f64(1.0 / per_second),
            duration,
            waiting: vec![VecDeque::new(); users],
            sent: 0,
            answered: 0,
            latencies: Latencies::default(),
        }
    }

    /// When the next one is due; `None` when all were sent.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let after = self.interval.mul_f64(self.sent as f64);
        (after < self.duration).then(|| self.started + after)
    }

    /// Who asks next, and the stanza. Who is late asks nevertheless, and the time counts from when it was due.
    pub fn take_next(&mut self) -> Option<(usize, String)> {
        let due = self.due()?;
        let (user, number) = (self.sent as usize % self.waiting.len(), self.sent);
        self.waiting[user].push_back((number, due));
        self.sent += 1;
        let stanza =
            format!("<iq xmlns='jabber:client' type='get' id='{number}'><ping xmlns='urn:xmpp:ping'/></iq>");
        Some((user, stanza))
    }

    /// A user got an answer to the question with this id.
    ///
    /// # Errors
    ///
    /// When the user did not ask it, or asked another one before that has no answer.
    pub fn answered(&mut self, user: usize, id: &str) -> Result<(), String> {
        let (number, due) = self
            .waiting
            .get_mut(user)
            .and_then(VecDeque::pop_front)
            .ok_or_else(|| format!("an answer to a question that nobody asked: {id}"))?;
        if number.to_string() != id {
            return Err(format!("an answer to {id} instead of {number}"));
        }
        self.answered += 1;
        self.latencies.add(due.elapsed());
        Ok(())
    }

    /// Whether all were sent and answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.due().is_none() && self.answered == self.sent
    }

    /// When to wait no longer for what is missing.
    #[must_use]
    pub fn deadline(&self, grace: Duration) -> Instant {
        self.started + self.duration + grace
    }

    /// What became of all of them.
    pub fn outcome(&mut self) -> Outcome {
        let latency = [50.0, 99.0, 99.9, 100.0].map(|percent| self.latencies.percentile(percent));
        Outcome { sent: self.sent, answered: self.answered, latency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten() -> Pings {
        Pings::new(3, 1000.0, Duration::from_micros(9_500))
    }

    #[test]
    fn each_question_is_asked_and_answered_once() {
        let mut pings = ten();
        let asked: Vec<_> = std::iter::from_fn(|| pings.take_next()).collect();
        assert_eq!(asked.iter().map(|(user, _)| *user).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        for (number, (user, stanza)) in asked.iter().enumerate() {
            assert!(!pings.is_complete());
            assert!(stanza.contains(&format!("id='{number}'")), "{stanza}");
            assert_eq!(pings.answered(*user, &number.to_string()), Ok(()));
        }
        assert!(pings.is_complete());
        let outcome = pings.outcome();
        assert!(outcome.is_right());
        assert_eq!((outcome.sent, outcome.answered), (10, 10));
    }

    #[test]
    fn an_answer_to_another_user_or_out_of_order_is_refused() {
        let mut pings = ten();
        while pings.take_next().is_some() {}
        assert!(pings.answered(1, "0").is_err());
        assert!(pings.answered(0, "3").is_err());
        assert!(pings.answered(7, "7").is_err());
        assert!(!pings.outcome().is_right());
    }
}
