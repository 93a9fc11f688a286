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
    written: AtomicBool,
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
            written: AtomicBool::new(false),
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
            last_commit: AtomicU64::new(micros(facts.last_commit)),
            written: AtomicBool::new(false),
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
        self.last_commit.fetch_max(micros(now), Ordering::Relaxed);
    }

    /// Takes back, down to `least`, what [`Self::committed_at`] was told by a wrong clock.
    pub(crate) fn commit_lowered_to(&self, least: Timestamp) {
        self.last_commit.fetch_min(micros(least), Ordering::Relaxed);
    }

    /// From now on this process writes the segment.
    pub(crate) fn mark_written(&self) {
        self.written.store(true, Ordering::Relaxed);
    }

    /// Whether this process has written it, since the start.
    pub(crate) fn is_written_here(&self) -> bool {
        self.written.load(Ordering::Relaxed)
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

/// Times before 1970 count as 1970.
fn micros(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(0)
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
    checkpoint(&connection, "TRUNCATE", BUSY_TIMEOUT)?;
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

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Whether all of the write-ahead file was carried over, and reset if that was asked for.
    pub(crate) is_complete: bool,
    /// Pages in the write-ahead file; `None` if not even that could be found out.
    pub(crate) frames: Option<u64>,
}

/// Carries the write-ahead file over into the segment. A reader that holds an older state makes
/// it incomplete, after `wait` (unless it is `PASSIVE`, which never waits).
pub(crate) fn checkpoint(
    connection: &Connection,
    mode: &str,
    wait: Duration,
) -> rusqlite::Result<Carried> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection.busy_timeout(wait)?;
    let carried = connection.query_row(&sql, (), |row| {
        let (busy, in_log, carried): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let is_complete = busy == 0 && in_log == carried;
        Ok(Carried { is_complete, frames: u64::try_from(in_log).ok() })
    });
    connection.busy_timeout(BUSY_TIMEOUT)?;
    carried
}

/// Bytes of the write-ahead file beside `path`; none is as good as an empty one.
pub(crate) fn wal_bytes(path: &Path) -> std::io::Result<u64> {
    match std::fs::metadata(beside(path, "-wal")) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Makes the write-ahead file beside `path` durable as it is, with what a process before this one
/// wrote and may not have synced.
pub(crate) fn sync_wal(path: &Path) -> std::io::Result<()> {
    match std::fs::OpenOptions::new().append(true).open(beside(path, "-wal")) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
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

/// Whether an error of reading means that the content of the file is damaged. Everything not
/// named here (no memory, no permission, a lock, a limit of the system) is an error of this read
/// alone: the file may be sound, and must not be set aside for it.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(error, _) | Error::SqlInputError { error, .. } => {
            is_damage_code(error)
        }
        // A value of another type than was written.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows => true,
        _ => false,
    }
}

fn is_damage_code(error: &rusqlite::ffi::Error) -> bool {
    match error.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
        // Longer than any value that was written: only a damaged length says so.
        ErrorCode::TooBig => true,
        // A file shorter than its own pages say.
        ErrorCode::SystemIoFailure => error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ,
        // The statements are constant, so a table or column that they do not find ("no such
        // table"), or an unknown file format, is a first page that is not what was written.
        _ => error.extended_code == rusqlite::ffi::SQLITE_ERROR,
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
        assert!(checkpoint(&writer, "TRUNCATE", BUSY_TIMEOUT).unwrap().is_complete);
        let reader = open_reader(&path, true).unwrap();
        let row: Vec<u8> = reader.query_row(SELECT_ROW, [0], |row| row.get(0)).unwrap();
        assert_eq!(row, [1]);
    }

    /// A read that failed for want of memory, or on a file system that had become read-only,
    /// counted as damage: the start then renamed a sound segment to *.damaged and went on
    /// without its records. Only what the content of the file says is damage.
    #[test]
    fn an_error_of_the_system_is_no_damage() {
        use rusqlite::ffi;
        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_PERM,
            ffi::SQLITE_AUTH,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_NOLFS,
            ffi::SQLITE_MISUSE,
            ffi::SQLITE_FULL,
            ffi::SQLITE_INTERRUPT,
        ] {
            assert!(!is_damage(&failure(code)), "{code}");
        }
        assert!(!is_damage(&rusqlite::Error::InvalidQuery));
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_SHORT_READ] {
            assert!(is_damage(&failure(code)), "{code}");
        }
        let empty = Connection::open_in_memory().unwrap();
        assert!(is_damage(&empty.prepare(SELECT_ROW).unwrap_err()), "no such table");
        let wrong = empty.query_row("SELECT 'x'", (), |row| row.get::<_, i64>(0));
        assert!(is_damage(&wrong.unwrap_err()), "a value of another type");
    }
}
