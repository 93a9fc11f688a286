//! The pre-shared keys of devices: one for each SIM and protocol, sealed wherever they lie.
//!
//! [`Keys`] keeps them in the state file, encrypted by AES-256-GCM under a data key that lies in a
//! file of its own or comes from the configuration ([`sealing::KeySource`]). In memory they are
//! sealed as well: [`Keys::find`] opens one key for one handshake. [`Keys::bootstrap`] is the rule
//! by which a device gets its key over its mobile network; keys that a user has set are never
//! replaced. Many keys at once are a [`Job`], which survives a restart.
//!
//! Not here: who may have a key. The caller asks the SIM directory, before a bootstrap and after a
//! handshake: a key proves which SIM speaks, not that it may. The calls that touch the file block.

mod generate;
mod jobs;
mod keys;
mod look_up;
mod secret;
mod table;

pub use generate::GENERATED_CHARS;
pub use jobs::{AcceptError, JOBS_SHOWN_MAX, JOBS_WAITING_MAX, Job, JobEntry, JobStatus, KEPT_FOR};
pub use keys::{Keys, OpenError, REGENERATED_AFTER, StoreError, StoredKey};
pub use look_up::Psk;
pub use secret::{
    InvalidSecret, KeyFormat, KeyProtocol, Origin, SECRET_CHARS_MAX, SECRET_CHARS_MIN, Secret,
};
