//! What a resource holds (OMA LwM2M Core 1.1 Appendix C, "Data types").

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::excerpt::Excerpt;
use crate::limits::TEXT_BYTES_MAX;
use crate::path::parse_id;

/// One value of a resource or of a resource instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Boolean(bool),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer (LwM2M 1.1).
    Unsigned(u64),
    /// A floating-point number, possibly NaN or infinite.
    Float(f64),
    /// UTF-8 text.
    String(String),
    /// Bytes.
    Opaque(Vec<u8>),
    /// Seconds since 1970-01-01T00:00:00Z, negative before.
    Time(i64),
    /// Another object instance; 65535:65535 is the null link.
    ObjectLink {
        /// Which object.
        object: u16,
        /// Which instance of it.
        instance: u16,
    },
    /// A link in the CoRE link format (LwM2M 1.1).
    CoreLink(String),
}

/// The type that a definition gives to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// `Boolean`.
    Boolean,
    /// `Integer`.
    Integer,
    /// `Unsigned Integer`.
    Unsigned,
    /// `Float`.
    Float,
    /// `String`.
    String,
    /// `Opaque`.
    Opaque,
    /// `Time`.
    Time,
    /// `Objlnk`.
    ObjectLink,
    /// `Corelnk`.
    CoreLink,
}

impl ResourceType {
    /// The name under which operators write it: `UNSIGNED_INTEGER`, `OBJLINK` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Integer => "INTEGER",
            Self::Unsigned => "UNSIGNED_INTEGER",
            Self::Float => "FLOAT",
            Self::String => "STRING",
            Self::Opaque => "OPAQUE",
            Self::Time => "TIME",
            Self::ObjectLink => "OBJLINK",
            Self::CoreLink => "CORELINK",
        }
    }

    /// The type with this [`ResourceType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [ResourceType; 9] = [
            ResourceType::Boolean,
            ResourceType::Integer,
            ResourceType::Unsigned,
            ResourceType::Float,
            ResourceType::String,
            ResourceType::Opaque,
            ResourceType::Time,
            ResourceType::ObjectLink,
            ResourceType::CoreLink,
        ];
        ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a text is not a value of the type wanted; the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text means nothing in that type.
    #[error("{text} is not a value of type {wanted}")]
    Text {
        /// The beginning of the text.
        text: Excerpt,
        /// The type wanted.
        wanted: ResourceType,
    },
    /// The text is too long.
    #[error("text of {bytes} bytes exceeds the limit of {TEXT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Value {
    /// The type of the value.
    pub const fn kind(&self) -> ResourceType {
        match self {
            Self::Boolean(_) => ResourceType::Boolean,
            Self::Integer(_) => ResourceType::Integer,
            Self::Unsigned(_) => ResourceType::Unsigned,
            Self::Float(_) => ResourceType::Float,
            Self::String(_) => ResourceType::String,
            Self::Opaque(_) => ResourceType::Opaque,
            Self::Time(_) => ResourceType::Time,
            Self::ObjectLink { .. } => ResourceType::ObjectLink,
            Self::CoreLink(_) => ResourceType::CoreLink,
        }
    }

    /// Reads what an operator or the text format (LwM2M Core 1.1 §7.4.1) says: `true`, `false`,
    /// `1` or `0`; numbers in decimal; a time in whole seconds since 1970; an object link as
    /// `object:instance`; opaque bytes in base64; texts as they are.
    pub fn parse_text(wanted: ResourceType, text: &str) -> Result<Self, ValueError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ValueError::TooLong { bytes: text.len() });
        }
        let value = match wanted {
            ResourceType::Boolean => match text {
                "1" | "true" => Some(Self::Boolean(true)),
                "0" | "false" => Some(Self::Boolean(false)),
                _ => None,
            },
            ResourceType::Integer => text.parse().ok().map(Self::Integer),
            ResourceType::Unsigned => text.parse().ok().map(Self::Unsigned),
            ResourceType::Float => parse_float(text).map(Self::Float),
            ResourceType::String => Some(Self::String(text.to_owned())),
            ResourceType::Opaque => STANDARD.decode(text).ok().map(Self::Opaque),
            ResourceType::Time => text.parse().ok().map(Self::Time),
            ResourceType::ObjectLink => parse_object_link(text),
            ResourceType::CoreLink => Some(Self::CoreLink(text.to_owned())),
        };
        value.ok_or_else(|| ValueError::Text { text: Excerpt::of(text), wanted })
    }

    /// Appends the form that [`Value::parse_text`] reads; booleans are `1` and `0`, as
    /// LwM2M Core 1.1 Appendix C wants them in the text format.
    pub(crate) fn write_text(&self, text: &mut Vec<u8>) {
        match self {
            Self::Boolean(value) => text.push(if *value { b'1' } else { b'0' }),
            Self::Integer(value) | Self::Time(value) => {
                text.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes());
            }
            Self::Unsigned(value) => {
                text.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes());
            }
            Self::Float(value) => {
                text.extend_from_slice(zmij::Buffer::new().format(*value).as_bytes());
            }
            Self::String(value) | Self::CoreLink(value) => {
                text.extend_from_slice(value.as_bytes());
            }
            Self::Opaque(value) => text.extend_from_slice(STANDARD.encode(value).as_bytes()),
            Self::ObjectLink { object, instance } => write_object_link(*object, *instance, text),
        }
    }
}

