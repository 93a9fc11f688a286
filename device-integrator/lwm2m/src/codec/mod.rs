//! The formats in which devices write values (OMA LwM2M Core 1.1 §7.4).
//!
//! A decoder gives every value at a full path, typed by the model where the model knows the
//! resource, and refuses a payload as a whole. An encoder writes what its decoder reads.

mod budget;
mod cbor;
mod error;
mod json;
pub mod link_format;
mod lwm2m_json;
mod opaque;
mod senml;
mod senml_cbor;
mod senml_json;
mod text;
mod tlv;
mod typing;

pub use error::{DecodeError, EncodeError};

use crate::format::{ContentFormat, LWM2M_JSON_DRAFT, TLV_DRAFT};
use crate::limits::INPUT_BYTES_MAX;
use crate::model::Model;
use crate::path::Path;
use crate::record::Record;

/// Whether [`decode`] reads a format.
pub fn is_readable(format: ContentFormat) -> bool {
    matches!(
        format,
        ContentFormat::TEXT_PLAIN
            | ContentFormat::OCTET_STREAM
            | ContentFormat::CBOR
            | ContentFormat::SENML_JSON
            | ContentFormat::SENML_CBOR
            | ContentFormat::LWM2M_TLV
            | ContentFormat::LWM2M_JSON
            | TLV_DRAFT
            | LWM2M_JSON_DRAFT
    )
}

/// What the decoders share.
#[derive(Clone, Copy)]
struct Context<'a> {
    /// The path that was asked for or written to; every value lies at or below it.
    base: &'a Path,
    model: &'a Model,
    received_at_unix: f64,
}

/// Reads the values of a payload. `base` is the path that was asked for: the root for a Send and
/// the answer to a composite read. `received_at_unix`, in seconds, resolves relative times.
pub fn decode(
    format: ContentFormat,
    base: &Path,
    bytes: &[u8],
    model: &Model,
    received_at_unix: f64,
) -> Result<Vec<Record>, DecodeError> {
    check_length(bytes)?;
    let context = Context { base, model, received_at_unix };
    match format {
        ContentFormat::TEXT_PLAIN => text::decode(context, bytes),
        ContentFormat::OCTET_STREAM => opaque::decode(context, bytes),
        ContentFormat::CBOR => cbor::decode(context, bytes),
        ContentFormat::SENML_JSON => senml_json::decode(context, bytes),
        ContentFormat::SENML_CBOR => senml_cbor::decode(context, bytes),
        ContentFormat::LWM2M_TLV | TLV_DRAFT => tlv::decode(context, bytes),
        ContentFormat::LWM2M_JSON | LWM2M_JSON_DRAFT => lwm2m_json::decode(context, bytes),
        other => Err(DecodeError::Format(other.0)),
    }
}

/// Writes values that lie at or below `base`, the path that the request names.
///
/// Text, opaque and CBOR hold one value, at `base` itself. TLV cannot say times and leaves them
/// out.
pub fn encode(
    format: ContentFormat,
    base: &Path,
    records: &[Record],
) -> Result<Vec<u8>, EncodeError> {
    for record in records {
        if record.path.ids().len() < 3 {
            return Err(EncodeError::NotAValue(record.path));
        }
        if !base.contains(&record.path) {
            return Err(EncodeError::Outside { path: record.path, base: *base });
        }
    }
    match format {
        ContentFormat::TEXT_PLAIN => text::encode(single(base, records)?),
        ContentFormat::OCTET_STREAM => opaque::encode(single(base, records)?),
        ContentFormat::CBOR => cbor::encode(single(base, records)?),
        ContentFormat::SENML_JSON => senml_json::encode(records),
        ContentFormat::SENML_CBOR => senml_cbor::encode(records),
        ContentFormat::LWM2M_TLV => tlv::encode(base, records),
        ContentFormat::LWM2M_JSON => lwm2m_json::encode(records),
        other => Err(EncodeError::Format(other.0)),
    }
}

/// Writes the paths of a composite read or observation (LwM2M Core 1.1 §6.3.7): SenML names
/// without values.
pub fn encode_paths(format: ContentFormat, paths: &[Path]) -> Result<Vec<u8>, EncodeError> {
    match format {
        ContentFormat::SENML_JSON => Ok(senml_json::encode_paths(paths)),
        ContentFormat::SENML_CBOR => Ok(senml_cbor::encode_paths(paths)),
        other => Err(EncodeError::Format(other.0)),
    }
}

/// Reads what [`encode_paths`] writes.
pub fn decode_paths(format: ContentFormat, bytes: &[u8]) -> Result<Vec<Path>, DecodeError> {
    check_length(bytes)?;
    match format {
        ContentFormat::SENML_JSON => senml_json::decode_paths(bytes),
        ContentFormat::SENML_CBOR => senml_cbor::decode_paths(bytes),
        other => Err(DecodeError::Format(other.0)),
    }
}

fn check_length(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: bytes.len() });
    }
    Ok(())
}

