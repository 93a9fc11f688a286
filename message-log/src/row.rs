//! One record as bytes: the content of a row. The layout stands in FORMAT.md.

use vocabulary::{EventId, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::{DeviceKey, Kind, Offset, Record};

/// Bytes before the body: checksum, id, device, number, time, kind.
pub(crate) const HEADER_BYTES: usize = 8 + 16 + 8 + 8 + 8 + 1;

/// The fields of a record except its place and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: EventId,
    pub(crate) device: DeviceKey,
    pub(crate) device_seq: u64,
    pub(crate) received_at: Timestamp,
    pub(crate) kind: Kind,
}

/// Writes a row into `row`, which is cleared first.
pub(crate) fn encode(row: &mut Vec<u8>, offset: u64, header: &Header, body: &[u8]) {
    row.clear();
    row.reserve(HEADER_BYTES + body.len());
    row.extend_from_slice(&[0; 8]);
    row.extend_from_slice(&header.id.to_bytes());
    row.extend_from_slice(&header.device.as_u64().to_le_bytes());
    row.extend_from_slice(&header.device_seq.to_le_bytes());
    row.extend_from_slice(&header.received_at.as_micros().to_le_bytes());
    row.push(header.kind.code());
    row.extend_from_slice(body);
    // The place is the seed: a sound row in a wrong place is damage too.
    let checksum = xxh3_64_with_seed(&row[8..], offset);
    row[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads a row; `None` if it is damaged.
pub(crate) fn decode(offset: u64, row: &[u8]) -> Option<(Header, &[u8])> {
    let (checksum, fields) = row.split_first_chunk::<8>()?;
    if xxh3_64_with_seed(fields, offset) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let (id, fields) = fields.split_first_chunk::<16>()?;
    let (device, fields) = fields.split_first_chunk::<8>()?;
    let (device_seq, fields) = fields.split_first_chunk::<8>()?;
    let (received_at, fields) = fields.split_first_chunk::<8>()?;
    let (kind, body) = fields.split_first()?;
    let header = Header {
        id: EventId::from_bytes(*id),
        device: DeviceKey::from_u64(u64::from_le_bytes(*device)),
        device_seq: u64::from_le_bytes(*device_seq),
        received_at: Timestamp::from_micros(i64::from_le_bytes(*received_at)),
        kind: Kind::new(*kind),
    };
    Some((header, body))
}

/// The record of a row that was read.
pub(crate) fn record(offset: u64, header: Header, body: &[u8]) -> Record {
    Record {
        offset: Offset::from_u64(offset),
        id: header.id,
        device: header.device,
        device_seq: header.device_seq,
        kind: header.kind,
        received_at: header.received_at,
        body: body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: EventId::from_bytes([7; 16]),
            device: DeviceKey::from_u64(8_988_303_000_123_456_789),
            device_seq: 42,
            received_at: Timestamp::from_micros(-1),
            kind: Kind::new(64),
        }
    }

    #[test]
    fn a_row_comes_back() {
        let mut row = vec![1, 2, 3];
        encode(&mut row, 9, &header(), b"body");
        assert_eq!(row.len(), HEADER_BYTES + 4);
        assert_eq!(decode(9, &row), Some((header(), &b"body"[..])));
        assert_eq!(decode(10, &row), None, "the same bytes in another place");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut row = Vec::new();
        encode(&mut row, 9, &header(), b"body");
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(9, &damaged), None, "bit {bit}");
        }
        for length in 0..row.len() {
            assert_eq!(decode(9, &row[..length]), None, "length {length}");
        }
    }
}
