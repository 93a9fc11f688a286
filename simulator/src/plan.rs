//! What a run is to do: all settings in one place.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use thiserror::Error;

use crate::fleet::{BASE, Fleet, FleetError};
use crate::lwm2m::Lwm2m;
use crate::payload::{COUNTER_BYTES, Payload, PayloadError};
use crate::security::{KeySource, Security};

/// Most devices at once that a closed loop keeps waiting; see the limit of the exchanges.
pub const OUTSTANDING_MAX: usize = crate::exchanges::OUTSTANDING_MAX;

/// The highest rate that may be asked for, messages per second: far above what one thread sends.
pub const RATE_MAX: u64 = 10_000_000;

/// Header, token, payload marker and the headers of a few options (RFC 7252 §3): more than there
/// are in a request.
const REQUEST_OVERHEAD_BYTES: usize = 64;

/// What the devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Plain datagrams, which nobody answers.
    Udp,
    /// CoAP, confirmable: sent again until it is answered.
    CoapCon,
    /// CoAP, non-confirmable: sent once.
    CoapNon,
    /// CoAP, confirmable, over DTLS with pre-shared keys: each device has a session.
    Coaps,
    /// LwM2M: the devices register and serve their objects.
    Lwm2m,
    /// LwM2M over DTLS with pre-shared keys.
    Lwm2ms,
}

/// The method of a CoAP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// 0.01
    Get,
    /// 0.02
    Post,
    /// 0.03
    Put,
    /// 0.04
    Delete,
}

/// When the next message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// As soon as fewer than so many wait for an answer; with UDP, as fast as possible.
    Outstanding(usize),
    /// So many per second, evenly spaced, whatever is answered. Latency counts from the moment at
    /// which a message was due, so that a server that stalls does not hide it.
    PerSecond(u64),
}

/// When a confirmable message is sent again (RFC 7252 §4.8).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retransmission {
    /// `ACK_TIMEOUT`: the least time before the first repeat.
    pub ack_timeout: Duration,
    /// `ACK_RANDOM_FACTOR`: the first repeat comes at random up to so much later, at least 1.
    pub ack_random_factor: f64,
    /// `MAX_RETRANSMIT`: repeats before a message is given up.
    pub max_retransmit: u32,
}

/// All settings of a run. Nothing is checked before [`crate::run`].
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where to send.
    pub target: SocketAddrV4,
    /// The port that all devices send from; 0 takes a free one.
    pub source_port: u16,
    /// The address of the first device.
    pub base: Ipv4Addr,
    /// Number of devices.
    pub devices: u32,
    /// What they speak.
    pub protocol: Protocol,
    /// How often.
    pub load: Load,
    /// Until when; `None` is until the count is reached or the run is stopped.
    pub duration: Option<Duration>,
    /// How many messages; `None` is until the duration is over or the run is stopped.
    pub count: Option<u64>,
    /// What they send.
    pub payload: Payload,
    /// The number of the first payload.
    pub first_number: u64,
    /// CoAP: the method.
    pub method: Method,
    /// CoAP: the path, with a query where there is one. May be longer than RFC 7252 §5.10 allows,
    /// as may the topic: servers have to refuse that.
    pub path: String,
    /// CoAP: sent as `?t=`.
    pub topic: Option<String>,
    /// CoAP: length of tokens, 4 or 8 bytes.
    pub token_bytes: usize,
    /// CoAP, confirmable: when a message is sent again.
    pub retransmission: Retransmission,
    /// CoAP, non-confirmable: how long an answer is waited for.
    pub patience: Duration,
    /// CoAP over DTLS: keys and sessions.
    pub security: Security,
    /// LwM2M: what the devices do.
    pub lwm2m: Lwm2m,
    /// Malformed CoAP messages per second, besides, from addresses above the fleet's; with sessions
    /// first messages of handshakes that do not go on.
    pub garbage_per_second: u64,
    /// How long answers are waited for after the last message was sent.
    pub drain: Duration,
    /// What is random follows from it. Two runs against one server within `EXCHANGE_LIFETIME`
    /// need different seeds, or the server takes the second for repeats of the first.
    pub seed: u64,
    /// How often progress is told.
    pub progress_every: Duration,
}

/// Why a plan cannot be run.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The devices.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Nothing would be sent, or too much.
    #[error("{what} of {found} is not allowed, allowed: {least} to {most}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The least value allowed.
        least: u64,
        /// The greatest value allowed.
        most: u64,
    },
    /// LwM2M over DTLS has no other way to a key.
    #[error("LwM2M over DTLS needs a key of the devices, allowed: --psk, --psk-table")]
    NoKey,
    /// A ledger needs payloads that tell messages apart.
    #[error("a ledger needs the payload \"counter\", because its number tells messages apart")]
    LedgerPayload,
    /// A ledger that goes on must go on where it ended.
    #[error("the ledger goes on at number {expected}, the plan begins at {found}")]
    LedgerNumber {
        /// The next number of the ledger.
        expected: u64,
        /// The first number of the plan.
        found: u64,
    },
}

impl Protocol {
    /// Whether over DTLS.
    pub(crate) const fn is_secure(self) -> bool {
        matches!(self, Self::Coaps | Self::Lwm2ms)
    }

    /// Whether LwM2M.
    pub(crate) const fn is_lwm2m(self) -> bool {
        matches!(self, Self::Lwm2m | Self::Lwm2ms)
    }
}

impl Method {
    /// The code of the request (RFC 7252 §12.1.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::Get => 1,
            Self::Post => 2,
            Self::Put => 3,
            Self::Delete => 4,
        }
    }
}

