//! Type, length, value (LwM2M Core 1.0 §6.4.3, 1.1 §7.4.3).
//!
//! An entry is an object instance, a resource, a resource with several instances, or one of
//! these; what an integer means only the model knows. A resource that it does not know is opaque.

use super::budget::Budget;
use super::{Context, DecodeError, EncodeError};
use crate::path::Path;
use crate::record::Record;
use crate::value::{ResourceType, Value};

/// Bits 7 and 6 of the type byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ObjectInstance = 0,
    ResourceInstance = 1,
    MultipleResource = 2,
    Resource = 3,
}

/// An entry, whose value is not yet looked at.
struct Entry<'a> {
    /// Where its type byte stands in the payload.
    at: usize,
    kind: Kind,
    id: u16,
    value: &'a [u8],
    /// Where its value stands in the payload.
    value_at: usize,
}

/// The entries of a payload or of a value, one after another.
struct Entries<'a> {
    bytes: &'a [u8],
    /// Where `bytes` stand in the payload.
    at: usize,
}

impl<'a> Entries<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or(DecodeError::Syntax { at: self.at, what })?;
        self.bytes = rest;
        self.at += count;
        Ok(taken)
    }

    /// A big-endian integer of up to three bytes.
    fn uint(&mut self, count: usize, what: &'static str) -> Result<usize, DecodeError> {
        let bytes = self.take(count, what)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn next(&mut self) -> Result<Option<Entry<'a>>, DecodeError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let at = self.at;
        let head = self.uint(1, "a type byte")?;
        let kind = match head >> 6 {
            0 => Kind::ObjectInstance,
            1 => Kind::ResourceInstance,
            2 => Kind::MultipleResource,
            _ => Kind::Resource,
        };
        let id_bytes = if head & 0x20 == 0 { 1 } else { 2 };
        let id = self.uint(id_bytes, "the identifier is cut off")?;
        let length = match head >> 3 & 3 {
            0 => head & 7,
            bytes => self.uint(bytes, "the length is cut off")?,
        };
        let value_at = self.at;
        let value = self.take(length, "the length exceeds the bytes that follow")?;
        let id = u16::try_from(id).unwrap_or(u16::MAX);
        Ok(Some(Entry { at, kind, id, value, value_at }))
    }
}

pub(super) fn decode(context: Context<'_>, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    if context.base.is_root() {
        // TLV says no object id.
        return Err(DecodeError::NotAValue(*context.base));
    }
    let mut reader = Reader { context, budget: Budget::default(), records: Vec::new() };
    let mut entries = Entries { bytes, at: 0 };
    while let Some(entry) = entries.next()? {
        reader.outermost(&entry)?;
    }
    Ok(reader.records)
}

struct Reader<'a> {
    context: Context<'a>,
    budget: Budget,
    records: Vec<Record>,
}

impl Reader<'_> {
    /// An entry that lies in no other: which kinds may stand here depends on the path addressed.
    fn outermost(&mut self, entry: &Entry<'_>) -> Result<(), DecodeError> {
        self.budget.node()?;
        let base = *self.context.base;
        match entry.kind {
            Kind::ObjectInstance => {
                let object = base.object_id().map_or(Path::ROOT, Path::object);
                let instance = child(&object, entry)?;
                if !instance.contains(&base) && !base.contains(&instance) {
                    return Err(DecodeError::Outside { path: instance, base });
                }
                let mut entries = Entries { bytes: entry.value, at: entry.value_at };
                while let Some(entry) = entries.next()? {
                    self.budget.node()?;
                    self.resource(&instance, &entry)?;
                }
                Ok(())
            }
            Kind::Resource | Kind::MultipleResource => {
                let instance = self.instance(entry)?;
                self.resource(&instance, entry)
            }
            Kind::ResourceInstance => {
                let ids = base.ids();
                let [object, instance, resource, ..] = *ids else {
                    let what = "a resource instance outside of a resource";
                    return Err(DecodeError::Nesting { at: entry.at, what });
                };
                let path = child(&Path::resource(object, instance, resource), entry)?;
                self.value(path, entry.value)
            }
        }
    }

    /// The object instance to which an outermost resource belongs. Where an object was addressed
    /// the entry of its instance may be left out if the object has only one, with the id 0.
    fn instance(&self, entry: &Entry<'_>) -> Result<Path, DecodeError> {
        let base = self.context.base;
        match (base.object_id(), base.instance_id()) {
            (Some(object), Some(instance)) => Ok(Path::instance(object, instance)),
            (Some(object), None)
                if self.context.model.object(object).is_none_or(|object| !object.multiple) =>
            {
                Ok(Path::instance(object, 0))
            }
            _ => {
                let what = "a resource outside of an instance of an object that may have several";
                Err(DecodeError::Nesting { at: entry.at, what })
            }
        }
    }

    fn resource(&mut self, instance: &Path, entry: &Entry<'_>) -> Result<(), DecodeError> {
        let path = child(instance, entry)?;
        match entry.kind {
            Kind::Resource => self.value(path, entry.value),
            Kind::MultipleResource => {
                let mut entries = Entries { bytes: entry.value, at: entry.value_at };
                while let Some(entry) = entries.next()? {
                    self.budget.node()?;
                    if entry.kind != Kind::ResourceInstance {
                        let what = "a resource holds something else than its instances";
                        return Err(DecodeError::Nesting { at: entry.at, what });
                    }
                    self.value(child(&path, &entry)?, entry.value)?;
                }
                Ok(())
            }
            Kind::ObjectInstance | Kind::ResourceInstance => {
                let what = "an object instance holds something else than resources";
                Err(DecodeError::Nesting { at: entry.at, what })
            }
        }
    }

    fn value(&mut self, path: Path, bytes: &[u8]) -> Result<(), DecodeError> {
        let base = *self.context.base;
        if !base.contains(&path) {
            return Err(DecodeError::Outside { path, base });
        }
        let value = match self.context.model.kind(&path) {
            None => Value::Opaque(bytes.to_vec()),
            Some(wanted) => {
                typed(wanted, bytes).map_err(|found| DecodeError::Type { path, wanted, found })?
            }
        };
        self.records.push(Record::new(path, value));
        Ok(())
    }
}

