//! The registry against a simple map: random registrations, updates, moves, observations,
//! operations, expiries and restarts.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::contact::{Link, Security};
use crate::operation::Operation;
use crate::path::Path;
use crate::registration::{Binding, Links, Observation, Version};

#[derive(Debug, Clone)]
enum Step {
    Register { device: u64, lasts_seconds: u64 },
    Update { device: u64, lasts_seconds: u64 },
    Hear { device: u64, port: u16, security: bool },
    Observe { device: u64, token: u64 },
    Unobserve { device: u64, token: u64 },
    Enqueue { device: u64 },
    Take { device: u64 },
    Remove { device: u64 },
    Pass { seconds: u64 },
    Restart,
}

/// What the simple map knows of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Known {
    serial: u8,
    expires_at: Timestamp,
    port: u16,
    tokens: Vec<u64>,
    commands: Vec<u64>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0..4_u64;
    let step =
        prop_oneof![
            (device.clone(), 1..500_u64)
                .prop_map(|(device, lasts_seconds)| Step::Register { device, lasts_seconds }),
            (device.clone(), 1..500_u64)
                .prop_map(|(device, lasts_seconds)| Step::Update { device, lasts_seconds }),
            (device.clone(), 0..4_u16, any::<bool>())
                .prop_map(|(device, port, security)| Step::Hear { device, port, security }),
            (device.clone(), 0..4_u64).prop_map(|(device, token)| Step::Observe { device, token }),
            (device.clone(), 0..4_u64)
                .prop_map(|(device, token)| Step::Unobserve { device, token }),
            device.clone().prop_map(|device| Step::Enqueue { device }),
            device.clone().prop_map(|device| Step::Take { device }),
            device.prop_map(|device| Step::Remove { device }),
            (1..300_u64).prop_map(|seconds| Step::Pass { seconds }),
            Just(Step::Restart),
        ];
    proptest::collection::vec(step, 0..80)
}

fn iccid(device: u64) -> Iccid {
    Iccid::from_u64(device).unwrap()
}

fn contact(port: u16) -> Contact {
    Contact { seat: 0, link: Link::Address(([192, 0, 2, 1], port).into()) }
}

fn registration(serial: u8, expires_at: Timestamp) -> Registration {
    Registration {
        id: RegistrationId([serial; 16]),
        version: Version::V1_1,
        binding: Binding::default(),
        lifetime_seconds: 60,
        sms: None,
        security: Security::NoSec,
        links: Links::default(),
        registered_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        expires_at,
        contact: Some(contact(0)),
        observations: Vec::new(),
    }
}

