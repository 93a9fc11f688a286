//! The log as its users see it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::watch;
use vocabulary::{EventId, EventIdGenerator, Timestamp};

use crate::catalog::Catalog;
use crate::chain::{Bounds, Chain};
use crate::disk::{self, Ballast, FolderLock};
use crate::error::{AppendError, OpenError, ReadError};
use crate::keeper::{self, Keeper};
use crate::options::Options;
use crate::queue::{Appended, Appending, Ending, Queue};
use crate::read;
use crate::recovery::{self, Opened, Recovered, io_error};
use crate::retention::JumpGuard;
use crate::segment::{self, Segment};
use crate::shared::{Full, PanicGuard, Post, Shared, State};
use crate::types::{Batch, KindSet, NewRecord, Offset, Query, ReadLimits, Record};
use crate::writer::{WalSize, Writer};

/// The durable log, open for reading and appending. Cheap to clone.
///
/// [`MessageLog::close`] ends it in order. Dropping the last clone without that is like a crash:
/// what was not answered may be lost, what was answered is not.
#[derive(Debug, Clone)]
pub struct MessageLog {
    inner: Arc<Open>,
}

/// A log that is only read, while nobody writes it: for tests and for looking into a stopped
/// gateway's folder.
#[derive(Debug)]
pub struct Reader {
    catalog: Catalog,
    _lock: FolderLock,
}

/// How a log fares, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether appends are taken.
    pub state: State,
    /// Records held, damaged ones included.
    pub records: u64,
    /// Segments held.
    pub segments: usize,
    /// Segments that wait for their index on disk; readers do not notice.
    pub unsealed: usize,
    /// Bytes of all segments on disk.
    pub bytes: u64,
    /// Records waiting for the writer.
    pub queue_records: usize,
    /// Bytes waiting for the writer.
    pub queue_bytes: usize,
    /// Damaged records found since the start.
    pub damaged: u64,
}

#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
}

#[derive(Debug)]
struct Threads {
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
    lock: Option<FolderLock>,
}

impl MessageLog {
    /// Opens the log in the folder `dir`, which is created if it is not there.
    ///
    /// Blocks while segments that are not sealed are read: 0.12 s for
    /// 900,000 records of 100 bytes (measured, files cached).
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Opened), OpenError> {
        options.check()?;
        disk::create_folder(dir).map_err(|source| io_error(dir, source))?;
        let lock = lock(dir, false)?;
        let recovered = recovery::recover(dir, true)?;
        let opened = recovered.opened;
        let shared = Arc::new(shared(dir, options, &recovered));
        shared.show_state();
        if let Err(error) = shared.ballast.restore() {
            // A full disk is no reason not to start: readers work, and the writer finds out.
            tracing::warn!(%error, "no space for the ballast");
        }
        let threads = start(&shared, recovered, lock)?;
        tracing::info!(?opened, "message log open");
        Ok((Self { inner: Arc::new(Open { shared, threads: Mutex::new(threads) }) }, opened))
    }

    /// Opens a log to read only. Refused while somebody writes it.
    pub fn open_read_only(dir: &Path) -> Result<Reader, OpenError> {
        Reader::open(dir)
    }

    /// Appends records: all of one call are one atomic commit, at consecutive places.
    ///
    /// Never blocks. The records are durable when the answer is there, in the order of the calls.
    pub fn append(&self, records: Vec<NewRecord>) -> Appending {
        let shared = &self.inner.shared;
        let limit = shared.options.body_bytes;
        match shared.state() {
            State::Healthy => {}
            State::NoSpace => return Appending::answered(Err(AppendError::NoSpace)),
            State::Failed => return Appending::answered(Err(AppendError::Failed)),
        }
        if let Some(record) = records.iter().find(|record| record.body.len() > limit) {
            let bytes = record.body.len();
            return Appending::answered(Err(AppendError::TooLarge { bytes, limit }));
        }
        if records.is_empty() {
            return Appending::answered(Ok(Appended { first: self.end(), ids: Vec::new() }));
        }
        shared.queue.push(records)
    }

    /// Records from `from` on, in order. Blocks on the disk.
    pub fn read(&self, from: Offset, limits: ReadLimits) -> Result<Batch, ReadError> {
        self.read_kinds(from, KindSet::ALL, limits)
    }

    /// Records of some kinds from `from` on, in order. Blocks on the disk.
    pub fn read_kinds(
        &self,
        from: Offset,
        kinds: KindSet,
        limits: ReadLimits,
    ) -> Result<Batch, ReadError> {
        read::forward(&self.inner.shared.catalog, from, kinds, limits)
    }

    /// The newest records that `query` asks for, newest first. Blocks on the disk.
    pub fn newest(&self, query: Query) -> Result<Vec<Record>, ReadError> {
        read::newest(&self.inner.shared.catalog, &query)
    }

    /// The record with this id. Blocks on the disk.
    pub fn find(&self, id: EventId) -> Result<Option<Record>, ReadError> {
        read::find(&self.inner.shared.catalog, id)
    }

    /// The place after the newest committed record.
    pub fn end(&self) -> Offset {
        Offset::from_u64(self.inner.shared.catalog.end())
    }

    /// The oldest place that can be read.
    pub fn oldest(&self) -> Offset {
        self.inner.shared.catalog.oldest()
    }

    /// When the oldest record held was received: the earliest time of reception of all, damaged
    /// ones left out; `None` if there is none. What waits for its commit does not count yet.
    pub fn oldest_received(&self) -> Option<Timestamp> {
        let segments = self.inner.shared.catalog.segments();
        let bounds = segments.iter().map(|segment| segment.bounds());
        bounds.filter(|bounds| *bounds != Bounds::EMPTY).map(|bounds| bounds.earliest).min()
    }

    /// The committed end, for readers that wait for more.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.inner.shared.end.subscribe()
    }

    /// The state, for the owner that must end the process on [`State::Failed`] (exit code 74).
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.inner.shared.state.subscribe()
    }

    /// How the log fares.
    pub fn status(&self) -> Status {
        let shared = &self.inner.shared;
        let (queue_records, queue_bytes) = shared.queue.depth();
        let records = shared.records.load(Ordering::Relaxed);
        let catalog = status(&shared.catalog, records);
        Status { state: shared.state(), queue_records, queue_bytes, ..catalog }
    }

    /// Ends the log in order: takes no more, commits what is queued, leaves no write-ahead file.
    ///
    /// Blocks until that is done. Reads go on working; a second call does nothing.
    pub fn close(&self) {
        self.inner.end(Ending::InOrder);
    }
}

