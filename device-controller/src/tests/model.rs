//! Random histories, with crashes, against the simplest thing that behaves the same.
//!
//! The model holds what the controller promises: nothing is lost, nothing is both cancelled and
//! sent, a device has one request in flight and gets them in order, no request is tried more often
//! than it may. Each step must hand over exactly what the model says, and show the same statuses.

use std::time::Duration;

use proptest::prelude::*;

use super::{World, coap, device, lwm2m, not_sent, request, success, udp, unreachable};
use crate::*;

#[derive(Debug, Clone)]
enum Step {
    Submit { device: u64, protocol: u8, mode: bool, attempts: u8 },
    Trigger { device: u64 },
    Piggyback { device: u64 },
    Report { which: usize, outcome: u8 },
    ReportAndCrash { which: usize, outcome: u8 },
    Cancel { which: usize },
    CancelAll { device: u64 },
    Tick { hours: u64 },
    Reopen { is_crash: bool },
}

const DEVICES: u64 = 3;

fn step() -> impl Strategy<Value = Step> {
    let devices = 0..DEVICES;
    prop_oneof![
        6 => (devices.clone(), 0..3_u8, any::<bool>(), 1..4_u8).prop_map(
            |(device, protocol, mode, attempts)| Step::Submit { device, protocol, mode, attempts }
        ),
        4 => devices.clone().prop_map(|device| Step::Trigger { device }),
        1 => devices.clone().prop_map(|device| Step::Piggyback { device }),
        8 => (any::<usize>(), 0..4_u8).prop_map(|(which, outcome)| Step::Report { which, outcome }),
        1 => (any::<usize>(), 0..4_u8)
            .prop_map(|(which, outcome)| Step::ReportAndCrash { which, outcome }),
        2 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        1 => devices.prop_map(|device| Step::CancelAll { device }),
        1 => prop_oneof![Just(1_u64), Just(13), Just(25), Just(170)]
            .prop_map(|hours| Step::Tick { hours }),
        1 => any::<bool>().prop_map(|is_crash| Step::Reopen { is_crash }),
    ]
}

#[derive(Debug, Clone)]
struct Modelled {
    id: RequestId,
    device: u64,
    is_urgent: bool,
    rides: bool,
    attempts: u8,
    used: u8,
    age_ms: u64,
    status: Status,
    is_armed: bool,
}

#[derive(Default)]
struct Model {
    requests: Vec<Modelled>,
    /// What was handed over since the file was opened, and not reported: with its serial number.
    in_flight: Vec<(RequestId, u64)>,
    /// What must be handed over by the step, as request and attempt.
    expected: Vec<(RequestId, u8)>,
}

impl Model {
    fn of(&mut self, device: u64) -> impl Iterator<Item = &mut Modelled> {
        self.requests.iter_mut().filter(move |known| known.device == device)
    }

    /// The rule of one in flight, in order of creation.
    fn next(&mut self, device: u64) {
        if self.of(device).any(|known| known.status == Status::InProgress) {
            return;
        }
        let due = self.of(device).find(|known| known.status == Status::Scheduled && known.is_armed);
        if let Some(due) = due {
            let started = due.start();
            self.expected.push(started);
        }
    }

    fn trigger(&mut self, device: u64) {
        self.of(device)
            .filter(|known| known.status == Status::Scheduled)
            .for_each(|known| known.is_armed = true);
        self.next(device);
    }

    fn piggyback(&mut self, device: u64) -> Option<(RequestId, u8)> {
        if self.of(device).any(|known| known.status == Status::InProgress) {
            return None;
        }
        let oldest = self.of(device).find(|known| known.status == Status::Scheduled)?;
        oldest.rides.then(|| oldest.start())
    }

    fn report(&mut self, id: RequestId, outcome: u8) {
        let known = self.requests.iter_mut().find(|known| known.id == id).unwrap();
        let device = known.device;
        known.status = match outcome {
            0 => Status::Succeeded,
            1 => Status::Failed,
            2 if known.used < known.attempts => {
                known.is_armed = known.is_urgent;
                Status::Scheduled
            }
            2 => Status::Failed,
            _ => {
                known.used -= 1;
                if known.is_urgent { Status::Failed } else { Status::Scheduled }
            }
        };
        self.next(device);
    }

