//! From a key to the numbers of sessions. Only the numbers are kept: the key lies in the session.
//! In pieces, so that growing one holds a datagram up for less than a millisecond.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::session::Session;
use crate::slab::Slab;

const PIECES: usize = 256;

/// By what sessions are searched.
pub(crate) trait Key {
    type Of<'a>: Hash + Eq;
    /// The key of a session, if it has one.
    fn of(session: &Session) -> Option<Self::Of<'_>>;
}

pub(crate) struct Index<K> {
    pieces: Box<[HashTable<u32>]>,
    /// The hashes of keys that more sessions have than are taken in.
    crowded: HashSet<u64>,
    hasher: DefaultHashBuilder,
    key: std::marker::PhantomData<K>,
}

impl<K: Key> Index<K> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: (0..PIECES).map(|_| HashTable::new()).collect(),
            crowded: HashSet::new(),
            hasher: DefaultHashBuilder::default(),
            key: std::marker::PhantomData,
        }
    }

    /// The sessions with this key, in no order.
    pub(crate) fn find<'a>(&'a self, slab: &'a Slab, key: K::Of<'a>) -> impl Iterator<Item = u32> {
        let hash = self.hasher.hash_one(&key);
        let is_one = move |slot: &&u32| slab.find(**slot).and_then(K::of).as_ref() == Some(&key);
        self.pieces[piece_of(hash)].iter_hash(hash).filter(is_one).copied()
    }

    /// Takes a session in. It has the key that it will be found by.
    pub(crate) fn insert(&mut self, slab: &Slab, slot: u32) {
        let Some(key) = slab.find(slot).and_then(K::of) else { return };
        let hash = self.hasher.hash_one(&key);
        let hasher = &self.hasher;
        let rehash =
            |slot: &u32| slab.find(*slot).and_then(K::of).map_or(0, |key| hasher.hash_one(&key));
        self.pieces[piece_of(hash)].insert_unique(hash, slot, rehash);
    }

    /// Takes a session in, unless `max` others have its key: then the key is crowded.
    pub(crate) fn insert_up_to(&mut self, max: usize, slab: &Slab, slot: u32) {
        let Some(key) = slab.find(slot).and_then(K::of) else { return };
        let hash = self.hasher.hash_one(&key);
        if self.crowded.contains(&hash) {
            return;
        }
        if self.find(slab, key).nth(max - 1).is_some() {
            self.crowded.insert(hash);
        } else {
            self.insert(slab, slot);
        }
    }

    /// Whether sessions with this key were left out.
    pub(crate) fn is_crowded(&self, key: &K::Of<'_>) -> bool {
        !self.crowded.is_empty() && self.crowded.contains(&self.hasher.hash_one(key))
    }

    /// Takes in what was left out, where no more than `max` sessions have the key now.
    pub(crate) fn thin_out(&mut self, max: usize, slab: &Slab) {
        let crowded = std::mem::take(&mut self.crowded);
        if crowded.is_empty() {
            return;
        }
        let mut slots_of: HashMap<u64, Vec<u32>> =
            crowded.into_iter().map(|hash| (hash, Vec::new())).collect();
        for (slot, session) in slab.iter() {
            let hash = K::of(session).map(|key| self.hasher.hash_one(&key));
            let slots = hash.and_then(|hash| slots_of.get_mut(&hash));
            if let Some(slots) = slots.filter(|slots| slots.len() <= max) {
                slots.push(slot);
            }
        }
        for (hash, slots) in slots_of {
            if slots.len() > max {
                self.crowded.insert(hash);
                continue;
            }
            for slot in slots {
                self.remove(slab, slot);
                self.insert(slab, slot);
            }
        }
    }

    /// Forgets a session, which still has the key that it was found by.
    pub(crate) fn remove(&mut self, slab: &Slab, slot: u32) {
        let Some(key) = slab.find(slot).and_then(K::of) else { return };
        let hash = self.hasher.hash_one(&key);
        if let Ok(entry) = self.pieces[piece_of(hash)].find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }
}

fn piece_of(hash: u64) -> usize {
    (hash >> 32) as usize % PIECES
}
