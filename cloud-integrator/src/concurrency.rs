//! How many attempts an endpoint takes at the same time, found by trying. Pure.
//!
//! As congestion control does it (RFC 5681): few at first; one more for each success until the
//! first sign of trouble, after that one more for each round; by a part fewer when the endpoint
//! answers late, throttles, or takes much longer than it once did for the same. A limit that is
//! not used does not grow.

use std::time::Instant;

/// A limit that follows the endpoint.
#[derive(Debug)]
pub(crate) struct Concurrency {
    most: usize,
    limit: f64,
    /// Doubling still: no sign of trouble yet.
    is_probing: bool,
    /// The shortest round trip, as far as it is still believed, in seconds.
    best: Option<f64>,
    smoothed: f64,
    /// Attempts that began before say nothing about the limit as it is now.
    decreased_at: Option<Instant>,
    /// Decreases in a row for slowness, and how slow the first one was.
    slow_in_a_row: u32,
}

/// So many at first: more than one, so that a slow answer does not hold up all.
const FIRST: f64 = 4.0;
/// What is left of the limit after a sign of trouble, and after one of slowness.
const AFTER_TROUBLE: f64 = 0.7;
const AFTER_SLOWNESS: f64 = 0.85;
/// The share of a new round trip in the smoothed one: RFC 6298 §2 has an eighth.
const GAIN: f64 = 0.125;
/// Slow is what takes twice the best and 5 ms more: below that it is the machine's own noise.
const SLOW_TIMES: f64 = 2.0;
const SLOW_MORE: f64 = 0.005;
/// After so many decreases that did not make it faster, the endpoint is believed to be as slow as
/// it is: 0.85^5 is less than half.
const SLOW_BELIEVED: u32 = 5;

