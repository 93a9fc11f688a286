//! The snapshot: sessions as they were at a place of the log.
//!
//! It lies in an SQLite file of its own, as DTLS sessions do: sessions change all the time. What a
//! crash takes from it the log gives back, so a snapshot is written now and then and not for each
//! report.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::{CellTower, Octets, Timestamp};

use crate::origin::Origin;
use crate::session::Session;
use crate::{Sessions, Settings, Table};

const MIGRATIONS: Migrations = Migrations {
    owner: "data_sessions",
    scripts: &[
        "CREATE TABLE sessions (
            place INTEGER PRIMARY KEY, origin INTEGER NOT NULL, name TEXT NOT NULL,
            began INTEGER NOT NULL, held_since INTEGER NOT NULL, claimed INTEGER NOT NULL,
            heard INTEGER NOT NULL, stopped INTEGER, address INTEGER NOT NULL,
            prefix INTEGER NOT NULL, longest_gap INTEGER NOT NULL, access TEXT, cell TEXT,
            octets_up INTEGER, octets_down INTEGER, iccid INTEGER NOT NULL,
            imsi INTEGER NOT NULL, msisdn INTEGER NOT NULL, imei INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE origins (
            number INTEGER PRIMARY KEY, feed TEXT NOT NULL, server TEXT NOT NULL,
            restarted INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE progress (one INTEGER PRIMARY KEY, cursor INTEGER NOT NULL) STRICT;",
        "ALTER TABLE sessions ADD COLUMN told_s INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN is_former INTEGER NOT NULL DEFAULT 0;
        -- The beginning of time.
        ALTER TABLE origins ADD COLUMN forgotten INTEGER NOT NULL DEFAULT -9223372036854775808;
        ALTER TABLE progress ADD COLUMN newest_arrival INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE progress ADD COLUMN full_at INTEGER NOT NULL DEFAULT 0;
        -- They were told when they were heard.
        UPDATE sessions SET told_s = max(heard / 1000000 + 1, 0);",
        // The end of time: what has octets has their sum.
        "ALTER TABLE sessions ADD COLUMN counted_until INTEGER NOT NULL
            DEFAULT 9223372036854775807;
        -- The beginning of time.
        UPDATE sessions SET counted_until = -9223372036854775808 WHERE octets_up IS NULL;",
    ],
};

/// Where sessions are saved. One process at a time.
#[derive(Debug)]
pub struct SessionStore {
    connection: Connection,
}

/// Why sessions cannot be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file does not open.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// SQLite refused.
    #[error("file of data sessions: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl SessionStore {
    /// Opens `file`, and the sessions that it holds. They are those of [`Sessions::cursor`]: the
    /// log from there on has to be applied.
    pub fn open(file: &StateFile, settings: Settings) -> Result<(Self, Sessions), StoreError> {
        let connection = file.open(MIGRATIONS)?;
        let sessions = Sessions::new(settings);
        {
            let mut table = sessions.write();
            let progress = connection.query_row("SELECT * FROM progress", (), |row| {
                let time = |column| row.get(column).map(Timestamp::from_micros);
                Ok((row.get::<_, i64>(1)?, time(2)?, time(3)?))
            });
            if let Some((cursor, newest_arrival, full_at)) = progress.optional()? {
                table.cursor = cursor.cast_unsigned();
                (table.newest_arrival, table.full_at) = (newest_arrival, full_at);
            }
            let mut origins = connection.prepare("SELECT * FROM origins ORDER BY number")?;
            let mut rows = origins.query(())?;
            while let Some(row) = rows.next()? {
                table.origins.add(Origin {
                    feed: row.get(1)?,
                    server: row.get(2)?,
                    restarted: row.get(3)?,
                    forgotten: row.get(4)?,
                });
            }
            table.origins.changed = false;
            let mut saved = connection.prepare("SELECT * FROM sessions")?;
            let mut rows = saved.query(())?;
            while let Some(row) = rows.next()? {
                table.restore(session(row)?);
            }
        }
        Ok((Self { connection }, sessions))
    }

    /// Forgets everything: what was saved is of another log than the one that is read.
    pub fn clear(&mut self, sessions: &Sessions) -> Result<(), StoreError> {
        self.connection.execute_batch(
            "BEGIN; DELETE FROM sessions; DELETE FROM origins; DELETE FROM progress; COMMIT;",
        )?;
        let mut table = sessions.write();
        *table = Table::new(table.settings.clone());
        Ok(())
    }

    /// Writes what has changed since the last time, all of it or nothing. Blocks; durable when it
    /// returns. Says how many sessions it wrote.
    pub fn write(&mut self, sessions: &Sessions) -> Result<usize, StoreError> {
        let changes = Changes::take(&mut sessions.write());
        if changes.is_empty() {
            return Ok(0);
        }
        let transaction = self.connection.transaction()?;
        match changes.write(&transaction).and_then(|()| transaction.commit()) {
            Ok(()) => Ok(changes.sessions.len()),
            Err(error) => {
                changes.give_back(&mut sessions.write());
                Err(error.into())
            }
        }
    }
}

