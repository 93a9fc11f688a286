//! What became of each datagram, as metrics.
//!
//! At rest, for each protocol: received = stored + shed + duplicate + malformed + unauthorised +
//! control, where control are datagrams that carry no message of a device: pings, resets,
//! acknowledgements, all but the last block of an upload, requests that are not telemetry.

use metrics::{Counter, Gauge, counter, gauge};
use vocabulary::Protocol;

use crate::listeners::Place;
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

    /// Counts a datagram of LwM2M by what it led to, unless the endpoint has told its fate.
    pub(crate) fn lwm2m_datagram(
        &self,
        (coap_before, before): &(coap::Counters, lwm2m::Counters),
        (coap, now): &(coap::Counters, lwm2m::Counters),
    ) {
        let name = self.protocol.as_str();
        if now.overflowed > before.overflowed {
            message_counter(name, "shed", "overflowed").increment(1);
        } else if coap.requests + coap.responses > coap_before.requests + coap_before.responses {
            if now.overloaded > before.overloaded {
                message_counter(name, "shed", "overloaded").increment(1);
            } else if now.refused_name > before.refused_name {
                self.malformed("endpoint_name", 1);
            } else if now.refused > before.refused {
                self.malformed("request", 1);
            } else if now.notifications_unreadable > before.notifications_unreadable {
                self.malformed("notification", 1);
            } else {
                self.control.increment(1);
            }
        }
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
pub(crate) struct CoapMetrics {
    protocol: Protocol,
    seen: coap::Counters,
    /// Whether an answer is a datagram without a message. In LwM2M it may be a notification.
    answers_are_control: bool,
}

impl CoapMetrics {
    /// Of an endpoint that serves `protocol`.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self { protocol, seen: coap::Counters::default(), answers_are_control: true }
    }

    /// Of an endpoint under an LwM2M server, which tells what became of requests and answers.
    pub(crate) fn of_lwm2m() -> Self {
        Self { answers_are_control: false, ..Self::new(Protocol::Lwm2m) }
    }

    /// Adds what happened since the last update.
    pub(crate) fn update(&mut self, counters: &coap::Counters) {
        for (name, grown) in grown(self.seen.entries(), counters.entries()) {
            let protocol = self.protocol.as_str();
            counter!("simgate_coap_total", "protocol" => protocol, "event" => name)
                .increment(grown);
            let is_told = self.answers_are_control || name != "responses";
            if let Some(outcome) = outcome(name).filter(|_| is_told) {
                message_counter(protocol, outcome, name).increment(grown);
            }
        }
        self.seen = *counters;
    }
}

/// Carries the counters of an LwM2M server to the metrics.
#[derive(Default)]
pub(crate) struct Lwm2mMetrics {
    seen: lwm2m::Counters,
}

impl Lwm2mMetrics {
    /// Counts what became of values that came as the answer to a request of ours, or beside
    /// others in one datagram: it is the fate of no datagram.
    pub(crate) fn receipt(&self, receipt: &Receipt) {
        let event = match receipt {
            Receipt::Stored => "values_stored",
            Receipt::Duplicate => return,
            Receipt::Unauthorised(_) | Receipt::Unavailable { .. } => "values_not_stored",
        };
        counter!("simgate_lwm2m_total", "event" => event).increment(1);
    }

    /// Adds what happened since the last update.
    pub(crate) fn update(&mut self, counters: &lwm2m::Counters) {
        for (name, grown) in grown(self.seen.entries(), counters.entries()) {
            counter!("simgate_lwm2m_total", "event" => name).increment(grown);
        }
        self.seen = *counters;
    }
}

/// What grew between two readings of the same counters, and by how much.
fn grown(
    before: impl Iterator<Item = (&'static str, u64)>,
    now: impl Iterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = (&'static str, u64)> {
    let grown = now.zip(before).map(|((name, now), (_, before))| (name, now - before));
    grown.filter(|(_, grown)| *grown > 0)
}

/// Carries the numbers of a DTLS engine to the metrics.
pub(crate) struct DtlsMetrics {
    seen: dtls::Counters,
    awake: Gauge,
    asleep: Gauge,
    half_open: Gauge,
}

impl DtlsMetrics {
    pub(crate) fn new(place: Place) -> Self {
        let labels =
            [("listener", place.listener.to_string()), ("socket", place.index.to_string())];
        let sessions = |state: &'static str| {
            let mut labels = labels.to_vec();
            labels.push(("state", state.to_owned()));
            gauge!("simgate_dtls_sessions", &labels)
        };
        Self {
            seen: dtls::Counters::default(),
            awake: sessions("awake"),
            asleep: sessions("asleep"),
            half_open: gauge!("simgate_dtls_half_open", &labels),
        }
    }

    /// Adds what happened since the last update, and shows how things are.
    pub(crate) fn update(&mut self, engine: &dtls::Engine) {
        let counters = engine.counters();
        for (name, grown) in grown(self.seen.entries(), counters.entries()) {
            counter!("simgate_dtls_total", "event" => name).increment(grown);
        }
        self.seen = counters;
        let set = |gauge: &Gauge, count: usize| {
            gauge.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        };
        set(&self.awake, engine.awake());
        set(&self.asleep, engine.sessions() - engine.awake());
        set(&self.half_open, engine.half_open());
    }
}

/// Only the outcomes that have reasons get the label: to Prometheus an empty label is none, so that
/// the series would stand there twice.
fn message_counter(protocol: &'static str, outcome: &'static str, event: &'static str) -> Counter {
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
            "download_parts",
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
