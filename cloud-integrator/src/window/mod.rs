//! What a lane has read and not yet delivered: order, retries, batches and the cursor. Pure.
//!
//! Records enter in the order of the log. Those of one device form a line: only its head is tried,
//! with those behind it where a batch has room, and the next only when the head is done
//! (docs/delivery.md, Order). Without order each record is a line of its own. The cursor is the
//! lowest place that is not done: what lies below it is never needed again. What is done above it
//! is known by the [`Position`], so that one record that is stuck does not make everything after
//! it come twice.
//!
//! One device gets a share of the window. What comes beyond it is deferred: only its place is
//! kept, and it is read again ([`Window::wanted`]) when the line has moved. Of a line whose head
//! has failed only that is held, everything behind it is deferred, and such heads have room of
//! their own. So devices that fail for long leave room for the others. Where so many fail that
//! there is none left, the window says so ([`Window::is_clogged`]).
//!
//! Whether the endpoint may be tried at all is the [`Flow`](crate::flow::Flow)'s to know. No clock,
//! no I/O: `now` is an argument, randomness a seed.
//!
//! ```text
//! mod        records in, places out      attempts   which are tried together, and how it ended
//! line       one device                  model      tests: both beside a plain list
//! ```

mod attempts;
mod line;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub(crate) use attempts::{Attempt, Dead, Ending, Flight};
use line::{Line, State};

use crate::delivery_options::{BatchOptions, Order};
use crate::policy::RetryPolicy;
pub(crate) use crate::position::Position;
use crate::position::{Moment, Retry};

/// The limits of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Records that may be read and not done, beside those that failed.
    pub records: usize,
    /// The bytes of their envelopes, together. The last one admitted may exceed it.
    pub bytes: usize,
    /// Records of one device.
    pub device_records: usize,
    /// The bytes of one device's envelopes, together. The last one admitted may exceed it.
    pub device_bytes: usize,
    /// Records that were read while the share of their device was used up, and are to be read
    /// again.
    pub deferred: usize,
}

/// How a window behaves.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) limits: WindowLimits,
    pub(crate) policy: RetryPolicy,
    pub(crate) order: Order,
    /// One event and no wait where there are no batches.
    pub(crate) batch: BatchOptions,
}

impl Rules {
    /// For sinks that take one event at a time.
    pub(crate) const SINGLE: BatchOptions = BatchOptions { events: 1, wait: Duration::ZERO };
}

/// Endpoints ask for no longer wait.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Heads that failed have so many windows of room beside the others: the window itself is left to
/// devices that work.
const WINDOWS_FOR_STUCK: usize = 3;

/// Read and not done. `T` is what is to be delivered.
#[derive(Debug)]
pub(crate) struct Window<T> {
    rules: Rules,
    random: u64,
    slots: BTreeMap<u64, Slot<T>>,
    lines: HashMap<u64, Line>,
    /// The line of each place that is deferred.
    deferred: BTreeMap<u64, u64>,
    /// The first deferred place of each line that has become short enough to take more.
    hungry: BTreeSet<u64>,
    /// Lines whose heads may be tried at once, and how many records they hold.
    ready: VecDeque<u64>,
    ready_events: usize,
    /// When the records of `ready` have waited long enough for their batch to fill; not kept up
    /// while there are enough for one.
    fill_by: Option<Instant>,
    /// Lines whose heads failed, by the moment of their next attempt.
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    /// What remains of batches that were split, to be tried at once.
    pieces: VecDeque<attempts::Piece>,
    /// Failures of the first position whose records have not been read yet.
    remembered: BTreeMap<u64, (u32, Instant)>,
    in_flight: usize,
    bytes: usize,
    /// Heads that failed and are not done, and their bytes.
    stuck: usize,
    stuck_bytes: usize,
    read_to: u64,
    /// The place after the highest that is done.
    done_to: u64,
}

#[derive(Debug)]
struct Slot<T> {
    device: u64,
    line: u64,
    bytes: usize,
    item: T,
    /// When it was admitted.
    since: Instant,
    /// The place of the line's next record.
    next: Option<u64>,
}