impl Reader {
    /// Opens the log in the folder `dir` to read only. Refused while somebody writes it.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let lock = lock(dir, true)?;
        let recovered = recovery::recover(dir, false)?;
        let Recovered { segments, end, opened, .. } = recovered;
        Ok(Self { catalog: Catalog::new(segments, end, opened.damaged), _lock: lock })
    }

    /// As [`MessageLog::read`].
    pub fn read(&self, from: Offset, limits: ReadLimits) -> Result<Batch, ReadError> {
        self.read_kinds(from, KindSet::ALL, limits)
    }

    /// As [`MessageLog::read_kinds`].
    pub fn read_kinds(
        &self,
        from: Offset,
        kinds: KindSet,
        limits: ReadLimits,
    ) -> Result<Batch, ReadError> {
        read::forward(&self.catalog, from, kinds, limits)
    }

    /// As [`MessageLog::newest`].
    pub fn newest(&self, query: Query) -> Result<Vec<Record>, ReadError> {
        read::newest(&self.catalog, &query)
    }

    /// As [`MessageLog::find`].
    pub fn find(&self, id: EventId) -> Result<Option<Record>, ReadError> {
        read::find(&self.catalog, id)
    }

    /// As [`MessageLog::end`].
    pub fn end(&self) -> Offset {
        Offset::from_u64(self.catalog.end())
    }

    /// As [`MessageLog::oldest`].
    pub fn oldest(&self) -> Offset {
        self.catalog.oldest()
    }

    /// What the folder holds. Nothing is queued, and the state is that of a log at rest.
    pub fn status(&self) -> Status {
        let segments = self.catalog.segments();
        let records = segments.iter().map(|segment| u64::from(segment.records())).sum();
        status(&self.catalog, records)
    }
}

fn status(catalog: &Catalog, records: u64) -> Status {
    let segments = catalog.segments();
    let bytes = |segment: &Arc<Segment>| match segment.facts() {
        Some(facts) => facts.bytes,
        None => std::fs::metadata(&segment.path).map_or(0, |file| file.len()),
    };
    Status {
        state: State::Healthy,
        records,
        segments: segments.len(),
        unsealed: segments.iter().filter(|segment| !segment.is_sealed()).count(),
        bytes: segments.iter().map(bytes).sum(),
        queue_records: 0,
        queue_bytes: 0,
        damaged: catalog.damaged(),
    }
}

fn lock(dir: &Path, shared: bool) -> Result<FolderLock, OpenError> {
    FolderLock::take(dir, shared)
        .map_err(|source| io_error(dir, source))?
        .ok_or_else(|| OpenError::InUse { dir: dir.to_owned() })
}

