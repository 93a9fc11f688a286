//! What a forwarder has read and not yet delivered: order, retries and the cursor. Pure.
//!
//! Records enter in the order of the log. Those of one device form a line: only its head is tried,
//! and the next only when the head is done (docs/delivery.md, Order). Lines do not wait for
//! each other, except while the [`Gate`] is closed. The cursor is the lowest place that is not
//! done: what lies below it is never needed again. What is done above it is known by the
//! [`Position`], so that one record that is stuck does not make everything after it come twice.
//!
//! One device gets a share of the window. What comes beyond it is deferred: only its place is
//! kept, and it is read again ([`Window::wanted`]) when the line has moved. So a device that fails
//! for long leaves room for the others.
//!
//! No clock, no I/O: `now` is an argument, randomness a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::gate::{Gate, GateSettings};
use crate::schedule::{Schedule, scramble};

/// The limits of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Records that may be read and not done.
    pub records: usize,
    /// The bytes of their envelopes, together. The last one admitted may exceed it.
    pub bytes: usize,
    /// Attempts at the same time.
    pub concurrency: usize,
    /// Records of one device.
    pub device_records: usize,
    /// The bytes of one device's envelopes, together. The last one admitted may exceed it.
    pub device_bytes: usize,
    /// Records that were read while the share of their device was used up, and are to be read
    /// again.
    pub deferred: usize,
}

/// How failures are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// For one device's line.
    pub schedule: Schedule,
    /// For the endpoint as a whole.
    pub gate: GateSettings,
}

impl RetryPolicy {
    /// What docs/webhooks.md promises.
    pub const DOCUMENTED: Self =
        Self { schedule: Schedule::DOCUMENTED, gate: GateSettings::DOCUMENTED };
}

/// How an attempt ended, as far as the order of things is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done: the endpoint has it.
    Delivered,
    /// Done: it can never be delivered.
    Rejected,
    /// Again, not before the wait that the endpoint asked for.
    Again(Option<Duration>),
}

/// How far a reader has come: everything below `resume` is done, except `holes`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) resume: u64,
    /// In rising order; never more than the window holds and defers.
    pub(crate) holes: Vec<u64>,
}

impl Position {
    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        self.holes.first().copied().unwrap_or(self.resume)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        std::iter::once(&self.resume).chain(&self.holes).flat_map(|at| at.to_le_bytes()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (places, _) = bytes.as_chunks();
        let mut places = places.iter().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Self { resume: places.next()?, holes: places.collect() })
    }
}

/// Read and not done. `T` is what is to be delivered.
#[derive(Debug)]
pub(crate) struct Window<T> {
    limits: WindowLimits,
    schedule: Schedule,
    gate: Gate,
    random: u64,
    slots: BTreeMap<u64, Slot<T>>,
    lines: HashMap<u64, Line>,
    /// The device of each place that is deferred.
    deferred: BTreeMap<u64, u64>,
    /// The first deferred place of each line that has become short enough to take more.
    hungry: BTreeSet<u64>,
    /// Places of heads that may be tried at once.
    ready: VecDeque<u64>,
    /// Heads that failed, by the moment of their next attempt.
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    in_flight: usize,
    bytes: usize,
    read_to: u64,
    /// The place after the highest that is done.
    done_to: u64,
}

#[derive(Debug)]
struct Slot<T> {
    device: u64,
    bytes: usize,
    item: T,
    /// The place of the device's next record.
    next: Option<u64>,
}

#[derive(Debug, Default)]
struct Line {
    /// The place of the last record that is held.
    last: u64,
    /// Records that are held, and their bytes.
    held: usize,
    bytes: usize,
    /// Attempts at its head that failed.
    failures: u32,
    /// Places after those that are held, in rising order.
    deferred: VecDeque<u64>,
}

impl Line {
    /// One record always fits, however large it is.
    fn has_room(&self, limits: &WindowLimits) -> bool {
        self.held == 0 || (self.held < limits.device_records && self.bytes < limits.device_bytes)
    }

    /// Half of the share, so that a read is worth its while.
    fn is_short(&self, limits: &WindowLimits) -> bool {
        self.held * 2 <= limits.device_records && self.bytes * 2 <= limits.device_bytes
    }
}

