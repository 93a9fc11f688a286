//! What must hold for any bytes: used by the tests and by the fuzz targets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Config, Engine, Event, Output, Psk, Suite};

const KEY: &[u8] = b"0123456789abcdef";

struct Rig {
    engine: Engine,
    client: Client,
    now: Instant,
    peer: SocketAddr,
    received: usize,
}

impl Rig {
    fn new(suite: Suite, cid: Option<&[u8]>) -> Self {
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
    fn receive(&mut self, datagram: &[u8]) {
        self.engine.handle_datagram(self.now, self.peer, datagram);
        self.poll();
        let counters = self.engine.counters();
        assert_eq!(counters.accounted(), counters.received, "{counters:?}");
    }

    fn poll(&mut self) {
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
    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            match self.client.poll_output() {
                ClientOutput::Transmit(bytes) => datagrams.push(bytes),
                ClientOutput::Timeout(_) => return datagrams,
                _ => {}
            }
        }
    }

    fn connect(&mut self) {
        while !self.client.is_established() {
            for datagram in self.datagrams() {
                self.receive(&datagram);
            }
        }
    }
}

/// Bytes as records of an established session, with and without a connection ID: the session
/// lives on, and nothing of them is received.
pub(crate) fn records_survive(bytes: &[u8]) {
    let (Some((&choice, rest)), suites) =
        (bytes.split_first(), [Suite::Aes128Ccm8, Suite::Aes128GcmSha256, Suite::Aes128CbcSha256])
    else {
        return;
    };
    let suite = suites[usize::from(choice) % suites.len()];
    let has_cid = choice & 0x80 != 0;
    let mut rig = Rig::new(suite, has_cid.then_some(&b""[..]));
    rig.connect();
    if choice & 0x40 != 0 {
        rig.now += Duration::from_secs(61);
        rig.engine.handle_timeout(rig.now);
    }
    rig.receive(rest);
    // The same as the content of a record whose header is right.
    assert!(rig.client.send(b"genuine"));
    let genuine = rig.datagrams().remove(0);
    let header_bytes = if has_cid { 21 } else { 13 };
    let content = &rest[..rest.len().min(2048)];
    let mut forged = genuine[..header_bytes].to_vec();
    let length = u16::try_from(content.len()).unwrap_or(0);
    forged[header_bytes - 2..].copy_from_slice(&length.to_be_bytes());
    forged.extend_from_slice(content);
    if forged != genuine {
        rig.receive(&forged);
        assert_eq!(rig.received, 0, "a forged record was received");
    }
    rig.receive(&genuine);
    assert_eq!(rig.received, 1, "the genuine record was lost");
}

/// A row of datagrams, mutated ones of a true client, and time, into an engine.
pub(crate) fn server_survives(bytes: &[u8]) {
    let mut rig = Rig::new(Suite::Aes128Ccm8, Some(b"own"));
    let mut rest = bytes;
    while let Some((&[what, length], more)) = rest.split_first_chunk::<2>() {
        let (chunk, after) = more.split_at(more.len().min(length.into()));
        rest = after;
        match what % 8 {
            0 => rig.receive(chunk),
            1 => {
                rig.now += Duration::from_millis(u64::from(length) * 50);
                rig.engine.handle_timeout(rig.now);
                rig.poll();
                rig.client.handle_timeout(rig.now);
            }
            2 => rig.peer.set_port(u16::from(length) % 3 + 1),
            3 => drop(rig.client.send(chunk)),
            4 => {
                // An unprotected handshake message.
                let header = [22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 1, what, 0, length];
                rig.receive(&[&header[..], chunk].concat());
            }
            _ => {
                for mut datagram in rig.datagrams() {
                    for pair in chunk.chunks_exact(2) {
                        let at = usize::from(pair[0]) % datagram.len();
                        datagram[at] ^= pair[1];
                    }
                    rig.receive(&datagram);
                }
            }
        }
    }
    rig.now += Duration::from_secs(11);
    rig.engine.handle_timeout(rig.now);
    assert_eq!(rig.engine.half_open(), 0);
}
