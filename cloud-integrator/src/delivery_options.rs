//! How the events of one integration are delivered, as far as its customer chooses.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Events in a batch at most: at 300 bytes each 300 KB, which common servers take (nginx: 1 MB).
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// The longest that an event waits for its batch to fill.
pub const BATCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// Attempts at the same time at most.
pub const CONCURRENCY_MAX: usize = 256;
/// Attempts at the same time where the customer does not say: 64 of them carry 15,000 events a
/// second up to 4 ms of round trip.
pub const CONCURRENCY_DEFAULT: usize = 64;

/// How events are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryOptions {
    /// Whether events of one device wait for each other.
    pub order: Order,
    /// How failures are answered.
    pub retry: RetryProfile,
    /// Several events in one request; `None` sends each alone.
    pub batch: Option<BatchOptions>,
    /// Attempts at the same time at most; fewer while the endpoint is slow or throttles.
    pub concurrency_max: usize,
}

/// Which events wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Event n+1 of a device waits until event n is done.
    #[default]
    Device,
    /// None: faster for few devices that send much.
    None,
}

/// How failures are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryProfile {
    /// 13 attempts in 75 hours, a breaker for the endpoint as a whole, then a dead letter.
    #[default]
    Standard,
    /// As 1NCE OS: 5 attempts in 29.5 minutes, then the integration has failed.
    #[serde(rename = "compat-1nce")]
    Compat1nce,
}

/// Several events in one request, as a JSON array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOptions {
    /// Events in a batch at most.
    pub events: usize,
    /// How long the oldest event waits for the batch to fill.
    pub wait: Duration,
}

/// Why options are refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDeliveryOptions {
    /// Too few or too many events in a batch.
    #[error("a batch of {0} events, allowed: 1 to {BATCH_EVENTS_MAX}")]
    BatchEvents(usize),
    /// Too long a wait for a batch.
    #[error("a batch that waits {} ms, allowed: 0 to {}", .0.as_millis(), BATCH_WAIT_MAX.as_millis())]
    BatchWait(Duration),
    /// A kind of integration that has no batches.
    #[error("integrations of type {0} have no batches")]
    NoBatches(&'static str),
    /// Too few or too many attempts at the same time.
    #[error("{0} attempts at the same time, allowed: 1 to {CONCURRENCY_MAX}")]
    Concurrency(usize),
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            order: Order::default(),
            retry: RetryProfile::default(),
            batch: None,
            concurrency_max: CONCURRENCY_DEFAULT,
        }
    }
}

impl DeliveryOptions {
    /// Checks what a customer chose.
    ///
    /// # Errors
    /// Where a number is out of its range.
    pub fn check(&self) -> Result<(), InvalidDeliveryOptions> {
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency_max) {
            return Err(InvalidDeliveryOptions::Concurrency(self.concurrency_max));
        }
        let Some(BatchOptions { events, wait }) = self.batch else { return Ok(()) };
        if !(1..=BATCH_EVENTS_MAX).contains(&events) {
            return Err(InvalidDeliveryOptions::BatchEvents(events));
        }
        if wait > BATCH_WAIT_MAX {
            return Err(InvalidDeliveryOptions::BatchWait(wait));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut DeliveryOptions)) -> String {
        let mut options = DeliveryOptions::default();
        options.check().unwrap();
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        let batch = |events, wait| Some(BatchOptions { events, wait });
        let text = refused(|options| options.batch = batch(0, Duration::ZERO));
        assert_eq!(text, "a batch of 0 events, allowed: 1 to 1000");
        let text = refused(|options| options.batch = batch(5, Duration::from_secs(61)));
        assert_eq!(text, "a batch that waits 61000 ms, allowed: 0 to 60000");
        let text = refused(|options| options.concurrency_max = 257);
        assert_eq!(text, "257 attempts at the same time, allowed: 1 to 256");
    }
}