impl<T: Clone> Window<T> {
    /// An empty window of a reader at `position`, whose holes it reads first.
    pub(crate) fn new(
        limits: WindowLimits,
        retry: RetryPolicy,
        position: &Position,
        seed: u64,
    ) -> Self {
        Self {
            limits,
            schedule: retry.schedule,
            gate: Gate::new(retry.gate),
            random: seed,
            slots: BTreeMap::new(),
            lines: HashMap::new(),
            deferred: BTreeMap::new(),
            hungry: BTreeSet::new(),
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            in_flight: 0,
            bytes: 0,
            read_to: position.cursor(),
            done_to: position.resume,
        }
    }

    /// How many more records may be admitted.
    pub(crate) fn room(&self) -> usize {
        self.room_to_hold().min(self.limits.deferred.saturating_sub(self.deferred.len()))
    }

    fn room_to_hold(&self) -> usize {
        if self.bytes >= self.limits.bytes {
            return 0;
        }
        self.limits.records.saturating_sub(self.slots.len())
    }

    /// The place that is to be read next.
    pub(crate) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// The lowest place that is not done.
    pub(crate) fn cursor(&self) -> u64 {
        self.first_undone(0).unwrap_or(self.read_to)
    }

    /// How far everything is done, provided that the holes of the first position have been read.
    pub(crate) fn position(&self) -> Position {
        let held = self.slots.range(..self.done_to).map(|(place, _)| *place);
        let deferred = self.deferred.range(..self.done_to).map(|(place, _)| *place);
        let mut holes: Vec<u64> = held.chain(deferred).collect();
        holes.sort_unstable();
        let resume = self.first_undone(self.done_to);
        Position { resume: resume.unwrap_or(self.read_to.max(self.done_to)), holes }
    }

    /// The lowest place from `place` on that has been read and is not done.
    fn first_undone(&self, place: u64) -> Option<u64> {
        let held = self.slots.range(place..).next().map(|(place, _)| *place);
        let deferred = self.deferred.range(place..).next().map(|(place, _)| *place);
        held.into_iter().chain(deferred).min()
    }

    /// Attempts that run now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the endpoint counts as working.
    pub(crate) fn is_open(&self) -> bool {
        self.gate.probe_at().is_none()
    }

    /// Takes the record at `place`, which is not below [`Window::read_to`].
    pub(crate) fn admit(&mut self, place: u64, device: u64, bytes: usize, item: T) {
        debug_assert!(place >= self.read_to, "records enter in the order of the log");
        self.read_to = place + 1;
        match self.lines.get_mut(&device) {
            Some(line) if !line.deferred.is_empty() || !line.has_room(&self.limits) => {
                line.deferred.push_back(place);
                self.deferred.insert(place, device);
                self.look_after(device);
            }
            _ => self.hold(place, device, bytes, item),
        }
    }

    /// Up to `most` deferred places that there is room for now, in rising order.
    pub(crate) fn wanted(&self, most: usize) -> Vec<u64> {
        let most = most.min(self.room_to_hold());
        let lines = self.hungry.iter().filter_map(|first| {
            let line = self.lines.get(self.deferred.get(first)?)?;
            let share = self.limits.device_records.saturating_sub(line.held).max(1);
            Some(line.deferred.iter().take(share).copied())
        });
        let mut places: Vec<u64> = lines.flatten().take(most).collect();
        places.sort_unstable();
        places
    }

    /// Takes the record at a deferred `place`. It stays deferred if its line has no room for it.
    pub(crate) fn readmit(&mut self, place: u64, bytes: usize, item: T) {
        let Some(&device) = self.deferred.get(&place) else { return };
        let fits = self.lines.get(&device).is_some_and(|line| {
            line.deferred.front() == Some(&place) && line.has_room(&self.limits)
        });
        if fits {
            self.undefer(place, device);
            self.hold(place, device, bytes, item);
            self.look_after(device);
        }
    }

