//! One or more servers with one registry, devices, and a clock that the script moves.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};
use lwm2m::{
    Account, Contact, Device, Event, Link, Model, Moment, Operation, Output, Path, Registry,
    RegistryLimits, Security, Server, ServerConfig, Ticket, Verdict,
};
use vocabulary::{Iccid, Timestamp};

pub(crate) struct Scene {
    pub(crate) servers: Vec<Server>,
    pub(crate) registry: Registry,
    pub(crate) moment: Moment,
    start: Moment,
    message: u16,
}

/// What came out of one step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) sent: Vec<(Contact, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    pub(crate) timer: Option<Instant>,
}

/// A device: its SIM, where it speaks from, and what protects it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sim {
    pub(crate) device: Device,
    pub(crate) contact: Contact,
}

pub(crate) const TLV: u16 = 11_542;

/// A payload and its format.
type Content<'a> = Option<(u16, &'a [u8])>;

pub(crate) fn iccid(number: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
}

/// The device with this number, behind an address of its own.
pub(crate) fn sim(number: u64) -> Sim {
    let [.., a, b] = number.to_be_bytes();
    let link = Link::Address(([10, 0, a, b], 5_683).into());
    Sim {
        device: Device { iccid: iccid(number), security: Security::NoSec },
        contact: Contact { seat: 0, link },
    }
}

impl Sim {
    pub(crate) fn at(mut self, seat: u32, address: &str) -> Self {
        self.contact = Contact { seat, link: Link::Address(address.parse().unwrap()) };
        self
    }

    pub(crate) fn secured(mut self, session: u64, security: Security) -> Self {
        self.contact.link = Link::Session(session);
        self.device.security = security;
        self
    }
}

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(crate) fn read(text: &str) -> Operation {
    Operation::Read { path: path(text), accept: None }
}

pub(crate) fn observe(text: &str) -> Operation {
    Operation::Observe { path: path(text), accept: None }
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig::new(
        Account {
            server_uri: "coap://192.0.2.1:5683".to_owned(),
            bootstrap_uri: "coap://lwm2m.example:5683".to_owned(),
        },
        Account {
            server_uri: "coaps://192.0.2.1:5684".to_owned(),
            bootstrap_uri: "coaps://lwm2m.example:5684".to_owned(),
        },
    )
}

/// A request of a device: CON, message id, method, path and query, format, payload.
pub(crate) fn request(id: u16, method: Code, uri: &str, content: Option<(u16, &[u8])>) -> Vec<u8> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut bytes = Vec::new();
    let token = Token::new(&id.to_be_bytes()).unwrap();
    let mut encoder =
        Encoder::new(&mut bytes, MessageType::Confirmable, method, MessageId(id), token)
            .texts(OptionNumber::URI_PATH, path.split('/').filter(|part| !part.is_empty()));
    if let Some((format, _)) = content {
        encoder = encoder.uint(OptionNumber::CONTENT_FORMAT, format.into());
    }
    encoder
        .texts(OptionNumber::URI_QUERY, query.split('&').filter(|part| !part.is_empty()))
        .payload(content.map_or(&[], |(_, payload)| payload))
        .unwrap();
    bytes
}

/// An answer to one of our requests, on its acknowledgement.
pub(crate) fn answer(
    asked: &[u8],
    code: Code,
    observe: Option<u32>,
    content: Option<(u16, &[u8])>,
) -> Vec<u8> {
    let asked = MessageRef::parse(asked).unwrap();
    respond(MessageType::Acknowledgement, asked.id.0, asked.token, (code, observe, content))
}

pub(crate) fn respond(
    message_type: MessageType,
    id: u16,
    token: Token,
    (code, observe, content): (Code, Option<u32>, Content<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, message_type, code, MessageId(id), token);
    if let Some(observe) = observe {
        encoder = encoder.uint(OptionNumber::OBSERVE, observe);
    }
    if let Some((format, _)) = content {
        encoder = encoder.uint(OptionNumber::CONTENT_FORMAT, format.into());
    }
    encoder.payload(content.map_or(&[], |(_, payload)| payload)).unwrap();
    bytes
}

/// A confirmable notification.
pub(crate) fn notify(id: u16, token: &[u8], sequence: u32, payload: &[u8]) -> Vec<u8> {
    let token = Token::new(token).unwrap();
    let content = Some((0, payload));
    respond(MessageType::Confirmable, id, token, (Code::CONTENT, Some(sequence), content))
}

