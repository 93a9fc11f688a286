//! What forgeries and floods must not do to others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::time::Duration;

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Config, Event, Limits, Suite};
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

#[test]
fn a_forged_protected_record_does_not_end_a_handshake() {
    let mut world = world();
    let mut client = half_open(&mut world, 1);
    let answer = world.sent.pop().unwrap().1;
    // Whoever knows the device's address needs no cookie and no key for it.
    let header = [22, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 99, 0, 32];
    world.receive(address(1), &[&header[..], &[0xA5; 32]].concat());
    client.handle_datagram(world.now, &answer);
    // Small stacks send each record of a flight in a datagram of its own.
    for flight in datagrams(&mut client) {
        for record in records(&flight) {
            world.receive(address(1), record);
        }
    }
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
}

#[test]
fn a_forged_plain_alert_does_not_hold_a_device_back() {
    let mut world = world();
    for _ in 0..10 {
        let mut client = half_open(&mut world, 1);
        let answer = world.sent.pop().unwrap().1;
        client.handle_datagram(world.now, &answer);
        // The key exchange; what follows it is on its way still.
        let flight = datagrams(&mut client).remove(0);
        let length = usize::from(u16::from_be_bytes([flight[11], flight[12]]));
        world.receive(address(1), &flight[..13 + length]);
        world.receive(address(1), &[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
        world.sent.clear();
    }
    world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    assert_eq!(world.engine.counters().held_back, 0);
}

/// The records of a datagram without connection IDs.
fn records(datagram: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut records) = (datagram, Vec::new());
    while rest.len() > 13 {
        let length = usize::from(u16::from_be_bytes([rest[11], rest[12]]));
        let (record, after) = rest.split_at(13 + length);
        records.push(record);
        rest = after;
    }
    records
}

/// A protected record of nobody.
fn forgery(number: u8) -> Vec<u8> {
    let header = [22, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, number, 0, 40];
    [&header[..], &[0xA5; 40]].concat()
}

#[test]
fn forged_finisheds_before_and_behind_the_true_flight_are_outlived() {
    let mut world = world();
    let mut client = half_open(&mut world, 1);
    client.handle_datagram(world.now, &world.sent.pop().unwrap().1);
    let flight = datagrams(&mut client).concat();
    let [exchange, change, finished] = records(&flight)[..] else { panic!("{flight:?}") };
    // More than are held back, and some more between the last two.
    for datagram in [&forgery(1)[..], &forgery(2), &forgery(3), exchange, change, &forgery(4)] {
        world.receive(address(1), datagram);
    }
    world.now += Duration::from_millis(1400);
    world.receive(address(1), finished);
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
    let session = world.established();
    world.events.clear();
    world.echo(address(1), &mut client, session);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.engine.counters().handshakes_failed, 0);
}

#[test]
fn a_finished_and_a_message_that_overtake_are_kept() {
    let mut world = world();
    let mut client = half_open(&mut world, 1);
    client.handle_datagram(world.now, &world.sent.pop().unwrap().1);
    let flight = datagrams(&mut client).concat();
    let [exchange, change, finished] = records(&flight)[..] else { panic!("{flight:?}") };
    for datagram in [finished, exchange, change] {
        world.receive(address(1), datagram);
    }
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
}

#[test]
fn a_device_with_a_session_is_not_held_back_where_it_is() {
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, None);
    world.connect(address(1), &config);
    let wrong =
        ClientConfig::new(world::IDENTITY, &psk(b"wrong"), &[Suite::Aes128Ccm8], None).unwrap();
    for _ in 0..20 {
        let mut client = Client::new(&wrong, world.now, None).unwrap();
        world.exchange(address(2), &mut client);
    }
    world.connect(address(1), &config);
    assert_eq!(world.engine.counters().held_back, 0);
    // What a guesser hides by beginning anew is told.
    let refused = world.events.iter().filter(|event| matches!(event, Event::Refused { .. }));
    assert_eq!(refused.count(), 19);
}

#[test]
fn a_new_handshake_goes_on_where_the_wakes_are_used_up() {
    let mut world = limited(Limits { wakes_per_second: 0, ..Limits::default() });
    world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.awake(), 0);
    let mut client = half_open(&mut world, 1);
    client.handle_datagram(world.now, &world.sent.pop().unwrap().1);
    let flight = datagrams(&mut client).concat();
    for record in records(&flight) {
        world.receive(address(1), record);
    }
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
}
