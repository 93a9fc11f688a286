//! Options: numbers, their properties, and integer values (RFC 7252 §5.4, §3.2).

use std::fmt;
use std::ops::RangeInclusive;

/// The number of an option. Its bits say how an endpoint treats it that does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionNumber(pub u16);

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $lengths:expr, $repeats:literal;)*) => {
        impl OptionNumber {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The lengths in bytes that the option's specification allows, and whether it may
            /// stand more than once; `None` for an option that this crate does not know.
            ///
            /// A value of another length makes the option unrecognised (RFC 7252 §5.4.3).
            pub const fn format(self) -> Option<(RangeInclusive<usize>, bool)> {
                match self.0 {
                    $($number => Some(($lengths, $repeats)),)*
                    _ => None,
                }
            }
        }
    };
}

// Lengths and repetition: RFC 7252 table 4, RFC 7641 §2, RFC 7959 table 1, RFC 9175 tables 1 and
// 2, RFC 7967 table 1, RFC 8768 table 1, RFC 8613 §2, RFC 9177 table 2.
options! {
    /// If-Match.
    IF_MATCH = 1, 0..=8, true;
    /// Uri-Host.
    URI_HOST = 3, 1..=255, false;
    /// ETag.
    ETAG = 4, 1..=8, true;
    /// If-None-Match.
    IF_NONE_MATCH = 5, 0..=0, false;
    /// Observe (RFC 7641).
    OBSERVE = 6, 0..=3, false;
    /// Uri-Port.
    URI_PORT = 7, 0..=2, false;
    /// Location-Path.
    LOCATION_PATH = 8, 0..=255, true;
    /// OSCORE (RFC 8613).
    OSCORE = 9, 0..=255, false;
    /// Uri-Path.
    URI_PATH = 11, 0..=255, true;
    /// Content-Format.
    CONTENT_FORMAT = 12, 0..=2, false;
    /// Max-Age.
    MAX_AGE = 14, 0..=4, false;
    /// Uri-Query.
    URI_QUERY = 15, 0..=255, true;
    /// Hop-Limit (RFC 8768).
    HOP_LIMIT = 16, 1..=1, false;
    /// Accept.
    ACCEPT = 17, 0..=2, false;
    /// Q-Block1 (RFC 9177).
    Q_BLOCK1 = 19, 0..=3, false;
    /// Location-Query.
    LOCATION_QUERY = 20, 0..=255, true;
    /// Block2 (RFC 7959).
    BLOCK2 = 23, 0..=3, false;
    /// Block1 (RFC 7959).
    BLOCK1 = 27, 0..=3, false;
    /// Size2 (RFC 7959).
    SIZE2 = 28, 0..=4, false;
    /// Q-Block2 (RFC 9177).
    Q_BLOCK2 = 31, 0..=3, true;
    /// Proxy-Uri.
    PROXY_URI = 35, 1..=1034, false;
    /// Proxy-Scheme.
    PROXY_SCHEME = 39, 1..=255, false;
    /// Size1.
    SIZE1 = 60, 0..=4, false;
    /// Echo (RFC 9175).
    ECHO = 252, 1..=40, false;
    /// No-Response (RFC 7967).
    NO_RESPONSE = 258, 0..=1, false;
    /// Request-Tag (RFC 9175).
    REQUEST_TAG = 292, 0..=8, true;
}

impl OptionNumber {
    /// Whether an endpoint that does not know it must refuse the message (RFC 7252 §5.4.1).
    pub const fn is_critical(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether a proxy that does not know it must not forward the message (RFC 7252 §5.4.2).
    pub const fn is_unsafe_to_forward(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether a cache leaves it out of its key (RFC 7252 §5.4.6).
    pub const fn is_no_cache_key(self) -> bool {
        self.0 & 0x1e == 0x1c
    }
}

/// One option of a parsed message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OptionRef<'a> {
    /// Which option.
    pub number: OptionNumber,
    /// Its value as it stands on the wire.
    pub value: &'a [u8],
}

impl<'a> OptionRef<'a> {
    /// The value as an integer (RFC 7252 §3.2, leading zeros allowed); `None` beyond four bytes.
    pub fn as_uint(&self) -> Option<u32> {
        uint_value(self.value)
    }

    /// The value as text; `None` if it is not UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok()
    }
}

impl fmt::Debug for OptionRef<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Option({}, {} bytes)", self.number.0, self.value.len())
    }
}

/// Reads an integer of zero to four bytes (RFC 7252 §3.2); `None` beyond.
pub fn uint_value(bytes: &[u8]) -> Option<u32> {
    if bytes.len() > 4 {
        return None;
    }
    Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

/// An integer in the shortest form of RFC 7252 §3.2: zero is the empty value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UintValue {
    bytes: [u8; 4],
    start: u8,
}

impl UintValue {
    /// The form of `value`.
    pub const fn new(value: u32) -> Self {
        let start = match value {
            0 => 4,
            1..0x100 => 3,
            0x100..0x1_0000 => 2,
            0x1_0000..0x100_0000 => 1,
            _ => 0,
        };
        Self { bytes: value.to_be_bytes(), start }
    }

    /// Zero to four bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_their_shortest_form() {
        for (value, bytes) in [
            (0, &[][..]),
            (1, &[1][..]),
            (255, &[255]),
            (256, &[1, 0]),
            (65_536, &[1, 0, 0]),
            (u32::MAX, &[255; 4]),
        ] {
            assert_eq!(UintValue::new(value).as_bytes(), bytes);
            assert_eq!(uint_value(bytes), Some(value));
        }
        assert_eq!(uint_value(&[0, 0, 7]), Some(7));
        assert_eq!(uint_value(&[0; 5]), None);
    }

    #[test]
    fn the_bits_of_known_numbers_agree_with_the_registry() {
        assert!(OptionNumber::URI_PATH.is_critical());
        assert!(OptionNumber::URI_HOST.is_unsafe_to_forward());
        assert!(!OptionNumber::OBSERVE.is_critical());
        assert!(OptionNumber::MAX_AGE.is_unsafe_to_forward());
        for number in [OptionNumber::SIZE1, OptionNumber::SIZE2, OptionNumber::ECHO] {
            assert!(number.is_no_cache_key(), "{number:?}");
        }
        assert!(!OptionNumber::REQUEST_TAG.is_no_cache_key());
        assert!(!OptionNumber::ETAG.is_no_cache_key());
    }
}
