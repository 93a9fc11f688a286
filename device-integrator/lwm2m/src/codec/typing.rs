//! From what a self-describing format says to the type that the model knows.

use super::DecodeError;
use crate::model::Model;
use crate::path::Path;
use crate::value::{ResourceType, Value, parse_object_link};

/// A number as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "a float is what is asked for")]
    pub(super) const fn as_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Unsigned(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// Two to the 63rd is the first float beyond an `i64`.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    fn as_i64(self) -> Option<i64> {
        const END: f64 = 9_223_372_036_854_775_808.0;
        match self {
            Self::Integer(value) => Some(value),
            Self::Unsigned(value) => i64::try_from(value).ok(),
            Self::Float(value) if value.fract() == 0.0 && (-END..END).contains(&value) => {
                Some(value as i64)
            }
            Self::Float(_) => None,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    fn as_u64(self) -> Option<u64> {
        const END: f64 = 18_446_744_073_709_551_616.0;
        match self {
            Self::Integer(value) => u64::try_from(value).ok(),
            Self::Unsigned(value) => Some(value),
            Self::Float(value) if value.fract() == 0.0 && (0.0..END).contains(&value) => {
                Some(value as u64)
            }
            Self::Float(_) => None,
        }
    }

    /// The sum with a base value (RFC 8428 §4.5.4): exact for integers, else a float.
    pub(super) fn plus(self, base: Self) -> Self {
        match (self.as_i64(), base.as_i64()) {
            (Some(left), Some(right)) if self.is_whole() && base.is_whole() => left
                .checked_add(right)
                .map_or_else(|| Self::Float(self.as_f64() + base.as_f64()), Self::Integer),
            _ => Self::Float(self.as_f64() + base.as_f64()),
        }
    }

    const fn is_whole(self) -> bool {
        !matches!(self, Self::Float(_))
    }

    fn untyped(self) -> Value {
        match self {
            Self::Integer(value) => Value::Integer(value),
            Self::Unsigned(value) => {
                i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer)
            }
            Self::Float(value) => Value::Float(value),
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Number(Number),
    Boolean(bool),
    Text(String),
    /// A text, or bytes in base64 if the model says that the resource is opaque.
    TextOrBase64(String),
    Bytes(Vec<u8>),
    /// `vlo` or `ov`, still as text.
    Link(String),
}

impl Raw {
    const fn name(&self) -> &'static str {
        match self {
            Self::Number(Number::Integer(_) | Number::Unsigned(_)) => "an integer",
            Self::Number(Number::Float(_)) => "a floating-point number",
            Self::Boolean(_) => "a boolean",
            Self::Text(_) | Self::TextOrBase64(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::Link(_) => "an object link",
        }
    }
}

/// The value in the type of the model; in the type that the format says for a resource that the
/// model does not know. A number whose value the type can hold exactly is accepted in any
/// spelling: devices write 20 for 20.0, and 1 for true.
pub(super) fn typed(path: &Path, raw: Raw, model: &Model) -> Result<Value, DecodeError> {
    let Some(wanted) = model.kind(path) else {
        return untyped(path, raw);
    };
    let found = raw.name();
    let value = match (wanted, raw) {
        (ResourceType::Boolean, Raw::Boolean(value)) => Some(Value::Boolean(value)),
        (ResourceType::Boolean, Raw::Number(number)) => match number.as_i64() {
            Some(0) => Some(Value::Boolean(false)),
            Some(1) => Some(Value::Boolean(true)),
            _ => None,
        },
        (ResourceType::Integer, Raw::Number(number)) => number.as_i64().map(Value::Integer),
        (ResourceType::Unsigned, Raw::Number(number)) => number.as_u64().map(Value::Unsigned),
        (ResourceType::Float, Raw::Number(number)) => Some(Value::Float(number.as_f64())),
        (ResourceType::Time, Raw::Number(number)) => number.as_i64().map(Value::Time),
        (ResourceType::String, Raw::Text(text) | Raw::TextOrBase64(text)) => {
            Some(Value::String(text))
        }
        (ResourceType::CoreLink, Raw::Text(text) | Raw::TextOrBase64(text)) => {
            Some(Value::CoreLink(text))
        }
        (ResourceType::Opaque, Raw::TextOrBase64(text)) => {
            Value::parse_text(ResourceType::Opaque, &text).ok()
        }
        (ResourceType::Opaque, Raw::Bytes(bytes)) => Some(Value::Opaque(bytes)),
        (ResourceType::ObjectLink, Raw::Link(text) | Raw::Text(text) | Raw::TextOrBase64(text)) => {
            parse_object_link(&text)
        }
        _ => None,
    };
    value.ok_or(DecodeError::Type { path: *path, wanted, found })
}

fn untyped(path: &Path, raw: Raw) -> Result<Value, DecodeError> {
    Ok(match raw {
        Raw::Number(number) => number.untyped(),
        Raw::Boolean(value) => Value::Boolean(value),
        Raw::Text(text) | Raw::TextOrBase64(text) => Value::String(text),
        Raw::Bytes(bytes) => Value::Opaque(bytes),
        Raw::Link(text) => parse_object_link(&text).ok_or(DecodeError::Type {
            path: *path,
            wanted: ResourceType::ObjectLink,
            found: "another text",
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, raw: Raw) -> Result<Value, DecodeError> {
        typed(&path.parse().unwrap(), raw, &Model::builtin())
    }

    #[test]
    fn a_number_becomes_what_the_model_says() {
        let number = |number| Raw::Number(number);
        use Number::{Float, Integer, Unsigned};
        assert_eq!(at("/3303/0/5700", number(Integer(20))), Ok(Value::Float(20.0)));
        assert_eq!(at("/3/0/9", number(Float(95.0))), Ok(Value::Integer(95)));
        assert_eq!(at("/3/0/13", number(Integer(7))), Ok(Value::Time(7)));
        assert_eq!(at("/3/0/13", number(Float(-7.0))), Ok(Value::Time(-7)));
        assert_eq!(at("/5/0/13", number(Unsigned(u64::MAX))), Ok(Value::Unsigned(u64::MAX)));
        assert_eq!(at("/3311/0/5850", number(Integer(1))), Ok(Value::Boolean(true)));
        assert_eq!(at("/9999/0/1", number(Integer(1))), Ok(Value::Integer(1)));
        assert_eq!(at("/9999/0/1", number(Unsigned(1))), Ok(Value::Integer(1)));
        assert_eq!(at("/9999/0/1", number(Unsigned(u64::MAX))), Ok(Value::Unsigned(u64::MAX)));
        for (path, number) in [
            ("/3/0/9", Float(95.5)),
            ("/3/0/9", Float(f64::NAN)),
            ("/3/0/9", Float(9_223_372_036_854_775_808.0)),
            ("/3/0/9", Unsigned(u64::MAX)),
            ("/5/0/13", Integer(-1)),
            ("/5/0/13", Float(-1.0)),
            ("/5/0/13", Float(18_446_744_073_709_551_616.0)),
            ("/3311/0/5850", Integer(2)),
            ("/3/0/0", Integer(2)),
        ] {
            assert!(at(path, Raw::Number(number)).is_err(), "{path} {number:?}");
        }
        let error = at("/3/0/9", Raw::Number(Float(0.5))).unwrap_err().to_string();
        assert_eq!(error, "/3/0/9 is of type INTEGER, found: a floating-point number");
    }

    #[test]
    fn base_values_are_added_exactly_where_they_can_be() {
        use Number::{Float, Integer};
        assert_eq!(Integer(1).plus(Integer(1 << 60)), Integer((1 << 60) + 1));
        assert_eq!(Integer(1).plus(Float(0.5)), Float(1.5));
        assert_eq!(Float(1.0).plus(Float(1.0)), Float(2.0));
        assert_eq!(Integer(i64::MAX).plus(Integer(1)), Float(9_223_372_036_854_775_808.0));
    }

    #[test]
    fn links_are_read_from_either_spelling() {
        let link = Value::ObjectLink { object: 66, instance: 1 };
        assert_eq!(at("/3/0/22/0", Raw::Link("66:1".to_owned())), Ok(link.clone()));
        assert_eq!(at("/3/0/22/0", Raw::Text("66:1".to_owned())), Ok(link.clone()));
        assert_eq!(at("/9999/0/1", Raw::Link("66:1".to_owned())), Ok(link));
        assert!(at("/9999/0/1", Raw::Link("66".to_owned())).is_err());
        assert!(at("/3/0/22/0", Raw::Text("66".to_owned())).is_err());
    }
}