struct World {
    registry: Registry,
    known: BTreeMap<u64, Known>,
    moment: Moment,
    serial: u8,
    command: u64,
    ended: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let limits = RegistryLimits { registrations_max: 3, ..RegistryLimits::default() };
        let moment = Moment { now: Instant::now(), at: Timestamp::EPOCH };
        Self {
            registry: Registry::new(limits),
            known: BTreeMap::new(),
            moment,
            serial: 0,
            command: 0,
            ended: Vec::new(),
        }
    }

    fn lasts(&self, device: u64) -> bool {
        self.known.get(&device).is_some_and(|known| known.expires_at > self.moment.at)
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Register { device, lasts_seconds } => self.register(device, lasts_seconds),
            Step::Update { device, lasts_seconds } => {
                let expires_at = self.moment.at.saturating_add(Duration::from_secs(lasts_seconds));
                let me = Device { iccid: iccid(device), security: Security::NoSec };
                let updated = self.registry.with_own(me, self.moment.at, |entry| {
                    entry.registration.expires_at = expires_at;
                });
                assert_eq!(updated.is_some(), self.lasts(device));
                if updated.is_some() {
                    self.known.get_mut(&device).unwrap().expires_at = expires_at;
                }
            }
            Step::Hear { device, port, security } => {
                let security = if security { Security::NoSec } else { Security::ServerKey };
                let me = Device { iccid: iccid(device), security };
                let heard = self.registry.hear(me, contact(port), self.moment);
                let own = security == Security::NoSec && self.lasts(device);
                assert_eq!(heard.is_some(), own);
                if let Some(heard) = heard {
                    let known = self.known.get_mut(&device).unwrap();
                    assert_eq!(heard.moved.is_some(), known.port != port);
                    assert_eq!(heard.has_work, !known.commands.is_empty());
                    known.port = port;
                }
            }
            Step::Observe { device, token } => {
                let paths = [Path::object(3)].into();
                let observation = Observation { token, paths, composite: false, format: None };
                self.registry.with(iccid(device), |entry| {
                    entry.unwatch(token);
                    let newest = None;
                    entry.watched.push(Watched { observation, newest, confirmed: true });
                });
                if let Some(known) = self.known.get_mut(&device) {
                    known.tokens.retain(|other| *other != token);
                    known.tokens.push(token);
                }
            }
            Step::Unobserve { device, token } => {
                let was = self.registry.with(iccid(device), |entry| entry.unwatch(token));
                let known = self.known.get_mut(&device);
                let before = known.as_ref().map_or(0, |known| known.tokens.len());
                let after = known.map_or(0, |known| {
                    known.tokens.retain(|other| *other != token);
                    known.tokens.len()
                });
                assert_eq!(was.unwrap_or(false), before != after);
            }
            _ => self.act_otherwise(step),
        }
    }

    fn act_otherwise(&mut self, step: &Step) {
        match *step {
            Step::Enqueue { device } => {
                self.command += 1;
                let operation = Operation::Delete { path: Path::instance(1, 1) };
                let command = self.command;
                let queued = Queued { command, operation, queued_at: self.moment.at };
                let limits = self.registry.limits().clone();
                self.registry.with(iccid(device), |entry| entry.enqueue(queued, &limits).unwrap());
                if let Some(known) = self.known.get_mut(&device) {
                    known.commands.push(command);
                }
            }
            Step::Take { device } => {
                let flight = Flight { seat: 0, serial: 1 };
                let spans = (Duration::ZERO, Duration::MAX);
                let turn = self.registry.with(iccid(device), |entry| {
                    entry.flight = None;
                    entry.take_turn(flight, self.moment, spans)
                });
                let taken = match turn {
                    Some(Turn::Command(queued, _)) => Some(queued.command),
                    Some(Turn::Nobody) | None => None,
                    other => panic!("{other:?}"),
                };
                let known = self.known.get_mut(&device);
                let expected = known
                    .filter(|known| !known.commands.is_empty())
                    .map(|known| known.commands.remove(0));
                assert_eq!(taken, expected);
            }
            Step::Remove { device } => {
                let serial = self.known.get(&device).map_or(0, |known| known.serial);
                assert!(self.registry.remove(iccid(device), RegistrationId([255; 16])).is_none());
                let removed = self.registry.remove(iccid(device), RegistrationId([serial; 16]));
                assert_eq!(removed.is_some(), self.known.remove(&device).is_some());
            }
            Step::Pass { seconds } => self.pass(seconds),
            _ => self.restart(),
        }
    }

    fn register(&mut self, device: u64, lasts_seconds: u64) {
        self.serial = self.serial.wrapping_add(1) % 250;
        let expires_at = self.moment.at.saturating_add(Duration::from_secs(lasts_seconds));
        let registration = registration(self.serial, expires_at);
        let claim = self.registry.claim(iccid(device));
        let installed = self.registry.install(iccid(device), (registration, claim), self.moment);
        let fits = self.known.len() < 3 || self.known.contains_key(&device);
        assert_eq!(installed.is_ok(), fits);
        if fits {
            let before = self.known.remove(&device).unwrap_or_default();
            let commands = before.commands;
            let (serial, port, tokens) = (self.serial, 0, Vec::new());
            let known = Known { serial, expires_at, port, tokens, commands };
            self.known.insert(device, known);
        }
    }

    fn pass(&mut self, seconds: u64) {
        let span = Duration::from_secs(seconds);
        self.moment.now += span;
        self.moment.at = self.moment.at.saturating_add(span);
        let mut expired = self.registry.expired(self.moment.at, 100);
        expired.sort();
        let mut expected = Vec::new();
        let (at, ended) = (self.moment.at, &mut self.ended);
        self.known.retain(|device, known| {
            if known.expires_at <= at {
                expected.push(iccid(*device));
                ended.extend(&known.commands);
            }
            known.expires_at > at
        });
        assert_eq!(expired, expected);
        let ended: Vec<u64> =
            self.registry.take_ended().into_iter().map(|(_, command, _)| command).collect();
        self.ended.sort_unstable();
        let mut sorted = ended;
        sorted.sort_unstable();
        assert_eq!(sorted, std::mem::take(&mut self.ended));
    }

    /// All is written and read into a fresh registry; operations are lost with the process.
    fn restart(&mut self) {
        let fresh = Registry::new(self.registry.limits().clone());
        for (device, known) in &mut self.known {
            let state = self.registry.with(iccid(*device), Entry::save).unwrap();
            assert_eq!(Registry::saved_link(&state), Ok(Some(contact(known.port).link)));
            let place = Some(contact(known.port));
            fresh.restore(iccid(*device), &state, place).unwrap();
            known.commands.clear();
        }
        self.registry = fresh;
    }

    fn compare(&self) {
        assert_eq!(self.registry.len(), self.known.len());
        let observations: usize = self.known.values().map(|known| known.tokens.len()).sum();
        assert_eq!(self.registry.observations(), observations);
        let queues: usize =
            self.registry.shared.shards.iter().map(|shard| lock(shard).queues.len()).sum();
        let waiting = self.known.values().filter(|known| !known.commands.is_empty());
        assert_eq!(queues, waiting.count());
        for device in 0..4 {
            let Some(known) = self.known.get(&device) else {
                assert!(!self.registry.is_registered(iccid(device)));
                continue;
            };
            let snapshot = self.registry.snapshot(iccid(device)).unwrap();
            let tokens: Vec<u64> = snapshot.observations.iter().map(|o| o.token).collect();
            assert_eq!(tokens, known.tokens);
            assert_eq!(snapshot.id, RegistrationId([known.serial; 16]));
            assert_eq!(snapshot.expires_at, known.expires_at);
            assert_eq!(self.registry.contact(iccid(device)), Some(contact(known.port)));
        }
    }
}

proptest! {
    #[test]
    fn the_registry_is_a_map(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.act(step);
            world.compare();
        }
    }
}
