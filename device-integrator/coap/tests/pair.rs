//! Two endpoints, one fake clock, and a seeded link that loses, duplicates and reorders: they
//! always converge, and each message is delivered exactly once.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{Config, Endpoint, Event, Limits, ObservationId, Output, Request, Response};

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % below
    }
}

const CLIENT: u8 = 0;
const SERVER: u8 = 1;

/// A client and a server on one link.
struct Pair {
    ends: [Endpoint<u8>; 2],
    now: Instant,
    dice: Dice,
    loss_percent: u64,
    in_flight: BTreeMap<(Instant, u64), (u8, Vec<u8>)>,
    serial: u64,
    /// Payloads that the server's owner saw, with how often.
    delivered: HashMap<Vec<u8>, u32>,
    responses: Vec<(Code, Vec<u8>)>,
    failures: u32,
    observation: Option<ObservationId>,
    notifications: Vec<Vec<u8>>,
}

impl Pair {
    /// With the largest block of client and server, as size exponents.
    fn new(seed: u64, loss_percent: u64, blocks: [u8; 2]) -> Self {
        let ends = blocks.map(|block_size_exponent| {
            let limits = Limits { block_size_exponent, ..Limits::default() };
            let config = Config { limits, ..Config::default() };
            Endpoint::new(config, seed + u64::from(block_size_exponent))
        });
        Self {
            ends,
            now: Instant::now(),
            dice: Dice(seed),
            loss_percent,
            in_flight: BTreeMap::new(),
            serial: 0,
            delivered: HashMap::new(),
            responses: Vec::new(),
            failures: 0,
            observation: None,
            notifications: Vec::new(),
        }
    }

    /// Polls both ends until they rest; returns when the next timer is due.
    fn poll(&mut self) -> Option<Instant> {
        let mut timers = Vec::new();
        for end in [CLIENT, SERVER, CLIENT] {
            loop {
                match self.ends[usize::from(end)].poll_output() {
                    Output::Transmit { bytes, .. } => self.send(1 - end, &bytes),
                    Output::Event(event) => self.handle_event(end, event),
                    Output::Timeout(at) => {
                        timers.push(at);
                        break;
                    }
                }
            }
        }
        timers[1..].iter().flatten().min().copied()
    }

    fn send(&mut self, to: u8, bytes: &[u8]) {
        let copies = match self.dice.roll(100) {
            roll if roll < self.loss_percent => 0,
            roll if roll < self.loss_percent + 10 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            // Up to 0.8 s of jitter reorders what is sent close together.
            let delay = Duration::from_millis(20 + self.dice.roll(800));
            self.serial += 1;
            self.in_flight.insert((self.now + delay, self.serial), (to, bytes.to_vec()));
        }
    }

    fn handle_event(&mut self, end: u8, event: Event<u8>) {
        match event {
            Event::Request(mut request) => {
                assert_eq!(end, SERVER);
                *self.delivered.entry(request.payload.clone()).or_default() += 1;
                let server = &mut self.ends[usize::from(SERVER)];
                if request.observe.is_some() {
                    let accepted = server.accept_observation(self.now, &mut request.exchange);
                    self.observation = Some(accepted.unwrap());
                }
                let response = Response::new(Code::CONTENT)
                    .with_payload(ContentFormat::OCTET_STREAM, request.payload);
                // Some answers come with the acknowledgement, some separately.
                let exchange = match self.dice.roll(3) {
                    0 => server.acknowledge(request.exchange),
                    _ => request.exchange,
                };
                server.respond(self.now, exchange, response);
            }
            Event::Response(response) => {
                assert_eq!(end, CLIENT);
                match response.sequence {
                    Some(_) => self.notifications.push(response.payload),
                    None => self.responses.push((response.code, response.payload)),
                }
                if let Some(notification) = response.notification {
                    let client = &mut self.ends[usize::from(CLIENT)];
                    let _ = client.acknowledge(notification);
                }
            }
            Event::Notification(_) => panic!("the endpoint keeps the observations"),
            Event::RequestFailed { .. } => self.failures += 1,
            Event::ObservationCancelled { .. } => self.observation = None,
        }
    }