    fn age(&mut self, hours: u64) {
        for known in &mut self.requests {
            known.age_ms += hours * 3_600_000;
            known.expire();
        }
        self.requests.retain(|known| known.age_ms < 7 * 24 * 3_600_000);
        let requests = &self.requests;
        self.in_flight.retain(|(id, _)| requests.iter().any(|known| known.id == *id));
        (0..DEVICES).for_each(|device| self.next(device));
    }

    /// Nobody knows any more what was in flight: it waits again.
    fn reopen(&mut self) {
        self.in_flight.clear();
        for known in &mut self.requests {
            if known.status == Status::InProgress {
                known.status = Status::Scheduled;
                known.used -= 1;
            }
            known.is_armed = known.is_urgent;
            known.expire();
        }
        (0..DEVICES).for_each(|device| self.next(device));
    }
}

impl Modelled {
    fn expire(&mut self) {
        if self.status == Status::Scheduled && self.age_ms >= 24 * 3_600_000 {
            self.status = Status::Failed;
        }
    }

    fn start(&mut self) -> (RequestId, u8) {
        self.status = Status::InProgress;
        self.is_armed = false;
        self.used += 1;
        assert!(self.used <= self.attempts);
        (self.id, self.used)
    }
}

struct Pair {
    world: World,
    model: Model,
    seen: usize,
}

impl Pair {
    fn outcome(number: u8) -> Outcome {
        match number {
            0 => success(),
            1 => Outcome::Failed { code: Some(404), message: "4.04".into(), payload: vec![] },
            2 => unreachable(),
            _ => not_sent(),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Submit { device, protocol, mode, attempts } => {
                self.submit(device, protocol, mode, attempts);
            }
            Step::Trigger { device: number } => {
                self.world.controller.trigger(device(number), self.world.now);
                self.model.trigger(number);
            }
            Step::Piggyback { device: number } => {
                let taken = self.world.controller.take_piggyback(device(number), self.world.now);
                let expected = self.model.piggyback(number);
                assert_eq!(taken.as_ref().map(|taken| (taken.request, taken.attempt)), expected);
                self.model.in_flight.extend(taken.map(|taken| (taken.request, taken.serial)));
            }
            Step::Report { which, outcome } => drop(self.report(which, outcome)),
            Step::ReportAndCrash { which, outcome } => self.report_and_crash(which, outcome),
            Step::Cancel { which } => self.cancel(which),
            Step::CancelAll { device: number } => {
                let cancelled =
                    self.world.controller.cancel_all(device(number), self.world.now).unwrap();
                let waiting = self.model.of(number);
                let waiting = waiting.filter(|known| known.status == Status::Scheduled);
                let mut expected = Vec::new();
                for known in waiting {
                    known.status = Status::Cancelled;
                    expected.push(known.id);
                }
                assert_eq!(cancelled, expected);
            }
            Step::Tick { hours } => {
                self.world.wait(Duration::from_secs(hours * 3_600));
                while self.world.controller.tick(self.world.now).unwrap() {}
                self.model.age(hours);
            }
            Step::Reopen { is_crash } => {
                self.model.reopen();
                self.reopen(is_crash);
            }
        }
    }

    fn submit(&mut self, number: u64, protocol: u8, is_urgent: bool, attempts: u8) {
        let action = [udp("x"), coap("/a"), lwm2m("read", None)][usize::from(protocol)].clone();
        let mode = if is_urgent { Mode::SendNow } else { Mode::SendWhenActive };
        let mut new = request(number, action, mode);
        new.send_attempts = attempts;
        let waits = |known: &&mut Modelled| {
            known.status == Status::Scheduled && known.is_urgent == is_urgent
        };
        let is_full = self.model.of(number).filter(waits).count() >= 10;
        let answer = self.world.submit(new);
        self.model.requests.iter_mut().for_each(|known| known.age_ms += 1);
        match answer {
            Ok(id) => {
                assert!(!is_full);
                self.model.requests.push(Modelled {
                    id,
                    device: number,
                    is_urgent,
                    rides: protocol < 2,
                    attempts,
                    used: 0,
                    age_ms: 0,
                    status: Status::Scheduled,
                    is_armed: is_urgent,
                });
                self.model.next(number);
            }
            Err(refused) => assert!(is_full && refused == Refused::TooManyScheduled),
        }
    }

