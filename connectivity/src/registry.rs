//! The registry: connections, and what is done to one SIM.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use state::StateFile;
use thiserror::Error;
use vocabulary::{Iccid, Timestamp};

use crate::sim::{Conflict, InvalidSim, NewSim, Sim, SimPatch};
use crate::table::{Counters, MIGRATIONS, Table, WriteError, key_of, sim_columns, sim_of_row};

/// All SIMs, in the state file. Every call blocks for the disk: asynchronous callers use a thread.
///
/// Writers wait for each other, readers never wait for a writer.
#[derive(Debug)]
pub struct SimRegistry {
    pub(crate) writer: Mutex<Connection>,
    /// For the questions of the API.
    pub(crate) reader: Mutex<Connection>,
    /// For whoever follows the changes, so that a long list does not hold up a device's address.
    pub(crate) follower: Mutex<Connection>,
}

/// The file could not be read or written: our fault or the disk's.
#[derive(Debug, Error)]
#[error("sim registry: {0}")]
pub struct StoreError(#[from] pub rusqlite::Error);

/// Why a SIM was not created, changed or removed.
#[derive(Debug, Error)]
pub enum SimError {
    /// There is no such SIM. Shows it masked.
    #[error("{0:?} is not known")]
    NotFound(Iccid),
    /// Another SIM has it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// No SIM can have it.
    #[error(transparent)]
    Invalid(#[from] InvalidSim),
    /// The file could not be read or written.
    #[error("sim registry: {0}")]
    Store(#[from] rusqlite::Error),
}

/// How many SIMs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// All SIMs (`totalDevices` of the management API).
    pub total: u64,
    /// Those that may speak (`activatedDevices`).
    pub active: u64,
}

impl SimRegistry {
    /// Opens the registry in `file`, creating its tables where they are missing.
    pub fn open(file: &StateFile) -> Result<Self, state::OpenError> {
        Ok(Self {
            writer: Mutex::new(file.open(MIGRATIONS)?),
            reader: Mutex::new(file.open(MIGRATIONS)?),
            follower: Mutex::new(file.open(MIGRATIONS)?),
        })
    }

    /// The SIM with this number.
    pub fn find(&self, iccid: Iccid) -> Result<Option<Sim>, StoreError> {
        let sql = concat!("SELECT ", sim_columns!(), " FROM sims WHERE iccid = ?1");
        Ok(lock(&self.reader).query_row(sql, [key_of(iccid)], sim_of_row).optional()?)
    }

    /// How many SIMs there are; costs one row, however many they are.
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let counters = Counters::load(&lock(&self.reader))?;
        Ok(Statistics {
            total: counters.total.try_into().unwrap_or(0),
            active: counters.active.try_into().unwrap_or(0),
        })
    }

    /// Creates a SIM; it is active where `new` does not say otherwise.
    pub fn create(&self, new: NewSim, now: Timestamp) -> Result<Sim, SimError> {
        let properties = new.properties.checked()?;
        let sim = properties.applied(Sim::unknown(new.iccid, now));
        self.write(|table| {
            table.insert(&sim)?;
            Ok::<_, SimError>(())
        })?;
        Ok(sim)
    }

    /// Sets properties of a SIM and returns it as it is then. Where nothing changes, nothing is
    /// written and `updated` stays.
    pub fn patch(&self, iccid: Iccid, patch: SimPatch, now: Timestamp) -> Result<Sim, SimError> {
        let patch = patch.checked()?;
        self.write(|table| {
            let before = table.find(iccid)?.ok_or(SimError::NotFound(iccid))?;
            let mut after = patch.applied(before.clone());
            if after != before {
                after.updated = now;
                table.update(&before, &after)?;
            }
            Ok(after)
        })
    }

    /// Removes a SIM and returns it as it was. Its messages stay.
    pub fn remove(&self, iccid: Iccid) -> Result<Sim, SimError> {
        self.write(|table| {
            let sim = table.find(iccid)?.ok_or(SimError::NotFound(iccid))?;
            table.remove(&sim)?;
            Ok(sim)
        })
    }

    /// Does `work` in one transaction; an error undoes all of it.
    pub(crate) fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&mut Table<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = lock(&self.writer);
        // Immediate: another process that writes is waited for here, not in the middle.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut table = Table::open(&transaction)?;
        let value = work(&mut table)?;
        table.finish()?;
        transaction.commit()?;
        Ok(value)
    }
}

impl From<WriteError> for SimError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict(conflict) => Self::Conflict(conflict),
            WriteError::Store(store) => Self::Store(store),
        }
    }
}

/// A transaction that panicked was rolled back, so the connection is whole.
pub(crate) fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
