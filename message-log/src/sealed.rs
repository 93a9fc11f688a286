//! The index of a sealed segment: written once from the chain, in sorted order, as chunks with
//! checksums. The layout stands in FORMAT.md. Pure: bytes in, bytes out.

use std::ops::Range;

use vocabulary::{EventId, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::chain::{Bounds, Chain, Rare};

/// The number of the chunk that holds the summary.
pub(crate) const SUMMARY: u32 = 0;
/// Bytes of a chunk at most: it fits one page of 4 KiB together with its row's own bytes.
const CHUNK_BYTES: usize = 3_900;
/// Places of one device in one chunk at most.
const GROUP_PLACES: usize = (CHUNK_BYTES - 8 - GROUP_HEADER_BYTES) / 4;
const GROUP_HEADER_BYTES: usize = 8 + 2;
const RARE_BYTES: usize = 4 + 1 + 8;
const RARE_PER_CHUNK: usize = (CHUNK_BYTES - 8) / RARE_BYTES;
const FORMAT: u32 = 1;

/// What a sealed segment holds, and where in its chunks to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) records: u32,
    pub(crate) first_id: EventId,
    pub(crate) last_id: EventId,
    pub(crate) blocks: Vec<Bounds>,
    /// The first device and place of each chunk of devices; they are the chunks 1 and up.
    devices: Vec<(u64, u32)>,
    /// The first place of each chunk of rare records; they follow those of devices.
    rare: Vec<u32>,
}

/// Makes the chunks of a segment: each is given to `store` with its number. The summary is last.
pub(crate) fn write<E>(
    chain: &Chain,
    mut store: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut writer = Writer { number: 1, bytes: vec![0; 8], store: &mut store };
    let devices = writer.devices(chain)?;
    let rare = writer.rare(chain)?;
    let summary = Summary {
        records: chain.len(),
        first_id: chain.first_id.unwrap_or(EventId::from_bytes([0; 16])),
        last_id: chain.last_id.unwrap_or(EventId::from_bytes([0; 16])),
        blocks: chain.blocks().to_vec(),
        devices,
        rare,
    };
    let mut bytes = vec![0; 8];
    summary.encode(&mut bytes);
    store(SUMMARY, sign(SUMMARY, &mut bytes))
}

struct Writer<'a, S> {
    number: u32,
    bytes: Vec<u8>,
    store: &'a mut S,
}

impl<E, S: FnMut(u32, &[u8]) -> Result<(), E>> Writer<'_, S> {
    fn devices(&mut self, chain: &Chain) -> Result<Vec<(u64, u32)>, E> {
        let mut directory = Vec::new();
        let mut devices: Vec<u64> = chain.heads().map(|(device, _)| device).collect();
        devices.sort_unstable();
        let mut places = Vec::new();
        for device in devices {
            chain.places_of(device, &mut places);
            for group in places.chunks(GROUP_PLACES) {
                self.make_room(GROUP_HEADER_BYTES + 4 * group.len())?;
                if self.bytes.len() == 8 {
                    directory.push((device, group[0]));
                }
                self.bytes.extend_from_slice(&device.to_le_bytes());
                // A group fits a chunk, so its length fits 16 bits.
                let length = u16::try_from(group.len()).unwrap_or(u16::MAX);
                self.bytes.extend_from_slice(&length.to_le_bytes());
                self.bytes.extend(group.iter().flat_map(|place| place.to_le_bytes()));
            }
        }
        self.flush()?;
        Ok(directory)
    }

    fn rare(&mut self, chain: &Chain) -> Result<Vec<u32>, E> {
        let mut directory = Vec::new();
        for group in chain.rare().chunks(RARE_PER_CHUNK) {
            directory.push(group[0].place);
            for rare in group {
                self.bytes.extend_from_slice(&rare.place.to_le_bytes());
                self.bytes.push(rare.kind);
                self.bytes.extend_from_slice(&rare.device.to_le_bytes());
            }
            self.flush()?;
        }
        Ok(directory)
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), E> {
        if self.bytes.len() + bytes > CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), E> {
        if self.bytes.len() > 8 {
            let signed = sign(self.number, &mut self.bytes);
            (self.store)(self.number, signed)?;
            self.number += 1;
            self.bytes.truncate(8);
        }
        Ok(())
    }
}

