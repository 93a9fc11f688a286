//! The id of an event: made once at acceptance, kept for ever.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::Timestamp;

/// The id of an event: 128 bits, sorted by time, in two spellings of the same number.
///
/// * `msg_01HZX...` ([`fmt::Display`]): a ULID behind `msg_`, the id of webhooks and of simgate's
///   own API.
/// * `1-6393505d-67fa8489fb9c791fcddd43f0` ([`EventId::trace`]): the form of the documented event
///   envelope; eight hexadecimal digits of seconds since 1970, then 24 more.
///
/// Layout, from the highest bit: 32 bits of seconds, 10 bits of milliseconds, 6 zero bits, 80 bits
/// of randomness. A ULID holds the same time as 48 bits of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

/// Why a text is not an event's id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an event id, allowed: msg_ and 26 characters, or 1-<8 hex>-<24 hex>")]
pub struct ParseEventIdError {
    text: String,
}

/// Crockford's base 32, as the ULID specification asks.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PREFIX: &str = "msg_";
const RANDOM_BITS: u32 = 80;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

impl EventId {
    fn from_parts(millis: u64, random: u128) -> Self {
        let seconds = u128::from(millis / 1_000) & u128::from(u32::MAX);
        let fraction = u128::from(millis % 1_000);
        Self(seconds << 96 | fraction << 86 | (random & RANDOM_MASK))
    }

    fn millis(self) -> u64 {
        // 32 and 10 bits: both fit.
        let seconds = (self.0 >> 96) as u64;
        let fraction = ((self.0 >> 86) & 0x3ff) as u64;
        seconds * 1_000 + fraction
    }

    /// When the id was made, in whole milliseconds.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.millis()).unwrap_or(i64::MAX))
    }

    /// The bytes of the id, highest first, so that they sort as the id does.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From the bytes of [`EventId::to_bytes`].
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The spelling of the documented event envelope.
    pub fn trace(self) -> String {
        let digits = format!("{:032x}", self.0);
        format!("1-{}-{}", &digits[..8], &digits[8..])
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ulid = u128::from(self.millis()) << RANDOM_BITS | (self.0 & RANDOM_MASK);
        formatter.write_str(PREFIX)?;
        for place in (0..26).rev() {
            let digit = (ulid >> (place * 5)) & 0x1f;
            fmt::Write::write_char(formatter, char::from(ALPHABET[digit as usize]))?;
        }
        Ok(())
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = match text.strip_prefix(PREFIX) {
            Some(ulid) => parse_ulid(ulid),
            None => parse_trace(text),
        };
        id.ok_or_else(|| ParseEventIdError { text: text.chars().take(64).collect() })
    }
}

fn parse_ulid(text: &str) -> Option<EventId> {
    if text.len() != 26 {
        return None;
    }
    let mut ulid = 0_u128;
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|letter| *letter == byte.to_ascii_uppercase())?;
        // 26 digits of 5 bits are 130 bits: the first may only use three.
        ulid = ulid.checked_mul(32)? | digit as u128;
    }
    let millis = u64::try_from(ulid >> RANDOM_BITS).ok()?;
    let id = EventId::from_parts(millis, ulid);
    (id.millis() == millis).then_some(id)
}

fn parse_trace(text: &str) -> Option<EventId> {
    let (seconds, rest) = text.strip_prefix("1-")?.split_once('-')?;
    let lengths_hold = seconds.len() == 8 && rest.len() == 24;
    let hex = seconds.bytes().chain(rest.bytes()).all(|byte| byte.is_ascii_hexdigit());
    if !lengths_hold || !hex {
        return None;
    }
    let id = u128::from_str_radix(&format!("{seconds}{rest}"), 16).ok().map(EventId)?;
    // Six bits between milliseconds and randomness are always zero.
    let fraction = (id.0 >> 86) & 0x3ff;
    ((id.0 >> RANDOM_BITS) & 0x3f == 0 && fraction < 1_000).then_some(id)
}

/// Makes ids that never go back and never repeat, also when the clock does.
#[derive(Debug)]
pub struct EventIdGenerator {
    last_millis: u64,
    random: u128,
    state: u64,
}

impl EventIdGenerator {
    /// `seed` should be random; `last` is the newest id already given, after which the new ones
    /// sort.
    pub fn new(seed: u64, last: Option<EventId>) -> Self {
        let last_millis = last.map_or(0, EventId::millis);
        let random = last.map_or(0, |id| id.0 & RANDOM_MASK);
        Self { last_millis, random, state: seed }
    }

    /// The next id, for an event accepted at `now`.
    pub fn next(&mut self, now: Timestamp) -> EventId {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        if millis > self.last_millis {
            self.last_millis = millis;
            // The top bit stays free, so that counting up within a millisecond cannot overflow.
            self.random = (u128::from(self.scramble()) << 16 ^ u128::from(self.scramble()))
                & (RANDOM_MASK >> 1);
        } else {
            self.random += 1;
        }
        EventId::from_parts(self.last_millis, self.random)
    }

    /// One step of SplitMix64 (Steele, Lea, Flood 2014).
    fn scramble(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_the_same_id() {
        let mut ids = EventIdGenerator::new(7, None);
        let id = ids.next(Timestamp::from_millis(1_670_598_749_915));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.trace().parse(), Ok(id));
        assert!(id.trace().starts_with("1-6393505d-"));
        assert_eq!(id.to_string().len(), 30);
        assert_eq!(id.timestamp(), Timestamp::from_millis(1_670_598_749_915));
        assert_eq!(EventId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn ids_rise_although_the_clock_falls() {
        let mut ids = EventIdGenerator::new(1, None);
        let mut last = ids.next(Timestamp::from_millis(5_000));
        for millis in [5_000, 4_000, 5_001, 1, 5_001, 9_999] {
            let next = ids.next(Timestamp::from_millis(millis));
            assert!(next > last);
            assert!(next.to_string() > last.to_string());
            last = next;
        }
        let mut resumed = EventIdGenerator::new(2, Some(last));
        assert!(resumed.next(Timestamp::from_millis(0)) > last);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "msg_", "msg_0", "1-x-y", "1-6393505d-67fa8489fb9c791fcddd43fg", "7"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
        assert!("msg_ZZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<EventId>().is_err());
    }
}
