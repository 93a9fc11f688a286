//! Pre-shared keys.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key, at most: customers may set up to 256 characters.
const KEY_BYTES_MAX: usize = 256;

/// A pre-shared key: zeroed when dropped, never printed.
#[derive(Clone)]
pub struct Psk {
    bytes: Zeroizing<Vec<u8>>,
    revision: u64,
}

/// Why bytes are no key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PskError {
    /// Empty, or too long.
    #[error("key of {bytes} bytes, allowed are 1 to {limit}", limit = KEY_BYTES_MAX)]
    Length {
        /// Bytes given.
        bytes: usize,
    },
}

impl Psk {
    /// A key of 1 to 256 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, PskError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
            return Err(PskError::Length { bytes: bytes.len() });
        }
        Ok(Self { bytes, revision: 0 })
    }

    /// The same key with a number of the owner's, another one for each key that an identity ever
    /// has: [`Engine::revision`](crate::Engine::revision) tells with which one a session began.
    /// Without this call it is 0.
    pub fn with_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_length_and_no_print() {
        assert_eq!(Psk::new(Vec::new()).unwrap_err(), PskError::Length { bytes: 0 });
        assert_eq!(Psk::new(vec![7; 257]).unwrap_err(), PskError::Length { bytes: 257 });
        assert_eq!(format!("{:?}", Psk::new(vec![7; 16]).unwrap()), "Psk(..)");
    }
}
