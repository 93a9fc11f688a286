//! How a forwarder behaves.

use std::time::Duration;

use crate::delivery_options::{
    BatchOptions, CONCURRENCY_MAX, DeliveryOptions, Order, RetryProfile,
};
use crate::policy::RetryPolicy;
use crate::window::{Rules, WindowLimits};

/// How a forwarder behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwarderSettings {
    /// What each of its lanes holds.
    pub window: WindowLimits,
    /// Attempts at the same time at most, of all lanes together.
    pub concurrency_max: usize,
    /// Which events wait for each other.
    pub order: Order,
    /// Several events in one attempt.
    pub batch: Option<BatchOptions>,
    /// How it answers failures.
    pub retry: RetryPolicy,
    /// The same for integrations that are to behave as in 1NCE OS.
    pub retry_compat_1nce: RetryPolicy,
    /// The same for events that are replayed.
    pub retry_replay: RetryPolicy,
    /// After so long without any success while the endpoint counts as down, the integration fails.
    pub disable_after: Duration,
    /// The least time between two writes of its cursor.
    pub save_interval: Duration,
}

/// A window for batches holds so many for each attempt: what flies, and what fills the next one.
const BATCHES_HELD: usize = 2;
/// But not more records and bytes than this: of 100 integrations not all have large windows.
const BATCHED_RECORDS_MAX: usize = 32_768;
const BATCHED_BYTES: usize = 32 << 20;
/// The replays' windows are smaller: they are slow on purpose.
const REPLAY_RECORDS: usize = 1_024;

impl Default for ForwarderSettings {
    /// 4,096 records or 8 MB are a quarter of a second at the rate that one integration must
    /// reach. 200 ms between saves bound what a crash repeats to some thousand messages, at five
    /// small writes a second. Events that failed may hold three times as much again.
    ///
    /// One device may hold a 64th of the records and, since a message can have 64 KiB, a 16th of
    /// the bytes. 16,384 deferred records are four and a half hours of a device that fails and
    /// sends once a second; in the cursor they are some 16 KiB for each write.
    fn default() -> Self {
        Self {
            window: WindowLimits {
                records: 4_096,
                bytes: 8 << 20,
                device_records: 64,
                device_bytes: 512 << 10,
                deferred: 16_384,
            },
            concurrency_max: CONCURRENCY_MAX,
            order: Order::Device,
            batch: None,
            retry: RetryPolicy::standard(),
            retry_compat_1nce: RetryPolicy::compat_1nce(),
            retry_replay: RetryPolicy::replay(),
            disable_after: Duration::from_secs(5 * 24 * 3_600),
            save_interval: Duration::from_millis(200),
        }
    }
}

impl ForwarderSettings {
    /// What a customer chose, within what the gateway's `base` allows.
    pub fn for_integration(options: &DeliveryOptions, base: &Self) -> Self {
        let concurrency_max = options.concurrency_max.min(base.concurrency_max).max(1);
        let mut window = base.window;
        if let Some(BatchOptions { events, .. }) = options.batch.filter(|batch| batch.events > 1) {
            let records = events.saturating_mul(concurrency_max).saturating_mul(BATCHES_HELD);
            window.records = window.records.max(records.min(BATCHED_RECORDS_MAX));
            window.bytes = window.bytes.max(BATCHED_BYTES);
            window.device_records = window.device_records.max(events);
        }
        let retry = match options.retry {
            RetryProfile::Standard => base.retry.clone(),
            RetryProfile::Compat1nce => base.retry_compat_1nce.clone(),
        };
        let (order, batch) = (options.order, options.batch);
        Self { window, concurrency_max, order, batch, retry, ..base.clone() }
    }

    /// The rules of lanes that lead forward.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            limits: self.window,
            policy: self.retry.clone(),
            order: self.order,
            batch: self.batch.unwrap_or(Rules::SINGLE),
        }
    }

    /// The rules of replays.
    pub(super) fn replay_rules(&self) -> Rules {
        let records = self.window.records.min(REPLAY_RECORDS);
        let limits = WindowLimits { records, ..self.window };
        Rules { limits, policy: self.retry_replay.clone(), ..self.rules() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customers_choice_lies_within_the_gateways_limits() {
        let base = ForwarderSettings { concurrency_max: 100, ..ForwarderSettings::default() };
        let options = DeliveryOptions {
            order: Order::None,
            retry: RetryProfile::Compat1nce,
            batch: Some(BatchOptions { events: 100, wait: Duration::from_millis(50) }),
            concurrency_max: 200,
        };
        let settings = ForwarderSettings::for_integration(&options, &base);
        assert_eq!(settings.concurrency_max, 100);
        assert_eq!(settings.window.records, 20_000);
        assert_eq!(settings.retry, RetryPolicy::compat_1nce());
        assert_eq!(settings.rules().batch.events, 100);
        let plain = ForwarderSettings::for_integration(&DeliveryOptions::default(), &base);
        assert_eq!((plain.window, plain.retry), (base.window, RetryPolicy::standard()));
    }
}
