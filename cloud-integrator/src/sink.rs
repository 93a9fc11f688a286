//! What delivers: one implementation for each kind of cloud.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use vocabulary::{EventId, Iccid, Imsi};

use crate::event_type::EventType;

/// A way to one customer's cloud.
///
/// # What all sinks must do
///
/// 1. `deliver` sends the event once and returns when its fate is known. It never sends the same
///    event twice within one call and keeps nothing of it afterwards: retrying is the
///    [`Forwarder`](crate::Forwarder)'s.
/// 2. [`Outcome::Delivered`] only after the cloud has confirmed the event (HTTP 2xx, PUBACK).
///    When in doubt (time-out, lost answer), [`Outcome::Retry`]: delivery is at least once, and
///    every attempt carries the same id, so that the receiver can tell.
/// 3. `deliver` ends by itself within [`DELIVERY_TIMEOUT`], whatever the other side does.
/// 4. Any number of calls may run at the same time. Order per device is the caller's: it never
///    starts an event of a device before the previous one of that device is done.
/// 5. Dropping the returned future cancels the attempt; the event counts as not delivered.
/// 6. Nothing of the body, of headers or of credentials is ever logged or put into a reason.
/// 7. Memory per call is bounded, also when the answer is endless.
///
/// `tests/sink_suite.rs` holds every sink to this.
pub trait Sink: Send + Sync + 'static {
    /// Tries to deliver one event.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
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

/// Why an attempt did not succeed: a class to count by, and a text for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who or what failed.
    pub class: FailureClass,
    /// What happened, without any secret.
    pub text: String,
}

/// What failed, from the nearest to the farthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No valid request could be made of the event.
    Request,
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
}

impl FailureClass {
    /// The label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.class.as_str(), self.text)
    }
}
