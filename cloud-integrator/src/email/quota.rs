//! How many mails an integration may send: a bucket that fills evenly and holds an hour's worth.
//! Pure.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Mails of one integration in an hour where the operator does not say: with digests as they are
/// by default up to 5,000 events. An estimate of what people still read.
pub const MAILS_PER_HOUR: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

const HOUR: Duration = Duration::from_secs(3_600);

/// What is left of an hour's mails.
#[derive(Debug)]
pub(super) struct Quota {
    /// The time in which one mail is earned.
    per_mail: Duration,
    /// When the bucket was empty, if it had filled without pause since.
    empty_at: Instant,
}

impl Quota {
    /// A full one.
    pub(super) fn new(mails_per_hour: NonZeroU32, now: Instant) -> Self {
        // In the first hour of a machine the clock does not reach back so far: then it holds less.
        let empty_at = now.checked_sub(HOUR).unwrap_or(now);
        Self { per_mail: HOUR / mails_per_hour.get(), empty_at }
    }

    /// Takes one mail, or says how long until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let saved = now.saturating_duration_since(self.empty_at).min(HOUR);
        if saved < self.per_mail {
            return Err(self.per_mail - saved);
        }
        // What is above an hour's worth has run over.
        self.empty_at = now.checked_sub(saved - self.per_mail).unwrap_or(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hours_mails_at_once_and_then_as_they_are_earned() {
        let start = Instant::now() + 2 * HOUR;
        let mut quota = Quota::new(NonZeroU32::new(60).unwrap(), start);
        for _ in 0..60 {
            assert_eq!(quota.take(start), Ok(()));
        }
        let minute = Duration::from_secs(60);
        assert_eq!(quota.take(start), Err(minute));
        assert_eq!(quota.take(start + minute / 2), Err(minute / 2));
        assert_eq!(quota.take(start + minute), Ok(()));
        assert_eq!(quota.take(start + minute), Err(minute));
        let days_later = start + 48 * HOUR;
        for _ in 0..60 {
            assert_eq!(quota.take(days_later), Ok(()));
        }
        assert!(quota.take(days_later).is_err());
    }
}
