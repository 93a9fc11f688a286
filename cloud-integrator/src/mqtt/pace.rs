//! How often something may happen: exact, and waiting rather than failing. No clock of its own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// At most so many publishes each second, the virtual scheduling form of a token bucket.
///
/// A tenth of a second's worth may go at once, so in no second are there more than 11/10 of the
/// rate: 90/s stay below the 100/s that AWS IoT Core grants a connection.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    interval: Duration,
    tolerance: Duration,
    /// When the next one is due by the rate alone.
    due_at: Instant,
}

impl Pace {
    /// `per_second` of 0 counts as 1.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = per_second.max(1);
        // Rounded up, so that the rate is never exceeded.
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(per_second)));
        let burst = (per_second / 10).max(1);
        Self { interval, tolerance: interval * (burst - 1), due_at: now }
    }

    /// How many may go now.
    pub(super) fn room(&self, now: Instant) -> usize {
        let Some(spare) = (now + self.tolerance).checked_duration_since(self.due_at.max(now))
        else {
            return 0;
        };
        let more = spare.as_nanos() / self.interval.as_nanos();
        usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Notes that `count` went now.
    pub(super) fn take(&mut self, count: usize, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.due_at = self.due_at.max(now) + self.interval * count;
    }

    /// When there is room again.
    pub(super) fn ready_at(&self) -> Instant {
        self.due_at.checked_sub(self.tolerance).unwrap_or(self.due_at)
    }
}

/// When each client was last connected, over the lives of all sinks: AWS IoT Core takes one
/// CONNECT per second and client id, and a fight over an id must not become a flood anywhere.
#[derive(Debug, Default)]
pub(super) struct Connects(HashMap<String, Instant>);

impl Connects {
    /// The moment at which `client` may connect, which is noted as used.
    pub(super) fn book(&mut self, client: &str, pause: Duration, now: Instant) -> Instant {
        self.0.retain(|_, at| *at + pause > now);
        let at = self.0.get(client).map_or(now, |last| (*last + pause).max(now));
        self.0.insert(client.to_owned(), at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_eleven_tenths_of_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(90, start);
        // Takes whatever it gets, each millisecond for three seconds.
        let mut taken = Vec::new();
        for millis in 0..3_000 {
            let now = start + Duration::from_millis(millis);
            let room = pace.room(now);
            pace.take(room, now);
            taken.extend(std::iter::repeat_n(millis, room));
        }
        assert!((270..=279).contains(&taken.len()), "{}", taken.len());
        for from in &taken {
            let within = taken.iter().filter(|at| (*from..from + 1_000).contains(at)).count();
            assert!(within <= 99, "{within} from {from} ms on");
        }
    }

    #[test]
    fn it_tells_when_there_is_room_again() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.room(start), 1);
        pace.take(1, start);
        assert_eq!(pace.room(start), 0);
        assert_eq!(pace.ready_at(), start + Duration::from_millis(100));
        assert_eq!(pace.room(pace.ready_at()), 1);
        // An idle hour saves nothing up beyond the burst.
        assert_eq!(pace.room(start + Duration::from_secs(3_600)), 1);
    }

    #[test]
    fn a_client_connects_once_a_second() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut connects = Connects::default();
        assert_eq!(connects.book("a", second, start), start);
        assert_eq!(connects.book("b", second, start), start);
        let later = start + Duration::from_millis(300);
        assert_eq!(connects.book("a", second, later), start + second);
        assert_eq!(connects.book("a", second, later), start + 2 * second);
        let much_later = start + Duration::from_secs(60);
        assert_eq!(connects.book("a", second, much_later), much_later);
        assert_eq!(connects.0.len(), 1);
    }
}