fn child(parent: &Path, entry: &Entry<'_>) -> Result<Path, DecodeError> {
    let what = "the identifier 65535 is reserved";
    parent.child(entry.id).ok_or(DecodeError::Syntax { at: entry.at, what })
}

/// The value that `bytes` are in the type wanted (LwM2M Core 1.1 Appendix C), or what they are
/// instead.
fn typed(wanted: ResourceType, bytes: &[u8]) -> Result<Value, &'static str> {
    let text =
        || std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "bytes that are not UTF-8");
    match wanted {
        ResourceType::Boolean => match bytes {
            [0] => Ok(Value::Boolean(false)),
            [1] => Ok(Value::Boolean(true)),
            _ => Err("something else than one byte of 0 or 1"),
        },
        ResourceType::Integer => signed(bytes).map(Value::Integer),
        ResourceType::Time => signed(bytes).map(Value::Time),
        ResourceType::Unsigned => unsigned(bytes).map(Value::Unsigned),
        ResourceType::Float => match *bytes {
            [a, b, c, d] => Ok(Value::Float(f64::from(f32::from_be_bytes([a, b, c, d])))),
            [a, b, c, d, e, f, g, h] => {
                Ok(Value::Float(f64::from_be_bytes([a, b, c, d, e, f, g, h])))
            }
            _ => Err("a length other than 4 or 8 bytes"),
        },
        ResourceType::String => text().map(Value::String),
        ResourceType::CoreLink => text().map(Value::CoreLink),
        ResourceType::Opaque => Ok(Value::Opaque(bytes.to_vec())),
        ResourceType::ObjectLink => match *bytes {
            [a, b, c, d] => Ok(Value::ObjectLink {
                object: u16::from_be_bytes([a, b]),
                instance: u16::from_be_bytes([c, d]),
            }),
            _ => Err("a length other than 4 bytes"),
        },
    }
}

const INTEGER_LENGTH: &str = "a length other than 1, 2, 4 or 8 bytes";

fn signed(bytes: &[u8]) -> Result<i64, &'static str> {
    match *bytes {
        [a] => Ok(i64::from(i8::from_be_bytes([a]))),
        [a, b] => Ok(i64::from(i16::from_be_bytes([a, b]))),
        [a, b, c, d] => Ok(i64::from(i32::from_be_bytes([a, b, c, d]))),
        [a, b, c, d, e, f, g, h] => Ok(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(INTEGER_LENGTH),
    }
}

fn unsigned(bytes: &[u8]) -> Result<u64, &'static str> {
    match bytes.len() {
        1 | 2 | 4 | 8 => Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))),
        _ => Err(INTEGER_LENGTH),
    }
}

