//! What a key is: its text, how the text is read, for which protocol, and whose it is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

/// Fewest characters of a key (`secretKey` of the management API).
pub const SECRET_CHARS_MIN: usize = 8;
/// Most characters of a key (`secretKey` of the management API).
pub const SECRET_CHARS_MAX: usize = 256;

/// The protocols that have keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyProtocol {
    /// CoAP over DTLS.
    Coap,
    /// LwM2M over DTLS: of a device with its customer, for the bootstrap.
    Lwm2m,
    /// LwM2M over DTLS: of a device with the server, made anew at each bootstrap. No customer sets
    /// or reads it.
    Lwm2mServer,
}

/// How the text of a key stands for its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// The ASCII bytes of the text.
    String,
    /// Two hexadecimal digits for each byte.
    Hex,
}

/// Who made a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The customer, through the management API: nobody else replaces it.
    User,
    /// The gateway, when the device asked for one.
    Bootstrap,
}

/// A key as text. It is overwritten when it is dropped, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: Zeroizing<String>,
    format: KeyFormat,
}

/// Why a text is no key. Never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSecret {
    /// Too short or too long.
    #[error("secret key of {chars} characters, allowed: {SECRET_CHARS_MIN} to {max}")]
    Length {
        /// Characters found.
        chars: usize,
        /// The limit of the operation.
        max: usize,
    },
    /// Something that a device could not hold in a text.
    #[error("secret key holds a character at position {position} that is not printable ascii")]
    Character {
        /// Counted from 1.
        position: usize,
    },
    /// Not hexadecimal.
    #[error("secret key holds a character at position {position} that is not hexadecimal")]
    Digit {
        /// Counted from 1.
        position: usize,
    },
    /// Half a byte is left over.
    #[error("secret key of {chars} hexadecimal digits, allowed: an even number")]
    Odd {
        /// Digits found.
        chars: usize,
    },
}

/// A word that names no protocol with keys, or no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("allowed: {0}")]
pub struct UnknownKeyWord(&'static str);

impl KeyProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Coap, Self::Lwm2m, Self::Lwm2mServer];
    /// Those that a customer may name.
    const NAMED: [Self; 2] = [Self::Coap, Self::Lwm2m];

    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coap => "COAP",
            Self::Lwm2m => "LWM2M",
            Self::Lwm2mServer => "LWM2M_SERVER",
        }
    }

    /// The number in the state file.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Coap => 1,
            Self::Lwm2m => 2,
            Self::Lwm2mServer => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.code() == code)
    }
}

/// Case does not matter: the documented API shows `COAP` and `CoAP`.
impl FromStr for KeyProtocol {
    type Err = UnknownKeyWord;

    fn from_str(text: &str) -> Result<Self, UnknownKeyWord> {
        let found = Self::NAMED.into_iter().find(|word| word.as_str().eq_ignore_ascii_case(text));
        found.ok_or(UnknownKeyWord("COAP, LWM2M"))
    }
}

impl KeyFormat {
    const ALL: [Self; 2] = [Self::String, Self::Hex];

    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "STRING",
            Self::Hex => "HEX",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::String => 1,
            Self::Hex => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }
}

impl FromStr for KeyFormat {
    type Err = UnknownKeyWord;

    fn from_str(text: &str) -> Result<Self, UnknownKeyWord> {
        let found = Self::ALL.into_iter().find(|word| word.as_str().eq_ignore_ascii_case(text));
        found.ok_or(UnknownKeyWord("STRING, HEX"))
    }
}

impl Origin {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Bootstrap => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::User, Self::Bootstrap].into_iter().find(|origin| origin.code() == code)
    }
}

