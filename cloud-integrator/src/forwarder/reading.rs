//! What a run reads, and for which lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use message_log::ReadError;
use tokio::task::spawn_blocking;

use super::REFUSED_PAUSE;
use super::replays::Replays;
use super::run::{Job, Owner, Run, moment};
use super::telling::expired_notice;
use crate::filter::{Filter, FilterBuilder};
use crate::lane::{Found, Lane};
use crate::lanes::{Backlog, Lanes};
use crate::reading::{Item, RECORDS_PER_READ, Reading, Selection};
use crate::shares::Kind;
use crate::sink::Sink;
use crate::store::StoreError;

/// A second lane opens when the first has so many windows of records before it: less is done soon.
const FAR_BEHIND_WINDOWS: u64 = 4;
/// The least time between two scans: each reads the whole backlog.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// Why a read brought nothing.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// The log begins there.
    Overtaken(u64),
    /// Something that passes.
    Passing(String),
}

/// Lanes whose last read failed, each with the moment from which it may read again.
#[derive(Debug, Default)]
pub(super) struct Pauses(Vec<(Owner, Instant)>);

impl Pauses {
    fn begin(&mut self, owner: Owner, now: Instant) {
        self.0.push((owner, now + REFUSED_PAUSE));
    }

    /// Forgets those that are over.
    fn end(&mut self, now: Instant) {
        self.0.retain(|(_, at)| now < *at);
    }

    fn end_at(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|(_, at)| *at).filter(|at| now < *at).min()
    }

    /// Whether a lane has to wait.
    pub(super) fn holds(&self, owner: Owner) -> bool {
        self.0.iter().any(|(other, _)| *other == owner)
    }
}

/// The look at the devices of a backlog.
#[derive(Debug)]
pub(super) struct Scan {
    is_running: bool,
    not_before: Instant,
    is_cancelled: Arc<AtomicBool>,
    found: Option<Backlog>,
}

impl Scan {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_running: false, not_before: now, is_cancelled: Arc::default(), found: None }
    }
}

/// Nobody waits for its end any more.
impl Drop for Scan {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

impl From<ReadError> for ReadFault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Overtaken { oldest } => Self::Overtaken(oldest.as_u64()),
            other => Self::Passing(other.to_string()),
        }
    }
}

impl From<StoreError> for ReadFault {
    fn from(error: StoreError) -> Self {
        Self::Passing(error.to_string())
    }
}

