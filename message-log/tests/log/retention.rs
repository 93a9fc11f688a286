//! Old segments go, and nothing else does.

use std::time::Duration;

use message_log::{MessageLog, Offset, Options, Query, ReadError, ReadLimits};

use crate::world::{
    Hands, fill, fill_segments, offsets, open, options_of, read_all, wait_until, wait_until_sealed,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn with_clock(hands: &Hands) -> Options {
    Options { clock: hands.clock(), ..options_of(100) }
}

/// Time for the background thread to do what it must not.
fn settle() {
    std::thread::sleep(Duration::from_millis(150));
}

#[test]
fn records_are_kept_168_hours_and_gone_after_169() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill(&log, 0..50);
    // The segment is old after an hour, although it is not full and nothing comes.
    hands.pass(HOUR);
    wait_until("sealing by age", || log.status().segments == 2);
    wait_until_sealed(&log);
    for _ in 0..166 {
        hands.pass(HOUR);
        std::thread::sleep(Duration::from_millis(1));
    }
    hands.pass(HOUR - Duration::from_secs(1));
    settle();
    assert_eq!(read_all(&log).len(), 50);
    hands.pass(Duration::from_secs(2));
    wait_until("deletion", || log.status().segments == 1);
    assert_eq!((log.oldest(), log.status().records), (Offset::from_u64(50), 0));
    let overtaken = ReadError::Overtaken { oldest: Offset::from_u64(50) };
    let read = log.read(Offset::BEGINNING, ReadLimits::default());
    assert_eq!(read, Err(overtaken.clone()));
    let page = Query { before: Some(Offset::from_u64(20)), ..Query::default() };
    assert_eq!(log.newest(page), Err(overtaken));
}

#[test]
fn numbers_go_on_although_every_record_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill(&log, 0..100);
    let last = read_all(&log).pop().unwrap();
    hands.pass(HOUR);
    wait_until("change of segment", || log.status().segments == 2);
    wait_until_sealed(&log);
    log.close();
    drop(log);
    // A later process: the records are as old as the clock says.
    let log = open(folder.path(), &with_clock(&hands));
    hands.jump(200 * 3_600);
    settle();
    hands.pass(Duration::from_secs(601));
    wait_until("deletion", || log.status().records == 0);
    log.close();
    drop(log);
    let log = open(folder.path(), &with_clock(&hands));
    fill(&log, 0..1);
    let record = read_all(&log).remove(0);
    assert_eq!(record.offset, Offset::from_u64(100));
    // 100 records of 7 devices: device 1 had 15, of which number 49 was rare.
    assert!(record.id > last.id && record.device_seq == 14 + 1);
}

#[test]
fn after_a_jump_of_the_clock_nothing_goes_for_ten_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill_segments(&log, 2, 100);
    fill(&log, 200..250);
    log.close();
    drop(log);
    let log = open(folder.path(), &with_clock(&hands));
    hands.jump(24 * 400 * 3_600);
    settle();
    assert_eq!(read_all(&log).len(), 250, "the jump alone deletes nothing");
    hands.jump(-24 * 400 * 3_600);
    hands.pass(Duration::from_secs(601));
    settle();
    assert_eq!(read_all(&log).len(), 250, "the clock came back");
    hands.jump(24 * 400 * 3_600);
    settle();
    hands.pass(Duration::from_secs(590));
    settle();
    assert_eq!(read_all(&log).len(), 250, "not confirmed yet");
    hands.pass(Duration::from_secs(11));
    wait_until("deletion", || log.oldest() >= Offset::from_u64(200));
}

#[test]
fn a_clock_in_1970_neither_deletes_nor_turns_ids_back() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill(&log, 0..150);
    hands.jump(-crate::world::START_MICROS / 1_000_000);
    fill(&log, 150..350);
    wait_until_sealed(&log);
    settle();
    let all = read_all(&log);
    assert_eq!(all.len(), 350);
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[test]
fn readers_are_told_when_retention_overtakes_them() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let options = Options { retention: Duration::from_secs(5), ..with_clock(&hands) };
    let log = open(folder.path(), &options);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut next, mut seen, mut overtaken) = (Offset::BEGINNING, Vec::new(), 0);
            while next < Offset::from_u64(3_000) {
                match log.read(next, ReadLimits { records: 10, bytes: 1 << 20 }) {
                    Ok(batch) => {
                        seen.extend(offsets(&batch.records));
                        next = batch.next;
                    }
                    Err(ReadError::Overtaken { oldest }) => {
                        assert!(oldest > next);
                        (next, overtaken) = (oldest, overtaken + 1);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            (seen, overtaken)
        });
        for part in 0..30 {
            fill(&log, part * 100..(part + 1) * 100);
            hands.pass(Duration::from_secs(1));
            wait_until_sealed(&log);
        }
        let (seen, overtaken) = reader.join().unwrap();
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        // What was not overtaken came without a gap.
        let gaps = seen.windows(2).filter(|pair| pair[0].next() != pair[1]).count();
        assert!(gaps <= overtaken);
    });
    assert_eq!(log.status().damaged, 0);
}

