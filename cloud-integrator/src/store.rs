//! Integrations and their cursors in the state file.
//!
//! The file is the one truth: what the management API shows is read from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::Timestamp;

use crate::event_type::EventTypes;
use crate::integration::{Integration, IntegrationState};
use crate::window::Position;

const MIGRATIONS: Migrations = Migrations {
    owner: "cloud-integrator",
    scripts: &["CREATE TABLE integrations (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        url TEXT NOT NULL,
        canonical_url TEXT NOT NULL UNIQUE,
        headers TEXT NOT NULL,
        event_types INTEGER NOT NULL,
        json_payload_enabled INTEGER NOT NULL,
        state TEXT NOT NULL,
        created_at_us INTEGER NOT NULL,
        updated_at_us INTEGER NOT NULL,
        first_delivery_at_us INTEGER,
        -- All places of the log below are done, except the holes (8 bytes each, little-endian);
        -- NULL until the integration first runs.
        resume INTEGER,
        holes BLOB
    ) STRICT"],
};

const COLUMNS: &str = "id, name, url, headers, event_types, json_payload_enabled, state, \
    created_at_us, updated_at_us, first_delivery_at_us";

/// Why the state file did not do as it was asked. We are at fault.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// SQLite refused.
    #[error("the table of integrations: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row holds what no release wrote.
    #[error("integration {id} holds no valid {field}")]
    Row {
        /// The row.
        id: String,
        /// The column.
        field: &'static str,
    },
    /// The thread that did the work is gone.
    #[error("the work on the state file was cut off")]
    CutOff,
    /// The system gave no randomness for an id.
    #[error("no randomness: {0}")]
    Random(String),
}

/// How an insert or an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Yes,
    /// Another integration has the URL.
    Conflict,
    NotFound,
}

/// What a forwarder has achieved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How far it has come in the log.
    pub(crate) position: Position,
    /// Whether anything was delivered.
    pub(crate) delivered: bool,
    /// When the first message of a device was delivered, as far as this forwarder knows.
    pub(crate) first_delivery_at: Option<Timestamp>,
}

/// The table of integrations. Cheap to clone; every call blocks.
#[derive(Debug, Clone)]
pub struct Store(Arc<Mutex<Connection>>);

/// Where one integration keeps its place in the log. Cheap to clone; every call blocks.
#[derive(Debug, Clone)]
pub struct Bookmark {
    store: Store,
    id: Arc<str>,
}