    /// Lets time pass until nothing is under way, or until the given time has passed.
    fn drive(&mut self, at_most: Duration) {
        let end = self.now + at_most;
        for _ in 0..100_000 {
            let timer = self.poll();
            let arrival = self.in_flight.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [timer, arrival].into_iter().flatten().min() else { return };
            if next > end {
                return;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, bytes) = entry.remove();
                self.ends[usize::from(to)].handle_datagram(self.now, 1 - to, &bytes);
            }
            for end in &mut self.ends {
                end.handle_timeout(self.now);
            }
        }
        panic!("the pair does not come to rest");
    }

    fn check_books(&self) {
        for end in &self.ends {
            assert_eq!(end.counters().received, end.counters().accounted());
        }
    }
}

fn post(body: Vec<u8>) -> Request {
    let mut request = Request { payload: body, ..Request::new(Code::POST) };
    request.options.push(OptionNumber::URI_PATH, b"data").unwrap();
    request
}

#[test]
fn each_message_is_delivered_exactly_once() {
    let mut answered = 0;
    for seed in 0..200 {
        let mut pair = Pair::new(seed, 25, [6, 6]);
        for number in 0..10_u8 {
            pair.ends[0].request(pair.now, SERVER, post(vec![number; 20])).unwrap();
        }
        pair.drive(Duration::from_secs(3_000));
        assert!(pair.delivered.values().all(|times| *times == 1), "seed {seed}");
        assert_eq!(pair.responses.len() + pair.failures as usize, 10, "seed {seed}");
        for (code, payload) in &pair.responses {
            assert_eq!(*code, Code::CONTENT);
            assert!(pair.delivered.contains_key(payload), "seed {seed}");
        }
        answered += pair.responses.len();
        pair.check_books();
        assert_eq!(pair.ends[1].exchanges(), 0, "seed {seed}");
    }
    // A round trip fails five times in a row in (1 - 0.75^2)^5 = 1.6 % of cases.
    assert!(answered > 1_900, "{answered} of 2000");
}

#[test]
fn large_bodies_cross_a_lossy_link_both_ways() {
    let mut answered = 0;
    for seed in 0..100 {
        let mut pair = Pair::new(seed, 10, [2, 2]);
        let body: Vec<u8> = (0..=255).chain(3..=246).collect();
        pair.ends[0].request(pair.now, SERVER, post(body.clone())).unwrap();
        pair.drive(Duration::from_secs(3_000));
        assert!(pair.delivered.iter().all(|(got, times)| *got == body && *times == 1));
        assert_eq!(pair.responses.len() + pair.failures as usize, 1, "seed {seed}");
        for (code, payload) in &pair.responses {
            answered += usize::from(*code == Code::CONTENT && *payload == body);
        }
        pair.check_books();
    }
    assert!(answered >= 95, "{answered} of 100");
}

#[test]
fn ends_of_different_block_sizes_agree_on_the_smaller_one() {
    for blocks in [[6, 0], [0, 6], [3, 1], [1, 3]] {
        let mut pair = Pair::new(1, 0, blocks);
        let body: Vec<u8> = (0..3_000_u32).flat_map(u32::to_be_bytes).collect();
        pair.ends[0].request(pair.now, SERVER, post(body.clone())).unwrap();
        pair.drive(Duration::from_secs(20_000));
        assert_eq!(pair.delivered.get(&body), Some(&1), "{blocks:?}");
        assert_eq!(pair.responses, [(Code::CONTENT, body)], "{blocks:?}");
        pair.check_books();
    }
}

#[test]
fn a_perfect_link_needs_no_repetition() {
    let mut pair = Pair::new(1, 0, [6, 6]);
    for number in 0..10_u8 {
        pair.ends[0].request(pair.now, SERVER, post(vec![number; 20])).unwrap();
    }
    pair.drive(Duration::from_secs(300));
    assert_eq!((pair.responses.len(), pair.failures), (10, 0));
}

#[test]
fn an_observer_ends_with_the_newest_state() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, 20, [6, 6]);
        let request = Request { observe: true, ..Request::new(Code::GET) };
        pair.ends[0].request(pair.now, SERVER, request).unwrap();
        pair.drive(Duration::from_secs(120));
        for number in 0..20_u8 {
            let Some(observation) = pair.observation else { break };
            let state = Response { payload: vec![number], ..Response::new(Code::CONTENT) };
            pair.ends[1].notify(pair.now, observation, state, true).unwrap();
            pair.drive(Duration::from_secs(3));
        }
        pair.drive(Duration::from_secs(400));
        if pair.observation.is_some() && !pair.notifications.is_empty() {
            assert_eq!(pair.notifications.last(), Some(&vec![19]), "seed {seed}");
        }
        pair.check_books();
    }
}
