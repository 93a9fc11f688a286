//! What is kept of a run, and when.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use vocabulary::Timestamp;

use super::REFUSED_PAUSE;
use super::run::{Job, Run, moment};
use crate::progress::{DeadLetter, Progress};
use crate::sink::Sink;
use crate::store::StoreError;

/// A save that takes longer than this may never end. What is pushed meanwhile would only pile up to
/// be saved.
const HANGING_SAVE: Duration = Duration::from_secs(10);

/// What is to be saved, and whether that works.
#[derive(Debug)]
pub(super) struct Saving {
    delivered: bool,
    first_delivery_at: Option<Timestamp>,
    dead: Vec<DeadLetter>,
    filter: Option<Arc<[u8]>>,
    /// Something changed since the last save began.
    is_unsaved: bool,
    /// A save runs, since then.
    running_since: Option<Instant>,
    save_after: Instant,
    /// The last save failed: what cannot be recorded is not pushed, or a crash would repeat all of
    /// it.
    is_paused: bool,
}

impl Saving {
    pub(super) fn new(delivered: bool, now: Instant) -> Self {
        Self {
            delivered,
            first_delivery_at: None,
            dead: Vec::new(),
            filter: None,
            // The first position may be the log's end, which no row holds yet.
            is_unsaved: true,
            running_since: None,
            save_after: now,
            is_paused: false,
        }
    }

    /// Something changed.
    pub(super) fn touch(&mut self) {
        self.is_unsaved = true;
    }

    /// Whether nothing may be pushed: the last save failed, or one does not end.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        let hangs = |since: Instant| now.saturating_duration_since(since) > HANGING_SAVE;
        self.is_paused || self.running_since.is_some_and(hangs)
    }

    /// Whether the first message of a device is still to be delivered, as far as is known here.
    pub(super) fn awaits_first(&self) -> bool {
        self.first_delivery_at.is_none()
    }

    /// When the next save is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.is_unsaved && self.running_since.is_none()).then_some(self.save_after)
    }

    /// The first deliveries change what the customer sees, so they are saved at once.
    pub(super) fn note_delivery(&mut self, has_telemetry: bool, now: Instant) {
        self.touch();
        let is_first_message = has_telemetry && self.first_delivery_at.is_none();
        if is_first_message {
            self.first_delivery_at = Some(Timestamp::from(SystemTime::now()));
        }
        if is_first_message || !self.delivered {
            self.delivered = true;
            self.save_after = now;
        }
    }

    pub(super) fn bury(&mut self, letters: impl IntoIterator<Item = DeadLetter>) {
        self.touch();
        self.dead.extend(letters);
    }

    /// The filter goes with the first position that needs it.
    pub(super) fn keep_filter(&mut self, filter: Arc<[u8]>) {
        self.touch();
        self.filter = Some(filter);
    }

    /// A save ended.
    fn ended(&mut self, now: Instant, interval: Duration) {
        self.running_since = None;
        self.is_paused = false;
        self.save_after = now + interval;
    }

    /// A save failed: all of it is to be saved again.
    fn put_back(&mut self, progress: Progress, now: Instant) -> Progress {
        let Progress { mut dead, filter, .. } = progress;
        self.running_since = None;
        self.is_paused = true;
        self.touch();
        self.save_after = now + REFUSED_PAUSE;
        dead.append(&mut self.dead);
        self.dead = dead;
        self.filter = self.filter.take().or(filter);
        Progress { replays: progress.replays, ..Progress::default() }
    }
}

impl<S: Sink> Run<'_, S> {
    pub(super) fn start_saving(&mut self, now: Instant) {
        if self.replays.is_one_ending() {
            self.saving.touch();
        }
        if self.saving.due().is_none_or(|due| now < due) {
            return;
        }
        let progress = self.progress();
        self.saving.running_since = Some(now);
        let bookmark = self.parts.bookmark.clone();
        let saving = spawn_blocking(move || {
            let result = bookmark.save(&progress);
            (progress, result)
        });
        self.jobs.push(Box::pin(async move {
            match saving.await {
                Ok((progress, result)) => Job::Saved(Box::new(progress), result),
                Err(error) => match error.try_into_panic() {
                    // What it carried is gone with its thread: a fault of ours, which ends the run.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The program ends, and this task with it.
                    Err(_) => std::future::pending().await,
                },
            }
        }));
    }

    /// All that is to be saved; it counts as saved.
    pub(super) fn progress(&mut self) -> Progress {
        let moment = moment();
        let saving = &mut self.saving;
        saving.is_unsaved = false;
        Progress {
            position: self.lanes.position(moment),
            filter: saving.filter.take(),
            delivered: saving.delivered,
            first_delivery_at: saving.first_delivery_at,
            trouble: self.telling.trouble(moment.now),
            dead: std::mem::take(&mut saving.dead),
            replays: self.replays.take_unsaved(moment),
        }
    }

    pub(super) fn take_saving(&mut self, progress: Progress, result: Result<(), StoreError>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.saving.ended(now, self.parts.settings.save_interval);
                self.replays.saved(&progress.replays);
                if !progress.dead.is_empty() {
                    self.count_dead();
                }
            }
            Err(error) => {
                tracing::warn!(integration = self.parts.bookmark.id(), %error, "nothing is saved");
                let progress = self.saving.put_back(progress, now);
                self.replays.put_back(progress.replays);
            }
        }
    }

    /// Whether a save runs.
    pub(super) fn is_saving(&self) -> bool {
        self.saving.running_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a save that had failed kept events from being pushed. While one hung on a disk that did
    /// not answer, dead letters and what replays had settled grew without bound.
    #[test]
    fn a_save_that_hangs_is_a_reason_to_pause() {
        let now = Instant::now();
        let mut saving = Saving::new(true, now);
        saving.running_since = Some(now);
        assert!(!saving.is_paused(now + HANGING_SAVE));
        let late = now + HANGING_SAVE + Duration::from_millis(1);
        assert!(saving.is_paused(late));
        saving.ended(late, Duration::ZERO);
        assert!(!saving.is_paused(late));
        saving.put_back(Progress::default(), late);
        assert!(saving.is_paused(late));
    }
}
