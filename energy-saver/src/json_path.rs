//! Paths of the `json` selector: `FType2.DevStat[7]`, `FType6.AnalogueData.1`.

use std::sync::Arc;

use serde_json::Value;

use crate::compile_error::{CompileError, Place};
use crate::{ASSET_BYTES_MAX, SEGMENTS_MAX};

/// A path into a JSON payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    text: Arc<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    /// A key of an object; in a list, the index it spells.
    Key(Box<str>),
    /// `[n]`: the index of a list.
    Index(usize),
}

impl JsonPath {
    /// Reads a path; limits are those of an asset path.
    pub(crate) fn parse(text: &str, place: &Place<'_>) -> Result<Self, CompileError> {
        place.limit("json path length in bytes", text.len(), ASSET_BYTES_MAX)?;
        let wrong = || place.value_error(&format!("{text:?}"), "keys and [n], joined by dots");
        let mut segments = Vec::new();
        for part in text.split('.') {
            let (key, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
            if !key.is_empty() {
                segments.push(Segment::Key(key.into()));
            } else if indices.is_empty() {
                return Err(wrong());
            }
            let mut rest = indices;
            while !rest.is_empty() {
                let (index, behind) = rest
                    .strip_prefix('[')
                    .and_then(|inside| inside.split_once(']'))
                    .ok_or_else(wrong)?;
                segments.push(Segment::Index(index.parse().map_err(|_| wrong())?));
                rest = behind;
            }
        }
        place.limit("number of json path segments", segments.len(), SEGMENTS_MAX)?;
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    /// The path as it was written.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The value it leads to.
    pub(crate) fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.segments.iter().try_fold(document, |value, segment| match (value, segment) {
            (Value::Object(object), Segment::Key(key)) => object.get(&**key),
            (Value::Array(list), Segment::Key(key)) => list.get(key.parse::<usize>().ok()?),
            (Value::Array(list), Segment::Index(index)) => list.get(*index),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_index_lead_there() {
        let document = serde_json::json!({"a": {"b": [1, [2, 3]], "1": 4}});
        let find =
            |text: &str| JsonPath::parse(text, &Place::Root).unwrap().find(&document).cloned();
        assert_eq!(find("a.b[0]"), Some(1.into()));
        assert_eq!(find("a.b.0"), Some(1.into()));
        assert_eq!(find("a.b[1][1]"), Some(3.into()));
        assert_eq!(find("a.b.1.0"), Some(2.into()));
        assert_eq!(find("a.1"), Some(4.into()));
        assert_eq!(find("a.b[2]"), None);
        assert_eq!(find("a.c"), None);
        assert_eq!(find("a[0]"), None);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["", ".", "a.", "a..b", "a[", "a[x]", "a[1]b", "a[-1]"] {
            assert!(JsonPath::parse(text, &Place::Root).is_err(), "{text}");
        }
        assert!(JsonPath::parse(&"a.".repeat(200), &Place::Root).is_err());
        assert!(JsonPath::parse(&"[1]".repeat(17), &Place::Root).is_err());
    }
}
