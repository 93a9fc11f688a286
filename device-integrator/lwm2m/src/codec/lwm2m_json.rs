//! The JSON of LwM2M 1.0 (§6.4.4): `{"bn":"/3/0/","e":[{"n":"0","sv":"a"}],"bt":1700000000}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::Reader;
use super::senml::{Fields, Resolver, Shared};
use super::typing::Raw;
use super::{Context, DecodeError, EncodeError};
use crate::record::{Record, write_json_float, write_json_string};
use crate::value::{Value, write_object_link};

pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let (mut base, mut entries) = (Fields::default(), Vec::new());
    let (mut first, mut has_entries) = (true, false);
    reader.object()?;
    while let Some(key) = reader.key(&mut first)? {
        match key.as_ref() {
            "bn" => base.base_name = Some(reader.string()?),
            "bt" => base.base_time = Some(reader.number()?.as_f64()),
            "e" if has_entries => return Err(reader.error("two lists of entries")),
            "e" => {
                has_entries = true;
                let mut first = true;
                reader.array()?;
                while reader.element(&mut first)? {
                    entries.push(entry(&mut reader)?);
                }
            }
            _ => reader.skip()?,
        }
    }
    reader.end()?;
    if !has_entries {
        return Err(reader.error("the list of entries \"e\" is missing"));
    }
    // The base fields hold for all entries, wherever they stand.
    let mut resolver = Resolver::new(true);
    resolver.record(context, base)?;
    let mut records = Vec::with_capacity(entries.len());
    for mut fields in entries {
        // An entry without a name is the path that the base name says.
        fields.name.get_or_insert_default();
        records.extend(resolver.record(context, fields)?);
    }
    Ok(records)
}

fn entry<'a>(reader: &mut Reader<'a>) -> Result<Fields<'a>, DecodeError> {
    let mut fields = Fields::default();
    let mut first = true;
    reader.object()?;
    while let Some(key) = reader.key(&mut first)? {
        let value = match key.as_ref() {
            "n" => {
                fields.name = Some(reader.string()?);
                continue;
            }
            "t" => {
                fields.time = Some(reader.number()?.as_f64());
                continue;
            }
            "v" => Raw::Number(reader.number()?),
            "bv" => Raw::Boolean(reader.boolean()?),
            // Bytes stand there as base64 (§6.4.4); whether they are, the model knows.
            "sv" => Raw::TextOrBase64(reader.string()?.into_owned()),
            "ov" => Raw::Link(reader.string()?.into_owned()),
            _ => {
                reader.skip()?;
                continue;
            }
        };
        if !fields.set_value(value) {
            return Err(reader.error("an entry has two values"));
        }
    }
    Ok(fields)
}

pub(super) fn encode(records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    let shared = Shared::of(records)?;
    let mut json = Vec::with_capacity(24 + records.len() * 24);
    let mut name = Vec::new();
    json.extend_from_slice(b"{\"bn\":\"");
    json.extend_from_slice(shared.base_name.as_bytes());
    json.extend_from_slice(b"\",");
    if let Some(time) = shared.base_time {
        json.extend_from_slice(b"\"bt\":");
        write_json_float(time, &mut json);
        json.push(b',');
    }
    json.extend_from_slice(b"\"e\":[");
    for (index, record) in records.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"{" } else { b",{" });
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
    json.extend_from_slice(b"]}");
    Ok(json)
}

fn write_value(record: &Record, json: &mut Vec<u8>) -> Result<(), EncodeError> {
    match &record.value {
        Value::Boolean(value) => {
            json.extend_from_slice(if *value { b"\"bv\":true" } else { b"\"bv\":false" });
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
            json.extend_from_slice(b"\"sv\":");
            write_json_string(value, json);
        }
        Value::Opaque(value) => {
            json.extend_from_slice(b"\"sv\":\"");
            json.extend_from_slice(STANDARD.encode(value).as_bytes());
            json.push(b'"');
        }
        Value::ObjectLink { object, instance } => {
            json.extend_from_slice(b"\"ov\":\"");
            write_object_link(*object, *instance, json);
            json.push(b'"');
        }
    }
    Ok(())
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
        // LwM2M Core 1.0 §6.4.4: names relative to the request, or to a base name.
        let text = |text: &str| Value::String(text.to_owned());
        let expected = vec![
            record("/3/0/0", text("Open Mobile Alliance"), None),
            record("/3/0/6/0", Value::Integer(1), None),
            record("/3/0/13", Value::Time(1_367_491_215), None),
        ];
        let entries = r#""e":[{"n":"0","sv":"Open Mobile Alliance"},{"n":"6/0","v":1},{"n":"13","v":1367491215}]"#;
        assert_eq!(read("/3/0", &format!("{{{entries}}}")), Ok(expected.clone()));
        let based = format!(r#"{{"bn":"/3/0/",{entries}}}"#);
        assert_eq!(read("/3/0", &based), Ok(expected.clone()));
        assert_eq!(read("/3", &format!(r#"{{{entries},"bn":"/3/0/"}}"#)), Ok(expected.clone()));
        assert_eq!(encode(&expected), Ok(based.into_bytes()));

        // A history: 500, 10 and 0 seconds before the base time.
        let json = r#"{"e":[{"n":"1/2","v":22.4,"t":-5},{"n":"1/2","v":22.9,"t":-30}],"bn":"/72/",
            "bt":1600000000}"#;
        let history = vec![
            record("/72/1/2", Value::Float(22.4), Some(1_599_999_995.0)),
            record("/72/1/2", Value::Float(22.9), Some(1_599_999_970.0)),
        ];
        assert_eq!(read("/72", json), Ok(history));
    }

    #[test]
    fn a_single_value_needs_no_name() {
        let one = Ok(vec![record("/3/0/9", Value::Integer(1), None)]);
        for json in
            [r#"{"e":[{"v":1}]}"#, r#"{"e":[{"n":"","v":1}]}"#, r#"{"bn":"/3/0/9","e":[{"v":1}]}"#]
        {
            assert_eq!(read("/3/0/9", json), one, "{json}");
        }
        let link = Value::ObjectLink { object: 66, instance: 0 };
        let expected = Ok(vec![record("/3/0/22/0", link, None)]);
        assert_eq!(read("/3/0/22", r#"{"e":[{"n":"0","ov":"66:0"}]}"#), expected);
        let opaque = Ok(vec![record("/5/0/0", Value::Opaque(vec![1, 2]), None)]);
        assert_eq!(read("/5/0/0", r#"{"e":[{"sv":"AQI="}]}"#), opaque);
    }

    #[test]
    fn what_is_not_of_the_format_is_refused() {
        for json in [
            "{}",
            "[]",
            r#"{"e":{}}"#,
            r#"{"e":[],"e":[]}"#,
            r#"{"e":[{"n":"a","v":1}]}"#,
            r#"{"e":[{"n":"9"}]}"#,
            r#"{"e":[{"n":"9","v":1,"bv":true}]}"#,
            r#"{"e":[{"n":"/4/0/9","v":1}]}"#,
            r#"{"e":[{"n":"9","sv":"x"}]}"#,
            r#"{"e":[{"n":"9/0/1","v":1}]}"#,
            r#"{"e":[{"v":1}]}"#,
        ] {
            assert!(read("/3/0", json).is_err(), "{json}");
        }
    }
}