pub(super) fn encode(base: &Path, records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    if base.is_root() {
        return Err(EncodeError::Format(coap::wire::ContentFormat::LWM2M_TLV.0));
    }
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.path);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].path.contains(&pair[1].path)) {
        // The same path, or a resource that is a value and has instances.
        return Err(EncodeError::Twice(pair[1].path));
    }
    let mut bytes = Vec::new();
    if base.instance_id().is_some() {
        write_resources(&sorted, &mut bytes)?;
        return Ok(bytes);
    }
    let mut resources = Vec::new();
    for instance in sorted.chunk_by(|left, right| left.path.ids()[1] == right.path.ids()[1]) {
        resources.clear();
        write_resources(instance, &mut resources)?;
        let path = instance[0].path;
        write_entry(Kind::ObjectInstance, path.ids()[1], &resources, path, &mut bytes)?;
    }
    Ok(bytes)
}

/// The resources of one object instance, in the order of their paths.
fn write_resources(records: &[&Record], bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    let (mut value, mut instances) = (Vec::new(), Vec::new());
    for resource in records.chunk_by(|left, right| left.path.ids()[2] == right.path.ids()[2]) {
        let path = resource[0].path;
        if path.resource_instance_id().is_none() {
            write_value(&resource[0].value, &mut value);
            write_entry(Kind::Resource, path.ids()[2], &value, path, bytes)?;
            continue;
        }
        instances.clear();
        for record in resource {
            write_value(&record.value, &mut value);
            let id = record.path.ids()[3];
            write_entry(Kind::ResourceInstance, id, &value, record.path, &mut instances)?;
        }
        write_entry(Kind::MultipleResource, path.ids()[2], &instances, path, bytes)?;
    }
    Ok(())
}

/// Replaces what `bytes` hold by the value, integers and floats in their shortest exact form.
fn write_value(value: &Value, bytes: &mut Vec<u8>) {
    bytes.clear();
    match value {
        Value::Boolean(value) => bytes.push(u8::from(*value)),
        Value::Integer(value) | Value::Time(value) => write_signed(*value, bytes),
        Value::Unsigned(value) => write_unsigned(*value, bytes),
        Value::Float(value) => match shortened(*value) {
            Some(short) => bytes.extend_from_slice(&short.to_be_bytes()),
            None => bytes.extend_from_slice(&value.to_be_bytes()),
        },
        Value::String(value) | Value::CoreLink(value) => {
            bytes.extend_from_slice(value.as_bytes());
        }
        Value::Opaque(value) => bytes.extend_from_slice(value),
        Value::ObjectLink { object, instance } => {
            bytes.extend_from_slice(&object.to_be_bytes());
            bytes.extend_from_slice(&instance.to_be_bytes());
        }
    }
}

/// The single-precision form of a float, if that is exact.
#[expect(clippy::cast_possible_truncation, reason = "whether it is exact is what is asked")]
pub(super) fn shortened(value: f64) -> Option<f32> {
    let short = value as f32;
    (f64::from(short).to_bits() == value.to_bits()).then_some(short)
}

