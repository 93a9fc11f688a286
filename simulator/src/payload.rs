//! What the devices send. Each payload is a function of its number alone, so that a retransmission
//! carries the same bytes without anybody keeping them.

use std::str::FromStr;

use thiserror::Error;

use crate::drive::{Drive, POSITION_BYTES};
use crate::random::Random;

/// Longest payload in bytes: what a datagram of 1,500 bytes leaves with room for CoAP's options;
/// also what the tests of oversized payloads need.
pub const PAYLOAD_BYTES_MAX: usize = 8_192;

/// The bytes of the counter at the beginning of [`Payload::Counter`].
pub const COUNTER_BYTES: usize = 8;

/// A conversion template for [`Payload::ThreeFields`].
pub const THREE_FIELDS_TEMPLATE: &str = r#"{
  "sense": [
    {"asset": "temperature_tenths", "value": {"byte": 0, "bytelength": 2, "type": "int"}},
    {"asset": "battery_millivolts", "value": {"byte": 2, "bytelength": 2, "type": "uint"}},
    {"asset": "count", "value": {"byte": 4, "bytelength": 4, "type": "uint"}}
  ]
}"#;

/// What the devices send.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// The same bytes in each message.
    Fixed(Vec<u8>),
    /// An 8-byte big-endian number, unique in the run, then zeros up to `bytes`.
    Counter {
        /// Length in bytes, at least [`COUNTER_BYTES`].
        bytes: usize,
    },
    /// Random bytes.
    Random {
        /// Length in bytes.
        bytes: usize,
    },
    /// Eight bytes for [`THREE_FIELDS_TEMPLATE`]: temperature in tenths of a degree (signed, two
    /// bytes), battery in millivolts (two bytes), the number of the message (four bytes).
    ThreeFields,
    /// Sixteen bytes for [`crate::DRIVE_TEMPLATE`]: where the device is.
    Drive(Drive),
}

/// A payload as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadSource {
    /// Bytes written in hexadecimal.
    Hex(Vec<u8>),
    /// The content of a file.
    File(std::path::PathBuf),
    /// [`Payload::Counter`].
    Counter,
    /// [`Payload::Random`].
    Random,
    /// [`Payload::ThreeFields`].
    ThreeFields,
}

/// Why a payload cannot be sent.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// Not one of the words, and not hexadecimal.
    #[error(
        "payload {0:?} is not known, allowed: counter, random, template-three-fields, \
         @FILE, or an even number of hexadecimal digits"
    )]
    Unknown(String),
    /// The file cannot be read.
    #[error("payload file {path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Longer than a datagram of a simulated device.
    #[error("payload of {0} bytes exceeds the limit of {PAYLOAD_BYTES_MAX}")]
    TooLong(usize),
    /// The counter does not fit.
    #[error("payload of {0} bytes is too short for a counter of {COUNTER_BYTES} bytes")]
    TooShort(usize),
}

impl Payload {
    /// Appends payload number `number`.
    pub(crate) fn write(&self, number: u64, seed: u64, output: &mut Vec<u8>) {
        match self {
            Self::Fixed(bytes) => output.extend_from_slice(bytes),
            Self::Counter { bytes } => {
                let end = output.len() + bytes;
                output.extend_from_slice(&number.to_be_bytes());
                output.resize(end, 0);
            }
            Self::Random { bytes } => {
                // Mixed once, or neighbouring numbers would share most of their bytes.
                let mixed = Random::new(seed ^ number).next();
                Random::new(mixed).append(*bytes, output);
            }
            Self::ThreeFields => write_three_fields(number, output),
            Self::Drive(drive) => drive.write(number, output),
        }
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes.len(),
            Self::Counter { bytes } | Self::Random { bytes } => *bytes,
            Self::ThreeFields => COUNTER_BYTES,
            Self::Drive(_) => POSITION_BYTES,
        }
    }

    /// Checks the lengths.
    pub(crate) fn check(&self) -> Result<(), PayloadError> {
        match (self, self.length()) {
            (_, length) if length > PAYLOAD_BYTES_MAX => Err(PayloadError::TooLong(length)),
            (Self::Counter { bytes }, _) if *bytes < COUNTER_BYTES => {
                Err(PayloadError::TooShort(*bytes))
            }
            _ => Ok(()),
        }
    }
}

