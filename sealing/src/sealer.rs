//! Sealing for others: what must not lie on a disk as it is.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::data_key::{DataKeyError, KeySource};
use crate::vault::Vault;

/// Seals and opens texts for one purpose, under a key that is derived from the data key.
pub struct Sealer {
    vault: Vault,
    purpose: &'static str,
}

/// A sealed text was changed, stands in the place of another, or is of another data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a sealed text does not open: it was changed, or sealed under another data key")]
pub struct SealError;

/// Why nothing can be sealed.
#[derive(Debug, Error)]
pub enum SealerError {
    /// There is no data key.
    #[error(transparent)]
    DataKey(#[from] DataKeyError),
    /// No key can be derived from it.
    #[error("no key can be derived from the data key")]
    Derivation,
}

impl Sealer {
    /// Under the data key that [`KeySource::load`] has made or found before.
    ///
    /// # Errors
    /// Where the data key is not there.
    pub fn open(source: &KeySource, purpose: &'static str) -> Result<Self, SealerError> {
        let vault = Vault::for_purpose(&*source.load(true)?, purpose);
        Ok(Self { vault: vault.map_err(|_| SealerError::Derivation)?, purpose })
    }

    /// Seals `text` for its place. It grows by 28 bytes.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn seal(&self, place: &[u8], text: &[u8]) -> Result<Vec<u8>, SealError> {
        self.vault.seal(place, text).map_err(|_| SealError)
    }

    /// Opens what was sealed for the same place and purpose.
    ///
    /// # Errors
    /// Where it was not.
    pub fn unseal(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.vault.open(place, sealed).map_err(|_| SealError)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sealer").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_for_its_purpose_and_place_only() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource::File(folder.path().join("data.key"));
        assert!(Sealer::open(&source, "shoes").is_err(), "there is no data key yet");
        source.load(false).unwrap();
        let sealer = |purpose| Sealer::open(&source, purpose).unwrap();
        let sealed = sealer("shoes").seal(b"43", b"red").unwrap();
        assert_eq!(sealed.len(), 3 + 28);
        assert_eq!(**sealer("shoes").unseal(b"43", &sealed).unwrap(), *b"red");
        assert_eq!(sealer("shoes").unseal(b"44", &sealed), Err(SealError));
        assert_eq!(sealer("hats").unseal(b"43", &sealed), Err(SealError));
        assert_eq!(sealer("shoes").unseal(b"43", &sealed[..20]), Err(SealError));
    }
}
