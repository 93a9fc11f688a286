//! Everything that has not ended, in memory: who waits, who is in flight.
//!
//! Devices are spread over shards, each behind a lock of its own that is held for microseconds.
//! What has to be written is queued under that lock, so that the disk sees the changes of a
//! request in their order; senders are called after it was released.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use vocabulary::{Iccid, Timestamp};

use crate::action::Action;
use crate::device::{Device, Entry, Phase};
use crate::error::Refused;
use crate::presence::{Presence, spread};
use crate::queue::Queue;
use crate::request::{ActionResult, Mode, Outcome, Request, Status};
use crate::request_id::RequestId;
use crate::table::Change;

/// Requests of one mode that may wait for one device, as documented for those that wait for a
/// trigger.
pub(crate) const WAITING_MAX: usize = 10;
/// With a million devices in memory a shard holds 4,000.
const SHARDS: usize = 256;
/// The low bits of a serial number name its shard.
const SHARD_BITS: u32 = 8;

/// An action that a sender is to send now.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The request.
    pub request: RequestId,
    /// The number under which the sender reports: of this one attempt, in this process.
    pub serial: u64,
    /// Whom it is for.
    pub device: Iccid,
    /// What it is.
    pub action: Arc<Action>,
    /// The number of this attempt, from 1.
    pub attempt: u8,
}

/// All active requests.
pub(crate) struct Active {
    shards: Box<[Mutex<Shard>]>,
    presence: Presence,
    count: AtomicUsize,
    count_max: usize,
    serials: AtomicU64,
    places: AtomicU64,
}

#[derive(Default)]
struct Shard {
    devices: HashMap<Iccid, Device>,
    /// The device of each serial number that is in flight.
    in_flight: HashMap<u64, Iccid>,
}

/// Why a request cannot be ended before it is sent.
pub(crate) enum NotEnded {
    /// It is not active any more.
    Gone,
    /// It is in flight, or another end is being stored.
    Status(Status),
}