impl Store {
    /// Opens the table.
    pub fn open(file: &StateFile) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Mutex::new(file.open(MIGRATIONS)?))))
    }

    /// The place-keeper of the integration `id`.
    pub fn bookmark(&self, id: &str) -> Bookmark {
        Bookmark { store: self.clone(), id: id.into() }
    }

    /// A panic elsewhere cannot leave the connection half-written: each call is one statement.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an integration that starts at the place `start`.
    pub(crate) fn insert(
        &self,
        integration: &Integration,
        canonical_url: &str,
        start: Option<u64>,
    ) -> Result<Stored, StoreError> {
        let result = self.connection().execute(
            "INSERT INTO integrations (id, name, url, canonical_url, headers, event_types,
                json_payload_enabled, state, created_at_us, updated_at_us, resume)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                integration.id,
                integration.name,
                integration.url,
                canonical_url,
                headers_text(integration),
                integration.event_types.bits(),
                integration.json_payload_enabled,
                integration.state.as_str(),
                integration.created_at.as_micros(),
                integration.updated_at.as_micros(),
                start.map(to_column),
            ],
        );
        stored(result)
    }

    /// Writes what a customer can change.
    pub(crate) fn update(
        &self,
        integration: &Integration,
        canonical_url: &str,
    ) -> Result<Stored, StoreError> {
        let result = self.connection().execute(
            "UPDATE integrations SET url = ?2, canonical_url = ?3, headers = ?4, event_types = ?5,
                json_payload_enabled = ?6, updated_at_us = ?7 WHERE id = ?1",
            params![
                integration.id,
                integration.url,
                canonical_url,
                headers_text(integration),
                integration.event_types.bits(),
                integration.json_payload_enabled,
                integration.updated_at.as_micros(),
            ],
        );
        stored(result)
    }

    /// Writes a new state.
    pub(crate) fn set_state(
        &self,
        id: &str,
        state: IntegrationState,
    ) -> Result<Stored, StoreError> {
        stored(self.connection().execute(
            "UPDATE integrations SET state = ?2 WHERE id = ?1",
            params![id, state.as_str()],
        ))
    }

    /// Removes an integration; `false` where there is none.
    pub(crate) fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.connection().execute("DELETE FROM integrations WHERE id = ?1", [id])?;
        Ok(rows > 0)
    }

    /// One integration.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Integration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM integrations WHERE id = ?1");
        let connection = self.connection();
        let mut statement = connection.prepare(&sql)?;
        statement.query_row([id], |row| Ok(read(row))).optional()?.transpose()
    }

    /// All integrations, the oldest first.
    pub(crate) fn list(&self) -> Result<Vec<Integration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM integrations ORDER BY created_at_us, id");
        let connection = self.connection();
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> Result<usize, StoreError> {
        let count: i64 =
            self.connection()
                .query_row("SELECT count(*) FROM integrations", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

impl Bookmark {
    /// The integration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The lowest place of the log that is not done; `None` before the first run.
    pub fn cursor(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.position()?.map(|position| position.cursor()))
    }

    /// Where to go on; `None` before the first run.
    pub(crate) fn position(&self) -> Result<Option<Position>, StoreError> {
        let sql = "SELECT resume, holes FROM integrations WHERE id = ?1";
        let columns = self
            .store
            .connection()
            .query_row(sql, [&*self.id], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
            })
            .optional()?;
        let Some((Some(resume), holes)) = columns else { return Ok(None) };
        let holes = holes.unwrap_or_default();
        let (holes, _) = holes.as_chunks();
        let holes = holes.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        Ok(Some(Position { resume: from_column(resume), holes }))
    }

    /// Keeps the place and what was achieved. Durable when it returns.
    pub(crate) fn save(&self, progress: &Progress) -> Result<(), StoreError> {
        let connection = self.store.connection();
        let mut statement = connection.prepare(
            "UPDATE integrations SET resume = ?2, holes = ?7,
                state = CASE WHEN ?3 AND state = ?4 THEN ?5 ELSE state END,
                first_delivery_at_us = coalesce(first_delivery_at_us, ?6)
             WHERE id = ?1",
        )?;
        statement.execute(params![
            &*self.id,
            to_column(progress.position.resume),
            progress.delivered,
            IntegrationState::RolloutDone.as_str(),
            IntegrationState::IntegrationActive.as_str(),
            progress.first_delivery_at.map(Timestamp::as_micros),
            progress.position.holes.iter().flat_map(|hole| hole.to_le_bytes()).collect::<Vec<_>>(),
        ])?;
        Ok(())
    }
}

/// SQLite has signed integers only; the bits come back as they went.
fn to_column(place: u64) -> i64 {
    i64::from_ne_bytes(place.to_ne_bytes())
}

fn from_column(column: i64) -> u64 {
    u64::from_ne_bytes(column.to_ne_bytes())
}

fn headers_text(integration: &Integration) -> String {
    // A map of texts always serialises.
    serde_json::to_string(&integration.headers).unwrap_or_default()
}

fn stored(result: rusqlite::Result<usize>) -> Result<Stored, StoreError> {
    match result {
        Ok(0) => Ok(Stored::NotFound),
        Ok(_) => Ok(Stored::Yes),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Stored::Conflict)
        }
        Err(error) => Err(error.into()),
    }
}

