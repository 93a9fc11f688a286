//! What each operation promises.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use message_log::{
    AppendError, DeviceKey, Kind, KindSet, MessageLog, Offset, OpenError, Options, Query,
    ReadError, ReadLimits, State,
};
use vocabulary::{EventId, Timestamp};

use crate::world::{
    START_MICROS, fill, offsets, open, options, options_of, read_all, record, wait_until_sealed,
};

#[test]
fn what_was_appended_is_read_at_once_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options());
    let appended = log.append(vec![record(1, 1, 0), record(1, 64, 1), record(1, 1, 2)]).wait();
    let appended = appended.unwrap();
    assert_eq!(appended.first, Offset::BEGINNING);
    let batch = log.read(Offset::BEGINNING, ReadLimits::default()).unwrap();
    assert_eq!(batch.next, log.end());
    let found: Vec<_> = batch.records.iter().map(|record| (record.offset, record.id)).collect();
    assert_eq!(found, appended.records().collect::<Vec<_>>());
    let numbers: Vec<u64> = batch.records.iter().map(|record| record.device_seq).collect();
    assert_eq!(numbers, [1, 0, 2], "rare kinds are not numbered");
    assert_eq!(batch.records[1].body, b"1/64/1");
    assert_eq!(log.read(batch.next, ReadLimits::default()).unwrap().next, batch.next);
}

#[test]
fn an_append_can_be_awaited_and_the_end_watched() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options());
    let end = log.watch();
    let mut appending = pin!(log.append(vec![record(1, 1, 0)]));
    let mut context = Context::from_waker(Waker::noop());
    let appended = loop {
        if let Poll::Ready(appended) = appending.as_mut().poll(&mut context) {
            break appended.unwrap();
        }
    };
    assert_eq!(appended.ids.len(), 1);
    assert_eq!(*end.borrow(), log.end());
    assert!(end.has_changed().unwrap());
}

#[test]
fn limits_of_a_read_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(10));
    fill(&log, 0..35);
    let batch = log.read(Offset::BEGINNING, ReadLimits { records: 12, bytes: 1 << 20 }).unwrap();
    assert_eq!((batch.records.len(), batch.next), (12, Offset::from_u64(12)));
    let batch = log.read(batch.next, ReadLimits { records: 100, bytes: 1 }).unwrap();
    assert_eq!(batch.records.len(), 1, "one record although it is larger than the limit");
    let batch = log.read(batch.next, ReadLimits { records: 0, bytes: 9 }).unwrap();
    assert!(batch.records.is_empty());
}

#[test]
fn readers_of_rare_kinds_see_them_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(25));
    fill(&log, 0..200);
    for sealed in [false, true] {
        if sealed {
            wait_until_sealed(&log);
        }
        let limits = ReadLimits { records: 7, bytes: 1 << 20 };
        let (mut next, mut found) = (Offset::BEGINNING, Vec::new());
        while next < log.end() {
            let batch = log.read_kinds(next, KindSet::rare(), limits).unwrap();
            assert!(batch.next > next);
            found.extend(offsets(&batch.records));
            next = batch.next;
        }
        let expected: Vec<_> = (0..200).filter(|at| at % 10 == 9).map(Offset::from_u64).collect();
        assert_eq!(found, expected);
        let telemetry = KindSet::only(Kind::new(1));
        let batch = log.read_kinds(Offset::from_u64(9), telemetry, ReadLimits::default()).unwrap();
        assert_eq!(batch.records[0].offset, Offset::from_u64(10));
    }
}

#[test]
fn the_newest_of_a_device_come_in_stable_pages() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(30));
    fill(&log, 0..210);
    for round in 0..2 {
        let device = Some(DeviceKey::from_u64(3));
        let mut query = Query { device, limit: 4, ..Query::default() };
        let mut found = Vec::new();
        loop {
            let page = log.newest(query).unwrap();
            let Some(last) = page.last() else { break };
            query.before = Some(last.offset);
            found.extend(offsets(&page));
            // New records do not move what comes after.
            fill(&log, 1_000 + round..1_001 + round);
        }
        let mut expected: Vec<_> =
            (0..210).filter(|at| at % 7 == 2).rev().map(Offset::from_u64).collect();
        found.retain(|offset| *offset < Offset::from_u64(210));
        assert_eq!(found, expected);
        expected.retain(|offset| offset.as_u64() % 10 == 9);
        let notices = Query { device, kinds: KindSet::rare(), limit: 100, ..Query::default() };
        let mut found = offsets(&log.newest(notices).unwrap());
        found.retain(|offset| *offset < Offset::from_u64(210));
        assert_eq!(found, expected);
        wait_until_sealed(&log);
    }
}

