//! The one thread that writes records: takes what is queued, commits it at once, answers.
//!
//! While a commit waits for the disk, the next requests gather: that is the whole group commit,
//! there is no delay by design. Checkpoints run on this thread too.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rusqlite::{Connection, Statement};
use vocabulary::{EventId, EventIdGenerator, Timestamp};

use crate::chain::Chain;
use crate::disk;
use crate::error::AppendError;
use crate::queue::{Appended, Ending, Request};
use crate::row::{self, Header};
use crate::segment::{self, Carried, INSERT_ROW, Index, Segment};
use crate::shared::{Full, Shared, State};
use crate::types::{NewRecord, Offset};

/// The writer looks up from an empty queue so often: for a checkpoint while nothing happens, and
/// for a segment that has become old.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// After an idle wait a write-ahead file of this part of its limit is carried over already.
const IDLE_CHECKPOINT_PART: u64 = 8;
/// Pages that a commit writes beside those that it fills: the first page, the last leaf, the path
/// to it (estimate).
const PAGES_PER_COMMIT: u64 = 5;
/// A checkpoint that must reset the write-ahead file waits so long for readers. All appends wait
/// with it, so it is short; most reads end within it (estimate).
const FORCED_WAIT: Duration = Duration::from_millis(50);
/// After such a wait was in vain the next comes so much later: appends wait a twentieth of the
/// time at most.
const FORCED_PAUSE: Duration = Duration::from_secs(1);
/// The last checkpoint may wait so long for readers: nobody waits for appends any more.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a frame of the write-ahead file beside its page (SQLite file format §4.2).
const FRAME_HEADER_BYTES: u64 = 24;

/// The state of the writing thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) connection: Connection,
    /// The newest number of each device ever seen.
    pub(crate) heads: HashMap<u64, u64>,
    pub(crate) ids: EventIdGenerator,
    pub(crate) next: u64,
    pub(crate) wal: WalSize,
}

/// How much of the write-ahead file is in use: it does not shrink, so its length tells nothing.
/// Each checkpoint tells the true size; between them it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalSize {
    /// What is not carried over, as of the last checkpoint, and an estimate of what came since.
    bytes: u64,
    /// All that was in the file at the last checkpoint, carried over or not. It begins anew with
    /// the next commit, unless a reader still looks at it.
    in_file: u64,
    page_bytes: u64,
    limit: u64,
    /// Beyond this the writer waits for readers.
    limit_forced: u64,
    /// The next checkpoint is at this size.
    next_checkpoint: u64,
    /// The writer does not wait for readers again before.
    forced_after: Option<Instant>,
}

/// Why a segment is written no more.
enum Leave {
    Full,
    End(Ending),
    Failed,
}

impl Writer {
    /// Runs until the log ends.
    pub(crate) fn run(mut self) {
        loop {
            match Serving::serve(&mut self) {
                Leave::Full => self.change_segment(),
                // The keeper's panic ends the queue as well.
                Leave::End(Ending::AtOnce) if self.shared.state() == State::Failed => {
                    return self.fail();
                }
                Leave::End(Ending::AtOnce) => {
                    return self.shared.queue.refuse_all(AppendError::Closed);
                }
                Leave::End(Ending::InOrder) => return self.close(),
                Leave::Failed => return self.fail(),
            }
        }
    }

    /// Goes on in the segment that the keeper made ready.
    fn change_segment(&mut self) {
        let Some(spare) = self.shared.post.take_spare() else { return };
        let segment = Segment::open(spare.number, spare.path, self.next, Chain::default());
        let segment = Arc::new(segment);
        segment.mark_written();
        self.shared.catalog.push(Arc::clone(&segment));
        let full = std::mem::replace(&mut self.segment, segment);
        let connection = std::mem::replace(&mut self.connection, spare.connection);
        self.wal = WalSize::new(&self.shared.options);
        self.shared.post.put_full(Full::new(full, Some(connection)));
    }

    fn close(self) {
        self.shared.queue.refuse_all(AppendError::Closed);
        let closed = segment::checkpoint(&self.connection, "TRUNCATE", CLOSE_WAIT)
            .and_then(|_| segment::keep_wal_on_close(&self.connection, false));
        if let Err(error) = closed {
            tracing::warn!(%error, "the last checkpoint did not work; the next start makes it up");
        }
    }

    fn fail(self) {
        self.shared.set_state(State::Failed);
        self.shared.queue.end(Ending::AtOnce);
        self.shared.queue.refuse_all(AppendError::Failed);
    }
}

