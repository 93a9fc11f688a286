//! The locator's file: where devices were last and which fences they are in, what cells were
//! learned, the geofences, and the cursor of the reader.
//!
//! A file of its own, as the registrations have one: it changes all the time.

use cell_database::{LearnedCell, OpenError};
use geofence::DeviceState;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::{Iccid, Located};

use crate::devices::{CellHistory, Device};
use crate::geofences::Geofence;

const MIGRATIONS: Migrations = Migrations {
    owner: "locator",
    scripts: &[
        "CREATE TABLE devices (
            iccid INTEGER PRIMARY KEY, latest TEXT, fences BLOB NOT NULL, cell TEXT NOT NULL
        ) STRICT;
        CREATE TABLE geofences (number INTEGER PRIMARY KEY, geofence TEXT NOT NULL) STRICT;
        CREATE TABLE cells (tower TEXT PRIMARY KEY, cell TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE progress (one INTEGER PRIMARY KEY, cursor INTEGER NOT NULL) STRICT;",
        // Devices remember fences by their numbers: none is given twice.
        "CREATE TABLE numbers (one INTEGER PRIMARY KEY, last INTEGER NOT NULL) STRICT;
        INSERT INTO numbers SELECT 1, COALESCE(MAX(number), 0) FROM geofences;",
    ],
};

/// Why the file cannot be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// The cell database does not.
    #[error(transparent)]
    Cells(#[from] OpenError),
    /// The system has no random bytes for an id.
    #[error("no id: {0}")]
    Random(String),
    /// SQLite refused.
    #[error("file of the locator: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
}

/// All that the file holds.
pub(crate) struct Saved {
    pub(crate) devices: Vec<(Iccid, Device)>,
    pub(crate) geofences: Vec<Geofence>,
    pub(crate) cells: Vec<LearnedCell>,
}

/// What has changed, with the place up to which it was read.
pub(crate) struct Changes {
    /// `None` of those that are forgotten.
    pub(crate) devices: Vec<(Iccid, Option<Device>)>,
    pub(crate) cells: Vec<LearnedCell>,
    pub(crate) cursor: u64,
}

impl Store {
    pub(crate) fn open(file: &StateFile) -> Result<Self, StoreError> {
        Ok(Self { connection: file.open(MIGRATIONS)? })
    }

    /// Everything; what this release cannot read is left out.
    pub(crate) fn load(&mut self) -> Result<Saved, StoreError> {
        let mut devices = Vec::new();
        let mut select =
            self.connection.prepare("SELECT iccid, latest, fences, cell FROM devices")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let Some(iccid) = Iccid::from_u64(number.cast_unsigned()) else { continue };
            let latest: Option<String> = row.get(1)?;
            let fences: Vec<u8> = row.get(2)?;
            let cell: String = row.get(3)?;
            let device = Device {
                latest: latest.and_then(|text| Located::decode(text.as_bytes()).ok()),
                fences: DeviceState::from_bytes(&fences).unwrap_or_default(),
                cell: serde_json::from_str::<CellHistory>(&cell).unwrap_or_default(),
                refusal_told: None,
            };
            devices.push((iccid, device));
        }
        let geofences = self.texts("SELECT geofence FROM geofences ORDER BY number")?;
        let cells = self.texts("SELECT cell FROM cells")?;
        Ok(Saved { devices, geofences, cells })
    }

    fn texts<T: serde::de::DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, StoreError> {
        let mut select = self.connection.prepare(query)?;
        let texts = select.query_map((), |row| row.get::<_, String>(0))?;
        let mut found = Vec::new();
        for text in texts {
            found.extend(serde_json::from_str(&text?).ok());
        }
        Ok(found)
    }

    pub(crate) fn cursor(&self) -> Result<Option<u64>, StoreError> {
        let cursor = self.connection.query_row("SELECT cursor FROM progress", (), |row| row.get(0));
        Ok(cursor.optional()?.map(i64::cast_unsigned))
    }

    /// Writes changes, all of them or nothing. Durable when it returns.
    pub(crate) fn write(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut save =
                transaction.prepare("INSERT OR REPLACE INTO devices VALUES (?1, ?2, ?3, ?4)")?;
            let mut forget = transaction.prepare("DELETE FROM devices WHERE iccid = ?1")?;
            for (iccid, device) in &changes.devices {
                let Some(device) = device else {
                    forget.execute([iccid.as_u64().cast_signed()])?;
                    continue;
                };
                let latest = device.latest.as_ref().map(json);
                let fences = device.fences.to_bytes();
                let cell = json(&device.cell);
                save.execute(params![iccid.as_u64().cast_signed(), latest, fences, cell])?;
            }
            let mut save = transaction.prepare("INSERT OR REPLACE INTO cells VALUES (?1, ?2)")?;
            for cell in &changes.cells {
                save.execute(params![json(&cell.tower), json(cell)])?;
            }
        }
        let cursor = changes.cursor.cast_signed();
        transaction.execute("INSERT OR REPLACE INTO progress VALUES (1, ?1)", [cursor])?;
        Ok(transaction.commit()?)
    }

    /// A number that no geofence had before.
    pub(crate) fn next_number(&mut self) -> Result<u64, StoreError> {
        let next = "UPDATE numbers SET last = last + 1 RETURNING last";
        let number: i64 = self.connection.query_row(next, (), |row| row.get(0))?;
        Ok(number.cast_unsigned())
    }

    pub(crate) fn save_geofence(&mut self, geofence: &Geofence) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO geofences VALUES (?1, ?2)",
            params![geofence.number.cast_signed(), json(geofence)],
        )?;
        Ok(())
    }

    pub(crate) fn delete_geofence(&mut self, geofence: &Geofence) -> Result<(), StoreError> {
        let number = geofence.number.cast_signed();
        self.connection.execute("DELETE FROM geofences WHERE number = ?1", [number])?;
        Ok(())
    }
}

/// A struct of texts and finite numbers always serialises.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
