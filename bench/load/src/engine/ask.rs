//! Users who ask the server.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Engine, PING_GRACE, net};
use crate::control::tell;
use crate::ping::Pings;
use crate::user::User;

impl Engine {
    pub(super) fn ping(&mut self, per_second: f64, duration: Duration) -> Result<(), String> {
        let is_busy = self.talk.is_some() || self.pings.is_some();
        if is_busy || self.online < self.wanted || self.online == 0 {
            return Err("ping needs users, all of them online and with nothing else to do".to_owned());
        }
        self.pings = Some(Pings::new(self.online, per_second, duration));
        Ok(())
    }

    pub(super) fn ping_due(&mut self) -> Result<(), String> {
        let Some(pings) = &mut self.pings else { return Ok(()) };
        while pings.due().is_some_and(|due| due <= Instant::now())
            && let Some((from, stanza)) = pings.take_next()
        {
            if let Err(reason) = self.users[from].send(&stanza, &net(&self.poll, &self.settings, from, 0)) {
                return Err(self.failed(from, "ping", &reason));
            }
        }
        if !pings.is_complete() && Instant::now() < pings.deadline(PING_GRACE) {
            return Ok(());
        }
        let outcome = pings.outcome();
        self.pings = None;
        let [p50, p99, p999, max] = outcome.latency;
        tell(&json!({
            "event": "ping", "sent": outcome.sent, "answered": outcome.answered,
            "latency_us": {"p50": p50, "p99": p99, "p999": p999, "max": max},
            "requests": self.users.iter().map(User::requests).sum::<u64>(),
        }));
        if outcome.is_right() { Ok(()) } else { Err(format!("questions without an answer: {outcome:?}")) }
    }

    pub(super) fn answered(&mut self, at: usize, id: &str) -> Result<(), String> {
        let result = match &mut self.pings {
            Some(pings) => pings.answered(at, id),
            None => Err(format!("an answer to a question that nobody asked: {id}")),
        };
        result.map_err(|reason| self.failed(at, "ping", &reason))
    }
}
