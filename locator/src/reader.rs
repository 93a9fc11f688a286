//! The reader "locator": follows the log, and says where devices were and what they crossed.
//!
//! What it says goes to the log at once, all of one cause together and in the order of causes, and
//! names its cause. What it remembers is written with the cursor in one transaction, at most once
//! a second, after what was said up to it. A restart reads from the cursor again, remembers the
//! same and says nothing twice.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use message_log::{
    AppendError, Kind, KindSet, MessageLog, NewRecord, Offset, Query, ReadError, ReadLimits,
};
use metrics::counter;
use template_library::StoreError as TemplateError;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use vocabulary::{EventKind, Located, Notice, Timestamp};

use crate::outputs::{ENTERED, EXITED, Output, REFUSED};
use crate::sightings;
use crate::store::{Changes, Store, StoreError};
use crate::{Locator, World};

/// Read at once.
const READ_LIMITS: ReadLimits = ReadLimits { records: 2_048, bytes: 4 << 20 };
/// Remembered things are written at most this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// At the end of the log, news is collected this long: alerts are worth a second at most.
const COLLECT: Duration = Duration::from_millis(20);
/// After a failure the next attempt waits this long.
const RETRY: Duration = Duration::from_secs(1);
/// Another file of cells is looked for this often.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Why the reader could not go on. It is tried again: nothing is lost.
#[derive(Debug, Error)]
pub enum ReaderError {
    /// The log could not be read.
    #[error("reading the message log: {0}")]
    Read(#[from] ReadError),
    /// Positions could not be appended; they wait and go first.
    #[error("appending positions: {0}")]
    Append(#[from] AppendError),
    /// What is remembered could not be written; it stays in memory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A template could not be read.
    #[error("reading a template: {0}")]
    Templates(#[from] TemplateError),
    /// The thread could not begin.
    #[error("starting the reader: {0}")]
    Thread(#[from] io::Error),
}

/// Makes positions and crossings of what the log holds.
pub struct Reader {
    locator: Locator,
    store: Store,
    position: Offset,
    flushed: Option<Offset>,
    flushed_at: Instant,
    refreshed_at: Instant,
    /// What was said of causes up to this one is in the log already.
    said: Option<u64>,
    /// What is not in the log yet.
    unsaid: Vec<Output>,
}

/// The thread of a [`Reader`]; stops it when dropped.
#[derive(Debug)]
pub struct ReaderThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), ReaderError>>,
}

impl ReaderThread {
    /// Reads no more, writes what is remembered, and returns when that is done.
    pub fn stop(self) -> Result<(), ReaderError> {
        self.stop.send_replace(true);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Reader {
    pub(crate) fn new(locator: Locator, mut store: Store) -> Result<Self, ReaderError> {
        let flushed = store.cursor()?.map(Offset::from_u64);
        // A gateway that did not locate before begins with what comes, and remembers where that
        // was: a crash within the first second must not begin later.
        let position = match flushed {
            Some(position) => position,
            None => {
                let end = locator.0.log.end();
                let cursor = end.as_u64();
                store.write(&Changes { devices: Vec::new(), cells: Vec::new(), cursor })?;
                end
            }
        };
        let said = highest_cause(&locator.0.log, position)?;
        let now = Instant::now();
        Ok(Self {
            locator,
            store,
            position,
            flushed: Some(position),
            flushed_at: now,
            refreshed_at: now,
            said,
            unsaid: Vec::new(),
        })
    }

    /// Runs on a thread of its own until [`ReaderThread::stop`].
    pub fn spawn(self) -> Result<ReaderThread, ReaderError> {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("locator".to_owned())
            .spawn(move || self.run(stopped))?;
        Ok(ReaderThread { stop, thread })
    }

    fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ReaderError> {
        let timer = Builder::new_current_thread().enable_time().build()?;
        let mut ends = self.locator.0.log.watch();
        while !is_stopped(&stop) {
            let end = *ends.borrow_and_update();
            match self.step() {
                Ok(()) if self.position < end => {}
                Ok(()) => wait_for_news(&timer, &mut ends, &mut stop, self.flush_in()),
                Err(error) => {
                    tracing::warn!(%error, "the locator waits");
                    timer.block_on(sleep_or_stop(RETRY, &mut stop));
                }
            }
        }
        self.say()?;
        self.flush()
    }

    /// One round: says what is unsaid, reads on once, writes what is remembered when it is time.
    pub fn step(&mut self) -> Result<(), ReaderError> {
        self.say()?;
        self.refresh_cells();
        self.read()?;
        self.say()?;
        if self.flush_in().is_some_and(|wait| wait.is_zero()) {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is remembered, and the cursor.
    pub fn flush(&mut self) -> Result<(), ReaderError> {
        self.say()?;
        if self.is_flushed() {
            return Ok(());
        }
        let changes = {
            let mut world = self.locator.world();
            let devices = world.devices.take_changed();
            Changes { devices, cells: world.cells.take_changed(), cursor: self.position.as_u64() }
        };
        if let Err(error) = self.store.write(&changes) {
            let mut world = self.locator.world();
            world.devices.give_back(&changes.devices);
            world.cells.give_back(&changes.cells);
            return Err(error.into());
        }
        self.flushed = Some(self.position);
        self.flushed_at = Instant::now();
        Ok(())
    }

    /// Devices are forgotten without a record that says so.
    fn is_flushed(&self) -> bool {
        self.flushed == Some(self.position) && !self.locator.world().devices.has_changed()
    }

    fn flush_in(&self) -> Option<Duration> {
        (!self.is_flushed()).then(|| FLUSH_EVERY.saturating_sub(self.flushed_at.elapsed()))
    }

    fn read(&mut self) -> Result<(), ReaderError> {
        let kinds = KindSet::only(Kind::new(EventKind::Telemetry.code()))
            .with(Kind::new(EventKind::Session.code()));
        let batch = match self.locator.0.log.read_kinds(self.position, kinds, READ_LIMITS) {
            Ok(batch) => batch,
            Err(ReadError::Overtaken { oldest }) => {
                tracing::warn!(from = %self.position, to = %oldest, "retention overtook the locator");
                self.position = oldest;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let locator = self.locator.clone();
        for record in &batch.records {
            if let Some(sighting) = sightings::read(record, &locator.0.templates)? {
                let cause = record.offset.as_u64();
                let outputs = World::take(&locator, sighting, (cause, record.received_at));
                if self.said.is_none_or(|said| cause > said) {
                    self.unsaid.extend(outputs);
                }
            }
            // One by one, so that a failure in between repeats nothing.
            self.position = record.offset.next();
        }
        self.position = batch.next;
        Ok(())
    }

    /// Appends what is unsaid. Causes are never torn apart: one append goes in whole.
    fn say(&mut self) -> Result<(), ReaderError> {
        if self.unsaid.is_empty() {
            return Ok(());
        }
        let now = Timestamp::from(SystemTime::now());
        let records: Vec<NewRecord> = self.unsaid.iter().map(|output| output.record(now)).collect();
        self.locator.0.log.append(records).wait()?;
        let (positions, notices): (Vec<_>, Vec<_>) =
            self.unsaid.drain(..).partition(|output| matches!(output, Output::Located(_)));
        counter!("simgate_positions_total").increment(positions.len() as u64);
        counter!("simgate_location_notices_total").increment(notices.len() as u64);
        Ok(())
    }

    fn refresh_cells(&mut self) {
        if self.refreshed_at.elapsed() < REFRESH_EVERY {
            return;
        }
        self.refreshed_at = Instant::now();
        match self.locator.0.database.refresh() {
            Ok(Some(cells)) => tracing::info!(cells, "another cell database is open"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the cell database of before stays"),
        }
    }
}

/// The highest cause of what a locator said behind `cursor`. It says in the order of causes, so
/// its newest record names the highest.
fn highest_cause(log: &MessageLog, cursor: Offset) -> Result<Option<u64>, ReadError> {
    let kinds = KindSet::only(Kind::new(EventKind::Located.code()))
        .with(Kind::new(EventKind::Notice.code()));
    let mut before = None;
    loop {
        let records = log.newest(Query { kinds, before, limit: 256, ..Query::default() })?;
        for record in &records {
            if record.offset < cursor {
                return Ok(None);
            }
            if let Some(cause) = own_cause(record.kind.code(), &record.body) {
                return Ok(Some(cause));
            }
        }
        let Some(last) = records.last() else { return Ok(None) };
        before = Some(last.offset);
    }
}

fn own_cause(kind: u8, body: &[u8]) -> Option<u64> {
    if kind == EventKind::Located.code() {
        return Located::decode(body).ok().map(|located| located.cause);
    }
    let notice = Notice::decode(body).ok()?;
    let own = [ENTERED, EXITED, REFUSED];
    if own.contains(&notice.message.as_str()) { notice.cause } else { None }
}

fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

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
            () = tokio::time::sleep(at_most.unwrap_or(REFRESH_EVERY)) => return,
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
