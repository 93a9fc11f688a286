//! What a registration, an update and a notification cost one server, without input and output.

use std::sync::Arc;
use std::time::Instant;

use coap::wire::{Code, Encoder, MessageId, MessageType, OptionNumber, Token};
use divan::Bencher;
use divan::counter::ItemsCount;
use lwm2m::{
    Account, Contact, ContentFormat, Device, Event, Link, Model, Moment, Operation, Output, Path,
    Registry, RegistryLimits, Security, Server, ServerConfig, Verdict,
};
use vocabulary::{Iccid, Timestamp};

fn main() {
    divan::main();
}

const DEVICES: u64 = 10_000;
const LINKS: &[u8] = b"</>;rt=\"oma.lwm2m\";ct=\"110 112 11542\",</1/0>,</3/0>,</4/0>,</5/0>,\
    </3303/0>,</3303/1>,</3304/0>,</3311/0>,</3342/0>,</3347/0>";

struct World {
    server: Server,
    moment: Moment,
    devices: Vec<(Contact, Device)>,
    tokens: Vec<Token>,
    id: u16,
}

impl World {
    fn new() -> Self {
        let account = || Account {
            server_uri: "coap://192.0.2.1:5683".to_owned(),
            bootstrap_uri: "coap://lwm2m.example:5683".to_owned(),
        };
        let registry = Registry::new(RegistryLimits::default());
        let config = ServerConfig::new(account(), account());
        let server = Server::new(config, registry, Arc::new(Model::builtin()), 0, 1);
        let at = Timestamp::from_millis(1_700_000_000_000);
        let devices = (0..DEVICES).filter_map(|number| {
            let [.., a, b] = number.to_be_bytes();
            let link = Link::Address(([10, 1, a, b], 5_683).into());
            let iccid = Iccid::from_u64(8_988_280_666_000_000_000 + number)?;
            Some((Contact { seat: 0, link }, Device { iccid, security: Security::NoSec }))
        });
        Self {
            server,
            moment: Moment { now: Instant::now(), at },
            devices: devices.collect(),
            tokens: Vec::new(),
            id: 0,
        }
    }

    /// Settles everything; gives what was sent last.
    fn settle(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            match self.server.poll_output() {
                Output::Transmit { bytes, .. } => sent = bytes.to_vec(),
                Output::Event(
                    Event::Save { ticket, .. } | Event::Uplink { ticket: Some(ticket), .. },
                ) => self.server.settle(self.moment, ticket, Verdict::Done),
                Output::Event(_) => {}
                Output::Timeout(_) => return sent,
            }
        }
    }

    fn receive(&mut self, place: usize, bytes: &[u8]) -> Vec<u8> {
        let (contact, device) = self.devices[place];
        self.server.handle_datagram(self.moment, contact, device, bytes);
        self.settle()
    }

    fn register(&mut self, place: usize) -> Vec<u8> {
        let bytes = self.request(
            &["rd"],
            &["lwm2m=1.1", "lt=86400", "b=U"],
            (ContentFormat::LINK_FORMAT, LINKS),
        );
        self.receive(place, &bytes)
    }

    fn request(
        &mut self,
        path: &[&str],
        query: &[&str],
        (format, payload): (ContentFormat, &[u8]),
    ) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let mut bytes = Vec::with_capacity(256);
        let token = Token::from_u64(self.id.into());
        let con = MessageType::Confirmable;
        let written = Encoder::new(&mut bytes, con, Code::POST, MessageId(self.id), token)
            .texts(OptionNumber::URI_PATH, path.iter().copied())
            .uint(OptionNumber::CONTENT_FORMAT, format.0.into())
            .texts(OptionNumber::URI_QUERY, query.iter().copied())
            .payload(payload);
        assert!(written.is_ok());
        bytes
    }

    fn observe(&mut self, place: usize) {
        let (path, iccid) = (Path::resource(3303, 0, 5700), self.devices[place].1.iccid);
        let operation = Operation::Observe { path, accept: None };
        self.server.command(self.moment, iccid, 1, operation);
        let asked = self.settle();
        let head = [&[0x68, 0x45, asked[2], asked[3]], &asked[4..12], b"\x61\x01\xff1"].concat();
        self.tokens.extend(Token::new(&asked[4..12]));
        self.receive(place, &head);
    }

    fn notify(&mut self, place: usize, sequence: u32) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let mut bytes = Vec::with_capacity(64);
        let con = MessageType::Confirmable;
        let (id, token) = (MessageId(self.id), self.tokens[place]);
        let written = Encoder::new(&mut bytes, con, Code::CONTENT, id, token)
            .uint(OptionNumber::OBSERVE, sequence)
            .uint(OptionNumber::CONTENT_FORMAT, 11_542)
            .payload(b"\xe8\x16\x44\x08\x40\x35\x80\x00\x00\x00\x00\x00");
        assert!(written.is_ok());
        self.receive(place, &bytes)
    }
}

#[divan::bench(sample_count = 20_000)]
fn registration(bencher: Bencher<'_, '_>) {
    let mut world = World::new();
    let mut place = 0;
    bencher.counter(ItemsCount::new(1_u64)).bench_local(|| {
        place = (place + 1) % world.devices.len();
        world.register(place)
    });
    assert!(world.server.counters().registrations > 0);
}

#[divan::bench(sample_count = 20_000)]
fn update(bencher: Bencher<'_, '_>) {
    let mut world = World::new();
    let locations: Vec<String> = (0..world.devices.len())
        .map(|place| {
            let created = world.register(place);
            String::from_utf8_lossy(&created[created.len() - 22..]).into_owned()
        })
        .collect();
    let mut place = 0;
    bencher.counter(ItemsCount::new(1_u64)).bench_local(|| {
        place = (place + 1) % locations.len();
        let location = locations[place].as_str();
        let bytes = world.request(&["rd", location], &[], (ContentFormat::LINK_FORMAT, &[]));
        world.receive(place, &bytes)
    });
    assert!(world.server.counters().updates > 0);
}

#[divan::bench(sample_count = 20_000)]
fn notification(bencher: Bencher<'_, '_>) {
    let mut world = World::new();
    for place in 0..world.devices.len() {
        world.register(place);
        world.observe(place);
    }
    let (mut place, mut sequence) = (0, 2);
    bencher.counter(ItemsCount::new(1_u64)).bench_local(|| {
        place += 1;
        if place == world.devices.len() {
            (place, sequence) = (0, sequence + 1);
        }
        world.notify(place, sequence)
    });
    assert!(world.server.counters().notifications > 0);
    assert_eq!(world.server.counters().notifications_stale, 0);
}
