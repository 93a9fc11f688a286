//! Which records are tried together, and what becomes of them.
//!
//! A batch takes ready lines in their order, of each as many records as fit. It starts when it is
//! full, when its oldest record has waited long enough, or when nothing more can come. One that is
//! refused is split until the guilty record is alone: halves are tried at once and count as no
//! attempt, so a record that the endpoint refuses costs about twice log2(n) requests and no other
//! waits for its schedule. Records of one device stay in order there too: the second half of a
//! batch of one device is tried after the first.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::line::State;
use super::{Slot, Window};
use crate::policy::{Judgement, blames_events};
use crate::schedule::scramble;
use crate::sink::FailureClass;

/// Bytes of the events of one batch at most, unless one alone is larger: common servers take a
/// megabyte (nginx), and its brackets and commas need some.
pub(super) const BATCH_BYTES_MAX: usize = 900_000;

/// Records that are tried together.
#[derive(Debug)]
pub(crate) struct Attempt<T> {
    /// To be given back with the outcome.
    pub(crate) flight: Flight,
    /// What to deliver, in order.
    pub(crate) items: Vec<T>,
}

/// An attempt that runs.
#[derive(Debug)]
pub(crate) struct Flight {
    piece: Piece,
    pub(crate) begun: Instant,
}

/// Records that are to be tried together: those of one line stand side by side, in order.
#[derive(Debug)]
pub(super) struct Piece {
    places: Vec<u64>,
    /// What is to be tried after it, the next one last; only where all is of one line.
    rest: Vec<Vec<u64>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Done: the endpoint has it.
    Delivered,
    /// The endpoint does not have it, or it is not known.
    Failed {
        /// Why.
        class: FailureClass,
        /// The wait that the endpoint asked for.
        after: Option<Duration>,
        /// It can never be delivered.
        is_final: bool,
        /// Whether the attempt counts: not while the whole endpoint is down.
        counts: bool,
    },
}

/// What followed from an attempt.
#[derive(Debug)]
pub(crate) struct Finish<T> {
    /// Records that are given up.
    pub(crate) dead: Vec<Dead<T>>,
    /// The batch was split: nothing is known yet.
    pub(crate) is_split: bool,
    /// The integration is to fail.
    pub(crate) fails: bool,
    /// Whether one of the events failed for the first time.
    pub(crate) is_first: bool,
}

impl<T> Default for Finish<T> {
    fn default() -> Self {
        Self { dead: Vec::new(), is_split: false, fails: false, is_first: false }
    }
}

/// A record that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dead<T> {
    pub(crate) place: u64,
    pub(crate) device: u64,
    /// Attempts that counted, with the last one.
    pub(crate) attempts: u32,
    pub(crate) item: T,
}

impl Flight {
    /// The places that are tried.
    pub(crate) fn places(&self) -> &[u64] {
        &self.piece.places
    }
}

