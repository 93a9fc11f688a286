//! The engine and a client over the same C library, in one process.

mod world;

use std::time::{Duration, Instant};

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Change, CloseCause, Config, Engine, Event, ImportError, Limits, SEQUENCE_JUMP, Suite};
use dtls::{SendError, UnknownRecords};
use world::{IDENTITY, KEY, World, address, client_config, datagrams, psk};

const SUITES: [Suite; 4] =
    [Suite::Aes128Ccm8, Suite::Aes128Ccm, Suite::Aes128GcmSha256, Suite::Aes128CbcSha256];

fn world() -> World {
    World::new(Config::default())
}

fn limited(limits: Limits) -> World {
    World::new(Config { limits, ..Config::default() })
}

#[test]
fn each_suite_carries_records_both_ways_with_and_without_connection_id() {
    for suite in SUITES {
        for cid in [None, Some(&b""[..]), Some(&b"mine"[..])] {
            let mut world = world();
            let (mut client, session) = world.connect(address(1), &client_config(suite, cid));
            let expected = Event::Established {
                session,
                peer: address(1),
                identity: IDENTITY.into(),
                resumed: false,
                cid: cid.is_some(),
            };
            assert_eq!(world.events, [expected]);
            world.echo(address(1), &mut client, session);
            assert_eq!(world.engine.half_open(), 0);
        }
    }
}

#[test]
fn a_session_falls_asleep_and_wakes_in_each_suite() {
    for suite in SUITES {
        for cid in [None, Some(&b"mine"[..])] {
            let mut world = world();
            let (mut client, session) = world.connect(address(1), &client_config(suite, cid));
            world.echo(address(1), &mut client, session);
            world.pass(Duration::from_secs(61));
            assert_eq!(world.engine.awake(), 0, "{suite:?}");
            world.echo(address(1), &mut client, session);
            world.pass(Duration::from_secs(61));
            world.engine.send(session, b"unasked").unwrap();
            world.poll();
            let outputs = world.exchange(address(1), &mut client);
            assert_eq!(outputs, [ClientOutput::Received(b"unasked".to_vec())]);
            assert_eq!(world.engine.counters().woken, 2);
        }
    }
}

/// The datagrams that a failing handshake gets, and how long they are.
fn failure(world: &mut World, identity: &[u8], key: &[u8]) -> (Vec<ClientOutput>, Vec<usize>) {
    let config = ClientConfig::new(identity, &psk(key), &[Suite::Aes128Ccm8], None)
        .expect("one suite, and memory");
    let mut client = Client::new(&config, world.now, None).expect("one suite, and memory");
    let mut lengths = Vec::new();
    loop {
        for bytes in datagrams(&mut client) {
            world.receive(address(1), &bytes);
        }
        if world.sent.is_empty() {
            // A Finished that is wrong may be forged: the true one has time to come.
            world.pass(Duration::from_millis(1500));
        }
        if world.sent.is_empty() {
            break;
        }
        for (_, bytes) in std::mem::take(&mut world.sent) {
            lengths.push(bytes.len());
            client.handle_datagram(world.now, &bytes);
            if bytes[0] == 21 {
                // Meanwhile its own timer has run out, and it has sent its flight again.
                let mut outputs = Vec::new();
                loop {
                    match client.poll_output() {
                        ClientOutput::Transmit(_) => {}
                        ClientOutput::Timeout(_) => return (outputs, lengths),
                        output => outputs.push(output),
                    }
                }
            }
        }
    }
    (Vec::new(), lengths)
}

#[test]
fn an_unknown_identity_looks_like_a_wrong_key() {
    let mut world = world();
    let wrong = failure(&mut world, IDENTITY, b"wrong wrong wron");
    let unknown = failure(&mut world, b"8988280666000009999", KEY);
    assert_eq!(wrong, unknown);
    assert!(matches!(wrong.0[..], [ClientOutput::Closed(_)]), "an alert: {wrong:?}");
    assert_eq!(world.engine.counters().handshakes_failed, 2);
    assert_eq!(world.engine.counters().identities_unknown, 1);
    assert_eq!((world.engine.half_open(), world.engine.sessions()), (0, 0));
    let refused: Vec<_> = std::mem::take(&mut world.events)
        .into_iter()
        .map(|event| match event {
            Event::Refused { peer, identity, is_known } => (peer, identity, is_known),
            other => panic!("{other:?}"),
        })
        .collect();
    let unknown = b"8988280666000009999".as_slice();
    assert_eq!(refused, [(address(1), IDENTITY.into(), true), (address(1), unknown.into(), false)]);
    let too_long = failure(&mut world, &[b'x'; 129], KEY);
    assert_eq!(too_long, wrong);
}