fn write_three_fields(number: u64, output: &mut Vec<u8>) {
    let low = (number & 0xffff_ffff) as u32;
    // -5.0 to +44.9 degrees and 3,000 to 4,199 millivolts: what a sensor in a shed would say.
    let temperature = (low % 500) as u16;
    output.extend_from_slice(&temperature.wrapping_sub(50).to_be_bytes());
    let battery = 3_000 + (low % 1_200) as u16;
    output.extend_from_slice(&battery.to_be_bytes());
    output.extend_from_slice(&low.to_be_bytes());
}

impl FromStr for PayloadSource {
    type Err = PayloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "counter" => Ok(Self::Counter),
            "random" => Ok(Self::Random),
            "template-three-fields" => Ok(Self::ThreeFields),
            _ => match text.strip_prefix('@') {
                Some(path) => Ok(Self::File(path.into())),
                None => parse_hex(text)
                    .map(Self::Hex)
                    .ok_or_else(|| PayloadError::Unknown(text.to_owned())),
            },
        }
    }
}

impl PayloadSource {
    /// The payload, of `bytes` bytes where it is generated. Reads the file, if it is one.
    ///
    /// # Errors
    /// Where the file cannot be read or the length is not allowed.
    pub fn resolve(&self, bytes: usize) -> Result<Payload, PayloadError> {
        let payload = match self {
            Self::Hex(bytes) => Payload::Fixed(bytes.clone()),
            Self::File(path) => Payload::Fixed(
                std::fs::read(path)
                    .map_err(|source| PayloadError::File { path: path.clone(), source })?,
            ),
            Self::Counter => Payload::Counter { bytes },
            Self::Random => Payload::Random { bytes },
            Self::ThreeFields => Payload::ThreeFields,
        };
        payload.check()?;
        Ok(payload)
    }
}

pub(crate) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &Payload, number: u64) -> Vec<u8> {
        let mut output = Vec::new();
        payload.write(number, 1, &mut output);
        output
    }

    #[test]
    fn a_counter_is_big_endian_and_padded() {
        let payload = Payload::Counter { bytes: 10 };
        assert_eq!(written(&payload, 258), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn random_bytes_differ_by_number_and_repeat_for_the_same_one() {
        let payload = Payload::Random { bytes: 13 };
        assert_eq!(written(&payload, 5), written(&payload, 5));
        assert_ne!(written(&payload, 5), written(&payload, 6));
        assert_eq!(written(&payload, 5).len(), 13);
    }

    #[test]
    fn three_fields_hold_the_number_at_the_end() {
        let bytes = written(&Payload::ThreeFields, 7);
        // 7 - 50 tenths of a degree.
        assert_eq!(bytes, [0xff, 0xd5, 0x0b, 0xbf, 0, 0, 0, 7]);
        serde_json::from_str::<serde_json::Value>(THREE_FIELDS_TEMPLATE).unwrap();
    }

    #[test]
    fn words_files_and_hexadecimal_are_told_apart() {
        let parse = |text: &str| text.parse::<PayloadSource>();
        assert_eq!(parse("counter").unwrap(), PayloadSource::Counter);
        assert_eq!(parse("0aFF").unwrap(), PayloadSource::Hex(vec![10, 255]));
        assert_eq!(parse("@x.bin").unwrap(), PayloadSource::File("x.bin".into()));
        assert!(parse("0af").is_err());
        assert!(parse("hello").unwrap_err().to_string().contains("allowed: counter"));
    }

    #[test]
    fn lengths_are_checked_with_their_limits() {
        let error = PayloadSource::Counter.resolve(7).unwrap_err();
        assert_eq!(error.to_string(), "payload of 7 bytes is too short for a counter of 8 bytes");
        let error = PayloadSource::Random.resolve(9_000).unwrap_err();
        assert_eq!(error.to_string(), "payload of 9000 bytes exceeds the limit of 8192");
    }
}
