//! One segment: a file of records, its index, and how to open it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use vocabulary::{EventId, Timestamp};

use crate::chain::{Bounds, Chain};
use crate::disk;
use crate::sealed::Summary;

/// The format of a segment file, kept in its header.
const FORMAT: i64 = 1;
/// Readers wait so long while the engine recovers a write-ahead file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page cache of one reading connection, in KiB: a read touches few pages, and the operating
/// system caches the file.
const READER_CACHE_KIB: i64 = 256;

pub(crate) const SELECT_ROW: &str = "SELECT row FROM records WHERE offset = ?1";
pub(crate) const INSERT_ROW: &str = "INSERT INTO records (offset, row) VALUES (?1, ?2)";

/// What is known about a segment that is complete; kept in the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedFacts {
    pub(crate) records: u32,
    pub(crate) first_id: EventId,
    pub(crate) last_id: EventId,
    pub(crate) bounds: Bounds,
    pub(crate) last_commit: Timestamp,
    pub(crate) bytes: u64,
}

/// How the records of a device and the rare records are found.
#[derive(Debug)]
pub(crate) enum Index {
    /// In memory: the segment is not sealed yet, or its index was damaged.
    Chain(Chain),
    /// On disk, with the summary as far as it was read.
    OnDisk(Option<Arc<Summary>>),
}

/// A segment in the list of readers.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    /// The offset of its first record.
    pub(crate) first: u64,
    index: RwLock<Index>,
    facts: RwLock<Option<SealedFacts>>,
    sealed: AtomicBool,
    last_commit: AtomicU64,
}

impl Segment {
    /// A segment with its index in memory.
    pub(crate) fn open(number: u32, path: PathBuf, first: u64, chain: Chain) -> Self {
        let last = chain.last_id.map_or(Timestamp::EPOCH, EventId::timestamp);
        let segment = Self {
            number,
            path,
            first,
            index: RwLock::new(Index::Chain(chain)),
            facts: RwLock::new(None),
            sealed: AtomicBool::new(false),
            last_commit: AtomicU64::new(0),
        };
        segment.committed_at(last);
        segment
    }

    /// A sealed segment.
    pub(crate) fn sealed(number: u32, path: PathBuf, first: u64, facts: SealedFacts) -> Self {
        Self {
            number,
            path,
            first,
            index: RwLock::new(Index::OnDisk(None)),
            facts: RwLock::new(Some(facts)),
            sealed: AtomicBool::new(true),
            last_commit: AtomicU64::new(facts.last_commit.as_micros().cast_unsigned()),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn facts(&self) -> Option<SealedFacts> {
        *self.facts.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// From now on readers use the index on disk.
    pub(crate) fn become_sealed(&self, facts: SealedFacts, summary: Summary) {
        *self.facts.write().unwrap_or_else(PoisonError::into_inner) = Some(facts);
        *self.index_mut() = Index::OnDisk(Some(Arc::new(summary)));
        self.sealed.store(true, Ordering::Release);
    }

    /// Remembers the moment of a commit; retention counts from the latest.
    pub(crate) fn committed_at(&self, now: Timestamp) {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        self.last_commit.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn last_commit(&self) -> Timestamp {
        Timestamp::from_micros(self.last_commit.load(Ordering::Relaxed).cast_signed())
    }

    /// Records held, damaged ones included.
    pub(crate) fn records(&self) -> u32 {
        match (&*self.index(), self.facts()) {
            (_, Some(facts)) => facts.records,
            (Index::Chain(chain), None) => chain.len(),
            (Index::OnDisk(_), None) => 0,
        }
    }

    /// The id of the first record.
    pub(crate) fn first_id(&self) -> Option<EventId> {
        match (self.facts(), &*self.index()) {
            (Some(facts), _) => Some(facts.first_id),
            (None, Index::Chain(chain)) => chain.first_id,
            (None, Index::OnDisk(_)) => None,
        }
    }

    /// The times of reception of all records.
    pub(crate) fn bounds(&self) -> Bounds {
        match (self.facts(), &*self.index()) {
            (Some(facts), _) => facts.bounds,
            (None, Index::Chain(chain)) => Bounds::of(chain.blocks()),
            (None, Index::OnDisk(_)) => Bounds::EMPTY,
        }
    }
}

/// The file of segment `number`.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("segment-{number:010}.db"))
}

/// The number of a segment's file, or of one of the files beside it.
pub(crate) fn number_of(file_name: &str) -> Option<u32> {
    file_name.strip_prefix("segment-")?.get(..10)?.parse().ok()
}

/// A file that the storage engine keeps beside `path`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Removes a segment's file and those beside it; what is not there is no error.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    for ending in ["", "-wal", "-shm"] {
        match std::fs::remove_file(beside(path, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes an empty segment, whose write-ahead file has its full length.
pub(crate) fn create(path: &Path, page_bytes: u32) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "page_size", page_bytes)?;
    set_up_writer(&connection)?;
    connection.execute_batch(
        "CREATE TABLE records (offset INTEGER PRIMARY KEY, row BLOB NOT NULL);
         CREATE TABLE chunks (number INTEGER PRIMARY KEY, body BLOB NOT NULL);",
    )?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    checkpoint(&connection, "TRUNCATE")?;
    Ok(connection)
}

/// Opens a segment that is not sealed, to write on.
pub(crate) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up_writer(&connection)?;
    Ok(connection)
}

/// Gives the write-ahead file its full length, so that a sync changes no length.
pub(crate) fn prepare_wal(path: &Path, bytes: u64) -> std::io::Result<()> {
    disk::extend_with_zeros(&beside(path, "-wal"), bytes)
}

fn set_up_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer carries over at a moment that it chooses.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    keep_wal_on_close(connection, true)
}

/// Whether closing leaves the write-ahead file as it is, as a crash does.
pub(crate) fn keep_wal_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(|_| ())
}

