//! SenML in JSON (LwM2M Core 1.1 §7.4.4, RFC 8428 §5).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::URL_SAFE_NO_PAD};

use super::json::Reader;
use super::senml::{Fields, Resolver, Shared};
use super::typing::Raw;
use super::{Context, DecodeError, EncodeError};
use crate::excerpt::Excerpt;
use crate::path::Path;
use crate::record::{Record, write_json_float, write_json_string};
use crate::value::{Value, write_object_link};

/// Padding or none: RFC 8428 §5 omits it, some devices do not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

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
    let mut reader = Reader::new(bytes)?;
    reader.array()?;
    let mut first = true;
    while reader.element(&mut first)? {
        take(fields(&mut reader)?)?;
    }
    reader.end()
}

fn fields<'a>(reader: &mut Reader<'a>) -> Result<Fields<'a>, DecodeError> {
    let mut fields = Fields::default();
    let mut first = true;
    reader.object()?;
    while let Some(key) = reader.key(&mut first)? {
        let value = match key.as_ref() {
            "bn" => {
                fields.base_name = Some(reader.string()?);
                continue;
            }
            "bt" => {
                fields.base_time = Some(reader.number()?.as_f64());
                continue;
            }
            "bv" => {
                fields.base_value = Some(reader.number()?);
                continue;
            }
            "bver" => {
                fields.base_version = Some(reader.number()?);
                continue;
            }
            "n" => {
                fields.name = Some(reader.string()?);
                continue;
            }
            "t" => {
                fields.time = Some(reader.number()?.as_f64());
                continue;
            }
            "v" => Raw::Number(reader.number()?),
            "vs" => Raw::Text(reader.string()?.into_owned()),
            "vb" => Raw::Boolean(reader.boolean()?),
            "vd" => Raw::Bytes(data(reader)?),
            "vlo" => Raw::Link(reader.string()?.into_owned()),
            // RFC 8428 §4.4: what ends in "_" must be understood, everything else may be ignored.
            key if key.ends_with('_') => {
                return Err(DecodeError::MustUnderstand(Excerpt::of(key)));
            }
            _ => {
                reader.skip()?;
                continue;
            }
        };
        if !fields.set_value(value) {
            return Err(reader.error("a record has two values"));
        }
    }
    Ok(fields)
}

/// Bytes in the URL-safe alphabet of base64, or in the standard one: no letter means two things.
pub(super) fn data(reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let text = reader.string()?;
    URL_SAFE_LENIENT
        .decode(text.as_bytes())
        .or_else(|_| STANDARD_LENIENT.decode(text.as_bytes()))
        .map_err(|_| reader.error("expected base64"))
}

pub(super) fn encode(records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    let shared = Shared::of(records)?;
    let mut json = Vec::with_capacity(16 + records.len() * 24);
    let mut name = Vec::new();
    json.push(b'[');
    for (index, record) in records.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"{\"bn\":\"" } else { b",{" });
        if index == 0 {
            json.extend_from_slice(shared.base_name.as_bytes());
            json.extend_from_slice(b"\",");
            if let Some(time) = shared.base_time {
                json.extend_from_slice(b"\"bt\":");
                write_json_float(time, &mut json);
                json.push(b',');
            }
        }
        shared.name(record, &mut name);
        if !name.is_empty() {
            json.extend_from_slice(b"\"n\":\"");
            json.extend_from_slice(&name);
            json.extend_from_slice(b"\",");
        }
        if let Some(time) = shared.time(record) {
            json.extend_from_slice(b"\"t\":");
            write_json_float(time, &mut json);
            json.push(b',');
        }
        write_value(record, &mut json)?;
        json.push(b'}');
    }
    json.push(b']');
    Ok(json)
}

