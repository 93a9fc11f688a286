//! Two lanes over a log in memory, with crashes at any moment: whatever happens, each record is
//! delivered at least once, and no device's record is tried before all earlier ones of it are done.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vocabulary::Timestamp;

use super::*;
use crate::delivery_options::{BatchOptions, Order};
use crate::filter::FilterBuilder;
use crate::lane::Found;
use crate::policy::RetryPolicy;
use crate::sink::FailureClass;
use crate::window::{Arrival, Attempt, Ending, WindowLimits};

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    /// A lane begins to read, if it wants to; what it will get is decided when it ends.
    Plan(bool),
    /// The read of a lane ends, after so many records or for nothing.
    Read(bool, usize),
    Start(bool),
    Finish(usize, bool),
    Release,
    Wait(u64),
    /// The second lane's scan begins, and ends with its opening.
    Scan,
    Open,
    /// The second lane opens where the first one has read to, clogged or not.
    Detour,
    Join,
    Save,
    /// All is lost but what was saved last; the log has lost what a retention of this takes.
    Crash,
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1_u64..9).prop_map(Step::Append),
        6 => any::<bool>().prop_map(Step::Plan),
        6 => (any::<bool>(), 0_usize..8).prop_map(|(fresh, most)| Step::Read(fresh, most)),
        8 => any::<bool>().prop_map(Step::Start),
        8 => (any::<usize>(), prop::bool::weighted(0.8))
            .prop_map(|(which, taken)| Step::Finish(which, taken)),
        1 => Just(Step::Release),
        1 => (0_u64..20).prop_map(Step::Wait),
        2 => Just(Step::Scan),
        2 => Just(Step::Open),
        2 => Just(Step::Detour),
        4 => Just(Step::Join),
        4 => Just(Step::Save),
        1 => Just(Step::Crash),
        1 => (0_u64..4).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 0..500)
}

fn rules(events: usize) -> Rules {
    let limits = WindowLimits {
        records: 6,
        bytes: 1_000,
        device_records: 2,
        device_bytes: 1_000,
        deferred: 8,
    };
    Rules {
        limits,
        // Everything is delivered in the end.
        policy: RetryPolicy { attempts_max: None, ..RetryPolicy::standard() },
        order: Order::Device,
        batch: BatchOptions { events, wait: Duration::from_secs(1) },
    }
}

struct World {
    rules: Rules,
    /// The device of each record.
    log: Vec<u64>,
    oldest: u64,
    lanes: Lanes<u64>,
    reading: HashMap<bool, Plan>,
    flying: Vec<(Tag, Attempt<u64>)>,
    now: Instant,
    saved: (Position, Option<Filter>),
    /// Filter and start of a scan that has ended, to open the lane with.
    scanned: Option<(u64, Filter)>,
    /// Delivered at any time.
    done: BTreeSet<u64>,
    splits: usize,
    joins: usize,
}

impl World {
    fn new(events: usize) -> Self {
        let rules = rules(events);
        let now = Instant::now();
        let saved = (Position::default(), None);
        let lanes = lanes_at(&rules, &saved, now);
        Self {
            rules,
            log: Vec::new(),
            oldest: 0,
            lanes,
            reading: HashMap::new(),
            flying: Vec::new(),
            now,
            saved,
            scanned: None,
            done: BTreeSet::new(),
            splits: 0,
            joins: 0,
        }
    }

