//! From a message to bytes, into the caller's buffer.

use thiserror::Error;

use super::{Code, MessageId, MessageType, OptionNumber, Options, Token, UintValue};

/// The longest option value that RFC 7252 §3.1 can express: 269 + 65,535 bytes.
pub const OPTION_VALUE_MAX_BYTES: usize = 269 + 65_535;

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// An option's value is too long; the option was left out.
    #[error("value of option {number} of {length} bytes exceeds the limit of 65804")]
    OptionTooLong {
        /// The option's number.
        number: u16,
        /// The value's length in bytes.
        length: usize,
    },
}

/// Appends one message to a buffer: header and token first, then options, then the payload.
///
/// Options may come in any order; in the order of their numbers they are written as they come.
#[derive(Debug)]
pub struct Encoder<'b> {
    buffer: &'b mut Vec<u8>,
    options_start: usize,
    number: u16,
    error: Option<EncodeError>,
}

impl<'b> Encoder<'b> {
    /// Begins a message at the end of `buffer`.
    pub fn new(
        buffer: &'b mut Vec<u8>,
        message_type: MessageType,
        code: Code,
        id: MessageId,
        token: Token,
    ) -> Self {
        let [id_high, id_low] = id.0.to_be_bytes();
        let first = 0x40 | (message_type as u8) << 4 | token.length();
        buffer.extend_from_slice(&[first, code.as_byte(), id_high, id_low]);
        buffer.extend_from_slice(token.as_bytes());
        let options_start = buffer.len();
        Self { buffer, options_start, number: 0, error: None }
    }

    /// Writes an empty message: an acknowledgement, a reset or a ping (RFC 7252 §4.1).
    pub fn empty(buffer: &'b mut Vec<u8>, message_type: MessageType, id: MessageId) {
        Self::new(buffer, message_type, Code::EMPTY, id, Token::EMPTY);
    }

    /// Adds an option with its bytes. A value beyond [`OPTION_VALUE_MAX_BYTES`] is left out and
    /// makes [`Encoder::payload`] and [`Encoder::finish`] fail.
    pub fn option(mut self, number: OptionNumber, value: &[u8]) -> Self {
        if value.len() > OPTION_VALUE_MAX_BYTES {
            let length = value.len();
            self.error = Some(EncodeError::OptionTooLong { number: number.0, length });
        } else if number.0 < self.number {
            insert_option(self.buffer, self.options_start, number, value);
        } else {
            self.append(number.0, value);
        }
        self
    }

    /// Adds an option with an integer in its shortest form (RFC 7252 §3.2).
    pub fn uint(self, number: OptionNumber, value: u32) -> Self {
        self.option(number, UintValue::new(value).as_bytes())
    }

    /// Adds a text option for each item, e.g. the segments of a path.
    pub fn texts<'t>(self, number: OptionNumber, texts: impl IntoIterator<Item = &'t str>) -> Self {
        texts.into_iter().fold(self, |encoder, text| encoder.option(number, text.as_bytes()))
    }

    /// Ends the message with a payload; an empty one writes no marker.
    ///
    /// # Errors
    /// An option was too long.
    pub fn payload(self, payload: &[u8]) -> Result<(), EncodeError> {
        if !payload.is_empty() {
            self.buffer.push(0xff);
            self.buffer.extend_from_slice(payload);
        }
        self.error.map_or(Ok(()), Err)
    }

    /// Ends the message without a payload.
    ///
    /// # Errors
    /// An option was too long.
    pub fn finish(self) -> Result<(), EncodeError> {
        self.payload(&[])
    }

    fn append(&mut self, number: u16, value: &[u8]) {
        append_option(self.buffer, number - self.number, value);
        self.number = number;
    }
}

/// Writes an option whose number is `delta` above the one before it.
fn append_option(buffer: &mut Vec<u8>, delta: u16, value: &[u8]) {
    let (delta, delta_bytes, delta_count) = nibble(usize::from(delta));
    let (length, length_bytes, length_count) = nibble(value.len());
    buffer.push(delta << 4 | length);
    if delta_count + length_count != 0 {
        buffer.extend_from_slice(&delta_bytes[..delta_count]);
        buffer.extend_from_slice(&length_bytes[..length_count]);
    }
    buffer.extend_from_slice(value);
}

