//! The start: from the files of a folder to a log that can be read and written.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use vocabulary::EventId;

use crate::catalog::ReadFault;
use crate::chain::Chain;
use crate::control::{self, Control, Floor, Listed, ListedState};
use crate::disk;
use crate::error::OpenError;
use crate::scan;
use crate::segment::{self, Index, Segment};

/// What damaged files are called from then on; an operator may look at them or delete them.
const QUARANTINED: &str = ".damaged";
/// Places left out after a segment whose length cannot be known: more than one ever holds.
const UNKNOWN_RECORDS: u64 = 1 << 30;

/// The start waits so long for a program that reads a segment from outside.
const CARRY_WAIT: Duration = Duration::from_secs(1);

/// What the start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Records in the log.
    pub records: u64,
    /// Whether the log was closed in order before; a new log was not.
    pub was_clean: bool,
    /// Records read again because their segment was not sealed.
    pub recovered: u64,
    /// Records whose checksum was wrong; they are left out.
    pub damaged: u64,
    /// Files that could not be read and were set aside.
    pub quarantined: u32,
    /// Files removed because no list names them.
    pub removed: u32,
}

/// A log as it lies on disk.
pub(crate) struct Recovered {
    pub(crate) control: Control,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) heads: HashMap<u64, u64>,
    pub(crate) end: u64,
    pub(crate) last_id: Option<EventId>,
    pub(crate) next_number: u32,
    pub(crate) opened: Opened,
    /// Listed segments that hold nothing, or nothing that can be read.
    dropped: Vec<u32>,
    /// Whether the newest records were in a segment that cannot be read.
    ends_in_hole: bool,
}

/// Reads the folder. With `repair`, what is damaged or not listed is set aside or removed.
pub(crate) fn recover(dir: &Path, repair: bool) -> Result<Recovered, OpenError> {
    let mut opened = Opened::default();
    let control = open_control(dir, repair, &mut opened)?;
    let in_control = |error: rusqlite::Error| storage(dir, &error);
    let found = control.format().map_err(in_control)?;
    if found > control::FORMAT {
        return Err(OpenError::Newer { found, known: control::FORMAT });
    }
    if repair {
        opened.was_clean = control.take_clean_mark().map_err(in_control)?;
    }
    let listed = control.segments().map_err(in_control)?;
    let floor = control.floor().map_err(in_control)?;
    let heads = control.heads().map_err(in_control)?;
    let next_number = listed.last().map_or(1, |last| last.number + 1);
    if repair {
        opened.removed = remove_unlisted(dir, &listed).map_err(|source| io_error(dir, source))?;
    }
    let mut recovered = Recovered {
        control,
        segments: Vec::new(),
        heads,
        end: 0,
        last_id: floor.id,
        next_number,
        opened,
        dropped: Vec::new(),
        ends_in_hole: false,
    };
    for segment in listed {
        recovered.add(dir, segment, repair)?;
    }
    recovered.end = recovered.end.max(floor.offset);
    recovered.drop_unusable(dir, repair)?;
    recovered.opened.records =
        recovered.segments.iter().map(|segment| u64::from(segment.records())).sum();
    Ok(recovered)
}

impl Recovered {
    fn add(&mut self, dir: &Path, listed: Listed, repair: bool) -> Result<(), OpenError> {
        let path = segment::path(dir, listed.number);
        match listed.state {
            ListedState::Sealed { .. } if !carry_over(&path, repair)? => {
                if repair {
                    let unsealed = self.control.unseal(listed.number);
                    unsealed.map_err(|error| storage(dir, &error))?;
                }
                self.add_open(listed.number, &path, repair)
            }
            ListedState::Sealed { first, facts } => {
                // Lost or renamed files leave a hole that readers pass over.
                self.end = self.end.max(first + u64::from(facts.records));
                self.last_id = self.last_id.max(Some(facts.last_id));
                if path.exists() {
                    let segment = Segment::sealed(listed.number, path, first, facts);
                    self.segments.push(Arc::new(segment));
                } else {
                    tracing::error!(segment = listed.number, "the file of a segment is gone");
                    self.opened.quarantined += 1;
                    self.opened.damaged += u64::from(facts.records);
                }
                Ok(())
            }
            ListedState::Open => self.add_open(listed.number, &path, repair),
        }
    }

