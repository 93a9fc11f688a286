//! The words that every crate of simgate shares.
//!
//! Identities of a SIM ([`Iccid`], [`Imsi`], [`Imei`], [`Msisdn`]), time ([`Timestamp`]), the
//! mobile network ([`Plmn`], [`CellTower`]), places ([`Coordinates`]), the id of an event
//! ([`EventId`]) and the [`Event`]s that the message log holds. A value of these types has been
//! parsed once and is valid from then on. Personal numbers redact themselves in `Debug`.
//!
//! No I/O, no clock, no policy.

mod digits;
mod event;
mod event_id;
mod identity;
mod location;
mod network;
mod session;
mod telemetry;
mod timestamp;
mod topic;

pub use digits::{Iccid, Imei, Imsi, Msisdn, ParseDigitsError};
pub use event::{Event, EventKind, MalformedEvent, Notice, NoticeCategory, NoticeKind};
pub use event_id::{EventId, EventIdGenerator, ParseEventIdError};
pub use identity::{Identity, IdentityClass, Protocol, UnknownWord};
pub use location::{
    CellMatch, Coordinates, Crossing, Direction, InvalidCoordinates, Located, Position,
    PositionSource,
};
pub use network::{CellTower, ParsePlmnError, Plmn, RadioAccess};
pub use session::{Octets, SessionChange, SessionReport};
pub use telemetry::Telemetry;
pub use timestamp::{ParseTimestampError, Timestamp};
pub use topic::{TOPIC_CHARS_MAX, Topic, TopicError};
