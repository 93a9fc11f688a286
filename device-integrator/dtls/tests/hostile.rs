//! What forgeries and floods must not do to others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::time::Duration;

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Config, Limits, Suite};
use world::{KEY, World, address, client_config, datagrams, psk};

fn world() -> World {
    World::new(Config::default())
}

fn limited(limits: Limits) -> World {
    World::new(Config { limits, ..Config::default() })
}

/// Brings a client to where the server waits for its key exchange.
fn half_open(world: &mut World, last: u32) -> Client {
    let config = client_config(Suite::Aes128Ccm8, None);
    let mut client = Client::new(&config, world.now, None).expect("one suite, and memory");
    world.receive(address(last), &datagrams(&mut client)[0]);
    let (_, request) = world.sent.pop().expect("an answer");
    client.handle_datagram(world.now, &request);
    world.receive(address(last), &datagrams(&mut client)[0]);
    client
}

#[test]
fn a_cookie_of_another_address_begins_nothing() {
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, None);
    let mut client = Client::new(&config, world.now, None).unwrap();
    world.receive(address(1), &datagrams(&mut client)[0]);
    let (_, request) = world.sent.pop().unwrap();
    client.handle_datagram(world.now, &request);
    let hello = datagrams(&mut client).remove(0);
    world.receive(address(2), &hello);
    assert_eq!(world.engine.half_open(), 0);
    assert_eq!(world.engine.counters().hello_wrong_cookie, 1);
    let (peer, answer) = world.sent.pop().unwrap();
    assert_eq!(peer, address(2));
    assert!(answer.len() <= hello.len(), "T7: no amplification");
    world.receive(address(1), &hello);
    assert_eq!(world.engine.half_open(), 1);
}

#[test]
fn ten_thousand_half_open_handshakes_keep_their_cap_and_their_timer() {
    let mut world = limited(Limits {
        handshakes_per_second: 100_000,
        handshakes_burst: 100_000,
        ..Limits::default()
    });
    for last in 0..10_000 {
        drop(half_open(&mut world, last));
    }
    assert_eq!(world.engine.half_open(), 2048);
    assert_eq!(world.engine.counters().handshakes_evicted, 10_000 - 2048);
    let (mut client, session) =
        world.connect(address(50_000), &client_config(Suite::Aes128Ccm8, None));
    world.echo(address(50_000), &mut client, session);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.engine.half_open(), 0);
    assert_eq!(world.engine.sessions(), 1);
}

#[test]
fn one_network_cannot_evict_the_handshakes_of_others() {
    let mut world =
        limited(Limits { half_open_per_network_max: 8, half_open_max: 16, ..Limits::default() });
    let mut client = half_open(&mut world, 1 << 8);
    let answer = world.sent.pop().unwrap().1;
    for last in 0..100 {
        drop(half_open(&mut world, last));
    }
    assert_eq!(world.engine.half_open(), 9);
    world.sent.clear();
    client.handle_datagram(world.now, &answer);
    assert_eq!(world.exchange(address(1 << 8), &mut client), [ClientOutput::Established]);
}

#[test]
fn an_early_change_cipher_spec_and_garbage_leave_a_handshake_alone() {
    let mut world = world();
    let mut client = half_open(&mut world, 1);
    let answer = world.sent.pop().unwrap().1;
    world.receive(address(1), &[20, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 1]);
    world.receive(address(1), &[22, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 9, 0, 3, 1, 2, 3]);
    world.receive(address(1), b"garbage");
    assert_eq!(world.engine.half_open(), 1);
    client.handle_datagram(world.now, &answer);
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
}

#[test]
fn forged_alerts_and_records_do_not_end_a_session() {
    let mut world = world();
    let (mut client, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    // A fatal alert without protection, then one with a made-up protection, then noise.
    world.receive(address(1), &[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
    for record_type in 20..=25 {
        for length in [0_u8, 1, 16, 17, 64] {
            let header = [record_type, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 99, 0, length];
            let forged = [&header[..], &vec![0xA5; length.into()]].concat();
            world.receive(address(1), &forged);
        }
    }
    world.echo(address(1), &mut client, session);
}

#[test]
fn forgeries_against_one_sleeping_session_leave_the_others_alone() {
    let mut world = limited(Limits { wakes_per_second: 100, ..Limits::default() });
    let config = |identity: &[u8]| {
        ClientConfig::new(identity, &psk(KEY), &[Suite::Aes128Ccm8], None).unwrap()
    };
    world.connect(address(1), &config(b"device-1"));
    let (mut victim, session) = world.connect(address(2), &config(b"device-2"));
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.awake(), 0);
    let header = [23, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 99, 0, 32];
    let forged = [&header[..], &[0xA5; 32]].concat();
    for _ in 0..200 {
        world.receive(address(1), &forged);
    }
    world.events.clear();
    world.echo(address(2), &mut victim, session);
}

#[test]
fn one_network_cannot_use_up_the_handshakes_of_others() {
    let mut world =
        limited(Limits { handshakes_per_second: 100, handshakes_burst: 100, ..Limits::default() });
    for last in 0..200 {
        let config = client_config(Suite::Aes128Ccm8, None);
        let mut client = Client::new(&config, world.now, None).expect("memory");
        world.receive(address(last), &datagrams(&mut client)[0]);
        let (_, request) = world.sent.pop().expect("an answer");
        client.handle_datagram(world.now, &request);
        world.receive(address(last), &datagrams(&mut client)[0]);
        world.sent.clear();
    }
    world.connect(address(1 << 16), &client_config(Suite::Aes128Ccm8, None));
}
