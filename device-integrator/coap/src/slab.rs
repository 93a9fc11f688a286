//! Places for small values, found by number. Grows in chunks, so that a million of them neither
//! move nor leave half of a doubled vector empty.

use std::ops::{Index, IndexMut};

/// Values per chunk: 40 KiB of deduplication records.
const CHUNK: usize = 1_024;

/// A growing set of places; a removed value stays readable until its place is used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    places: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), places: 0 }
    }

    /// Puts a value into a place.
    pub(crate) fn insert(&mut self, value: T) -> u32
    where
        T: Copy,
    {
        let place = self.reserve(value);
        self[place] = value;
        place
    }

    /// A place: a free one with the value that was removed from it, or a new one with `value`.
    /// The caller limits the number of values, so that places fit 32 bits.
    pub(crate) fn reserve(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            return place;
        }
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(value),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(value);
                self.chunks.push(chunk);
            }
        }
        self.places += 1;
        self.places - 1
    }

    pub(crate) fn remove(&mut self, place: u32) {
        self.free.push(place);
    }

    /// The value at a place that was once used.
    pub(crate) fn find_mut(&mut self, place: u32) -> Option<&mut T> {
        let place = place as usize;
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new();
        for value in 0..3_000_u32 {
            assert_eq!(slab.insert(value), value);
        }
        slab.remove(7);
        assert_eq!(slab.insert(1), 7);
        assert_eq!((slab[7], slab[2_999]), (1, 2_999));
        assert!(slab.find_mut(3_000).is_none());
    }
}
