//! Handshakes with a wrong key by identity, so that nobody tries keys for long.
//!
//! Counted per network as well: whoever fails for a device from elsewhere must not lock it out.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use crate::network::Network;

/// Failures of one identity from one network, after which the rest of the minute fails, too. A
/// device with a wrong key tries a few times; a guesser, with four tries in each handshake,
/// needs 17 days for a million keys.
const FAILURES_MAX: u32 = 10;
/// How long failures count.
const WINDOW_MS: u64 = 60_000;
/// Identities and networks remembered, 16 bytes each. Beyond it nothing new is remembered until
/// the minute is over: the handshakes per second are bounded anyhow.
const COUNT_MAX: usize = 65_536;

#[derive(Default)]
pub(crate) struct Failures {
    /// By the hash of identity and network: how often in the window at hand.
    counts: HashMap<u64, u32>,
    hash: RandomState,
    began_ms: u64,
}

impl Failures {
    /// Whether a handshake has to fail whatever its key is.
    pub(crate) fn is_held_back(&self, now_ms: u64, identity: &[u8], peer: SocketAddr) -> bool {
        let count = self.counts.get(&self.place(identity, peer));
        self.is_open(now_ms) && count.is_some_and(|count| *count >= FAILURES_MAX)
    }

    pub(crate) fn note(&mut self, now_ms: u64, identity: &[u8], peer: SocketAddr) {
        if !self.is_open(now_ms) {
            self.counts.clear();
            self.began_ms = now_ms;
        }
        let place = self.place(identity, peer);
        if self.counts.len() < COUNT_MAX || self.counts.contains_key(&place) {
            *self.counts.entry(place).or_default() += 1;
        }
    }

    fn is_open(&self, now_ms: u64) -> bool {
        now_ms < self.began_ms.saturating_add(WINDOW_MS)
    }

    fn place(&self, identity: &[u8], peer: SocketAddr) -> u64 {
        self.hash.hash_one((identity, Network::of(peer)))
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
    fn what_is_remembered_has_a_limit() {
        let mut failures = Failures::default();
        let peer = "10.0.0.1:1".parse().unwrap();
        for number in 0..COUNT_MAX + 100 {
            failures.note(1, &number.to_be_bytes(), peer);
        }
        assert_eq!(failures.counts.len(), COUNT_MAX);
    }
}
