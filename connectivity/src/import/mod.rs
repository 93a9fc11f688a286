//! SIMs from a CSV file: good lines are taken, bad ones reported.
//!
//! The file is read in blocks, and each block is written, ordered by ICCID, in short transactions
//! which nothing but the disk holds up. So a slow upload blocks nobody, and a file that breaks off
//! leaves whole blocks; importing it again takes the rest.

mod columns;
mod line;

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::Duration;

use thiserror::Error;
use vocabulary::{Iccid, ParseDigitsError, Timestamp};

pub use self::columns::HeaderError;
use self::columns::{Columns, Row};
pub use self::line::LINE_BYTES_MAX;
use self::line::{Line, Lines};
use crate::registry::{SimRegistry, lock};
use crate::sim::{Conflict, InvalidSim, Sim};
use crate::table::{Table, WriteError};

/// Rejected lines that a report describes; it counts all.
pub const REJECTIONS_KEPT: usize = 1_000;

/// Lines of one file. Four times the largest fleet; the numbers of the lines that were taken are
/// remembered, which takes 140 MB for so many.
pub const LINES_MAX: u64 = 4_000_000;

/// Lines that are read before they are written. SQLite writes each page that a transaction
/// touches, so SIMs in random order cost a page each; ordered within a block, many share one
/// (a million scattered SIMs: 35 s without). Some 15 MB of memory, at worst 60.
const LINES_PER_BLOCK: usize = 50_000;

/// Lines of one transaction, in which no other writer gets to the file: 20 ms where the file is in
/// order, 100 ms where SIMs or addresses are scattered (measured, a million SIMs).
const LINES_PER_TRANSACTION: usize = 5_000;

/// Pause between two transactions. Another process asks for the file every few milliseconds, and
/// without a pause it would hardly ever find it free.
const PAUSE: Duration = Duration::from_millis(3);

