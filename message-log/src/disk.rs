//! What the log does with files beside the storage engine: the lock, the ballast, the durability
//! of folders, and telling a full disk from a broken one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rusqlite::ErrorCode;

use crate::segment;

const LOCK: &str = "lock";
const BALLAST: &str = "ballast";
const PROBE: &str = "probe";
/// Zeros are written in pieces of this size.
const PIECE_BYTES: usize = 1 << 16;

/// The lock of the folder; it ends with the value, also when the process is killed.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _held: File,
}

impl FolderLock {
    /// `None` if somebody else has it. Readers share it.
    pub(crate) fn take(dir: &Path, shared: bool) -> io::Result<Option<Self>> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let taken = if shared { file.try_lock_shared() } else { file.try_lock() };
        match taken {
            Ok(()) => Ok(Some(Self { _held: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Makes the creation and the removal of files durable. SQLite does not report a failure here,
/// so the log does it once more itself.
pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a folder and those above it that are missing, durably.
pub(crate) fn create_folder(dir: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(dir)?;
    for folder in missing {
        match folder.parent() {
            // A relative name of one part lies in the working folder.
            Some(above) if above.as_os_str().is_empty() => sync_folder(Path::new("."))?,
            Some(above) => sync_folder(above)?,
            None => {}
        }
    }
    Ok(())
}

/// Fills `path` with zeros up to `bytes` and makes them durable, so that later writes change no
/// length: a sync then takes half the time (measured: 86 us against 173 us).
pub(crate) fn extend_with_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut missing = bytes.saturating_sub(file.metadata()?.len());
    let zeros = [0; PIECE_BYTES];
    while missing > 0 {
        let piece = usize::try_from(missing).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        file.write_all(&zeros[..piece])?;
        missing -= piece as u64;
    }
    file.sync_all()
}

/// Space kept aside, so that on a full disk retention and carrying over can still work.
#[derive(Debug, Clone)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join(BALLAST), bytes }
    }

    /// Takes the space if it is not taken; an error leaves nothing behind.
    pub(crate) fn restore(&self) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&self.path)?;
        let length = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        let taken = nix::fcntl::posix_fallocate(&file, 0, length)
            .map_err(io::Error::from)
            .and_then(|()| file.sync_all());
        if taken.is_err() {
            self.release();
        }
        taken
    }

    /// Gives the space free. A failure is not told: then there is nothing to give.
    pub(crate) fn release(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    fn is_whole(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes)
    }
}

/// Bytes that the file system of `dir` has left for us.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let numbers = nix::sys::statvfs::statvfs(dir)?;
    // Their widths differ between platforms.
    #[allow(clippy::useless_conversion, reason = "u32 on some platforms")]
    let (blocks, size) =
        (u64::from(numbers.blocks_available()), u64::from(numbers.fragment_size()));
    Ok(blocks.saturating_mul(size))
}

/// Whether a write failed for want of space (or of the right to write), which passes, and not
/// because the disk is broken.
///
/// SQLite tells ENOSPC alone apart. A limit on file sizes, a quota and a file system that became
/// read-only look like a broken disk, so a byte is written where the file would have grown.
pub(crate) fn is_no_space(error: &rusqlite::Error, file: &Path) -> bool {
    match error.sqlite_error() {
        Some(error) if error.code == ErrorCode::DiskFull => true,
        Some(error) if error.code == ErrorCode::ReadOnly => true,
        Some(error) if error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE => {
            probe(file).is_err_and(|error| is_no_space_io(&error))
        }
        _ => false,
    }
}

/// The same for our own writes.
pub(crate) fn is_no_space_io(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT | Errno::EROFS))
}

/// Writes one byte at the length of `file` or of its write-ahead file, whichever is longer, into
/// another file of the same folder.
fn probe(file: &Path) -> io::Result<()> {
    let wal = std::fs::metadata(segment::beside(file, "-wal")).map_or(0, |wal| wal.len());
    let length = std::fs::metadata(file)?.len().max(wal);
    let path = file.with_file_name(PROBE);
    let written = File::create(&path).and_then(|mut probe| {
        probe.seek(SeekFrom::Start(length))?;
        probe.write_all(&[0])?;
        probe.sync_all()
    });
    let _ = std::fs::remove_file(&path);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_or_many_readers() {
        let folder = tempfile::tempdir().unwrap();
        let owner = FolderLock::take(folder.path(), false).unwrap();
        assert!(owner.is_some());
        assert!(FolderLock::take(folder.path(), true).unwrap().is_none());
        drop(owner);
        let reader = FolderLock::take(folder.path(), true).unwrap();
        assert!(reader.is_some() && FolderLock::take(folder.path(), true).unwrap().is_some());
    }

    #[test]
    fn the_ballast_takes_its_space_and_gives_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path(), 1 << 20);
        ballast.restore().unwrap();
        assert!(ballast.is_whole());
        ballast.release();
        assert!(!ballast.is_whole());
        assert!(free_bytes(folder.path()).unwrap() > 0);
    }

    /// The folder of a new log was made and never synced: a power cut soon after could take it
    /// away with all its records. The sync itself cannot be seen here; that each folder above is
    /// found can.
    #[test]
    fn folders_are_made_with_all_that_is_missing_above() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b/c");
        create_folder(&dir).unwrap();
        create_folder(&dir).unwrap();
        assert!(dir.is_dir());
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(create_folder(&file.join("below")).is_err());
    }

    #[test]
    fn zeros_are_added_up_to_the_length_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        std::fs::write(&path, b"begin").unwrap();
        extend_with_zeros(&path, 100_000).unwrap();
        extend_with_zeros(&path, 10).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 100_000 && bytes.starts_with(b"begin\0"));
    }
}
