//! What all tests need: small logs, made-up records, a clock that obeys.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use message_log::{
    Clock, DeviceKey, Kind, MessageLog, NewRecord, Offset, Options, ReadLimits, Record,
};
use vocabulary::Timestamp;

/// 2026-11-21T00:00:00Z in microseconds.
pub(crate) const START_MICROS: i64 = 1_795_219_200_000_000;

/// Small files and quick background work.
pub(crate) fn options() -> Options {
    Options {
        wal_bytes: 1 << 16,
        check_interval: Duration::from_millis(5),
        probe_interval: Duration::from_millis(20),
        ..Options::default()
    }
}

/// As [`options`], with segments of so many records.
pub(crate) fn options_of(segment_records: u32) -> Options {
    Options { segment_records, ..options() }
}

pub(crate) fn open(dir: &Path, options: &Options) -> MessageLog {
    MessageLog::open(dir, options.clone()).unwrap().0
}

/// A record whose body tells what it is.
pub(crate) fn record(device: u64, kind: u8, number: u64) -> NewRecord {
    NewRecord {
        kind: Kind::new(kind),
        device: DeviceKey::from_u64(device),
        received_at: Timestamp::from_micros(START_MICROS + number as i64 * 1_000),
        body: format!("{device}/{kind}/{number}").into_bytes(),
    }
}

/// Appends `count` records one by one of devices 1 to 7, telemetry and each tenth rare.
pub(crate) fn fill(log: &MessageLog, numbers: std::ops::Range<u64>) {
    let waiting: Vec<_> = numbers
        .map(|number| {
            let kind = if number % 10 == 9 { 64 } else { 1 };
            log.append(vec![record(number % 7 + 1, kind, number)])
        })
        .collect();
    waiting.into_iter().for_each(|appending| drop(appending.wait().unwrap()));
}

/// As [`fill`], and each segment gets exactly `size` records; the last one is empty.
pub(crate) fn fill_segments(log: &MessageLog, segments: u64, size: u64) {
    for part in 0..segments {
        let before = log.status().segments;
        fill(log, part * size..(part + 1) * size);
        wait_until("change of segment", || log.status().segments > before);
    }
    wait_until_sealed(log);
}

/// Reads everything from the oldest record on.
pub(crate) fn read_all(log: &MessageLog) -> Vec<Record> {
    let mut all = Vec::new();
    let mut next = log.oldest();
    loop {
        let batch = log.read(next, ReadLimits { records: 97, bytes: 1 << 20 }).unwrap();
        all.extend(batch.records);
        if batch.next == next {
            return all;
        }
        next = batch.next;
    }
}

/// Waits until all segments but the one that is written are sealed.
pub(crate) fn wait_until_sealed(log: &MessageLog) {
    wait_until("sealed", || log.status().unsealed <= 1);
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A clock that the test moves: time of day and steady time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hands {
    wall_micros: Arc<AtomicI64>,
    steady_seconds: Arc<AtomicU64>,
}

impl Hands {
    pub(crate) fn new() -> Self {
        let hands = Self::default();
        hands.wall_micros.store(START_MICROS, Ordering::SeqCst);
        hands
    }

    pub(crate) fn clock(&self) -> Clock {
        let (wall, steady) = (Arc::clone(&self.wall_micros), Arc::clone(&self.steady_seconds));
        Clock::new(
            move || Timestamp::from_micros(wall.load(Ordering::SeqCst)),
            move || Duration::from_secs(steady.load(Ordering::SeqCst)),
        )
    }

    /// Time passes on both.
    pub(crate) fn pass(&self, span: Duration) {
        // Steady time first: seen alone it is no jump of the time of day.
        self.steady_seconds.fetch_add(span.as_secs(), Ordering::SeqCst);
        self.jump(i64::try_from(span.as_secs()).unwrap());
    }

    /// The time of day jumps.
    pub(crate) fn jump(&self, seconds: i64) {
        self.wall_micros.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

/// The offsets of records.
pub(crate) fn offsets(records: &[Record]) -> Vec<Offset> {
    records.iter().map(|record| record.offset).collect()
}
