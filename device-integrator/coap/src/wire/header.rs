//! The fixed header and the token (RFC 7252 §3).

use std::fmt;

use thiserror::Error;

/// The type of a message (RFC 7252 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// CON: the sender repeats it until it is acknowledged or reset.
    Confirmable = 0,
    /// NON: sent once.
    NonConfirmable = 1,
    /// ACK: answers one confirmable message.
    Acknowledgement = 2,
    /// RST: the receiver could not make sense of a message.
    Reset = 3,
}

impl MessageType {
    /// From the two bits of the header.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }
}

/// Pairs a message with its acknowledgement, and marks its retransmissions (RFC 7252 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u16);

/// Pairs a request with its response (RFC 7252 §5.3.1): zero to eight bytes, kept inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Token {
    bytes: [u8; Token::MAX_BYTES],
    length: u8,
}

/// A token longer than the header can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("token of {0} bytes exceeds the limit of 8")]
pub struct TokenTooLong(pub usize);

impl Token {
    /// The longest token of RFC 7252 §3; the longer ones of RFC 8974 are refused.
    pub const MAX_BYTES: usize = 8;

    /// The token of length zero.
    pub const EMPTY: Self = Self { bytes: [0; Self::MAX_BYTES], length: 0 };

    /// A token of the given bytes.
    ///
    /// # Errors
    /// More than [`Token::MAX_BYTES`].
    pub fn new(bytes: &[u8]) -> Result<Self, TokenTooLong> {
        let Ok(length @ 0..=8) = u8::try_from(bytes.len()) else {
            return Err(TokenTooLong(bytes.len()));
        };
        let mut token = Self { bytes: [0; Self::MAX_BYTES], length };
        token.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(token)
    }

    /// An eight-byte token: the length that the official device software expects.
    pub const fn from_u64(value: u64) -> Self {
        Self { bytes: value.to_be_bytes(), length: 8 }
    }

    /// The bytes as they stand on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Number of bytes, 0 to 8.
    pub const fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(")?;
        for byte in self.as_bytes() {
            write!(formatter, "{byte:02x}")?;
        }
        formatter.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_up_to_eight_bytes() {
        assert_eq!(Token::new(b"12345678").unwrap().as_bytes(), b"12345678");
        assert_eq!(Token::new(b"123456789"), Err(TokenTooLong(9)));
        assert_eq!(Token::new(&[]).unwrap(), Token::EMPTY);
        assert_eq!(Token::from_u64(1).as_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn tokens_of_different_length_differ() {
        assert_ne!(Token::new(&[0]).unwrap(), Token::new(&[0, 0]).unwrap());
    }
}
