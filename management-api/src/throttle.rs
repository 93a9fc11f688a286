//! Token buckets by key, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys remembered at once. A bucket takes about 50 bytes, so a full table takes half a megabyte.
const KEYS_MAX: usize = 10_000;
/// How often a full table is searched for buckets that have filled up again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How fast a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests per second that a key may keep up for ever.
    pub per_second: f64,
    /// Requests that a key may send at once after a pause.
    pub burst: f64,
}

/// A token bucket for each key. A key that nobody has used for long enough costs nothing.
///
/// When the table is full of buckets in use, all new keys share one bucket: an attacker with many
/// addresses slows down strangers, never those who are already known.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    rate: Rate,
    table: Mutex<Table<K>>,
}

#[derive(Debug)]
struct Table<K> {
    buckets: HashMap<K, Bucket>,
    strangers: Bucket,
    swept_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, filled_at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.filled_at = now;
    }
}

impl<K: Hash + Eq> Throttle<K> {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let strangers = Bucket::full(rate, now);
        let table = Table { buckets: HashMap::new(), strangers, swept_at: now };
        Self { rate, table: Mutex::new(table) }
    }

    /// Takes one token; without one, how long until there is one.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        self.with_bucket(key, now, |bucket| {
            if bucket.tokens >= 1.0 {
                bucket.tokens -= 1.0;
                return Ok(());
            }
            Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate.per_second))
        })
    }

    /// Takes `tokens` without asking, as far as there are any: the price of a failure.
    pub(crate) fn charge(&self, key: K, tokens: f64, now: Instant) {
        self.with_bucket(key, now, |bucket| bucket.tokens = (bucket.tokens - tokens).max(0.0));
    }

    fn with_bucket<R>(&self, key: K, now: Instant, act: impl FnOnce(&mut Bucket) -> R) -> R {
        let rate = self.rate;
        // A panic while holding the lock leaves at worst one bucket half filled.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        if table.buckets.len() >= KEYS_MAX
            && now.saturating_duration_since(table.swept_at) >= SWEEP_INTERVAL
        {
            table.swept_at = now;
            table.buckets.retain(|_, bucket| {
                bucket.fill(rate, now);
                bucket.tokens < rate.burst
            });
        }
        let full = table.buckets.len() >= KEYS_MAX;
        let bucket = if full && !table.buckets.contains_key(&key) {
            &mut table.strangers
        } else {
            table.buckets.entry(key).or_insert_with(|| Bucket::full(rate, now))
        };
        bucket.fill(rate, now);
        act(bucket)
    }
}

/// The key by which an address is throttled: IPv4 whole, IPv6 by its /64, because one customer
/// commands a whole /64 (RFC 6177 §2).
pub(crate) fn address_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10.0, burst: 3.0 };

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let throttle = Throttle::new(RATE, start);
        for _ in 0..3 {
            assert_eq!(throttle.take("a", start), Ok(()));
        }
        let wait = throttle.take("a", start).unwrap_err();
        assert!(wait <= Duration::from_millis(100));
        assert_eq!(throttle.take("b", start), Ok(()));
        assert_eq!(throttle.take("a", start + Duration::from_millis(101)), Ok(()));
    }

    #[test]
    fn a_charge_empties_a_bucket_but_leaves_no_debt() {
        let start = Instant::now();
        let throttle = Throttle::new(RATE, start);
        throttle.charge("a", 100.0, start);
        assert!(throttle.take("a", start).is_err());
        assert_eq!(throttle.take("a", start + Duration::from_millis(101)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_known_keys_keep_their_bucket() {
        let start = Instant::now();
        let throttle = Throttle::new(RATE, start);
        for key in 0..KEYS_MAX + 10 {
            let _ = throttle.take(key, start);
        }
        assert_eq!(throttle.table.lock().unwrap().buckets.len(), KEYS_MAX);
        assert_eq!(throttle.take(0, start), Ok(()));
        assert!(throttle.take(KEYS_MAX + 11, start).is_err(), "strangers share one bucket");
        let later = start + Duration::from_secs(2);
        assert_eq!(throttle.take(KEYS_MAX + 12, later), Ok(()));
        assert!(throttle.table.lock().unwrap().buckets.len() < 10);
    }

    #[test]
    fn an_ipv6_network_is_one_key() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }
}
