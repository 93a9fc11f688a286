//! A value of a device at a path, and what customers see of many of them.

use std::borrow::Borrow;
use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::path::Path;
use crate::value::{Value, write_object_link};

/// Times below this are seconds relative to the moment of reception (RFC 8428 §4.5.3).
const ABSOLUTE_FROM_SECONDS: f64 = 268_435_456.0;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it lives: a resource or a resource instance.
    pub path: Path,
    /// The value.
    pub value: Value,
    /// When it was measured, in seconds since 1970; `None` if the device said nothing about it or
    /// said "now". Always absolute: a decoder resolves relative times with [`resolve_time`].
    pub time: Option<f64>,
}

impl Record {
    /// A value measured now.
    pub const fn new(path: Path, value: Value) -> Self {
        Self { path, value, time: None }
    }
}

/// What the sum of base time and time means (RFC 8428 §4.5.3): zero is "roughly now", `None`;
/// below 2^28 it is relative to the reception, mostly negative; from there on it is absolute.
pub fn resolve_time(sum_seconds: f64, received_at_unix: f64) -> Option<f64> {
    if sum_seconds == 0.0 || !sum_seconds.is_finite() {
        None
    } else if sum_seconds < ABSOLUTE_FROM_SECONDS {
        Some(received_at_unix + sum_seconds)
    } else {
        Some(sum_seconds)
    }
}

/// The records of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeGroup<'a> {
    /// The moment, in seconds since 1970; `None` is the moment of reception.
    pub time: Option<f64>,
    /// Its records, in the order in which they came.
    pub records: Vec<&'a Record>,
}

/// A history in one message becomes one group for each distinct time, the oldest first and what
/// has no time last.
pub fn by_time(records: &[Record]) -> Vec<TimeGroup<'_>> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by(|left, right| compare_times(left.time, right.time));
    let mut groups: Vec<TimeGroup<'_>> = Vec::new();
    for record in sorted {
        match groups.last_mut() {
            Some(group) if compare_times(group.time, record.time).is_eq() => {
                group.records.push(record);
            }
            _ => groups.push(TimeGroup { time: record.time, records: vec![record] }),
        }
    }
    groups
}

/// The earlier is less; now (`None`) is the latest.
fn compare_times(left: Option<f64>, right: Option<f64>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        (None, None) => Ordering::Equal,
        (left, _) => {
            if left.is_none() {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
    }
}

/// The records as one flat JSON object from path to value: `{"/3311/0/5850":false}`.
///
/// Opaque bytes are base64, times are integers (seconds since 1970), object links `"3:0"`, floats
/// have their shortest form that reads back the same, and NaN and infinities, which JSON lacks,
/// are null. Of several records of one path the newest wins, of equally new ones the last.
pub fn flat_json<R: Borrow<Record>>(records: &[R]) -> Vec<u8> {
    // A path, punctuation and a number have about this size.
    let mut json = Vec::with_capacity(2 + records.len() * 32);
    json.push(b'{');
    let ascending = records.windows(2).all(|pair| pair[0].borrow().path < pair[1].borrow().path);
    if ascending {
        records.iter().for_each(|record| write_member(record.borrow(), &mut json));
    } else {
        for index in newest(records) {
            write_member(records[index].borrow(), &mut json);
        }
    }
    json.push(b'}');
    json
}

/// The indices of the newest record of each path, in ascending order.
fn newest<R: Borrow<Record>>(records: &[R]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..records.len()).collect();
    // The winner of each path comes first: newest, then last.
    indices.sort_unstable_by(|left, right| {
        let (a, b) = (records[*left].borrow(), records[*right].borrow());
        let newest_first = compare_times(b.time, a.time).then(right.cmp(left));
        a.path.cmp(&b.path).then(newest_first)
    });
    indices.dedup_by_key(|index| records[*index].borrow().path);
    indices.sort_unstable();
    indices
}

fn write_member(record: &Record, json: &mut Vec<u8>) {
    if json.len() > 1 {
        json.push(b',');
    }
    json.push(b'"');
    record.path.write(json);
    json.extend_from_slice(b"\":");
    write_value(&record.value, json);
}

fn write_value(value: &Value, json: &mut Vec<u8>) {
    match value {
        Value::Boolean(true) => json.extend_from_slice(b"true"),
        Value::Boolean(false) => json.extend_from_slice(b"false"),
        Value::Integer(value) | Value::Time(value) => {
            json.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes());
        }
        Value::Unsigned(value) => {
            json.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes());
        }
        Value::Float(value) => write_json_float(*value, json),
        Value::String(value) | Value::CoreLink(value) => write_json_string(value, json),
        Value::Opaque(value) => {
            json.push(b'"');
            let start = json.len();
            json.resize(start + value.len().div_ceil(3) * 4, 0);
            // The room is exactly what the encoding needs; a mistake would leave the zeros out.
            let written = STANDARD.encode_slice(value, &mut json[start..]).unwrap_or(0);
            json.truncate(start + written);
            json.push(b'"');
        }
        Value::ObjectLink { object, instance } => {
            json.push(b'"');
            write_object_link(*object, *instance, json);
            json.push(b'"');
        }
    }
}