/// Carries the write-ahead file over into the segment; whether all of it was.
pub(crate) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection.query_row(&sql, (), |row| {
        let (busy, in_log, carried): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && in_log == carried)
    })
}

/// Opens a segment to read from. A sealed one is never written again: no locks, no other files.
pub(crate) fn open_reader(path: &Path, is_sealed: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let immutable = if is_sealed { "?immutable=1" } else { "" };
    let uri = format!("file:{}{immutable}", escaped(&path.to_string_lossy()));
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// The characters that mean something in a URI (RFC 3986 §2.1).
fn escaped(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Whether an error of reading means that the file is damaged. What the operating system refuses,
/// or another connection holds, is no damage.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error() {
        Some(error) => match error.code {
            ErrorCode::CannotOpen
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OperationInterrupted
            | ErrorCode::PermissionDenied
            | ErrorCode::DiskFull => false,
            // A file shorter than its own pages say.
            ErrorCode::SystemIoFailure => {
                error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ
            }
            _ => true,
        },
        None => true,
    }
}

/// The chunk `number` of the index of a sealed segment.
pub(crate) fn chunk(connection: &Connection, number: u32) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .query_row("SELECT body FROM chunks WHERE number = ?1", [number], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_come_back() {
        let path = path(Path::new("/log"), 42);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(number_of(name), Some(42));
        assert_eq!(number_of(&format!("{name}-wal")), Some(42));
        assert_eq!(number_of("control.db"), None);
        assert_eq!(escaped("/a?b#c%d"), "/a%3fb%23c%25d");
    }

    #[test]
    fn a_segment_in_a_folder_with_a_strange_name_is_read_without_locks() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("50%?#");
        std::fs::create_dir(&dir).unwrap();
        let path = path(&dir, 1);
        let writer = create(&path, 4_096).unwrap();
        prepare_wal(&path, 1 << 16).unwrap();
        writer.execute(INSERT_ROW, (0, vec![1_u8])).unwrap();
        assert!(checkpoint(&writer, "TRUNCATE").unwrap());
        let reader = open_reader(&path, true).unwrap();
        let row: Vec<u8> = reader.query_row(SELECT_ROW, [0], |row| row.get(0)).unwrap();
        assert_eq!(row, [1]);
    }
}
