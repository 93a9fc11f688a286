//! The mobile-network side of simgate: which SIMs there are.
//!
//! [`SimRegistry`] keeps the SIMs in the state file, imports them from CSV, and tells a serving
//! process what changed, also when another process made the change.
//!
//! Not here: who may speak (that is decided in memory, from a copy), and how the management API
//! words a SIM. No clock: every change is given its time.

mod changes;
mod import;
mod list;
mod registry;
mod sim;
mod table;

pub use changes::{Changes, ChangesError, REMOVALS_KEPT, Revision, SimChange};
pub use import::{
    HeaderError, ImportError, ImportReport, LINE_BYTES_MAX, LINES_MAX, LineError, REJECTIONS_KEPT,
    Rejection,
};
pub use list::{Direction, ListQuery, PAGE_SIZE_MAX, SimFilter, SimPage, SortField};
pub use registry::{SimError, SimRegistry, Statistics, StoreError};
pub use sim::{Conflict, InvalidSim, LABEL_CHARS_MAX, NewSim, Sim, SimPatch};
