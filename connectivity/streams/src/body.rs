//! The records of a body, each as its text.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{BodyError, RECORDS_MAX};

/// The records of a body, which is one or an array of them.
pub(crate) fn records(body: &str) -> Result<Vec<&RawValue>, BodyError> {
    match body.trim_start().as_bytes().first() {
        Some(b'[') => {
            let Records { first, count } = serde_json::from_str(body)?;
            if count > RECORDS_MAX { Err(BodyError::TooMany(count)) } else { Ok(first) }
        }
        Some(b'{') => Ok(vec![serde_json::from_str(body)?]),
        _ => Err(BodyError::Form(match serde_json::from_str(body)? {
            Value::Null => "null",
            _ => "a single value",
        })),
    }
}

/// The first records of an array, and how many there are.
struct Records<'a> {
    first: Vec<&'a RawValue>,
    count: usize,
}

impl<'de> Deserialize<'de> for Records<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Records<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Records<'de>, A::Error> {
        let mut first = Vec::new();
        while first.len() < RECORDS_MAX {
            let Some(record) = array.next_element()? else {
                let count = first.len();
                return Ok(Records { first, count });
            };
            first.push(record);
        }
        let mut count = first.len();
        while array.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Records { first, count })
    }
}