/// A message in words, without message id and token: `CON 0.01 /3/0 accept=11542 [text]`.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let message = MessageRef::parse(bytes).unwrap();
    let kind = match message.message_type {
        MessageType::Confirmable => "CON",
        MessageType::NonConfirmable => "NON",
        MessageType::Acknowledgement => "ACK",
        MessageType::Reset => "RST",
    };
    let mut text = format!("{kind} {}", message.code);
    let options = |number: OptionNumber| {
        message.options().filter(move |option| option.number == number).map(|o| o.value.to_vec())
    };
    let texts =
        |number| options(number).map(|value| String::from_utf8(value).unwrap()).collect::<Vec<_>>();
    if message.code.is_request() {
        write!(text, " /{}", texts(OptionNumber::URI_PATH).join("/")).unwrap();
    }
    if let [_, ..] = &texts(OptionNumber::URI_QUERY)[..] {
        write!(text, "?{}", texts(OptionNumber::URI_QUERY).join("&")).unwrap();
    }
    for (number, name) in [
        (OptionNumber::OBSERVE, "observe"),
        (OptionNumber::CONTENT_FORMAT, "format"),
        (OptionNumber::MAX_AGE, "max-age"),
        (OptionNumber::ACCEPT, "accept"),
    ] {
        for value in options(number) {
            let value = value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            write!(text, " {name}={value}").unwrap();
        }
    }
    if !message.payload.is_empty() {
        match std::str::from_utf8(message.payload) {
            Ok(payload) if payload.chars().all(|char| !char.is_control()) => {
                write!(text, " [{payload}]").unwrap();
            }
            _ => {
                let hex: String =
                    message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(text, " <{hex}>").unwrap();
            }
        }
    }
    text
}

pub(crate) fn token_of(bytes: &[u8]) -> Vec<u8> {
    MessageRef::parse(bytes).unwrap().token.as_bytes().to_vec()
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(config(), RegistryLimits::default())
    }

    pub(crate) fn with(config: ServerConfig, limits: RegistryLimits) -> Self {
        let registry = Registry::new(limits);
        let servers = (0..2)
            .map(|seat| {
                let model = Arc::new(Model::builtin());
                let seed = 7 + u64::from(seat);
                Server::new(config.clone(), registry.clone(), model, seat, seed)
            })
            .collect();
        let start = Moment { now: Instant::now(), at: Timestamp::from_millis(1_700_000_000_000) };
        Self { servers, registry, moment: start, start, message: 100 }
    }

    /// Moves the clocks to so many seconds after the start.
    pub(crate) fn at(&mut self, seconds: u64) {
        let span = Duration::from_secs(seconds);
        self.moment = Moment { now: self.start.now + span, at: self.start.at.saturating_add(span) };
    }

    pub(crate) fn receive(&mut self, sim: Sim, bytes: &[u8]) -> Step {
        let seat = sim.contact.seat;
        let server = &mut self.servers[seat as usize];
        server.handle_datagram(self.moment, sim.contact, sim.device, bytes);
        self.step(seat)
    }

    /// A request with the next message id.
    pub(crate) fn ask(
        &mut self,
        sim: Sim,
        method: Code,
        uri: &str,
        content: Option<(u16, &[u8])>,
    ) -> Step {
        self.message += 1;
        let bytes = request(self.message, method, uri, content);
        self.receive(sim, &bytes)
    }

    pub(crate) fn settle(&mut self, seat: u32, ticket: Ticket, verdict: Verdict) -> Step {
        self.servers[seat as usize].settle(self.moment, ticket, verdict);
        self.step(seat)
    }

    pub(crate) fn command(&mut self, sim: Sim, command: u64, operation: Operation) -> Step {
        let seat = sim.contact.seat;
        let server = &mut self.servers[seat as usize];
        server.command(self.moment, sim.device.iccid, command, operation);
        self.step(seat)
    }

    pub(crate) fn timeout(&mut self, seat: u32) -> Step {
        self.servers[seat as usize].handle_timeout(self.moment);
        self.step(seat)
    }

    /// Lets so many seconds pass, second by second; gives all that came out.
    pub(crate) fn pass(&mut self, seat: u32, seconds: std::ops::Range<u64>) -> Step {
        let mut all = Step::default();
        for second in seconds {
            self.at(second);
            let step = self.timeout(seat);
            all.sent.extend(step.sent);
            all.events.extend(step.events);
        }
        all
    }

    pub(crate) fn step(&mut self, seat: u32) -> Step {
        let mut step = Step::default();
        loop {
            match self.servers[seat as usize].poll_output() {
                Output::Transmit { to, bytes } => step.sent.push((to, bytes.to_vec())),
                Output::Event(event) => step.events.push(event),
                Output::Timeout(timer) => {
                    step.timer = timer;
                    return step;
                }
            }
        }
    }

    /// Registers a device and settles it; gives the location.
    #[track_caller]
    pub(crate) fn register(&mut self, sim: Sim, query: &str, links: &str) -> String {
        let uri = format!("/rd?ep={}&{query}", sim.device.iccid);
        let step = self.ask(sim, Code::POST, &uri, Some((40, links.as_bytes())));
        let ticket = step.ticket();
        let step = self.settle(sim.contact.seat, ticket, Verdict::Done);
        let message = MessageRef::parse(&step.sent[0].1).unwrap();
        assert_eq!(message.code, Code::CREATED);
        let path = message.options().filter(|o| o.number == OptionNumber::LOCATION_PATH);
        path.map(|option| format!("/{}", option.as_str().unwrap())).collect()
    }

    /// Observes a path of a device that listens; gives the token.
    #[track_caller]
    pub(crate) fn observe(&mut self, sim: Sim, path: &str) -> Vec<u8> {
        let step = self.command(sim, 1, observe(path));
        let asked = step.sent[0].1.clone();
        let first = answer(&asked, Code::CONTENT, Some(1), Some((0, b"1")));
        let step = self.receive(sim, &first);
        assert!(step.events.iter().any(|event| matches!(event, Event::CommandEnded { .. })));
        token_of(&asked)
    }
}