impl<T: Clone> Window<T> {
    /// An empty window of a reader at `position`, whose holes it reads first. The second lane of
    /// the position does not matter here.
    pub(crate) fn new(rules: Rules, position: &Position, moment: Moment, seed: u64) -> Self {
        // The clock that a moment was saved by may have been wrong.
        let most = rules.policy.schedule.wait_max().max(ASKED_WAIT_MAX);
        let remember =
            |retry: &Retry| (retry.place, (retry.failures, moment.reached(retry.due, most)));
        Self {
            rules,
            random: seed,
            slots: BTreeMap::new(),
            lines: HashMap::new(),
            deferred: BTreeMap::new(),
            hungry: BTreeSet::new(),
            ready: VecDeque::new(),
            ready_events: 0,
            fill_by: None,
            waiting: BinaryHeap::new(),
            pieces: VecDeque::new(),
            remembered: position.retries.iter().map(remember).collect(),
            in_flight: 0,
            bytes: 0,
            stuck: 0,
            stuck_bytes: 0,
            read_to: position.cursor(),
            done_to: position.resume,
        }
    }

    /// How many more records may be admitted.
    pub(crate) fn room(&self) -> usize {
        self.room_to_hold().min(self.room_to_defer())
    }

    /// How many more places may be deferred.
    pub(crate) fn room_to_defer(&self) -> usize {
        self.rules.limits.deferred.saturating_sub(self.deferred.len())
    }

    fn room_to_hold(&self) -> usize {
        let WindowLimits { records, bytes, .. } = self.rules.limits;
        let bytes_held = self.bytes - self.stuck_bytes.min(bytes * WINDOWS_FOR_STUCK);
        let held = self.slots.len() - self.stuck.min(records * WINDOWS_FOR_STUCK);
        if bytes_held >= bytes { 0 } else { records.saturating_sub(held) }
    }

    /// Whether devices whose heads failed leave little or no room for the others.
    pub(crate) fn is_clogged(&self) -> bool {
        self.is_stuck_by(7) || self.is_at_a_standstill()
    }

    /// Whether it is far from that.
    pub(crate) fn is_eased(&self) -> bool {
        !self.is_stuck_by(4) && self.deferred.len() * 2 <= self.rules.limits.deferred
    }

    /// Whether more than so many eighths of the room are held by heads that failed, beyond the room
    /// that is theirs.
    fn is_stuck_by(&self, eighths: usize) -> bool {
        let WindowLimits { records, bytes, .. } = self.rules.limits;
        let stuck = self.stuck.saturating_sub(records * WINDOWS_FOR_STUCK);
        let stuck_bytes = self.stuck_bytes.saturating_sub(bytes * WINDOWS_FOR_STUCK);
        stuck * 8 > records * eighths || stuck_bytes * 8 > bytes * eighths
    }

    /// Nothing can come, and there is nothing but heads that failed.
    fn is_at_a_standstill(&self) -> bool {
        self.room() == 0 && self.slots.len() == self.stuck && self.wanted(1).is_empty()
    }

