//! Imports, from a proper file to bytes that are none.
#![allow(clippy::unwrap_used, reason = "the lint exempts only what is marked #[test]")]

use std::io::{self, Read};

use connectivity::{
    HeaderError, ImportError, ImportReport, REJECTIONS_KEPT, Revision, SimPatch, SimRegistry,
    Statistics,
};
use proptest::prelude::*;
use state::StateFile;
use tempfile::TempDir;
use vocabulary::{Iccid, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_795_000_001_000);

fn registry() -> (SimRegistry, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state.db"));
    (SimRegistry::open(&file).unwrap(), folder)
}

fn import(registry: &SimRegistry, text: &str) -> ImportReport {
    registry.import(text.as_bytes(), NOW, |_| {}).unwrap()
}

fn reasons(report: &ImportReport) -> Vec<String> {
    report.rejections.iter().map(ToString::to_string).collect()
}

/// Created, updated, unchanged, rejected.
fn counts(report: &ImportReport) -> [u64; 4] {
    let counts = [report.created, report.updated, report.unchanged, report.rejected];
    assert_eq!(report.read, counts.iter().sum::<u64>());
    counts
}

const THREE: &str = "\
iccid,imsi,msisdn,imei,ip,label
8988280666000000001,901405100000001,882285100000001,0000000000000018,100.64.0.1,one
8988280666000000002,901405100000002,882285100000002,,100.64.0.2,\"two, with a comma\"
8988280666000000003,,,,,

";

#[test]
fn the_same_file_again_changes_nothing() {
    let (registry, _folder) = registry();
    assert_eq!(counts(&import(&registry, THREE)), [3, 0, 0, 0]);
    let first: Iccid = "8988280666000000001".parse().unwrap();
    let off = SimPatch { active: Some(false), ..SimPatch::default() };
    let sim = registry.patch(first, off, LATER).unwrap();
    let revision = registry.load_all(|_| {}).unwrap();
    assert_eq!(counts(&import(&registry, THREE)), [0, 0, 3, 0]);
    assert_eq!(registry.find(first).unwrap(), Some(sim), "a disabled SIM stays disabled");
    assert!(registry.changes_since(revision, 10).unwrap().changes.is_empty());
    assert_eq!(registry.statistics().unwrap(), Statistics { total: 3, active: 2 });
}

#[test]
fn a_file_changes_only_its_columns() {
    let (registry, _folder) = registry();
    import(&registry, THREE);
    let text =
        "STATUS;ICCID;LABEL\r\nDisabled;8988280666000000001;new\r\n;8988280666000000002;\r\n";
    assert_eq!(counts(&import(&registry, text)), [0, 2, 0, 0]);
    let sim = registry.find("8988280666000000001".parse().unwrap()).unwrap().unwrap();
    assert_eq!((sim.label.as_str(), sim.active), ("new", false));
    assert_eq!(sim.ip, Some([100, 64, 0, 1].into()));
    let sim = registry.find("8988280666000000002".parse().unwrap()).unwrap().unwrap();
    assert_eq!((sim.label.as_str(), sim.active), ("", true));
}

#[test]
fn bad_lines_are_reported_and_good_ones_taken() {
    let (registry, _folder) = registry();
    import(&registry, THREE);
    let long = "x".repeat(4_096);
    let text = format!(
        "iccid,ip\n\
         8988280666000000004,100.64.0.4\n\
         8988280666000000005,100.64.0.4\n\
         8988280666000000005,100.64.0.1\n\
         8988280666000000004,100.64.0.5\n\
         898828066600000000,100.64.0.5\n\
         8988280666000000005,{long}\n\
         8988280666000000005,\"100.64.0.5\n\
         8988280666000000005,100.64.0.5"
    );
    let report = import(&registry, &text);
    assert_eq!(counts(&report), [2, 0, 0, 6]);
    assert_eq!(
        reasons(&report),
        [
            "line 3: address 100.64.0.4 belongs to Iccid(8988..0004)",
            "line 4: address 100.64.0.1 belongs to Iccid(8988..0001)",
            "line 5: Iccid(8988..0004) stands on line 2 already",
            "line 6: iccid has 18 digits, allowed: 19, or 20 with the check digit",
            "line 7: line of 4116 bytes exceeds the limit of 4096",
            "line 8: a double quote is not closed on its line",
        ]
    );
}