fn write_signed(value: i64, bytes: &mut Vec<u8>) {
    if let Ok(short) = i8::try_from(value) {
        bytes.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(short) = i16::try_from(value) {
        bytes.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(short) = i32::try_from(value) {
        bytes.extend_from_slice(&short.to_be_bytes());
    } else {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
}

fn write_unsigned(value: u64, bytes: &mut Vec<u8>) {
    if let Ok(short) = u8::try_from(value) {
        bytes.push(short);
    } else if let Ok(short) = u16::try_from(value) {
        bytes.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(short) = u32::try_from(value) {
        bytes.extend_from_slice(&short.to_be_bytes());
    } else {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
}

fn write_entry(
    kind: Kind,
    id: u16,
    value: &[u8],
    path: Path,
    bytes: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let length = u32::try_from(value.len()).ok().filter(|length| *length < 1 << 24);
    let length = length.ok_or(EncodeError::TooLong { path, bytes: value.len() })?.to_be_bytes();
    // How many bytes of the length are written apart; up to seven fit into the type byte.
    let length_bytes = match value.len() {
        0..8 => 0,
        8..0x100 => 1,
        0x100..0x1_0000 => 2,
        _ => 3,
    };
    let mut head = (kind as u8) << 6 | length_bytes << 3;
    if length_bytes == 0 {
        head |= length[3];
    }
    if id > 0xff {
        bytes.push(head | 0x20);
        bytes.extend_from_slice(&id.to_be_bytes());
    } else {
        bytes.push(head);
        bytes.push(id.to_be_bytes()[1]);
    }
    bytes.extend_from_slice(&length[4 - usize::from(length_bytes)..]);
    bytes.extend_from_slice(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn read(base: &str, bytes: &[u8]) -> Result<Vec<(String, Value)>, DecodeError> {
        let base = base.parse().unwrap();
        let context = Context { base: &base, model: &Model::builtin(), received_at_unix: 0.0 };
        let records = decode(context, bytes)?;
        Ok(records.into_iter().map(|record| (record.path.to_string(), record.value)).collect())
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    /// The device of LwM2M Core 1.1 §7.4.3.1, example of object 3, as a single instance.
    const DEVICE: &[u8] = b"\xc8\x00\x14Open Mobile Alliance\
        \xc8\x01\x16Lightweight M2M Client\
        \xc8\x02\x09345000123\
        \xc3\x031.0\
        \x86\x06\x41\x00\x01\x41\x01\x05\
        \x88\x07\x08\x42\x00\x0e\xd8\x42\x01\x13\x88\
        \x87\x08\x41\x00\x7d\x42\x01\x03\x84\
        \xc1\x09\x64\
        \xc1\x0a\x0f\
        \x83\x0b\x41\x00\x00\
        \xc4\x0d\x51\x82\x42\x8f\
        \xc6\x0e+02:00\
        \xc1\x10U";

    fn device() -> Vec<(String, Value)> {
        [
            ("/3/0/0", text("Open Mobile Alliance")),
            ("/3/0/1", text("Lightweight M2M Client")),
            ("/3/0/2", text("345000123")),
            ("/3/0/3", text("1.0")),
            ("/3/0/6/0", Value::Integer(1)),
            ("/3/0/6/1", Value::Integer(5)),
            ("/3/0/7/0", Value::Integer(3800)),
            ("/3/0/7/1", Value::Integer(5000)),
            ("/3/0/8/0", Value::Integer(125)),
            ("/3/0/8/1", Value::Integer(900)),
            ("/3/0/9", Value::Integer(100)),
            ("/3/0/10", Value::Integer(15)),
            ("/3/0/11/0", Value::Integer(0)),
            ("/3/0/13", Value::Time(1_367_491_215)),
            ("/3/0/14", text("+02:00")),
            ("/3/0/16", text("U")),
        ]
        .map(|(path, value)| (path.to_owned(), value))
        .to_vec()
    }

    #[test]
    fn the_examples_of_the_specification_are_read_and_written() {
        assert_eq!(read("/3/0", DEVICE), Ok(device()));
        let whole = [&b"\x08\x00\x79"[..], DEVICE].concat();
        assert_eq!(read("/3", &whole), Ok(device()));
        // The entry of the only instance may be left out (§7.4.3).
        assert_eq!(read("/3", DEVICE), Ok(device()));
        let records: Vec<Record> = device()
            .into_iter()
            .map(|(path, value)| Record::new(path.parse().unwrap(), value))
            .collect();
        assert_eq!(encode(&Path::instance(3, 0), &records), Ok(DEVICE.to_vec()));
        assert_eq!(encode(&Path::object(3), &records), Ok(whole));

        // The access control objects of the same clause.
        let bytes = b"\x08\x00\x0e\xc1\x00\x01\xc1\x01\x00\x83\x02\x41\x7f\x07\xc1\x03\x7f\
            \x08\x02\x12\xc1\x00\x03\xc1\x01\x00\x87\x02\x41\x7f\x07\x61\x01\x36\x01\xc1\x03\x7f";
        let found = read("/2", bytes).unwrap();
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let expected = [
            "/2/0/0",
            "/2/0/1",
            "/2/0/2/127",
            "/2/0/3",
            "/2/2/0",
            "/2/2/1",
            "/2/2/2/127",
            "/2/2/2/310",
            "/2/2/3",
        ];
        assert_eq!(paths, expected);
        assert_eq!(found[7].1, Value::Integer(1));
    }

    #[test]
    fn links_and_what_the_model_does_not_know_are_read() {
        // LwM2M Core 1.1 §7.4.3.3: a resource with links to two object instances.
        let bytes = b"\x8c\x16\x0d\x44\x00\x00\x42\x00\x00\x45\x01\x00\x42\x00\x01\x00";
        assert!(read("/3/0", bytes).is_err());
        let bytes = b"\x88\x16\x0c\x44\x00\x00\x42\x00\x00\x44\x01\x00\x42\x00\x01";
        let link = |instance| Value::ObjectLink { object: 66, instance };
        let expected = [("/3/0/22/0".to_owned(), link(0)), ("/3/0/22/1".to_owned(), link(1))];
        assert_eq!(read("/3/0", bytes), Ok(expected.to_vec()));
        let unknown = Ok(vec![("/9999/1/2".to_owned(), Value::Opaque(vec![7, 8]))]);
        assert_eq!(read("/9999/1", b"\xc2\x02\x07\x08"), unknown);
        assert_eq!(read("/3/0", b""), Ok(vec![]));
    }

    #[test]
    fn the_path_addressed_says_what_may_stand_outermost() {
        let one = |path: &str| Ok(vec![(path.to_owned(), Value::Integer(1))]);
        assert_eq!(read("/3/0/9", b"\xc1\x09\x01"), one("/3/0/9"));
        assert_eq!(read("/3/0/6", b"\x83\x06\x41\x02\x01"), one("/3/0/6/2"));
        assert_eq!(read("/3/0/6", b"\x41\x02\x01"), one("/3/0/6/2"));
        assert_eq!(read("/3/0/6/2", b"\x41\x02\x01"), one("/3/0/6/2"));
        assert_eq!(read("/3/0", b"\x03\x00\xc1\x09\x01"), one("/3/0/9"));
        for (base, bytes) in [
            ("/", &b"\xc1\x09\x01"[..]),
            ("/3/0/9", b"\xc1\x0a\x01"),
            ("/3/0", b"\x03\x01\xc1\x09\x01"),
            ("/3/0", b"\x41\x02\x01"),
            ("/3/0/6/2", b"\x41\x03\x01"),
            // An object of many instances must say which.
            ("/3303", b"\xc1\x09\x01"),
        ] {
            assert!(read(base, bytes).is_err(), "{base} {bytes:x?}");
        }
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            &b"\xc1"[..],
            b"\xe1\x00",
            b"\xc2\x09\x01",
            b"\xc8\x09",
            b"\xd8\x09\xff\xff\x01",
            b"\xd8\x09\xff\xff\xff",
            // An instance inside of an instance, a resource inside of a resource.
            b"\x05\x00\x03\x00\xc1\x09\x01",
            b"\x83\x06\xc1\x02\x01",
            b"\x85\x06\x83\x06\x41\x02\x01",
            b"\x03\x00\x41\x09\x01",
            // Id 65535; integers of three and of no bytes; text that is none.
            b"\xe1\xff\xff\x01",
            b"\xc3\x09\x01\x02\x03",
            b"\xc0\x09",
            b"\xc1\x00\xff",
        ] {
            assert!(read("/3/0", bytes).is_err(), "{bytes:x?}");
        }
        assert!(read("/3311/0", b"\xe1\x16\xda\x02").is_err());
        assert!(read("/6/0", b"\xc2\x00\x00\x00").is_err());
        let many = b"\xc1\x09\x01".repeat(5000);
        assert_eq!(read("/3/0", &many), Err(DecodeError::TooManyNodes { nodes: 4097 }));
        let error = read("/3/0", b"\xc2\x09\x01").unwrap_err().to_string();
        assert_eq!(error, "malformed at byte 2: the length exceeds the bytes that follow");
    }

    #[test]
    fn ids_and_lengths_have_their_shortest_form() {
        for (id, length, head) in [
            (0, 7, &b"\xc7\x00"[..]),
            (255, 8, b"\xc8\xff\x08"),
            (256, 255, b"\xe8\x01\x00\xff"),
            (65534, 256, b"\xf0\xff\xfe\x01\x00"),
            (1, 65535, b"\xd0\x01\xff\xff"),
            (1, 65536, b"\xd8\x01\x01\x00\x00"),
        ] {
            let record = Record::new(Path::resource(9999, 0, id), Value::Opaque(vec![7; length]));
            let written = encode(&Path::instance(9999, 0), &[record]).unwrap();
            assert_eq!(&written[..head.len()], head);
            assert_eq!(written.len(), head.len() + length);
        }
        for (value, bytes) in [
            (-128, &b"\x80"[..]),
            (128, b"\x00\x80"),
            (32768, b"\x00\x00\x80\x00"),
            (1 << 31, b"\x00\x00\x00\x00\x80\x00\x00\x00"),
        ] {
            let mut written = Vec::new();
            write_signed(value, &mut written);
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn two_values_of_one_path_are_refused() {
        let record = |path: &str| Record::new(path.parse().unwrap(), Value::Integer(1));
        let base = Path::instance(3, 0);
        let twice = encode(&base, &[record("/3/0/9"), record("/3/0/9")]);
        assert_eq!(twice, Err(EncodeError::Twice(Path::resource(3, 0, 9))));
        let both = encode(&base, &[record("/3/0/6"), record("/3/0/6/1")]);
        assert_eq!(both, Err(EncodeError::Twice(Path::resource_instance(3, 0, 6, 1))));
        assert!(encode(&Path::ROOT, &[record("/3/0/9")]).is_err());
    }
}
