//! Small work that is due now and then.

use std::time::Duration;

use crate::ingest::Ingest;
use message_log::MessageLog;
use metrics_exporter_prometheus::PrometheusHandle;
use template_library::Templates;
use tracing::warn;

/// How often histograms are drained into their sums.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// How often versions of templates that no stored message needs any more are forgotten: retention
/// itself moves in steps of an hour.
const TEMPLATES_INTERVAL: Duration = Duration::from_secs(3_600);

/// Keeps the metrics small, for ever.
pub(crate) async fn metrics(metrics: PrometheusHandle) {
    let mut due = tokio::time::interval(METRICS_INTERVAL);
    loop {
        due.tick().await;
        metrics.run_upkeep();
    }
}

/// How often devices that are silent are forgotten: a burst is sent again within seconds.
const RATE_INTERVAL: Duration = Duration::from_secs(10);

/// Gives back the memory of silent devices, for ever.
pub(crate) async fn rate(ingest: Ingest) {
    let mut due = tokio::time::interval(RATE_INTERVAL);
    loop {
        due.tick().await;
        ingest.forget_idle();
    }
}

/// Forgets old versions of templates, for ever.
pub(crate) async fn templates(log: MessageLog, templates: Templates) {
    let mut due = tokio::time::interval(TEMPLATES_INTERVAL);
    loop {
        due.tick().await;
        let (log, templates) = (log.clone(), templates.clone());
        let forgotten = tokio::task::spawn_blocking(move || forget(&log, &templates)).await;
        if let Ok(Err(error)) = forgotten {
            warn!(error = format!("{error:#}"), "old template versions cannot be forgotten");
        }
    }
}

/// Forgets the versions that were replaced before the oldest stored message arrived.
fn forget(log: &MessageLog, templates: &Templates) -> anyhow::Result<()> {
    if let Some(arrival) = log.oldest_received() {
        templates.forget(arrival)?;
    }
    Ok(())
}
