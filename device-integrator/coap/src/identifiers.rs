//! Message ids and tokens of our own messages, and the dice for timers.

use std::hash::{BuildHasher, Hash};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::hashing::{Seeded, fold};
use crate::wire::{MessageId, Token};

/// Counters of message ids. Peers share them by hash, so that no peer needs memory of its own: an
/// id comes back to the same peer after 65,000 messages of its counter, which at 265 messages per
/// second and counter is the exchange lifetime of 247 s (RFC 7252 §4.4).
const COUNTERS: usize = 4_096;

/// Hands out message ids, tokens and random numbers, all from one seed.
#[derive(Debug)]
pub(crate) struct Identifiers {
    counters: Box<[u16]>,
    hashing: Seeded,
    token_seed: u64,
    tokens: u64,
    dice: u64,
}

impl Identifiers {
    pub(crate) fn new(seed: u64) -> Self {
        let mut identifiers = Self {
            counters: Box::new([]),
            hashing: Seeded::new(seed ^ 1),
            token_seed: fold(seed ^ 2, 0xd6e8_feb8_6659_fd93),
            tokens: 0,
            dice: seed ^ 3,
        };
        // RFC 7252 §4.4 recommends to begin at a random id.
        #[expect(clippy::cast_possible_truncation, reason = "the low bits suffice")]
        let counters = (0..COUNTERS).map(|_| identifiers.random() as u16).collect();
        identifiers.counters = counters;
        identifiers
    }

    /// The next message id towards a peer.
    ///
    /// Widespread device software reads a response as a text that ends at the first zero byte and
    /// begins at the first "89": ids that hold either are left out.
    pub(crate) fn message_id<P: Hash>(&mut self, peer: &P) -> MessageId {
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash is a hash")]
        let counter = &mut self.counters[self.hashing.hash_one(peer) as usize % COUNTERS];
        loop {
            *counter = counter.wrapping_add(1);
            let [high, low] = counter.to_be_bytes();
            if high != 0 && low != 0 && [high, low] != *b"89" {
                return MessageId(*counter);
            }
        }
    }

    /// A token that never comes back and that nobody can guess: a counter, enciphered by four
    /// rounds of a Feistel network (RFC 9175 §4: no token twice in one security context).
    pub(crate) fn token(&mut self) -> Token {
        self.tokens = self.tokens.wrapping_add(1);
        let bytes = self.tokens.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        let (mut left, mut right) =
            (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        for round in 0..4 {
            let key = self.token_seed.wrapping_add(round);
            #[expect(clippy::cast_possible_truncation, reason = "half a digest for half a block")]
            let mixed = left ^ xxh3_64_with_seed(&right.to_be_bytes(), key) as u32;
            (left, right) = (right, mixed);
        }
        Token::from_u64(u64::from(left) << 32 | u64::from(right))
    }

    /// The next random number (splitmix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_token_comes_twice() {
        let mut identifiers = Identifiers::new(7);
        let tokens: HashSet<Token> = (0..100_000).map(|_| identifiers.token()).collect();
        assert_eq!(tokens.len(), 100_000);
        assert_ne!(Identifiers::new(8).token(), Identifiers::new(7).token());
    }

    #[test]
    fn message_ids_hold_no_zero_byte_and_no_89() {
        let mut identifiers = Identifiers::new(7);
        let ids: HashSet<u16> = (0..65_024).map(|_| identifiers.message_id(&1_u8).0).collect();
        // 255 * 255 ids without a zero byte, less one.
        assert_eq!(ids.len(), 65_024);
        assert!(!ids.contains(&0x3839));
        assert!(ids.iter().all(|id| id & 0xff != 0 && id >> 8 != 0));
    }
}
