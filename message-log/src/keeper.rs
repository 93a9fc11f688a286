//! The background thread: keeps an empty segment ready, seals full ones, applies retention.
//!
//! It alone writes the control file. What fails for want of space is tried again; anything else
//! fails the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use thiserror::Error;
use vocabulary::Timestamp;

use crate::chain::{Bounds, Chain};
use crate::control::{Control, Floor};
use crate::disk;
use crate::queue::Ending;
use crate::retention::{Jump, JumpGuard, is_implausible, is_past};
use crate::sealed::{self, Summary};
use crate::segment::{self, Index, SealedFacts, Segment};
use crate::shared::{Full, Shared, Spare, State};

/// Chunks of an index written per transaction: some 4 MB, so that the write-ahead file stays
/// small.
const CHUNKS_PER_COMMIT: u32 = 1_000;
/// Sealing waits so long for readers of a segment, then the other work goes on and it is tried
/// again the next time: most reads end within it (estimate).
const SEAL_WAIT: Duration = Duration::from_millis(50);

/// The state of the background thread.
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Control,
    pub(crate) guard: JumpGuard,
    pub(crate) next_number: u32,
    /// What the last forward jump of the clock raised: segments and the last commit of before.
    pub(crate) raised: Vec<(Arc<Segment>, Timestamp)>,
}

/// How far an attempt to seal a segment came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
    Done,
    /// A reader still needs the write-ahead file.
    Blocked,
}

/// Why something could not be done.
#[derive(Debug, Error)]
pub(crate) enum KeeperError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl KeeperError {
    fn is_no_space(&self, shared: &Shared) -> bool {
        match self {
            Self::Sqlite(error) => disk::is_no_space(error, &shared.dir.join(crate::control::FILE)),
            Self::Io(error) => disk::is_no_space_io(error),
        }
    }
}

