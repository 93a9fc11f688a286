//! Echo (RFC 9175 §2): a peer that returns a value we sent has proved that it receives at its
//! address, and that its request is fresh.

use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::hashing::Seeded;

/// Makes and verifies Echo values, without memory of peers.
///
/// The value is a time and a keyed digest over it and the peer. The digest is fast, not
/// cryptographic: it stops blind spoofing and amplification, it is no proof of identity.
#[derive(Debug)]
pub struct Echo {
    began: Instant,
    seed: u64,
    lifetime: Duration,
}

impl Echo {
    /// Bytes of a value: four of time, eight of digest.
    pub const VALUE_BYTES: usize = 12;

    /// With a random seed, and how long a value counts.
    pub const fn new(began: Instant, seed: u64, lifetime: Duration) -> Self {
        Self { began, seed, lifetime }
    }

    /// The value for a peer.
    pub fn value<P: Hash>(&self, now: Instant, peer: &P) -> [u8; Self::VALUE_BYTES] {
        self.signed(self.seconds(now), peer)
    }

    /// Whether a value came from us to this peer, within the lifetime.
    pub fn is_valid<P: Hash>(&self, now: Instant, peer: &P, value: &[u8]) -> bool {
        let Some((seconds, _)) = value.split_first_chunk::<4>() else { return false };
        let seconds = u32::from_be_bytes(*seconds);
        let age = self.seconds(now).checked_sub(seconds);
        let expected = self.signed(seconds, peer);
        // All bytes are compared, whatever the first difference.
        let differs = value.len() != expected.len()
            || value.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
        !differs && age.is_some_and(|age| u64::from(age) <= self.lifetime.as_secs())
    }

    fn seconds(&self, now: Instant) -> u32 {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn signed<P: Hash>(&self, seconds: u32, peer: &P) -> [u8; Self::VALUE_BYTES] {
        let mut input = [0; 12];
        input[..4].copy_from_slice(&seconds.to_be_bytes());
        input[4..].copy_from_slice(&Seeded::new(self.seed).hash_one(peer).to_be_bytes());
        let digest = xxh3_128_with_seed(&input, self.seed).to_be_bytes();
        let mut value = [0; Self::VALUE_BYTES];
        value[..4].copy_from_slice(&seconds.to_be_bytes());
        value[4..].copy_from_slice(&digest[..8]);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_for_its_peer_and_its_time() {
        let began = Instant::now();
        let echo = Echo::new(began, 42, Duration::from_secs(60));
        let now = began + Duration::from_secs(100);
        let value = echo.value(now, &1);
        assert!(echo.is_valid(now + Duration::from_secs(60), &1, &value));
        assert!(!echo.is_valid(now + Duration::from_secs(61), &1, &value));
        assert!(!echo.is_valid(now, &2, &value));
        assert!(!echo.is_valid(began, &1, &value));
        assert!(!echo.is_valid(now, &1, &value[..11]));
        assert!(!echo.is_valid(now, &1, &[]));
        let mut forged = value;
        forged[3] ^= 1;
        assert!(!echo.is_valid(now, &1, &forged));
    }
}