/// A JSON number, or null where JSON has none.
pub(crate) fn write_json_float(value: f64, json: &mut Vec<u8>) {
    if value.is_finite() {
        json.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        json.extend_from_slice(b"null");
    }
}

/// A JSON string (RFC 8259 §7): only quotation mark, reverse solidus and controls are escaped.
pub(crate) fn write_json_string(text: &str, json: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    json.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        json.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            _ => {
                json.extend_from_slice(b"\\u00");
                json.push(HEX[usize::from(byte >> 4)]);
                json.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    json.extend_from_slice(&bytes[start..]);
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(path: &str, value: Value, time: Option<f64>) -> Record {
        Record { path: path.parse().unwrap(), value, time }
    }

    fn json(records: &[Record]) -> String {
        String::from_utf8(flat_json(records)).unwrap()
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        for (value, text) in [
            (Value::Boolean(false), "false"),
            (Value::Boolean(true), "true"),
            (Value::Integer(-5), "-5"),
            (Value::Unsigned(u64::MAX), "18446744073709551615"),
            (Value::Float(21.5), "21.5"),
            (Value::Float(f64::NAN), "null"),
            (Value::Float(f64::NEG_INFINITY), "null"),
            (Value::String("a\"b\\\u{1}\n\u{e9}".to_owned()), "\"a\\\"b\\\\\\u0001\\n\u{e9}\""),
            (Value::Opaque(vec![1, 2, 3, 4]), "\"AQIDBA==\""),
            (Value::Opaque(vec![]), "\"\""),
            (Value::Time(1_700_000_000), "1700000000"),
            (Value::ObjectLink { object: 3, instance: 1 }, "\"3:1\""),
            (Value::CoreLink("</3>".to_owned()), "\"</3>\""),
        ] {
            let records = [at("/3311/0/5850", value, None)];
            assert_eq!(json(&records), format!("{{\"/3311/0/5850\":{text}}}"));
        }
        assert_eq!(json(&[]), "{}");
    }

    #[test]
    fn the_newest_of_one_path_wins() {
        let records = [
            at("/3303/0/5701", Value::String("Cel".to_owned()), None),
            at("/3303/0/5700", Value::Integer(2), Some(20.0)),
            at("/3303/0/5700", Value::Integer(1), Some(10.0)),
            at("/3303/0/5700", Value::Integer(3), Some(20.0)),
        ];
        assert_eq!(json(&records), r#"{"/3303/0/5701":"Cel","/3303/0/5700":3}"#);
        let mut records = records.to_vec();
        records.insert(0, at("/3303/0/5700", Value::Integer(4), None));
        assert_eq!(json(&records), r#"{"/3303/0/5700":4,"/3303/0/5701":"Cel"}"#);
    }

    #[test]
    fn a_history_becomes_groups_from_old_to_new() {
        let records = [
            at("/3303/0/5700", Value::Integer(3), None),
            at("/3303/0/5700", Value::Integer(2), Some(20.0)),
            at("/3303/0/5700", Value::Integer(1), Some(10.0)),
            at("/3303/1/5700", Value::Integer(9), Some(20.0)),
        ];
        let groups = by_time(&records);
        let shapes: Vec<_> =
            groups.iter().map(|group| (group.time, flat_json(&group.records))).collect();
        let expected = [
            (Some(10.0), &br#"{"/3303/0/5700":1}"#[..]),
            (Some(20.0), br#"{"/3303/0/5700":2,"/3303/1/5700":9}"#),
            (None, br#"{"/3303/0/5700":3}"#),
        ];
        assert_eq!(shapes, expected.map(|(time, text)| (time, text.to_vec())));
        assert!(by_time(&[]).is_empty());
    }

    #[test]
    fn times_are_relative_below_two_to_the_28th() {
        let received = 1_700_000_000.0;
        assert_eq!(resolve_time(0.0, received), None);
        assert_eq!(resolve_time(-5.0, received), Some(1_699_999_995.0));
        assert_eq!(resolve_time(268_435_455.0, received), Some(1_968_435_455.0));
        assert_eq!(resolve_time(268_435_456.0, received), Some(268_435_456.0));
        assert_eq!(resolve_time(f64::NAN, received), None);
    }

    proptest! {
        #[test]
        fn strings_and_floats_are_those_of_any_json_reader(text in ".*", number in any::<f64>()) {
            let mut written = Vec::new();
            write_json_string(&text, &mut written);
            prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), text);
            written.clear();
            write_json_float(number, &mut written);
            let read: Option<f64> = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(read, number.is_finite().then_some(number));
        }
    }
}
