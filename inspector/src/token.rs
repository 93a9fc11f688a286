//! Page tokens: a query, a place in it, and a check that nobody wrote the token by hand.
//!
//! A token carries the whole query that it continues (in the documented API clients may repeat the
//! query or not), so a window that was counted from "now" stays where it was. Layout, integers
//! big-endian, written in base 64 for URLs (RFC 4648 §5) without padding:
//!
//! ```text
//! format u8 = 1 | first u64 | before u64 | device u64 | protocol u8 | from i64 | until i64 |
//! XXH3 of all that, u64
//! ```
//!
//! The check finds accidents and guesses. It is no secret, and none is needed: a token names a
//! place that its bearer may read anyway.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use message_log::Offset;
use thiserror::Error;
use vocabulary::{Iccid, Protocol, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// A place between two pages. `Display` and `FromStr` are its form in URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// The end of the log when the first page was made: newer messages are on no page.
    pub(crate) first: Offset,
    /// The page holds what lies before this place.
    pub(crate) before: Offset,
    pub(crate) device: Option<Iccid>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) from: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

/// Why a text is no page token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not what this gateway gave.
    #[error("the page token was not given by this gateway, or was changed")]
    Invalid,
    /// Another device or protocol than the query that the token continues.
    #[error("the page token belongs to a query with another {0}")]
    OtherQuery(&'static str),
}

const FORMAT: u8 = 1;
/// The fields in front of the check: 1 + 5 x 8 + 1.
const FIELDS_BYTES: usize = 42;
const BYTES: usize = FIELDS_BYTES + 8;
/// ICCIDs have at most 19 digits, so this number is none.
const NO_DEVICE: u64 = u64::MAX;
const NO_PROTOCOL: u8 = u8::MAX;
/// The end of time, which no query names.
const NO_END: i64 = i64::MAX;

impl fmt::Display for PageToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.first.as_u64().to_be_bytes());
        bytes.extend_from_slice(&self.before.as_u64().to_be_bytes());
        bytes.extend_from_slice(&self.device.map_or(NO_DEVICE, Iccid::as_u64).to_be_bytes());
        bytes.push(self.protocol.map_or(NO_PROTOCOL, protocol_code));
        bytes.extend_from_slice(&self.from.as_micros().to_be_bytes());
        bytes.extend_from_slice(&self.until.map_or(NO_END, Timestamp::as_micros).to_be_bytes());
        bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
        formatter.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for PageToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Invalid)?;
        parse(&bytes).ok_or(TokenError::Invalid)
    }
}

fn parse(bytes: &[u8]) -> Option<PageToken> {
    let (fields, check) = bytes.split_at_checked(FIELDS_BYTES)?;
    if check != xxh3_64(fields).to_be_bytes() || fields[0] != FORMAT {
        return None;
    }
    let word = |start: usize| {
        let bytes = fields.get(start..start + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let device = match word(17)? {
        NO_DEVICE => None,
        number => Some(Iccid::from_u64(number)?),
    };
    let protocol = match fields[25] {
        NO_PROTOCOL => None,
        code => Some(*Protocol::ALL.get(usize::from(code))?),
    };
    Some(PageToken {
        first: Offset::from_u64(word(1)?),
        before: Offset::from_u64(word(9)?),
        device,
        protocol,
        from: Timestamp::from_micros(word(26)?.cast_signed()),
        until: match word(34)?.cast_signed() {
            NO_END => None,
            micros => Some(Timestamp::from_micros(micros)),
        },
    })
}

/// The place in [`Protocol::ALL`], whose order only grows at its end.
fn protocol_code(protocol: Protocol) -> u8 {
    let place = Protocol::ALL.iter().position(|other| *other == protocol);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(NO_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> PageToken {
        PageToken {
            first: Offset::from_u64(77),
            before: Offset::from_u64(12),
            device: Some("8988280666000002864".parse().unwrap()),
            protocol: Some(Protocol::Lwm2m),
            from: Timestamp::from_micros(-5),
            until: Some(Timestamp::from_micros(9)),
        }
    }

    #[test]
    fn a_token_comes_back() {
        let mut token = token();
        assert_eq!(token.to_string().parse(), Ok(token));
        token.device = None;
        token.protocol = None;
        token.until = None;
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = token().to_string();
        for place in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<PageToken>(), Err(TokenError::Invalid), "{place}");
        }
        for other in ["", "AQ", "!", &text[..text.len() - 1]] {
            assert_eq!(other.parse::<PageToken>(), Err(TokenError::Invalid));
        }
    }
}
