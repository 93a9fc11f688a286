//! The tables of keys and of bulk jobs.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use state::Migrations;
use vocabulary::{Iccid, Timestamp};

use crate::{KeyFormat, KeyProtocol, Origin};

pub(crate) const MIGRATIONS: Migrations = Migrations {
    owner: "keys",
    scripts: &["CREATE TABLE psks (
            iccid INTEGER NOT NULL,
            protocol INTEGER NOT NULL,
            format INTEGER NOT NULL,
            origin INTEGER NOT NULL,
            sealed BLOB NOT NULL,
            created_us INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            bootstrapped_us INTEGER,
            PRIMARY KEY (iccid, protocol)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE psk_jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            created_us INTEGER NOT NULL,
            updated_us INTEGER NOT NULL,
            amount INTEGER NOT NULL,
            done INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0,
            -- Until the job is done.
            sealed_entries BLOB
        ) STRICT;
        CREATE INDEX psk_jobs_waiting ON psk_jobs (id) WHERE sealed_entries IS NOT NULL;
        -- Sealed under the data key: shows at the start whether it is the right one.
        CREATE TABLE psk_proof (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            sealed BLOB NOT NULL
        ) STRICT;"],
};

/// A key as it lies in the file.
pub(crate) struct SealedKey {
    pub(crate) iccid: Iccid,
    pub(crate) protocol: KeyProtocol,
    pub(crate) format: KeyFormat,
    pub(crate) origin: Origin,
    pub(crate) sealed: Vec<u8>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) bootstrapped: Option<Timestamp>,
}

const COLUMNS: &str = "SELECT iccid, protocol, format, origin, sealed, created_us, updated_us,
        bootstrapped_us
    FROM psks";

fn read(row: &Row<'_>) -> rusqlite::Result<SealedKey> {
    let unreadable =
        |column| rusqlite::Error::InvalidColumnType(column, "psks".to_owned(), Type::Integer);
    let number: i64 = row.get(0)?;
    let bootstrapped: Option<i64> = row.get(7)?;
    Ok(SealedKey {
        iccid: Iccid::from_u64(number.cast_unsigned()).ok_or_else(|| unreadable(0))?,
        protocol: KeyProtocol::from_code(row.get(1)?).ok_or_else(|| unreadable(1))?,
        format: KeyFormat::from_code(row.get(2)?).ok_or_else(|| unreadable(2))?,
        origin: Origin::from_code(row.get(3)?).ok_or_else(|| unreadable(3))?,
        sealed: row.get(4)?,
        created: Timestamp::from_micros(row.get(5)?),
        updated: Timestamp::from_micros(row.get(6)?),
        bootstrapped: bootstrapped.map(Timestamp::from_micros),
    })
}

fn number(iccid: Iccid) -> i64 {
    iccid.as_u64().cast_signed()
}

/// Every key.
pub(crate) fn each(
    connection: &Connection,
    mut take: impl FnMut(SealedKey),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(COLUMNS)?;
    for key in statement.query_map((), read)? {
        take(key?);
    }
    Ok(())
}

/// The keys of one SIM.
pub(crate) fn of_sim(connection: &Connection, iccid: Iccid) -> rusqlite::Result<Vec<SealedKey>> {
    let mut statement = connection.prepare(&format!("{COLUMNS} WHERE iccid = ?1"))?;
    statement.query_map([number(iccid)], read)?.collect()
}

/// The key of one SIM for one protocol.
pub(crate) fn find(
    connection: &Connection,
    iccid: Iccid,
    protocol: KeyProtocol,
) -> rusqlite::Result<Option<SealedKey>> {
    let sql = format!("{COLUMNS} WHERE iccid = ?1 AND protocol = ?2");
    let mut statement = connection.prepare(&sql)?;
    statement.query_row((number(iccid), protocol.code()), read).optional()
}

/// Writes a key in the place of what was there.
pub(crate) fn put(connection: &Connection, key: &SealedKey) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "INSERT OR REPLACE INTO psks
            (iccid, protocol, format, origin, sealed, created_us, updated_us, bootstrapped_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    statement.execute(params![
        number(key.iccid),
        key.protocol.code(),
        key.format.code(),
        key.origin.code(),
        key.sealed,
        key.created.as_micros(),
        key.updated.as_micros(),
        key.bootstrapped.map(Timestamp::as_micros),
    ])?;
    Ok(())
}

/// Removes the keys of one SIM.
pub(crate) fn remove(connection: &Connection, iccid: Iccid) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM psks WHERE iccid = ?1", [number(iccid)]).map(drop)
}

/// What was sealed when the data key was new.
pub(crate) fn proof(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT sealed FROM psk_proof", (), |row| row.get(0)).optional()
}

pub(crate) fn put_proof(connection: &Connection, sealed: &[u8]) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO psk_proof (id, sealed) VALUES (1, ?1)", [sealed]).map(drop)
}
