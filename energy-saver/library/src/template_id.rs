//! Ids of templates.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// The id of a template: 21 characters of `A-Z a-z 0-9 _ -`, the form of a nanoid, 126 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemplateId(Box<str>);

const LENGTH: usize = 21;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

impl TemplateId {
    /// A new id; fails where the system has no randomness to give.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; LENGTH];
        getrandom::fill(&mut bytes)?;
        // 64 characters: each of the lower six bits counts alike.
        Ok(Self(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_21_characters_and_differ() {
        let first = TemplateId::random().unwrap();
        let second = TemplateId::random().unwrap();
        assert_eq!(first.as_str().len(), 21);
        assert!(first.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(first, second);
    }
}
