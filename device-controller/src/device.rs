//! The active requests of one device, in order of creation.

use std::net::IpAddr;
use std::sync::Arc;

use vocabulary::{Iccid, Imsi, Timestamp};

use crate::action::Action;
use crate::request::{Mode, Request, Status};
use crate::request_id::RequestId;

/// A request that has not ended, or whose end is not durable.
pub(crate) struct Entry {
    pub(crate) place: u64,
    pub(crate) id: RequestId,
    pub(crate) action: Arc<Action>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    imsi: Option<Imsi>,
    ip: Option<IpAddr>,
    pub(crate) mode: Mode,
    pub(crate) attempts: u8,
    pub(crate) used: u8,
    pub(crate) phase: Phase,
    /// Whether it is handed over as soon as its turn comes.
    pub(crate) armed: bool,
}

/// How far an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// On its way to the disk: nobody has been told of it.
    Storing,
    /// On the disk, waiting.
    Waiting,
    /// A sender has it.
    InFlight,
    /// It has ended, and that is on its way to the disk. Until then it is shown as it was.
    Ending(Status),
}

/// The requests of a device. At most one of them is in flight.
#[derive(Default)]
pub(crate) struct Device {
    entries: Vec<Entry>,
    /// The serial number of what is in flight.
    in_flight: Option<u64>,
}

impl Entry {
    /// An entry for a request as it lies on the disk or is about to.
    pub(crate) fn new(place: u64, request: &Request, phase: Phase) -> Self {
        Self {
            place,
            id: request.id,
            action: Arc::clone(&request.action),
            created: request.created,
            updated: request.updated,
            imsi: request.imsi,
            ip: request.ip,
            mode: request.mode,
            attempts: request.send_attempts,
            used: request.send_attempts.saturating_sub(request.send_attempts_left),
            phase,
            armed: false,
        }
    }

    /// The status that is shown; `None` while nobody has been told of the request.
    pub(crate) fn status(&self) -> Option<Status> {
        match self.phase {
            Phase::Storing => None,
            Phase::Waiting => Some(Status::Scheduled),
            Phase::InFlight => Some(Status::InProgress),
            Phase::Ending(shown) => Some(shown),
        }
    }

    /// The request as it is shown.
    pub(crate) fn request(&self, device: Iccid) -> Option<Request> {
        Some(Request {
            id: self.id,
            device,
            action: Arc::clone(&self.action),
            mode: self.mode,
            status: self.status()?,
            created: self.created,
            updated: self.updated,
            send_attempts: self.attempts,
            send_attempts_left: self.attempts.saturating_sub(self.used),
            imsi: self.imsi,
            ip: self.ip,
            result: None,
        })
    }

    fn is_due(&self) -> bool {
        self.phase == Phase::Waiting && self.armed
    }
}

impl Device {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn entry(&mut self, place: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.place == place)
    }

    /// What is in flight.
    pub(crate) fn in_flight(&self) -> Option<u64> {
        self.in_flight
    }

    /// Takes a new request; its place is higher than that of those before it.
    pub(crate) fn push(&mut self, entry: Entry) {
        // Most devices have one request: no room is kept for more.
        self.entries.reserve_exact(1);
        self.entries.push(entry);
    }

    pub(crate) fn remove(&mut self, place: u64) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.place == place)?;
        let entry = self.entries.remove(at);
        if entry.phase == Phase::InFlight {
            self.in_flight = None;
        }
        Some(entry)
    }

    /// Requests of a mode that wait.
    pub(crate) fn waiting(&self, mode: Mode) -> usize {
        let waits = |entry: &&Entry| {
            entry.mode == mode && matches!(entry.phase, Phase::Storing | Phase::Waiting)
        };
        self.entries.iter().filter(waits).count()
    }

    /// The device has shown that it is awake: everything that waits is handed over in turn.
    pub(crate) fn arm_all(&mut self) {
        let waiting = self.entries.iter_mut();
        waiting
            .filter(|entry| !matches!(entry.phase, Phase::InFlight))
            .for_each(|entry| entry.armed = true);
    }

    /// What is to be sent at once, and waits, is handed over in turn.
    pub(crate) fn arm_urgent(&mut self) {
        let urgent = self.entries.iter_mut().filter(|entry| entry.mode == Mode::SendNow);
        urgent.filter(|entry| entry.phase == Phase::Waiting).for_each(|entry| entry.armed = true);
    }

    /// Marks the next request that is due as in flight under `serial`, if none is.
    pub(crate) fn start_next(&mut self, serial: u64, now: Timestamp) -> Option<&Entry> {
        self.start(serial, now, Entry::is_due)
    }

    /// Marks the oldest request that waits as in flight under `serial`, if none is in flight and
    /// it may ride on an answer.
    pub(crate) fn start_piggyback(&mut self, serial: u64, now: Timestamp) -> Option<&Entry> {
        let oldest = self.entries.iter().find(|entry| entry.phase == Phase::Waiting)?;
        if !oldest.action.rides() {
            // What is behind it must not overtake it.
            return None;
        }
        self.start(serial, now, |entry| entry.phase == Phase::Waiting)
    }

    fn start(
        &mut self,
        serial: u64,
        now: Timestamp,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> Option<&Entry> {
        if self.in_flight.is_some() {
            return None;
        }
        let entry = self.entries.iter_mut().find(|entry| is_wanted(entry))?;
        entry.phase = Phase::InFlight;
        entry.armed = false;
        entry.used += 1;
        entry.updated = now;
        self.in_flight = Some(serial);
        Some(entry)
    }

    /// Takes what is in flight back from its sender.
    pub(crate) fn take_in_flight(&mut self) -> Option<&mut Entry> {
        self.in_flight = None;
        self.entries.iter_mut().find(|entry| entry.phase == Phase::InFlight)
    }
}
