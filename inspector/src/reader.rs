//! The reader "state": follows the log, remembers last messages, counts, and says what an operator
//! should know.
//!
//! Its cursor lies in the state file and is written with what was learnt up to it, in one
//! transaction, at most once a second. Its notices go to the log at once and name their cause, so
//! that a restart, which reads the last second again, says nothing twice. It reads what
//! devices say only and appends notices only (a reader never reads what it appends).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use energy_saver::Program;
use message_log::{
    AppendError, DeviceKey, Kind, KindSet, MessageLog, NewRecord, Offset, ReadError, ReadLimits,
    Record,
};
use template_library::{StoreError, Templates, TranslateError};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use vocabulary::{EventKind, Iccid, Notice, Protocol, Telemetry, Timestamp};

use crate::STATE_BYTES_MAX;
use crate::notices;
use crate::tables::Tables;
use crate::twin;
use crate::unflushed::{Key, LastMessage, Unflushed};

/// Read at once: enough that the cost of a call does not count, and at most a few milliseconds of
/// work while a query waits for the lock.
const READ_LIMITS: ReadLimits = ReadLimits { records: 2_048, bytes: 4 << 20 };

/// Notices in one append at most: those of a batch as a rule, so that a storm of them costs one
/// commit for each batch. It is a sixteenth of what the log's queue holds, and while that is full,
/// fewer are tried.
const APPEND_RECORDS_MAX: usize = 4_096;

/// What was learnt is written at most this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// A flush waits at least this many times as long as the one before took, so that a fleet of a
/// million devices costs longer intervals and not a busy disk.
const FLUSH_SHARE: u32 = 8;

/// At the end of the log, news is collected this long: at 100,000 messages a second a batch is
/// then full. History does not wait for it, only the last state does.
const COLLECT: Duration = Duration::from_millis(20);

/// After a failure the next attempt waits this long.
const RETRY: Duration = Duration::from_secs(1);

/// Why the reader could not go on. It can be called again: nothing is lost.
#[derive(Debug, Error)]
pub enum ReaderError {
    /// The log could not be read.
    #[error("reading the message log: {0}")]
    Read(#[from] ReadError),
    /// A notice could not be appended; it waits and goes first.
    #[error("appending {waiting} notices: {source}")]
    Append {
        /// Notices that wait.
        waiting: usize,
        /// What the log said.
        source: AppendError,
    },
    /// What was learnt could not be written; it stays in memory.
    #[error("writing the inspector's tables: {0}")]
    Flush(#[from] rusqlite::Error),
    /// A template could not be read.
    #[error("reading a template: {0}")]
    Templates(#[from] StoreError),
    /// The thread has no timer to wait with.
    #[error("starting the reader's timer: {0}")]
    Timer(io::Error),
}

/// What the readers of an [`crate::Inspector`] have done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderProgress {
    /// Where it goes on.
    pub position: Offset,
    /// Messages read; one that a second reader reads again counts twice.
    pub messages: u64,
    /// Notices appended.
    pub notices: u64,
    /// Bodies that are no telemetry of this release, left out.
    pub malformed: u64,
    /// How often retention overtook the cursor.
    pub overtaken: u64,
}

/// What queries may see of the reader's memory.
#[derive(Debug)]
pub(crate) struct Recent {
    fresh: Unflushed,
    /// What is being written at this moment.
    flushing: Option<Arc<Unflushed>>,
    progress: ReaderProgress,
}

/// [`Recent`], shared by the reader and the queries.
#[derive(Debug, Clone)]
pub(crate) struct SharedRecent(Arc<Mutex<Recent>>);

impl SharedRecent {
    pub(crate) fn new() -> Self {
        let progress = ReaderProgress {
            position: Offset::BEGINNING,
            messages: 0,
            notices: 0,
            malformed: 0,
            overtaken: 0,
        };
        let recent = Recent { fresh: Unflushed::default(), flushing: None, progress };
        Self(Arc::new(Mutex::new(recent)))
    }

    /// The lock. Each holder leaves whole values behind, so a panic of another one does no harm.
    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restart(&self, position: Offset) {
        let mut recent = self.lock();
        recent.fresh = Unflushed::default();
        recent.progress.position = position;
    }

    pub(crate) fn progress(&self) -> ReaderProgress {
        self.lock().progress
    }

    /// The last message, where the state file may not have it yet.
    pub(crate) fn last(&self, key: &Key) -> Option<LastMessage> {
        self.lock().last(key)
    }
}

impl Recent {
    fn last(&self, key: &Key) -> Option<LastMessage> {
        let flushing = self.flushing.as_ref().and_then(|changes| changes.last.get(key));
        self.fresh.last.get(key).or(flushing).cloned()
    }
}

/// The reader. [`Reader::spawn`] runs it on a thread of its own, [`Reader::step`] once.
#[derive(Debug)]
pub struct Reader {
    log: MessageLog,
    templates: Templates,
    tables: Tables,
    recent: SharedRecent,
    position: Offset,
    /// Where the cursor in the state file stands.
    flushed: Option<Offset>,
    flushed_at: Instant,
    flush_took: Duration,
    /// Notices of causes up to this one are in the log already.
    said: Option<u64>,
    /// Bodies of notices that are not in the log yet, per cause.
    unsaid: Vec<Unsaid>,
    /// Notices in the next append.
    append_records: usize,
    /// The program used last: nearly always the next one too.
    program: Option<(u32, Option<Arc<Program>>)>,
}

/// The notices of one record.
#[derive(Debug)]
struct Unsaid {
    device: DeviceKey,
    bodies: Vec<Vec<u8>>,
}

/// The thread of a [`Reader`]; stops it when dropped.
#[derive(Debug)]
pub struct ReaderThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), ReaderError>>,
}