impl<S: Sink> Run<'_, S> {
    pub(super) fn start_reading(&mut self, now: Instant) {
        self.read_pauses.end(now);
        if self.lanes.join() {
            tracing::info!(integration = self.parts.bookmark.id(), "the backlog is caught up with");
            self.saving.touch();
        }
        self.open_lane();
        let end = self.end.borrow().as_u64();
        for kind in [Kind::Main, Kind::Fresh] {
            let owner = Owner::Forward(self.lanes.tag(kind));
            if self.read_pauses.holds(owner) {
                continue;
            }
            let Some(plan) = self.lanes.plan(kind, end, RECORDS_PER_READ) else { continue };
            let selection = Selection::Part(self.lanes.part(kind));
            let reader = Arc::clone(&self.parts.reader);
            self.begin_reading(owner, move || Ok(reader.read(&plan, &selection)?));
        }
        for (owner, read) in self.replays.plans(&self.parts.bookmark, &self.read_pauses) {
            self.begin_reading(owner, read);
        }
        if self.is_far_behind(end, now) {
            self.begin_scan(end);
        }
    }

    fn begin_reading(
        &mut self,
        owner: Owner,
        read: impl FnOnce() -> Result<Reading, ReadFault> + Send + 'static,
    ) {
        let reading = spawn_blocking(read);
        self.jobs.push(Box::pin(async move {
            let cut_off = |_| Err(ReadFault::Passing("a read was cut off".to_owned()));
            Job::Read(owner, reading.await.unwrap_or_else(cut_off))
        }));
    }

    /// When reading goes on that has to wait.
    pub(super) fn read_again_at(&self, now: Instant) -> Option<Instant> {
        self.read_pauses.end_at(now)
    }

    pub(super) fn take_reading(&mut self, owner: Owner, result: Result<Reading, ReadFault>) {
        let now = Instant::now();
        let Some(lane) = lane_of(owner, &mut self.lanes, &mut self.replays) else { return };
        match result {
            Ok(reading) => {
                let Reading { arrivals, next, unreadable, untranslated, cut_short, passed_over } =
                    reading;
                lane.take(Found { arrivals, next }, now);
                self.meters.unreadable.increment(unreadable);
                self.meters.untranslated.increment(untranslated);
                self.replays.passed_over(owner, passed_over);
                if let Some(error) = cut_short {
                    let integration = self.parts.bookmark.id();
                    tracing::warn!(integration, %error, "reading waits");
                    self.read_pauses.begin(owner, now);
                }
            }
            Err(ReadFault::Overtaken(oldest)) => {
                let lost = lane.expire(oldest);
                self.overtaken(owner, oldest, lost);
            }
            Err(ReadFault::Passing(error)) => {
                lane.give_up();
                let integration = self.parts.bookmark.id();
                tracing::warn!(integration, %error, "the log cannot be read");
                self.read_pauses.begin(owner, now);
            }
        }
        self.saving.touch();
    }

    /// Retention was faster than the endpoint: go on with what there is, and say so.
    fn overtaken(&mut self, owner: Owner, oldest: u64, lost: u64) {
        let integration = self.parts.bookmark.id();
        tracing::error!(integration, oldest, lost, "messages expired before they were delivered");
        self.meters.expired.increment(lost);
        if let Owner::Forward(_) = owner {
            self.append(&expired_notice(integration));
        }
    }

    /// Whether so much lies before the main lane that others should not have to wait for it.
    fn is_far_behind(&self, end: u64, now: Instant) -> bool {
        let windows = self.rules.limits.records as u64 * FAR_BEHIND_WINDOWS;
        let main = &self.lanes.main;
        end.saturating_sub(main.window.read_to()) > windows
            && !self.lanes.is_split()
            && !self.scan.is_running
            && self.scan.found.is_none()
            && now >= self.scan.not_before
            && self.flow.is_open()
            && main.is_settled()
    }

    fn begin_scan(&mut self, start: u64) {
        self.scan.is_running = true;
        let from = self.lanes.main.window.read_to();
        let held: Vec<u64> = self.lanes.main.window.devices().collect();
        let reader = Arc::clone(&self.parts.reader);
        let is_cancelled = Arc::clone(&self.scan.is_cancelled);
        let scanning = spawn_blocking(move || {
            let mut filter = FilterBuilder::new();
            held.into_iter().for_each(|device| filter.insert(device));
            match reader.scan(from, start, &mut filter, &is_cancelled) {
                Ok(()) => Some(filter.finish()),
                Err(error) => {
                    tracing::warn!(%error, "the backlog cannot be read");
                    None
                }
            }
        });
        self.jobs.push(Box::pin(async move { Job::Scanned(start, scanning.await.ok().flatten()) }));
    }

    pub(super) fn take_scan(&mut self, start: u64, filter: Option<Filter>) {
        self.scan.is_running = false;
        self.scan.not_before = Instant::now() + SCAN_INTERVAL;
        self.scan.found = filter.map(|filter| Backlog { start, filter });
    }

    /// Opens the second lane where the first one is clogged, or where a scan has ended, unless the
    /// first one has caught up meanwhile.
    fn open_lane(&mut self) {
        if let Some(detour) = self.lanes.detour() {
            let integration = self.parts.bookmark.id();
            tracing::warn!(integration, "devices that fail leave no room: others pass them by");
            return self.open_behind(detour);
        }
        // What is being read belongs to the first lane, wherever it lies.
        if self.lanes.main.is_reading() {
            return;
        }
        let Some(backlog) = self.scan.found.take() else { return };
        let left = backlog.start.saturating_sub(self.lanes.main.window.read_to());
        if self.lanes.is_split() || left < self.rules.limits.records as u64 {
            return;
        }
        tracing::info!(
            integration = self.parts.bookmark.id(),
            left,
            "far behind: devices without backlog get a lane of their own"
        );
        self.open_behind(backlog);
    }

    fn open_behind(&mut self, backlog: Backlog) {
        let seed = self.next_seed();
        self.saving.keep_filter(backlog.filter.bytes());
        self.lanes.open(&self.rules, backlog, moment(), seed);
    }
}

/// The lane of an owner.
pub(super) fn lane_of<'a>(
    owner: Owner,
    lanes: &'a mut Lanes<Item>,
    replays: &'a mut Replays,
) -> Option<&'a mut Lane<Item>> {
    match owner {
        Owner::Forward(tag) => Some(lanes.tagged(tag)),
        Owner::Replay(number) => replays.lane(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a read of any lane had failed, none read for a second: a replay whose reads always
    /// fail left the messages of all devices one read a second.
    #[test]
    fn a_read_that_fails_holds_up_its_own_lane_alone() {
        let now = Instant::now();
        let [one, other] = [1, 2].map(Owner::Replay);
        let mut pauses = Pauses::default();
        pauses.begin(one, now);
        assert!(pauses.holds(one) && !pauses.holds(other));
        assert_eq!(pauses.end_at(now), Some(now + REFUSED_PAUSE));
        pauses.end(now + REFUSED_PAUSE);
        assert!(!pauses.holds(one) && pauses.end_at(now).is_none());
    }
}