#[test]
fn files_that_no_list_names_are_removed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(100));
    fill(&log, 0..250);
    wait_until_sealed(&log);
    drop(log);
    let stray = folder.path().join("segment-0000009999.db");
    std::fs::write(&stray, b"left by a crash between list and file").unwrap();
    let (log, opened) = MessageLog::open(folder.path(), options_of(100)).unwrap();
    assert!(!stray.exists() && opened.removed == 1);
    assert_eq!(read_all(&log).len(), 250);
}

/// A machine without a clock of its own started in 1970. Records were committed, the clock was
/// set, and the segment was rolled as fifty years old; ten minutes later retention deleted
/// messages that were minutes old. Records of this run count from the jump on, also after a
/// restart within the ten minutes.
#[test]
fn records_from_before_the_clock_was_set_are_kept_from_then_on() {
    for is_restarted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let hands = Hands::new();
        hands.jump(-crate::world::START_MICROS / 1_000_000);
        let mut log = open(folder.path(), &with_clock(&hands));
        fill_segments(&log, 1, 100);
        fill(&log, 100..150);
        hands.jump(crate::world::START_MICROS / 1_000_000);
        wait_until("change of segment", || log.status().segments == 3);
        wait_until_sealed(&log);
        settle();
        if is_restarted {
            fill(&log, 150..151);
            drop(log);
            log = open(folder.path(), &with_clock(&hands));
        }
        hands.pass(Duration::from_secs(660));
        settle();
        assert!(read_all(&log).len() >= 150, "deleted after minutes");
        for _ in 0..168 {
            hands.pass(HOUR);
            std::thread::sleep(Duration::from_millis(7));
        }
        wait_until("deletion after a week", || log.oldest() >= Offset::from_u64(150));
    }
}

/// As above, and the machine was switched off while the clock was still in 1970: the process that
/// sees the jump is a later one. No release of this software is as old as such a time.
#[test]
fn records_from_1970_are_kept_by_the_next_process_too() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    hands.jump(-crate::world::START_MICROS / 1_000_000);
    let log = open(folder.path(), &with_clock(&hands));
    fill_segments(&log, 1, 100);
    fill(&log, 100..150);
    drop(log);
    hands.jump(crate::world::START_MICROS / 1_000_000);
    let log = open(folder.path(), &with_clock(&hands));
    wait_until("change of segment", || log.status().segments == 3);
    wait_until_sealed(&log);
    hands.pass(Duration::from_secs(660));
    settle();
    assert_eq!(read_all(&log).len(), 150);
}

/// As above with a clock that was wrong by a month only, which no rule can tell from a right one:
/// the process that wrote the records sees the jump.
#[test]
fn records_of_this_run_are_kept_although_the_clock_jumps_by_a_month() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill_segments(&log, 2, 100);
    hands.jump(30 * 24 * 3_600);
    settle();
    drop(log);
    // After a restart the newest record says that no jump was seen.
    let log = open(folder.path(), &with_clock(&hands));
    fill(&log, 200..201);
    drop(log);
    let log = open(folder.path(), &with_clock(&hands));
    hands.pass(Duration::from_secs(660));
    settle();
    assert_eq!(read_all(&log).len(), 201);
}

/// What a wrong jump raised was going to be kept for as long as the jump was wide. When the clock
/// comes back, so do the times.
#[test]
fn a_jump_that_is_taken_back_keeps_nothing_longer() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::new();
    let log = open(folder.path(), &with_clock(&hands));
    fill_segments(&log, 2, 100);
    hands.jump(24 * 400 * 3_600);
    settle();
    hands.jump(-24 * 400 * 3_600);
    settle();
    hands.pass(Duration::from_secs(660));
    for _ in 0..168 {
        hands.pass(HOUR);
        std::thread::sleep(Duration::from_millis(7));
    }
    wait_until("deletion", || log.oldest() == Offset::from_u64(200));
}

/// Whoever keeps something for as long as records may need it asks for the oldest arrival.
#[test]
fn the_oldest_arrival_is_that_of_the_oldest_record_held() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(100));
    assert_eq!(log.oldest_received(), None);
    fill(&log, 20..150);
    let record = |number| crate::world::record(1, 1, number);
    assert_eq!(log.oldest_received(), Some(record(20).received_at));
    wait_until_sealed(&log);
    // Devices deliver late: the newest record may be the oldest arrival.
    log.append(vec![record(7)]).wait().unwrap();
    assert_eq!(log.oldest_received(), Some(record(7).received_at));
    drop(log);
    let log = open(folder.path(), &options_of(100));
    assert_eq!(log.oldest_received(), Some(record(7).received_at));
}
