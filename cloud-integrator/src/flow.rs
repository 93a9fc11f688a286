//! What all lanes of an integration share: its endpoint, whether that may be tried, and by how
//! many attempts at the same time. Pure.

use std::time::{Duration, Instant};

use crate::concurrency::Concurrency;
use crate::gate::{Gate, GateSettings};
use crate::policy::blames_events;
use crate::sink::FailureClass;

/// What may be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Whatever is due.
    Any,
    /// One attempt, to see whether the endpoint is back.
    Probe,
}

/// The one endpoint of an integration.
#[derive(Debug)]
pub(crate) struct Flow {
    gate: Option<Gate>,
    concurrency: Concurrency,
    in_flight: usize,
}

impl Flow {
    /// An endpoint that takes up to `most` attempts at the same time. Whoever `was_down` is probed
    /// first.
    pub(crate) fn new(
        gate: Option<GateSettings>,
        most: usize,
        was_down: bool,
        now: Instant,
    ) -> Self {
        let mut gate = gate.map(Gate::new);
        if let (Some(gate), true) = (&mut gate, was_down) {
            gate.close(now);
        }
        Self { gate, concurrency: Concurrency::new(most), in_flight: 0 }
    }

    /// When the next probe is due; `None` while the endpoint counts as working.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.gate.as_ref().and_then(Gate::probe_at)
    }

    /// Whether the endpoint counts as working.
    pub(crate) fn is_open(&self) -> bool {
        self.probe_at().is_none()
    }

    /// Attempts that run now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Attempts that may run at the same time.
    pub(crate) fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// What may be started now, if anything.
    pub(crate) fn leave(&self, now: Instant) -> Option<Leave> {
        match self.probe_at() {
            Some(at) => (self.in_flight == 0 && at <= now).then_some(Leave::Probe),
            None => (self.in_flight < self.limit()).then_some(Leave::Any),
        }
    }

    /// The moment from which something may be started that waits until `due`, if nothing else
    /// happens.
    pub(crate) fn wake_at(&self, due: Option<Instant>) -> Option<Instant> {
        let due = due?;
        match self.probe_at() {
            Some(_) if self.in_flight > 0 => None,
            // Whoever waits is tried, due or not.
            Some(at) => Some(at),
            None if self.in_flight >= self.limit() => None,
            None => Some(due),
        }
    }

    /// An attempt begins.
    pub(crate) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// The attempt that began at `begun` succeeded. Says whether the endpoint is back by it.
    pub(crate) fn succeeded(&mut self, begun: Instant, now: Instant) -> bool {
        let is_full = self.in_flight >= self.limit();
        self.in_flight = self.in_flight.saturating_sub(1);
        self.concurrency.succeeded(begun, now, is_full);
        self.gate.as_mut().is_some_and(|gate| gate.succeeded(now))
    }

    /// The attempt that began at `begun` failed. Says whether the endpoint counts as down by it.
    pub(crate) fn failed(
        &mut self,
        class: FailureClass,
        after: Option<Duration>,
        begun: Instant,
        now: Instant,
    ) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        if matches!(class, FailureClass::Timeout | FailureClass::Throttled) {
            self.concurrency.overloaded(begun, now);
        }
        let Some(gate) = &mut self.gate else { return false };
        let was_open = gate.probe_at().is_none();
        gate.failed(now, after, blames_events(class));
        was_open && gate.probe_at().is_some()
    }

    /// An attempt ended without saying anything about the endpoint.
    pub(crate) fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_endpoint_is_probed_one_by_one() {
        let mut now = Instant::now();
        let gate = GateSettings { failures: 2, ..GateSettings::DOCUMENTED };
        let mut flow = Flow::new(Some(gate), 64, false, now);
        flow.begin();
        flow.begin();
        assert_eq!(flow.leave(now), Some(Leave::Any));
        assert!(!flow.failed(FailureClass::Status, None, now, now));
        assert!(flow.failed(FailureClass::Status, None, now, now));
        assert_eq!(flow.leave(now), None);
        let due = now + Duration::from_secs(3_600);
        now += Duration::from_secs(5);
        assert_eq!(flow.wake_at(Some(due)), Some(now));
        assert_eq!(flow.leave(now), Some(Leave::Probe));
        flow.begin();
        assert_eq!((flow.leave(now), flow.wake_at(Some(due))), (None, None));
        assert!(flow.succeeded(now, now));
        assert_eq!(flow.leave(now), Some(Leave::Any));
        assert_eq!(flow.wake_at(Some(due)), Some(due));
    }

    #[test]
    fn time_outs_and_throttling_leave_fewer_attempts() {
        let mut now = Instant::now();
        let mut flow = Flow::new(None, 64, true, now);
        assert!(flow.is_open());
        for class in [FailureClass::Throttled, FailureClass::Timeout] {
            let before = flow.limit();
            flow.begin();
            now += Duration::from_secs(1);
            flow.failed(class, None, now, now);
            assert!(flow.limit() < before, "{class:?}");
        }
        let before = flow.limit();
        flow.begin();
        flow.failed(FailureClass::Status, None, now, now);
        assert_eq!((flow.limit(), flow.in_flight()), (before, 0));
    }
}
