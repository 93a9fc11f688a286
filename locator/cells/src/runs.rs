//! Sorted pieces of an import on disk, and where the import stood when each was complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{RECORD_BYTES, Record};

/// A source as it was when the import began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// In nanoseconds since 1970.
    modified: u128,
}

impl Source {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let about = fs::metadata(&path)?;
        let modified = about.modified()?.duration_since(std::time::UNIX_EPOCH);
        let modified = modified.map_or(0, |since| since.as_nanos());
        Ok(Self { path, bytes: about.len(), modified })
    }
}

/// How far an import has come: everything before it lies in complete pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Stand {
    pub(crate) sources: Vec<Source>,
    /// Complete pieces.
    pub(crate) runs: usize,
    /// The source that is being read, and how many bytes of its text were.
    pub(crate) source: usize,
    pub(crate) text_bytes: u64,
    pub(crate) lines: u64,
    /// Lines of that source alone. An earlier release counted none, and its imports begin anew.
    pub(crate) source_lines: u64,
    pub(crate) cells: u64,
    pub(crate) bad: u64,
    pub(crate) other_radio: u64,
}

/// The folder of an import that is under way, beside its target. Nobody else has it meanwhile.
#[derive(Debug)]
pub(crate) struct Runs {
    folder: PathBuf,
    _lock: File,
}

impl Runs {
    /// Takes the folder; [`io::ErrorKind::WouldBlock`] where another import has it.
    pub(crate) fn take(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".import");
        let folder = target.with_file_name(name);
        fs::create_dir_all(&folder)?;
        let lock = File::open(&folder)?;
        match lock.try_lock() {
            // Some file systems of networks lock no folders: there it is the operator's to see.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { folder, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Where an earlier import of the same sources stood; otherwise begins anew.
    pub(crate) fn begin(&self, sources: Vec<Source>) -> io::Result<Stand> {
        let saved = fs::read(self.folder.join("stand.json")).ok();
        let saved: Option<Stand> = saved.and_then(|text| serde_json::from_slice(&text).ok());
        let goes_on = |stand: &Stand| stand.sources == sources && self.is_whole(stand);
        if let Some(stand) = saved.filter(goes_on) {
            return Ok(stand);
        }
        self.clear()?;
        Ok(Stand { sources, ..Stand::default() })
    }

    /// Whether the pieces hold all cells that were read.
    fn is_whole(&self, stand: &Stand) -> bool {
        let bytes = |run| fs::metadata(self.run(run)).map_or(0, |about| about.len());
        let found: u64 = (0..stand.runs).map(bytes).sum();
        Some(found) == stand.cells.checked_mul(RECORD_BYTES as u64)
    }

    /// Writes a piece, sorted, and then where the import stands.
    pub(crate) fn add(&self, mut records: Vec<Record>, stand: &Stand) -> io::Result<()> {
        // Of two records of one cell the newest comes last.
        records.sort_unstable_by_key(|record| (record.key, record.week_and_samples));
        let file = File::create(self.run(stand.runs - 1))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        for record in &records {
            writer.write_all(&record.to_bytes())?;
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let (new, name) = (self.folder.join("stand.new"), self.folder.join("stand.json"));
        fs::write(&new, serde_json::to_vec(stand).map_err(io::Error::other)?)?;
        fs::rename(new, name)
    }

    pub(crate) fn open(&self, number: usize) -> io::Result<RunReader> {
        let file = File::open(self.run(number))?;
        Ok(RunReader { reader: BufReader::with_capacity(1 << 18, file) })
    }

    /// Forgets all pieces.
    pub(crate) fn clear(&self) -> io::Result<()> {
        fs::read_dir(&self.folder)?.try_for_each(|file| fs::remove_file(file?.path()))
    }

    fn run(&self, number: usize) -> PathBuf {
        self.folder.join(format!("run-{number}"))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        // With pieces in it, it stays: an import can go on with them.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Reads a piece.
pub(crate) struct RunReader {
    reader: BufReader<File>,
}

impl RunReader {
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut bytes = [0; RECORD_BYTES];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(Record::from_bytes(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}
