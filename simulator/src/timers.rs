//! Many timers that are mostly never needed: a wheel of buckets, one for each 10 ms.
//!
//! A timer is not cancelled; who asks for what has expired checks whether it still matters.

use std::time::Duration;

/// How exact a timer is: small beside the 2 s of RFC 7252's first retransmission.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Buckets of the wheel, 82 s: more than the 48 s of the last and longest time-out of RFC 7252.
/// What is due later is put into the last bucket, and set again by its owner when that expires.
const BUCKETS: u64 = 8_192;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Timers {
    buckets: Vec<Vec<u64>>,
    /// The first tick that has not expired.
    next_tick: u64,
}

impl Timers {
    /// An empty wheel at the beginning of time.
    pub(crate) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        Self { buckets, next_tick: 0 }
    }

    /// Lets `key` expire at `due`, or a little later.
    pub(crate) fn set(&mut self, key: u64, due: Duration) {
        let last = self.next_tick + BUCKETS - 1;
        let tick = (tick_of(due) + 1).clamp(self.next_tick, last);
        self.bucket(tick).push(key);
    }

    /// Appends what has expired by `now` to `expired`.
    pub(crate) fn expire(&mut self, now: Duration, expired: &mut Vec<u64>) {
        let now = tick_of(now);
        // One round of the wheel meets every bucket.
        let end = now.min(self.next_tick + BUCKETS - 1);
        while self.next_tick <= end {
            let tick = self.next_tick;
            expired.append(self.bucket(tick));
            self.next_tick += 1;
        }
        self.next_tick = self.next_tick.max(now + 1);
    }

    fn bucket(&mut self, tick: u64) -> &mut Vec<u64> {
        // The remainder is below BUCKETS, which fits any usize.
        &mut self.buckets[(tick % BUCKETS) as usize]
    }
}

fn tick_of(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn expired(timers: &mut Timers, now: Duration) -> Vec<u64> {
        let mut expired = Vec::new();
        timers.expire(now, &mut expired);
        expired
    }

    #[test]
    fn timers_expire_once_at_their_time_and_never_before() {
        let mut timers = Timers::new();
        timers.set(1, ms(25));
        timers.set(2, ms(2_000));
        assert!(expired(&mut timers, ms(24)).is_empty());
        assert!(expired(&mut timers, ms(29)).is_empty());
        assert_eq!(expired(&mut timers, ms(30)), [1]);
        assert!(expired(&mut timers, ms(1_999)).is_empty());
        assert_eq!(expired(&mut timers, ms(2_010)), [2]);
    }

    #[test]
    fn what_is_due_beyond_the_wheel_expires_early_but_not_at_once() {
        let mut timers = Timers::new();
        timers.set(1, ms(300_000));
        assert!(expired(&mut timers, ms(80_000)).is_empty());
        assert_eq!(expired(&mut timers, ms(82_000)), [1]);
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut timers = Timers::new();
        for key in 0..100 {
            timers.set(key, ms(key * 500));
        }
        assert_eq!(expired(&mut timers, ms(10_000_000)).len(), 100);
        timers.set(7, ms(10_000_005));
        assert_eq!(expired(&mut timers, ms(10_000_010)), [7]);
    }
}
