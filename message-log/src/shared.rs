//! What the handle, the writer and the keeper share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::disk::Ballast;
use crate::error::AppendError;
use crate::options::Options;
use crate::queue::{Ending, Queue};
use crate::sealed::Summary;
use crate::segment::Segment;
use crate::types::Offset;

/// How the log fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Appends are taken.
    Healthy,
    /// The disk is full: appends are refused, reads work, and the log looks for space by itself.
    NoSpace,
    /// The storage failed. Nothing is acknowledged any more: the process should end with code 74.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) queue: Queue,
    pub(crate) ballast: Ballast,
    pub(crate) state: watch::Sender<State>,
    pub(crate) end: watch::Sender<Offset>,
    /// Records in the log, damaged ones included.
    pub(crate) records: AtomicU64,
    pub(crate) post: Post,
}

/// What writer and keeper hand to each other.
#[derive(Debug, Default)]
pub(crate) struct Post {
    inner: Mutex<PostInner>,
    changed: Condvar,
    urgent: AtomicBool,
}

#[derive(Debug, Default)]
struct PostInner {
    spare: Option<Spare>,
    full: Vec<Full>,
    /// Whether a segment came since the keeper last looked. Those put back wait for its time.
    is_new: bool,
    stopped: bool,
}

/// An empty segment, ready to be written.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
}

/// A segment that is to be sealed. Its connection was the writer's, if it was this process that
/// wrote it.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) segment: Arc<Segment>,
    pub(crate) connection: Option<Connection>,
    /// Of the index, once it was written: then only the checkpoint is missing.
    pub(crate) summary: Option<Summary>,
}

/// Fails the log if the thread that holds it panics: nobody would answer any more, or write lists,
/// and the owner must hear of it.
#[derive(Debug)]
pub(crate) struct PanicGuard(pub(crate) Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_state(State::Failed);
            self.0.queue.refuse_all(AppendError::Failed);
            self.0.queue.end(Ending::AtOnce);
            self.0.queue.refuse_all(AppendError::Failed);
        }
    }
}

impl Full {
    pub(crate) fn new(segment: Arc<Segment>, connection: Option<Connection>) -> Self {
        Self { segment, connection, summary: None }
    }
}

impl Shared {
    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Changes the state; a failure is for ever.
    pub(crate) fn set_state(&self, new: State) {
        let changed = self.state.send_if_modified(|state| {
            let changes = *state != new && *state != State::Failed;
            if changes {
                *state = new;
            }
            changes
        });
        if changed {
            self.show_state();
            match new {
                State::Healthy => tracing::info!("message log takes records again"),
                State::NoSpace => tracing::error!("message log is out of disk space"),
                State::Failed => tracing::error!("message log failed, the process must end"),
            }
        }
    }
}

impl Shared {
    /// Sets the gauge of the state.
    pub(crate) fn show_state(&self) {
        let code = match self.state() {
            State::Healthy => 0.0,
            State::NoSpace => 1.0,
            State::Failed => 2.0,
        };
        metrics::gauge!("simgate_log_state").set(code);
    }
}

impl Post {
    pub(crate) fn put_spare(&self, spare: Spare) {
        self.lock().spare = Some(spare);
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.lock().spare.is_some()
    }

    pub(crate) fn take_spare(&self) -> Option<Spare> {
        self.lock().spare.take()
    }

    /// Hands over a segment that is to be sealed, and wakes the keeper.
    pub(crate) fn put_full(&self, full: Full) {
        let mut inner = self.lock();
        inner.full.push(full);
        inner.is_new = true;
        self.changed.notify_all();
    }

    /// Puts back what could not be sealed now; the keeper's next time is soon enough.
    pub(crate) fn put_back(&self, full: Vec<Full>) {
        self.lock().full.splice(..0, full);
    }

    pub(crate) fn take_full(&self) -> Option<Full> {
        let mut inner = self.lock();
        if inner.full.is_empty() { None } else { Some(inner.full.remove(0)) }
    }

    /// Wakes the keeper before its time.
    pub(crate) fn hurry(&self) {
        self.urgent.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The keeper's sleep; ends early when there is something to do.
    pub(crate) fn sleep(&self, time: Duration) {
        let inner = self.lock();
        let is_idle = |inner: &mut PostInner| {
            !inner.stopped && !inner.is_new && !self.urgent.load(Ordering::Acquire)
        };
        let slept = self.changed.wait_timeout_while(inner, time, is_idle);
        slept.unwrap_or_else(PoisonError::into_inner).0.is_new = false;
        self.urgent.store(false, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PostInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
