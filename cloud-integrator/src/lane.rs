//! One reader of the log with its window: what it is to read next, and how far it has come. Pure.
//!
//! After a start a lane first reads the holes of its saved position, then the log from where that
//! ends. What is read is decided here, the reading is done elsewhere ([`Plan`]).

use std::time::Instant;

use crate::position::{Moment, Position};
use crate::window::{Arrival, Rules, Window};

/// What one lane has and wants.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    pub(crate) window: Window<T>,
    /// Holes of the saved position that are still to be read, in rising order.
    holes: Vec<u64>,
    /// Where reading goes on after them.
    resume: u64,
    /// What is being read now.
    plan: Option<Plan>,
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// What follows: up to `records` records at places from `from` to before `until`.
    On {
        /// The first place.
        from: u64,
        /// The place after the last.
        until: u64,
        /// So many at most.
        records: usize,
    },
    /// The records at these places, of the saved position.
    Holes(Vec<u64>),
    /// The records at these places, which are deferred.
    Deferred(Vec<u64>),
}

/// What reading by a plan brought.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// What is to be delivered, by rising places.
    pub(crate) arrivals: Vec<Arrival<T>>,
    /// Everything that was planned below has been read.
    pub(crate) next: u64,
}

impl<T: Clone> Lane<T> {
    /// A lane that goes on at `position`.
    pub(crate) fn new(rules: Rules, position: Position, moment: Moment, seed: u64) -> Self {
        Self {
            window: Window::new(rules, &position, moment, seed),
            holes: position.holes,
            resume: position.resume,
            plan: None,
        }
    }

    /// Whether its saved position has been read.
    pub(crate) fn is_settled(&self) -> bool {
        self.holes.is_empty() && self.window.read_to() >= self.resume
    }

    /// Whether something is being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.plan.is_some()
    }

    /// What to read now, up to `most` records of a log that ends at `end`; [`Lane::take`] or
    /// [`Lane::give_up`] ends it.
    pub(crate) fn plan(&mut self, end: u64, most: usize) -> Option<Plan> {
        if self.plan.is_some() {
            return None;
        }
        let deferred = self.window.wanted(most);
        let room = self.window.room().min(most);
        let plan = if !deferred.is_empty() {
            // Before anything newer: their devices wait for them.
            Plan::Deferred(deferred)
        } else if !self.holes.is_empty() {
            // No more than were held or deferred before, so there need be no room.
            Plan::Holes(self.holes.iter().take(most).copied().collect())
        } else if room == 0 {
            return None;
        } else if self.window.read_to() < end {
            Plan::On { from: self.window.read_to(), until: end, records: room }
        } else {
            return None;
        };
        self.plan = Some(plan.clone());
        Some(plan)
    }

    /// Takes what was read by the plan.
    pub(crate) fn take(&mut self, found: Found<T>, now: Instant) {
        match self.plan.take() {
            Some(Plan::Deferred(places)) => self.take_deferred(&places, found, now),
            Some(plan @ (Plan::Holes(_) | Plan::On { .. })) => {
                let is_of_position = matches!(plan, Plan::Holes(_));
                for arrival in found.arrivals {
                    if is_of_position {
                        self.window.admit_or_defer(arrival, now);
                    } else {
                        self.window.admit(arrival, now);
                    }
                }
                self.advance(found.next);
            }
            None => {}
        }
    }

    /// Nothing was read.
    pub(crate) fn give_up(&mut self) {
        self.plan = None;
    }

    /// Retention was faster: the log begins at `oldest`. Says how many records are lost at most.
    pub(crate) fn expire(&mut self, oldest: u64) -> u64 {
        self.plan = None;
        let holes = self.holes.partition_point(|hole| *hole < oldest) as u64;
        let unread = oldest.saturating_sub(self.window.read_to().max(self.resume));
        let deferred = self.window.expire(oldest);
        self.advance(oldest.max(self.window.read_to()));
        holes + unread + deferred
    }

    /// How far it has come. Holes of the first position that are still to be read lie above all
    /// that the window has.
    pub(crate) fn position(&self, moment: Moment) -> Position {
        let mut position = self.window.position(moment);
        position.holes.extend(&self.holes);
        position
    }

    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        self.window.cursor()
    }

    /// Takes over a lane that has read exactly as far.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.window.absorb(other.window);
    }

    fn take_deferred(&mut self, places: &[u64], found: Found<T>, now: Instant) {
        let mut arrivals = found.arrivals.into_iter().peekable();
        for place in places.iter().copied().take_while(|place| *place < found.next) {
            match arrivals.next_if(|arrival| arrival.place == place) {
                Some(arrival) => self.window.readmit(arrival, now),
                None => self.window.pass_over(place),
            }
        }
    }

    fn advance(&mut self, to: u64) {
        self.holes.retain(|hole| *hole >= to);
        let next = self.holes.first().copied().unwrap_or(self.resume);
        self.window.advance(to.max(next));
    }
}
