//! DTLS sessions on disk, so that a restart ends none and sleeping devices do not notice.
//!
//! A session is bytes here: what a DTLS engine saves, with the keys of the session in it, so they
//! are sealed. It lies in an SQLite file of its own: sessions change all the time, and whoever
//! writes the state of the gateway must not wait for them. What was written survives a power cut.
//!
//! [`SessionStore::open`] also numbers the starts of the program, durably, before the first record
//! can be sent: sequence numbers depend on it. The number is at least that of the second, so that a
//! file that was copied back does not number a start like one that has been.
//!
//! A session is forgotten when nothing of it was written for a time that the owner says, also where
//! its listener is not configured any more: a listener that is back finds its sessions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use sealing::Sealer;
use state::{Migrations, StateFile};
use thiserror::Error;
use zeroize::Zeroizing;

/// For [`Sealer::open`].
pub const SEALED_FOR: &str = "simgate dtls sessions";

const MIGRATIONS: Migrations = Migrations {
    owner: "sessions",
    scripts: &["
        CREATE TABLE starts (number INTEGER NOT NULL) STRICT;
        INSERT INTO starts VALUES (0);
        CREATE TABLE listeners (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE) STRICT;
        CREATE TABLE sessions (
            id INTEGER PRIMARY KEY,
            listener INTEGER NOT NULL,
            written_s INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT;
    "],
};

/// Where sessions are written. One process at a time.
#[derive(Debug)]
pub struct SessionStore {
    connection: Connection,
    sealer: Sealer,
    listeners: HashMap<SocketAddr, i64>,
}

/// What an opened store holds.
#[derive(Debug)]
pub struct Opened {
    /// For what comes.
    pub store: SessionStore,
    /// The number of this start, higher than those before; durable.
    pub generation: u32,
    /// Sessions of earlier starts, by the address of their listener.
    pub sessions: HashMap<SocketAddr, Vec<Zeroizing<Vec<u8>>>>,
    /// Sessions that do not open: they were changed, or the data key is another one.
    pub unopened: u64,
}

/// What has become of a session.
#[derive(Debug)]
pub struct Change {
    /// Its number.
    pub id: u64,
    /// As it is now; `None` where it is no more.
    pub session: Option<Zeroizing<Vec<u8>>>,
}

/// Why sessions cannot be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file does not open.
    #[error(transparent)]
    Open(#[from] state::OpenError),
    /// SQLite refused.
    #[error("file of sessions: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The system has no randomness.
    #[error("file of sessions: {0}")]
    Seal(#[from] sealing::SealError),
    /// Not one of the listeners that the store was opened for.
    #[error("no listener at {0}")]
    Listener(SocketAddr),
}

impl SessionStore {
    /// Opens `file` for `listeners`, numbers the start, and forgets the sessions of which nothing
    /// was written for `kept_for`.
    pub fn open(
        file: &StateFile,
        sealer: Sealer,
        listeners: &[SocketAddr],
        kept_for: Duration,
    ) -> Result<Opened, StoreError> {
        Self::open_at(file, sealer, listeners, unix_seconds(SystemTime::now()), kept_for)
    }

    fn open_at(
        file: &StateFile,
        sealer: Sealer,
        listeners: &[SocketAddr],
        now_s: u32,
        kept_for: Duration,
    ) -> Result<Opened, StoreError> {
        let mut connection = file.open(MIGRATIONS)?;
        let transaction = connection.transaction()?;
        let generation = transaction.query_row(
            "UPDATE starts SET number = max(number + 1, ?1) RETURNING number",
            [now_s],
            |row| row.get(0),
        )?;
        let listeners = name_listeners(&transaction, listeners)?;
        let oldest_s = u64::from(now_s).saturating_sub(kept_for.as_secs());
        transaction
            .execute("DELETE FROM sessions WHERE written_s < ?1", [oldest_s.cast_signed()])?;
        transaction.commit()?;
        let mut store = Self { connection, sealer, listeners };
        let (sessions, unopened) = store.read()?;
        Ok(Opened { store, generation, sessions, unopened })
    }

    /// Writes what has changed of one listener. Blocks; durable when it returns.
    pub fn write(&mut self, listener: SocketAddr, changes: &[Change]) -> Result<(), StoreError> {
        let listener = *self.listeners.get(&listener).ok_or(StoreError::Listener(listener))?;
        let now_s = unix_seconds(SystemTime::now());
        let transaction = self.connection.transaction()?;
        {
            let mut save = transaction.prepare(
                "INSERT INTO sessions (id, listener, written_s, sealed) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET listener = ?2, written_s = ?3, sealed = ?4",
            )?;
            let mut forget = transaction.prepare("DELETE FROM sessions WHERE id = ?1")?;
            for Change { id, session } in changes {
                let place = id.cast_signed();
                match session {
                    Some(session) => {
                        let sealed = self.sealer.seal(&id.to_be_bytes(), session)?;
                        save.execute(params![place, listener, now_s, sealed])?
                    }
                    None => forget.execute([place])?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn read(&mut self) -> Result<(HashMap<SocketAddr, Vec<Zeroizing<Vec<u8>>>>, u64), StoreError> {
        let mut sessions: HashMap<_, Vec<_>> = HashMap::new();
        let mut unopened = 0;
        let addresses: HashMap<i64, SocketAddr> =
            self.listeners.iter().map(|(address, id)| (*id, *address)).collect();
        let mut statement = self.connection.prepare("SELECT id, listener, sealed FROM sessions")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (id, listener): (i64, i64) = (row.get(0)?, row.get(1)?);
            let sealed = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            match (self.sealer.unseal(&id.to_be_bytes(), sealed), addresses.get(&listener)) {
                (Ok(session), Some(address)) => {
                    sessions.entry(*address).or_default().push(session);
                }
                // A listener that is not there now may be back later.
                (Ok(_), None) => {}
                (Err(_), _) => unopened += 1,
            }
        }
        Ok((sessions, unopened))
    }
}

/// Seconds fit until 2106.
fn unix_seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The numbers of the listeners.
fn name_listeners(
    connection: &Connection,
    listeners: &[SocketAddr],
) -> rusqlite::Result<HashMap<SocketAddr, i64>> {
    let mut named = HashMap::new();
    for address in listeners {
        let id = connection.query_row(
            "INSERT INTO listeners (address) VALUES (?1)
             ON CONFLICT (address) DO UPDATE SET address = ?1 RETURNING id",
            [address.to_string()],
            |row| row.get(0),
        )?;
        named.insert(*address, id);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sealing::KeySource;

    use super::*;

    fn listener(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn open(folder: &Path, listeners: &[SocketAddr]) -> Opened {
        open_at(folder, listeners, 0)
    }

    fn open_at(folder: &Path, listeners: &[SocketAddr], now_s: u32) -> Opened {
        let source = KeySource::File(folder.join("data.key"));
        source.load(false).unwrap();
        let sealer = Sealer::open(&source, SEALED_FOR).unwrap();
        let file = StateFile::new(folder.join("sessions.db"));
        SessionStore::open_at(&file, sealer, listeners, now_s, Duration::from_secs(60)).unwrap()
    }

    fn saved(id: u64, bytes: &[u8]) -> Change {
        Change { id, session: Some(Zeroizing::new(bytes.to_vec())) }
    }

    #[test]
    fn sessions_come_back_to_their_listener_and_starts_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let both = [listener(1), listener(2)];
        let mut opened = open(folder.path(), &both);
        assert_eq!((opened.generation, opened.sessions.len()), (1, 0));
        let first = [saved(u64::MAX, b"one"), saved(7, b"two"), saved(8, b"three")];
        opened.store.write(both[0], &first).unwrap();
        opened.store.write(both[0], &[saved(7, b"new"), Change { id: 8, session: None }]).unwrap();
        opened.store.write(both[1], &[saved(9, b"other")]).unwrap();
        assert!(matches!(opened.store.write(listener(3), &[]), Err(StoreError::Listener(_))));
        drop(opened);

        let opened = open(folder.path(), &both);
        assert_eq!((opened.generation, opened.unopened), (2, 0));
        let mut of_first: Vec<&[u8]> =
            opened.sessions[&both[0]].iter().map(|session| &session[..]).collect();
        of_first.sort_unstable();
        assert_eq!(of_first, [&b"new"[..], b"one"]);
        assert_eq!(opened.sessions[&both[1]].len(), 1);
        drop(opened);

        let opened = open(folder.path(), &both[1..]);
        assert_eq!((opened.generation, opened.sessions.len()), (3, 1));
        drop(opened);
        assert_eq!(open(folder.path(), &both).sessions.len(), 2, "the listener is back");
        let much_later = unix_seconds(SystemTime::now()) + 100;
        assert_eq!(open_at(folder.path(), &both, much_later).sessions.len(), 0);
    }

    #[test]
    fn a_file_that_was_copied_back_numbers_no_start_twice() {
        let folder = tempfile::tempdir().unwrap();
        let open = |now_s| open_at(folder.path(), &[], now_s).generation;
        assert_eq!((open(100), open(100), open(99)), (100, 101, 102));
        let [file, copy] = ["sessions.db", "copy"].map(|name| folder.path().join(name));
        std::fs::copy(&file, &copy).unwrap();
        assert_eq!((open(200), open(201)), (200, 201));
        std::fs::copy(&copy, &file).unwrap();
        assert_eq!(open(202), 202);
    }

    #[test]
    fn nothing_of_a_session_lies_open_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = open(folder.path(), &[listener(1)]);
        opened.store.write(listener(1), &[saved(1, b"the master secret")]).unwrap();
        drop(opened);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"master"));
        }
    }

    #[test]
    fn a_session_in_the_place_of_another_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = open(folder.path(), &[listener(1)]);
        opened.store.write(listener(1), &[saved(1, b"one"), saved(2, b"two")]).unwrap();
        let moved = "UPDATE sessions SET sealed = (SELECT sealed FROM sessions WHERE id = 2)";
        opened.store.connection.execute(moved, ()).unwrap();
        drop(opened);
        let opened = open(folder.path(), &[listener(1)]);
        assert_eq!((opened.unopened, opened.sessions[&listener(1)].len()), (1, 1));
    }
}
