//! CBOR (RFC 8949): a reader that counts what it passes, and the format that holds one value
//! (LwM2M Core 1.1 §7.4.6).

use std::borrow::Cow;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::budget::Budget;
use super::tlv::shortened;
use super::typing::{Number, Raw, typed};
use super::{Context, DecodeError, EncodeError, single_path};
use crate::record::Record;
use crate::value::{Value, write_object_link};

/// Tag of a time in seconds since 1970 (RFC 8949 §3.4.2), with which some devices mark one.
const TAG_EPOCH: u64 = 1;
/// Tag that only says "this is CBOR" (RFC 8949 §3.4.6).
const TAG_SELF_DESCRIBED: u64 = 55_799;

/// The bytes and how far they have been read.
pub(super) struct Reader<'a> {
    decoder: Decoder<'a>,
    budget: Budget,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Decoder::new(bytes);
        if !decoder.tag().is_ok_and(|tag| tag.as_u64() == TAG_SELF_DESCRIBED) {
            decoder.set_position(0);
        }
        Self { decoder, budget: Budget::default() }
    }

    pub(super) fn error(&self, what: &'static str) -> DecodeError {
        DecodeError::Syntax { at: self.decoder.position(), what }
    }

    /// Says where a token began and what was wrong with it.
    fn told<T>(
        &self,
        start: usize,
        result: Result<T, minicbor::decode::Error>,
        what: &'static str,
    ) -> Result<T, DecodeError> {
        result.map_err(|error| {
            let what = if error.is_end_of_input() { "the end is missing" } else { what };
            DecodeError::Syntax { at: start, what }
        })
    }

    pub(super) fn datatype(&self) -> Result<Type, DecodeError> {
        let what = "a byte that begins no item";
        self.told(self.decoder.position(), self.decoder.datatype(), what)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.decoder.position() < self.decoder.input().len() {
            return Err(self.error("something follows the end"));
        }
        Ok(())
    }

    /// Into an array; then call [`Reader::more`] before each element.
    pub(super) fn array(&mut self) -> Result<Option<u64>, DecodeError> {
        self.budget.enter()?;
        let start = self.decoder.position();
        let length = self.decoder.array();
        self.told(start, length, "expected an array")
    }

    /// Into a map; then call [`Reader::more`] before each key.
    pub(super) fn map(&mut self) -> Result<Option<u64>, DecodeError> {
        self.budget.enter()?;
        let start = self.decoder.position();
        let length = self.decoder.map();
        self.told(start, length, "expected a map")
    }

    /// Whether the array or map that said this length goes on.
    pub(super) fn more(&mut self, left: &mut Option<u64>) -> Result<bool, DecodeError> {
        let more = match left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None if self.datatype()? == Type::Break => {
                self.decoder.set_position(self.decoder.position() + 1);
                false
            }
            None => true,
        };
        if !more {
            self.budget.leave();
        }
        Ok(more)
    }

    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.budget.node()?;
        self.text_label()
    }

    /// A text that names a value and is none.
    pub(super) fn text_label(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let start = self.decoder.position();
        if self.datatype()? != Type::StringIndef {
            let text = self.decoder.str();
            return self.told(start, text, "expected a text").map(Cow::Borrowed);
        }
        let mut whole = String::new();
        let parts = self.decoder.str_iter().and_then(|parts| {
            for part in parts {
                whole.push_str(part?);
            }
            Ok(())
        });
        self.told(start, parts, "expected a text")?;
        Ok(Cow::Owned(whole))
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        self.budget.node()?;
        let start = self.decoder.position();
        let mut whole = Vec::new();
        let parts = self.decoder.bytes_iter().and_then(|parts| {
            for part in parts {
                whole.extend_from_slice(part?);
            }
            Ok(())
        });
        self.told(start, parts, "expected bytes")?;
        Ok(whole)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, DecodeError> {
        self.budget.node()?;
        let start = self.decoder.position();
        let value = self.decoder.bool();
        self.told(start, value, "expected true or false")
    }

    /// A number of any width; the integers of CBOR reach one bit beyond ours.
    pub(super) fn number(&mut self) -> Result<Number, DecodeError> {
        self.budget.node()?;
        self.number_label()
    }

    /// A number that names a value and is none.
    pub(super) fn number_label(&mut self) -> Result<Number, DecodeError> {
        let start = self.decoder.position();
        match self.datatype()? {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
                let value = self.decoder.u64();
                let value = self.told(start, value, "expected a number")?;
                Ok(i64::try_from(value).map_or(Number::Unsigned(value), Number::Integer))
            }
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                let value = self.decoder.i64();
                self.told(start, value, "an integer below -2^63").map(Number::Integer)
            }
            Type::F16 => self.half().map(Number::Float),
            _ => {
                let value = self.decoder.f64();
                self.told(start, value, "expected a number").map(Number::Float)
            }
        }
    }

    /// Half precision (RFC 8949 Appendix D).
    fn half(&mut self) -> Result<f64, DecodeError> {
        let start = self.decoder.position();
        let bytes = self.decoder.input().get(start + 1..start + 3);
        let Some(&[high, low]) = bytes else {
            return Err(self.error("the end is missing"));
        };
        self.decoder.set_position(start + 3);
        let bits = u16::from_be_bytes([high, low]);
        let exponent = i32::from(bits >> 10 & 0x1f);
        let mantissa = f64::from(bits & 0x3ff);
        let magnitude = match exponent {
            0 => mantissa * 2_f64.powi(-24),
            31 if mantissa == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (mantissa + 1024.0) * 2_f64.powi(exponent - 25),
        };
        Ok(if bits & 0x8000 == 0 { magnitude } else { -magnitude })
    }

    /// A value of a resource.
    pub(super) fn value(&mut self) -> Result<Raw, DecodeError> {
        if self.datatype()? == Type::Tag {
            let start = self.decoder.position();
            let tag = self.decoder.tag();
            let tag = self.told(start, tag, "expected a tag")?;
            if tag.as_u64() != TAG_EPOCH {
                return Err(DecodeError::Syntax { at: start, what: "an unknown tag" });
            }
            return self.number().map(Raw::Number);
        }
        match self.datatype()? {
            Type::Bool => self.boolean().map(Raw::Boolean),
            Type::Bytes | Type::BytesIndef => self.bytes().map(Raw::Bytes),
            Type::String | Type::StringIndef => {
                self.text().map(|text| Raw::Text(text.into_owned()))
            }
            _ => self.number().map(Raw::Number),
        }
    }

    /// Over a value of any kind. Its depth is limited, so this may call itself.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        match self.datatype()? {
            Type::Array | Type::ArrayIndef => {
                let mut left = self.array()?;
                while self.more(&mut left)? {
                    self.skip()?;
                }
                Ok(())
            }
            Type::Map | Type::MapIndef => {
                let mut left = self.map()?;
                while self.more(&mut left)? {
                    self.skip()?;
                    self.skip()?;
                }
                Ok(())
            }
            Type::Tag => {
                // A tag of a tag of a tag ... is as deep as an array of an array.
                self.budget.enter()?;
                let start = self.decoder.position();
                let tag = self.decoder.tag();
                self.told(start, tag, "expected a tag")?;
                self.skip()?;
                self.budget.leave();
                Ok(())
            }
            Type::String | Type::StringIndef => self.text().map(|_| ()),
            Type::Bytes | Type::BytesIndef => self.bytes().map(|_| ()),
            Type::F16 => self.number().map(|_| ()),
            Type::Break => Err(self.error("an end without a beginning")),
            _ => {
                self.budget.node()?;
                let start = self.decoder.position();
                let skipped = self.decoder.skip();
                self.told(start, skipped, "a byte that begins no item")
            }
        }
    }
}