    fn add_open(&mut self, number: u32, path: &Path, repair: bool) -> Result<(), OpenError> {
        let refused = |reason| Err(OpenError::Storage { path: path.to_owned(), reason });
        match self.read_open(number, path) {
            Ok(()) => Ok(()),
            Err(ReadFault::Damaged) => self.set_aside(number, path, repair),
            Err(ReadFault::Unopened(_)) if !path.exists() => self.set_aside(number, path, repair),
            Err(ReadFault::Unopened(reason)) => refused(reason),
            Err(ReadFault::Failed(error)) => refused(error.to_string()),
        }
    }

    /// Reads a segment that is not sealed, and makes its index.
    fn read_open(&mut self, number: u32, path: &Path) -> Result<(), ReadFault> {
        let connection = segment::open_reader(path, false)?;
        let Some(extent) = scan::extent(&connection)? else {
            self.dropped.push(number);
            return Ok(());
        };
        // A damaged row can claim any place; a segment never holds so many.
        if extent.end - extent.start > UNKNOWN_RECORDS || extent.start < self.end {
            return Err(ReadFault::Damaged);
        }
        let (chain, damaged) = scan::index(&connection, extent.clone())?;
        self.take_heads(&chain);
        self.opened.recovered += u64::from(chain.len());
        self.opened.damaged += damaged;
        self.last_id = self.last_id.max(chain.last_id);
        self.end = extent.end;
        self.ends_in_hole = false;
        let segment = Segment::open(number, path.to_owned(), extent.start, chain);
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    fn take_heads(&mut self, chain: &Chain) {
        for (device, head) in chain.heads().filter(|(_, head)| head.seq > 0) {
            let known = self.heads.entry(device).or_insert(0);
            *known = (*known).max(head.seq);
        }
    }

    /// Sets a file aside that cannot be read.
    fn set_aside(&mut self, number: u32, path: &Path, repair: bool) -> Result<(), OpenError> {
        tracing::error!(segment = number, "unreadable segment set aside, records are lost");
        self.opened.quarantined += 1;
        self.ends_in_hole = true;
        self.dropped.push(number);
        if repair {
            set_aside_files(path).map_err(|source| io_error(path, source))?;
        }
        Ok(())
    }

    /// Takes segments off the list that hold nothing. How many records an unreadable one at the
    /// end held is not known, so their places are left out for good.
    fn drop_unusable(&mut self, dir: &Path, repair: bool) -> Result<(), OpenError> {
        let mut floor = Floor { offset: 0, id: self.last_id };
        if self.ends_in_hole {
            self.end += UNKNOWN_RECORDS;
            floor.offset = self.end;
        }
        if !repair || self.dropped.is_empty() {
            return Ok(());
        }
        self.control.remove(&self.dropped, floor).map_err(|error| storage(dir, &error))?;
        for number in &self.dropped {
            let path = segment::path(dir, *number);
            segment::remove(&path).map_err(|source| io_error(&path, source))?;
        }
        Ok(())
    }

    /// The segment to go on writing, if the last one was not full.
    pub(crate) fn live(&self) -> Option<Arc<Segment>> {
        let last = self.segments.last()?;
        let is_open = matches!(&*last.index(), Index::Chain(_)) && !last.is_sealed();
        // After a hole the log goes on in a new segment: places within one have no gaps.
        let is_at_end = last.first + u64::from(last.records()) == self.end;
        (is_open && is_at_end).then(|| Arc::clone(last))
    }
}

/// Opens the control file. A damaged one is set aside and made again from the segments: then
/// all of them are read, and numbers of devices without a record start anew.
fn open_control(dir: &Path, repair: bool, opened: &mut Opened) -> Result<Control, OpenError> {
    let error = match Control::open(dir) {
        Ok(control) => return Ok(control),
        Err(error) => error,
    };
    if !repair || !segment::is_damage(&error) {
        return Err(storage(dir, &error));
    }
    tracing::error!(%error, "damaged control file set aside and made again");
    opened.quarantined += 1;
    set_aside_files(&dir.join(control::FILE)).map_err(|source| io_error(dir, source))?;
    let control = Control::open(dir).map_err(|error| storage(dir, &error))?;
    let mut numbers: Vec<u32> = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| io_error(dir, source))? {
        let name = entry.map_err(|source| io_error(dir, source))?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".db") {
            numbers.extend(segment::number_of(&name));
        }
    }
    numbers.sort_unstable();
    for number in numbers {
        control.add(number).map_err(|error| storage(dir, &error))?;
    }
    Ok(control)
}