#[test]
fn who_fails_too_often_is_held_back_for_a_minute_and_only_in_its_network() {
    let mut world = world();
    for _ in 0..10 {
        failure(&mut world, IDENTITY, b"wrong wrong wron");
    }
    let with_the_right_key = failure(&mut world, IDENTITY, KEY);
    assert!(matches!(with_the_right_key.0[..], [ClientOutput::Closed(_)]));
    assert_eq!(world.engine.counters().held_back, 1);
    let config = client_config(Suite::Aes128Ccm8, None);
    world.connect(address(0x1_0000), &config);
    world.pass(Duration::from_secs(61));
    world.connect(address(1), &config);
}

#[test]
fn a_session_knows_the_revision_of_its_key() {
    let now = Instant::now();
    let key = |_: &[u8]| Some(psk(KEY).with_revision(7));
    let config = persistent(1);
    let mut world = World::with_engine(Engine::new(config, now, key).expect("memory"), now);
    let (_, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    assert_eq!(world.engine.revision(session), Some(7));
    let saved = world.engine.export(session).expect("the session lives");
    let mut after = Engine::new(persistent(2), now, key).expect("memory");
    let session = after.import(&saved).expect("an earlier generation");
    assert_eq!(after.revision(session), Some(7));
}

#[test]
fn a_replayed_record_is_discarded_and_a_late_one_is_not() {
    for suite in SUITES {
        let mut world = world();
        let (mut client, _) = world.connect(address(1), &client_config(suite, None));
        world.events.clear();
        for text in ["1", "2", "3"] {
            assert!(client.send(text.as_bytes()));
        }
        let records = datagrams(&mut client);
        for index in [2, 0, 0, 1, 2] {
            world.receive(address(1), &records[index]);
        }
        assert_eq!(world.received(), [b"3", b"1", b"2"]);
        assert_eq!(world.engine.counters().records_discarded, 2);
        world.pass(Duration::from_secs(61));
        world.receive(address(1), &records[1]);
        assert_eq!(world.received(), [b""; 0], "the window survives sleep");
        assert_eq!(world.engine.awake(), 0, "a replayed record wakes nobody");
    }
}

#[test]
fn handshakes_beyond_the_budget_wait_while_sessions_go_on() {
    let mut world =
        limited(Limits { handshakes_per_second: 10, handshakes_burst: 1, ..Limits::default() });
    let config = client_config(Suite::Aes128Ccm8, None);
    let (mut client, session) = world.connect(address(1), &config);
    let mut late = Client::new(&config, world.now, None).unwrap();
    assert_eq!(world.exchange(address(2), &mut late), []);
    assert_eq!(world.engine.counters().hello_shed, 1);
    world.echo(address(1), &mut client, session);
    world.now += Duration::from_secs(2);
    late.handle_timeout(world.now);
    assert_eq!(world.exchange(address(2), &mut late), [ClientOutput::Established]);
}

#[test]
fn a_device_that_lost_its_session_gets_a_new_one_at_the_same_address() {
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, None);
    let (mut old_client, old) = world.connect(address(1), &config);
    world.events.clear();
    let mut client = half_open_again(&mut world, &config);
    // RFC 6347 §4.2.8: until the new one is established, the old one lives.
    assert!(old_client.send(b"still here"));
    for record in datagrams(&mut old_client) {
        world.receive(address(1), &record);
    }
    assert_eq!(world.received(), [b"still here"]);
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
    let closed = Event::Closed { session: old, cause: CloseCause::Replaced };
    assert!(world.events.contains(&closed));
    let session = world.established();
    world.events.clear();
    world.echo(address(1), &mut client, session);
    assert_eq!(world.engine.sessions(), 1);
}

