//! The load of a run: which device is next, and what it says.

use std::time::Duration;

use crate::lwm2m::device::Stage;
use crate::lwm2m::observations::Observation;
use crate::lwm2m::registration::Purpose;
use crate::lwm2m::world::World;

/// Devices looked at for one that is free, before the turn is given up.
const SEARCH: usize = 64;

impl World<'_> {
    /// Tells an observer the next number; `false` where no device near the cursor can.
    pub(crate) fn begin_notification(
        &mut self,
        now: Duration,
        since: Duration,
        cursor: &mut usize,
    ) -> bool {
        for _ in 0..SEARCH.min(self.observed.len()) {
            *cursor = (*cursor + 1) % self.observed.len().max(1);
            let Some(index) = self.observed.get(*cursor).copied() else { return false };
            match self.find_free_observer(now, index) {
                Ok(Some(place)) => {
                    let number = self.next_number(now, index);
                    self.devices[index as usize].measure(number as f64);
                    self.notify(now, (index, place), Some((number, since)));
                    self.serve(now, index);
                    return true;
                }
                Ok(None) => {}
                Err(()) => {
                    self.devices[index as usize].is_observed = false;
                    self.observed.swap_remove(*cursor);
                }
            }
        }
        false
    }

    /// The observation of a device that can be told something now; an error where nobody observes
    /// its measured value.
    fn find_free_observer(&self, now: Duration, index: u32) -> Result<Option<usize>, ()> {
        let device = &self.devices[index as usize];
        if !device.observations.iter().any(Observation::is_measured) {
            return Err(());
        }
        if device.stage != Stage::Registered {
            return Ok(None);
        }
        let respects_pmin = self.plan.lwm2m.respects_pmin;
        Ok(device.observations.iter().position(|one| {
            one.is_measured()
                && !one.is_awaited
                && (!respects_pmin || now >= one.free_at(&device.objects))
        }))
    }

    /// Sends the next number; `false` where no device near the cursor can.
    pub(crate) fn begin_send(
        &mut self,
        now: Duration,
        since: Duration,
        cursor: &mut usize,
    ) -> bool {
        let Some(index) = self.find_device(cursor, |device| !device.is_sending) else {
            return false;
        };
        let number = self.next_number(now, index);
        let device = &mut self.devices[index as usize];
        device.is_sending = true;
        device.asking = device.asking.saturating_add(1);
        self.outstanding += 1;
        self.ask(now, since, (index, Purpose::Send(number)));
        self.serve(now, index);
        true
    }

    /// Updates a registration; `false` where no device near the cursor can.
    pub(crate) fn begin_update(
        &mut self,
        now: Duration,
        since: Duration,
        cursor: &mut usize,
    ) -> bool {
        let Some(index) = self.find_device(cursor, |device| !device.is_updating()) else {
            return false;
        };
        self.tally.counts.sent += 1;
        self.outstanding += 1;
        let device = &mut self.devices[index as usize];
        device.update_due = Some(since);
        device.want_update();
        self.serve(now, index);
        true
    }

    fn find_device(
        &self,
        cursor: &mut usize,
        is_free: impl Fn(&crate::lwm2m::device::Device) -> bool,
    ) -> Option<u32> {
        for _ in 0..SEARCH.min(self.devices.len()) {
            *cursor = (*cursor + 1) % self.devices.len();
            let device = &self.devices[*cursor];
            if device.stage == Stage::Registered && is_free(device) {
                return u32::try_from(*cursor).ok();
            }
        }
        None
    }

    /// The number of the next message of the traffic, which is noted as sent.
    fn next_number(&mut self, now: Duration, index: u32) -> u64 {
        let number = self.plan.first_number + self.tally.counts.sent;
        self.tally.counts.sent += 1;
        let at = self.at(now);
        if let Some(ledger) = &mut self.ledger {
            ledger.note_sent(number, index, at);
        }
        number
    }

    /// Device `index` de-registers, if it is registered.
    pub(crate) fn leave(&mut self, now: Duration, index: u32) {
        self.devices[index as usize].leave(now);
        self.serve(now, index);
    }
}
