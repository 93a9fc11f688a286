//! When old segments may go: pure rules, no file.

use std::time::Duration;

use vocabulary::Timestamp;

/// A forward jump of the clock above this needs confirmation.
const JUMP: Duration = Duration::from_secs(3_600);
/// How long the clock must run on without another jump before deletion goes on.
const CONFIRMATION: Duration = Duration::from_secs(600);

/// Watches the clock for jumps, so that a wrong clock deletes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JumpGuard {
    wall: Timestamp,
    monotonic: Duration,
    held_until: Option<Duration>,
}

impl JumpGuard {
    /// `last_known` is the newest moment that the log holds: a clock far beyond it at the start is
    /// a jump as well. A log without records has nothing to delete.
    pub(crate) fn new(last_known: Option<Timestamp>, now: Timestamp, monotonic: Duration) -> Self {
        let wall = last_known.unwrap_or(now);
        let mut guard = Self { wall, monotonic, held_until: None };
        guard.may_delete(now, monotonic);
        guard
    }

    /// Looks at both clocks; whether deletion is allowed now.
    pub(crate) fn may_delete(&mut self, now: Timestamp, monotonic: Duration) -> bool {
        let passed = monotonic.saturating_sub(self.monotonic);
        let expected = self.wall.saturating_add(passed);
        if now.saturating_since(expected) > JUMP {
            self.held_until = Some(monotonic.saturating_add(CONFIRMATION));
        }
        self.wall = now;
        self.monotonic = monotonic;
        match self.held_until {
            Some(until) if monotonic < until => false,
            _ => {
                self.held_until = None;
                true
            }
        }
    }
}

/// Whether a segment whose last record was committed at `last_commit` is past retention.
pub(crate) fn is_past(last_commit: Timestamp, now: Timestamp, retention: Duration) -> bool {
    last_commit.saturating_add(retention) <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(hours: u64) -> Timestamp {
        Timestamp::EPOCH.saturating_add(HOUR * u32::try_from(hours).unwrap())
    }

    #[test]
    fn after_a_jump_deletion_waits_ten_minutes() {
        let mut guard = JumpGuard::new(None, at(100), Duration::ZERO);
        assert!(guard.may_delete(at(101), HOUR), "an ordinary hour");
        let jumped = at(300);
        assert!(!guard.may_delete(jumped, HOUR));
        let second = Duration::from_secs(1);
        let later = |seconds: u32| jumped.saturating_add(second * seconds);
        assert!(!guard.may_delete(later(599), HOUR + second * 599));
        assert!(guard.may_delete(later(600), HOUR + second * 600));
    }

    #[test]
    fn a_clock_that_comes_back_and_jumps_again_waits_again() {
        let mut guard = JumpGuard::new(None, at(100), Duration::ZERO);
        assert!(!guard.may_delete(at(300), Duration::from_secs(1)));
        assert!(!guard.may_delete(at(100), Duration::from_secs(2)));
        assert!(guard.may_delete(at(100), Duration::from_secs(700)));
        assert!(!guard.may_delete(at(300), Duration::from_secs(701)));
    }

    #[test]
    fn a_start_long_after_the_last_record_is_a_jump() {
        let mut guard = JumpGuard::new(Some(at(1)), at(500), Duration::ZERO);
        assert!(!guard.may_delete(at(500), Duration::from_secs(1)));
        assert!(guard.may_delete(at(501), HOUR));
    }

    #[test]
    fn a_record_is_kept_for_all_of_its_retention() {
        assert!(!is_past(at(0), Timestamp::from_micros(at(168).as_micros() - 1), HOUR * 168));
        assert!(is_past(at(0), at(168), HOUR * 168));
    }
}
