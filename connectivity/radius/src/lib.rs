//! RADIUS accounting (RFC 2866): the packet core tells which SIM holds which address, and in which
//! cell it is.
//!
//! A packet becomes a [`SessionReport`](vocabulary::SessionReport), and is answered when the owner
//! says that the report is durable; without that there is silence, and the sender sends again.
//! [`Accounting`] is the protocol without a socket and without a clock, [`server`] has both.
//! [`AccountingRequest`] is the other side, for tests and for load.
//!
//! It is no RADIUS server for access: it authenticates no subscriber, and answers nothing but
//! Accounting-Request and Status-Server (RFC 5997). It keeps no sessions: what the reports mean
//! together is found by whoever applies them.

mod accounting;
mod attribute;
mod client;
mod location;
mod reading;
mod request;
pub mod server;
pub mod wire;

pub use accounting::{Accounting, Config, Counters, Fate, Limits, Output, Path, Ticket};
pub use client::{Client, Clients, InvalidClient, Secret, WeakSecret};
pub use location::{UnreadableLocation, UserLocation};
pub use request::{AccountingRequest, InvalidResponse, StatusType, verify_response};
