//! What arbitrary bytes must not break in an endpoint: also the body of the fuzz target
//! `coap_endpoint`.

use std::time::{Duration, Instant};

use coap::wire::{Code, MessageRef};
use coap::{Config, Endpoint, Event, Exchange, Limits, ObservationId, Output, Request, Response};

/// A script is a row of steps: an operation with its peer, a length, and that many bytes.
pub(crate) fn endpoint_survives(mut script: &[u8]) {
    let mut world = World::new(script.first().is_some_and(|first| *first & 0x40 != 0));
    while let [operation, length, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        script = rest;
        world.act(operation & 0xf, operation >> 4 & 3, (*length, bytes));
        world.poll();
    }
}

/// Most exchanges that the endpoint may remember.
const EXCHANGES_MAX: u32 = 8;

struct World {
    endpoint: Endpoint<u8>,
    now: Instant,
    waiting: Vec<Exchange<u8>>,
    observations: Vec<ObservationId>,
}

impl World {
    fn new(owner_keeps_observations: bool) -> Self {
        let limits = Limits {
            exchanges_max: EXCHANGES_MAX,
            exchanges_per_peer_max: 4,
            answer_bytes_max: 256,
            upload_bytes_max: 64,
            uploads_bytes_max: 1_024,
            downloads_max: 2,
            downloads_bytes_max: 128,
            block_size_exponent: 0,
            observations_max: 3,
            observations_per_peer_max: 2,
            confirmables_max: 3,
            requests_max: 4,
            waiting_per_peer_max: 2,
            response_bytes_max: 64,
            outputs_max: 64,
            ..Limits::default()
        };
        let config = Config { limits, owner_keeps_observations, ..Config::default() };
        let endpoint = Endpoint::new(config, 7);
        Self { endpoint, now: Instant::now(), waiting: Vec::new(), observations: Vec::new() }
    }

    fn act(&mut self, operation: u8, peer: u8, (length, bytes): (u8, &[u8])) {
        let now = self.now;
        let odd = length & 1 == 1;
        let response = || Response { payload: bytes.into(), ..Response::new(Code::CONTENT) };
        match operation {
            0..8 => self.endpoint.handle_datagram(now, peer, bytes),
            8 => {
                self.now += Duration::from_millis(u64::from(length) * 500);
                self.endpoint.handle_timeout(self.now);
            }
            9 => {
                if let Some(exchange) = self.waiting.pop() {
                    self.endpoint.respond(now, exchange, response());
                }
            }
            10 => {
                if let Some(exchange) = self.waiting.pop() {
                    let exchange = self.endpoint.acknowledge(exchange);
                    self.waiting.push(exchange);
                }
            }
            11 => {
                let payload = vec![2; usize::from(length)];
                let request = Request { payload, observe: odd, ..Request::new(Code::POST) };
                // A refusal is one of the outcomes to be survived.
                let _ = self.endpoint.request(now, peer, request);
            }
            12 => {
                if let Some(observation) = self.observations.last() {
                    // So is an observation that has ended.
                    let _ = self.endpoint.notify(now, *observation, response(), odd);
                }
            }
            13 => {
                if let Some(exchange) = self.waiting.pop() {
                    self.endpoint.reject(exchange);
                }
            }
            14 => {
                if let Some(exchange) = self.waiting.pop() {
                    let part = (bytes, &[length; 9][..]);
                    self.endpoint.respond_part(now, exchange, response(), part);
                }
            }
            _ => drop(self.waiting.pop()),
        }
    }

    fn poll(&mut self) {
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { bytes, .. } => assert!(MessageRef::parse(&bytes).is_ok()),
                Output::Event(Event::Request(mut request)) => {
                    let exchange = &mut request.exchange;
                    self.observations.extend(self.endpoint.accept_observation(self.now, exchange));
                    self.waiting.push(request.exchange);
                }
                Output::Event(Event::Response(response)) => {
                    self.waiting.extend(response.notification);
                }
                Output::Event(Event::Notification(notification)) => {
                    self.waiting.push(notification.exchange);
                }
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
        let counters = self.endpoint.counters();
        assert_eq!(counters.received, counters.accounted());
        assert!(self.endpoint.exchanges() <= EXCHANGES_MAX as usize);
    }
}
