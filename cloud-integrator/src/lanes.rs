//! The lanes of an integration that lead forward through the log: one, or two while it is far
//! behind (docs/integrations.md, Fresh before backlog). Pure.
//!
//! ```text
//! log   ......... backlog ........... start ............... end
//! main  ===done===|---- everything ----|-- in the filter ---|
//! fresh                                |=done=|-- the rest -|
//! ```
//!
//! The filter knows the devices of everything below `start` that was not done when the second lane
//! opened. From `start` on each device belongs to one lane, so its order is kept: one that is in
//! the filter to the main lane, every other, which has nothing below, to the fresh lane. When both
//! have read the same they become one again.
//!
//! The second lane also leads around devices that fail: where so many do that they leave no room
//! in the main lane, it opens where that has read to ([`Lanes::detour`]), and the lanes stay apart
//! until there is room again. Devices that fail and fill that one too hold up the others until one
//! of their events is done or given up; so do those that fill the main lane while it has a backlog,
//! whose devices are all behind it.

use crate::filter::{Filter, FilterBuilder};
use crate::lane::{Lane, Plan};
use crate::position::{FreshPosition, Moment, Position};
use crate::shares::Kind;
use crate::window::Rules;

/// The main lane, and the fresh one while it is open.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    pub(crate) main: Lane<T>,
    fresh: Option<Fresh<T>>,
    /// Of the last lane that was opened.
    last_tag: Tag,
}

/// Which lane an attempt was started by: one that has ended was taken over by the main lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

#[derive(Debug)]
struct Fresh<T> {
    lane: Lane<T>,
    tag: Tag,
    start: u64,
    filter: Filter,
}

/// What the main lane has before it.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The place after it.
    pub(crate) start: u64,
    /// The devices of all below that is not done.
    pub(crate) filter: Filter,
}

/// Which records a lane takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All.
    All,
    /// All below `start`, and from there on those of devices in the filter.
    Backlog { start: u64, filter: Filter },
    /// Those of devices that are not in the filter.
    Fresh { filter: Filter },
}

impl Part {
    /// Whether the lane takes the record of `device` at `place`.
    pub(crate) fn takes(&self, place: u64, device: u64) -> bool {
        match self {
            Self::All => true,
            Self::Backlog { start, filter } => place < *start || filter.contains(device),
            Self::Fresh { filter } => !filter.contains(device),
        }
    }
}

impl<T: Clone> Lanes<T> {
    /// Lanes that go on at `position`, whose second one needs its `filter`.
    pub(crate) fn new(
        rules: &Rules,
        position: Position,
        filter: Option<Filter>,
        moment: Moment,
        seed: u64,
    ) -> Self {
        let (mut position, filter) = match filter {
            Some(filter) => (position, Some(filter)),
            None => (position.without_fresh(), None),
        };
        let fresh = position.fresh.take().zip(filter).map(|(fresh, filter)| {
            let start = fresh.start;
            let lane = Lane::new(rules.clone(), fresh.into_position(), moment, !seed);
            Fresh { lane, tag: Tag(1), start, filter }
        });
        let main = Lane::new(rules.clone(), position, moment, seed);
        Self { main, fresh, last_tag: Tag(1) }
    }

    /// Opens the second lane behind the backlog.
    pub(crate) fn open(&mut self, rules: &Rules, backlog: Backlog, moment: Moment, seed: u64) {
        let Backlog { start, filter } = backlog;
        let lane = Lane::new(rules.clone(), Position::at(start), moment, seed);
        self.last_tag.0 += 1;
        self.fresh = Some(Fresh { lane, tag: self.last_tag, start, filter });
    }

    /// What the second lane is to be opened with where devices that fail clog the only one. Nothing
    /// is to be looked for: below, nothing is undone but what that lane holds.
    pub(crate) fn detour(&self) -> Option<Backlog> {
        let Lane { window, .. } = &self.main;
        let may_open = !self.is_split() && self.main.is_settled() && !self.main.is_reading();
        if !may_open || !window.is_clogged() {
            return None;
        }
        let mut filter = FilterBuilder::new();
        window.devices().for_each(|device| filter.insert(device));
        Some(Backlog { start: window.read_to(), filter: filter.finish() })
    }

