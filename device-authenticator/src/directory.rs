//! The SIMs in memory: by source address and by ICCID.
//!
//! A look-up reads one published piece of a table and waits for nobody. A change becomes visible
//! in three steps: addresses that SIMs leave disappear, then the SIMs change, then the new
//! addresses appear. So at no moment is a SIM found under two addresses, and an address that
//! changes hands is unknown for an instant and never attributed to the wrong SIM.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use vocabulary::{Iccid, Identity, Imsi};

use crate::entry::{AddressKey, Entry};
use crate::imsis::Imsis;
use crate::shards::{ByAddress, ByIccid, Edit, Shards};

/// Changes that are planned and published together. It bounds the plan's memory to some 50 MB,
/// which only loading a large fleet takes; with fewer, loading rebuilds each piece more often.
const CHANGES_PER_PLAN: usize = 262_144;

/// What the SIM registry says about one SIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryChange {
    /// The SIM exists, with exactly these properties.
    Set {
        /// The SIM.
        iccid: Iccid,
        /// Its subscriber number, where known.
        imsi: Option<Imsi>,
        /// The source address that is its identity. `None`, and the unspecified address of IPv6,
        /// mean that it has none.
        ip: Option<IpAddr>,
        /// Whether it may speak.
        active: bool,
    },
    /// The SIM does not exist.
    Remove {
        /// The SIM.
        iccid: Iccid,
    },
}

/// A SIM that a look-up found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The SIM, with the address that it is known under.
    pub identity: Identity,
    /// Whether it may speak.
    pub active: bool,
}

/// An address that went from one SIM to another although nobody took it from the first: the
/// registry's owner should be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// The address.
    pub ip: IpAddr,
    /// The SIM that lost it and has no address now.
    pub from: Iccid,
    /// The SIM that has it now.
    pub to: Iccid,
}

/// What [`SimDirectory::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Conflicts, at most one per SIM of the batch that lost its address.
    pub takeovers: Vec<Takeover>,
}

/// All SIMs. Share it in an `Arc`; look-ups run on any thread and never wait.
pub struct SimDirectory {
    by_address: Shards<ByAddress>,
    by_iccid: Shards<ByIccid>,
    by_imsi: Imsis,
    /// Changes, one batch at a time.
    writer: Mutex<()>,
    sims: AtomicUsize,
}

impl Default for SimDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDirectory {
    /// A directory without SIMs.
    pub fn new() -> Self {
        Self {
            by_address: Shards::new(),
            by_iccid: Shards::new(),
            by_imsi: Imsis::default(),
            writer: Mutex::new(()),
            sims: AtomicUsize::new(0),
        }
    }

    /// The SIM with this source address. An IPv4 address and its mapped IPv6 form are the same.
    pub fn find(&self, ip: IpAddr) -> Option<Found> {
        match AddressKey::new(ip) {
            AddressKey::NONE => None,
            key => self.by_address.find(key.bits()).map(found),
        }
    }

    /// The SIM with this number.
    pub fn find_iccid(&self, iccid: Iccid) -> Option<Found> {
        self.entry(iccid).map(found)
    }

    /// The only SIM of this subscriber: an IMSI of two SIMs names neither. Waits while changes are
    /// published.
    pub fn find_imsi(&self, imsi: Imsi) -> Option<Found> {
        self.find_iccid(self.by_imsi.find(imsi)?)
    }

    /// How many SIMs there are.
    pub fn len(&self) -> usize {
        self.sims.load(Ordering::Relaxed)
    }

    /// Whether there is no SIM.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies changes in their order; when it returns, every reader sees them. Waits for another
    /// writer. Larger batches cost less per change.
    pub fn apply(&self, changes: &[DirectoryChange]) -> Applied {
        // The mutex guards no data, so a writer that panicked leaves nothing half-changed in it.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut applied = Applied::default();
        for some in changes.chunks(CHANGES_PER_PLAN) {
            let mut plan = Plan::new(self);
            for change in some {
                plan.add(change);
            }
            applied.takeovers.extend(plan.publish());
        }
        applied
    }

