//! Random numbers that are the same for the same seed. Not for secrets.

use std::time::Duration;

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
/// (2014), known as `SplitMix64`: eight bytes of state, good enough for jitter and garbage.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 where the limit is 0. The bias of the remainder (below one in a
    /// billion for the small limits here) does not matter.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = limit as u64;
        // The remainder is below `limit`, which came from a usize.
        usize::try_from(self.next().checked_rem(limit).unwrap_or(0)).unwrap_or(0)
    }

    /// A span from `least` on, below `most`.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        // 53 bits are what a float holds exactly.
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        least + most.saturating_sub(least).mul_f64(fraction)
    }

    /// Appends `count` random bytes.
    pub(crate) fn append(&mut self, count: usize, output: &mut Vec<u8>) {
        let end = output.len() + count;
        while output.len() < end {
            let missing = end - output.len();
            output.extend_from_slice(&self.next().to_le_bytes()[..missing.min(8)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_first_numbers_for_seed_zero_come_out() {
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn spans_stay_between_their_bounds() {
        let mut random = Random::new(7);
        let (least, most) = (Duration::from_secs(2), Duration::from_secs(3));
        assert!((0..1_000).all(|_| (least..most).contains(&random.between(least, most))));
        assert_eq!(random.between(least, least), least);
        assert_eq!(random.below(0), 0);
    }
}