/// The prepared statements and buffers for one segment.
struct Serving<'a> {
    shared: &'a Shared,
    segment: &'a Segment,
    connection: &'a Connection,
    heads: &'a mut HashMap<u64, u64>,
    ids: &'a mut EventIdGenerator,
    next: &'a mut u64,
    wal: &'a mut WalSize,
    begin: Statement<'a>,
    insert: Statement<'a>,
    commit: Statement<'a>,
    row: Vec<u8>,
    headers: Vec<Header>,
}

impl<'a> Serving<'a> {
    fn serve(writer: &'a mut Writer) -> Leave {
        match Self::prepare(writer) {
            Ok(mut serving) => serving.run(),
            Err(error) => {
                tracing::error!(%error, "the live segment cannot be written");
                Leave::Failed
            }
        }
    }

    fn prepare(writer: &'a mut Writer) -> rusqlite::Result<Self> {
        let connection = &writer.connection;
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            insert: connection.prepare(INSERT_ROW)?,
            commit: connection.prepare("COMMIT")?,
            shared: &writer.shared,
            segment: &writer.segment,
            connection,
            heads: &mut writer.heads,
            ids: &mut writer.ids,
            next: &mut writer.next,
            wal: &mut writer.wal,
            row: Vec::new(),
            headers: Vec::new(),
        })
    }

    fn run(&mut self) -> Leave {
        let mut batch = Vec::new();
        loop {
            if let Some(leave) = self.leave() {
                return leave;
            }
            self.shared.queue.take(&mut batch, self.commit_records(), IDLE_WAIT);
            let is_idle = batch.is_empty();
            if !is_idle && self.append(&mut batch).is_break() {
                return Leave::Failed;
            }
            if self.wal.is_due(is_idle) && self.checkpoint().is_break() {
                return Leave::Failed;
            }
            let is_refusing = self.shared.state() == State::NoSpace;
            if is_refusing && self.wait_for_space().is_break() {
                return Leave::Failed;
            }
        }
    }

    /// Whether this segment has been written long enough.
    fn leave(&self) -> Option<Leave> {
        let (records, waiting) = (self.records(), self.shared.queue.depth().0);
        match self.shared.queue.ending() {
            Some(Ending::AtOnce) => return Some(Leave::End(Ending::AtOnce)),
            Some(ending) if waiting == 0 => return Some(Leave::End(ending)),
            _ => {}
        }
        if self.shared.state() == State::Failed {
            return Some(Leave::Failed);
        }
        let options = &self.shared.options;
        let is_full = records >= u64::from(options.segment_records);
        let is_old = || {
            let age = options.clock.now().saturating_since(self.started());
            records > 0 && age >= options.segment_span
        };
        ((is_full || is_old()) && self.shared.post.has_spare()).then_some(Leave::Full)
    }

    /// Records of the next commit at most: what the segment has room for, unless it is over full
    /// and waits for a new one.
    fn commit_records(&self) -> usize {
        let options = &self.shared.options;
        let room = u64::from(options.segment_records).saturating_sub(self.records());
        match usize::try_from(room) {
            Ok(room) if room > 0 => room.min(options.commit_records),
            _ => options.commit_records,
        }
    }

    fn records(&self) -> u64 {
        *self.next - self.segment.first
    }

    fn started(&self) -> Timestamp {
        self.segment.first_id().map_or(Timestamp::EPOCH, EventId::timestamp)
    }

    /// Commits and answers a batch; breaks if the storage failed.
    fn append(&mut self, batch: &mut Vec<Request>) -> ControlFlow<()> {
        let limit = self.shared.options.queue_wait;
        let mut requests = Vec::with_capacity(batch.len());
        requests.extend(batch.drain(..).filter_map(|request| request.unless_overdue(limit)));
        if requests.is_empty() {
            return ControlFlow::Continue(());
        }
        if self.records() >= u64::from(self.shared.options.segment_records_hard()) {
            self.shared.post.hurry();
            return self.refuse(requests, AppendError::NoSpace);
        }
        let started = Instant::now();
        let now = self.shared.options.clock.now();
        let first = *self.next;
        self.headers.clear();
        match self.commit(&requests, now) {
            Ok(bytes) => {
                self.publish(now);
                answer(requests, first, &self.headers);
                self.record_metrics(started, bytes);
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.forget(first);
                if disk::is_no_space(&error, &self.segment.path) {
                    self.shared.set_state(State::NoSpace);
                    return self.refuse(requests, AppendError::NoSpace);
                }
                tracing::error!(%error, "commit failed");
                self.shared.set_state(State::Failed);
                let _ = self.refuse(requests, AppendError::Failed);
                ControlFlow::Break(())
            }
        }
    }

    fn refuse(&self, requests: Vec<Request>, error: AppendError) -> ControlFlow<()> {
        requests.into_iter().for_each(|request| request.answer(Err(error)));
        ControlFlow::Continue(())
    }

    fn commit(&mut self, requests: &[Request], now: Timestamp) -> rusqlite::Result<u64> {
        let mut bytes = 0;
        self.begin.execute(())?;
        for request in requests {
            for record in &request.records {
                bytes += self.insert(record, now)?;
            }
        }
        // Counted before the commit: a failed one has written as well.
        self.wal.add(bytes);
        self.commit.execute(())?;
        Ok(bytes)
    }

    fn insert(&mut self, record: &NewRecord, now: Timestamp) -> rusqlite::Result<u64> {
        let is_numbered = record.kind.is_numbered() && !record.device.is_none();
        let device_seq = if is_numbered {
            let seq = self.heads.entry(record.device.as_u64()).or_insert(0);
            *seq += 1;
            *seq
        } else {
            0
        };
        let header = Header {
            id: self.ids.next(now),
            device: record.device,
            device_seq,
            received_at: record.received_at,
            kind: record.kind,
        };
        row::encode(&mut self.row, *self.next, &header, &record.body);
        // Counted first, so that `forget` takes the number of a refused row back as well.
        self.headers.push(header);
        let offset = self.next.cast_signed();
        *self.next += 1;
        self.insert.execute((offset, &self.row[..]))?;
        Ok(self.row.len() as u64)
    }

    /// Takes back what a failed commit has counted. The ids stay used: they need no sequence.
    fn forget(&mut self, first: u64) {
        if !self.connection.is_autocommit() {
            // The engine may have rolled back by itself already.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        for header in self.headers.iter().rev().filter(|header| header.device_seq > 0) {
            self.heads.insert(header.device.as_u64(), header.device_seq - 1);
        }
        *self.next = first;
    }

    /// Shows committed records to readers: first the index, then the end.
    fn publish(&mut self, now: Timestamp) {
        if let Index::Chain(chain) = &mut *self.segment.index_mut() {
            self.headers.iter().for_each(|header| chain.push(header));
        }
        // A clock that went back must not make records older than those before them: ids never
        // go back.
        let last = self.headers.last().map_or(now, |header| header.id.timestamp());
        self.segment.committed_at(now.max(last));
        self.shared.records.fetch_add(self.headers.len() as u64, Ordering::Relaxed);
        self.shared.catalog.set_end(*self.next);
        self.shared.end.send_replace(Offset::from_u64(*self.next));
    }

    fn record_metrics(&self, started: Instant, bytes: u64) {
        metrics::histogram!("simgate_log_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("simgate_log_records_total").increment(self.headers.len() as u64);
        metrics::counter!("simgate_log_bytes_total").increment(bytes);
        let (records, _) = self.shared.queue.depth();
        // A gauge is a float; the limit of the queue is far below 2^52.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        metrics::gauge!("simgate_log_queue_records").set(records as f64);
    }

    /// Carries the write-ahead file over; breaks if the storage failed.
    fn checkpoint(&mut self) -> ControlFlow<()> {
        let is_forced = self.wal.is_forced(Instant::now());
        let mode = if is_forced { "RESTART" } else { "PASSIVE" };
        match segment::checkpoint(self.connection, mode, FORCED_WAIT) {
            Ok(carried) => {
                self.wal.checkpointed(carried, is_forced.then(Instant::now));
                ControlFlow::Continue(())
            }
            Err(error) if disk::is_no_space(&error, &self.segment.path) => {
                self.shared.set_state(State::NoSpace);
                ControlFlow::Continue(())
            }
            Err(error) => {
                tracing::error!(%error, "checkpoint failed");
                ControlFlow::Break(())
            }
        }
    }

    /// The disk is full: gives the ballast free, so that old segments can go, refuses what comes,
    /// and looks for space until there is some.
    fn wait_for_space(&mut self) -> ControlFlow<()> {
        self.shared.ballast.release();
        self.shared.post.hurry();
        loop {
            self.shared.queue.refuse_all(AppendError::NoSpace);
            if self.shared.queue.ending().is_some() || self.shared.state() == State::Failed {
                return ControlFlow::Continue(());
            }
            if self.has_space()? {
                self.shared.set_state(State::Healthy);
                return ControlFlow::Continue(());
            }
            let until = Instant::now() + self.shared.options.probe_interval;
            while Instant::now() < until && self.shared.queue.ending().is_none() {
                std::thread::sleep(IDLE_WAIT.min(self.shared.options.probe_interval));
                self.shared.queue.refuse_all(AppendError::NoSpace);
            }
        }
    }

    /// There is space if the write-ahead file can be carried over, the ballast is back, and as
    /// much again as a write-ahead file may need is free.
    fn has_space(&mut self) -> ControlFlow<(), bool> {
        match segment::checkpoint(self.connection, "PASSIVE", Duration::ZERO) {
            Ok(carried) => self.wal.checkpointed(carried, None),
            Err(error) if disk::is_no_space(&error, &self.segment.path) => {
                return ControlFlow::Continue(false);
            }
            Err(error) => {
                tracing::error!(%error, "checkpoint failed");
                return ControlFlow::Break(());
            }
        }
        if self.shared.ballast.restore().is_err() {
            return ControlFlow::Continue(false);
        }
        let needed = self.shared.options.wal_bytes;
        let has_space = disk::free_bytes(&self.shared.dir).is_ok_and(|free| free >= needed);
        if !has_space {
            self.shared.ballast.release();
        }
        ControlFlow::Continue(has_space)
    }
}

