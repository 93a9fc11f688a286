//! The one SQLite file for everything that is not a stream: SIMs, templates, integrations,
//! credentials, cursors.
//!
//! This crate opens the file, runs migrations and makes ids for rows; it knows no table. Each owner
//! declares its own tables as a list of migrations and receives a [`rusqlite::Connection`] of its
//! own. WAL with `synchronous=FULL`: what an API call answered survives a power cut. Several
//! processes may have the file open (a command line beside a serving gateway); [`rusqlite`] waits
//! up to five seconds for another writer.

mod id;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use thiserror::Error;

pub use id::nanoid;

/// How long a write waits for another writer before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the state of one gateway lies. Cheap to clone; opens nothing by itself.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

/// One owner's part of the file.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The owner's name, e.g. `sims`.
    pub owner: &'static str,
    /// SQL scripts; the number of scripts already run is remembered. Scripts that were released
    /// never change: a change is a new script at the end.
    pub scripts: &'static [&'static str],
}

/// Why the file could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// SQLite refused.
    #[error("state file {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Written by a newer release.
    #[error("state file holds version {found} of {owner}, this release knows up to {known}")]
    Newer {
        /// The owner of the tables.
        owner: &'static str,
        /// The version in the file.
        found: u32,
        /// The newest version that this release knows.
        known: u32,
    },
}

impl StateFile {
    /// The file at `path`; it is created by the first [`StateFile::open`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The place of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a connection for one owner, after running the owner's new migrations.
    pub fn open(&self, migrations: Migrations) -> Result<Connection, OpenError> {
        let failed = |source| OpenError::Sqlite { path: self.path.clone(), source };
        let mut connection = self.connect().map_err(failed)?;
        migrate(&mut connection, migrations).map_err(failed)??;
        Ok(connection)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }
}

fn migrate(
    connection: &mut Connection,
    Migrations { owner, scripts }: Migrations,
) -> rusqlite::Result<Result<(), OpenError>> {
    // Immediate: two processes that start together run each script once.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (owner TEXT PRIMARY KEY, version INTEGER NOT NULL)",
    )?;
    let known = u32::try_from(scripts.len()).unwrap_or(u32::MAX);
    let found: u32 = transaction
        .query_row("SELECT version FROM migrations WHERE owner = ?1", [owner], |row| row.get(0))
        .or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(0),
            other => Err(other),
        })?;
    if found > known {
        return Ok(Err(OpenError::Newer { owner, found, known }));
    }
    for script in scripts.iter().skip(found as usize) {
        transaction.execute_batch(script)?;
    }
    transaction.execute(
        "INSERT INTO migrations (owner, version) VALUES (?1, ?2)
         ON CONFLICT (owner) DO UPDATE SET version = excluded.version",
        (owner, known),
    )?;
    transaction.commit()?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migrations =
        Migrations { owner: "shoes", scripts: &["CREATE TABLE shoes (size INTEGER)"] };
    const SECOND: Migrations = Migrations {
        owner: "shoes",
        scripts: &["CREATE TABLE shoes (size INTEGER)", "ALTER TABLE shoes ADD COLUMN colour TEXT"],
    };

    #[test]
    fn each_script_runs_once_and_a_downgrade_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        file.open(FIRST).unwrap();
        file.open(FIRST).unwrap();
        let connection = file.open(SECOND).unwrap();
        connection.execute("INSERT INTO shoes VALUES (43, 'red')", ()).unwrap();
        let error = file.open(FIRST).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = StateFile::new(folder.path()).open(FIRST).unwrap_err();
        assert!(error.to_string().contains("state file"));
    }
}
