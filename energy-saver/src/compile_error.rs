//! Why a text is not a template.

use std::fmt;

use thiserror::Error;

/// The first thing that is wrong with a template: the customer's fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct CompileError {
    /// Where, as a path into the template's JSON, e.g. `sense[2].value.bytelength`; empty where
    /// the template as a whole is meant.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub reason: CompileReason,
}

/// What is wrong at one place of a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompileReason {
    /// Not JSON at all.
    #[error("not valid JSON: {message}")]
    Syntax {
        /// What the JSON parser says, with line and column.
        message: String,
    },
    /// Another kind of JSON value than expected.
    #[error("found {found}, expected {expected}")]
    Kind {
        /// The kind of value found.
        found: &'static str,
        /// The kinds that are allowed.
        expected: &'static str,
    },
    /// A required field is absent.
    #[error("field {field:?} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field that the language does not know here.
    #[error("field is not known, allowed: {allowed}")]
    UnknownField {
        /// The fields allowed at this place.
        allowed: String,
    },
    /// A value outside of the allowed ones.
    #[error("{value} is not allowed, allowed: {allowed}")]
    Value {
        /// The value, cut to 64 characters.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Fields that exclude each other.
    #[error("{rule}")]
    Combination {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// A `calculation` that cannot be read.
    #[error("{found} at position {position} of the calculation, expected {expected}")]
    Calculation {
        /// What stands there.
        found: String,
        /// Position in bytes, counted from 1.
        position: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// One of the limits of this crate.
    #[error("{what} of {found} exceeds the limit of {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The size found.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

impl fmt::Display for CompileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "template" } else { &self.path };
        write!(formatter, "{path}: {}", self.reason)
    }
}

/// A place in the template's JSON, kept as a chain on the stack while reading.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Place<'b> {
        Place::Key(self, key)
    }

    pub(crate) fn index(&self, index: usize) -> Place<'_> {
        Place::Index(self, index)
    }

    pub(crate) fn error(&self, reason: CompileReason) -> CompileError {
        CompileError { path: self.to_string(), reason }
    }

    pub(crate) fn value_error(&self, value: &str, allowed: &'static str) -> CompileError {
        self.error(CompileReason::Value { value: shortened(value), allowed })
    }

    pub(crate) fn kind_error(
        &self,
        found: &serde_json::Value,
        expected: &'static str,
    ) -> CompileError {
        self.error(CompileReason::Kind { found: kind_of(found), expected })
    }

    pub(crate) fn limit(
        &self,
        what: &'static str,
        found: usize,
        limit: usize,
    ) -> Result<(), CompileError> {
        if found <= limit {
            return Ok(());
        }
        Err(self.error(CompileReason::Limit { what, found, limit }))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => formatter.write_str(&shortened(key)),
            Place::Key(parent, key) => write!(formatter, "{parent}.{}", shortened(key)),
            Place::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

/// The first 64 characters: enough to recognise a value, too few to flood an answer.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn kind_of(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
        serde_json::Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_like_a_path() {
        let sense = Place::Root.key("sense");
        let third = sense.index(2);
        let value = third.key("value");
        let error = value.key("bytelength").value_error("3", "1, 2, 4, 8");
        assert_eq!(
            error.to_string(),
            "sense[2].value.bytelength: 3 is not allowed, allowed: 1, 2, 4, 8"
        );
    }

    #[test]
    fn long_values_are_cut() {
        let error = Place::Root.value_error(&"ü".repeat(1_000), "less");
        assert!(error.to_string().len() < 200);
        assert!(error.to_string().starts_with("template: üü"));
    }
}
