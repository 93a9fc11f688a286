//! An engine and clients in one process, with a network between them that the test controls.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dtls::client::{Client, ClientConfig, ClientOutput, ClientResumption};
use dtls::{Config, Engine, Event, Output, Psk, SessionId, Suite};

pub(crate) const IDENTITY: &[u8] = b"8988280666000002864";
pub(crate) const KEY: &[u8] = b"0123456789abcdef";

pub(crate) fn psk(bytes: &[u8]) -> Psk {
    Psk::new(bytes.to_vec()).expect("a key has 1 to 256 bytes")
}

pub(crate) fn address(last: u32) -> SocketAddr {
    let [a, b, c, d] = (0x0A00_0000 + last).to_be_bytes();
    SocketAddr::from(([a, b, c, d], 5000))
}

/// A client of the usual identity.
pub(crate) fn client_config(suite: Suite, cid: Option<&[u8]>) -> ClientConfig {
    ClientConfig::new(IDENTITY, &psk(KEY), &[suite], cid).expect("one suite")
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
    /// Datagrams of the engine that nobody has taken yet.
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let now = Instant::now();
        let engine = Engine::new(config, now, |identity: &[u8]| {
            (identity == IDENTITY || identity.starts_with(b"device-")).then(|| psk(KEY))
        });
        Self::with_engine(engine.expect("random bytes and memory"), now)
    }

    pub(crate) fn with_engine(engine: Engine, now: Instant) -> Self {
        Self { engine, now, events: Vec::new(), sent: Vec::new() }
    }

    pub(crate) fn poll(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { peer, bytes } => self.sent.push((peer, bytes)),
                Output::Event(event) => self.events.push(event),
                Output::Timeout(_) => return,
            }
        }
    }

    pub(crate) fn receive(&mut self, peer: SocketAddr, datagram: &[u8]) {
        self.engine.handle_datagram(self.now, peer, datagram);
        self.poll();
        let counters = self.engine.counters();
        assert_eq!(counters.accounted(), counters.received, "{counters:?}");
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.handle_timeout(self.now);
        self.poll();
    }

    /// Carries datagrams between the engine and one client until both are silent.
    pub(crate) fn exchange(&mut self, peer: SocketAddr, client: &mut Client) -> Vec<ClientOutput> {
        let mut outputs = Vec::new();
        loop {
            match client.poll_output() {
                ClientOutput::Transmit(bytes) => self.receive(peer, &bytes),
                ClientOutput::Timeout(_) => {
                    let (ours, others) =
                        std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == peer);
                    self.sent = others;
                    let ours: Vec<(SocketAddr, Vec<u8>)> = ours;
                    if ours.is_empty() {
                        return outputs;
                    }
                    for (_, bytes) in ours {
                        client.handle_datagram(self.now, &bytes);
                    }
                }
                output => outputs.push(output),
            }
        }
    }

    pub(crate) fn connect(
        &mut self,
        peer: SocketAddr,
        config: &ClientConfig,
    ) -> (Client, SessionId) {
        self.connect_with(peer, config, None)
    }

    pub(crate) fn connect_with(
        &mut self,
        peer: SocketAddr,
        config: &ClientConfig,
        resume: Option<&ClientResumption>,
    ) -> (Client, SessionId) {
        let mut client = Client::new(config, self.now, resume).expect("memory");
        let outputs = self.exchange(peer, &mut client);
        assert_eq!(outputs, [ClientOutput::Established]);
        let session = self.established();
        (client, session)
    }

    /// The session of the newest `Established`.
    pub(crate) fn established(&self) -> SessionId {
        let found = self.events.iter().rev().find_map(|event| match event {
            Event::Established { session, .. } => Some(*session),
            _ => None,
        });
        found.expect("a session was established")
    }

    /// Takes the bytes received since the last call.
    pub(crate) fn received(&mut self) -> Vec<Vec<u8>> {
        let events = std::mem::take(&mut self.events);
        events
            .into_iter()
            .filter_map(|event| match event {
                Event::Received { bytes, .. } => Some(bytes),
                _ => None,
            })
            .collect()
    }

    /// A message there and back.
    pub(crate) fn echo(&mut self, peer: SocketAddr, client: &mut Client, session: SessionId) {
        assert!(client.send(b"ping"));
        assert_eq!(self.exchange(peer, client), []);
        assert_eq!(self.received(), [b"ping"]);
        self.engine.send(session, b"pong").expect("the session lives");
        self.poll();
        assert_eq!(self.exchange(peer, client), [ClientOutput::Received(b"pong".to_vec())]);
    }
}

/// The datagrams that a client wants to send now.
pub(crate) fn datagrams(client: &mut Client) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    loop {
        match client.poll_output() {
            ClientOutput::Transmit(bytes) => datagrams.push(bytes),
            ClientOutput::Timeout(_) => return datagrams,
            output => panic!("unexpected {output:?}"),
        }
    }
}
