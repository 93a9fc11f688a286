//! The value of Block1 and Block2 (RFC 7959 §2.2).

use thiserror::Error;

use super::{UintValue, uint_value};

/// A block of a body: which one, how large, and whether more follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// Number of the block, from zero; at most 20 bits.
    pub number: u32,
    /// Whether more blocks follow.
    pub more: bool,
    /// Size exponent, 0 to 6: blocks of 16 to 1024 bytes.
    pub size_exponent: u8,
}

/// Why a value is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidBlock {
    /// Longer than three bytes.
    #[error("block option of {0} bytes exceeds the limit of 3")]
    Length(usize),
    /// Size exponent 7, reserved over UDP (RFC 7959 §2.2).
    #[error("block size exponent 7 is reserved, the highest is 6")]
    SizeExponent,
}

impl Block {
    /// The highest block number (20 bits).
    pub const NUMBER_MAX: u32 = (1 << 20) - 1;
    /// The highest size exponent.
    pub const SIZE_EXPONENT_MAX: u8 = 6;

    /// Reads an option's value.
    ///
    /// # Errors
    /// A value that RFC 7959 §2.2 does not allow.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidBlock> {
        let number = match uint_value(value) {
            Some(number) if value.len() <= 3 => number,
            _ => return Err(InvalidBlock::Length(value.len())),
        };
        // Three bits.
        let size_exponent = (number & 0b111) as u8;
        if size_exponent > Self::SIZE_EXPONENT_MAX {
            return Err(InvalidBlock::SizeExponent);
        }
        Ok(Self { number: number >> 4, more: number & 0b1000 != 0, size_exponent })
    }

    /// The option's value.
    pub fn value(self) -> UintValue {
        let more = if self.more { 0b1000 } else { 0 };
        UintValue::new(self.number << 4 | more | u32::from(self.size_exponent & 0b111))
    }

    /// Bytes of a full block: 16 to 1024.
    pub const fn size_bytes(self) -> usize {
        16 << self.size_exponent
    }

    /// Where the block begins in the body, in bytes.
    pub const fn offset_bytes(self) -> usize {
        self.number as usize * self.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_read_right() {
        // RFC 7959 §3: 2:0/1/128 is 0x0b; 1:1/1/128 is 0x1b.
        let block = Block::parse(&[0x1b]).unwrap();
        assert_eq!(block, Block { number: 1, more: true, size_exponent: 3 });
        assert_eq!((block.size_bytes(), block.offset_bytes()), (128, 128));
        assert_eq!(block.value().as_bytes(), [0x1b]);
    }

    #[test]
    fn the_empty_value_is_block_zero_of_sixteen_bytes() {
        let block = Block::parse(&[]).unwrap();
        assert_eq!(block, Block { number: 0, more: false, size_exponent: 0 });
    }

    #[test]
    fn reserved_and_long_values_are_refused() {
        assert_eq!(Block::parse(&[0x07]), Err(InvalidBlock::SizeExponent));
        assert_eq!(Block::parse(&[0; 4]), Err(InvalidBlock::Length(4)));
        assert_eq!(Block::parse(&[0xff, 0xff, 0xf6]).unwrap().number, Block::NUMBER_MAX);
    }
}
