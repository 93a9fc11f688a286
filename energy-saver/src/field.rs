//! What a payload selector takes out of the bytes.

use crate::calculation::Calculation;
use crate::number::Number;

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// `byte` with `bytelength`.
    FromStart { from: u32, length: u32 },
    /// `endbyte` with `bytelength`: starts `back` bytes before the end.
    FromEnd { back: u32, length: u32 },
    /// `byte` and `endbyte`: from the one to `back` bytes before the end.
    Range { from: u32, back: u32 },
}

/// Order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Big,
    Little,
}

/// What the bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Signed(Order),
    Unsigned(Order),
    Float(Order),
    Boolean,
    /// One bit, as a boolean.
    BitFlag(u8),
    /// One bit, as 0 or 1.
    BitNumber(u8),
    Text,
    Hex,
}

/// A payload selector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) extent: Extent,
    pub(crate) kind: Kind,
    pub(crate) calculation: Option<Calculation>,
}

/// The value that a field has in one payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading<'p> {
    Number(Number),
    Boolean(bool),
    /// Not yet decoded: what is not UTF-8 becomes U+FFFD when it is written or compared.
    Text(&'p [u8]),
    Hex(&'p [u8]),
}

impl Extent {
    /// First byte and the byte after the last, which may lie outside of the payload.
    pub(crate) fn bounds(self, payload_bytes: usize) -> (i64, i64) {
        let end = i64::try_from(payload_bytes).unwrap_or(i64::MAX);
        match self {
            Self::FromStart { from, length } => {
                (i64::from(from), i64::from(from) + i64::from(length))
            }
            Self::FromEnd { back, length } => {
                let from = end - i64::from(back);
                (from, from + i64::from(length))
            }
            Self::Range { from, back } => (i64::from(from), end - i64::from(back)),
        }
    }

    /// The bytes, if the payload has them.
    #[inline]
    pub(crate) fn slice(self, payload: &[u8]) -> Option<&[u8]> {
        let (from, to) = match self {
            // Both are at most `OFFSET_MAX`: the sum does not overflow.
            Self::FromStart { from, length } => (from as usize, from as usize + length as usize),
            Self::FromEnd { back, length } => {
                let from = payload.len().checked_sub(back as usize)?;
                (from, from + length as usize)
            }
            Self::Range { from, back } => {
                (from as usize, payload.len().checked_sub(back as usize)?)
            }
        };
        payload.get(from..to)
    }
}

impl Kind {
    /// The name and the allowed lengths, for messages.
    pub(crate) const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Signed(_) => ("int", "1, 2, 4, 8"),
            Self::Unsigned(_) => ("uint", "1, 2, 4, 8"),
            Self::Float(_) => ("float", "4, 8"),
            Self::Boolean => ("boolean", "at least 1"),
            Self::BitFlag(_) | Self::BitNumber(_) => ("a bit", "1"),
            Self::Text => ("string", "any"),
            Self::Hex => ("hex", "any"),
        }
    }

    /// Whether a value of this kind can have so many bytes.
    #[inline]
    pub(crate) const fn fits(self, bytes: usize) -> bool {
        match self {
            Self::Signed(_) | Self::Unsigned(_) => matches!(bytes, 1 | 2 | 4 | 8),
            Self::Float(_) => matches!(bytes, 4 | 8),
            Self::Boolean => bytes > 0,
            Self::BitFlag(_) | Self::BitNumber(_) => bytes == 1,
            Self::Text | Self::Hex => true,
        }
    }

    pub(crate) const fn is_number(self) -> bool {
        matches!(self, Self::Signed(_) | Self::Unsigned(_) | Self::Float(_) | Self::BitNumber(_))
    }
}

impl Field {
    /// Reads bytes whose length [`Kind::fits`]; zero or false where it does not.
    #[inline]
    pub(crate) fn read<'p>(&self, bytes: &'p [u8]) -> Reading<'p> {
        let number = match self.kind {
            Kind::Boolean => return Reading::Boolean(bytes.iter().any(|byte| *byte != 0)),
            Kind::BitFlag(bit) => return Reading::Boolean(bit_of(bytes, bit) == 1),
            Kind::Text => return Reading::Text(bytes),
            Kind::Hex => return Reading::Hex(bytes),
            Kind::BitNumber(bit) => Number::Unsigned(bit_of(bytes, bit)),
            Kind::Signed(order) => Number::Signed(signed(bytes, order)),
            Kind::Unsigned(order) => Number::Unsigned(unsigned(bytes, order)),
            Kind::Float(order) => float(bytes, order),
        };
        Reading::Number(match &self.calculation {
            Some(calculation) => Number::Double(calculation.apply(number.as_f64())),
            None => number,
        })
    }
}

