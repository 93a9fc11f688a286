//! Sealing: AES-256-GCM under the data key.
//!
//! A sealed text is a nonce, the cipher text and its tag. Nonces are random: NIST SP 800-38D §8.3
//! allows 2^32 of them under one key, which a million devices that ask for a new key every day
//! reach after eleven years. What a text belongs to is authenticated with it, so that a sealed key
//! opens only in its own place.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the data key.
pub const DATA_KEY_BYTES: usize = 32;

/// Bytes that sealing adds to a text.
#[cfg(test)]
const SEAL_BYTES: usize = NONCE_LEN + 16;

/// Opens and closes what is secret.
pub struct Vault {
    key: RandomizedNonceKey,
}

/// It was sealed under another data key, for another place, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a sealed text does not open: it was changed, or sealed under another data key")]
pub struct Unopened;

impl Vault {
    /// Under the data key itself, by AES-256-GCM.
    ///
    /// # Errors
    /// Where the library refuses the key, which it does not.
    pub fn new(data_key: &[u8; DATA_KEY_BYTES]) -> Result<Self, Unopened> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, data_key).map_err(|_| Unopened)?;
        Ok(Self { key })
    }

    /// Under a key of its own, derived from the data key (RFC 5869 §2.3, whose §3.3 lets a random
    /// key go without the first step), for what is sealed more often than random nonces allow: by
    /// AES-256-GCM-SIV, which a repeated nonce does not break (RFC 8452 §9).
    pub(crate) fn for_purpose(
        data_key: &[u8; DATA_KEY_BYTES],
        purpose: &str,
    ) -> Result<Self, Unopened> {
        let mut derived = Zeroizing::new([0; DATA_KEY_BYTES]);
        let derivation = Prk::new_less_safe(HKDF_SHA256, data_key);
        derivation
            .expand(&[purpose.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut derived[..]))
            .map_err(|_| Unopened)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &derived[..]).map_err(|_| Unopened)?;
        Ok(Self { key })
    }

    /// Seals `text` for `place`. It grows by 28 bytes.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn seal(&self, place: &[u8], text: &[u8]) -> Result<Vec<u8>, Unopened> {
        let mut sealed = Vec::with_capacity(NONCE_LEN + text.len() + 16);
        sealed.extend_from_slice(&[0; NONCE_LEN]);
        sealed.extend_from_slice(text);
        let (nonce_place, body) = sealed.split_at_mut(NONCE_LEN);
        let done = self.key.seal_in_place_separate_tag(Aad::from(place), body);
        let Ok((nonce, tag)) = done else {
            sealed.zeroize();
            return Err(Unopened);
        };
        nonce_place.copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// Where it was not.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unopened)?;
        let mut text = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            self.key.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| Unopened)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Vault").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_in_its_own_place_under_its_own_key_only() {
        let [one, other] = [[1; 32], [2; 32]].map(|key| Vault::new(&key).unwrap());
        let sealed = one.seal(b"here", b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + SEAL_BYTES);
        assert_ne!(sealed, one.seal(b"here", b"secret").unwrap());
        assert_eq!(**one.open(b"here", &sealed).unwrap(), *b"secret");
        assert_eq!(one.open(b"there", &sealed), Err(Unopened));
        assert_eq!(other.open(b"here", &sealed), Err(Unopened));
        assert_eq!(one.open(b"here", &sealed[..11]), Err(Unopened));
        let mut changed = sealed;
        changed[13] ^= 1;
        assert_eq!(one.open(b"here", &changed), Err(Unopened));
    }
}
