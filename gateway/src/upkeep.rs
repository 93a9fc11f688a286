//! Small work that is due now and then.

use std::time::{Duration, Instant, SystemTime};

use lwm2m::Registry;
use message_log::MessageLog;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use registration_store::Change;
use template_library::Templates;
use tracing::warn;
use vocabulary::Timestamp;

use crate::commands::Commands;
use crate::ingest::Ingest;
use crate::registration_desk::RegistrationDesk;

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

/// How often registrations that have expired are looked for, and how many at a time: 100,000 per
/// second, more than can register.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);
const EXPIRED_MAX: usize = 10_000;

/// Forgets registrations that have expired, and ends operations that waited for too long, for ever.
pub(crate) async fn registrations(registry: Registry, desk: RegistrationDesk) {
    let mut due = tokio::time::interval(EXPIRY_INTERVAL);
    let mut clock = Clock::new();
    loop {
        due.tick().await;
        let now = Timestamp::from(SystemTime::now());
        let expired = if clock.is_steady(Instant::now(), now) {
            registry.expired(now, EXPIRED_MAX)
        } else {
            Vec::new()
        };
        registry.overdue(now, EXPIRED_MAX);
        if !expired.is_empty() {
            desk.note(expired.into_iter().map(|iccid| Change { iccid, state: None }).collect());
        }
        gauge!("simgate_lwm2m_registrations").set(registry.len() as f64);
    }
}

/// A wall clock that is this far ahead of the monotonic one since the last look has jumped.
const JUMP: Duration = Duration::from_secs(60);
/// After a jump nothing expires for so long: the clock may be set back, and devices may update.
const STEADY_AFTER: Duration = Duration::from_secs(600);

/// Tells whether the wall clock can be trusted.
struct Clock {
    seen: Option<(Instant, Timestamp)>,
    jumped: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self { seen: None, jumped: None }
    }

    fn is_steady(&mut self, now: Instant, at: Timestamp) -> bool {
        if let Some((before, then)) = self.seen.replace((now, at))
            && at.saturating_since(then) > now.saturating_duration_since(before) + JUMP
        {
            warn!("the clock has jumped ahead: no registration expires for ten minutes");
            self.jumped = Some(now);
        }
        self.jumped.is_none_or(|jumped| now.saturating_duration_since(jumped) >= STEADY_AFTER)
    }
}

/// How often requests that have waited too long are looked for.
const COMMANDS_INTERVAL: Duration = Duration::from_secs(5);

/// Ends requests to devices that have waited too long, for ever.
pub(crate) async fn commands(commands: Commands) {
    let mut due = tokio::time::interval(COMMANDS_INTERVAL);
    loop {
        due.tick().await;
        let commands = commands.clone();
        let ended = tokio::task::spawn_blocking(move || commands.end_overdue()).await;
        if let Ok(Err(error)) = ended {
            warn!(error = crate::causes::said(&error), "old requests to devices cannot be ended");
        }
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
            warn!(error = crate::causes::said(&error), "old template versions cannot be forgotten");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_is_not_trusted_for_ten_minutes() {
        let (mut clock, start) = (Clock::new(), Instant::now());
        let at = |seconds: i64| Timestamp::from_millis(1_000_000_000_000 + seconds * 1_000);
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(clock.is_steady(start, at(0)));
        assert!(clock.is_steady(later(1), at(1)));
        assert!(!clock.is_steady(later(2), at(172_802)));
        assert!(!clock.is_steady(later(601), at(173_401)));
        assert!(clock.is_steady(later(602), at(173_402)));
        // Back again: lifetimes only last longer.
        assert!(clock.is_steady(later(603), at(603)));
    }
}
