//! An LwM2M server (OMA Lightweight M2M 1.0 and 1.1), sans-IO: no socket, no clock, no task.
//!
//! Here are the words of the protocol (paths, values, records), what the objects of the public
//! registry mean, and the formats in which devices write them. Not here: CoAP, which is the crate
//! `coap`, and what becomes of a value.

pub mod codec;
mod excerpt;
pub mod format;
pub mod limits;
pub mod model;
mod path;
mod record;
mod value;

pub use excerpt::Excerpt;
pub use format::ContentFormat;
pub use model::{Model, ObjectInfo, Operations, ResourceInfo, XmlError};
pub use path::{Path, PathError};
pub use record::{Record, TimeGroup, by_time, flat_json, resolve_time};
pub use value::{ResourceType, Value, ValueError};