#[test]
fn an_address_can_be_handed_on_within_a_file() {
    let (registry, _folder) = registry();
    import(&registry, THREE);
    let text = "iccid,ip\n8988280666000000001,\n8988280666000000003,100.64.0.1\n";
    assert_eq!(counts(&import(&registry, text)), [0, 2, 0, 0]);
    // The line that takes the address stands before the one that sets it free.
    let back = "iccid,ip\n8988280666000000001,100.64.0.1\n8988280666000000003,\n";
    assert_eq!(counts(&import(&registry, back)), [0, 2, 0, 0]);
    assert_eq!(counts(&import(&registry, text)), [0, 2, 0, 0]);
    assert_eq!(counts(&import(&registry, text)), [0, 0, 2, 0]);
}

#[test]
fn a_file_of_rejected_lines_gives_a_bounded_report() {
    let (registry, _folder) = registry();
    let text = format!("iccid\n{}", "89\n".repeat(120_000));
    let mut calls = 0;
    let report = registry.import(text.as_bytes(), NOW, |_| calls += 1).unwrap();
    assert_eq!(counts(&report), [0, 0, 0, 120_000]);
    assert_eq!(report.rejections.len(), REJECTIONS_KEPT);
    assert_eq!(calls, 3);
}

/// A file that breaks off, as an upload whose client goes away.
struct BreaksOff<'a>(&'a [u8]);

impl Read for BreaksOff<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

fn many(count: u64) -> String {
    let mut text = "iccid,ip\n".to_owned();
    for number in 0..count {
        let [.., high, middle, low] = number.to_be_bytes();
        let iccid = 8_988_280_666_000_000_000 + number;
        text.push_str(&format!("{iccid},10.{high}.{middle}.{low}\n"));
    }
    text
}

#[test]
fn a_file_that_breaks_off_can_be_imported_again() {
    let (registry, _folder) = registry();
    let text = many(52_000);
    let cut = BreaksOff(&text.as_bytes()[..text.len() - 100]);
    let error = registry.import(cut, NOW, |_| {}).unwrap_err();
    assert!(matches!(error, ImportError::Read { line: 51_990.., .. }), "{error}");
    assert_eq!(registry.statistics().unwrap().total, 50_000);
    assert_eq!(counts(&import(&registry, &text)), [2_000, 0, 50_000, 0]);
}

#[test]
fn a_file_without_columns_changes_nothing() {
    let (registry, _folder) = registry();
    let error = |bytes: &[u8]| match registry.import(bytes, NOW, |_| {}).unwrap_err() {
        ImportError::Header(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(error(b""), HeaderError::Missing);
    assert_eq!(error(&[b'x'; 1_000_000]), HeaderError::TooLong(1_000_000));
    assert!(matches!(error(b"PK\x03\x04"), HeaderError::Unknown(_)));
    assert!(registry.changes_since(Revision::BEGINNING, 10).unwrap().changes.is_empty());
}

#[test]
fn another_writer_gets_its_turn_during_an_import() {
    let (registry, _folder) = registry();
    let text = many(20_000);
    let other: Iccid = "8988280777000000001".parse().unwrap();
    import(&registry, "iccid\n8988280777000000001\n");
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import(&registry, &text));
        for number in 0..20 {
            let label = Some(format!("{number}"));
            registry.patch(other, SimPatch { label, ..SimPatch::default() }, LATER).unwrap();
        }
        assert_eq!(counts(&importing.join().unwrap()), [20_000, 0, 0, 0]);
    });
    assert_eq!(registry.find(other).unwrap().unwrap().label, "19");
}

/// Few SIMs and addresses, so that they meet, among lines that are none.
const LINE: &str = "(898828066600000000[0-9]|[0-9\",;]{0,25}),(10\\.0\\.0\\.[0-9]|.{0,9})";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_counted_and_taken_only_once(
        lines in proptest::collection::vec(LINE, 0..40),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (registry, _folder) = registry();
        let mut bytes = format!("iccid,ip\n{}\n", lines.join("\n")).into_bytes();
        bytes.extend(noise);
        let first = registry.import(bytes.as_slice(), NOW, |_| {}).unwrap();
        let [created, updated, unchanged, _] = counts(&first);
        prop_assert_eq!((updated, unchanged), (0, 0));
        prop_assert_eq!(registry.statistics().unwrap().total, created);
        let again = registry.import(bytes.as_slice(), LATER, |_| {}).unwrap();
        let [recreated, _, _, rejected] = counts(&again);
        prop_assert_eq!((recreated, rejected), (0, first.rejected));
    }
}
