//! How a forwarder fares, for whoever asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vocabulary::Timestamp;

use crate::sink::Failure;

/// How a forwarder fares at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwarderStatus {
    /// Since when the endpoint has counted as down; `None` while it works.
    pub down_since: Option<Timestamp>,
    /// When it is tried next, while it is down and no attempt runs.
    pub next_probe_in: Option<Duration>,
    /// Attempts that run.
    pub in_flight: usize,
    /// Attempts that may run at the same time, as far as is known of the endpoint.
    pub concurrency_limit: usize,
    /// Records of the log that are not done, wanted or not.
    pub lag_records: u64,
    /// Events that failed and wait for another attempt.
    pub retrying: usize,
    /// When the endpoint confirmed something last, since the forwarder was started.
    pub last_success_at: Option<Timestamp>,
    /// When an attempt failed last and why, since the forwarder was started.
    pub last_failure: Option<(Timestamp, Failure)>,
    /// Whether devices without backlog have a lane of their own.
    pub fresh_lane: bool,
}

/// Where the run leaves its status. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StatusCell(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) status: ForwarderStatus,
    pub(super) probe_at: Option<Instant>,
}

impl StatusCell {
    /// The status, as of `now`.
    pub(super) fn read(&self, now: Instant) -> ForwarderStatus {
        let mut status = ForwarderStatus::default();
        self.change(|shown| {
            let next_probe_in = shown.probe_at.map(|at| at.saturating_duration_since(now));
            status = ForwarderStatus { next_probe_in, ..shown.status.clone() };
        });
        status
    }

    /// Changes it. Whoever panics meanwhile leaves single fields as they were.
    pub(super) fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
