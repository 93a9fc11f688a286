//! What arbitrary bytes must not break in a server: also the body of the fuzz target
//! `lwm2m_server`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::wire::MessageRef;
use lwm2m::{
    Account, Contact, Device, Event, Link, Model, Moment, Operation, Output, Path, Registry,
    RegistryLimits, Security, Server, ServerConfig, Ticket, Verdict,
};
use vocabulary::{Iccid, Timestamp};

/// A script is a row of steps: an operation with its device, a length, and that many bytes.
pub(crate) fn server_survives(mut script: &[u8]) {
    let mut world = World::new();
    while let [operation, length, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        script = rest;
        world.act(operation & 0xf, u64::from(operation >> 4 & 3), (*length, bytes));
        world.poll();
    }
    world.finish();
}

struct World {
    server: Server,
    registry: Registry,
    moment: Moment,
    tickets: Vec<Ticket>,
    /// Messages sent to devices, to be answered.
    sent: Vec<(Contact, Vec<u8>)>,
    commands: u64,
    ended: u64,
    location: Vec<u8>,
}

const TICKETS_MAX: usize = 4;

impl World {
    fn new() -> Self {
        let account = || Account {
            server_uri: "coap://192.0.2.1".to_owned(),
            bootstrap_uri: "coap://192.0.2.2".to_owned(),
        };
        let config = ServerConfig {
            tickets_max: TICKETS_MAX,
            bootstraps_max: 2,
            bootstrap_discover: true,
            ..ServerConfig::new(account(), account())
        };
        let limits = RegistryLimits {
            registrations_max: 2,
            observations_per_device_max: 2,
            queue_per_device_max: 2,
            ..RegistryLimits::default()
        };
        let registry = Registry::new(limits);
        let mut server = Server::new(config, registry.clone(), Arc::new(Model::builtin()), 0, 1);
        server.set_passive_reporting(true);
        let at = Timestamp::from_millis(1_700_000_000_000);
        Self {
            server,
            registry,
            moment: Moment { now: Instant::now(), at },
            tickets: Vec::new(),
            sent: Vec::new(),
            commands: 0,
            ended: 0,
            location: Vec::new(),
        }
    }

    fn act(&mut self, operation: u8, number: u64, (length, bytes): (u8, &[u8])) {
        let device = Device {
            iccid: Iccid::from_u64(number / 2 + 1).unwrap_or_else(|| unreachable!()),
            security: if number == 3 { Security::BootstrapKey } else { Security::NoSec },
        };
        let [low, ..] = number.to_le_bytes();
        let from = Contact { seat: 0, link: Link::Address(([192, 0, 2, low], 1).into()) };
        let moment = self.moment;
        match operation {
            0..5 => self.server.handle_datagram(moment, from, device, bytes),
            5 => self.server.handle_datagram(moment, from, device, &register(bytes)),
            6 => {
                // An answer to what was asked of the device last: code, options and payload.
                let asked = self.sent.iter().rev().find(|(to, _)| *to == from);
                if let (Some((_, asked)), [code, rest @ ..]) = (asked, bytes) {
                    let head = [0x60 | asked[0] & 0xf, *code, asked[2], asked[3]];
                    let token = &asked[4..4 + usize::from(asked[0] & 0xf)];
                    let answer = [&head[..], token, rest].concat();
                    self.server.handle_datagram(moment, from, device, &answer);
                }
            }
            7 => {
                // A notification with the token of something asked before.
                let asked = self.sent.get(usize::from(length) % self.sent.len().max(1));
                if let Some((_, asked)) = asked {
                    let token = &asked[4..4 + usize::from(asked[0] & 0xf)];
                    let head = [0x40 | asked[0] & 0xf, 0x45, 7, length];
                    let notification = [&head[..], token, bytes].concat();
                    self.server.handle_datagram(moment, from, device, &notification);
                }
            }
            8 => {
                let span = Duration::from_secs(u64::from(length));
                self.moment = Moment { now: moment.now + span, at: moment.at.saturating_add(span) };
                self.server.handle_timeout(self.moment);
            }
            9..12 => {
                if let Some(ticket) = self.tickets.pop() {
                    self.server.settle(moment, ticket, verdict(length));
                }
            }
            12 => drop(self.registry.expired(moment.at, 1)),
            _ => {
                self.commands += 1;
                let operation = command(bytes, length);
                self.server.command(moment, device.iccid, self.commands, operation);
            }
        }
    }