/// Adds an option to the sorted ones from `start`, behind those of the same number.
pub(super) fn insert_option(
    buffer: &mut Vec<u8>,
    start: usize,
    number: OptionNumber,
    value: &[u8],
) {
    let mut options = Options::over(&buffer[start..]);
    let mut before = 0;
    let mut at = start;
    while let Some(option) = options.next() {
        if option.number > number {
            break;
        }
        before = option.number.0;
        at = buffer.len() - options.rest_bytes().len();
    }
    let tail = buffer.split_off(at);
    append_option(buffer, number.0 - before, value);
    let mut last = number.0;
    // The first option of the tail counts from `before`.
    let mut tail_options = Options::over(&tail);
    tail_options.start_at(before);
    for option in tail_options {
        append_option(buffer, option.number.0 - last, option.value);
        last = option.number.0;
    }
}

/// The nibble of a delta or length, and its extension bytes with their count (RFC 7252 §3.1).
fn nibble(value: usize) -> (u8, [u8; 2], usize) {
    // Deltas are 16 bits, and lengths are limited before.
    #[expect(clippy::cast_possible_truncation, reason = "each cast is bounded by its arm")]
    match value {
        0..13 => (value as u8, [0; 2], 0),
        13..269 => (13, [(value - 13) as u8, 0], 1),
        _ => (14, ((value - 269) as u16).to_be_bytes(), 2),
    }
}

#[cfg(test)]
mod tests {
    use super::super::MessageRef;
    use super::*;

    #[test]
    fn the_captured_command_is_written_byte_for_byte() {
        let expected = b"\x48\x02\x1e\x02\x98\x73\xd5\x1f\xd7\x3a\x5a\x1c\xb7example\x10\x3d\x08\
            param1=query_example1\xffData to send to the device\n";
        let token = Token::from_u64(0x9873_d51f_d73a_5a1c);
        let mut bytes = Vec::new();
        let con = MessageType::Confirmable;
        Encoder::new(&mut bytes, con, Code::POST, MessageId(0x1e02), token)
            .texts(OptionNumber::URI_PATH, ["example"])
            .uint(OptionNumber::CONTENT_FORMAT, 0)
            .option(OptionNumber::URI_QUERY, b"param1=query_example1")
            .payload(b"Data to send to the device\n")
            .unwrap();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn options_in_any_order_are_written_sorted_and_stable() {
        let mut bytes = Vec::new();
        let id = MessageId(7);
        Encoder::new(&mut bytes, MessageType::Confirmable, Code::GET, id, Token::EMPTY)
            .option(OptionNumber::URI_QUERY, b"q")
            .option(OptionNumber::URI_PATH, b"a")
            .option(OptionNumber::REQUEST_TAG, &[1])
            .option(OptionNumber::URI_PATH, b"b")
            .finish()
            .unwrap();
        let message = MessageRef::parse(&bytes).unwrap();
        let options: Vec<_> = message.options().map(|o| (o.number.0, o.value)).collect();
        assert_eq!(options, [(11, &b"a"[..]), (11, b"b"), (15, b"q"), (292, &[1])]);
    }

    #[test]
    fn an_option_that_cannot_be_written_is_an_error() {
        let mut bytes = Vec::new();
        let id = MessageId(7);
        let result =
            Encoder::new(&mut bytes, MessageType::Confirmable, Code::GET, id, Token::EMPTY)
                .option(OptionNumber::PROXY_URI, &vec![0; OPTION_VALUE_MAX_BYTES + 1])
                .finish();
        assert_eq!(result, Err(EncodeError::OptionTooLong { number: 35, length: 65_805 }));
        assert!(MessageRef::parse(&bytes).is_ok());
    }

    #[test]
    fn a_large_payload_and_the_longest_option_are_written() {
        let mut bytes = Vec::new();
        let id = MessageId(7);
        Encoder::new(&mut bytes, MessageType::NonConfirmable, Code::POST, id, Token::EMPTY)
            .option(OptionNumber::PROXY_URI, &vec![b'u'; OPTION_VALUE_MAX_BYTES])
            .payload(&[1; 1400])
            .unwrap();
        let message = MessageRef::parse(&bytes).unwrap();
        assert_eq!(message.payload.len(), 1400);
        let uri = message.option(OptionNumber::PROXY_URI).unwrap();
        assert_eq!(uri.value.len(), OPTION_VALUE_MAX_BYTES);
    }
}
