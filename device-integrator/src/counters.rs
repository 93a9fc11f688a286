//! What became of each datagram, as metrics.
//!
//! At rest, for each protocol: received = stored + shed + duplicate + malformed + unauthorised +
//! control, where control are datagrams that carry no message of a device: pings, resets,
//! acknowledgements, all but the last block of an upload, requests that are not telemetry.

use metrics::{Counter, counter};
use vocabulary::Protocol;

use crate::uplink::{Receipt, Shed};

const MESSAGES: &str = "simgate_messages_total";

/// The counters of one protocol. Cheap to count with: each is one atomic addition.
#[derive(Clone)]
pub(crate) struct Counters {
    protocol: Protocol,
    pub(crate) received: Counter,
    pub(crate) control: Counter,
    stored: Counter,
    duplicate: Counter,
    unauthorised: Counter,
    shed: [Counter; Shed::ALL.len()],
}

impl Counters {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let name = protocol.as_str();
        let outcome =
            |outcome: &'static str| counter!(MESSAGES, "protocol" => name, "outcome" => outcome);
        let shed = |reason: Shed| {
            counter!(
                MESSAGES, "protocol" => name, "outcome" => "shed", "reason" => reason.as_str()
            )
        };
        Self {
            protocol,
            received: counter!("simgate_datagrams_received_total", "protocol" => name),
            control: outcome("control"),
            stored: outcome("stored"),
            duplicate: outcome("duplicate"),
            unauthorised: outcome("unauthorised"),
            shed: Shed::ALL.map(shed),
        }
    }

    /// Malformed datagrams are rare enough to look the counter up.
    pub(crate) fn malformed(&self, reason: &'static str, count: u64) {
        counter!(
            MESSAGES,
            "protocol" => self.protocol.as_str(), "outcome" => "malformed", "reason" => reason
        )
        .increment(count);
    }

    pub(crate) fn receipt(&self, receipt: &Receipt) {
        match receipt {
            Receipt::Stored => self.stored.increment(1),
            Receipt::Duplicate => self.duplicate.increment(1),
            Receipt::Unauthorised(_) => self.unauthorised.increment(1),
            Receipt::Unavailable { reason, .. } => {
                if let Some(index) = Shed::ALL.iter().position(|other| other == reason) {
                    self.shed[index].increment(1);
                }
            }
        }
    }
}

/// Carries the counters of a CoAP endpoint to the metrics: what never becomes an uplink.
#[derive(Default)]
pub(crate) struct CoapMetrics {
    seen: coap::Counters,
}

impl CoapMetrics {
    /// Adds what happened since the last update.
    pub(crate) fn update(&mut self, counters: &coap::Counters) {
        let seen = self.seen.entries();
        for ((name, now), (_, before)) in counters.entries().zip(seen) {
            let grown = now - before;
            if grown == 0 {
                continue;
            }
            counter!("simgate_coap_total", "event" => name).increment(grown);
            if let Some(outcome) = outcome(name) {
                message_counter(outcome, name).increment(grown);
            }
        }
        self.seen = *counters;
    }
}

/// Only the outcomes that have reasons get the label: to Prometheus an empty label is none, so that
/// the series would stand there twice.
fn message_counter(outcome: &'static str, event: &'static str) -> Counter {
    let protocol = Protocol::Coap.as_str();
    match outcome {
        "malformed" | "shed" => {
            counter!(MESSAGES, "protocol" => protocol, "outcome" => outcome, "reason" => event)
        }
        _ => counter!(MESSAGES, "protocol" => protocol, "outcome" => outcome),
    }
}

/// The fate of a datagram that the endpoint counted as `event`; `None` where the datagram is
/// counted by its receipt, or where the event is no datagram.
fn outcome(event: &str) -> Option<&'static str> {
    match event {
        "duplicates_answered" | "duplicates_pending" => Some("duplicate"),
        "overflowed" => Some("shed"),
        "acknowledgements"
        | "acknowledgements_unknown"
        | "resets"
        | "resets_unknown"
        | "pings"
        | "responses"
        | "responses_stale"
        | "responses_unknown"
        | "responses_rejected"
        | "upload_blocks"
        | "download_blocks"
        | "ignored" => Some("control"),
        event if event.starts_with("malformed_") || event.starts_with("rejected_") => {
            Some("malformed")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_of_the_endpoint_has_a_fate() {
        let one_of_each = coap::Counters::default();
        let not_datagrams = [
            "received",
            "requests",
            "exchanges_evicted",
            "uploads_aborted",
            "downloads_evicted",
            "retransmissions",
            "timeouts",
            "confirmables_demoted",
            "responses_suppressed",
            "observations_refused",
        ];
        for (event, _) in one_of_each.entries() {
            assert_eq!(outcome(event).is_none(), not_datagrams.contains(&event), "{event}");
        }
    }
}
