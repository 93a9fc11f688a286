//! What a forwarder counts, for the operator.

use metrics::{Counter, Gauge, counter, gauge};

use crate::sink::FailureClass;

/// The figures of one integration, under its id.
pub(crate) struct Meters {
    id: String,
    /// Events that the endpoint confirmed.
    pub(crate) delivered: Counter,
    /// Attempts that failed and will be made again.
    pub(crate) retried: Counter,
    /// Events that can never be delivered.
    pub(crate) rejected: Counter,
    /// Records that no release of this age can read; passed over.
    pub(crate) unreadable: Counter,
    /// Messages that their template could not translate; not pushed.
    pub(crate) untranslated: Counter,
    /// Forwarders that ended by a fault of ours and were started again.
    pub(crate) faults: Counter,
    in_flight: Gauge,
    lag: Gauge,
}

impl Meters {
    pub(crate) fn new(id: &str) -> Self {
        let count = |name: &'static str| counter!(name, "integration" => id.to_owned());
        let level = |name: &'static str| gauge!(name, "integration" => id.to_owned());
        Self {
            id: id.to_owned(),
            delivered: count("simgate_push_delivered_total"),
            retried: count("simgate_push_retried_total"),
            rejected: count("simgate_push_rejected_total"),
            unreadable: count("simgate_push_unreadable_total"),
            untranslated: count("simgate_push_untranslated_total"),
            faults: count("simgate_push_faults_total"),
            in_flight: level("simgate_push_in_flight"),
            lag: level("simgate_push_lag_records"),
        }
    }

    /// An attempt that failed, by what failed.
    pub(crate) fn failure(&self, class: FailureClass) {
        let labels = [("integration", self.id.clone()), ("class", class.as_str().to_owned())];
        counter!("simgate_push_failures_total", &labels).increment(1);
    }

    /// Attempts that run, and records of the log that are not done.
    pub(crate) fn levels(&self, in_flight: usize, lag_records: u64) {
        // Gauges are floating point; the loss above 2^53 is of no interest.
        self.in_flight.set(in_flight as f64);
        self.lag.set(lag_records as f64);
    }
}
