//! How a run ends, and what it says meanwhile.

use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::StreamExt;
use message_log::{DeviceKey, Kind, NewRecord};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout_at};
use vocabulary::{EventKind, Notice};

use super::REFUSED_PAUSE;
use super::run::{Job, Run};
use super::telling::{Downfall, Told, dead_notice, down_notice};
use crate::meters::Levels;
use crate::progress::Progress;
use crate::sink::Sink;
use crate::store::Bookmark;

/// What attempts get to end when their integration has failed: what they achieve need not be
/// repeated when it is started again.
const FAILING_GRACE: Duration = Duration::from_secs(1);

impl<S: Sink> Run<'_, S> {
    /// Says what is due to be said.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        while let Some(told) = self.telling.due(now) {
            let id = self.parts.bookmark.id();
            match told {
                Told::Down(lasted) => self.append(&down_notice(id, &self.name, lasted)),
                Told::Dead(count) => self.append(&dead_notice(id, &self.name, count)),
                Told::TooLong(lasted) => {
                    self.downfall.get_or_insert(Downfall::TooLong(lasted));
                }
            }
            self.saving.touch();
        }
    }

    /// Writes a notice to the log.
    pub(super) fn append(&self, notice: &Notice) {
        let record = NewRecord {
            kind: Kind::new(EventKind::Notice.code()),
            device: DeviceKey::NONE,
            received_at: SystemTime::now().into(),
            body: notice.encode(),
        };
        let appending = self.parts.reader.source.log.append(vec![record]);
        tokio::spawn(async move {
            if let Err(error) = appending.await {
                tracing::warn!(%error, "a notice about an integration is lost");
            }
        });
    }

    /// Waits until `deadline` for the attempts that run, then saves.
    pub(super) async fn wind_down(mut self, deadline: Instant) {
        self.let_attempts_end(deadline).await;
        if self.saving.due().is_some() {
            let progress = self.progress();
            save_at_the_end(&self.parts.bookmark, progress).await;
        }
        self.meters.levels(Levels::default());
    }

    /// Ends because the integration has failed. Whoever starts it again has mended something, so
    /// every schedule begins anew.
    pub(super) async fn fail(
        mut self,
        downfall: Downfall,
        stopped: &mut oneshot::Receiver<Duration>,
    ) {
        let integration = self.parts.bookmark.id();
        tracing::error!(integration, reason = downfall.error(), "the integration has failed");
        self.let_attempts_end(Instant::now() + FAILING_GRACE).await;
        let mut progress = self.progress();
        progress.trouble = None;
        progress.position.retries.clear();
        if let Some(fresh) = &mut progress.position.fresh {
            fresh.retries.clear();
        }
        let bookmark = &self.parts.bookmark;
        save_at_the_end(bookmark, progress).await;
        while !set_failed(bookmark, downfall.error()).await {
            tokio::select! {
                () = sleep(REFUSED_PAUSE) => {}
                // It fails again when it is started again.
                _ = &mut *stopped => return,
            }
        }
        self.append(&downfall.notice(integration, &self.name));
        self.meters.levels(Levels::default());
    }

    async fn let_attempts_end(&mut self, deadline: Instant) {
        while let Ok(Some(ended)) = timeout_at(deadline.into(), self.attempts.next()).await {
            self.take_attempt(ended);
        }
        while self.is_saving()
            && let Some(job) = self.jobs.next().await
        {
            if let Job::Saved(progress, result) = job {
                self.take_saving(*progress, result);
            }
        }
    }
}

async fn save_at_the_end(bookmark: &Bookmark, progress: Progress) {
    let saving = bookmark.clone();
    if let Ok(Err(error)) = spawn_blocking(move || saving.save(&progress)).await {
        tracing::warn!(integration = bookmark.id(), %error, "nothing is saved");
    }
}

async fn set_failed(bookmark: &Bookmark, error: String) -> bool {
    let failing = bookmark.clone();
    match spawn_blocking(move || failing.fail(&error)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            let integration = bookmark.id();
            tracing::warn!(integration, %error, "that it has failed is not saved");
            false
        }
        Err(_) => false,
    }
}