/// The one value of a format that holds one, at the path that the request names.
fn single<'a>(base: &Path, records: &'a [Record]) -> Result<&'a Record, EncodeError> {
    match records {
        [record] if record.path == *base => Ok(record),
        [record] => Err(EncodeError::Outside { path: record.path, base: *base }),
        _ => Err(EncodeError::Single { records: records.len() }),
    }
}

/// The path of the one value of a format that says none.
fn single_path(base: &Path) -> Result<Path, DecodeError> {
    if base.ids().len() < 3 { Err(DecodeError::NotAValue(*base)) } else { Ok(*base) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn read(format: ContentFormat, base: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
        let base = base.parse().unwrap();
        let mut records = decode(format, &base, bytes, &Model::builtin(), 1.0)?;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].path, base);
        Ok(records.remove(0).value)
    }

    #[test]
    fn formats_of_one_value_take_its_path_from_the_request() {
        let text = ContentFormat::TEXT_PLAIN;
        assert_eq!(read(text, "/3303/0/5700", b"21.5"), Ok(Value::Float(21.5)));
        assert_eq!(read(text, "/3/0/0", b"21.5"), Ok(Value::String("21.5".to_owned())));
        assert_eq!(read(text, "/9999/0/1", b"21.5"), Ok(Value::String("21.5".to_owned())));
        assert_eq!(read(text, "/5/0/0", b"AQI="), Ok(Value::Opaque(vec![1, 2])));
        assert_eq!(read(text, "/3/0/6/1", b"5"), Ok(Value::Integer(5)));
        let error = read(text, "/3303/0/5700", b"warm").unwrap_err().to_string();
        assert_eq!(error, "/3303/0/5700: \"warm\" is not a value of type FLOAT");
        assert!(read(text, "/3/0/0", b"\xff").is_err());
        assert_eq!(read(text, "/3/0", b"1"), Err(DecodeError::NotAValue(Path::instance(3, 0))));

        let opaque = ContentFormat::OCTET_STREAM;
        assert_eq!(read(opaque, "/5/0/0", b"\x00\xff"), Ok(Value::Opaque(vec![0, 255])));
        assert_eq!(read(opaque, "/9999/0/0", b""), Ok(Value::Opaque(vec![])));
        let error = read(opaque, "/3/0/9", b"1").unwrap_err().to_string();
        assert_eq!(error, "/3/0/9 is of type INTEGER, found: bytes");

        let cbor = ContentFormat::CBOR;
        assert_eq!(read(cbor, "/3303/0/5700", b"\xf9\x4d\x60"), Ok(Value::Float(21.5)));
        assert_eq!(read(cbor, "/3303/0/5700", b"\x15"), Ok(Value::Float(21.0)));
        assert_eq!(read(cbor, "/3/0/13", b"\xc1\x05"), Ok(Value::Time(5)));
        assert!(read(cbor, "/3/0/13", b"\x05\x05").is_err());
        assert!(read(cbor, "/3/0/13", b"").is_err());
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused() {
        let record = |path: &str, value| Record::new(path.parse().unwrap(), value);
        let level = [record("/3/0/9", Value::Integer(1))];
        let at = |path: &str| path.parse::<Path>().unwrap();
        let text = ContentFormat::TEXT_PLAIN;
        assert_eq!(encode(text, &at("/3/0/9"), &level), Ok(b"1".to_vec()));
        assert!(matches!(encode(text, &at("/3/0"), &level), Err(EncodeError::Outside { .. })));
        let none = encode(text, &at("/3/0/9"), &[]);
        assert_eq!(none, Err(EncodeError::Single { records: 0 }));
        let opaque = encode(ContentFormat::OCTET_STREAM, &at("/3/0/9"), &level);
        assert!(matches!(opaque, Err(EncodeError::Type { .. })));
        let json = ContentFormat::SENML_JSON;
        assert!(matches!(encode(json, &at("/3/1"), &level), Err(EncodeError::Outside { .. })));
        let nan = [record("/6/0/0", Value::Float(f64::NAN))];
        assert_eq!(encode(json, &at("/6"), &nan), Err(EncodeError::NotFinite(nan[0].path)));
        assert!(encode(ContentFormat::SENML_CBOR, &at("/6"), &nan).is_ok());
        let early = [Record { time: Some(5.0), ..level[0].clone() }];
        assert!(matches!(encode(json, &at("/3"), &early), Err(EncodeError::Time { .. })));
        let whole = [record("/3/0", Value::Integer(1))];
        assert_eq!(encode(json, &at("/3"), &whole), Err(EncodeError::NotAValue(at("/3/0"))));
        let unknown = ContentFormat(9);
        assert_eq!(encode(unknown, &at("/3"), &level), Err(EncodeError::Format(9)));
        let refused = decode(unknown, &at("/3"), b"", &Model::builtin(), 0.0);
        assert_eq!(refused, Err(DecodeError::Format(9)));
        assert!(!is_readable(unknown) && is_readable(TLV_DRAFT));
        let long = vec![0; INPUT_BYTES_MAX + 1];
        let refused = decode(text, &at("/3/0/9"), &long, &Model::builtin(), 0.0);
        assert_eq!(refused, Err(DecodeError::TooLong { bytes: 65537 }));
        assert_eq!(encode_paths(text, &[]), Err(EncodeError::Format(0)));
    }
}