    fn entry(&self, iccid: Iccid) -> Option<Entry> {
        self.by_iccid.find(u128::from(iccid.as_u64()))
    }
}

fn found(entry: Entry) -> Found {
    Found { identity: entry.identity(), active: entry.active() }
}

/// A batch of changes on its way: what will be, laid over what is.
struct Plan<'a> {
    directory: &'a SimDirectory,
    /// Each touched SIM as it will be; `None` when it will be gone.
    sims: HashMap<Iccid, Option<Entry>>,
    /// Each touched address and who will have it.
    owners: HashMap<AddressKey, Option<Iccid>>,
    /// By the SIM that lost its address.
    takeovers: HashMap<Iccid, Takeover>,
}

impl<'a> Plan<'a> {
    fn new(directory: &'a SimDirectory) -> Self {
        Self { directory, sims: HashMap::new(), owners: HashMap::new(), takeovers: HashMap::new() }
    }

    fn add(&mut self, change: &DirectoryChange) {
        let (iccid, entry) = match *change {
            DirectoryChange::Set { iccid, imsi, ip, active } => {
                (iccid, Some(Entry::new(Identity { iccid, imsi, ip }, active)))
            }
            DirectoryChange::Remove { iccid } => (iccid, None),
        };
        if let Some(before) = self.sim(iccid) {
            self.owners.insert(before.address, None);
        }
        if let Some(address) = entry.map(|entry| entry.address)
            && let Some(ip) = address.address()
        {
            if let Some(from) = self.owner(address).filter(|owner| *owner != iccid) {
                let loser = self.sim(from).map(Entry::without_address);
                self.sims.insert(from, loser);
                self.takeovers.insert(from, Takeover { ip, from, to: iccid });
            }
            self.owners.insert(address, Some(iccid));
        }
        self.sims.insert(iccid, entry);
        // A SIM that lost its address earlier in the batch and is set again was only moved.
        self.takeovers.remove(&iccid);
    }

    fn sim(&self, iccid: Iccid) -> Option<Entry> {
        match self.sims.get(&iccid) {
            Some(planned) => *planned,
            None => self.directory.entry(iccid),
        }
    }

    fn owner(&self, address: AddressKey) -> Option<Iccid> {
        match self.owners.get(&address) {
            Some(planned) => *planned,
            None => self.directory.by_address.find(address.bits()).map(|entry| entry.iccid),
        }
    }

    fn publish(self) -> impl Iterator<Item = Takeover> {
        let Self { directory, sims, takeovers, .. } = self;
        let left = |(iccid, after): (&Iccid, &Option<Entry>)| {
            let before = directory.entry(*iccid)?.address;
            let stays = after.is_some_and(|after| after.address == before);
            (before != AddressKey::NONE && !stays).then(|| Edit::Remove(before.bits()))
        };
        directory.by_address.apply(sims.iter().filter_map(left));
        directory.count(&sims);
        directory.by_imsi.apply(sims.iter().map(|(iccid, after)| {
            let subscriber = |entry: &Entry| Some((entry.identity().imsi?, *iccid));
            [directory.entry(*iccid).as_ref(), after.as_ref()]
                .map(|entry| entry.and_then(subscriber))
        }));
        directory.by_iccid.apply(sims.iter().map(|(iccid, after)| match after {
            Some(entry) => Edit::Put(*entry),
            None => Edit::Remove(u128::from(iccid.as_u64())),
        }));
        let with_address = sims
            .values()
            .flatten()
            .filter(|entry| entry.address != AddressKey::NONE)
            .map(|entry| Edit::Put(*entry));
        directory.by_address.apply(with_address);
        takeovers.into_values()
    }
}

