//! LwM2M registrations on disk, with their observations, so that no device has to register again
//! after a restart.
//!
//! A registration is bytes here: what the protocol saves of it. It lies in an SQLite file of its
//! own, as DTLS sessions do: registrations change all the time, and a device must not wait until an
//! import of SIMs has released the state file. What was written survives a power cut.

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::Iccid;

const MIGRATIONS: Migrations = Migrations {
    owner: "registrations",
    scripts: &["CREATE TABLE registrations (
            iccid INTEGER PRIMARY KEY,
            state BLOB NOT NULL
        ) STRICT;"],
};

/// Where registrations are written. One process at a time.
#[derive(Debug)]
pub struct RegistrationStore {
    connection: Connection,
}

/// What has become of the registration of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The device.
    pub iccid: Iccid,
    /// Its registration as it is now; `None` where it is no more.
    pub state: Option<Vec<u8>>,
}

/// Why registrations cannot be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file does not open.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// SQLite refused.
    #[error("file of registrations: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// Whether the disk is full, which can heal by itself.
    pub fn is_full_disk(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }
}

impl RegistrationStore {
    /// Opens `file`, and gives every registration in it to `take`.
    pub fn open(file: &StateFile, mut take: impl FnMut(Iccid, &[u8])) -> Result<Self, StoreError> {
        let connection = file.open(MIGRATIONS)?;
        {
            let mut statement = connection.prepare("SELECT iccid, state FROM registrations")?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                let number: i64 = row.get(0)?;
                let iccid = Iccid::from_u64(number.cast_unsigned()).ok_or_else(|| {
                    rusqlite::Error::InvalidColumnType(0, "iccid".to_owned(), Type::Integer)
                })?;
                take(iccid, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
            }
        }
        Ok(Self { connection })
    }

    /// Writes what has changed, all of it or nothing; of two changes of one device the later one
    /// counts. Blocks; durable when it returns.
    pub fn write<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<(), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut save = transaction.prepare(
                "INSERT INTO registrations (iccid, state) VALUES (?1, ?2)
                 ON CONFLICT (iccid) DO UPDATE SET state = ?2",
            )?;
            let mut forget = transaction.prepare("DELETE FROM registrations WHERE iccid = ?1")?;
            for Change { iccid, state } in changes {
                let number = iccid.as_u64().cast_signed();
                match state {
                    Some(state) => save.execute(params![number, state])?,
                    None => forget.execute([number])?,
                };
            }
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64, state: Option<&[u8]>) -> Change {
        let iccid = Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap();
        Change { iccid, state: state.map(<[u8]>::to_vec) }
    }

    fn read(file: &StateFile) -> Vec<Change> {
        let mut found = Vec::new();
        let take = |iccid, state: &[u8]| found.push(Change { iccid, state: Some(state.to_vec()) });
        drop(RegistrationStore::open(file, take).unwrap());
        found
    }

    #[test]
    fn the_last_change_of_each_device_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("registrations.db"));
        let mut store = RegistrationStore::open(&file, |_, _| unreachable!()).unwrap();
        store.write(&[change(1, Some(b"one")), change(2, Some(b"two"))]).unwrap();
        store
            .write(&[change(1, None), change(3, Some(b"old")), change(3, Some(b"three"))])
            .unwrap();
        store.write(&[change(4, Some(b"four")), change(4, None)]).unwrap();
        drop(store);
        assert_eq!(read(&file), [change(2, Some(b"two")), change(3, Some(b"three"))]);
    }
}
