//! Simulated LwM2M devices: bootstrap, registration, objects, observations, firmware.
//!
//! - [`Lwm2m`] is what a run is to do beyond other runs, [`Lwm2mArguments`] its command line, and
//!   [`Lwm2mReport`] its figures.
//! - `device` is one device, `objects` what it holds, `requests` what a server may do with it.
//! - `world` lets all devices speak through one CoAP endpoint, `network` carries their datagrams,
//!   `run` is the thread that does it.
//!
//! With the server the devices share the formats of payloads and the words of paths and values,
//! and nothing of its states.

mod arguments;
mod attributes;
mod bootstrap;
mod device;
mod firmware;
mod incoming;
mod leg;
mod network;
mod objects;
mod observations;
mod outcomes;
mod registration;
mod report;
mod requests;
mod run;
mod settings;
mod table;
mod traffic;
mod world;

pub use arguments::Lwm2mArguments;
pub use report::{Lwm2mCounts, Lwm2mReport};
pub(crate) use run::run;
pub use settings::{Format, Lwm2m, Traffic, Version};
