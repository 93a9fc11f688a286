//! One cell in 23 bytes.

use vocabulary::Coordinates;

use crate::key::{KEY_BYTES, Key};

/// Bytes of a record: its key, latitude and longitude, range, and week and samples.
pub(crate) const RECORD_BYTES: usize = KEY_BYTES + 4 + 4 + 2 + 2;

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
        rest[..4].copy_from_slice(&self.latitude.to_le_bytes());
        rest[4..8].copy_from_slice(&self.longitude.to_le_bytes());
        rest[8..10].copy_from_slice(&self.range.to_le_bytes());
        rest[10..].copy_from_slice(&self.week_and_samples.to_le_bytes());
        bytes
    }

    /// The key of a record, without the rest.
    pub(crate) fn key_of(bytes: &[u8; RECORD_BYTES]) -> Key {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        Key::from_bytes(&key)
    }

    pub(crate) fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let [
            k0,
            k1,
            k2,
            k3,
            k4,
            k5,
            k6,
            k7,
            k8,
            k9,
            k10, //
            a0,
            a1,
            a2,
            a3,
            o0,
            o1,
            o2,
            o3,
            r0,
            r1,
            w0,
            w1,
        ] = *bytes;
        Self {
            key: Key::from_bytes(&[k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10]),
            latitude: i32::from_le_bytes([a0, a1, a2, a3]),
            longitude: i32::from_le_bytes([o0, o1, o2, o3]),
            range: u16::from_le_bytes([r0, r1]),
            week_and_samples: u16::from_le_bytes([w0, w1]),
        }
    }
}
