//! The beginning of somebody else's text, safe to stand in an error.

use std::fmt;

/// Bytes kept: enough for every legal path and most names.
const BYTES_MAX: usize = 32;

/// At most 32 bytes of a text that was refused, shown quoted and escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; BYTES_MAX],
    len: u8,
    cut: bool,
}

impl Excerpt {
    /// The beginning of `text`.
    pub fn of(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        let len = text.len().min(BYTES_MAX);
        let mut bytes = [0; BYTES_MAX];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len: u8::try_from(len).unwrap_or(0), cut: text.len() > BYTES_MAX }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = &self.bytes[..usize::from(self.len)];
        write!(formatter, "\"{}\"", kept.escape_ascii())?;
        formatter.write_str(if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_strange_text_is_cut_and_escaped() {
        assert_eq!(Excerpt::of("/3/0").to_string(), "\"/3/0\"");
        assert_eq!(Excerpt::of("a\"\n").to_string(), "\"a\\\"\\n\"");
        assert_eq!(Excerpt::of([b'a'; 99]).to_string(), format!("\"{}\"...", "a".repeat(32)));
    }
}
