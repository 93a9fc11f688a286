//! The lanes of what is delivered again because somebody asked for it.

use std::sync::Arc;
use std::time::Instant;

use super::Parts;
use super::reading::{Pauses, ReadFault};
use super::run::Owner;
use crate::lane::{Lane, Plan};
use crate::position::{Moment, Position};
use crate::progress::{ReplayJob, ReplayProgress, ReplaySource};
use crate::reading::{Item, RECORDS_PER_READ, Reader, Reading, Selection};
use crate::store::Bookmark;
use crate::window::Attempt;

/// All replays of an integration that run.
pub(super) struct Replays {
    all: Vec<Replay>,
    /// Who gets the next turn.
    turn: usize,
}

struct Replay {
    number: usize,
    lane: Lane<Item>,
    feed: Feed,
    reader: Arc<Reader>,
    /// What has changed since the last save; its position is made when it is saved.
    progress: ReplayProgress,
    is_unsaved: bool,
}

/// Where the events of a replay come from.
#[derive(Clone)]
enum Feed {
    /// The log, up to before the place.
    Log { end: u64, selection: Selection },
    /// The dead letters of the replay with this id.
    DeadLetters(Arc<str>),
}

/// The end of the places of dead letters: SQLite's numbers have a sign.
const LAST_PLACE: u64 = i64::MAX.unsigned_abs();

/// A read that is to be made.
type Read = Box<dyn FnOnce() -> Result<Reading, ReadFault> + Send>;

impl Replays {
    pub(super) fn new<S>(
        parts: &Parts<S>,
        jobs: Vec<ReplayJob>,
        moment: Moment,
        seed: u64,
    ) -> Self {
        let replay = |(number, job)| Replay::new(parts, number, job, moment, seed);
        Self { all: jobs.into_iter().enumerate().map(replay).collect(), turn: 0 }
    }

    pub(super) fn lane(&mut self, number: usize) -> Option<&mut Lane<Item>> {
        self.find(number).map(|replay| &mut replay.lane)
    }

    fn find(&mut self, number: usize) -> Option<&mut Replay> {
        self.all.iter_mut().find(|replay| replay.number == number)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.all.iter().map(|replay| replay.lane.window.in_flight()).sum()
    }

    /// When each has something to start.
    pub(super) fn dues(&self, now: Instant) -> impl Iterator<Item = Option<Instant>> {
        self.all.iter().map(move |replay| replay.lane.window.due_at(now))
    }

    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        self.dues(now).flatten().min()
    }

    /// The next attempt, by turns.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Owner, Attempt<Item>)> {
        self.by_turns(|replay| replay.lane.window.start(now))
    }

    pub(super) fn start_probe(&mut self, now: Instant) -> Option<(Owner, Attempt<Item>)> {
        self.by_turns(|replay| replay.lane.window.start_probe(now))
    }

    fn by_turns(
        &mut self,
        mut start: impl FnMut(&mut Replay) -> Option<Attempt<Item>>,
    ) -> Option<(Owner, Attempt<Item>)> {
        let count = self.all.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(replay) = self.all.get_mut(index) else { continue };
            if let Some(attempt) = start(replay) {
                self.turn = index + 1;
                return Some((Owner::Replay(replay.number), attempt));
            }
        }
        None
    }

    /// What is to be read now, and for whom: for none whose last read has just failed.
    pub(super) fn plans(&mut self, bookmark: &Bookmark, pauses: &Pauses) -> Vec<(Owner, Read)> {
        let plan = |replay: &mut Replay| {
            if pauses.holds(Owner::Replay(replay.number)) {
                return None;
            }
            let plan = replay.lane.plan(replay.feed.end(), RECORDS_PER_READ)?;
            Some((Owner::Replay(replay.number), replay.read(bookmark, plan)))
        };
        self.all.iter_mut().filter_map(plan).collect()
    }

    /// The endpoint is back.
    pub(super) fn release_waiting(&mut self, now: Instant) {
        self.all.iter_mut().for_each(|replay| replay.lane.window.release_waiting(now));
    }

    /// So many events of a replay cannot be delivered; nothing where it is none.
    pub(super) fn passed_over(&mut self, owner: Owner, count: u64) {
        self.note(owner, |progress| progress.passed_over += count);
    }

    /// Notes what became of events of a replay; nothing where it is none.
    pub(super) fn note(&mut self, owner: Owner, note: impl FnOnce(&mut ReplayProgress)) {
        if let Owner::Replay(number) = owner
            && let Some(replay) = self.find(number)
        {
            note(&mut replay.progress);
            replay.is_unsaved = true;
        }
    }

    /// What is to be saved; it counts as saved.
    pub(super) fn take_unsaved(&mut self, moment: Moment) -> Vec<ReplayProgress> {
        let take = |replay: &mut Replay| {
            let ended = replay.has_ended();
            if !std::mem::take(&mut replay.is_unsaved) && !ended {
                return None;
            }
            let id = replay.progress.id.clone();
            let fresh = ReplayProgress { id, ..ReplayProgress::default() };
            let progress = std::mem::replace(&mut replay.progress, fresh);
            Some(ReplayProgress { position: replay.lane.position(moment), ended, ..progress })
        };
        self.all.iter_mut().filter_map(take).collect()
    }

    /// Whether a replay has come to its end and that is not saved.
    pub(super) fn is_one_ending(&self) -> bool {
        self.all.iter().any(Replay::has_ended)
    }

    /// Forgets the replays whose end was saved.
    pub(super) fn saved(&mut self, progress: &[ReplayProgress]) {
        let has_ended = |replay: &Replay| {
            progress.iter().any(|saved| saved.ended && saved.id == replay.progress.id)
        };
        self.all.retain(|replay| !has_ended(replay));
    }

    /// What was taken to be saved was not.
    pub(super) fn put_back(&mut self, unsaved: Vec<ReplayProgress>) {
        for mut back in unsaved {
            let Some(replay) = self.all.iter_mut().find(|at| at.progress.id == back.id) else {
                continue;
            };
            replay.is_unsaved = true;
            replay.progress.delivered += back.delivered;
            replay.progress.failed += back.failed;
            replay.progress.passed_over += back.passed_over;
            replay.progress.settled.append(&mut back.settled);
        }
    }
}