    /// Notes that there is nothing to deliver at a deferred `place`.
    pub(crate) fn pass_over(&mut self, place: u64) {
        if let Some(&device) = self.deferred.get(&place) {
            self.undefer(place, device);
            self.look_after(device);
        }
    }

    /// Notes that the log holds nothing below `oldest` any more.
    pub(crate) fn expire(&mut self, oldest: u64) {
        let expired: Vec<u64> = self.deferred.range(..oldest).map(|(place, _)| *place).collect();
        for place in expired {
            self.pass_over(place);
        }
    }

    /// Notes that everything below `place` has been read.
    pub(crate) fn advance(&mut self, place: u64) {
        self.read_to = self.read_to.max(place);
    }

    /// The next attempt to start, if one may start `now`: its place and what to deliver.
    pub(crate) fn start(&mut self, now: Instant) -> Option<(u64, T)> {
        let place = match self.gate.probe_at() {
            None => self.next_of_all(now)?,
            Some(probe_at) => self.next_probe(now, probe_at)?,
        };
        let item = self.slots.get(&place)?.item.clone();
        self.in_flight += 1;
        Some((place, item))
    }

    /// The moment from which [`Window::start`] may have something, if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.gate.probe_at() {
            Some(_) if self.in_flight > 0 || self.slots.is_empty() => None,
            Some(probe_at) => Some(probe_at),
            None if self.in_flight >= self.limits.concurrency => None,
            None => self.waiting.peek().map(|Reverse((due, _))| *due),
        }
    }

    /// Takes the end of an attempt that [`Window::start`] began.
    pub(crate) fn finish(&mut self, place: u64, verdict: Verdict, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match verdict {
            Verdict::Again(after) => self.put_off(place, after, now),
            Verdict::Rejected => self.complete(place),
            Verdict::Delivered => {
                self.complete(place);
                if self.gate.succeeded() {
                    self.release_waiting();
                }
            }
        }
    }

    fn next_of_all(&mut self, now: Instant) -> Option<u64> {
        if self.in_flight >= self.limits.concurrency {
            return None;
        }
        if self.waiting.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            return self.waiting.pop().map(|Reverse((_, place))| place);
        }
        self.ready.pop_front()
    }

    /// While the endpoint is down: one at a time, first those that have not failed yet, then
    /// whoever is due soonest, due or not.
    fn next_probe(&mut self, now: Instant, probe_at: Instant) -> Option<u64> {
        if self.in_flight > 0 || now < probe_at {
            return None;
        }
        self.ready.pop_front().or_else(|| self.waiting.pop().map(|Reverse((_, place))| place))
    }

    fn put_off(&mut self, place: u64, after: Option<Duration>, now: Instant) {
        self.gate.failed(now, after);
        let line = self.slots.get(&place).and_then(|slot| self.lines.get_mut(&slot.device));
        let Some(line) = line else { return };
        line.failures = line.failures.saturating_add(1);
        let wait = self.schedule.wait(line.failures, scramble(&mut self.random));
        let due = now + wait.max(after.unwrap_or(Duration::ZERO));
        self.waiting.push(Reverse((due, place)));
    }

    fn hold(&mut self, place: u64, device: u64, bytes: usize, item: T) {
        self.bytes += bytes;
        self.slots.insert(place, Slot { device, bytes, item, next: None });
        let line = self.lines.entry(device).or_default();
        line.held += 1;
        line.bytes += bytes;
        let previous = std::mem::replace(&mut line.last, place);
        if line.held == 1 {
            self.ready.push_back(place);
        } else if let Some(slot) = self.slots.get_mut(&previous) {
            slot.next = Some(place);
        }
    }

    fn complete(&mut self, place: u64) {
        let Some(slot) = self.slots.remove(&place) else { return };
        self.bytes -= slot.bytes;
        self.done_to = self.done_to.max(place + 1);
        if let Some(line) = self.lines.get_mut(&slot.device) {
            line.held -= 1;
            line.bytes -= slot.bytes;
            line.failures = 0;
        }
        self.ready.extend(slot.next);
        self.look_after(slot.device);
    }

    fn undefer(&mut self, place: u64, device: u64) {
        self.deferred.remove(&place);
        self.hungry.remove(&place);
        if let Some(line) = self.lines.get_mut(&device) {
            if line.deferred.front() == Some(&place) {
                line.deferred.pop_front();
            } else {
                // Seldom: the first one was read again and did not fit.
                line.deferred.retain(|other| *other != place);
            }
        }
    }

    /// After its line has changed: forgets it if it is empty, and knows whether it wants more.
    fn look_after(&mut self, device: u64) {
        let Some(line) = self.lines.get(&device) else { return };
        match line.deferred.front() {
            Some(first) if line.is_short(&self.limits) => {
                self.hungry.insert(*first);
            }
            Some(first) => {
                self.hungry.remove(first);
            }
            None if line.held == 0 => {
                self.lines.remove(&device);
            }
            None => {}
        }
    }

    /// The endpoint is back: waits that its outage caused are over.
    fn release_waiting(&mut self) {
        while let Some(Reverse((_, place))) = self.waiting.pop() {
            self.ready.push_back(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: WindowLimits = WindowLimits {
        records: 8,
        bytes: 100,
        concurrency: 3,
        device_records: 3,
        device_bytes: 100,
        deferred: 12,
    };

    fn window() -> Window<u64> {
        Window::new(LIMITS, RetryPolicy::DOCUMENTED, &Position::default(), 7)
    }

    fn started(window: &mut Window<u64>, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| window.start(now).map(|(place, _)| place)).collect()
    }

    #[test]
    fn one_device_is_served_one_by_one_and_others_beside_it() {
        let now = Instant::now();
        let mut window = window();
        for (place, device) in [(0, 1), (1, 1), (2, 2), (3, 1), (4, 3), (5, 4)] {
            window.admit(place, device, 1, place);
        }
        assert_eq!(started(&mut window, now), [0, 2, 4]);
        window.finish(2, Verdict::Delivered, now);
        assert_eq!(started(&mut window, now), [5]);
        assert_eq!(window.cursor(), 0);
        window.finish(0, Verdict::Delivered, now);
        assert_eq!(started(&mut window, now), [1]);
        assert_eq!(window.cursor(), 1);
    }

    #[test]
    fn a_failed_head_holds_its_line_and_nobody_else() {
        let now = Instant::now();
        let mut window = window();
        for (place, device) in [(0, 1), (1, 1), (2, 2)] {
            window.admit(place, device, 1, place);
        }
        assert_eq!(started(&mut window, now), [0, 2]);
        window.finish(0, Verdict::Again(None), now);
        window.finish(2, Verdict::Delivered, now);
        assert_eq!(started(&mut window, now), [] as [u64; 0]);
        let due = window.wake_at().unwrap();
        assert!(due >= now + Duration::from_secs(4) && due <= now + Duration::from_secs(6));
        assert_eq!(started(&mut window, due), [0]);
        window.finish(0, Verdict::Again(Some(Duration::from_secs(7_000))), due);
        assert_eq!(window.wake_at(), Some(due + Duration::from_secs(7_000)));
        assert_eq!(window.cursor(), 0);
    }

    #[test]
    fn a_rejected_record_is_done() {
        let now = Instant::now();
        let mut window = window();
        window.admit(3, 1, 1, 3);
        window.admit(9, 1, 1, 9);
        assert_eq!(started(&mut window, now), [3]);
        window.finish(3, Verdict::Rejected, now);
        assert_eq!(window.cursor(), 9);
        assert_eq!(started(&mut window, now), [9]);
        window.finish(9, Verdict::Delivered, now);
        assert_eq!(window.cursor(), 10);
    }

    #[test]
    fn the_room_ends_with_records_or_bytes() {
        let mut window = window();
        window.admit(0, 1, 99, 0);
        assert_eq!(window.room(), 7);
        window.admit(1, 1, 1, 1);
        assert_eq!(window.room(), 0);
    }

    #[test]
    fn a_dead_endpoint_is_probed_by_one_and_comes_back_for_all() {
        let mut now = Instant::now();
        let mut window = Window::new(
            WindowLimits { records: 100, concurrency: 64, deferred: 100, ..LIMITS },
            RetryPolicy::DOCUMENTED,
            &Position::default(),
            7,
        );
        for place in 0..20 {
            window.admit(place, place, 1, place);
        }
        for place in started(&mut window, now) {
            window.finish(place, Verdict::Again(None), now);
        }
        assert!(started(&mut window, now).is_empty());
        for pause in [5, 10, 20] {
            now += Duration::from_secs(pause);
            assert_eq!(window.wake_at(), Some(now));
            let probe = started(&mut window, now);
            assert_eq!(probe.len(), 1);
            assert_eq!(window.wake_at(), None);
            window.finish(probe[0], Verdict::Again(None), now);
        }
        now += Duration::from_secs(40);
        let probe = started(&mut window, now);
        window.finish(probe[0], Verdict::Delivered, now);
        assert_eq!(started(&mut window, now).len(), 19);
    }

    /// A device that failed for an hour filled the window with 4,096 records of its own queue;
    /// after that nothing was read any more and all devices of the integration waited for it.
    #[test]
    fn a_device_that_fails_for_long_leaves_room_for_the_others() {
        let mut now = Instant::now();
        let mut window = window();
        for place in 0..10 {
            window.admit(place, 1, 1, place);
        }
        assert_eq!(started(&mut window, now), [0]);
        window.finish(0, Verdict::Again(None), now);
        assert_eq!((window.room(), window.wanted(9)), (5, vec![]));
        window.admit(10, 2, 1, 10);
        assert_eq!(started(&mut window, now), [10]);
        window.finish(10, Verdict::Delivered, now);
        let holes = (0..10).collect();
        assert_eq!(window.position(), Position { resume: 11, holes });
        // The line moves: what was deferred comes back, and its order is kept.
        let mut order = Vec::new();
        while window.cursor() < 11 {
            now += Duration::from_secs(10);
            for place in started(&mut window, now) {
                order.push(place);
                window.finish(place, Verdict::Delivered, now);
            }
            for place in window.wanted(9) {
                window.readmit(place, 1, place);
            }
        }
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        assert!(window.lines.is_empty() && window.hungry.is_empty());
    }

    #[test]
    fn a_share_ends_with_bytes_too_but_one_record_always_fits() {
        let limits = WindowLimits { device_bytes: 10, ..LIMITS };
        let mut window = Window::new(limits, RetryPolicy::DOCUMENTED, &Position::default(), 7);
        window.admit(0, 1, 50, 0);
        window.admit(1, 1, 1, 1);
        assert_eq!((window.slots.len(), window.deferred.len()), (1, 1));
        window.expire(2);
        assert_eq!((window.deferred.len(), window.cursor()), (0, 0));
    }

    /// What happens next in the model: a record of a device arrives, or the oldest attempt ends.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive(u64),
        Skip,
        Finish(usize, u8),
        Wait(u64),
        /// So many deferred places are read again, the last without anything to deliver.
        Reread(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..6).prop_map(Step::Arrive),
            1 => Just(Step::Skip),
            4 => (0_usize..64, any::<u8>()).prop_map(|(which, fate)| Step::Finish(which, fate)),
            1 => (0_u64..100_000).prop_map(Step::Wait),
            2 => (0_usize..6, any::<bool>()).prop_map(|(most, empty)| Step::Reread(most, empty)),
        ];
        proptest::collection::vec(step, 0..300)
    }

    /// The window beside a plain list of what must become of each record.
    struct Model {
        window: Window<u64>,
        now: Instant,
        next_place: u64,
        undone: Vec<(u64, u64)>,
        in_flight: Vec<u64>,
        skipped: Vec<u64>,
    }

    impl Model {
        fn apply(&mut self, step: &Step) {
            match *step {
                Step::Arrive(device) if self.window.room() > 0 => {
                    self.window.admit(self.next_place, device, 1, self.next_place);
                    self.undone.push((self.next_place, device));
                    self.next_place += 1;
                }
                Step::Arrive(_) => {}
                Step::Skip => {
                    self.skipped.push(self.next_place);
                    self.next_place += 1;
                    self.window.advance(self.next_place);
                }
                Step::Finish(_, _) if self.in_flight.is_empty() => {}
                Step::Finish(which, fate) => {
                    let place = self.in_flight.swap_remove(which % self.in_flight.len());
                    self.finish(place, fate);
                }
                Step::Wait(millis) => self.now += Duration::from_millis(millis),
                Step::Reread(most, empty) => self.reread(most, empty),
            }
            self.start_and_check();
        }

        fn reread(&mut self, most: usize, last_is_empty: bool) {
            let places = self.window.wanted(most);
            assert!(places.len() <= most && places.is_sorted());
            for place in &places {
                if last_is_empty && Some(place) == places.last() {
                    self.window.pass_over(*place);
                    self.undone.retain(|(other, _)| other != place);
                    self.skipped.push(*place);
                } else {
                    self.window.readmit(*place, 1, *place);
                }
            }
        }

        fn finish(&mut self, place: u64, fate: u8) {
            let verdict = match fate {
                0..120 => Verdict::Delivered,
                120..125 => Verdict::Rejected,
                125..140 => Verdict::Again(Some(Duration::from_secs(u64::from(fate)))),
                140.. => Verdict::Again(None),
            };
            if !matches!(verdict, Verdict::Again(_)) {
                self.undone.retain(|(other, _)| *other != place);
            }
            self.window.finish(place, verdict, self.now);
        }

        fn start_and_check(&mut self) {
            while let Some((place, item)) = self.window.start(self.now) {
                assert_eq!(place, item);
                let device = self.undone.iter().find(|(other, _)| *other == place);
                let device = device.expect("only what is not done is tried").1;
                let head = self.undone.iter().find(|(_, other)| *other == device);
                assert_eq!(head.map(|(place, _)| *place), Some(place), "order per device");
                assert!(!self.in_flight.contains(&place), "never tried twice at a time");
                self.in_flight.push(place);
            }
            assert!(self.in_flight.len() <= LIMITS.concurrency);
            assert_eq!(self.window.in_flight(), self.in_flight.len());
            assert!(self.window.lines.values().all(|line| line.held <= LIMITS.device_records));
            let lowest = self.undone.first().map_or(self.next_place, |(place, _)| *place);
            assert_eq!(self.window.cursor(), lowest, "the cursor is the lowest not done");
            self.check_position();
        }

        /// Whoever resumes at the position reads all that is not done, and nothing that is.
        fn check_position(&self) {
            let position = self.window.position();
            assert_eq!(position.cursor(), self.window.cursor());
            let again = |place: u64| place >= position.resume || position.holes.contains(&place);
            let undone: Vec<u64> = self.undone.iter().map(|(place, _)| *place).collect();
            for place in 0..self.next_place {
                let read_again = again(place) && !self.skipped.contains(&place);
                assert_eq!(undone.contains(&place), read_again, "place {place}");
            }
        }

        /// From now on everything succeeds: all must be delivered.
        fn drain(&mut self) {
            while !self.undone.is_empty() {
                self.reread(usize::MAX, false);
                self.start_and_check();
                if let Some(place) = self.in_flight.pop() {
                    self.finish(place, 0);
                } else {
                    let wake = self.window.wake_at().expect("what is not done is tried some time");
                    self.now = self.now.max(wake);
                }
                self.start_and_check();
            }
        }
    }

    proptest! {
        #[test]
        fn every_record_is_delivered_in_order_and_the_cursor_never_passes_one(
            steps in steps(),
            seed in any::<u64>(),
        ) {
            let gate = GateSettings { failures: 4, ..GateSettings::DOCUMENTED };
            let retry = RetryPolicy { gate, ..RetryPolicy::DOCUMENTED };
            let mut model = Model {
                window: Window::new(LIMITS, retry, &Position::default(), seed),
                now: Instant::now(),
                next_place: 0,
                undone: Vec::new(),
                in_flight: Vec::new(),
                skipped: Vec::new(),
            };
            for step in &steps {
                model.apply(step);
            }
            model.drain();
            prop_assert_eq!(model.window.cursor(), model.next_place);
            prop_assert!(model.window.lines.is_empty() && model.window.bytes == 0);
            prop_assert!(model.window.deferred.is_empty() && model.window.hungry.is_empty());
        }
    }
}