    fn end(&self) -> u64 {
        self.log.len() as u64
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Append(device) => self.log.push(device),
            Step::Plan(fresh) => self.plan(fresh),
            Step::Read(fresh, most) => self.read(fresh, most),
            Step::Start(fresh) => self.start(fresh),
            Step::Finish(_, _) if self.flying.is_empty() => {}
            Step::Finish(which, taken) => self.finish(which % self.flying.len(), taken),
            Step::Release => {
                for kind in Kind::ALL {
                    let now = self.now;
                    if let Some(lane) = self.lanes.lane(kind) {
                        lane.window.release_waiting(now);
                    }
                }
            }
            Step::Wait(secs) => self.now += Duration::from_secs(secs),
            Step::Scan => self.scan(),
            Step::Open => self.open(),
            Step::Detour => self.detour(),
            Step::Join => self.joins += usize::from(self.lanes.join()),
            Step::Save => self.save(),
            Step::Crash => self.crash(),
            Step::Expire(records) => self.oldest = (self.oldest + records).min(self.end()),
        }
    }

    fn plan(&mut self, fresh: bool) {
        let end = self.end();
        if let Some(plan) = self.lanes.plan(kind_of(fresh), end, 5) {
            let before = self.reading.insert(fresh, plan);
            assert_eq!(before, None, "one read of a lane at a time");
        }
    }

    fn read(&mut self, fresh: bool, most: usize) {
        let Some(plan) = self.reading.remove(&fresh) else { return };
        let part = self.lanes.part(kind_of(fresh));
        let (places, after) = match plan {
            Plan::On { from, until, records } => {
                ((from..until).take(records.min(most)).collect::<Vec<_>>(), from)
            }
            Plan::Holes(places) | Plan::Deferred(places) => (places, 0),
        };
        let lane = self.lanes.lane(kind_of(fresh)).expect("it was planned for");
        if places.iter().any(|place| *place < self.oldest) {
            lane.expire(self.oldest);
            return;
        }
        let places: Vec<u64> = places.into_iter().take(most).collect();
        if most == 0 {
            return lane.give_up();
        }
        let taken = places.iter().filter(|at| part.takes(**at, device_at(&self.log, **at)));
        let arrivals = taken
            .map(|at| Arrival {
                place: *at,
                device: device_at(&self.log, *at),
                bytes: 1,
                item: *at,
            })
            .collect();
        let next = places.last().map_or(after, |last| last + 1);
        lane.take(Found { arrivals, next }, self.now);
    }

    fn start(&mut self, fresh: bool) {
        let now = self.now;
        let Some(lane) = self.lanes.lane(kind_of(fresh)) else { return };
        let Some(attempt) = lane.window.start(now) else { return };
        for (number, place) in attempt.items.iter().enumerate() {
            let device = device_at(&self.log, *place);
            let flying = self.flying.iter().flat_map(|(_, attempt)| &attempt.items);
            let of_device = flying.filter(|other| device_at(&self.log, **other) == device).count();
            assert_eq!(of_device, 0, "one attempt at a time for device {device}");
            let earlier = (self.oldest..*place).filter(|at| device_at(&self.log, *at) == device);
            for at in earlier {
                let is_before = attempt.items[..number].contains(&at);
                assert!(is_before || self.done.contains(&at), "{at} is before {place}");
            }
        }
        self.flying.push((self.lanes.tag(kind_of(fresh)), attempt));
    }

    fn finish(&mut self, which: usize, taken: bool) {
        let (tag, Attempt { flight, items }) = self.flying.swap_remove(which);
        let ending = if taken {
            self.done.extend(&items);
            Ending::Delivered
        } else {
            let class = FailureClass::Timeout;
            Ending::Failed { class, after: None, is_final: false, counts: true }
        };
        self.lanes.tagged(tag).window.finish(flight, ending, self.now);
    }

    fn scan(&mut self) {
        if self.lanes.is_split() || !self.lanes.main.is_settled() {
            return;
        }
        let mut filter = FilterBuilder::tiny();
        self.lanes.main.window.devices().for_each(|device| filter.insert(device));
        let start = self.end();
        let unread = self.lanes.main.window.read_to().max(self.oldest)..start;
        unread.for_each(|at| filter.insert(device_at(&self.log, at)));
        self.scanned = Some((start, filter.finish()));
    }

    fn open(&mut self) {
        if self.lanes.is_split() || self.reading.contains_key(&false) {
            return;
        }
        let Some((start, filter)) = self.scanned.take() else { return };
        if self.lanes.main.window.read_to() > start {
            return;
        }
        let moment = self.moment();
        self.lanes.open(&self.rules, Backlog { start, filter }, moment, 5);
        self.splits += 1;
    }

    fn detour(&mut self) {
        let may_open = !self.lanes.is_split()
            && self.lanes.main.is_settled()
            && !self.reading.contains_key(&false);
        assert!(may_open || self.lanes.detour().is_none());
        if !may_open {
            return;
        }
        let mut filter = FilterBuilder::tiny();
        self.lanes.main.window.devices().for_each(|device| filter.insert(device));
        let backlog = Backlog { start: self.lanes.main.window.read_to(), filter: filter.finish() };
        let moment = self.moment();
        self.lanes.open(&self.rules, backlog, moment, 5);
        self.splits += 1;
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, at: Timestamp::from_millis(0) }
    }

    fn save(&mut self) {
        let position = self.lanes.position(self.moment());
        let position = Position::decode(&position.encode()).expect("it comes back");
        let filter = match self.lanes.part(Kind::Main) {
            Part::Backlog { filter, .. } => Some(filter),
            _ => None,
        };
        self.check(&position, filter.as_ref());
        self.saved = (position, filter);
    }

    /// Whoever resumes at the position reads all that is not done.
    fn check(&self, position: &Position, filter: Option<&Filter>) {
        let is_read = |place: u64, resume: u64, holes: &[u64]| {
            place >= resume || holes.binary_search(&place).is_ok()
        };
        for place in self.oldest..self.end() {
            let device = device_at(&self.log, place);
            let is_in_main = is_read(place, position.resume, &position.holes);
            let is_again = match (&position.fresh, filter) {
                (Some(fresh), Some(filter)) if place >= fresh.start => {
                    let is_in_fresh = is_read(place, fresh.resume, &fresh.holes);
                    if filter.contains(device) { is_in_main } else { is_in_fresh }
                }
                _ => is_in_main,
            };
            assert!(is_again || self.done.contains(&place), "{place} is lost: {position:?}");
        }
    }

    fn crash(&mut self) {
        self.reading.clear();
        self.flying.clear();
        self.scanned = None;
        self.lanes = lanes_at(&self.rules, &self.saved, self.now);
    }

    /// From now on everything succeeds.
    fn drain(&mut self) {
        for round in 0..20_000 {
            for fresh in [false, true] {
                self.plan(fresh);
                self.read(fresh, 5);
                self.start(fresh);
            }
            if !self.flying.is_empty() {
                self.finish(0, true);
            } else {
                self.now += Duration::from_secs(1_000);
            }
            self.joins += usize::from(self.lanes.join());
            let is_done = self.lanes.cursor() == self.end() && !self.lanes.is_split();
            if is_done && self.flying.is_empty() {
                return;
            }
            assert!(round < 19_999, "it comes to an end");
        }
    }
}

