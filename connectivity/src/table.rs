//! The tables, and how a SIM lies in them.
//!
//! An ICCID has up to 19 digits, more than a signed 64-bit integer holds, so the key is the number
//! minus 2^63: every number fits and the order stays. An address is a blob of 4 or 16 bytes, whose
//! order is that of the addresses. Each change of a SIM takes the next number of one counter, its
//! revision; a SIM that is gone leaves its number and its revision behind.

use std::fmt::Display;
use std::net::IpAddr;

use rusqlite::types::{FromSqlError, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Statement, ffi, params};
use state::Migrations;
use thiserror::Error;
use vocabulary::{Iccid, Imsi, Timestamp};

use crate::changes::REMOVALS_KEPT;
use crate::sim::{Conflict, Sim};

pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "sims",
    scripts: &["
        CREATE TABLE sims (
            iccid    INTEGER PRIMARY KEY,
            imsi     INTEGER,
            msisdn   TEXT,
            imei     TEXT,
            ip       BLOB,
            label    TEXT NOT NULL,
            active   INTEGER NOT NULL,
            created  INTEGER NOT NULL,
            updated  INTEGER NOT NULL,
            revision INTEGER NOT NULL
        );
        CREATE UNIQUE INDEX sims_by_ip ON sims (ip);
        CREATE INDEX sims_by_imsi ON sims (imsi);
        CREATE UNIQUE INDEX sims_by_revision ON sims (revision);
        CREATE TABLE sim_removals (
            revision INTEGER PRIMARY KEY,
            iccid    INTEGER NOT NULL
        );
        CREATE TABLE sim_counters (
            id        INTEGER PRIMARY KEY CHECK (id = 1),
            revision  INTEGER NOT NULL,
            total     INTEGER NOT NULL,
            active    INTEGER NOT NULL,
            forgotten INTEGER NOT NULL
        );
        INSERT INTO sim_counters VALUES (1, 0, 0, 0, 0);
    "],
};

/// The columns that [`sim_of_row`] reads, in its order.
macro_rules! sim_columns {
    () => {
        "iccid, imsi, msisdn, imei, ip, label, active, created, updated, revision"
    };
}
pub(crate) use sim_columns;

/// Index of `revision` among [`sim_columns`].
pub(crate) const REVISION_COLUMN: usize = 9;

/// Why a write was not made.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    Store(#[from] rusqlite::Error),
}

/// The numbers that every write keeps up to date.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) revision: i64,
    pub(crate) total: i64,
    pub(crate) active: i64,
    /// Removals up to this revision are forgotten.
    pub(crate) forgotten: i64,
}

impl Counters {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT revision, total, active, forgotten FROM sim_counters";
        connection.query_row(sql, (), |row| {
            Ok(Self {
                revision: row.get(0)?,
                total: row.get(1)?,
                active: row.get(2)?,
                forgotten: row.get(3)?,
            })
        })
    }
}

/// Writes within one transaction, with statements that are prepared once.
pub(crate) struct Table<'c> {
    connection: &'c Connection,
    find: Statement<'c>,
    insert: Statement<'c>,
    update: Statement<'c>,
    counters: Counters,
}

impl<'c> Table<'c> {
    /// `connection` must be in a transaction that already holds the write lock.
    pub(crate) fn open(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            find: connection.prepare(concat!(
                "SELECT ",
                sim_columns!(),
                " FROM sims WHERE iccid = ?1"
            ))?,
            insert: connection.prepare(concat!(
                "INSERT INTO sims (",
                sim_columns!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ))?,
            update: connection.prepare(
                "UPDATE sims SET imsi = ?2, msisdn = ?3, imei = ?4, ip = ?5, label = ?6,
                 active = ?7, updated = ?9, revision = ?10, created = ?8 WHERE iccid = ?1",
            )?,
            counters: Counters::load(connection)?,
        })
    }

    pub(crate) fn find(&mut self, iccid: Iccid) -> rusqlite::Result<Option<Sim>> {
        self.find.query_row([key_of(iccid)], sim_of_row).optional()
    }

    pub(crate) fn insert(&mut self, sim: &Sim) -> Result<(), WriteError> {
        let revision = self.counters.revision + 1;
        let result = write(&mut self.insert, sim, revision);
        self.explain(result, sim)?;
        self.counters.revision = revision;
        self.counters.total += 1;
        self.counters.active += i64::from(sim.active);
        Ok(())
    }

    /// Replaces `before`, which has the same ICCID.
    pub(crate) fn update(&mut self, before: &Sim, after: &Sim) -> Result<(), WriteError> {
        let revision = self.counters.revision + 1;
        let result = write(&mut self.update, after, revision);
        self.explain(result, after)?;
        self.counters.revision = revision;
        self.counters.active += i64::from(after.active) - i64::from(before.active);
        Ok(())
    }

    pub(crate) fn remove(&mut self, sim: &Sim) -> rusqlite::Result<()> {
        self.counters.revision += 1;
        self.counters.total -= 1;
        self.counters.active -= i64::from(sim.active);
        let key = key_of(sim.iccid);
        self.connection.execute("DELETE FROM sims WHERE iccid = ?1", [key])?;
        self.connection.execute(
            "INSERT INTO sim_removals (revision, iccid) VALUES (?1, ?2)",
            (self.counters.revision, key),
        )?;
        self.forget_removals()
    }

    /// Stores the counters; the caller commits.
    pub(crate) fn finish(self) -> rusqlite::Result<()> {
        let Counters { revision, total, active, forgotten } = self.counters;
        self.connection.execute(
            "UPDATE sim_counters SET revision = ?1, total = ?2, active = ?3, forgotten = ?4
             WHERE revision <> ?1",
            (revision, total, active, forgotten),
        )?;
        Ok(())
    }

    fn forget_removals(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT revision FROM sim_removals ORDER BY revision DESC LIMIT 1 OFFSET ?1";
        let surplus: Option<i64> =
            self.connection.query_row(sql, [REMOVALS_KEPT], |row| row.get(0)).optional()?;
        if let Some(revision) = surplus {
            self.connection.execute("DELETE FROM sim_removals WHERE revision <= ?1", [revision])?;
            self.counters.forgotten = revision;
        }
        Ok(())
    }

    /// Turns a violated uniqueness into the conflict behind it.
    fn explain(&self, result: rusqlite::Result<()>, sim: &Sim) -> Result<(), WriteError> {
        let Err(error) = result else { return Ok(()) };
        match error.sqlite_error().map(|cause| cause.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID) => {
                Err(Conflict::Iccid(sim.iccid).into())
            }
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE) => match (sim.ip, self.owner(sim.ip)?) {
                (Some(ip), Some(owner)) => Err(Conflict::Address { ip, owner }.into()),
                _ => Err(error.into()),
            },
            _ => Err(error.into()),
        }
    }

    fn owner(&self, ip: Option<IpAddr>) -> rusqlite::Result<Option<Iccid>> {
        let sql = "SELECT iccid FROM sims WHERE ip = ?1";
        self.connection.query_row(sql, [ip.map(blob_of)], |row| iccid_of(row, 0)).optional()
    }
}

