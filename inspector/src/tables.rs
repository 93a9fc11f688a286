//! The inspector's tables in the state file.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::{EventId, Iccid, Protocol, Timestamp};

use crate::unflushed::{LastMessage, Unflushed};

const MIGRATIONS: Migrations = Migrations {
    owner: "inspector",
    scripts: &["
        CREATE TABLE inspector_cursor (
            only INTEGER PRIMARY KEY CHECK (only = 0),
            next INTEGER NOT NULL
        );
        CREATE TABLE last_message (
            device INTEGER NOT NULL,
            protocol TEXT NOT NULL,
            id BLOB NOT NULL,
            received_at INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (device, protocol)
        ) WITHOUT ROWID;
        CREATE TABLE hourly_amount (
            hour INTEGER NOT NULL,
            protocol TEXT NOT NULL,
            amount INTEGER NOT NULL,
            PRIMARY KEY (hour, protocol)
        ) WITHOUT ROWID;
    "],
};

/// Amounts of older hours are deleted: 400 days, so that a month can be compared with the same
/// month of the year before. That is at most 28,800 rows.
pub(crate) const AMOUNT_HOURS_MAX: i64 = 400 * 24;

/// Why the inspector could not open its tables.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The state file.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// Its content.
    #[error("inspector tables: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The message log.
    #[error("message log: {0}")]
    Log(#[from] message_log::ReadError),
}

/// One connection to the tables.
#[derive(Debug)]
pub(crate) struct Tables {
    connection: Connection,
}

impl Tables {
    /// A connection for queries.
    pub(crate) fn open(state: &StateFile) -> Result<Self, OpenError> {
        Ok(Self { connection: state.open(MIGRATIONS)? })
    }

    /// The reader's connection. It does not wait for the disk at each commit: all that it writes
    /// can be read again from the log, and its cursor is lost with what is lost.
    pub(crate) fn open_for_reader(state: &StateFile) -> Result<Self, OpenError> {
        let tables = Self::open(state)?;
        tables.connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(tables)
    }

    /// Where the reader goes on; `None` before its first flush.
    pub(crate) fn cursor(&self) -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT next FROM inspector_cursor";
        let next: Option<i64> = self.connection.query_row(sql, (), |row| row.get(0)).optional()?;
        Ok(next.map(i64::cast_unsigned))
    }

    /// Writes changes and the cursor behind them in one transaction.
    pub(crate) fn flush(&mut self, changes: &Unflushed, next: u64) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write_last(&transaction, changes)?;
        write_amounts(&transaction, changes)?;
        transaction.execute(
            "INSERT INTO inspector_cursor (only, next) VALUES (0, ?1)
             ON CONFLICT (only) DO UPDATE SET next = excluded.next",
            [next.cast_signed()],
        )?;
        transaction.commit()
    }

    /// The last message of a device by a protocol.
    pub(crate) fn last(
        &self,
        device: Iccid,
        protocol: Protocol,
    ) -> rusqlite::Result<Option<LastMessage>> {
        let sql =
            "SELECT id, received_at, body FROM last_message WHERE device = ?1 AND protocol = ?2";
        let mut statement = self.connection.prepare(sql)?;
        let key = (device.as_u64().cast_signed(), protocol.as_str());
        statement
            .query_row(key, |row| {
                Ok(LastMessage {
                    id: EventId::from_bytes(row.get(0)?),
                    received_at: Timestamp::from_micros(row.get(1)?),
                    body: row.get(2)?,
                })
            })
            .optional()
    }

    /// Amounts of the hours (since 1970) `from..until`, oldest first.
    pub(crate) fn amounts(
        &self,
        from: i64,
        until: i64,
    ) -> rusqlite::Result<Vec<(i64, Protocol, u64)>> {
        let sql = "SELECT hour, protocol, amount FROM hourly_amount
                   WHERE hour >= ?1 AND hour < ?2 ORDER BY hour, protocol";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map((from, until), |row| {
            let protocol: String = row.get(1)?;
            let amount: i64 = row.get(2)?;
            Ok((row.get(0)?, protocol.parse::<Protocol>(), amount.cast_unsigned()))
        })?;
        let mut amounts = Vec::new();
        for row in rows {
            // A protocol of a newer release is left out.
            if let (hour, Ok(protocol), amount) = row? {
                amounts.push((hour, protocol, amount));
            }
        }
        Ok(amounts)
    }
}