impl Secret {
    /// Reads a key of at most `chars_max` characters.
    ///
    /// Characters are printable ASCII: device software keeps keys as texts that a zero byte ends.
    pub fn parse(text: &str, format: KeyFormat, chars_max: usize) -> Result<Self, InvalidSecret> {
        let chars = text.chars().count();
        if !(SECRET_CHARS_MIN..=chars_max).contains(&chars) {
            return Err(InvalidSecret::Length { chars, max: chars_max });
        }
        let position_of = |wrong: fn(char) -> bool| text.chars().position(wrong).map(|at| at + 1);
        match format {
            KeyFormat::String => {
                if let Some(position) = position_of(|char| !matches!(char, ' '..='~')) {
                    return Err(InvalidSecret::Character { position });
                }
            }
            KeyFormat::Hex => {
                if let Some(position) = position_of(|char| !char.is_ascii_hexdigit()) {
                    return Err(InvalidSecret::Digit { position });
                }
                if !chars.is_multiple_of(2) {
                    return Err(InvalidSecret::Odd { chars });
                }
            }
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), format })
    }

    /// What was sealed, which was valid when it was sealed; `None` where it is no text.
    pub(crate) fn from_sealed(text: &[u8], format: KeyFormat) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        Some(Self { text: Zeroizing::new(text.to_owned()), format })
    }

    /// The text, as the customer wrote it and as a device is told it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How the text is read.
    pub fn format(&self) -> KeyFormat {
        self.format
    }

    /// The bytes that DTLS takes as the key.
    pub fn key_bytes(&self) -> Zeroizing<Vec<u8>> {
        key_bytes(self.text.as_bytes(), self.format)
    }
}

/// The bytes of a key that was checked before.
pub(crate) fn key_bytes(text: &[u8], format: KeyFormat) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    match format {
        KeyFormat::String => bytes.extend_from_slice(text),
        KeyFormat::Hex => {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
            let pairs = text.chunks_exact(2).map(|pair| match pair {
                [high, low] => u8::try_from(digit(*high) << 4 | digit(*low)).unwrap_or(0),
                _ => 0,
            });
            bytes.extend(pairs);
        }
    }
    bytes
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secret").field("format", &self.format).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, format: KeyFormat) -> Result<Secret, InvalidSecret> {
        Secret::parse(text, format, SECRET_CHARS_MAX)
    }

    #[test]
    fn a_string_is_its_bytes_and_hex_is_decoded() {
        let secret = parse("00ff0A7f", KeyFormat::Hex).unwrap();
        assert_eq!(*secret.key_bytes(), [0x00, 0xff, 0x0a, 0x7f]);
        assert_eq!(secret.text(), "00ff0A7f");
        let secret = parse("00ff0A7f", KeyFormat::String).unwrap();
        assert_eq!(*secret.key_bytes(), *b"00ff0A7f");
    }

    #[test]
    fn what_no_device_could_hold_is_refused_without_a_word_of_it() {
        let string = |text: &str| parse(text, KeyFormat::String).unwrap_err().to_string();
        let hex = |text: &str| parse(text, KeyFormat::Hex).unwrap_err().to_string();
        assert_eq!(string("1234567"), "secret key of 7 characters, allowed: 8 to 256");
        assert_eq!(string(&"x".repeat(257)), "secret key of 257 characters, allowed: 8 to 256");
        let printable = "secret key holds a character at position 8 that is not printable ascii";
        assert_eq!(string("1234567\0"), printable);
        assert_eq!(string("1234567ü"), printable);
        let digit = "secret key holds a character at position 3 that is not hexadecimal";
        assert_eq!(hex("12x45678"), digit);
        assert_eq!(hex("123456789"), "secret key of 9 hexadecimal digits, allowed: an even number");
        assert!(Secret::parse(&"x".repeat(129), KeyFormat::String, 128).is_err());
    }

    #[test]
    fn debug_shows_no_key() {
        let secret = parse("open sesame", KeyFormat::String).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret { format: String, .. }");
    }

    #[test]
    fn words_are_read_in_any_case() {
        assert_eq!("CoAP".parse(), Ok(KeyProtocol::Coap));
        assert_eq!("hex".parse(), Ok(KeyFormat::Hex));
        assert_eq!("UDP".parse::<KeyProtocol>().unwrap_err().to_string(), "allowed: COAP, LWM2M");
    }
}
