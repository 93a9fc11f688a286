//! A CoAP endpoint (RFC 7252), sans-IO: no socket, no clock, no task.
//!
//! Bytes, peers and the time are arguments, randomness is a seed; what is to be done comes out of
//! [`Endpoint::poll_output`]. The wire format stands alone in [`wire`]. Also here: block-wise
//! transfers (RFC 7959), observation (RFC 7641), the codes of RFC 8132 and RFC 8516, No-Response
//! (RFC 7967), Echo and Request-Tag (RFC 9175). Not here: multicast, TCP (RFC 8323), extended
//! tokens (RFC 8974, refused as the format error that they are without it), resources and what
//! they mean.

mod blockwise;
mod client;
mod counters;
mod datagram;
mod deduplication;
mod echo;
mod endpoint;
mod hashing;
mod identifiers;
mod limits;
mod message;
mod observe;
mod reliability;
mod review;
mod slab;
pub mod wire;

pub use client::{Failure, RequestId, RequestRefused};
pub use counters::Counters;
pub use datagram::Datagram;
pub use echo::Echo;
pub use endpoint::{CancelCause, Endpoint, Event, Output};
pub use limits::{Config, Limits, Transmission};
pub use message::{
    Exchange, IncomingNotification, IncomingRequest, IncomingResponse, ObserveAction, Request,
    Response,
};
pub use observe::{NotificationOrder, ObservationEnded, ObservationId, ObservationRefused};
