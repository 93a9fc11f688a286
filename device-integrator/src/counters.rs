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
        let outcome = |outcome: &'static str| {
            counter!(MESSAGES, "protocol" => name, "outcome" => outcome)
        };
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

    pub(crate) fn duplicates(&self, count: u64) {
        self.duplicate.increment(count);
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
