//! Where the cells of an area lie: a table in memory, made when the file is opened.
//!
//! Sixteen bytes for each area, at the place that a hash of it says: one wait for memory, where a
//! search among sorted areas waits for many.

use crate::record::Area;
use crate::slots::mixed;

/// The areas of a database.
#[derive(Debug)]
pub(crate) struct Directory(Vec<Entry>);

/// Where the cells of an area lie.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    area: u64,
    /// The first of its slots.
    pub(crate) first: u32,
    /// None: the entry is free.
    pub(crate) cells: u32,
}

impl Directory {
    pub(crate) fn new(areas: impl ExactSizeIterator<Item = Area>) -> Self {
        // A third of the entries is free; at least one is, where a search ends.
        let mut entries = vec![Entry::default(); areas.len() + areas.len() / 2 + 1];
        for Area { record, first, cells } in areas {
            let area = record.key.area();
            let place = Self::places(entries.len(), area)
                .find(|place| entries.get(*place).is_some_and(|entry| entry.cells == 0));
            if let Some(entry) = place.and_then(|place| entries.get_mut(place)) {
                *entry = Entry { area, first, cells };
            }
        }
        Self(entries)
    }

    pub(crate) fn find(&self, area: u64) -> Option<Entry> {
        let mut entries = Self::places(self.0.len(), area).map_while(|place| self.0.get(place));
        let entry = entries.find(|entry| entry.cells == 0 || entry.area == area)?;
        (entry.cells != 0).then_some(*entry)
    }

    /// All places, from that on where the area should be.
    fn places(entries: usize, area: u64) -> impl Iterator<Item = usize> {
        let home = (mixed(area) * entries as u64) >> 32;
        let home = usize::try_from(home).unwrap_or_default();
        (home..entries).chain(0..home)
    }
}