/// Appends `object:instance`.
pub(crate) fn write_object_link(object: u16, instance: u16, text: &mut Vec<u8>) {
    text.extend_from_slice(itoa::Buffer::new().format(object).as_bytes());
    text.push(b':');
    text.extend_from_slice(itoa::Buffer::new().format(instance).as_bytes());
}

/// Reads `object:instance`; both may be 65535, which is the null link (Appendix C).
pub(crate) fn parse_object_link(text: &str) -> Option<Value> {
    let (object, instance) = text.split_once(':')?;
    let (object, instance) = (parse_id(object.as_bytes())?, parse_id(instance.as_bytes())?);
    Some(Value::ObjectLink { object, instance })
}

/// A decimal number; `inf` and `NaN` in the spelling of our own writer are read back.
fn parse_float(text: &str) -> Option<f64> {
    let is_plain =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let is_special = matches!(text, "NaN" | "inf" | "-inf");
    if is_plain || is_special { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_of_operators_become_values() {
        use ResourceType as T;
        let link = Value::ObjectLink { object: 3, instance: 0 };
        let null = Value::ObjectLink { object: 65535, instance: 65535 };
        for (kind, text, value) in [
            (T::Boolean, "true", Value::Boolean(true)),
            (T::Boolean, "0", Value::Boolean(false)),
            (T::Integer, "-9223372036854775808", Value::Integer(i64::MIN)),
            (T::Unsigned, "18446744073709551615", Value::Unsigned(u64::MAX)),
            (T::Float, "21.5", Value::Float(21.5)),
            (T::Float, "-1e3", Value::Float(-1000.0)),
            (T::String, "", Value::String(String::new())),
            (T::Opaque, "AQID", Value::Opaque(vec![1, 2, 3])),
            (T::Opaque, "", Value::Opaque(vec![])),
            (T::Time, "1700000000", Value::Time(1_700_000_000)),
            (T::ObjectLink, "3:0", link),
            (T::ObjectLink, "65535:65535", null),
            (T::CoreLink, "</3/0>", Value::CoreLink("</3/0>".to_owned())),
        ] {
            assert_eq!(Value::parse_text(kind, text), Ok(value), "{text}");
            assert_eq!(ResourceType::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn texts_of_another_type_are_refused() {
        use ResourceType as T;
        for (kind, text) in [
            (T::Boolean, "yes"),
            (T::Boolean, "TRUE"),
            (T::Integer, "1.0"),
            (T::Integer, "9223372036854775808"),
            (T::Integer, ""),
            (T::Unsigned, "-1"),
            (T::Float, "nan"),
            (T::Float, "infinity"),
            (T::Float, "1,5"),
            (T::Opaque, "AQI"),
            (T::Opaque, "*"),
            (T::Time, "yesterday"),
            (T::ObjectLink, "3"),
            (T::ObjectLink, "3:0:1"),
            (T::ObjectLink, "65536:0"),
        ] {
            assert!(Value::parse_text(kind, text).is_err(), "{kind} {text}");
        }
        let error = Value::parse_text(T::Integer, "much").unwrap_err();
        assert_eq!(error.to_string(), "\"much\" is not a value of type INTEGER");
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        let error = Value::parse_text(T::String, &long).unwrap_err();
        assert_eq!(error.to_string(), "text of 65537 bytes exceeds the limit of 65536");
    }

    proptest! {
        #[test]
        fn a_float_reads_back_as_itself(value in any::<f64>()) {
            let mut text = Vec::new();
            Value::Float(value).write_text(&mut text);
            let text = String::from_utf8(text).unwrap();
            let Ok(Value::Float(read)) = Value::parse_text(ResourceType::Float, &text) else {
                panic!("{text}");
            };
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()));
        }
    }
}
