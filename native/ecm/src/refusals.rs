//! What was refused, and why: counted all of it, logged some of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use megaphone_core::client::Refusal;
use megaphone_core::limits;
use tracing::warn;

use crate::complaint::Complaint;

/// How often clients were refused for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusals([u64; Refusal::COUNT]);

impl Refusals {
    pub(crate) fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// Each reason with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.0)
    }

    /// For all reasons together.
    pub(crate) fn all(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Refusals {
    /// Those that happened: `2 malformed, 1 no_link`; `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (refusal, count) in self.iter().filter(|(_, count)| *count > 0) {
            write!(f, "{comma}{count} {}", refusal.name())?;
            comma = ", ";
        }
        if comma.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// Says in the log who was refused and why, for each reason once in [`limits::REFUSAL_LOG_PAUSE`].
#[derive(Debug, Default)]
pub(crate) struct RefusalLog([Complaint; Refusal::COUNT]);

impl RefusalLog {
    /// `peer` is asked for only if there is a line to write.
    pub(crate) fn refused(
        &mut self,
        refusal: Refusal,
        status: Option<u16>,
        now: Instant,
        peer: impl FnOnce() -> Option<SocketAddr>,
    ) {
        let pause = Duration::from_millis(u64::from(limits::REFUSAL_LOG_PAUSE));
        let Some(left_out) = self.0[refusal as usize].say(now, pause) else { return };
        let peer = peer().map_or_else(|| "a client that is gone".to_owned(), |peer| peer.to_string());
        let answer = status.map_or_else(|| "closed".to_owned(), |status| status.to_string());
        if left_out == 0 {
            warn!("refused {peer} ({answer}): {refusal}");
        } else {
            warn!("refused {peer} ({answer}): {refusal}; {left_out} more since the last line of this kind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.to_string(), "none");
        refusals.count(Refusal::NoLink);
        refusals.count(Refusal::Malformed);
        refusals.count(Refusal::NoLink);
        assert_eq!((refusals.to_string().as_str(), refusals.all()), ("1 malformed, 2 no_link", 3));
    }

    /// One line for each reason in the pause; the peer is not asked for otherwise.
    #[test]
    fn lines_are_few() {
        let (mut log, now, mut lines) = (RefusalLog::default(), Instant::now(), 0);
        let pause = Duration::from_millis(u64::from(limits::REFUSAL_LOG_PAUSE));
        for (refusal, at) in [
            (Refusal::NoLink, now),
            (Refusal::NoLink, now),
            (Refusal::Malformed, now),
            (Refusal::NoLink, now + pause - Duration::from_millis(1)),
            (Refusal::NoLink, now + pause),
        ] {
            log.refused(refusal, Some(503), at, || {
                lines += 1;
                None
            });
        }
        assert_eq!(lines, 3);
    }
}