fn half_open_again(world: &mut World, config: &ClientConfig) -> Client {
    let mut client = Client::new(config, world.now, None).expect("one suite, and memory");
    for _ in 0..2 {
        for bytes in datagrams(&mut client) {
            world.receive(address(1), &bytes);
        }
        for (_, bytes) in std::mem::take(&mut world.sent) {
            client.handle_datagram(world.now, &bytes);
        }
    }
    client
}

#[test]
fn a_session_with_connection_id_moves_only_with_its_newest_record() {
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, Some(b""));
    let (mut client, session) = world.connect(address(1), &config);
    for text in ["old", "new"] {
        assert!(client.send(text.as_bytes()));
    }
    let records = datagrams(&mut client);
    assert_eq!(records[0][11], 0, "the shard");
    world.receive(address(2), &records[1]);
    assert_eq!(world.engine.peer(session), Some(address(2)));
    world.receive(address(3), &records[0]);
    assert_eq!(world.engine.peer(session), Some(address(2)), "an older record moves nobody");
    world.receive(address(4), &records[1]);
    assert_eq!(world.engine.peer(session), Some(address(2)), "a copy moves nobody");
    let mut forged = records[1].clone();
    forged[10] += 1;
    world.receive(address(4), &forged);
    assert_eq!(world.engine.peer(session), Some(address(2)), "a forgery moves nobody");
    assert_eq!(world.received(), [b"new", b"old"]);
    world.echo(address(2), &mut client, session);
    assert_eq!(world.engine.counters().moved, 1);
}

#[test]
fn an_abbreviated_handshake_resumes_unless_the_key_has_changed() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_ROTATED: AtomicBool = AtomicBool::new(false);
    let mut world = world();
    world.engine = dtls::Engine::new(Config::default(), world.now, |_: &[u8]| {
        let is_rotated = IS_ROTATED.load(Ordering::Relaxed);
        Some(psk(if is_rotated { b"another another!" } else { KEY }))
    })
    .unwrap();
    let config = client_config(Suite::Aes128GcmSha256, None);
    let (client, _) = world.connect(address(1), &config);
    let resumption = client.resumption().expect("the server gave an id");
    let (mut again, session) = world.connect_with(address(2), &config, Some(&resumption));
    assert_eq!(world.engine.counters().resumed, 1);
    assert_eq!(world.engine.identity(session), Some(IDENTITY));
    world.events.clear();
    world.echo(address(2), &mut again, session);
    IS_ROTATED.store(true, Ordering::Relaxed);
    let mut refused = Client::new(&config, world.now, Some(&resumption)).unwrap();
    assert_eq!(world.exchange(address(3), &mut refused), []);
    world.pass(Duration::from_millis(1500));
    let outputs = world.exchange(address(3), &mut refused);
    assert!(matches!(outputs[..], [ClientOutput::Closed(_)]), "{outputs:?}");
    assert_eq!(world.engine.counters().resumed, 1);
}

fn persistent(generation: u32) -> Config {
    Config { persistent: true, generation, ..Config::default() }
}

#[test]
fn sessions_survive_a_restart_in_each_suite() {
    for suite in SUITES {
        for cid in [None, Some(&b"mine"[..])] {
            let mut world = World::new(persistent(1));
            let (mut client, session) = world.connect(address(1), &client_config(suite, cid));
            world.events.clear();
            let changes = world.engine.changes(10);
            let [Change::Saved { session: saved, bytes }] = &changes[..] else {
                panic!("{changes:?}")
            };
            assert_eq!(*saved, session);
            assert!(bytes.len() <= 400, "{} bytes", bytes.len());
            assert_eq!(world.engine.changes(10), []);
            // Sent after the last flush, then killed.
            world.echo(address(1), &mut client, session);
            let (now, later) = (world.now, World::new(persistent(2)));
            world = World { now, ..later };
            assert_eq!(world.engine.import(bytes).unwrap(), session);
            assert_eq!(world.engine.identity(session), Some(IDENTITY));
            world.echo(address(1), &mut client, session);
        }
    }
}