impl ReaderThread {
    /// Reads no more, writes what was learnt, and returns when that is done.
    pub fn stop(self) -> Result<(), ReaderError> {
        self.stop.send_replace(true);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Reader {
    pub(crate) fn new(
        log: MessageLog,
        templates: Templates,
        tables: Tables,
        recent: SharedRecent,
    ) -> Result<Self, crate::OpenError> {
        let flushed = tables.cursor()?.map(Offset::from_u64);
        let position = flushed.unwrap_or(Offset::BEGINNING);
        let said = notices::highest_cause(&log, position)?;
        // What a reader before this one did not write is read again.
        recent.restart(position);
        Ok(Self {
            log,
            templates,
            tables,
            recent,
            position,
            flushed,
            flushed_at: Instant::now(),
            flush_took: Duration::ZERO,
            said,
            unsaid: Vec::new(),
            append_records: APPEND_RECORDS_MAX,
            program: None,
        })
    }

    /// Runs on a thread of its own until [`ReaderThread::stop`].
    pub fn spawn(self) -> io::Result<ReaderThread> {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("inspector".to_owned())
            .spawn(move || self.run(stopped))?;
        Ok(ReaderThread { stop, thread })
    }

    /// Follows the log until `stop` turns true or its sender is gone, then writes what was learnt.
    /// Failures are logged and tried again; only that of the last write is returned.
    pub fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ReaderError> {
        let timer = Builder::new_current_thread().enable_time().build();
        let timer = timer.map_err(ReaderError::Timer)?;
        let mut ends = self.log.watch();
        while !is_stopped(&stop) {
            let end = *ends.borrow_and_update();
            match self.step() {
                Ok(_) if self.position < end => {}
                Ok(_) => wait_for_news(&timer, &mut ends, &mut stop, self.flush_in()),
                Err(error) => {
                    tracing::warn!(%error, "the inspector's reader waits");
                    timer.block_on(sleep_or_stop(RETRY, &mut stop));
                }
            }
        }
        self.say()?;
        self.flush()
    }

    /// One round: says what is unsaid, reads on once, writes what was learnt when it is time.
    /// Returns the number of messages read.
    pub fn step(&mut self) -> Result<usize, ReaderError> {
        self.say()?;
        if self.recent.lock().fresh.is_full() {
            self.flush()?;
        }
        let messages = self.read()?;
        self.say()?;
        if self.flush_in().is_some_and(|wait| wait.is_zero()) {
            self.flush()?;
        }
        Ok(messages)
    }

    /// Writes what was learnt and the cursor, after the notices up to it.
    pub fn flush(&mut self) -> Result<(), ReaderError> {
        self.say()?;
        if self.flushed == Some(self.position) {
            return Ok(());
        }
        let started = Instant::now();
        let changes = {
            let mut recent = self.recent.lock();
            let changes = Arc::new(std::mem::take(&mut recent.fresh));
            recent.flushing = Some(Arc::clone(&changes));
            changes
        };
        let result = self.tables.flush(&changes, self.position.as_u64());
        let mut recent = self.recent.lock();
        recent.flushing = None;
        if let Err(error) = result {
            // Nobody but this thread adds to it, so it is as it was.
            recent.fresh = Arc::unwrap_or_clone(changes);
            return Err(error.into());
        }
        self.flushed = Some(self.position);
        self.flushed_at = Instant::now();
        self.flush_took = started.elapsed();
        Ok(())
    }

    /// How long the next flush waits; `None` where there is nothing to write.
    fn flush_in(&self) -> Option<Duration> {
        if self.flushed == Some(self.position) {
            return None;
        }
        let pause = FLUSH_EVERY.max(self.flush_took * FLUSH_SHARE);
        Some(pause.saturating_sub(self.flushed_at.elapsed()))
    }

    /// Appends the notices that wait, in the order of their causes.
    fn say(&mut self) -> Result<(), ReaderError> {
        while !self.unsaid.is_empty() {
            let (causes, records) = self.next_append();
            let amount = records.len() as u64;
            if let Err(source) = self.log.append(records).wait() {
                self.append_records = (self.append_records / 2).max(1);
                let waiting = self.unsaid.iter().map(|unsaid| unsaid.bodies.len()).sum();
                return Err(ReaderError::Append { waiting, source });
            }
            self.append_records = (self.append_records * 2).min(APPEND_RECORDS_MAX);
            self.unsaid.drain(..causes);
            self.recent.lock().progress.notices += amount;
        }
        Ok(())
    }

    /// The next notices to append, and of how many causes they are. All notices of one cause go
    /// together: a restart knows only whether a cause was dealt with.
    fn next_append(&self) -> (usize, Vec<NewRecord>) {
        let now = Timestamp::from(SystemTime::now());
        let mut records = Vec::new();
        let mut causes = 0;
        for unsaid in &self.unsaid {
            if causes > 0 && records.len() + unsaid.bodies.len() > self.append_records {
                break;
            }
            records.extend(unsaid.records(now));
            causes += 1;
        }
        (causes, records)
    }

    fn read(&mut self) -> Result<usize, ReaderError> {
        let of_devices = KindSet::only(Kind::new(EventKind::Telemetry.code()))
            .with(Kind::new(EventKind::Registered.code()));
        let batch = match self.log.read_kinds(self.position, of_devices, READ_LIMITS) {
            Ok(batch) => batch,
            Err(ReadError::Overtaken { oldest }) => {
                let from = self.position;
                tracing::warn!(%from, to = %oldest, "retention overtook the reader");
                self.position = oldest;
                let progress = &mut self.recent.lock().progress;
                progress.position = oldest;
                progress.overtaken += 1;
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let messages = batch.records.len();
        let recent = self.recent.clone();
        let mut recent = recent.lock();
        for record in batch.records {
            let next = record.offset.next();
            self.take(record, &mut recent)?;
            // One by one, so that a failure in between repeats nothing.
            self.position = next;
            recent.progress.messages += 1;
        }
        self.position = batch.next;
        recent.progress.position = batch.next;
        Ok(messages)
    }

    /// Learns from one message: all or, with an error, nothing.
    fn take(&mut self, record: Record, recent: &mut Recent) -> Result<(), ReaderError> {
        let iccid = Iccid::from_u64(record.device.as_u64());
        let telemetry = iccid.and_then(|iccid| Telemetry::decode(iccid, &record.body).ok());
        let Some(telemetry) = telemetry else {
            recent.progress.malformed += 1;
            return Ok(());
        };
        if record.kind.code() == EventKind::Registered.code() {
            if record.device_seq == 1 {
                self.note(&record, &[notices::first_contact(&record, telemetry.identity)]);
            }
            return Ok(());
        }
        let failure = self.translation_failure(&telemetry)?;
        let twin = match telemetry.protocol {
            Protocol::Lwm2m => self.merged(&telemetry, recent)?,
            Protocol::Udp | Protocol::Coap => None,
        };
        let state_bytes = twin.as_ref().map_or(telemetry.payload.len(), Vec::len);
        let too_large = state_bytes > STATE_BYTES_MAX;
        let becomes_state = failure.is_none() && !too_large;
        let mut said = Vec::new();
        if record.device_seq == 1 {
            said.push(notices::first_contact(&record, telemetry.identity));
        }
        if let Some(reason) = failure {
            said.push(notices::translation_failed(&record, telemetry.identity, reason));
        }
        if too_large {
            said.push(notices::state_too_large(&record, &telemetry));
        }
        self.note(&record, &said);
        recent.fresh.count(record.received_at, telemetry.protocol);
        if becomes_state {
            let key: Key = (telemetry.identity.iccid, telemetry.protocol);
            let merged = twin.map(|twin| Telemetry { payload: &twin, ..telemetry }.encode());
            let Record { id, received_at, body, .. } = record;
            let body = merged.unwrap_or(body);
            recent.fresh.remember(key, LastMessage { id, received_at, body });
        }
        Ok(())
    }

    /// The state of an LwM2M device with the values of one more message; `None` where that message
    /// is the first one.
    fn merged(
        &self,
        telemetry: &Telemetry<'_>,
        recent: &Recent,
    ) -> Result<Option<Vec<u8>>, ReaderError> {
        let device = telemetry.identity.iccid;
        let key: Key = (device, telemetry.protocol);
        let before = match recent.last(&key) {
            Some(message) => Some(message),
            None => self.tables.last(device, telemetry.protocol)?,
        };
        let Some(before) = before else { return Ok(None) };
        let before = Telemetry::decode(device, &before.body).ok();
        Ok(before.and_then(|before| twin::merge(before.payload, telemetry.payload)))
    }

    /// Puts notices in the queue, unless they were said before a restart.
    fn note(&mut self, record: &Record, said: &[Notice]) {
        let is_new = self.said.is_none_or(|highest| record.offset.as_u64() > highest);
        if is_new && !said.is_empty() {
            let bodies = said.iter().map(Notice::encode).collect();
            self.unsaid.push(Unsaid { device: record.device, bodies });
        }
    }

    /// Why the template of the message's day cannot translate it.
    fn translation_failure(
        &mut self,
        telemetry: &Telemetry<'_>,
    ) -> Result<Option<String>, StoreError> {
        let Some(version) = telemetry.template else { return Ok(None) };
        let program = match &self.program {
            Some((known, program)) if *known == version => program.clone(),
            _ => {
                let program = self.load(version, telemetry)?;
                self.program = Some((version, program.clone()));
                program
            }
        };
        let failure = program.and_then(|program| program.check(telemetry.payload).err());
        Ok(failure.map(|error| error.to_string()))
    }

    /// The program of a version; `None` where there is none, which is not the same as one that
    /// cannot be read at the moment.
    fn load(
        &self,
        version: u32,
        telemetry: &Telemetry<'_>,
    ) -> Result<Option<Arc<Program>>, StoreError> {
        if let Some(program) = self.templates.program(version) {
            return Ok(Some(program));
        }
        match self.templates.translate(telemetry) {
            Err(TranslateError::Store(error)) => Err(error),
            Err(TranslateError::UnknownVersion { .. }) => Ok(None),
            // It could be read after all.
            Ok(_) | Err(TranslateError::Payload(_)) => Ok(self.templates.program(version)),
        }
    }
}

impl Unsaid {
    fn records(&self, now: Timestamp) -> impl Iterator<Item = NewRecord> {
        self.bodies.iter().map(move |body| NewRecord {
            kind: Kind::new(EventKind::Notice.code()),
            device: self.device,
            received_at: now,
            body: body.clone(),
        })
    }
}

fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Returns when the log has grown and [`COLLECT`] has passed, when `at_most` has passed, or at
/// `stop`.
fn wait_for_news(
    timer: &Runtime,
    ends: &mut watch::Receiver<Offset>,
    stop: &mut watch::Receiver<bool>,
    at_most: Option<Duration>,
) {
    timer.block_on(async {
        tokio::select! {
            _ = stop.changed() => return,
            news = ends.changed() => if news.is_err() {
                // The log is closed: nothing will come.
                sleep_or_stop(RETRY, stop).await;
                return;
            },
            () = tokio::time::sleep(at_most.unwrap_or(Duration::MAX)) => return,
        }
        sleep_or_stop(COLLECT, stop).await;
    });
}

async fn sleep_or_stop(span: Duration, stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        _ = stop.changed() => {}
        () = tokio::time::sleep(span) => {}
    }
}
