//! One run of a forwarder: everything that happens to it, in one loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use message_log::Offset;
use tokio::sync::{oneshot, watch};
use tokio::time::{Sleep, sleep_until};
use vocabulary::Timestamp;

use super::reading::{Pauses, ReadFault, Scan};
use super::replays::Replays;
use super::saving::Saving;
use super::telling::{Downfall, Telling};
use super::{Beginning, Parts};
use crate::event_type::EventType;
use crate::filter::Filter;
use crate::flow::{Flow, Leave};
use crate::lanes::{Lanes, Tag};
use crate::meters::{Levels, Meters};
use crate::position::Moment;
use crate::progress::Progress;
use crate::reading::{Item, Reading};
use crate::shares::{Kind, PerKind, Shares, fifth};
use crate::sink::{DELIVERY_TIMEOUT, Failure, FailureClass, Outcome, Sink};
use crate::store::StoreError;
use crate::window::{Attempt, Flight, Rules};

/// While nothing is due: long enough to cost nothing.
const IDLE: Duration = Duration::from_secs(3_600);
/// The status is shown so often at most.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);
/// Sinks end their attempts themselves ([`DELIVERY_TIMEOUT`]). One that does not would hold its
/// device, and its part of the concurrency, for good.
const ATTEMPT_TIMEOUT: Duration = DELIVERY_TIMEOUT.saturating_add(Duration::from_secs(5));
/// Attempts whose end is taken before anything else is looked at: a read must not wait for long.
const ENDS_AT_ONCE: usize = 256;

/// Whose lane it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// One of the lanes that lead forward.
    Forward(Tag),
    /// The replay of this number.
    Replay(usize),
}

/// An attempt that ended.
pub(super) struct Ended {
    pub(super) owner: Owner,
    pub(super) flight: Flight,
    pub(super) outcome: Outcome,
    /// Whether a message of a device was among its events.
    pub(super) has_telemetry: bool,
}

/// Work on a thread that may block, done.
pub(super) enum Job {
    Read(Owner, Result<Reading, ReadFault>),
    /// The devices of what lies below the place.
    Scanned(u64, Option<Filter>),
    Saved(Box<Progress>, Result<(), StoreError>),
    Counted(Result<u64, StoreError>),
}

type Pending<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

pub(super) struct Run<'a, S> {
    pub(super) parts: &'a Parts<S>,
    pub(super) rules: Rules,
    pub(super) flow: Flow,
    pub(super) lanes: Lanes<Item>,
    pub(super) replays: Replays,
    pub(super) shares: Shares,
    pub(super) attempts: Pending<Ended>,
    pub(super) jobs: Pending<Job>,
    pub(super) end: watch::Receiver<Offset>,
    pub(super) read_pauses: Pauses,
    pub(super) scan: Scan,
    pub(super) saving: Saving,
    pub(super) telling: Telling,
    pub(super) name: String,
    /// Dead letters that say something about the endpoint, as far as is known.
    pub(super) dead_count: u64,
    /// Whether there may be any dead letter.
    pub(super) has_dead: bool,
    pub(super) is_counting: bool,
    pub(super) downfall: Option<Downfall>,
    pub(super) meters: Meters,
    /// Something changed that is not shown yet.
    is_unshown: bool,
    show_after: Instant,
    seed: u64,
}

impl<'a, S: Sink> Run<'a, S> {
    pub(super) fn new(parts: &'a Parts<S>, beginning: Beginning) -> Self {
        let Beginning { position, saved, name, dead_count, has_dead, replays } = beginning;
        let moment = moment();
        let now = moment.now;
        let settings = &parts.settings;
        // Jitter only has to differ between integrations and starts.
        let seed = getrandom::u64().unwrap_or(position.resume);
        let rules = settings.rules();
        let filter = saved.filter.filter(|_| position.fresh.is_some());
        let lanes = Lanes::new(&rules, position, filter.and_then(Filter::from_bytes), moment, seed);
        Self {
            parts,
            flow: Flow::new(
                settings.retry.gate,
                settings.concurrency_max,
                saved.trouble.is_some(),
                now,
            ),
            lanes,
            replays: Replays::new(parts, replays, moment, seed),
            rules,
            shares: Shares::default(),
            attempts: FuturesUnordered::new(),
            jobs: FuturesUnordered::new(),
            end: parts.reader.source.log.watch(),
            read_pauses: Pauses::default(),
            scan: Scan::new(now),
            saving: Saving::new(saved.delivered, now),
            telling: Telling::new(saved.trouble, settings.disable_after, now),
            name,
            dead_count,
            has_dead,
            is_counting: false,
            downfall: None,
            meters: Meters::new(parts.bookmark.id()),
            is_unshown: true,
            show_after: now,
            seed,
        }
    }

