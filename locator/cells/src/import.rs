//! From exports to a database: read, sort in pieces, merge.
//!
//! One thread reads and parses, another sorts and writes pieces. An import that was cut off goes on
//! after its last complete piece when it is begun again with the same sources; until the very end
//! the database is the one of before.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::csv::{self, BadLine, LINE_BYTES_MAX, Line};
use crate::database::{CellDatabase, OpenError};
use crate::merge::{Areas, Sorted, merge};
use crate::record::Record;
use crate::runs::{Runs, Source, Stand};

/// Cells of a piece: 32 bytes each while they are sorted. Two pieces are in memory at once.
const RUN_CELLS: usize = 5_000_000;
/// Bad lines that are told one by one.
const BAD_SHOWN: usize = 10;
/// Lines between two words on the progress.
const PROGRESS_LINES: u64 = 100_000;

/// An import of files into a database.
#[derive(Debug, Clone)]
pub struct Import {
    sources: Vec<PathBuf>,
    target: PathBuf,
    run_cells: usize,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the files that were read.
    pub read_bytes: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Cells found so far.
    pub cells: u64,
    /// Whether all was read, and the database is being written.
    pub is_merging: bool,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Imported {
    /// Lines read, in this attempt and those that it went on with.
    pub lines: u64,
    /// Cells among them.
    pub cells: u64,
    /// Cells of radios that no SIM uses.
    pub other_radio: u64,
    /// Lines that are no cells.
    pub bad: u64,
    /// The first of them: file, line in it, and reason.
    pub bad_lines: Vec<(PathBuf, u64, BadLine)>,
    /// Cells of the database now.
    pub database_cells: u64,
    /// Whether it went on with an earlier attempt.
    pub was_resumed: bool,
    /// Why nothing of the database of before is in this one: it was damaged, or of an older
    /// release.
    pub replaced: Option<String>,
}

/// Why an import failed. The database is as it was.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file is not there, or cannot be looked at.
    #[error("{path}: {source}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read to its end.
    #[error("{path}, line {line}: {source}; what was read so far is kept, import again to go on")]
    Read {
        /// The file.
        path: PathBuf,
        /// Where it stopped.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// No file has a cell.
    #[error("{lines} lines without a cell{}", first(.bad_line))]
    Nothing {
        /// Lines read.
        lines: u64,
        /// Why the first one is none.
        bad_line: Option<BadLine>,
    },
    /// Another import has not ended.
    #[error("another import into {0} is under way")]
    UnderWay(PathBuf),
    /// The database of before cannot be read.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The disk failed.
    #[error("the cell database cannot be written: {0}")]
    Write(#[from] io::Error),
}

fn first(bad_line: &Option<BadLine>) -> String {
    bad_line.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// A piece to be sorted, and where the import stands with it.
type Piece = (Vec<Record>, Stand);

impl Import {
    /// Of `sources` into the database `target`. Files whose names end with `.gz` are compressed.
    pub fn new(sources: Vec<PathBuf>, target: &Path) -> Self {
        Self { sources, target: target.to_owned(), run_cells: RUN_CELLS }
    }

    /// With pieces of so many cells, which bounds the memory.
    #[must_use]
    pub fn with_run_cells(mut self, cells: usize) -> Self {
        self.run_cells = cells.max(1);
        self
    }

    /// Does it. Cells that the database has stay, newer ones take their places.
    pub fn run(&self, mut progress: impl FnMut(Progress)) -> Result<Imported, ImportError> {
        let sources = self.look_at_sources()?;
        let runs = self.take_runs()?;
        // Nobody else replaces it from here on.
        let (before, replaced) = self.database_of_before()?;
        let bytes = sources.iter().map(|source| source.bytes).sum();
        let stand = runs.begin(sources)?;
        let mut imported =
            Imported { was_resumed: stand.runs > 0, replaced, ..Imported::default() };
        let (to_sorter, pieces) = sync_channel::<Piece>(0);
        let stand = std::thread::scope(|scope| {
            let sorter = scope.spawn(|| sort(&runs, pieces));
            let mut reader = SourceReader {
                stand,
                pieces: Some(to_sorter),
                records: Vec::new(),
                run_cells: self.run_cells,
                bad_lines: &mut imported.bad_lines,
            };
            let read = reader.read_all(bytes, &mut progress);
            let stand = reader.finish(read.is_ok());
            let sorted =
                sorter.join().unwrap_or_else(|_| Err(io::Error::other("the sorter ended")));
            sorted.map_err(ImportError::Write)?;
            read.map(|()| stand)
        })?;
        imported.lines = stand.lines;
        imported.cells = stand.cells;
        imported.bad = stand.bad;
        imported.other_radio = stand.other_radio;
        if stand.cells == 0 {
            runs.clear()?;
            let bad_line = imported.bad_lines.into_iter().next().map(|(_, _, reason)| reason);
            return Err(ImportError::Nothing { lines: stand.lines, bad_line });
        }
        progress(Progress { read_bytes: bytes, bytes, cells: stand.cells, is_merging: true });
        let mut inputs = Vec::new();
        inputs.extend(before.as_ref().map(|database| Sorted::Database(Areas::of(database))));
        for run in 0..stand.runs {
            inputs.push(Sorted::Run(runs.open(run)?));
        }
        imported.database_cells = merge(inputs, &self.target)?;
        runs.clear()?;
        Ok(imported)
    }

    fn look_at_sources(&self) -> Result<Vec<Source>, ImportError> {
        let named = |path: &PathBuf| {
            Source::of(path).map_err(|source| ImportError::Source { path: path.clone(), source })
        };
        self.sources.iter().map(named).collect()
    }

    fn take_runs(&self) -> Result<Runs, ImportError> {
        Runs::take(&self.target).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ImportError::UnderWay(self.target.clone()),
            _ => ImportError::Write(error),
        })
    }

    /// The database whose cells stay; or why there is one of which none do.
    fn database_of_before(&self) -> Result<(Option<CellDatabase>, Option<String>), ImportError> {
        match CellDatabase::open(&self.target) {
            Ok(database) => Ok((Some(database), None)),
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok((None, None))
            }
            Err(error) if error.is_lost_database() => Ok((None, Some(error.to_string()))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sorts pieces and writes them, until there are no more.
fn sort(runs: &Runs, pieces: Receiver<Piece>) -> io::Result<()> {
    pieces.into_iter().try_for_each(|(records, stand)| runs.add(records, &stand))
}

/// Reads sources one after the other.
struct SourceReader<'a> {
    stand: Stand,
    pieces: Option<SyncSender<Piece>>,
    records: Vec<Record>,
    run_cells: usize,
    bad_lines: &'a mut Vec<(PathBuf, u64, BadLine)>,
}

impl SourceReader<'_> {
    fn read_all(
        &mut self,
        bytes: u64,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), ImportError> {
        while let Some(source) = self.stand.sources.get(self.stand.source).cloned() {
            let earlier = &self.stand.sources[..self.stand.source];
            let done: u64 = earlier.iter().map(|source| source.bytes).sum();
            let mut report = |read: u64, cells| {
                let read_bytes = done + read;
                progress(Progress { read_bytes, bytes, cells, is_merging: false });
            };
            if let Err(error) = self.read(&source.path, &mut report) {
                // Where it begins again is after the last complete piece.
                let line = self.stand.source_lines;
                return Err(ImportError::Read { path: source.path, line, source: error });
            }
            self.stand.source += 1;
            self.stand.text_bytes = 0;
            self.stand.source_lines = 0;
        }
        Ok(())
    }

    fn read(&mut self, path: &Path, report: &mut impl FnMut(u64, u64)) -> io::Result<()> {
        let read = Arc::new(AtomicU64::new(0));
        let file = Counted { inner: File::open(path)?, read: Arc::clone(&read) };
        let is_gzip = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
        let text: Box<dyn Read> =
            if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut text = BufReader::with_capacity(1 << 20, text);
        skip(&mut text, self.stand.text_bytes)?;
        let mut line = Vec::new();
        loop {
            let bytes = read_line(&mut text, &mut line)?;
            if bytes == 0 {
                return Ok(());
            }
            self.stand.text_bytes += bytes;
            self.stand.lines += 1;
            self.stand.source_lines += 1;
            self.take(path, &line)?;
            if self.stand.lines.is_multiple_of(PROGRESS_LINES) {
                report(read.load(Ordering::Relaxed), self.stand.cells);
            }
        }
    }

    fn take(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        match csv::parse(line) {
            Ok(Line::Cell(record)) => {
                self.stand.cells += 1;
                self.records.push(record);
                if self.records.len() >= self.run_cells {
                    self.hand_over()?;
                }
            }
            Ok(Line::Nothing) => {}
            Ok(Line::OtherRadio) => self.stand.other_radio += 1,
            Err(reason) => {
                self.stand.bad += 1;
                if self.bad_lines.len() < BAD_SHOWN {
                    self.bad_lines.push((path.to_owned(), self.stand.source_lines, reason));
                }
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.stand.runs += 1;
        let records = std::mem::replace(&mut self.records, Vec::with_capacity(self.run_cells));
        let gone = || io::Error::other("a sorted piece could not be written");
        let pieces = self.pieces.as_ref().ok_or_else(gone)?;
        pieces.send((records, self.stand.clone())).map_err(|_| gone())
    }

    /// The last piece, if all was read; and the end of the sorter.
    fn finish(mut self, is_complete: bool) -> Stand {
        if is_complete && !self.records.is_empty() {
            // A sorter that is gone says why itself.
            let _ = self.hand_over();
        }
        self.pieces = None;
        self.stand
    }
}

/// Reads a line, of one that is too long its beginning; says how many bytes it has.
fn read_line(text: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut bytes = text.take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    if bytes == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        bytes += text.skip_until(b'\n')?;
    }
    Ok(bytes as u64)
}

fn skip(text: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut text.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Counts what is read from a file.
struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