impl<T: Clone> Window<T> {
    /// The next attempt, if one is due `now`.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Attempt<T>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(self.fly(piece, now));
        }
        if !self.has_due_retry(now) && !self.is_filled(now) {
            return None;
        }
        let places = self.take_batch(now);
        self.look_at_the_clock(now);
        (!places.is_empty()).then(|| self.fly(Piece { places, rest: Vec::new() }, now))
    }

    /// While the endpoint is down, one record: first of those that have not failed yet, then
    /// whoever is due soonest, due or not.
    pub(crate) fn start_probe(&mut self, now: Instant) -> Option<Attempt<T>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(self.fly(piece, now));
        }
        let key = match self.ready.pop_front() {
            Some(key) => {
                self.ready_events -= self.lines.get(&key).map_or(0, |line| line.held);
                key
            }
            None => self.waiting.pop().map(|Reverse((_, key))| key)?,
        };
        self.look_at_the_clock(now);
        let line = self.lines.get_mut(&key)?;
        line.state = State::Flying;
        let places = vec![line.first];
        Some(self.fly(Piece { places, rest: Vec::new() }, now))
    }

    /// Whether there is something to try that is not waiting for another attempt.
    pub(crate) fn has_untried(&self) -> bool {
        !self.pieces.is_empty() || !self.ready.is_empty()
    }

    /// When the first of those that failed is tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, _))| *due)
    }

    /// The moment from which [`Window::start`] has something; `None` while there is nothing.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        if !self.pieces.is_empty() || self.is_filled(now) {
            return Some(now);
        }
        let retry = self.retry_at();
        let batch = if self.ready.is_empty() { None } else { self.fill_by };
        retry.into_iter().chain(batch).min()
    }

    /// Takes the end of an attempt that was started here.
    pub(crate) fn finish(&mut self, flight: Flight, ending: Ending, now: Instant) -> Finish<T> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let mut finish = Finish::default();
        match ending {
            Ending::Delivered => self.deliver(flight.piece, now),
            Ending::Failed { class, is_final, .. }
                if (is_final || blames_events(class)) && flight.piece.places.len() > 1 =>
            {
                finish.is_split = true;
                self.split(flight.piece);
            }
            failed @ Ending::Failed { .. } => self.fail(flight.piece, failed, now, &mut finish),
        }
        finish
    }

    /// The endpoint is back: waits that its outage caused are over, and the last failure of each
    /// head counts as one of the outage unless it blamed the head. Each release is an attempt that
    /// no schedule has spread; an endpoint that comes and goes would use them all up in minutes.
    pub(crate) fn release_waiting(&mut self, now: Instant) {
        while let Some(Reverse((_, key))) = self.waiting.pop() {
            if let Some(line) = self.lines.get_mut(&key).filter(|line| !line.is_suspect) {
                line.failures = line.failures.saturating_sub(1);
            }
            self.make_ready(key, now);
        }
    }

    /// Lets a line that holds something be tried.
    pub(super) fn make_ready(&mut self, key: u64, now: Instant) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.state = State::Ready;
        line.due = None;
        self.ready_events += line.held;
        self.ready.push_back(key);
        if self.rules.batch.events > 1 {
            let by = self.fill_by_of(key, now);
            self.fill_by = self.fill_by.into_iter().chain(by).min();
        }
    }

    /// When the head of a line has waited long enough for its batch to fill: at once where no more
    /// of its device can come.
    fn fill_by_of(&self, key: u64, now: Instant) -> Option<Instant> {
        let line = self.lines.get(&key)?;
        if !line.deferred.is_empty() || line.failures > 0 {
            return Some(now);
        }
        Some(self.slots.get(&line.first)?.since + self.rules.batch.wait)
    }

    fn has_due_retry(&self, now: Instant) -> bool {
        self.waiting.peek().is_some_and(|Reverse((due, _))| *due <= now)
    }

    /// Whether a batch of what is ready may start.
    fn is_filled(&self, now: Instant) -> bool {
        let is_stuck = || self.in_flight == 0 && self.room() == 0;
        match self.rules.batch.events {
            _ if self.ready.is_empty() => false,
            0 | 1 => true,
            events if self.ready_events >= events => true,
            _ => self.fill_by.is_some_and(|by| by <= now) || is_stuck(),
        }
    }

    /// After ready lines were taken: knows again how long the others may wait. Not needed while
    /// there are enough of them for a batch.
    fn look_at_the_clock(&mut self, now: Instant) {
        let events = self.rules.batch.events;
        self.fill_by = if events > 1 && self.ready_events < events {
            self.ready.iter().filter_map(|key| self.fill_by_of(*key, now)).min()
        } else {
            None
        };
    }

    fn take_batch(&mut self, now: Instant) -> Vec<u64> {
        let events = self.rules.batch.events.max(1);
        let (mut places, mut bytes, mut allowed) = (Vec::new(), 0, events);
        while places.len() < allowed {
            let is_retry = self.has_due_retry(now);
            let key = match self.waiting.peek() {
                Some(Reverse((_, key))) if is_retry => *key,
                _ => match self.ready.front() {
                    Some(key) => *key,
                    None => break,
                },
            };
            let company = self.company(key, events).min(allowed);
            if places.len() >= company || !self.fits(key, &places, bytes) {
                break;
            }
            if is_retry {
                self.waiting.pop();
            } else {
                self.ready.pop_front();
                self.ready_events -= self.lines.get(&key).map_or(0, |line| line.held);
            }
            allowed = company;
            bytes += self.take_run(key, allowed, bytes, &mut places);
        }
        places
    }

    fn company(&self, key: u64, events: usize) -> usize {
        let Some(line) = self.lines.get(&key) else { return events };
        if line.is_suspect { 1 } else { self.rules.policy.company(line.failures, events) }
    }

    fn fits(&self, key: u64, places: &[u64], bytes: usize) -> bool {
        let first = self.lines.get(&key).and_then(|line| self.slots.get(&line.first));
        places.is_empty() || first.is_none_or(|slot| bytes + slot.bytes <= BATCH_BYTES_MAX)
    }

    /// Takes records of one line, the head first, until the batch has `allowed` of them. Gives
    /// their bytes.
    fn take_run(&mut self, key: u64, allowed: usize, before: usize, into: &mut Vec<u64>) -> usize {
        let Some(line) = self.lines.get_mut(&key) else { return 0 };
        line.state = State::Flying;
        line.due = None;
        let mut bytes = 0;
        let mut next = Some(line.first);
        while let Some(place) = next
            && into.len() < allowed
            && let Some(slot) = self.slots.get(&place)
            && (into.is_empty() || before + bytes + slot.bytes <= BATCH_BYTES_MAX)
        {
            into.push(place);
            bytes += slot.bytes;
            next = slot.next;
        }
        bytes
    }

    fn fly(&mut self, piece: Piece, now: Instant) -> Attempt<T> {
        self.in_flight += 1;
        let item = |place| self.slots.get(place).map(|slot| slot.item.clone());
        let items = piece.places.iter().filter_map(item).collect();
        Attempt { flight: Flight { piece, begun: now }, items }
    }

    fn deliver(&mut self, piece: Piece, now: Instant) {
        let mut before = None;
        for place in piece.places {
            let Some(slot) = self.complete(place) else { continue };
            if let Some(other) = before.replace(slot.line).filter(|other| *other != slot.line) {
                self.proceed(other, Vec::new(), now);
            }
        }
        if let Some(key) = before {
            self.proceed(key, piece.rest, now);
        }
    }

    /// Two halves of a batch that was refused: between two lines where there are several, else in
    /// the middle of the one, whose second half waits for the first.
    fn split(&mut self, piece: Piece) {
        let Piece { mut places, mut rest } = piece;
        let middle = places.len() / 2;
        let line_of = |place: &u64| self.slots.get(place).map(|slot| slot.line);
        let is_border = |at: &usize| {
            let pair = at.checked_sub(1).and_then(|before| places.get(before..=*at));
            matches!(pair, Some([one, next]) if line_of(one) != line_of(next))
        };
        let distance = |at: &usize| at.abs_diff(middle);
        let border = (1..places.len()).filter(is_border).min_by_key(distance);
        let second = places.split_off(border.unwrap_or(middle));
        if border.is_some() {
            self.pieces.push_back(Piece { places, rest: Vec::new() });
            self.pieces.push_back(Piece { places: second, rest: Vec::new() });
        } else {
            rest.push(second);
            self.pieces.push_back(Piece { places, rest });
        }
    }

    fn fail(&mut self, piece: Piece, ending: Ending, now: Instant, finish: &mut Finish<T>) {
        let heads = self.heads(&piece.places);
        // The same for all, so that those which failed together are tried together again.
        let random = scramble(&mut self.random);
        let mut rest = piece.rest;
        for (key, head) in heads {
            let judgement = self.judge(key, ending);
            finish.fails |= judgement == Judgement::Fail;
            let attempts = self.lines.get(&key).map_or(0, |line| line.failures);
            finish.is_first |= attempts <= 1;
            if judgement == Judgement::Dead {
                if let Some(Slot { device, item, .. }) = self.complete(head) {
                    finish.dead.push(Dead { place: head, device, attempts, item });
                }
                self.proceed(key, std::mem::take(&mut rest), now);
            } else {
                self.put_off(key, ending, random, now);
            }
        }
    }

    /// The lines of what was tried, each with its head.
    fn heads(&self, places: &[u64]) -> Vec<(u64, u64)> {
        let mut heads: Vec<(u64, u64)> = Vec::new();
        for place in places {
            let Some(slot) = self.slots.get(place) else { continue };
            if heads.last().is_none_or(|(key, _)| *key != slot.line) {
                heads.push((slot.line, *place));
            }
        }
        heads
    }

    fn judge(&mut self, key: u64, ending: Ending) -> Judgement {
        let Ending::Failed { class, is_final, counts, .. } = ending else {
            return Judgement::Again;
        };
        let Some(line) = self.lines.get_mut(&key) else { return Judgement::Again };
        if counts || is_final {
            line.failures = line.failures.saturating_add(1);
        }
        line.is_suspect = blames_events(class);
        match self.rules.policy.judge(class, line.failures) {
            _ if is_final => Judgement::Dead,
            Judgement::Dead if !counts => Judgement::Again,
            judgement => judgement,
        }
    }

    fn put_off(&mut self, key: u64, ending: Ending, random: u64, now: Instant) {
        let Ending::Failed { after, .. } = ending else { return };
        let Some(line) = self.lines.get_mut(&key) else { return };
        let wait = self.rules.policy.schedule.wait(line.failures.max(1), random);
        let due = now + wait.max(after.unwrap_or(Duration::ZERO));
        line.state = State::Waiting;
        line.due = Some(due);
        self.waiting.push(Reverse((due, key)));
        self.hold_head_alone(key);
    }

    /// Notes that a record is done.
    fn complete(&mut self, place: u64) -> Option<Slot<T>> {
        let slot = self.slots.remove(&place)?;
        self.bytes -= slot.bytes;
        self.done_to = self.done_to.max(place + 1);
        if let Some(line) = self.lines.get_mut(&slot.line) {
            line.held -= 1;
            line.bytes -= slot.bytes;
            line.failures = 0;
            line.is_suspect = false;
            if std::mem::take(&mut line.has_failed) {
                self.stuck -= 1;
                self.stuck_bytes -= slot.bytes;
            }
            line.first = slot.next.unwrap_or(line.first);
        }
        Some(slot)
    }

    /// Goes on with a line whose first records are done, by the `rest` of its batch if any.
    fn proceed(&mut self, key: u64, mut rest: Vec<Vec<u64>>, now: Instant) {
        let held = self.lines.get(&key).map_or(0, |line| line.held);
        match rest.pop() {
            Some(places) => self.pieces.push_back(Piece { places, rest }),
            None if held > 0 => self.make_ready(key, now),
            None => {}
        }
        self.look_after(key);
    }
}
