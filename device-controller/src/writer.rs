//! The one thread that writes: takes what is queued, commits it at once, answers.
//!
//! While a commit waits for the disk, the next jobs gather: that is the whole group commit.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tracing::{error, info};
use vocabulary::Timestamp;

use crate::controller::Shared;
use crate::error::StoreError;
use crate::queue::{Answer, Job};
use crate::request::{KEPT_FOR, Status};
use crate::table::{self, Change, Deleted, Stored};

/// How soon the writer tries again after the disk refused; results wait for it in memory.
const RETRY: Duration = Duration::from_millis(500);
/// The writer looks up from an empty queue so often. Nothing depends on it.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// The state of the writing thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    /// What could not be written yet, in order.
    changes: Vec<Change>,
    /// Whether the last transaction failed.
    is_failing: bool,
}

/// What one transaction does.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    inserts: Vec<(Vec<Stored>, Answer)>,
    ends: Vec<(Vec<Change>, Answer)>,
    deletes: Vec<(Timestamp, u32, Answer<usize>)>,
    flushes: Vec<Answer>,
    #[cfg(test)]
    pragmas: Vec<(&'static str, i64)>,
}

/// Why a transaction was undone.
#[derive(Clone, Copy)]
enum Fault {
    NoSpace,
    Failed,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        Self { shared, connection, changes: Vec::new(), is_failing: false }
    }

    /// Runs until the controller ends.
    pub(crate) fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            let wait = if self.is_failing { RETRY } else { IDLE_WAIT };
            let ending = self.shared.queue.take(&mut jobs, wait);
            #[cfg(test)]
            if ending == Some(crate::queue::Ending::AtOnce) {
                return;
            }
            let mut batch =
                Batch { changes: std::mem::take(&mut self.changes), ..Batch::default() };
            jobs.drain(..).for_each(|job| batch.add(job));
            #[cfg(test)]
            for (name, value) in batch.pragmas.drain(..) {
                let _ = self.connection.pragma_update(None, name, value);
            }
            self.write(batch);
            if ending.is_some() {
                return self.close();
            }
        }
    }

    fn close(self) {
        if !self.changes.is_empty() {
            let results = self.changes.len();
            error!(results, "results are lost with a full disk: their requests are sent again");
        }
    }

    fn write(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let batch = self.refuse_beyond_limit(batch);
        match self.commit(&batch) {
            Ok(deleted) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("requests can be written again");
                }
                self.publish(batch, &deleted);
            }
            Err(error) => {
                let fault = match error.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => Fault::NoSpace,
                    _ => Fault::Failed,
                };
                if !std::mem::replace(&mut self.is_failing, true) {
                    error!(%error, "requests cannot be written; results wait in memory");
                }
                self.refuse(batch, fault);
            }
        }
    }

    /// New requests are refused where the file is as long as it may be; results are written.
    fn refuse_beyond_limit(&self, mut batch: Batch) -> Batch {
        let limit = self.shared.limits.file_bytes_max;
        let is_full = !batch.inserts.is_empty()
            && table::used_bytes(&self.connection).is_ok_and(|bytes| bytes >= limit);
        if is_full {
            self.refuse_inserts(std::mem::take(&mut batch.inserts), Fault::NoSpace);
        }
        batch
    }

    fn commit(&mut self, batch: &Batch) -> rusqlite::Result<Vec<Vec<Deleted>>> {
        let behaviour = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behaviour)?;
        table::insert(&transaction, batch.inserts.iter().flat_map(|(requests, _)| requests))?;
        let ends = batch.ends.iter().flat_map(|(ends, _)| ends);
        table::update(&transaction, batch.changes.iter().chain(ends))?;
        let deletes = batch.deletes.iter();
        let deleted = deletes
            .map(|(before, limit, _)| table::delete(&transaction, *before, *limit))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(deleted)
    }

    /// Shows in memory what is on the disk now, and answers.
    fn publish(&self, batch: Batch, deleted: &[Vec<Deleted>]) {
        let shared = &self.shared;
        for (requests, answer) in batch.inserts {
            let confirm = |new: &Stored| shared.active.confirm(&new.request, new.place);
            let due: Vec<_> = requests.iter().filter_map(confirm).collect();
            // Whoever is answered can trigger or cancel it; a sender may take its time.
            let _ = answer.send(Ok(()));
            due.into_iter().for_each(|dispatch| shared.hand_over(Some(dispatch)));
        }
        for change in &batch.changes {
            self.forget(change);
        }
        for (ends, answer) in batch.ends {
            ends.iter().for_each(|change| self.forget(change));
            let _ = answer.send(Ok(()));
        }
        for ((before, _, answer), deleted) in batch.deletes.into_iter().zip(deleted) {
            let now = before.saturating_add(KEPT_FOR);
            for gone in deleted.iter().filter(|gone| gone.was_active) {
                let next = shared.active.remove(gone.device, gone.place, now);
                shared.hand_over(next);
            }
            let _ = answer.send(Ok(deleted.len()));
        }
        for answer in batch.flushes {
            let _ = answer.send(Ok(()));
        }
    }

    /// A request whose end is on the disk needs no memory.
    fn forget(&self, change: &Change) {
        if change.status == Status::Scheduled {
            return;
        }
        let labels = [("status", change.status.as_str())];
        metrics::counter!("simgate_commands_ended_total", &labels).increment(1);
        let next = self.shared.active.remove(change.device, change.place, change.updated);
        self.shared.hand_over(next);
    }

    /// Nothing of a batch is on the disk: says so, and keeps the results for the next time.
    fn refuse(&mut self, batch: Batch, fault: Fault) {
        self.changes = batch.changes;
        self.refuse_inserts(batch.inserts, fault);
        for (ends, answer) in batch.ends {
            for change in &ends {
                let kept = self.shared.active.keep(change.device, change.place, change.updated);
                self.shared.hand_over(kept);
            }
            let _ = answer.send(Err(fault.error()));
        }
        for (_, _, answer) in batch.deletes {
            let _ = answer.send(Err(fault.error()));
        }
        for answer in batch.flushes {
            let _ = answer.send(Err(fault.error()));
        }
    }

    fn refuse_inserts(&self, inserts: Vec<(Vec<Stored>, Answer)>, fault: Fault) {
        for (requests, answer) in inserts {
            self.shared.withdraw(&requests);
            let _ = answer.send(Err(fault.error()));
        }
    }
}

impl Batch {
    fn add(&mut self, job: Job) {
        match job {
            Job::Insert(requests, answer) => self.inserts.push((requests, answer)),
            Job::End(ends, answer) => self.ends.push((ends, answer)),
            Job::Change(change) => self.changes.push(change),
            Job::Delete(before, limit, answer) => self.deletes.push((before, limit, answer)),
            Job::Flush(answer) => self.flushes.push(answer),
            #[cfg(test)]
            Job::Pragma(name, value) => self.pragmas.push((name, value)),
        }
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.inserts.is_empty()
            && self.ends.is_empty()
            && self.deletes.is_empty()
            && self.flushes.is_empty()
    }
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::NoSpace => StoreError::NoSpace,
            Self::Failed => StoreError::Failed,
        }
    }
}