/// Carries over what a write-ahead file beside a sealed segment still holds: an earlier release
/// sealed although a reader had been in the way. False if that cannot be done now (no space, or
/// the folder is only read): then the segment must be read as one that is not sealed.
fn carry_over(path: &Path, repair: bool) -> Result<bool, OpenError> {
    let in_wal = segment::wal_bytes(path).map_err(|source| io_error(path, source))?;
    if in_wal == 0 {
        return Ok(true);
    }
    if !repair {
        return Ok(false);
    }
    tracing::warn!(?path, bytes = in_wal, "a sealed segment has a write-ahead file: carried over");
    let carried = segment::open_writer(path).and_then(|connection| {
        let carried = segment::checkpoint(&connection, "TRUNCATE", CARRY_WAIT)?;
        segment::keep_wal_on_close(&connection, !carried.is_complete)?;
        Ok(carried.is_complete)
    });
    match carried {
        Ok(is_complete) => Ok(is_complete),
        Err(error) if segment::is_damage(&error) || !path.exists() => {
            // Readers find out about the segment; what is beside it is kept for the operator.
            tracing::error!(?path, %error, "the write-ahead file is set aside");
            let wal = segment::beside(path, "-wal");
            let aside = segment::beside(&wal, QUARANTINED);
            fs::rename(&wal, aside).map_err(|source| io_error(path, source))?;
            Ok(true)
        }
        Err(error) => {
            tracing::warn!(?path, %error, "not carried over, read as if it was not sealed");
            Ok(false)
        }
    }
}

fn set_aside_files(path: &Path) -> io::Result<()> {
    for ending in ["", "-wal", "-shm"] {
        let file = segment::beside(path, ending);
        match fs::rename(&file, segment::beside(&file, QUARANTINED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    path.parent().map_or(Ok(()), disk::sync_folder)
}

/// Removes files of segments that are not listed, and what lies beside sealed ones and holds
/// nothing: a write-ahead file that is not empty may hold records that are nowhere else.
fn remove_unlisted(dir: &Path, listed: &[Listed]) -> io::Result<u32> {
    let is_sealed = |segment: &&Listed| matches!(segment.state, ListedState::Sealed { .. });
    let all: HashSet<u32> = listed.iter().map(|segment| segment.number).collect();
    let sealed: HashSet<u32> =
        listed.iter().filter(is_sealed).map(|segment| segment.number).collect();
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(number) = segment::number_of(&name) else { continue };
        if name.ends_with(QUARANTINED) {
            continue;
        }
        let is_main = name.ends_with(".db");
        let is_empty = || segment::wal_bytes(&segment::path(dir, number)).map(|bytes| bytes == 0);
        let is_stray = !all.contains(&number);
        if is_stray || (!is_main && sealed.contains(&number) && is_empty()?) {
            fs::remove_file(&path)?;
            removed += u32::from(is_main);
        }
    }
    disk::sync_folder(dir)?;
    Ok(removed)
}

fn storage(path: &Path, error: &rusqlite::Error) -> OpenError {
    OpenError::Storage { path: path.to_owned(), reason: error.to_string() }
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}