fn sign(number: u32, bytes: &mut [u8]) -> &[u8] {
    let checksum = xxh3_64_with_seed(&bytes[8..], u64::from(number));
    bytes[..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The content of a chunk; `None` if it is damaged.
fn verified(number: u32, bytes: &[u8]) -> Option<Fields<'_>> {
    let (checksum, fields) = bytes.split_first_chunk::<8>()?;
    let sound = xxh3_64_with_seed(fields, u64::from(number)) == u64::from_le_bytes(*checksum);
    sound.then_some(Fields(fields))
}

impl Summary {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.first_id.to_bytes());
        bytes.extend_from_slice(&self.last_id.to_bytes());
        bytes.extend_from_slice(&count(self.blocks.len()));
        bytes.extend_from_slice(&count(self.devices.len()));
        bytes.extend_from_slice(&count(self.rare.len()));
        for block in &self.blocks {
            bytes.extend_from_slice(&block.earliest.as_micros().to_le_bytes());
            bytes.extend_from_slice(&block.latest.as_micros().to_le_bytes());
        }
        for (device, place) in &self.devices {
            bytes.extend_from_slice(&device.to_le_bytes());
            bytes.extend_from_slice(&place.to_le_bytes());
        }
        for place in &self.rare {
            bytes.extend_from_slice(&place.to_le_bytes());
        }
    }

    /// Reads the summary; `None` if it is damaged or of another format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = verified(SUMMARY, bytes)?;
        if fields.u32()? != FORMAT {
            return None;
        }
        let records = fields.u32()?;
        let first_id = EventId::from_bytes(fields.take()?);
        let last_id = EventId::from_bytes(fields.take()?);
        let (blocks, devices, rare) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let summary = Self {
            records,
            first_id,
            last_id,
            blocks: (0..blocks)
                .map(|_| Some(Bounds { earliest: fields.time()?, latest: fields.time()? }))
                .collect::<Option<_>>()?,
            devices: (0..devices)
                .map(|_| Some((fields.u64()?, fields.u32()?)))
                .collect::<Option<_>>()?,
            rare: (0..rare).map(|_| fields.u32()).collect::<Option<_>>()?,
        };
        fields.0.is_empty().then_some(summary)
    }

    /// The chunks that can hold places of `device` below `before`, in rising order.
    pub(crate) fn device_chunks(&self, device: u64, before: u32) -> Range<u32> {
        let end = self.devices.partition_point(|first| *first < (device, before));
        let start = self.devices[..end].partition_point(|first| first.0 < device);
        // The chunk before the first that begins with the device can end with it.
        chunk_number(start.saturating_sub(1))..chunk_number(end)
    }

    /// The chunks that can hold rare records within `places`, in rising order.
    pub(crate) fn rare_chunks(&self, places: &Range<u32>) -> Range<u32> {
        let start = self.rare.partition_point(|first| *first <= places.start).saturating_sub(1);
        let end = self.rare.partition_point(|first| *first < places.end).max(start);
        let devices = self.devices.len();
        chunk_number(devices + start)..chunk_number(devices + end)
    }
}