fn answer(requests: Vec<Request>, mut first: u64, headers: &[Header]) {
    let mut headers = headers.iter();
    for request in requests {
        let count = request.records.len();
        let ids = headers.by_ref().take(count).map(|header| header.id).collect();
        request.answer(Ok(Appended { first: Offset::from_u64(first), ids }));
        first += count as u64;
    }
}

impl WalSize {
    pub(crate) fn new(options: &crate::options::Options) -> Self {
        let limit = options.wal_bytes;
        Self {
            bytes: 0,
            in_file: 0,
            page_bytes: u64::from(options.page_bytes),
            limit,
            limit_forced: options.wal_bytes_forced(),
            next_checkpoint: limit,
            forced_after: None,
        }
    }

    fn add(&mut self, bytes: u64) {
        let pages = bytes / self.page_bytes + PAGES_PER_COMMIT;
        self.bytes += pages * (self.page_bytes + FRAME_HEADER_BYTES);
    }

    fn is_due(&self, is_idle: bool) -> bool {
        let idle_limit = self.limit / IDLE_CHECKPOINT_PART;
        self.bytes >= if is_idle { idle_limit } else { self.next_checkpoint }
    }

    /// Whether the file is so large that the writer waits for readers, for a moment.
    fn is_forced(&self, now: Instant) -> bool {
        self.bytes.max(self.in_file) >= self.limit_forced
            && self.forced_after.is_none_or(|after| now >= after)
    }