    fn poll(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Transmit { to, bytes } => {
                    let message = MessageRef::parse(&bytes).unwrap_or_else(|_| unreachable!());
                    if message.code.is_request() {
                        self.sent.push((to, bytes.to_vec()));
                    }
                    self.location = message.payload.to_vec();
                }
                Output::Event(event) => self.note(event),
                Output::Timeout(_) => break,
            }
        }
        assert!(self.registry.len() <= 2 && self.server.tickets() <= TICKETS_MAX);
        assert!(self.registry.observations() <= 4 && self.server.bootstraps() <= 2);
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Save { ticket, state, iccid } => {
                self.tickets.push(ticket);
                self.check(iccid, state);
            }
            Event::SaveSoon { state, iccid } => self.check(iccid, state),
            Event::NeedKey { ticket, .. } => self.tickets.push(ticket),
            Event::Uplink { ticket, payload, .. } => {
                self.tickets.extend(ticket);
                let is_object = payload.starts_with(b"{") && payload.ends_with(b"}");
                assert!(is_object && std::str::from_utf8(&payload).is_ok());
            }
            Event::CommandEnded { .. } => self.ended += 1,
            _ => {}
        }
    }

    /// What is given to be saved can be read again.
    fn check(&self, iccid: Iccid, state: Option<Vec<u8>>) {
        if let Some(state) = state {
            let fresh = Registry::new(RegistryLimits::default());
            assert_eq!(fresh.restore(iccid, &state, None), Ok(()));
        }
    }

    /// Every operation ends.
    fn finish(&mut self) {
        while let Some(ticket) = self.tickets.pop() {
            self.server.settle(self.moment, ticket, Verdict::Done);
            self.poll();
        }
        for _ in 0..200 {
            self.moment.now += Duration::from_secs(250);
            self.moment.at = self.moment.at.saturating_add(Duration::from_hours(24 * 365));
            self.registry.expired(self.moment.at, 10);
            self.server.handle_timeout(self.moment);
            self.poll();
            while let Some(ticket) = self.tickets.pop() {
                self.server.settle(self.moment, ticket, Verdict::Done);
                self.poll();
            }
        }
        assert_eq!((self.commands, self.registry.len()), (self.ended, 0));
        assert_eq!((self.server.tickets(), self.server.bootstraps()), (0, 0));
    }
}

/// A registration that often is one.
fn register(bytes: &[u8]) -> Vec<u8> {
    let head = b"\x40\x02\x09\x09\xb2rd\x49lwm2m=1.1\x04b=UQ\xff</1/0>,</3/0>,</3303/0>";
    let mut message = head.to_vec();
    if let [id, first, rest @ ..] = bytes {
        message[3] = *id;
        if first & 1 == 1 {
            message.extend_from_slice(rest);
        }
    }
    message
}

fn verdict(length: u8) -> Verdict {
    match length % 5 {
        0 => Verdict::Unavailable { retry_after_seconds: 1, too_fast: true },
        1 => Verdict::Unauthorised("no"),
        2 => Verdict::Key {
            identity: "a".to_owned(),
            key: zeroize::Zeroizing::new(b"k".to_vec()),
            bootstrap_key: None,
        },
        _ => Verdict::Done,
    }
}

fn command(bytes: &[u8], length: u8) -> Operation {
    let path = Path::resource(3303, 0, 5700);
    match length % 6 {
        0 => Operation::Observe { path, accept: None },
        1 => Operation::CancelObservation { path },
        2 => Operation::ObserveComposite { paths: vec![path, Path::object(3)] },
        3 => Operation::WriteRaw {
            path: Path::resource(5, 0, 0),
            format: lwm2m::ContentFormat::OCTET_STREAM,
            payload: bytes.repeat(20),
        },
        4 => Operation::WriteAttributes {
            path,
            attributes: vec![String::from_utf8_lossy(bytes).into_owned()],
        },
        _ => Operation::Read { path: Path::object(3303), accept: None },
    }
}