impl Keeper {
    /// Runs until the log ends.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.keep_implausible() {
            // Retention says the same again, and fails the log if it is not for want of space.
            tracing::warn!(%error, "times of commits could not be corrected");
        }
        while !self.shared.post.is_stopped() {
            if let Err(error) = self.look_after_everything() {
                if !error.is_no_space(&self.shared) {
                    tracing::error!(%error, "the log's background work failed");
                    self.shared.set_state(State::Failed);
                    return;
                }
                tracing::warn!(%error, "no space for the log's background work");
            }
            self.shared.post.sleep(self.shared.options.check_interval);
        }
        let in_order = self.shared.queue.ending() == Some(Ending::InOrder);
        if in_order
            && self.shared.state() != State::Failed
            && let Err(error) = self.control.set_clean_mark()
        {
            tracing::warn!(%error, "the mark of an orderly end could not be set");
        }
    }

    fn look_after_everything(&mut self) -> Result<(), KeeperError> {
        self.shared.queue.drop_overdue();
        // Retention first: on a full disk it is what makes space.
        self.apply_retention()?;
        if self.shared.state() != State::Healthy {
            return Ok(());
        }
        self.keep_spare()?;
        let mut blocked = Vec::new();
        let sealed = self.seal_all(&mut blocked);
        self.shared.post.put_back(blocked);
        sealed?;
        self.shared.ballast.restore()?;
        Ok(())
    }

    /// Seals all full segments. Those that could not be go to `blocked`.
    fn seal_all(&mut self, blocked: &mut Vec<Full>) -> Result<(), KeeperError> {
        while let Some(mut full) = self.shared.post.take_full() {
            if self.shared.post.is_stopped() {
                return Ok(());
            }
            match self.seal(&mut full) {
                Ok(Sealing::Done) => {}
                Ok(Sealing::Blocked) => blocked.push(full),
                Err(error) => {
                    blocked.push(full);
                    return Err(error);
                }
            }
            self.shared.queue.drop_overdue();
            self.keep_spare()?;
        }
        Ok(())
    }

    fn keep_spare(&mut self) -> Result<(), KeeperError> {
        if self.shared.post.has_spare() {
            return Ok(());
        }
        let number = self.next_number;
        let spare = make_spare(&self.shared, &self.control, number)?;
        self.next_number += 1;
        self.shared.post.put_spare(spare);
        Ok(())
    }

    /// Writes the index of a full segment, carries everything over, and marks it as sealed.
    ///
    /// A sealed segment is read without its write-ahead file, and the next start removes an empty
    /// one: so it is sealed only when everything was carried over.
    fn seal(&self, full: &mut Full) -> Result<Sealing, KeeperError> {
        let segment = &full.segment;
        let opened;
        let connection = match &full.connection {
            Some(connection) => connection,
            None => {
                opened = segment::open_writer(&segment.path)?;
                &opened
            }
        };
        let (mut facts, heads) = {
            let index = segment.index();
            let Index::Chain(chain) = &*index else { return Ok(Sealing::Done) };
            if full.summary.is_none() {
                full.summary = write_index(&self.shared, connection, chain)?;
            }
            if !segment::checkpoint(connection, "TRUNCATE", SEAL_WAIT)?.is_complete {
                return Ok(Sealing::Blocked);
            }
            (facts(segment, chain), numbered_heads(chain).collect::<Vec<_>>())
        };
        self.control.save_heads(heads)?;
        facts.bytes = std::fs::metadata(&segment.path)?.len();
        disk::sync_folder(&self.shared.dir)?;
        self.control.seal(segment.number, segment.first, &facts)?;
        let Some(summary) = full.summary.take() else { return Ok(Sealing::Done) };
        segment.become_sealed(facts, summary);
        self.shared.catalog.close_idle(segment.number);
        segment::keep_wal_on_close(connection, false)?;
        tracing::debug!(segment = segment.number, records = facts.records, "segment sealed");
        Ok(Sealing::Done)
    }

    /// Follows jumps of the clock: how old records are is known only by the clock that ran when
    /// they were committed.
    fn follow_clock(&mut self, now: Timestamp) -> Result<(), KeeperError> {
        match self.guard.look(now, self.shared.options.clock.monotonic()) {
            None => Ok(()),
            Some(Jump::Forward) => {
                let is_meant = |segment: &Segment| {
                    segment.is_written_here() || is_implausible(segment.last_commit())
                };
                self.raise(now, is_meant)
            }
            Some(Jump::Back) => self.take_back(now),
        }
    }

    /// Records committed while the clock had not been set yet count as committed now.
    fn keep_implausible(&mut self) -> Result<(), KeeperError> {
        let now = self.shared.options.clock.now();
        if is_implausible(now) {
            return Ok(());
        }
        self.raise(now, |segment| is_implausible(segment.last_commit()))
    }

    /// Keeps the segments that are meant as if they had been committed at `now`.
    fn raise(
        &mut self,
        now: Timestamp,
        is_meant: impl Fn(&Segment) -> bool,
    ) -> Result<(), KeeperError> {
        for segment in self.shared.catalog.segments().iter() {
            let before = segment.last_commit();
            if before >= now || !is_meant(segment) {
                continue;
            }
            segment.committed_at(now);
            if !self.raised.iter().any(|(known, _)| known.number == segment.number) {
                self.raised.push((Arc::clone(segment), before));
            }
        }
        self.save_raised()
    }

    /// The jump before was the wrong one: what it raised would be kept for as long as it was wide.
    fn take_back(&mut self, now: Timestamp) -> Result<(), KeeperError> {
        for (segment, before) in &self.raised {
            segment.commit_lowered_to(now.max(*before));
        }
        self.save_raised()?;
        self.raised.clear();
        Ok(())
    }

    fn save_raised(&self) -> Result<(), KeeperError> {
        let sealed = self.raised.iter().filter(|(segment, _)| segment.is_sealed());
        let commits = sealed.map(|(segment, _)| (segment.number, segment.last_commit()));
        Ok(self.control.set_last_commits(&commits.collect::<Vec<_>>())?)
    }

    fn apply_retention(&mut self) -> Result<(), KeeperError> {
        let now = self.shared.options.clock.now();
        self.follow_clock(now)?;
        if !self.guard.may_delete() {
            return Ok(());
        }
        let options = &self.shared.options;
        let segments = self.shared.catalog.segments();
        // From the oldest on, so that what is kept has no gap. The last one is being written.
        let others = &segments[..segments.len().saturating_sub(1)];
        let old: Vec<&Arc<Segment>> = others
            .iter()
            .take_while(|segment| {
                segment.is_sealed() && is_past(segment.last_commit(), now, options.retention)
            })
            .collect();
        let Some(last) = old.last() else { return Ok(()) };
        let floor = Floor {
            offset: last.first + u64::from(last.records()),
            id: last.facts().map(|facts| facts.last_id),
        };
        let numbers: Vec<u32> = old.iter().map(|segment| segment.number).collect();
        // First the list, then the files: a crash in between leaves files that the next start
        // removes, never a list of files that are gone.
        self.control.remove(&numbers, floor)?;
        self.shared.catalog.remove(&numbers);
        self.raised.retain(|(segment, _)| !numbers.contains(&segment.number));
        let records: u64 = old.iter().map(|segment| u64::from(segment.records())).sum();
        self.shared.records.fetch_sub(records, Ordering::Relaxed);
        for segment in old {
            segment::remove(&segment.path)?;
        }
        disk::sync_folder(&self.shared.dir)?;
        tracing::info!(segments = numbers.len(), records, "records past retention deleted");
        Ok(())
    }
}

