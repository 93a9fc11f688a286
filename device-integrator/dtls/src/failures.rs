//! Handshakes with a wrong key by identity, so that nobody tries keys for long.
//!
//! Counted per network as well: whoever fails for a device from elsewhere must not lock it out.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use crate::network::Network;

/// Failures of one identity from one network, after which the rest of the minute fails, too. A
/// device with a wrong key tries a few times; a guesser, with four tries in each handshake,
/// needs 17 days for a million keys.
const FAILURES_MAX: u8 = 10;
/// How long failures count.
const WINDOW_MS: u64 = 60_000;
/// Places for counts, a byte each. Identities share them by chance: with so many, who makes 1,000
/// failures per second with made-up identities adds one to each place in a minute, and neither
/// frees himself of the limit nor brings others to it.
const PLACES: usize = 65_536;

pub(crate) struct Failures {
    /// By the hash of identity and network: how often in the window at hand.
    counts: Box<[u8]>,
    hash: RandomState,
    began_ms: u64,
}

impl Default for Failures {
    fn default() -> Self {
        let counts = vec![0; PLACES].into_boxed_slice();
        Self { counts, hash: RandomState::new(), began_ms: 0 }
    }
}

impl Failures {
    /// Whether a handshake has to fail whatever its key is.
    pub(crate) fn is_held_back(&self, now_ms: u64, identity: &[u8], peer: SocketAddr) -> bool {
        self.is_open(now_ms) && self.counts[self.place(identity, peer)] >= FAILURES_MAX
    }

    pub(crate) fn note(&mut self, now_ms: u64, identity: &[u8], peer: SocketAddr) {
        if !self.is_open(now_ms) {
            self.counts.fill(0);
            self.began_ms = now_ms;
        }
        let place = self.place(identity, peer);
        self.counts[place] = self.counts[place].saturating_add(1);
    }

    fn is_open(&self, now_ms: u64) -> bool {
        now_ms < self.began_ms.saturating_add(WINDOW_MS)
    }

    fn place(&self, identity: &[u8], peer: SocketAddr) -> usize {
        let hash = self.hash.hash_one((identity, Network::of(peer)));
        // The remainder is below the number of places.
        usize::try_from(hash % PLACES as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_is_held_back_from_one_network_for_a_minute() {
        let mut failures = Failures::default();
        let [near, far]: [SocketAddr; 2] =
            ["10.0.0.1:1", "10.0.1.1:1"].map(|peer| peer.parse().unwrap());
        for _ in 0..FAILURES_MAX {
            assert!(!failures.is_held_back(70_000, b"meter", near));
            failures.note(70_000, b"meter", near);
        }
        assert!(failures.is_held_back(129_999, b"meter", near));
        assert!(!failures.is_held_back(129_999, b"meter", far));
        assert!(!failures.is_held_back(129_999, b"other", near));
        assert!(!failures.is_held_back(130_000, b"meter", near), "the minute is over");
        failures.note(130_000, b"meter", near);
        assert!(!failures.is_held_back(130_000, b"meter", near));
    }

    #[test]
    fn made_up_identities_do_not_free_a_guesser() {
        let mut failures = Failures::default();
        let peer = "10.0.0.1:1".parse().unwrap();
        for number in 0..100_000_u32 {
            failures.note(1, &number.to_be_bytes(), peer);
        }
        for _ in 0..FAILURES_MAX {
            failures.note(1, b"meter", peer);
        }
        assert!(failures.is_held_back(1, b"meter", peer));
    }
}
