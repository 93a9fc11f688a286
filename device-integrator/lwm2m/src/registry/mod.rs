//! All registrations of a gateway, shared by the servers of all sockets, because a device may come
//! back on another one: with a new port, with a new DTLS session.

mod entry;
mod revision;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use vocabulary::{Iccid, Timestamp};

pub(crate) use entry::{Entry, Flight, Queued, Target, Turn, Watched};
pub(crate) use revision::{Claim, Revision};

use crate::contact::{Contact, Device, Link, Moment, Security};
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

/// Why an operation ended that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The owner removed its device.
    Removed,
    /// It waited for too long.
    Overdue,
}

/// Why a registration is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotInstalled {
    /// There are as many registrations as allowed.
    Full,
    /// The device has a registration that was made with a key, and this one was made without.
    Bound,
    /// The device asked for another one after this one.
    Overtaken,
}

/// What a new registration led to.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// The one before was protected otherwise.
    pub(crate) rebound: bool,
    /// Operations that waited for the one before and must not reach the new one.
    pub(crate) ended: Vec<u64>,
    /// Another state was given out meanwhile, and may be written after this one's.
    pub(crate) overtaken: bool,
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

    /// Removes registrations that have expired, at most so many; the owner notes that their state
    /// is to be deleted before it calls this again, and before what servers give out later.
    /// Operations that waited for them end with the next call of any server.
    pub fn expired(&self, at: Timestamp, max: usize) -> Vec<Iccid> {
        let mut expired = Vec::new();
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            shard.expired.clear();
            while expired.len() < max {
                let due = shard.expiries.first().filter(|(due, _)| *due <= at).copied();
                let Some((_, iccid)) = due else { break };
                if let Some(entry) = self.take_out(&mut shard, iccid) {
                    let commands = entry.commands().map(|queued| queued.command);
                    self.end(iccid, commands, Ending::Removed);
                }
                shard.expired.insert(iccid);
                shard.deletions += 1;
                expired.push(iccid);
            }
        }
        expired
    }

    /// Removes the registration of a device that is none of the owner's any more; the owner deletes
    /// its state. Operations that waited end with the next call of any server.
    pub fn forget(&self, iccid: Iccid) {
        let mut shard = self.shard(iccid);
        if let Some(entry) = self.take_out(&mut shard, iccid) {
            let commands = entry.commands().map(|queued| queued.command);
            self.end(iccid, commands, Ending::Removed);
        }
        shard.expired.insert(iccid);
        shard.deletions += 1;
    }

    /// Ends operations that have waited for too long, at most so many; says how many it were. The
    /// next call of any server reports them. The owner calls this every second or so: nothing else
    /// looks at what waits for a device that is not heard.
    pub fn overdue(&self, at: Timestamp, max: usize) -> usize {
        let mut ended = 0;
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            while ended < max {
                let due = shard.queues.first().copied();
                let Some((_, iccid)) = due.filter(|(queued_at, _)| self.is_overdue(*queued_at, at))
                else {
                    break;
                };
                let command = self.with_in(&mut shard, iccid, Entry::pop_command).flatten();
                self.end(iccid, command.iter().map(|queued| queued.command), Ending::Overdue);
                ended += 1;
            }
        }
        ended
    }

    /// Takes back an operation that waits; no event follows. `false` if it does not wait: it is
    /// under way, has ended, or never was.
    pub fn withdraw(&self, iccid: Iccid, command: u64) -> bool {
        self.with(iccid, |entry| entry.withdraw(command)).unwrap_or(false)
    }

    fn is_overdue(&self, queued_at: Timestamp, at: Timestamp) -> bool {
        at.saturating_since(queued_at) > self.shared.limits.queued_for
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

    /// Begins to make a registration durable.
    pub(crate) fn claim(&self, iccid: Iccid) -> Claim {
        let shard = self.shard(iccid);
        Claim {
            number: self.number(),
            replaces: shard.entries.get(&iccid).map(|entry| entry.revision),
            deletions: shard.deletions,
            is_expired: shard.expired.contains(&iccid),
        }
    }

    /// Puts a registration in the place of the one before, whose observations end; what waits for
    /// the device goes on waiting, unless it would leave with another protection.
    pub(crate) fn install(
        &self,
        iccid: Iccid,
        (registration, claim): (Registration, Claim),
        moment: Moment,
    ) -> Result<Installed, NotInstalled> {
        let mut shard = self.shard(iccid);
        let has_key = registration.security != Security::NoSec;
        let before = shard.entries.get(&iccid);
        match before {
            Some(before) if !has_key && before.is_bound(moment.at) => {
                return Err(NotInstalled::Bound);
            }
            // Unless the newer one was made without the key that this one was made with.
            Some(before)
                if before.revision.number > claim.number
                    && (!has_key || before.is_bound(moment.at)) =>
            {
                return Err(NotInstalled::Overtaken);
            }
            None if self.len() >= self.shared.limits.registrations_max => {
                return Err(NotInstalled::Full);
            }
            _ => {}
        }
        let overtaken = claim.is_expired
            || claim.replaces != before.map(|before| before.revision)
            || (before.is_none() && claim.deletions != shard.deletions);
        let mut entry = Entry::new(registration);
        entry.heard = Some(moment.now);
        entry.revision.number = claim.number;
        let mut installed = Installed { overtaken, ..Installed::default() };
        if let Some(before) = self.take_out(&mut shard, iccid) {
            installed.rebound = before.registration.security != entry.registration.security;
            if installed.rebound {
                installed.ended = before.commands().map(|queued| queued.command).collect();
            }
            entry.inherit(*before);
        }
        self.put_in(&mut shard, iccid, entry);
        Ok(installed)
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

    /// Operations that ended here.
    pub(crate) fn take_ended(&self) -> Vec<(Iccid, u64, Ending)> {
        if !self.shared.has_ended.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.shared.ended))
    }

    /// Gives operations to the next server that is called.
    fn end(&self, iccid: Iccid, commands: impl Iterator<Item = u64>, ending: Ending) {
        let mut ended = lock(&self.shared.ended);
        ended.extend(commands.map(|command| (iccid, command, ending)));
        if !ended.is_empty() {
            self.shared.has_ended.store(true, Ordering::Release);
        }
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
mod tests {
    //! The registry against a simple map: random registrations, updates, moves, observations,
    //! operations, expiries and restarts.

    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::contact::Link;
    use crate::operation::Operation;
    use crate::path::Path;
    use crate::registration::{Binding, Links, Observation, Version};

    #[derive(Debug, Clone)]
    enum Step {
        Register { device: u64, lasts_seconds: u64 },
        Update { device: u64, lasts_seconds: u64 },
        Hear { device: u64, port: u16, security: bool },
        Observe { device: u64, token: u64 },
        Unobserve { device: u64, token: u64 },
        Enqueue { device: u64 },
        Take { device: u64 },
        Remove { device: u64 },
        Pass { seconds: u64 },
        Restart,
    }

    /// What the simple map knows of a device.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    struct Known {
        serial: u8,
        expires_at: Timestamp,
        port: u16,
        tokens: Vec<u64>,
        commands: Vec<u64>,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let device = 0..4_u64;
        let step = prop_oneof![
            (device.clone(), 1..500_u64)
                .prop_map(|(device, lasts_seconds)| Step::Register { device, lasts_seconds }),
            (device.clone(), 1..500_u64)
                .prop_map(|(device, lasts_seconds)| Step::Update { device, lasts_seconds }),
            (device.clone(), 0..4_u16, any::<bool>())
                .prop_map(|(device, port, security)| Step::Hear { device, port, security }),
            (device.clone(), 0..4_u64).prop_map(|(device, token)| Step::Observe { device, token }),
            (device.clone(), 0..4_u64)
                .prop_map(|(device, token)| Step::Unobserve { device, token }),
            device.clone().prop_map(|device| Step::Enqueue { device }),
            device.clone().prop_map(|device| Step::Take { device }),
            device.prop_map(|device| Step::Remove { device }),
            (1..300_u64).prop_map(|seconds| Step::Pass { seconds }),
            Just(Step::Restart),
        ];
        proptest::collection::vec(step, 0..80)
    }

    fn iccid(device: u64) -> Iccid {
        Iccid::from_u64(device).unwrap()
    }

    fn contact(port: u16) -> Contact {
        Contact { seat: 0, link: Link::Address(([192, 0, 2, 1], port).into()) }
    }

    fn registration(serial: u8, expires_at: Timestamp) -> Registration {
        Registration {
            id: RegistrationId([serial; 16]),
            version: Version::V1_1,
            binding: Binding::default(),
            lifetime_seconds: 60,
            sms: None,
            security: Security::NoSec,
            links: Links::default(),
            registered_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            expires_at,
            contact: Some(contact(0)),
            observations: Vec::new(),
        }
    }

    struct World {
        registry: Registry,
        known: BTreeMap<u64, Known>,
        moment: Moment,
        serial: u8,
        command: u64,
        ended: Vec<u64>,
    }

    impl World {
        fn new() -> Self {
            let limits = RegistryLimits { registrations_max: 3, ..RegistryLimits::default() };
            let moment = Moment { now: Instant::now(), at: Timestamp::EPOCH };
            Self {
                registry: Registry::new(limits),
                known: BTreeMap::new(),
                moment,
                serial: 0,
                command: 0,
                ended: Vec::new(),
            }
        }

        fn lasts(&self, device: u64) -> bool {
            self.known.get(&device).is_some_and(|known| known.expires_at > self.moment.at)
        }

        fn act(&mut self, step: &Step) {
            match *step {
                Step::Register { device, lasts_seconds } => self.register(device, lasts_seconds),
                Step::Update { device, lasts_seconds } => {
                    let expires_at =
                        self.moment.at.saturating_add(Duration::from_secs(lasts_seconds));
                    let me = Device { iccid: iccid(device), security: Security::NoSec };
                    let updated = self.registry.with_own(me, self.moment.at, |entry| {
                        entry.registration.expires_at = expires_at;
                    });
                    assert_eq!(updated.is_some(), self.lasts(device));
                    if updated.is_some() {
                        self.known.get_mut(&device).unwrap().expires_at = expires_at;
                    }
                }
                Step::Hear { device, port, security } => {
                    let security = if security { Security::NoSec } else { Security::ServerKey };
                    let me = Device { iccid: iccid(device), security };
                    let heard = self.registry.hear(me, contact(port), self.moment);
                    let own = security == Security::NoSec && self.lasts(device);
                    assert_eq!(heard.is_some(), own);
                    if let Some(heard) = heard {
                        let known = self.known.get_mut(&device).unwrap();
                        assert_eq!(heard.moved.is_some(), known.port != port);
                        assert_eq!(heard.has_work, !known.commands.is_empty());
                        known.port = port;
                    }
                }
                Step::Observe { device, token } => {
                    let paths = [Path::object(3)].into();
                    let observation = Observation { token, paths, composite: false, format: None };
                    self.registry.with(iccid(device), |entry| {
                        entry.unwatch(token);
                        let newest = None;
                        entry.watched.push(Watched { observation, newest, confirmed: true });
                    });
                    if let Some(known) = self.known.get_mut(&device) {
                        known.tokens.retain(|other| *other != token);
                        known.tokens.push(token);
                    }
                }
                Step::Unobserve { device, token } => {
                    let was = self.registry.with(iccid(device), |entry| entry.unwatch(token));
                    let known = self.known.get_mut(&device);
                    let before = known.as_ref().map_or(0, |known| known.tokens.len());
                    let after = known.map_or(0, |known| {
                        known.tokens.retain(|other| *other != token);
                        known.tokens.len()
                    });
                    assert_eq!(was.unwrap_or(false), before != after);
                }
                _ => self.act_otherwise(step),
            }
        }

        fn act_otherwise(&mut self, step: &Step) {
            match *step {
                Step::Enqueue { device } => {
                    self.command += 1;
                    let operation = Operation::Delete { path: Path::instance(1, 1) };
                    let command = self.command;
                    let queued = Queued { command, operation, queued_at: self.moment.at };
                    let limits = self.registry.limits().clone();
                    self.registry
                        .with(iccid(device), |entry| entry.enqueue(queued, &limits).unwrap());
                    if let Some(known) = self.known.get_mut(&device) {
                        known.commands.push(command);
                    }
                }
                Step::Take { device } => {
                    let flight = Flight { seat: 0, serial: 1 };
                    let spans = (Duration::ZERO, Duration::MAX);
                    let turn = self.registry.with(iccid(device), |entry| {
                        entry.flight = None;
                        entry.take_turn(flight, self.moment, spans)
                    });
                    let taken = match turn {
                        Some(Turn::Command(queued, _)) => Some(queued.command),
                        Some(Turn::Nobody) | None => None,
                        other => panic!("{other:?}"),
                    };
                    let known = self.known.get_mut(&device);
                    let expected = known
                        .filter(|known| !known.commands.is_empty())
                        .map(|known| known.commands.remove(0));
                    assert_eq!(taken, expected);
                }
                Step::Remove { device } => {
                    let serial = self.known.get(&device).map_or(0, |known| known.serial);
                    assert!(
                        self.registry.remove(iccid(device), RegistrationId([255; 16])).is_none()
                    );
                    let removed = self.registry.remove(iccid(device), RegistrationId([serial; 16]));
                    assert_eq!(removed.is_some(), self.known.remove(&device).is_some());
                }
                Step::Pass { seconds } => self.pass(seconds),
                _ => self.restart(),
            }
        }

        fn register(&mut self, device: u64, lasts_seconds: u64) {
            self.serial = self.serial.wrapping_add(1) % 250;
            let expires_at = self.moment.at.saturating_add(Duration::from_secs(lasts_seconds));
            let registration = registration(self.serial, expires_at);
            let claim = self.registry.claim(iccid(device));
            let installed =
                self.registry.install(iccid(device), (registration, claim), self.moment);
            let fits = self.known.len() < 3 || self.known.contains_key(&device);
            assert_eq!(installed.is_ok(), fits);
            if fits {
                let before = self.known.remove(&device).unwrap_or_default();
                let commands = before.commands;
                let (serial, port, tokens) = (self.serial, 0, Vec::new());
                let known = Known { serial, expires_at, port, tokens, commands };
                self.known.insert(device, known);
            }
        }

        fn pass(&mut self, seconds: u64) {
            let span = Duration::from_secs(seconds);
            self.moment.now += span;
            self.moment.at = self.moment.at.saturating_add(span);
            let mut expired = self.registry.expired(self.moment.at, 100);
            expired.sort();
            let mut expected = Vec::new();
            let (at, ended) = (self.moment.at, &mut self.ended);
            self.known.retain(|device, known| {
                if known.expires_at <= at {
                    expected.push(iccid(*device));
                    ended.extend(&known.commands);
                }
                known.expires_at > at
            });
            assert_eq!(expired, expected);
            let ended: Vec<u64> =
                self.registry.take_ended().into_iter().map(|(_, command, _)| command).collect();
            self.ended.sort_unstable();
            let mut sorted = ended;
            sorted.sort_unstable();
            assert_eq!(sorted, std::mem::take(&mut self.ended));
        }

        /// All is written and read into a fresh registry; operations are lost with the process.
        fn restart(&mut self) {
            let fresh = Registry::new(self.registry.limits().clone());
            for (device, known) in &mut self.known {
                let state = self.registry.with(iccid(*device), Entry::save).unwrap();
                assert_eq!(Registry::saved_link(&state), Ok(Some(contact(known.port).link)));
                let place = Some(contact(known.port));
                fresh.restore(iccid(*device), &state, place).unwrap();
                known.commands.clear();
            }
            self.registry = fresh;
        }

        fn compare(&self) {
            assert_eq!(self.registry.len(), self.known.len());
            let observations: usize = self.known.values().map(|known| known.tokens.len()).sum();
            assert_eq!(self.registry.observations(), observations);
            let queues: usize =
                self.registry.shared.shards.iter().map(|shard| lock(shard).queues.len()).sum();
            let waiting = self.known.values().filter(|known| !known.commands.is_empty());
            assert_eq!(queues, waiting.count());
            for device in 0..4 {
                let Some(known) = self.known.get(&device) else {
                    assert!(!self.registry.is_registered(iccid(device)));
                    continue;
                };
                let snapshot = self.registry.snapshot(iccid(device)).unwrap();
                let tokens: Vec<u64> = snapshot.observations.iter().map(|o| o.token).collect();
                assert_eq!(tokens, known.tokens);
                assert_eq!(snapshot.id, RegistrationId([known.serial; 16]));
                assert_eq!(snapshot.expires_at, known.expires_at);
                assert_eq!(self.registry.contact(iccid(device)), Some(contact(known.port)));
            }
        }
    }

    proptest! {
        #[test]
        fn the_registry_is_a_map(steps in steps()) {
            let mut world = World::new();
            for step in &steps {
                world.act(step);
                world.compare();
            }
        }
    }
}
