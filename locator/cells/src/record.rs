//! One cell in 23 bytes, and one area in 31.

use vocabulary::Coordinates;

use crate::key::{KEY_BYTES, Key};

/// Bytes of what a record says of its key: latitude and longitude, range, and week and samples.
pub(crate) const REST_BYTES: usize = 4 + 4 + 2 + 2;
/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = KEY_BYTES + REST_BYTES;
/// Bytes of an area: its middle as a record, its first slot, and its cells.
pub(crate) const AREA_BYTES: usize = RECORD_BYTES + 4 + 4;

/// Steps of a degree: 1.1 cm.
const STEPS: f64 = 1e7;
/// Metres of a step of the range; the largest is 524 km.
const RANGE_STEP_M: u32 = 8;

/// A cell, or the middle of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Key,
    /// In steps.
    latitude: i32,
    longitude: i32,
    range: u16,
    /// The week of its last change since 1970, times 16, and the logarithm of its samples.
    pub(crate) week_and_samples: u16,
}

impl Record {
    /// A cell at a place that is on the globe.
    #[expect(clippy::cast_possible_truncation, reason = "180 degrees are 1.8e9 steps")]
    pub(crate) fn new(key: Key, at: Coordinates, range_m: u32) -> Self {
        Self {
            key,
            latitude: (at.latitude() * STEPS).round() as i32,
            longitude: (at.longitude() * STEPS).round() as i32,
            range: u16::try_from(range_m.div_ceil(RANGE_STEP_M)).unwrap_or(u16::MAX),
            week_and_samples: 0,
        }
    }

    /// With when it was changed, in seconds since 1970, and from how many samples.
    pub(crate) fn made_from(mut self, updated_s: u64, samples: u32) -> Self {
        // Twelve bits of weeks last until 2048.
        let week = u16::try_from((updated_s / 604_800).min(0xfff)).unwrap_or(0xfff);
        let samples = u16::try_from(samples.max(1).ilog2().min(15)).unwrap_or(15);
        self.week_and_samples = week << 4 | samples;
        self
    }

    /// The same of another key.
    pub(crate) fn with_key(self, key: Key) -> Self {
        Self { key, ..self }
    }

    pub(crate) fn coordinates(&self) -> Option<Coordinates> {
        Coordinates::new(f64::from(self.latitude) / STEPS, f64::from(self.longitude) / STEPS).ok()
    }

    pub(crate) fn range_m(&self) -> u32 {
        u32::from(self.range) * RANGE_STEP_M
    }

    pub(crate) fn week(&self) -> u16 {
        self.week_and_samples >> 4
    }

    pub(crate) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let (key, rest) = bytes.split_at_mut(KEY_BYTES);
        key.copy_from_slice(&self.key.to_bytes());
        rest.copy_from_slice(&self.rest());
        bytes
    }

    /// All but its key.
    pub(crate) fn rest(&self) -> [u8; REST_BYTES] {
        let mut rest = [0; REST_BYTES];
        rest[..4].copy_from_slice(&self.latitude.to_le_bytes());
        rest[4..8].copy_from_slice(&self.longitude.to_le_bytes());
        rest[8..10].copy_from_slice(&self.range.to_le_bytes());
        rest[10..].copy_from_slice(&self.week_and_samples.to_le_bytes());
        rest
    }

    pub(crate) fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (mut key, mut rest) = ([0; KEY_BYTES], [0; REST_BYTES]);
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        rest.copy_from_slice(&bytes[KEY_BYTES..]);
        Self::from_parts(Key::from_bytes(&key), &rest)
    }

    pub(crate) fn from_parts(key: Key, rest: &[u8; REST_BYTES]) -> Self {
        let [a0, a1, a2, a3, o0, o1, o2, o3, r0, r1, w0, w1] = *rest;
        Self {
            key,
            latitude: i32::from_le_bytes([a0, a1, a2, a3]),
            longitude: i32::from_le_bytes([o0, o1, o2, o3]),
            range: u16::from_le_bytes([r0, r1]),
            week_and_samples: u16::from_le_bytes([w0, w1]),
        }
    }
}

/// An area: the middle of its cells, and where they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    pub(crate) record: Record,
    /// The first of its slots.
    pub(crate) first: u32,
    pub(crate) cells: u32,
}

impl Area {
    pub(crate) fn to_bytes(self) -> [u8; AREA_BYTES] {
        let mut bytes = [0; AREA_BYTES];
        let (record, place) = bytes.split_at_mut(RECORD_BYTES);
        record.copy_from_slice(&self.record.to_bytes());
        place[..4].copy_from_slice(&self.first.to_le_bytes());
        place[4..].copy_from_slice(&self.cells.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; AREA_BYTES]) -> Self {
        let mut record = [0; RECORD_BYTES];
        record.copy_from_slice(&bytes[..RECORD_BYTES]);
        let [.., f0, f1, f2, f3, c0, c1, c2, c3] = *bytes;
        Self {
            record: Record::from_bytes(&record),
            first: u32::from_le_bytes([f0, f1, f2, f3]),
            cells: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }
}