/// The sequence number of a record without connection ID.
fn sequence(record: &[u8]) -> u64 {
    record[5..11].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[test]
fn no_sequence_number_is_used_twice_over_crashes() {
    let mut world = World::new(persistent(1));
    let (_, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    let bytes = world.engine.export(session).unwrap();
    let mut ranges = Vec::new();
    // Killed again and again before the next flush: always the same bytes are imported.
    for generation in 1..5 {
        if generation > 1 {
            world = World::new(persistent(generation));
            world.engine.import(&bytes).unwrap();
        }
        world.engine.send(session, b"x").unwrap();
        world.poll();
        ranges.push(sequence(&world.sent.pop().unwrap().1));
    }
    for pair in ranges.windows(2) {
        assert_eq!(pair[1] - pair[0], 2 * SEQUENCE_JUMP);
    }
    let error = World::new(persistent(1)).engine.import(&bytes).unwrap_err();
    assert_eq!(error, ImportError::Generation { saved: 1, current: 1 });
    let error = world.engine.import(&bytes).unwrap_err();
    assert_eq!(error, ImportError::InUse { session, peer: address(1) });
}

#[test]
fn saved_bytes_with_any_change_are_refused_or_harmless() {
    let mut world = World::new(persistent(1));
    let (_, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, Some(b"mine")));
    let bytes = world.engine.export(session).unwrap();
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 0xFF;
        let mut world = World::new(persistent(2));
        if let Ok(session) = world.engine.import(&changed) {
            let _ = world.engine.send(session, b"x");
            world.poll();
        }
    }
}

#[test]
fn gone_sessions_are_told_and_an_owner_may_close() {
    let mut world = World::new(persistent(1));
    let (mut client, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    assert_eq!(world.engine.changes(10).len(), 1);
    world.engine.close(session);
    world.poll();
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Closed(0)]);
    assert_eq!(world.engine.changes(10), [Change::Gone { session }]);
    assert_eq!(world.engine.send(session, b"x"), Err(SendError::NoSession { session }));
}

#[test]
fn a_client_that_says_goodbye_is_answered_and_forgotten() {
    let mut world = world();
    let (mut client, session) = world.connect(address(1), &client_config(Suite::Aes128Ccm8, None));
    client.close();
    world.exchange(address(1), &mut client);
    let closed = Event::Closed { session, cause: CloseCause::Peer };
    assert_eq!(world.events.last(), Some(&closed));
    assert_eq!(world.engine.sessions(), 0);
}

#[test]
fn records_of_unknown_sessions_get_what_the_listener_says() {
    for (policy, answers) in [(UnknownRecords::Silence, 0), (UnknownRecords::Alert, 1)] {
        let mut world = World::new(Config { unknown_records: policy, ..Config::default() });
        let record = [23, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 0, 16];
        world.receive(address(1), &[&record[..], &[0; 16]].concat());
        assert_eq!(world.sent.len(), answers);
        assert!(world.sent.iter().all(|(_, alert)| alert.len() <= 29));
        assert_eq!(world.engine.counters().unknown, 1);
        world.receive(address(1), &record);
        assert_eq!(world.sent.len(), answers, "no answer longer than the record");
    }
}

#[test]
fn a_second_handshake_of_an_identity_beyond_its_limit_ends_the_oldest() {
    let mut world = limited(Limits { sessions_per_identity_max: 2, ..Limits::default() });
    let config = client_config(Suite::Aes128Ccm8, None);
    let (_, first) = world.connect(address(1), &config);
    world.connect(address(2), &config);
    world.connect(address(3), &config);
    let closed = Event::Closed { session: first, cause: CloseCause::Replaced };
    assert!(world.events.contains(&closed));
    assert_eq!(world.engine.sessions(), 2);
}

#[test]
fn a_session_that_speaks_often_stays_awake_while_others_come_and_go() {
    let mut world = limited(Limits { fresh_max: 2, ..Limits::default() });
    let config = client_config(Suite::Aes128Ccm8, None);
    let (mut busy, session) = world.connect(address(1), &config);
    for _ in 0..3 {
        world.echo(address(1), &mut busy, session);
    }
    for last in 2..10 {
        let identity = format!("device-{last}");
        let config = ClientConfig::new(identity.as_bytes(), &psk(KEY), &[Suite::Aes128Ccm8], None);
        let (mut client, session) = world.connect(address(last), &config.expect("one suite"));
        world.echo(address(last), &mut client, session);
    }
    assert_eq!((world.engine.sessions(), world.engine.awake()), (9, 3));
    world.echo(address(1), &mut busy, session);
    assert_eq!(world.engine.counters().woken, 0);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.awake(), 0);
}

