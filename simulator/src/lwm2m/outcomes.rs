//! How the requests of the devices of a run end.

use std::time::Duration;

use coap::IncomingResponse;
use coap::wire::{Code, OptionNumber};
use lwm2m::Path;

use crate::lwm2m::device::Ending;
use crate::lwm2m::firmware::Outcome;
use crate::lwm2m::leg::Leg;
use crate::lwm2m::registration::Purpose;
use crate::lwm2m::table::FIRMWARE;
use crate::lwm2m::world::{Waiting, World};

impl World<'_> {
    pub(crate) fn handle_response(&mut self, now: Duration, response: IncomingResponse<Leg>) {
        let Some(waiting) = self.waiting.remove(&response.request) else { return };
        let locations = response
            .options
            .iter()
            .filter(|option| option.number == OptionNumber::LOCATION_PATH)
            .filter_map(|option| option.as_str());
        let location = locations.collect::<Vec<_>>().join("/");
        let wait = response.options.recognised_uint(OptionNumber::MAX_AGE);
        let is_busy = response.code == Code::SERVICE_UNAVAILABLE;
        let ending = Ending::Answered {
            code: response.code,
            location: (!location.is_empty()).then(|| location.into_boxed_str()),
            wait: wait.filter(|_| is_busy).map(|wait| Duration::from_secs(wait.into())),
        };
        self.finish(now, waiting, ending, &response.payload);
    }

    /// A request of a device has ended, with this body of its answer.
    pub(crate) fn finish(
        &mut self,
        now: Duration,
        waiting: Waiting,
        ending: Ending,
        payload: &[u8],
    ) {
        let Waiting { device: index, purpose, since, is_traffic } = waiting;
        let code = match &ending {
            Ending::Answered { code, .. } => Some(*code),
            Ending::Failed => None,
        };
        let is_success = code == Some(purpose.success());
        self.note_finished((index, purpose), code);
        match (purpose, code) {
            (Purpose::Send(number), _) if is_success => {
                self.acknowledge(now, Some(number), since);
            }
            (Purpose::Send(_), code) => self.note_traffic_failed(code),
            (Purpose::Fetch, _) => {
                let firmware = self.devices[index as usize].objects.firmware_mut();
                match is_success {
                    true => firmware.take_package(payload, &self.firmware),
                    false => firmware.reset(Outcome::ConnectionLost),
                }
                self.note_firmware(index);
            }
            (Purpose::Update, _) if is_traffic && is_success => self.acknowledge(now, None, since),
            (Purpose::Update, code) if is_traffic => self.note_traffic_failed(code),
            (Purpose::Register, _) if is_success => {
                let device = &self.devices[index as usize];
                if device.was_registered {
                    self.lwm2m.counts.reregistrations += 1;
                } else {
                    self.lwm2m.registering.acknowledge(now.saturating_sub(device.since));
                    self.make_room(index);
                }
            }
            _ => {}
        }
        self.end(now, index, (purpose, ending));
    }

    /// The first registration of a device has ended, or is to be tried again.
    fn make_room(&mut self, index: u32) {
        let device = &mut self.devices[index as usize];
        if std::mem::take(&mut device.is_beginning) {
            self.registering = self.registering.saturating_sub(1);
        }
    }

    fn note_traffic_failed(&mut self, code: Option<Code>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match code {
            Some(code) => self.tally.reject(code),
            None => self.tally.counts.lost += 1,
        }
    }

    fn note_finished(&mut self, (index, purpose): (u32, Purpose), code: Option<Code>) {
        let counts = &mut self.lwm2m.counts;
        let is_success = code == Some(purpose.success());
        if !is_success {
            counts.bootstraps_failed += u64::from(purpose == Purpose::Bootstrap);
            counts.firmware_failed += u64::from(purpose == Purpose::Fetch);
            self.lwm2m.note_refused(purpose.name(), code);
            if self.devices[index as usize].is_beginning {
                match code {
                    Some(code) => self.lwm2m.registering.reject(code),
                    None => self.lwm2m.registering.counts.lost += 1,
                }
                self.make_room(index);
            }
            return;
        }
        match purpose {
            Purpose::Register => counts.registrations += 1,
            Purpose::Update => counts.updates += 1,
            Purpose::Deregister => counts.deregistrations += 1,
            Purpose::Fetch => counts.firmware_fetched += 1,
            Purpose::Bootstrap | Purpose::Send(_) => {}
        }
    }

    /// The state of the firmware object has changed by itself.
    pub(crate) fn note_firmware(&mut self, index: u32) {
        let path = Path::object(FIRMWARE);
        let observations = self.devices[index as usize].observations.iter_mut();
        observations.for_each(|one| one.note_written(&path));
    }

    pub(crate) fn end(&mut self, now: Duration, index: u32, ended: (Purpose, Ending)) {
        let jitter = 1.0 + self.random.below(500) as f64 / 1_000.0;
        self.devices[index as usize].handle_ending(now, ended, &self.rules, jitter);
        self.serve(now, index);
    }
}
