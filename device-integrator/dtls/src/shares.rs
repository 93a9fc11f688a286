//! The handshakes per second, shared between networks.
//!
//! Each network has a part for itself. What is more than that it gets only while more than half of
//! the common burst is left: so a network that comes back alone has all, and one that floods
//! leaves the other half to those that ask for little.

use std::hash::{BuildHasher, RandomState};

use crate::budget::Budget;
use crate::network::Network;

/// One network has a quarter for itself: three others can want as much at the same time.
const PARTS: u32 = 4;
/// Places, 32 bytes each. Networks that meet in one share its part.
const PLACES: usize = 4096;
/// How long a network has the same place: nobody shares one with a flood for longer.
const PLACE_MS: u64 = 10_000;

pub(crate) struct Shares {
    places: Vec<Budget>,
    hash: RandomState,
}

impl Shares {
    pub(crate) fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        let part = || Budget::new(per_second.div_ceil(PARTS), burst.div_ceil(PARTS), now_ms);
        let places = std::iter::repeat_with(part).take(PLACES).collect();
        Self { places, hash: RandomState::new() }
    }

    /// Whether one more of this network is allowed now, out of a budget of all.
    pub(crate) fn take(&mut self, now_ms: u64, network: Network, all: &mut Budget) -> bool {
        let hash = self.hash.hash_one((network, now_ms / PLACE_MS));
        // Less than 4,096, so nothing is lost.
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let is_own = self.places.get_mut(place).is_some_and(|part| part.take(now_ms));
        (is_own || all.is_plentiful(now_ms)) && all.take(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 1,000 a network gets.
    fn taken(shares: &mut Shares, all: &mut Budget, now_ms: u64, peer: &str) -> usize {
        let network = Network::of(peer.parse().unwrap());
        (0..1000).filter(|_| shares.take(now_ms, network, all)).count()
    }

    #[test]
    fn a_network_has_its_part_and_what_others_leave() {
        let mut shares = Shares::new(100, 100, 0);
        let mut all = Budget::new(100, 100, 0);
        let (flood, other) = ("10.0.0.1:1", "10.0.1.1:1");
        assert_eq!(taken(&mut shares, &mut all, 0, flood), 50);
        assert_eq!(taken(&mut shares, &mut all, 0, other), 25);
        // Alone it gets all that is earned, but never what others need for a start.
        let mut sum = 0;
        for tenth in 1..=90 {
            sum += taken(&mut shares, &mut all, tenth * 100, flood);
        }
        assert!((850..=900).contains(&sum), "{sum}");
        assert_eq!(taken(&mut shares, &mut all, 9000, other), 25);
    }
}
