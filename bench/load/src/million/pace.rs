//! How fast users come and go: so many a second, and so many under way at a time.

use std::time::{Duration, Instant};

/// A pause is not made up for by more than this.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A window that is not good for this much is not made smaller.
const LEAST: usize = 20;

/// Lets so many through a second, and no more at a time than its window.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    due: Instant,
    most: usize,
    window: usize,
    within: Duration,
}

impl Pace {
    /// From now on; `most` at a time, and fewer when half of them take longer than `within`: they would only wait.
    #[must_use]
    pub fn new(per_second: f64, most: usize, within: Duration, now: Instant) -> Self {
        let interval = Duration::from_secs_f64(1.0 / per_second);
        Self { interval, due: now, most, window: most.min(100), within }
    }

    /// When the next one may go, if so many are under way.
    #[must_use]
    pub fn due(&self, under_way: usize) -> Option<Instant> {
        (under_way < self.window).then_some(self.due)
    }

    /// One goes.
    pub fn take(&mut self, now: Instant) {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.due = self.due.max(earliest) + self.interval;
    }

    /// Half of the last ones took so long: the window is made for that.
    pub fn adapt(&mut self, median: Duration) {
        self.window = if median > self.within { self.window / 2 } else { self.window * 5 / 4 };
        self.window = self.window.clamp(LEAST.min(self.most), self.most);
    }

    /// How many may be under way.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_through_at_its_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(1000.0, 500, Duration::from_secs(1), start);
        let after = |millis| start + Duration::from_millis(millis);
        pace.take(start);
        assert_eq!(pace.due(0), Some(after(1)));
        assert_eq!(pace.due(100), None);
        // After a second without any there are some at once, but not a thousand.
        pace.take(after(1000));
        assert_eq!(pace.due(0), Some(after(901)));
    }

    #[test]
    fn adapts_its_window() {
        let mut pace = Pace::new(1.0, 500, Duration::from_secs(1), Instant::now());
        pace.adapt(Duration::from_millis(10));
        assert_eq!(pace.window(), 125);
        for _ in 0..20 {
            pace.adapt(Duration::from_millis(10));
        }
        assert_eq!(pace.window(), 500);
        pace.adapt(Duration::from_secs(2));
        assert_eq!(pace.window(), 250);
        for _ in 0..20 {
            pace.adapt(Duration::from_secs(2));
        }
        assert_eq!(pace.window(), LEAST);
    }
}
