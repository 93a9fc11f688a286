//! Plain text: one value (LwM2M Core 1.1 §7.4.1).

use super::{Context, DecodeError, EncodeError, single_path};
use crate::record::Record;
use crate::value::{ResourceType, Value};

/// A value of a resource that the model does not know is a text.
pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let path = single_path(context.base)?;
    let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::Syntax {
        at: error.valid_up_to(),
        what: "the text is not UTF-8",
    })?;
    let kind = context.model.kind(&path).unwrap_or(ResourceType::String);
    let value = Value::parse_text(kind, text).map_err(|error| DecodeError::Text { path, error })?;
    Ok(vec![Record::new(path, value)])
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, EncodeError> {
    if matches!(record.value, Value::Float(value) if !value.is_finite()) {
        return Err(EncodeError::NotFinite(record.path));
    }
    let mut text = Vec::new();
    record.value.write_text(&mut text);
    Ok(text)
}
