//! All registrations of a gateway, shared by the servers of all sockets, because a device may come
//! back on another one: with a new port, with a new DTLS session.

mod endings;
mod entry;
mod installing;
mod revision;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use vocabulary::{Iccid, Timestamp};

pub(crate) use endings::Ending;
pub(crate) use entry::{Entry, Flight, Queued, Target, Turn, Watched};
pub(crate) use installing::NotInstalled;
pub(crate) use revision::{Claim, Revision};

use crate::contact::{Contact, Device, Link, Moment};
use crate::registration::{self, Registration, RegistrationId, StateError};

/// Locks that share the work: far more than there are sockets.
const SHARDS: usize = 64;

/// Limits on what devices and operators can grow.
#[derive(Debug, Clone)]
pub struct RegistryLimits {
    /// Registrations. Default 1,000,000.
    pub registrations_max: usize,
    /// Observations of one device. Default 64.
    pub observations_per_device_max: usize,
    /// Operations that wait for one device. Default 20: ten that were scheduled, and ten more.
    pub queue_per_device_max: usize,
    /// How long an operation waits for a device that sleeps. Default 24 hours.
    pub queued_for: Duration,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            registrations_max: 1_000_000,
            observations_per_device_max: 64,
            queue_per_device_max: 20,
            queued_for: Duration::from_hours(24),
        }
    }
}

/// All registrations of a gateway; clones share them.
///
/// Each takes about 500 bytes here, with one observation (measured: `tests/memory.rs`).
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: RegistryLimits,
    shards: Box<[Mutex<Shard>]>,
    registrations: AtomicUsize,
    observations: AtomicUsize,
    /// Registrations numbered so far.
    numbered: AtomicU64,
    /// Operations that ended here, for the next server that is called.
    ended: Mutex<Vec<(Iccid, u64, Ending)>>,
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Iccid, Box<Entry>>,
    expiries: BTreeSet<(Timestamp, Iccid)>,
    /// When the operation was queued that is next of its device.
    queues: BTreeSet<(Timestamp, Iccid)>,
    /// What the last call of [`Registry::expired`] removed.
    expired: HashSet<Iccid>,
    /// How often a state was given out to be deleted.
    deletions: u64,
}

