//! The control file: which segments there are, and the newest number of each device.

use std::path::Path;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Row};
use vocabulary::{EventId, Timestamp};

use crate::chain::Bounds;
use crate::segment::SealedFacts;

pub(crate) const FILE: &str = "control.db";
/// The format of the log's folder.
pub(crate) const FORMAT: u32 = 1;
/// Heads saved per transaction: other work of the same thread waits at most some milliseconds.
const HEADS_PER_COMMIT: usize = 10_000;

/// The control file, open.
#[derive(Debug)]
pub(crate) struct Control {
    connection: Connection,
}

/// A segment as the control file lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) number: u32,
    pub(crate) state: ListedState,
}

/// How far a segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedState {
    /// Empty, written, or not sealed yet.
    Open,
    /// Never written again.
    Sealed {
        /// The offset of its first record.
        first: u64,
        /// What is known about it.
        facts: SealedFacts,
    },
}

/// Where the log goes on although all its segments may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Floor {
    /// The next offset is not below.
    pub(crate) offset: u64,
    /// The next id is above.
    pub(crate) id: Option<EventId>,
}

impl Control {
    pub(crate) fn open(dir: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(dir.join(FILE))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if sound != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(sound)));
        }
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS heads (device INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS segments (
                 number INTEGER PRIMARY KEY, sealed INTEGER NOT NULL, first INTEGER,
                 records INTEGER, first_id BLOB, last_id BLOB, earliest INTEGER, latest INTEGER,
                 last_commit INTEGER, bytes INTEGER);",
        )?;
        Ok(Self { connection })
    }

    /// The format of the folder; writes this release's into a new one.
    pub(crate) fn format(&self) -> rusqlite::Result<u32> {
        let insert = "INSERT OR IGNORE INTO facts VALUES ('format', ?1)";
        self.connection.execute(insert, [FORMAT])?;
        self.connection
            .query_row("SELECT value FROM facts WHERE name = 'format'", (), |row| row.get(0))
    }

    /// Whether the log was closed in order; from now on it is not.
    pub(crate) fn take_clean_mark(&self) -> rusqlite::Result<bool> {
        let removed = self.connection.execute("DELETE FROM facts WHERE name = 'clean'", ())?;
        Ok(removed == 1)
    }

    pub(crate) fn set_clean_mark(&self) -> rusqlite::Result<()> {
        self.connection.execute("INSERT OR REPLACE INTO facts VALUES ('clean', 1)", ()).map(|_| ())
    }

    pub(crate) fn floor(&self) -> rusqlite::Result<Floor> {
        let offset: Option<i64> = self.fact("floor_offset")?;
        let id: Option<[u8; 16]> = self.fact("floor_id")?;
        Ok(Floor { offset: offset.unwrap_or(0).cast_unsigned(), id: id.map(EventId::from_bytes) })
    }

    fn fact<T: rusqlite::types::FromSql>(&self, name: &str) -> rusqlite::Result<Option<T>> {
        self.connection
            .query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0))
            .optional()
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> rusqlite::Result<Vec<Listed>> {
        let mut statement = self.connection.prepare(
            "SELECT number, sealed, first, records, first_id, last_id, earliest, latest,
                    last_commit, bytes
             FROM segments ORDER BY number",
        )?;
        statement.query_map((), listed)?.collect()
    }

    /// Lists a new segment.
    pub(crate) fn add(&self, number: u32) -> rusqlite::Result<()> {
        let sql = "INSERT INTO segments (number, sealed) VALUES (?1, 0)";
        self.connection.execute(sql, [number]).map(|_| ())
    }

    /// Marks a segment as sealed.
    pub(crate) fn seal(
        &self,
        number: u32,
        first: u64,
        facts: &SealedFacts,
    ) -> rusqlite::Result<()> {
        self.connection
            .execute(
                "INSERT OR REPLACE INTO segments VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                (
                    number,
                    first.cast_signed(),
                    facts.records,
                    facts.first_id.to_bytes(),
                    facts.last_id.to_bytes(),
                    facts.bounds.earliest.as_micros(),
                    facts.bounds.latest.as_micros(),
                    facts.last_commit.as_micros(),
                    facts.bytes.cast_signed(),
                ),
            )
            .map(|_| ())
    }

    /// A segment that was listed as sealed is not: its write-ahead file still holds records.
    pub(crate) fn unseal(&self, number: u32) -> rusqlite::Result<()> {
        let sql = "UPDATE segments SET sealed = 0 WHERE number = ?1";
        self.connection.execute(sql, [number]).map(|_| ())
    }

    /// Corrects the times of the last commits of sealed segments.
    pub(crate) fn set_last_commits(&self, commits: &[(u32, Timestamp)]) -> rusqlite::Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.unchecked_transaction()?;
        for (number, last_commit) in commits {
            transaction.execute(
                "UPDATE segments SET last_commit = ?2 WHERE number = ?1 AND sealed = 1",
                (number, last_commit.as_micros()),
            )?;
        }
        transaction.commit()
    }

    /// Takes segments off the list and raises the floor, in one step.
    pub(crate) fn remove(&self, numbers: &[u32], floor: Floor) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        for number in numbers {
            transaction.execute("DELETE FROM segments WHERE number = ?1", [number])?;
        }
        let known = self.floor()?;
        let sql = "INSERT OR REPLACE INTO facts VALUES (?1, ?2)";
        let offset = known.offset.max(floor.offset);
        transaction.execute(sql, ("floor_offset", offset.cast_signed()))?;
        if let Some(id) = known.id.max(floor.id) {
            transaction.execute(sql, ("floor_id", id.to_bytes()))?;
        }
        transaction.commit()
    }

    /// The newest number of each device, as far as it was saved.
    pub(crate) fn heads(&self) -> rusqlite::Result<HashMap<u64, u64>> {
        let mut statement = self.connection.prepare("SELECT device, seq FROM heads")?;
        let heads = statement.query_map((), |row| {
            let (device, seq): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((device.cast_unsigned(), seq.cast_unsigned()))
        })?;
        heads.collect()
    }

    /// Saves the newest numbers of devices. May be repeated: a number never goes back.
    pub(crate) fn save_heads(&self, mut heads: Vec<(u64, u64)>) -> rusqlite::Result<()> {
        // In the order of the table, so that each page is written once.
        heads.sort_unstable_by_key(|(device, _)| device.cast_signed());
        for part in heads.chunks(HEADS_PER_COMMIT) {
            let transaction = self.connection.unchecked_transaction()?;
            let mut statement = transaction.prepare(
                "INSERT INTO heads VALUES (?1, ?2)
                 ON CONFLICT (device) DO UPDATE SET seq = max(seq, excluded.seq)",
            )?;
            for (device, seq) in part {
                statement.execute((device.cast_signed(), seq.cast_signed()))?;
            }
            drop(statement);
            transaction.commit()?;
        }
        Ok(())
    }
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let number = row.get(0)?;
    if row.get::<_, i64>(1)? == 0 {
        return Ok(Listed { number, state: ListedState::Open });
    }
    let time = |column| row.get(column).map(Timestamp::from_micros);
    let facts = SealedFacts {
        records: row.get(3)?,
        first_id: EventId::from_bytes(row.get(4)?),
        last_id: EventId::from_bytes(row.get(5)?),
        bounds: Bounds { earliest: time(6)?, latest: time(7)? },
        last_commit: time(8)?,
        bytes: row.get::<_, i64>(9)?.cast_unsigned(),
    };
    let first = row.get::<_, i64>(2)?.cast_unsigned();
    Ok(Listed { number, state: ListedState::Sealed { first, facts } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_listed_comes_back_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let facts = SealedFacts {
            records: 5,
            first_id: EventId::from_bytes([1; 16]),
            last_id: EventId::from_bytes([2; 16]),
            bounds: Bounds {
                earliest: Timestamp::from_micros(-3),
                latest: Timestamp::from_micros(4),
            },
            last_commit: Timestamp::from_micros(9),
            bytes: 77,
        };
        let control = Control::open(folder.path()).unwrap();
        assert_eq!(control.format().unwrap(), FORMAT);
        control.add(1).unwrap();
        control.add(2).unwrap();
        control.seal(1, 100, &facts).unwrap();
        control.save_heads(vec![(u64::MAX, 3), (5, 7)]).unwrap();
        control.save_heads(vec![(5, 6)]).unwrap();
        control.set_clean_mark().unwrap();
        drop(control);
        let control = Control::open(folder.path()).unwrap();
        assert!(control.take_clean_mark().unwrap());
        assert!(!control.take_clean_mark().unwrap());
        let listed = control.segments().unwrap();
        assert_eq!(listed[0].state, ListedState::Sealed { first: 100, facts });
        assert_eq!(listed[1], Listed { number: 2, state: ListedState::Open });
        assert_eq!(control.heads().unwrap(), HashMap::from([(u64::MAX, 3), (5, 7)]));
    }

    #[test]
    fn the_floor_never_goes_down() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(folder.path()).unwrap();
        let floor = Floor { offset: 10, id: Some(EventId::from_bytes([9; 16])) };
        control.remove(&[], floor).unwrap();
        control.remove(&[], Floor { offset: 5, id: None }).unwrap();
        assert_eq!(control.floor().unwrap(), floor);
    }
}
