//! Random use of the log against a model: a list of records in memory.

use std::collections::HashMap;

use message_log::{DeviceKey, Kind, KindSet, MessageLog, Offset, Query, ReadLimits, Record};
use proptest::prelude::*;
use vocabulary::Timestamp;

use crate::world::{START_MICROS, open, options_of, record, wait_until_sealed};

#[derive(Debug, Clone)]
enum Step {
    /// Calls of append, each with so many records, all outstanding at once.
    Append(Vec<u8>),
    Read {
        from: u16,
        records: u8,
        kinds: u8,
    },
    Newest {
        device: u8,
        kinds: u8,
        before: u16,
        from: u16,
        until: u16,
        limit: u8,
    },
    Find(u16),
    Seal,
    /// Close in order and open again.
    Reopen,
    /// Drop without closing, with calls not waited for, and open again.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(1..30_u8, 1..6).prop_map(Step::Append),
        2 => (any::<u16>(), 0..60_u8, 0..4_u8)
            .prop_map(|(from, records, kinds)| Step::Read { from, records, kinds }),
        3 => (0..6_u8, 0..4_u8, any::<u16>(), any::<u16>(), any::<u16>(), 0..40_u8).prop_map(
            |(device, kinds, before, from, until, limit)| {
                Step::Newest { device, kinds, before, from, until, limit }
            }
        ),
        2 => any::<u16>().prop_map(Step::Find),
        1 => Just(Step::Seal),
        1 => Just(Step::Reopen),
        1 => (0..5_u8).prop_map(Step::Crash),
    ]
}

fn kind_set(choice: u8) -> KindSet {
    match choice {
        0 => KindSet::ALL,
        1 => KindSet::only(Kind::new(1)),
        2 => KindSet::rare(),
        _ => KindSet::only(Kind::new(2)).with(Kind::new(65)),
    }
}

/// The log and what it should hold.
struct World {
    dir: tempfile::TempDir,
    log: MessageLog,
    model: Vec<Record>,
    numbers: HashMap<u64, u64>,
    made: u64,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), &options_of(50));
        Self { dir, log, model: Vec::new(), numbers: HashMap::new(), made: 0 }
    }

    /// A record that depends on its number alone: devices 0 (none) to 4, kinds 1, 2, 64, 65.
    fn next(&mut self) -> message_log::NewRecord {
        self.made += 1;
        let mixed = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let kind = [1, 1, 2, 1, 64, 1, 2, 65][mixed as usize % 8];
        record(mixed / 8 % 5, kind, self.made)
    }

    fn append(&mut self, calls: &[u8]) {
        let waiting: Vec<_> = calls
            .iter()
            .map(|count| {
                let records: Vec<_> = (0..*count).map(|_| self.next()).collect();
                (records.clone(), self.log.append(records))
            })
            .collect();
        for (records, appending) in waiting {
            let appended = appending.wait().unwrap();
            for (record, (offset, id)) in records.iter().zip(appended.records()) {
                let device = record.device.as_u64();
                let device_seq = if device > 0 && !record.kind.is_rare() {
                    let number = self.numbers.entry(device).or_insert(0);
                    *number += 1;
                    *number
                } else {
                    0
                };
                assert_eq!(offset.as_u64(), self.model.len() as u64);
                assert!(self.model.last().is_none_or(|last| last.id < id));
                self.model.push(Record {
                    offset,
                    id,
                    device: record.device,
                    device_seq,
                    kind: record.kind,
                    received_at: record.received_at,
                    body: record.body.clone(),
                });
            }
        }
    }

    fn read(&self, from: u64, records: usize, kinds: KindSet) {
        let limits = ReadLimits { records, bytes: 1 << 20 };
        let batch = self.log.read_kinds(Offset::from_u64(from), kinds, limits).unwrap();
        let wanted =
            self.model[from as usize..].iter().filter(|record| kinds.contains(record.kind));
        let expected: Vec<_> = wanted.take(records).cloned().collect();
        assert_eq!(batch.records, expected);
        assert!(records == 0 || batch.next == self.log.end() || expected.len() == records);
    }

    fn newest(&self, query: Query) {
        let expected: Vec<_> = self
            .model
            .iter()
            .rev()
            .filter(|record| query.before.is_none_or(|before| record.offset < before))
            .filter(|record| query.device.is_none_or(|device| record.device == device))
            .filter(|record| query.kinds.contains(record.kind))
            .filter(|record| query.from.is_none_or(|from| record.received_at >= from))
            .filter(|record| query.until.is_none_or(|until| record.received_at < until))
            .take(query.limit)
            .cloned()
            .collect();
        assert_eq!(self.log.newest(query).unwrap(), expected, "{query:?}");
    }

    /// Opens again; records of calls that nobody waited for may be there, whole calls in order.
    fn open_again(&mut self, unanswered: &[message_log::NewRecord]) {
        self.log = open(self.dir.path(), &options_of(50));
        let from = Offset::from_u64(self.model.len() as u64);
        let batch = self.log.read(from, ReadLimits { records: 999, bytes: 1 << 20 }).unwrap();
        for (found, sent) in batch.records.into_iter().zip(unanswered) {
            assert_eq!(found.body, sent.body);
            if found.device_seq > 0 {
                let number = self.numbers.entry(found.device.as_u64()).or_insert(0);
                *number += 1;
                assert_eq!(found.device_seq, *number);
            }
            self.model.push(found);
        }
        assert_eq!(self.log.end().as_u64(), self.model.len() as u64);
    }

    fn run(&mut self, step: Step) {
        let length = self.model.len() as u64;
        let place = |number: u16| u64::from(number) % (length + 1);
        match step {
            Step::Append(calls) => self.append(&calls),
            Step::Read { from, records, kinds } => {
                self.read(place(from), usize::from(records), kind_set(kinds));
            }
            Step::Newest { device, kinds, before, from, until, limit } => {
                // Half of the questions leave each condition out.
                let time = |number: u16| {
                    let millis = i64::try_from(place(number)).unwrap();
                    number
                        .is_multiple_of(2)
                        .then(|| Timestamp::from_micros(START_MICROS + millis * 1_000))
                };
                self.newest(Query {
                    device: (device < 5)
                        .then(|| DeviceKey::from_u64(u64::from(device)))
                        .filter(|device| !device.is_none()),
                    kinds: kind_set(kinds),
                    from: time(from),
                    until: time(until),
                    before: before.is_multiple_of(2).then(|| Offset::from_u64(place(before))),
                    limit: usize::from(limit),
                });
            }
            Step::Find(number) => {
                if let Some(record) = self.model.get(place(number) as usize) {
                    assert_eq!(self.log.find(record.id).unwrap().as_ref(), Some(record));
                }
            }
            Step::Seal => wait_until_sealed(&self.log),
            Step::Reopen => {
                self.log.close();
                self.open_again(&[]);
            }
            Step::Crash(calls) => {
                let mut unanswered = Vec::new();
                for _ in 0..calls {
                    let record = self.next();
                    unanswered.push(record.clone());
                    drop(self.log.append(vec![record]));
                }
                // The log must be gone before it is opened again.
                let nothing = tempfile::tempdir().unwrap();
                self.log = open(nothing.path(), &options_of(50));
                self.open_again(&unanswered);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_what_the_model_does(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
    }
}