/// What the file does not show yet.
struct Changes {
    sessions: Vec<(u32, Session)>,
    removed: Vec<u64>,
    origins: Vec<Origin>,
    cursor: u64,
    newest_arrival: Timestamp,
    full_at: Timestamp,
}

impl Changes {
    fn take(table: &mut Table) -> Self {
        let slots = std::mem::take(&mut table.changed);
        let found = |slot| table.slab.find(slot).map(|session| (slot, session.clone()));
        let sessions = slots.into_iter().filter_map(found).collect();
        let origins = match std::mem::take(&mut table.origins.changed) {
            true => table.origins.list().to_vec(),
            false => Vec::new(),
        };
        let removed = std::mem::take(&mut table.removed);
        Self {
            sessions,
            removed,
            origins,
            cursor: table.cursor,
            newest_arrival: table.newest_arrival,
            full_at: table.full_at,
        }
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.removed.is_empty() && self.origins.is_empty()
    }

    /// They were not written.
    fn give_back(self, table: &mut Table) {
        table.changed.extend(self.sessions.iter().map(|(slot, _)| *slot));
        table.removed.extend(self.removed);
        table.origins.changed |= !self.origins.is_empty();
    }

    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut forget = transaction.prepare("DELETE FROM sessions WHERE place = ?1")?;
        for place in &self.removed {
            forget.execute([place.cast_signed()])?;
        }
        let mut save = transaction.prepare(
            "INSERT OR REPLACE INTO sessions VALUES
             (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22)",
        )?;
        for (_, session) in &self.sessions {
            save_session(&mut save, session)?;
        }
        let mut name =
            transaction.prepare("INSERT OR REPLACE INTO origins VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (number, origin) in (0_u32..).zip(&self.origins) {
            let Origin { feed, server, restarted, forgotten } = origin;
            name.execute(params![number, feed, server, restarted, forgotten])?;
        }
        let times = [self.newest_arrival, self.full_at].map(Timestamp::as_micros);
        transaction.execute(
            "INSERT OR REPLACE INTO progress VALUES (1, ?1, ?2, ?3)",
            params![self.cursor.cast_signed(), times[0], times[1]],
        )?;
        Ok(())
    }
}

fn save_session(save: &mut rusqlite::Statement<'_>, session: &Session) -> rusqlite::Result<()> {
    // A struct of numbers and texts always serialises.
    let text = |cell: &CellTower| serde_json::to_string(cell).unwrap_or_default();
    let octets = session.octets().map(|octets| [octets.up, octets.down].map(u64::cast_signed));
    save.execute(params![
        session.place.cast_signed(),
        session.origin,
        session.name,
        session.began,
        session.held_since,
        session.claimed,
        session.heard,
        session.stopped,
        session.address,
        session.prefix.cast_signed(),
        session.longest_gap_s,
        session.access.map(vocabulary::RadioAccess::as_str),
        session.cell.as_ref().map(text),
        octets.map(|[up, _]| up),
        octets.map(|[_, down]| down),
        session.iccid.cast_signed(),
        session.imsi.cast_signed(),
        session.msisdn.cast_signed(),
        session.imei.cast_signed(),
        session.told_s,
        session.is_former,
        session.counted_until,
    ])?;
    Ok(())
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let number = |column: usize| row.get(column).map(i64::cast_unsigned);
    let octets: Option<(i64, i64)> = row.get::<_, Option<i64>>(13)?.zip(row.get(14)?);
    let access: Option<String> = row.get(11)?;
    let cell: Option<String> = row.get(12)?;
    Ok(Session {
        place: number(0)?,
        origin: row.get(1)?,
        name: row.get(2)?,
        began: row.get(3)?,
        held_since: row.get(4)?,
        claimed: row.get(5)?,
        heard: row.get(6)?,
        stopped: row.get(7)?,
        address: row.get(8)?,
        prefix: number(9)?,
        longest_gap_s: row.get(10)?,
        // What this release does not know is no reason to forget a lease.
        access: access.and_then(|text| text.parse().ok()),
        cell: cell.and_then(|text| serde_json::from_str(&text).ok()),
        has_octets: octets.is_some(),
        octets: octets.map_or(Octets::default(), |(up, down)| Octets {
            up: up.cast_unsigned(),
            down: down.cast_unsigned(),
        }),
        iccid: number(15)?,
        imsi: number(16)?,
        msisdn: number(17)?,
        imei: number(18)?,
        told_s: row.get(19)?,
        is_former: row.get(20)?,
        counted_until: row.get(21)?,
    })
}
