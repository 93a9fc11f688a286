//! Simulated devices, and the world around the gateway in tests.
//!
//! - [`run`] is the load generator behind `simgate simulate`: a [`Plan`] says how many devices send
//!   what, a [`Report`] says what came of it.
//! - With [`Protocol::Lwm2m`] the devices register, serve objects and are observed: [`Lwm2m`].
//! - With [`Scenario::Drive`] they drive round a route and tell where they are: [`Drive`].
//! - [`Ledger`] is what the devices remember of a run, to be compared with the store after a crash.
//! - [`Fleet`] gives the devices their addresses, and the SIMs to be imported for them.
//! - [`Receiver`] is a customer's webhook; [`Responder`] is a CoAP server that does nothing, and
//!   [`SecureResponder`] the same over DTLS.
//!
//! Nothing here is part of a serving gateway.

mod accounting;
mod arguments;
mod bootstrap;
mod drive;
mod driving;
mod exchanges;
mod fleet;
mod generator;
mod hello;
mod ledger;
mod lwm2m;
mod payload;
mod plan;
mod random;
mod receiver;
mod report;
mod request;
mod responder;
mod schedule;
mod secure_responder;
mod security;
mod session_report;
mod sessions;
mod socket;
mod timers;
mod world;

pub use crate::lwm2m::{Format, Lwm2m, Lwm2mArguments, Lwm2mCounts, Lwm2mReport, Traffic, Version};
pub use accounting::CoreCounts;
pub use arguments::{Arguments, Console, SimulateError};
pub use bootstrap::{BootstrapError, BootstrapReport};
pub use drive::{DRIVE_TEMPLATE, Drive, RouteError};
pub use driving::{DriveArguments, Scenario};
pub use fleet::{BASE, Fleet, FleetError, GARBAGE_ADDRESSES, fleet_csv};
pub use generator::{RunError, run, run_recorded};
pub use ledger::{LEDGER_ENTRIES, Ledger, LedgerEntry};
pub use payload::{
    COUNTER_BYTES, PAYLOAD_BYTES_MAX, Payload, PayloadError, PayloadSource, THREE_FIELDS_TEMPLATE,
};
pub use plan::{
    Load, Method, OUTSTANDING_MAX, Plan, PlanError, Protocol, RATE_MAX, Retransmission,
};
pub use receiver::{
    Behaviour, ContentError, Delivery, IdentityError, OnDelivery, Receiver, ReceiverCounts,
    ReceiverOptions, ServerIdentity, Tally,
};
pub use report::{Counts, Latency, Progress, Report};
pub use responder::{Answer, Responder};
pub use secure_responder::{SecureResponder, SecureResponderOptions};
pub use security::{KeySource, KeyTable, Security, SecurityArguments, SharedKey, SuiteName};
pub use session_report::{SessionCounts, SessionReport};
