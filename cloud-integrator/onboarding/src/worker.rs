//! Works off what is due: several SIMs at a time, not faster than AWS allows.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{error, info, warn};
use vocabulary::Iccid;

use crate::onboarding::{Happening, Inner};
use crate::steps::Hindrance;
use crate::store::Due;

/// SIMs at the same time: six calls of some 100 ms each take 5 SIMs to reach 8 per second.
const CONCURRENCY: usize = 8;
/// The longest wait of a SIM after a failure.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// The longest pause when nothing gets through for any SIM.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How soon a change that was not announced is seen, such as that of a clock.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A pause for all, while every SIM meets the same hindrance.
#[derive(Debug)]
struct Gate {
    first: Duration,
    pause: Option<Duration>,
    until: Instant,
}

impl Gate {
    fn new(first: Duration) -> Self {
        Self { first, pause: None, until: Instant::now() }
    }

    fn close(&mut self, now: Instant, asked: Option<Duration>) {
        // Those that were on their way together meet the same hindrance.
        if now < self.until {
            return;
        }
        let pause = self.pause.map_or(self.first, |pause| pause.saturating_mul(2)).min(PAUSE_MAX);
        self.pause = Some(pause);
        self.until = now + asked.map_or(pause, |asked| asked.min(PAUSE_MAX).max(pause));
    }

    /// Returns whether it was closed.
    fn open(&mut self) -> bool {
        self.pause.take().is_some()
    }

    /// SIMs at the same time: one tells whether it goes on.
    fn room(&self) -> usize {
        if self.pause.is_some() { 1 } else { CONCURRENCY }
    }
}

type Ended = (Iccid, Result<(), Hindrance>);

/// Works until `stopped` completes; SIMs on their way go on at the next start.
pub(crate) async fn run(inner: Arc<Inner>, stopped: impl Future<Output = ()>) {
    tokio::select! {
        () = stopped => {}
        () = drive(&inner) => {}
    }
}

async fn drive(inner: &Arc<Inner>) {
    let mut gate = Gate::new(inner.settings.retry_wait);
    let mut flying: Vec<Iccid> = Vec::new();
    let mut work: JoinSet<Ended> = JoinSet::new();
    let per_second = inner.settings.devices_per_second.clamp(1, 1_000);
    let mut pace = interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = if flying.len() < gate.room() { next(inner, &flying).await } else { None };
        match due {
            Some(Due::Now(iccid)) => {
                sleep_until(gate.until).await;
                pace.tick().await;
                flying.push(iccid);
                let inner = Arc::clone(inner);
                // A panic must not leave the SIM out of every later round.
                work.spawn(async move { (iccid, inner.onboard(iccid).await) });
            }
            other => {
                let wait = match other {
                    Some(Due::In(wait)) => wait.min(LOOK_AGAIN),
                    _ => LOOK_AGAIN,
                };
                tokio::select! {
                    () = inner.changed.notified() => {}
                    () = sleep(wait) => {}
                    Some(ended) = work.join_next() => {
                        match ended {
                            Ok((iccid, result)) => {
                                flying.retain(|other| *other != iccid);
                                conclude(inner, &mut gate, iccid, result).await;
                            }
                            Err(fault) => {
                                error!(%fault, "onboarding of a SIM was cut off");
                                // Nobody says whose it was: all that fly come again.
                                work.shutdown().await;
                                flying.clear();
                                gate.close(Instant::now(), None);
                            }
                        }
                        count(inner).await;
                    }
                }
            }
        }
    }
}

/// What is due; nothing where the file cannot be read, which is said.
async fn next(inner: &Inner, flying: &[Iccid]) -> Option<Due> {
    let flying = flying.to_vec();
    match inner.stored(move |store| store.due(&flying)).await {
        Ok(due) => Some(due),
        Err(error) => {
            error!(%error, "onboarding cannot go on");
            Some(Due::In(inner.settings.retry_wait))
        }
    }
}

async fn conclude(inner: &Inner, gate: &mut Gate, iccid: Iccid, result: Result<(), Hindrance>) {
    let Err(hindrance) = result else {
        counter!("simgate_aws_onboarding_attempts_total", "outcome" => "success").increment(1);
        if gate.open() {
            info!("onboarding goes on");
        }
        inner.tell(Happening::Onboarded { iccid });
        return;
    };
    counter!("simgate_aws_onboarding_attempts_total", "outcome" => "failure").increment(1);
    let asked = match &hindrance {
        Hindrance::Aws(failed) | Hindrance::Message(failed) => failed.after,
        Hindrance::Store(_) => None,
    };
    if hindrance.is_of_all() {
        gate.close(Instant::now(), asked);
    }
    let text = hindrance.to_string();
    let first = inner.settings.retry_wait;
    let wait = move |failures: u32| {
        let doubled = first.saturating_mul(1 << (failures - 1).min(20));
        doubled.min(RETRY_WAIT_MAX).max(asked.unwrap_or_default())
    };
    let error = text.clone();
    match inner.stored(move |store| store.fail(iccid, &error, wait)).await {
        Ok(failures) => {
            warn!(?iccid, failures, error = text, "a SIM is not onboarded yet");
            if failures == 1 {
                inner.tell(Happening::Failed { iccid, error: text });
            }
        }
        Err(error) => error!(?iccid, %error, "a failure of onboarding cannot be noted"),
    }
}

async fn count(inner: &Inner) {
    if let Ok((done, waiting)) = inner.stored(|store| store.counts()).await {
        for (state, number) in [("done", done), ("waiting", waiting)] {
            gauge!("simgate_aws_onboarding_sims", "state" => state).set(f64::from(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_lets_one_through_and_waits_longer_each_time() {
        let mut gate = Gate::new(Duration::from_secs(2));
        assert_eq!(gate.room(), CONCURRENCY);
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            let now = gate.until;
            gate.close(now, None);
            // What was on its way with it counts as the same.
            gate.close(now, None);
            assert_eq!((gate.room(), gate.until - now), (1, pause));
        }
        assert!(gate.open());
        assert!(!gate.open());
        let now = gate.until;
        gate.close(now, Some(Duration::from_secs(7)));
        assert_eq!(gate.until - now, Duration::from_secs(7));
    }
}