    fn report(&mut self, which: usize, outcome: u8) -> Option<RequestId> {
        let count = self.model.in_flight.len();
        if count == 0 {
            return None;
        }
        let (id, serial) = self.model.in_flight.remove(which % count);
        assert!(self.world.controller.report(serial, self.world.now, Self::outcome(outcome)));
        self.model.report(id, outcome);
        Some(id)
    }

    /// A result that may or may not have come to the disk: either is right, and decides.
    fn report_and_crash(&mut self, which: usize, outcome: u8) {
        let reported = self.report(which, outcome);
        self.world.reopen(true);
        self.seen = 0;
        self.model.expected.clear();
        if let Some(id) = reported {
            let found = self.world.find(id);
            let known = self.model.requests.iter_mut().find(|known| known.id == id).unwrap();
            let is_again = found.status == Status::Scheduled;
            assert!(is_again || found.status == known.status, "{found:?}");
            known.used = known.attempts - found.send_attempts_left;
            known.status = found.status;
        }
        self.model.reopen();
        self.world.controller.resume(self.world.now).unwrap();
    }

    fn reopen(&mut self, is_crash: bool) {
        self.world.reopen(is_crash);
        self.seen = 0;
        self.world.controller.resume(self.world.now).unwrap();
    }

    fn cancel(&mut self, which: usize) {
        if self.model.requests.is_empty() {
            return;
        }
        let at = which % self.model.requests.len();
        let known = &mut self.model.requests[at];
        match self.world.controller.cancel(known.id, self.world.now) {
            Ok(()) => {
                assert_eq!(known.status, Status::Scheduled);
                known.status = Status::Cancelled;
            }
            Err(CancelError::NotScheduled { status, .. }) => {
                assert_eq!(known.status, status);
                assert_ne!(status, Status::Scheduled);
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn check(&mut self) {
        self.world.controller.flush().unwrap();
        let handed = self.world.handed();
        let mut new: Vec<_> =
            handed[self.seen..].iter().map(|sent| (sent.request, sent.attempt)).collect();
        let flying = handed[self.seen..].iter().map(|sent| (sent.request, sent.serial));
        self.model.in_flight.extend(flying);
        self.seen = handed.len();
        let mut expected = std::mem::take(&mut self.model.expected);
        // Devices do not wait for each other.
        new.sort_unstable();
        expected.sort_unstable();
        assert_eq!(new, expected);
        for known in &self.model.requests {
            let found = self.world.find(known.id);
            assert_eq!(found.status, known.status, "{known:?}");
            assert_eq!(found.send_attempts_left, known.attempts - known.used, "{known:?}");
        }
        let active = self.model.requests.iter().filter(|known| known.status.is_active()).count();
        assert_eq!(self.world.controller.active(), active);
        let query = Query {
            shelf: Shelf::All,
            device: None,
            protocol: None,
            status: None,
            sort: SortField::Created,
            descending: false,
            skip: 0,
            take: 2_500,
        };
        let listed = self.world.controller.list(&query).unwrap();
        let ids: Vec<_> = listed.requests.iter().map(|request| request.id).collect();
        let expected: Vec<_> = self.model.requests.iter().map(|known| known.id).collect();
        assert_eq!(ids, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_controller_does_what_the_model_does(steps in prop::collection::vec(step(), 1..50)) {
        let mut pair = Pair { world: World::new(), model: Model::default(), seen: 0 };
        for step in &steps {
            pair.run(step);
            pair.check();
        }
    }
}