impl Active {
    /// Nothing yet; places follow `last_place`.
    pub(crate) fn new(last_place: u64, count_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            presence: Presence::new(),
            count: AtomicUsize::new(0),
            count_max,
            serials: AtomicU64::new(1),
            places: AtomicU64::new(last_place + 1),
        }
    }

    /// Requests that are active.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard_of(device: Iccid) -> usize {
        // Another byte than those of the presence.
        usize::from(spread(device).to_le_bytes()[4])
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // Nothing panics under the lock; a shard that did is as whole as its maps are.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request from the disk.
    pub(crate) fn load(&self, place: u64, request: &Request) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.push(request.device, Entry::new(place, request, Phase::Waiting));
    }

    /// Takes a new request that is about to be written, and says its place.
    pub(crate) fn reserve(&self, request: &Request) -> Result<u64, Refused> {
        let device = request.device;
        let mut shard = self.lock(Self::shard_of(device));
        let waiting = shard.devices.get(&device).map_or(0, |known| known.waiting(request.mode));
        if waiting >= WAITING_MAX {
            return Err(Refused::TooManyScheduled);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full { limit: self.count_max });
        }
        // Under the lock: places of one device rise in the order of its list.
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        self.push_into(&mut shard, device, Entry::new(place, request, Phase::Storing));
        Ok(place)
    }

    fn push(&self, device: Iccid, entry: Entry) {
        let mut shard = self.lock(Self::shard_of(device));
        self.push_into(&mut shard, device, entry);
    }

    fn push_into(&self, shard: &mut Shard, device: Iccid, entry: Entry) {
        let known = shard.devices.entry(device).or_insert_with(|| {
            self.presence.enter(device);
            Device::default()
        });
        known.push(entry);
    }

    /// Acts on a device that has requests, and hands over what is due then.
    fn act(
        &self,
        device: Iccid,
        now: Timestamp,
        act: impl FnOnce(&mut Device),
    ) -> Option<Dispatch> {
        let mut shard = self.lock(Self::shard_of(device));
        act(shard.devices.get_mut(&device)?);
        self.settle(&mut shard, device, now)
    }

    /// Marks what is due as in flight, and forgets a device without requests.
    fn settle(&self, shard: &mut Shard, device: Iccid, now: Timestamp) -> Option<Dispatch> {
        let known = shard.devices.get_mut(&device)?;
        if known.is_empty() {
            shard.devices.remove(&device);
            self.presence.leave(device);
            return None;
        }
        let serial = self.serial(device);
        let dispatch =
            known.start_next(serial, now).map(|entry| dispatch(device, serial, entry))?;
        shard.in_flight.insert(serial, device);
        Some(dispatch)
    }

    fn serial(&self, device: Iccid) -> u64 {
        let number = self.serials.fetch_add(1, Ordering::Relaxed);
        number << SHARD_BITS | Self::shard_of(device) as u64
    }

    /// A request is on the disk.
    pub(crate) fn confirm(&self, request: &Request, place: u64) -> Option<Dispatch> {
        self.act(request.device, request.created, |device| {
            if let Some(entry) = device.entry(place) {
                entry.phase = Phase::Waiting;
                entry.armed |= entry.mode == Mode::SendNow;
            }
        })
    }

    /// A request is not active any more: its end is on the disk, or it never came there.
    pub(crate) fn remove(&self, device: Iccid, place: u64, now: Timestamp) -> Option<Dispatch> {
        let mut shard = self.lock(Self::shard_of(device));
        let known = shard.devices.get_mut(&device)?;
        let serial = known.in_flight();
        let removed = known.remove(place)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(serial) = serial.filter(|_| removed.phase == Phase::InFlight) {
            shard.in_flight.remove(&serial);
        }
        self.settle(&mut shard, device, now)
    }

    /// The device has shown that it is awake.
    pub(crate) fn trigger(&self, device: Iccid, now: Timestamp) -> Option<Dispatch> {
        if !self.presence.may_have(device) {
            return None;
        }
        self.act(device, now, Device::arm_all)
    }

    /// The oldest request of the device, if it may ride on an answer.
    pub(crate) fn piggyback(&self, device: Iccid, now: Timestamp) -> Option<Dispatch> {
        if !self.presence.may_have(device) {
            return None;
        }
        let mut shard = self.lock(Self::shard_of(device));
        let serial = self.serial(device);
        let known = shard.devices.get_mut(&device)?;
        let started = known.start_piggyback(serial, now);
        let dispatch = started.map(|entry| dispatch(device, serial, entry))?;
        shard.in_flight.insert(serial, device);
        Some(dispatch)
    }

    /// A sender has ended an attempt. `None` where nothing is in flight under the number.
    pub(crate) fn report(
        &self,
        serial: u64,
        now: Timestamp,
        outcome: Outcome,
        queue: &Queue,
    ) -> Option<Option<Dispatch>> {
        // The low byte is the shard.
        let mut shard = self.lock(usize::from(serial.to_le_bytes()[0]));
        let device = shard.in_flight.remove(&serial)?;
        let entry = shard.devices.get_mut(&device)?.take_in_flight()?;
        entry.updated = now;
        if let Some(change) = conclude(entry, device, outcome) {
            queue.change(change);
        }
        Some(self.settle(&mut shard, device, now))
    }

    /// Ends a request that waits, as cancelled or as failed.
    pub(crate) fn end(
        &self,
        device: Iccid,
        place: u64,
        end: (Status, Option<ActionResult>),
        now: Timestamp,
    ) -> Result<Change, NotEnded> {
        let mut shard = self.lock(Self::shard_of(device));
        let entry = shard.devices.get_mut(&device).and_then(|known| known.entry(place));
        let entry = entry.ok_or(NotEnded::Gone)?;
        if entry.phase != Phase::Waiting {
            return Err(entry.status().map_or(NotEnded::Gone, NotEnded::Status));
        }
        entry.phase = Phase::Ending(Status::Scheduled);
        let (status, result) = end;
        Ok(Change { result: result.map(Box::new), ..change_of(entry, device, status, now) })
    }

    /// The end of a request could not be written: it waits again.
    pub(crate) fn keep(&self, device: Iccid, place: u64, now: Timestamp) -> Option<Dispatch> {
        self.act(device, now, |device| {
            let entry = device.entry(place);
            if let Some(entry) = entry.filter(|entry| matches!(entry.phase, Phase::Ending(_))) {
                entry.phase = Phase::Waiting;
            }
        })
    }

    /// Places of the requests of a device that wait.
    pub(crate) fn waiting_of(&self, device: Iccid) -> Vec<u64> {
        let shard = self.lock(Self::shard_of(device));
        let entries = shard.devices.get(&device).map_or(&[][..], Device::entries);
        let waiting = entries.iter().filter(|entry| entry.phase == Phase::Waiting);
        waiting.map(|entry| entry.place).collect()
    }

    /// A request as it is shown, while it is active.
    pub(crate) fn view(&self, device: Iccid, place: u64) -> Option<Request> {
        let mut shard = self.lock(Self::shard_of(device));
        shard.devices.get_mut(&device)?.entry(place)?.request(device)
    }

    /// Looks at every active request, or at those of one device.
    pub(crate) fn each(&self, device: Option<Iccid>, mut look: impl FnMut(Iccid, &Entry)) {
        if let Some(device) = device {
            let shard = self.lock(Self::shard_of(device));
            let entries = shard.devices.get(&device).map_or(&[][..], Device::entries);
            entries.iter().for_each(|entry| look(device, entry));
            return;
        }
        for index in 0..SHARDS {
            for (device, known) in &self.lock(index).devices {
                known.entries().iter().for_each(|entry| look(*device, entry));
            }
        }
    }

    /// Hands over what was to be sent at once before the program ended, a shard at a time.
    pub(crate) fn resume(&self, now: Timestamp, mut hand_over: impl FnMut(Dispatch)) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            let devices: Vec<Iccid> = shard.devices.keys().copied().collect();
            let mut due = Vec::new();
            for device in devices {
                if let Some(known) = shard.devices.get_mut(&device) {
                    known.arm_urgent();
                }
                due.extend(self.settle(&mut shard, device, now));
            }
            drop(shard);
            due.into_iter().for_each(&mut hand_over);
        }
    }
}