impl SimDirectory {
    /// Counts what `sims` will add and take away; called before they are published.
    fn count(&self, sims: &HashMap<Iccid, Option<Entry>>) {
        let existed = sims.keys().filter(|iccid| self.entry(**iccid).is_some()).count();
        let exist = sims.values().flatten().count();
        self.sims.store(self.len() + exist - existed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iccid(number: u64) -> Iccid {
        Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn set(number: u64, ip: Option<IpAddr>) -> DirectoryChange {
        DirectoryChange::Set { iccid: iccid(number), imsi: None, ip, active: true }
    }

    #[test]
    fn a_sim_that_moves_is_found_under_its_new_address_only() {
        let directory = SimDirectory::new();
        directory.apply(&[set(1, Some(ip(1)))]);
        assert_eq!(directory.apply(&[set(1, Some(ip(2)))]), Applied::default());
        assert_eq!(directory.find(ip(1)), None);
        assert_eq!(directory.find(ip(2)).unwrap().identity.iccid, iccid(1));
        assert_eq!(directory.find_iccid(iccid(1)).unwrap().identity.ip, Some(ip(2)));
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn an_address_belongs_to_the_newest_and_the_conflict_is_reported() {
        let directory = SimDirectory::new();
        directory.apply(&[set(1, Some(ip(1)))]);
        let applied = directory.apply(&[set(2, Some(ip(1)))]);
        let takeover = Takeover { ip: ip(1), from: iccid(1), to: iccid(2) };
        assert_eq!(applied.takeovers, [takeover]);
        assert_eq!(directory.find(ip(1)).unwrap().identity.iccid, iccid(2));
        assert_eq!(directory.find_iccid(iccid(1)).unwrap().identity.ip, None);
        // The loser's next change must not take the address from its new owner.
        directory.apply(&[DirectoryChange::Remove { iccid: iccid(1) }]);
        assert_eq!(directory.find(ip(1)).unwrap().identity.iccid, iccid(2));
    }

    #[test]
    fn two_sims_that_swap_addresses_in_one_batch_are_no_conflict() {
        let directory = SimDirectory::new();
        directory.apply(&[set(1, Some(ip(1))), set(2, Some(ip(2)))]);
        let applied = directory.apply(&[set(1, Some(ip(2))), set(2, Some(ip(1)))]);
        assert_eq!(applied, Applied::default());
        assert_eq!(directory.find(ip(1)).unwrap().identity.iccid, iccid(2));
        assert_eq!(directory.find(ip(2)).unwrap().identity.iccid, iccid(1));
    }

    #[test]
    fn sims_without_address_do_not_take_it_from_each_other() {
        let directory = SimDirectory::new();
        let unspecified = Some("::".parse().unwrap());
        let applied = directory.apply(&[set(1, None), set(2, unspecified), set(3, unspecified)]);
        assert_eq!(applied, Applied::default());
        assert_eq!(directory.find("::".parse().unwrap()), None);
        assert_eq!(directory.len(), 3);
    }

    #[test]
    fn an_imsi_names_the_only_sim_that_has_it() {
        let directory = SimDirectory::new();
        let imsi: Imsi = "901405100002864".parse().unwrap();
        let set = |number, imsi| DirectoryChange::Set {
            iccid: iccid(number),
            imsi,
            ip: None,
            active: true,
        };
        let found = || directory.find_imsi(imsi).map(|found| found.identity.iccid);
        directory.apply(&[set(1, Some(imsi)), set(3, None)]);
        assert_eq!(found(), Some(iccid(1)));
        directory.apply(&[set(2, Some(imsi)), set(1, Some(imsi))]);
        assert_eq!(found(), None);
        directory.apply(&[set(1, None)]);
        assert_eq!(found(), Some(iccid(2)));
        directory.apply(&[DirectoryChange::Remove { iccid: iccid(2) }]);
        assert_eq!(found(), None);
    }

    #[test]
    fn a_mapped_address_finds_the_sim() {
        let directory = SimDirectory::new();
        directory.apply(&[set(1, Some(ip(1)))]);
        let found = directory.find("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(found.identity.ip, Some(ip(1)));
    }
}