fn read(row: &Row<'_>) -> Result<Integration, StoreError> {
    let id: String = row.get(0)?;
    let invalid = |field| StoreError::Row { id: id.clone(), field };
    let headers: BTreeMap<String, String> =
        serde_json::from_str(&row.get::<_, String>(3)?).map_err(|_| invalid("headers"))?;
    let event_types = EventTypes::from_bits(row.get(4)?).ok_or_else(|| invalid("event types"))?;
    let state =
        IntegrationState::from_name(&row.get::<_, String>(6)?).ok_or_else(|| invalid("state"))?;
    Ok(Integration {
        name: row.get(1)?,
        url: row.get(2)?,
        headers,
        event_types,
        json_payload_enabled: row.get(5)?,
        state,
        created_at: Timestamp::from_micros(row.get(7)?),
        updated_at: Timestamp::from_micros(row.get(8)?),
        first_delivery_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_micros),
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integration(id: &str) -> Integration {
        Integration {
            id: id.to_owned(),
            name: "a name".to_owned(),
            url: format!("https://h.example/{id}"),
            headers: [("x-api-key".to_owned(), "s3cret".to_owned())].into(),
            event_types: EventTypes::ALL,
            json_payload_enabled: true,
            state: IntegrationState::RolloutDone,
            created_at: Timestamp::from_micros(1_000_001),
            updated_at: Timestamp::from_micros(1_000_002),
            first_delivery_at: None,
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StateFile::new(folder.path().join("state.db"))).unwrap();
        (folder, store)
    }

    #[test]
    fn an_integration_comes_back() {
        let (_folder, store) = store();
        let mut one = integration("one");
        assert_eq!(store.insert(&one, &one.url, None).unwrap(), Stored::Yes);
        assert_eq!(store.find("one").unwrap(), Some(one.clone()));
        one.url = "https://h.example/new".to_owned();
        one.json_payload_enabled = false;
        assert_eq!(store.update(&one, &one.url).unwrap(), Stored::Yes);
        assert_eq!(store.list().unwrap(), [one]);
        assert!(store.delete("one").unwrap() && !store.delete("one").unwrap());
        assert_eq!(store.count().unwrap(), 0);
    }

    #[test]
    fn one_url_belongs_to_one_integration() {
        let (_folder, store) = store();
        let (one, two) = (integration("one"), integration("two"));
        store.insert(&one, "https://h/", None).unwrap();
        assert_eq!(store.insert(&two, "https://h/", None).unwrap(), Stored::Conflict);
        store.insert(&two, "https://h/2", None).unwrap();
        assert_eq!(store.update(&two, "https://h/").unwrap(), Stored::Conflict);
        assert_eq!(store.update(&integration("no"), "x").unwrap(), Stored::NotFound);
    }

    #[test]
    fn the_first_delivery_is_kept_and_changes_the_state_once() {
        let (_folder, store) = store();
        let one = integration("one");
        store.insert(&one, &one.url, Some(u64::MAX - 1)).unwrap();
        let bookmark = store.bookmark("one");
        assert_eq!(bookmark.cursor().unwrap(), Some(u64::MAX - 1));
        let at = |resume, holes| Progress {
            position: Position { resume, holes },
            ..Progress::default()
        };
        bookmark.save(&at(500, vec![5, u64::MAX])).unwrap();
        assert_eq!(bookmark.cursor().unwrap(), Some(5));
        assert_eq!(bookmark.position().unwrap(), Some(at(500, vec![5, u64::MAX]).position));
        assert_eq!(store.find("one").unwrap().unwrap().state, IntegrationState::RolloutDone);
        for (cursor, micros) in [(6, 70), (7, 80)] {
            let first_delivery_at = Some(Timestamp::from_micros(micros));
            let progress = Progress { delivered: true, first_delivery_at, ..at(cursor, vec![]) };
            bookmark.save(&progress).unwrap();
        }
        let found = store.find("one").unwrap().unwrap();
        assert_eq!(found.state, IntegrationState::IntegrationActive);
        assert_eq!(found.first_delivery_at, Some(Timestamp::from_micros(70)));
        assert_eq!(bookmark.cursor().unwrap(), Some(7));
        store.set_state("one", IntegrationState::IntegrationFailed).unwrap();
        bookmark.save(&Progress { delivered: true, ..at(8, vec![]) }).unwrap();
        assert_eq!(store.find("one").unwrap().unwrap().state, IntegrationState::IntegrationFailed);
    }
}
