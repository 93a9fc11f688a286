//! What a receiver does with its requests, in which order.

use std::collections::VecDeque;
use std::time::Duration;

use crate::random::Random;

/// What the receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with this status.
    Answer(u16),
    /// Answers with this status after this time.
    AnswerAfter(u16, Duration),
    /// Closes the connection without an answer, after having read the request. With HTTP/2 only
    /// the request's stream is reset.
    Drop,
    /// Answers some requests with this status, the others with 200.
    Fail {
        /// How many in a hundred fail, chosen at random by the receiver's seed.
        percent: u8,
        /// What those are answered with.
        status: u16,
    },
}

/// The behaviours to come.
#[derive(Debug)]
pub(super) struct Script {
    next: VecDeque<Behaviour>,
    otherwise: Behaviour,
    random: Random,
}

impl Behaviour {
    pub(super) const fn is_success(self) -> bool {
        matches!(self, Self::Answer(200..=299) | Self::AnswerAfter(200..=299, _))
    }
}

impl Script {
    pub(super) fn new(otherwise: Behaviour, seed: u64) -> Self {
        Self { next: VecDeque::new(), otherwise, random: Random::new(seed) }
    }

    pub(super) fn append(&mut self, next: impl IntoIterator<Item = Behaviour>) {
        self.next.extend(next);
    }

    pub(super) const fn otherwise(&mut self, behaviour: Behaviour) {
        self.otherwise = behaviour;
    }

    /// What to do with the next request: never [`Behaviour::Fail`], but what it comes to.
    pub(super) fn next(&mut self) -> Behaviour {
        match self.next.pop_front().unwrap_or(self.otherwise) {
            Behaviour::Fail { percent, status } => {
                let fails = self.random.below(100) < usize::from(percent);
                Behaviour::Answer(if fails { status } else { 200 })
            }
            behaviour => behaviour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(percent: u8, seed: u64) -> Vec<bool> {
        let mut script = Script::new(Behaviour::Fail { percent, status: 500 }, seed);
        (0..10_000).map(|_| script.next() == Behaviour::Answer(500)).collect()
    }

    #[test]
    fn about_so_many_fail_and_the_same_ones_for_the_same_seed() {
        let fifteen = failures(15, 1);
        let count = fifteen.iter().filter(|fails| **fails).count();
        assert!((1_400..=1_600).contains(&count), "{count} of 10,000");
        assert_eq!(fifteen, failures(15, 1));
        assert_ne!(fifteen, failures(15, 2));
        assert!(failures(0, 1).iter().all(|fails| !fails));
        assert!(failures(100, 1).iter().all(|fails| *fails));
    }
}
