//! An engine and one client, for the tests and the fuzz targets.

use std::net::SocketAddr;
use std::time::Instant;

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Config, Engine, Event, Output, Psk, Suite};

const KEY: &[u8] = b"0123456789abcdef";

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) client: Client,
    pub(crate) now: Instant,
    pub(crate) peer: SocketAddr,
    pub(crate) received: usize,
}

impl Rig {
    pub(crate) fn new(suite: Suite, cid: Option<&[u8]>) -> Self {
        let now = Instant::now();
        let key = || Psk::new(KEY.to_vec()).expect("sixteen bytes are a key");
        let engine = Engine::new(Config::default(), now, move |_: &[u8]| Some(key()))
            .expect("the default configuration");
        let key = Psk::new(KEY.to_vec()).expect("sixteen bytes are a key");
        let config = ClientConfig::new(b"device", &key, &[suite], cid).expect("one suite");
        let client = Client::new(&config, now, None).expect("memory");
        Self { engine, client, now, peer: ([127, 0, 0, 1], 1).into(), received: 0 }
    }

    /// One datagram into the engine, and what it says to the client.
    pub(crate) fn receive(&mut self, datagram: &[u8]) {
        self.engine.handle_datagram(self.now, self.peer, datagram);
        self.poll();
        let counters = self.engine.counters();
        assert_eq!(counters.accounted(), counters.received, "{counters:?}");
    }

    pub(crate) fn poll(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { bytes, .. } => self.client.handle_datagram(self.now, &bytes),
                Output::Event(Event::Received { .. }) => self.received += 1,
                Output::Event(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    /// The datagrams that the client sends now.
    pub(crate) fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit(bytes) => datagrams.push(bytes),
                ClientOutput::Timeout(_) => return datagrams,
                _ => {}
            }
        }
    }
}