#[test]
fn the_longest_idle_session_leaves_for_a_new_one() {
    let mut world = limited(Limits { sessions_max: 2, awake_max: 1, ..Limits::default() });
    let mut last = 0;
    let mut connect = |world: &mut World| {
        last += 1;
        let identity = format!("device-{last}");
        let suites = [Suite::Aes128Ccm8];
        let config = ClientConfig::new(identity.as_bytes(), &psk(KEY), &suites, None).unwrap();
        world.pass(Duration::from_secs(1));
        world.connect(address(last), &config)
    };
    let (mut client, first) = connect(&mut world);
    let (_, second) = connect(&mut world);
    assert_eq!(world.engine.awake(), 1);
    world.events.clear();
    world.echo(address(1), &mut client, first);
    connect(&mut world);
    let closed = Event::Closed { session: second, cause: CloseCause::Forgotten };
    assert!(world.events.contains(&closed), "{:?}", world.events);
    world.pass(Duration::from_secs(31 * 24 * 3600));
    world.pass(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(world.engine.sessions(), 0);
}

/// A small generator of numbers, so that a seed repeats a run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Carries a datagram over a network that loses, repeats and swaps.
fn carry(dice: &mut Dice, queue: &mut Vec<Vec<u8>>, datagram: Vec<u8>) {
    match dice.below(10) {
        0..3 => {}
        3 => {
            queue.push(datagram.clone());
            queue.push(datagram);
        }
        4 => queue.insert(0, datagram),
        _ => queue.push(datagram),
    }
}

#[test]
fn handshakes_succeed_over_a_network_that_loses_a_third() {
    let mut established = 0;
    for seed in 1..=60 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let mut world = limited(Limits { handshake: Duration::from_secs(40), ..Limits::default() });
        let config = client_config(Suite::Aes128Ccm8, (seed % 2 == 0).then_some(b""));
        let mut client = Client::new(&config, world.now, None).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        'run: for _ in 0..400 {
            loop {
                match client.poll_output() {
                    ClientOutput::Transmit(bytes) => carry(&mut dice, &mut up, bytes),
                    ClientOutput::Established => {
                        established += 1;
                        break 'run;
                    }
                    ClientOutput::Timeout(_) => break,
                    // The client repeated as often as its timers allow.
                    _ => break 'run,
                }
            }
            for bytes in std::mem::take(&mut up) {
                world.receive(address(1), &bytes);
            }
            world.pass(Duration::from_millis(100));
            for (_, bytes) in std::mem::take(&mut world.sent) {
                carry(&mut dice, &mut down, bytes);
            }
            for bytes in std::mem::take(&mut down) {
                client.handle_datagram(world.now, &bytes);
            }
            client.handle_timeout(world.now);
        }
        if client.is_established() {
            let session = world.established();
            world.events.clear();
            world.echo(address(1), &mut client, session);
        }
    }
    // The client's own timers allow five repetitions of a flight.
    assert!(established >= 54, "{established} of 60");
}

#[test]
fn mutated_datagrams_of_a_whole_conversation_do_no_harm() {
    let mut dice = Dice(7);
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, Some(b"mine"));
    for round in 0..300 {
        let mut client = Client::new(&config, world.now, None).unwrap();
        for _ in 0..6 {
            for bytes in datagrams_or_end(&mut client) {
                let mut mutated = bytes.clone();
                for _ in 0..=dice.below(3) {
                    let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
                    mutated[at] = u8::try_from(dice.below(256)).unwrap();
                }
                mutated.truncate(usize::try_from(dice.below(bytes.len() as u64 * 4)).unwrap());
                world.receive(address(1), &mutated);
                world.receive(address(1), &bytes);
            }
            for (_, bytes) in std::mem::take(&mut world.sent) {
                client.handle_datagram(world.now, &bytes);
            }
            client.send(format!("round {round}").as_bytes());
        }
        world.pass(Duration::from_secs(11));
    }
    assert_eq!(world.engine.half_open(), 0);
    let (mut client, session) = world.connect(address(2), &config);
    world.events.clear();
    world.echo(address(2), &mut client, session);
}

fn datagrams_or_end(client: &mut Client) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    loop {
        match client.poll_output() {
            ClientOutput::Transmit(bytes) => datagrams.push(bytes),
            ClientOutput::Timeout(_) => return datagrams,
            _ => {}
        }
    }
}

