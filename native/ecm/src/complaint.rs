//! Complaints that could come again and again: once in a while is enough.

use std::time::{Duration, Instant};

/// One kind of complaint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Complaint {
    said: Option<Instant>,
    /// How often it was not said since.
    held_back: u64,
}

impl Complaint {
    /// Whether it may be said now, `pause` after the last time; how often it was held back before, then.
    pub(crate) fn say(&mut self, now: Instant, pause: Duration) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + pause) {
            self.held_back += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Said at once, then not for the pause, then with the number of times that it was not.
    #[test]
    fn once_in_a_pause() {
        let (now, tick) = (Instant::now(), Duration::from_millis(1));
        let pause = Duration::from_secs(60);
        let mut complaint = Complaint::default();
        assert_eq!(complaint.say(now, pause), Some(0));
        assert_eq!(complaint.say(now, pause), None);
        assert_eq!(complaint.say(now + pause - tick, pause), None);
        assert_eq!(complaint.say(now + pause, pause), Some(2));
        assert_eq!(complaint.say(now + pause + tick, pause), None);
    }
}
