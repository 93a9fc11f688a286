//! One connection of a sink, over all its sessions: opens them, and waits between them.
//!
//! Nothing happens before the first event. From then on there is a session, or the next attempt at
//! one, until the sink is dropped. What comes while there is none fails at once with the reason,
//! so that the forwarder sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

use super::client::Shared;
use super::dial::{Opened, open};
use super::endpoint::MqttEndpoint;
use super::session::{End, Job, Session, Terms};
use crate::sink::{Failure, FailureClass};

/// A session that lasted so long was a good one: the next pause is short again.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// After so many sessions in a row that were not, the reason is no accident.
const SHORT_SESSIONS_TOLD: u32 = 3;

/// What a connection shows to the sink that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Events that wait or are in flight.
    pub(super) load: AtomicUsize,
    /// There is no session, and the next attempt is not due yet.
    pub(super) down: AtomicBool,
}

/// One connection.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) endpoint: Arc<MqttEndpoint>,
    pub(super) client_id: String,
    pub(super) traffic: Arc<Traffic>,
    pub(super) jobs: mpsc::Receiver<Job>,
    /// Ends with the sink.
    pub(super) dropped: oneshot::Receiver<()>,
}

/// How a run of sessions goes.
struct Course {
    pause: Duration,
    /// Sessions in a row that ended soon.
    short_sessions: u32,
    /// The operator knows that there is no session.
    told: bool,
}

impl Connection {
    /// Runs until the sink is dropped.
    pub(super) async fn run(mut self) {
        let pause_min = self.shared.limits.pause_min;
        let mut course = Course { pause: pause_min, short_sessions: 0, told: false };
        loop {
            self.traffic.down.store(false, Ordering::Relaxed);
            let failure = match self.open().await {
                None => return,
                Some(Err(failure)) => failure,
                Some(Ok(opened)) => match self.session(opened, &mut course).await {
                    End::Dropped => return,
                    End::Broken(failure) => failure,
                },
            };
            if !course.told {
                let (host, client_id) = (&self.endpoint.host, &self.client_id);
                tracing::warn!(host, client_id, %failure, "no connection to a broker");
                course.told = true;
            }
            self.traffic.down.store(true, Ordering::Relaxed);
            let until = Instant::now() + jittered(course.pause);
            course.pause = (course.pause * 2).min(self.shared.limits.pause_max);
            if self.fail_until(until, &failure).await.is_err() {
                return;
            }
        }
    }

    /// A new session; `None` where the sink was dropped meanwhile.
    async fn open(&mut self) -> Option<Result<Opened, Failure>> {
        let Self { shared, endpoint, client_id, dropped, .. } = self;
        let limits = shared.limits;
        let opening = async {
            sleep_until(shared.book(&endpoint.session_name(client_id)).into()).await;
            let opening = open(endpoint, client_id, &shared.resolver, limits.keep_alive);
            timeout(limits.connect, opening).await.unwrap_or_else(|_| {
                let text = format!("no session within {} ms", limits.connect.as_millis());
                Err(Failure::new(FailureClass::Timeout, text))
            })
        };
        tokio::select! {
            opened = opening => Some(opened),
            _ = dropped => None,
        }
    }

    async fn session(&mut self, opened: Opened, course: &mut Course) -> End {
        let start = Instant::now();
        if course.told {
            let (host, client_id) = (&self.endpoint.host, &self.client_id);
            tracing::info!(host, client_id, "the broker is back");
            course.told = false;
        }
        let terms = Terms {
            in_flight_max: self.shared.limits.in_flight,
            attempt: self.shared.limits.attempt,
            publishes_per_second: self.endpoint.publishes_per_second,
            aws: self.endpoint.aws,
        };
        let end = Session::new(opened, terms).run(&mut self.jobs).await;
        if start.elapsed() >= GOOD_SESSION {
            course.pause = self.shared.limits.pause_min;
            course.short_sessions = 0;
        }
        course.short_sessions += 1;
        match end {
            End::Broken(failure) => End::Broken(self.with_history(failure, course.short_sessions)),
            End::Dropped => End::Dropped,
        }
    }

    /// A broker that closes again and again, and does not say why, means something by it.
    fn with_history(&self, mut failure: Failure, short_sessions: u32) -> Failure {
        if failure.answer.is_none() && short_sessions >= SHORT_SESSIONS_TOLD {
            let client_id = &self.client_id;
            failure.text.push_str(&format!(
                "; {short_sessions} sessions in a row ended soon: does another client use the \
                 client id {client_id:?}?"
            ));
        }
        failure
    }

    /// Lets everything fail until the next attempt is due; an error where the sink was dropped.
    async fn fail_until(&mut self, until: Instant, failure: &Failure) -> Result<(), ()> {
        loop {
            tokio::select! {
                () = sleep_until(until.into()) => return Ok(()),
                job = self.jobs.recv() => match job {
                    // Nobody waiting is no failure.
                    Some(job) => drop(job.reply.send(Err(failure.clone()))),
                    None => return Err(()),
                },
            }
        }
    }
}

/// Up to a quarter longer, so that a thousand gateways do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    // Without randomness it is only less polite.
    let share = getrandom::u32().unwrap_or_default() % 256;
    pause + pause / 4 * share / 256
}