impl Replay {
    fn new<S>(parts: &Parts<S>, number: usize, job: ReplayJob, moment: Moment, seed: u64) -> Self {
        let ReplayJob { id, source, versions, position } = job;
        let (start, feed) = match source {
            ReplaySource::Log { start, end, from, until, mut devices } => {
                devices.sort_unstable();
                // Of another log it may lie ahead, where nothing is ever read.
                let end = end.min(parts.reader.source.log.end().as_u64());
                let selection = Selection::Replay { from, until, devices: devices.into() };
                (start, Feed::Log { end, selection })
            }
            ReplaySource::DeadLetters => (0, Feed::DeadLetters(id.as_str().into())),
        };
        let reader = Reader { replayed: true, versions, ..(*parts.reader).clone() };
        let position = position.unwrap_or_else(|| Position::at(start));
        let rules = parts.settings.replay_rules();
        Self {
            number,
            lane: Lane::new(rules, position, moment, seed ^ number as u64),
            feed,
            reader: Arc::new(reader),
            progress: ReplayProgress { id, ..ReplayProgress::default() },
            is_unsaved: false,
        }
    }

    fn has_ended(&self) -> bool {
        let lane = &self.lane;
        lane.is_settled()
            && !lane.is_reading()
            && lane.window.read_to() >= self.feed.end()
            && lane.window.is_empty()
    }

    fn read(&self, bookmark: &Bookmark, plan: Plan) -> Read {
        let (reader, feed, bookmark) =
            (Arc::clone(&self.reader), self.feed.clone(), bookmark.clone());
        match feed {
            Feed::Log { selection, .. } => Box::new(move || {
                let reading = reader.read(&plan, &selection)?;
                let passed_over = reading.unreadable + reading.untranslated;
                Ok(Reading { passed_over, ..reading })
            }),
            Feed::DeadLetters(id) => Box::new(move || read_dead(&reader, &bookmark, &id, &plan)),
        }
    }
}

impl Feed {
    /// The place after the last.
    fn end(&self) -> u64 {
        match self {
            Self::Log { end, .. } => *end,
            Self::DeadLetters(_) => LAST_PLACE,
        }
    }
}

/// Reads the events of dead letters.
fn read_dead(
    reader: &Reader,
    bookmark: &Bookmark,
    replay: &str,
    plan: &Plan,
) -> Result<Reading, ReadFault> {
    let places = match plan {
        Plan::On { from, records, .. } => bookmark.dead_places(replay, *from, *records)?,
        Plan::Holes(places) | Plan::Deferred(places) => places.clone(),
    };
    let oldest = reader.source.log.oldest().as_u64();
    let gone = places.partition_point(|place| *place < oldest);
    let Some(kept) = places.get(gone..).filter(|kept| !kept.is_empty()) else {
        let next = places.last().map_or(LAST_PLACE, |last| last + 1);
        return Ok(Reading { next, passed_over: gone as u64, ..Reading::default() });
    };
    let reading = reader.read_at(kept)?;
    let read = kept.partition_point(|place| *place < reading.next);
    let passed_over = gone + read - reading.arrivals.len().min(read);
    Ok(Reading { passed_over: passed_over as u64, ..reading })
}
