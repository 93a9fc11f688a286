//! Which devices have a backlog: a set that may say yes of a device that has none, never no of one
//! that has (Bloom 1970). Pure.
//!
//! It is made once, when the second lane of an integration opens, and kept in the state file until
//! the lanes are one again. A device that is taken for one with a backlog only waits in order.

use std::sync::Arc;

use crate::schedule::scramble;

/// The finished set. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter(Arc<[u8]>);

/// A set that still grows.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    bits: Vec<u8>,
}

/// Four million devices at 8 bits each, of which one in 40 is then taken wrongly.
const BYTES_MAX: usize = 4 << 20;
/// Nothing is gained below the size of a page.
const BYTES_MIN: usize = 4 << 10;
/// Bits of one device: the best number for 6 bits of room for each, good from 4 to 20.
const PROBES: u64 = 4;
/// It is folded while at most so many of a thousand bits are set: one device in 5,000 is then taken
/// wrongly.
const FOLD_BELOW_PER_MILLE: usize = 60;

impl Filter {
    /// From the bytes of [`Filter::bytes`]; `None` where they cannot be a filter's.
    pub(crate) fn from_bytes(bytes: Arc<[u8]>) -> Option<Self> {
        let is_one = bytes.len().is_power_of_two() && bytes.len() <= BYTES_MAX;
        is_one.then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }

    /// Whether `device` may be in the set.
    pub(crate) fn contains(&self, device: u64) -> bool {
        bits_of(device, self.0.len())
            .all(|(byte, bit)| self.0.get(byte).is_some_and(|b| b & bit > 0))
    }
}

impl FilterBuilder {
    pub(crate) fn new() -> Self {
        Self::with_bytes(BYTES_MAX)
    }

    /// Of a size, which is a power of two.
    fn with_bytes(bytes: usize) -> Self {
        Self { bits: vec![0; bytes] }
    }

    /// So small that many devices are taken wrongly.
    #[cfg(test)]
    pub(crate) fn tiny() -> Self {
        Self::with_bytes(2)
    }

    pub(crate) fn insert(&mut self, device: u64) {
        for (byte, bit) in bits_of(device, self.bits.len()) {
            if let Some(byte) = self.bits.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// The set, as small as it may be.
    pub(crate) fn finish(mut self) -> Filter {
        let mut set: usize = self.bits.iter().map(|byte| byte.count_ones() as usize).sum();
        while self.bits.len() > BYTES_MIN
            && set * 1_000 <= self.bits.len() * 8 * FOLD_BELOW_PER_MILLE
        {
            // A device's bits in half the room are its bits here without the highest one.
            let upper = self.bits.split_off(self.bits.len() / 2);
            self.bits.iter_mut().zip(upper).for_each(|(lower, upper)| *lower |= upper);
            set = self.bits.iter().map(|byte| byte.count_ones() as usize).sum();
        }
        Filter(self.bits.into())
    }
}

/// Byte and bit of each probe, in a set of so many bytes (a power of two).
fn bits_of(device: u64, bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let mut state = device;
    let (first, step) = (scramble(&mut state), scramble(&mut state) | 1);
    let mask = (bytes as u64 * 8) - 1;
    (0..PROBES).map(move |probe| {
        let bit = first.wrapping_add(step.wrapping_mul(probe)) & mask;
        // Below 2^25: it fits.
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter_of(devices: impl IntoIterator<Item = u64>) -> Filter {
        let mut builder = FilterBuilder::new();
        devices.into_iter().for_each(|device| builder.insert(device));
        builder.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn whoever_was_put_in_is_found(devices in proptest::collection::vec(any::<u64>(), 0..200)) {
            let filter = filter_of(devices.iter().copied());
            prop_assert!(devices.iter().all(|device| filter.contains(*device)));
            let again = Filter::from_bytes(filter.bytes()).unwrap();
            prop_assert!(devices.iter().all(|device| again.contains(*device)));
        }
    }

    #[test]
    fn few_others_are_and_it_is_small() {
        let start = 8_988_280_666_000_000_000;
        for (devices, kilobytes, wrong_of_a_thousand) in
            [(0, 4, 0), (10_000, 64, 2), (300_000, 2_048, 2)]
        {
            let filter = filter_of(start..start + devices);
            assert!(filter.bytes().len() <= kilobytes << 10, "{}", filter.bytes().len());
            let others = start + devices..start + devices + 100_000;
            let wrong = others.filter(|device| filter.contains(*device)).count();
            assert!(wrong <= wrong_of_a_thousand * 100, "{wrong} of 100,000 for {devices}");
        }
    }

    #[test]
    fn bytes_of_another_size_are_no_filter() {
        assert_eq!(Filter::from_bytes(vec![0; 3].into()), None);
        assert_eq!(Filter::from_bytes(vec![].into()), None);
    }
}