impl Default for Retransmission {
    /// The parameters of RFC 7252 §4.8.
    fn default() -> Self {
        Self { ack_timeout: Duration::from_secs(2), ack_random_factor: 1.5, max_retransmit: 4 }
    }
}

impl Retransmission {
    /// `MAX_TRANSMIT_WAIT` (RFC 7252 §4.8.2): from the first transmission until a message is given
    /// up, at most.
    pub fn longest_wait(&self) -> Duration {
        let rounds = (1_u32 << (self.max_retransmit + 1).min(16)) - 1;
        (self.ack_timeout * rounds).mul_f64(self.ack_random_factor)
    }
}

impl Default for Plan {
    /// One device sends a counter by confirmable POST to `/` on 127.0.0.1:5683, one at a time, for
    /// ten seconds.
    fn default() -> Self {
        Self {
            // 5683 is the port of CoAP (RFC 7252 §12.6).
            target: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5683),
            source_port: 0,
            base: BASE,
            devices: 1,
            protocol: Protocol::CoapCon,
            load: Load::Outstanding(1),
            duration: Some(Duration::from_secs(10)),
            count: None,
            payload: Payload::Counter { bytes: COUNTER_BYTES },
            first_number: 1,
            method: Method::Post,
            path: "/".to_owned(),
            topic: None,
            token_bytes: 8,
            retransmission: Retransmission::default(),
            // The gateway answers what has waited for ten seconds with 5.03.
            patience: Duration::from_secs(10),
            security: Security::default(),
            lwm2m: Lwm2m::default(),
            garbage_per_second: 0,
            // The first repeat, after at most three seconds, and its answer.
            drain: Duration::from_secs(5),
            seed: 0,
            progress_every: Duration::from_secs(1),
        }
    }
}

impl Plan {
    /// The devices.
    ///
    /// # Errors
    /// Where their addresses are not all loopback addresses.
    pub fn fleet(&self) -> Result<Fleet, FleetError> {
        Fleet::new(self.base, self.devices)
    }

    /// Whether the run makes handshakes and sends nothing over the sessions.
    pub(crate) fn only_handshakes(&self) -> bool {
        self.protocol == Protocol::Coaps && self.security.requests_per_session == Some(0)
    }

    /// Checks all settings.
    pub(crate) fn check(&self) -> Result<Fleet, PlanError> {
        let fleet = self.fleet()?;
        self.payload.check()?;
        if self.protocol.is_secure() {
            self.check_security(&fleet)?;
        }
        if self.protocol.is_lwm2m() {
            self.check_lwm2m()?;
        }
        match self.load {
            Load::Outstanding(number) => {
                in_range("outstanding", number as u64, (1, OUTSTANDING_MAX as u64))?;
            }
            Load::PerSecond(number) => in_range("rate", number, (1, RATE_MAX))?,
        }
        in_range("garbage rate", self.garbage_per_second, (0, RATE_MAX))?;
        in_range("count", self.count.unwrap_or(1), (1, u64::MAX))?;
        if self.token_bytes != 4 {
            in_range("token length", self.token_bytes as u64, (8, 8))?;
        }
        // Beyond 16 repeats the time-out would exceed a day.
        in_range("max_retransmit", self.retransmission.max_retransmit.into(), (0, 16))?;
        Ok(fleet)
    }

    fn check_lwm2m(&self) -> Result<(), PlanError> {
        let Lwm2m { registering, lost_per_mille, lifetime_seconds, .. } = &self.lwm2m;
        match *registering {
            Load::Outstanding(number) => {
                in_range("registrations at once", number as u64, (1, OUTSTANDING_MAX as u64))?;
            }
            Load::PerSecond(number) => in_range("registration rate", number, (1, RATE_MAX))?,
        }
        in_range("loss per mille", *lost_per_mille as u64, (0, 999))?;
        in_range("lifetime", lifetime_seconds.unwrap_or(1).into(), (1, u32::MAX.into()))?;
        let has_key = !matches!(self.security.keys, KeySource::Bootstrap(_));
        if self.protocol == Protocol::Lwm2ms && !has_key {
            return Err(PlanError::NoKey);
        }
        Ok(())
    }

    fn check_security(&self, fleet: &Fleet) -> Result<(), PlanError> {
        let Security { nat_after, reconnect_after, .. } = self.security;
        let options = self.path.len() + self.topic.as_ref().map_or(0, String::len);
        let record = self.payload.length() + options + REQUEST_OVERHEAD_BYTES;
        in_range("request bytes over DTLS", record as u64, (1, dtls::RECORD_BYTES_MAX as u64))?;
        if let Some(answers) = nat_after {
            in_range("answers before an address change", answers, (1, u64::MAX))?;
            fleet.check_nat()?;
        }
        // Beyond 17 a request is given up first: one transmission and 16 repeats.
        in_range("reconnect-after", reconnect_after.into(), (1, 17))
    }
}

fn in_range(what: &'static str, found: u64, (least, most): (u64, u64)) -> Result<(), PlanError> {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err(PlanError::Range { what, found, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_waits_as_long_as_the_rfc_says() {
        assert_eq!(Retransmission::default().longest_wait(), Duration::from_secs(93));
        Plan::default().check().unwrap();
    }

    #[test]
    fn settings_out_of_range_are_named_with_what_is_allowed() {
        let wrong = Plan { load: Load::PerSecond(0), ..Plan::default() };
        assert_eq!(
            wrong.check().unwrap_err().to_string(),
            "rate of 0 is not allowed, allowed: 1 to 10000000"
        );
        assert!(Plan { token_bytes: 5, ..Plan::default() }.check().is_err());
    }
}