impl Step {
    /// What was sent, in words.
    pub(crate) fn says(&self) -> Vec<String> {
        self.sent.iter().map(|(_, bytes)| describe(bytes)).collect()
    }

    #[track_caller]
    pub(crate) fn sends(&self, expected: &[&str]) {
        assert_eq!(self.says(), expected, "{:?}", self.events);
    }

    #[track_caller]
    pub(crate) fn ticket(&self) -> Ticket {
        let tickets: Vec<_> = self.tickets();
        assert_eq!(tickets.len(), 1, "{self:?}");
        tickets[0]
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Save { ticket, .. } | Event::NeedKey { ticket, .. } => Some(*ticket),
                Event::Uplink { ticket, .. } => *ticket,
                _ => None,
            })
            .collect()
    }

    /// The state to be saved, soon or at once.
    #[track_caller]
    pub(crate) fn state(&self) -> Option<Vec<u8>> {
        let mut states = self.events.iter().filter_map(|event| match event {
            Event::Save { state, .. } | Event::SaveSoon { state, .. } => Some(state.clone()),
            _ => None,
        });
        states.next_back().expect("a state to be saved")
    }

    /// The values handed on.
    pub(crate) fn uplinks(&self) -> Vec<String> {
        let payloads = self.events.iter().filter_map(|event| match event {
            Event::Uplink { payload, .. } => Some(String::from_utf8(payload.clone()).unwrap()),
            _ => None,
        });
        payloads.collect()
    }

    /// How operations ended.
    pub(crate) fn ended(&self) -> Vec<(u64, String)> {
        let ended = self.events.iter().filter_map(|event| match event {
            Event::CommandEnded { command, outcome, .. } => Some((*command, words(outcome))),
            _ => None,
        });
        ended.collect()
    }

    pub(crate) fn notices(&self) -> Vec<&'static str> {
        let notices = self.events.iter().filter_map(|event| match event {
            Event::Notice { message, .. } => Some(*message),
            _ => None,
        });
        notices.collect()
    }
}

fn words(outcome: &lwm2m::Outcome) -> String {
    match outcome {
        lwm2m::Outcome::Answered { code, payload, .. } => {
            format!("{code} {}", String::from_utf8_lossy(payload)).trim_end().to_owned()
        }
        lwm2m::Outcome::Unreachable(reason) => format!("unreachable: {reason}"),
        lwm2m::Outcome::NotRegistered => "not registered".to_owned(),
        lwm2m::Outcome::Invalid(reason) => format!("invalid: {reason}"),
    }
}
