//! Ids of templates.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// The id of a template: 21 characters of `A-Z a-z 0-9 _ -`, the form of a nanoid, 126 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemplateId(Box<str>);

impl TemplateId {
    /// A new id; fails where the system has no randomness to give.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        state::nanoid().map(|id| Self(id.into()))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromSql for TemplateId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(|text| Self(text.into()))
    }
}

impl ToSql for TemplateId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(&*self.0))
    }
}
