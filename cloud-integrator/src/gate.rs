//! Keeps a failing endpoint from being hammered. Pure.
//!
//! When its failures say that the endpoint as a whole is down, the gate closes: from then on only
//! one attempt at a time, with growing pauses, until one succeeds (docs/delivery.md, Success and
//! retry).

use std::time::{Duration, Instant};

/// When an endpoint counts as down, and how it is probed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// Failures in a row that close the gate.
    pub failures: u32,
    /// It also closes when all attempts of so long a time failed...
    pub all_failed_time: Duration,
    /// ...and were at least so many; 4 at most are remembered.
    pub all_failed_min: usize,
    /// The pause before the first probe; it doubles with each probe that fails.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl GateSettings {
    /// What docs/delivery.md promises.
    pub const DOCUMENTED: Self = Self {
        failures: 10,
        all_failed_time: Duration::from_secs(60),
        all_failed_min: 3,
        pause_min: Duration::from_secs(5),
        pause_max: Duration::from_secs(300),
    };
}

/// The last failures are remembered by their moments.
const REMEMBERED: usize = 4;

/// Whether an endpoint may be tried.
#[derive(Debug)]
pub(crate) struct Gate {
    settings: GateSettings,
    failures_in_a_row: u32,
    /// The last failures since the last success that say something about the endpoint as a whole,
    /// the newest first.
    last_failures: [Option<Instant>; REMEMBERED],
    last_success: Option<Instant>,
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    probe_at: Instant,
    pause: Duration,
}

impl Gate {
    pub(crate) fn new(settings: GateSettings) -> Self {
        Self {
            settings,
            failures_in_a_row: 0,
            last_failures: [None; REMEMBERED],
            last_success: None,
            closed: None,
        }
    }

    /// Closes it from the start: the endpoint was down when the gateway ended, and may be probed
    /// at once.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closed = Some(Closed { probe_at: now, pause: self.settings.pause_min });
    }

    /// When the next probe is due; `None` while the gate is open.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.closed.map(|closed| closed.probe_at)
    }

    /// A success. Says whether it opened the gate.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        self.failures_in_a_row = 0;
        self.last_failures = [None; REMEMBERED];
        self.last_success = Some(now);
        self.closed.take().is_some()
    }

    /// A failure; `after` is the wait that the endpoint asked for. One that blames the events
    /// themselves counts only among failures in a row.
    pub(crate) fn failed(&mut self, now: Instant, after: Option<Duration>, blames_events: bool) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if !blames_events {
            self.last_failures.rotate_right(1);
            self.last_failures[0] = Some(now);
        }
        let pause = match self.closed {
            // An attempt from before the gate closed: it says nothing new.
            Some(closed) if now < closed.probe_at => return,
            Some(closed) => (closed.pause * 2).min(self.settings.pause_max),
            None if self.looks_down(now) => self.settings.pause_min,
            None => return,
        };
        let wait = pause.max(after.unwrap_or(Duration::ZERO));
        self.closed = Some(Closed { probe_at: now + wait, pause });
    }

    fn looks_down(&self, now: Instant) -> bool {
        if self.failures_in_a_row >= self.settings.failures {
            return true;
        }
        let is_recent =
            |moment: Instant| now.saturating_duration_since(moment) < self.settings.all_failed_time;
        let nth = self.settings.all_failed_min.clamp(1, REMEMBERED) - 1;
        self.last_failures[nth].is_some_and(is_recent) && !self.last_success.is_some_and(is_recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the second rule.
    const IN_A_ROW: GateSettings =
        GateSettings { all_failed_time: Duration::ZERO, ..GateSettings::DOCUMENTED };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn ten_failures_close_it_and_pauses_double_up_to_the_limit() {
        let start = Instant::now();
        let mut gate = Gate::new(IN_A_ROW);
        for _ in 0..9 {
            gate.failed(start, None, false);
            assert_eq!(gate.probe_at(), None);
        }
        gate.failed(start, None, true);
        let mut now = start + secs(5);
        assert_eq!(gate.probe_at(), Some(now));
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            gate.failed(now, None, false);
            now += secs(pause);
            assert_eq!(gate.probe_at(), Some(now));
        }
        assert!(gate.succeeded(now));
        assert_eq!(gate.probe_at(), None);
        assert!(!gate.succeeded(now));
    }

    #[test]
    fn three_failures_in_a_minute_close_it_unless_something_passed() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings::DOCUMENTED);
        gate.succeeded(start);
        for second in [1, 2, 3, 59] {
            gate.failed(start + secs(second), None, false);
            assert_eq!(gate.probe_at(), None, "{second}");
        }
        gate.failed(start + secs(61), None, false);
        assert_eq!(gate.probe_at(), Some(start + secs(66)));
    }

    #[test]
    fn failures_that_are_far_apart_or_blame_the_events_do_not() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings::DOCUMENTED);
        for minute in 0..9 {
            gate.failed(start + secs(31 * minute), None, minute % 2 == 0);
            assert_eq!(gate.probe_at(), None, "{minute}");
        }
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings { failures: 1, ..IN_A_ROW });
        gate.failed(start, None, false);
        gate.failed(start + secs(4), None, false);
        assert_eq!(gate.probe_at(), Some(start + secs(5)));
    }

    #[test]
    fn the_endpoint_can_ask_for_a_longer_pause() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings { failures: 1, ..IN_A_ROW });
        gate.failed(start, Some(secs(60)), false);
        assert_eq!(gate.probe_at(), Some(start + secs(60)));
    }

    #[test]
    fn an_endpoint_that_was_down_is_probed_at_once() {
        let start = Instant::now();
        let mut gate = Gate::new(GateSettings::DOCUMENTED);
        gate.close(start);
        assert_eq!(gate.probe_at(), Some(start));
        gate.failed(start, None, false);
        assert_eq!(gate.probe_at(), Some(start + secs(10)));
    }
}
