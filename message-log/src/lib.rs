//! The durable log: records go in at one end, each reader follows with its own cursor.
//!
//! [`MessageLog::append`] queues records; one thread commits whatever is queued with one sync of
//! the disk and answers. Records are read forward from an [`Offset`], newest first by device, time
//! and kind, or by id. They are kept for a time and then deleted in whole segments.
//!
//! The log knows records, not their meaning, and shows nothing of how they are stored: a second
//! implementation can stand beside this one. It promises durability class D1 of
//! docs/delivery.md: an answered append survives a crash of the process, of the system, and a
//! power cut. The files are described in FORMAT.md beside this crate's sources.

mod catalog;
mod chain;
mod control;
mod disk;
mod error;
mod keeper;
mod log;
mod options;
mod queue;
mod read;
mod recovery;
mod retention;
mod row;
mod scan;
mod sealed;
mod segment;
mod shared;
mod types;
mod writer;

pub use error::{AppendError, OpenError, ReadError};
pub use log::{MessageLog, Reader, Status};
pub use options::{Clock, Options};
pub use queue::{Appended, Appending};
pub use recovery::Opened;
pub use shared::State;
pub use types::{Batch, DeviceKey, Kind, KindSet, NewRecord, Offset, Query, ReadLimits, Record};
