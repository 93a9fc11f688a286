//! Numbers that identify a SIM or a device: digits only, kept as one integer.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a text is not one of the numbers of this module.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseDigitsError {
    /// Another length than the number has.
    #[error("{kind} has {found} digits, allowed: {allowed}")]
    Length {
        /// What was to be parsed, e.g. "iccid".
        kind: &'static str,
        /// Digits found.
        found: usize,
        /// Lengths allowed, as words.
        allowed: &'static str,
    },
    /// A character that is not a digit.
    #[error("{kind} holds {character:?} at position {position}, allowed: digits 0-9")]
    Character {
        /// What was to be parsed.
        kind: &'static str,
        /// The offending character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
    /// The last digit contradicts the others.
    #[error("{kind} ends with check digit {found}, the Luhn rule asks for {expected}")]
    CheckDigit {
        /// What was to be parsed.
        kind: &'static str,
        /// The digit found.
        found: u8,
        /// The digit that the Luhn rule asks for.
        expected: u8,
    },
}

/// The number of a SIM card (ITU-T E.118), kept as its 19 digits without the check digit.
///
/// Accepts the 19-digit form, and the 20-digit form whose last digit must satisfy the Luhn rule.
/// The device id of the management API is this number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Iccid(u64);

/// The subscriber's number in the mobile network (3GPP TS 23.003 §2.2): 15 digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Imsi(u64);

/// The number of a modem (3GPP TS 23.003 §6.2): 14 digits, 15 with a Luhn digit, or 16 with the
/// software version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Imei {
    number: u64,
    digits: u8,
}

/// A telephone number (ITU-T E.164): 3 to 15 digits, without the leading `+`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Msisdn {
    number: u64,
    digits: u8,
}

impl Iccid {
    /// The 19 digits as an integer: the key under which the message log keeps a device.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// From the integer of [`Iccid::as_u64`]; `None` above 19 digits.
    pub const fn from_u64(number: u64) -> Option<Self> {
        if number <= 9_999_999_999_999_999_999 { Some(Self(number)) } else { None }
    }

    /// The 20-digit form, with its check digit.
    pub fn with_luhn(self) -> String {
        let digits = self.to_string();
        let check = luhn_digit(digits.bytes().map(|byte| byte - b'0'));
        format!("{digits}{check}")
    }
}

impl Imsi {
    /// The 15 digits as an integer.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// From the integer of [`Imsi::as_u64`]; `None` above 15 digits.
    pub const fn from_u64(number: u64) -> Option<Self> {
        if number <= 999_999_999_999_999 { Some(Self(number)) } else { None }
    }
}

impl FromStr for Iccid {
    type Err = ParseDigitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = "iccid";
        let all = check_digits(kind, text)?;
        match text.len() {
            19 => Ok(Self(all)),
            20 => {
                check_luhn(kind, text)?;
                // 20 digits can exceed 64 bits, so the first 19 are read on their own.
                check_digits(kind, &text[..19]).map(Self)
            }
            found => Err(ParseDigitsError::Length {
                kind,
                found,
                allowed: "19, or 20 with the check digit",
            }),
        }
    }
}

impl FromStr for Imsi {
    type Err = ParseDigitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = check_digits("imsi", text)?;
        match text.len() {
            15 => Ok(Self(number)),
            found => Err(ParseDigitsError::Length { kind: "imsi", found, allowed: "15" }),
        }
    }
}

impl FromStr for Imei {
    type Err = ParseDigitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = "imei";
        let number = check_digits(kind, text)?;
        let digits = match text.len() {
            14 => 14,
            15 => {
                check_luhn(kind, text)?;
                15
            }
            16 => 16,
            found => {
                let allowed = "14, 15 with the check digit, or 16 with the software version";
                return Err(ParseDigitsError::Length { kind, found, allowed });
            }
        };
        Ok(Self { number, digits })
    }
}

impl FromStr for Msisdn {
    type Err = ParseDigitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let number = check_digits("msisdn", text)?;
        match u8::try_from(text.len()) {
            Ok(digits @ 3..=15) => Ok(Self { number, digits }),
            _ => Err(ParseDigitsError::Length {
                kind: "msisdn",
                found: text.len(),
                allowed: "3 to 15",
            }),
        }
    }
}

