//! SenML in CBOR (LwM2M Core 1.1 §7.4.5, RFC 8428 §6).

use minicbor::Encoder;
use minicbor::data::Type;

use super::cbor::{Reader, Writer, object_link, put, shortened_time, write_value};
use super::senml::{Fields, Resolver, Shared};
use super::typing::{Number, Raw};
use super::{Context, DecodeError, EncodeError};
use crate::excerpt::Excerpt;
use crate::path::Path;
use crate::record::Record;
use crate::value::Value;

// Labels of RFC 8428 §6, table 4.
const BASE_VERSION: i64 = -1;
const BASE_NAME: i64 = -2;
const BASE_TIME: i64 = -3;
const BASE_VALUE: i64 = -5;
const NAME: i64 = 0;
const VALUE: i64 = 2;
const STRING_VALUE: i64 = 3;
const BOOLEAN_VALUE: i64 = 4;
const TIME: i64 = 6;
const DATA_VALUE: i64 = 8;
/// LwM2M Core 1.1 §7.4.5: an object link has a text as its label.
const OBJECT_LINK_VALUE: &str = "vlo";

pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut resolver = Resolver::new(false);
    let mut records = Vec::new();
    each(bytes, |fields| {
        records.extend(resolver.record(context, fields)?);
        Ok(())
    })?;
    Ok(records)
}

pub(super) fn decode_paths(bytes: &[u8]) -> Result<Vec<Path>, DecodeError> {
    let mut resolver = Resolver::new(false);
    let mut paths = Vec::new();
    each(bytes, |fields| {
        paths.extend(resolver.path_only(fields)?);
        Ok(())
    })?;
    Ok(paths)
}

fn each<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(Fields<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut left = reader.array()?;
    while reader.more(&mut left)? {
        take(fields(&mut reader)?)?;
    }
    reader.end()
}

fn fields<'a>(reader: &mut Reader<'a>) -> Result<Fields<'a>, DecodeError> {
    let mut fields = Fields::default();
    let mut left = reader.map()?;
    while reader.more(&mut left)? {
        let value = if matches!(reader.datatype()?, Type::String | Type::StringIndef) {
            named(reader)?
        } else {
            labelled(reader, &mut fields)?
        };
        if value.is_some_and(|value| !fields.set_value(value)) {
            return Err(reader.error("a record has two values"));
        }
    }
    Ok(fields)
}

/// A field with a text as its label.
fn named(reader: &mut Reader<'_>) -> Result<Option<Raw>, DecodeError> {
    let label = reader.text_label()?;
    if label == OBJECT_LINK_VALUE {
        return Ok(Some(Raw::Link(reader.text()?.into_owned())));
    }
    // RFC 8428 §4.4: what ends in "_" must be understood, everything else may be ignored.
    if label.ends_with('_') {
        return Err(DecodeError::MustUnderstand(Excerpt::of(label.as_bytes())));
    }
    reader.skip()?;
    Ok(None)
}

/// A field with an integer as its label; its value, if it is the record's.
fn labelled<'a>(
    reader: &mut Reader<'a>,
    fields: &mut Fields<'a>,
) -> Result<Option<Raw>, DecodeError> {
    let Number::Integer(label) = reader.number_label()? else {
        return Err(reader.error("expected a label"));
    };
    match label {
        BASE_NAME => fields.base_name = Some(reader.text()?),
        BASE_TIME => fields.base_time = Some(reader.number()?.as_f64()),
        BASE_VALUE => fields.base_value = Some(reader.number()?),
        BASE_VERSION => fields.base_version = Some(reader.number()?),
        NAME => fields.name = Some(reader.text()?),
        TIME => fields.time = Some(reader.number()?.as_f64()),
        VALUE => return reader.number().map(|number| Some(Raw::Number(number))),
        STRING_VALUE => return Ok(Some(Raw::Text(reader.text()?.into_owned()))),
        BOOLEAN_VALUE => return reader.boolean().map(|value| Some(Raw::Boolean(value))),
        DATA_VALUE => return reader.bytes().map(|bytes| Some(Raw::Bytes(bytes))),
        _ => reader.skip()?,
    }
    Ok(None)
}

pub(super) fn encode(records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    let shared = Shared::of(records)?;
    let mut bytes = Vec::with_capacity(16 + records.len() * 12);
    let mut writer = Encoder::new(&mut bytes);
    let mut name = Vec::new();
    put!(writer, array(records.len() as u64));
    for (index, record) in records.iter().enumerate() {
        shared.name(record, &mut name);
        let base_time = shared.base_time.filter(|_| index == 0);
        let time = shared.time(record);
        let fields = 1
            + u64::from(index == 0)
            + u64::from(base_time.is_some())
            + u64::from(!name.is_empty())
            + u64::from(time.is_some());
        put!(writer, map(fields));
        if index == 0 {
            put!(writer, i64(BASE_NAME));
            put!(writer, str(&shared.base_name));
        }
        for (label, time) in [(BASE_TIME, base_time), (TIME, time)] {
            if let Some(time) = time {
                put!(writer, i64(label));
                write_time(time, &mut writer);
            }
        }
        if !name.is_empty() {
            put!(writer, i64(NAME));
            put!(writer, str(&String::from_utf8_lossy(&name)));
        }
        write_labelled(&record.value, &mut writer);
    }
    Ok(bytes)
}

/// A time is an integer where that is exact: five bytes instead of nine.
fn write_time(seconds: f64, writer: &mut Writer<'_>) {
    match shortened_time(seconds) {
        Some(whole) => put!(writer, i64(whole)),
        None => put!(writer, f64(seconds)),
    }
}

