//! Hashing with a secret seed: peers choose addresses and message ids, so without it they could
//! choose collisions.

use std::hash::{BuildHasher, Hasher};

/// Makes hashers of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seeded(u64);

/// Multiplies 64-bit words into a state and folds the 128-bit product.
#[derive(Debug)]
pub(crate) struct SeededHasher(u64);

/// An odd number without structure: the fraction of the golden ratio in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fold(seed ^ GOLDEN, GOLDEN))
    }
}

/// The two halves of the product, folded.
#[expect(clippy::cast_possible_truncation, reason = "each half is what is wanted")]
pub(crate) fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        // The state is spread before each fold, so that a zero word does not empty it.
        self.0 = fold(self.0 ^ value, GOLDEN).wrapping_add(self.0.rotate_left(23));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.0, GOLDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_and_seeds_differ() {
        let mut seen = HashSet::new();
        for seed in 0..4 {
            for address in 0..1_000_u32 {
                let peer = std::net::SocketAddr::from((address.to_be_bytes(), 5683));
                assert!(seen.insert(Seeded::new(seed).hash_one(peer)));
            }
        }
    }

    #[test]
    fn the_low_bits_are_spread() {
        let state = Seeded::new(1);
        let buckets: HashSet<u64> = (0..4_096_u32).map(|n| state.hash_one(n) & 0xfff).collect();
        // A random function fills 1 - 1/e of the buckets: 2,589.
        assert!((2_400..2_800).contains(&buckets.len()), "{}", buckets.len());
    }
}