fn shared(dir: &Path, options: Options, recovered: &Recovered) -> Shared {
    let segments = recovered.segments.clone();
    let catalog = Catalog::new(segments, recovered.end, recovered.opened.damaged);
    Shared {
        dir: PathBuf::from(dir),
        queue: Queue::new(&options),
        ballast: Ballast::new(dir, options.ballast_bytes()),
        options,
        catalog: Arc::new(catalog),
        state: watch::Sender::new(State::Healthy),
        end: watch::Sender::new(Offset::from_u64(recovered.end)),
        records: AtomicU64::new(recovered.opened.records),
        post: Post::default(),
    }
}

/// Finds the segment to write, hands the others over to be sealed, starts both threads.
fn start(
    shared: &Arc<Shared>,
    mut recovered: Recovered,
    lock: FolderLock,
) -> Result<Threads, OpenError> {
    let (segment, connection) = live(shared, &mut recovered)?;
    if let Err(error) = segment::prepare_wal(&segment.path, shared.options.wal_bytes) {
        // Only slower without.
        tracing::warn!(%error, "no space for the whole write-ahead file");
    }
    segment.mark_written();
    sync_recovered(&recovered)?;
    disk::sync_folder(&shared.dir).map_err(|source| io_error(&shared.dir, source))?;
    for full in &recovered.segments {
        let is_waiting = !full.is_sealed() && full.number != segment.number;
        if is_waiting {
            shared.post.put_full(Full::new(Arc::clone(full), None));
        }
    }
    let Recovered { control, heads, end, last_id, next_number, .. } = recovered;
    let seed = RandomState::new().build_hasher().finish();
    let ids = EventIdGenerator::new(seed, last_id);
    let wal = WalSize::new(&shared.options);
    let clock = &shared.options.clock;
    let guard = JumpGuard::new(last_id.map(EventId::timestamp), clock.now(), clock.monotonic());
    let raised = Vec::new();
    let keeper = Keeper { shared: Arc::clone(shared), control, guard, next_number, raised };
    let writer_shared = Arc::clone(shared);
    let writer = Writer { shared: writer_shared, segment, connection, heads, ids, next: end, wal };
    let no_thread = |source| io_error(&shared.dir, source);
    let named = |name: &str| Builder::new().name(name.to_owned());
    let keeper = guarded(shared, || keeper.run());
    let keeper = named("log-keeper").spawn(keeper).map_err(no_thread)?;
    let writer = guarded(shared, || writer.run());
    let writer = named("log-writer").spawn(writer).map_err(no_thread)?;
    Ok(Threads { writer: Some(writer), keeper: Some(keeper), lock: Some(lock) })
}

/// Records found in write-ahead files are shown from now on as if they had been answered, so they
/// must be as durable: the process before this one may have ended before its sync.
fn sync_recovered(recovered: &Recovered) -> Result<(), OpenError> {
    for segment in recovered.segments.iter().filter(|segment| !segment.is_sealed()) {
        segment::sync_wal(&segment.path).map_err(|source| io_error(&segment.path, source))?;
    }
    Ok(())
}

fn guarded<F: FnOnce()>(shared: &Arc<Shared>, run: F) -> impl FnOnce() + use<F> {
    let guard = PanicGuard(Arc::clone(shared));
    move || {
        let _guard = guard;
        run();
    }
}

/// The segment to write: the last one, or a new one.
fn live(
    shared: &Shared,
    recovered: &mut Recovered,
) -> Result<(Arc<Segment>, Connection), OpenError> {
    let failed = |reason: String| OpenError::Storage { path: shared.dir.clone(), reason };
    if let Some(segment) = recovered.live() {
        let connection = segment::open_writer(&segment.path);
        return Ok((segment, connection.map_err(|error| failed(error.to_string()))?));
    }
    let number = recovered.next_number;
    let spare = keeper::make_spare(shared, &recovered.control, number)
        .map_err(|error| failed(error.to_string()))?;
    recovered.next_number += 1;
    let segment = Segment::open(number, spare.path, recovered.end, Chain::default());
    let segment = Arc::new(segment);
    shared.catalog.push(Arc::clone(&segment));
    Ok((segment, spare.connection))
}

impl Open {
    /// Ends both threads: the writer first, whose last segment the keeper may still get.
    fn end(&self, ending: Ending) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.queue.end(ending);
        join(threads.writer.take());
        self.shared.post.stop();
        join(threads.keeper.take());
        drop(self.shared.post.take_spare());
        while self.shared.post.take_full().is_some() {}
        threads.lock = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Ending::AtOnce);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the message log panicked");
    }
}
