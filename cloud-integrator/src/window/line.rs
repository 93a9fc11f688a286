//! The records of one device, as far as a window has them.

use std::collections::VecDeque;
use std::time::Instant;

use super::WindowLimits;

/// What a line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// To be started: its head is among those that are ready.
    #[default]
    Ready,
    /// For the end of an attempt, or for the attempts before it that a batch was split into.
    Flying,
    /// For the next attempt at its head, which failed.
    Waiting,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) state: State,
    /// The places of the first and the last record that are held.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Records that are held, and their bytes.
    pub(super) held: usize,
    pub(super) bytes: usize,
    /// Attempts at its head that failed and count.
    pub(super) failures: u32,
    /// When its head is tried again, while it waits.
    pub(super) due: Option<Instant>,
    /// Its head failed and is not done: until it is, nothing else of the line is held.
    pub(super) has_failed: bool,
    /// The last failure blamed its head: it goes alone.
    pub(super) is_suspect: bool,
    /// Places after those that are held, in rising order.
    pub(super) deferred: VecDeque<u64>,
}

impl Line {
    /// One record always fits, however large it is.
    pub(super) fn has_room(&self, limits: &WindowLimits) -> bool {
        let is_within = self.held < limits.device_records && self.bytes < limits.device_bytes;
        self.held == 0 || (is_within && !self.has_failed)
    }

    /// Half of the share, so that a read is worth its while.
    pub(super) fn is_short(&self, limits: &WindowLimits) -> bool {
        self.held * 2 <= limits.device_records
            && self.bytes * 2 <= limits.device_bytes
            && !self.has_failed
    }
}
