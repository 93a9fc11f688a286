//! When a message that failed is tried again.

use std::time::Duration;

/// The waits between attempts at one message, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first failure, the second, and so on; the last one repeats.
    pub waits: &'static [Duration],
    /// Each wait is made longer or shorter by up to so many percent, at random, so that messages
    /// which failed together do not come back together.
    pub jitter_percent: u32,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

impl Schedule {
    /// The schedule that docs/webhooks.md promises: 5 s, 30 s, 2 min, 5 min, 15 min, 1 h, 2 h, 4 h,
    /// 8 h, 12 h, 24 h, +-20 %. There is no last attempt yet: 24 h repeats until the message's
    /// retention ends.
    pub const DOCUMENTED: Self = Self {
        waits: &[
            Duration::from_secs(5),
            Duration::from_secs(30),
            Duration::from_secs(2 * MINUTE),
            Duration::from_secs(5 * MINUTE),
            Duration::from_secs(15 * MINUTE),
            Duration::from_secs(HOUR),
            Duration::from_secs(2 * HOUR),
            Duration::from_secs(4 * HOUR),
            Duration::from_secs(8 * HOUR),
            Duration::from_secs(12 * HOUR),
            Duration::from_secs(24 * HOUR),
        ],
        jitter_percent: 20,
    };

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
        for (failures, secs) in [(1, 5), (2, 30), (3, 120), (4, 300), (5, 900), (11, 86_400)] {
            for _ in 0..200 {
                let wait = Schedule::DOCUMENTED.wait(failures, scramble(&mut state));
                let percent = wait.as_millis() * 100 / (secs * 1_000);
                assert!((80..=120).contains(&percent), "{failures}: {wait:?}");
            }
        }
        assert!(Schedule::DOCUMENTED.wait(4_000, 0) >= Duration::from_secs(24 * HOUR * 8 / 10));
    }
}