fn device_at(log: &[u64], place: u64) -> u64 {
    log[usize::try_from(place).unwrap()]
}

fn kind_of(fresh: bool) -> Kind {
    if fresh { Kind::Fresh } else { Kind::Main }
}

fn lanes_at(rules: &Rules, saved: &(Position, Option<Filter>), now: Instant) -> Lanes<u64> {
    let moment = Moment { now, at: Timestamp::from_millis(0) };
    Lanes::new(rules, saved.0.clone(), saved.1.clone(), moment, 3)
}

proptest! {
    #[test]
    fn nothing_is_lost_and_every_device_keeps_its_order(
        steps in steps(),
        events in 1_usize..4,
    ) {
        let mut world = World::new(events);
        for step in &steps {
            world.apply(step);
        }
        world.drain();
        let end = world.end();
        let missing: Vec<u64> = (world.oldest..end).filter(|at| !world.done.contains(at)).collect();
        prop_assert_eq!(missing, Vec::<u64>::new());
    }
}

/// While the endpoint counted as down the second lane was always asked first. Where all that it had
/// were devices that always fail, nothing else was ever tried, and the endpoint stayed down.
#[test]
fn probes_reach_both_lanes() {
    let mut world = World::new(1);
    world.log.extend([1, 2]);
    world.apply(&Step::Plan(false));
    world.apply(&Step::Read(false, 5));
    world.apply(&Step::Detour);
    world.log.push(3);
    world.apply(&Step::Plan(true));
    world.apply(&Step::Read(true, 5));
    let mut probed = Vec::new();
    for _ in 0..6 {
        let first = world.lanes.by_probe()[0];
        let lane = world.lanes.lane(first).unwrap();
        let attempt = lane.window.start_probe(world.now).unwrap();
        probed.extend(attempt.items.clone());
        world.flying.push((world.lanes.tag(first), attempt));
        world.finish(0, false);
        world.now += Duration::from_secs(100);
    }
    assert_eq!(probed[..3], [2, 0, 1]);
    assert_eq!(probed[3..].iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
}

/// The steps above open the second lane and join it again, or they prove nothing.
#[test]
fn a_backlog_opens_the_second_lane_and_its_end_joins_them() {
    let mut world = World::new(1);
    for place in 0..40 {
        world.apply(&Step::Append(place % 4));
    }
    world.apply(&Step::Scan);
    world.apply(&Step::Open);
    let Part::Fresh { filter } = world.lanes.part(Kind::Fresh) else { panic!("no second lane") };
    let other = (100..).find(|device| !filter.contains(*device)).unwrap();
    for _ in 0..5 {
        world.apply(&Step::Append(other));
    }
    // The device without backlog is served before anything of the backlog was even read.
    for _ in 0..30 {
        for step in [Step::Plan(true), Step::Read(true, 5), Step::Start(true)] {
            world.apply(&step);
        }
        world.apply(&Step::Finish(0, true));
    }
    assert_eq!(world.done, (40..45).collect());
    world.save();
    world.crash();
    world.drain();
    assert_eq!((world.splits, world.joins, world.done.len()), (1, 1, 45));
}
