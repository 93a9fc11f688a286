//! Integrations, their places in the log, dead letters and replays, in the state file.
//!
//! The file is the one truth: what the management API shows is read from it. Targets are sealed,
//! because URLs, headers and keys are secrets.

mod bookmark;
mod dead_letters;
mod integrations;
mod replays;
mod schema;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use sealing::{SealError, Sealer};
use state::StateFile;
use thiserror::Error;

pub use bookmark::Bookmark;
pub use dead_letters::{DEAD_LETTERS_MAX, DeadLetterEntry, DeadLetterFilter};
pub(crate) use integrations::{Beginning, Rollout, Stored};
pub(crate) use replays::NewReplay;
pub use replays::{Replay, ReplayState};

/// For [`Sealer::open`].
pub const SEALED_FOR: &str = "simgate integrations";

/// Why the state file did not do as it was asked. We are at fault.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// SQLite refused.
    #[error("the tables of integrations: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row holds what no release wrote.
    #[error("integration {id} holds no valid {field}")]
    Row {
        /// The row.
        id: String,
        /// The column.
        field: &'static str,
    },
    /// A target does not open: the data key is another one.
    #[error("the target of integration {id} cannot be read: {source}")]
    Sealed {
        /// The row.
        id: String,
        /// Why.
        source: SealError,
    },
    /// The thread that did the work is gone.
    #[error("the work on the state file was cut off")]
    CutOff,
    /// The system gave no randomness for an id.
    #[error("no randomness: {0}")]
    Random(String),
}

/// The tables. Cheap to clone; every call blocks.
#[derive(Debug, Clone)]
pub struct Store(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    connection: Mutex<Connection>,
    sealer: Sealer,
}

impl Store {
    /// Opens the tables. `sealer` is for [`SEALED_FOR`].
    ///
    /// # Errors
    /// Where the file cannot be opened or the targets are sealed under another data key.
    pub fn open(file: &StateFile, sealer: Sealer) -> Result<Self, StoreError> {
        let mut connection = file.open(schema::MIGRATIONS)?;
        // What is replaced or deleted may be a secret: its bytes are overwritten.
        connection.pragma_update(None, "secure_delete", true)?;
        schema::seal_unsealed(&mut connection, &sealer)?;
        Ok(Self(Arc::new(Tables { connection: Mutex::new(connection), sealer })))
    }

    /// The place-keeper of the integration `id`.
    pub fn bookmark(&self, id: &str) -> Bookmark {
        Bookmark::new(self.clone(), id)
    }

    /// Each call is one statement or one transaction, so a panic leaves nothing half-written.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }
}

/// SQLite has signed integers only; the bits come back as they went.
fn to_column(number: u64) -> i64 {
    number.cast_signed()
}

fn from_column(column: i64) -> u64 {
    column.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use sealing::KeySource;
    use zeroize::Zeroizing;

    use super::*;

    pub(super) fn sealer() -> Sealer {
        let source = KeySource::Text(Zeroizing::new("7".repeat(64)));
        Sealer::open(&source, SEALED_FOR).unwrap()
    }

    pub(super) fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        (folder, Store::open(&file, sealer()).unwrap())
    }
}
