//! The id of a request: a KSUID, as the documented API shows them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use vocabulary::Timestamp;

/// The id of a request: 27 characters of base 62 that sort by time.
///
/// Layout, from the highest byte: 32 bits of seconds since 2014-05-13, 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId([u8; BYTES]);

/// Why a text is not a request's id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a request id, allowed: {CHARS} characters of 0-9, A-Z, a-z")]
pub struct ParseRequestIdError {
    text: String,
}

const BYTES: usize = 20;
/// 62^27 exceeds 2^160 by a third; 62^26 does not reach it.
const CHARS: usize = 27;
/// The epoch of the KSUID specification: 2014-05-13T16:53:20Z.
const EPOCH_S: i64 = 1_400_000_000;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl RequestId {
    /// A new id. Fails where the system has no randomness to give.
    pub fn new(now: Timestamp) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        // A clock before 2014 is wrong: the id stays unique, and only its time is not told.
        let seconds = u32::try_from(now.as_millis() / 1_000 - EPOCH_S).unwrap_or(0);
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        getrandom::fill(&mut bytes[4..])?;
        Ok(Self(bytes))
    }

    /// The bytes, highest first, so that they sort as the id does.
    pub const fn to_bytes(self) -> [u8; BYTES] {
        self.0
    }

    /// From the bytes of [`RequestId::to_bytes`].
    pub const fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// The id in the form of the documented trace ids: `1-`, eight hexadecimal digits of seconds
    /// since 1970, `-`, and 24 digits of this id's randomness.
    pub fn trace(self) -> String {
        let [a, b, c, d, random @ ..] = self.0;
        let seconds = i64::from(u32::from_be_bytes([a, b, c, d])) + EPOCH_S;
        let mut text = format!("1-{:08x}-", seconds & i64::from(u32::MAX));
        for byte in &random[..12] {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0;
        let mut text = [0; CHARS];
        for place in text.iter_mut().rev() {
            let mut rest = 0_u32;
            for byte in &mut number {
                let part = rest << 8 | u32::from(*byte);
                // Below 256: the rest was below 62.
                *byte = (part / 62).to_le_bytes()[0];
                rest = part % 62;
            }
            *place = ALPHABET[rest as usize];
        }
        text.iter().try_for_each(|byte| fmt::Write::write_char(formatter, char::from(*byte)))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RequestId({self})")
    }
}

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseRequestIdError { text: text.chars().take(64).collect() })
    }
}

fn parse(text: &str) -> Option<RequestId> {
    if text.len() != CHARS {
        return None;
    }
    let mut number = [0_u8; BYTES];
    for letter in text.bytes() {
        let mut carry = ALPHABET.iter().position(|known| *known == letter)?;
        for byte in number.iter_mut().rev() {
            carry += usize::from(*byte) * 62;
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(RequestId(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ksuids() {
        // The example of the KSUID specification.
        let id: RequestId = "0ujtsYcgvSTl8PAuAdqWYSMnLOv".parse().unwrap();
        let expected = "0669F7EFB5A1CD34B5F99D1154FB6853345C9735";
        let hex: String = id.to_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(id.to_string(), "0ujtsYcgvSTl8PAuAdqWYSMnLOv");
        assert_eq!(RequestId([0xff; 20]).to_string(), "aWgEPTl1tmebfsQzFP4bxwgy80V");
        assert_eq!(RequestId([0; 20]).to_string(), "0".repeat(27));
    }

    #[test]
    fn ids_sort_by_time_and_tell_it() {
        let at = |seconds: i64| RequestId::new(Timestamp::from_millis(seconds * 1_000)).unwrap();
        let (early, late) = (at(1_724_325_268), at(1_724_325_269));
        assert!(early < late && early.to_string() < late.to_string());
        assert!(early.trace().starts_with("1-66c71d94-"), "{}", early.trace());
        assert_eq!(early.trace().len(), 35);
        assert_ne!(at(0), at(0));
    }

    #[test]
    fn other_texts_are_refused() {
        let beyond = "aWgEPTl1tmebfsQzFP4bxwgy80W";
        for text in ["", "0", beyond, &"z".repeat(27), &"-".repeat(27), &"0".repeat(28)] {
            assert!(text.parse::<RequestId>().is_err(), "{text}");
        }
    }
}
