//! What has to happen now and then: what nobody needs any more is forgotten, and whoever has no
//! forwarder gets one.

use std::time::Duration;

use super::{Integrations, now};
use crate::reading::Source;

/// How often. A dead letter may be shown for as long after its message has expired.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long an ended replay is shown: as long as messages are kept by default.
const REPLAYS_SHOWN_FOR: Duration = Duration::from_secs(168 * 3_600);

impl Integrations {
    /// Works until it is aborted.
    pub(super) async fn keep_up(self, source: Source) {
        loop {
            let oldest = source.log.oldest().as_u64();
            let work = self.stored(move |store| {
                let now = now();
                store.expire_dead_letters(oldest)?;
                store.forget_replays(now.saturating_sub(REPLAYS_SHOWN_FOR))?;
                store.fail_rollouts(now, "the rollout was not finished within an hour")
            });
            if let Err(error) = work.await {
                tracing::warn!(%error, "the upkeep of integrations waits");
            }
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.run_all().await {
                tracing::warn!(%error, "the upkeep of integrations waits");
            }
        }
    }
}
