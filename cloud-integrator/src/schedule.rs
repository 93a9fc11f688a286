//! When a message that failed is tried again. Pure.

use std::sync::Arc;
use std::time::Duration;

/// The waits between attempts at one message, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first failure, the second, and so on; the last one repeats.
    pub waits: Arc<[Duration]>,
    /// Each wait is made longer or shorter by up to so many percent, at random, so that messages
    /// which failed together do not come back together.
    pub jitter_percent: u32,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

impl Schedule {
    /// The documented schedule, docs/integrations.md: 75 hours in all.
    pub fn standard() -> Self {
        let secs = [
            5,
            30,
            2 * MINUTE,
            5 * MINUTE,
            15 * MINUTE,
            HOUR,
            2 * HOUR,
            4 * HOUR,
            8 * HOUR,
            12 * HOUR,
            24 * HOUR,
            24 * HOUR,
        ];
        Self { waits: secs.map(Duration::from_secs).into(), jitter_percent: 20 }
    }

    /// The schedule of 1NCE OS: 29.5 minutes in all.
    pub fn compat_1nce() -> Self {
        Self { waits: [150, 180, 420, 1_020].map(Duration::from_secs).into(), jitter_percent: 0 }
    }

    /// The schedule of events that are replayed: whoever asks for them wants to see the end.
    pub fn replay() -> Self {
        Self { waits: [5, 30].map(Duration::from_secs).into(), jitter_percent: 20 }
    }

    /// The longest wait, with jitter.
    pub(crate) fn wait_max(&self) -> Duration {
        let longest = self.waits.iter().max().copied().unwrap_or(Duration::ZERO);
        longest * (100 + self.jitter_percent.min(100)) / 100
    }

    /// The wait after `failures` attempts (at least 1), with jitter by `random`.
    pub fn wait(&self, failures: u32, random: u64) -> Duration {
        let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(last) = self.waits.last() else { return Duration::ZERO };
        let wait = *self.waits.get(step).unwrap_or(last);
        let jitter_percent = self.jitter_percent.min(100);
        // 0 to twice the jitter, both included: below 201, so it fits.
        let span = u64::from(2 * jitter_percent + 1);
        let percent = u32::try_from(random % span).unwrap_or(0) + 100 - jitter_percent;
        wait * percent / 100
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): jitter needs no better randomness.
pub(crate) fn scramble(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_documented_schedule_within_a_fifth() {
        let mut state = 1;
        for (failures, secs) in [(1, 5), (2, 30), (3, 120), (4, 300), (5, 900), (12, 86_400)] {
            for _ in 0..200 {
                let wait = Schedule::standard().wait(failures, scramble(&mut state));
                let percent = wait.as_millis() * 100 / (secs * 1_000);
                assert!((80..=120).contains(&percent), "{failures}: {wait:?}");
            }
        }
        assert!(Schedule::standard().wait(4_000, 0) >= Duration::from_secs(24 * HOUR * 8 / 10));
    }

    #[test]
    fn all_of_it_takes_the_documented_time() {
        let total = |schedule: Schedule| schedule.waits.iter().sum::<Duration>();
        assert_eq!(total(Schedule::standard()).as_secs() / HOUR, 75);
        assert_eq!(total(Schedule::compat_1nce()), Duration::from_secs(1_770));
        assert_eq!(Schedule::compat_1nce().wait(3, 12_345), Duration::from_secs(420));
    }
}
