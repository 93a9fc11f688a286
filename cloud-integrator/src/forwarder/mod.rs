//! One integration's reader of the log: drives a [`Sink`] by the decisions of its lanes.
//!
//! ```text
//! log --read--> Reader (own thread) --take--> Lanes, replays --start--> Sink
//!                                               ^                         |
//!                                               +--------finish-----------+
//!                             position, dead letters --save--> state file
//! ```
//!
//! What is done is saved at most each [`ForwarderSettings::save_interval`] and at the end. After a
//! crash the records that were delivered since then are delivered again, with the same ids; after
//! a clean end none are.
//!
//! ```text
//! mod       a forwarder from outside       run        its loop
//! reading   what is read, by which lane    outcomes   what follows from an attempt
//! saving    what is kept, and when         telling    what its customer must hear
//! replays   lanes of what is asked again   ending     how a run ends, also by failing
//! status    how it fares
//! ```

mod ending;
mod outcomes;
mod reading;
mod replays;
mod run;
mod saving;
mod settings;
mod status;
mod telling;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

pub use settings::ForwarderSettings;
pub use status::ForwarderStatus;

use crate::meters::Meters;
use crate::position::Position;
use crate::progress::{ReplayJob, Saved};
use crate::reading::{Reader, Source, Subscription};
use crate::sink::Sink;
use crate::store::{Bookmark, StoreError};
use status::StatusCell;

/// A running forwarder. Dropping it ends it at once, as a crash would.
#[derive(Debug)]
pub struct Forwarder {
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
    status: StatusCell,
}

/// The pause after the log or the state file refused: both recover by themselves.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a forwarder that ended by a panic is started again. It doubles while that goes
/// on: whatever it was is likely still there, and each start repeats what was not saved.
const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause. A forwarder that ran for longer has begun anew.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);

impl Forwarder {
    /// Starts forwarding from where `bookmark` stands, or from the log's end where it never stood
    /// anywhere. Must be called within a tokio runtime.
    pub fn start<S: Sink>(
        source: Source,
        bookmark: Bookmark,
        subscription: Subscription,
        sink: S,
        settings: ForwarderSettings,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let reader = Reader {
            source,
            subscription,
            integration: bookmark.id().into(),
            replayed: false,
            versions: Vec::new(),
        };
        let status = StatusCell::default();
        let parts = Parts {
            reader: Arc::new(reader),
            bookmark,
            sink: Arc::new(sink),
            settings,
            status: status.clone(),
        };
        let task = tokio::spawn(parts.run_again_and_again(stopped));
        Self { stop, task, status }
    }

    /// Starts no new attempt, waits up to `grace` for those that run, saves the cursor and ends.
    pub async fn stop(self, grace: Duration) {
        // An error means that it has ended already.
        let _ = self.stop.send(grace);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a forwarder ended by itself");
        }
    }

    /// Whether it has ended by itself: its integration has failed.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// How it fares.
    pub fn status(&self) -> ForwarderStatus {
        self.status.read(Instant::now())
    }
}

/// What a forwarder is made of, each time that it is started.
struct Parts<S> {
    reader: Arc<Reader>,
    bookmark: Bookmark,
    sink: Arc<S>,
    settings: ForwarderSettings,
    status: StatusCell,
}

/// What a run begins with.
struct Beginning {
    position: Position,
    saved: Saved,
    /// What its customer calls the integration.
    name: String,
    dead_count: u64,
    has_dead: bool,
    replays: Vec<ReplayJob>,
}

impl<S: Sink> Parts<S> {
    /// Forwards until `stopped`. A panic ends one run as a crash would; the next one goes on from
    /// what is saved, so that a fault of ours costs a pause and repetitions, not the integration.
    async fn run_again_and_again(self, mut stopped: oneshot::Receiver<Duration>) {
        // What was never saved starts where the log ends now, also after a panic.
        let first = self.reader.source.log.end().as_u64();
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let start = Instant::now();
            // Nothing of a run is used after its panic.
            let run = AssertUnwindSafe(self.run(first, &mut stopped)).catch_unwind().await;
            if run.is_ok() || stopped.is_terminated() {
                return;
            }
            if start.elapsed() > RESTART_PAUSE_MAX {
                pause = RESTART_PAUSE_MIN;
            }
            Meters::new(self.bookmark.id()).faults.increment(1);
            let pause_secs = pause.as_secs();
            let integration = self.bookmark.id();
            tracing::error!(integration, pause_secs, "a forwarder panicked and is started again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped => return,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    async fn run(&self, first: u64, stopped: &mut oneshot::Receiver<Duration>) {
        let beginning = tokio::select! {
            beginning = self.beginning(first) => beginning,
            _ = &mut *stopped => return,
        };
        run::Run::new(self, beginning).until_stopped(stopped).await;
    }

    /// What was saved, asked for until the state file gives an answer; the place `first` where
    /// there is nothing.
    async fn beginning(&self, first: u64) -> Beginning {
        let end = self.reader.source.log.end().as_u64();
        loop {
            let bookmark = self.bookmark.clone();
            match spawn_blocking(move || load(&bookmark, first)).await {
                Ok(Ok(beginning)) => return within(beginning, end),
                Ok(Err(error)) => tracing::warn!(%error, "the cursor cannot be read"),
                Err(error) => tracing::error!(%error, "the cursor cannot be read"),
            }
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

fn load(bookmark: &Bookmark, first: u64) -> Result<Beginning, StoreError> {
    let mut saved = bookmark.load()?;
    Ok(Beginning {
        position: saved.position.take().unwrap_or_else(|| Position::at(first)),
        saved,
        name: bookmark.name()?.unwrap_or_default(),
        dead_count: bookmark.dead_count()?,
        has_dead: bookmark.has_dead()?,
        replays: bookmark.replays()?,
    })
}

/// The beginning without what lies behind the log's end: waiting until a log that was replaced or
/// cut off has grown as long would lose what it receives. The rest stands: rather twice than never.
fn within(mut beginning: Beginning, end: u64) -> Beginning {
    let fresh = beginning.position.fresh.as_ref().map_or(0, |fresh| fresh.resume);
    let resume = beginning.position.resume.max(fresh);
    if resume > end {
        tracing::error!(resume, end, "the cursor is ahead of the log: not the same log?");
        beginning.position = beginning.position.within(end);
    }
    beginning
}
