//! The window beside a plain list of what must become of each record.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vocabulary::Timestamp;

use super::tests::{LIMITS, failed, rules};
use super::*;
use crate::sink::FailureClass;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A record of a device.
    Arrive(u64),
    /// A record that nobody wants.
    Skip,
    /// An attempt begins, as a probe or not.
    Start(bool),
    Finish(usize, Fate),
    Wait(u64),
    /// So many deferred places are read again, the last without anything to deliver.
    Reread(usize, bool),
    /// The endpoint is back.
    Release,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Taken,
    /// For a reason that has nothing to do with the events.
    Failed {
        counts: bool,
    },
    Asked(u64),
    TooLarge,
    Never,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        8 => Just(Fate::Taken),
        4 => any::<bool>().prop_map(|counts| Fate::Failed { counts }),
        1 => (1_u64..1_000).prop_map(Fate::Asked),
        1 => Just(Fate::TooLarge),
        1 => Just(Fate::Never),
    ];
    let step = prop_oneof![
        6 => (0_u64..6).prop_map(Step::Arrive),
        1 => Just(Step::Skip),
        6 => prop::bool::weighted(0.1).prop_map(Step::Start),
        6 => (0_usize..64, fate).prop_map(|(which, fate)| Step::Finish(which, fate)),
        1 => (0_u64..100_000).prop_map(Step::Wait),
        2 => (0_usize..6, any::<bool>()).prop_map(|(most, empty)| Step::Reread(most, empty)),
        1 => Just(Step::Release),
    ];
    proptest::collection::vec(step, 0..300)
}

fn all_rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), 1_usize..6, 0_u64..3, 1_u32..5).prop_map(|(ordered, events, secs, most)| {
        let policy = RetryPolicy { attempts_max: Some(most), ..RetryPolicy::standard() };
        let order = if ordered { Order::Device } else { Order::None };
        let batch = BatchOptions { events, wait: Duration::from_secs(secs) };
        Rules { policy, order, batch, ..rules() }
    })
}

struct Model {
    window: Window<u64>,
    ordered: bool,
    events: usize,
    now: Instant,
    next_place: u64,
    undone: Vec<(u64, u64)>,
    flying: Vec<Attempt<u64>>,
    skipped: BTreeSet<u64>,
    /// Places that the endpoint refuses, whatever is with them.
    poison: BTreeSet<u64>,
    dead: BTreeSet<u64>,
}

