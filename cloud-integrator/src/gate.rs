//! Keeps a failing endpoint from being hammered.
//!
//! After several failures in a row the whole endpoint counts as down: from then on only one
//! attempt at a time, with growing pauses, until one succeeds.

use std::time::{Duration, Instant};

/// When an endpoint counts as down, and how it is probed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// Failures in a row that close the gate.
    pub failures: u32,
    /// The pause before the first probe; it doubles with each probe that fails.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl GateSettings {
    /// What docs/webhooks.md promises.
    pub const DOCUMENTED: Self = Self {
        failures: 10,
        pause_min: Duration::from_secs(5),
        pause_max: Duration::from_secs(300),
    };
}

/// Whether an endpoint may be tried.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: GateSettings,
    failures_in_a_row: u32,
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    probe_at: Instant,
    pause: Duration,
}

impl Gate {
    pub(crate) fn new(settings: GateSettings) -> Self {
        Self { settings, failures_in_a_row: 0, closed: None }
    }

    /// When the next probe is due; `None` while the gate is open.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.closed.map(|closed| closed.probe_at)
    }

    /// A success. Says whether it opened the gate.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.failures_in_a_row = 0;
        self.closed.take().is_some()
    }

    /// A failure; `after` is the wait that the endpoint asked for.
    pub(crate) fn failed(&mut self, now: Instant, after: Option<Duration>) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let pause = match self.closed {
            // An attempt from before the gate closed: it says nothing new.
            Some(closed) if now < closed.probe_at => return,
            Some(closed) => (closed.pause * 2).min(self.settings.pause_max),
            None if self.failures_in_a_row >= self.settings.failures => self.settings.pause_min,
            None => return,
        };
        let wait = pause.max(after.unwrap_or(Duration::ZERO));
        self.closed = Some(Closed { probe_at: now + wait, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn ten_failures_close_it_and_pauses_double_up_to_the_limit() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings::DOCUMENTED);
        for _ in 0..9 {
            gate.failed(start, None);
            assert_eq!(gate.probe_at(), None);
        }
        gate.failed(start, None);
        let mut now = start + secs(5);
        assert_eq!(gate.probe_at(), Some(now));
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            gate.failed(now, None);
            now += secs(pause);
            assert_eq!(gate.probe_at(), Some(now));
        }
        assert!(gate.succeeded());
        assert_eq!(gate.probe_at(), None);
        assert!(!gate.succeeded());
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings { failures: 1, ..GateSettings::DOCUMENTED });
        gate.failed(start, None);
        gate.failed(start + secs(4), None);
        assert_eq!(gate.probe_at(), Some(start + secs(5)));
    }

    #[test]
    fn the_endpoint_can_ask_for_a_longer_pause() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings { failures: 1, ..GateSettings::DOCUMENTED });
        gate.failed(start, Some(secs(60)));
        assert_eq!(gate.probe_at(), Some(start + secs(60)));
    }
}