    /// After an incomplete checkpoint (a reader was in the way) the next is not tried at once.
    /// `forced_at` is when one ended that waited for readers.
    fn checkpointed(&mut self, carried: Carried, forced_at: Option<Instant>) {
        let frame_bytes = self.page_bytes + FRAME_HEADER_BYTES;
        let in_file = carried.frames.map_or(self.bytes, |frames| frames * frame_bytes);
        if carried.is_complete {
            self.bytes = 0;
            self.in_file = if forced_at.is_some() { 0 } else { in_file };
            self.next_checkpoint = self.limit;
            self.forced_after = None;
        } else {
            self.bytes = in_file;
            self.in_file = in_file;
            self.next_checkpoint = in_file + self.limit / IDLE_CHECKPOINT_PART;
            if let Some(at) = forced_at {
                self.forced_after = Some(at + FORCED_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writer took six pages per commit for the size of the write-ahead file, and waited five
    /// seconds for readers, again and again, at a quarter of the size that was meant. What the
    /// checkpoint tells counts, and a wait in vain is followed by a pause.
    #[test]
    fn the_size_is_what_the_checkpoint_tells_and_a_wait_in_vain_is_followed_by_a_pause() {
        let options = crate::options::Options { wal_bytes: 1 << 20, ..Default::default() };
        let (mut wal, now) = (WalSize::new(&options), Instant::now());
        while !wal.is_forced(now) {
            wal.add(100);
        }
        let blocked = |frames| Carried { is_complete: false, frames: Some(frames) };
        wal.checkpointed(blocked(10), None);
        assert!(!wal.is_forced(now) && !wal.is_due(false), "ten pages are little");
        wal.checkpointed(blocked(1_100), None);
        assert!(wal.is_forced(now), "four times a mebibyte");
        wal.checkpointed(blocked(1_100), Some(now));
        assert!(!wal.is_forced(now) && wal.is_forced(now + FORCED_PAUSE));
        wal.checkpointed(Carried { is_complete: true, frames: Some(1_100) }, None);
        assert!(wal.is_forced(now), "carried over, but not begun anew");
        wal.checkpointed(Carried { is_complete: true, frames: Some(1_100) }, Some(now));
        assert!(!wal.is_forced(now + FORCED_PAUSE) && !wal.is_due(true));
    }
}
