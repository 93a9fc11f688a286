//! What a forwarder counts, for the operator.

use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};

use crate::sink::FailureClass;

/// The figures of one integration, under its id.
pub(crate) struct Meters {
    id: String,
    /// Events that the endpoint confirmed.
    pub(crate) delivered: Counter,
    /// Attempts that failed and will be made again.
    pub(crate) retried: Counter,
    /// Records that no release of this age can read; passed over.
    pub(crate) unreadable: Counter,
    /// Messages that their template could not translate; not pushed.
    pub(crate) untranslated: Counter,
    /// Forwarders that ended by a fault of ours and were started again.
    pub(crate) faults: Counter,
    /// Events that were given up.
    pub(crate) dead: Counter,
    /// Records whose retention ended before they could be delivered, wanted or not.
    pub(crate) expired: Counter,
    in_flight: Gauge,
    lag: Gauge,
    down: Gauge,
    limit: Gauge,
    oldest_age_secs: Gauge,
}

/// How a forwarder fares at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Levels {
    /// Attempts that run, and how many may.
    pub(crate) in_flight: usize,
    pub(crate) limit: usize,
    /// Records of the log that are not done.
    pub(crate) lag_records: u64,
    /// Whether the endpoint counts as down.
    pub(crate) is_down: bool,
    /// How long ago the gateway accepted the oldest event that waits.
    pub(crate) oldest_age: Duration,
}

impl Meters {
    pub(crate) fn new(id: &str) -> Self {
        let count = |name: &'static str| counter!(name, "integration" => id.to_owned());
        let level = |name: &'static str| gauge!(name, "integration" => id.to_owned());
        Self {
            id: id.to_owned(),
            delivered: count("simgate_push_delivered_total"),
            retried: count("simgate_push_retried_total"),
            unreadable: count("simgate_push_unreadable_total"),
            untranslated: count("simgate_push_untranslated_total"),
            faults: count("simgate_push_faults_total"),
            dead: count("simgate_push_dead_letters_total"),
            expired: count("simgate_push_expired_total"),
            in_flight: level("simgate_push_in_flight"),
            lag: level("simgate_push_lag_records"),
            down: level("simgate_push_endpoint_down"),
            limit: level("simgate_push_concurrency_limit"),
            oldest_age_secs: level("simgate_push_oldest_age_seconds"),
        }
    }

    /// An attempt that failed, by what failed.
    pub(crate) fn failure(&self, class: FailureClass) {
        let labels = [("integration", self.id.clone()), ("class", class.as_str().to_owned())];
        counter!("simgate_push_failures_total", &labels).increment(1);
    }

    /// How it fares now.
    pub(crate) fn levels(&self, levels: Levels) {
        // Gauges are floating point; the loss above 2^53 is of no interest.
        self.in_flight.set(levels.in_flight as f64);
        self.limit.set(levels.limit as f64);
        self.lag.set(levels.lag_records as f64);
        self.down.set(f64::from(u8::from(levels.is_down)));
        self.oldest_age_secs.set(levels.oldest_age.as_secs_f64());
    }
}
