//! What changed, for a process that keeps a copy of the SIMs in memory.
//!
//! A follower loads all SIMs once, then asks for the changes since the revision that it has. It
//! asks when [`SimRegistry::data_version`] moved, which costs microseconds and sees other
//! processes.

use rusqlite::params;
use thiserror::Error;
use vocabulary::Iccid;

use crate::registry::{SimRegistry, StoreError, lock};
use crate::sim::Sim;
use crate::table::{Counters, REVISION_COLUMN, iccid_of, sim_columns, sim_of_row};

/// Removals that are remembered for followers, the newest. A follower asks every second or so;
/// as many removals as a tenth of the largest fleet between two questions is a reason to load all.
pub const REMOVALS_KEPT: u32 = 100_000;

/// A state of the registry, in the order of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(i64);

impl Revision {
    /// Before the first SIM.
    pub const BEGINNING: Self = Self(0);
}

/// One SIM that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimChange {
    /// It was created or changed; this is how it is now.
    Set(Sim),
    /// It was removed.
    Removed(Iccid),
}

/// Changes in the order in which they were made, each SIM's newest only (and a removal, where
/// the SIM was created again).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<SimChange>,
    /// What to ask with next. Where `changes` is as long as the limit, there may be more.
    pub revision: Revision,
}

/// Why there is no list of changes.
#[derive(Debug, Error)]
pub enum ChangesError {
    /// Removals since then are forgotten, or the file is another one: load all SIMs.
    #[error("changes since revision {asked} are not known, only {oldest} to {newest}")]
    Unknown {
        /// The revision asked for.
        asked: i64,
        /// The oldest that could be asked for.
        oldest: i64,
        /// The newest.
        newest: i64,
    },
    /// The file could not be read.
    #[error("sim registry: {0}")]
    Store(#[from] rusqlite::Error),
}

impl SimRegistry {
    /// A number that moves whenever anybody, this process or another, writes the state file.
    /// Compare it only with numbers of the same [`SimRegistry`]; the file holds more than SIMs, so
    /// it may move without a change of a SIM.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        Ok(lock(&self.follower).pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Hands every SIM to `each`, in the order of the ICCIDs, and returns the revision that they
    /// are of. Meanwhile no other follower is served, so `each` should be quick.
    pub fn load_all(&self, mut each: impl FnMut(Sim)) -> Result<Revision, StoreError> {
        let connection = lock(&self.follower);
        let transaction = connection.unchecked_transaction()?;
        let revision = Counters::load(&transaction)?.revision;
        let mut statement =
            transaction.prepare(concat!("SELECT ", sim_columns!(), " FROM sims ORDER BY iccid"))?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            each(sim_of_row(row)?);
        }
        Ok(Revision(revision))
    }

    /// Up to `limit` changes after `since`.
    pub fn changes_since(&self, since: Revision, limit: u32) -> Result<Changes, ChangesError> {
        let connection = lock(&self.follower);
        let transaction = connection.unchecked_transaction()?;
        let counters = Counters::load(&transaction)?;
        let Revision(asked) = since;
        if asked < counters.forgotten || asked > counters.revision {
            let (oldest, newest) = (counters.forgotten, counters.revision);
            return Err(ChangesError::Unknown { asked, oldest, newest });
        }
        let mut changes = Vec::new();
        if asked < counters.revision {
            let sql = concat!(
                "SELECT ",
                sim_columns!(),
                " FROM sims WHERE revision > ?1 ORDER BY revision LIMIT ?2"
            );
            let mut sims = transaction.prepare(sql)?;
            let mut rows = sims.query(params![asked, limit])?;
            while let Some(row) = rows.next()? {
                changes.push((row.get(REVISION_COLUMN)?, SimChange::Set(sim_of_row(row)?)));
            }
            let sql = "SELECT revision, iccid FROM sim_removals WHERE revision > ?1
                       ORDER BY revision LIMIT ?2";
            let mut removals = transaction.prepare(sql)?;
            let mut rows = removals.query(params![asked, limit])?;
            while let Some(row) = rows.next()? {
                changes.push((row.get(0)?, SimChange::Removed(iccid_of(row, 1)?)));
            }
        }
        Ok(first(changes, limit, counters.revision))
    }
}

/// The first `limit` of `changes`, which came as two ordered lists of at most so many.
fn first(mut changes: Vec<(i64, SimChange)>, limit: u32, newest: i64) -> Changes {
    changes.sort_by_key(|(revision, _)| *revision);
    changes.truncate(limit as usize);
    let is_full = changes.len() == limit as usize;
    let revision = match changes.last() {
        Some((last, _)) if is_full => *last,
        _ => newest,
    };
    let changes = changes.into_iter().map(|(_, change)| change).collect();
    Changes { changes, revision: Revision(revision) }
}
