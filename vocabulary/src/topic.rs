//! The topic that a CoAP device names with `?t=`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A Uri-Query option holds at most 255 bytes (RFC 7252 §5.10), of which `t=` takes two.
pub const TOPIC_CHARS_MAX: usize = 253;

/// A topic: 1 to 253 of the characters `A-Z a-z 0-9 _ /`, never two `/` in a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Box<str>);

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicError {
    /// Nothing after `t=`.
    #[error("topic is empty, allowed: 1 to {TOPIC_CHARS_MAX} characters")]
    Empty,
    /// Longer than a Uri-Query option can carry.
    #[error("topic of {0} characters exceeds the limit of {TOPIC_CHARS_MAX}")]
    TooLong(usize),
    /// A character outside of the set.
    #[error("topic holds {0:?}, allowed: A-Z a-z 0-9 _ /")]
    Character(char),
    /// An empty segment.
    #[error("topic holds two '/' in a row")]
    EmptySegment,
}

impl Topic {
    /// The text of the topic.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let chars = text.chars().count();
        if chars == 0 {
            return Err(TopicError::Empty);
        }
        if chars > TOPIC_CHARS_MAX {
            return Err(TopicError::TooLong(chars));
        }
        let allowed = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '/';
        if let Some(other) = text.chars().find(|char| !allowed(*char)) {
            return Err(TopicError::Character(other));
        }
        if text.contains("//") {
            return Err(TopicError::EmptySegment);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_rules_hold() {
        assert!("sometesttopic".parse::<Topic>().is_ok());
        assert!("a/b_C/1".parse::<Topic>().is_ok());
        assert!("x".repeat(253).parse::<Topic>().is_ok());
        assert_eq!("x".repeat(254).parse::<Topic>(), Err(TopicError::TooLong(254)));
        assert_eq!("".parse::<Topic>(), Err(TopicError::Empty));
        assert_eq!("a//b".parse::<Topic>(), Err(TopicError::EmptySegment));
        assert_eq!("a b".parse::<Topic>(), Err(TopicError::Character(' ')));
        assert_eq!("ä".parse::<Topic>(), Err(TopicError::Character('ä')));
    }
}
