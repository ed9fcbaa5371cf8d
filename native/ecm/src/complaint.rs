//! Complaints that could come again and again: once a minute is enough.

use std::time::Instant;

use super::REPORT;

/// One kind of complaint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Complaint {
    said: Option<Instant>,
    /// How often it was not said since.
    held_back: u64,
}

impl Complaint {
    /// Whether it may be said now; how often it was held back before, then.
    pub(super) fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + REPORT) {
            self.held_back += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Said at once, then not for a minute, then with the number of times that it was not.
    #[test]
    fn once_a_minute() {
        let (now, tick) = (Instant::now(), Duration::from_millis(1));
        let mut complaint = Complaint::default();
        assert_eq!(complaint.say(now), Some(0));
        assert_eq!(complaint.say(now), None);
        assert_eq!(complaint.say(now + REPORT - tick), None);
        assert_eq!(complaint.say(now + REPORT), Some(2));
        assert_eq!(complaint.say(now + REPORT + tick), None);
    }
}