    pub(super) async fn until_stopped(mut self, stopped: &mut oneshot::Receiver<Duration>) {
        let mut alarm = Box::pin(sleep_until((Instant::now() + IDLE).into()));
        loop {
            let now = Instant::now();
            self.tell();
            if let Some(downfall) = self.downfall.take() {
                return self.fail(downfall, stopped).await;
            }
            self.start_attempts(now);
            self.start_reading(now);
            self.start_saving(now);
            self.show(now);
            self.set_alarm(alarm.as_mut(), now);
            tokio::select! {
                biased;
                grace = &mut *stopped => {
                    // The handle was dropped: end as a crash would, without saving.
                    let Ok(grace) = grace else { return };
                    return self.wind_down(now + grace).await;
                }
                Some(job) = self.jobs.next(), if !self.jobs.is_empty() => self.take_job(job),
                Some(ended) = self.attempts.next(), if !self.attempts.is_empty() => {
                    self.take_attempts(ended);
                }
                // Also while the window is full, so that the lag is known. The log outlives its
                // readers; if not, the alarm remains.
                Ok(()) = self.end.changed(), if !self.lanes.main.is_reading() => {}
                () = alarm.as_mut() => {}
            }
            self.is_unshown = true;
        }
    }

    fn take_job(&mut self, job: Job) {
        match job {
            Job::Read(owner, result) => self.take_reading(owner, result),
            Job::Scanned(start, filter) => self.take_scan(start, filter),
            Job::Saved(progress, result) => self.take_saving(*progress, result),
            Job::Counted(result) => self.take_count(result),
        }
    }

    fn take_attempts(&mut self, first: Ended) {
        self.take_attempt(first);
        for _ in 0..ENDS_AT_ONCE {
            match self.attempts.next().now_or_never() {
                Some(Some(ended)) => self.take_attempt(ended),
                _ => break,
            }
        }
    }

    fn start_attempts(&mut self, now: Instant) {
        if self.saving.is_paused(now) {
            return;
        }
        let is_split = self.lanes.is_split();
        self.flow.keep_free(if is_split { fifth(self.flow.limit()) } else { 0 });
        while let Some(leave) = self.flow.leave(now) {
            let next = match leave {
                Leave::Any => self.next_attempt(now),
                Leave::Probe => self.next_probe(now),
            };
            let Some((owner, attempt)) = next else { return };
            self.launch(owner, attempt);
        }
    }

