//! The order in which sessions fall asleep, and are forgotten.
//!
//! A context of the C library takes 7 KiB, and most devices say one thing and are silent for
//! hours. So a session that has just been established or woken gets one of few places, and keeps
//! its context for long only when it goes on speaking.

use std::collections::BTreeSet;

use super::SessionId;

/// Where a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Awake, and nobody knows for how long it will speak.
    Fresh,
    /// Awake, and speaking often.
    Busy,
    /// Asleep.
    Asleep,
}

/// Every session once, by the time of its place; the longest idle is near the front.
#[derive(Default)]
pub(super) struct Queues {
    fresh: BTreeSet<(u64, SessionId)>,
    busy: BTreeSet<(u64, SessionId)>,
    asleep: BTreeSet<(u64, SessionId)>,
}

impl Queues {
    pub(super) fn insert(&mut self, queue: Queue, place: (u64, SessionId)) {
        self.of(queue).insert(place);
    }

    pub(super) fn remove(&mut self, queue: Queue, place: (u64, SessionId)) {
        self.of(queue).remove(&place);
    }

    pub(super) fn first(&self, queue: Queue) -> Option<(u64, SessionId)> {
        match queue {
            Queue::Fresh => self.fresh.first(),
            Queue::Busy => self.busy.first(),
            Queue::Asleep => self.asleep.first(),
        }
        .copied()
    }

    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    pub(super) fn awake(&self) -> usize {
        self.fresh.len() + self.busy.len()
    }

    fn of(&mut self, queue: Queue) -> &mut BTreeSet<(u64, SessionId)> {
        match queue {
            Queue::Fresh => &mut self.fresh,
            Queue::Busy => &mut self.busy,
            Queue::Asleep => &mut self.asleep,
        }
    }
}
