//! A full queue, and retention that deletes under tokens and under the reader.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use inspector::{HistoryError, HistoryQuery, ReaderError};
use message_log::{AppendError, Clock, DeviceKey, Kind, NewRecord, Offset, Options};
use vocabulary::Protocol;

use crate::world::{TEMPERATURE, World};

/// A clock that can be held: the log's writer asks it for the time, and waits.
fn held_clock(hold: &Arc<Mutex<()>>) -> Clock {
    let hold = Arc::clone(hold);
    let start = Instant::now();
    let wall = move || {
        drop(hold.lock());
        SystemTime::now().into()
    };
    Clock::new(wall, move || start.elapsed())
}

#[test]
fn a_full_queue_delays_notices_and_loses_none() {
    let hold = Arc::new(Mutex::new(()));
    let clock = held_clock(&hold);
    let world = World::with_options(Options { queue_records: 4, clock, ..Options::default() });
    world.create_template("t", TEMPERATURE, &[Protocol::Udp]);
    for device in 0..40 {
        world.send(device, Protocol::Udp, &[0]);
    }
    let mut reader = world.reader();
    let held = hold.lock().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(world.log.append(vec![unrelated()]));
        // The writer may take some out of the queue before it is held.
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..3 {
        let error = reader.step().unwrap_err();
        let full = |source| matches!(source, AppendError::Full { .. });
        let ReaderError::Append { waiting: 80, source } = error else { panic!("{error}") };
        assert!(full(source), "{source}");
        assert!(reader.flush().is_err(), "the cursor must not pass unsaid notices");
    }
    drop(held);
    drop(waiting);
    while reader.step().is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    reader.flush().unwrap();
    let devices: Vec<_> = world.notices().into_iter().map(|notice| notice.iccid).collect();
    assert_eq!(devices.len(), 80);
    assert!(devices.is_sorted());
}

/// A record that the reader does not read.
fn unrelated() -> NewRecord {
    NewRecord {
        kind: Kind::new(2),
        device: DeviceKey::NONE,
        received_at: SystemTime::now().into(),
        body: Vec::new(),
    }
}

/// A log that keeps four records a segment and deletes soon.
fn forgetful() -> World {
    World::with_options(Options {
        segment_records: 4,
        segment_span: Duration::from_millis(50),
        retention: Duration::from_millis(100),
        check_interval: Duration::from_millis(20),
        ..Options::default()
    })
}

/// Goes on sending until everything before `place` is deleted.
fn send_until_deleted(world: &World, place: Offset) {
    let begun = Instant::now();
    while world.log.oldest() < place {
        world.send(1, Protocol::Udp, b"new");
        std::thread::sleep(Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is deleted");
    }
}

#[test]
fn a_token_to_deleted_messages_names_the_oldest() {
    let world = forgetful();
    for _ in 0..8 {
        world.send(1, Protocol::Udp, b"old");
    }
    let query = HistoryQuery { page_size: 2, ..HistoryQuery::default() };
    let token = world.inspector.history(&query).unwrap().next;
    assert!(token.is_some());
    send_until_deleted(&world, world.log.end());
    let error = world.inspector.history(&HistoryQuery { token, ..query }).unwrap_err();
    let HistoryError::Gone { oldest: Some(oldest) } = error else { panic!("{error}") };
    assert!(error.to_string().contains(&oldest.to_string()));
}

#[test]
fn a_reader_that_retention_overtook_says_so_and_goes_on() {
    let world = forgetful();
    let mut reader = world.reader();
    for _ in 0..8 {
        world.send(1, Protocol::Udp, b"old");
    }
    send_until_deleted(&world, world.log.end());
    while reader.step().unwrap() > 0 || world.inspector.progress().messages == 0 {}
    let progress = world.inspector.progress();
    assert_eq!(progress.overtaken, 1);
    assert_eq!(progress.position, world.log.end());
}