fn write(statement: &mut Statement<'_>, sim: &Sim, revision: i64) -> rusqlite::Result<()> {
    statement.execute(params![
        key_of(sim.iccid),
        sim.imsi.map(|imsi| imsi.as_u64().cast_signed()),
        sim.msisdn.map(|msisdn| msisdn.to_string()),
        sim.imei.map(|imei| imei.to_string()),
        sim.ip.map(blob_of),
        sim.label,
        sim.active,
        sim.created.as_micros(),
        sim.updated.as_micros(),
        revision,
    ])?;
    Ok(())
}

/// The key of a SIM: its number minus 2^63.
pub(crate) fn key_of(iccid: Iccid) -> i64 {
    (iccid.as_u64() ^ (1 << 63)).cast_signed()
}

/// The SIM of the key in column `index`.
pub(crate) fn iccid_of(row: &Row<'_>, index: usize) -> rusqlite::Result<Iccid> {
    let key: i64 = row.get(index)?;
    Iccid::from_u64(key.cast_unsigned() ^ (1 << 63))
        .ok_or_else(|| malformed(index, format!("{key} is not the key of a sim")))
}

/// An address as a blob. Held on the stack: a million SIMs are written and read by this.
pub(crate) fn blob_of(ip: IpAddr) -> Blob {
    match ip {
        IpAddr::V4(v4) => Blob::V4(v4.octets()),
        IpAddr::V6(v6) => Blob::V6(v6.octets()),
    }
}

/// See [`blob_of`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blob {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl rusqlite::ToSql for Blob {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes: &[u8] = match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        };
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(bytes)))
    }
}

/// Reads a row of [`sim_columns`].
pub(crate) fn sim_of_row(row: &Row<'_>) -> rusqlite::Result<Sim> {
    Ok(Sim {
        iccid: iccid_of(row, 0)?,
        imsi: imsi_of(row, 1)?,
        msisdn: digits_of(row, 2)?,
        imei: digits_of(row, 3)?,
        ip: ip_of(row, 4)?,
        label: row.get(5)?,
        active: row.get(6)?,
        created: Timestamp::from_micros(row.get(7)?),
        updated: Timestamp::from_micros(row.get(8)?),
    })
}

fn imsi_of(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Imsi>> {
    let Some(number) = row.get::<_, Option<i64>>(index)? else { return Ok(None) };
    match u64::try_from(number).ok().and_then(Imsi::from_u64) {
        Some(imsi) => Ok(Some(imsi)),
        None => Err(malformed(index, format!("{number} is not an imsi"))),
    }
}

fn digits_of<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: Display>,
{
    let Some(text) = row.get_ref(index)?.as_str_or_null().map_err(|e| wrong_type(index, e))? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error: T::Err| malformed(index, error.to_string()))
}

fn ip_of(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<IpAddr>> {
    let Some(bytes) = row.get_ref(index)?.as_blob_or_null().map_err(|e| wrong_type(index, e))?
    else {
        return Ok(None);
    };
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(Some(octets.into()))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(Some(octets.into()))
    } else {
        Err(malformed(index, format!("an address of {} bytes, allowed: 4 or 16", bytes.len())))
    }
}

fn wrong_type(index: usize, error: FromSqlError) -> rusqlite::Error {
    malformed(index, error.to_string())
}

/// The file holds what this crate never wrote.
fn malformed(index: usize, reason: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Null, reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_the_numbers() {
        let numbers = [0, 1, i64::MAX as u64, i64::MAX as u64 + 1, 9_999_999_999_999_999_999];
        let keys: Vec<i64> =
            numbers.iter().map(|number| key_of(Iccid::from_u64(*number).unwrap())).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
