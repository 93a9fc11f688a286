//! When old segments may go: pure rules, no file.

use std::time::Duration;

use vocabulary::Timestamp;

/// A forward jump of the clock above this needs confirmation.
const JUMP: Duration = Duration::from_secs(3_600);
/// How long the clock must run on without another jump before deletion goes on.
const CONFIRMATION: Duration = Duration::from_secs(600);

/// A clock before 2025-01-01T00:00:00Z has not been set: no release of this software is older.
const PLAUSIBLE: Timestamp = Timestamp::from_micros(1_735_689_600_000_000);

/// A jump of the clock that needs confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jump {
    Forward,
    Back,
}

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
        guard.look(now, monotonic);
        guard
    }

    /// Looks at both clocks; whether the clock has jumped since the last look. Only a forward
    /// jump holds deletion up.
    pub(crate) fn look(&mut self, now: Timestamp, monotonic: Duration) -> Option<Jump> {
        let passed = monotonic.saturating_sub(self.monotonic);
        let expected = self.wall.saturating_add(passed);
        self.wall = now;
        self.monotonic = monotonic;
        if now.saturating_since(expected) > JUMP {
            self.held_until = Some(monotonic.saturating_add(CONFIRMATION));
            return Some(Jump::Forward);
        }
        if self.held_until.is_some_and(|until| monotonic >= until) {
            self.held_until = None;
        }
        (expected.saturating_since(now) > JUMP).then_some(Jump::Back)
    }

    /// Whether deletion is allowed, as of the last look.
    pub(crate) fn may_delete(&self) -> bool {
        self.held_until.is_none()
    }
}

/// Whether a clock that tells this has not been set yet.
pub(crate) fn is_implausible(time: Timestamp) -> bool {
    time < PLAUSIBLE
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

    fn may_delete(guard: &mut JumpGuard, now: Timestamp, monotonic: Duration) -> bool {
        guard.look(now, monotonic);
        guard.may_delete()
    }

    #[test]
    fn jumps_are_told_in_both_directions() {
        let mut guard = JumpGuard::new(None, at(100), Duration::ZERO);
        assert_eq!(guard.look(at(102), HOUR), None, "an hour too much is none yet");
        assert_eq!(guard.look(at(104), HOUR), Some(Jump::Forward));
        assert_eq!(guard.look(at(102), HOUR), Some(Jump::Back));
        assert_eq!(guard.look(at(101), HOUR), None);
    }

    #[test]
    fn after_a_jump_deletion_waits_ten_minutes() {
        let mut guard = JumpGuard::new(None, at(100), Duration::ZERO);
        assert!(may_delete(&mut guard, at(101), HOUR), "an ordinary hour");
        let jumped = at(300);
        assert!(!may_delete(&mut guard, jumped, HOUR));
        let second = Duration::from_secs(1);
        let later = |seconds: u32| jumped.saturating_add(second * seconds);
        assert!(!may_delete(&mut guard, later(599), HOUR + second * 599));
        assert!(may_delete(&mut guard, later(600), HOUR + second * 600));
    }

    #[test]
    fn a_clock_that_comes_back_and_jumps_again_waits_again() {
        let mut guard = JumpGuard::new(None, at(100), Duration::ZERO);
        assert!(!may_delete(&mut guard, at(300), Duration::from_secs(1)));
        assert!(!may_delete(&mut guard, at(100), Duration::from_secs(2)));
        assert!(may_delete(&mut guard, at(100), Duration::from_secs(700)));
        assert!(!may_delete(&mut guard, at(300), Duration::from_secs(701)));
    }

    #[test]
    fn a_start_long_after_the_last_record_is_a_jump() {
        let mut guard = JumpGuard::new(Some(at(1)), at(500), Duration::ZERO);
        assert!(!may_delete(&mut guard, at(500), Duration::from_secs(1)));
        assert!(may_delete(&mut guard, at(501), HOUR));
    }

    #[test]
    fn a_record_is_kept_for_all_of_its_retention() {
        assert!(!is_past(at(0), Timestamp::from_micros(at(168).as_micros() - 1), HOUR * 168));
        assert!(is_past(at(0), at(168), HOUR * 168));
    }
}
