//! Which packets are known: those that are being stored, and those that were answered.
//!
//! What is kept of a packet is a hash. Its response needs no memory: it is made again from the
//! copy, which holds all that the response depends on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3;

/// What is known of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Its report is being stored.
    Storing,
    /// It was answered.
    Answered,
}

/// The packets that would be copies if they came again.
#[derive(Debug)]
pub(super) struct Exchanges {
    known: HashMap<u64, Known>,
    /// The answered ones, oldest first.
    answered: VecDeque<(Instant, u64)>,
    answered_max: usize,
    known_for: Duration,
    seed: u64,
}

impl Exchanges {
    pub(super) fn new(answered_max: usize, known_for: Duration, seed: u64) -> Self {
        Self { known: HashMap::new(), answered: VecDeque::new(), answered_max, known_for, seed }
    }

    /// The key of a packet: its authenticator is a digest of all of it, with its identifier.
    pub(super) fn key(&self, client: usize, server: &str, authenticator: &[u8; 16]) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        hash.update(authenticator);
        hash.update(&client.to_le_bytes());
        hash.update(server.as_bytes());
        hash.digest()
    }

    pub(super) fn find(&self, key: u64) -> Option<Known> {
        self.known.get(&key).copied()
    }

    pub(super) fn storing(&mut self, key: u64) {
        self.known.insert(key, Known::Storing);
    }

    pub(super) fn answered(&mut self, now: Instant, key: u64) {
        self.known.insert(key, Known::Answered);
        self.answered.push_back((now, key));
    }

    pub(super) fn failed(&mut self, key: u64) {
        self.known.remove(&key);
    }

    /// Forgets what is old enough, and what is too much; returns how many were too much.
    pub(super) fn forget(&mut self, now: Instant) -> u64 {
        let mut early = 0;
        while let Some(&(at, key)) = self.answered.front() {
            let is_old = now.saturating_duration_since(at) >= self.known_for;
            if !is_old && self.answered.len() <= self.answered_max {
                break;
            }
            early += u64::from(!is_old);
            self.answered.pop_front();
            self.known.remove(&key);
        }
        early
    }
}