    /// Whether there is a second lane.
    pub(crate) fn is_split(&self) -> bool {
        self.fresh.is_some()
    }

    /// One of the lanes; there is none for replays here.
    pub(crate) fn lane(&mut self, kind: Kind) -> Option<&mut Lane<T>> {
        match kind {
            Kind::Main => Some(&mut self.main),
            Kind::Fresh => self.fresh.as_mut().map(|fresh| &mut fresh.lane),
            Kind::Replay => None,
        }
    }

    /// Whose turn it is while the endpoint counts as down: first of who has events that have not
    /// failed yet, devices without backlog before others, because what they send now is worth most;
    /// then of who is due soonest. Or heads of devices that always fail would be all that is tried.
    pub(crate) fn by_probe(&self) -> [Kind; 2] {
        let Some(Fresh { lane: fresh, .. }) = &self.fresh else { return [Kind::Main, Kind::Fresh] };
        let (main, fresh) = (&self.main.window, &fresh.window);
        let is_main_sooner = match (main.has_untried(), fresh.has_untried()) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => main
                .retry_at()
                .is_some_and(|main_at| fresh.retry_at().is_none_or(|fresh_at| main_at < fresh_at)),
        };
        if is_main_sooner { [Kind::Main, Kind::Fresh] } else { [Kind::Fresh, Kind::Main] }
    }

    /// What the attempts of a lane are marked by.
    pub(crate) fn tag(&self, kind: Kind) -> Tag {
        match (&self.fresh, kind) {
            (Some(fresh), Kind::Fresh) => fresh.tag,
            _ => Tag(0),
        }
    }

    /// The lane that answers for an attempt.
    pub(crate) fn tagged(&mut self, tag: Tag) -> &mut Lane<T> {
        match &mut self.fresh {
            Some(fresh) if fresh.tag == tag => &mut fresh.lane,
            _ => &mut self.main,
        }
    }

    /// The second lane.
    pub(crate) fn fresh(&self) -> Option<&Lane<T>> {
        self.fresh.as_ref().map(|fresh| &fresh.lane)
    }

    /// What the lane is to read now; see [`Lane::plan`].
    pub(crate) fn plan(&mut self, kind: Kind, end: u64, most: usize) -> Option<Plan> {
        let until = match (&self.fresh, kind) {
            // Never past the other one, so that they meet.
            (Some(fresh), Kind::Main) => end.min(fresh.lane.window.read_to()),
            _ => end,
        };
        self.lane(kind)?.plan(until, most)
    }

    /// Which records the lane takes.
    pub(crate) fn part(&self, kind: Kind) -> Part {
        match (&self.fresh, kind) {
            (Some(Fresh { start, filter, .. }), Kind::Main) => {
                Part::Backlog { start: *start, filter: filter.clone() }
            }
            (Some(Fresh { filter, .. }), Kind::Fresh) => Part::Fresh { filter: filter.clone() },
            _ => Part::All,
        }
    }

    /// Makes one lane of two that have read the same, unless devices that fail leave no room in the
    /// main one and the other leads around them. Says whether it did.
    pub(crate) fn join(&mut self) -> bool {
        let Some(fresh) = &self.fresh else { return false };
        let has_met = self.main.window.read_to() == fresh.lane.window.read_to()
            && [&self.main, &fresh.lane].iter().all(|lane| lane.is_settled() && !lane.is_reading());
        if has_met
            && self.main.window.is_eased()
            && let Some(fresh) = self.fresh.take()
        {
            self.main.absorb(fresh.lane);
            return true;
        }
        false
    }

    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        let fresh = self.fresh.as_ref().map(|fresh| fresh.lane.cursor());
        fresh.into_iter().chain([self.main.cursor()]).min().unwrap_or(0)
    }

    /// How far they have come.
    pub(crate) fn position(&self, moment: Moment) -> Position {
        let mut position = self.main.position(moment);
        position.fresh = self.fresh.as_ref().map(|fresh| {
            let Position { resume, holes, retries, .. } = fresh.lane.position(moment);
            FreshPosition { start: fresh.start, resume, holes, retries }
        });
        position
    }
}

#[cfg(test)]
#[path = "lanes_model.rs"]
mod model;
