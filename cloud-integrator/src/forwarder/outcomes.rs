//! What follows from the end of an attempt.

use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use vocabulary::Timestamp;

use super::reading::lane_of;
use super::run::{Ended, Job, Owner, Run};
use super::telling::Downfall;
use crate::policy::blames_events;
use crate::position::Moment;
use crate::progress::DeadLetter;
use crate::reading::Item;
use crate::sink::{Failure, FailureClass, Outcome, Sink};
use crate::store::{DEAD_LETTERS_MAX, StoreError};
use crate::window::{Dead, Ending, Flight};

/// A failed attempt, as its sink saw it.
struct Failed {
    reason: Failure,
    after: Option<Duration>,
    is_final: bool,
}

impl<S: Sink> Run<'_, S> {
    pub(super) fn take_attempt(&mut self, ended: Ended) {
        let Ended { owner, flight, outcome, has_telemetry } = ended;
        match outcome {
            Outcome::Delivered => self.delivered(owner, flight, has_telemetry),
            Outcome::Retry { reason, after } => {
                self.failed(owner, flight, Failed { reason, after, is_final: false });
            }
            Outcome::Rejected { reason } => {
                self.failed(owner, flight, Failed { reason, after: None, is_final: true });
            }
        }
    }

    fn delivered(&mut self, owner: Owner, flight: Flight, has_telemetry: bool) {
        let now = Instant::now();
        let events = flight.places().len() as u64;
        self.meters.delivered.increment(events);
        if let Owner::Replay(_) = owner {
            // Their dead letters, where there are any, are none any more.
            let settled = if self.has_dead { flight.places() } else { &[] };
            self.replays.note(owner, |progress| {
                progress.delivered += events;
                progress.settled.extend(settled);
            });
        }
        let is_back = self.flow.succeeded(flight.begun, now);
        if let Some(lane) = lane_of(owner, &mut self.lanes, &mut self.replays) {
            lane.window.finish(flight, Ending::Delivered, now);
        }
        if is_back {
            tracing::info!(integration = self.parts.bookmark.id(), "the endpoint is back");
            self.release_waiting(now);
        }
        self.telling.succeeded();
        self.saving.note_delivery(has_telemetry, now);
        let at = Timestamp::from(SystemTime::now());
        self.parts.status.change(|shown| shown.status.last_success_at = Some(at));
    }

    fn release_waiting(&mut self, now: Instant) {
        self.lanes.main.window.release_waiting(now);
        if let Some(fresh) = self.lanes.lane(crate::shares::Kind::Fresh) {
            fresh.window.release_waiting(now);
        }
        self.replays.release_waiting(now);
    }

    fn failed(&mut self, owner: Owner, flight: Flight, failed: Failed) {
        let now = Instant::now();
        let Failed { reason, after, is_final } = failed;
        let (class, begun) = (reason.class, flight.begun);
        let integration = self.parts.bookmark.id();
        tracing::debug!(integration, %reason, "an attempt failed");
        self.meters.failure(class);
        self.saving.touch();
        let counts = self.flow.is_open();
        let Some(lane) = lane_of(owner, &mut self.lanes, &mut self.replays) else { return };
        let ending = Ending::Failed { class, after, is_final, counts };
        let finish = lane.window.finish(flight, ending, now);
        let at = Timestamp::from(SystemTime::now());
        // An event that is refused again and again says nothing about the endpoint: others may
        // pass.
        let is_known = counts && blames_events(class) && !finish.is_first;
        if finish.is_split || is_final || is_known {
            self.flow.ended();
        } else {
            if self.flow.failed(class, after, begun, now) {
                tracing::warn!(integration, %reason, "the endpoint counts as down");
                self.telling.down(Moment { now, at });
            }
            self.telling.failed(now);
        }
        if finish.dead.is_empty() {
            self.meters.retried.increment(1);
        } else {
            self.bury(owner, finish.dead, &reason, at);
        }
        if finish.fails {
            self.downfall = Some(Downfall::Exhausted(reason.clone()));
        }
        self.parts.status.change(|shown| shown.status.last_failure = Some((at, reason)));
    }

    /// Makes dead letters of events that are given up. They are saved together with the position
    /// that passes over them.
    fn bury(&mut self, owner: Owner, dead: Vec<Dead<Item>>, failure: &Failure, at: Timestamp) {
        let count = dead.len() as u64;
        let integration = self.parts.bookmark.id();
        tracing::warn!(integration, %failure, count, "events are given up");
        self.meters.dead.increment(count);
        self.telling.died(count);
        self.replays.note(owner, |progress| progress.failed += count);
        self.saving.bury(dead.into_iter().map(|dead| {
            let Dead { place, device, attempts, item } = dead;
            DeadLetter {
                place,
                id: item.delivery.id,
                device,
                event_type: item.delivery.event_type,
                received_at: item.received_at,
                died_at: at,
                failure: failure.clone(),
                attempts,
            }
        }));
        self.has_dead = true;
        // An event of which no request can be made says nothing about the endpoint. Those of a
        // replay are not new; it is counted exactly before anything follows from it.
        if failure.class != FailureClass::Request {
            self.dead_count += count;
        }
    }

    /// Counts the dead letters exactly where there may be too many of them. That reads them all, so
    /// it follows saves, not events.
    pub(super) fn count_dead(&mut self) {
        if self.dead_count <= DEAD_LETTERS_MAX || self.is_counting {
            return;
        }
        self.is_counting = true;
        let bookmark = self.parts.bookmark.clone();
        let counting = spawn_blocking(move || bookmark.dead_count());
        self.jobs.push(Box::pin(async move {
            Job::Counted(counting.await.unwrap_or(Err(StoreError::CutOff)))
        }));
    }

    pub(super) fn take_count(&mut self, result: Result<u64, StoreError>) {
        self.is_counting = false;
        let Ok(count) = result else { return };
        self.dead_count = count;
        if count > DEAD_LETTERS_MAX {
            self.downfall = Some(Downfall::DeadLetters(count));
        }
    }
}