fn dispatch(device: Iccid, serial: u64, entry: &Entry) -> Dispatch {
    Dispatch {
        request: entry.id,
        serial,
        device,
        action: Arc::clone(&entry.action),
        attempt: entry.used,
    }
}

fn change_of(entry: &Entry, device: Iccid, status: Status, updated: Timestamp) -> Change {
    let (place, attempts_used) = (entry.place, entry.used);
    Change { place, device, updated, attempts_used, status, result: None }
}

/// What an outcome makes of an entry that was in flight, and what is to be written.
fn conclude(entry: &mut Entry, device: Iccid, outcome: Outcome) -> Option<Change> {
    entry.phase = Phase::Waiting;
    match &outcome {
        Outcome::Unreachable { .. } if entry.used < entry.attempts => {
            // Who wants it sent now wants it now; the others wait for the next trigger.
            entry.armed = entry.mode == Mode::SendNow;
            return Some(change_of(entry, device, Status::Scheduled, entry.updated));
        }
        Outcome::NotSent { .. } => {
            entry.used -= 1;
            if entry.mode == Mode::SendWhenActive {
                return None;
            }
        }
        _ => {}
    }
    entry.phase = Phase::Ending(Status::InProgress);
    let (status, result) = outcome.into_result();
    let result = Some(Box::new(result));
    Some(Change { result, ..change_of(entry, device, status, entry.updated) })
}