    fn next_attempt(&mut self, now: Instant) -> Option<(Owner, Attempt<Item>)> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let want = PerKind::from_fn(|kind| match kind {
            Kind::Main => is_due(self.lanes.main.window.due_at(now)),
            Kind::Fresh => self.lanes.fresh().is_some_and(|lane| is_due(lane.window.due_at(now))),
            Kind::Replay => is_due(self.replays.due_at(now)),
        });
        let in_flight = PerKind::from_fn(|kind| match kind {
            Kind::Main => self.lanes.main.window.in_flight(),
            Kind::Fresh => self.lanes.fresh().map_or(0, |lane| lane.window.in_flight()),
            Kind::Replay => self.replays.in_flight(),
        });
        let is_split = self.lanes.is_split();
        let kind = self.shares.deal(want, in_flight, self.flow.limit(), is_split)?;
        if kind == Kind::Replay {
            return self.replays.start(now);
        }
        let owner = Owner::Forward(self.lanes.tag(kind));
        let attempt = self.lanes.lane(kind)?.window.start(now)?;
        Some((owner, attempt))
    }

    fn next_probe(&mut self, now: Instant) -> Option<(Owner, Attempt<Item>)> {
        for kind in self.lanes.by_probe() {
            let owner = Owner::Forward(self.lanes.tag(kind));
            let lane = self.lanes.lane(kind);
            if let Some(attempt) = lane.and_then(|lane| lane.window.start_probe(now)) {
                return Some((owner, attempt));
            }
        }
        self.replays.start_probe(now)
    }

    fn launch(&mut self, owner: Owner, attempt: Attempt<Item>) {
        let Attempt { flight, items } = attempt;
        self.flow.begin();
        let sink = Arc::clone(&self.parts.sink);
        let has_telemetry = self.saving.awaits_first()
            && items.iter().any(|item| item.delivery.event_type == EventType::TelemetryData);
        let events = items.into_iter().map(|item| item.delivery).collect();
        self.attempts.push(Box::pin(async move {
            let outcome = within_time(sink.deliver(events), ATTEMPT_TIMEOUT).await;
            Ended { owner, flight, outcome, has_telemetry }
        }));
    }

    fn set_alarm(&self, mut alarm: Pin<&mut Sleep>, now: Instant) {
        let wakes = [
            self.saving.due(),
            self.read_again_at(now),
            self.retry_at(now),
            self.telling.next(now).map(|wait| now + wait),
            self.is_unshown.then_some(self.show_after),
        ];
        match wakes.into_iter().flatten().min() {
            Some(at) if alarm.deadline() != at.into() => alarm.as_mut().reset(at.into()),
            None if alarm.is_elapsed() => alarm.as_mut().reset((now + IDLE).into()),
            _ => {}
        }
    }

    /// When an attempt can begin that cannot now, if nothing else happens.
    fn retry_at(&self, now: Instant) -> Option<Instant> {
        if self.saving.is_paused(now) {
            return None;
        }
        let lanes = [Some(&self.lanes.main), self.lanes.fresh()];
        let windows = lanes.into_iter().flatten().map(|lane| lane.window.due_at(now));
        let dues = windows.chain(self.replays.dues(now)).flatten();
        // What is due and not begun waits for the end of an attempt, unless the endpoint is down.
        let is_down = !self.flow.is_open();
        self.flow.wake_at(dues.filter(|due| is_down || *due > now).min())
    }

    fn show(&mut self, now: Instant) {
        if !self.is_unshown || now < self.show_after {
            return;
        }
        self.is_unshown = false;
        self.show_after = now + SHOW_INTERVAL;
        let lag_records = self.end.borrow().as_u64().saturating_sub(self.lanes.cursor());
        let lanes = || [Some(&self.lanes.main), self.lanes.fresh()].into_iter().flatten();
        let oldest = lanes().filter_map(|lane| lane.window.oldest()).map(|item| item.received_at);
        let at = moment().at;
        let levels = Levels {
            in_flight: self.flow.in_flight(),
            limit: self.flow.limit(),
            lag_records,
            is_down: !self.flow.is_open(),
            oldest_age: oldest.min().map_or(Duration::ZERO, |oldest| at.saturating_since(oldest)),
        };
        self.meters.levels(levels);
        let retrying = lanes().map(|lane| lane.window.retrying()).sum();
        self.parts.status.change(|shown| {
            let down_since = self.telling.trouble(now).map(|trouble| trouble.since);
            shown.probe_at = self.flow.probe_at().filter(|_| levels.in_flight == 0);
            shown.status.down_since = down_since.filter(|_| levels.is_down);
            shown.status.in_flight = levels.in_flight;
            shown.status.concurrency_limit = levels.limit;
            shown.status.lag_records = lag_records;
            shown.status.retrying = retrying;
            shown.status.fresh_lane = self.lanes.is_split();
        });
    }

    /// Another seed than all before.
    pub(super) fn next_seed(&mut self) -> u64 {
        crate::schedule::scramble(&mut self.seed)
    }
}

/// The outcome of an attempt, also of one that does not end by itself as it must.
async fn within_time(attempt: impl Future<Output = Outcome>, limit: Duration) -> Outcome {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
        let limit_secs = limit.as_secs();
        let text = format!("the attempt did not end within {limit_secs} s");
        Outcome::Retry { reason: Failure::new(FailureClass::Timeout, text), after: None }
    })
}

/// Both clocks now.
pub(super) fn moment() -> Moment {
    Moment { now: Instant::now(), at: Timestamp::from(SystemTime::now()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt whose sink never ended it held its device for good, and where it was a probe the
    /// whole integration.
    #[tokio::test]
    async fn an_attempt_that_does_not_end_by_itself_is_ended() {
        let outcome = within_time(std::future::pending(), Duration::from_millis(5)).await;
        let Outcome::Retry { reason, after: None } = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.class, FailureClass::Timeout);
        let limit = Duration::from_secs(3_600);
        let outcome = within_time(std::future::ready(Outcome::Delivered), limit).await;
        assert_eq!(outcome, Outcome::Delivered);
    }
}
