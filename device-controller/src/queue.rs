//! What waits for the disk.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vocabulary::Timestamp;

use crate::error::StoreError;
use crate::table::{Change, Stored};

/// Tells the caller what has become of a job.
pub(crate) type Answer<T = ()> = SyncSender<Result<T, StoreError>>;

/// Something for the writer to do.
pub(crate) enum Job {
    /// Writes new requests, all or none.
    Insert(Vec<Stored>, Answer),
    /// Ends requests, all or none: if that fails they are active as before.
    End(Vec<Change>, Answer),
    /// Writes what has become of a request; tried until it works.
    Change(Change),
    /// Deletes old requests, and tells how many.
    Delete(Timestamp, u32, Answer<usize>),
    /// Answers when everything before it is on the disk.
    Flush(Answer),
    /// Sets a pragma of the connection: tests fill the disk with it.
    #[cfg(test)]
    Pragma(&'static str, i64),
}

/// How the writer is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// When everything was written.
    InOrder,
    /// At once, as a crash would.
    #[cfg(test)]
    AtOnce,
}

/// Jobs in order.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    jobs: Vec<Job>,
    /// New requests among them.
    inserts: usize,
    ending: Option<Ending>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues new requests, unless `limit` wait already.
    pub(crate) fn insert(
        &self,
        requests: Vec<Stored>,
        limit: usize,
    ) -> Result<Receiver<Result<(), StoreError>>, StoreError> {
        let mut inner = self.lock();
        if inner.inserts >= limit {
            return Err(StoreError::Busy { limit });
        }
        inner.inserts += requests.len();
        self.ask_within(inner, |answer| Job::Insert(requests, answer))
    }

    /// Queues a job that is answered.
    pub(crate) fn ask<T>(
        &self,
        job: impl FnOnce(Answer<T>) -> Job,
    ) -> Result<Receiver<Result<T, StoreError>>, StoreError> {
        self.ask_within(self.lock(), job)
    }

    fn ask_within<T>(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        job: impl FnOnce(Answer<T>) -> Job,
    ) -> Result<Receiver<Result<T, StoreError>>, StoreError> {
        if inner.ending.is_some() {
            return Err(StoreError::Closed);
        }
        let (answer, answered) = sync_channel(1);
        inner.jobs.push(job(answer));
        self.changed.notify_one();
        Ok(answered)
    }

    /// Queues what has become of a request. There is no limit of its own: each active request
    /// waits with at most one change for each attempt.
    pub(crate) fn change(&self, change: Change) {
        self.lock().jobs.push(Job::Change(change));
        self.changed.notify_one();
    }

    /// Asks the writer to end. What comes later is refused.
    pub(crate) fn end(&self, ending: Ending) {
        self.lock().ending.get_or_insert(ending);
        self.changed.notify_one();
    }

    /// Takes everything that waits into `jobs`, after waiting for something for a time at most;
    /// says whether and how the writer is to end.
    pub(crate) fn take(&self, jobs: &mut Vec<Job>, wait: Duration) -> Option<Ending> {
        let is_idle = |inner: &mut Inner| inner.jobs.is_empty() && inner.ending.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), wait, is_idle);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        jobs.append(&mut inner.jobs);
        inner.inserts = 0;
        inner.ending
    }
}