/// What our writers write to.
pub(super) type Writer<'a> = Encoder<&'a mut Vec<u8>>;

/// Writes one token. A `Vec` takes every byte, so no call fails.
macro_rules! put {
    ($writer:expr, $($call:tt)+) => {{
        let _ = $writer.$($call)+;
    }};
}
pub(super) use put;

/// Writes a value; floats in single precision where that is exact. Not for object links, whose
/// form depends on the format.
pub(super) fn write_value(value: &Value, writer: &mut Writer<'_>) {
    match value {
        Value::Boolean(value) => put!(writer, bool(*value)),
        Value::Integer(value) | Value::Time(value) => put!(writer, i64(*value)),
        Value::Unsigned(value) => put!(writer, u64(*value)),
        Value::Float(value) => match shortened(*value) {
            Some(short) => put!(writer, f32(short)),
            None => put!(writer, f64(*value)),
        },
        Value::String(value) | Value::CoreLink(value) => put!(writer, str(value)),
        Value::Opaque(value) => put!(writer, bytes(value)),
        Value::ObjectLink { object, instance } => {
            put!(writer, str(&object_link(*object, *instance)));
        }
    }
}

/// The whole seconds of a time, if they are all of it.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "that is asked")]
pub(super) fn shortened_time(seconds: f64) -> Option<i64> {
    let whole = seconds as i64;
    (whole as f64 == seconds && whole < i64::MAX).then_some(whole)
}