fn write_value(record: &Record, json: &mut Vec<u8>) -> Result<(), EncodeError> {
    match &record.value {
        Value::Boolean(value) => {
            json.extend_from_slice(if *value { b"\"vb\":true" } else { b"\"vb\":false" });
        }
        Value::Integer(_) | Value::Time(_) | Value::Unsigned(_) => {
            json.extend_from_slice(b"\"v\":");
            record.value.write_text(json);
        }
        Value::Float(value) if value.is_finite() => {
            json.extend_from_slice(b"\"v\":");
            write_json_float(*value, json);
        }
        Value::Float(_) => return Err(EncodeError::NotFinite(record.path)),
        Value::String(value) | Value::CoreLink(value) => {
            json.extend_from_slice(b"\"vs\":");
            write_json_string(value, json);
        }
        Value::Opaque(value) => {
            json.extend_from_slice(b"\"vd\":\"");
            json.extend_from_slice(URL_SAFE_NO_PAD.encode(value).as_bytes());
            json.push(b'"');
        }
        Value::ObjectLink { object, instance } => {
            json.extend_from_slice(b"\"vlo\":\"");
            write_object_link(*object, *instance, json);
            json.push(b'"');
        }
    }
    Ok(())
}

pub(super) fn encode_paths(paths: &[Path]) -> Vec<u8> {
    let mut json = Vec::with_capacity(2 + paths.len() * 20);
    json.push(b'[');
    for (index, path) in paths.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"{\"n\":\"" } else { b",{\"n\":\"" });
        path.write(&mut json);
        json.extend_from_slice(b"\"}");
    }
    json.push(b']');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    const NOW: f64 = 1_700_000_000.0;

    fn read(base: &str, json: &str) -> Result<Vec<Record>, DecodeError> {
        let base = base.parse().unwrap();
        let context = Context { base: &base, model: &Model::builtin(), received_at_unix: NOW };
        decode(context, json.as_bytes())
    }

    fn record(path: &str, value: Value, time: Option<f64>) -> Record {
        Record { path: path.parse().unwrap(), value, time }
    }

    #[test]
    fn the_examples_of_the_specification_are_read_and_written() {
        // LwM2M Core 1.1 §7.4.4: a device, and a link to another object.
        let json = r#"[{"bn":"/3/0/","n":"0","vs":"Open Mobile Alliance"},{"n":"6/0","v":1},
            {"n":"9","v":100},{"n":"13","v":1367491215},{"n":"22/1","vlo":"66:1"}]"#;
        let records = vec![
            record("/3/0/0", Value::String("Open Mobile Alliance".to_owned()), None),
            record("/3/0/6/0", Value::Integer(1), None),
            record("/3/0/9", Value::Integer(100), None),
            record("/3/0/13", Value::Time(1_367_491_215), None),
            record("/3/0/22/1", Value::ObjectLink { object: 66, instance: 1 }, None),
        ];
        assert_eq!(read("/3/0", json), Ok(records.clone()));
        let written = String::from_utf8(encode(&records).unwrap()).unwrap();
        assert_eq!(written, json.replace("\n            ", ""));
    }

    #[test]
    fn base_fields_hold_from_their_record_on() {
        let json = r#"[{"bn":"/3303/0/5700","bt":1600000000,"bv":20,"v":1.5},{"t":10,"v":2},{"t":-1},
            {"bn":"/3303/1/5700","bt":0,"bv":0,"v":3},{"t":-60,"v":4},{"bt":-5},{"v":7,"u":"Cel"}]"#;
        let zero = |value, time| record("/3303/0/5700", Value::Float(value), time);
        let one = |value, time| record("/3303/1/5700", Value::Float(value), time);
        let expected = vec![
            zero(21.5, Some(1_600_000_000.0)),
            zero(22.0, Some(1_600_000_010.0)),
            zero(20.0, Some(1_599_999_999.0)),
            one(3.0, None),
            one(4.0, Some(NOW - 60.0)),
            one(7.0, Some(NOW - 5.0)),
        ];
        assert_eq!(read("/", json), Ok(expected));
    }

    #[test]
    fn fields_may_stand_in_any_order_and_unknown_ones_are_passed() {
        let json = r#"[{"vb":true,"x":[{"y":[]}],"ut":9,"n":"5850","bver":10,"bn":"/3311/0/"}]"#;
        let expected = vec![record("/3311/0/5850", Value::Boolean(true), None)];
        assert_eq!(read("/3311", json), Ok(expected));
        let bytes = Value::Opaque(vec![0xfb, 0xff]);
        for text in ["-_8", "-_8=", "+/8="] {
            let json = format!(r#"[{{"n":"/5/0/0","vd":"{text}"}}]"#);
            assert_eq!(read("/5", &json), Ok(vec![record("/5/0/0", bytes.clone(), None)]));
        }
    }

    #[test]
    fn what_must_be_refused_is() {
        for (json, told) in [
            (r#"[{"n":"/3/0/9","v":1,"x_":2}]"#, "field \"x_\" must be understood and is not"),
            (
                r#"[{"bver":11,"n":"/3/0/9","v":1}]"#,
                "SenML version 11 exceeds the version 10 that is supported",
            ),
            (r#"[{"n":"/4/0/9","v":1}]"#, "path /4/0/9 does not lie within /3/0"),
            (r#"[{"n":"/3/0","v":1}]"#, "path /3/0 names no resource and cannot hold a value"),
            (r#"[{"n":"3/0/9","v":1}]"#, "path \"3/0/9\" does not begin with /"),
            (r#"[{"v":1}]"#, "path \"\" does not begin with /"),
            (r#"[{"n":"/3/0/9"}]"#, "record of /3/0/9 holds no value"),
            (r#"[{"n":"/3/0/9","v":"1"}]"#, "malformed at byte 19: expected a digit"),
            (r#"[{"n":"/3/0/9","vs":"1"}]"#, "/3/0/9 is of type INTEGER, found: a text"),
            (
                r#"[{"n":"/3/0/9","v":1,"vb":true}]"#,
                "malformed at byte 30: a record has two values",
            ),
            (r#"[{"n":"/3/0/9","vd":"*"}]"#, "malformed at byte 23: expected base64"),
            (r#"{"n":"/3/0/9","v":1}"#, "malformed at byte 0: expected an array"),
            (
                r#"[{"n":"/3/0/9","v":1}"#,
                "malformed at byte 21: expected a comma or the end of \
             the array",
            ),
            ("[]]", "malformed at byte 2: something follows the end"),
        ] {
            assert_eq!(read("/3/0", json).unwrap_err().to_string(), told, "{json}");
        }
    }

    #[test]
    fn times_are_written_once_where_they_are_one() {
        let at = |path, time| record(path, Value::Integer(1), time);
        let json = |records: &[Record]| String::from_utf8(encode(records).unwrap()).unwrap();
        let same = [at("/3/0/9", Some(NOW)), at("/3/0/10", Some(NOW))];
        let expected = r#"[{"bn":"/3/0/","bt":1700000000.0,"n":"9","v":1},{"n":"10","v":1}]"#;
        assert_eq!(json(&same), expected);
        let history = [at("/3/0/9", Some(NOW)), at("/3/0/9", None)];
        assert_eq!(json(&history), r#"[{"bn":"/3/0/9","t":1700000000.0,"v":1},{"v":1}]"#);
        let far = [at("/3/0/9", None), at("/4/0/2", None)];
        assert_eq!(json(&far), r#"[{"bn":"/","n":"3/0/9","v":1},{"n":"4/0/2","v":1}]"#);
        assert_eq!(json(&[]), "[]");
    }

    #[test]
    fn paths_stand_without_values() {
        let paths = [Path::object(3), Path::resource(3303, 0, 5700), Path::ROOT];
        let json = encode_paths(&paths);
        assert_eq!(json, br#"[{"n":"/3"},{"n":"/3303/0/5700"},{"n":"/"}]"#);
        assert_eq!(decode_paths(&json), Ok(paths.to_vec()));
        let based = br#"[{"bn":"/3/0/","n":"0"},{"n":"1"},{"bn":"/4"}]"#;
        let expected = [Path::resource(3, 0, 0), Path::resource(3, 0, 1), Path::object(4)];
        assert_eq!(decode_paths(based), Ok(expected.to_vec()));
        let valued = decode_paths(br#"[{"n":"/3/0/9","v":1}]"#);
        assert_eq!(valued, Err(DecodeError::Valued(Path::resource(3, 0, 9))));
    }
}