/// Page cache while importing, as SQLite writes it: 64 MiB, in which the indexes of a million SIMs
/// fit. The default of 2 MB reads each page again for SIMs in random order.
const CACHE_WHILE_IMPORTING: i64 = -65_536;

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// Too long.
    #[error("line of {0} bytes exceeds the limit of {LINE_BYTES_MAX}")]
    TooLong(u64),
    /// Not UTF-8.
    #[error("line is not utf-8 text")]
    NotText,
    /// A field that goes over the line's end.
    #[error("a double quote is not closed on its line")]
    OpenQuote,
    /// A quote within a field without quotes, or text after the closing quote.
    #[error("a double quote stands within a field, allowed: around it")]
    MisplacedQuote,
    /// Too few or too many.
    #[error("{found} fields, the first line has {expected}")]
    Fields {
        /// Fields of the line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// No SIM named.
    #[error("iccid is empty")]
    NoIccid,
    /// A wrong number.
    #[error(transparent)]
    Digits(#[from] ParseDigitsError),
    /// A wrong address.
    #[error("{0:?} is not an ip address")]
    Address(String),
    /// A wrong status.
    #[error("status {0:?}, allowed: Enabled, Disabled")]
    Status(String),
    /// A value that no SIM can have.
    #[error(transparent)]
    Invalid(#[from] InvalidSim),
    /// The SIM stands in the file twice.
    #[error("{iccid:?} stands on line {line} already")]
    Twice {
        /// The SIM, shown masked.
        iccid: Iccid,
        /// The line that was taken.
        line: u64,
    },
    /// Another SIM, of this file or from before, has the address.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Its number; the header is line 1.
    pub line: u64,
    /// Why.
    pub reason: Rejection,
}

/// What an import did. At its end, `read` is the sum of the other four counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Lines read, without the header and blank lines.
    pub read: u64,
    /// SIMs that are new.
    pub created: u64,
    /// SIMs that were known and changed.
    pub updated: u64,
    /// SIMs that were known just so.
    pub unchanged: u64,
    /// Lines that were not taken.
    pub rejected: u64,
    /// [`REJECTIONS_KEPT`] of them, the first that were found; at the end in the order of lines.
    pub rejections: Vec<LineError>,
}

/// Why an import ended before the file's end. What was taken before stays.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The first line names no columns.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// More than can be checked for duplicates.
    #[error("file exceeds the limit of {LINES_MAX} lines, split it")]
    TooManyLines,
    /// The file could not be read on.
    #[error("reading line {line}: {source}")]
    Read {
        /// The line.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The registry could not be written.
    #[error("sim registry: {0}")]
    Store(#[from] rusqlite::Error),
}

impl SimRegistry {
    /// Imports a CSV file: a header with the columns `iccid`, and any of `imsi`, `msisdn`, `imei`,
    /// `ip`, `label`, `status`; commas or semicolons between them.
    ///
    /// A column sets its property, an empty field takes the property away; a property without a
    /// column stays. `status` is `Enabled` or `Disabled`; without it a new SIM is enabled and a
    /// known one stays as it is.
    ///
    /// Of two lines with one address, or with one SIM, the first is taken. An address that a line
    /// takes from a SIM is free for another SIM's line, unless the two lie far apart (50,000 lines)
    /// in the wrong order. The same file again changes nothing.
    ///
    /// `progress` is told the report so far after each block of lines.
    pub fn import(
        &self,
        reader: impl Read,
        now: Timestamp,
        mut progress: impl FnMut(&ImportReport),
    ) -> Result<ImportReport, ImportError> {
        let mut source = Source::open(reader)?;
        let mut import = Import { now, taken: HashMap::new(), report: ImportReport::default() };
        self.set_cache(CACHE_WHILE_IMPORTING)?;
        let result = self.import_blocks(&mut source, &mut import, &mut progress);
        // The default of SQLite: 2,000 KiB.
        self.set_cache(-2_000)?;
        result.map(|()| import.report)
    }

    fn import_blocks(
        &self,
        source: &mut Source<impl Read>,
        import: &mut Import,
        progress: &mut dyn FnMut(&ImportReport),
    ) -> Result<(), ImportError> {
        loop {
            let is_more = source.read_block(&mut import.report)?;
            let (ordered, mut later) = arrange(source.block.drain(..));
            let refused = self.import_rows(import, &ordered)?;
            later.extend(refused.into_iter().map(|(row, _)| row.clone()));
            later.sort_by_key(|row| row.line);
            for (row, conflict) in self.import_rows(import, &later)? {
                import.report.reject(row.line, conflict.into());
            }
            progress(&import.report);
            if !is_more {
                import.report.rejections.sort_by_key(|rejection| rejection.line);
                return Ok(());
            }
        }
    }

    /// Takes `rows` in their order; returns those whose address another SIM has.
    fn import_rows<'a>(
        &self,
        import: &mut Import,
        rows: &'a [Row],
    ) -> rusqlite::Result<Vec<(&'a Row, Conflict)>> {
        let mut refused = Vec::new();
        for some in rows.chunks(LINES_PER_TRANSACTION) {
            self.write(|table| {
                for row in some {
                    if let Some(conflict) = import.take(table, row)? {
                        refused.push((row, conflict));
                    }
                }
                Ok::<_, rusqlite::Error>(())
            })?;
            std::thread::sleep(PAUSE);
        }
        Ok(refused)
    }

    /// Sets the writer's cache, and frees what is cached beyond it.
    fn set_cache(&self, size: i64) -> rusqlite::Result<()> {
        let connection = lock(&self.writer);
        connection.pragma_update(None, "cache_size", size)?;
        connection.execute_batch("PRAGMA shrink_memory")
    }
}

/// Orders rows by ICCID. Apart, in the order of their lines, come rows with an address that an
/// earlier line claims: the earlier one is to get it.
fn arrange(rows: impl Iterator<Item = Row>) -> (Vec<Row>, Vec<Row>) {
    let mut claimed = HashMap::new();
    let (mut ordered, later): (Vec<Row>, Vec<Row>) = rows.partition(|row| {
        let address = row.properties.ip.flatten();
        address.is_none_or(|ip| *claimed.entry(ip).or_insert(row.iccid) == row.iccid)
    });
    ordered.sort_by_key(|row| row.iccid);
    (ordered, later)
}

/// The file, block by block.
struct Source<R> {
    lines: Lines<R>,
    columns: Columns,
    block: Vec<Row>,
}

impl<R: Read> Source<R> {
    fn open(reader: R) -> Result<Self, ImportError> {
        let mut lines = Lines::new(reader);
        let header = lines.next().map_err(|source| ImportError::Read { line: 1, source })?;
        let columns = match header {
            None => return Err(HeaderError::Missing.into()),
            Some(Line::TooLong(bytes)) => return Err(HeaderError::TooLong(bytes).into()),
            Some(Line::Whole(bytes)) => Columns::of_header(bytes)?,
        };
        Ok(Self { lines, columns, block: Vec::with_capacity(LINES_PER_BLOCK) })
    }

    /// Fills the block; returns whether there may be more.
    fn read_block(&mut self, report: &mut ImportReport) -> Result<bool, ImportError> {
        for _ in 0..LINES_PER_BLOCK {
            let line = self.lines.number() + 1;
            let bytes = match self.lines.next() {
                Err(source) => return Err(ImportError::Read { line, source }),
                Ok(None) => return Ok(false),
                Ok(Some(_)) if line > LINES_MAX => return Err(ImportError::TooManyLines),
                Ok(Some(Line::TooLong(bytes))) => Err(Rejection::TooLong(bytes)),
                Ok(Some(Line::Whole(bytes))) => Ok(bytes),
            };
            match bytes.and_then(|bytes| self.columns.read(line, bytes)) {
                Ok(None) => continue,
                Ok(Some(row)) => self.block.push(row),
                Err(reason) => report.reject(line, reason),
            }
            report.read += 1;
        }
        Ok(true)
    }
}

/// What is known across the blocks.
struct Import {
    now: Timestamp,
    /// Each SIM that was taken from the file, and its line.
    taken: HashMap<Iccid, u32>,
    report: ImportReport,
}

impl Import {
    /// Takes one row; returns why not, where another SIM has its address.
    fn take(&mut self, table: &mut Table<'_>, row: &Row) -> rusqlite::Result<Option<Conflict>> {
        let Row { line, iccid, properties } = row;
        if let Some(line_before) = self.taken.get(iccid) {
            let reason = Rejection::Twice { iccid: *iccid, line: u64::from(*line_before) };
            self.report.reject(*line, reason);
            return Ok(None);
        }
        let (written, count) = match table.find(*iccid)? {
            None => {
                let sim = properties.applied(Sim::unknown(*iccid, self.now));
                (table.insert(&sim), &mut self.report.created)
            }
            Some(before) => {
                let mut after = properties.applied(before.clone());
                if after == before {
                    (Ok(()), &mut self.report.unchanged)
                } else {
                    after.updated = self.now;
                    (table.update(&before, &after), &mut self.report.updated)
                }
            }
        };
        match written {
            Ok(()) => {
                *count += 1;
                // Lines are at most `LINES_MAX`, which fits.
                self.taken.insert(*iccid, u32::try_from(*line).unwrap_or(u32::MAX));
                Ok(None)
            }
            Err(WriteError::Conflict(conflict)) => Ok(Some(conflict)),
            Err(WriteError::Store(error)) => Err(error),
        }
    }
}

impl ImportReport {
    fn reject(&mut self, line: u64, reason: Rejection) {
        self.rejected += 1;
        if self.rejections.len() < REJECTIONS_KEPT {
            self.rejections.push(LineError { line, reason });
        }
    }
}
