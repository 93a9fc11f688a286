//! What handshakes and records cost: server and client in one process, so a handshake here is
//! the work of both.
#![allow(missing_docs)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use dtls::client::{Client, ClientConfig, ClientOutput, ClientResumption};
use dtls::{Config, Engine, Limits, Output, Psk, SessionId, Suite};

const SUITES: [Suite; 4] =
    [Suite::Aes128Ccm8, Suite::Aes128Ccm, Suite::Aes128GcmSha256, Suite::Aes128CbcSha256];

fn main() {
    divan::main();
}

fn psk() -> Option<Psk> {
    Psk::new(b"0123456789abcdef".to_vec()).ok()
}

fn engine(now: Instant) -> Option<Engine> {
    let limits = Limits {
        handshakes_per_second: 10_000_000,
        handshakes_burst: 1_000_000,
        wakes_per_second: 10_000_000,
        ..Limits::default()
    };
    Engine::new(Config { limits, ..Config::default() }, now, |_: &[u8]| psk()).ok()
}

fn config(suite: Suite) -> Option<ClientConfig> {
    ClientConfig::new(b"8988280666000002864", &psk()?, &[suite], Some(b"")).ok()
}

fn peer(number: u32) -> SocketAddr {
    (number.to_be_bytes(), 5000).into()
}

/// Everything until both are silent; the newest established session.
fn settle(engine: &mut Engine, client: &mut Client, now: Instant, peer: SocketAddr) -> SessionId {
    let mut session = SessionId::from_u64(0);
    loop {
        let mut is_silent = true;
        loop {
            match client.poll_output() {
                ClientOutput::Transmit(bytes) => {
                    is_silent = false;
                    engine.handle_datagram(now, peer, &bytes);
                }
                ClientOutput::Timeout(_) => break,
                _ => {}
            }
        }
        loop {
            match engine.poll_output() {
                Output::Transmit { bytes, .. } => client.handle_datagram(now, &bytes),
                Output::Event(dtls::Event::Established { session: new, .. }) => session = new,
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
        if is_silent {
            return session;
        }
    }
}

fn handshakes(bencher: Bencher<'_, '_>, suite: Suite, resume: Option<&ClientResumption>) {
    let now = Instant::now();
    let (Some(mut engine), Some(config)) = (engine(now), config(suite)) else { return };
    let mut number = 0;
    // A resumption needs its session.
    let first = resume.is_some().then(|| {
        let mut client = Client::new(&config, now, None)?;
        settle(&mut engine, &mut client, now, peer(1 << 24));
        client.resumption()
    });
    let first = first.flatten();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        number += 1;
        if let Some(mut client) = Client::new(&config, now, first.as_ref()) {
            black_box(settle(&mut engine, &mut client, now, peer(number)));
        }
    });
}

#[divan::bench(args = SUITES)]
fn full_handshake_of_both_sides(bencher: Bencher<'_, '_>, suite: Suite) {
    handshakes(bencher, suite, None);
}

#[divan::bench]
fn hello_without_cookie(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    let (Some(mut engine), Some(config)) = (engine(now), config(SUITES[0])) else { return };
    let Some(mut client) = Client::new(&config, now, None) else { return };
    let ClientOutput::Transmit(hello) = client.poll_output() else { return };
    let mut number = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        number += 1;
        engine.handle_datagram(now, peer(number), &hello);
        black_box(engine.poll_output());
    });
}

/// A record of 64 bytes in, one of 20 out, over so many sessions in turn.
#[divan::bench(args = [1, 1_000, 10_000])]
fn record_in_and_out_of_both_sides(bencher: Bencher<'_, '_>, sessions: u32) {
    let now = Instant::now();
    let (Some(mut engine), Some(config)) = (engine(now), config(SUITES[0])) else { return };
    let mut clients = Vec::new();
    for number in 0..sessions {
        let identity = format!("device-{number}");
        let Some(key) = psk() else { return };
        let own = ClientConfig::new(identity.as_bytes(), &key, &SUITES[..1], Some(b""));
        let Some(mut client) = own.ok().and_then(|own| Client::new(&own, now, None)) else {
            return;
        };
        let session = settle(&mut engine, &mut client, now, peer(number));
        clients.push((client, session, peer(number)));
    }
    drop(config);
    let mut next = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let count = clients.len();
        let (client, session, peer) = &mut clients[next % count];
        next += 1;
        client.send(&[0x5A; 64]);
        settle(&mut engine, client, now, *peer);
        black_box(engine.send(*session, &[0x5A; 20])).ok();
        settle(&mut engine, client, now, *peer);
    });
}

/// The same for a session that has to wake up each time.
#[divan::bench]
fn record_to_a_sleeping_session(bencher: Bencher<'_, '_>) {
    let mut now = Instant::now();
    let (Some(mut engine), Some(config)) = (engine(now), config(SUITES[0])) else { return };
    let Some(mut client) = Client::new(&config, now, None) else { return };
    settle(&mut engine, &mut client, now, peer(1));
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        now += Duration::from_secs(61);
        engine.handle_timeout(now);
        client.send(&[0x5A; 64]);
        black_box(settle(&mut engine, &mut client, now, peer(1)));
    });
}

#[divan::bench]
fn abbreviated_handshake_of_both_sides(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    let (Some(mut engine), Some(config)) = (engine(now), config(SUITES[0])) else { return };
    let Some(mut client) = Client::new(&config, now, None) else { return };
    settle(&mut engine, &mut client, now, peer(1));
    let resumption = client.resumption();
    handshakes(bencher, SUITES[0], resumption.as_ref());
}