#[test]
fn a_message_before_a_goodbye_says_whose_it_is() {
    let now = Instant::now();
    let key = |_: &[u8]| Some(psk(KEY).with_revision(7));
    let mut world = World::with_engine(Engine::new(Config::default(), now, key).unwrap(), now);
    let (mut client, session) = world.connect(address(1), &client_config(SUITES[0], Some(b"")));
    assert!(client.send(b"last words"));
    client.close();
    let both = datagrams_or_end(&mut client).concat();
    world.events.clear();
    world.receive(address(2), &both);
    assert_eq!(world.engine.identity(session), None);
    let expected = Event::Received {
        session,
        peer: address(2),
        identity: IDENTITY.into(),
        revision: 7,
        bytes: b"last words".to_vec(),
    };
    assert_eq!(world.events[0], expected);
}

#[test]
fn sessions_that_share_an_address_both_survive_a_restart() {
    let mut world = World::new(persistent(1));
    let config = |identity: &[u8], cid| {
        ClientConfig::new(identity, &psk(KEY), &[Suite::Aes128Ccm8], cid).unwrap()
    };
    // The first has moved away silently, with its connection ID; the second got its address.
    let (_, first) = world.connect(address(1), &config(b"device-1", Some(b"")));
    let (mut client, second) = world.connect(address(1), &config(b"device-2", None));
    assert_eq!(world.engine.sessions(), 2);
    let saved: Vec<_> = world.engine.changes(10);
    assert_eq!(saved.len(), 2);
    let mut next = World::new(persistent(2));
    for change in &saved {
        let Change::Saved { bytes, .. } = change else { panic!("{change:?}") };
        next.engine.import(bytes).unwrap();
    }
    assert!(next.engine.identity(first).is_some(), "the first is lost");
    assert!(next.engine.identity(second).is_some(), "the second is lost");
    next.echo(address(1), &mut client, second);
}

#[test]
fn a_device_without_randomness_gets_a_new_session_after_a_reboot() {
    let mut world = world();
    let config = client_config(Suite::Aes128Ccm8, None);
    let mut client = Client::new(&config, world.now, None).unwrap();
    let hello = datagrams(&mut client).remove(0);
    world.receive(address(1), &hello);
    let request = world.sent.pop().unwrap().1;
    client.handle_datagram(world.now, &request);
    assert_eq!(world.exchange(address(1), &mut client), [ClientOutput::Established]);
    // An hour later it boots again, and its generator begins with the same numbers.
    world.pass(Duration::from_secs(3600));
    world.receive(address(1), &hello);
    let request = world.sent.pop().unwrap().1;
    // With its length before it.
    let cookie = &request[27..];
    let place = 13 + 12 + 2 + 32 + 1 + usize::from(hello[59]);
    let mut again = [&hello[..place], cookie, &hello[place + 1..]].concat();
    for length in [12, 16, 24] {
        again[length] += u8::try_from(cookie.len() - 1).unwrap();
    }
    world.receive(address(1), &again);
    let counters = world.engine.counters();
    assert_eq!((counters.hello_wrong_cookie, counters.hello_malformed), (0, 0));
    assert_eq!(counters.hello_accepted, 2, "it is ignored");
}

#[test]
fn sessions_that_end_before_they_are_saved_leave_nothing_to_save() {
    let mut world = World::new(persistent(1));
    let config = client_config(Suite::Aes128Ccm8, None);
    for _ in 0..100 {
        world.connect(address(1), &config);
    }
    assert_eq!((world.engine.sessions(), world.engine.changed()), (1, 1));
    assert_eq!(world.engine.changes(10).len(), 1);
    world.connect(address(1), &config);
    assert_eq!(world.engine.changed(), 2, "one is gone, one is new");
}

#[test]
fn a_limit_of_no_session_per_identity_means_one() {
    let mut world = limited(Limits { sessions_per_identity_max: 0, ..Limits::default() });
    let config = client_config(Suite::Aes128Ccm8, None);
    world.connect(address(1), &config);
    let (mut client, session) = world.connect(address(2), &config);
    assert_eq!(world.engine.sessions(), 1);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.engine.awake(), 0);
    world.events.clear();
    world.echo(address(2), &mut client, session);
}
