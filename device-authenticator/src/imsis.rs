//! From a subscriber to its SIM, for feeds that name no card.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock};

use hashbrown::{DefaultHashBuilder, HashTable};
use vocabulary::{Iccid, Imsi};

/// Each SIM that has an IMSI, by that. An IMSI of two SIMs names neither of them.
#[derive(Default)]
pub(crate) struct Imsis {
    sims: RwLock<HashTable<(Imsi, Iccid)>>,
    hasher: DefaultHashBuilder,
}

impl Imsis {
    /// The only SIM with this IMSI.
    pub(crate) fn find(&self, imsi: Imsi) -> Option<Iccid> {
        let sims = self.sims.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = sims.iter_hash(self.hasher.hash_one(imsi)).filter(|sim| sim.0 == imsi);
        let first = found.next()?.1;
        found.next().is_none().then_some(first)
    }

    /// Takes SIMs as they were and as they will be.
    pub(crate) fn apply(&self, changes: impl Iterator<Item = [Option<(Imsi, Iccid)>; 2]>) {
        let mut sims = self.sims.write().unwrap_or_else(PoisonError::into_inner);
        for [before, after] in changes.filter(|[before, after]| before != after) {
            if let Some(sim) = before
                && let Ok(entry) = sims.find_entry(self.hasher.hash_one(sim.0), |one| *one == sim)
            {
                entry.remove();
            }
            if let Some(sim) = after {
                let hash = |one: &(Imsi, Iccid)| self.hasher.hash_one(one.0);
                sims.insert_unique(hash(&sim), sim, hash);
            }
        }
    }
}