    /// The place that is to be read next.
    pub(crate) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        self.first_undone(0).unwrap_or(self.read_to)
    }

    /// Attempts that run now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether everything that was read is done.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.deferred.is_empty()
    }

    /// How far everything is done, provided that the holes of the first position have been read.
    pub(crate) fn position(&self, moment: Moment) -> Position {
        let held = self.slots.range(..self.done_to).map(|(place, _)| *place);
        let deferred = self.deferred.range(..self.done_to).map(|(place, _)| *place);
        let mut holes: Vec<u64> = held.chain(deferred).collect();
        holes.sort_unstable();
        let resume = self.first_undone(self.done_to);
        Position {
            resume: resume.unwrap_or(self.read_to.max(self.done_to)),
            holes,
            retries: self.retries(moment),
            fresh: None,
        }
    }

    fn retries(&self, moment: Moment) -> Vec<Retry> {
        let retry = |place, failures, due: Option<Instant>| Retry {
            place,
            failures,
            due: moment.shown(due.unwrap_or(moment.now)),
        };
        let failed = self.lines.values().filter(|line| line.failures > 0 && line.held > 0);
        let mut retries: Vec<Retry> = failed
            .map(|line| retry(line.first, line.failures, line.due))
            .chain(
                self.remembered
                    .iter()
                    .map(|(place, (failures, due))| retry(*place, *failures, Some(*due))),
            )
            .collect();
        retries.sort_unstable_by_key(|retry| retry.place);
        retries
    }

    /// Events that failed and wait for their next attempt.
    pub(crate) fn retrying(&self) -> usize {
        self.waiting.len()
    }

    /// The lowest record that is held.
    pub(crate) fn oldest(&self) -> Option<&T> {
        self.slots.first_key_value().map(|(_, slot)| &slot.item)
    }

    /// The devices of everything that is not done, some of them more than once.
    pub(crate) fn devices(&self) -> impl Iterator<Item = u64> {
        // Only lines of devices defer.
        self.slots.values().map(|slot| slot.device).chain(self.deferred.values().copied())
    }

    /// The lowest place from `place` on that has been read and is not done.
    fn first_undone(&self, place: u64) -> Option<u64> {
        let held = self.slots.range(place..).next().map(|(place, _)| *place);
        let deferred = self.deferred.range(place..).next().map(|(place, _)| *place);
        held.into_iter().chain(deferred).min()
    }

    /// Takes a record, whose place is not below [`Window::read_to`].
    pub(crate) fn admit(&mut self, arrival: Arrival<T>, now: Instant) {
        let place = arrival.place;
        debug_assert!(place >= self.read_to, "records enter in the order of the log");
        self.read_to = place + 1;
        let key = self.key_of(&arrival);
        match self.lines.get(&key) {
            Some(line) if !line.deferred.is_empty() || !line.has_room(&self.rules.limits) => {
                if line.held > 0 && line.state == State::Ready {
                    // More than this will not come before the line has moved.
                    self.fill_by = Some(now);
                }
                self.defer(place, key);
            }
            _ => self.hold(key, arrival, now),
        }
    }

    /// Takes a record, or only its place where there is no room for more.
    pub(crate) fn admit_or_defer(&mut self, arrival: Arrival<T>, now: Instant) {
        if self.room_to_hold() > 0 {
            return self.admit(arrival, now);
        }
        self.read_to = arrival.place + 1;
        let key = self.key_of(&arrival);
        self.defer(arrival.place, key);
    }

    fn key_of(&self, arrival: &Arrival<T>) -> u64 {
        match self.rules.order {
            Order::Device => arrival.device,
            Order::None => arrival.place,
        }
    }

    fn defer(&mut self, place: u64, key: u64) {
        self.lines.entry(key).or_default().deferred.push_back(place);
        self.deferred.insert(place, key);
        self.look_after(key);
    }

    /// Up to `most` deferred places that there is room for now, in rising order.
    pub(crate) fn wanted(&self, most: usize) -> Vec<u64> {
        let most = most.min(self.room_to_hold());
        let lines = self.hungry.iter().filter_map(|first| {
            let line = self.lines.get(self.deferred.get(first)?)?;
            let share = self.rules.limits.device_records.saturating_sub(line.held).max(1);
            Some(line.deferred.iter().take(share).copied())
        });
        let mut places: Vec<u64> = lines.flatten().take(most).collect();
        places.sort_unstable();
        places
    }

    /// Takes the record at a deferred place. It stays deferred if its line has no room for it.
    pub(crate) fn readmit(&mut self, arrival: Arrival<T>, now: Instant) {
        let place = arrival.place;
        let Some(&key) = self.deferred.get(&place) else { return };
        let fits = self.lines.get(&key).is_some_and(|line| {
            line.deferred.front() == Some(&place) && line.has_room(&self.rules.limits)
        });
        if fits {
            self.undefer(place, key);
            self.hold(key, arrival, now);
            self.look_after(key);
        }
    }

    /// Notes that there is nothing to deliver at a deferred `place`.
    pub(crate) fn pass_over(&mut self, place: u64) {
        if let Some(&key) = self.deferred.get(&place) {
            self.undefer(place, key);
            self.remembered.remove(&place);
            self.look_after(key);
        }
    }

    /// Notes that the log holds nothing below `oldest` any more. Says how many records are lost.
    pub(crate) fn expire(&mut self, oldest: u64) -> u64 {
        let expired: Vec<u64> = self.deferred.range(..oldest).map(|(place, _)| *place).collect();
        for place in &expired {
            self.pass_over(*place);
        }
        expired.len() as u64
    }

    /// Notes that everything below `place` has been read.
    pub(crate) fn advance(&mut self, place: u64) {
        self.read_to = self.read_to.max(place);
        let (read_to, deferred) = (self.read_to, &self.deferred);
        self.remembered.retain(|place, _| *place >= read_to || deferred.contains_key(place));
    }

    /// Takes over everything of a window of other devices that has read exactly as far.
    pub(crate) fn absorb(&mut self, other: Self) {
        debug_assert_eq!(self.read_to, other.read_to, "both have read the same");
        self.slots.extend(other.slots);
        self.lines.extend(other.lines);
        self.deferred.extend(other.deferred);
        self.hungry.extend(other.hungry);
        self.ready.extend(other.ready);
        self.ready_events += other.ready_events;
        self.fill_by = self.fill_by.into_iter().chain(other.fill_by).min();
        self.waiting.extend(other.waiting);
        self.pieces.extend(other.pieces);
        self.remembered.extend(other.remembered);
        self.in_flight += other.in_flight;
        self.bytes += other.bytes;
        self.stuck += other.stuck;
        self.stuck_bytes += other.stuck_bytes;
        self.done_to = self.done_to.max(other.done_to);
    }

    fn hold(&mut self, key: u64, arrival: Arrival<T>, now: Instant) {
        let Arrival { place, device, bytes, item } = arrival;
        self.bytes += bytes;
        self.slots.insert(place, Slot { device, line: key, bytes, item, since: now, next: None });
        let line = self.lines.entry(key).or_default();
        line.held += 1;
        line.bytes += bytes;
        let previous = std::mem::replace(&mut line.last, place);
        if line.held > 1 {
            if line.state == State::Ready {
                self.ready_events += 1;
            }
            if let Some(slot) = self.slots.get_mut(&previous) {
                slot.next = Some(place);
            }
            return;
        }
        line.first = place;
        match self.remembered.remove(&place) {
            Some((failures, due)) => {
                line.failures = failures;
                line.due = Some(due);
                line.state = State::Waiting;
                self.waiting.push(Reverse((due, key)));
                self.hold_head_alone(key);
            }
            None => self.make_ready(key, now),
        }
    }

    /// The head of a line has failed: of what waits behind it only the places are kept.
    fn hold_head_alone(&mut self, key: u64) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        let Some(head) = self.slots.get_mut(&line.first) else { return };
        if !line.has_failed {
            line.has_failed = true;
            self.stuck += 1;
            self.stuck_bytes += head.bytes;
        }
        let mut next = head.next.take();
        if let Some(first) = line.deferred.front() {
            self.hungry.remove(first);
        }
        let mut behind = VecDeque::new();
        while let Some(place) = next {
            let Some(slot) = self.slots.remove(&place) else { break };
            next = slot.next;
            line.held -= 1;
            line.bytes -= slot.bytes;
            self.bytes -= slot.bytes;
            self.deferred.insert(place, key);
            behind.push_back(place);
        }
        behind.append(&mut line.deferred);
        line.deferred = behind;
        line.last = line.first;
    }

    fn undefer(&mut self, place: u64, key: u64) {
        self.deferred.remove(&place);
        self.hungry.remove(&place);
        if let Some(line) = self.lines.get_mut(&key) {
            if line.deferred.front() == Some(&place) {
                line.deferred.pop_front();
            } else {
                // Seldom: the first one was read again and did not fit.
                line.deferred.retain(|other| *other != place);
            }
        }
    }

    /// After its line has changed: forgets it if it is empty, and knows whether it wants more.
    fn look_after(&mut self, key: u64) {
        let Some(line) = self.lines.get(&key) else { return };
        match line.deferred.front() {
            Some(first) if line.is_short(&self.rules.limits) => {
                self.hungry.insert(*first);
            }
            Some(first) => {
                self.hungry.remove(first);
            }
            None if line.held == 0 => {
                self.lines.remove(&key);
            }
            None => {}
        }
    }
}

/// A record that enters a window.
#[derive(Debug, Clone)]
pub(crate) struct Arrival<T> {
    pub(crate) place: u64,
    pub(crate) device: u64,
    /// Of its envelope.
    pub(crate) bytes: usize,
    pub(crate) item: T,
}