fn write_last(connection: &Connection, changes: &Unflushed) -> rusqlite::Result<()> {
    // In the order of the key: neighbours lie on one page of the file.
    let mut changed: Vec<_> = changes.last.iter().collect();
    changed.sort_unstable_by_key(|(key, _)| **key);
    let mut statement = connection.prepare(
        "INSERT INTO last_message (device, protocol, id, received_at, body)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (device, protocol) DO UPDATE SET
             id = excluded.id, received_at = excluded.received_at, body = excluded.body",
    )?;
    for ((device, protocol), message) in changed {
        statement.execute((
            device.as_u64().cast_signed(),
            protocol.as_str(),
            message.id.to_bytes(),
            message.received_at.as_micros(),
            &message.body,
        ))?;
    }
    Ok(())
}

fn write_amounts(connection: &Connection, changes: &Unflushed) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "INSERT INTO hourly_amount (hour, protocol, amount) VALUES (?1, ?2, ?3)
         ON CONFLICT (hour, protocol) DO UPDATE SET amount = amount + excluded.amount",
    )?;
    for ((hour, protocol), amount) in &changes.amounts {
        statement.execute((hour, protocol.as_str(), amount.cast_signed()))?;
    }
    if let Some(((newest, _), _)) = changes.amounts.last_key_value() {
        let oldest = newest.saturating_sub(AMOUNT_HOURS_MAX);
        connection.execute("DELETE FROM hourly_amount WHERE hour < ?1", [oldest])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> (tempfile::TempDir, Tables) {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        (folder, Tables::open_for_reader(&file).unwrap())
    }

    #[test]
    fn a_flush_comes_back_and_amounts_add_up() {
        let (_folder, mut tables) = tables();
        assert_eq!(tables.cursor().unwrap(), None);
        let device = Iccid::from_u64(9_999_999_999_999_999_999).unwrap();
        let message = LastMessage {
            id: EventId::from_bytes([9; 16]),
            received_at: Timestamp::from_millis(7),
            body: vec![1, 2, 3],
        };
        let mut changes = Unflushed::default();
        changes.remember((device, Protocol::Coap), message.clone());
        changes.count(message.received_at, Protocol::Coap);
        tables.flush(&changes, u64::MAX).unwrap();
        tables.flush(&changes, 12).unwrap();
        assert_eq!(tables.cursor().unwrap(), Some(12));
        assert_eq!(tables.last(device, Protocol::Coap).unwrap(), Some(message));
        assert_eq!(tables.last(device, Protocol::Udp).unwrap(), None);
        assert_eq!(tables.amounts(0, 1).unwrap(), [(0, Protocol::Coap, 2)]);
        assert_eq!(tables.amounts(1, 2).unwrap(), []);
    }

    #[test]
    fn amounts_of_long_ago_are_deleted() {
        let (_folder, mut tables) = tables();
        for hour in [0, 1, AMOUNT_HOURS_MAX + 1] {
            let mut changes = Unflushed::default();
            changes.amounts.insert((hour, Protocol::Udp), 1);
            tables.flush(&changes, 0).unwrap();
        }
        let hours: Vec<i64> =
            tables.amounts(0, i64::MAX).unwrap().into_iter().map(|(hour, ..)| hour).collect();
        assert_eq!(hours, [1, AMOUNT_HOURS_MAX + 1]);
    }
}
