//! What delivers: one implementation for each kind of cloud.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use vocabulary::{EventId, Iccid, Imsi, Protocol};

use crate::event_type::EventType;

/// A way to one customer's cloud.
///
/// # What all sinks must do
///
/// 1. `deliver` sends the events once and returns when their fate is known, which they share. It
///    never sends an event twice within one call and keeps nothing of it afterwards: retrying is
///    the [`Forwarder`](crate::Forwarder)'s.
/// 2. [`Outcome::Delivered`] only after the cloud has confirmed them (HTTP 2xx, PUBACK). When in
///    doubt (time-out, lost answer), [`Outcome::Retry`]: delivery is at least once, and every
///    attempt carries the same ids, so that the receiver can tell.
/// 3. `deliver` ends by itself within [`DELIVERY_TIMEOUT`], whatever the other side does.
/// 4. Any number of calls may run at the same time. Order per device is the caller's: it never
///    starts an event of a device before the previous one of that device is done, or it puts both
///    into one call, in their order.
/// 5. Dropping the returned future cancels the attempt; the events count as not delivered.
/// 6. Nothing of the body, of headers or of credentials is ever logged or put into a reason.
/// 7. Memory per call is bounded, also when the answer is endless.
/// 8. The class of a [`Failure`] says who has to act; what follows from it is decided elsewhere.
///
/// `tests/suite` holds every sink to this.
pub trait Sink: Send + Sync + 'static {
    /// Tries to deliver events: one, or as many as the batches of its integration hold.
    fn deliver(&self, events: Vec<Delivery>) -> impl Future<Output = Outcome> + Send;
}

/// The longest that one attempt may take in all: the documented limit of 1NCE OS.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// One event on its way to a cloud. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The id of the event: the same at every attempt.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// The device that it is about.
    pub subject: Subject,
    /// How a device sent it; `None` for events of the gateway itself.
    pub source: Option<Protocol>,
    /// The topic that the device named (CoAP).
    pub topic: Option<Box<str>>,
    /// The event as JSON.
    pub body: Bytes,
}

/// What is known of the device that an event is about; all `None` for events about no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subject {
    /// Its SIM card.
    pub iccid: Option<Iccid>,
    /// Its subscriber.
    pub imsi: Option<Imsi>,
    /// The address that it sent from.
    pub ip: Option<IpAddr>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The cloud confirmed it.
    Delivered,
    /// Not delivered, or not known to be; to be tried again.
    Retry {
        /// Why.
        reason: Failure,
        /// The wait that the cloud asked for.
        after: Option<Duration>,
    },
    /// It can never be delivered, however often it is tried.
    Rejected {
        /// Why.
        reason: Failure,
    },
}

/// Why an attempt did not succeed: a class to act and count by, and a text for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who or what failed.
    pub class: FailureClass,
    /// What happened, without any secret of ours.
    pub text: String,
    /// What the cloud answered, where it did.
    pub answer: Option<Answer>,
}

/// What a cloud answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, or the reason code of MQTT.
    pub code: u16,
    /// The first [`ANSWER_CHARS_MAX`] characters of its body, what is no text replaced.
    pub text: String,
}

/// Of an answer so much is kept.
pub const ANSWER_CHARS_MAX: usize = 1_024;

/// What failed, from the nearest to the farthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No valid request could be made of the event.
    Request,
    /// Our credentials are missing, have expired or are refused.
    Credentials,
    /// The address is one that the gateway must not reach.
    Blocked,
    /// The name of the endpoint has no address.
    Dns,
    /// No connection.
    Connect,
    /// The endpoint's certificate or its TLS is not acceptable. Never downgraded.
    Tls,
    /// No complete answer within [`DELIVERY_TIMEOUT`].
    Timeout,
    /// The connection broke, or the answer is not HTTP.
    Transport,
    /// The endpoint answered, but not with success.
    Status,
    /// The endpoint asks for less (429, 503, a throttled publish).
    Throttled,
    /// The endpoint does not want these very events (400, 422): others may pass.
    Refused,
    /// The events are too large for the endpoint (413, a limit of its kind).
    TooLarge,
    /// The endpoint is gone for good (410).
    Gone,
}

impl Failure {
    /// A failure without an answer.
    pub fn new(class: FailureClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into(), answer: None }
    }
}

impl FailureClass {
    /// All, from the nearest to the farthest.
    pub const ALL: [Self; 13] = [
        Self::Request,
        Self::Credentials,
        Self::Blocked,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Transport,
        Self::Status,
        Self::Throttled,
        Self::Refused,
        Self::TooLarge,
        Self::Gone,
    ];

    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Credentials => "credentials",
            Self::Blocked => "blocked",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Status => "status",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.class.as_str(), self.text)
    }
}

/// A message of a device, for tests.
#[cfg(test)]
pub(crate) fn sample(id: &str, iccid: u64, body: &'static str) -> Delivery {
    Delivery {
        id: id.parse().unwrap(),
        event_type: EventType::TelemetryData,
        subject: Subject { iccid: Iccid::from_u64(iccid), imsi: Imsi::from_u64(901), ip: None },
        source: None,
        topic: None,
        body: Bytes::from_static(body.as_bytes()),
    }
}
