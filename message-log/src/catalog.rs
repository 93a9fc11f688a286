//! What readers share with the writer: the list of segments, the committed end, the connections
//! that wait for the next read, and the count of damage.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rusqlite::Connection;

use crate::error::ReadError;
use crate::segment::{self, Segment};
use crate::types::Offset;

/// Reading connections kept open. Each costs some file handles and at most 256 KiB.
const IDLE_CONNECTIONS: usize = 64;
/// Damaged records remembered, so that each is counted once; beyond that counts may repeat.
const DAMAGED_REMEMBERED: usize = 65_536;
/// Damaged records named in the operator's log; beyond that each hundredth.
const DAMAGED_TOLD: usize = 100;

/// The list of segments, oldest first; the last one is written.
pub(crate) type Segments = Arc<Vec<Arc<Segment>>>;

#[derive(Debug)]
pub(crate) struct Catalog {
    segments: RwLock<Segments>,
    end: AtomicU64,
    idle: Mutex<VecDeque<Idle>>,
    damaged: AtomicU64,
    damaged_known: Mutex<HashSet<u64>>,
}

#[derive(Debug)]
struct Idle {
    number: u32,
    is_sealed: bool,
    connection: Connection,
}

impl Catalog {
    pub(crate) fn new(segments: Vec<Arc<Segment>>, end: u64, damaged: u64) -> Self {
        Self {
            segments: RwLock::new(Arc::new(segments)),
            end: AtomicU64::new(end),
            idle: Mutex::default(),
            damaged: AtomicU64::new(damaged),
            damaged_known: Mutex::default(),
        }
    }

    pub(crate) fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds the segment that is written from now on.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&segments);
        list.push(segment);
        *segments = Arc::new(list);
    }

    /// Takes segments off the list; reads that hold the list of before end undisturbed.
    pub(crate) fn remove(&self, numbers: &[u32]) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let kept = segments.iter().filter(|segment| !numbers.contains(&segment.number));
        let kept: Vec<_> = kept.map(Arc::clone).collect();
        *segments = Arc::new(kept);
        drop(segments);
        self.idle().retain(|idle| !numbers.contains(&idle.number));
    }

    /// The place after the newest committed record.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The oldest place that can be read.
    pub(crate) fn oldest(&self) -> Offset {
        let segments = self.segments();
        Offset::from_u64(segments.first().map_or(self.end(), |segment| segment.first))
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Counts damaged records, each once.
    pub(crate) fn report_damaged(&self, segment: &Segment, offset: u64) {
        let mut known = self.damaged_known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DAMAGED_REMEMBERED {
            known.clear();
        }
        if !known.insert(offset) {
            return;
        }
        let number = known.len();
        drop(known);
        self.count_damaged(1);
        if number <= DAMAGED_TOLD || number.is_multiple_of(DAMAGED_TOLD) {
            tracing::warn!(segment = segment.number, offset, "damaged record left out");
        }
    }

    /// Counts all records of a segment whose file cannot be read at all, once.
    pub(crate) fn report_damaged_segment(&self, segment: &Segment) {
        let mut known = self.damaged_known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert(segment.first) {
            drop(known);
            let records = segment.records();
            self.count_damaged(u64::from(records));
            tracing::error!(segment = segment.number, records, "damaged segment left out");
        }
    }

    fn count_damaged(&self, records: u64) {
        self.damaged.fetch_add(records, Ordering::Relaxed);
        metrics::counter!("simgate_log_damaged_records_total").increment(records);
    }

    /// Runs `read` with a connection to `segment`.
    pub(crate) fn with_connection<T>(
        &self,
        segment: &Segment,
        read: impl FnOnce(&Connection) -> Result<T, ReadFault>,
    ) -> Result<T, ReadFault> {
        let is_sealed = segment.is_sealed();
        let waiting = self.take_idle(segment.number, is_sealed);
        let connection = match waiting {
            Some(connection) => connection,
            None => segment::open_reader(&segment.path, is_sealed)?,
        };
        let result = read(&connection)?;
        // A connection from before the sealing would look for a write-ahead file.
        if segment.is_sealed() == is_sealed {
            let mut idle = self.idle();
            idle.push_back(Idle { number: segment.number, is_sealed, connection });
            if idle.len() > IDLE_CONNECTIONS {
                let oldest = idle.pop_front();
                drop(idle);
                drop(oldest);
            }
        }
        Ok(result)
    }

    fn take_idle(&self, number: u32, is_sealed: bool) -> Option<Connection> {
        let mut idle = self.idle();
        let position =
            idle.iter().rposition(|idle| idle.number == number && idle.is_sealed == is_sealed)?;
        idle.remove(position).map(|idle| idle.connection)
    }

    /// Closes the connections to a segment that was sealed.
    pub(crate) fn close_idle(&self, number: u32) {
        self.idle().retain(|idle| idle.number != number);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `path` is still a segment's; retention may have taken it in the meantime.
    pub(crate) fn lists(&self, path: &Path) -> bool {
        self.segments().iter().any(|segment| segment.path == path)
    }
}

/// Why a segment could not be read.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// The file as a whole is damaged.
    Damaged,
    /// It cannot be opened.
    Unopened(String),
    /// The read itself failed.
    Failed(ReadError),
}

impl From<rusqlite::Error> for ReadFault {
    fn from(error: rusqlite::Error) -> Self {
        if segment::is_damage(&error) { Self::Damaged } else { Self::Unopened(error.to_string()) }
    }
}

impl From<ReadError> for ReadFault {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}