#[test]
fn the_newest_of_a_span_of_time_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(3_000));
    fill(&log, 0..10_000);
    let at = |number: i64| Some(Timestamp::from_micros(START_MICROS + number * 1_000));
    let query = Query { from: at(1_500), until: at(4_500), limit: 9_999, ..Query::default() };
    let found = log.newest(query).unwrap();
    assert_eq!(found.len(), 3_000);
    assert_eq!(found[0].offset, Offset::from_u64(4_499));
    let one = Query { device: Some(DeviceKey::from_u64(1)), limit: 3, ..query };
    let found = log.newest(one).unwrap();
    assert_eq!(offsets(&found), [4_494, 4_487, 4_480].map(Offset::from_u64));
}

#[test]
fn every_id_is_found_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(40));
    fill(&log, 0..130);
    for record in read_all(&log) {
        assert_eq!(log.find(record.id).unwrap(), Some(record));
    }
    assert_eq!(log.find(EventId::from_bytes([0; 16])).unwrap(), None);
    assert_eq!(log.find(EventId::from_bytes([255; 16])).unwrap(), None);
}

#[test]
fn numbers_and_ids_go_on_after_an_orderly_end_and_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6_u64 {
        let (log, opened) = MessageLog::open(folder.path(), options_of(25)).unwrap();
        assert_eq!(opened.records, round * 35);
        assert_eq!(opened.was_clean, round % 2 == 1);
        assert_eq!((opened.damaged, opened.quarantined), (0, 0));
        fill(&log, round * 35..(round + 1) * 35);
        if round % 2 == 0 {
            log.close();
            assert_eq!(log.append(vec![record(1, 1, 0)]).wait(), Err(AppendError::Closed));
        }
    }
    let log = open(folder.path(), &options_of(25));
    let all = read_all(&log);
    assert_eq!(all.len(), 210);
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
    for device in 1..=7 {
        let numbered = all.iter().filter(|record| record.device.as_u64() == device);
        let numbers: Vec<_> =
            numbered.map(|record| record.device_seq).filter(|seq| *seq > 0).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_second_opener_is_refused_and_a_reader_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options());
    fill(&log, 0..10);
    let refused = MessageLog::open(folder.path(), options());
    assert!(matches!(refused, Err(OpenError::InUse { .. })));
    assert!(matches!(MessageLog::open_read_only(folder.path()), Err(OpenError::InUse { .. })));
    drop(log);
    let reader = MessageLog::open_read_only(folder.path()).unwrap();
    assert_eq!(reader.read(Offset::BEGINNING, ReadLimits::default()).unwrap().records.len(), 10);
    assert_eq!(reader.status().records, 10);
    assert_eq!(reader.newest(Query::default()).unwrap().len(), 10);
    let refused = MessageLog::open(folder.path(), options());
    assert!(matches!(refused, Err(OpenError::InUse { .. })));
}

#[test]
fn bodies_have_a_limit_and_nothing_is_no_append() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &Options { body_bytes: 8, ..options() });
    let mut long = record(1, 1, 0);
    long.body = vec![0; 9];
    let refused = log.append(vec![long]).wait().unwrap_err();
    assert_eq!(refused.to_string(), "body of 9 bytes exceeds the limit of 8");
    assert!(log.append(Vec::new()).wait().unwrap().ids.is_empty());
    assert_eq!(log.status().state, State::Healthy);
    assert_eq!(log.end(), Offset::BEGINNING);
}

#[test]
fn many_threads_append_and_read_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(500));
    std::thread::scope(|scope| {
        for device in 1..=4_u64 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..500 {
                    let appended = log.append(vec![record(device, 1, number)]).wait().unwrap();
                    let query = Query {
                        device: Some(DeviceKey::from_u64(device)),
                        limit: 1,
                        ..Query::default()
                    };
                    assert_eq!(log.newest(query).unwrap()[0].id, appended.ids[0]);
                }
            });
        }
        scope.spawn(|| while read_all(&log).len() < 2_000 {});
    });
    assert_eq!(log.status().records, 2_000);
    assert_eq!(log.read(Offset::from_u64(9_999), ReadLimits::default()).unwrap().next, log.end());
    let far = Query { before: Some(Offset::from_u64(9_999)), ..Query::default() };
    assert_eq!(log.newest(far).unwrap().len(), 25);
    assert!(!matches!(log.find(EventId::from_bytes([9; 16])), Err(ReadError::Storage(_))));
}
