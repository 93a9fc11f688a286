//! A hash table in pieces: each piece is immutable once published, so a reader takes no lock, and
//! a change rebuilds one piece instead of the whole.
//!
//! Because a piece never changes, it is an array with open addressing and nothing else: entries
//! lie near the place that their hash names, so most look-ups touch one or two cache lines, and
//! nothing has to be removed from it.

use std::hash::BuildHasher;
use std::marker::PhantomData;

use arc_swap::ArcSwap;
use hashbrown::{DefaultHashBuilder, HashMap};

use crate::entry::Entry;

/// Pieces of each table. With a million SIMs a piece holds about 490 entries: a change of one SIM
/// rebuilds some 24 KiB, and the list of pieces stays in the second-level cache (estimate: 2,048
/// pieces of 64 bytes).
const SHARDS: usize = 2_048;

/// With half of the places free a search ends after 1.5 places where it finds, after 2.5 where it
/// does not (Knuth's formula for linear probing), and a SIM takes 64 bytes of each table.
const PLACES_PER_ENTRY: usize = 2;

/// One piece.
type Places = Box<[Option<Entry>]>;

/// By what a table is searched.
pub(crate) trait Key {
    /// The key of one entry.
    fn of(entry: &Entry) -> u128;
}

/// Search by source address.
pub(crate) struct ByAddress;

/// Search by SIM.
pub(crate) struct ByIccid;

impl Key for ByAddress {
    fn of(entry: &Entry) -> u128 {
        entry.address.bits()
    }
}

impl Key for ByIccid {
    fn of(entry: &Entry) -> u128 {
        u128::from(entry.iccid.as_u64())
    }
}

/// One step of a change.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit {
    /// Insert, or replace what has the same key.
    Put(Entry),
    /// Take out what has this key, if anything.
    Remove(u128),
}

/// The table.
pub(crate) struct Shards<K> {
    shards: Box<[ArcSwap<Places>]>,
    hasher: DefaultHashBuilder,
    key: PhantomData<K>,
}

impl<K: Key> Shards<K> {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| ArcSwap::default()).collect();
        Self { shards, hasher: DefaultHashBuilder::default(), key: PhantomData }
    }

    /// The entry of `key`, as of the last change published for its piece.
    pub(crate) fn find(&self, key: u128) -> Option<Entry> {
        let hash = self.hasher.hash_one(key);
        let places = self.shards[shard_of(hash)].load();
        find_in::<K>(&places, key, hash)
    }

    /// Applies `edits` in their order and publishes each touched piece once. Calls must not
    /// overlap: the one that publishes last would undo the other.
    pub(crate) fn apply(&self, edits: impl Iterator<Item = Edit>) {
        let mut sorted: Vec<(usize, u128, Option<Entry>)> = edits
            .map(|edit| {
                let (key, entry) = match edit {
                    Edit::Put(entry) => (K::of(&entry), Some(entry)),
                    Edit::Remove(key) => (key, None),
                };
                (shard_of(self.hasher.hash_one(key)), key, entry)
            })
            .collect();
        sorted.sort_by_key(|(shard, ..)| *shard);
        for group in sorted.chunk_by(|left, right| left.0 == right.0) {
            // Of several edits of one key the last remains.
            let edits: HashMap<u128, Option<Entry>> =
                group.iter().map(|(_, key, entry)| (*key, *entry)).collect();
            let shard = &self.shards[group[0].0];
            let places = self.rebuild(&shard.load(), &edits);
            shard.store(places.into());
        }
    }

    fn rebuild(&self, before: &Places, edits: &HashMap<u128, Option<Entry>>) -> Places {
        let existed =
            |key: &&u128| find_in::<K>(before, **key, self.hasher.hash_one(*key)).is_some();
        let kept = before.len() / PLACES_PER_ENTRY - edits.keys().filter(existed).count();
        let put = || edits.values().flatten();
        let is_removing = edits.values().any(Option::is_none);
        let mut places = vec![None; PLACES_PER_ENTRY * (kept + put().count())].into_boxed_slice();
        // What is put goes first, so that an older entry of the same key finds its place taken.
        for entry in put().chain(before.iter().flatten()) {
            let key = K::of(entry);
            if !is_removing || !matches!(edits.get(&key), Some(None)) {
                place::<K>(&mut places, entry, self.hasher.hash_one(key));
            }
        }
        places
    }
}

fn find_in<K: Key>(places: &Places, key: u128, hash: u64) -> Option<Entry> {
    let (before, from) = places.split_at(first_place(hash, places.len()));
    for place in from.iter().chain(before) {
        match place {
            Some(entry) if K::of(entry) == key => return Some(*entry),
            Some(_) => {}
            None => return None,
        }
    }
    None
}

/// Inserts `entry` where no other has its key.
fn place<K: Key>(places: &mut Places, entry: &Entry, hash: u64) {
    let (before, from) = places.split_at_mut(first_place(hash, places.len()));
    for place in from.iter_mut().chain(before) {
        match place {
            Some(other) if K::of(other) == K::of(entry) => return,
            Some(_) => {}
            None => {
                *place = Some(*entry);
                return;
            }
        }
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// Spreads the lowest 32 bits of a hash, of which [`shard_of`] takes none, over the places.
fn first_place(hash: u64, places: usize) -> usize {
    (((hash & u64::from(u32::MAX)) * places as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use vocabulary::{Iccid, Identity};

    use super::*;

    fn entry(number: u64) -> Entry {
        let iccid = Iccid::from_u64(number).unwrap();
        Entry::new(Identity { iccid, imsi: None, ip: None }, true)
    }

    #[test]
    fn edits_are_applied_in_their_order() {
        let shards = Shards::<ByIccid>::new();
        shards.apply([Edit::Put(entry(1)), Edit::Remove(1), Edit::Remove(2)].into_iter());
        assert_eq!(shards.find(1), None);
        shards.apply([Edit::Remove(1), Edit::Put(entry(1))].into_iter());
        assert_eq!(shards.find(1), Some(entry(1)));
    }

    #[test]
    fn what_was_removed_gives_its_memory_back() {
        let shards = Shards::<ByIccid>::new();
        shards.apply((0..100_000).map(|number| Edit::Put(entry(number))));
        let capacity = |shards: &Shards<ByIccid>| {
            shards.shards.iter().map(|shard| shard.load().len()).sum::<usize>()
        };
        let full = capacity(&shards);
        shards.apply((0..100_000).map(Edit::Remove));
        assert!(full >= 100_000);
        assert_eq!(capacity(&shards), 0);
    }
}
