//! Bytes as they are: one value (LwM2M Core 1.1 §7.4.2).

use super::{Context, DecodeError, EncodeError, single_path};
use crate::record::Record;
use crate::value::{ResourceType, Value};

pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let path = single_path(context.base)?;
    match context.model.kind(&path) {
        None | Some(ResourceType::Opaque) => {
            Ok(vec![Record::new(path, Value::Opaque(bytes.to_vec()))])
        }
        Some(wanted) => Err(DecodeError::Type { path, wanted, found: "bytes" }),
    }
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, EncodeError> {
    match &record.value {
        Value::Opaque(bytes) => Ok(bytes.clone()),
        other => Err(EncodeError::Type { path: record.path, kind: other.kind() }),
    }
}