/// Reads digits; what exceeds 64 bits wraps, which only a 20-digit text can, and the caller of
/// such a text reads its first 19 digits again.
fn check_digits(kind: &'static str, text: &str) -> Result<u64, ParseDigitsError> {
    let mut number = 0_u64;
    for (index, character) in text.chars().enumerate() {
        let Some(digit) = character.to_digit(10) else {
            return Err(ParseDigitsError::Character { kind, character, position: index + 1 });
        };
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    Ok(number)
}

fn check_luhn(kind: &'static str, digits: &str) -> Result<(), ParseDigitsError> {
    let bytes = digits.as_bytes();
    let found = bytes[bytes.len() - 1] - b'0';
    let expected = luhn_digit(bytes[..bytes.len() - 1].iter().map(|byte| byte - b'0'));
    if found == expected {
        Ok(())
    } else {
        Err(ParseDigitsError::CheckDigit { kind, found, expected })
    }
}

/// The check digit of ISO/IEC 7812-1 annex B for `digits`.
fn luhn_digit(digits: impl DoubleEndedIterator<Item = u8>) -> u8 {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let weighted = u32::from(digit) * if index % 2 == 0 { 2 } else { 1 };
            weighted / 10 + weighted % 10
        })
        .sum();
    // The remainder of a division by ten fits a digit.
    ((10 - sum % 10) % 10) as u8
}

/// Shows the first four and the last four digits, as operators know them from a printed card.
fn redact(formatter: &mut fmt::Formatter<'_>, name: &str, digits: &str) -> fmt::Result {
    let keep = if digits.len() > 10 { 4 } else { 1 };
    let (head, tail) = (&digits[..keep], &digits[digits.len() - keep..]);
    write!(formatter, "{name}({head}..{tail})")
}

impl fmt::Display for Iccid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:019}", self.0)
    }
}

impl fmt::Display for Imsi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:015}", self.0)
    }
}

impl fmt::Display for Imei {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:0width$}", self.number, width = usize::from(self.digits))
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:0width$}", self.number, width = usize::from(self.digits))
    }
}

/// `Debug` redacts, serde writes and reads the digits.
macro_rules! redacted_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                redact(formatter, stringify!($name), &self.to_string())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

redacted_text!(Iccid, Imsi, Imei, Msisdn);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iccid_with_its_check_digit_is_the_same_sim() {
        let short: Iccid = "8988303000123456789".parse().unwrap();
        let long = short.with_luhn();
        assert_eq!(long.len(), 20);
        assert_eq!(long.parse::<Iccid>(), Ok(short));
        assert_eq!(Iccid::from_u64(short.as_u64()), Some(short));
    }

    #[test]
    fn a_wrong_check_digit_is_refused_with_the_right_one() {
        let short: Iccid = "8988303000123456789".parse().unwrap();
        let long = short.with_luhn();
        let expected = long.as_bytes()[19] - b'0';
        let found = (expected + 1) % 10;
        let wrong = format!("{}{found}", &long[..19]);
        let error = wrong.parse::<Iccid>().unwrap_err();
        assert_eq!(error, ParseDigitsError::CheckDigit { kind: "iccid", found, expected });
    }

    #[test]
    fn the_luhn_digit_agrees_with_a_published_imei() {
        // The example of 3GPP TS 23.003 annex B: 26053179311383 has check digit 7.
        assert!("260531793113837".parse::<Imei>().is_ok());
        assert!("260531793113838".parse::<Imei>().is_err());
    }

    #[test]
    fn twenty_digits_beyond_64_bits_are_read_right() {
        let iccid = Iccid::from_u64(9_999_999_999_999_999_999).unwrap();
        assert_eq!(iccid.with_luhn().parse::<Iccid>(), Ok(iccid));
    }

    #[test]
    fn lengths_and_letters_are_named() {
        assert_eq!(
            "12345".parse::<Imsi>().unwrap_err().to_string(),
            "imsi has 5 digits, allowed: 15"
        );
        assert_eq!(
            "89883030001234567x9".parse::<Iccid>().unwrap_err().to_string(),
            "iccid holds 'x' at position 18, allowed: digits 0-9"
        );
        assert_eq!("+882285100000018".parse::<Msisdn>().unwrap().to_string(), "882285100000018");
        assert!("".parse::<Msisdn>().is_err());
    }

    #[test]
    fn leading_zeros_stay() {
        assert_eq!("001010000000001".parse::<Imsi>().unwrap().to_string(), "001010000000001");
        assert_eq!("0000000000000018".parse::<Imei>().unwrap().to_string(), "0000000000000018");
    }

    #[test]
    fn debug_shows_no_whole_number() {
        let imsi: Imsi = "901405100002864".parse().unwrap();
        assert_eq!(format!("{imsi:?}"), "Imsi(9014..2864)");
    }
}