fn write_labelled(value: &Value, writer: &mut Writer<'_>) {
    match value {
        Value::ObjectLink { object, instance } => {
            put!(writer, str(OBJECT_LINK_VALUE));
            put!(writer, str(&object_link(*object, *instance)));
        }
        other => {
            let label = match other {
                Value::Boolean(_) => BOOLEAN_VALUE,
                Value::String(_) | Value::CoreLink(_) => STRING_VALUE,
                Value::Opaque(_) => DATA_VALUE,
                _ => VALUE,
            };
            put!(writer, i64(label));
            write_value(other, writer);
        }
    }
}

pub(super) fn encode_paths(paths: &[Path]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 + paths.len() * 16);
    let mut writer = Encoder::new(&mut bytes);
    put!(writer, array(paths.len() as u64));
    for path in paths {
        put!(writer, map(1));
        put!(writer, i64(NAME));
        put!(writer, str(&path.to_string()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    const NOW: f64 = 1_700_000_000.0;

    fn read(base: &str, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
        let base = base.parse().unwrap();
        let context = Context { base: &base, model: &Model::builtin(), received_at_unix: NOW };
        decode(context, bytes)
    }

    fn record(path: &str, value: Value, time: Option<f64>) -> Record {
        Record { path: path.parse().unwrap(), value, time }
    }

    /// A manufacturer, a battery level, a link; with base name and base time.
    const DEVICE: &[u8] = b"\x83\
        \xa4\x21\x65/3/0/\x22\x1a\x65\x53\xf1\x00\x00\x610\x03\x63OMA\
        \xa2\x00\x619\x02\x18\x5f\
        \xa2\x00\x6422/1\x63vlo\x6466:1";

    #[test]
    fn a_device_is_read_and_written() {
        let time = Some(NOW);
        let expected = vec![
            record("/3/0/0", Value::String("OMA".to_owned()), time),
            record("/3/0/9", Value::Integer(95), time),
            record("/3/0/22/1", Value::ObjectLink { object: 66, instance: 1 }, time),
        ];
        assert_eq!(read("/3/0", DEVICE), Ok(expected.clone()));
        assert_eq!(encode(&expected), Ok(DEVICE.to_vec()));
    }

    #[test]
    fn lengths_may_be_indefinite_and_numbers_of_any_width() {
        let bytes = b"\x9f\xbf\x21\x7f\x62/3\x6830/0/570\xff\x00\x610\x02\xf9\x4d\x60\xff\
            \xbf\x06\x38\x3b\x00\x610\x02\x15\xff\xff";
        let expected = vec![
            record("/330/0/5700", Value::Float(21.5), None),
            record("/330/0/5700", Value::Integer(21), Some(NOW - 60.0)),
        ];
        assert_eq!(read("/", bytes), Ok(expected));
        let float = b"\x81\xa2\x00\x6c/3303/0/5700\x02\x15";
        let expected = vec![record("/3303/0/5700", Value::Float(21.0), None)];
        assert_eq!(read("/3303", float), Ok(expected));
    }

    #[test]
    fn unknown_labels_are_passed_unless_they_must_be_understood() {
        let bytes = b"\x81\xa4\x00\x66/3/0/9\x18\x63\x81\xa0\x61x\xf6\x02\x01";
        assert_eq!(read("/3", bytes), Ok(vec![record("/3/0/9", Value::Integer(1), None)]));
        let bytes = b"\x81\xa3\x00\x66/3/0/9\x62x_\xf6\x02\x01";
        let told = read("/3", bytes).unwrap_err().to_string();
        assert_eq!(told, "field \"x_\" must be understood and is not");
    }

    #[test]
    fn what_must_be_refused_is() {
        for bytes in [
            &b""[..],
            b"\xa0",
            b"\x81",
            b"\x81\x01",
            b"\x80\x00",
            b"\x9f",
            b"\x81\xa2\x00\x66/3/0/9\x02\xf5",
            b"\x81\xa1\x00\x66/3/0/9",
            b"\x81\xa2\x00\x66/4/0/9\x02\x01",
            b"\x81\xa2\x00\x66/3/0/9\x03\x611",
            b"\x81\xa3\x00\x66/3/0/9\x02\x01\x04\xf5",
            b"\x81\xa3\x20\x0b\x00\x66/3/0/9\x02\x01",
            b"\x81\xa2\xf9\x00\x00\x66/3/0/9\x02\x01",
            // Arrays and maps that say 2^63 and more.
            b"\x9b\x80\x00\x00\x00\x00\x00\x00\x00\xa2\x00\x66/3/0/9\x02\x01",
            b"\x81\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00\x66/3/0/9\x02\x01",
            b"\x81\xa2\x00\x7b\x80\x00\x00\x00\x00\x00\x00\x00/3/0/9\x02\x01",
        ] {
            assert!(read("/3/0", bytes).is_err(), "{bytes:x?}");
        }
        let deep = [&b"\x81\xa1\x18\x63"[..], &[0x81; 60_000]].concat();
        assert_eq!(read("/3", &deep), Err(DecodeError::TooDeep { depth: 33 }));
    }

    #[test]
    fn a_history_of_a_thousand_records_is_within_the_limits() {
        let one = |second: u32| {
            let time = Some(NOW + f64::from(second));
            record("/3303/0/5700", Value::Float(0.1), time)
        };
        let records: Vec<Record> = (0..1_000).map(one).collect();
        assert_eq!(read("/", &encode(&records).unwrap()), Ok(records));
    }

    #[test]
    fn paths_stand_without_values() {
        let paths = [Path::object(3), Path::resource(3303, 0, 5700)];
        let bytes = encode_paths(&paths);
        assert_eq!(bytes, b"\x82\xa1\x00\x62/3\xa1\x00\x6c/3303/0/5700");
        assert_eq!(decode_paths(&bytes), Ok(paths.to_vec()));
    }
}
