//! From when to when certificates hold, and what an operator is told of it.

use std::fmt;
use std::time::Duration;

use megaphone_core::limits;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage};

/// When a certificate holds, with those of the authorities between it and the root. Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl Validity {
    /// That of a chain: of all its certificates together. `None`: one of them cannot be read.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let each = chain.iter().map(Self::of_one).collect::<Option<Vec<_>>>()?;
        let from = each.iter().map(|one| one.from).max()?;
        let until = each.iter().map(|one| one.until).min()?;
        Some(Self { from, until })
    }

    /// webpki tells the times of a certificate in its refusals: it is asked about the first moment there is and the last.
    fn of_one(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let refused = |seconds: u64| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            parsed.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
        };
        let from = match refused(0)? {
            Error::CertNotValidYet { not_before, .. } => not_before.as_secs(),
            Error::InvalidCertValidity | Error::BadDer => return None,
            _ => 0,
        };
        match refused(u64::MAX)? {
            Error::CertExpired { not_after, .. } => Some(Self { from, until: not_after.as_secs() }),
            _ => None,
        }
    }

    /// What is wrong, or soon will be.
    pub(super) fn trouble(self, now: u64) -> Option<Trouble> {
        match self.until.checked_sub(now) {
            None => Some(Trouble::Expired { since: now - self.until }),
            Some(_) if now < self.from => Some(Trouble::NotYet { wait: self.from - now }),
            Some(left) if left <= limits::CERTIFICATE_WARNING => Some(Trouble::Expires { left }),
            Some(_) => None,
        }
    }
}

/// Why clients refuse a certificate, or soon will. Seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Expired { since: u64 },
    NotYet { wait: u64 },
    Expires { left: u64 },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Expired { since } => {
                write!(f, "expired {} ago: clients refuse it; renew it and send SIGHUP", Span(since))
            }
            Self::NotYet { wait } => {
                write!(f, "is not valid yet, but in {}: clients refuse it until then", Span(wait))
            }
            Self::Expires { left } => write!(f, "expires in {}: renew it and send SIGHUP", Span(left)),
        }
    }
}

/// Seconds, in the largest unit of which there are two.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} minutes", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} hours", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const DAY: u64 = 86_400;

    /// A certificate from the start of one year to that of another one.
    fn made(from: i32, until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// The times of certificates, in either form that X.509 has for a year; of a chain those that all have.
    #[test]
    fn times_are_read() {
        let (early, late) = (made(2000, 2040), made(2010, 2060));
        let (of_2000, of_2010, of_2040, of_2060) = (946_684_800, 1_262_304_000, 2_208_988_800, 2_840_140_800);
        for (chain, from, until) in [
            (vec![early.clone()], of_2000, of_2040),
            (vec![late.clone()], of_2010, of_2060),
            (vec![late.clone(), early.clone()], of_2010, of_2040),
            (vec![early, late], of_2010, of_2040),
        ] {
            assert_eq!(Validity::of(&chain), Some(Validity { from, until }));
        }
        assert_eq!(Validity::of(&[CertificateDer::from(vec![0x30, 0])]), None);
        assert_eq!(Validity::of(&[]), None);
    }

    /// One second before, at, and behind each border.
    #[test]
    fn trouble_is_told_in_time() {
        let validity = Validity { from: 100 * DAY, until: 200 * DAY };
        let warned = 200 * DAY - limits::CERTIFICATE_WARNING;
        for (now, trouble) in [
            (100 * DAY - 1, Some(Trouble::NotYet { wait: 1 })),
            (100 * DAY, None),
            (warned - 1, None),
            (warned, Some(Trouble::Expires { left: limits::CERTIFICATE_WARNING })),
            (200 * DAY - 1, Some(Trouble::Expires { left: 1 })),
            (200 * DAY, Some(Trouble::Expires { left: 0 })),
            (200 * DAY + 1, Some(Trouble::Expired { since: 1 })),
            (u64::MAX, Some(Trouble::Expired { since: u64::MAX - 200 * DAY })),
        ] {
            assert_eq!(validity.trouble(now), trouble, "{now}");
        }
    }

    #[test]
    fn trouble_is_told_in_words() {
        for (trouble, text) in [
            (Trouble::Expires { left: 14 * DAY }, "expires in 14 days: renew it and send SIGHUP"),
            (Trouble::Expires { left: 2 * DAY - 1 }, "expires in 47 hours: renew it and send SIGHUP"),
            (Trouble::Expires { left: 7_199 }, "expires in 119 minutes: renew it and send SIGHUP"),
            (
                Trouble::Expired { since: 119 },
                "expired 119 s ago: clients refuse it; renew it and send SIGHUP",
            ),
            (
                Trouble::NotYet { wait: 2 * DAY },
                "is not valid yet, but in 2 days: clients refuse it until then",
            ),
        ] {
            assert_eq!(trouble.to_string(), text);
        }
    }
}
