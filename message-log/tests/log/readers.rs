//! Readers that are in the way: a program from outside that holds an old state of a segment.

use std::path::Path;
use std::time::{Duration, Instant};

use message_log::{MessageLog, Options, Record};
use rusqlite::Connection;

use crate::world::{fill, open, options, options_of, read_all, record, wait_until};

/// A connection that looks at the state of now until it is dropped.
fn snapshot(dir: &Path, segment: u32) -> Connection {
    let connection = Connection::open(dir.join(format!("segment-{segment:010}.db"))).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    connection.query_row("SELECT count(*) FROM records", (), |row| row.get::<_, i64>(0)).unwrap();
    connection
}

/// Changes segment while a reader holds an old state of the first.
fn fill_behind_a_reader(log: &MessageLog, dir: &Path) -> Connection {
    fill(log, 0..10);
    let reader = snapshot(dir, 1);
    fill(log, 10..100);
    wait_until("change of segment", || log.status().segments == 2);
    fill(log, 100..120);
    std::thread::sleep(Duration::from_millis(300));
    reader
}

/// A reader from outside kept the write-ahead file from being carried over, the segment was
/// listed as sealed all the same, readers did not see that file any more, and the next start
/// removed it: acknowledged records were gone. Sealing waits, and nothing else does.
#[test]
fn a_segment_is_sealed_only_when_all_of_it_is_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(100));
    let reader = fill_behind_a_reader(&log, folder.path());
    assert_eq!(log.status().unsealed, 2, "sealed although a reader is in the way");
    assert_eq!(read_all(&log).len(), 120);
    fill(&log, 120..350);
    wait_until("sealing of the others", || log.status().unsealed == 2);
    assert_eq!(read_all(&log).len(), 350);
    drop(reader);
    wait_until("sealing", || log.status().unsealed == 1);
    assert_eq!(read_all(&log).len(), 350);
    log.close();
    drop(log);
    assert_eq!(read_all(&open(folder.path(), &options_of(100))).len(), 350);
}

/// Lists segment 1 as sealed, as the release did that sealed too early.
fn list_as_sealed(dir: &Path, records: &[Record]) {
    let (first, last) = (&records[0], &records[records.len() - 1]);
    let control = Connection::open(dir.join("control.db")).unwrap();
    let changed = control.execute(
        "UPDATE segments SET sealed = 1, first = 0, records = ?5, first_id = ?1, last_id = ?2,
             earliest = ?3, latest = ?4, last_commit = ?4, bytes = 1 WHERE number = 1",
        (
            first.id.to_bytes(),
            last.id.to_bytes(),
            first.received_at.as_micros(),
            last.received_at.as_micros(),
            records.len() as i64,
        ),
    );
    assert_eq!(changed.unwrap(), 1);
}

/// The same loss, seen from the next start, over a folder that such a release left: the
/// write-ahead file beside the sealed segment was removed unread.
#[test]
fn a_write_ahead_file_beside_a_sealed_segment_is_carried_over_at_the_start() {
    // The records are of one day, which the clock leaves behind.
    let years = Duration::from_hours(24 * 365 * 50);
    let options = Options { retention: years, ..options_of(100) };
    for is_in_the_way in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path(), &options);
        let mut reader = Some(fill_behind_a_reader(&log, folder.path()));
        let truth = read_all(&log);
        drop(log);
        list_as_sealed(folder.path(), &truth[..100]);
        if !is_in_the_way {
            // As a crash leaves it: closing an ordinary connection would carry over.
            let flag = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            reader.as_ref().unwrap().set_db_config(flag, true).unwrap();
            reader = None;
        }
        let only_read = MessageLog::open_read_only(folder.path()).unwrap();
        let limits = message_log::ReadLimits::default();
        assert_eq!(only_read.read(message_log::Offset::BEGINNING, limits).unwrap().records, truth);
        drop(only_read);
        let (log, opened) = MessageLog::open(folder.path(), options.clone()).unwrap();
        assert_eq!((read_all(&log), opened.damaged), (truth.clone(), 0));
        fill(&log, 120..350);
        drop(reader);
        wait_until("sealing", || log.status().unsealed == 1);
        drop(log);
        let log = open(folder.path(), &options);
        assert_eq!((read_all(&log).len(), &read_all(&log)[..120]), (350, &truth[..]));
    }
}

/// While a reader held an old state, the writer waited five seconds for it at each checkpoint,
/// again and again, and no append was answered meanwhile. It waits for moments now.
#[test]
fn appends_go_on_while_a_reader_holds_an_old_state() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { wal_bytes: 1 << 16, ..options() };
    let log = open(folder.path(), &options);
    fill(&log, 0..10);
    let reader = snapshot(folder.path(), 1);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for number in 10..400 {
        let asked = Instant::now();
        log.append(vec![record(1, 1, number)]).wait().unwrap();
        longest = longest.max(asked.elapsed());
    }
    // At the least a wait of 5 s before; 50 ms and a slow disk now.
    assert!(longest < Duration::from_secs(2), "an append took {longest:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(reader);
    assert_eq!(read_all(&log).len(), 400);
}

/// The same folder with the reader still there: the log goes on in a segment that its list calls
/// sealed. What is written from then on must not be cut off by what the list said of before.
#[test]
fn a_segment_that_is_written_again_is_not_listed_as_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(100));
    fill(&log, 0..10);
    let reader = snapshot(folder.path(), 1);
    fill(&log, 10..50);
    let truth = read_all(&log);
    drop(log);
    list_as_sealed(folder.path(), &truth);
    let log = open(folder.path(), &options_of(100));
    fill(&log, 50..60);
    drop(reader);
    log.close();
    drop(log);
    assert_eq!(read_all(&open(folder.path(), &options_of(100))).len(), 60);
}