/// Makes an empty segment and lists it.
pub(crate) fn make_spare(
    shared: &Shared,
    control: &Control,
    number: u32,
) -> Result<Spare, KeeperError> {
    let path = segment::path(&shared.dir, number);
    // What an attempt before left behind.
    segment::remove(&path)?;
    let connection = segment::create(&path, shared.options.page_bytes)?;
    segment::prepare_wal(&path, shared.options.wal_bytes)?;
    disk::sync_folder(&shared.dir)?;
    control.add(number)?;
    Ok(Spare { number, path, connection })
}

fn numbered_heads(chain: &Chain) -> impl Iterator<Item = (u64, u64)> + '_ {
    chain.heads().filter(|(_, head)| head.seq > 0).map(|(device, head)| (device, head.seq))
}

fn facts(segment: &Segment, chain: &Chain) -> SealedFacts {
    let no_id = vocabulary::EventId::from_bytes([0; 16]);
    SealedFacts {
        records: chain.len(),
        first_id: chain.first_id.unwrap_or(no_id),
        last_id: chain.last_id.unwrap_or(no_id),
        bounds: Bounds::of(chain.blocks()),
        last_commit: segment.last_commit(),
        bytes: 0,
    }
}

/// Writes the index in sorted order; an earlier attempt is written over. Returns the summary as it
/// can be read back.
fn write_index(
    shared: &Shared,
    connection: &Connection,
    chain: &Chain,
) -> Result<Option<Summary>, KeeperError> {
    connection.execute_batch("BEGIN IMMEDIATE; DELETE FROM chunks")?;
    let written = write_chunks(shared, connection, chain);
    if written.is_err() && !connection.is_autocommit() {
        // The engine may have rolled back by itself already.
        let _ = connection.execute_batch("ROLLBACK");
    }
    Ok(written?)
}

fn write_chunks(
    shared: &Shared,
    connection: &Connection,
    chain: &Chain,
) -> rusqlite::Result<Option<Summary>> {
    let mut insert = connection.prepare("INSERT INTO chunks (number, body) VALUES (?1, ?2)")?;
    let mut summary = None;
    sealed::write(chain, |number, bytes| {
        insert.execute((number, bytes))?;
        // On a slow disk this takes its time, and callers wait for their answer.
        shared.queue.drop_overdue();
        if number == sealed::SUMMARY {
            summary = Summary::decode(bytes);
        } else if number.is_multiple_of(CHUNKS_PER_COMMIT) {
            connection.execute_batch("COMMIT")?;
            segment::checkpoint(connection, "PASSIVE", Duration::ZERO)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok::<(), rusqlite::Error>(())
    })?;
    drop(insert);
    connection.execute_batch("COMMIT")?;
    Ok(summary)
}
