//! A template as the customer sees it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use vocabulary::Timestamp;

use crate::{ProtocolFilter, TemplateId};

/// Longest name in characters: the documented limit.
pub const NAME_CHARS_MAX: usize = 64;

/// A template with its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its name, 1 to 64 characters.
    pub name: String,
    /// The newest version's source: a JSON text.
    pub source: String,
    /// Whether arriving messages are translated.
    pub status: Status,
    /// The protocols it applies to.
    pub protocol_filter: ProtocolFilter,
    /// The newest version's id.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// What a new template is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate {
    /// The name, 1 to 64 characters.
    pub name: String,
    /// The source: a JSON text.
    pub source: String,
    /// Whether arriving messages are to be translated.
    pub status: Status,
    /// The protocols it is to apply to.
    pub protocol_filter: ProtocolFilter,
}

/// A change of a template; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// Another name.
    pub name: Option<String>,
    /// Another source: a new version, unless the text is the same.
    pub source: Option<String>,
    /// Another status.
    pub status: Option<Status>,
    /// Other protocols.
    pub protocol_filter: Option<ProtocolFilter>,
}

/// Whether a template translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Messages that arrive are translated.
    Active,
    /// The template rests; its protocols stay taken.
    Inactive,
}

/// A word that is no status.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{word:?} is not a status, allowed: ACTIVE, INACTIVE")]
pub struct UnknownStatus {
    word: String,
}

impl Status {
    /// The name in the management API: `ACTIVE`, `INACTIVE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ACTIVE" => Ok(Self::Active),
            "INACTIVE" => Ok(Self::Inactive),
            word => Err(UnknownStatus { word: word.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back() {
        for status in [Status::Active, Status::Inactive] {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        let error = "active".parse::<Status>().unwrap_err();
        assert_eq!(error.to_string(), "\"active\" is not a status, allowed: ACTIVE, INACTIVE");
    }
}
