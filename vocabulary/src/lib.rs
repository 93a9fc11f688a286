//! The words that every crate of simgate shares.
//!
//! Identities of a SIM ([`Iccid`], [`Imsi`], [`Imei`], [`Msisdn`]), time ([`Timestamp`]), the id of
//! an event ([`EventId`]) and the [`Event`]s that the message log holds. A value of these types has
//! been parsed once and is valid from then on. Personal numbers redact themselves in `Debug`.
//!
//! No I/O, no clock, no policy.

mod digits;
mod event;
mod event_id;
mod identity;
mod telemetry;
mod timestamp;
mod topic;

pub use digits::{Iccid, Imei, Imsi, Msisdn, ParseDigitsError};
pub use event::{Event, EventKind, MalformedEvent, Notice, NoticeCategory, NoticeKind};
pub use event_id::{EventId, EventIdGenerator, ParseEventIdError};
pub use identity::{Identity, IdentityClass, Protocol, UnknownWord};
pub use telemetry::Telemetry;
pub use timestamp::{ParseTimestampError, Timestamp};
pub use topic::{TOPIC_CHARS_MAX, Topic, TopicError};
