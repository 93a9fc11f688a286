//! An LwM2M server (OMA Lightweight M2M 1.0 and 1.1), sans-IO: no socket, no clock, no task.
//!
//! Here are the words of the protocol (paths, values, records), what the objects of the public
//! registry mean, and the formats in which devices write them. Not here: CoAP, which is the crate
//! `coap`, and what becomes of a value.

pub mod codec;
mod contact;
mod event;
mod excerpt;
pub mod format;
pub mod limits;
pub mod model;
mod operation;
mod path;
mod record;
mod registration;
mod registry;
mod server;
mod value;

pub use contact::{Contact, Device, Link, Moment, Security};
pub use event::{BootstrapOutcome, Event, Exchanged, Origin, Outcome, Output, Ticket, Verdict};
pub use excerpt::Excerpt;
pub use format::ContentFormat;
pub use model::{Model, ObjectInfo, Operations, ResourceInfo, XmlError};
pub use operation::{Operation, WriteContent, WriteMode};
pub use path::{Path, PathError};
pub use record::{Record, TimeGroup, by_time, flat_json, resolve_time};
pub use registration::{
    Binding, Links, Observation, Registration, RegistrationId, StateError, Version,
};
pub use registry::{Registry, RegistryLimits};
pub use server::{Account, Counters, Files, Server, ServerConfig};
pub use value::{ResourceType, Value, ValueError};
