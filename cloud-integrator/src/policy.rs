//! What follows from a failure, as data (docs/delivery.md, Success and retry). Pure.

use crate::delivery_options::RetryProfile;
use crate::gate::GateSettings;
use crate::schedule::Schedule;
use crate::sink::FailureClass;

/// How failures are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The waits between attempts at one event.
    pub schedule: Schedule,
    /// Attempts at one event at most; `None`: until its retention ends.
    pub attempts_max: Option<u32>,
    /// What happens after them.
    pub exhausted: Exhausted,
    /// When the endpoint as a whole counts as down; `None`: never.
    pub gate: Option<GateSettings>,
}

/// What happens to an event that used up its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// It becomes a dead letter, and the next one is tried.
    DeadLetter,
    /// Its integration fails.
    FailIntegration,
}

/// What becomes of an event after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is tried again.
    Again,
    /// It is given up.
    Dead,
    /// Nothing of this integration is tried any more.
    Fail,
}

/// Attempts at an event that is too large: a limit may differ between servers of one endpoint, but
/// time does not make an event smaller.
const TOO_LARGE_ATTEMPTS: u32 = 3;

impl RetryPolicy {
    /// What docs/delivery.md promises.
    pub fn standard() -> Self {
        Self {
            schedule: Schedule::standard(),
            attempts_max: Some(13),
            exhausted: Exhausted::DeadLetter,
            gate: Some(GateSettings::DOCUMENTED),
        }
    }

    /// As 1NCE OS does.
    pub fn compat_1nce() -> Self {
        Self {
            schedule: Schedule::compat_1nce(),
            attempts_max: Some(5),
            exhausted: Exhausted::FailIntegration,
            gate: None,
        }
    }

    /// For events that are replayed. The gate is that of the integration.
    pub fn replay() -> Self {
        Self {
            schedule: Schedule::replay(),
            attempts_max: Some(3),
            exhausted: Exhausted::DeadLetter,
            gate: None,
        }
    }

    /// The policy of a profile.
    pub fn of(profile: RetryProfile) -> Self {
        match profile {
            RetryProfile::Standard => Self::standard(),
            RetryProfile::Compat1nce => Self::compat_1nce(),
        }
    }

    /// What becomes of an event of which `failures` attempts have failed that count, the last one
    /// by `class`.
    pub(crate) fn judge(&self, class: FailureClass, failures: u32) -> Judgement {
        match class {
            FailureClass::Gone | FailureClass::Blocked => return Judgement::Fail,
            FailureClass::TooLarge if failures >= TOO_LARGE_ATTEMPTS => return Judgement::Dead,
            _ => {}
        }
        match (self.attempts_max, self.exhausted) {
            (Some(most), Exhausted::DeadLetter) if failures >= most => Judgement::Dead,
            (Some(most), Exhausted::FailIntegration) if failures >= most => Judgement::Fail,
            _ => Judgement::Again,
        }
    }

    /// How many events may share an attempt with one of which `failures` attempts have failed, so
    /// that one that fails for a reason of its own is alone before it is given up.
    pub(crate) fn company(&self, failures: u32, most: usize) -> usize {
        let is_last = self.attempts_max.is_some_and(|attempts| failures + 1 >= attempts);
        if failures == 0 {
            most
        } else if is_last {
            1
        } else {
            most.checked_shr(failures - 1).unwrap_or(0).max(1)
        }
    }
}

/// Whether the events themselves may be the cause: then fewer of them may pass.
pub(crate) const fn blames_events(class: FailureClass) -> bool {
    matches!(class, FailureClass::Refused | FailureClass::TooLarge | FailureClass::Request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_attempts_and_then_a_dead_letter() {
        let policy = RetryPolicy::standard();
        for class in [FailureClass::Status, FailureClass::Refused, FailureClass::Timeout] {
            assert_eq!(policy.judge(class, 12), Judgement::Again);
            assert_eq!(policy.judge(class, 13), Judgement::Dead);
        }
        assert_eq!(policy.judge(FailureClass::TooLarge, 2), Judgement::Again);
        assert_eq!(policy.judge(FailureClass::TooLarge, 3), Judgement::Dead);
        assert_eq!(policy.judge(FailureClass::Gone, 0), Judgement::Fail);
        assert_eq!(policy.judge(FailureClass::Blocked, 1), Judgement::Fail);
    }

    #[test]
    fn five_attempts_and_then_the_integration_has_failed() {
        let policy = RetryPolicy::compat_1nce();
        assert_eq!(policy.judge(FailureClass::Connect, 4), Judgement::Again);
        assert_eq!(policy.judge(FailureClass::Connect, 5), Judgement::Fail);
        assert_eq!(policy.judge(FailureClass::TooLarge, 3), Judgement::Dead);
    }

    #[test]
    fn who_fails_again_and_again_is_alone_in_the_end() {
        let sizes = |policy: RetryPolicy| {
            let most = policy.attempts_max.unwrap();
            (0..most).map(|failures| policy.company(failures, 100)).collect::<Vec<_>>()
        };
        let standard = sizes(RetryPolicy::standard());
        assert_eq!(standard[..8], [100, 100, 50, 25, 12, 6, 3, 1]);
        assert!(standard[8..].iter().all(|size| *size == 1));
        assert_eq!(sizes(RetryPolicy::compat_1nce()), [100, 100, 50, 25, 1]);
        assert_eq!(sizes(RetryPolicy::replay()), [100, 100, 1]);
    }
}