fn bit_of(bytes: &[u8], bit: u8) -> u64 {
    let byte = bytes.first().copied().unwrap_or(0);
    u64::from(byte >> (bit & 7) & 1)
}

fn array<const LENGTH: usize>(bytes: &[u8], order: Order) -> Option<[u8; LENGTH]> {
    let mut array: [u8; LENGTH] = bytes.try_into().ok()?;
    // From here on all bytes are big-endian.
    if order == Order::Little {
        array.reverse();
    }
    Some(array)
}

fn unsigned(bytes: &[u8], order: Order) -> u64 {
    match bytes.len() {
        1 => u64::from(bytes[0]),
        2 => array(bytes, order).map_or(0, |array| u64::from(u16::from_be_bytes(array))),
        4 => array(bytes, order).map_or(0, |array| u64::from(u32::from_be_bytes(array))),
        _ => array(bytes, order).map_or(0, u64::from_be_bytes),
    }
}

fn signed(bytes: &[u8], order: Order) -> i64 {
    match bytes.len() {
        1 => i64::from(i8::from_be_bytes([bytes[0]])),
        2 => array(bytes, order).map_or(0, |array| i64::from(i16::from_be_bytes(array))),
        4 => array(bytes, order).map_or(0, |array| i64::from(i32::from_be_bytes(array))),
        _ => array(bytes, order).map_or(0, i64::from_be_bytes),
    }
}

fn float(bytes: &[u8], order: Order) -> Number {
    match bytes.len() {
        4 => Number::Single(array(bytes, order).map_or(0.0, f32::from_be_bytes)),
        _ => Number::Double(array(bytes, order).map_or(0.0, f64::from_be_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_count_from_both_ends() {
        let payload = [1, 2, 3, 4, 5, 6];
        let slice = |extent: Extent| extent.slice(&payload);
        assert_eq!(slice(Extent::FromStart { from: 4, length: 2 }), Some(&[5, 6][..]));
        assert_eq!(slice(Extent::FromStart { from: 5, length: 2 }), None);
        assert_eq!(slice(Extent::FromEnd { back: 4, length: 4 }), Some(&[3, 4, 5, 6][..]));
        assert_eq!(slice(Extent::FromEnd { back: 0, length: 1 }), None);
        assert_eq!(slice(Extent::FromEnd { back: 7, length: 1 }), None);
        assert_eq!(slice(Extent::Range { from: 0, back: 0 }), Some(&payload[..]));
        assert_eq!(slice(Extent::Range { from: 2, back: 1 }), Some(&[3, 4, 5][..]));
        assert_eq!(slice(Extent::Range { from: 6, back: 0 }), Some(&[][..]));
        assert_eq!(slice(Extent::Range { from: 4, back: 3 }), None);
        assert_eq!(Extent::Range { from: 4, back: 9 }.bounds(6), (4, -3));
        assert_eq!(Extent::FromEnd { back: 7, length: 3 }.bounds(6), (-1, 2));
    }

    #[test]
    fn numbers_have_their_sign_and_order() {
        let read = |kind, bytes: &[u8]| {
            let field =
                Field { extent: Extent::Range { from: 0, back: 0 }, kind, calculation: None };
            match field.read(bytes) {
                Reading::Number(number) => number.as_f64(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(Kind::Unsigned(Order::Big), &[0x08, 0xbd]), 2_237.0);
        assert_eq!(read(Kind::Unsigned(Order::Little), &[0x08, 0xbd]), 48_392.0);
        assert_eq!(read(Kind::Signed(Order::Big), &[0xff]), -1.0);
        assert_eq!(read(Kind::Signed(Order::Little), &[0xfe, 0xff]), -2.0);
        assert_eq!(read(Kind::Signed(Order::Big), &[0xff, 0xff, 0xff, 0xfd]), -3.0);
        assert_eq!(read(Kind::Signed(Order::Big), &[0xff; 8]), -1.0);
        assert_eq!(read(Kind::Float(Order::Little), &[0x00, 0x00, 0xac, 0x41]), 21.5);
        assert_eq!(read(Kind::BitNumber(7), &[0x80]), 1.0);
        assert_eq!(read(Kind::BitNumber(0), &[0x80]), 0.0);
    }
}