impl Model {
    fn new(rules: Rules, poison: BTreeSet<u64>, seed: u64) -> Self {
        let now = Instant::now();
        let moment = Moment { now, at: Timestamp::from_millis(0) };
        Self {
            ordered: rules.order == Order::Device,
            events: rules.batch.events,
            window: Window::new(rules, &Position::default(), moment, seed),
            now,
            next_place: 0,
            undone: Vec::new(),
            flying: Vec::new(),
            skipped: BTreeSet::new(),
            poison,
            dead: BTreeSet::new(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Arrive(device) if self.window.room() > 0 => self.arrive(device),
            Step::Arrive(_) => {}
            Step::Skip => {
                self.skipped.insert(self.next_place);
                self.next_place += 1;
                self.window.advance(self.next_place);
            }
            Step::Start(is_probe) => self.start(is_probe),
            Step::Finish(_, _) if self.flying.is_empty() => {}
            Step::Finish(which, fate) => self.finish(which % self.flying.len(), fate),
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::Reread(most, empty) => self.reread(most, empty),
            Step::Release => self.window.release_waiting(self.now),
        }
        self.check();
    }

    fn arrive(&mut self, device: u64) {
        let place = self.next_place;
        self.window.admit(Arrival { place, device, bytes: 1, item: place }, self.now);
        self.undone.push((place, device));
        self.next_place += 1;
    }

    fn start(&mut self, is_probe: bool) {
        let attempt =
            if is_probe { self.window.start_probe(self.now) } else { self.window.start(self.now) };
        let Some(attempt) = attempt else { return };
        assert_eq!(attempt.flight.places(), attempt.items);
        assert!((1..=self.events).contains(&attempt.items.len()));
        let mut tried: Vec<u64> = self.flying.iter().flat_map(|one| one.items.clone()).collect();
        for place in &attempt.items {
            let found = self.undone.iter().find(|(other, _)| other == place);
            let device = found.expect("only what is not done is tried").1;
            assert!(!tried.contains(place), "never tried twice at a time");
            if self.ordered {
                let mut line = self.undone.iter().filter(|(_, other)| *other == device);
                let before = line.by_ref().take_while(|(other, _)| other != place);
                let in_order = before.map(|(other, _)| attempt.items.contains(other));
                assert!(in_order.into_iter().all(|with_it| with_it), "order of {device}");
            }
            tried.push(*place);
        }
        self.flying.push(attempt);
    }

    fn finish(&mut self, which: usize, fate: Fate) {
        let Attempt { flight, items } = self.flying.swap_remove(which);
        let is_refused = items.iter().any(|item| self.poison.contains(item));
        let ending = match fate {
            Fate::Taken if is_refused => failed(FailureClass::Refused),
            Fate::Taken => Ending::Delivered,
            Fate::Failed { counts } => Ending::Failed {
                class: FailureClass::Timeout,
                after: None,
                is_final: false,
                counts,
            },
            Fate::Asked(secs) => Ending::Failed {
                class: FailureClass::Throttled,
                after: Some(Duration::from_secs(secs)),
                is_final: false,
                counts: true,
            },
            Fate::TooLarge => failed(FailureClass::TooLarge),
            Fate::Never => Ending::Failed {
                class: FailureClass::Request,
                after: None,
                is_final: true,
                counts: true,
            },
        };
        let finish = self.window.finish(flight, ending, self.now);
        assert!(!finish.fails);
        if ending == Ending::Delivered {
            self.undone.retain(|(place, _)| !items.contains(place));
        }
        for dead in finish.dead {
            assert!(items.contains(&dead.place) && dead.attempts > 0);
            self.undone.retain(|(place, _)| *place != dead.place);
            self.dead.insert(dead.place);
        }
    }

    fn reread(&mut self, most: usize, last_is_empty: bool) {
        let places = self.window.wanted(most);
        assert!(places.len() <= most && places.is_sorted());
        for place in &places {
            if last_is_empty && Some(place) == places.last() {
                self.window.pass_over(*place);
                self.undone.retain(|(other, _)| other != place);
                self.skipped.insert(*place);
            } else {
                let device = self.undone.iter().find(|(other, _)| other == place).unwrap().1;
                let arrival = Arrival { place: *place, device, bytes: 1, item: *place };
                self.window.readmit(arrival, self.now);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.window.in_flight, self.flying.len());
        let limits = &LIMITS;
        assert!(self.window.lines.values().all(|line| line.held <= limits.device_records));
        let stuck = || self.window.lines.values().filter(|line| line.has_failed);
        assert!(stuck().all(|line| line.held == 1), "of a line that failed the head alone is held");
        assert_eq!(self.window.stuck, stuck().count());
        assert_eq!(self.window.stuck_bytes, stuck().map(|line| line.bytes).sum::<usize>());
        let bytes = self.window.slots.values().map(|slot| slot.bytes).sum::<usize>();
        assert_eq!((self.window.bytes, self.window.slots.len()), (bytes, self.held()));
        let ready = self.window.ready.iter().map(|key| self.window.lines[key].held);
        assert_eq!(self.window.ready_events, ready.sum::<usize>());
        let lowest = self.undone.first().map_or(self.next_place, |(place, _)| *place);
        assert_eq!(self.window.cursor(), lowest, "the cursor is the lowest not done");
        self.check_position();
    }

    fn held(&self) -> usize {
        self.window.lines.values().map(|line| line.held).sum()
    }

    /// Whoever resumes at the position reads all that is not done, and nothing that is.
    fn check_position(&self) {
        let moment = Moment { now: self.now, at: Timestamp::from_millis(0) };
        let position = self.window.position(moment);
        assert_eq!(position.cursor(), self.window.cursor());
        let again = |place: u64| place >= position.resume || position.holes.contains(&place);
        let undone: BTreeSet<u64> = self.undone.iter().map(|(place, _)| *place).collect();
        for place in 0..self.next_place {
            let read_again = again(place) && !self.skipped.contains(&place);
            assert_eq!(undone.contains(&place), read_again, "place {place}");
        }
        assert!(position.retries.iter().all(|retry| undone.contains(&retry.place)));
    }

    /// From now on all that can be delivered is: nothing must remain.
    fn drain(&mut self) {
        let mut idle = 0;
        while !self.undone.is_empty() {
            self.reread(usize::MAX, false);
            self.start(false);
            if !self.flying.is_empty() {
                self.finish(0, Fate::Taken);
            } else if let Some(due) = self.window.due_at(self.now) {
                idle = if due > self.now { 0 } else { idle + 1 };
                self.now = self.now.max(due);
            } else {
                panic!("what is not done is tried some time");
            }
            assert!(idle < 3, "what is due starts");
            self.check();
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_done_in_order_and_the_cursor_never_passes_one(
        steps in steps(),
        rules in all_rules(),
        poison in proptest::collection::btree_set(0_u64..100, 0..8),
        seed in any::<u64>(),
    ) {
        let mut model = Model::new(rules, poison.clone(), seed);
        for step in &steps {
            model.apply(step);
        }
        model.drain();
        prop_assert_eq!(model.window.cursor(), model.next_place);
        prop_assert!(model.window.lines.is_empty() && model.window.bytes == 0);
        prop_assert!(model.window.deferred.is_empty() && model.window.hungry.is_empty());
        prop_assert!(model.window.pieces.is_empty() && model.window.is_empty());
        let arrived = |place: &&u64| **place < model.next_place && !model.skipped.contains(place);
        let refused: BTreeSet<u64> = poison.iter().filter(arrived).copied().collect();
        prop_assert!(model.dead.is_superset(&refused), "what is refused ends as a dead letter");
    }
}
