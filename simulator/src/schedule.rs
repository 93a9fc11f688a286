//! When the messages of an open loop are due: evenly spaced, whatever happened to earlier ones.

use std::time::Duration;

/// A steady rate.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    per_second: u64,
    taken: u64,
}

impl Schedule {
    /// `per_second` from the start of the run on; 0 is never.
    pub(crate) const fn new(per_second: u64) -> Self {
        Self { per_second, taken: 0 }
    }

    /// When the next one is due, since the start of the run.
    pub(crate) fn next(&self) -> Duration {
        due(self.taken, self.per_second)
    }

    /// Takes the next one if it is due at `now`, and tells since when.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Duration> {
        let due = self.next();
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }

    /// How many were due by `now` and have not been taken.
    pub(crate) fn behind(&self, now: Duration) -> u64 {
        let due = u128::from(self.per_second) * now.as_nanos() / NANOS_PER_SECOND;
        u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.taken)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

fn due(number: u64, per_second: u64) -> Duration {
    let nanos = (u128::from(number) * NANOS_PER_SECOND).checked_div(u128::from(per_second));
    nanos.and_then(|nanos| u64::try_from(nanos).ok()).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_evenly_spaced_without_drift() {
        assert_eq!(due(1, 3), Duration::from_nanos(333_333_333));
        assert_eq!(due(3_000_000_000, 3), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn a_pause_is_made_up_for_and_each_keeps_its_own_time() {
        let mut schedule = Schedule::new(10);
        let now = Duration::from_millis(250);
        let mut taken = Vec::new();
        while let Some(due) = schedule.take(now) {
            taken.push(due.as_millis());
        }
        assert_eq!(taken, [0, 100, 200]);
        assert_eq!(schedule.next(), Duration::from_millis(300));
        assert_eq!(schedule.behind(Duration::from_secs(1)), 7);
    }

    #[test]
    fn a_rate_of_zero_is_never_due() {
        let mut schedule = Schedule::new(0);
        assert_eq!(schedule.take(Duration::from_secs(1_000_000)), None);
        assert_eq!(schedule.behind(Duration::from_secs(1)), 0);
    }
}