pub(super) fn object_link(object: u16, instance: u16) -> String {
    let mut text = Vec::with_capacity(11);
    write_object_link(object, instance, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let path = single_path(context.base)?;
    let mut reader = Reader::new(bytes);
    let raw = reader.value()?;
    reader.end()?;
    Ok(vec![Record::new(path, typed(&path, raw, context.model)?)])
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    write_value(&record.value, &mut Encoder::new(&mut bytes));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Result<Raw, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        reader.end()?;
        Ok(value)
    }

    fn skip(bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        // RFC 8949 Appendix A.
        let float = |value| Raw::Number(Number::Float(value));
        for (bytes, expected) in [
            (&b"\x00"[..], Raw::Number(Number::Integer(0))),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", Raw::Number(Number::Unsigned(u64::MAX))),
            (b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", Raw::Number(Number::Integer(i64::MIN))),
            (b"\xf9\x00\x00", float(0.0)),
            (b"\xf9\x3c\x00", float(1.0)),
            (b"\xf9\x3e\x00", float(1.5)),
            (b"\xf9\x7b\xff", float(65504.0)),
            (b"\xf9\x00\x01", float(5.960_464_477_539_063e-8)),
            (b"\xf9\x04\x00", float(0.000_061_035_156_25)),
            (b"\xf9\xc4\x00", float(-4.0)),
            (b"\xf9\x7c\x00", float(f64::INFINITY)),
            (b"\xfa\x47\xc3\x50\x00", float(100_000.0)),
            (b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", float(1.1)),
            (b"\xf5", Raw::Boolean(true)),
            (b"\xc1\x1a\x51\x4b\x67\xb0", Raw::Number(Number::Integer(1_363_896_240))),
            (b"\x5f\x42\x01\x02\x43\x03\x04\x05\xff", Raw::Bytes(vec![1, 2, 3, 4, 5])),
            (b"\x7f\x65strea\x64ming\xff", Raw::Text("streaming".to_owned())),
            (b"\xd9\xd9\xf7\x01", Raw::Number(Number::Integer(1))),
        ] {
            assert_eq!(value(bytes), Ok(expected), "{bytes:x?}");
        }
        let Ok(Raw::Number(Number::Float(nan))) = value(b"\xf9\x7e\x00") else { panic!() };
        assert!(nan.is_nan());
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            &b""[..],
            b"\x1b\xff",
            b"\xf9\x00",
            b"\xfa\x00",
            // A text and bytes of 2^63 and 2^64 - 1 bytes.
            b"\x7b\x80\x00\x00\x00\x00\x00\x00\x00a",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xffa",
            b"\x62\xff\xff",
            b"\x7f\x61a",
            b"\x3b\x80\x00\x00\x00\x00\x00\x00\x00",
            b"\xf6",
            b"\xf7",
            b"\xff",
            b"\x1c",
            b"\x80",
            b"\xa0",
            b"\xc2\x41\x01",
            b"\x01\x01",
        ] {
            assert!(value(bytes).is_err(), "{bytes:x?}");
        }
        // An array of 2^64 - 1 elements, of which one is there.
        assert!(skip(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
        assert!(skip(b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00\x01\x01").is_err());
        assert!(skip(b"\xff").is_err());
        assert!(skip(b"\x9f\x01").is_err());
        assert!(skip(b"\xbf\x01\xff").is_err());
    }

    #[test]
    fn depth_and_size_are_limited() {
        let deep = |depth: usize| [vec![0x81; depth], vec![1]].concat();
        assert_eq!(skip(&deep(32)), Ok(()));
        assert_eq!(skip(&deep(33)), Err(DecodeError::TooDeep { depth: 33 }));
        for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xc1, 0xd8] {
            assert_eq!(skip(&vec![byte; 60_000]), Err(DecodeError::TooDeep { depth: 33 }));
        }
        let wide = [vec![0x9f], vec![0; 5000], vec![0xff]].concat();
        assert_eq!(skip(&wide), Err(DecodeError::TooManyNodes { nodes: 4097 }));
        let texts = [vec![0x9f], vec![0x60; 5000], vec![0xff]].concat();
        assert_eq!(skip(&texts), Err(DecodeError::TooManyNodes { nodes: 4097 }));
    }
}
