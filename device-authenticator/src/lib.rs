//! Who may speak: from the source address of a datagram to the SIM behind it.
//!
//! [`SimDirectory`] holds every SIM in memory and answers without a lock; whoever keeps the SIM
//! registry feeds it with [`DirectoryChange`]s. [`Attribution`] puts it together with the data
//! sessions of the network; [`Attribution::authenticate`] is the decision of one datagram;
//! [`RefusalLog`] says which refusals are worth an entry in the administration log.
//!
//! Not here: where the SIMs come from, which listener is trusted, and pre-shared keys. No I/O, no
//! clock.

mod authenticate;
mod directory;
mod entry;
mod imsis;
mod refusal_log;
mod shards;

pub use authenticate::{AddressSource, Attributed, Attribution, KeyHolder, ListenerTrust, Refusal};
pub use directory::{Applied, DirectoryChange, Found, SimDirectory, Takeover};
pub use refusal_log::{ENTRIES_PER_SECOND, RefusalLog, SPAN_PER_ADDRESS};
