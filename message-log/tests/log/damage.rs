//! Bits that flip while nobody looks.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use message_log::{DeviceKey, KindSet, MessageLog, Offset, Query, Record};

use crate::world::{fill, fill_segments, open, options_of, read_all};

const RECORDS: u64 = 3_000;

fn sealed_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".db"))
        .filter(|path| path.to_string_lossy().contains("segment-"))
        .collect();
    files.sort();
    files.truncate(2);
    files
}

/// Everything that a log tells, by every way of asking.
fn told(log: &MessageLog) -> (Vec<Record>, Vec<Record>, u64) {
    let mut asked = Vec::new();
    for device in 1..=7 {
        let device = Some(DeviceKey::from_u64(device));
        let query = Query { device, limit: 10_000, ..Query::default() };
        asked.extend(log.newest(query).unwrap());
    }
    let rare = Query { kinds: KindSet::rare(), limit: 10_000, ..Query::default() };
    asked.extend(log.newest(rare).unwrap());
    let all = read_all(log);
    (all, asked, log.status().damaged)
}

/// Each flip is found or does no harm. A record is given as it was written or left
/// out and counted; it is never given otherwise, and none is left out in silence.
#[test]
fn each_of_200_flipped_bits_is_found_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(1_000));
    fill_segments(&log, RECORDS / 1_000, 1_000);
    let truth: HashMap<Offset, Record> =
        read_all(&log).into_iter().map(|record| (record.offset, record)).collect();
    log.close();
    drop(log);
    let files = sealed_files(folder.path());
    let mut random = 88_172_645_463_325_252_u64;
    for flip in 0..200 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let path = &files[flip % files.len()];
        let sound = fs::read(path).unwrap();
        let mut bytes = sound.clone();
        // Each fourth flip hits the first page, which describes the others.
        let span = if flip % 4 == 0 { 4_096 } else { bytes.len() };
        let bit = random as usize % (span * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &bytes).unwrap();
        let log = open(folder.path(), &options_of(1_000));
        let (all, asked, damaged) = told(&log);
        for record in all.iter().chain(&asked) {
            assert_eq!(Some(record), truth.get(&record.offset), "bit {bit}");
        }
        let missing = RECORDS - all.len() as u64;
        assert!(missing <= damaged, "bit {bit}: {missing} left out, {damaged} counted");
        let asked_expected = RECORDS + RECORDS / 10;
        let unasked = asked_expected - asked.len() as u64;
        assert!(unasked <= 2 * damaged, "bit {bit}: {unasked} not found, {damaged} counted");
        log.close();
        drop(log);
        fs::write(path, &sound).unwrap();
    }
}

#[test]
fn a_ruined_segment_and_a_ruined_list_do_not_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), &options_of(1_000));
    fill_segments(&log, RECORDS / 1_000, 1_000);
    log.close();
    drop(log);
    let files = sealed_files(folder.path());
    fs::write(&files[0], vec![0x5a; 100_000]).unwrap();
    let (log, _) = MessageLog::open(folder.path(), options_of(1_000)).unwrap();
    assert_eq!(read_all(&log).len(), 2_000);
    assert_eq!(log.status().damaged, 1_000);
    fill(&log, RECORDS..RECORDS + 1);
    log.close();
    drop(log);
    let control = folder.path().join("control.db");
    fs::write(&control, vec![0x5a; 100_000]).unwrap();
    let (log, opened) = MessageLog::open(folder.path(), options_of(1_000)).unwrap();
    assert_eq!(opened.quarantined, 2, "the list, and with it the ruined segment");
    assert_eq!(read_all(&log).len(), 2_001);
    fill(&log, RECORDS..RECORDS + 10);
    assert_eq!(read_all(&log).len(), 2_011);
}
