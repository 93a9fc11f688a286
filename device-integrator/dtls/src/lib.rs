//! DTLS 1.2 server sessions with pre-shared keys (RFC 6347, RFC 4279), sans-IO from outside.
//!
//! Datagrams and the time are arguments; what is to be done comes out of
//! [`Engine::poll_output`]. Handshakes and records are the work of Mbed TLS 3.6; what happens
//! before a peer has proved its address, and which datagram belongs to which session, is Rust:
//!
//! * **Cookies** (RFC 6347 §4.2.1): a ClientHello without a valid one is parsed and answered here,
//!   without memory of the peer and without a line of C.
//! * **Connection IDs** (RFC 9146): eight bytes, the [`SessionId`]; the address of a session
//!   changes only with its newest authentic record.
//! * **New handshake from an old address** (RFC 6347 §4.2.8): the old session stays until the new
//!   one is established.
//! * **Sleep**: a session that idles is folded into some 150 bytes, and unfolded by its next
//!   authentic record.
//! * **Persistence**: [`Engine::changes`] gives sessions as bytes, [`Engine::import`] takes them
//!   after a restart. Their sequence numbers jump ahead, see [`Config::generation`].
//! * **Resumption** by session id, as long as the key of the identity stays the same.
//! * **Forgeries**: what anybody can send from the address of a device ends neither its session
//!   nor, as far as the protocol allows, its handshake; and no session or network uses up what the
//!   others need.
//!
//! Not here: certificates, renegotiation (refused with an alert), session tickets, DTLS 1.3,
//! fragmented ClientHellos (refused: a client with a pre-shared key needs a tenth of a datagram).
//!
//! Another engine has to offer the methods of [`Engine`] with the same [`Output`]; nothing of the
//! C library is visible in them.

mod budget;
pub mod client;
mod cookie;
mod counters;
mod engine;
mod failures;
mod ffi;
mod hello;
mod limits;
mod network;
mod psk;
mod records;
mod resumption;
mod shares;
mod snapshot;

pub use counters::Counters;
pub use engine::{
    Change, CloseCause, Engine, Event, ImportError, Output, SendError, SessionId, SetUpError,
};
pub use limits::{Config, Limits, Suite, UnknownRecords};
pub use psk::{Psk, PskError};
pub use snapshot::{SEQUENCE_JUMP, SavedPlace, saved_place, saved_session};

/// Bytes of one record, at most: what the buffers of the C library hold. A CoAP message has at
/// most 1,280.
pub const RECORD_BYTES_MAX: usize = 2048;
/// Bytes of an identity, at most (RFC 4279 §5.3).
pub const IDENTITY_BYTES_MAX: usize = 128;