/// Chunks are numbered from 1, after the summary.
fn chunk_number(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

/// Adds the places of `device` in a chunk to `places`, in rising order; `None` if it is damaged.
pub(crate) fn device_places(
    number: u32,
    bytes: &[u8],
    device: u64,
    places: &mut Vec<u32>,
) -> Option<()> {
    let mut fields = verified(number, bytes)?;
    while !fields.0.is_empty() {
        let found = fields.u64()?;
        let length = usize::from(u16::from_le_bytes(fields.take()?));
        let (group, rest) = fields.0.split_at_checked(4 * length)?;
        fields.0 = rest;
        if found == device {
            places.extend(group.chunks_exact(4).filter_map(|place| Fields(place).u32()));
        } else if found > device {
            break;
        }
    }
    Some(())
}

/// The rare records of a chunk, in rising order; `None` if it is damaged.
pub(crate) fn rare_records(number: u32, bytes: &[u8]) -> Option<Vec<Rare>> {
    let mut fields = verified(number, bytes)?;
    let mut found = Vec::with_capacity(fields.0.len() / RARE_BYTES);
    while !fields.0.is_empty() {
        let place = fields.u32()?;
        let [kind] = fields.take()?;
        found.push(Rare { place, kind, device: fields.u64()? });
    }
    Some(found)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.take().map(i64::from_le_bytes).map(Timestamp::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::chain::tests::header;

    fn sealed(chain: &Chain) -> BTreeMap<u32, Vec<u8>> {
        let mut chunks = BTreeMap::new();
        let stored: Result<(), Infallible> = write(chain, |number, bytes| {
            chunks.insert(number, bytes.to_vec());
            Ok(())
        });
        stored.unwrap();
        chunks
    }

    fn places(chunks: &BTreeMap<u32, Vec<u8>>, device: u64, before: u32) -> Vec<u32> {
        let summary = Summary::decode(&chunks[&SUMMARY]).unwrap();
        let mut found = Vec::new();
        for number in summary.device_chunks(device, before) {
            device_places(number, &chunks[&number], device, &mut found).unwrap();
        }
        found.retain(|place| *place < before);
        found
    }

    #[test]
    fn every_device_is_found_again_also_one_that_fills_many_chunks() {
        let mut chain = Chain::default();
        let mut expected: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for place in 0..20_000_u32 {
            let device = if place % 3 == 0 { 7 } else { u64::from(place * 7_919 % 1_000) + 1 };
            chain.push(&header(device, 1, 1, 0));
            expected.entry(device).or_default().push(place);
        }
        let chunks = sealed(&chain);
        assert!(chunks.values().skip(1).all(|bytes| bytes.len() <= CHUNK_BYTES));
        for (device, all) in &expected {
            assert_eq!(&places(&chunks, *device, u32::MAX), all);
            let half = all[all.len() / 2];
            assert_eq!(places(&chunks, *device, half), all[..all.len() / 2]);
        }
        assert_eq!(places(&chunks, 0, u32::MAX), [0; 0]);
        assert_eq!(places(&chunks, 5_000, u32::MAX), [0; 0]);
    }

    #[test]
    fn rare_records_are_found_by_place() {
        let mut chain = Chain::default();
        for place in 0..5_000 {
            chain.push(&header(1, 1, if place % 5 == 0 { 64 } else { 1 }, 0));
        }
        let chunks = sealed(&chain);
        let summary = Summary::decode(&chunks[&SUMMARY]).unwrap();
        for range in [0..5_000, 2_500..2_600, 4_999..5_000, 5_000..6_000, 0..1] {
            let found: Vec<u32> = summary
                .rare_chunks(&range)
                .flat_map(|number| rare_records(number, &chunks[&number]).unwrap())
                .map(|rare| rare.place)
                .filter(|place| range.contains(place))
                .collect();
            let expected: Vec<u32> =
                range.filter(|place| *place < 5_000 && place % 5 == 0).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_flipped_bit_or_an_exchanged_chunk_is_found() {
        let mut chain = Chain::default();
        for place in 0..3_000 {
            chain.push(&header(place % 500 + 1, 1, if place % 9 == 0 { 64 } else { 1 }, 0));
        }
        let chunks = sealed(&chain);
        for bit in (0..chunks[&SUMMARY].len() * 8).step_by(7) {
            let mut damaged = chunks[&SUMMARY].clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Summary::decode(&damaged), None);
        }
        assert_eq!(device_places(2, &chunks[&1], 1, &mut Vec::new()), None);
        assert_eq!(rare_records(2, &chunks[&1][..100]), None);
    }
}