impl Concurrency {
    /// A limit between 1 and `most`.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            most,
            limit: FIRST.min(most as f64),
            is_probing: true,
            best: None,
            smoothed: 0.0,
            decreased_at: None,
            slow_in_a_row: 0,
        }
    }

    /// Attempts at the same time.
    pub(crate) fn limit(&self) -> usize {
        // At least 1 and at most `most`: it fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it fits")]
        let limit = self.limit as usize;
        limit.clamp(1, self.most)
    }

    /// An attempt succeeded that began at `begun`; `is_full` if as many ran as may.
    pub(crate) fn succeeded(&mut self, begun: Instant, now: Instant, is_full: bool) {
        let round_trip = now.saturating_duration_since(begun).as_secs_f64();
        let Some(best) = self.best else {
            (self.best, self.smoothed) = (Some(round_trip), round_trip);
            return;
        };
        self.smoothed += (round_trip - self.smoothed) * GAIN;
        let best = best.min(round_trip);
        self.best = Some(best);
        if self.smoothed > best * SLOW_TIMES + SLOW_MORE {
            if is_full {
                self.slowed(begun, now);
            }
        } else if is_full {
            self.slow_in_a_row = 0;
            self.limit += if self.is_probing { 1.0 } else { 1.0 / self.limit };
            self.limit = self.limit.min(self.most as f64);
        }
    }

    /// An attempt that began at `begun` ended late, or was refused because there are too many.
    pub(crate) fn overloaded(&mut self, begun: Instant, now: Instant) {
        self.decrease(AFTER_TROUBLE, begun, now);
    }

    fn slowed(&mut self, begun: Instant, now: Instant) {
        if !self.decrease(AFTER_SLOWNESS, begun, now) {
            return;
        }
        self.slow_in_a_row += 1;
        if self.slow_in_a_row >= SLOW_BELIEVED {
            self.best = Some(self.smoothed);
            self.slow_in_a_row = 0;
        }
    }

    /// Once for all attempts that ran together.
    fn decrease(&mut self, factor: f64, begun: Instant, now: Instant) -> bool {
        if self.decreased_at.is_some_and(|at| begun < at) {
            return false;
        }
        self.is_probing = false;
        self.decreased_at = Some(now);
        self.limit = (self.limit.min(self.most as f64) * factor).max(1.0);
        true
    }

    /// The smoothed round trip.
    #[cfg(test)]
    fn round_trip(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.smoothed)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// An endpoint that works on `workers` requests at a time, each for `service`; what comes
    /// beyond waits, or is refused at once.
    struct Endpoint {
        workers: usize,
        service: Duration,
        refuses: bool,
        /// When each worker is free again.
        free: BinaryHeap<Reverse<Instant>>,
    }

    impl Endpoint {
        fn new(workers: usize, service: Duration, refuses: bool) -> Self {
            Self { workers, service, refuses, free: BinaryHeap::new() }
        }

        /// When a request that comes now is answered, and whether with success.
        fn ask(&mut self, now: Instant) -> (Instant, bool) {
            while self.free.peek().is_some_and(|Reverse(at)| *at <= now) {
                self.free.pop();
            }
            if self.free.len() < self.workers {
                self.free.push(Reverse(now + self.service));
                return (now + self.service, true);
            }
            if self.refuses {
                return (now + Duration::from_millis(1), false);
            }
            // As many as there are workers are remembered: the soonest of them takes it.
            let Some(Reverse(soonest)) = self.free.pop() else { return (now, false) };
            let end = soonest + self.service;
            self.free.push(Reverse(end));
            (end, true)
        }
    }

    struct Simulation {
        concurrency: Concurrency,
        now: Instant,
        /// End, begin, success.
        running: BinaryHeap<Reverse<(Instant, Instant, bool)>>,
        answered: usize,
        /// Requests that time out.
        time_out: Duration,
    }

    impl Simulation {
        fn new(most: usize) -> Self {
            Self {
                concurrency: Concurrency::new(most),
                now: Instant::now(),
                running: BinaryHeap::new(),
                answered: 0,
                time_out: Duration::from_secs(20),
            }
        }

        /// Always as many as may, for so long.
        fn run(&mut self, endpoint: &mut Endpoint, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                while self.running.len() < self.concurrency.limit() {
                    let (at, succeeds) = endpoint.ask(self.now);
                    let late = self.now + self.time_out;
                    self.running.push(Reverse((at.min(late), self.now, succeeds && at <= late)));
                }
                let is_full = self.running.len() >= self.concurrency.limit();
                let Some(Reverse((at, begun, succeeds))) = self.running.pop() else { break };
                self.now = at.max(self.now);
                if succeeds {
                    self.answered += 1;
                    self.concurrency.succeeded(begun, self.now, is_full);
                } else {
                    self.concurrency.overloaded(begun, self.now);
                }
                assert!((1..=self.concurrency.most).contains(&self.concurrency.limit()));
            }
        }
    }

    #[test]
    fn it_starts_with_few_and_grows_to_its_most_where_nothing_speaks_against() {
        let mut simulation = Simulation::new(64);
        assert_eq!(simulation.concurrency.limit(), 4);
        let mut endpoint = Endpoint::new(1_000, Duration::from_millis(50), false);
        simulation.run(&mut endpoint, Duration::from_millis(400));
        assert_eq!(simulation.concurrency.limit(), 64, "doubling takes eight rounds at most");
        assert_eq!(Concurrency::new(2).limit(), 2);
    }

    #[test]
    fn an_endpoint_that_refuses_more_than_it_can_is_used_well_and_not_much_beyond() {
        let mut endpoint = Endpoint::new(20, Duration::from_millis(40), true);
        let mut simulation = Simulation::new(256);
        simulation.run(&mut endpoint, Duration::from_secs(5));
        let limit = simulation.concurrency.limit();
        assert!((12..=21).contains(&limit), "{limit}");
        let before = simulation.answered;
        simulation.run(&mut endpoint, Duration::from_secs(10));
        // 20 workers at 40 ms: 5,000 in ten seconds.
        let answered = simulation.answered - before;
        assert!(answered >= 3_700, "{answered}");
    }

    #[test]
    fn a_queue_at_the_endpoint_stays_short_and_its_workers_busy() {
        let mut endpoint = Endpoint::new(10, Duration::from_millis(40), false);
        let mut simulation = Simulation::new(256);
        simulation.run(&mut endpoint, Duration::from_secs(20));
        let before = simulation.answered;
        simulation.run(&mut endpoint, Duration::from_secs(10));
        let limit = simulation.concurrency.limit();
        assert!((10..=40).contains(&limit), "{limit}");
        let answered = simulation.answered - before;
        assert!(answered >= 2_300, "{answered} of 2,500");
        assert!(simulation.concurrency.round_trip() < Duration::from_millis(170));
    }

    #[test]
    fn it_recovers_when_the_endpoint_does() {
        let mut endpoint = Endpoint::new(32, Duration::from_millis(20), false);
        let mut simulation = Simulation::new(32);
        simulation.run(&mut endpoint, Duration::from_secs(2));
        assert_eq!(simulation.concurrency.limit(), 32);
        // A database behind it is ill: everything takes longer than we wait.
        let mut ill = Endpoint::new(32, Duration::from_secs(30), false);
        simulation.run(&mut ill, Duration::from_secs(120));
        assert!(simulation.concurrency.limit() <= 8, "{}", simulation.concurrency.limit());
        let mut endpoint = Endpoint::new(32, Duration::from_millis(20), false);
        simulation.run(&mut endpoint, Duration::from_secs(30));
        assert!(simulation.concurrency.limit() >= 30, "{}", simulation.concurrency.limit());
    }

    #[test]
    fn an_endpoint_that_became_slower_for_good_is_believed() {
        let mut simulation = Simulation::new(64);
        simulation.run(&mut Endpoint::new(64, Duration::from_millis(5), false), secs(1));
        simulation.run(&mut Endpoint::new(64, Duration::from_millis(300), false), secs(120));
        assert!(simulation.concurrency.limit() >= 55, "{}", simulation.concurrency.limit());
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            most in 1_usize..300,
            workers in 1_usize..100,
            millis in 1_u64..2_000,
            refuses in any::<bool>(),
        ) {
            let mut endpoint = Endpoint::new(workers, Duration::from_millis(millis), refuses);
            let mut simulation = Simulation::new(most);
            simulation.run(&mut endpoint, Duration::from_millis(millis * 50));
            prop_assert!(simulation.answered > 0);
        }

        #[test]
        fn a_limit_that_is_not_used_does_not_grow(count in 1_usize..200) {
            let mut concurrency = Concurrency::new(100);
            let begun = Instant::now();
            for _ in 0..count {
                concurrency.succeeded(begun, begun + secs(1), false);
            }
            prop_assert_eq!(concurrency.limit(), 4);
        }
    }
}
