//! Arbitrary bytes as a payload.

use std::sync::LazyLock;

use lwm2m::codec::{decode, decode_paths, encode, encode_paths};
use lwm2m::{ContentFormat, Model, Path, Record, by_time, flat_json};

static MODEL: LazyLock<Model> = LazyLock::new(Model::builtin);

/// The moment of reception, in seconds since 1970.
const NOW: f64 = 1_700_000_000.0;

/// Paths that a payload may answer, of every length and most types.
const BASES: [Path; 16] = [
    Path::ROOT,
    Path::object(3),
    Path::instance(3, 0),
    Path::resource(3, 0, 0),
    Path::resource(3, 0, 6),
    Path::resource_instance(3, 0, 6, 1),
    Path::resource(3, 0, 9),
    Path::resource(3, 0, 13),
    Path::resource(3, 0, 22),
    Path::resource(5, 0, 0),
    Path::resource(5, 0, 13),
    Path::object(3303),
    Path::instance(3303, 1),
    Path::resource(3303, 0, 5700),
    Path::resource(3311, 0, 5850),
    Path::resource(9999, 0, 1),
];

/// The first byte says which path was addressed. What is read lies there, has a JSON, and is
/// written, if the format can hold it again, as a payload that reads as the same.
pub(crate) fn payload_survives(format: ContentFormat, bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let base = BASES[usize::from(*choice) % BASES.len()];
    paths_survive(format, bytes);
    let mut records = match decode(format, &base, bytes, &MODEL, NOW) {
        Ok(records) => records,
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && told.len() < 512, "{told}");
            return;
        }
    };
    assert!(records.iter().all(|record| base.contains(&record.path)));
    let json: serde_json::Value = serde_json::from_slice(&flat_json(&records)).expect("JSON");
    assert!(json.as_object().is_some_and(|members| members.len() <= records.len()));
    let grouped: usize = by_time(&records).iter().map(|group| group.records.len()).sum();
    assert_eq!(grouped, records.len());
    let Ok(again) = encode(format, &base, &records) else { return };
    let mut read = decode(format, &base, &again, &MODEL, NOW).expect("what was written is read");
    // TLV sorts; the text of a value makes NaN equal to NaN.
    let in_order = |record: &Record| record.path;
    records.sort_by_key(in_order);
    read.sort_by_key(in_order);
    assert_eq!(format!("{records:?}"), format!("{read:?}"));
}

fn paths_survive(format: ContentFormat, bytes: &[u8]) {
    if let Ok(paths) = decode_paths(format, bytes) {
        let again = encode_paths(format, &paths).expect("a format that is read is written");
        assert_eq!(decode_paths(format, &again), Ok(paths));
    }
}