/// What a datagram of a registered device led to.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// It came from another place than before: what is to be saved.
    pub(crate) moved: Option<Vec<u8>>,
    /// It is another host now: what was asked of the one before will not be answered.
    pub(crate) left: bool,
    /// Something waits for the device.
    pub(crate) has_work: bool,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: RegistryLimits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shared: Arc::new(Shared {
                limits,
                shards,
                registrations: AtomicUsize::new(0),
                observations: AtomicUsize::new(0),
                numbered: AtomicU64::new(0),
                ended: Mutex::default(),
                has_ended: AtomicBool::new(false),
            }),
        }
    }

    /// Takes what [`crate::Event::Save`] gave before a restart. One that has expired meanwhile is
    /// dropped by the next [`Registry::expired`], which names it, so that its state is deleted.
    /// `contact` says where the device is; without it the device is reached once it was heard.
    ///
    /// # Errors
    /// The bytes are no registration.
    pub fn restore(
        &self,
        iccid: Iccid,
        state: &[u8],
        contact: Option<Contact>,
    ) -> Result<(), StateError> {
        let restored = registration::decode(state)?;
        let mut registration = restored.registration;
        let observations = std::mem::take(&mut registration.observations);
        registration.contact = contact;
        let mut entry = Entry::new(registration);
        let confirmed = |observation| Watched { observation, newest: None, confirmed: true };
        entry.watched = observations.into_iter().map(confirmed).collect();
        entry.revision.number = self.number();
        let mut shard = self.shard(iccid);
        self.take_out(&mut shard, iccid);
        self.put_in(&mut shard, iccid, entry);
        Ok(())
    }

    /// Where a device was heard last, out of its saved state: with the seat of the socket that
    /// has this place now it is the contact for [`Registry::restore`].
    ///
    /// # Errors
    /// The bytes are no registration.
    pub fn saved_link(state: &[u8]) -> Result<Option<Link>, StateError> {
        registration::decode(state).map(|restored| restored.link)
    }

    /// Whether the device has a registration.
    pub fn is_registered(&self, iccid: Iccid) -> bool {
        self.shard(iccid).entries.contains_key(&iccid)
    }

    /// Where the device was heard last.
    pub fn contact(&self, iccid: Iccid) -> Option<Contact> {
        self.shard(iccid).entries.get(&iccid)?.registration.contact
    }

    /// A copy of the device's registration.
    pub fn snapshot(&self, iccid: Iccid) -> Option<Registration> {
        let shard = self.shard(iccid);
        let entry = shard.entries.get(&iccid)?;
        let mut registration = entry.registration.clone();
        registration.observations = entry.confirmed().cloned().collect();
        Some(registration)
    }

    /// Registrations.
    pub fn len(&self) -> usize {
        self.shared.registrations.load(Ordering::Relaxed)
    }

    /// Whether there is no registration.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Observations of all devices.
    pub fn observations(&self) -> usize {
        self.shared.observations.load(Ordering::Relaxed)
    }

    /// Limits.
    pub(crate) fn limits(&self) -> &RegistryLimits {
        &self.shared.limits
    }

    /// Looks at an entry or changes it; the order of expiry and the counts follow.
    pub(crate) fn with<R>(&self, iccid: Iccid, act: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.with_in(&mut self.shard(iccid), iccid, act)
    }

    fn with_in<R>(
        &self,
        shard: &mut Shard,
        iccid: Iccid,
        act: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let Shard { entries, expiries, queues, .. } = shard;
        let entry = entries.get_mut(&iccid)?;
        let due = |entry: &Entry| (entry.registration.expires_at, entry.queued_at());
        let (before, watched) = (due(entry), entry.watched.len());
        let result = act(entry);
        let after = due(entry);
        if before.0 != after.0 {
            expiries.remove(&(before.0, iccid));
            expiries.insert((after.0, iccid));
        }
        if before.1 != after.1 {
            before.1.map(|queued_at| queues.remove(&(queued_at, iccid)));
            after.1.map(|queued_at| queues.insert((queued_at, iccid)));
        }
        if watched != entry.watched.len() {
            self.count_observations(watched, entry.watched.len());
        }
        Some(result)
    }

    /// As [`Registry::with`], for the registration that this device may use now.
    pub(crate) fn with_own<R>(
        &self,
        device: Device,
        at: Timestamp,
        act: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        self.with(device.iccid, |entry| {
            let registration = &entry.registration;
            let own = registration.security == device.security && registration.expires_at > at;
            own.then(|| act(entry))
        })?
    }

    /// Notes that a device was heard: it is awake, and reached where it spoke from.
    pub(crate) fn hear(&self, device: Device, from: Contact, moment: Moment) -> Option<Heard> {
        self.with_own(device, moment.at, |entry| {
            entry.heard = Some(moment.now);
            let before = entry.registration.contact.replace(from);
            let moved = before != Some(from);
            let left = before.is_some_and(|before| !before.is_same_host(&from));
            if left {
                entry.flight = None;
            }
            Heard { moved: moved.then(|| entry.save()), left, has_work: entry.has_work() }
        })
    }

    /// Whether one more registration fits.
    pub(crate) fn has_room_for(&self, iccid: Iccid) -> bool {
        self.len() < self.shared.limits.registrations_max || self.is_registered(iccid)
    }

    /// Whether the device has a registration that was made with a key: its address alone must not
    /// replace that.
    pub(crate) fn is_bound(&self, iccid: Iccid, at: Timestamp) -> bool {
        self.shard(iccid).entries.get(&iccid).is_some_and(|entry| entry.is_bound(at))
    }

    /// Removes a registration if it is still this one; returns the operations that waited.
    pub(crate) fn remove(&self, iccid: Iccid, id: RegistrationId) -> Option<Box<Entry>> {
        let mut shard = self.shard(iccid);
        shard.entries.get(&iccid).filter(|entry| entry.registration.id == id)?;
        shard.deletions += 1;
        self.take_out(&mut shard, iccid)
    }

    /// What is to be saved again of a device whose state of this revision was written late; of one
    /// that is gone, nothing: `Some(None)`.
    pub(crate) fn overtaken(&self, iccid: Iccid, revision: Revision) -> Option<Option<Vec<u8>>> {
        let mut shard = self.shard(iccid);
        let Some(entry) = shard.entries.get_mut(&iccid) else {
            shard.deletions += 1;
            return Some(None);
        };
        (entry.revision != revision).then(|| Some(entry.save()))
    }

    /// The state that a device shall have on the disk now; `None` if it has none.
    pub(crate) fn save(&self, iccid: Iccid) -> Option<Vec<u8>> {
        // No state has this revision.
        self.overtaken(iccid, Revision::default()).flatten()
    }

    fn shard(&self, iccid: Iccid) -> MutexGuard<'_, Shard> {
        // The high bits of a product with the golden ratio: SIMs are numbered in rows.
        let spread = iccid.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        lock(&self.shared.shards[spread as usize % SHARDS])
    }

    fn put_in(&self, shard: &mut Shard, iccid: Iccid, entry: Entry) {
        self.shared.registrations.fetch_add(1, Ordering::Relaxed);
        self.count_observations(0, entry.watched.len());
        shard.expiries.insert((entry.registration.expires_at, iccid));
        entry.queued_at().map(|queued_at| shard.queues.insert((queued_at, iccid)));
        shard.entries.insert(iccid, Box::new(entry));
    }

    fn take_out(&self, shard: &mut Shard, iccid: Iccid) -> Option<Box<Entry>> {
        let entry = shard.entries.remove(&iccid)?;
        shard.expiries.remove(&(entry.registration.expires_at, iccid));
        entry.queued_at().map(|queued_at| shard.queues.remove(&(queued_at, iccid)));
        self.shared.registrations.fetch_sub(1, Ordering::Relaxed);
        self.count_observations(entry.watched.len(), 0);
        Some(entry)
    }

    fn number(&self) -> u64 {
        self.shared.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn count_observations(&self, before: usize, after: usize) {
        self.shared.observations.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// A thread that panicked left an entry as it was between two statements, which is no worse than
/// a lost datagram.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
