//! Which refusals are worth an entry in the administration log.
//!
//! A device with a wrong address repeats itself, and whoever can send may send from any address:
//! neither may fill the log. Memory is bounded by the two limits themselves: only admitted entries
//! are remembered, at most [`ENTRIES_PER_SECOND`] times two spans, some 12,000.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// One entry per address in this time. Long enough that a device which reports every minute
/// leaves a trace every tenth time, short enough that an operator at work sees it (estimate).
pub const SPAN_PER_ADDRESS: Duration = Duration::from_mins(10);

/// Entries of all addresses in any second. What a person can still read as it scrolls; 864,000
/// entries in the worst day (estimate).
pub const ENTRIES_PER_SECOND: usize = 10;

/// An address is forgotten this long after its entry, with the count of what was not logged.
const MEMORY_SPAN: Duration = Duration::from_mins(20);

/// Decides which refusals are logged. Not shared: whoever owns it keeps it behind its own lock.
#[derive(Debug, Default)]
pub struct RefusalLog {
    addresses: HashMap<IpAddr, Address>,
    /// Admitted entries of the last [`MEMORY_SPAN`], oldest first.
    entries: VecDeque<(Instant, IpAddr)>,
    suppressed: u64,
}

#[derive(Debug)]
struct Address {
    entry_at: Instant,
    suppressed: u64,
}

impl RefusalLog {
    /// A log that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the refusal of `ip` at `now` becomes an entry. If so, returns how many refusals of
    /// this address were not logged since its last entry (0 where that is forgotten).
    ///
    /// `now` must not go back from call to call.
    pub fn admit(&mut self, now: Instant, ip: IpAddr) -> Option<u64> {
        let ip = ip.to_canonical();
        self.forget(now);
        let is_full = self.is_full(now);
        if let Some(address) = self.addresses.get_mut(&ip) {
            let is_early = now.saturating_duration_since(address.entry_at) < SPAN_PER_ADDRESS;
            if is_early || is_full {
                address.suppressed += 1;
                self.suppressed += 1;
                return None;
            }
        } else if is_full {
            self.suppressed += 1;
            return None;
        }
        self.entries.push_back((now, ip));
        let before = self.addresses.insert(ip, Address { entry_at: now, suppressed: 0 });
        Some(before.map_or(0, |address| address.suppressed))
    }

    /// All refusals that were not logged so far.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    fn is_full(&self, now: Instant) -> bool {
        let first_of_second = self.entries.len().checked_sub(ENTRIES_PER_SECOND);
        first_of_second
            .and_then(|index| self.entries.get(index))
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) < Duration::from_secs(1))
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, ip)) = self.entries.front()
            && now.saturating_duration_since(*at) >= MEMORY_SPAN
        {
            // An address may have had a later entry, which stands further back.
            if self.addresses.get(ip).is_some_and(|address| address.entry_at == *at) {
                self.addresses.remove(ip);
            }
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    #[test]
    fn an_address_is_logged_once_per_span_with_what_was_left_out() {
        let mut log = RefusalLog::new();
        let start = Instant::now();
        assert_eq!(log.admit(start, ip(1)), Some(0));
        for second in 1..=599 {
            assert_eq!(log.admit(start + Duration::from_secs(second), ip(1)), None);
        }
        assert_eq!(log.admit(start + SPAN_PER_ADDRESS, ip(1)), Some(599));
        assert_eq!(log.suppressed(), 599);
    }

    #[test]
    fn no_second_has_more_than_ten_entries() {
        let mut log = RefusalLog::new();
        let start = Instant::now();
        let admitted = |log: &mut RefusalLog, from: u32, at| {
            (from..from + 100).filter(|number| log.admit(at, ip(*number)).is_some()).count()
        };
        assert_eq!(admitted(&mut log, 0, start), ENTRIES_PER_SECOND);
        assert_eq!(admitted(&mut log, 100, start + Duration::from_millis(999)), 0);
        assert_eq!(admitted(&mut log, 200, start + Duration::from_secs(1)), ENTRIES_PER_SECOND);
    }

    #[test]
    fn a_flood_from_ever_new_addresses_takes_bounded_memory() {
        let mut log = RefusalLog::new();
        let start = Instant::now();
        let seconds = usize::try_from(MEMORY_SPAN.as_secs()).unwrap();
        let bound = ENTRIES_PER_SECOND * (seconds + 1);
        for number in 0..200_000 {
            log.admit(start + Duration::from_millis(u64::from(number) * 20), ip(number));
            assert!(log.entries.len() <= bound && log.addresses.len() <= bound);
        }
        // 4,000 seconds of 50 refusals, of which ten a second are logged.
        assert_eq!(log.suppressed(), 160_000);
    }

    #[test]
    fn a_faulty_device_that_returns_for_days_takes_one_place() {
        let mut log = RefusalLog::new();
        let start = Instant::now();
        for round in 0..1_000 {
            log.admit(start + SPAN_PER_ADDRESS * round, ip(1));
        }
        assert!(log.entries.len() <= 3);
        assert_eq!(log.addresses.len(), 1);
    }
}
